"""RabbitMQ as a sink: a topic exchange, a queue for each kind of event, and nothing of accounts is lost."""

from __future__ import annotations

from collections.abc import Sequence

from pricefeedd.hookspecs import Lanes, Sink, hookimpl
from pricefeedd_rabbitmq.settings import RabbitSettings


async def _run(settings: RabbitSettings, lanes: Lanes) -> None:
    from pricefeedd_rabbitmq.sink import RabbitSink  # late: pika is loaded where it is used

    await RabbitSink(settings, lanes).run()


@hookimpl
def pricefeedd_sinks() -> Sequence[Sink]:
    """Bring the sink `rabbitmq`."""
    return [Sink(name="rabbitmq", api_version=1, settings=RabbitSettings, run=_run, keeps=True)]
