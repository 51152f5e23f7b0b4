"""What the daemon counts about itself: plain integers, cheap enough for the hot path.

`/metrics`, `/ready`, `/status` and the logs all read from here; nobody else keeps counts of his own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

import attrs

#: Upper bounds of the latency buckets, seconds; the last bucket has none.
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Histogram:
    """Counts by bucket, as Prometheus wants them."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self.total_s += seconds


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bound, as the exposition format wants them."""
    total = 0
    out: list[tuple[str, float]] = []
    bounds = [*map(str, LATENCY_BUCKETS_S), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        out.append((bound, total))
    return out


@attrs.frozen(kw_only=True)
class BadFrame:
    """A frame that could not be decoded, kept for whoever asks why."""

    at_ns: int
    feed: str
    reason: str
    frame: bytes


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
        backfills: REST requests that filled candles or trades.
        idle_ns: When nothing was asked of the venue last, because it is served on demand and nobody read;
            None for never.
        last_message_ns: Wall clock of the newest frame; None before the first.
        breakers: State of the circuit breaker (`closed`, `open`, `half-open`), by endpoint.
        latency: From the venue's clock to ours, by channel.
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
    backfills: int = 0
    idle_ns: int | None = None
    last_message_ns: int | None = None
    breakers: dict[str, str] = attrs.field(factory=dict)
    latency: dict[str, Histogram] = attrs.field(factory=dict)
    bad_frames: deque[BadFrame] = attrs.field(factory=lambda: deque(maxlen=5))
    last_error: str = ""
    last_error_ns: int | None = None
    account: str = ""

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

    def misunderstood(self, bad: BadFrame) -> None:
        """Count a frame that could not be understood, and keep it to be looked at."""
        self.decode_errors += 1
        self.bad_frames.append(bad)

    def failed(self, reason: str, now_ns: int) -> None:
        """Note a failure."""
        self.errors += 1
        self.last_error = reason
        self.last_error_ns = now_ns


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
    """

    connected: int = 0
    accepted: int = 0
    closed: dict[int, int] = attrs.field(factory=dict)
    frames: int = 0
    bytes: int = 0
    conflated: int = 0
    lost: int = 0


class Stats:
    """All counts of the daemon."""

    def __init__(self, *, started_ns: int) -> None:
        self.started_ns = started_ns
        self.readers = ReaderStats()
        self._markets: dict[tuple[str, str], MarketStats] = {}

    @property
    def changes(self) -> int:
        """Counts up with each market that is new."""
        return len(self._markets)

    def __iter__(self) -> Iterator[MarketStats]:
        return iter(self._markets.values())

    def market(self, venue: str, market: str) -> MarketStats:
        """Return the counts of a market, made now if they are new."""
        key = (venue, market)
        found = self._markets.get(key)
        if found is None:
            found = self._markets[key] = MarketStats(venue=venue, market=market)
        return found

    def account(self, venue: str, account: str) -> MarketStats:
        """Return the counts of an account, which stand among the markets as `account:NAME`."""
        found = self.market(venue, f"account:{account}")
        found.account = account
        return found
