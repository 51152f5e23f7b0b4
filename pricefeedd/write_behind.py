"""Records on their way to the store: the newest of each waits until the store has it, and nobody waits for the store."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Protocol

import structlog
import trio

from pricefeedd.errors import PricefeeddError
from pricefeedd.limits import backoff
from pricefeedd.store.records import SubscriptionRecord

log = structlog.get_logger("pricefeedd.write_behind")

#: So many records are written at a time.
AT_ONCE = 200


class Repository(Protocol):
    """Where records outlive us. What it cannot do now raises `PricefeeddError`, and is tried again."""

    async def load(self) -> Iterable[SubscriptionRecord]:
        """Return all records."""
        ...

    async def save(self, records: Collection[SubscriptionRecord]) -> object:
        """Insert or replace records; they are durable when this returns."""
        ...

    async def remove(self, ids: Collection[str]) -> object:
        """Delete records."""
        ...


class WriteBehind:
    """What a repository does not have yet."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._records: dict[str, SubscriptionRecord] = {}
        self._removed: dict[str, None] = {}
        self._changed = trio.Event()
        self._written = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        """How many records are not written, or not removed, yet."""
        return len(self._records) + len(self._removed)

    def save(self, record: SubscriptionRecord) -> None:
        """Have a record written soon."""
        self._records[record.id] = record
        self._changed.set()

    def remove(self, ids: Iterable[str]) -> None:
        """Have records removed soon."""
        for id_ in ids:
            self._records.pop(id_, None)
            self._removed[id_] = None
        self._changed.set()

    async def stored(self, ids: Iterable[str]) -> None:
        """Wait until records were written as they are now, or later."""
        wanted = {id_: record for id_ in ids if (record := self._records.get(id_)) is not None}
        while any(self._records.get(id_) is record for id_, record in wanted.items()):
            await self._written.park()

    async def load(self) -> list[SubscriptionRecord]:
        """Return what the repository has, trying for as long as it takes."""
        delays = backoff()
        while True:
            try:
                return list(await self._repository.load())
            except PricefeeddError as e:
                delay = next(delays)
                log.warning("subscriptions not loaded", reason=str(e), delay_s=round(delay, 1))
                await trio.sleep(delay)

    async def run(self) -> None:
        """Write what changes, for ever."""
        delays = backoff()
        while True:
            await self._changed.wait()
            try:
                await self.flush()
            except PricefeeddError as e:
                delay = next(delays)
                log.warning("subscriptions not stored", reason=str(e), delay_s=round(delay, 1))
                await trio.sleep(delay)
            else:
                delays = backoff()

    async def flush(self) -> None:
        """Write all that waits.

        Raises:
            PricefeeddError: The repository cannot; what was not written waits still.
        """
        while self.waiting:
            batch = dict(islice(self._records.items(), AT_ONCE))
            if batch:
                await self._repository.save(list(batch.values()))
                for id_, record in batch.items():
                    if (
                        self._records.get(id_) is record
                    ):  # else it changed meanwhile, and is written once more
                        del self._records[id_]
                self._written.unpark_all()
            gone = list(self._removed)
            if gone:
                await self._repository.remove(gone)
                for id_ in gone:
                    del self._removed[id_]
        self._changed = trio.Event()
