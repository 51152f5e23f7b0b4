"""The whole pipeline against the fake, in memory, under Trio's mock clock: undisturbed, and with all that goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Liquidation,
    Origin,
    Quote,
    State,
    Status,
    Ticker,
    Trade,
)
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import rig
from pricefeedd.testing.stage import Stage, Subscribe, staged, topics_of
from pricefeedd.venue import Venue
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import BybitSettings, bybit

VENUE = bybit()
MINUTE_NS = 60_000_000_000
LINEAR: Subscribe = {
    "linear": {
        "BTC-USDT-PERP": ["trade", "quote", "ticker", "candle_1m", "book"],
        "ETH-USDT-PERP": ["trade", "quote", "book"],
    }
}
MARKETS: dict[str, tuple[str, str]] = {
    "spot": ("BTC-USDT", "ETH-USDT"),
    "linear": ("BTC-USDT-PERP", "BTC-USDC-PERP"),
    "inverse": ("BTC-USD-PERP", "BTC-USD-20261225"),
}


@attrs.frozen
class Scene(Stage[BybitFake]):
    """A fake that trades, and a daemon's pipeline that reads it."""

    subscribe: Subscribe

    @property
    def topics(self) -> list[str]:
        return topics_of(self.subscribe)

    def ids(self, name: str) -> list[str | None]:
        return [trade.id for trade in self.rig.events(f"trade:{name}", Trade)]

    def true_ids(self, name: str) -> list[str]:
        words = self.fake._words[name]
        return [words.trade_id(trade.id) for trade in self.fake.market.trades(name)]

    def check_complete(self, *names: str, depth: int = 50, lost_trades: bool = False) -> None:
        """Assert that readers have every trade exactly once, in order, the last quote and the venue's own book."""
        self.rig.check_sequence()
        for name in names:
            got, true = self.ids(name), self.true_ids(name)
            assert len(set(got)) == len(got), f"{name}: trades came twice"
            true = true[true.index(str(got[0])) :]
            if lost_trades:
                assert got == [i for i in true if i in set(got)], f"{name}: trades out of order"
                assert got[-1] == true[-1]
            else:
                assert got == true, f"{name}: trades are missing or out of order"
            book = self.rig.book(name)
            assert book is not None
            assert _numbers(book) == _numbers(self.fake.market.book(name, depth)), (
                f"{name}: the book is wrong"
            )
            quotes = self.rig.events(f"quote:{name}", Quote)
            bid, ask = self.fake.told_quote(name)
            assert (quotes[-1].bid_price, quotes[-1].bid_size) == bid
            assert (quotes[-1].ask_price, quotes[-1].ask_size) == ask

    def check_minutes(self, name: str) -> None:
        """Assert that each closed minute came once, in order, as the venue has it."""
        closed = [c for c in self.rig.events(f"candle_1m:{name}", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        truth = {c.start_ns: c for c in self.fake.market.candles(name)}
        for candle in closed:
            true = truth[candle.start_ns]
            assert (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.turnover) == (
                true.open, true.high, true.low, true.close, true.volume, true.turnover,
            )  # fmt: skip


def _numbers(book: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> list[list[tuple[float, float]]]:
    return [[(float(price), float(size)) for price, size in side] for side in book]


def fake_of(*names: str, **options: Any) -> BybitFake:
    """Return a fake that lists no more than these, which saves most of a test's time."""
    chosen = [listing for listing in BybitFake.default_listings() if listing.name in names]
    return BybitFake(Market(chosen, **({"depth": 15} | options)), history_minutes=30)


@asynccontextmanager
async def scene(
    subscribe: Subscribe = LINEAR,
    *,
    venue: Venue = VENUE,
    fake: BybitFake | None = None,
    rate: float = 4.0,
    settings: BybitSettings | None = None,
    **session: Any,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    fake = fake_of(*(name for names in subscribe.values() for name in names)) if fake is None else fake
    async with staged(venue, fake, subscribe, rate=rate, settings=settings, **session) as s:
        yield Scene(s.fake, s.rig, s.playing, subscribe)


# --- Undisturbed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("market", MARKETS)
async def test_undisturbed(autojump_clock: MockClock, market: str) -> None:
    first, second = MARKETS[market]
    channels = ["trade", "quote", "ticker", "candle_1m", "book"]
    async with scene({market: {first: channels, second: ["trade", "quote", "book"]}}) as s:
        await trio.sleep(200)
        await s.settle()
        s.check_complete(first, second)
        s.check_minutes(first)
        for topic in s.topics:
            assert s.rig.states(topic) == [State.CONNECTING, State.LIVE], topic
            assert not s.rig.gaps(topic)
        stats = s.rig.market(market)
        assert (stats.gaps, stats.resyncs, stats.reconnects, stats.decode_errors) == (0, 0, 0, 0)
        assert len(s.rig.events(f"ticker:{first}", Ticker)) > 100


async def test_liquidations_come_through(autojump_clock: MockClock) -> None:
    async with scene({"linear": {"BTC-USDT-PERP": ["trade", "liquidation"]}}) as s:
        happened = s.fake.market.liquidate("BTC-USDT-PERP", s.fake.now_ns())
        s.fake.tell(happened)
        await s.settle()
        (told,) = s.rig.events("liquidation:BTC-USDT-PERP", Liquidation)
        assert (told.price, told.size, told.side.value) == (happened.price, happened.size, happened.side)


@pytest.mark.parametrize("depth", [50, 200, 1000])
async def test_books_of_each_depth(autojump_clock: MockClock, depth: int) -> None:
    """The market is 80 levels deep, so levels leave the window of 50 and come back into it."""
    subscribe = {"spot": {"BTC-USDT": ["book", "trade", "quote"]}}
    fake = fake_of("BTC-USDT", depth=80)
    async with scene(subscribe, fake=fake, settings=BybitSettings(book_depth=depth)) as s:
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT", depth=depth)
        book = s.rig.book("BTC-USDT")
        assert book is not None
        assert [len(side) for side in book] == [min(depth, 80)] * 2
        assert s.rig.market("spot").resyncs == 0


# --- Connections that end ---------------------------------------------------------------------------------

ENDS: dict[str, Callable[[Scene], object]] = {
    "cut": lambda s: s.fake.faults.cut(),
    "half close": lambda s: s.fake.faults.half_close(),
    "close 1000": lambda s: s.fake.faults.close(code=1000, reason="bye"),
    "garbage bytes": lambda s: s.fake.faults.garbage(),
}


@pytest.mark.parametrize("how", ENDS)
async def test_a_connection_that_ends_loses_nothing(autojump_clock: MockClock, how: str) -> None:
    async with scene() as s:
        ENDS[how](s)
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        s.check_minutes("BTC-USDT-PERP")
        assert s.rig.market("linear").reconnects == 1
        assert s.rig.live(*s.topics)


async def test_the_other_markets_do_not_notice(autojump_clock: MockClock) -> None:
    subscribe = {"spot": {"BTC-USDT": ["trade", "quote"]}, "linear": {"BTC-USDT-PERP": ["trade", "quote"]}}
    async with scene(subscribe) as s:
        s.fake.faults.cut("/v5/public/spot")
        await trio.sleep(30)
        assert s.rig.market("spot").reconnects == 1
        assert s.rig.market("linear").reconnects == 0
        assert s.rig.states("trade:BTC-USDT-PERP") == [State.CONNECTING, State.LIVE]


async def test_a_stall_is_found_by_the_missing_pong(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.stall()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USDT-PERP") is not State.LIVE, within_s=70)
        await trio.sleep(30)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*s.topics))
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")


async def test_a_hand_over_loses_nothing_and_is_not_noticed(autojump_clock: MockClock) -> None:
    feeds = tuple(attrs.evolve(feed, lifetime_s=60.0) for feed in VENUE.feeds)
    async with scene(venue=attrs.evolve(VENUE, feeds=feeds)) as s:
        await trio.sleep(150)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        s.check_minutes("BTC-USDT-PERP")
        assert s.rig.market("linear").reconnects >= 2
        for topic in s.topics:
            assert s.rig.states(topic) == [State.CONNECTING, State.LIVE], topic
            assert not s.rig.gaps(topic)


@pytest.mark.parametrize(("market", "proven"), [("spot", False), ("linear", True)])
async def test_ten_minutes_away(autojump_clock: MockClock, market: str, proven: bool) -> None:
    """Minutes come back whole. Trades do as far as REST reaches: 1000 of them, or 60 on spot."""
    name = MARKETS[market][0]
    async with scene({market: {name: ["trade", "quote", "candle_1m", "book"]}}, rate=2.0) as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        assert s.rig.state(f"trade:{name}") is State.DOWN
        refused.lift()
        await s.rig.until(lambda: s.rig.live(*s.topics), within_s=320)
        await trio.sleep(90)
        await s.settle()
        s.check_complete(name, lost_trades=not proven)
        s.check_minutes(name)
        (gap,) = s.rig.gaps(f"trade:{name}")
        assert gap.missing == (0 if proven else None)
        assert gap.recovered > (300 if proven else 50)
        assert (
            len({t.id for t in s.rig.events(f"trade:{name}", Trade) if t.origin is Origin.BACKFILL})
            == gap.recovered
        )


async def test_an_address_that_is_shut_out_waits(autojump_clock: MockClock) -> None:
    """A handshake answered by 403 is a ban: nobody knocks again for minutes."""
    async with scene() as s:
        fault = s.fake.faults.refuse(lambda request: request.path.startswith("/v5/public"), status=403)
        s.fake.faults.cut()
        await trio.sleep(30)
        knocked = s.fake.seen.handshakes
        await trio.sleep(250)
        assert s.fake.seen.handshakes == knocked
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*s.topics))
        assert "403" in s.rig.market("linear").last_error


async def test_a_ban_of_rest_is_obeyed_for_ten_minutes(autojump_clock: MockClock) -> None:
    async with scene({"linear": {"BTC-USDT-PERP": ["candle_1m", "trade"]}}, rate=1.0) as s:
        fault = s.fake.faults.rest_status(403, body=b"access too frequent")
        s.fake.faults.cut()
        await s.rig.until(lambda: fault.hits)
        fault.lift()
        asked = sum(s.fake.seen.requests.values())
        await trio.sleep(590)
        assert sum(s.fake.seen.requests.values()) == asked
        await trio.sleep(120)
        assert sum(s.fake.seen.requests.values()) > asked
        await s.settle()
        s.check_minutes("BTC-USDT-PERP")


# --- Messages that are lost, doubled, swapped or bad ------------------------------------------------------


async def test_garbage_messages_are_kept_and_skipped(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.message('{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[{"i":7}]}')
        s.fake.faults.message("not json at all")
        s.fake.faults.message(b"\x00\x01")
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        stats = s.rig.market("linear")
        assert (stats.decode_errors, stats.reconnects) == (3, 0)
        assert any(b"not json" in bad.frame for bad in stats.bad_frames)


async def test_a_dropped_delta_is_never_served(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(1, match="orderbook.50.BTCUSDT")
        await s.rig.until(lambda: State.RESYNCING in s.rig.states("book:BTC-USDT-PERP"))
        await s.rig.until(lambda: s.rig.live("book:BTC-USDT-PERP"))
        events = [m.event for m in s.rig.topic("book:BTC-USDT-PERP")]
        bad = next(i for i, e in enumerate(events) if isinstance(e, Status) and e.state is State.RESYNCING)
        after = [e for e in events[bad:] if isinstance(e, BookDelta | BookSnapshot)]
        assert isinstance(after[0], BookSnapshot)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        stats = s.rig.market("linear")
        assert (stats.resyncs, stats.reconnects) == (1, 0)
        assert s.rig.states("book:ETH-USDT-PERP") == [State.CONNECTING, State.LIVE]
        assert (
            s.fake.seen.unsubscribes,
            s.fake.sockets[0].subscriptions.keys() >= {"orderbook.50.BTCUSDT"},
        ) == (1, True)


async def test_swapped_deltas_resync_that_book_alone(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.reorder(2, match="orderbook.50.BTCUSDT"):
            await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        assert State.RESYNCING in s.rig.states("book:BTC-USDT-PERP")
        assert State.RESYNCING not in s.rig.states("book:ETH-USDT-PERP")
        assert s.rig.market("linear").reconnects == 0


async def test_everything_twice(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.duplicate(None):
            await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        s.check_minutes("BTC-USDT-PERP")
        stats = s.rig.market("linear")
        assert stats.duplicates > 100
        assert (stats.resyncs, stats.reconnects) == (0, 0)


async def test_a_closed_minute_that_is_lost_comes_from_rest(autojump_clock: MockClock) -> None:
    async with scene() as s:
        lost = s.fake.faults.drop(
            1, match=lambda stream, message: "kline.1" in stream and '"confirm":true' in str(message)
        )
        await s.rig.until(lambda: lost.hits)
        await trio.sleep(70)
        await s.settle()
        s.check_minutes("BTC-USDT-PERP")
        closed = [c for c in s.rig.events("candle_1m:BTC-USDT-PERP", Candle) if c.closed]
        assert [c.origin for c in closed[-2:]] == [Origin.BACKFILL, Origin.LIVE]


async def test_bytes_in_pieces_and_fragments(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.fragment(7), s.fake.faults.split(13):
            await trio.sleep(10)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        assert s.rig.market("linear").reconnects == 0


# --- Subscriptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("market", ["spot", "linear"])
async def test_a_refused_symbol_leaves_the_others_alone(autojump_clock: MockClock, market: str) -> None:
    good, bad = MARKETS[market]
    channels = ["trade", "quote", "ticker", "candle_1m", "book"]
    fake = fake_of(good, bad)
    fake.unserved.add(fake._words[bad].symbol)
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, {market: {bad: channels, good: channels}}, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(fake.play, 5.0)
        await made.until(lambda: made.live(*(f"{c}:{good}" for c in channels)), within_s=20)
        for channel in channels:
            assert made.state(f"{channel}:{bad}") is State.DOWN
            (*_, status) = made.events(f"{channel}:{bad}", Status)
            assert "Invalid symbol" in status.reason or "handler not found" in status.reason
        asked = fake.seen.subscribes
        assert asked <= 8, "one more request for each topic that is bad"
        await trio.sleep(120)
        assert (fake.seen.subscribes, made.market(market).reconnects) == (asked, 0)
        nursery.cancel_scope.cancel()


async def test_a_topic_that_flows_already_is_no_fault(autojump_clock: MockClock) -> None:
    """Acks are lost, so all is asked for again, and refused as subscribed already."""
    async with scene() as s:
        fault = s.fake.faults.no_ack(times=1)
        s.fake.faults.cut()
        await s.rig.until(lambda: fault.hits)
        await trio.sleep(60)
        await s.rig.until(lambda: s.rig.live(*s.topics))
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        assert s.rig.market("linear").reconnects == 1


async def test_late_acks_do_no_harm(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.late_ack(5.0, times=2)
        s.fake.faults.cut()
        await trio.sleep(40)
        await s.settle()
        s.check_complete("BTC-USDT-PERP", "ETH-USDT-PERP")
        assert s.rig.live(*s.topics)


async def test_a_stream_that_goes_silent_is_told_and_asked_for_again(autojump_clock: MockClock) -> None:
    """The best level owes a message each 3 s; the others go on."""
    async with scene() as s:
        with s.fake.faults.drop(None, match="orderbook.1.BTCUSDT"):
            await s.rig.until(lambda: s.rig.state("quote:BTC-USDT-PERP") is State.STALE)
            assert s.rig.live("quote:ETH-USDT-PERP", "trade:BTC-USDT-PERP")
        await s.rig.until(lambda: s.rig.live("quote:BTC-USDT-PERP"))
        assert s.fake.seen.unsubscribes >= 1
        assert s.rig.market("linear").reconnects == 0
