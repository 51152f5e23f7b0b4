"""REST requests, and what is read from answers in the documented and the observed forms."""

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
from pricefeedd.events import BookSnapshot, Candle, Origin, Side, Trade
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import HttpReply, RestCall
from pricefeedd_gateio.rest import BUDGETS, GateioRest

S = 1_000_000_000
MINUTE_S = 60
NOW_S = 1_790_350_320  # the start of a minute
REST = GateioRest()


def instrument(market: str, symbol: str = "BTC_USDT", settle: str = "USDT") -> Instrument:
    base, _, quote = symbol.rpartition("_")
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="gateio",
        market=market,
        name=spell(base, quote, kind),
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
        settle=settle,
    )


SPOT = instrument("spot")
LINEAR = instrument("linear")
INVERSE = instrument("inverse", "BTC_USD", "BTC")


def reply(body: Any, status: int = 200, received_ns: int = NOW_S * S, **headers: str) -> HttpReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status=status, headers=names, body=data, received_ns=received_ns)


# --- Books ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "limit"), [(20, 20), (100, 100), (50, 100), (400, 100)])
def test_a_snapshot_is_as_deep_as_its_stream(depth: int, limit: int) -> None:
    """And has its number: without `with_id` it cannot be joined."""
    spot = GateioRest(depth).book(SPOT).request
    assert (spot.path, spot.params) == (
        "/spot/order_book",
        {"currency_pair": "BTC_USDT", "limit": limit, "with_id": "true"},
    )
    assert spot.headers == {}
    linear = GateioRest(depth).book(LINEAR).request
    assert (linear.path, linear.params) == (
        "/futures/usdt/order_book",
        {"contract": "BTC_USDT", "limit": limit, "with_id": "true"},
    )
    assert linear.headers == {"X-Gate-Size-Decimal": "1"}


def test_a_spot_snapshot() -> None:
    body = b'{"id":2691446,"current":1790350300123,"update":1790350300100,"asks":[["0.00010396","5876.967"]],"bids":[["0.0001","16944.291"]]}'
    (book,) = REST.book(SPOT).parse(reply(body)).items
    assert book == BookSnapshot(
        venue="gateio",
        instrument="BTC-USDT",
        venue_time_ns=1_790_350_300_100_000_000,
        received_ns=NOW_S * S,
        bids=[["0.0001", "16944.291"]],
        asks=[["0.00010396", "5876.967"]],
        sequence=2691446,
    )


def test_a_futures_snapshot_has_seconds_and_named_levels() -> None:
    body = b'{"current":1684930166.384,"update":1684930166.35,"asks":[{"s":803,"p":"0.2974"}],"bids":[{"s":"2.5","p":"0.297"}],"id":203083287}'
    (book,) = REST.book(LINEAR).parse(reply(body)).items
    assert (book.venue_time_ns, book.sequence) == (1_684_930_166_350_000_000, 203083287)
    assert [tuple(level) for level in book.asks] == [("0.2974", "803")]
    assert [tuple(level) for level in book.bids] == [("0.297", "2.5")]


def test_an_empty_book_and_one_of_2021() -> None:
    (book,) = REST.book(SPOT).parse(reply({"id": 1, "asks": [], "bids": []})).items
    assert (list(book.bids), list(book.asks), book.venue_time_ns) == ([], [], None)


@pytest.mark.parametrize(
    "body",
    [{"asks": [], "bids": []}, {"id": "1", "asks": [], "bids": []}, {"id": 1, "asks": {}}, [], None, b"<"],
)
def test_bad_books(body: Any) -> None:
    with pytest.raises(DecodeError):
        REST.book(SPOT).parse(reply(body))


# --- Candles ----------------------------------------------------------------------------------------------


def pages(call: RestCall[Candle] | None, answer: Any) -> tuple[list[dict[str, Any]], list[Candle]]:
    asked, found = [], []
    while call is not None:
        asked.append(dict(call.request.params))
        page = call.parse(reply(answer(call.request.params)))
        found += page.items
        call = page.next
    return asked, found


def futures_rows(params: Any) -> list[Any]:
    starts = range(int(params["from"]), int(params["to"]) + 1, MINUTE_S)
    return [{"t": t, "o": "1", "h": "1", "l": "1", "c": "1", "v": 0, "sum": "0"} for t in starts]


@pytest.mark.parametrize("minutes", [1, 2, 998, 999, 1000, 1998, 1999, 3000])
def test_pages_meet_without_hole_or_overlap(minutes: int) -> None:
    start_s = NOW_S - minutes * MINUTE_S
    asked, found = pages(REST.candles(LINEAR, start_s * S, (NOW_S - 1) * S), futures_rows)
    assert [c.start_ns // S for c in found] == list(range(start_s, NOW_S, MINUTE_S))
    for params in asked:
        assert "limit" not in params
        assert params["interval"] == "1m"
        assert (params["to"] - params["from"]) <= 998 * MINUTE_S


def test_both_ends_are_included_and_rounded_to_minutes() -> None:
    call = REST.candles(SPOT, (NOW_S - 119) * S, (NOW_S - 1) * S)
    assert call is not None
    assert call.request.params == {
        "currency_pair": "BTC_USDT",
        "interval": "1m",
        "from": NOW_S - 60,
        "to": NOW_S - 60,
    }


def test_minutes_that_the_venue_leaves_out_do_not_end_the_search() -> None:
    start_s = NOW_S - 2500 * MINUTE_S
    asked, found = pages(REST.candles(LINEAR, start_s * S, NOW_S * S), lambda params: [])
    assert (len(asked), found) == (3, [])


def test_rows_outside_of_the_window_are_left_out() -> None:
    call = REST.candles(LINEAR, (NOW_S - 120) * S, (NOW_S - 120) * S)
    assert call is not None
    rows = futures_rows({"from": NOW_S - 240, "to": NOW_S})
    assert [c.start_ns // S for c in call.parse(reply(rows)).items] == [NOW_S - 120]


SPOT_ROWS = [
    ["1790350200", "507875.46", "83766.1", "83882.6", "83746.3", "83770.6", "6.06078800", "true"],
    ["1790350260", "532272.62", "83781.7", "83798.9", "83740.4", "83767.9", "6.35429100", "false"],
]


def test_spot_rows_are_in_an_order_of_their_own() -> None:
    call = REST.candles(SPOT, 1790350200 * S, 1790350260 * S)
    assert call is not None
    first, second = call.parse(reply(SPOT_ROWS)).items
    assert first == Candle(
        venue="gateio",
        instrument="BTC-USDT",
        received_ns=NOW_S * S,
        origin=Origin.BACKFILL,
        start_ns=1790350200 * S,
        open="83770.6",
        high="83882.6",
        low="83746.3",
        close="83766.1",
        volume="6.06078800",
        turnover="507875.46",
        closed=True,
    )
    assert second.closed is False


@pytest.mark.parametrize(
    ("row", "volume", "closed"),
    [
        (["1790350200", "5", "1", "1", "1", "1", "6.1", "true"], "6.1", True),
        (["1790350200", "5", "1", "1", "1", "1", "6.1"], "6.1", True),
        (["1790350260", "5", "1", "1", "1", "1", "6.1"], "6.1", False),
        (["1790350200", "0", "1", "1", "1", "1", "true"], "0", True),
        (["1790350200", "0", "1", "1", "1", "1"], "0", True),
    ],
)
def test_shorter_spot_rows(row: list[str], volume: str, closed: bool) -> None:
    call = REST.candles(SPOT, 1790350200 * S, 1790350260 * S)
    assert call is not None
    (candle,) = call.parse(reply([row])).items
    assert (candle.volume, candle.closed) == (volume, closed)


@pytest.mark.parametrize("row", [[], ["x"] * 8, ["1790350200", "5", "1", "1", "1", "1", "true"], None, {}])
def test_bad_spot_rows(row: Any) -> None:
    call = REST.candles(SPOT, 1790350200 * S, 1790350260 * S)
    assert call is not None
    with pytest.raises(DecodeError):
        call.parse(reply([row]))


@pytest.mark.parametrize(
    ("start_s", "closed"), [(NOW_S - 120, True), (NOW_S - 62, True), (NOW_S - 61, False), (NOW_S, False)]
)
def test_a_futures_row_is_closed_by_the_time(start_s: int, closed: bool) -> None:
    start_s -= start_s % 1
    call = REST.candles(LINEAR, (NOW_S - 600) * S, (NOW_S + 60) * S)
    assert call is not None
    row = (
        b'{"o":"83807.3","v":291170,"t":%d,"c":"83817.9","l":"83788.1","h":"83823","sum":"2440050.23996"}'
        % start_s
    )
    (candle,) = call.parse(reply(b"[" + row + b"]")).items
    assert (candle.closed, candle.volume, candle.turnover) == (closed, "291170", "2440050.23996")
    assert (candle.open, candle.high, candle.low, candle.close) == ("83807.3", "83823", "83788.1", "83817.9")


def test_an_inverse_row_has_no_turnover_in_its_base() -> None:
    call = REST.candles(INVERSE, (NOW_S - 120) * S, (NOW_S - 120) * S)
    assert call is not None
    assert call.request.path == "/futures/btc/candlesticks"
    (candle,) = call.parse(reply(futures_rows({"from": NOW_S - 120, "to": NOW_S - 120}))).items
    assert candle.turnover is None


# --- Trades -----------------------------------------------------------------------------------------------


def spot_row(number: int, at_s: float = NOW_S - 5) -> dict[str, Any]:
    return {
        "id": str(number),
        "create_time": str(int(at_s)),
        "create_time_ms": f"{at_s * 1000:.3f}",
        "currency_pair": "BTC_USDT",
        "side": "buy",
        "amount": "0.15",
        "price": "83766.1",
        "sequence_id": str(number),
    }


def futures_row(number: int, at_s: float = NOW_S - 5, **others: Any) -> dict[str, Any]:
    row = {"id": number, "create_time": at_s, "create_time_ms": at_s, "contract": "BTC_USDT"}
    return row | {"size": "-100", "price": "100.123"} | others


def hole(
    chosen: Instrument, after: str | None, before: str | None, from_s: float = NOW_S - 10, to_s: float = NOW_S
) -> RestCall[Trade]:
    return REST.trades(chosen, after_id=after, before_id=before, from_ns=int(from_s * S), to_ns=int(to_s * S))


def test_a_hole_in_spot_trades() -> None:
    call = hole(SPOT, "10", "14")
    assert call.request.path == "/spot/trades"
    assert call.request.params == {
        "currency_pair": "BTC_USDT",
        "limit": 1000,
        "from": NOW_S - 11,
        "to": NOW_S + 1,
        "page": 1,
    }
    page = call.parse(reply([spot_row(n) for n in range(16, 8, -1)]))
    assert [t.id for t in page.items] == ["11", "12", "13"]
    assert page.next is None
    assert page.items[0] == Trade(
        venue="gateio",
        instrument="BTC-USDT",
        venue_time_ns=(NOW_S - 5) * S,
        received_ns=NOW_S * S,
        origin=Origin.BACKFILL,
        id="11",
        price="83766.1",
        size="0.15",
        aggressor=Side.BUY,
    )


def test_ids_within_the_pair_go_before_the_global_ones() -> None:
    page = hole(SPOT, "10", "14").parse(reply([spot_row(999) | {"sequence_id": "12"}]))
    assert [t.id for t in page.items] == ["12"]


def test_a_hole_in_futures_trades_goes_by_time() -> None:
    call = hole(LINEAR, None, None)
    assert call.request.path == "/futures/usdt/trades"
    assert call.request.params == {
        "contract": "BTC_USDT",
        "limit": 1000,
        "from": NOW_S - 11,
        "to": NOW_S + 1,
        "offset": 0,
    }
    rows = [
        futures_row(9, NOW_S + 0.5),
        futures_row(8, NOW_S - 1.742),
        futures_row(7, NOW_S - 10),
        futures_row(6, NOW_S - 10.5),
    ]
    page = call.parse(reply(rows))
    assert [(t.id, t.venue_time_ns) for t in page.items] == [
        ("7", (NOW_S - 10) * S),
        ("8", (NOW_S - 2) * S + 258_000_000),
    ]
    assert {t.aggressor for t in page.items} == {Side.SELL}


def test_internal_trades_are_left_out_of_answers() -> None:
    page = hole(LINEAR, None, None).parse(reply([futures_row(8, is_internal=True), futures_row(7)]))
    assert [t.id for t in page.items] == ["7"]


@pytest.mark.parametrize(
    ("chosen", "make", "keys"), [(SPOT, spot_row, [1, 2, 3]), (LINEAR, futures_row, [0, 1000, 2000])]
)
def test_full_pages_go_on_and_all_come_out_oldest_first(
    chosen: Instrument, make: Any, keys: list[int]
) -> None:
    numbers = list(range(5000, 2499, -1))
    call: RestCall[Trade] | None = hole(chosen, None, None)
    found: list[Trade] = []
    asked = []
    while call is not None:
        key = call.request.params.get("page", call.request.params.get("offset"))
        asked.append(key)
        at = (len(asked) - 1) * 1000
        # A trade was made meanwhile: each page begins with what the last one ended with.
        page = call.parse(reply([make(n) for n in numbers[max(0, at - (len(asked) > 1)) : at + 1000]][:1000]))
        found += page.items
        call = page.next
    assert asked == keys
    got = [int(t.id or 0) for t in found]
    assert got == sorted(set(got))
    assert len(got) >= 2499


def test_a_search_ends_where_the_hole_begins_and_after_twenty_pages() -> None:
    page = hole(SPOT, "4500", "5001").parse(reply([spot_row(n) for n in range(5000, 4000, -1)]))
    assert (page.next, len(page.items)) == (None, 500)
    call: RestCall[Trade] | None = hole(SPOT, "1", None)
    count = 0
    while call is not None:
        count += 1
        top = 1_000_000 - count * 1000
        call = call.parse(reply([spot_row(n) for n in range(top, top - 1000, -1)])).next
    assert count == 20


@pytest.mark.parametrize("body", [{}, [{}], [5], [spot_row(1) | {"sequence_id": "x"}], b"["])
def test_bad_trades(body: Any) -> None:
    with pytest.raises(DecodeError):
        hole(SPOT, "0", None).parse(reply(body))


# --- Answers as such --------------------------------------------------------------------------------------


def test_each_endpoint_has_a_limit_of_its_own() -> None:
    asked = {
        call.request.budget
        for call in (
            REST.instruments("spot"),
            REST.book(SPOT),
            REST.candles(SPOT, 0, 0),
            hole(SPOT, None, None),
            REST.instruments("inverse"),
            REST.book(INVERSE),
            REST.candles(LINEAR, 0, 0),
            hole(LINEAR, None, None),
        )
        if call is not None
    }
    assert asked == set(BUDGETS)
    assert len(BUDGETS) == 8


def limits(left: int, reset_s: float) -> dict[str, str]:
    return {
        "x_gate_ratelimit_limit": "200",
        "x_gate_ratelimit_requests_remain": str(left),
        "x_gate_ratelimit_reset_timestamp": str(reset_s),
    }


def test_what_is_left_is_told_by_headers() -> None:
    signal = REST.examine(reply([], **limits(150, NOW_S + 7)))
    assert (signal.used, signal.reset_after_s) == (50.0, 7.0)
    assert REST.examine(reply([])).used is None
    assert (
        REST.examine(reply([], x_gate_ratelimit_limit="x", x_gate_ratelimit_requests_remain="")).used is None
    )


@pytest.mark.parametrize(
    ("reset", "wait_s"),
    [(NOW_S + 7, 7.0), (NOW_S - 100, 1.0), (NOW_S + 1000, 15.0), ((NOW_S + 7) * 1000, 7.0), (None, 15.0)],
)
def test_too_many_requests_wait_for_the_reset(reset: int | None, wait_s: float) -> None:
    headers = {} if reset is None else limits(0, reset)
    body = {"label": "TOO_MANY_REQUESTS", "message": "Request Rate Limit Exceeded (003)"}
    with pytest.raises(RateLimitedError, match="TOO_MANY_REQUESTS") as caught:
        REST.examine(reply(body, 429, **headers))
    assert caught.value.retry_after_s == wait_s


def test_a_retry_after_is_obeyed_where_there_is_one() -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"<html>", 429, retry_after="45", **limits(0, NOW_S + 7)))
    assert caught.value.retry_after_s == 45.0


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            400,
            {"label": "INVALID_CURRENCY_PAIR", "message": "Invalid currency pair"},
            SubscriptionRejectedError,
        ),
        (
            400,
            {"label": "INVALID_PARAM_VALUE", "message": "Candlestick too long ago."},
            SubscriptionRejectedError,
        ),
        (404, {"label": "CONTRACT_NOT_FOUND", "message": "x"}, SubscriptionRejectedError),
        (200, {"label": "INVALID_PARAM_VALUE", "message": "x"}, SubscriptionRejectedError),
        (200, {"label": "SERVER_ERROR", "message": "x"}, VenueError),
        (500, {"label": "SERVER_ERROR", "message": "x"}, VenueError),
        (503, b"<html>", VenueError),
        (403, b"<html>", ConnectError),
        (429, b"<html>", RateLimitedError),
    ],
)
def test_errors(status: int, body: Any, kind: type[VenueError]) -> None:
    with pytest.raises(VenueError) as caught:
        REST.examine(reply(body, status))
    assert type(caught.value) is kind
    if isinstance(body, dict):
        assert body["label"] in str(caught.value)
