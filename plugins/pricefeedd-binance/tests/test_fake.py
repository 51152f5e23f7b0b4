"""The fake Binance speaks Binance's protocol: routes, ids, limits and ends as the venue's documents say."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from websockets.sync.client import ClientConnection, connect

from pricefeedd.errors import ConnectError, ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.market import Market
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_binance.testing import BinanceFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
URL = "ws://binance.test"


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.now_ns = anchored_clock(T0)
        self.fake = BinanceFake(now_ns=self.now_ns, **options)
        self.dialer = MemoryDialer(nursery, {URL: self.fake}, now_ns=self.now_ns)
        self.endpoints = self.fake.endpoints("binance.test")

    async def open(self, path: str, market: str = "spot") -> WebSocket:
        return await open_websocket(
            self.dialer, self.endpoints[f"{market}_ws"], path, headers={}, max_message_bytes=1 << 20
        )

    async def get(self, market: str, path: str) -> HttpReply:
        url = self.endpoints[f"{market}_rest"] + path
        return await self.dialer.fetch("GET", url, headers={}, body=None)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, history_minutes=10)
        nursery.cancel_scope.cancel()


async def ask(ws: WebSocket, method: str, params: list[Any] | None = None, number: int = 1) -> None:
    request = {"method": method, "id": number} | ({} if params is None else {"params": params})
    await ws.send(json.dumps(request))


async def hear(ws: WebSocket) -> Any:
    """Return the next message; each of these tests sends one per read, or waits for a quiet socket."""
    with trio.fail_after(5):
        while True:
            if messages := await ws.receive():
                assert len(messages) == 1
                return json.loads(messages[0])


async def hear_all(ws: WebSocket, within_s: float = 1.0) -> list[Any]:
    heard: list[Any] = []
    with trio.move_on_after(within_s):
        while True:
            heard += [json.loads(message) for message in await ws.receive()]
    return heard


# --- Requests and answers ---------------------------------------------------------------------------------


async def test_one_answer_per_request(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("/stream")
    await ask(ws, "SUBSCRIBE", ["btcusdt@aggTrade", "ethusdt@bookTicker"], 7)
    assert await hear(ws) == {"result": None, "id": 7}
    await ask(ws, "LIST_SUBSCRIPTIONS", number=8)
    assert await hear(ws) == {"result": ["btcusdt@aggTrade", "ethusdt@bookTicker"], "id": 8}
    await ask(ws, "UNSUBSCRIBE", ["btcusdt@aggTrade"], 9)
    assert await hear(ws) == {"result": None, "id": 9}
    world.fake.step(50)
    assert {m["stream"] for m in await hear_all(ws)} == {"ethusdt@bookTicker"}
    assert (world.fake.seen.subscribes, world.fake.seen.unsubscribes) == (1, 1)


async def test_errors_have_the_documented_form(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("/stream")
    await ws.send("{nonsense")
    assert (await hear(ws))["code"] == 3
    await ws.send('{"id":1}')
    answer = await hear(ws)
    assert answer["code"] == 2
    assert answer["msg"].startswith("Invalid request: missing field `method`")


@pytest.mark.parametrize("stream", ["nosuchusdt@aggTrade", "btcusdt@agtrade", "BTCUSDT@aggTrade"])
async def test_what_does_not_exist_is_acknowledged_and_silent(
    autojump_clock: MockClock, world: World, stream: str
) -> None:
    ws = await world.open("/stream")
    await ask(ws, "SUBSCRIBE", [stream])
    assert await hear(ws) == {"result": None, "id": 1}
    world.fake.step(20)
    assert await hear_all(ws) == []


async def test_streams_in_the_url_get_no_answer(autojump_clock: MockClock, world: World) -> None:
    combined = await world.open("/stream?streams=btcusdt@aggTrade/ethusdt@aggTrade")
    raw = await world.open("/ws/btcusdt@aggTrade")
    world.fake.step(20)
    assert {m["stream"] for m in await hear_all(combined)} == {"btcusdt@aggTrade", "ethusdt@aggTrade"}
    assert {m["s"] for m in await hear_all(raw)} == {"BTCUSDT"}


async def test_paths_that_do_not_exist(autojump_clock: MockClock, world: World) -> None:
    with pytest.raises(HandshakeRefusedError, match="404"):
        await world.open("/nothing")
    with pytest.raises(ConnectError):
        await open_websocket(world.dialer, "ws://elsewhere.test", "/ws", headers={}, max_message_bytes=1000)


# --- Routes -----------------------------------------------------------------------------------------------

KINDS = ["depth@100ms", "bookTicker", "aggTrade", "kline_1m", "ticker", "markPrice@1s"]


@pytest.mark.parametrize(
    ("market", "path", "served"),
    [
        ("linear", "/public/stream", {"depth@100ms", "bookTicker"}),
        ("linear", "/market/stream", {"aggTrade", "kline_1m", "ticker", "markPrice@1s"}),
        ("linear", "/stream", set()),
        ("inverse", "/public/stream", {"depth@100ms", "bookTicker"}),
        ("inverse", "/market/stream", {"aggTrade", "kline_1m", "ticker", "markPrice@1s"}),
        ("inverse", "/stream", {"depth@100ms", "bookTicker"}),
        ("spot", "/stream", {"depth@100ms", "bookTicker", "aggTrade", "kline_1m", "ticker"}),
    ],
)
async def test_each_route_serves_its_own_streams_only(
    autojump_clock: MockClock, world: World, market: str, path: str, served: set[str]
) -> None:
    symbol = "btcusd_perp" if market == "inverse" else "btcusdt"
    ws = await world.open(path, market)
    await ask(ws, "SUBSCRIBE", [f"{symbol}@{kind}" for kind in KINDS])
    assert await hear(ws) == {"result": None, "id": 1}
    for _ in range(30):
        world.fake.step()
        await trio.sleep(0.1)
    assert {m["stream"].partition("@")[2] for m in await hear_all(ws)} == served


async def test_markets_with_the_same_symbol_are_apart(autojump_clock: MockClock, world: World) -> None:
    spot = await world.open("/stream?streams=btcusdt@aggTrade")
    linear = await world.open("/market/stream?streams=btcusdt@aggTrade", "linear")
    world.fake.step(30)
    market = world.fake.market
    for ws, name in ((spot, "BTC-USDT"), (linear, "BTC-USDT-PERP")):
        heard = [(m["data"]["a"], m["data"]["p"], m["data"]["q"]) for m in await hear_all(ws)]
        lived = [t for t in market.trades(name) if t.time_ns >= T0]
        assert heard == [(t.id, t.price, t.size) for t in lived]


# --- Shapes -----------------------------------------------------------------------------------------------


async def test_shapes_differ_by_market_as_documented(autojump_clock: MockClock, world: World) -> None:
    async def first(market: str, path: str, kind: str) -> dict[str, Any]:
        symbol = "btcusd_perp" if market == "inverse" else "btcusdt"
        ws = await world.open(f"{path}?streams={symbol}@{kind}", market)
        await trio.sleep(0.2)
        world.fake.step(20)
        data: dict[str, Any] = (await hear_all(ws))[0]["data"]
        return data

    quote = await first("spot", "/stream", "bookTicker")
    assert set(quote) == {"u", "s", "b", "B", "a", "A"}, "spot quotes have neither type nor time"
    quote = await first("inverse", "/public/stream", "bookTicker")
    assert quote["ps"] == "BTCUSD"
    assert quote["st"] == 2
    assert {"T", "E"} <= set(quote)
    assert "pu" not in await first("spot", "/stream", "depth@100ms")
    assert (await first("linear", "/public/stream", "depth@100ms")).keys() >= {"pu", "T", "st", "ps"}
    assert (await first("linear", "/market/stream", "aggTrade"))["nq"]
    assert "nq" not in await first("inverse", "/market/stream", "aggTrade")
    assert "st" not in await first("linear", "/market/stream", "kline_1m")
    assert "T" in (await first("spot", "/stream", "kline_1m"))["k"]


@pytest.mark.parametrize(
    ("market", "path", "kind"),
    [
        ("spot", "/stream", "depth@100ms"),
        ("spot", "/stream", "depth"),
        ("linear", "/public/stream", "depth@100ms"),
        ("linear", "/public/stream", "depth"),
        ("inverse", "/public/stream", "depth@500ms"),
    ],
)
async def test_books_join_by_the_markets_rule(
    autojump_clock: MockClock, world: World, market: str, path: str, kind: str
) -> None:
    symbol, name = ("BTCUSD_PERP", "BTC-USD-PERP") if market == "inverse" else ("BTCUSDT", "BTC-USDT")
    name = "BTC-USDT-PERP" if market == "linear" else name
    api = {"spot": "/api/v3", "linear": "/fapi/v1", "inverse": "/dapi/v1"}[market]
    ws = await world.open(f"{path}?streams={symbol.lower()}@{kind}", market)
    snapshot: Any = None
    for i in range(100):
        world.fake.step()
        if i == 41:
            snapshot = (await world.get(market, f"{api}/depth?symbol={symbol}&limit=1000")).json()
        await trio.sleep(0.03)
    await trio.sleep(1.1)
    world.fake.step()
    world.fake.flush()
    events = [m["data"] for m in await hear_all(ws)]
    last = snapshot["lastUpdateId"]
    if market == "spot":
        kept = [e for e in events if e["u"] > last]
        assert kept[0]["U"] <= last + 1 <= kept[0]["u"]
        assert all(b["U"] == a["u"] + 1 for a, b in itertools.pairwise(kept))
    else:
        kept = [e for e in events if e["u"] >= last]
        assert kept[0]["U"] <= last <= kept[0]["u"]
        assert all(b["pu"] == a["u"] for a, b in itertools.pairwise(kept))
        assert not any(b["U"] == a["u"] + 1 for a, b in itertools.pairwise(kept))
    book = [dict(snapshot["bids"]), dict(snapshot["asks"])]
    for event in kept:
        for side, rows in zip(book, (event["b"], event["a"]), strict=True):
            side.update(dict(rows))
    truth = [dict(side) for side in world.fake.market.book(name)]
    left = [{p: s for p, s in side.items() if Decimal(s)} for side in book]
    assert left == truth or kind != "depth@100ms"
    if kind == "depth@100ms":
        assert kept[-1]["u"] == world.fake.market.sequence(name)


async def test_candles_are_closed_by_the_clock(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("/stream?streams=btcusdt@kline_1m")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fake.play, 2)
        klines = [m["data"]["k"] for m in await hear_all(ws, 125.0)]
        nursery.cancel_scope.cancel()
    closed = [k for k in klines if k["x"]]
    assert [k["t"] * 1_000_000 - T0 for k in closed] == [0, 60_000_000_000]
    for k in closed:
        truth = next(c for c in world.fake.market.candles("BTC-USDT") if c.start_ns == k["t"] * 1_000_000)
        assert (k["o"], k["h"], k["l"], k["c"], k["v"], k["n"]) == (
            truth.open, truth.high, truth.low, truth.close, truth.volume, truth.trades,
        )  # fmt: skip
        assert k["L"] - k["f"] == k["n"] - 1


# --- Heartbeats, ages and limits --------------------------------------------------------------------------


@pytest.mark.parametrize(("market", "interval_s"), [("spot", 20.0), ("linear", 180.0)])
async def test_pings_come_and_pongs_keep_the_socket(
    autojump_clock: MockClock, world: World, market: str, interval_s: float
) -> None:
    ws = await world.open("/stream" if market == "spot" else "/market/stream", market)
    opened = trio.current_time()
    for n in range(1, 6):
        assert await ws.receive() == []
        assert trio.current_time() - opened == pytest.approx(n * interval_s)
    await hear_all(ws, 2000)
    assert len(world.fake.sockets) == 1


async def test_a_connection_is_cut_after_a_day(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("/stream")
    opened = trio.current_time()
    with pytest.raises(ConnectionLostError):
        await hear_all(ws, 100_000)
    assert trio.current_time() - opened == pytest.approx(86_400)


@pytest.mark.parametrize(
    ("market", "path", "limit"), [("spot", "/stream", 5), ("linear", "/market/stream", 10)]
)
async def test_too_many_messages_end_the_connection(
    autojump_clock: MockClock, world: World, market: str, path: str, limit: int
) -> None:
    ws = await world.open(path, market)
    for _ in range(2):
        for number in range(limit):
            await ask(ws, "LIST_SUBSCRIPTIONS", number=number)
        assert len(await hear_all(ws, 1.1)) == limit
    for _ in range(limit + 1):
        await ws.ping()
    with pytest.raises(ConnectionLostError, match="1008"):
        await hear_all(ws)


async def test_shutdown_is_announced(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("/stream")
    raw = await world.open("/ws")
    world.fake.shut_down()
    assert (await hear(ws))["stream"] == "!serverShutdown"
    assert (await hear(raw))["e"] == "serverShutdown"
    world.fake.faults.close("/spot")
    with pytest.raises(ConnectionLostError, match="1001"):
        await ws.receive()


# --- REST -------------------------------------------------------------------------------------------------


async def test_instruments_are_listed_in_each_markets_form(autojump_clock: MockClock, world: World) -> None:
    spot = (await world.get("spot", "/api/v3/exchangeInfo")).json()["symbols"]
    linear = (await world.get("linear", "/fapi/v1/exchangeInfo")).json()["symbols"]
    inverse = (await world.get("inverse", "/dapi/v1/exchangeInfo")).json()["symbols"]
    assert [s["symbol"] for s in spot] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert [s["symbol"] for s in linear] == ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCUSDT_261225"]
    assert linear[0]["deliveryDate"] == 4_133_404_800_000
    assert "status" not in inverse[0]
    assert (inverse[0]["symbol"], inverse[0]["contractStatus"], inverse[0]["contractSize"]) == (
        "BTCUSD_PERP",
        "TRADING",
        100,
    )


async def test_the_last_kline_runs_and_ranges_are_inclusive(autojump_clock: MockClock, world: World) -> None:
    await trio.sleep(30)
    rows = (await world.get("spot", "/api/v3/klines?symbol=BTCUSDT&interval=1m")).json()
    start_ms = T0 // 1_000_000
    assert [row[0] for row in rows] == [start_ms + n * 60_000 for n in range(-10, 1)]
    assert rows[-1][6] > world.now_ns() // 1_000_000, "it is not over yet"
    assert all(len(row) == 12 for row in rows)
    window = f"startTime={start_ms - 300_000}&endTime={start_ms - 180_000}"
    some = (await world.get("spot", f"/api/v3/klines?symbol=BTCUSDT&interval=1m&{window}")).json()
    assert some == rows[5:8]


@pytest.mark.parametrize(("market", "api", "symbol", "first"), [
    ("linear", "/fapi/v1", "BTCUSDT", -8), ("inverse", "/dapi/v1", "BTCUSD_PERP", -2),
])  # fmt: skip
async def test_coinm_gives_the_wrong_end_of_the_window(
    autojump_clock: MockClock, world: World, market: str, api: str, symbol: str, first: int
) -> None:
    start_ms = T0 // 1_000_000 - 8 * 60_000
    path = f"{api}/klines?symbol={symbol}&interval=1m&startTime={start_ms}&limit=3"
    rows = (await world.get(market, path)).json()
    assert [row[0] for row in rows] == [T0 // 1_000_000 + (first + n) * 60_000 for n in range(3)]


async def test_agg_trades_by_id_and_by_time(autojump_clock: MockClock, world: World) -> None:
    world.fake.step(100)
    trades = list(world.fake.market.trades("BTC-USDT"))
    path = "/api/v3/aggTrades?symbol=BTCUSDT"
    rows = (await world.get("spot", f"{path}&fromId={trades[5].id}&limit=3")).json()
    assert [(r["a"], r["p"], r["q"]) for r in rows] == [(t.id, t.price, t.size) for t in trades[5:8]]
    rows = (await world.get("spot", f"{path}&startTime={T0 // 1_000_000}&endTime={T0 // 1_000_000}")).json()
    assert [r["a"] for r in rows] == [t.id for t in trades if t.time_ns // 1_000_000 == T0 // 1_000_000]
    newest = (await world.get("spot", f"{path}&limit=2")).json()
    assert [r["a"] for r in newest] == [t.id for t in trades[-2:]]


@pytest.mark.parametrize(
    ("market", "path", "code"),
    [
        ("spot", "/api/v3/depth?symbol=NOPE", -1121),
        ("spot", "/api/v3/depth", -1102),
        ("spot", "/api/v3/klines?symbol=BTCUSDT&interval=7m", -1120),
        ("spot", "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=x", -1100),
        ("linear", "/fapi/v1/depth?symbol=BTCUSDT&limit=7", -1130),
    ],
)
async def test_bad_requests(
    autojump_clock: MockClock, world: World, market: str, path: str, code: int
) -> None:
    reply = await world.get(market, path)
    assert reply.status == 400
    assert reply.json()["code"] == code
    assert (await world.get(market, "/nothing")).status == 404


async def test_weights_are_counted_and_lead_to_a_ban(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, spot_weight=120, futures_weight=10)
        used = []
        for limit in (100, 500, 1000):
            reply = await world.get("spot", f"/api/v3/depth?symbol=BTCUSDT&limit={limit}")
            used.append(int(reply.headers["x-mbx-used-weight-1m"]))
        assert used == [5, 30, 80]
        await trio.sleep(20)
        refused = await world.get("spot", "/api/v3/depth?symbol=BTCUSDT&limit=1000")
        assert (refused.status, refused.headers["retry-after"]) == (429, "40")
        assert refused.json()["code"] == -1003
        assert (await world.get("linear", "/fapi/v1/ping")).status == 200, "futures count apart"
        statuses = [(await world.get("spot", "/api/v3/ping")).status for _ in range(6)]
        assert statuses == [429] * 4 + [418] * 2
        banned = await world.get("spot", "/api/v3/ping")
        assert float(banned.headers["retry-after"]) == 120
        await trio.sleep(119)
        assert (await world.get("spot", "/api/v3/ping")).status == 418
        await trio.sleep(1)
        assert (await world.get("spot", "/api/v3/ping")).status == 200
        assert (await world.get("inverse", "/dapi/v1/exchangeInfo")).status == 200
        nursery.cancel_scope.cancel()


# --- Over a real socket -----------------------------------------------------------------------------------


async def test_an_independent_client_over_tcp() -> None:
    fake = BinanceFake(Market(seed=4))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(fake.run)
            url = fake.endpoints()["linear_ws"] + "/market/stream"
            assert url == f"ws://127.0.0.1:{fake.port}/linear/market/stream"
            with contextlib.ExitStack() as stack:
                ws: ClientConnection = await trio.to_thread.run_sync(
                    lambda: stack.enter_context(
                        connect(url, proxy=None, ping_interval=None, compression=None)
                    )
                )
                request = '{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":"x1"}'
                await trio.to_thread.run_sync(ws.send, request)
                assert json.loads(await trio.to_thread.run_sync(ws.recv, 5)) == {"result": None, "id": "x1"}
                nursery.start_soon(functools.partial(fake.play, 200))
                ids = [json.loads(await trio.to_thread.run_sync(ws.recv, 5))["data"]["a"] for _ in range(100)]
                assert ids == list(range(ids[0], ids[0] + 100))
                await trio.to_thread.run_sync(stack.close)
            nursery.cancel_scope.cancel()
