"""Kraken's REST dialect: instruments, candles and missed trades. Errors come inside HTTP 200.

https://docs.kraken.com/api-reference/market-data/get-tradable-asset-pairs.md
https://docs.kraken.com/api-reference/market-data/get-ohlc-data.md
https://docs.kraken.com/api-reference/market-data/get-recent-trades.md
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NoReturn, TypeVar

import msgspec

from pricefeedd.codec import decimal_text, integer, plain_decimal, row_list
from pricefeedd.errors import DecodeError, RateLimitedError, SubscriptionRejectedError, VenueError
from pricefeedd.events import BookSnapshot, Candle, Origin, Side, Trade
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
)
from pricefeedd_kraken.codec import VENUE
from pricefeedd_kraken.listing import read_instruments

T = TypeVar("T")

_SECOND_NS = 1_000_000_000
_MINUTE_S = 60
#: A minute's last trades may be counted this late.
_FINAL_AFTER_NS = 2 * _SECOND_NS

_MAX_TRADES = 1000
#: How far before a hole its trades are searched for, in turn: the hole's beginning is told by our clock, which
#: may differ from the venue's.
_SEARCH_BACK_S = (10, 600, 4 * 3600)

_SIDES = {"b": Side.BUY, "s": Side.SELL}

#: Trade times are JSON numbers with up to nine decimals: more than a float holds.
_decode = msgspec.json.Decoder(float_hook=plain_decimal).decode

_NO_ERROR = re.compile(rb'\s*\{\s*"error"\s*:\s*\[\s*\]')
_THROTTLED_UNTIL = re.compile(r"Throttled:\s*(\d+)")


class KrakenRest:
    """Speaks REST with the spot market."""

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all pairs; tokenised assets are not among them."""
        request = _request("/AssetPairs")
        return RestCall(request=request, parse=lambda reply: Page(items=read_instruments(_result(reply))))

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        """Offer nothing: a snapshot of REST has no number by which the stream could be joined to it."""
        return None

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes. There is one page, of the newest 720, whatever is asked for."""
        start_s = -(-start_ns // (_MINUTE_S * _SECOND_NS)) * _MINUTE_S
        # Whether rows begin at `since` or behind it is not documented; a second before serves both.
        request = _request("/OHLC", pair=instrument.rest_symbol, interval=1, since=start_s - 1)
        return RestCall(
            request=request,
            parse=checked(partial(_read_candles, instrument, start_s, end_ns // _SECOND_NS), venue=VENUE),
        )

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for trades between two ids, or between two times where an id is missing, oldest first."""
        hole = TradeHole.between(
            instrument, after_id=after_id, before_id=before_id, from_ns=from_ns, to_ns=to_ns
        )
        return _search(hole, 0)

    def examine(self, reply: HttpReply) -> RateSignal:
        """Raise what the answer stands for; Kraken does not tell how much of a limit is used.

        Raises:
            RateLimitedError: We are too fast, or locked out.
            SubscriptionRejectedError: The pair does not exist, or the request is wrong.
            ConnectError: This address is not served (403, 451).
            VenueError: A fault on the venue's side.
        """
        raise_for_status(reply, venue=VENUE)
        if not _NO_ERROR.match(reply.body):
            errors = _errors(reply)
            if errors:
                _fail(errors, reply)
        return RateSignal()


def _errors(reply: HttpReply) -> list[str]:
    """Return the errors of an answer with HTTP 200; pages of a proxy are told as what they are."""
    try:
        return [str(error) for error in _decode(reply.body)["error"]]
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as e:
        raise VenueError(
            f"HTTP {reply.status}: not an answer of the API: {reply.body[:80]!r}", venue=VENUE
        ) from e


def _fail(errors: list[str], reply: HttpReply) -> NoReturn:
    what = ", ".join(errors)
    words = what.lower()
    if "throttled" in words:
        until = _THROTTLED_UNTIL.search(what)
        wait_s = 10.0 if until is None else max(1.0, int(until[1]) - reply.received_ns / _SECOND_NS)
        raise RateLimitedError(what, venue=VENUE, retry_after_s=min(wait_s, 900.0))
    if "rate limit" in words or "too many requests" in words:
        raise RateLimitedError(what, venue=VENUE, retry_after_s=10.0)
    if "lockout" in words:
        raise RateLimitedError(what, venue=VENUE, retry_after_s=900.0)
    if words.startswith("equery:") or "invalid arguments" in words:
        raise SubscriptionRejectedError(what, venue=VENUE)
    raise VenueError(what, venue=VENUE)


def _request(path: str, **params: str | int) -> HttpRequest:
    return HttpRequest(endpoint="spot_rest", path=f"/0/public{path}", params=params, budget="rest")


def _result(reply: HttpReply) -> Any:
    try:
        return _decode(reply.body)["result"]
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as e:
        raise DecodeError(f"bad reply {reply.body[:120]!r} ({e!r})", venue=VENUE) from e


def _rows(result: Any) -> list[Any]:
    """Return the rows of the only pair: its key may differ from what was asked for."""
    return row_list(next((value for key, value in result.items() if key != "last"), None))


# --- Candles ----------------------------------------------------------------------------------------------


def _read_candles(instrument: Instrument, start_s: int, end_s: int, reply: HttpReply) -> Page[Candle]:
    """Read rows of open time, open, high, low, close, vwap, volume and trades; the last one runs still."""
    result = _result(reply)
    last_final_s = integer(result["last"])
    candles = []
    for row in _rows(result):
        open_s = integer(row[0])
        if not start_s <= open_s <= end_s:
            continue
        ends_ns = (open_s + _MINUTE_S) * _SECOND_NS
        candles.append(
            Candle(
                venue=VENUE,
                instrument=instrument.name,
                received_ns=reply.received_ns,
                origin=Origin.BACKFILL,
                start_ns=open_s * _SECOND_NS,
                open=decimal_text(row[1]),
                high=decimal_text(row[2]),
                low=decimal_text(row[3]),
                close=decimal_text(row[4]),
                volume=decimal_text(row[6]),
                trades=integer(row[7]),
                closed=open_s <= last_final_s and ends_ns + _FINAL_AFTER_NS <= reply.received_ns,
            )
        )
    return Page(items=candles)


# --- Trades -----------------------------------------------------------------------------------------------


def _search(hole: TradeHole, step: int) -> RestCall[Trade]:
    """Ask for the first page of a hole.

    Args:
        step: Which of `_SEARCH_BACK_S` to begin at.
    """
    since_ns = max(0, hole.from_ns - _SEARCH_BACK_S[step] * _SECOND_NS)
    return _trades(hole, since_ns, step)


def _trades(hole: TradeHole, since_ns: int, step: int | None) -> RestCall[Trade]:
    """Ask for the trades after a time.

    Args:
        step: Where the search for the hole's beginning stands; None once that was found.
    """
    request = _request("/Trades", pair=hole.instrument.rest_symbol, since=since_ns, count=_MAX_TRADES)

    def read(reply: HttpReply) -> Page[Trade]:
        result = _result(reply)
        found = [_read_trade(row, hole.instrument.name, reply.received_ns) for row in _rows(result)]
        late = hole.after is not None and (not found or not hole.begins_with(found[0]))
        if late and step is not None and step + 1 < len(_SEARCH_BACK_S):
            return Page(items=(), next=_search(hole, step + 1))
        kept = [trade for trade in found if hole.holds(trade)]
        more = None
        if len(found) >= _MAX_TRADES and not hole.ends_with(found[-1]):
            last_ns = int(result["last"])
            if last_ns > since_ns:
                more = _trades(hole, last_ns, None)
        return Page(items=kept, next=more)

    return RestCall(request=request, parse=checked(read, venue=VENUE))


def _read_trade(row: Any, name: str, received_ns: int) -> Trade:
    """Read a row of price, volume, time in s, b or s, m or l, miscellaneous, and trade id."""
    return Trade(
        venue=VENUE,
        instrument=name,
        venue_time_ns=_nanoseconds(row[2]),
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        id=str(integer(row[6])),
        price=decimal_text(row[0]),
        size=decimal_text(row[1]),
        aggressor=_SIDES[row[3]],
    )


def _nanoseconds(seconds: Any) -> int:
    """Return seconds, a number's text or an integer, in ns."""
    whole, _, fraction = str(seconds).partition(".")
    return int(whole) * _SECOND_NS + int(fraction[:9].ljust(9, "0"))
