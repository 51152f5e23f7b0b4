"""Market data without a daemon: `async with pricefeedd.stream("binance", ["BTC-USDT"]) as events: ...`.

The same sessions, gates and books as in the daemon run in the caller's own process, for as long as the
block lasts.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from pricefeedd.backfill import RestTap
from pricefeedd.bus import Bus
from pricefeedd.config import Config, build
from pricefeedd.errors import leaves
from pricefeedd.events import Event
from pricefeedd.instruments import Directory
from pricefeedd.lanes import Lanes
from pricefeedd.loader import Plugins, load_plugins
from pricefeedd.message import Message
from pricefeedd.runtime import Surroundings, VenueRuntime
from pricefeedd.session import Tap
from pricefeedd.stats import Stats
from pricefeedd.transport import Dialer, NetworkDialer
from pricefeedd.venue import Venue

#: Bytes of events that wait for a slow caller; past that the oldest go, and a `Gap` says so.
WAITING_BYTES = 16 << 20


class Events:
    """What a venue sends, as an async iterator of events in order.

    Attributes:
        runtime: The venue at work.
        stats: What it counts.
    """

    def __init__(self, bus: Bus, runtime: VenueRuntime, stats: Stats) -> None:
        self.runtime = runtime
        self.stats = stats
        self._lanes = Lanes(bus, ["*:*:*"], limit_bytes=WAITING_BYTES)
        self._ready: list[Event] = []

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; waits for ever if none comes."""
        while not self._ready:
            self._ready = [m.event for m in reversed(await self._lanes.receive()) if isinstance(m, Message)]
        await trio.lowlevel.checkpoint()
        return self._ready.pop()


def venue_config(
    plugins: Plugins,
    venue: str,
    instruments: Sequence[str],
    channels: Sequence[str],
    *,
    market: str,
    environ: Mapping[str, str],
) -> Config:
    """Return a configuration that serves one venue and has no file; the environment still counts.

    Raises:
        ConfigError: The venue, market or channel does not exist.
        PluginError: The venue's plugin is broken.
    """
    plugins.require("venue", venue)
    tree: dict[str, Any] = {
        "venues": {
            venue: {
                "subscribe": [
                    {"market": market, "instruments": list(instruments), "channels": list(channels)}
                ]
            }
        }
    }
    return build(
        tree,
        venues=plugins.venues,
        sinks=plugins.sinks,
        electors=plugins.electors,
        environ=environ,
        source="arguments",
    )


def default_market(venue: Venue) -> str:
    """Return the market that is meant when none is named: spot where there is one."""
    return "spot" if "spot" in venue.markets else venue.markets[0]


@asynccontextmanager
async def stream(
    venue: str,
    instruments: Sequence[str],
    *,
    channel: str | Sequence[str] = "trade",
    market: str | None = None,
    dialer: Dialer | None = None,
    now_ns: Callable[[], int] = time.time_ns,
    tap: Tap | None = None,
    rest_tap: RestTap | None = None,
) -> AsyncIterator[Events]:
    """Read a venue in this process.

    Events are what readers of the daemon get: in order, without duplicates, with holes filled, and with
    `Status` and `Gap` in between. Endpoints can be overridden in the environment as for the daemon
    (`PRICEFEEDD__VENUES__BINANCE__ENDPOINTS__SPOT_WS`).

    Args:
        instruments: Our names or the venue's symbols.
        channel: One channel, or several.
        market: `spot`, `linear`, ...; spot where the venue has it.

    Raises:
        ConfigError: The venue, market or channel does not exist.
        PluginError: The venue's plugin is not installed or broken.
    """
    plugins = load_plugins()
    plugins.require("venue", venue)
    channels = [channel] if isinstance(channel, str) else list(channel)
    config = venue_config(
        plugins,
        venue,
        instruments,
        channels,
        market=market or default_market(plugins.venues[venue]),
        environ=os.environ,
    )
    bus = Bus()
    stats = Stats(started_ns=now_ns())
    try:
        async with NetworkDialer(now_ns=now_ns) as network, trio.open_nursery() as nursery:
            around = Surroundings(
                bus=bus,
                directory=Directory(),
                stats=stats,
                dialer=dialer or network,
                now_ns=now_ns,
                tap=tap,
                rest_tap=rest_tap,
            )
            runtime = VenueRuntime(plugins.venues[venue], config.venues[venue], around)
            nursery.start_soon(runtime.run, name=f"venue:{venue}")
            yield Events(bus, runtime, stats)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours alone: what went wrong in the caller's block comes out as it went in.
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise
