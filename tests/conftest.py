"""What a user has: commands of pricefeedd as processes of their own, and a Binance to point them at."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pricefeedd_binance.testing import BinanceFake

ROOT = Path(__file__).parents[1]


@attrs.frozen(kw_only=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        return self.out.splitlines()

    def json(self) -> list[Any]:
        """What it printed, each line parsed."""
        return [json.loads(line) for line in self.lines]


class Running:
    """A command that runs; what it printed so far is kept."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._texts = {"out": "", "err": ""}
        self._open = 2
        self._changed = trio.lowlevel.ParkingLot()

    async def read(self, nursery: trio.Nursery) -> None:
        """Keep what it prints, until it ends."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        nursery.start_soon(self._read, "out", self.process.stdout)
        nursery.start_soon(self._read, "err", self.process.stderr)

    async def _read(self, name: str, stream: trio.abc.ReceiveStream) -> None:
        async for data in stream:
            self._texts[name] += bytes(data).decode()
            self._changed.unpark_all()
        self._open -= 1
        self._changed.unpark_all()

    @property
    def out(self) -> str:
        """What it printed so far."""
        return self._texts["out"]

    @property
    def err(self) -> str:
        """What it said on stderr so far."""
        return self._texts["err"]

    async def until(self, text: str, *, where: str = "out", within_s: float = 20.0) -> str:
        """Wait until it printed a line with this text, and return the line."""
        with trio.move_on_after(within_s):
            while True:
                for line in self._texts[where].splitlines(keepends=True):
                    if text in line and line.endswith("\n"):
                        return line
                if not self._open:
                    break
                await self._changed.park()
        raise AssertionError(f"no {text!r} on std{where}:\n{self.out}\n{self.err}")

    async def binds(self) -> list[str]:
        """Wait until the daemon serves, and return its addresses."""
        line = await self.until('"serving"', where="err")
        binds: list[str] = json.loads(line)["binds"]
        return binds

    async def end(self, number: int = signal.SIGTERM, *, within_s: float = 10.0) -> Ended:
        """Send a signal, and wait for the end, which must come in time."""
        self.process.send_signal(number)
        return await self.ended(within_s=within_s)

    async def ended(self, *, within_s: float = 10.0) -> Ended:
        """Wait for the end, which must come in time."""
        with trio.fail_after(within_s):
            code = await self.process.wait()
            while self._open:
                await self._changed.park()
        return Ended(code=code, out=self.out, err=self.err)


class Cli:
    """Runs commands in a folder, with none of the caller's own settings.

    Attributes:
        folder: Where commands run.
        environ: What they find in the environment.
    """

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PRICEFEEDD")}
        self.environ = {**kept, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
        self.environ.pop("NOTIFY_SOCKET", None)
        self._nursery = nursery

    async def run(
        self, *arguments: str | Path, within_s: float = 30.0, environ: Mapping[str, str] | None = None
    ) -> Ended:
        """Run a command of pricefeedd to its end."""
        running = await self.start(*arguments, environ=environ)
        return await running.ended(within_s=within_s)

    async def start(self, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> Running:
        """Begin a command of pricefeedd; it is killed at the end of the test."""
        return await self.python("-m", "pricefeedd.cli", *arguments, environ=environ)

    async def python(self, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> Running:
        """Begin a Python of its own; it is killed at the end of the test."""
        return await self.program(sys.executable, *arguments, environ=environ)

    async def program(self, *arguments: str | Path, environ: Mapping[str, str] | None = None) -> Running:
        """Begin any program; it is killed at the end of the test."""
        process = await trio.lowlevel.open_process(
            [*map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
        )
        running = Running(process)
        self._nursery.start_soon(self._keep, process)
        await running.read(self._nursery)
        return running

    @staticmethod
    async def _keep(process: trio.Process) -> None:
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    def config(self, text: str, name: str = "pricefeedd.toml") -> Path:
        """Write a configuration file."""
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture
async def cli(nursery: trio.Nursery, tmp_path: Path) -> Cli:
    """Return a runner of commands, away from the source tree."""
    return Cli(nursery, tmp_path)


def _environ(endpoints: Mapping[str, str]) -> dict[str, str]:
    return {f"PRICEFEEDD__VENUES__BINANCE__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()}


@pytest.fixture
def endpoints_environ() -> Callable[[Mapping[str, str]], dict[str, str]]:
    """Return a function that writes Binance's endpoints as environment variables."""
    return _environ


@pytest.fixture
async def exchange(nursery: trio.Nursery, cli: Cli) -> BinanceFake:
    """Return a simulated Binance on a local port where something happens; `cli` is pointed at it."""
    fake = BinanceFake(history_minutes=10)
    await nursery.start(fake.run)
    nursery.start_soon(fake.play, 40.0)
    cli.environ.update(_environ(fake.endpoints()))
    return fake


class Reader:
    """`websockets`' own client, in a thread for each call, and what it got.

    Attributes:
        messages: What has a topic and a `seq`, in order.
        notices: All else.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        """Send a request."""
        await trio.to_thread.run_sync(self.connection.send, json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        """Return the next message, and keep it."""
        text = await trio.to_thread.run_sync(partial(self.connection.recv, timeout=20))
        message: dict[str, Any] = json.loads(text)
        ours = "seq" in message and "topic" in message and message["type"] != "conflated"
        (self.messages if ours else self.notices).append(message)
        return message

    async def until(self, wanted: str | Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Read up to a message of this type, or for which this is true, and return it."""
        with trio.fail_after(30):
            while True:
                message = await self.receive()
                if message["type"] == wanted if isinstance(wanted, str) else wanted(message):
                    return message

    def of(self, kind: str, *, origin: str = "live") -> list[dict[str, Any]]:
        """Return the messages of a type, in order."""
        return [m for m in self.messages if m["type"] == kind and m["origin"] == origin]

    def check_sequence(self) -> None:
        """Assert that each topic's numbers go up by one, from the first message to the last."""
        last: dict[str, int] = {}
        for message in self.messages:
            before = last.setdefault(message["topic"], message["seq"] - 1)
            assert message["seq"] == before + 1, message
            last[message["topic"]] = message["seq"]

    async def closed(self) -> tuple[int, str]:
        """Read on until the connection ends; return the close code and reason."""
        with suppress(ConnectionClosed):
            while True:
                await self.receive()
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""

    async def close(self) -> None:
        """Leave in good order."""
        await trio.to_thread.run_sync(self.connection.close)


@pytest.fixture
async def open_reader() -> AsyncIterator[Callable[..., Awaitable[Reader]]]:
    """Return a function that connects to a daemon's `/ws`, with a key or without; all are cut at the end."""
    with ExitStack() as opened:

        async def open_(base: str, key: str = "") -> Reader:
            url = base.replace("http", "ws", 1) + "/ws"
            options: dict[str, Any] = {"max_size": None, "max_queue": None, "close_timeout": 1}
            if key:
                options["additional_headers"] = {"X-API-Key": key}

            def enter() -> ClientConnection:
                connection: ClientConnection = opened.enter_context(connect(url, **options))
                opened.callback(_cut, connection)
                return connection

            return Reader(await trio.to_thread.run_sync(enter))

        yield open_


def _cut(connection: ClientConnection) -> None:
    """End a connection without ceremony: at the end of a test nobody may be there to answer."""
    with suppress(OSError):  # it may be closed already
        connection.socket.shutdown(socket.SHUT_RDWR)
    connection.recv_events_thread.join(5)


async def _eventually(condition: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait until the condition holds: what happens in another process has no event here."""
    with trio.fail_after(within_s):
        while not await trio.to_thread.run_sync(condition):  # noqa: ASYNC110  # see above
            await trio.sleep(0.05)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Return a function that waits until a condition holds; it is asked in a thread."""
    return _eventually


@pytest.fixture(scope="module")
def installing(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return variables for a throw-away environment, in which plugins may be installed with pip.

    What these tests have is seen in it, hatchling is there as well, so that pip need not fetch it for each plugin.
    """
    folder = tmp_path_factory.mktemp("environment")
    quick = {
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # 0 is how pip spells "none"
    for command in (
        [sys.executable, "-m", "venv", folder],
        [folder / "bin" / "pip", "install", "--quiet", "hatchling>=1.27", "editables"],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "seen.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for name, module in {"pricefeedd": "pricefeedd.cli", "pytest": "pytest"}.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {module} "$@"\n')
        script.chmod(0o755)
    path = [f"{folder}/bin", f"{Path(sys.executable).parent}", os.environ["PATH"]]
    return {**quick, "PATH": os.pathsep.join(path)}
