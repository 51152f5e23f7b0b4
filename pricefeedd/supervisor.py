"""Keeps connections alive: what to do when a session ends, and before it does.

Venue failures stop here. This module and `loader`, the two borders with plugin code, alone catch Exception.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import structlog
import trio

from pricefeedd.backfill import allowed
from pricefeedd.breaker import Breaker, Circuit
from pricefeedd.derive import TopicKey
from pricefeedd.errors import (
    ConnectionLostError,
    LoginRejectedError,
    SubscriptionRejectedError,
    VenueError,
    leaves,
)
from pricefeedd.events import State
from pricefeedd.limits import Bucket, backoff
from pricefeedd.plan import ASK_AGAIN_S, Connection
from pricefeedd.session import Link, Session
from pricefeedd.subscriptions import StreamRefused

log = structlog.get_logger("pricefeedd.supervisor")

#: A new connection must bring data within this time before the old one is let go.
SETTLE_S = 30.0


@attrs.frozen
class Lost:
    """A connection ended."""

    carrier: int
    topics: frozenset[TopicKey]
    reason: str
    state: State


class _Run:
    """A session under way, and how it ended; all lines of the log that follow from it bear its `trace_id`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.trace_id = uuid.uuid4().hex
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.error: BaseException | None = None


async def _first(*events: trio.Event) -> None:
    """Wait until one of the events is set."""
    if any(event.is_set() for event in events):
        return
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


class Keeper:
    """Keeps one connection for ever: backoff and breaker after a failure, a new one before the old one ends."""

    def __init__(
        self,
        connection: Connection,
        *,
        link: Callable[[], Link],
        breaker: Breaker,
        bucket: Bucket | None,
        tell: Callable[[Lost], Awaitable[None]],
    ) -> None:
        """Prepare to keep a connection.

        Args:
            link: Returns what a new session needs, as it is now.
            bucket: What a connection attempt draws 1 from.
            tell: Hears of each connection that ended.
        """
        self._connection = connection
        self._link = link
        self._breaker = breaker
        self._bucket = bucket
        self._tell = tell

    async def run(self) -> None:
        """Keep the connection until cancelled, or until our credentials are refused."""
        try:
            await self._run()
        finally:
            # What ended with us is told by whoever ended us.
            self._connection.session = None

    async def _run(self) -> None:
        connection = self._connection
        delays = backoff()
        async with trio.open_nursery() as nursery:
            await self._allowed()
            run = self._begin(nursery)
            while True:
                await _first(run.ended, run.session.retiring)
                if not run.ended.is_set():
                    successor = await self._replace(run, nursery)
                    if successor is not None:
                        run = successor
                        continue
                    if not run.ended.is_set():
                        # The old one still works; the next attempt to replace it comes later.
                        with trio.move_on_after(next(delays)):
                            await run.ended.wait()
                        continue
                if run.session.flowing.is_set() or run.session.silent:
                    delays = backoff()  # the venue answers: it need not be spared
                delay = self._after(run, next(delays))
                await self._lost(run)
                await self._suspect(run)
                if delay is None:
                    return
                connection.next_try = trio.current_time() + delay
                await self._wait(run, delay)
                await self._allowed()
                run = self._begin(nursery)

    async def _wait(self, run: _Run, delay: float) -> None:
        """Wait before the next attempt; where everything was refused, until there is something else to ask for."""
        connection = self._connection
        if not isinstance(run.error, SubscriptionRejectedError):
            await trio.sleep(delay)
            return
        with trio.move_on_after(delay):
            await connection.more.wait()
            delays = backoff()  # so that asking for bad things only does not make us hammer
            await trio.sleep(next(delays))

    async def _allowed(self) -> None:
        """Wait for leave to dial."""
        await allowed(self._breaker.wait_s)
        if self._bucket is not None:
            await allowed(partial(self._bucket.take, 1.0))

    async def _replace(self, old: _Run, nursery: trio.Nursery) -> _Run | None:
        """Make before break: return the new run once it brings data, None if that failed."""
        async with trio.open_nursery() as asking:

            async def give_up() -> None:
                await old.ended.wait()
                asking.cancel_scope.cancel()

            asking.start_soon(give_up)
            await self._allowed()
            asking.cancel_scope.cancel()
        if old.ended.is_set():
            return None
        run = self._begin(nursery)
        with trio.move_on_after(SETTLE_S):
            await _first(run.ended, run.session.settled)
        if run.ended.is_set() or not run.session.flowing.is_set():
            run.scope.cancel()
            await run.ended.wait()
            self._after(run, 0.0)
            await self._lost(run)
            self._connection.session = old.session
            old.session.carry(self._connection.wanted(trio.current_time()))
            return None
        link = run.session.link
        log.info("connection replaced", venue=link.venue, feed=link.feed.name, index=self._connection.index)
        old.scope.cancel()
        await old.ended.wait()
        await self._lost(old)
        return run

    def _begin(self, nursery: trio.Nursery) -> _Run:
        """Start a session in the background."""
        connection, link = self._connection, self._link()
        if connection.sessions:
            link.stats.reconnects += 1
        connection.sessions += 1
        connection.more = trio.Event()
        session = Session(
            link,
            connection.wanted(trio.current_time()),
            path=connection.path,
            patience=connection.patience,
            suspects=sorted(connection.suspects, key=lambda name: connection.suspects[name]),
        )
        run = _Run(session)
        connection.session = session
        connection.carriers.add(session.carrier)
        connection.next_try = None
        connection.since_ns = link.now_ns()
        nursery.start_soon(self._guard, run, name=f"session:{link.venue}:{link.feed.name}:{session.carrier}")
        return run

    async def _guard(self, run: _Run) -> None:
        """Run a session and keep its failure; nothing but Cancelled of our own caller leaves here."""

        async def praise() -> None:
            await run.session.flowing.wait()
            self._breaker.success()
            self._connection.patience = 1.0

        structlog.contextvars.bind_contextvars(trace_id=run.trace_id)
        try:
            with run.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(praise)
                    await run.session.run()
        except* VenueError as group:
            run.error = next(leaves(group))
        except* Exception as group:
            run.error = next(leaves(group))
            link = run.session.link
            log.exception("session crashed", venue=link.venue, feed=link.feed.name)
        finally:
            run.ended.set()

    def _after(self, run: _Run, delay: float) -> float | None:
        """Draw the conclusions from a session's end; return the seconds to wait, None to give up."""
        error, session, connection = run.error, run.session, self._connection
        link = session.link
        if error is None:
            return delay
        reason = str(error)
        connection.last_error, connection.failed_at = reason, trio.current_time()
        connection.opened_before = connection.opened_before or session.opened
        link.stats.failed(reason, link.now_ns())
        if session.silent:
            connection.patience = min(connection.patience * 2, 64.0)
            connection.path_index += 1
        elif not session.flowing.is_set():
            self._breaker.failure(trio.current_time())
        if isinstance(error, LoginRejectedError):
            whose = {} if link.account is None else {"account": link.account.name}
            log.error(
                "login refused",
                venue=link.venue,
                feed=link.feed.name,
                reason=reason,
                trace_id=run.trace_id,
                **whose,
            )
            return None
        if isinstance(error, VenueError):
            # What asking again cannot help is asked again all the same, hours apart: venues suspend and resume.
            delay = max(delay, error.retry_after_s or 0.0, 0.0 if error.retry else ASK_AGAIN_S)
        log.warning(
            "session lost",
            venue=link.venue,
            feed=link.feed.name,
            index=connection.index,
            reason=reason,
            delay_s=round(delay, 2),
            trace_id=run.trace_id,
        )
        return delay

    async def _suspect(self, run: _Run) -> None:
        """Find the stream that venues answer by hanging up, and put it aside so that the others live.

        Some do so for an unknown symbol. What was being asked for when a connection ended is asked for last
        and alone on the next; if that ends there too, and others were accepted before it, it is the one.
        """
        connection, session = self._connection, run.session
        if session.settled.is_set():
            connection.suspects.clear()
            return
        if not isinstance(run.error, ConnectionLostError):
            return
        names = [name for name in session.unanswered() if name in connection.streams]
        for name in names:
            connection.suspects[name] = connection.suspects.get(name, 0) + 1
        if len(names) == 1 and connection.suspects[names[0]] > 1 and session.accepting:
            (name,) = names
            del connection.suspects[name]
            reason = "the connection ended whenever this was asked for"
            log.warning("subscription refused", venue=session.link.venue, stream=name, reason=reason)
            await session.link.emit(StreamRefused(session.carrier, connection.streams[name], reason))

    async def _lost(self, run: _Run) -> None:
        error = run.error
        if isinstance(error, VenueError) and not error.retry:
            state = State.DOWN
        elif run.session.silent:
            state = State.STALE
        elif self._breaker.state is Circuit.OPEN:
            state = State.DOWN
        else:
            state = State.CONNECTING
        reason = "" if error is None else str(error)
        self._connection.carriers.discard(run.session.carrier)
        await self._tell(Lost(run.session.carrier, self._connection.all_topics(), reason, state))


async def supervise(
    run: Callable[[], Awaitable[None]],
    *,
    what: str,
    name: str,
    crashed: Callable[[str], None] = lambda reason: None,
) -> None:
    """Run a plugin's part of the daemon; what crashes it is logged and it is started again.

    Nothing else is hurt. It ends when `run` returns.

    Args:
        crashed: Told why, before the wait.
    """
    delays = backoff(1.0, 300.0)
    while True:
        try:
            await run()
        except Exception as e:
            delay = next(delays)
            crashed(repr(next(leaves(e))))
            log.exception("plugin crashed", what=what, name=name, delay_s=round(delay, 1))
            await trio.sleep(delay)
        else:
            return
