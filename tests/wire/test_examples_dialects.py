"""The example clients of the older dialects, against a daemon that serves simulated venues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pricefeedd_pyth.testing import PythFake

EXAMPLES = Path(__file__).parents[2] / "contrib" / "examples"
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
root_dialect = "{root}"
public_read = {public}
[[web.keys]]
name = "reader"
key = {{ env = "READER_KEY" }}
[[venues.binance.subscribe]]
market = "spot"
channels = ["candle_1m"]
on_demand = true
[[venues.binance.subscribe]]
market = "linear"
instruments = ["BTC-USDT-PERP"]
channels = ["candle_1m"]
[venues.pyth]
api_key = {{ env = "PYTH_KEY" }}
[[venues.pyth.subscribe]]
market = "oracle"
instruments = ["BTC-USD", "ETH-USD"]
channels = ["price"]
[venues.pyth.endpoints]
"""


@pytest.fixture
async def start(cli: Any, exchange: Any, nursery: trio.Nursery) -> Any:
    """Return a function that starts a daemon and returns it with its address."""
    fake = PythFake()
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 20.0)
    endpoints = "\n".join(f'{key} = "{url}"' for key, url in fake.endpoints().items())

    async def start_(*, root: str = "native", public: bool = True) -> tuple[Any, str]:
        text = CONFIG.format(root=root, public="true" if public else "false") + endpoints
        daemon = await cli.start(
            "run", "--config", cli.config(text), environ={"PYTH_KEY": "key", "READER_KEY": "secret"}
        )
        (base,) = await daemon.binds()
        return daemon, base.replace("http", "ws", 1)

    return start_


async def test_both_clients_read_and_end_after_so_many(cli: Any, start: Any) -> None:
    daemon, base = await start()
    # Begun at once, the clients also wait for the lists of the venues.
    prices = await cli.python(EXAMPLES / "pyth_client.py", f"{base}/ws/pyth", "--limit", "6", "--json")
    one = await cli.python(EXAMPLES / "pyth_client.py", f"{base}/ws/pyth", f"0x{BTC.upper()}", "--limit", "1")
    quotes = await cli.python(
        *(EXAMPLES / "ohlcv_client.py", f"{base}/ws/ohlcv", "binance", "spot", "BTCUSDT", "NOPE"),
        *("--limit", "5", "--json"),
    )
    perpetual = await cli.python(
        *(EXAMPLES / "ohlcv_client.py", f"{base}/ws/ohlcv", "binance", "usdm", "BTCUSDT", "--limit", "1")
    )

    ended = await prices.ended(within_s=20)
    assert ended.code == 0, ended.err
    updates = [json.loads(line)["data"] for line in ended.out.splitlines()]
    assert len(updates) == 6
    assert {update["expo"] for update in updates} == {-8}
    assert all(isinstance(update["price"], float) for update in updates)
    assert all(update["status"] == "trading" for update in updates)
    ended = await one.ended(within_s=20)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("BTC/USD ")

    ended = await quotes.ended(within_s=20)
    assert ended.code == 0, ended.err
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert len(told) == 5
    assert {(q["type"], q["exchange"], q["contract_type"], q["symbol"]) for q in told} == {
        ("quote", "binance", "spot", "BTCUSDT")
    }
    assert all(q["low"] <= q["close"] <= q["high"] and q["timestamp"] % 60_000 == 0 for q in told)
    assert "subscribed: BTCUSDT\n" in ended.err
    assert "unknown symbol 'NOPE' on binance spot" in ended.err
    ended = await perpetual.ended(within_s=20)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("BTCUSDT ")

    status = await trio.to_thread.run_sync(
        lambda: httpx.get(f"{base.replace('ws', 'http', 1)}/status").json()
    )
    assert status["sessions"]["binance"]["on_demand"] == {"held": 0, "leaving": 1}
    assert (await daemon.end()).code == 0


async def test_they_end_when_refused_and_come_back_when_not(cli: Any, start: Any) -> None:
    daemon, base = await start(root="ohlcv", public=False)
    key = {"PRICEFEEDD_API_KEY": "secret"}
    commands = [
        (EXAMPLES / "pyth_client.py", f"{base}/ws/pyth", "0xab"),
        (EXAMPLES / "ohlcv_client.py", base, "binance", "spot", "NOPE"),
    ]
    strangers = [await cli.python(*command) for command in commands]
    wrong = [await cli.python(*command, environ=key) for command in commands]
    reader = await cli.python(EXAMPLES / "ohlcv_client.py", base, "binance", "linear", "BTCUSDT", environ=key)
    for client in strangers:
        ended = await client.ended(within_s=20)
        assert (ended.code, ended.out) == (1, "")
        assert "4501" in ended.err
    for client, what in zip(wrong, ("unknown feed '0xab'", "unknown symbol 'NOPE'"), strict=True):
        ended = await client.ended(within_s=20)
        assert (ended.code, ended.out) == (1, "")
        assert what in ended.err
    await reader.until("BTCUSDT ")
    await daemon.end()
    await reader.until("4001 (private use) pricefeedd is stopping; trying again", where="err")
