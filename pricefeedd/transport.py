"""Opens outbound connections: the only module that dials out.

The receive path is our own: it reads up to 64 kB per wake-up and hands all messages in it on as one batch,
which costs a few microseconds per message where one checkpoint for each costs ten times that.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

import h11
import httpx
import trio

from pricefeedd.codec import Frame
from pricefeedd.errors import ConnectError, ConnectionLostError, VenueError
from pricefeedd.frames import FrameDecoder, masked_frame
from pricefeedd.rest import HttpReply, retry_after_s

READ_BYTES = 65536
MAX_REPLY_BYTES = 64 << 20
_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}
_SECURE = {"wss", "https"}
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Dialer(Protocol):
    """Something that reaches venues: the network, or a test's fakes in memory."""

    async def open_stream(self, url: str) -> trio.abc.Stream:
        """Open a byte stream to the URL's host, with TLS where the scheme says so.

        Raises:
            ConnectError: It cannot be reached.
        """
        ...

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> HttpReply:
        """Send one request and return the whole answer, whatever its status.

        Raises:
            ConnectError: It cannot be reached, or the answer broke off.
        """
        ...


class NetworkDialer:
    """Dials over TCP and TLS; REST goes through one pooled HTTP/2 client.

    Use it as an async context manager.
    """

    def __init__(self, *, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._tls = ssl.create_default_context()
        self._http = httpx.AsyncClient(
            http2=True,
            verify=self._tls,
            timeout=httpx.Timeout(10.0, pool=None),
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=10),
            headers={"User-Agent": "pricefeedd"},
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> NetworkDialer:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.move_on_after(2, shield=True):
            await self._http.aclose()

    async def open_stream(self, url: str) -> trio.abc.Stream:
        """Open a TCP stream to the URL's host, with verified TLS for wss and https."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            if parts.scheme not in _SECURE:
                return await trio.open_tcp_stream(host, port)
            stream = await trio.open_ssl_over_tcp_stream(
                host, port, https_compatible=True, ssl_context=self._tls
            )
        except OSError as e:
            raise ConnectError(f"cannot reach {host}:{port}: {_why(e)}") from e
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError) as e:
            await trio.aclose_forcefully(stream)
            raise ConnectError(f"TLS with {host}:{port} failed: {e.__cause__ or e}") from e
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> HttpReply:
        """Send one request through the pool."""
        try:
            with trio.CancelScope() as scope:
                async with self._http.stream(method, url, headers=dict(headers), content=body) as response:
                    parts = []
                    size = 0
                    async for part in response.aiter_bytes():
                        parts.append(part)
                        size += len(part)
                        if size > MAX_REPLY_BYTES:
                            # Leaving the loop would leave httpx's generators to the garbage collector.
                            scope.cancel()
                    return HttpReply(
                        status=response.status_code,
                        headers={name.lower(): value for name, value in response.headers.items()},
                        body=b"".join(parts),
                        received_ns=self._now_ns(),
                    )
            raise ConnectError(f"reply of {url} is larger than {MAX_REPLY_BYTES} bytes")
        except httpx.HTTPError as e:
            raise ConnectError(f"cannot reach {urlsplit(url).netloc}: {_words(e)}") from e


def _why(error: OSError) -> str:
    """Return the first cause of a failed connect; Trio wraps one error per address tried."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return str(cause or error)


def _words(error: BaseException) -> str:
    """Return the first text in a chain of errors; httpx hides what TLS had to say in its causes."""
    cause: BaseException | None = error
    while cause is not None:
        if str(cause):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


class HandshakeRefusedError(VenueError):
    """The venue answered the handshake with something else than a connection.

    Attributes:
        reply: What it answered.
    """

    def __init__(self, reply: HttpReply) -> None:
        text = reply.body[:200].decode("utf-8", "replace")
        super().__init__(
            f"connection refused with HTTP {reply.status}: {text}",
            retry_after_s=retry_after_s(reply.headers) or _STOP_S.get(reply.status),
        )
        self.reply = reply


#: How long a refused handshake keeps us away where the venue does not say: limits and bans.
_STOP_S = {429: 60.0, 418: 120.0, 403: 300.0, 451: 300.0}


class Socket(Protocol):
    """An open connection that brings messages in batches."""

    async def receive(self) -> list[bytes]:
        """Return the messages in the next read, in order; none if it held only control frames.

        Raises:
            ConnectionLostError: The other side ended it.
        """
        ...

    async def send(self, frame: Frame) -> None:
        """Send one message."""
        ...

    async def ping(self) -> None:
        """Send a ping that the other side must answer."""
        ...

    async def aclose(self) -> None:
        """End it; safe at any time."""
        ...


# --- WebSocket --------------------------------------------------------------------------------------------


class WebSocket:
    """A WebSocket connection to a venue. Made by `open_websocket`."""

    def __init__(self, stream: trio.abc.Stream, *, max_message_bytes: int, early: bytes) -> None:
        self._stream = stream
        self._decoder = FrameDecoder(max_message_bytes)
        self._early = early
        self._goodbye: tuple[int, bytes] | None = None
        self._lost: ConnectionLostError | None = None
        self._sending = trio.Lock()
        self._closed = False

    async def receive(self) -> list[bytes]:
        """Return the messages in the next read, in order; none if it held only control frames."""
        if self._lost is not None:
            raise self._lost
        if self._goodbye is not None:
            await self._obey([self._goodbye])
        if self._decoder.broken is not None:
            raise self._decoder.broken
        if self._early:
            data, self._early = self._early, b""
            await trio.lowlevel.checkpoint()
        else:
            try:
                data = bytes(await self._stream.receive_some(READ_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as e:
                raise ConnectionLostError("connection cut") from e
            if not data:
                raise ConnectionLostError("connection ended without a close frame")
        messages = self._decoder.feed(data)
        if self._decoder.controls:
            controls, self._decoder.controls = self._decoder.controls, []
            close = next((index for index, (opcode, _) in enumerate(controls) if opcode == 8), None)
            if messages and close is not None:
                # What came before the close frame is still good; the close is met at the next call.
                self._goodbye = controls[close]
                del controls[close:]
            try:
                await self._obey(controls)
            except ConnectionLostError as e:
                if not messages:
                    raise
                # A pong that cannot be sent any more does not make worse what came before the ping.
                self._lost = e
        return messages

    async def _obey(self, controls: list[tuple[int, bytes]]) -> None:
        for opcode, payload in controls:
            if opcode == 9:
                await self._send(10, payload)
            elif opcode == 8:
                code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
                reason = payload[2:].decode("utf-8", "replace")
                with trio.move_on_after(1):
                    await self._send(8, payload[:2])
                raise ConnectionLostError(f"closed by the venue: {code} {reason}".rstrip())

    async def send(self, frame: Frame) -> None:
        """Send one text or binary message."""
        if isinstance(frame, str):
            await self._send(1, frame.encode())
        else:
            await self._send(2, frame)

    async def ping(self) -> None:
        """Send a WebSocket ping frame."""
        await self._send(9, b"")

    async def _send(self, opcode: int, payload: bytes) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(masked_frame(opcode, payload))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as e:
                raise ConnectionLostError("connection cut") from e

    async def aclose(self) -> None:
        """Say goodbye if that is quick, and close the stream."""
        if self._closed:
            return
        self._closed = True
        with trio.move_on_after(0.5, shield=True):
            with contextlib.suppress(ConnectionLostError):  # gone already is what we want
                await self._send(8, (1000).to_bytes(2))
        await trio.aclose_forcefully(self._stream)


async def _request(
    stream: trio.abc.Stream, url: str, path: str, headers: list[tuple[str, str]]
) -> tuple[h11.Connection, h11.Response | h11.InformationalResponse]:
    """Send a GET and return the connection and the head of its answer."""
    parts = urlsplit(url)
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=READ_BYTES)
    request = h11.Request(method="GET", target=path or "/", headers=[("Host", parts.netloc), *headers])
    try:
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some(READ_BYTES)
                connection.receive_data(bytes(data))
                if not data:
                    raise ConnectError(f"{parts.netloc} closed the connection instead of answering")
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                return connection, event
            else:
                raise ConnectError(f"{parts.netloc} does not speak HTTP/1.1")
    except h11.RemoteProtocolError as e:
        raise ConnectError(f"{parts.netloc} does not speak HTTP/1.1: {e}") from e
    except (trio.BrokenResourceError, trio.ClosedResourceError) as e:
        raise ConnectError(f"{parts.netloc} cut the connection instead of answering") from e


async def _refusal(
    stream: trio.abc.Stream, connection: h11.Connection, head: h11.Response
) -> HandshakeRefusedError:
    """Read the rest of an answer that is not what we wanted; give up politely if it is slow or large."""
    body = b""
    with trio.move_on_after(2):
        try:
            while len(body) < READ_BYTES:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(READ_BYTES)))
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    break
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what we have of the body must do
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return HandshakeRefusedError(
        HttpReply(status=head.status_code, headers=headers, body=body, received_ns=0)
    )


async def open_websocket(
    dialer: Dialer, url: str, path: str, *, headers: Mapping[str, str], max_message_bytes: int
) -> WebSocket:
    """Open a WebSocket. Nothing is negotiated: no extensions, no compression.

    Args:
        url: Base URL; `path` is joined to it by hand.

    Raises:
        ConnectError: The venue cannot be reached or does not speak WebSocket.
        HandshakeRefusedError: It answered with an HTTP error.
    """
    parts = urlsplit(url)
    stream = await dialer.open_stream(url)
    try:
        key = base64.b64encode(secrets.token_bytes(16))
        connection, head = await _request(
            stream,
            url,
            parts.path.rstrip("/") + path,
            [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", key.decode()),
                ("Sec-WebSocket-Version", "13"),
                ("User-Agent", "pricefeedd"),
                *headers.items(),
            ],
        )
        if isinstance(head, h11.Response):
            raise await _refusal(stream, connection, head)
        wanted = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        if head.status_code != 101 or dict(head.headers).get(b"sec-websocket-accept") != wanted:
            raise ConnectError(f"{parts.netloc} does not speak WebSocket (HTTP {head.status_code})")
        early = bytes(connection.trailing_data[0])
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return WebSocket(stream, max_message_bytes=max_message_bytes, early=early)


# --- Server-Sent Events -----------------------------------------------------------------------------------


class EventStream:
    """A stream of Server-Sent Events. Made by `open_event_stream`; a message is one event's lines."""

    def __init__(
        self, stream: trio.abc.Stream, connection: h11.Connection, *, max_message_bytes: int
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._max = max_message_bytes
        self._buffer = b""

    async def receive(self) -> list[bytes]:
        """Return the events in the next read; none for a comment, which is a sign of life."""
        while True:
            try:
                event = self._connection.next_event()
            except h11.RemoteProtocolError as e:
                raise ConnectionLostError(f"event stream broke off: {e}") from e
            if event is h11.NEED_DATA:
                try:
                    data = await self._stream.receive_some(READ_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as e:
                    raise ConnectionLostError("connection cut") from e
                self._connection.receive_data(bytes(data))
            elif isinstance(event, h11.Data):
                return self._split(bytes(event.data))
            else:
                # An event without its blank line is unfinished and is thrown away.
                raise ConnectionLostError("event stream ended")

    def _split(self, data: bytes) -> list[bytes]:
        blocks = (self._buffer + data).replace(b"\r\n", b"\n").split(b"\n\n")
        self._buffer = blocks.pop()
        if any(len(block) > self._max for block in (*blocks, self._buffer)):
            raise ConnectionLostError(f"an event is larger than {self._max} bytes allowed")
        # A block without data is a comment or a word to browsers, such as `retry:`, and is no event.
        return [block for block in blocks if block.startswith(b"data") or b"\ndata" in block]

    async def send(self, frame: Frame) -> None:
        """Refuse: an event stream has one direction."""
        raise TypeError("a feed of Server-Sent Events cannot send; name its streams in Codec.open")

    async def ping(self) -> None:
        """Do nothing: the server sends comments by itself."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the stream."""
        await trio.aclose_forcefully(self._stream)


async def open_event_stream(
    dialer: Dialer, url: str, path: str, *, headers: Mapping[str, str], max_message_bytes: int
) -> EventStream:
    """Open a stream of Server-Sent Events.

    Raises:
        ConnectError: The venue cannot be reached.
        HandshakeRefusedError: It answered with an HTTP error.
    """
    parts = urlsplit(url)
    stream = await dialer.open_stream(url)
    try:
        connection, head = await _request(
            stream,
            url,
            parts.path.rstrip("/") + path,
            [("Accept", "text/event-stream"), ("User-Agent", "pricefeedd"), *headers.items()],
        )
        if not isinstance(head, h11.Response):
            raise ConnectError(f"{parts.netloc} answered HTTP {head.status_code} to a request for events")
        if head.status_code != 200:
            raise await _refusal(stream, connection, head)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return EventStream(stream, connection, max_message_bytes=max_message_bytes)
