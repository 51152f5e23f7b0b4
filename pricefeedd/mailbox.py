"""A reader's mailbox: what waits for it, in two lanes.

State (quote, ticker, price, the running candle) keeps only the newest of each topic while the reader lags;
events (trade, closed candle, status, ...) wait in order up to a bound. Both lanes share one order of arrival,
so that what a status says about a topic never moves to the other side of that topic's data. Books wait as
deltas up to a bound of their own and then restart with a snapshot.

While the reader keeps up nothing is replaced: messages lie in a plain list until the end of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import orjson

from pricefeedd import wire
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Liquidation, Price, Quote, Ticker, Trade


class Lane(IntEnum):
    """How a message waits for a reader that lags."""

    EVENT = 0
    STATE = 1
    BOOK = 2


#: Names of this module: looking a member up on its enum costs as much as the rest of `offer`.
_EVENT, _STATE, _BOOK = Lane.EVENT, Lane.STATE, Lane.BOOK

#: Lanes of the events whose class decides it and whose channel is their class's.
LANES: dict[type[Event], Lane] = {
    Trade: Lane.EVENT,
    Liquidation: Lane.EVENT,
    Quote: Lane.STATE,
    Ticker: Lane.STATE,
    Price: Lane.STATE,
    BookSnapshot: Lane.BOOK,
    BookDelta: Lane.BOOK,
}


def lane_of(event: Event) -> Lane:
    """Return the lane of an event; a candle is state until it is closed."""
    if type(event) is Candle:
        return _EVENT if event.closed else _STATE
    return LANES.get(type(event), _EVENT)


class Message:
    """One event with its topic and number, encoded once and framed once for all its readers.

    Attributes:
        lane: How it waits; looked up unless the maker knows it.
    """

    __slots__ = ("_frame", "_text", "event", "lane", "seq", "topic")

    def __init__(self, topic: str, seq: int, event: Event, lane: Lane | None = None) -> None:
        self.topic = topic
        self.seq = seq
        self.event = event
        self.lane = lane_of(event) if lane is None else lane
        self._text: bytes | None = None
        self._frame: bytes | None = None

    def __repr__(self) -> str:
        return f"<Message {self.topic} #{self.seq} {self.event!r}>"

    @property
    def text(self) -> bytes:
        """The message as JSON."""
        text = self._text
        if text is None:
            text = self._text = wire.encode(self.topic, self.seq, self.event)
        return text

    @property
    def frame(self) -> bytes:
        """The message as one WebSocket text frame."""
        frame = self._frame
        if frame is None:
            frame = self._frame = wire.frame(self.text)
        return frame


class Notice:
    """Something that concerns one reader alone: it lagged, or lost events.

    Attributes:
        lost: Events lost; 0 where state was only conflated.
    """

    __slots__ = ("lost", "seq", "text", "topic")

    def __init__(self, topic: str, seq: int, text: bytes, *, lost: int = 0) -> None:
        self.topic = topic
        self.seq = seq
        self.text = text
        self.lost = lost

    @property
    def frame(self) -> bytes:
        """The notice as one WebSocket text frame."""
        return wire.frame(self.text)


def _conflated(topic: str, seq: int, dropped: int) -> Notice:
    text = orjson.dumps({"type": "conflated", "topic": topic, "seq": seq, "data": {"dropped": dropped}})
    return Notice(topic, seq, text)


def _lost(topic: str, first: int, last: int, count: int) -> Notice:
    data = {"reason": "slow reader", "from_seq": first, "to_seq": last, "recovered": 0, "missing": count}
    return Notice(
        topic, last, orjson.dumps({"type": "gap", "topic": topic, "seq": last, "data": data}), lost=count
    )


class Mailbox:
    """What waits for one reader.

    Attributes:
        fresh: Messages of the batch now being published; empty between batches.
        lagging: The reader has not taken what it was given before; from here on the lanes apply.
        conflated: Messages replaced by newer ones, since the beginning.
        lost: Events dropped, since the beginning.
        waiting_bytes: Bytes that wait in both lanes.
    """

    def __init__(
        self,
        *,
        limit_bytes: int,
        snapshot: Callable[[str], Message | None],
        on_fresh: Callable[[Mailbox], None],
    ) -> None:
        """Make an empty mailbox.

        Args:
            limit_bytes: Bound of the event lane. Books may take an eighth of it before they conflate.
            snapshot: Returns the present book of a topic; called when one is owed.
            on_fresh: Called when the first message of a batch lies in `fresh`.
        """
        self.fresh: list[Message] = []
        self.lagging = False
        self.conflated = 0
        self.lost = 0
        self._limit = limit_bytes
        self._book_limit = limit_bytes // 8
        self._snapshot = snapshot
        self._on_fresh = on_fresh
        self._waiting: dict[object, Message] = {}
        self._event_bytes = 0
        self._book_bytes = 0
        self._replaced: dict[str, int] = {}
        self._dropped: dict[str, tuple[int, int, int]] = {}
        self._owed: dict[str, int] = {}

    @property
    def waiting_bytes(self) -> int:
        """Bytes of events and books that wait; state is bounded by the number of topics."""
        return self._event_bytes + self._book_bytes

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.fresh or self._waiting or self._owed or self._dropped)

    def offer(self, message: Message) -> None:
        """Hand the message over now; never waits."""
        if self.lagging:
            self._keep(message)
        else:
            if not self.fresh:
                self._on_fresh(self)
            self.fresh.append(message)

    def lag(self) -> None:
        """Note that the reader did not take everything: what is fresh waits in the lanes from now on."""
        self.lagging = True
        fresh, self.fresh = self.fresh, []
        for message in fresh:
            self._keep(message)

    def take(self) -> list[Message | Notice]:
        """Return all that waits, in order of arrival, with notices of what was lost or replaced."""
        fresh = self.fresh
        if not self.lagging:
            self.fresh = []
            return fresh  # type: ignore[return-value]  # a list of Message read as one of Message | Notice
        out: list[Message | Notice] = []
        out += [_lost(topic, *lost) for topic, lost in self._dropped.items()]
        for message in self._waiting.values():
            topic = message.topic
            if message.lane is _STATE and topic in self._replaced:
                out.append(_conflated(topic, message.seq, self._replaced.pop(topic)))
            out.append(message)
        for topic, dropped in self._owed.items():
            book = self._snapshot(topic)
            if book is not None:
                out.append(_conflated(topic, book.seq, dropped))
                out.append(book)
        self._waiting = {}
        self._dropped = {}
        self._replaced = {}
        self._owed = {}
        self._event_bytes = self._book_bytes = 0
        return out

    def forget(self, *topics: str) -> None:
        """Drop what waits for the topics: the reader unsubscribed them."""
        gone = set(topics)
        if self.fresh:
            self.fresh = [m for m in self.fresh if m.topic not in gone]
        for message in [m for m in self._waiting.values() if m.topic in gone]:
            self._remove(message)
        for topic in topics:
            self._replaced.pop(topic, None)
            self._dropped.pop(topic, None)
            self._owed.pop(topic, None)

    def _keep(self, message: Message) -> None:
        lane = message.lane
        if lane is _STATE:
            if self._waiting.pop(message.topic, None) is not None:
                self._replaced[message.topic] = self._replaced.get(message.topic, 0) + 1
                self.conflated += 1
            self._waiting[message.topic] = message
        elif lane is _EVENT:
            self._waiting[message] = message
            self._event_bytes += len(message.text)
            if self._event_bytes > self._limit:
                self._drop_oldest_events()
        else:
            self._keep_book(message)

    def _keep_book(self, message: Message) -> None:
        topic = message.topic
        if topic in self._owed:
            self._owed[topic] += 1
            self.conflated += 1
            return
        self._waiting[message] = message
        self._book_bytes += len(message.text)
        if self._book_bytes > self._book_limit:
            queued = [m for m in self._waiting.values() if m.lane is _BOOK and m.topic == topic]
            for stale in queued:
                self._remove(stale)
            self._owed[topic] = len(queued)
            self.conflated += len(queued)

    def _drop_oldest_events(self) -> None:
        for message in list(self._waiting.values()):
            if self._event_bytes <= self._limit:
                return
            if message.lane is _EVENT:
                self._remove(message)
                first, _, count = self._dropped.get(message.topic, (message.seq, 0, 0))
                self._dropped[message.topic] = (first, message.seq, count + 1)
                self.lost += 1

    def _remove(self, message: Message) -> None:
        if message.lane is _STATE:
            del self._waiting[message.topic]
            return
        del self._waiting[message]
        if message.lane is _EVENT:
            self._event_bytes -= len(message.text)
        else:
            self._book_bytes -= len(message.text)
