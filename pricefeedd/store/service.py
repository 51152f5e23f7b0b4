"""The store at work: rows from the bus to disk, and from there to the database when it can take them.

Nothing here delays the feed: what the bus brings is taken in memory and put into a spool within a moment. A task
applies the spool to the database in order, in batches; while that is away, it tries again and again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
import structlog
import trio

from pricefeedd.bus import Bus
from pricefeedd.config import StoreConfig
from pricefeedd.errors import SpoolError, StoreAwayError
from pricefeedd.events import Candle, Gap
from pricefeedd.histogram import Histogram
from pricefeedd.limits import backoff
from pricefeedd.message import Message
from pricefeedd.store import reading, rows
from pricefeedd.store.database import CALL_S, Database, RefusedError
from pricefeedd.store.lane import Lane
from pricefeedd.store.rows import Entry
from pricefeedd.store.subscriptions import Subscriptions
from pricefeedd.store.writing import write

log = structlog.get_logger("pricefeedd.store")

#: Rows in one transaction.
BATCH = 1_000
#: The longest wait between two tries while the database is away.
MOST_WAIT_S = 5.0
READERS = 3

T = TypeVar("T")


class Store:
    """The database, and what waits for it.

    Attributes:
        state: `starting`, `up` or `down`.
        reason: Why it is down; "" if it is not.
        written: Rows written since the start, by table.
        errors: Tries that failed.
        refused: Rows that the database refused; they were put aside.
        last_written_ns: When rows were written last; None before the first time.
        write_time: How long transactions that wrote took.
        lanes: What waits, in order of its worth.
        subscriptions: Those that services made.
    """

    def __init__(self, bus: Bus, config: StoreConfig, state_dir: Path, *, now_ns: Callable[[], int]) -> None:
        """Prepare a store.

        Raises:
            ConfigError: The URL cannot be used.
        """
        self.database = Database(config.url)
        self.state = "starting"
        self.reason = ""
        self.written: dict[str, int] = {}
        self.errors = 0
        self.refused = 0
        self.last_written_ns: int | None = None
        self.write_time = Histogram()
        self._folder = state_dir / "store"
        self._now_ns = now_ns
        self._news = trio.Event()
        self._up = trio.Event()
        self._ended = False
        self._writers = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(READERS)
        half = config.spool_bytes // 2
        made = partial(Lane, limit_bytes=half, wake=self._wake)
        #: What may not be lost: balances and subscriptions.
        self.kept = made("kept", self._folder / "spool.db", may_drop=False)
        #: What can be had again, or is missed by few: candles and gaps.
        self.history = made("history", self._folder / "history.db", may_drop=True)
        self.lanes = (self.kept, self.history)
        self._applied = {lane.name: 0 for lane in self.lanes}
        self._progress = trio.lowlevel.ParkingLot()
        self.subscriptions = Subscriptions(self)
        self._bus = bus
        self._candles_kept = config.candles
        bus.listen(Gap, self._gap)
        if config.candles:
            bus.listen(Candle, self._candle)

    # --- what is to be kept ---------------------------------------------------------------------------------

    def _candle(self, message: Message) -> None:
        event = message.event
        if isinstance(event, Candle) and event.closed:
            self.keep_candles([event])

    def keep_candles(self, candles: Sequence[Candle]) -> None:
        """Keep closed candles, where candles are kept; never waits."""
        for event in candles if self._candles_kept else ():
            self.history.offer(Entry(rows.CANDLES, rows.candle_row(event)))

    def _gap(self, message: Message) -> None:
        self.history.offer(Entry(rows.GAPS, rows.gap_row(message, self._bus.epoch)))

    def keep(self, entry: Entry) -> None:
        """Keep what may not be lost; never waits."""
        self.kept.offer(entry)

    # --- running --------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what the bus brings until `end`, and then put what waits on disk or, if it can be, in the database."""
        try:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._watch, name="store:watch")
                async with trio.open_nursery() as nursery:
                    for lane in self.lanes:
                        nursery.start_soon(lane.run, name=f"store:{lane.name}")
                    task_status.started()
                    await self._apply_all()
                watching.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                for lane in self.lanes:
                    await lane.spool.close()
                await trio.to_thread.run_sync(self.database.close, limiter=self._writers)

    def end(self) -> None:
        """Begin to end: nothing more comes."""
        self._ended = True
        for lane in self.lanes:
            lane.end()
        self._wake()

    def _wake(self) -> None:
        self._news.set()

    async def _watch(self) -> None:
        """Cut what hangs; when we are to end, at once: a thread cannot be left behind."""
        try:
            while True:
                await trio.sleep(1)
                if self.database.cut():
                    log.warning("database hangs: a call was given up", seconds=CALL_S)
        finally:
            self.database.cut(overdue=False)

    async def _apply_all(self) -> None:
        try:
            for lane in self.lanes:
                await self._insist(lane.spool.open)
            await self._insist(self._migrate)
            self.state, self.reason = "up", ""
            log.info("store is up", url=self.database.url, waiting=self.waiting)
            self._up.set()
            while True:
                self._news = trio.Event()
                ended = self._ended
                for lane in self.lanes:
                    if lane.spool.count:
                        await self._insist(partial(self._apply_some, lane))
                if not any(lane.spool.count for lane in self.lanes):
                    if ended and not self.waiting:
                        return
                    await self._news.wait()
        except StoreAwayError as e:
            log.warning("store was down at the end, rows wait on disk", waiting=self.waiting, reason=str(e))

    async def _insist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Do something for as long as it takes.

        Raises:
            StoreAwayError: It cannot be done, and we are to end.
        """
        delays = backoff(0.2, MOST_WAIT_S)
        while True:
            try:
                if self.state == "down" and self._up.is_set():
                    await self._migrate()
                await attempt()
            except (StoreAwayError, SpoolError) as e:
                self._failed(str(e))
                if self._ended:
                    raise StoreAwayError(str(e)) from e
                await trio.sleep(next(delays))
            else:
                if self.state == "down" and self._up.is_set():
                    log.info("store is up again", url=self.database.url, waiting=self.waiting)
                    self.state, self.reason = "up", ""
                return

    async def _migrate(self) -> None:
        await trio.to_thread.run_sync(self.database.migrate, limiter=self._writers)

    async def _apply_some(self, lane: Lane) -> None:
        """Write the next batch of a lane."""
        async with lane.in_hand:
            newest = lane.spool.last
            records = await lane.spool.read(self._applied[lane.name], BATCH)
            if records:
                newest = records[-1].number
                data = [record.data for record in records]
                await trio.to_thread.run_sync(self._write, data, limiter=self._writers)
            self._applied[lane.name] = newest  # where there are no records, what is left is damaged
            self._progress.unpark_all()
            await lane.spool.done(newest)  # if it cannot, they are written once more after a restart: no harm

    def _failed(self, reason: str) -> None:
        if self.state != "down" or self.reason != reason:
            log.warning("store is down, rows wait on disk", url=self.database.url, reason=reason)
        self.errors += 1
        self.state, self.reason = "down", reason

    # --- in the worker thread -------------------------------------------------------------------------------

    def _write(self, data: Sequence[bytes]) -> None:
        entries: list[Entry] = []
        for each in data:
            try:
                entries.append(Entry.decode(each))
            except ValueError as e:
                self._put_aside(each, str(e))
        self._write_entries(entries)

    def _write_entries(self, entries: Sequence[Entry]) -> None:
        """Write rows in one transaction. If one is refused, the halves are tried, until it stands alone."""
        if not entries:
            return
        began = self._now_ns()
        try:
            with self.database.writing() as connection:
                counts = write(connection, entries)
        except (RefusedError, ValueError, KeyError, TypeError) as e:
            if len(entries) == 1:
                self._put_aside(entries[0].encode(), str(e))
                return
            middle = len(entries) // 2
            self._write_entries(entries[:middle])
            self._write_entries(entries[middle:])
            return
        self.last_written_ns = self._now_ns()
        self.write_time.observe((self.last_written_ns - began) / 1e9)
        for table, count in counts.items():
            self.written[table] = self.written.get(table, 0) + count

    def _put_aside(self, data: bytes, reason: str) -> None:
        """Keep a row that the database will never take where a person finds it."""
        self.refused += 1
        path = self._folder / "refused.jsonl"
        log.error("row refused by the database, put aside", path=str(path), reason=reason)
        line = orjson.dumps(
            {"at": self._now_ns() // 1000, "reason": reason, "row": data.decode("utf-8", "replace")}
        )
        try:
            with path.open("ab") as file:
                file.write(line + b"\n")
        except OSError as e:
            raise StoreAwayError(f"{path}: {e.strerror}") from e

    # --- reading --------------------------------------------------------------------------------------------

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """Return what a query finds.

        Raises:
            StoreAwayError: The database cannot be read now.
        """
        if not self._up.is_set():
            raise StoreAwayError(self.reason or "the store is starting")
        return await trio.to_thread.run_sync(self._read, query, limiter=self._readers)

    def _read(self, query: Callable[[sa.Connection], T]) -> T:
        with self.database.reading() as connection:
            return query(connection)

    async def candles(
        self, venue: str, instrument: str, interval: str, from_ns: int, to_ns: int
    ) -> list[Candle]:
        """Return the closed candles that begin in [from_ns, to_ns), oldest first.

        Raises:
            StoreAwayError: The database cannot be read now.
        """
        return await self.read(
            lambda connection: [
                rows.candle(row)
                for row in reading.candles(
                    connection, venue, instrument, interval, from_ns // 1000, to_ns // 1000
                )
            ]
        )

    async def read_when_up(self, query: Callable[[sa.Connection], T]) -> T:
        """Return what a query finds once everything that may not be lost, up to now, is in the database."""
        await self._up.wait()
        goal = self.kept.spool.last
        while self._applied["kept"] < goal and self.kept.spool.count:
            await self._progress.park()
        delays = backoff(0.2, MOST_WAIT_S)
        while True:
            try:
                return await self.read(query)
            except StoreAwayError:
                await trio.sleep(next(delays))

    # --- what operators ask ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Rows that are not in the database yet."""
        return sum(lane.waiting for lane in self.lanes)

    @property
    def lag_s(self) -> float:
        """How long the oldest row waits; 0 if none does."""
        oldest = [lane.spool.oldest_ns for lane in self.lanes if lane.spool.oldest_ns is not None]
        return max(0.0, (self._now_ns() - min(oldest)) / 1e9) if oldest else 0.0

    @property
    def troubles(self) -> list[str]:
        """What an operator must know, shortly."""
        found = [f"store: {self.state}: {self.reason}"] if self.state == "down" else []
        return found + [f"store: {lane.trouble}" for lane in self.lanes if lane.trouble]

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status`."""
        return {
            "url": self.database.url,
            "state": self.state,
            "reason": self.reason or next((lane.trouble for lane in self.lanes if lane.trouble), ""),
            "waiting": self.waiting,
            "waiting_bytes": sum(lane.spool.bytes for lane in self.lanes),
            "written": self.written.copy(),
            "last_written": None if self.last_written_ns is None else self.last_written_ns // 1000,
            "lag_s": round(self.lag_s, 3),
            "errors": self.errors,
            "refused": self.refused,
            "dropped": sum(lane.dropped for lane in self.lanes),
        }
