"""Instruments, and the map between a venue's symbols and our names.

Our names: spot `BTC-USDT`; perpetual `BTC-USDT-PERP` (linear) and `BTC-USD-PERP` (inverse); dated
`BTC-USDT-20261225`; oracle `BTC-USD`. The venue's symbol is accepted wherever a name is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum

import attrs

MARKETS = ("spot", "linear", "inverse", "option", "oracle")


class Kind(StrEnum):
    """What is traded."""

    SPOT = "spot"
    PERPETUAL = "perpetual"
    FUTURE = "future"
    OPTION = "option"
    ORACLE = "oracle"


def spell(base: str, quote: str, kind: Kind, expiry_ns: int | None = None) -> str:
    """Return our name for an instrument.

    Args:
        expiry_ns: Needed for dated kinds: when the contract ends.

    >>> spell("BTC", "USDT", Kind.PERPETUAL)
    'BTC-USDT-PERP'
    """
    if kind is Kind.PERPETUAL:
        return f"{base}-{quote}-PERP"
    if kind is Kind.FUTURE and expiry_ns is not None:
        day = datetime.fromtimestamp(expiry_ns // 1_000_000_000, UTC).strftime("%Y%m%d")
        return f"{base}-{quote}-{day}"
    return f"{base}-{quote}"


@attrs.frozen(kw_only=True)
class Instrument:
    """One thing that a venue lists.

    Attributes:
        name: Ours, `BTC-USDT-PERP`.
        symbol: The venue's spelling on its streams.
        rest_symbol: The venue's spelling in REST, where it differs; else the symbol.
        kind: What is traded.
        market: `spot`, `linear`, `inverse`, `option` or `oracle`.
        settle: Currency of margin and profit; the quote currency on spot.
        tick_size: Smallest price step, decimal text; None if the venue has none or it depends on the price.
        lot_size: Smallest size step, decimal text.
        contract_size: Units of `size_unit` in one contract; "1" where sizes are base units.
        size_unit: What `size` counts: `base`, or `contract`.
        contract_currency: What `contract_size` is measured in: base on linear, quote on inverse.
        expiry_ns: When a dated contract ends.
        tradable: Whether the venue says that it can be traded now.
        status: The venue's own word for that.
        alias_of: Symbol whose stream also serves this instrument; None for nearly all.
    """

    venue: str
    market: str
    name: str
    symbol: str
    rest_symbol: str = attrs.field(
        default=attrs.Factory(lambda self: self.symbol, takes_self=True), repr=False
    )
    kind: Kind
    base: str
    quote: str
    settle: str = ""
    tick_size: str | None = None
    lot_size: str | None = None
    contract_size: str = "1"
    size_unit: str = "base"
    contract_currency: str = ""
    expiry_ns: int | None = None
    tradable: bool = True
    status: str = ""
    alias_of: str | None = None


class UnknownInstrumentError(LookupError):
    """No instrument goes by that name, or several do.

    Attributes:
        asked: What was asked for.
        suggestions: The nearest names that exist, or all that fit.
    """

    def __init__(self, asked: str, suggestions: list[str], *, where: str, ambiguous: bool = False) -> None:
        self.asked = asked
        self.suggestions = suggestions
        if ambiguous:
            super().__init__(f"{asked!r} fits several instruments on {where}: {', '.join(suggestions)}")
            return
        hint = f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
        super().__init__(f"unknown instrument {asked!r} on {where}{hint}")


class InstrumentMap:
    """The instruments of one market of one venue, found by our name or by the venue's symbol.

    Venues differ in letter case between requests and payloads, and several differ only by case
    (`kPEPE`), so the exact spelling wins and case is ignored only where that is unambiguous.
    """

    def __init__(self, venue: str, market: str, instruments: Iterable[Instrument] = ()) -> None:
        self.venue = venue
        self.market = market
        self._by_name: dict[str, Instrument] = {}
        self._by_symbol: dict[str, Instrument] = {}
        self._by_rest_symbol: dict[str, Instrument] = {}
        self._folded: dict[str, Instrument | None] = {}
        for instrument in instruments:
            # A name that two symbols claim stays with the first: venues list the canonical one first.
            self._by_name.setdefault(instrument.name, instrument)
            self._by_symbol.setdefault(instrument.symbol, instrument)
            self._by_rest_symbol.setdefault(instrument.rest_symbol, instrument)
        known_by = (self._by_name, self._by_symbol, self._by_rest_symbol)
        for spelling, instrument in [item for spellings in known_by for item in spellings.items()]:
            folded = spelling.casefold()
            known = self._folded.setdefault(folded, instrument)
            if known is not instrument and known is not None and known.symbol != instrument.symbol:
                self._folded[folded] = None

    def __len__(self) -> int:
        return len(self._by_symbol)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_symbol.values())

    def find(self, spelling: str) -> Instrument:
        """Return the instrument by our name, or the venue's symbol on its streams or in REST.

        Raises:
            UnknownInstrumentError: There is none, or the spelling fits several.
        """
        found = self.get(spelling)
        if found is None:
            raise UnknownInstrumentError(
                spelling, self.suggest(spelling), where=f"{self.venue} {self.market}"
            )
        return found

    def get(self, spelling: str) -> Instrument | None:
        """Return the same; None, and at once, if there is none: `find` looks for similar names, which takes long."""
        found = self._by_name.get(spelling) or self._by_symbol.get(spelling)
        found = found or self._by_rest_symbol.get(spelling)
        return found or self._folded.get(spelling.casefold())

    def knows(self, spelling: str) -> bool:
        """Return whether any instrument goes by that, or several do."""
        return spelling.casefold() in self._folded

    def by_name(self, name: str) -> Instrument | None:
        """Return the instrument with exactly our name; None if there is none."""
        return self._by_name.get(name)

    def by_symbol(self, symbol: str) -> Instrument | None:
        """Return the instrument with exactly this symbol; None if there is none."""
        return self._by_symbol.get(symbol)

    def suggest(self, spelling: str, count: int = 3) -> list[str]:
        """Return the nearest names that exist, best first."""
        folded = spelling.casefold()
        # Among thousands this takes tens of milliseconds, and nearly always what is meant begins the same.
        alike = [known for known in self._folded if known[:2] == folded[:2]]
        near = difflib.get_close_matches(folded, alike, n=count, cutoff=0.6)
        near = near or difflib.get_close_matches(folded, self._folded, n=count, cutoff=0.6)
        names = [found.name for key in near if (found := self._folded[key]) is not None]
        return list(dict.fromkeys(names))

    @property
    def names(self) -> Mapping[str, str]:
        """Our names by the venue's symbol, as codecs take them."""
        return {symbol: instrument.name for symbol, instrument in self._by_symbol.items()}


class Directory:
    """All instruments of all venues that were loaded, for finding one by what a user calls it."""

    def __init__(self) -> None:
        self._maps: dict[tuple[str, str], InstrumentMap] = {}

    def put(self, instruments: InstrumentMap) -> None:
        """Add a market's instruments, or replace them."""
        self._maps[instruments.venue, instruments.market] = instruments

    def drop(self, venue: str) -> None:
        """Forget a venue that is not served any more."""
        for key in [key for key in self._maps if key[0] == venue]:
            del self._maps[key]

    def maps(self, venue: str = "*") -> list[InstrumentMap]:
        """Return the loaded markets of one venue, or of all."""
        return [found for (name, _), found in self._maps.items() if venue in ("*", name)]

    def find(self, venue: str, spelling: str, market: str | None = None) -> Instrument:
        """Return the instrument of a venue by our name or the venue's symbol.

        Raises:
            UnknownInstrumentError: There is none, or it fits several markets and `market` is None.
        """
        maps = [m for m in self.maps(venue) if market in (None, m.market)]
        found: dict[str, Instrument] = {}
        suggestions: list[str] = []
        for candidates in maps:
            try:
                instrument = candidates.find(spelling)
            except UnknownInstrumentError as e:
                suggestions += e.suggestions
            else:
                if instrument.name == spelling:
                    return instrument
                found[instrument.name] = instrument
        if len(found) == 1:
            return next(iter(found.values()))
        raise UnknownInstrumentError(
            spelling, list(found) or suggestions[:3], where=venue, ambiguous=bool(found)
        )
