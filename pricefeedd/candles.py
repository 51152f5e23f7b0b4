"""Candles that venues do not send: minutes from ticks, and longer intervals from closed minutes.

Pure state that is told the time. Nothing here is published by itself: minutes go through the line of their
topic like any others, so that each closes once and in order, whoever brings it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

import attrs

from pricefeedd.events import Candle, Event, Gap, Origin, Price, State, Status, Trade
from pricefeedd.lines import MINUTE_NS, SECOND_NS
from pricefeedd.rules import EmptyMinutes

#: Longer intervals by name, in minutes: those of `events.DERIVED_CHANNELS`. All of them begin at a multiple of themselves since the epoch, UTC.
INTERVALS = {"5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1440}


def _text(number: Decimal) -> str:
    return format(number, "f")


@attrs.define
class _Minute:
    """What was traded in one minute so far."""

    start_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    trades: int = 0

    def add(self, price: str) -> None:
        """Take one more price, the newest."""
        value = float(price)
        if value > float(self.high):
            self.high = price
        if value < float(self.low):
            self.low = price
        self.close = price


class TickMinutes:
    """Minutes of one instrument, made from its trades or an oracle's prices.

    A minute is closed when `grace_s` has gone by after its end, so that stragglers are in it, and something
    later came over the same connection: silence may be a stall. And only if it was seen whole: from its
    beginning, with nothing lost in it. Others are left to REST. The venue's clock is ours, put right by how
    far the newest ticks were ahead of it or behind.
    """

    def __init__(
        self,
        venue: str,
        instrument: str,
        *,
        grace_s: float,
        empty: EmptyMinutes,
        proof: bool = False,
        counts: bool = True,
        worth: bool = True,
        pending: Callable[[], bool] = lambda: False,
        shown_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        """Begin with nothing seen.

        Args:
            empty: What becomes of a minute without a tick.
            proof: The ticks' ids prove that nothing is missing, a reconnect or not; else a time without a
                connection is a hole.
            counts: The ticks are trades, so that their number means something.
            worth: Price times size is the turnover; it is not where sizes are contracts.
            pending: Whether ticks are being held back, so that no minute can be closed yet.
            shown_ns: The newest time that the venue showed on the connection of the ticks.
        """
        self._venue = venue
        self._instrument = instrument
        self._grace_ns = int(grace_s * SECOND_NS)
        self._empty = empty
        self._proof = proof
        self._counts = counts
        self._worth = worth
        self._pending = pending
        self._shown_ns = shown_ns
        self._minutes: dict[int, _Minute] = {}
        self._next_ns: int | None = None  # the next minute to be closed
        # Nothing was lost since then: by our clock, since the connection or the last hole; by the venue's, since
        # the first of an unbroken row of ids.
        self._since_ns: int | None = None
        self._proven_ns: int | None = None
        self._live = False
        self._doubt = False
        self._ahead_ns: int | None = None
        self._newest_ns = 0
        self._close: str | None = None
        self._touched: _Minute | None = None

    def shift(self, by_ns: int) -> None:
        """Note that our clock jumped."""
        self._ahead_ns = None  # to be learnt again: some ticks may have been counted by the new time already
        if self._since_ns is not None:
            self._since_ns += by_ns

    def tear(self, until_ns: int) -> None:
        """Note that something was lost up to a time by our clock."""
        self._since_ns, self._proven_ns = until_ns, None

    # --- what came ------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Take what the topic of the ticks brings, holes and states too, in order."""
        match event:
            case Trade(price=price, size=size):
                at_ns = event.received_ns if event.venue_time_ns is None else event.venue_time_ns
                minute = self._tick(at_ns, price, event)
                if minute is not None:
                    amount = Decimal(size)
                    minute.volume += amount
                    minute.turnover += Decimal(price) * amount
                    minute.trades += event.fills
            case Price(price=price, publish_time_ns=at_ns):
                self._tick(at_ns, price, event)
            case Gap(missing=missing, to_ns=to_ns):
                if missing != 0:
                    self.tear(to_ns)
            case Status(state=State.LIVE):
                self._live = True
                if self._since_ns is None:
                    self._since_ns = event.received_ns
            case Status(state=state) if state is not State.STALE:
                self._live = False
                self._doubt = True
                if not self._proof:
                    self._since_ns = None

    def _tick(self, at_ns: int, price: str, event: Event) -> _Minute | None:
        """Count a tick to its minute; None if that was closed already."""
        self._doubt = False
        if event.origin is Origin.LIVE:
            ahead_ns = at_ns - event.received_ns
            self._ahead_ns = ahead_ns if self._ahead_ns is None else max(self._ahead_ns, ahead_ns)
        if self._proof:
            self._proven_ns = at_ns if self._proven_ns is None else min(self._proven_ns, at_ns)
        self._newest_ns = max(self._newest_ns, at_ns)
        start_ns = at_ns // MINUTE_NS * MINUTE_NS
        if self._next_ns is None:
            self._next_ns = start_ns
        if start_ns < self._next_ns:
            return None
        minute = self._minutes.get(start_ns)
        if minute is None:
            minute = self._minutes[start_ns] = _Minute(start_ns, price, price, price, price)
        else:
            minute.add(price)
        self._touched = minute
        return minute

    # --- what comes of it -----------------------------------------------------------------------------

    def open_minute(self, received_ns: int) -> Candle | None:
        """Return the minute that was touched since the last call, as it stands; None if none was."""
        minute, self._touched = self._touched, None
        if minute is None or minute.start_ns not in self._minutes:
            return None
        return self._candle(minute, received_ns, closed=False)

    def closed(self, now_ns: int) -> list[tuple[int, Candle | None]]:
        """Return the starts of the minutes that are over and were seen whole, oldest first, with what they were.

        None stands for a minute that does not exist, because nothing happened in it.

        Args:
            now_ns: Our clock.
        """
        if self._next_ns is None or self._ahead_ns is None:
            return []
        if not self._live or self._doubt or self._pending():
            return []
        over_ns = min(now_ns + self._ahead_ns - self._grace_ns, max(self._newest_ns, self._shown_ns()))
        found: list[tuple[int, Candle | None]] = []
        while self._next_ns + MINUTE_NS <= over_ns:
            start_ns = self._next_ns
            self._next_ns += MINUTE_NS
            whole = self._is_whole_from(start_ns)
            minute = self._minutes.pop(start_ns, None)
            last = self._close
            if minute is None and last is not None and self._empty is EmptyMinutes.FLAT:
                minute = _Minute(start_ns, last, last, last, last)
            if minute is not None:
                self._close = minute.close
            if whole and minute is not None:
                found.append((start_ns, self._candle(minute, now_ns, closed=True)))
            elif whole and self._empty is EmptyMinutes.NONE:
                found.append((start_ns, None))
        return found

    def _is_whole_from(self, start_ns: int) -> bool:
        if self._proven_ns is not None and self._proven_ns <= start_ns:
            return True
        if self._since_ns is None or self._ahead_ns is None:
            return False
        return self._since_ns + self._ahead_ns <= start_ns

    def _candle(self, minute: _Minute, received_ns: int, *, closed: bool) -> Candle:
        return Candle(
            venue=self._venue,
            instrument=self._instrument,
            received_ns=received_ns,
            origin=Origin.DERIVED,
            start_ns=minute.start_ns,
            open=minute.open,
            high=minute.high,
            low=minute.low,
            close=minute.close,
            volume=_text(minute.volume),
            turnover=_text(minute.turnover) if self._worth else None,
            trades=minute.trades if self._counts else None,
            closed=closed,
        )


@attrs.define
class _Sum:
    """The minutes of one interval so far."""

    first_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: Decimal
    turnover: Decimal | None
    trades: int | None
    minutes: int = 1

    @classmethod
    def of(cls, minute: Candle) -> _Sum:
        """Begin with a minute."""
        return cls(
            minute.start_ns,
            minute.open,
            minute.high,
            minute.low,
            minute.close,
            Decimal(minute.volume),
            None if minute.turnover is None else Decimal(minute.turnover),
            minute.trades,
        )

    def add(self, minute: Candle) -> None:
        """Take the next minute; what one of them does not say, the sum cannot say either."""
        self.minutes += 1
        if float(minute.high) > float(self.high):
            self.high = minute.high
        if float(minute.low) < float(self.low):
            self.low = minute.low
        self.close = minute.close
        self.volume += Decimal(minute.volume)
        if self.turnover is not None:
            self.turnover = None if minute.turnover is None else self.turnover + Decimal(minute.turnover)
        if self.trades is not None:
            self.trades = None if minute.trades is None else self.trades + minute.trades


def joined(minutes: Sequence[Candle], interval: str) -> Candle:
    """Return the longer candle that closed minutes come to, of which at least one is given, oldest first."""
    first, last = minutes[0], minutes[-1]
    total = _Sum.of(first)
    for minute in minutes[1:]:
        total.add(minute)
    made = LongCandles(first.venue, first.instrument, interval, empty=EmptyMinutes.NONE)
    return made.closed(total, first.start_ns, last.received_ns)


class LongCandles:
    """One longer interval of one instrument, made from its closed minutes.

    It is told open after each minute and closed with its last one. An interval of which a minute is missing
    is not told as closed: readers get a `Gap`, and the next one begins afresh.
    """

    def __init__(self, venue: str, instrument: str, interval: str, *, empty: EmptyMinutes) -> None:
        self._venue = venue
        self._instrument = instrument
        self._interval = interval
        self._step_ns = INTERVALS[interval] * MINUTE_NS
        self._holes_are_normal = empty is EmptyMinutes.NONE
        self._start_ns = 0
        self._sum: _Sum | None = None
        self._expected_ns = 0
        self._exact = False
        self._began = False

    def take(self, event: Event, out: list[Event]) -> None:
        """Take what the topic of the minutes brings."""
        if not isinstance(event, Candle) or not event.closed:
            return
        start_ns = event.start_ns // self._step_ns * self._step_ns
        if self._sum is not None and start_ns != self._start_ns:
            self._finish(event.received_ns, out)
        if self._sum is None:
            # The very first one may have begun before what we know.
            self._exact = event.start_ns == start_ns or (self._holes_are_normal and self._began)
            self._start_ns = start_ns
            self._sum = _Sum.of(event)
            self._began = True
        else:
            self._exact = self._exact and (self._holes_are_normal or event.start_ns == self._expected_ns)
            self._sum.add(event)
        self._expected_ns = event.start_ns + MINUTE_NS
        if self._expected_ns == start_ns + self._step_ns:
            self._finish(event.received_ns, out)
        elif self._exact:
            out.append(self._candle(self._sum, event.received_ns, closed=False))

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Close an interval that is long over, where its last minutes may rightly not exist."""
        over = self._sum is not None and now_ns > self._start_ns + self._step_ns + 2 * MINUTE_NS
        if over and self._holes_are_normal:
            self._finish(now_ns, out)

    def closed(self, total: _Sum, within_ns: int, received_ns: int) -> Candle:
        """Return the closed candle of the interval that a time is in."""
        self._start_ns = within_ns // self._step_ns * self._step_ns
        return self._candle(total, received_ns, closed=True)

    def _finish(self, now_ns: int, out: list[Event]) -> None:
        """Tell what the interval came to."""
        total, self._sum = self._sum, None
        assert total is not None, "only an interval that began can end"
        whole = self._holes_are_normal or total.minutes == INTERVALS[self._interval]
        if self._exact and whole:
            out.append(self._candle(total, now_ns, closed=True))
        elif total.first_ns == self._start_ns:
            out.append(
                Gap(
                    venue=self._venue,
                    instrument=self._instrument,
                    received_ns=now_ns,
                    origin=Origin.DERIVED,
                    topic_channel=f"candle_{self._interval}",
                    from_ns=self._start_ns,
                    to_ns=self._start_ns + self._step_ns,
                    reason=f"{INTERVALS[self._interval] - total.minutes} of its minutes are missing",
                    missing=1,
                )
            )

    def _candle(self, total: _Sum, received_ns: int, *, closed: bool) -> Candle:
        return Candle(
            venue=self._venue,
            instrument=self._instrument,
            received_ns=received_ns,
            origin=Origin.DERIVED,
            start_ns=self._start_ns,
            interval=self._interval,
            open=total.open,
            high=total.high,
            low=total.low,
            close=total.close,
            volume=_text(total.volume),
            turnover=None if total.turnover is None else _text(total.turnover),
            trades=total.trades,
            closed=closed,
        )
