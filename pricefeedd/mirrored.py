"""One topic of another daemon: where it stands, its book, and what is said of numbers that did not come.

Nothing is invented: a message keeps its number, and numbers that are missing are told as such. Of state newer stands for
older; of events it is a loss, unless the source can fetch them, for which later ones wait; and a book that missed a change
is none until the next whole one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from pricefeedd.book import Book
from pricefeedd.candles import INTERVALS
from pricefeedd.events import (
    BOOK_GONE,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Origin,
    State,
    Status,
)
from pricefeedd.message import Jump, Message, conflated, lost
from pricefeedd.mirror import Mirror
from pricefeedd.source import Hole, SourceReport
from pricefeedd.topic import Topic

#: Messages of a topic that wait for a hole to be filled.
MOST_HELD = 10_000

_STATE_CHANNELS = ("quote", "ticker", "price")
_MINUTE_NS = 60_000_000_000
_STEPS_NS = {f"candle_{name}": minutes * _MINUTE_NS for name, minutes in {"1m": 1, **INTERVALS}.items()}
_BAD_LEVEL = (ValueError, TypeError, IndexError)

#: Number, event and text of a message; None for a text that is to be made.
Arrived = tuple[int, Event, bytes | None]


class Mirrored:
    """One topic as it comes from the upstream.

    Attributes:
        tip: The newest number that came.
        hole: What was asked for and not yet answered.
    """

    __slots__ = (
        "_ask",
        "_book",
        "_bus",
        "_candle",
        "_changes",
        "_doubt",
        "_held",
        "_newest",
        "_report",
        "_seq",
        "_since",
        "hole",
        "tip",
        "topic",
    )

    def __init__(
        self, bus: Mirror, topic: Topic, report: SourceReport, ask: Callable[[Hole], bool], seq: int
    ) -> None:
        """Begin at a message.

        Args:
            report: Where holes are counted.
            ask: Asks the source to fill a hole; returns whether it will.
            seq: The message's number.
        """
        self.topic = topic
        self.tip = seq - 1
        self.hole: Hole | None = None
        self._bus = bus
        self._report = report
        self._ask = ask
        self._seq = topic.seq = topic.forgotten = seq - 1
        self._held: list[Arrived] = []
        self._book: Book | None = None
        # All changes of the book after the number `_since`, while it is absent.
        self._changes: deque[tuple[int, BookDelta]] = deque()
        self._since = seq - 1
        self._newest: Event | None = None
        self._candle: Candle | None = None
        self._doubt = True
        if topic.channel == "book":
            topic.book = self.book

    @property
    def bookless(self) -> bool:
        """Whether it is a book that is absent."""
        return self.topic.book is not None and self._book is None

    def book(self) -> BookSnapshot | None:
        """Return the book at the newest number that readers have; None if there is none."""
        like = self._newest
        if self._book is None or not isinstance(like, BookSnapshot | BookDelta):
            return None
        return BookSnapshot(
            venue=like.venue,
            instrument=like.instrument,
            venue_time_ns=like.venue_time_ns,
            received_ns=like.received_ns,
            origin=like.origin,
            bids=self._book.bids.levels(),
            asks=self._book.asks.levels(),
            sequence=like.sequence,
        )

    def take(self, seq: int, event: Event, text: bytes | None) -> None:
        """Take a message with a number above `tip`."""
        self.tip = seq
        if self._held:
            self._hold(seq, event, text)
        elif seq <= self._seq + 1 or not self._jumped(seq, event, text):
            self._put(seq, event, text)

    def fill(self, hole: Hole, found: Sequence[Arrived], *, complete: bool) -> bool:
        """Take what was found of a hole; return False if a book is still absent.

        Args:
            complete: These are all the events that there were.
        """
        if self.topic.book is not None:
            return self._rebuild(found)
        if self.hole is not hole:
            return True
        # Where all events are there, what is between closed candles was open ones.
        tell = self._pass_over if complete and self.topic.channel in _STEPS_NS else self._lose
        for seq, event, text in found:
            if not self._seq < seq <= hole.last:
                continue
            if seq > self._seq + 1:
                tell(self._seq + 1, seq - 1, event)
            self._report.recovered += 1
            self._put(seq, event, text)
        held, self._held, self.hole = self._held, [], None
        if self._seq < hole.last:
            tell(self._seq + 1, hole.last, held[0][1])
            self._seq = hole.last
        for arrived in held:
            self.take(*arrived)
        return True

    # --- holes ----------------------------------------------------------------------------------------

    def _jumped(self, seq: int, event: Event, text: bytes | None) -> bool:
        """Tell of a jump of the numbers; return whether the message waits."""
        first, last = self._seq + 1, seq - 1
        self._report.gaps += 1
        self._doubt = True
        if self.topic.book is not None:
            if type(event) is BookSnapshot:
                self._pass_over(first, last, event)
            elif self._book is not None:
                self._lose_book(last, "the relay missed changes of the book", event)
            self._changes.clear()
            self._since = last
            return False
        if self.topic.channel in _STATE_CHANNELS or self._goes_on(event):
            self._report.conflated += seq - first
            self._pass_over(first, last, event)
            return False
        hole = Hole(self.topic.name, first, last)
        if self._ask(hole):
            self.hole = hole
            self._hold(seq, event, text)
            return True
        self._lose(first, last, event)
        return False

    def _goes_on(self, event: Event) -> bool:
        """Return whether a candle shows that no closed one was passed over."""
        before = self._candle
        if type(event) is not Candle or before is None:
            return False
        if before.closed:
            return event.start_ns == before.start_ns + _STEPS_NS.get(self.topic.channel, 0)
        return event.start_ns == before.start_ns

    def _hold(self, seq: int, event: Event, text: bytes | None) -> None:
        self._held.append((seq, event, text))
        if len(self._held) > MOST_HELD and self.hole is not None:
            self.fill(self.hole, (), complete=False)

    def _pass_over(self, first: int, last: int, event: Event) -> None:
        """Tell that newer state stands for older."""
        notice = conflated(self.topic.name, last + 1, last - first + 1)
        gap = self._gap("newer state took the place of older", 0, event)
        self._bus.jump(self.topic, Jump(notice, first, last, gap), keep=False)

    def _lose(self, first: int, last: int, event: Event) -> None:
        """Tell that events are lost."""
        # Of candles nobody knows how many were closed.
        count = last - first + 1
        missing = None if self.topic.channel.startswith("candle_") else count
        self._report.missing += count
        reason = "they did not reach this relay"
        notice = lost(self.topic.name, first, last, missing, reason=reason)
        jump = Jump(notice, first, last, self._gap(reason, missing, event))
        self._bus.jump(self.topic, jump, keep=True)

    def _gap(self, reason: str, missing: int | None, event: Event) -> Gap:
        return Gap(
            venue=self.topic.venue,
            instrument=self.topic.instrument,
            received_ns=event.received_ns,
            origin=Origin.DERIVED,
            topic_channel=self.topic.channel,
            from_ns=(self._newest or event).received_ns,
            to_ns=event.received_ns,
            reason=reason,
            missing=missing,
        )

    # --- books ----------------------------------------------------------------------------------------

    def _lose_book(self, last: int, reason: str, event: Event) -> None:
        """Let nobody believe the book before a whole one comes; tell that the numbers up to `last` are missing."""
        self._book = None
        self._changes.clear()
        self.topic.state = State.RESYNCING
        self.topic.status = None
        first = self.topic.seq + 1
        count = last - first + 1
        self._report.missing += count
        jump = Jump(
            lost(self.topic.name, first, last, count, reason=reason),
            first,
            last,
            self._gap(reason, count, event),
        )
        self._bus.jump(self.topic, jump, keep=True)

    def _bookless_delta(self, seq: int, event: BookDelta) -> None:
        """Keep a change for when the book it belongs to is fetched; readers can do nothing with it."""
        if self.hole is None:
            hole = Hole(self.topic.name, self._since + 1, seq)
            if self._ask(hole):
                self.hole = hole
        if self.hole is None:
            self._since = seq
            return
        self._changes.append((seq, event))
        if len(self._changes) > MOST_HELD:
            self._since = self._changes.popleft()[0]

    def _rebuild(self, found: Sequence[Arrived]) -> bool:
        """Make the book of one that was fetched and the changes since; return whether that is possible."""
        if self._book is not None:
            return True
        whole = next(((seq, event) for seq, event, _ in found if isinstance(event, BookSnapshot)), None)
        if whole is None or whole[0] < self._since:
            return False
        seq, newest = whole[0], whole[1]
        like: BookSnapshot | BookDelta = newest
        book = Book()
        try:
            book.load(newest.bids, newest.asks)
            for at, change in self._changes:
                if at > seq:
                    book.apply(change.bids, change.asks)
                    like = change
        except _BAD_LEVEL:
            self._report.unreadable += 1
            return False
        self._changes.clear()
        self._book, self._newest, self.hole = book, like, None
        self._report.recovered += 1
        self._seq = max(self._seq, seq)
        self.tip = max(self.tip, seq)
        snapshot = self.book()
        assert snapshot is not None, "it was just made"
        self._offer(Message(self.topic.name, self._seq, snapshot))
        return True

    # --- serving --------------------------------------------------------------------------------------

    def _put(self, seq: int, event: Event, text: bytes | None) -> None:
        kind = type(event)
        if kind is BookDelta or kind is BookSnapshot:
            if not self._apply(seq, event):  # type: ignore[arg-type]  # its class was just looked at
                self._seq = seq
                return
        elif kind is Candle:
            self._candle = event  # type: ignore[assignment]  # as above
        elif kind is Status and event.state in BOOK_GONE:  # type: ignore[attr-defined]  # as above
            self._book = None
            self._changes.clear()
            self._since = seq
        if kind is not Status and kind is not Gap:
            self._newest = event
        self._seq = seq
        self._offer(Message(self.topic.name, seq, event, None, text))

    def _apply(self, seq: int, event: BookSnapshot | BookDelta) -> bool:
        """Change the book; return whether readers can do anything with the message."""
        try:
            if type(event) is BookSnapshot:
                book = Book()
                book.load(event.bids, event.asks)
                self._book, self.hole = book, None
                self._changes.clear()
                return True
            if self._book is not None:
                self._book.apply(event.bids, event.asks)
                return True
        except _BAD_LEVEL:
            self._report.unreadable += 1
            self._lose_book(seq, "the relay could not read a change of the book", event)
            self._since = seq
            return False
        assert isinstance(event, BookDelta), "a snapshot makes the book"
        self._bookless_delta(seq, event)
        return False

    def _offer(self, message: Message) -> None:
        topic = self.topic
        if message.seq > topic.seq + 1:  # there was no book meanwhile
            self._pass_over(topic.seq + 1, message.seq - 1, message.event)
        kind = type(message.event)
        if kind is Status:
            self._doubt = False
        elif self._doubt and kind is not Gap:
            # What was said of the topic's state may be among what is missing; but data flows.
            topic.state = State.LIVE
            self._doubt = False
        self._bus.pass_on(topic, message)
