"""Coinbase for pricefeedd: market data of Advanced Trade, spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_coinbase.venue import coinbase


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Coinbase."""
    return [coinbase()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks Coinbase's protocol."""
    from pricefeedd_coinbase.testing import CoinbaseFake  # late: the daemon never needs it

    return {"coinbase": CoinbaseFake}
