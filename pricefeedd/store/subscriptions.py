"""The subscriptions that services made, as they outlive a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from pricefeedd.store import rows, tables
from pricefeedd.store.records import SubscriptionRecord
from pricefeedd.store.rows import Entry

T = TypeVar("T")


class _Lane(Protocol):
    async def put(self, entries: Sequence[Entry]) -> int: ...


class _Store(Protocol):
    @property
    def kept(self) -> _Lane: ...

    async def read_when_up(self, query: Callable[[sa.Connection], T]) -> T: ...


class Subscriptions:
    """Reads and writes them; writes are in order with all else, and wait on disk while the database is away."""

    def __init__(self, store: _Store) -> None:
        self._store = store

    async def load(self) -> list[SubscriptionRecord]:
        """Return all that are kept, oldest first; waits until the database can be read."""
        return await self._store.read_when_up(_all)

    async def save(self, records: Iterable[SubscriptionRecord]) -> None:
        """Keep these, new or changed. They are on disk when this returns, and soon in the database.

        Raises:
            SinkOverflowError: The database has been away for so long that there is no more room.
            SpoolError: The disk takes nothing.
        """
        await self._put([Entry(rows.SUBSCRIPTIONS, rows.subscription_row(record)) for record in records])

    async def remove(self, ids: Iterable[str]) -> None:
        """Forget these.

        Raises:
            SinkOverflowError: The database has been away for so long that there is no more room.
            SpoolError: The disk takes nothing.
        """
        await self._put([Entry(rows.REMOVE, {"id": each}) for each in ids])

    async def _put(self, entries: list[Entry]) -> None:
        if entries:
            await self._store.kept.put(entries)


def _all(connection: sa.Connection) -> list[SubscriptionRecord]:
    table = tables.subscriptions
    found: Iterable[Any] = connection.execute(
        sa.select(table).order_by(table.c.created_at, table.c.id)
    ).mappings()
    return [SubscriptionRecord(**row) for row in found]
