"""The line of a candle topic: closed minutes without a hole, whether the stream or REST brings them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from pricefeedd.events import Candle, Event, Origin
from pricefeedd.lines import MINUTE_NS, SECOND_NS, Context, Line, WantCandles
from pricefeedd.rules import CandleEnd

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

    def shift(self, by_ns: int) -> None:
        """Move what was noted by a clock that jumped."""
        super().shift(by_ns)
        self._again_ns += by_ns

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
        # A minute is missing when the venue has shown a later one. Our clock alone proves nothing: it may
        # have jumped, or REST may lag.
        self._newest_ns = max(self._newest_ns, *known, *(c.start_ns for c in candles or ()), 0)
        missing = [start for start in expected if start not in known]
        recent = bool(missing) and missing[-1] >= now_ns - 4 * MINUTE_NS
        unproven = [start for start in missing if start >= self._newest_ns]
        if (
            had is not None
            and (unproven or (missing and recent and self._vain < CANDLE_RETRIES))
            and not held
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
                self._closed_ns = start
                out.append(known[start])
        if missing:
            self._closed_ns = max(self._closed_ns or 0, expected[-1])
        for candle in held:
            self._close(candle, out)


def _content(candle: Candle) -> tuple[str, ...]:
    return (candle.open, candle.high, candle.low, candle.close, candle.volume)
