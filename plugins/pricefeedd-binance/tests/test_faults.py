"""Faults that only Binance has; those of every venue are the conformance kit's."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from pricefeedd.events import Quote, State
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance


async def _flows(made: Rig, *topics: str) -> None:
    await made.until(lambda: made.live(*topics) and all(len(made.topic(topic)) > 3 for topic in topics))


async def test_wrong_route_is_told_and_left(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Acked and silent for ever: readers are told `stale`, and other markets do not notice."""
    fake = BinanceFake(history_minutes=30)
    subscribe: dict[str, Any] = {"spot": {"BTC-USDT": ["quote"]}, "inverse": {"BTC-USD-PERP": ["quote"]}}
    async with rig(binance(), fake, subscribe, endpoints=fake.endpoints()) as made:
        nursery.start_soon(fake.play, 20.0)
        await _flows(made, "quote:BTC-USDT", "quote:BTC-USD-PERP")
        fake.faults.silent_route("/inverse/public")
        fake.faults.cut("/inverse")
        await made.until(lambda: made.state("quote:BTC-USD-PERP") is State.STALE)
        # The un-routed path is tried next, and brings data.
        await made.until(lambda: made.live("quote:BTC-USD-PERP"))
        count = len(made.events("quote:BTC-USD-PERP", Quote))
        await made.until(lambda: len(made.events("quote:BTC-USD-PERP", Quote)) > count)
        assert made.states("quote:BTC-USDT") == [State.CONNECTING, State.LIVE]
        nursery.cancel_scope.cancel()


async def test_one_market_that_is_away_hurts_no_other(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Each market has hosts of its own: what is refused on one is neither told nor waited for on the others."""
    fake = BinanceFake(history_minutes=30)
    channels = ["trade", "quote", "book"]
    subscribe: dict[str, Any] = {"spot": {"BTC-USDT": channels}, "linear": {"BTC-USDT-PERP": channels}}
    topics = [f"{channel}:{name}" for channel in channels for name in ("BTC-USDT", "BTC-USDT-PERP")]
    async with rig(binance(), fake, subscribe, endpoints=fake.endpoints()) as made:
        nursery.start_soon(fake.play, 20.0)
        await _flows(made, *topics)
        with fake.faults.refuse("/linear", status=503):
            fake.faults.cut("/linear")
            await made.until(lambda: made.state("trade:BTC-USDT-PERP") is State.DOWN)
            await trio.sleep(60)
        await made.until(lambda: made.live(*topics))
        for channel in channels:
            assert made.states(f"{channel}:BTC-USDT") == [State.CONNECTING, State.LIVE]
        assert made.market("spot").circuit_state == "closed"
        nursery.cancel_scope.cancel()
