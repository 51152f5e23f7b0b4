"""Acme for pricefeedd: spot trades and order books."""

from __future__ import annotations

from collections.abc import Sequence

from pricefeedd.hookspecs import hookimpl
from pricefeedd.venue import Venue
from pricefeedd_acme.venue import ACME


@hookimpl
def pricefeedd_venues() -> Sequence[Venue]:
    """Bring Acme."""
    return [ACME]
