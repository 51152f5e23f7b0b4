"""Bybit for pricefeedd: spot, linear (USDT and USDC) and inverse market data, and private streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_bybit.venue import bybit


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Bybit."""
    return [bybit()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks Bybit's protocol."""
    from pricefeedd_bybit.testing import BybitFake  # late: the daemon never needs it

    return {"bybit": BybitFake}
