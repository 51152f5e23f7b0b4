"""The log of a running daemon: signals, sessions, and a reader of the log who stops reading."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio

from pricefeedd_binance.testing import BinanceFake

CONFIG = """
[web]
listen = ["127.0.0.1:0"]

[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT"]
channels = ["trade"]
"""


def lines(running: Any, message: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, running.err.splitlines()) if line["message"] == message]


async def test_signals_change_the_level(
    cli: Any, exchange: BinanceFake, eventually: Callable[..., Awaitable[None]]
) -> None:
    running = await cli.start("run", "--config", cli.config(CONFIG))
    (bind,) = await running.binds()
    async with httpx.AsyncClient(timeout=10) as http:

        async def level() -> str:
            found: str = (await http.get(f"{bind}/api/v1/logging")).json()["level"]
            return found

        assert await level() == "info"
        running.process.send_signal(signal.SIGUSR1)
        await running.until('"now":"debug"', where="err")
        assert await level() == "debug"
        await running.until('"path":"/api/v1/logging"', where="err")
        running.process.send_signal(signal.SIGUSR2)
        await running.until('"now":"info"', where="err")
        assert await level() == "info"
        told = (await http.get(f"{bind}/api/v1/log")).json()["lines"]

    assert {"serving", "log level changed"} <= {line["message"] for line in told}
    assert (await running.end()).code == 0


async def test_lines_of_one_connection_with_a_venue_share_an_id(
    cli: Any, exchange: BinanceFake, open_reader: Callable[..., Awaitable[Any]]
) -> None:
    running = await cli.start("run", "--config", cli.config(CONFIG + "[logging]\nrepeat_s = 0.0\n"))
    (bind,) = await running.binds()
    reader = await open_reader(bind)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:binance:BTC-USDT"]})
    for _ in range(2):
        await reader.until("trade")
        exchange.faults.cut()
        await reader.until(lambda m: m["type"] == "status" and m["data"]["state"] != "live")
        await reader.until(lambda m: m["type"] == "status" and m["data"]["state"] == "live")

    lost = lines(running, "session lost")
    ids = [line["trace_id"] for line in lost]
    assert len(ids) >= 2
    assert len(set(ids)) == len(ids)


async def test_a_log_that_nobody_reads_holds_nothing_up(cli: Any, exchange: BinanceFake) -> None:
    path = cli.config(CONFIG + '[logging]\nlevel = "debug"\nformat = "json"\n')
    reader, writer = os.pipe()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pricefeedd.cli", "run", "--config", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writer,
        env=cli.environ,
        cwd=cli.folder,
    )
    try:
        with os.fdopen(reader) as log, os.fdopen(writer, "w"):
            bind = await trio.to_thread.run_sync(serving, log)
            slowest = 0.0
            async with httpx.AsyncClient(timeout=10) as http:
                # Each request writes a line, and the path makes it long: together 250 kB, of which a pipe takes 64.
                for number in range(400):
                    began = time.monotonic()
                    answer = await http.get(f"{bind}/{'x' * 500}{number}")
                    slowest = max(slowest, time.monotonic() - began)
                    assert answer.status_code == 404
            assert select.select([], [writer], [], 0)[1] == [], "the pipe takes more: nothing was tried"
            process.terminate()
            # The end waits a second at most for a log that nobody reads.
            with trio.fail_after(15):
                assert await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def serving(log: Any) -> str:
    """Read the log until the daemon serves, and return where."""
    for line in log:
        found = json.loads(line)
        if found["message"] == "serving":
            bind: str = found["binds"][0]
            return bind
    raise AssertionError("it ended")


async def test_a_daemon_without_stderr_serves(cli: Any, exchange: BinanceFake) -> None:
    program = "import os, sys; os.close(2); os.execv(sys.executable, sys.argv[1:])"
    run = [sys.executable, "-m", "pricefeedd.cli", "demo", "--listen", "127.0.0.1:0", "--log-level", "debug"]
    running = await cli.python("-c", program, *run)
    line = await running.until("ws://", within_s=60)

    assert (await running.end()).code == 0
    assert "127.0.0.1" in line


@pytest.mark.parametrize("format_", ["json", "journal"])
async def test_a_crash_and_a_warning_are_lines_too(cli: Any, format_: str) -> None:
    program = (
        "import sys, warnings\n"
        "from pricefeedd import logs\n"
        "logs.configure('info', sys.argv[1])\n"
        "warnings.warn('old', DeprecationWarning)\n"
        "raise RuntimeError('with postgres://me:hush@db')\n"
    )
    ended = await (await cli.python("-W", "always", "-c", program, format_)).ended()

    assert ended.code == 1
    assert "hush" not in ended.err
    if format_ == "json":
        warned, crashed = map(json.loads, ended.err.splitlines())
        assert (warned["level"], warned["logger"]) == ("warning", "py.warnings")
        assert "DeprecationWarning: old" in warned["message"]
        assert (crashed["level"], crashed["message"]) == ("critical", "crashed")
        assert "RuntimeError: with" in crashed["exception"]
    else:
        assert {line[:3] for line in ended.err.splitlines()} == {"<4>", "<2>"}
