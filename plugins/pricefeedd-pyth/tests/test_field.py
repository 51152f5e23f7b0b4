"""Bugs that others have had in the field, held against this venue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import trio
from trio.testing import MockClock

from pricefeedd.events import Candle, Price, State
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_pyth.testing import PythFake
from pricefeedd_pyth.venue import pyth

VENUE = pyth()
FEED = VENUE.feed("oracle")
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
RECEIVED_NS = 1_790_373_640_000_000_000
MINUTE_NS = 60_000_000_000


@asynccontextmanager
async def at_work(
    *wanted: str, channels: Sequence[str] = ("price",), rate: float = 2.5, **options: Any
) -> AsyncIterator[tuple[PythFake, Rig, trio.CancelScope]]:
    """Run the pipeline against a fake whose prices move."""
    listings = [listing for listing in PythFake.default_listings() if listing.name in wanted]
    fake = PythFake(Market(listings), history_minutes=10, **options)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    subscribe = {"oracle": {name: list(channels) for name in wanted}}
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(play)
        yield fake, made, playing
        nursery.cancel_scope.cancel()


def say(frame: bytes) -> list[Any]:
    return list(VENUE.codec.decode(frame, feed=FEED, names={BTC: "BTC-USD"}, received_ns=RECEIVED_NS))


# --- Connection life --------------------------------------------------------------------------------------


async def test_a_first_event_that_never_comes(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD") as (fake, made, _):
        fault = fake.faults.silent_route()
        await trio.sleep(60)
        assert not made.live("price:BTC-USD")
        fault.lift()
        await made.until(lambda: made.live("price:BTC-USD"))


async def test_a_handshake_that_is_never_answered(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD") as (fake, made, _):
        fault = fake.faults.late_reply("/hermes/v2/updates/price/stream")
        await trio.sleep(60)
        assert "handshake" in made.market("oracle").last_error
        fault.lift()
        await made.until(lambda: made.live("price:BTC-USD"))


async def test_refused_for_minutes_and_then_admitted(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD") as (fake, made, _):
        await made.until(lambda: made.live("price:BTC-USD"))
        fault = fake.faults.refuse()
        fake.faults.cut()
        await made.until(lambda: made.state("price:BTC-USD") is State.DOWN)
        fault.lift()
        await made.until(lambda: made.live("price:BTC-USD"))


# --- Subscriptions ----------------------------------------------------------------------------------------


async def test_one_bad_feed_does_not_drop_the_rest(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD", "EUR-USD", "AAPL-USD") as (fake, made, _):
        fake.vanished.add(fake.id_of("EUR-USD"))
        await made.until(lambda: made.live("price:BTC-USD", "price:AAPL-USD"))
        await made.until(lambda: made.state("price:EUR-USD") is State.DOWN, within_s=30)


async def test_an_unknown_feed_fails_and_does_not_hang(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD", "NOPE-USD") as (_, made, _):
        await made.until(lambda: made.state("price:NOPE-USD") is State.DOWN, within_s=30)
        await made.until(lambda: made.live("price:BTC-USD"))


async def test_feeds_are_found_by_their_id(autojump_clock: MockClock) -> None:
    fake = PythFake()
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, {"oracle": {BTC: ["price"]}}, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(fake.play, 5.0)
        await made.until(lambda: made.live("price:BTC-USD"))
        nursery.cancel_scope.cancel()


# --- Events -----------------------------------------------------------------------------------------------


async def test_a_burst_of_events_in_one_read(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD") as (fake, made, playing):
        await made.until(lambda: made.live("price:BTC-USD"))
        playing.cancel()
        await trio.sleep(1)
        stalled = fake.faults.stall()
        for _ in range(15):
            await trio.sleep(0.5)
            fake.step()
        stalled.lift()
        await trio.sleep(3)
        got = [price.price for price in made.events("price:BTC-USD", Price)]
        assert got == list(fake.told_prices("BTC-USD"))[-len(got) :]


async def test_an_unfinished_event_is_thrown_away(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD") as (fake, made, _):
        await made.until(lambda: made.live("price:BTC-USD"))
        for socket in fake.sockets:
            socket.send_raw(b'10\r\ndata:{"parsed":[\r\n')
        fake.faults.half_close()
        await trio.sleep(30)
        assert made.live("price:BTC-USD")
        assert made.market("oracle").decode_errors == 0


def test_tiny_prices_have_no_exponent() -> None:
    price = {"price": "12", "conf": "1", "expo": -10, "publish_time": 1714748300}
    frame = b"data:" + orjson.dumps({"parsed": [{"id": BTC, "price": price}]})
    assert (say(frame)[1].price, say(frame)[1].conf) == ("0.0000000012", "0.0000000001")


def test_seconds_become_nanoseconds_and_our_time_never_stands_for_the_venues() -> None:
    price = {"price": "12", "conf": "1", "expo": 0, "publish_time": 1714748300}
    found = say(b"data:" + orjson.dumps({"parsed": [{"id": BTC, "price": price}]}))[1]
    assert (found.venue_time_ns, found.received_ns) == (1_714_748_300_000_000_000, RECEIVED_NS)


# --- Candles ----------------------------------------------------------------------------------------------


async def test_a_minute_that_was_not_seen_whole_comes_from_history(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD", channels=("price", "candle_1m")) as (fake, made, _):
        for _ in range(4):
            await trio.sleep(35)
            fake.faults.cut()
        await trio.sleep(150)
        closed = [c for c in made.events("candle_1m:BTC-USD", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        truth = {c.start_ns: c for c in fake.told_candles("BTC-USD")}
        for candle in closed:
            told = truth[candle.start_ns]
            assert [float(x) for x in (candle.open, candle.high, candle.low, candle.close)] == [
                float(x) for x in (told.open, told.high, told.low, told.close)
            ]


async def test_a_minute_is_told_as_closed_once(autojump_clock: MockClock) -> None:
    async with at_work("BTC-USD", channels=("candle_1m",)) as (_, made, _):
        await trio.sleep(250)
        over = 0
        for candle in made.events("candle_1m:BTC-USD", Candle):
            assert candle.start_ns > over
            if candle.closed:
                over = candle.start_ns
        assert over
