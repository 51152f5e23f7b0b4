"""One market of a venue at work: its gate, and its instruments once they are known."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import structlog
import trio

from pricefeedd.backfill import RestClient
from pricefeedd.config import VenueConfig
from pricefeedd.errors import VenueError
from pricefeedd.gate import Gate
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.limits import backoff
from pricefeedd.lines import Context
from pricefeedd.stats import MarketStats
from pricefeedd.venue import Venue

log = structlog.get_logger("pricefeedd.market")


class Market:
    """One market.

    Attributes:
        gate: What all that comes of it passes through.
        instruments: None before they were loaded for the first time.
        loaded_at: When they were loaded last, in Trio's time; None before the first.
        not_loaded: Why they could not be loaded when that was tried last; "" if they could.
        names: Our names by the venue's symbol. It stays the same mapping: connections that are open have to
            know new names as well.
    """

    def __init__(self, name: str, venue: Venue, config: VenueConfig, stats: MarketStats) -> None:
        session = config.session
        self.name = name
        self.stats = stats
        self.instruments: InstrumentMap | None = None
        self.loaded_at: float | None = None
        self.not_loaded = ""
        self.names: dict[str, str] = {}
        self.gate = Gate(
            Context(
                venue=config.name,
                rules=venue.rules[name],
                stats=stats,
                wants=[],
                stale_after_s=session.stale_after_s,
                backfill_after_s=session.backfill_after_s,
                dedupe_window_s=session.dedupe_window_s,
                dedupe_entries=session.dedupe_entries,
            )
        )
        # Of a life of the venue that ended in a crash: counts never go back.
        self.gate.past.update(stats.events)
        self._section = config.name
        self._venue = venue

    async def load(
        self, rest: RestClient, *, now_ns: Callable[[], int], delayed: Callable[[str], None]
    ) -> InstrumentMap:
        """Load the instruments, trying for as long as it takes.

        Args:
            delayed: Told why they are not loaded yet, before each wait.
        """
        delays = backoff()
        while True:
            try:
                found = await rest.fetch_all(self._venue.rest.instruments(self.name))
            except VenueError as e:
                delay = max(next(delays), e.retry_after_s or 0)
                self.not_loaded = str(e)
                self.stats.failed(self.not_loaded, now_ns())
                log.warning(
                    "instruments not loaded",
                    venue=self._section,
                    market=self.name,
                    reason=str(e),
                    delay_s=round(delay, 1),
                )
                delayed(f"instruments not loaded: {e}")
                await trio.sleep(delay)
            else:
                if self._section != self._venue.name:
                    found = [attrs.evolve(instrument, venue=self._section) for instrument in found]
                self.instruments = InstrumentMap(self._section, self.name, found)
                self.loaded_at, self.not_loaded = trio.current_time(), ""
                self.names.update(self.instruments.names)
                return self.instruments

    def find(self, name: str) -> Instrument:
        """Return the instrument of that name, of a market whose instruments are known.

        Raises:
            UnknownInstrumentError: There is none.
        """
        assert self.instruments is not None, "nothing of it is begun before"
        return self.instruments.find(name)

    def canonical(self, instrument: Instrument) -> Instrument:
        """Return the instrument whose stream serves this one: nearly always itself."""
        assert self.instruments is not None, "they are where this one is from"
        known = instrument.alias_of is not None and self.instruments.by_symbol(instrument.alias_of)
        return known or instrument
