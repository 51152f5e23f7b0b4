"""Binance's REST dialect: instruments, book snapshots, candles and missed trades.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api
https://developers.binance.com/docs/derivatives/coin-margined-futures/market-data/rest-api
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn, TypeVar

import attrs

from pricefeedd.codec import decimal_text, integer, ns_of_ms, row_list
from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
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
from pricefeedd_binance.codec import VENUE, check_levels, read_trade
from pricefeedd_binance.listing import read_instruments

T = TypeVar("T")

_MS = 1_000_000
_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000

#: A row of klines has no flag for its end. This much after its close it is final.
_FINAL_AFTER_NS = 2_000_000_000

_MAX_TRADES = 1000

#: General faults of the venue's side, whatever status they come with: asking again may help.
_VENUE_FAULTS = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})
_TOO_MANY_REQUESTS = -1003
_INVALID_SYMBOL = -1121

_BANNED_UNTIL = re.compile(r"until (\d{13})")


@attrs.frozen(kw_only=True)
class _Market:
    """Where a market's REST differs from the others'.

    Attributes:
        prefix: Of every path.
        budget: The weight budget. COIN-M and USDⓈ-M have shared one since June 2026.
        listing_weight: Of exchangeInfo.
        max_candles: Rows in one reply of klines.
        trades_weight: Of aggTrades.
        depth_weights: Weight of a snapshot by the largest limit that it covers.
    """

    prefix: str
    budget: str
    listing_weight: float
    max_candles: int
    trades_weight: float
    depth_weights: Mapping[int, float]


_FUTURES_DEPTH = {5: 2.0, 10: 2.0, 20: 2.0, 50: 2.0, 100: 5.0, 500: 10.0, 1000: 20.0}

_MARKETS = {
    "spot": _Market(
        prefix="/api/v3",
        budget="spot-weight",
        listing_weight=20,
        max_candles=1000,
        trades_weight=4,  # UNCONFIRMED; the documents have said 1, 2 and 4 over the years
        depth_weights={100: 5.0, 500: 25.0, 1000: 50.0, 5000: 250.0},
    ),
    "linear": _Market(
        prefix="/fapi/v1",
        budget="futures-weight",
        listing_weight=1,
        max_candles=1500,
        trades_weight=20,  # UNCONFIRMED
        depth_weights=_FUTURES_DEPTH,
    ),
    "inverse": _Market(
        prefix="/dapi/v1",
        budget="futures-weight",
        listing_weight=1,
        max_candles=1500,
        trades_weight=20,  # UNCONFIRMED
        depth_weights=_FUTURES_DEPTH,
    ),
}


class BinanceRest:
    """Speaks REST with all three markets.

    Attributes:
        book_depth: Levels per side wished for in a snapshot. Spot gives up to 5000 of any number; futures
            give 5, 10, 20, 50, 100, 500 or 1000, of which the next larger one is asked for.
    """

    def __init__(self, book_depth: int = 1000) -> None:
        self.book_depth = book_depth

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for exchangeInfo. The spot reply is many MB unless told to leave out permission sets."""
        params = {"showPermissionSets": "false"} if market == "spot" else {}
        request = _request(market, "/exchangeInfo", params, _MARKETS[market].listing_weight)
        return RestCall(
            request=request, parse=lambda reply: Page(items=read_instruments(market, reply.json()))
        )

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot]:
        """Ask for a snapshot."""
        weights = _MARKETS[instrument.market].depth_weights
        step = next((most for most in weights if self.book_depth <= most), max(weights))
        limit = min(self.book_depth, step) if instrument.market == "spot" else step
        params: dict[str, str | int] = {"symbol": instrument.rest_symbol, "limit": limit}
        request = _request(instrument.market, "/depth", params, weights[step])
        return RestCall(request=request, parse=checked(partial(_read_book, instrument), venue=VENUE))

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes, oldest first, in as many pages as it takes."""
        start_ms = -(-start_ns // (_MINUTE_MS * _MS)) * _MINUTE_MS
        return _candles(instrument, start_ms, max(start_ms, end_ns // _MS))

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for aggregate trades between two ids, or from a time on when there is no first id.

        With no last id the hole ends at `to_ns`.
        """
        hole = TradeHole.between(
            instrument, after_id=after_id, before_id=before_id, from_ns=from_ns, to_ns=to_ns
        )
        if hole.after is not None:
            return _trades_from(hole, hole.after + 1)
        # Start and end may lie at most an hour apart; a full page goes on by id.
        from_ms = from_ns // _MS
        to_ms = max(from_ms, min(-(-to_ns // _MS), from_ms + _HOUR_MS - 1))
        return _trades(hole, {"startTime": from_ms, "endTime": to_ms, "limit": _MAX_TRADES}, to_ms)

    def examine(self, reply: HttpReply) -> RateSignal:
        """Return the weight used in this minute, or raise what the answer stands for.

        Raises:
            RateLimitedError: 429, 418 (banned) or code -1003: nothing is sent for as long as the venue says.
            SubscriptionRejectedError: The symbol does not exist, or the request is wrong.
            ConnectError: This address is not served (403, 451).
            VenueError: A fault on the venue's side.
        """
        if not 200 <= reply.status < 300:
            _fail(reply)
        try:
            return RateSignal(used=float(reply.headers["x-mbx-used-weight-1m"]))
        except (KeyError, ValueError):
            return RateSignal()


def _fail(reply: HttpReply) -> NoReturn:
    code, text = _fault(reply)
    what = f"HTTP {reply.status}: {text}"
    if code == _TOO_MANY_REQUESTS or reply.status in (418, 429):
        wait_s = retry_after_s(reply.headers)
        banned = _BANNED_UNTIL.search(text)
        if wait_s is None and banned:
            wait_s = max(0.0, int(banned[1]) / 1000 - reply.received_ns / 1e9)
        raise RateLimitedError(what, venue=VENUE, retry_after_s=60.0 if wait_s is None else wait_s)
    if code == _INVALID_SYMBOL:
        raise SubscriptionRejectedError(what, venue=VENUE)
    if code in _VENUE_FAULTS:
        raise VenueError(what, venue=VENUE)
    if reply.status == 451:
        raise ConnectError(
            f"{what} (restricted location; spot data is also at https://data-api.binance.vision, see endpoints.spot_rest)",
            venue=VENUE,
            retry_after_s=300.0,
        )
    raise_for_status(reply, venue=VENUE)
    raise VenueError(what, venue=VENUE)


def _fault(reply: HttpReply) -> tuple[int | None, str]:
    """Return code and message of an error reply; firewalls answer with HTML and have no code."""
    try:
        body = reply.json()
        return int(body["code"]), f"{body['msg']} (code {body['code']})"
    except (DecodeError, KeyError, TypeError, ValueError):
        return None, reply.body[:200].decode("utf-8", "replace")


def _request(market: str, path: str, params: Mapping[str, str | int], cost: float) -> HttpRequest:
    spec = _MARKETS[market]
    return HttpRequest(
        endpoint=f"{market}_rest", path=spec.prefix + path, params=params, budget=spec.budget, cost=cost
    )


# --- Book -------------------------------------------------------------------------------------------------


def _read_book(instrument: Instrument, reply: HttpReply) -> Page[BookSnapshot]:
    body = reply.json()
    bids, asks = body["bids"], body["asks"]
    check_levels(bids, asks)
    time_ms = body.get("T")  # futures only
    snapshot = BookSnapshot(
        venue=VENUE,
        instrument=instrument.name,
        venue_time_ns=None if time_ms is None else ns_of_ms(time_ms),
        received_ns=reply.received_ns,
        bids=bids,
        asks=asks,
        sequence=integer(body["lastUpdateId"]),
    )
    return Page(items=(snapshot,))


# --- Candles ----------------------------------------------------------------------------------------------


def _candles(instrument: Instrument, start_ms: int, end_ms: int) -> RestCall[Candle]:
    """Ask for the minutes that open in [start_ms, end_ms], one page at a time.

    Both ends are always sent: COIN-M returns the latest rows before endTime, not the first after startTime.
    """
    most = _MARKETS[instrument.market].max_candles
    last_ms = min(end_ms, start_ms + most * _MINUTE_MS - 1)
    limit = (last_ms - start_ms) // _MINUTE_MS + 1
    params: dict[str, str | int] = {
        "symbol": instrument.rest_symbol,
        "interval": "1m",
        "startTime": start_ms,
        "endTime": last_ms,
        "limit": limit,
    }
    request = _request(instrument.market, "/klines", params, _candles_weight(instrument.market, limit))

    def read(reply: HttpReply) -> Page[Candle]:
        rows = (_read_candle(row, instrument.name, reply.received_ns) for row in row_list(reply.json()))
        wanted = [row for row in rows if start_ms * _MS <= row.start_ns <= last_ms * _MS]
        # The pages go by time, not by rows: minutes that the venue leaves out must not end the search.
        more = _candles(instrument, last_ms + 1, end_ms) if last_ms < end_ms else None
        return Page(items=wanted, next=more)

    return RestCall(request=request, parse=checked(read, venue=VENUE))


def _candles_weight(market: str, limit: int) -> float:
    if market == "spot":
        return 2
    if limit < 100:
        return 1
    if limit < 500:
        return 2
    return 5 if limit <= 1000 else 10


def _read_candle(row: Any, name: str, received_ns: int) -> Candle:
    """Read a row: open time, open, high, low, close, volume, close time, turnover, trades, ..."""
    return Candle(
        venue=VENUE,
        instrument=name,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        start_ns=ns_of_ms(row[0]),
        open=decimal_text(row[1]),
        high=decimal_text(row[2]),
        low=decimal_text(row[3]),
        close=decimal_text(row[4]),
        volume=decimal_text(row[5]),
        turnover=decimal_text(row[7]),
        trades=integer(row[8]),
        closed=ns_of_ms(row[6]) < received_ns - _FINAL_AFTER_NS,
    )


# --- Trades -----------------------------------------------------------------------------------------------


def _trades_from(hole: TradeHole, first: int) -> RestCall[Trade]:
    limit = _MAX_TRADES if hole.before is None else max(1, min(_MAX_TRADES, hole.before - first))
    return _trades(hole, {"fromId": first, "limit": limit}, None)


def _trades(hole: TradeHole, window: Mapping[str, int], until_ms: int | None) -> RestCall[Trade]:
    """Ask for one page of a hole.

    Args:
        window: By id or by time; the venue takes one of the two.
        until_ms: End of a window by time; None for one by id.
    """
    spec = _MARKETS[hole.instrument.market]
    params: dict[str, str | int] = {"symbol": hole.instrument.rest_symbol, **window}
    request = _request(hole.instrument.market, "/aggTrades", params, spec.trades_weight)

    def read(reply: HttpReply) -> Page[Trade]:
        found = [read_trade(row, hole.instrument.name, reply.received_ns) for row in row_list(reply.json())]
        kept = [attrs.evolve(trade, origin=Origin.BACKFILL) for trade in found if hole.holds(trade)]
        return Page(items=kept, next=_more_trades(hole, window, until_ms, found))

    return RestCall(request=request, parse=checked(read, venue=VENUE))


def _more_trades(
    hole: TradeHole, window: Mapping[str, int], until_ms: int | None, found: list[Trade]
) -> RestCall[Trade] | None:
    """Return the next page: on by id after a full one, on by time after a thin hour, None at the end."""
    if len(found) >= window["limit"]:
        last = found[-1]
        return None if hole.ends_with(last) else _trades_from(hole, int(last.id or 0) + 1)
    if until_ms is None or until_ms * _MS >= hole.to_ns:
        return None
    to_ms = min(-(-hole.to_ns // _MS), until_ms + _HOUR_MS)
    return _trades(hole, {"startTime": until_ms + 1, "endTime": to_ms, "limit": _MAX_TRADES}, to_ms)
