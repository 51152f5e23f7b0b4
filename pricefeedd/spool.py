"""A queue on disk, for readers that may not lose: what was appended is there until it is done.

SQLite does it, with a write-ahead log and `synchronous=FULL`: each `append` is one transaction, and has been handed
to the disk with fsync when it returns. So it outlives a killed process, and as far as the disk keeps its word
also a loss of power. What was not yet confirmed by then is either there as a whole or not at all. `done` is as
durable: what is done does not come again.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import attrs
import structlog
import trio

from pricefeedd.errors import SinkOverflowError, SpoolError

log = structlog.get_logger("pricefeedd.spool")

#: What a record costs besides its data, about, as the limit counts it.
RECORD_BYTES = 32
#: Free pages that stay in the file for what comes next; more than that is given back to the disk.
FREE_PAGES = 256
#: The write-ahead log is cut back to this size.
LOG_BYTES = 4 << 20

#: The file holds no database, or one that SQLite cannot read to its end.
_UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another process holds it; is pricefeedd running already?",
    sqlite3.SQLITE_READONLY: "it may not be written; look at the permissions",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the permissions of its folder",
    sqlite3.SQLITE_IOERR: "the disk is full or fails",
}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL
)
"""

_T = TypeVar("_T")
_Row = tuple[int, int, int, bytes]


@attrs.frozen
class Record:
    """What was appended, and its number: they count up by one and are never used again."""

    number: int
    data: bytes


def _code(error: sqlite3.Error) -> int:
    """Return the primary code of an error of SQLite; 0 if it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, number & 0xFFFFFFFF)


class Spool:
    """A queue of records in one file. All calls wait for their turn; none can be cancelled half-way.

    The limit counts the data and a little for each record; the file is somewhat larger. When records are done, its
    space goes back to the disk.

    Attributes:
        path: The file. SQLite keeps its log beside it.
        limit_bytes: Most bytes that wait.
        count: Records that wait.
        bytes: What they count against the limit.
        first: Number of the oldest that waits; the one that comes next if none does.
        last: Number of the newest that was ever appended; 0 before the first.
        oldest_ns: When the oldest that waits was appended; None if none does.
        damaged: Records whose checksum was wrong; they were passed over.
    """

    def __init__(
        self, path: Path, *, limit_bytes: int, now_ns: Callable[[], int] = time.time_ns, most_pages: int = 0
    ) -> None:
        """Prepare a queue; `open` must come first.

        Args:
            most_pages: Pages that the file may have, as if the disk were full then; 0 for as many as it has.
        """
        self.path = path
        self.limit_bytes = limit_bytes
        self.count = 0
        self.bytes = 0
        self.first = 1
        self.last = 0
        self.oldest_ns: int | None = None
        self.damaged = 0
        self._now_ns = now_ns
        self._most_pages = most_pages
        self._damaged: set[int] = set()
        self._connection: sqlite3.Connection | None = None
        self._turn = trio.CapacityLimiter(1)

    async def open(self) -> None:
        """Open the file, made now if there is none.

        One that cannot be read is set aside under a new name, and what can be saved of it is taken over.

        Raises:
            SpoolError: It cannot be opened or written.
        """
        await self._do(lambda: None)

    async def append(self, records: Sequence[bytes]) -> int:
        """Append the records, all or none of them, and return the number of the last when they are on disk.

        Raises:
            SinkOverflowError: They would not fit within the limit.
            SpoolError: They cannot be written, mostly because the disk is full. Nothing of them was.
        """
        size = sum(map(len, records)) + RECORD_BYTES * len(records)
        return await self._do(lambda: self._append(records, size))

    async def read(self, after: int, most: int) -> list[Record]:
        """Return up to `most` of the records after a number, oldest first; none if there are no more.

        Raises:
            SpoolError: The file cannot be read.
        """
        return await self._do(lambda: self._read(after, most))

    async def done(self, number: int) -> None:
        """Forget all records up to this number.

        Raises:
            SpoolError: The file cannot be written; nothing was forgotten.
        """
        await self._do(lambda: self._done(number))

    async def close(self) -> None:
        """Close the file; does nothing the second time."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close, limiter=self._turn)

    # --- in the worker thread -------------------------------------------------------------------------

    async def _do(self, action: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(
            self._guarded, action, abandon_on_cancel=False, limiter=self._turn
        )

    def _guarded(self, action: Callable[[], _T]) -> _T:
        """Do something with the open file; one that turns out to be broken is replaced first."""
        try:
            try:
                self._ready()
                return action()
            except sqlite3.DatabaseError as e:
                if _code(e) not in _UNREADABLE:
                    raise
                self._set_aside(str(e))
                return action()
        except sqlite3.Error as e:
            reason = _REASONS.get(_code(e), "it cannot be used")
            raise SpoolError(f"spool {self.path}: {reason} ({e})") from e
        except OSError as e:
            raise SpoolError(f"spool {self.path}: it cannot be used ({e.strerror or e})") from e

    @property
    def _database(self) -> sqlite3.Connection:
        assert self._connection is not None  # `_guarded` opened it
        return self._connection

    def _ready(self) -> None:
        """Open the file unless it is open."""
        if self._connection is not None:
            return
        for folder in (*reversed(self.path.parent.parents), self.path.parent):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
        # SQLite gives its log the mode of this file, so it is made here, for nobody else to read.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        self._connection = connection
        try:
            connection.execute(
                "PRAGMA locking_mode = EXCLUSIVE"
            )  # two daemons would hand out the same records
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            if self._most_pages:
                connection.execute(f"PRAGMA max_page_count = {self._most_pages}")
            connection.execute(_SCHEMA)
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
            # It reads every page: what is broken shows here, and not when somebody waits for it.
            count, size, newest = connection.execute(
                "SELECT count(*), sum(length(data)), max(number) FROM record"
            ).fetchone()
        except BaseException:
            self._close()
            raise
        self.last = max(row[0] if row else 0, newest or 0)
        self.count, self.bytes = count, (size or 0) + RECORD_BYTES * count
        self._find_first()

    def _find_first(self) -> None:
        found = self._database.execute("SELECT number, at_ns FROM record ORDER BY number LIMIT 1").fetchone()
        self.first, self.oldest_ns = found or (self.last + 1, None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._database
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the first error is the one to tell
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise

    def _append(self, records: Sequence[bytes], size: int) -> int:
        if not records:
            return self.last
        if self.bytes + size > self.limit_bytes:
            raise SinkOverflowError(
                f"spool {self.path}: {self.count} records, {self.bytes} bytes, wait already and {len(records)} more "
                f"({size} bytes) go beyond spool_bytes = {self.limit_bytes}; see why its reader takes nothing, "
                "or raise the limit"
            )
        at_ns, first = self._now_ns(), self.last + 1
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO record (number, at_ns, crc, data) VALUES (?, ?, ?, ?)",
                [
                    (number, at_ns, _checksum(number, data), data)
                    for number, data in enumerate(records, first)
                ],
            )
        if not self.count:
            self.first, self.oldest_ns = first, at_ns
        self.count += len(records)
        self.bytes += size
        self.last += len(records)
        return self.last

    def _read(self, after: int, most: int) -> list[Record]:
        found: list[Record] = []
        while len(found) < most:
            rows: list[_Row] = self._database.execute(
                "SELECT number, at_ns, crc, data FROM record WHERE number > ? ORDER BY number LIMIT ?",
                (after, most - len(found)),
            ).fetchall()
            if not rows:
                break
            after = rows[-1][0]
            found += [Record(row[0], row[3]) for row in rows if self._sound(row)]
        return found

    def _sound(self, row: _Row) -> bool:
        number, _, crc, data = row
        if type(data) is bytes and _checksum(number, data) == crc:
            return True
        if number not in self._damaged:
            self._damaged.add(number)
            self.damaged += 1
            if self.damaged == 1:
                log.error("damaged record in the spool, passed over", path=str(self.path), number=number)
        return False

    def _done(self, number: int) -> None:
        if number < self.first:
            return
        with self._transaction() as connection:
            count, size = connection.execute(
                "SELECT count(*), sum(length(data)) FROM record WHERE number <= ?", (number,)
            ).fetchone()
            connection.execute("DELETE FROM record WHERE number <= ?", (number,))
        self.count -= count
        self.bytes -= (size or 0) + RECORD_BYTES * count
        self._damaged = {damaged for damaged in self._damaged if damaged > number}
        self._find_first()
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        if free > 2 * FREE_PAGES:
            # `execute` takes one step of it, which is one page; `executescript` goes on to the end.
            self._database.executescript(f"PRAGMA incremental_vacuum({free - FREE_PAGES})")

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- a broken file ---------------------------------------------------------------------------------

    def _set_aside(self, reason: str) -> None:
        """Move a file that cannot be read out of the way, and begin a new one with what can be saved of it."""
        with suppress(sqlite3.Error):  # it is broken
            self._close()
        aside = self.path.with_name(
            f"{self.path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        )
        while aside.exists():
            aside = aside.with_name(aside.name + "~")
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            beside = self.path.with_name(self.path.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
        self._ready()
        before = self._database.total_changes
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO record (number, at_ns, crc, data) VALUES (?, ?, ?, ?)", _salvage(aside)
            )
            saved = connection.total_changes - before
            last = _newest(aside)
            if last:
                connection.execute("DELETE FROM sqlite_sequence WHERE name = 'record'")
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('record', ?)", (last,))
        self._close()
        self._ready()
        log.error(
            "spool is broken, begun anew", path=str(self.path), aside=str(aside), saved=saved, reason=reason
        )


def _salvage(path: Path) -> Iterator[_Row]:
    """Yield the sound records that a broken file still gives: from both ends, up to the broken place."""
    columns = "SELECT number, at_ns, crc, data FROM record ORDER BY number"
    last = 0
    for query in (columns, columns + " DESC"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for row in connection.execute(query):
                if query != columns and row[0] <= last:
                    break
                if query == columns:
                    last = row[0]
                if type(row[3]) is bytes and _checksum(row[0], row[3]) == row[2]:
                    yield row


def _newest(path: Path) -> int:
    """Return the newest number that a broken file knows of; 0 if it does not tell."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        row = connection.execute(
            "SELECT max(seq, (SELECT coalesce(max(number), 0) FROM record)) FROM sqlite_sequence"
        ).fetchone()
        return row[0] if row else 0
    return 0
