"""OKX's REST dialect: instruments, book snapshots, candles and missed trades.

https://www.okx.com/docs-v5/en/#public-data-rest-api-get-instruments
https://www.okx.com/docs-v5/en/#order-book-trading-market-data
https://www.okx.com/docs-v5/en/#error-code-rest-api
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from pricefeedd.codec import row_list
from pricefeedd.errors import DecodeError, RateLimitedError, SubscriptionRejectedError, VenueError
from pricefeedd.events import BookSnapshot, Candle, Origin, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.rest import (
    HttpReply,
    HttpRequest,
    Page,
    RateSignal,
    RestCall,
    TradeHole,
    checked,
    raise_for_status,
    retry_after_s,
)
from pricefeedd_okx.codec import VENUE, read_candle, read_levels, read_trade
from pricefeedd_okx.listing import read_instruments

T = TypeVar("T")

_MS = 1_000_000
_MINUTE_MS = 60_000

#: Types that make up a market. Those of derivatives hold both linear and inverse contracts.
_TYPES = {"spot": ("SPOT",), "linear": ("SWAP", "FUTURES"), "inverse": ("SWAP", "FUTURES")}

_BOOK_DEPTH = 400
_MAX_CANDLES = 300
#: `market/candles` has the latest 1440 minutes; two less, for the minute that runs and clocks that differ.
_RECENT_MINUTES = 1438
_MAX_RECENT_TRADES = 500
_MAX_PAST_TRADES = 100
#: A hole is read back to this many trades; at five pages in a second that takes half a minute.
_MAX_TRADES = 20_000

_RATE_LIMITED = frozenset({"50011", "50061"})
#: The limits count over 2 s, and the venue does not say when to come back.
_WINDOW_S = 2.0
#: Requests that are wrong, or about what does not exist: the same answer would come again.
_REFUSED = frozenset({"50014", "50015", "50016", "51000", "51001", "51014", "51015"})

#: Any answer names its code at the top; most begin with it.
_GOOD = b'{"code":"0"'
_CODE = re.compile(rb'"code"\s*:\s*"?(\d+)')


class OkxRest:
    """Speaks REST with all markets: they share paths and limits.

    Attributes:
        demo: Say in each request that demo trading is meant.
    """

    def __init__(self, *, demo: bool = False) -> None:
        self.demo = demo

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for the instruments of each type that the market is made of."""
        return self._instruments(market, _TYPES[market])

    def _instruments(self, market: str, types: tuple[str, ...]) -> RestCall[Instrument]:
        request = self._request(market, "/public/instruments", {"instType": types[0]}, "instruments")

        def read(reply: HttpReply) -> Page[Instrument]:
            more = self._instruments(market, types[1:]) if len(types) > 1 else None
            return Page(items=read_instruments(market, _data(reply)), next=more)

        return RestCall(request=request, parse=checked(read, venue=VENUE))

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot]:
        """Ask for a snapshot, needed only where the stream does not begin with one."""
        params: dict[str, str | int] = {"instId": instrument.rest_symbol, "sz": _BOOK_DEPTH, "source": 0}
        request = self._request(instrument.market, "/market/books", params, "books")

        def read(reply: HttpReply) -> Page[BookSnapshot]:
            (row,) = _data(reply)
            return Page(items=(_read_book(row, instrument, reply.received_ns),))

        return RestCall(request=request, parse=checked(read, venue=VENUE))

    # --- Candles ------------------------------------------------------------------------------------------

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes, oldest page first, in as many pages as it takes.

        The first page is asked for among the recent ones, because only an answer tells what time it is.
        """
        start_ms = -(-start_ns // (_MINUTE_MS * _MS)) * _MINUTE_MS
        return self._candles(instrument, start_ms, max(start_ms, end_ns // _MS), recent=True)

    def _candles(
        self, instrument: Instrument, start_ms: int, end_ms: int, *, recent: bool
    ) -> RestCall[Candle]:
        """Ask for the minutes that open in [start_ms, end_ms], one page at a time.

        `before` means newer than and `after` older than, both exclusive, and `before` alone gives the newest
        rows: so both are always sent.
        """
        last_ms = min(end_ms, start_ms + (_MAX_CANDLES - 1) * _MINUTE_MS)
        params: dict[str, str | int] = {
            "instId": instrument.rest_symbol,
            "bar": "1m",
            "before": start_ms - 1,
            "after": last_ms + 1,
            "limit": _MAX_CANDLES,
        }
        path = "candles" if recent else "history-candles"
        request = self._request(instrument.market, f"/market/{path}", params, path)

        def read(reply: HttpReply) -> Page[Candle]:
            reach_ms = reply.received_ns // _MS - _RECENT_MINUTES * _MINUTE_MS
            found = [_past(row, instrument, reply.received_ns) for row in reversed(_data(reply))]
            wanted = [row for row in found if start_ms * _MS <= row.start_ns <= last_ms * _MS]
            if recent and start_ms < reach_ms and len(wanted) <= (last_ms - start_ms) // _MINUTE_MS:
                return Page(items=(), next=self._candles(instrument, start_ms, end_ms, recent=False))
            # The pages go by time, not by rows: minutes that the venue leaves out must not end the search.
            next_ms = (last_ms // _MINUTE_MS + 1) * _MINUTE_MS
            more = (
                self._candles(instrument, next_ms, end_ms, recent=next_ms >= reach_ms)
                if next_ms <= end_ms
                else None
            )
            return Page(items=wanted, next=more)

        return RestCall(request=request, parse=checked(read, venue=VENUE))

    # --- Trades -------------------------------------------------------------------------------------------

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for fills between two ids, or from a time on when there is no first id.

        Rows come newest first and are read back from now, or from the end of the hole. All of them are in the last
        page, oldest first. They are single fills, where the stream may have merged some into one trade.
        """
        hole = TradeHole.between(
            instrument, after_id=after_id, before_id=before_id, from_ns=from_ns, to_ns=to_ns
        )
        params: dict[str, str | int] = {"instId": instrument.rest_symbol, "limit": _MAX_RECENT_TRADES}
        request = self._request(instrument.market, "/market/trades", params, "trades")
        return self._trades(hole, request, ())

    def _trades(self, hole: TradeHole, request: HttpRequest, newer: tuple[Trade, ...]) -> RestCall[Trade]:
        """Ask for one page of a hole.

        Args:
            newer: What the pages before had of it, newest first.
        """

        def read(reply: HttpReply) -> Page[Trade]:
            rows = _data(reply)
            found = [read_trade(row, hole.instrument.name, reply.received_ns) for row in rows]
            kept = (
                *newer,
                *(attrs.evolve(trade, origin=Origin.BACKFILL) for trade in found if hole.holds(trade)),
            )
            if not found or hole.begins_with(found[-1]) or len(kept) >= _MAX_TRADES:
                return Page(items=kept[::-1])
            oldest = int(found[-1].id or 0)
            if hole.before is not None:
                oldest = min(oldest, hole.before)
            params: dict[str, str | int] = {
                "instId": hole.instrument.rest_symbol,
                "type": 1,  # by id
                "after": oldest,  # older than
                "limit": _MAX_PAST_TRADES,
            }
            path, budget = "/market/history-trades", "history-trades"
            past = self._request(hole.instrument.market, path, params, budget)
            return Page(items=(), next=self._trades(hole, past, kept))

        return RestCall(request=request, parse=checked(read, venue=VENUE))

    # --- Answers ------------------------------------------------------------------------------------------

    def examine(self, reply: HttpReply) -> RateSignal:
        """Raise what the answer stands for; errors hide in `code`, often behind HTTP 200.

        Raises:
            RateLimitedError: Too fast; the venue names no time, so it is left alone for one window of 2 s.
            SubscriptionRejectedError: The instrument does not exist, or the request is wrong.
            ConnectError: This address is not served (403, 451).
            VenueError: A fault on the venue's side, or one that we do not know.
        """
        code = _code(reply)
        if code in ("0", None):
            raise_for_status(reply, venue=VENUE)
            return RateSignal()
        what = f"HTTP {reply.status}: {_message(reply)} (code {code})"
        if code in _RATE_LIMITED:
            wait_s = retry_after_s(reply.headers)
            raise RateLimitedError(what, venue=VENUE, retry_after_s=_WINDOW_S if wait_s is None else wait_s)
        if code in _REFUSED:
            raise SubscriptionRejectedError(what, venue=VENUE)
        if reply.status in (403, 418, 429, 451):
            raise_for_status(reply, venue=VENUE)
        raise VenueError(what, venue=VENUE)

    def _request(self, market: str, path: str, params: Mapping[str, str | int], budget: str) -> HttpRequest:
        return HttpRequest(
            endpoint=f"{market}_rest",
            path=f"/api/v5{path}",
            params=params,
            headers={"x-simulated-trading": "1"} if self.demo else {},
            budget=budget,
        )


def _code(reply: HttpReply) -> str | None:
    """Return the `code` of an answer; None if it has none, as a firewall's page."""
    if reply.body.startswith(_GOOD):
        return "0"
    found = _CODE.search(reply.body)
    return None if found is None else found[1].decode()


def _message(reply: HttpReply) -> str:
    try:
        return str(reply.json()["msg"])
    except (DecodeError, KeyError, TypeError):
        return reply.body[:200].decode("utf-8", "replace")


def _data(reply: HttpReply) -> list[Any]:
    body = reply.json()
    if body["code"] != "0":
        raise ValueError(f"code {body['code']!r}")
    return row_list(body["data"])


def _read_book(row: Any, instrument: Instrument, received_ns: int) -> BookSnapshot:
    sequence, ts = row["seqId"], row["ts"]
    if type(sequence) is not int or type(ts) is not str:
        raise TypeError(f"seqId or ts has the wrong type: {sequence!r}, {ts!r}")
    bids, asks = read_levels(row["bids"], row["asks"])
    return BookSnapshot(
        venue=VENUE,
        instrument=instrument.name,
        venue_time_ns=int(ts) * _MS,
        received_ns=received_ns,
        bids=bids,
        asks=asks,
        sequence=sequence,
    )


def _past(row: Any, instrument: Instrument, received_ns: int) -> Candle:
    candle = read_candle(row, instrument.name, instrument.market, received_ns)
    candle.origin = Origin.BACKFILL  # not shared with anybody yet
    return candle
