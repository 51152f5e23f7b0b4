"""Topics on demand, from the reader's claim to the venue's frames and back, against fake venues in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.config import load
from pricefeedd.demand import LINGER_S, Hold
from pricefeedd.events import PRIVATE_CHANNELS, Candle, Quote, State, Status, Trade
from pricefeedd.hookspecs import Lanes, Sink
from pricefeedd.loader import load_plugins
from pricefeedd.rules import CandleRule
from pricefeedd.served import UNREAD
from pricefeedd.service import Daemon
from pricefeedd.testing.fake import anchored_clock
from pricefeedd.testing.listing import MINUTE_NS, Listing
from pricefeedd.testing.market import Market, usual_listings
from pricefeedd.testing.rig import Rig, rig
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.topic import Topic
from pricefeedd.venue import Venue
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import bybit
from pricefeedd_coinbase.testing import CoinbaseFake
from pricefeedd_coinbase.venue import coinbase
from pricefeedd_pyth.testing import PythFake
from pricefeedd_pyth.venue import pyth

CHANNELS = ("trade", "quote", "book", "candle_1m", "candle_5m", "candle_1h", "ticker")
BTC, ETH = "trade:BTC-USDT", "trade:ETH-USDT"


def as_declared(venue: Venue, settings: Any) -> Venue:
    return venue


def changed(**spot: Any) -> Venue:
    """Return Binance with other rules for its spot market."""
    venue = binance()
    rules = {**venue.rules, "spot": attrs.evolve(venue.rules["spot"], **spot)}
    return attrs.evolve(venue, rules=rules, configure=as_declared)


def small(*, streams: int, connections: int | None = None) -> Venue:
    """Return Binance with spot connections that carry so many streams, and so many connections."""
    venue = binance()
    feeds = tuple(
        attrs.evolve(feed, streams_per_connection=streams) for feed in venue.feeds if feed.market == "spot"
    )
    return attrs.evolve(venue, feeds=feeds, max_connections=connections, configure=as_declared)


@attrs.define
class Scene:
    """A venue at work, of which readers ask."""

    rig: Rig
    fake: Any

    def demand(self, name: str) -> Hold:
        """Claim a topic that is offered."""
        hold = self.rig.runtime.demands.demand(*name.split(":", 1))
        assert hold is not None, f"{name} is not offered"
        return hold

    def topic(self, name: str) -> Topic | None:
        """Return what is on the bus, and make nothing."""
        channel, _, instrument = name.partition(":")
        return self.rig.bus.get(f"{channel}:{self.rig.runtime.name}:{instrument}")

    async def live(self, *names: str) -> None:
        """Wait until topics are live and data came."""
        await self.rig.until(
            lambda: all(
                (topic := self.topic(name)) is not None and topic.state is State.LIVE and topic.count
                for name in names
            )
        )

    async def told(self, name: str, state: State) -> Status:
        """Wait until the newest word on a topic is this state; return it."""

        def status() -> Status | None:
            found = self.rig.events(name, Status)
            return found[-1] if found and found[-1].state is state else None

        await self.rig.until(status)
        found = status()
        assert found is not None
        return found

    def asked(self, method: str) -> list[list[str]]:
        """Return the streams of each of our frames of one method, as Binance writes it."""
        frames = [orjson.loads(text) for _, text in self.fake.seen.messages]
        return [frame["params"] for frame in frames if frame.get("method") == method]

    def streams(self) -> list[str]:
        """Return all streams that were ever subscribed, in order."""
        return list(itertools.chain(*self.asked("SUBSCRIBE")))

    def check_nothing_left(self) -> None:
        """Assert that nothing is kept of what was let go."""
        runtime = self.rig.runtime
        assert len(self.rig.bus) == 0
        assert [line for market in runtime.markets.values() for line in market.gate] == []
        assert not any(market.gate.derivations for market in runtime.markets.values())
        assert runtime.connections == []
        assert runtime.planned == 0
        assert self.fake.sockets == []
        assert runtime.describe()["on_demand"] == {"held": 0, "leaving": 0}


@asynccontextmanager
async def scene(
    offers: Mapping[str, Sequence[str]] | None = None,
    *,
    fixed: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    venue: Venue | None = None,
    fake: SimulatedVenue | None = None,
    rate: float = 5.0,
    ready: bool = True,
    **session: Any,
) -> AsyncIterator[Scene]:
    if fake is None:
        names = {"BTC-USDT", "ETH-USDT", "BTC-USDT-PERP", "ETH-USDT-PERP"}
        fake = BinanceFake(Market([one for one in usual_listings() if one.name in names]), history_minutes=20)
    async with (
        trio.open_nursery() as nursery,
        rig(
            venue or binance(),
            fake,
            fixed or {},
            endpoints=fake.endpoints(),
            on_demand={"spot": CHANNELS} if offers is None else offers,
            **session,
        ) as made,
    ):
        nursery.start_soon(fake.play, rate)
        if ready:
            await trio.sleep(2)
        yield Scene(made, fake)
        nursery.cancel_scope.cancel()


# --- Coming and going --------------------------------------------------------------------------------------


async def test_nothing_is_subscribed_before_somebody_asks(autojump_clock: MockClock) -> None:
    async with scene() as run:
        await trio.sleep(300)
        assert (len(run.rig.bus), run.fake.seen.sockets, run.rig.runtime.connections) == (0, 0, [])
        assert run.rig.market("spot").healthy(run.rig.clock()), "silence is no fault while nobody reads"


async def test_a_topic_comes_with_its_first_reader_and_goes_after_its_last(autojump_clock: MockClock) -> None:
    async with scene() as run:
        hold, other = run.demand(BTC), run.demand(BTC)
        found = run.topic(BTC)
        assert found is not None
        assert found.state is State.CONNECTING, "there before anything is asked of the venue"
        await run.live(BTC)
        assert run.rig.states(BTC) == [State.CONNECTING, State.LIVE]
        assert run.asked("SUBSCRIBE") == [["btcusdt@aggTrade"]]
        assert run.rig.runtime.describe()["on_demand"] == {"held": 1, "leaving": 0}

        hold.release()
        hold.release()
        await trio.sleep(2 * LINGER_S)
        assert run.rig.live(BTC), "one of two readers is still there"
        other.release()
        await trio.sleep(LINGER_S - 1)
        assert run.rig.live(BTC)
        assert run.rig.runtime.describe()["on_demand"] == {"held": 0, "leaving": 1}
        assert (await run.told(BTC, State.DOWN)).reason == UNREAD
        await trio.sleep(2)
        run.check_nothing_left()  # though a reader of `*:*:*` is there all the time
        run.rig.check_sequence()


async def test_a_reader_who_comes_back_in_time_finds_all_as_it_was(autojump_clock: MockClock) -> None:
    async with scene() as run:
        for _ in range(5):
            hold = run.demand(BTC)
            await run.live(BTC)
            hold.release()
            await trio.sleep(LINGER_S - 1)
        assert (run.fake.seen.subscribes, run.fake.seen.unsubscribes, run.fake.seen.sockets) == (1, 0, 1)
        assert run.rig.states(BTC) == [State.CONNECTING, State.LIVE]


async def test_a_topic_ends_at_the_venue_and_its_neighbours_notice_nothing(autojump_clock: MockClock) -> None:
    async with scene() as run:
        run.demand(ETH)
        hold = run.demand(BTC)
        await run.live(BTC, ETH)
        hold.release()
        await run.told(BTC, State.DOWN)
        await run.fake.wait_for(lambda: bool(run.asked("UNSUBSCRIBE")))
        assert run.asked("UNSUBSCRIBE") == [["btcusdt@aggTrade"]]
        assert run.fake.seen.sockets == 1
        assert run.rig.states(ETH) == [State.CONNECTING, State.LIVE]
        assert run.topic(BTC) is None
        # And again: on the connection that is there.
        run.demand(BTC)
        await run.live(BTC)
        assert run.fake.seen.sockets == 1
        count = len(run.rig.events(ETH, Trade))
        await run.rig.until(lambda: len(run.rig.events(ETH, Trade)) > count)
        assert run.rig.gaps(ETH) == []


async def test_a_thousand_claims_of_one_moment_share_frames(autojump_clock: MockClock) -> None:
    listings = [
        Listing(market="spot", base=f"A{i}", quote="USDT", price="10.00", tick="0.01", lot="0.001")
        for i in range(400)
    ]
    async with scene(fake=BinanceFake(Market(listings)), rate=0.01, instruments_per_connection=1000) as run:
        names = [f"{channel}:{one.name}" for channel in ("trade", "quote", "ticker") for one in listings]
        holds = [run.demand(name) for name in names]
        await run.rig.until(lambda: run.rig.live(*names))
        assert sum(map(len, run.asked("SUBSCRIBE"))) == 1200
        assert len(run.asked("SUBSCRIBE")) == 6  # Binance takes 200 streams in a frame
        assert run.fake.seen.sockets == 2  # and 1000 on a connection
        for hold in holds[:-1]:
            hold.release()
        await trio.sleep(LINGER_S + 10)
        assert len(run.asked("UNSUBSCRIBE")) <= 6
        assert run.asked("UNSUBSCRIBE")[-1] == [f"a{i}usdt@ticker" for i in range(200, 399)]
        assert run.rig.runtime.planned == 1
        assert len(run.fake.sockets) == 1, "the other one carries nothing any more"
        assert len(run.rig.bus) == 1


async def test_claims_that_wait_for_the_venues_pace_share_frames(autojump_clock: MockClock) -> None:
    listings = [
        Listing(market="spot", base=f"A{i}", quote="USDT", price="10.00", tick="0.01", lot="0.001")
        for i in range(100)
    ]
    async with scene(fake=BinanceFake(Market(listings)), rate=0.1, instruments_per_connection=1000) as run:
        for listing in listings:
            run.demand(f"quote:{listing.name}")
            await trio.sleep(0.02)
        await trio.sleep(3)
        assert sum(map(len, run.asked("SUBSCRIBE"))) == 100
        assert len(run.asked("SUBSCRIBE")) <= 8


async def test_nothing_is_left_of_a_thousand_comings_and_goings(
    autojump_clock: MockClock,
) -> None:
    chance = random.Random(11)
    async with scene({"spot": CHANNELS, "linear": CHANNELS}, instruments_per_connection=1, rate=0.5) as run:
        names = [f"{channel}:{name}" for channel in CHANNELS for name in ("BTC-USDT", "ETH-USDT")]
        names += [f"{name}-PERP" for name in names]
        held: list[Hold] = []
        tasks = _tasks()
        for _ in range(1000):
            held.append(run.demand(chance.choice(names)))
            if chance.random() < 0.3:
                await trio.sleep(chance.choice((0, 0.01, 0.1, 1, 10)))
            if len(held) > 6 or chance.random() < 0.6:
                held.pop(chance.randrange(len(held))).release()
        run.rig.check_sequence()
        for hold in held:
            hold.release()
        await trio.sleep(LINGER_S + 5)
        run.check_nothing_left()
        assert _tasks() <= tasks


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


# --- What is shared ----------------------------------------------------------------------------------------


async def test_a_topic_that_is_configured_is_never_let_go(autojump_clock: MockClock) -> None:
    async with scene(fixed={"spot": {"BTC-USDT": ["trade"]}}) as run:
        await run.live(BTC)
        hold = run.demand(BTC)
        await trio.sleep(1)
        hold.release()
        await trio.sleep(LINGER_S + 5)
        assert run.rig.live(BTC)
        assert (run.fake.seen.subscribes, run.fake.seen.unsubscribes) == (1, 0)
        assert run.rig.states(BTC) == [State.CONNECTING, State.LIVE]


async def test_what_is_made_of_other_topics_brings_and_ends_these(autojump_clock: MockClock) -> None:
    async with scene(rate=1.0) as run:
        hold = run.demand("candle_5m:BTC-USDT")
        await run.live("candle_5m:BTC-USDT")
        assert run.topic("candle_1m:BTC-USDT") is None, "what it is made of is nobody else's business"
        assert run.asked("SUBSCRIBE") == [["btcusdt@kline_1m"]]
        # Somebody reads the minutes as well, and then no more: the longer ones stay.
        minutes = run.demand("candle_1m:BTC-USDT")
        await run.live("candle_1m:BTC-USDT")
        assert run.fake.seen.subscribes == 1
        minutes.release()
        await run.told("candle_1m:BTC-USDT", State.DOWN)
        assert run.topic("candle_1m:BTC-USDT") is None
        await trio.sleep(600)
        assert run.topic("candle_1m:BTC-USDT") is None
        assert run.rig.states("candle_5m:BTC-USDT") == [State.CONNECTING, State.LIVE]
        assert any(c.closed for c in run.rig.events("candle_5m:BTC-USDT", Candle))
        hold.release()
        await run.told("candle_5m:BTC-USDT", State.DOWN)
        await trio.sleep(2)
        run.check_nothing_left()


async def test_what_is_made_of_a_configured_topic_leaves_it_alone(autojump_clock: MockClock) -> None:
    async with scene(fixed={"spot": {"BTC-USDT": ["candle_1m"]}}) as run:
        await run.live("candle_1m:BTC-USDT")
        hold = run.demand("candle_5m:BTC-USDT")
        await run.told("candle_5m:BTC-USDT", State.LIVE)
        hold.release()
        await run.told("candle_5m:BTC-USDT", State.DOWN)
        await trio.sleep(2)
        assert run.rig.states("candle_1m:BTC-USDT") == [State.CONNECTING, State.LIVE]
        assert (run.fake.seen.subscribes, run.fake.seen.unsubscribes) == (1, 0)


async def test_a_longer_interval_begins_in_the_middle_of_running_minutes(autojump_clock: MockClock) -> None:
    """It is whole all the same: the minutes before the claim come from REST."""
    only = Market([one for one in usual_listings() if one.name == "BTC-USDT"])
    fake = BinanceFake(
        only, history_minutes=90, now_ns=anchored_clock(1_800_000_000_000_000_000 + 47 * MINUTE_NS)
    )
    async with scene(fixed={"spot": {"BTC-USDT": ["candle_1m"]}}, fake=fake, rate=1.0) as run:
        await run.live("candle_1m:BTC-USDT")
        await trio.sleep(200)
        run.demand("candle_1h:BTC-USDT")

        def hours() -> list[Candle]:
            return run.rig.events("candle_1h:BTC-USDT", Candle)

        await run.rig.until(hours, within_s=100)
        (first,) = hours()
        hour_ns = 60 * MINUTE_NS
        assert first.start_ns == fake.now_ns() // hour_ns * hour_ns
        await run.rig.until(lambda: [c for c in hours() if c.closed])
        closed = next(c for c in hours() if c.closed)
        minutes = [
            c
            for c in fake.told_candles("BTC-USDT")
            if first.start_ns <= c.start_ns < first.start_ns + hour_ns
        ]
        assert len(minutes) == 60
        assert (closed.open, closed.close) == (minutes[0].open, minutes[-1].close)
        assert Decimal(closed.volume) == sum(Decimal(c.volume) for c in minutes)


async def test_what_was_to_be_fetched_for_a_topic_is_not_when_it_is_gone(autojump_clock: MockClock) -> None:
    async with scene() as run:
        tasks = _tasks()
        with run.fake.faults.rest_status(503, "/spot/api/v3/depth"):
            for _ in range(2):
                hold = run.demand("book:BTC-USDT")
                await trio.sleep(30)
                hold.release()
                await trio.sleep(LINGER_S + 5)
                run.check_nothing_left()
                assert _tasks() <= tasks


async def test_minutes_from_trades_and_quotes_from_books(autojump_clock: MockClock) -> None:
    venue = changed(candle=CandleRule(built_from="trade", grace_s=2.0), quote_from_book=True)
    async with scene(venue=venue) as run:
        holds = {name: run.demand(f"{name}:BTC-USDT") for name in ("candle_1m", "quote")}
        await run.live("candle_1m:BTC-USDT", "quote:BTC-USDT")
        assert sorted(run.streams()) == ["btcusdt@aggTrade", "btcusdt@depth@100ms"]
        assert (run.topic(BTC), run.topic("book:BTC-USDT")) == (None, None)
        book = run.demand("book:BTC-USDT")
        await run.told("book:BTC-USDT", State.LIVE)
        assert run.rig.bus.book("book:binance:BTC-USDT") is not None, "the book that was there unseen"
        holds["quote"].release()
        await run.told("quote:BTC-USDT", State.DOWN)
        assert run.topic("book:BTC-USDT") is not None
        count = len(run.rig.topic("book:BTC-USDT"))
        quotes = len(run.rig.events("quote:BTC-USDT", Quote))
        await run.rig.until(lambda: len(run.rig.topic("book:BTC-USDT")) > count + 5)
        assert len(run.rig.events("quote:BTC-USDT", Quote)) == quotes
        book.release()
        holds["candle_1m"].release()
        await trio.sleep(LINGER_S + 5)
        run.check_nothing_left()


async def test_another_name_for_the_same_product(autojump_clock: MockClock) -> None:
    async with scene({"spot": ["trade"]}, venue=coinbase(), fake=CoinbaseFake()) as run:
        alias = next(i for m in run.rig.runtime.around.directory.maps() for i in m if i.alias_of is not None)
        own = run.rig.runtime.around.directory.maps()[0].by_symbol(alias.alias_of or "")
        assert own is not None
        hold = run.demand(f"trade:{alias.name}")
        await run.live(f"trade:{alias.name}")
        assert run.topic(f"trade:{own.name}") is None
        second = run.demand(f"trade:{own.name}")
        await run.live(f"trade:{own.name}")
        hold.release()
        await run.told(f"trade:{alias.name}", State.DOWN)
        assert run.rig.states(f"trade:{own.name}")[-1] is State.LIVE
        count = len(run.rig.topic(f"trade:{alias.name}"))
        await trio.sleep(10)
        assert len(run.rig.topic(f"trade:{alias.name}")) == count
        second.release()
        await trio.sleep(LINGER_S + 5)
        run.check_nothing_left()


# --- What is not there, or not yet -------------------------------------------------------------------------


async def test_only_what_is_offered_can_be_claimed(autojump_clock: MockClock) -> None:
    async with scene({"spot": ["trade"]}) as run:
        demands = run.rig.runtime.demands
        for channel, name in (
            ("book", "BTC-USDT"),
            ("trade", "BTC-USDT-PERP"),
            ("trade", "BTCUSDT"),
            ("trade", "NONE-USDT"),
            ("trade", "*"),
            ("trade", ""),
            ("", "BTC-USDT"),
            ("order", "main"),
        ):
            assert demands.demand(channel, name) is None
        assert len(run.rig.bus) == 0


async def test_claims_before_the_instruments_are_known(autojump_clock: MockClock) -> None:
    fake = BinanceFake()
    with fake.faults.rest_status(503, "/spot/api/v3/exchangeInfo") as fault:
        async with scene({"spot": ["trade"]}, fake=fake, ready=False) as run:
            hold, unknown = run.demand(BTC), run.demand("trade:NONE-USDT")
            assert run.rig.runtime.demands.demand("trade", "two words") is None
            await run.rig.until(lambda: [s for s in run.rig.events(BTC, Status) if s.reason])
            assert "instruments not loaded" in run.rig.events(BTC, Status)[-1].reason
            assert run.rig.state(BTC) is State.CONNECTING
            fault.lift()
            await run.live(BTC)
            assert "unknown instrument 'NONE-USDT'" in (await run.told("trade:NONE-USDT", State.DOWN)).reason
            unknown.release()
            hold.release()
            await trio.sleep(LINGER_S + 5)
            run.check_nothing_left()


async def test_a_new_listing_can_be_claimed(autojump_clock: MockClock) -> None:
    market = Market([Listing(market="spot", base="A", quote="USDT", price="1.0", tick="0.1", lot="1")])
    later = Listing(market="spot", base="B", quote="USDT", price="1.0", tick="0.1", lot="1")
    both = BinanceFake(Market([*market.listings.values(), later]))
    hidden = orjson.dumps("BUSDT").decode()

    async def without(request: Any) -> Any:
        if request.path != "/spot/api/v3/exchangeInfo" or not hiding:
            return None
        reply = await both.on_http(request)
        body = orjson.loads(reply.body)
        body["symbols"] = [s for s in body["symbols"] if orjson.dumps(s["symbol"]).decode() != hidden]
        return attrs.evolve(reply, body=orjson.dumps(body))

    hiding = True
    both.answers.append(without)
    async with scene({"spot": ["trade"]}, fake=both, rate=0.2) as run:
        run.demand("trade:A-USDT")
        await run.live("trade:A-USDT")
        assert run.rig.runtime.demands.demand("trade", "B-USDT") is None
        hiding = False
        await trio.sleep(3700)
        run.demand("trade:B-USDT")
        await run.live("trade:B-USDT")
        assert run.fake.seen.sockets == 1, "on the connection that is there, which knows the name by now"


# --- Trouble -----------------------------------------------------------------------------------------------


async def test_a_venue_that_is_away(autojump_clock: MockClock) -> None:
    async with scene() as run:
        with run.fake.faults.refuse("/spot/stream", status=503):
            first = run.demand(BTC)
            assert "503" in (await run.told(BTC, State.DOWN)).reason
            # While it is given up for now a second one comes, and the first goes.
            second = run.demand(ETH)
            assert (await run.told(ETH, State.DOWN)).reason
            first.release()
            await trio.sleep(LINGER_S + 5)
            assert run.topic(BTC) is None
        await run.live(ETH)
        assert run.streams() == ["ethusdt@aggTrade"]
        second.release()
        await trio.sleep(LINGER_S + 5)
        run.check_nothing_left()


async def test_claims_and_releases_while_a_connection_is_being_made(autojump_clock: MockClock) -> None:
    async with scene() as run:
        with run.fake.faults.hang_handshake("/spot/stream", seconds=9):
            run.demand(BTC)
            gone = run.demand("book:BTC-USDT")
            await trio.sleep(1)
            run.demand(ETH)
            gone.release()
            await run.live(BTC, ETH)
        assert sorted(run.streams()) == [
            "btcusdt@aggTrade",
            "btcusdt@depth@100ms",
            "ethusdt@aggTrade",
        ]


async def test_a_refused_topic_is_asked_for_again_by_the_next_who_wants_it(autojump_clock: MockClock) -> None:
    fake = BybitFake()
    async with scene({"spot": ["trade"]}, venue=bybit(), fake=fake) as run:
        run.demand(ETH)
        await run.live(ETH)
        refusing = fake._refusal
        fake._refusal = lambda socket, topics: (  # type: ignore[method-assign]  # the fake has no fault for it
            "error:handler not found,topic:" + topics[0]
            if any("BTC" in topic for topic in topics)
            else refusing(socket, topics)
        )
        hold = run.demand(BTC)
        assert "refused by the venue" in (await run.told(BTC, State.DOWN)).reason
        await trio.sleep(30)
        subscribes = fake.seen.subscribes
        fake._refusal = refusing  # type: ignore[method-assign]
        await trio.sleep(30)
        assert fake.seen.subscribes == subscribes, "a no holds until somebody new asks"
        run.demand(BTC)
        await run.live(BTC)
        assert run.rig.states(ETH) == [State.CONNECTING, State.LIVE]
        assert fake.seen.sockets == 1
        hold.release()


async def test_a_connection_of_which_all_was_refused_serves_the_next_claim(autojump_clock: MockClock) -> None:
    fake = BybitFake()
    refusing = fake._refusal
    fake._refusal = lambda socket, topics: (  # type: ignore[method-assign]
        "error:handler not found,topic:" + topics[0]
        if any("BTC" in topic for topic in topics)
        else refusing(socket, topics)
    )
    async with scene({"spot": ["trade"]}, venue=bybit(), fake=fake) as run:
        hold = run.demand(BTC)
        await run.told(BTC, State.DOWN)
        await trio.sleep(10)
        run.demand(ETH)
        with trio.fail_after(20):
            await run.live(ETH)
        assert run.rig.states(BTC)[-1] is State.DOWN
        hold.release()
        await trio.sleep(LINGER_S + 5)
        assert run.topic(BTC) is None
        assert run.rig.live(ETH)


async def test_topics_for_which_there_is_no_room_wait_until_there_is(autojump_clock: MockClock) -> None:
    venue = small(streams=1, connections=2)
    async with scene({"spot": ["trade", "quote"]}, venue=venue) as run:
        holds = [run.demand(BTC), run.demand(ETH)]
        await run.live(BTC, ETH)
        third = run.demand("quote:BTC-USDT")
        assert "limit of 2 connections" in (await run.told("quote:BTC-USDT", State.DOWN)).reason
        holds[0].release()
        await run.live("quote:BTC-USDT")
        third.release()
        holds[1].release()
        await trio.sleep(LINGER_S + 5)
        run.check_nothing_left()


async def test_claims_and_releases_while_a_connection_cannot_be_replaced(autojump_clock: MockClock) -> None:
    async with scene() as run:
        gone = run.demand(BTC)
        run.demand("quote:BTC-USDT")
        await run.live(BTC, "quote:BTC-USDT")
        gone.release()
        with run.fake.faults.hang_handshake("/spot"):
            run.fake.shut_down("spot")
            await run.fake.wait_for(lambda: run.fake.seen.handshakes == 2)
            await trio.sleep(LINGER_S - 5)
            await run.fake.wait_for(lambda: run.fake.seen.handshakes > 4)
            run.demand(ETH)
            await run.live(ETH)  # on the old connection, which works still
            await trio.sleep(LINGER_S)
            (socket,) = run.fake.sockets
            assert sorted(socket.subscriptions) == ["btcusdt@bookTicker", "ethusdt@aggTrade"]
        assert run.topic(BTC) is None
        assert run.rig.states("quote:BTC-USDT") == [State.CONNECTING, State.LIVE]


async def test_what_is_held_outlives_a_lost_connection(autojump_clock: MockClock) -> None:
    async with scene() as run:
        run.demand(BTC)
        gone = run.demand(ETH)
        await run.live(BTC, ETH)
        gone.release()
        await trio.sleep(LINGER_S + 2)
        run.fake.faults.cut("/spot")
        await run.told(BTC, State.CONNECTING)
        await run.live(BTC)
        assert run.asked("SUBSCRIBE")[-1] == ["btcusdt@aggTrade"]


# --- Other venues ------------------------------------------------------------------------------------------


async def test_bybit(autojump_clock: MockClock) -> None:
    async with scene(
        {"spot": ["trade", "book"], "linear": ["ticker"]}, venue=bybit(), fake=BybitFake(history_minutes=5)
    ) as run:
        names = [BTC, "book:ETH-USDT", "ticker:BTC-USDT-PERP"]
        holds = [run.demand(name) for name in names]
        await run.live(*names)
        assert run.fake.seen.sockets == 2
        holds[0].release()
        await run.told(BTC, State.DOWN)
        await run.fake.wait_for(lambda: run.fake.seen.unsubscribes == 1)
        assert run.rig.live("book:ETH-USDT")
        for hold in holds[1:]:
            hold.release()
        await trio.sleep(LINGER_S + 5)
        run.check_nothing_left()


@pytest.mark.parametrize(
    "name", ["binance", "bingx", "bybit", "coinbase", "gateio", "hyperliquid", "kraken", "okx", "pyth"]
)
async def test_every_venue_carries_just_what_is_held(name: str, autojump_clock: MockClock) -> None:
    """After claims and releases by chance, with connections that are cut, no stream is missing or too many."""
    plugins = load_plugins()
    venue = plugins.venues[name]
    make: Any = plugins.fakes[name]
    market = next(iter(venue.channels))
    listings = [one for one in make.default_listings() if one.market == market][:3]
    channels = sorted(venue.channels[market] - {*PRIVATE_CHANNELS, "liquidation"})
    names = [f"{channel}:{one.name}" for one in listings for channel in channels]
    chance = random.Random(name)
    fake = make(Market(listings), history_minutes=5)
    async with scene({market: channels}, venue=venue, fake=fake, rate=2.0) as run:
        held = {topic: run.demand(topic) for topic in names}
        await run.live(*names)
        for _ in range(12):
            for topic in chance.sample(names, len(names) // 2 + 1):
                if topic in held:
                    held.pop(topic).release()
                else:
                    held[topic] = run.demand(topic)
            if chance.random() < 0.2:
                fake.faults.cut()
            await trio.sleep(chance.choice((0.1, 1, LINGER_S - 1, LINGER_S + 1)))
        for topic in names:
            if topic not in held and chance.random() < 0.3:
                held[topic] = run.demand(topic)
        await trio.sleep(2 * LINGER_S)
        await run.live(*held)
        at_venue = sorted(stream for socket in fake.sockets for stream in socket.subscriptions)
        wanted = [
            [*c.streams, *(always.name for always in c.feed.always)] for c in run.rig.runtime.connections
        ]
        assert at_venue == sorted(itertools.chain(*wanted))
        assert {topic.name for topic in run.rig.bus} == {topic.replace(":", f":{name}:", 1) for topic in held}
        run.rig.check_sequence()
        for hold in held.values():
            hold.release()
        await trio.sleep(LINGER_S + 20)
        run.check_nothing_left()


async def test_a_venue_whose_streams_stand_in_the_path(autojump_clock: MockClock) -> None:
    """Each claim replaces the connection, the new one before the old; nobody else notices."""
    async with scene({"oracle": ["price"]}, venue=pyth(), fake=PythFake()) as run:
        first, second = [
            f"price:{i.name}" for m in run.rig.runtime.around.directory.maps() for i in m if i.tradable
        ][:2]
        hold = run.demand(first)
        await run.live(first)
        other = run.demand(second)
        await run.live(second)
        hold.release()
        await run.told(first, State.DOWN)
        await trio.sleep(10)
        assert len(run.fake.sockets) == 1
        count = len(run.rig.topic(second))
        await run.rig.until(lambda: len(run.rig.topic(second)) > count)
        assert State.DOWN not in run.rig.states(second)
        with run.fake.faults.refuse(status=503):
            again = run.demand(first)
            await run.rig.until(lambda: "503" in run.rig.events(first, Status)[-1].reason)
            assert run.rig.state(first) is not State.LIVE
            assert run.rig.live(second)
        await run.live(first)
        assert State.DOWN not in run.rig.states(second)
        for hold_ in (other, again):
            hold_.release()
        await trio.sleep(LINGER_S + 20)
        run.check_nothing_left()


# --- The whole daemon --------------------------------------------------------------------------------------


async def daemon_of(
    nursery: trio.Nursery, path: Path, venue: Venue, *, linger_s: float, **sinks: Sink
) -> Daemon:
    """Run a daemon by a configuration file."""
    config = load(path, venues={"binance": venue}, sinks=sinks, electors={}, environ={})
    plugins = SimpleNamespace(records=[], venues={"binance": venue}, sinks=sinks)
    daemon = Daemon(config, plugins, linger_s=linger_s)  # type: ignore[arg-type]  # the loader's own names
    await nursery.start(daemon.run)
    return daemon


def write(path: Path, fake: BinanceFake) -> Path:
    """Write a configuration that offers Binance's spot market on demand."""
    endpoints = "\n".join(f'{key} = "{url}"' for key, url in fake.endpoints().items())
    path.write_text(
        f"""
        [web]
        listen = ["127.0.0.1:0"]
        [[venues.binance.subscribe]]
        market = "spot"
        channels = ["trade", "quote"]
        on_demand = true
        [venues.binance.endpoints]
        {endpoints}
        """
    )
    return path


async def test_a_websocket_client_brings_a_topic(
    nursery: trio.Nursery, exchange: BinanceFake, tmp_path: Path, open_reader: Any, eventually: Any
) -> None:
    path = write(tmp_path / "pricefeedd.toml", exchange)
    daemon = await daemon_of(nursery, path, binance(), linger_s=0.5)
    await eventually(lambda: daemon.directory.maps("binance"))
    everything = await open_reader(daemon.binds[0])
    await everything.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    reader = await open_reader(daemon.binds[0])
    topic = "trade:binance:BTC-USDT"
    for seq in (0, 1):
        await reader.send({"op": "subscribe", "id": 1, "topics": [topic, "trade:binance:NONE"]})
        ack = await reader.until("ack")
        assert ack["results"][0] == {"topic": topic, "ok": True, "matched": 1, "on_demand": True}
        assert not ack["results"][1]["ok"]
        await reader.until(lambda m: m["type"] == "status" and m["data"]["state"] == "live")
        trade = await reader.until("trade")
        assert trade["seq"] > seq
        on_demand = daemon.describe()["sessions"]["binance"]["on_demand"]
        assert on_demand == {"held": 1, "leaving": 0}
        if seq == 0:
            await reader.send({"op": "unsubscribe", "id": 2, "topics": [topic]})
            await reader.until("ack")
            await everything.until(lambda m: m["type"] == "status" and m["data"]["reason"] == UNREAD)
            await eventually(lambda: not exchange.sockets)
            assert daemon.bus.get(topic) is None
    # A client that is gone holds nothing.
    await trio.to_thread.run_sync(reader.connection.close)
    await everything.until(lambda m: m["type"] == "status" and m["data"]["reason"] == UNREAD)
    everything.check_sequence()
    await eventually(lambda: not exchange.sockets)
    daemon.stop()


async def test_a_sink_keeps_the_topics_that_it_names(
    nursery: trio.Nursery, exchange: BinanceFake, tmp_path: Path, eventually: Any
) -> None:
    got: set[str] = set()

    async def run(settings: Any, lanes: Lanes) -> None:
        with suppress(trio.EndOfChannel):
            while True:
                got.update(delivery.topic for delivery in await lanes.receive())

    path = write(tmp_path / "pricefeedd.toml", exchange)
    path.write_text(path.read_text() + '[sinks.keep]\ntopics = ["trade:binance:BTC-USDT", "quote:*:*"]\n')
    keep = Sink(name="keep", api_version=1, run=run)
    daemon = await daemon_of(nursery, path, binance(), linger_s=0.1, keep=keep)
    await eventually(lambda: "trade:binance:BTC-USDT" in got)
    await eventually(lambda: len(exchange.sockets) == 1)
    assert daemon.bus.get("quote:binance:BTC-USDT") is None
    daemon.stop()


class Failing:
    """A codec with a bug that shows once; all else is the real one's."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def streams(self, channel: str, instrument: Any) -> Any:
        """Fail for one instrument, once."""
        if instrument.name == "ETH-USDT" and not self.failed:
            self.failed += 1
            raise ZeroDivisionError("a mistake of the plugin's author")
        return self._codec.streams(channel, instrument)


async def test_what_is_held_is_served_again_after_a_crash(
    nursery: trio.Nursery, exchange: BinanceFake, tmp_path: Path, eventually: Any
) -> None:
    healthy = binance()
    sick = attrs.evolve(healthy, codec=Failing(healthy.codec), configure=as_declared)
    path = write(tmp_path / "pricefeedd.toml", exchange)
    daemon = await daemon_of(nursery, path, sick, linger_s=0.1)
    await eventually(lambda: daemon.directory.maps("binance"))
    names = ["trade:binance:BTC-USDT", "trade:binance:ETH-USDT"]

    def flows(name: str) -> bool:
        topic = daemon.bus.get(name)
        return topic is not None and topic.state is State.LIVE and topic.count > 0

    hold = daemon.demand("trade", "binance", "BTC-USDT")
    assert hold is not None
    assert daemon.demand("trade", "elsewhere", "BTC-USDT") is None
    await eventually(lambda: flows(names[0]))
    before = daemon.runtimes["binance"]
    assert daemon.demand("trade", "binance", "ETH-USDT") is not None
    await eventually(lambda: daemon.runtimes.get("binance") is not before)
    hold.release()
    await eventually(lambda: flows(names[1]) and daemon.bus.get(names[0]) is None)
    daemon.stop()
