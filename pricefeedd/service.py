"""The nursery tree of the daemon: readers outlive sinks, sinks outlive venues.

Shutdown goes the other way: venues are let go first, what they brought reaches sinks and readers, readers
are told goodbye, and the listeners close last.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
import trio

from pricefeedd import __version__, notify
from pricefeedd.accounts.keeper import Accounts
from pricefeedd.bus import Bus
from pricefeedd.config import Config
from pricefeedd.demand import LINGER_S, Demands, Hold
from pricefeedd.errors import ServiceAwayError
from pricefeedd.events import PRIVATE_CHANNELS, Origin, State, Status
from pricefeedd.inlet import Inlet
from pricefeedd.instruments import Directory
from pricefeedd.lanes import SinkLanes
from pricefeedd.loader import Plugins
from pricefeedd.mirror import Mirror
from pricefeedd.offer import Offer
from pricefeedd.registry import Registry
from pricefeedd.runtime import Surroundings, VenueRuntime
from pricefeedd.stats import Stats
from pricefeedd.store.archive import Archive
from pricefeedd.supervisor import supervise
from pricefeedd.topic import Pattern
from pricefeedd.transport import Dialer, NetworkDialer
from pricefeedd.web.app import create_app
from pricefeedd.web.listen import serve
from pricefeedd.web.readers import Readers
from pricefeedd.write_behind import Repository

log = structlog.get_logger("pricefeedd.service")

#: Everything must be over this long after SIGTERM; sinks get half of it to flush.
SHUTDOWN_S = 10.0
#: A venue whose loop did not turn for this long is stuck, and the systemd watchdog is not fed.
STUCK_S = 15.0


class Daemon:
    """All parts of one running daemon, as the web edge and the tests see them."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        linger_s: float = LINGER_S,
        subscriptions: Repository | None = None,
    ) -> None:
        """Prepare a daemon.

        Args:
            linger_s: How long a topic that was subscribed on demand is served after its last reader.
            subscriptions: Where the subscriptions of services outlive us; None lets them end with the process.
        """
        self.config = config
        self.plugins = plugins.records
        self.now_ns = now_ns
        history = config.web.history_events
        self.bus = Mirror(history=history) if config.sources else Bus(history=history)
        self.directory = Directory()
        self.stats = Stats(started_ns=now_ns())
        self.runtimes: dict[str, VenueRuntime] = {}
        self.accounts = Accounts(config.venues, plugins.venues)
        self.sinks: dict[str, SinkLanes] = {}
        self.inlet: Inlet | None = None
        for name, source in config.sources.items():
            assert isinstance(self.bus, Mirror), "there is a source"
            place = config.state_dir / "sources" / name
            self.inlet = Inlet(self.bus, source, self.directory, state_dir=place, now_ns=now_ns)
        self.binds: list[str] = []
        self._demands = {
            name: Demands(venue, self.bus, linger_s=linger_s) for name, venue in config.venues.items()
        }
        self._loaded = plugins
        self._offers = {
            name: Offer(plugins.venues[venue.plugin or name], venue, self._demands[name])
            for name, venue in config.venues.items()
        }
        self.archive = Archive(config, self.bus, self.directory, self.runtimes, now_ns=now_ns)
        if subscriptions is None and self.archive.store is not None:
            subscriptions = self.archive.store.subscriptions
        self.subscriptions = Registry(self._offers, self.bus, now_ns=now_ns, repository=subscriptions)
        self._stop = trio.Event()

    @property
    def epoch(self) -> str:
        """One life of all streams."""
        return self.bus.epoch

    def stop(self) -> None:
        """Begin to shut down."""
        self._stop.set()

    def demand(self, channel: str, venue: str, instrument: str) -> Hold | None:
        """Claim a topic that the configuration offers on demand, until the hold is released; None if it does not.

        The topic is on the bus when this returns, and subscribed at the venue soon after.
        """
        demands = self._demands.get(venue)
        return None if demands is None else demands.demand(channel, instrument)

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status`."""
        return {
            "version": __version__,
            "sessions": {name: runtime.describe() for name, runtime in self.runtimes.items()},
            "accounts": self.accounts.describe(),
            "store": self.archive.describe(),
            "sinks": {name: lanes.describe(self.now_ns()) for name, lanes in self.sinks.items()},
            "source": None if self.inlet is None else self.inlet.describe(),
        }

    async def run(
        self,
        *,
        dialer: Dialer | None = None,
        signals: bool = False,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until stopped.

        Args:
            dialer: What reaches venues; the network by default.
            signals: Stop on SIGTERM and SIGINT, and survive SIGHUP.

        Raises:
            ServiceAwayError: A listener's address is taken.
        """
        for key in unserved(self.config):
            log.warning("configured, but this version does not serve it", key=key)
        app = create_app(self)
        if isinstance(self.bus, Mirror):
            self.bus.on_renewal = partial(self._renew, app.readers)
            self.bus.on_upstream = app.readers.tell_upstream
        async with trio.open_nursery() as serving:
            stop_web = trio.Event()
            self.binds = await serving.start(_serve, self, app, stop_web)
            async with self.archive.running(), trio.open_nursery() as sinking:
                for name in self.config.sinks:
                    self._begin_sink(name, sinking)
                sinking.start_soon(self.subscriptions.run, name="subscriptions")
                async with trio.open_nursery() as sourcing:
                    sourcing.start_soon(self._until_stopped, sourcing.cancel_scope, name="stop")
                    if signals:
                        await sourcing.start(self._signals, name="signals")
                    sourcing.start_soon(self._watchdog, name="watchdog")
                    sourcing.start_soon(self._source, dialer, name="venues")
                    if self.inlet is not None:
                        sourcing.start_soon(self._run_source, self.inlet, name=f"source:{self.inlet.section}")
                    # What is there now stays. Of what comes little is ever in a cycle: to look for it as often as
                    # Python does by default costs a reader that connects a sixth more.
                    gc.collect()
                    gc.freeze()
                    gc.set_threshold(100_000, 50, 1_000)
                    task_status.started(self.binds)
                    notify.ready(f"serving on {', '.join(self.binds)}")
                    log.info("serving", binds=self.binds, version=__version__, epoch=self.epoch)
                notify.stopping()
                log.info("stopping")
                self.subscriptions.close()
                for lanes in self.sinks.values():
                    lanes.end()
                sinking.cancel_scope.deadline = trio.current_time() + SHUTDOWN_S / 2
            stop_web.set()
        log.info("stopped")

    async def _source(self, dialer: Dialer | None) -> None:
        """Run all venues."""
        async with NetworkDialer(now_ns=self.now_ns) as network:
            around = Surroundings(
                bus=self.bus,
                directory=self.directory,
                stats=self.stats,
                dialer=dialer or network,
                now_ns=self.now_ns,
                state_dir=self.config.state_dir,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.accounts.run, around, name="accounts")
                for name in self.config.venues:
                    run = partial(self._run_venue, name, around)
                    crashed = partial(self._venue_crashed, name)
                    keep = partial(supervise, run, what="venue", name=name, crashed=crashed)
                    nursery.start_soon(keep, name=f"venue:{name}")

    async def _run_source(self, inlet: Inlet) -> None:
        """Run the source, begun anew whenever it crashes or ends."""
        config = self.config.sources[inlet.section]
        source = self._loaded.sources[config.plugin]
        run = partial(source.run, config.settings, inlet)
        crashed = partial(_source_crashed, inlet)
        await supervise(run, what="source", name=inlet.section, crashed=crashed)
        inlet.lost("the source has ended")

    def _renew(self, readers: Readers) -> None:
        """Let everybody begin anew in another epoch."""
        for lanes in self.sinks.values():
            lanes.renew()
        readers.renew()

    async def _run_venue(self, name: str, around: Surroundings) -> None:
        config = self.config.venues[name]
        runtime = VenueRuntime(
            self._loaded.venues[config.plugin or name], config, around, self._demands[name]
        )
        self.runtimes[name] = runtime
        self._offers[name].venue = runtime.venue
        await runtime.run()

    def _venue_crashed(self, name: str, reason: str) -> None:
        """Let nobody believe what the venue served until it runs again, nor the watchdog wait for it."""
        self.runtimes.pop(name, None)
        down = []
        for topic in self.bus:
            if topic.venue == name and topic.channel not in PRIVATE_CHANNELS:
                topic.book = None
                down.append(
                    Status(
                        venue=name,
                        instrument=topic.instrument,
                        received_ns=self.now_ns(),
                        origin=Origin.DERIVED,
                        topic_channel=topic.channel,
                        state=State.DOWN,
                        reason=f"the venue's plugin crashed: {reason}",
                    )
                )
        self.bus.publish(down)

    def _begin_sink(self, name: str, nursery: trio.Nursery) -> None:
        config = self.config.sinks[name]
        for pattern in map(Pattern, config.topics):
            if pattern.exact:  # a sink that names a topic reads it for as long as it runs
                self.demand(pattern.channel, pattern.venue, pattern.instrument)
        sink = self._loaded.sinks[config.plugin or name]
        lanes = self.sinks[name] = SinkLanes(self.bus, sink, self.config, config)
        nursery.start_soon(lanes.run, name=f"sink:{name}")

    async def _until_stopped(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()

    async def _signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        wanted = [signal.SIGTERM, signal.SIGINT]
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none
        if hangup is not None:
            wanted.append(hangup)
        with trio.open_signal_receiver(*wanted) as received:
            task_status.started()
            async for number in received:
                if number == hangup:
                    log.warning("SIGHUP changes nothing while running; restart to apply a new configuration")
                    continue
                log.info("signal", signal=signal.Signals(number).name)
                self.stop()

    async def _watchdog(self) -> None:
        """Feed systemd's watchdog while every venue's loop turns."""
        interval_s = notify.watchdog_interval_s()
        if interval_s is None:
            return
        while True:
            now = trio.current_time()
            stuck = [name for name, r in self.runtimes.items() if now - r.last_turn > STUCK_S]
            if stuck:
                log.error("venue loop is stuck", venues=stuck)
            else:
                notify.watchdog()
            await trio.sleep(interval_s)


def _source_crashed(inlet: Inlet, reason: str) -> None:
    inlet.lost(f"the source's plugin crashed: {reason}")


async def _serve(
    daemon: Daemon, app: Any, stop: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    web = daemon.config.web
    try:
        await serve(
            app,
            listen=web.listen,
            admin_listen=web.admin_listen,
            tls=web.tls,
            max_clients=web.max_clients,
            compression=web.compression,
            shutdown=stop.wait,
            task_status=task_status,
        )
    except OSError as e:
        listen = ", ".join([*web.listen, *web.admin_listen])
        raise ServiceAwayError(
            f"cannot listen on {listen}: {e.strerror or e}; is pricefeedd running already?"
        ) from e


def unserved(config: Config) -> list[str]:
    """Return the keys that ask for what this version does not do: they are told, never silently ignored."""
    found = []
    if config.metrics.compat:
        found.append("metrics.compat")
    return found
