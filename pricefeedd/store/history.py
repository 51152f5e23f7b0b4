"""Candles of the past: from the store, from what the bus still has, and from the venue where both have a hole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import attrs
import structlog
import trio

from pricefeedd.backfill import question
from pricefeedd.bus import Bus
from pricefeedd.candles import INTERVALS, joined
from pricefeedd.errors import StoreAwayError, VenueError
from pricefeedd.events import Candle, Origin
from pricefeedd.instruments import Directory, Instrument, UnknownInstrumentError
from pricefeedd.lines import MINUTE_NS, WantCandles
from pricefeedd.runtime import VenueRuntime

log = structlog.get_logger("pricefeedd.history")

#: Minutes that one request may have a venue asked for.
VENUE_MINUTES = 3_000
#: Minutes that one request may have read to make longer candles of them.
MOST_MINUTES = 50_000
#: How long a request waits for the venue.
VENUE_S = 5.0
#: Requests that ask venues at once: what is live goes before.
AT_ONCE = 2
#: History is asked for only while so much of the venue's rate budget is left.
SPARE = 0.5
#: Minutes that are remembered, so that they need not be asked for again.
REMEMBERED = 20_000
#: The newest minutes may come late: that a venue does not have them yet means nothing.
SETTLED_NS = 3 * MINUTE_NS

#: Where a candle begins, ns since the Unix epoch UTC.
_Start = int
_Topic = tuple[str, str, str]


class Stored(Protocol):
    """Candles in a database."""

    async def candles(
        self, venue: str, instrument: str, interval: str, from_ns: int, to_ns: int
    ) -> Iterable[Candle]:
        """Return the closed candles that begin in [from_ns, to_ns).

        Raises:
            StoreAwayError: They cannot be read now.
        """
        ...

    def keep_candles(self, candles: Sequence[Candle]) -> None:
        """Keep candles that were fetched; never waits."""
        ...


@attrs.frozen(kw_only=True)
class Wanted:
    """Which candles.

    Attributes:
        from_ns: The first may begin here; None for the newest `limit`.
        to_ns: None may begin here or later.
        limit: At most so many intervals at a time.
        open: Whether the interval that still runs is wanted as well.
    """

    venue: str
    instrument: str
    interval: str
    from_ns: int | None
    to_ns: int
    limit: int
    open: bool = False


@attrs.frozen(kw_only=True)
class Found:
    """Candles, oldest first.

    Attributes:
        next_ns: Where to go on from; None if that was all.
        complete: Whether nothing is missing, as far as the venue tells.
    """

    candles: list[Candle]
    next_ns: int | None
    complete: bool


@attrs.define
class _Known:
    """What is known of a range.

    Attributes:
        candles: By where they begin.
        empty: Starts at which there is none, as the venue says.
        lost: Starts of which nobody can say any more.
    """

    candles: dict[_Start, Candle] = attrs.field(factory=dict)
    empty: set[_Start] = attrs.field(factory=set)
    lost: set[_Start] = attrs.field(factory=set)

    def __contains__(self, at: object) -> bool:
        return at in self.candles or at in self.empty or at in self.lost

    def __len__(self) -> int:
        return len(self.candles) + len(self.empty) + len(self.lost)


@attrs.define
class _Budget:
    """What is left to one request."""

    minutes: int = MOST_MINUTES
    venue_minutes: int = VENUE_MINUTES
    until: float = attrs.field(factory=lambda: trio.current_time() + VENUE_S)


class History:
    """Answers what candles there were."""

    def __init__(
        self,
        bus: Bus,
        directory: Directory,
        runtimes: Mapping[str, VenueRuntime],
        *,
        now_ns: Callable[[], int],
        store: Stored | None = None,
    ) -> None:
        self._bus = bus
        self._directory = directory
        self._runtimes = runtimes
        self._now_ns = now_ns
        self._store = store
        self._venues = trio.CapacityLimiter(AT_ONCE)
        self._remembered: dict[tuple[str, str], _Known] = {}

    async def find(self, wanted: Wanted) -> Found:
        """Return candles; what cannot be had now is missing, and told so. Never fails."""
        step = MINUTE_NS * INTERVALS.get(wanted.interval, 1)
        end = min(_up(wanted.to_ns, step), self._now_ns() // step * step)
        start = end - wanted.limit * step if wanted.from_ns is None else _up(wanted.from_ns, step)
        start = max(start, 0)
        stop = min(end, start + wanted.limit * step)
        budget = _Budget()
        topic = (wanted.venue, wanted.instrument, wanted.interval)
        if wanted.interval == "1m":
            known = await self._minutes(topic, start, stop, budget)
            reached = _reached(known, start, stop, step, budget)
        else:
            known, reached = await self._longer(topic, start, stop, budget)
        told = [known.candles[at] for at in range(start, reached, step) if at in known.candles]
        complete = all(at in known.candles or at in known.empty for at in range(start, reached, step))
        more = reached < end
        if wanted.open and not more and wanted.to_ns > end:
            told += self._running(topic, end)
        return Found(candles=told, next_ns=reached if more else None, complete=complete)

    def _running(self, topic: _Topic, end: int) -> list[Candle]:
        """Return the newest interval if it is not over."""
        venue, instrument, interval = topic
        served = self._bus.get(f"candle_{interval}:{venue}:{instrument}")
        last = None if served is None or served.last is None else served.last.event
        return [last] if isinstance(last, Candle) and not last.closed and last.start_ns >= end else []

    # --- minutes --------------------------------------------------------------------------------------------

    async def _minutes(self, topic: _Topic, start: int, stop: int, budget: _Budget) -> _Known:
        known = await self._at_hand(topic, start, stop)
        remembered = self._remembered.setdefault(topic[:2], _Known())
        holes = []
        for at in range(start, stop, MINUTE_NS):
            if at in known.candles:
                continue
            if at in remembered.candles:
                known.candles[at] = remembered.candles[at]
            elif at in remembered.empty:
                known.empty.add(at)
            elif at in remembered.lost:
                known.lost.add(at)
            else:
                holes.append(at)
        if holes:
            await self._fill(topic, holes, known, remembered, budget)
        return known

    async def _at_hand(self, topic: _Topic, start: int, stop: int) -> _Known:
        """Return what the store has, and what the bus has that is not stored yet."""
        known = _Known()
        venue, instrument, interval = topic
        if self._store is not None and start < stop:
            try:
                for candle in await self._store.candles(venue, instrument, interval, start, stop):
                    known.candles[candle.start_ns] = candle
            except StoreAwayError as e:
                log.warning("candles answered without the store", venue=venue, reason=str(e))
        served = self._bus.get(f"candle_{interval}:{venue}:{instrument}")
        for message in () if served is None else served.history:
            event = message.event
            if isinstance(event, Candle) and event.closed and start <= event.start_ns < stop:
                known.candles.setdefault(event.start_ns, event)
        return known

    async def _fill(
        self, topic: _Topic, holes: list[_Start], known: _Known, remembered: _Known, budget: _Budget
    ) -> None:
        """Ask the venue for minutes that nobody else has, within what is allowed."""
        venue, name, _ = topic
        runtime = self._runtimes.get(venue)
        instrument = self._instrument(venue, name)
        if runtime is None or instrument is None:
            return
        for first, last in _runs(holes, budget.venue_minutes):
            with trio.move_on_at(budget.until):
                async with self._venues:
                    found = await self._ask(runtime, instrument, first, last)
                if found is None:
                    return
                budget.venue_minutes -= (last - first) // MINUTE_NS + 1
                self._learn(found, first, last, known, remembered)
                continue
            return

    async def _ask(
        self, runtime: VenueRuntime, instrument: Instrument, first: int, last: int
    ) -> list[Candle] | None:
        """Return what the venue has of a range, closed; None if it cannot be asked now."""
        want = WantCandles(instrument=instrument.name, start_ns=first, end_ns=last)
        call = question(runtime.venue.rest, want, instrument)
        stats = runtime.around.stats.market(runtime.name, instrument.market)
        if call is None or stats.circuit_state == "open":
            return None
        bucket = runtime.buckets.get(call.request.budget)
        if bucket is not None and not bucket.spare(SPARE, trio.current_time()):
            return None
        try:
            rows = await runtime.rest.fetch_all(call, most=VENUE_MINUTES)
        except VenueError as e:
            log.warning("candles not fetched", venue=runtime.name, instrument=instrument.name, reason=str(e))
            return None
        stats.backfills += 1
        found = []
        for row in rows:
            if isinstance(row, Candle) and row.closed and first <= row.start_ns <= last:
                row.venue, row.origin = runtime.name, Origin.BACKFILL  # not shared with anybody yet
                found.append(row)
        return sorted(found, key=lambda candle: candle.start_ns)

    def _learn(self, found: list[Candle], first: int, last: int, known: _Known, remembered: _Known) -> None:
        """Take what the venue answered. It has no candle between two that it has; before the first it may have no memory."""
        if sum(map(len, self._remembered.values())) > REMEMBERED:
            self._remembered.clear()
        by_start = {candle.start_ns: candle for candle in found}
        oldest = found[0].start_ns if found else last + 1
        settled = self._now_ns() - SETTLED_NS
        for at in range(first, last + MINUTE_NS, MINUTE_NS):
            if at in by_start:
                known.candles[at] = by_start[at]
                if self._store is None:
                    remembered.candles[at] = by_start[at]
            elif at > settled:
                continue
            elif at > oldest:
                known.empty.add(at)
                remembered.empty.add(at)
            else:
                known.lost.add(at)
                remembered.lost.add(at)
        if self._store is not None and found:
            self._store.keep_candles(found)

    def _instrument(self, venue: str, name: str) -> Instrument | None:
        try:
            return self._directory.find(venue, name)
        except UnknownInstrumentError:
            return None

    # --- longer intervals -----------------------------------------------------------------------------------

    async def _longer(self, topic: _Topic, start: int, stop: int, budget: _Budget) -> tuple[_Known, _Start]:
        """Return longer candles, made of minutes where there are none, and how far that went."""
        venue, instrument, interval = topic
        step = MINUTE_NS * INTERVALS[interval]
        known = await self._at_hand(topic, start, stop)
        missing = [at for at in range(start, stop, step) if at not in known.candles]
        for first, last in _runs(missing, budget.minutes // INTERVALS[interval], step):
            minutes = await self._minutes((venue, instrument, "1m"), first, last + step, budget)
            budget.minutes -= (last + step - first) // MINUTE_NS
            for at in range(first, last + step, step):
                starts = range(at, at + step, MINUTE_NS)
                of_it = [minutes.candles[minute] for minute in starts if minute in minutes.candles]
                if not all(minute in minutes for minute in starts):
                    continue
                if any(minute in minutes.lost for minute in starts):
                    known.lost.add(at)
                elif of_it:
                    known.candles[at] = joined(of_it, interval)
                else:
                    known.empty.add(at)
            await trio.lowlevel.checkpoint()
            if budget.venue_minutes <= 0:
                break
        return known, _reached(known, start, stop, step, budget)


def _up(time_ns: int, step: int) -> int:
    return -(-time_ns // step) * step


def _reached(known: _Known, start: int, stop: int, step: int, budget: _Budget) -> _Start:
    """Return where a page ends: before the first hole that another request may fill, but not where it began."""
    spent = budget.venue_minutes <= 0 or budget.minutes < step // MINUTE_NS
    if not spent:
        return stop
    for at in range(start, stop, step):
        if at not in known:
            return at if at > start else min(stop, start + step)
    return stop


def _runs(starts: list[_Start], most: int, step: int = MINUTE_NS) -> list[tuple[_Start, _Start]]:
    """Return starts as ranges, first and last, oldest first, up to so many starts in all."""
    runs: list[tuple[_Start, _Start]] = []
    for at in starts[: max(0, most)]:
        if runs and runs[-1][1] + step == at:
            runs[-1] = (runs[-1][0], at)
        else:
            runs.append((at, at))
    return runs
