"""Questions to OKX's REST, and how answers are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
import pytest

from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import BookSnapshot, Candle, Origin, Side, Trade
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import HttpReply, RateSignal, RestCall
from pricefeedd_okx.rest import OkxRest

T = TypeVar("T")

REST = OkxRest()
MS = 1_000_000
MINUTE_MS = 60_000
NOW_MS = 1_790_373_640_000
NOW_NS = NOW_MS * MS
START_MS = NOW_MS // MINUTE_MS * MINUTE_MS  # the minute that runs


def instrument(market: str) -> Instrument:
    symbol, quote = {
        "spot": ("BTC-USDT", "USDT"),
        "linear": ("BTC-USDT-SWAP", "USDT"),
        "inverse": ("BTC-USD-SWAP", "USD"),
    }[market]
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="okx",
        market=market,
        name=spell("BTC", quote, kind),
        symbol=symbol,
        kind=kind,
        base="BTC",
        quote=quote,
    )


def reply(data: Any, status: int = 200, code: str = "0", **headers: str) -> HttpReply:
    body = data if isinstance(data, bytes) else orjson.dumps({"code": code, "msg": "words", "data": data})
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status=status, headers=names, body=body, received_ns=NOW_NS)


# --- Instruments ------------------------------------------------------------------------------------------


def test_a_market_of_contracts_is_two_lists() -> None:
    first = REST.instruments("linear")
    assert (first.request.endpoint, first.request.path) == ("linear_rest", "/api/v5/public/instruments")
    assert first.request.params == {"instType": "SWAP"}
    second = first.parse(reply([])).next
    assert second is not None
    assert second.request.params == {"instType": "FUTURES"}
    assert second.parse(reply([])).next is None
    spot = REST.instruments("spot")
    assert spot.request.params == {"instType": "SPOT"}
    assert spot.parse(reply([])).next is None


def test_demo_trading_is_asked_for_in_a_header() -> None:
    assert OkxRest(demo=True).instruments("spot").request.headers == {"x-simulated-trading": "1"}
    assert REST.instruments("spot").request.headers == {}


# --- Book -------------------------------------------------------------------------------------------------


def test_book() -> None:
    call = REST.book(instrument("linear"))
    assert (call.request.path, call.request.budget) == ("/api/v5/market/books", "books")
    assert call.request.params == {"instId": "BTC-USDT-SWAP", "sz": 400, "source": 0}
    row = {
        "asks": [["41006.8", "0.60038921", "0", "1"]],
        "bids": [["41006.30", "0.30178218", "0", "2"]],
        "ts": "1629966436396",
        "seqId": 3235851742,
    }
    page = call.parse(reply([row]))
    assert page.next is None
    assert page.items == (
        BookSnapshot(
            venue="okx",
            instrument="BTC-USDT-PERP",
            venue_time_ns=1_629_966_436_396 * MS,
            received_ns=NOW_NS,
            bids=[("41006.30", "0.30178218")],
            asks=[("41006.8", "0.60038921")],
            sequence=3235851742,
        ),
    )


@pytest.mark.parametrize(
    "data",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"code":"0"}',
        b'{"code":"0","data":{}}',
        b'{"code":"1","data":[]}',
        [],
        [{}],
        [{"asks": [], "bids": [], "ts": "5", "seqId": "7"}],
        [{"asks": [["1"]], "bids": [], "ts": "5", "seqId": 7}],
    ],
)
def test_answers_of_the_wrong_shape_are_refused(data: Any) -> None:
    with pytest.raises(DecodeError, match=r"bad reply|not JSON"):
        REST.book(instrument("spot")).parse(reply(data))


# --- Candles ----------------------------------------------------------------------------------------------


def row(start_ms: int, confirm: str = "1") -> list[str]:
    return [
        str(start_ms),
        "3.721",
        "3.743",
        "3.677",
        "3.708",
        "8422410",
        "22698348.04",
        "12698348.04",
        confirm,
    ]


def candles(start_ms: int, end_ms: int, market: str = "spot") -> RestCall[Candle]:
    return REST.candles(instrument(market), start_ms * MS, end_ms * MS)


def serve(call: RestCall[Candle] | None, known: list[int]) -> tuple[list[Candle], list[str]]:
    """Answer as the venue does: newest first, both ends exclusive, and only the latest 1440 by the first path."""
    found: list[Candle] = []
    paths = []
    while call is not None:
        request = call.request
        name = request.path.rpartition("/")[2]
        assert request.budget == name
        paths.append(name)
        older, newer = int(request.params["after"]), int(request.params["before"])
        oldest = NOW_MS - 1440 * MINUTE_MS if name == "candles" else 0
        limit = int(request.params["limit"])
        rows = [ms for ms in sorted(known, reverse=True) if newer < ms < older and ms > oldest][:limit]
        page = call.parse(reply([row(ms, "0" if ms == START_MS else "1") for ms in rows]))
        found += page.items
        call = page.next
        assert len(paths) < 100, "the paging does not end"
    return found, paths


def test_candles_question() -> None:
    request = candles(START_MS - 9 * MINUTE_MS, START_MS).request
    assert request.path == "/api/v5/market/candles"
    assert request.params == {
        "instId": "BTC-USDT",
        "bar": "1m",
        "before": START_MS - 9 * MINUTE_MS - 1,
        "after": START_MS + 1,
        "limit": 300,
    }


@pytest.mark.parametrize(("market", "turnover"), [("spot", "12698348.04"), ("inverse", "22698348.04")])
def test_a_candle_from_rest(market: str, turnover: str) -> None:
    start_ms = START_MS - MINUTE_MS
    (candle,) = candles(start_ms, start_ms, market).parse(reply([row(start_ms)])).items
    assert candle == Candle(
        venue="okx",
        instrument=instrument(market).name,
        received_ns=NOW_NS,
        origin=Origin.BACKFILL,
        start_ns=start_ms * MS,
        open="3.721",
        high="3.743",
        low="3.677",
        close="3.708",
        volume="8422410",
        turnover=turnover,
        closed=True,
    )


def test_both_ends_are_in_and_the_running_minute_is_not_closed() -> None:
    known = [START_MS - i * MINUTE_MS for i in range(20)]
    found, paths = serve(candles(START_MS - 9 * MINUTE_MS, START_MS), known)
    assert [c.start_ns // MS for c in found] == [START_MS - i * MINUTE_MS for i in range(9, -1, -1)]
    assert [c.closed for c in found] == [True] * 9 + [False]
    assert paths == ["candles"]


def test_a_start_inside_a_minute_asks_from_the_next_one() -> None:
    known = [START_MS - i * MINUTE_MS for i in range(20)]
    found, _ = serve(candles(START_MS - 3 * MINUTE_MS + 1, START_MS - MINUTE_MS + 59_999), known)
    assert [c.start_ns // MS for c in found] == [START_MS - 2 * MINUTE_MS, START_MS - MINUTE_MS]


@pytest.mark.parametrize("minutes", [300, 301, 601, 1400])
def test_candles_page_by_time(minutes: int) -> None:
    first_ms = START_MS - minutes * MINUTE_MS
    known = [first_ms + i * MINUTE_MS for i in range(minutes)]
    found, paths = serve(candles(first_ms, first_ms + (minutes - 1) * MINUTE_MS), known)
    assert [c.start_ns // MS for c in found] == known
    assert paths == ["candles"] * -(-minutes // 300)


def test_what_recent_candles_do_not_reach_comes_from_history() -> None:
    first_ms = START_MS - 2000 * MINUTE_MS
    known = [first_ms + i * MINUTE_MS for i in range(2001)]
    found, paths = serve(candles(first_ms, START_MS), known)
    assert [c.start_ns // MS for c in found] == known
    # The first page was asked for in vain; the third window still begins out of reach.
    assert paths[0] == "candles"
    assert paths.count("history-candles") == 2
    assert len(paths) == 1 + 7


def test_minutes_that_the_venue_leaves_out_do_not_end_the_search() -> None:
    first_ms = START_MS - 700 * MINUTE_MS
    known = [START_MS - MINUTE_MS]
    found, paths = serve(candles(first_ms, START_MS - MINUTE_MS), known)
    assert [c.start_ns // MS for c in found] == known
    assert len(paths) == 3


def test_rows_out_of_the_window_are_left_out() -> None:
    rows = [row(START_MS + i * MINUTE_MS) for i in (1, 0, -1)]
    page = candles(START_MS, START_MS).parse(reply(rows))
    assert [c.start_ns // MS for c in page.items] == [START_MS]


@pytest.mark.parametrize(
    "data", [[[]], [1], [["1"]], [[*row(START_MS)[:8], "yes"]], [[START_MS, *row(START_MS)[1:]]]]
)
def test_candles_of_the_wrong_shape_are_refused(data: Any) -> None:
    with pytest.raises(DecodeError):
        candles(START_MS, START_MS).parse(reply(data))


# --- Trades -----------------------------------------------------------------------------------------------


def fill(number: int, time_ms: int | None = None) -> dict[str, str]:
    ts = NOW_MS - 1_000_000 + number if time_ms is None else time_ms
    return {
        "instId": "BTC-USDT", "tradeId": str(number), "px": "29963.2", "sz": "0.00001", "side": "sell",
        "source": "0", "ts": str(ts),
    }  # fmt: skip


def trades(after: int | None, before: int | None, from_ms: int = 0, to_ms: int = NOW_MS) -> RestCall[Trade]:
    return REST.trades(
        instrument("spot"),
        after_id=None if after is None else str(after),
        before_id=None if before is None else str(before),
        from_ns=from_ms * MS,
        to_ns=to_ms * MS,
    )


def newest(params: Mapping[str, str | int], known: list[dict[str, str]]) -> list[dict[str, str]]:
    """Answer as the venue does: newest first. Ids are known without a hole."""
    if not known:
        return []
    older = int(params.get("after", 1 << 62))
    stop = max(0, min(len(known), older - int(known[0]["tradeId"])))
    return known[max(0, stop - int(params["limit"])) : stop][::-1]


def all_trades(call: RestCall[Trade] | None, known: list[dict[str, str]]) -> tuple[list[int], list[str]]:
    """Return the ids that a hole yields, and the paths that were asked."""
    ids: list[int] = []
    paths = []
    while call is not None:
        paths.append(call.request.path.rpartition("/")[2])
        assert len(paths) < 300, "the paging does not end"
        page = call.parse(reply(newest(call.request.params, known)))
        ids += [int(found.id or 0) for found in page.items]
        call = page.next
    return ids, paths


def test_trades_question() -> None:
    request = trades(100, 111).request
    assert (request.path, request.budget) == ("/api/v5/market/trades", "trades")
    assert request.params == {"instId": "BTC-USDT", "limit": 500}


def test_a_trade_from_rest() -> None:
    page = trades(241720, 241722).parse(reply([fill(241722), fill(241721, 1_654_161_646_974), fill(241720)]))
    assert page.next is None
    assert page.items == (
        Trade(
            venue="okx",
            instrument="BTC-USDT",
            venue_time_ns=1_654_161_646_974 * MS,
            received_ns=NOW_NS,
            origin=Origin.BACKFILL,
            id="241721",
            price="29963.2",
            size="0.00001",
            aggressor=Side.SELL,
        ),
    )


def test_a_recent_hole_takes_one_request() -> None:
    known = [fill(i) for i in range(1, 1001)]
    ids, paths = all_trades(trades(700, 711), known)
    assert ids == list(range(701, 711))
    assert paths == ["trades"]


def test_a_long_hole_is_read_back_to_its_beginning() -> None:
    known = [fill(i) for i in range(1, 5000)]
    ids, paths = all_trades(trades(3000, 4990), known)
    assert ids == list(range(3001, 4990)), "oldest first, to the brim and no further"
    assert paths == ["trades"] + ["history-trades"] * 15


def test_a_hole_far_back_is_begun_at_its_end() -> None:
    known = [fill(i) for i in range(1, 100_000)]
    ids, paths = all_trades(trades(1000, 1050), known)
    assert ids == list(range(1001, 1050))
    assert paths == ["trades", "history-trades"]


def test_a_hole_between_times() -> None:
    known = [fill(i) for i in range(1, 5000)]
    base_ms = NOW_MS - 1_000_000
    ids, _ = all_trades(trades(None, None, base_ms + 4000, base_ms + 4600), known)
    assert ids == list(range(4000, 4601))


def test_trades_that_the_venue_no_longer_has_end_the_search() -> None:
    assert all_trades(trades(100, 2000), [fill(i) for i in range(1900, 2001)])[0] == list(range(1900, 2000))
    assert all_trades(trades(100, 200), []) == ([], ["trades"])


def test_a_hole_without_bottom_has_an_end() -> None:
    known = [fill(i) for i in range(1, 40_000)]
    ids, paths = all_trades(trades(1, 39_999), known)
    assert 20_000 <= len(ids) < 20_200
    assert ids[-1] == 39_998, "the newest are kept"
    assert len(paths) < 200


@pytest.mark.parametrize("data", [[1], [{}], [fill(1) | {"tradeId": 5}], [fill(1) | {"side": ""}]])
def test_trades_of_the_wrong_shape_are_refused(data: Any) -> None:
    with pytest.raises(DecodeError):
        trades(0, 5).parse(reply(data))


# --- What an answer stands for ----------------------------------------------------------------------------


def test_a_good_answer_says_nothing_of_the_rate() -> None:
    assert REST.examine(reply([])) == RateSignal()
    assert REST.examine(reply(b'{ "msg": "", "data": [], "code": "0" }')) == RateSignal()


@pytest.mark.parametrize("status", [200, 429])
def test_too_fast_whatever_the_status(status: int) -> None:
    with pytest.raises(RateLimitedError, match="50011") as caught:
        REST.examine(reply([], status, code="50011"))
    assert caught.value.retry_after_s == 2.0
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply([], status, code="50011", retry_after="7"))
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize("code", ["51001", "51000", "50014"])
def test_what_does_not_exist_is_not_asked_for_again(code: str) -> None:
    for status in (200, 400):
        with pytest.raises(SubscriptionRejectedError, match=f"words .code {code}"):
            REST.examine(reply([], status, code=code))


@pytest.mark.parametrize(("status", "code"), [(200, "50013"), (200, "50001"), (503, "50001"), (200, "99999")])
def test_the_venues_faults_may_pass(status: int, code: str) -> None:
    with pytest.raises(VenueError) as caught:
        REST.examine(reply([], status, code=code))
    assert caught.value.retry
    assert not isinstance(caught.value, RateLimitedError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, ConnectError),
        (429, RateLimitedError),
        (451, ConnectError),
        (500, VenueError),
        (404, SubscriptionRejectedError),
    ],
)
def test_a_firewalls_page_is_known_by_its_status(status: int, kind: type[VenueError]) -> None:
    with pytest.raises(kind):
        REST.examine(reply(b"<html>no</html>", status))
