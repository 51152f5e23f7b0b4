"""The client library against a daemon that follows a script, faults and all."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio

from pricefeedd.client import (
    Bye,
    Conflated,
    Connected,
    Disconnected,
    EpochChanged,
    Feed,
    Missed,
    RefusedError,
    RequestError,
    Unserved,
    Update,
    connect,
)
from pricefeedd.client.keeper import WAITING
from pricefeedd.errors import ConnectionLostError, ServiceAwayError
from pricefeedd.events import BookSnapshot, Trade
from pricefeedd.wire import frame

TRADES = "trade:v:A"
QUOTES = "quote:v:A"
BOOK = "book:v:A"
TIMES = {"ts_event": None, "ts_recv": 1, "origin": "live"}
QUICK: dict[str, Any] = {"first_delay_s": 0.01, "max_delay_s": 0.05}


def trade(seq: int, *, topic: str = TRADES, price: Any = "1", pad: str = "") -> dict[str, Any]:
    data = {"id": f"{seq}{pad}", "price": price, "size": price, "side": None}
    return {"type": "trade", "topic": topic, "seq": seq, **TIMES, "data": data}


def book(seq: int, bids: Any = (), asks: Any = (), *, kind: str = "delta", **extra: Any) -> dict[str, Any]:
    data = {"kind": kind, "bids": bids, "asks": asks, "venue_sequence": None}
    return {"type": "book", "topic": BOOK, "seq": seq, **TIMES, "data": data, **extra}


def gap(first: int, last: int | None, seq: int, reason: str, *, topic: str = TRADES) -> dict[str, Any]:
    data = {"reason": reason, "from_seq": first, "to_seq": last, "recovered": 0, "missing": None}
    return {"type": "gap", "topic": topic, "seq": seq, "data": data}


class Peer:
    """One connection as the daemon sees it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.path = ""
        self.key = ""
        self._data = bytearray()
        self._sending = trio.Lock()

    async def open(self) -> None:
        """Answer the handshake."""
        while b"\r\n\r\n" not in self._data:
            await self._more()
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self._data[:] = rest
        lines = head.decode().split("\r\n")
        self.path = lines[0].split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.key = headers.get("x-api-key", "")
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + guid).encode()).digest())
        await self.stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    async def welcome(self, epoch: str = "e1", *, heartbeat_s: float = 15.0, **limits: Any) -> None:
        """Begin as a daemon does."""
        limits = {"message_bytes": 65_536, "requests_per_s": 50.0, "burst": 500, **limits}
        await self.send(
            {
                "type": "welcome",
                "protocol": 1,
                "session": "s",
                "epoch": epoch,
                "heartbeat_s": heartbeat_s,
                "limits": limits,
            }
        )

    async def send(self, *messages: Any) -> None:
        """Send messages, each as one frame."""
        data = b"".join(frame(json.dumps(message).encode()) for message in messages)
        async with self._sending:
            await self.stream.send_all(data)

    async def receive(self) -> dict[str, Any]:
        """Return the next request.

        Raises:
            EOFError: The client left.
        """
        while True:
            data = self._data
            if len(data) >= 6:
                start = 2 + {126: 2, 127: 8}.get(data[1] & 127, 0)
                size = int.from_bytes(data[2:start]) if start > 2 else data[1] & 127
                if len(data) >= start + 4 + size:
                    mask = data[start : start + 4]
                    payload = bytes(b ^ mask[i % 4] for i, b in enumerate(data[start + 4 : start + 4 + size]))
                    opcode = data[0] & 15
                    del data[: start + 4 + size]
                    if opcode == 8:
                        await self.stream.send_all(b"\x88\x02\x03\xe8")
                        raise EOFError
                    if opcode == 1:
                        request: dict[str, Any] = json.loads(payload)
                        request["bytes"] = len(payload)
                        return request
                    continue
            await self._more()

    async def _more(self) -> None:
        data = await self.stream.receive_some(65_536)
        if not data:
            raise EOFError
        self._data += data

    async def expect(self, op: str) -> dict[str, Any]:
        """Return the next request, which must be of this kind."""
        request = await self.receive()
        assert request["op"] == op, request
        return request

    async def ack(self, request: dict[str, Any], **fields: Any) -> None:
        """Say yes to a request."""
        results = [{"topic": topic, "ok": True, "matched": 1} for topic in request.get("topics", ())]
        await self.send(
            {"type": "ack", "id": request["id"], "op": request["op"], "results": results, **fields}
        )

    async def grant(self, op: str = "subscribe") -> dict[str, Any]:
        """Take a request and say yes."""
        request = await self.expect(op)
        await self.ack(request)
        return request

    def cut(self) -> None:
        """End the connection without a word, and lose what is on its way."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def stay(self) -> None:
        """Answer nothing until the client leaves."""
        while True:
            await self.receive()


Script = Callable[[Peer], Awaitable[None]]


class Daemon:
    """Plays one script for each connection; after the last one nobody is let in.

    Attributes:
        opened: Connections so far.
    """

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.opened = 0
        self.url = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        self.opened += 1
        script = self.scripts[self.opened - 1] if self.opened <= len(self.scripts) else None
        if script is not None:
            try:
                await peer.open()
                await script(peer)
            except* (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass


@pytest.fixture
async def daemon(nursery: trio.Nursery) -> Daemon:
    made = Daemon()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    made.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"
    nursery.start_soon(trio.serve_listeners, made.handle, listeners)
    return made


async def take(feed: Feed, count: int) -> list[Update]:
    """Return the next updates."""
    with trio.fail_after(5):
        return [await anext(feed) for _ in range(count)]


def seqs(updates: Sequence[Update]) -> list[int]:
    return [update.seq for update in updates]


# --- one connection -----------------------------------------------------------------------------------------


async def test_updates_are_typed(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        assert (peer.path, peer.key) == ("/ws", "secret")
        await peer.welcome()
        await peer.send({"type": "younger", "x": 1})  # what it does not know it ignores
        request = await peer.expect("subscribe")
        assert {k: v for k, v in request.items() if k not in ("id", "op", "bytes")} == {
            "topics": [TRADES],
            "snapshot": False,
            "every_ms": 100,
        }
        await peer.ack(request)
        await peer.send(
            trade(4),
            {"type": "conflated", "topic": QUOTES, "seq": 9, "data": {"dropped": 3}},
            gap(5, 6, 6, "slow reader"),
            {"type": "younger", "topic": "younger:v:A", "seq": 1, "data": {}},
        )
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url, api_key="secret") as feed:
        assert feed.welcome["epoch"] == "e1"
        assert await feed.subscribe([TRADES], snapshot=False, every_ms=100) == [
            {"topic": TRADES, "ok": True, "matched": 1}
        ]
        first, conflated, missed, younger = await take(feed, 4)
    assert isinstance(first.event, Trade)
    assert json.loads(first.text) == first.message == trade(4)
    assert isinstance(conflated, Conflated)
    assert (conflated.topic, conflated.dropped, conflated.event) == (QUOTES, 3, None)
    assert isinstance(missed, Missed)
    assert (missed.topic, missed.from_seq, missed.to_seq, missed.reason) == (TRADES, 5, 6, "slow reader")
    assert (younger.topic, younger.event) == ("younger:v:A", None)


async def test_frames_may_hold_many_messages_and_numbers(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        assert peer.path == "/ws?x=1&numbers=float&batch_ms=50"
        await peer.welcome()
        await peer.grant()
        await peer.send([trade(1, price=1.5), trade(2, price=2)], [book(1, [[9.5, 1.0]], kind="snapshot")])
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url + "?x=1", numbers="float", batch_ms=50) as feed:
        await feed.subscribe([TRADES, BOOK])
        first, second, _ = await take(feed, 3)
        found = feed.book(BOOK)
        assert found is not None
        assert found.bids.best() == 9.5
    assert isinstance(first.event, Trade)
    assert first.event.price == 1.5
    assert json.loads(second.text)["seq"] == 2


async def test_every_op_has_a_method(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.expect("get")
        missing = {"code": "unknown_venue", "message": "no such venue"}
        results = [
            {"topic": TRADES, "ok": True, "matched": 1, "messages": [trade(4)]},
            {"topic": "trade:x:A", "ok": False, "error": missing},
        ]
        await peer.ack(request, results=results)
        request = await peer.expect("history")
        assert (request["limit"], request["from_seq"], request["to_seq"]) == (2, 3, 9)
        messages = [trade(8), trade(9)]
        await peer.ack(
            request, results=[{"topic": TRADES, "ok": True, "messages": messages, "complete": False}]
        )
        request = await peer.expect("instruments")
        assert (request["venue"], "market" in request) == ("v", False)
        await peer.ack(request, results=[{"instrument": "A"}])
        await peer.ack(await peer.expect("status"), result={"topics": 3})
        request = await peer.expect("ping")
        await peer.send({"type": "pong", "id": request["id"], "ts": 1})
        await peer.grant("unsubscribe")
        request = await peer.expect("nonsense")
        error = {"code": "unknown_op", "message": "unknown op 'nonsense'"}
        await peer.send({"type": "error", "id": request["id"], "op": "nonsense", "error": error})
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url) as feed:
        got, wrong = await feed.get([TRADES, "trade:x:A"])
        assert (seqs(got.updates), got.error) == ([4], "")
        assert (wrong.updates, wrong.code, wrong.error) == ((), "unknown_venue", "no such venue")
        (past,) = await feed.history([TRADES], limit=2, from_seq=3, to_seq=9)
        assert (seqs(past.updates), past.complete) == ([8, 9], False)
        assert await feed.instruments(venue="v") == [{"instrument": "A"}]
        assert await feed.status() == {"topics": 3}
        assert 0 < await feed.ping() < 5
        assert (await feed.unsubscribe([TRADES]))[0]["ok"]
        with pytest.raises(RequestError, match="unknown op 'nonsense'") as caught:
            await feed.request("nonsense")
        assert caught.value.code == "unknown_op"


async def test_an_answer_that_never_comes(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.expect("ping")
        await peer.grant()
        await peer.send(trade(1))
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url, answer_s=0.2) as feed:
        with pytest.raises(RequestError, match=r"ping: no answer from the daemon within 0\.2 s") as caught:
            await feed.ping()
        assert caught.value.code == "no_answer"
        # Only that request failed.
        await feed.subscribe([TRADES])
        assert seqs(await take(feed, 1)) == [1]


async def test_a_request_that_is_too_long_is_not_sent(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome(message_bytes=1_000)
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url) as feed:
        with pytest.raises(RequestError, match="at most 1000 bytes"):
            await feed.request("ping", data="x" * 2_000)


async def test_who_does_not_iterate_holds_the_daemon_back_and_is_still_answered(daemon: Daemon) -> None:
    total = 30_000
    sent = 0
    answered = trio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.welcome()
        await peer.grant()
        async with trio.open_nursery() as sending:

            async def flood() -> None:
                nonlocal sent
                while sent < total:
                    await peer.send(trade(sent + 1, pad="x" * 1_000))
                    sent += 1

            sending.start_soon(flood)
            request = await peer.expect("ping")
            # It stands in the stream behind what was sent.
            await peer.send({"type": "pong", "id": request["id"], "ts": 1})
            answered.set()

    daemon.scripts = [script]
    async with connect(daemon.url) as feed:
        await feed.subscribe([TRADES])
        before = -1
        while before != sent:  # until the sockets are full
            before = sent
            await trio.sleep(0.3)
        assert sent < total
        assert feed.waiting == WAITING
        assert await feed.ping() < 5
        assert answered.is_set()
        waiting = feed.waiting
        assert WAITING < waiting < total
        assert seqs(await take(feed, waiting)) == list(range(1, waiting + 1))


# --- the first connection -----------------------------------------------------------------------------------


async def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}/ws"
        with pytest.raises(ServiceAwayError, match=f"no pricefeedd answers at {url}"):
            async with connect(url):
                pass


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed instead of answered"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!", "HTTP 404"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HTTP 403"),
        (b"220 smtp.example.com ESMTP\r\n", "."),
    ],
)
async def test_something_else_there(nursery: trio.Nursery, answer: bytes, words: str) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some(10_000)
        if answer:
            await stream.send_all(answer)

    listeners = await nursery.start(trio.serve_tcp, handle, 0)
    url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/ws"
    with trio.fail_after(3), pytest.raises(ServiceAwayError, match=words):
        async with connect(url):
            pass


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:1/ws", "ws://", "ws://127.0.0.1:99999/ws"])
async def test_no_address(url: str) -> None:
    with pytest.raises(ServiceAwayError, match="no pricefeedd answers at"):
        async with connect(url):
            pass


@pytest.mark.parametrize("first", [{"type": "hello"}, {"type": "welcome"}, [1], "x", {"type": "bye"}])
async def test_another_protocol_there(daemon: Daemon, first: Any) -> None:
    daemon.scripts = [lambda peer: peer.send(first)]
    with pytest.raises(ServiceAwayError, match="not a pricefeedd"):
        async with connect(daemon.url):
            pass


async def test_a_daemon_that_does_not_want_us(daemon: Daemon) -> None:
    bye = {"type": "bye", "code": 4501, "reason": "a key is needed", "retry_after_ms": None}
    daemon.scripts = [lambda peer: peer.send(bye)]
    with pytest.raises(RefusedError, match="4501 a key is needed") as caught:
        async with connect(daemon.url, wait=True):
            pass
    assert caught.value.code == 4501


async def test_waiting_for_a_daemon_to_come(daemon: Daemon) -> None:
    async def leave(peer: Peer) -> None:
        pass

    daemon.scripts = [leave, leave, lambda peer: peer.welcome()]
    with trio.fail_after(5):
        async with connect(daemon.url, wait=True, **QUICK) as feed:
            assert feed.welcome["epoch"] == "e1"
    assert daemon.opened == 3


async def test_errors_of_the_caller_come_out_as_they_are(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.stay()

    daemon.scripts = [script]
    with pytest.raises(KeyError, match="mine"):
        async with connect(daemon.url):
            raise KeyError("mine")


# --- reconnecting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("within_a_frame", [False, True])
async def test_a_cut_is_healed_from_where_it_stood(daemon: Daemon, within_a_frame: bool) -> None:
    async def cut(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(trade(7), trade(8))
        await peer.send({"type": "pong", "id": None})
        if within_a_frame:
            await peer.stream.send_all(frame(json.dumps(trade(9)).encode())[:40])
        assert (await peer.expect("ping"))["id"]  # what was sent before is read by now
        peer.cut()

    async def resume(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.grant()
        assert request["topics"] == [TRADES]
        assert request["since"] == {"epoch": "e1", "seq": {TRADES: 8}}
        await peer.send(trade(8), trade(9), trade(10))
        request = await peer.expect("ping")
        await peer.send({"type": "pong", "id": request["id"], "ts": 1})
        await peer.stay()

    daemon.scripts = [cut, resume]
    async with connect(daemon.url, **QUICK) as feed:
        await feed.subscribe([TRADES])
        assert seqs(await take(feed, 2)) == [7, 8]
        assert await feed.ping() < 5  # asked again on the new connection
        lost, back, *rest = await take(feed, 4)
        assert isinstance(lost, Disconnected)
        assert "cut" in lost.reason
        assert isinstance(back, Connected)
        assert back.welcome == feed.welcome
        assert seqs(rest) == [9, 10]


async def test_another_epoch_is_told(daemon: Daemon) -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(trade(70))
        await peer.expect("ping")
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.welcome("e2")
        request = await peer.expect("subscribe")
        assert request["since"] == {"epoch": "e1", "seq": {TRADES: 70}}
        await peer.send(gap(71, None, 2, "the epoch changed"))
        await peer.ack(request, epoch="e2", epoch_changed=True)
        await peer.send(trade(2), trade(3))
        await peer.expect("ping")
        peer.cut()

    async def third(peer: Peer) -> None:
        await peer.welcome("e2")
        assert (await peer.grant())["since"] == {"epoch": "e2", "seq": {TRADES: 3}}
        await peer.send(trade(4))
        await peer.stay()

    daemon.scripts = [first, second, third]
    async with connect(daemon.url, answer_s=0.5, **QUICK) as feed:
        await feed.subscribe([TRADES])
        with pytest.raises(RequestError):
            await feed.ping()
        updates = await take(feed, 9)
        assert seqs(updates) == [70, 0, 0, 0, 2, 2, 3, 0, 0]
        assert [type(update) for update in updates[1:5]] == [Disconnected, Connected, EpochChanged, Missed]
        changed, missed = updates[3:5]
        assert isinstance(changed, EpochChanged)
        assert (changed.before, changed.now) == ("e1", "e2")
        assert isinstance(missed, Missed)
        assert (missed.from_seq, missed.to_seq, missed.missing) == (71, None, None)
        assert seqs(await take(feed, 1)) == [4]


async def test_a_daemon_that_stops_is_waited_for(daemon: Daemon) -> None:
    bye = {"type": "bye", "code": 4001, "reason": "shutting down", "retry_after_ms": 300}

    async def stop(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(bye)

    async def back(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(trade(1))
        await peer.stay()

    daemon.scripts = [stop, back]
    async with connect(daemon.url, **QUICK) as feed:
        await feed.subscribe([TRADES])
        began = trio.current_time()
        said, lost, _, first = await take(feed, 4)
        assert trio.current_time() - began >= 0.3
    assert isinstance(said, Bye)
    assert (said.code, said.reason, said.retry_after_ms) == (4001, "shutting down", 300)
    assert isinstance(lost, Disconnected)
    assert (lost.code, lost.reason) == (4001, "the daemon closed the connection: 4001 shutting down")
    assert lost.retry_s >= 0.3
    assert first.seq == 1


@pytest.mark.parametrize("with_bye", [True, False])
async def test_a_daemon_that_refuses_is_left_alone(daemon: Daemon, with_bye: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        if with_bye:
            await peer.send({"type": "bye", "code": 4504, "reason": "too many", "retry_after_ms": None})
        else:
            reason = (4504).to_bytes(2) + b"too many"
            await peer.stream.send_all(bytes([0x88, len(reason)]) + reason)
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url, **QUICK) as feed:
        await feed.subscribe([TRADES])
        with trio.fail_after(3), pytest.raises(RefusedError, match="for good: 4504 too many"):
            async for _ in feed:
                pass
        with pytest.raises(RefusedError):
            await feed.ping()
    assert daemon.opened == 1


async def test_without_reconnecting_the_end_is_an_error(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(trade(1))
        await peer.expect("ping")
        peer.cut()

    daemon.scripts = [script]
    async with connect(daemon.url, reconnect=False) as feed:
        await feed.subscribe([TRADES])
        with pytest.raises(ConnectionLostError, match="cut"):
            await feed.ping()
        assert seqs(await take(feed, 1)) == [1]
        with pytest.raises(ConnectionLostError, match="cut"):
            await anext(feed)


async def test_a_connection_that_brings_nothing_is_made_again(daemon: Daemon) -> None:
    async def stall(peer: Peer) -> None:
        await peer.welcome(heartbeat_s=0.1)
        await peer.grant()
        await peer.stay()

    async def beat(peer: Peer) -> None:
        await peer.welcome(heartbeat_s=0.1)
        await peer.grant()
        for _ in range(8):
            await trio.sleep(0.1)
            await peer.send({"type": "heartbeat", "ts": 1, "seq": {}})
        await peer.send(trade(1))
        await peer.stay()

    daemon.scripts = [stall, beat]
    async with connect(daemon.url, **QUICK) as feed:
        await feed.subscribe([TRADES])
        lost, _, first = await take(feed, 3)
        assert isinstance(lost, Disconnected)
        assert "nothing came from the daemon for 0.25 s" in lost.reason
        assert first.seq == 1
    assert daemon.opened == 2


@pytest.mark.parametrize("nonsense", ["no json", '{"type":"trade"', "17", '{"x":1}', '[{"type":"ack"},3]'])
async def test_nonsense_from_the_daemon_ends_the_connection(daemon: Daemon, nonsense: str) -> None:
    async def speak(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.stream.send_all(frame(nonsense.encode()))
        await peer.stay()

    async def back(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(trade(1))
        await peer.stay()

    daemon.scripts = [speak, back]
    async with connect(daemon.url, **QUICK) as feed:
        await feed.subscribe([TRADES])
        lost, _, first = await take(feed, 3)
        assert isinstance(lost, Disconnected)
        assert "not of its protocol" in lost.reason
        assert first.seq == 1


async def test_an_answer_that_never_comes_after_a_reconnect(daemon: Daemon) -> None:
    async def cut(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()

    async def silent(peer: Peer) -> None:
        await peer.welcome()
        await peer.expect("subscribe")
        await peer.stay()

    async def back(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.expect("subscribe")
        error = {"code": "unknown_instrument", "message": "unknown instrument 'A'"}
        await peer.ack(request, results=[{"topic": TRADES, "ok": False, "error": error}])
        await peer.stay()

    daemon.scripts = [cut, silent, back]
    async with connect(daemon.url, answer_s=0.2, **QUICK) as feed:
        await feed.subscribe([TRADES])
        updates = await take(feed, 5)
        assert [type(u) for u in updates] == [Disconnected, Connected, Disconnected, Connected, Unserved]
        assert isinstance(updates[2], Disconnected)
        assert "no answer" in updates[2].reason
        refused = updates[4]
        assert isinstance(refused, Unserved)
        assert (refused.topic, refused.code) == (TRADES, "unknown_instrument")


async def test_many_topics_come_back_in_messages_that_fit(daemon: Daemon) -> None:
    topics = [f"trade:v:COIN{number}-USDT" for number in range(1_500)]
    limits: dict[str, Any] = {"message_bytes": 4_096, "requests_per_s": 10_000.0, "burst": 1_000}
    told: dict[str, int] = {}

    async def grant_all(peer: Peer) -> None:
        held = 0
        while held < len(topics):
            request = await peer.grant()
            assert request["bytes"] <= 4_096
            held += len(request["topics"])
            told.update(request.get("since", {}).get("seq", {}))

    async def first(peer: Peer) -> None:
        await peer.welcome(**limits)
        await grant_all(peer)
        await peer.send(*(trade(5, topic=topic) for topic in topics))
        await peer.expect("ping")
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.welcome(**limits)
        await grant_all(peer)
        await peer.send(trade(6, topic=topics[-1]))
        request = await peer.expect("ping")
        await peer.send({"type": "pong", "id": request["id"], "ts": 1})
        await peer.stay()

    daemon.scripts = [first, second]
    async with connect(daemon.url, **QUICK) as feed:
        results = await feed.subscribe(topics)
        assert [result["topic"] for result in results] == topics
        assert len(await take(feed, 1_500)) == 1_500
        assert await feed.ping() < 5
        assert (await take(feed, 3))[-1].topic == topics[-1]
        assert told == dict.fromkeys(topics, 5)


async def test_what_was_unsubscribed_stays_so(daemon: Daemon) -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.expect("subscribe")
        # The daemon tells its own name for what was asked by the venue's symbol.
        results = [
            {"topic": "trade:v:a", "ok": True, "as": TRADES, "matched": 1},
            {"topic": QUOTES, "ok": True, "matched": 1},
            {"topic": "trade:v:B", "ok": False, "error": {"code": "unknown_instrument", "message": "B?"}},
        ]
        await peer.ack(request, results=results)
        await peer.grant("unsubscribe")
        await peer.expect("ping")
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        assert (await peer.grant())["topics"] == [TRADES]
        request = await peer.expect("ping")
        await peer.send({"type": "pong", "id": request["id"]})
        await peer.stay()

    daemon.scripts = [first, second]
    async with connect(daemon.url, **QUICK) as feed:
        await feed.subscribe(["trade:v:a", QUOTES, "trade:v:B"])
        await feed.unsubscribe([QUOTES])
        assert await feed.ping() < 5


async def test_going_on_from_an_earlier_process(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.grant()
        assert request["since"] == {"epoch": "e1", "seq": {TRADES: 41}}
        await peer.send(trade(41), trade(42), trade(44))
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url) as feed:
        await feed.subscribe([TRADES], since={"epoch": "e1", "seq": {TRADES: 41}})
        first, missed, second = await take(feed, 3)
        assert (first.seq, second.seq) == (42, 44)
        assert isinstance(missed, Missed)
        assert (missed.from_seq, missed.to_seq) == (43, 43)


# --- numbers and books --------------------------------------------------------------------------------------


async def test_a_jump_that_nobody_announced(daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(trade(7), trade(7), trade(10), {"type": "heartbeat", "ts": 1, "seq": {TRADES: 12}})
        await peer.send({"type": "heartbeat", "ts": 1, "seq": {TRADES: 12}})
        await peer.stay()

    daemon.scripts = [script]
    async with connect(daemon.url) as feed:
        await feed.subscribe([TRADES])
        first, jump, second, tail = await take(feed, 4)
        assert (first.seq, second.seq) == (7, 10)
        assert isinstance(jump, Missed)
        assert (jump.from_seq, jump.to_seq, jump.missing, jump.text) == (8, 9, 2, "")
        assert isinstance(tail, Missed)
        assert (tail.from_seq, tail.to_seq) == (11, 12)


async def test_a_book_is_believed_while_it_is_right(daemon: Daemon) -> None:
    go_on = trio.Event()

    async def first(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(book(4, [["9", "1"]], [["10", "1"]], kind="snapshot"), book(5, [["9.5", "1"]]))
        await go_on.wait()
        await peer.send(book(7, [["9.6", "1"]]))
        request = await peer.expect("get")
        assert request["topics"] == [BOOK]
        messages = [book(7, [["9.6", "2"]], [["10", "2"]], kind="snapshot")]
        result = {"topic": BOOK, "ok": True, "matched": 1, "messages": messages}
        await peer.ack(request, results=[result])
        await peer.send(book(8, [], [["10", "0"], ["11", "1"]]))
        await peer.expect("ping")
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        request = await peer.grant()
        assert request["since"]["seq"] == {BOOK: 8}
        request = await peer.expect("ping")
        await peer.send({"type": "pong", "id": request["id"]})
        await peer.expect("ping")
        await peer.send(book(20, [["1", "1"]], [["2", "1"]], kind="snapshot"))
        await peer.stay()

    daemon.scripts = [first, second]

    def best() -> tuple[float | None, float | None] | None:
        found = feed.book(BOOK)
        return None if found is None else (found.bids.best(), found.asks.best())

    async with connect(daemon.url, answer_s=0.3, **QUICK) as feed:
        assert best() is None
        await feed.subscribe([BOOK])
        await take(feed, 2)
        assert best() == (9.5, 10.0)
        go_on.set()
        missed, delta, snapshot, _ = await take(feed, 4)
        assert isinstance(missed, Missed)
        assert delta.seq == 7
        assert isinstance(snapshot.event, BookSnapshot)
        assert best() == (9.6, 11.0)
        await feed.ping()
        assert feed.connected
        assert best() is None
        with pytest.raises(RequestError):
            await feed.ping()
        await take(feed, 3)
        assert best() == (1.0, 2.0)


async def test_a_thinned_out_book_that_lost_something_begins_anew(daemon: Daemon) -> None:
    async def first(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(book(4, [["9", "1"]], kind="snapshot"), book(9, [["8", "1"]], prev_seq=4))
        await peer.send(book(20, [["7", "1"]], prev_seq=15))
        await peer.stay()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        assert (await peer.grant())["depth"] == 5
        await peer.send(book(30, [["3", "1"]], kind="snapshot"))
        await peer.stay()

    daemon.scripts = [first, second]
    async with connect(daemon.url, **QUICK) as feed:
        await feed.subscribe([BOOK], depth=5)
        updates = await take(feed, 7)
        assert [type(u) for u in updates] == [Update, Update, Missed, Update, Disconnected, Connected, Update]
        found = feed.book(BOOK)
        assert found is not None
        assert found.bids.best() == 3.0


# --- the command --------------------------------------------------------------------------------------------


async def trades_then_cut(peer: Peer) -> None:
    await peer.welcome()
    await peer.grant()
    await peer.send(trade(7), trade(9))
    await trio.sleep(0.1)


async def go_on(peer: Peer) -> None:
    await peer.welcome("e2")
    request = await peer.expect("subscribe")
    await peer.send(gap(10, None, 3, "the epoch changed"))
    await peer.ack(request)
    await peer.send(trade(3), trade(4))
    await peer.stay()


async def test_the_command_goes_on_after_a_cut(cli: Any, daemon: Daemon) -> None:
    daemon.scripts = [trades_then_cut, go_on]
    ended = await cli.run("client", daemon.url, TRADES, "--limit", "4")
    assert ended.code == 0
    assert [line.split(" ")[:2] for line in ended.lines] == [[TRADES, f"#{seq}"] for seq in (7, 9, 3, 4)]
    told = ended.err.splitlines()
    assert told[0] == f"{TRADES}: missed from 8 to 8: the numbers jumped"
    assert re.fullmatch(r"the connection with the daemon was cut; next try in \d\.\d s", told[1])
    assert told[2:] == [
        "connected again",
        "the daemon began anew: numbers start again (epoch e2)",
        f"{TRADES}: missed from 10: the epoch changed",
    ]


async def test_the_command_in_json_keeps_to_what_the_daemon_said(cli: Any, daemon: Daemon) -> None:
    daemon.scripts = [trades_then_cut, go_on]
    ended = await cli.run("client", daemon.url, TRADES, "--limit", "4", "--json")
    assert ended.code == 0
    assert [(message["type"], message["seq"]) for message in ended.json()] == [
        ("trade", 7),
        ("trade", 9),
        ("gap", 3),
        ("trade", 3),
        ("trade", 4),
    ]


async def test_the_command_ends_with_the_connection_if_told_so(cli: Any, daemon: Daemon) -> None:
    daemon.scripts = [trades_then_cut]
    ended = await cli.run("client", daemon.url, TRADES, "--once")
    assert ended.code == 69
    assert ended.err.splitlines()[-1] == "the connection with the daemon was cut"


async def test_the_command_asks_for_less_and_for_the_past(cli: Any, daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        assert peer.key == "secret"
        await peer.welcome()
        request = await peer.expect("history")
        assert request["limit"] == 2
        messages = [trade(6), trade(7)]
        await peer.ack(request, results=[{"topic": TRADES, "ok": True, "messages": messages}])
        request = await peer.grant()
        assert (request["every_ms"], request["depth"]) == (500, 3)
        assert request["since"] == {"epoch": "e1", "seq": {TRADES: 7}}
        await peer.send(trade(7), trade(8))
        await peer.stay()

    daemon.scripts = [script]
    less = ("--every-ms", "500", "--depth", "3", "--history", "2", "--api-key", "secret")
    ended = await cli.run("client", daemon.url, TRADES, *less, "--limit", "1")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split(" ")[1] for line in ended.lines] == ["#6", "#7", "#8"]


async def test_a_refusal_is_a_sentence(cli: Any, daemon: Daemon) -> None:
    bye = {"type": "bye", "code": 4501, "reason": "a key is needed", "retry_after_ms": None}
    daemon.scripts = [lambda peer: peer.send(bye)]
    ended = await cli.run("client", daemon.url, TRADES)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "the daemon closed the connection for good: 4501 a key is needed\n"


async def test_a_table_without_a_terminal(cli: Any, daemon: Daemon) -> None:
    async def script(peer: Peer) -> None:
        await peer.welcome()
        assert "every_ms" not in await peer.grant()
        stale = {
            "type": "status",
            "topic": TRADES,
            "seq": 2,
            **TIMES,
            "data": {"state": "stale", "reason": "x"},
        }
        await peer.send(book(1, [["9", "1"]], [["10", "1"]], kind="snapshot"))
        await peer.send(trade(1, price="5"), stale, trade(3, price="6"), trade(5, price="4.5"))
        await peer.stay()

    daemon.scripts = [script]
    ended = await cli.run("client", daemon.url, "*:v:A", "--table", "--limit", "4")
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split("\t") for line in ended.lines]
    assert rows[0] == ["topic", "state", "last", "", "age", "rate/s", "seq", "gaps"]
    assert [[*row[:4], *row[6:]] for row in rows[1:]] == [
        [BOOK, "live", "9 / 10", "", "1", "0"],
        [TRADES, "stale", "4.5", "▼", "5", "1"],
    ]
    endless = await cli.run("client", daemon.url, "*:v:A", "--table")
    assert endless.code == 2
    assert "--table needs a terminal" in endless.err
    both = await cli.run("client", daemon.url, "*:v:A", "--table", "--json", "--limit", "1")
    assert both.code == 2


async def test_a_table_on_a_terminal(cli: Any, daemon: Daemon) -> None:
    gone = trio.Event()

    async def first(peer: Peer) -> None:
        await peer.welcome()
        assert (await peer.grant())["every_ms"] == 250
        await peer.send(trade(1, price="5"), trade(2, price="5.25"))
        await gone.wait()

    async def second(peer: Peer) -> None:
        await peer.welcome()
        await peer.grant()
        await peer.send(trade(3, price="77.5"))
        await peer.stay()

    async def nobody(peer: Peer) -> None:
        await trio.sleep(0.3)

    daemon.scripts = [first, nobody, second]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pricefeedd.cli", "client", daemon.url, TRADES, "--table"]
    environ = {**cli.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "20"}
    process = await trio.lowlevel.open_process(
        command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environ, cwd=cli.folder
    )
    os.close(theirs)
    shown = ""

    async def until(text: str) -> None:
        nonlocal shown
        with trio.fail_after(20):
            while text not in shown:
                data = await trio.to_thread.run_sync(partial(os.read, ours, 65_536), abandon_on_cancel=True)
                shown += data.decode("utf-8", "replace")
        shown = shown[shown.index(text) :]

    try:
        await until("5.25")
        await until("▲")
        await until(daemon.url)
        gone.set()
        await until("away")
        await until("gone: the connection with the daemon was cut; next try in")
        await until("77.5")
        await until(daemon.url)
        process.send_signal(signal.SIGINT)
        with trio.fail_after(10):
            assert await process.wait() == 130
        assert process.stderr is not None
        assert (await process.stderr.receive_some()).strip() == b""
    finally:
        process.kill()
        os.close(ours)
