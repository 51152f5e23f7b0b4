"""A whole pricefeedd in a process of its own, from a configuration file made for the occasion."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from processes import BenchError, environment, stop

from pricefeedd.testing.ports import free_port

START_S = 30.0


@attrs.frozen(kw_only=True)
class Running:
    """A daemon that answers.

    Attributes:
        start_s: From starting the process to the first answer of `/health`.
    """

    pid: int
    port: int
    start_s: float


def pause(seconds: float) -> None:
    """Do nothing for a while."""
    threading.Event().wait(seconds)


def configuration(
    port: int, endpoints: Mapping[str, str], instruments: Sequence[str], channels: Sequence[str]
) -> str:
    """Return the TOML of a daemon that reads one market."""

    def listed(words: Sequence[str]) -> str:
        return "[" + ", ".join(f'"{word}"' for word in words) + "]"

    return "\n".join(
        [
            "[web]",
            f'listen = ["127.0.0.1:{port}"]',
            "[[venues.binance.subscribe]]",
            'market = "spot"',
            f"instruments = {listed(instruments)}",
            f"channels = {listed(channels)}",
            "[venues.binance.endpoints]",
            *(f'{name} = "{url}"' for name, url in endpoints.items()),
            "[logging]",
            'level = "warning"',
            "",
        ]
    )


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False  # not yet
    finally:
        connection.close()


@contextmanager
def daemon(
    endpoints: Mapping[str, str], instruments: Sequence[str], channels: Sequence[str]
) -> Iterator[Running]:
    """Run a daemon as long as the block lasts.

    Raises:
        BenchError: It does not start.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pricefeedd.toml"
        path.write_text(configuration(port, endpoints, instruments, channels))
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "pricefeedd.cli", "run", "--config", str(path)],
            cwd=place,
            env=environment(),
        )
        try:
            while not _healthy(port):
                if process.poll() is not None:
                    raise BenchError(
                        f"the daemon ended with code {process.returncode}; what it said is above"
                    )
                if time.monotonic() - began > START_S:
                    raise BenchError(f"the daemon did not answer within {START_S:.0f} s")
                pause(0.005)
            yield Running(pid=process.pid, port=port, start_s=time.monotonic() - began)
        finally:
            stop(process)
