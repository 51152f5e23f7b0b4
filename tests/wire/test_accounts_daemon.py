"""Accounts as a user has them: the daemon as a process of its own, against Bybit's protocol on a local port."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pricefeedd_bybit.fake_trader import Trader
from pricefeedd_bybit.testing import BybitFake

KEY, SECRET = "key-XXXX-of-main", "secret-YYYY-of-main"
TOPICS = [f"{channel}:bybit:main" for channel in ("order", "execution", "position", "balance")]

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[[web.keys]]
name = "trader"
key = { env = "TRADER_KEY" }
scopes = ["read", "account:main"]
[[web.keys]]
name = "watcher"
key = { env = "WATCHER_KEY" }
scopes = ["read", "account:other"]
[logging]
format = "json"
level = "debug"
[[venues.bybit.subscribe]]
market = "spot"
instruments = ["BTC-USDT"]
channels = ["trade"]
[venues.bybit.accounts.main]
api_key = { env = "BYBIT_KEY" }
api_secret = { env = "BYBIT_SECRET" }
channels = ["order", "execution", "position", "balance"]
"""


@pytest.fixture
async def fake(nursery: trio.Nursery, cli: Any, tmp_path: Path) -> BybitFake:
    """Return a Bybit on a local port, with which `cli` has an account."""
    made = BybitFake(now_ns=time.time_ns)
    await nursery.start(made.run)
    nursery.start_soon(made.play, 5.0)
    for key, url in made.endpoints().items():
        cli.environ[f"PRICEFEEDD__VENUES__BYBIT__ENDPOINTS__{key.upper()}"] = url
    cli.environ |= {
        "BYBIT_KEY": KEY,
        "BYBIT_SECRET": SECRET,
        "TRADER_KEY": "trader-key-0123456789",
        "WATCHER_KEY": "watcher-key-0123456789",
        "STATE_DIRECTORY": str(tmp_path / "state"),
    }
    return made


@pytest.fixture
def trader(fake: BybitFake) -> Trader:
    return fake.trader(KEY, SECRET)


async def get(base: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(base + path)


async def whole(base: str) -> dict[str, Any]:
    """Wait until the account is live and all of its past known; return what `/status` says of it."""
    with trio.fail_after(20):
        while True:
            told = (await get(base, "/status")).json().get("accounts", {}).get("bybit", {}).get("main")
            if told and all(channel["whole"] for channel in told["channels"].values()):
                return dict(told)
            await trio.sleep(0.1)


async def test_only_a_key_with_its_scope_reads_an_account(
    cli: Any, fake: BybitFake, trader: Trader, open_reader: Any
) -> None:
    trader.order("before")
    daemon = await cli.start("run", "--config", cli.config(CONFIG))
    (base,) = await daemon.binds()
    await whole(base)
    reader = await open_reader(base, "trader-key-0123456789")
    await reader.send({"op": "subscribe", "id": 1, "topics": TOPICS})
    ack = await reader.until("ack")
    assert all(result["ok"] for result in ack["results"])
    first = await reader.until("order")
    assert (first["data"]["order_id"], first["origin"]) == ("before", "backfill")

    for key in ("", "watcher-key-0123456789"):
        other = await open_reader(base, key)
        await other.send({"op": "subscribe", "id": 1, "topics": [*TOPICS, "order:*:*", "*:bybit:*", "*:*:*"]})
        refused = await other.until("ack")
        assert [result["ok"] for result in refused["results"]] == [False] * 5 + [True] * 2
        assert {result["error"]["code"] for result in refused["results"][:5]} == {"forbidden"}
        await other.send({"op": "get", "id": 2, "topics": TOPICS})
        await other.until("ack")
        trader.order(f"unseen by {key!r}")
        await other.until("trade")
        await other.until("trade")
        assert not [m for m in other.messages if m["topic"].startswith(("order", "balance"))]

    trader.fill()
    fill = await reader.until("execution")
    assert fill["topic"] == "execution:bybit:main"
    assert len(fill["trace_id"]) == 32
    assert fill["data"]["account"] == "main"
    assert fill["data"]["execution_id"] == "fill-1"
    reader.check_sequence()


async def test_what_operators_see_and_never_a_secret(
    cli: Any, fake: BybitFake, trader: Trader, tmp_path: Path
) -> None:
    daemon = await cli.start("run", "--config", cli.config(CONFIG))
    (base,) = await daemon.binds()
    told = await whole(base)
    assert told["environment"] == "mainnet"
    assert told["channels"]["order"]["state"] == "live"
    assert told["channels"]["order"]["since"] > 1_700_000_000_000_000
    trader.fill()
    trader.order()
    # The venue repeats what it was sent, and cuts, and is not understood.
    fake.faults.message(
        json.dumps({"op": "auth", "success": None, "ret_msg": f"{KEY} {SECRET}"}), "/v5/private"
    )
    fake.ledgers[KEY].denial = (10004, f"error sign! origin_string[1700000000000{KEY}5000]")
    fake.faults.cut("/v5/private")
    with trio.fail_after(20):
        await fake.wait_for(lambda: fake.logins[KEY] == 2 and fake.seen.requests["/v5/order/realtime"] >= 4)
    fake.ledgers[KEY].denial = (99999, f"something about {KEY} and {SECRET}")
    fake.accounts[KEY] = "another secret"
    fake.faults.cut("/v5/private")
    with trio.fail_after(20):
        await fake.wait_for(lambda: fake.login_attempts[KEY] == 3)
    await trio.sleep(0.5)
    shown = {path: (await get(base, path)).text for path in ("/status", "/ready", "/metrics", "/feeds", "/")}
    ready = json.loads(shown["/ready"])
    assert ready["venues"]["bybit"]["account:main"]["healthy"] is False
    assert ready["venues"]["bybit"]["spot"]["healthy"] is True
    assert ready["status"] == "ready"
    status = json.loads(shown["/status"])
    assert status["accounts"]["bybit"]["main"]["channels"]["order"]["state"] == "down"
    assert "Params Error" in status["accounts"]["bybit"]["main"]["last_error"]
    assert 'market="account:main"' in shown["/metrics"]
    ended = await daemon.end()
    lines = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    refusals = [line for line in lines if line.get("message") == "login refused"]
    assert [(line["account"], line["level"]) for line in refusals] == [("main", "error")], "it is said once"
    kept = {str(path): path.read_text() for path in (tmp_path / "state").rglob("*") if path.is_file()}
    assert any(path.endswith("bybit-main.json") for path in kept)
    for place, text in {**shown, **kept, "stderr": ended.err, "stdout": ended.out}.items():
        assert KEY not in text, place
        assert SECRET not in text, place


async def test_a_daemon_that_is_killed_finds_what_it_missed(
    cli: Any, fake: BybitFake, trader: Trader, open_reader: Any, tmp_path: Path
) -> None:
    config = cli.config(CONFIG)
    daemon = await cli.start("run", "--config", config)
    (base,) = await daemon.binds()
    await whole(base)
    path = tmp_path / "state" / "accounts" / "bybit-main.json"
    trader.order("open")
    trader.fill()
    with trio.fail_after(20):
        while not path.exists() or "open" not in path.read_text():  # noqa: ASYNC110  # another process writes it
            await trio.sleep(0.1)
    for round_ in range(2):
        await daemon.end(signal.SIGKILL)
        json.loads(path.read_bytes())
        missed = [trader.fill()["execId"] for _ in range(20)]
        if round_ == 1:
            trader.order("open", "Cancelled", createdTime="1700000000000")
        daemon = await cli.start("run", "--config", config)
        (base,) = await daemon.binds()
        await whole(base)
        epoch = (await get(base, "/status")).json()["epoch"]
        reader = await open_reader(base, "trader-key-0123456789")
        since = {"epoch": epoch, "seq": dict.fromkeys(TOPICS, 0)}
        await reader.send({"op": "subscribe", "id": 1, "topics": TOPICS, "since": since})
        wanted = {*missed} | ({"canceled"} if round_ == 1 else set())
        with trio.fail_after(20):
            while wanted:
                data = (await reader.receive()).get("data", {})
                wanted -= {data.get("execution_id"), data.get("status")}
        told = [m["data"]["execution_id"] for m in reader.of("execution", origin="backfill")]
        assert len(told) == len(set(told)), "each once in one life"


async def test_a_daemon_with_nothing_but_an_account(cli: Any, fake: BybitFake, trader: Trader) -> None:
    text = CONFIG[: CONFIG.index("[[venues")] + CONFIG[CONFIG.index("[venues.bybit.accounts") :]
    daemon = await cli.start("run", "--config", cli.config(text))
    (base,) = await daemon.binds()
    await whole(base)
    ready = await get(base, "/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    ended = await daemon.end()
    assert ended.code == 0
    assert "does not serve it" not in ended.err
