"""The database behind the store: its engine, its schema's version, and what its errors mean. All calls block."""

from __future__ import annotations

import importlib.util
import math
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from pricefeedd import __version__
from pricefeedd.errors import ConfigError, StoreAwayError
from pricefeedd.store import migrations

#: The versions of the schema that this pricefeedd knows, oldest first.
VERSIONS = ("0001",)

#: Daemons that begin at once take turns by this lock of PostgreSQL.
_LOCK = 0x7072696365666565
#: SQLite waits so long for another writer; then the store waits, and can be stopped meanwhile.
_BUSY_MS = 1_000
_CONNECT_S = 5
#: What takes longer is given up: the database hangs.
CALL_S = 10.0


class RefusedError(Exception):
    """The database is there and refuses what it was given: one of the rows is at fault."""


class Database:
    """One database, for use by worker threads: one that writes and a few that read.

    Attributes:
        url: What may be shown of the URL.
        kind: `sqlite` or `postgresql`.
    """

    def __init__(self, url: str) -> None:
        """Prepare a database; nothing is opened before it is used.

        Raises:
            ConfigError: The URL cannot be used.
        """
        parsed = _parse(url)
        self.kind = parsed.get_backend_name()
        self.url = parsed.set(query={}).render_as_string(hide_password=True)
        self._path = Path(parsed.database or "") if self.kind == "sqlite" else None
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_MS / 1000}}
        if self.kind == "postgresql":
            arguments = {"connect_timeout": _CONNECT_S, "application_name": "pricefeedd"}
            arguments["options"] = f"-c statement_timeout={int(CALL_S * 1000)} -c lock_timeout=5000"
            options = {
                "pool_size": 4,
                "connect_args": {k: v for k, v in arguments.items() if k not in parsed.query},
            }
        self._engine = sa.create_engine(parsed, hide_parameters=True, **options)
        if self.kind == "sqlite":
            sa.event.listen(self._engine, "connect", _connected)
            sa.event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(sqlite_begin="IMMEDIATE")
        self._lock = threading.Lock()
        self._busy: dict[Any, float] = {}

    # --- its schema -----------------------------------------------------------------------------------------

    def version(self) -> str | None:
        """Return the version of its schema; None if it has none yet.

        Raises:
            StoreAwayError: It cannot be read.
        """
        with self.reading() as connection:
            return _version(connection)

    def migrate(self) -> str | None:
        """Bring its schema up to the newest version; return the version that it had.

        Whoever else does so at the same time waits, and finds it done.

        Raises:
            StoreAwayError: It cannot be used: away, or of a newer pricefeedd.
        """
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise StoreAwayError(f"the folder of {self.url} cannot be made: {e.strerror}") from e
        with self.reading() as connection:
            found = _version(connection)
        if self._checked(found) == VERSIONS[-1]:
            return found
        from alembic import command  # takes a third of a second, and is seldom needed
        from alembic.config import Config

        with self.writing(patient=True) as connection:
            if self.kind == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            found = self._checked(_version(connection))
            if found != VERSIONS[-1]:
                config = Config()
                config.set_main_option("script_location", str(Path(migrations.__file__).parent))
                config.attributes["connection"] = connection
                command.upgrade(config, VERSIONS[-1])
        return found

    def _checked(self, version: str | None) -> str | None:
        if version is not None and version not in VERSIONS:
            raise StoreAwayError(
                f"the database {self.url} has version {version} of the schema, and pricefeedd {__version__} knows "
                f"none newer than {VERSIONS[-1]}: upgrade pricefeedd, or name another database"
            )
        return version

    # --- using it -------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, *, patient: bool = False) -> Iterator[sa.Connection]:
        """Run one transaction that writes.

        Args:
            patient: Whether it may take as long as it takes.

        Raises:
            StoreAwayError: The database is away, locked or full.
            RefusedError: It refuses a row.
        """
        with self._told(), self._transaction(self._writer, patient=patient) as connection:
            yield connection

    @contextmanager
    def reading(self, *, patient: bool = False) -> Iterator[sa.Connection]:
        """Run one transaction that reads.

        Args:
            patient: Whether it may take as long as it takes.

        Raises:
            StoreAwayError: The database is away.
        """
        with self._told(), self._transaction(self._engine, patient=patient) as connection:
            yield connection

    def cut(self, *, overdue: bool = True) -> int:
        """End what takes too long, or everything: the threads that wait for it get an error. Returns how many."""
        now = time.monotonic()
        cut = 0
        with self._lock:
            for held, until in self._busy.items():
                if overdue and now < until:
                    continue
                cut += 1
                if isinstance(held, sqlite3.Connection):
                    held.interrupt()
                else:
                    # A server that hangs keeps its side open: only our own can be ended.
                    with suppress(OSError), socket.socket(fileno=os.dup(held.fileno())) as end:
                        end.shutdown(socket.SHUT_RDWR)
        return cut

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: sa.Engine, *, patient: bool) -> Iterator[sa.Connection]:
        connection = engine.connect()
        try:
            if self.kind == "postgresql" and not self._answers(connection):
                connection.close()  # the pool has forgotten the others as well
                connection = engine.connect()
            with self._watched(connection, patient=patient), connection.begin():
                if patient and self.kind == "postgresql":
                    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                yield connection
        finally:
            connection.close()

    def _answers(self, connection: sa.Connection) -> bool:
        """Return whether a connection that lay idle is still there. The pool could ask as well, but would wait for ever."""
        with self._watched(connection, patient=False):
            try:
                connection.exec_driver_sql("SELECT 1")
                connection.rollback()
            except DBAPIError as e:
                if not e.connection_invalidated:
                    raise
                return False
        return True

    @contextmanager
    def _watched(self, connection: sa.Connection, *, patient: bool) -> Iterator[None]:
        held = connection.connection.dbapi_connection
        with self._lock:
            self._busy[held] = math.inf if patient else time.monotonic() + CALL_S + 1
        try:
            yield
        finally:
            with self._lock:
                self._busy.pop(held, None)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (DataError, IntegrityError, OverflowError) as e:
            raise RefusedError(_reason(e)) from e
        except DBAPIError as e:
            raise StoreAwayError(_reason(e)) from e
        except StatementError as e:  # a value of ours is none, and nothing was sent
            raise RefusedError(_reason(e)) from e
        except SQLAlchemyError as e:
            raise StoreAwayError(_reason(e)) from e


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            ["store.url: expected sqlite:///path or postgresql+psycopg://user@host/name"]
        ) from None
    if parsed.get_backend_name() == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError(
                [
                    "store.url: PostgreSQL needs the package psycopg, which is not installed; "
                    "type: pip install 'psycopg[binary]'"
                ]
            )
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            [
                "store.url: a database in memory keeps nothing; name a file, such as sqlite:///{state_dir}/pricefeedd.db"
            ]
        )
    return parsed


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _connected(connection: sqlite3.Connection, _: Any) -> None:
    # The driver would begin transactions itself, and not for statements that make tables.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', '')}")


def _reason(error: Exception) -> str:
    """Return the first line of what the database said, without the statement."""
    said = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    return next((line.strip() for line in str(said).splitlines() if line.strip()), type(said).__name__)[:300]
