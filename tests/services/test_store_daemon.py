"""The whole daemon with a store, and a Binance that it can ask for the past."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import trio

MINUTE_US = 60_000_000


def configuration(url: str) -> str:
    """Return a daemon's configuration with minutes of one instrument."""
    store = f'[store]\nurl = "{url}"\n' if url else ""
    return (
        '[web]\nlisten = ["127.0.0.1:0"]\n'
        f"{store}"
        "[venues.binance]\n[[venues.binance.subscribe]]\n"
        'market = "spot"\ninstruments = ["BTC-USDT"]\nchannels = ["candle_1m", "trade"]\n'
    )


async def fetch(base: str, path: str, **query: Any) -> Any:
    """Return what a path answers, parsed."""
    async with httpx.AsyncClient(timeout=20) as client:
        return (await client.get(f"{base}{path}", params=query)).json()


async def test_the_past_of_a_daemon_outlives_it(
    cli: Any, exchange: Any, database_url: str, tmp_path: Path
) -> None:
    cli.environ["STATE_DIRECTORY"] = str(tmp_path / "state")
    config = cli.config(configuration(database_url))
    running = await cli.start("run", "--config", config)
    (base,) = await running.binds()
    topic = {"topic": "candle_1m:binance:BTC-USDT", "limit": 8}
    candles: dict[str, Any] = {}
    with trio.fail_after(30):
        while len(candles.get("candles", ())) < 8:
            candles = await fetch(base, "/api/v1/candles", **topic)
            await trio.sleep(0.1)
        status: Any = {}
        while status.get("written", {}).get("candles", 0) < 8:
            status = (await fetch(base, "/status"))["store"]
            await trio.sleep(0.1)
    assert status["state"] == "up"
    assert (await running.end()).code == 0

    # The venue has forgotten: now it is the store that tells.
    for key in [key for key in cli.environ if "ENDPOINTS" in key]:
        cli.environ[key] = cli.environ[key].partition("://")[0] + "://127.0.0.1:9"
    again = await cli.start("run", "--config", config)
    (base,) = await again.binds()
    span = {"from": candles["candles"][0]["start"], "to": candles["candles"][-1]["start"] + MINUTE_US}
    found: dict[str, Any] = {}
    with trio.fail_after(30):
        while len(found.get("candles", ())) < 8:
            found = await fetch(base, "/api/v1/candles", topic=topic["topic"], **span)
            await trio.sleep(0.1)
    strip = [{**row, "origin": ""} for row in found["candles"]]
    assert strip == [{**row, "origin": ""} for row in candles["candles"]]
    assert (await again.end()).code == 0


async def test_without_a_store_the_venue_tells(cli: Any, exchange: Any) -> None:
    running = await cli.start("run", "--config", cli.config(configuration("")))
    (base,) = await running.binds()
    found: dict[str, Any] = {}
    with trio.fail_after(30):
        while len(found.get("candles", ())) < 9:
            found = await fetch(
                base, "/api/v1/candles", venue="binance", instrument="BTCUSDT", limit=9, interval="1m"
            )
            await trio.sleep(0.1)
    assert found["topic"] == "candle_1m:binance:BTC-USDT"
    assert json.dumps(found["candles"]).count('"closed": true') == 9
    assert (await fetch(base, "/status"))["store"] is None
    assert (await running.end()).code == 0


async def test_a_daemon_serves_while_its_store_is_away(cli: Any, exchange: Any, tmp_path: Path) -> None:
    cli.environ["STATE_DIRECTORY"] = str(tmp_path / "state")
    url = "postgresql://somebody:hush@127.0.0.1:9/none"
    running = await cli.start("run", "--config", cli.config(configuration(url)))
    (base,) = await running.binds()
    ready: dict[str, Any] = {"reasons": [], "status": ""}
    with trio.fail_after(30):
        while ready["status"] != "ready" or not any("store: down" in reason for reason in ready["reasons"]):
            ready = await fetch(base, "/ready")
            await trio.sleep(0.1)
    status = (await fetch(base, "/status"))["store"]
    assert (status["state"], status["url"]) == ("down", "postgresql+psycopg://somebody:***@127.0.0.1:9/none")

    ended = await running.end()

    assert ended.code == 0
    assert "hush" not in ended.out + ended.err + json.dumps(status) + json.dumps(ready)
    assert "Traceback" not in ended.err


async def test_subscriptions_by_rest_outlive_a_kill(
    cli: Any, exchange: Any, database_url: str, tmp_path: Path
) -> None:
    cli.environ["STATE_DIRECTORY"] = str(tmp_path / "state")
    config = cli.config(configuration(database_url))
    running = await cli.start("run", "--config", config)
    (base,) = await running.binds()
    wanted = {"venue": "binance", "channel_type": "trades", "requesting_service": "order-manager"}
    made: list[dict[str, Any]] = []
    with trio.fail_after(30):
        async with httpx.AsyncClient(base_url=base, timeout=20) as client:
            for symbol in ("BTCUSDT", "ETHUSDT"):
                while True:  # the venue's instruments may not be loaded yet
                    answer = await client.post("/api/v1/subscriptions", json=wanted | {"symbol": symbol})
                    if answer.status_code == 201:
                        break
                    await trio.sleep(0.1)
                made.append(answer.json())
    await running.end(signal.SIGKILL)

    again = await cli.start("run", "--config", config)
    (base,) = await again.binds()
    found: dict[str, Any] = {}
    with trio.fail_after(30):
        while found.get("total") != 2:
            found = await fetch(base, "/api/v1/subscriptions")
            await trio.sleep(0.1)
    assert {row["id"] for row in found["subscriptions"]} == {row["id"] for row in made}
    assert (await again.end()).code == 0
