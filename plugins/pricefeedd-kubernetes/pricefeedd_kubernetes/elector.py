"""The elector as pricefeedd runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import structlog
import trio

from pricefeedd.errors import ConfigError
from pricefeedd.hookspecs import Leadership
from pricefeedd_kubernetes.api import LeaseApi
from pricefeedd_kubernetes.candidate import Candidate
from pricefeedd_kubernetes.settings import KubernetesSettings

log = structlog.get_logger("pricefeedd.leader.kubernetes")

#: Files that cannot be used are looked at again after so long.
_AGAIN_S = 5.0


async def run(
    settings: KubernetesSettings, leadership: Leadership, environ: Mapping[str, str] = os.environ
) -> None:
    """Stand for election until cancelled, and then give the Lease back within a second.

    Where there is no way to an API server, or what is said of it cannot be used, that is told and looked at again.
    """
    why = told = ""
    while True:
        try:
            async with LeaseApi(settings, environ) as api:
                await _stand(settings, leadership, api)
        except ConfigError as e:
            why = f"{e.source}: {'; '.join(e.problems)}"
        leadership.lost(why)
        if why != told:
            log.error("no way to the API server", reason=why)
        told = why
        await trio.sleep(_AGAIN_S)


async def _stand(settings: KubernetesSettings, leadership: Leadership, api: LeaseApi) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(api.keep_credentials, name="credentials")
        await Candidate(settings, leadership, api).run()
