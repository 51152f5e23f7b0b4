"""Questions to Coinbase's REST, and how answers are read."""

from __future__ import annotations

from email.utils import formatdate
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
from pricefeedd.events import Candle, Origin, Side, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply, Page, RateSignal, RestCall
from pricefeedd_coinbase.rest import CoinbaseRest

T = TypeVar("T")

REST = CoinbaseRest()
S = 1_000_000_000
NOW_S = 1_790_735_994
START_S = 1_790_735_940  # the minute that runs now
BTC = Instrument(
    venue="coinbase", market="spot", name="BTC-USD", symbol="BTC-USD", kind=Kind.SPOT, base="BTC", quote="USD"
)


def reply(body: Any, status: int = 200, *, now_s: float = NOW_S, **headers: str) -> HttpReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status=status, headers=names, body=data, received_ns=int(now_s * S))


def following(page: Page[T]) -> RestCall[T]:
    assert page.next is not None
    return page.next


# --- Instruments ------------------------------------------------------------------------------------------


def product(name: str) -> dict[str, Any]:
    base, _, quote = name.partition("-")
    return {
        "product_id": name,
        "product_type": "SPOT",
        "base_currency_id": base,
        "quote_currency_id": quote,
        "status": "online",
    }


def test_all_products_are_asked_for_at_once() -> None:
    call = REST.instruments("spot")
    assert call.request.path == "/api/v3/brokerage/market/products"
    assert call.request.params == {"product_type": "SPOT"}
    assert (call.request.endpoint, call.request.budget, call.request.cost) == ("spot_rest", "spot-rest", 1)
    page = call.parse(reply({"products": [product("BTC-USD"), product("ETH-USD")], "num_products": 2}))
    assert [i.name for i in page.items] == ["BTC-USD", "ETH-USD"]
    assert page.next is None


def test_where_there_are_more_products_the_next_are_asked_for() -> None:
    first = REST.instruments("spot").parse(
        reply({"products": [product("A-USD"), product("B-USD")], "num_products": 5})
    )
    assert following(first).request.params == {"product_type": "SPOT", "offset": 2}
    second = following(first).parse(
        reply({"products": [product("C-USD"), product("D-USD")], "num_products": 5})
    )
    assert following(second).request.params["offset"] == 4
    third = following(second).parse(reply({"products": [product("E-USD")], "num_products": 5}))
    assert third.next is None


def test_a_number_of_what_was_sent_is_no_reason_to_go_on() -> None:
    first = REST.instruments("spot").parse(reply({"products": [product("A-USD")], "num_products": 2}))
    nothing = following(first).parse(reply({"products": [], "num_products": 2}))
    assert nothing.next is None
    assert REST.instruments("spot").parse(reply({"products": [product("A-USD")]})).next is None


def test_a_list_that_never_ends_is_left() -> None:
    call: RestCall[Instrument] | None = REST.instruments("spot")
    pages = 0
    while call is not None:
        call = call.parse(reply({"products": [product("A-USD")], "num_products": 1000})).next
        pages += 1
    assert pages == 20


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"products":5}', b'{"products":[{}]}'])
def test_a_list_of_the_wrong_shape_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        REST.instruments("spot").parse(reply(body))


def test_there_are_no_books() -> None:
    assert REST.book(BTC) is None


# --- Candles ----------------------------------------------------------------------------------------------


def row(start_s: int, **changes: str) -> dict[str, str]:
    made = {
        "start": str(start_s),
        "low": "17414.36",
        "high": "17417.99",
        "open": "17417.74",
        "close": "17417.38",
        "volume": "1.87780853",
    }
    return made | changes


def candles(first_s: int, last_s: int) -> RestCall[Candle]:
    return REST.candles(BTC, first_s * S, last_s * S)


def test_candles_question_names_both_ends() -> None:
    request = candles(START_S - 600, START_S - 60).request
    assert request.path == "/api/v3/brokerage/market/products/BTC-USD/candles"
    # The last minute is in whether or not the end counts, and the next is not.
    assert request.params == {"start": START_S - 600, "end": START_S - 1, "granularity": "ONE_MINUTE"}


def test_candles_come_oldest_first_and_only_those_asked_for() -> None:
    call = candles(START_S - 180, START_S - 60)
    rows = [row(START_S - n * 60) for n in range(5)]
    found = call.parse(reply({"candles": rows})).items
    assert [c.start_ns // S - START_S for c in found] == [-180, -120, -60]
    assert found[0] == Candle(
        venue="coinbase",
        instrument="BTC-USD",
        received_ns=NOW_S * S,
        origin=Origin.BACKFILL,
        start_ns=(START_S - 180) * S,
        open="17417.74",
        high="17417.99",
        low="17414.36",
        close="17417.38",
        volume="1.87780853",
        closed=True,
    )


@pytest.mark.parametrize(
    ("age_s", "closed"), [(0, False), (59, False), (60, False), (63.9, False), (64, True)]
)
def test_a_minute_is_final_a_moment_after_its_end(age_s: float, closed: bool) -> None:
    (found,) = (
        candles(START_S, START_S).parse(reply({"candles": [row(START_S)]}, now_s=START_S + age_s)).items
    )
    assert found.closed is closed


@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_whether_a_minute_is_final_is_told_by_the_venues_clock(ahead_s: int) -> None:
    for age_s, closed in ((30, False), (70, True)):
        date = formatdate(START_S + age_s, usegmt=True)
        answer = reply({"candles": [row(START_S)]}, now_s=START_S + age_s + ahead_s, date=date)
        (found,) = candles(START_S, START_S).parse(answer).items
        assert found.closed is closed
    unread = reply({"candles": [row(START_S)]}, now_s=START_S + 70, date="yesterday")
    assert candles(START_S, START_S).parse(unread).items[0].closed


def test_pages_meet_without_overlap_and_within_the_venues_limit() -> None:
    first_s = START_S - 1000 * 60
    call: RestCall[Candle] | None = candles(first_s, START_S)
    asked: list[int] = []
    while call is not None:
        start, end = int(call.request.params["start"]), int(call.request.params["end"])
        minutes = list(range(start, end + 1, 60))
        assert len(minutes) <= 299
        assert end - start < 300 * 60
        page = call.parse(reply({"candles": [row(m) for m in reversed(minutes)]}))
        asked += [c.start_ns // S for c in page.items]
        call = page.next
    assert asked == list(range(first_s, START_S + 1, 60))


def test_a_page_without_rows_does_not_end_the_search() -> None:
    page = candles(START_S - 400 * 60, START_S).parse(reply({"candles": []}))
    assert (
        following(page).parse(reply({"candles": [row(START_S - 60)]})).items[0].start_ns == (START_S - 60) * S
    )


def test_a_range_within_a_minute_asks_for_one() -> None:
    call = REST.candles(BTC, START_S * S, START_S * S)
    assert (call.request.params["start"], call.request.params["end"]) == (START_S, START_S + 59)


def test_exponents_are_written_out() -> None:
    answer = reply({"candles": [row(START_S - 120, volume="1e-8", low="1.7E4")]})
    (found,) = candles(START_S - 120, START_S - 120).parse(answer).items
    assert (found.volume, found.low) == ("0.00000001", "17000")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[]", b"{}", b'{"candles":5}', b'{"candles":[{}]}', b'{"candles":[[1,2]]}',
        orjson.dumps({"candles": [row(START_S, open="")]}),
        orjson.dumps({"candles": [row(START_S) | {"volume": 5}]}),
        orjson.dumps({"candles": [row(START_S, start="x")]}),
    ],
)  # fmt: skip
def test_candles_of_the_wrong_shape_are_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        candles(START_S, START_S).parse(reply(body))


# --- Trades -----------------------------------------------------------------------------------------------


def trade(number: int, at_s: float = 0.0) -> dict[str, str]:
    second, micro = divmod(round((NOW_S + at_s) * 1e6), 1_000_000)
    assert second <= 1_790_736_000
    time = f"2026-09-30T02:39:{second - 1_790_735_940:02}.{micro:06}Z"
    return {
        "trade_id": str(number),
        "product_id": "BTC-USD",
        "price": "68923.67",
        "size": "0.00064",
        "time": time,
        "side": "SELL",
        "bid": "",
        "ask": "",
        "exchange": "coinbase",
    }


def trades(after: str | None, before: str | None, from_s: float = -10, to_s: float = 0) -> RestCall[Trade]:
    return REST.trades(
        BTC,
        after_id=after,
        before_id=before,
        from_ns=int((NOW_S + from_s) * S),
        to_ns=int((NOW_S + to_s) * S),
    )


def answer(*rows: dict[str, str]) -> HttpReply:
    return reply({"trades": rows, "best_bid": "1", "best_ask": "2"})


def ids(page: Page[Trade]) -> list[int]:
    return [int(t.id or 0) for t in page.items]


def test_a_hole_between_ids_is_asked_for_from_the_newest_on() -> None:
    call = trades("100", "104")
    assert call.request.path == "/api/v3/brokerage/market/products/BTC-USD/ticker"
    assert call.request.params == {"limit": 1000}, "our clock plays no part"
    page = call.parse(answer(*(trade(n) for n in (106, 105, 104, 103, 102, 101, 100))))
    assert ids(page) == [101, 102, 103]
    assert page.next is None
    found = page.items[0]
    assert (found.price, found.size, found.aggressor, found.origin) == (
        "68923.67",
        "0.00064",
        Side.BUY,
        Origin.BACKFILL,
    )


def test_pages_go_back_by_the_venues_own_times_and_overlap_without_repeating() -> None:
    first = trades("100", "110").parse(answer(*(trade(n, (n - 111) / 2) for n in (111, 110, 109, 108))))
    assert ids(first) == [108, 109]
    second = following(first)
    # Trade 108 is of the second 1790735992; that second may hold more than the page did.
    assert second.request.params["end"] == 1_790_735_993
    page = second.parse(answer(*(trade(n, (n - 111) / 2) for n in (109, 108, 107, 106, 105))))
    assert ids(page) == [105, 106, 107]
    last = following(page).parse(answer(*(trade(n, (n - 111) / 2) for n in (105, 104, 103, 102, 101, 100))))
    assert ids(last) == [101, 102, 103, 104]
    assert last.next is None


def test_a_page_that_reaches_the_first_missing_trade_is_the_last() -> None:
    page = trades("100", "103").parse(answer(trade(103), trade(102), trade(101)))
    assert (ids(page), page.next) == ([101, 102], None)


@pytest.mark.parametrize("rows", [(), (108, 109, 110)])
def test_pages_that_bring_nothing_new_end_the_search(rows: tuple[int, ...]) -> None:
    first = trades("100", "110").parse(answer(*(trade(n) for n in (110, 109, 108))))
    assert following(first).parse(answer(*(trade(n) for n in rows))).next is None


def test_a_hole_between_times() -> None:
    call = trades(None, None, -10, -2)
    assert call.request.params == {"limit": 1000, "start": NOW_S - 10, "end": NOW_S - 2}
    page = call.parse(answer(trade(9, -1), trade(8, -2), trade(7, -5), trade(6, -10)))
    assert ids(page) == [6, 7, 8]
    # More may lie within the oldest one's second.
    assert ids(following(page).parse(answer(trade(6, -10), trade(5, -10.0), trade(4, -10.5)))) == [5]
    assert trades(None, None, -10, -2).parse(answer(trade(7, -5), trade(6, -10.5))).next is None


def test_trades_after_an_id_have_no_end() -> None:
    page = trades("100", None).parse(answer(trade(103), trade(102), trade(101), trade(100)))
    assert (ids(page), page.next) == ([101, 102, 103], None)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"trades":5}', b'{"trades":[{}]}'])
def test_trades_of_the_wrong_shape_are_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        trades("1", "5").parse(reply(body))


# --- What an answer says besides --------------------------------------------------------------------------


def test_what_is_left_of_the_limit() -> None:
    headers = {"x_ratelimit_limit": "10", "x_ratelimit_remaining": "7", "x_ratelimit_reset": "1"}
    assert REST.examine(reply({}, **headers)) == RateSignal(remaining=7.0, reset_after_s=1.0)
    epoch = headers | {"x_ratelimit_reset": str(NOW_S + 1)}
    assert REST.examine(reply({}, **epoch)) == RateSignal(remaining=7.0, reset_after_s=1.0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_ratelimit_limit": "10000", "x_ratelimit_remaining": "3"},  # another limit than ours
        {"x_ratelimit_limit": "10"},
        {"x_ratelimit_limit": "x", "x_ratelimit_remaining": "3"},
    ],
)
def test_headers_that_say_nothing_of_our_limit(headers: dict[str, str]) -> None:
    assert REST.examine(reply({}, **headers)) == RateSignal()


TOO_MANY = b'{"errors":[{"id":"rate_limit_exceeded","message":"Too many requests"}]}'


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {}, 5.0),
        (429, {"retry_after": "7"}, 7.0),
        (429, {"x_ratelimit_reset": "3"}, 3.0),
        (429, {"x_ratelimit_reset": str(NOW_S + 4)}, 4.0),
        (429, {"x_ratelimit_reset": "0"}, 1.0),
        (200, {}, 5.0),
    ],
)
def test_too_many_requests(status: int, headers: dict[str, str], wait_s: float) -> None:
    with pytest.raises(RateLimitedError, match="Too many requests") as caught:
        REST.examine(reply(TOO_MANY, status, **headers))
    assert caught.value.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, {"error": "NOT_FOUND", "message": "product not found"}, SubscriptionRejectedError),
        (400, {"error": "INVALID_ARGUMENT", "message": "start is wrong"}, SubscriptionRejectedError),
        (401, {"error": "UNAUTHORIZED", "code": 16, "message": "Unauthorized"}, SubscriptionRejectedError),
        (200, {"error": "NOT_FOUND", "message": "product not found"}, SubscriptionRejectedError),
        (403, b"<html>forbidden</html>", ConnectError),
        (451, b"", ConnectError),
        (500, {"error": "INTERNAL", "message": "try again"}, VenueError),
        (503, b"upstream connect error", VenueError),
        (429, b"<html>", RateLimitedError),
    ],
)
def test_what_errors_stand_for(status: int, body: Any, error: type[VenueError]) -> None:
    with pytest.raises(error, match="coinbase: HTTP"):
        REST.examine(reply(body, status))


def test_an_error_is_told_in_the_venues_words() -> None:
    with pytest.raises(SubscriptionRejectedError) as caught:
        REST.examine(reply({"error": "NOT_FOUND", "message": "product not found"}, 200))
    assert str(caught.value) == "coinbase: HTTP 200: product not found (NOT_FOUND)"
