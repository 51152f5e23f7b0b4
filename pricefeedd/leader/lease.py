"""Until when what we publish may be believed to come from the only one that publishes."""

from __future__ import annotations

import math
from time import monotonic


class Lease:
    """A time, as everything that sends looks at it: plain, cheap, and readable from any thread.

    Attributes:
        until: Of `time.monotonic()`, which goes on while a process is frozen. Without an elector it never comes.
    """

    __slots__ = ("until",)

    def __init__(self, until: float = math.inf) -> None:
        self.until = until

    def holds(self) -> bool:
        """Return whether that time is still to come."""
        return monotonic() < self.until
