"""The whole daemon with a store, and a Binance that it can ask for the past."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from pricefeedd.config import build
from pricefeedd.service import Daemon
from pricefeedd_binance.venue import binance

MINUTE_US = 60_000_000


@attrs.define
class Brought:
    """What plugins brought, without anything being installed; the loader's `Plugins` has the same names."""

    venues: dict[str, Any] = attrs.field(factory=lambda: {"binance": binance()})
    sinks: dict[str, Any] = attrs.field(factory=dict)
    sources: dict[str, Any] = attrs.field(factory=dict)
    electors: dict[str, Any] = attrs.field(factory=dict)
    records: list[Any] = attrs.field(factory=list)
    fakes: dict[str, Any] = attrs.field(factory=dict)
    broken: dict[str, str] = attrs.field(factory=dict)


@asynccontextmanager
async def serving(url: str, folder: Path, endpoints: Mapping[str, str]) -> AsyncIterator[str]:
    """Run a daemon with minutes of one instrument, and yield where it serves."""
    brought: Any = Brought()
    subscribe = [{"market": "spot", "instruments": ["BTC-USDT"], "channels": ["candle_1m", "trade"]}]
    config = build(
        {
            "web": {"listen": ["127.0.0.1:0"]},
            "venues": {"binance": {"endpoints": dict(endpoints), "subscribe": subscribe}},
            **({"store": {"url": url}} if url else {}),
        },
        venues=brought.venues,
        sinks={},
        electors={},
        environ={"STATE_DIRECTORY": str(folder)},
        source="test",
    )
    daemon = Daemon(config, brought)
    stopped = trio.Event()

    async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await daemon.run(task_status=task_status)
        stopped.set()

    async with trio.open_nursery() as nursery:
        (base,) = await nursery.start(run)
        yield base
        daemon.stop()
        with trio.fail_after(15):
            await stopped.wait()


async def fetch(base: str, path: str, **query: Any) -> Any:
    """Return what a path answers, parsed."""
    async with httpx.AsyncClient(timeout=20) as client:
        return (await client.get(f"{base}{path}", params=query)).json()


async def test_the_past_of_a_daemon_outlives_it(exchange: Any, database_url: str, tmp_path: Path) -> None:
    topic = {"topic": "candle_1m:binance:BTC-USDT", "limit": 8}
    candles: dict[str, Any] = {}
    async with serving(database_url, tmp_path / "state", exchange.endpoints()) as base:
        with trio.fail_after(30):
            while len(candles.get("candles", ())) < 8:
                candles = await fetch(base, "/api/v1/candles", **topic)
                await trio.sleep(0.05)
            status: Any = {}
            while status.get("written", {}).get("candles", 0) < 8:
                status = (await fetch(base, "/status"))["store"]
                await trio.sleep(0.05)
    assert status["state"] == "up"

    # The venue has forgotten: now it is the store that tells.
    nowhere = {name: f"{url.partition('://')[0]}://127.0.0.1:9" for name, url in exchange.endpoints().items()}
    span = {"from": candles["candles"][0]["start"], "to": candles["candles"][-1]["start"] + MINUTE_US}
    found: dict[str, Any] = {}
    async with serving(database_url, tmp_path / "state", nowhere) as base:
        with trio.fail_after(30):
            while len(found.get("candles", ())) < 8:
                found = await fetch(base, "/api/v1/candles", topic=topic["topic"], **span)
                await trio.sleep(0.05)
    strip = [{**row, "origin": ""} for row in found["candles"]]
    assert strip == [{**row, "origin": ""} for row in candles["candles"]]


async def test_without_a_store_the_venue_tells(exchange: Any, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    query = {"venue": "binance", "instrument": "BTCUSDT", "limit": 9, "interval": "1m"}
    async with serving("", tmp_path, exchange.endpoints()) as base:
        with trio.fail_after(30):
            while len(found.get("candles", ())) < 9:
                found = await fetch(base, "/api/v1/candles", **query)
                await trio.sleep(0.05)
        assert (await fetch(base, "/status"))["store"] is None
    assert found["topic"] == "candle_1m:binance:BTC-USDT"
    assert all(row["closed"] for row in found["candles"])


async def test_a_daemon_serves_while_its_store_is_away(exchange: Any, tmp_path: Path, capfd: Any) -> None:
    url = "postgresql://somebody:hush@127.0.0.1:9/none"
    ready: dict[str, Any] = {"reasons": [], "status": ""}
    async with serving(url, tmp_path, exchange.endpoints()) as base:
        with trio.fail_after(30):
            while ready["status"] != "ready" or not any("store: down" in r for r in ready["reasons"]):
                ready = await fetch(base, "/ready")
                await trio.sleep(0.05)
        status = (await fetch(base, "/status"))["store"]

    assert (status["state"], status["url"]) == ("down", "postgresql+psycopg://somebody:***@127.0.0.1:9/none")
    said = capfd.readouterr()
    assert "hush" not in said.out + said.err + json.dumps(status) + json.dumps(ready)


async def test_subscriptions_by_rest_outlive_a_restart(
    exchange: Any, database_url: str, tmp_path: Path
) -> None:
    wanted = {"venue": "binance", "channel_type": "trades", "requesting_service": "order-manager"}
    made: set[str] = set()
    async with serving(database_url, tmp_path, exchange.endpoints()) as base:
        with trio.fail_after(30):
            async with httpx.AsyncClient(base_url=base, timeout=20) as client:
                for symbol in ("BTCUSDT", "ETHUSDT"):
                    while True:  # the venue's instruments may not be loaded yet
                        answer = await client.post("/api/v1/subscriptions", json=wanted | {"symbol": symbol})
                        if answer.status_code == 201:
                            break
                        await trio.sleep(0.05)
                    made.add(answer.json()["id"])

    found: dict[str, Any] = {}
    async with serving(database_url, tmp_path, exchange.endpoints()) as base:
        with trio.fail_after(30):
            while found.get("total") != 2:
                found = await fetch(base, "/api/v1/subscriptions")
                await trio.sleep(0.05)
    assert {row["id"] for row in found["subscriptions"]} == made
