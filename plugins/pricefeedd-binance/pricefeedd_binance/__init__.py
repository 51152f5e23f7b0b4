"""Binance for pricefeedd: spot, USDⓈ-M (`linear`) and COIN-M (`inverse`) market data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_binance.venue import binance


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Binance."""
    return [binance()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks Binance's protocol."""
    from pricefeedd_binance.testing import BinanceFake  # late: the daemon never needs it

    return {"binance": BinanceFake}
