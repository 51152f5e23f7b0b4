"""Hermes' `price_feeds` replies to instruments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_pyth.codec import VENUE, read_id

#: Where several feeds have the same base and quote, the plain name belongs to the first of these kinds.
_ORDER = ("Crypto", "FX", "Metal", "Equity", "Commodities", "Rates")


def read_instruments(rows: Any) -> list[Instrument]:
    """Return the instruments in a `price_feeds` reply.

    Names are BASE-QUOTE. Where several feeds have the same ones (a stock and a token, or the sessions of a
    stock), the first of them has the plain name and the others their full symbol, `Equity.US.AAPL-USD.PRE`. A row
    that cannot be named is passed over, for one odd feed must not take the others with it.

    Raises:
        DecodeError: There is no list, or no row of it can be read.
    """
    if type(rows) is not list:
        raise DecodeError("price_feeds is not a list", venue=VENUE)
    return list(_named(listed(rows, _instrument, what="price_feeds", venue=VENUE)))


def _named(found: Iterable[Instrument]) -> Iterable[Instrument]:
    """Yield instruments with names of their own, the plainest first."""
    taken: set[str] = set()
    for instrument in sorted(found, key=_rank):
        name = instrument.name
        if name in taken:
            name = instrument.rest_symbol.replace("/", "-")
        taken.add(name)
        yield instrument if name == instrument.name else attrs.evolve(instrument, name=name)


def _rank(instrument: Instrument) -> tuple[bool, bool, int, str]:
    symbol = instrument.rest_symbol
    kind = symbol.partition(".")[0]
    order = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    session = "." in symbol.rpartition("/")[2] and "/" in symbol  # Equity.US.AAPL/USD.PRE
    return not instrument.tradable, session, order, symbol


def _instrument(row: Any) -> Instrument:
    feed_id = read_id(row)
    attributes = row["attributes"]
    symbol = attributes["symbol"]
    if len(feed_id) != 64 or not isinstance(symbol, str) or not symbol:
        raise ValueError(f"no id or symbol in {row!r}")
    # Rates have no base, and some feeds no quote currency.
    bare = symbol.rpartition(".")[2] if "/" not in symbol else symbol.partition("/")[0].rpartition(".")[2]
    base = str(attributes.get("base") or bare)
    quote = str(attributes.get("quote_currency") or symbol.partition("/")[2].partition(".")[0])
    dead = str(attributes.get("description", "")).upper().startswith("DEPRECATED")
    return Instrument(
        venue=VENUE,
        market="oracle",
        name=spell(base, quote, Kind.ORACLE) if quote else base,
        # The stream knows feeds by id only; the symbol is what history goes by.
        symbol=feed_id,
        rest_symbol=symbol,
        kind=Kind.ORACLE,
        base=base,
        quote=quote,
        settle=quote,
        # The exponent comes with each price, and there is nothing to trade.
        tick_size=None,
        lot_size=None,
        tradable=not dead,
        status="deprecated" if dead else str(attributes.get("asset_type", "")),
    )
