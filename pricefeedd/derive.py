"""What is made of a market's own events before they are published, once for all venues.

Minutes from ticks, longer intervals from minutes, quotes from books, and copies for instruments that another
one's stream serves. What is only needed to make something else is not published itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from pricefeedd.book_line import BookLine
from pricefeedd.candle_line import CandleLine
from pricefeedd.candles import INTERVALS, LongCandles, TickMinutes
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Origin,
    Quote,
    State,
    Status,
    topic_channel,
)
from pricefeedd.instruments import Instrument
from pricefeedd.lines import MINUTE_NS, Line, QuoteLine, WantCandles
from pricefeedd.rules import Rules, TradeIds
from pricefeedd.trade_line import TradeLine

TopicKey = tuple[str, str]


def sources(channel: str, rules: Rules) -> list[str]:
    """Return a channel, the one that it is made of, and so on, down to one that the venue sends."""
    chain = [channel]
    if channel.removeprefix("candle_") in INTERVALS:
        chain.append("candle_1m")
    if chain[-1] == "candle_1m" and rules.candle is not None and rules.candle.built_from:
        chain.append(rules.candle.built_from)
    if channel == "quote" and rules.quote_from_book:
        chain.append("book")
    return chain


def maker_for(line: Line[Any], source: Line[Any], instrument: Instrument) -> Maker:
    """Return what makes a line's events of another line's."""
    rules = line.context.rules
    if isinstance(line, QuoteLine):
        assert isinstance(source, BookLine), "quotes are made of books"
        return QuoteMaker(source, line)
    assert rules.candle is not None, "a market that offers candles has a rule for them"
    if not isinstance(line, CandleLine):
        interval = line.channel.removeprefix("candle_")
        made = LongCandles(line.context.venue, instrument.name, interval, empty=rules.candle.empty)
        return LongMaker(made, line)
    trades = source if isinstance(source, TradeLine) else None
    minutes = TickMinutes(
        line.context.venue,
        instrument.name,
        grace_s=rules.candle.grace_s,
        empty=rules.candle.empty,
        proof=rules.trade is not None and rules.trade.ids is TradeIds.CONSECUTIVE and trades is not None,
        counts=trades is not None,
        worth=trades is not None and instrument.size_unit == "base",
        pending=(lambda: False) if trades is None else (lambda: trades.holding),
        shown_ns=lambda: source.context.clock.shown_by(source.carriers),
    )
    return MinuteMaker(minutes, line)


class Maker:
    """Makes one topic of another's events.

    Attributes:
        line: The line of what is made.
    """

    line: Line[Any]

    def take(self, event: Event, out: list[Event]) -> None:
        """Take one event of the topic that it is made of."""
        raise NotImplementedError  # each kind has its own

    def settle(self, out: list[Event]) -> None:
        """Tell what came of all the events of one batch."""

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Look at the clock, about once a second."""

    def shift(self, by_ns: int) -> None:
        """Note that the wall clock jumped."""


class MinuteMaker(Maker):
    """Minutes from ticks; their line keeps them in order with those from REST."""

    line: CandleLine

    def __init__(self, minutes: TickMinutes, line: CandleLine) -> None:
        self._minutes = minutes
        self.line = line
        self._received_ns = 0

    def take(self, event: Event, out: list[Event]) -> None:
        self._received_ns = event.received_ns
        try:
            self._minutes.take(event)
        except (ValueError, ArithmeticError):
            self._minutes.tear(event.received_ns)  # price or size is no number: the minute is left to REST

    def settle(self, out: list[Event]) -> None:
        candle = self._minutes.open_minute(self._received_ns)
        if candle is not None:
            self.line.admit(candle, out)

    def tick(self, now_ns: int, out: list[Event]) -> None:
        for start_ns, candle in self._minutes.closed(now_ns):
            if candle is None:
                self.line.absent(start_ns)
            else:
                self.line.admit(candle, out)

    def shift(self, by_ns: int) -> None:
        self._minutes.shift(by_ns)


class LongMaker(Maker):
    """A longer interval from closed minutes."""

    def __init__(self, candles: LongCandles, line: Line[Candle]) -> None:
        self._candles = candles
        self.line = line
        self._held: list[Candle] | None = None

    def begin_behind(self, closed_ns: int) -> WantCandles | None:
        """Begin when the minutes run already; return what is missing of the interval that is not over.

        Args:
            closed_ns: Start of the last minute that closed.
        """
        step_ns = INTERVALS[self.line.channel.removeprefix("candle_")] * MINUTE_NS
        start_ns = (closed_ns + MINUTE_NS) // step_ns * step_ns
        if start_ns > closed_ns:
            return None
        self._held = []
        return WantCandles(
            instrument=self.line.instrument, start_ns=start_ns, end_ns=closed_ns, channel=self.line.channel
        )

    def caught_up(self, minutes: Sequence[Candle] | None, out: list[Event]) -> None:
        """Take the minutes that were missing, None if they could not be had, and then what came meanwhile."""
        held, self._held = self._held, None
        if held is None:
            return
        known = {minute.start_ns: minute for minute in (*(minutes or ()), *held) if minute.closed}
        made: list[Event] = []
        for start_ns in sorted(known):
            self._candles.take(known[start_ns], made)
        # How the interval grew is of no interest now, only what came of it.
        growing = [event for event in made if isinstance(event, Candle) and not event.closed]
        self._pass([event for event in made if event not in growing[:-1]], out)

    def take(self, event: Event, out: list[Event]) -> None:
        if self._held is not None:
            if isinstance(event, Candle):
                self._held.append(event)
            return
        made: list[Event] = []
        self._candles.take(event, made)
        self._pass(made, out)

    def tick(self, now_ns: int, out: list[Event]) -> None:
        made: list[Event] = []
        self._candles.tick(now_ns, made)
        self._pass(made, out)

    def _pass(self, made: list[Event], out: list[Event]) -> None:
        for event in made:
            if isinstance(event, Candle):
                self.line.admit(event, out)
            else:
                out.append(event)


class QuoteMaker(Maker):
    """Best bid and offer from the book; as good as the book, and in its state."""

    def __init__(self, book: BookLine, line: QuoteLine) -> None:
        self._book = book
        self.line = line
        self._last: Event | None = None

    def take(self, event: Event, out: list[Event]) -> None:
        if isinstance(event, BookSnapshot | BookDelta):
            self._last = event
        elif isinstance(event, Status):
            self.settle(out)
            if event.state in (State.RESYNCING, State.LIVE) and self.line.carriers:
                self.line.say(event.state, event.reason, event.received_ns, out)

    def settle(self, out: list[Event]) -> None:
        like, self._last = self._last, None
        if like is None or self._book.state is not State.LIVE:
            return
        book = self._book.sync.book
        bids, asks = book.bids.levels(1), book.asks.levels(1)
        quote = Quote(
            venue=like.venue,
            instrument=like.instrument,
            venue_time_ns=like.venue_time_ns,
            received_ns=like.received_ns,
            origin=Origin.DERIVED,
            bid_price=bids[0][0] if bids else None,
            bid_size=bids[0][1] if bids else None,
            ask_price=asks[0][0] if asks else None,
            ask_size=asks[0][1] if asks else None,
        )
        self.line.admit(quote, out)


class Derivations:
    """All that is made in one market."""

    def __init__(self) -> None:
        self._makers: dict[TopicKey, list[Maker]] = {}
        self._hidden: set[TopicKey] = set()
        self._copies: dict[TopicKey, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._makers or self._copies)

    def add(self, source: TopicKey, maker: Maker) -> None:
        """Let a maker take the events of a topic."""
        self._makers.setdefault(source, []).append(maker)

    def maker(self, source: TopicKey, channel: str) -> Maker | None:
        """Return what makes a channel of a topic; None if nothing does."""
        return next((maker for maker in self._makers.get(source, ()) if maker.line.channel == channel), None)

    def copy(self, source: TopicKey, instrument: str) -> None:
        """Publish a topic's events under another instrument's name as well."""
        copies = self._copies.setdefault(source, [])
        if instrument not in copies:
            copies.append(instrument)

    def uncopy(self, source: TopicKey, instrument: str) -> None:
        """Publish a topic's events under this other name no longer."""
        copies = self._copies.get(source, [])
        if instrument in copies:
            copies.remove(instrument)
        if not copies:
            self._copies.pop(source, None)

    def forget(self, topic: TopicKey, line: Line[Any] | None = None, source: TopicKey | None = None) -> None:
        """Make nothing of a topic any more, nor its line of its source."""
        self._hidden.discard(topic)
        self._copies.pop(topic, None)
        self._makers.pop(topic, None)
        if source is not None:
            left = [maker for maker in self._makers.get(source, ()) if maker.line is not line]
            if left:
                self._makers[source] = left
            else:
                self._makers.pop(source, None)

    def hide(self, topic: TopicKey) -> None:
        """Do not publish a topic itself."""
        self._hidden.add(topic)

    def show(self, topic: TopicKey) -> None:
        """Publish a topic, hidden or not before."""
        self._hidden.discard(topic)

    def run(self, events: Iterable[Event]) -> list[Event]:
        """Return what is to be published of a batch: its events, what is made of them, and the copies."""
        done: list[Event] = []
        touched: dict[Maker, None] = {}
        for event in events:
            self._one(event, done, touched)
        while touched:
            maker, _ = touched.popitem()
            more: list[Event] = []
            maker.settle(more)
            for event in more:
                self._one(event, done, touched)
        return done

    def _one(self, event: Event, done: list[Event], touched: dict[Maker, None]) -> None:
        topic = (topic_channel(event), event.instrument)
        if topic not in self._hidden:
            done.append(event)
        for maker in self._makers.get(topic, ()):
            more: list[Event] = []
            maker.take(event, more)
            touched[maker] = None
            for made in more:
                self._one(made, done, touched)
        copies = self._copies.get(topic, ())
        done.extend(attrs.evolve(event, instrument=instrument) for instrument in copies)

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Look at the clock, about once a second; what is told goes through `run` like all else."""
        for makers in self._makers.values():
            for maker in makers:
                maker.tick(now_ns, out)

    def shift(self, by_ns: int) -> None:
        """Note that the wall clock jumped."""
        for makers in self._makers.values():
            for maker in makers:
                maker.shift(by_ns)
