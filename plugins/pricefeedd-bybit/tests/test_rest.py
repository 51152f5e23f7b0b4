"""Questions to Bybit's REST, and how answers are read."""

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
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import HttpReply, RateSignal, RestCall
from pricefeedd_bybit.rest import BybitRest
from pricefeedd_bybit.venue import bybit

REST = BybitRest()
MARKETS = ("spot", "linear", "inverse")
MINUTE_MS = 60_000
START_MS = 1_790_373_600_000  # the minute that runs at NOW_MS
NOW_MS = START_MS + 40_000


def instrument(market: str) -> Instrument:
    symbol, quote = ("BTCUSD", "USD") if market == "inverse" else ("BTCUSDT", "USDT")
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="bybit",
        market=market,
        name=spell("BTC", quote, kind),
        symbol=symbol,
        kind=kind,
        base="BTC",
        quote=quote,
    )


def envelope(result: Any, code: int = 0, text: str = "OK", now_ms: int = NOW_MS) -> dict[str, Any]:
    return {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}, "time": now_ms}


def reply(body: Any, status: int = 200, *, ours_ms: int = NOW_MS, **headers: Any) -> HttpReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status=status, headers=names, body=data, received_ns=ours_ms * 1_000_000)


# --- Candles ----------------------------------------------------------------------------------------------


def row(start_ms: int, volume: str = "2.081") -> list[str]:
    return [str(start_ms), "17071", "17073", "17027", "17055.5", volume, "15.74462667"]


def candles(market: str, start_ms: int, end_ms: int) -> RestCall[Candle]:
    return REST.candles(instrument(market), start_ms * 1_000_000, end_ms * 1_000_000)


@pytest.mark.parametrize("market", MARKETS)
def test_candles_question_names_the_market_and_both_ends(market: str) -> None:
    request = candles(market, START_MS, START_MS + 9 * MINUTE_MS).request
    assert (request.endpoint, request.path, request.budget) == (f"{market}_rest", "/v5/market/kline", "rest")
    assert request.params == {
        "category": market,
        "symbol": instrument(market).symbol,
        "interval": "1",
        "start": START_MS,
        "end": START_MS + 9 * MINUTE_MS,
        "limit": 10,
    }


def test_a_start_inside_a_minute_asks_from_the_next_one() -> None:
    call = REST.candles(instrument("spot"), START_MS * 1_000_000 + 1, (START_MS + 2 * MINUTE_MS) * 1_000_000)
    assert (call.request.params["start"], call.request.params["limit"]) == (START_MS + MINUTE_MS, 2)


def test_a_candle_from_rest() -> None:
    start_ms = START_MS - MINUTE_MS
    page = candles("linear", start_ms, start_ms).parse(reply(envelope({"list": [row(start_ms)]})))
    assert page.next is None
    assert page.items == [
        Candle(
            venue="bybit",
            instrument="BTC-USDT-PERP",
            venue_time_ns=None,
            received_ns=NOW_MS * 1_000_000,
            origin=Origin.BACKFILL,
            start_ns=start_ms * 1_000_000,
            open="17071",
            high="17073",
            low="17027",
            close="17055.5",
            volume="2.081",
            turnover="15.74462667",
            closed=True,
        )
    ]


@pytest.mark.parametrize(("ours_ms"), [NOW_MS, NOW_MS - 3_600_000, NOW_MS + 3_600_000])
@pytest.mark.parametrize(
    ("venue_ms", "closed"),
    [
        (START_MS + 30_000, False),
        (START_MS + 60_000, False),
        (START_MS + 61_999, False),
        (START_MS + 62_000, True),
    ],
)
def test_a_minute_is_closed_by_the_venues_clock_and_not_by_ours(
    venue_ms: int, closed: bool, ours_ms: int
) -> None:
    body = envelope({"list": [row(START_MS)]}, now_ms=venue_ms)
    (candle,) = candles("linear", START_MS, START_MS).parse(reply(body, ours_ms=ours_ms)).items
    assert candle.closed is closed


def kline(params: Any) -> list[list[str]]:
    """Answer as the venue does: both ends included, newest first, and the newest where there are too many."""
    first = -(-int(params["start"]) // MINUTE_MS) * MINUTE_MS
    starts = range(first, int(params["end"]) + 1, MINUTE_MS)
    return [row(ms) for ms in list(starts)[-int(params["limit"]) :][::-1]]


@pytest.mark.parametrize("minutes", [1, 999, 1000, 1001, 2007])
def test_pages_meet_without_a_hole_or_a_row_twice(minutes: int) -> None:
    first_ms = START_MS - 10_000 * MINUTE_MS
    call: RestCall[Candle] | None = candles("spot", first_ms, first_ms + (minutes - 1) * MINUTE_MS)
    found: list[Candle] = []
    pages = 0
    while call is not None:
        pages += 1
        assert int(call.request.params["limit"]) <= 1000
        page = call.parse(reply(envelope({"list": kline(call.request.params)})))
        found += page.items
        call = page.next
    assert pages == -(-minutes // 1000)
    assert [c.start_ns for c in found] == [(first_ms + i * MINUTE_MS) * 1_000_000 for i in range(minutes)]


def test_minutes_that_the_venue_leaves_out_do_not_end_the_search() -> None:
    first_ms = START_MS - 10_000 * MINUTE_MS
    page = candles("spot", first_ms, START_MS).parse(reply(envelope({"list": []})))
    assert page.items == []
    assert page.next is not None
    assert page.next.request.params["start"] == first_ms + 1000 * MINUTE_MS


def test_rows_outside_of_the_window_are_left_out() -> None:
    rows = [row(START_MS + MINUTE_MS), row(START_MS), row(START_MS - MINUTE_MS)]
    page = candles("spot", START_MS, START_MS).parse(reply(envelope({"list": rows})))
    assert [c.start_ns for c in page.items] == [START_MS * 1_000_000]


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", envelope(None), envelope({}), envelope({"list": None}), envelope({"list": [[]]}),
     envelope({"list": [1]}), envelope({"list": [[START_MS, *row(START_MS)[1:]]]}),
     envelope({"list": [[str(START_MS), 7.6, *row(START_MS)[2:]]]}), envelope({"list": []}) | {"time": "1"}],
)  # fmt: skip
def test_candles_of_the_wrong_shape_are_refused(body: Any) -> None:
    with pytest.raises(DecodeError):
        candles("spot", START_MS, START_MS).parse(reply(body))


# --- Trades -----------------------------------------------------------------------------------------------


def trade(number: int, ms: int | None = None) -> dict[str, Any]:
    return {
        "execId": f"id-{number}", "symbol": "BTCUSDT", "price": "16618.49", "size": "0.00012", "side": "Buy",
        "time": str(START_MS + number if ms is None else ms), "isBlockTrade": False, "isRPITrade": False,
    }  # fmt: skip


def ids(
    known: range,
    *,
    after: int | None = None,
    before: int | None = None,
    from_ms: int = 0,
    to_ms: int = NOW_MS,
) -> list[str | None]:
    call = REST.trades(
        instrument("linear"),
        after_id=None if after is None else f"id-{after}",
        before_id=None if before is None else f"id-{before}",
        from_ns=(START_MS + from_ms) * 1_000_000,
        to_ns=to_ms * 1_000_000,
    )
    page = call.parse(reply(envelope({"list": [trade(i) for i in reversed(known)]})))
    assert page.next is None
    return [t.id for t in page.items]


@pytest.mark.parametrize(("market", "limit"), [("spot", 60), ("linear", 1000), ("inverse", 1000)])
def test_trades_question(market: str, limit: int) -> None:
    call = REST.trades(instrument(market), after_id=None, before_id=None, from_ns=0, to_ns=0)
    assert call.request.path == "/v5/market/recent-trade"
    assert call.request.params == {
        "category": market,
        "symbol": instrument(market).symbol,
        "limit": limit,
    }


def test_a_trade_from_rest() -> None:
    call = REST.trades(instrument("spot"), after_id=None, before_id=None, from_ns=0, to_ns=NOW_MS * 1_000_000)
    (found,) = call.parse(reply(envelope({"category": "spot", "list": [trade(7)]}))).items
    assert found == Trade(
        venue="bybit",
        instrument="BTC-USDT",
        venue_time_ns=(START_MS + 7) * 1_000_000,
        received_ns=NOW_MS * 1_000_000,
        origin=Origin.BACKFILL,
        id="id-7",
        price="16618.49",
        size="0.00012",
        aggressor=Side.BUY,
    )


def test_trades_of_a_window_come_oldest_first_both_ends_included() -> None:
    assert ids(range(100), from_ms=95, to_ms=START_MS + 98) == ["id-95", "id-96", "id-97", "id-98"]


def test_trades_between_two_ids_are_strictly_between() -> None:
    assert ids(range(100), after=10, before=14) == ["id-11", "id-12", "id-13"]
    assert ids(range(100), after=97) == ["id-98", "id-99"]
    assert ids(range(3), before=2) == ["id-0", "id-1"]


def test_an_id_that_is_too_old_leaves_all_that_is_there() -> None:
    assert ids(range(50, 53), after=10) == ["id-50", "id-51", "id-52"]


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 0, 3_600_000])
def test_the_end_of_a_window_is_by_our_clock(ahead_ms: int) -> None:
    call = REST.trades(
        instrument("linear"),
        after_id=None,
        before_id=None,
        from_ns=START_MS * 1_000_000,
        to_ns=(NOW_MS + ahead_ms) * 1_000_000,
    )
    body = envelope({"list": [trade(1), trade(0)]})
    assert len(call.parse(reply(body, ours_ms=NOW_MS + ahead_ms)).items) == 2


@pytest.mark.parametrize(
    "rows",
    [None, {}, [1], [{}], [trade(1) | {"execId": 5}], [trade(1) | {"time": 5}], [trade(1) | {"side": "buy"}],
     [trade(1) | {"price": ""}], [trade(1) | {"size": "-1"}]],
)  # fmt: skip
def test_trades_of_the_wrong_shape_are_refused(rows: Any) -> None:
    call = REST.trades(instrument("spot"), after_id=None, before_id=None, from_ns=0, to_ns=1)
    with pytest.raises(DecodeError):
        call.parse(reply(envelope({"list": rows})))


def test_books_come_by_the_stream_alone() -> None:
    for market in MARKETS:
        assert REST.book(instrument(market)) is None


# --- What answers stand for -------------------------------------------------------------------------------


def test_a_good_answer_says_nothing_of_the_budget() -> None:
    assert REST.examine(reply(envelope({}))) == RateSignal()
    spaced = orjson.dumps(envelope({}), option=orjson.OPT_INDENT_2)
    assert REST.examine(reply(spaced)) == RateSignal()
    # The limit of one endpoint is no measure for the 600 of the address.
    assert REST.examine(reply(envelope({}), x_bapi_limit="50", x_bapi_limit_status="49")) == RateSignal()


def test_a_limit_that_is_used_up_is_told() -> None:
    headers: dict[str, Any] = {"x_bapi_limit_status": "0", "x_bapi_limit_reset_timestamp": str(NOW_MS + 2000)}
    assert REST.examine(reply(envelope({}), **headers)) == RateSignal(remaining=0, reset_after_s=2.0)


def test_too_frequent_is_a_ban_of_ten_minutes() -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"403, access too frequent", 403))
    assert caught.value.retry_after_s == 600.0


def test_another_403_is_an_address_that_is_not_served() -> None:
    with pytest.raises(ConnectError, match="region") as caught:
        REST.examine(reply(b"<html>The Amazon CloudFront distribution is configured to block</html>", 403))
    assert caught.value.retry_after_s == 300.0


def test_429_waits_as_long_as_told() -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"", 429, retry_after="17"))
    assert caught.value.retry_after_s == 17.0


@pytest.mark.parametrize(
    ("reset", "wait_s"),
    [(str(NOW_MS + 3000), 3.0), (str(NOW_MS - 9), 0.5), (str(NOW_MS + 10**9), 60.0), ("x", 5.0), (None, 5.0)],
)
@pytest.mark.parametrize("code", [10006, 10018])
def test_too_many_visits_waits_for_the_reset(code: int, reset: str | None, wait_s: float) -> None:
    headers: dict[str, Any] = {} if reset is None else {"x_bapi_limit_reset_timestamp": reset}
    with pytest.raises(RateLimitedError, match="Too many visits") as caught:
        REST.examine(reply(envelope({}, code, "Too many visits!"), **headers))
    assert caught.value.retry_after_s == pytest.approx(wait_s)


def test_a_bad_parameter_is_not_asked_for_again() -> None:
    with pytest.raises(SubscriptionRejectedError, match=r"symbol invalid \(code 10001\)") as caught:
        REST.examine(reply(envelope({}, 10001, "params error: symbol invalid")))
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, envelope({}, 10016, "Internal server error.")),
        (200, envelope({}, 10000, "Server Timeout")),
        (200, envelope({}, 999999, "something new")),
        (500, b"<html>oops</html>"),
        (502, b""),
        (301, b""),
    ],
)
def test_the_venues_own_faults_are_tried_again(status: int, body: Any) -> None:
    with pytest.raises(VenueError) as caught:
        REST.examine(reply(body, status))
    assert type(caught.value) is VenueError
    assert caught.value.retry


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"retCode":1}', b"null"])
def test_an_answer_without_an_envelope_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        REST.examine(reply(body))


def test_budgets_and_endpoints_exist() -> None:
    venue = bybit()
    budgets = {budget.name for budget in venue.budgets}
    for market in MARKETS:
        for call in (REST.instruments(market), candles(market, START_MS, START_MS)):
            assert call.request.budget in budgets
            assert call.request.endpoint in venue.endpoints
