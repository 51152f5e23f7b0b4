"""What `/status` says of how fast and how well a market is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pricefeedd.health import health_score
from pricefeedd.histogram import LATENCY_BUCKETS_S, PROCESSING_BUCKETS_S, quantile
from pricefeedd.stats import MarketStats


def latency(market: MarketStats, now_ns: int) -> dict[str, Any]:
    """Return the latencies of the last minute in ms, how far the venue's clock is ahead at least, and the health."""
    lately = market.lately(now_ns)
    least_ns = market.offset.least_ns
    return {
        "venue_ms": _spread(lately.venue, LATENCY_BUCKETS_S),
        "publish_ms": _spread(lately.published, PROCESSING_BUCKETS_S),
        "sent_ms": _spread(lately.sent, PROCESSING_BUCKETS_S),
        "clock_offset_ms": None if least_ns is None else round(least_ns / 1e6, 3),
        "health": health_score(market, now_ns),
    }


def _spread(counts: Sequence[int], bounds_s: Sequence[float]) -> dict[str, float] | None:
    half, most = quantile(0.5, counts, bounds_s), quantile(0.99, counts, bounds_s)
    if half is None or most is None:
        return None
    return {"p50": round(half * 1e3, 3), "p99": round(most * 1e3, 3)}
