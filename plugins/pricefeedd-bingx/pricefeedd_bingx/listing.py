"""BingX's lists of symbols and contracts to instruments."""

from __future__ import annotations

from typing import Any

from pricefeedd.codec import plain_decimal
from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_bingx.codec import VENUE

#: `status` of what is online. Swaps with 25 (no new positions) are listed, but their topics are refused.
_ONLINE = 1


def read_instruments(market: str, reply: Any) -> list[Instrument]:
    """Return the instruments in a reply of `common/symbols` (spot) or `quote/contracts` (swaps).

    Unknown states are kept, with the venue's number in `status`. A row that cannot be named is passed over, for
    one odd listing must not take the other thousand with it.

    Raises:
        DecodeError: There is no list, or no row of it can be read.
    """
    try:
        rows = reply["data"]["symbols"] if market == "spot" else reply["data"]
        if type(rows) is not list:
            raise TypeError("not a list")
    except (KeyError, TypeError) as e:
        raise DecodeError(f"the reply of {market} lists no symbols ({e!r})", venue=VENUE) from e
    return listed(rows, _spot if market == "spot" else _swap, what=f"the list of {market}", venue=VENUE)


def _pair(row: Any) -> tuple[str, str, str]:
    """Return symbol, base and quote. Spot rows have no fields for them, so the symbol is cut at its hyphen.

    Swaps are cut as well: the multiplier of 1000PEPE-USDT belongs to the name, and symbols are unique.
    """
    symbol = row["symbol"]
    if type(symbol) is not str:
        raise TypeError(f"not a symbol: {symbol!r}")
    base, _, quote = symbol.rpartition("-")
    if not (base and quote):
        raise ValueError(f"not BASE-QUOTE: {symbol!r}")
    return symbol, base, quote


def _spot(row: Any) -> Instrument:
    symbol, base, quote = _pair(row)
    status = row.get("status")
    return Instrument(
        venue=VENUE,
        market="spot",
        name=spell(base, quote, Kind.SPOT),
        symbol=symbol,
        kind=Kind.SPOT,
        base=base,
        quote=quote,
        settle=quote,
        tick_size=_step(row.get("tickSize")),
        lot_size=_step(row.get("stepSize")),
        tradable=status == _ONLINE,
        status=str(status),
    )


def _swap(row: Any) -> Instrument:
    symbol, base, quote = _pair(row)
    status = row.get("status")
    return Instrument(
        venue=VENUE,
        market="linear",
        name=spell(base, quote, Kind.PERPETUAL),
        symbol=symbol,
        kind=Kind.PERPETUAL,
        base=base,
        quote=quote,
        settle=str(row.get("currency") or quote),
        tick_size=_digits(row.get("pricePrecision")),
        lot_size=_digits(row.get("quantityPrecision")),
        contract_currency=base,
        tradable=status == _ONLINE,
        status=str(status),
    )


def _step(step: Any) -> str | None:
    """Return a step, which comes as a number, perhaps with an exponent (1e-05); None for none or zero."""
    if type(step) not in (int, str):
        return None
    text = plain_decimal(str(step))
    return text if text.replace(".", "", 1).isdecimal() and text.strip("0.") else None


def _digits(count: Any) -> str | None:
    """Return the step of a number of digits behind the point."""
    if type(count) is not int or not 0 <= count <= 30:
        return None
    return "1" if count == 0 else f"0.{'0' * (count - 1)}1"
