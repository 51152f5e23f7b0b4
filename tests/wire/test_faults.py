"""Every fault of a venue, injected: what readers saw, and that data is complete and in order afterwards.

The whole pipeline runs against the fake over streams in memory, under Trio's mock clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import Candle, Origin, Quote, State, Trade
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_binance import pricefeedd_venues
from pricefeedd_binance.testing import BinanceFake

(VENUE,) = pricefeedd_venues()
SPOT = {"spot": {"BTC-USDT": ["trade", "quote", "candle_1m", "book"], "ETH-USDT": ["trade", "quote", "book"]}}
TOPICS = (
    "trade:BTC-USDT",
    "quote:BTC-USDT",
    "candle_1m:BTC-USDT",
    "book:BTC-USDT",
    "trade:ETH-USDT",
    "book:ETH-USDT",
)


@attrs.frozen
class Scene:
    """A fake that trades, and a daemon's pipeline that reads it."""

    fake: BinanceFake
    rig: Rig
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(20)

    def check_complete(self, *instruments: str, since: int = 0) -> None:
        """Assert that readers have every trade exactly once, in order, and the market's own book."""
        self.rig.check_sequence()
        for name in instruments:
            got = [int(t.id or 0) for t in self.rig.events(f"trade:{name}", Trade)]
            assert got == list(range(got[0], got[0] + len(got))), f"{name}: trades out of line"
            assert got[-1] == int(self.fake.market.trades(name)[-1].id), (
                f"{name}: the last trades are missing"
            )
            book = self.rig.book(name)
            assert book is not None
            assert _numbers(book) == _numbers(self.fake.market.book(name)), f"{name}: the book is wrong"
            assert self.rig.live(f"trade:{name}", f"book:{name}")


def _numbers(book: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> list[list[tuple[float, float]]]:
    return [[(float(price), float(size)) for price, size in side] for side in book]


@asynccontextmanager
async def scene(
    subscribe: dict[str, dict[str, list[str]]] | None = None,
    *,
    rate: float = 20.0,
    history: int = 30,
    **session: float,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    subscribe = subscribe or SPOT
    fake = BinanceFake(history_minutes=history)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints(), **session) as made,
    ):
        nursery.start_soon(play)
        topics = [
            f"{c}:{i}" for names in subscribe.values() for i, channels in names.items() for c in channels
        ]
        topics = [topic for topic in topics if not topic.startswith("liquidation")]
        await made.until(lambda: all(len(made.topic(topic)) > 3 for topic in topics) and made.live(*topics))
        yield Scene(fake, made, playing)
        nursery.cancel_scope.cancel()


async def test_undisturbed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await trio.sleep(200)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert set(s.rig.states("trade:BTC-USDT")) == {State.CONNECTING, State.LIVE}
        assert s.rig.market("spot").gaps == 0
        assert s.rig.market("spot").resyncs == 0
        closed = [c for c in s.rig.events("candle_1m:BTC-USDT", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, 60_000_000_000))
        truth = {c.start_ns: c for c in s.fake.market.candles("BTC-USDT")}
        assert all(float(truth[c.start_ns].close) == float(c.close) for c in closed)


async def _disturbed(disturb: Callable[[Scene], object], *, after_s: float = 120.0) -> None:
    """Let a fault happen while trading goes on, and check that all is well again."""
    async with scene() as s:
        before = s.rig.market("spot").reconnects
        disturb(s)
        await trio.sleep(after_s)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.rig.market("spot").reconnects > before
        assert State.CONNECTING in s.rig.states("trade:BTC-USDT")[1:]


async def test_cut(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.cut())


async def test_half_close(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.half_close())


async def test_close_with_1000(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.close(code=1000, reason="bye"))


async def test_garbage_bytes(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.garbage())


async def test_oversized_message(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.oversized(64 << 20))


async def test_garbage_message_is_skipped_and_kept(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.message('{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","a":"x"}}')
        s.fake.faults.message("not json at all")
        s.fake.faults.message(b"\x00\x01")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        stats = s.rig.market("spot")
        assert stats.decode_errors >= 2
        assert stats.reconnects == 0
        assert any(b"not json" in bad.frame for bad in stats.bad_frames)


async def test_stall(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.stall()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USDT") is not State.LIVE)
        await trio.sleep(120)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS))
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_duplicates(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.duplicate(None):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.rig.market("spot").duplicates > 100
        assert s.rig.market("spot").resyncs == 0


async def test_reordered_trades_need_no_rest(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.reorder(20, match="btcusdt@aggTrade"):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert all(gap.missing == 0 for gap in s.rig.gaps("trade:BTC-USDT"))


async def test_reordered_deltas_resync_that_book_alone(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.reorder(2, match="btcusdt@depth"):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert State.RESYNCING in s.rig.states("book:BTC-USDT")
        assert State.RESYNCING not in s.rig.states("book:ETH-USDT")
        assert s.rig.market("spot").reconnects == 0


async def test_dropped_delta_is_never_served(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(1, match="btcusdt@depth")
        await s.rig.until(lambda: State.RESYNCING in s.rig.states("book:BTC-USDT"))
        # From the status on nothing can be read until the book is right again.
        await s.rig.until(lambda: s.rig.live("book:BTC-USDT"))
        kinds = [type(m.event).__name__ for m in s.rig.topic("book:BTC-USDT")]
        bad = len(kinds) - 1 - kinds[::-1].index("Status", 1)
        after = kinds[bad:]
        assert after[0] == "Status"
        assert "BookDelta" not in after[: after.index("BookSnapshot")]
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.rig.market("spot").resyncs == 1


async def test_dropped_trades_are_filled_in_order(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(7, match="btcusdt@aggTrade")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        (gap,) = s.rig.gaps("trade:BTC-USDT")
        assert (gap.recovered, gap.missing) == (7, 0)
        backfilled = [t for t in s.rig.events("trade:BTC-USDT", Trade) if t.origin is Origin.BACKFILL]
        assert len(backfilled) == 7


async def test_late_snapshot(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.late_reply("/depth", seconds=30)
        s.fake.faults.cut()
        await trio.sleep(120)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_rest_429_with_retry_after_is_obeyed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.rest_status(429, retry_after=30)
        s.fake.faults.cut()
        await s.rig.until(lambda: s.rig.live("quote:BTC-USDT") and s.rig.market("spot").errors > 1)
        asked = sum(s.fake.seen.requests.values())
        await trio.sleep(25)
        assert sum(s.fake.seen.requests.values()) == asked
        fault.lift()
        await trio.sleep(120)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_418_ban_is_obeyed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.rest_status(418, retry_after=120)
        s.fake.faults.drop(1, match="btcusdt@depth")
        await s.rig.until(lambda: s.rig.state("book:BTC-USDT") is State.RESYNCING)
        await trio.sleep(5)
        asked = sum(s.fake.seen.requests.values())
        await trio.sleep(100)
        assert sum(s.fake.seen.requests.values()) == asked
        fault.lift()
        await trio.sleep(120)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_wrong_route_is_told_and_left(autojump_clock: MockClock) -> None:
    """Acked and silent for ever: readers are told `stale`, and other markets do not notice."""
    async with scene({"spot": {"BTC-USDT": ["quote"]}, "inverse": {"BTC-USD-PERP": ["quote"]}}) as s:
        s.fake.faults.silent_route("/inverse/public")
        s.fake.faults.cut("/inverse")
        await s.rig.until(lambda: s.rig.state("quote:BTC-USD-PERP") is State.STALE)
        status = s.rig.states("quote:BTC-USD-PERP")
        assert status[-1] is State.STALE
        # The un-routed path is tried next, and brings data.
        await s.rig.until(lambda: s.rig.live("quote:BTC-USD-PERP"))
        count = len(s.rig.events("quote:BTC-USD-PERP", Quote))
        await s.rig.until(lambda: len(s.rig.events("quote:BTC-USD-PERP", Quote)) > count)
        assert s.rig.states("quote:BTC-USDT") == [State.CONNECTING, State.LIVE]


async def test_refused_then_admitted(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.refuse()
        s.fake.faults.cut()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USDT") is State.DOWN)
        assert s.rig.market("spot").circuit_state == "open"
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS))
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.rig.market("spot").circuit_state == "closed"


async def test_handshake_that_hangs(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.hang_handshake()
        s.fake.faults.cut()
        await trio.sleep(60)
        assert s.rig.state("trade:BTC-USDT") in (State.CONNECTING, State.DOWN)
        assert "handshake" in s.rig.market("spot").last_error
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS))
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_acks_that_never_come(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.no_ack()
        s.fake.faults.cut()
        await trio.sleep(120)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_ping_flood_does_not_hide_silence(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.ping_flood(500)
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_fragments_drips_and_splits(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.fragment(7), s.fake.faults.split(13):
            await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.rig.market("spot").reconnects == 0


async def test_server_shutdown_makes_before_it_breaks(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.shut_down("spot")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.rig.market("spot").reconnects == 1
        assert s.rig.states("trade:BTC-USDT") == [State.CONNECTING, State.LIVE]
        assert s.rig.states("book:BTC-USDT").count(State.CONNECTING) == 1


async def test_a_day_with_a_reconnect_that_nobody_notices(autojump_clock: MockClock) -> None:
    async with scene({"spot": {"BTC-USDT": ["trade", "quote", "book"]}}) as s:
        s.playing.cancel()
        for _ in range(25 * 60):
            await trio.sleep(60)
            s.fake.step(5)
        await s.settle()
        s.check_complete("BTC-USDT")
        assert s.rig.market("spot").reconnects >= 1
        for topic in ("trade:BTC-USDT", "quote:BTC-USDT", "book:BTC-USDT"):
            assert set(s.rig.states(topic)[1:]) == {State.LIVE}, topic
        assert not s.rig.gaps("trade:BTC-USDT")


async def test_ten_minutes_away(autojump_clock: MockClock) -> None:
    async with scene() as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        assert s.rig.market("spot").circuit_state == "open"
        assert s.rig.state("trade:BTC-USDT") is State.DOWN
        refused.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS), within_s=320)
        await trio.sleep(90)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        (gap,) = s.rig.gaps("trade:BTC-USDT")
        assert gap.missing == 0
        assert gap.recovered > 100
        starts = [c.start_ns for c in s.rig.events("candle_1m:BTC-USDT", Candle) if c.closed]
        assert starts == list(range(starts[0], starts[-1] + 1, 60_000_000_000))


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps(hours: int, autojump_clock: MockClock) -> None:
    """Our clock is put right, or wrong: nothing is stale for it, nothing is missing, nothing comes twice."""
    async with scene() as s:
        await trio.sleep(100)
        s.rig.clock.ahead_ns = hours * 3600 * 1_000_000_000
        await trio.sleep(300)
        s.rig.clock.ahead_ns = 0
        await trio.sleep(100)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        for topic in TOPICS:
            assert set(s.rig.states(topic)[1:]) == {State.LIVE}, topic
            assert not s.rig.gaps(topic)
        starts = [c.start_ns for c in s.rig.events("candle_1m:BTC-USDT", Candle) if c.closed]
        assert starts == list(range(starts[0], starts[-1] + 1, 60_000_000_000))
        assert starts[-1] >= s.fake.market.candles("BTC-USDT")[-1].start_ns - 2 * 60_000_000_000
        assert s.rig.market("spot").reconnects == 0
