"""Rate budgets and retry delays, as plain state that is told the time."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pricefeedd.rest import RateSignal
from pricefeedd.venue import Budget


class Bucket:
    """One rate budget of a venue: refills steadily, and believes the venue's own count over ours."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._capacity = budget.capacity * (1 - budget.reserve)
        self._per_s = self._capacity / budget.per_s
        self._tokens = self._capacity
        self._at: float | None = None
        self._stopped_until = float("-inf")

    def take(self, cost: float, now: float) -> float:
        """Take `cost` and return 0, or take nothing and return the seconds to wait before asking again."""
        if now < self._stopped_until:
            return self._stopped_until - now
        if self._at is not None:
            self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        # A cost above the whole budget goes through when the budget is full: it can never be less.
        need = min(cost, self._capacity)
        if self._tokens >= need:
            self._tokens -= cost
            return 0.0
        return (need - self._tokens) / self._per_s

    def observe(self, signal: RateSignal) -> None:
        """Believe the venue where it counted more than we did."""
        if signal.used is not None:
            self._tokens = min(self._tokens, self._capacity - signal.used)
        if signal.remaining is not None:
            reserved = self.budget.capacity - self._capacity
            self._tokens = min(self._tokens, signal.remaining - reserved)

    def stop(self, seconds: float, now: float) -> None:
        """Take nothing more for a while: the venue said so."""
        self._stopped_until = max(self._stopped_until, now + seconds)

    @property
    def left(self) -> float:
        """What was left when last asked."""
        return self._tokens


def backoff(first_s: float = 0.5, max_s: float = 60.0) -> Iterator[float]:
    """Yield delays with full jitter under a doubling, capped ceiling, for ever."""
    ceiling = first_s
    while True:
        yield random.uniform(0.1 * ceiling, ceiling)
        ceiling = min(ceiling * 2, max_s)
