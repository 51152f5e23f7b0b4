"""What readers with options see: books of few levels that are right, and the newest once in a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd import wire
from pricefeedd.book import Book
from pricefeedd.bus import Bus
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Level, Quote, State, Status, Trade
from pricefeedd.message import Message, Notice
from pricefeedd.topic import Pattern
from pricefeedd.views import Options

BOOK = "book:v:A"


class World:
    """A book that changes, published on a bus as the gate would."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.book: Book | None = None
        self.bus.topic("book", "v", "A").book = self.snapshot

    def snapshot(self) -> BookSnapshot | None:
        if self.book is None:
            return None
        return BookSnapshot(
            venue="v",
            instrument="A",
            received_ns=1,
            bids=self.book.bids.levels(),
            asks=self.book.asks.levels(),
        )

    def load(self, bids: list[Level], asks: list[Level]) -> None:
        self.book = Book()
        self.book.load(bids, asks)
        whole = self.snapshot()
        assert whole is not None
        self.bus.publish([whole])

    def change(self, bids: list[Level], asks: list[Level]) -> None:
        assert self.book is not None
        self.book.apply(bids, asks)
        self.bus.publish([BookDelta(venue="v", instrument="A", received_ns=1, bids=bids, asks=asks)])

    def lose(self) -> None:
        self.book = None
        self.bus.publish([status(State.RESYNCING)])


class Reader:
    """An independent reader: it believes only what it is told."""

    def __init__(self, bus: Bus, options: Options, topic: str = BOOK) -> None:
        self.bids: dict[float, str] = {}
        self.asks: dict[float, str] = {}
        self.got: list[Message | Notice] = []
        self.seq = 0
        self.stuck = False
        self.mailbox = bus.mailbox(limit_bytes=4_000, flush=self.flush)
        self.bus = bus
        for found in bus.subscribe(self.mailbox, Pattern(topic), options):
            self.read(bus.latest(found, self.mailbox))

    def flush(self) -> None:
        if self.stuck:
            self.mailbox.lag()
        else:
            self.read(self.mailbox.take())

    def catch_up(self) -> None:
        self.stuck = False
        self.read(self.mailbox.take())
        self.mailbox.lagging = False

    def read(self, messages: list[Message | Notice] | list[Message]) -> None:
        for message in messages:
            self.got.append(message)
            if isinstance(message, Notice):
                self.seq = message.seq
                continue
            _, seq, event = wire.decode(message.text)
            if isinstance(event, BookSnapshot):
                self.bids, self.asks = {}, {}
            elif message.previous is not None:
                assert message.previous <= self.seq, "it says that nothing was missed"
            if isinstance(event, BookSnapshot | BookDelta):
                for side, levels in ((self.bids, event.bids), (self.asks, event.asks)):
                    for price, size in levels:
                        if float(size):
                            side[float(price)] = size
                        else:
                            side.pop(float(price), None)
            self.seq = seq

    def levels(self) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())


def truth(world: World, depth: int) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    assert world.book is not None
    bids, asks = world.book.bids.levels(depth or None), world.book.asks.levels(depth or None)
    return [(float(p), s) for p, s in bids], [(float(p), s) for p, s in asks]


def status(state: State, channel: str = "book") -> Status:
    return Status(venue="v", instrument="A", received_ns=1, topic_channel=channel, state=state)


def trade(number: int) -> Trade:
    return Trade(
        venue="v", instrument="A", received_ns=1, id=str(number), price="1", size="1", aggressor=None
    )


def quote(number: int) -> Quote:
    return Quote(
        venue="v",
        instrument="A",
        received_ns=1,
        bid_price=str(number),
        bid_size="1",
        ask_price="9",
        ask_size="1",
    )


def candle(minute: int, *, closed: bool) -> Candle:
    return Candle(
        venue="v",
        instrument="A",
        received_ns=1,
        start_ns=minute,
        open="1",
        high="1",
        low="1",
        close="1",
        volume="1",
        closed=closed,
    )


# --- books --------------------------------------------------------------------------------------------------

sizes = st.sampled_from(["0", "1", "2.5", "1.0"])
#: The same price in two spellings, as a venue might after a change of its tick size.
bid_levels = st.lists(
    st.tuples(st.sampled_from(["10", "11", "12", "12.0", "13", "14"]), sizes).map(list), max_size=4
)
ask_levels = st.lists(
    st.tuples(st.sampled_from(["20", "21", "21.0", "22", "23"]), sizes).map(list), max_size=4
)
steps = st.lists(
    st.tuples(st.just("change"), bid_levels, ask_levels)
    | st.tuples(st.just("load"), bid_levels, ask_levels)
    | st.tuples(st.sampled_from(["lose", "stuck", "catch up", "wait", "another"]), st.just([]), st.just([])),
    max_size=30,
)


@given(steps, st.integers(0, 3), st.sampled_from([0, 100]))
def test_a_book_of_few_levels_is_right(
    happens: list[tuple[str, list[Level], list[Level]]], depth: int, every_ms: int
) -> None:
    """At whatever pace, however deep, lagging or not: what a reader has in the end is the daemon's own book."""

    async def play() -> None:
        world = World()
        world.load([["12", "1"], ["11", "1"]], [["20", "1"]])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.bus.pacer.run, world.bus.flush)
            readers = [Reader(world.bus, Options(every_ms, depth))]
            for what, bids, asks in happens:
                if what == "load" or (what == "change" and world.book is None):
                    world.load(bids, asks)
                elif what == "change":
                    world.change(bids, asks)
                elif what == "lose":
                    world.lose()
                elif what == "stuck":
                    readers[0].stuck = True
                elif what == "catch up":
                    readers[0].catch_up()
                elif what == "another":
                    readers.append(Reader(world.bus, Options(every_ms, depth)))
                else:
                    await trio.sleep(0.07)
                if not every_ms and not readers[0].stuck and world.book is not None:
                    assert readers[0].levels() == truth(world, depth)
            if world.book is None:
                world.load([["14", "1"]], [["23", "1"]])
            readers[0].catch_up()
            await trio.sleep(1)
            for reader in readers:
                reader.catch_up()
                assert reader.levels() == truth(world, depth)
            nursery.cancel_scope.cancel()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


def test_readers_who_want_the_same_share_the_bytes() -> None:
    world = World()
    world.load([["12", "1"]], [["20", "1"]])
    one, two, all_of_it = (Reader(world.bus, Options(depth=depth)) for depth in (1, 1, 0))
    world.change([["11", "5"], ["13", "1"]], [])
    assert one.got[-1] is two.got[-1]
    assert one.got[-1] is not all_of_it.got[-1]
    assert isinstance(one.got[-1], Message)
    event = one.got[-1].event
    assert isinstance(event, BookDelta)
    assert list(event.bids) == [["12", "0"], ["13", "1"]]


def test_what_is_not_seen_is_not_told_and_the_numbers_say_so() -> None:
    world = World()
    world.load([["12", "1"]], [["20", "1"]])
    reader = Reader(world.bus, Options(depth=1))
    before = len(reader.got)
    world.change([["5", "1"]], [])
    assert len(reader.got) == before
    world.change([["12", "2"]], [])
    last = reader.got[-1]
    assert isinstance(last, Message)
    assert (last.seq, last.previous) == (3, 1)


def test_views_end_with_their_last_reader() -> None:
    world = World()
    world.load([["12", "1"]], [["20", "1"]])
    topic = world.bus.get(BOOK)
    assert topic is not None
    reader, other = Reader(world.bus, Options(depth=1)), Reader(world.bus, Options(depth=1, every_ms=50))
    assert topic.reader_count == 2
    world.bus.leave(reader.mailbox)
    world.bus.unsubscribe(other.mailbox, Pattern(BOOK))
    assert not topic.views
    assert topic.reader_count == 0


def test_subscribing_again_changes_the_options() -> None:
    world = World()
    world.load([["12", "1"], ["11", "1"]], [["20", "1"]])
    reader = Reader(world.bus, Options(depth=1))
    topic = world.bus.get(BOOK)
    assert topic is not None
    assert world.bus.subscribe(reader.mailbox, Pattern("book:*:*"), Options()) == [topic]
    reader.read(world.bus.latest(topic, reader.mailbox))
    assert reader.levels() == truth(world, 0)
    assert (topic.reader_count, bool(topic.views)) == (1, False)


# --- at most one in a while ---------------------------------------------------------------------------------


@pytest.fixture
def paced(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> Callable[[str], tuple[Bus, Reader]]:
    """Return a function that makes a bus, and a reader of one topic who wants a message a second."""

    def make(topic: str) -> tuple[Bus, Reader]:
        bus = Bus()
        nursery.start_soon(bus.pacer.run, bus.flush)
        return bus, Reader(bus, Options(every_ms=1_000), topic)

    return make


def told(reader: Reader) -> list[Event]:
    return [m.event for m in reader.got if isinstance(m, Message)]


async def test_the_first_comes_at_once_and_then_the_newest(
    paced: Callable[[str], tuple[Bus, Reader]],
) -> None:
    bus, reader = paced("quote:v:A")
    for number in range(1, 26):
        bus.publish([quote(number)])
        await trio.sleep(0.1)
    await trio.sleep(2)
    assert [e.bid_price for e in told(reader) if isinstance(e, Quote)] == ["1", "10", "20", "25"]
    assert [m.previous for m in reader.got if isinstance(m, Message)] == [0, 1, 10, 20]


async def test_a_slow_reader_of_thinned_out_books_begins_anew(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    nursery.start_soon(world.bus.pacer.run, world.bus.flush)
    world.load([["50", "1"]], [["60", "1"]])
    reader = Reader(world.bus, Options(every_ms=1_000))
    reader.stuck = True
    for price in range(1, 31):
        world.change([[str(price), "1"]], [])
        await trio.sleep(1)
    reader.catch_up()
    notice, book = reader.got[-2:]
    assert (type(notice), book.seq) == (Notice, 31)
    assert reader.levels() == truth(world, 0)
    world.change([["50", "0"]], [])
    await trio.sleep(2)
    assert reader.levels() == truth(world, 0)


async def test_a_new_book_is_not_ahead_of_its_number(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    nursery.start_soon(world.bus.pacer.run, world.bus.flush)
    reader = Reader(world.bus, Options(every_ms=1_000))
    world.book = Book()
    world.book.load([["9", "1"]], [["20", "1"]])
    first = world.snapshot()
    assert first is not None
    changes = [
        BookDelta(venue="v", instrument="A", received_ns=1, bids=[[price, "1"]], asks=[])
        for price in ("10", "11")
    ]
    for change in changes:
        world.book.apply(change.bids, change.asks)
    world.bus.publish([first, *changes])  # one batch: the book has all of it before the first is told
    assert [m.seq for m in reader.got] == [1]
    assert [price for price, _ in reader.levels()[0]] == [9]
    await trio.sleep(2)
    assert [m.seq for m in reader.got] == [1, 3]
    assert reader.levels() == truth(world, 0)
    world.bus.publish([first, changes[0]])  # it begins anew while the next is waited for
    world.bus.publish([first, changes[1]])
    await trio.sleep(2)
    assert [type(event) for event in told(reader)] == [BookSnapshot, BookDelta, BookSnapshot, BookSnapshot]
    assert [m.seq for m in reader.got] == [1, 3, 4, 7]
    assert [price for price, _ in reader.levels()[0]] == [11, 9]


async def test_a_book_that_was_lost_is_not_shown_to_those_who_come_before_the_new_one_is_told(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World()
    nursery.start_soon(world.bus.pacer.run, world.bus.flush)
    world.load([["50", "1"]], [["60", "1"]])
    options = Options(every_ms=1_000, depth=1)
    readers = [Reader(world.bus, options)]
    world.change([["51", "1"]], [])
    world.lose()
    world.load([["40", "1"]], [["70", "1"]])
    readers.append(Reader(world.bus, options))
    assert readers[1].levels() == ([], [])
    await trio.sleep(2)
    for reader in readers:
        assert reader.got[-1].seq == 4
        assert reader.levels() == truth(world, 1)


async def test_trades_are_thinned_out_too(paced: Callable[[str], tuple[Bus, Reader]]) -> None:
    bus, reader = paced("trade:v:A")
    bus.publish([trade(number) for number in range(5)])
    await trio.sleep(3)
    assert [e.id for e in told(reader) if isinstance(e, Trade)] == ["0", "4"]


async def test_closed_candles_and_what_is_said_of_the_data_pass_at_once_and_in_order(
    paced: Callable[[str], tuple[Bus, Reader]],
) -> None:
    bus, reader = paced("candle_1m:v:A")
    bus.publish([candle(0, closed=False), candle(0, closed=False)])
    bus.publish([candle(0, closed=True), candle(1, closed=False), candle(1, closed=False)])
    bus.publish([status(State.STALE, "candle_1m")])
    assert [m.seq for m in reader.got] == [1, 2, 3, 5, 6]
    await trio.sleep(2)
    assert len(reader.got) == 5


async def test_nothing_is_sent_for_readers_that_left(paced: Callable[[str], tuple[Bus, Reader]]) -> None:
    bus, reader = paced("quote:v:A")
    bus.publish([quote(1), quote(2)])
    bus.leave(reader.mailbox)
    await trio.sleep(2)
    assert len(reader.got) == 1
