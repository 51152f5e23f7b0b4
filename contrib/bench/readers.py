"""Many WebSocket readers in one cheap process: what arrived, how late, and whether the numbers are whole.

Each reads the trades of one instrument, whose price is the sender's clock. It prints `{"ready": ...}` once all
are subscribed, and the result when it is told `stop` on stdin.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import sys
import time
from array import array

import orjson
from sender import instruments
from wsframes import PING, PONG, TEXT, client_frame, connect, split_frames


class Reader:
    """One connection, and the number that must come next."""

    def __init__(self, port: int, instrument: str) -> None:
        self.socket, self.rest = connect("127.0.0.1", port, "/ws")
        self.socket.setblocking(False)
        self.topic = f"trade:binance:{instrument}"
        self.seq: int | None = None
        self.subscribed = False
        body = {"op": "subscribe", "id": 1, "topics": [self.topic], "snapshot": False}
        self.socket.sendall(client_frame(orjson.dumps(body)))


class Tally:
    """What all readers together saw.

    Attributes:
        ready: Readers whose subscription was acknowledged.
        latencies: From the venue's clock to ours, ns, of each trade.
        missing: Numbers that were left out.
    """

    def __init__(self) -> None:
        self.ready = 0
        self.latencies = array("q")
        self.missing = 0

    def read(self, reader: Reader) -> bool:
        """Take what is there for a reader; return whether it is still connected."""
        try:
            data = reader.socket.recv(65536)
        except BlockingIOError:
            return True
        now_ns = time.time_ns()
        if not data:
            return False
        self.take(reader, reader.rest + data, now_ns)
        return True

    def take(self, reader: Reader, data: bytes, now_ns: int) -> None:
        """Take the whole frames in the bytes."""
        frames, reader.rest = split_frames(data)
        for opcode, payload in frames:
            if opcode == PING:
                reader.socket.sendall(client_frame(payload, PONG))
            elif opcode == TEXT:
                self._message(reader, orjson.loads(payload), now_ns)

    def _message(self, reader: Reader, message: dict[str, object], now_ns: int) -> None:
        kind = message["type"]
        if kind == "ack":
            results = message["results"]
            assert isinstance(results, list)
            if not results[0]["ok"]:
                raise SystemExit(f"subscription refused: {results[0]}")
            self.ready += not reader.subscribed
            reader.subscribed = True
        elif message.get("topic") == reader.topic and kind in ("trade", "status", "gap"):
            seq = message["seq"]
            assert isinstance(seq, int)
            if reader.seq is not None:
                self.missing += seq - reader.seq - 1
            reader.seq = seq
            if kind == "trade":
                data = message["data"]
                assert isinstance(data, dict)
                self.latencies.append(now_ns - int(data["price"]))

    def result(self, skip: int) -> dict[str, float]:
        """Return the figures, in ms; the first latencies are left out of them."""
        late = sorted(self.latencies[skip:]) or [0]
        return {
            "received": len(self.latencies),
            "missing": self.missing,
            "p50_ms": late[len(late) // 2] / 1e6,
            "p99_ms": late[len(late) * 99 // 100] / 1e6,
            "max_ms": late[-1] / 1e6,
        }


def main() -> None:
    """Read until told to stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--instruments", type=int, default=100)
    parser.add_argument("--skip", type=int, default=0, help="trades at the beginning that count as warm-up")
    args = parser.parse_args()
    names = instruments(args.instruments)
    tally = Tally()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        for number in range(args.readers):
            reader = Reader(args.port, names[number % len(names)])
            selector.register(reader.socket, selectors.EVENT_READ, reader)
            tally.take(reader, reader.rest, time.time_ns())
        told = False
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    # `stop`, or the end of stdin.
                    if os.read(0, 4096):
                        print(json.dumps(tally.result(args.skip)), flush=True)
                    return
                if not tally.read(key.data):
                    raise SystemExit(f"the daemon closed the connection of {key.data.topic}")
            if tally.ready == args.readers and not told:
                told = True
                print(json.dumps({"ready": tally.ready}), flush=True)


if __name__ == "__main__":
    main()
