"""Many WebSocket readers in one cheap process: what arrived, how late, and whether the numbers are whole.

It is told by lines of JSON on stdin what to do, and answers each with one. Only some of the readers look at what
they get (`--sample`); the others count messages in the bytes, or this process would cost more than the server.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import socket
import time
from array import array
from enum import Enum
from typing import Any

import orjson
from daemon import pause
from sender import instruments
from wsframes import PING, PONG, TEXT, client_frame, split_frames

#: What each data message holds once, and no other message does.
MARK = b'"type":"trade"'
_END = ord("}")
#: All that is waited for must come within this, unless the bench says otherwise.
PATIENCE_S = 60.0


class Stage(Enum):
    """How far a reader is."""

    CONNECTING = 0
    OPENING = 1
    LOOKING = 2
    COUNTING = 3
    GONE = 4


class Reader:
    """One connection.

    Attributes:
        sampled: It looks at every message, and does not merely count.
        rest: The beginning of what has not wholly come.
        received: Data messages so far.
        seq: The number of the last one, if it looks.
        goal: Data messages after which it has what it waits for; -1 if it has.
        there_at: When that was.
    """

    __slots__ = (
        "acked",
        "epoch",
        "goal",
        "received",
        "rest",
        "sampled",
        "seq",
        "socket",
        "stage",
        "there_at",
        "topic",
    )

    def __init__(self, topic: str, sampled: bool) -> None:
        self.topic = topic
        self.sampled = sampled
        self.stage = Stage.CONNECTING
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.rest = b""
        self.acked = False
        self.epoch = ""
        self.received = 0
        self.seq: int | None = None
        self.goal = 0
        self.there_at = 0.0


class Crowd:
    """All readers, and what they together saw.

    Attributes:
        received: Data messages.
        latencies: From the sender's clock in the price to ours, ns, of each message that was looked at.
        missing: Numbers that were left out, of those looked at.
        gone: Readers that were refused or cut off.
        waiting: Readers that do not yet have what they wait for.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.readers: dict[int, Reader] = {}
        self.received = 0
        self.latencies = array("q")
        self.missing = 0
        self.gone = 0
        self.waiting = 0
        self.epoll = select.epoll()
        self._args = args
        self._buffer = bytearray(262_144)
        self._subscribe = False

    # --- what the bench asks for ----------------------------------------------------------------------

    def connect(self, *, subscribe: bool, goal: int) -> None:
        """Begin to connect all readers at once, each with its subscription if `subscribe`."""
        args = self._args
        topics = [args.topic] if args.topic else [f"trade:binance:{n}" for n in instruments(args.instruments)]
        self._subscribe = subscribe
        self.waiting = args.readers
        for number in range(args.readers):
            reader = Reader(topics[number % len(topics)], number % args.sample == 0)
            reader.goal = goal
            if args.receive_buffer:
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, args.receive_buffer)
            reader.socket.connect_ex(("127.0.0.1", args.port))
            self.readers[reader.socket.fileno()] = reader
            self.epoll.register(reader.socket, select.EPOLLOUT)

    def ask(self, *, since: int | None, goal: int) -> None:
        """Have all readers subscribe, from a number on if there is one."""
        self.waiting = len(self.readers)
        for reader in self.readers.values():
            reader.acked = False
            reader.stage = Stage.LOOKING
            reader.goal = reader.received + goal
            reader.seq = since
            self._ask(reader, since)

    def hold(self) -> None:
        """Stop reading, save for the first reader."""
        for reader in list(self.readers.values())[1:]:
            self.epoll.unregister(reader.socket)

    # --- one reader -----------------------------------------------------------------------------------

    def turn(self, file: int, now: float) -> None:
        """Go on with the reader for which the system has something."""
        reader = self.readers[file]
        if reader.stage is Stage.CONNECTING:
            self._open(reader)
            return
        try:
            size = reader.socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._lose(reader)
        elif reader.stage is Stage.COUNTING:
            self._count(reader, self._buffer, size)
        else:
            self._take(reader, reader.rest + self._buffer[:size])
        if reader.goal >= 0 and reader.acked and reader.received >= reader.goal:
            reader.goal = -1
            reader.there_at = now
            self.waiting -= 1

    def _open(self, reader: Reader) -> None:
        if reader.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._lose(reader)
            return
        key = base64.b64encode(os.urandom(16)).decode()
        reader.socket.send(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self._args.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        reader.stage = Stage.OPENING
        self.epoll.modify(reader.socket, select.EPOLLIN)

    def _lose(self, reader: Reader) -> None:
        reader.stage = Stage.GONE
        self.epoll.unregister(reader.socket)
        self.gone += 1
        if reader.goal >= 0:
            reader.goal = -1
            self.waiting -= 1

    def _ask(self, reader: Reader, since: int | None = None) -> None:
        body: dict[str, Any] = {"op": "subscribe", "id": 1, "topics": [reader.topic]}
        body["snapshot"] = not self._args.no_snapshot
        if since is not None:
            body["since"] = {"epoch": reader.epoch, "seq": {reader.topic: since}}
        reader.socket.send(client_frame(orjson.dumps(body)))

    def _count(self, reader: Reader, data: bytes | bytearray, size: int) -> None:
        """Count the messages in so many bytes."""
        if reader.rest or data[size - 1] != _END:
            # The mark may be cut in two.
            data = reader.rest + data[:size]
            found = data.count(MARK)
            reader.rest = b"" if data[-1] == _END else bytes(data[1 - len(MARK) :])
        else:
            found = data.count(MARK, 0, size)
        reader.received += found
        self.received += found

    def _take(self, reader: Reader, data: bytes) -> None:
        """Look at the whole frames in the bytes."""
        now_ns = time.time_ns()
        if reader.stage is Stage.OPENING:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                reader.rest = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._lose(reader)
                return
            reader.stage = Stage.LOOKING
            if self._subscribe:
                self._ask(reader)
        if not reader.sampled and b'"type":"ack"' in data and b'"ok":true' in data:
            reader.acked = True
            reader.stage = Stage.COUNTING
            reader.rest = b""
            self._count(reader, data, len(data))
            return
        frames, reader.rest = split_frames(data)
        for opcode, payload in frames:
            if opcode == PING:
                reader.socket.send(client_frame(payload, PONG))
            elif opcode == TEXT:
                self._message(reader, orjson.loads(payload), now_ns)

    def _message(self, reader: Reader, message: dict[str, Any], now_ns: int) -> None:
        kind = message["type"]
        if kind == "welcome":
            reader.epoch = message["epoch"]
            # Without a subscription there is nothing more to wait for.
            reader.acked = not self._subscribe
        elif kind == "ack":
            if not message["results"][0]["ok"]:
                raise SystemExit(f"subscription refused: {message['results'][0]}")
            reader.acked = True
        elif kind == "error":
            raise SystemExit(f"request refused: {message['error']}")
        elif kind in ("trade", "status", "gap") and message["topic"] == reader.topic:
            seq: int = message["seq"]
            if reader.seq is not None:
                self.missing += seq - reader.seq - 1
            reader.seq = seq
            if kind == "trade":
                reader.received += 1
                self.received += 1
                if self._args.clock:
                    self.latencies.append(now_ns - int(message["data"]["price"]))


class Desk:
    """Takes the bench's requests, and answers each when it is done or has taken too long."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._rest = b""
        self._began = 0.0
        self._within_s = PATIENCE_S
        self._target: int | None = None
        self._waits = False

    def hear(self, data: bytes) -> None:
        """Take what came on stdin."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            do = request.pop("do")
            self._began = time.monotonic()
            self._within_s = request.pop("within_s", PATIENCE_S)
            if do == "connect":
                self._crowd.connect(**request)
                self._waits = True
            elif do == "ask":
                self._crowd.ask(**request)
                self._waits = True
            elif do == "await":
                self._target = request["received"]
            elif do == "hold":
                self._crowd.hold()
                _answer({})
            else:
                _answer(self.result(request["skip"]))

    def look(self) -> None:
        """Answer if what was asked for is there."""
        crowd = self._crowd
        late = time.monotonic() - self._began > self._within_s
        if self._waits and (late or not crowd.waiting):
            self._waits = False
            times = sorted(r.there_at - self._began for r in crowd.readers.values() if r.there_at)
            _answer({"there": len(times), "failed": len(crowd.readers) - len(times), "times_s": times})
        if self._target is not None and (late or crowd.received >= self._target):
            self._target = None
            _answer({"received": crowd.received, "missing": crowd.missing, "gone": crowd.gone})

    def result(self, skip: float) -> dict[str, object]:
        """Return all figures, latencies in ms; this share of them, at the beginning, is left out."""
        crowd = self._crowd
        late = sorted(crowd.latencies[int(skip * len(crowd.latencies)) :]) or [0]
        first = next(iter(crowd.readers.values()))
        return {
            "received": crowd.received,
            "missing": crowd.missing,
            "gone": crowd.gone,
            "first_received": first.received,
            "p50_ms": late[len(late) // 2] / 1e6,
            "p99_ms": late[len(late) * 99 // 100] / 1e6,
            "max_ms": late[-1] / 1e6,
        }


def _answer(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    """Read until stdin ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--topic", default="", help="of all readers")
    parser.add_argument(
        "--instruments", type=int, default=100, help="of the sender, one to a reader, in turns"
    )
    parser.add_argument(
        "--sample", type=int, default=1, help="every so manyth reader looks, the others count"
    )
    parser.add_argument("--nap-ms", type=float, default=0.0, help="between two looks at the sockets")
    parser.add_argument("--receive-buffer", type=int, default=0, help="bytes in the kernel")
    parser.add_argument("--clock", action="store_true", help="the price is the sender's clock")
    parser.add_argument("--no-snapshot", action="store_true", help="only what comes after the subscription")
    args = parser.parse_args()
    crowd = Crowd(args)
    desk = Desk(crowd)
    crowd.epoll.register(0, select.EPOLLIN)
    while True:
        for file, _ in crowd.epoll.poll(1.0, 2048):
            if file:
                crowd.turn(file, time.monotonic())
            elif data := os.read(0, 65536):
                desk.hear(data)
            else:
                return
        desk.look()
        if args.nap_ms and not crowd.waiting:
            pause(args.nap_ms / 1000)


if __name__ == "__main__":
    main()
