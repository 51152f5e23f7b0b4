"""Keeps connections alive: what to do when a session ends, and before it does.

Venue failures stop here. This module and `loader`, the two borders with plugin code, alone catch Exception.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import structlog
import trio

from pricefeedd.backfill import allowed
from pricefeedd.breaker import Breaker, Circuit
from pricefeedd.codec import Stream
from pricefeedd.errors import LoginRejectedError, VenueError, leaves
from pricefeedd.events import State
from pricefeedd.gate import TopicKey
from pricefeedd.limits import Bucket, backoff
from pricefeedd.session import Link, Session
from pricefeedd.venue import Feed

log = structlog.get_logger("pricefeedd.supervisor")

#: A new connection must bring data within this time before the old one is let go.
SETTLE_S = 30.0
#: What a venue definitely refused is asked for again after this time.
ASK_AGAIN_S = 3600.0


@attrs.frozen
class Lost:
    """A connection ended."""

    carrier: int
    topics: frozenset[TopicKey]
    reason: str
    state: State


class Connection:
    """One planned connection: its streams, and the session that now carries them.

    Attributes:
        streams: The streams by name.
        topics: The topics that each stream brings, by the stream's name.
        session: The session now in charge; None while there is none.
        refused: Streams that the venue would not serve, by name, and the Trio time until which they are not
            asked for again.
        next_try: Trio time of the next attempt, while waiting for it.
    """

    def __init__(self, feed: Feed, index: int) -> None:
        self.feed = feed
        self.index = index
        self.streams: dict[str, Stream] = {}
        self.topics: dict[str, set[TopicKey]] = {}
        self.session: Session | None = None
        self.refused: dict[str, float] = {}
        self.sessions = 0
        self.patience = 1.0
        self.path_index = 0
        self.last_error = ""
        self.next_try: float | None = None
        self.since_ns: int | None = None

    def add(self, stream: Stream, topic: TopicKey) -> None:
        """Carry a stream for a topic."""
        self.streams[stream.name] = stream
        self.topics.setdefault(stream.name, set()).add(topic)

    @property
    def path(self) -> str:
        """The feed's path, or the fallback that is being tried."""
        paths = (self.feed.path, *self.feed.fallback_paths)
        return paths[self.path_index % len(paths)]

    def wanted(self, now: float) -> list[Stream]:
        """Return the streams to ask for: not those that were refused lately, unless nothing else is left."""
        asked = [s for s in self.streams.values() if self.refused.get(s.name, 0.0) <= now]
        return asked or list(self.streams.values())

    @property
    def up(self) -> bool:
        """Whether a session is open now."""
        return self.session is not None and self.session.opened and self.next_try is None

    def all_topics(self) -> frozenset[TopicKey]:
        """Return every topic that it brings."""
        return frozenset().union(*self.topics.values())


class _Run:
    """A session under way, and how it ended."""

    def __init__(self, session: Session) -> None:
        self.session = session
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
                if delay is None:
                    return
                connection.next_try = trio.current_time() + delay
                await trio.sleep(delay)
                await self._allowed()
                run = self._begin(nursery)

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
        session = Session(
            link, connection.wanted(trio.current_time()), path=connection.path, patience=connection.patience
        )
        run = _Run(session)
        connection.session = session
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
        connection.last_error = reason
        link.stats.failed(reason, link.now_ns())
        if session.silent:
            connection.patience = min(connection.patience * 2, 64.0)
            connection.path_index += 1
        elif not session.flowing.is_set():
            self._breaker.failure(trio.current_time())
        if isinstance(error, LoginRejectedError):
            log.error("login refused, given up", venue=link.venue, feed=link.feed.name, reason=reason)
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
        )
        return delay

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
