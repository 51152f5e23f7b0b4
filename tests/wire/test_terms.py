"""A daemon that leads, and one that stands by: what readers, sinks and probes see of gaining and losing the lead."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import httpx
import trio

from pricefeedd.config import build
from pricefeedd.events import Trade
from pricefeedd.hookspecs import Delivery, Elector, Lanes, Leadership, Sink
from pricefeedd.loader import PluginRecord
from pricefeedd.service import Daemon
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance

TOPIC = "trade:binance:BTC-USDT"


@attrs.define
class Vote:
    """An elector by hand.

    Attributes:
        leadership: What to tell; None while nobody stands for election.
        given_up: How often we were made to give the lead up.
        crash: Set to have the elector crash.
    """

    leadership: Leadership | None = None
    given_up: int = 0
    crash: trio.Event = attrs.field(factory=trio.Event)
    stands: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, settings: Any, leadership: Leadership) -> None:
        self.leadership = leadership
        self.stands.set()
        try:
            await self.crash.wait()
            self.crash = trio.Event()
            raise RuntimeError("the lock is made of cheese")
        finally:
            self.leadership, self.stands = None, trio.Event()
            self.given_up += 1

    async def elect(self, fence: int, *, for_s: float = 60.0) -> None:
        await self.stands.wait()
        assert self.leadership is not None
        self.leadership.gained(fence, until=time.monotonic() + for_s)


@attrs.define
class Kept:
    """A sink that keeps what it is given, and when it was told to end."""

    got: list[tuple[str, Delivery]] = attrs.field(factory=list)
    ends: list[str] = attrs.field(factory=list)

    async def run(self, settings: Any, lanes: Lanes) -> None:
        try:
            while True:
                found = await lanes.receive()
                self.got += [(lanes.epoch, delivery) for delivery in found if lanes.may_send()]
        except trio.EndOfChannel:
            self.ends.append("flushed")
        except trio.Cancelled:
            self.ends.append("cut")
            raise


@attrs.define
class Brought:
    """What plugins brought, without anything being installed; the loader's `Plugins` has the same names."""

    vote: Vote = attrs.field(factory=Vote)
    sink: Kept = attrs.field(factory=Kept)
    venues: dict[str, Any] = attrs.field(factory=lambda: {"binance": binance()})
    records: list[PluginRecord] = attrs.field(factory=list)
    fakes: dict[str, Any] = attrs.field(factory=dict)

    @property
    def electors(self) -> dict[str, Elector]:
        return {"vote": Elector(name="vote", api_version=1, run=self.vote.run)}

    @property
    def sinks(self) -> dict[str, Sink]:
        return {"keep": Sink(name="keep", api_version=1, run=self.sink.run)}


@attrs.define
class Run:
    """A daemon, its elector and its sink."""

    daemon: Daemon
    base: str
    vote: Vote
    sink: Kept
    http: httpx.AsyncClient
    stopped: trio.Event

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = await self.http.get(self.base + path)
        return answer.status_code, answer.json()

    async def until(self, condition: Any, within_s: float = 20.0) -> None:
        with trio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110  # what happens on real sockets has no event here
                await trio.sleep(0.02)

    async def serving(self) -> None:
        """Wait until trades arrive at the sink in the present epoch."""
        await self.until(
            lambda: any(epoch == self.daemon.epoch and type(d.event) is Trade for epoch, d in self.sink.got)
        )

    async def stop(self) -> None:
        self.daemon.stop()
        with trio.fail_after(10):
            await self.stopped.wait()


@asynccontextmanager
async def running(fake: BinanceFake, **leader: Any) -> AsyncIterator[Run]:
    brought = Brought()
    subscribe = [{"market": "spot", "instruments": ["BTC-USDT"], "channels": ["trade"]}]
    config = build(
        {
            "web": {"listen": ["127.0.0.1:0"]},
            "venues": {"binance": {"endpoints": fake.endpoints(), "subscribe": subscribe}},
            "sinks": {"keep": {}},
            "leader": {"elector": "vote", **leader},
        },
        venues=brought.venues,
        sinks=brought.sinks,
        electors=brought.electors,
        environ={},
        source="test",
    )
    daemon = Daemon(config, brought)  # type: ignore[arg-type]  # the same names as the loader's class
    stopped = trio.Event()

    async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await daemon.run(task_status=task_status)
        stopped.set()

    async with trio.open_nursery() as nursery, httpx.AsyncClient() as http:
        (base,) = await nursery.start(run)
        made = Run(daemon, base, brought.vote, brought.sink, http, stopped)
        yield made
        await made.stop()


async def test_a_standby_answers_and_serves_nothing(exchange: BinanceFake, open_reader: Any) -> None:
    async with running(exchange) as run:
        await run.vote.stands.wait()
        assert run.vote.leadership is not None
        run.vote.leadership.heard("other:7:abc")
        assert (await run.get("/health"))[0] == 200
        status, ready = await run.get("/ready")
        assert status == 503
        assert ready["reasons"][0] == "standby: other:7:abc leads"
        assert (await run.get("/status"))[1]["leader"]["leads"] is False
        status, refused = await run.get("/api/v1/latest?topics=" + TOPIC)
        assert (status, refused["code"]) == (503, "STANDBY")
        answer = await run.http.post(f"{run.base}/api/v1/subscriptions", json={})
        assert (answer.status_code, answer.json()["code"]) == (503, "STANDBY")
        reader = await open_reader(run.base)
        assert await reader.closed() == (4010, "standby: other:7:abc leads")
        assert exchange.sockets == []
        assert not exchange.seen.messages
        await run.stop()
        assert run.vote.given_up == 1


async def test_the_lead_brings_venues_sinks_and_an_epoch_with_its_fence(
    exchange: BinanceFake, open_reader: Any
) -> None:
    async with running(exchange) as run:
        await run.vote.elect(17)
        await run.serving()
        assert run.daemon.epoch.startswith("17-")
        reader = await open_reader(run.base)
        welcome = await reader.until("welcome")
        assert welcome["epoch"] == run.daemon.epoch
        await reader.send({"op": "subscribe", "topics": [TOPIC]})
        await reader.until("trade")
        status, _ = await run.get("/ready")
        assert status == 200
        leader = (await run.get("/status"))[1]["leader"]
        assert (leader["leads"], leader["fence"], leader["changes"]) == (True, 17, 1)


async def test_who_loses_the_lead_lets_go_at_once_and_may_gain_it_again(
    exchange: BinanceFake, open_reader: Any
) -> None:
    async with running(exchange) as run:
        await run.vote.elect(3)
        await run.serving()
        reader = await open_reader(run.base)
        await reader.send({"op": "subscribe", "topics": [TOPIC]})
        await reader.until("trade")
        assert run.vote.leadership is not None
        run.vote.leadership.lost("somebody else was quicker")
        count = len(run.sink.got)
        assert not run.daemon.bus.lease.holds()
        code, reason = await reader.closed()
        assert (code, reason) == (4010, "this daemon leads no longer; another one serves")
        await run.until(lambda: exchange.sockets == [])
        assert run.sink.ends == ["cut"]
        assert len(run.sink.got) == count
        assert len(run.daemon.bus) == 0
        assert (await run.get("/ready"))[1]["reasons"][0] == "standby: somebody else was quicker"

        await run.vote.elect(5)
        await run.serving()
        assert run.daemon.epoch.startswith("5-")
        last = [delivery.seq for epoch, delivery in run.sink.got if epoch == run.daemon.epoch]
        assert last[0] == 1, "numbers begin anew in another epoch"


async def test_a_lead_that_is_not_renewed_is_over_by_itself(exchange: BinanceFake) -> None:
    async with running(exchange) as run:
        await run.vote.elect(1, for_s=1.0)
        until = time.monotonic() + 1.0
        await run.until(lambda: run.daemon.lead.leads)
        await run.until(lambda: not run.daemon.lead.leads)
        assert time.monotonic() - until < 0.5
        await run.until(lambda: run.vote.given_up == 1 and run.vote.leadership is not None)
        assert "could not be renewed in time" in run.daemon.standby
        await run.vote.elect(2, for_s=-1.0)
        assert not run.daemon.lead.leads


async def test_what_comes_after_the_lease_is_not_published_whoever_noticed(exchange: BinanceFake) -> None:
    async with running(exchange) as run:
        await run.vote.elect(1)
        await run.serving()
        bus = run.daemon.bus
        lease_until, bus.lease.until = bus.lease.until, time.monotonic()  # as a thawed process finds it
        published, count = bus.published, len(run.sink.got)
        topic = bus.get(TOPIC)
        assert topic is not None
        bus.publish([topic.last.event])  # type: ignore[union-attr]
        assert bus.published == published
        assert len(run.sink.got) == count
        bus.lease.until = lease_until


async def test_a_crash_of_the_elector_is_the_end_of_the_lead(exchange: BinanceFake) -> None:
    async with running(exchange) as run:
        await run.vote.elect(1)
        await run.serving()
        run.vote.crash.set()
        await run.until(lambda: not run.daemon.lead.leads)
        assert "the lock is made of cheese" in run.daemon.standby
        await run.vote.elect(2)
        await run.serving()


async def test_a_leader_with_nothing_healthy_gives_up_and_rests(exchange: BinanceFake) -> None:
    async with running(exchange, unhealthy_after_s=0.5, rest_s=2.0) as run:
        await run.vote.elect(1)
        await run.serving()
        with exchange.faults.refuse(status=503):
            exchange.faults.cut()
            await run.until(lambda: run.vote.given_up == 1)
            rested = trio.current_time()
            assert run.sink.ends == ["flushed"]
            assert run.daemon.standby
        await run.vote.elect(2)
        assert trio.current_time() - rested > 1.5
        await run.serving()


async def test_the_lead_is_given_up_only_when_sinks_are_through(exchange: BinanceFake) -> None:
    async with running(exchange) as run:
        await run.vote.elect(1)
        await run.serving()
        with suppress(trio.TooSlowError):
            began = trio.current_time()
            await run.stop()
        assert trio.current_time() - began < 1.0
        assert run.sink.ends == ["flushed"]
        assert run.vote.given_up == 1


async def test_nothing_is_left_of_a_term(exchange: BinanceFake) -> None:
    async with running(exchange) as run:
        for fence in range(1, 6):
            await run.vote.elect(fence)
            await run.serving()
            assert run.vote.leadership is not None
            run.vote.leadership.lost("again")
            await run.until(lambda: exchange.sockets == [] and not run.daemon.runtimes)
            assert run.daemon.sinks == {}
        assert [epoch.partition("-")[0] for epoch in dict.fromkeys(e for e, _ in run.sink.got)] == list(
            "12345"
        )
