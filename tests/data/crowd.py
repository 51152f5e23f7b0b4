"""Readers in a process of their own, by bare sockets so that a thousand cost little; standard library only.

crowd.py read PORT COUNT TOPIC    COUNT readers of TOPIC. A line on stdin asks for a line of figures.
crowd.py relay PORT               A relay before the server; says its own port.
crowd.py fork PORT REQUEST        A reader whose socket a child holds as well; says the child's process id.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import sys
import threading
import time
from array import array
from collections import Counter
from typing import Any

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(text: bytes) -> bytes:
    """Return a short text frame; the mask of zeros changes nothing."""
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


def say(facts: object) -> None:
    print(json.dumps(facts), flush=True)


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(HANDSHAKE)
    return sock


class Reader:
    """One reader: what came, in which order, and how late."""

    def __init__(self, crowd: Crowd, sock: socket.socket) -> None:
        self.crowd = crowd
        self.sock = sock
        self.data = b""
        self.shaken = False
        self.seq: int | None = None
        self.code: int | None = None

    def receive(self) -> bool:
        """Take what is there; return whether the connection goes on."""
        try:
            chunk = self.sock.recv(262_144)
        except BlockingIOError:
            return True
        except OSError:
            chunk = b""
        if not chunk:
            return False
        data = self.data + chunk
        if not self.shaken:
            _, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self.data = data
                return True
            self.shaken, data = True, rest
            self.sock.sendall(self.crowd.request)
        now = time.time()
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if len(data) < start + size:
                break
            self.take(data[at], data[start : start + size], now)
            at = start + size
        self.data = data[at:]
        return True

    def take(self, first: int, payload: bytes, now: float) -> None:
        if first == 0x88:
            self.code = int.from_bytes(payload[:2])
            self.sock.send(b"\x88\x82" + bytes(4) + payload[:2])
            return
        kind, seq, at = self.crowd.understand(payload)
        if kind == "trade":
            if self.seq is not None and seq != self.seq + 1:
                self.crowd.wrong.append(f"{seq} after {self.seq}")
            self.seq = seq
            self.crowd.late.append(now - at)
        elif kind == "ack":
            self.crowd.acks += 1
        elif kind not in ("welcome", "heartbeat", "bye", "status"):
            self.crowd.wrong.append(kind)


class Crowd:
    """Many readers of one topic."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.late = array("d")
        self.wrong: list[str] = []
        self.acks = 0
        self.readers: list[Reader] = []
        self._known: dict[bytes, tuple[str, int, float]] = {}

    def understand(self, payload: bytes) -> tuple[str, int, float]:
        """Return type, number and time of receipt; a message is parsed once for all readers."""
        found = self._known.get(payload)
        if found is None:
            message: dict[str, Any] = json.loads(payload)
            seq = message.get("seq", 0)
            found = message["type"], seq if isinstance(seq, int) else 0, message.get("ts_recv", 0) / 1e6
            if len(self._known) > 200:
                self._known.clear()
            self._known[payload] = found
        return found

    def figures(self) -> dict[str, object]:
        """Return what was seen since they were last asked for."""
        late = sorted(self.late)
        self.late = array("d")
        wrong, self.wrong = self.wrong[:10], []
        seqs = [reader.seq for reader in self.readers]
        return {
            "messages": len(late),
            "p50_ms": late[len(late) // 2] * 1000 if late else None,
            "p99_ms": late[len(late) * 99 // 100] * 1000 if late else None,
            "max_ms": late[-1] * 1000 if late else None,
            "wrong": wrong,
            "seqs": sorted({seq for seq in seqs if seq is not None}),
            "unread": seqs.count(None),
            "codes": Counter(str(reader.code) for reader in self.readers if reader.code),
        }


def read(port: int, count: int, topic: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(masked(json.dumps({"op": "subscribe", "topics": [topic]}).encode()))
    watch = selectors.DefaultSelector()
    for _ in range(count):
        sock = connect(port)
        sock.setblocking(False)
        reader = Reader(crowd, sock)
        crowd.readers.append(reader)
        watch.register(sock, selectors.EVENT_READ, reader)
        for key, _mask in watch.select(0):
            key.data.receive()
    watch.register(sys.stdin, selectors.EVENT_READ, None)
    told = False
    while True:
        if not told and crowd.acks == count:
            told = True
            say({"ready": count})
        for key, _mask in watch.select():
            if key.data is None:
                if not sys.stdin.readline():
                    return
                say(crowd.figures())
            elif not key.data.receive():
                watch.unregister(key.fileobj)


def relay(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say({"port": listener.getsockname()[1]})
        client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", port))

    def forward(source: socket.socket, target: socket.socket) -> None:
        while chunk := source.recv(65_536):
            target.sendall(chunk)

    threading.Thread(target=forward, args=(client, server), daemon=True).start()
    forward(server, client)


def fork(port: int, request: str) -> None:
    sock = connect(port)
    while b"welcome" not in sock.recv(65_536):
        pass
    sock.sendall(masked(request.encode()))
    child = os.fork()
    if child:
        say({"child": child})
    while sock.recv(65_536):  # both read, until one is killed and the other is frozen
        pass


if __name__ == "__main__":
    what, port, *rest = sys.argv[1:]
    if what == "read":
        read(int(port), int(rest[0]), rest[1])
    elif what == "relay":
        relay(int(port))
    else:
        fork(int(port), rest[0])
