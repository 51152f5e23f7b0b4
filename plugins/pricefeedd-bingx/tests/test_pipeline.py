"""The whole pipeline against the fake, in memory, under Trio's mock clock: what readers get, well and badly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import BookDelta, BookSnapshot, Candle, Origin, Quote, State, Ticker, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_bingx.testing import BingxFake
from pricefeedd_bingx.venue import BingxSettings, bingx

VENUE = bingx()
CHANNELS = ["trade", "quote", "ticker", "candle_1m", "book"]
NAMES = {"spot": ("BTC-USDT", "ETH-USDT"), "linear": ("BTC-USDT-PERP", "ETH-USDT-PERP")}
ALL = {market: dict.fromkeys(names, CHANNELS) for market, names in NAMES.items()}
LINEAR = {"linear": ALL["linear"]}
SPOT = {"spot": ALL["spot"]}
MINUTE_NS = 60_000_000_000


@attrs.frozen
class Scene:
    """A fake that trades, and a daemon's pipeline that reads it."""

    fake: BingxFake
    rig: Rig
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(20)

    def got(self, name: str) -> list[tuple[str, str, int]]:
        """Return what the reader has of an instrument's trades."""
        return [
            (t.price, t.size, (t.venue_time_ns or 0) // 1_000_000)
            for t in self.rig.events(f"trade:{name}", Trade)
        ]

    def truth(self, name: str) -> list[tuple[str, str, int]]:
        """Return the market's trades in the same form."""
        return [(t.price, t.size, t.time_ns // 1_000_000) for t in self.fake.market.trades(name)]

    def check_trades(self, name: str) -> None:
        """Assert that the reader has every trade once and in order, from the first one it got."""
        got = self.got(name)
        assert got
        assert got == self.truth(name)[-len(got) :]

    def check_books(self, *names: str) -> None:
        """Assert that the reader's books and quotes are the market's."""
        self.rig.check_sequence()
        for name in names:
            book = self.rig.book(name)
            assert book is not None
            assert _numbers(book) == _numbers(self.fake.market.book(name)), f"{name}: the book is wrong"
            assert self.rig.live(*(f"{channel}:{name}" for channel in CHANNELS))
            quote = self.rig.events(f"quote:{name}", Quote)[-1]
            told = self.fake.market.quote(name)
            assert (quote.bid_price, quote.bid_size) == told.bid
            assert (quote.ask_price, quote.ask_size) == told.ask

    def check_minutes(self, name: str) -> None:
        """Assert that the reader has every minute closed once, as the market has it."""
        closed = [c for c in self.rig.events(f"candle_1m:{name}", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        truth = {c.start_ns: c for c in self.fake.market.candles(name)}
        for c in closed:
            t = truth[c.start_ns]
            assert [float(x) for x in (c.open, c.high, c.low, c.close, c.volume)] == [
                float(x) for x in (t.open, t.high, t.low, t.close, t.volume)
            ]


def _numbers(book: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> list[list[tuple[float, float]]]:
    return [[(float(price), float(size)) for price, size in side] for side in book]


def small_fake(**options: Any) -> BingxFake:
    """Return a fake that lists the instruments of these tests and no others."""
    listings = [one for one in BingxFake.default_listings() if one.base != "SOL"]
    return BingxFake(Market(listings, depth=12), **{"history_minutes": 30, **options})


@asynccontextmanager
async def scene(
    subscribe: Mapping[str, Mapping[str, Sequence[str]]] = ALL,
    *,
    rate: float = 2.0,
    fake: BingxFake | None = None,
    settings: BingxSettings | None = None,
    wait: bool = True,
    **session: Any,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    market = small_fake() if fake is None else fake
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await market.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, market, subscribe, endpoints=market.endpoints(), settings=settings, **session) as made,
    ):
        nursery.start_soon(play)
        topics = [f"{c}:{i}" for names in subscribe.values() for i, chosen in names.items() for c in chosen]
        if wait:
            await made.until(lambda: all(len(made.topic(t)) > 3 for t in topics) and made.live(*topics))
        yield Scene(market, made, playing)
        nursery.cancel_scope.cancel()


async def test_undisturbed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await trio.sleep(200)
        await s.settle()
        for market, names in NAMES.items():
            s.check_books(*names)
            for name in names:
                s.check_trades(name)
                s.check_minutes(name)
                for channel in CHANNELS:
                    assert set(s.rig.states(f"{channel}:{name}")) == {State.CONNECTING, State.LIVE}
            stats = s.rig.market(market)
            assert (stats.gaps, stats.resyncs, stats.decode_errors, stats.reconnects) == (0, 0, 0, 0)
        ticker = s.rig.events("ticker:BTC-USDT-PERP", Ticker)[-1]
        assert ticker.mark_price is not None
        assert ticker.last is not None


async def _disturbed(
    disturb: Callable[[Scene], object], *, after_s: float = 45.0, reconnects: bool = True
) -> None:
    """Let a fault happen while trading goes on, and check that all is well again."""
    async with scene() as s:
        before = {market: s.rig.market(market).reconnects for market in NAMES}
        disturb(s)
        await trio.sleep(after_s)
        await s.settle()
        for market, names in NAMES.items():
            s.check_books(*names)
            for name in names:
                s.check_trades(name)
                s.check_minutes(name)
            assert (s.rig.market(market).reconnects > before[market]) == reconnects


async def test_cut(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.cut())


async def test_half_close(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.half_close())


async def test_garbage_bytes(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.garbage())


async def test_oversized_message(autojump_clock: MockClock) -> None:
    await _disturbed(lambda s: s.fake.faults.oversized(8 << 20))


async def test_acks_that_never_come(autojump_clock: MockClock) -> None:
    def disturb(s: Scene) -> None:
        s.fake.faults.no_ack(times=20)
        s.fake.faults.cut()

    await _disturbed(disturb, after_s=100)


async def test_late_acks(autojump_clock: MockClock) -> None:
    def disturb(s: Scene) -> None:
        s.fake.faults.late_ack(2.0)
        s.fake.faults.cut()

    await _disturbed(disturb)


async def test_fragments_and_splits(autojump_clock: MockClock) -> None:
    def disturb(s: Scene) -> None:
        s.fake.faults.fragment(40)
        s.fake.faults.split(333)

    await _disturbed(disturb, after_s=20, reconnects=False)


async def test_a_stall_is_seen_by_the_pings_that_do_not_come(autojump_clock: MockClock) -> None:
    async with scene() as s:
        began = trio.current_time()
        fault = s.fake.faults.stall()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USDT") is not State.LIVE)
        assert trio.current_time() - began < 20
        await trio.sleep(30)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*(f"{c}:BTC-USDT-PERP" for c in CHANNELS)), within_s=120)
        await trio.sleep(60)
        await s.settle()
        for names in NAMES.values():
            s.check_books(*names)
            for name in names:
                s.check_trades(name)


async def test_garbage_messages_are_counted_and_passed_over(autojump_clock: MockClock) -> None:
    async with scene(LINEAR) as s:
        s.fake.faults.message("not json at all")
        s.fake.faults.message(b"\x1f\x8b\x00 not gzip")
        s.fake.faults.message('{"code":0,"dataType":"BTC-USDT@trade","data":[{"p":"x"}]}')
        await trio.sleep(10)
        await s.settle()
        s.check_books(*NAMES["linear"])
        s.check_trades("BTC-USDT-PERP")
        stats = s.rig.market("linear")
        assert (stats.decode_errors, stats.reconnects) == (3, 0)


# --- Books ------------------------------------------------------------------------------------------------


async def test_mixed_up_updates_resync_that_book_alone(autojump_clock: MockClock) -> None:
    async with scene(LINEAR) as s:
        with s.fake.faults.reorder(1, match="BTC-USDT@incrDepth"):
            await trio.sleep(10)
        await s.settle()
        s.check_books(*NAMES["linear"])
        assert State.RESYNCING in s.rig.states("book:BTC-USDT-PERP")
        assert State.RESYNCING not in s.rig.states("book:ETH-USDT-PERP")
        assert s.rig.market("linear").reconnects == 0
        assert s.fake.seen.unsubscribes == 1


async def test_repeated_updates_do_no_harm(autojump_clock: MockClock) -> None:
    async with scene(LINEAR) as s:
        with s.fake.faults.duplicate(None, match="@incrDepth"):
            await trio.sleep(30)
        await s.settle()
        s.check_books(*NAMES["linear"])
        stats = s.rig.market("linear")
        assert stats.resyncs == 0
        assert stats.duplicates > 50


async def test_nothing_of_a_broken_book_can_be_read(autojump_clock: MockClock) -> None:
    async with scene(LINEAR) as s:
        topic = "book:BTC-USDT-PERP"
        low, high = "1.0", "999999.0"
        crossed = {
            "action": "update",
            "lastUpdateId": 1 << 60,
            "time": 1,
            "bids": [[high, "1"]],
            "asks": [[low, "1"]],
        }
        s.fake.publish(
            "BTC-USDT@incrDepth",
            {"code": 0, "dataType": "BTC-USDT@incrDepth", "data": crossed},
            scope="linear",
        )
        await s.rig.until(lambda: State.RESYNCING in s.rig.states(topic))
        await s.rig.until(lambda: s.rig.live(topic))
        kinds = [type(m.event).__name__ for m in s.rig.topic(topic)]
        bad = len(kinds) - 1 - kinds[::-1].index("Status", 1)
        assert "BookDelta" not in kinds[bad : kinds.index("BookSnapshot", bad)]
        await s.settle()
        s.check_books("BTC-USDT-PERP")


async def test_a_lost_update_is_healed_by_the_next_connection(autojump_clock: MockClock) -> None:
    feeds = tuple(attrs.evolve(feed, lifetime_s=300.0) for feed in VENUE.feeds)
    fake = small_fake()
    subscribe = {"linear": {"BTC-USDT-PERP": ["book"]}}
    async with rig(attrs.evolve(VENUE, feeds=feeds), fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live("book:BTC-USDT-PERP"))
        # Something far from the best prices, so that nothing crosses.
        lost = fake.market.deltas("BTC-USDT-PERP")
        fake.faults.drop(1, match="BTC-USDT@incrDepth")
        while not lost:
            await trio.sleep(0.2)
            fake.step(1, names=("BTC-USDT-PERP",))
        truth = _numbers(fake.market.book("BTC-USDT-PERP"))
        await trio.sleep(5)
        book = made.book("BTC-USDT-PERP")
        assert book is not None
        assert _numbers(book) != truth, "nothing tells of the loss"
        await trio.sleep(330)
        book = made.book("BTC-USDT-PERP")
        assert book is not None
        assert _numbers(book) == truth
        assert set(made.states("book:BTC-USDT-PERP")) == {State.CONNECTING, State.LIVE}


@pytest.mark.parametrize("topic", ["depth5", "depth20", "incrDepth"])
async def test_spot_books_of_other_topics(autojump_clock: MockClock, topic: str) -> None:
    async with scene(SPOT, settings=BingxSettings(spot_book=topic)) as s:
        await trio.sleep(20)
        await s.settle()
        levels = 12 if topic == "incrDepth" else int(topic.removeprefix("depth"))
        for name in NAMES["spot"]:
            book = s.rig.book(name)
            assert book is not None
            assert _numbers(book) == _numbers(s.fake.market.book(name, levels))
        kind = BookDelta if topic == "incrDepth" else BookSnapshot
        assert len(s.rig.events("book:BTC-USDT", kind)) > 20


# --- Quotes -----------------------------------------------------------------------------------------------


async def test_quotes_of_the_other_topic(autojump_clock: MockClock) -> None:
    async with scene(LINEAR, settings=BingxSettings(linear_quote="bookTicker")) as s:
        await trio.sleep(20)
        await s.settle()
        s.check_books(*NAMES["linear"])
        assert all(q.sequence is not None for q in s.rig.events("quote:BTC-USDT-PERP", Quote))


async def test_quotes_of_long_ago_are_not_served(autojump_clock: MockClock) -> None:
    fake = small_fake(history_minutes=5)
    fake.quote_age_ms = 22 * 60_000
    settings = BingxSettings(linear_quote="bookTicker")
    subscribe = {"linear": {"BTC-USDT-PERP": ["quote", "trade"]}}
    async with scene(subscribe, fake=fake, settings=settings, wait=False) as s:
        await trio.sleep(30)
        assert s.rig.events("trade:BTC-USDT-PERP", Trade)
        assert not s.rig.events("quote:BTC-USDT-PERP", Quote)


# --- Trades -----------------------------------------------------------------------------------------------


async def test_repeated_trades_are_known_by_their_ids_on_spot(autojump_clock: MockClock) -> None:
    async with scene(SPOT) as s:
        with s.fake.faults.duplicate(None, match="@trade"):
            await trio.sleep(20)
        await s.settle()
        for name in NAMES["spot"]:
            s.check_trades(name)
        assert s.rig.market("spot").duplicates > 20


async def test_mixed_up_spot_trades_are_all_there(autojump_clock: MockClock) -> None:
    async with scene({"spot": {"BTC-USDT": ["trade"]}}) as s:
        with s.fake.faults.reorder(5, match="BTC-USDT@trade"):
            await trio.sleep(20)
        await s.settle()
        got = s.got("BTC-USDT")
        assert sorted(got) == sorted(s.truth("BTC-USDT")[-len(got) :])
        assert not s.rig.gaps("trade:BTC-USDT")


@pytest.mark.parametrize("market", ["spot", "linear"])
async def test_ten_minutes_away_are_filled_in(autojump_clock: MockClock, market: str) -> None:
    subscribe = {market: ALL[market]}
    async with scene(subscribe, rate=0.7) as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        names = NAMES[market]
        assert s.rig.state(f"trade:{names[0]}") is State.DOWN
        refused.lift()
        topics = [f"{channel}:{name}" for name in names for channel in CHANNELS]
        await s.rig.until(lambda: s.rig.live(*topics), within_s=320)
        await trio.sleep(90)
        await s.settle()
        s.check_books(*names)
        for name in names:
            s.check_trades(name)
            s.check_minutes(name)
            (gap,) = s.rig.gaps(f"trade:{name}")
            assert gap.recovered > 100
            assert gap.missing == 0
            filled = [t for t in s.rig.events(f"trade:{name}", Trade) if t.origin is Origin.BACKFILL]
            assert len(filled) == gap.recovered


async def test_what_rest_does_not_reach_is_told(autojump_clock: MockClock) -> None:
    async with scene({"spot": {"BTC-USDT": ["trade"]}}) as s:
        s.playing.cancel()
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        for _ in range(600):
            await trio.sleep(1)
            s.fake.step(3, names=("BTC-USDT",))
        refused.lift()
        await s.rig.until(lambda: s.rig.live("trade:BTC-USDT"), within_s=320)
        await trio.sleep(30)
        await s.settle()
        (gap,) = s.rig.gaps("trade:BTC-USDT")
        assert gap.missing is None
        assert 400 < gap.recovered <= 500
        got, truth = s.got("BTC-USDT"), s.truth("BTC-USDT")
        assert got[-400:] == truth[-400:]


async def test_trades_of_the_past_in_the_first_frame_are_not_repeated(autojump_clock: MockClock) -> None:
    fake = small_fake(history_minutes=5)
    fake.replays = 30
    async with scene({"linear": {"BTC-USDT-PERP": ["trade"]}}, fake=fake, rate=4.0) as s:
        for _ in range(3):
            fake.faults.cut()
            await trio.sleep(20)
        await s.settle()
        s.check_trades("BTC-USDT-PERP")


# --- Minutes ----------------------------------------------------------------------------------------------


async def test_minutes_closed_by_the_stream(autojump_clock: MockClock) -> None:
    async with scene(settings=BingxSettings(candle_end="next"), rate=1.0) as s:
        await trio.sleep(130)
        await s.settle()
        for names in NAMES.values():
            for name in names:
                s.check_minutes(name)
        closed = [c for c in s.rig.events("candle_1m:BTC-USDT", Candle) if c.closed]
        assert [c for c in closed if c.origin is Origin.DERIVED]


@pytest.mark.parametrize("candle_end", ["rest", "next"])
@pytest.mark.parametrize("rows", [True, False])
async def test_minutes_without_a_trade(autojump_clock: MockClock, candle_end: str, rows: bool) -> None:
    fake = small_fake()
    fake.quiet_minutes = rows
    subscribe = {"linear": {"BTC-USDT-PERP": ["candle_1m"], "ETH-USDT-PERP": ["candle_1m"]}}
    async with scene(subscribe, fake=fake, settings=BingxSettings(candle_end=candle_end), rate=4.0) as s:
        s.playing.cancel()
        for _ in range(300):  # the others trade on, so the venue's clock is seen
            await trio.sleep(1)
            fake.step(1, names=("ETH-USDT-PERP",))
        fake.step(20, names=("BTC-USDT-PERP",))
        await trio.sleep(90)
        s.check_minutes("BTC-USDT-PERP")
        closed = [c for c in s.rig.events("candle_1m:BTC-USDT-PERP", Candle) if c.closed]
        assert sum(float(c.volume) == 0 for c in closed) >= 3


# --- Refusals and limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("market", "leaks"), [("spot", True), ("linear", True), ("linear", False)])
async def test_a_refused_symbol_leaves_the_others_alone(
    autojump_clock: MockClock, market: str, leaks: bool
) -> None:
    fake = small_fake(history_minutes=5)
    good, bad = NAMES[market]
    fake.paused.add(bad)
    fake.leaks = leaks
    async with scene({market: ALL[market]}, fake=fake, wait=False) as s:
        topics = [f"{channel}:{good}" for channel in CHANNELS]
        await s.rig.until(lambda: s.rig.live(*topics))
        await s.rig.until(lambda: all(s.rig.state(f"{c}:{bad}") is State.DOWN for c in CHANNELS))
        await trio.sleep(60)
        await s.settle()
        s.check_books(good)
        s.check_trades(good)
        for channel in CHANNELS:
            assert s.rig.state(f"{channel}:{bad}") is State.DOWN
            assert set(s.rig.states(f"{channel}:{good}")) == {State.CONNECTING, State.LIVE}
        assert s.rig.market(market).reconnects == 0


async def test_an_unknown_symbol_is_told_at_once(autojump_clock: MockClock) -> None:
    async with scene({"spot": {"BTC-USDT": ["trade"], "NOPE-USDT": ["trade"]}}, wait=False) as s:
        await s.rig.until(lambda: s.rig.live("trade:BTC-USDT"))
        assert s.rig.state("trade:NOPE-USDT") is State.DOWN


async def test_too_many_requests_are_waited_for(autojump_clock: MockClock) -> None:
    async with scene(LINEAR, rate=0.5) as s:
        body = b'{"code":109429,"msg":"too many requests"}'
        fault = s.fake.faults.rest_status(200, "/linear/", body=body)
        await trio.sleep(120)
        asked = fault.hits
        assert 0 < asked < 40
        fault.lift()
        await trio.sleep(120)
        await s.settle()
        for name in NAMES["linear"]:
            s.check_minutes(name)


async def test_connections_are_replaced_before_they_are_old(autojump_clock: MockClock) -> None:
    feeds = tuple(attrs.evolve(feed, lifetime_s=60.0) for feed in VENUE.feeds)
    fake = small_fake()
    async with trio.open_nursery() as nursery:
        async with rig(attrs.evolve(VENUE, feeds=feeds), fake, ALL, endpoints=fake.endpoints()) as made:
            playing = trio.CancelScope()
            s = Scene(fake, made, playing)

            async def play() -> None:
                with playing:
                    await fake.play(1.0)

            nursery.start_soon(play)
            topics = [
                f"{channel}:{name}" for names in NAMES.values() for name in names for channel in CHANNELS
            ]
            await made.until(lambda: made.live(*topics))
            await trio.sleep(200)
            await s.settle()
            for market, names in NAMES.items():
                assert made.market(market).reconnects >= 3
                assert made.market(market).gaps == 0
                s.check_books(*names)
                for name in names:
                    s.check_trades(name)
                    s.check_minutes(name)
                    for channel in CHANNELS:
                        assert set(made.states(f"{channel}:{name}")) == {State.CONNECTING, State.LIVE}
        nursery.cancel_scope.cancel()
