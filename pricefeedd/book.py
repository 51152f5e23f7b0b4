"""The order book, made from a snapshot and deltas by the venue's own rule."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from enum import Enum

import attrs

from pricefeedd.events import BookDelta, BookSnapshot, Event, Level
from pricefeedd.rules import BookRule, Source, Verdict


class Ladder:
    """One side of a book. Keys are prices, negated for bids, so that the best is always the first."""

    __slots__ = ("_keys", "_levels", "_sign")

    def __init__(self, sign: float) -> None:
        self._sign = sign
        self._keys: list[float] = []
        self._levels: dict[float, Level] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def load(self, levels: Sequence[Level]) -> None:
        """Replace everything."""
        sign = self._sign
        self._levels = {sign * float(level[0]): level for level in levels if float(level[1])}
        self._keys = sorted(self._levels)

    def apply(self, levels: Sequence[Level]) -> None:
        """Set or remove levels in the order given; removing an unknown one is normal."""
        known = self._levels
        keys = self._keys
        sign = self._sign
        for level in levels:
            key = sign * float(level[0])
            if float(level[1]):
                if key not in known:
                    insort(keys, key)
                known[key] = level
            elif known.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]

    def cut(self, depth: int) -> list[Level]:
        """Drop what is deeper than `depth` levels and return it."""
        gone = [self._levels.pop(key) for key in self._keys[depth:]]
        del self._keys[depth:]
        return gone

    def best(self) -> float | None:
        """Return the best price; None if the side is empty."""
        return self._sign * self._keys[0] if self._keys else None

    def levels(self, depth: int | None = None) -> list[Level]:
        """Return the best levels, best first."""
        known = self._levels
        return [known[key] for key in (self._keys if depth is None else self._keys[:depth])]


class Book:
    """An order book of levels as the venue wrote them."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = Ladder(-1.0)
        self.asks = Ladder(1.0)

    def load(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Replace both sides."""
        self.bids.load(bids)
        self.asks.load(asks)

    def apply(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Apply one delta."""
        self.bids.apply(bids)
        self.asks.apply(asks)

    @property
    def crossed(self) -> bool:
        """Whether the best bid reaches the best ask: a sign of a lost message."""
        bid, ask = self.bids.best(), self.asks.best()
        return bid is not None and ask is not None and bid >= ask


class Standing(Enum):
    """Whether a book can be read."""

    WAITING = "waiting"
    LIVE = "live"


@attrs.frozen
class Broken:
    """The book is wrong from here on and must be made again."""

    reason: str


@attrs.frozen
class TooOld:
    """The snapshot is older than the stream: another must be fetched."""


class BookSync:
    """Keeps one book right: buffers until there is a snapshot, joins, then checks every delta.

    `snapshot` and `delta` return the events to publish, or say what went wrong; after `Broken` the book is
    waiting again and nothing of it can be read.
    """

    #: Deltas kept while a snapshot is on its way; with more lost than that, the next snapshot will be newer.
    MAX_BUFFERED = 5000
    #: Deltas in a row that are older than the book: the venue must have begun to count anew.
    MAX_STALE = 200

    def __init__(self, rule: BookRule) -> None:
        self.rule = rule
        self.book = Book()
        self.standing = Standing.WAITING
        self.sequence: int | None = None
        self.stale = 0
        self._stale_in_row = 0
        self._joined = False
        self._fetched = False
        self._buffers = rule.source is Source.REST or rule.splice
        self._buffer: list[BookDelta] = []
        self._cut: tuple[list[Level], list[Level]] = ([], [])

    def reset(self) -> None:
        """Forget the book: the stream broke."""
        self.standing = Standing.WAITING
        self.sequence = None
        self._joined = False
        self._stale_in_row = 0
        self._buffer = []
        self.book = Book()

    def current(self, like: Event) -> BookSnapshot:
        """Return the present book as a snapshot, with names and times of another event."""
        return BookSnapshot(
            venue=like.venue,
            instrument=like.instrument,
            venue_time_ns=like.venue_time_ns,
            received_ns=like.received_ns,
            origin=like.origin,
            bids=self.book.bids.levels(),
            asks=self.book.asks.levels(),
            sequence=self.sequence,
        )

    @property
    def buffered(self) -> int:
        """Deltas that wait for a snapshot."""
        return len(self._buffer)

    def take(self, event: BookSnapshot | BookDelta) -> list[Event] | Broken | TooOld:
        """Take what the stream says."""
        try:
            return (
                self.snapshot(event, fetched=False) if isinstance(event, BookSnapshot) else self.delta(event)
            )
        except ValueError as e:
            self.reset()
            return Broken(f"a level is not made of numbers ({e})")

    def snapshot(self, event: BookSnapshot, *, fetched: bool | None = None) -> list[Event] | Broken | TooOld:
        """Take a snapshot, and the deltas that were waiting for it.

        Args:
            fetched: It came by REST, so that it may be older or newer than where the stream stands; None if
                it came as the rule says.
        """
        if fetched is None:
            fetched = self.rule.source is Source.REST
        if (
            self.standing is Standing.LIVE
            and fetched
            and self.sequence is not None
            and event.sequence is not None
            and event.sequence <= self.sequence
        ):
            return []
        buffered, self._buffer = self._buffer, []
        if not fetched:
            buffered = []  # the stream itself begins anew here
        self._fetched = fetched
        self.book.load(event.bids, event.asks)
        self.sequence = event.sequence
        self._joined = False
        self.standing = Standing.LIVE
        if self.rule.depth is not None:
            self.book.bids.cut(self.rule.depth)
            self.book.asks.cut(self.rule.depth)
        newest: Event = event
        wrong = self._wrong(event.checksum)
        for index, delta in enumerate(buffered):
            if wrong is not None:
                break
            verdict = self._judge(delta)
            if verdict is Verdict.GAP and not self._joined:
                self.reset()
                self._buffer = buffered[index:]
                return TooOld()
            wrong = self._take(delta, verdict)
            if verdict is Verdict.APPLY:
                newest = delta
        if wrong is not None:
            self.reset()
            return wrong
        return [self.current(newest)]

    def delta(self, event: BookDelta) -> list[Event] | Broken | TooOld:
        """Take a delta: publish it, buffer it, drop it, or find that one is missing before it."""
        if self.standing is Standing.WAITING:
            if self._buffers:
                self._buffer.append(event)
                if len(self._buffer) > self.MAX_BUFFERED:
                    del self._buffer[: self.MAX_BUFFERED // 10]
            return []
        verdict = self._judge(event)
        if verdict is Verdict.STALE:
            self.stale += 1
            self._stale_in_row += 1
            if self._stale_in_row < self.MAX_STALE:
                return []
            self.reset()
            return Broken(f"{self.MAX_STALE} updates in a row are older than the book")
        self._stale_in_row = 0
        if verdict is Verdict.GAP and not self._joined and self._fetched:
            self.reset()
            self._buffer = [event]
            return TooOld()
        expected = self.sequence
        wrong = self._take(event, verdict)
        if wrong is not None:
            self.reset()
            if verdict is Verdict.GAP and self._buffers:
                # The stream itself goes on: what comes from here is joined to the next snapshot.
                self._buffer = [event]
                return Broken(
                    f"expected what follows {expected}, got {event.first_sequence or event.sequence}"
                )
            return wrong
        gone_bids, gone_asks = self._cut
        if gone_bids or gone_asks:
            # Readers hold what we hold: a level that we cut is removed from theirs as well.
            event = attrs.evolve(
                event,
                bids=[*event.bids, *([level[0], "0"] for level in gone_bids)],
                asks=[*event.asks, *([level[0], "0"] for level in gone_asks)],
            )
        return [event]

    def _judge(self, delta: BookDelta) -> Verdict:
        if self.sequence is None or delta.sequence is None:
            return Verdict.APPLY
        link = self.rule.follows if self._joined else self.rule.joins
        return link(self.sequence, delta)

    def _take(self, delta: BookDelta, verdict: Verdict) -> Broken | None:
        if verdict is Verdict.STALE:
            self.stale += 1
            return None
        if verdict is Verdict.GAP:
            return Broken(
                f"expected what follows {self.sequence}, got {delta.first_sequence or delta.sequence}"
            )
        self.book.apply(delta.bids, delta.asks)
        if delta.sequence is not None:
            self.sequence = delta.sequence
        self._joined = True
        if self.rule.depth is not None:
            self._cut = (self.book.bids.cut(self.rule.depth), self.book.asks.cut(self.rule.depth))
        return self._wrong(delta.checksum)

    def _wrong(self, checksum: int | None) -> Broken | None:
        if self.book.crossed and not self.rule.may_cross:
            return Broken("the best bid reaches the best ask")
        rule = self.rule
        if rule.checksum is not None and checksum is not None:
            depth = rule.checksum_depth
            ours = rule.checksum(self.book.bids.levels(depth), self.book.asks.levels(depth))
            if ours != checksum:
                return Broken(f"checksum {ours} is not the venue's {checksum}")
        return None
