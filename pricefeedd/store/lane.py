"""What waits for the database: first in memory, for the moment that the disk takes, then in a spool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import trio

from pricefeedd.errors import SinkOverflowError, SpoolError
from pricefeedd.spool import Spool
from pricefeedd.store.rows import Entry

log = structlog.get_logger("pricefeedd.store")

#: Rows are collected for so long, so that many share one write to the disk.
COLLECT_S = 0.05
#: A spool that cannot be written is tried again after this.
RETRY_S = 1.0
#: Rows in one write to the disk.
BATCH = 1_000
#: Rows that wait in memory while the disk takes nothing.
MOST_IN_MEMORY = 100_000


class Lane:
    """Rows on their way to the database, in order.

    Attributes:
        spool: Where they wait.
        dropped: Rows that were lost, because neither disk nor memory had room for them.
        in_hand: Held by whoever takes rows out of the spool.
        trouble: Why rows cannot be put on disk; "" while they can.
    """

    def __init__(
        self, name: str, path: Path, *, limit_bytes: int, may_drop: bool, wake: Callable[[], None]
    ) -> None:
        """Prepare a lane.

        Args:
            may_drop: Whether the oldest are given up when there is no more room on disk. Otherwise the newest wait in
                memory, and it is told.
            wake: Called when something was put on disk.
        """
        self.name = name
        self.spool = Spool(path, limit_bytes=limit_bytes)
        self.dropped = 0
        self.trouble = ""
        self.in_hand = trio.Lock()
        self._may_drop = may_drop
        self._wake = wake
        self._fresh: deque[Entry] = deque()
        self._news = trio.Event()
        self._turn = trio.Lock()
        self._ended = False

    @property
    def waiting(self) -> int:
        """Rows that are not in the database yet."""
        return self.spool.count + len(self._fresh)

    def offer(self, entry: Entry) -> None:
        """Take a row; never waits."""
        fresh = self._fresh
        if len(fresh) >= MOST_IN_MEMORY:
            fresh.popleft()
            self._lose(1)
        fresh.append(entry)
        self._news.set()

    async def put(self, entries: Sequence[Entry]) -> int:
        """Put rows on disk, behind those that were offered before; return the number of the last.

        Raises:
            SinkOverflowError: There is no room.
            SpoolError: The disk takes nothing.
        """
        async with self._turn:
            await self._put_fresh()
            last = await self.spool.append([entry.encode() for entry in entries])
        self._wake()
        return last

    def end(self) -> None:
        """Take no more; what was offered is put on disk still."""
        self._ended = True
        self._news.set()

    async def run(self) -> None:
        """Put on disk what is offered, until it ends."""
        while not (self._ended and not self._fresh):
            if not self._fresh:
                await self._news.wait()
                self._news = trio.Event()
            if not self._ended:
                await trio.sleep(COLLECT_S)
            try:
                async with self._turn:
                    await self._put_fresh()
            except (SinkOverflowError, SpoolError) as e:
                self._note(str(e))
                await trio.sleep(RETRY_S)
            else:
                self.trouble = ""

    def _note(self, trouble: str) -> None:
        if not self.trouble:
            log.error(
                "rows wait in memory: the spool of the store takes none", lane=self.name, reason=trouble
            )
        self.trouble = trouble

    async def _put_fresh(self) -> None:
        most = BATCH
        while self._fresh:
            batch = [self._fresh[n] for n in range(min(len(self._fresh), most))]
            data = [entry.encode() for entry in batch]
            try:
                await self.spool.append(data)
            except SinkOverflowError:
                if self._may_drop and self.spool.count:
                    await self._give_up_oldest()
                elif len(batch) > 1:
                    most = len(batch) // 2  # some of them may find room
                elif self._may_drop:
                    self._fresh.popleft()  # one row that is larger than the whole spool
                    self._lose(1)
                else:
                    raise
                continue
            self._wake()
            for entry in batch:
                if self._fresh and self._fresh[0] is entry:  # else it was lost meanwhile
                    self._fresh.popleft()

    async def _give_up_oldest(self) -> None:
        """Drop a tenth of what waits on disk, the oldest."""
        async with self.in_hand:
            before = self.spool.count
            if before:
                await self.spool.done(self.spool.first + before // 10)
                self._lose(before - self.spool.count)

    def _lose(self, count: int) -> None:
        if not self.dropped:
            log.error("rows of the store are lost: there is no room for them", lane=self.name)
        self.dropped += count
