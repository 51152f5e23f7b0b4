"""A tiny venue that only sends: Binance's spot dialect on plain sockets and threads.

It answers `exchangeInfo`, takes WebSockets with the streams in the URL or in SUBSCRIBE frames, and then sends
trades (consecutive ids) and quotes (rising update numbers). It stands in a process of its own, so that its
work is not counted as the receiver's, and encodes everything before the first byte is sent.

It prints one line of JSON, `{"port": ...}`, once it listens, and ends when its stdin does. The line `go` lets it
send at a rate, and `status` is answered with what is subscribed and what was sent.
"""

from __future__ import annotations

import argparse
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from wsframes import CLOSE, PING, PONG, accept_key, server_frame, split_frames

#: After the last subscription of a connection; more of them may follow within this time.
SETTLE_S = 0.3

#: Of the trades that are sent at a rate; all numbers have as many digits.
FIRST_NUMBER = 1_111_111_111

_BASE_MS = 1_700_000_000_000


def symbols(count: int) -> list[str]:
    """Return the symbols that the sender lists."""
    return [f"C{n:03d}USDT" for n in range(count)]


def instruments(count: int) -> list[str]:
    """Return pricefeedd's names for them."""
    return [f"C{n:03d}-USDT" for n in range(count)]


def exchange_info(count: int) -> dict[str, object]:
    """Return the reply to `GET /api/v3/exchangeInfo`."""
    return {
        "symbols": [
            {
                "symbol": symbol,
                "status": "TRADING",
                "baseAsset": symbol.removesuffix("USDT"),
                "quoteAsset": "USDT",
                "filters": [
                    {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
                    {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
                ],
            }
            for symbol in symbols(count)
        ]
    }


def trade(stream: str, number: int, price: str, time_ms: int) -> bytes:
    """Return one `aggTrade` message of a combined stream."""
    symbol = stream.partition("@")[0].upper()
    return (
        f'{{"stream":"{stream}","data":{{"e":"aggTrade","E":{time_ms},"s":"{symbol}","a":{number},'
        f'"p":"{price}","q":"0.01520000","f":{number},"l":{number},"T":{time_ms},'
        f'"m":{"true" if number & 1 else "false"},"M":true}}}}'
    ).encode()


def template(stream: str) -> bytes:
    """Return the frame of a trade with places for its number `n`, the clock `ns` as its price, and `ms`."""
    number, now_ns, now_ms = FIRST_NUMBER, 2_222_222_222_222_222_222, 3_333_333_333_333
    frame = server_frame(trade(stream, number, str(now_ns), now_ms)).replace(b"%", b"%%")
    for value, name in ((number, b"n"), (now_ns, b"ns"), (now_ms, b"ms")):
        frame = frame.replace(b"%d" % value, b"%%(%s)d" % name)
    return frame


def quote(stream: str, number: int, cents: int) -> bytes:
    """Return one `bookTicker` message of a combined stream."""
    symbol = stream.partition("@")[0].upper()
    return (
        f'{{"stream":"{stream}","data":{{"u":{number},"s":"{symbol}","b":"{64000 + cents / 100:.8f}",'
        f'"B":"1.27340000","a":"{64000 + (cents + 1) / 100:.8f}","A":"0.83150000"}}}}'
    ).encode()


def messages(streams: list[str], count: int) -> Iterator[bytes]:
    """Yield so many messages, taking the streams in turn; times and prices only move."""
    for index in range(count):
        stream = streams[index % len(streams)]
        number = 4_000_000_000 + index // len(streams)
        if stream.endswith("@aggTrade"):
            yield trade(stream, number, f"{64000 + index % 9973 / 100:.8f}", _BASE_MS + index)
        else:
            yield quote(stream, number, index % 9973)


class Venue(socketserver.ThreadingTCPServer):
    """The server, and what it was asked to do."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", 0), Client)
        self.args = args
        self.info = json.dumps(exchange_info(args.instruments)).encode()
        self.go = threading.Event()
        self.sent = 0
        self.sending = 0
        self.subscribed = 0
        self.counting = threading.Lock()


class Client(socketserver.BaseRequestHandler):
    """One connection: requests, or one WebSocket."""

    server: Venue

    def handle(self) -> None:
        """Answer requests until one asks for a WebSocket or the client goes."""
        # Small writes must leave at once: Nagle's algorithm would hold them for 40 ms now and then.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    part = self.request.recv(65536)
                    if not part:
                        return
                    data += part
                head, _, data = data.partition(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                target = lines[0].split(" ")[1]
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines[1:])
                }
                if headers.get("upgrade", "").lower() == "websocket":
                    self._websocket(target, headers["sec-websocket-key"], data)
                    return
                self._answer(target)
        except (ConnectionError, TimeoutError):
            return  # the receiver has seen enough

    def _answer(self, target: str) -> None:
        path = urlsplit(target).path
        known = {"/api/v3/exchangeInfo": self.server.info, "/api/v3/aggTrades": b"[]"}
        body = known.get(path, b"{}")
        status = HTTPStatus.OK if path in known else HTTPStatus.NOT_FOUND
        self.request.sendall(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    # --- WebSocket ------------------------------------------------------------------------------------

    def _websocket(self, target: str, key: str, early: bytes) -> None:
        self.request.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode()
        )
        query = parse_qs(urlsplit(target).query)
        self.streams = [name for part in query.get("streams", []) for name in part.split("/")]
        self.writing = threading.Lock()
        self.heard = threading.Event()
        self.gone = threading.Event()
        threading.Thread(target=self._listen, args=(early,), daemon=True).start()
        while not self.streams or self.heard.is_set():
            self.heard.clear()
            if self.heard.wait(SETTLE_S) and self.gone.is_set():
                return
        args = self.server.args
        if args.rate:
            self._send_at_rate()
        else:
            self._send_bursts()
        # The client may want to go first; asyncio's clients print tracebacks when they are cut off.
        self.gone.wait(5)

    def _listen(self, data: bytes) -> None:
        """Answer what the client says, until it goes."""
        try:
            while True:
                frames, data = split_frames(data)
                for opcode, payload in frames:
                    if opcode == CLOSE:
                        self._write(server_frame(payload[:2], CLOSE))
                        return
                    if opcode == PING:
                        self._write(server_frame(payload, PONG))
                    elif opcode == 1:
                        self._request(json.loads(payload))
                part = self.request.recv(65536)
                if not part:
                    return
                data += part
        except OSError:
            return
        finally:
            self.gone.set()
            self.heard.set()

    def _request(self, message: dict[str, object]) -> None:
        if message["method"] == "SUBSCRIBE":
            params = message["params"]
            assert isinstance(params, list)
            self.streams += params
            with self.server.counting:
                self.server.subscribed += len(params)
        self._write(server_frame(json.dumps({"result": None, "id": message["id"]}).encode()))
        self.heard.set()

    def _write(self, data: bytes) -> None:
        with self.writing:
            self.request.sendall(data)

    def _send_bursts(self) -> None:
        """Send the frames that were encoded before, so many in a write, with a pause after each."""
        args = self.server.args
        frames = [server_frame(message) for message in messages(self.streams, args.messages)]
        bursts = [b"".join(frames[at : at + args.burst]) for at in range(0, len(frames), args.burst)]
        pause_s = args.pause_ms / 1000
        due = time.monotonic()
        for burst in bursts:
            self._write(burst)
            due += pause_s
            if (wait := due - time.monotonic()) > 0:
                self.gone.wait(wait)

    def _send_at_rate(self) -> None:
        """Send trades from the word `go` on; the price is our clock at the sending, ns since the epoch."""
        server = self.server
        with server.counting:
            server.sending += 1
        server.go.wait()
        # This connection's part of the rate: it carries so many of the instruments.
        rate = server.args.rate * len(self.streams) / server.args.instruments
        tick_s = server.args.tick_ms / 1000
        frames = [template(stream) for stream in self.streams]
        began = time.monotonic()
        index = 0
        while (elapsed := time.monotonic() - began) < server.args.seconds and not self.gone.is_set():
            due = int(elapsed * rate) + 1
            ready = []
            while index < due:
                now_ns = time.time_ns()
                turn, at = divmod(index, len(frames))
                ready.append(
                    frames[at] % {b"n": FIRST_NUMBER + turn, b"ns": now_ns, b"ms": now_ns // 1_000_000}
                )
                index += 1
            if ready:
                self._write(b"".join(ready))
            self.gone.wait(max(tick_s + began + elapsed, began + index / rate) - time.monotonic())
        with server.counting:
            server.sent += index
            server.sending -= 1
        # The connection stays, so that the daemon has no reason to say anything else.
        self.gone.wait()


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instruments", type=int, default=10)
    parser.add_argument("--messages", type=int, default=100_000, help="per connection, in bursts")
    parser.add_argument("--burst", type=int, default=50, help="frames in one write")
    parser.add_argument("--pause-ms", type=float, default=0.0, help="from one burst to the next")
    parser.add_argument("--rate", type=float, default=0.0, help="trades a second, instead of bursts")
    parser.add_argument(
        "--tick-ms", type=float, default=0.0, help="from one write at that rate to the next, at least"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to send at that rate")
    with Venue(parser.parse_args()) as venue:
        threading.Thread(target=venue.serve_forever, daemon=True).start()
        print(json.dumps({"port": venue.server_address[1]}), flush=True)
        for line in sys.stdin:
            if line.strip() == "go":
                venue.go.set()
            else:
                print(
                    json.dumps(
                        {"sent": venue.sent, "sending": venue.sending, "subscribed": venue.subscribed}
                    ),
                    flush=True,
                )
        venue.shutdown()


if __name__ == "__main__":
    main()
