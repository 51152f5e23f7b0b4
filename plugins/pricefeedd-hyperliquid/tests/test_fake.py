"""The fake Hyperliquid speaks Hyperliquid's protocol: its acks, its silences, its cuts and its limits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pricefeedd.errors import ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.market import Market
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import HandshakeRefusedError, WebSocket, open_websocket
from pricefeedd_hyperliquid.fake_words import tid_of, wire
from pricefeedd_hyperliquid.testing import HyperliquidFake, pair, perpetual

T0 = 1_790_000_040_000_000_000  # the start of a minute
MINUTE_MS = 60_000


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        self.now_ns = anchored_clock(T0)
        self.fake = HyperliquidFake(now_ns=self.now_ns, **options)
        self.dialer = MemoryDialer(nursery, {"ws://hl.test": self.fake}, now_ns=self.now_ns)

    async def open(self, path: str = "/ws") -> WebSocket:
        return await open_websocket(self.dialer, "ws://hl.test", path, headers={}, max_message_bytes=1 << 20)

    async def post(self, question: Any) -> HttpReply:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        return await self.dialer.fetch("POST", "http://hl.test/info", headers={}, body=body)

    async def ask(self, **question: Any) -> Any:
        reply = await self.post(question)
        assert reply.status == 200
        return reply.json()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, history_minutes=10)
        nursery.cancel_scope.cancel()


async def ask(ws: WebSocket, kind: str, coin: str, method: str = "subscribe", **more: Any) -> None:
    subscription = {"type": kind, "coin": coin, **more}
    await ws.send(json.dumps({"method": method, "subscription": subscription}))


async def hear(ws: WebSocket, within_s: float = 0.3) -> list[Any]:
    """Return what comes in this time; each of the venue's own pushes comes later."""
    heard: list[Any] = []
    with trio.move_on_after(within_s):
        while True:
            heard += [json.loads(message) for message in await ws.receive()]
    return heard


# --- Acks, greetings and refusals -------------------------------------------------------------------------


async def test_an_ack_repeats_the_subscription_in_its_normal_form(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await ask(ws, "l2Book", "BTC")
    ack, book = await hear(ws)
    assert ack == {
        "channel": "subscriptionResponse",
        "data": {
            "method": "subscribe",
            "subscription": {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None, "fast": False},
        },
    }  # fmt: skip
    assert [len(side) for side in book["data"]["levels"]] == [20, 20]
    assert "fast" not in book["data"]


async def test_each_subscription_begins_with_what_is_true_now(
    autojump_clock: MockClock, world: World
) -> None:
    world.fake.step(30)
    ws = await world.open()
    for kind in ("trades", "bbo", "activeAssetCtx", "candle"):
        await ask(ws, kind, "BTC", **({"interval": "1m"} if kind == "candle" else {}))
    heard = [m for m in await hear(ws) if m["channel"] != "subscriptionResponse"]
    assert [m["channel"] for m in heard] == ["trades", "bbo", "activeAssetCtx", "candle"]
    replay, quote, _, candle = (m["data"] for m in heard)
    truth = list(world.fake.market.trades("BTC-USD-PERP"))[-30:]
    assert [row["tid"] for row in replay] == [tid_of(trade.id) for trade in truth]
    assert quote["bbo"][0]["px"] == wire(world.fake.market.quote("BTC-USD-PERP").bid[0])
    assert candle["T"] == candle["t"] + 59_999


async def test_a_second_subscription_is_told_and_changes_nothing(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await ask(ws, "trades", "SOL")
    await ask(ws, "trades", "SOL")
    assert (await hear(ws))[-1] == {
        "channel": "error",
        "data": 'Already subscribed: {"type":"trades","coin":"SOL"}',
    }
    world.fake.step(20, names=("SOL-USD-PERP",))
    assert {m["channel"] for m in await hear(ws)} == {"trades"}


async def test_an_end_is_told(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "trades", "SOL", "unsubscribe")
    await ask(ws, "trades", "SOL")
    await ask(ws, "trades", "SOL", "unsubscribe")
    heard = [m for m in await hear(ws) if m["channel"] != "trades"]
    assert heard[0]["data"] == 'Already unsubscribed: {"type":"trades","coin":"SOL"}'
    assert [m["data"]["method"] for m in heard[1:]] == ["subscribe", "unsubscribe"]
    world.fake.step(20)
    assert await hear(ws) == []


@pytest.mark.parametrize(
    "frame",
    [
        "{nonsense",
        "[]",
        '{"method":"subscribe"}',
        '{"method":"subscribe","subscription":{"type":"noSuchType","coin":"BTC"}}',
        '{"method":"subscribe","subscription":{"type":"trades","coin":["BTC","ETH"]}}',
        '{"method":"subscribe","subscription":{"type":"candle","coin":"BTC","interval":"7m"}}',
        '{"method":"dance","subscription":{"type":"trades","coin":"BTC"}}',
    ],
)
async def test_what_cannot_be_read_is_sent_back(autojump_clock: MockClock, world: World, frame: str) -> None:
    ws = await world.open()
    await ws.send(frame)
    await ws.send('{"method":"ping"}')
    error, pong = await hear(ws)
    assert error == {
        "channel": "error",
        "data": f"Error parsing JSON into valid websocket request: {frame}",
    }
    assert pong == {"channel": "pong"}, "the connection stays"


@pytest.mark.parametrize(
    ("coin", "more"),
    [("NOPE", {}), ("btc", {}), ("KPEPE", {}), ("xyz:BTC", {}), ("@999", {}), ("BTC", {"nSigFigs": 7})],
)
async def test_a_wrong_coin_ends_the_connection_without_a_word(
    autojump_clock: MockClock, world: World, coin: str, more: dict[str, Any]
) -> None:
    ws = await world.open()
    await ask(ws, "trades", "BTC")
    await hear(ws)
    await ask(ws, "l2Book", coin, **more)
    with pytest.raises(ConnectionLostError):
        await hear(ws)
    assert not world.fake.sockets


async def test_a_delisted_coin_is_acked_and_has_nothing(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    for kind in ("trades", "bbo", "l2Book"):
        await ask(ws, kind, "MATIC")
    heard = await hear(ws)
    assert [m["channel"] for m in heard].count("subscriptionResponse") == 3
    data = {m["channel"]: m["data"] for m in heard if m["channel"] != "subscriptionResponse"}
    assert data["bbo"]["bbo"] == [None, None]
    assert data["l2Book"]["levels"] == [[], []]
    assert "trades" not in data


async def test_addresses_are_acked_in_lower_case(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ws.send('{"method":"subscribe","subscription":{"type":"userFills","user":"0xABC"}}')
    (ack,) = await hear(ws)
    assert ack["data"]["subscription"] == {"type": "userFills", "user": "0xabc"}


# --- Data -------------------------------------------------------------------------------------------------


async def test_a_spot_context_comes_under_another_name(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "activeAssetCtx", "@107")
    await ask(ws, "activeAssetCtx", "PURR/USDC")
    heard = [m for m in await hear(ws) if m["channel"] != "subscriptionResponse"]
    assert [(m["channel"], m["data"]["coin"]) for m in heard] == [
        ("activeSpotAssetCtx", "@107"),
        ("activeSpotAssetCtx", "PURR/USDC"),
    ]
    assert "funding" not in heard[0]["data"]["ctx"]


@pytest.mark.parametrize(("fast", "levels", "pushed"), [(True, 5, 19), (False, 20, 2)])
async def test_books_are_pushed_on_a_clock(
    autojump_clock: MockClock, world: World, fast: bool, levels: int, pushed: int
) -> None:
    ws = await world.open()
    more: dict[str, Any] = {"fast": True} if fast else {}
    await ask(ws, "l2Book", "BTC", **more)
    heard = [m["data"] for m in await hear(ws, 10.9) if m["channel"] == "l2Book"]
    assert abs(len(heard) - 1 - pushed) <= 1
    assert {len(side) for book in heard for side in book["levels"]} == {levels}
    assert {book.get("fast", False) for book in heard} == {fast}
    times = [book["time"] for book in heard]
    assert times == sorted(set(times)), "an unchanged book comes with a newer time"
    await ask(ws, "l2Book", "BTC", method="unsubscribe", **more)
    await hear(ws)
    assert await hear(ws, 11) == []


async def test_a_candle_is_never_final_and_an_empty_minute_is_not_sent(
    autojump_clock: MockClock, world: World
) -> None:
    ws = await world.open()
    await ask(ws, "candle", "BTC", interval="1m")
    await hear(ws)
    world.fake.step(10)
    heard = [m["data"] for m in await hear(ws)]
    assert {row["t"] for row in heard} == {T0 // 1_000_000}
    for _ in range(10):
        await ws.send('{"method":"ping"}')
        assert await hear(ws, 20) == [{"channel": "pong"}]
    assert len(world.fake.market.candles("BTC-USD-PERP")) > 10, (
        "the market itself has the minute and those before"
    )


async def test_no_two_quotes_of_a_coin_have_one_time(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "bbo", "BTC")
    await hear(ws)
    world.fake.step(50)
    times = [m["data"]["time"] for m in await hear(ws) if m["channel"] == "bbo"]
    assert len(times) > 10
    assert times == sorted(set(times))


# --- Life and limits --------------------------------------------------------------------------------------


async def test_who_hears_nothing_for_a_minute_is_cut(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    await ask(ws, "trades", "MATIC")  # acked, and silent
    await hear(ws)
    began = trio.current_time()

    async def ping_and_listen() -> None:
        while True:
            await ws.ping()  # what the client sends does not count, nor do protocol pongs
            await hear(ws, 10)

    with pytest.raises(ConnectionLostError):
        await ping_and_listen()
    assert trio.current_time() - began == pytest.approx(60, abs=1)


async def test_pongs_keep_a_connection(autojump_clock: MockClock, world: World) -> None:
    ws = await world.open()
    for _ in range(10):
        await ws.send('{"method":"ping"}')
        assert await hear(ws, 30) == [{"channel": "pong"}]


async def test_an_address_has_ten_connections(autojump_clock: MockClock, world: World) -> None:
    open_ = [await world.open() for _ in range(10)]
    with pytest.raises(HandshakeRefusedError):
        await world.open()
    await open_.pop().aclose()
    await trio.sleep(1)
    await world.open()


async def test_an_address_opens_thirty_connections_a_minute(autojump_clock: MockClock, world: World) -> None:
    for _ in range(30):
        await (await world.open()).aclose()
        await trio.sleep(0.1)
    with pytest.raises(HandshakeRefusedError):
        await world.open()
    await trio.sleep(60)
    await world.open()


async def test_an_address_has_a_number_of_subscriptions(autojump_clock: MockClock, world: World) -> None:
    world.fake.max_subscriptions = 2
    one, other = await world.open(), await world.open()
    await ask(one, "bbo", "BTC")
    await ask(other, "bbo", "BTC")
    await hear(other)
    await ask(other, "bbo", "ETH")
    assert (await hear(other))[-1]["channel"] == "error"


async def test_too_many_messages_end_the_connection(autojump_clock: MockClock, world: World) -> None:
    world.fake.max_messages_per_minute = 20
    ws = await world.open()
    for _ in range(21):
        await ws.send('{"method":"ping"}')
    with pytest.raises(ConnectionLostError):
        await hear(ws)


async def test_other_paths_are_not_there(autojump_clock: MockClock, world: World) -> None:
    with pytest.raises(HandshakeRefusedError):
        await world.open("/stream")


# --- REST -------------------------------------------------------------------------------------------------


async def test_listings(autojump_clock: MockClock, world: World) -> None:
    meta = await world.ask(type="meta")
    names = [row["name"] for row in meta["universe"]]
    assert names == ["BTC", "MATIC", "ETH", "SOL", "kPEPE"]
    assert [row["name"] for row in meta["universe"] if row.get("isDelisted")] == ["MATIC"]
    spot = await world.ask(type="spotMeta")
    assert [row["name"] for row in spot["universe"]] == ["PURR/USDC", "@107", "@142"]
    tokens = {row["index"]: row["name"] for row in spot["tokens"]}
    assert [tokens[row["tokens"][0]] for row in spot["universe"]] == ["PURR", "HYPE", "UBTC"]


async def test_builders_exchanges(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        listings = [perpetual("BTC", "83757", "1", "0.00001"), perpetual("xyz:SP500", "6500", "0.1", "0.01")]
        world = World(
            nursery, market=Market([*listings, pair("HYPE", "42.15", "0.01", "0.01", quote="USDH")])
        )
        assert [row["name"] for row in (await world.ask(type="meta"))["universe"]] == ["BTC", "MATIC"]
        assert [row["name"] for row in (await world.ask(type="meta", dex="xyz"))["universe"]] == ["xyz:SP500"]
        assert await world.ask(type="meta", dex="nope") is None
        nursery.cancel_scope.cancel()


async def test_candles_include_both_ends_and_the_running_minute(
    autojump_clock: MockClock, world: World
) -> None:
    world.fake.step(20)
    t0_ms = T0 // 1_000_000
    req = {"coin": "BTC", "interval": "1m", "startTime": t0_ms - 2 * MINUTE_MS, "endTime": t0_ms}
    rows = await world.ask(type="candleSnapshot", req=req)
    assert [row["t"] for row in rows] == [t0_ms - 2 * MINUTE_MS, t0_ms - MINUTE_MS, t0_ms]
    assert await world.ask(type="candleSnapshot", req=req | {"startTime": 0, "endTime": 1}) == []


async def test_a_flat_minute_appears_late(autojump_clock: MockClock, world: World) -> None:
    world.fake.step(20)
    await trio.sleep(125)
    t0_ms = T0 // 1_000_000
    req = {"coin": "BTC", "interval": "1m", "startTime": t0_ms, "endTime": t0_ms + 2 * MINUTE_MS}
    assert [row["t"] for row in await world.ask(type="candleSnapshot", req=req)] == [t0_ms]
    await trio.sleep(200)
    first, *flat = await world.ask(type="candleSnapshot", req=req)
    assert [(row["t"], row["v"], row["n"]) for row in flat] == [
        (t0_ms + MINUTE_MS, "0.0", 0),
        (t0_ms + 2 * MINUTE_MS, "0.0", 0),
    ]
    assert {row["o"] for row in flat} == {first["c"]}


async def test_books_mids_and_recent_trades(autojump_clock: MockClock, world: World) -> None:
    book = await world.ask(type="l2Book", coin="@107")
    assert [len(side) for side in book["levels"]] == [20, 20]
    assert await world.ask(type="l2Book", coin="NOPE") is None
    assert set(await world.ask(type="allMids")) >= {"BTC", "@107"}
    rows = await world.ask(type="recentTrades", coin="BTC")
    times = [row["time"] for row in rows]
    assert len(rows) == 30
    assert times == sorted(times, reverse=True)
    assert (await world.ask(type="exchangeStatus"))["time"] == world.now_ns() // 1_000_000


@pytest.mark.parametrize(
    "question",
    [
        b"{nonsense",
        b"[]",
        {"type": "nope"},
        {"type": "l2Book"},
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": "1m", "startTime": "0", "endTime": 1}},
        {"type": "candleSnapshot", "req": {"coin": "BTC", "interval": "7m", "startTime": 0, "endTime": 1}},
    ],
)
async def test_a_question_that_cannot_be_read(autojump_clock: MockClock, world: World, question: Any) -> None:
    reply = await world.post(question)
    assert reply.status == 422
    assert reply.body == b"Failed to deserialize the JSON body into the target type"


async def test_an_unknown_coin_is_a_fault_of_the_server(autojump_clock: MockClock, world: World) -> None:
    req = {"coin": "NOPE", "interval": "1m", "startTime": 0, "endTime": 1}
    assert (await world.post({"type": "candleSnapshot", "req": req})).status == 500
    assert (await world.post({"type": "recentTrades", "coin": "NOPE"})).status == 500


async def test_weight_is_counted_by_the_minute(autojump_clock: MockClock, world: World) -> None:
    statuses = [(await world.post({"type": "meta"})).status for _ in range(61)]
    assert statuses == [200] * 60 + [429]
    await trio.sleep(60)
    assert (await world.post({"type": "meta"})).status == 200


async def test_only_posts_to_info_are_answered(autojump_clock: MockClock, world: World) -> None:
    for method, path, status in (("GET", "/info", 405), ("POST", "/exchange", 404)):
        reply = await world.dialer.fetch(method, f"http://hl.test{path}", headers={}, body=b"{}")
        assert reply.status == status


# --- Words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wired"),
    [("83757", "83757.0"), ("128.50", "128.5"), ("0.00001", "0.00001"), ("40.00", "40.0"), ("0", "0.0")],
)
def test_numbers_are_printed_as_the_venue_does(text: str, wired: str) -> None:
    assert wire(text) == wired


def test_ids_are_in_no_order_and_no_two_are_the_same() -> None:
    ids = [tid_of(number) for number in range(50_000)]
    assert len(set(ids)) == len(ids)
    assert ids != sorted(ids)
    assert max(ids) < 1 << 50


def test_tokens_that_are_known_nowhere_have_indices_with_holes() -> None:
    fake = HyperliquidFake(Market([pair(f"T{i}", "1.5", "0.1", "1") for i in range(5)]))
    coins = [fake.coin(f"T{i}-USDC") for i in range(5)]
    assert len(set(coins)) == 5
    assert all(coin.startswith("@") for coin in coins)
