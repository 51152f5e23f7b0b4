"""Whether this daemon leads: what its elector says, and for how long that holds."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from typing import Any

import structlog
import trio

from pricefeedd.leader.lease import Lease

log = structlog.get_logger("pricefeedd.leader")


def new_identity() -> str:
    """Return who we are among the daemons: host, process, and a part that differs at each start."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class Lead:
    """The lead, as the elector tells of it (`hookspecs.Leadership`) and as the daemon asks.

    Attributes:
        elector: Its name; `none` where nobody else may lead.
        identity: Who we are among the daemons.
        lease: Until when we lead; what publishes looks at it.
        fence: Of our lead, or of the last that we had; 0 before the first.
        leader: Who leads, as far as is known; "" for nobody.
        reason: Why we do not lead.
        since_ns: Wall clock of the last change; None before the first.
        changes: How often we gained the lead.
    """

    def __init__(self, elector: str = "none", *, identity: str | None = None) -> None:
        self.elector = elector
        self.identity = identity or new_identity()
        self.lease = Lease(math.inf if elector == "none" else -math.inf)
        self.fence = 0
        self.leader = self.identity if elector == "none" else ""
        self.reason = "" if elector == "none" else "nobody was elected yet"
        self.since_ns: int | None = None
        self.changes = 0
        self._leads = elector == "none"
        self._changed = trio.Event()

    @property
    def leads(self) -> bool:
        """Whether we lead now."""
        return self._leads and self.lease.holds()

    @property
    def standby(self) -> str:
        """Why we do not lead, for those who ask; "" while we do."""
        if self.leads:
            return ""
        who = f"{self.leader} leads" if self.leader and self.leader != self.identity else self.reason
        return f"standby: {who or 'another daemon leads'}"

    # --- what the elector says -------------------------------------------------------------------------

    def gained(self, fence: int, *, until: float) -> None:
        """Take the lead, unless the time is over already."""
        if time.monotonic() >= until:
            return
        self.fence, self._leads, self.leader, self.reason = fence, True, self.identity, ""
        self.lease.until = until
        self.changes += 1
        self._note()
        log.info("lead gained", elector=self.elector, fence=fence, identity=self.identity)

    def renewed(self, *, until: float) -> None:
        """Lead on until a later time; if the one told before has come, the lead is lost."""
        if not self._leads:
            return
        if not self.lease.holds():
            self.lost("it was renewed too late")
        else:
            self.lease.until = max(until, self.lease.until)

    def lost(self, reason: str) -> None:
        """Lead no longer."""
        self.reason = reason
        if not self._leads:
            return
        self._leads = False
        self.lease.until = -math.inf
        if self.leader == self.identity:
            self.leader = ""
        self._note()
        log.warning("lead lost", elector=self.elector, fence=self.fence, reason=reason)

    def heard(self, leader: str) -> None:
        """Note who leads, as far as is known."""
        if leader != self.leader:
            self.leader = leader
            if leader != self.identity:
                log.info("leader", elector=self.elector, leader=leader or "nobody")

    def _note(self) -> None:
        self.since_ns = time.time_ns()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    # --- what the daemon asks --------------------------------------------------------------------------

    async def won(self) -> None:
        """Wait until we lead."""
        while not self.leads:
            await self._changed.wait()

    async def over(self) -> None:
        """Wait until we lead no longer: the elector says so, or the time has come that it told."""
        while self._leads:
            left_s = self.lease.until - time.monotonic()
            if left_s <= 0:
                self.lost("it could not be renewed in time")
                break
            with trio.move_on_after(left_s):
                await self._changed.wait()

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status` and `/metrics`."""
        return {
            "elector": self.elector,
            "leads": self.leads,
            "identity": self.identity,
            "leader": self.leader,
            "fence": self.fence,
            "since": self.since_ns,
            "changes": self.changes,
            "reason": "" if self.leads else self.reason,
        }
