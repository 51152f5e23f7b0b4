"""Gate's lists of pairs and contracts to instruments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_gateio.codec import VENUE, plain

#: States in which a pair trades, though some only in one direction.
_TRADING = frozenset({"tradable", "buyable", "sellable", "trading"})


def read_pairs(reply: Any) -> list[Instrument]:
    """Return the instruments in a reply of `/spot/currency_pairs`.

    Raises:
        DecodeError: It is no list, or no row of it can be read.
    """
    return _read(reply, "currency_pairs", _pair)


def read_contracts(market: str, settle: str, reply: Any) -> list[Instrument]:
    """Return the instruments in a reply of `/futures/{settle}/contracts`.

    Raises:
        DecodeError: It is no list, or no row of it can be read.
    """
    return _read(reply, f"contracts of {settle}", lambda row: _contract(market, settle.upper(), row))


def _read(reply: Any, what: str, read: Callable[[Any], Instrument]) -> list[Instrument]:
    if type(reply) is not list:
        raise DecodeError(f"{what} is no list", venue=VENUE)
    return listed(reply, read, what=what, venue=VENUE)


def _names(*texts: Any) -> None:
    if not all(type(text) is str and text for text in texts):
        raise TypeError(f"not names: {texts!r}")


def _pair(row: Any) -> Instrument:
    symbol, base, quote = row["id"], row["base"], row["quote"]
    _names(symbol, base, quote)
    status = str(row.get("trade_status", ""))
    return Instrument(
        venue=VENUE,
        market="spot",
        name=spell(base, quote, Kind.SPOT),
        symbol=symbol,
        kind=Kind.SPOT,
        base=base,
        quote=quote,
        settle=quote,
        # Both are numbers of decimals.
        tick_size=_step(row.get("precision")),
        lot_size=_step(row.get("amount_precision")),
        tradable=status in _TRADING,
        status=status,
    )


def _step(decimals: Any) -> str | None:
    """Return the step of a number of decimals: "0.01" for 2, "1" for 0."""
    if type(decimals) is not int or not 0 <= decimals <= 30:
        return None
    return f"0.{'0' * (decimals - 1)}1" if decimals else "1"


def _contract(market: str, settle: str, row: Any) -> Instrument:
    symbol = row["name"]
    # Base and quote are not given, and the base may have underscores of its own.
    base, _, quote = symbol.rpartition("_")
    _names(symbol, base, quote)
    inverse = row.get("type") == "inverse"
    # Before 2025 there was only the flag.
    leaving = row.get("in_delisting") is True
    status = str(row.get("status") or ("delisting" if leaving else "trading"))
    multiplier = plain(row["quanto_multiplier"])
    return Instrument(
        venue=VENUE,
        market=market,
        name=spell(base, quote, Kind.PERPETUAL),
        symbol=symbol,
        kind=Kind.PERPETUAL,
        base=base,
        quote=quote,
        settle=settle,
        tick_size=_positive(row.get("order_price_round")),
        # Where fractions of a contract are traded, their step is not told.
        lot_size=None if row.get("enable_decimal") is True else "1",
        # An inverse contract has the multiplier "0" and is worth one unit of the quote.
        contract_size="1" if inverse else multiplier,
        size_unit="contract",
        contract_currency=quote if inverse else base,
        tradable=status in _TRADING and not leaving,
        status=status,
    )


def _positive(number: Any) -> str | None:
    if number is None:
        return None
    text = plain(number)
    return text if text.strip("0.") else None
