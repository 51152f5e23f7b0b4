"""A WebSocket reader: empties its mailbox into its connection's writer, and knows when to give up."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import attrs
import orjson
import trio

from pricefeedd import wire
from pricefeedd.message import Message, Notice, lost
from pricefeedd.topic import Pattern, Topic
from pricefeedd.views import PLAIN, Options
from pricefeedd.web.daemon import Daemon, Hold, Limits
from pricefeedd.web.goodbye import TOO_SLOW, Goodbye
from pricefeedd.web.writer import CHUNK_BYTES, GONE, Pusher, Writer

#: With `batch_ms` a frame is sent early once so many messages are in it.
BATCH_MESSAGES = 1_000


@attrs.frozen
class Since:
    """What a reader had before it was away.

    Attributes:
        epoch: The life of the streams that it read.
        seqs: The last number that it has of each topic.
    """

    epoch: str
    seqs: dict[str, int]


@attrs.frozen
class Subscribed:
    """What came of a subscription.

    Attributes:
        matched: Topics that it means now.
        replayed: Events that come again, because the reader was away.
        on_demand: The topic is brought because it is read.
    """

    matched: int
    replayed: int
    on_demand: bool


class Reader:
    """One WebSocket connection that reads topics.

    Attributes:
        session: Its name, for logs and for the client.
        mailbox: What waits for it.
        form: How its messages look.
        render: Makes frames of messages where one form does not fit all topics; it may unsubscribe some. None for
            nearly all readers.
        scopes: What its key may do.
        key: The key, to be looked at again when keys change; None without one.
        patterns: What it subscribed.
        goodbye: Why it is being closed; None while it is not.
    """

    def __init__(
        self,
        daemon: Daemon,
        limits: Limits,
        writer: Pusher,
        nursery: trio.Nursery,
        *,
        form: wire.Form = wire.NATIVE,
        batch_s: float = 0.0,
        scopes: frozenset[str] = frozenset(),
        key: str | None = None,
    ) -> None:
        """Make a reader that subscribed nothing.

        Args:
            nursery: Holds the task that waits for a full socket.
            form: How its messages look.
            batch_s: Data is collected for so long, and sent as one JSON array.
            scopes: What its key may do.
            key: The key; None without one.
        """
        self.session = secrets.token_hex(8)
        self.form = form
        self.render: Callable[[Sequence[Message | Notice]], list[bytes]] | None = None
        self.scopes = scopes
        self.key = key
        self.patterns: dict[str, Pattern] = {}
        self.goodbye: Goodbye | None = None
        self.reading = trio.CancelScope()
        self._daemon = daemon
        self._bus = daemon.bus
        self._counts = daemon.stats.readers
        self._limits = limits
        self._writer = writer
        self._nursery = nursery
        self._holds: dict[str, Hold] = {}
        self._batch_s = batch_s
        self._batch: list[Message | Notice] = []
        self._batch_due = False
        self._draining = False
        self._drains: trio.CancelScope | None = None
        # Joined, but not yet told how things stand: until then their live messages are passed over. With the
        # number that the reader goes on from; None if it begins.
        self._unseen: dict[str, tuple[Topic, int | None]] = {}
        self._beat_at = 0
        self._reads: tuple[int, list[Topic]] | None = None
        self._noted = (0, 0)
        self._plain = form is wire.NATIVE and not batch_s
        self.mailbox = daemon.bus.mailbox(
            limit_bytes=daemon.config.web.client_queue_bytes,
            flush=self.flush if self._plain else self._flush_formed,
        )
        self.mailbox.rest = self._rest
        if isinstance(writer, Writer):
            writer.on_detour = self._divert

    @property
    def waiting_bytes(self) -> int:
        """Bytes of data and replies that wait for it."""
        return self.mailbox.waiting_bytes + self._writer.waiting_bytes

    # --- sending --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is in the mailbox, or begin to; never waits and never raises."""
        self._send_fresh()
        self._aim()

    def _aim(self) -> None:
        """Let the bus send straight to the socket, if that is right from here on."""
        if self._plain and not self._draining and not self._unseen and isinstance(self._writer, Writer):
            self.mailbox.direct = self._writer.direct

    def _divert(self) -> None:
        """Take what comes from here on through our own hands."""
        self.mailbox.direct = None

    def _rest(self, data: bytes, sent: int) -> None:
        """Take over what the bus could not send."""
        assert isinstance(self._writer, Writer), "it was aimed there"
        self._writer.rest(data, sent)
        if sent >= 0:
            self._lag()

    def _flush_formed(self) -> None:
        """Do as `flush` for a connection of another form, or one that collects its data."""
        if not self._batch_s:
            self._send_fresh()
            return
        self._batch += self._seen(self.mailbox.take())
        if len(self._batch) >= BATCH_MESSAGES:
            self._send_fresh()
        elif not self._batch_due:
            self._batch_due = True
            self._bus.pacer.at(trio.current_time() + self._batch_s, self._send_batch)

    def _send_batch(self) -> None:
        self._batch_due = False
        if not self._draining and self.goodbye is None:
            self._send_fresh()

    def _send_fresh(self) -> None:
        collected, self._batch = self._batch, []
        frames = self._frames([*collected, *self._seen(self.mailbox.take())])
        if frames and not self._writer.push(frames):
            self._lag()

    def _seen(self, messages: Sequence[Message | Notice]) -> Sequence[Message | Notice]:
        """Return the messages without those of topics not yet seen."""
        unseen = self._unseen
        return [m for m in messages if m.topic not in unseen] if unseen else messages

    def _frames(self, messages: Sequence[Message | Notice]) -> list[bytes]:
        form = self.form
        if self.render is not None:
            frames = self.render(messages)
            self._counts.frames += len(frames)
            return frames
        if not self._batch_s:
            frames = [frame for m in messages if (frame := m.frame_in(form))]
            self._counts.frames += len(frames)
            return frames
        texts = [text for m in messages if (text := m.text_in(form))]
        self._counts.frames += len(texts)
        parts = (texts[at : at + BATCH_MESSAGES] for at in range(0, len(texts), BATCH_MESSAGES))
        return [form.frame(b"[" + b",".join(part) + b"]") for part in parts]

    def reply(self, message: dict[str, object]) -> None:
        """Send a message that concerns this reader alone, after all that was sent before."""
        if self._batch_s and not self._draining:
            self._send_fresh()
        if not self._writer.push([self.form.frame(orjson.dumps(message))]):
            self._lag()

    async def drained(self) -> None:
        """Wait until earlier replies have left, so that nobody piles them up by not reading.

        Raises:
            trio.TooSlowError: The client takes nothing.
            trio.BrokenResourceError: The client is gone.
        """
        await self._writer.drain()

    def _lag(self) -> None:
        if not self._draining:
            self._draining = True
            self._counts.lagging.add(self)
            self._drains = trio.CancelScope()
            self._divert()
            self.mailbox.lag()
            self._nursery.start_soon(self._drain, name=f"drain:{self.session}")

    async def _drain(self) -> None:
        """Bring out what waits, until the reader keeps up again."""
        assert self._drains is not None, "made by who begins this"
        try:
            with self._drains:
                while self._draining:
                    await self._writer.drain()
                    self._draining = not self._refill()
            self._counts.lagging.discard(self)
        except trio.TooSlowError:
            self.close(Goodbye(TOO_SLOW, f"nothing was read for {self._limits.stall_s:g} s", 1_000))
        except GONE:
            self.reading.cancel()

    def _refill(self) -> bool:
        """Send from the mailbox, then how things stand in topics not yet seen; return whether all is sent."""
        if self.goodbye is not None:
            return True
        self.note_losses()
        waited = self.mailbox.take()
        self._note_delay(waited)
        frames = self._frames(self._seen(waited))
        while True:
            frames += self._frames(self._introductions())
            if frames and not self._writer.push(frames):
                return False
            if not self._unseen:
                # Replies may have come meanwhile: who ends here leaves them lying, and lets data pile up behind them.
                self.mailbox.lagging = self._writer.waiting
                return not self._writer.waiting
            frames = []

    def _note_delay(self, waited: Sequence[Message | Notice]) -> None:
        """Count how long the oldest message waited."""
        oldest = next((m for m in waited if isinstance(m, Message)), None)
        if oldest is not None:
            self._counts.delay.observe_ns(max(self._daemon.now_ns() - oldest.event.received_ns, 0))

    def _introductions(self) -> list[Message | Notice]:
        """Return the present state of some of the topics not yet seen; from here on their messages pass."""
        size = 0
        first: list[Message | Notice] = []
        while self._unseen and size < CHUNK_BYTES:
            name = next(iter(self._unseen))
            topic, seq = self._unseen.pop(name)
            told: Sequence[Message | Notice]
            if seq is None:
                told = self._bus.latest(topic, self.mailbox)
            else:
                told, more = self._bus.since(topic, seq, self.mailbox)
                if more is not None:
                    self._unseen[name] = (topic, more)
            first += told
            size += sum(len(message.text) for message in told)
        return first

    # --- subscriptions --------------------------------------------------------------------------------

    def subscribe(
        self, pattern: Pattern, *, options: Options = PLAIN, snapshot: bool = True, since: Since | None = None
    ) -> Subscribed:
        """Read the topics of a pattern, now and in future.

        The state of topics new to the reader comes first once `introduce` is called, or what it missed of them.

        Args:
            snapshot: False leaves the state out, save for books, which mean nothing without.
            since: What the reader had before it was away.
        """
        self._reads = None
        self.patterns[pattern.text] = pattern
        if pattern.exact and pattern.text not in self._holds:
            hold = self._daemon.demand(pattern.channel, pattern.venue, pattern.instrument)
            if hold is not None:
                self._holds[pattern.text] = hold
        replayed = 0
        self._divert()  # until what is new to the reader was introduced
        for topic in self._bus.subscribe(self.mailbox, pattern, options):
            seq = None if since is None else since.seqs.get(topic.name)
            if seq is not None and since is not None:
                other = since.epoch != self._bus.epoch
                if self._bus.upstream is not None and not other:
                    # Another relay of the upstream may be ahead of this one: all that it had is still to come here.
                    seq = min(seq, topic.seq)
                if other or seq > topic.seq:
                    reason = "the epoch changed" if other else "seq is ahead of this daemon's"
                    self.say([lost(topic.name, seq + 1, None, None, seq=topic.seq, reason=reason)])
                    seq = None
            if seq is not None:
                self._unseen[topic.name] = (topic, seq)
                replayed += len(topic.missed(seq))
            elif snapshot or topic.channel == "book":
                self._unseen[topic.name] = (topic, None)
        matched = len(self._bus.match(pattern))
        return Subscribed(matched, replayed, pattern.text in self._holds)

    def say(self, notices: list[Message | Notice]) -> None:
        """Send messages of our own making, after all that was sent before."""
        frames = self._frames(notices)
        if frames and not self._writer.push(frames):
            self._lag()

    def tell_upstream(self) -> None:
        """Tell how the upstream is, if we have one. It stands apart from the topics, whose numbers are the upstream's."""
        upstream = self._bus.upstream
        if upstream is not None and self.form.notices and self.goodbye is None:
            state = "lost" if upstream.away else "live"
            now_us = self._daemon.now_ns() // 1000
            self.reply({"type": "upstream", "ts": now_us, "state": state, "reason": upstream.away})

    def introduce(self) -> None:
        """Begin to send the state of topics not yet seen. Call it in the same step as `subscribe`."""
        if self._unseen and not self._draining and not self._refill():
            self._lag()

    def unsubscribe(self, pattern: Pattern) -> int:
        """Read the topics of a pattern no longer; return how many it let go of."""
        self._reads = None
        self.patterns.pop(pattern.text, None)
        if (hold := self._holds.pop(pattern.text, None)) is not None:
            hold.release()
        parted = self._bus.unsubscribe(self.mailbox, pattern)
        gone = {topic.name for topic in parted}
        for name in gone:
            self._unseen.pop(name, None)
        self._batch = [message for message in self._batch if message.topic not in gone]
        return len(parted)

    def topics(self) -> list[Topic]:
        """Return the topics that it reads now."""
        if self._reads is None or self._reads[0] != self._bus.changes:
            found = {t.name: t for pattern in self.patterns.values() for t in self._bus.match(pattern)}
            self._reads = (self._bus.changes, list(found.values()))
        return self._reads[1]

    # --- life -----------------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Tell the last `seq` of each topic; with many topics they take turns.

        Skipped while something waits: the numbers would run ahead of the data, and data is sign of life. Clients
        that take no notices do not know heartbeats either.
        """
        if self._draining or self.goodbye is not None or not self.form.notices:
            return
        topics = self.topics()
        most = self._limits.heartbeat_topics
        start = self._beat_at if self._beat_at < len(topics) else 0
        turn = topics[start : start + most]
        self._beat_at = start + most
        self.reply(
            {
                "type": "heartbeat",
                "ts": self._daemon.now_ns() // 1000,
                "seq": {topic.name: topic.seq for topic in turn},
            }
        )

    def close(self, goodbye: Goodbye) -> None:
        """End the connection with these words; the first words count."""
        if self.goodbye is None:
            self.goodbye = goodbye
            self.reading.cancel()

    def farewell(self, goodbye: Goodbye, words: dict[str, object] | None) -> None:
        """Stop reading the bus, and send the last words."""
        self.leave()
        if goodbye.code == TOO_SLOW:
            self._writer.discard()
        if words is not None:
            self._writer.push([self.form.frame(orjson.dumps(words))])
        self._counts.closed[goodbye.code] = self._counts.closed.get(goodbye.code, 0) + 1

    def abort(self) -> None:
        """Cut the connection: the client does not take our last words."""
        self._writer.abort()

    def note_losses(self) -> None:
        """Add what its mailbox replaced and dropped to the counts of all readers."""
        conflated, lost = self.mailbox.conflated, self.mailbox.lost
        self._counts.conflated += conflated - self._noted[0]
        self._counts.lost += lost - self._noted[1]
        self._noted = (conflated, lost)

    def end(self) -> None:
        """Leave, and let nothing go on."""
        self.leave()
        if self._drains is not None:
            self._drains.cancel()

    def leave(self) -> None:
        """Let go of all topics and of what waits."""
        self.note_losses()
        self._counts.lagging.discard(self)
        self._bus.leave(self.mailbox)
        self.mailbox.clear()
        self._batch.clear()
        self._divert()
        for hold in self._holds.values():
            hold.release()
        self._holds.clear()
        self._unseen.clear()
        self.patterns.clear()
        self._reads = None
