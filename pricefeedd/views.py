"""A topic as some of its readers want it: at most one message in a while, or only the best levels of a book.

Readers who want the same share one view, so each of its messages is made, encoded and framed once. A view passes
numbers over on purpose; its messages say which number they follow (`prev_seq`), so a reader can still prove that it
missed nothing.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from pricefeedd.book import Book
from pricefeedd.events import BOOK_GONE, BookDelta, BookSnapshot, Event, Level, Liquidation, Status, Trade
from pricefeedd.mailbox import Mailbox
from pricefeedd.message import Jump, Lane, Message

if TYPE_CHECKING:
    from pricefeedd.topic import Topic


@attrs.frozen
class Options:
    """How a reader wants a topic.

    Attributes:
        every_ms: At most one message in so many milliseconds: the newest, book deltas merged. 0 for all of them.
        depth: Of a book the best levels of each side; 0 for the whole.
    """

    every_ms: int = 0
    depth: int = 0

    def of(self, channel: str) -> Options:
        """Return what is left of it for a channel: only books have a depth."""
        return self if channel == "book" or not self.depth else Options(self.every_ms)


#: All of a topic as it comes.
PLAIN = Options()


class Pacer:
    """Does things when they are due: one task for all of them."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._sooner = trio.Event()

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Have `act` called at a time of Trio's clock."""
        heapq.heappush(self._due, (when, next(self._numbers), act))
        if self._due[0][0] == when:
            self._sooner.set()

    async def run(self, after: Callable[[], None]) -> None:
        """Call what is due, and then `after`; runs until cancelled."""
        while True:
            self._sooner = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else float("inf")):
                await self._sooner.wait()
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            after()


class ViewMessage(Message):
    """A message of a view.

    Attributes:
        previous: The `seq` of the message before it in the same view.
        view: Where it comes from.
    """

    __slots__ = ("previous", "view")

    def __init__(self, view: View, seq: int, event: Event, lane: Lane | None = None) -> None:
        super().__init__(view.topic.name, seq, event, lane)
        self.view = view
        self.previous = view.seq


class View:
    """One topic as some of its readers want it.

    Attributes:
        readers: The mailboxes joined to it, as in `Topic.readers`.
        seq: The number that its readers stand at.
    """

    def __init__(self, topic: Topic, options: Options, pacer: Pacer, book: Book | None) -> None:
        self.topic = topic
        self.options = options
        self.readers: dict[Mailbox, None] = {}
        self.seq = topic.seq
        self._every_s = options.every_ms / 1000
        self._pacer = pacer
        self._book = book
        self._not_before = 0.0
        self._waits = False
        # What was not told yet: a message, or changes of the book, or a new book and what changed since.
        self._held: Message | None = None
        self._bids: dict[float, Level] = {}
        self._asks: dict[float, Level] = {}
        self._whole: BookSnapshot | None = None
        self._shown: tuple[list[Level], list[Level]] | None = None

    def take(self, message: Message) -> None:
        """Take a message of the topic: tell it now or at its time, or let a newer one replace it."""
        if isinstance(message, Jump):
            self._jump(message)
            return
        if message.lane is Lane.BOOK:
            self._take_book(message)
        elif message.lane is Lane.STATE or type(message.event) in (Trade, Liquidation):
            self._held = message
        else:
            # A closed candle is not replaced, and what is said about the data keeps its place among it.
            self._tell()
            self._offer(message.seq, message.event, message.lane)
            if isinstance(message.event, Status) and message.event.state in BOOK_GONE:
                self._shown = None
            return
        if not self._every_s:
            self._tell()
        elif not self._waits:
            now = trio.current_time()
            if now >= self._not_before:
                self._not_before = now + self._every_s
                self._tell()
            else:
                self._waits = True
                self._pacer.at(self._not_before, self._due)

    def snapshot(self) -> Message | None:
        """Return the book as its readers have it now, or newer where they want all levels; None if they have none."""
        whole = None if self.topic.book is None else self.topic.book()
        if whole is None:
            return None
        if self._book is None:
            return Message(self.topic.name, self.topic.seq, whole)
        if self._shown is None:
            if self._held is not None:
                return None  # a new book waits for its time, and comes to all of them then
            self._shown = self._window()
            self.seq = self.topic.seq
        bids, asks = self._shown
        return Message(self.topic.name, self.seq, attrs.evolve(whole, bids=bids, asks=asks))

    def _jump(self, jump: Jump) -> None:
        """Tell that numbers are missing, in their place. Of state they would have been passed over anyway."""
        if jump.event.missing == 0:
            return
        self._tell()
        self._shown = None
        self.seq = jump.seq
        for mailbox in self.readers:
            mailbox.offer(jump)

    # --- telling --------------------------------------------------------------------------------------

    def _due(self) -> None:
        self._waits = False
        if self.readers:
            self._not_before = trio.current_time() + self._every_s
            self._tell()

    def _tell(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        event: Event | None = held.event
        if isinstance(event, BookSnapshot | BookDelta):
            event = self._changes(event) if self._book is None else self._seen(event)
            self._bids, self._asks, self._whole = {}, {}, None
        if event is not None:
            self._offer(held.seq, event, held.lane)

    def _offer(self, seq: int, event: Event, lane: Lane) -> None:
        message = ViewMessage(self, seq, event, lane)
        self.seq = seq
        for mailbox in self.readers:
            mailbox.offer(message)

    # --- books ----------------------------------------------------------------------------------------

    def _take_book(self, message: Message) -> None:
        event = message.event
        self._held = message
        if isinstance(event, BookSnapshot):
            self._bids, self._asks, self._whole = {}, {}, event
        elif isinstance(event, BookDelta) and self._book is None:
            self._bids.update((float(level[0]), level) for level in event.bids)
            self._asks.update((float(level[0]), level) for level in event.asks)

    def _changes(self, newest: BookSnapshot | BookDelta) -> Event:
        """Return what changed since the last time as one delta, or the whole book if it began anew."""
        bids, asks = list(self._bids.values()), list(self._asks.values())
        if self._whole is None:
            return attrs.evolve(newest, bids=bids, asks=asks)
        if newest is self._whole:
            return newest
        # Not the topic's own book: amid a batch that is ahead of the messages.
        book = Book()
        book.load(self._whole.bids, self._whole.asks)
        book.apply(bids, asks)
        return _of(BookSnapshot, newest, book.bids.levels(), book.asks.levels())

    def _seen(self, newest: BookSnapshot | BookDelta) -> Event | None:
        """Return what changed in the levels shown; None if nothing did."""
        bids, asks = window = self._window()
        before, self._shown = self._shown, window
        if self._whole is not None or before is None:
            return _of(BookSnapshot, newest, bids, asks)
        if before == window:
            return None
        return _of(BookDelta, newest, _difference(before[0], bids), _difference(before[1], asks))

    def _window(self) -> tuple[list[Level], list[Level]]:
        assert self._book is not None, "only a view with a depth looks at the book"
        depth = self.options.depth
        return self._book.bids.levels(depth), self._book.asks.levels(depth)


def _of(
    kind: type[BookSnapshot | BookDelta],
    like: BookSnapshot | BookDelta,
    bids: Sequence[Level],
    asks: Sequence[Level],
) -> Event:
    return kind(
        venue=like.venue,
        instrument=like.instrument,
        venue_time_ns=like.venue_time_ns,
        received_ns=like.received_ns,
        origin=like.origin,
        bids=bids,
        asks=asks,
        sequence=like.sequence,
    )


def _difference(before: list[Level], now: list[Level]) -> list[Level]:
    """Return the levels that turn one side into the other: what went first, as its price may be spelt anew."""
    if before == now:
        return []
    known = {level[0]: level[1] for level in before}
    changed = [level for level in now if known.pop(level[0], None) != level[1]]
    return [[price, "0"] for price in known] + changed


class Views:
    """All views of one topic, and the copy of its book that those with a depth look at."""

    def __init__(self, topic: Topic, pacer: Pacer) -> None:
        self._topic = topic
        self._pacer = pacer
        self._views: dict[Options, View] = {}
        self._book: Book | None = None

    def __bool__(self) -> bool:
        return bool(self._views)

    @property
    def readers(self) -> int:
        """How many mailboxes are joined to any of them."""
        return sum(len(view.readers) for view in self._views.values())

    def describe(self) -> list[dict[str, Any]]:
        """Return the options that are read, and how many read so."""
        return [attrs.asdict(view.options) | {"readers": len(view.readers)} for view in self._views.values()]

    def lagging(self) -> int:
        """Return how many of their readers have not taken what they were given."""
        return sum(mailbox.lagging for view in self._views.values() for mailbox in view.readers)

    def view(self, options: Options) -> View:
        """Return the view with these options, made now if it is new."""
        view = self._views.get(options)
        if view is None:
            if options.depth and self._book is None:
                self._book = Book()
                present = None if self._topic.book is None else self._topic.book()
                if present is not None:
                    self._book.load(present.bids, present.asks)
            book = self._book if options.depth else None
            view = self._views[options] = View(self._topic, options, self._pacer, book)
        return view

    def of(self, mailbox: Mailbox) -> View | None:
        """Return the view that a mailbox is joined to; None if to none."""
        return next((view for view in self._views.values() if mailbox in view.readers), None)

    def part(self, mailbox: Mailbox) -> bool:
        """Part a mailbox from its view; return whether it had one. A view without readers ends."""
        view = self.of(mailbox)
        if view is None:
            return False
        del view.readers[mailbox]
        if not view.readers:
            del self._views[view.options]
            if not any(options.depth for options in self._views):
                self._book = None
        return True

    def take(self, message: Message) -> None:
        """Take a message of the topic."""
        event = message.event
        if self._book is not None:
            if isinstance(event, BookSnapshot):
                self._book.load(event.bids, event.asks)
            elif isinstance(event, BookDelta):
                self._book.apply(event.bids, event.asks)
        for view in self._views.values():
            view.take(message)
