"""Kraken as a user meets it: commands against the simulator, and real traffic through the whole daemon.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it the tests that need them are skipped.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd_kraken.testing import KrakenFake, capture_server, tape

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "kraken"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[venues.kraken]
book_depth = {depth}
[[venues.kraken.subscribe]]
market = "spot"
instruments = ["{name}"]
channels = ["book"]
"""


@attrs.frozen
class Recorded:
    """What is known of a recorded book: snapshots, updates, and the best bid and offer at the end."""

    name: str
    depth: int
    snapshots: int
    updates: int
    best: str


#: As computed from the files alone.
BOOKS = {
    "spot": Recorded("MINA-GBP", 25, 2, 17, "0.0294 19647.14589494 0.0295 27322.32050993"),
    "spot-book-minagbp-20260816": Recorded("MINA-GBP", 25, 1, 29, "0.0286 74198.19125726 0.0288 32416.38964164"),
    "spot-book-btcusd-20230730": Recorded("BTC-USD", 10, 1, 509, "29430.4 11.93517449 29430.5 0.00560461"),
}  # fmt: skip


def environ(endpoints: Mapping[str, str]) -> dict[str, str]:
    return {f"PRICEFEEDD__VENUES__KRAKEN__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()}


@pytest.fixture
async def venue(nursery: trio.Nursery, cli: Any) -> KrakenFake:
    """Return a simulated Kraken on a local port where something happens; `cli` is pointed at it."""
    fake = KrakenFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 20.0)
    cli.environ.update(environ(fake.endpoints()))
    return fake


async def test_tail_prints_as_many_trades_as_asked_for(cli: Any, venue: KrakenFake) -> None:
    ended = await cli.run("tail", "kraken", "BTC-USD", "DOGE/USD", "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 10
    for line in ended.lines:
        assert re.match(
            r"\d\d:\d\d:\d\d\.\d{3} (BTC|DOGE)-USD id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell)", line
        )


async def test_tail_of_a_book(cli: Any, venue: KrakenFake) -> None:
    ended = await cli.run("tail", "kraken", "BTC-USD", "--channel", "book", "--limit", "3", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert [m["data"]["kind"] for m in ended.json()] == ["snapshot", "delta", "delta"]
    assert {m["topic"] for m in ended.json()} == {"book:kraken:BTC-USD"}


async def test_a_venue_that_cannot_be_reached_is_told_in_time(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        base = f"127.0.0.1:{bound.getsockname()[1]}"
        cli.environ.update(environ(KrakenFake().endpoints(base)))
        running = await cli.start("tail", "kraken", "BTC-USD")
        ended = await running.ended(within_s=AWAY_S + 20)  # on a busy machine starting takes long

    assert (ended.code, ended.out) == (69, "")
    assert ended.err.startswith("kraken")
    assert "cannot be reached" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")
@pytest.mark.parametrize("file", BOOKS)
async def test_a_recorded_book_comes_out_as_it_was(
    cli: Any, nursery: trio.Nursery, open_reader: Any, file: str
) -> None:
    known = BOOKS[file]
    server = capture_server(tape(_FOLDER / f"{file}.ws.capture"))
    assert isinstance(server.fake, KrakenFake)
    await nursery.start(server.fake.run)
    config = cli.config(CONFIG.format(depth=known.depth, name=known.name))
    daemon = await cli.start("run", "--config", config, environ=environ(server.fake.endpoints()))
    base = (await daemon.binds())[0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("ack")
    nursery.start_soon(server.run)  # only now: nothing was missed
    with trio.fail_after(60):
        while len(reader.of("book")) < known.snapshots + known.updates:
            await reader.receive()
    await reader.close()
    ended = await daemon.end()

    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert not [m for m in reader.messages if m["type"] == "gap"]
    reader.check_sequence()
    sides: dict[str, dict[Decimal, str]] = {"bids": {}, "asks": {}}
    for message in reader.of("book"):
        data = message["data"]
        if data["kind"] == "snapshot":
            sides = {"bids": {}, "asks": {}}
        for side, levels in sides.items():
            for price, size in data[side]:
                levels[Decimal(price)] = size
                if not Decimal(size):
                    del levels[Decimal(price)]
    # Readers are told what Kraken cuts without a word.
    assert (len(sides["bids"]), len(sides["asks"])) == (known.depth, known.depth)
    bid, ask = max(sides["bids"]), min(sides["asks"])
    assert f"{bid} {sides['bids'][bid]} {ask} {sides['asks'][ask]}" == known.best
