"""The simulated market in Hermes' words: feeds, events and bars, as of 2026.

Shapes are those of https://github.com/pyth-network/pyth-crosschain/tree/main/apps/hermes/server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import attrs
import orjson

from pricefeedd.testing.market import Listing

#: Feeds of the main network whose ids everybody knows.
_IDS = {
    "Crypto.BTC/USD": "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43",
    "Crypto.ETH/USD": "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace",
    "Crypto.SOL/USD": "ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d",
    "Equity.US.AAPL/USD": "49f6b65cb1de6b10eaf75e7c03ca029c306d0357e91b5311b175084a5ad55688",
}
_CURRENCIES = {"EUR", "GBP", "JPY", "CHF"}
_METALS = {"XAU", "XAG"}
_STOCKS = {"AAPL", "TSLA", "MSFT"}

#: Nearly all of an event is a signed blob for blockchains.
_BLOB = "UE5BVQEAAAAD" * 120


@attrs.frozen(kw_only=True)
class Told:
    """A feed's price in one slot, as it was told.

    Attributes:
        text: The price with all digits of its exponent.
    """

    slot: int
    publish_s: int
    text: str


def scaled(price: str, exponent: int) -> int:
    """Return a decimal text as an integer of so many decimals."""
    return int(Decimal(price).scaleb(-exponent))


class Words:
    """One feed's words.

    Attributes:
        symbol: `Crypto.BTC/USD`.
        feed_id: 64 hex digits.
        exponent: Of its prices.
    """

    def __init__(self, listing: Listing) -> None:
        base = listing.base
        self.listing = listing
        if base in _CURRENCIES:
            self.kind, prefix = "FX", "FX"
        elif base in _METALS:
            self.kind, prefix = "Metal", "Metal"
        elif base in _STOCKS:
            self.kind, prefix = "Equity", "Equity.US"
        else:
            self.kind, prefix = "Crypto", "Crypto"
        self.symbol = f"{prefix}.{base}/{listing.quote}"
        self.feed_id = _IDS.get(self.symbol) or hashlib.sha256(self.symbol.encode()).hexdigest()
        self.exponent = -8 if self.kind == "Crypto" else -5

    def text(self, price: str) -> str:
        """Return a price with all digits of the exponent."""
        return f"{Decimal(price):.{-self.exponent}f}"

    def listed(self) -> list[dict[str, Any]]:
        """Return the elements of `price_feeds`: a stock has dead feeds for its sessions besides."""
        base, quote = self.listing.base, self.listing.quote
        attributes = {
            "asset_type": self.kind,
            "base": base,
            "description": f"{base} / {quote}",
            "display_symbol": f"{base}/{quote}",
            "generic_symbol": base + quote,
            "quote_currency": quote,
            "symbol": self.symbol,
        }
        rows = [{"id": self.feed_id, "attributes": attributes}]
        if self.kind == "Equity":
            symbol = f"{self.symbol}.PRE"
            dead = attributes | {
                "description": f"DEPRECATED FEED - {base} PRE MARKET / {quote}",
                "symbol": symbol,
            }
            rows.append({"id": hashlib.sha256(symbol.encode()).hexdigest(), "attributes": dead})
        return rows

    def parsed(self, told: Told) -> dict[str, Any]:
        """Return the element of `parsed`."""
        mantissa = scaled(told.text, self.exponent)
        price = {
            "price": str(mantissa),
            "conf": str(mantissa // 2000),
            "expo": self.exponent,
            "publish_time": told.publish_s,
        }
        return {
            "id": self.feed_id,
            "price": price,
            "ema_price": {**price, "conf": str(mantissa // 1800)},
            "metadata": {
                "slot": told.slot,
                "proof_available_time": told.publish_s + 1,
                "prev_publish_time": told.publish_s,
            },
        }


def event(rows: Sequence[dict[str, Any]]) -> str:
    """Return the data of an event, or the body of `latest`."""
    return orjson.dumps({"binary": {"encoding": "base64", "data": [_BLOB]}, "parsed": rows}).decode()
