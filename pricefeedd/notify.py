"""Talking with systemd: readiness, reloads, the watchdog, and sockets that it opened for us.

Outside of systemd everything here does nothing. sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping

FIRST_LISTEN_FD = 3


def ready(status: str = "", *, environ: Mapping[str, str] = os.environ) -> bool:
    """Say that the start, or a reload, is complete. Like all of these, return whether it was sent."""
    return _send(environ, "READY=1", *_status(status))


def status(text: str, *, environ: Mapping[str, str] = os.environ) -> bool:
    """Set the line that `systemctl status` shows."""
    return _send(environ, *_status(text))


def reloading(*, environ: Mapping[str, str] = os.environ) -> bool:
    """Say that a reload began; `ready` ends it."""
    # MONOTONIC_USEC tells systemd which SIGHUP this answers. Where there is no systemd there may be no such clock.
    if not environ.get("NOTIFY_SOCKET"):
        return False
    now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return _send(environ, "RELOADING=1", f"MONOTONIC_USEC={now_us}")


def stopping(status: str = "", *, environ: Mapping[str, str] = os.environ) -> bool:
    """Say that the end began."""
    return _send(environ, "STOPPING=1", *_status(status))


def watchdog(*, environ: Mapping[str, str] = os.environ) -> bool:
    """Say that we are well, for one more interval."""
    return _send(environ, "WATCHDOG=1")


def _send(environ: Mapping[str, str], *lines: str) -> bool:
    """Send one datagram without waiting: a service manager that is stuck stops no feed."""
    address = environ.get("NOTIFY_SOCKET", "")
    # What begins with neither is a vsock address of virtual machines.
    if not lines or not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):  # Linux's abstract sockets begin with NUL
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        try:
            channel.sendto("\n".join(lines).encode(), address)
        except OSError:
            return False
    return True


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to call `watchdog`: half of what systemd allows; None if it does not watch us."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdecimal() and int(text) > 0 else None


def listen_fds(environ: Mapping[str, str] = os.environ) -> dict[int, str]:
    """Return the sockets that systemd opened for us: by number, as `fd://3` names them, each with its own name.

    The name is that of `FileDescriptorName=`, which `fd://NAME` means; without one, that of the socket unit.
    """
    count = environ.get("LISTEN_FDS", "")
    # The variables pass on to children; the number says whom they are meant for.
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return {
        FIRST_LISTEN_FD + index: names[index] if index < len(names) else "" for index in range(int(count))
    }


def listen_fd(name: str, environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of the socket that `fd://` means by a number or a name.

    Raises:
        ValueError: systemd gave us no socket of that name, or several.
    """
    if name.isdecimal():
        return int(name)
    given = listen_fds(environ)
    found = [number for number, its in given.items() if its == name]
    if len(found) != 1:
        have = ", ".join(f"{number} ({its})" if its else str(number) for number, its in given.items())
        problem = "several sockets are" if found else "no socket is"
        raise ValueError(f"{problem} named {name!r} among those that systemd opened: {have or 'none'}")
    return found[0]


def unused_fds(addresses: Iterable[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return those of the sockets that systemd opened for us which no address names, as `fd://N`."""
    named = {address.removeprefix("fd://") for address in addresses if address.startswith("fd://")}
    return [
        f"fd://{number}"
        for number, name in listen_fds(environ).items()
        if not named & {str(number), name or str(number)}
    ]
