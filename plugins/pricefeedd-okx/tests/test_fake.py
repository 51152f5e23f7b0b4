"""The fake OKX speaks OKX's protocol: answers, cuts, chains and limits as the venue's documents say."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pricefeedd.errors import ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_okx.testing import OkxFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
URL = "ws://okx.test"


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.now_ns = anchored_clock(T0)
        self.fake = OkxFake(now_ns=self.now_ns, **options)
        self.dialer = MemoryDialer(nursery, {URL: self.fake}, now_ns=self.now_ns)
        self.endpoints = self.fake.endpoints("okx.test")

    async def open(self, endpoint: str = "public") -> WebSocket:
        url = self.endpoints["spot_ws"]
        path = f"/ws/v5/{endpoint}"
        return await open_websocket(self.dialer, url, path, headers={}, max_message_bytes=1 << 20)

    async def fetch(self, path: str) -> HttpReply:
        url = f"{self.endpoints['spot_rest']}/api/v5{path}"
        return await self.dialer.fetch("GET", url, headers={}, body=None)

    async def get(self, path: str) -> Any:
        reply = await self.fetch(path)
        assert reply.json()["code"] == "0", reply.body
        return reply.json()["data"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, history_minutes=10)
        nursery.cancel_scope.cancel()


def args(*names: str) -> list[dict[str, str]]:
    return [{"channel": name.partition(":")[0], "instId": name.partition(":")[2]} for name in names]


async def ask(ws: WebSocket, op: str, *names: str, request_id: str | None = "1") -> None:
    request: dict[str, Any] = {"op": op, "args": args(*names)}
    await ws.send(json.dumps(request if request_id is None else {"id": request_id, **request}))


async def hear_all(ws: WebSocket, within_s: float = 1.0) -> list[Any]:
    """Return the messages of a while; `pong` as it is."""
    heard: list[Any] = []
    with trio.move_on_after(within_s):
        while True:
            heard += ["pong" if message == b"pong" else json.loads(message) for message in await ws.receive()]
    return heard


# --- Requests and answers ---------------------------------------------------------------------------------


async def test_one_ack_for_each_arg(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "subscribe", "trades:BTC-USDT", "tickers:BTC-USDT-SWAP", request_id="a7")
    heard = await hear_all(ws)
    acks = [m for m in heard if "event" in m]
    assert [ack["arg"] for ack in acks] == args("trades:BTC-USDT", "tickers:BTC-USDT-SWAP")
    assert {ack["id"] for ack in acks} == {"a7"}
    assert all(ack["connId"] for ack in acks)
    assert [m["arg"]["channel"] for m in heard if "data" in m] == ["trades", "tickers"], (
        "the last ones, at once"
    )
    await ask(ws, "unsubscribe", "trades:BTC-USDT", request_id=None)
    (ack,) = await hear_all(ws)
    assert (ack["event"], ack["arg"], "id" in ack) == ("unsubscribe", args("trades:BTC-USDT")[0], False)
    for _ in range(20):
        world.fake.step()
        await trio.sleep(0.1)
    assert {m["arg"]["channel"] for m in await hear_all(ws)} == {"tickers"}
    assert (world.fake.seen.subscribes, world.fake.seen.unsubscribes) == (1, 1)


async def test_the_same_arg_again_is_acked_and_nothing_else(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "subscribe", "books:BTC-USDT", "books:BTC-USDT")
    heard = await hear_all(ws)
    assert [m.get("event", m.get("action")) for m in heard] == ["subscribe", "snapshot", "subscribe"]


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("public", "trades:NO-SUCH"),
        ("public", "candle1m:BTC-USDT"),
        ("public", "nonsense:BTC-USDT"),
        ("public", "trades:btc-usdt"),
        ("public", "funding-rate:BTC-USD-261225"),
        ("public", "mark-price:SOL-USDT"),
        ("business", "trades:BTC-USDT"),
    ],
)
async def test_what_does_not_exist_is_refused_in_words(
    autojump_clock: MockClock, world: World, endpoint: str, name: str
) -> None:
    ws = await world.open(endpoint)
    good = "candle1m:ETH-USDT" if endpoint == "business" else "tickers:ETH-USDT"
    await ask(ws, "subscribe", name, good)
    error, ack, data = await hear_all(ws)
    channel, _, symbol = name.partition(":")
    assert (error["event"], error["code"], error["id"]) == ("error", "60018", "1")
    assert "arg" not in error
    assert f"wrong URL or channel:{channel},instId:{symbol} doesn't exist. Please" in error["msg"]
    assert (ack["event"], "data" in data) == ("subscribe", True), "the other arg is served"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{nonsense", "60012"),
        ("[]", "60012"),
        ('{"op":"subscribe"}', "60012"),
        ('{"op":"subscribe","args":[]}', "60013"),
        ('{"op":"subscribe","args":["trades"]}', "60013"),
        ('{"op":"list","args":[]}', "60019"),
        ('{"id":"no blanks","op":"subscribe","args":[]}', "60033"),
        ('{"op":"subscribe","args":[{"channel":"books-l2-tbt","instId":"BTC-USDT"}]}', "64003"),
    ],
)
async def test_errors_leave_the_socket_open(
    autojump_clock: MockClock, world: World, text: str, code: str
) -> None:
    ws = await world.open()
    await ws.send(text)
    (error,) = await hear_all(ws)
    assert (error["event"], error["code"]) == ("error", code)
    await ws.send("ping")
    assert await hear_all(ws) == ["pong"]


async def test_requests_are_counted_by_the_hour(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, requests_per_hour=3)
        ws = await world.open()
        for _ in range(4):
            await ask(ws, "subscribe", "tickers:BTC-USDT")
        heard = await hear_all(ws)
        assert [m["event"] for m in heard if "event" in m] == ["subscribe"] * 3 + ["error"]
        assert heard[-1]["code"] == "60014"
        nursery.cancel_scope.cancel()


async def test_a_request_that_is_too_long_ends_the_connection(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await ask(ws, "subscribe", *["tickers:BTC-USDT"] * 2000)
    with pytest.raises(ConnectionLostError, match="1009"):
        await hear_all(ws)


async def test_private_wants_a_login(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("private")
    await ask(ws, "subscribe", "orders:BTC-USDT")
    (error,) = await hear_all(ws)
    assert error["code"] == "60011"


async def test_other_paths_and_too_many_connections(autojump_clock: MockClock, world: World) -> None:
    with pytest.raises(HandshakeRefusedError, match="404"):
        await world.open("nothing")
    for _ in range(3):
        await world.open()
    with pytest.raises(HandshakeRefusedError, match="429"):
        await world.open()
    await trio.sleep(1.1)
    await world.open()


# --- Heartbeats -------------------------------------------------------------------------------------------


async def test_a_connection_without_a_push_is_cut_after_30_s(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    opened = trio.current_time()
    with pytest.raises(ConnectionLostError, match="4004"):
        await hear_all(ws, 100)
    assert 30 <= trio.current_time() - opened <= 32


async def test_pings_keep_it(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    for _ in range(20):
        await ws.send("ping")
        assert await hear_all(ws, 25) == ["pong"]

    async def ping() -> None:
        for _ in range(10):
            await ws.ping()
            await hear_all(ws, 5)

    # A WebSocket ping does not count as a push.
    with pytest.raises(ConnectionLostError, match="4004"):
        await ping()


async def test_an_upgrade_is_announced_a_minute_before(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    announced = trio.current_time()
    world.fake.shut_down()
    heard: list[Any] = []

    async def listen() -> None:
        while True:
            await ws.send("ping")
            heard.extend(await hear_all(ws, 10))

    with pytest.raises(ConnectionLostError, match="1001"):
        await listen()
    assert [m["code"] for m in heard if m != "pong"] == ["64008"]
    assert 60 <= trio.current_time() - announced <= 61


# --- Books ------------------------------------------------------------------------------------------------


async def test_books_are_chained_from_the_snapshot_to_the_truth(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    world.fake.step(3)
    await ask(ws, "subscribe", "books:BTC-USDT")
    for i in range(60):
        world.fake.step()
        if i == 30:
            world.fake.reset_sequence("BTC-USDT", 5000)
        await trio.sleep(0.03)
    world.fake.flush()
    frames = [m for m in await hear_all(ws) if "data" in m]
    rows = [frame["data"][0] for frame in frames]
    assert [frame["action"] for frame in frames] == ["snapshot"] + ["update"] * (len(frames) - 1)
    assert rows[0]["prevSeqId"] == -1
    assert all(b["prevSeqId"] == a["seqId"] for a, b in itertools.pairwise(rows))
    assert sum(row["seqId"] < row["prevSeqId"] for row in rows) == 1, "one reset"
    assert {row["checksum"] for row in rows} == {0}
    sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for row in rows:
        for side, levels in zip(sides, (row["bids"], row["asks"]), strict=True):
            for price, size, zero, _ in levels:
                assert zero == "0"
                side[price] = size
    left = [{p: s for p, s in side.items() if Decimal(s)} for side in sides]
    assert left == [dict(side) for side in world.fake.market.book("BTC-USDT")]


async def test_a_quiet_book_gives_a_sign_of_life(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "subscribe", "books:BTC-USDT")
    (snapshot,) = [m["data"][0] for m in await hear_all(ws) if "data" in m]
    signs = []
    for _ in range(10):
        await ws.send("ping")
        signs += [m["data"][0] for m in await hear_all(ws, 20) if m != "pong"]
    assert 2 <= len(signs) <= 3
    for sign in signs:
        assert (sign["asks"], sign["bids"]) == ([], [])
        assert sign["seqId"] == sign["prevSeqId"] == snapshot["seqId"]


async def test_without_snapshots_a_book_by_rest_joins(autojump_clock: MockClock, world: World) -> None:
    world.fake.snapshots = False
    ws = await world.open()
    await ask(ws, "subscribe", "books:BTC-USDT")
    snapshot: Any = None
    for i in range(60):
        world.fake.step()
        if i == 31:
            (snapshot,) = await world.get("/market/books?instId=BTC-USDT&sz=400&source=0")
        await trio.sleep(0.03)
    rows = [m["data"][0] for m in await hear_all(ws) if "data" in m]
    stands = snapshot["seqId"]
    assert stands >= rows[0]["prevSeqId"]
    kept = [row for row in rows if row["seqId"] > stands]
    assert kept[0]["prevSeqId"] <= stands < kept[0]["seqId"]


# --- Other channels ---------------------------------------------------------------------------------------


async def test_shapes(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    names = ["trades", "bbo-tbt", "tickers", "mark-price", "funding-rate", "open-interest"]
    await ask(ws, "subscribe", *[f"{name}:BTC-USDT-SWAP" for name in names], "index-tickers:BTC-USDT")
    rows = {m["arg"]["channel"]: m["data"][0] for m in await hear_all(ws) if "data" in m}
    assert set(rows) == {*names, "index-tickers"}
    assert type(rows["trades"]["seqId"]) is int
    assert type(rows["trades"]["count"]) is str
    assert all(type(row["ts"]) is str for row in rows.values())
    assert rows["index-tickers"]["instId"] == "BTC-USDT"


async def test_candles_are_closed_by_the_clock(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open("business")
    await ask(ws, "subscribe", "candle1m:BTC-USD-SWAP", "trades-all:BTC-USD-SWAP")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fake.play, 2)
        heard = await hear_all(ws, 125.0)
        nursery.cancel_scope.cancel()
    rows = [row for m in heard if m["arg"]["channel"] == "candle1m" for row in m.get("data", ())]
    closed = [row for row in rows if row[8] == "1"]
    assert [int(row[0]) * 1_000_000 - T0 for row in closed] == [0, 60_000_000_000]
    fills = [row for m in heard if m["arg"]["channel"] == "trades-all" for row in m.get("data", ())]
    for row in closed:
        inside = [f for f in fills if int(row[0]) <= int(f["ts"]) < int(row[0]) + 60_000]
        assert Decimal(row[5]) == sum(Decimal(f["sz"]) for f in inside), "contracts"
        assert Decimal(row[7]) == Decimal(row[5]) * 100, "USD"
    assert all(set(f) == {"instId", "tradeId", "px", "sz", "side", "ts"} for f in fills)


async def test_liquidations_go_by_type(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    request = {"op": "subscribe", "args": [{"channel": "liquidation-orders", "instType": "SWAP"}]}
    await ws.send(json.dumps(request))
    await hear_all(ws)
    for name in ("BTC-USDT-PERP", "BTC-USD-PERP", "BTC-USD-20261225"):
        world.fake.tell(world.fake.market.liquidate(name, world.now_ns()))
    rows = [row for m in await hear_all(ws) for row in m["data"]]
    assert [row["instId"] for row in rows] == ["BTC-USDT-SWAP", "BTC-USD-SWAP"]
    assert rows[0]["details"][0]["side"] in ("buy", "sell")


# --- REST -------------------------------------------------------------------------------------------------


async def test_instruments(autojump_clock: MockClock, world: World) -> None:
    spot = await world.get("/public/instruments?instType=SPOT")
    assert [row["instId"] for row in spot] == ["BTC-USDT", "ETH-USDT", "SOL-USDT"]
    swaps = await world.get("/public/instruments?instType=SWAP")
    assert {row["ctType"] for row in swaps} == {"linear", "inverse"}
    assert {row["baseCcy"] for row in swaps} == {""}
    dated = await world.get("/public/instruments?instType=FUTURES")
    assert [(row["instId"], row["uly"], row["instFamily"]) for row in dated] == [
        ("BTC-USD_UM-261225", "BTC-USD", "BTC-USD_UM"),
        ("BTC-USD-261225", "BTC-USD", "BTC-USD"),
    ]


async def test_candles_exclude_both_ends_and_come_newest_first(
    autojump_clock: MockClock, world: World
) -> None:
    await trio.sleep(30)
    start_ms = T0 // 1_000_000
    rows = await world.get("/market/candles?instId=BTC-USDT&bar=1m")
    assert [int(row[0]) for row in rows] == [start_ms - n * 60_000 for n in range(11)]
    assert [row[8] for row in rows] == ["0"] + ["1"] * 10, "the first one runs"
    window = f"before={start_ms - 300_000}&after={start_ms - 60_000}"
    some = await world.get(f"/market/candles?instId=BTC-USDT&bar=1m&{window}")
    assert some == rows[2:5]
    newest = await world.get(f"/market/candles?instId=BTC-USDT&before={start_ms - 500_000}&limit=2")
    assert newest == rows[:2], "`before` alone gives the newest"
    history = await world.get("/market/history-candles?instId=BTC-USDT&bar=1m")
    assert history == rows[1:]


async def test_trades_come_newest_first_and_page_by_id(autojump_clock: MockClock, world: World) -> None:
    rows = await world.get("/market/trades?instId=BTC-USDT&limit=5")
    ids = [int(row["tradeId"]) for row in rows]
    assert ids == list(range(ids[0], ids[0] - 5, -1))
    past = await world.get(f"/market/history-trades?instId=BTC-USDT&type=1&after={ids[-1]}&limit=3")
    assert [int(row["tradeId"]) for row in past] == [ids[-1] - 1, ids[-1] - 2, ids[-1] - 3]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/market/candles?instId=NO-SUCH", 200, "51001"),
        ("/market/candles?instId=BTC-USDT&bar=7m", 400, "51000"),
        ("/market/candles", 400, "50014"),
        ("/market/trades?instId=BTC-USDT&limit=x", 400, "51000"),
        ("/public/instruments", 400, "50014"),
        ("/public/instruments?instType=X", 400, "51000"),
        ("/nothing", 404, "404"),
    ],
)
async def test_errors_hide_in_the_code(
    autojump_clock: MockClock, world: World, path: str, status: int, code: str
) -> None:
    reply = await world.fetch(path)
    assert (reply.status, reply.json()["code"]) == (status, code)


async def test_requests_are_limited_by_path(autojump_clock: MockClock, world: World) -> None:
    answers = [await world.fetch("/market/history-trades?instId=BTC-USDT") for _ in range(21)]
    assert [a.json()["code"] for a in answers] == ["0"] * 20 + ["50011"]
    assert answers[-1].status == 429
    assert not {"retry-after"} & set(answers[-1].headers)
    assert await world.get("/market/trades?instId=BTC-USDT"), "each path has a limit of its own"
    await trio.sleep(2.1)
    assert await world.get("/market/history-trades?instId=BTC-USDT")
    assert await world.get("/public/time")
