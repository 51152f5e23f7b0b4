"""Hyperliquid through the whole program: real traffic out of a reader's socket, and `tail` against its simulator."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd.testing.capture import What, read_capture
from pricefeedd_hyperliquid.testing import HyperliquidFake, capture_server, perpetual, tape

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "hyperliquid"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[[venues.hyperliquid.subscribe]]
market = "linear"
instruments = ["{coin}"]
channels = {channels}
[venues.hyperliquid.session]
backfill_after_s = {after_s}
"""


def environ(endpoints: dict[str, str]) -> dict[str, str]:
    return {
        f"PRICEFEEDD__VENUES__HYPERLIQUID__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()
    }


@pytest.fixture
async def hyperliquid(nursery: trio.Nursery, cli: Any) -> HyperliquidFake:
    """Return a simulated Hyperliquid on a local port where something happens; `cli` is pointed at it."""
    fake = HyperliquidFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 20.0)
    cli.environ.update(environ(fake.endpoints()))
    return fake


# --- Captures ---------------------------------------------------------------------------------------------

captured = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")


def _received(base: str) -> int:
    """Return how many of the venue's frames the daemon has read."""
    markets = httpx.get(f"{base}/ready").json()["venues"].get("hyperliquid", {}).values()
    return sum(market["total_messages"] for market in markets)


async def replayed(
    cli: Any, nursery: trio.Nursery, open_reader: Any, eventually: Any, *, file: str, coin: str, channels: list[str]
) -> Any:  # fmt: skip
    """Return a reader that got a recorded session through the daemon, from its first frame to its last."""
    path = _FOLDER / f"{file}.ws.capture"
    server = capture_server(tape(path), listings=[perpetual(coin, "1.0", "0.1", "0.1")])
    await nursery.start(server.fake.run)
    names = {name for _, name in server.streams}
    assert isinstance(server.fake, HyperliquidFake)
    # The daemon's own time plays no part: what it takes for the last whole minute lies before the tape.
    begun_s = min(record.time_ns for record in read_capture(path)) / 1e9
    after_s = round(time.time() - begun_s + 300, 1)
    config = cli.config(CONFIG.format(coin=coin, channels=json.dumps(channels), after_s=after_s))
    daemon = await cli.start("run", "--config", config, environ=environ(server.fake.endpoints()))
    base = (await daemon.binds())[0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("ack")
    nursery.start_soon(server.run)  # only now: nothing was missed
    with trio.fail_after(30):
        await server.fake.wait_for(lambda: all(server.sent[name] for name in names))
        await server.wait_played()
    sent = sum(server.sent.values()) + len(names)  # and an ack for each
    await eventually(lambda: _received(base) >= sent)
    await reader.send({"op": "ping", "id": 2})
    await reader.until("pong")
    await reader.close()
    ended = await daemon.end()
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert not [m for m in reader.messages if m["type"] == "gap"]
    reader.check_sequence()
    return reader


@captured
async def test_a_recorded_session_comes_out_as_it_was(
    cli: Any, nursery: trio.Nursery, open_reader: Any, eventually: Any
) -> None:
    reader = await replayed(
        cli, nursery, open_reader, eventually, file="perp", coin="BTC", channels=["trade", "book"]
    )
    records = [r for r in read_capture(_FOLDER / "perp.ws.capture") if r.what is What.RECEIVED]
    frames = [json.loads(record.text) for record in records]
    told = [str(row["tid"]) for frame in frames if frame["channel"] == "trades" for row in frame["data"]]
    trades = [m for m in reader.messages if m["type"] == "trade"]
    # Recorded in 2025, all of it is from the past by our clock.
    assert [m["data"]["id"] for m in trades] == told
    assert len(set(told)) == 64
    assert {m["origin"] for m in trades} == {"backfill"}
    books = [m["data"] for m in reader.messages if m["type"] == "book"]
    shown = [
        [[[level["px"], level["sz"]] for level in side] for side in frame["data"]["levels"]]
        for frame in frames
        if frame["channel"] == "l2Book"
    ]
    news = [book for book, before in zip(shown, [None, *shown], strict=False) if book != before]
    assert Counter(book["kind"] for book in books) == {"snapshot": len(books)}
    assert books[-1]["bids"][0] == ["105050.0", "1.12931"]
    assert books[-1]["asks"][0] == ["105051.0", "6.13423"]
    # Books are state: a reader that lags gets the newest only.
    assert [book for book in books if [book["bids"], book["asks"]] not in news] == []
    assert len(books) <= len(news)


@captured
async def test_a_recorded_minute_closes_with_its_late_last_word(
    cli: Any, nursery: trio.Nursery, open_reader: Any, eventually: Any
) -> None:
    reader = await replayed(
        cli, nursery, open_reader, eventually, file="perp-candle-20250320", coin="AAVE", channels=["candle_1m"]
    )  # fmt: skip
    minutes = [m["data"] for m in reader.messages if m["type"] == "candle_1m"]
    closed = [m for m in minutes if m["closed"]]
    assert [(m["start"], m["close"], m["volume"]) for m in closed] == [(1742428740000000, "182.58", "0.21")]
    *_, running = (m for m in minutes if not m["closed"])
    assert (running["start"], running["close"], running["trades"]) == (1742428800000000, "182.64", 6)


# --- tail -------------------------------------------------------------------------------------------------


async def test_tail_prints_as_many_trades_as_asked_for(cli: Any, hyperliquid: HyperliquidFake) -> None:
    ended = await cli.run("tail", "hyperliquid", "BTC-USD-PERP", "ETH-USD-PERP", "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 10
    for line in ended.lines:
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3} (BTC|ETH)-USD-PERP id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell)", line
        )


async def test_tail_takes_symbols_and_other_channels(cli: Any, hyperliquid: HyperliquidFake) -> None:
    ended = await cli.run(
        "tail", "hyperliquid", "@107", "--market", "spot", "--channel", "book", "--limit", "2", "--json"
    )

    assert (ended.code, ended.err) == (0, "")
    for message in ended.json():
        assert message["topic"] == "book:hyperliquid:HYPE-USDC"
        assert message["data"]["kind"] == "snapshot"
        assert len(message["data"]["bids"]) == 5


async def test_tail_knows_the_market_by_its_other_name(cli: Any, hyperliquid: HyperliquidFake) -> None:
    ended = await cli.run(
        "tail", "hyperliquid", "kpepe", "--market", "perp", "--channel", "ticker", "--limit", "1"
    )

    assert (ended.code, ended.err) == (0, "")
    assert "kPEPE-USD-PERP" in ended.out
    assert "funding_rate=" in ended.out


async def test_a_venue_that_cannot_be_reached_is_told_in_time(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        port = bound.getsockname()[1]
        cli.environ.update(environ(HyperliquidFake().endpoints(f"127.0.0.1:{port}")))
        running = await cli.start("tail", "hyperliquid", "BTC-USD-PERP")
        assert AWAY_S <= 8, "the rest of 10 s is for starting"
        # On a machine that has much else to do, starting takes long.
        ended = await running.ended(within_s=AWAY_S + 20)
    assert (ended.code, ended.out) == (69, "")
    assert "Traceback" not in ended.err
    (sentence,) = ended.err.splitlines()
    assert sentence.startswith("hyperliquid")
    assert "cannot be reached" in sentence
