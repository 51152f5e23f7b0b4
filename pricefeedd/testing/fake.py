"""A fake venue: a real local server that speaks a venue's protocol, well or badly.

A venue's own fake says what its protocol is by a few hooks; sockets, subscriptions, heartbeats, limits,
counting and faults are here.
"""

from __future__ import annotations

import functools
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Any

import attrs
import orjson
import trio

from pricefeedd.testing.faults import Faults
from pricefeedd.testing.server import App, serve_stream
from pricefeedd.testing.sockets import Connection, Request, Response, Socket, WebSocket

#: A client that does not answer our close frame for this long is cut off.
_GOODBYE_S = 5.0


#: When tests under a mock clock begin: 2026-01-14 10:07:20.35 UTC, amid a minute and an hour.
MOCK_START_NS = 1_768_385_240_350_000_000
#: Trio's own clock begins at a random number of at least 10 000 s, its mock clock at 0.
MOCKED_BELOW_S = 10_000.0


def anchored_clock(start_ns: int | None = None) -> Callable[[], int]:
    """Return a wall clock that runs with Trio's, so that a test which jumps in time jumps here too.

    Args:
        start_ns: The wall time at its first use, ns since the Unix epoch. By default the host's own; under a mock clock
            always the same, or a test that depends on the time of day would fail on some days only.
    """
    anchor: tuple[int, float] | None = None

    def now_ns() -> int:
        nonlocal anchor
        if anchor is None:
            turn = trio.current_time()
            mocked = turn < MOCKED_BELOW_S
            begin_ns = MOCK_START_NS if mocked else time.time_ns()
            anchor = (begin_ns if start_ns is None else start_ns, turn)
        wall_ns, began = anchor
        return wall_ns + round((trio.current_time() - began) * 1e9)

    return now_ns


@attrs.define
class Seen:
    """What clients did, for tests to assert on.

    Attributes:
        connections: Byte streams accepted.
        handshakes: WebSocket handshakes, refused ones included.
        sockets: WebSockets and event streams opened.
        subscribes: Subscribe frames.
        unsubscribes: Unsubscribe frames.
        requests: REST requests by path.
        messages: Path and text of the newest messages from clients.
    """

    connections: int = 0
    handshakes: int = 0
    sockets: int = 0
    subscribes: int = 0
    unsubscribes: int = 0
    requests: Counter[str] = attrs.field(factory=Counter)
    messages: deque[tuple[str, str | bytes]] = attrs.field(factory=lambda: deque(maxlen=10_000))


class FakeVenue(App):
    """The parts that all fakes share; a venue's own fake overrides the hooks.

    Attributes:
        faults: What goes wrong; set by tests at any time.
        seen: What clients did.
        sockets: Open sockets, oldest first.
        answers: Asked in turn before `on_http`; one that returns a response answers the request.
        host: Where it listens; None before `run`.
        port: Where it listens; None before `run`.
        ping_interval_s: It pings each socket this often; None for never.
        pong_within_s: A socket that answers no ping for this long is cut.
        lifetime_s: A socket of this age is closed.
        client_silence_s: A socket whose client said nothing for this long, pongs included, is cut.
    """

    ping_interval_s: float | None = None
    pong_within_s: float = 60.0
    lifetime_s: float | None = None
    client_silence_s: float | None = None

    def __init__(self, *, now_ns: Callable[[], int] | None = None) -> None:
        self.now_ns = now_ns or anchored_clock()
        self.sockets: list[Socket] = []
        self.faults = Faults(self.sockets)
        self.pacing = self.faults
        self.seen = Seen()
        self.answers: list[Callable[[Request], Awaitable[Response | None]]] = []
        self.host: str | None = None
        self.port: int | None = None
        self._readers: dict[tuple[str, str], list[Socket]] = {}
        self._changed = trio.lowlevel.ParkingLot()

    # --- Hooks --------------------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Return an answer that denies a WebSocket; None accepts it."""
        return None

    async def on_open(self, socket: Socket) -> None:
        """Prepare a socket: set its scope, subscribe what its path names."""

    async def on_text(self, socket: Socket, text: str) -> None:
        """Take a text message."""

    async def on_bytes(self, socket: Socket, data: bytes) -> None:
        """Take a binary message."""

    async def on_http(self, request: Request) -> Response:
        """Answer a REST request."""
        return Response(status=404)

    async def beside(self, socket: Socket) -> None:
        """Do what the venue does on a socket by itself, such as heartbeats; ends with the socket."""

    def frame(self, socket: Socket, stream: str, payload: str) -> str | bytes:
        """Return the message that brings a stream's JSON payload to a socket."""
        return payload

    def messages_per_s(self, socket: Socket) -> int | None:
        """Return how many messages a client may send per second, pings and pongs included; None for any."""
        return None

    def ping_every_s(self, socket: Socket) -> tuple[float, float] | None:
        """Return the interval of pings and the time for a pong, seconds; None for no pings."""
        return None if self.ping_interval_s is None else (self.ping_interval_s, self.pong_within_s)

    # --- Running ------------------------------------------------------------------------------------------

    async def run(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on TCP until cancelled; `nursery.start` returns the port.

        Raises:
            OSError: The port is in use.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        self.host, self.port = listeners[0].socket.getsockname()[:2]
        async with trio.open_nursery() as nursery:
            await nursery.start(functools.partial(trio.serve_listeners, self.handle, listeners))
            task_status.started(self.port)

    async def handle(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serve one connection on any stream."""
        await serve_stream(stream, self)

    @property
    def authority(self) -> str:
        """Host and port, as in a URL; `fake.test` while it listens nowhere."""
        return "fake.test" if self.port is None else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of REST; the WebSocket's is the same with `ws`."""
        return f"http://{self.authority}"

    # --- What clients did ---------------------------------------------------------------------------------

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of sockets, subscriptions or requests."""
        while not condition():
            await self._changed.park()

    async def wait_subscribed(self, *streams: str, scope: str | None = None) -> None:
        """Wait until some socket, of one scope or any, subscribes each of these streams."""
        await self.wait_for(
            lambda: all(any(True for _ in self._subscribers(name, scope)) for name in streams)
        )

    def _subscribers(self, stream: str, scope: str | None) -> Iterator[Socket]:
        return (s for s in self.sockets if stream in s.subscriptions and scope in (None, s.scope))

    def changed(self) -> None:
        """Let those who wait look again."""
        self._changed.unpark_all()

    # --- Subscriptions and data ---------------------------------------------------------------------------

    def subscribe(self, socket: Socket, streams: Iterable[str]) -> None:
        """Note that a socket wants streams; data comes when it is published in the socket's scope."""
        for stream in streams:
            if stream not in socket.subscriptions:
                socket.subscriptions[stream] = None
                self._readers.setdefault((socket.scope, stream), []).append(socket)
        self.changed()

    def unsubscribe(self, socket: Socket, streams: Iterable[str]) -> None:
        """Note that a socket wants streams no longer."""
        for stream in list(streams):
            if stream in socket.subscriptions:
                del socket.subscriptions[stream]
                readers = self._readers[socket.scope, stream]
                readers.remove(socket)
                if not readers:
                    del self._readers[socket.scope, stream]
        self.changed()

    def wanted(self, stream: str, *, scope: str = "") -> bool:
        """Return whether anybody reads a stream; what nobody reads need not be made."""
        return (scope, stream) in self._readers

    def publish(self, stream: str, payload: Any, *, scope: str = "") -> int:
        """Send a payload to all sockets that subscribe the stream in this scope; returns how many.

        Args:
            payload: JSON text, or a value that becomes it.
        """
        readers = self._readers.get((scope, stream))
        if not readers:
            return 0
        text = payload if isinstance(payload, str) else orjson.dumps(payload).decode()
        for socket in readers:
            self.faults.deliver(socket, stream, self.frame(socket, stream, text))
        return len(readers)

    def acknowledge(self, socket: Socket, answer: Any) -> None:
        """Send the answer to a subscribe frame, as the faults allow."""
        self.faults.acknowledge(socket, answer if isinstance(answer, str) else orjson.dumps(answer).decode())

    # --- App ----------------------------------------------------------------------------------------------

    async def admit(self, connection: Connection) -> bool:
        """Count the connection; refuse it if a fault says so."""
        self.seen.connections += 1
        self.changed()
        if self.faults.admits():
            return True
        connection.abort()
        return False

    async def upgrade(self, request: Request) -> Response | None:
        """Count a handshake, and let faults and the venue judge it."""
        self.seen.handshakes += 1
        self.changed()
        denial = await self.faults.before_request(request, handshake=True)
        return denial or await self.on_handshake(request)

    async def http(self, request: Request) -> Response:
        """Count a request, and let faults, `answers` and the venue answer it."""
        self.seen.requests[request.path] += 1
        self.changed()
        response = await self.faults.before_request(request, handshake=False)
        for answer in self.answers:
            response = response or await answer(request)
        response = response or await self.on_http(request)
        await self.faults.before_reply(request)
        date = formatdate(self.now_ns() / 1e9, usegmt=True)
        return attrs.evolve(response, headers={"date": date, **response.headers})

    async def serve_socket(self, socket: Socket) -> None:
        """Carry a socket from its opening to its end."""
        self.seen.sockets += 1
        self.sockets.append(socket)
        recent: deque[float] = deque()
        heard = trio.current_time()

        def on_frame(kind: str) -> None:
            nonlocal heard
            limit = self.messages_per_s(socket)
            heard = now = trio.current_time()
            while recent and recent[0] <= now - 1.0:
                recent.popleft()
            recent.append(now)
            if limit is not None and len(recent) > limit:
                socket.close(1008, "Too many requests")

        async def on_message(message: str | bytes) -> None:
            if socket.ended:
                return
            self.seen.messages.append((socket.path, message))
            if isinstance(message, str):
                await self.on_text(socket, message)
            else:
                await self.on_bytes(socket, message)
            self.changed()

        async def mind_silence() -> None:
            if self.client_silence_s is not None and isinstance(socket, WebSocket):
                while (left_s := heard + self.client_silence_s - trio.current_time()) > 0:  # noqa: ASYNC110  # each word of the client moves the end
                    await trio.sleep(left_s)
                socket.abort()

        try:
            await self.on_open(socket)
            self.changed()
            await socket.run(
                on_message,
                mind_silence,
                functools.partial(self.beside, socket),
                functools.partial(self._keep_alive, socket),
                functools.partial(self._grow_old, socket),
                on_frame=on_frame,
            )
        finally:
            self.sockets.remove(socket)
            self.unsubscribe(socket, tuple(socket.subscriptions))

    async def _keep_alive(self, socket: Socket) -> None:
        manners = self.ping_every_s(socket)
        if manners is None or not isinstance(socket, WebSocket):
            return
        interval_s, pong_within_s = manners
        outstanding: dict[bytes, float] = {}
        number = 0
        while True:
            await trio.sleep(interval_s)
            if socket.pong in outstanding:  # a pong must repeat the payload of a ping, any of the last ones
                outstanding.clear()
            if outstanding and trio.current_time() - next(iter(outstanding.values())) >= pong_within_s:
                socket.abort()
                return
            number += 1
            payload = f"{self.now_ns() // 1_000_000}-{number}".encode()
            outstanding[payload] = trio.current_time()
            socket.ping(payload)

    async def _grow_old(self, socket: Socket) -> None:
        if self.lifetime_s is not None:
            await trio.sleep(self.lifetime_s)
            socket.close(1001, "lifetime reached")
            await trio.sleep(_GOODBYE_S)
            socket.abort()
