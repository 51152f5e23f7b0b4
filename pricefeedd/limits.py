"""Rate budgets and retry delays, as plain state that is told the time."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

from pricefeedd.rest import RateSignal
from pricefeedd.venue import Budget


class Bucket:
    """One rate budget of a venue: within any `per_s` seconds no more is taken than the budget allows.

    What was taken comes back `per_s` seconds later, and not little by little: a budget that refills steadily
    lets nearly twice its capacity through in the first window, which venues answer with a ban. Where the
    venue's own count says more than ours, the venue is believed.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._capacity = budget.capacity * (1 - budget.reserve)
        self._used = 0.0
        self._spent: deque[tuple[float, float]] = deque()  # when it comes back, and how much
        self._stopped_until = float("-inf")

    def take(self, cost: float, now: float) -> float:
        """Take `cost` and return 0, or take nothing and return the seconds to wait before asking again."""
        if now < self._stopped_until:
            return self._stopped_until - now
        self._return(now)
        # A cost above the whole budget goes through when the budget is full: it can never be less.
        need = min(cost, self._capacity)
        excess = self._used + need - self._capacity
        if excess <= 1e-9:
            self._spend(cost, now + self.budget.per_s)
            return 0.0
        for back_at, amount in self._spent:
            excess -= amount
            if excess <= 1e-9:
                return back_at - now
        return self._spent[-1][0] - now

    def observe(self, signal: RateSignal, now: float) -> None:
        """Believe the venue where it counted more than we did."""
        self._return(now)
        counted = max(
            signal.used or 0.0,
            0.0 if signal.remaining is None else self.budget.capacity - signal.remaining,
        )
        if counted > self._used:
            reset_s = self.budget.per_s if signal.reset_after_s is None else signal.reset_after_s
            self._spend(counted - self._used, now + min(reset_s, self.budget.per_s))

    def stop(self, seconds: float, now: float) -> None:
        """Take nothing more for a while: the venue said so."""
        self._stopped_until = max(self._stopped_until, now + seconds)

    @property
    def left(self) -> float:
        """What was left when last asked."""
        return self._capacity - self._used

    def spare(self, share: float, now: float) -> bool:
        """Return whether at least this share of the budget is left."""
        self._return(now)
        return now >= self._stopped_until and self.left >= share * self._capacity

    def describe(self, now: float) -> dict[str, Any]:
        """Return what is left, in how many seconds 1 can be taken, and whether the venue said to stop."""
        self._return(now)
        stopped_s = max(0.0, self._stopped_until - now)
        wait_s = stopped_s
        if not stopped_s and self.left < min(1.0, self._capacity) and self._spent:
            wait_s = self._spent[0][0] - now
        return {
            "budget": self.budget.name,
            "left": round(self.left, 1),
            "capacity": round(self._capacity, 1),
            "per_s": self.budget.per_s,
            "wait_s": round(wait_s, 1),
            "stopped": stopped_s > 0,
        }

    def _spend(self, amount: float, back_at: float) -> None:
        self._used += amount
        spent = self._spent
        later = 0
        while later < len(spent) and spent[-1 - later][0] > back_at:
            later += 1
        spent.insert(len(spent) - later, (back_at, amount))

    def _return(self, now: float) -> None:
        """Take back what was spent long enough ago."""
        spent = self._spent
        while spent and spent[0][0] <= now:
            self._used -= spent.popleft()[1]
        if not spent:
            self._used = 0.0  # and forget what rounding left


def backoff(first_s: float = 0.5, max_s: float = 60.0) -> Iterator[float]:
    """Yield delays with full jitter under a doubling, capped ceiling, for ever."""
    ceiling = first_s
    while True:
        yield random.uniform(0.1 * ceiling, ceiling)
        ceiling = min(ceiling * 2, max_s)
