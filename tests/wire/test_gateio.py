"""Gate through the whole program: recorded traffic out of the daemon's socket, and commands against its fake.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it those tests are skipped. The numbers that are expected here
were computed from the files alone, and stand in that folder's README.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from pricefeedd.cli.venue import AWAY_S
from pricefeedd.testing.capture import CaptureServer, What, read_capture
from pricefeedd_gateio.testing import GateioFake, capture_server, tape
from pricefeedd_gateio.venue import gateio

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "gateio"

captures = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")


def environ(endpoints: Mapping[str, str]) -> dict[str, str]:
    return {f"PRICEFEEDD__VENUES__GATEIO__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()}


@pytest.fixture
async def gate(nursery: trio.Nursery, cli: Any) -> GateioFake:
    """Return a simulated Gate on a local port where something happens; `cli` is pointed at it."""
    fake = GateioFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 20.0)
    cli.environ.update(environ(fake.endpoints()))
    return fake


# --- Commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("BTC-USDT", "ETH-USDT"), ("BTC-USDT-PERP",), ("BTC-USD-PERP",)])
async def test_tail_prints_trades(cli: Any, gate: GateioFake, names: tuple[str, ...]) -> None:
    ended = await cli.run("tail", "gateio", *names, "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 10
    for line in ended.lines:
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3} [A-Z-]+ id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell)", line
        )
    assert {line.split()[1] for line in ended.lines} == set(names)


@pytest.mark.parametrize("channel", ["quote", "ticker", "candle_1m"])
async def test_tail_prints_other_channels(cli: Any, gate: GateioFake, channel: str) -> None:
    ended = await cli.run("tail", "gateio", "BTC-USDT-PERP", "--channel", channel, "--limit", "3")

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 3


async def test_tail_takes_symbols_where_the_market_is_named(cli: Any, gate: GateioFake) -> None:
    ended = await cli.run(
        "tail", "gateio", "BTC_USDT", "--market", "usdt", "--channel", "book", "--limit", "2", "--json"
    )

    assert (ended.code, ended.err) == (0, "")
    first, second = ended.json()
    assert first["topic"] == "book:gateio:BTC-USDT-PERP"
    assert (first["data"]["kind"], second["data"]["kind"]) == ("snapshot", "delta")


async def test_instruments_are_listed(cli: Any, gate: GateioFake) -> None:
    ended = await cli.run("instruments", "gateio", "--json")

    assert (ended.code, ended.err) == (0, "")
    assert {row["name"] for row in ended.json()} == set(gate.market.listings)


async def test_a_venue_that_cannot_be_reached_is_told_in_time(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        away = f"127.0.0.1:{bound.getsockname()[1]}"
        schemes = {key: "http" if key.endswith("_rest") else "ws" for key in gateio().endpoints}
        cli.environ.update(environ({key: f"{scheme}://{away}" for key, scheme in schemes.items()}))
        assert AWAY_S <= 8, "the rest of 10 s is for starting"
        ended = await cli.run("tail", "gateio", "BTC-USDT", within_s=AWAY_S + 20)

    assert (ended.code, ended.out) == (69, "")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith("gateio")
    assert "cannot be reached" in ended.err


async def test_a_setting_that_gate_does_not_offer_is_told(cli: Any) -> None:
    path = cli.config("[venues.gateio]\nbook_depth = 1000\n")
    ended = await cli.run("check", "--config", path)

    assert ended.code == 78
    assert "book_depth" in ended.err
    assert "Traceback" not in ended.err


# --- Captures ---------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Recorded:
    """What is known of one market's files.

    Attributes:
        trades: Trades recorded.
        refused: Frames that lack what is documented now.
        books: By our name: deltas applied, final id, best bid and offer with sizes.
    """

    file: str
    trades: int
    refused: int
    books: dict[str, tuple[int, int, str]]


MARKETS = {
    "spot": Recorded(
        file="spot",
        trades=9,
        refused=6,
        books={
            "OMG-USDT": (50, 59231950, "7.899 288 7.927 316.6"),
            "NEO-BTC": (36, 31244121, "0.0018659 0.5 0.001873 5.24738"),
            "DIS-USDT": (17, 1750488, "121.5 0.148 122.23 0.00896999"),
        },
    ),
    "linear": Recorded(
        file="futures_usdt",
        trades=0,
        refused=0,
        books={
            "OMG-USDT-PERP": (101, 3132789386, "0.7703 42 0.7711 129"),
            "PHB-USDT-PERP": (69, 6160440, "0.7383 678 0.7393 677"),
            "RDNT-USDT-PERP": (61, 203083479, "0.297 500 0.2974 63"),
            "QUICK-USDT-PERP": (13, 124930286, "56.91 100 57 46"),
        },
    ),
}

#: In 2021 ids counted the trades of all pairs. The daemon's own time plays no part: what it takes for the last
#: whole minute is the one before the tape's first.
CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[venues.gateio]
book_depth = 100
consecutive_trades = false
[[venues.gateio.subscribe]]
market = "{market}"
instruments = {symbols}
channels = ["trade", "quote", "ticker", "candle_1m", "book"]
[venues.gateio.session]
backfill_after_s = {after_s}
"""


def book_of(messages: Iterable[dict[str, Any]], instrument: str) -> tuple[int, int, list[Decimal]]:
    """Return deltas applied, the last sequence, and best bid and offer with their sizes."""
    sides: dict[str, dict[Decimal, Decimal]] = {"bids": {}, "asks": {}}
    deltas, sequence, known = 0, -1, False
    for message in messages:
        if message["topic"] != f"book:gateio:{instrument}":
            continue
        data = message["data"]
        if message["type"] == "status":
            known = known and data["state"] == "live"
            continue
        if data["kind"] == "snapshot":
            sides, known = {"bids": {}, "asks": {}}, True
        else:
            assert known, "a delta came while nobody could have a book"
            deltas += 1
        assert data["venue_sequence"] > sequence
        sequence = data["venue_sequence"]
        for name, levels in sides.items():
            for price, size in data[name]:
                levels[Decimal(price)] = Decimal(size)
                if not levels[Decimal(price)]:
                    del levels[Decimal(price)]
    assert known
    bid, ask = max(sides["bids"]), min(sides["asks"])
    return deltas, sequence, [bid, sides["bids"][bid], ask, sides["asks"][ask]]


def received(server: CaptureServer, base: str) -> Callable[[], bool]:
    """Return a condition: the daemon has read every frame that was sent, and every answer besides."""

    def condition() -> bool:
        ready = httpx.get(f"{base}/ready").json()
        markets = ready["venues"].get("gateio", {}).values()
        return bool(
            sum(m["total_messages"] for m in markets) >= sum(server.sent.values()) + len(server.fake.sockets)
        )

    return condition


@captures
@pytest.mark.parametrize("market", MARKETS)
async def test_a_recorded_market_comes_out_as_it_was(
    cli: Any, nursery: trio.Nursery, open_reader: Any, eventually: Any, market: str
) -> None:
    known = MARKETS[market]
    files = [_FOLDER / f"{known.file}.{kind}.capture" for kind in ("rest", "ws")]
    server = capture_server(tape(market, *files))
    assert isinstance(server.fake, GateioFake)
    await nursery.start(server.fake.run)
    names = {name for _, name in server.streams}
    symbols = sorted({word for name in names for word in name.split(":")[1:] if "_" in word})
    frames = [json.loads(record.text) for record in read_capture(files[1]) if record.what is What.RECEIVED]
    data = [frame for frame in frames if frame["event"] == "update"]
    minutes = [frame["result"] for frame in data if frame["channel"].endswith("candlesticks")]
    rows = [row for result in minutes for row in (result if isinstance(result, list) else [result])]
    first_minute_s = min(int(row["t"]) for row in rows)
    config = cli.config(
        CONFIG.format(
            market=market, symbols=json.dumps(symbols), after_s=round(time.time() - first_minute_s - 10, 1)
        )
    )
    daemon = await cli.start("run", "--config", config, environ=environ(server.fake.endpoints()))
    base = (await daemon.binds())[0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("ack")
    nursery.start_soon(server.run)  # only now: nothing was missed
    with trio.fail_after(30):
        await server.fake.wait_for(lambda: all(server.sent[name] for name in names))
        await server.wait_played()
    await eventually(received(server, base))
    await reader.send({"op": "ping", "id": 2})
    await reader.until("pong")
    await reader.close()
    ended = await daemon.end()

    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert {m["type"] for m in reader.notices} <= {"welcome", "ack", "pong", "heartbeat"}
    assert not [m for m in reader.messages if m["type"] == "gap"]
    reader.check_sequence()
    trades = [frame["result"] for frame in data if frame["channel"] == "spot.trades"]
    assert len(trades) == known.trades
    assert [(m["data"]["id"], m["data"]["price"]) for m in reader.of("trade")] == [
        (str(row["id"]), row["price"]) for row in trades
    ]
    newest: dict[str, int] = {}
    newer = 0
    for frame in data:
        if frame["channel"].endswith("book_ticker"):
            row = frame["result"]
            newer += row["u"] > newest.get(row["s"], -1)
            newest[row["s"]] = max(row["u"], newest.get(row["s"], -1))
    assert len(reader.of("quote")) == newer
    assert len(reader.of("ticker")) == sum(frame["channel"] == "spot.tickers" for frame in data)
    assert len(reader.of("candle_1m")) == len(rows) - known.refused
    # Books: from the reader's frames alone to the venue's last word.
    ends = {name: book_of(reader.messages, name) for name in known.books}
    assert ends == {
        name: (applied, last, [Decimal(number) for number in best.split()])
        for name, (applied, last, best) in known.books.items()
    }
