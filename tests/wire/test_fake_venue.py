"""The fake venue, seen by a client that shares no code with it: `websockets` in a thread, and raw sockets."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pricefeedd.testing import FakeVenue, Request, Response, Socket

T = TypeVar("T")


class Parrot(FakeVenue):
    """Acknowledges `sub NAME`, echoes other texts, and streams events on /sse."""

    async def on_open(self, socket: Socket) -> None:
        socket.scope = socket.path.strip("/")

    async def on_text(self, socket: Socket, text: str) -> None:
        if text.startswith("sub "):
            self.seen.subscribes += 1
            self.subscribe(socket, text.split()[1:])
            self.acknowledge(socket, {"ok": text})
        else:
            socket.send(text)

    async def on_bytes(self, socket: Socket, data: bytes) -> None:
        socket.send(data[::-1])

    async def on_http(self, request: Request) -> Response:
        if request.path == "/sse":
            return Response(events=True)
        answer = {"path": request.path, "query": dict(request.query), "body": request.body.decode()}
        return Response(body=json.dumps(answer).encode())


@contextlib.asynccontextmanager
async def running(fake: FakeVenue) -> AsyncIterator[FakeVenue]:
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        yield fake
        nursery.cancel_scope.cancel()


@pytest.fixture
async def fake() -> AsyncIterator[FakeVenue]:
    with trio.fail_after(30):
        async with running(Parrot()) as parrot:
            yield parrot


async def in_thread(what: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await trio.to_thread.run_sync(functools.partial(what, *args, **kwargs))


def _open(url: str, **options: Any) -> ClientConnection:
    ws: ClientConnection = connect(url, **options).__enter__()
    return ws


@contextlib.asynccontextmanager
async def client(fake: FakeVenue, path: str = "/a") -> AsyncIterator[ClientConnection]:
    url = f"ws://{fake.authority}{path}"
    ws = await in_thread(
        _open, url, ping_interval=None, compression=None, proxy=None, close_timeout=1, open_timeout=5
    )
    try:
        yield ws
    finally:
        with trio.CancelScope(shield=True):
            await in_thread(ws.close)


async def hear(ws: ClientConnection, timeout: float = 5) -> str | bytes:
    return await in_thread(ws.recv, timeout)


async def say(ws: ClientConnection, text: str | bytes) -> None:
    await in_thread(ws.send, text)


async def subscribed(ws: ClientConnection, *names: str) -> None:
    await say(ws, f"sub {' '.join(names)}")
    assert json.loads(await hear(ws)) == {"ok": f"sub {' '.join(names)}"}


async def silent(ws: ClientConnection) -> bool:
    """Return whether nothing comes before our own echo does, or for half a second."""
    try:
        await hear(ws, 0.5)
    except TimeoutError:
        return True
    return False


def get(
    fake: FakeVenue, path: str, method: str = "GET", body: bytes | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(str(fake.host), fake.port, timeout=5)
    connection.request(method, path, body)
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]  # read before the connection is closed
    connection.close()
    return response


# --- Without faults ---------------------------------------------------------------------------------------


async def test_messages_travel_both_ways(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        await say(ws, "hello")
        assert await hear(ws) == "hello"
        await say(ws, b"abc")
        assert await hear(ws) == b"cba"
        long = "é" * 100_000
        await say(ws, long)
        assert await hear(ws) == long
    assert (fake.seen.connections, fake.seen.handshakes, fake.seen.sockets) == (1, 1, 1)
    await fake.wait_for(lambda: not fake.sockets)


async def test_only_subscribers_of_the_scope_get_what_is_published(fake: FakeVenue) -> None:
    async with client(fake, "/a") as one, client(fake, "/b") as other:
        await subscribed(one, "x", "y")
        await subscribed(other, "x")
        assert fake.publish("x", {"n": 1}, scope="a") == 1
        assert fake.publish("z", {"n": 2}, scope="a") == 0
        fake.publish("y", {"n": 3}, scope="a")
        assert [await hear(one), await hear(one)] == ['{"n":1}', '{"n":3}']
        fake.publish("x", {"n": 4}, scope="b")
        assert await hear(other) == '{"n":4}'
    assert fake.seen.subscribes == 2
    await fake.wait_for(lambda: not fake.wanted("x", scope="a"))


async def test_requests_are_answered_on_one_connection(fake: FakeVenue) -> None:
    def several() -> list[Any]:
        connection = http.client.HTTPConnection(str(fake.host), fake.port, timeout=5)
        answers = []
        for path in ("/one?a=1&b=%7E", "/two"):
            connection.request("POST", path, b"text")
            answers.append(json.load(connection.getresponse()))
        connection.close()
        return answers

    assert await in_thread(several) == [
        {"path": "/one", "query": {"a": "1", "b": "~"}, "body": "text"},
        {"path": "/two", "query": {}, "body": "text"},
    ]
    assert fake.seen.connections == 1
    assert fake.seen.requests == {"/one": 1, "/two": 1}


async def test_event_streams_are_sockets_too(fake: FakeVenue) -> None:
    def read_events(count: int) -> tuple[str | None, bytes]:
        connection = http.client.HTTPConnection(str(fake.host), fake.port, timeout=5)
        connection.request("GET", "/sse")
        response = connection.getresponse()
        lines = b"".join(response.readline() for _ in range(count))
        rest = response.read()
        connection.close()
        return response.getheader("content-type"), lines + rest

    async with trio.open_nursery() as nursery:
        result: list[tuple[str | None, bytes]] = []

        async def read() -> None:
            result.append(await in_thread(read_events, 2))

        nursery.start_soon(read)
        await fake.wait_for(lambda: len(fake.sockets) == 1)
        fake.subscribe(fake.sockets[0], ["tick"])
        fake.publish("tick", '{"n":1}', scope="sse")
        fake.publish("tick", "two\nlines", scope="sse")
        fake.faults.close()
    assert result == [("text/event-stream", b'data:{"n":1}\n\ndata:two\ndata:lines\n\n')]


async def test_a_port_in_use_is_an_error_at_the_start(fake: FakeVenue) -> None:
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(functools.partial(Parrot().run, port=fake.port or 0))


async def test_what_does_not_speak_http_is_let_go(fake: FakeVenue) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", fake.port or 0)
    async with stream:
        await stream.send_all(b"\x16\x03\x01\x02\x00\x01 this is no HTTP\r\n\r\n")
        with contextlib.suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
    assert json.loads((await in_thread(get, fake, "/still")).body)["path"] == "/still"  # type: ignore[attr-defined]


# --- Faults of connections --------------------------------------------------------------------------------


async def test_refuse_closes_before_an_answer(fake: FakeVenue) -> None:
    with fake.faults.refuse() as fault:
        with pytest.raises((OSError, http.client.HTTPException)):
            await in_thread(get, fake, "/x")
        with pytest.raises((OSError, InvalidMessage, EOFError, ConnectionClosed)):
            async with client(fake):
                pytest.fail("the handshake was refused")
    assert fault.hits == 2
    assert fake.seen.handshakes == 0
    async with client(fake):
        pass


async def test_refuse_can_be_an_http_status_and_count(fake: FakeVenue) -> None:
    fake.faults.refuse("/a", status=503, times=1)
    with pytest.raises(InvalidStatus) as caught:
        async with client(fake, "/a"):
            pytest.fail("the handshake was refused")
    assert caught.value.response.status_code == 503
    async with client(fake, "/b"), client(fake, "/a"):
        pass


async def test_refuse_one_path_without_an_answer(fake: FakeVenue) -> None:
    fake.faults.refuse("/a")
    with pytest.raises((OSError, http.client.HTTPException)):
        await in_thread(get, fake, "/a/x")
    assert (await in_thread(get, fake, "/b")).status == 200


async def test_hang_handshake_until_lifted(fake: FakeVenue) -> None:
    fault = fake.faults.hang_handshake()
    async with trio.open_nursery() as nursery:

        async def lift() -> None:
            await fake.wait_for(lambda: fault.hits == 1)
            await trio.testing.wait_all_tasks_blocked()
            assert fake.seen.sockets == 0
            fault.lift()

        nursery.start_soon(lift)
        async with client(fake) as ws:
            await say(ws, "late but here")
            assert await hear(ws) == "late but here"


async def test_cut_is_a_reset_and_keeps_others(fake: FakeVenue) -> None:
    reader = await trio.open_tcp_stream("127.0.0.1", fake.port or 0)
    async with client(fake, "/b") as other, reader:
        await reader.send_all(
            b"GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in await reader.receive_some()
        assert fake.faults.cut("/a") == 1
        with pytest.raises(trio.BrokenResourceError) as caught:
            await reader.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        await say(other, "alive")
        assert await hear(other) == "alive"


async def test_half_close_ends_our_half_only(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        await subscribed(ws, "x")
        fake.publish("x", {"last": True}, scope="a")
        assert fake.faults.half_close() == 1
        assert await hear(ws) == '{"last":true}'
        with pytest.raises(ConnectionClosedError) as caught:
            await hear(ws)
        assert caught.value.rcvd is None, "no close frame came"


async def test_close_brings_code_and_reason(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        fake.faults.close(code=1012, reason="service restart")
        with pytest.raises(ConnectionClosed) as caught:
            await hear(ws)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1012, "service restart")


async def test_garbage_breaks_the_protocol(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        fake.faults.garbage()
        with pytest.raises(ConnectionClosedError) as caught:
            await hear(ws)
    assert caught.value.sent is not None
    assert caught.value.sent.code == 1002


async def test_stall_keeps_everything_back(fake: FakeVenue) -> None:
    async with client(fake, "/a") as ws, client(fake, "/b") as other:
        await subscribed(ws, "x")
        fault = fake.faults.stall("/a")
        fake.publish("x", {"n": 1}, scope="a")
        await say(ws, "echo")
        await say(other, "echo")
        assert await hear(other) == "echo"
        assert await silent(ws)
        assert not ws.ping().wait(0.1)
        fault.lift()
        assert [await hear(ws), await hear(ws)] == ['{"n":1}', "echo"]


async def test_ping_flood_is_answered(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        assert fake.faults.ping_flood(500, payload=b"p") == 1
        await say(ws, "after")
        assert await hear(ws) == "after"
        await fake.wait_for(lambda: getattr(fake.sockets[0], "pong", None) == b"p")


async def test_a_message_nobody_expects_and_one_too_large(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        fake.faults.message("<html>maintenance</html>")
        assert await hear(ws) == "<html>maintenance</html>"
        fake.faults.oversized(2 << 20)
        with pytest.raises(ConnectionClosedError) as caught:
            await hear(ws)
    assert caught.value.sent is not None
    assert caught.value.sent.code == 1009


# --- Faults of messages -----------------------------------------------------------------------------------


async def published(fake: FakeVenue, ws: ClientConnection, count: int) -> list[int]:
    """Publish 1 to `count` on x, then an end mark behind them; return what came."""
    for n in range(1, count + 1):
        fake.publish("x", {"n": n}, scope="a")
    await say(ws, "end")
    got = []
    while (text := await hear(ws)) != "end":
        got.append(json.loads(text)["n"])
    return got


async def test_drop_duplicate_reorder(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        await subscribed(ws, "x")
        assert await published(fake, ws, 3) == [1, 2, 3]
        fake.faults.drop(1)
        assert await published(fake, ws, 3) == [2, 3]
        fake.faults.duplicate(2)
        assert await published(fake, ws, 3) == [1, 1, 2, 2, 3]
        fake.faults.reorder(1)
        assert await published(fake, ws, 3) == [2, 1, 3]
        fake.faults.drop(1, match=lambda stream, message: '"n":2' in str(message))
        assert await published(fake, ws, 3) == [1, 3]
        fake.faults.drop(None, match="y")
        assert await published(fake, ws, 2) == [1, 2]


async def test_silent_route_answers_and_never_sends(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        with fake.faults.silent_route("/a"):
            await subscribed(ws, "x")
            assert await published(fake, ws, 5) == []
        assert await published(fake, ws, 1) == [1]


async def test_acks_lost_and_late(fake: FakeVenue) -> None:
    async with client(fake) as ws:
        fake.faults.no_ack(times=1)
        await say(ws, "sub x")
        await fake.wait_subscribed("x")
        late = fake.faults.late_ack(times=1)
        await say(ws, "sub y")
        await fake.wait_subscribed("y")
        assert await published(fake, ws, 1) == [1], "data flows meanwhile"
        late.lift()
        assert json.loads(await hear(ws)) == {"ok": "sub y"}


@pytest.mark.parametrize("shape", ["split", "slow_drip", "fragment"])
async def test_messages_survive_any_shape(fake: FakeVenue, shape: str) -> None:
    async with client(fake) as ws:
        await subscribed(ws, "x")
        match shape:
            case "split":
                fake.faults.split(3)
            case "slow_drip":
                fake.faults.slow_drip(1, every_s=0.0005)
            case _:
                fake.faults.fragment(2)
        assert await published(fake, ws, 5) == [1, 2, 3, 4, 5]


async def test_slow_drip_takes_its_time(autojump_clock: trio.testing.MockClock) -> None:
    fake = Parrot()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fake.handle, theirs)
        request = Request(method="GET", path="/sse")
        fake.faults.slow_drip(1, every_s=1.0, where=lambda opened: opened.path == request.path)
        await ours.send_all(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n")
        await fake.wait_for(lambda: len(fake.sockets) == 1)
        assert b"200" in await ours.receive_some()
        fake.sockets[0].send("12345")
        began = trio.current_time()
        received = b""
        while not received.endswith(b"\n\n\r\n"):
            received += await ours.receive_some()
        assert trio.current_time() - began == pytest.approx(len(received) - 1)
        nursery.cancel_scope.cancel()


# --- Faults of requests -----------------------------------------------------------------------------------


async def test_rest_status_with_retry_after(fake: FakeVenue) -> None:
    fake.faults.rest_status(429, "/api", retry_after=7, body=b"slow down", times=1)
    refused = await in_thread(get, fake, "/api/x")
    assert (refused.status, refused.getheader("Retry-After")) == (429, "7")
    assert refused.body == b"slow down"  # type: ignore[attr-defined]
    assert (await in_thread(get, fake, "/api/x")).status == 200
    assert fake.seen.requests["/api/x"] == 2


async def test_a_late_reply_holds_what_was_true_when_asked(fake: FakeVenue) -> None:
    fault = fake.faults.late_reply("/depth")
    async with trio.open_nursery() as nursery:

        async def lift() -> None:
            await fake.wait_for(lambda: fault.hits == 1)
            assert (await in_thread(get, fake, "/other")).status == 200
            fault.lift()

        nursery.start_soon(lift)
        assert (await in_thread(get, fake, "/depth?symbol=X")).status == 200


async def test_answers_come_before_the_venue(fake: FakeVenue) -> None:
    async def answer(request: Request) -> Response | None:
        return Response(status=418) if request.path == "/tea" else None

    fake.answers.append(answer)
    assert (await in_thread(get, fake, "/tea")).status == 418
    assert (await in_thread(get, fake, "/x")).status == 200


async def test_clear_ends_all_faults(fake: FakeVenue) -> None:
    fake.faults.refuse()
    fake.faults.rest_status(500)
    fake.faults.late_reply()
    fake.faults.clear()
    assert (await in_thread(get, fake, "/x")).status == 200


# --- Limits, on the mock clock ----------------------------------------------------------------------------


async def raw_socket(
    fake: FakeVenue, nursery: trio.Nursery, path: str = "/a"
) -> trio.abc.HalfCloseableStream:
    """Open a WebSocket by hand, which answers no ping."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(fake.handle, theirs)
    await ours.send_all(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b"101" in await ours.receive_some()
    return ours


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


async def test_who_answers_no_ping_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    fake = Parrot()
    fake.ping_interval_s, fake.pong_within_s = 20.0, 60.0
    async with trio.open_nursery() as nursery:
        stream = await raw_socket(fake, nursery)
        pings = await everything(stream)
        assert trio.current_time() == pytest.approx(80)
        assert [byte for byte in pings if byte == 0x89] == [0x89] * 3
        nursery.cancel_scope.cancel()


async def test_a_pong_must_repeat_the_payload(autojump_clock: trio.testing.MockClock) -> None:
    fake = Parrot()
    fake.ping_interval_s, fake.pong_within_s = 20.0, 60.0
    async with trio.open_nursery() as nursery:
        stream = await raw_socket(fake, nursery)
        for _ in range(10):
            ping = bytes(await stream.receive_some())
            await stream.send_all(b"\x8a" + bytes((0x80 | ping[1],)) + b"\0\0\0\0" + ping[2:])
        assert trio.current_time() == pytest.approx(200)
        while await stream.receive_some():
            await stream.send_all(b"\x8a\x80\0\0\0\0")  # empty: no answer to this ping
        assert trio.current_time() == pytest.approx(280)
        nursery.cancel_scope.cancel()


async def test_a_connection_ends_at_its_age(autojump_clock: trio.testing.MockClock) -> None:
    fake = Parrot()
    fake.lifetime_s = 86_400.0
    async with trio.open_nursery() as nursery:
        stream = await raw_socket(fake, nursery)
        goodbye = await stream.receive_some()
        assert trio.current_time() == pytest.approx(86_400)
        assert bytes(goodbye)[:1] == b"\x88"
        assert await stream.receive_some() == b"", "who does not answer is cut"
        nursery.cancel_scope.cancel()


async def test_a_slow_reader_does_not_slow_the_venue(fake: FakeVenue) -> None:
    slow = socket.create_connection((str(fake.host), fake.port))
    try:
        slow.sendall(
            b"GET /slow HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with client(fake) as ws:
            await fake.wait_for(lambda: len(fake.sockets) == 2)
            reader = next(s for s in fake.sockets if s.path == "/slow")
            fake.subscribe(reader, ["x"])
            big = json.dumps("y" * (1 << 20))
            for _ in range(80):
                fake.publish("x", big, scope="slow")
            await fake.wait_for(lambda: len(fake.sockets) == 1)
            await say(ws, "well")
            assert await hear(ws) == "well"
    finally:
        slow.close()
