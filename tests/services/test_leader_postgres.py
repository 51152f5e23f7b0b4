"""The elector against real PostgreSQL: who leads, from when to when, and what is said while nobody does."""

from __future__ import annotations

import json
import math
import random
import re
import secrets
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
import trio

from pricefeedd.config import build
from pricefeedd.errors import ConfigError
from pricefeedd.leader.lead import Lead
from pricefeedd.leader.postgres import PostgresElector, PostgresSettings, libpq_url, pricefeedd_electors
from pricefeedd.leader.postgres_session import AwayError, Session

#: Quick, and yet more than a busy machine lets a thread wait.
QUICK = {"lease_s": 1.6, "renew_deadline_s": 1.2, "retry_s": 0.1}
#: A promise that is not kept up any more is over after this, and then it takes a look.
OVER_S = 1.2 * 1.05 + 0.1
README = Path(__file__).parents[2] / "README.md"
CANDIDATE = Path(__file__).with_name("candidate.py")


@attrs.define
class Hold:
    """One daemon's lead: nobody else may have one between these times."""

    fence: int
    start: float
    end: float


class Watched(Lead):
    """A lead that notes from when to when it was held."""

    def __init__(self) -> None:
        super().__init__("postgres")
        self.holds: list[Hold] = []

    def gained(self, fence: int, *, until: float) -> None:
        super().gained(fence, until=until)
        self.holds.append(Hold(fence, time.monotonic(), until))

    def renewed(self, *, until: float) -> None:
        super().renewed(until=until)
        self.holds[-1].end = max(self.lease.until, time.monotonic())

    def lost(self, reason: str) -> None:
        if self.holds:
            self.holds[-1].end = min(self.holds[-1].end, time.monotonic())
        super().lost(reason)


class Daemon:
    """What of a daemon has to do with its lead."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.lead = Watched()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self._elector = PostgresElector(PostgresSettings(url=url, **{**QUICK, **settings}), self.lead)

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look)
                await self._elector.run()
        self.ended.set()

    async def _look(self) -> None:
        """Find out that the time is over as the daemon does."""
        while True:
            await self.lead.won()
            await self.lead.over()

    async def leads(self, *, within_s: float = 10.0) -> float:
        """Wait until it leads, and return when that began."""
        with trio.fail_after(within_s):
            await self.lead.won()
        return self.lead.holds[-1].start

    async def waits(self, *, within_s: float = 10.0) -> None:
        """Wait until it leads no more."""
        with trio.fail_after(within_s):
            while self.lead.leads:  # noqa: ASYNC110  # both ways of it end here
                await trio.sleep(0.01)

    async def says(self, text: str, *, within_s: float = 10.0) -> None:
        """Wait until `/ready` would give this as the reason."""
        with trio.move_on_after(within_s):
            while text not in self.lead.standby:  # noqa: ASYNC110  # it is told by another process
                await trio.sleep(0.01)
        assert text in self.lead.standby

    async def stop(self) -> None:
        """Publish no more, then cancel the elector; see that this takes no longer than promised."""
        self.lead.lost("it stops")
        self.scope.cancel()
        with trio.fail_after(1.5):
            await self.ended.wait()


class Process:
    """A candidate in a process of its own."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CANDIDATE), url, json.dumps(QUICK)], stdout=subprocess.PIPE, text=True
        )

    async def hears(self, what: str) -> dict[str, Any]:
        """Return the next thing of this kind that its elector tells."""
        assert self._process.stdout is not None
        with trio.fail_after(20):
            while True:
                line = await trio.to_thread.run_sync(self._process.stdout.readline, abandon_on_cancel=True)
                assert line, "it ended"
                told: dict[str, Any] = json.loads(line)
                if told["what"] == what:
                    return told

    def send(self, number: signal.Signals) -> float:
        """Send a signal, and return when."""
        self._process.send_signal(number)
        return time.monotonic()

    def rest(self) -> list[dict[str, Any]]:
        """End it, and return what it told that nobody read."""
        self._process.kill()
        self._process.send_signal(signal.SIGCONT)
        told, _ = self._process.communicate(timeout=10)
        return [json.loads(line) for line in told.splitlines()]


@pytest.fixture
def process(postgres_url: str) -> Iterator[Callable[[], Process]]:
    """Return a function that starts a candidate; all are ended."""
    made: list[Process] = []

    def start() -> Process:
        made.append(Process(libpq_url(postgres_url)))
        return made[-1]

    yield start
    for each in made:
        each.rest()


@pytest.fixture
async def stand(nursery: trio.Nursery, postgres_url: str) -> AsyncIterator[Callable[..., Daemon]]:
    """Return a function that begins a daemon; all are stopped at the end, and no two may have led at a time."""
    made: list[Daemon] = []

    def begin(url: str = postgres_url, **settings: Any) -> Daemon:
        daemon = Daemon(url, **settings)
        nursery.start_soon(daemon.run)
        made.append(daemon)
        return daemon

    yield begin
    for daemon in made:
        await daemon.stop()
    alone([hold for daemon in made for hold in daemon.lead.holds])


def alone(holds: list[Hold]) -> None:
    """Assert that fences rise, and that each hold began after the one before was over."""
    holds = sorted(holds, key=lambda hold: hold.start)
    for before, after in pairwise(holds):
        assert before.fence < after.fence
        assert before.end <= after.start, (before, after)


async def one_leads(*daemons: Daemon, within_s: float = 10.0) -> Daemon:
    """Wait until one of them leads, and return it."""
    with trio.fail_after(within_s):
        while True:
            for daemon in daemons:
                if daemon.lead.leads:
                    return daemon
            await trio.sleep(0.01)


def query(url: str, statement: str) -> list[Any]:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        done = connection.execute(statement)
        return done.fetchall() if done.description else []


@asynccontextmanager
async def linked(link: Any, url: str) -> AsyncIterator[tuple[Any, str]]:
    """Yield a link to the database, and the URL through it."""
    parts = psycopg.conninfo.conninfo_to_dict(libpq_url(url))
    between = link(str(parts["host"]), int(parts.get("port", 5432)))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(between.run)
        yield between, f"postgresql://{parts['user']}@127.0.0.1:{port}/{parts['dbname']}"
        between.heal()
        nursery.cancel_scope.cancel()


# --- the ordinary course ----------------------------------------------------------------------------------


async def test_one_leads_the_other_hears_who_and_has_it_at_once_when_that_one_stops(stand: Any) -> None:
    first = stand()
    await first.leads()
    second = stand()
    await second.says(f"standby: {first.lead.identity} leads")
    assert (first.lead.fence, second.lead.leads) == (1, False)

    asked = time.monotonic()
    await first.stop()
    assert await second.leads() - asked < 0.5
    assert second.lead.fence == 2


async def test_it_is_renewed_for_as_long_as_it_runs(stand: Any) -> None:
    first, second = stand(), stand()
    leader = await one_leads(first, second)
    await trio.sleep(3 * QUICK["renew_deadline_s"])

    assert leader.lead.leads
    assert len(first.lead.holds) + len(second.lead.holds) == 1


async def test_five_that_begin_at_once_on_an_empty_database_make_its_table_once(stand: Any) -> None:
    daemons = [stand() for _ in range(5)]
    leader = await one_leads(*daemons)
    for daemon in daemons:
        if daemon is not leader:
            await daemon.says(f"{leader.lead.identity} leads")

    assert leader.lead.fence == 1


async def test_groups_of_different_names_do_not_see_each_other(stand: Any, postgres_url: str) -> None:
    first, second = stand(name="spot"), stand(name="futures")
    await first.leads()
    await second.leads()

    assert query(postgres_url, "SELECT name, fence FROM pricefeedd_leader ORDER BY name") == [
        ("futures", 1),
        ("spot", 1),
    ]
    first.lead.holds.clear()  # they may lead at a time


async def test_fences_rise_over_restarts_of_everything(stand: Any) -> None:
    for fence in (1, 2, 3):
        daemon = stand()
        await daemon.leads()
        assert daemon.lead.fence == fence
        await daemon.stop()


async def test_whoever_looks_into_the_database_sees_who_leads(stand: Any, postgres_url: str) -> None:
    daemon = stand()
    await daemon.leads()
    ((holder, pid),) = query(postgres_url, "SELECT holder, pid FROM pricefeedd_leader")
    held = query(postgres_url, f"SELECT granted FROM pg_locks WHERE locktype = 'advisory' AND pid = {pid}")

    assert holder == daemon.lead.identity
    assert held == [(True,)]
    await daemon.stop()
    assert query(postgres_url, "SELECT holder FROM pricefeedd_leader") == [("",)]
    assert query(postgres_url, f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = {pid}") == []


# --- processes that die and freeze ---------------------------------------------------------------------------


async def test_a_leader_that_is_killed_is_followed_when_its_time_is_over(stand: Any, process: Any) -> None:
    leader = process()
    gained = await leader.hears("gained")
    follower = stand()
    await follower.says("leads")
    killed = leader.send(signal.SIGKILL)
    began = await follower.leads()

    assert follower.lead.fence == gained["fence"] + 1
    assert began - killed < OVER_S + 0.5
    renewed = [told["until"] for told in leader.rest() if told["what"] == "renewed"]
    assert max([gained["until"], *renewed]) <= began


async def test_a_frozen_leader_is_followed_and_knows_it_when_it_thaws(
    stand: Any, process: Any, postgres_url: str
) -> None:
    leader = process()
    gained = await leader.hears("gained")
    follower = stand()
    await follower.says("leads")
    frozen = leader.send(signal.SIGSTOP)
    began = await follower.leads()
    thawed = leader.send(signal.SIGCONT)
    lost = await leader.hears("lost")
    assert lost["at"] - thawed < 0.5

    assert began - frozen < QUICK["lease_s"] + 1.0
    ((holder, fence),) = query(postgres_url, "SELECT holder, fence FROM pricefeedd_leader")
    assert (holder, fence) == (follower.lead.identity, gained["fence"] + 1)
    # It stands for election again, and has the lead when that is free.
    await follower.stop()
    again = await leader.hears("gained")
    assert again["fence"] == fence + 1


async def test_one_that_was_frozen_with_nobody_to_follow_leads_anew(process: Any) -> None:
    leader = process()
    gained = await leader.hears("gained")
    leader.send(signal.SIGSTOP)
    await trio.sleep(QUICK["renew_deadline_s"] + 0.2)
    leader.send(signal.SIGCONT)
    await leader.hears("lost")
    again = await leader.hears("gained")

    assert again["fence"] == gained["fence"] + 1


async def test_one_that_freezes_with_the_lock_before_it_leads_is_thrown_out_too(
    stand: Any, postgres_url: str
) -> None:
    first = stand()
    await first.leads()
    await first.stop()
    stranger = Session(libpq_url(postgres_url), "pricefeedd", "stranger", patience_s=5)
    stranger.open()
    assert stranger.lock() == 0
    began = time.monotonic()
    second = stand()

    assert await second.leads() - began < 2.0
    with pytest.raises(AwayError):
        stranger.read()
    stranger.close()


# --- the database and the way to it ---------------------------------------------------------------------------


async def test_a_leader_whose_session_is_ended_leads_on(stand: Any, postgres_url: str) -> None:
    leader = stand()
    await leader.leads()
    follower = stand()
    await follower.says("leads")
    for _ in range(3):
        ((pid,),) = query(postgres_url, "SELECT pid FROM pricefeedd_leader")
        query(postgres_url, f"SELECT pg_terminate_backend({pid})")
        with trio.fail_after(5):
            while query(postgres_url, "SELECT pid FROM pricefeedd_leader") == [(pid,)]:  # noqa: ASYNC110  # only the table tells
                await trio.sleep(0.02)

    assert leader.lead.leads
    assert len(leader.lead.holds) == 1
    assert follower.lead.holds == []


async def test_a_leader_that_is_cut_off_is_followed_and_comes_back(
    stand: Any, link: Any, postgres_url: str
) -> None:
    for cut in ("cut", "stall"):
        async with linked(link, postgres_url) as (between, through):
            leader = stand(through)
            await leader.leads()
            follower = stand()
            await follower.says("leads")
            began = time.monotonic()
            getattr(between, cut)()
            await leader.waits()
            assert time.monotonic() - began < QUICK["renew_deadline_s"] + 0.5
            assert await follower.leads() - began < QUICK["lease_s"] + 1.0
            await leader.says("database of the lead is away" if cut == "cut" else "standby")
            between.heal()
            await leader.says(f"{follower.lead.identity} leads")
            await follower.stop()
            await leader.leads()
            await leader.stop()


async def test_a_short_cut_costs_nobody_the_lead(stand: Any, link: Any, postgres_url: str) -> None:
    async with linked(link, postgres_url) as (between, through):
        leader = stand(through)
        await leader.leads()
        follower = stand()
        await follower.says("leads")
        for fault in (between.cut, between.stall):
            fault()
            await trio.sleep(0.3)
            between.heal()
            await trio.sleep(QUICK["renew_deadline_s"])

        assert leader.lead.leads
        assert len(leader.lead.holds) == 1
        await leader.stop()


async def test_nobody_leads_without_a_database_and_one_does_when_it_is_back(
    stand: Any, own_postgres: Any
) -> None:
    first, second = stand(own_postgres.url()), stand(own_postgres.url())
    leader = await one_leads(first, second)
    fence = leader.lead.fence
    await trio.to_thread.run_sync(partial(own_postgres.stop, mode="immediate"))
    await leader.waits()
    await leader.says("database of the lead is away")
    await trio.to_thread.run_sync(own_postgres.start)

    leader = await one_leads(first, second)
    assert leader.lead.fence > fence
    await first.stop()
    await second.stop()


async def test_nobody_leads_while_the_database_hangs_and_to_stop_takes_no_time(
    stand: Any, own_postgres: Any
) -> None:
    first, second, third = (stand(own_postgres.url()) for _ in range(3))
    leader = await one_leads(first, second, third)
    fence = leader.lead.fence
    with own_postgres.frozen():
        await leader.waits()
        await third.stop()
    leader = await one_leads(first, second)

    assert leader.lead.fence > fence
    await first.stop()
    await second.stop()


async def test_what_is_wrong_with_the_url_is_said_and_tried_again(
    stand: Any, postgres: Any, postgres_url: str
) -> None:
    role = f"pricefeedd_test_{secrets.token_hex(4)}"
    host = postgres_url.partition("@")[2]
    daemon = stand(f"postgresql://{role}@{host}")
    await daemon.says("standby: the database of the lead is away: connection failed")
    await daemon.says(f'role "{role}" does not exist')
    postgres(f"CREATE ROLE {role} LOGIN")
    try:
        await daemon.says("GRANT USAGE, CREATE ON SCHEMA public to the role")
        query(postgres_url, f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
        await daemon.leads()
        await daemon.stop()
    finally:
        query(postgres_url, f"DROP OWNED BY {role}")
        postgres(f"DROP ROLE {role}")


async def test_a_pooler_that_changes_sessions_is_named(postgres_url: str) -> None:
    session = Session(libpq_url(postgres_url), "pricefeedd", "one", patience_s=5)
    session.open()
    session.lock()
    session.pid += 1  # as if the statement had gone to another process of the server
    with pytest.raises(AwayError, match="a pooler in transaction mode stands before the database"):
        session.take(session.read(), 1.0)
    session.close()


# --- all of it at random --------------------------------------------------------------------------------------


async def test_never_do_two_lead_whatever_happens_to_the_way_to_the_database(
    stand: Any, link: Any, postgres_url: str
) -> None:
    chance = random.Random(7)
    settings = {"lease_s": 0.6, "renew_deadline_s": 0.45, "retry_s": 0.05}
    async with (
        linked(link, postgres_url) as one,
        linked(link, postgres_url) as two,
        linked(link, postgres_url) as three,
    ):
        ways = [one, two, three]
        daemons = [stand(url, **settings) for _, url in ways]
        await one_leads(*daemons)
        for _ in range(14):
            for (between, _url), daemon in zip(ways, daemons, strict=True):
                chances = 0.8 if daemon.lead.leads else 0.3
                fault = chance.choice([between.cut, between.stall])
                (fault if chance.random() < chances else between.heal)()
            if chance.random() < 0.3:
                query(postgres_url, "SELECT pg_terminate_backend(pid) FROM pricefeedd_leader WHERE pid > 0")
            await trio.sleep(chance.uniform(0.1, 1.2))
        for between, _url in ways:
            between.heal()
        await one_leads(*daemons)
        for daemon in daemons:
            await daemon.stop()

    holds = [hold for daemon in daemons for hold in daemon.lead.holds]
    assert len(holds) > 3
    alone(holds)


# --- settings ---------------------------------------------------------------------------------------------------


def problems(**leader: Any) -> str:
    """Return what is wrong with a configuration."""
    (elector,) = pricefeedd_electors()
    with pytest.raises(ConfigError) as caught:
        build(
            {"leader": {"elector": "postgres", "postgres": leader}},
            venues={},
            sinks={},
            electors={"postgres": elector},
            environ={"DB": "postgresql://u:hush@h/d", "BAD": "postgresql://u:hu%sh@h/d"},
            source="test",
        )
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "url"),
        ({"url": "postgresql://u:hush@h/d"}, "a secret does not stand in the file"),
        ({"url": {"env": "BAD"}}, "expected postgresql://user@host/name; signs such as @"),
        ({"url": {"env": "DB"}, "lease_s": 2.0}, "renew_deadline_s is less than lease_s"),
        ({"url": {"env": "DB"}, "retry_s": 1.0}, "at least three times retry_s"),
        ({"url": {"env": "DB"}, "retry_s": -1.0}, "expected more than 0"),
        ({"url": {"env": "DB"}, "name": ""}, "expected a name of 1 to 100 characters"),
        ({"url": {"env": "DB"}, "leas_s": 2.0}, "did you mean 'lease_s'"),
    ],
)
def test_bad_settings_are_told(given: dict[str, Any], said: str) -> None:
    told = problems(**given)
    assert said in told
    assert "hush" not in told
    assert "hu%sh" not in told


def test_the_readmes_example_is_right_but_for_the_secret() -> None:
    (text,) = re.findall(r"^```toml\n(\[leader\]\n.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (elector,) = pricefeedd_electors()
    tree = tomllib.loads(text)
    tree["leader"]["postgres"]["url"] = {"env": "DB"}
    environ = {"DB": "postgresql://u:hush@h/d"}
    built = build(
        tree, venues={}, sinks={}, electors={"postgres": elector}, environ=environ, source="README.md"
    )
    assert built.leader.settings == PostgresSettings(url="postgresql://u:hush@h/d")


def test_the_readme_admits_whom_it_says() -> None:
    (text,) = re.findall(r"^```python\n(fence = 0\n.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(text, names)
    admitted = [names["admit"](epoch) for epoch in ("9-aa", "9-aa", "10-0b", "9-aa", "10-0b")]
    assert admitted == [True, True, True, False, True]


def test_the_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'psycopg[binary]'" in problems(url={"env": "DB"})


def test_the_secret_is_not_shown() -> None:
    settings = PostgresSettings(url="postgresql+psycopg://u:hush@h/d")
    assert "hush" not in repr(settings)
    assert settings.lease_s > settings.renew_deadline_s > settings.retry_s
    assert math.isclose(settings.lease_s, 3.0)
