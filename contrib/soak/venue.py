"""A simulated Binance that tells so many messages a second, and does wrong what it is told to, by lines on stdin.

It prints `{"endpoints": ...}` once it listens, and a line of JSON for each request; it ends when its stdin does.

    {"do": "truth"}                     answers the last trade's id of each instrument, and how many messages were sent
    {"do": "cut"}                       and other faults, see `_FAULTS`; those that last take `seconds`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from pricefeedd.instruments import Kind
from pricefeedd.testing.faults import Fault
from pricefeedd.testing.listing import Listing
from pricefeedd.testing.market import Market
from pricefeedd_binance.testing import BinanceFake

#: Four instruments share all messages, so that each stream is a busy one.
LISTINGS = (
    Listing(market="spot", base="BTC", quote="USDT", price="60000.00", tick="0.01", lot="0.00001"),
    Listing(market="spot", base="ETH", quote="USDT", price="2500.00", tick="0.01", lot="0.0001"),
    Listing(market="spot", base="SOL", quote="USDT", price="150.00", tick="0.01", lot="0.001"),
    Listing(
        market="linear",
        base="BTC",
        quote="USDT",
        kind=Kind.PERPETUAL,
        price="60010.0",
        tick="0.1",
        lot="0.001",
    ),
)
#: Trades and deltas remembered per instrument: what REST gives out after a cut, and no more.
KEEP = 20_000


class Venue(BinanceFake):
    """Sends as many messages as asked, however many its market makes of a step."""

    def __init__(self) -> None:
        super().__init__(
            Market(LISTINGS, keep=KEEP), history_minutes=30, spot_weight=1_000_000, futures_weight=1_000_000
        )
        self.sent = 0

    def publish(self, stream: str, payload: Any, *, scope: str = "") -> int:
        """Count, and publish."""
        count = super().publish(stream, payload, scope=scope)
        self.sent += count
        return count

    async def play_at(self, messages_per_s: float) -> None:
        """Tell so many messages a second, less while nobody is connected; trade on all the same."""
        self.begin()
        turn_s = 0.01
        names = list(self.market.listings)
        # A step makes at least one message on average; while nobody listens that many steps go on.
        most = max(1, round(messages_per_s * turn_s))
        owed, number = 0.0, 0
        due = trio.current_time()
        while True:
            due = max(due + turn_s, trio.current_time() - 0.1)
            await trio.sleep_until(due)
            owed = min(owed + messages_per_s * turn_s, messages_per_s * 0.1)
            for event in self.market.turn(self.now_ns()):
                self.tell(event)
            before = self.sent
            for _ in range(most):
                if self.sent - before >= owed:
                    break
                number += 1
                self.step(names=(names[number % len(names)],))
            owed -= self.sent - before

    def truth(self) -> dict[str, Any]:
        """Return what a reader must have at the end."""
        return {
            "sent": self.sent,
            "last": {name: self.market.trades(name)[-1].id for name in self.market.listings},
        }


def _lasting(make: Callable[..., Fault], **more: Any) -> Callable[..., Any]:
    async def last(seconds: float) -> None:
        with make(**more):
            await trio.sleep(seconds)

    return last


def faults(venue: Venue) -> dict[str, Callable[..., Any]]:
    """Return what it can do wrong, by name: each ends by itself."""
    made = venue.faults

    def at_once(deed: Callable[..., object], *arguments: Any, **more: Any) -> Callable[..., Any]:
        async def act(seconds: float) -> None:
            deed(*arguments, **more)

        return act

    async def away(seconds: float) -> None:
        with made.refuse():
            made.cut()
            await trio.sleep(seconds)

    return {
        "cut": at_once(made.cut),
        "close": at_once(made.close),
        "half_close": at_once(made.half_close),
        "garbage": at_once(made.garbage),
        "nonsense": at_once(made.message, '{"e":"nonsense"}'),
        "ping_flood": at_once(made.ping_flood, 200),
        "drop": at_once(made.drop, 20),
        "duplicate": at_once(made.duplicate, 50),
        "reorder": at_once(made.reorder, 20),
        "away": away,
        "stall": _lasting(made.stall),
        "slow_rest": _lasting(made.late_reply, seconds=3.0),
        "rest_down": _lasting(made.rest_status, status=503),
        "slow_drip": _lasting(made.slow_drip, size=2_000),
        "fragment": _lasting(made.fragment, size=64),
    }


async def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rate", type=float, default=2000.0, help="messages a second, of all streams together"
    )
    args = parser.parse_args()
    venue = Venue()
    deeds = faults(venue)
    async with trio.open_nursery() as nursery:
        await nursery.start(venue.run)
        nursery.start_soon(venue.play_at, args.rate)
        say({"endpoints": venue.endpoints()})
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            asked = json.loads(line)
            what = asked.pop("do")
            if what == "truth":
                say(venue.truth())
            else:
                nursery.start_soon(partial(deeds[what], **asked), name=what)
                say({"did": what})
        nursery.cancel_scope.cancel()


def say(facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    trio.run(main)
