#!/usr/bin/env -S uv run
"""Reads a pricefeedd daemon with many connections at once, and says how fast and how whole it was served.

    uv run contrib/load_test/load_test.py --connections 100 --duration 60
    uv run contrib/load_test/load_test.py --url wss://feed.example.com/ws --topics 'trade:*:*' --processes 2 --json

Exit codes: 0, 1 something was lost without a word or refused, 2 usage, 69 nobody could connect.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import ssl
import subprocess
import sys
import time
from functools import partial
from typing import Any

import attrs
import orjson
import trio
from figures import Figures, rounded, summary, table
from lines import CLOSE, TEXT, Line, LineError, Pump, RefusedError, dial, reason_of
from sequence import Numbers

from pricefeedd.client.asking import resumption
from pricefeedd.client.line import Address
from pricefeedd.frames import masked_frame
from pricefeedd.limits import backoff

CONNECT_S = 10.0
#: Handshakes at a time, of one process: a burst beyond the daemon's backlog measures SYN retries, not the daemon.
DIALING = 128
#: Who was read for so long may be dialled again at once.
PROVEN_S = 5.0
#: Close codes from here on say: do not come back.
FOR_GOOD = 4500


@attrs.frozen(kw_only=True)
class Wish:
    """What the command line asks for."""

    address: Address
    topics: tuple[str, ...]
    options: dict[str, Any]
    reconnect: bool


class Client:
    """One reader, over all its connections."""

    def __init__(self, wish: Wish, figures: Figures, pump: Pump, dialing: trio.CapacityLimiter) -> None:
        self._wish = wish
        self._figures = figures
        self._pump = pump
        self._dialing = dialing
        self._numbers = Numbers(figures)
        self._line: Line | None = None
        self._known = False

    async def run(self) -> None:
        """Be connected until cancelled, or until the daemon does not want us."""
        delays = backoff(0.25, 5.0)
        while True:
            wait = None
            try:
                line = await self._open()
            except RefusedError as e:
                self._figures.failed[str(e)] += 1
                return
            except LineError as e:
                self._figures.failed[str(e)] += 1
            else:
                began = trio.current_time()
                await self._stay(line)
                if trio.current_time() - began > PROVEN_S:
                    delays = backoff(0.25, 5.0)
                wait = line.retry_after_s
                if line.code is not None and line.code >= FOR_GOOD:
                    return
            if not self._wish.reconnect:
                return
            await trio.sleep(next(delays) if wait is None else wait)

    async def _open(self) -> Line:
        """Return a connection on which everything is asked for."""
        async with self._dialing:
            began = time.monotonic_ns()
            with trio.move_on_after(CONNECT_S) as patience:
                sock, rest = await dial(self._wish.address)
            if patience.cancelled_caught:
                raise LineError(f"no answer within {CONNECT_S:.0f} s")
        line = Line(sock, self._numbers, self._figures)
        self._pump.add(line)
        self._line = line
        if rest:
            line.take(rest)
        with trio.move_on_after(CONNECT_S):
            await line.welcomed.wait()
        if not line.welcome:
            reason = line.reason or f"no welcome within {CONNECT_S:.0f} s"
            code = line.code
            self._let_go()
            raise (RefusedError if code is not None and code >= FOR_GOOD else LineError)(reason)
        self._figures.welcome_us[rounded((time.monotonic_ns() - began) // 1000)] += 1
        await self._subscribe(line)
        return line

    async def _subscribe(self, line: Line) -> None:
        again = self._known
        same = self._numbers.begin(line.welcome["epoch"])
        if not again:
            self._known = True
            self._figures.connected += 1
        elif same:
            self._figures.resumed += 1
        else:
            self._figures.epochs += 1
        limit = line.welcome.get("limits", {}).get("message_bytes", 65_536)
        wanted = dict.fromkeys(self._wish.topics, self._wish.options)
        positions = {}
        if again and same:
            stood = self._numbers.positions()
            positions = {
                topic: {name: at for name, at in stood.items() if _means(topic, name)} for topic in wanted
            }
        frames = []
        for number, request in enumerate(resumption(wanted, positions, limit_bytes=limit), 1):
            body = {"op": request.op, "id": number, **request.fields}
            frames.append(masked_frame(TEXT, orjson.dumps(body)))
        line.asked = len(frames)
        line.asked_us = time.time_ns() // 1000
        try:
            await line.send(b"".join(frames))
        except OSError as e:
            line.end(f"connection lost: {reason_of(e)}")
        with trio.move_on_after(CONNECT_S) as patience:
            await line.answered.wait()
        if patience.cancelled_caught:
            line.end(f"no answer to the subscription within {CONNECT_S:.0f} s")

    async def _stay(self, line: Line) -> None:
        await line.ended.wait()
        self._figures.lost_connections[line.reason] += 1
        self._let_go()

    def _let_go(self) -> None:
        if self._line is not None:
            self._pump.remove(self._line)
            self._line = None

    def leave(self) -> None:
        """Part from the daemon in good order, at the end."""
        if self._line is not None:
            self._line.try_send(masked_frame(CLOSE, (1000).to_bytes(2)))
            self._let_go()
        self._numbers.end()


def _means(pattern: str, name: str) -> bool:
    parts = zip(pattern.split(":", 2), name.split(":", 2), strict=True)
    return all(want in ("*", have) for want, have in parts)


async def read(wish: Wish, connections: int, duration_s: float, ramp_per_s: float) -> Figures:
    """Read for so long, connecting included, and return what was seen."""
    figures = Figures(connections=connections)
    pump = Pump()
    dialing = trio.CapacityLimiter(DIALING)
    clients = [Client(wish, figures, pump, dialing) for _ in range(connections)]
    began, cpu = time.monotonic(), time.process_time()
    with trio.move_on_after(duration_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            async with trio.open_nursery() as readers:
                for client in clients:
                    readers.start_soon(client.run)
                    if ramp_per_s:
                        await trio.sleep(1 / ramp_per_s)
            nursery.cancel_scope.cancel()  # none of them is wanted any longer
    for client in clients:
        client.leave()
    figures.elapsed_s = time.monotonic() - began
    figures.cpu_s = time.process_time() - cpu
    return figures


async def read_in_processes(processes: int, connections: int) -> Figures:
    """Have several processes read, each its share, and return what they saw together."""
    total = Figures()

    async def one(share: int) -> None:
        # The last word counts, so the share overrides what the command line said; the key is in the environment.
        command = [sys.executable, *sys.argv, "--processes=1", f"--connections={share}", "--part"]
        done = await trio.run_process(command, capture_stdout=True, check=False, stdin=subprocess.DEVNULL)
        if not done.stdout:
            raise SystemExit(f"a reading process ended with {done.returncode}")
        total.add(json.loads(done.stdout))

    async with trio.open_nursery() as nursery:
        for number in range(processes):
            share = connections // processes + (number < connections % processes)
            if share:
                nursery.start_soon(one, share)
    return total


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Reads a pricefeedd daemon with many connections at once.")
    parser.add_argument("--url", default="ws://127.0.0.1:8765/ws", help="of the daemon's /ws (%(default)s)")
    parser.add_argument("--connections", type=int, default=100, help="readers at once (%(default)s)")
    parser.add_argument(
        "--duration", type=float, default=60.0, help="seconds, connecting included (%(default)s)"
    )
    parser.add_argument("--topics", nargs="+", default=["*:*:*"], help="of every reader (%(default)s)")
    parser.add_argument("--ramp", type=float, default=0.0, help="new connections per second (all at once)")
    parser.add_argument("--processes", type=int, default=1, help="that share the connections (%(default)s)")
    parser.add_argument("--every-ms", type=int, help="ask for one message per topic in so many ms")
    parser.add_argument("--batch-ms", type=int, help="let the daemon collect messages for so long")
    parser.add_argument("--no-reconnect", action="store_true", help="do not come back")
    parser.add_argument("--api-key", help="better in PRICEFEEDD_API_KEY, which other users cannot see")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.connections < 1 or given.processes < 1 or given.duration <= 0 or given.ramp < 0:
        parser.error("connections, processes and duration are greater than 0, ramp is not negative")
    for topic in given.topics:
        if topic.count(":") < 2:
            parser.error(f"{topic!r} is no topic: channel:venue:instrument, * for any part")
    try:
        Address(given.url).target()
    except ValueError as e:
        parser.error(f"{given.url!r}: {e}")
    return given


def wish_of(given: argparse.Namespace) -> Wish:
    """Return what the readers shall do."""
    key = given.api_key or os.environ.get("PRICEFEEDD_API_KEY")
    url = given.url
    if given.batch_ms is not None:
        url += f"{'&' if '?' in url else '?'}batch_ms={given.batch_ms}"
    headers = () if key is None else ((b"X-API-Key", key.encode()),)
    options = {} if given.every_ms is None else {"every_ms": given.every_ms}
    tls = ssl.create_default_context() if url.startswith("wss") else None
    return Wish(
        address=Address(url, headers, tls),
        topics=tuple(given.topics),
        options=options,
        reconnect=not given.no_reconnect,
    )


def main() -> int:
    """Read, print what was seen, and return the exit code."""
    given = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Nothing here is in a cycle; the collector would only look at what is read, again and again.
    gc.disable()
    try:
        if given.processes > 1:
            figures = trio.run(read_in_processes, given.processes, given.connections)
        else:
            figures = trio.run(partial(read, wish_of(given), given.connections, given.duration, given.ramp))
    except KeyboardInterrupt:
        return 130
    if given.part:
        print(json.dumps(attrs.asdict(figures)))
        return 0
    found = summary(figures)
    if given.json:
        print(json.dumps(found))
    else:
        topics = " ".join(given.topics)
        print(f"{given.url}   {topics}   {given.connections} connections for {given.duration:g} s\n")
        print(table(found, given.processes))
    if not figures.connected:
        return 69
    return 1 if figures.lost or figures.refused else 0


if __name__ == "__main__":
    sys.exit(main())
