"""A reader that holds the daemon to its word, in a process of its own: reader.py URL KIND.

all      every topic, each number of it; and of trades each id of the venue
thin     books of ten levels and quotes, four times a second
slow     every topic, but it reads in bursts: what it loses must be announced

A line on stdin asks for a line of figures. It ends when its stdin does.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import trio

from pricefeedd.client import Bye, Disconnected, EpochChanged, Missed, Update, connect
from pricefeedd.client.feed import Feed

#: What the client says itself of numbers that the daemon passed over without a word.
UNANNOUNCED = ("the numbers jumped", "the heartbeat is ahead of what came")
#: Ids of trades that are not there are looked for among this many: they may still be filled in.
_LOUD = 20


class Trades:
    """The ids of one topic's trades, which a venue counts up by one.

    Attributes:
        missing: Ids below the greatest that never came.
        announced: How many trades the daemon said to be lost.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0
        self.count = 0
        self.missing: set[int] = set()
        self.announced = 0
        self.blind = 0

    def take(self, number: int) -> None:
        """Take the next one."""
        self.count += 1
        if self.first is None:
            self.first, self.last = number, number
        elif number > self.last:
            self.missing.update(range(self.last + 1, number))
            self.last = number
        else:
            self.missing.discard(number)


class Reader:
    """What came, and what is wrong with it."""

    def __init__(self) -> None:
        self.messages = 0
        self.kinds: Counter[str] = Counter()
        self.trades: dict[str, Trades] = {}
        self.wrong: list[str] = []
        self.unannounced = 0
        self.announced = 0
        self.connects = 0
        self.reasons: Counter[str] = Counter()

    def take(self, update: Update) -> None:
        """Take one update of the client's."""
        if isinstance(update, Missed):
            if update.reason in UNANNOUNCED:
                self.unannounced += 1
                if len(self.wrong) < _LOUD:
                    self.wrong.append(f"{update.topic} {update.from_seq}-{update.to_seq}: {update.reason}")
            else:
                self.announced += 1
                self.reasons[update.reason] += 1
                self._lost(update.topic, update.missing)
        elif isinstance(update, Disconnected | EpochChanged | Bye):
            self.reasons[type(update).__name__] += 1
        message = update.message
        if not message or "data" not in message:
            return
        self.messages += 1
        kind = message["type"]
        self.kinds[kind] += 1
        if kind == "trade":
            self.trades.setdefault(update.topic, Trades()).take(int(message["data"]["id"]))
        elif kind == "gap" and not isinstance(update, Missed):
            # In the numbered stream: what the venue's side lost, for everybody.
            self.reasons[f"gap: {message['data']['reason']}"] += 1
            self._lost(update.topic, message["data"]["missing"])

    def _lost(self, topic: str, missing: int | None) -> None:
        trades = self.trades.get(topic)
        if trades is not None and missing is None:
            trades.blind += 1
        elif trades is not None:
            trades.announced += missing or 0

    def figures(self) -> dict[str, Any]:
        """Return what was seen so far."""
        return {
            "messages": self.messages,
            "unannounced": self.unannounced,
            "announced": self.announced,
            "wrong": self.wrong,
            "reasons": dict(self.reasons),
            "kinds": dict(self.kinds),
            "trades": {
                topic: {
                    "count": trades.count,
                    "last": trades.last,
                    "missing": len(trades.missing),
                    "announced": trades.announced,
                    "blind": trades.blind,
                }
                for topic, trades in self.trades.items()
            },
        }


async def read(url: str, kind: str) -> None:
    """Read until stdin ends."""
    reader = Reader()

    async def answer() -> None:
        while await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(reader.figures()), flush=True)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with connect(url, wait=True, max_delay_s=2.0) as feed:
            await _subscribe(feed, kind)
            print(json.dumps({"ready": kind}), flush=True)
            async for update in feed:
                reader.take(update)
                if kind == "slow" and not reader.messages % 2000:
                    await trio.sleep(1.5)


async def _subscribe(feed: Feed, kind: str) -> None:
    if kind == "thin":
        await feed.subscribe(["book:*:*"], depth=10, every_ms=250)
        await feed.subscribe(["quote:*:*", "ticker:*:*"], every_ms=250)
    else:
        await feed.subscribe(["*:*:*"])


if __name__ == "__main__":
    trio.run(read, sys.argv[1], sys.argv[2])
