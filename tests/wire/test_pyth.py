"""Pyth as a user meets it: commands against the simulator, and real events through the whole daemon.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it the test that needs them is skipped.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd_pyth.testing import PythFake, capture_server, tape

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "pyth"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[venues.pyth]
api_key = { env = "TEST_PYTH_KEY" }
[[venues.pyth.subscribe]]
market = "oracle"
instruments = ["BTC-USD"]
channels = ["price"]
"""


def environ(endpoints: Mapping[str, str]) -> dict[str, str]:
    return {f"PRICEFEEDD__VENUES__PYTH__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()}


@pytest.fixture
async def venue(nursery: trio.Nursery, cli: Any) -> PythFake:
    """Return a simulated Pyth on a local port where something happens; `cli` is pointed at it."""
    fake = PythFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 10.0)
    cli.environ.update(environ(fake.endpoints()))
    return fake


async def test_tail_prints_as_many_prices_as_asked_for(cli: Any, venue: PythFake) -> None:
    ended = await cli.run("tail", "pyth", "BTC-USD", "EUR-USD", "--channel", "price", "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 10
    for line in ended.lines:
        assert re.match(r"\d\d:\d\d:\d\d\.\d{3} (BTC|EUR)-USD price=[\d.]+ conf=[\d.]+", line), line


async def test_tail_of_the_minutes_made_of_prices(cli: Any, venue: PythFake) -> None:
    ended = await cli.run("tail", "pyth", "BTC-USD", "--channel", "candle_1m", "--limit", "3", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert {m["topic"] for m in ended.json()} == {"candle_1m:pyth:BTC-USD"}


async def test_without_a_key_it_is_said_what_to_do(cli: Any, nursery: trio.Nursery) -> None:
    fake = PythFake(api_key="right")
    await nursery.start(fake.run)
    cli.environ.update(environ(fake.endpoints()))
    ended = await cli.run("tail", "pyth", "BTC-USD", "--channel", "price")

    assert ended.code == 69
    assert "Traceback" not in ended.err
    assert "wants an API key" in ended.err
    assert "set api_key in [venues.pyth]" in ended.err


async def test_a_venue_that_cannot_be_reached_is_told_in_time(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        base = f"127.0.0.1:{bound.getsockname()[1]}"
        cli.environ.update(environ(PythFake().endpoints(base)))
        running = await cli.start("tail", "pyth", "BTC-USD", "--channel", "price")
        ended = await running.ended(within_s=AWAY_S + 20)  # on a busy machine starting takes long

    assert (ended.code, ended.out) == (69, "")
    assert ended.err.startswith("pyth")
    assert "cannot be reached" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")
async def test_recorded_events_come_out_as_they_were(
    cli: Any, nursery: trio.Nursery, open_reader: Any
) -> None:
    listings = [listing for listing in PythFake.default_listings() if listing.name == "BTC-USD"]
    server = capture_server(tape(_FOLDER / "btcusd.sse.capture"), listings=listings)
    await nursery.start(server.fake.run)
    daemon = await cli.start(
        "run",
        "--config",
        cli.config(CONFIG),
        environ=environ(server.fake.endpoints()) | {"TEST_PYTH_KEY": "do-not-show"},
    )
    base = (await daemon.binds())[0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("ack")
    nursery.start_soon(server.run)  # only now: nothing was missed
    with trio.fail_after(60):
        while len(reader.of("price")) < 2:
            await reader.receive()
    await reader.close()
    ended = await daemon.end()

    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert "do-not-show" not in ended.err
    reader.check_sequence()
    told = [(m["data"]["price"], m["data"]["conf"], m["data"]["slot"]) for m in reader.of("price")]
    assert told == [
        ("61632.60000000", "32.68548079", 138886134),
        ("61630.88000000", "33.08129843", 138886135),
    ]
