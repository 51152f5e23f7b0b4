"""The simulated market in Binance's words: payloads of streams and rows of REST, as of 2026.

Shapes are those of https://github.com/binance/binance-spot-api-docs and of
https://developers.binance.com/docs/derivatives, with the fields that the futures gained on 2026-06-30.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pricefeedd.instruments import Kind
from pricefeedd.testing.market import (
    Listing,
    SimCandle,
    SimDelta,
    SimLiquidation,
    SimQuote,
    SimTicker,
    SimTrade,
)

_MS = 1_000_000
_FOREVER_MS = 4_133_404_800_000
_LISTED_MS = 1_569_398_400_000

#: Aggregate ids and the ids of the trades in them are different numbers.
_TRADE_ID_OFFSET = 4_000_000

Rows = Sequence[tuple[str, str]]


def symbol_of(listing: Listing) -> str:
    """Return Binance's spelling: BTCUSDT, BTCUSDT_261225, BTCUSD_PERP."""
    pair = listing.base + listing.quote
    if listing.expiry_ns is not None:
        day = datetime.fromtimestamp(listing.expiry_ns // 1_000_000_000, UTC)
        return f"{pair}_{day:%y%m%d}"
    return f"{pair}_PERP" if listing.market == "inverse" else pair


class Words:
    """One instrument's payloads.

    Attributes:
        symbol: Upper case, as in payloads and REST.
        stream_symbol: Lower case, as in stream names.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.symbol = symbol_of(listing)
        self.stream_symbol = self.symbol.lower()
        self._spot = listing.market == "spot"
        self._pair = listing.base + listing.quote
        self._kind = 1 if listing.market == "linear" else 2

    def _futures(self, payload: dict[str, Any], *, pair: bool = False) -> dict[str, Any]:
        """Add what futures payloads have besides."""
        if not self._spot:
            payload["st"] = self._kind
            if pair:
                payload["ps"] = self._pair
        return payload

    # --- Streams ------------------------------------------------------------------------------------------

    def agg_trade(self, e: SimTrade, now_ms: int) -> dict[str, Any]:
        """Return an `aggTrade`."""
        payload: dict[str, Any] = {"e": "aggTrade", "E": now_ms, "s": self.symbol, **self.agg_trade_row(e)}
        if self.listing.market == "linear":
            payload["nq"] = e.size
        return self._futures(payload)

    def trade(self, e: SimTrade, now_ms: int) -> dict[str, Any]:
        """Return a `trade`; the futures serve it without documenting it."""
        payload: dict[str, Any] = {
            "e": "trade",
            "E": now_ms,
            "s": self.symbol,
            "t": e.id + _TRADE_ID_OFFSET,
            "p": e.price,
            "q": e.size,
            "T": e.time_ns // _MS,
            "m": e.buyer_is_maker,
        }
        return {**payload, "M": True} if self._spot else {**payload, "X": "MARKET"}

    def book_ticker(self, e: SimQuote, now_ms: int) -> dict[str, Any]:
        """Return a `bookTicker`; spot's has neither type nor time."""
        payload: dict[str, Any] = {
            "u": e.sequence,
            "s": self.symbol,
            "b": e.bid[0],
            "B": e.bid[1],
            "a": e.ask[0],
            "A": e.ask[1],
        }
        if self._spot:
            return payload
        payload = {"e": "bookTicker", **payload, "T": e.time_ns // _MS, "E": now_ms}
        return self._futures(payload, pair=True)

    def depth(self, e: SimDelta, now_ms: int) -> dict[str, Any]:
        """Return a `depthUpdate`; futures name the one before."""
        payload: dict[str, Any] = {
            "e": "depthUpdate",
            "E": now_ms,
            "s": self.symbol,
            "U": e.first,
            "u": e.last,
        }
        if not self._spot:
            payload |= {"T": e.time_ns // _MS, "pu": e.previous}
        payload |= {"b": e.bids, "a": e.asks}
        return self._futures(payload, pair=True)

    def partial_depth(self, e: SimDelta, bids: Rows, asks: Rows, now_ms: int) -> dict[str, Any]:
        """Return the best levels; on futures in the shape of a delta."""
        if self._spot:
            return {"lastUpdateId": e.last, "bids": bids, "asks": asks}
        return {**self.depth(e, now_ms), "b": bids, "a": asks}

    def kline(self, e: SimCandle, now_ms: int) -> dict[str, Any]:
        """Return a `kline`; ids are -1 in a minute without trades."""
        start_ms = e.start_ns // _MS
        return {
            "e": "kline",
            "E": now_ms,
            "s": self.symbol,
            "k": {
                "t": start_ms,
                "T": start_ms + 59_999,
                "s": self.symbol,
                "i": "1m",
                "f": -1 if e.first_id is None else e.first_id + _TRADE_ID_OFFSET,
                "L": -1 if e.last_id is None else e.last_id + _TRADE_ID_OFFSET,
                "o": e.open,
                "c": e.close,
                "h": e.high,
                "l": e.low,
                "v": e.volume,
                "n": e.trades,
                "x": e.closed,
                "q": e.turnover,
                "V": e.buy_volume,
                "Q": e.buy_turnover,
                "B": "0",
            },
        }

    def mini_ticker(self, e: SimTicker, now_ms: int) -> dict[str, Any]:
        """Return a `24hrMiniTicker`."""
        payload: dict[str, Any] = {
            "e": "24hrMiniTicker",
            "E": now_ms,
            "s": self.symbol,
            "c": e.last,
            "o": e.open,
            "h": e.high,
            "l": e.low,
            "v": e.volume,
            "q": e.turnover,
        }
        return self._futures(payload, pair=self.listing.market == "inverse")

    def ticker(self, e: SimTicker, quote: SimQuote, now_ms: int) -> dict[str, Any]:
        """Return a `24hrTicker`; only spot's has the best bid and offer."""
        payload = {
            **self.mini_ticker(e, now_ms),
            "e": "24hrTicker",
            "p": "0",
            "P": "0",
            "w": e.last,
            "Q": "1",
            "O": now_ms - 86_400_000,
            "C": now_ms,
            "F": 0,
            "L": e.trades,
            "n": e.trades,
        }
        if self._spot:
            payload |= {
                "x": e.open,
                "b": quote.bid[0],
                "B": quote.bid[1],
                "a": quote.ask[0],
                "A": quote.ask[1],
            }
        return payload

    def mark_price(self, e: SimTicker, now_ms: int) -> dict[str, Any]:
        """Return a `markPriceUpdate`; dated contracts have no funding."""
        perpetual = self.listing.kind is Kind.PERPETUAL
        payload = {
            "e": "markPriceUpdate",
            "E": now_ms,
            "s": self.symbol,
            "p": e.mark_price,
            "i": e.index_price,
            "P": e.mark_price,
            "r": e.funding_rate if perpetual else "",
            "T": e.next_funding_ns // _MS if perpetual else 0,
        }
        return self._futures(payload)

    def force_order(self, e: SimLiquidation, now_ms: int) -> dict[str, Any]:
        """Return a `forceOrder`."""
        order: dict[str, Any] = {
            "s": self.symbol,
            "S": e.side.upper(),
            "o": "LIMIT",
            "f": "IOC",
            "q": e.size,
            "p": e.price,
            "ap": e.price,
            "X": "FILLED",
            "l": e.size,
            "z": e.size,
            "T": e.time_ns // _MS,
        }
        if self.listing.market == "inverse":
            order["ps"] = self._pair
        return {"e": "forceOrder", "E": now_ms, "o": order}

    # --- REST ---------------------------------------------------------------------------------------------

    def agg_trade_row(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of aggTrades."""
        row: dict[str, Any] = {
            "a": e.id,
            "p": e.price,
            "q": e.size,
            "f": e.id + _TRADE_ID_OFFSET,
            "l": e.id + _TRADE_ID_OFFSET,
            "T": e.time_ns // _MS,
            "m": e.buyer_is_maker,
        }
        return {**row, "M": True} if self._spot else row

    def kline_row(self, e: SimCandle) -> list[Any]:
        """Return a row of klines."""
        start_ms = e.start_ns // _MS
        return [
            start_ms,
            e.open,
            e.high,
            e.low,
            e.close,
            e.volume,
            start_ms + 59_999,
            e.turnover,
            e.trades,
            e.buy_volume,
            e.buy_turnover,
            "0",
        ]

    def snapshot(self, sequence: int, bids: Rows, asks: Rows, now_ms: int) -> dict[str, Any]:
        """Return the answer of depth."""
        if self._spot:
            return {"lastUpdateId": sequence, "bids": bids, "asks": asks}
        head: dict[str, Any] = {"lastUpdateId": sequence, "E": now_ms, "T": now_ms}
        if self.listing.market == "inverse":
            head |= {"symbol": self.symbol, "pair": self._pair}
        return {**head, "bids": bids, "asks": asks}

    def listed(self) -> dict[str, Any]:
        """Return the element of exchangeInfo."""
        listing = self.listing
        filters = [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": listing.tick,
                "maxPrice": "10000000",
                "tickSize": listing.tick,
            },
            {"filterType": "LOT_SIZE", "minQty": listing.lot, "maxQty": "100000", "stepSize": listing.lot},
        ]
        info: dict[str, Any] = {
            "symbol": self.symbol,
            "baseAsset": listing.base,
            "quoteAsset": listing.quote,
            "filters": filters,
        }
        if self._spot:
            return info | {"status": "TRADING", "permissions": [], "permissionSets": [["SPOT"]]}
        perpetual = listing.kind is Kind.PERPETUAL
        info |= {
            "pair": self._pair,
            "contractType": "PERPETUAL" if perpetual else "CURRENT_QUARTER",
            "deliveryDate": _FOREVER_MS if listing.expiry_ns is None else listing.expiry_ns // _MS,
            "onboardDate": _LISTED_MS,
            # The numbers of decimals here are not the tick: on Binance they often have more.
            "pricePrecision": 8,
            "quantityPrecision": 8,
        }
        if listing.market == "linear":
            return info | {"status": "TRADING", "marginAsset": listing.quote}
        return info | {
            "contractStatus": "TRADING",
            "contractSize": int(listing.contract_size),
            "marginAsset": listing.base,
        }
