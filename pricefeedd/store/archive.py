"""All that is known of the past, with a database or without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from pricefeedd.bus import Bus
from pricefeedd.config import Config
from pricefeedd.errors import StoreAwayError
from pricefeedd.events import PRIVATE_CHANNELS
from pricefeedd.instruments import Directory
from pricefeedd.runtime import VenueRuntime
from pricefeedd.store.history import History
from pricefeedd.store.memory import BalanceBook, GapLedger, Row
from pricefeedd.store.records import Slice

if TYPE_CHECKING:
    from pricefeedd.store.service import Store

#: At the end, what waits may take so long to reach the database; then it stays on disk.
LAST_WRITES_S = 3.0


class Archive:
    """The store if there is one, and what is remembered without.

    Attributes:
        store: None without `[store]`.
        gaps: The gaps of late.
        balances: The latest of each account.
        history: Candles.
    """

    def __init__(
        self,
        config: Config,
        bus: Bus,
        directory: Directory,
        runtimes: Mapping[str, VenueRuntime],
        *,
        now_ns: Callable[[], int],
    ) -> None:
        """Begin to listen to the bus.

        Raises:
            ConfigError: The store's URL cannot be used.
        """
        self.store: Store | None = None
        if config.store is not None:
            from pricefeedd.store.service import Store  # what it needs takes a third of a second to load

            self.store = Store(bus, config.store, config.state_dir, now_ns=now_ns)
        self.gaps = GapLedger(bus)
        self.balances = BalanceBook(bus, keep=None if self.store is None else self.store.keep)
        self.history = History(bus, directory, runtimes, now_ns=now_ns, store=self.store)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep what comes; at the end, what waits is written still, or left on disk for the next time."""
        if self.store is None:
            yield
            return
        async with trio.open_nursery() as nursery:
            await nursery.start(self.store.run)
            async with trio.open_nursery() as restoring:
                restoring.start_soon(self.restore, name="store:restore")
                yield
                restoring.cancel_scope.cancel()
            self.store.end()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WRITES_S

    async def restore(self) -> None:
        """Learn what accounts had before we began, or while another daemon led; nothing without a store."""
        if self.store is None:
            return
        from pricefeedd.store import reading

        for entry in await self.store.read_when_up(reading.latest_balances):
            self.balances.take(entry)

    async def gap_page(self, wanted: Slice) -> tuple[int, Sequence[Row], bool]:
        """Return how many gaps there are, some of them, newest first, and whether the store was asked."""
        if self.store is not None:
            from pricefeedd.store import reading

            try:
                return *(await self.store.read(partial(reading.gaps, wanted=wanted))), True
            except StoreAwayError:
                pass  # those of late are known without it
        rows = self.gaps.newest(partial(_wanted, wanted))
        return len(rows), rows[wanted.offset : wanted.offset + wanted.limit], False

    async def balance_page(self, wanted: Slice) -> tuple[int, Sequence[Row]]:
        """Return how many rows of balances there are, and some of them, newest first.

        Raises:
            StoreAwayError: There is no store, or it cannot be read now.
        """
        if self.store is None:
            raise StoreAwayError("nothing is stored: the configuration has no [store]")
        from pricefeedd.store import reading

        return await self.store.read(partial(reading.balances, wanted=wanted))

    def describe(self) -> dict[str, Any] | None:
        """Return facts for `/status`; None without a store."""
        return None if self.store is None else self.store.describe()

    @property
    def troubles(self) -> list[str]:
        """What `/ready` tells without being less ready."""
        return [] if self.store is None else self.store.troubles


def _wanted(wanted: Slice, row: Row) -> bool:
    return (
        all(row[name] == value for name, value in wanted.equal.items())
        and (wanted.from_us is None or row["to_time"] >= wanted.from_us)
        and (wanted.to_us is None or row["from_time"] < wanted.to_us)
        and (row["channel"] not in PRIVATE_CHANNELS or row["instrument"] in wanted.accounts)
    )
