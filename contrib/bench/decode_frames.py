"""Records what a venue sends, for the decode part: its plugin's own fake plays, and a tap keeps the frames.

The same stage as the conformance kit's (`pricefeedd.testing.conformance`), under Trio's mock clock: minutes of
the venue take a second or two.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, cast

import attrs
import trio
import trio.testing

from pricefeedd.codec import Codec, Signal
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Origin, Ticker
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply, Page, Rest, RestCall
from pricefeedd.testing.conformance import Cast, Scene, cast_of
from pricefeedd.venue import Feed, Venue

#: Frames that are kept of each row.
KEPT = 200

#: A quick market for this long, of the venue's time, and so many connections after the first.
_RATE, _PLAY_S, _RECONNECTS = 10.0, 70.0, 24

GZIP = b"\x1f\x8b"


@attrs.define(kw_only=True)
class Row:
    """Frames of one kind, in the order in which they came.

    Attributes:
        channel: The channels that its events belong to; books tell snapshot and delta apart.
        frames: No two are the same.
        events: How many events they say together.
        levels: Median number of book levels in a frame; None if it is no book.
    """

    market: str
    channel: str
    feed: str
    frames: list[bytes] = attrs.field(factory=list)
    events: int = 0
    levels: float | None = None
    _seen: set[bytes] = attrs.field(factory=set, init=False)
    _counts: list[int] = attrs.field(factory=list, init=False)

    def add(self, frame: bytes, events: Sequence[Event]) -> None:
        """Keep a frame, unless there are enough or it is known."""
        # Two gzip members of the same text differ by their time.
        key = gzip.decompress(frame) if frame.startswith(GZIP) else frame
        if len(self.frames) >= KEPT or key in self._seen:
            return
        self._seen.add(key)
        self.frames.append(frame)
        self.events += len(events)
        books = [event for event in events if isinstance(event, BookSnapshot | BookDelta)]
        if books:
            self._counts.append(sum(len(book.bids) + len(book.asks) for book in books))
            self.levels = median(self._counts)


@attrs.define(kw_only=True)
class Recorded:
    """What one venue sent.

    Attributes:
        rows: By market, feed and channel.
        books: The books by REST that the deltas join, by market and our name.
        begin: The first frame with a book of each instrument, by market: what deltas on the stream join.
        names: Our names by the venue's symbol, by feed: what `decode` is given.
        instruments: What was read, by market.
    """

    venue: str
    rows: dict[tuple[str, str, str], Row] = attrs.field(factory=dict)
    books: dict[tuple[str, str], BookSnapshot] = attrs.field(factory=dict)
    begin: dict[str, dict[str, bytes]] = attrs.field(factory=dict)
    names: dict[str, dict[str, str]] = attrs.field(factory=dict)
    instruments: dict[str, list[Instrument]] = attrs.field(factory=dict)

    def saw(
        self,
        market: str,
        feed: Feed,
        names: Mapping[str, str],
        frame: bytes,
        said: Iterable[Event | Signal],
    ) -> None:
        """Put a frame where it belongs; those without events, and of the past, are passed over."""
        events = [one for one in said if isinstance(one, Event)]
        if not events or any(event.origin is not Origin.LIVE for event in events):
            return
        channel = " + ".join(sorted({_kind(event) for event in events}))
        self.names.setdefault(feed.name, dict(names))
        for event in events:
            if isinstance(event, BookSnapshot):
                self.begin.setdefault(market, {}).setdefault(event.instrument, frame)
            if isinstance(event, BookDelta) and not self._joins(market, event):
                return
        row = self.rows.setdefault(
            (market, feed.name, channel), Row(market=market, channel=channel, feed=feed.name)
        )
        row.add(frame, events)

    def _joins(self, market: str, delta: BookDelta) -> bool:
        """Return whether the book that it changes is there, so that a rival can apply it as well."""
        if delta.instrument in self.begin.get(market, {}):
            return True
        book = self.books.get((market, delta.instrument))
        return book is not None and (delta.sequence or 0) > (book.sequence or 0)

    def _before(self, row: Row) -> Iterable[bytes]:
        """Return the frames with the books that a row changes."""
        return dict.fromkeys(self.begin.get(row.market, {}).values()) if "delta" in row.channel else ()

    def as_json(self) -> dict[str, Any]:
        """Return it for the contestants, rows in the table's order."""
        return {
            "venue": self.venue,
            "names": self.names,
            "instruments": {
                market: [
                    attrs.asdict(one, filter=attrs.filters.exclude("expiry_ns", "alias_of"))
                    for one in instruments
                ]
                for market, instruments in self.instruments.items()
            },
            "books": [
                {
                    "market": market,
                    "name": name,
                    "bids": [list(level) for level in book.bids],
                    "asks": [list(level) for level in book.asks],
                    "sequence": book.sequence,
                }
                for (market, name), book in self.books.items()
            ],
            "rows": [
                {
                    "market": row.market,
                    "channel": row.channel,
                    "feed": row.feed,
                    "levels": row.levels,
                    "bytes": median(len(frame) for frame in row.frames),
                    "events": row.events,
                    "begin": [_text(frame) for frame in self._before(row)],
                    "frames": [_text(frame) for frame in row.frames],
                }
                for row in sorted(self.rows.values(), key=lambda row: (row.channel, row.market, row.feed))
            ],
        }


def _kind(event: Event) -> str:
    if isinstance(event, BookSnapshot):
        return "book snapshot"
    if isinstance(event, BookDelta):
        return "book delta"
    if isinstance(event, Candle):
        return "candle_1m"
    if isinstance(event, Ticker) and event.last is None:
        return f"ticker ({_part(event)})"
    return event.channel


def _part(ticker: Ticker) -> str:
    """Return what a ticker without a last price is mainly about."""
    if ticker.mark_price is not None:
        return "mark"
    if ticker.funding_rate is not None:
        return "funding"
    if ticker.index_price is not None:
        return "index"
    return "open interest" if ticker.volume_24h is None else "volume"


def _text(frame: bytes) -> str:
    return base64.b64encode(frame).decode()


class _TappedCodec:
    def __init__(self, codec: Codec, market: str, into: Recorded) -> None:
        self._codec = codec
        self._market = market
        self._into = into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        said = self._codec.decode(frame, feed=feed, names=names, received_ns=received_ns)
        self._into.saw(self._market, feed, names, frame, said)
        return said


class _TappedRest:
    def __init__(self, rest: Rest, market: str, into: Recorded) -> None:
        self._rest = rest
        self._market = market
        self._into = into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rest, name)

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        call = self._rest.book(instrument)
        if call is None:
            return None
        asked = call

        def parse(reply: HttpReply) -> Page[BookSnapshot]:
            page = asked.parse(reply)
            for book in page.items:
                self._into.books.setdefault((self._market, book.instrument), book)
            return page

        return attrs.evolve(call, parse=parse)


def _tapped(venue: Venue, market: str, into: Recorded) -> Venue:
    """Return the venue with a tap on its codec and its books by REST."""
    configure = venue.configure

    def configured(declared: Venue, settings: Any) -> Venue:
        made = configure(declared, settings)
        # Both delegate what they do not have.
        codec = cast("Codec", _TappedCodec(made.codec, market, into))
        rest = cast("Rest", _TappedRest(made.rest, market, into))
        return attrs.evolve(made, codec=codec, rest=rest)

    return attrs.evolve(venue, configure=configured)


async def _play(market: Cast, into: Recorded) -> None:
    tapped = attrs.evolve(market, venue=_tapped(market.venue, market.market, into))
    names = [listing.name for listing in tapped.listings()[:2]]
    ruined = names[:1] if "liquidation" in tapped.configured.channels[tapped.market] else []
    async with tapped.scene(begin=False, rate=_RATE, also={name: ["liquidation"] for name in ruined}) as s:
        await s.until_live()
        await _live(s, ruined)
        for _ in range(_RECONNECTS):
            s.faults.cut()
            await trio.sleep(8)
        into.instruments[tapped.market] = [s.instrument(name) for name in s.names]


async def _live(s: Scene, ruined: Sequence[str]) -> None:
    for _ in range(int(_PLAY_S)):
        for name in ruined:
            s.fake.tell(s.fake.market.liquidate(name, s.fake.now_ns()))
        await trio.sleep(1)


def record(venue: str) -> Recorded:
    """Return the frames of every market of an installed venue.

    Raises:
        PluginError: It is not installed, or has no fake.
    """
    recorded = Recorded(venue=venue)
    for market in cast_of(venue):
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(_play, market, recorded, clock=clock)
    return recorded
