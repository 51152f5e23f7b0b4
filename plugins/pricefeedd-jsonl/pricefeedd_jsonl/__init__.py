"""A record of what was served, one JSON text per line."""

from __future__ import annotations

from collections.abc import Sequence

from pricefeedd.hookspecs import Lanes, Sink, hookimpl
from pricefeedd_jsonl.settings import JsonlSettings


async def _run(settings: JsonlSettings, lanes: Lanes) -> None:
    from pricefeedd_jsonl.sink import Recorder  # late: compressors are loaded where they are used

    await Recorder(settings, lanes).run()


@hookimpl
def pricefeedd_sinks() -> Sequence[Sink]:
    """Bring the sink `jsonl`."""
    return [Sink(name="jsonl", api_version=1, settings=JsonlSettings, run=_run)]
