"""BingX's REST dialect: instruments, minutes, and the newest trades.

A refused request is HTTP 200 with a `code` that is not 0.

https://bingx-api.github.io/docs-v3/ (pages "USDT-M Perp Futures" and "Spot", part "Market Data")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from pricefeedd.codec import row_list
from pricefeedd.errors import DecodeError, RateLimitedError, SubscriptionRejectedError, VenueError
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
    venue_clock_ns,
)
from pricefeedd_bingx.codec import BAD_DATA, VENUE, decimal, flag, integer, loads, minute_ns
from pricefeedd_bingx.listing import read_instruments

T = TypeVar("T")

#: The budget of all requests.
BUDGET = "market"

_MS = 1_000_000
_MINUTE_MS = 60_000
_MINUTE_NS = 60_000_000_000

#: No row says that its minute is over. This much after its end it is.
_FINAL_AFTER_NS = 2_000_000_000

#: The documents say 1 440; more than 1 000 were seen to be cut without a word.
_MAX_CANDLES = 1000
_MAX_TRADES = {"spot": 500, "linear": 1000}

_PATHS = {
    "spot": {
        "instruments": "/openApi/spot/v1/common/symbols",
        "candles": "/openApi/spot/v2/market/kline",
        "trades": "/openApi/spot/v1/market/trades",
    },
    "linear": {
        "instruments": "/openApi/swap/v2/quote/contracts",
        "candles": "/openApi/swap/v3/quote/klines",
        "trades": "/openApi/swap/v2/quote/trades",
    },
}

#: Too many requests; the codes of swaps changed on 2025-10-16, the pages of spot have the old ones.
_TOO_FAST = frozenset({109429, 100410, 100409})
#: Bad parameter, unknown symbol, paused contract, bad path, no timestamp: asking again does not help.
_REFUSED = frozenset({109400, 109425, 109415, 100400, 104414})

#: The window of the limit, and how long a ban was seen to last.
_WINDOW_S = 10.0
_BAN_S = 300.0

_CODE = re.compile(rb'\s*\{\s*"code"\s*:\s*(-?\d{1,9})\s*[,}]')


class BingxRest:
    """Speaks REST with both markets."""

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all symbols of a market, in one reply."""

        def read(reply: HttpReply) -> Page[Instrument]:
            return Page(items=read_instruments(market, loads(reply.body)))

        return RestCall(
            request=_request(market, "instruments", {}),
            parse=checked(read, venue=VENUE, also=(msgspec.DecodeError,)),
        )

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        """Return None: the book of REST has no number to join the stream's changes to."""
        return None

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes, oldest page first; rows come newest first."""
        start_ms = -(-start_ns // _MINUTE_NS) * _MINUTE_MS
        return _candles(instrument, start_ms, max(start_ms, end_ns // _MINUTE_NS * _MINUTE_MS))

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for the newest trades and keep those between the times: 500 on spot, 1000 on swaps, no more pages.

        Swaps give no ids, and those of spot are in no order, so ids only leave out their own rows.
        """
        request = _request(
            instrument.market,
            "trades",
            {"symbol": instrument.rest_symbol, "limit": _MAX_TRADES[instrument.market]},
        )

        def read(reply: HttpReply) -> Page[Trade]:
            found = [_read_trade(row, instrument, reply.received_ns) for row in reversed(_rows(reply))]
            found.sort(key=_time_ns)  # newest first is what was seen, and not promised
            return Page(
                items=[
                    trade
                    for trade in found
                    if from_ns <= _time_ns(trade) <= to_ns
                    and (trade.id is None or trade.id not in (after_id, before_id))
                ]
            )

        return RestCall(request=request, parse=checked(read, venue=VENUE, also=(msgspec.DecodeError,)))

    def examine(self, reply: HttpReply) -> RateSignal:
        """Return what is left of the rate limit, or raise what the answer stands for.

        Raises:
            RateLimitedError: HTTP 429 or 418 (banned), or one of three codes inside HTTP 200.
            SubscriptionRejectedError: The symbol does not exist or is paused, or the request is wrong.
            ConnectError: The firewall (403), for 5 minutes.
            VenueError: A fault on the venue's side.
        """
        if not 200 <= reply.status < 300:
            _fail(reply)
        seen = _CODE.match(reply.body[:64])
        code = int(seen[1]) if seen is not None else _code(reply)
        if code != 0:
            _refuse(reply, code)
        try:
            remaining = float(reply.headers["x-ratelimit-requests-remain"])
        except (KeyError, ValueError):
            return RateSignal()
        return RateSignal(remaining=remaining, reset_after_s=_window_s(reply))


def _fail(reply: HttpReply) -> NoReturn:
    if reply.status in (418, 429):
        # The venue sends no Retry-After; something in between may.
        wait_s = retry_after_s(reply.headers)
        if wait_s is None:
            wait_s = _BAN_S if reply.status == 418 else _window_s(reply) or _WINDOW_S
        raise RateLimitedError(f"HTTP {reply.status}: {_text(reply)}", venue=VENUE, retry_after_s=wait_s)
    raise_for_status(reply, venue=VENUE)
    raise VenueError(f"HTTP {reply.status}: {_text(reply)}", venue=VENUE)


def _refuse(reply: HttpReply, code: int) -> NoReturn:
    what = f"code {code}: {_text(reply)}"
    if code in _TOO_FAST:
        raise RateLimitedError(what, venue=VENUE, retry_after_s=_window_s(reply) or _WINDOW_S)
    if code in _REFUSED:
        raise SubscriptionRejectedError(what, venue=VENUE)
    raise VenueError(what, venue=VENUE)


def _code(reply: HttpReply) -> int:
    try:
        return integer(loads(reply.body)["code"])
    except BAD_DATA as e:
        raise DecodeError(f"reply without a code: {_text(reply)!r}", venue=VENUE) from e


def _text(reply: HttpReply) -> str:
    return reply.body[:200].decode("utf-8", "replace")


def _window_s(reply: HttpReply) -> float | None:
    """Return the seconds to the end of the limit's window; None if the venue does not say. It has no Retry-After."""
    try:
        expires_ms = float(reply.headers["x-ratelimit-requests-expire"])
    except (KeyError, ValueError):
        return None
    left_s = expires_ms / 1000 - reply.received_ns / 1e9
    # Our clock may be wrong: a window is never longer than a minute.
    return min(max(left_s, 0.1), 60.0)


def _request(market: str, what: str, params: Mapping[str, str | int]) -> HttpRequest:
    return HttpRequest(
        endpoint=f"{market}_rest", path=_PATHS[market][what], params=params, budget=BUDGET, cost=1.0
    )


def _rows(reply: HttpReply) -> list[Any]:
    """Return the rows of a reply; nothing at all may come as null, and a single row without its array."""
    data = loads(reply.body)["data"]
    if data is None:
        return []
    if type(data) is dict:
        return [data]
    return row_list(data)


# --- Candles ----------------------------------------------------------------------------------------------


def _candles(instrument: Instrument, start_ms: int, end_ms: int) -> RestCall[Candle]:
    """Ask for the minutes that open in [start_ms, end_ms], one page at a time."""
    last_ms = min(end_ms, start_ms + (_MAX_CANDLES - 1) * _MINUTE_MS)
    params: dict[str, str | int] = {
        "symbol": instrument.rest_symbol,
        "interval": "1m",  # the name that the stream of swaps has; that of spot has another
        # The start seems to be exclusive, and whether the end is that of opening or closing is not told: this
        # window holds the same minutes either way.
        "startTime": start_ms - 1,
        "endTime": last_ms + _MINUTE_MS - 1,
        "limit": _MAX_CANDLES,
    }
    if instrument.market == "spot":
        params["timeZone"] = 0  # UTC; the default is UTC+8
    read_row = _spot_row if instrument.market == "spot" else _swap_row

    def read(reply: HttpReply) -> Page[Candle]:
        rows = [read_row(row, instrument.name, reply.received_ns) for row in _rows(reply)]
        now_ns = _venue_now_ns(reply)
        newest_ns = max((row.start_ns for row in rows), default=0)
        for row in rows:
            # No row says whether it runs: it is over when there is a later one, or by the venue's clock.
            row.closed = row.start_ns < newest_ns or row.start_ns + _MINUTE_NS + _FINAL_AFTER_NS <= now_ns
        rows.sort(key=lambda row: row.start_ns)
        wanted = [row for row in rows if start_ms * _MS <= row.start_ns <= last_ms * _MS]
        # The pages go by time, not by rows: minutes that the venue leaves out must not end the search.
        more = _candles(instrument, last_ms + _MINUTE_MS, end_ms) if last_ms < end_ms else None
        return Page(items=wanted, next=more)

    return RestCall(
        request=_request(instrument.market, "candles", params),
        parse=checked(read, venue=VENUE, also=(msgspec.DecodeError,)),
    )


def _venue_now_ns(reply: HttpReply) -> int:
    """Return the venue's clock when it answered: spot has a `timestamp`."""
    time_ms = loads(reply.body).get("timestamp")
    return venue_clock_ns(reply) if time_ms is None else integer(time_ms) * _MS


def _swap_row(row: Any, name: str, received_ns: int) -> Candle:
    """Read a row of swaps: an object, some of whose numbers may be texts."""
    return Candle(
        venue=VENUE,
        instrument=name,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        start_ns=minute_ns(row["time"]),
        open=decimal(row["open"]),
        high=decimal(row["high"]),
        low=decimal(row["low"]),
        close=decimal(row["close"]),
        volume=decimal(row["volume"]),
        closed=False,
    )


def _spot_row(row: Any, name: str, received_ns: int) -> Candle:
    """Read a row of spot: open time, open, high, low, close, volume, close time, turnover."""
    return Candle(
        venue=VENUE,
        instrument=name,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        start_ns=minute_ns(row[0]),
        open=decimal(row[1]),
        high=decimal(row[2]),
        low=decimal(row[3]),
        close=decimal(row[4]),
        volume=decimal(row[5]),
        turnover=decimal(row[7]),
        closed=False,
    )


# --- Trades -----------------------------------------------------------------------------------------------


def _time_ns(trade: Trade) -> int:
    assert trade.venue_time_ns is not None, "every row has a time"
    return trade.venue_time_ns


def _read_trade(row: Any, instrument: Instrument, received_ns: int) -> Trade:
    spot = instrument.market == "spot"
    maker_bought = flag(row["buyerMaker" if spot else "isBuyerMaker"])
    return Trade(
        venue=VENUE,
        instrument=instrument.name,
        venue_time_ns=integer(row["time"]) * _MS,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        id=str(integer(row["id"])) if spot else None,
        price=decimal(row["price"]),
        size=decimal(row["qty"]),
        aggressor=Side.SELL if maker_bought else Side.BUY,
    )
