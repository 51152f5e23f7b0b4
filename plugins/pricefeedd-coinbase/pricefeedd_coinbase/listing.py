"""Coinbase's product lists to instruments."""

from __future__ import annotations

from typing import Any

import attrs

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_coinbase.user import VENUE

#: Flags of a product under which no trades are to be expected, and those under which some are.
_CLOSED = ("is_disabled", "trading_disabled", "view_only")
_LIMITED = ("auction_mode", "cancel_only", "limit_only", "post_only")


def read_instruments(reply: Any) -> list[Instrument]:
    """Return the spot instruments in an answer of `market/products`.

    Unknown states are kept, with the venue's word in `status`. A row that cannot be named is passed over, for
    one odd listing must not take the others with it; so are products that are not spot.

    Raises:
        DecodeError: There is no list of products, or no row of it can be read.
    """
    try:
        rows = reply["products"]
        if type(rows) is not list:
            raise TypeError("products is not a list")
    except (KeyError, TypeError) as e:
        raise DecodeError(f"the answer lists no products ({e!r})", venue=VENUE) from e
    found = listed(rows, _spot, what="products", venue=VENUE)
    # An alias is served by the stream of another product; where that one is not listed, by its own.
    symbols = {instrument.symbol for instrument in found}
    return [
        instrument
        if instrument.alias_of is None or instrument.alias_of in symbols
        else attrs.evolve(instrument, alias_of=None)
        for instrument in found
    ]


def _spot(row: Any) -> Instrument | None:
    return _instrument(row) if row["product_type"] == "SPOT" else None


def _instrument(row: Any) -> Instrument:
    # Names come from the currencies, never from cutting the product's id.
    symbol, base, quote = row["product_id"], row["base_currency_id"], row["quote_currency_id"]
    if not (type(symbol) is type(base) is type(quote) is str and symbol and base and quote):
        raise TypeError(f"no names in {row!r}")
    status = str(row.get("status", ""))
    flag = next((flag for flag in (*_CLOSED, *_LIMITED) if row.get(flag) is True), "")
    return Instrument(
        venue=VENUE,
        market="spot",
        name=spell(base, quote, Kind.SPOT),
        symbol=symbol,
        kind=Kind.SPOT,
        base=base,
        quote=quote,
        settle=quote,
        tick_size=_step(row.get("price_increment")) or _step(row.get("quote_increment")),
        lot_size=_step(row.get("base_increment")),
        tradable=status == "online" and flag not in _CLOSED,
        status=flag or status,
        alias_of=str(row.get("alias") or "") or None,
    )


def _step(step: Any) -> str | None:
    """Return a step; None for "" and for zero, which stand for none."""
    return step if isinstance(step, str) and step.strip("0.") else None
