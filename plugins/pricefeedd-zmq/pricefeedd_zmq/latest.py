"""The present state of each topic, as it was sent: for those who subscribe later.

A book is kept as levels, because a subscriber that begins with a delta has nothing to apply it to. It is told with the
number of what was sent last, so that for those who read on it repeats what they have, and leaves no hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
import orjson

from pricefeedd.envelope import with_epoch
from pricefeedd.events import (
    BOOK_GONE,
    PRIVATE_CHANNELS,
    BookDelta,
    BookSnapshot,
    Gap,
    Level,
    State,
    Status,
)
from pricefeedd.hookspecs import Delivery


class _Topic:
    """One topic: what was sent last, the last data, and its status."""

    __slots__ = ("asks", "bids", "book", "data", "newest", "status")

    def __init__(self) -> None:
        self.newest: Delivery | None = None
        self.data: Delivery | None = None
        self.status: Delivery | None = None
        self.book: BookSnapshot | BookDelta | None = None
        # Found by number, because a venue may spell a price "1.0" now and "1.00" later.
        self.bids: dict[float, Level] = {}
        self.asks: dict[float, Level] = {}

    def take_book(self, event: BookSnapshot | BookDelta) -> None:
        if type(event) is BookSnapshot:
            self.bids = {float(level[0]): level for level in event.bids}
            self.asks = {float(level[0]): level for level in event.asks}
        elif self.book is None:
            return  # nothing that it could be applied to
        else:
            _apply(self.bids, event.bids)
            _apply(self.asks, event.asks)
        self.book = event


def _apply(side: dict[float, Level], levels: Iterable[Level]) -> None:
    for level in levels:
        price = float(level[0])
        if float(level[1]) == 0:
            side.pop(price, None)
        else:
            side[price] = level


def _sorted(side: dict[float, Level], *, falling: bool) -> list[Level]:
    return [side[price] for price in sorted(side, reverse=falling)]


class Latest:
    """The present state of all public topics."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def take(self, delivery: Delivery) -> None:
        """Note what was sent."""
        topic = self._topics.get(delivery.topic)
        if topic is None:
            if delivery.topic.partition(":")[0] in PRIVATE_CHANNELS:
                return
            topic = self._topics[delivery.topic] = _Topic()
        topic.newest = delivery
        event = delivery.event
        kind = type(event)
        if kind is BookDelta or kind is BookSnapshot:
            topic.take_book(event)  # type: ignore[arg-type]  # its class was just looked at
        elif kind is Status:
            topic.status = delivery
            if event.state in BOOK_GONE:  # type: ignore[attr-defined]  # see above
                topic.book = None
        elif kind is not Gap:
            topic.data = delivery

    def __iter__(self) -> Iterator[str]:
        return iter(self._topics)

    def texts(self, name: str, epoch: str) -> list[bytes]:
        """Return the messages that bring a new subscriber of a topic up to date; none if nothing was sent yet.

        That is the newest data or the book, the status unless live, and what was sent last, in the order of their
        numbers: the next message is the one after them.
        """
        topic = self._topics.get(name)
        if topic is None or topic.newest is None:
            return []
        texts = {}
        if topic.data is not None:
            texts[topic.data.seq] = with_epoch(topic.data, epoch)
        status = topic.status
        if status is not None and status.event.state is not State.LIVE:  # type: ignore[attr-defined]  # a Status
            texts[status.seq] = with_epoch(status, epoch)
        if topic.book is not None:
            book = _Book(topic=name, seq=topic.newest.seq, text=_book_text(name, topic.newest.seq, topic))
            texts[book.seq] = with_epoch(book, epoch)
        elif type(topic.newest.event) is not BookDelta:
            texts[topic.newest.seq] = with_epoch(topic.newest, epoch)
        return [texts[seq] for seq in sorted(texts)]


@attrs.frozen(kw_only=True)
class _Book:
    """A book as a message."""

    topic: str
    seq: int
    text: bytes


def _book_text(name: str, seq: int, topic: _Topic) -> bytes:
    event = topic.book
    assert event is not None, "asked before"
    return orjson.dumps(
        {
            "type": "book",
            "topic": name,
            "seq": seq,
            "ts_event": None if event.venue_time_ns is None else event.venue_time_ns // 1000,
            "ts_recv": event.received_ns // 1000,
            "origin": event.origin,
            "data": {
                "kind": "snapshot",
                "bids": _sorted(topic.bids, falling=True),
                "asks": _sorted(topic.asks, falling=False),
                "venue_sequence": event.sequence,
            },
        }
    )
