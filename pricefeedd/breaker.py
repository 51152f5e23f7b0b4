"""A circuit breaker for one endpoint, as plain state that is told the time."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any


class Circuit(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """After a number of failures in a row lets nothing through for a while, then one probe at a time.

    The while doubles with each failed probe up to `max_open_s`, and is short again after a success.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        open_s: float = 30.0,
        max_open_s: float = 300.0,
        on_change: Callable[[Circuit], None] = lambda state: None,
    ) -> None:
        self.state = Circuit.CLOSED
        self._limit = failures
        self._first_open_s = open_s
        self._max_open_s = max_open_s
        self._on_change = on_change
        self._failures = 0
        self._open_s = open_s
        self._until = 0.0
        self._probing_until = 0.0

    def wait_s(self, now: float) -> float:
        """Return 0 if a call may be made now, and then count on its outcome; else seconds to wait.

        A half-open breaker lets one call through; if its outcome is not told within `open_s`, another.
        """
        if self.state is Circuit.CLOSED:
            return 0.0
        if self.state is Circuit.OPEN:
            if now < self._until:
                return self._until - now
            self._set(Circuit.HALF_OPEN)
        elif now < self._probing_until:
            return min(1.0, self._probing_until - now)
        self._probing_until = now + self._first_open_s
        return 0.0

    def success(self) -> None:
        """Note that the endpoint works."""
        self._failures = 0
        self._open_s = self._first_open_s
        self._set(Circuit.CLOSED)

    def failure(self, now: float) -> None:
        """Note that the endpoint failed."""
        self._failures += 1
        if self.state is Circuit.HALF_OPEN:
            self._open_s = min(self._open_s * 2, self._max_open_s)
        elif self.state is Circuit.OPEN or self._failures < self._limit:
            return
        self._until = now + self._open_s
        self._set(Circuit.OPEN)

    def describe(self, now: float) -> dict[str, Any]:
        """Return its state, how many failures there were in a row, and in how many seconds a call may be made."""
        wait_s = max(0.0, self._until - now) if self.state is Circuit.OPEN else 0.0
        return {"state": self.state.value, "failures": self._failures, "wait_s": round(wait_s, 1)}

    def _set(self, state: Circuit) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)
