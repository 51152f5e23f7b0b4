"""The fake Gate speaks Gate's protocol: answers, refusals, books, limits and the cut of who is idle."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock
from websockets.sync.client import ClientConnection, connect

from pricefeedd.errors import ConnectionLostError
from pricefeedd.instruments import Kind
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.listing import Listing
from pricefeedd.testing.market import Market
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_gateio.testing import GateioFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
S = 1_000_000_000
URL = "ws://gate.test"
DECIMAL = {"X-Gate-Size-Decimal": "1"}


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.now_ns = anchored_clock(T0)
        self.fake = GateioFake(now_ns=self.now_ns, **options)
        self.dialer = MemoryDialer(nursery, {URL: self.fake}, now_ns=self.now_ns)
        self.endpoints = self.fake.endpoints("gate.test")

    async def open(self, market: str = "spot", headers: dict[str, str] = DECIMAL) -> WebSocket:
        path = "/" if market == "spot" else ""
        return await open_websocket(
            self.dialer, self.endpoints[f"{market}_ws"], path, headers=headers, max_message_bytes=1 << 20
        )

    async def get(self, path: str, headers: dict[str, str] = DECIMAL) -> HttpReply:
        return await self.dialer.fetch("GET", self.endpoints["spot_rest"] + path, headers=headers, body=None)

    async def ask(self, ws: WebSocket, event: str, channel: str, *payload: str, **others: Any) -> None:
        request = {"time": self.now_ns() // S, "id": 1, "channel": channel, "event": event}
        await ws.send(json.dumps(request | {"payload": list(payload)} | others))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, history_minutes=10)
        nursery.cancel_scope.cancel()


async def hear_all(ws: WebSocket, within_s: float = 1.0) -> list[Any]:
    heard: list[Any] = []
    with trio.move_on_after(within_s):
        while True:
            heard += [json.loads(message) for message in await ws.receive()]
    return heard


async def hear(ws: WebSocket) -> Any:
    (message,) = await hear_all(ws)
    return message


# --- Requests and answers ---------------------------------------------------------------------------------


async def test_an_answer_repeats_id_and_payload(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await world.ask(ws, "subscribe", "spot.trades", "BTC_USDT", "ETH_USDT", id=7)
    answer = await hear(ws)
    assert answer["id"] == 7
    assert (answer["channel"], answer["event"]) == ("spot.trades", "subscribe")
    assert answer["payload"] == ["BTC_USDT", "ETH_USDT"]
    assert answer["result"] == {"status": "success"}
    assert "error" not in answer
    await world.ask(ws, "unsubscribe", "spot.trades", "ETH_USDT")
    assert (await hear(ws))["event"] == "unsubscribe"
    world.fake.step(30)
    assert {m["result"]["currency_pair"] for m in await hear_all(ws)} == {"BTC_USDT"}


@pytest.mark.parametrize(
    ("channel", "payload", "code", "words"),
    [
        ("spot.tickers", ["NO_PE"], 2, "unknown currency pair NO_PE"),
        ("spot.trades", ["BTC_USDT", "NO_PE"], 2, "unknown currency pair NO_PE"),
        ("spot.order_book_update", ["NO_PE", "100ms"], 2, "unknown currency pair NO_PE"),
        ("spot.order_book_update", ["BTC_USDT", "1000ms"], 1, "request payload does not follow json schema"),
        ("spot.candlesticks", ["1m", "NO_PE"], 2, "unknown currency pair NO_PE"),
        ("spot.candlesticks", ["BTC_USDT"], 1, "request payload does not follow json schema"),
        ("spot.trades", [], 1, "request payload does not follow json schema"),
        ("spot.nonsense", ["BTC_USDT"], 2, "unknown channel nonsense"),
        ("spot.public_liquidates", ["BTC_USDT"], 2, "unknown channel public_liquidates"),
        ("futures.trades", ["BTC_USDT"], 2, "unknown channel futures.trades"),
    ],
)
async def test_refusals(
    autojump_clock: MockClock, world: World, channel: str, payload: list[str], code: int, words: str
) -> None:
    ws = await world.open()
    await world.ask(ws, "subscribe", channel, *payload)
    answer = await hear(ws)
    assert answer["error"] == {"code": code, "message": words}
    assert answer["result"] == {"status": "fail"}
    world.fake.step(20)
    assert await hear_all(ws) == []


async def test_what_is_no_request_gets_code_1_and_the_socket_stays(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    for text in ("{nonsense", "[]", '{"id":1}'):
        await ws.send(text)
        assert (await hear(ws))["error"]["code"] == 1
    await world.ask(ws, "subscribe", "spot.trades", "BTC_USDT")
    assert (await hear(ws))["result"] == {"status": "success"}


async def test_a_request_must_tell_the_right_time(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await world.ask(ws, "subscribe", "spot.trades", "BTC_USDT", time=T0 // S - 61)
    assert "error" in await hear(ws)


async def test_obu_acknowledges_everything_and_refuses_a_repetition(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open("linear")
    await world.ask(ws, "subscribe", "futures.obu", "ob.NO_PE.400", "ob.BTC_USDT.17")
    assert (await hear(ws))["result"] == {"status": "success"}
    await world.ask(ws, "subscribe", "futures.obu", "ob.BTC_USDT.400")
    whole, answer = await hear_all(ws)
    assert whole["result"]["full"] is True, "the whole book comes before the answer"
    assert "event" not in whole
    assert answer["result"] == {"status": "success"}
    await world.ask(ws, "subscribe", "futures.obu", "ob.BTC_USDT.400")
    again = await hear(ws)
    assert again["error"] == {"code": 2, "message": "Alert sub ob.BTC_USDT.400"}
    await world.ask(ws, "unsubscribe", "futures.obu", "ob.BTC_USDT.400")
    await hear(ws)
    await world.ask(ws, "subscribe", "futures.obu", "ob.BTC_USDT.400")
    assert [m.get("event") for m in await hear_all(ws)] == [None, "subscribe"]


async def test_one_bad_symbol_may_or_may_not_take_the_good_ones_with_it(
    autojump_clock: MockClock, world: World
) -> None:
    for keeps in (False, True):
        world.fake.keeps_good = keeps
        ws = await world.open()
        await world.ask(ws, "subscribe", "spot.trades", "BTC_USDT", "NO_PE")
        assert (await hear(ws))["error"]["code"] == 2
        world.fake.step(20)
        assert bool(await hear_all(ws)) is keeps


# --- Shapes -----------------------------------------------------------------------------------------------


async def first(
    world: World, market: str, kind: str, *payload: str, headers: dict[str, str] = DECIMAL
) -> Any:
    prefix = "spot" if market == "spot" else "futures"
    ws = await world.open(market, headers)
    await world.ask(ws, "subscribe", f"{prefix}.{kind}", *payload)
    await hear_all(ws)
    world.fake.step(20)
    return (await hear_all(ws))[0]["result"]


async def test_shapes_differ_by_market(autojump_clock: MockClock, world: World) -> None:
    assert isinstance(await first(world, "spot", "trades", "BTC_USDT"), dict)
    assert isinstance(await first(world, "linear", "trades", "BTC_USDT"), list)
    assert isinstance((await first(world, "spot", "candlesticks", "1m", "BTC_USDT"))["t"], str)
    assert isinstance((await first(world, "linear", "candlesticks", "1m", "BTC_USDT"))[0]["t"], int)
    levels = (await first(world, "linear", "order_book_update", "BTC_USDT", "100ms", "100"))["b"]
    assert all(set(level) == {"p", "s"} for level in levels)
    levels = (await first(world, "spot", "order_book_update", "BTC_USDT", "100ms"))["b"]
    assert all(len(level) == 2 for level in levels)


async def test_sizes_are_whole_without_the_header(autojump_clock: MockClock, world: World) -> None:
    (trade,) = await first(world, "linear", "trades", "SOL_USDT")
    assert isinstance(trade["size"], str)
    assert "." in trade["size"]
    (trade,) = await first(world, "linear", "trades", "SOL_USDT", headers={})
    assert isinstance(trade["size"], int)
    quote = await first(world, "linear", "book_ticker", "SOL_USDT", headers={})
    assert type(quote["B"]) is type(quote["A"]) is int
    assert quote["s"] == "SOL_USDT"
    path = "/futures/usdt/order_book?contract=SOL_USDT&limit=1&with_id=true"
    assert isinstance((await world.get(path)).json()["asks"][0]["s"], str)
    assert isinstance((await world.get(path, {})).json()["asks"][0]["s"], int)


async def test_markets_with_the_same_symbol_are_apart(autojump_clock: MockClock, world: World) -> None:
    spot = await first(world, "spot", "trades", "BTC_USDT")
    (linear,) = await first(world, "linear", "trades", "BTC_USDT")
    assert str(spot["id"]) in {str(t.id) for t in world.fake.market.trades("BTC-USDT")}
    assert str(linear["id"]) in {str(t.id) for t in world.fake.market.trades("BTC-USDT-PERP")}


@pytest.mark.parametrize("kind", ["order_book_update", "obu"])
async def test_numbers_of_a_book_have_no_holes_on_futures_either(
    autojump_clock: MockClock, world: World, kind: str
) -> None:
    ws = await world.open("linear")
    payload = ["BTC_USDT", "100ms", "100"] if kind == "order_book_update" else ["ob.BTC_USDT.50"]
    await world.ask(ws, "subscribe", f"futures.{kind}", *payload)
    for _ in range(20):
        world.fake.step()
        await trio.sleep(0.05)
    told = [m["result"] for m in await hear_all(ws) if "u" in (m["result"] or {})]
    assert len(told) > 5
    for before, after in itertools.pairwise(told):
        assert after["U"] == before["u"] + 1
    if kind == "obu":
        assert "U" not in told[0]


async def test_levels_that_leave_the_depth_are_not_told(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await world.ask(ws, "subscribe", "spot.order_book_update", "BTC_USDT", "20ms")
    snapshot = (await world.get("/spot/order_book?currency_pair=BTC_USDT&limit=20&with_id=true")).json()
    sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}
    most = 0
    for _ in range(200):
        world.fake.step()
        await trio.sleep(0.05)
    world.fake.flush()
    for message in await hear_all(ws):
        for key, side in sides.items():
            for price, size in message["result"].get(key, ()):
                side.pop(price, None)
                if size != "0":
                    side[price] = size
            most = max(most, len(side))
    assert most > 20, "a reader that does not cut has more than the depth in the end"
    bids, asks = world.fake.market.book("BTC-USDT", 20)
    best = sorted(sides["b"].items(), key=lambda level: -float(level[0]))[:20]
    assert best == bids
    best = sorted(sides["a"].items(), key=lambda level: float(level[0]))[:20]
    assert best == asks


async def test_candles_are_closed_by_a_flag_or_not_at_all(autojump_clock: MockClock, world: World) -> None:
    for closes in (True, False):
        world.fake.closes_candles = closes
        ws = await world.open()
        await world.ask(ws, "subscribe", "spot.candlesticks", "1m", "BTC_USDT")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.fake.play, 1)
            heard = []
            for _ in range(7):
                await ws.send(json.dumps({"channel": "spot.ping", "time": 1}))
                heard += await hear_all(ws, 10)
            nursery.cancel_scope.cancel()
        rows = [m["result"] for m in heard if m["channel"] == "spot.candlesticks" and m["event"] == "update"]
        assert any(row["w"] for row in rows) is closes


async def test_liquidations_are_told_for_one_and_for_all(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("linear")
    await world.ask(ws, "subscribe", "futures.public_liquidates", "!all")
    await world.ask(ws, "subscribe", "futures.public_liquidates", "ETH_USDT")
    await hear_all(ws)
    world.fake.liquidate("BTC-USDT-PERP")
    world.fake.liquidate("BTC-USDT")  # spot has none
    (message,) = await hear_all(ws)
    (row,) = message["result"]
    assert (row["contract"], row["time"]) == ("BTC_USDT", world.now_ns() // 1_000_000 - 1000)


# --- Heartbeats and limits --------------------------------------------------------------------------------


async def test_who_says_nothing_is_cut_after_half_a_minute(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    opened = trio.current_time()
    with pytest.raises(ConnectionLostError):
        await hear_all(ws, 100)
    assert trio.current_time() - opened == pytest.approx(30.5)


@pytest.mark.parametrize(("market", "prefix"), [("spot", "spot"), ("linear", "futures")])
async def test_pings_are_answered_and_keep_the_socket(
    autojump_clock: MockClock, world: World, market: str, prefix: str
) -> None:
    ws = await world.open(market)
    for _ in range(10):
        await ws.send(json.dumps({"time": world.now_ns() // S, "channel": f"{prefix}.ping"}))
        pong = (await hear_all(ws, 25.0))[0]
        assert (pong["channel"], pong["event"], pong["result"]) == (f"{prefix}.pong", "", None)
    assert len(world.fake.sockets) == 1


async def test_an_upgrade_is_announced(autojump_clock: MockClock, world: World) -> None:
    spot, linear = await world.open(), await world.open("linear")
    world.fake.shut_down("spot")
    assert (await hear(spot))["type"] == "upgrade"
    assert await hear_all(linear) == []
    world.fake.shut_down("linear")
    assert (await hear(linear))["result"]["type"] == "upgrade"


async def test_paths_and_connections(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, connections=2)
        with pytest.raises(HandshakeRefusedError, match="404"):
            await open_websocket(world.dialer, URL, "/v4/ws/eth", headers={}, max_message_bytes=1000)
        await world.open()
        await world.open("inverse")
        with pytest.raises(HandshakeRefusedError, match="429"):
            await world.open()
        nursery.cancel_scope.cancel()


# --- REST -------------------------------------------------------------------------------------------------


async def test_lists(autojump_clock: MockClock, world: World) -> None:
    pairs = (await world.get("/spot/currency_pairs")).json()
    assert [row["id"] for row in pairs] == ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
    linear = (await world.get("/futures/usdt/contracts")).json()
    assert [row["name"] for row in linear] == ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
    assert [row["enable_decimal"] for row in linear] == [False, False, True]
    assert len((await world.get("/futures/usdt/contracts?limit=1")).json()) == 1
    inverse = (await world.get("/futures/btc/contracts")).json()
    assert [(row["name"], row["quanto_multiplier"]) for row in inverse] == [
        ("BTC_USD", "0"),
        ("ETH_USD", "0"),
    ]
    assert (await world.get("/spot/time")).json() == {"server_time": T0 // 1_000_000}


async def test_contracts_settled_in_usd1_are_a_list_of_their_own(autojump_clock: MockClock) -> None:
    listing = Listing(
        market="linear",
        base="BTC",
        quote="USD1",
        kind=Kind.PERPETUAL,
        price="83746.9",
        tick="0.1",
        lot="1",
        contract_size="0.0001",
    )
    async with trio.open_nursery() as nursery:
        world = World(nursery, market=Market([listing]))
        assert (await world.get("/futures/usdt/contracts")).json() == []
        assert [row["name"] for row in (await world.get("/futures/usd1/contracts")).json()] == ["BTC_USD1"]
        result = await first(world, "linear_usd1", "book_ticker", "BTC_USD1")
        assert result["s"] == "BTC_USD1"
        nursery.cancel_scope.cancel()


async def test_a_book_has_its_number_on_request(autojump_clock: MockClock, world: World) -> None:
    path = "/spot/order_book?currency_pair=BTC_USDT&limit=5"
    assert "id" not in (await world.get(path)).json()
    book = (await world.get(f"{path}&with_id=true")).json()
    assert book["id"] == world.fake.market.sequence("BTC-USDT")
    assert len(book["asks"]) == 5
    assert isinstance(book["update"], int)
    futures = (await world.get("/futures/usdt/order_book?contract=BTC_USDT&with_id=true")).json()
    assert isinstance(futures["update"], float)
    assert futures["update"] < 2_000_000_000


async def test_candles_include_both_ends_and_the_running_minute(
    autojump_clock: MockClock, world: World
) -> None:
    now_s = T0 // S
    path = f"/spot/candlesticks?currency_pair=BTC_USDT&interval=1m&from={now_s - 300}&to={now_s}"
    rows = (await world.get(path)).json()
    assert [int(row[0]) for row in rows] == [now_s - 300 + 60 * n for n in range(6)]
    assert [row[-1] for row in rows] == ["true"] * 5 + ["false"]
    path = f"/futures/usdt/candlesticks?contract=BTC_USDT&interval=1m&from={now_s - 60}&to={now_s}"
    rows = (await world.get(path)).json()
    assert [row["t"] for row in rows] == [now_s - 60, now_s]
    assert len((await world.get("/spot/candlesticks?currency_pair=BTC_USDT&interval=1m&limit=3")).json()) == 3


async def test_trades_are_newest_first_in_pages(autojump_clock: MockClock, world: World) -> None:
    world.fake.step(50)
    path = "/spot/trades?currency_pair=BTC_USDT&limit=5"
    one = (await world.get(f"{path}&page=1")).json()
    two = (await world.get(f"{path}&page=2")).json()
    newest = [str(t.id) for t in reversed(world.fake.market.trades("BTC-USDT"))]
    assert [row["id"] for row in one + two] == newest[:10]
    futures = (await world.get("/futures/usdt/trades?contract=BTC_USDT&limit=5&offset=2")).json()
    newest = [str(t.id) for t in reversed(world.fake.market.trades("BTC-USDT-PERP"))]
    assert [str(row["id"]) for row in futures] == newest[2:7]
    assert futures[0]["create_time_ms"] < 2_000_000_000, "these milliseconds are seconds"


@pytest.mark.parametrize(
    ("path", "label", "words"),
    [
        ("/spot/order_book", "MISSING_REQUIRED_PARAM", "currency_pair"),
        ("/spot/order_book?currency_pair=NO_PE", "INVALID_CURRENCY_PAIR", "NO_PE"),
        ("/futures/usdt/order_book?contract=NO_PE", "CONTRACT_NOT_FOUND", "NO_PE"),
        ("/futures/btc/trades?contract=BTC_USDT", "CONTRACT_NOT_FOUND", "BTC_USDT"),
        ("/spot/trades?currency_pair=BTC_USDT&limit=1001", "INVALID_PARAM_VALUE", "`limit` value: 1001"),
        ("/spot/trades?currency_pair=BTC_USDT&limit=x", "INVALID_PARAM_VALUE", "`limit` value: x"),
        (
            "/spot/candlesticks?currency_pair=BTC_USDT&interval=1m&from=1790000000&to=1790000040&limit=100",
            "INVALID_PARAM_VALUE",
            "`limit` value: 100",
        ),
        (
            "/spot/candlesticks?currency_pair=BTC_USDT&interval=1m&from=1789900000&to=1790000040",
            "INVALID_PARAM_VALUE",
            "too broad",
        ),
        (
            "/futures/usdt/candlesticks?contract=BTC_USDT&interval=1m&from=1789000000&to=1789000600",
            "INVALID_PARAM_VALUE",
            "too long ago",
        ),
    ],
)
async def test_bad_requests(
    autojump_clock: MockClock, world: World, path: str, label: str, words: str
) -> None:
    answer = await world.get(path)
    assert answer.status == 400
    assert answer.json()["label"] == label
    assert words in answer.json()["message"]


async def test_what_does_not_exist(autojump_clock: MockClock, world: World) -> None:
    for path in ("/spot/nothing", "/futures/eth/contracts", "/futures/usdt/time", "/"):
        assert (await world.get(path)).status == 404


async def test_each_endpoint_has_a_limit(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, per_window=3)
        left = []
        for _ in range(4):
            answer = await world.get("/spot/currency_pairs")
            left.append((answer.status, answer.headers["x-gate-ratelimit-requests-remain"]))
            await trio.sleep(1)
        assert left == [(200, "2"), (200, "1"), (200, "0"), (429, "0")]
        assert answer.json()["label"] == "TOO_MANY_REQUESTS"
        assert int(answer.headers["x-gate-ratelimit-reset-timestamp"]) == T0 // S + 10
        assert (await world.get("/spot/trades?currency_pair=BTC_USDT")).status == 200
        await trio.sleep(7)
        assert (await world.get("/spot/currency_pairs")).status == 200
        nursery.cancel_scope.cancel()


# --- On a real port, to clients that are not ours ---------------------------------------------------------


def talk(url: str) -> list[Any]:
    ws: ClientConnection
    with connect(url, additional_headers=DECIMAL) as ws:
        ws.send('{"time":1,"channel":"futures.ping"}')
        return [json.loads(ws.recv(timeout=5))]


async def test_other_clients_understand_it() -> None:
    fake = GateioFake(history_minutes=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        (pong,) = await trio.to_thread.run_sync(talk, fake.endpoints()["linear_ws"])
        assert pong["channel"] == "futures.pong"
        async with httpx.AsyncClient() as client:
            answer = await client.get(fake.endpoints()["spot_rest"] + "/spot/currency_pairs")
        assert len(answer.json()) == 3
        nursery.cancel_scope.cancel()
