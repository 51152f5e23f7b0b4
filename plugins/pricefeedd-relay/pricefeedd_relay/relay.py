"""The relay: a reader of messages, and beside it the upstream itself, for what the reader cannot bring."""

from __future__ import annotations

import trio

from pricefeedd.source import Inlet
from pricefeedd_relay.settings import RelaySettings


async def run(settings: RelaySettings, inlet: Inlet) -> None:
    """Deliver until cancelled."""
    async with trio.open_nursery() as nursery:
        if settings.upstream:
            from pricefeedd_relay.upstream import Upstream

            inlet.repairs = True
            nursery.start_soon(Upstream(settings, inlet).run, name="upstream")
        if settings.rabbitmq:
            from pricefeedd_relay.streams import StreamReader

            nursery.start_soon(StreamReader(settings, inlet).run, name="streams")
        else:
            from pricefeedd_relay.subscriber import Subscriber

            nursery.start_soon(Subscriber(settings, inlet).run, name="subscriber")
