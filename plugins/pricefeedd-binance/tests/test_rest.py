"""Questions to Binance's REST, what they cost, and how answers are read."""

from __future__ import annotations

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
from pricefeedd.rest import HttpReply, HttpRequest, Page, RateSignal, RestCall
from pricefeedd_binance.rest import BinanceRest
from pricefeedd_binance.venue import binance

T = TypeVar("T")

REST = BinanceRest()
MARKETS = ("spot", "linear", "inverse")
NOW_NS = 1_790_373_640_000_000_000
MINUTE_MS = 60_000
START_MS = 1_790_373_600_000  # the minute that runs at NOW_NS
PREFIX = {"spot": "/api/v3", "linear": "/fapi/v1", "inverse": "/dapi/v1"}


def instrument(market: str) -> Instrument:
    symbol, quote = ("BTCUSD_PERP", "USD") if market == "inverse" else ("BTCUSDT", "USDT")
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="binance",
        market=market,
        name=spell("BTC", quote, kind),
        symbol=symbol,
        kind=kind,
        base="BTC",
        quote=quote,
    )


def reply(body: Any, status: int = 200, **headers: str) -> HttpReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status=status, headers=names, body=data, received_ns=NOW_NS)


def asked(call: RestCall[Any] | None) -> HttpRequest:
    assert call is not None
    return call.request


def following(page: Page[T]) -> RestCall[T]:
    assert page.next is not None
    return page.next


# --- Book -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("market", MARKETS)
def test_book_question(market: str) -> None:
    request = asked(REST.book(instrument(market)))
    assert request.endpoint == f"{market}_rest"
    assert request.path == f"{PREFIX[market]}/depth"
    assert request.params == {"symbol": instrument(market).symbol, "limit": 1000}
    assert request.cost == (50 if market == "spot" else 20)
    assert request.budget == ("spot-weight" if market == "spot" else "futures-weight")


@pytest.mark.parametrize(
    ("market", "wish", "limit", "cost"),
    [
        ("spot", 5, 5, 5),
        ("spot", 100, 100, 5),
        ("spot", 101, 101, 25),
        ("spot", 500, 500, 25),
        ("spot", 1001, 1001, 250),
        ("spot", 5000, 5000, 250),
        ("linear", 5, 5, 2),
        ("linear", 30, 50, 2),
        ("linear", 60, 100, 5),
        ("linear", 500, 500, 10),
        ("linear", 501, 1000, 20),
        ("inverse", 5000, 1000, 20),
    ],
)
def test_book_weights_follow_the_limit(market: str, wish: int, limit: int, cost: float) -> None:
    request = asked(BinanceRest(wish).book(instrument(market)))
    assert (request.params["limit"], request.cost) == (limit, cost)


def test_spot_snapshot_has_no_time() -> None:
    body = b'{"lastUpdateId":499869752,"bids":[["0.35210000","672.00000000"]],"asks":[["0.35220000","1.00000000"]]}'
    page = REST.book(instrument("spot")).parse(reply(body))
    assert page.next is None
    assert page.items == (
        BookSnapshot(
            venue="binance",
            instrument="BTC-USDT",
            venue_time_ns=None,
            received_ns=NOW_NS,
            bids=[["0.35210000", "672.00000000"]],
            asks=[["0.35220000", "1.00000000"]],
            sequence=499869752,
        ),
    )


def test_futures_snapshot_has_its_time() -> None:
    body = b'{"lastUpdateId":600859605926,"E":1626992741264,"T":1626992741261,"symbol":"BTCUSD_PERP","pair":"BTCUSD","bids":[["7.6110","6"]],"asks":[]}'
    (book,) = REST.book(instrument("inverse")).parse(reply(body)).items
    assert book.sequence == 600859605926
    assert book.venue_time_ns == 1_626_992_741_261_000_000


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"lastUpdateId":"1","bids":[],"asks":[]}',
        b'{"lastUpdateId":1,"bids":[["1"]],"asks":[]}',
        b'{"lastUpdateId":1,"bids":null,"asks":[]}',
    ],
)
def test_a_snapshot_of_the_wrong_shape_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        REST.book(instrument("spot")).parse(reply(body))


# --- Candles ----------------------------------------------------------------------------------------------


def row(start_ms: int, volume: str = "3005", close_ms: int | None = None) -> list[Any]:
    ends = start_ms + MINUTE_MS - 1 if close_ms is None else close_ms
    return [
        start_ms, "7.6080", "7.6180", "7.6070", "7.6170", volume, ends, "22875.8590", 113, "1900", "14464.6960", "0"
    ]  # fmt: skip


@pytest.mark.parametrize(("market", "cost"), [("spot", 2), ("linear", 1), ("inverse", 1)])
def test_candles_question_names_both_ends(market: str, cost: float) -> None:
    call = REST.candles(instrument(market), START_MS * 1_000_000, (START_MS + 9 * MINUTE_MS) * 1_000_000)
    request = asked(call)
    assert request.path == f"{PREFIX[market]}/klines"
    assert request.params == {
        "symbol": instrument(market).symbol,
        "interval": "1m",
        "startTime": START_MS,
        "endTime": START_MS + 9 * MINUTE_MS,
        "limit": 10,
    }
    assert request.cost == cost


@pytest.mark.parametrize(
    ("minutes", "cost"), [(99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10), (1500, 10)]
)
def test_futures_candles_cost_by_limit(minutes: int, cost: float) -> None:
    end_ms = START_MS + (minutes - 1) * MINUTE_MS
    request = asked(REST.candles(instrument("linear"), START_MS * 1_000_000, end_ms * 1_000_000))
    assert (request.params["limit"], request.cost) == (minutes, cost)


def test_a_start_inside_a_minute_asks_from_the_next_one() -> None:
    call = REST.candles(instrument("spot"), START_MS * 1_000_000 + 1, (START_MS + 2 * MINUTE_MS) * 1_000_000)
    assert asked(call).params["startTime"] == START_MS + MINUTE_MS
    assert asked(call).params["limit"] == 2


def test_a_candle_from_rest() -> None:
    start_ms = START_MS - MINUTE_MS
    call = REST.candles(instrument("linear"), start_ms * 1_000_000, start_ms * 1_000_000)
    page = call.parse(reply([row(start_ms)]))
    assert page.next is None
    assert page.items == [
        Candle(
            venue="binance",
            instrument="BTC-USDT-PERP",
            venue_time_ns=None,
            received_ns=NOW_NS,
            origin=Origin.BACKFILL,
            start_ns=start_ms * 1_000_000,
            open="7.6080",
            high="7.6180",
            low="7.6070",
            close="7.6170",
            volume="3005",
            turnover="22875.8590",
            trades=113,
            closed=True,
        )
    ]


def test_a_minute_without_trades_is_a_candle_too() -> None:
    start_ms = START_MS - MINUTE_MS
    call = REST.candles(instrument("spot"), start_ms * 1_000_000, start_ms * 1_000_000)
    body = row(start_ms, volume="0.00000000")
    body[8] = 0
    (candle,) = call.parse(reply([body])).items
    assert (candle.volume, candle.trades) == ("0.00000000", 0)


@pytest.mark.parametrize(("market", "most"), [("spot", 1000), ("linear", 1500), ("inverse", 1500)])
def test_candles_page_by_time(market: str, most: int) -> None:
    minutes = 2 * most + 7
    first_ms = START_MS - 10_000 * MINUTE_MS
    end_ms = first_ms + (minutes - 1) * MINUTE_MS
    call: RestCall[Candle] | None = REST.candles(instrument(market), first_ms * 1_000_000, end_ms * 1_000_000)
    windows = []
    found: list[Candle] = []
    while call is not None:
        params = call.request.params
        start, end, limit = (int(params[key]) for key in ("startTime", "endTime", "limit"))
        windows.append((start, end, limit))
        rows = [row(ms) for ms in range(start, end + 1, MINUTE_MS)]
        assert len(rows) == limit
        page = call.parse(reply(rows))
        found += page.items
        call = page.next
    assert [limit for _, _, limit in windows] == [most, most, 7]
    starts = [candle.start_ns for candle in found]
    assert starts == [(first_ms + i * MINUTE_MS) * 1_000_000 for i in range(minutes)]


def test_minutes_that_the_venue_leaves_out_do_not_end_the_search() -> None:
    first_ms = START_MS - 10_000 * MINUTE_MS
    call = REST.candles(instrument("spot"), first_ms * 1_000_000, START_MS * 1_000_000)
    page = call.parse(reply([]))
    assert page.items == []
    assert following(page).request.params["startTime"] == first_ms + 1000 * MINUTE_MS


@pytest.mark.parametrize(
    "body",
    [b"{}", b"null", b"[[]]", b"[1]", orjson.dumps([["1", *row(START_MS)[1:]]]),
     orjson.dumps([[START_MS, 7.6, *row(START_MS)[2:]]])],
)  # fmt: skip
def test_candles_of_the_wrong_shape_are_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        REST.candles(instrument("spot"), START_MS * 1_000_000, START_MS * 1_000_000).parse(reply(body))


# --- Trades -----------------------------------------------------------------------------------------------


def trade(trade_id: int, ms: int = START_MS) -> dict[str, Any]:
    return {"a": trade_id, "p": "0.0163", "q": "4.70", "f": 1, "l": 1, "T": ms, "m": True, "M": True}


def venue_trades(params: Any, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer as the venue does: by id, or by time, oldest first."""
    if "fromId" in params:
        assert "startTime" not in params, "the venue takes an id or times, not both"
        found = [t for t in known if t["a"] >= params["fromId"]]
    else:
        assert params["endTime"] - params["startTime"] < 3_600_000
        found = [t for t in known if params["startTime"] <= t["T"] <= params["endTime"]]
    return found[: params["limit"]]


def all_trades(call: RestCall[Trade] | None, known: list[dict[str, Any]]) -> tuple[list[str | None], int]:
    """Return the ids that a hole yields, and how many requests it took."""
    ids: list[str | None] = []
    requests = 0
    while call is not None:
        requests += 1
        assert requests < 50, "the paging does not end"
        page = call.parse(reply(venue_trades(call.request.params, known)))
        ids += [found.id for found in page.items]
        call = page.next
    return ids, requests


@pytest.mark.parametrize(("market", "cost"), [("spot", 4), ("linear", 20), ("inverse", 20)])
def test_trades_question_by_ids(market: str, cost: float) -> None:
    call = REST.trades(instrument(market), after_id="100", before_id="111", from_ns=0, to_ns=0)
    request = asked(call)
    assert request.path == f"{PREFIX[market]}/aggTrades"
    assert request.params == {"symbol": instrument(market).symbol, "fromId": 101, "limit": 10}
    assert request.cost == cost


def test_a_trade_from_rest() -> None:
    call = REST.trades(instrument("spot"), after_id="26128", before_id="26130", from_ns=0, to_ns=0)
    body = b'[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498793709153,"m":true,"M":true}]'
    page = call.parse(reply(body))
    assert page.next is None
    assert page.items == [
        Trade(
            venue="binance",
            instrument="BTC-USDT",
            venue_time_ns=1_498_793_709_153_000_000,
            received_ns=NOW_NS,
            origin=Origin.BACKFILL,
            id="26129",
            price="0.01633102",
            size="4.70443515",
            aggressor=Side.SELL,
        )
    ]


def test_a_hole_between_ids_is_filled_to_the_brim_and_no_further() -> None:
    known = [trade(i) for i in range(1, 5000)]
    call = REST.trades(instrument("spot"), after_id="100", before_id="2601", from_ns=0, to_ns=0)
    ids, requests = all_trades(call, known)
    assert ids == [str(i) for i in range(101, 2601)]
    assert requests == 3


def test_trades_that_the_venue_no_longer_has_end_the_search() -> None:
    call = REST.trades(instrument("linear"), after_id="100", before_id="200", from_ns=0, to_ns=0)
    assert all_trades(call, [trade(i) for i in range(150, 170)]) == ([str(i) for i in range(150, 170)], 1)
    assert all_trades(call, []) == ([], 1)


def test_a_hole_without_an_end_id_ends_by_time() -> None:
    known = [trade(i, START_MS + i) for i in range(1, 5000)]
    call = REST.trades(
        instrument("spot"), after_id="10", before_id=None, from_ns=0, to_ns=(START_MS + 2000) * 1_000_000
    )
    ids, _ = all_trades(call, known)
    assert ids == [str(i) for i in range(11, 2001)]


def test_a_hole_without_a_first_id_starts_by_time() -> None:
    known = [trade(i, START_MS + i) for i in range(1, 5000)]
    call = REST.trades(
        instrument("linear"),
        after_id=None,
        before_id="2500",
        from_ns=(START_MS + 500) * 1_000_000,
        to_ns=(START_MS + 4000) * 1_000_000,
    )
    ids, _ = all_trades(call, known)
    assert ids == [str(i) for i in range(500, 2500)]


def test_a_hole_of_hours_is_asked_for_hour_by_hour() -> None:
    known = [trade(1, START_MS + 1000), trade(2, START_MS + 9_000_000), trade(3, START_MS + 9_000_001)]
    call = REST.trades(
        instrument("spot"),
        after_id=None,
        before_id=None,
        from_ns=START_MS * 1_000_000,
        to_ns=(START_MS + 9_000_000) * 1_000_000,
    )
    assert all_trades(call, known) == (["1", "2"], 3)


@pytest.mark.parametrize("body", [b"{}", b"null", b"[1]", b'[{"a":1}]', b'[{"a":"1"}]', b"<html>"])
def test_trades_of_the_wrong_shape_are_refused(body: bytes) -> None:
    call = REST.trades(instrument("spot"), after_id="1", before_id="9", from_ns=0, to_ns=0)
    with pytest.raises(DecodeError):
        call.parse(reply(body))


# --- What answers stand for -------------------------------------------------------------------------------


def test_the_used_weight_is_told() -> None:
    assert REST.examine(reply({}, x_mbx_used_weight_1m="1234")) == RateSignal(used=1234.0)
    assert REST.examine(reply({})) == RateSignal()
    assert REST.examine(reply({}, x_mbx_used_weight_1m="?")) == RateSignal()


@pytest.mark.parametrize("status", [429, 418])
def test_too_fast_or_banned_waits_as_long_as_told(status: int) -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply({"code": -1003, "msg": "Too many requests."}, status, retry_after="17"))
    assert caught.value.retry_after_s == 17.0
    assert caught.value.retry


def test_a_ban_without_a_header_names_its_end_in_the_text() -> None:
    until_ms = NOW_NS // 1_000_000 + 125_000
    message = f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams."
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply({"code": -1003, "msg": message}, 418))
    assert caught.value.retry_after_s == pytest.approx(125.0, abs=0.01)


def test_code_1003_with_status_400_is_a_rate_limit_too() -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply({"code": -1003, "msg": "Too many requests."}, 400))
    assert caught.value.retry_after_s == 60.0


def test_an_unknown_symbol_is_not_asked_for_again() -> None:
    with pytest.raises(SubscriptionRejectedError, match=r"Invalid symbol\. \(code -1121\)") as caught:
        REST.examine(reply({"code": -1121, "msg": "Invalid symbol."}, 400))
    assert not caught.value.retry


def test_another_bad_request_is_not_asked_for_again() -> None:
    with pytest.raises(SubscriptionRejectedError):
        REST.examine(reply({"code": -1102, "msg": "Mandatory parameter was not sent."}, 400))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"<html>oops</html>"),
        (502, b""),
        (503, {"code": -1008, "msg": "Server is currently overloaded."}),
        (400, {"code": -1007, "msg": "Timeout waiting for response from backend server."}),
    ],
)
def test_the_venues_own_faults_are_tried_again(status: int, body: Any) -> None:
    with pytest.raises(VenueError) as caught:
        REST.examine(reply(body, status))
    assert type(caught.value) is VenueError
    assert caught.value.retry


@pytest.mark.parametrize("status", [403, 451])
def test_an_address_that_is_not_served_backs_off_for_minutes(status: int) -> None:
    with pytest.raises(ConnectError) as caught:
        REST.examine(reply(b"<html>no</html>", status))
    assert caught.value.retry_after_s == 300.0


def test_a_restricted_location_is_told_where_else_to_look() -> None:
    with pytest.raises(ConnectError, match=r"data-api\.binance\.vision"):
        REST.examine(reply({"code": 0, "msg": "Service unavailable from a restricted location."}, 451))


def test_budgets_and_endpoints_exist() -> None:
    venue = binance()
    budgets = {budget.name for budget in venue.budgets}
    for market in MARKETS:
        for call in (REST.instruments(market), REST.book(instrument(market))):
            assert asked(call).budget in budgets
            assert asked(call).endpoint in venue.endpoints
