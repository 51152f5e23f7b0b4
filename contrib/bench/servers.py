"""The serving contestants, their readers, and what both cost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
from ingest import Contestant
from processes import BenchError, Helper, environment, helper, stop
from serving import TOPIC

T = TypeVar("T")

SERVERS = (
    Contestant(
        name="pricefeedd", title="pricefeedd: bus, mailbox, encoder, writer", script="serve_pricefeedd.py"
    ),
    Contestant(name="websockets", title="websockets: broadcast", script="serve_websockets.py", foreign=True),
    Contestant(
        name="picows", title="picows: transport.send in a loop", script="serve_picows.py", foreign=True
    ),
    Contestant(name="aiohttp", title="aiohttp: gather of send_str", script="serve_aiohttp.py", foreign=True),
    Contestant(name="bare", title="bare: socket.send in a loop, no server", script="serve_bare.py"),
)


@attrs.frozen(kw_only=True)
class Server:
    """A contestant that listens."""

    pid: int
    port: int
    helper: Helper

    def publish(self, messages: int, *, batch: int, per_s: float, within_s: float) -> int:
        """Have it publish; return how many messages it did within the time."""
        flow = {"messages": messages, "batch": batch, "per_s": per_s, "within_s": within_s}
        self.helper.tell(json.dumps(flow))
        return int(self.helper.read()["published"])


@contextmanager
def server(contestant: Contestant, *args: str) -> Iterator[Server]:
    """Run a contestant as long as the block lasts.

    Raises:
        BenchError: It did not start.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*contestant.command(), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said if contestant.foreign else None,
            text=True,
            env=environment(),
        )
        try:
            told = Helper(process)
            try:
                where = told.read()
            except BenchError as e:
                said.seek(0)
                lines = said.read().strip().splitlines()
                raise BenchError(f"{contestant.name} failed: {lines[-1]}" if lines else str(e)) from e
            yield Server(pid=where["pid"], port=where["port"], helper=told)
        finally:
            stop(process)


class Crowd:
    """The readers of a server, in a process of their own.

    Attributes:
        pid: That process.
    """

    def __init__(self, told: Helper) -> None:
        self.pid = told.pid
        self._told = told

    def do(self, what: str, **facts: object) -> dict[str, Any]:
        """Have them do something, and return their answer when it is done."""
        self.begin(what, **facts)
        return self._told.read()

    def begin(self, what: str, **facts: object) -> None:
        """Have them do something, whose answer is not waited for yet."""
        self._told.tell(json.dumps({"do": what, **facts}))

    def connect(self, *, subscribe: bool = True, goal: int = 0) -> list[float]:
        """Connect all, and return how many seconds each took until it had its first `goal` messages.

        Raises:
            BenchError: A reader was refused.
        """
        answer = self.do("connect", subscribe=subscribe, goal=goal)
        if answer["failed"]:
            raise BenchError(f"{answer['failed']} readers could not connect")
        times: list[float] = answer["times_s"]
        return times

    def receive(self, messages: int) -> None:
        """Wait until so many messages came in all, since the beginning.

        Raises:
            BenchError: They did not, or not in order.
        """
        answer = self.do("await", received=messages)
        if answer != {"received": messages, "missing": 0, "gone": 0}:
            raise BenchError(f"{messages} messages were sent, and the readers say {answer}")


@contextmanager
def crowd(port: int, readers: int, *args: str, topic: str | None = TOPIC) -> Iterator[Crowd]:
    """Run so many readers as long as the block lasts.

    Args:
        topic: What all of them read; None for the sender's instruments in turns.
    """
    chosen = [] if topic is None else [f"--topic={topic}"]
    with helper("readers.py", f"--port={port}", f"--readers={readers}", *chosen, *args) as told:
        yield Crowd(told)


def rounds(
    chosen: Sequence[Contestant], number: int, measure: Callable[[Contestant], T]
) -> tuple[dict[str, list[T]], dict[str, str]]:
    """Measure all in turns, so many rounds; return what was found, and why contestants are absent.

    Raises:
        BenchError: One of ours failed.
    """
    found: dict[str, list[T]] = {}
    absent: dict[str, str] = {}
    for at in range(number):
        for contestant in chosen:
            if contestant.name in absent:
                continue
            print(f"  round {at + 1}: {contestant.name} ...", file=sys.stderr)
            try:
                found.setdefault(contestant.name, []).append(measure(contestant))
            except BenchError as e:
                if not contestant.foreign:
                    raise
                absent[contestant.name] = str(e)
    return found, absent
