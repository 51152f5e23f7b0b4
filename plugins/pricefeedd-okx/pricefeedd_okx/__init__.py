"""OKX for pricefeedd: spot, linear and inverse swaps and futures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_okx.venue import okx


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring OKX."""
    return [okx()]


@hookimpl
def pricefeedd_fakes() -> Mapping[str, Callable[..., Any]]:
    """Bring the simulator that speaks OKX's protocol."""
    from pricefeedd_okx.testing import OkxFake  # late: the daemon never needs it

    return {"okx": OkxFake}
