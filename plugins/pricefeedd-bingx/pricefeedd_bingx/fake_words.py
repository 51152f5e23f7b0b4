"""The simulated market in BingX's words: messages of topics and rows of REST, as of 2026.

Shapes are those of https://bingx-api.github.io/docs-v3/, and of the wire where the two differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from pricefeedd.testing.market import Listing, SimCandle, SimDelta, SimQuote, SimTicker, SimTrade

_MS = 1_000_000
_DAY_MS = 86_400_000

Rows = Sequence[tuple[str, str]]


def number(text: str) -> orjson.Fragment:
    """Return a JSON number of exactly these digits."""
    return orjson.Fragment(text)


class Words:
    """One instrument's messages. What `spot` and `linear` have apart is told apart in each.

    Attributes:
        symbol: As in topics and REST.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.symbol = f"{listing.base}-{listing.quote}"
        self._spot = listing.market == "spot"

    def _message(self, kind: str, data: Any, now_ms: int | None = None, **more: Any) -> dict[str, Any]:
        """Return the frame around a topic's data; spot has some more in it, and another order."""
        topic = f"{self.symbol}@{kind}"
        if not self._spot:
            return {"code": 0, "dataType": topic, **more, "data": data}
        message = {"code": 0, "data": data, "dataType": topic, "success": True}
        return message if now_ms is None else {**message, "timestamp": now_ms}

    # --- Topics -------------------------------------------------------------------------------------------

    def trades(self, trades: Iterable[SimTrade], now_ms: int) -> dict[str, Any]:
        """Return `trade`: on swaps an array, newest first, of rows without ids; on spot the last one alone."""
        rows = [self._trade(e, now_ms) for e in trades]
        return self._message("trade", rows[-1] if self._spot else rows[::-1], now_ms)

    def _trade(self, e: SimTrade, now_ms: int) -> dict[str, Any]:
        row = {"q": e.size, "p": e.price, "T": e.time_ns // _MS, "m": e.buyer_is_maker, "s": self.symbol}
        return row | {"E": now_ms, "e": "trade", "t": str(e.id)} if self._spot else row

    def book_ticker(self, e: SimQuote, now_ms: int) -> dict[str, Any]:
        """Return `bookTicker`: small letters are prices. Only that of swaps has a number and a second time."""
        data = {
            "e": "bookTicker",
            "E": now_ms,
            "s": self.symbol,
            "b": e.bid[0],
            "B": e.bid[1],
            "a": e.ask[0],
            "A": e.ask[1],
        }
        if not self._spot:
            data |= {"u": e.sequence, "T": e.time_ns // _MS}
        return self._message("bookTicker", data)

    def depth(self, kind: str, sequence: int, bids: Rows, asks: Rows, now_ms: int) -> dict[str, Any]:
        """Return a whole book: bids best first and asks worst first."""
        data: dict[str, Any] = {"bids": bids, "asks": asks[::-1]}
        if self._spot:
            return self._message(kind, {**data, "lastUpdateId": sequence}, now_ms)
        return self._message(kind, data, ts=now_ms)

    def book(self, sequence: int, bids: Rows, asks: Rows, now_ms: int) -> dict[str, Any]:
        """Return the first frame of `incrDepth`; here asks come best first."""
        data = {"action": "all", "lastUpdateId": sequence, "time": now_ms, "bids": bids, "asks": asks}
        return self._message("incrDepth", data, now_ms)

    def update(self, e: SimDelta, now_ms: int) -> dict[str, Any]:
        """Return the changes of a book; here asks come worst first."""
        data = {
            "action": "update",
            "lastUpdateId": e.last,
            "time": e.time_ns // _MS,
            "bids": sorted(e.bids, key=_price, reverse=True),
            "asks": sorted(e.asks, key=_price, reverse=True),
        }
        return self._message("incrDepth", data, now_ms)

    def kline(self, e: SimCandle, now_ms: int) -> dict[str, Any]:
        """Return a minute; nothing in it says whether it is over."""
        start_ms = e.start_ns // _MS
        prices = {"c": e.close, "o": e.open, "h": e.high, "l": e.low, "v": e.volume}
        if not self._spot:
            return self._message("kline_1m", [{**prices, "T": start_ms}], s=self.symbol)
        row = {
            "T": start_ms + 59_999,
            "t": start_ms,
            "i": "1min",
            "s": self.symbol,
            "n": e.trades,
            "q": e.turnover,
            **prices,
        }
        return self._message("kline_1min", {"E": now_ms, "K": row, "e": "kline", "s": self.symbol})

    def ticker(self, e: SimTicker, quote: SimQuote, now_ms: int) -> dict[str, Any]:
        """Return `ticker`: capitals are prices, other than in `bookTicker`. Spot has JSON numbers."""
        numbers = {
            "c": e.last,
            "o": e.open,
            "h": e.high,
            "l": e.low,
            "v": e.volume,
            "q": e.turnover,
            "A": quote.ask[0],
            "a": quote.ask[1],
            "B": quote.bid[0],
            "b": quote.bid[1],
        }
        times = {"e": "24hTicker", "E": now_ms, "s": self.symbol, "O": now_ms - _DAY_MS, "C": now_ms}
        if not self._spot:
            return self._message("ticker", {**times, "p": "-0.1", "P": "-0.00", "L": "1", **numbers})
        told = {key: number(text) for key, text in numbers.items()}
        return self._message("ticker", {**times, "p": number("-0.1"), "P": "-0.00%", **told}, now_ms)

    def mark_price(self, e: SimTicker, now_ms: int) -> dict[str, Any]:
        """Return `markPrice`, which only swaps have."""
        data = {"e": "markPriceUpdate", "E": now_ms, "s": self.symbol, "p": e.mark_price}
        return self._message("markPrice", data)

    def last_price(self, e: SimTrade, now_ms: int) -> dict[str, Any]:
        """Return `lastPrice`; that of spot has no time at all."""
        data = {"c": e.price, "e": "lastPriceUpdate", "s": self.symbol}
        return self._message("lastPrice", data if self._spot else {**data, "E": now_ms})

    # --- REST ---------------------------------------------------------------------------------------------

    def listed(self, *, online: bool) -> dict[str, Any]:
        """Return the row of `common/symbols` or `quote/contracts`."""
        listing = self.listing
        if self._spot:
            return {
                "symbol": self.symbol,
                "minNotional": 5,
                "maxNotional": 500_000,
                "status": 1 if online else 25,
                "tickSize": float(listing.tick),
                "stepSize": float(listing.lot),
                "apiStateBuy": online,
                "apiStateSell": online,
            }
        return {
            "contractId": "100",
            "symbol": self.symbol,
            "size": "0",
            # Digits behind the point, not steps.
            "quantityPrecision": len(listing.lot.partition(".")[2]),
            "pricePrecision": len(listing.tick.partition(".")[2]),
            "tradeMinQuantity": float(listing.lot),
            "tradeMinUSDT": 2,
            "currency": listing.quote,
            "asset": listing.base,
            "status": 1 if online else 25,
            "apiStateOpen": "true" if online else "false",
            "apiStateClose": "true",
            "displayName": f"{listing.base}{listing.quote} Perp",
        }

    def kline_row(self, e: SimCandle) -> Any:
        """Return a row of klines: an object of texts on swaps, an array of numbers on spot."""
        start_ms = e.start_ns // _MS
        if not self._spot:
            return {
                "open": e.open,
                "close": e.close,
                "high": e.high,
                "low": e.low,
                "volume": e.volume,
                "time": start_ms,
            }
        texts = (e.open, e.high, e.low, e.close, e.volume)
        return [start_ms, *map(number, texts), start_ms + 59_999, number(e.turnover)]

    def trade_row(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of trades; only spot has ids."""
        if self._spot:
            return {
                "id": e.id,
                "price": number(e.price),
                "qty": number(e.size),
                "time": e.time_ns // _MS,
                "buyerMaker": e.buyer_is_maker,
            }
        return {
            "time": e.time_ns // _MS,
            "isBuyerMaker": e.buyer_is_maker,
            "price": e.price,
            "qty": e.size,
            "quoteQty": "0",
        }


def _price(row: tuple[str, str]) -> float:
    return float(row[0])
