"""Kraken's `AssetPairs` replies to instruments."""

from __future__ import annotations

from typing import Any

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import listed
from pricefeedd_kraken.codec import VENUE

#: REST still has names of its own for two currencies in `wsname`, which WebSocket v2 refuses.
#: https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/instrument.md
_RENAMED = {"XBT": "BTC", "XDG": "DOGE"}


def read_instruments(result: Any) -> list[Instrument]:
    """Return the instruments in the `result` of an `AssetPairs` reply.

    Unknown states are kept, with the venue's word in `status`. A pair without `wsname` is on no stream; it and
    a row that cannot be named are passed over, for one odd listing must not take the others with it.

    Raises:
        DecodeError: There are no pairs, or no row can be read.
    """
    if type(result) is not dict:
        raise DecodeError("AssetPairs lists no pairs", venue=VENUE)
    return listed(
        result.items(),
        lambda pair: _instrument(*pair) if "wsname" in pair[1] else None,
        what="AssetPairs",
        venue=VENUE,
    )


def _instrument(key: str, row: Any) -> Instrument:
    base, slash, quote = row["wsname"].partition("/")
    if not (base and slash and quote):
        raise ValueError(f"wsname is not of the form BASE/QUOTE: {row['wsname']!r}")
    base, quote = _RENAMED.get(base, base), _RENAMED.get(quote, quote)
    status = str(row.get("status", ""))
    tick, decimals = row.get("tick_size"), row.get("lot_decimals")
    return Instrument(
        venue=VENUE,
        market="spot",
        name=spell(base, quote, Kind.SPOT),
        symbol=f"{base}/{quote}",
        rest_symbol=str(row.get("altname") or key),
        kind=Kind.SPOT,
        base=base,
        quote=quote,
        settle=quote,
        tick_size=tick if isinstance(tick, str) and tick.strip("0.") else None,
        lot_size=_step(decimals) if type(decimals) is int and 0 <= decimals <= 30 else None,
        tradable=status == "online",
        status=status,
    )


def _step(decimals: int) -> str:
    """Return the smallest number with so many decimals."""
    return f"0.{'1':0>{decimals}}" if decimals else "1"
