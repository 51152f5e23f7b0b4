"""The line of a trade topic: ids that prove what was missed, and what is held back while it is fetched."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from pricefeedd.events import Event, Gap, Origin, State, Trade
from pricefeedd.lines import MINUTE_NS, SECOND_NS, Context, Line, Seen, WantTrades
from pricefeedd.rules import TradeIds

#: The longest hole in trades that is filled; what is beyond is told as missing.
MAX_FILL_TRADES = 20_000
#: Live events held back while a hole before them is being filled, and for how long: a reader would sooner
#: have trades with a hole than none.
MAX_HELD = 20_000
HOLD_S = 30.0
#: Trades of the last seconds before a time away: one of them in REST's answer proves that it leaves no hole.
EDGE_S = 5


class TradeLine(Line[Trade]):
    """Trades: each once, in the order of their ids, with holes filled from REST.

    With consecutive ids a jump proves a hole. What comes after it is held back until REST has answered, or
    until the missing ones arrive by themselves (the venue only reordered them), but no longer than `HOLD_S`.

    Other ids prove only that a trade came again. After a time without a connection REST is asked for the
    trades of that time, from a second before the last one on: an answer that begins with trades we know has
    no hole. Trades without ids are told apart by their time alone: those of the very millisecond at the edge
    of the hole stay out.
    """

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        rule = context.rules.trade
        self._ids = TradeIds.NONE if rule is None else rule.ids
        self._proof = self._ids is TradeIds.CONSECUTIVE
        self._last_id: int | None = None
        self._last_ns = 0
        self._last_venue_ns: int | None = None
        self._away_ns = 0
        self._held: dict[int, Trade] = {}  # by the id of the first fill
        self._held_since_ns = 0
        # An answer is on its way, and up to which id the trades were asked for; 0 if it comes too late.
        self._wanted = False
        self._asked_before = 0
        self._seen = Seen(context.dedupe_window_s, context.dedupe_entries)
        # Without proof by ids: what waits for REST's answer, and the time before which all was seen.
        self._waiting: list[Trade] | None = None
        self._floor_ns = 0
        self._edge: frozenset[Hashable] = frozenset()
        self._source: int | None = None

    @property
    def holding(self) -> bool:
        """Whether trades are held back until REST has answered."""
        return bool(self._held) or self._waiting is not None

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what is known of it, and how many trades wait until a hole before them is filled."""
        return super().describe(now_ns) | {
            "sequence": self._last_id,
            "waits_for": "trades_rest" if self.holding else "",
            "waits": len(self._held) + len(self._waiting or ()),
        }

    def shift(self, by_ns: int) -> None:
        """Move what was noted by a clock that jumped."""
        super().shift(by_ns)
        self._held_since_ns += by_ns

    # --- connections ----------------------------------------------------------------------------------

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh, and see to the hole that the ids cannot prove."""
        super().begin(now_ns, out)
        self._return(now_ns)

    def lost(self, carrier: int, state: State, reason: str, now_ns: int, out: list[Event]) -> None:
        """Note that a connection is gone."""
        if carrier == self._source:
            self._source = None
        super().lost(carrier, state, reason, now_ns, out)

    def end(self) -> None:
        """Remember since when there is no connection."""
        self._leave()

    def say(self, state: State, reason: str, now_ns: int, out: list[Event]) -> None:
        """Tell the state; what a stale stream did not bring may be missing when it comes back."""
        if state is State.STALE and self.state is not State.STALE:
            self._leave()
        super().say(state, reason, now_ns, out)

    def _leave(self) -> None:
        """Note what was the last before a time in which trades may be missed without proof."""
        if self._proof or self._away_ns:
            return
        self._away_ns = self._last_ns
        self._floor_ns = self._last_venue_ns or 0
        self._edge = self._seen.since(self._last_ns - EDGE_S * SECOND_NS)

    def _return(self, now_ns: int) -> None:
        """Ask for what may have been missed, and hold what comes until it is there.

        It begins with the first trade after the time away, whether the venue's ack came before it or not.
        """
        if not self._away_ns or self._waiting is not None:
            return
        self._waiting = []
        self._held_since_ns = now_ns
        self.context.wants.append(
            WantTrades(
                instrument=self.instrument,
                after_id=None,
                before_id=None,
                from_ns=(self._floor_ns or self._away_ns) - SECOND_NS,
                to_ns=now_ns + SECOND_NS,
            )
        )

    def _unproven(self, now_ns: int, recovered: int, missing: int | None) -> Gap:
        reason = "no connection meanwhile"
        if missing is None:
            reason = "no connection, and the venue's trade ids do not tell what was missed"
        return self.gap(self._away_ns, now_ns, reason, recovered, missing)

    # --- data -----------------------------------------------------------------------------------------

    def admit(self, event: Trade, out: list[Event], carrier: int = 0) -> None:
        """Let a trade through, hold it, or drop it."""
        self.count += 1
        if self._proof and event.id is not None:
            number = int(event.id)
            last = self._last_id
            # A trade may stand for several fills; it follows when the first of them does.
            if last is None or (number - event.fills <= last < number and not self._held):
                self._pass(number, event, out)
            else:
                self._out_of_line(last, number, event, out)
        elif self._away_ns:
            self._return(event.received_ns)
            assert self._waiting is not None, "it was just asked for"
            self._waiting.append(event)
            if len(self._waiting) > MAX_HELD:
                self._filled_by_time(None, event.received_ns, out)
        elif event.id is None or self._ids is TradeIds.NONE:
            # Two connections bring the same trades, and nothing tells them apart: only one is heard.
            if self._source is None:
                self._source = carrier
            if carrier == self._source:
                self._pass_nameless(event, out)
        else:
            self._pass_unproven(event, out)

    def _pass_unproven(self, event: Trade, out: list[Event]) -> None:
        """Let a trade through whose id only tells repetition, if it is new."""
        at_ns, last_ns = event.venue_time_ns, self._last_venue_ns
        if at_ns is not None and last_ns is not None:
            # Some venues begin a stream with old trades: those from before our memory were passed long ago.
            old = at_ns < max(self._floor_ns, last_ns - int(self.context.dedupe_window_s * SECOND_NS))
            if old or event.id in self._edge:
                self.duplicate()
                return
        if event.id is not None and self._seen.again(event.id, event.received_ns):
            self.duplicate()
            return
        self._last_ns = event.received_ns
        if at_ns is not None:
            self._last_venue_ns = max(last_ns or 0, at_ns)
        out.append(event)

    def _pass_nameless(self, event: Trade, out: list[Event]) -> None:
        """Let a trade through that nothing but its time tells from others."""
        at_ns = event.venue_time_ns
        if at_ns is not None:
            if at_ns < self._floor_ns:
                self.duplicate()
                return
            self._last_venue_ns = max(self._last_venue_ns or 0, at_ns)
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
        first = max(number - event.fills, last) + 1
        if first in self._held:
            self.duplicate()
            return
        if not self._held:
            self._held_since_ns = event.received_ns
        self._held[first] = event
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
            self._pass(int(trade.id or 0), trade, out)

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Let go what was held back for too long."""
        super().tick(now_ns, out)
        if now_ns - self._held_since_ns > HOLD_S * SECOND_NS:
            if self._held:
                self._give_up(out)
            if self._waiting is not None:
                self._filled_by_time(None, now_ns, out)

    def _give_up(self, out: list[Event]) -> None:
        """Let go all that is held; an answer that is still on its way comes too late."""
        if self._held:
            self._asked_before = 0
            self._let_go({}, max(self._held), "trades missed, and REST did not answer in time", out)

    def filled(self, trades: Sequence[Trade] | None, now_ns: int, out: list[Event]) -> None:
        """Take the answer to what was wanted (None, if it could not be had) and let go what was held."""
        if not self._proof:
            self._filled_by_time(trades, now_ns, out)
            return
        before, self._asked_before = self._asked_before, 0
        self._wanted = False
        if not self._held or self._last_id is None:
            return
        last, end = self._last_id, max(self._held)
        held = {
            number for first, trade in self._held.items() for number in range(first, int(trade.id or 0) + 1)
        }
        found = {
            number: trade
            for trade in trades or ()
            if last < (number := int(trade.id or 0)) < end and number not in held
        }
        self._let_go(found, before, "trades missed, and REST did not have them all", out)
        if self._held:
            # A hole that was not asked for yet, behind the one that was.
            self._held_since_ns = now_ns
            self._want()

    def _filled_by_time(self, trades: Sequence[Trade] | None, now_ns: int, out: list[Event]) -> None:
        """Let go what was held, after what REST knows of the time before it."""
        if self._waiting is None:
            return  # the answer comes too late
        waiting, self._waiting = self._waiting, None
        rows = sorted(trades or (), key=lambda trade: trade.venue_time_ns or 0)
        passed: list[Event] = []
        if self._ids is TradeIds.NONE:
            last_ns = self._floor_ns
            known = bool(rows) and (rows[0].venue_time_ns or 0) <= last_ns
            waiting = [trade for trade in waiting if (trade.venue_time_ns or now_ns) > last_ns]
            end_ns = min((trade.venue_time_ns or now_ns for trade in waiting), default=now_ns + SECOND_NS)
            rows = [trade for trade in rows if last_ns < (trade.venue_time_ns or 0) < end_ns]
            for trade in (*rows, *waiting):
                self._pass_nameless(trade, passed)
        else:
            known = any(trade.id in self._edge for trade in (*rows, *waiting))
            ours = {trade.id for trade in waiting}
            for trade in (*(row for row in rows if row.id not in ours), *waiting):
                self._pass_unproven(trade, passed)
        recovered = sum(event.origin is Origin.BACKFILL for event in passed)
        if recovered or not known:
            out.append(self._unproven(now_ns, recovered, 0 if known else None))
        self._away_ns = 0
        out += passed

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
            missing = max(0, live - last - 1 - sum(found[lost].fills for lost in recovered))
            if missing and live > before:
                return
            trade = self._held.pop(live)
            if missing or recovered:
                why = reason if missing else "trades missed"
                out.append(self.gap(last_ns, trade.received_ns, why, len(recovered), missing))
            for lost in recovered:
                self._pass(lost, found[lost], out)
            self._pass(int(trade.id or 0), trade, out)
