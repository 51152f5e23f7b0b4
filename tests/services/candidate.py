"""A process that stands for election, to be killed and frozen: candidate.py URL SETTINGS-AS-JSON.

It prints a line of JSON for each thing that its elector tells; times are of the system's monotonic clock.
"""

from __future__ import annotations

import json
import sys
import time

import structlog
import trio

from pricefeedd.leader.lead import Lead
from pricefeedd.leader.postgres import PostgresElector, PostgresSettings


class Told(Lead):
    """Prints what it is told."""

    def gained(self, fence: int, *, until: float) -> None:
        super().gained(fence, until=until)
        self._say("gained", until=until)

    def renewed(self, *, until: float) -> None:
        super().renewed(until=until)
        self._say("renewed", until=until)

    def lost(self, reason: str) -> None:
        super().lost(reason)
        self._say("lost", reason=reason)

    def _say(self, what: str, **more: object) -> None:
        print(json.dumps({"what": what, "at": time.monotonic(), "fence": self.fence, **more}), flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = PostgresSettings(url=sys.argv[1], **json.loads(sys.argv[2]))
    trio.run(PostgresElector(settings, Told("postgres")).run)
