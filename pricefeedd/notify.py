"""Talking with systemd: readiness, reloads, the watchdog, and sockets that it opened for us.

Outside of systemd everything here does nothing. sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

FIRST_LISTEN_FD = 3


class Notifier:
    """Sends states to the service manager."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Take the address from `NOTIFY_SOCKET`; without it nothing is ever sent."""
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL byte of Linux's abstract sockets. vsock addresses are for virtual machines.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._enabled = address.startswith(("/", "@"))

    def ready(self, status: str = "") -> bool:
        """Say that the start, or a reload, is complete."""
        return self._send("READY=1", *_status(status))

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send(*_status(text))

    def reloading(self) -> bool:
        """Say that a reload began; `ready` ends it."""
        # MONOTONIC_USEC tells systemd which SIGHUP this answers.
        return self._send(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def stopping(self, status: str = "") -> bool:
        """Say that the end began."""
        return self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> bool:
        """Say that we are well, for one more interval."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        """Return whether the datagram was sent. It never waits: a service manager that is stuck stops no feed."""
        if not self._enabled or not lines:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return False
        return True


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to call `Notifier.watchdog`: half of what systemd allows; None if it does not watch us."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdecimal() and int(text) > 0 else None


def listen_fds(environ: Mapping[str, str] = os.environ) -> tuple[int, ...]:
    """Return the numbers of the sockets that systemd opened for us, as `fd://N` names them."""
    count = environ.get("LISTEN_FDS", "")
    # The variables pass on to children; the number says whom they are meant for.
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return ()
    return tuple(range(FIRST_LISTEN_FD, FIRST_LISTEN_FD + int(count)))
