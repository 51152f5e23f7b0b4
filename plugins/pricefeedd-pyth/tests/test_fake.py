"""The fake Pyth speaks Hermes' and Benchmarks' protocol: framing, errors, limits and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import server_sent_event
from pricefeedd.errors import ConnectionLostError
from pricefeedd.rest import HttpReply
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.transport import EventStream, HandshakeRefusedError, open_event_stream
from pricefeedd_pyth.testing import PythFake

T0 = 1_790_000_040_000_000_000  # the start of a minute
BASE = "http://pyth.test"
STREAM = "/hermes/v2/updates/price/stream"
KEY = {"Authorization": "Bearer right"}


class World:
    """A fake in memory, on the mock clock, with a dialer to it."""

    def __init__(self, nursery: trio.Nursery, **options: Any) -> None:
        now_ns = anchored_clock(T0)
        self.fake = PythFake(now_ns=now_ns, history_minutes=10, **options)
        self.dialer = MemoryDialer(nursery, {BASE: self.fake}, now_ns=now_ns)
        self.btc = self.fake.id_of("BTC-USD")
        self.eur = self.fake.id_of("EUR-USD")

    async def open(self, query: str, headers: Mapping[str, str] | None = None) -> EventStream:
        return await open_event_stream(
            self.dialer, BASE, f"{STREAM}?{query}", headers=headers or {}, max_message_bytes=1 << 20
        )

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> HttpReply:
        return await self.dialer.fetch("GET", BASE + path, headers=headers or {}, body=None)


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as made:
        yield made
        made.cancel_scope.cancel()


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    return World(nursery)


async def hear(stream: EventStream, within_s: float = 0.5) -> list[bytes]:
    heard: list[bytes] = []
    with trio.move_on_after(within_s):
        while True:
            heard += await stream.receive()
    return heard


# --- The stream -------------------------------------------------------------------------------------------


async def test_each_slot_brings_all_feeds_that_were_asked_for(
    autojump_clock: MockClock, world: World
) -> None:
    stream = await world.open(f"ids[]={world.eur}&ids[]=0x{world.btc.upper()}")
    for _ in range(5):
        await trio.sleep(0.5)
        world.fake.step()
    events = await hear(stream)
    assert len(events) == 5
    assert all(event.startswith(b'data:{"binary"') for event in events), "no space, no name"
    slots = []
    for event in events:
        parsed = orjson.loads(server_sent_event(event)[1])["parsed"]
        assert {row["id"] for row in parsed} == {world.btc, world.eur}
        assert {row["id"]: row["price"]["expo"] for row in parsed} == {world.btc: -8, world.eur: -5}
        assert len({row["metadata"]["slot"] for row in parsed}) == 1
        slots.append(parsed[0]["metadata"]["slot"])
    assert slots == sorted(set(slots))


async def test_there_is_one_event_in_a_slot_whatever_happens(autojump_clock: MockClock, world: World) -> None:
    stream = await world.open(f"ids[]={world.btc}")
    await trio.sleep(0.5)
    world.fake.step(100)
    assert len(await hear(stream)) == 1
    world.fake.flush()
    (event,) = await hear(stream)
    row = orjson.loads(server_sent_event(event)[1])["parsed"][0]
    assert int(row["price"]["price"]) == round(float(world.fake.told_prices("BTC-USD")[-1]) * 10**8)


async def test_a_comment_comes_after_15_seconds_without_an_event(
    autojump_clock: MockClock, world: World
) -> None:
    stream = await world.open(f"ids[]={world.btc}")
    assert len(await stream.receive()) == 1, "a first slot, though no price moved"
    began = trio.current_time()
    assert await stream.receive() == []
    assert 14 <= trio.current_time() - began <= 17


async def test_a_stream_ends_at_its_age_with_a_word(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    world = World(nursery, stream_s=600.0)
    stream = await world.open(f"ids[]={world.btc}")
    began = trio.current_time()
    await stream.receive()
    while not (events := await stream.receive()):
        pass
    assert events == [b"event:error\ndata:Connection timeout reached (24h)"]
    assert trio.current_time() - began == pytest.approx(600, abs=1)
    with pytest.raises(ConnectionLostError):
        await stream.receive()


async def test_feeds_that_vanish_and_markets_that_are_closed(autojump_clock: MockClock, world: World) -> None:
    stream = await world.open(f"ids[]={world.btc}&ids[]={world.eur}")
    await trio.sleep(0.5)
    world.fake.step()
    world.fake.vanished.add(world.eur)
    world.fake.closed["BTC-USD"] = 1_700_000_000
    await trio.sleep(0.5)
    world.fake.step(3)
    _, last = await hear(stream)
    (row,) = orjson.loads(server_sent_event(last)[1])["parsed"]
    assert (row["id"], row["price"]["publish_time"]) == (world.btc, 1_700_000_000)


# --- Errors, which are plain text -------------------------------------------------------------------------


async def test_unknown_ids_fail_all_unless_they_are_to_be_left_out(
    autojump_clock: MockClock, world: World
) -> None:
    odd = "0" * 64
    with pytest.raises(HandshakeRefusedError, match=f"404: Price ids not found: {odd}"):
        await world.open(f"ids[]={world.btc}&ids[]={odd}")
    stream = await world.open(f"ids[]={world.btc}&ids[]={odd}&ignore_invalid_price_ids=true")
    await trio.sleep(0.5)
    world.fake.step()
    (event,) = await hear(stream)
    assert [row["id"] for row in orjson.loads(server_sent_event(event)[1])["parsed"]] == [world.btc]


@pytest.mark.parametrize("query", ["", "ids[]=abc", "parsed=true"])
async def test_malformed_requests(autojump_clock: MockClock, world: World, query: str) -> None:
    with pytest.raises(HandshakeRefusedError, match="400: Failed to deserialize"):
        await world.open(query)


async def test_keys(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    world = World(nursery, api_key="right")
    with pytest.raises(HandshakeRefusedError, match="401: unauthorized"):
        await world.open(f"ids[]={world.btc}")
    with pytest.raises(HandshakeRefusedError, match="401: unauthorized"):
        await world.open(f"ids[]={world.btc}", {"Authorization": "Bearer wrong"})
    await world.open(f"ids[]={world.btc}", KEY)
    world.fake.not_entitled.add(world.btc)
    with pytest.raises(HandshakeRefusedError, match=f"403: Not entitled: feed {world.btc}"):
        await world.open(f"ids[]={world.btc}", KEY)
    assert (await world.get("/hermes/v2/price_feeds")).status == 200, "the list of feeds is free"
    assert (await world.get("/v1/shims/tradingview/history?symbol=x")).status == 401


async def test_who_asks_too_often_is_locked_out_for_a_minute(autojump_clock: MockClock, world: World) -> None:
    statuses = [(await world.get("/hermes/v2/price_feeds")).status for _ in range(11)]
    assert statuses == [200] * 10 + [429]
    await trio.sleep(50)
    assert (await world.get("/hermes/v2/price_feeds")).status == 429
    await trio.sleep(15)
    assert (await world.get("/hermes/v2/price_feeds")).status == 200


# --- REST -------------------------------------------------------------------------------------------------


async def test_feeds(autojump_clock: MockClock, world: World) -> None:
    rows = (await world.get("/hermes/v2/price_feeds")).json()
    symbols = [row["attributes"]["symbol"] for row in rows]
    assert symbols == [
        "Crypto.BTC/USD",
        "Crypto.ETH/USD",
        "FX.EUR/USD",
        "Equity.US.AAPL/USD",
        "Equity.US.AAPL/USD.PRE",
    ]
    some = (await world.get("/hermes/v2/price_feeds?query=btc/u&asset_type=crypto")).json()
    assert [row["id"] for row in some] == [world.btc]


async def test_latest_has_the_form_of_an_event(autojump_clock: MockClock, world: World) -> None:
    body = (await world.get(f"/hermes/v2/updates/price/latest?ids[]={world.btc}")).json()
    assert set(body) == {"binary", "parsed"}
    assert body["parsed"][0]["id"] == world.btc


async def test_history_is_in_columns(autojump_clock: MockClock, world: World) -> None:
    path = "/v1/shims/tradingview/history?symbol=Crypto.BTC/USD&resolution=1"
    t0 = T0 // 10**9
    body = (await world.get(f"{path}&from={t0 - 300}&to={t0}")).json()
    assert body["s"] == "ok"
    assert body["t"] == [t0 - 300 + 60 * i for i in range(5)]
    assert all(len(body[key]) == 5 for key in "ohlcv")
    assert type(body["o"][0]) is float
    assert (await world.get(f"{path}&from={t0 + 600}&to={t0 + 660}")).json()["s"] == "no_data"
    wrong = await world.get(path.replace("BTC", "XXX") + f"&from={t0}&to={t0}")
    assert (wrong.status, wrong.json()["s"]) == (200, "error")


async def test_nothing_else_is_there(autojump_clock: MockClock, world: World) -> None:
    assert (await world.get("/hermes/nothing")).status == 404
    assert (await world.get("/v1/nothing")).status == 404
