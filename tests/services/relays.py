"""An upstream, relays of it, and readers of those: all in this process, over real sockets."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import httpx
import orjson
import pika
import pika.exceptions
import trio
import trio_websocket

from pricefeedd import wire
from pricefeedd.config import build
from pricefeedd.envelope import envelope, with_epoch
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Quote, Side, Trade
from pricefeedd.loader import load_plugins
from pricefeedd.service import Daemon

VENUE = "example"
START_NS = 1_800_000_000_000_000_000

plugins = load_plugins()


def common(instrument: str, n: int, at_ns: int = START_NS) -> dict[str, Any]:
    moment = at_ns + n * 1_000_000
    return {"venue": VENUE, "instrument": instrument, "venue_time_ns": moment, "received_ns": moment}


def trade(n: int, instrument: str = "BTC-USDT", at_ns: int = START_NS) -> Trade:
    return Trade(id=str(n), price=f"{n}.50", size="0.010", aggressor=Side.BUY, **common(instrument, n, at_ns))


def quote(n: int, instrument: str = "BTC-USDT") -> Quote:
    return Quote(bid_price=str(n), bid_size="1", ask_price=str(n + 1), ask_size="2", **common(instrument, n))


def candle(n: int, instrument: str = "BTC-USDT") -> Candle:
    return Candle(
        start_ns=n // 10 * 60_000_000_000,
        open="1",
        high="2",
        low="1",
        close=str(n),
        volume="3",
        closed=n % 10 == 9,
        **common(instrument, n),
    )


def snapshot(n: int, *bids: str, instrument: str = "BTC-USDT") -> BookSnapshot:
    levels = [[bid, "1"] for bid in bids]
    return BookSnapshot(bids=levels, asks=[["999999", "1"]], sequence=n, **common(instrument, n))


def delta(n: int, price: str, size: str = "1", instrument: str = "BTC-USDT") -> BookDelta:
    return BookDelta(bids=[[price, size]], asks=[], sequence=n, **common(instrument, n))


@attrs.frozen
class Numbered:
    """A message as sinks have it, made by hand."""

    topic: str
    seq: int
    event: Event

    @property
    def text(self) -> bytes:
        """The message as JSON."""
        return wire.encode(self.topic, self.seq, self.event)

    def stream(self, epoch: str) -> bytes:
        """Return what ZeroMQ carries."""
        return with_epoch(self, epoch)

    def envelope(self, epoch: str) -> bytes:
        """Return what RabbitMQ carries."""
        return orjson.dumps(envelope(self, epoch))


def numbered(event: Event, seq: int) -> Numbered:
    """Return an event of one of the plain channels with a number."""
    channel = f"candle_{event.interval}" if isinstance(event, Candle) else event.channel
    return Numbered(f"{channel}:{event.venue}:{event.instrument}", seq, event)


@attrs.define
class Served:
    """A daemon that runs.

    Attributes:
        base: `http://host:port`.
    """

    daemon: Daemon
    base: str
    scope: trio.CancelScope

    @property
    def report(self) -> Any:
        """What the inlet of a relay says."""
        assert self.daemon.inlet is not None
        return self.daemon.inlet.report

    async def until(self, holds: Callable[[], bool], within_s: float = 20.0) -> None:
        """Wait for something that the daemon comes to."""
        await until(holds, within_s)

    async def get(self, path: str) -> tuple[int, Any]:
        """Return status and body of a page."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(self.base + path)
            body = answer.json() if "json" in answer.headers["content-type"] else answer.text
            return answer.status_code, body


async def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until something holds that other tasks bring about."""
    with trio.fail_after(within_s):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event of its own
            await trio.sleep(0.01)


@asynccontextmanager
async def run(state: Path, **tree: Any) -> AsyncIterator[Served]:
    """Run a daemon with these sections and the plugins that are installed."""
    listen = tree.pop("listen", "127.0.0.1:0")
    web = {
        "listen": [listen],
        "heartbeat_s": 1.0,
        "client_queue_bytes": 50_000_000,
        "history_events": 100_000,
    }
    config = build(
        {"web": web | tree.pop("web", {}), **tree},
        venues=plugins.venues,
        sinks=plugins.sinks,
        sources=plugins.sources,
        electors=plugins.electors,
        environ=os.environ | {"STATE_DIRECTORY": str(state)},
        source="test",
    )
    daemon = Daemon(config, plugins)
    async with trio.open_nursery() as nursery:
        binds = await nursery.start(_run, daemon)
        yield Served(daemon, binds[0], nursery.cancel_scope)
        daemon.stop()


async def _run(daemon: Daemon, *, task_status: trio.TaskStatus[list[str]]) -> None:
    with trio.CancelScope() as scope:
        await daemon.run(task_status=task_status)
    assert not scope.cancelled_caught


@attrs.define
class Got:
    """What a reader got.

    Attributes:
        welcome: The first message.
        messages: Data, gaps and notices of topics.
        others: What is not of a topic.
        lasts: The newest number of each topic.
        code: Of the close, once it is closed.
    """

    welcome: dict[str, Any] = attrs.field(factory=dict)
    messages: list[dict[str, Any]] = attrs.field(factory=list)
    others: list[dict[str, Any]] = attrs.field(factory=list)
    lasts: dict[str, int] = attrs.field(factory=dict)
    code: int | None = None

    def take(self, message: dict[str, Any]) -> None:
        """Take a message."""
        if "topic" in message:
            self.messages.append(message)
            self.lasts[message["topic"]] = max(self.last(message["topic"]), message["seq"])
        else:
            self.others.append(message)

    def seqs(self, topic: str, *kinds: str) -> list[int]:
        """Return the numbers of a topic's messages, in their order."""
        return [m["seq"] for m in self.messages if m["topic"] == topic and (not kinds or m["type"] in kinds)]

    def last(self, topic: str) -> int:
        """Return the newest number of a topic."""
        return self.lasts.get(topic, 0)

    def kinds(self, topic: str) -> list[tuple[str, int]]:
        """Return type and number of a topic's messages."""
        return [(m["type"], m["seq"]) for m in self.messages if m["topic"] == topic]


async def read(
    base: str,
    got: Got,
    topics: Iterable[str],
    *,
    since: dict[str, Any] | None = None,
    batch_ms: int | None = None,
    api_key: str = "",
) -> None:
    """Read a daemon until it closes or this is cancelled."""
    host, _, port = base.removeprefix("http://").partition(":")
    path = "/ws" if batch_ms is None else f"/ws?batch_ms={batch_ms}"
    headers = [(b"X-API-Key", api_key.encode())] if api_key else []
    # The stream is ours: the library leaves it open when the other side closes first.
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        socket = await trio_websocket.wrap_client_stream(
            nursery, stream, host, path, extra_headers=headers, max_message_size=2**26
        )
        with suppress(trio_websocket.ConnectionClosed):
            first = orjson.loads(await socket.get_message())
            if first["type"] == "welcome":
                got.welcome = first
                asked: dict[str, Any] = {"op": "subscribe", "topics": list(topics)}
                if since is not None:
                    asked["since"] = since
                await socket.send_message(orjson.dumps(asked).decode())
            else:
                got.others.append(first)
            while True:
                frame = orjson.loads(await socket.get_message())
                for message in frame if isinstance(frame, list) else [frame]:
                    got.take(message)
        got.code = socket.closed.code if socket.closed is not None else None
        nursery.cancel_scope.cancel()


def position(got: Got, *topics: str) -> dict[str, Any]:
    """Return how far a reader has read, for `since`."""
    return {"epoch": got.welcome["epoch"], "seq": {topic: got.last(topic) for topic in topics}}


class Streams:
    """Streams of a broker, and a plain publisher that fills them as the sink does."""

    def __init__(self, url: str, *classes: str) -> None:
        """Declare an exchange and a stream for each class of events, under names of their own."""
        self.url = url
        self.exchange = f"relay-test-{secrets.token_hex(6)}"
        self.queues = [f"{self.exchange}.{name}" for name in classes]
        self._connect()
        self.channel.exchange_declare(self.exchange, "topic", durable=True)
        for name, queue in zip(classes, self.queues, strict=True):
            self.declare(queue)
            self.channel.queue_bind(queue, self.exchange, f"{name}.#")

    def _connect(self) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(self.url))
        self.channel = self.connection.channel()

    def declare(self, queue: str) -> None:
        """Make a stream."""
        self.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "stream"})

    def publish(self, messages: Iterable[Numbered], epoch: str = "one") -> None:
        """Publish messages; it blocks."""
        for message in messages:
            key = message.topic.replace(":", ".")
            self.channel.basic_publish(self.exchange, key, message.envelope(epoch))
        self.connection.process_data_events()

    def publish_raw(self, key: str, body: bytes) -> None:
        """Publish anything."""
        self.channel.basic_publish(self.exchange, key, body)

    def again(self) -> None:
        """Connect again, after the broker was away."""
        with suppress(pika.exceptions.AMQPError, OSError):
            self.connection.close()
        self._connect()

    def close(self) -> None:
        """Remove all of it."""
        for queue in self.queues:
            self.channel.queue_delete(queue)
        self.channel.exchange_delete(self.exchange)
        self.connection.close()
