"""Binance's `exchangeInfo` replies to instruments."""

from __future__ import annotations

from typing import Any

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_binance.codec import VENUE

#: `deliveryDate` of contracts without an end: 2100-12-25, in ms.
_NEVER_MS = 4_133_404_800_000


def read_instruments(market: str, reply: Any) -> list[Instrument]:
    """Return the instruments in an `exchangeInfo` reply of a market.

    Unknown states and contract types are kept, with the venue's word in `status`. A row that cannot be named
    is passed over, for one odd listing must not take the other thousand with it.

    Raises:
        DecodeError: There is no list of symbols, or no row of it can be read.
    """
    try:
        rows = reply["symbols"]
        if type(rows) is not list:
            raise TypeError("symbols is not a list")
    except (KeyError, TypeError) as e:
        raise DecodeError(f"exchangeInfo of {market} lists no symbols ({e!r})", venue=VENUE) from e
    return listed(rows, lambda row: _instrument(market, row), what=f"exchangeInfo of {market}", venue=VENUE)


def _instrument(market: str, row: Any) -> Instrument:
    symbol, base, quote = row["symbol"], row["baseAsset"], row["quoteAsset"]
    # Names come from the assets, never from cutting the symbol: 1000SHIBUSDT, USDCUSDT, BTCUSD_PERP.
    if not (type(symbol) is type(base) is type(quote) is str and symbol and base and quote):
        raise TypeError(f"no names in {row!r}")
    # COIN-M calls it contractStatus and has no status.
    status = str(row.get("contractStatus" if market == "inverse" else "status", ""))
    filters = {entry["filterType"]: entry for entry in row.get("filters", ())}
    kind, expiry_ns = _term(market, row)
    inverse = market == "inverse"
    return Instrument(
        venue=VENUE,
        market=market,
        name=spell(base, quote, kind, expiry_ns),
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
        settle=quote if market == "spot" else str(row.get("marginAsset", "")),
        tick_size=_step(filters, "PRICE_FILTER", "tickSize"),  # pricePrecision is not the tick
        lot_size=_step(filters, "LOT_SIZE", "stepSize"),
        contract_size=str(row["contractSize"]) if inverse else "1",
        size_unit="contract" if inverse else "base",
        contract_currency={"spot": "", "linear": base, "inverse": quote}[market],
        expiry_ns=expiry_ns,
        tradable=status == "TRADING",
        status=status,
    )


def _term(market: str, row: Any) -> tuple[Kind, int | None]:
    """Return what is traded, and when it ends.

    `contractType` may be new to us, a compound ("CURRENT_QUARTER DELIVERING") or empty; then the delivery date
    decides.
    """
    if market == "spot":
        return Kind.SPOT, None
    words = str(row.get("contractType", "")).split()
    if any(word.endswith("PERPETUAL") for word in words):  # PERPETUAL, TRADIFI_PERPETUAL
        return Kind.PERPETUAL, None
    ends_ms = row.get("deliveryDate")
    if type(ends_ms) is not int or not 0 < ends_ms < _NEVER_MS:
        return Kind.PERPETUAL, None
    return Kind.FUTURE, ends_ms * 1_000_000


def _step(filters: dict[str, Any], name: str, key: str) -> str | None:
    """Return a step from the filters; a step of zero means that the filter is off."""
    step = filters.get(name, {}).get(key)
    return step if isinstance(step, str) and step.strip("0.") else None
