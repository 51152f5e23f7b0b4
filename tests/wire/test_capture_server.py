"""Captures served again, to a client of its own: books end where the recorded venue's ended."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pricefeedd.testing.capture import CaptureServer, Tape, What, read_capture
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import WebSocket, open_websocket
from pricefeedd_binance.testing import capture_server, tape

MADE = Path(__file__).parents[1] / "data" / "binance"
_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "binance"

#: The real recordings are no part of this repository.
recorded = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

FILES = {"spot": "spot", "linear": "usdm", "inverse": "coinm"}
API = {"spot": "/api/v3", "linear": "/fapi/v1", "inverse": "/dapi/v1"}
BOOK_PATH = {"spot": "/stream", "linear": "/public/stream", "inverse": "/public/stream"}

#: market, symbol: stale and applied deltas, final id, best bid and offer; computed from the files alone.
REAL = {
    ("spot", "NKNUSDT"): (1, 149, 499870179, "0.3527 9602 0.3531 152"),
    ("spot", "BLZETH"): (1, 9, 281916638, "0.00006547 100 0.0000656 1528"),
    ("spot", "RUNEEUR"): (1, 1, 15602513, "6.251 69.3 6.269 69.3"),
    ("linear", "SUSHIUSDT"): (3, 252, 600860425198, "7.6120 303 7.6160 267"),
    ("linear", "KEEPUSDT"): (3, 132, 600860420312, "0.2463 249 0.2467 9047"),
    ("inverse", "BTCUSD_211231"): (36, 152, 167006233131, "32621.2 97 32621.3 17"),
    ("inverse", "XRPUSD_PERP"): (35, 146, 167006232685, "0.5661 3466 0.5662 1443"),
}
#: The same for the capture of our own making.
MADE_UP = {
    ("linear", "AAAUSDT"): (2, 2, 111, "10.00 3.5 10.01 7.0"),
    ("linear", "BBBUSDT"): (1, 1, 72, "3.01 2.0 3.10 0.9"),
}
BOOKS = [
    *(pytest.param(*place, *known, id=place[1]) for place, known in MADE_UP.items()),
    *(pytest.param(*place, *known, id=place[1], marks=recorded) for place, known in REAL.items()),
]


@pytest.fixture
async def nursery_of_fakes() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def serve(nursery: trio.Nursery, *markets: str) -> tuple[CaptureServer, MemoryDialer]:
    """Serve the recordings of markets."""
    names = [FILES[market] for market in markets]
    return _serve(
        nursery,
        *(
            tape(market, *(_FOLDER / f"{name}.{kind}.capture" for kind in ("rest", "ws")))
            for market, name in zip(markets, names, strict=True)
        ),
    )


def serve_made(nursery: trio.Nursery) -> tuple[CaptureServer, MemoryDialer]:
    """Serve the capture of our own making."""
    return _serve(nursery, tape("linear", MADE / "made.rest.capture", MADE / "made.ws.capture"))


def _serve(nursery: trio.Nursery, *tapes: Tape) -> tuple[CaptureServer, MemoryDialer]:
    server = capture_server(*tapes)
    nursery.start_soon(server.run)
    return server, MemoryDialer(nursery, {"ws://binance.test": server.fake})


async def open_(dialer: MemoryDialer, market: str, *streams: str) -> WebSocket:
    path = BOOK_PATH[market]
    if market != "spot" and not any(s.endswith(("@depth@100ms", "@bookTicker")) for s in streams):
        path = "/market/stream"
    ws = await open_websocket(
        dialer, f"ws://binance.test/{market}", path, headers={}, max_message_bytes=1 << 22
    )
    await ws.send(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}))
    return ws


async def get(dialer: MemoryDialer, market: str, path: str) -> Any:
    url = f"http://binance.test/{market}{API[market]}{path}"
    return (await dialer.fetch("GET", url, headers={}, body=None)).json()


async def read(ws: WebSocket, count: int) -> list[Any]:
    """Return that many data messages; the answer to the subscription is left out."""
    got: list[Any] = []
    with trio.fail_after(60):
        while len(got) < count:
            got += [m for m in map(json.loads, await ws.receive()) if "stream" in m]
    return got


@pytest.mark.parametrize(("market", "symbol", "stale", "applied", "final_id", "best"), BOOKS)
@pytest.mark.parametrize("fetch_first", [True, False])
async def test_books_end_where_they_did(
    autojump_clock: MockClock,
    nursery_of_fakes: trio.Nursery,
    fetch_first: bool,
    market: str,
    symbol: str,
    stale: int,
    applied: int,
    final_id: int,
    best: str,
) -> None:
    made = (market, symbol) in MADE_UP
    server, dialer = serve_made(nursery_of_fakes) if made else serve(nursery_of_fakes, market)
    stream = f"{symbol.lower()}@depth@100ms"
    ws = await open_(dialer, market, stream)
    frames: list[Any] = []
    if not fetch_first:
        frames = await read(ws, 1)  # some clients ask for the snapshot only at the first change
    snapshot = await get(dialer, market, f"/depth?symbol={symbol}&limit=1000")
    frames += await read(ws, stale + applied - len(frames))
    await server.wait_played()
    assert server.sent[stream] == stale + applied
    last = snapshot["lastUpdateId"]
    kept = [f["data"] for f in frames if f["data"]["u"] > last]
    if market != "spot":
        kept = [f["data"] for f in frames if f["data"]["u"] >= last]
    assert (len(frames) - len(kept), len(kept), kept[-1]["u"]) == (stale, applied, final_id)
    sides: list[dict[Decimal, str]] = [
        {Decimal(p): s for p, s in snapshot[side]} for side in ("bids", "asks")
    ]
    for event in kept:
        for levels, rows in zip(sides, (event["b"], event["a"]), strict=True):
            for price, size in rows:
                levels[Decimal(price)] = size
    bids, asks = ({p: s for p, s in levels.items() if Decimal(s)} for levels in sides)
    top = (max(bids), bids[max(bids)], min(asks), asks[min(asks)])
    assert [Decimal(value) for value in top] == [Decimal(value) for value in best.split()]


def of_streams(path: Path, *names: str) -> list[Any]:
    """Return the frames of these streams in a file."""
    found = [json.loads(r.text) for r in read_capture(path) if r.what is What.RECEIVED]
    return [frame for frame in found if frame["stream"] in names]


async def test_streams_subscribed_together_keep_the_files_order(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    _server, dialer = serve_made(nursery_of_fakes)
    names = ["aaausdt@kline_1m", "bbbusdt@aggTrade", "aaausdt@aggTrade"]
    ws = await open_(dialer, "linear", *names)
    expected = of_streams(MADE / "made.ws.capture", *names)
    assert [f["data"]["e"] for f in expected] == ["aggTrade", "aggTrade", "kline", "aggTrade"]
    assert await read(ws, 4) == expected


@recorded
async def test_recorded_streams_keep_the_files_order(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    _server, dialer = serve(nursery_of_fakes, "linear")
    names = ["sushiusdt@aggTrade", "akrousdt@aggTrade", "ctkusdt@kline_1m"]
    ws = await open_(dialer, "linear", *names)
    expected = of_streams(_FOLDER / "usdm.ws.capture", *names)
    assert len(expected) == 80
    assert await read(ws, len(expected)) == expected


async def test_routes_are_apart_and_what_was_not_recorded_is_not_there(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    _server, dialer = serve_made(nursery_of_fakes)
    symbols = (await get(dialer, "linear", "/exchangeInfo"))["symbols"]
    assert [row["symbol"] for row in symbols] == ["AAAUSDT", "BBBUSDT"]
    assert await get(dialer, "linear", "/klines?symbol=AAAUSDT&interval=1m&limit=5") == []
    assert (await get(dialer, "linear", "/depth?symbol=NOPE&limit=5"))["code"] == -1121
    wrong = await open_(dialer, "linear", "bbbusdt@bookTicker", "bbbusdt@aggTrade")
    assert [f["stream"] for f in await read(wrong, 1)] == ["bbbusdt@bookTicker"]
    with pytest.raises(trio.TooSlowError):
        await read(wrong, 1)  # aggTrade is silent on /public


@recorded
async def test_markets_and_routes_are_apart(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    _server, dialer = serve(nursery_of_fakes, "spot", "linear", "inverse")
    assert len((await get(dialer, "spot", "/exchangeInfo"))["symbols"]) == 1695
    assert len((await get(dialer, "inverse", "/exchangeInfo"))["symbols"]) == 36
    assert await get(dialer, "linear", "/klines?symbol=SUSHIUSDT&interval=1m&limit=5") == []
    assert (await get(dialer, "linear", "/depth?symbol=NOPE&limit=5"))["code"] == -1121
    wrong = await open_(dialer, "linear", "sushiusdt@bookTicker", "sushiusdt@aggTrade")
    frames = await read(wrong, 100)
    assert {f["stream"] for f in frames} == {"sushiusdt@bookTicker"}, "aggTrade is silent on /public"


async def test_a_later_subscription_is_played_too(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    server, dialer = serve_made(nursery_of_fakes)
    book = await open_(dialer, "linear", "aaausdt@depth@100ms")  # its snapshot is never fetched
    early = await read(book, 2)
    assert [f["data"]["u"] for f in early] == [101, 104]
    quotes = await open_(dialer, "linear", "bbbusdt@bookTicker")
    assert (await read(quotes, 1))[0]["data"]["u"] == 72
    await trio.sleep(100)
    assert server.sent["aaausdt@depth@100ms"] == 2, "the rest waits for the snapshot"
