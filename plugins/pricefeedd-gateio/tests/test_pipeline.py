"""The whole pipeline against the fake, in memory under the mock clock: what readers get, in peace and in trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import Candle, Liquidation, Origin, State, Ticker, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_gateio import pricefeedd_venues
from pricefeedd_gateio.testing import GateioFake
from pricefeedd_gateio.venue import GateioSettings

(VENUE,) = pricefeedd_venues()
MINUTE_NS = 60_000_000_000

Subscribe = Mapping[str, Mapping[str, Sequence[str]]]

ALL: Subscribe = {
    "spot": {"BTC-USDT": ["trade", "quote", "ticker", "candle_1m", "book"]},
    "linear": {"BTC-USDT-PERP": ["trade", "quote", "ticker", "candle_1m", "book", "liquidation"]},
    "inverse": {"BTC-USD-PERP": ["trade", "quote", "ticker", "candle_1m", "book"]},
}
SPOT: Subscribe = {
    "spot": {"BTC-USDT": ["trade", "quote", "candle_1m", "book"], "ETH-USDT": ["trade", "book"]}
}
LINEAR: Subscribe = {
    "linear": {"BTC-USDT-PERP": ["trade", "quote", "candle_1m", "book"], "SOL-USDT-PERP": ["trade", "book"]}
}


@attrs.frozen
class Scene:
    """A fake that trades, and a daemon's pipeline that reads it."""

    fake: GateioFake
    rig: Rig
    market: str
    topics: tuple[str, ...]
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(20)

    def check_complete(self, *instruments: str, missing: int = 0) -> None:
        """Assert that readers have every trade exactly once, in order, and the market's own book."""
        self.rig.check_sequence()
        for name in instruments:
            got = [int(t.id or 0) for t in self.rig.events(f"trade:{name}", Trade)]
            wanted = list(range(got[0], got[-1] + 1))
            assert len(wanted) - len(got) == missing, f"{name}: trades are missing"
            assert got == sorted(set(got)), f"{name}: trades out of line"
            assert got[-1] == self.fake.market.trades(name)[-1].id, f"{name}: the last trades are missing"
            self.check_book(name)

    def check_book(self, name: str, depth: int | None = None) -> None:
        """Assert that readers have the market's own book."""
        book = self.rig.book(name)
        assert book is not None
        assert numbers(book) == numbers(self.fake.market.book(name, depth)), f"{name}: the book is wrong"
        assert self.rig.live(f"book:{name}")

    def check_minutes(self, name: str) -> None:
        """Assert that readers have every closed minute once, and as the venue traded it."""
        closed = [c for c in self.rig.events(f"candle_1m:{name}", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        truth = {c.start_ns: c for c in self.fake.market.candles(name)}
        for candle in closed:
            true = truth[candle.start_ns]
            assert (candle.open, candle.close, candle.volume) == (true.open, true.close, true.volume)


def numbers(book: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> list[list[tuple[float, float]]]:
    return [[(float(price), float(size)) for price, size in side] for side in book]


@asynccontextmanager
async def scene(
    subscribe: Subscribe = SPOT,
    *,
    rate: float = 2.0,
    history: int = 6,
    settings: GateioSettings | None = None,
    prepare: Callable[[GateioFake], object] = lambda fake: None,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    wanted = {name for names in subscribe.values() for name in names}
    traded = Market(listing for listing in GateioFake.default_listings() if listing.name in wanted)
    fake = GateioFake(traded, history_minutes=history)
    prepare(fake)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    topics = tuple(f"{c}:{i}" for names in subscribe.values() for i, chosen in names.items() for c in chosen)
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints(), settings=settings) as made,
    ):
        nursery.start_soon(play)
        flowing = [topic for topic in topics if not topic.startswith("liquidation")]
        await made.until(
            lambda: all(len(made.topic(topic)) > 3 for topic in flowing) and made.live(*topics), within_s=120
        )
        yield Scene(fake, made, next(iter(subscribe)), topics, playing)
        nursery.cancel_scope.cancel()


async def test_everything_of_all_markets_undisturbed(autojump_clock: MockClock) -> None:
    async with scene(ALL) as s:
        s.fake.liquidate("BTC-USDT-PERP")
        await trio.sleep(200)
        await s.settle()
        s.check_complete("BTC-USDT", "BTC-USDT-PERP", "BTC-USD-PERP")
        for topic in s.topics:
            assert set(s.rig.states(topic)) == {State.CONNECTING, State.LIVE}, topic
            assert not s.rig.gaps(topic), topic
        for market, names in ALL.items():
            stats = s.rig.market(market)
            assert (stats.decode_errors, stats.resyncs, stats.reconnects, stats.duplicates) == (0, 0, 0, 0)
            for name in names:
                s.check_minutes(name)
        (forced,) = s.rig.events("liquidation:BTC-USDT-PERP", Liquidation)
        assert float(forced.size) > 0
        ticker = s.rig.events("ticker:BTC-USD-PERP", Ticker)[-1]
        assert None not in (ticker.last, ticker.mark_price, ticker.index_price, ticker.open_interest)


@pytest.mark.parametrize("depth", [20, 50, 100])
async def test_books_of_each_depth(autojump_clock: MockClock, depth: int) -> None:
    """The simulated books have 40 levels, so that of 20 is a part of them: levels come into it and leave."""
    books: Subscribe = {"spot": {"BTC-USDT": ["book"]}, "linear": {"SOL-USDT-PERP": ["book"]}}
    async with scene(books, settings=GateioSettings(book_depth=depth), rate=4.0) as s:
        await trio.sleep(60)
        await s.settle()
        for name in ("BTC-USDT", "SOL-USDT-PERP"):
            s.check_book(name, depth)
        assert s.rig.market("spot").resyncs == s.rig.market("linear").resyncs == 0
        assert bool(s.fake.seen.requests["/api/v4/spot/order_book"]) is (depth in (20, 100))


async def _disturbed(disturb: Callable[[Scene], object], subscribe: Subscribe, *names: str) -> None:
    """Let a fault happen while trading goes on, and check that all is well again."""
    async with scene(subscribe) as s:
        before = s.rig.market(s.market).reconnects
        disturb(s)
        await trio.sleep(60)
        await s.settle()
        s.check_complete(*names)
        assert s.rig.market(s.market).reconnects > before
        assert State.CONNECTING in s.rig.states(f"trade:{names[0]}")[1:]


FAULTS: dict[str, Callable[[Scene], object]] = {
    "cut": lambda s: s.fake.faults.cut(),
    "half_close": lambda s: s.fake.faults.half_close(),
    "close_1000": lambda s: s.fake.faults.close(code=1000, reason="bye"),
    "garbage": lambda s: s.fake.faults.garbage(),
    "oversized": lambda s: s.fake.faults.oversized(8 << 20),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_spot_connection_ends(autojump_clock: MockClock, fault: str) -> None:
    await _disturbed(FAULTS[fault], SPOT, "BTC-USDT", "ETH-USDT")


async def test_stall_is_noticed_by_missing_pongs(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.stall()
        began = trio.current_time()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USDT") is not State.LIVE)
        assert trio.current_time() - began < 40
        await trio.sleep(60)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*s.topics))
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


@pytest.mark.parametrize(
    ("subscribe", "names"), [(SPOT, ("BTC-USDT", "ETH-USDT")), (LINEAR, ("BTC-USDT-PERP", "SOL-USDT-PERP"))]
)
async def test_duplicates_are_dropped(
    autojump_clock: MockClock, subscribe: Subscribe, names: tuple[str, ...]
) -> None:
    async with scene(subscribe) as s:
        with s.fake.faults.duplicate(None):
            await trio.sleep(60)
        await s.settle()
        s.check_complete(*names)
        assert s.rig.market(s.market).duplicates > 50
        assert s.rig.market(s.market).resyncs == 0


async def test_a_lost_delta_has_that_book_sent_again(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(1, match="obu:ob.BTC_USDT")
        await s.rig.until(lambda: State.RESYNCING in s.rig.states("book:BTC-USDT"))
        await s.rig.until(lambda: s.rig.live("book:BTC-USDT"))
        kinds = [type(m.event).__name__ for m in s.rig.topic("book:BTC-USDT")]
        after = kinds[len(kinds) - 1 - kinds[::-1].index("Status", 1) :]
        assert "BookDelta" not in after[: after.index("BookSnapshot")]
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert State.RESYNCING not in s.rig.states("book:ETH-USDT")
        assert s.rig.market("spot").reconnects == 0
        # Ended before it was begun again, or the venue would have refused it.
        assert s.fake.seen.unsubscribes == 1


async def test_a_lost_delta_of_a_rest_book_has_its_snapshot_fetched_again(autojump_clock: MockClock) -> None:
    async with scene(settings=GateioSettings(book_depth=100)) as s:
        asked = s.fake.seen.requests["/api/v4/spot/order_book"]
        s.fake.faults.drop(1, match="order_book_update:BTC_USDT")
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.fake.seen.requests["/api/v4/spot/order_book"] == asked + 1
        assert s.fake.seen.unsubscribes == 0


async def test_reordered_deltas_end_right(autojump_clock: MockClock) -> None:
    async with scene(LINEAR) as s:
        with s.fake.faults.reorder(2, match="obu:ob.BTC_USDT"):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "SOL-USDT-PERP")
        assert State.RESYNCING not in s.rig.states("book:SOL-USDT-PERP")


async def test_lost_spot_trades_are_filled_in_order(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(7, match="trades:BTC_USDT")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        (gap,) = s.rig.gaps("trade:BTC-USDT")
        assert (gap.recovered, gap.missing) == (7, 0)
        filled = [t for t in s.rig.events("trade:BTC-USDT", Trade) if t.origin is Origin.BACKFILL]
        assert len(filled) == 7


async def test_reordered_spot_trades_come_out_in_order(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.reorder(5, match="trades:BTC_USDT"):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_ids_that_are_not_believed_prove_no_hole(autojump_clock: MockClock) -> None:
    async with scene(settings=GateioSettings(consecutive_trades=False)) as s:
        s.fake.faults.drop(7, match="trades:BTC_USDT")
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", missing=7)
        assert not s.rig.gaps("trade:BTC-USDT")


async def test_bad_messages_are_skipped_and_kept(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.message('{"channel":"spot.trades","event":"update","result":{"id":1}}')
        s.fake.faults.message("not json at all")
        s.fake.faults.message(b"\x00\x01")
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        stats = s.rig.market("spot")
        assert stats.decode_errors == 3
        assert stats.reconnects == 0


@pytest.mark.parametrize("subscribe", [SPOT, LINEAR])
async def test_an_upgrade_is_a_hand_over_that_nobody_notices(
    autojump_clock: MockClock, subscribe: Subscribe
) -> None:
    async with scene(subscribe) as s:
        s.fake.shut_down(s.market)
        await trio.sleep(60)
        await s.settle()
        names = tuple(next(iter(subscribe.values())))
        s.check_complete(*names)
        assert s.rig.market(s.market).reconnects == 1
        for topic in s.topics:
            assert s.rig.states(topic)[-1] is State.LIVE
            if not topic.startswith("book"):
                assert s.rig.states(topic) == [State.CONNECTING, State.LIVE]


async def test_a_refused_symbol_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    """A pair is listed, and its streams are refused all the same."""

    def prepare(fake: GateioFake) -> None:
        known = fake._knows
        fake._knows = lambda scope, symbol: symbol != "SOL_USDT" and known(scope, symbol)  # type: ignore[method-assign]

    wanted = ["trade", "quote", "ticker", "candle_1m"]
    fake = GateioFake(history_minutes=5)
    prepare(fake)
    subscribe = {"spot": {"BTC-USDT": wanted, "SOL-USDT": wanted, "ETH-USDT": wanted}}
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(fake.play, 10.0)
        good = [f"{c}:{i}" for c in wanted for i in ("BTC-USDT", "ETH-USDT")]
        await made.until(lambda: made.live(*good), within_s=30)
        await made.until(lambda: all(made.state(f"{c}:SOL-USDT") is State.DOWN for c in wanted), within_s=30)
        assert made.market("spot").reconnects == 0
        nursery.cancel_scope.cancel()


async def test_minutes_without_the_last_word_are_closed_by_rest(autojump_clock: MockClock) -> None:
    def prepare(fake: GateioFake) -> None:
        fake.closes_candles = False

    both: Subscribe = {"spot": {"BTC-USDT": ["candle_1m"]}, "linear": {"BTC-USDT-PERP": ["candle_1m"]}}
    async with scene(both, prepare=prepare) as s:
        await trio.sleep(200)
        await s.settle()
        for name in ("BTC-USDT", "BTC-USDT-PERP"):
            s.check_minutes(name)
            closed = [c for c in s.rig.events(f"candle_1m:{name}", Candle) if c.closed]
            assert len(closed) >= 5 + 2
            assert not s.rig.gaps(f"candle_1m:{name}")


@pytest.mark.parametrize(
    ("subscribe", "names"), [(SPOT, ("BTC-USDT", "ETH-USDT")), (LINEAR, ("BTC-USDT-PERP", "SOL-USDT-PERP"))]
)
async def test_ten_minutes_away(
    autojump_clock: MockClock, subscribe: Subscribe, names: tuple[str, ...]
) -> None:
    async with scene(subscribe, rate=1.0) as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        assert s.rig.state(f"trade:{names[0]}") is State.DOWN
        refused.lift()
        await s.rig.until(lambda: s.rig.live(*s.topics), within_s=320)
        await trio.sleep(90)
        await s.settle()
        s.check_complete(*names)
        s.check_minutes(names[0])
        (gap,) = s.rig.gaps(f"trade:{names[0]}")
        assert not gap.missing
        assert gap.recovered > 50


async def test_rest_limits_are_kept_and_obeyed(autojump_clock: MockClock) -> None:
    """Somebody else behind the same address has used the limit up."""

    def prepare(fake: GateioFake) -> None:
        fake.per_window = 2

    async with scene(prepare=prepare, settings=GateioSettings(book_depth=100)) as s:
        for _ in range(4):
            s.fake.faults.drop(1, match="order_book_update:")
            await trio.sleep(5)
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")


async def test_acks_that_never_come(autojump_clock: MockClock) -> None:
    """Asked again, the venue answers that it is subscribed already: that is an answer."""
    async with scene() as s:
        lost = s.fake.faults.no_ack()
        s.fake.faults.cut()
        await trio.sleep(15)
        lost.lift()
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", "ETH-USDT")
        assert s.rig.live(*s.topics)
