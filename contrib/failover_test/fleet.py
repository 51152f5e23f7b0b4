"""Daemons that share venues: their configuration, their processes, and the network to what elects their leader."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
import trio
from link import Link

from pricefeedd.testing.ports import free_port

HERE = Path(__file__).parent
START_S = 60.0


def environment() -> dict[str, str]:
    """Return our environment, but with compiled modules kept, as they are where pricefeedd is installed."""
    environ = dict(os.environ)
    if environ.pop("PYTHONDONTWRITEBYTECODE", None):
        environ["PYTHONPYCACHEPREFIX"] = f"{tempfile.gettempdir()}/pricefeedd-pycache"
    return environ


class FleetError(Exception):
    """Something that had to be there is not; the message says what."""


@attrs.frozen
class Lock:
    """What elects the leader, as one daemon is to reach it.

    Attributes:
        settings: Lines of `[leader.NAME]`.
        environ: What its secrets point to.
    """

    settings: str
    environ: dict[str, str]


class Member:
    """One daemon, over all its lives.

    Attributes:
        sink: Where it publishes.
        link: Its way to what elects the leader.
    """

    def __init__(self, folder: Path, name: str, link: Link, elector: str, lock: Lock, endpoints: Any) -> None:
        self.name = name
        self.link = link
        self.port = free_port()
        self.sink = f"tcp://127.0.0.1:{free_port()}"
        self.folder = folder / name
        self.folder.mkdir()
        self._environ = lock.environ
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "pricefeedd.toml").write_text(
            "\n".join(
                [
                    "[web]",
                    f'listen = ["127.0.0.1:{self.port}"]',
                    "[[venues.binance.subscribe]]",
                    'market = "spot"',
                    'instruments = ["BTC-USDT", "ETH-USDT"]',
                    'channels = ["trade", "quote", "book"]',
                    "[venues.binance.endpoints]",
                    *(f'{name} = "{url}"' for name, url in endpoints.items()),
                    "[sinks.zmq]",
                    f'bind = "{self.sink}"',
                    "[leader]",
                    f'elector = "{elector}"',
                    f"[leader.{elector}]",
                    lock.settings,
                    "[logging]",
                    'format = "json"',
                    "",
                ]
            )
        )

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start its process."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pricefeedd.cli", "run", "--config", "pricefeedd.toml"],
                cwd=self.folder,
                env={**environment(), **self._environ, "STATE_DIRECTORY": str(self.folder / "state")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> float:
        """Send a signal, and return when."""
        at = time.monotonic()
        os.kill(self.pid, number)
        return at

    def end(self) -> None:
        """End its process for good, frozen or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def status(self) -> dict[str, Any]:
        """Return what it says of itself; nothing while it does not answer."""
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
                told: dict[str, Any] = (await client.get(f"http://127.0.0.1:{self.port}/status")).json()
                return told
        return {}


class Watch:
    """What comes out at the other side of the sinks.

    Attributes:
        epoch: Of the newest message that is not stale.
        at: When the newest came.
        firsts: The first messages of epochs.
        stale: Messages of epochs that were over.
        pauses: Times without a message that no change of epoch ended.
    """

    def __init__(self) -> None:
        self.epoch = ""
        self.at = 0.0
        self.count = 0
        self.firsts: list[dict[str, Any]] = []
        self.stale: list[dict[str, Any]] = []
        self.pauses: list[dict[str, Any]] = []
        self._news = trio.Event()

    async def run(self, addresses: list[str], *, task_status: trio.TaskStatus[None]) -> None:
        """Read until cancelled."""
        command = [sys.executable, str(HERE / "watch.py"), *addresses]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert process.stdout is not None, "it was asked for"
        try:
            rest = b""
            async for data in process.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    if told["what"] == "ready":
                        task_status.started()
                    else:
                        self._take(told)
            raise FleetError("the subscriber ended; what it said is above")
        finally:
            process.kill()

    def _take(self, told: dict[str, Any]) -> None:
        match told["what"]:
            case "stale":
                self.stale.append(told)
            case "pause":
                self.pauses.append(told)
            case "first":
                self.firsts.append(told)
        if told["what"] != "stale":
            self.epoch, self.at = told["epoch"], told["at"]
            self.count = told.get("count", self.count)
        news, self._news = self._news, trio.Event()
        news.set()

    async def until(self, condition: Any) -> None:
        """Wait until something holds."""
        while not condition():
            await self._news.wait()


class Fleet:
    """All daemons, and what is known of them."""

    def __init__(self, members: list[Member], watch: Watch) -> None:
        self.members = members
        self.watch = watch

    async def settled(self, *, within_s: float = START_S) -> Member:
        """Start who does not run; return who leads once all others are on standby and messages flow.

        Raises:
            FleetError: That took too long.
        """
        for member in self.members:
            member.link.heal()
            if not member.running:
                member.start()
        told: list[Any] = []
        with trio.move_on_after(within_s):
            while True:
                told = [(await member.status()).get("leader", {}) for member in self.members]
                leaders = [m for m, said in zip(self.members, told, strict=True) if said.get("leads")]
                others = [said for said in told if said and not said.get("leads")]
                if len(leaders) == 1 and len(others) == len(self.members) - 1:
                    leader = leaders[0]
                    fence = (await leader.status()).get("leader", {}).get("fence")
                    known = all(said["leader"] for said in others)
                    flows = time.monotonic() - self.watch.at < 0.5
                    if known and flows and self.watch.epoch.startswith(f"{fence}-"):
                        return leader
                await trio.sleep(0.05)
        raise FleetError(f"no single leader within {within_s:g} s: {told}; {self.watch.epoch}")


@contextmanager
def _helper(command: list[str]) -> Iterator[Any]:
    """Run a process as long as the block lasts."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def venue(rate: float) -> AsyncIterator[Any]:
    """Run the venue, and yield its endpoints."""
    command = [sys.executable, str(HERE / "venue.py"), "--rate", str(rate)]
    with _helper(command) as process:
        line = await trio.to_thread.run_sync(process.stdout.readline)
        if not line:
            raise FleetError("the simulated venue did not start; what it said is above")
        yield json.loads(line)["endpoints"]


@asynccontextmanager
async def postgres(url: str) -> AsyncIterator[Any]:
    """Make a database, and yield what makes a `Lock` of a port in place of the server's, with host and port of that.

    Raises:
        FleetError: There is no such server.
    """
    import psycopg

    name = f"pricefeedd_failover_{secrets.token_hex(4)}"
    parts = urlsplit(url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""

    def run(statement: str) -> None:
        with psycopg.connect(f"{url}/postgres", autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)  # type: ignore[arg-type]  # a name that we made

    try:
        await trio.to_thread.run_sync(run, f"CREATE DATABASE {name}")
    except psycopg.Error as e:
        raise FleetError(f"PostgreSQL: {e}") from e

    def lock(port: int, _: Path) -> Lock:
        return Lock('url = { env = "LOCK" }', {"LOCK": f"postgresql://{user}127.0.0.1:{port}/{name}"})

    try:
        yield parts.hostname or "127.0.0.1", parts.port or 5432, lock
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(run, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def kubernetes(folder: Path) -> AsyncIterator[Any]:
    """Run a double of the API server, and yield what makes a `Lock` of a port in place of its own.

    Raises:
        FleetError: It does not start.
    """
    path = folder / "kubeconfig"
    command = [
        sys.executable,
        "-m",
        "pricefeedd_kubernetes.testing",
        "--port",
        "0",
        "--kubeconfig",
        str(path),
    ]
    with _helper(command) as process:
        url = (await trio.to_thread.run_sync(process.stdout.readline)).strip()
        if not url:
            raise FleetError("the double of the API server did not start; what it said is above")
        parts = urlsplit(url)

        def lock(port: int, place: Path) -> Lock:
            own = place / f"kubeconfig-{port}"
            text = path.read_text()
            assert parts.netloc in text, "it names the server"
            own.write_text(text.replace(parts.netloc, f"127.0.0.1:{port}"))
            own.chmod(0o600)
            return Lock(f'kubeconfig = "{own}"', {})

        yield parts.hostname, parts.port, lock


@asynccontextmanager
async def fleet(
    folder: Path, *, elector: str, members: int, rate: float, server: str
) -> AsyncIterator[Fleet]:
    """Run a venue, daemons and the subscriber, and yield them.

    Raises:
        FleetError: A part of it does not start.
    """
    locks = postgres(server) if elector == "postgres" else kubernetes(folder)
    async with venue(rate) as endpoints, locks as (host, port, lock), trio.open_nursery() as nursery:
        made = []
        for number in range(members):
            link = Link(host, port)
            near = await nursery.start(link.run)
            made.append(Member(folder, f"daemon-{number}", link, elector, lock(near, folder), endpoints))
        watch = Watch()
        try:
            await nursery.start(watch.run, [member.sink for member in made])
            yield Fleet(made, watch)
        finally:
            for member in made:
                member.end()
        nursery.cancel_scope.cancel()
