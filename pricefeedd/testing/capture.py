"""Recorded traffic of venues: reads it, and serves it again to whoever speaks the venue's protocol.

One record per line, UTF-8; URLs hold no blanks and frames no line breaks:

    <url> <-> <seconds>             connection opened
    <url> <- <seconds>: <text>      frame sent by the client
    <seconds>: <text>               frame received
    <url> -> <seconds>: <body>      answer to a GET
    configuration: {...}            about the recorder; passed over

Seconds are decimals since the Unix epoch, on the recorder's clock.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import attrs
import trio

from pricefeedd.testing.fake import FakeVenue
from pricefeedd.testing.sockets import Request, Response, Socket

_LINE = re.compile(
    r"(?:(?P<url>[a-z]+://\S+) (?P<arrow><->|<-|->) )?(?P<seconds>\d+(?:\.\d+)?)(?:: (?P<text>.*))?\Z"
)


class What(Enum):
    """The kind of a record."""

    OPENED = "<->"
    SENT = "<-"
    RECEIVED = ""
    REPLY = "->"


@attrs.frozen(kw_only=True)
class Record:
    """One line of a capture.

    Attributes:
        url: Where it went to or came from; "" for a received frame.
        time_ns: The recorder's clock, ns since the Unix epoch.
        text: Frame or body; "" for an opened connection.
    """

    what: What
    url: str = ""
    time_ns: int
    text: str = ""


def read_capture(*paths: Path | str) -> list[Record]:
    """Return the records of one or several files, by file and line.

    Raises:
        ValueError: A line is none of the forms above; the message names it.
    """
    records = []
    for path in paths:
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                text = line.removesuffix("\n")
                if text.startswith("configuration: ") or not text:
                    continue
                records.append(_record(text, f"{path}:{number}"))
    return records


def _record(line: str, place: str) -> Record:
    found = _LINE.match(line)
    if found is None:
        raise ValueError(f"{place}: not a record of a capture: {line[:80]!r}")
    what = What(found["arrow"] or "")
    if (what is What.OPENED) != (found["text"] is None):
        raise ValueError(f"{place}: a record with a text where none belongs, or without one: {line[:80]!r}")
    time_ns = int(Decimal(found["seconds"]) * 1_000_000_000)
    return Record(what=what, url=found["url"] or "", time_ns=time_ns, text=found["text"] or "")


def frames(records: Iterable[Record]) -> list[bytes]:
    """Return the received frames, as codecs take them."""
    return [record.text.encode() for record in records if record.what is What.RECEIVED]


@attrs.frozen(kw_only=True)
class Tape:
    """How a venue's capture is to be served again.

    Attributes:
        records: What was recorded; order within each stream is kept.
        prefix: What stands before the recorded paths at the fake: `/linear`, say.
        stream_of: Returns scope and name of the stream that a received frame belongs to; None to leave the
            frame out (an ack, which the fake answers itself).
        book_of: Returns the key under which a stream's book snapshot is asked for, the value of one of
            `key_params`; None for a stream that needs no snapshot from REST.
        book_path: End of the path of snapshot requests, such as `/depth`.
        key_params: Query parameters that tell recorded replies of one path apart.
    """

    records: Sequence[Record]
    prefix: str = ""
    stream_of: Callable[[str], tuple[str, str] | None]
    book_of: Callable[[str], str | None] = lambda stream: None
    book_path: str = "/depth"
    key_params: tuple[str, ...] = ("symbol",)


@attrs.define(eq=False)
class _Recorded:
    """The frames of one stream, and what was recorded of its book."""

    scope: str
    name: str
    book: tuple[str, str] | None
    frames: list[tuple[int, Record]] = attrs.field(factory=list)
    begun: bool = False


class CaptureServer:
    """Serves tapes through a venue's fake, which speaks the protocol and keeps the subscriptions.

    Each stream is sent once, to those who have subscribed it when it begins. Streams that are subscribed
    together are sent in the order of the file. The part of a book stream that was recorded before its
    snapshot goes first; the rest of all of them waits until each of these snapshots was fetched, as it
    was when the tape was made.

    Attributes:
        fake: The fake; run it, or hand it streams, as usual.
        sent: Frames sent, by stream.
        fetched: Book snapshots fetched, by prefix and key.
    """

    def __init__(self, fake: FakeVenue, tapes: Iterable[Tape], *, settle_s: float = 0.25) -> None:
        """Prepare to serve tapes.

        Args:
            settle_s: `run` begins when no stream was subscribed for this long, so that streams of one
                client begin together.
        """
        self.fake = fake
        self.sent: Counter[str] = Counter()
        self.fetched: Counter[tuple[str, str]] = Counter()
        self._settle_s = settle_s
        self._replies: dict[tuple[str, str], str] = {}
        self._paths: set[str] = set()
        self._books: dict[tuple[str, str], tuple[str, str]] = {}
        self._snapshot_at: dict[tuple[str, str], int] = {}
        self._streams: dict[tuple[str, str], _Recorded] = {}
        self._key_params: tuple[str, ...] = ()
        number = 0
        for tape in tapes:
            self._key_params += tape.key_params
            for record in tape.records:
                number += 1
                self._take(tape, record, number)
        fake.answers.append(self._answer)

    def _take(self, tape: Tape, record: Record, number: int) -> None:
        if record.what is What.REPLY:
            parts = urlsplit(record.url)
            path = tape.prefix + parts.path
            key = self._key(dict(parse_qsl(parts.query)))
            self._paths.add(path)
            self._replies[path, key] = record.text
            if path.endswith(tape.book_path):
                self._books[path, key] = (tape.prefix, key)
                self._snapshot_at[tape.prefix, key] = record.time_ns
        elif record.what is What.RECEIVED and (place := tape.stream_of(record.text)) is not None:
            scope, name = place
            book_key = tape.book_of(name)
            book = None if book_key is None else (tape.prefix, book_key.upper())
            stream = self._streams.setdefault(place, _Recorded(scope, name, book))
            stream.frames.append((number, record))

    def _key(self, query: Mapping[str, str]) -> str:
        return next((query[param].upper() for param in self._key_params if param in query), "")

    @property
    def streams(self) -> list[tuple[str, str]]:
        """Scope and name of all streams on the tapes."""
        return list(self._streams)

    async def _answer(self, request: Request) -> Response | None:
        if request.path not in self._paths:
            return None
        key = self._key(request.query)
        text = self._replies.get((request.path, key), self._replies.get((request.path, "")))
        if text is None:
            return Response(status=400, body=b'{"code":-1121,"msg":"Invalid symbol."}')
        if (request.path, key) in self._books:
            self.fetched[self._books[request.path, key]] += 1
            self.fake.changed()
        return Response(body=text.encode())

    # --- Playing ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play streams as they are subscribed, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self.fake.wait_for(lambda: bool(self._waiting()))
                count = -1
                while count != len(self._waiting()):
                    count = len(self._waiting())
                    await trio.sleep(self._settle_s)
                chosen = self._waiting()
                for stream in chosen:
                    stream.begun = True
                nursery.start_soon(self._play, chosen)

    async def play(self, *names: str) -> None:
        """Play these streams, or all that are subscribed, now; returns when all of it was handed over."""
        chosen = [stream for stream in self._waiting() if not names or stream.name in names]
        for stream in chosen:
            stream.begun = True
        await self._play(chosen)

    async def wait_played(self) -> None:
        """Wait until all streams that are subscribed now were played to their ends."""
        wanted = [stream for stream in self._streams.values() if self._is_wanted(stream)]
        await self.fake.wait_for(
            lambda: all(self.sent[stream.name] == len(stream.frames) for stream in wanted)
        )
        for socket in tuple(self.fake.sockets):
            await socket.drained()

    def _is_wanted(self, stream: _Recorded) -> bool:
        return self.fake.wanted(stream.name, scope=stream.scope)

    def _waiting(self) -> list[_Recorded]:
        return [s for s in self._streams.values() if not s.begun and self._is_wanted(s)]

    async def _play(self, streams: Sequence[_Recorded]) -> None:
        early: list[tuple[int, _Recorded, Record]] = []
        late: list[tuple[int, _Recorded, Record]] = []
        for stream in streams:
            until_ns = self._snapshot_at.get(stream.book) if stream.book is not None else None
            for number, record in stream.frames:
                # A client may ask for the snapshot only when it sees the first change.
                first = number == stream.frames[0][0]
                is_early = until_ns is not None and (first or record.time_ns <= until_ns)
                (early if is_early else late).append((number, stream, record))
        await self._send(early)
        books = {s.book for s in streams if s.book is not None and s.book in self._snapshot_at}
        await self.fake.wait_for(functools.partial(books.issubset, self.fetched))
        await self._send(late)

    async def _send(self, chosen: list[tuple[int, _Recorded, Record]]) -> None:
        for _, stream, record in sorted(chosen, key=lambda entry: entry[0]):
            for socket in tuple(self._readers(stream)):
                self.fake.faults.deliver(socket, stream.name, record.text)
                await socket.drained()
            self.sent[stream.name] += 1
        self.fake.changed()
        await trio.lowlevel.checkpoint()

    def _readers(self, stream: _Recorded) -> Iterator[Socket]:
        return (s for s in self.fake.sockets if s.scope == stream.scope and stream.name in s.subscriptions)
