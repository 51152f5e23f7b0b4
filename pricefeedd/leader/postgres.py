"""Leader election by PostgreSQL: an advisory lock, and a row with the fence that each new leader raises.

Who has the lock may write the row, and who leads writes it again and again. With each time it promises to publish
nothing if it cannot do so for `renew_deadline_s`; that time counts from before the statement was sent. Whoever else
wants to lead looks at the row, and stands still until it has not changed for so long by its own clock: a lock
alone would not do, for the server may lose a session whose daemon still believes in it. No clock is compared with
another one.

A leader that loses its connection has the rest of that time to come back, and leads on. One that is frozen keeps its
session with the server, and so the lock: who waits has the server end it after `lease_s`.
"""

from __future__ import annotations

import importlib.util
import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import structlog
import trio

from pricefeedd.config.strict import Problem, StructureError
from pricefeedd.hookspecs import Elector, Leadership, hookimpl

if TYPE_CHECKING:
    from pricefeedd.leader.postgres_session import Row, Session

log = structlog.get_logger("pricefeedd.leader.postgres")

_T = TypeVar("_T")

#: A promise is waited for so much longer: clocks do not run equally fast, and what is being sent is soon sent.
_MARGIN = 1.05
#: A daemon that does not lead waits so long for a connection: it takes several answers of a server that may be busy.
_CONNECT_S = 5.0
#: To give the lead up may take so long.
_RELEASE_S = 0.8
#: A leader that lost its connection tries again after so long, and so does who had a session ended.
_SOON_S = 0.03
#: All others that lost it wait up to so long; the database may be away for hours.
_MOST_S = 2.0
#: Threads that may hang in attempts to connect.
_THREADS = 4

_SCHEMES = ("postgresql", "postgresql+psycopg", "postgres")


def _positive(_: Any, __: Any, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"expected more than 0, found {value:g}")


def _refused(text: str) -> StructureError:
    """Return an error whose text may be shown, where that of others may hold a part of the secret."""
    return StructureError([Problem((), text)])


def _url(_: Any, __: Any, value: str) -> None:
    """Require a URL that the driver takes; its text is not repeated, for it may hold a password."""
    if value.partition("://")[0] not in _SCHEMES or "://" not in value:
        raise _refused("expected postgresql://user@host/name")
    if importlib.util.find_spec("psycopg") is None:
        raise _refused(
            "this needs the package psycopg, which is not installed; type: pip install 'psycopg[binary]'"
        )
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(libpq_url(value))
    except ProgrammingError:
        raise _refused(
            "expected postgresql://user@host/name; signs such as @ and / in a password are written %40 and %2F"
        ) from None


def _name(_: Any, __: Any, value: str) -> None:
    if not value or len(value) > 100:
        raise ValueError(f"expected a name of 1 to 100 characters, found {len(value)}")


def libpq_url(url: str) -> str:
    """Return a URL as PostgreSQL's own library reads it; the one of `[store]` names the driver as well."""
    return "postgresql://" + url.partition("://")[2]


@attrs.frozen(kw_only=True)
class PostgresSettings:
    """`[leader.postgres]`.

    Attributes:
        url: Of the database; not of a pooler in transaction mode.
        name: Of the daemons among which one leads; others may use the same database under another name.
        lease_s: A leader that did not renew for so long is thrown out, though the server still serves it.
        renew_deadline_s: A leader that could not renew for so long leads no longer.
        retry_s: How often the leader renews, and how often the others look.
    """

    url: str = attrs.field(repr=False, metadata={"secret": True}, validator=_url)
    name: str = attrs.field(default="pricefeedd", validator=_name)
    lease_s: float = attrs.field(default=3.0, validator=_positive)
    renew_deadline_s: float = attrs.field(default=2.0, validator=_positive)
    retry_s: float = attrs.field(default=0.25, validator=_positive)

    def __attrs_post_init__(self) -> None:
        """Check what depends on each other.

        Raises:
            ValueError: It does not fit.
        """
        if not 3 * self.retry_s <= self.renew_deadline_s < self.lease_s:
            raise ValueError(
                "renew_deadline_s is less than lease_s and at least three times retry_s; found "
                f"lease_s {self.lease_s:g}, renew_deadline_s {self.renew_deadline_s:g}, retry_s {self.retry_s:g}"
            )


class PostgresElector:
    """Stands for election in one database."""

    def __init__(self, settings: PostgresSettings, leadership: Leadership) -> None:
        self._settings = settings
        self._leadership = leadership
        self._threads = trio.CapacityLimiter(_THREADS)
        self._leads = False
        self._fence = 0
        self._until = -math.inf
        # The server's process of our last session in which we led.
        self._pid = 0
        # The row as it was seen last, and since when it has stood like this.
        self._seen: tuple[int, int] | None = None
        self._since = 0.0
        # Who holds the lock while the row stands still, and since when.
        self._stuck: tuple[int, int, int] | None = None
        self._stuck_since = 0.0
        self._trouble = ""

    async def run(self) -> None:
        """Stand for election until cancelled."""
        from pricefeedd.leader.postgres_session import AwayError, Session

        pause_s = _SOON_S
        while True:
            settings = self._settings
            session = Session(
                libpq_url(settings.url),
                settings.name,
                self._leadership.identity,
                patience_s=settings.renew_deadline_s,
            )
            served = False
            try:
                await self._ask(session, session.open)
                served = True
                pause_s = _SOON_S
                # A server that crashed may have forgotten renewals, and count them anew.
                self._seen = None
                await self._stand(session)
            except AwayError as e:
                self._away(str(e))
            finally:
                await self._leave(session, served=served)
            if self._leads:
                pause_s = _SOON_S
            await trio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, _MOST_S)

    # --- one connection -----------------------------------------------------------------------------------

    async def _ask(self, session: Session, call: Callable[..., _T], *arguments: Any) -> _T:
        """Have a session do something in a thread, which is left to itself if that hangs.

        Raises:
            AwayError: It failed, or took too long.
        """
        from pricefeedd.leader.postgres_session import AwayError

        patience_s = self._settings.renew_deadline_s
        if self._leads:
            patience_s *= 0.75  # then there is time for another attempt, on another connection
        elif not session.pid:
            patience_s = max(patience_s, _CONNECT_S)  # to give up too early is to begin again and again
        with trio.move_on_after(patience_s):
            return await trio.to_thread.run_sync(
                call, *arguments, abandon_on_cancel=True, limiter=self._threads
            )
        session.cut()
        raise AwayError("the database does not answer")

    async def _stand(self, session: Session) -> None:
        """Renew, or wait for one's turn, until the connection is lost."""
        while True:
            if self._leads:
                wait_s = await self._renew(session)
            else:
                wait_s = await self._contend(session)
            self._well()
            # What the server says by itself: that somebody gave the lead up, or that it ends our session.
            with trio.move_on_after(max(wait_s, 0.0)):
                await trio.lowlevel.wait_readable(session.fileno())

    async def _leave(self, session: Session, *, served: bool) -> None:
        """End a session; if we are to stop, so that another daemon has the lead at once."""
        from pricefeedd.leader.postgres_session import AwayError

        stops = trio.current_effective_deadline() == -math.inf
        with trio.CancelScope(shield=True):
            with trio.move_on_after(_RELEASE_S):
                try:
                    if stops and served and self._leads:
                        self._leads = False
                        await self._ask(session, session.release, self._fence)
                        log.info("lead given up", fence=self._fence)
                    await self._ask(session, session.close)
                except AwayError as e:
                    log.warning(
                        "lead cannot be given up; it ends by itself", fence=self._fence, reason=str(e)
                    )
        session.cut()

    # --- leading ------------------------------------------------------------------------------------------

    async def _renew(self, session: Session) -> float:
        """Renew the lead, and return the seconds until that is due again."""
        if time.monotonic() >= self._until:
            self._lost("it could not be renewed in time")
            return 0.0
        if not session.locked and not await self._lock_again(session):
            return _SOON_S
        asked = time.monotonic()
        kept = await self._ask(session, session.renew, self._fence, self._settings.renew_deadline_s)
        if not kept:
            self._lost("another daemon has taken it over")
            return 0.0
        before, self._until = self._until, asked + self._settings.renew_deadline_s
        self._pid = session.pid
        self._leadership.renewed(until=self._until)
        if time.monotonic() >= before:  # too late, and who published knows that already
            self._lost("it was renewed too late")
            return 0.0
        return asked + self._settings.retry_s - time.monotonic()

    async def _lock_again(self, session: Session) -> bool:
        """Take the lock in another session than the one that we gained it in."""
        holder = await self._ask(session, session.lock)
        if holder and holder == self._pid:  # the server has not noticed yet that our last one is over
            await self._ask(session, session.evict, holder)
        return not holder

    def _lost(self, reason: str) -> None:
        self._leads, self._until = False, -math.inf
        self._leadership.lost(reason)

    # --- waiting for one's turn ---------------------------------------------------------------------------

    async def _contend(self, session: Session) -> float:
        """Take the lead if it is to be had; return the seconds after which to look again."""
        settings = self._settings
        row = await self._ask(session, session.read)
        now = time.monotonic()
        if (row.fence, row.beat) != self._seen:
            self._seen, self._since = (row.fence, row.beat), now
        if row.holder == self._leadership.identity:
            free_at = self._until  # what we promised ourselves
        else:
            free_at = self._since + row.promise_s * _MARGIN
        if now < free_at:
            self._stuck = None
            self._leadership.heard(row.holder)
            if session.locked:
                await self._ask(session, session.unlock)
            return min(free_at - now, settings.retry_s)
        self._leadership.heard("")
        holder = await self._ask(session, session.lock)
        if holder:
            return await self._mind(session, holder, row)
        return await self._take(session, row)

    async def _mind(self, session: Session, holder: int, row: Row) -> float:
        """Wait for who holds the lock and does not renew, and then throw it out."""
        settings, now = self._settings, time.monotonic()
        seen = (holder, row.fence, row.beat)
        if self._stuck != seen:
            self._stuck, self._stuck_since = seen, now
        if holder == row.pid:
            until = self._since + settings.lease_s
        else:  # it took the lock a moment ago, and is about to write itself into the row
            until = self._stuck_since + settings.lease_s - settings.renew_deadline_s
        if now < until:
            return min(until - now, settings.retry_s)
        log.warning("leader does not renew; its session is ended", pid=holder, fence=row.fence)
        await self._ask(session, session.evict, holder)
        self._stuck = None
        return _SOON_S

    async def _take(self, session: Session, row: Row) -> float:
        settings = self._settings
        asked = time.monotonic()
        fence = await self._ask(session, session.take, row, settings.renew_deadline_s)
        until = asked + settings.renew_deadline_s
        if fence is None:
            await self._ask(session, session.unlock)
            return 0.0
        self._leads, self._fence, self._until, self._pid = True, fence, until, session.pid
        self._leadership.gained(fence, until=until)
        if time.monotonic() >= until:  # too late, and it may not even have been believed
            self._lost("it was gained too late")
            return 0.0
        return asked + settings.retry_s - time.monotonic()

    # --- what is told -------------------------------------------------------------------------------------

    def _away(self, reason: str) -> None:
        """Say why the database cannot be asked; who leads goes on until its time is over."""
        if reason != self._trouble:
            self._trouble = reason
            log.warning("database of the lead is away", reason=reason)
        if self._leads and time.monotonic() < self._until:
            return
        self._lost(f"the database of the lead is away: {reason}")
        self._leadership.heard("")

    def _well(self) -> None:
        if self._trouble:
            self._trouble = ""
            log.info("database of the lead is there again")
            if not self._leads:
                self._leadership.lost("nobody was elected yet")


async def _run(settings: PostgresSettings, leadership: Leadership) -> None:
    """Stand for election until cancelled."""
    await PostgresElector(settings, leadership).run()


@hookimpl
def pricefeedd_electors() -> list[Elector]:
    """Return the elector."""
    return [Elector(name="postgres", api_version=1, settings=PostgresSettings, run=_run)]
