"""What systemd hears from us, on real datagram sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricefeedd import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A service manager's socket, and the environment that names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        if request.param == "path":
            name = str(tmp_path / "notify")
            listening.bind(name)
        else:
            name = f"@pricefeedd-test-{os.getpid()}"
            listening.bind("\0" + name[1:])
        listening.settimeout(5)
        yield listening, {"NOTIFY_SOCKET": name}


def heard(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().split("\n")


def test_the_life_of_a_service_is_told(manager: tuple[socket.socket, dict[str, str]]) -> None:
    listening, environ = manager

    assert notify.ready("serving 3 topics", environ=environ)
    assert heard(listening) == ["READY=1", "STATUS=serving 3 topics"]
    assert notify.watchdog(environ=environ)
    assert heard(listening) == ["WATCHDOG=1"]
    assert notify.status("2 venues live", environ=environ)
    assert heard(listening) == ["STATUS=2 venues live"]
    assert notify.stopping(environ=environ)
    assert heard(listening) == ["STOPPING=1"]


def test_a_reload_carries_the_monotonic_time(manager: tuple[socket.socket, dict[str, str]]) -> None:
    listening, environ = manager
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    assert notify.reloading(environ=environ)

    state, at = heard(listening)
    assert state == "RELOADING=1"
    assert (
        before_us
        <= int(at.removeprefix("MONOTONIC_USEC="))
        <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    )


def test_a_status_cannot_bring_in_another_state(manager: tuple[socket.socket, dict[str, str]]) -> None:
    listening, environ = manager

    notify.status("bad\nSTOPPING=1", environ=environ)

    assert heard(listening) == ["STATUS=bad STOPPING=1"]


def test_without_systemd_nothing_happens() -> None:
    assert not notify.ready(environ={})
    assert not notify.watchdog(environ={"NOTIFY_SOCKET": ""})


def test_a_manager_that_is_away_or_stuck_ends_nothing(tmp_path: Path) -> None:
    assert not notify.ready(environ={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(tmp_path / "stuck"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "stuck")}
        sent = 0
        while notify.watchdog(environ=environ):
            sent += 1
            assert sent < 100_000, "the queue of a socket that nobody reads has no end"


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(
    environ: dict[str, str], interval_s: float | None
) -> None:
    assert notify.watchdog_interval_s(environ) == interval_s


@pytest.mark.parametrize(
    ("environ", "fds"),
    [
        ({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}, {3: "", 4: ""}),
        (
            {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web:admin"},
            {3: "web", 4: "admin"},
        ),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "1"}, {}),
        ({"LISTEN_FDS": "2"}, {}),
        ({"LISTEN_FDS": "some", "LISTEN_PID": str(os.getpid())}, {}),
        ({}, {}),
    ],
)
def test_sockets_are_taken_only_if_meant_for_us(environ: dict[str, str], fds: dict[int, str]) -> None:
    assert notify.listen_fds(environ) == fds


def opened(*names: str) -> dict[str, str]:
    """Return the environment of a process for which systemd opened sockets of these names."""
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(names)),
        "LISTEN_FDNAMES": ":".join(names),
    }


def test_a_socket_is_meant_by_number_or_name() -> None:
    environ = opened("web", "admin", "web")

    assert notify.listen_fd("3", environ) == 3
    assert notify.listen_fd("9", environ) == 9  # whoever opened that
    assert notify.listen_fd("admin", environ) == 4
    with pytest.raises(ValueError, match=r"several sockets are named 'web' .*: 3 \(web\), 4 \(admin\), 5"):
        notify.listen_fd("web", environ)
    with pytest.raises(ValueError, match=r"no socket is named 'feed' among those that systemd opened: none"):
        notify.listen_fd("feed", {})


@pytest.mark.parametrize(
    ("addresses", "unused"),
    [
        (["127.0.0.1:8765"], ["fd://3", "fd://4"]),
        (["fd://3"], ["fd://4"]),
        (["fd://admin"], ["fd://3"]),
        (["fd://web", "fd://4"], []),
    ],
)
def test_sockets_that_nobody_uses_are_found(addresses: list[str], unused: list[str]) -> None:
    assert notify.unused_fds(addresses, opened("web", "admin")) == unused
    assert notify.unused_fds(addresses, {}) == []
