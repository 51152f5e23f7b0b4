"""Duplicates, order and holes: what comes out of a market's gate may be published as it is.

The gate is pure: it is told what came and what the time is, puts what may be published into a list, and
says in `wants` what should be fetched.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence

import attrs

from pricefeedd.book_line import BookLine
from pricefeedd.candle_line import CandleLine
from pricefeedd.candles import INTERVALS
from pricefeedd.derive import Derivations, LongMaker, TopicKey, maker_for
from pricefeedd.events import BookSnapshot, Candle, Event, Liquidation, State, Trade
from pricefeedd.histogram import Histogram
from pricefeedd.instruments import Instrument
from pricefeedd.lines import (
    Context,
    KeyedLine,
    Line,
    PriceLine,
    QuoteLine,
    TickerLine,
    Want,
    WantCandles,
)
from pricefeedd.stats import BadFrame
from pricefeedd.trade_line import TradeLine

#: Channels whose events bear the venue's time of sending; that of a candle or a ticker may be another.
_TIMED = frozenset({"trade", "quote", "book", "price"})
#: Of the events of a batch so many, the newest, are looked at for the venue's time.
LOOKED_AT = 4


class Gate:
    """All lines of one market of one venue.

    Attributes:
        past: Events of the lines that were forgotten, by channel.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.derivations = Derivations()
        self.past: Counter[str] = Counter()
        self._lines: dict[str, dict[str, Line[Event]]] = {}
        self._refused: dict[TopicKey, Line[Event]] = {}

    def __iter__(self) -> Iterator[Line[Event]]:
        for lines in self._lines.values():
            yield from lines.values()
        yield from self._refused.values()

    def expect_made(
        self, chain: Sequence[str], instrument: Instrument, *, owes_within_s: float | None = None
    ) -> list[Line[Event]]:
        """Begin to let a topic through, and what it is made of; return the lines, the topic's own first.

        What is only needed for another topic is not published until `show` says so.

        Args:
            chain: The channel, the one that it is made of, and so on, as from `derive.sources`.
        """
        lines: list[Line[Event]] = []
        for channel in reversed(chain):
            known = self.line(channel, instrument.name)
            made = known or self.expect(channel, instrument.name, owes_within_s=owes_within_s)
            if known is None:
                self.derivations.hide((channel, instrument.name))
                if lines:
                    self._make(made, lines[0], instrument)
            lines.insert(0, made)
        for line, source in itertools.pairwise(lines):
            if isinstance(source, CandleLine) and line.channel != "candle_1m":
                source.reach_back(INTERVALS[line.channel.removeprefix("candle_")])
        return lines

    def _make(self, line: Line[Event], source: Line[Event], instrument: Instrument) -> None:
        """Begin to make a line's events of another line's."""
        maker = maker_for(line, source, instrument)
        self.derivations.add((source.channel, instrument.name), maker)
        if isinstance(maker, LongMaker) and isinstance(source, CandleLine) and source.closed_ns is not None:
            want = maker.begin_behind(source.closed_ns)
            if want is not None:
                self.context.wants.append(want)

    def derive(self, events: list[Event]) -> list[Event]:
        """Return what is to be published of one turn's events: see `derive`."""
        return self.derivations.run(events) if self.derivations else events

    def expect(self, channel: str, instrument: str, *, owes_within_s: float | None = None) -> Line[Event]:
        """Begin to let a topic through; return its line."""
        lines = self._lines.setdefault(channel, {})
        line = lines.get(instrument)
        if line is None:
            line = lines[instrument] = line_for(channel, instrument, self.context)
            line.owes_within_s = owes_within_s
        return line

    def forget(self, channel: str, instrument: str, source: str | None = None) -> None:
        """Let a topic through no longer, nor make it of the channel that is its source."""
        topic = (channel, instrument)
        line = self.line(channel, instrument)
        if line is not None:
            self.past[channel] += line.count
        self.derivations.forget(topic, line, None if source is None else (source, instrument))
        self._lines.get(channel, {}).pop(instrument, None)
        self._refused.pop(topic, None)

    def line(self, channel: str, instrument: str) -> Line[Event] | None:
        """Return the line of a topic; None if it is not expected."""
        return self._lines.get(channel, {}).get(instrument) or self._refused.get((channel, instrument))

    def book(self, instrument: str, name: str = "") -> BookSnapshot | None:
        """Return the present book of an instrument; None while there is none.

        Args:
            name: To be put on it, in place of the instrument's own.
        """
        line = self.line("book", instrument)
        book = line.current() if isinstance(line, BookLine) else None
        return book if book is None or name in ("", instrument) else attrs.evolve(book, instrument=name)

    def take_wants(self) -> list[Want]:
        """Return what should be fetched, and forget it."""
        wants = self.context.wants[:]
        self.context.wants.clear()
        return wants

    # --- what came ------------------------------------------------------------------------------------

    def admit(self, events: Sequence[Event], out: list[Event], carrier: int = 0) -> None:
        """Let events of one batch through. Topics that nobody expects are passed over.

        Args:
            carrier: The connection that brought them.
        """
        lines = self._lines
        event = None
        for event in events:
            try:
                line = lines[event.channel][event.instrument]
            except KeyError:
                continue
            try:
                line.admit(event, out, carrier)
            except ValueError as e:
                # A codec hands texts through unread; one that should be a number is none.
                shown = repr(event).encode()[:2000]
                bad = BadFrame(at_ns=event.received_ns, feed=line.channel, reason=repr(e), frame=shown)
                self.context.stats.misunderstood(bad)
        if event is not None and event.venue_time_ns is not None:
            clock = self.context.clock
            if event.venue_time_ns > clock.by_carrier.get(carrier, 0):
                clock.by_carrier[carrier] = event.venue_time_ns
                clock.latest_ns = max(clock.latest_ns, event.venue_time_ns)
        # One per batch is enough to know the latency, and costs nothing per event. Not all of a venue's events bear a
        # time, and often a few of several kinds come together.
        for event in reversed(events[-LOOKED_AT:]):
            if event.venue_time_ns is not None:
                self._time(event, event.venue_time_ns)
                break

    def _time(self, event: Event, venue_ns: int) -> None:
        """Count how long an event was on its way."""
        stats, channel = self.context.stats, event.channel
        if channel in _TIMED:
            latency_ns = stats.offset.observe(venue_ns, event.received_ns)
        else:
            latency_ns = stats.offset.latency_ns(venue_ns, event.received_ns)
        histogram = stats.latency.get(channel)
        if histogram is None:
            if channel not in self._lines:
                return  # nobody asked for it: what a venue makes up names no metric
            histogram = stats.latency[channel] = Histogram()
        histogram.observe_ns(latency_ns)

    def accepted(self, carrier: int, topics: Iterable[TopicKey], now_ns: int, out: list[Event]) -> None:
        """Note that a connection brings these topics from now on."""
        for channel, instrument in topics:
            refused = self._refused.pop((channel, instrument), None)
            if refused is not None:
                self._lines[channel][instrument] = refused
            line = self.line(channel, instrument)
            if line is not None:
                line.accepted(carrier, now_ns, out)

    def refused(
        self, topics: Iterable[TopicKey], reason: str, now_ns: int, out: list[Event], *, final: bool
    ) -> None:
        """Note that the venue will not bring these topics.

        Some venues send a last frame of what they refused: after a final no it is passed over.
        """
        for channel, instrument in topics:
            line = self.line(channel, instrument)
            if line is not None and not line.carriers:
                line.say(State.DOWN, reason, now_ns, out)
                if final and self._lines[channel].pop(instrument, None) is not None:
                    self._refused[channel, instrument] = line

    def lost(
        self,
        carrier: int,
        topics: Iterable[TopicKey],
        reason: str,
        now_ns: int,
        out: list[Event],
        *,
        state: State = State.CONNECTING,
    ) -> None:
        """Note that a connection is gone, which brought or should have brought these topics."""
        self.context.clock.by_carrier.pop(carrier, None)
        told = set(topics)
        for lines in self._lines.values():  # what was refused stays so
            for line in lines.values():
                if carrier in line.carriers or (line.channel, line.instrument) in told:
                    line.lost(carrier, state, reason, now_ns, out)

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Look at the clock, about once a second."""
        for line in self:
            line.tick(now_ns, out)

    def shift(self, by_ns: int) -> None:
        """Note that the wall clock jumped."""
        self.context.stats.offset.reset()
        for line in self:
            line.shift(by_ns)
        self.derivations.shift(by_ns)

    # --- what was fetched -----------------------------------------------------------------------------

    def book_fetched(self, instrument: str, book: BookSnapshot | None, now_ns: int, out: list[Event]) -> None:
        """Take a snapshot that was wanted; None if it could not be had."""
        line = self.line("book", instrument)
        if isinstance(line, BookLine):
            line.fetched(book, now_ns, out)

    def trades_fetched(
        self, instrument: str, trades: Sequence[Trade] | None, now_ns: int, out: list[Event]
    ) -> None:
        """Take trades that were wanted; None if they could not be had."""
        line = self.line("trade", instrument)
        if isinstance(line, TradeLine):
            line.filled(trades, now_ns, out)

    def candles_fetched(
        self, want: WantCandles, candles: Sequence[Candle] | None, now_ns: int, out: list[Event]
    ) -> None:
        """Take candles that were wanted; None if they could not be had."""
        if want.channel != "candle_1m":
            maker = self.derivations.maker(("candle_1m", want.instrument), want.channel)
            if isinstance(maker, LongMaker):
                maker.caught_up(candles, out)
            return
        line = self.line("candle_1m", want.instrument)
        if isinstance(line, CandleLine):
            line.filled(want, candles, now_ns, out)


def _liquidation_key(event: Liquidation) -> Hashable:
    return (event.venue_time_ns, event.price, event.size, event.side)


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
    elif channel.startswith("candle_"):
        made = Line(channel, instrument, context)
    else:
        assert channel == "liquidation", f"no market has {channel!r}"
        made = KeyedLine(channel, instrument, context, _liquidation_key)
    return made  # type: ignore[return-value]  # each line takes its own channel's events, and gets no others
