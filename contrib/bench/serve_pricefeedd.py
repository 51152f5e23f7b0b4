"""Contestant: a daemon of pricefeedd without venues. A task beside its web edge publishes to its bus.

The events are made as a venue's codec makes them, and the bus numbers, keeps, encodes and frames them.
"""

from __future__ import annotations

import math
import time

import trio
from serving import (
    INSTRUMENT,
    VENUE,
    Flow,
    announce,
    arguments,
    listen_to_the_bench,
    price,
)

from pricefeedd import logs
from pricefeedd.bus import Bus
from pricefeedd.config import Config, WebConfig
from pricefeedd.events import Side, Trade
from pricefeedd.loader import Plugins
from pricefeedd.service import Daemon


class Venue:
    """Makes the trades of one topic."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._number = 0
        bus.topic(Trade.channel, VENUE, INSTRUMENT)  # readers may come before the first trade

    def publish(self, count: int) -> None:
        """Publish so many new trades, one batch."""
        self._bus.publish([self._next() for _ in range(count)])

    def _next(self) -> Trade:
        self._number = number = self._number + 1
        now_ns = time.time_ns()
        return Trade(
            venue=VENUE,
            instrument=INSTRUMENT,
            venue_time_ns=now_ns,
            received_ns=now_ns,
            id=str(number),
            price=price(number),
            size="0.01520000",
            aggressor=Side.BUY,
        )


async def main() -> None:
    """Serve until the bench ends us."""
    args = arguments(__doc__ or "")
    logs.configure("warning")
    web = WebConfig(listen=("127.0.0.1:0",), client_queue_bytes=args.queue_bytes)
    daemon = Daemon(Config(web=web), Plugins([]))
    venue = Venue(daemon.bus)
    token = trio.lowlevel.current_trio_token()
    told, lines = trio.open_memory_channel[str | None](
        math.inf
    )  # one line waits at most: the bench takes turns
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(_run, daemon)
        listen_to_the_bench(lambda line: token.run_sync_soon(told.send_nowait, line))
        announce(int(binds[0].rpartition(":")[2]))
        while (line := await lines.receive()) is not None:
            flow = Flow(line)
            for wait_s, count in flow.batches():
                await trio.sleep(wait_s)
                venue.publish(count)
            flow.report()
        daemon.stop()


async def _run(daemon: Daemon, task_status: trio.TaskStatus[list[str]]) -> None:
    await daemon.run(task_status=task_status)


if __name__ == "__main__":
    trio.run(main)
