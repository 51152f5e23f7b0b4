# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["ccxt", "orjson"]
# ///
"""Contestant: ccxt pro, from its client's `handle_message` to its caches. The client never connects."""

from __future__ import annotations

import asyncio  # noqa: TID251  # its client is made in a running loop
from importlib.metadata import version
from typing import Any

# mypy: disable-error-code="import-not-found, import-untyped"
# What follows is installed by uv for this script alone.
import ccxt.pro
from aiohttp import WSMessage, WSMsgType
from ccxt.async_support.base.ws.cache import ArrayCache, ArrayCacheByTimestamp
from ccxt.async_support.base.ws.order_book import OrderBook
from decode_meter import NotHandledError, Row, as_received, serve

#: Exchange and address, by venue and market.
EXCHANGES = {
    ("binance", "spot"): ("binance", "wss://stream.binance.com:9443/stream"),
    ("binance", "linear"): ("binance", "wss://fstream.binance.com/ws"),
    ("binance", "inverse"): ("binance", "wss://dstream.binance.com/ws"),
    ("bingx", "spot"): ("bingx", "wss://open-api-ws.bingx.com/market"),
    ("bingx", "linear"): ("bingx", "wss://open-api-swap.bingx.com/swap-market"),
    ("bybit", "spot"): ("bybit", "wss://stream.bybit.com/v5/public/spot"),
    ("bybit", "linear"): ("bybit", "wss://stream.bybit.com/v5/public/linear"),
    ("bybit", "inverse"): ("bybit", "wss://stream.bybit.com/v5/public/inverse"),
    ("coinbase", "spot"): ("coinbase", "wss://advanced-trade-ws.coinbase.com"),
    ("gateio", "spot"): ("gate", "wss://api.gateio.ws/ws/v4/"),
    ("gateio", "linear"): ("gate", "wss://fx-ws.gateio.ws/v4/ws/usdt"),
    ("gateio", "inverse"): ("gate", "wss://fx-ws.gateio.ws/v4/ws/btc"),
    ("hyperliquid", "spot"): ("hyperliquid", "wss://api.hyperliquid.xyz/ws"),
    ("hyperliquid", "linear"): ("hyperliquid", "wss://api.hyperliquid.xyz/ws"),
    ("kraken", "spot"): ("kraken", "wss://ws.kraken.com/v2"),
    ("okx", "spot"): ("okx", "wss://ws.okx.com:8443/ws/v5/public"),
    ("okx", "linear"): ("okx", "wss://ws.okx.com:8443/ws/v5/public"),
    ("okx", "inverse"): ("okx", "wss://ws.okx.com:8443/ws/v5/public"),
}

#: What must come of a frame for the row to count: the type of a result that it hands to those who wait.
EXPECTED: dict[str, type | tuple[type, ...]] = {
    "trade": ArrayCache,
    "candle_1m": ArrayCacheByTimestamp,
    "book snapshot": OrderBook,
    "book delta": OrderBook,
    "liquidation": (ArrayCache, dict),
}


def _is_expected(result: Any, channel: str) -> bool:
    # Quotes and tickers are plain dictionaries. Some exchanges give several tickers, or a candle's cache behind
    # its symbol, in one list.
    kind = EXPECTED.get(channel, dict)
    return isinstance(result, kind) or (type(result) is list and any(isinstance(one, kind) for one in result))


def _market(venue: str, one: dict[str, Any]) -> dict[str, Any]:
    """Return an instrument of ours as ccxt describes a market."""
    spot = one["kind"] == "spot"
    base, quote, settle, symbol_id = one["base"], one["quote"], one["settle"], one["symbol"]
    if venue == "hyperliquid" and not spot:
        # Its codec names perpetuals in this way, quoted in what they are settled in.
        quote, symbol_id = settle, f"{base}/{settle}:{settle}"
    inverse = one["market"] == "inverse"
    return {
        "id": symbol_id,
        "symbol": f"{base}/{quote}" if spot else f"{base}/{quote}:{settle}",
        "base": base,
        "quote": quote,
        "settle": None if spot else settle,
        "baseId": base,
        "quoteId": quote,
        "settleId": None if spot else settle,
        "type": "spot" if spot else "swap",
        "spot": spot,
        "swap": not spot,
        "future": False,
        "option": False,
        "contract": not spot,
        "linear": None if spot else not inverse,
        "inverse": None if spot else inverse,
        "active": True,
        "contractSize": None if spot else float(one["contract_size"]),
        "precision": {
            "price": float(one["tick_size"] or 0.01),
            "amount": float(one["lot_size"] or 0.01),
        },
        "limits": {},
        "info": {},
    }


class Contestant:
    """One exchange of ccxt and the frames of one row."""

    def __init__(self, row: Row, exchange: Any, address: str) -> None:
        self._row = row
        self._exchange = exchange
        if not exchange.markets:
            listed = [_market(row.venue, one) for one in row.listed]
            exchange.set_markets([exchange.safe_market_structure(market) for market in listed])
        self._client = client = exchange.client(address)
        self._messages = [_message(frame) for frame in row.frames]
        self._begin = [_message(frame) for frame in row.begin]
        if row.venue == "okx":
            # It counts books only that somebody watches.
            for market in exchange.markets.values():
                for channel in ("books", "bbo-tbt"):
                    client.subscriptions[f"{channel}:{market['symbol']}"] = True

    def prepare(self) -> None:
        """Set the books back to where the frames begin."""
        if self._row.channel != "book delta":
            return
        exchange = self._exchange
        exchange.orderbooks = exchange.create_safe_dictionary()
        for book in self._row.books:
            (one,) = (one for one in self._row.instruments if one["name"] == book["name"])
            symbol = _market(self._row.venue, one)["symbol"]
            exchange.orderbooks[symbol] = exchange.order_book(
                {
                    "symbol": symbol,
                    "bids": [[float(price), float(size)] for price, size in book["bids"]],
                    "asks": [[float(price), float(size)] for price, size in book["asks"]],
                    "nonce": book["sequence"],
                }
            )
        for message in self._begin:
            self._client.handle_message(message)

    def play(self) -> None:
        """Take all frames."""
        handle = self._client.handle_message
        for message in self._messages:
            handle(message)

    def check(self) -> None:
        """Require a result of the right kind of each frame.

        Raises:
            NotHandledError: Some make none.
        """
        client = self._client
        results: list[Any] = []
        errors: list[Any] = []

        def resolve(result: Any, message_hash: str) -> Any:
            results.append(result)
            return result

        def reject(error: Any, message_hash: str | None = None) -> None:
            errors.append(error)

        def spawn(method: Any, *args: Any) -> None:
            raise NotHandledError(f"it wants to ask the network ({method.__name__})")

        client.resolve, client.reject, self._exchange.spawn = resolve, reject, spawn
        try:
            self.prepare()
            for number, message in enumerate(self._messages):
                results.clear()
                client.handle_message(message)
                if errors:
                    raise NotHandledError(f"it reports {errors[0]!r}")
                if not any(_is_expected(one, self._row.channel) for one in results):
                    raise NotHandledError(f"it makes nothing of frame {number} {message.data[:120]!r}")
        except NotHandledError:
            raise
        except Exception as e:  # whatever it does with a frame that it does not know
            raise NotHandledError(f"it raises {e!r}") from e
        # Nobody waits, so its own cost next to nothing.
        del client.resolve, client.reject, self._exchange.spawn


def _message(frame: bytes) -> Any:
    data = as_received(frame)
    return WSMessage(WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY, data, None)


async def main() -> None:
    """Decode what is asked for."""
    known: dict[str, Any] = {}

    def make(row: Row) -> Contestant:
        try:
            name, address = EXCHANGES[row.venue, row.market]
        except KeyError:
            raise NotHandledError("it does not know this venue") from None
        if name not in known:
            known[name] = getattr(ccxt.pro, name)()
        return Contestant(row, known[name], address)

    serve(__doc__ or "", make, version=version("ccxt"))
    for exchange in known.values():
        await exchange.close()


if __name__ == "__main__":
    asyncio.run(main())
