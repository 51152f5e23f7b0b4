"""The processes at both ends of the ZeroMQ bench: one that reads and one that pushes, plain pyzmq both."""

from __future__ import annotations

import argparse
import json
import sys
import time

import orjson
import zmq


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def read(address: str, messages: int, *, look: bool) -> None:
    """Read until so many messages came, or nothing for 3 s; tell how many, how many numbers were missed, how late."""
    socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.SUB)
    socket.set_hwm(200_000)
    socket.setsockopt(zmq.RCVTIMEO, 60_000)
    socket.connect(address)
    socket.subscribe(b"")
    _say(ready=True)
    last: dict[bytes, int] = {}
    late: list[float] = []
    count = missed = 0
    first = newest = 0.0
    while count < messages:
        try:
            topic, text = socket.recv_multipart()
        except zmq.Again:
            break
        if not count:
            first = time.perf_counter()
            socket.setsockopt(zmq.RCVTIMEO, 3_000)
        count += 1
        newest = time.perf_counter()
        if look:
            now_us = time.time_ns() / 1000
            message = orjson.loads(text)
            late.append(now_us - message["ts_recv"])
            seq = message["seq"]
            missed += max(0, seq - last.get(topic, seq - 1) - 1)
            last[topic] = seq
    wall = newest - first
    late.sort()
    quantiles = {
        name: late[int(len(late) * share)] / 1000 if late else None
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))
    }
    _say(received=count, missed=missed, per_s=count / wall if wall else 0, **quantiles)


def push(address: str, messages: int, rate: float) -> None:
    """Push messages of some 200 bytes: as fast as they are taken, or so many a second, each with its time."""
    socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.PUSH)
    socket.set_hwm(10_000)
    socket.connect(address)
    _say(ready=True)
    sys.stdin.readline()
    topics = [f"trade:binance:COIN{number}-USDT" for number in range(100)]
    names = [topic.encode() for topic in topics]
    began = time.perf_counter()
    for number in range(messages):
        due = began + number / rate if rate else 0
        while due and (left := due - time.perf_counter()) > 0:
            if left > 0.0002:
                zmq.select([], [], [], left)
        topic = number % 100
        text = (
            b'{"type":"trade","topic":"%b","seq":%d,"ts_event":1795241280350123,"ts_recv":%d,"origin":"live","data":'
            b'{"id":"1062992715","price":"83772.60","size":"0.00001780","side":"buy"},"epoch":"0123456789ab"}'
        ) % (names[topic], number // 100 + 1, time.time_ns() // 1000)
        socket.send(names[topic], zmq.SNDMORE)
        socket.send(text)
    _say(pushed=messages, per_s=messages / (time.perf_counter() - began))
    socket.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("end", choices=["read", "push"])
    parser.add_argument("address")
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--look", action="store_true", help="parse each message, for its time and its number")
    args = parser.parse_args()
    if args.end == "read":
        read(args.address, args.messages, look=args.look)
    else:
        push(args.address, args.messages, args.rate)
