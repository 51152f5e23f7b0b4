"""Binance's stream dialect: combined frames of spot, USDⓈ-M and COIN-M streams to events.

Only the combined form (`{"stream": ..., "data": ...}`) is spoken: in the raw form spot quotes name no event type
and a futures snapshot of the top levels looks like a delta.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams
https://developers.binance.com/docs/derivatives/coin-margined-futures/websocket-market-streams
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from pricefeedd.codec import (
    BAD_DATA,
    Accepted,
    BaseCodec,
    Closing,
    Failed,
    Frame,
    Refused,
    Signal,
    Stream,
    ns_of_ms,
)
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, Candle, Event, Liquidation, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.venue import Account, Feed

VENUE = "binance"

#: Names of this module, because looking things up on other modules and on enums is felt at this rate.
_loads = orjson.loads
_BUY = Side.BUY
_SELL = Side.SELL
_SIDES = {"BUY": _BUY, "SELL": _SELL}

_NS_PER_MS = 1_000_000

#: `@markPrice@1s` is pushed on a clock, trades or no trades; a healthy one is never this late. Every other
#: stream is pushed only when something changes, and may rightly be silent for hours.
_MARK_PRICE_OWES_S = 15.0

#: On futures each kind of stream is served on one route only. On the other one it is acknowledged and silent.
_ROUTES = {
    "book": "public",
    "quote": "public",
    "trade": "market",
    "candle_1m": "market",
    "ticker": "market",
    "liquidation": "market",
}

_SUFFIXES = {
    "trade": ("aggTrade",),
    "quote": ("bookTicker",),
    "candle_1m": ("kline_1m",),
    "liquidation": ("forceOrder",),
}

#: The paces of the delta stream, by market and by what was wished for, ms.
_DEPTH = {
    "spot": {100: "depth@100ms", 250: "depth", 500: "depth", 1000: "depth"},
    "futures": {100: "depth@100ms", 250: "depth", 500: "depth@500ms", 1000: "depth@500ms"},
}

#: All that a price or a size is written with.
_DECIMAL = b"0123456789."

Reader = Callable[[Any, Feed, Mapping[str, str], int], Sequence[Event | Signal]]


class BinanceCodec(BaseCodec):
    """Speaks the streams of all three markets; the feed says which.

    Attributes:
        book_interval_ms: Pace wished for of the order book's deltas: 100, 250, 500 or 1000. Spot offers 100
            and 1000, futures 100, 250 and 500; the next slower one is taken, or the slowest.
    """

    def __init__(self, book_interval_ms: int = 100) -> None:
        self.book_interval_ms = book_interval_ms

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the streams of a channel; two for a futures ticker, whose mark price comes apart."""
        spot = instrument.market == "spot"
        if channel not in _ROUTES or (spot and channel == "liquidation"):
            return ()
        feed = "spot" if spot else f"{instrument.market}-{_ROUTES[channel]}"
        # Stream names must be lower case, though payloads are upper case; some symbols are not ASCII.
        symbol = instrument.symbol.lower()
        if channel == "ticker":
            ticker = Stream(feed=feed, name=f"{symbol}@ticker")
            if spot:
                return (ticker,)
            mark = Stream(feed=feed, name=f"{symbol}@markPrice@1s", owes_within_s=_MARK_PRICE_OWES_S)
            return (ticker, mark)
        if channel == "book":
            suffixes: tuple[str, ...] = (_DEPTH["spot" if spot else "futures"][self.book_interval_ms],)
        else:
            suffixes = _SUFFIXES[channel]
        return tuple(Stream(feed=feed, name=f"{symbol}@{suffix}") for suffix in suffixes)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return a SUBSCRIBE frame; it is answered once, not once per stream."""
        return _request("SUBSCRIBE", streams, request_id)

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return an UNSUBSCRIBE frame."""
        return _request("UNSUBSCRIBE", streams, request_id)

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says. Symbols and streams that we do not know are passed over.

        Raises:
            DecodeError: The frame is not JSON, or lacks what the pages above promise.
        """
        try:
            message = _loads(frame)
            if "stream" in message:
                stream = message["stream"]
                read = _READERS.get(stream.partition("@")[2] or stream)
                return () if read is None else read(message["data"], feed, names, received_ns)
            return _control(message)
        except BAD_DATA as e:
            raise DecodeError(f"bad frame {frame[:120]!r} ({e!r})", venue=VENUE) from e


def _request(method: str, streams: Sequence[Stream], request_id: int) -> str:
    body = {"method": method, "params": [stream.name for stream in streams], "id": request_id}
    return orjson.dumps(body).decode()


def _control(message: Any) -> Sequence[Event | Signal]:
    """Read a frame that is not combined data: a reply to a request, or a raw event."""
    request_id = message.get("id")
    if type(request_id) is not int:
        request_id = None
    # Errors are documented at the top level and were seen inside `error` as well.
    fault = message.get("error") or (message if "code" in message else None)
    if fault is not None:
        reason = f"{fault['msg']} (code {fault['code']})"
        if request_id is None:
            return (Failed(reason),)
        return (Refused(reason=reason, request_id=request_id),)
    if "result" in message:
        # A list answers LIST_SUBSCRIPTIONS, which we do not send.
        if message["result"] is None and request_id is not None:
            return (Accepted(request_id=request_id),)
        return ()
    if message["e"] == "serverShutdown":
        return (Closing("serverShutdown"),)
    return ()


def _shutdown(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Signal]:
    return (Closing("serverShutdown"),)


# --- Readers, one per kind of stream ----------------------------------------------------------------------
# They check types because JSON of the wrong shape must end here: a text times 1 000 000 is 13 MB.


def _decimals(*texts: Any) -> None:
    """Require plain decimal texts without a sign."""
    for text in texts:
        if not text.replace(".", "", 1).isdecimal():
            raise ValueError(f"not a decimal text: {text!r}")


# Trades and quotes are most of what comes. To call a class with keywords costs 0.57 µs on Python 3.11, to make
# the object and call its __init__ 0.32 µs.
_new = object.__new__


def read_trade(row: Any, name: str, received_ns: int) -> Trade:
    """Return the trade in an `aggTrade` payload; REST rows have the same keys.

    An aggregate is what one order took at one price and time, and `a` counts by one per symbol.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not one.
    """
    trade_id = row["a"]
    time_ms = row["T"]
    price = row["p"]
    size = row["q"]
    maker_bought = row["m"]
    if type(trade_id) is not int or type(time_ms) is not int or type(maker_bought) is not bool:
        raise TypeError("a, T or m has the wrong type")
    if not (price.replace(".", "", 1).isdecimal() and size.replace(".", "", 1).isdecimal()):
        raise ValueError(f"not decimal texts: {price!r}, {size!r}")
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=time_ms * _NS_PER_MS,
        received_ns=received_ns,
        id=str(trade_id),
        price=price,
        size=size,
        # `m` is true when the buyer was the maker, so the taker sold.
        aggressor=_SELL if maker_bought else _BUY,
    )
    return trade


def _trade(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data["s"])
    return () if name is None else (read_trade(data, name, received_ns),)


def _quote(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data["s"])
    if name is None:
        return ()
    bid_price, bid_size, ask_price, ask_size = data["b"], data["B"], data["a"], data["A"]
    if not (
        bid_price.replace(".", "", 1).isdecimal()
        and bid_size.replace(".", "", 1).isdecimal()
        and ask_price.replace(".", "", 1).isdecimal()
        and ask_size.replace(".", "", 1).isdecimal()
    ):
        raise ValueError(f"not decimal texts: {bid_price!r}, {bid_size!r}, {ask_price!r}, {ask_size!r}")
    sequence = data["u"]
    if type(sequence) is not int:
        raise TypeError(f"not an update id: {sequence!r}")
    # Spot sends neither event type nor time here.
    time_ms = data.get("T")
    if bid_size[0] == "0" and not bid_size.strip("0."):
        bid_price = bid_size = None
    if ask_size[0] == "0" and not ask_size.strip("0."):
        ask_price = ask_size = None
    quote = _new(Quote)
    quote.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=None if time_ms is None else ns_of_ms(time_ms),
        received_ns=received_ns,
        bid_price=bid_price,
        bid_size=bid_size,
        ask_price=ask_price,
        ask_size=ask_size,
        sequence=sequence,
    )
    return (quote,)


def _ticker(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data["s"])
    if name is None:
        return ()
    last, opening, high, low = data["c"], data["o"], data["h"], data["l"]
    volume, turnover = data["v"], data["q"]
    _decimals(last, opening, high, low, volume, turnover)
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=ns_of_ms(data["E"]),
            received_ns=received_ns,
            last=last,
            open_24h=opening,
            high_24h=high,
            low_24h=low,
            volume_24h=volume,
            turnover_24h=turnover,
            partial=feed.market != "spot",  # on futures the mark price comes by another stream
        ),
    )


def _mark_price(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data["s"])
    if name is None:
        return ()
    mark, index, rate, next_funding = data["p"], data["i"], data["r"], data["T"]
    # Dated contracts have no funding: "" and 0 stand for nothing.
    _decimals(mark, index or "0", rate.removeprefix("-") or "0")
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=ns_of_ms(data["E"]),
            received_ns=received_ns,
            mark_price=mark,
            index_price=index or None,
            funding_rate=rate or None,
            next_funding_ns=ns_of_ms(next_funding) or None,
            partial=True,
        ),
    )


def _candle(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data["s"])
    if name is None:
        return ()
    k = data["k"]
    opening, high, low, close, volume, turnover = k["o"], k["h"], k["l"], k["c"], k["v"], k["q"]
    _decimals(opening, high, low, close, volume, turnover)
    trades, closed = k["n"], k["x"]
    if type(trades) is not int or type(closed) is not bool:
        raise TypeError("n or x has the wrong type")
    return (
        Candle(
            venue=VENUE,
            instrument=name,
            venue_time_ns=ns_of_ms(data["E"]),
            received_ns=received_ns,
            start_ns=ns_of_ms(k["t"]),
            open=opening,
            high=high,
            low=low,
            close=close,
            volume=volume,
            turnover=turnover,
            trades=trades,
            closed=closed,
        ),
    )


def check_levels(bids: Any, asks: Any) -> None:
    """Require two lists of pairs of decimal texts, as the sides of a book are.

    All texts are checked at once: one by one that costs more than parsing the frame.

    Raises:
        TypeError, ValueError: They are not.
    """
    if type(bids) is not list or type(asks) is not list:
        raise TypeError("the levels are not lists")
    rows = bids + asks
    # The unpacking requires pairs, the join requires texts.
    texts = [price + size for price, size in rows if price and size]
    if len(texts) != len(rows) or "".join(texts).encode().translate(None, _DECIMAL):
        raise ValueError("the levels are not pairs of decimal texts")


def _book(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data["s"])
    if name is None:
        return ()
    first, last, previous = data["U"], data["u"], data.get("pu")
    if (
        type(first) is not int
        or type(last) is not int
        or (previous is not None and type(previous) is not int)
    ):
        raise TypeError("U, u or pu is not an update id")
    bids, asks = data["b"], data["a"]
    check_levels(bids, asks)
    time_ms = data.get("T")
    return (
        BookDelta(
            venue=VENUE,
            instrument=name,
            venue_time_ns=ns_of_ms(data["E"] if time_ms is None else time_ms),
            received_ns=received_ns,
            bids=bids,
            asks=asks,
            sequence=last,
            first_sequence=first,
            previous_sequence=previous,
        ),
    )


def _liquidation(data: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read a `forceOrder`: at most one a second is pushed for a symbol, the latest.

    https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/Liquidation-Order-Streams
    """
    order = data["o"]
    name = names.get(order["s"])
    if name is None:
        return ()
    price, size = order["p"], order["q"]
    _decimals(price, size)
    return (
        Liquidation(
            venue=VENUE,
            instrument=name,
            venue_time_ns=ns_of_ms(order["T"]),
            received_ns=received_ns,
            price=price,
            size=size,
            side=_SIDES[order["S"]],
        ),
    )


#: By what stands behind the first `@` of a stream's name. The name decides, not the event type: the top-N
#: stream of futures sends `depthUpdate` as well.
_READERS: dict[str, Reader] = {
    "aggTrade": _trade,
    "bookTicker": _quote,
    "ticker": _ticker,
    "markPrice@1s": _mark_price,
    "kline_1m": _candle,
    "depth@100ms": _book,
    "depth": _book,
    "depth@500ms": _book,
    "forceOrder": _liquidation,
    "!serverShutdown": _shutdown,
}
