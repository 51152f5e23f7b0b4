"""Bybit as a user has it: commands as processes of their own, against Bybit's protocol on a local port.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it the tests that need them are skipped.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd.instruments import Kind
from pricefeedd.testing.capture import What, read_capture
from pricefeedd.testing.market import Listing
from pricefeedd_bybit.testing import BybitFake, capture_server, tape

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "bybit"

needs_captures = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[[venues.bybit.subscribe]]
market = "{market}"
instruments = {names}
channels = ["trade", "ticker", "book"]
"""


def environ(fake: BybitFake) -> dict[str, str]:
    """Return the fake's addresses as environment variables."""
    return {
        f"PRICEFEEDD__VENUES__BYBIT__ENDPOINTS__{key.upper()}": url for key, url in fake.endpoints().items()
    }


@pytest.fixture
async def bybit(nursery: trio.Nursery, cli: Any) -> BybitFake:
    """Return a simulated Bybit on a local port where something happens; `cli` is pointed at it."""
    fake = BybitFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 20.0)
    cli.environ.update(environ(fake))
    return fake


# --- Commands ---------------------------------------------------------------------------------------------


async def test_tail_prints_trades_of_spot(cli: Any, bybit: BybitFake) -> None:
    ended = await cli.run("tail", "bybit", "BTC-USDT", "ETH-USDT", "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 10
    for line in ended.lines:
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3} (BTC|ETH)-USDT id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell)", line
        )


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("BTC-USDC-PERP", "book"),
        ("BTC-USDT-PERP", "ticker"),
        ("BTC-USD-PERP", "quote"),
        ("ETH-USDT-PERP", "candle_1m"),
    ],
)
async def test_tail_of_other_channels_and_markets(
    cli: Any, bybit: BybitFake, name: str, channel: str
) -> None:
    ended = await cli.run("tail", "bybit", name, "--channel", channel, "--limit", "10", "--json")

    assert (ended.code, ended.err) == (0, "")
    messages = ended.json()
    assert [m["seq"] for m in messages] == list(range(1, 11))
    assert {m["topic"] for m in messages} == {f"{channel}:bybit:{name}"}


async def test_instruments_of_all_markets(cli: Any, bybit: BybitFake) -> None:
    ended = await cli.run("instruments", "bybit", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert {row["name"] for row in ended.json()} == set(bybit.market.listings)


async def test_a_bybit_that_cannot_be_reached_is_told_in_time(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        port = bound.getsockname()[1]
        for market in ("SPOT", "LINEAR", "INVERSE"):
            prefix = f"PRICEFEEDD__VENUES__BYBIT__ENDPOINTS__{market}"
            cli.environ[f"{prefix}_WS"] = f"ws://127.0.0.1:{port}"
            cli.environ[f"{prefix}_REST"] = f"http://127.0.0.1:{port}"
        running = await cli.start("tail", "bybit", "BTC-USDT")
        assert AWAY_S <= 8, "the rest of 10 s is for starting"
        with trio.fail_after(AWAY_S + 20):  # on a machine that has much else to do, starting takes long
            ended = await running.ended(within_s=AWAY_S + 20)

    assert (ended.code, ended.out) == (69, "")
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("bybit")
    assert "cannot be reached" in ended.err


# --- Recordings through the daemon ------------------------------------------------------------------------

LINEAR = [
    Listing(
        market="linear",
        base="BTC",
        quote=quote,
        kind=Kind.PERPETUAL,
        price="60000.0",
        tick="0.1",
        lot="0.001",
    )
    for quote in ("USDT", "USDC")
]
SPOT = [Listing(market="spot", base="BTC", quote="USDT", price="60000.0", tick="0.1", lot="0.001")]


def book_of(messages: Iterable[dict[str, Any]], topic: str) -> list[list[tuple[Decimal, Decimal]]]:
    """Return bids and asks, best first, made from a reader's messages alone."""
    sides: list[dict[Decimal, Decimal]] = [{}, {}]
    for message in messages:
        if message["topic"] == topic and message["type"] == "book":
            data = message["data"]
            if data["kind"] == "snapshot":
                sides = [{}, {}]
            for side, rows in zip(sides, (data["bids"], data["asks"]), strict=True):
                side.update({Decimal(price): Decimal(size) for price, size in rows})
    bids, asks = ({price: size for price, size in side.items() if size} for side in sides)
    return [sorted(bids.items(), reverse=True), sorted(asks.items())]


@needs_captures
@pytest.mark.parametrize(
    ("market", "files", "listings", "best", "worst"),
    [
        ("linear", ["linear", "linear-tickers-2024"], LINEAR, "71423.80 0.557 71423.90 4.669", "71413.20 71435.40"),
        ("spot", ["spot"], SPOT, "27579.99 0.031244 27580 0.080386", "27333.32 27670.21"),
    ],
)  # fmt: skip
async def test_recorded_frames_come_out_as_they_were(
    cli: Any,
    nursery: trio.Nursery,
    open_reader: Any,
    market: str,
    files: list[str],
    listings: list[Listing],
    best: str,
    worst: str,
) -> None:
    paths = [_FOLDER / f"{file}.ws.capture" for file in files]
    recorded = [json.loads(r.text) for r in read_capture(*paths) if r.what is What.RECEIVED]
    server = capture_server(tape(market, *paths), listings=listings)
    assert isinstance(server.fake, BybitFake)
    await nursery.start(server.fake.run)
    names = [listing.name for listing in listings]
    config = cli.config(CONFIG.format(market=market, names=json.dumps(names)))
    daemon = await cli.start("run", "--config", config, environ=environ(server.fake))
    reader = await open_reader((await daemon.binds())[0])
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("ack")
    nursery.start_soon(server.run)  # only now: nothing was missed
    topic = f"book:bybit:{names[0]}"
    await reader.until(lambda m: m["type"] == "book" and m["data"]["kind"] == "delta")
    trades = [row for f in recorded if f.get("topic") == "publicTrade.BTCUSDT" for row in f["data"]]
    tickers = [f for f in recorded if f.get("topic", "").startswith("tickers.")]
    while len(reader.of("trade")) < len(trades) or len(reader.of("ticker")) < len(tickers):
        with trio.fail_after(20):
            await reader.receive()
    await reader.close()
    ended = await daemon.end()

    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    reader.check_sequence()
    assert [m["data"]["id"] for m in reader.of("trade")] == [row["i"] for row in trades]
    assert [m["data"]["price"] for m in reader.of("trade")] == [row["p"] for row in trades]
    assert [m["ts_event"] for m in reader.of("trade")] == [row["T"] * 1000 for row in trades]
    bids, asks = book_of(reader.messages, topic)
    assert (len(bids), len(asks)) == (50, 50)
    assert [*bids[0], *asks[0]] == [Decimal(text) for text in best.split()]
    assert [bids[-1][0], asks[-1][0]] == [Decimal(text) for text in worst.split()]
    last = reader.of("ticker")[-1]["data"]
    assert last["last"] == next(f["data"]["lastPrice"] for f in reversed(tickers) if "lastPrice" in f["data"])
