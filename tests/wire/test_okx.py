"""OKX as a user meets it: commands against the simulator, and real traffic through the whole daemon.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it the test that needs them is skipped.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd.testing.capture import What, read_capture
from pricefeedd_okx.testing import OkxFake, capture_server, tape
from pricefeedd_okx.venue import okx

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "okx"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[[venues.okx.subscribe]]
market = "spot"
instruments = ["BTC-USDT"]
channels = ["trade", "ticker", "book"]
[[venues.okx.subscribe]]
market = "inverse"
instruments = ["BTC-USD-220527", "UNI-USD-SWAP"]
channels = ["trade", "ticker", "book"]
"""

#: By our name: updates, best bid and offer with their sizes at the end, trades, tickers. Computed from the file alone.
RECORDED = {
    "BTC-USDT": (97, "30236.1 0.18050747 30236.2 0.001", 69),
    "BTC-USD-20220527": (98, "30229.4 2 30238.8 3", 4),
    "UNI-USD-PERP": (92, "5.137 20 5.145 50", 1),
}


def environ(endpoints: Mapping[str, str]) -> dict[str, str]:
    return {f"PRICEFEEDD__VENUES__OKX__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()}


@pytest.fixture
async def venue(nursery: trio.Nursery, cli: Any) -> OkxFake:
    """Return a simulated OKX on a local port where something happens; `cli` is pointed at it."""
    fake = OkxFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 20.0)
    cli.environ.update(environ(fake.endpoints()))
    return fake


async def test_tail_prints_as_many_trades_as_asked_for(cli: Any, venue: OkxFake) -> None:
    ended = await cli.run("tail", "okx", "BTC-USDT", "ETH-USDT", "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 10
    for line in ended.lines:
        assert re.match(
            r"\d\d:\d\d:\d\d\.\d{3} (BTC|ETH)-USDT id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell)", line
        )


async def test_tail_of_a_contract_by_okxs_own_name(cli: Any, venue: OkxFake) -> None:
    ended = await cli.run(
        "tail",
        "okx",
        "BTC-USD_UM-261225",
        "--market",
        "linear",
        "--channel",
        "book",
        "--limit",
        "3",
        "--json",
    )

    assert (ended.code, ended.err) == (0, "")
    first, *others = ended.json()
    assert first["topic"] == "book:okx:BTC-USD_UM-20261225"
    assert [m["data"]["kind"] for m in (first, *others)] == ["snapshot", "delta", "delta"]


async def test_a_venue_that_cannot_be_reached_is_told_in_time(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        base = f"127.0.0.1:{bound.getsockname()[1]}"
        cli.environ.update(environ(OkxFake().endpoints(base)))
        running = await cli.start("tail", "okx", "BTC-USDT")
        with trio.fail_after(AWAY_S + 20):  # on a machine that has much else to do, starting takes long
            ended = await running.ended(within_s=AWAY_S + 20)

    assert (ended.code, ended.out) == (69, "")
    assert ended.err.startswith("okx")
    assert "cannot be reached" in ended.err
    assert len(ended.err.splitlines()) == 1


def book_of(messages: list[dict[str, Any]], instrument: str) -> tuple[int, str]:
    """Return the deltas applied, and best bid and offer with their sizes, from a reader's frames alone."""
    sides: dict[str, dict[Decimal, str]] = {"bids": {}, "asks": {}}
    deltas, known = 0, False
    for message in messages:
        if message["topic"] != f"book:okx:{instrument}":
            continue
        if message["type"] == "status":
            known = known and message["data"]["state"] == "live"
            continue
        data = message["data"]
        if data["kind"] == "snapshot":
            sides, known = {"bids": {}, "asks": {}}, True
        else:
            assert known, "a delta came while nobody could have a book"
            deltas += 1
        for side, levels in sides.items():
            for price, size in data[side]:
                levels[Decimal(price)] = size
                if not Decimal(size):
                    del levels[Decimal(price)]
    assert known
    bid, ask = max(sides["bids"]), min(sides["asks"])
    return deltas, f"{bid} {sides['bids'][bid]} {ask} {sides['asks'][ask]}"


@pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")
async def test_a_recorded_session_comes_out_as_it_was(
    cli: Any, nursery: trio.Nursery, open_reader: Any, eventually: Any
) -> None:
    """Two markets on one recorded connection, by the daemon's connections of each, to a reader's socket."""
    stream = _FOLDER / "all.ws.capture"
    server = capture_server(tape(_FOLDER / "all.rest.capture", stream))
    assert isinstance(server.fake, OkxFake)
    await nursery.start(server.fake.run)
    names = {name for _, name in server.streams}
    received = [json.loads(r.text) for r in read_capture(stream) if r.what is What.RECEIVED]
    tickers = Counter(
        m["arg"]["instId"] for m in received if m["arg"]["channel"] == "tickers" and "data" in m
    )
    daemon = await cli.start("run", "--config", cli.config(CONFIG), environ=environ(server.fake.endpoints()))
    base = (await daemon.binds())[0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("ack")
    with trio.fail_after(30):
        await server.fake.wait_subscribed(*names)
        nursery.start_soon(server.run)  # only now: nothing was missed
        await server.fake.wait_for(lambda: all(server.sent[name] for name in names))
        await server.wait_played()

    def all_read() -> bool:
        ready = httpx.get(f"{base}/ready").json()
        markets = ready["venues"].get("okx", {}).values()
        # Each stream was acknowledged besides.
        return bool(sum(m["total_messages"] for m in markets) >= sum(server.sent.values()) + len(names))

    await eventually(all_read)
    await reader.send({"op": "ping", "id": 2})
    await reader.until("pong")
    await reader.close()
    ended = await daemon.end()

    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert not [m for m in reader.messages if m["type"] == "gap"]
    reader.check_sequence()
    assert sum(tickers.values()) == 28
    for instrument, (updates, best, trades) in RECORDED.items():
        assert book_of(reader.messages, instrument) == (updates, best)
        assert len([m for m in reader.of("trade") if m["topic"].endswith(f":{instrument}")]) == trades
    assert len(reader.of("ticker")) == 28


def test_the_simulator_has_all_endpoints() -> None:
    assert set(OkxFake().endpoints("127.0.0.1:1")) == set(okx().endpoints)
