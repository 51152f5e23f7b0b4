"""Lanes that a test fills, and sockets that a test reads."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
import zmq

from pricefeedd.events import Event
from pricefeedd.hookspecs import Delivery, KeptLane, SinkReport
from pricefeedd_zmq.settings import ZmqSettings
from pricefeedd_zmq.sink import Publisher


@attrs.frozen(kw_only=True)
class Said:
    """A message as readers get it."""

    topic: str
    seq: int
    event: Event
    text: bytes


class FilledLanes:
    """What a sink is given, filled by the test."""

    section = "zmq"
    kept: KeptLane | None = None

    def __init__(self) -> None:
        self.epoch = "e1"
        self.most = math.inf
        self.report = SinkReport()
        self._send, self._receive = trio.open_memory_channel[Sequence[Delivery]](1000)
        self._seq: dict[str, int] = {}

    @property
    def state_dir(self) -> Path:
        return Path(tempfile.gettempdir())

    def may_send(self) -> bool:
        """Say yes so many times as the test wants."""
        self.most -= 1
        return self.most >= 0

    async def receive(self) -> Sequence[Delivery]:
        return await self._receive.receive()

    def end(self) -> None:
        """Let it take what waits, and then no more."""
        self._send.close()

    def put(self, *events: Event, channel: str = "", text: bytes | None = None) -> None:
        """Let events wait, all of them as one batch."""
        batch = []
        for event in events:
            topic = f"{channel or event.channel}:{event.venue}:{event.instrument}"
            seq = self._seq[topic] = self._seq.get(topic, 0) + 1
            body = {"type": event.channel, "topic": topic, "seq": seq}
            said = text or orjson.dumps(body)
            batch.append(Said(topic=topic, seq=seq, event=event, text=said))
        self._send.send_nowait(batch)


class Subscriber:
    """A plain subscriber of another context, read in a thread."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket

    async def receive(self) -> tuple[bytes, dict[str, Any]]:
        """Return the next message's topic and JSON."""
        topic, text = await trio.to_thread.run_sync(self.socket.recv_multipart)
        return topic, orjson.loads(text)

    async def nothing(self, within_s: float = 0.2) -> bool:
        """Return whether nothing comes for a while."""
        return not await trio.to_thread.run_sync(self.socket.poll, int(within_s * 1000))


class Opener:
    """Sockets of a context of their own, each closed at the end."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._opened: list[zmq.Socket[bytes]] = []

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        """Return a socket on which a receive fails after 10 s."""
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self._opened.append(socket)
        return socket

    def close(self) -> None:
        """Close them all."""
        for socket in self._opened:
            socket.close(linger=0)
        self._context.term()


@pytest.fixture
def context() -> Iterator[Opener]:
    """Return what opens sockets that are not the sink's."""
    made = Opener()
    yield made
    made.close()


@pytest.fixture
def subscriber(context: Opener) -> Callable[..., Subscriber]:
    """Return a function that connects a subscriber; a receive of it fails after 10 s."""

    def connect(address: str, *prefixes: str) -> Subscriber:
        socket = context.socket(zmq.SUB)
        socket.connect(address)
        for prefix in prefixes:
            socket.subscribe(prefix)
        return Subscriber(socket)

    return connect


@attrs.define
class Running:
    """A sink that runs.

    Attributes:
        ended: Set when it returned.
    """

    lanes: FilledLanes
    publisher: Publisher
    ended: trio.Event

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.publisher.addresses[0]

    async def until(self, **gauges: float) -> None:
        """Wait until its report shows these gauges."""
        await self.when(lambda: all(self.lanes.report.gauges.get(k) == v for k, v in gauges.items()))

    async def when(self, condition: Callable[[], object]) -> None:
        """Wait until something is true: what ZeroMQ's own threads do has no event here."""
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110  # see above
                await trio.sleep(0.01)

    async def end(self) -> None:
        """End the lanes, and wait for the sink to return."""
        self.lanes.end()
        with trio.fail_after(5):
            await self.ended.wait()


@pytest.fixture
async def publish(nursery: trio.Nursery) -> Callable[..., Awaitable[Running]]:
    """Return a function that runs a sink with these settings."""

    async def begin(**settings: Any) -> Running:
        if settings.get("mode") != "push":
            settings.setdefault("bind", "tcp://127.0.0.1:*")
        lanes = FilledLanes()
        running = Running(lanes, Publisher(ZmqSettings(**settings), lanes), trio.Event())

        async def run() -> None:
            await running.publisher.run()
            running.ended.set()

        nursery.start_soon(run)
        await running.when(lambda: lanes.report.state != "connecting" or settings.get("mode") == "push")
        return running

    return begin
