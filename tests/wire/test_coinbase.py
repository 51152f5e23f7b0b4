"""Coinbase as a user has it: real traffic through the whole daemon, and `tail` against a local port.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it their test is skipped.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd_coinbase.testing import CoinbaseFake, capture_server, tape

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "coinbase"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[[venues.coinbase.subscribe]]
market = "spot"
instruments = ["BTC-USD", "ETH-USD"]
channels = ["trade", "quote", "book"]
"""

#: Best bid and offer with their sizes after the last frame.
BOOKS = {
    "BTC-USD": "83277.25 0.03607848 83277.26 0.0105191",
    "ETH-USD": "2666.08 3.37668743 2666.19 0.19750683",
}


def environ(endpoints: Mapping[str, str]) -> dict[str, str]:
    return {f"PRICEFEEDD__VENUES__COINBASE__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()}


def top_of(messages: list[dict[str, Any]], name: str) -> list[Decimal]:
    """Return best bid and offer with their sizes, from a reader's messages alone."""
    sides: dict[str, dict[Decimal, Decimal]] = {"bids": {}, "asks": {}}
    for message in messages:
        if message["topic"] != f"book:coinbase:{name}" or message["type"] != "book":
            continue
        data = message["data"]
        if data["kind"] == "snapshot":
            sides = {"bids": {}, "asks": {}}
        for key, levels in sides.items():
            levels.update({Decimal(price): Decimal(size) for price, size in data[key]})
            for price in [price for price, size in levels.items() if not size]:
                del levels[price]
    bid, ask = max(sides["bids"]), min(sides["asks"])
    return [bid, sides["bids"][bid], ask, sides["asks"][ask]]


@pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")
async def test_a_recorded_session_comes_out_as_it_was(
    cli: Any, nursery: trio.Nursery, open_reader: Any, eventually: Any
) -> None:
    server = capture_server(tape(_FOLDER / "spot.ws.capture"))
    await nursery.start(server.fake.run)
    assert isinstance(server.fake, CoinbaseFake)
    config = cli.config(CONFIG)
    daemon = await cli.start("run", "--config", config, environ=environ(server.fake.endpoints()))
    base = (await daemon.binds())[0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("ack")
    with trio.fail_after(30):
        await server.fake.wait_subscribed(*(name for _, name in server.streams))
        nursery.start_soon(server.run)  # only now: nothing was missed
        await server.fake.wait_for(lambda: sum(server.sent.values()) == 27)
        await server.wait_played()
        # The last frame of the recording is a change of this book.
        await reader.until(
            lambda m: (
                m["topic"] == "book:coinbase:BTC-USD"
                and any(
                    Decimal(size) == Decimal("0.03607848") for _, size in m.get("data", {}).get("bids", ())
                )
            )
        )
    await reader.send({"op": "ping", "id": 2})
    await reader.until("pong")
    await reader.close()
    ended = await daemon.end()

    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    reader.check_sequence()
    assert not [m for m in reader.messages if m["type"] == "gap"]
    past, live = reader.of("trade", origin="backfill"), reader.of("trade")
    ids = {
        name: [int(m["data"]["id"]) for m in [*past, *live] if m["topic"] == f"trade:coinbase:{name}"]
        for name in BOOKS
    }
    assert ids["BTC-USD"] == list(range(1100253468, 1100253489))
    assert ids["ETH-USD"] == list(range(846155127, 846155147))
    assert [(m["data"]["id"], m["data"]["side"]) for m in live] == [("1100253488", "buy")]
    for name, best in BOOKS.items():
        assert top_of(reader.messages, name) == [Decimal(number) for number in best.split()]
    quotes = [
        m["data"] for m in reader.messages if m["topic"] == "quote:coinbase:BTC-USD" and m["type"] == "quote"
    ]
    assert (quotes[-1]["bid_price"], quotes[-1]["ask_price"]) == ("83277.25", "83277.26")


@pytest.fixture
async def exchange(nursery: trio.Nursery, cli: Any) -> CoinbaseFake:
    """Return a simulated Coinbase on a local port where something happens; `cli` is pointed at it."""
    fake = CoinbaseFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 20.0)
    cli.environ.update(environ(fake.endpoints()))
    return fake


async def test_tail_prints_trades(cli: Any, exchange: CoinbaseFake) -> None:
    ended = await cli.run("tail", "coinbase", "BTC-USD", "ETH-USD", "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 10
    for line in ended.lines:
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3} (BTC|ETH)-USD id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell).*", line
        ), line


async def test_tail_prints_books_of_an_alias(cli: Any, exchange: CoinbaseFake) -> None:
    ended = await cli.run("tail", "coinbase", "BTC-USDC", "--channel", "book", "--limit", "3", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert [m["topic"] for m in ended.json()] == ["book:coinbase:BTC-USDC"] * 3
    assert [m["data"]["kind"] for m in ended.json()] == ["snapshot", "delta", "delta"]


async def test_instruments_are_listed(cli: Any, exchange: CoinbaseFake) -> None:
    ended = await cli.run("instruments", "coinbase", "--search", "BTC")

    assert ended.code == 0
    assert {"BTC-USD", "BTC-USDC"} <= {word for line in ended.lines for word in line.split()}


async def test_a_venue_that_is_away_is_told_in_a_sentence(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        port = bound.getsockname()[1]
        away = environ({"spot_ws": f"ws://127.0.0.1:{port}", "spot_rest": f"http://127.0.0.1:{port}"})
        assert AWAY_S <= 8, "the rest of 10 s is for starting"
        with trio.fail_after(AWAY_S + 20):  # on a machine that has much else to do, starting takes long
            ended = await cli.run("tail", "coinbase", "BTC-USD", environ=away)

    assert (ended.code, ended.out) == (69, "")
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "coinbase cannot be reached" in ended.err
