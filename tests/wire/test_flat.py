"""Hours of quiet markets leave tasks, objects and memory as they were."""

from __future__ import annotations

import gc

import trio
from trio.testing import MockClock

from pricefeedd.testing.market import Market, many_listings
from pricefeedd.testing.rig import rig
from pricefeedd_binance import pricefeedd_venues
from pricefeedd_binance.testing import BinanceFake

(VENUE,) = pricefeedd_venues()


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def _objects() -> int:
    """Count what the collector tracks, without the simulated market, which remembers its past on purpose."""
    gc.collect()
    return sum(
        1 for thing in gc.get_objects() if not str(type(thing).__module__).startswith("pricefeedd.testing")
    )


async def test_two_hours_with_200_quiet_instruments(autojump_clock: MockClock) -> None:
    listings = many_listings(200, market="spot")
    names = [listing.name for listing in listings]
    fake = BinanceFake(Market(listings, depth=5, keep=100), history_minutes=10)
    busy = tuple(names[::50])  # one on each connection
    subscribe = {"spot": {name: ["trade", "quote", "book"] for name in names}}
    subscribe["spot"][names[0]] = ["trade", "quote", "book", "candle_1m"]
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as r:

        async def pass_time(seconds: int) -> None:
            for _ in range(seconds // 30):
                await trio.sleep(30)
                fake.step(names=busy)
                r.forget()

        await pass_time(1800)
        assert all(topic.book is None or topic.book() is not None for topic in r.bus)
        tasks, objects = _tasks(), _objects()
        await pass_time(7200)
        assert _tasks() == tasks
        # Caches fill and counters grow out of the small integers; a leak of one object per instrument and
        # minute would be 24 000.
        assert _objects() - objects < 2_000
        assert r.market("spot").connections == len(r.runtime.connections)
