"""The whole pipeline against the fake, over streams in memory: what readers get, whatever goes wrong.

Everything runs under Trio's mock clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import Candle, Origin, Quote, State, Ticker, Trade
from pricefeedd.testing.market import Market
from pricefeedd_coinbase.testing import CoinbaseFake
from pricefeedd_coinbase.venue import CoinbaseSettings, coinbase

VENUE = coinbase()
TOPICS = (
    "trade:BTC-USD",
    "quote:BTC-USD",
    "ticker:BTC-USD",
    "candle_1m:BTC-USD",
    "book:BTC-USD",
    "trade:ETH-USD",
    "book:ETH-USD",
)


async def test_undisturbed(autojump_clock: MockClock, scene: Any) -> None:
    async with scene(rate=4.0) as s:
        await trio.sleep(200)
        await s.settle()
        s.check_complete()
        for topic in TOPICS:
            assert set(s.rig.states(topic)) == {State.CONNECTING, State.LIVE}, topic
        stats = s.rig.market("spot")
        assert (stats.gaps, stats.resyncs, stats.decode_errors, stats.reconnects) == (0, 0, 0, 0)
        assert len(s.closed()) >= 8
        bid, ask = s.fake.market.book("BTC-USD", 1)
        last = s.rig.events("quote:BTC-USD", Quote)[-1]
        assert (float(last.bid_price), float(last.bid_size)) == tuple(map(float, bid[0]))
        assert (float(last.ask_price), float(last.ask_size)) == tuple(map(float, ask[0]))
        tickers = s.rig.events("ticker:BTC-USD", Ticker)
        assert tickers[-1].last == s.fake.market.trades("BTC-USD")[-1].price


async def test_readers_are_told_live_before_the_first_event(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        for topic in ("trade:BTC-USD", "book:BTC-USD", "ticker:BTC-USD"):
            kinds = [type(m.event).__name__ for m in s.rig.topic(topic)]
            assert kinds[:2] == ["Status", "Status"], topic
            assert "Status" not in kinds[2:], topic


async def test_trades_before_our_time_are_told_as_such(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        trades = s.rig.events("trade:BTC-USD", Trade)
        past = [t for t in trades if t.origin is Origin.BACKFILL]
        assert len(past) == 100
        assert trades[:100] == past, "the past comes first"


# --- Connections that break -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "disturb",
    [
        lambda faults: faults.cut(),
        lambda faults: faults.half_close(),
        lambda faults: faults.close(code=1000, reason="bye"),
        lambda faults: faults.garbage(),
        lambda faults: faults.oversized(9 << 20),
    ],
    ids=["cut", "half-close", "close", "garbage", "oversized"],
)
async def test_a_connection_that_breaks_is_made_again(
    autojump_clock: MockClock, scene: Any, disturb: Callable[[Any], object]
) -> None:
    async with scene() as s:
        disturb(s.fake.faults)
        await trio.sleep(70)
        await s.settle()
        s.check_complete()
        s.closed()
        assert s.rig.market("spot").reconnects >= 1
        assert State.CONNECTING in s.rig.states("trade:BTC-USD")[1:]


async def test_a_message_that_nobody_understands_is_kept(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.fake.faults.message('{"channel":"market_trades","sequence_num":5,"events":[{"trades":[{}]}]}')
        s.fake.faults.message("not json at all")
        s.fake.faults.message(b"\x00\x01")
        await trio.sleep(30)
        await s.settle()
        s.check_complete()
        stats = s.rig.market("spot")
        assert stats.decode_errors == 6, "on both connections"
        assert stats.reconnects == 0
        assert any(b"not json" in bad.frame for bad in stats.bad_frames)


async def test_a_stall_is_noticed_within_seconds(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        began = trio.current_time()
        fault = s.fake.faults.stall()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USD") is not State.LIVE)
        assert trio.current_time() - began < 13, "heartbeats come each second"
        await trio.sleep(60)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS))
        await trio.sleep(60)
        await s.settle()
        s.check_complete()


async def test_a_frame_that_is_lost_ends_that_connection_alone(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.fake.faults.drop(1, match="level2:BTC-USD")
        await s.rig.until(lambda: s.rig.state("book:BTC-USD") is not State.LIVE)
        assert s.rig.live("trade:BTC-USD", "trade:ETH-USD")
        assert "frames lost" in s.rig.market("spot").last_error
        # Until the book is right again nothing of it can be read.
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        kinds = [type(m.event).__name__ for m in s.rig.topic("book:BTC-USD")]
        after = kinds[kinds.index("Status", 2) :]
        assert "BookDelta" not in after[: after.index("BookSnapshot")]
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects == 1


async def test_lost_trades_are_filled_in(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.fake.faults.drop(
            7, match=lambda stream, message: "market_trades" in stream and "update" in str(message)
        )
        await trio.sleep(60)
        await s.settle()
        s.check_complete()
        s.closed()
        assert all(gap.missing == 0 for gap in s.rig.gaps("trade:BTC-USD"))


async def test_what_comes_twice_is_told_once(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        with s.fake.faults.duplicate(None):
            await trio.sleep(60)
        await s.settle()
        s.check_complete()
        s.closed()
        stats = s.rig.market("spot")
        assert stats.duplicates > 100
        assert (stats.resyncs, stats.reconnects) == (0, 0)


async def test_trades_that_overtake_each_other_are_put_in_order(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene(rate=25.0) as s:  # overtaken by less than the grace of a minute
        with s.fake.faults.reorder(20, match="market_trades:BTC-USD"):
            await trio.sleep(60)
        await s.settle()
        s.check_complete()
        s.closed()
        assert all(gap.missing == 0 for gap in s.rig.gaps("trade:BTC-USD"))
        assert s.rig.market("spot").reconnects == 0


@pytest.mark.parametrize("fault", ["no_ack", "late_ack"])
async def test_answers_that_do_not_come_do_no_harm(autojump_clock: MockClock, scene: Any, fault: str) -> None:
    """Data shows by itself that its stream was accepted."""
    async with scene() as s:
        getattr(s.fake.faults, fault)()
        s.fake.faults.cut()
        await s.rig.until(lambda: not s.rig.live(*TOPICS))
        await s.rig.until(lambda: s.rig.live(*TOPICS), within_s=60)
        await trio.sleep(60)
        await s.settle()
        s.check_complete()


async def test_refused_then_admitted(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        fault = s.fake.faults.refuse()
        s.fake.faults.cut()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USD") is State.DOWN)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS))
        await trio.sleep(30)
        await s.settle()
        s.check_complete()


async def test_too_many_connections_are_waited_for(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        handshakes = s.fake.seen.handshakes
        fault = s.fake.faults.refuse("/", status=429, times=2)
        s.fake.faults.cut()
        began = trio.current_time()
        await s.rig.until(lambda: not s.rig.live("trade:BTC-USD"))
        await s.rig.until(lambda: s.rig.live(*TOPICS))
        assert trio.current_time() - began >= 10.0
        assert fault.hits == 2
        assert s.fake.seen.handshakes == handshakes + 4
        await s.settle()
        s.check_complete()


async def test_ten_minutes_away(autojump_clock: MockClock, scene: Any) -> None:
    async with scene(rate=5.0) as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        assert s.rig.state("trade:BTC-USD") is State.DOWN
        refused.lift()
        await s.rig.until(lambda: s.rig.live(*TOPICS), within_s=320)
        await trio.sleep(90)
        await s.settle()
        s.check_complete()
        s.closed()
        gaps = s.rig.gaps("trade:BTC-USD")
        assert [gap.missing for gap in gaps] == [0]
        assert gaps[0].recovered > 500, "the snapshot alone has a hundred"


async def test_a_new_connection_takes_over_without_a_seam(autojump_clock: MockClock, scene: Any) -> None:
    """Coinbase sets no lifetime; should a connection be replaced all the same, readers notice nothing."""
    short = attrs.evolve(VENUE, feeds=tuple(attrs.evolve(feed, lifetime_s=60.0) for feed in VENUE.feeds))
    short = attrs.evolve(short, configure=lambda venue, settings: venue)
    async with scene(venue=short, rate=4.0) as s:
        await trio.sleep(130)
        await s.settle()
        s.check_complete()
        s.closed()
        assert s.rig.market("spot").reconnects >= 2
        for topic in TOPICS:
            assert set(s.rig.states(topic)[1:]) == {State.LIVE}, topic
        assert s.rig.market("spot").gaps == 0


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps(autojump_clock: MockClock, scene: Any, hours: int) -> None:
    async with scene(rate=4.0) as s:
        await trio.sleep(60)
        s.rig.clock.ahead_ns = hours * 3600 * 1_000_000_000
        await trio.sleep(200)
        s.rig.clock.ahead_ns = 0
        await trio.sleep(100)
        await s.settle()
        s.check_complete()
        s.closed()
        for topic in TOPICS:
            assert set(s.rig.states(topic)[1:]) == {State.LIVE}, topic
        assert s.rig.market("spot").reconnects == 0


# --- What is asked for ------------------------------------------------------------------------------------


class Shy(CoinbaseFake):
    """A Coinbase that lists a product which its streams do not know."""

    hidden = "SOL-USD"

    def _begin_streams(self, socket: Any, channel: str, products: Any) -> None:
        super()._begin_streams(socket, channel, [product for product in products if product != self.hidden])


async def test_a_product_that_is_left_out_leaves_the_others_alone(
    autojump_clock: MockClock, scene: Any
) -> None:
    subscribe = {"spot": {name: ["trade", "book"] for name in ("BTC-USD", "SOL-USD", "ETH-USD")}}
    others = ["trade:BTC-USD", "book:BTC-USD", "trade:ETH-USD", "book:ETH-USD"]
    async with scene(subscribe, fake=Shy(history_minutes=30), waits_for=others) as s:
        for topic in ("trade:SOL-USD", "book:SOL-USD"):
            await s.rig.until(lambda topic=topic: s.rig.state(topic) is State.DOWN, within_s=60)
        await trio.sleep(30)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects == 0
        assert all(set(s.rig.states(topic)) == {State.CONNECTING, State.LIVE} for topic in others)


async def test_a_product_that_is_not_listed_is_told_with_what_is_near(
    autojump_clock: MockClock, scene: Any
) -> None:
    subscribe = {"spot": {"BTC-USD": ["trade"], "BTC-USDD": ["trade"]}}
    async with scene(subscribe, waits_for=["trade:BTC-USD"]) as s:
        assert s.rig.state("trade:BTC-USDD") is State.DOWN
        (status,) = [m.event for m in s.rig.topic("trade:BTC-USDD")]
        assert "did you mean BTC-USD" in status.reason


async def test_an_alias_is_served_by_the_other_products_stream(autojump_clock: MockClock, scene: Any) -> None:
    subscribe = {
        "spot": {
            "BTC-USDC": ["trade", "book", "quote", "candle_1m"],
            "BTC-USD": ["trade"],
            "ETH-USD": ["book"],
        }
    }
    async with scene(subscribe) as s:
        await trio.sleep(70)
        await s.settle()
        assert s.ids("BTC-USDC") == s.ids("BTC-USD")
        s.rig.check_sequence()
        book = s.rig.book("BTC-USDC")
        assert book is not None
        assert float(book[0][0][0]) == float(s.fake.market.book("BTC-USD", 1)[0][0][0])
        assert all(len(socket.subscriptions) <= 3 for socket in s.fake.sockets)
        asked = [text for _, text in s.fake.seen.messages]
        assert not any("BTC-USDC" in str(text) for text in asked)


async def test_quotes_of_tickers(autojump_clock: MockClock, scene: Any) -> None:
    settings = CoinbaseSettings(quote_source="ticker")
    async with scene({"spot": {"BTC-USD": ["quote", "ticker"]}}, settings=settings) as s:
        await trio.sleep(30)
        await s.settle()
        assert len(s.fake.sockets) == 1, "no book is subscribed"
        quote = s.rig.events("quote:BTC-USD", Quote)[-1]
        told = s.fake.ticker_quote("BTC-USD")
        assert ((quote.bid_price, quote.bid_size), (quote.ask_price, quote.ask_size)) == told


async def test_hundreds_of_products_stay_within_the_venues_limits(
    autojump_clock: MockClock, scene: Any
) -> None:
    """Messages are limited over all connections, and so are connections: the fake cuts who is too fast."""
    listings = [
        attrs.evolve(CoinbaseFake.default_listings()[2], base=f"A{n:03}", price=f"{100 + n}.00")
        for n in range(130)
    ]
    fake = CoinbaseFake(Market(listings))
    subscribe = {"spot": {listing.name: ["trade", "book"] for listing in listings}}
    topics = [f"book:{listings[0].name}", f"book:{listings[-1].name}", f"trade:{listings[-1].name}"]
    async with scene(subscribe, fake=fake, rate=0.5, waits_for=topics) as s:
        await trio.sleep(10)
        assert s.rig.market("spot").reconnects == 0
        assert all(s.rig.live(f"book:{n.name}", f"trade:{n.name}") for n in listings)
        books = [
            len(x.subscriptions) - 1 for x in fake.sockets if any("level2" in n for n in x.subscriptions)
        ]
        assert sum(books) == 130
        assert max(books) <= 30


async def test_minutes_without_trades_are_flat(autojump_clock: MockClock, scene: Any) -> None:
    async with scene(rate=5.0) as s:
        await trio.sleep(70)
        s.playing.cancel()
        await trio.sleep(200)
        with trio.move_on_after(70):
            await s.fake.play(5.0)
        await trio.sleep(10)
        closed = [c for c in s.rig.events("candle_1m:BTC-USD", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, 60_000_000_000))
        flat = [c for c in closed if float(c.volume) == 0]
        assert len(flat) >= 2
        assert all(c.open == c.high == c.low == c.close for c in flat)


async def test_rest_that_says_429_is_left_alone(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        fault = s.fake.faults.rest_status(429, retry_after=10)
        refused = s.fake.faults.refuse(lambda request: request.path == "/")
        s.fake.faults.cut()
        await trio.sleep(90)  # more trades than a snapshot holds
        refused.lift()
        await s.rig.until(lambda: fault.hits > 0, within_s=320)
        await trio.sleep(1)
        hits = fault.hits
        await trio.sleep(8)
        assert fault.hits == hits
        fault.lift()
        await trio.sleep(60)
        await s.settle()
        s.check_complete()
        assert [gap.missing for gap in s.rig.gaps("trade:BTC-USD")] == [0]
