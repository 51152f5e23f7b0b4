"""Why a topic is as it is: each fault is injected, and the verdict names it.

The pipelines run against the fakes of plugins in memory, under Trio's mock clock; what is asked is what
`/api/v1/explain` tells.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.accounts.keeper import Accounts
from pricefeedd.bus import Bus
from pricefeedd.config import Config, SinkConfig, SourceConfig
from pricefeedd.envelope import with_epoch
from pricefeedd.events import State, Status, Trade
from pricefeedd.explain.assembly import UnexplainedError, explain
from pricefeedd.hookspecs import Sink
from pricefeedd.inlet import Inlet
from pricefeedd.instruments import Directory
from pricefeedd.lanes import SinkLanes
from pricefeedd.message import Message
from pricefeedd.mirror import Mirror
from pricefeedd.offer import Offer, Wish
from pricefeedd.registry import Registry
from pricefeedd.runtime import VenueRuntime
from pricefeedd.stats import Stats
from pricefeedd.store.archive import Archive
from pricefeedd.testing import Request
from pricefeedd.testing.conformance.scene import is_stream
from pricefeedd.testing.desk import desk
from pricefeedd.testing.fake import anchored_clock
from pricefeedd.testing.rig import Rig, rig
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.venue import Venue
from pricefeedd.web.openapi_explain import EXPLAIN
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import bybit
from pricefeedd_kraken.testing import KrakenFake
from pricefeedd_kraken.venue import kraken

SPOT = {"spot": {"BTC-USDT": ["trade", "quote", "book", "candle_5m"], "ETH-USDT": ["trade"]}}
TRADE, BOOK = "trade:binance:BTC-USDT", "book:binance:BTC-USDT"


@attrs.frozen(kw_only=True)
class Running:
    """What `explain` looks at, around the pipeline of one venue or account."""

    config: Config
    bus: Bus
    stats: Stats
    runtimes: Mapping[str, VenueRuntime]
    accounts: Accounts
    subscriptions: Registry
    archive: Archive
    now_ns: Any
    sinks: dict[str, SinkLanes] = attrs.field(factory=dict)
    inlet: Inlet | None = None

    def describe(self) -> dict[str, Any]:
        """Say that nobody else may lead."""
        return {"leader": {"elector": "none", "leads": True}}

    def why(self, topic: str = TRADE) -> dict[str, Any]:
        """Return what is told of a topic, and check it against the documented shape."""
        facts = explain(topic, self)
        told: dict[str, Any] = orjson.loads(orjson.dumps(facts))
        assert told["verdict"]["text"].endswith(".")
        check_shape(EXPLAIN.schema, told, "")
        return told

    def cause(self, topic: str = TRADE) -> str:
        """Return the cause of how a topic stands."""
        return str(self.why(topic)["verdict"]["cause"])


def check_shape(schema: Mapping[str, Any], value: Any, where: str) -> None:
    """Assert that just the documented keys are there, at any depth."""
    for choice in schema.get("anyOf", ()):
        if (choice.get("type") == "null") == (value is None):
            check_shape(choice, value, where)
            return
    if isinstance(value, dict) and "properties" in schema:
        unknown = set(value) - set(schema["properties"])
        if "lines" not in where:  # some lines tell more
            assert not unknown, f"{where}: {unknown} are not documented"
        assert set(schema["required"]) <= set(value), f"{where}: {set(schema['required']) - set(value)}"
        for key, inner in schema["properties"].items():
            check_shape(inner, value[key], f"{where}.{key}")
    elif isinstance(value, list) and "items" in schema:
        for row in value:
            check_shape(schema["items"], row, f"{where}[]")
    elif "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r}"


async def caused(running: Running, cause: str, topic: str, *, within_s: float = 300.0) -> dict[str, Any]:
    """Wait until a verdict is given, and return all that is told."""
    told = running.why(topic)
    with trio.move_on_after(within_s):
        while told["verdict"]["cause"] != cause:
            await trio.sleep(0.05)  # nobody says so; the clock is mocked
            told = running.why(topic)
    assert told["verdict"]["cause"] == cause, told["verdict"]
    return told


@attrs.frozen
class Stage:
    fake: SimulatedVenue
    rig: Rig
    running: Running
    playing: trio.CancelScope

    async def live(self, *topics: str) -> None:
        """Wait until topics are live and flow."""
        await self.rig.until(
            lambda: all(len(self.rig.topic(topic)) > 3 for topic in topics) and self.rig.live(*topics)
        )

    async def until(self, cause: str, topic: str = TRADE, *, within_s: float = 300.0) -> dict[str, Any]:
        """Wait until a verdict is given, and return all that is told."""
        return await caused(self.running, cause, topic, within_s=within_s)


def around(made: Rig) -> Running:
    runtime = made.runtime
    config = Config(venues={runtime.name: runtime.config})
    runtimes = {runtime.name: runtime}
    offers = {runtime.name: Offer(runtime.venue, runtime.config, runtime.demands)}
    return Running(
        config=config,
        bus=made.bus,
        stats=made.stats,
        runtimes=runtimes,
        accounts=Accounts(config.venues, {}),
        subscriptions=Registry(offers, made.bus, now_ns=made.clock),
        archive=Archive(config, made.bus, Directory(), runtimes, now_ns=made.clock),
        now_ns=made.clock,
    )


@asynccontextmanager
async def staged(
    fake: SimulatedVenue | None = None,
    venue: Venue | None = None,
    subscribe: Mapping[str, Mapping[str, list[str]]] = SPOT,
    *,
    rate: float = 5.0,
    **session: Any,
) -> AsyncIterator[Stage]:
    fake = fake or BinanceFake(now_ns=anchored_clock(), history_minutes=10)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(venue or binance(), fake, subscribe, endpoints=fake.endpoints(), **session) as made,
    ):
        nursery.start_soon(play)
        yield Stage(fake, made, around(made), playing)
        nursery.cancel_scope.cancel()


# --- all is well -------------------------------------------------------------------------------------------


async def test_a_live_topic_is_told_from_the_venue_to_its_readers(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("trade:BTC-USDT", "book:BTC-USDT")
        await trio.sleep(40)

        told = s.running.why()
        book = s.running.why(BOOK)
        candle = s.running.why("candle_5m:binance:BTC-USDT")

    assert (told["verdict"]["cause"], told["verdict"]["healthy"]) == ("live", True)
    assert told["state"]["seq"] == told["state"]["events"] + 2
    assert set(told["state"]["last"]) == {"id", "price", "size", "side"}
    assert told["readers"]["clients"] == 1
    assert told["wanted"]["configured"] == "[[venues.binance.subscribe]] number 1 (market spot)"
    assert told["listed"]["symbol"] == "BTCUSDT"
    (line,), (stream,), (connection,) = told["lines"], told["streams"], told["connections"]
    assert line["sequence"] == int(told["state"]["last"]["id"])
    assert (stream["stream"], stream["state"]) == ("btcusdt@aggTrade", "accepted")
    assert connection["open_s"] >= 40
    assert connection["last_frame_s"] < 2
    assert connection["topics"]["live"] == sum(connection["topics"].values()) > 4
    assert '"stream":"' in connection["last_frame"]["text"]
    assert {budget["budget"] for budget in told["budgets"]} >= {"spot-connect", "spot-weight"}
    assert told["latency"]["venue_p50_s"] is not None
    assert book["state"]["last"]["best_bid"] < book["state"]["last"]["best_ask"]
    assert book["lines"][0]["resyncs"] == 0
    assert candle["served"]["chain"] == ["candle_5m", "candle_1m"]
    assert [line["channel"] for line in candle["lines"]] == ["candle_5m", "candle_1m"]


async def test_it_costs_little(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("trade:BTC-USDT")
        before = trio.current_time()
        for _ in range(100):
            s.running.why()

        assert trio.current_time() == before, "it waits for nothing"


async def test_sinks_and_services_stand_among_the_readers(autojump_clock: MockClock) -> None:
    async def run(settings: Any, lanes: Any) -> None:
        await trio.sleep_forever()

    async with staged() as s:
        await s.live("trade:BTC-USDT")
        sink = Sink(name="keep", api_version=1, run=run)
        section = SinkConfig(name="keep", plugin="keep", topics=("trade:*:*",))
        s.running.sinks["keep"] = lanes = SinkLanes(s.rig.bus, sink, s.running.config, section)
        wish = Wish(venue="binance", channel_type="trades", symbol="BTCUSDT", market="spot")
        registry = s.running.subscriptions
        registry.create(wish, await registry.find(wish), "scalper")
        await trio.sleep(5)

        told = s.running.why()
        lanes.end()

    assert told["readers"] == {
        "clients": 1,
        "lagging": 0,
        "options": [],
        "sinks": ["keep"],
        "services": ["scalper"],
    }
    assert told["demand"]["holds"] == 1


# --- the venue is away -------------------------------------------------------------------------------------


async def test_a_venue_that_is_down(autojump_clock: MockClock) -> None:
    async with staged() as s:
        with s.fake.faults.refuse(is_stream):
            never = await s.until("never_connected")
            opened = await s.until("breaker_open")
        back = await s.until("live")

    assert never["connections"][0]["last_error"] in never["verdict"]["text"]
    assert not never["connections"][0]["opened_before"]
    (breaker,) = [b for b in opened["breakers"] if b["endpoint"] == "spot_ws"]
    assert (breaker["state"], breaker["failures"]) == ("open", 5)
    assert "5 failures in a row" in opened["verdict"]["text"]
    assert back["breakers"][0]["failures"] == 0


async def test_a_connection_that_ended(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("trade:BTC-USDT")
        with s.fake.faults.refuse(is_stream):
            s.fake.faults.cut()
            told = await s.until("connection_lost")

    assert told["connections"][0]["opened_before"]
    assert told["verdict"]["text"].startswith("The connection spot #0 ended: ")


async def test_a_venue_whose_instruments_cannot_be_had(autojump_clock: MockClock) -> None:
    fake = BinanceFake(now_ns=anchored_clock())
    with fake.faults.rest_status(503):
        async with staged(fake) as s:
            told = await s.until("instruments_not_loaded")

    assert told["markets"][0]["instruments"] is None


async def test_a_handshake_that_takes_long(autojump_clock: MockClock) -> None:
    fake = BinanceFake(now_ns=anchored_clock())
    with fake.faults.hang_handshake(seconds=5):
        async with staged(fake) as s:
            told = await s.until("connecting")
            await trio.sleep(3)
            dials = s.running.why()["connections"][0]["dials"]

    assert told["state"]["state"] == "connecting"
    assert dials


# --- the venue is odd --------------------------------------------------------------------------------------


async def test_a_symbol_that_the_venue_refuses(autojump_clock: MockClock) -> None:
    fake = KrakenFake(now_ns=anchored_clock())
    fake.refuses.add("ETH/USD")
    subscribe = {"spot": {"BTC-USD": ["trade"], "ETH-USD": ["trade"]}}
    async with staged(fake, kraken(), subscribe) as s:
        await s.live("trade:BTC-USD")
        told = await s.until("refused", "trade:kraken:ETH-USD")
        other = s.running.cause("trade:kraken:BTC-USD")

    (stream,) = told["streams"]
    assert (stream["state"], bool(stream["reason"])) == ("refused", True)
    assert stream["reason"] in told["verdict"]["text"]
    assert 0 < stream["again_s"] <= 3600
    assert told["connections"][0]["refused"] == 1
    assert other == "live"


async def test_a_stream_that_stops_beside_others(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("trade:BTC-USDT", "quote:BTC-USDT")
        await trio.sleep(60)
        with s.fake.faults.silent_route(match="btcusdt@bookTicker"):
            told = await s.until("silent_stream", "quote:binance:BTC-USDT")
        back = await s.until("live", "quote:binance:BTC-USDT")

    assert "live" in told["connections"][0]["topics"]
    assert told["lines"][0]["seen_s"] >= 30
    assert back["verdict"]["healthy"]


async def test_a_connection_that_stalls(autojump_clock: MockClock) -> None:
    async with staged(stale_after_s=15) as s:
        await s.live("trade:BTC-USDT", "quote:BTC-USDT")
        await trio.sleep(60)
        with s.fake.faults.stall():
            told = await s.until("silent_connection", "quote:binance:BTC-USDT")

    assert told["connections"][0]["last_frame_s"] > 10


async def test_garbage_in_place_of_data(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("trade:BTC-USDT")
        s.fake.faults.message("<html>502 Bad Gateway</html>")
        told = await s.until("garbage")
        await trio.sleep(120)
        after = s.running.cause()

    (bad,) = told["bad_frames"]
    assert bad["text"] == "<html>502 Bad Gateway</html>"
    assert bad["feed"] == "spot"
    assert not told["verdict"]["healthy"]
    assert after == "live"


async def test_a_book_whose_snapshot_is_late(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("book:BTC-USDT")
        with s.fake.faults.late_reply("/spot/api/v3/depth"):
            s.fake.faults.drop(match="btcusdt@depth")
            told = await s.until("book_snapshot", BOOK)
            trade = s.running.cause()
        back = await s.until("live", BOOK)

    assert "expected what follows" in told["verdict"]["text"]
    (line,) = told["lines"]
    assert (line["waits_for"], line["requests"], line["resyncs"]) == ("snapshot_rest", 1, 1)
    assert line["waits"] > 0
    assert told["state"]["last"] is None, "nothing of it may be read"
    assert trade == "live"
    assert back["lines"][0]["waits_for"] == ""


async def test_a_book_while_the_venue_says_stop(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("book:BTC-USDT")
        with s.fake.faults.rest_status(429, "/spot/api/v3/depth", retry_after=120):
            s.fake.faults.drop(match="btcusdt@depth")
            told = await s.until("budget_empty", BOOK)

    (budget,) = [b for b in told["budgets"] if b["stopped"]]
    assert 0 < budget["wait_s"] <= 120
    assert "told us to stop" in told["verdict"]["text"]


async def test_trades_that_wait_for_those_before_them(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("trade:BTC-USDT")
        with s.fake.faults.late_reply("/spot/api/v3/aggTrades"):
            s.fake.faults.drop(match="btcusdt@aggTrade")
            told = await s.until("held_back")
        await s.until("live")
        filled = s.running.why()

    assert told["lines"][0]["waits"] > 0
    assert not told["verdict"]["healthy"]
    assert filled["gaps"][0]["recovered"] == 1


class Halted(BinanceFake):
    """Binance in maintenance."""

    def _exchange_info(self, market: str, query: Mapping[str, str]) -> dict[str, Any]:
        found = super()._exchange_info(market, query)
        return found | {"symbols": [symbol | {"status": "BREAK"} for symbol in found["symbols"]]}


async def test_a_market_that_is_halted(autojump_clock: MockClock) -> None:
    async with staged(Halted(now_ns=anchored_clock()), rate=0.001) as s:
        told = await s.until("not_tradable")

    assert "BREAK" in told["verdict"]["text"]
    assert not told["listed"]["tradable"]


# --- we are odd --------------------------------------------------------------------------------------------


async def test_a_clock_that_jumps(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("book:BTC-USDT")
        await trio.sleep(5)
        with s.fake.faults.late_reply("/spot/api/v3/depth"):
            s.fake.faults.drop(match="btcusdt@depth")
            await s.until("book_snapshot", BOOK)
            s.rig.clock.ahead_ns += 7_200_000_000_000
            told = await s.until("clock_jump", BOOK)

    assert told["clock"]["by_s"] == pytest.approx(7200, abs=1)
    assert told["clock"]["jumped_s"] < 60


async def test_what_nobody_asked_for(autojump_clock: MockClock) -> None:
    async with staged() as s:
        await s.live("trade:BTC-USDT")
        causes = {
            topic: s.running.cause(topic)
            for topic in (
                "quote:binance:ETH-USDT",
                "price:binance:BTC-USDT",
                "trade:binance:NOPE-USDT",
            )
        }
        crashed = attrs.evolve(s.running, runtimes={}).why()

    assert causes == {
        "quote:binance:ETH-USDT": "not_configured",
        "price:binance:BTC-USDT": "no_channel",
        "trade:binance:NOPE-USDT": "unknown_instrument",
    }
    assert crashed["verdict"]["cause"] == "crashed"


async def test_a_topic_on_demand_before_and_after_it_is_read(autojump_clock: MockClock) -> None:
    fake = BinanceFake(now_ns=anchored_clock())
    topic = "trade:binance:ETH-USDT"
    offered = {"spot": ["trade"]}
    async with (
        trio.open_nursery() as nursery,
        rig(binance(), fake, {}, endpoints=fake.endpoints(), on_demand=offered) as made,
    ):
        nursery.start_soon(fake.play, 5.0)
        s = Stage(fake, made, around(made), trio.CancelScope())
        await made.runtime.demands.listed("spot")
        await s.until("on_demand_idle", topic)
        hold = made.runtime.demands.demand("trade", "ETH-USDT")
        assert hold is not None
        begun = s.running.why(topic)
        await s.live("trade:ETH-USDT")
        held = s.running.why(topic)
        hold.release()
        leaving = s.running.why(topic)
        await trio.sleep(70)
        left = s.running.why(topic)
        nursery.cancel_scope.cancel()

    assert begun["verdict"]["cause"] == "starting"
    assert (held["demand"]["holds"], held["served"]["always"]) == (1, False)
    assert leaving["demand"]["leaving_s"] == 60
    assert left["verdict"]["cause"] == "on_demand_idle"
    assert left["state"] is None


# --- accounts ----------------------------------------------------------------------------------------------

KEY, SECRET = "key-XXXX-of-main", "secret-YYYY-of-main"
ORDER = "order:bybit:main"


@asynccontextmanager
async def account(fake: BybitFake, **keys: str) -> AsyncIterator[Running]:
    section = {"api_key": KEY, "api_secret": SECRET, "channels": ("order",)} | keys
    async with desk(bybit(), fake, {"main": section}) as on:
        config = Config(venues=on.accounts.configs)
        yield Running(
            config=config,
            bus=on.bus,
            stats=on.stats,
            runtimes={},
            accounts=on.accounts,
            subscriptions=Registry({}, on.bus, now_ns=on.clock),
            archive=Archive(config, on.bus, Directory(), {}, now_ns=on.clock),
            now_ns=on.clock,
        )


async def test_an_account_that_is_well(autojump_clock: MockClock) -> None:
    fake = BybitFake()
    fake.trader(KEY, SECRET)
    async with account(fake) as running:
        told = await caused(running, "quiet", ORDER)
        for wrong, code in (
            ("order:bybit:other", "unknown_account"),
            ("balance:bybit:main", "unknown_channel"),
        ):
            with pytest.raises(UnexplainedError) as refused:
                running.why(wrong)
            assert refused.value.code == code

    assert told["account"]["whole"]
    assert told["streams"][0]["state"] == "accepted"
    text = orjson.dumps(told).decode()
    assert KEY not in text
    assert SECRET not in text


async def test_an_account_whose_key_is_wrong(autojump_clock: MockClock) -> None:
    fake = BybitFake()
    fake.trader(KEY, SECRET)
    async with account(fake, api_secret="secret-ZZZZ-another") as running:
        told = await caused(running, "login_refused", ORDER)

    assert told["account"]["login_refused"]
    assert KEY not in orjson.dumps(told).decode()


async def test_an_account_whose_past_is_not_known(autojump_clock: MockClock) -> None:
    fake = BybitFake()
    fake.trader(KEY, SECRET)

    def signed(request: Request) -> bool:
        return request.path.startswith("/v5/order")

    with fake.faults.rest_status(503, signed):
        async with account(fake) as running:
            told = await caused(running, "catching_up", ORDER)

    assert not told["account"]["whole"]
    assert "not all is known yet" in told["verdict"]["text"]


# --- relays ------------------------------------------------------------------------------------------------


async def test_a_relay_says_how_its_upstream_is(tmp_path: Path) -> None:
    bus, directory = Mirror(), Directory()
    section = SourceConfig(name="relay", plugin="relay")
    inlet = Inlet(bus, section, directory, state_dir=tmp_path, now_ns=time.time_ns)
    config = Config(sources={"relay": section})
    running = Running(
        config=config,
        bus=bus,
        stats=Stats(started_ns=0),
        runtimes={},
        accounts=Accounts({}, {}),
        subscriptions=Registry({}, bus, now_ns=time.time_ns),
        archive=Archive(config, bus, directory, {}, now_ns=time.time_ns),
        now_ns=time.time_ns,
        inlet=inlet,
    )
    common: dict[str, Any] = {"venue": "binance", "instrument": "BTC-USDT"}

    async def deliver(seq: int, **event: Any) -> None:
        kind = Status if "state" in event else Trade
        message = Message(TRADE, seq, kind(**common, received_ns=time.time_ns(), **event))
        await inlet.deliver([with_epoch(message, "abc")])

    told = {"at first": running.why()}
    inlet.up()
    told["up"] = running.why()
    await deliver(1, id="1", price="1.5", size="1", aggressor=None)
    await deliver(2, topic_channel="trade", state=State.LIVE, reason="")
    told["live"] = running.why()
    await deliver(3, topic_channel="trade", state=State.STALE, reason="no data for 40 s")
    told["stale there"] = running.why()
    inlet.lost("connection refused")
    told["lost"] = running.why()

    assert {when: facts["verdict"]["cause"] for when, facts in told.items()} == {
        "at first": "upstream_lost",
        "up": "not_relayed",
        "live": "live",
        "stale there": "upstream_says",
        "lost": "upstream_lost",
    }
    assert "no data for 40 s" in told["stale there"]["verdict"]["text"]
    assert "connection refused" in told["lost"]["verdict"]["text"]
    assert told["live"]["upstream"]["state"] == "up"
