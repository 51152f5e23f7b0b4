"""The simulated market in Gate's words: frames of streams and rows of REST, as of 2026.

Shapes are those of https://www.gate.com/docs/developers/apiv4/ and of live samples from September 2026. Sizes of
futures are texts, as with the header `X-Gate-Size-Decimal: 1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pricefeedd.testing.listing import Listing
from pricefeedd.testing.truth import SimCandle, SimLiquidation, SimQuote, SimTicker, SimTrade

_MS = 1_000_000
_S = 1_000_000_000

Rows = Sequence[tuple[str, str]]


def symbol_of(listing: Listing) -> str:
    """Return Gate's spelling: BTC_USDT, for spot and perpetual alike."""
    return f"{listing.base}_{listing.quote}"


def scope_of(listing: Listing) -> str:
    """Return the part of the venue that trades it: `spot`, or the settle currency."""
    if listing.market == "linear":
        return listing.quote.lower()
    return "spot" if listing.market == "spot" else "btc"


class Words:
    """One instrument's payloads.

    Attributes:
        symbol: The venue's spelling.
        scope: The part of the venue that trades it.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.symbol = symbol_of(listing)
        self.scope = scope_of(listing)
        self.spot = listing.market == "spot"
        self.channel = "spot" if self.spot else "futures"
        self._multiplier = Decimal(listing.contract_size)

    def message(self, kind: str, result: Any, now_ns: int, event: str | None = "update") -> dict[str, Any]:
        """Return a frame; `obu` has no event."""
        body: dict[str, Any] = {"time": now_ns // _S, "time_ms": now_ns // _MS}
        body["channel"] = f"{self.channel}.{kind}"
        if event is not None:
            body["event"] = event
        return {**body, "result": result}

    def _worth(self, turnover: str) -> str:
        """Return a turnover of the simulated market, which knows no contracts, as the venue counts it."""
        return turnover if self.listing.market != "linear" else f"{Decimal(turnover) * self._multiplier:f}"

    # --- Streams ------------------------------------------------------------------------------------------

    def trade(self, e: SimTrade) -> Any:
        """Return the result of `trades`: an object on spot, a list on futures."""
        time_ms = e.time_ns // _MS
        if self.spot:
            return {
                "id": e.id,
                "id_market": e.id,
                "create_time": e.time_ns // _S,
                "create_time_ms": f"{time_ms}.{e.time_ns % _MS:06}",
                "side": "sell" if e.buyer_is_maker else "buy",
                "currency_pair": self.symbol,
                "amount": e.size,
                "price": e.price,
                "range": f"{e.id}-{e.id}",
                "trade_mode": 0,
            }
        return [
            {
                "id": e.id,
                "size": self._signed(e),
                "create_time": e.time_ns // _S,
                "create_time_ms": time_ms,
                "price": e.price,
                "contract": self.symbol,
            }
        ]

    @staticmethod
    def _signed(e: SimTrade | SimLiquidation) -> str:
        sells = e.side == "sell" if isinstance(e, SimLiquidation) else e.buyer_is_maker
        return f"-{e.size}" if sells else e.size

    def book_ticker(self, e: SimQuote) -> dict[str, Any]:
        """Return the result of `book_ticker`."""
        return {
            "t": e.time_ns // _MS,
            "u": e.sequence,
            "s": self.symbol,
            "b": e.bid[0],
            "B": e.bid[1],
            "a": e.ask[0],
            "A": e.ask[1],
        }

    def ticker(self, e: SimTicker) -> Any:
        """Return the result of `tickers`."""
        if self.spot:
            return {
                "currency_pair": self.symbol,
                "last": e.last,
                "lowest_ask": e.last,
                "highest_bid": e.last,
                "change_percentage": "-5.6088",
                "base_volume": e.volume,
                "quote_volume": e.turnover,
                "high_24h": e.high,
                "low_24h": e.low,
            }
        inverse = self.listing.market == "inverse"
        return [
            {
                "contract": self.symbol,
                "last": e.last,
                "change_percentage": "-0.21",
                "total_size": e.open_interest,
                "volume_24h": e.volume,
                "volume_24h_base": e.turnover if inverse else f"{Decimal(e.volume) * self._multiplier:f}",
                "volume_24h_quote": e.volume if inverse else self._worth(e.turnover),
                "volume_24h_settle": self._worth(e.turnover),
                "mark_price": e.mark_price,
                "index_price": e.index_price,
                "funding_rate": e.funding_rate,
                "funding_rate_indicative": e.funding_rate,
                "funding_next_apply": e.next_funding_ns // _S,
                "high_24h": e.high,
                "low_24h": e.low,
                "t": e.time_ns // _MS,
            }
        ]

    def candle(self, e: SimCandle) -> Any:
        """Return the result of `candlesticks`: `v` is the turnover on spot and the contracts on futures."""
        start_s = e.start_ns // _S
        prices = {"c": e.close, "h": e.high, "l": e.low, "o": e.open, "n": f"1m_{self.symbol}"}
        if self.spot:
            return {"t": str(start_s), "v": e.turnover, **prices, "a": e.volume, "w": e.closed}
        return [{"t": start_s, "v": e.volume, **prices, "a": self._worth(e.turnover), "w": e.closed}]

    def levels(self, rows: Rows) -> list[Any]:
        """Return levels as `order_book_update` and REST write them; a size of 0 is "0"."""
        plain = [(price, size if size.strip("0.") else "0") for price, size in rows]
        return [list(row) for row in plain] if self.spot else [{"p": p, "s": s} for p, s in plain]

    def book_update(self, first: int, last: int, time_ns: int, bids: Rows, asks: Rows) -> dict[str, Any]:
        """Return the result of `order_book_update`."""
        body = {"t": time_ns // _MS, "s": self.symbol, "U": first, "u": last}
        body |= {"b": self.levels(bids), "a": self.levels(asks)}
        return {"e": "depthUpdate", "E": time_ns // _S, **body} if self.spot else body

    def obu(
        self, stream: str, first: int | None, last: int, time_ns: int, bids: Rows, asks: Rows
    ) -> dict[str, Any]:
        """Return the result of `obu`: whole without `first`; a side that did not change is not there."""
        body: dict[str, Any] = {"t": time_ns // _MS, "s": stream}
        body |= {"full": True, "u": last} if first is None else {"U": first, "u": last}
        for key, rows in (("b", bids), ("a", asks)):
            if rows or first is None:
                body[key] = [[price, size if size.strip("0.") else "0"] for price, size in rows]
        return body

    def liquidation(self, e: SimLiquidation) -> list[dict[str, Any]]:
        """Return the result of `public_liquidates`."""
        return [
            {
                "price": e.price,
                "size": self._signed(e),
                "time": e.time_ns // _MS,
                "contract": self.symbol,
            }
        ]

    # --- REST ---------------------------------------------------------------------------------------------

    def trade_row(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of trades: texts on spot; on futures `create_time_ms` holds seconds."""
        if self.spot:
            return {
                "id": str(e.id),
                "create_time": str(e.time_ns // _S),
                "create_time_ms": f"{e.time_ns // _MS}.{e.time_ns % _MS:06}",
                "currency_pair": self.symbol,
                "side": "sell" if e.buyer_is_maker else "buy",
                "amount": e.size,
                "price": e.price,
                "sequence_id": str(e.id),
            }
        return {
            "id": e.id,
            "create_time": e.time_ns // _MS / 1000,
            "create_time_ms": e.time_ns // _MS / 1000,
            "contract": self.symbol,
            "size": self._signed(e),
            "price": e.price,
        }

    def candle_row(self, e: SimCandle) -> Any:
        """Return a row of candlesticks; only spot says whether it is closed."""
        start_s = e.start_ns // _S
        if self.spot:
            closed = "true" if e.closed else "false"
            return [str(start_s), e.turnover, e.close, e.high, e.low, e.open, e.volume, closed]
        prices = {"o": e.open, "c": e.close, "l": e.low, "h": e.high}
        return {"t": start_s, "v": e.volume, **prices, "sum": self._worth(e.turnover)}

    def snapshot(self, sequence: int | None, bids: Rows, asks: Rows, now_ns: int) -> dict[str, Any]:
        """Return the answer of order_book; times are milliseconds on spot, seconds on futures."""
        time: float = now_ns // _MS if self.spot else now_ns // _MS / 1000
        body: dict[str, Any] = {"current": time, "update": time}
        body |= {"asks": self.levels(asks), "bids": self.levels(bids)}
        return body if sequence is None else {"id": sequence, **body}

    def listed(self) -> dict[str, Any]:
        """Return the element of currency_pairs or of contracts."""
        listing = self.listing
        if self.spot:
            return {
                "id": self.symbol,
                "base": listing.base,
                "quote": listing.quote,
                "fee": "0.2",
                "min_base_amount": listing.lot,
                "min_quote_amount": "3",
                "amount_precision": len(listing.lot.partition(".")[2]),
                "precision": len(listing.tick.partition(".")[2]),
                "trade_status": "tradable",
                "sell_start": 0,
                "buy_start": 0,
                "type": "normal",
            }
        inverse = listing.market == "inverse"
        return {
            "name": self.symbol,
            "type": "inverse" if inverse else "direct",
            "quanto_multiplier": "0" if inverse else listing.contract_size,
            "order_price_round": listing.tick,
            "mark_price_round": listing.tick,
            "order_size_min": "0" if "." in listing.lot else "1",
            "order_size_max": "1000000",
            "enable_decimal": "." in listing.lot,
            "in_delisting": False,
            "status": "trading",
            "funding_interval": 28800,
            "launch_time": 1_569_398_400,
            "is_pre_market": False,
            "contract_type": "",
        }
