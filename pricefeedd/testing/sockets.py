"""The server's ends of connections with fake venues: WebSockets and event streams that never wait to send."""

from __future__ import annotations

import socket as stdlib_socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import attrs
import h11
import trio
from wsproto import WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

#: Most bytes taken per wake-up.
RECEIVE_BYTES = 65536

#: A client that leaves this much unread is cut off, as venues do with slow readers.
QUEUE_LIMIT_BYTES = 64 << 20

#: What a stream raises when the client is gone.
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request, or the handshake of a WebSocket.

    Attributes:
        path: Without the query, percent-decoded.
        query: The last value of each parameter.
        pairs: All parameters in order; some venues take one name several times.
        headers: Names in lower case.
    """

    method: str
    path: str
    query: Mapping[str, str] = attrs.field(factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""


@attrs.frozen(kw_only=True)
class Response:
    """The answer to a request.

    Attributes:
        events: Begin a Server-Sent Events stream instead of sending `body`; the app gets an `EventStream`.
    """

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    events: bool = False


class Connection:
    """The byte stream of one client, with the power to end it abruptly."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.cancel_scope = trio.CancelScope()

    def abort(self) -> None:
        """End the connection at once: with a reset on TCP, with an end of stream in memory."""
        if isinstance(self.stream, trio.SocketStream):
            no_linger = struct.pack("ii", 1, 0)
            self.stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, no_linger)
        self.cancel_scope.cancel()


class Pacing(Protocol):
    """How the bytes of a socket leave; the place where byte-level faults act."""

    async def hold(self, socket: Socket) -> None:
        """Wait for as long as nothing may be sent."""
        ...

    def pieces(self, socket: Socket) -> tuple[int, float] | None:
        """Return the size of the pieces to send and the pause after each, seconds; None to send as it is."""
        ...

    def fragment_size(self, socket: Socket) -> int | None:
        """Return the size of WebSocket fragments; None to send each message whole."""
        ...


class Socket:
    """One open stream of messages to a client. Sending never waits: a task of its own does the writing.

    Attributes:
        request: The request that opened it.
        greeting: Head of the answer, sent when it runs: who has seen it is among the venue's sockets.
        scope: The part of the venue that it belongs to, set by the venue's `on_open`.
        subscriptions: Names subscribed, in order.
        memo: For the venue's own notes.
        opened_at: Trio's clock when it opened.
    """

    def __init__(self, connection: Connection, request: Request, pacing: Pacing) -> None:
        self.connection = connection
        self.request = request
        self.greeting = b""
        self.scope = ""
        self.subscriptions: dict[str, None] = {}
        self.memo: dict[str, object] = {}
        self.opened_at = trio.current_time()
        self.ended = False
        self._pacing = pacing
        self._queue: deque[bytes | None] = deque()  # None: end our half of the stream
        self._queued_bytes = 0
        self._half_closed = False
        self._gone = False
        self._writing = False
        self._nursery: trio.Nursery | None = None
        self._wake = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()

    @property
    def path(self) -> str:
        """The path that it was opened with."""
        return self.request.path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    @property
    def leaving(self) -> bool:
        """Whether the other side has said that it goes."""
        return False

    def encode(self, message: str | bytes) -> bytes:
        """Return the bytes that carry a message; of the kind that the subclass speaks."""
        return message.encode() if isinstance(message, str) else message

    def send(self, message: str | bytes) -> None:
        """Queue a message: `str` as text, `bytes` as binary; to one who is leaving nothing is sent."""
        if not self.ended and not self.leaving:
            self.send_raw(self.encode(message))

    def send_raw(self, data: bytes) -> None:
        """Queue bytes as they are, whatever the protocol says."""
        if self.ended:
            return
        self._queue.append(data)
        self._queued_bytes += len(data)
        if self._queued_bytes > QUEUE_LIMIT_BYTES:
            self.abort()
        self._wake.unpark_all()

    def half_close(self) -> None:
        """End our half of the stream after what is queued; what the client sends is read on."""
        if not self._half_closed:
            self._half_closed = True
            self._queue.append(None)
        self.ended = True
        self._wake.unpark_all()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the messages in an orderly way."""
        self.half_close()

    def abort(self) -> None:
        """End the connection at once, in the middle of whatever it is sending."""
        self.ended = True
        self.connection.abort()

    def start_soon(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task beside the socket, cancelled at its end; nothing happens once it ended."""
        if self._nursery is not None and not self.ended:
            self._nursery.start_soon(task)

    async def drained(self) -> None:
        """Wait until all that is queued was handed to the stream, or the socket ended."""
        while (self._queue or self._writing) and not self._gone:
            await self._idle.park()

    async def run(
        self,
        on_message: Callable[[str | bytes], Awaitable[None]],
        *tasks: Callable[[], Awaitable[object]],
        on_frame: Callable[[str], None] = lambda kind: None,
    ) -> None:
        """Carry messages both ways until the client goes.

        Args:
            on_message: Called with each message of the client.
            tasks: Run beside it, and cancelled at its end.
            on_frame: Told `text`, `binary`, `ping` or `pong` for each message of the client.
        """
        try:
            await self.connection.stream.send_all(self.greeting)
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write, nursery.cancel_scope, name=f"write:{self.path}")
                for task in tasks:
                    nursery.start_soon(task)
                try:
                    await self._read(on_message, on_frame)
                except GONE:
                    pass
                else:
                    with trio.move_on_after(2):
                        await self.drained()
                nursery.cancel_scope.cancel()
        finally:
            self.ended = self._gone = True
            self._idle.unpark_all()

    async def _read(
        self, on_message: Callable[[str | bytes], Awaitable[None]], on_frame: Callable[[str], None]
    ) -> None:
        while await self.connection.stream.receive_some(RECEIVE_BYTES):
            pass

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                while not self._queue:
                    self._idle.unpark_all()
                    await self._wake.park()
                await self._pacing.hold(self)
                if self._queue[0] is None:
                    self._queue.popleft()
                    await self.connection.stream.send_eof()
                    continue
                batch = []
                while self._queue and (data := self._queue[0]) is not None:
                    batch.append(data)
                    self._queue.popleft()
                self._queued_bytes = sum(len(left) for left in self._queue if left is not None)
                self._writing = True
                await self._transmit(b"".join(batch))
                self._writing = False
        except GONE:
            scope.cancel()

    async def _transmit(self, data: bytes) -> None:
        send_all = self.connection.stream.send_all
        sent = 0
        while sent < len(data):
            shape = self._pacing.pieces(self)
            size, pause_s = shape or (len(data) - sent, 0.0)
            await send_all(data[sent : sent + size])
            sent += size
            if shape is not None:
                await trio.sleep(pause_s)


class WebSocket(Socket):
    """The server's end of a WebSocket.

    Attributes:
        pong: Payload of the client's newest pong.
    """

    def __init__(self, connection: Connection, request: Request, pacing: Pacing, ws: WSConnection) -> None:
        super().__init__(connection, request, pacing)
        self.pong: bytes | None = None
        self._ws = ws

    @property
    def leaving(self) -> bool:
        """Whether the closing handshake has begun."""
        return self._ws.state is not ConnectionState.OPEN

    def encode(self, message: str | bytes) -> bytes:
        """Return the frame or frames that carry a message."""
        size = self._pacing.fragment_size(self)
        if size is None or len(message) <= size:
            return self._message(message, finished=True)
        starts = range(0, len(message), size)
        return b"".join(
            self._message(message[at : at + size], finished=at + size >= len(message)) for at in starts
        )

    def _message(self, data: str | bytes, *, finished: bool) -> bytes:
        if isinstance(data, str):
            return self._ws.send(TextMessage(data=data, message_finished=finished))
        return self._ws.send(BytesMessage(data=data, message_finished=finished))

    def ping(self, payload: bytes = b"") -> None:
        """Queue a ping frame."""
        if not self.ended:
            self.send_raw(self._ws.send(Ping(payload=payload)))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Queue a close frame, behind which nothing more is sent; the client's answer ends the connection."""
        if not self.ended:
            self.send_raw(self._ws.send(CloseConnection(code=code, reason=reason)))
            self.ended = True

    async def _read(
        self, on_message: Callable[[str | bytes], Awaitable[None]], on_frame: Callable[[str], None]
    ) -> None:
        texts: list[str] = []
        binaries: list[bytes] = []
        while True:
            try:
                for event in self._ws.events():
                    match event:
                        case TextMessage(data=text):
                            texts.append(text)
                            if event.message_finished:
                                on_frame("text")
                                await on_message("".join(texts))
                                texts.clear()
                        case BytesMessage(data=data):
                            binaries.append(bytes(data))
                            if event.message_finished:
                                on_frame("binary")
                                await on_message(b"".join(binaries))
                                binaries.clear()
                        case Ping():
                            on_frame("ping")
                            if not self.ended:
                                self.send_raw(self._ws.send(event.response()))
                        case Pong(payload=payload):
                            self.pong = bytes(payload)
                            on_frame("pong")
                        case CloseConnection():
                            if not self.ended:
                                self.send_raw(self._ws.send(event.response()))
                            return
                        case _:
                            pass
                data = await self.connection.stream.receive_some(RECEIVE_BYTES)
                if not data:
                    return
                self._ws.receive_data(bytes(data))
            except (RemoteProtocolError, LocalProtocolError):
                # The client broke the protocol, or spoke behind its own close frame.
                self.abort()
                await trio.lowlevel.checkpoint()
                return


class EventStream(Socket):
    """The server's end of a Server-Sent Events stream, chunked."""

    def __init__(
        self, connection: Connection, request: Request, pacing: Pacing, conn: h11.Connection
    ) -> None:
        super().__init__(connection, request, pacing)
        self._conn = conn

    def encode(self, message: str | bytes) -> bytes:
        """Return one chunk with one event; a message that has line breaks gets a `data:` for each line."""
        text = message if isinstance(message, str) else message.decode()
        block = "".join(f"data:{line}\n" for line in text.split("\n")) + "\n"
        return self._conn.send(h11.Data(data=block.encode())) or b""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the response in an orderly way; code and reason have no place in it."""
        if not self.ended:
            self.send_raw(self._conn.send(h11.EndOfMessage()) or b"")
            self.half_close()
