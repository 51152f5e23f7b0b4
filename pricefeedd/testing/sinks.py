"""A sink of a plugin behind the lanes that a daemon gives it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from pricefeedd.bus import Bus
from pricefeedd.config import build
from pricefeedd.events import Event
from pricefeedd.hookspecs import Sink, SinkReport
from pricefeedd.lanes import SinkLanes

#: Between two looks at what a sink says of itself: nothing tells when that changes.
_LOOK_S = 0.01


class RunningSink:
    """A sink that runs.

    Attributes:
        epoch: The life of the streams that its messages are numbered in.
        report: What the sink tells of itself.
    """

    def __init__(self, bus: Bus, lanes: SinkLanes) -> None:
        self._bus = bus
        self._lanes = lanes
        self._ended = trio.Event()
        self.epoch = bus.epoch
        self.report: SinkReport = lanes.report

    async def run(self) -> None:
        """Run it as the daemon does: whatever it raises is told in its report, and it begins anew."""
        await self._lanes.run()
        self._ended.set()

    def publish(self, *events: Event) -> None:
        """Let events happen: they are numbered, encoded, and wait in the lanes."""
        self._bus.publish(list(events))

    async def until(self, condition: Callable[[], object], *, within_s: float = 20.0) -> None:
        """Wait until something is true of the report, or of where the sink delivers to.

        Raises:
            trio.TooSlowError: It did not come true in time.
        """
        with trio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110  # see above
                await trio.sleep(_LOOK_S)

    async def end(self) -> None:
        """End the lanes as a daemon does that stops, and wait for the sink to return."""
        self._lanes.end()
        await self._ended.wait()


@asynccontextmanager
async def running_sink(sink: Sink, section: Mapping[str, Any], folder: Path) -> AsyncIterator[RunningSink]:
    """Run a sink on real lanes; what is left of it ends with the block.

    Args:
        section: The keys of `[sinks.NAME]`, as they would be in the file.
        folder: Where it finds its `state_dir`.

    Raises:
        ConfigError: The section is not good.
    """
    config = build(
        {"sinks": {sink.name: dict(section)}},
        venues={},
        sinks={sink.name: sink},
        electors={},
        environ={"STATE_DIRECTORY": str(folder)},
    )
    bus = Bus()
    running = RunningSink(bus, SinkLanes(bus, sink, config, config.sinks[sink.name]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run, name=f"sink:{sink.name}")
        yield running
        nursery.cancel_scope.cancel()
