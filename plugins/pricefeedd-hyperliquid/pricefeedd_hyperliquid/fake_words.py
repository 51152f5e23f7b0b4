"""The simulated market in Hyperliquid's words: payloads of streams and rows of REST, as of 2026.

Shapes are those of https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api and of frames that were
recorded in September 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pricefeedd.testing.market import Listing, SimCandle, SimQuote, SimTicker, SimTrade

_MS = 1_000_000

#: Ids are about 2^50 and in no order: multiplying by an odd number shuffles the market's own ones.
_TID_BITS = 50
_TID_FACTOR = 0x9E3779B97F4A7
_ZERO_HASH = "0x" + "0" * 64
_USERS = ("0x10d944a35f99c141b9121ec3693000531825bef8", "0x1a2e6afa298b1cc50939b4b2b0b430e3c1ef3459")

Rows = Sequence[tuple[str, str]]


def tid_of(number: int) -> int:
    """Return the venue's id of the market's trade with this number; no two are the same."""
    return number * _TID_FACTOR % (1 << _TID_BITS)


def wire(text: str) -> str:
    """Return a number as the venue prints it: no trailing zeros, and one decimal at least.

    >>> wire("83757"), wire("128.50")
    ('83757.0', '128.5')
    """
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


class Words:
    """One coin's payloads.

    Attributes:
        coin: The venue's symbol.
        spot: Whether it is a spot pair, whose context is another one.
    """

    def __init__(self, listing: Listing, coin: str) -> None:
        self.listing = listing
        self.coin = coin
        self.spot = listing.market == "spot"

    # --- Streams ------------------------------------------------------------------------------------------

    def trade(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of `trades`; one in seven has no transaction, as fills of a TWAP order have."""
        return {
            "coin": self.coin,
            "side": "A" if e.buyer_is_maker else "B",
            "px": wire(e.price),
            "sz": wire(e.size),
            "time": e.time_ns // _MS,
            "hash": _ZERO_HASH if e.id % 7 == 0 else f"0x{e.id:064x}",
            "tid": tid_of(e.id),
            "users": _USERS,
        }

    def bbo(self, e: SimQuote, now_ms: int) -> dict[str, Any]:
        """Return a `bbo`."""
        return {"coin": self.coin, "time": now_ms, "bbo": [_level(e.bid), _level(e.ask)]}

    def book(self, bids: Rows, asks: Rows, now_ms: int, *, fast: bool = False) -> dict[str, Any]:
        """Return an `l2Book`; only the fast one says what it is."""
        levels = [[_level(row) for row in bids], [_level(row) for row in asks]]
        payload: dict[str, Any] = {"coin": self.coin, "time": now_ms, "levels": levels}
        return payload | {"fast": True} if fast else payload

    def candle(self, e: SimCandle) -> dict[str, Any]:
        """Return a `candle`; REST has the same rows."""
        start_ms = e.start_ns // _MS
        return {
            "t": start_ms,
            "T": start_ms + 59_999,
            "s": self.coin,
            "i": "1m",
            "o": wire(e.open),
            "c": wire(e.close),
            "h": wire(e.high),
            "l": wire(e.low),
            "v": wire(e.volume),
            "n": e.trades,
        }

    def context(self, e: SimTicker) -> dict[str, Any]:
        """Return an `activeAssetCtx` or `activeSpotAssetCtx`."""
        context: dict[str, Any] = {
            "prevDayPx": wire(e.open),
            "dayNtlVlm": wire(e.turnover),
            "markPx": wire(e.mark_price),
            "midPx": wire(e.mark_price),
            "dayBaseVlm": wire(e.volume),
        }
        if self.spot:
            context |= {
                "circulatingSupply": "333928180.9",
                "coin": self.coin,
                "totalSupply": "999990392.65",
            }
        else:
            context |= {
                "funding": wire(e.funding_rate),
                "openInterest": wire(e.open_interest),
                "premium": "-0.0001348801",
                "oraclePx": wire(e.index_price),
                "impactPxs": [wire(e.mark_price), wire(e.mark_price)],
            }
        return {"coin": self.coin, "ctx": context}

    # --- REST ---------------------------------------------------------------------------------------------

    def listed(self) -> dict[str, Any]:
        """Return the element of the universe of `meta`."""
        return {
            "szDecimals": _decimals(self.listing.lot),
            "name": self.coin,
            "maxLeverage": 40,
            "marginTableId": 56,
        }


def spot_meta(pairs: Mapping[str, tuple[int, Listing]], tokens: Mapping[str, int]) -> dict[str, Any]:
    """Return the answer of `spotMeta`.

    Args:
        pairs: By coin: the pair's index, and what it is.
        tokens: Index of each token, by name.
    """
    lots = {listing.base: _decimals(listing.lot) for _, listing in pairs.values()}
    return {
        "universe": [
            {
                "tokens": [tokens[listing.base], tokens[listing.quote]],
                "name": coin,
                "index": index,
                "isCanonical": not coin.startswith("@"),
            }
            for coin, (index, listing) in pairs.items()
        ],
        "tokens": [
            {
                "name": name,
                "szDecimals": lots.get(name, 8),
                "weiDecimals": 8,
                "index": index,
                "tokenId": f"0x{index:032x}",
                "isCanonical": name in ("USDC", "PURR"),
                "evmContract": None,
                "fullName": None,
            }
            for name, index in tokens.items()
        ],
    }


def delisted(coin: str) -> dict[str, Any]:
    """Return the element of the universe of a coin that is traded no longer."""
    return {"szDecimals": 1, "name": coin, "maxLeverage": 20, "marginTableId": 20, "isDelisted": True}


def _level(row: tuple[str, str]) -> dict[str, Any]:
    return {"px": wire(row[0]), "sz": wire(row[1]), "n": 1}


def _decimals(lot: str) -> int:
    return len(lot.partition(".")[2])
