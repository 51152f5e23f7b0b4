"""Hyperliquid for pricefeedd: perpetuals (`linear`) and spot market data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_hyperliquid.venue import hyperliquid


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Hyperliquid."""
    return [hyperliquid()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks Hyperliquid's protocol."""
    from pricefeedd_hyperliquid.testing import HyperliquidFake  # late: the daemon never needs it

    return {"hyperliquid": HyperliquidFake}
