"""Server-Sent Events, read off the socket by an independent client."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
import trio.lowlevel

from pricefeedd.events import State
from pricefeedd.web.daemon import Limits

STREAM = "/api/v1/stream"


class Events:
    """The events of a stream as `EventSource` would tell them, and comments too; read in a thread."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response

    async def next(self) -> tuple[str, Any]:
        return await trio.to_thread.run_sync(self._next)

    def _next(self) -> tuple[str, Any]:
        kind, data = "", ""
        while line := self._response.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and data:
                return kind, json.loads(data)
            if line != "\n" and not name:
                return "comment", value
            kind = value if name == "event" else kind
            data = value if name == "data" else data
        return "end", None

    async def until(self, *kinds: str) -> Any:
        while True:
            kind, data = await self.next()
            if kind in kinds:
                return data
            assert kind != "end"


@asynccontextmanager
async def opened(url: str, **headers: str) -> AsyncIterator[Events]:
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=10)) as connection:

        def ask() -> HTTPResponse:
            connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
            return connection.getresponse()

        with await trio.to_thread.run_sync(ask) as response:
            if response.status == 200:
                assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            yield Events(response)


async def test_a_stream_begins_with_an_ack_and_the_present_state(start_web: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    web.daemon.trade(2)

    async with opened(f"{web.http}{STREAM}?topics=trade:binance:btc-usdt,trade:binance:BTC-USDC") as events:
        kind, ack = await events.next()
        assert kind == "ack"
        assert ack["epoch"] == "epoch1"
        good, bad = ack["results"]
        assert (good["as"], good["matched"]) == ("trade:binance:BTC-USDT", 1)
        assert bad["error"]["code"] == "unknown_instrument"
        assert (await events.next())[1]["seq"] == 2
        web.daemon.trade(1)
        web.daemon.status(State.STALE)
        told = [await events.next(), await events.next()]
        assert [(kind, message["type"], message["seq"]) for kind, message in told] == [
            ("trade", "trade", 3),
            ("status", "status", 4),
        ]


async def test_options_are_those_of_subscribe(start_web: Any) -> None:
    web = await start_web()
    web.daemon.trade(1)
    url = f"{web.http}{STREAM}?topics=trade:*:*&topics=quote:*:*&snapshot=false&every_ms=50"

    async with opened(url) as events:
        await events.until("ack")
        for bid in ("1", "2", "3"):
            web.daemon.quote(bid)
        first = (await events.next())[1]
        second = first if first["seq"] == 3 else (await events.next())[1]

    assert second["data"]["bid_price"] == "3"


@pytest.mark.parametrize(
    ("query", "status", "code", "parameter"),
    [
        ("", 400, "BAD_REQUEST", "topics"),
        ("?topics=", 400, "BAD_REQUEST", "topics"),
        ("?topics=nonsense", 400, "BAD_REQUEST", "topics"),
        ("?topics=trade:*:*&snapshot=yes", 400, "BAD_REQUEST", "snapshot"),
        ("?topics=trade:*:*&every_ms=5", 400, "BAD_REQUEST", "every_ms"),
        ("?topic=trade:*:*", 400, "BAD_REQUEST", "topic"),
        ("?topics=trade:binanse:BTC-USDT", 404, "UNKNOWN_VENUE", "topics"),
        ("?topics=trad:binance:BTC-USDT", 404, "UNKNOWN_CHANNEL", "topics"),
        ("?topics=order:bybit:main", 403, "FORBIDDEN", "topics"),
    ],
)
async def test_what_cannot_be_streamed_is_refused_before_it_begins(
    start_web: Any, query: str, status: int, code: str, parameter: str
) -> None:
    web = await start_web()
    web.daemon.list_instruments()

    async with httpx.AsyncClient(timeout=10) as client:
        refused = await client.get(f"{web.http}{STREAM}{query}")

    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.json()["parameter"] == parameter
    assert len(web.app.readers) == 0


async def test_heartbeats_are_comments(start_web: Any) -> None:
    web = await start_web(heartbeat_s=0.1)

    async with opened(f"{web.http}{STREAM}?topics=trade:*:*") as events:
        assert await events.until("comment") == "heartbeat"


async def test_a_client_that_leaves_is_noticed_at_once(start_web: Any, until: Any) -> None:
    web = await start_web()

    async with opened(f"{web.http}{STREAM}?topics=trade:*:*") as events:
        await events.until("ack")
        assert len(web.app.readers) == 1
        web.daemon.trade(1)
        assert web.daemon.bus.get("trade:binance:BTC-USDT").reader_count == 1

    await until(lambda: len(web.app.readers) == 0, 1.0)
    assert web.daemon.bus.get("trade:binance:BTC-USDT").reader_count == 0


async def test_a_stream_counts_as_a_client(start_web: Any, until: Any) -> None:
    web = await start_web(max_clients=1)
    url = f"{web.http}{STREAM}?topics=trade:*:*"

    async with opened(url) as events:
        await events.until("ack")
        async with opened(url) as other:
            assert other.status == 503
            assert other.headers["Retry-After"] == "30"
    await until(lambda: len(web.app.readers) == 0)
    async with opened(url) as events:
        await events.until("ack")


async def test_the_last_event_says_goodbye(start_web: Any) -> None:
    web = await start_web()

    async with opened(f"{web.http}{STREAM}?topics=trade:*:*") as events:
        await events.until("ack")
        web.stop.set()
        bye = await events.until("bye")
        assert (bye["code"], bye["retry_after_ms"]) == (4001, 1000)
        assert await events.next() == ("end", None)
        with trio.fail_after(3):
            await web.stopped.wait()


async def _raw(web: Any, topics: str) -> trio.SocketStream:
    """Connect with a small window and ask for a stream, and read no more than its head."""
    host, port = web.http.removeprefix("http://").split(":")
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect((host, int(port)))
    stream = trio.SocketStream(sock)
    await stream.send_all(f"GET {STREAM}?topics={topics} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (await stream.receive_some(16)).startswith(b"HTTP/1.1 200")
    return stream


async def test_a_slow_client_is_conflated_and_loses_oldest_first(start_web: Any) -> None:
    web = await start_web(client_queue_bytes=100_000)
    web.daemon.quote("1")
    async with await _raw(web, "quote:*:*,trade:*:*") as stream:
        web.daemon.trade(1)
        (mailbox,) = web.daemon.bus.get("trade:binance:BTC-USDT").readers
        while not mailbox.lost:  # how much the kernel takes before that is its own affair
            web.daemon.trade(50, pad="x" * 500)
            web.daemon.quote("5")
            await trio.lowlevel.checkpoint()
        web.daemon.quote("6.5")
        text = b""
        with trio.fail_after(10):
            while b'"bid_price":"6.5"' not in text:
                text = text[-100_000:] + await stream.receive_some(65_536)
                if b"event: gap" in text and b"event: conflated" in text:
                    break

    assert b"slow reader" in text


async def test_a_client_that_takes_nothing_is_let_go(start_web: Any, until: Any) -> None:
    web = await start_web(limits=Limits(stall_s=0.3), client_queue_bytes=100_000)
    async with await _raw(web, "trade:*:*"):
        for _ in range(40):
            web.daemon.trade(50, pad="x" * 500)
            await trio.lowlevel.checkpoint()
        await until(lambda: len(web.app.readers) == 0)

    assert web.daemon.stats.readers.closed == {4008: 1}


async def test_browsers_of_allowed_origins_may_read(start_web: Any) -> None:
    web = await start_web(allowed_origins=("https://app.example.test",))
    url = f"{web.http}{STREAM}?topics=trade:*:*"

    async with opened(url, Origin="https://app.example.test") as events:
        await events.until("ack")
        assert events.headers["Access-Control-Allow-Origin"] == "https://app.example.test"
        assert events.headers["Cache-Control"] == "no-store"
    async with opened(url, Origin="https://evil.example.test") as refused:
        assert refused.status == 403


async def test_a_key_opens_what_needs_one(start_web: Any, web_key: Any) -> None:
    keys = (web_key(name="me", key="sesame", scopes=("read", "account:main")),)
    web = await start_web(public_read=False, keys=keys)
    url = f"{web.http}{STREAM}?topics=order:bybit:main"

    async with opened(url) as refused:
        assert refused.status == 401
    async with opened(f"{url}&api_key=sesame") as events:
        assert (await events.next())[1]["results"][0]["ok"] is True


async def test_head_does_not_begin_a_stream(start_web: Any) -> None:
    web = await start_web()

    async with httpx.AsyncClient(timeout=3) as client:
        head = await client.head(f"{web.http}{STREAM}?topics=trade:*:*")

    assert head.status_code == 200
    assert head.headers["Content-Type"].startswith("text/event-stream")
    assert len(web.app.readers) == 0
