"""The simulated market in Bybit's words: payloads of v5 topics and rows of REST, as of 2026.

Shapes are those of https://bybit-exchange.github.io/docs/v5 and of frames seen on the wire.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pricefeedd.instruments import Kind
from pricefeedd.testing.market import Listing, SimCandle, SimLiquidation, SimQuote, SimTicker, SimTrade

_MS = 1_000_000
_LISTED_MS = 1_585_526_400_000
_FUNDING_MINUTES = 480

#: Letters of the months in which inverse contracts are delivered.
_MONTHS = "FGHJKMNQUVXZ"
_MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

_IDS = uuid.UUID("8c931d9a-b703-5c34-9aeb-860867cf1f66")

Rows = Sequence[Sequence[str]]


def symbol_of(listing: Listing) -> str:
    """Return Bybit's spelling: BTCUSDT, BTCPERP, BTC-25DEC26, BTCUSDT-25DEC26, BTCUSD, BTCUSDZ26."""
    pair = listing.base + listing.quote
    if listing.kind is Kind.SPOT:
        return pair
    if listing.expiry_ns is None:
        return f"{listing.base}PERP" if listing.quote == "USDC" else pair
    day = datetime.fromtimestamp(listing.expiry_ns // 1_000_000_000, UTC)
    if listing.market == "inverse":
        return f"{pair}{_MONTHS[day.month - 1]}{day:%y}"
    stem = listing.base if listing.quote == "USDC" else pair
    return f"{stem}-{day.day}{_MONTH_NAMES[day.month - 1]}{day:%y}"


class Words:
    """One instrument's payloads.

    Attributes:
        symbol: The venue's spelling, everywhere the same.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.symbol = symbol_of(listing)
        self._spot = listing.market == "spot"

    def trade_id(self, number: int) -> str:
        """Return the venue's id of a trade: digits on spot, a UUID elsewhere."""
        if self._spot:
            return f"229{number:016}"
        return str(uuid.uuid5(_IDS, f"{self.symbol}:{number}"))

    def _message(self, topic: str, kind: str, now_ms: int, data: Any) -> dict[str, Any]:
        """Return a message. Spot puts the time before the type, which is one more reason to parse."""
        if self._spot:
            return {"topic": topic, "ts": now_ms, "type": kind, "data": data}
        return {"topic": topic, "type": kind, "ts": now_ms, "data": data}

    # --- Streams ------------------------------------------------------------------------------------------

    def trades(self, topic: str, rows: Sequence[tuple[SimTrade, int]], now_ms: int) -> dict[str, Any]:
        """Return a `publicTrade` of one or several trades, each with its cross sequence."""
        return self._message(topic, "snapshot", now_ms, [self._trade(e, seq) for e, seq in rows])

    def _trade(self, e: SimTrade, seq: int) -> dict[str, Any]:
        row: dict[str, Any] = {
            "i": self.trade_id(e.id),
            "T": e.time_ns // _MS,
            "p": e.price,
            "v": e.size,
            "S": "Sell" if e.buyer_is_maker else "Buy",
            "s": self.symbol,
            "BT": False,
            "RPI": False,
            "seq": seq,
        }
        return row if self._spot else row | {"L": "ZeroPlusTick"}

    def book(
        self, topic: str, kind: str, bids: Rows, asks: Rows, *, u: int, seq: int, at_ms: int, now_ms: int
    ) -> dict[str, Any]:
        """Return an `orderbook` of any depth, snapshot or delta."""
        data = {"s": self.symbol, "b": bids, "a": asks, "u": u, "seq": seq}
        return self._message(topic, kind, now_ms, data) | {"cts": at_ms}

    def ticker(self, e: SimTicker, quote: SimQuote) -> dict[str, Any]:
        """Return all fields of a `tickers`, of which a delta then has those that changed."""
        fields: dict[str, Any] = {
            "symbol": self.symbol,
            "lastPrice": e.last,
            "highPrice24h": e.high,
            "lowPrice24h": e.low,
            "prevPrice24h": e.open,
            "volume24h": e.volume,
            "turnover24h": e.turnover,
            "price24hPcnt": "0.0196",
        }
        if self._spot:
            return fields | {"usdIndexPrice": e.index_price}
        perpetual = self.listing.kind is Kind.PERPETUAL
        fields |= {
            "tickDirection": "ZeroPlusTick",
            "prevPrice1h": e.open,
            "markPrice": e.mark_price,
            "indexPrice": e.index_price,
            "openInterest": e.open_interest,
            "openInterestValue": "3596005265.51",
            "nextFundingTime": str(e.next_funding_ns // _MS) if perpetual else "",
            "fundingRate": e.funding_rate if perpetual else "",
            "bid1Price": quote.bid[0],
            "bid1Size": quote.bid[1],
            "ask1Price": quote.ask[0],
            "ask1Size": quote.ask[1],
        }
        if self.listing.expiry_ns is not None:
            day = datetime.fromtimestamp(self.listing.expiry_ns // 1_000_000_000, UTC)
            fields |= {"deliveryTime": f"{day:%Y-%m-%dT%H:%M:%SZ}", "basisRate": "0.016", "basis": "459.06"}
        return fields

    def ticker_message(
        self, topic: str, kind: str, fields: dict[str, Any], cs: int, now_ms: int
    ) -> dict[str, Any]:
        """Return a `tickers` message; the cross sequence stands beside the data."""
        if self._spot:
            return {"topic": topic, "ts": now_ms, "type": kind, "cs": cs, "data": fields}
        return {"topic": topic, "type": kind, "data": fields, "cs": cs, "ts": now_ms}

    def kline(self, topic: str, e: SimCandle, now_ms: int) -> dict[str, Any]:
        """Return a `kline`."""
        start_ms = e.start_ns // _MS
        row = {
            "start": start_ms,
            "end": start_ms + 59_999,
            "interval": "1",
            "open": e.open,
            "close": e.close,
            "high": e.high,
            "low": e.low,
            "volume": e.volume,
            "turnover": e.turnover,
            "confirm": e.closed,
            "timestamp": e.time_ns // _MS,
        }
        return {"topic": topic, "data": [row], "ts": now_ms, "type": "snapshot"}

    def liquidation(self, topic: str, e: SimLiquidation, now_ms: int) -> dict[str, Any]:
        """Return an `allLiquidation`; the side is that of the position, and not of the order that closes it."""
        row = {
            "T": e.time_ns // _MS,
            "s": self.symbol,
            "S": "Buy" if e.side == "sell" else "Sell",
            "v": e.size,
            "p": e.price,
        }
        return {"topic": topic, "type": "snapshot", "ts": now_ms, "data": [row]}

    # --- REST ---------------------------------------------------------------------------------------------

    def trade_row(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of recent-trade."""
        return {
            "execId": self.trade_id(e.id),
            "symbol": self.symbol,
            "price": e.price,
            "size": e.size,
            "side": "Sell" if e.buyer_is_maker else "Buy",
            "time": str(e.time_ns // _MS),
            "isBlockTrade": False,
            "isRPITrade": False,
        }

    def kline_row(self, e: SimCandle) -> list[str]:
        """Return a row of kline: seven texts."""
        return [str(e.start_ns // _MS), e.open, e.high, e.low, e.close, e.volume, e.turnover]

    def listed(self, status: str) -> dict[str, Any]:
        """Return the element of instruments-info."""
        listing = self.listing
        row: dict[str, Any] = {
            "symbol": self.symbol,
            "baseCoin": listing.base,
            "quoteCoin": listing.quote,
            "status": status,
            "priceFilter": {"tickSize": listing.tick},
            "symbolType": "",
        }
        if self._spot:
            return row | {
                "marginTrading": "utaOnly",
                "lotSizeFilter": {
                    "basePrecision": listing.lot,
                    "quotePrecision": "0.0000001",
                    "minOrderAmt": "5",
                },
            }
        kind = "Linear" if listing.market == "linear" else "Inverse"
        term = "Perpetual" if listing.kind is Kind.PERPETUAL else "Futures"
        return row | {
            "contractType": kind + term,
            "launchTime": str(_LISTED_MS),
            "deliveryTime": "0" if listing.expiry_ns is None else str(listing.expiry_ns // _MS),
            "priceScale": "2",
            "lotSizeFilter": {"minOrderQty": listing.lot, "qtyStep": listing.lot},
            "fundingInterval": _FUNDING_MINUTES if listing.kind is Kind.PERPETUAL else 0,
            "settleCoin": listing.quote if listing.market == "linear" else listing.base,
            "isPreListing": status == "PreLaunch",
            "preListingInfo": None,
        }
