"""Topic to readers: sequence numbers, the latest value, and who reads what.

Dispatch is a plain call into mailboxes; at the end of each batch every mailbox that got something is
flushed once, so that a reader's messages leave in one send.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from pricefeedd.events import PRIVATE_CHANNELS, BookSnapshot, Event, Gap, State, Status, topic_channel
from pricefeedd.mailbox import LANES, Lane, Mailbox, Message, lane_of

_BOOK = Lane.BOOK
#: Channel and lane of the events whose class decides both: one look-up for the hot path.
_PLAIN = {kind: (kind.channel, lane) for kind, lane in LANES.items()}


class Reader(Protocol):
    """One subscriber: a mailbox, and what empties it."""

    @property
    def mailbox(self) -> Mailbox: ...

    def flush(self) -> None:
        """Send what is in the mailbox, or begin to; never waits and never raises."""
        ...


class Topic:
    """One stream of numbered messages.

    Attributes:
        seq: Number of the newest message; 0 before the first.
        last: The newest data message (for books: None, see `book`).
        newest: The newest message of any kind.
        status: The newest status message.
        state: What may be believed of the topic now.
        count: Data messages so far.
        book: Returns the present book; None for other channels, and while there is no book.
        readers: The mailboxes joined to it, in the order they came (a dict, so that leaving is quick).
    """

    __slots__ = (
        "book",
        "channel",
        "count",
        "instrument",
        "last",
        "name",
        "newest",
        "readers",
        "seq",
        "state",
        "status",
        "venue",
    )

    def __init__(self, channel: str, venue: str, instrument: str) -> None:
        self.name = f"{channel}:{venue}:{instrument}"
        self.channel = channel
        self.venue = venue
        self.instrument = instrument
        self.seq = 0
        self.last: Message | None = None
        self.newest: Message | None = None
        self.status: Message | None = None
        self.state = State.CONNECTING
        self.count = 0
        self.readers: dict[Mailbox, None] = {}
        self.book: Callable[[], BookSnapshot | None] | None = None


class Pattern:
    """A topic name in which each part may be `*`. Account channels never match a `*`."""

    __slots__ = ("channel", "instrument", "text", "venue")

    def __init__(self, text: str) -> None:
        """Parse `channel:venue:instrument`.

        Raises:
            ValueError: There are not three parts, or one is empty.
        """
        parts = text.split(":", 2)
        if len(parts) != 3 or not all(parts):
            raise ValueError(
                f"a topic is channel:venue:instrument, such as trade:binance:BTC-USDT; got {text!r}"
            )
        self.text = text
        self.channel, self.venue, self.instrument = parts

    @property
    def exact(self) -> bool:
        """Whether it names one topic."""
        return "*" not in (self.channel, self.venue, self.instrument)

    def matches(self, topic: Topic) -> bool:
        """Return whether the topic is meant."""
        if self.channel != topic.channel and (self.channel != "*" or topic.channel in PRIVATE_CHANNELS):
            return False
        return self.venue in ("*", topic.venue) and self.instrument in ("*", topic.instrument)


class Bus:
    """All topics, and their readers.

    Attributes:
        epoch: One life of all streams: `seq` counts only within it.
        published: Messages so far.
        changes: Counts up when a topic is made or dropped.
    """

    def __init__(self, epoch: str | None = None) -> None:
        self.epoch = epoch or secrets.token_hex(6)
        self.published = 0
        self.changes = 0
        self._topics: dict[tuple[str, str, str], Topic] = {}
        self._by_name: dict[str, Topic] = {}
        self._flushers: dict[Mailbox, Callable[[], None]] = {}
        self._patterns: dict[Mailbox, dict[str, Pattern]] = {}
        # Who waits for a topic by its full name, and who by a pattern: a new topic asks only these.
        self._exact: dict[str, dict[Mailbox, None]] = {}
        self._wild: dict[Mailbox, dict[str, Pattern]] = {}
        self._dirty: list[Mailbox] = []

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Topic | None:
        """Return a topic by its full name; None if nothing serves it."""
        return self._by_name.get(name)

    def topic(self, channel: str, venue: str, instrument: str) -> Topic:
        """Return the topic, made now if it is new. Readers whose pattern fits are joined to it."""
        key = (channel, venue, instrument)
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(channel, venue, instrument)
            self._by_name[topic.name] = topic
            self.changes += 1
            topic.readers.update(self._exact.get(topic.name, {}))
            for mailbox, patterns in self._wild.items():
                if any(pattern.matches(topic) for pattern in patterns.values()):
                    topic.readers[mailbox] = None
        return topic

    def drop(self, topic: Topic) -> None:
        """Forget a topic that is served no longer; its readers hear nothing more of it."""
        self._topics.pop((topic.channel, topic.venue, topic.instrument), None)
        self._by_name.pop(topic.name, None)
        self.changes += 1

    # --- publishing -----------------------------------------------------------------------------------

    def publish(self, events: Iterable[Event]) -> None:
        """Number the events, remember the newest, offer them to all readers, and flush once at the end."""
        topics = self._topics
        for event in events:
            plain = _PLAIN.get(type(event))
            channel, lane = plain or (topic_channel(event), lane_of(event))
            key = (channel, event.venue, event.instrument)
            topic = topics.get(key) or self.topic(*key)
            topic.seq = seq = topic.seq + 1
            topic.newest = message = Message(topic.name, seq, event, lane)
            if type(event) is Status:
                topic.status = message
                topic.state = event.state
            else:
                topic.count += 1
                if lane is not _BOOK and type(event) is not Gap:
                    topic.last = message
            for mailbox in topic.readers:
                mailbox.offer(message)
            self.published += 1
        self.flush()

    def flush(self) -> None:
        """Flush every mailbox that got something since the last time."""
        dirty, self._dirty = self._dirty, []
        for mailbox in dirty:
            flusher = self._flushers.get(mailbox)
            if flusher is not None:
                flusher()

    # --- reading --------------------------------------------------------------------------------------

    def mailbox(self, *, limit_bytes: int, flush: Callable[[], None]) -> Mailbox:
        """Return a new mailbox whose `flush` is called after each batch that put something into it."""
        mailbox = Mailbox(limit_bytes=limit_bytes, snapshot=self.book, on_fresh=self._dirty_append)
        self._flushers[mailbox] = flush
        return mailbox

    def _dirty_append(self, mailbox: Mailbox) -> None:
        self._dirty.append(mailbox)

    def match(self, pattern: Pattern) -> list[Topic]:
        """Return the topics that a pattern means now."""
        if pattern.exact:
            topic = self._by_name.get(pattern.text)
            return [topic] if topic is not None else []
        return [topic for topic in self._by_name.values() if pattern.matches(topic)]

    def subscribe(self, mailbox: Mailbox, pattern: Pattern) -> list[Topic]:
        """Join the mailbox to all topics of the pattern, now and in future; return those new to it."""
        self._patterns.setdefault(mailbox, {})[pattern.text] = pattern
        if pattern.exact:
            self._exact.setdefault(pattern.text, {})[mailbox] = None
        else:
            self._wild.setdefault(mailbox, {})[pattern.text] = pattern
        joined = [topic for topic in self.match(pattern) if mailbox not in topic.readers]
        for topic in joined:
            topic.readers[mailbox] = None
        return joined

    def unsubscribe(self, mailbox: Mailbox, pattern: Pattern) -> list[Topic]:
        """Part the mailbox from the topics that no other pattern of it means; return those."""
        patterns = self._patterns.get(mailbox, {})
        if patterns.pop(pattern.text, None) is None:
            return []
        self._forget_pattern(mailbox, pattern)
        wild = self._wild.get(mailbox, {}).values()
        parted = []
        for topic in self.match(pattern):
            if (
                mailbox in topic.readers
                and topic.name not in patterns
                and not any(other.matches(topic) for other in wild)
            ):
                del topic.readers[mailbox]
                parted.append(topic)
        mailbox.forget(*(topic.name for topic in parted))
        return parted

    def _forget_pattern(self, mailbox: Mailbox, pattern: Pattern) -> None:
        if pattern.exact:
            waiting = self._exact.get(pattern.text, {})
            waiting.pop(mailbox, None)
            if not waiting:
                self._exact.pop(pattern.text, None)
        else:
            wild = self._wild.get(mailbox, {})
            wild.pop(pattern.text, None)
            if not wild:
                self._wild.pop(mailbox, None)

    def leave(self, mailbox: Mailbox) -> None:
        """Forget a mailbox altogether."""
        self._flushers.pop(mailbox, None)
        for pattern in self._patterns.pop(mailbox, {}).values():
            for topic in self.match(pattern):
                topic.readers.pop(mailbox, None)
            self._forget_pattern(mailbox, pattern)

    def book(self, name: str) -> Message | None:
        """Return the present book of a topic as a snapshot that stands at the topic's `seq`; None without one."""
        topic = self._by_name.get(name)
        if topic is None or topic.book is None:
            return None
        snapshot = topic.book()
        return None if snapshot is None else Message(topic.name, topic.seq, snapshot)

    def latest(self, topic: Topic) -> list[Message]:
        """Return what a new reader must see first, in the stream's own order.

        That is the newest data or the book, the status unless live, and whatever else came last: the reader
        then stands at the topic's `seq`, and the next message is the one after it.
        """
        data = self.book(topic.name) if topic.book is not None else topic.last
        first = [] if data is None else [data]
        if topic.status is not None and topic.state is not State.LIVE:
            first.append(topic.status)
        newest = topic.newest
        behind = newest is not None and (data is None or newest.seq > data.seq)
        if newest is not None and behind and newest.lane is not Lane.BOOK and newest not in first:
            first.append(newest)
        return sorted(first, key=lambda message: message.seq)
