"""Starts and ends the processes of the bench, and asks the system what they cost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class BenchError(Exception):
    """A part of the bench could not do its work; the message says which and why."""


def answer(pipe: IO[str] | None) -> dict[str, Any]:
    """Return the next line of JSON that a process prints.

    Raises:
        BenchError: It ended instead.
    """
    assert pipe is not None
    line = pipe.readline()
    if not line:
        raise BenchError("a process of the bench ended early; what it said is above")
    message: dict[str, Any] = json.loads(line)
    return message


class Helper:
    """A process of the bench that is told things by lines, and answers in lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def read(self) -> dict[str, Any]:
        """Return its next line.

        Raises:
            BenchError: It ended instead.
        """
        return answer(self._process.stdout)

    def tell(self, line: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def environment() -> dict[str, str]:
    """Return our environment, but with compiled modules kept, as they are where pricefeedd is installed."""
    environ = dict(os.environ)
    if environ.pop("PYTHONDONTWRITEBYTECODE", None):
        environ["PYTHONPYCACHEPREFIX"] = f"{tempfile.gettempdir()}/pricefeedd-bench-pycache"
    return environ


@contextmanager
def helper(script: str, *args: str) -> Iterator[Helper]:
    """Run one of our scripts as long as the block lasts; it ends when its stdin does."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield Helper(process)
    finally:
        stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process, gently at first."""
    if process.stdin is not None:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, of user and system together, seconds (Linux).

    Its own CPU clock is read (clock_getcpuclockid(3)), because /proc counts in steps of 10 ms.
    """
    return time.clock_gettime(~pid << 3 | 2)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process, MB of a million bytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_kb(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process, and the part that is its own alone, kB of 1000 bytes (Linux)."""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        sizes[name] = int(value)
    private = sizes["Private_Clean:"] + sizes["Private_Dirty:"]
    return sizes["Rss:"] * 1.024, private * 1.024


def machine() -> str:
    """Return what the numbers were measured on, in one line."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux: the short name must do
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("trio", "trio-websocket", "orjson"))
    return (
        f"{model}, {os.cpu_count()} cores{load}; {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {libraries}"
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table that also reads well as plain text."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
