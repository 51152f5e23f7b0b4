"""Serves the app: hypercorn on our sockets, with one writer for all bytes of a connection.

The inside of hypercorn that this takes is in `hyper`. Where the installed hypercorn has another inside, it serves
by its public interface instead: slowly, but right.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import stat
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any, Final, Protocol

import hypercorn.trio
import trio
from hypercorn.config import Config

from pricefeedd import notify
from pricefeedd.web.daemon import Tls
from pricefeedd.web.goodbye import SHUTDOWN, Goodbye
from pricefeedd.web.readers import Readers

log = logging.getLogger(__name__)

#: Key in the ASGI scope's `state`: whether the connection came in by an admin listener.
ADMIN_LISTENER: Final = "pricefeedd.admin_listener"

#: Windows has none.
_AF_UNIX: Final[int | None] = getattr(socket, "AF_UNIX", None)

#: Connections beyond the WebSocket clients: scrapes, probes, the status page.
_OTHER_CONNECTIONS = 256

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 5\r\n\r\n"
)


class App(Protocol):
    """An ASGI app with readers.

    Attributes:
        renew_certificate: Takes certificate and key from their files again, for connections from then on; `serve` sets it.
    """

    renew_certificate: Callable[[], None]

    @property
    def readers(self) -> Readers: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


# --- sockets ------------------------------------------------------------------------------------------------


def open_socket(address: str) -> socket.socket:
    """Return a listening socket for `host:port`, `[v6]:port`, `unix:/path`, `fd://N` or `fd://NAME`.

    Raises:
        OSError: It cannot be listened on; the message names the address.
        ValueError: It is none of these forms.
    """
    if address.startswith("fd://"):
        try:
            return _open_fd(notify.listen_fd(address.removeprefix("fd://")))
        except (OSError, ValueError) as e:
            # A number that nobody handed over may be anything, or nothing: the process was not begun by its socket unit.
            raise OSError(
                getattr(e, "errno", None), f"cannot listen on {address}: {getattr(e, 'strerror', None) or e}"
            ) from e
    try:
        if address.startswith("unix:"):
            return _open_unix(address.removeprefix("unix:"))
        host, _, port = address.rpartition(":")
        return _open_tcp(host.removeprefix("[").removesuffix("]"), int(port))
    except OSError as e:
        raise OSError(e.errno, f"cannot listen on {address}: {e.strerror or e}") from e
    except ValueError as e:
        raise ValueError(
            f"cannot listen on {address!r}: expected host:port, unix:/path, fd://N or fd://NAME"
        ) from e


def _open_tcp(host: str, port: int) -> socket.socket:
    family, kind, proto, _, where = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        # On Windows this would let another program take the port as well; there it is not needed.
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: str) -> socket.socket:
    """Listen on a path; a socket that a crashed process left there is replaced, one in use is not."""
    if _AF_UNIX is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no unix sockets; use host:port")
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(_AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
    sock = socket.socket(_AF_UNIX, socket.SOCK_STREAM)
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
    if sock.family == _AF_UNIX:
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


def _renew(context: ssl.SSLContext, tls: Tls) -> None:
    """Take certificate and key from their files again.

    Raises:
        OSError: They cannot be used; the old ones are kept.
    """
    _tls_context(tls)
    context.load_cert_chain(tls.certfile, tls.keyfile)


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
    max_clients: Callable[[], int] = lambda: 10_000,
    compression: bool = False,
    grace_s: float = 5.0,
    shutdown: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the app until `shutdown` returns; then say `bye` to all readers and end within `grace_s`.

    Started with the addresses it listens on: `http://127.0.0.1:8765`, `unix:/path`; those of `listen` first.

    Args:
        listen: Where to listen: `host:port`, `unix:/path`, `fd://N` or `fd://NAME`.
        admin_listen: Likewise, for connections that may use what is kept from the others.
        tls: Certificate and key for the TCP listeners; unix sockets stay plain.
        max_clients: Bounds the connections, with some more for scrapes and probes; asked for each.
        compression: Agree on permessage-deflate with clients that offer it.

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
        names = [_name(s, context is not None and s.family != _AF_UNIX) for s, _ in sockets]
        async with trio.open_nursery() as housekeeping:
            app.readers.nursery = housekeeping
            if context is not None and tls is not None:
                app.renew_certificate = partial(_renew, context, tls)
            housekeeping.start_soon(app.readers.beat, name="web:heartbeats")
            housekeeping.start_soon(app.readers.pace, name="web:pace")
            inside, why = await _hypercorns_inside()
            if inside is None:
                log.warning("hypercorn is not as known, readers are served slowly", extra={"reason": why})
                await _serve_ordinary(
                    app, sockets, tls, grace_s, shutdown, partial(task_status.started, names)
                )
            else:
                limits = app.readers.limits
                connections = inside.Connections(
                    app,
                    _config(),
                    tls=context,
                    stall_s=limits.stall_s,
                    message_bytes=limits.message_bytes,
                    compression=compression,
                )
                server = _Server(app, connections, max_clients)
                await server.run(sockets, grace_s, shutdown, partial(task_status.started, names))
            housekeeping.cancel_scope.cancel()
    finally:
        for sock, _ in sockets:
            _close(sock)


async def _hypercorns_inside() -> tuple[ModuleType | None, str]:
    """Return our way into hypercorn; None and the reason where the installed one is not as we know it."""
    try:
        from pricefeedd.web import hyper, rehearsal
    except ImportError as e:
        return None, str(e)
    why = ", ".join(hyper.missing_parts()) or await rehearsal.rehearse(_config())
    return (None, why) if why else (hyper, "")


def _close(sock: socket.socket) -> None:
    if sock.fileno() != -1:
        if sock.family == _AF_UNIX:
            with suppress(OSError):
                os.unlink(sock.getsockname())
        sock.close()


class _Server:
    """Our listeners and their connections."""

    def __init__(self, app: App, connections: Any, most: Callable[[], int]) -> None:
        self._app = app
        self._connections = connections
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
            await self._connections.end()
            self._app.readers.close_all(Goodbye(SHUTDOWN, "pricefeedd is stopping", 1_000))

    async def _serve(self, stream: trio.SocketStream, *, admin: bool) -> None:
        if self._open >= self._most() + _OTHER_CONNECTIONS:
            with trio.move_on_after(1), suppress(trio.BrokenResourceError):
                await stream.send_all(_BUSY)
            await stream.aclose()
            return
        self._open += 1
        try:
            await self._connections.serve(stream, {ADMIN_LISTENER: admin})
        except* Exception:
            # What strangers send is parsed by hypercorn and its libraries: a fault there, such as an error that
            # nobody foresaw, may end the connection that met it and nothing else.
            log.exception("connection crashed")
        finally:
            self._open -= 1


async def _serve_ordinary(
    app: App,
    sockets: Sequence[tuple[socket.socket, bool]],
    tls: Tls | None,
    grace_s: float,
    shutdown: Callable[[], Awaitable[object]],
    started: Callable[[], None],
) -> None:
    """Serve by hypercorn's public interface alone: no shared writer, and compression where a client asks.

    Hypercorn shields its writes, so nobody here can end one to a client that does not read: the kernel does it, and
    such a client hears no `bye`. A unix socket has no such bound; its clients are of this machine.
    """
    stall_ms = round(app.readers.limits.stall_s * 1000)
    async with trio.open_nursery() as nursery:
        ending = trio.Event()
        for sock, admin in sockets:
            if hasattr(socket, "TCP_USER_TIMEOUT") and sock.family != _AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_ms)
            config = _config()
            config.graceful_timeout = grace_s
            config.bind = [f"fd://{sock.dup().detach()}"]
            if tls is not None and sock.family != _AF_UNIX:
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
