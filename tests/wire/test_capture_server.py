"""Captures served again, to a client of its own: books end where the recorded venue's ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pricefeedd.testing.capture import CaptureServer, What, read_capture
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import WebSocket, open_websocket
from pricefeedd_binance.testing import capture_server, tape

DATA = Path(__file__).parent.parent / "data" / "binance"
FILES = {"spot": "spot", "linear": "usdm", "inverse": "coinm"}
API = {"spot": "/api/v3", "linear": "/fapi/v1", "inverse": "/dapi/v1"}
BOOK_PATH = {"spot": "/stream", "linear": "/public/stream", "inverse": "/public/stream"}

#: market, symbol: stale and applied deltas, final id, best bid and offer; computed from the files alone.
EXPECTED = {
    ("spot", "NKNUSDT"): (1, 149, 499870179, "0.3527 9602 0.3531 152"),
    ("spot", "BLZETH"): (1, 9, 281916638, "0.00006547 100 0.0000656 1528"),
    ("spot", "RUNEEUR"): (1, 1, 15602513, "6.251 69.3 6.269 69.3"),
    ("linear", "SUSHIUSDT"): (3, 252, 600860425198, "7.6120 303 7.6160 267"),
    ("linear", "KEEPUSDT"): (3, 132, 600860420312, "0.2463 249 0.2467 9047"),
    ("inverse", "BTCUSD_211231"): (36, 152, 167006233131, "32621.2 97 32621.3 17"),
    ("inverse", "XRPUSD_PERP"): (35, 146, 167006232685, "0.5661 3466 0.5662 1443"),
}


@pytest.fixture
async def nursery_of_fakes() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def serve(nursery: trio.Nursery, *markets: str) -> tuple[CaptureServer, MemoryDialer]:
    tapes = [
        tape(market, DATA / f"{FILES[market]}.rest.capture", DATA / f"{FILES[market]}.ws.capture")
        for market in markets
    ]
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


@pytest.mark.parametrize(("market", "symbol"), EXPECTED)
@pytest.mark.parametrize("fetch_first", [True, False])
async def test_books_end_where_they_did(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery, market: str, symbol: str, fetch_first: bool
) -> None:
    stale, applied, final_id, best = EXPECTED[market, symbol]
    server, dialer = serve(nursery_of_fakes, market)
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


async def test_streams_subscribed_together_keep_the_files_order(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    _server, dialer = serve(nursery_of_fakes, "linear")
    names = ["sushiusdt@aggTrade", "akrousdt@aggTrade", "ctkusdt@kline_1m"]
    ws = await open_(dialer, "linear", *names)
    recorded = [json.loads(r.text) for r in read_capture(DATA / "usdm.ws.capture") if r.what is What.RECEIVED]
    expected = [frame for frame in recorded if frame["stream"] in names]
    assert len(expected) > 50
    assert await read(ws, len(expected)) == expected


async def test_markets_and_routes_are_apart(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    _server, dialer = serve(nursery_of_fakes, "spot", "linear", "inverse")
    assert len((await get(dialer, "spot", "/exchangeInfo"))["symbols"]) == 4
    assert len((await get(dialer, "inverse", "/exchangeInfo"))["symbols"]) == 10
    assert await get(dialer, "linear", "/klines?symbol=SUSHIUSDT&interval=1m&limit=5") == []
    assert (await get(dialer, "linear", "/depth?symbol=NOPE&limit=5"))["code"] == -1121
    wrong = await open_(dialer, "linear", "sushiusdt@bookTicker", "sushiusdt@aggTrade")
    frames = await read(wrong, 100)
    assert {f["stream"] for f in frames} == {"sushiusdt@bookTicker"}, "aggTrade is silent on /public"


async def test_a_later_subscription_is_played_too(
    autojump_clock: MockClock, nursery_of_fakes: trio.Nursery
) -> None:
    server, dialer = serve(nursery_of_fakes, "linear")
    book = await open_(dialer, "linear", "sushiusdt@depth@100ms")  # its snapshot is never fetched
    early = await read(book, 1)
    assert early[0]["stream"] == "sushiusdt@depth@100ms"
    quotes = await open_(dialer, "linear", "ctkusdt@bookTicker")
    assert len(await read(quotes, 20)) == 20
    await trio.sleep(100)
    assert server.sent["sushiusdt@depth@100ms"] < 255, "the rest waits for the snapshot"
