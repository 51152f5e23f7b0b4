"""Duplicates, order and holes: what comes out of a market's gate may be published as it is.

The gate is pure: it is told what came and what the time is, puts what may be published into a list, and
says in `wants` what should be fetched.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

from pricefeedd.book_line import BookLine
from pricefeedd.candle_line import CandleLine
from pricefeedd.events import AccountEvent, BookSnapshot, Candle, Event, Liquidation, State, Trade
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
from pricefeedd.stats import Histogram
from pricefeedd.trade_line import TradeLine

TopicKey = tuple[str, str]


class Gate:
    """All lines of one market of one venue."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._lines: dict[str, dict[str, Line[Event]]] = {}

    def __iter__(self) -> Iterator[Line[Event]]:
        for lines in self._lines.values():
            yield from lines.values()

    def expect(self, channel: str, instrument: str, *, owes_within_s: float | None = None) -> Line[Event]:
        """Begin to let a topic through; return its line."""
        lines = self._lines.setdefault(channel, {})
        line = lines.get(instrument)
        if line is None:
            line = lines[instrument] = line_for(channel, instrument, self.context)
            line.owes_within_s = owes_within_s
        return line

    def forget(self, channel: str, instrument: str) -> None:
        """Let a topic through no longer."""
        self._lines.get(channel, {}).pop(instrument, None)

    def line(self, channel: str, instrument: str) -> Line[Event] | None:
        """Return the line of a topic; None if it is not expected."""
        return self._lines.get(channel, {}).get(instrument)

    def book(self, instrument: str) -> BookSnapshot | None:
        """Return the present book of an instrument; None while there is none."""
        line = self.line("book", instrument)
        return line.current() if isinstance(line, BookLine) else None

    def take_wants(self) -> list[Want]:
        """Return what should be fetched, and forget it."""
        wants = self.context.wants[:]
        self.context.wants.clear()
        return wants

    # --- what came ------------------------------------------------------------------------------------

    def admit(self, events: Iterable[Event], out: list[Event]) -> None:
        """Let events of one batch through. Topics that nobody expects are passed over."""
        lines = self._lines
        event = None
        for event in events:
            try:
                line = lines[event.channel][event.instrument]
            except KeyError:
                if not isinstance(event, AccountEvent):
                    continue
                line = self.expect(event.kind, event.instrument)
            line.admit(event, out)
        if event is not None and event.venue_time_ns is not None:
            # One per batch is enough to know the latency, and costs nothing per event.
            latency = self.context.stats.latency
            histogram = latency.get(event.channel)
            if histogram is None:
                histogram = latency[event.channel] = Histogram()
            histogram.observe((event.received_ns - event.venue_time_ns) / 1e9)

    def accepted(self, carrier: int, topics: Iterable[TopicKey], now_ns: int, out: list[Event]) -> None:
        """Note that a connection brings these topics from now on."""
        for channel, instrument in topics:
            line = self.line(channel, instrument)
            if line is not None:
                line.accepted(carrier, now_ns, out)

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
        """Note that a connection brings these topics no longer."""
        for channel, instrument in topics:
            line = self.line(channel, instrument)
            if line is not None:
                line.lost(carrier, state, reason, now_ns, out)

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Look at the clock, about once a second."""
        for line in self:
            line.tick(now_ns, out)

    def shift(self, by_ns: int) -> None:
        """Note that the wall clock jumped."""
        for line in self:
            line.shift(by_ns)

    # --- what was fetched -----------------------------------------------------------------------------

    def book_fetched(self, instrument: str, book: BookSnapshot | None, now_ns: int, out: list[Event]) -> None:
        """Take a snapshot that was wanted; None if it could not be had."""
        line = self.line("book", instrument)
        if isinstance(line, BookLine):
            line.fetched(book, now_ns, out)

    def trades_fetched(self, instrument: str, trades: Sequence[Trade], now_ns: int, out: list[Event]) -> None:
        """Take trades that were wanted; none if they could not be had."""
        line = self.line("trade", instrument)
        if isinstance(line, TradeLine):
            line.filled(trades, now_ns, out)

    def candles_fetched(
        self, want: WantCandles, candles: Sequence[Candle] | None, now_ns: int, out: list[Event]
    ) -> None:
        """Take candles that were wanted; None if they could not be had."""
        line = self.line("candle_1m", want.instrument)
        if isinstance(line, CandleLine):
            line.filled(want, candles, now_ns, out)


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
