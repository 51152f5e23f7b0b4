"""Keeps venues alive: one loop per venue, its connections, and what to do when one ends.

Venue failures stop here. This module and `loader`, the two borders with plugin code, alone catch Exception.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import attrs
import structlog
import trio

from pricefeedd.backfill import (
    Backfill,
    BookFetched,
    CandlesFetched,
    Fetched,
    RestClient,
    RestTap,
    TradesFetched,
    allowed,
)
from pricefeedd.breaker import Breaker, Circuit
from pricefeedd.bus import Bus
from pricefeedd.codec import Stream
from pricefeedd.config import SubscribeConfig, VenueConfig
from pricefeedd.errors import VenueError, leaves
from pricefeedd.events import Event, Origin, State, Status
from pricefeedd.gate import Gate, TopicKey
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, UnknownInstrumentError
from pricefeedd.limits import Bucket, backoff
from pricefeedd.lines import Context, WantResubscribe
from pricefeedd.session import Batch, Item, Link, Session, StreamRefused, StreamsAccepted, Tap
from pricefeedd.stats import Stats
from pricefeedd.transport import Dialer
from pricefeedd.venue import Feed, Venue

log = structlog.get_logger("pricefeedd.supervisor")

#: Batches between the sessions of a venue and its gate. When it is full the sessions wait, and then their
#: sockets: we are short of CPU, and TCP tells the venue.
BATCHES = 64
TICK_S = 1.0
#: A new connection must bring data within this time before the old one is let go.
SETTLE_S = 30.0
#: Instrument lists are read again this often: new listings appear, contracts expire.
RELOAD_S = 3600.0


@attrs.frozen
class Lost:
    """A connection ended."""

    carrier: int
    topics: frozenset[TopicKey]
    reason: str
    state: State


@attrs.frozen
class Tick:
    """A second went by."""


@attrs.frozen(kw_only=True)
class Surroundings:
    """What every venue's runtime needs of the daemon.

    Attributes:
        now_ns: Wall clock, ns since the Unix epoch UTC.
        tap: Given each frame, for recordings.
        rest_tap: Given each REST answer, for recordings.
    """

    bus: Bus
    directory: Directory
    stats: Stats
    dialer: Dialer
    now_ns: Callable[[], int]
    tap: Tap | None = None
    rest_tap: RestTap | None = None


class Connection:
    """One planned connection: its streams, and the session that now carries them.

    Attributes:
        streams: The streams by name.
        topics: The topics that each stream brings, by the stream's name.
        session: The session now in charge; None while there is none.
        next_try: Trio time of the next attempt, while waiting for it.
    """

    def __init__(self, feed: Feed, index: int) -> None:
        self.feed = feed
        self.index = index
        self.streams: dict[str, Stream] = {}
        self.topics: dict[str, set[TopicKey]] = {}
        self.session: Session | None = None
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


class VenueRuntime:
    """One venue at work."""

    def __init__(self, venue: Venue, config: VenueConfig, around: Surroundings) -> None:
        self.venue = venue.configure(venue, config.settings)
        self.config = config
        self.name = config.name
        self.endpoints = {**self.venue.endpoints, **config.endpoints}
        self.around = around
        self.gates: dict[str, Gate] = {}
        self.connections: list[Connection] = []
        self.last_turn = trio.current_time()
        self.buckets = {budget.name: Bucket(budget) for budget in self.venue.budgets}
        self._breakers: dict[str, Breaker] = {}
        self._by_topic: dict[TopicKey, list[tuple[Connection, Stream]]] = {}
        self._by_stream: dict[Stream, set[TopicKey]] = {}
        self._maps: dict[str, InstrumentMap] = {}
        self._send, self._receive = trio.open_memory_channel[tuple[str, Item | Lost | Tick | Fetched]](
            BATCHES
        )
        self.rest = RestClient(
            self.venue,
            self.endpoints,
            dialer=around.dialer,
            buckets=self.buckets,
            breaker=self.breaker,
            tap=around.rest_tap,
        )
        self._backfill = Backfill(
            self.rest,
            self.venue,
            deliver=self._emit,
            stats=partial(around.stats.market, self.name),
            now_ns=around.now_ns,
        )

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the venue until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._loop, nursery, name=f"gate:{self.name}")
            nursery.start_soon(self._tick, name=f"tick:{self.name}")
            for market in dict.fromkeys(s.market for s in self.config.subscribe):
                nursery.start_soon(self._market, market, nursery, name=f"market:{self.name}:{market}")

    def breaker(self, endpoint: str) -> Breaker:
        """Return the circuit breaker of an endpoint."""
        found = self._breakers.get(endpoint)
        if found is None:
            session = self.config.session

            def changed(state: Circuit) -> None:
                log.warning("circuit breaker", venue=self.name, endpoint=endpoint, state=state.value)
                self._show_breakers()

            found = self._breakers[endpoint] = Breaker(
                failures=session.breaker_failures, open_s=session.breaker_open_s, on_change=changed
            )
            self._show_breakers()
        return found

    def _show_breakers(self) -> None:
        states = {endpoint: breaker.state.value for endpoint, breaker in self._breakers.items()}
        for market in self.gates:
            mine = {feed.endpoint for feed in self.venue.feeds if feed.market == market}
            self.around.stats.market(self.name, market).breakers = {
                endpoint: state
                for endpoint, state in states.items()
                if endpoint in mine or endpoint.startswith(market)
            }

    async def _emit(self, market: str, item: Item | Lost | Tick | Fetched) -> None:
        await self._send.send((market, item))

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            await self._emit("", Tick())

    # --- the loop: the only owner of the gates ----------------------------------------------------------

    async def _loop(self, nursery: trio.Nursery) -> None:
        """Pass everything through the gates to the bus, in the order in which it came."""
        bus = self.around.bus
        async for market, item in self._receive:
            out: list[Event] = []
            if type(item) is Batch:
                gate = self.gates[market]
                gate.admit(item.events, out)
                if out:
                    bus.publish(out)
                if gate.context.wants:
                    self._fetch(market, gate, nursery)
                continue
            now_ns = self.around.now_ns()
            if type(item) is Tick:
                self.last_turn = trio.current_time()
                for name, gate in self.gates.items():
                    gate.tick(now_ns, out)
                    self._count(name, gate)
            else:
                self._turn(self.gates[market], item, now_ns, out)
            if out:
                bus.publish(out)
            for name, gate in self.gates.items():
                if gate.context.wants:
                    self._fetch(name, gate, nursery)

    def _turn(self, gate: Gate, item: Any, now_ns: int, out: list[Event]) -> None:
        match item:
            case StreamsAccepted(carrier, streams):
                gate.accepted(carrier, self._topics(streams), now_ns, out)
            case StreamRefused(_, stream, reason):
                for channel, instrument in self._topics([stream]):
                    line = gate.line(channel, instrument)
                    if line is not None and not line.carriers:
                        line.say(State.DOWN, f"refused by the venue: {reason}", now_ns, out)
            case Lost(carrier, topics, reason, state):
                gate.lost(carrier, topics, reason, now_ns, out, state=state)
            case BookFetched(want, book):
                gate.book_fetched(want.instrument, book, now_ns, out)
            case TradesFetched(want, trades):
                gate.trades_fetched(want.instrument, trades, now_ns, out)
            case CandlesFetched(want, candles):
                gate.candles_fetched(want, candles, now_ns, out)

    def _topics(self, streams: Iterable[Stream]) -> list[TopicKey]:
        return [topic for stream in streams for topic in self._by_stream.get(stream, ())]

    def _count(self, market: str, gate: Gate) -> None:
        counts: dict[str, int] = {}
        for line in gate:
            counts[line.channel] = counts.get(line.channel, 0) + line.count
        self.around.stats.market(self.name, market).events = counts

    def _fetch(self, market: str, gate: Gate, nursery: trio.Nursery) -> None:
        for want in gate.take_wants():
            if isinstance(want, WantResubscribe):
                self._resubscribe(gate, want)
                continue
            instrument = self._maps[market].find(want.instrument)
            # One task per hole; a line wants one thing at a time, so there are never more than lines.
            nursery.start_soon(self._backfill.fetch, market, want, instrument)

    def _resubscribe(self, gate: Gate, want: WantResubscribe) -> None:
        """Ask again for one topic's streams; if everything on the connection is stale, replace that."""
        for connection, stream in self._by_topic.get((want.channel, want.instrument), ()):
            session = connection.session
            if session is None:
                continue
            lines = [gate.line(*topic) for topic in connection.all_topics()]
            spoke = [line for line in lines if line is not None and line.seen_ns is not None]
            if want.reason == "stale" and spoke and all(line.state is State.STALE for line in spoke):
                session.doom("all its streams are stale")
            else:
                log.info("resubscribing", venue=self.name, stream=stream.name, reason=want.reason)
                session.resubscribe([stream])

    # --- markets ---------------------------------------------------------------------------------------

    async def _market(self, market: str, nursery: trio.Nursery) -> None:
        """Learn the instruments, plan the connections, and keep them."""
        session = self.config.session
        stats = self.around.stats.market(self.name, market)
        gate = self.gates[market] = Gate(
            Context(
                venue=self.name,
                rules=self.venue.rules[market],
                stats=stats,
                wants=[],
                stale_after_s=session.stale_after_s,
                backfill_after_s=session.backfill_after_s,
                dedupe_window_s=session.dedupe_window_s,
                dedupe_entries=session.dedupe_entries,
            )
        )
        asked = [s for s in self.config.subscribe if s.market == market]
        unknown = await self._learn(market, gate, asked, nursery)
        while True:
            await trio.sleep(RELOAD_S)
            if unknown:
                unknown = await self._learn(market, gate, asked, nursery)

    async def _learn(
        self, market: str, gate: Gate, asked: list[SubscribeConfig], nursery: trio.Nursery
    ) -> bool:
        """Load the instruments and begin what is not yet served; return whether something stays unknown."""
        instruments = await self._instruments(market)
        self._maps[market] = instruments
        self.around.directory.put(instruments)
        unknown = False
        out: list[Event] = []
        fresh: list[tuple[str, Instrument]] = []
        for subscribe in asked:
            for spelling in subscribe.instruments:
                try:
                    found = _meant(instruments, spelling)
                except UnknownInstrumentError as e:
                    unknown = True
                    log.error(  # noqa: TRY400  # the operator's mistake, not a crash
                        "unknown instrument", venue=self.name, market=market, reason=str(e)
                    )
                    out += [self._down(channel, spelling, str(e)) for channel in subscribe.channels]
                    continue
                fresh += [(channel, instrument) for instrument in found for channel in subscribe.channels]
        begun = self._plan(market, gate, fresh, out)
        if out:
            self.around.bus.publish(out)
        for connection in begun:
            name = f"connection:{self.name}:{connection.feed.name}:{connection.index}"
            nursery.start_soon(self._keep, market, connection, name=name)
        return unknown

    def _down(self, channel: str, instrument: str, reason: str) -> Status:
        return Status(
            venue=self.name,
            instrument=instrument,
            received_ns=self.around.now_ns(),
            origin=Origin.DERIVED,
            topic_channel=channel,
            state=State.DOWN,
            reason=reason,
        )

    async def _instruments(self, market: str) -> InstrumentMap:
        delays = backoff()
        while True:
            try:
                found = await self.rest.fetch_all(self.venue.rest.instruments(market))
            except VenueError as e:
                delay = max(next(delays), e.retry_after_s or 0)
                self.around.stats.market(self.name, market).failed(str(e), self.around.now_ns())
                log.warning(
                    "instruments not loaded",
                    venue=self.name,
                    market=market,
                    reason=str(e),
                    delay_s=round(delay, 1),
                )
                await trio.sleep(delay)
            else:
                if self.name != self.venue.name:
                    found = [attrs.evolve(instrument, venue=self.name) for instrument in found]
                return InstrumentMap(self.name, market, found)

    def _plan(
        self, market: str, gate: Gate, fresh: list[tuple[str, Instrument]], out: list[Event]
    ) -> list[Connection]:
        """Spread streams over connections; return the connections that are new."""
        begun: list[Connection] = []
        open_now: dict[str, tuple[Connection, set[str]]] = {}
        per_connection = self.config.session.instruments_per_connection
        for channel, instrument in fresh:
            topic = (channel, instrument.name)
            if topic in self._by_topic:
                continue
            streams = self.venue.codec.streams(channel, instrument)
            if not streams:
                out.append(self._down(channel, instrument.name, f"{self.venue.title} has no {channel} here"))
                continue
            owes = [s.owes_within_s for s in streams if s.owes_within_s is not None]
            line = gate.expect(channel, instrument.name, owes_within_s=min(owes, default=None))
            served = self.around.bus.topic(channel, self.name, instrument.name)
            if channel == "book":
                served.book = partial(gate.book, instrument.name)
            line.say(State.CONNECTING, "", self.around.now_ns(), out)
            for stream in streams:
                feed = self.venue.feed(stream.feed)
                connection, carried = open_now.get(feed.name, (None, set()))
                full = connection is not None and (
                    (instrument.name not in carried and len(carried) >= per_connection)
                    or len(connection.streams) + len(feed.always) >= feed.streams_per_connection
                )
                if connection is None or full:
                    index = sum(1 for c in self.connections if c.feed.name == feed.name)
                    connection, carried = Connection(feed, index), set()
                    open_now[feed.name] = (connection, carried)
                    self.connections.append(connection)
                    begun.append(connection)
                carried.add(instrument.name)
                connection.add(stream, topic)
                self._by_stream.setdefault(stream, set()).add(topic)
                self._by_topic.setdefault(topic, []).append((connection, stream))
        return begun

    # --- connections -----------------------------------------------------------------------------------

    async def _keep(self, market: str, connection: Connection) -> None:
        """Keep one connection for ever: backoff and breaker after a failure, a new one before the old ends."""
        delays = backoff()
        async with trio.open_nursery() as nursery:
            run = await self._begin(market, connection, nursery)
            while True:
                await _first(run.ended, run.session.retiring)
                if not run.ended.is_set():
                    successor = await self._replace(market, connection, run, nursery)
                    if successor is not None:
                        run = successor
                        continue
                    if not run.ended.is_set():
                        # The old one still works; the next attempt to replace it comes later.
                        with trio.move_on_after(next(delays)):
                            await run.ended.wait()
                        continue
                if run.session.flowing.is_set():
                    delays = backoff()
                delay = self._after(market, connection, run, next(delays))
                await self._lost(market, connection, run)
                if delay is None:
                    return
                connection.next_try = trio.current_time() + delay
                await trio.sleep(delay)
                run = await self._begin(market, connection, nursery)

    async def _replace(
        self, market: str, connection: Connection, old: _Run, nursery: trio.Nursery
    ) -> _Run | None:
        """Make before break: return the new run once it brings data, None if that failed."""
        run = await self._begin(market, connection, nursery)
        with trio.move_on_after(SETTLE_S):
            await _first(run.ended, run.session.settled)
        if run.ended.is_set() or not run.session.flowing.is_set():
            run.scope.cancel()
            await run.ended.wait()
            self._after(market, connection, run, 0.0)
            await self._lost(market, connection, run)
            connection.session = old.session
            return None
        log.info("connection replaced", venue=self.name, feed=connection.feed.name, index=connection.index)
        old.scope.cancel()
        await old.ended.wait()
        await self._lost(market, connection, old)
        return run

    async def _begin(self, market: str, connection: Connection, nursery: trio.Nursery) -> _Run:
        """Wait for leave to dial, then start a session in the background."""
        feed = connection.feed
        breaker = self.breaker(feed.endpoint)
        await allowed(breaker.wait_s)
        bucket = self.buckets.get(feed.connect_budget)
        if bucket is not None:
            await allowed(partial(bucket.take, 1.0))
        stats = self.around.stats.market(self.name, market)
        if connection.sessions:
            stats.reconnects += 1
        connection.sessions += 1
        link = Link(
            venue=self.name,
            codec=self.venue.codec,
            feed=feed,
            url=self.endpoints[feed.endpoint],
            names=self._maps[market].names,
            dialer=self.around.dialer,
            stats=stats,
            now_ns=self.around.now_ns,
            emit=partial(self._emit, market),
            tap=self.around.tap,
            patience_s=self.config.session.stale_after_s,
        )
        session = Session(
            link, connection.streams.values(), path=connection.path, patience=connection.patience
        )
        run = _Run(session)
        connection.session = session
        connection.next_try = None
        connection.since_ns = self.around.now_ns()
        nursery.start_soon(self._guard, connection, run, breaker)
        return run

    async def _guard(self, connection: Connection, run: _Run, breaker: Breaker) -> None:
        """Run a session and keep its failure; nothing but Cancelled of our own caller leaves here."""

        async def praise() -> None:
            await run.session.flowing.wait()
            breaker.success()
            connection.patience = 1.0

        try:
            with run.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(praise)
                    await run.session.run()
        except* VenueError as group:
            run.error = next(leaves(group))
        except* Exception as group:
            run.error = next(leaves(group))
            log.exception("session crashed", venue=self.name, feed=connection.feed.name)
        finally:
            run.ended.set()

    def _after(self, market: str, connection: Connection, run: _Run, delay: float) -> float | None:
        """Draw the conclusions from a session's end; return the seconds to wait, None to give up."""
        error, session = run.error, run.session
        if error is None:
            return delay
        reason = str(error)
        connection.last_error = reason
        self.around.stats.market(self.name, market).failed(reason, self.around.now_ns())
        breaker = self.breaker(connection.feed.endpoint)
        if session.silent:
            connection.patience = min(connection.patience * 2, 64.0)
            connection.path_index += 1
        elif not session.flowing.is_set():
            breaker.failure(trio.current_time())
        retry = not isinstance(error, VenueError) or error.retry
        if isinstance(error, VenueError) and error.retry_after_s:
            delay = max(delay, error.retry_after_s)
        if retry:
            log.warning(
                "session lost",
                venue=self.name,
                feed=connection.feed.name,
                index=connection.index,
                reason=reason,
                delay_s=round(delay, 2),
            )
            return delay
        log.error("session given up", venue=self.name, feed=connection.feed.name, reason=reason)
        return None

    async def _lost(self, market: str, connection: Connection, run: _Run) -> None:
        error = run.error
        if isinstance(error, VenueError) and not error.retry:
            state = State.DOWN
        elif run.session.silent:
            state = State.STALE
        elif self.breaker(connection.feed.endpoint).state is Circuit.OPEN:
            state = State.DOWN
        else:
            state = State.CONNECTING
        reason = "" if error is None else str(error)
        await self._emit(market, Lost(run.session.carrier, connection.all_topics(), reason, state))

    # --- what operators ask ----------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return facts about the venue for `/status`."""
        now = trio.current_time()
        return {
            "plugin": self.venue.name,
            "markets": sorted(self.gates),
            "endpoints": self.endpoints,
            "breakers": {endpoint: breaker.state.value for endpoint, breaker in self._breakers.items()},
            "budgets": {name: round(bucket.left, 1) for name, bucket in self.buckets.items()},
            "connections": [
                {
                    "feed": c.feed.name,
                    "index": c.index,
                    "path": c.path,
                    "streams": len(c.streams),
                    "open": c.session is not None and c.session.opened and c.next_try is None,
                    "flowing": c.session is not None and c.session.flowing.is_set() and c.next_try is None,
                    "since": None if c.since_ns is None else c.since_ns // 1000,
                    "sessions": c.sessions,
                    "next_try_s": None if c.next_try is None else round(max(0.0, c.next_try - now), 1),
                    "last_error": c.last_error,
                }
                for c in self.connections
            ],
        }


def _meant(instruments: InstrumentMap, spelling: str) -> list[Instrument]:
    """Return the instruments that a configured name means; `*` and `?` mean all tradable ones that fit.

    Raises:
        UnknownInstrumentError: None.
    """
    if not any(sign in spelling for sign in "*?["):
        return [instruments.find(spelling)]
    found = [i for i in instruments if i.tradable and fnmatch.fnmatchcase(i.name, spelling)]
    if not found:
        raise UnknownInstrumentError(spelling, [], where=f"{instruments.venue} {instruments.market}")
    return found


async def supervise(run: Callable[[], Awaitable[None]], *, what: str, name: str) -> None:
    """Run a plugin's part of the daemon; what crashes it is logged and it is started again.

    Nothing else is hurt. It ends when `run` returns.
    """
    delays = backoff(1.0, 300.0)
    while True:
        try:
            await run()
        except Exception:
            delay = next(delays)
            log.exception("plugin crashed", what=what, name=name, delay_s=round(delay, 1))
            await trio.sleep(delay)
        else:
            return
