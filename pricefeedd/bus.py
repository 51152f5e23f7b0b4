"""Topic to readers: sequence numbers, the latest value, and who reads what.

Dispatch is a plain call into mailboxes; at the end of each batch every mailbox that got something is
flushed once, so that a reader's messages leave in one send.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

import attrs

from pricefeedd.events import (
    AccountEvent,
    Event,
    Gap,
    State,
    Status,
    topic_channel,
)
from pricefeedd.leader.lease import Lease
from pricefeedd.mailbox import Mailbox
from pricefeedd.message import LANES, Lane, Message, Notice, conflated, lane_of, lost
from pricefeedd.topic import Pattern, Topic, Upstream
from pricefeedd.views import PLAIN, Options, Pacer

#: Events of each channel that are kept for readers that were away: some 20 MB when full.
HISTORY = 20_000

_BOOK, _EVENT = Lane.BOOK, Lane.EVENT
#: Channel and lane of the events whose class decides both: one look-up for the hot path.
_PLAIN = {kind: (kind.channel, lane) for kind, lane in LANES.items()}


@attrs.frozen
class Subscription:
    """What a mailbox asked for."""

    pattern: Pattern
    options: Options


class Bus:
    """All topics, and their readers.

    Attributes:
        epoch: One life of all streams: `seq` counts only within it.
        published: Messages so far.
        sent: Frames that went straight to a socket so far.
        handed: Counts up whenever something was handed to readers.
        changes: Counts up when a topic is made or dropped.
        pacer: Does what is due later; somebody must run it where readers have options.
        upstream: How the daemon is whose numbers these are; None where they are our own.
        lease: When it is over nothing is published any more: another daemon may lead.
    """

    upstream: Upstream | None = None

    def __init__(
        self, epoch: str | None = None, *, history: int = HISTORY, lease: Lease | None = None
    ) -> None:
        """Make a bus without topics.

        Args:
            history: Events of each channel that are kept for readers that were away, all topics together.
            lease: Of a daemon that shares its venues with others; by default one that never ends.
        """
        self.epoch = secrets.token_hex(6) if epoch is None else epoch
        self.lease = lease or Lease()
        self.published = 0
        self.sent = 0
        self.handed = 0
        self.changes = 0
        self.pacer = Pacer()
        self._topics: dict[tuple[str, str, str], Topic] = {}
        self._by_name: dict[str, Topic] = {}
        self._subscriptions: dict[Mailbox, dict[str, Subscription]] = {}
        # Who waits for a topic by its full name, and who by a pattern: a new topic asks only these.
        self._exact: dict[str, dict[Mailbox, Options]] = {}
        self._wild: dict[Mailbox, dict[str, Subscription]] = {}
        self._dirty: list[Mailbox] = []
        self._listeners: dict[type[Event], list[Callable[[Message], None]]] = {}
        self._history = history
        # For each channel the topics of the events kept, oldest first: the same event stands first in its topic.
        self._kept: dict[str, deque[Topic]] = {}
        self._ended: dict[str, int] = {}

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Topic | None:
        """Return a topic by its full name; None if nothing serves it."""
        return self._by_name.get(name)

    def state(self, topic: Topic) -> State:
        """Return what may be believed of a topic now."""
        return topic.state

    def topic(self, channel: str, venue: str, instrument: str) -> Topic:
        """Return the topic, made now if it is new. Readers whose pattern fits are joined to it.

        A topic that was dropped before goes on where its numbers ended.
        """
        key = (channel, venue, instrument)
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(channel, venue, instrument, self.pacer)
            topic.seq = topic.forgotten = self._ended.pop(topic.name, 0)
            self._by_name[topic.name] = topic
            self.changes += 1
            for mailbox, held in self._wild.items():
                for wild in held.values():
                    if wild.pattern.matches(topic):
                        topic.join(mailbox, wild.options)
            for mailbox, options in self._exact.get(topic.name, {}).items():
                topic.join(mailbox, options)
        return topic

    def drop(self, topic: Topic) -> None:
        """Forget a topic that is served no longer; its readers hear nothing more of it."""
        self._topics.pop((topic.channel, topic.venue, topic.instrument), None)
        if self._by_name.pop(topic.name, None) is not None:
            self._ended[topic.name] = topic.seq
            self.changes += 1

    def begin(self, epoch: str) -> None:
        """Forget all topics: another life of the streams begins. Who reads must connect anew."""
        self.epoch = epoch
        for topic in self._by_name.values():
            topic.book = None
        self._topics.clear()
        self._by_name.clear()
        self._kept.clear()
        self._ended.clear()
        self.changes += 1

    def listen(self, kind: type[Event], hear: Callable[[Message], None]) -> None:
        """Have each event of a rare kind heard, whatever its topic: candles, gaps, or what accounts are told.

        Args:
            hear: Called within `publish`, so it neither waits nor raises.
        """
        assert kind not in _PLAIN, "it would cost too much to ask for each of these"
        self._listeners.setdefault(kind, []).append(hear)

    # --- publishing -----------------------------------------------------------------------------------

    def publish(self, events: Iterable[Event], *, flush: bool = True) -> None:
        """Number the events, remember the newest, offer them to all readers, and flush once at the end.

        Args:
            flush: False leaves that to the caller, who has more at hand: a reader's frames then leave in one send.
        """
        if monotonic() >= self.lease.until:
            return  # a process that was frozen finds out here, before anybody told it
        topics = self._topics
        if type(events) is not list:
            events = list(events)
        dirty = self._dirty
        # Nothing lies in any mailbox then, and what is sent at once overtakes nothing.
        alone = flush and len(events) == 1 and not dirty
        for event in events:
            kind = type(event)
            plain = _PLAIN.get(kind)
            channel, lane = plain or (topic_channel(event), lane_of(event))
            # An account's topic is named after the account: it may trade many instruments.
            third = event.account if type(event) is AccountEvent else event.instrument
            key = (channel, event.venue, third)
            topic = topics.get(key) or self.topic(*key)
            topic.seq = seq = topic.seq + 1
            topic.newest = message = Message(topic.name, seq, event, lane)
            if kind is Status:
                topic.status = message
                topic.state = event.state  # type: ignore[union-attr]  # its class was just looked at
            else:
                topic.count += 1
                if lane is not _BOOK and kind is not Gap:
                    topic.last = message
            if lane is _EVENT:
                self._keep(topic, message)
            if plain is None:
                for hear in self._listeners.get(kind, ()):
                    hear(message)
            if alone and topic.readers:
                self._send_alone(topic, message)
                readers: Iterable[Mailbox] = ()
            else:
                readers = topic.readers
            # `Mailbox.offer`, written out: the call would cost as much as what it does.
            for mailbox in readers:
                if mailbox.lagging:
                    mailbox.keep(message)
                else:
                    fresh = mailbox.fresh
                    if not fresh:
                        dirty.append(mailbox)
                    fresh.append(message)
            if topic.views:
                topic.views.take(message)
            self.published += 1
        if flush and dirty:
            self.flush()

    def _send_alone(self, topic: Topic, message: Message) -> None:
        """Send one message to all readers of a topic, without the detour over their mailboxes where that can be."""
        frame = b""  # not made for nobody: readers may all want it otherwise
        size = count = 0
        for mailbox in topic.readers:
            send = mailbox.direct
            if send is None:
                mailbox.offer(message)
                continue
            if not count:
                frame = message.frame
                size = len(frame)
            count += 1
            try:
                sent = send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = -1
            if sent != size:
                mailbox.rest(frame, sent)
        self.sent += count
        self.handed += 1

    def flush(self) -> None:
        """Flush every mailbox that got something since the last time."""
        dirty = self._dirty.copy()
        self._dirty.clear()
        if dirty:
            self.handed += 1
        joined: list[Message] = []
        data = b""
        for mailbox in dirty:
            send = mailbox.direct
            if send is None:
                mailbox.flush()
                continue
            fresh = mailbox.fresh
            if fresh != joined:  # else the reader before had the same messages
                joined = fresh.copy()
                data = fresh[0].frame if len(fresh) == 1 else b"".join([message.frame for message in fresh])
            fresh.clear()
            self.sent += len(joined)
            try:
                sent = send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = -1
            if sent != len(data):
                mailbox.rest(data, sent)

    def _keep(self, topic: Topic, message: Message) -> None:
        """Keep an event for readers that are away, and forget the oldest of its channel."""
        topic.history.append(message)
        kept = self._kept.get(topic.channel)
        if kept is None:
            kept = self._kept[topic.channel] = deque()
        kept.append(topic)
        if len(kept) > self._history:
            oldest = kept.popleft()
            oldest.forgotten = oldest.history.popleft().seq

    # --- reading --------------------------------------------------------------------------------------

    def mailbox(self, *, limit_bytes: int, flush: Callable[[], None], conflates: bool = True) -> Mailbox:
        """Return a new mailbox whose `flush` is called after each batch that put something into it."""
        return Mailbox(
            limit_bytes=limit_bytes, snapshot=self.book, flush=flush, dirty=self._dirty, conflates=conflates
        )

    def match(self, pattern: Pattern) -> list[Topic]:
        """Return the topics that a pattern means now."""
        if pattern.exact:
            topic = self._by_name.get(pattern.text)
            return [topic] if topic is not None else []
        return [topic for topic in self._by_name.values() if pattern.matches(topic)]

    def subscribe(self, mailbox: Mailbox, pattern: Pattern, options: Options = PLAIN) -> list[Topic]:
        """Join the mailbox to all topics of the pattern, now and in future; return those new to it.

        A topic that it reads already has the new options from here on, and counts as new if they differ.
        """
        asked = Subscription(pattern, options)
        self._subscriptions.setdefault(mailbox, {})[pattern.text] = asked
        if pattern.exact:
            self._exact.setdefault(pattern.text, {})[mailbox] = options
        else:
            self._wild.setdefault(mailbox, {})[pattern.text] = asked
        meant = self.match(pattern)
        known = [topic for topic in meant if topic.has(mailbox)]
        joined = [topic for topic in meant if topic.join(mailbox, options)]
        if known:
            mailbox.forget(*(topic.name for topic in known if topic in joined))
        return joined

    def unsubscribe(self, mailbox: Mailbox, pattern: Pattern) -> list[Topic]:
        """Part the mailbox from the topics that no other pattern of it means; return those."""
        held = self._subscriptions.get(mailbox, {})
        if held.pop(pattern.text, None) is None:
            return []
        self._forget(mailbox, pattern)
        wild = self._wild.get(mailbox, {}).values()
        parted = [
            topic
            for topic in self.match(pattern)
            if topic.name not in held
            and not any(other.pattern.matches(topic) for other in wild)
            and topic.part(mailbox)
        ]
        mailbox.forget(*(topic.name for topic in parted))
        return parted

    def _forget(self, mailbox: Mailbox, pattern: Pattern) -> None:
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
        mailbox.flush = _nothing
        for held in self._subscriptions.pop(mailbox, {}).values():
            for topic in self.match(held.pattern):
                topic.part(mailbox)
            self._forget(mailbox, held.pattern)

    def book(self, name: str) -> Message | None:
        """Return the present book of a topic as a snapshot that stands at the topic's `seq`; None without one."""
        topic = self._by_name.get(name)
        if topic is None or topic.book is None:
            return None
        snapshot = topic.book()
        return None if snapshot is None else Message(topic.name, topic.seq, snapshot)

    def _state(self, topic: Topic, mailbox: Mailbox | None) -> Message | None:
        """Return the newest data of a topic, or its book, as a mailbox reads it."""
        if topic.book is None:
            return topic.last
        view = topic.views.of(mailbox) if mailbox is not None and topic.views else None
        if view is not None and view.options.depth:
            return view.snapshot()
        return self.book(topic.name)

    def latest(self, topic: Topic, mailbox: Mailbox | None = None) -> list[Message]:
        """Return what a new reader must see first, in the stream's own order.

        That is the newest data or the book, the status unless live, and whatever else came last: the reader
        then stands at the topic's `seq`, and the next message is the one after it.

        Args:
            mailbox: The reader's; where it has options, they apply.
        """
        data = self._state(topic, mailbox)
        first = [] if data is None else [data]
        if topic.status is not None and topic.state is not State.LIVE:
            first.append(topic.status)
        newest = topic.newest
        behind = newest is not None and (data is None or newest.seq > data.seq)
        if newest is not None and behind and newest.lane is not Lane.BOOK and newest not in first:
            first.append(newest)
        return sorted(first, key=lambda message: message.seq)

    def since(
        self, topic: Topic, seq: int, mailbox: Mailbox | None = None, *, most: int = 1_000
    ) -> tuple[list[Message | Notice], int | None]:
        """Return what a reader that has everything up to `seq` missed, as if it had lagged since then.

        Events come again, oldest first; of state comes the newest, and a book as it stands.

        Args:
            mailbox: The reader's; where it has options, they apply.
            most: Events at a time.

        Returns:
            The messages, and the number to go on from if there are more events; None when that was all.
        """
        out: list[Message | Notice] = []
        state = self._state(topic, mailbox)
        if state is not None and state.lane is Lane.STATE and seq < state.seq <= topic.forgotten:
            out += [*_forgotten(topic, seq, state.seq - 1), state]
            seq = state.seq
        if seq < topic.forgotten:
            out += _forgotten(topic, seq, topic.forgotten)
            seq = topic.forgotten
        missed = topic.missed(seq)
        more = missed[most - 1].seq if len(missed) > most else None
        missed = missed[:most]
        if state is not None and state.lane is Lane.BOOK:
            told = more is None
        else:
            told = state is not None and state.lane is Lane.STATE and seq < state.seq <= (more or topic.seq)
        if state is None or not told:
            return out + missed, more
        before = [message for message in missed if message.seq <= state.seq]
        after = missed[len(before) :]
        dropped = state.seq - seq - len(before) - 1
        note = [conflated(topic.name, state.seq, dropped)] if dropped > 0 else []
        return [*out, *before, *note, state, *after], more


def _forgotten(topic: Topic, after: int, last: int) -> list[Notice]:
    """Return the notice that events up to `last` are kept no longer; nothing if there are none."""
    reason = "older than what is kept"
    return [lost(topic.name, after + 1, last, None, reason=reason)] if after < last else []


def _nothing() -> None:
    """Flush a mailbox that nobody empties any more."""
