"""The sink on Trio's side: keeps a connection, feeds it from the lanes, and tells how it stands."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import structlog
import trio

from pricefeedd.hookspecs import KeptLane, Lanes
from pricefeedd_rabbitmq.dialling import Ending
from pricefeedd_rabbitmq.flows import KeptFlow, MarketFlow
from pricefeedd_rabbitmq.messages import Item, Outcome
from pricefeedd_rabbitmq.publisher import Publisher, Told
from pricefeedd_rabbitmq.settings import RabbitSettings, routing_key

log = structlog.get_logger("pricefeedd.sink.rabbitmq")

#: Messages handed to the thread at once: it holds the interpreter while it writes them.
BATCH = 50
#: Waits after a refused login, so that nobody is locked out for our hammering.
REFUSED_S = (60.0, 300.0)
#: How long it may take to note what was confirmed last.
LAST_WORD_S = 2.0
#: Waits before what no queue took is tried again.
RETRY_S = (1.0, 30.0)


def delays(first_s: float, most_s: float) -> Iterator[float]:
    """Yield delays with full jitter under a doubling, capped ceiling, for ever."""
    ceiling = first_s
    while True:
        yield random.uniform(0.1 * ceiling, ceiling)
        ceiling = min(ceiling * 2, most_s)


class RabbitSink(Told):
    """Publishes what the lanes bring, as long as they bring something."""

    def __init__(self, settings: RabbitSettings, lanes: Lanes) -> None:
        self._settings = settings
        self._lanes = lanes
        self._report = lanes.report
        self._market = MarketFlow(settings.window, lanes.report)
        self._kept = KeptFlow(settings.window, lanes.report)
        self._changed = trio.Event()
        self._up = False
        self._blocked: str | None = None
        self._problems: list[str] = []
        self._connections = 0
        # Lanes that have come to their end.
        self._over: set[str] = set() if lanes.kept is not None else {"kept"}
        # Number up to which everything is confirmed, and up to which the disk knows that.
        self._confirmed = self._noted = 0
        self._why_down = ""
        self._why_refused = ""

    async def run(self) -> None:
        """Publish until the lanes end."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_connected, name="rabbitmq:connection")
                await self._lanes.ending()
                # Away or blocked: what may not be lost stays on disk, and the rest has nowhere to go.
                await self._until(lambda: not self._open or self._finished)
                nursery.cancel_scope.cancel()
        finally:
            self._confirmed = self._kept.done() or self._confirmed
            if self._confirmed > self._noted and self._lanes.kept is not None:
                with trio.move_on_after(LAST_WORD_S, shield=True):
                    await self._lanes.kept.done(self._confirmed)
            self._market.give_up()
            self._tell()

    @property
    def _finished(self) -> bool:
        return self._over == {"market", "kept"} and not self._market.held and not self._kept.held

    async def _until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds that only `_wake` can have changed."""
        while not condition():
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- the connection -----------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        """Connect for ever; the waits grow while nothing comes of it."""
        ordinary = partial(delays, 1.0, self._settings.retry_max_s)
        waits, refused = ordinary(), delays(*REFUSED_S)
        while True:
            ending = await self._connect()
            if self._up:
                waits, refused = ordinary(), delays(*REFUSED_S)
            self._went_down(ending)
            delay = next(refused) if ending.refused else next(waits)
            log.warning(
                "broker is away", sink=self._lanes.section, reason=ending.reason, delay_s=round(delay, 1)
            )
            await trio.sleep(delay)

    async def _connect(self) -> Ending:
        """Run one connection from the attempt to its end."""
        token = trio.lowlevel.current_trio_token()
        publisher = Publisher(
            self._settings,
            self,
            token.run_sync_soon,
            section=self._lanes.section,
            may_send=self._lanes.may_send,
        )
        ended = trio.Event()
        endings: list[Ending] = []

        async def run() -> None:
            with trio.CancelScope(shield=True):
                endings.append(await trio.to_thread.run_sync(publisher.run, limiter=trio.CapacityLimiter(1)))
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                async with trio.open_nursery() as serving:
                    serving.start_soon(self._feed_market, publisher, name="rabbitmq:market")
                    if self._lanes.kept is not None:
                        serving.start_soon(self._take_kept, self._lanes.kept, name="rabbitmq:take")
                        serving.start_soon(self._send_kept, publisher, name="rabbitmq:send")
                        serving.start_soon(self._finish_kept, self._lanes.kept, name="rabbitmq:done")
                        serving.start_soon(self._retry_kept, name="rabbitmq:retry")
                    await ended.wait()
                    serving.cancel_scope.cancel()
            finally:
                publisher.stop()
        return endings[0]

    def _went_down(self, ending: Ending) -> None:
        self._up = False
        self._blocked = None
        self._problems = []
        self._market.lost_connection()
        self._kept.again()
        self._kept.refusal = ""
        self._why_down = ending.reason
        self._report.last_error = ending.reason
        self._tell()

    # --- feeding it ---------------------------------------------------------------------------------------

    @property
    def _open(self) -> bool:
        return self._up and self._blocked is None

    async def _feed_market(self, publisher: Publisher) -> None:
        while True:
            await self._until(lambda: self._open and len(self._market.flying) < self._settings.window)
            if self._market.empty:
                if "market" in self._over:
                    return
                try:
                    messages = await self._lanes.receive()
                except trio.EndOfChannel:
                    self._over.add("market")
                    self._wake()
                    continue
                self._market.take(messages, self._lanes.epoch)
                continue
            publisher.send(self._market.next(BATCH), kept=False)
            await trio.lowlevel.checkpoint()

    async def _take_kept(self, lane: KeptLane) -> None:
        while "kept" not in self._over:
            await self._until(lambda: self._open and self._kept.room)
            try:
                self._kept.take(await lane.receive(min(self._kept.room, 2 * BATCH)))
            except trio.EndOfChannel:
                self._over.add("kept")
            self._wake()

    async def _send_kept(self, publisher: Publisher) -> None:
        while True:
            await self._until(lambda: self._open)
            items = self._kept.next(BATCH)
            if items:
                publisher.send(items, kept=True)
                await trio.lowlevel.checkpoint()
            else:
                await self._changed.wait()

    async def _finish_kept(self, lane: KeptLane) -> None:
        """Forget what is confirmed, as many at once as came meanwhile."""
        while True:
            self._confirmed = self._kept.done() or self._confirmed
            if self._confirmed > self._noted:
                number = self._confirmed
                await lane.done(number)
                self._noted = number
                self._wake()
            else:
                await self._changed.wait()

    async def _retry_kept(self) -> None:
        """Try again what the broker did not take."""
        waits = delays(*RETRY_S)
        while True:
            await self._until(lambda: self._open and self._kept.stuck)
            await trio.sleep(next(waits))
            before = self._kept.accepted
            self._kept.again()
            self._wake()
            await self._until(lambda: self._kept.stuck or not self._kept.refusal)
            if self._kept.accepted > before:
                waits = delays(*RETRY_S)

    # --- what is told (see `Told`) ---------------------------------------------------------------------------

    def ready(self) -> None:
        """Begin to send."""
        self._up = True
        self._connections += 1
        self._report.reconnects = self._connections - 1
        log.info("broker is there", sink=self._lanes.section)
        self._tell()

    def blocked(self, reason: str | None) -> None:
        """Hold back, or go on."""
        self._blocked = reason
        if reason is None:
            log.info("broker takes messages again", sink=self._lanes.section)
        else:
            log.warning("broker takes nothing", sink=self._lanes.section, reason=reason)
        self._tell()

    def declared(self, problems: list[str]) -> None:
        """Tell of what could not be had as it should be."""
        for problem in problems:
            if problem not in self._problems:
                log.error("broker is not as configured", sink=self._lanes.section, reason=problem)
                self._report.last_error = problem
        self._problems = problems
        self._tell()

    def backlog(self, waiting: dict[str, int]) -> None:
        """Tell how much waits at the broker."""
        self._report.queues = waiting

    def settled(self, outcomes: list[Outcome]) -> None:
        """Count what arrived, and see to what did not."""
        for item, outcome in outcomes:
            if item.number:
                before = self._kept.refusal
                self._kept.settled(item, outcome)
                if self._kept.refusal and not before:
                    self._refused_kept(item)
            else:
                self._market.settled(item, outcome)
        if any(outcome == "delivered" for _, outcome in outcomes):
            self._report.last_delivered_ns = time.time_ns()
        self._tell()

    def _refused_kept(self, item: Item) -> None:
        self._report.last_error = self._why_refused = self._refusal(item)
        log.error(
            "broker does not take what may not be lost", sink=self._lanes.section, reason=self._why_refused
        )

    def _refusal(self, item: Item) -> str:
        key = routing_key(item.message.topic)
        if self._kept.refusal == "unroutable":
            return f"no queue is bound for {key!r} at exchange {self._settings.exchange!r}"
        return f"a queue for {key!r} refuses what is published; it is full, or its node fails"

    def _tell(self) -> None:
        report = self._report
        report.waiting = self._market.held + self._kept.held
        if not self._up:
            report.state = "connecting" if not self._why_down else "down"
            report.reason = self._why_down
        elif self._blocked is not None:
            report.state, report.reason = "blocked", self._blocked
        elif self._kept.refusal:
            report.state, report.reason = "down", self._why_refused
        elif self._problems:
            report.state, report.reason = "down", "; ".join(self._problems)
        else:
            report.state, report.reason = "up", ""
        self._wake()
