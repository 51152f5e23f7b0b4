"""ZeroMQ for pricefeedd: a sink that publishes, and a proxy that brings several publishers together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pricefeedd.hookspecs import Command, Lanes, Sink, hookimpl
from pricefeedd_zmq.settings import ZmqSettings

if TYPE_CHECKING:
    from pricefeedd_zmq.sink import Publisher


async def _run(settings: ZmqSettings, lanes: Lanes) -> None:
    await _load()(settings, lanes).run()


def _load() -> type[Publisher]:
    from pricefeedd_zmq.sink import Publisher  # late: ZeroMQ is loaded where it is used

    return Publisher


def _zmq_proxy() -> Any:
    from pricefeedd_zmq.command import zmq_proxy  # late: see above

    return zmq_proxy


@hookimpl
def pricefeedd_sinks() -> Sequence[Sink]:
    """Bring the sink `zmq`."""
    return [Sink(name="zmq", api_version=1, settings=ZmqSettings, run=_run, load=_load)]


@hookimpl
def pricefeedd_commands() -> Sequence[Command]:
    """Bring `pricefeedd zmq-proxy`."""
    return [
        Command(
            name="zmq-proxy",
            api_version=1,
            help="Take what several publishers push, and publish it at one address.",
            load=_zmq_proxy,
        )
    ]
