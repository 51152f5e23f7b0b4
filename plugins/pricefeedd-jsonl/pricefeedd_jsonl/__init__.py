"""A record of what was served, one JSON text per line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pricefeedd.hookspecs import Lanes, Sink, hookimpl
from pricefeedd_jsonl.settings import JsonlSettings

if TYPE_CHECKING:
    from pricefeedd_jsonl.sink import Recorder


async def _run(settings: JsonlSettings, lanes: Lanes) -> None:
    await _load()(settings, lanes).run()


def _load() -> type[Recorder]:
    from pricefeedd_jsonl.sink import Recorder  # late: compressors are loaded where they are used

    return Recorder


@hookimpl
def pricefeedd_sinks() -> Sequence[Sink]:
    """Bring the sink `jsonl`."""
    return [Sink(name="jsonl", api_version=1, settings=JsonlSettings, run=_run, load=_load)]
