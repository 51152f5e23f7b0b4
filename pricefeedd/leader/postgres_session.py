"""One connection to PostgreSQL, as an elector uses it: the statements, and what their errors mean.

Its calls block and belong into a thread; `cut` and `fileno` may be called from any thread at any time.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import psycopg
from psycopg import errors

#: Who gives the lead up tells it here, so that nobody has to look again and again.
CHANNEL = "pricefeedd_leader"

_TABLE = """
CREATE TABLE pricefeedd_leader (
    name text PRIMARY KEY,
    fence bigint NOT NULL,
    beat bigint NOT NULL,
    holder text NOT NULL,
    pid integer NOT NULL,
    promise_s double precision NOT NULL,
    renewed_at timestamptz NOT NULL
) WITH (fillfactor = 50)
"""

#: Whose lock it is. PostgreSQL shows the two halves of our number apart.
_HOLDER = """
FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid::bigint = %(high)s AND objid::bigint = %(low)s
"""


class AwayError(Exception):
    """The database is away, does not answer, or refuses us; the message says which."""


@attrs.frozen(kw_only=True)
class Row:
    """What the table says of one group of daemons.

    Attributes:
        fence: Counts take-overs.
        beat: Counts take-overs and renewals: while it stands still nobody renews.
        holder: Who leads or led, by its identity; "" for who gave the lead up.
        pid: The server's process that serves the holder.
        promise_s: The holder publishes nothing if it could not renew for so long.
    """

    fence: int
    beat: int
    holder: str
    pid: int
    promise_s: float


class Session:
    """One connection, with the lock while it holds it.

    Attributes:
        locked: Whether it holds the lock.
        pid: The server's process that serves it; 0 before it is open.
    """

    def __init__(self, url: str, name: str, identity: str, *, patience_s: float) -> None:
        """Prepare a connection.

        Args:
            name: Of the group of daemons of which one leads.
            patience_s: The server gives a statement up after so long, and so does the system with what it sent.
        """
        self.locked = False
        self.pid = 0
        self._url = url
        self._name = name
        self._identity = identity
        self._patience_ms = max(1, int(patience_s * 1000))
        self._turn = threading.RLock()  # a call that was given up may still be under way
        self._guard = threading.Lock()
        self._over = False
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        digest = hashlib.sha256(f"pricefeedd leader {name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)
        self._place = {"high": int.from_bytes(digest[:4]), "low": int.from_bytes(digest[4:8])}

    # --- from any thread ----------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the socket's number, which is readable when the server says something or has ended."""
        assert self._connection is not None, "it is open"
        return self._connection.fileno()

    def cut(self) -> None:
        """End it at once: who waits for an answer gets an error. An advisory lock goes with it."""
        with self._guard:
            self._over = True
            connection = self._connection
            if connection is not None and not connection.closed:
                # Only our own side of it can be ended, for the other may hang.
                with suppress(OSError, psycopg.Error), socket.socket(fileno=connection.fileno()) as end:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    finally:
                        end.detach()

    # --- in a thread --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, and make the table and the group's row where they are absent.

        Raises:
            AwayError: That failed.
        """
        with self._told():
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=5,
                application_name=f"pricefeedd {self._identity}"[:63],
                keepalives=1,
                keepalives_idle=2,
                keepalives_interval=1,
                keepalives_count=3,
                tcp_user_timeout=self._patience_ms,
            )
            with self._guard:
                self._connection = connection
                over = self._over
            if over:  # nobody waits for it any more
                connection.close()
                return
            self.pid = connection.info.backend_pid
            # A renewal that a crash of the server takes back does no harm: it was told to nobody but the leader. What
            # must not be taken back is a fence, see `take`.
            connection.execute(
                "SELECT set_config('statement_timeout', %(ms)s, false), set_config('lock_timeout', %(ms)s, false), "
                "set_config('synchronous_commit', 'off', false)",
                {"ms": str(self._patience_ms)},
            )
            self._prepare(connection)
            connection.execute(f"LISTEN {CHANNEL}")

    def _prepare(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        found = connection.execute("SELECT to_regclass('pricefeedd_leader')").fetchone()
        if found is None or found[0] is None:
            try:
                # Another daemon may do the same just now.
                with suppress(errors.UniqueViolation, errors.DuplicateTable):
                    connection.execute(_TABLE)
            except (errors.InsufficientPrivilege, errors.InvalidSchemaName) as e:
                raise AwayError(
                    f"the table pricefeedd_leader cannot be made ({_first_line(e)}); "
                    "GRANT USAGE, CREATE ON SCHEMA public to the role, or make the table for it"
                ) from e
        connection.execute(
            "INSERT INTO pricefeedd_leader VALUES (%s, 0, 0, '', 0, 0, clock_timestamp()) ON CONFLICT DO NOTHING",
            (self._name,),
        )

    def close(self) -> None:
        """Close it."""
        with self._guard:
            self._over = True
        with self._turn, self._guard:
            if self._connection is not None:
                self._connection.close()
        self.locked = False

    def read(self) -> Row:
        """Return what the table says now.

        Raises:
            AwayError: It cannot be read.
        """
        found = self._ask(
            "SELECT fence, beat, holder, pid, promise_s FROM pricefeedd_leader WHERE name = %(name)s"
        )
        if found is None:
            raise AwayError(f"somebody removed the row {self._name!r} from the table pricefeedd_leader")
        fence, beat, holder, pid, promise_s = found
        return Row(fence=fence, beat=beat, holder=holder, pid=pid, promise_s=promise_s)

    def lock(self) -> int:
        """Take the lock if it is free; return 0 if we have it now, else the server's process that holds it.

        Raises:
            AwayError: The database is away.
        """
        if self.locked:  # they are counted: twice taken must be twice given back
            return 0
        found = self._ask("SELECT pg_try_advisory_lock(%(key)s)")
        assert found is not None, "a SELECT without FROM has one row"
        self.locked = bool(found[0])
        if self.locked:
            return 0
        holder = self._ask(f"SELECT pid {_HOLDER}")
        return -1 if holder is None else int(holder[0])

    def unlock(self) -> None:
        """Give the lock back, and wake who waits for it.

        Raises:
            AwayError: The database is away, and with it the lock.
        """
        self._ask("SELECT pg_advisory_unlock(%(key)s), pg_notify(%(channel)s, %(name)s)")
        self.locked = False

    def take(self, row: Row, promise_s: float) -> int | None:
        """Raise the fence and write us into the row, unless it is not as it was; return the fence.

        Raises:
            AwayError: The database is away. Whether the fence was raised is not known then.
        """
        assert self.locked, "only who has the lock takes over"
        with self._told():
            assert self._connection is not None, "it is open"
            with self._connection.transaction():
                self._connection.execute("SET LOCAL synchronous_commit = on")
                found = self._ask(
                    "UPDATE pricefeedd_leader SET fence = fence + 1, beat = beat + 1, holder = %(holder)s, "
                    "pid = pg_backend_pid(), promise_s = %(promise_s)s, renewed_at = clock_timestamp() "
                    "WHERE name = %(name)s AND fence = %(fence)s AND beat = %(beat)s RETURNING fence, pid",
                    fence=row.fence,
                    beat=row.beat,
                    promise_s=promise_s,
                )
        if found is None:
            return None
        self._same_server(int(found[1]))
        return int(found[0])

    def renew(self, fence: int, promise_s: float) -> bool:
        """Say that we still lead; return whether nobody took over meanwhile.

        Raises:
            AwayError: The database is away. Whether it was renewed is not known then.
        """
        assert self.locked, "only who has the lock renews"
        found = self._ask(
            "UPDATE pricefeedd_leader SET beat = beat + 1, pid = pg_backend_pid(), promise_s = %(promise_s)s, "
            "renewed_at = clock_timestamp() WHERE name = %(name)s AND fence = %(fence)s RETURNING pid",
            fence=fence,
            promise_s=promise_s,
        )
        if found is None:
            return False
        self._same_server(int(found[0]))
        return True

    def release(self, fence: int) -> None:
        """Give the lead up: nothing was promised any more, and the lock is free.

        Raises:
            AwayError: The database is away.
        """
        self._ask(
            "UPDATE pricefeedd_leader SET beat = beat + 1, holder = '', pid = 0, promise_s = 0, "
            "renewed_at = clock_timestamp() WHERE name = %(name)s AND fence = %(fence)s",
            fence=fence,
        )
        self.unlock()

    def evict(self, pid: int) -> None:
        """End another session that holds the lock; one that holds it no longer is left alone.

        Raises:
            AwayError: The database is away, or we may not.
        """
        try:
            self._ask(f"SELECT pg_terminate_backend(pid) {_HOLDER} AND pid = %(pid)s", pid=pid)
        except AwayError as e:
            if isinstance(e.__cause__, errors.InsufficientPrivilege):
                raise AwayError(
                    f"the session {pid} that holds the lock is frozen, and cannot be ended ({e}); "
                    "let all daemons use the same role"
                ) from e
            raise

    def _ask(self, statement: str, **more: object) -> tuple[Any, ...] | None:
        with self._told():
            assert self._connection is not None, "it is open"
            known = {"name": self._name, "key": self._key, "channel": CHANNEL, "holder": self._identity}
            done = self._connection.execute(statement, {**known, **self._place, **more})
            return done.fetchone() if done.description else None

    def _same_server(self, pid: int) -> None:
        """Check that the lock and the row are told by one session of the server.

        Raises:
            AwayError: They are not.
        """
        if pid != self.pid:
            raise AwayError(
                "a pooler in transaction mode stands before the database, where locks do not hold; "
                "let the url lead to PostgreSQL itself, or to a pool in session mode"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            except psycopg.Error as e:
                raise AwayError(_first_line(e)) from e


def _first_line(error: Exception) -> str:
    """Return what the database said, in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]
