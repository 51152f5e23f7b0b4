"""Dialling out, against real servers on 127.0.0.1, well behaved and not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from pricefeedd import transport
from pricefeedd.errors import ConnectError, ConnectionLostError
from pricefeedd.testing import FakeVenue, Request, Response, Socket
from pricefeedd.transport import (
    Dialer,
    EventStream,
    HandshakeRefusedError,
    NetworkDialer,
    WebSocket,
    open_event_stream,
    open_websocket,
)

LIMIT = 1 << 20
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Handler = Callable[[trio.abc.Stream], Awaitable[None]]


@pytest.fixture
async def dialer() -> AsyncIterator[NetworkDialer]:
    with trio.fail_after(30):
        async with NetworkDialer(now_ns=lambda: 42) as network:
            yield network


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve raw TCP or TLS; yield host and port."""

    async def forgiving(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await handler(stream)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        if tls is None:
            nursery.start_soon(partial(trio.serve_listeners, forgiving, listeners))
        else:
            wrapped = [trio.SSLListener(listener, tls) for listener in listeners]
            nursery.start_soon(partial(trio.serve_listeners, forgiving, wrapped))
        yield f"127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def head(stream: trio.abc.Stream) -> bytes:
    """Return the head of a request."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some()
        assert part, "the client gave up"
        data += part
    return data


def agreed(request: bytes) -> bytes:
    """Return the answer that accepts a handshake."""
    (key,) = [
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    ]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def answering(answer: bytes) -> Handler:
    """Return a server that gives one answer to all, and closes."""

    async def handle(stream: trio.abc.Stream) -> None:
        await head(stream)
        await stream.send_all(answer)
        await stream.aclose()

    return handle


async def websocket(dialer: Dialer, place: str, path: str = "/ws", **headers: str) -> WebSocket:
    return await open_websocket(dialer, f"ws://{place}", path, headers=headers, max_message_bytes=LIMIT)


async def some(socket: WebSocket | EventStream, count: int) -> list[bytes]:
    """Receive until so many messages came."""
    messages: list[bytes] = []
    while len(messages) < count:
        messages += await socket.receive()
    return messages


async def to_the_end(socket: EventStream, into: list[bytes]) -> None:
    """Receive until it fails."""
    while True:
        into += await socket.receive()


# --- WebSocket ---------------------------------------------------------------------------------------------


async def test_messages_go_both_ways_with_a_server_of_others(dialer: NetworkDialer) -> None:
    asked: list[tuple[str, dict[bytes, bytes]]] = []

    async def serve(request: WebSocketRequest) -> None:
        asked.append((request.path, dict(request.headers)))
        ws: WebSocketConnection = await request.accept()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await ws.send_message(await ws.get_message())

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
        socket = await websocket(
            dialer, f"127.0.0.1:{server.port}/base/", "/ws?streams=a/b&c=1", **{"X-Key": "k"}
        )
        await socket.send("text €")
        await socket.send(b"\x00binary")
        await socket.send("x" * 200_000)
        assert await some(socket, 3) == ["text €".encode(), b"\x00binary", b"x" * 200_000]
        await socket.ping()
        await socket.send("after a ping")
        assert await some(socket, 1) == [b"after a ping"]
        await socket.aclose()
        nursery.cancel_scope.cancel()
    ((path, headers),) = asked
    assert path == "/base/ws?streams=a/b&c=1"
    assert headers[b"x-key"] == b"k"
    assert headers[b"user-agent"] == b"pricefeedd"
    assert b"sec-websocket-extensions" not in headers, "nothing is negotiated"


async def test_a_goodbye_is_said_when_we_close(dialer: NetworkDialer) -> None:
    codes: list[int] = []
    done = trio.Event()

    async def serve(request: WebSocketRequest) -> None:
        ws = await request.accept()
        try:
            await ws.get_message()
        except ConnectionClosed as e:
            codes.append(0 if e.reason is None else e.reason.code)
        done.set()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
        socket = await websocket(dialer, f"127.0.0.1:{server.port}")
        await socket.aclose()
        await socket.aclose()
        await done.wait()
        nursery.cancel_scope.cancel()
    assert codes == [1000]


async def test_a_frame_in_the_same_packet_as_the_handshakes_answer_is_not_lost(dialer: NetworkDialer) -> None:
    async def handle(stream: trio.abc.Stream) -> None:
        request = await head(stream)
        await stream.send_all(agreed(request) + b"\x81\x05early\x81\x06and")
        await stream.send_all(b"yet")
        await trio.sleep_forever()

    async with serving(handle) as place:
        socket = await websocket(dialer, place)
        assert await some(socket, 2) == [b"early", b"andyet"]
        await socket.aclose()


async def test_a_refused_handshake_brings_the_venues_words(dialer: NetworkDialer) -> None:
    class Busy(FakeVenue):
        async def upgrade(self, request: Request) -> Response | None:
            return Response(status=429, headers={"Retry-After": "7"}, body=b'{"code":-1003}')

    async with trio.open_nursery() as nursery:
        venue = Busy()
        await nursery.start(venue.run)
        with pytest.raises(HandshakeRefusedError, match="HTTP 429") as caught:
            await open_websocket(
                dialer, f"ws://{venue.authority}", "/ws", headers={}, max_message_bytes=LIMIT
            )
        nursery.cancel_scope.cancel()
    assert caught.value.retry_after_s == 7.0
    assert caught.value.reply.status == 429
    assert caught.value.reply.body == b'{"code":-1003}'
    assert caught.value.reply.headers["retry-after"] == "7"


async def test_an_endless_refusal_is_cut_short(
    dialer: NetworkDialer, autojump_clock: trio.testing.MockClock
) -> None:
    class Memory:
        def __init__(self, nursery: trio.Nursery) -> None:
            self.nursery = nursery

        async def open_stream(self, url: str) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()

            async def serve() -> None:
                await head(theirs)
                await theirs.send_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\nsorry")
                await trio.sleep_forever()

            self.nursery.start_soon(serve)
            return ours

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        memory = Memory(nursery)
        with pytest.raises(HandshakeRefusedError, match="sorry"):
            await open_websocket(memory, "ws://x", "/", headers={}, max_message_bytes=LIMIT)  # type: ignore[arg-type]  # it never fetches
        assert trio.current_time() - began <= 2.1
        nursery.cancel_scope.cancel()


async def test_a_handshake_that_hangs_can_be_given_up_and_leaves_nothing_open(dialer: NetworkDialer) -> None:
    closed = trio.Event()

    async def handle(stream: trio.abc.Stream) -> None:
        await head(stream)
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        closed.set()

    async with serving(handle) as place:
        with trio.move_on_after(0.05) as scope:
            await websocket(dialer, place)
        assert scope.cancelled_caught
        await closed.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46" * 10,
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: bm90IHlvdXIga2V5\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 " + b"x" * 200_000,
    ],
    ids=["ssh", "tls", "nothing", "wrong-key", "no-key", "endless"],
)
async def test_what_does_not_speak_websocket_is_told(dialer: NetworkDialer, answer: bytes) -> None:
    async with serving(answering(answer)) as place:
        with pytest.raises(ConnectError, match=r"127\.0\.0\.1"):
            await websocket(dialer, place)


async def test_a_page_in_place_of_a_websocket_is_a_refusal(dialer: NetworkDialer) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    async with serving(answering(answer)) as place:
        with pytest.raises(HandshakeRefusedError, match="HTTP 200: hello"):
            await websocket(dialer, place)


async def test_nobody_there(dialer: NetworkDialer) -> None:
    async with serving(answering(b"")) as place:
        pass
    with pytest.raises(ConnectError, match=f"cannot reach {place}: .*refused"):
        await websocket(dialer, place)
    with pytest.raises(ConnectError, match="cannot reach"):
        await dialer.fetch("GET", f"http://{place}/", headers={}, body=None)


async def test_a_cut_connection_is_lost(dialer: NetworkDialer) -> None:
    venue = FakeVenue()
    async with trio.open_nursery() as nursery:
        await nursery.start(venue.run)
        socket = await open_websocket(
            dialer, f"ws://{venue.authority}", "/", headers={}, max_message_bytes=LIMIT
        )
        while not venue.sockets:
            await trio.lowlevel.checkpoint()
        for theirs in venue.sockets:
            theirs.abort()
        with pytest.raises(ConnectionLostError):
            await some(socket, 1)
        await socket.aclose()
        nursery.cancel_scope.cancel()


# --- TLS ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    dialer: NetworkDialer, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    await trio.run_process(
        [*command, "-keyout", str(key), "-out", str(certificate)], stderr=subprocess.DEVNULL
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with serving(answering(b""), tls) as place:
        with pytest.raises(ConnectError, match=r"TLS with .* failed: .*certificate verify failed"):
            await open_websocket(dialer, f"wss://{place}", "/", headers={}, max_message_bytes=LIMIT)
        with pytest.raises(ConnectError, match="certificate verify failed"):
            await dialer.fetch("GET", f"https://{place}/", headers={}, body=None)


async def test_a_server_without_tls_is_told(dialer: NetworkDialer) -> None:
    async def handle(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(handle) as place:
        with pytest.raises(ConnectError, match="TLS with"):
            await open_websocket(dialer, f"wss://{place}", "/", headers={}, max_message_bytes=LIMIT)


# --- Server-Sent Events ------------------------------------------------------------------------------------


async def events(dialer: Dialer, place: str) -> EventStream:
    return await open_event_stream(dialer, f"http://{place}", "/sse?a=1", headers={}, max_message_bytes=LIMIT)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

LINES = (
    b": hello\n\n"
    b"data:no blank\n\n"
    b"event: price\ndata: one\ndata: two\n\n"
    b"retry: 3000\n\n"
    b"id: 5\n: a comment inside\ndata: {}\n\n"
    b"\n\n"
    b"data: unfinished\n"
)
BLOCKS = [
    b"data:no blank",
    b"event: price\ndata: one\ndata: two",
    b"id: 5\n: a comment inside\ndata: {}",
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_events_arrive_whole_however_they_are_cut(dialer: NetworkDialer, size: int, end: bytes) -> None:
    """Comments and words to browsers are no events, and an event without its blank line is thrown away."""
    body = LINES.replace(b"\n", end)
    requests: list[bytes] = []

    async def handle(stream: trio.abc.Stream) -> None:
        requests.append(await head(stream))
        await stream.send_all(SSE_HEAD)
        for at in range(0, len(body), size):
            await stream.send_all(chunk(body[at : at + size]))
        await stream.send_all(b"0\r\n\r\n")

    async with serving(handle) as place:
        socket = await events(dialer, place)
        came: list[bytes] = []
        with pytest.raises(ConnectionLostError, match="event stream ended"):
            await to_the_end(socket, came)
        await socket.aclose()
    assert came == BLOCKS
    assert requests[0].startswith(b"GET /sse?a=1 HTTP/1.1\r\n")
    assert b"text/event-stream" in requests[0]


async def test_comments_are_signs_of_life(dialer: NetworkDialer) -> None:
    async def handle(stream: trio.abc.Stream) -> None:
        await head(stream)
        await stream.send_all(SSE_HEAD + chunk(b":\n\n"))
        await trio.sleep_forever()

    async with serving(handle) as place:
        socket = await events(dialer, place)
        assert await socket.receive() == []
        await socket.ping()
        with pytest.raises(TypeError, match="cannot send"):
            await socket.send("x")
        await socket.aclose()


async def test_a_stream_of_events_that_breaks_off(dialer: NetworkDialer) -> None:
    async with serving(answering(SSE_HEAD + b"20\r\ndata: ha")) as place:
        socket = await events(dialer, place)
        came: list[bytes] = []
        with pytest.raises(ConnectionLostError, match="broke off"):
            await to_the_end(socket, came)
        assert came == []
        await socket.aclose()


async def test_a_stream_of_events_without_chunks_ends_with_its_connection(dialer: NetworkDialer) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: 2\n\n"
    async with serving(answering(answer)) as place:
        socket = await events(dialer, place)
        assert await some(socket, 2) == [b"data: 1", b"data: 2"]
        with pytest.raises(ConnectionLostError, match="ended"):
            await socket.receive()
        await socket.aclose()


async def test_an_event_may_not_be_larger_than_allowed(dialer: NetworkDialer) -> None:
    async with serving(answering(SSE_HEAD + chunk(b"data: " + b"x" * LIMIT) * 2)) as place:
        socket = await events(dialer, place)
        came: list[bytes] = []
        with pytest.raises(ConnectionLostError, match="larger"):
            await to_the_end(socket, came)
        assert came == []
        await socket.aclose()


async def test_a_refused_stream_of_events(dialer: NetworkDialer) -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno region"
    async with serving(answering(answer)) as place:
        with pytest.raises(HandshakeRefusedError, match="403: no region") as caught:
            await events(dialer, place)
    assert caught.value.retry_after_s == 300.0


# --- REST --------------------------------------------------------------------------------------------------


class Api(FakeVenue):
    """Answers with what it was asked."""

    async def on_text(self, socket: Socket, text: str) -> None:
        """Take nothing."""

    async def on_http(self, request: Request) -> Response:
        if request.path == "/big":
            return Response(body=bytes(300_000))
        if request.path == "/teapot":
            return Response(status=418, headers={"X-Used": "5"}, body=b"short and stout")
        return Response(
            body=f"{request.method} {request.path} {dict(request.query)} {request.body.decode()}".encode(),
            headers={"X-Echo": request.headers.get("x-key", "")},
        )


@pytest.fixture
async def api() -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        venue = Api()
        await nursery.start(venue.run)
        yield venue.url
        nursery.cancel_scope.cancel()


async def test_a_request_and_its_answer(dialer: NetworkDialer, api: str) -> None:
    reply = await dialer.fetch("POST", f"{api}/a?b=1", headers={"X-Key": "k"}, body=b"hello")
    assert reply.status == 200
    assert reply.body == b"POST /a {'b': '1'} hello"
    assert reply.headers["x-echo"] == "k"
    assert reply.received_ns == 42


async def test_whatever_the_status_the_answer_is_returned(dialer: NetworkDialer, api: str) -> None:
    reply = await dialer.fetch("GET", f"{api}/teapot", headers={}, body=None)
    assert (reply.status, reply.body, reply.headers["x-used"]) == (418, b"short and stout", "5")


async def test_large_answers_are_whole_up_to_the_limit(
    dialer: NetworkDialer, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = await dialer.fetch("GET", f"{api}/big", headers={}, body=None)
    assert len(reply.body) == 300_000
    monkeypatch.setattr(transport, "MAX_REPLY_BYTES", 100_000)
    with pytest.raises(ConnectError, match="larger than 100000"):
        await dialer.fetch("GET", f"{api}/big", headers={}, body=None)
    monkeypatch.undo()
    assert (await dialer.fetch("GET", f"{api}/a", headers={}, body=None)).status == 200


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", b"garbage\r\n\r\n"],
    ids=["closed", "cut", "garbage"],
)
async def test_answers_that_break_off(dialer: NetworkDialer, answer: bytes) -> None:
    async with serving(answering(answer)) as place:
        with pytest.raises(ConnectError, match=f"cannot reach {place}"):
            await dialer.fetch("GET", f"http://{place}/", headers={}, body=None)


async def test_redirections_are_not_followed(dialer: NetworkDialer) -> None:
    """A venue's address is what the configuration says; credentials go nowhere else."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(answer)) as place:
        reply = await dialer.fetch("GET", f"http://{place}/", headers={}, body=None)
    assert reply.status == 302


async def test_connections_are_reused(dialer: NetworkDialer) -> None:
    venue = Api()
    async with trio.open_nursery() as nursery:
        await nursery.start(venue.run)
        for _ in range(5):
            await dialer.fetch("GET", f"{venue.url}/a", headers={}, body=None)
        nursery.cancel_scope.cancel()
    assert venue.seen.connections == 1
