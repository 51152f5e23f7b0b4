"""Counts by bucket, what changed in them lately, and the quantiles of that."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

#: Upper bounds of the buckets of what takes a network, seconds; the last bucket has none.
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
#: The same of what takes only us.
PROCESSING_BUCKETS_S = (
    *(0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)


class Histogram:
    """Counts by bucket, as Prometheus wants them.

    Attributes:
        bounds_s: Upper bounds of the buckets; the last bucket has none.
        counts: By bucket; not cumulative.
        total_ns: Sum of all values.
    """

    __slots__ = ("_bounds_ns", "bounds_s", "counts", "total_ns")

    def __init__(self, bounds_s: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self.bounds_s = bounds_s
        self._bounds_ns = [round(bound * 1e9) for bound in bounds_s]
        self.counts = [0] * (len(bounds_s) + 1)
        self.total_ns = 0

    @property
    def total_s(self) -> float:
        """Sum of all values."""
        return self.total_ns / 1e9

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.observe_ns(int(seconds * 1e9))

    def observe_ns(self, ns: int, times: int = 1) -> None:
        """Count a value so many times: once for each of the messages that came together."""
        self.counts[bisect_left(self._bounds_ns, ns)] += times
        self.total_ns += ns * times


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bound, as the exposition format wants them."""
    bounds = [*map(str, histogram.bounds_s), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))


def merged(histograms: Iterable[Histogram], bounds_s: Sequence[float] = LATENCY_BUCKETS_S) -> list[int]:
    """Return the counts by bucket of several histograms of the same bounds together."""
    counts = [0] * (len(bounds_s) + 1)
    for histogram in histograms:
        counts = list(map(sum, zip(counts, histogram.counts, strict=True)))
    return counts


def quantile(share: float, counts: Sequence[int], bounds_s: Sequence[float]) -> float | None:
    """Return the value that this share of the values does not exceed, seconds; None if there are no values.

    Within a bucket values count as spread evenly, as Prometheus has it; beyond the last bound there is only that.

    Args:
        counts: By bucket; not cumulative.
        bounds_s: Upper bounds of all buckets but the last.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below = 0
    for (lower, upper), count in zip(pairwise((0.0, *bounds_s)), counts, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below += count
    return bounds_s[-1]
