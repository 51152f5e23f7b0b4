"""The fake BingX speaks BingX's protocol: gzip, pings, codes, limits and shapes as documented and measured."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from websockets.sync.client import ClientConnection, connect

from pricefeedd.errors import ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.market import Listing, Market, many_listings
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_bingx.testing import BingxFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
T0_MS = T0 // 1_000_000
URL = "ws://bingx.test"
PATHS = {"spot": "/market", "linear": "/swap-market"}
NAMES = {"spot": "BTC-USDT", "linear": "BTC-USDT-PERP"}


class Client:
    """One connection: what it heard, unpacked. Pings are answered unless it is told otherwise."""

    def __init__(self, ws: WebSocket, market: str, *, pongs: bool = True) -> None:
        self.ws = ws
        self.market = market
        self.pongs = pongs
        self.pings = 0

    async def ask(self, what: str, topic: Any, number: Any = "1") -> None:
        await self.ws.send(json.dumps({"id": number, "reqType": what, "dataType": topic}))

    async def hear(self, within_s: float = 1.0) -> list[Any]:
        """Return what comes in this time, pings left out."""
        heard: list[Any] = []
        with trio.move_on_after(within_s):
            while True:
                for frame in await self.ws.receive():
                    assert frame[:2] == b"\x1f\x8b", "everything is gzip"
                    text = gzip.decompress(frame)
                    message = text.decode() if text == b"Ping" else json.loads(text)
                    if message == "Ping" or "ping" in message:
                        self.pings += 1
                        if self.pongs:
                            await self.ws.send(pong(message))
                    else:
                        heard.append(message)
        return heard

    async def sub(self, topic: Any, number: Any = "1") -> list[Any]:
        await self.ask("sub", topic, number)
        return await self.hear()


def pong(ping: Any) -> str:
    return "Pong" if ping == "Ping" else json.dumps({"pong": ping["ping"], "time": ping["time"]})


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, market: Market | None = None, **options: Any) -> None:
        self.now_ns = anchored_clock(T0)
        self.fake = BingxFake(market, now_ns=self.now_ns, **options)
        self.dialer = MemoryDialer(nursery, {URL: self.fake}, now_ns=self.now_ns)
        self.endpoints = self.fake.endpoints("bingx.test")

    async def open(self, market: str, *, pongs: bool = True, path: str | None = None) -> Client:
        path = PATHS[market] if path is None else path
        url = self.endpoints[f"{market}_ws"]
        ws = await open_websocket(self.dialer, url, path, headers={}, max_message_bytes=1 << 20)
        return Client(ws, market, pongs=pongs)

    async def get(self, market: str, path: str) -> HttpReply:
        url = f"{self.endpoints[f'{market}_rest']}/openApi/{path}"
        return await self.dialer.fetch("GET", url, headers={}, body=None)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, history_minutes=10)
        nursery.cancel_scope.cancel()


# --- Requests and answers ---------------------------------------------------------------------------------


async def test_acks_do_not_name_the_topic(autojump_clock: MockClock, world: World) -> None:
    swap, spot = await world.open("linear"), await world.open("spot")
    assert await swap.sub("BTC-USDT@trade", "x-1") == [
        {"id": "x-1", "code": 0, "msg": "", "dataType": "", "data": None}
    ]
    (ack,) = await spot.sub("BTC-USDT@trade", "x-2")
    assert (ack["code"], ack["id"], ack["msg"]) == (0, "x-2", "SUCCESS")
    assert ack["timestamp"] >= T0_MS


@pytest.mark.parametrize(
    "topic", ["NOPE-USDT@trade", "btc-usdt@trade", "BTC-USDT@nothing", "BTC-USDT@depth30", "BTCUSDT@trade"]
)
async def test_refusals_of_both_forms(autojump_clock: MockClock, world: World, topic: str) -> None:
    swap, spot = await world.open("linear"), await world.open("spot")
    assert await swap.sub(topic, "9") == [
        {"id": "9", "code": 80015, "msg": "dataType not support", "dataType": "", "data": None}
    ]
    (error,) = await spot.sub(topic, "9")
    assert error["code"] == 100400
    assert "id" not in error
    assert "is not supported" in error["msg"]
    assert (await spot.sub("BTC-USDT@trade"))[0]["code"] == 0, "the connection lives on"


async def test_what_belongs_to_one_market_is_refused_on_the_other(
    autojump_clock: MockClock, world: World
) -> None:
    swap, spot = await world.open("linear"), await world.open("spot")
    assert (await swap.sub("BTC-USDT@kline_1min"))[0]["code"] == 80015
    assert (await spot.sub("BTC-USDT@kline_1m"))[0]["code"] == 100400
    assert (await spot.sub("BTC-USDT@markPrice"))[0]["code"] == 100400


async def test_arrays_and_no_json_are_ignored(autojump_clock: MockClock, world: World) -> None:
    swap = await world.open("linear")
    assert await swap.sub(["BTC-USDT@trade", "ETH-USDT@trade"]) == []
    await swap.ws.send("hello")
    await swap.ws.send("[1]")
    assert await swap.hear() == []
    assert (await swap.sub("BTC-USDT@trade"))[0]["code"] == 0


async def test_a_second_subscribe_is_acked_and_gives_one_stream(
    autojump_clock: MockClock, world: World
) -> None:
    swap = await world.open("linear")
    await swap.sub("BTC-USDT@trade", "1")
    (ack,) = await swap.sub("BTC-USDT@trade", "2")
    assert (ack["id"], ack["code"]) == ("2", 0)
    world.fake.step(20, names=("BTC-USDT-PERP",))
    heard = await swap.hear()
    assert len(heard) == len([t for t in world.fake.market.trades("BTC-USDT-PERP") if t.time_ns >= T0])


async def test_unsubscribed_topics_end(autojump_clock: MockClock, world: World) -> None:
    spot = await world.open("spot")
    await spot.sub("BTC-USDT@trade")
    await spot.ask("unsub", "BTC-USDT@trade", "2")
    assert [m["id"] for m in await spot.hear()] == ["2"]
    world.fake.step(20)
    assert await spot.hear() == []


async def test_a_refused_topic_may_leak_a_frame(autojump_clock: MockClock, world: World) -> None:
    world.fake.paused.add("BTC-USDT-PERP")
    swap = await world.open("linear")
    error, leak = await swap.sub("BTC-USDT@incrDepth")
    assert (error["code"], leak["dataType"]) == (80015, "BTC-USDT@incrDepth")
    world.fake.step(20)
    assert await swap.hear() == []
    world.fake.leaks = False
    assert len(await swap.sub("BTC-USDT@incrDepth")) == 1


@pytest.mark.parametrize("market", ["linear", "spot"])
async def test_201_topics_are_one_too_many(autojump_clock: MockClock, market: str) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, Market(many_listings(201, market=market)))
        client = await world.open(market)
        answers = []
        for n in range(201):
            answers += await client.sub(f"A{n:04}-USDT@trade", str(n))
        assert [a["code"] for a in answers] == [0] * 200 + [80403]
        assert answers[-1]["msg"] == "your topic num over max 200"
        assert (await client.sub("A0000-USDT@trade", "again"))[0]["code"] == 0
        nursery.cancel_scope.cancel()


async def test_paths_and_the_number_of_connections(autojump_clock: MockClock, world: World) -> None:
    with pytest.raises(HandshakeRefusedError, match="404"):
        await world.open("linear", path="/market")
    for _ in range(60):
        await world.open("linear")
    with pytest.raises(HandshakeRefusedError, match="403"):
        await world.open("spot")


async def test_too_many_messages_end_the_connection(autojump_clock: MockClock, world: World) -> None:
    swap = await world.open("linear")
    for n in range(11):
        await swap.ask("sub", "BTC-USDT@trade", str(n))
    with pytest.raises(ConnectionLostError):
        await swap.hear(5)


# --- Heartbeats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("market", ["linear", "spot"])
async def test_pings_come_every_five_seconds_and_pongs_keep_the_socket(
    autojump_clock: MockClock, world: World, market: str
) -> None:
    client = await world.open(market)
    await client.hear(26)
    assert client.pings == 5
    await client.hear(600)
    assert len(world.fake.sockets) == 1


@pytest.mark.parametrize("market", ["linear", "spot"])
async def test_who_answers_no_ping_is_cut_without_a_close_frame(
    autojump_clock: MockClock, world: World, market: str
) -> None:
    client = await world.open(market, pongs=False)
    opened = trio.current_time()
    with pytest.raises(ConnectionLostError, match="without a close frame"):
        await client.hear(60)
    assert trio.current_time() - opened == pytest.approx(30.5)
    assert client.pings == 6


async def test_a_wrong_pong_is_none(autojump_clock: MockClock, world: World) -> None:
    client = await world.open("spot", pongs=False)

    async def answer_badly() -> None:
        while True:
            await trio.sleep(1)
            await client.ws.send('{"pong":"x","time":"y"}')
            await client.ws.send("Pong")

    with pytest.RaisesGroup(ConnectionLostError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_badly)
            await client.hear(60)


# --- Shapes -----------------------------------------------------------------------------------------------


async def data_of(world: World, market: str, kind: str, *, steps: int = 20) -> list[Any]:
    client = await world.open(market)
    (ack, *heard) = await client.sub(f"BTC-USDT@{kind}")
    assert ack["code"] == 0
    for _ in range(steps):
        world.fake.step(names=(NAMES[market],))
        await trio.sleep(0.1)
    world.fake.flush()
    heard += await client.hear()
    assert {m["dataType"] for m in heard} == {f"BTC-USDT@{kind}"}
    assert all(("success" in m) == (market == "spot") for m in heard)
    return heard


async def test_trades_are_an_array_on_swaps_and_an_object_on_spot(
    autojump_clock: MockClock, world: World
) -> None:
    rows = [m["data"] for m in await data_of(world, "linear", "trade")]
    assert {frozenset(row) for (row,) in rows} == {frozenset("qpTms")}
    (first, *_) = [m["data"] for m in await data_of(world, "spot", "trade")]
    assert set(first) == {"E", "T", "e", "m", "p", "q", "s", "t"}
    assert isinstance(first["t"], str)
    truth = [t for t in world.fake.market.trades("BTC-USDT-PERP") if t.time_ns >= T0]
    assert [(row["p"], row["q"], row["m"]) for (row,) in rows] == [
        (t.price, t.size, t.buyer_is_maker) for t in truth[: len(rows)]
    ]


async def test_the_first_frame_of_a_swap_may_repeat_the_past(autojump_clock: MockClock, world: World) -> None:
    world.fake.replays = 5
    (frame, *_) = await data_of(world, "linear", "trade", steps=0)
    past = list(world.fake.market.trades("BTC-USDT-PERP"))[-5:]
    assert [(row["p"], row["T"]) for row in frame["data"]] == [
        (t.price, t.time_ns // 1_000_000) for t in reversed(past)
    ]


async def test_letters_of_tickers_and_quotes(autojump_clock: MockClock, world: World) -> None:
    ticker = (await data_of(world, "linear", "ticker"))[-1]["data"]
    assert float(ticker["A"]) > float(ticker["B"])
    assert all(isinstance(ticker[key], str) for key in "AaBbcohlvq")
    quote = (await data_of(world, "linear", "bookTicker"))[-1]["data"]
    assert float(quote["a"]) > float(quote["b"])
    assert {"u", "T", "E"} <= set(quote)
    told = (await data_of(world, "spot", "ticker"))[-1]["data"]
    assert all(isinstance(told[key], int | float) for key in "AaBbcohlvq")
    quote = (await data_of(world, "spot", "bookTicker"))[-1]["data"]
    assert float(quote["a"]) > float(quote["b"])
    assert not {"u", "T"} & set(quote)


async def test_last_and_mark_price(autojump_clock: MockClock, world: World) -> None:
    assert "E" in (await data_of(world, "linear", "lastPrice"))[-1]["data"]
    assert "E" not in (await data_of(world, "spot", "lastPrice"))[-1]["data"]
    assert set((await data_of(world, "linear", "markPrice"))[-1]["data"]) == {"e", "E", "s", "p"}


async def test_minutes_have_no_flag(autojump_clock: MockClock, world: World) -> None:
    (row,) = (await data_of(world, "linear", "kline_1m"))[-1]["data"]
    assert row["T"] == T0_MS
    assert set(row) == {"c", "o", "h", "l", "v", "T"}
    told = (await data_of(world, "spot", "kline_1min"))[-1]["data"]["K"]
    assert (told["t"], told["T"]) == (T0_MS, T0_MS + 59_999)


@pytest.mark.parametrize(("market", "kind"), [("linear", "depth5@500ms"), ("spot", "depth20")])
async def test_whole_books_have_their_asks_worst_first(
    autojump_clock: MockClock, world: World, market: str, kind: str
) -> None:
    message = (await data_of(world, market, kind))[-1]
    bids, asks = world.fake.market.book(NAMES[market], 5 if market == "linear" else 20)
    assert [tuple(row) for row in message["data"]["bids"]] == bids
    assert [tuple(row) for row in message["data"]["asks"]] == asks[::-1]
    assert ("ts" in message) == (market == "linear")
    assert ("lastUpdateId" in message["data"]) == (market == "spot")


@pytest.mark.parametrize("market", ["linear", "spot"])
async def test_all_and_updates_make_the_book(autojump_clock: MockClock, world: World, market: str) -> None:
    first, *rest = (m["data"] for m in await data_of(world, market, "incrDepth", steps=60))
    assert first["action"] == "all"
    assert float(first["asks"][0][0]) < float(first["asks"][-1][0]), "best first, for once"
    book = [dict(first["bids"]), dict(first["asks"])]
    last = first["lastUpdateId"]
    jumps = 0
    for update in rest:
        assert update["action"] == "update"
        assert update["lastUpdateId"] > last
        jumps += update["lastUpdateId"] > last + 1
        last = update["lastUpdateId"]
        for side, rows in zip(book, (update["bids"], update["asks"]), strict=True):
            side.update(dict(rows))
            assert [float(p) for p, _ in rows] == sorted((float(p) for p, _ in rows), reverse=True)
    assert jumps, "numbers skip with nothing lost"
    left = [{p: s for p, s in side.items() if float(s)} for side in book]
    assert left == [dict(side) for side in world.fake.market.book(NAMES[market])]


# --- REST -------------------------------------------------------------------------------------------------


async def test_listings(autojump_clock: MockClock, world: World) -> None:
    world.fake.paused.add("ETH-USDT-PERP")
    swaps = (await world.get("linear", "swap/v2/quote/contracts")).json()["data"]
    assert [(row["symbol"], row["status"]) for row in swaps] == [
        ("BTC-USDT", 1), ("ETH-USDT", 25), ("SOL-USDT", 1),
    ]  # fmt: skip
    assert (swaps[0]["pricePrecision"], swaps[0]["quantityPrecision"]) == (1, 3)
    spots = (await world.get("spot", "spot/v1/common/symbols")).json()["data"]["symbols"]
    assert [row["symbol"] for row in spots] == ["BTC-USDT", "ETH-USDT", "SOL-USDT"]
    assert spots[0]["stepSize"] == 0.00001


async def test_minutes_come_newest_first_and_the_start_is_exclusive(
    autojump_clock: MockClock, world: World
) -> None:
    await trio.sleep(30)
    starts = [T0_MS + n * 60_000 for n in range(-10, 1)]
    rows = (await world.get("linear", "swap/v3/quote/klines?symbol=BTC-USDT&interval=1m")).json()["data"]
    assert [row["time"] for row in rows] == starts[::-1]
    window = f"startTime={starts[2]}&endTime={starts[5]}"
    path = f"swap/v3/quote/klines?symbol=BTC-USDT&interval=1m&{window}"
    rows = (await world.get("linear", path)).json()["data"]
    assert [row["time"] for row in rows] == starts[5:2:-1]
    path = f"spot/v2/market/kline?symbol=BTC-USDT&interval=1m&timeZone=0&limit=2&{window}"
    rows = (await world.get("spot", path)).json()["data"]
    assert [row[0] for row in rows] == starts[5:3:-1]
    assert all(len(row) == 8 and not any(isinstance(x, str) for x in row) for row in rows)


async def test_swaps_give_a_thousand_minutes_at_the_most(autojump_clock: MockClock) -> None:
    listing = Listing(market="linear", base="BTC", quote="USDT", price="60000.0", tick="0.1", lot="0.001")
    async with trio.open_nursery() as nursery:
        world = World(nursery, Market((listing,)), history_minutes=1100)
        path = "swap/v3/quote/klines?symbol=BTC-USDT&interval=1m&limit=1440"
        assert len((await world.get("linear", path)).json()["data"]) == 1000
        nursery.cancel_scope.cancel()


async def test_trades_depth_and_clock(autojump_clock: MockClock, world: World) -> None:
    world.fake.step(10)
    rows = (await world.get("linear", "swap/v2/quote/trades?symbol=BTC-USDT&limit=3")).json()["data"]
    last = list(world.fake.market.trades("BTC-USDT-PERP"))[-1:-4:-1]
    assert [(row["price"], row["qty"]) for row in rows] == [(t.price, t.size) for t in last]
    assert "id" not in rows[0]
    rows = (await world.get("spot", "spot/v1/market/trades?symbol=BTC-USDT&limit=2")).json()["data"]
    assert [row["id"] for row in rows] == [t.id for t in list(world.fake.market.trades("BTC-USDT"))[-1:-3:-1]]
    depth = (await world.get("linear", "swap/v2/quote/depth?symbol=BTC-USDT&limit=5")).json()["data"]
    assert float(depth["asks"][0][0]) > float(depth["asks"][-1][0])
    assert set(depth) == {"T", "bids", "asks", "bidsCoin", "asksCoin"}
    clock = (await world.get("linear", "swap/v2/server/time")).json()["data"]
    assert clock["serverTime"] == world.now_ns() // 1_000_000


@pytest.mark.parametrize(
    ("market", "path", "code"),
    [
        ("linear", "swap/v2/quote/nothing", 100400),
        ("linear", "swap/v3/quote/klines?interval=1m", 109400),
        ("linear", "swap/v3/quote/klines?symbol=BTC-USDT&interval=1min", 109400),
        ("linear", "swap/v3/quote/klines?symbol=BTC-USDT&interval=1m&limit=x", 109400),
        ("linear", "swap/v3/quote/klines?symbol=NOPE-USDT&interval=1m", 109425),
        ("linear", "swap/v2/quote/trades?symbol=ETH-USDT", 109415),
        ("linear", "swap/v2/quote/depth?symbol=BTC-USDT&limit=7", 109400),
        ("spot", "spot/v1/market/trades?symbol=NOPE-USDT", 109425),
    ],
)
async def test_refused_requests_are_http_200(
    autojump_clock: MockClock, world: World, market: str, path: str, code: int
) -> None:
    world.fake.paused.add("ETH-USDT-PERP")
    reply = await world.get(market, path)
    assert (reply.status, reply.json()["code"]) == (200, code)


async def test_requests_are_counted_in_windows(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, requests_per_10s=3)
        path = "swap/v2/server/time"
        first = await world.get("linear", path)
        assert first.headers["x-ratelimit-requests-remain"] == "2"
        assert 0 < int(first.headers["x-ratelimit-requests-expire"]) - T0_MS <= 10_000
        codes = [(await world.get("linear", path)).json()["code"] for _ in range(3)]
        assert codes == [0, 0, 109429]
        assert (await world.get("spot", "spot/v1/common/symbols")).json()["code"] == 100410
        for _ in range(3):
            await world.get("linear", path)
        assert (await world.get("linear", path)).status == 418, "a ban for who goes on"
        await trio.sleep(290)
        assert (await world.get("linear", path)).status == 418
        await trio.sleep(15)
        assert (await world.get("linear", path)).status == 200
        nursery.cancel_scope.cancel()


# --- Over a real socket -----------------------------------------------------------------------------------


async def test_an_independent_client_over_tcp() -> None:
    fake = BingxFake(Market(seed=4))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(fake.run)
            url = fake.endpoints()["linear_ws"] + "/swap-market"
            assert url == f"ws://127.0.0.1:{fake.port}/linear/swap-market"
            with ExitStack() as stack:
                ws: ClientConnection = await trio.to_thread.run_sync(
                    lambda: stack.enter_context(
                        connect(url, proxy=None, ping_interval=None, compression=None)
                    )
                )

                async def receive() -> Any:
                    frame = await trio.to_thread.run_sync(ws.recv, 5)
                    assert isinstance(frame, bytes)
                    return json.loads(gzip.decompress(frame))

                request = '{"id":"1","reqType":"sub","dataType":"BTC-USDT@trade"}'
                await trio.to_thread.run_sync(ws.send, request)
                assert (await receive())["code"] == 0
                nursery.start_soon(functools.partial(fake.play, 200))
                heard = [(await receive())["data"][0]["p"] for _ in range(50)]
                assert heard == [t.price for t in fake.market.trades("BTC-USDT-PERP")][:50]
                await trio.to_thread.run_sync(stack.close)
            nursery.cancel_scope.cancel()
