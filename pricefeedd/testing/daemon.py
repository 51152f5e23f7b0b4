"""A whole daemon as a process of its own, for a plugin's tests from the venue to a client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

#: What a daemon takes to end that was told to.
_GOODBYE_S = 15.0

_SERVING = re.compile(rb'"binds":\s*\["http://([^"]+)"')


@asynccontextmanager
async def daemon(config: str, folder: Path) -> AsyncIterator[str]:
    """Run `pricefeedd run` on a free port of 127.0.0.1, and yield where it serves: `ws://127.0.0.1:40123`.

    It has none of the caller's own settings, and ends with the block. How long to wait for it is up to the caller.

    Args:
        config: The TOML text.
        folder: Where its configuration and its state are kept.

    Raises:
        AssertionError: It ended instead; the text is what it said.
    """
    (folder / "pricefeedd.toml").write_text(config)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PRICEFEEDD")}
    environ.pop("NOTIFY_SOCKET", None)
    environ |= {"STATE_DIRECTORY": str(folder / "state"), "PRICEFEEDD__LOGGING__FORMAT": "json"}
    arguments = ["run", "--config", "pricefeedd.toml", "--listen", "127.0.0.1:0"]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pricefeedd.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environ,
    )
    try:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(_serving, process)
            yield f"ws://{address}"
            process.send_signal(signal.SIGTERM)
            with trio.move_on_after(_GOODBYE_S):
                await process.wait()
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _serving(
    process: trio.Process, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Read what it logs until its end; the address comes by `nursery.start`."""
    assert process.stderr is not None, "it was opened with a pipe"
    said = b""
    told = False
    async for data in process.stderr:
        if told:
            continue
        said += data
        if (found := _SERVING.search(said)) is not None:
            told = True
            task_status.started(found[1].decode())
    assert told, f"the daemon ended with {await process.wait()}: {said.decode(errors='replace')}"
