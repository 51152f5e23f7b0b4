"""Our names for what an account trades. Lists of instruments are loaded once something of their market comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
import trio

from pricefeedd.backfill import RestClient
from pricefeedd.errors import VenueError
from pricefeedd.events import AccountEvent
from pricefeedd.instruments import InstrumentMap
from pricefeedd.limits import backoff
from pricefeedd.venue import Venue

log = structlog.get_logger("pricefeedd.accounts")

#: A symbol that is not in the list was listed since then, maybe; but the list is not read more often than this.
RELOAD_S = 600.0


class Names:
    """Finds the names, and loads what it needs for that."""

    def __init__(
        self,
        section: str,
        venue: Venue,
        rest: RestClient,
        *,
        known: Callable[[str], InstrumentMap | None],
    ) -> None:
        """Prepare to find names.

        Args:
            known: Returns a market's list if somebody else has loaded it.
        """
        self._section = section
        self._venue = venue
        self._rest = rest
        self._known = known
        self._names: dict[str, Mapping[str, str]] = {}
        self._loaded_at: dict[str, float] = {}
        self._wanted: dict[str, trio.Event] = {}
        self._woken = trio.Event()

    def put(self, event: AccountEvent) -> None:
        """Put our name on an event that concerns an instrument; without one it keeps the venue's symbol.

        Where the list is not there yet, it is wanted from now on.
        """
        market, symbol = event.fields.get("market"), event.fields.get("symbol")
        if type(market) is str and type(symbol) is str and market in self._venue.markets:
            name = self._find(market, symbol)
            if name is None:
                self._want(market)
            event.instrument = name or symbol

    def _find(self, market: str, symbol: str) -> str | None:
        known = self._names.get(market)
        if known is None:
            listed = self._known(market)
            if listed is None:
                return None
            known = self._names[market] = listed.names
            self._loaded_at[market] = trio.current_time()
        return known.get(symbol)

    def _want(self, market: str) -> trio.Event | None:
        """Have a market's list loaded, unless that was done lately; return what is set then."""
        loaded_at = self._loaded_at.get(market)
        if loaded_at is not None and trio.current_time() - loaded_at < RELOAD_S:
            return None
        done = self._wanted.setdefault(market, trio.Event())
        self._woken.set()
        return done

    async def ready(self, market: str) -> None:
        """Wait until a market's list was loaded; returns at once if it was, or if there is no such market."""
        if market in self._venue.markets and market not in self._names and self._known(market) is None:
            done = self._want(market)
            if done is not None:
                await done.wait()

    async def run(self) -> None:
        """Load what is wanted, for ever."""
        under_way: set[str] = set()
        async with trio.open_nursery() as nursery:
            while True:
                await self._woken.wait()
                self._woken = trio.Event()
                for market in self._wanted.keys() - under_way:
                    under_way.add(market)
                    nursery.start_soon(self._load, market, under_way, name=f"names:{self._section}:{market}")

    async def _load(self, market: str, under_way: set[str]) -> None:
        delays = backoff()
        while True:
            try:
                found = await self._rest.fetch_all(self._venue.rest.instruments(market))
            except VenueError as e:
                delay_s = max(next(delays), e.retry_after_s or 0)
                log.warning(
                    "instruments not loaded",
                    venue=self._section,
                    market=market,
                    reason=str(e),
                    delay_s=delay_s,
                )
                await trio.sleep(delay_s)
            else:
                self._names[market] = InstrumentMap(self._section, market, found).names
                self._loaded_at[market] = trio.current_time()
                under_way.discard(market)
                self._wanted.pop(market).set()
                return
