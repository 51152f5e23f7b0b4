"""What the core makes of a venue's own data, through the whole pipeline against a simulated market.

The venue is Binance's fake; its rules are changed to those of venues that send less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Stream
from pricefeedd.events import BookDelta, Candle, Origin, Quote, State, Status, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.rest import Page, RestCall
from pricefeedd.rules import CandleRule, EmptyMinutes
from pricefeedd.testing.fake import anchored_clock
from pricefeedd.testing.market import Market, usual_listings
from pricefeedd.testing.rig import Rig, rig
from pricefeedd.venue import Venue
from pricefeedd_binance import pricefeedd_venues
from pricefeedd_binance.testing import BinanceFake

(BINANCE,) = pricefeedd_venues()
MINUTE = 60_000_000_000
DAY = 1440 * MINUTE
NAME = "BTC-USDT"


def as_declared(venue: Venue, settings: Any) -> Venue:
    return venue


def changed(**spot: Any) -> Venue:
    """Return Binance with other rules for its spot market."""
    rules = {**BINANCE.rules, "spot": attrs.evolve(BINANCE.rules["spot"], **spot)}
    return attrs.evolve(BINANCE, rules=rules, configure=as_declared)


BUILT = changed(candle=CandleRule(built_from="trade", empty=EmptyMinutes.FLAT, grace_s=2.0))


@asynccontextmanager
async def scene(
    channels: list[str],
    *,
    venue: Venue = BINANCE,
    at_ns: int | None = None,
    history: int = 30,
    rate: float = 5.0,
) -> AsyncIterator[tuple[Rig, BinanceFake, trio.CancelScope]]:
    only = Market([listing for listing in usual_listings() if listing.name == NAME])
    fake = BinanceFake(only, history_minutes=history, now_ns=anchored_clock(at_ns))
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    wanted = {"spot": {NAME: channels}}
    async with trio.open_nursery() as nursery, rig(venue, fake, wanted, endpoints=fake.endpoints()) as made:
        nursery.start_soon(play)
        await made.until(lambda: made.live(*(f"{channel}:{NAME}" for channel in channels)))
        yield made, fake, playing
        nursery.cancel_scope.cancel()


def closed(made: Rig, channel: str) -> list[Candle]:
    return [c for c in made.events(f"{channel}:{NAME}", Candle) if c.closed]


def check_minutes(made: Rig, fake: BinanceFake) -> list[Candle]:
    """Assert that closed minutes are the market's own, without a hole; return them."""
    found = closed(made, "candle_1m")
    starts = [c.start_ns for c in found]
    assert starts == list(range(starts[0], starts[-1] + 1, MINUTE))
    fake.market.turn(fake.now_ns())
    truth = {c.start_ns: c for c in fake.market.candles(NAME)}
    for ours in found:
        theirs = truth[ours.start_ns]
        told = [Decimal(n) for n in (ours.open, ours.high, ours.low, ours.close, ours.volume)]
        assert told == [
            Decimal(n) for n in (theirs.open, theirs.high, theirs.low, theirs.close, theirs.volume)
        ], f"{ours} is not {theirs}"
    return found


# --- longer intervals --------------------------------------------------------------------------------------


async def test_longer_candles_are_exact_across_the_edges_of_hour_and_day(autojump_clock: MockClock) -> None:
    """Begun six minutes before midnight: the day that ends and the one that begins are both whole."""
    at_ns = 20_500 * DAY - 6 * MINUTE + 20_000_000_000
    channels = ["candle_1m", "candle_5m", "candle_15m", "candle_1h", "candle_4h", "candle_1d"]
    async with scene(channels, at_ns=at_ns, history=1600, rate=0.5) as (made, fake, _):
        await made.until(
            lambda: any(c.start_ns == 20_500 * DAY for c in closed(made, "candle_1h")), within_s=5000
        )
        minutes = {c.start_ns: c for c in fake.market.candles(NAME)}
        for channel, step in (
            ("candle_5m", 5), ("candle_15m", 15), ("candle_1h", 60), ("candle_4h", 240), ("candle_1d", 1440),
        ):  # fmt: skip
            found = closed(made, channel)
            assert any(c.start_ns + step * MINUTE == 20_500 * DAY for c in found), channel
            starts = [c.start_ns for c in found]
            assert starts == list(range(starts[0], starts[-1] + 1, step * MINUTE)), channel
            for candle in found:
                assert candle.start_ns % (step * MINUTE) == 0
                parts = [minutes[candle.start_ns + i * MINUTE] for i in range(step)]
                assert Decimal(candle.volume) == sum(Decimal(p.volume) for p in parts)
                assert Decimal(candle.high) == max(Decimal(p.high) for p in parts)
                assert Decimal(candle.low) == min(Decimal(p.low) for p in parts)
                assert (Decimal(candle.open), Decimal(candle.close)) == (
                    Decimal(parts[0].open),
                    Decimal(parts[-1].close),
                )
                assert candle.origin is Origin.DERIVED


async def test_a_longer_candle_alone_needs_no_minutes_to_be_served(autojump_clock: MockClock) -> None:
    async with scene(["candle_5m"]) as (made, _, _):
        await made.until(lambda: len(closed(made, "candle_5m")) >= 2, within_s=1000)
        assert {m.topic for m in made.messages} == {f"candle_5m:binance:{NAME}"}


async def test_ten_minutes_away_leave_longer_candles_whole(autojump_clock: MockClock) -> None:
    async with scene(["candle_5m", "candle_1m"]) as (made, fake, _):
        refused = fake.faults.refuse()
        fake.faults.cut()
        await trio.sleep(600)
        assert made.state(f"candle_5m:{NAME}") is State.DOWN
        refused.lift()
        await trio.sleep(1200)
        starts = [c.start_ns for c in closed(made, "candle_5m")]
        assert starts == list(range(starts[0], starts[-1] + 1, 5 * MINUTE))
        assert len(starts) >= 3
        made.check_sequence()


# --- minutes from trades -----------------------------------------------------------------------------------


async def test_minutes_are_made_of_trades_where_the_venue_sends_none(autojump_clock: MockClock) -> None:
    async with scene(["candle_1m", "trade"], venue=BUILT) as (made, fake, playing):
        await trio.sleep(400)
        playing.cancel()
        await trio.sleep(200)
        found = check_minutes(made, fake)
        assert all(not any("kline" in name for name in s.subscriptions) for s in fake.sockets)
        derived = [c for c in found if c.origin is Origin.DERIVED]
        assert len(derived) >= 5
        assert {Decimal(c.volume) for c in found[-2:]} == {0}
        opened = [c for c in made.events(f"candle_1m:{NAME}", Candle) if not c.closed]
        assert len(opened) > 50


async def test_minutes_are_made_though_nobody_asked_for_the_trades(autojump_clock: MockClock) -> None:
    async with scene(["candle_1m"], venue=BUILT) as (made, fake, _):
        await trio.sleep(300)
        check_minutes(made, fake)
        assert {m.topic for m in made.messages} == {f"candle_1m:binance:{NAME}"}


@pytest.mark.parametrize("fault", ["cut", "drop", "stall", "away"])
async def test_minutes_from_trades_are_whole_after_a_fault(fault: str, autojump_clock: MockClock) -> None:
    async with scene(["candle_1m", "trade"], venue=BUILT) as (made, fake, playing):
        await trio.sleep(100)
        if fault == "cut":
            fake.faults.cut()
        elif fault == "drop":
            fake.faults.drop(6, match="aggTrade")
        elif fault == "stall":
            with fake.faults.stall():
                await trio.sleep(200)
        else:
            with fake.faults.refuse():
                fake.faults.cut()
                await trio.sleep(400)
        await trio.sleep(400)
        playing.cancel()
        await trio.sleep(90)
        check_minutes(made, fake)
        got = [int(t.id or 0) for t in made.events(f"trade:{NAME}", Trade)]
        assert got == list(range(got[0], got[-1] + 1))


# --- quotes from books -------------------------------------------------------------------------------------


async def test_quotes_are_the_best_of_the_book_and_as_good_as_it(autojump_clock: MockClock) -> None:
    venue = changed(quote_from_book=True)
    async with scene(["quote"], venue=venue) as (made, fake, playing):
        await trio.sleep(30)
        fake.faults.drop(1, match="depth")
        await made.until(lambda: State.RESYNCING in made.states(f"quote:{NAME}"))
        await made.until(lambda: made.live(f"quote:{NAME}"))
        await trio.sleep(10)
        playing.cancel()
        fake.flush()
        await trio.sleep(5)
        assert {m.topic for m in made.messages} == {f"quote:binance:{NAME}"}
        last = made.events(f"quote:{NAME}", Quote)[-1]
        truth = fake.market.quote(NAME)
        assert ((last.bid_price, last.bid_size), (last.ask_price, last.ask_size)) == (truth.bid, truth.ask)
        assert last.origin is Origin.DERIVED


# --- one stream for several topics -------------------------------------------------------------------------


class Aliased:
    """Binance's REST, with a listing that another one's stream serves."""

    def __init__(self, rest: Any) -> None:
        self._rest = rest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rest, name)

    def instruments(self, market: str) -> RestCall[Instrument]:
        call: RestCall[Instrument] = self._rest.instruments(market)

        def parse(reply: Any) -> Page[Instrument]:
            page = call.parse(reply)
            (btc,) = [i for i in page.items if i.name == NAME] or [None]
            more = (
                []
                if btc is None
                else [attrs.evolve(btc, name="BTC-USDX", symbol="BTCUSDX", alias_of="BTCUSDT")]
            )
            return attrs.evolve(page, items=[*page.items, *more])

        return attrs.evolve(call, parse=parse)


@pytest.mark.parametrize("both", [False, True])
async def test_an_alias_is_served_by_the_stream_of_the_other(both: bool, autojump_clock: MockClock) -> None:
    venue = attrs.evolve(BINANCE, rest=Aliased(BINANCE.rest), configure=as_declared)
    fake = BinanceFake(history_minutes=30)
    channels = ["trade", "book", "candle_1m"]
    wanted = {"spot": {"BTC-USDX": channels, **({NAME: channels} if both else {})}}
    async with trio.open_nursery() as nursery, rig(venue, fake, wanted, endpoints=fake.endpoints()) as made:
        nursery.start_soon(fake.play, 10.0)
        await made.until(lambda: made.live("trade:BTC-USDX", "book:BTC-USDX", "candle_1m:BTC-USDX"))
        await trio.sleep(100)
        names = {m.event.instrument for m in made.messages}
        assert names == {"BTC-USDX", *([NAME] if both else [])}
        assert sum(len(s.subscriptions) for s in fake.sockets) == 3
        copies = [t.id for t in made.events("trade:BTC-USDX", Trade)]
        assert len(copies) > 100
        if both:
            assert copies == [t.id for t in made.events(f"trade:{NAME}", Trade)]
        served = made.bus.topic("book", "binance", "BTC-USDX").book
        assert served is not None
        book = served()
        assert book is not None
        assert book.instrument == "BTC-USDX"
        assert made.events("book:BTC-USDX", BookDelta)
        made.check_sequence()
        nursery.cancel_scope.cancel()


class Shared:
    """Binance's codec, with liquidations and quotes of all instruments on one stream of each market."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def streams(self, channel: str, instrument: Instrument) -> list[Stream]:
        found: list[Stream] = list(self._codec.streams(channel, instrument))
        return [attrs.evolve(s, name="btcusdt@aggTrade") for s in found] if channel == "quote" else found


async def test_a_stream_that_serves_many_is_subscribed_once(autojump_clock: MockClock) -> None:
    venue = attrs.evolve(BINANCE, codec=Shared(BINANCE.codec), configure=as_declared)
    fake = BinanceFake()
    wanted = {"spot": {"BTC-USDT": ["trade", "quote"], "ETH-USDT": ["trade", "quote"], "SOL-USDT": ["quote"]}}
    endpoints = fake.endpoints()
    async with (
        trio.open_nursery() as nursery,
        rig(venue, fake, wanted, endpoints=endpoints, instruments_per_connection=1) as made,
    ):
        nursery.start_soon(fake.play, 10.0)
        await made.until(lambda: made.live("quote:SOL-USDT", "quote:ETH-USDT", "trade:BTC-USDT"))
        subscribed = [name for socket in fake.sockets for name in socket.subscriptions]
        assert sorted(subscribed) == ["btcusdt@aggTrade", "ethusdt@aggTrade"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("most", "carried"), [(1, 2), (2, 3), (None, 3)])
async def test_no_more_connections_than_the_venue_allows(
    most: int | None, carried: int, autojump_clock: MockClock
) -> None:
    feeds = [attrs.evolve(BINANCE.feed("spot"), streams_per_connection=2)]
    venue = attrs.evolve(BINANCE, feeds=tuple(feeds), max_connections=most, configure=as_declared)
    fake = BinanceFake()
    wanted = {"spot": {name: ["trade"] for name in ("BTC-USDT", "ETH-USDT", "SOL-USDT")}}
    async with (
        trio.open_nursery() as nursery,
        rig(venue, fake, wanted, endpoints=fake.endpoints(), instruments_per_connection=1) as made,
    ):
        nursery.start_soon(fake.play, 10.0)
        await trio.sleep(30)
        states = [made.state(f"trade:{name}") for name in wanted["spot"]]
        assert states.count(State.LIVE) == carried
        assert len(fake.sockets) == (3 if most is None else most)
        if carried < 3:
            (told,) = [s for s in made.events("trade:SOL-USDT", Status) if s.state is State.DOWN]
            assert "limit of 1 connections" in told.reason
        nursery.cancel_scope.cancel()
