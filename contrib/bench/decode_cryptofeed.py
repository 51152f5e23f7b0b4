# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["cryptofeed==2.4.1"]
# ///
"""Contestant: the message handlers of cryptofeed's exchanges, with callbacks that do nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import partial
from importlib.metadata import version
from typing import Any

# mypy: disable-error-code="import-not-found, import-untyped"
# What follows is installed by uv for this script alone.
import cryptofeed.exchanges as exchanges
from cryptofeed.defines import CANDLES, FUNDING, INDEX, L2_BOOK, LIQUIDATIONS, OPEN_INTEREST, TICKER, TRADES
from cryptofeed.symbols import Symbols
from cryptofeed.types import OrderBook
from decode_meter import NotHandledError, Row, as_received, serve

#: Exchange and address, by venue and market. It has no BingX, Hyperliquid and Pyth, no inverse contracts of
#: Bybit and Gate.io, and Kraken in an older dialect.
EXCHANGES = {
    ("binance", "spot"): ("Binance", "wss://stream.binance.com:9443"),
    ("binance", "linear"): ("BinanceFutures", "wss://fstream.binance.com"),
    ("binance", "inverse"): ("BinanceDelivery", "wss://dstream.binance.com"),
    ("bybit", "spot"): ("Bybit", "wss://stream.bybit.com/v5/public/spot"),
    ("bybit", "linear"): ("Bybit", "wss://stream.bybit.com/v5/public/linear"),
    ("coinbase", "spot"): ("Coinbase", "wss://advanced-trade-ws.coinbase.com"),
    ("gateio", "spot"): ("Gateio", "wss://api.gateio.ws/ws/v4/"),
    ("gateio", "linear"): ("GateioFutures", "wss://fx-ws.gateio.ws/v4/ws/usdt"),
    ("kraken", "spot"): ("Kraken", "wss://ws.kraken.com"),
    ("okx", "spot"): ("OKX", "wss://ws.okx.com:8443/ws/v5/public"),
    ("okx", "linear"): ("OKX", "wss://ws.okx.com:8443/ws/v5/public"),
    ("okx", "inverse"): ("OKX", "wss://ws.okx.com:8443/ws/v5/public"),
}

#: What must come of a frame for the row to count.
EXPECTED = {
    "trade": {TRADES},
    "quote": {TICKER},
    "ticker": {TICKER},
    "ticker (mark)": {TICKER, FUNDING},
    "ticker (funding)": {FUNDING},
    "ticker (index)": {INDEX},
    "ticker (open interest)": {OPEN_INTEREST},
    "ticker (volume)": {TICKER},
    "quote + ticker": {TICKER},
    "candle_1m": {CANDLES},
    "book snapshot": {L2_BOOK},
    "book delta": {L2_BOOK},
    "liquidation": {LIQUIDATIONS},
}


class Connection:
    """What a handler asks of the connection that brought a message."""

    def __init__(self, address: str, symbols: list[str]) -> None:
        self.address = address
        self.uuid = "bench"
        self.subscription = {"tickers": symbols}


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing: no event loop is measured by accident."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise NotHandledError("it wants to ask the network")


class Contestant:
    """One exchange of cryptofeed and the frames of one row."""

    def __init__(self, row: Row) -> None:
        try:
            name, address = EXCHANGES[row.venue, row.market]
        except KeyError:
            raise NotHandledError("it does not know this market") from None
        kind = getattr(exchanges, name)
        # Spot symbols of Bybit are those of the contracts, so it tells them apart by a slash.
        spot_of_bybit = (row.venue, row.market) == ("bybit", "spot")
        symbols = {
            one["name"]: f"{one['base']}/{one['quote']}" if spot_of_bybit else one["symbol"]
            for one in row.instruments
        }
        Symbols.set(kind.id, symbols, {"instrument_type": {}, "tick_size": {}})
        self.counted = 0
        self._row = row
        self._frames = [as_received(frame) for frame in row.frames]
        self._begin = [as_received(frame) for frame in row.begin]
        self._connection = Connection(address, list(symbols.values()))
        self._feed = kind(candle_closed_only=False)
        self._listen(self._ignore)

    def _listen(self, callback: Callable[..., Any]) -> None:
        self._feed.callbacks = {name: [partial(callback, name)] for name in self._feed.callbacks}

    async def _ignore(self, kind: str, event: Any, received_s: float) -> None:
        return

    async def _count(self, kind: str, event: Any, received_s: float) -> None:
        self.counted += kind in EXPECTED.get(self._row.channel, ())

    def prepare(self) -> None:
        """Set the books back to where the frames begin."""
        if self._row.channel != "book delta":
            return
        feed = self._feed
        feed._l2_book = {}
        for book in self._row.books:
            feed._l2_book[book["name"]] = OrderBook(
                feed.id,
                book["name"],
                max_depth=0,
                bids={Decimal(price): Decimal(size) for price, size in book["bids"]},
                asks={Decimal(price): Decimal(size) for price, size in book["asks"]},
            )
            feed.last_update_id[book["name"]] = book["sequence"]
        _drive(self._take(self._begin))

    def play(self) -> None:
        """Take all frames."""
        _drive(self._take(self._frames))

    async def _take(self, frames: list[str | bytes]) -> None:
        handle = self._feed.message_handler
        connection = self._connection
        for frame in frames:
            await handle(frame, connection, 1.0)

    def check(self) -> None:
        """Require an update of the right kind of each frame.

        Raises:
            NotHandledError: Some make none.
        """
        self._listen(self._count)
        try:
            self.prepare()
            for number, frame in enumerate(self._frames):
                before = self.counted
                _drive(self._take([frame]))
                if self.counted == before:
                    raise NotHandledError(f"it makes nothing of frame {number} {frame[:120]!r}")
        except NotHandledError:
            raise
        except Exception as e:  # whatever it does with a frame that it does not know
            raise NotHandledError(f"it raises {e!r}") from e
        self._listen(self._ignore)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    serve(__doc__ or "", Contestant, version=version("cryptofeed"))
