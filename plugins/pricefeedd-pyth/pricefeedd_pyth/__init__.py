"""Pyth for pricefeedd: oracle prices from Hermes by Server-Sent Events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_pyth.venue import pyth


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Pyth."""
    return [pyth()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks Hermes' protocol."""
    from pricefeedd_pyth.testing import PythFake  # late: the daemon never needs it

    return {"pyth": PythFake}
