"""Real traffic through the whole daemon, from a socket of the venue's protocol to a reader's socket.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it these tests are skipped. The numbers that are expected here
were computed from the files alone, and stand in that folder's README.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from pricefeedd.testing.capture import CaptureServer, What, read_capture
from pricefeedd_binance.testing import BinanceFake, capture_server, tape

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "binance"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

CHANNELS = {"aggTrade": "trade", "bookTicker": "quote", "kline_1m": "candle_1m", "depth@100ms": "book"}


@attrs.frozen(kw_only=True)
class Recorded:
    """What is known of one market's files.

    Attributes:
        frames: Frames by channel.
        closed: Closed minutes among the candles.
        books: By our name: deltas applied, final id, best bid and offer with sizes.
    """

    file: str
    frames: dict[str, int]
    closed: int
    books: dict[str, tuple[int, int, str]]


MARKETS = {
    "spot": Recorded(
        file="spot",
        frames={"book": 177, "quote": 84, "trade": 2, "candle_1m": 2},
        closed=0,
        books={
            "NKN-USDT": (149, 499870179, "0.3527 9602 0.3531 152"),
            "BLZ-ETH": (9, 281916638, "0.00006547 100 0.0000656 1528"),
            "LRC-BTC": (13, 259345563, "0.00000637 2500 0.00000638 2285"),
            "RUNE-EUR": (1, 15602513, "6.251 69.3 6.269 69.3"),
        },
    ),
    "linear": Recorded(
        file="usdm",
        frames={"book": 764, "quote": 613, "trade": 91, "candle_1m": 67},
        closed=4,
        books={
            "SUSHI-USDT-PERP": (252, 600860425198, "7.6120 303 7.6160 267"),
            "AKRO-USDT-PERP": (188, 600860423964, "0.01734 502 0.01735 50697"),
            "KEEP-USDT-PERP": (132, 600860420312, "0.2463 249 0.2467 9047"),
            "CTK-USDT-PERP": (180, 600860423222, "1.011 1698 1.012 10123"),
        },
    ),
    "inverse": Recorded(
        file="coinm",
        frames={"book": 1677, "quote": 1887, "trade": 46, "candle_1m": 30},
        closed=0,
        books={
            "BTC-USD-20211231": (152, 167006233131, "32621.2 97 32621.3 17"),
            "ETH-USD-20210924": (180, 167006233151, "1990.37 1375 1990.38 603"),
            "XRP-USD-PERP": (146, 167006232685, "0.5661 3466 0.5662 1443"),
            "BCH-USD-PERP": (171, 167006232206, "427.77 225 427.78 636"),
        },
    ),
}

#: The daemon's own time plays no part: what it takes for the last whole minute is the one before the tape's
#: first, because that far after its end it is told to expect a minute.
CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[[venues.binance.subscribe]]
market = "{market}"
instruments = {symbols}
channels = ["trade", "quote", "candle_1m", "book"]
[venues.binance.session]
backfill_after_s = {after_s}
"""


def book_of(messages: Iterable[dict[str, Any]], instrument: str) -> tuple[int, int, list[Decimal]]:
    """Return deltas applied, the last sequence, and best bid and offer with their sizes."""
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    deltas, sequence, known = 0, -1, False
    for message in messages:
        if message["topic"] != f"book:binance:{instrument}":
            continue
        data = message["data"]
        if message["type"] == "status":
            known = known and data["state"] == "live"
            continue
        if data["kind"] == "snapshot":
            bids, asks, known = {}, {}, True
        else:
            assert known, "a delta came while nobody could have a book"
            deltas += 1
        # On futures the first delta may end where the snapshot stands: U <= lastUpdateId <= u.
        assert data["venue_sequence"] > sequence - (deltas == 1)
        sequence = data["venue_sequence"]
        for levels, rows in ((bids, data["bids"]), (asks, data["asks"])):
            for price, size in rows:
                levels[Decimal(price)] = Decimal(size)
                if not levels[Decimal(price)]:
                    del levels[Decimal(price)]
    assert known
    bid, ask = max(bids), min(asks)
    return deltas, sequence, [bid, bids[bid], ask, asks[ask]]


def received(server: CaptureServer, base: str) -> Callable[[], bool]:
    """Return a condition: the daemon has read every frame that was sent, and every answer besides."""

    def condition() -> bool:
        ready = httpx.get(f"{base}/ready").json()
        markets = ready["venues"].get("binance", {}).values()
        return bool(
            sum(m["total_messages"] for m in markets) >= sum(server.sent.values()) + len(server.fake.sockets)
        )

    return condition


def news(frames: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> int:
    """Return how many frames say something other than the one before of the same symbol."""
    last: dict[str, Any] = {}
    count = 0
    for frame in frames:
        count += last.get(frame["s"]) != key(frame)
        last[frame["s"]] = key(frame)
    return count


def newer(frames: Iterable[dict[str, Any]]) -> int:
    """Return how many quotes are newer than all before of the same symbol; the recorder had some twice."""
    last: dict[str, int] = {}
    count = 0
    for frame in frames:
        count += frame["u"] > last.get(frame["s"], -1)
        last[frame["s"]] = max(frame["u"], last.get(frame["s"], -1))
    return count


@pytest.mark.parametrize("market", MARKETS)
async def test_a_recorded_market_comes_out_as_it_was(
    cli: Any, nursery: trio.Nursery, open_reader: Any, eventually: Any, endpoints_environ: Any, market: str
) -> None:
    known = MARKETS[market]
    files = [_FOLDER / f"{known.file}.{kind}.capture" for kind in ("rest", "ws")]
    server = capture_server(tape(market, *files))
    assert isinstance(server.fake, BinanceFake)
    await nursery.start(server.fake.run)
    names = {name for _, name in server.streams}
    symbols = sorted({name.partition("@")[0].upper() for name in names})
    frames = [json.loads(record.text) for record in read_capture(files[1]) if record.what is What.RECEIVED]
    first_minute_s = min(f["data"]["k"]["t"] for f in frames if f["stream"].endswith("@kline_1m")) / 1000
    config = cli.config(
        CONFIG.format(
            market=market, symbols=json.dumps(symbols), after_s=round(time.time() - first_minute_s - 10, 1)
        )
    )
    daemon = await cli.start("run", "--config", config, environ=endpoints_environ(server.fake.endpoints()))
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
    assert reader.notices[0]["type"] == "welcome"
    assert {m["type"] for m in reader.notices} <= {"welcome", "ack", "pong", "heartbeat"}, (
        "this reader was fast enough"
    )
    assert not [m for m in reader.messages if m["type"] == "gap"]
    reader.check_sequence()
    # The files hold what is said of them; what is dropped is told by the frames themselves.
    by_kind = {kind: [f["data"] for f in frames if f["stream"].endswith(f"@{kind}")] for kind in CHANNELS}
    assert {CHANNELS[kind]: len(found) for kind, found in by_kind.items()} == known.frames
    assert len(reader.of("trade")) == known.frames["trade"]
    assert Counter(m["data"]["id"] for m in reader.of("trade")) == Counter(
        str(f["a"]) for f in by_kind["aggTrade"]
    )
    assert len(reader.of("quote")) == newer(by_kind["bookTicker"])
    minutes = reader.of("candle_1m")
    assert len(minutes) == news(by_kind["kline_1m"], lambda f: [f["k"][key] for key in "tohlcvx"])
    assert sum(m["data"]["closed"] for m in minutes) == known.closed
    # Books: from the reader's frames alone to the venue's last word.
    ends = {name: book_of(reader.messages, name) for name in known.books}
    assert ends == {
        name: (applied, last, [Decimal(number) for number in best.split()])
        for name, (applied, last, best) in known.books.items()
    }
