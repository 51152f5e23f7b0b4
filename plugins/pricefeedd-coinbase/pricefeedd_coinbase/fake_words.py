"""The simulated market in Coinbase's words: payloads of channels and bodies of REST, as of 2026.

Shapes are those of https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels and
https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api, with `client_id` left out as on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pricefeedd.testing.market import Listing, SimCandle, SimDelta, SimQuote, SimTicker, SimTrade

_SECOND_NS = 1_000_000_000

Rows = Sequence[tuple[str, str]]


def time_text(ns: int, digits: int = 9) -> str:
    """Return a time as the venue writes it: up to so many digits behind the second, without zeros at the end."""
    second, rest = divmod(ns, _SECOND_NS)
    text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:09}"[:digits].rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def trimmed(number: str) -> str:
    """Return a number without zeros behind the point that say nothing, as the venue writes levels."""
    return number.rstrip("0").rstrip(".") if "." in number else number


def envelope(channel: str, events: list[Any], now_ns: int) -> dict[str, Any]:
    """Return a frame; its number is put in when it is sent."""
    return {"channel": channel, "timestamp": time_text(now_ns), "sequence_num": 0, "events": events}


class Words:
    """One product's payloads.

    Attributes:
        product: The venue's spelling.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.product = f"{listing.base}-{listing.quote}"

    # --- Streams ------------------------------------------------------------------------------------------

    def trade(self, e: SimTrade) -> dict[str, Any]:
        """Return a trade. Its side is the maker's."""
        return {
            "product_id": self.product,
            "trade_id": str(e.id),
            "price": e.price,
            "size": e.size,
            "time": time_text(e.time_ns, 6),
            "side": "BUY" if e.buyer_is_maker else "SELL",
        }

    def trades(self, kind: str, trades: Iterable[SimTrade], now_ns: int) -> dict[str, Any]:
        """Return a `market_trades` frame, newest first."""
        rows = [self.trade(trade) for trade in trades][::-1]
        return envelope("market_trades", [{"type": kind, "trades": rows}], now_ns)

    def levels(self, kind: str, bids: Rows, asks: Rows, time_ns: int, now_ns: int) -> dict[str, Any]:
        """Return an `l2_data` frame: bids best first, then offers best first."""
        at = time_text(time_ns, 6)
        sides = (
            ("bid", sorted(bids, key=lambda level: -float(level[0]))),
            ("offer", sorted(asks, key=lambda level: float(level[0]))),
        )
        updates = [
            {"side": side, "event_time": at, "price_level": trimmed(price), "new_quantity": trimmed(size)}
            for side, levels in sides
            for price, size in levels
        ]
        event = {"type": kind, "product_id": self.product, "updates": updates}
        return envelope("l2_data", [event], now_ns)

    def delta(self, e: SimDelta, now_ns: int) -> dict[str, Any]:
        """Return an update of the book."""
        return self.levels("update", e.bids, e.asks, e.time_ns, now_ns)

    def ticker(
        self, kind: str, e: SimTicker, quote: SimQuote, now_ns: int, *, batch: bool = False
    ) -> dict[str, Any]:
        """Return a `ticker` frame, or a `ticker_batch` one, which has no best bid and offer."""
        ticker = {
            "type": "ticker",
            "product_id": self.product,
            "price": e.last,
            "volume_24_h": e.volume,
            "low_24_h": e.low,
            "high_24_h": e.high,
            "low_52_w": e.low,
            "high_52_w": e.high,
            "price_percent_chg_24_h": f"{(float(e.last) / float(e.open) - 1) * 100:.14f}",
        }
        if not batch:
            ticker |= {
                "best_bid": quote.bid[0],
                "best_bid_quantity": quote.bid[1],
                "best_ask": quote.ask[0],
                "best_ask_quantity": quote.ask[1],
            }
        channel = "ticker_batch" if batch else "ticker"
        return envelope(channel, [{"type": kind, "tickers": [ticker]}], now_ns)

    def candles(self, kind: str, minutes: Sequence[SimCandle], now_ns: int) -> dict[str, Any]:
        """Return a `candles` frame: five minutes each, newest first, and no word on whether they are over."""
        buckets: dict[int, list[SimCandle]] = {}
        for minute in minutes:
            if minute.trades:
                buckets.setdefault(minute.start_ns // (300 * _SECOND_NS) * 300, []).append(minute)
        rows = [
            {**_bars(start_s, inside), "product_id": self.product}
            for start_s, inside in sorted(buckets.items(), reverse=True)
        ]
        return envelope("candles", [{"type": kind, "candles": rows}], now_ns)

    def status(self) -> dict[str, Any]:
        """Return the element of a `status` frame; its key is `id` here."""
        return {
            "product_type": "SPOT",
            "id": self.product,
            "base_currency": self.listing.base,
            "quote_currency": self.listing.quote,
            "base_increment": self.listing.lot,
            "quote_increment": self.listing.tick,
            "display_name": f"{self.listing.base}/{self.listing.quote}",
            "status": "online",
            "status_message": "",
            "min_market_funds": "1",
        }

    # --- REST ---------------------------------------------------------------------------------------------

    def candle_row(self, minute: SimCandle) -> dict[str, Any]:
        """Return a row of candles."""
        return _bars(minute.start_ns // _SECOND_NS, [minute])

    def trade_row(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of trades in the answer of `ticker`."""
        return {**self.trade(e), "bid": "", "ask": "", "exchange": "coinbase"}

    def listed(self, last: str, aliases: Sequence[str]) -> dict[str, Any]:
        """Return the element of the product list."""
        listing = self.listing
        return {
            **listed_row(self.product, listing.tick, listing.lot),
            "price": last,
            "alias_to": list(aliases),
        }


def listed_row(product: str, tick: str, lot: str, *, alias: str = "") -> dict[str, Any]:
    """Return an element of the product list that is online."""
    base, _, quote = product.partition("-")
    return {
        "product_id": product,
        "price": "",
        "base_increment": lot,
        "quote_increment": tick,
        "quote_min_size": "1",
        "base_min_size": lot,
        "base_max_size": "3400",
        "base_name": base,
        "quote_name": quote,
        "status": "online",
        "cancel_only": False,
        "limit_only": False,
        "post_only": False,
        "trading_disabled": False,
        "is_disabled": False,
        "view_only": False,
        "auction_mode": False,
        "product_type": "SPOT",
        "quote_currency_id": quote,
        "base_currency_id": base,
        "mid_market_price": "",
        "alias": alias,
        "alias_to": [],
        "price_increment": tick,
        "product_venue": "CBE",
    }


def _bars(start_s: int, minutes: Sequence[SimCandle]) -> dict[str, Any]:
    """Return minutes as one candle, all of it text."""
    volume = sum(float(minute.volume) for minute in minutes)
    places = len(minutes[0].volume.partition(".")[2])
    return {
        "start": str(start_s),
        "low": min((minute.low for minute in minutes), key=float),
        "high": max((minute.high for minute in minutes), key=float),
        "open": minutes[0].open,
        "close": minutes[-1].close,
        "volume": trimmed(f"{volume:.{places}f}"),
    }
