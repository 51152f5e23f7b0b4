"""One connection with a daemon, from the handshake to its end."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs
import orjson
import trio
import trio_websocket
import wsproto.utilities

from pricefeedd.client.updates import RefusedError
from pricefeedd.errors import ConnectionLostError, leaves
from pricefeedd.limits import Bucket
from pricefeedd.venue import Budget

CONNECT_S = 5.0
#: A daemon that takes nothing for so long is as good as gone.
SEND_S = 2.0
CLOSE_S = 1.0
READ_BYTES = 65536
MAX_MESSAGE_BYTES = 64 << 20

#: Close codes from here on say: do not come back.
FOR_GOOD = 4500

#: What trio-websocket raises, some of it from its own task.
_THEIRS = (
    trio_websocket.HandshakeError,
    trio_websocket.ConnectionClosed,
    wsproto.utilities.ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


class LineLostError(ConnectionLostError):
    """The connection with the daemon could not be made, or ended.

    Attributes:
        code: The code of the daemon's `bye`, or of its close; None if it just ended.
    """

    def __init__(self, message: str, *, code: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.code = code


@attrs.frozen
class Address:
    """Where a daemon is, and how to speak with it.

    Attributes:
        url: Of the WebSocket; `ws` or `wss`.
        tls: For `wss`; None for the system's.
    """

    url: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    tls: ssl.SSLContext | None = None

    def target(self) -> tuple[str, int, bool, str]:
        """Return host, port, whether with TLS, and the path with the query.

        Raises:
            ValueError: It is not the URL of a WebSocket.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError("a URL is such as ws://127.0.0.1:8765/ws")
        secure = parts.scheme == "wss"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return parts.hostname, parts.port or (443 if secure else 80), secure, path


def with_options(url: str, **options: object) -> str:
    """Return a URL with these in its query; what is None is left out."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query |= {name: str(value) for name, value in options.items() if value is not None}
    return parts._replace(query=urlencode(query)).geturl()


class _Watched(trio.abc.Stream):
    """A stream that tells when it has ended: trio-websocket waits on for a handshake that cannot come."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.watch = trio.CancelScope()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.watch.cancel()
            raise
        if not data:
            self.watch.cancel()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


@attrs.define(eq=False)
class Pending:
    """A request that waits for its answer.

    Attributes:
        note: Called with the answer at once, unless it is an error.
    """

    note: Callable[[dict[str, Any]], None] | None
    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: dict[str, Any] | None = None

    def take(self, answer: dict[str, Any]) -> None:
        """Take the answer, and wake who waits."""
        self.answer = answer
        if self.note is not None and answer["type"] != "error":
            self.note(answer)
        self.answered.set()


class Line:
    """An open connection.

    Attributes:
        welcome: The daemon's first message.
        nursery: Ends with the connection; what fails in it ends the connection.
        pending: Requests that wait, by id.
        flowed: Something came besides answers.
        failure: Why it was cut by us.
    """

    def __init__(
        self, socket: trio_websocket.WebSocketConnection, nursery: trio.Nursery, welcome: dict[str, Any]
    ) -> None:
        self.welcome = welcome
        self.nursery = nursery
        self.pending: dict[int, Pending] = {}
        self.flowed = False
        self.failure: LineLostError | None = None
        self._closing = False
        self._socket = socket
        self._patience_s = 2.5 * float(welcome.get("heartbeat_s", 15))
        limits = welcome.get("limits", {})
        self.message_bytes = int(limits.get("message_bytes", 65_536))
        burst, per_s = float(limits.get("burst", 500)), float(limits.get("requests_per_s", 50))
        # No window as long as the daemon takes to forgive a burst sees more than one.
        self._budget = Bucket(Budget(name="requests", capacity=burst, per_s=burst / per_s, reserve=0.05))

    async def send(self, text: str, cost: float) -> None:
        """Send a request once the daemon's rate limit allows it."""
        while wait_s := self._budget.take(cost, trio.current_time()):  # noqa: ASYNC110  # it says how long
            await trio.sleep(wait_s)
        # Half a frame would garble all that follows, so a caller's cancellation waits.
        with trio.move_on_after(SEND_S, shield=True) as scope:
            try:
                await self._socket.send_message(text)
            except trio_websocket.ConnectionClosed as e:
                raise _ended(e.reason) from e
        if scope.cancelled_caught:
            self.failure = LineLostError(f"the daemon took nothing for {SEND_S:g} s")
            self.nursery.cancel_scope.cancel()
            raise self.failure

    async def receive(self) -> str:
        """Return the next frame.

        Raises:
            LineLostError: The connection ended, or is dead: heartbeats are due and nothing comes.
        """
        with trio.move_on_after(self._patience_s):
            try:
                return str(await self._socket.get_message())
            except trio_websocket.ConnectionClosed as e:
                if self._closing:
                    await trio.sleep_forever()  # who closes it ends us
                raise _ended(e.reason) from e
        raise LineLostError(f"nothing came from the daemon for {self._patience_s:g} s")

    async def aclose(self) -> None:
        """Say goodbye, and wait a moment for the daemon to say it too."""
        self._closing = True
        with trio.move_on_after(CLOSE_S, shield=True):
            await self._socket.aclose()

    def drop(self) -> None:
        """Let those who wait for answers know that none will come."""
        for pending in self.pending.values():
            pending.answered.set()


def goodbye(message: dict[str, Any]) -> LineLostError | RefusedError:
    """Return what a `bye` means."""
    code, reason, after_ms = message["code"], message["reason"], message.get("retry_after_ms")
    if code >= FOR_GOOD:
        return RefusedError(code, reason)
    return LineLostError(
        f"the daemon closed the connection: {code} {reason}",
        code=code,
        retry_after_s=None if after_ms is None else after_ms / 1000,
    )


def _ended(reason: trio_websocket.CloseReason | None) -> LineLostError | RefusedError:
    if reason is None or reason.code == 1006:
        return LineLostError("the connection with the daemon was cut")
    if FOR_GOOD <= reason.code <= 4999:
        return RefusedError(reason.code, reason.reason or "")
    text = f"the daemon closed the connection: {reason.code} {reason.reason or ''}".rstrip()
    return LineLostError(text, code=reason.code)


@asynccontextmanager
async def open_line(address: Address) -> AsyncIterator[Line]:
    """Connect, and read the daemon's `welcome`.

    Raises:
        LineLostError: Nobody serves there, or not this protocol; or the connection ended.
        RefusedError: The daemon does not want us.
    """
    try:
        async with trio.open_nursery() as nursery:
            stream = await _dial(address)
            try:
                line = await _shake_hands(nursery, stream, address)
                try:
                    yield line
                finally:
                    line.drop()
            finally:
                # In this order: whoever reads must not take our closing for the reason of the end. And shielded,
                # or `Cancelled` takes the place of the reason.
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)
    except BaseExceptionGroup as group:
        # The condition is asked of groups as well: only single errors are meant.
        ends = (*_THEIRS, LineLostError, RefusedError, BaseExceptionGroup)
        others = group.subgroup(lambda error: not isinstance(error, ends))
        if others is not None:
            raise others from None  # a bug, or a cancellation: that the connection ends as well is no news
        raise _end_of(list(leaves(group))) from group
    if line.failure is not None:
        raise line.failure


def _end_of(errors: list[BaseException]) -> LineLostError | RefusedError:
    """Return the one that says most."""
    for kind in (RefusedError, LineLostError):
        for error in errors:
            if isinstance(error, kind):
                return error
    return LineLostError(_why(errors[0]))


async def _dial(address: Address) -> trio.abc.Stream:
    try:
        host, port, secure, _ = address.target()
        with trio.fail_after(CONNECT_S):
            if not secure:
                return await trio.open_tcp_stream(host, port)
            tls = address.tls or ssl.create_default_context()
            stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=tls)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream
    except (OSError, ValueError, trio.TooSlowError, trio.BrokenResourceError) as e:
        raise LineLostError(_why(e)) from e


async def _shake_hands(nursery: trio.Nursery, stream: trio.abc.Stream, address: Address) -> Line:
    host, port, _, path = address.target()
    watched = _Watched(stream)
    try:
        with trio.fail_after(CONNECT_S):
            with watched.watch:
                socket = await trio_websocket.wrap_client_stream(
                    nursery,
                    watched,  # type: ignore[arg-type]  # any stream will do: no more of a socket is used
                    f"{host}:{port}",
                    path,
                    extra_headers=list(address.headers),
                    max_message_size=MAX_MESSAGE_BYTES,
                    receive_buffer_size=READ_BYTES,
                )
            if watched.watch.cancelled_caught:
                raise LineLostError("the connection was closed instead of answered")
            text = await socket.get_message()
    except trio_websocket.ConnectionClosed as e:
        raise _ended(e.reason) from e
    except trio.TooSlowError as e:
        raise LineLostError(f"no welcome within {CONNECT_S:g} s") from e
    try:
        message = orjson.loads(text)
        if message["type"] == "bye":
            raise goodbye(message)
        if message["type"] != "welcome" or not isinstance(message["epoch"], str):
            raise LineLostError(f"not a pricefeedd: it began with {str(text)[:80]!r}")
        return Line(socket, nursery, message)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as e:
        raise LineLostError(f"not a pricefeedd: it began with {str(text)[:80]!r}") from e


def _why(error: BaseException) -> str:
    if isinstance(error, trio_websocket.ConnectionRejected):
        return f"HTTP {error.status_code}"
    if isinstance(error, trio.TooSlowError):
        return f"no connection within {CONNECT_S:g} s"
    # Trio wraps one error for each address tried; the first says what is wrong.
    first = next(leaves(error.__cause__), None) if isinstance(error.__cause__, BaseExceptionGroup) else None
    if isinstance(first, OSError) and first.errno:
        return os.strerror(first.errno)
    return str(error) or type(error).__name__
