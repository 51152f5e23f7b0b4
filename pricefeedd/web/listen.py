"""Serves the app: hypercorn's Trio server on our sockets, with one writer for all bytes of a connection.

Hypercorn keeps the handshake, HTTP and control frames. All that we lean on inside of it is in this module:
its server class sends through our `Writer` and hands that to the app in the scope's `state`; its HTTP/1.1
protocol never sees an offer of compression, which it would accept, at 170 kB for each reader; and its buffer
of a WebSocket message is bounded. `missing_parts` looks whether the inside is as we know it; if not, hypercorn
serves in its ordinary way.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

import h11
import hypercorn.trio
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WebsocketBuffer, WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from pricefeedd.web.daemon import Limits, Tls
from pricefeedd.web.reader import SHUTDOWN, Goodbye, Readers
from pricefeedd.web.stream import WRITER
from pricefeedd.web.writer import GONE, Writer

log = logging.getLogger(__name__)

#: Key in the ASGI scope's `state`: whether the connection came in by an admin listener.
ADMIN_LISTENER: Final = "pricefeedd.admin_listener"

#: Connections beyond the WebSocket clients: scrapes, probes, the status page.
_OTHER_CONNECTIONS = 256

#: What the kernel keeps for one connection. More would only make a slow reader's data older.
_SEND_BUFFER_BYTES = 262_144

#: Unacknowledged bytes end a connection after this.
_USER_TIMEOUT_MS = 30_000

#: A message of so many times the allowed size is not waited for any longer.
_ENDLESS = 256

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 5\r\n\r\n"
)


class App(Protocol):
    """An ASGI app with readers."""

    @property
    def readers(self) -> Readers: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


# --- hypercorn's inside -------------------------------------------------------------------------------------


def missing_parts() -> list[str]:
    """Return what this module leans on and does not find in the installed hypercorn; nothing if all is well."""
    wanted: list[tuple[type, tuple[str, ...]]] = [
        (TCPServer, ("__init__", "protocol_send", "_read_data", "_close", "_idle_timeout", "run")),
        (H11Protocol, ("_create_stream", "handle", "initiate")),
        (WSStream, ("handle", "_handle_events")),
        (WebsocketBuffer, ("extend", "clear", "to_message")),
    ]
    missing = [
        f"{kind.__name__}.{name}" for kind, names in wanted for name in names if not hasattr(kind, name)
    ]
    for function, name in ((H11Protocol.__init__, "connection_state"), (TCPServer.__init__, "state")):
        if name not in function.__code__.co_varnames:
            missing.append(f"{function.__qualname__}({name})")
    return missing


class _Buffer(WebsocketBuffer):
    """Keeps a little more than the largest message allowed, so that the app can say `bye` to a larger one.

    A message that goes on without end is cut off: hypercorn alone would close and keep the connection.
    """

    def __init__(self, *, keep: int, cut: Callable[[], None]) -> None:
        super().__init__(keep + 1)
        self._keep = keep
        self._cut = cut
        self._seen = 0

    def extend(self, event: Any) -> None:
        self._seen += len(event.data)
        if self._seen > _ENDLESS * self._keep:
            self._cut()
        super().extend(replace(event, data=event.data[: max(0, self._keep + 1 - self.length)]))

    def clear(self) -> None:
        super().clear()
        self._seen = 0


class _H11(H11Protocol):
    """HTTP/1.1 that refuses compression and bounds messages."""

    def __init__(self, *args: Any, message_bytes: int, cut: Callable[[], None]) -> None:
        super().__init__(*args)
        self._message_bytes = message_bytes
        self._cut = cut

    async def _create_stream(self, request: h11.Request) -> None:
        headers = [(n, v) for n, v in request.headers.raw_items() if n.lower() != b"sec-websocket-extensions"]
        plain = h11.Request(
            method=request.method, target=request.target, headers=headers, http_version=request.http_version
        )
        await super()._create_stream(plain)
        if isinstance(self.stream, WSStream):
            self.stream.buffer = _Buffer(keep=self._message_bytes, cut=self._cut)


class _Protocol(ProtocolWrapper):
    """Speaks our HTTP/1.1 wherever hypercorn would begin with its own."""

    def __init__(self, *args: Any, message_bytes: int, cut: Callable[[], None]) -> None:
        super().__init__(*args)
        if isinstance(self.protocol, H11Protocol):
            # The last argument, the ALPN protocol, only chose between HTTP/1.1 and HTTP/2.
            self.protocol = _H11(*args[:-1], message_bytes=message_bytes, cut=cut)


class _Connection(TCPServer):
    """One connection: hypercorn's, but every byte goes through the writer that the app also has."""

    def __init__(
        self,
        app: ASGIWrapper,
        config: Config,
        context: WorkerContext,
        stream: Any,
        *,
        limits: Limits,
        admin: bool,
    ) -> None:
        self.writer = Writer(stream)
        self.writer.stall_s = limits.stall_s
        self._limits = limits
        super().__init__(app, config, context, {WRITER: self.writer, ADMIN_LISTENER: admin}, stream)

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
            async with TaskGroup() as task_group:
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
                    message_bytes=self._limits.message_bytes,
                    cut=plain.socket.close,
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
            await self.writer.send_all(event.data)
        except (trio.TooSlowError, *GONE):
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        # Without a checkpoint: the end of a response cancels the task that sends it, and hypercorn's own way of
        # closing would stop half way and leave the connection open.
        stream: Any = self.stream
        plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        end = plain.socket.fileno()
        with suppress(OSError):
            for _ in range(16):  # a socket closed while it holds unread bytes is reset, answer and all
                if end == -1 or not os.read(end, 65_536):
                    break
        plain.socket.close()


def _tune(stream: trio.SocketStream) -> None:
    """Set what the platform has of bounds on an unread connection."""
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):  # a unix socket has none
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


# --- sockets ------------------------------------------------------------------------------------------------


def open_socket(address: str) -> socket.socket:
    """Return a listening socket for `host:port`, `[v6]:port`, `unix:/path` or `fd://N`.

    Raises:
        OSError: It cannot be listened on; the message names the address.
        ValueError: It is none of these forms.
    """
    try:
        if address.startswith("unix:"):
            return _open_unix(address.removeprefix("unix:"))
        if address.startswith("fd://"):
            return _open_fd(int(address.removeprefix("fd://")))
        host, _, port = address.rpartition(":")
        return _open_tcp(host.removeprefix("[").removesuffix("]"), int(port))
    except OSError as e:
        raise OSError(e.errno, f"cannot listen on {address}: {e.strerror or e}") from e
    except ValueError as e:
        raise ValueError(f"cannot listen on {address!r}: expected host:port, unix:/path or fd://N") from e


def _open_tcp(host: str, port: int) -> socket.socket:
    family, kind, proto, _, where = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: str) -> socket.socket:
    """Listen on a path; a socket that a crashed process left there is replaced, one in use is not."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def _open_fd(number: int) -> socket.socket:
    sock = socket.socket(fileno=number)
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise OSError(None, "it is not a stream socket")
    sock.setblocking(False)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.listen(1024)
    return sock


def _name(sock: socket.socket, tls: bool) -> str:
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{where}"
    host = f"[{where[0]}]" if ":" in where[0] else where[0]
    return f"{'https' if tls else 'http'}://{host}:{where[1]}"


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certfile, tls.keyfile)
    # Only HTTP/1.1 is offered: over HTTP/2 a WebSocket would have to take the slow way.
    context.set_alpn_protocols(["http/1.1"])
    return context


# --- serving ------------------------------------------------------------------------------------------------


def _config() -> Config:
    config = Config()
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.errorlog = logging.getLogger("pricefeedd.web.server")
    config.keep_alive_timeout = 30
    config.ssl_handshake_timeout = 10
    config.websocket_max_message_size = 1 << 20
    return config


async def serve(
    app: App,
    *,
    listen: Sequence[str],
    admin_listen: Sequence[str] = (),
    tls: Tls | None = None,
    max_clients: int = 10_000,
    grace_s: float = 5.0,
    shutdown: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the app until `shutdown` returns; then say `bye` to all readers and end within `grace_s`.

    Started with the addresses it listens on: `http://127.0.0.1:8765`, `unix:/path`; those of `listen` first.

    Args:
        listen: Where to listen: `host:port`, `unix:/path` or `fd://N`.
        admin_listen: Likewise, for connections that may use what is kept from the others.
        tls: Certificate and key for the TCP listeners; unix sockets stay plain.
        max_clients: Bounds the connections, with some more for scrapes and probes.

    Raises:
        OSError: An address cannot be listened on, or the certificate cannot be read.
        ValueError: An address is none of the three forms.
    """
    context = None if tls is None else _tls_context(tls)
    sockets: list[tuple[socket.socket, bool]] = []
    try:
        for addresses, admin in ((listen, False), (admin_listen, True)):
            for address in addresses:
                sockets += [(open_socket(address), admin)]
        names = [_name(s, context is not None and s.family != socket.AF_UNIX) for s, _ in sockets]
        async with trio.open_nursery() as housekeeping:
            housekeeping.start_soon(app.readers.beat, name="web:heartbeats")
            missing = missing_parts()
            if missing:
                log.warning("hypercorn is not as known, readers are served slowly", extra={"reason": missing})
                await _serve_ordinary(
                    app, sockets, tls, grace_s, shutdown, partial(task_status.started, names)
                )
            else:
                server = _Server(app, context, max_clients + _OTHER_CONNECTIONS)
                await server.run(sockets, grace_s, shutdown, partial(task_status.started, names))
            housekeeping.cancel_scope.cancel()
    finally:
        for sock, _ in sockets:
            _close(sock)


def _close(sock: socket.socket) -> None:
    if sock.fileno() != -1:
        if sock.family == socket.AF_UNIX:
            with suppress(OSError):
                os.unlink(sock.getsockname())
        sock.close()


class _Server:
    """Our listeners and their connections."""

    def __init__(self, app: App, context: ssl.SSLContext | None, most: int) -> None:
        self._app = app
        self._asgi = ASGIWrapper(app)
        self._tls = context
        self._config = _config()
        self._context = WorkerContext(None)
        self._most = most
        self._open = 0

    async def run(
        self,
        sockets: Sequence[tuple[socket.socket, bool]],
        grace_s: float,
        shutdown: Callable[[], Awaitable[object]],
        started: Callable[[], None],
    ) -> None:
        """Accept until `shutdown` returns, then end all connections within `grace_s`."""
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for sock, admin in sockets:
                    # A copy of the descriptor, so that ending the listener leaves ours to clean up.
                    sock.setblocking(False)
                    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup()))
                    accepting.start_soon(
                        partial(trio.serve_listeners, handler_nursery=connections),
                        partial(self._serve, admin=admin),
                        [listener],
                        name="web:listener",
                    )
                started()
                await shutdown()
                accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + grace_s
            await self._context.terminated.set()
            self._app.readers.close_all(Goodbye(SHUTDOWN, "pricefeedd is stopping", 1_000))

    async def _serve(self, stream: trio.SocketStream, *, admin: bool) -> None:
        if self._open >= self._most:
            with suppress(OSError):
                os.write(stream.socket.fileno(), _BUSY)
            await stream.aclose()
            return
        self._open += 1
        try:
            await _Connection(
                self._asgi,
                self._config,
                self._context,
                self._secured(stream),
                limits=self._app.readers.limits,
                admin=admin,
            ).run()
        except* Exception:
            # What strangers send is parsed by hypercorn and its libraries: a fault there, such as an error that
            # nobody foresaw, may end the connection that met it and nothing else.
            log.exception("connection crashed")
        finally:
            self._open -= 1

    def _secured(self, stream: trio.SocketStream) -> Any:
        if self._tls is None or stream.socket.family == socket.AF_UNIX:
            return stream
        return trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)


async def _serve_ordinary(
    app: App,
    sockets: Sequence[tuple[socket.socket, bool]],
    tls: Tls | None,
    grace_s: float,
    shutdown: Callable[[], Awaitable[object]],
    started: Callable[[], None],
) -> None:
    """Serve by hypercorn's public interface alone: no shared writer, and compression where a client asks."""
    async with trio.open_nursery() as nursery:
        ending = trio.Event()
        for sock, admin in sockets:
            config = _config()
            config.graceful_timeout = grace_s
            config.bind = [f"fd://{sock.dup().detach()}"]
            if tls is not None and sock.family != socket.AF_UNIX:
                config.certfile, config.keyfile = tls.certfile, tls.keyfile
            nursery.start_soon(
                partial(
                    hypercorn.trio.serve,
                    _marked(app, admin),
                    config,
                    shutdown_trigger=ending.wait,
                    mode="asgi",
                ),
                name="web:ordinary",
            )
        started()
        await shutdown()
        app.readers.close_all(Goodbye(SHUTDOWN, "pricefeedd is stopping", 1_000))
        ending.set()


def _marked(app: App, admin: bool) -> Any:
    async def marked(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})[ADMIN_LISTENER] = admin
        await app(scope, receive, send)

    return marked
