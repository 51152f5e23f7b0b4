"""The core on macOS and Windows, as far as that can be seen from here: all that they lack is hidden.

What other libraries take of the system they have taken before, for they know those systems. Modules of ours then find
neither `fcntl` nor `resource`, no unix sockets, no SIGHUP, and another `sys.platform`.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

#: Prints the modules that are not ours and that come with all of ours.
SURVEY = """
import importlib, json, pkgutil, sys
import pricefeedd
for found in pkgutil.walk_packages(pricefeedd.__path__, "pricefeedd."):
    if ".migrations." not in found.name and "__main__" not in found.name:
        importlib.import_module(found.name)
import pricefeedd_binance.testing, quart.app, rich.table, trio.socket
print(json.dumps([name for name in sys.modules if not name.startswith(("pricefeedd", "__"))]))
"""

#: Runs a command of pricefeedd on a system of which only the name is real.
ELSEWHERE = """
import importlib, importlib.abc, json, pkgutil, sys
platform, names, hidden, *arguments = sys.argv[1:]
hidden = json.loads(hidden)
for name in json.loads(names):
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # a module that another one put there

away = hidden.pop("")

class Away(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in away:
            raise ModuleNotFoundError(f"no {name} on {platform}", name=name)

for name in away:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Away())
# Every system has pairs of sockets, but only here are they of AF_UNIX.
socket = sys.modules["socket"]
pair, family = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda *given: pair(family, *given[1:])
sys.modules["ssl"].SSLContext._load_windows_store_certs = lambda *_: None
for module, attributes in hidden.items():
    for attribute in attributes:
        if hasattr(sys.modules[module], attribute):
            delattr(sys.modules[module], attribute)
sys.platform = platform
import pricefeedd
for found in pkgutil.walk_packages(pricefeedd.__path__, "pricefeedd."):
    if ".migrations." not in found.name and "__main__" not in found.name:
        importlib.import_module(found.name)
from pricefeedd.cli import main
main(arguments)
"""

#: By platform, what it lacks: "" are modules; the others attributes of modules.
LACKS: dict[str, dict[str, list[str]]] = {
    "darwin": {
        "": [],
        "socket": ["TCP_USER_TIMEOUT", "SO_PASSCRED", "AF_NETLINK", "AF_VSOCK"],
        "os": ["sched_getaffinity", "fdatasync", "posix_fadvise", "memfd_create", "eventfd", "getrandom"],
        "signal": ["SIGRTMIN", "SIGPWR", "SIGPOLL"],
    },
    "win32": {
        "": ["resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline"],
        "socket": ["AF_UNIX", "TCP_USER_TIMEOUT", "SO_REUSEPORT", "SO_PASSCRED", "recv_fds", "send_fds"],
        "os": [
            *("fork", "getuid", "geteuid", "getgid", "getegid", "fchmod", "fchown", "chown", "writev", "readv"),
            *("sysconf", "statvfs", "uname", "openpty", "mkfifo", "killpg", "setsid", "getpgid", "sendfile"),
            *("O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_SYNC", "fdatasync", "pread", "pwrite"),
            *("sched_getaffinity", "getloadavg", "posix_fadvise", "memfd_create", "eventfd"),
        ],
        "signal": ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGPIPE", "SIGQUIT", "SIGCHLD"],
        "time": ["clock_gettime", "clock_gettime_ns", "CLOCK_MONOTONIC", "CLOCK_REALTIME", "tzset"],
    },
}  # fmt: skip


#: What `SURVEY` printed, once it has.
_surveyed: list[str] = []


async def elsewhere(cli: Any, platform: str, *arguments: Any, **options: Any) -> Any:
    """Begin a command of pricefeedd on another system."""
    if not _surveyed:
        survey = await (await cli.python("-c", SURVEY)).ended(within_s=60)
        assert survey.code == 0, survey.err
        _surveyed.append(survey.out)
    words = [platform, *_surveyed, json.dumps(LACKS[platform]), *arguments]
    return await cli.python("-c", ELSEWHERE, *words, **options)


@pytest.mark.parametrize("platform", LACKS)
async def test_the_demo_serves_a_client(
    cli: Any, open_reader: Callable[..., Awaitable[Any]], platform: str
) -> None:
    running = await elsewhere(cli, platform, "demo", "--listen", "127.0.0.1:0", "--log-level", "info")
    line = await running.until("ws://", within_s=60)
    found = re.search(r"ws://([\d.:]+)/ws", line)
    assert found is not None

    reader = await open_reader(f"http://{found[1]}")
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:*:*", "book:*:BTC-USDT"]})
    for _ in range(200):
        await reader.receive()
    reader.check_sequence()
    status = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    asked = await (await cli.python("-c", status, f"http://{found[1]}/status")).ended()
    peak = json.loads(asked.out)["memory"]["peak_rss_bytes"]
    assert (peak is None) is (platform == "win32")

    ended = await running.end(signal.SIGINT)
    assert "Traceback" not in ended.err
    assert '"level":"error"' not in ended.err
    assert ended.code == 0


async def test_what_a_system_lacks_is_said_where_it_is_asked_for(cli: Any, tmp_path: Any) -> None:
    path = cli.config('[web]\nlisten = ["unix:/tmp/feed.sock"]\n')
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    ended = await (await elsewhere(cli, "win32", "run", "--config", path, environ=environ)).ended(within_s=60)

    assert ended.code == 69
    assert "this system has no unix sockets; use host:port" in ended.err
    assert "Traceback" not in ended.err
