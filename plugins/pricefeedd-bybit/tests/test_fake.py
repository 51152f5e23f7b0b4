"""The fake Bybit speaks Bybit's protocol: answers, heartbeats, numbers, limits and ends as the venue's documents say."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from websockets.sync.client import ClientConnection, connect

from pricefeedd.errors import ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.market import Market
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_bybit.fake_words import symbol_of
from pricefeedd_bybit.testing import MARKETS, BybitFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
URL = "ws://bybit.test"


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.now_ns = anchored_clock(T0)
        self.fake = BybitFake(now_ns=self.now_ns, **options)
        self.dialer = MemoryDialer(nursery, {URL: self.fake}, now_ns=self.now_ns)

    async def open(self, market: str = "linear") -> WebSocket:
        path = "/v5/private" if market == "private" else f"/v5/public/{market}"
        return await open_websocket(self.dialer, URL, path, headers={}, max_message_bytes=1 << 20)

    async def get(self, path: str) -> HttpReply:
        return await self.dialer.fetch("GET", f"http://bybit.test{path}", headers={}, body=None)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, history_minutes=10)
        nursery.cancel_scope.cancel()


async def ask(ws: WebSocket, op: str, *args: Any, req_id: str | None = "1") -> None:
    request = {"op": op, "args": list(args)} | ({} if req_id is None else {"req_id": req_id})
    await ws.send(json.dumps(request))


async def hear_all(ws: WebSocket, within_s: float = 1.0) -> list[Any]:
    heard: list[Any] = []
    with trio.move_on_after(within_s):
        while True:
            heard += [json.loads(message) for message in await ws.receive()]
    return heard


async def answer(ws: WebSocket, op: str, *args: Any, req_id: str | None = "1") -> Any:
    await ask(ws, op, *args, req_id=req_id)
    (said,) = (m for m in await hear_all(ws) if "topic" not in m)
    said.pop("conn_id")
    return said


# --- Requests and answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("market", "text"), [("spot", "subscribe"), ("linear", ""), ("inverse", "")])
async def test_one_answer_per_request(
    autojump_clock: MockClock, world: World, market: str, text: str
) -> None:
    symbol = "BTCUSD" if market == "inverse" else "BTCUSDT"
    ws = await world.open(market)
    said = await answer(ws, "subscribe", f"publicTrade.{symbol}", f"kline.1.{symbol}", req_id="s-17")
    assert said == {"success": True, "ret_msg": text, "req_id": "s-17", "op": "subscribe"}
    assert (await answer(ws, "subscribe", f"tickers.{symbol}", req_id=None))["req_id"] == ""
    said = await answer(ws, "unsubscribe", f"publicTrade.{symbol}", req_id="u-18")
    assert said == {"success": True, "ret_msg": "", "req_id": "u-18", "op": "unsubscribe"}
    assert list(world.fake.sockets[0].subscriptions) == [f"kline.1.{symbol}", f"tickers.{symbol}"]
    assert (world.fake.seen.subscribes, world.fake.seen.unsubscribes) == (2, 1)


@pytest.mark.parametrize(
    ("market", "args", "text"),
    [
        ("linear", ["publicTrade.BTCUSDT", "publicTrade.NOPE"], "error:handler not found,topic:publicTrade.NOPE"),
        ("linear", ["orderbook.500.BTCUSDT"], "error:handler not found,topic:orderbook.500.BTCUSDT"),
        ("linear", ["orderbook.50.btcusdt"], "error:handler not found,topic:orderbook.50.btcusdt"),
        ("linear", ["order"], "error:handler not found,topic:order"),
        ("linear", ["publicTrade.BTCUSD"], "error:handler not found,topic:publicTrade.BTCUSD"),
        ("inverse", ["publicTrade.BTCUSDT"], "error:handler not found,topic:publicTrade.BTCUSDT"),
        ("spot", ["publicTrade.BTCUSDT", "orderbook.50.NOPE"], "Invalid symbol :[orderbook.50.NOPE]"),
        ("spot", ["allLiquidation.BTCUSDT"], "error:handler not found,topic:allLiquidation.BTCUSDT"),
        ("spot", [f"publicTrade.{i}" for i in range(11)], "args size >10"),
        ("linear", ["tickers.ETHUSDT", "tickers.ETHUSDT"], "error:already subscribed,topic:tickers.ETHUSDT"),
    ],
)  # fmt: skip
async def test_one_bad_topic_fails_the_whole_request(
    autojump_clock: MockClock, world: World, market: str, args: list[str], text: str
) -> None:
    ws = await world.open(market)
    said = await answer(ws, "subscribe", *args)
    assert said == {"success": False, "ret_msg": text, "req_id": "1", "op": "subscribe"}
    world.fake.step(20)
    assert await hear_all(ws) == []
    assert not world.fake.sockets[0].subscriptions


async def test_a_topic_twice_loses_the_new_one_of_its_request(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await answer(ws, "subscribe", "publicTrade.BTCUSDT")
    said = await answer(ws, "subscribe", "publicTrade.ETHUSDT", "publicTrade.BTCUSDT")
    assert said["ret_msg"] == "error:already subscribed,topic:publicTrade.BTCUSDT"
    world.fake.step(50)
    assert {m["topic"] for m in await hear_all(ws)} == {"publicTrade.BTCUSDT"}


async def test_what_cannot_be_read_is_said_so_and_the_socket_stays(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    for text in ("hello", "[]", "{}", "5"):
        await ws.send(text)
    said = await hear_all(ws)
    assert [m["ret_msg"].startswith("Failed to decode incoming data:") for m in said] == [True] * 4
    assert {m["op"] for m in said} == {""}
    assert (await answer(ws, "nope"))["ret_msg"] == "error:invalid op"
    assert (await answer(ws, "subscribe", 5))["success"] is False


async def test_all_topics_have_a_common_length(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    world.fake.sockets[0].memo["topics"] = 20_990
    assert (await answer(ws, "subscribe", "publicTrade.BTCUSDT"))["success"] is False


async def test_paths_that_do_not_exist(autojump_clock: MockClock, world: World) -> None:
    for path in ("/v5/public/option", "/realtime", "/spot/public/v3", "/v5/public"):
        with pytest.raises(HandshakeRefusedError, match="404"):
            await open_websocket(world.dialer, URL, path, headers={}, max_message_bytes=1000)


# --- Heartbeats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "named", "pong"),
    [
        ("spot", False, {"success": True, "ret_msg": "pong", "op": "ping"}),
        ("spot", True, {"success": True, "ret_msg": "pong", "req_id": "9", "op": "ping"}),
        ("linear", False, {"success": True, "ret_msg": "pong", "req_id": "", "op": "ping"}),
        ("inverse", True, {"success": True, "ret_msg": "pong", "req_id": "9", "op": "ping"}),
    ],
)
async def test_pongs_of_public_streams_are_called_ping(
    autojump_clock: MockClock, world: World, market: str, named: bool, pong: Any
) -> None:
    ws = await world.open(market)
    assert await answer(ws, "ping", req_id="9" if named else None) == pong


async def test_pongs_of_the_private_stream_are_called_pong(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("private")
    said = await answer(ws, "ping", req_id="test")
    assert (said["op"], said["req_id"]) == ("pong", "test")
    assert int(said["args"][0]) * 1_000_000 == pytest.approx(world.now_ns(), abs=2e9)


async def test_who_says_nothing_for_ten_minutes_is_cut(autojump_clock: MockClock, world: World) -> None:
    quiet, pinging = await world.open(), await world.open()

    async def ping() -> None:
        while True:
            await trio.sleep(300)
            await ask(pinging, "ping")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping)
        nursery.start_soon(hear_all, pinging, 2000)
        with pytest.raises(ConnectionLostError):
            await hear_all(quiet, 2000)
        assert trio.current_time() == pytest.approx(600, abs=1)
        await trio.sleep(1000)
        assert len(world.fake.sockets) == 1
        nursery.cancel_scope.cancel()


# --- Data -------------------------------------------------------------------------------------------------


async def test_shapes_differ_by_market_as_documented(autojump_clock: MockClock, world: World) -> None:
    heard: dict[tuple[str, str], list[Any]] = {}
    for market in MARKETS:
        symbol = "BTCUSD" if market == "inverse" else "BTCUSDT"
        ws = await world.open(market)
        await ask(ws, "subscribe", f"publicTrade.{symbol}", f"tickers.{symbol}", f"orderbook.1.{symbol}")
        await trio.sleep(0.2)
        for _ in range(30):
            world.fake.step()
            await trio.sleep(0.1)
        for message in await hear_all(ws):
            if "topic" in message:
                heard.setdefault((market, message["topic"].partition(".")[0]), []).append(message)
    spot, linear = heard["spot", "publicTrade"][0], heard["linear", "publicTrade"][0]
    assert list(spot)[:3] == ["topic", "ts", "type"]
    assert list(linear)[:3] == ["topic", "type", "ts"]
    assert "L" not in spot["data"][0]
    assert spot["data"][0]["i"].isdecimal()
    assert "L" in linear["data"][0]
    assert len(linear["data"][0]["i"]) == 36
    tickers = heard["spot", "tickers"]
    assert {m["type"] for m in tickers} == {"snapshot"}
    assert all("bid1Price" not in m["data"] for m in tickers), "spot tickers have no best bid"
    first, *rest = heard["inverse", "tickers"]
    assert first["type"] == "snapshot"
    assert {m["type"] for m in rest} == {"delta"}
    assert all(set(m["data"]) < set(first["data"]) for m in rest), "a delta has what changed"
    assert any({"bid1Price", "lastPrice"} - set(m["data"]) for m in rest)
    best = heard["linear", "orderbook"]
    assert {m["type"] for m in best} == {"snapshot"}
    assert all(len(m["data"]["b"]) == len(m["data"]["a"]) == 1 for m in best)
    us = [m["data"]["u"] for m in best]
    assert us == list(range(us[0], us[0] + len(us)))


async def test_the_best_level_is_repeated_with_its_numbers(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "subscribe", "orderbook.1.BTCUSDT")
    await trio.sleep(0.1)
    _, first, *again = await hear_all(ws, 10.0)
    assert [m["data"] for m in again] == [first["data"]] * 3
    assert [m["ts"] - first["ts"] for m in again] == pytest.approx([3000, 6000, 9000], abs=50)


@pytest.mark.parametrize(("market", "depth"), [("spot", 50), ("linear", 200), ("inverse", 1000)])
async def test_books_begin_whole_and_count_by_one(
    autojump_clock: MockClock, world: World, market: str, depth: int
) -> None:
    name = {"spot": "BTC-USDT", "linear": "BTC-USDT-PERP", "inverse": "BTC-USD-PERP"}[market]
    topic = f"orderbook.{depth}.{symbol_of(world.fake.market.listings[name])}"
    ws, late = await world.open(market), await world.open(market)
    await ask(ws, "subscribe", topic)
    for i in range(60):
        world.fake.step(names=(name,))
        await trio.sleep(0.03)
        if i == 30:
            await ask(late, "subscribe", topic)
            await trio.sleep(0.01)
    world.fake.flush()
    ends = []
    for socket in (ws, late):
        ack, snapshot, *deltas = await hear_all(socket)
        assert (ack["success"], snapshot["type"]) == (True, "snapshot")
        assert {m["type"] for m in deltas} == {"delta"}
        numbers = [m["data"]["u"] for m in (snapshot, *deltas)]
        assert all(b == a + 1 for a, b in itertools.pairwise(numbers))
        book = [dict(snapshot["data"]["b"]), dict(snapshot["data"]["a"])]
        for message in deltas:
            for side, rows in zip(book, (message["data"]["b"], message["data"]["a"]), strict=True):
                side.update(dict(rows))
        ends.append([{p: s for p, s in side.items() if s != "0"} for side in book])
    assert ends[0] == ends[1] == [dict(side) for side in world.fake.market.book(name, depth)]


async def test_a_level_that_leaves_the_window_is_removed(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, market=Market(BybitFake.default_listings(), depth=80))
        ws = await world.open("spot")
        await ask(ws, "subscribe", "orderbook.50.BTCUSDT")
        await trio.sleep(0.1)
        for _ in range(200):
            world.fake.step(names=("BTC-USDT",))
            await trio.sleep(0.1)
        _, snapshot, *deltas = await hear_all(ws)
        book = dict(snapshot["data"]["b"])
        for message in deltas:
            book.update(dict(message["data"]["b"]))
            book = {price: size for price, size in book.items() if size != "0"}
            assert len(book) == 50
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["snapshot", "delta"])
async def test_a_service_that_begins_anew_counts_from_one(
    autojump_clock: MockClock, world: World, kind: str
) -> None:
    ws = await world.open()
    await ask(ws, "subscribe", "orderbook.50.BTCUSDT", "orderbook.1.BTCUSDT")
    await trio.sleep(0.2)
    await hear_all(ws)
    world.fake.restart_books("BTC-USDT-PERP", kind=kind)
    whole, best = await hear_all(ws)
    assert (whole["data"]["u"], whole["type"], len(whole["data"]["b"])) == (1, kind, 40)
    assert (best["data"]["u"], best["type"]) == (1, "snapshot")


async def test_candles_are_closed_by_the_clock(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("spot")
    await ask(ws, "subscribe", "kline.1.BTCUSDT")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fake.play, 2)
        rows = [row for m in await hear_all(ws, 125.0) if "topic" in m for row in m["data"]]
        nursery.cancel_scope.cancel()
    closed = [row for row in rows if row["confirm"]]
    assert [row["start"] * 1_000_000 - T0 for row in closed] == [0, 60_000_000_000]
    assert all(row["end"] - row["start"] == 59_999 for row in rows)


# --- The private stream -----------------------------------------------------------------------------------


def login(key: str, secret: str, expires: int) -> tuple[str, int, str]:
    signature = hmac.new(secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
    return key, expires, signature


async def test_a_login_opens_the_topics_of_its_account(autojump_clock: MockClock, world: World) -> None:
    world.fake.accounts = {"key-a": "secret-a", "key-b": "secret-b"}
    ws, other = await world.open("private"), await world.open("private")
    assert (await answer(ws, "subscribe", "order"))["success"] is False, "not before the login"
    expires = world.now_ns() // 1_000_000 + 10_000
    said = await answer(ws, "auth", *login("key-a", "secret-a", expires), req_id=None)
    assert said == {"success": True, "ret_msg": "", "op": "auth"}
    assert (await answer(other, "auth", *login("key-b", "secret-b", expires)))["success"]
    assert (await answer(ws, "subscribe", "order", "wallet", "position.linear", req_id=None)) == {
        "success": True,
        "ret_msg": "",
        "op": "subscribe",
    }
    assert (await answer(other, "subscribe", "order"))["success"]
    assert "handler not found" in (await answer(ws, "subscribe", "nothing"))["ret_msg"]
    assert world.fake.push("key-a", "order", [{"category": "linear", "orderId": "1"}], message_id="m") == 1
    assert world.fake.push("key-a", "position", [{"category": "spot"}], message_id="n") == 0
    (told,) = await hear_all(ws)
    assert (told["topic"], told["id"], told["data"][0]["orderId"]) == ("order", "m", "1")
    assert await hear_all(other) == []


@pytest.mark.parametrize(
    ("key", "secret", "ahead_ms"),
    [("key", "wrong", 10_000), ("nobody", "secret", 10_000), ("key", "secret", -1), ("key", "secret", 0)],
)
async def test_a_wrong_login_is_a_params_error(
    autojump_clock: MockClock, world: World, key: str, secret: str, ahead_ms: int
) -> None:
    world.fake.accounts = {"key": "secret"}
    ws = await world.open("private")
    expires = world.now_ns() // 1_000_000 + ahead_ms
    said = await answer(ws, "auth", *login(key, secret, expires))
    assert (said["success"], said["ret_msg"]) == (False, "Params Error")
    assert (await answer(ws, "auth", "only one"))["success"] is False


# --- REST -------------------------------------------------------------------------------------------------


async def test_every_answer_has_the_envelope(autojump_clock: MockClock, world: World) -> None:
    body = (await world.get("/v5/market/time")).json()
    assert (body["retCode"], body["retMsg"], body["retExtInfo"]) == (0, "OK", {})
    assert body["time"] * 1_000_000 == pytest.approx(world.now_ns(), abs=2e9)
    assert int(body["result"]["timeNano"]) // 1_000_000_000 == int(body["result"]["timeSecond"])
    assert (await world.get("/v5/nothing")).status == 404


async def test_instruments_come_in_pages(autojump_clock: MockClock, world: World) -> None:
    world.fake.page = (2, 3)
    world.fake.statuses["SOL-USDT-PERP"] = "PreLaunch"
    symbols, cursor = [], ""
    for _ in range(2):
        path = f"/v5/market/instruments-info?category=linear&limit=1000&cursor={cursor}"
        result = (await world.get(path)).json()["result"]
        symbols.append([row["symbol"] for row in result["list"]])
        cursor = result["nextPageCursor"]
    assert symbols == [["BTCUSDT", "ETHUSDT", "BTCPERP"], ["BTCUSDT-25DEC26"]]
    assert cursor == ""
    hidden = (await world.get("/v5/market/instruments-info?category=linear&status=PreLaunch")).json()
    assert [row["symbol"] for row in hidden["result"]["list"]] == ["SOLUSDT"]
    spot = (await world.get("/v5/market/instruments-info?category=spot&limit=1")).json()["result"]
    assert len(spot["list"]) == 3
    assert "nextPageCursor" not in spot
    inverse = (await world.get("/v5/market/instruments-info?category=inverse")).json()["result"]["list"]
    assert [(row["symbol"], row["contractType"]) for row in inverse] == [
        ("BTCUSD", "InversePerpetual"),
        ("ETHUSD", "InversePerpetual"),
    ], "without a limit a page is shorter"


async def test_klines_are_newest_first_and_the_first_one_runs(
    autojump_clock: MockClock, world: World
) -> None:
    await trio.sleep(30)
    start_ms = T0 // 1_000_000
    path = "/v5/market/kline?category=spot&symbol=BTCUSDT&interval=1"
    rows = (await world.get(path)).json()["result"]["list"]
    assert [int(row[0]) for row in rows] == [start_ms - n * 60_000 for n in range(11)]
    assert all(len(row) == 7 and all(isinstance(value, str) for value in row) for row in rows)
    window = f"&start={start_ms - 300_000}&end={start_ms - 180_000}"
    assert (await world.get(path + window)).json()["result"]["list"] == rows[3:6]
    assert (await world.get(path + window + "&limit=2")).json()["result"]["list"] == rows[3:5]


async def test_recent_trades_are_newest_first_and_few_on_spot(
    autojump_clock: MockClock, world: World
) -> None:
    for _ in range(300):
        world.fake.step(names=("BTC-USDT",))
        await trio.sleep(0.01)
    path = "/v5/market/recent-trade?category=spot&symbol=BTCUSDT"
    rows = (await world.get(path)).json()["result"]["list"]
    words = world.fake._words["BTC-USDT"]
    assert [row["execId"] for row in rows] == [
        words.trade_id(t.id) for t in list(world.fake.market.trades("BTC-USDT"))[:-61:-1]
    ]
    assert (await world.get(path + "&limit=61")).json()["retCode"] == 10001


async def test_the_book_by_rest(autojump_clock: MockClock, world: World) -> None:
    result = (await world.get("/v5/market/orderbook?category=linear&symbol=BTCUSDT&limit=2")).json()["result"]
    assert [tuple(level) for level in result["b"]] == world.fake.market.book("BTC-USDT-PERP", 2)[0]
    assert {"s", "a", "ts", "u", "seq", "cts"} < set(result)


@pytest.mark.parametrize(
    "path",
    ["kline?category=spot&symbol=NOPE&interval=1", "kline?category=spot&symbol=BTCUSDT&interval=7",
     "kline?category=option&symbol=BTCUSDT&interval=1", "recent-trade?category=linear",
     "kline?category=spot&symbol=BTCUSDT&interval=1&limit=x"],
)  # fmt: skip
async def test_bad_requests_are_told_with_http_200(
    autojump_clock: MockClock, world: World, path: str
) -> None:
    reply = await world.get(f"/v5/market/{path}")
    assert (reply.status, reply.json()["retCode"]) == (200, 10001)


async def test_too_many_requests_are_a_ban_of_ten_minutes(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, requests_per_5s=3)
        statuses = [(await world.get("/v5/market/time")).status for _ in range(3)]
        await trio.sleep(5.1)
        statuses += [(await world.get("/v5/market/time")).status for _ in range(4)]
        assert statuses == [200] * 6 + [403]
        await trio.sleep(590)
        banned = await world.get("/v5/market/time")
        assert (banned.status, banned.body) == (403, b"access too frequent")
        await trio.sleep(20)
        assert (await world.get("/v5/market/time")).status == 200
        nursery.cancel_scope.cancel()


async def test_too_many_connections_are_a_ban(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, connections_per_5min=2)
        await world.open()
        await world.open("spot")
        with pytest.raises(HandshakeRefusedError, match="403"):
            await world.open()
        nursery.cancel_scope.cancel()


def test_each_market_has_two_instruments_or_more() -> None:
    listings = BybitFake.default_listings()
    for market in MARKETS:
        assert sum(listing.market == market for listing in listings) >= 2
    assert [symbol_of(listing) for listing in listings] == [
        "BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCPERP", "BTCUSDT-25DEC26", "BTCUSD",
        "ETHUSD", "BTCUSDZ26",
    ]  # fmt: skip


# --- Over a real socket -----------------------------------------------------------------------------------


async def test_an_independent_client_over_tcp() -> None:
    fake = BybitFake(Market(BybitFake.default_listings(), seed=4))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(fake.run)
            url = fake.endpoints()["linear_ws"] + "/v5/public/linear"
            with contextlib.ExitStack() as stack:
                ws: ClientConnection = await trio.to_thread.run_sync(
                    lambda: stack.enter_context(
                        connect(url, proxy=None, ping_interval=None, compression=None)
                    )
                )
                request = '{"req_id":"x","op":"subscribe","args":["orderbook.50.BTCUSDT"]}'
                await trio.to_thread.run_sync(ws.send, request)
                assert json.loads(await trio.to_thread.run_sync(ws.recv, 5))["req_id"] == "x"
                nursery.start_soon(functools.partial(fake.play, 200))
                numbers = [
                    json.loads(await trio.to_thread.run_sync(ws.recv, 5))["data"]["u"] for _ in range(20)
                ]
                assert numbers == list(range(numbers[0], numbers[0] + 20))
                await trio.to_thread.run_sync(stack.close)
            nursery.cancel_scope.cancel()
