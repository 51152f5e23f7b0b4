"""Gate's REST dialect (API v4): instruments, book snapshots, candles and missed trades.

https://www.gate.com/docs/developers/apiv4/en/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

from pricefeedd.codec import integer, row_list
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
from pricefeedd_gateio.codec import (
    SIZE_HEADERS,
    UPDATE_DEPTHS,
    VENUE,
    any_time_ns,
    plain,
    read_futures_trade,
    read_levels,
    read_spot_trade,
    spot_volume,
)
from pricefeedd_gateio.listing import read_contracts, read_pairs

T = TypeVar("T")

_NS = 1_000_000_000
_MINUTE_S = 60

#: Rows in one reply of candlesticks. Spot gives 1000, futures are said to give 2000 and were seen to refuse more
#: than 1000.
_MAX_CANDLES = 999
_MAX_TRADES = 1000
#: A hole is searched through this many pages at most.
_MAX_TRADE_PAGES = 20

#: A row of futures candles has no flag for its end. This much after its close it is final.
_FINAL_AFTER_NS = 2 * _NS

#: The reset time of a rate limit is believed within these bounds, because its unit is not documented.
_RESET_S = (1.0, 15.0)

_TOO_MANY = frozenset({"TOO_MANY_REQUESTS", "TOO_BUSY"})
_VENUE_FAULTS = frozenset({"SERVER_ERROR", "INTERNAL"})


def budget_of(market: str, what: str) -> str:
    """Return the name of the rate budget of an endpoint; those of futures are one for all settle currencies."""
    return f"{'spot' if market == 'spot' else 'futures'}-{what}"


#: Each of these has a rate limit of its own.
BUDGETS = tuple(
    budget_of(market, what)
    for market, listing in (("spot", "currency_pairs"), ("linear", "contracts"))
    for what in (listing, "order_book", "candlesticks", "trades")
)


class GateioRest:
    """Speaks REST with all markets.

    Attributes:
        book_depth: Levels per side of the stream that a snapshot is for. A snapshot of another depth is
            kept by the venue for long, and does not join.
        usd1: Whether the contracts that are settled in USD1 are listed among the linear ones.
    """

    def __init__(self, book_depth: int = 400, *, usd1: bool = False) -> None:
        self.book_depth = book_depth
        self.usd1 = usd1

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all pairs or contracts; without a limit they come in one reply."""
        if market == "spot":
            return RestCall(
                request=_request("spot", "/spot", "currency_pairs", {}),
                parse=lambda reply: Page(items=read_pairs(reply.json())),
            )
        if market == "inverse":
            return _contracts(market, "btc", None)
        return _contracts(market, "usdt", _contracts(market, "usd1", None) if self.usd1 else None)

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot]:
        """Ask for a snapshot with its number."""
        limit = self.book_depth if self.book_depth in UPDATE_DEPTHS else max(UPDATE_DEPTHS)
        request = _ask(instrument, "order_book", {"limit": limit, "with_id": "true"})
        return RestCall(request=request, parse=checked(partial(_read_book, instrument), venue=VENUE))

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes, oldest first, in as many pages as it takes."""
        minute_ns = _MINUTE_S * _NS
        start_s = -(-start_ns // minute_ns) * _MINUTE_S
        return _candles(instrument, start_s, max(start_s, end_ns // minute_ns * _MINUTE_S))

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade]:
        """Ask for the trades between two times, and keep those strictly between the ids where there are any."""
        hole = TradeHole.between(
            instrument, after_id=after_id, before_id=before_id, from_ns=from_ns, to_ns=to_ns
        )
        return _trades(hole, 0, ())

    def examine(self, reply: HttpReply) -> RateSignal:
        """Return what the answer tells of its endpoint's rate limit, or raise what it stands for.

        Raises:
            RateLimitedError: 429: nothing is sent until the limit is reset.
            SubscriptionRejectedError: The symbol does not exist, or the request is wrong.
            ConnectError: This address is not served (403, 451).
            VenueError: A fault on the venue's side.
        """
        if not 200 <= reply.status < 300 or reply.body[:9] == b'{"label":':
            _fail(reply)
        headers = reply.headers
        try:
            limit = float(headers["x-gate-ratelimit-limit"])
            left = float(headers["x-gate-ratelimit-requests-remain"])
        except (KeyError, ValueError):
            return RateSignal()
        return RateSignal(used=max(0.0, limit - left), reset_after_s=_reset_s(reply))


def _reset_s(reply: HttpReply) -> float | None:
    """Return the seconds until a rate limit is reset, of which the header tells the Unix time."""
    try:
        reset_ns = any_time_ns(reply.headers["x-gate-ratelimit-reset-timestamp"])
    except (KeyError, ValueError):
        return None
    least, most = _RESET_S
    return min(max((reset_ns - reply.received_ns) / _NS, least), most)


def _fail(reply: HttpReply) -> NoReturn:
    label, text = _fault(reply)
    what = f"HTTP {reply.status}: {text}"
    if label in _TOO_MANY or reply.status == 429:
        wait_s = retry_after_s(reply.headers)  # not documented, but whoever sends it means it
        wait_s = _reset_s(reply) if wait_s is None else wait_s
        raise RateLimitedError(what, venue=VENUE, retry_after_s=_RESET_S[1] if wait_s is None else wait_s)
    if label in _VENUE_FAULTS:
        raise VenueError(what, venue=VENUE)
    raise_for_status(reply, venue=VENUE)
    # An error inside of a 200.
    raise SubscriptionRejectedError(what, venue=VENUE)


def _fault(reply: HttpReply) -> tuple[str, str]:
    """Return label and message of an error reply; firewalls answer with HTML and have no label."""
    try:
        body = reply.json()
        return str(body["label"]), f"{body.get('message') or body.get('detail') or ''} ({body['label']})"
    except (DecodeError, KeyError, TypeError, AttributeError):
        return "", reply.body[:200].decode("utf-8", "replace")


def _request(market: str, prefix: str, what: str, params: Mapping[str, str | int]) -> HttpRequest:
    return HttpRequest(
        endpoint=f"{market}_rest",
        path=f"{prefix}/{what}",
        params=params,
        headers={} if market == "spot" else SIZE_HEADERS,
        budget=budget_of(market, what),
    )


def _ask(instrument: Instrument, what: str, params: Mapping[str, str | int]) -> HttpRequest:
    """Return a request about one instrument."""
    if instrument.market == "spot":
        return _request("spot", "/spot", what, {"currency_pair": instrument.rest_symbol, **params})
    settle = instrument.settle.lower() or ("btc" if instrument.market == "inverse" else "usdt")
    params = {"contract": instrument.rest_symbol, **params}
    return _request(instrument.market, f"/futures/{settle}", what, params)


def _contracts(market: str, settle: str, more: RestCall[Instrument] | None) -> RestCall[Instrument]:
    return RestCall(
        request=_request(market, f"/futures/{settle}", "contracts", {}),
        parse=lambda reply: Page(items=read_contracts(market, settle, reply.json()), next=more),
    )


# --- Book -------------------------------------------------------------------------------------------------


def _read_book(instrument: Instrument, reply: HttpReply) -> Page[BookSnapshot]:
    body = reply.json()
    number, changed = integer(body["id"]), body.get("update")
    bids, asks = read_levels(body["bids"], body["asks"])
    snapshot = BookSnapshot(
        venue=VENUE,
        instrument=instrument.name,
        venue_time_ns=None if changed is None else any_time_ns(changed),
        received_ns=reply.received_ns,
        bids=bids,
        asks=asks,
        sequence=number,
    )
    return Page(items=(snapshot,))


# --- Candles ----------------------------------------------------------------------------------------------


def _candles(instrument: Instrument, start_s: int, end_s: int) -> RestCall[Candle]:
    """Ask for the minutes that open in [start_s, end_s], one page at a time.

    A limit beside `from` and `to` is refused, so the window alone says how many rows come.
    """
    last_s = min(end_s, start_s + (_MAX_CANDLES - 1) * _MINUTE_S)
    request = _ask(instrument, "candlesticks", {"interval": "1m", "from": start_s, "to": last_s})
    read_row = _read_spot_candle if instrument.market == "spot" else _read_futures_candle

    def read(reply: HttpReply) -> Page[Candle]:
        rows = [read_row(row, instrument, reply.received_ns) for row in row_list(reply.json())]
        wanted = [row for row in rows if start_s * _NS <= row.start_ns <= last_s * _NS]
        # The pages go by time, not by rows: minutes that the venue leaves out must not end the search.
        more = _candles(instrument, last_s + _MINUTE_S, end_s) if last_s < end_s else None
        return Page(items=wanted, next=more)

    return RestCall(request=request, parse=checked(read, venue=VENUE))


def _over(start_ns: int, received_ns: int) -> bool:
    return start_ns + _MINUTE_S * _NS + _FINAL_AFTER_NS <= received_ns


def _read_spot_candle(row: Any, instrument: Instrument, received_ns: int) -> Candle:
    """Read a row: time, quote volume, close, high, low, open, base volume, whether it is closed.

    The flag and the base volume are each missing in some forms of it.
    """
    start_ns = any_time_ns(row[0])
    turnover = plain(row[1])
    flagged = row[-1] in ("true", "false")
    volume = row[6] if len(row) > 6 + flagged else None
    return Candle(
        venue=VENUE,
        instrument=instrument.name,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        start_ns=start_ns,
        open=plain(row[5]),
        high=plain(row[3]),
        low=plain(row[4]),
        close=plain(row[2]),
        volume=spot_volume(volume, turnover),
        turnover=turnover,
        closed=row[-1] == "true" if flagged else _over(start_ns, received_ns),
    )


def _read_futures_candle(row: Any, instrument: Instrument, received_ns: int) -> Candle:
    start_ns = any_time_ns(row["t"])
    turnover = row.get("sum")
    return Candle(
        venue=VENUE,
        instrument=instrument.name,
        received_ns=received_ns,
        origin=Origin.BACKFILL,
        start_ns=start_ns,
        open=plain(row["o"]),
        high=plain(row["h"]),
        low=plain(row["l"]),
        close=plain(row["c"]),
        volume=plain(row["v"]),
        # In the quote currency, which is not what turnover means on an inverse contract.
        turnover=None if turnover is None or instrument.market == "inverse" else plain(turnover),
        closed=_over(start_ns, received_ns),
    )


# --- Trades -----------------------------------------------------------------------------------------------


def _trades(hole: TradeHole, page: int, found: Sequence[Trade]) -> RestCall[Trade]:
    """Ask for one page of a hole; pages begin with the newest trade.

    All pages are handed over with the last one, so that trades come oldest first. That the ids may be asked
    for by themselves is documented as a thing of the past.
    """
    instrument = hole.instrument
    spot = instrument.market == "spot"
    # Whole seconds, one more on each side: our clock marked the hole, and the venue's marks the trades.
    window = {
        "limit": _MAX_TRADES,
        "from": hole.from_ns // _NS - 1,
        "to": -(-hole.to_ns // _NS) + 1,
    }
    place = {"page": page + 1} if spot else {"offset": page * _MAX_TRADES}
    request = _ask(instrument, "trades", {**window, **place})

    def read(reply: HttpReply) -> Page[Trade]:
        rows = row_list(reply.json())
        trades = [_read_trade(row, instrument, reply.received_ns) for row in rows]
        known = {trade.id for trade in found}
        # The pages move while trades are made: what the last one ended with, this one may begin with.
        kept = [t for t in trades if t is not None and t.id not in known and hole.holds(t)]
        kept = sorted((*found, *kept), key=lambda trade: int(trade.id or 0))
        if len(rows) >= _MAX_TRADES and page + 1 < _MAX_TRADE_PAGES and not _reached(hole, trades):
            return Page(items=(), next=_trades(hole, page + 1, kept))
        return Page(items=kept)

    return RestCall(request=request, parse=checked(read, venue=VENUE))


def _read_trade(row: Any, instrument: Instrument, received_ns: int) -> Trade | None:
    if instrument.market == "spot":
        trade_id = row.get("sequence_id")
        trade: Trade | None = read_spot_trade(
            row, row["id"] if trade_id is None else trade_id, instrument.name, received_ns
        )
    else:
        trade = read_futures_trade(row, instrument.name, received_ns)
    if trade is not None:
        trade.origin = Origin.BACKFILL  # not shared with anybody yet
    return trade


def _reached(hole: TradeHole, trades: Sequence[Trade | None]) -> bool:
    """Return whether a page went back beyond the hole's first trade."""
    return hole.after is not None and any(int(t.id or 0) <= hole.after for t in trades if t is not None)
