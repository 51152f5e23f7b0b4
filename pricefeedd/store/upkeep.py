"""What a person does with the database: look at it, and take away what is old. All calls block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import sqlalchemy as sa

from pricefeedd.errors import StoreAwayError
from pricefeedd.store import tables
from pricefeedd.store.database import VERSIONS, Database
from pricefeedd.store.reading import newest_ids

#: Rows that are deleted in one transaction: a daemon that writes meanwhile waits no longer than for these.
CHUNK = 5_000

_WHEN: Final[dict[str, sa.Column[Any]]] = {
    "subscriptions": tables.subscriptions.c.created_at,
    "account_balances": tables.account_balances.c.received_at,
    "account_margin_balances": tables.account_margin_balances.c.received_at,
    "candles": tables.candles.c.start,
    "gaps": tables.gaps.c.recorded_at,
}
#: Tables of what can be pruned. Subscriptions are not: services end them.
PRUNED: Final[dict[str, tuple[str, ...]]] = {
    "candles": ("candles",),
    "gaps": ("gaps",),
    "balances": ("account_balances", "account_margin_balances"),
}
#: Tables of which the newest row of each kind stays.
_LATEST: Final = {
    "account_balances": ("venue", "account", "coin"),
    "account_margin_balances": ("venue", "account"),
}


@attrs.frozen(kw_only=True)
class TableFacts:
    """One table.

    Attributes:
        oldest_us: The time of its oldest row, µs since the Unix epoch UTC; None if it is empty.
        newest_us: The same of its newest.
    """

    name: str
    rows: int
    oldest_us: int | None
    newest_us: int | None


def facts(database: Database) -> tuple[list[TableFacts], int]:
    """Return what the tables hold, and the bytes that the whole database takes.

    Raises:
        StoreAwayError: It cannot be read, or has not the tables that this pricefeedd knows.
    """
    _require_version(database)
    found = []
    with database.reading(patient=True) as connection:
        for name, when in _WHEN.items():
            asked = sa.select(sa.func.count(), sa.func.min(when), sa.func.max(when)).select_from(when.table)
            rows, oldest, newest = connection.execute(asked).one()
            found.append(TableFacts(name=name, rows=rows, oldest_us=oldest, newest_us=newest))
        if database.kind == "sqlite":
            size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        else:
            size = "SELECT pg_database_size(current_database())"
        taken: int = connection.execute(sa.text(size)).scalar_one()
    return found, taken


def count_older(database: Database, table: str, before_us: int) -> int:
    """Return how many rows of a table would be pruned.

    Raises:
        StoreAwayError: It cannot be read.
    """
    _require_version(database)
    when = _WHEN[table]
    with database.reading(patient=True) as connection:
        asked = sa.select(sa.func.count()).select_from(when.table).where(*_old(when, before_us))
        found: int = connection.execute(asked).scalar_one()
    return found


def prune(database: Database, table: str, before_us: int) -> Iterator[int]:
    """Delete the rows before a time, oldest first, and yield how many after each part.

    Of balances the newest row of each coin stays, however old.

    Raises:
        StoreAwayError: It cannot be written.
    """
    when = _WHEN[table]
    old = _old(when, before_us)
    while True:
        with database.writing(patient=True) as connection:
            # Many rows may share a time, such as the candles of one minute: all up to that of the last go.
            asked = sa.select(when).where(*old).order_by(when).limit(1).offset(CHUNK - 1)
            last = connection.execute(asked).scalar()
            part = old if last is None else [*old, when <= last]
            deleted = connection.execute(sa.delete(when.table).where(*part)).rowcount
        yield deleted
        if last is None:
            return


def _old(when: sa.Column[Any], before_us: int) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for rows that may go."""
    table = when.table
    old = [when < before_us]
    if table.name in _LATEST:
        assert isinstance(table, sa.Table), "its columns are of one"
        old.append(table.c.id.not_in(newest_ids(table, _LATEST[table.name])))
    return old


def _require_version(database: Database) -> None:
    version = database.version()
    if version != VERSIONS[-1]:
        has = "has no tables of pricefeedd yet" if version is None else f"has version {version} of the schema"
        raise StoreAwayError(f"the database {database.url} {has}; type: pricefeedd store migrate")
