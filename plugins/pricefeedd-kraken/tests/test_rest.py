"""Questions to Kraken's REST, and how answers are read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import Candle, Origin, Side, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply, RateSignal, RestCall
from pricefeedd_kraken.rest import KrakenRest
from pricefeedd_kraken.venue import kraken

REST = KrakenRest()
NOW_NS = 1_790_373_640_000_000_000
START_S = 1_790_373_600  # the minute that runs at NOW_NS
BTC = Instrument(
    venue="kraken",
    market="spot",
    name="BTC-USD",
    symbol="BTC/USD",
    rest_symbol="XBTUSD",
    kind=Kind.SPOT,
    base="BTC",
    quote="USD",
)


def reply(body: Any, status: int = 200, now_ns: int = NOW_NS, **headers: str) -> HttpReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpReply(status=status, headers=headers, body=data, received_ns=now_ns)


def result(**content: Any) -> dict[str, Any]:
    return {"error": [], "result": content}


# --- Instruments and books --------------------------------------------------------------------------------


def test_instruments() -> None:
    call = REST.instruments("spot")
    assert (call.request.path, call.request.params) == ("/0/public/AssetPairs", {})
    body = result(XXBTZUSD={"altname": "XBTUSD", "wsname": "XBT/USD", "status": "online"})
    page = call.parse(reply(body))
    assert ([found.name for found in page.items], page.next) == (["BTC-USD"], None)
    for wrong in (b"<html>", b"[]", b"{}", b'{"error":[]}', b'{"error":[],"result":[]}'):
        with pytest.raises(DecodeError):
            call.parse(reply(wrong))


def test_books_come_by_the_stream_alone() -> None:
    assert REST.book(BTC) is None


# --- Candles ----------------------------------------------------------------------------------------------


def row(start_s: int, trades: int = 5) -> list[Any]:
    return [start_s, "37769.3", "37769.4", "37769.2", "37769.4", "37769.4", "0.01953167", trades]


def candles(start_s: int, end_s: int) -> RestCall[Candle]:
    return REST.candles(BTC, start_s * 10**9, end_s * 10**9)


def test_candles_are_asked_for_in_seconds_from_just_before_the_first() -> None:
    request = candles(START_S - 600, START_S).request
    assert request.path == "/0/public/OHLC"
    assert request.params == {"pair": "XBTUSD", "interval": 1, "since": START_S - 601}
    between = REST.candles(BTC, (START_S - 599) * 10**9, START_S * 10**9).request
    assert between.params["since"] == START_S - 541, "the first minute that opens in the window"


def test_a_candle_of_rest() -> None:
    body = result(XXBTZUSD=[row(START_S - 120)], last=START_S - 120)
    (candle,) = candles(START_S - 120, START_S).parse(reply(body)).items
    assert candle == Candle(
        venue="kraken",
        instrument="BTC-USD",
        received_ns=NOW_NS,
        origin=Origin.BACKFILL,
        start_ns=(START_S - 120) * 10**9,
        open="37769.3",
        high="37769.4",
        low="37769.2",
        close="37769.4",
        volume="0.01953167",
        trades=5,
        closed=True,
    )


def test_both_ends_of_the_window_belong_to_it_and_nothing_beyond() -> None:
    rows = [row(START_S - 60 * i) for i in range(10, 0, -1)]
    page = candles(START_S - 480, START_S - 240).parse(reply(result(K=rows, last=START_S - 60)))
    starts = [candle.start_ns // 10**9 - START_S for candle in page.items]
    assert starts == [-480, -420, -360, -300, -240]
    assert page.next is None, "there is one page"


def test_the_last_row_runs_still() -> None:
    body = result(K=[row(START_S - 60), row(START_S)], last=START_S - 60)
    assert [c.closed for c in candles(START_S - 60, START_S).parse(reply(body)).items] == [True, False]


def test_a_minute_that_ended_a_moment_ago_may_still_change() -> None:
    body = result(K=[row(START_S - 60), row(START_S)], last=START_S - 60)
    early = reply(body, now_ns=START_S * 10**9 + 500_000_000)
    assert not candles(START_S - 60, START_S - 60).parse(early).items[0].closed


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        result(),
        result(last=5),
        result(K=[], last="x"),
        result(K={}, last=5),
        result(K=[[START_S]], last=START_S),
        result(K=[row(START_S)[:-1]], last=START_S),
        result(K=[["x", *row(START_S)[1:]]], last=START_S),
        result(K=[[START_S, 1, *row(START_S)[2:]]], last=START_S),
        [],
        None,
    ],
)
def test_candles_of_the_wrong_shape_are_refused(body: Any) -> None:
    with pytest.raises(DecodeError):
        candles(START_S, START_S).parse(reply(body))


# --- Trades -----------------------------------------------------------------------------------------------

T0_NS = NOW_NS - 3600 * 10**9


def trade_row(number: int) -> list[Any]:
    """Return the row of a trade; there are ten a second."""
    seconds, rest = divmod(T0_NS + number * 100_000_000, 10**9)
    text = f"{seconds}.{rest:09d}"
    return ["30243.40000", "0.34507674", orjson.Fragment(text), "b", "m", "", number]


def served(call: RestCall[Trade] | None, known: range) -> tuple[list[int], int]:
    """Return the ids that a hole yields, and how many requests it took."""
    ids: list[int] = []
    requests = 0
    while call is not None:
        requests += 1
        assert requests < 50, "the paging does not end"
        params = call.request.params
        assert (call.request.path, params["pair"]) == ("/0/public/Trades", "XBTUSD")
        since = int(params["since"])
        numbers = [n for n in known if T0_NS + n * 100_000_000 > since][: int(params["count"])]
        last = T0_NS + numbers[-1] * 100_000_000 if numbers else since
        page = call.parse(reply(result(XXBTZUSD=[trade_row(n) for n in numbers], last=str(last))))
        assert all(trade.origin is Origin.BACKFILL for trade in page.items)
        ids += [int(trade.id or 0) for trade in page.items]
        call = page.next
    return ids, requests


def hole(after: int | None, before: int | None, from_s: float, to_s: float = 0.0) -> RestCall[Trade] | None:
    return REST.trades(
        BTC,
        after_id=None if after is None else str(after),
        before_id=None if before is None else str(before),
        from_ns=T0_NS + int(from_s * 10**9),
        to_ns=T0_NS + int(to_s * 10**9),
    )


def test_a_trade_of_rest() -> None:
    call = hole(61044951, 61044953, 0)
    assert call is not None
    body = b'{"error":[],"result":{"XXBTZUSD":[["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]],"last":"1688669597827736900"}}'
    page = call.parse(reply(body))
    assert page.next is None
    assert page.items == [
        Trade(
            venue="kraken",
            instrument="BTC-USD",
            venue_time_ns=1_688_669_597_827_736_900,
            received_ns=NOW_NS,
            origin=Origin.BACKFILL,
            id="61044952",
            price="30243.40000",
            size="0.34507674",
            aggressor=Side.BUY,
        )
    ]


def test_a_hole_is_filled_to_the_brim_and_no_further() -> None:
    assert served(hole(1000, 1011, 100.0), range(1, 5000)) == (list(range(1001, 1011)), 1)


def test_a_long_hole_takes_several_pages() -> None:
    assert served(hole(1000, 4001, 100.0), range(1, 5000)) == (list(range(1001, 4001)), 4)


@pytest.mark.parametrize(("ahead_s", "requests"), [(60, 2), (3600, 3)])
def test_a_clock_of_ours_that_is_wrong_is_searched_around(ahead_s: int, requests: int) -> None:
    ids, asked = served(hole(1000, 1011, 100.0 + ahead_s), range(900, 1500))
    assert (ids, asked) == (list(range(1001, 1011)), requests)


def test_trades_that_the_venue_no_longer_has_end_the_search() -> None:
    assert served(hole(100, 200, 10.0), range(150, 300)) == (list(range(150, 200)), 3)
    assert served(hole(100, 200, 10.0), range(0)) == ([], 3)


def test_a_hole_between_times() -> None:
    ids, requests = served(hole(None, None, 100.0, 110.0), range(1, 5000))
    assert (ids, requests) == (list(range(1000, 1101)), 1)


def test_whole_seconds_are_a_time_too() -> None:
    call = hole(1, 3, 0)
    assert call is not None
    body = b'{"error":[],"result":{"K":[["1.0","1.0",1688669597,"s","l","",2]],"last":"1"}}'
    (trade,) = call.parse(reply(body)).items
    assert (trade.venue_time_ns, trade.aggressor) == (1_688_669_597_000_000_000, Side.SELL)


@pytest.mark.parametrize(
    "rows",
    [
        [["1.0", "1.0", 1.5, "b", "m", ""]],
        [["1.0", "1.0", 1.5, "x", "m", "", 2]],
        [[1, "1.0", 1.5, "b", "m", "", 2]],
        [["1.0", "1.0", None, "b", "m", "", 2]],
        [["1.0", "1.0", 1.5, "b", "m", "", "2"]],
        [7],
    ],
)
def test_trades_of_the_wrong_shape_are_refused(rows: list[Any]) -> None:
    call = hole(1, 9, 0)
    assert call is not None
    with pytest.raises(DecodeError):
        call.parse(reply(result(K=rows, last="1")))


# --- What answers stand for -------------------------------------------------------------------------------


def test_an_answer_without_errors_says_nothing_of_limits() -> None:
    assert REST.examine(reply(b'{"error":[],"result":{}}')) == RateSignal()
    assert REST.examine(reply(b'{ "result":{}, "error" : [ ] }')) == RateSignal()


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        ("EAPI:Rate limit exceeded", 10.0),
        ("EGeneral:Too many requests", 10.0),
        ("EService:Throttled", 10.0),
        (f"EService: Throttled: {NOW_NS // 10**9 + 17}", 17.0),
        (f"EService: Throttled: {NOW_NS // 10**9 - 17}", 1.0),
        ("EGeneral:Temporary lockout", 900.0),
    ],
)
def test_errors_of_rates_come_with_http_200(error: str, wait_s: float) -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply({"error": [error]}))
    assert caught.value.retry_after_s == pytest.approx(wait_s)


@pytest.mark.parametrize("error", ["EQuery:Unknown asset pair", "EGeneral:Invalid arguments"])
def test_what_asking_again_cannot_help(error: str) -> None:
    with pytest.raises(SubscriptionRejectedError, match=error):
        REST.examine(reply({"error": [error]}))


@pytest.mark.parametrize("error", ["EService:Unavailable", "EService:Busy", "EGeneral:Internal error"])
def test_the_venues_own_faults_are_tried_again(error: str) -> None:
    with pytest.raises(VenueError) as caught:
        REST.examine(reply({"error": [error]}))
    assert type(caught.value) is VenueError
    assert caught.value.retry


@pytest.mark.parametrize("body", [b"<html>checking your browser</html>", b"", b"[]", b'{"result":{}}'])
def test_a_page_of_the_proxy_is_no_answer(body: bytes) -> None:
    with pytest.raises(VenueError, match="not an answer of the API"):
        REST.examine(reply(body))


def test_statuses() -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"error code: 1015", 429, **{"retry-after": "30"}))
    assert caught.value.retry_after_s == 30.0
    with pytest.raises(ConnectError):
        REST.examine(reply(b"<html>", 403))
    with pytest.raises(VenueError, match="520"):
        REST.examine(reply(b"<html>", 520))


def test_budgets_and_endpoints_exist() -> None:
    venue = kraken()
    budgets = {budget.name for budget in venue.budgets}
    for call in (REST.instruments("spot"), candles(START_S, START_S), hole(1, 9, 0)):
        assert call is not None
        assert call.request.budget in budgets
        assert call.request.endpoint in venue.endpoints
