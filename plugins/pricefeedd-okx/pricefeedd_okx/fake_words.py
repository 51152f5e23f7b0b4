"""OKX's words for what happens in the simulated market: stream payloads, REST rows and listings.

Shapes as of September 2026: https://www.okx.com/docs-v5/en/
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
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
_LISTED_MS = 1_611_916_828_000

Rows = Sequence[tuple[str, str]]


def index_of(listing: Listing) -> str:
    """Return the index that a contract follows: a family such as `BTC-USD_UM` shares that of `BTC-USD`."""
    return f"{listing.base}-{listing.quote.partition('_')[0]}"


def symbol_of(listing: Listing) -> str:
    """Return OKX's spelling."""
    family = f"{listing.base}-{listing.quote}"
    if listing.kind is Kind.PERPETUAL:
        return f"{family}-SWAP"
    if listing.kind is Kind.FUTURE and listing.expiry_ns is not None:
        return f"{family}-{datetime.fromtimestamp(listing.expiry_ns // 10**9, UTC):%y%m%d}"
    return family


def type_of(listing: Listing) -> str:
    """Return OKX's word for the kind of instrument."""
    return {Kind.PERPETUAL: "SWAP", Kind.FUTURE: "FUTURES"}.get(listing.kind, "SPOT")


def ms(time_ns: int) -> str:
    """Return a time as OKX writes it: text, ms."""
    return str(time_ns // _MS)


class Words:
    """Puts what happens to one instrument into OKX's words.

    Attributes:
        symbol: OKX's spelling.
        type: `SPOT`, `SWAP` or `FUTURES`.
        index: The index that the contract follows.
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.symbol = symbol_of(listing)
        self.type = type_of(listing)
        self.index = index_of(listing)
        self._spot = listing.market == "spot"

    def push(self, channel: str, *rows: Any, action: str | None = None) -> dict[str, Any]:
        """Return a push of a channel about this instrument."""
        head: dict[str, Any] = {"arg": {"channel": channel, "instId": self.symbol}}
        if action is not None:
            head["action"] = action
        return {**head, "data": list(rows)}

    # --- Streams ------------------------------------------------------------------------------------------

    def trade(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of `trades`."""
        return {**self.fill(e), "count": "1", "source": "0", "seqId": 80_000_000_000 + e.id}

    def fill(self, e: SimTrade) -> dict[str, Any]:
        """Return a row of `trades-all`, or of REST."""
        return {
            "instId": self.symbol,
            "tradeId": str(e.id),
            "px": e.price,
            "sz": e.size,
            "side": "sell" if e.buyer_is_maker else "buy",
            "ts": ms(e.time_ns),
        }

    def quote(self, e: SimQuote, now_ns: int) -> dict[str, Any]:
        """Return a row of `bbo-tbt`."""
        return {
            "asks": [[*e.ask, "0", "1"]],
            "bids": [[*e.bid, "0", "1"]],
            "ts": ms(now_ns),
            "seqId": e.sequence,
        }

    def book(self, bids: Rows, asks: Rows, time_ns: int, sequence: int, previous: int) -> dict[str, Any]:
        """Return a row of `books`; -1 as the one before makes it a snapshot."""
        return {
            "asks": [_level(price, size) for price, size in asks],
            "bids": [_level(price, size) for price, size in bids],
            "instId": self.symbol,
            "ts": ms(time_ns),
            "checksum": 0,
            "seqId": sequence,
            "prevSeqId": previous,
        }

    def delta(self, e: SimDelta) -> dict[str, Any]:
        """Return a row of `books` with what changed."""
        return self.book(e.bids, e.asks, e.time_ns, e.last, e.previous)

    def candle(self, e: SimCandle) -> list[str]:
        """Return a row of `candle1m`, or of REST."""
        contract = Decimal(self.listing.contract_size)
        if self.listing.market == "spot":
            base_or_quote = in_quote = e.turnover
        elif self.listing.market == "linear":
            base_or_quote = f"{Decimal(e.volume) * contract:f}"
            in_quote = e.turnover
        else:
            base_or_quote = e.turnover
            in_quote = f"{Decimal(e.volume) * contract:f}"
        closed = "1" if e.closed else "0"
        return [
            ms(e.start_ns), e.open, e.high, e.low, e.close, e.volume, base_or_quote, in_quote, closed
        ]  # fmt: skip

    def ticker(self, e: SimTicker, quote: SimQuote) -> dict[str, Any]:
        """Return a row of `tickers`."""
        contract = Decimal(self.listing.contract_size)
        linear = self.listing.market == "linear"
        return {
            "instType": self.type,
            "instId": self.symbol,
            "last": e.last,
            "lastSz": "1",
            "askPx": quote.ask[0],
            "askSz": quote.ask[1],
            "bidPx": quote.bid[0],
            "bidSz": quote.bid[1],
            "open24h": e.open,
            "high24h": e.high,
            "low24h": e.low,
            "sodUtc0": e.open,
            "sodUtc8": e.open,
            "volCcy24h": f"{Decimal(e.volume) * contract:f}" if linear else e.turnover,
            "vol24h": e.volume,
            "ts": ms(e.time_ns),
        }

    def mark_price(self, e: SimTicker) -> dict[str, Any]:
        """Return a row of `mark-price`."""
        return {"instId": self.symbol, "instType": self.type, "markPx": e.mark_price, "ts": ms(e.time_ns)}

    def index_ticker(self, e: SimTicker) -> dict[str, Any]:
        """Return a push of `index-tickers`, which goes by the index's own name."""
        row = {
            "instId": self.index,
            "idxPx": e.index_price,
            "open24h": e.open,
            "high24h": e.high,
            "low24h": e.low,
            "sodUtc0": e.open,
            "sodUtc8": e.open,
            "ts": ms(e.time_ns),
        }
        return {"arg": {"channel": "index-tickers", "instId": self.index}, "data": [row]}

    def funding(self, e: SimTicker) -> dict[str, Any]:
        """Return a row of `funding-rate`."""
        return {
            "formulaType": "withRate",
            "fundingRate": e.funding_rate,
            "fundingTime": ms(e.next_funding_ns),
            "impactValue": "20000.0000000000000000",
            "instId": self.symbol,
            "instType": self.type,
            "interestRate": "0.0001000000000000",
            "maxFundingRate": "0.00375",
            "method": "current_period",
            "minFundingRate": "-0.00375",
            "nextFundingRate": "",
            "nextFundingTime": ms(e.next_funding_ns + 8 * 3600 * 10**9),
            "premium": "0.0000000000000000",
            "settFundingRate": e.funding_rate,
            "settState": "settled",
            "ts": ms(e.time_ns),
        }

    def open_interest(self, e: SimTicker) -> dict[str, Any]:
        """Return a row of `open-interest`."""
        return {
            "instId": self.symbol,
            "instType": self.type,
            "oi": e.open_interest,
            "oiCcy": "1000",
            "oiUsd": "60000000",
            "ts": ms(e.time_ns),
        }

    def liquidation(self, e: SimLiquidation) -> dict[str, Any]:
        """Return a push of `liquidation-orders`, which goes by the kind of contract."""
        order = {
            "bkLoss": "0",
            "bkPx": e.price,
            "ccy": "",
            "posSide": "long" if e.side == "sell" else "short",
            "side": e.side,
            "sz": e.size,
            "ts": ms(e.time_ns),
        }
        row = {
            "details": [order],
            "instFamily": f"{self.listing.base}-{self.listing.quote}",
            "instId": self.symbol,
            "instType": self.type,
            "uly": self.index,
        }
        return {"arg": {"channel": "liquidation-orders", "instType": self.type}, "data": [row]}

    # --- REST ---------------------------------------------------------------------------------------------

    def listed(self) -> dict[str, Any]:
        """Return the row of `public/instruments`."""
        listing = self.listing
        inverse = listing.market == "inverse"
        quote = self.index.partition("-")[2]
        info: dict[str, Any] = {
            "instType": self.type,
            "instId": self.symbol,
            "instFamily": "" if self._spot else f"{listing.base}-{listing.quote}",
            "uly": "" if self._spot else self.index,
            "baseCcy": listing.base if self._spot else "",
            "quoteCcy": quote if self._spot else "",
            "settleCcy": "" if self._spot else (listing.base if inverse else quote),
            "ctType": "" if self._spot else listing.market,
            "ctVal": "" if self._spot else listing.contract_size,
            "ctMult": "" if self._spot else "1",
            "ctValCcy": "" if self._spot else (quote if inverse else listing.base),
            "tickSz": listing.tick,
            "lotSz": listing.lot,
            "minSz": listing.lot,
            "listTime": str(_LISTED_MS),
            "expTime": "" if listing.expiry_ns is None else ms(listing.expiry_ns),
            "contTdSwTime": "",
            "ruleType": "normal",
            "state": "live",
            "lever": "10",
            "instIdCode": 10459,
            "upcChg": [],
        }
        return info


def _level(price: str, size: str) -> list[str]:
    """Return a row of a book; a level that is gone has size and count "0"."""
    gone = not size.strip("0.")
    return [price, "0" if gone else size, "0", "0" if gone else "1"]
