"""The files for systemd, by its own tools; and what passes between it and the daemon, on real sockets."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio

from pricefeedd_binance.testing import BinanceFake

ROOT = Path(__file__).parents[2]
FILES = ROOT / "systemd"

CONFIG = """
[web]
listen = ["127.0.0.1:0"]

[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT"]
channels = ["trade"]
"""


@pytest.fixture
def tool(away: Callable[[str], NoReturn]) -> Callable[[str], str]:
    """Return a function that returns the path of one of systemd's programs."""

    def find(name: str) -> str:
        return shutil.which(name) or away(f"no {name} here: apt-get install systemd")

    return find


def unit(name: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents it
    parser.read(FILES / name)
    return {section: dict(parser[section]) for section in parser.sections()}


# --- the files -----------------------------------------------------------------------------------------------


def test_the_service_tells_systemd_what_it_does() -> None:
    service = unit("pricefeedd.service")["Service"]

    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["RestartPreventExitStatus"] == "78"
    assert service["StateDirectory"] == "pricefeedd"
    assert service["Restart"] == "always"
    assert "WatchdogSec" in service
    assert service["ExecStart"].split()[0] == "/opt/pricefeedd/bin/pricefeedd"


def test_systemd_finds_nothing_wrong_with_the_units(tool: Callable[[str], str], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("pricefeedd")
    for name in ("pricefeedd.service", "pricefeedd.socket"):
        # Only the program's place differs: it is installed elsewhere here.
        text = (FILES / name).read_text().replace("/opt/pricefeedd/bin/pricefeedd", str(program))
        (tmp_path / name).write_text(text)
    result = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )

    # It also tells of faults in units of the host; those are not ours.
    ours = [line for line in result.stderr.splitlines() if "pricefeedd" in line]
    assert ours == []


def test_the_hardening_scores_what_is_promised(tool: Callable[[str], str]) -> None:
    # The threshold is in tenths.
    result = subprocess.run(
        [
            *(tool("systemd-analyze"), "security", "--offline=true", "--threshold=15", "--no-pager"),
            FILES / "pricefeedd.service",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-300:] + result.stderr
    assert "Overall exposure level" in result.stdout


def test_the_account_and_the_directories_are_made(tool: Callable[[str], str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc/pricefeedd").mkdir(parents=True)
    (root / "etc/pricefeedd/pricefeedd.toml").write_text("")
    for program, kind in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        folder = root / "usr/lib" / f"{kind}.d"
        folder.mkdir(parents=True)
        shutil.copy(FILES / f"pricefeedd.{kind}", folder / "pricefeedd.conf")
        create = ["--create"] if kind == "tmpfiles" else []
        if kind == "tmpfiles" and os.geteuid() != 0:
            pytest.skip("only root may give files to others")
        done = subprocess.run([tool(program), f"--root={root}", *create], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    (account,) = [line for line in (root / "etc/passwd").read_text().splitlines() if "pricefeedd" in line]
    name, _, uid, gid, _, home, shell = account.split(":")
    assert (name, home) == ("pricefeedd", "/var/lib/pricefeedd")
    assert shell.endswith("nologin")
    assert unit("pricefeedd.service")["Service"]["User"] == name
    for path, mode, group in (
        ("", 0o750, int(gid)),
        ("/secrets", 0o700, 0),
        ("/pricefeedd.toml", 0o640, int(gid)),
    ):
        found = (root / f"etc/pricefeedd{path}").stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (mode, 0, group), path
    assert int(uid) > 0


# --- what is said --------------------------------------------------------------------------------------------


class Manager:
    """What systemd hears."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[dict[str, str]] = []
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Hear all that is said, until cancelled."""
        with self._socket:
            await self._socket.bind(str(self.path))
            task_status.started()
            while True:
                text = (await self._socket.recv(4096)).decode()
                self.heard.append(dict(line.split("=", 1) for line in text.split("\n")))

    async def until(self, said: str, *, after: int = 0, within_s: float = 20.0) -> int:
        """Wait until something was said, and return how much had been by then."""
        with trio.fail_after(within_s):
            while True:
                for index, words in enumerate(self.heard[after:], after):
                    if said in words:
                        return index + 1
                await trio.sleep(0.02)


@pytest.fixture
async def manager(nursery: trio.Nursery, tmp_path: Path) -> Manager:
    """A service manager that listens."""
    found = Manager(tmp_path / "notify")
    await nursery.start(found.listen)
    return found


async def test_the_life_of_the_service_is_told(cli: Any, exchange: BinanceFake, manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "400000"}
    path = cli.config(CONFIG)
    running = await cli.start("run", "--config", path, environ=environ)
    at = await manager.until("READY")
    assert manager.heard[at - 1]["STATUS"].startswith("serving on http://127.0.0.1:")
    at = await manager.until("WATCHDOG", after=at)
    at = await manager.until("WATCHDOG", after=at)

    running.process.send_signal(signal.SIGHUP)
    at = await manager.until("RELOADING", after=at)
    assert int(manager.heard[at - 1]["MONOTONIC_USEC"]) > 0
    at = await manager.until("READY", after=at)
    # A reload that is refused ends as well: `systemctl reload` would wait for ever.
    path.write_text("[webb]")
    running.process.send_signal(signal.SIGHUP)
    at = await manager.until("READY", after=await manager.until("RELOADING", after=at))

    ended = await running.end()
    await manager.until("STOPPING", after=at)
    assert ended.code == 0


async def test_a_pipeline_that_hangs_does_not_feed_the_watchdog(
    cli: Any, exchange: BinanceFake, manager: Manager
) -> None:
    # The fault: a gate that never comes back from an event, as a plugin's rule in an endless loop would bring about.
    program = (
        "import sys, time\n"
        "from pricefeedd import gate\n"
        "def hang(*a, **k):\n"
        "    print('it hangs', flush=True)\n"
        "    time.sleep(60)\n"
        "gate.Gate.admit = hang\n"
        "from pricefeedd.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    environ = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    running = await cli.python("-c", program, "run", "--config", cli.config(CONFIG), environ=environ)
    await manager.until("READY")
    await running.until("it hangs")
    await trio.sleep(0.1)  # what was said before arrives
    count = len(manager.heard)
    with trio.move_on_after(0.5):  # more than twice as long as it may be silent
        await manager.until("WATCHDOG", after=count)
    assert len(manager.heard) == count
    running.process.kill()


# --- sockets that it opens -----------------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("address", ["fd://3", "fd://feed"])
async def test_a_reader_finds_the_socket_that_systemd_opened(
    cli: Any,
    exchange: BinanceFake,
    tool: Callable[[str], str],
    open_reader: Callable[..., Awaitable[Any]],
    address: str,
) -> None:
    port = free_port()
    activate = [tool("systemd-socket-activate"), "--listen", f"127.0.0.1:{port}", "--fdname=feed"]
    run = [sys.executable, "-m", "pricefeedd.cli", "run", "--config", cli.config(CONFIG), "--listen", address]
    passed = [f"--setenv={name}" for name in cli.environ]
    running = await cli.program(*activate, *passed, *run)
    await running.until("Listening on", where="err")

    # systemd starts it because somebody connects, and he is served.
    reader = await open_reader(f"http://127.0.0.1:{port}")
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:binance:BTC-USDT"]})
    await reader.until("trade")

    assert await running.binds() == [f"http://127.0.0.1:{port}"]
    ended = await running.end()
    assert ended.code == 0
    assert "systemd opened a socket" not in ended.err


async def test_a_socket_that_nobody_uses_is_told(
    cli: Any, exchange: BinanceFake, tool: Callable[[str], str]
) -> None:
    port = free_port()
    activate = [tool("systemd-socket-activate"), "--listen", f"127.0.0.1:{port}"]
    run = [sys.executable, "-m", "pricefeedd.cli", "run", "--config", cli.config(CONFIG)]
    passed = [f"--setenv={name}" for name in cli.environ]
    running = await cli.program(*activate, *passed, *run)
    await running.until("Listening on", where="err")
    (await trio.open_tcp_stream("127.0.0.1", port)).socket.close()

    line = json.loads(await running.until("systemd opened a socket", where="err"))

    assert line["level"] == "warning"
    assert line["listen"] == "fd://3"
    await running.binds()


@pytest.mark.parametrize("address", ["fd://97", "fd://feed"])
async def test_a_socket_that_nobody_opened_is_a_clear_error(cli: Any, address: str) -> None:
    ended = await cli.run("run", "--config", cli.config(CONFIG), "--listen", address)

    assert ended.code == 69
    assert f"cannot listen on {address}" in ended.err
    assert "Traceback" not in ended.err


# --- credentials ---------------------------------------------------------------------------------------------


@pytest.fixture
def credentials(tmp_path: Path) -> Iterator[Path]:
    """The directory that LoadCredential= makes."""
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "ops-key").write_text("open-sesame\n")
    (folder / "ops-key").chmod(0o400)
    yield folder
    shutil.rmtree(folder)


async def test_a_credential_is_the_key_and_is_shown_nowhere(cli: Any, credentials: Path) -> None:
    text = '[[web.keys]]\nname = "ops"\nkey = { credential = "ops-key" }\nscopes = ["read", "admin"]\n'
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "PRICEFEEDD__LOGGING__LEVEL": "debug"}
    running = await cli.start("run", "--config", cli.config(CONFIG + text), environ=environ)
    (bind,) = await running.binds()
    program = (
        "import sys, urllib.request as u\n"
        "r = u.Request(sys.argv[1] + '/api/v1/logging', headers={'X-API-Key': sys.argv[2]})\n"
        "print(u.urlopen(r).read().decode())\n"
    )
    asked = await (await cli.python("-c", program, bind, "open-sesame")).ended()
    assert json.loads(asked.out)["level"] == "debug"
    refused = await (await cli.python("-c", program, bind, "open-other")).ended()
    assert "401" in refused.err

    ended = await running.end()
    assert "open-sesame" not in ended.err
    assert re.search('"path":"/api/v1/logging","status":200', ended.err)
