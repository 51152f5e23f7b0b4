"""The fake Kraken speaks Kraken's protocol: answers, snapshots, heartbeats, limits and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.errors import ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_kraken.rules import checksum
from pricefeedd_kraken.testing import KrakenFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
URL = "ws://kraken.test"
texts = msgspec.json.Decoder(float_hook=str).decode


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        now_ns = anchored_clock(T0)
        self.fake = KrakenFake(now_ns=now_ns, history_minutes=10, **options)
        self.dialer = MemoryDialer(nursery, {URL: self.fake}, now_ns=now_ns)

    async def open(self, path: str = "/v2") -> WebSocket:
        return await open_websocket(self.dialer, URL, path, headers={}, max_message_bytes=1 << 20)

    async def get(self, path: str) -> Any:
        reply: HttpReply = await self.dialer.fetch("GET", f"http://kraken.test{path}", headers={}, body=None)
        return texts(reply.body)


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    return World(nursery)


async def hear(ws: WebSocket, within_s: float = 0.5) -> list[Any]:
    """Return all messages up to now but heartbeats."""
    heard: list[Any] = []
    with trio.move_on_after(within_s):
        while True:
            for message in await ws.receive():
                frame = texts(message)
                if frame != {"channel": "heartbeat"}:
                    heard.append(frame)
    return heard


async def ask(ws: WebSocket, method: str, number: int = 7, **params: Any) -> list[Any]:
    await ws.send(orjson.dumps({"method": method, "params": params, "req_id": number}).decode())
    return await hear(ws)


# --- Answers ----------------------------------------------------------------------------------------------


async def test_the_state_of_the_system_comes_first(autojump_clock: MockClock, world: World) -> None:
    (status,) = await hear(await world.open())
    assert (status["channel"], status["type"]) == ("status", "update")
    assert status["data"][0]["system"] == "online"
    assert status["data"][0]["connection_id"] > 2**53


async def test_one_answer_for_each_symbol_with_the_same_number(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await hear(ws)
    symbols = ["BTC/USD", "WWW/USD", "DOGE/USD"]
    first, refused, second = await ask(ws, "subscribe", 42, channel="trade", symbol=symbols)
    assert [one["req_id"] for one in (first, refused, second)] == [42] * 3
    assert first["result"] == {"channel": "trade", "snapshot": False, "symbol": "BTC/USD"}
    assert (refused["success"], refused["symbol"]) == (False, "WWW/USD")
    assert refused["error"] == "Currency pair not supported WWW/USD"
    assert second["result"]["symbol"] == "DOGE/USD"


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": 50}, "Subscription depth not supported"),
        ({"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 2}, "Subscription interval not supported"),
        ({"channel": "tickers", "symbol": ["BTC/USD"]}, "Unsupported event"),
        ({"channel": "trade", "symbol": ["XBT/USD"]}, "Currency pair not supported XBT/USD"),
        ({}, "Unsupported event"),
    ],
)
async def test_refusals(autojump_clock: MockClock, world: World, params: dict[str, Any], error: str) -> None:
    ws = await world.open()
    await hear(ws)
    (answer,) = await ask(ws, "subscribe", **params)
    assert (answer["success"], answer["error"], answer["method"]) == (False, error, "subscribe")


async def test_other_methods(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await hear(ws)
    await ws.send('{"method":"ping","req_id":3}')
    (pong,) = await hear(ws)
    assert (pong["method"], pong["req_id"]) == ("pong", 3)
    (wrong,) = await ask(ws, "ping")
    assert wrong["error"] == "Unsupported field: 'params' for the given msg type: ping"
    (wrong,) = await ask(ws, "dance")
    assert wrong["error"] == "Unsupported event"
    (wrong,) = await ask(ws, "unsubscribe", channel="trade", symbol=["BTC/USD"])
    assert wrong["error"] == "Subscription Not Found"
    await ws.send("nonsense")
    assert not (await hear(ws))[0]["success"]


async def test_the_end_of_a_stream_must_repeat_its_depth(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await hear(ws)
    await ask(ws, "subscribe", channel="book", symbol=["BTC/USD"], depth=25)
    (wrong,) = await ask(ws, "unsubscribe", channel="book", symbol=["BTC/USD"])
    assert wrong["error"] == "Subscription Not Found"
    (done,) = await ask(ws, "unsubscribe", channel="book", symbol=["BTC/USD"], depth=25)
    assert done["result"] == {"channel": "book", "depth": 25, "symbol": "BTC/USD"}
    world.fake.step(50)
    world.fake.flush()
    assert await hear(ws) == []


async def test_a_second_interval_is_refused(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await hear(ws)
    await ask(ws, "subscribe", channel="ohlc", symbol=["BTC/USD"])
    (wrong,) = await ask(ws, "subscribe", channel="ohlc", symbol=["BTC/USD"], interval=5)
    assert wrong["error"] == "Already subscribed to one ohlc interval on this symbol"


# --- Data -------------------------------------------------------------------------------------------------


async def test_a_book_is_silent_about_what_leaves_its_depth(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await hear(ws)
    ack, snapshot = await ask(ws, "subscribe", channel="book", symbol=["BTC/USD"], depth=10)
    assert ack["result"]["depth"] == 10
    (row,) = snapshot["data"]
    books = {side: {one["price"]: one["qty"] for one in row[side]} for side in ("bids", "asks")}
    assert len(books["bids"]) == len(books["asks"]) == 10
    left = 0
    for _ in range(200):
        await trio.sleep(0.1)
        world.fake.step(names=("BTC-USD",))
    for update in await hear(ws):
        (row,) = update["data"]
        for side, best in (("bids", max), ("asks", min)):
            levels = books[side]
            for one in row[side]:
                levels[one["price"]] = one["qty"]
                if not float(one["qty"]):
                    del levels[one["price"]]
            order = sorted(levels, key=float, reverse=best is max)
            left += len(order[10:])
            books[side] = {price: levels[price] for price in order[:10]}
        pairs = {side: list(levels.items()) for side, levels in books.items()}
        assert checksum(pairs["bids"], pairs["asks"]) == row["checksum"]
    assert left > 5


async def test_two_depths_of_one_book_have_their_own_changes(autojump_clock: MockClock, world: World) -> None:
    shallow, deep = await world.open(), await world.open()
    await ask(shallow, "subscribe", channel="book", symbol=["BTC/USD"], depth=10)
    await ask(deep, "subscribe", channel="book", symbol=["BTC/USD"], depth=100)
    for _ in range(50):
        await trio.sleep(0.1)
        world.fake.step(names=("BTC-USD",))
    few, many = await hear(shallow), await hear(deep)
    count = [sum(len(u["data"][0]["bids"]) for u in updates) for updates in (few, many)]
    assert 0 < count[0] < count[1]


async def test_channels_begin_with_snapshots_where_they_are_asked_for(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await hear(ws)
    world.fake.step(100)
    _, trades = await ask(ws, "subscribe", channel="trade", symbol=["BTC/USD"], snapshot=True)
    assert (trades["type"], len(trades["data"])) == ("snapshot", 50)
    ids = [row["trade_id"] for row in trades["data"]]
    assert ids == list(range(ids[0], ids[0] + 50))
    _, ticker = await ask(ws, "subscribe", channel="ticker", symbol=["BTC/USD"], event_trigger="bbo")
    assert (ticker["channel"], ticker["type"]) == ("ticker", "snapshot")
    ack, candles = await ask(ws, "subscribe", channel="ohlc", symbol=["BTC/USD"], interval=1)
    assert ack["result"]["warnings"] == ["timestamp is deprecated, use interval_begin"]
    assert len(candles["data"]) == 11
    assert candles["data"][0]["interval_begin"].endswith(":00.000000000Z")
    assert await ask(ws, "subscribe", channel="trade", symbol=["ETH/USD"]) != []


async def test_numbers_keep_their_zeros(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await hear(ws)
    _, book = await ask(ws, "subscribe", channel="book", symbol=["BTC/USD"])
    (row,) = book["data"]
    assert all(len(one["qty"].partition(".")[2]) == 8 for one in row["bids"])
    assert all(len(one["price"].partition(".")[2]) == 1 for one in row["bids"])


async def test_minutes_that_end_are_not_told(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await hear(ws)
    await ask(ws, "subscribe", channel="ohlc", symbol=["BTC/USD"])
    await trio.sleep(120)
    for event in world.fake.market.turn(world.fake.now_ns()):
        world.fake.tell(event)
    assert await hear(ws) == []


async def test_the_trigger_decides_when_tickers_come(autojump_clock: MockClock, world: World) -> None:
    quotes, trades = await world.open(), await world.open()
    await ask(quotes, "subscribe", channel="ticker", symbol=["BTC/USD"], event_trigger="bbo")
    await ask(trades, "subscribe", channel="ticker", symbol=["BTC/USD"])
    before = len(world.fake.market.trades("BTC-USD"))
    world.fake.step(100, names=("BTC-USD",))
    assert len(await hear(trades)) == len(world.fake.market.trades("BTC-USD")) - before
    assert len(await hear(quotes)) > 10


# --- Heartbeats, limits and ends --------------------------------------------------------------------------


async def test_heartbeats_come_each_second_once_there_is_a_subscription(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await hear(ws)
    with trio.move_on_after(10):
        assert not await ws.receive(), "nothing without a subscription"
    await ask(ws, "subscribe", channel="trade", symbol=["BTC/USD"])
    beats = 0
    with trio.move_on_after(10.2):
        while True:
            beats += len(await ws.receive())
    assert beats in (9, 10, 11)


async def test_who_subscribes_nothing_is_let_go_after_a_minute(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    began = trio.current_time()
    await ws.receive()
    with pytest.raises(ConnectionLostError, match="idle"):
        await ws.receive()
    assert 59 <= trio.current_time() - began <= 62


async def test_a_ping_keeps_the_connection(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    for _ in range(5):
        await ws.send('{"method":"ping"}')
        assert (await hear(ws, 30))[-1]["method"] == "pong"


async def test_who_asks_too_fast_loses_the_request(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    world = World(nursery, messages_per_second=2)
    ws = await world.open()
    for number in range(3):
        request = {
            "method": "subscribe",
            "params": {"channel": "trade", "symbol": ["BTC/USD"]},
            "req_id": number,
        }
        await ws.send(orjson.dumps(request).decode())
    _, *answers = await hear(ws)
    assert answers[-1] == {"Error": "Exceeded msg rate"}
    assert len(answers) == 3


async def test_who_connects_too_often_is_banned_for_ten_minutes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    world = World(nursery, connects=5)
    for _ in range(5):
        await (await world.open()).aclose()
    with pytest.raises(HandshakeRefusedError, match="429"):
        await world.open()
    reply = await world.dialer.fetch("GET", "http://kraken.test/0/public/Time", headers={}, body=None)
    assert (reply.status, reply.body) == (429, b"error code: 1015")
    await trio.sleep(601)
    await world.open()


async def test_a_path_that_does_not_exist(autojump_clock: MockClock, world: World) -> None:
    with pytest.raises(HandshakeRefusedError, match="404"):
        await world.open("/v3")


# --- REST -------------------------------------------------------------------------------------------------


async def test_pairs_have_the_old_names(autojump_clock: MockClock, world: World) -> None:
    pairs = (await world.get("/0/public/AssetPairs"))["result"]
    assert set(pairs) == {"XXBTZUSD", "XETHZUSD", "XXDGZUSD", "MINAGBP"}
    assert pairs["XXBTZUSD"]["wsname"] == "XBT/USD"
    one = await world.get("/0/public/AssetPairs?pair=XDGUSD")
    assert list(one["result"]) == ["XXDGZUSD"]


async def test_errors_come_with_http_200(autojump_clock: MockClock, world: World) -> None:
    assert await world.get("/0/public/OHLC?pair=NO") == {"error": ["EQuery:Unknown asset pair"]}
    assert await world.get("/0/public/OHLC?pair=XBTUSD&interval=x") == {
        "error": ["EGeneral:Invalid arguments"]
    }
    await trio.sleep(3)
    assert await world.get("/0/public/Nothing") == {"error": ["EGeneral:Unknown method"]}
    answers = [await world.get("/0/public/Time") for _ in range(5)]
    assert answers[-1] == {"error": ["EAPI:Rate limit exceeded"]}


async def test_minutes_of_rest_have_no_hole_and_the_last_one_runs(
    autojump_clock: MockClock, world: World
) -> None:
    world.fake.begin()
    await trio.sleep(300)
    result = (await world.get("/0/public/OHLC?pair=XBTUSD&interval=1"))["result"]
    rows = result["XXBTZUSD"]
    starts = [row[0] for row in rows]
    assert starts == list(range(starts[0], starts[0] + 60 * len(starts), 60))
    assert result["last"] == starts[-2]
    flat = rows[-3]
    assert (flat[5], float(flat[6]), flat[7]) == ("0.0", 0.0, 0)
    later = (await world.get(f"/0/public/OHLC?pair=XBTUSD&since={starts[-3]}"))["result"]["XXBTZUSD"]
    assert [row[0] for row in later] == starts[-2:]


async def test_trades_of_rest_are_the_oldest_after_a_time_or_the_newest(
    autojump_clock: MockClock, world: World
) -> None:
    world.fake.step(100)
    trades = world.fake.market.trades("BTC-USD")
    newest = (await world.get("/0/public/Trades?pair=XBTUSD&count=3"))["result"]
    assert [row[6] for row in newest["XXBTZUSD"]] == [t.id for t in list(trades)[-3:]]
    since = trades[4].time_ns
    after = (await world.get(f"/0/public/Trades?pair=XBTUSD&count=3&since={since}"))["result"]
    assert [row[6] for row in after["XXBTZUSD"]] == [t.id for t in trades if t.time_ns > since][:3]
    assert after["last"].isdigit()


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as made:
        yield made
        made.cancel_scope.cancel()
