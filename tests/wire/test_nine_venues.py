"""One daemon, nine venues: all are served at once, and the end of one is nobody else's trouble."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest
import trio

from pricefeedd.loader import load_plugins
from pricefeedd.testing.market import Market
from pricefeedd.testing.simulated import SimulatedVenue

VENUES = ("binance", "bingx", "bybit", "coinbase", "gateio", "hyperliquid", "kraken", "okx", "pyth")
#: A longer candle and a liquidation are left aside: they may rightly not come for minutes.
CHANNELS = ("trade", "quote", "ticker", "book", "candle_1m", "price")
KEYS = {"pyth": 'api_key = { env = "PYTH_KEY" }'}


class Played:
    """A venue's fake that runs on a port of its own until it is killed."""

    def __init__(self, name: str, fake: SimulatedVenue) -> None:
        self.name = name
        self.fake = fake
        self.scope = trio.CancelScope()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.fake.run)
                nursery.start_soon(self.fake.play, 3.0)
                task_status.started()

    def config(self, offered: Mapping[str, frozenset[str]]) -> str:
        """Return its part of a configuration file: one instrument of each market, with all channels."""
        lines = [f"[venues.{self.name}]", KEYS.get(self.name, "")]
        for listing in self.fake.market.listings.values():
            channels = [channel for channel in CHANNELS if channel in offered[listing.market]]
            lines += [
                f"[[venues.{self.name}.subscribe]]",
                f'market = "{listing.market}"',
                f'instruments = ["{listing.name}"]',
                f"channels = {json.dumps(channels)}",
            ]
        lines.append(f"[venues.{self.name}.endpoints]")
        lines += [f'{key} = "{url}"' for key, url in self.fake.endpoints().items()]
        return "\n".join(lines)


async def _stand_up(name: str) -> Played:
    """Return a fake with one listing of each market."""
    plugins = load_plugins()
    make = plugins.fakes[name]
    listings = {listing.market: listing for listing in reversed(make.default_listings())}
    wanted = [listings[market] for market in plugins.venues[name].markets]
    return Played(name, make(Market(wanted), history_minutes=5))


async def test_nine_venues_at_once_and_the_end_of_one(
    cli: Any,
    nursery: trio.Nursery,
    open_reader: Callable[[str], Awaitable[Any]],
    eventually: Callable[..., Awaitable[None]],
) -> None:
    declared = load_plugins().venues
    assert set(VENUES) <= set(declared)
    played = {name: await _stand_up(name) for name in VENUES}
    for venue in played.values():
        await nursery.start(venue.run)
    parts = [venue.config(declared[name].channels) for name, venue in played.items()]
    path = cli.config('[web]\nlisten = ["127.0.0.1:0"]\n' + "\n".join(parts))
    cli.environ["PYTH_KEY"] = "key"
    daemon = await cli.start("run", "--config", path)
    (base,) = await daemon.binds()

    def ready() -> dict[str, Any]:
        return dict(httpx.get(f"{base}/ready").json())

    def topics() -> list[dict[str, Any]]:
        return list(httpx.get(f"{base}/feeds").json()["feeds"])

    wanted = sum(
        len([c for c in CHANNELS if c in declared[name].channels[listing.market]])
        for name, venue in played.items()
        for listing in venue.fake.market.listings.values()
    )

    def all_live() -> bool:
        live = [topic for topic in topics() if topic["state"] == "live"]
        return len(live) >= wanted

    await eventually(all_live, within_s=60)
    listed = {
        (name, market): facts
        for name, markets in ready()["venues"].items()
        for market, facts in markets.items()
    }
    assert set(listed) == {(name, market) for name in VENUES for market in declared[name].markets}
    assert all(facts["healthy"] for facts in listed.values())

    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    for name in VENUES:
        await reader.until(lambda m, name=name: m.get("topic", "").split(":")[1:2] == [name])

    played["kraken"].scope.cancel()
    await reader.until(
        lambda m: m["type"] == "status" and ":kraken:" in m["topic"] and m["data"]["state"] != "live"
    )
    reader.messages.clear()
    for name in VENUES:
        if name != "kraken":
            for _ in range(5):
                await reader.until(lambda m, name=name: m.get("topic", "").split(":")[1:2] == [name])
    states = {t["topic"]: t["state"] for t in topics()}
    assert {state for topic, state in states.items() if ":kraken:" not in topic} == {"live"}
    assert "live" not in {state for topic, state in states.items() if ":kraken:" in topic}
    others = [m for m in reader.messages if ":kraken:" not in m["topic"]]
    assert not [m for m in others if m["type"] in ("status", "gap")]
    assert ready()["status"] == "ready"
    reader.check_sequence()
    ended = await daemon.end(within_s=15)
    assert ended.code == 0


@pytest.mark.parametrize("name", VENUES)
async def test_every_plugin_says_what_it_serves(name: str) -> None:
    """What a user reads in `pricefeedd plugins` and in the errors of the configuration is not empty."""
    venue = load_plugins().venues[name]
    assert venue.title
    assert venue.markets
    assert set(venue.rules) >= set(venue.markets)
    feeds = {feed.endpoint for feed in venue.feeds}
    assert feeds <= set(venue.endpoints)
