"""A small real HTTP/1.1 and WebSocket server for fake venues, on any Trio stream.

It parses with h11 and wsproto, which share no code with the decoder that pricefeedd reads venues with, so
a mistake of ours cannot be made twice. What it says, and how it misbehaves, is the `App`'s business.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import parse_qsl, unquote

import attrs
import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
)
from wsproto.events import Request as UpgradeRequest
from wsproto.utilities import RemoteProtocolError

from pricefeedd.testing.sockets import (
    GONE,
    RECEIVE_BYTES,
    Connection,
    EventStream,
    Pacing,
    Request,
    Response,
    Socket,
    WebSocket,
)


class CutError(Exception):
    """Raised by an app to end the connection at once instead of answering."""


class App(Protocol):
    """What the server serves."""

    pacing: Pacing

    async def admit(self, connection: Connection) -> bool:
        """Return whether to talk to this client at all; called before anything is read."""
        ...

    async def upgrade(self, request: Request) -> Response | None:
        """Return an answer that denies a WebSocket handshake, or None to accept it.

        Raises:
            CutError: The connection shall end without an answer.
        """
        ...

    async def http(self, request: Request) -> Response:
        """Return the answer to a request.

        Raises:
            CutError: The connection shall end without an answer.
        """
        ...

    async def serve_socket(self, socket: Socket) -> None:
        """Serve an open WebSocket or event stream with `socket.run`; it ends when this returns."""
        ...


async def serve_stream(stream: trio.abc.HalfCloseableStream, app: App) -> None:
    """Serve one connection until either side ends it."""
    connection = Connection(stream)
    try:
        with connection.cancel_scope:
            if await app.admit(connection):
                try:
                    await _serve(connection, app)
                except CutError:
                    connection.abort()
                except (*GONE, h11.RemoteProtocolError):
                    pass  # the client went away, or does not speak HTTP
    finally:
        await trio.aclose_forcefully(stream)


async def _serve(connection: Connection, app: App) -> None:
    conn = h11.Connection(h11.SERVER)
    while True:
        read = await _read_request(connection.stream, conn)
        if read is None:
            return
        request, raw_headers, target = read
        if request.headers.get("upgrade", "").lower() == "websocket":
            denial = await app.upgrade(request)
            if denial is None:
                await _serve_websocket(connection, app, request, raw_headers, target, conn.trailing_data[0])
                return
            await _respond(connection.stream, conn, attrs.evolve(denial, events=False), close=True)
            return
        response = await app.http(request)
        if response.events:
            socket = EventStream(connection, request, app.pacing, conn)
            socket.greeting = _head(conn, response)
            await app.serve_socket(socket)
            return
        await _respond(connection.stream, conn, response)
        if conn.our_state is h11.MUST_CLOSE:
            return
        conn.start_next_cycle()


async def _read_request(
    stream: trio.abc.HalfCloseableStream, conn: h11.Connection
) -> tuple[Request, list[tuple[bytes, bytes]], str] | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = conn.next_event()
        if event is h11.NEED_DATA:
            conn.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            return None
    assert head is not None, "h11 gives the head before the end"
    target = head.target.decode("ascii", "replace")
    path, _, query = target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    request = Request(
        method=head.method.decode(),
        path=unquote(path),
        query=dict(pairs),
        pairs=pairs,
        headers={name.decode(): value.decode("latin-1") for name, value in head.headers},
        body=bytes(body),
    )
    return request, list(head.headers), target


async def _respond(
    stream: trio.abc.HalfCloseableStream, conn: h11.Connection, response: Response, *, close: bool = False
) -> None:
    data = _head(conn, response, close=close)
    data += conn.send(h11.Data(data=response.body)) or b""
    data += conn.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)


def _head(conn: h11.Connection, response: Response, *, close: bool = False) -> bytes:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if response.events:
        headers.setdefault("content-type", "text/event-stream")
    else:
        headers.setdefault("content-type", "application/json")
        headers["content-length"] = str(len(response.body))
    if close:
        headers["connection"] = "close"
    return conn.send(h11.Response(status_code=response.status, headers=list(headers.items()))) or b""


async def _serve_websocket(
    connection: Connection,
    app: App,
    request: Request,
    raw_headers: list[tuple[bytes, bytes]],
    target: str,
    early: bytes,
) -> None:
    ws = WSConnection(ConnectionType.SERVER)
    try:
        ws.initiate_upgrade_connection(raw_headers, target)
    except RemoteProtocolError:
        return
    handshake = next(ws.events())
    assert isinstance(handshake, UpgradeRequest), "a handshake begins with its request"
    socket = WebSocket(connection, request, app.pacing, ws)
    socket.greeting = ws.send(AcceptConnection())
    if early:
        ws.receive_data(early)
    await app.serve_socket(socket)
