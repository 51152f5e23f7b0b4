"""BingX for pricefeedd: spot and perpetual swaps (`linear`) market data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_bingx.venue import bingx


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring BingX."""
    return [bingx()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks BingX's protocol."""
    from pricefeedd_bingx.testing import BingxFake  # late: the daemon never needs it

    return {"bingx": BingxFake}
