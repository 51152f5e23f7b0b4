"""The simulated market in Kraken's words: rows of WebSocket v2 and of REST, as of 2026.

Shapes are those of https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/ and
https://docs.kraken.com/api-reference/market-data/. Numbers are put into JSON with all their zeros.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from pricefeedd.testing.market import Listing, SimCandle, SimQuote, SimTicker, SimTrade

Rows = Sequence[tuple[str, str]]

_SECOND_NS = 1_000_000_000

#: Kraken's own names, which REST keeps for old times' sake.
_OLD = {"BTC": "XBT", "DOGE": "XDG"}
#: Currencies whose codes in keys carry a letter for their class.
_CLASSED = {"XBT": "XXBT", "XDG": "XXDG", "ETH": "XETH", "USD": "ZUSD", "EUR": "ZEUR", "GBP": "ZGBP"}


def symbol_of(listing: Listing) -> str:
    """Return the spelling of WebSocket v2: BTC/USD."""
    return f"{listing.base}/{listing.quote}"


def number(text: str) -> orjson.Fragment:
    """Return a number's text for JSON, zeros and all."""
    return orjson.Fragment(text)


def clock(time_ns: int, digits: int = 6) -> str:
    """Return a time as RFC 3339 text."""
    seconds, rest = divmod(time_ns, _SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}"[: 20 + digits] + "Z"


def dump(message: Any) -> str:
    """Return a message's JSON text."""
    return orjson.dumps(message).decode()


def crc(bids: Rows, asks: Rows) -> int:
    """Return the checksum of a book: each number as an integer of its digits."""
    digits = (str(int(text.replace(".", ""))) for row in [*asks[:10], *bids[:10]] for text in row)
    return zlib.crc32("".join(digits).encode("ascii")) & 0xFFFFFFFF


class Words:
    """One pair's rows.

    Attributes:
        symbol: As on WebSocket v2.
        altname: As REST takes it.
        key: As REST answers it.
        wsname: As REST says that it is called on WebSocket, which is true of v1 only.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.symbol = symbol_of(listing)
        base, quote = _OLD.get(listing.base, listing.base), _OLD.get(listing.quote, listing.quote)
        self.wsname = f"{base}/{quote}"
        self.altname = base + quote
        classed = base in _CLASSED and quote in _CLASSED
        self.key = _CLASSED[base] + _CLASSED[quote] if classed else self.altname

    # --- WebSocket ----------------------------------------------------------------------------------------

    def trade(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of `trade`."""
        return {
            "symbol": self.symbol,
            "side": "sell" if e.buyer_is_maker else "buy",
            "price": number(e.price),
            "qty": number(e.size),
            "ord_type": "market",
            "trade_id": e.id,
            "timestamp": clock(e.time_ns),
        }

    def ticker(self, quote: SimQuote, day: SimTicker, now_ns: int) -> dict[str, Any]:
        """Return a row of `ticker`, which is always whole."""
        change = Decimal(day.last) - Decimal(day.open)
        volume = Decimal(day.volume)
        vwap = Decimal(day.turnover) / volume if volume else Decimal(day.last)
        return {
            "symbol": self.symbol,
            "bid": number(quote.bid[0]),
            "bid_qty": number(quote.bid[1]),
            "ask": number(quote.ask[0]),
            "ask_qty": number(quote.ask[1]),
            "last": number(day.last),
            "volume": number(day.volume),
            "vwap": number(f"{vwap:.2f}"),
            "low": number(day.low),
            "high": number(day.high),
            "change": number(f"{change:f}"),
            "change_pct": number(f"{change / Decimal(day.open) * 100:.2f}"),
            "timestamp": clock(now_ns),
        }

    def ohlc(self, e: SimCandle) -> dict[str, Any]:
        """Return a row of `ohlc`; its `timestamp` is the end of the minute."""
        return {
            "symbol": self.symbol,
            "open": number(e.open),
            "high": number(e.high),
            "low": number(e.low),
            "close": number(e.close),
            "trades": e.trades,
            "volume": number(e.volume),
            "vwap": number(_vwap(e)),
            "interval_begin": clock(e.start_ns, 9),
            "interval": 1,
            "timestamp": clock(e.start_ns + 60 * _SECOND_NS),
        }

    def book(self, bids: Rows, asks: Rows, checksum: int, time_ns: int) -> dict[str, Any]:
        """Return a row of `book`."""
        return {
            "symbol": self.symbol,
            "bids": _levels(bids),
            "asks": _levels(asks),
            "checksum": checksum,
            "timestamp": clock(time_ns),
        }

    # --- REST ---------------------------------------------------------------------------------------------

    def listed(self) -> dict[str, Any]:
        """Return the value of AssetPairs."""
        base, _, quote = self.wsname.partition("/")
        return {
            "altname": self.altname,
            "wsname": self.wsname,
            "aclass_base": "currency",
            "base": _CLASSED.get(base, base),
            "aclass_quote": "currency",
            "quote": _CLASSED.get(quote, quote),
            "lot": "unit",
            "cost_decimals": 5,
            "pair_decimals": len(self.listing.tick.partition(".")[2]),
            "lot_decimals": len(self.listing.lot.partition(".")[2]),
            "lot_multiplier": 1,
            "ordermin": "0.0001",
            "costmin": "0.5",
            "tick_size": self.listing.tick,
            "status": "online",
        }

    def ohlc_row(self, e: SimCandle) -> list[Any]:
        """Return a row of OHLC."""
        start_s = e.start_ns // _SECOND_NS
        vwap = _vwap(e) if e.trades else "0.0"
        return [start_s, e.open, e.high, e.low, e.close, vwap, e.volume, e.trades]

    def trade_row(self, e: SimTrade) -> list[Any]:
        """Return a row of Trades, whose time is a number with decimals."""
        seconds, rest = divmod(e.time_ns, _SECOND_NS)
        return [
            e.price,
            e.size,
            number(f"{seconds}.{rest:09d}"),
            "s" if e.buyer_is_maker else "b",
            "m",
            "",
            e.id,
        ]


def _vwap(e: SimCandle) -> str:
    volume = Decimal(e.volume)
    return f"{Decimal(e.turnover) / volume:.2f}" if volume else e.close


def _levels(rows: Iterable[tuple[str, str]]) -> list[dict[str, orjson.Fragment]]:
    return [{"price": number(price), "qty": number(size)} for price, size in rows]
