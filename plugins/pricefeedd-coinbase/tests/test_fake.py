"""The fake Coinbase speaks Coinbase's protocol: numbers, answers, limits and ends as the venue's documents say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pricefeedd.errors import ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_coinbase.testing import CoinbaseFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
T0_S = T0 // 1_000_000_000
API = "/api/v3/brokerage"


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.now_ns = anchored_clock(T0)
        self.fake = CoinbaseFake(now_ns=self.now_ns, **options)
        self.dialer = MemoryDialer(nursery, {"ws://coinbase.test": self.fake}, now_ns=self.now_ns)
        self.endpoints = self.fake.endpoints("coinbase.test")

    async def open(self, path: str = "") -> WebSocket:
        return await open_websocket(
            self.dialer, self.endpoints["spot_ws"], path, headers={}, max_message_bytes=1 << 20
        )

    async def get(self, path: str) -> HttpReply:
        url = self.endpoints["spot_rest"] + API + path
        return await self.dialer.fetch("GET", url, headers={}, body=None)

    async def json(self, path: str) -> Any:
        return (await self.get(path)).json()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, history_minutes=10)
        nursery.cancel_scope.cancel()


async def ask(ws: WebSocket, channel: str, *products: str, what: str = "subscribe", **more: Any) -> None:
    request: dict[str, Any] = {"type": what, "channel": channel, **more}
    if products:
        request["product_ids"] = products
    await ws.send(json.dumps(request))


async def hear_all(ws: WebSocket, within_s: float = 0.5) -> list[Any]:
    heard: list[Any] = []
    with trio.move_on_after(within_s):
        while True:
            heard += [json.loads(message) for message in await ws.receive()]
    return heard


def channels(heard: list[Any]) -> list[str]:
    return [message.get("channel", message.get("type")) for message in heard]


def subscribed(heard: list[Any]) -> dict[str, list[str]]:
    answer = [m for m in heard if m.get("channel") == "subscriptions"][-1]
    found: dict[str, list[str]] = answer["events"][0]["subscriptions"]
    return found


# --- Requests and answers ---------------------------------------------------------------------------------


async def test_data_comes_before_the_answer_which_names_everything(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await ask(ws, "heartbeats")
    assert subscribed(await hear_all(ws)) == {"heartbeats": ["heartbeats"]}
    await ask(ws, "level2", "BTC-USD", "ETH-USD")
    heard = await hear_all(ws)
    assert channels(heard) == ["l2_data", "l2_data", "subscriptions"]
    await ask(ws, "market_trades", "BTC-USD")
    heard = [m for m in await hear_all(ws) if m["channel"] != "heartbeats"]
    assert channels(heard) == ["market_trades", "subscriptions"]
    assert subscribed(heard) == {
        "heartbeats": ["heartbeats"],
        "level2": ["BTC-USD", "ETH-USD"],
        "market_trades": ["BTC-USD"],
    }
    assert (world.fake.seen.subscribes, world.fake.seen.unsubscribes) == (3, 0)


async def test_frames_are_numbered_per_connection(autojump_clock: MockClock, world: World) -> None:
    for _ in range(2):
        ws = await world.open()
        await ask(ws, "heartbeats")
        await ask(ws, "level2", "BTC-USD")
        await ask(ws, "ticker", "BTC-USD", "ETH-USD")
        for _ in range(20):
            world.fake.step()
            await trio.sleep(0.1)
        heard = await hear_all(ws, 3)
        assert [m["sequence_num"] for m in heard] == list(range(len(heard)))
        assert len(set(channels(heard))) == 4


async def test_what_does_not_exist_is_left_out_without_a_word(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await ask(ws, "market_trades", "NOSUCH-USD", "ETH-USD")
    heard = await hear_all(ws)
    assert subscribed(heard) == {"market_trades": ["ETH-USD"]}
    await ask(ws, "market_trades", "NOSUCH-USD")
    assert subscribed(await hear_all(ws)) == {"market_trades": ["ETH-USD"]}


async def test_ends_of_streams(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "market_trades", "BTC-USD", "ETH-USD")
    await ask(ws, "ticker", "BTC-USD")
    await ask(ws, "market_trades", "BTC-USD", what="unsubscribe")
    assert subscribed(await hear_all(ws)) == {"market_trades": ["ETH-USD"], "ticker": ["BTC-USD"]}
    await ask(ws, "market_trades", what="unsubscribe")
    assert subscribed(await hear_all(ws)) == {"ticker": ["BTC-USD"]}
    await ask(ws, "ticker", "BTC-USD", what="unsubscribe")
    assert subscribed(await hear_all(ws)) == {}
    world.fake.step(20)
    assert await hear_all(ws) == []


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("{nonsense", "failure to subscribe"),
        ("[]", "failure to subscribe"),
        ('{"type":"subscribe"}', "failure to subscribe"),
        ('{"type":"sub","channel":"ticker"}', "failure to subscribe"),
        ('{"type":"subscribe","channel":"ticker","product_ids":[5]}', "failure to subscribe"),
        ('{"type":"subscribe","channel":"tikcer","product_ids":["BTC-USD"]}', "authentication failure"),
        ('{"type":"subscribe","channel":"user"}', "authentication failure"),
        (
            '{"type":"subscribe","channel":"ticker","product_ids":["BTC-USD"],"jwt":"x"}',
            "authentication failure",
        ),
    ],
)
async def test_errors_have_neither_channel_nor_number(
    autojump_clock: MockClock, world: World, request_: str, words: str
) -> None:
    ws = await world.open()
    await ask(ws, "heartbeats")
    await ws.send(request_)
    heard = await hear_all(ws)
    assert heard[1:] == [{"type": "error", "message": words}]
    later = await hear_all(ws, 2)
    assert [m["sequence_num"] for m in later] == [1, 2], "the connection stays, and errors are not counted"


async def test_a_token_is_taken(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "heartbeats", jwt="a.b.c")
    assert subscribed(await hear_all(ws)) == {"heartbeats": ["heartbeats"]}


async def test_an_alias_is_answered_with_the_other_product(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "market_trades", "BTC-USDC")
    world.fake.step(20)
    heard = await hear_all(ws)
    products = {t["product_id"] for m in heard if m["channel"] == "market_trades" for e in m["events"] for t in e["trades"]}  # fmt: skip
    assert products == {"BTC-USD"}


# --- Shapes -----------------------------------------------------------------------------------------------


async def test_trades(autojump_clock: MockClock, world: World) -> None:
    world.fake.begin()
    ws = await world.open()
    await ask(ws, "market_trades", "BTC-USD")
    (snapshot, _) = await hear_all(ws)
    (event,) = snapshot["events"]
    told = list(world.fake.market.trades("BTC-USD"))
    assert event["type"] == "snapshot"
    assert [t["trade_id"] for t in event["trades"]] == [str(t.id) for t in told[::-1]][:100], "newest first"
    world.fake.trades_every_ns = 250_000_000
    for _ in range(40):
        world.fake.step()
        await trio.sleep(0.05)
    world.fake.flush()
    frames = [m["events"][0] for m in await hear_all(ws)]
    assert max(len(e["trades"]) for e in frames) > 1, "trades are told together"
    assert {e["type"] for e in frames} == {"update"}
    ids = [t["trade_id"] for e in frames for t in e["trades"][::-1]]
    lived = list(world.fake.market.trades("BTC-USD"))[len(told) :]
    assert ids == [str(t.id) for t in lived]
    sides = {t["trade_id"]: t["side"] for e in frames for t in e["trades"]}
    assert all((sides[str(t.id)] == "BUY") is t.buyer_is_maker for t in lived), "the side is the maker's"


async def test_books(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "level2", "BTC-USD")
    for _ in range(60):
        world.fake.step()
        await trio.sleep(0.05)
    world.fake.flush()
    frames = [m["events"][0] for m in await hear_all(ws) if m["channel"] == "l2_data"]
    assert [e["type"] for e in frames] == ["snapshot"] + ["update"] * (len(frames) - 1)
    book: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "offer": {}}
    for event in frames:
        assert event["product_id"] == "BTC-USD"
        for row in event["updates"]:
            assert not (row["price_level"].endswith("0") and "." in row["price_level"]), "zeros are cut"
            book[row["side"]][Decimal(row["price_level"])] = Decimal(row["new_quantity"])
    bids, asks = world.fake.market.book("BTC-USD")
    for side, told in (("bid", bids), ("offer", asks)):
        left = {price: size for price, size in book[side].items() if size}
        assert left == {Decimal(price): Decimal(size) for price, size in told}


async def test_a_stream_that_is_asked_for_again_begins_again(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    for _ in range(2):
        await ask(ws, "level2", "BTC-USD")
        heard = await hear_all(ws)
        assert [m["events"][0].get("type") for m in heard] == ["snapshot", None]


async def test_tickers(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "ticker", "BTC-USD")
    await ask(ws, "ticker_batch", "ETH-USD")
    for _ in range(120):
        world.fake.step()
        await trio.sleep(0.1)
    heard = await hear_all(ws)
    ticks = [m for m in heard if m["channel"] == "ticker"]
    trades = [t for t in world.fake.market.trades("BTC-USD") if t.time_ns >= T0]
    assert len(ticks) == len(trades) + 1, "one with each match, and the snapshot"
    quote = world.fake.ticker_quote("BTC-USD")
    last = ticks[-1]["events"][0]["tickers"][0]
    assert (
        (last["best_bid"], last["best_bid_quantity"]),
        (last["best_ask"], last["best_ask_quantity"]),
    ) == quote
    batches = [m for m in heard if m["channel"] == "ticker_batch"]
    assert len(batches) == 4, "each 5 s"
    assert "best_bid" not in batches[-1]["events"][0]["tickers"][0]


async def test_candles_are_five_minutes_long(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "candles", "BTC-USD")
    await trio.sleep(0.1)
    world.fake.step(20)
    heard = [m["events"][0] for m in await hear_all(ws) if m["channel"] == "candles"]
    assert [e["type"] for e in heard[:2]] == ["snapshot", "update"]
    starts = [int(c["start"]) for c in heard[0]["candles"]]
    assert starts == sorted(starts, reverse=True)
    assert all(start % 300 == 0 for start in starts)
    assert set(heard[0]["candles"][0]) == {"start", "low", "high", "open", "close", "volume", "product_id"}


async def test_status_needs_no_product(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "status")
    heard = await hear_all(ws)
    assert [p["id"] for p in heard[0]["events"][0]["products"]] == [
        "BTC-USD",
        "ETH-USD",
        "SOL-USD",
        "USDT-USDC",
    ]


# --- Heartbeats, ages and limits --------------------------------------------------------------------------


async def test_heartbeats_come_each_second(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "heartbeats")
    beats = [m["events"][0] for m in await hear_all(ws, 10.5) if m["channel"] == "heartbeats"]
    counters = [beat["heartbeat_counter"] for beat in beats]
    assert counters == list(range(counters[0], counters[0] + 10))
    assert " +0000 UTC m=+" in beats[0]["current_time"]


async def test_a_connection_that_asks_for_nothing_is_cut(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    opened = trio.current_time()
    with pytest.raises(ConnectionLostError):
        await hear_all(ws, 100)
    assert trio.current_time() - opened == pytest.approx(5.0)


async def test_a_quiet_connection_lives_by_its_heartbeats(autojump_clock: MockClock, world: World) -> None:
    quiet, kept = await world.open(), await world.open()
    await ask(quiet, "market_trades", "BTC-USD")
    await ask(kept, "heartbeats")
    await ask(kept, "market_trades", "BTC-USD")
    opened = trio.current_time()
    with pytest.raises(ConnectionLostError):
        await hear_all(quiet, 200)
    assert 60 <= trio.current_time() - opened <= 90
    await hear_all(kept, 200)
    assert len(world.fake.sockets) == 1


async def test_too_many_messages_of_one_address(autojump_clock: MockClock, world: World) -> None:
    sockets = [await world.open() for _ in range(3)]
    for ws in sockets:
        for _ in range(2):
            await ask(ws, "heartbeats")
    await trio.sleep(1.0)
    for _ in range(3):
        await ask(sockets[0], "heartbeats")
        await ask(sockets[1], "heartbeats")
    await trio.sleep(0.1)
    for _ in range(3):
        await ask(sockets[2], "heartbeats")
    with pytest.raises(ConnectionLostError, match="rate limit"):
        await hear_all(sockets[2], 1)


async def test_too_many_connections_of_one_address(autojump_clock: MockClock, world: World) -> None:
    for _ in range(8):
        await world.open()
    with pytest.raises(HandshakeRefusedError, match="429"):
        await world.open()
    await trio.sleep(1.1)
    await world.open()


async def test_paths_that_do_not_exist(autojump_clock: MockClock, world: World) -> None:
    with pytest.raises(HandshakeRefusedError, match="404"):
        await world.open("/nothing")
    assert (await world.get("/market/nothing")).status == 404
    assert (await world.get("/market/products/BTC-USD/nothing")).status == 404


# --- Numbers and faults -----------------------------------------------------------------------------------


async def test_a_lost_frame_leaves_a_hole_and_an_answer_never_sent_none(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    with world.fake.faults.no_ack():
        await ask(ws, "market_trades", "BTC-USD")
        await trio.sleep(0.1)
    world.fake.faults.drop(2, match="market_trades:BTC-USD")
    world.fake.step(30)
    assert [m["sequence_num"] for m in await hear_all(ws)][:3] == [0, 3, 4]


async def test_what_is_repeated_or_overtaken_is_numbered_as_it_goes(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await ask(ws, "market_trades", "BTC-USD")
    await trio.sleep(0.1)
    heard = await hear_all(ws)
    world.fake.faults.duplicate(1)
    world.fake.step(30)
    heard += await hear_all(ws)
    world.fake.faults.reorder(1)
    world.fake.step(30)
    heard += await hear_all(ws)
    assert [m["sequence_num"] for m in heard] == list(range(len(heard)))
    ids = [int(t["trade_id"]) for m in heard[2:] for t in m["events"][0]["trades"]]
    assert ids[0] == ids[1]
    assert len(ids) == len(set(ids)) + 1
    assert sum(a > b for a, b in pairwise(ids)) == 1


# --- REST -------------------------------------------------------------------------------------------------


async def test_products(autojump_clock: MockClock, world: World) -> None:
    body = await world.json("/market/products?product_type=SPOT")
    listed = {p["product_id"]: p["alias"] for p in body["products"]}
    assert listed == {"BTC-USD": "", "ETH-USD": "", "SOL-USD": "", "USDT-USDC": "", "BTC-USDC": "BTC-USD"}
    assert body["num_products"] == 5
    assert body["products"][0]["alias_to"] == ["BTC-USDC"]
    part = await world.json("/market/products?limit=2&offset=1")
    assert [p["product_id"] for p in part["products"]] == ["ETH-USD", "SOL-USD"]
    assert (await world.json("/market/products?product_type=FUTURE"))["products"] == []
    one = await world.json("/market/products/ETH-USD")
    assert one["product_id"] == "ETH-USD"


async def test_candles(autojump_clock: MockClock, world: World) -> None:
    path = "/market/products/BTC-USD/candles?granularity=ONE_MINUTE"
    rows = (await world.json(f"{path}&start={T0_S - 300}&end={T0_S - 60}"))["candles"]
    assert [int(row["start"]) - T0_S for row in rows] == [-60, -120, -180, -240, -300]
    truth = {c.start_ns: c for c in world.fake.market.candles("BTC-USD")}
    told = truth[T0 - 60_000_000_000]
    assert [rows[0][key] for key in ("open", "high", "low", "close")] == [
        told.open,
        told.high,
        told.low,
        told.close,
    ]
    assert Decimal(rows[0]["volume"]) == Decimal(told.volume)
    await trio.sleep(150)  # two minutes without a trade
    later = (await world.json(f"{path}&start={T0_S - 60}&end={T0_S + 120}"))["candles"]
    assert [int(row["start"]) - T0_S for row in later] == [-60], "minutes without trades are left out"
    refused = await world.get(f"{path}&start={T0_S - 300 * 60}&end={T0_S}")
    assert refused.status == 400
    assert "less than 300" in refused.json()["message"]
    assert (await world.get(path)).status == 400


async def test_trades_by_rest(autojump_clock: MockClock, world: World) -> None:
    path = "/market/products/BTC-USD/ticker"
    told = [str(t.id) for t in world.fake.market.trades("BTC-USD")]
    body = await world.json(f"{path}?limit=5")
    told = [str(t.id) for t in world.fake.market.trades("BTC-USD")][::-1]
    assert [t["trade_id"] for t in body["trades"]] == told[:5]
    assert body["best_bid"]
    window = await world.json(f"{path}?limit=100&start={T0_S - 120}&end={T0_S - 60}")
    assert 0 < len(window["trades"]) < len(told)
    assert (await world.get(path)).status == 400


async def test_clock_and_books_by_rest(autojump_clock: MockClock, world: World) -> None:
    time = await world.json("/time")
    assert (time["epochSeconds"], time["epochMillis"]) == (str(T0_S), str(T0 // 1_000_000))
    book = (await world.json("/market/product_book?product_id=BTC-USD&limit=3"))["pricebook"]
    assert len(book["bids"]) == len(book["asks"]) == 3
    missing = await world.get("/market/products/NOSUCH-USD")
    assert (missing.status, missing.json()["error"]) == (404, "NOT_FOUND")


async def test_too_many_requests(autojump_clock: MockClock, world: World) -> None:
    for n in range(10):
        reply = await world.get("/time")
        assert reply.headers["x-ratelimit-remaining"] == str(9 - n)
    refused = await world.get("/time")
    assert refused.status == 429
    assert refused.json()["errors"][0]["id"] == "rate_limit_exceeded"
    await trio.sleep(1.1)
    assert (await world.get("/time")).status == 200
