"""Bybit's `instruments-info` replies to instruments.

https://bybit-exchange.github.io/docs/v5/market/instrument
"""

from __future__ import annotations

from typing import Any

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_bybit.wire import VENUE, ns_of_text


def read_instruments(market: str, rows: Any) -> list[Instrument]:
    """Return the instruments in the rows of an `instruments-info` reply of a market.

    Unknown states and contract types are kept, with the venue's word in `status`. A row that cannot be named
    is passed over, for one odd listing must not take the other thousand with it.

    Raises:
        DecodeError: There is no list, or no row of it can be read.
    """
    if type(rows) is not list:
        raise DecodeError(f"instruments-info of {market} lists nothing", venue=VENUE)
    return listed(
        rows, lambda row: _instrument(market, row), what=f"instruments-info of {market}", venue=VENUE
    )


def _instrument(market: str, row: Any) -> Instrument:
    symbol, base, quote = row["symbol"], row["baseCoin"], row["quoteCoin"]
    # Names come from the coins, never from cutting the symbol: BTCPERP, 1000PEPEUSDT, BTCUSDU26.
    if not (type(symbol) is type(base) is type(quote) is str and symbol and base and quote):
        raise TypeError(f"no names in {row!r}")
    kind, expiry_ns = _term(market, row)
    status = str(row.get("status", ""))
    lots = row.get("lotSizeFilter") or {}
    inverse = market == "inverse"
    return Instrument(
        venue=VENUE,
        market=market,
        name=spell(base, quote, kind, expiry_ns),
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
        settle=quote if market == "spot" else str(row.get("settleCoin", "")),
        tick_size=_step((row.get("priceFilter") or {}).get("tickSize")),
        lot_size=_step(lots.get("basePrecision" if market == "spot" else "qtyStep")),
        # A contract of inverse is worth one unit of quote; linear counts base units.
        contract_size="1",
        size_unit="contract" if inverse else "base",
        contract_currency={"spot": "", "linear": base, "inverse": quote}[market],
        expiry_ns=expiry_ns,
        tradable=status == "Trading",
        status=status,
    )


def _term(market: str, row: Any) -> tuple[Kind, int | None]:
    """Return what is traded, and when it ends.

    `deliveryTime` of a perpetual is "0", or the time of its delisting once there is one; the type decides.
    """
    if market == "spot":
        return Kind.SPOT, None
    contract = str(row.get("contractType", ""))
    ends_ns = ns_of_text(row.get("deliveryTime") or "0")
    if contract.endswith("Perpetual") or not ends_ns:
        return Kind.PERPETUAL, None
    return Kind.FUTURE, ends_ns


def _step(step: Any) -> str | None:
    """Return a step; one of zero is none."""
    return step if isinstance(step, str) and step.strip("0.") else None
