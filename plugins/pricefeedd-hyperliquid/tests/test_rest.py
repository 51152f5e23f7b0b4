"""What is asked by REST, and how answers are read."""

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
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply, RateSignal, RestCall
from pricefeedd_hyperliquid.rest import HyperliquidRest
from pricefeedd_hyperliquid.venue import hyperliquid

REST = hyperliquid().rest
MINUTE_MS = 60_000
T0_MS = 1_790_358_600_000
NOW_NS = (T0_MS + 10 * MINUTE_MS) * 1_000_000
BTC = Instrument(
    venue="hyperliquid",
    market="linear",
    name="BTC-USD-PERP",
    symbol="BTC",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USD",
)
HYPE = Instrument(
    venue="hyperliquid",
    market="spot",
    name="HYPE-USDC",
    symbol="@107",
    kind=Kind.SPOT,
    base="HYPE",
    quote="USDC",
)


def reply(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> HttpReply:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpReply(status=status, headers=headers or {}, body=raw, received_ns=NOW_NS)


def asked(call: RestCall[Any] | None) -> Any:
    assert call is not None
    request = call.request
    assert (request.method, request.path, request.budget) == ("POST", "/info", "weight")
    assert request.headers["content-type"] == "application/json"
    assert request.body is not None
    return orjson.loads(request.body)


def candle(start_ms: int, **changes: Any) -> dict[str, Any]:
    return {
        "t": start_ms, "T": start_ms + MINUTE_MS - 1, "s": "BTC", "i": "1m", "o": "83737.0", "c": "83767.0",
        "h": "83977.0", "l": "83600.0", "v": "910.98068", "n": 8461,
    } | changes  # fmt: skip


def trade(ms: int, tid: int) -> dict[str, Any]:
    return {
        "coin": "BTC", "side": "A", "px": "83769.0", "sz": "0.0048", "time": ms, "hash": "0x0", "tid": tid,
        "users": ["0x1", "0x2"],
    }  # fmt: skip


# --- Instruments ------------------------------------------------------------------------------------------


def test_perpetuals_are_one_question() -> None:
    call = REST.instruments("linear")
    assert asked(call) == {"type": "meta"}
    assert (call.request.endpoint, call.request.cost) == ("linear_rest", 20)
    page = call.parse(reply({"universe": [{"szDecimals": 5, "name": "BTC"}]}))
    assert [i.name for i in page.items] == ["BTC-USD-PERP"]
    assert page.next is None


def test_spot_pairs_are_one_question() -> None:
    call = REST.instruments("spot")
    assert asked(call) == {"type": "spotMeta"}
    assert call.request.endpoint == "spot_rest"


def test_builders_exchanges_are_asked_one_after_the_other() -> None:
    call: RestCall[Instrument] | None = HyperliquidRest(["xyz", "gone", "flx"]).instruments("linear")
    bodies = [
        {"universe": [], "tokens": [{"name": "USDC", "index": 0}, {"name": "USDH", "index": 360}]},
        {"universe": [{"szDecimals": 5, "name": "BTC"}], "collateralToken": 0},
        {"universe": [{"szDecimals": 2, "name": "xyz:SP500"}], "collateralToken": 360},
        None,
        {"universe": [{"szDecimals": 2, "name": "flx:OIL"}], "collateralToken": 0},
    ]
    questions: list[Any] = []
    found: list[Instrument] = []
    for body in bodies:
        assert call is not None
        questions.append(asked(call))
        page = call.parse(reply(body))
        found += page.items
        call = page.next
    assert call is None
    assert questions == [
        {"type": "spotMeta"},
        {"type": "meta"},
        {"type": "meta", "dex": "xyz"},
        {"type": "meta", "dex": "gone"},
        {"type": "meta", "dex": "flx"},
    ]
    assert [(i.symbol, i.settle) for i in found] == [
        ("BTC", "USDC"),
        ("xyz:SP500", "USDH"),
        ("flx:OIL", "USDC"),
    ]


# --- Books ------------------------------------------------------------------------------------------------


def test_a_book() -> None:
    call = REST.book(HYPE)
    assert asked(call) == {"type": "l2Book", "coin": "@107"}
    assert call is not None
    assert (call.request.endpoint, call.request.cost) == ("spot_rest", 2)
    level = {"px": "42.1", "sz": "3.0", "n": 2}
    (book,) = call.parse(reply({"coin": "@107", "time": T0_MS, "levels": [[level], []]})).items
    assert isinstance(book, BookSnapshot)
    assert (book.instrument, list(book.bids), list(book.asks)) == ("HYPE-USDC", [("42.1", "3.0")], [])
    with pytest.raises(DecodeError):
        call.parse(reply(None))  # the answer for an unknown coin


# --- Candles ----------------------------------------------------------------------------------------------


def candles(first: int, last: int) -> RestCall[Candle]:
    call = REST.candles(BTC, (T0_MS + first * MINUTE_MS) * 1_000_000, (T0_MS + last * MINUTE_MS) * 1_000_000)
    assert call is not None
    return call


def test_both_ends_are_included() -> None:
    call = candles(0, 2)
    assert asked(call) == {
        "type": "candleSnapshot",
        "req": {
            "coin": "BTC", "interval": "1m", "startTime": T0_MS, "endTime": T0_MS + 3 * MINUTE_MS - 1,
        },
    }  # fmt: skip
    rows = [candle(T0_MS + i * MINUTE_MS) for i in range(-1, 4)]
    page = call.parse(reply(rows))
    assert [c.start_ns for c in page.items] == [(T0_MS + i * MINUTE_MS) * 1_000_000 for i in range(3)]
    assert page.next is None
    assert page.items[0] == Candle(
        venue="hyperliquid",
        instrument="BTC-USD-PERP",
        received_ns=NOW_NS,
        origin=Origin.BACKFILL,
        start_ns=T0_MS * 1_000_000,
        open="83737.0",
        high="83977.0",
        low="83600.0",
        close="83767.0",
        volume="910.98068",
        trades=8461,
        closed=True,
    )


def test_times_between_minutes_are_rounded_inwards() -> None:
    call = REST.candles(BTC, T0_MS * 1_000_000 + 1, (T0_MS + 2 * MINUTE_MS) * 1_000_000 + 5)
    assert asked(call)["req"]["startTime"] == T0_MS + MINUTE_MS
    assert asked(call)["req"]["endTime"] == T0_MS + 3 * MINUTE_MS - 1


def test_long_windows_go_by_pages_of_time_without_a_minute_twice() -> None:
    call: RestCall[Candle] | None = candles(0, 2499)
    starts: list[int] = []
    costs = []
    while call is not None:
        span = asked(call)["req"]
        costs.append(call.request.cost)
        opened = range(span["startTime"], span["endTime"] + 1, MINUTE_MS)
        # A page without any row must not end the search.
        rows = [] if len(costs) == 2 else [candle(ms) for ms in opened]
        page = call.parse(reply(rows))
        starts += [c.start_ns // 1_000_000 for c in page.items]
        call = page.next
    assert starts == [T0_MS + i * MINUTE_MS for i in range(2500) if not 1000 <= i < 2000]
    assert costs == [pytest.approx(20 + rows / 60) for rows in (1000, 1000, 500)]


@pytest.mark.parametrize(("after_close_ms", "closed"), [(-30_000, False), (1_000, False), (2_100, True)])
def test_the_last_row_may_still_be_forming(after_close_ms: int, closed: bool) -> None:
    close_ms = NOW_NS // 1_000_000 - after_close_ms
    call = REST.candles(BTC, 0, 2 * NOW_NS)
    assert call is not None
    start_ms = close_ms // MINUTE_MS * MINUTE_MS
    call = REST.candles(BTC, start_ms * 1_000_000, start_ms * 1_000_000)
    assert call is not None
    (found,) = call.parse(reply([candle(start_ms, T=close_ms)])).items
    assert found.closed is closed


def test_the_venues_clock_says_whether_a_minute_is_over() -> None:
    call = candles(9, 9)  # over by our clock in this moment, at 18:00:00
    row = candle(T0_MS + 9 * MINUTE_MS)
    headers = {"date": "Fri, 25 Sep 2026 17:30:00 GMT"}
    assert not call.parse(reply([row], headers=headers)).items[0].closed
    headers = {"date": "Fri, 25 Sep 2026 18:00:03 GMT"}
    assert call.parse(reply([row], headers=headers)).items[0].closed
    for header in ("", "yesterday"):
        assert not call.parse(reply([row], headers={"date": header})).items[0].closed


@pytest.mark.parametrize(
    "body", [None, {}, [1], [{}], [candle(T0_MS, o=1.5)], [candle(T0_MS, v="x")], b"oops"]
)
def test_bad_candles(body: Any) -> None:
    with pytest.raises(DecodeError, match="bad reply"):
        candles(0, 1).parse(reply(body))


# --- Trades -----------------------------------------------------------------------------------------------


def trades(**changes: Any) -> RestCall[Trade]:
    span: dict[str, Any] = {
        "after_id": None, "before_id": None, "from_ns": T0_MS * 1_000_000, "to_ns": (T0_MS + 5000) * 1_000_000,
    }  # fmt: skip
    call = REST.trades(BTC, **(span | changes))
    assert call is not None
    return call


def test_recent_trades_between_two_times_oldest_first() -> None:
    call = trades()
    assert asked(call) == {"type": "recentTrades", "coin": "BTC"}
    rows = [trade(T0_MS + 5001, 9), trade(T0_MS + 5000, 8), trade(T0_MS, 7), trade(T0_MS - 1, 6)]
    page = call.parse(reply(rows))
    assert [t.id for t in page.items] == ["7", "8"]
    assert page.next is None
    assert {(t.origin, t.aggressor, t.instrument) for t in page.items} == {
        (Origin.BACKFILL, Side.SELL, "BTC-USD-PERP")
    }


def test_the_ends_of_a_hole_are_not_in_it() -> None:
    call = trades(after_id="7", before_id="9")
    rows = [trade(T0_MS + i, tid) for i, tid in enumerate((7, 8, 9))]
    assert [t.id for t in call.parse(reply(rows)).items] == ["8"]


@pytest.mark.parametrize("body", [None, {}, [{}], [trade(T0_MS, 1) | {"side": "X"}]])
def test_bad_trades(body: Any) -> None:
    with pytest.raises(DecodeError, match="bad reply"):
        trades().parse(reply(body))


# --- What answers stand for -------------------------------------------------------------------------------


def test_a_good_answer_says_nothing_of_the_budget() -> None:
    assert REST.examine(reply([])) == RateSignal()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, b"null", RateLimitedError),
        (422, b"Failed to deserialize the JSON body into the target type", SubscriptionRejectedError),
        (500, b"null", VenueError),
        (502, b"<html>Bad Gateway</html>", VenueError),
        (403, b"Forbidden", ConnectError),
    ],
)
def test_errors_are_plain_text(status: int, body: bytes, error: type[VenueError]) -> None:
    with pytest.raises(error, match=f"HTTP {status}") as caught:
        REST.examine(reply(body, status=status))
    assert type(caught.value) is error
    assert caught.value.retry is (status != 422)


def test_a_429_stops_us_for_a_minute_unless_the_venue_says_otherwise() -> None:
    for headers, wait_s in (({}, 60.0), ({"retry-after": "7"}, 7.0)):
        with pytest.raises(RateLimitedError) as caught:
            REST.examine(reply(b"null", status=429, headers=headers))
        assert caught.value.retry_after_s == wait_s
