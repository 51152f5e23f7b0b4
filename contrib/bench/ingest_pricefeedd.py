"""Contestant: pricefeedd from the socket to the event on the bus, through the real venue runtime.

That includes what the others leave out: each event passes the gate that removes duplicates and finds holes,
is numbered, and is kept as the topic's newest. The variant `reader` adds one reader of everything, whose
messages are encoded as JSON and framed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import trio
from meter import Meter, arguments
from sender import instruments

from pricefeedd import wire
from pricefeedd.bus import Bus
from pricefeedd.config import SubscribeConfig, VenueConfig
from pricefeedd.events import Event, Status
from pricefeedd.instruments import Directory
from pricefeedd.mailbox import Mailbox
from pricefeedd.runtime import Surroundings, VenueRuntime
from pricefeedd.stats import Stats
from pricefeedd.topic import Pattern
from pricefeedd.transport import NetworkDialer
from pricefeedd_binance import pricefeedd_venues


class MeteredBus(Bus):
    """A bus that counts what was published and delivered, once per batch."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter
        self.all_there = trio.Event()
        self._heading = True

    def publish(self, events: Iterable[Event], *, flush: bool = True) -> None:
        """Publish, flush, count."""
        batch = list(events)
        super().publish(batch, flush=flush)
        if self._heading:
            # Before the first trade the venue's runtime speaks of the topics themselves.
            self._heading = isinstance(batch[0], Status)
        if not self._heading:
            self.meter.add(len(batch))
            if self.meter.done:
                self.all_there.set()


async def main() -> None:
    """Receive all messages."""
    args = arguments(__doc__ or "")
    venue = pricefeedd_venues()[0]
    base = f"127.0.0.1:{args.port}"
    config = VenueConfig(
        name="binance",
        plugin="binance",
        subscribe=(
            SubscribeConfig(
                market="spot", instruments=tuple(instruments(args.instruments)), channels=("trade", "quote")
            ),
        ),
        endpoints={"spot_ws": f"ws://{base}", "spot_rest": f"http://{base}"},
        settings=venue.settings(),
    )
    bus = MeteredBus(Meter(args.messages))
    if args.variant == "reader":

        def flush() -> None:
            for message in mailbox.take():
                assert message.frame_in(wire.NATIVE)

        mailbox: Mailbox = bus.mailbox(limit_bytes=1 << 24, flush=flush)
        bus.subscribe(mailbox, Pattern("*:*:*"))
    async with NetworkDialer(now_ns=time.time_ns) as dialer, trio.open_nursery() as nursery:
        around = Surroundings(
            bus=bus,
            directory=Directory(),
            stats=Stats(started_ns=time.time_ns()),
            dialer=dialer,
            now_ns=time.time_ns,
        )
        nursery.start_soon(VenueRuntime(venue, config, around).run)
        await bus.all_there.wait()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
