"""A WebSocket reader: empties its mailbox into its connection's writer, and knows when to give up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import attrs
import orjson
import trio

from pricefeedd import wire
from pricefeedd.bus import Pattern, Topic
from pricefeedd.mailbox import Message, Notice
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.writer import CHUNK_BYTES, GONE, Pusher

SHUTDOWN = 4001
TOO_SLOW = 4008
BAD_REQUEST = 4500
UNAUTHORISED = 4501
LIMIT = 4504


@attrs.frozen
class Goodbye:
    """Why we close a connection. Codes 4000-4499 invite to come back, 4500-4999 do not.

    Attributes:
        retry_after_ms: When coming back may help; None if it will not.
    """

    code: int
    reason: str
    retry_after_ms: int | None = None

    @property
    def frame(self) -> bytes:
        """The `bye` message as a frame."""
        return json_frame(
            {
                "type": "bye",
                "code": self.code,
                "reason": self.reason,
                "retry_after_ms": self.retry_after_ms,
            }
        )


def json_frame(message: dict[str, object]) -> bytes:
    """Return a message as one WebSocket text frame."""
    return wire.frame(orjson.dumps(message))


class Reader:
    """One WebSocket connection that reads topics.

    Attributes:
        session: Its name, for logs and for the client.
        mailbox: What waits for it.
        patterns: What it subscribed.
        asked: Requests that it made.
        goodbye: Why it is being closed; None while it is not.
    """

    def __init__(self, daemon: Daemon, limits: Limits, writer: Pusher, nursery: trio.Nursery) -> None:
        """Make a reader that subscribed nothing.

        Args:
            nursery: Holds the task that waits for a full socket; it is cancelled when the reader ends.
        """
        self.session = secrets.token_hex(8)
        self.patterns: dict[str, Pattern] = {}
        self.asked = 0
        self.goodbye: Goodbye | None = None
        self.reading = trio.CancelScope()
        self._daemon = daemon
        self._bus = daemon.bus
        self._counts = daemon.stats.readers
        self._limits = limits
        self._writer = writer
        self._nursery = nursery
        self._draining = False
        # Joined, but not yet told how things stand: until then their live messages are passed over.
        self._unseen: dict[str, Topic] = {}
        self._beat_at = 0
        self._reads: tuple[int, list[Topic]] | None = None
        self._noted = (0, 0)
        self.mailbox = daemon.bus.mailbox(limit_bytes=daemon.config.web.client_queue_bytes, flush=self.flush)

    # --- sending --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is in the mailbox, or begin to; never waits and never raises."""
        messages = self.mailbox.take()
        if self._unseen:
            messages = [m for m in messages if m.topic not in self._unseen]
            if not messages:
                return
        frames = [message.frame for message in messages]
        self._counts.frames += len(frames)
        if not self._writer.push(frames):
            self._lag()

    def reply(self, message: dict[str, object]) -> None:
        """Send a message that concerns this reader alone, after all that was sent before."""
        if not self._writer.push([json_frame(message)]):
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
            self.mailbox.lag()
            self._nursery.start_soon(self._drain, name=f"drain:{self.session}")

    async def _drain(self) -> None:
        """Bring out what waits, until the reader keeps up again."""
        try:
            while self._draining:
                await self._writer.drain()
                self._draining = not self._refill()
        except trio.TooSlowError:
            self.close(Goodbye(TOO_SLOW, f"nothing was read for {self._limits.stall_s:g} s", 1_000))
        except GONE:
            self.reading.cancel()

    def _refill(self) -> bool:
        """Send from the mailbox, then how things stand in topics not yet seen; return whether all is sent."""
        if self.goodbye is not None:
            return True
        self.note_losses()
        messages = self.mailbox.take()
        if self._unseen:
            messages = [m for m in messages if m.topic not in self._unseen]
        while True:
            frames = [message.frame for message in (*messages, *self._introductions())]
            self._counts.frames += len(frames)
            if frames and not self._writer.push(frames):
                return False
            if not self._unseen:
                self.mailbox.lagging = False
                return True
            messages = []

    def _introductions(self) -> Iterator[Message | Notice]:
        """Yield the present state of some of the topics not yet seen; from here on their messages pass."""
        size = 0
        while self._unseen and size < CHUNK_BYTES:
            name = next(iter(self._unseen))
            for message in self._bus.latest(self._unseen.pop(name)):
                size += len(message.text)
                yield message

    # --- subscriptions --------------------------------------------------------------------------------

    def subscribe(self, pattern: Pattern, *, snapshot: bool) -> int:
        """Read the topics of a pattern, now and in future; return how many there are now.

        The state of topics new to the reader comes first once `introduce` is called.

        Args:
            snapshot: False leaves that out, save for books, which mean nothing without.
        """
        self._reads = None
        self.patterns[pattern.text] = pattern
        for topic in self._bus.subscribe(self.mailbox, pattern):
            if snapshot or topic.channel == "book":
                self._unseen[topic.name] = topic
        return len(self._bus.match(pattern))

    def introduce(self) -> None:
        """Begin to send the state of topics not yet seen. Call it in the same step as `subscribe`."""
        if self._unseen and not self._draining and not self._refill():
            self._lag()

    def unsubscribe(self, pattern: Pattern) -> int:
        """Read the topics of a pattern no longer; return how many it let go of."""
        self._reads = None
        self.patterns.pop(pattern.text, None)
        parted = self._bus.unsubscribe(self.mailbox, pattern)
        for topic in parted:
            self._unseen.pop(topic.name, None)
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

        Skipped while something waits: the numbers would run ahead of the data, and data is sign of life.
        """
        if self._draining or self.goodbye is not None:
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

    def farewell(self, goodbye: Goodbye) -> None:
        """Stop reading the bus, and send the last message."""
        self.leave()
        if goodbye.code == TOO_SLOW:
            self._writer.discard()
        self._writer.push([goodbye.frame])
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

    def leave(self) -> None:
        """Let go of all topics and of what waits."""
        self.note_losses()
        self._bus.leave(self.mailbox)
        self._unseen.clear()
        self.patterns.clear()
        self._reads = None


class Readers:
    """All readers: how many there may be, their heartbeats, and their end."""

    def __init__(self, daemon: Daemon, limits: Limits) -> None:
        self.limits = limits
        self._daemon = daemon
        self._counts = daemon.stats.readers
        self._heartbeat_s = daemon.config.web.heartbeat_s
        self._due: dict[Reader, float] = {}
        self._silent: dict[Reader, float] = {}
        self._stopping: Goodbye | None = None

    def __len__(self) -> int:
        return len(self._due)

    def admit(self, reader: Reader) -> Goodbye | None:
        """Take a reader in; or return why not.

        When there is no room, one that has asked for nothing in a while gives up its place.
        """
        if self._stopping is not None:
            return self._stopping
        now = trio.current_time()
        if len(self._due) >= self._daemon.config.web.max_clients:
            oldest = next(iter(self._silent), None)
            if oldest is None or now - self._silent[oldest] < self.limits.silent_s:
                return Goodbye(LIMIT, "as many clients as max_clients are connected", 30_000)
            oldest.close(Goodbye(LIMIT, "asked for nothing, and others wait", 30_000))
            self.discard(oldest)
        self._due[reader] = now + self._heartbeat_s
        self._silent[reader] = now
        self._counts.connected = len(self._due)
        self._counts.accepted += 1
        return None

    def spoke(self, reader: Reader) -> None:
        """Note that the reader asked for something."""
        reader.asked += 1
        self._silent.pop(reader, None)

    def discard(self, reader: Reader) -> None:
        """Forget a reader that ended."""
        self._due.pop(reader, None)
        self._silent.pop(reader, None)
        self._counts.connected = len(self._due)

    async def beat(self) -> None:
        """Send each reader its heartbeats; runs until cancelled."""
        while True:
            await trio.sleep(min(0.25, self._heartbeat_s / 4))
            now = trio.current_time()
            done = 0
            while self._due:
                reader, due = next(iter(self._due.items()))
                if due > now:
                    break
                del self._due[reader]
                self._due[reader] = now + self._heartbeat_s
                reader.heartbeat()
                done += 1
                if done % 20 == 0:  # after a mass reconnect all are due at once: let data in between
                    await trio.lowlevel.checkpoint()

    def close_all(self, goodbye: Goodbye) -> None:
        """End all connections with these words, and take in no more."""
        self._stopping = goodbye
        for reader in list(self._due):
            reader.close(goodbye)
