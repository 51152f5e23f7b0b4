"""One venue at work: the loop through which all that comes passes its gates, and the parts around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
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
from pricefeedd.breaker import Circuit
from pricefeedd.bus import Bus
from pricefeedd.config import SubscribeConfig, VenueConfig
from pricefeedd.demand import Demands
from pricefeedd.events import Event, State
from pricefeedd.explain.venue import Parts, topic_facts
from pricefeedd.gate import Gate
from pricefeedd.instruments import Directory, UnknownInstrumentError
from pricefeedd.keepers import Breakers, Keepers
from pricefeedd.limits import Bucket
from pricefeedd.market import Market
from pricefeedd.on_demand import TOPICS_AT_ONCE, OnDemand
from pricefeedd.plan import Connection, Plan
from pricefeedd.served import ServedTopics
from pricefeedd.session import Batch, Item, Link, Tap
from pricefeedd.stats import MarketStats, Stats
from pricefeedd.subscriptions import StreamRefused, StreamsAccepted
from pricefeedd.supervisor import Lost
from pricefeedd.transport import Dialer
from pricefeedd.venue import Feed, Venue
from pricefeedd.wants import Wants

log = structlog.get_logger("pricefeedd.runtime")

#: Batches between the sessions of a venue and its gate. When it is full the sessions wait, and then their
#: sockets: we are short of CPU, and TCP tells the venue.
BATCHES = 64
#: Readers wait no longer than this for what is at hand to be passed on; then they are flushed, and others have a turn.
TURN_S = 0.002
TICK_S = 1.0
#: The wall clock may drift from the steady one by this much between two ticks; more is a jump.
CLOCK_JUMP_NS = 2_000_000_000
#: Instrument lists are read again this often: new listings appear, contracts expire.
RELOAD_S = 3600.0


@attrs.frozen
class Tick:
    """A second went by."""


#: What passes through the gates, or tells them something.
Input = Item | Lost | Tick | Fetched


@attrs.frozen(kw_only=True)
class Surroundings:
    """What every venue's runtime needs of the daemon.

    Attributes:
        now_ns: Wall clock, ns since the Unix epoch UTC.
        tap: Given each frame, for recordings; of public data only.
        rest_tap: Given each REST answer, for recordings; of public data only.
        state_dir: Where what outlives a restart is kept; None to keep nothing.
        buckets: Rate budgets by name, by the section of their venue: they belong to this address, whoever asks.
    """

    bus: Bus
    directory: Directory
    stats: Stats
    dialer: Dialer
    now_ns: Callable[[], int]
    tap: Tap | None = None
    rest_tap: RestTap | None = None
    state_dir: Path | None = None
    buckets: dict[str, dict[str, Bucket]] = attrs.field(factory=dict)

    def budgets(self, section: str, venue: Venue) -> dict[str, Bucket]:
        """Return the rate budgets of a venue."""
        found = self.buckets.setdefault(section, {})
        for budget in venue.budgets:
            found.setdefault(budget.name, Bucket(budget))
        return found


class VenueRuntime:
    """One venue at work.

    Attributes:
        markets: Those that were begun, by name.
        demands: What readers claim of it beyond what is configured to be served always.
        last_turn: Trio time at which the loop last looked at the clock.
    """

    def __init__(
        self, venue: Venue, config: VenueConfig, around: Surroundings, demands: Demands | None = None
    ) -> None:
        """Prepare a venue.

        Args:
            demands: What is claimed already; none by default.
        """
        self.venue = venue.configure(venue, config.settings)
        self.config = config
        self.name = config.name
        self.endpoints = {**self.venue.endpoints, **config.endpoints}
        self.around = around
        self.markets: dict[str, Market] = {}
        self.last_turn = trio.current_time()
        self._last_turn_ns = 0
        self._jumped: tuple[float, float] | None = (
            None  # when the wall clock did last, and by how many seconds
        )
        self.buckets = around.budgets(self.name, self.venue)
        self.demands = demands or Demands(config, around.bus)
        self._send, self._receive = trio.open_memory_channel[tuple[str, Input]](BATCHES)
        self._breakers = Breakers(self.venue, config, around.stats, self.markets.keys())
        self.rest = RestClient(
            self.venue,
            self.endpoints,
            dialer=around.dialer,
            buckets=self.buckets,
            breaker=self._breakers.of,
            tap=around.rest_tap,
        )
        backfill = Backfill(
            self.rest,
            self.venue,
            deliver=self._emit,
            stats=partial(around.stats.market, self.name),
            now_ns=around.now_ns,
        )
        self._plan = Plan(self.venue, per_connection=config.session.instruments_per_connection)
        self._keepers = Keepers(
            self.name,
            self._plan,
            link=self._link,
            breakers=self._breakers,
            buckets=self.buckets,
            tell=self._emit,
        )
        self._wants = Wants(self.name, self._plan, backfill)
        self._served = ServedTopics(
            self.name,
            self.venue,
            bus=around.bus,
            now_ns=around.now_ns,
            plan=self._plan,
            keepers=self._keepers,
            wants=self._wants,
        )
        self._on_demand = OnDemand(self.demands, self._served, self.markets, around.bus)
        self._reconfigured = trio.Event()

    @property
    def connections(self) -> list[Connection]:
        """All connections that were planned."""
        return self._plan.connections

    @property
    def planned(self) -> int:
        """How many streams are asked for at the venue."""
        return len(self._plan)

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the venue until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._loop, nursery, name=f"gate:{self.name}")
            nursery.start_soon(self._tick, name=f"tick:{self.name}")
            nursery.start_soon(self._begin_markets, nursery, name=f"markets:{self.name}")
            nursery.start_soon(self._on_demand.run, nursery, name=f"demands:{self.name}")
            nursery.start_soon(self._follow, nursery, name=f"configuration:{self.name}")

    async def _emit(self, market: str, item: Input) -> None:
        try:
            self._send.send_nowait((market, item))
        except trio.WouldBlock:
            if type(item) is Batch:
                self.markets[market].stats.blocked += 1
            await self._send.send((market, item))

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            await self._emit("", Tick())

    # --- the loop: the only owner of the gates ----------------------------------------------------------

    async def _loop(self, nursery: trio.Nursery) -> None:
        """Pass everything through the gates to the bus, in the order in which it came.

        Readers are flushed when nothing more is at hand, so that under load their frames leave together.
        """
        bus, receive, now_ns = self.around.bus, self._receive, self.around.now_ns
        while True:
            market, item = await receive.receive()
            until = trio.current_time() + TURN_S
            handed = bus.handed
            # Which market's events were published when in this turn, and how many: a look at the clock for each
            # batch and one at the end is all that the latencies cost.
            turn: list[tuple[MarketStats, int, int]] = []
            while True:
                more: tuple[str, Input] | None = None
                if trio.current_time() < until:
                    with suppress(trio.WouldBlock):
                        more = receive.receive_nowait()
                found = self._turn_over(market, item, nursery)
                if found:
                    if type(item) is Batch:
                        stats, at_ns, count = self.markets[market].stats, now_ns(), len(found)
                        stats.published.observe_ns(max(at_ns - item.events[0].received_ns, 0), count)
                        turn.append((stats, at_ns, count))
                    bus.publish(found, flush=more is None)
                if more is None:
                    break
                market, item = more
            bus.flush()
            if turn and bus.handed != handed:
                sent_ns = now_ns()
                for stats, at_ns, count in turn:
                    stats.sent.observe_ns(max(sent_ns - at_ns, 0), count)

    def _turn_over(self, market: str, item: Input, nursery: trio.Nursery) -> list[Event]:
        """Pass one thing through its gate; return what is to be published."""
        out: list[Event] = []
        if type(item) is not Batch or item.events[0].venue != self.name:
            self._rename(item)
        if type(item) is Batch:
            gate = self.markets[market].gate
            gate.admit(item.events, out, item.carrier)
            if out:
                out = gate.derive(out)
            if gate.context.wants:
                self._wants.begin(self.markets[market], nursery)
            return out
        now_ns = self.around.now_ns()
        if type(item) is Tick:
            self._watch_clock(now_ns)
            self._tell_open_circuits(now_ns, out)
            self._on_demand.note_idle(now_ns)
            for at_work in self.markets.values():
                gate = at_work.gate
                told: list[Event] = []
                gate.tick(now_ns, told)
                out += gate.derive(told)
                made: list[Event] = []
                gate.derivations.tick(now_ns, made)
                out += gate.derive(made)
                self._count(at_work)
                at_work.stats.mark(now_ns)
        else:
            gate = self.markets[market].gate
            self._turn(gate, item, now_ns, out)
            out = gate.derive(out)
        for at_work in self.markets.values():
            if at_work.gate.context.wants:
                self._wants.begin(at_work, nursery)
        return out

    def _rename(self, item: Input) -> None:
        """Put the section's name on events: the codec only knows its plugin's, and one may serve several."""
        events: Iterable[Event] = ()
        match item:
            case Batch():
                events = item.events
            case BookFetched():
                events = () if item.book is None else (item.book,)
            case TradesFetched():
                events = item.trades or ()
            case CandlesFetched():
                events = item.candles or ()
        for event in events:
            event.venue = self.name  # not shared with anybody yet

    def _tell_open_circuits(self, now_ns: int, out: list[Event]) -> None:
        """Say of all connections with an endpoint that is given up for now what the last one to try says."""
        for connection in self.connections:
            breaker = self._breakers.get(connection.feed.endpoint)
            market = self.markets.get(connection.feed.market)
            if breaker is None or market is None or connection.up or breaker.state is not Circuit.OPEN:
                continue
            told: list[Event] = []
            for topic in connection.all_topics():
                line = market.gate.line(*topic)
                if line is not None and not line.carriers and line.state is State.CONNECTING:
                    line.say(State.DOWN, connection.last_error or line.reason or "", now_ns, told)
            out += market.gate.derive(told)

    def _watch_clock(self, now_ns: int) -> None:
        """Find jumps of the wall clock by the steady one, so that no line takes them for silence."""
        turn = trio.current_time()
        jump_ns = now_ns - self._last_turn_ns - int((turn - self.last_turn) * 1e9)
        if self._last_turn_ns and abs(jump_ns) > CLOCK_JUMP_NS:
            log.warning("the clock jumped", venue=self.name, seconds=round(jump_ns / 1e9, 1))
            self._jumped = (turn, jump_ns / 1e9)
            for market in self.markets.values():
                market.gate.shift(jump_ns)
        self.last_turn, self._last_turn_ns = turn, now_ns

    def _turn(self, gate: Gate, item: Any, now_ns: int, out: list[Event]) -> None:
        """Tell a gate what became of its streams, or what was fetched."""
        match item:
            case StreamsAccepted(carrier, streams):
                gate.accepted(carrier, self._plan.topics(streams), now_ns, out)
            case StreamRefused(_, stream, reason, final):
                if final:
                    for connection in self.connections:
                        connection.refuse(stream, reason)
                topics = self._plan.topics([stream])
                gate.refused(topics, f"refused by the venue: {reason}", now_ns, out, final=final)
            case Lost(carrier, topics, reason, state):
                gate.lost(carrier, topics, reason, now_ns, out, state=state)
            case BookFetched(want, book):
                gate.book_fetched(want.instrument, book, now_ns, out)
            case TradesFetched(want, trades):
                gate.trades_fetched(want.instrument, trades, now_ns, out)
            case CandlesFetched(want, candles, venue_ns):
                gate.context.clock.latest_ns = max(gate.context.clock.latest_ns, venue_ns)
                gate.candles_fetched(want, candles, now_ns, out)

    @staticmethod
    def _count(market: Market) -> None:
        counts = dict(market.gate.past)
        topics = live = 0
        for line in market.gate:
            counts[line.channel] = counts.get(line.channel, 0) + line.count
            topics += 1
            live += line.state is State.LIVE
        market.stats.events, market.stats.topics, market.stats.live = counts, topics, live

    # --- what feeds it ---------------------------------------------------------------------------------

    async def _begin_markets(self, nursery: trio.Nursery) -> None:
        """Begin the markets of the configuration, and others as soon as somebody needs them."""
        begun: dict[str, None] = {}
        fresh = [subscribe.market for subscribe in self.config.subscribe]
        while True:
            for market in dict.fromkeys(fresh):
                begun[market] = None
                nursery.start_soon(self._market, market, nursery, name=f"market:{self.name}:{market}")
            fresh = await self.demands.called(begun)

    async def _market(self, name: str, nursery: trio.Nursery) -> None:
        """Learn a market's instruments and have what is configured begun, again and again."""
        stats = self.around.stats.market(self.name, name)
        market = self.markets[name] = Market(name, self.venue, self.config, stats)
        unknown = await self._learn(market, nursery)
        while True:
            await trio.sleep(RELOAD_S)
            if unknown or name in self.demands.markets():
                unknown = await self._learn(market, nursery)

    def _configured(self, market: Market) -> list[SubscribeConfig]:
        """Return what of a market is to be served always."""
        return [s for s in self.config.subscribe if s.market == market.name and not s.on_demand]

    async def _learn(self, market: Market, nursery: trio.Nursery) -> bool:
        """Load the instruments and begin what is not yet served; return whether something stays unknown."""
        instruments = await market.load(
            self.rest, now_ns=self.around.now_ns, delayed=partial(self._on_demand.tell_waiting, market)
        )
        self.around.directory.put(instruments)
        wrong = self.demands.know(instruments)
        wrong += self._served.begin_configured(market, self._configured(market), nursery)
        self._tell_unknown(wrong)
        self._on_demand.begin_waiting(nursery)
        return bool(wrong)

    def _tell_unknown(self, wrong: Iterable[UnknownInstrumentError]) -> None:
        for error in wrong:
            log.error("unknown instrument", venue=self.name, reason=str(error))

    def reconfigure(self, config: VenueConfig) -> None:
        """Serve what another configuration says, which differs only in that; `demands` knows it already."""
        self.config = config
        self._reconfigured.set()

    async def _follow(self, nursery: trio.Nursery) -> None:
        """Let go of what is configured no longer, and begin what is new; all other topics notice nothing."""
        while True:
            await self._reconfigured.wait()
            self._reconfigured = trio.Event()
            known = [market for market in self.markets.values() if market.instruments is not None]
            gone = self._served.unfix({market: self._configured(market) for market in known})
            for number, topic in enumerate(gone, 1):
                if topic not in self.demands:
                    self._served.let_go(topic, "taken from the configuration")
                if number % TOPICS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            self._served.retry_full(nursery)
            for market in known:
                self._tell_unknown(self._served.begin_configured(market, self._configured(market), nursery))
                self._on_demand.begin_waiting(nursery)
                await trio.lowlevel.checkpoint()

    def _link(self, market: Market, feed: Feed) -> Link:
        """Return what a new session of a feed needs."""
        return Link(
            venue=self.name,
            codec=self.venue.codec,
            feed=feed,
            url=self.endpoints[feed.endpoint],
            names=market.names,
            dialer=self.around.dialer,
            stats=market.stats,
            now_ns=self.around.now_ns,
            emit=partial(self._emit, market.name),
            bucket=self.buckets.get(feed.request_budget),
            tap=self.around.tap,
            patience_s=self.config.session.stale_after_s,
        )

    # --- what operators ask ----------------------------------------------------------------------------

    def explain(self, channel: str, instrument: str) -> dict[str, Any]:
        """Return what is known of a topic of the venue, whether it is served or not: see `explain`."""
        now, now_ns = trio.current_time(), self.around.now_ns()
        parts = Parts(
            venue=self.venue,
            config=self.config,
            markets=self.markets,
            served=self._served,
            plan=self._plan,
            keepers=self._keepers,
            wants=self._wants,
            breakers=self._breakers,
            buckets=self.buckets,
            demands=self.demands,
        )
        at, by_s = self._jumped or (None, None)
        clock = {
            "jumped_s": None if at is None else round(now - at, 1),
            "by_s": None if by_s is None else round(by_s, 1),
        }
        facts = topic_facts(parts, (channel, instrument), now=now, now_ns=now_ns)
        return facts | {"clock": clock, "loop_s": round(now - self.last_turn, 1)}

    def describe(self) -> dict[str, Any]:
        """Return facts about the venue for `/status`."""
        now = trio.current_time()
        return {
            "plugin": self.venue.name,
            "markets": sorted(self.markets),
            "endpoints": self.endpoints,
            "breakers": self._breakers.states(),
            "on_demand": {"held": self.demands.held, "leaving": self.demands.leaving},
            "budgets": {name: bucket.describe(now)["left"] for name, bucket in self.buckets.items()},
            "budget_limits": {
                name: bucket.describe(now)["capacity"] for name, bucket in self.buckets.items()
            },
            "queue": {"batches": self._send.statistics().current_buffer_used, "limit": BATCHES},
            "clock": _seconds(self.rest.clock.bounds_ns(self.around.now_ns())),
            "connections": [connection.describe(now) for connection in self.connections],
        }


def _seconds(bounds_ns: tuple[int, int] | None) -> dict[str, float] | None:
    """Return by how much the venue's clock is ahead at least and at most."""
    if bounds_ns is None:
        return None
    least_ns, most_ns = bounds_ns
    return {"least_s": round(least_ns / 1e9, 3), "most_s": round(most_ns / 1e9, 3)}
