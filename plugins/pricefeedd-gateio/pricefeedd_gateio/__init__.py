"""Gate for pricefeedd: spot and perpetual futures (`linear`, `inverse`) market data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_gateio.venue import gateio


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Gate."""
    return [gateio()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks Gate's protocol."""
    from pricefeedd_gateio.testing import GateioFake  # late: the daemon never needs it

    return {"gateio": GateioFake}
