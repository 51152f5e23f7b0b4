"""README.md, "Install on a host" and "Logs": each command is typed on a machine of its own, with a systemd that booted.

It is booted over this machine's files. With PRICEFEEDD_TEST_BARE_ROOT naming a bare Debian (`mmdebstrap --variant=minbase
--include=systemd-sysv,dbus,iproute2 bookworm DIRECTORY`) it is that, and nothing is rewritten: that takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BARE = os.environ.get("PRICEFEEDD_TEST_BARE_ROOT", "")

#: What is typed otherwise, or not at all, unless the machine is bare; and why.
PIP = '"$version/bin/pip" install --quiet . ./plugins/pricefeedd-binance'
REWRITTEN: Mapping[str, tuple[str, str]] = {
    "apt-get update": (
        "true",
        "downloads for minutes; what it brings is on this machine, or the next one fails",
    ),
    "apt-get install --yes --no-install-recommends python3-venv ca-certificates curl": (
        "dpkg --status python3-venv ca-certificates curl > /dev/null",
        "see above",
    ),
    # pip itself installs the same two in tests/wire/test_third_party_plugin.py, and the wheels in .ci/run.
    PIP: (
        'uv pip install --quiet --python "$version/bin/python" . ./plugins/pricefeedd-binance',
        "pip takes a minute, twice; uv has it all in its cache",
    ),
}


_DOWNLOADS = re.compile(r"(UV|PIP|SSL|REQUESTS|CURL)_|\w+_proxy$", re.IGNORECASE)


def section(title: str) -> list[str]:
    """Return what is typed in a section, block by block."""
    text = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


INSTALL, LOGS = section("Install on a host"), section("Logs")
#: Lists what there is of pricefeedd.
TRACES = "systemctl is-active pricefeedd || true; find /opt /etc /var /run -name '*pricefeedd*' | sort"
#: The first words of each block, in order: one that is new must be looked at here.
STEPS = (
    "apt-get update",
    "install -D --mode=0644 systemd/pricefeedd.sysusers",
    "umask 077\nhead",
    "install --mode=0640",
    "systemctl daemon-reload\nsystemctl enable --now pricefeedd\n",
    'sed --in-place \'s/"ETH-USDT"',
    "version=",
    "before=",
    "umask 077\nsystemctl stop",
    "sed --in-place 's|^listen",
    "systemctl disable",
)


def rewritten(block: str) -> str:
    """Return a block as it is typed here."""
    if BARE:
        return block
    lines = [REWRITTEN.get(line, (line, ""))[0] for line in block.splitlines()]
    return "\n".join(lines)


def uv() -> Path:
    """Return the uv that the gate itself uses."""
    for found in (os.environ.get("UV"), shutil.which("uv")):  # `uv run` says which it is
        if found and Path(found).read_bytes()[:4] == b"\x7fELF":  # not a wrapper
            return Path(found)
    asked = [shutil.which("python3") or sys.executable, "-c", "import uv; print(uv.find_uv_bin())"]
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return Path(subprocess.run(asked, capture_output=True, check=True, env=environ).stdout.decode().strip())


def test_each_block_is_looked_at_here() -> None:
    assert len(INSTALL) == len(STEPS)
    assert [block for block, step in zip(INSTALL, STEPS, strict=True) if not block.startswith(step)] == []
    assert len(LOGS) == 1
    lines = {line for block in INSTALL for line in block.splitlines()}
    assert set(REWRITTEN) <= lines


@pytest.fixture
async def machine(beside: Callable[[str], Any], away: Callable[[str], NoReturn]) -> AsyncIterator[Any]:
    """A machine that runs."""
    module = beside("machine")
    if why := module.missing():
        away(f"{why}: apt-get install systemd-sysv systemd-container")
    if why := module.forbidden():
        pytest.skip(why)  # no package mends that
    async with module.booted(ROOT, root=Path(BARE or "/")) as found:
        yield found


@pytest.mark.timeout(1200 if BARE else 300)
async def test_a_host_is_set_up_used_and_cleaned_as_the_readme_says(machine: Any) -> None:
    # How this machine reaches package indexes is its own affair.
    environ = {name: value for name, value in os.environ.items() if _DOWNLOADS.match(name)}
    if not BARE:
        cache = (await trio.run_process([uv(), "cache", "dir"], capture_stdout=True)).stdout.decode().strip()
        environ |= {"UV_CACHE_DIR": cache, "UV_LINK_MODE": "copy"}
        await machine.run(f"install {uv()} /usr/bin/uv")

    async def type_(block: str) -> str:
        text = rewritten(block)
        online = " install --quiet" in text or "apt-get" in text
        out: str = await machine.run(text, online=online, environ=environ, within_s=600 if BARE else 90)
        return out

    (get, account, secrets, configuration, start, reload, upgrade, back, save, socket, remove) = INSTALL
    before = await machine.run(TRACES)
    assert "binance" in await type_(get)
    await type_(account)
    await type_(secrets)
    assert "pricefeedd.toml: ok (1 venues, 8 topics" in await type_(configuration)

    told = await type_(start)
    assert "Active: active (running)" in told
    assert 'Status: "serving on http://127.0.0.1:8765"' in told
    assert '{"status":"healthy"' in told
    assert "serving binds=" in told
    # It has no root, and nobody reads the secrets but root.
    assert (
        await machine.run("ps -o user:20= -p $(systemctl show --value -p MainPID pricefeedd)")
    ).strip() == "pricefeedd"
    modes = await machine.run("stat -c '%a %U' /etc/pricefeedd /etc/pricefeedd/* /etc/pricefeedd/secrets/*")
    assert modes.splitlines() == ["750 root", "640 root", "700 root", "600 root"]

    level, lines = (
        json.loads(text) for text in re.findall(r"^\{.*\}", await type_(joined(LOGS[0])), re.MULTILINE)
    )
    assert (level["level"], level["configured"]) == ("debug", "info")
    assert "instruments not loaded" in {line["message"] for line in lines["lines"]}
    now = await machine.run(
        'curl -s -H "X-API-Key: $(cat /etc/pricefeedd/secrets/ops-key)" http://127.0.0.1:8765/api/v1/logging'
    )
    assert json.loads(now)["level"] == "info"
    assert "401" in await machine.run(
        "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8765/api/v1/log"
    )

    pid = await main_pid(machine)
    await type_(reload)
    with trio.fail_after(20):
        reloaded = "journalctl -u pricefeedd --no-pager | grep reloaded || true"
        while "SOL-USDT" not in await machine.run(reloaded):  # noqa: ASYNC110  # another process has no event here
            await trio.sleep(0.2)
    assert await main_pid(machine) == pid

    one = await machine.run("readlink /opt/pricefeedd")
    await type_(upgrade)
    two = await machine.run("readlink /opt/pricefeedd")
    assert one < two
    assert two.strip() in await machine.run(
        "tr '\\0' ' ' < /proc/$(systemctl show --value -p MainPID pricefeedd)/cmdline"
    )
    await type_(back)
    assert await machine.run("readlink /opt/pricefeedd") == one

    await type_(save)
    saved = await machine.run(
        "tar --list --file=/var/backups/pricefeedd.tar.gz; stat -c %a /var/backups/pricefeedd.tar.gz"
    )
    assert {"etc/pricefeedd/secrets/ops-key", "var/lib/pricefeedd/pricefeedd.db", "600"} <= set(
        saved.splitlines()
    )

    assert '{"status":"healthy"' in await type_(socket)
    assert 'Status: "serving on http://127.0.0.1:8765"' in await machine.run(
        "systemctl --no-pager status pricefeedd"
    )
    # Nobody is refused while it restarts.
    restarted = await machine.run(
        "systemctl restart --no-block pricefeedd\n"
        "for i in $(seq 20); do curl --silent --fail --max-time 20 http://127.0.0.1:8765/health > /dev/null; done\n"
        "echo all answered"
    )
    assert "all answered" in restarted

    await type_(remove)
    after = (await machine.run(TRACES)).splitlines()
    after.remove("/var/backups/pricefeedd.tar.gz")
    assert after == before.splitlines()
    assert "no such user" in await machine.run("id pricefeedd 2>&1 || true")


async def main_pid(machine: Any) -> str:
    """Return the daemon's process id, as systemd knows it."""
    found: str = await machine.run("systemctl show --value -p MainPID pricefeedd")
    return found


def joined(block: str) -> str:
    """Return a block whose answers stand on lines of their own."""
    return "\n".join(f"{line}; echo" if line.startswith("curl") else line for line in block.splitlines())
