#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["websockets>=15"]
# ///
"""Reads pricefeedd with plain `websockets` on asyncio. It imports nothing of pricefeedd: copy it.

    uv run asyncio_client.py ws://127.0.0.1:8765/ws 'trade:*:*' book:binance:BTC-USDT --limit 20

It comes back when the connection ends, asks for what it missed meanwhile, checks that no message is missing, and
keeps order books. Data goes to stdout and everything else to stderr. Exit codes: 0, 1 the daemon refused, 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

Message = dict[str, Any]

#: The ceiling of the wait before a new connection doubles from the first to the last of these.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0

#: Topics in one request: 200 make about 20 kB, and the daemon takes `welcome.limits.message_bytes` (64 kB).
TOPICS_AT_ONCE = 200

#: Of these each message is an event that comes once. Of the others only the newest state counts, and a reader
#: that is slow is told `conflated` in place of what was passed over.
EVENT_CHANNELS = ("trade", "liquidation", "order", "execution", "position", "balance")


class RefusedError(Exception):
    """The daemon does not want us, and will not if we ask again."""


class Book:
    """An order book, by price. Prices and sizes stay the text that the venue sent: it is exact."""

    def __init__(self) -> None:
        self.bids: dict[float, list[str]] = {}
        self.asks: dict[float, list[str]] = {}

    def apply(self, data: Message) -> None:
        """Take a snapshot, or a delta: its sizes are absolute, and size 0 removes the level."""
        if data["kind"] == "snapshot":
            self.bids.clear()
            self.asks.clear()
        for side, levels in ((self.bids, data["bids"]), (self.asks, data["asks"])):
            for price, size in levels:
                # Found again by its number, because a venue may spell a price "1.0" now and "1.00" later.
                if float(size) == 0:
                    side.pop(float(price), None)
                else:
                    side[float(price)] = [price, size]

    def top(self) -> str:
        """Return the best bid and offer. To want them at each update, keep the sides sorted instead."""
        bid = self.bids[max(self.bids)] if self.bids else ["-", "-"]
        ask = self.asks[min(self.asks)] if self.asks else ["-", "-"]
        depth = f"({len(self.bids)}+{len(self.asks)} levels)"
        return f"{bid[1]} @ {bid[0]} | {ask[0]} @ {ask[1]} {depth}"


class Topic:
    """Where we stand in one topic. `seq` goes up by one per message, so a jump that nobody explained is a loss."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events_only = name.partition(":")[0] in EVENT_CHANNELS
        self.book: Book | None = None
        self.begin()

    def begin(self) -> None:
        """Know nothing: the next message is the first."""
        self.seq: int | None = None
        self.book = None
        self._excused = 0  # the daemon said that up to here something was passed over
        self._hole: tuple[int, int] | None = None
        self._introducing = 3  # the newest data, the status, what came last: numbers may jump between them
        self._aside = False

    def take(self, message: Message) -> tuple[bool, tuple[int, int] | None]:
        """Return whether a message is new, and which numbers it proves to be lost."""
        seq, kind, data = message["seq"], message["type"], message["data"]
        snapshot = kind == "book" and data["kind"] == "snapshot"
        if self.seq is not None and seq <= self.seq and not snapshot:
            return False, None
        aside = kind in ("status", "gap")
        introducing = self._introducing > 0 and (aside or self._aside)
        if self.seq is not None and not introducing:
            # With `every_ms` or `depth` numbers are passed over on purpose, and `prev_seq` says what this follows.
            first, last = max(self.seq, self._excused) + 1, message.get("prev_seq", seq - 1)
            if first <= last:
                self._hole = (self._hole[0] if self._hole else first, last)
        self._introducing = max(0, self._introducing - 1)
        self._aside = aside
        self.seq = seq
        if snapshot:
            self._hole = None  # whatever came before, this stands for it
        # `conflated` stands before the newest state, and behind a status or closed candle that kept its place.
        # So of a topic of state a hole is judged when the state comes.
        keeps_its_place = aside or (kind.startswith("candle") and data["closed"])
        return True, None if keeps_its_place and not self.events_only else self.settle()

    def settle(self) -> tuple[int, int] | None:
        """Return the numbers that are lost, once nothing can explain them any more."""
        lost, self._hole = self._hole, None
        return lost

    def excuse(self, to_seq: int) -> None:
        """Note that the daemon accounted for all numbers up to this one."""
        self._excused = max(self._excused, to_seq)
        if self._hole is not None and self._hole[1] <= to_seq:
            self._hole = None

    def compare(self, seq: int) -> tuple[int, int] | None:
        """Take the number of a heartbeat, which follows all data sent before; return what it proves lost."""
        lost = self.settle()
        self._introducing = 0
        if self.seq is not None and seq > max(self.seq, self._excused):
            lost = (lost[0] if lost else max(self.seq, self._excused) + 1, seq)
        self.seq = max(self.seq or 0, seq)
        return lost


class Client:
    """A connection that comes back.

    Attributes:
        topics: Where each topic stands.
    """

    def __init__(self, url: str, wanted: list[str], *, api_key: str | None = None) -> None:
        self.topics: dict[str, Topic] = {}
        self._url = url
        self._wanted = wanted
        # A header and not `?api_key=`: URLs end up in logs.
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._epoch = ""
        self._begin()

    def _begin(self) -> None:
        """Know nothing of a connection yet."""
        self._bye: Message | None = None
        self._flows = False  # data came
        self._broken = ""  # the topic of a book that lost an update

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Yield data, and notices about it: `conflated`, `gap`, and `missed` for what the numbers prove.

        Raises:
            RefusedError: There is no use in coming back.
        """
        attempt = 0
        while True:
            self._begin()
            try:
                # Generators are closed where they are opened: one left half read would be closed when the loop is.
                async with aclosing(self._connection()) as messages:
                    async for message in messages:
                        yield message
            except InvalidURI as e:
                raise RefusedError(str(e)) from e
            except InvalidStatus as e:
                status = e.response.status_code
                if 400 <= status < 500:
                    raise RefusedError(f"HTTP {status}: {bytes(e.response.body or b'').decode()}") from e
                why = str(e)
            except (OSError, InvalidHandshake, ConnectionClosed) as e:  # TimeoutError is an OSError
                why = str(e) or type(e).__name__
            else:
                why = "the connection ended"
            pause_s = 0.0
            if self._bye is not None:
                why = f"{self._bye['code']} {self._bye['reason']}"
                if self._bye["code"] >= 4500:
                    raise RefusedError(why)
                pause_s = (self._bye.get("retry_after_ms") or 0) / 1000
            # Full jitter: all clients of a daemon lose it at the same moment, and must not return at the same one.
            # Only data sets the count back: a connection that opens and dies again is no success.
            attempt = 0 if self._flows else attempt + 1
            pause_s += random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10)))
            say(f"{why}; trying again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)

    async def _connection(self) -> AsyncGenerator[Message, None]:
        """Yield the messages of one connection."""
        # `websockets` pings every 20 s, so a connection whose other end is gone does not last unnoticed.
        # The daemon refuses compression unless told otherwise, and messages have no bound that we would know.
        async with connect(
            self._url, additional_headers=self._headers, compression=None, max_size=None
        ) as socket:
            async for text in socket:
                frame = json.loads(text)
                for message in frame if isinstance(frame, list) else [frame]:  # a list with `?batch_ms=`
                    if "topic" in message:
                        self._flows = True
                        for each in self._take(message):
                            yield each
                    else:
                        for each in self._hear(message):
                            yield each
                        if message["type"] == "welcome":
                            await self._subscribe(socket)
                if self._broken:
                    # Should never happen. What lost a part of this connection may lose more of it.
                    say(f"lost a part of {self._broken}: coming back for a snapshot")
                    await socket.close()
                    return

    # --- requests -----------------------------------------------------------------------------------------

    async def _subscribe(self, socket: ClientConnection) -> None:
        """Subscribe: first each topic that we know by its own name, from where it stands, then what is wanted.

        A pattern's topics are named because `since` speaks of those alone that its own request subscribes, and
        because it can be cut into requests that are not too large.
        """
        for topic in self.topics.values():
            topic.book = None  # a book comes anew: as long as that takes there is none
        known = {name: topic.seq for name, topic in self.topics.items() if topic.seq is not None}
        names = list(known)
        for start in range(0, len(names), TOPICS_AT_ONCE):
            piece = names[start : start + TOPICS_AT_ONCE]
            since = {"epoch": self._epoch, "seq": {name: known[name] for name in piece}}
            await socket.send(json.dumps({"op": "subscribe", "id": 0, "topics": piece, "since": since}))
        await socket.send(json.dumps({"op": "subscribe", "id": 1, "topics": self._wanted}))

    def _hear(self, message: Message) -> Iterator[Message]:
        """Take what concerns the connection. Types that are not known here are passed over: more may come."""
        match message["type"]:
            case "welcome":
                yield from self._welcome(message["epoch"])
            case "ack":
                results = message["results"]
                for result in results:
                    if not result["ok"]:
                        near = result["error"].get("did_you_mean")
                        hint = f"; did you mean {', '.join(near)}?" if near else ""
                        say(f"{result['topic']}: {result['error']['message']}{hint}")
                if message["id"] == 1 and not any(result["ok"] for result in results):
                    raise RefusedError("none of the topics can be had")
            case "error":
                raise RefusedError(message["error"]["message"])
            case "heartbeat":
                for name, seq in message["seq"].items():
                    topic = self.topics.setdefault(name, Topic(name))
                    yield from self._missed(topic, topic.compare(seq))
            case "bye":
                self._bye = message

    def _welcome(self, epoch: str) -> Iterator[Message]:
        if self._epoch and epoch != self._epoch:
            # The daemon began anew: numbers start again, and nobody knows what happened in between.
            for topic in self.topics.values():
                yield _notice(topic.name, (topic.seq or 0) + 1, None, "the epoch changed")
            self.topics.clear()
        self._epoch = epoch

    # --- data ---------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> Iterator[Message]:
        """Take a message of a topic; yield it unless it is known, and before it what it proves to be missing."""
        name, data = message["topic"], message["data"]
        topic = self.topics.setdefault(name, Topic(name))
        if message["type"] == "conflated":
            topic.excuse(message["seq"] - 1)
            yield message
        elif message["type"] == "gap" and "from_seq" in data:
            # About this reader, not one of the topic's own numbered events.
            if data["to_seq"] is None:
                topic.begin()
            else:
                topic.excuse(data["to_seq"])
            yield message
        else:
            new, lost = topic.take(message)
            yield from self._missed(topic, lost)
            if new:
                self._keep(topic, message)
                yield message

    def _missed(self, topic: Topic, lost: tuple[int, int] | None) -> Iterator[Message]:
        if lost is not None:
            if topic.book is not None:
                topic.book, self._broken = None, topic.name
            yield _notice(topic.name, *lost, "the numbers jumped")

    def _keep(self, topic: Topic, message: Message) -> None:
        data = message["data"]
        if message["type"] == "status" and data["state"] in ("connecting", "resyncing", "down"):
            topic.book = None  # the venue's side is broken: a snapshot follows when it is mended
        elif message["type"] == "book":
            if data["kind"] == "snapshot":
                topic.book = Book()
            if topic.book is not None:
                topic.book.apply(data)


def _notice(topic: str, first: int, last: int | None, reason: str) -> Message:
    data = {"reason": reason, "from_seq": first, "to_seq": last}
    return {"type": "missed", "topic": topic, "seq": last, "data": data}


def say(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    print(text, file=sys.stderr, flush=True)


def show(message: Message, topic: Topic | None) -> str:
    """Return a line for a person."""
    data = message["data"]
    if message["type"] == "book":
        said = topic.book.top() if topic is not None and topic.book is not None else "no book"
    else:
        said = " ".join(f"{key}={value}" for key, value in data.items() if value is not None)
    number = "?" if message["seq"] is None else message["seq"]
    return f"{message['topic']} #{number} {message['type']} {said}"


async def read(client: Client, *, limit: int | None, as_json: bool) -> None:
    """Print until there was enough."""
    count = 0
    # `conflated`, `gap` and `missed` come among the data, in their place: a strategy wants to know them there.
    async with aclosing(client.messages()) as messages:
        async for message in messages:
            text = json.dumps(message) if as_json else show(message, client.topics.get(message["topic"]))
            print(text, flush=True)
            count += 1
            if count == limit:
                return


def main() -> int:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description="Reads topics of a pricefeedd daemon.")
    parser.add_argument("url", help="such as ws://127.0.0.1:8765/ws")
    parser.add_argument("topics", nargs="+", help="channel:venue:instrument, * for any part")
    parser.add_argument("--limit", type=int, help="end after so many messages")
    parser.add_argument("--json", action="store_true", help="print messages as JSON, one a line")
    given = parser.parse_args()
    # From the environment: arguments can be read by everybody on the machine.
    client = Client(given.url, given.topics, api_key=os.environ.get("PRICEFEEDD_API_KEY"))
    try:
        asyncio.run(read(client, limit=given.limit, as_json=given.json))
    except RefusedError as e:
        say(str(e))
        return 1
    except KeyboardInterrupt:
        return 130
    except (
        BrokenPipeError
    ):  # `| head` had enough; point stdout elsewhere, or Python complains when it flushes it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
