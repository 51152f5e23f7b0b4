"""Hypercorn from the inside: connections whose bytes all pass one writer.

Hypercorn keeps HTTP, the handshake's answer and control frames. All its private parts that we lean on are named here
and nowhere else: its server class sends through our `Writer` and hands that to the app in the scope's `state`; its
WebSocket stream is bounded by ours, answers what breaks the protocol with the close code that RFC 6455 asks for,
and takes compression only in the form that shares its bytes.

A release of hypercorn that differs shows in one of three ways: this module cannot be imported, `missing_parts`
names what changed, or `rehearsal.rehearse`, which leads one connection through its life, fails. `listen` then lets
hypercorn serve in its ordinary way.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import socket
import ssl
from contextlib import suppress
from typing import Any, Final

import h11
import orjson
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Data, Request, StreamClosed
from hypercorn.protocol.events import Response as StreamResponse
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.ws_stream import ASGIWebsocketState, Handshake, WebsocketBuffer, WSStream
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from wsproto.connection import Connection, ConnectionType
from wsproto.connection import ConnectionState as Phase
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import Extension

from pricefeedd.web import deflate
from pricefeedd.web.bounds import Bounds
from pricefeedd.web.writer import GONE, WRITER, Writer

#: What the kernel keeps for one connection. More would only make a slow reader's data older.
_SEND_BUFFER_BYTES = 262_144

#: Unacknowledged bytes end a connection after this.
_USER_TIMEOUT_MS = 30_000

#: The first byte of a close frame; no HTTP response begins with it.
_CLOSE = b"\x88"

_EXTENSIONS = b"sec-websocket-extensions"

_SERVED = "app config context task_group state ssl client server send"

#: What is used, and the parameters that it has in the release we know.
_KNOWN: Final[tuple[tuple[Any, str, str], ...]] = (
    (TCPServer, "__init__", "self app config context state stream"),
    (TCPServer, "protocol_send", "self event"),
    (TCPServer, "_read_data", "self"),
    (TCPServer, "_close", "self"),
    (TCPServer, "_idle_timeout", "self"),
    (TCPServer, "run", "self"),
    (ProtocolWrapper, "__init__", f"self {_SERVED} alpn_protocol"),
    (ProtocolWrapper, "initiate", "self"),
    (ProtocolWrapper, "handle", "self event"),
    (H11Protocol, "__init__", f"self {_SERVED.replace('state', 'connection_state')}"),
    (H11Protocol, "_check_protocol", "self event"),
    (H11Protocol, "_create_stream", "self request"),
    (H11Protocol, "_send_h11_event", "self event"),
    (H11Protocol, "stream_send", "self event"),
    (H11Protocol, "handle", "self event"),
    (H11Protocol, "initiate", "self"),
    (H11WSConnection, "__init__", "self h11_connection"),
    (WSStream, "__init__", f"self {_SERVED.replace('state ', '')} stream_id"),
    (WSStream, "handle", "self event"),
    (WSStream, "_handle_events", "self"),
    (WSStream, "_accept", "self message"),
    (WSStream, "_send_wsproto_event", "self event"),
    (Handshake, "accept", "self subprotocol additional_headers"),
    (WebsocketBuffer, "extend", "self event"),
    (WebsocketBuffer, "clear", "self"),
    (WebsocketBuffer, "to_message", "self"),
    (TaskGroup, "spawn_app", "self app config scope send"),
    (WorkerContext, "__init__", "self max_requests"),
    (Connection, "__init__", "self connection_type extensions trailing_data"),
    (Extension, "frame_inbound_header", "self proto opcode rsv payload_length"),
    (Extension, "frame_inbound_payload_data", "self proto data"),
    (Extension, "frame_inbound_complete", "self proto fin"),
)


def missing_parts() -> list[str]:
    """Return what we lean on and find missing or changed in the installed hypercorn; [] if all is well."""
    missing = []
    for owner, name, parameters in _KNOWN:
        part = getattr(owner, name, None)
        if part is None:
            missing.append(f"{owner.__name__}.{name}")
        elif list(inspect.signature(part).parameters) != parameters.split():
            missing.append(f"{owner.__name__}.{name}({', '.join(inspect.signature(part).parameters)})")
    return missing


# --- WebSocket ----------------------------------------------------------------------------------------------


class _Stream(WSStream):
    """A WebSocket whose messages are bounded, and that says why it ends."""

    def __init__(self, *args: Any, message_bytes: int, answer: bytes | None) -> None:
        super().__init__(*args)
        self._message_bytes = message_bytes
        self._answer = answer
        self._bounds = Bounds(message_bytes, inflating=answer is not None)
        self._ended = False
        self._told = False

    async def handle(self, event: Any) -> None:
        # After the end of the conversation nothing is looked at, so nothing is kept either.
        if not (self._ended and isinstance(event, Data)):
            await super().handle(event)

    async def _accept(self, message: Any) -> None:
        self.state = ASGIWebsocketState.CONNECTED
        extra = [] if self._answer is None else [(_EXTENSIONS, self._answer)]
        status, headers, _ = self.handshake.accept(
            message.get("subprotocol"), [*message.get("headers", []), *extra]
        )
        self.connection = Connection(ConnectionType.SERVER, [self._bounds])
        await self.send(StreamResponse(stream_id=self.stream_id, status_code=status, headers=headers))

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                await self._gather(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                self._ended = True
                if self.connection.state in (Phase.OPEN, Phase.REMOTE_CLOSING):
                    # OPEN: what came is no WebSocket, and this is the parser's word on it.
                    await self._send_wsproto_event(event.response())
                await self.send(StreamClosed(stream_id=self.stream_id))
                return
        if self._bounds.too_large:
            await self._tell_too_large()

    async def _gather(self, event: Message[Any]) -> None:
        if self._bounds.too_large:
            await self._tell_too_large()
        else:
            self.buffer.extend(event)
            if event.message_finished:
                await self._put(self.buffer.to_message())
        if event.message_finished:
            self.buffer.clear()
            self._told = self._bounds.too_large = False

    async def _tell_too_large(self) -> None:
        """Let the app say so at once, in its own words: it gets a message of one byte too many."""
        if not self._told:
            self._told = True
            self.buffer.clear()
            await self._put(
                {"type": "websocket.receive", "bytes": None, "text": " " * (self._message_bytes + 1)}
            )

    async def _put(self, message: dict[str, Any]) -> None:
        if self.app_put is not None:
            await self.app_put(message)


# --- HTTP ---------------------------------------------------------------------------------------------------


def _wants_upgrade(request: h11.Request) -> bool:
    """Return whether a request opens a WebSocket (RFC 6455 section 4.2.1)."""
    tokens = {
        token.strip()
        for name, value in request.headers
        if name == b"connection"
        for token in value.lower().split(b",")
    }
    upgrades = [value.strip().lower() for name, value in request.headers if name == b"upgrade"]
    return request.method == b"GET" and b"upgrade" in tokens and upgrades == [b"websocket"]


def _problem(request: h11.Request) -> tuple[int, str, str] | None:
    """Return status, code and words for a handshake that cannot be answered; None for a good one."""
    if request.http_version < b"1.1":
        return 400, "BAD_REQUEST", "a WebSocket needs HTTP/1.1"
    versions = [value for name, value in request.headers if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        return 426, "UPGRADE_REQUIRED", "Sec-WebSocket-Version: only 13 is spoken here"
    keys = [value for name, value in request.headers if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _is_key(keys[0]):
        return 400, "BAD_REQUEST", "Sec-WebSocket-Key: expected 16 bytes in base64"
    return None


def _is_key(text: bytes) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except binascii.Error:
        return False


class _H11(H11Protocol):
    """HTTP/1.1 whose WebSockets are ours."""

    def __init__(self, *args: Any, message_bytes: int, compression: bool) -> None:
        super().__init__(*args)
        self._message_bytes = message_bytes
        self._compression = compression

    async def _check_protocol(self, event: h11.Request) -> None:
        # Hypercorn would go over to HTTP/2 here, where neither our bounds nor our writer reach.
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version > b"1.1":
            await self._refuse(505, "HTTP_VERSION_NOT_SUPPORTED", "HTTP/1.1 is spoken here")
            return
        if not _wants_upgrade(request):
            await super()._create_stream(request)
            return
        problem = _problem(request)
        if problem is not None:
            await self._refuse(*problem)
            return
        headers = list(request.headers)
        answer = None
        if self._compression:
            answer = deflate.agree(value for name, value in headers if name == _EXTENSIONS)
        self.stream = _Stream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
            message_bytes=self._message_bytes,
            answer=answer,
        )
        assert isinstance(self.connection, h11.Connection)
        self.connection = H11WSConnection(self.connection)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                # Hypercorn accepts compression wherever it sees an offer, at 170 kB for each reader.
                headers=[(name, value) for name, value in headers if name != _EXTENSIONS],
                http_version=request.http_version.decode(),
                method="GET",
                raw_path=request.target,
                state=ConnectionState({**self.connection_state, deflate.NEGOTIATED: answer is not None}),
            )
        )

    async def _refuse(self, status: int, code: str, why: str) -> None:
        body = orjson.dumps({"error": why, "code": code})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if status == 426:
            headers += [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
        await self._send_h11_event(h11.Response(status_code=status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
        await self.send(Closed())


class _Protocol(ProtocolWrapper):
    """Speaks our HTTP/1.1 wherever hypercorn would begin with its own."""

    def __init__(self, *args: Any, message_bytes: int, compression: bool) -> None:
        super().__init__(*args)
        if isinstance(self.protocol, H11Protocol):
            # The last argument, the ALPN protocol, only chose between HTTP/1.1 and HTTP/2.
            self.protocol = _H11(*args[:-1], message_bytes=message_bytes, compression=compression)


# --- connections --------------------------------------------------------------------------------------------


class _Tasks(TaskGroup):
    """Hypercorn's, but nothing waits for an app that has ended to take a message.

    Hypercorn's own would wait for ever: a client that still sends when its handler returns has filled the queue, and
    both the reading of the connection and its closing hang on it.
    """

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        into, out_of = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def put(message: Any) -> None:
            with suppress(trio.BrokenResourceError):
                await into.send(message)

        async def tell(message: Any) -> None:
            if message is None:  # the app has ended
                out_of.close()
            await send(message)

        assert self._nursery is not None
        self._nursery.start_soon(
            _handle, app, config, scope, out_of.receive, tell, trio.to_thread.run_sync, trio.from_thread.run
        )
        return put


class _Connection(TCPServer):
    """One connection: hypercorn's, but every byte goes through the writer that the app also has."""

    def __init__(
        self,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        state: dict[str, Any],
        stream: Any,
        *,
        stall_s: float,
        message_bytes: int,
        compression: bool,
    ) -> None:
        self.writer = Writer(stream)
        self.writer.stall_s = stall_s
        self._message_bytes = message_bytes
        self._compression = compression
        super().__init__(app, config, context, {**state, WRITER: self.writer}, stream)

    async def run(self) -> None:
        """Serve the connection until it ends."""
        stream: Any = self.stream
        alpn, tls = "http/1.1", isinstance(stream, trio.SSLStream)
        plain = stream.transport_stream if tls else stream
        try:
            if tls:
                with trio.fail_after(self.config.ssl_handshake_timeout):
                    await stream.do_handshake()
                alpn = stream.selected_alpn_protocol() or alpn
            _tune(plain)
            client = parse_socket_addr(plain.socket.family, plain.socket.getpeername())
            server = parse_socket_addr(plain.socket.family, plain.socket.getsockname())
            async with _Tasks() as task_group:
                self._task_group = task_group
                self.protocol = _Protocol(
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    ConnectionState(self.state),
                    tls,
                    client,
                    server,
                    self.protocol_send,
                    alpn,
                    message_bytes=self._message_bytes,
                    compression=self._compression,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
        except (OSError, trio.TooSlowError, *GONE):
            pass  # the client is gone, or never finished its handshake
        finally:
            # Also when cancelled, where the polite way would stop at its first checkpoint.
            plain.socket.close()

    async def protocol_send(self, event: Event) -> None:
        """Send hypercorn's bytes in their turn. Unlike hypercorn's own this can be cancelled."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        try:
            if event.data[:1] == _CLOSE:
                await self.writer.send_last(event.data)
            else:
                await self.writer.send_all(event.data)
        except (trio.TooSlowError, *GONE):
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        # Without a checkpoint: the end of a response cancels the task that sends it, and hypercorn's own way of
        # closing would stop half way and leave the connection open.
        stream: Any = self.stream
        plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        inner: Any = getattr(plain.socket, "_sock", None)  # see `Writer`
        with suppress(OSError):
            for _ in range(16):  # a socket closed while it holds unread bytes is reset, answer and all
                if inner is None or not inner.recv(65_536):
                    break
        plain.socket.close()


def _tune(stream: trio.SocketStream) -> None:
    """Set what the platform has of bounds on an unread connection."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):  # a unix socket has none
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


class Connections:
    """Serves accepted streams, all with the same app and bounds."""

    def __init__(
        self,
        app: Any,
        config: Config,
        *,
        tls: ssl.SSLContext | None = None,
        stall_s: float = 10.0,
        message_bytes: int = 65_536,
        compression: bool = False,
    ) -> None:
        self._app = ASGIWrapper(app)
        self._config = config
        self._context = WorkerContext(None)
        self._tls = tls
        self._stall_s = stall_s
        self._message_bytes = message_bytes
        self._compression = compression

    async def serve(self, stream: trio.SocketStream, state: dict[str, Any]) -> None:
        """Serve one connection until it ends; `state` goes into the scope of its requests."""
        await _Connection(
            self._app,
            self._config,
            self._context,
            state,
            self._secured(stream),
            stall_s=self._stall_s,
            message_bytes=self._message_bytes,
            compression=self._compression,
        ).run()

    async def end(self) -> None:
        """Keep no connection open for another request."""
        await self._context.terminated.set()

    def _secured(self, stream: trio.SocketStream) -> Any:
        if self._tls is None or stream.socket.family == getattr(socket, "AF_UNIX", None):
            return stream
        return trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
