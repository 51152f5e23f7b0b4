"""Ports for servers that are stopped and started again on the same one."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

#: Below those that systems give to outgoing connections: one of these could take the port while its server is stopped.
_FIRST, _LAST = 20_000, 32_000


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on now, and that nobody is given by the system."""
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            return port
