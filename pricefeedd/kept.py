"""The lane of a sink that may not lose: what accounts are told waits on disk until the sink says that it is done.

    bus ── a plain call ──▶ pending (memory) ── groups ──▶ spool (disk) ── receive ──▶ sink ── done ──▶ forgotten

Memory is bounded as the disk is. A disk that is slow, full or broken is tried again for ever, and said in the sink's
report; the feed never waits for it. Past both bounds events are lost, and that is loud: an error in the log, a count
(`overflow`), and `SinkOverflowError` where the sink reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

import attrs
import structlog
import trio

from pricefeedd.bus import Bus
from pricefeedd.errors import SinkOverflowError, SpoolError
from pricefeedd.events import PRIVATE_CHANNELS
from pricefeedd.hookspecs import SinkReport
from pricefeedd.limits import backoff
from pricefeedd.message import Jump, Message
from pricefeedd.spool import RECORD_BYTES, Record, Spool
from pricefeedd.topic import Pattern

log = structlog.get_logger("pricefeedd.kept")

#: Most events of one group: one transaction, and one fsync, for all of them.
GROUP = 1000
#: How long what is pending may take to reach the disk when we are cancelled.
LAST_WRITE_S = 3.0


@attrs.frozen
class KeptMessage:
    """One message that lies on disk until it is done; `hookspecs.Kept` says what its parts are."""

    number: int
    epoch: str
    topic: str
    seq: int
    text: bytes

    @classmethod
    def of(cls, record: Record) -> KeptMessage:
        """Return the message that a record of the spool holds."""
        epoch, topic, seq, text = record.data.split(b"\n", 3)
        return cls(record.number, epoch.decode(), topic.decode(), int(seq), text)


class KeptQueue:
    """What a sink may not lose, in order.

    Attributes:
        spool: The queue on disk.
        trouble: Why the disk takes nothing now; "" while it does.
        pending: Events in memory that are not on disk yet.
    """

    def __init__(
        self,
        bus: Bus,
        topics: Iterable[str],
        spool: Spool,
        report: SinkReport,
        *,
        name: str,
        pending_bytes: int,
    ) -> None:
        """Begin to collect what the topics bring.

        Args:
            topics: Full names; nothing else ever names a topic of an account.
            name: Of the sink, for the log.
            pending_bytes: Most bytes of events in memory.
        """
        self.spool = spool
        self.trouble = ""
        self._bus = bus
        self._report = report
        self._name = name
        self._limit = pending_bytes
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._losing = False
        self._overflow: SinkOverflowError | None = None
        self._handed_out = 0
        self._finished = 0
        self._most = GROUP
        self._ended = False
        self._arrived = trio.Event()
        self._written = trio.Event()
        # It is emptied at the end of each batch, so its lanes and their bound never apply.
        self._mailbox = bus.mailbox(limit_bytes=pending_bytes, flush=self._take)
        for topic in topics:
            bus.subscribe(self._mailbox, Pattern(topic))

    @property
    def pending(self) -> int:
        """Events in memory that are not on disk yet."""
        return len(self._pending)

    @property
    def full(self) -> float:
        """How full the spool is: 1 is its limit."""
        return self.spool.bytes / self.spool.limit_bytes

    def _take(self) -> None:
        """Keep what was published just now."""
        for message in self._mailbox.take():
            # What an upstream did not bring shows by its numbers, as for any reader of a queue.
            if isinstance(message, Message) and not isinstance(message, Jump):
                self._keep(message)
        self._arrived.set()

    def _keep(self, message: Message) -> None:
        head = f"{self._bus.epoch}\n{message.topic}\n{message.seq}\n".encode()
        record = head + message.text
        if len(record) + RECORD_BYTES > self.spool.limit_bytes:
            self._report.drop("too_large")
            log.error("event of an account is too large for the spool", sink=self._name, topic=message.topic)
            return
        if self._pending_bytes + len(record) > self._limit:
            self._report.drop("overflow")
            if not self._losing:
                self._losing = True
                reason = self.trouble or "the disk is too slow"
                self._overflow = SinkOverflowError(
                    f"events of accounts are lost from {message.topic} #{message.seq} on: {self._limit} bytes wait in "
                    f"memory already ({reason})"
                )
                self._report.last_error = str(self._overflow)
                log.error("events of accounts are lost", sink=self._name, topic=message.topic, reason=reason)
            return
        self._pending.append(record)
        self._pending_bytes += len(record)

    # --- to the disk ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is pending to disk, until it was ended and everything is there."""
        try:
            while True:
                await self._write()
                if self._ended:
                    return
                await self._arrived.wait()
                self._arrived = trio.Event()
        finally:
            if self._pending:
                await self._write_the_last()

    async def _write(self) -> None:
        """Write everything that is pending, and forget what is done; tried again until it works."""
        delays = backoff(1.0, 30.0)
        while self._pending or self._finished >= self.spool.first or self.trouble:
            try:
                await self._write_group()
            except (SpoolError, SinkOverflowError) as e:
                if isinstance(e, SinkOverflowError) and self._most > 1:
                    self._most //= 2  # as much as fits, so that what is left of the spool is used
                    continue
                self._troubled(str(e))
                with trio.move_on_after(next(delays)):
                    await self._made_room(self._finished)
            else:
                delays = backoff(1.0, 30.0)
                if self.trouble:
                    log.info("spool takes events again", sink=self._name)
                    self.trouble = ""
                if self._pending_bytes < self._limit // 2:
                    self._losing = False  # what is lost after this is another story, and told again
                self._most = GROUP
                self._tell()

    async def _write_group(self) -> None:
        if self._finished >= self.spool.first:
            await self.spool.done(self._finished)
        group = list(islice(self._pending, self._most))
        await self.spool.append(group)
        for record in group:
            self._pending.popleft()
            self._pending_bytes -= len(record)

    async def _write_the_last(self) -> None:
        with trio.move_on_after(LAST_WRITE_S, shield=True):
            try:
                while self._pending:
                    await self._write_group()
            except (SpoolError, SinkOverflowError) as e:
                self._troubled(str(e))
            self._tell()
        if self._pending:
            self._report.drop("overflow", len(self._pending))
            log.error(
                "events of accounts are lost, they could not be written before the end",
                sink=self._name,
                dropped=len(self._pending),
                reason=self.trouble,
            )

    def _troubled(self, reason: str) -> None:
        self._report.last_error = reason
        if not self.trouble:
            log.error("spool takes nothing, tried again", sink=self._name, reason=reason)
        self.trouble = reason

    def _tell(self) -> None:
        """Wake the sink."""
        self._written.set()
        self._written = trio.Event()

    async def _made_room(self, before: int) -> None:
        """Wait until the sink is done with more."""
        while self._finished <= before:
            await self._arrived.wait()
            self._arrived = trio.Event()

    # --- to the sink ------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Begin anew: everything that is not done is handed out again."""
        self._handed_out = 0

    def end(self) -> None:
        """Take nothing more; what is there is handed out, and then comes the end."""
        self._take()
        self._bus.leave(self._mailbox)
        self._ended = True
        self._arrived.set()
        self._tell()

    async def receive(self, most: int) -> list[KeptMessage]:
        """Wait until there is something that was not handed out yet, and return up to `most` of it in order.

        Raises:
            trio.EndOfChannel: It was ended, and everything was handed out.
            SinkOverflowError: Events were lost since the last call. Told once; the sink may read on.
        """
        delays = backoff(1.0, 30.0)
        while True:
            if self._overflow is not None:
                overflow, self._overflow = self._overflow, None
                raise overflow
            # Asked before the disk is: what comes while it is read would be missed.
            written, complete = self._written, self._ended and not self._pending
            try:
                records = await self.spool.read(self._handed_out, most)
            except SpoolError as e:
                self._troubled(str(e))
                await trio.sleep(next(delays))
                continue
            if records:
                self._handed_out = records[-1].number
                return [KeptMessage.of(record) for record in records]
            if complete:
                raise trio.EndOfChannel
            await written.wait()

    async def done(self, number: int) -> None:
        """Forget everything up to this number; what the disk does not do now is done later."""
        self._finished = max(self._finished, number)
        try:
            await self.spool.done(number)
        except SpoolError as e:
            self._troubled(str(e))
        self._arrived.set()

    @property
    def idle(self) -> bool:
        """Whether nothing waits, in memory or on disk."""
        return not self._pending and not self.spool.count


def account_topics(venues: Iterable[tuple[str, str, Iterable[str]]], wanted: Iterable[str]) -> list[str]:
    """Return the topics of the accounts that are wanted.

    Args:
        venues: Venue, account and the account's channels.
        wanted: Names of accounts; `*` for all.
    """
    names = set(wanted)
    return [
        f"{channel}:{venue}:{account}"
        for venue, account, channels in venues
        if account in names or "*" in names
        for channel in channels
        if channel in PRIVATE_CHANNELS
    ]
