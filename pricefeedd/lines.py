"""What is remembered of one topic: what came last, which connections bring it, and whether it is alive.

A line takes events in the venue's order and lets each through once, in order. It is pure state: what it
wants fetched it says in `wants`, and somebody tells it the answer. Trades, minutes and books have something
to fetch, and modules of their own; the lines here only tell news from what is known.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from pricefeedd.events import (
    Event,
    Gap,
    Origin,
    Price,
    Quote,
    State,
    Status,
    Ticker,
)
from pricefeedd.rules import Rules
from pricefeedd.stats import MarketStats

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS

#: A quote whose number goes back while the venue's clock went on by this much: the venue began to count anew.
RENUMBERED_NS = 1_000_000_000

#: Ticks with data before a stream's pace is believed.
LEARN_TICKS = 20


@attrs.frozen(kw_only=True)
class WantBook:
    """A snapshot is needed. `late` is how many came too old already, in a row."""

    channel: ClassVar[str] = "book"
    instrument: str
    late: int = 0


@attrs.frozen(kw_only=True)
class WantTrades:
    """The trades strictly between two ids are missing; or, without ids, those between two times may be."""

    channel: ClassVar[str] = "trade"
    instrument: str
    after_id: str | None
    before_id: str | None
    from_ns: int
    to_ns: int


@attrs.frozen(kw_only=True)
class WantCandles:
    """The minutes that open in [start_ns, end_ns] are missing.

    Attributes:
        channel: Whose they are: the minutes' own line, or a longer interval that begins in its middle.
    """

    instrument: str
    start_ns: int
    end_ns: int
    channel: str = "candle_1m"


@attrs.frozen(kw_only=True)
class WantResubscribe:
    """The topic's streams should be asked for again."""

    channel: str
    instrument: str
    reason: str


Want = WantBook | WantTrades | WantCandles | WantResubscribe


@attrs.define
class VenueClock:
    """How far the venue's time has come, by what it sent for a market.

    Attributes:
        latest_ns: The newest time in any event or answer; 0 before the first.
        by_carrier: The newest time in an event, by the connection that brought it.
    """

    latest_ns: int = 0
    by_carrier: dict[int, int] = attrs.field(factory=dict)

    def shown_by(self, carriers: Iterable[int]) -> int:
        """Return the newest time that came over one of these connections; 0 if none did.

        A stream that shares a connection with later events has nothing more to say of the time before them.
        """
        return max((self.by_carrier.get(carrier, 0) for carrier in carriers), default=0)


@attrs.frozen(kw_only=True)
class Context:
    """What all lines of a market share."""

    venue: str
    rules: Rules
    stats: MarketStats
    wants: list[Want]
    stale_after_s: float = 30.0
    backfill_after_s: float = 3.0
    dedupe_window_s: float = 120.0
    dedupe_entries: int = 10_000
    clock: VenueClock = attrs.field(factory=VenueClock)


class Seen:
    """Keys seen lately; the oldest are forgotten first, by age and by number."""

    def __init__(self, window_s: float, entries: int) -> None:
        self._window_ns = int(window_s * SECOND_NS)
        self._entries = entries
        self._keys: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def since(self, at_ns: int) -> frozenset[Hashable]:
        """Return the keys that were seen at that time or later."""
        newest = itertools.takewhile(lambda item: item[1] >= at_ns, reversed(self._keys.items()))
        return frozenset(key for key, _ in newest)

    def again(self, key: Hashable, now_ns: int) -> bool:
        """Return whether the key was seen before, and remember it."""
        keys = self._keys
        while keys:
            oldest = next(iter(keys))
            if now_ns - keys[oldest] <= self._window_ns:
                break
            del keys[oldest]
        if key in keys:
            return True
        if len(keys) >= self._entries:
            keys.popitem(last=False)
        keys[key] = now_ns
        return False


E = TypeVar("E", bound=Event)


class Line(Generic[E]):
    """One topic.

    Attributes:
        state: What may be believed of it.
        reason: Why; None before readers were told anything.
        carriers: Connections that bring it now.
        count: Events that came in, duplicates too: signs of life.
        duplicates: Events of these that came again.
        gaps: Holes that were found.
        seen_ns: When one came last, to the second; None before the first.
        owes_within_s: A healthy venue sends at least this often; None if silence is no fault.
    """

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        self.channel = channel
        self.instrument = instrument
        self.context = context
        self.state = State.CONNECTING
        self.reason: str | None = None
        self.carriers: set[int] = set()
        self.count = 0
        self.duplicates = 0
        self.gaps = 0
        self.seen_ns: int | None = None
        self.owes_within_s: float | None = None
        self._counted = 0
        self._active = 0
        self._mean_gap_ns: float | None = None
        self._attached_ns = 0
        self._patience = 1.0

    # --- connections ----------------------------------------------------------------------------------

    def accepted(self, carrier: int, now_ns: int, out: list[Event]) -> None:
        """Note that a connection brings this topic from now on."""
        first = not self.carriers
        self.carriers.add(carrier)
        if first:
            self._attached_ns = now_ns
            self.begin(now_ns, out)

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh after there was no connection."""
        self.say(State.LIVE, "", now_ns, out)

    def lost(self, carrier: int, state: State, reason: str, now_ns: int, out: list[Event]) -> None:
        """Note that a connection is gone; readers hear of it when it was the last."""
        self.carriers.discard(carrier)
        if not self.carriers:
            self.end()
            self.say(state, reason, now_ns, out)

    def end(self) -> None:
        """Forget what only holds within one life of the venue's stream: no connection is left."""

    def say(self, state: State, reason: str, now_ns: int, out: list[Event]) -> None:
        """Tell readers what may be believed from here on, if that changes."""
        if state is self.state and reason == self.reason:
            return
        self.state = state
        self.reason = reason
        self.tell(now_ns, out)

    def tell(self, now_ns: int, out: list[Event]) -> None:
        """Tell readers what may be believed, changed or not."""
        self.reason = self.reason or ""
        out.append(
            Status(
                venue=self.context.venue,
                instrument=self.instrument,
                received_ns=now_ns,
                origin=Origin.DERIVED,
                topic_channel=self.channel,
                state=self.state,
                reason=self.reason,
            )
        )

    # --- data -----------------------------------------------------------------------------------------

    def admit(self, event: E, out: list[Event], carrier: int = 0) -> None:
        """Let an event through to `out`, once and in order, or not.

        Args:
            carrier: The connection that brought it.
        """
        self.count += 1
        out.append(event)

    def duplicate(self) -> None:
        """Count an event that came again."""
        self.duplicates += 1
        self.context.stats.duplicates += 1

    # --- time -----------------------------------------------------------------------------------------

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Look at the clock, about once a second: is something overdue?

        How often a stream speaks is learnt from it; one that spoke often and stops is stale, one that was
        always quiet is not, nor one that speaks in bursts: its pace is that of the seconds in which it
        spoke. A stream that never spoke owes something only if its venue promises that.
        """
        came = self.count - self._counted
        if came:
            self._active += 1
            if self.seen_ns is not None:
                gap = now_ns - self.seen_ns
                mean = self._mean_gap_ns
                self._mean_gap_ns = gap if mean is None else mean + (gap - mean) * 0.1
            self._counted = self.count
            self.seen_ns = now_ns
            self._patience = 1.0
            if self.state is State.STALE:
                self.revived(now_ns, out)
            return
        if not self.carriers or self.state is not State.LIVE:
            return
        limit_s = self._stale_after_s()
        if limit_s is None:
            return
        silent_s = (now_ns - max(self.seen_ns or 0, self._attached_ns)) / SECOND_NS
        if silent_s > limit_s:
            # Asked again it may come back; asked in vain it is asked less and less often.
            self._patience = min(self._patience * 2, 64)
            self.say(State.STALE, f"no data for {silent_s:.0f} s", now_ns, out)
            self.context.wants.append(
                WantResubscribe(channel=self.channel, instrument=self.instrument, reason="stale")
            )

    def _stale_after_s(self) -> float | None:
        """Return how long the stream may be silent; None for as long as it likes."""
        limit_s = self.context.stale_after_s
        if self._active >= LEARN_TICKS and self._mean_gap_ns is not None:
            limit_s = max(limit_s, 20 * self._mean_gap_ns / SECOND_NS)
            if self.owes_within_s is not None:
                limit_s = min(limit_s, max(self.context.stale_after_s, 3 * self.owes_within_s))
        elif self.owes_within_s is not None:
            limit_s = max(limit_s, 3 * self.owes_within_s)
        else:
            return None
        return limit_s * self._patience

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what is known of it, for people; `waits_for` says what must come before it goes on."""
        stale_s = self._stale_after_s()
        pace_ns = self._mean_gap_ns
        return {
            "channel": self.channel,
            "state": self.state.value,
            "reason": self.reason or "",
            "connections": len(self.carriers),
            "events": self.count,
            "duplicates": self.duplicates,
            "gaps": self.gaps,
            "seen_s": None if self.seen_ns is None else round((now_ns - self.seen_ns) / SECOND_NS, 1),
            "speaks_every_s": None if pace_ns is None else round(pace_ns / SECOND_NS, 1),
            "stale_after_s": None if stale_s is None else round(stale_s, 1),
            "sequence": None,
            "waits_for": "",
            "waits": 0,
        }

    def shift(self, by_ns: int) -> None:
        """Move what was noted by a clock that jumped, so that no time seems to have passed in the jump."""
        self._attached_ns += by_ns
        if self.seen_ns is not None:
            self.seen_ns += by_ns

    def revived(self, now_ns: int, out: list[Event]) -> None:
        """Data came on a stale topic."""
        self.say(State.LIVE, "", now_ns, out)

    def gap(self, from_ns: int, to_ns: int, reason: str, recovered: int, missing: int | None) -> Gap:
        """Return the word on a hole, and count it."""
        stats = self.context.stats
        self.gaps += 1
        stats.gaps += 1
        stats.recovered += recovered
        stats.lost += missing or 0
        return Gap(
            venue=self.context.venue,
            instrument=self.instrument,
            received_ns=to_ns,
            origin=Origin.DERIVED,
            topic_channel=self.channel,
            from_ns=from_ns,
            to_ns=to_ns,
            reason=reason,
            recovered=recovered,
            missing=missing,
        )


class QuoteLine(Line[Quote]):
    """Best bid and offer: never an older one, never the same again."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        self._sequence = -1
        self._venue_ns: int | None = None
        self._last: tuple[str | None, ...] = ()

    def end(self) -> None:
        """Forget the sequence: the venue may count anew."""
        self._sequence = -1

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what is known of it, with the last number."""
        return super().describe(now_ns) | {"sequence": self._sequence if self._sequence >= 0 else None}

    def admit(self, event: Quote, out: list[Event], carrier: int = 0) -> None:
        """Let a quote through if it is news."""
        self.count += 1
        sequence = event.sequence
        if sequence is None:
            content = (event.bid_price, event.bid_size, event.ask_price, event.ask_size)
            if content == self._last:
                self.duplicate()
                return
            self._last = content
        else:
            at_ns = event.venue_time_ns
            if sequence <= self._sequence:
                # A number far too low that is clearly later: the venue counts anew after maintenance.
                known_ns = self._venue_ns
                later = at_ns is not None and known_ns is not None and at_ns - known_ns >= RENUMBERED_NS
                if sequence == self._sequence or not later:
                    self.duplicate()
                    return
            self._sequence = sequence
            self._venue_ns = at_ns
        out.append(event)


_TICKER_FIELDS = tuple(
    field.name
    for field in attrs.fields(Ticker)
    if field.name not in {"venue", "instrument", "origin", "partial"}
)
_NEWS_FIELDS = tuple(name for name in _TICKER_FIELDS if name != "received_ns")


class TickerLine(Line[Ticker]):
    """Tickers: partial ones are merged, so that readers only see whole ones; never the same again."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        self._whole: Ticker | None = None

    def end(self) -> None:
        """Forget what was merged: it is old."""
        self._whole = None

    def admit(self, event: Ticker, out: list[Event], carrier: int = 0) -> None:
        """Let a ticker through, completed with what was known before."""
        self.count += 1
        if event.partial:
            whole = self._whole
            news = {name: value for name in _TICKER_FIELDS if (value := getattr(event, name)) is not None}
            event = attrs.evolve(event, partial=False) if whole is None else attrs.evolve(whole, **news)
        known, self._whole = self._whole, event
        if known is not None and all(getattr(known, name) == getattr(event, name) for name in _NEWS_FIELDS):
            self.duplicate()
        else:
            out.append(event)


class PriceLine(Line[Price]):
    """Oracle prices, in the order of their slots."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        self._slot = -1

    def end(self) -> None:
        """Forget the slot: the oracle may count anew."""
        self._slot = -1

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what is known of it, with the last slot."""
        return super().describe(now_ns) | {"sequence": self._slot if self._slot >= 0 else None}

    def admit(self, event: Price, out: list[Event], carrier: int = 0) -> None:
        """Let a price through if its slot is new."""
        self.count += 1
        if event.slot is not None:
            if event.slot <= self._slot:
                self.duplicate()
                return
            self._slot = event.slot
        out.append(event)


class KeyedLine(Line[E]):
    """Events that are known again by a key."""

    def __init__(self, channel: str, instrument: str, context: Context, key: Callable[[E], Hashable]) -> None:
        super().__init__(channel, instrument, context)
        self._key = key
        self._seen = Seen(context.dedupe_window_s, context.dedupe_entries)

    def admit(self, event: E, out: list[Event], carrier: int = 0) -> None:
        """Let an event through once."""
        self.count += 1
        if self._seen.again(self._key(event), event.received_ns):
            self.duplicate()
        else:
            out.append(event)
