"""Stands for election: takes the Lease when nobody leads by it, renews it while we do, and gives it back at the end."""

from __future__ import annotations

import hashlib
import math
import random
import time

import structlog
import trio

from pricefeedd.hookspecs import Leadership
from pricefeedd_kubernetes.api import LeaseApi
from pricefeedd_kubernetes.errors import ApiError, OutdatedError, RefusedError
from pricefeedd_kubernetes.record import Record, Sight, released, taken
from pricefeedd_kubernetes.settings import KubernetesSettings

log = structlog.get_logger("pricefeedd.leader.kubernetes")

#: How long giving the Lease back may take.
RELEASE_S = 0.9
#: Longest pauses before an API server is asked again that is away, and that refuses us.
_AWAY_MAX_S = 1.0
_REFUSED_MAX_S = 10.0
#: A lead that ends so soon is given up: nothing is renewed in less, and we know better than the daemon why it ends.
_HOPELESS_S = 0.05
#: How often a write is tried at once when the Lease changed meanwhile without changing hands.
_TRIES = 3


def holder(name: str, identity: str) -> str:
    """Return our name in the Lease: two daemons never have one, even if their operator gives them one."""
    return f"{name}_{hashlib.sha256(identity.encode()).hexdigest()[:8]}" if name else identity


class LostError(Exception):
    """Our lead is over."""


class Candidate:
    """One daemon's stand for one Lease.

    What is told to `leadership` is true by our own monotonic clock alone. A lead goes on for `renew_deadline_s` after
    the request was sent that won or renewed it; others wait for the Lease's whole length, which is more, after they have
    seen what that request wrote; and whatever they then write is refused if we wrote anything in between.
    """

    def __init__(self, settings: KubernetesSettings, leadership: Leadership, api: LeaseApi) -> None:
        self._settings = settings
        self._leadership = leadership
        self._api = api
        self._holder = holder(settings.identity, leadership.identity)
        self._sight = Sight(settings.lease_s)
        self._until: float | None = None  # None: we do not lead
        self._fence = 0
        self._acquired_us = self._renewed_us = 0
        self._ours: Record | None = None  # what we wrote last; None if we do not know what became of it
        self._written = False  # whether the Lease may be ours, as far as we know
        self._why = ""  # why the last attempt failed
        self._trouble = ""  # what was said of it last
        self._troubles = 0  # attempts that failed, one after the other

    async def run(self) -> None:
        """Stand for election until cancelled, and then give the Lease back."""
        try:
            while True:
                began = time.monotonic()
                pause_s = await self._turn()
                # From begin to begin: what a request takes is not added.
                await trio.sleep(max(0.0, pause_s - (time.monotonic() - began)))
        finally:
            with trio.move_on_after(RELEASE_S, shield=True):
                await self._release()

    async def _turn(self) -> float:
        """Renew the Lease, or look whether we can take it; return after how long to do so again, seconds."""
        if self._until is not None and self._left_s() <= 0:
            self._lose(
                f"the Lease could not be renewed for {self._settings.renew_deadline_s:g} s: {self._why or 'no time'}"
            )
        # Half of the deadline, so that one request that is never answered leaves time for another one.
        half_s = self._settings.renew_deadline_s / 2
        patience_s = min(half_s, self._left_s())
        try:
            with trio.fail_after(patience_s):
                pause_s = await (self._look() if self._until is None else self._renew())
        except LostError as e:
            self._lose(str(e))
            return 0.0
        except (ApiError, trio.TooSlowError) as e:
            self._ours = None
            before = (
                self._why if patience_s < half_s else ""
            )  # the last one of a lead has no time to fail in its own way
            return self._failed(e, str(e) or before or f"{self._api.access.server} did not answer in time")
        if self._trouble:
            log.info("the Lease can be reached again", lease=self._name)
        if self._troubles and self._until is None:
            self._leadership.lost("another daemon leads")
        self._trouble, self._troubles, self._why = "", 0, ""
        return pause_s

    @property
    def _name(self) -> str:
        return f"{self._api.namespace}/{self._api.name}"

    def _pause_s(self) -> float:
        """Return how long to wait in good times; never twice the same, so that daemons do not fall into step."""
        return self._settings.retry_s * random.uniform(0.8, 1.2)

    def _left_s(self) -> float:
        """Return how long there is for renewing the Lease, before our lead is over."""
        return math.inf if self._until is None else self._until - time.monotonic() - _HOPELESS_S

    def _failed(self, error: Exception, why: str) -> float:
        """Say why, once, and return when to try again."""
        self._why = why
        self._troubles += 1
        if self._until is None:
            self._leadership.lost(why)
        # What heals within one more try is not worth a line.
        if why != self._trouble and (self._troubles > 1 or isinstance(error, RefusedError)):
            self._trouble = why
            log.warning("the Lease cannot be reached", lease=self._name, reason=why)
        if self._until is not None:
            return min(self._pause_s(), max(0.0, self._left_s()))  # there is no time to be modest
        most_s = _REFUSED_MAX_S if isinstance(error, RefusedError) else _AWAY_MAX_S
        pause_s = min(self._settings.retry_s * 2.0 ** min(self._troubles - 1, 10), most_s)
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        return max(pause_s, min(asked_s, _REFUSED_MAX_S)) * random.uniform(0.8, 1.2)

    # --- while another one leads, or nobody -----------------------------------------------------------

    async def _look(self) -> float:
        """Look at the Lease, and take it if nobody leads by it."""
        found = await self._api.get()
        now = time.monotonic()
        self._sight.see(found, now)
        ours = found is not None and found.holder == self._holder
        # Nobody else goes by our name: it is a write of ours whose answer we did not get, or a lead that ran out.
        if not ours:
            self._leadership.heard(found.holder if found is not None else "")
            if now < self._sight.free_at:
                return min(self._pause_s(), self._sight.free_at - now + random.uniform(0, 0.05))
        return await self._take(found)

    async def _take(self, found: Record | None) -> float:
        fence = self._sight.next_fence(time.time_ns() // 1_000_000)
        self._acquired_us = self._next_us()
        began = time.monotonic()
        try:
            await self._write(found, fence)
        except OutdatedError:
            return self._pause_s() / 4  # somebody was faster; see who
        until = began + self._settings.renew_deadline_s
        if time.monotonic() >= until:
            return 0.0  # it is ours, but too long ago: once more
        self._fence, self._until = fence, until
        self._leadership.gained(fence, until=until)
        if time.monotonic() >= until:
            raise LostError("it was won too late")  # it is not known whether that was believed
        return self._pause_s()

    # --- while we lead ----------------------------------------------------------------------------------

    async def _renew(self) -> float:
        """Renew the Lease.

        Raises:
            LostError: It is another's by now, or it is too late.
        """
        record = self._ours
        for _ in range(_TRIES):
            if record is None:
                record = await self._see_ours()
            began = time.monotonic()
            try:
                await self._write(record, self._fence)
            except OutdatedError:
                record = None
                continue
            before, self._until = self._until, began + self._settings.renew_deadline_s
            self._leadership.renewed(until=self._until)
            if before is None or time.monotonic() >= before:
                raise LostError("it was renewed too late")
            return self._pause_s()
        raise ApiError(f"the Lease {self._name} changed {_TRIES} times while it was renewed")

    async def _see_ours(self) -> Record | None:
        """Return the Lease as it is; None if it was deleted: then it is ours to make again, while we lead."""
        found = await self._api.get()
        self._sight.see(found, time.monotonic())
        if found is not None and found.holder != self._holder:
            self._written = False
            self._leadership.lost(f"the Lease {self._name} was taken by {found.holder or 'nobody'}")
            self._leadership.heard(found.holder)
            raise LostError(f"the Lease {self._name} was taken by {found.holder or 'nobody'}")
        return found

    def _lose(self, reason: str) -> None:
        if self._until is not None:
            self._until = None
            self._leadership.lost(reason)

    # --- the Lease --------------------------------------------------------------------------------------

    def _next_us(self) -> int:
        """Return the wall clock, µs, or a bit more: to the others each renewal must differ from the one before."""
        self._renewed_us = max(self._renewed_us + 1, time.time_ns() // 1_000)
        return self._renewed_us

    async def _write(self, record: Record | None, fence: int) -> None:
        """Make the Lease ours, or ours for longer.

        Raises:
            OutdatedError: It is not as it was any more.
            ApiError: It failed, or that is not known.
        """
        lease = taken(
            record,
            name=self._api.name,
            namespace=self._api.namespace,
            holder=self._holder,
            lease_s=self._settings.lease_s,
            fence=fence,
            acquired_us=self._acquired_us,
            renewed_us=self._next_us(),
        )
        self._ours, may_be = None, self._written
        self._written = True
        try:
            written = await (self._api.create(lease) if record is None else self._api.replace(lease))
        except OutdatedError:
            self._written = may_be
            raise
        self._ours = written
        self._sight.see(written, time.monotonic())

    async def _release(self) -> None:
        """Give the Lease back if it is ours, so that another daemon has it at once."""
        if not self._written:
            return
        record = self._ours
        for _ in range(_TRIES):
            try:
                if record is None:
                    record = await self._api.get()
                if record is None or record.holder != self._holder:
                    return
                fence = max(self._fence, record.fence)
                await self._api.replace(released(record, fence=fence, wall_us=self._next_us()))
            except OutdatedError:
                record = None
            except ApiError as e:
                if self._until is not None:  # else it is known already that it cannot be reached
                    log.warning("the Lease was not given back", lease=self._name, reason=str(e))
                return
            else:
                log.info("the Lease was given back", lease=self._name)
                return
