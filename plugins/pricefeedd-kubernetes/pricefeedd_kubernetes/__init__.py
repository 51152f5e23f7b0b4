"""Leader election by a Lease of Kubernetes."""

from __future__ import annotations

from pricefeedd.hookspecs import Elector, Leadership, hookimpl
from pricefeedd_kubernetes.settings import KubernetesSettings


async def _run(settings: KubernetesSettings, leadership: Leadership) -> None:
    from pricefeedd_kubernetes.elector import run  # late: httpx is loaded where it is used

    await run(settings, leadership)


@hookimpl
def pricefeedd_electors() -> list[Elector]:
    """Return the elector."""
    return [Elector(name="kubernetes", api_version=1, settings=KubernetesSettings, run=_run)]
