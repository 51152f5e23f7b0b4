"""The least that is logged: as configured, until somebody asks for more, for a while or until further notice."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")

#: And what is as good as silence, for commands whose own words are what matters.
QUIET: Final = "critical"

_ALL: Final = (*LEVELS, QUIET)

#: Signals that change the level, where the system has them: one step more talkative; back to what is configured.
MORE: Final[int | None] = getattr(signal, "SIGUSR1", None)
BACK: Final[int | None] = getattr(signal, "SIGUSR2", None)


def check(level: str) -> None:
    """Refuse what is no level.

    Raises:
        ValueError: It is none.
    """
    if level not in _ALL:
        raise ValueError(f"unknown log level {level!r}; there is {', '.join(_ALL)}")


class Levels:
    """The level of all loggers.

    Attributes:
        configured: What the configuration says.
        current: What is in force.
        until_ns: When it goes back to what is configured, ns since the Unix epoch UTC; None if it stays.
    """

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with `info`.

        Args:
            wake: Called when `due_s` changed.
        """
        self.configured = self.current = "info"
        self.until_ns: int | None = None
        self.wake = wake
        self._now_s, self._now_ns = now_s, now_ns
        self._until_s: float | None = None
        self._lock = threading.RLock()

    def configure(self, level: str) -> None:
        """Set what the configuration says; it is in force at once.

        Raises:
            ValueError: Unknown level.
        """
        self.change(level)
        self.configured = level

    def change(self, level: str, for_s: float | None = None) -> None:
        """Change the level.

        Args:
            for_s: Then it goes back to what is configured; None lets it stay.

        Raises:
            ValueError: Unknown level.
        """
        check(level)
        with self._lock:
            self.current = level
            self._until_s = None if for_s is None else self._now_s() + for_s
            self.until_ns = None if for_s is None else self._now_ns() + int(for_s * 1e9)
            logging.getLogger().setLevel(level.upper())
        self.wake()

    def heard(self, number: int) -> bool:
        """Obey a signal if it is one of ours; return whether it was."""
        if number == MORE is not None:
            self.change(_ALL[max(0, _ALL.index(self.current) - 1)])
        elif number == BACK is not None:
            self.change(self.configured)
        else:
            return False
        return True

    @property
    def due_s(self) -> float | None:
        """In how many seconds it goes back; None if it stays."""
        until_s = self._until_s
        return None if until_s is None else max(0.0, until_s - self._now_s())

    def lapse(self) -> bool:
        """Go back to what is configured if it is time; return whether it was."""
        with self._lock:
            if self._until_s is None or self._now_s() < self._until_s:
                return False
            self.change(self.configured)
        return True
