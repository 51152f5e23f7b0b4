"""Connections that cost little: plain sockets, one epoll for all of them, and the package's own frame decoder."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from base64 import b64encode
from typing import Any

import h11
import orjson
import trio
from figures import Figures, rounded
from sequence import Numbers

from pricefeedd.client.line import Address
from pricefeedd.errors import ConnectionLostError
from pricefeedd.frames import FrameDecoder, masked_frame

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
READ_BYTES = 262_144
MAX_MESSAGE_BYTES = 64 << 20


class LineError(Exception):
    """A connection could not be made."""


class RefusedError(LineError):
    """It could not, and trying again is no use."""


class Line:
    """One open WebSocket, read by the pump.

    Attributes:
        welcomed: Its `welcome` is there.
        answered: All requests were answered.
        ended: It is over; `reason` and `code` say why.
    """

    def __init__(self, sock: socket.socket, numbers: Numbers, figures: Figures) -> None:
        self.sock = sock
        self.welcome: dict[str, Any] = {}
        self.welcomed = trio.Event()
        self.answered = trio.Event()
        self.ended = trio.Event()
        self.reason = ""
        self.code: int | None = None
        self.retry_after_s: float | None = None
        self.asked = 0
        self.asked_us = 0
        self._numbers = numbers
        self._figures = figures
        self._decoder = FrameDecoder(MAX_MESSAGE_BYTES)
        self._tls = isinstance(sock, ssl.SSLSocket)

    def read(self) -> None:
        """Take what the kernel has."""
        while not self.ended.is_set():
            try:
                data = self.sock.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError as e:
                self.end(f"connection lost: {e.strerror or e}")
                return
            if not data:
                self.end("connection closed without a word")
                return
            self.take(data)
            # What TLS has decrypted already does not wake anybody.
            if not self._tls or not self.sock.pending():  # type: ignore[attr-defined]
                return

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        now_us = time.time_ns() // 1000
        figures = self._figures
        figures.bytes += len(data)
        try:
            texts = self._decoder.feed(data)
        except ConnectionLostError as e:
            self.end(f"not a WebSocket's words: {e}")
            return
        figures.frames += len(texts)
        for text in texts:
            message = orjson.loads(text)
            for each in message if type(message) is list else (message,):
                self._message(each, now_us)
        if self._decoder.controls:
            self._control()

    def _message(self, message: dict[str, Any], now_us: int) -> None:
        kind = message["type"]
        if "seq" not in message or kind == "heartbeat":
            self._notice(message, kind, now_us)
            return
        if not self._numbers.take(message, kind):
            return
        figures = self._figures
        figures.messages += 1
        received = message["ts_recv"]
        if received < self.asked_us or message["origin"] != "live":
            figures.past += 1
            return
        spread = figures.recv_us
        spread[rounded(now_us - received)] += 1
        event = message["ts_event"]
        if event is not None:
            figures.event_us[rounded(now_us - event)] += 1

    def _notice(self, message: dict[str, Any], kind: str, now_us: int) -> None:
        if kind == "heartbeat":
            self._numbers.heartbeat(message["seq"])
        elif kind == "welcome":
            self.welcome = message
            self.welcomed.set()
        elif kind == "ack":
            for result in message["results"]:
                if not result["ok"]:
                    self._figures.refused[f"{result['topic']}: {result['error']['message']}"] += 1
            self._answer(now_us)
        elif kind == "error":
            self._figures.refused[str(message["error"].get("message", message["error"]))] += 1
            self._answer(now_us)
        elif kind == "bye":
            self.code, self.reason = message["code"], f"bye {message['code']}: {message['reason']}"
            if message.get("retry_after_ms") is not None:
                self.retry_after_s = message["retry_after_ms"] / 1000
            self._figures.byes[f"{message['code']} {message['reason']}"] += 1

    def _answer(self, now_us: int) -> None:
        self.asked -= 1
        if self.asked == 0:
            self._figures.ack_us[rounded(now_us - self.asked_us)] += 1
            self.answered.set()

    def _control(self) -> None:
        for opcode, payload in self._decoder.controls:
            if opcode == PING:
                # Too full to take six bytes: the daemon will see that we read nothing, or that we do.
                self.try_send(masked_frame(PONG, payload))
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2]) if len(payload) > 1 else None
                self.code = self.code or code
                self.end(self.reason or f"closed with {code}")
        self._decoder.controls.clear()

    def try_send(self, data: bytes) -> None:
        """Send a few bytes, if there is room."""
        try:
            self.sock.send(data)
        except OSError:
            return

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: The connection is lost.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(self.sock)

    def end(self, reason: str) -> None:
        """Note why it is over, and wake everybody who waits for something of it."""
        self.reason = self.reason or reason
        self.ended.set()
        self.welcomed.set()
        self.answered.set()


async def dial(address: Address) -> tuple[socket.socket, bytes]:
    """Return a socket on which a WebSocket is open, not blocking, and what came behind the handshake.

    Raises:
        LineError: It could not be opened.
    """
    host, port, secure, path = address.target()
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as e:
        raise LineError(f"cannot connect: {reason_of(e)}") from e
    sock = stream.socket
    own = socket.socket(fileno=os.dup(sock.fileno()))  # the stream's descriptor is Trio's
    sock.close()
    try:
        own.setblocking(False)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            own = await _encrypt(own, host, address)
        rest = await _upgrade(own, host if port in (80, 443) else f"{host}:{port}", path, address)
    except OSError as e:
        own.close()
        raise LineError(f"handshake failed: {reason_of(e)}") from e
    except BaseException:
        own.close()
        raise
    return own, rest


def reason_of(error: OSError) -> str:
    # Trio puts what happened with each of a name's addresses into the cause.
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)


async def _encrypt(sock: socket.socket, host: str, address: Address) -> ssl.SSLSocket:
    context = address.tls or ssl.create_default_context()
    tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(tls)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(tls)
        else:
            return tls


async def _upgrade(sock: socket.socket, host: str, path: str, address: Address) -> bytes:
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET",
        target=path,
        headers=[
            (b"Host", host.encode()),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", b64encode(os.urandom(16))),
            (b"Sec-WebSocket-Version", b"13"),
            *address.headers,
        ],
    )
    sock.sendall(http.send(request) + http.send(h11.EndOfMessage()))  # it fits any fresh socket
    status, body = 0, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            try:
                http.receive_data(sock.recv(65_536))
            except (BlockingIOError, ssl.SSLWantReadError):
                await trio.lowlevel.wait_readable(sock)
            continue
        match event:
            case h11.InformationalResponse(status_code=101):
                return http.trailing_data[0]
            case h11.Response():
                status = event.status_code
            case h11.Data():
                body += event.data
            case h11.EndOfMessage() | h11.ConnectionClosed():
                said = body[:200].decode(errors="replace").strip()
                error = RefusedError if 400 <= status < 500 and status != 429 else LineError
                raise error(f"HTTP {status}: {said}" if said else f"HTTP {status}")


class Pump:
    """Reads all connections of this process.

    One epoll for all of them, which Trio waits for as if it were one socket: to wake a task for each
    connection costs 20 µs and more, and this program would be measured in place of the daemon.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lines: dict[int, Line] = {}

    def add(self, line: Line) -> None:
        """Read this one too."""
        self._lines[line.sock.fileno()] = line
        self._epoll.register(line.sock, select.EPOLLIN)

    def remove(self, line: Line) -> None:
        """Read it no longer, and close it."""
        del self._lines[line.sock.fileno()]
        self._epoll.unregister(line.sock)
        line.sock.close()

    async def run(self) -> None:
        """Read until cancelled."""
        lines = self._lines
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for file, _ in self._epoll.poll(0, 1024):
                lines[file].read()
