"""Kraken for pricefeedd: spot market data by WebSocket v2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_kraken.venue import kraken


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Kraken."""
    return [kraken()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks Kraken's protocol."""
    from pricefeedd_kraken.testing import KrakenFake  # late: the daemon never needs it

    return {"kraken": KrakenFake}
