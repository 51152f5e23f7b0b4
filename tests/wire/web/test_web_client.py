"""The client library against a daemon's edge, over a wire that breaks anywhere."""

from __future__ import annotations

import random
import socket
import struct
import time
from typing import Any

import attrs
import pytest
import trio

from pricefeedd.book import Book
from pricefeedd.client import Connected, Disconnected, EpochChanged, Feed, Missed, Update, connect
from pricefeedd.events import BookDelta, BookSnapshot, Quote, State, Trade
from pricefeedd.web.daemon import Limits

TRADES = "trade:binance:BTC-USDT"
BOOK = "book:binance:BTC-USDT"
QUICK: dict[str, Any] = {"first_delay_s": 0.001, "max_delay_s": 0.004}


@attrs.define
class Wire:
    """A way to a daemon that is cut once so many bytes came from there.

    Attributes:
        budgets: Bytes that each connection in turn may bring; the wire is good when they are used up.
        target: Host and port of the daemon.
        cuts: Connections cut so far.
    """

    target: tuple[str, int]
    budgets: list[int] = attrs.field(factory=list)
    cuts: int = 0
    url: str = ""
    open: list[trio.SocketStream] = attrs.field(factory=list)

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection."""
        budget = self.budgets.pop() if self.budgets else None
        far = await trio.open_tcp_stream(*self.target)
        self.open.append(near)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._up, near, far, nursery.cancel_scope)
                await self._down(far, near, budget)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open.remove(near)
            for stream in (near, far):
                reset(stream)

    async def _up(self, near: trio.SocketStream, far: trio.SocketStream, scope: trio.CancelScope) -> None:
        async for data in near:
            await far.send_all(data)
        scope.cancel()

    async def _down(self, far: trio.SocketStream, near: trio.SocketStream, budget: int | None) -> None:
        async for data in far:
            if budget is not None and len(data) > budget:
                await near.send_all(data[:budget])
                self.cuts += 1
                return
            budget = None if budget is None else budget - len(data)
            await near.send_all(data)


def reset(stream: trio.SocketStream) -> None:
    """End a connection at once; what is on its way may be lost."""
    if stream.socket.fileno() >= 0:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()


@pytest.fixture
async def lay_wire(nursery: trio.Nursery) -> Any:
    """Return a function that lays a wire to a served daemon."""

    async def lay(web: Any, budgets: list[int] | None = None) -> Wire:
        host, port = web.binds[0].removeprefix("http://").rsplit(":", 1)
        wire = Wire((host, int(port)), budgets or [])
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        wire.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"
        nursery.start_soon(trio.serve_listeners, wire.carry, listeners)
        return wire

    return lay


def numbered(number: int, instrument: str = "BTC-USDT") -> Trade:
    return Trade(
        venue="binance",
        instrument=instrument,
        received_ns=time.time_ns(),
        id=str(number),
        price="1",
        size="1",
        aggressor=None,
    )


@pytest.mark.parametrize("seed", range(4))
async def test_each_event_comes_once_and_in_order_whenever_the_wire_breaks(
    start_web: Any, lay_wire: Any, seed: int
) -> None:
    """Of two hundred and fifty random cuts, in handshakes, answers and frames, nothing is seen of the events."""
    dice = random.Random(seed)
    kills = 250
    web = await start_web(heartbeat_s=0.5)
    wire = await lay_wire(web)
    instruments = ("BTC-USDT", "ETH-USDT")
    published = dict.fromkeys(instruments, 0)
    seen = dict.fromkeys(instruments, 0)
    published_all = False

    def publish(count: int) -> None:
        batch = []
        for _ in range(count):
            instrument = dice.choice(instruments)
            published[instrument] += 1
            batch.append(numbered(published[instrument], instrument))
        web.daemon.bus.publish(batch)
        if dice.random() < 0.2:
            web.daemon.quote(str(sum(published.values())))

    async def play() -> None:
        nonlocal published_all
        while wire.cuts < kills:
            if sum(published.values()) - sum(seen.values()) < 40:  # or most of the work is to repeat
                publish(dice.randrange(1, 8))
            await trio.sleep(dice.choice([0, 0, 0.001]))
        publish(20)
        published_all = True

    for instrument in instruments:
        published[instrument] = 1
        web.daemon.bus.publish([numbered(1, instrument)])
    wire.budgets = [dice.choice([dice.randrange(900), dice.randrange(4_000)]) for _ in range(kills)] + [
        100_000
    ]
    with trio.fail_after(30):
        async with connect(wire.url, wait=True, **QUICK) as feed, trio.open_nursery() as nursery:
            await feed.subscribe(["trade:*:*", "quote:binance:BTC-USDT"])
            nursery.start_soon(play)
            bid = 0
            async for update in feed:
                assert not isinstance(update, Missed | EpochChanged), update
                event = update.event
                if isinstance(event, Trade):
                    seen[event.instrument] += 1
                    assert event.id == str(seen[event.instrument])
                elif isinstance(event, Quote):
                    assert event.bid_price is not None
                    assert int(event.bid_price) > bid
                    bid = int(event.bid_price)
                if published_all and seen == published:
                    break
    assert wire.cuts >= kills


async def take(feed: Feed, count: int) -> list[Update]:
    """Return the next updates."""
    with trio.fail_after(5):
        return [await anext(feed) for _ in range(count)]


def levels(book: Book | None) -> Any:
    return None if book is None else (book.bids.levels(), book.asks.levels())


class Market:
    """An order book that moves, as a daemon keeps it."""

    def __init__(self, web: Any, seed: int) -> None:
        self.book = Book()
        self.book.load([["99", "1"]], [["101", "1"]])
        self._dice = random.Random(seed)
        self._bus = web.daemon.bus
        self._common: dict[str, Any] = {"venue": "binance", "instrument": "BTC-USDT", "received_ns": 1_000}
        self._bus.publish([self.snapshot()])
        self._bus.topic("book", "binance", "BTC-USDT").book = self.snapshot

    def snapshot(self) -> BookSnapshot:
        return BookSnapshot(bids=self.book.bids.levels(), asks=self.book.asks.levels(), **self._common)

    def move(self) -> None:
        dice = self._dice
        bids = [[str(dice.randrange(50, 100)), str(dice.randrange(3))] for _ in range(2)]
        asks = [[str(dice.randrange(101, 150)), str(dice.randrange(3))]]
        self.book.apply(bids, asks)
        self._bus.publish([BookDelta(bids=bids, asks=asks, **self._common)])


@pytest.mark.parametrize("options", [{}, {"every_ms": 10}, {"depth": 5}, {"every_ms": 10, "depth": 5}])
async def test_a_book_is_right_again_after_each_cut(
    start_web: Any, lay_wire: Any, until: Any, options: dict[str, int]
) -> None:
    web = await start_web(heartbeat_s=0.2)
    wire = await lay_wire(web, [random.Random(7).randrange(6_000) for _ in range(30)])
    market = Market(web, seed=3)
    depth = options.get("depth")

    async def play() -> None:
        while wire.budgets or wire.cuts < 30:
            market.move()
            await trio.sleep(0.001)

    def right() -> bool:
        book = feed.book(BOOK)
        truth = (market.book.bids.levels(depth), market.book.asks.levels(depth))
        return levels(book) == truth

    with trio.fail_after(20):
        async with connect(wire.url, wait=True, **QUICK) as feed, trio.open_nursery() as nursery:
            await feed.subscribe([BOOK], **options)
            found: list[Update] = []

            async def read() -> None:
                async for update in feed:
                    found.append(update)  # noqa: PERF401  # it never ends

            nursery.start_soon(read)
            await play()
            market.move()
            await until(right)
            # And it stays so on the connection that holds.
            for _ in range(50):
                market.move()
            await until(right)
            nursery.cancel_scope.cancel()
    assert not [update for update in found if isinstance(update, Missed)]
    assert sum(isinstance(update, Disconnected) for update in found) >= 10


async def test_options_may_change(start_web: Any, until: Any) -> None:
    web = await start_web()
    market = Market(web, seed=5)
    async with connect(web.ws) as feed, connect(web.ws) as other:
        await other.subscribe(BOOK, depth=2)  # the daemon shares what this one sees
        await feed.subscribe(BOOK)
        await take(feed, 1)
        for options in ({"depth": 2}, {}, {"depth": 3, "every_ms": 20}, {"depth": 2}):
            for _ in range(20):
                market.move()
            await feed.subscribe([BOOK], **options)
            for _ in range(20):
                market.move()
            depth = options.get("depth")
            await until(
                lambda depth=depth: (
                    levels(feed.book(BOOK))
                    == (market.book.bids.levels(depth), market.book.asks.levels(depth))
                )
            )


async def test_another_life_of_the_daemon(start_web: Any, lay_wire: Any) -> None:
    web, later = await start_web(), await start_web()
    wire = await lay_wire(web)
    later.daemon.epoch = later.daemon.bus.epoch = "epoch2"
    web.daemon.trade(70)
    later.daemon.trade(3)
    with trio.fail_after(10):
        async with connect(wire.url, **QUICK) as feed:
            await feed.subscribe(["trade:*:*"])
            assert [update.seq for update in await take(feed, 1)] == [70]
            wire.target = (wire.target[0], int(later.binds[0].rsplit(":", 1)[1]))
            reset(wire.open[0])
            lost, back, changed, missed, first = await take(feed, 5)
            assert isinstance(lost, Disconnected)
            assert isinstance(back, Connected)
            assert isinstance(changed, EpochChanged)
            assert (changed.before, changed.now) == ("epoch1", "epoch2")
            assert isinstance(missed, Missed)
            assert (missed.topic, missed.from_seq, missed.to_seq) == (TRADES, 71, None)
            assert missed.reason == "the epoch changed"
            assert first.seq == 3
            later.daemon.trade(2)
            assert [update.seq for update in await take(feed, 2)] == [4, 5]


async def test_away_for_longer_than_the_daemon_remembers(start_web: Any, lay_wire: Any) -> None:
    web = await start_web()
    wire = await lay_wire(web)
    web.daemon.trade(1)
    with trio.fail_after(20):
        async with connect(wire.url, **QUICK) as feed:
            await feed.subscribe([TRADES])
            await take(feed, 1)
            reset(wire.open[0])
            web.daemon.trade(20_500)
            lost, back, missed, first = await take(feed, 4)
            assert isinstance(lost, Disconnected)
            assert isinstance(back, Connected)
            assert isinstance(missed, Missed)
            assert (missed.from_seq, missed.to_seq, missed.reason) == (2, 501, "older than what is kept")
            assert first.seq == 502
            async for update in feed:
                assert update.seq == first.seq + 1
                first = update
                if update.seq == 20_501:
                    break


async def test_thousands_of_topics_come_back(start_web: Any, lay_wire: Any) -> None:
    web = await start_web(limits=Limits(message_bytes=8_192))
    wire = await lay_wire(web)
    instruments = [f"COIN{number}-USDT" for number in range(2_000)]
    web.daemon.bus.publish(numbered(1, instrument) for instrument in instruments)
    with trio.fail_after(20):
        async with connect(wire.url, **QUICK) as feed:
            await feed.subscribe(["trade:*:*"])
            assert {update.topic for update in await take(feed, 2_000)} == {
                f"trade:binance:{i}" for i in instruments
            }
            reset(wire.open[0])
            web.daemon.bus.publish(numbered(2, instrument) for instrument in instruments)
            lost, back, *again = await take(feed, 2_002)
            assert isinstance(lost, Disconnected)
            assert isinstance(back, Connected)
            assert {update.seq for update in again} == {2}
            assert len({update.topic for update in again}) == 2_000
            held = (await feed.request("list"))["results"]
            assert [(row["topic"], row["matched"]) for row in held] == [("trade:*:*", 2_000)]
            web.daemon.bus.publish(numbered(3, instrument) for instrument in instruments[:10])
            assert {update.seq for update in await take(feed, 10)} == {3}


async def test_who_reads_too_slowly_is_told_what_was_lost(start_web: Any) -> None:
    web = await start_web(client_queue_bytes=100_000)
    web.daemon.trade(1)
    with trio.fail_after(20):
        async with connect(web.ws) as feed:
            await feed.subscribe([TRADES])
            for _ in range(200):
                web.daemon.trade(200)
                await trio.lowlevel.checkpoint()
            await trio.sleep(0.1)
            last = 0
            losses = 0
            async for update in feed:
                if isinstance(update, Missed):
                    assert (update.from_seq, update.reason) == (last + 1, "slow reader")
                    assert update.to_seq is not None
                    last = update.to_seq
                    losses += 1
                else:
                    assert update.seq == last + 1 or not last
                    last = update.seq
                if last == 40_001:
                    break
            assert losses


async def test_numbers_and_batches(start_web: Any) -> None:
    web = await start_web()
    web.daemon.quote("1.5")
    market = Market(web, seed=1)
    async with connect(web.ws, numbers="float", batch_ms=20) as feed:
        await feed.subscribe(["quote:*:*", BOOK])
        updates = await take(feed, 2)
        (quote,) = [update.event for update in updates if isinstance(update.event, Quote)]
        assert quote.bid_price == 1.5
        market.move()
        market.move()
        await take(feed, 2)
        book = feed.book(BOOK)
        assert book is not None
        assert book.bids.best() == market.book.bids.best()
        assert [len(book.bids), len(book.asks)] == [len(market.book.bids), len(market.book.asks)]


async def test_what_is_kept_can_be_asked_for(start_web: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    web.daemon.trade(50)
    web.daemon.status(State.STALE)
    async with connect(web.ws) as feed:
        (past,) = await feed.history([TRADES], limit=5, to_seq=20)
        assert [update.seq for update in past.updates] == [16, 17, 18, 19, 20]
        assert all(isinstance(update.event, Trade) for update in past.updates)
        (latest, wrong) = await feed.get([TRADES, "trade:binance:BTC-USDTT"])
        assert [update.seq for update in latest.updates] == [50, 51]
        assert wrong.code == "unknown_instrument"
        assert (await feed.status())["topics"] == 1
        assert {row["instrument"] for row in await feed.instruments(venue="binance", market="spot")} == {
            "BTC-USDT",
            "ETH-USDT",
            "SOL-USDT",
        }
        assert await feed.ping() < 5
