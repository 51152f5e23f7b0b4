"""The line of a trade topic: ids that prove what was missed, and what is held back while it is fetched."""

from __future__ import annotations

from collections.abc import Sequence

from pricefeedd.events import Event, Trade
from pricefeedd.lines import MINUTE_NS, SECOND_NS, Context, Line, Seen, WantTrades
from pricefeedd.rules import TradeIds

#: The longest hole in trades that is filled; what is beyond is told as missing.
MAX_FILL_TRADES = 20_000
#: Live events held back while a hole before them is being filled, and for how long: a reader would sooner
#: have trades with a hole than none.
MAX_HELD = 20_000
HOLD_S = 30.0


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
        self._proof = self._ids is TradeIds.CONSECUTIVE
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

    def shift(self, by_ns: int) -> None:
        """Move what was noted by a clock that jumped."""
        super().shift(by_ns)
        self._held_since_ns += by_ns

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh, and tell of the hole that the ids cannot prove."""
        super().begin(now_ns, out)
        if self._away_ns and not self._proof:
            reason = "no connection, and the venue's trade ids do not tell what was missed"
            out.append(self.gap(self._away_ns, now_ns, reason, 0, None))
        self._away_ns = 0

    def end(self) -> None:
        """Remember since when there is no connection."""
        self._away_ns = self._last_ns

    def admit(self, event: Trade, out: list[Event]) -> None:
        """Let a trade through, hold it, or drop it."""
        self.count += 1
        if self._proof and event.id is not None:
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
