"""A PostgreSQL of one's own, to be stopped, killed and frozen: never the machine's."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pricefeedd.testing.ports import free_port

#: Who runs it where we are root, which PostgreSQL refuses.
USER = "postgres"


class ClusterAwayError(Exception):
    """There is no PostgreSQL to be had on this machine."""


def programs() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        ClusterAwayError: There is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path))
    if not found:
        raise ClusterAwayError("PostgreSQL's server programs are not installed")
    return found[-1].parent


class Cluster:
    """A server with its data in a folder of its own. All calls block.

    Attributes:
        port: Where it listens on 127.0.0.1; the same after each start.
    """

    def __init__(self, folder: Path) -> None:
        """Make the data; the server is not started."""
        self.folder = folder
        self.port = free_port()
        self._programs = programs()
        if os.getuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._run(
            "initdb", "--no-sync", "--auth=trust", f"--username={USER}", "--encoding=UTF8", "-D", self._data
        )

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database of it."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = (
            f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off "
            "-c shared_buffers=16MB"
        )
        self._run(
            "pg_ctl", "start", "--wait", "-D", self._data, "-l", str(self.folder / "log"), "-o", options
        )

    def stop(self, *, mode: str = "fast") -> None:
        """Stop it; `immediate` is as if it had crashed."""
        self._run("pg_ctl", "stop", "--wait", "-D", self._data, "-m", mode)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang: connections stay open, new ones are taken by the kernel, and nothing answers."""
        found = self._processes()
        for process in found:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in found:
                os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """Return the server and its children."""
        main = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return [main, *map(int, children)]

    @property
    def runs(self) -> bool:
        """Whether it is started."""
        return (self.folder / "data" / "postmaster.pid").exists()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *command]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Yield a server that is started; it is gone afterwards.

    Raises:
        ClusterAwayError: There is no PostgreSQL to be had on this machine.
    """
    programs()
    folder = Path(tempfile.mkdtemp(prefix="pricefeedd-postgres-"))
    try:
        made = Cluster(folder)
        made.start()
        try:
            yield made
        finally:
            if made.runs:
                made.stop(mode="immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
