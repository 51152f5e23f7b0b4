"""The processes of the soak, and what the system says of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def environment() -> dict[str, str]:
    """Return our environment, but with compiled modules kept, as they are where pricefeedd is installed."""
    environ = dict(os.environ)
    if environ.pop("PYTHONDONTWRITEBYTECODE", None):
        environ["PYTHONPYCACHEPREFIX"] = f"{tempfile.gettempdir()}/pricefeedd-pycache"
    return environ


class SoakError(Exception):
    """A part of the soak could not do its work; the message says which and why."""


def pause(seconds: float) -> None:
    """Do nothing for a while."""
    threading.Event().wait(seconds)


class Helper:
    """One of our scripts, which is told things by lines and answers in lines of JSON."""

    def __init__(self, script: str, *arguments: str) -> None:
        self.name = " ".join((script, *arguments))
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def read(self) -> dict[str, Any]:
        """Return its next line.

        Raises:
            SoakError: It ended instead.
        """
        assert self._process.stdout is not None, "it was asked for"
        line = self._process.stdout.readline()
        if not line:
            raise SoakError(f"{self.name} ended early; what it said is above")
        told: dict[str, Any] = json.loads(line)
        return told

    def ask(self, line: str = "") -> dict[str, Any]:
        """Send it a line, and return its answer.

        Raises:
            SoakError: It ended instead.
        """
        assert self._process.stdin is not None, "it was asked for"
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SoakError(f"{self.name} ended early; what it said is above") from None
        return self.read()

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, MB of a million bytes (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process has open (Linux)."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, seconds (Linux): clock_getcpuclockid(3)."""
    return time.clock_gettime(~pid << 3 | 2)
