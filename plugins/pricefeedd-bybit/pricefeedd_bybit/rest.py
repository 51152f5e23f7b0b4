"""Bybit's REST dialect: instruments, candles, recent trades and, where they can be joined, book snapshots.

Every answer has HTTP 200 and an envelope: `retCode` (0 is good), `retMsg`, `result`, `time`.

https://bybit-exchange.github.io/docs/v5/guide#parameters-for-authenticated-endpoints
https://bybit-exchange.github.io/docs/v5/error
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn, TypeVar

from pricefeedd.codec import decimal_text, integer, row_list
from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import BookSnapshot, Candle, Origin, Side, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.rest import (
    HttpReply,
    HttpRequest,
    Page,
    RateSignal,
    RestCall,
    checked,
    raise_for_status,
    retry_after_s,
)
from pricefeedd_bybit.listing import read_instruments
from pricefeedd_bybit.wire import VENUE, ns_of_text

T = TypeVar("T")

_MS = 1_000_000
_MINUTE_MS = 60_000

#: A row of klines has no flag for its end. This much after its end it is final.
_FINAL_AFTER_MS = 2_000

_MAX_CANDLES = 1000

#: Rows in one reply of recent-trade, which has neither pages nor times to ask for.
#: https://bybit-exchange.github.io/docs/v5/market/recent-trade
_MAX_TRADES = {"spot": 60, "linear": 1000, "inverse": 1000}

#: An address that asks too often is shut out for 10 minutes and must send nothing meanwhile.
#: https://bybit-exchange.github.io/docs/v5/rate-limit
_BAN_S = 600.0

#: Listed instruments that are not traded now are told only when asked for.
_STATUSES = {
    "spot": ("",),
    "linear": ("", "PreLaunch", "Delivering"),
    "inverse": ("", "PreLaunch", "Delivering"),
}

_TOO_MANY_VISITS = frozenset({10006, 10018})
#: A parameter, a path or a symbol that the venue does not know, or will not serve to us: asking again is vain.
_REFUSED = frozenset({10001, 10017, 10024, 10029, 10404})

_SIDES = {"Buy": Side.BUY, "Sell": Side.SELL}


class BybitRest:
    """Speaks REST with all three markets, which are told apart by `category`."""

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for instruments-info, in pages of 1000: first what is traded, then what was or will be."""
        return _instruments(market, 0, "")

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        """Offer none: each stream of a book begins with its own, and a new one is had by subscribing again."""
        return None

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes, oldest page first; within a page the newest comes first."""
        start_ms = -(-start_ns // (_MINUTE_MS * _MS)) * _MINUTE_MS
        return _candles(instrument, start_ms, max(start_ms, end_ns // _MS))

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for the newest trades and keep those between two ids, or between two times where ids tell nothing.

        The venue tells no more than the last 1000 (60 on spot), so a longer hole is filled at its end only.
        """
        market = instrument.market
        params: dict[str, str | int] = {"symbol": instrument.rest_symbol, "limit": _MAX_TRADES[market]}
        read = partial(_read_trades, instrument, after_id, before_id, from_ns, to_ns)
        return RestCall(request=_request(market, "/recent-trade", params), parse=checked(read, venue=VENUE))

    def examine(self, reply: HttpReply) -> RateSignal:
        """Return what is left where the venue says that it is nothing, or raise what the answer stands for.

        Raises:
            RateLimitedError: We are too fast: 429, code 10006, or 403 "access too frequent", which bans for 10 min.
            SubscriptionRejectedError: The symbol or another parameter is wrong.
            ConnectError: This address is not served (other 403).
            VenueError: A fault on the venue's side.
        """
        if reply.status != 200:
            _fail(reply)
        # Nearly all answers begin so; the others are parsed to see.
        if not reply.body.startswith(b'{"retCode":0,'):
            _check_code(reply)
        if reply.headers.get("x-bapi-limit-status") == "0":
            # The limit is of one endpoint, and its other counts say nothing about the budget of the address.
            return RateSignal(remaining=0, reset_after_s=_reset_after_s(reply))
        return RateSignal()


def _fail(reply: HttpReply) -> NoReturn:
    text = reply.body[:200].decode("utf-8", "replace")
    if reply.status == 403 and "too frequent" in text.lower():
        raise RateLimitedError(f"HTTP 403: {text}", venue=VENUE, retry_after_s=_BAN_S)
    if reply.status == 403:
        raise ConnectError(
            f"HTTP 403 (a region that is not served, or a ban; other hosts go into endpoints): {text}",
            venue=VENUE,
            retry_after_s=300.0,
        )
    raise_for_status(reply, venue=VENUE)
    raise VenueError(f"HTTP {reply.status}: {text}", venue=VENUE)


def _check_code(reply: HttpReply) -> None:
    """Raise what a `retCode` stands for; unknown ones may pass, so they are asked again."""
    try:
        body = reply.json()
        code, text = body["retCode"], body["retMsg"]
    except (KeyError, TypeError) as e:
        raise DecodeError(f"bad reply {reply.body[:120]!r} ({e!r})", venue=VENUE) from e
    if code == 0:
        return
    what = f"{text} (code {code})"
    if code in _TOO_MANY_VISITS:
        raise RateLimitedError(what, venue=VENUE, retry_after_s=_reset_after_s(reply))
    if code in _REFUSED:
        raise SubscriptionRejectedError(what, venue=VENUE)
    raise VenueError(what, venue=VENUE)


def _reset_after_s(reply: HttpReply) -> float:
    """Return the seconds until the limit is whole again, by the header that tells it; 5 s without one."""
    wait_s = retry_after_s(reply.headers)
    if wait_s is not None:
        return wait_s
    try:
        reset_ms = int(reply.headers["x-bapi-limit-reset-timestamp"])
    except (KeyError, ValueError):
        return 5.0
    # Its clock is the venue's; ours may be far off.
    return min(max(reset_ms / 1000 - reply.received_ns / 1e9, 0.5), 60.0)


def _request(market: str, path: str, params: Mapping[str, str | int]) -> HttpRequest:
    return HttpRequest(
        endpoint=f"{market}_rest",
        path=f"/v5/market{path}",
        params={"category": market, **params},
        budget="rest",
    )


def _venue_ms(body: Any) -> int:
    """Return the venue's clock when it answered, ms."""
    return integer(body["time"])


# --- Instruments ------------------------------------------------------------------------------------------


def _instruments(market: str, status: int, cursor: str) -> RestCall[Instrument]:
    """Ask for one page of the instruments in one status.

    Args:
        status: Index of the status among those of the market.
        cursor: The venue's mark of the next page; "" for the first.
    """
    statuses = _STATUSES[market]
    params: dict[str, str | int] = {"limit": 1000}
    if statuses[status]:
        params["status"] = statuses[status]
    if cursor:
        params["cursor"] = cursor

    def read(reply: HttpReply) -> Page[Instrument]:
        body = reply.json()
        found = read_instruments(market, body["result"]["list"])
        following = body["result"].get("nextPageCursor") or ""
        if type(following) is not str:
            raise TypeError("nextPageCursor is not a text")
        # Spot tells all in one page, whatever is asked for.
        if following and following != cursor and market != "spot":
            return Page(items=found, next=_instruments(market, status, following))
        if status + 1 < len(statuses):
            return Page(items=found, next=_instruments(market, status + 1, ""))
        return Page(items=found)

    return RestCall(request=_request(market, "/instruments-info", params), parse=checked(read, venue=VENUE))


# --- Candles ----------------------------------------------------------------------------------------------


def _candles(instrument: Instrument, start_ms: int, end_ms: int) -> RestCall[Candle]:
    """Ask for the minutes that open in [start_ms, end_ms], one page at a time.

    A window never holds more minutes than a page: which of them the venue would leave out is not documented.
    https://bybit-exchange.github.io/docs/v5/market/kline
    """
    last_ms = min(end_ms, start_ms + _MAX_CANDLES * _MINUTE_MS - 1)
    limit = (last_ms - start_ms) // _MINUTE_MS + 1
    params: dict[str, str | int] = {
        "symbol": instrument.rest_symbol,
        "interval": "1",
        "start": start_ms,
        "end": last_ms,
        "limit": limit,
    }

    def read(reply: HttpReply) -> Page[Candle]:
        body = reply.json()
        venue_ms = _venue_ms(body)
        found = [
            _read_candle(row, instrument.name, venue_ms, reply.received_ns)
            for row in row_list(body["result"]["list"])
        ]
        wanted = [c for c in reversed(found) if start_ms * _MS <= c.start_ns <= last_ms * _MS]
        # The pages go by time, not by rows: minutes that the venue leaves out must not end the search.
        more = _candles(instrument, last_ms + 1, end_ms) if last_ms < end_ms else None
        return Page(items=wanted, next=more)

    return RestCall(request=_request(instrument.market, "/kline", params), parse=checked(read, venue=VENUE))


def _read_candle(row: Any, name: str, venue_ms: int, received_ns: int) -> Candle:
    """Read a row: open time, open, high, low, close, volume, turnover. The newest may still run."""
    start_ns = ns_of_text(row[0])
    return Candle(
        venue=VENUE,
        instrument=name,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        start_ns=start_ns,
        open=decimal_text(row[1]),
        high=decimal_text(row[2]),
        low=decimal_text(row[3]),
        close=decimal_text(row[4]),
        volume=decimal_text(row[5]),
        turnover=decimal_text(row[6]),
        closed=start_ns // _MS + _MINUTE_MS + _FINAL_AFTER_MS <= venue_ms,
    )


# --- Trades -----------------------------------------------------------------------------------------------


def _read_trades(
    instrument: Instrument,
    after_id: str | None,
    before_id: str | None,
    from_ns: int,
    to_ns: int,
    reply: HttpReply,
) -> Page[Trade]:
    """Read the newest trades, newest first, and return those in the hole, oldest first.

    `to_ns` is by our clock, and is put to the venue's by the time of the reply.
    """
    body = reply.json()
    trades = [
        _read_trade(row, instrument.name, reply.received_ns)
        for row in reversed(row_list(body["result"]["list"]))
    ]
    at = {trade.id: index for index, trade in enumerate(trades)}
    first, last = at.get(after_id), at.get(before_id)
    if last is not None:
        trades = trades[:last]
    if first is not None:
        return Page(items=trades[first + 1 :])
    # The reply does not reach back to where the hole begins, or that is not known by id.
    latest_ns = to_ns + _venue_ms(body) * _MS - reply.received_ns
    return Page(items=[t for t in trades if from_ns <= (t.venue_time_ns or 0) <= latest_ns])


def _read_trade(row: Any, name: str, received_ns: int) -> Trade:
    trade_id = row["execId"]
    if type(trade_id) is not str:
        raise TypeError("execId is not a text")
    return Trade(
        venue=VENUE,
        instrument=name,
        venue_time_ns=ns_of_text(row["time"]),
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        id=trade_id,
        price=decimal_text(row["price"]),
        size=decimal_text(row["size"]),
        aggressor=_SIDES[row["side"]],
    )
