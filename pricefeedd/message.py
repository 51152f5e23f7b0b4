"""What readers are sent: events with topic and number, encoded and framed once for all of them, and notices."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import orjson

from pricefeedd import wire
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Price,
    Quote,
    Ticker,
    Trade,
)


class Lane(IntEnum):
    """How a message waits for a reader that lags."""

    EVENT = 0
    STATE = 1
    BOOK = 2


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
        return Lane.EVENT if event.closed else Lane.STATE
    return LANES.get(type(event), Lane.EVENT)


class Message:
    """One event with its topic and number, encoded once and framed once for all its readers.

    Attributes:
        lane: How it waits; looked up unless the maker knows it.
        previous: The `seq` that its readers had before, where numbers are passed over on purpose (`views`).
        view: The view that it belongs to; None if it is of the topic itself.
        span: How many numbers it stands for.
    """

    __slots__ = ("_frame", "_others", "_text", "event", "lane", "seq", "topic")

    previous: int | None = None
    view: Owing | None = None
    span: int = 1

    def __init__(
        self, topic: str, seq: int, event: Event, lane: Lane | None = None, text: bytes | None = None
    ) -> None:
        self.topic = topic
        self.seq = seq
        self.event = event
        self.lane = lane_of(event) if lane is None else lane
        self._text = text
        self._frame: bytes | None = None
        self._others: dict[tuple[wire.Form, bool], bytes] | None = None

    def __repr__(self) -> str:
        return f"<Message {self.topic} #{self.seq} {self.event!r}>"

    @property
    def text(self) -> bytes:
        """The message as JSON."""
        text = self._text
        if text is None:
            text = self._text = wire.encode(self.topic, self.seq, self.event, self.previous)
        return text

    @property
    def frame(self) -> bytes:
        """The message as one WebSocket text frame."""
        frame = self._frame
        if frame is None:
            frame = self._frame = wire.frame(self.text)
        return frame

    def text_in(self, form: wire.Form) -> bytes:
        """Return the text for readers of a form; empty if they are not to have it."""
        if form.encode is wire.encode:
            return self.text
        return self._in((form, False), lambda: form.encode(self.topic, self.seq, self.event, self.previous))

    def frame_in(self, form: wire.Form) -> bytes:
        """Return the frame for readers of a form; empty if they are not to have it."""
        if form is wire.NATIVE:
            return self.frame
        return self._in((form, True), lambda: form.frame(text) if (text := self.text_in(form)) else b"")

    def _in(self, key: tuple[wire.Form, bool], make: Callable[[], bytes]) -> bytes:
        others = self._others
        if others is None:
            others = self._others = {}
        made = others.get(key)
        if made is None:
            made = others[key] = make()
        return made


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

    def text_in(self, form: wire.Form) -> bytes:
        """Return the text for a reader of a form; empty if it is not to have it."""
        return self.text if form.notices else b""

    def frame_in(self, form: wire.Form) -> bytes:
        """Return the frame for a reader of a form; empty if it is not to have it."""
        return form.frame(self.text) if form.notices else b""


def conflated(topic: str, seq: int, dropped: int) -> Notice:
    """Return the notice that newer state took the place of older.

    Args:
        seq: Number of what comes next.
        dropped: How many messages are passed over.
    """
    text = orjson.dumps({"type": "conflated", "topic": topic, "seq": seq, "data": {"dropped": dropped}})
    return Notice(topic, seq, text)


def lost(
    topic: str,
    first: int,
    last: int | None,
    missing: int | None,
    *,
    seq: int | None = None,
    reason: str = "slow reader",
) -> Notice:
    """Return the notice that a reader lost events.

    Args:
        first: The first number that it lost.
        last: The last one; None if nobody can know.
        missing: How many events are lost; None if nobody can know.
        seq: Where the topic stands after that; `last` by default.
    """
    at = seq if seq is not None else last or 0
    data = {"reason": reason, "from_seq": first, "to_seq": last, "recovered": 0, "missing": missing}
    text = orjson.dumps({"type": "gap", "topic": topic, "seq": at, "data": data})
    return Notice(topic, at, text, lost=missing or 0)


class Jump(Message):
    """Numbers of a topic that this daemon does not have: it stands in the stream in their place, for all readers.

    It is told as a notice is, for nothing may be said under a number that is another's.

    Attributes:
        event: The same in words, for those who look at events; nothing is `missing` where newer state replaces older.
        previous: The number before the first.
        span: How many numbers it stands for.
    """

    __slots__ = ("previous", "span")

    event: Gap

    def __init__(self, notice: Notice, first: int, last: int, event: Gap) -> None:
        super().__init__(notice.topic, last, event, Lane.EVENT, notice.text)
        self.previous = first - 1
        self.span = last - first + 1

    def text_in(self, form: wire.Form) -> bytes:
        """Return the text for readers of a form; empty if they are not to have it."""
        return self.text if form.notices else b""

    def frame_in(self, form: wire.Form) -> bytes:
        """Return the frame for readers of a form; empty if they are not to have it."""
        if form is wire.NATIVE:
            return self.frame
        return self._in((form, True), lambda: form.frame(self.text) if form.notices else b"")


class Owing(Protocol):
    """What can tell its present state."""

    def snapshot(self) -> Message | None:
        """Return the book as readers have it; None if there is none."""
        ...
