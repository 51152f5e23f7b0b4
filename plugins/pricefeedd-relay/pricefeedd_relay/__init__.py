"""Another pricefeedd as a source: the same topics, epoch and numbers, for more readers."""

from __future__ import annotations

from collections.abc import Sequence

from pricefeedd.hookspecs import hookimpl
from pricefeedd.source import Inlet, Source
from pricefeedd_relay.settings import RelaySettings


async def _run(settings: RelaySettings, inlet: Inlet) -> None:
    from pricefeedd_relay.relay import run  # late: pika and ZeroMQ are loaded where they are used

    await run(settings, inlet)


@hookimpl
def pricefeedd_sources() -> Sequence[Source]:
    """Bring the source `relay`."""
    return [Source(name="relay", api_version=1, settings=RelaySettings, run=_run)]
