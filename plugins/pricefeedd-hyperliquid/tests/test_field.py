"""Faults that were found in the field, in other people's connectors, and that Hyperliquid can cause."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted
from pricefeedd.events import BookSnapshot, Candle, Origin, Quote, State, Status, Ticker, Trade
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_hyperliquid.fake_words import tid_of
from pricefeedd_hyperliquid.testing import HyperliquidFake
from pricefeedd_hyperliquid.venue import hyperliquid

VENUE = hyperliquid()
BTC, ETH = "BTC-USD-PERP", "ETH-USD-PERP"
NAMES = {"BTC": BTC, "ETH": ETH}
MINUTE_NS = 60_000_000_000
START_NS = 1_790_000_057_250_000_000  # in the middle of a minute, so that each run is the same


@asynccontextmanager
async def quiet(
    *channels: str, names: tuple[str, ...] = (BTC, ETH), history: int = 3, start_ns: int = START_NS
) -> AsyncIterator[tuple[HyperliquidFake, Rig]]:
    """Serve two coins on which nothing happens but what the test does; wait until all is live."""
    listings = [each for each in HyperliquidFake.default_listings() if each.name in (BTC, ETH)]
    fake = HyperliquidFake(Market(listings), now_ns=anchored_clock(start_ns), history_minutes=history)
    subscribe = {"linear": {name: list(channels) for name in names}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        topics = [f"{channel}:{name}" for channel in channels for name in (BTC, ETH) if name in names]
        await made.until(lambda: made.live(*topics))
        await trio.sleep(2)
        yield fake, made


def say(channel: str, data: Any) -> list[Any]:
    frame = orjson.dumps({"channel": channel, "data": data})
    feed = VENUE.feed("linear")
    return list(VENUE.codec.decode(frame, feed=feed, names=NAMES, received_ns=1_790_000_000_000_000_000))


def row(fake: HyperliquidFake, tid: int, *, coin: str = "BTC", ago_ms: int = 0) -> dict[str, Any]:
    return {
        "coin": coin, "side": "B", "px": "83757.0", "sz": "0.5", "time": fake.now_ns() // 1_000_000 - ago_ms,
        "hash": "0x0", "tid": tid, "users": ["0x1", "0x2"],
    }  # fmt: skip


def level(price: str, size: str = "1.0") -> dict[str, Any]:
    return {"px": price, "sz": size, "n": 1}


def book(fake: HyperliquidFake, bids: list[Any], asks: list[Any]) -> str:
    data = {"coin": "BTC", "time": fake.now_ns() // 1_000_000, "levels": [bids, asks], "fast": True}
    return orjson.dumps({"channel": "l2Book", "data": data}).decode()


# --- Subscriptions ----------------------------------------------------------------------------------------


async def test_one_bad_symbol_does_not_drop_the_rest(autojump_clock: MockClock) -> None:
    async with quiet("trade", names=("BTC-USDT", BTC, "NOPE-USD-PERP", ETH)) as (fake, made):
        fake.step(20)
        await trio.sleep(1)
        assert made.live(f"trade:{BTC}", f"trade:{ETH}")
        for name in ("BTC-USDT", "NOPE-USD-PERP"):
            (status,) = made.events(f"trade:{name}", Status)
            assert status.state is State.DOWN, "an unknown symbol fails at once, and does not hang"
            assert "unknown instrument" in status.reason


def test_an_ack_confirms_its_own_stream_only() -> None:
    subscription = {"type": "trades", "coin": "BTC"}
    said = say("subscriptionResponse", {"method": "subscribe", "subscription": subscription})
    assert said == [Accepted(streams=("trades:BTC",))]


async def test_a_late_word_of_an_end_does_not_end_what_began_again(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        end = {"method": "unsubscribe", "subscription": {"type": "trades", "coin": "BTC"}}
        fake.faults.message(orjson.dumps({"channel": "subscriptionResponse", "data": end}).decode())
        fake.step(20)
        await trio.sleep(1)
        assert made.live(f"trade:{BTC}")
        assert made.events(f"trade:{BTC}", Trade)[-1].id == str(tid_of(fake.market.trades(BTC)[-1].id))


async def test_two_kinds_of_book_are_never_on_one_connection(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, _):
        asked = [orjson.loads(text) for _, text in fake.seen.messages if b"l2Book" in text.encode()]  # type: ignore[union-attr]  # text
        assert {str(one["subscription"].get("fast")) for one in asked} == {"True"}


# --- Trades -----------------------------------------------------------------------------------------------


async def test_several_trades_in_one_frame_are_all_passed(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        made.forget()
        fake.publish("trades:BTC", [row(fake, tid) for tid in (900, 500, 700)])
        await trio.sleep(1)
        assert [t.id for t in made.events(f"trade:{BTC}", Trade)] == ["900", "500", "700"]


async def test_a_burst_of_frames_in_one_read_is_read_to_its_end(autojump_clock: MockClock) -> None:
    async with quiet("trade", "quote") as (fake, made):
        made.forget()
        for tid in range(200):
            fake.publish("trades:BTC", [row(fake, tid)])
            fake.faults.message('{"channel":"pong"}')
        await trio.sleep(1)
        assert [t.id for t in made.events(f"trade:{BTC}", Trade)] == [str(tid) for tid in range(200)]


async def test_old_trades_after_a_reconnect_are_not_passed_again(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        fake.step(40)
        await trio.sleep(1)
        before = [t.id for t in made.events(f"trade:{BTC}", Trade)]
        fake.faults.cut()
        await made.until(lambda: made.state(f"trade:{BTC}") is not State.LIVE)
        await made.until(lambda: made.live(f"trade:{BTC}"))
        await trio.sleep(5)
        assert [t.id for t in made.events(f"trade:{BTC}", Trade)] == before
        assert not made.gaps(f"trade:{BTC}"), "the replay proves that nothing was missed"


async def test_the_same_id_on_two_coins_is_two_trades(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        made.forget()
        fake.publish("trades:BTC", [row(fake, 7)])
        fake.publish("trades:ETH", [row(fake, 7, coin="ETH")])
        await trio.sleep(1)
        assert [len(made.events(f"trade:{name}", Trade)) for name in (BTC, ETH)] == [1, 1]


# --- Books ------------------------------------------------------------------------------------------------


async def test_a_level_that_is_not_in_the_next_book_is_gone(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, made):
        fake.faults.silent_route(match="l2Book")  # the clock's own pushes would interfere
        fake.faults.message(book(fake, [level("10.0"), level("9.0")], [level("11.0"), level("12.0")]))
        fake.faults.message(book(fake, [level("9.5"), level("9.0")], [level("11.5")]))
        await trio.sleep(1)
        assert made.book(BTC) == ([("9.5", "1.0"), ("9.0", "1.0")], [("11.5", "1.0")])


@pytest.mark.parametrize(
    ("bids", "asks"),
    [([], []), ([level("9.0")], []), ([], [level("11.0", "0.5")])],
    ids=["none", "bids", "asks"],
)
async def test_empty_sides_are_a_book(autojump_clock: MockClock, bids: list[Any], asks: list[Any]) -> None:
    async with quiet("book") as (fake, made):
        fake.faults.silent_route(match="l2Book")
        fake.faults.message(book(fake, bids, asks))
        await trio.sleep(1)
        found = made.book(BTC)
        assert found is not None
        assert [len(side) for side in found] == [len(bids), len(asks)]
        assert made.live(f"book:{BTC}")


async def test_an_unchanged_book_is_not_passed_again(autojump_clock: MockClock) -> None:
    async with quiet("book") as (_, made):
        count = len(made.events(f"book:{BTC}", BookSnapshot))
        await trio.sleep(60)
        assert len(made.events(f"book:{BTC}", BookSnapshot)) == count
        assert made.live(f"book:{BTC}"), "it was sent a hundred times, and is alive"


async def test_a_crossed_book_is_asked_for_again_and_the_other_coin_stays(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, made):
        fake.faults.message(book(fake, [level("11.0")], [level("11.0")]))
        await made.until(lambda: made.state(f"book:{BTC}") is State.RESYNCING)
        assert made.live(f"book:{ETH}")
        await made.until(lambda: made.live(f"book:{BTC}"))
        assert made.states(f"book:{ETH}") == [State.CONNECTING, State.LIVE]
        assert made.market("linear").resyncs == 1


# --- Candles ----------------------------------------------------------------------------------------------


async def test_an_unclosed_candle_is_never_passed_as_closed(autojump_clock: MockClock) -> None:
    async with quiet("candle_1m") as (fake, made):
        made.forget()
        start_ns = fake.now_ns() // MINUTE_NS * MINUTE_NS
        for _ in range(4):
            fake.step(5)
            await trio.sleep(5)
        candles = made.events(f"candle_1m:{BTC}", Candle)
        assert candles
        running = [c for c in candles if c.start_ns + MINUTE_NS > c.received_ns]
        assert not any(c.closed for c in running)
        assert not any(c.closed and c.start_ns >= start_ns + MINUTE_NS for c in candles)


async def test_the_last_word_of_a_minute_after_its_end_counts(autojump_clock: MockClock) -> None:
    async with quiet("candle_1m", history=5) as (fake, made):
        start_ns = (fake.now_ns() // MINUTE_NS + 1) * MINUTE_NS
        await trio.sleep((start_ns - fake.now_ns()) / 1e9 + 1)
        start_ms = start_ns // 1_000_000

        def candle(at_ms: int, close: str, volume: str) -> dict[str, Any]:
            prices = {"o": "83700.0", "h": "83900.0", "l": "83600.0", "c": close}
            ends = {"t": at_ms, "T": at_ms + 59_999}
            return {**ends, "s": "BTC", "i": "1m", **prices, "v": volume, "n": 3}

        fake.publish("candle_1m:BTC", candle(start_ms, "83750.0", "1.0"))
        await trio.sleep(59.156)  # the minute is over by 0.156 s
        fake.publish("candle_1m:BTC", candle(start_ms, "83760.0", "1.5"))
        await trio.sleep(0.5)
        fake.publish("candle_1m:BTC", candle(start_ms + 60_000, "83770.0", "0.1"))
        await trio.sleep(1)
        closed = [c for c in made.events(f"candle_1m:{BTC}", Candle) if c.closed and c.start_ns == start_ns]
        assert [(c.close, c.volume) for c in closed] == [("83760.0", "1.5")]


async def test_minutes_come_once_at_the_end_of_a_day(autojump_clock: MockClock) -> None:
    midnight_ns = 20_000 * 86_400 * 1_000_000_000
    start_ns = midnight_ns - 2 * MINUTE_NS + 10_000_000_000
    async with quiet("candle_1m", start_ns=start_ns) as (fake, made):
        made.forget()
        for _ in range(8):
            fake.step(4)
            await trio.sleep(30)
        await trio.sleep(10)
        starts = [c.start_ns for c in made.events(f"candle_1m:{BTC}", Candle) if c.closed]
        assert starts[0] < midnight_ns < starts[-1]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))


# --- Time and numbers -------------------------------------------------------------------------------------


def test_our_clock_is_never_the_venues() -> None:
    (ticker,) = say("activeAssetCtx", {"coin": "BTC", "ctx": {"markPx": "1.0"}})
    assert isinstance(ticker, Ticker)
    assert ticker.venue_time_ns is None, "the venue sends no time with it"
    (quote,) = say("bbo", {"coin": "BTC", "time": 1789999999999, "bbo": [None, None]})
    assert isinstance(quote, Quote)
    assert quote.venue_time_ns == 1789999999999_000_000


def test_trailing_zeros_and_exponents() -> None:
    common = {"coin": "BTC", "side": "A", "time": 1790000000000, "tid": 1}
    one, other = say(
        "trades", [common | {"px": "83770.0", "sz": "0.50"}, common | {"px": "1e-7", "sz": "5E2"}]
    )
    assert (one.price, one.size) == ("83770.0", "0.50")
    assert (other.price, other.size) == ("0.0000001", "500")


# --- Life -------------------------------------------------------------------------------------------------


async def test_pongs_are_no_data(autojump_clock: MockClock) -> None:
    """A book that fell silent is found although the connection answers each ping."""
    async with quiet("book", "trade") as (fake, made):
        with fake.faults.silent_route(match="l2Book"):
            await made.until(lambda: made.state(f"book:{BTC}") is State.STALE, within_s=120)
            assert made.live(f"trade:{BTC}"), "a quiet coin's trades may rightly be silent"
        await made.until(lambda: made.live(f"book:{BTC}", f"book:{ETH}"))


async def test_the_greeting_of_older_servers_is_no_bad_frame(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        fake.faults.message("Websocket connection established.")
        await trio.sleep(1)
        assert made.market("linear").decode_errors == 0


async def test_a_venue_that_closes_with_1000_is_dialled_again(autojump_clock: MockClock) -> None:
    async with quiet("quote") as (fake, made):
        fake.faults.close(code=1000)
        await made.until(lambda: made.market("linear").reconnects == 1)
        await made.until(lambda: made.live(f"quote:{BTC}"))


async def test_a_replay_is_not_taken_for_live_trades(autojump_clock: MockClock) -> None:
    async with quiet("trade", history=60) as (_, made):
        trades = made.events(f"trade:{BTC}", Trade)
        assert len(trades) == 30
        assert {t.origin for t in trades[:-2]} == {Origin.BACKFILL}


async def test_nothing_grows_on_coins_that_never_trade(autojump_clock: MockClock) -> None:
    async with quiet("trade", "quote") as (_, made):
        await trio.sleep(300)
        tasks = trio.lowlevel.current_statistics().tasks_living
        await trio.sleep(1800)
        assert trio.lowlevel.current_statistics().tasks_living <= tasks
        assert made.market("linear").reconnects == 0
