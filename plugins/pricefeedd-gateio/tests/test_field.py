"""What went wrong at others who read venues, as far as it can happen on Gate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookSnapshot, Candle, Quote, State, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_gateio import pricefeedd_venues
from pricefeedd_gateio.testing import GateioFake
from pricefeedd_gateio.venue import GateioSettings

(VENUE,) = pricefeedd_venues()
NAMES = {"BTC_USDT": "BTC-USDT", "ETH_USDT": "ETH-USDT"}
MINUTE_NS = 60_000_000_000


def decode(feed: str, message: Any, received_ns: int = 1_790_359_200_000_000_000) -> list[Any]:
    frame = message if isinstance(message, bytes) else orjson.dumps(message)
    return list(VENUE.codec.decode(frame, feed=VENUE.feed(feed), names=NAMES, received_ns=received_ns))


@asynccontextmanager
async def reading(
    subscribe: dict[str, dict[str, list[str]]],
    *,
    rate: float = 4.0,
    settings: GateioSettings | None = None,
    prepare: Callable[[GateioFake], object] = lambda fake: None,
) -> AsyncIterator[tuple[GateioFake, Rig]]:
    """Read a fake that trades what is subscribed; nothing is waited for."""
    wanted = {name for names in subscribe.values() for name in names}
    market = Market(listing for listing in GateioFake.default_listings() if listing.name in wanted)
    fake = GateioFake(market, history_minutes=5)
    prepare(fake)
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints(), settings=settings) as made,
    ):
        if rate:
            nursery.start_soon(fake.play, rate)
        yield fake, made
        nursery.cancel_scope.cancel()


# --- Connection life --------------------------------------------------------------------------------------


async def test_pongs_alone_do_not_make_a_stream_live(autojump_clock: MockClock) -> None:
    """The venue answers our pings, acknowledges and says nothing: that is no data."""
    async with reading({"spot": {"BTC-USDT": ["quote"]}}, rate=5.0) as (fake, made):
        await made.until(lambda: len(made.events("quote:BTC-USDT", Quote)) > 100)
        with fake.faults.silent_route():
            await made.until(lambda: made.state("quote:BTC-USDT") is not State.LIVE, within_s=120)
        await made.until(lambda: made.live("quote:BTC-USDT"), within_s=120)


def test_the_applications_pong_is_no_event() -> None:
    for channel in ("spot.pong", "futures.pong"):
        assert (
            decode("spot", {"time": 1, "time_ms": 1, "channel": channel, "event": "", "result": None}) == []
        )


async def test_a_flood_of_pings_does_not_hide_that_nothing_comes(autojump_clock: MockClock) -> None:
    async with reading({"spot": {"BTC-USDT": ["trade"]}}) as (fake, made):
        await made.until(lambda: made.live("trade:BTC-USDT"))
        fake.faults.ping_flood(300)
        await trio.sleep(30)
        assert made.market("spot").reconnects == 0


# --- Subscriptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_good", [False, True])
async def test_one_bad_symbol_does_not_drop_the_rest(autojump_clock: MockClock, keeps_good: bool) -> None:
    """Whether the venue keeps the good ones of a refused request or not."""

    def prepare(fake: GateioFake) -> None:
        fake.keeps_good = keeps_good
        known = fake._knows
        fake._knows = lambda scope, symbol: symbol != "ETH_USDT" and known(scope, symbol)  # type: ignore[method-assign]

    wanted = {name: ["trade", "book"] for name in ("BTC-USDT", "ETH-USDT", "SOL-USDT")}
    async with reading({"spot": wanted}, prepare=prepare) as (_fake, made):
        good = ["trade:BTC-USDT", "trade:SOL-USDT", "book:BTC-USDT", "book:ETH-USDT", "book:SOL-USDT"]
        await made.until(lambda: made.live(*good), within_s=20)
        assert made.state("trade:ETH-USDT") is State.DOWN
        (status,) = [m.event for m in made.topic("trade:ETH-USDT")][-1:]
        assert "unknown currency pair ETH_USDT" in getattr(status, "reason", "")
        count = len(made.events("trade:SOL-USDT", Trade))
        await made.until(lambda: len(made.events("trade:SOL-USDT", Trade)) > count + 5)
        assert made.market("spot").reconnects == 0


async def test_an_instrument_that_is_not_listed_fails_and_does_not_hang(autojump_clock: MockClock) -> None:
    """`obu` would acknowledge it and stay silent."""
    async with reading({"spot": {"BTC-USDT": ["book"]}, "linear": {"NO-PE": ["book"]}}) as (_, made):
        await made.until(lambda: made.state("book:NO-PE") is State.DOWN, within_s=20)
        await made.until(lambda: made.live("book:BTC-USDT"), within_s=20)


def test_an_answer_confirms_its_own_request_only() -> None:
    answer = {
        "time": 1,
        "id": 7,
        "channel": "spot.trades",
        "event": "subscribe",
        "result": {"status": "success"},
    }
    assert decode("spot", answer) == [Accepted(request_id=7)]


def test_error_frames_have_the_envelope_of_data() -> None:
    """A refusal in the envelope of a channel must not be read as data of it."""
    message = {
        "time": 1790359200,
        "channel": "spot.trades",
        "event": "update",
        "error": {"code": 3, "message": "x"},
        "result": None,
    }
    (said,) = decode("spot", message)
    assert "x (code 3)" in said.reason


# --- Books ------------------------------------------------------------------------------------------------


async def test_a_snapshot_older_than_the_stream_is_fetched_again(autojump_clock: MockClock) -> None:
    """A cached answer of REST: with a pause, until one joins."""
    settings = GateioSettings(book_depth=100)
    async with reading({"spot": {"BTC-USDT": ["book"]}}, rate=20.0, settings=settings) as (fake, made):
        await made.until(lambda: made.live("book:BTC-USDT"))
        before = fake.seen.requests["/api/v4/spot/order_book"]
        late = fake.faults.late_reply("/api/v4/spot/order_book", seconds=3.0, times=1)
        fake.faults.cut()
        await trio.sleep(30)
        assert late.hits == 1
        assert fake.seen.requests["/api/v4/spot/order_book"] >= before + 1
        await made.until(lambda: made.live("book:BTC-USDT"))


async def test_a_whole_book_in_mid_stream_replaces_ours(autojump_clock: MockClock) -> None:
    """The venue may repeat it at any time, with the numbers begun anew after a restart."""
    async with reading({"spot": {"BTC-USDT": ["book"]}}, rate=0) as (fake, made):
        fake.step(5)
        await made.until(lambda: made.live("book:BTC-USDT"))
        whole = {"t": 1, "full": True, "s": "ob.BTC_USDT.400", "u": 1, "b": [["5", "1"]], "a": [["6", "1"]]}
        fake.faults.message(orjson.dumps({"channel": "spot.obu", "result": whole}).decode())
        delta = {"t": 2, "s": "ob.BTC_USDT.400", "U": 2, "u": 2, "b": [["5", "0"], ["4", "2"]]}
        fake.faults.message(orjson.dumps({"channel": "spot.obu", "result": delta}).decode())
        await trio.sleep(5)
        assert made.book("BTC-USDT") == ([("4", "2")], [("6", "1")])
        assert made.live("book:BTC-USDT")
        assert made.market("spot").resyncs == 0


async def test_a_book_that_is_empty_or_has_one_side(autojump_clock: MockClock) -> None:
    async with reading({"spot": {"BTC-USDT": ["book"]}}, rate=0) as (fake, made):
        fake.step(5)
        await made.until(lambda: made.live("book:BTC-USDT"))
        for number, sides in enumerate(({"b": [], "a": []}, {"b": [["5", "1"]]}, {})):
            whole = {"t": 1, "full": True, "s": "ob.BTC_USDT.400", "u": 10 + number} | sides
            fake.faults.message(orjson.dumps({"channel": "spot.obu", "result": whole}).decode())
            await trio.sleep(2)
            assert made.book("BTC-USDT") == ([("5", "1")] if sides.get("b") else [], [])
            assert made.live("book:BTC-USDT")


async def test_a_repeated_number_changes_nothing(autojump_clock: MockClock) -> None:
    async with reading({"spot": {"BTC-USDT": ["book"]}}, rate=5.0) as (fake, made):
        await made.until(lambda: made.live("book:BTC-USDT"))
        with fake.faults.duplicate(None, match="obu:"):
            await trio.sleep(30)
        assert made.market("spot").resyncs == 0
        snapshots = made.events("book:BTC-USDT", BookSnapshot)
        assert len(snapshots) == 1


async def test_a_crossed_book_is_never_served(autojump_clock: MockClock) -> None:
    async with reading({"spot": {"BTC-USDT": ["book"]}}, rate=0) as (fake, made):
        fake.step(5)
        await made.until(lambda: made.live("book:BTC-USDT"))
        sequence = fake.market.sequence("BTC-USDT")
        crossing = {
            "t": 2,
            "s": "ob.BTC_USDT.400",
            "U": sequence + 1,
            "u": sequence + 1,
            "b": [["900000", "1"]],
        }
        fake.faults.message(orjson.dumps({"channel": "spot.obu", "result": crossing}).decode())
        await made.until(lambda: State.RESYNCING in made.states("book:BTC-USDT"))
        await made.until(lambda: made.live("book:BTC-USDT"))
        book = made.book("BTC-USDT")
        assert book is not None
        assert all(float(price) < 900000 for price, _ in book[0])


async def test_a_gap_in_one_symbol_leaves_the_others_live(autojump_clock: MockClock) -> None:
    async with reading({"linear": {"BTC-USDT-PERP": ["book"], "ETH-USDT-PERP": ["book"]}}) as (fake, made):
        await made.until(lambda: made.live("book:BTC-USDT-PERP", "book:ETH-USDT-PERP"))
        fake.faults.drop(1, match="obu:ob.BTC_USDT")
        await made.until(lambda: State.RESYNCING in made.states("book:BTC-USDT-PERP"))
        await made.until(lambda: made.live("book:BTC-USDT-PERP"))
        assert made.states("book:ETH-USDT-PERP") == [State.CONNECTING, State.LIVE]


async def test_a_level_that_leaves_the_depth_is_gone(autojump_clock: MockClock) -> None:
    """No delete is told for it; kept, it would be found again much later, and wrong."""
    settings = GateioSettings(book_depth=20)
    async with reading({"spot": {"BTC-USDT": ["book"]}}, rate=20.0, settings=settings) as (_fake, made):
        await made.until(lambda: made.live("book:BTC-USDT"))
        for _ in range(10):
            await trio.sleep(5)
            book = made.book("BTC-USDT")
            assert book is not None
            assert len(book[0]) <= 20
            assert len(book[1]) <= 20


# --- Trades and candles -----------------------------------------------------------------------------------


def test_several_trades_in_one_frame_are_all_told() -> None:
    rows = [
        {"id": n, "size": n, "create_time_ms": 1790359195732, "price": "1", "contract": "BTC_USDT"}
        for n in range(1, 6)
    ]
    message = {"time": 1, "channel": "futures.trades", "event": "update", "result": rows}
    assert [t.id for t in decode("linear", message)] == ["1", "2", "3", "4", "5"]


async def test_a_burst_of_frames_in_one_read_is_all_told(autojump_clock: MockClock) -> None:
    async with reading({"spot": {"BTC-USDT": ["trade"]}}, rate=0) as (fake, made):
        await made.until(lambda: made.live("trade:BTC-USDT"))
        fake.step(60)
        await trio.sleep(5)
        got = [int(t.id or 0) for t in made.events("trade:BTC-USDT", Trade)]
        told = [t.id for t in fake.market.trades("BTC-USDT")]
        assert len(got) > 13
        assert got == told[-len(got) :]


@pytest.mark.parametrize("market", ["spot", "linear"])
async def test_an_old_trade_after_a_reconnect_is_dropped(autojump_clock: MockClock, market: str) -> None:
    """Gate has sent the last trade once more at the beginning of a stream."""
    name = "BTC-USDT" if market == "spot" else "BTC-USDT-PERP"
    async with reading({market: {name: ["trade"]}}, rate=3.0) as (fake, made):
        await made.until(lambda: len(made.events(f"trade:{name}", Trade)) > 20)
        words = fake._words[name]
        old = fake.market.trades(name)[-1]
        fake.faults.cut()
        await made.until(lambda: made.state(f"trade:{name}") is State.CONNECTING)
        await fake.wait_subscribed("trades:BTC_USDT")
        frame = words.message("trades", words.trade(old), fake.now_ns())
        fake.faults.message(orjson.dumps(frame).decode())
        await trio.sleep(30)
        got = [t.id for t in made.events(f"trade:{name}", Trade)]
        assert len(got) == len(set(got))
        assert got == sorted(got, key=lambda number: int(number or 0))


async def test_an_open_minute_is_never_told_as_closed(autojump_clock: MockClock) -> None:
    async with reading({"spot": {"BTC-USDT": ["candle_1m"]}}) as (fake, made):
        await trio.sleep(40)
        fake.faults.cut()
        await trio.sleep(100)
        truth = {c.start_ns: c for c in fake.market.candles("BTC-USDT")}
        for candle in made.events("candle_1m:BTC-USDT", Candle):
            if candle.closed:
                assert candle.start_ns + MINUTE_NS <= candle.received_ns
                assert candle.volume == truth[candle.start_ns].volume


def test_the_finished_and_the_new_minute_in_one_frame() -> None:
    prices = {"o": "2", "h": "3", "l": "1", "c": "2", "n": "1m_BTC_USDT", "v": "20"}
    rows = [
        prices | {"t": 1790359140, "w": False},
        prices | {"t": 1790359140, "w": True},
        prices | {"t": 1790359200, "w": False},
    ]
    message = {"time": 1790359200, "channel": "futures.candlesticks", "event": "update", "result": rows}
    said = [(c.start_ns // 1_000_000_000, c.closed) for c in decode("linear", message)]
    assert said == [(1790359140, False), (1790359140, True), (1790359200, False)]


# --- Numbers and times ------------------------------------------------------------------------------------


def test_exponents_are_written_out() -> None:
    row = {
        "id": 1,
        "create_time_ms": "1790359195732.1",
        "side": "buy",
        "currency_pair": "BTC_USDT",
        "amount": "1E-7",
        "price": "2.5e3",
    }
    (trade,) = decode("spot", {"time": 1, "channel": "spot.trades", "event": "update", "result": row})
    assert (trade.size, trade.price) == ("0.0000001", "2500")


def test_trailing_zeros_are_kept() -> None:
    row = {"t": 1, "u": 1, "s": "BTC_USDT", "b": "1.500", "B": "2.0", "a": "1.60", "A": "3.00"}
    (quote,) = decode("spot", {"time": 1, "channel": "spot.book_ticker", "event": "update", "result": row})
    assert (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size) == (
        "1.500",
        "2.0",
        "1.60",
        "3.00",
    )


def test_our_clock_is_never_the_venues() -> None:
    row = {
        "currency_pair": "BTC_USDT",
        "last": "1",
        "base_volume": "1",
        "quote_volume": "1",
        "high_24h": "1",
        "low_24h": "1",
    }
    message = {"channel": "spot.tickers", "event": "update", "result": row}
    with pytest.raises(DecodeError):
        decode("spot", message)  # a frame without any time
    (ticker,) = decode("spot", message | {"time": 1790359100})
    assert ticker.venue_time_ns == 1_790_359_100_000_000_000
