"""What is remembered of one topic: its last id, sequence, minute or book, and whether it is alive.

A line takes events in the venue's order and lets each through once, in order. It is pure state: what it
wants fetched it says in `wants`, and somebody tells it the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import attrs

from pricefeedd.book import BookSync, Broken, Standing, TooOld
from pricefeedd.events import (
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Origin,
    Price,
    Quote,
    State,
    Status,
    Ticker,
    Trade,
)
from pricefeedd.rules import CandleEnd, Rules, Source, TradeIds
from pricefeedd.stats import MarketStats

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS

#: Closed minutes fetched when a topic begins, so that a reader finds some right away.
START_MINUTES = 5
#: The longest hole in trades that is filled; what is beyond is told as missing.
MAX_FILL_TRADES = 20_000
#: Live events held back while a hole before them is being filled, and for how long: a reader would sooner
#: have trades with a hole than none.
MAX_HELD = 20_000
HOLD_S = 30.0
#: A minute that REST does not have yet is asked for again this often, after 1, 2, 4 and 8 s.
CANDLE_RETRIES = 4
#: Ticks with data before a stream's pace is believed.
LEARN_TICKS = 20


@attrs.frozen(kw_only=True)
class WantBook:
    """A snapshot is needed. `late` is how many came too old already, in a row."""

    instrument: str
    late: int = 0


@attrs.frozen(kw_only=True)
class WantTrades:
    """The trades strictly between two ids are missing."""

    instrument: str
    after_id: str
    before_id: str
    from_ns: int
    to_ns: int


@attrs.frozen(kw_only=True)
class WantCandles:
    """The minutes that open in [start_ns, end_ns] are missing."""

    instrument: str
    start_ns: int
    end_ns: int


@attrs.frozen(kw_only=True)
class WantResubscribe:
    """The topic's streams should be asked for again."""

    channel: str
    instrument: str
    reason: str


Want = WantBook | WantTrades | WantCandles | WantResubscribe


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


class Seen:
    """Keys seen lately; the oldest are forgotten first, by age and by number."""

    def __init__(self, window_s: float, entries: int) -> None:
        self._window_ns = int(window_s * SECOND_NS)
        self._entries = entries
        self._keys: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

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
        out.append(
            Status(
                venue=self.context.venue,
                instrument=self.instrument,
                received_ns=now_ns,
                origin=Origin.DERIVED,
                topic_channel=self.channel,
                state=state,
                reason=reason,
            )
        )

    # --- data -----------------------------------------------------------------------------------------

    def admit(self, event: E, out: list[Event]) -> None:
        """Let an event through to `out`, once and in order, or not."""
        self.count += 1
        out.append(event)

    def duplicate(self) -> None:
        """Count an event that came again."""
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
        limit_s = self.context.stale_after_s
        if self._active >= LEARN_TICKS and self._mean_gap_ns is not None:
            limit_s = max(limit_s, 20 * self._mean_gap_ns / SECOND_NS)
            if self.owes_within_s is not None:
                limit_s = min(limit_s, max(self.context.stale_after_s, 3 * self.owes_within_s))
        elif self.owes_within_s is not None:
            limit_s = max(limit_s, 3 * self.owes_within_s)
        else:
            return
        silent_s = (now_ns - max(self.seen_ns or 0, self._attached_ns)) / SECOND_NS
        if silent_s > limit_s * self._patience:
            # Asked again it may come back; asked in vain it is asked less and less often.
            self._patience = min(self._patience * 2, 64)
            self.say(State.STALE, f"no data for {silent_s:.0f} s", now_ns, out)
            self.context.wants.append(
                WantResubscribe(channel=self.channel, instrument=self.instrument, reason="stale")
            )

    def revived(self, now_ns: int, out: list[Event]) -> None:
        """Data came on a stale topic."""
        self.say(State.LIVE, "", now_ns, out)

    def gap(self, from_ns: int, to_ns: int, reason: str, recovered: int, missing: int | None) -> Gap:
        """Return the word on a hole, and count it."""
        stats = self.context.stats
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


class TradeLine(Line[Trade]):
    """Trades: each once, in the order of their ids, with holes filled from REST.

    With consecutive ids a jump proves a hole. What comes after it is held back until REST has answered, or
    until the missing ones arrive by themselves (the venue only reordered them), but no longer than `HOLD_S`.
    Other ids prove no loss: readers are told that there may be one when the connection was away.
    """

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        rule = context.rules.trade
        self._ids = TradeIds.NONE if rule is None else rule.ids
        self._last_id: int | None = None
        self._last_ns = 0
        self._last_venue_ns: int | None = None
        self._away_ns = 0
        self._held: dict[int, Trade] = {}
        self._held_since_ns = 0
        # An answer is on its way, and up to which id the trades were asked for; 0 if it comes too late.
        self._wanted = False
        self._asked_before = 0
        self._seen = Seen(context.dedupe_window_s, context.dedupe_entries)

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh, and tell of the hole that the ids cannot prove."""
        super().begin(now_ns, out)
        if self._away_ns and self._ids is not TradeIds.CONSECUTIVE:
            reason = "no connection, and the venue's trade ids do not tell what was missed"
            out.append(self.gap(self._away_ns, now_ns, reason, 0, None))
        self._away_ns = 0

    def end(self) -> None:
        """Remember since when there is no connection."""
        self._away_ns = self._last_ns

    def admit(self, event: Trade, out: list[Event]) -> None:
        """Let a trade through, hold it, or drop it."""
        self.count += 1
        if self._ids is TradeIds.CONSECUTIVE and event.id is not None:
            number = int(event.id)
            last = self._last_id
            if last is None or (number == last + 1 and not self._held):
                self._pass(number, event, out)
            else:
                self._out_of_line(last, number, event, out)
        elif (
            self._ids is not TradeIds.NONE
            and event.id is not None
            and self._seen.again(event.id, event.received_ns)
        ):
            self.duplicate()
        else:
            self._last_ns = event.received_ns
            out.append(event)

    def _pass(self, number: int, event: Trade, out: list[Event]) -> None:
        self._last_id = number
        self._last_ns = event.received_ns
        self._last_venue_ns = event.venue_time_ns
        out.append(event)

    def _out_of_line(self, last: int, number: int, event: Trade, out: list[Event]) -> None:
        if number <= last:
            if self._began_anew(last, number, event):
                self._give_up(out)
                out.append(self.gap(self._last_ns, event.received_ns, "trade ids began anew", 0, None))
                self._pass(number, event, out)
            else:
                self.duplicate()
            return
        if number in self._held:
            self.duplicate()
            return
        if not self._held:
            self._held_since_ns = event.received_ns
        self._held[number] = event
        self._release(out)
        if len(self._held) > MAX_HELD:
            self._give_up(out)
        elif self._held and not self._wanted:
            self._want()

    def _began_anew(self, last: int, number: int, event: Trade) -> bool:
        """Return whether an id below the last one is no repetition: far below it, or traded well after it."""
        if last - number > 10 * MAX_FILL_TRADES:
            return True
        then, now = self._last_venue_ns, event.venue_time_ns
        return then is not None and now is not None and now - then > MINUTE_NS

    def _want(self) -> None:
        assert self._last_id is not None, "nothing is held before the first trade"
        first = min(self._held)
        self._wanted = True
        self._asked_before = first
        self.context.wants.append(
            WantTrades(
                instrument=self.instrument,
                after_id=str(max(self._last_id, first - 1 - MAX_FILL_TRADES)),
                before_id=str(first),
                from_ns=self._last_ns,
                to_ns=self._held[first].received_ns,
            )
        )

    def _release(self, out: list[Event]) -> None:
        """Let go what follows on without a hole."""
        if self._last_id is None:
            return
        while (trade := self._held.pop(self._last_id + 1, None)) is not None:
            self._pass(self._last_id + 1, trade, out)

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Let go what was held back for too long."""
        super().tick(now_ns, out)
        if self._held and now_ns - self._held_since_ns > HOLD_S * SECOND_NS:
            self._give_up(out)

    def _give_up(self, out: list[Event]) -> None:
        """Let go all that is held; an answer that is still on its way comes too late."""
        if self._held:
            self._asked_before = 0
            self._let_go({}, max(self._held), "trades missed, and REST did not answer in time", out)

    def filled(self, trades: Sequence[Trade], now_ns: int, out: list[Event]) -> None:
        """Take the answer to what was wanted (nothing, if it could not be had) and let go what was held."""
        before, self._asked_before = self._asked_before, 0
        self._wanted = False
        if not self._held or self._last_id is None:
            return
        last, end = self._last_id, max(self._held)
        found = {
            number: trade
            for trade in trades
            if last < (number := int(trade.id or 0)) < end and number not in self._held
        }
        self._let_go(found, before, "trades missed, and REST did not have them all", out)
        if self._held:
            # A hole that was not asked for yet, behind the one that was.
            self._held_since_ns = now_ns
            self._want()

    def _let_go(self, found: dict[int, Trade], before: int, reason: str, out: list[Event]) -> None:
        """Let go what is held up to the id `before`, with what was found for the holes, and tell of each."""
        assert self._last_id is not None, "nothing is held before the first trade"
        numbers = iter(sorted(found))
        number = next(numbers, None)
        for live in sorted(self._held):
            last, last_ns = self._last_id, self._last_ns
            recovered = []
            while number is not None and number < live:
                recovered.append(number)
                number = next(numbers, None)
            missing = live - last - 1 - len(recovered)
            if missing and live > before:
                return
            trade = self._held.pop(live)
            if missing or recovered:
                why = reason if missing else "trades missed"
                out.append(self.gap(last_ns, trade.received_ns, why, len(recovered), missing))
            for lost in recovered:
                self._pass(lost, found[lost], out)
            self._pass(live, trade, out)


class QuoteLine(Line[Quote]):
    """Best bid and offer: never an older one, never the same again."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        self._sequence = -1
        self._last: tuple[str | None, ...] = ()

    def end(self) -> None:
        """Forget the sequence: the venue may count anew."""
        self._sequence = -1

    def admit(self, event: Quote, out: list[Event]) -> None:
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
            if sequence <= self._sequence:
                self.duplicate()
                return
            self._sequence = sequence
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

    def admit(self, event: Ticker, out: list[Event]) -> None:
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


class CandleLine(Line[Candle]):
    """Minutes: each closed once, in order, without a hole; open ones when they change."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        rule = context.rules.candle
        assert rule is not None, "a market that offers candles has a rule for them"
        self._rule = rule
        self._closed_ns: int | None = None
        self._open: Candle | None = None
        self._held: list[Candle] = []
        self._wanted = False
        self._vain = 0
        self._again_ns = 0

    def end(self) -> None:
        """Forget the open minute: nobody knows how it went on, so it must not be closed as we knew it."""
        self._open = None

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh: whatever closed meanwhile is fetched."""
        super().begin(now_ns, out)
        self._overdue(now_ns)

    def admit(self, event: Candle, out: list[Event]) -> None:
        """Let a candle through, hold it until the minutes before it are there, or drop it."""
        self.count += 1
        closed = self._closed_ns
        if closed is not None and event.start_ns <= closed:
            self.duplicate()
            return
        known = self._open
        if not event.closed:
            if known is not None and event.start_ns <= known.start_ns:
                if event.start_ns < known.start_ns or _content(event) == _content(known):
                    self.duplicate()
                    return
            elif known is not None and self._rule.end is CandleEnd.NEXT:
                self._close(attrs.evolve(known, closed=True, origin=Origin.DERIVED), out)
            self._open = event
            out.append(event)
        else:
            self._close(event, out)

    def _close(self, event: Candle, out: list[Event]) -> None:
        closed = self._closed_ns
        if closed is not None and event.start_ns <= closed:
            return  # REST was faster
        if self._wanted or (closed is not None and event.start_ns > closed + MINUTE_NS):
            if all(held.start_ns != event.start_ns for held in self._held):
                self._held.append(event)
            if not self._wanted and closed is not None:
                self._want(closed + MINUTE_NS, event.start_ns - MINUTE_NS)
        else:
            self._closed_ns = event.start_ns
            out.append(event)

    def _want(self, start_ns: int, end_ns: int) -> None:
        if self._rule.history_minutes is not None:
            start_ns = max(start_ns, end_ns - (self._rule.history_minutes - 1) * MINUTE_NS)
        self._wanted = True
        self.context.wants.append(WantCandles(instrument=self.instrument, start_ns=start_ns, end_ns=end_ns))

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Fetch the minutes that should have closed by now and did not come."""
        super().tick(now_ns, out)
        if self.carriers:
            self._overdue(now_ns)

    def _overdue(self, now_ns: int) -> None:
        if self._wanted or now_ns < self._again_ns:
            return
        wait_s = self.context.backfill_after_s + self._rule.grace_s
        due = (now_ns - int(wait_s * SECOND_NS)) // MINUTE_NS * MINUTE_NS - MINUTE_NS
        if self._closed_ns is None:
            self._want(due - (START_MINUTES - 1) * MINUTE_NS, due)
        elif self._closed_ns < due:
            self._want(self._closed_ns + MINUTE_NS, due)

    def filled(
        self, want: WantCandles, candles: Sequence[Candle] | None, now_ns: int, out: list[Event]
    ) -> None:
        """Take the answer to what was wanted, None if it could not be had, and let go what was held."""
        self._wanted = False
        had = self._closed_ns
        held, self._held = sorted(self._held, key=lambda candle: candle.start_ns), []
        # The stream's own word counts more than the answer's; both come first where there is one.
        known = {
            c.start_ns: c for c in candles or () if c.closed and want.start_ns <= c.start_ns <= want.end_ns
        }
        fetched = len(known)
        for candle in held:
            if candle.start_ns <= want.end_ns:
                fetched -= candle.start_ns in known
                known[candle.start_ns] = candle
        first = want.start_ns if had is None else had + MINUTE_NS
        expected = range(first, want.end_ns + 1, MINUTE_NS)
        missing = [start for start in expected if start not in known]
        recent = bool(missing) and missing[-1] >= now_ns - 4 * MINUTE_NS
        if missing and had is not None and recent and self._vain < CANDLE_RETRIES and not held:
            # REST lags behind the minute: a later tick asks again for what is not there yet.
            self._again_ns = now_ns + 2**self._vain * SECOND_NS
            self._vain += 1
            expected = range(first, missing[0], MINUTE_NS)
            fetched -= sum(1 for start in known if start > missing[0])
            missing = []
        else:
            self._vain = 0
        if had is not None and expected and (missing or fetched > 1):
            reason = "minutes missed" if not missing else "minutes missed, and REST did not have them all"
            out.append(self.gap(expected[0], expected[-1] + MINUTE_NS, reason, fetched, len(missing)))
        for start in expected:
            if start in known:
                self._closed_ns = start
                out.append(known[start])
        if missing:
            self._closed_ns = max(self._closed_ns or 0, want.end_ns)
        for candle in held:
            self._close(candle, out)


def _content(candle: Candle) -> tuple[str, ...]:
    return (candle.open, candle.high, candle.low, candle.close, candle.volume)


class BookLine(Line[BookSnapshot | BookDelta]):
    """One order book, kept by the venue's rule; nothing of it can be read while it is wrong."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        rule = context.rules.book
        assert rule is not None, "a market that offers books has a rule for them"
        self.sync = BookSync(rule)
        self._wanted = False
        self._late = 0
        self._waiting_ns: int | None = None
        self._waits = 1
        self._newest: Event | None = None

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh: ask for a snapshot, unless the stream brought one before its ack."""
        if self.sync.standing is Standing.LIVE:
            super().begin(now_ns, out)
        else:
            self._want_snapshot()

    def end(self) -> None:
        """Forget the book: with the last connection gone it is worth nothing."""
        self.sync.reset()

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Ask again for a snapshot that the stream should have brought by now, less and less often."""
        super().tick(now_ns, out)
        if not self.carriers or self.sync.standing is Standing.LIVE:
            self._waiting_ns = None
            self._waits = 1
        elif self.sync.rule.source is Source.STREAM:
            if self._waiting_ns is None:
                self._waiting_ns = now_ns
            elif now_ns - self._waiting_ns > self.context.stale_after_s * self._waits * SECOND_NS:
                self._waiting_ns = now_ns
                self._waits = min(self._waits * 2, 64)
                self._resubscribe("no snapshot came")

    def _resubscribe(self, reason: str) -> None:
        self.context.wants.append(
            WantResubscribe(channel=self.channel, instrument=self.instrument, reason=reason)
        )

    def _want_snapshot(self) -> None:
        if not self._wanted and self.sync.rule.source is Source.REST:
            self._wanted = True
            self.context.wants.append(WantBook(instrument=self.instrument, late=self._late))

    def admit(self, event: BookSnapshot | BookDelta, out: list[Event]) -> None:
        """Take what the stream says of the book."""
        self.count += 1
        before = self.sync.stale
        if isinstance(event, BookSnapshot):
            self._result(self.sync.snapshot(event), event.received_ns, out)
        else:
            self._result(self.sync.delta(event), event.received_ns, out)
        self.context.stats.duplicates += self.sync.stale - before

    def fetched(self, snapshot: BookSnapshot | None, now_ns: int, out: list[Event]) -> None:
        """Take the snapshot that was wanted; None if it could not be had."""
        self._wanted = False
        if snapshot is None or not self.carriers:
            if self.carriers:
                self._want_snapshot()
            return
        self._result(self.sync.snapshot(snapshot), now_ns, out)

    def _result(self, result: list[Event] | Broken | TooOld, now_ns: int, out: list[Event]) -> None:
        if isinstance(result, TooOld):
            self._late += 1
            self.say(State.RESYNCING, "snapshot is older than the stream", now_ns, out)
            self._want_snapshot()
            return
        if isinstance(result, Broken):
            self.context.stats.resyncs += 1
            self.say(State.RESYNCING, result.reason, now_ns, out)
            if self.sync.rule.source is Source.REST:
                self._want_snapshot()
            else:
                self._resubscribe(result.reason)
            return
        if result and self.sync.standing is Standing.LIVE and self.state is not State.LIVE:
            self._late = 0
            self.say(State.LIVE, "", now_ns, out)
        if result:
            self._newest = result[-1]
            out += result

    def revived(self, now_ns: int, out: list[Event]) -> None:
        """Data came on a stale book: it is live if its sequence held."""
        if self.sync.standing is Standing.LIVE:
            self.say(State.LIVE, "", now_ns, out)

    def current(self) -> BookSnapshot | None:
        """Return the present book; None while there is none that can be believed."""
        if self.sync.standing is not Standing.LIVE or self._newest is None:
            return None
        return self.sync.current(self._newest)


class PriceLine(Line[Price]):
    """Oracle prices, in the order of their slots."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        self._slot = -1

    def end(self) -> None:
        """Forget the slot: the oracle may count anew."""
        self._slot = -1

    def admit(self, event: Price, out: list[Event]) -> None:
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

    def admit(self, event: E, out: list[Event]) -> None:
        """Let an event through once."""
        self.count += 1
        if self._seen.again(self._key(event), event.received_ns):
            self.duplicate()
        else:
            out.append(event)


def _liquidation_key(event: Liquidation) -> Hashable:
    return (event.venue_time_ns, event.price, event.size, event.side)


def _account_key(event: AccountEvent) -> Hashable:
    return (event.account, event.key)


def line_for(channel: str, instrument: str, context: Context) -> Line[Event]:
    """Return the line that fits a channel."""
    made: object
    if channel == "trade":
        made = TradeLine(channel, instrument, context)
    elif channel == "quote":
        made = QuoteLine(channel, instrument, context)
    elif channel == "ticker":
        made = TickerLine(channel, instrument, context)
    elif channel == "candle_1m":
        made = CandleLine(channel, instrument, context)
    elif channel == "book":
        made = BookLine(channel, instrument, context)
    elif channel == "price":
        made = PriceLine(channel, instrument, context)
    elif channel == "liquidation":
        made = KeyedLine(channel, instrument, context, _liquidation_key)
    else:
        made = KeyedLine(channel, instrument, context, _account_key)
    return made  # type: ignore[return-value]  # each line takes its own channel's events, and gets no others
