"""Leader election by PostgreSQL: an advisory lock, and a row with the fence that each new leader raises."""

from __future__ import annotations

from pricefeedd.hookspecs import Elector, Leadership, hookimpl
from pricefeedd.venue import NoSettings


async def _run(settings: NoSettings, leadership: Leadership) -> None:
    """Stand for election until cancelled."""
    raise NotImplementedError


@hookimpl
def pricefeedd_electors() -> list[Elector]:
    """Return the elector."""
    return [Elector(name="postgres", api_version=1, run=_run)]
