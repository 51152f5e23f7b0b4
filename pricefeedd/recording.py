"""Raw frames to a file, and from the file back through the same codec, gate and bus.

A recording is JSON lines (gzip where the name ends in `.gz`). The first line says what was recorded:
`{"pricefeedd": 1, "venue": "binance", "market": "spot", "instruments": [...], "channels": [...]}`. Each
further line is `{"t": ns, "k": kind, ...}`: `open` and `close` of a connection, `<` a frame received, `>` a
frame sent (`f` feed, `c` connection, `d` text or `b` base64), and `rest` (`u` URL, `s` status, `h` headers).
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import attrs
import orjson
import trio

from pricefeedd.backfill import TRIES, question
from pricefeedd.bus import Bus
from pricefeedd.errors import DecodeError, PricefeeddError, VenueError
from pricefeedd.events import Event, Origin, State
from pricefeedd.gate import Gate
from pricefeedd.instruments import Directory, Instrument, InstrumentMap
from pricefeedd.lines import Context, Want, WantBook, WantCandles, WantTrades
from pricefeedd.rest import HttpReply, HttpRequest, Page, RestCall
from pricefeedd.stats import Stats
from pricefeedd.trade_line import MAX_FILL_TRADES
from pricefeedd.venue import Venue

VERSION = 1


class Recorder:
    """Writes what a venue's runtime sees; use its methods as the runtime's taps."""

    def __init__(self, file: IO[bytes], *, now_ns: Callable[[], int]) -> None:
        self._file = file
        self._now_ns = now_ns
        self.frames = 0

    def begin(self, *, venue: str, market: str, instruments: list[str], channels: list[str]) -> None:
        """Write what is recorded."""
        self._write(
            {
                "pricefeedd": VERSION,
                "venue": venue,
                "market": market,
                "instruments": instruments,
                "channels": channels,
            }
        )

    def tap(self, kind: str, feed: str, carrier: int, frame: bytes) -> None:
        """Write one frame, or that a connection opened or closed."""
        line: dict[str, Any] = {"t": self._now_ns(), "k": kind, "f": feed, "c": carrier}
        if frame:
            line.update(_payload(frame))
        self.frames += kind == "<"
        self._write(line)

    def rest_tap(self, url: str, reply: HttpReply) -> None:
        """Write one REST answer."""
        line = {"t": reply.received_ns, "k": "rest", "u": url, "s": reply.status, "h": dict(reply.headers)}
        self._write({**line, **_payload(reply.body)})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(line) + b"\n")


def _payload(data: bytes) -> dict[str, str]:
    try:
        return {"d": data.decode()}
    except UnicodeDecodeError:
        return {"b": base64.b64encode(data).decode()}


@attrs.frozen(kw_only=True)
class Line:
    """One line of a recording after the first."""

    at_ns: int
    kind: str
    feed: str = ""
    carrier: int = 0
    url: str = ""
    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    data: bytes = b""


class RecordingError(PricefeeddError):
    """A file is not a recording that this version reads."""


_HEAD = {"venue": str, "market": str, "instruments": list, "channels": list}


def read(path: Path) -> tuple[dict[str, Any], Iterator[Line]]:
    """Return the first line, and an iterator over the others; a torn last line is passed over.

    Raises:
        RecordingError: Not a recording.
    """
    lines = _lines(path)
    try:
        head = orjson.loads(next(lines))
        if head["pricefeedd"] != VERSION:
            raise RecordingError(
                f"{path}: recording version {head['pricefeedd']}, this pricefeedd reads {VERSION}"
            )
        if not all(isinstance(head[key], kind) for key, kind in _HEAD.items()):
            raise RecordingError(f"{path}: its first line does not say what was recorded")
    except (StopIteration, orjson.JSONDecodeError, KeyError, TypeError) as e:
        raise RecordingError(f"{path}: not a pricefeedd recording") from e
    return head, _parsed(path, lines)


def _lines(path: Path) -> Iterator[bytes]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            yield from file
    except EOFError:
        return  # the recorder was killed while it wrote
    except (OSError, zlib.error) as e:
        raise RecordingError(f"{path}: cannot be read: {e}") from e


def _parsed(path: Path, lines: Iterator[bytes]) -> Iterator[Line]:
    for number, text in enumerate(lines, 2):
        if not text.endswith(b"\n"):
            return
        try:
            row = orjson.loads(text)
            data = base64.b64decode(row["b"], validate=True) if "b" in row else row.get("d", "").encode()
            yield Line(
                at_ns=row["t"],
                kind=row["k"],
                feed=row.get("f", ""),
                carrier=row.get("c", 0),
                url=row.get("u", ""),
                status=row.get("s", 0),
                headers=row.get("h", {}),
                data=data,
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as e:
            raise RecordingError(f"{path}, line {number}: {e!r}") from e


def _same_question(asked: HttpRequest, url: str) -> int:
    """Return how well a recorded URL answers a request: 2 exactly, 1 but for numbers (times, ids), 0 not."""
    parts = urlsplit(url)
    if not parts.path.endswith(asked.path):
        return 0
    if parts.query == urlencode(asked.params):
        return 2
    recorded = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    ours = {key: str(value) for key, value in asked.params.items()}
    words = [key for key in ours if not ours[key].isdigit()]
    return int(all(recorded.get(key) == ours[key] for key in words))


@attrs.define(eq=False)
class _Asked:
    """A question that a recorded answer may fit, with what came of it so far."""

    want: Want
    call: RestCall[Any]
    items: list[Any] = attrs.field(factory=list)
    failures: int = 0


def _replayed(items: Iterable[Any]) -> list[Event]:
    """Return the events among what a codec said, marked; they are not shared with anybody yet."""
    events = [item for item in items if isinstance(item, Event)]
    for event in events:
        event.origin = Origin.REPLAY
    return events


class Replay:
    """A recording on its way through codec and gate to a bus."""

    def __init__(self, path: Path, venue: Venue, *, bus: Bus, directory: Directory, stats: Stats) -> None:
        """Read the head of the recording.

        Raises:
            RecordingError: Not a recording.
        """
        self.head, self._lines = read(path)
        self._path = path
        self.venue = venue
        self.now_ns = 0
        self.frames = 0
        self._bus = bus
        self._directory = directory
        self._market = self.head["market"]
        if self._market not in venue.rules:
            raise RecordingError(f"{path}: holds the market {self._market}, which {venue.name} does not have")
        self._stats = stats.market(venue.name, self._market)
        self._gate = Gate(
            Context(venue=venue.name, rules=venue.rules[self._market], stats=self._stats, wants=[])
        )
        self._names: dict[str, str] = {}
        self._map: InstrumentMap | None = None
        self._by_feed: dict[str, dict[tuple[str, str], None]] = {}  # in order, so that each replay is alike
        self._asked: list[_Asked] = []
        self._tick_ns = 0

    async def run(self, *, speed: float = 1.0) -> None:
        """Send everything through.

        Args:
            speed: 1 keeps the recorded pace, 10 is ten times faster, 0 is as fast as it goes.

        Raises:
            RecordingError: The file is broken.
        """
        started = trio.current_time()
        first_ns: int | None = None
        for number, line in enumerate(self._lines):
            first_ns = line.at_ns if first_ns is None else first_ns
            due = started + (line.at_ns - first_ns) / 1e9 / speed if speed else 0.0
            if due - trio.current_time() > 0.001:
                await trio.sleep_until(due)
            elif number % 50 == 0:
                await trio.lowlevel.checkpoint()
            self.now_ns = line.at_ns
            out: list[Event] = []
            if line.at_ns - self._tick_ns > 1_000_000_000:
                self._tick_ns = line.at_ns
                self._gate.tick(line.at_ns, out)
            match line.kind:
                case "open":
                    self._gate.accepted(line.carrier, self._by_feed.get(line.feed, ()), line.at_ns, out)
                case "close":
                    topics = self._by_feed.get(line.feed, ())
                    self._gate.lost(line.carrier, topics, "recorded", line.at_ns, out, state=State.CONNECTING)
                case "<":
                    self._frame(line, out)
                case "rest":
                    self._rest(line, out)
            if out:
                self._bus.publish(out)
            self._ask()

    def _frame(self, line: Line, out: list[Event]) -> None:
        self.frames += 1
        self._stats.messages += 1
        self._stats.last_message_ns = line.at_ns
        try:
            feed = self.venue.feed(line.feed)
        except KeyError as e:
            raise RecordingError(f"{self._path}: {self.venue.name} has no feed {line.feed!r}") from e
        try:
            said = self.venue.codec.decode(line.data, feed=feed, names=self._names, received_ns=line.at_ns)
        except DecodeError:
            self._stats.decode_errors += 1
            return
        self._gate.admit(_replayed(said), out)

    def _rest(self, line: Line, out: list[Event]) -> None:
        reply = HttpReply(status=line.status, headers=line.headers, body=line.data, received_ns=line.at_ns)
        if self._map is None:
            call = self.venue.rest.instruments(self._market)
            if _same_question(call.request, line.url) and 200 <= line.status < 300:
                self._begin(call.parse(reply).items, out)
            return
        best = max(self._asked, key=lambda asked: _same_question(asked.call.request, line.url), default=None)
        if best is None or not _same_question(best.call.request, line.url):
            return
        try:
            self.venue.rest.examine(reply)
            page = best.call.parse(reply)
        except VenueError as e:
            best.failures += 1
            if e.retry and (isinstance(best.want, WantBook) or best.failures < TRIES):
                return  # the runtime asked once more
            page = Page(items=())
            best.items.clear()
        best.items += _replayed(page.items)
        if page.next is not None and len(best.items) < MAX_FILL_TRADES:
            best.call = page.next
            return
        self._asked.remove(best)
        self._answer(best.want, best.items, line.at_ns, out)

    def _answer(self, want: Want, items: list[Any], now_ns: int, out: list[Event]) -> None:
        match want:
            case WantBook():
                self._gate.book_fetched(want.instrument, items[0] if items else None, now_ns, out)
            case WantTrades():
                self._gate.trades_fetched(want.instrument, items, now_ns, out)
            case WantCandles():
                self._gate.candles_fetched(want, items or None, now_ns, out)

    def _begin(self, instruments: Any, out: list[Event]) -> None:
        """Know the instruments, and expect the topics that were recorded."""
        self._map = InstrumentMap(self.venue.name, self._market, instruments)
        self._directory.put(self._map)
        self._names = dict(self._map.names)
        for spelling in self.head["instruments"]:
            instrument: Instrument = self._map.find(spelling)
            for channel in self.head["channels"]:
                streams = self.venue.codec.streams(channel, instrument)
                if not streams:
                    continue
                line = self._gate.expect(channel, instrument.name)
                topic = self._bus.topic(channel, self.venue.name, instrument.name)
                if channel == "book":
                    topic.book = lambda name=instrument.name: self._gate.book(name)
                line.say(State.CONNECTING, "", self.now_ns, out)
                for stream in streams:
                    self._by_feed.setdefault(stream.feed, {})[channel, instrument.name] = None

    def _ask(self) -> None:
        """Turn what the gate wants into questions that a recorded answer may fit."""
        if self._map is None:
            return
        for want in self._gate.take_wants():
            call = question(self.venue.rest, want, self._map.find(want.instrument))
            if call is not None:
                self._asked.append(_Asked(want, call))
