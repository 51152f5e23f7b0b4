"""The elector as pricefeedd runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import trio

from pricefeedd.hookspecs import Leadership
from pricefeedd_kubernetes.api import LeaseApi
from pricefeedd_kubernetes.candidate import Candidate
from pricefeedd_kubernetes.settings import KubernetesSettings


async def run(
    settings: KubernetesSettings, leadership: Leadership, environ: Mapping[str, str] = os.environ
) -> None:
    """Stand for election until cancelled, and then give the Lease back within a second.

    Raises:
        ConfigError: There is no way to an API server, or what is said of it cannot be used.
    """
    async with LeaseApi(settings, environ) as api, trio.open_nursery() as nursery:
        nursery.start_soon(api.keep_credentials, name="credentials")
        await Candidate(settings, leadership, api).run()
