"""What a serving contestant and the bench say to each other, and the messages that all of them serve.

A contestant prints one line of JSON once it listens, and publishes what each line on its stdin asks for. It ends
when its stdin does. Only the standard library is used here: the rivals run in environments of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

VENUE, INSTRUMENT = "bench", "C000-USDT"
TOPIC = f"trade:{VENUE}:{INSTRUMENT}"

#: Room for all readers that connect at once. The default of asyncio, 100, makes most of them wait a second.
BACKLOG = 2048

SEND_BUFFER_BYTES = 262_144

WELCOME = '{"type":"welcome","protocol":1,"session":"0123456789abcdef","epoch":"bench","heartbeat_s":15.0}'
ACK = f'{{"type":"ack","id":1,"op":"subscribe","results":[{{"topic":"{TOPIC}","ok":true,"matched":1}}]}}'


def arguments(description: str) -> argparse.Namespace:
    """Return what the bench tells a contestant."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--queue-bytes", type=int, default=2_097_152, help="of a reader that lags")
    return parser.parse_args()


def listening() -> socket.socket:
    """Return a socket on a free port of this machine."""
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is: with it on, frames
    # wait for the readers' acknowledgements and leave together.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # As pricefeedd sets it: what waits for a reader is then in the process, where it is seen, and not in the kernel.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    return sock


def price(number: int) -> str:
    """Return the price of a trade; it only moves."""
    return f"{64000 + number % 9973 / 100:.8f}"


class Feed:
    """The trades of one topic, as the others serve them: text that needs no encoder.

    Attributes:
        newest: The last trade; empty before the first.
    """

    def __init__(self) -> None:
        self.newest = ""
        self._seq = 0

    def take(self, count: int) -> list[str]:
        """Return the next messages."""
        return [self._next() for _ in range(count)]

    def _next(self) -> str:
        self._seq = seq = self._seq + 1
        now_us = time.time_ns() // 1000
        self.newest = (
            f'{{"type":"trade","topic":"{TOPIC}","seq":{seq},"ts_event":{now_us},"ts_recv":{now_us},'
            f'"origin":"live","data":{{"id":"{seq}","price":"{price(seq)}","size":"0.01520000","side":"buy"}}}}'
        )
        return self.newest


class Flow:
    """What the bench asks to be published: so many messages, in batches, at a pace, for so long at most.

    Attributes:
        published: Messages so far.
    """

    def __init__(self, line: str) -> None:
        asked = json.loads(line)
        self.messages: int = asked["messages"]
        self.batch: int = asked["batch"]
        self.per_s: float = asked["per_s"]
        self.within_s: float = asked["within_s"]
        self.published = 0

    def batches(self) -> Iterator[tuple[float, int]]:
        """Yield when each batch is due, in seconds from now, and how many messages it has."""
        began = time.monotonic()
        while self.published < self.messages:
            wait_s = began + self.published / self.per_s - time.monotonic()
            if time.monotonic() - began > self.within_s:
                return
            count = min(self.batch, self.messages - self.published)
            yield max(0.0, wait_s), count
            self.published += count

    def report(self) -> None:
        """Say what was published."""
        say({"published": self.published})


def say(message: dict[str, object]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def announce(port: int) -> None:
    """Say where the contestant listens, and which process it is."""
    say({"port": port, "pid": os.getpid()})


def listen_to_the_bench(told: Callable[[str | None], object]) -> None:
    """Call with each line of stdin, and None at its end; from a thread of its own."""

    def read() -> None:
        for line in sys.stdin:
            told(line)
        told(None)

    threading.Thread(target=read, daemon=True).start()
