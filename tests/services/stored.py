"""Stores under test, and what goes into them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from pricefeedd.bus import Bus
from pricefeedd.config import StoreConfig
from pricefeedd.events import AccountEvent, Candle, Gap
from pricefeedd.store.database import Database
from pricefeedd.store.memory import BalanceBook
from pricefeedd.store.records import SubscriptionRecord
from pricefeedd.store.service import Store

MINUTE_NS = 60_000_000_000
#: 2026-01-01, in ns.
BEGAN_NS = 1_767_225_600_000_000_000


def candle(number: int = 0, instrument: str = "BTC-USDT", **more: Any) -> Candle:
    fields = {
        "venue": "binance",
        "instrument": instrument,
        "received_ns": BEGAN_NS,
        "start_ns": BEGAN_NS + number * MINUTE_NS,
        "open": "65000.10",
        "high": "65000.20",
        "low": "64999.00",
        "close": f"{number}.50",
        "volume": "12.3400",
        "trades": 7,
        "closed": True,
    }
    return Candle(**{**fields, **more})


def gap(number: int = 0, **more: Any) -> Gap:
    at = BEGAN_NS + number * MINUTE_NS
    fields = {
        "venue": "binance",
        "instrument": "BTC-USDT",
        "received_ns": at + 5_000_000_000,
        "topic_channel": "trade",
        "from_ns": at,
        "to_ns": at + 4_000_000_000,
        "reason": "connection lost",
        "recovered": 3,
        "missing": 1,
    }
    return Gap(**{**fields, **more})


def balance(number: int = 0, coin: str | None = "USDT", account: str = "main", **fields: Any) -> AccountEvent:
    told: dict[str, Any] = {"equity": f"{number}.10"} if coin else {"total_equity": f"{number}.10"}
    if coin:
        told["coin"] = coin
    return AccountEvent(
        venue="bybit",
        instrument=coin or "UNIFIED",
        venue_time_ns=BEGAN_NS + number * 1_000_000,
        received_ns=BEGAN_NS + number * 1_000_000 + 1_000,
        account=account,
        kind="balance",
        key=f"{number}:{coin}",
        fields=told | fields,
    )


def subscription(number: int = 0, **more: Any) -> SubscriptionRecord:
    fields = {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "venue": "bybit",
        "channel_type": "trades",
        "symbol": "BTCUSDT",
        "requesting_service": "order-manager",
        "created_at": number,
        "updated_at": number,
    }
    return SubscriptionRecord(**{**fields, **more})


@attrs.define
class Running:
    """A store that runs, with its bus."""

    bus: Bus
    store: Store
    stopped: trio.Event = attrs.field(factory=trio.Event)

    async def settled(self, within_s: float = 10.0) -> None:
        """Wait until nothing waits: no event tells, for the rows go through files and threads."""
        with trio.fail_after(within_s):
            while self.store.waiting or self.store.state != "up":  # noqa: ASYNC110  # see above
                await trio.sleep(0.01)

    async def until(self, condition: Callable[[], object], within_s: float = 10.0) -> None:
        """Wait until a condition holds."""
        with trio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110  # it is about what threads do
                await trio.sleep(0.01)

    async def stop(self, within_s: float = 10.0) -> None:
        """Let it end as the daemon does."""
        self.store.end()
        with trio.fail_after(within_s):
            await self.stopped.wait()

    async def rows(self, statement: str) -> list[Any]:
        """Return what a statement finds."""
        return await trio.to_thread.run_sync(query, self.store.database, statement)


def query(database: Database, statement: str) -> list[Any]:
    """Run a statement, and return what it finds."""
    with database.writing() as connection:
        done = connection.exec_driver_sql(statement)
        return [tuple(row) for row in done] if done.returns_rows else []


def count(database: Database, table: str) -> int:
    """Return the number of rows in a table."""
    found: int = query(database, f"SELECT count(*) FROM {table}")[0][0]
    return found


async def begin(nursery: trio.Nursery, url: str, folder: Path, **more: Any) -> Running:
    """Begin a store."""
    bus = Bus()
    store = Store(bus, StoreConfig(url=url, **more), folder, now_ns=time.time_ns)
    BalanceBook(bus, keep=store.keep)
    running = Running(bus, store)

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await store.run(task_status=task_status)
        finally:
            running.stopped.set()

    await nursery.start(run)
    return running
