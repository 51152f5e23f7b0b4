"""What runs only while this daemon leads: venues, accounts and sinks at work, and what services subscribed.

Without an elector one term lasts as long as the daemon. With one, a term begins with the lead and ends with it,
and the next begins from nothing in another epoch. A reload changes a term that is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import structlog
import trio

from pricefeedd.accounts.keeper import Accounts
from pricefeedd.bus import Bus
from pricefeedd.config import Config
from pricefeedd.config.delta import Delta
from pricefeedd.demand import LINGER_S, Demands, Hold
from pricefeedd.events import PRIVATE_CHANNELS, Origin, State, Status
from pricefeedd.inlet import Inlet
from pricefeedd.instruments import Directory
from pricefeedd.lanes import SinkLanes
from pricefeedd.loader import Plugins
from pricefeedd.offer import Offer
from pricefeedd.registry import Registry
from pricefeedd.roster import Roster
from pricefeedd.runtime import Surroundings, VenueRuntime
from pricefeedd.stats import Stats
from pricefeedd.supervisor import supervise
from pricefeedd.topic import Pattern
from pricefeedd.transport import Dialer, NetworkDialer
from pricefeedd.write_behind import Repository

log = structlog.get_logger("pricefeedd.term")

#: A sink that is taken from the configuration may take so long for what waits.
SINK_ENDS_S = 5.0


@attrs.define(kw_only=True)
class Workplace:
    """What outlives a term, and is the daemon's.

    Attributes:
        config: What the daemon is to do; a reload replaces it.
        plugins: What is installed; a reload may find more.
        runtimes: The venues at work, by section.
        inlet: What the source, if there is one, delivers to.
        repository: Where the subscriptions of services outlive us; None lets them end with the process.
        linger_s: How long a topic that was subscribed on demand is served after its last reader.
    """

    config: Config
    plugins: Plugins
    bus: Bus
    directory: Directory
    stats: Stats
    now_ns: Callable[[], int]
    runtimes: dict[str, VenueRuntime] = attrs.field(factory=dict)
    inlet: Inlet | None = None
    repository: Repository | None = None
    linger_s: float = LINGER_S


class Term:
    """One term.

    Attributes:
        accounts: The accounts at work.
        sinks: The sinks at work, by section.
        subscriptions: Which services subscribed what.
        working: Set once everything was begun.
    """

    def __init__(self, place: Workplace) -> None:
        """Prepare a term; `run` begins it."""
        config = place.config
        self.accounts = Accounts(config.venues, place.plugins.venues)
        self.sinks: dict[str, SinkLanes] = {}
        self.working = trio.Event()
        self._place = place
        self._demands: dict[str, Demands] = {}
        self._offers: dict[str, Offer] = {}
        for name in config.venues:
            self._offer(name)
        self.subscriptions = Registry(
            self._offers, place.bus, now_ns=place.now_ns, repository=place.repository
        )
        self._held: dict[str, dict[str, Hold]] = {}  # by sinks, of topics that they name
        self._ending = trio.Event()
        self._flush_s = 0.0

    def _offer(self, name: str) -> None:
        """Make a configured venue known to readers and services."""
        place = self._place
        config = place.config.venues[name]
        venue = place.plugins.venues[config.plugin or name]
        self._demands[name] = Demands(config, place.bus, linger_s=place.linger_s)
        self._offers[name] = Offer(venue, config, self._demands[name])

    def demand(self, channel: str, venue: str, instrument: str) -> Hold | None:
        """Claim a topic that the configuration offers on demand; None if it does not."""
        demands = self._demands.get(venue)
        return None if demands is None else demands.demand(channel, instrument)

    # --- life ------------------------------------------------------------------------------------------

    async def run(self, dialer: Dialer | None = None) -> None:
        """Work until `end` is called; sinks outlive venues, so that what these brought arrives.

        Args:
            dialer: What reaches venues; the network by default.
        """
        place = self._place
        try:
            async with trio.open_nursery() as sinking:
                self._sinking = Roster(sinking)
                for name in place.config.sinks:
                    self._begin_sink(name)
                sinking.start_soon(self.subscriptions.run, name="subscriptions")
                async with NetworkDialer(now_ns=place.now_ns) as network:
                    await self._source(dialer or network)
                self.subscriptions.close()
                for lanes in self.sinks.values():
                    lanes.end()
                sinking.cancel_scope.deadline = trio.current_time() + self._flush_s
        finally:
            place.runtimes.clear()

    async def _source(self, dialer: Dialer) -> None:
        """Let everything be brought that there is to bring, until the end begins."""
        place = self._place
        async with trio.open_nursery() as sourcing:
            self._sourcing = Roster(sourcing)
            self._around = Surroundings(
                bus=place.bus,
                directory=place.directory,
                stats=place.stats,
                dialer=dialer,
                now_ns=place.now_ns,
                state_dir=place.config.state_dir,
            )
            for name, venue in place.config.venues.items():
                self._begin_venue(name)
                for account in venue.accounts:
                    self._begin_account(name, account)
            if place.inlet is not None:
                run_source = partial(self._run_source, place.inlet)
                self._sourcing.begin(f"source:{place.inlet.section}", run_source)
            try:
                self.working.set()
                await self._ending.wait()
            finally:
                # A reload that is under way finds nobody to begin.
                self.working = trio.Event()
                self._sourcing.close()
                self._sinking.close()
                sourcing.cancel_scope.cancel()

    def end(self, *, flush_s: float) -> None:
        """Let venues go, and then sinks.

        Args:
            flush_s: How long sinks may take for what waits.
        """
        self._flush_s = flush_s
        self._ending.set()

    # --- venues, accounts and the source ----------------------------------------------------------------

    def _begin_venue(self, name: str) -> None:
        run = partial(self._run_venue, name)
        crashed = partial(self._venue_crashed, name)
        keep = partial(supervise, run, what="venue", name=name, crashed=crashed)
        self._sourcing.begin(f"venue:{name}", keep)

    def _begin_account(self, section: str, name: str) -> None:
        run = partial(self.accounts.run_one, section, name, self._around)
        self._sourcing.begin(f"account:{section}:{name}", run)

    async def _run_venue(self, name: str) -> None:
        place = self._place
        config = place.config.venues[name]
        venue = place.plugins.venues[config.plugin or name]
        runtime = VenueRuntime(venue, config, self._around, self._demands[name])
        place.runtimes[name] = runtime
        self._offers[name].venue = runtime.venue
        await runtime.run()

    def _venue_crashed(self, name: str, reason: str) -> None:
        """Let nobody believe what the venue served until it runs again, nor the watchdog wait for it."""
        self._place.runtimes.pop(name, None)
        self._say_down(name, f"the venue's plugin crashed: {reason}")

    def _say_down(self, venue: str, reason: str) -> None:
        place = self._place
        down = []
        for topic in place.bus:
            if topic.venue == venue and topic.channel not in PRIVATE_CHANNELS:
                topic.book = None
                down.append(
                    Status(
                        venue=venue,
                        instrument=topic.instrument,
                        received_ns=place.now_ns(),
                        origin=Origin.DERIVED,
                        topic_channel=topic.channel,
                        state=State.DOWN,
                        reason=reason,
                    )
                )
        place.bus.publish(down)

    async def _run_source(self, inlet: Inlet) -> None:
        """Run the source, begun anew whenever it crashes or ends."""
        config = self._place.config.sources[inlet.section]
        source = self._place.plugins.sources[config.plugin]
        run = partial(source.run, config.settings, inlet)
        crashed = partial(_source_crashed, inlet)
        await supervise(run, what="source", name=inlet.section, crashed=crashed)
        inlet.lost("the source has ended")

    # --- sinks -----------------------------------------------------------------------------------------

    def _begin_sink(self, name: str) -> None:
        place = self._place
        config = place.config.sinks[name]
        self._held[name] = {}
        self._hold_for(name)
        sink = place.plugins.sinks[config.plugin or name]
        lanes = self.sinks[name] = SinkLanes(place.bus, sink, place.config, config)
        self._sinking.begin(f"sink:{name}", lanes.run)

    def _hold_for(self, sink: str) -> None:
        """Claim the topics that a sink names in full: it reads them for as long as it runs."""
        held = self._held[sink]
        for pattern in map(Pattern, self._place.config.sinks[sink].topics):
            if pattern.exact and pattern.text not in held:
                hold = self.demand(pattern.channel, pattern.venue, pattern.instrument)
                if hold is not None:
                    held[pattern.text] = hold

    async def _end_sink(self, name: str) -> None:
        """Let a sink take what waits, and end it."""
        self.sinks[name].end()
        await self._sinking.end(f"sink:{name}", within_s=SINK_ENDS_S)
        for hold in self._held.pop(name).values():
            hold.release()
        del self.sinks[name]

    # --- a reload --------------------------------------------------------------------------------------

    async def follow(self, delta: Delta) -> None:
        """Do what a changed configuration asks for; `Workplace.config` is the new one already."""
        place = self._place
        venues = place.config.venues
        self.accounts.configs, self.accounts.venues = venues, place.plugins.venues
        for section, account in delta.accounts_ended:
            await self._sourcing.end(f"account:{section}:{account}")
            self._forget_account(section, account, drop=(section, account) not in delta.accounts_begun)
        for name in delta.venues_removed:
            await self._sourcing.end(f"venue:{name}")
            self._forget_venue(name)
        for name in (*delta.sinks_removed, *delta.sinks_restarted):
            await self._end_sink(name)
        for name in delta.venues_restarted:
            await self._restart_venue(name)
        for name in delta.venues_changed:
            self._reconfigure(name)
        for name in delta.venues_added:
            self._offer(name)
            self.subscriptions.moved(name)
            self._begin_venue(name)
            for account in venues[name].accounts:
                self._begin_account(name, account)
        for section, account in delta.accounts_begun:
            self._begin_account(section, account)
        for name in (*delta.sinks_added, *delta.sinks_restarted):
            self._begin_sink(name)
        for name in self.sinks:
            self._hold_for(name)

    def _reconfigure(self, name: str) -> None:
        config = self._place.config.venues[name]
        self._offers[name].config = config
        for error in self._demands[name].reconfigure(config):
            log.error("unknown instrument", venue=name, reason=str(error))
        runtime = self._place.runtimes.get(name)
        if runtime is not None:
            runtime.reconfigure(config)

    async def _restart_venue(self, name: str) -> None:
        """Begin a venue anew under other settings; what is held of it stays held."""
        place = self._place
        await self._sourcing.end(f"venue:{name}")
        place.runtimes.pop(name, None)
        self._say_down(name, "begun anew, since its configuration changed")
        config = place.config.venues[name]
        self._offers[name].config = config
        self._demands[name].reconfigure(config)
        self._drop_unheld(name)
        self._begin_venue(name)

    def _drop_unheld(self, name: str) -> None:
        """Drop the topics of a venue that nobody holds; what is configured is begun again at once."""
        demands, bus = self._demands[name], self._place.bus
        for topic in list(bus):
            if (
                topic.venue == name
                and topic.channel not in PRIVATE_CHANNELS
                and (topic.channel, topic.instrument) not in demands
            ):
                bus.drop(topic)

    def _forget_venue(self, name: str) -> None:
        place = self._place
        place.runtimes.pop(name, None)
        self._say_down(name, "taken from the configuration")
        del self._offers[name], self._demands[name]
        for topic in list(place.bus):
            if topic.venue == name:
                place.bus.drop(topic)
        for held in self._held.values():
            for text in [text for text in held if Pattern(text).venue == name]:
                del held[text]
        self.subscriptions.moved(name)
        place.directory.drop(name)
        place.stats.drop(name)

    def _forget_account(self, section: str, account: str, *, drop: bool) -> None:
        """Let nobody believe an account's topics, which are begun anew; or drop them, as it is configured no longer."""
        place = self._place
        mine = [
            topic
            for topic in place.bus
            if topic.venue == section and topic.channel in PRIVATE_CHANNELS and topic.instrument == account
        ]
        reason = "taken from the configuration" if drop else "begun anew, since its configuration changed"
        place.bus.publish(
            Status(
                venue=section,
                instrument=account,
                received_ns=place.now_ns(),
                origin=Origin.DERIVED,
                topic_channel=topic.channel,
                state=State.DOWN,
                reason=reason,
            )
            for topic in mine
        )
        if drop:
            for topic in mine:
                place.bus.drop(topic)
            place.stats.drop(section, account=account)

    def renew(self) -> None:
        """Let sinks begin anew in another epoch of the upstream."""
        for lanes in self.sinks.values():
            lanes.renew()

    # --- what operators ask ----------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status`."""
        place = self._place
        now_ns = place.now_ns()
        return {
            "sessions": {name: runtime.describe() for name, runtime in place.runtimes.items()},
            "accounts": self.accounts.describe(),
            "sinks": {name: lanes.describe(now_ns) for name, lanes in self.sinks.items()},
            "source": None if place.inlet is None else place.inlet.describe(),
        }


def _source_crashed(inlet: Inlet, reason: str) -> None:
    inlet.lost(f"the source's plugin crashed: {reason}")
