"""The image without Docker: each step of the Dockerfile is done by bubblewrap, and the daemon runs as it would there.

The base image is this machine's Python and C library. Everything else is what the Dockerfile says: what is copied,
which commands make `/app`, the environment, the user, the health check, the entry point.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio

from pricefeedd.testing.ports import free_port
from pricefeedd_binance.testing import BinanceFake

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "contrib" / "docker"

#: What python:3.12-slim has besides Python: the C library, and what dpkg needs.
SLIM = {
    *(
        "libc",
        "libm",
        "libdl",
        "libpthread",
        "librt",
        "libutil",
        "libresolv",
        "ld-linux-x86-64",
        "ld-linux-aarch64",
    ),
    *("libgcc_s", "libstdc++", "libz"),
}

#: What is installed here, in place of all: .ci/run installs all wheels.
EXTRAS = "binance kubernetes rabbitmq postgres"


@attrs.define
class Stage:
    """One stage of the Dockerfile, in its order.

    Attributes:
        steps: Instruction and text of all that does something.
        last: The text of what only the last of counts.
        environ: What `ENV` and `ARG` set.
    """

    base: str
    steps: list[tuple[str, str]] = attrs.field(factory=list)
    last: dict[str, str] = attrs.field(factory=dict)
    environ: dict[str, str] = attrs.field(factory=dict)


def read(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    stages: list[Stage] = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if not name:
            continue
        if name == "FROM":
            stages.append(Stage(rest))
        elif name in ("ENV", "ARG"):
            stages[-1].environ |= dict(each.split("=", 1) for each in shlex.split(rest))
        elif name in ("RUN", "COPY"):
            stages[-1].steps.append((name, " ".join(rest.split())))
        else:
            stages[-1].last[name] = rest.strip()
    return stages


STAGES = read((DOCKER / "Dockerfile").read_text())


def sent() -> tuple[set[str], Any]:
    """Return what `.dockerignore` lets through, and a filter of what lies below that."""
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in lines
    below = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    return {line[1:] for line in lines if line.startswith("!")}, shutil.ignore_patterns(*below)


def copy(source: str, target: Path) -> None:
    """Do what COPY does with one thing of the repository."""
    allowed, ignored = sent()
    assert source in allowed, f"{source} is not sent to the builder"
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, target, ignore=ignored)
    else:
        shutil.copy(ROOT / source, target)


class Box:
    """Runs commands with another root, by bubblewrap.

    Attributes:
        root: The folder that holds what the stage made.
    """

    def __init__(self, bwrap: str, root: Path) -> None:
        self.root = root
        self._bwrap = bwrap

    def building(self, environ: dict[str, str], folder: str, *command: str) -> None:
        """Run a step of the first stage, as root, with this machine in place of the base image."""
        uv = os.environ.get("UV") or shutil.which("uv")
        assert uv is not None
        cache = subprocess.run(
            [uv, "cache", "dir"], capture_output=True, text=True, check=True
        ).stdout.strip()
        arguments = ["--bind", str(self.root), "/"]
        for place in sorted(Path("/").iterdir()):
            if place.name not in ("app", "src", "state", "proc", "dev", "tmp", "var") and place.is_dir():
                arguments += ["--ro-bind", str(place), str(place)]
        arguments += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--bind", cache, cache]
        python = str(Path(sys.executable).resolve())
        path = f"{Path(uv).parent}:{os.environ['PATH']}"
        # Copies take long, and prove nothing.
        quick = {"UV_LINK_MODE": "hardlink", "EXTRAS": EXTRAS}
        given = {"UV_CACHE_DIR": cache, "UV_PYTHON": python, "PATH": path, "HOME": "/root"}
        for key, value in {**environ, **given, **quick}.items():
            arguments += ["--setenv", key, value]
        done = subprocess.run(
            [self._bwrap, *arguments, "--unsetenv", "VIRTUAL_ENV", "--chdir", folder, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def running(self, environ: dict[str, str], *binds: str) -> list[str]:
        """Return what to put before a command of the last stage.

        It is process 1, has an unprivileged user, no capability, and nothing that it can write but what is bound to be
        written. No /bin, /usr/bin nor /tmp is there: only Python, and the C library.
        """
        stage = STAGES[-1]
        user, group = stage.last["USER"].split(":")
        arguments = ["--unshare-user", "--uid", user, "--gid", group, "--unshare-pid", "--as-pid-1"]
        arguments += ["--cap-drop", "ALL", "--clearenv"]
        for place in ("/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", sys.base_prefix):
            if Path(place).is_dir():
                arguments += ["--ro-bind", place, place]
        for place in ("/lib", "/lib64"):
            arguments += ["--symlink", f"usr{place}", place]
        for place in ("/etc/ssl", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/ld.so.cache"):
            if Path(place).exists():
                arguments += ["--ro-bind", place, place]
        arguments += ["--ro-bind", str(self.root / "app"), "/app", "--proc", "/proc", "--dev", "/dev", *binds]
        for key, value in {**stage.environ, **environ}.items():
            arguments += ["--setenv", key, value]
        state = stage.last["WORKDIR"]
        return [self._bwrap, *arguments, "--dir", state, "--remount-ro", "/", "--chdir", state]


@pytest.fixture
def box(
    program: Callable[[str], str], away: Callable[[str], NoReturn], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """Return the image: the first stage is built, and what the last takes of it is in place."""
    bwrap = program("bwrap")
    tried = subprocess.run(
        [bwrap, "--unshare-user", "--ro-bind", "/", "/", "true"], capture_output=True, check=False
    )
    if tried.returncode:
        away(f"bubblewrap may not make namespaces here: {tried.stderr.decode()}")
    root = tmp_path_factory.mktemp("image")
    made = Box(bwrap, root)
    stage = STAGES[0]
    folder = stage.last["WORKDIR"]
    (root / folder[1:]).mkdir(parents=True)
    for name, text in stage.steps:
        if name == "COPY":
            *sources, target = text.split()
            for source in sources:
                copy(source, root / folder[1:] / (Path(source).name if target == "./" else target))
        elif text.startswith("["):
            # uv is here already, and the base image cannot be written.
            assert json.loads(text)[:2] == ["pip", "install"]
            assert json.loads(text)[-1].startswith("uv==")
        else:
            words = text.split()
            while words[0].startswith("--mount=type=cache,"):
                words.pop(0)
            made.building(stage.environ, folder, "sh", "-c", " ".join(words))
    for name, text in STAGES[-1].steps:
        assert name == "COPY", "the last stage runs nothing: this test could not do it"
        *flags, source, target = text.split()
        if flags:
            # What is taken over must be there; the mount is where the last stage has it.
            assert flags[0] == "--from=build"
            assert (root / source[1:]).is_dir()
            assert target in ("/app", STAGES[-1].environ["STATE_DIRECTORY"])
        else:
            copy(source, root / target[1:])
    yield made
    shutil.rmtree(root)


def test_the_linter_has_nothing_to_say(lint: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert lint("hadolint", DOCKER / "Dockerfile") == (0, "")
    broken = tmp_path / "Dockerfile"
    text = (DOCKER / "Dockerfile").read_text()
    for was, now, rule in (
        ("python:3.12-slim AS build", "python AS build", "DL3006"),
        ("uv==0", 'uv", "0', "DL3013"),
        ('"${extra}"', "${extra}", "SC2086"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ('ENTRYPOINT ["pricefeedd"]', "ENTRYPOINT pricefeedd", "DL3025"),
    ):
        assert was in text
        broken.write_text(text.replace(was, now))
        code, said = lint("hadolint", broken)
        assert code == 1
        assert rule in said


def test_the_last_stage_is_not_root_and_runs_nothing() -> None:
    stage = STAGES[-1]
    assert stage.base == STAGES[0].base.removesuffix(" AS build")
    assert [name for name, _ in stage.steps] == ["COPY"] * 3
    assert stage.last["USER"] == "10001:10001"
    assert stage.last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(stage.last["VOLUME"]) == [stage.environ["STATE_DIRECTORY"]]


def command(name: str) -> list[str]:
    """Return what ENTRYPOINT, CMD or HEALTHCHECK runs."""
    words: list[str] = json.loads(STAGES[-1].last[name].partition("CMD ")[2] if name == "HEALTHCHECK" else STAGES[-1].last[name])  # fmt: skip
    return words


def check_installed(box: Box) -> None:
    """Look whether it needs the source, or a library that the slim image lacks."""
    packages = next((box.root / "app/lib").glob("python3*/site-packages"))
    assert not list(packages.glob("*.pth")) or all(
        "/src" not in p.read_text() for p in packages.glob("*.pth")
    )
    for absent in ("pytest", "hypothesis", "playwright", "mypy"):
        assert not (packages / absent).exists()
    compiled = [str(path) for path in packages.rglob("*.so*")]
    assert compiled
    told = subprocess.run(["ldd", *compiled], capture_output=True, text=True, timeout=60, check=False).stdout
    needed = set()
    for line in told.splitlines():
        name, arrow, place = line.strip().partition(" => ")
        # What a wheel brings along itself lies in the image too.
        if arrow and not place.startswith(str(box.root)):
            needed.add(Path(name).name.split(".so")[0])
    assert needed <= SLIM | {f"libpython{sys.version_info[0]}.{sys.version_info[1]}"}, needed - SLIM


async def check_plugins(box: Box) -> None:
    """Look whether all plugins load where nothing can be written."""
    done = await trio.run_process(
        [*box.running({}), *command("ENTRYPOINT"), "plugins"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr.decode()
    assert {line.split("\t")[0] for line in lines if "\tloaded" in line} >= set(EXTRAS.split())
    assert not any("broken" in line for line in lines)


def proc(process: int, name: str) -> str:
    """Return what the kernel says of a process."""
    return Path(f"/proc/{process}/{name}").read_text()


def children(process: int) -> list[int]:
    """Return the children of a process."""
    return [int(each) for each in proc(process, f"task/{process}/children").split()]


async def test_the_image_is_whole_and_the_daemon_is_healthy_and_ends_as_process_1(
    box: Box, cli: Any, exchange: BinanceFake, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    # One test, for each worker that runs a part of it would have to build the image.
    await trio.to_thread.run_sync(check_installed, box)
    await check_plugins(box)
    port = free_port()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "pricefeedd.toml").write_text(
        f"""
        [web]
        listen = ["127.0.0.1:{port}"]
        [store]
        [[venues.binance.subscribe]]
        market = "spot"
        instruments = ["BTC-USDT"]
        channels = ["trade", "candle_1m", "book"]
        """
    )
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    given = {key: value for key, value in cli.environ.items() if key.startswith("PRICEFEEDD__")}
    binds = ["--bind", str(state), STAGES[-1].environ["STATE_DIRECTORY"]]
    binds += ["--ro-bind", str(tmp_path / "etc"), "/etc/pricefeedd"]
    daemon = await cli.program(*box.running(given, *binds), *command("ENTRYPOINT"), *command("CMD"))
    await eventually(lambda: children(daemon.process.pid))
    # bubblewrap's only child is what Docker would stop; and it would outlive bubblewrap, were the test to fail.
    (inside,) = children(daemon.process.pid)
    try:
        await check_running(daemon, inside, port, state, cli=cli, eventually=eventually, box=box)
    finally:
        with suppress(ProcessLookupError):
            os.kill(inside, signal.SIGKILL)


async def check_running(
    daemon: Any, inside: int, port: int, state: Path, *, cli: Any, eventually: Callable[..., Any], box: Box
) -> None:
    """Look whether the daemon serves, is healthy, can do nothing that it need not, and ends when it is told to."""
    await daemon.binds()

    async def code(*arguments: str) -> int:
        check = [
            *box.running({"PRICEFEEDD_HEALTH_URL": f"http://127.0.0.1:{port}/health"}),
            *command("HEALTHCHECK"),
        ]
        running = await cli.program(*check, *arguments)
        return int((await running.ended(within_s=30)).code)

    assert await code() == 0
    assert await code(f"http://127.0.0.1:{port}/nothing") == 1
    await eventually(lambda: (state / "pricefeedd.db").exists())
    status = dict(line.split(":\t", 1) for line in proc(inside, "status").splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == 0
    assert status["NSpid"].split()[-1] == "1"
    assert children(inside) == [], "somebody would have to bury them"
    os.kill(inside, getattr(signal, STAGES[-1].last["STOPSIGNAL"]))
    assert (await daemon.ended(within_s=10)).code == 0
    assert await code() == 1
