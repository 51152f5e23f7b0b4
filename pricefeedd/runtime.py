"""One venue at work: its loop, its gates, and the plan of its connections."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
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
)
from pricefeedd.breaker import Breaker, Circuit
from pricefeedd.bus import Bus
from pricefeedd.codec import Stream
from pricefeedd.config import SubscribeConfig, VenueConfig
from pricefeedd.errors import VenueError
from pricefeedd.events import Event, Origin, State, Status
from pricefeedd.gate import Gate, TopicKey
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, UnknownInstrumentError
from pricefeedd.limits import Bucket, backoff
from pricefeedd.lines import Context, WantResubscribe
from pricefeedd.session import Batch, Item, Link, Tap
from pricefeedd.stats import Stats
from pricefeedd.subscriptions import StreamRefused, StreamsAccepted
from pricefeedd.supervisor import ASK_AGAIN_S, Connection, Keeper, Lost
from pricefeedd.transport import Dialer
from pricefeedd.venue import Venue

log = structlog.get_logger("pricefeedd.runtime")

#: Batches between the sessions of a venue and its gate. When it is full the sessions wait, and then their
#: sockets: we are short of CPU, and TCP tells the venue.
BATCHES = 64
TICK_S = 1.0
#: The wall clock may drift from the steady one by this much between two ticks; more is a jump.
CLOCK_JUMP_NS = 2_000_000_000
#: Instrument lists are read again this often: new listings appear, contracts expire.
RELOAD_S = 3600.0


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
        self._last_turn_ns = 0
        self.buckets = {budget.name: Bucket(budget) for budget in self.venue.budgets}
        self._breakers: dict[str, Breaker] = {}
        self._by_topic: dict[TopicKey, list[tuple[Connection, Stream]]] = {}
        self._by_stream: dict[Stream, set[TopicKey]] = {}
        self._maps: dict[str, InstrumentMap] = {}
        self._names: dict[str, Mapping[str, str]] = {}
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
        try:
            self._send.send_nowait((market, item))
        except trio.WouldBlock:
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
            if type(item) is not Batch or item.events[0].venue != self.name:
                self._rename(item)
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
                self._watch_clock(now_ns)
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

    def _rename(self, item: Item | Lost | Tick | Fetched) -> None:
        """Put the section's name on events: the codec only knows its plugin's, and one may serve several."""
        events: Iterable[Event] = ()
        match item:
            case Batch():
                events = item.events
            case BookFetched():
                events = () if item.book is None else (item.book,)
            case TradesFetched():
                events = item.trades
            case CandlesFetched():
                events = item.candles or ()
        for event in events:
            event.venue = self.name  # not shared with anybody yet

    def _watch_clock(self, now_ns: int) -> None:
        """Find jumps of the wall clock by the steady one, so that no line takes them for silence."""
        turn = trio.current_time()
        jump_ns = now_ns - self._last_turn_ns - int((turn - self.last_turn) * 1e9)
        if self._last_turn_ns and abs(jump_ns) > CLOCK_JUMP_NS:
            log.warning("the clock jumped", venue=self.name, seconds=round(jump_ns / 1e9, 1))
            for gate in self.gates.values():
                gate.shift(jump_ns)
        self.last_turn, self._last_turn_ns = turn, now_ns

    def _turn(self, gate: Gate, item: Any, now_ns: int, out: list[Event]) -> None:
        match item:
            case StreamsAccepted(carrier, streams):
                gate.accepted(carrier, self._topics(streams), now_ns, out)
            case StreamRefused(_, stream, reason, final):
                if final:
                    for connection in self.connections:
                        if connection.streams.get(stream.name) == stream:
                            connection.refused[stream.name] = trio.current_time() + ASK_AGAIN_S
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
        self._names[market] = instruments.names
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

    async def _keep(self, market: str, connection: Connection) -> None:
        """Keep one connection for ever."""
        feed = connection.feed

        def link() -> Link:
            return Link(
                venue=self.name,
                codec=self.venue.codec,
                feed=feed,
                url=self.endpoints[feed.endpoint],
                names=self._names[market],
                dialer=self.around.dialer,
                stats=self.around.stats.market(self.name, market),
                now_ns=self.around.now_ns,
                emit=partial(self._emit, market),
                tap=self.around.tap,
                patience_s=self.config.session.stale_after_s,
            )

        keeper = Keeper(
            connection,
            link=link,
            breaker=self.breaker(feed.endpoint),
            bucket=self.buckets.get(feed.connect_budget),
            tell=partial(self._emit, market),
        )
        await keeper.run()

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
                    "open": c.up,
                    "flowing": c.up and c.session is not None and c.session.flowing.is_set(),
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
