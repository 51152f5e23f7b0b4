#!/usr/bin/env -S uv run
"""Reads a pricefeedd daemon with many connections at once, and says how fast and how whole it was served.

    uv run contrib/load_test/load_test.py --connections 100 --duration 60
    uv run contrib/load_test/load_test.py --url wss://feed.example.com/ws --topics 'trade:*:*' --processes 2 --json

Exit codes: 0, 1 something was lost without a word or refused, 2 usage, 69 nobody could connect.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import select
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import attrs
import h11
import orjson
import trio

from pricefeedd.client.asking import resumption
from pricefeedd.client.line import Address
from pricefeedd.errors import ConnectionLostError
from pricefeedd.events import PRIVATE_CHANNELS
from pricefeedd.frames import FrameDecoder, masked_frame
from pricefeedd.limits import backoff

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
READ_BYTES = 262_144
MAX_MESSAGE_BYTES = 64 << 20
CONNECT_S = 10.0
#: Handshakes at a time, of one process: a burst beyond the daemon's backlog measures SYN retries, not the daemon.
DIALING = 128
#: Who was read for so long may be dialled again at once.
PROVEN_S = 5.0
#: Close codes from here on say: do not come back.
FOR_GOOD = 4500
#: Of these every message is an event; of the others a newer state may stand for older ones, if that is told.
EVENT_CHANNELS = frozenset(("trade", "liquidation", *PRIVATE_CHANNELS))
#: Messages that tell how a topic stands when it is begun: the newest data, its status, what came last.
INTRODUCTION = 3

#: Of a spread of times: µs, rounded down to this above 10 ms, to how often it was seen.
COARSE_US = 100


@attrs.define
class Figures:
    """What one process saw, and then all together.

    Attributes:
        connected: Connections that had their `welcome`, of all that were wanted.
        failed: Attempts that failed, by reason.
        welcome_us: From dialling to `welcome`.
        ack_us: From the first request to the last acknowledgement.
        messages: Messages with a number.
        past: Of those, the ones older than their subscription, of which no latency is taken.
        recv_us: From the daemon's receipt (`ts_recv`) to ours.
        event_us: From the venue's clock (`ts_event`) to ours.
        lost: Numbers that are missing without a word, by topic.
        unsettled: Numbers of state that were passed over just before the end; the word may have been on its way.
        conflated: States that the daemon said it passed over.
        gap_seqs: Numbers that the daemon said it dropped.
        gap_unknown: Gaps of which it did not know how much they hold: another epoch.
        venue_gaps: Gaps at the venue: numbered messages like any other.
        lost_connections: Connections that ended before the time, by reason.
        resumed: Reconnections that went on with `since`.
        epochs: Reconnections that found another epoch.
        byes: By code.
        refused: What was refused, with the reason.
        cpu_s: CPU time of these processes.
        elapsed_s: How long they ran.
    """

    connections: int = 0
    connected: int = 0
    failed: Counter[str] = attrs.field(factory=Counter)
    welcome_us: Counter[int] = attrs.field(factory=Counter)
    ack_us: Counter[int] = attrs.field(factory=Counter)
    messages: int = 0
    frames: int = 0
    bytes: int = 0
    past: int = 0
    recv_us: Counter[int] = attrs.field(factory=Counter)
    event_us: Counter[int] = attrs.field(factory=Counter)
    heartbeats: int = 0
    lost: Counter[str] = attrs.field(factory=Counter)
    unsettled: int = 0
    conflated: int = 0
    gap_seqs: int = 0
    gap_unknown: int = 0
    venue_gaps: int = 0
    lost_connections: Counter[str] = attrs.field(factory=Counter)
    resumed: int = 0
    epochs: int = 0
    byes: Counter[str] = attrs.field(factory=Counter)
    refused: Counter[str] = attrs.field(factory=Counter)
    cpu_s: float = 0.0
    elapsed_s: float = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Add what another process saw, as it came from `attrs.asdict` through JSON."""
        for field in attrs.fields(Figures):
            mine, theirs = getattr(self, field.name), other[field.name]
            if isinstance(mine, Counter):
                number = field.name.endswith("_us")
                mine.update({int(key) if number else key: count for key, count in theirs.items()})
            elif field.name == "elapsed_s":
                self.elapsed_s = max(mine, theirs)
            else:
                setattr(self, field.name, mine + theirs)


def rounded(us: int) -> int:
    """Return the key of a time in a spread."""
    return us if us < 10_000 else us - us % COARSE_US


def percentiles(spread: Counter[int], shares: Iterable[float]) -> list[float]:
    """Return the times in ms below which these shares lie; empty if there are none."""
    total = spread.total()
    found = []
    ordered = sorted(spread.items())
    for share in shares:
        want, seen = share * total, 0
        for us, count in ordered:
            seen += count
            if seen >= want:
                found.append(us / 1000)
                break
    return found


# --- numbers -------------------------------------------------------------------------------------------------


@attrs.define
class Track:
    """Where one topic of one connection stands.

    Attributes:
        seq: The newest number.
        told_to: What is missing up to here was announced.
        doubt: Numbers passed over without a word so far, first and last.
        intro: How many more messages may belong to the introduction, in which numbers jump.
        resuming: The daemon brings it up to date, and of state only the newest.
        ahead: A heartbeat's number that was ahead of ours, when nothing has come since.
        aside: The message before was a status or a gap.
    """

    seq: int
    events: bool
    told_to: int = 0
    doubt: tuple[int, int] | None = None
    intro: int = INTRODUCTION
    resuming: bool = False
    ahead: int | None = None
    aside: bool = False


class Numbers:
    """The numbers of all topics of one connection, over all its lives within an epoch.

    It judges as `pricefeedd.client` does, without looking at what the messages say: so it costs a fiftieth.
    """

    def __init__(self, figures: Figures) -> None:
        self.epoch = ""
        self.tracks: dict[str, Track] = {}
        self._figures = figures

    def begin(self, epoch: str) -> bool:
        """Note a connection; return whether the numbers go on where they were."""
        same = epoch == self.epoch
        if not same:
            self.tracks.clear()
        for track in self.tracks.values():
            track.doubt = track.ahead = None
            track.resuming = True
        self.epoch = epoch
        return same

    def positions(self) -> dict[str, tuple[str, int]]:
        """Return where each topic stands."""
        return {
            name: (self.epoch, max(track.seq, track.told_to))
            for name, track in self.tracks.items()
            if track.seq or track.told_to
        }

    def take(self, message: dict[str, Any], kind: str) -> bool:
        """Take a message of a topic; return whether it is new."""
        name, seq = message["topic"], message["seq"]
        track = self.tracks.get(name)
        if track is None:
            track = self.tracks[name] = Track(0, name.partition(":")[0] in EVENT_CHANNELS)
        if kind == "conflated":
            self._figures.conflated += message["data"].get("dropped", 0)
            self._told(track, seq - 1)
            return False
        if kind == "gap" and "from_seq" in message["data"]:
            self._announced(track, message["data"])
            return False
        track.ahead = None
        aside = kind == "status" or kind == "gap"
        last = track.seq
        if seq != last + 1 or track.doubt is not None:
            whole = kind == "book" and message["data"]["kind"] == "snapshot"
            if last and seq <= last:
                return whole and seq == last
            if whole:
                track.doubt = None
            elif last and not (track.intro and (aside or track.aside)):
                self._jumped(name, track, last + 1, message)
            closed = kind.startswith("candle_") and message["data"].get("closed")
            if not aside and not closed:
                self._settle(name, track)
        track.seq = seq
        track.aside = aside
        if track.intro:
            track.intro -= 1
        if kind == "gap":
            self._figures.venue_gaps += 1
        return True

    def heartbeat(self, seqs: dict[str, int]) -> None:
        """Compare with the daemon's last numbers: what they are ahead twice, with nothing between, is lost."""
        self._figures.heartbeats += 1
        for name, seq in seqs.items():
            track = self.tracks.get(name)
            if track is None:
                self.tracks[name] = Track(seq, name.partition(":")[0] in EVENT_CHANNELS, intro=0)
                continue
            track.seq = track.seq or seq
            track.resuming, track.intro = False, 0
            self._settle(name, track)
            reached = max(track.seq, track.told_to)
            if seq <= reached:
                track.ahead = None
            elif track.ahead is None:
                track.ahead = seq
            else:
                self._figures.lost[name] += seq - reached
                track.seq, track.ahead = seq, None

    def end(self) -> None:
        """Count what may or may not have been announced."""
        for track in self.tracks.values():
            if track.doubt is not None:
                self._figures.unsettled += track.doubt[1] - track.doubt[0] + 1

    def _jumped(self, name: str, track: Track, first: int, message: dict[str, Any]) -> None:
        # Where numbers are passed over on purpose, the message says which one it follows.
        last = message.get("prev_seq", message["seq"] - 1)
        first = max(first, track.told_to + 1)
        if first > last:
            return
        if track.events:
            self._figures.lost[name] += last - first + 1
        elif not track.resuming:
            track.doubt = (track.doubt or (first, last))[0], last

    def _settle(self, name: str, track: Track) -> None:
        if track.doubt is not None:
            self._figures.lost[name] += track.doubt[1] - track.doubt[0] + 1
            track.doubt = None

    def _announced(self, track: Track, data: dict[str, Any]) -> None:
        last = data.get("to_seq")
        if last is None:
            self._figures.gap_unknown += 1
            track.seq = track.told_to = 0
            track.doubt, track.intro = None, INTRODUCTION
        else:
            self._figures.gap_seqs += last - data["from_seq"] + 1
            self._told(track, last)

    def _told(self, track: Track, to_seq: int) -> None:
        track.told_to = max(track.told_to, to_seq)
        if track.doubt is not None and track.doubt[1] <= to_seq:
            track.doubt = None


# --- connections ---------------------------------------------------------------------------------------------


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
        raise LineError(f"cannot connect: {_strerror(e)}") from e
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
        raise LineError(f"handshake failed: {_strerror(e)}") from e
    except BaseException:
        own.close()
        raise
    return own, rest


def _strerror(error: OSError) -> str:
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


@attrs.frozen(kw_only=True)
class Wish:
    """What the command line asks for."""

    address: Address
    topics: tuple[str, ...]
    options: dict[str, Any]
    reconnect: bool


class Client:
    """One reader, over all its connections."""

    def __init__(self, wish: Wish, figures: Figures, pump: Pump, dialing: trio.CapacityLimiter) -> None:
        self._wish = wish
        self._figures = figures
        self._pump = pump
        self._dialing = dialing
        self._numbers = Numbers(figures)
        self._line: Line | None = None
        self._known = False

    async def run(self) -> None:
        """Be connected until cancelled, or until the daemon does not want us."""
        delays = backoff(0.25, 5.0)
        while True:
            wait = None
            try:
                line = await self._open()
            except RefusedError as e:
                self._figures.failed[str(e)] += 1
                return
            except LineError as e:
                self._figures.failed[str(e)] += 1
            else:
                began = trio.current_time()
                await self._stay(line)
                if trio.current_time() - began > PROVEN_S:
                    delays = backoff(0.25, 5.0)
                wait = line.retry_after_s
                if line.code is not None and line.code >= FOR_GOOD:
                    return
            if not self._wish.reconnect:
                return
            await trio.sleep(next(delays) if wait is None else wait)

    async def _open(self) -> Line:
        """Return a connection on which everything is asked for."""
        async with self._dialing:
            began = time.monotonic_ns()
            with trio.move_on_after(CONNECT_S) as patience:
                sock, rest = await dial(self._wish.address)
            if patience.cancelled_caught:
                raise LineError(f"no answer within {CONNECT_S:.0f} s")
        line = Line(sock, self._numbers, self._figures)
        self._pump.add(line)
        self._line = line
        if rest:
            line.take(rest)
        with trio.move_on_after(CONNECT_S):
            await line.welcomed.wait()
        if not line.welcome:
            reason = line.reason or f"no welcome within {CONNECT_S:.0f} s"
            code = line.code
            self._let_go()
            raise (RefusedError if code is not None and code >= FOR_GOOD else LineError)(reason)
        self._figures.welcome_us[rounded((time.monotonic_ns() - began) // 1000)] += 1
        await self._subscribe(line)
        return line

    async def _subscribe(self, line: Line) -> None:
        again = self._known
        same = self._numbers.begin(line.welcome["epoch"])
        if not again:
            self._known = True
            self._figures.connected += 1
        elif same:
            self._figures.resumed += 1
        else:
            self._figures.epochs += 1
        limit = line.welcome.get("limits", {}).get("message_bytes", 65_536)
        wanted = dict.fromkeys(self._wish.topics, self._wish.options)
        positions = {}
        if again and same:
            stood = self._numbers.positions()
            positions = {
                topic: {name: at for name, at in stood.items() if _means(topic, name)} for topic in wanted
            }
        frames = []
        for number, request in enumerate(resumption(wanted, positions, limit_bytes=limit), 1):
            body = {"op": request.op, "id": number, **request.fields}
            frames.append(masked_frame(TEXT, orjson.dumps(body)))
        line.asked = len(frames)
        line.asked_us = time.time_ns() // 1000
        try:
            await line.send(b"".join(frames))
        except OSError as e:
            line.end(f"connection lost: {_strerror(e)}")
        with trio.move_on_after(CONNECT_S) as patience:
            await line.answered.wait()
        if patience.cancelled_caught:
            line.end(f"no answer to the subscription within {CONNECT_S:.0f} s")

    async def _stay(self, line: Line) -> None:
        await line.ended.wait()
        self._figures.lost_connections[line.reason] += 1
        self._let_go()

    def _let_go(self) -> None:
        if self._line is not None:
            self._pump.remove(self._line)
            self._line = None

    def leave(self) -> None:
        """Part from the daemon in good order, at the end."""
        if self._line is not None:
            self._line.try_send(masked_frame(CLOSE, (1000).to_bytes(2)))
            self._let_go()
        self._numbers.end()


def _means(pattern: str, name: str) -> bool:
    parts = zip(pattern.split(":", 2), name.split(":", 2), strict=True)
    return all(want in ("*", have) for want, have in parts)


async def read(wish: Wish, connections: int, duration_s: float, ramp_per_s: float) -> Figures:
    """Read for so long, connecting included, and return what was seen."""
    figures = Figures(connections=connections)
    pump = Pump()
    dialing = trio.CapacityLimiter(DIALING)
    clients = [Client(wish, figures, pump, dialing) for _ in range(connections)]
    began, cpu = time.monotonic(), time.process_time()
    with trio.move_on_after(duration_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            async with trio.open_nursery() as readers:
                for client in clients:
                    readers.start_soon(client.run)
                    if ramp_per_s:
                        await trio.sleep(1 / ramp_per_s)
            nursery.cancel_scope.cancel()  # none of them is wanted any longer
    for client in clients:
        client.leave()
    figures.elapsed_s = time.monotonic() - began
    figures.cpu_s = time.process_time() - cpu
    return figures


async def read_in_processes(processes: int, connections: int) -> Figures:
    """Have several processes read, each its share, and return what they saw together."""
    total = Figures()

    async def one(share: int) -> None:
        # The last word counts, so the share overrides what the command line said; the key is in the environment.
        command = [sys.executable, *sys.argv, "--processes=1", f"--connections={share}", "--part"]
        done = await trio.run_process(command, capture_stdout=True, check=False, stdin=subprocess.DEVNULL)
        if not done.stdout:
            raise SystemExit(f"a reading process ended with {done.returncode}")
        total.add(json.loads(done.stdout))

    async with trio.open_nursery() as nursery:
        for number in range(processes):
            share = connections // processes + (number < connections % processes)
            if share:
                nursery.start_soon(one, share)
    return total


# --- what is printed -----------------------------------------------------------------------------------------

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def summary(figures: Figures) -> dict[str, Any]:
    """Return everything as one JSON document; times in ms."""

    def times(spread: Counter[int]) -> dict[str, float]:
        return dict(zip(SHARES, percentiles(spread, SHARES.values()), strict=False))

    elapsed = figures.elapsed_s or 1.0
    return {
        "elapsed_s": round(figures.elapsed_s, 3),
        "cpu_s": round(figures.cpu_s, 3),
        "connections": figures.connections,
        "connected": figures.connected,
        "failures": dict(figures.failed),
        "connect_ms": times(figures.welcome_us),
        "subscribe_ms": times(figures.ack_us),
        "messages": figures.messages,
        "messages_per_s": round(figures.messages / elapsed, 1),
        "frames": figures.frames,
        "bytes": figures.bytes,
        "past_messages": figures.past,
        "latency_ms": {"ts_recv": times(figures.recv_us), "ts_event": times(figures.event_us)},
        "heartbeats": figures.heartbeats,
        "lost": figures.lost.total(),
        "lost_by_topic": dict(figures.lost.most_common()),
        "unsettled": figures.unsettled,
        "announced": {
            "conflated": figures.conflated,
            "gap_seqs": figures.gap_seqs,
            "gaps_of_unknown_size": figures.gap_unknown,
        },
        "venue_gaps": figures.venue_gaps,
        "disconnects": dict(figures.lost_connections),
        "reconnects": {"since": figures.resumed, "new_epoch": figures.epochs},
        "bye": dict(figures.byes),
        "refused": dict(figures.refused),
    }


def table(found: dict[str, Any], processes: int) -> str:
    """Return the summary for a person."""

    def times(of: dict[str, float]) -> str:
        return "   ".join(f"{name} {ms:.2f}" for name, ms in of.items()) or "none"

    def counts(of: dict[str, int]) -> list[str]:
        return [f"{'':20}{count:,} x {reason}" for reason, count in of.items()]

    announced, again = found["announced"], found["reconnects"]
    cpu = found["cpu_s"] / (found["elapsed_s"] or 1) / processes
    lines = [
        f"{'connects':20}{found['connected']:,} of {found['connections']:,}, "
        f"{sum(found['failures'].values()):,} failed attempts",
        *counts(found["failures"]),
        f"{'  to welcome, ms':20}{times(found['connect_ms'])}",
        f"{'  to ack, ms':20}{times(found['subscribe_ms'])}",
        f"{'messages':20}{found['messages']:,} in {found['elapsed_s']:.1f} s: {found['messages_per_s']:,.0f} /s, "
        f"{found['bytes'] / 1e6:,.1f} MB",
        f"{'latency, ms':20}of those that came live: all but {found['past_messages']:,}",
        f"{'  ts_recv to here':20}{times(found['latency_ms']['ts_recv'])}",
        f"{'  ts_event to here':20}{times(found['latency_ms']['ts_event'])}",
        f"{'lost numbers':20}{found['lost']:,} without a word"
        + (f"; {found['unsettled']:,} not settled at the end" if found["unsettled"] else ""),
        *counts(found["lost_by_topic"]),
        f"{'  announced':20}{announced['conflated']:,} conflated, {announced['gap_seqs']:,} in gaps, "
        f"{announced['gaps_of_unknown_size']:,} gaps of unknown size",
        f"{'  of the venue':20}{found['venue_gaps']:,} gaps",
        f"{'disconnects':20}{sum(found['disconnects'].values()):,}; back with since {again['since']:,}, "
        f"in a new epoch {again['new_epoch']:,}",
        *counts(found["disconnects"]),
        f"{'bye':20}{sum(found['bye'].values()):,}",
        *counts(found["bye"]),
        f"{'refused':20}{sum(found['refused'].values()):,}",
        *counts(found["refused"]),
        f"{'own CPU':20}{cpu:.0%} of a core in each of {processes} process{'es' if processes > 1 else ''}"
        + ("; too much: the latencies are this program's, use more --processes" if cpu > 0.85 else ""),
    ]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Reads a pricefeedd daemon with many connections at once.")
    parser.add_argument("--url", default="ws://127.0.0.1:8765/ws", help="of the daemon's /ws (%(default)s)")
    parser.add_argument("--connections", type=int, default=100, help="readers at once (%(default)s)")
    parser.add_argument(
        "--duration", type=float, default=60.0, help="seconds, connecting included (%(default)s)"
    )
    parser.add_argument("--topics", nargs="+", default=["*:*:*"], help="of every reader (%(default)s)")
    parser.add_argument("--ramp", type=float, default=0.0, help="new connections per second (all at once)")
    parser.add_argument("--processes", type=int, default=1, help="that share the connections (%(default)s)")
    parser.add_argument("--every-ms", type=int, help="ask for one message per topic in so many ms")
    parser.add_argument("--batch-ms", type=int, help="let the daemon collect messages for so long")
    parser.add_argument("--no-reconnect", action="store_true", help="do not come back")
    parser.add_argument("--api-key", help="better in PRICEFEEDD_API_KEY, which other users cannot see")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.connections < 1 or given.processes < 1 or given.duration <= 0 or given.ramp < 0:
        parser.error("connections, processes and duration are greater than 0, ramp is not negative")
    for topic in given.topics:
        if topic.count(":") < 2:
            parser.error(f"{topic!r} is no topic: channel:venue:instrument, * for any part")
    try:
        Address(given.url).target()
    except ValueError as e:
        parser.error(f"{given.url!r}: {e}")
    return given


def wish_of(given: argparse.Namespace) -> Wish:
    """Return what the readers shall do."""
    key = given.api_key or os.environ.get("PRICEFEEDD_API_KEY")
    url = given.url
    if given.batch_ms is not None:
        url += f"{'&' if '?' in url else '?'}batch_ms={given.batch_ms}"
    headers = () if key is None else ((b"X-API-Key", key.encode()),)
    options = {} if given.every_ms is None else {"every_ms": given.every_ms}
    tls = ssl.create_default_context() if url.startswith("wss") else None
    return Wish(
        address=Address(url, headers, tls),
        topics=tuple(given.topics),
        options=options,
        reconnect=not given.no_reconnect,
    )


def main() -> int:
    """Read, print what was seen, and return the exit code."""
    given = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Nothing here is in a cycle; the collector would only look at what is read, again and again.
    gc.disable()
    try:
        if given.processes > 1:
            figures = trio.run(read_in_processes, given.processes, given.connections)
        else:
            figures = trio.run(partial(read, wish_of(given), given.connections, given.duration, given.ramp))
    except KeyboardInterrupt:
        return 130
    if given.part:
        print(json.dumps(attrs.asdict(figures)))
        return 0
    found = summary(figures)
    if given.json:
        print(json.dumps(found))
    else:
        topics = " ".join(given.topics)
        print(f"{given.url}   {topics}   {given.connections} connections for {given.duration:g} s\n")
        print(table(found, given.processes))
    if not figures.connected:
        return 69
    return 1 if figures.lost or figures.refused else 0


if __name__ == "__main__":
    sys.exit(main())
