"""The whole pipeline against the fake, in memory and under a mock clock: what readers get is complete and in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import Candle, Origin, Quote, State, Ticker, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.stage import Stage, staged
from pricefeedd_kraken.testing import KrakenFake
from pricefeedd_kraken.venue import KrakenSettings, kraken

VENUE = kraken()
MINUTE_NS = 60_000_000_000
SPOT = {
    "spot": {
        "BTC-USD": ["trade", "quote", "ticker", "candle_1m", "book"],
        "DOGE-USD": ["trade", "quote", "book"],
    }
}
TOPICS = tuple(f"{channel}:{name}" for name, channels in SPOT["spot"].items() for channel in channels)


@attrs.frozen
class Scene(Stage[KrakenFake]):
    """A fake that trades, and a daemon's pipeline that reads it."""

    def check_complete(self, *instruments: str, depth: int | None = None) -> None:
        """Assert that readers have every trade exactly once, in order, and the market's own book."""
        self.rig.check_sequence()
        for name in instruments:
            got = [int(t.id or 0) for t in self.rig.events(f"trade:{name}", Trade)]
            assert got == list(range(got[0], got[0] + len(got))), f"{name}: trades out of line"
            assert got[-1] == self.fake.market.trades(name)[-1].id, f"{name}: the last trades are missing"
            book = self.rig.book(name)
            assert book is not None
            bids, asks = self.fake.market.book(name, depth)
            assert book == (bids, asks), f"{name}: the book is wrong"
            assert self.rig.live(f"trade:{name}", f"book:{name}")

    def check_minutes(self, name: str) -> None:
        """Assert that each minute closed once, in order, as the market has it."""
        closed = [c for c in self.rig.events(f"candle_1m:{name}", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        truth = {c.start_ns: c for c in self.fake.market.candles(name)}
        for candle in closed:
            told = truth[candle.start_ns]
            assert (candle.open, candle.high, candle.low, candle.close) == (
                told.open,
                told.high,
                told.low,
                told.close,
            )
            assert float(candle.volume) == float(told.volume)


@asynccontextmanager
async def scene(
    subscribe: dict[str, dict[str, list[str]]] | None = None,
    *,
    rate: float = 3.0,
    settings: Any = None,
    refuses: tuple[str, ...] = (),
    wait: bool = True,
    **session: float,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    subscribe = subscribe or SPOT
    names = {name for instruments in subscribe.values() for name in instruments}
    listings = [listing for listing in KrakenFake.default_listings() if listing.name in names]
    fake = KrakenFake(Market(listings), history_minutes=20)
    fake.refuses |= set(refuses)
    async with staged(
        VENUE, fake, subscribe, rate=rate, settings=settings, waits_for=None if wait else (), **session
    ) as s:
        yield Scene(s.fake, s.rig, s.playing)


async def test_undisturbed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await trio.sleep(200)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        s.check_minutes("BTC-USD")
        for topic in TOPICS:
            assert set(s.rig.states(topic)) == {State.CONNECTING, State.LIVE}, topic
            assert not s.rig.gaps(topic)
        stats = s.rig.market("spot")
        assert (stats.reconnects, stats.resyncs, stats.decode_errors) == (0, 0, 0)
        quote = s.rig.events("quote:BTC-USD", Quote)[-1]
        told = s.fake.market.quote("BTC-USD")
        assert ((quote.bid_price, quote.bid_size), (quote.ask_price, quote.ask_size)) == (told.bid, told.ask)
        assert len(s.rig.events("ticker:BTC-USD", Ticker)) > 50


def cut(fake: KrakenFake) -> None:
    fake.faults.cut()


def half_close(fake: KrakenFake) -> None:
    fake.faults.half_close()


def close(fake: KrakenFake) -> None:
    fake.faults.close(code=1000, reason="bye")


def garbage(fake: KrakenFake) -> None:
    fake.faults.garbage()


def oversized(fake: KrakenFake) -> None:
    fake.faults.oversized(8 << 20)


@pytest.mark.parametrize("disturb", [cut, half_close, close, garbage, oversized])
async def test_a_connection_that_ends_leaves_no_hole(
    disturb: Callable[[KrakenFake], None], autojump_clock: MockClock
) -> None:
    async with scene() as s:
        disturb(s.fake)
        await trio.sleep(90)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        s.check_minutes("BTC-USD")
        assert s.rig.market("spot").reconnects == 1
        assert State.CONNECTING in s.rig.states("trade:BTC-USD")[1:]
        assert all(gap.missing == 0 for gap in s.rig.gaps("trade:BTC-USD"))


async def test_a_short_time_away_is_filled_from_the_snapshot_of_the_stream(autojump_clock: MockClock) -> None:
    async with scene({"spot": {"BTC-USD": ["trade"]}}, rate=2.0) as s:
        asked = s.fake.seen.requests["/0/public/Trades"]
        s.fake.faults.cut()
        await trio.sleep(30)
        await s.settle()
        ids = [int(t.id or 0) for t in s.rig.events("trade:BTC-USD", Trade)]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert s.fake.seen.requests["/0/public/Trades"] == asked


async def test_stall(autojump_clock: MockClock) -> None:
    """Heartbeats stop with the data, so it is seen within seconds."""
    async with scene() as s:
        fault = s.fake.faults.stall()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USD") is not State.LIVE, within_s=20)
        await trio.sleep(60)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS))
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")


async def test_duplicates(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.duplicate(None):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        assert s.rig.market("spot").duplicates > 50
        assert s.rig.market("spot").reconnects == 0


async def test_reordered_trades_need_no_rest(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.reorder(20, match="trade:BTC/USD"):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        assert all(gap.missing == 0 for gap in s.rig.gaps("trade:BTC-USD"))


async def test_dropped_trades_are_filled_in_order(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(7, match="trade:BTC/USD")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        (gap,) = s.rig.gaps("trade:BTC-USD")
        assert (gap.recovered, gap.missing) == (7, 0)
        filled = [t for t in s.rig.events("trade:BTC-USD", Trade) if t.origin is Origin.BACKFILL]
        assert len(filled) >= 7


async def test_a_dropped_delta_is_proved_by_the_checksum_and_that_book_alone_begins_anew(
    autojump_clock: MockClock,
) -> None:
    async with scene() as s:
        before = s.fake.seen.subscribes
        s.fake.faults.drop(3, match="book:BTC/USD")
        await s.rig.until(lambda: State.RESYNCING in s.rig.states("book:BTC-USD"))
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        kinds = [type(m.event).__name__ for m in s.rig.topic("book:BTC-USD")]
        after = kinds[len(kinds) - 1 - kinds[::-1].index("Status", 1) :]
        assert "BookDelta" not in after[: after.index("BookSnapshot")]
        await trio.sleep(20)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        assert State.RESYNCING not in s.rig.states("book:DOGE-USD")
        assert s.rig.market("spot").reconnects == 0
        assert s.fake.seen.subscribes - before <= 3, "asked again, not once for each bad message"


async def test_garbage_messages_are_skipped_and_kept(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.message('{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD"}]}')
        s.fake.faults.message("not json at all")
        s.fake.faults.message(b"\x00\x01")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        stats = s.rig.market("spot")
        assert (stats.decode_errors, stats.reconnects) == (3, 0)


async def test_a_notice_of_the_proxy_makes_before_it_breaks(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.shut_down()
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        assert s.rig.market("spot").reconnects == 1
        for topic in TOPICS:
            assert set(s.rig.states(topic)[1:]) == {State.LIVE}, topic


async def test_a_refused_symbol_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    wanted = {"spot": {name: ["trade", "book"] for name in ("BTC-USD", "ETH-USD", "MINA-GBP")}}
    async with scene(wanted, refuses=("ETH/USD",), wait=False) as s:
        await s.rig.until(lambda: s.rig.state("book:ETH-USD") is State.DOWN)
        await s.rig.until(lambda: s.rig.live("trade:BTC-USD", "book:BTC-USD", "trade:MINA-GBP"))
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "MINA-GBP")
        assert "Currency pair not supported ETH/USD" in (s.rig.topic("trade:ETH-USD")[-1].text.decode())
        assert s.rig.market("spot").reconnects == 0
        assert s.fake.seen.subscribes == 2, "one for each channel: nothing had to be asked again"


async def test_lost_and_late_acks_do_no_harm_because_snapshots_prove_as_much(
    autojump_clock: MockClock,
) -> None:
    async with scene() as s:
        s.fake.faults.no_ack()
        s.fake.faults.cut()
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        assert s.rig.market("spot").reconnects == 1


async def test_silent_books_of_quiet_pairs_are_not_stale(autojump_clock: MockClock) -> None:
    """Heartbeats prove the connection, and no stream owes us anything."""
    async with scene(rate=5.0) as s:
        s.playing.cancel()
        await trio.sleep(300)
        assert s.rig.live(*(topic for topic in TOPICS if topic.startswith(("book", "candle"))))
        assert s.rig.market("spot").reconnects == 0


async def test_minutes_without_trades_are_filled_flat(autojump_clock: MockClock) -> None:
    async with scene({"spot": {"BTC-USD": ["candle_1m"]}}) as s:
        s.playing.cancel()
        await trio.sleep(300)
        s.fake.step(20)
        await trio.sleep(90)
        s.fake.step(20)
        await trio.sleep(120)
        s.check_minutes("BTC-USD")
        closed = [c for c in s.rig.events("candle_1m:BTC-USD", Candle) if c.closed]
        assert sum(float(c.volume) == 0 for c in closed) >= 4
        assert not [gap for gap in s.rig.gaps("candle_1m:BTC-USD") if gap.missing]


async def test_ten_minutes_away(autojump_clock: MockClock) -> None:
    async with scene(rate=6.0) as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        assert s.rig.state("trade:BTC-USD") is State.DOWN
        assert s.rig.market("spot").circuit_state == "open"
        refused.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS), within_s=320)
        await trio.sleep(90)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        s.check_minutes("BTC-USD")
        (gap,) = s.rig.gaps("trade:BTC-USD")
        assert gap.missing == 0
        assert gap.recovered > 1000, "more than one page of REST, and than the snapshot of the stream"


async def test_a_rate_limit_of_rest_inside_http_200_is_obeyed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.rest_status(200, body=b'{"error":["EAPI:Rate limit exceeded"]}')
        s.fake.faults.drop(7, match="trade:BTC/USD")
        await s.rig.until(lambda: "Rate limit" in s.rig.market("spot").last_error)
        asked = sum(s.fake.seen.requests.values())
        await trio.sleep(9)
        assert sum(s.fake.seen.requests.values()) == asked
        fault.lift()
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")


@pytest.mark.parametrize("depth", [10, 25])
async def test_books_are_cut_to_their_depth(depth: int, autojump_clock: MockClock) -> None:
    async with scene(
        {"spot": {"BTC-USD": ["trade", "book"]}}, settings=KrakenSettings(book_depth=depth)
    ) as s:
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", depth=depth)
        assert s.rig.market("spot").resyncs == 0


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps(hours: int, autojump_clock: MockClock) -> None:
    """Trades missed while our clock is wrong are found all the same."""
    async with scene() as s:
        await trio.sleep(30)
        s.rig.clock.ahead_ns = hours * 3600 * 1_000_000_000
        await trio.sleep(30)
        s.fake.faults.drop(5, match="trade:BTC/USD")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "DOGE-USD")
        assert all(gap.missing == 0 for gap in s.rig.gaps("trade:BTC-USD"))
