"""Hyperliquid's REST dialect: instruments, books, candles and recent trades, all by POST to `/info`.

https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/info-endpoint
https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/rate-limits-and-user-limits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from pricefeedd.errors import SubscriptionRejectedError
from pricefeedd.events import BookSnapshot, Candle, Origin, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.rest import (
    HttpReply,
    HttpRequest,
    Page,
    RateSignal,
    RestCall,
    checked,
    raise_for_status,
    venue_clock_ns,
)
from pricefeedd_hyperliquid.codec import (
    VENUE,
    BookData,
    CandleRow,
    TradeRow,
    read_book,
    read_candle,
    read_trade,
    time_of,
)
from pricefeedd_hyperliquid.listing import read_pairs, read_perpetuals, read_tokens

T = TypeVar("T")

BUDGET = "weight"

_MS = 1_000_000
_MINUTE_MS = 60_000

#: The venue gives up to 5000 rows; a page of these is read without holding anything up.
_PAGE_MINUTES = 1000
#: A row has no flag for its end. This much after its close it is final: the last update of a minute was seen
#: 0.16 s after it.
_FINAL_AFTER_NS = 2_000_000_000

#: What questions cost of 1200 a minute.
_WEIGHT = 20.0
_BOOK_WEIGHT = 2.0
_ROWS_PER_WEIGHT = 60

_read_levels = msgspec.json.Decoder(BookData).decode
_read_candles = msgspec.json.Decoder(list[CandleRow]).decode
_read_trades = msgspec.json.Decoder(list[TradeRow]).decode

_JSON = {"content-type": "application/json"}


class HyperliquidRest:
    """Speaks REST with perpetuals and spot pairs.

    Attributes:
        dexs: Exchanges deployed by builders (HIP-3) whose perpetuals are listed as well.
    """

    def __init__(self, dexs: Sequence[str] = ()) -> None:
        self.dexs = tuple(dexs)

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for `spotMeta`, or for `meta` of the main exchange and then of each builder's one.

        A builder's exchange names the token that it settles in by its index, which `spotMeta` explains.
        """
        if market == "spot":
            return _ask(market, {"type": "spotMeta"}, lambda reply: Page(items=read_pairs(reply.json())))
        if not self.dexs:
            return _perpetuals(("",), {})

        def tokens(reply: HttpReply) -> Page[Instrument]:
            return Page(items=(), next=_perpetuals(("", *self.dexs), read_tokens(reply.json())))

        return _ask(market, {"type": "spotMeta"}, tokens)

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot]:
        """Ask for the best 20 levels."""

        def read(reply: HttpReply) -> Page[BookSnapshot]:
            return Page(items=(read_book(_read_levels(reply.body), instrument.name, reply.received_ns),))

        question = {"type": "l2Book", "coin": instrument.rest_symbol}
        return _ask(instrument.market, question, read, cost=_BOOK_WEIGHT)

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes, oldest first, in as many pages as it takes. Only the latest 5000 exist."""
        start_ms = -(-start_ns // (_MINUTE_MS * _MS)) * _MINUTE_MS
        return _candles(instrument, start_ms, max(start_ms, end_ns // _MS))

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for the latest trades, and keep those between two times, oldest first: ids are in no order.

        The venue gives few of them and does not document how many, so a longer hole is not filled to its beginning.
        """

        def read(reply: HttpReply) -> Page[Trade]:
            found = [
                read_trade(row, instrument.name, reply.received_ns, Origin.BACKFILL)
                for row in sorted(_read_trades(reply.body), key=time_of)
                if from_ns <= row.time * _MS <= to_ns
            ]
            return Page(items=[trade for trade in found if trade.id not in (after_id, before_id)])

        return _ask(instrument.market, {"type": "recentTrades", "coin": instrument.rest_symbol}, read)

    def examine(self, reply: HttpReply) -> RateSignal:
        """Raise what the answer stands for; the venue says nothing of the budget, so our own count rules.

        Raises:
            RateLimitedError: 429, without a word on how long.
            SubscriptionRejectedError: 422: the venue cannot read the question.
            ConnectError: This address is not served.
            VenueError: A fault on the venue's side; an unknown coin may give 500 as well.
        """
        if reply.status == 422:
            text = reply.body[:200].decode("utf-8", "replace")
            raise SubscriptionRejectedError(f"HTTP 422: {text}", venue=VENUE)
        raise_for_status(reply, venue=VENUE)
        return RateSignal()


def _ask(
    market: str, question: Mapping[str, Any], read: Callable[[HttpReply], Page[T]], *, cost: float = _WEIGHT
) -> RestCall[T]:
    """Return the call that asks a question of `/info` and gives the answer to `read`."""
    request = HttpRequest(
        method="POST",
        endpoint=f"{market}_rest",
        path="/info",
        headers=_JSON,
        body=msgspec.json.encode(question),
        budget=BUDGET,
        cost=cost,
    )

    return RestCall(request=request, parse=checked(read, venue=VENUE, also=(msgspec.MsgspecError,)))


def _perpetuals(dexs: Sequence[str], tokens: Mapping[int, str]) -> RestCall[Instrument]:
    """Ask for the perpetuals of one exchange after the other; "" is the main one."""
    dex, *others = dexs

    def read(reply: HttpReply) -> Page[Instrument]:
        body = reply.json()
        more = _perpetuals(others, tokens) if others else None
        # A builder's exchange that is not there must not take the main one with it.
        found = [] if dex and body is None else read_perpetuals(body, tokens)
        return Page(items=found, next=more)

    question = {"type": "meta", "dex": dex} if dex else {"type": "meta"}
    return _ask("linear", question, read)


def _candles(instrument: Instrument, start_ms: int, end_ms: int) -> RestCall[Candle]:
    """Ask for the minutes that open in [start_ms, end_ms], one page at a time."""
    last_ms = min(end_ms, start_ms + (_PAGE_MINUTES - 1) * _MINUTE_MS)
    span = {
        "coin": instrument.rest_symbol,
        "interval": "1m",
        "startTime": start_ms,
        # Whether a row that opens at the very end is given is UNCONFIRMED; up to its own end it surely is.
        "endTime": last_ms // _MINUTE_MS * _MINUTE_MS + _MINUTE_MS - 1,
    }
    rows = (last_ms - start_ms) // _MINUTE_MS + 1

    def read(reply: HttpReply) -> Page[Candle]:
        # A row of a minute that runs still looks like any other.
        final_ms = (venue_clock_ns(reply) - _FINAL_AFTER_NS) // _MS
        found = [
            read_candle(
                row, instrument.name, reply.received_ns, closed=final_ms > row.T, origin=Origin.BACKFILL
            )
            for row in _read_candles(reply.body)
            if start_ms <= row.t <= last_ms and row.i == "1m"
        ]
        # The pages go by time, not by rows: minutes that the venue leaves out must not end the search.
        more = _candles(instrument, last_ms + _MINUTE_MS, end_ms) if last_ms + _MINUTE_MS <= end_ms else None
        return Page(items=found, next=more)

    cost = _WEIGHT + rows / _ROWS_PER_WEIGHT
    return _ask(instrument.market, {"type": "candleSnapshot", "req": span}, read, cost=cost)
