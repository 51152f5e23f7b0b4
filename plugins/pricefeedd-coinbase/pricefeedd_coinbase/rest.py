"""Coinbase's REST dialect: instruments, candles and missed trades, all of them public.

https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn, TypeVar

import msgspec

from pricefeedd.codec import decimal_text
from pricefeedd.errors import DecodeError, RateLimitedError, SubscriptionRejectedError
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
    venue_clock_ns,
)
from pricefeedd_coinbase.codec import TradeRow, read_trade
from pricefeedd_coinbase.listing import read_instruments
from pricefeedd_coinbase.user import VENUE

T = TypeVar("T")

#: Requests per second that one address may send, and the budget that counts them.
REQUESTS_PER_S = 10
BUDGET = "spot-rest"

_PREFIX = "/api/v3/brokerage/market/products"
_SECOND_NS = 1_000_000_000
_MINUTE_S = 60
_DAY_S = 86_400

#: Minutes asked for at once. The reference says fewer than 350, an older error text fewer than 300.
_MAX_CANDLES = 299

#: A row of candles has no flag for its end. This much after its end it is final: answers may be a moment old,
#: and what was traded last may be counted late.
_FINAL_AFTER_NS = 4 * _SECOND_NS

#: Trades asked for at once; the venue may send fewer, and names no limit.
_MAX_TRADES = 1000

#: Pages of a list that is read on by number of rows. With more, the venue must have ignored the number.
_MAX_PAGES = 20


class _CandleRow(msgspec.Struct):
    start: str
    low: str
    high: str
    open: str
    close: str
    volume: str


class _Candles(msgspec.Struct):
    candles: list[_CandleRow]


class _Trades(msgspec.Struct):
    trades: list[TradeRow]


_parse_candles = msgspec.json.Decoder(_Candles).decode
_parse_trades = msgspec.json.Decoder(_Trades).decode


class CoinbaseRest:
    """Speaks REST."""

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all spot products, with those that cannot be traded now."""
        return _products(0)

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        """Offer nothing: a book by REST bears no number by which the stream could be joined to it."""
        return None

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes, oldest page first. Those without trades are left out by the venue."""
        start_s = -(-start_ns // (_MINUTE_S * _SECOND_NS)) * _MINUTE_S
        end_s = end_ns // (_MINUTE_S * _SECOND_NS) * _MINUTE_S
        return _candles(instrument, start_s, max(start_s, end_s))

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for the trades between two ids, or between two times where there is no id, newest page first.

        The venue only searches by time. Pages go back from the newest trade by the venue's own times, so that
        our clock plays no part where we have ids.
        """
        hole = TradeHole.between(
            instrument, after_id=after_id, before_id=before_id, from_ns=from_ns, to_ns=to_ns
        )
        end_s = -(-to_ns // _SECOND_NS) if after_id is None and before_id is None else None
        return _trades(hole, end_s, frozenset())

    def examine(self, reply: HttpReply) -> RateSignal:
        """Return what is left of this second's requests, or raise what the answer stands for.

        Raises:
            RateLimitedError: 429.
            SubscriptionRejectedError: The product does not exist, or the request is wrong.
            ConnectError: This address is not served (403, 451).
            VenueError: A fault on the venue's side.
        """
        if not 200 <= reply.status < 300 or reply.body[:9] in (b'{"error":', b'{"errors"'):
            _fail(reply)
        try:
            # Headers of a limit that is counted otherwise say nothing of ours.
            if int(reply.headers["x-ratelimit-limit"]) == REQUESTS_PER_S:
                return RateSignal(
                    remaining=float(reply.headers["x-ratelimit-remaining"]), reset_after_s=_reset_s(reply)
                )
        except (KeyError, ValueError):
            pass
        return RateSignal()


def _reset_s(reply: HttpReply) -> float | None:
    """Return when the limit's window ends; the header counts from now, or from 1970 (UNCONFIRMED which)."""
    try:
        reset = float(reply.headers["x-ratelimit-reset"])
    except (KeyError, ValueError):
        return None
    return max(0.0, reset - reply.received_ns / _SECOND_NS if reset > 1e9 else reset)


def _fail(reply: HttpReply) -> NoReturn:
    what = f"HTTP {reply.status}: {_fault(reply)}"
    if reply.status == 429 or "rate_limit_exceeded" in what:
        wait_s = retry_after_s(reply.headers)
        if wait_s is None:
            wait_s = _reset_s(reply)
        # The limit is per second; where the venue does not say how long, a few of them must do.
        raise RateLimitedError(what, venue=VENUE, retry_after_s=5.0 if wait_s is None else max(1.0, wait_s))
    if reply.status != 200:
        raise_for_status(reply, venue=VENUE)
    raise SubscriptionRejectedError(what, venue=VENUE)


def _fault(reply: HttpReply) -> str:
    """Return the words of an error reply: `{"error":..,"message":..}`, or a list of errors, or no JSON at all."""
    try:
        body = reply.json()
        for entry in body.get("errors") or [body]:
            return f"{entry['message']} ({entry.get('error') or entry['id']})"
    except (DecodeError, AttributeError, KeyError, TypeError):
        pass
    return reply.body[:200].decode("utf-8", "replace")


def _request(path: str, params: Mapping[str, str | int]) -> HttpRequest:
    return HttpRequest(endpoint="spot_rest", path=_PREFIX + path, params=params, budget=BUDGET)


# --- Instruments ------------------------------------------------------------------------------------------


def _products(offset: int, pages: int = 1) -> RestCall[Instrument]:
    """Ask for the products from a row on; without a limit the venue sends all of them in one answer."""
    params: dict[str, str | int] = {"product_type": "SPOT"}
    if offset:
        params["offset"] = offset

    def read(reply: HttpReply) -> Page[Instrument]:
        body = reply.json()
        found = read_instruments(body)
        rows, there = len(body["products"]), body.get("num_products")
        # `num_products` is what there is, or what was sent (UNCONFIRMED which): more is there only in the former case.
        more = type(there) is int and offset + rows < there and 0 < rows < there and pages < _MAX_PAGES
        return Page(items=found, next=_products(offset + rows, pages + 1) if more else None)

    return RestCall(
        request=_request("", params), parse=checked(read, venue=VENUE, also=(msgspec.DecodeError,))
    )


# --- Candles ----------------------------------------------------------------------------------------------


def _candles(instrument: Instrument, start_s: int, end_s: int) -> RestCall[Candle]:
    """Ask for the minutes that open in [start_s, end_s], one page at a time."""
    last_s = min(end_s, start_s + (_MAX_CANDLES - 1) * _MINUTE_S)
    params: dict[str, str | int] = {
        "start": start_s,
        # A second before the next minute: the last one is in, whether or not the end counts.
        "end": last_s + _MINUTE_S - 1,
        "granularity": "ONE_MINUTE",
    }

    def read(reply: HttpReply) -> Page[Candle]:
        now_ns = venue_clock_ns(reply)
        rows = [
            _candle(row, instrument.name, reply.received_ns, now_ns)
            for row in _parse_candles(reply.body).candles
        ]
        wanted = [row for row in rows if start_s * _SECOND_NS <= row.start_ns <= last_s * _SECOND_NS]
        # The pages go by time, not by rows: minutes that the venue leaves out must not end the search.
        more = _candles(instrument, last_s + _MINUTE_S, end_s) if last_s < end_s else None
        return Page(items=wanted[::-1], next=more)

    path = f"/{instrument.rest_symbol}/candles"
    return RestCall(
        request=_request(path, params), parse=checked(read, venue=VENUE, also=(msgspec.DecodeError,))
    )


def _candle(row: _CandleRow, name: str, received_ns: int, now_ns: int) -> Candle:
    start_ns = int(row.start) * _SECOND_NS
    return Candle(
        venue=VENUE,
        instrument=name,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        start_ns=start_ns,
        open=decimal_text(row.open),
        high=decimal_text(row.high),
        low=decimal_text(row.low),
        close=decimal_text(row.close),
        volume=decimal_text(row.volume),
        closed=start_ns + _MINUTE_S * _SECOND_NS + _FINAL_AFTER_NS <= now_ns,
    )


# --- Trades -----------------------------------------------------------------------------------------------


def _trades(hole: TradeHole, end_s: int | None, known: frozenset[int]) -> RestCall[Trade]:
    """Ask for one page of a hole.

    Args:
        end_s: Trades up to this second; None for the newest.
        known: Ids of the page before: two pages meet within a second, so they overlap.
    """
    params: dict[str, str | int] = {"limit": _MAX_TRADES}
    if end_s is not None:
        # Both or neither: what the venue makes of one without the other is not documented.
        start_s = hole.from_ns // _SECOND_NS if hole.after is None else end_s - _DAY_S
        params |= {"start": min(start_s, end_s), "end": end_s}

    def read(reply: HttpReply) -> Page[Trade]:
        rows = _parse_trades(reply.body).trades
        name = hole.instrument.name
        found = {int(row.trade_id): read_trade(row, name, reply.received_ns, Origin.BACKFILL) for row in rows}
        kept = [trade for number, trade in sorted(found.items()) if number not in known and hole.holds(trade)]
        return Page(items=kept, next=_older_trades(hole, found, known))

    path = f"/{hole.instrument.rest_symbol}/ticker"
    return RestCall(
        request=_request(path, params), parse=checked(read, venue=VENUE, also=(msgspec.DecodeError,))
    )


def _older_trades(
    hole: TradeHole, found: Mapping[int, Trade], known: frozenset[int]
) -> RestCall[Trade] | None:
    """Return the page before this one; None if it reached the hole's beginning, or brought nothing new."""
    if not found.keys() - known:
        return None
    oldest = found[min(found)]
    if hole.begins_with(oldest):
        return None
    return _trades(hole, (oldest.venue_time_ns or 0) // _SECOND_NS + 1, frozenset(found))
