"""A machine of its own to install on: systemd, booted in a container over this machine's own files.

What is written goes to memory, and is gone with it. It has its own processes, users, network (loopback alone) and
journal. Needs root, and Debian's packages systemd and systemd-container.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

import attrs
import trio

#: As root's login shell has it on Debian.
_ENVIRON = {"PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}

#: Where the checkout is seen, read-only.
CHECKOUT = "/usr/src/pricefeedd"

_BOOT = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$4,upperdir=$1/upper,workdir=$1/work" "$1/root"
mkdir -p "$1/root$3" /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn  # what nspawn leaves there is gone with us
mkdir /run/systemd/nspawn/propagate
# What another tool put there is not on a bare machine.
rm -rf "$1/root/opt"/pricefeedd* "$1/root/etc/pricefeedd" "$1/root/var/lib/pricefeedd"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
# Not multi-user.target: services of this machine are not to run twice.
exec systemd-nspawn --quiet --register=no --keep-unit --machine="feedhost$$" --console=read-only \\
    --private-network --directory="$1/root" --bind-ro="$2:$3" --boot systemd.unit=basic.target
"""


@attrs.frozen
class Machine:
    """The machine that runs."""

    leader: int

    async def run(
        self,
        script: str,
        *,
        online: bool = False,
        environ: Mapping[str, str] = MappingProxyType({}),
        within_s: float = 60.0,
    ) -> str:
        """Type a script as root in the checkout, and return what it printed; its first failure is an AssertionError.

        Args:
            online: Let it use the network of this machine, to download what is installed.
        """
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", *([] if online else ["--net"])]
        command = ["nsenter", "--target", str(self.leader), *spaces, "--", "env", "-i"]
        command += [f"{name}={value}" for name, value in {**_ENVIRON, **environ}.items()]
        text = f"cd {CHECKOUT}\n{script}"
        with trio.fail_after(within_s):
            done = await trio.run_process(
                [*command, "bash", "-euo", "pipefail", "-c", text],
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        out = done.stdout.decode()
        assert done.returncode == 0, f"{script}\nended with {done.returncode}:\n{out}"
        return out


def missing() -> str:
    """Return what is missing here to boot one; "" if all is there."""
    for program in ("systemd-nspawn", "nsenter", "unshare"):
        if shutil.which(program) is None:
            return f"no {program} here"
    if not Path("/sbin/init").exists():
        return "no systemd-sysv here"
    return ""


def forbidden() -> str:
    """Return why this process may not boot one, whatever is installed; "" if it may."""
    if os.geteuid() != 0:
        return "only root may boot a container"
    script = 'mount -t tmpfs t "$1" && mkdir "$1/a" "$1/b" "$1/c" && mount -t overlay o -o "lowerdir=/,upperdir=$1/a,workdir=$1/b" "$1/c"'
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(
            ["unshare", "--mount", "bash", "-c", script, "-", folder], capture_output=True, check=False
        )
    return "" if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode().strip()}"


@asynccontextmanager
async def booted(checkout: Path, *, root: Path = Path("/")) -> AsyncIterator[Machine]:
    """Boot a machine, and let it vanish afterwards.

    Args:
        root: The files that it has; nothing is written there.
    """
    with tempfile.TemporaryDirectory(prefix="feedhost") as folder, tempfile.TemporaryFile() as said:
        process = await trio.lowlevel.open_process(
            ["unshare", "--mount", "bash", "-euc", _BOOT, "-", folder, str(checkout), CHECKOUT, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            with trio.fail_after(30):
                machine = await _up(process, said)
            yield machine
        finally:
            with trio.CancelScope(shield=True):
                for leader in _children(process.pid):
                    os.kill(leader, 9)
                process.kill()
                await process.wait()


async def _up(process: trio.Process, said: IO[bytes]) -> Machine:
    while process.poll() is None:
        for leader in _children(process.pid):
            state = await trio.run_process(
                ["nsenter", "--target", str(leader), "--all", "systemctl", "is-active", "basic.target"],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            if state.stdout.strip() == b"active":
                return Machine(leader)
        await trio.sleep(0.1)
    said.seek(0)
    raise AssertionError(f"the machine did not boot: {said.read().decode(errors='replace')[-2000:]}")


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]
