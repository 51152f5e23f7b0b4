"""The subscriptions API of a whole daemon, as a bot meets it: shared at the venue, and there again after anything."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import attrs
import httpx
import orjson
import pytest
import trio

from pricefeedd.config import build
from pricefeedd.errors import ServiceAwayError
from pricefeedd.events import State
from pricefeedd.instruments import Kind
from pricefeedd.service import Daemon
from pricefeedd.store.records import SubscriptionRecord
from pricefeedd.testing.market import Listing, Market
from pricefeedd.venue import Venue
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import bybit

PATH = "/api/v1/subscriptions"
TRADES = {"channel_type": "trades", "symbol": "BTCUSDT", "requesting_service": "order-manager"}


class Shelf:
    """A store in memory that outlives daemons, and that may be away.

    Attributes:
        saved: How many records each write had.
    """

    def __init__(self) -> None:
        self.records: dict[str, SubscriptionRecord] = {}
        self.away = False
        self.saved: list[int] = []

    def _reach(self) -> None:
        if self.away:
            raise ServiceAwayError("the database is away")

    async def load(self) -> list[SubscriptionRecord]:
        await trio.lowlevel.checkpoint()
        self._reach()
        return list(self.records.values())

    async def save(self, records: Collection[SubscriptionRecord]) -> None:
        await trio.lowlevel.checkpoint()
        self._reach()
        self.saved.append(len(records))
        self.records.update({record.id: record for record in records})

    async def remove(self, ids: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()
        self._reach()
        for id_ in ids:
            self.records.pop(id_, None)


@attrs.define
class Bot:
    """A program that knows the REST API alone."""

    daemon: Daemon
    http: httpx.AsyncClient

    async def post(self, expect: int = 201, **order: Any) -> Any:
        """Subscribe; return the answer."""
        answer = await self.http.post(PATH, json=order)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def rows(self, **query: Any) -> list[Any]:
        """Return what is listed."""
        body = (await self.http.get(PATH, params=query)).json()
        assert body["total"] == len(body["subscriptions"])
        return list(body["subscriptions"])

    async def until(self, condition: Callable[[], object], within_s: float = 10.0) -> None:
        """Wait for something in the daemon, or at the venue, that has no event here."""
        with trio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110  # see above
                await trio.sleep(0.01)

    def live(self, *topics: str) -> bool:
        """Return whether all of these are live."""
        found = [self.daemon.bus.get(topic) for topic in topics]
        return all(topic is not None and topic.state is State.LIVE for topic in found)


@asynccontextmanager
async def daemon(
    fakes: Mapping[str, Any],
    *,
    shelf: Shelf | None = None,
    linger_s: float = 0.2,
    venues: Mapping[str, Mapping[str, Any]] | None = None,
    web: Mapping[str, Any] | None = None,
) -> AsyncIterator[Bot]:
    """Run a daemon with venues for which nothing is configured to be subscribed."""
    declared: dict[str, Venue] = {"bybit": bybit(), "binance": binance()}
    sections = {
        name: {"endpoints": dict(fake.endpoints()), **(venues or {}).get(name, {})}
        for name, fake in fakes.items()
    }
    config = build(
        {"web": {"listen": ["127.0.0.1:0"], **(web or {})}, "venues": sections},
        venues=declared,
        sinks={},
        electors={},
        environ={},
        source="test",
    )
    plugins: Any = SimpleNamespace(records=[], venues=declared, sinks={})
    made = Daemon(config, plugins, linger_s=linger_s, subscriptions=shelf)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        async with httpx.AsyncClient(base_url=made.binds[0], timeout=20) as http:
            yield Bot(made, http)
        made.stop()


@pytest.fixture
async def fake(nursery: trio.Nursery) -> BybitFake:
    found = BybitFake()
    await nursery.start(found.run)
    nursery.start_soon(found.play, 10.0)
    return found


def asked(fake: BybitFake, op: str) -> list[str]:
    """Return all topics that the venue was asked for, or that were ended, in order."""
    frames = [orjson.loads(text) for _, text in fake.seen.messages]
    return list(itertools.chain(*(frame["args"] for frame in frames if frame["op"] == op)))


async def test_a_bot_creates_lists_filters_and_cancels(fake: BybitFake) -> None:
    async with daemon({"bybit": fake}) as bot:
        made = await bot.post(**TRADES)
        assert made["id"]
        assert {key: made[key] for key in made if key not in ("id", "created_at", "updated_at")} == {
            "venue": "bybit",
            "channel_type": "trades",
            "symbol": "BTCUSDT",
            "market": "linear",
            "account": None,
            "topic": "publicTrade.BTCUSDT",
            "feed": "trade:bybit:BTC-USDT-PERP",
            "requesting_service": "order-manager",
            "is_active": True,
            "last_event_at": None,
        }
        await bot.until(lambda: bot.live(made["feed"]))
