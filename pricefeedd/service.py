"""The nursery tree of the daemon: readers outlive sinks, sinks outlive venues.

Shutdown goes the other way: venues are let go first, what they brought reaches sinks and readers, readers
are told goodbye, and the listeners close last.
"""

from __future__ import annotations

import errno
import gc
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog
import trio

from pricefeedd import __version__, logs, notify
from pricefeedd.accounts.keeper import Accounts
from pricefeedd.bus import Bus
from pricefeedd.config import Config
from pricefeedd.demand import LINGER_S, Hold
from pricefeedd.errors import ServiceAwayError
from pricefeedd.explain.assembly import explain
from pricefeedd.inlet import Inlet
from pricefeedd.instruments import Directory
from pricefeedd.lanes import SinkLanes
from pricefeedd.leader.health import until_unhealthy
from pricefeedd.leader.lead import Lead
from pricefeedd.loader import Plugins
from pricefeedd.loop_watch import watch_loop
from pricefeedd.mirror import Mirror
from pricefeedd.registry import Registry
from pricefeedd.reload import Reloader, Reread
from pricefeedd.roster import first_of
from pricefeedd.runtime import VenueRuntime
from pricefeedd.stats import Stats
from pricefeedd.store.archive import Archive
from pricefeedd.supervisor import supervise
from pricefeedd.term import Term, Workplace
from pricefeedd.transport import Dialer
from pricefeedd.web.app import WebApp, create_app
from pricefeedd.web.listen import serve
from pricefeedd.write_behind import Repository

log = structlog.get_logger("pricefeedd.service")

#: Everything must be over this long after SIGTERM; sinks get half of it to flush.
SHUTDOWN_S = 10.0
#: Where others wait to lead, sinks get so long: what may not be lost stays on disk.
HAND_OVER_S = 0.4
#: Objects that point at each other and have grown old are looked for this often: sessions, connections and their errors.
#: It holds up the loop for some 10 ms per 100 000 objects.
COLLECT_S = 900.0
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
        reread: Reread | None = None,
    ) -> None:
        """Prepare a daemon.

        Args:
            linger_s: How long a topic that was subscribed on demand is served after its last reader.
            subscriptions: Where the subscriptions of services outlive us; None lets them end with the process.
            reread: Reads the configuration again, for reloads; None where there is no file.
        """
        self.now_ns = now_ns
        self.lead = Lead(config.leader.elector)
        history = config.web.history_events
        if config.sources:
            self.bus: Bus = Mirror(history=history)
        else:
            epoch = None if self.lead.leads else ""
            self.bus = Bus(epoch, history=history, lease=self.lead.lease)
        self.directory = Directory()
        self.stats = Stats(started_ns=now_ns())
        self._place = Workplace(
            config=config,
            plugins=plugins,
            bus=self.bus,
            directory=self.directory,
            stats=self.stats,
            now_ns=now_ns,
            linger_s=linger_s,
        )
        for name, source in config.sources.items():
            assert isinstance(self.bus, Mirror), "there is a source"
            where = config.state_dir / "sources" / name
            self._place.inlet = Inlet(self.bus, source, self.directory, state_dir=where, now_ns=now_ns)
        self.archive = Archive(config, self.bus, self.directory, self.runtimes, now_ns=now_ns)
        if subscriptions is None and self.archive.store is not None:
            subscriptions = self.archive.store.subscriptions
        self._place.repository = subscriptions
        self._term = Term(self._place)
        self.reloader = Reloader(
            self._place, self._follow, reread, renew=lambda: self._app.renew_certificate()
        )
        self.binds: list[str] = []
        self._stop = trio.Event()

    @property
    def config(self) -> Config:
        """What it is to do, after the last reload."""
        return self._place.config

    @property
    def plugins(self) -> Any:
        """Records of the plugins that were found."""
        return self._place.plugins.records

    @property
    def runtimes(self) -> dict[str, VenueRuntime]:
        """The venues at work, by section."""
        return self._place.runtimes

    @property
    def inlet(self) -> Inlet | None:
        """What the source delivers to; None without one."""
        return self._place.inlet

    @property
    def sinks(self) -> dict[str, SinkLanes]:
        """The sinks at work, by section."""
        return self._term.sinks

    @property
    def accounts(self) -> Accounts:
        """The accounts at work."""
        return self._term.accounts

    @property
    def subscriptions(self) -> Registry:
        """Which services subscribed what."""
        return self._term.subscriptions

    @property
    def epoch(self) -> str:
        """One life of all streams; "" on standby."""
        return self.bus.epoch

    @property
    def standby(self) -> str:
        """Why nothing is served here, because another daemon leads; "" while this one does."""
        return self.lead.standby

    def stop(self) -> None:
        """Begin to shut down."""
        self._stop.set()

    def demand(self, channel: str, venue: str, instrument: str) -> Hold | None:
        """Claim a topic that the configuration offers on demand, until the hold is released; None if it does not.

        The topic is on the bus when this returns, and subscribed at the venue soon after.
        """
        return self._term.demand(channel, venue, instrument)

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status`."""
        return {
            "version": __version__,
            **self._term.describe(),
            "store": self.archive.describe(),
            "leader": self.lead.describe(),
            "reload": self.reloader.describe(),
        }

    def explain(self, topic: str) -> dict[str, Any]:
        """Return why a topic is as it is; who may know of it was asked before."""
        return explain(topic, self)

    # --- life ------------------------------------------------------------------------------------------

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
            signals: Stop on SIGTERM and SIGINT, and reload on SIGHUP.

        Raises:
            ServiceAwayError: A listener's address is taken.
        """
        for fd in notify.unused_fds([*self.config.web.listen, *self.config.web.admin_listen]):
            log.warning("systemd opened a socket that [web] listen does not name", listen=fd)
        self._app = app = create_app(self)
        if isinstance(self.bus, Mirror):
            self.bus.on_renewal = partial(self._renew, app)
            self.bus.on_upstream = app.readers.tell_upstream
        async with trio.open_nursery() as serving:
            stop_web = trio.Event()
            self.binds = await serving.start(_serve, self, app, stop_web)
            async with self.archive.running(), trio.open_nursery() as minding:
                if signals:
                    await minding.start(self._signals, name="signals")
                minding.start_soon(self.reloader.run, name="reload")
                minding.start_soon(self._watchdog, name="watchdog")
                minding.start_soon(watch_loop, self.stats, name="loop")
                minding.start_soon(_collect, name="collect")
                minding.start_soon(self._announce, task_status, name="announce")
                await self._work(dialer)
                minding.cancel_scope.cancel()
            stop_web.set()
        log.info("stopped")

    async def _announce(self, task_status: trio.TaskStatus[list[str]]) -> None:
        """Say that we serve, once venues are begun, or we wait to lead."""
        if self.lead.elector == "none":
            await self._term.working.wait()
        # What is there now stays. Of what comes little is ever in a cycle: to look for it as often as
        # Python does by default costs a reader that connects a sixth more.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 1_000)
        task_status.started(self.binds)
        notify.ready(f"serving on {', '.join(self.binds)}")
        log.info("serving", binds=self.binds, version=__version__, epoch=self.epoch, standby=self.standby)

    async def _work(self, dialer: Dialer | None) -> None:
        """Let term follow term until we are told to stop."""
        if self.lead.elector == "none":
            await self._serve_term(dialer)
            return
        elector = self._place.plugins.electors[self.lead.elector]
        await self._load_sinks()
        while not self._stop.is_set():
            unhealthy = False
            async with trio.open_nursery() as standing:
                standing.start_soon(self._elect, elector.run, name=f"elector:{elector.name}")
                await first_of(self.lead.won, self._stop.wait)
                if not self._stop.is_set():
                    unhealthy = await self._serve_term(dialer)
                # Nothing is published any more: now another may lead.
                if self.lead.leads:
                    self.lead.lost("it was given up")
                standing.cancel_scope.cancel()
            if unhealthy:
                rest_s = self.config.leader.rest_s
                log.warning("lead given up: all venues were unhealthy", rest_s=rest_s)
                with trio.move_on_after(rest_s):
                    await self._stop.wait()

    async def _load_sinks(self) -> None:
        """Import what sinks need, so that who gains the lead publishes at once."""
        for name, config in self.config.sinks.items():
            load = self._place.plugins.sinks[config.plugin or name].load
            if load is not None:
                await trio.to_thread.run_sync(load)

    async def _elect(self, run: Callable[..., Awaitable[None]]) -> None:
        """Run the elector, begun anew whenever it crashes: then we do not lead."""
        await supervise(
            partial(run, self.config.leader.settings, self.lead),
            what="elector",
            name=self.lead.elector,
            crashed=lambda reason: self.lead.lost(f"the elector crashed: {reason}"),
        )
        self.lead.lost("the elector has ended")

    async def _serve_term(self, dialer: Dialer | None) -> bool:
        """Lead for one term; return whether it ended because nothing was healthy."""
        shared = self.lead.elector != "none"
        unhealthy = False
        if shared:
            self.bus.begin(f"{self.lead.fence}-{secrets.token_hex(4)}")
            self._term = Term(self._place)
        term = self._term
        async with trio.open_nursery() as nursery:

            async def stopped() -> None:
                await self._stop.wait()
                notify.stopping()
                log.info("stopping")
                term.end(flush_s=HAND_OVER_S if shared else SHUTDOWN_S / 2)

            async def lost() -> None:
                await self.lead.over()
                nursery.cancel_scope.cancel()

            async def sick() -> None:
                nonlocal unhealthy
                await until_unhealthy(self.stats, self.now_ns, lambda: self.config.leader.unhealthy_after_s)
                unhealthy = True
                term.end(flush_s=HAND_OVER_S)

            nursery.start_soon(stopped, name="stop")
            if shared:
                nursery.start_soon(lost, name="lead")
                nursery.start_soon(sick, name="health")
                nursery.start_soon(self.archive.restore, name="restore")
            await term.run(dialer)
            nursery.cancel_scope.cancel()
        if shared and not self._stop.is_set():
            # What readers had is not ours to continue: the next leader numbers anew.
            self._app.readers.renew("this daemon leads no longer; another one serves", 1_000)
            self.bus.begin("")
            self._term = Term(self._place)
        return unhealthy

    def _renew(self, app: WebApp) -> None:
        """Let everybody begin anew in another epoch of the upstream."""
        self._term.renew()
        app.readers.renew("the upstream began anew; numbers start again")

    async def _follow(self, delta: Any) -> None:
        """Do what a reload asks for."""
        if self._term.working.is_set():
            await self._term.follow(delta)
        else:
            self._term = Term(self._place)  # nothing is at work: the next begins so
        self._app.readers.reconfigured()

    async def _signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        wanted = [signal.SIGTERM, signal.SIGINT, *logs.SIGNALS]
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none
        if hangup is not None:
            wanted.append(hangup)
        with trio.open_signal_receiver(*wanted) as received:
            task_status.started()
            async with trio.open_nursery() as reloading:
                async for number in received:
                    if logs.heard(number):
                        continue
                    if number == hangup:
                        reloading.start_soon(self.reloader.on_signal, name="reload")
                    else:
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


async def _collect() -> None:
    """Find what is in cycles and would stay for ever, since by itself Python hardly looks among the old any more."""
    while True:
        await trio.sleep(COLLECT_S)
        began = trio.current_time()
        found = gc.collect()
        log.debug("collected", objects=found, seconds=round(trio.current_time() - began, 3))


async def _serve(
    daemon: Daemon, app: WebApp, stop: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    web = daemon.config.web
    try:
        await serve(
            app,
            listen=web.listen,
            admin_listen=web.admin_listen,
            tls=web.tls,
            max_clients=lambda: daemon.config.web.max_clients,
            compression=web.compression,
            shutdown=stop.wait,
            task_status=task_status,
        )
    except OSError as e:
        hint = "; is pricefeedd running already?" if e.errno == errno.EADDRINUSE else ""
        raise ServiceAwayError(f"{e.strerror or e}{hint}") from e
