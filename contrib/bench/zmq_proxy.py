"""The proxy's own loop against libzmq's proxy: how many messages, what do they cost, how late are they?

uv run contrib/bench/zmq_proxy.py
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import zmq
from daemon import pause
from processes import cpu_s

ENDS = Path(__file__).parent / "zmq_ends.py"
_HIGH_WATER_MARK = 10_000


def libzmq(pull: str, pub: str, *, thread: bool) -> None:
    """Be libzmq's own proxy: in the main thread, or steerable in another one while Python waits."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    front, back = context.socket(zmq.PULL), context.socket(zmq.XPUB)
    for end, address in ((front, pull), (back, pub)):
        end.set_hwm(_HIGH_WATER_MARK)
        end.bind(address)
    if not thread:
        zmq.proxy(front, back)
    control = context.socket(zmq.PAIR)
    control.bind("inproc://control")
    threading.Thread(target=zmq.proxy_steerable, args=(front, back, None, control), daemon=True).start()
    signal.pause()


def _free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def _await(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(300):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        pause(0.1)


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process of the bench, and end it."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def _answer(pipe: IO[str] | None) -> dict[str, Any]:
    assert pipe is not None
    found: dict[str, Any] = json.loads(pipe.readline())
    return found


def proxy(kind: str, pull: str, pub: str) -> list[str]:
    """Return the command of a proxy."""
    if kind == "own":
        mark = f"--high-water-mark={_HIGH_WATER_MARK}"
        return [
            *(sys.executable, "-m", "pricefeedd.cli", "zmq-proxy", mark),
            *(f"--pull={pull}", f"--pub={pub}", "--http="),
        ]
    return [sys.executable, __file__, "--be", kind, "--pull", pull, "--pub", pub]


def measure(kind: str, messages: int, rate: float, publishers: int) -> dict[str, Any]:
    """Return the figures of one run."""
    ports = (_free(), _free())
    pull, pub = (f"tcp://127.0.0.1:{port}" for port in ports)
    python = (sys.executable, str(ENDS))
    each = messages // publishers
    look = ["--look"] if rate else []
    with (
        running(*proxy(kind, pull, pub)) as middle,
        running(*python, "read", pub, f"--messages={each * publishers}", *look) as reader,
    ):
        pushers = [
            running(*python, "push", pull, f"--messages={each}", f"--rate={rate}") for _ in range(publishers)
        ]
        processes = [pusher.__enter__() for pusher in pushers]
        for process in (reader, *processes):
            _answer(process.stdout)
        for port in ports:
            _await(port)
        pause(1.5)  # for the subscription to arrive
        before = cpu_s(middle.pid)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = _answer(reader.stdout)
        cpu = cpu_s(middle.pid) - before
        for pusher in pushers:
            pusher.__exit__(None, None, None)
    return found | {"cpu_us": cpu / (each * publishers) * 1e6, "sent": each * publishers}


def main(args: argparse.Namespace) -> None:
    """Print a row for each proxy and load."""
    print("| proxy | load | received/s | received | p50 ms | p99 ms | µs CPU each |")
    print("|---|---|---|---|---|---|---|")
    for rate, messages, publishers in ((0.0, args.messages, 2), (20_000.0, 20_000 * args.seconds, 1)):
        for kind in args.kinds.split(","):
            found = measure(kind, messages, rate, publishers)
            late = ["–" if found[q] is None else f"{found[q]:.2f}" for q in ("p50_ms", "p99_ms")]
            load = f"{rate:g}/s" if rate else f"as many as go, {publishers} publishers"
            print(
                f"| {kind} | {load} | {found['per_s']:.0f} | {found['received']} of {found['sent']} | {late[0]} | "
                f"{late[1]} | {found['cpu_us']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000, help="where as many go as can")
    parser.add_argument("--seconds", type=int, default=5, help="of the load with a rate")
    parser.add_argument("--kinds", default="own,libzmq,libzmq-thread", help="which, with commas between")
    parser.add_argument("--be", help="used by the bench itself")
    parser.add_argument("--pull")
    parser.add_argument("--pub")
    given = parser.parse_args()
    if given.be:
        libzmq(given.pull, given.pub, thread=given.be == "libzmq-thread")
    else:
        main(given)
