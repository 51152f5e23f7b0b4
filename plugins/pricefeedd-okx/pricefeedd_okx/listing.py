"""OKX's `public/instruments` replies to instruments."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_okx.codec import VENUE

_KINDS = {"SPOT": Kind.SPOT, "SWAP": Kind.PERPETUAL, "FUTURES": Kind.FUTURE}


def read_instruments(market: str, rows: Any) -> list[Instrument]:
    """Return the instruments of a market among the rows of one type; the others' are left out.

    Unknown states are kept, with the venue's word in `status`, and are not tradable. A row that cannot be named or
    sized is passed over, for one odd listing must not take the other thousand with it: what was only announced may
    lack anything for a while.

    Raises:
        DecodeError: It is no list of rows, or none of them can be read.
    """
    if type(rows) is not list:
        raise DecodeError(f"the instruments of {market} are not a list", venue=VENUE)
    found = listed(rows, _instrument, what=f"the instruments of {market}", venue=VENUE)
    return [instrument for instrument in found if instrument.market == market]


def _instrument(row: Any) -> Instrument:
    symbol, kind = row["instId"], _KINDS[row["instType"]]
    state = str(row["state"])
    if kind is Kind.SPOT:
        base, quote = row["baseCcy"], row["quoteCcy"]
        market, family = "spot", f"{base}-{quote}"
        settle = quote
    else:
        # Nothing in the symbol tells linear from inverse, and both currencies are empty: the index has them.
        base, _, quote = row["uly"].partition("-")
        market, settle = row["ctType"], row["settleCcy"]
        family = row.get("instFamily") or row["uly"]
        if market not in ("linear", "inverse"):
            raise ValueError(f"neither linear nor inverse: {market!r}")
    if not (type(symbol) is type(base) is type(quote) is str and symbol and base and quote):
        raise TypeError(f"no names in {row!r}")
    expiry_ns = int(row["expTime"]) * 1_000_000 if kind is Kind.FUTURE else None
    contract_size = "1" if kind is Kind.SPOT else _product(row["ctVal"], row["ctMult"])
    return Instrument(
        venue=VENUE,
        market=market,
        # A linear and an inverse contract may follow one index (BTC-USD_UM and BTC-USD): the family tells them apart.
        name=spell(base, family.removeprefix(f"{base}-"), kind, expiry_ns),
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
        settle=settle,
        tick_size=_step(row["tickSz"]),
        lot_size=_step(row["lotSz"]),
        contract_size=contract_size,
        size_unit="base" if kind is Kind.SPOT else "contract",
        contract_currency="" if kind is Kind.SPOT else row["ctValCcy"],
        expiry_ns=expiry_ns,
        tradable=state == "live",
        status=state,
    )


def _product(value: str, multiplier: str) -> str:
    """Return what one contract stands for; "" is no number and is refused, a missing multiplier is 1."""
    size = Decimal(value) * Decimal(multiplier or "1")
    if not (size.is_finite() and size > 0):
        raise ValueError(f"not the size of a contract: {value!r} times {multiplier!r}")
    return f"{size:f}"


def _step(text: Any) -> str | None:
    """Return a step; "" stands for one that was not told."""
    return text if isinstance(text, str) and text.strip("0.") else None
