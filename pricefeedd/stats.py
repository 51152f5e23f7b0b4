"""What the daemon counts about itself: plain integers, cheap enough for the hot path.

`/metrics`, `/ready`, `/status` and the logs all read from here; nobody else keeps counts of his own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import attrs

from pricefeedd.clock_offset import ClockOffset
from pricefeedd.histogram import PROCESSING_BUCKETS_S, Histogram, merged

#: What is told of "lately" is of so long, and remembered so often.
LATELY_NS = 60_000_000_000
MARK_NS = 5_000_000_000


@attrs.frozen(kw_only=True)
class BadFrame:
    """A frame that could not be decoded, kept for whoever asks why."""

    at_ns: int
    feed: str
    reason: str
    frame: bytes


@attrs.frozen(kw_only=True)
class Lately:
    """What was counted of a market in the last minute, or as much of it as there was.

    Attributes:
        venue, published, sent: Counts by bucket of the latencies of the same names.
    """

    messages: int
    decode_errors: int
    errors: int
    reconnects: int
    gaps: int
    lost: int
    venue: list[int]
    published: list[int]
    sent: list[int]

    def since(self, before: Lately) -> Lately:
        """Return what came to it since another time."""
        return Lately(
            messages=self.messages - before.messages,
            decode_errors=self.decode_errors - before.decode_errors,
            errors=self.errors - before.errors,
            reconnects=self.reconnects - before.reconnects,
            gaps=self.gaps - before.gaps,
            lost=self.lost - before.lost,
            venue=[now - then for now, then in zip(self.venue, before.venue, strict=True)],
            published=[now - then for now, then in zip(self.published, before.published, strict=True)],
            sent=[now - then for now, then in zip(self.sent, before.sent, strict=True)],
        )


@attrs.define(kw_only=True)
class MarketStats:
    """Counts of one market of one venue, or of one of its accounts.

    Attributes:
        account: Name of the account; "" for a market. An account may rightly be silent for days.
        messages: Frames received.
        bytes: Payload bytes received.
        events: Events published, by channel.
        decode_errors: Frames that could not be decoded.
        errors: Sessions that ended in failure, and requests that failed.
        connections: Open connections now.
        reconnects: Sessions begun after the first of each connection.
        duplicates: Events dropped because they had been seen.
        gaps: Holes found in sequences and ids.
        recovered: Events filled in from REST.
        lost: Events that stay lost, as far as they can be counted.
        resyncs: Books thrown away and made again.
        blocked: Reads that had to wait because too many waited for the gate.
        backfills: REST requests that filled candles or trades.
        idle_ns: When nothing was asked of the venue last, because it is served on demand and nobody read;
            None for never.
        last_message_ns: Wall clock of the newest frame; None before the first.
        breakers: State of the circuit breaker (`closed`, `open`, `half-open`), by endpoint.
        topics: How many are served, whether or not anything comes.
        live: How many of them may be believed.
        latency: From the venue's clock to ours, by channel; of the newest event of each read.
        published: From our receipt to the bus; each event of a read counts.
        sent: From the bus until it was handed to all readers that keep up; each event counts, if anybody reads.
        offset: How far the venue's clock is from ours.
        bad_frames: The last few frames that could not be decoded.
        last_error: What went wrong last, and when.
    """

    venue: str
    market: str
    messages: int = 0
    bytes: int = 0
    events: dict[str, int] = attrs.field(factory=dict)
    decode_errors: int = 0
    errors: int = 0
    connections: int = 0
    reconnects: int = 0
    duplicates: int = 0
    gaps: int = 0
    recovered: int = 0
    lost: int = 0
    resyncs: int = 0
    blocked: int = 0
    backfills: int = 0
    idle_ns: int | None = None
    last_message_ns: int | None = None
    breakers: dict[str, str] = attrs.field(factory=dict)
    topics: int = 0
    live: int = 0
    latency: dict[str, Histogram] = attrs.field(factory=dict)
    published: Histogram = attrs.field(factory=lambda: Histogram(PROCESSING_BUCKETS_S))
    sent: Histogram = attrs.field(factory=lambda: Histogram(PROCESSING_BUCKETS_S))
    offset: ClockOffset = attrs.field(factory=ClockOffset)
    bad_frames: deque[BadFrame] = attrs.field(factory=lambda: deque(maxlen=5))
    last_error: str = ""
    last_error_ns: int | None = None
    account: str = ""
    _marks: deque[tuple[int, Lately]] = attrs.field(factory=deque, init=False)

    @property
    def circuit_state(self) -> str:
        """The worst state of the market's circuit breakers."""
        states = set(self.breakers.values())
        return "open" if "open" in states else "half-open" if "half-open" in states else "closed"

    def healthy(self, now_ns: int, *, silence_s: float = 60.0) -> bool:
        """Return whether data flows (connected, no breaker open, a frame within `silence_s`) or need not."""
        if self.account:
            return self.connections > 0 and self.circuit_state != "open"
        return self.idle(now_ns, silence_s=silence_s) or (
            self.connections > 0
            and self.circuit_state != "open"
            and self.last_message_ns is not None
            and now_ns - self.last_message_ns < silence_s * 1e9
        )

    def idle(self, now_ns: int, *, silence_s: float = 60.0) -> bool:
        """Return whether nothing was asked of the venue within `silence_s`, so that no data is no fault."""
        return self.idle_ns is not None and now_ns - self.idle_ns < silence_s * 1e9

    def mark(self, now_ns: int) -> None:
        """Remember the counts of now, to tell later what came since; to be called about once a second."""
        marks = self._marks
        if marks and 0 <= now_ns - marks[-1][0] < MARK_NS:
            return
        all_now = self._all()
        if not marks:
            marks.append((now_ns, all_now.since(all_now)))  # all there is came lately
        elif now_ns < marks[-1][0]:
            marks.clear()  # the clock went back
        marks.append((now_ns, all_now))
        # The newest of those that are old enough is what the last minute began with.
        while len(marks) > 1 and now_ns - marks[1][0] >= LATELY_NS:
            marks.popleft()

    def lately(self, now_ns: int) -> Lately:
        """Return what was counted in the last minute."""
        all_now = self._all()
        for at_ns, then in self._marks:
            if now_ns - at_ns <= LATELY_NS + MARK_NS:
                return all_now.since(then)
        return all_now if not self._marks else all_now.since(self._marks[-1][1])

    def _all(self) -> Lately:
        return Lately(
            messages=self.messages,
            decode_errors=self.decode_errors,
            errors=self.errors,
            reconnects=self.reconnects,
            gaps=self.gaps,
            lost=self.lost,
            venue=merged(self.latency.values()),
            published=self.published.counts.copy(),
            sent=self.sent.counts.copy(),
        )

    def misunderstood(self, bad: BadFrame) -> None:
        """Count a frame that could not be understood, and keep it to be looked at."""
        self.decode_errors += 1
        self.bad_frames.append(bad)

    def failed(self, reason: str, now_ns: int) -> None:
        """Note a failure."""
        self.errors += 1
        self.last_error = reason
        self.last_error_ns = now_ns


class Lagging(Protocol):
    """A reader that does not keep up."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for it."""
        ...


@attrs.define(kw_only=True)
class ReaderStats:
    """Counts of all WebSocket readers together.

    Attributes:
        connected: Readers now.
        accepted: Readers since the start.
        closed: Readers that we closed, by close code.
        frames: Data frames handed to sockets.
        bytes: Bytes handed to sockets.
        conflated: Messages replaced by newer ones because their reader lagged.
        lost: Events dropped because their reader lagged.
        lagging: The readers that do not keep up now.
        delay: Of those: from our receipt to the socket, of the oldest message each time that there was room.
    """

    connected: int = 0
    accepted: int = 0
    closed: dict[int, int] = attrs.field(factory=dict)
    frames: int = 0
    bytes: int = 0
    conflated: int = 0
    lost: int = 0
    lagging: set[Lagging] = attrs.field(factory=set)
    delay: Histogram = attrs.field(factory=Histogram)


class Stats:
    """All counts of the daemon.

    Attributes:
        changes: Counts up with each market that is new, or dropped.
        loop_lag: How late the event loop woke who asked for it: what any task holds up, all others wait for.
    """

    def __init__(self, *, started_ns: int) -> None:
        self.started_ns = started_ns
        self.readers = ReaderStats()
        self.loop_lag = Histogram(PROCESSING_BUCKETS_S)
        self._markets: dict[tuple[str, str], MarketStats] = {}
        self.changes = 0

    def __iter__(self) -> Iterator[MarketStats]:
        return iter(self._markets.values())

    def market(self, venue: str, market: str) -> MarketStats:
        """Return the counts of a market, made now if they are new."""
        key = (venue, market)
        found = self._markets.get(key)
        if found is None:
            found = self._markets[key] = MarketStats(venue=venue, market=market)
            self.changes += 1
        return found

    def drop(self, venue: str, *, account: str = "") -> None:
        """Forget a venue that is served no longer, or one of its accounts."""
        gone = [k for k, m in self._markets.items() if k[0] == venue and account in ("", m.account)]
        for key in gone:
            del self._markets[key]
        self.changes += len(gone)

    def account(self, venue: str, account: str) -> MarketStats:
        """Return the counts of an account, which stand among the markets as `account:NAME`."""
        found = self.market(venue, f"account:{account}")
        found.account = account
        return found
