"""The line of a candle topic: closed minutes without a hole, whether the stream or REST brings them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from pricefeedd.events import Candle, Event, Origin
from pricefeedd.lines import MINUTE_NS, SECOND_NS, Context, Line, WantCandles
from pricefeedd.rules import CandleEnd, EmptyMinutes

#: Closed minutes fetched when a topic begins, so that a reader finds some right away.
START_MINUTES = 5
#: A recent minute that REST does not have yet is asked for again this often, after 1, 2, 4 and 8 s.
CANDLE_RETRIES = 4
#: Minutes that nothing proves to have passed are asked for again at most this far apart.
MAX_WAIT_S = 60


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
        self._newest_ns = 0
        self._last_close: str | None = None
        self._shown: set[int] = set()  # minutes that were shown open: something was traded in them
        self._reach = START_MINUTES

    @property
    def closed_ns(self) -> int | None:
        """Start of the last minute that closed; None before the first."""
        return self._closed_ns

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what is known of it; its number is the start of the last closed minute, seconds since the epoch."""
        closed = self._closed_ns
        return super().describe(now_ns) | {
            "sequence": None if closed is None else closed // SECOND_NS,
            "waits_for": "candles_rest" if self._wanted else "",
            "waits": len(self._held),
        }

    def reach_back(self, minutes: int) -> None:
        """Fetch, at the start, all minutes since the last multiple of so many: longer candles are made of them."""
        self._reach = max(self._reach, minutes)

    def shift(self, by_ns: int) -> None:
        """Note that our clock jumped: what was asked in vain by the old time is asked anew."""
        super().shift(by_ns)
        self._again_ns = 0
        self._vain = 0

    def end(self) -> None:
        """Forget the open minute: nobody knows how it went on, so it must not be closed as we knew it."""
        self._open = None

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh: whatever closed meanwhile is fetched."""
        super().begin(now_ns, out)
        self._overdue(now_ns, out)

    def admit(self, event: Candle, out: list[Event], carrier: int = 0) -> None:
        """Let a candle through, hold it until the minutes before it are there, or drop it."""
        self.count += 1
        closed = self._closed_ns
        if closed is not None and event.start_ns <= closed:
            self.duplicate()
            return
        self._newest_ns = max(self._newest_ns, event.start_ns)
        known = self._open
        if not event.closed:
            if known is not None and event.start_ns <= known.start_ns:
                if event.start_ns < known.start_ns or _content(event) == _content(known):
                    self.duplicate()
                    return
            elif known is not None and self._rule.end is CandleEnd.NEXT:
                self._close(attrs.evolve(known, closed=True, origin=Origin.DERIVED), out)
            self._open = event
            self._shown.add(event.start_ns)
            out.append(event)
        else:
            self._close(event, out)

    def _close(self, event: Candle, out: list[Event]) -> None:
        closed = self._closed_ns
        if closed is not None and event.start_ns <= closed:
            return  # REST was faster
        self._empty_until(event.start_ns, event.received_ns, out)
        closed = self._closed_ns
        if self._wanted or (closed is not None and event.start_ns > closed + MINUTE_NS):
            if all(held.start_ns != event.start_ns for held in self._held):
                self._held.append(event)
            if not self._wanted and closed is not None:
                self._want(closed + MINUTE_NS, event.start_ns - MINUTE_NS)
        else:
            self._pass(event, out)

    def _pass(self, event: Candle, out: list[Event]) -> None:
        self._closed_ns = event.start_ns
        self._last_close = event.close
        self._shown = {start for start in self._shown if start > event.start_ns}
        out.append(event)

    # --- minutes without a trade ----------------------------------------------------------------------

    def absent(self, start_ns: int) -> None:
        """Note that a minute does not exist."""
        if self._closed_ns == start_ns - MINUTE_NS:
            self._closed_ns = start_ns

    def _empty_until(self, end_ns: int, now_ns: int, out: list[Event]) -> None:
        """Take the minutes before `end_ns` as without a trade where the stream itself shows that.

        It does if it was there from well before them on, brought nothing, and would have.
        """
        rule, closed = self._rule, self._closed_ns
        shows_all = rule.end is not CandleEnd.REST and not rule.built_from
        if rule.empty is EmptyMinutes.SENT or not shows_all or self._wanted or closed is None:
            return
        first = closed + MINUTE_NS
        if not self.carriers or self._attached_ns + MINUTE_NS > first:
            return
        traded_ns = min((start for start in self._shown if start >= first), default=end_ns)
        for start in range(first, min(end_ns, traded_ns), MINUTE_NS):
            self._empty(start, now_ns, out)

    def _empty(self, start_ns: int, now_ns: int, out: list[Event]) -> None:
        """Let a minute without a trade through, if it is to be there at all."""
        if self._rule.empty is EmptyMinutes.NONE or self._last_close is None:
            self._closed_ns = start_ns
            return
        last = self._last_close
        flat = Candle(
            venue=self.context.venue,
            instrument=self.instrument,
            received_ns=now_ns,
            origin=Origin.DERIVED,
            start_ns=start_ns,
            open=last,
            high=last,
            low=last,
            close=last,
            volume="0",
            turnover="0",
            trades=0,
            closed=True,
        )
        self._pass(flat, out)

    # --- what was missed ------------------------------------------------------------------------------

    def _want(self, start_ns: int, end_ns: int) -> None:
        if self._rule.history_minutes is not None:
            start_ns = max(start_ns, end_ns - (self._rule.history_minutes - 1) * MINUTE_NS)
        self._wanted = True
        self.context.wants.append(WantCandles(instrument=self.instrument, start_ns=start_ns, end_ns=end_ns))

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Fetch the minutes that should have closed by now and did not come."""
        super().tick(now_ns, out)
        if self.carriers:
            self._overdue(now_ns, out)

    def _overdue(self, now_ns: int, out: list[Event]) -> None:
        if self._wanted or now_ns < self._again_ns:
            return
        wait_s = self.context.backfill_after_s + self._rule.grace_s
        # Ours may be behind the venue's; where it is ahead we ask in vain, and less and less often.
        latest_ns = max(now_ns, self.context.clock.latest_ns)
        due = (latest_ns - int(wait_s * SECOND_NS)) // MINUTE_NS * MINUTE_NS - MINUTE_NS
        if self._closed_ns is None:
            step_ns = self._reach * MINUTE_NS
            reached = (due + MINUTE_NS) // step_ns * step_ns if self._reach > START_MINUTES else due
            self._want(min(due - (START_MINUTES - 1) * MINUTE_NS, reached), due)
            return
        # Our clock alone proves nothing: something later must have come over the same connection.
        shown_ns = self.context.clock.shown_by(self.carriers) - int(wait_s * SECOND_NS)
        self._empty_until(min(due, shown_ns // MINUTE_NS * MINUTE_NS - MINUTE_NS) + MINUTE_NS, now_ns, out)
        if self._closed_ns < due:
            self._want(self._closed_ns + MINUTE_NS, due)

    def filled(
        self, want: WantCandles, candles: Sequence[Candle] | None, now_ns: int, out: list[Event]
    ) -> None:
        """Take the answer to what was wanted, None if it could not be had, and let go what was held."""
        self._wanted = False
        had = self._closed_ns
        held, self._held = sorted(self._held, key=lambda candle: candle.start_ns), []
        if had is None and candles is None:
            # Nothing is known of the time before: what the stream brought is where the row begins.
            self._again_ns = now_ns + min(2**self._vain, MAX_WAIT_S) * SECOND_NS
            self._vain += 1
            for candle in held:
                self._close(candle, out)
            return
        # The stream's own word counts more than the answer's; both come first where there is one. A minute
        # that still runs by the venue's clock is not over, whatever our clock made of it.
        shown_ns = max(self.context.clock.latest_ns, *(c.start_ns for c in candles or ()), 0)
        last_ns = min(want.end_ns, shown_ns - MINUTE_NS) if self.context.clock.latest_ns else want.end_ns
        known = {c.start_ns: c for c in candles or () if c.closed and want.start_ns <= c.start_ns <= last_ns}
        fetched = len(known)
        for candle in held:
            if candle.start_ns <= want.end_ns:
                fetched -= candle.start_ns in known
                known[candle.start_ns] = candle
        first = want.start_ns if had is None else had + MINUTE_NS
        expected = range(first, want.end_ns + 1, MINUTE_NS)
        empty = self._known_empty(expected, known) if candles is not None else set()
        # A minute is missing when the venue has shown a later one. Our clock alone proves nothing: it may
        # have jumped, or REST may lag.
        self._newest_ns = max(self._newest_ns, *known, *(c.start_ns for c in candles or ()), 0)
        missing = [start for start in expected if start not in known and start not in empty]
        recent = bool(missing) and missing[-1] >= now_ns - 4 * MINUTE_NS
        unproven = [start for start in missing if start >= self._newest_ns]
        if (
            had is not None
            and (unproven or (missing and recent and self._vain < CANDLE_RETRIES))
            and not any(candle.start_ns > want.end_ns for candle in held)
        ):
            # A later tick asks again for what is not there yet.
            self._again_ns = now_ns + min(2**self._vain, MAX_WAIT_S) * SECOND_NS
            self._vain += 1
            wait_from = missing[0] if self._vain <= CANDLE_RETRIES else unproven[0]
            expected = range(first, wait_from, MINUTE_NS)
            fetched -= sum(1 for start in known if start > wait_from)
            missing = [start for start in missing if start < wait_from]
        else:
            self._vain = 0
        if had is not None and expected and (missing or fetched > 1):
            reason = "minutes missed" if not missing else "minutes missed, and REST did not have them all"
            out.append(self.gap(expected[0], expected[-1] + MINUTE_NS, reason, fetched, len(missing)))
        for start in expected:
            if start in known:
                self._pass(known[start], out)
            elif start in empty:
                self._empty(start, now_ns, out)
        if missing:
            self._closed_ns = max(self._closed_ns or 0, expected[-1])
        for candle in held:
            self._close(candle, out)

    def _known_empty(self, expected: Iterable[int], known: Mapping[int, Candle]) -> set[int]:
        """Return the minutes that REST left out because nothing was traded in them.

        It shows a later one, or the venue's clock came a whole minute past their end; or the stream shows a later
        one, and REST was asked again and again.
        """
        if self._rule.empty is EmptyMinutes.SENT:
            return set()
        later_ns = max(known, default=0)
        if self._vain >= CANDLE_RETRIES:
            later_ns = max(later_ns, self._newest_ns)
        over_ns = self.context.clock.latest_ns - 2 * MINUTE_NS
        left_out = (start for start in expected if start not in known and start not in self._shown)
        return {start for start in left_out if start < later_ns or start <= over_ns}


def _content(candle: Candle) -> tuple[str, ...]:
    return (candle.open, candle.high, candle.low, candle.close, candle.volume)
