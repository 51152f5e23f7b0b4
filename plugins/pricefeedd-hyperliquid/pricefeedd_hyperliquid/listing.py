"""Hyperliquid's `meta` and `spotMeta` replies to instruments.

https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/info-endpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_hyperliquid.codec import VENUE

#: Perpetuals are quoted in USD; those of the main exchange are margined and settled in USDC.
_QUOTE = "USD"
_USDC = "USDC"


def read_perpetuals(reply: Any, tokens: Mapping[int, str]) -> list[Instrument]:
    """Return the perpetuals in a `meta` reply, of the main exchange or of one that a builder deployed.

    A delisted one stays in the list and is not tradable. A row that cannot be read is passed over, for one odd
    listing must not take the others with it.

    Args:
        tokens: Names of the spot tokens by their index, for what a builder's exchange settles in.

    Raises:
        DecodeError: There is no universe, or no row of it can be read.
    """
    rows = _rows(reply, "universe", "meta")
    # An index of a token; 0 is USDC, and not there in older replies.
    collateral = reply.get("collateralToken", 0)
    settle = tokens.get(collateral, _USDC if collateral == 0 else "")
    return listed(rows, lambda row: _perpetual(row, settle), what="meta", venue=VENUE)


def _perpetual(row: Any, settle: str) -> Instrument:
    coin = _name(row["name"])
    delisted = row.get("isDelisted", False) is True
    return Instrument(
        venue=VENUE,
        market="linear",
        # The coin keeps its case: kPEPE is a thousand PEPE. A builder's coin has its prefix: xyz:SP500.
        name=spell(coin, _QUOTE, Kind.PERPETUAL),
        symbol=coin,
        kind=Kind.PERPETUAL,
        base=coin,
        quote=_QUOTE,
        settle=settle,
        # The step of prices depends on the price: 5 significant digits.
        tick_size=None,
        lot_size=_step(row["szDecimals"]),
        contract_currency=coin,
        tradable=not delisted,
        status="delisted" if delisted else "listed",
    )


def read_tokens(reply: Any) -> dict[int, str]:
    """Return the names of the tokens in a `spotMeta` reply, by their index and not by their place.

    Raises:
        DecodeError: There are none.
    """
    rows = _rows(reply, "tokens", "spotMeta")
    return dict(
        listed(
            rows,
            lambda row: (_index(row["index"]), _name(row["name"])),
            what="the tokens of spotMeta",
            venue=VENUE,
        )
    )


def read_pairs(reply: Any) -> list[Instrument]:
    """Return the spot pairs in a `spotMeta` reply.

    Several pairs may have the same display name, as several tokens may. The canonical one has it, else the one
    with the lowest index; the others are told apart by their symbol: `HYPE@201-USDC`.

    Raises:
        DecodeError: There are no pairs or tokens, or none of them can be read.
    """
    pairs = _rows(reply, "universe", "spotMeta")
    tokens = {
        _index(row["index"]): row
        for row in _rows(reply, "tokens", "spotMeta")
        if isinstance(row, dict) and type(row.get("index")) is int
    }
    taken: set[str] = set()

    def pair(row: Any) -> Instrument:
        base_index, quote_index = row["tokens"]
        base, quote = tokens[base_index], tokens[quote_index]
        base_name, quote_name = _name(base["name"]), _name(quote["name"])
        symbol = _name(row["name"])
        name = spell(base_name, quote_name, Kind.SPOT)
        if name in taken:
            name = spell(f"{base_name}@{_index(row['index'])}", quote_name, Kind.SPOT)
        lot = _step(base["szDecimals"])
        taken.add(name)
        return Instrument(
            venue=VENUE,
            market="spot",
            name=name,
            symbol=symbol,
            kind=Kind.SPOT,
            base=base_name,
            quote=quote_name,
            settle=quote_name,
            tick_size=None,
            lot_size=lot,
            status="listed",
        )

    return listed(sorted(pairs, key=_precedence), pair, what="spotMeta", venue=VENUE)


def _precedence(row: Any) -> tuple[bool, int]:
    """Return what sorts the pairs so that the rightful owner of a name comes first."""
    if not isinstance(row, dict):
        return True, 0
    index = row.get("index")
    return row.get("isCanonical") is not True, index if type(index) is int else 0


def _rows(reply: Any, key: str, what: str) -> list[Any]:
    try:
        rows = reply[key]
        if type(rows) is not list:
            raise TypeError(f"{key} is not a list")
    except (KeyError, TypeError) as e:
        raise DecodeError(f"{what} lists no {key} ({e!r})", venue=VENUE) from e
    return rows


def _name(value: Any) -> str:
    if type(value) is not str or not value:
        raise TypeError(f"not a name: {value!r}")
    return value


def _index(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"not an index: {value!r}")
    return value


def _step(decimals: Any) -> str:
    """Return the step that so many decimals make: 10^-n."""
    if type(decimals) is not int or not 0 <= decimals <= 18:
        raise TypeError(f"not a number of decimals: {decimals!r}")
    return "1" if decimals == 0 else f"0.{'0' * (decimals - 1)}1"
