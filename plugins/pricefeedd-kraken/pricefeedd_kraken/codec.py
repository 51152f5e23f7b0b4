"""Kraken's stream dialect, WebSocket v2: spot frames to events.

Numbers are JSON numbers whose trailing zeros count (book checksums are computed over them), so their texts are
kept. Streams are named `channel:symbol` here, such as `book:BTC/USD`; the venue itself has no single word for them.

https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, Literal

import msgspec
import orjson

from pricefeedd.codec import (
    BAD_DATA,
    Accepted,
    BaseCodec,
    Closing,
    Frame,
    Refused,
    Signal,
    Stream,
    plain_decimal,
)
from pricefeedd.errors import DecodeError
from pricefeedd.events import LIVE, BookDelta, BookSnapshot, Candle, Event, Origin, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.venue import Account, Feed

VENUE = "kraken"

#: Depths that the book channel offers.
DEPTHS = (10, 25, 100, 500, 1000)

_EXPONENT = re.compile(rb"\d[eE][+-]?\d")

#: Comes once a second on each connection that has a subscription.
_HEARTBEAT = b'{"channel":"heartbeat"}'

#: Our channels by Kraken's; a `ticker` frame holds the best bid and offer as well.
_CHANNELS = {"trade": "trade", "quote": "ticker", "ticker": "ticker", "candle_1m": "ohlc", "book": "book"}

#: A refusal names the symbol and the number of the request, but not the channel: the channel travels in the
#: number's last digit.
_CHANNEL_DIGITS = {"trade": 1, "ticker": 2, "ohlc": 3, "book": 4}
_CHANNELS_BY_DIGIT = {digit: channel for channel, digit in _CHANNEL_DIGITS.items()}

#: Nanoseconds in the last of so many digits behind the point.
_SCALE = tuple(10 ** (9 - digits) for digits in range(10))

_SIDES = {"buy": Side.BUY, "sell": Side.SELL}

#: All that a price or a size is written with.
_DECIMAL = b"0123456789."

#: What `decode` may meet in bytes that are not what the venue documents.
_BAD_FRAME: tuple[type[Exception], ...] = (msgspec.MsgspecError, *BAD_DATA)

# To call a class with keywords costs 0.57 µs on Python 3.11, to make the object and call its __init__ 0.32 µs.
_new = object.__new__


# --- Frames with data, as they are documented -------------------------------------------------------------
# Numbers are `Any`: the decoder's hook keeps the text of those with a point, whole ones become integers.


class _TradeRow(msgspec.Struct, gc=False):
    symbol: str
    side: str
    price: Any
    qty: Any
    trade_id: int
    timestamp: str


class _Trades(msgspec.Struct, gc=False, tag_field="channel", tag="trade"):
    type: Literal["snapshot", "update"]
    data: list[_TradeRow]


class _TickerRow(msgspec.Struct, gc=False):
    symbol: str
    bid: Any
    bid_qty: Any
    ask: Any
    ask_qty: Any
    last: Any
    high: Any
    low: Any
    volume: Any
    timestamp: str | None = None  # newer than the channel itself


class _Tickers(msgspec.Struct, gc=False, tag_field="channel", tag="ticker"):
    type: Literal["snapshot", "update"]
    data: list[_TickerRow]


class _CandleRow(msgspec.Struct, gc=False):
    symbol: str
    open: Any
    high: Any
    low: Any
    close: Any
    volume: Any
    trades: int
    interval_begin: str  # the minute's identity; `timestamp` is its end, and deprecated
    interval: int


class _Candles(msgspec.Struct, gc=False, tag_field="channel", tag="ohlc"):
    type: Literal["snapshot", "update"]
    data: list[_CandleRow]
    timestamp: str | None = None


class _Level(msgspec.Struct, gc=False):
    price: Any
    qty: Any


class _BookRow(msgspec.Struct, gc=False):
    symbol: str
    bids: list[_Level]
    asks: list[_Level]
    checksum: int
    timestamp: str | None = None  # snapshots of 2024 had none


class _Books(msgspec.Struct, gc=False, tag_field="channel", tag="book"):
    type: Literal["snapshot", "update"]
    data: list[_BookRow]


_Data = _Trades | _Tickers | _Candles | _Books

#: `str` leaves the text of a number as it is.
_decode = msgspec.json.Decoder(_Data, float_hook=str).decode
#: For the rare frame that writes a number with an exponent.
_decode_exponents = msgspec.json.Decoder(_Data, float_hook=plain_decimal).decode


class KrakenCodec(BaseCodec):
    """Speaks the public channels of WebSocket v2.

    Attributes:
        book_depth: Levels per side of the books: one of `DEPTHS`.
    """

    def __init__(self, book_depth: int = 100) -> None:
        self.book_depth = book_depth

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the stream of a channel; quote and ticker share one."""
        theirs = _CHANNELS.get(channel)
        if theirs is None:
            return ()
        # No stream owes us anything: even a busy pair's book was seen silent for 26 s.
        return (Stream(feed="spot", name=f"{theirs}:{instrument.symbol}", group=theirs),)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return a subscribe frame; it is answered once for each symbol in it."""
        return self._request("subscribe", streams, request_id, {"snapshot": True})

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return an unsubscribe frame; it must repeat the depth, interval or trigger."""
        return self._request("unsubscribe", streams, request_id, {})

    def _request(self, method: str, streams: Sequence[Stream], request_id: int, more: dict[str, Any]) -> str:
        channel = streams[0].group
        params: dict[str, Any] = {
            "channel": channel,
            "symbol": [stream.name.partition(":")[2] for stream in streams],
        }
        if channel == "book":
            params["depth"] = self.book_depth
        elif channel == "ohlc":
            params["interval"] = 1
        elif channel == "ticker":
            # The default, `trades`, leaves quotes old on a pair that trades rarely.
            params["event_trigger"] = "bbo"
        number = request_id * 10 + _CHANNEL_DIGITS[channel]
        return orjson.dumps({"method": method, "params": params | more, "req_id": number}).decode()

    def ping(self, feed: Feed, *, now_ns: int) -> Frame:
        """Return the application's ping, which needs no subscription to be answered."""
        return '{"method":"ping"}'

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says. Symbols and channels that we do not know are passed over.

        A snapshot proves its subscription as an ack does, and is told as one besides.

        Raises:
            DecodeError: The frame is not JSON, or lacks what the pages above promise.
        """
        if frame == _HEARTBEAT:
            return ()
        try:
            try:
                message = _decode(frame)
            except msgspec.ValidationError as e:
                return _other(frame, e)
            # Quoted numbers are not documented, and would not be looked at again.
            if b'"price":"' in frame or b'"qty":"' in frame:
                raise ValueError("a number is quoted")
            return _READERS[type(message)](message, names, received_ns)
        except _BAD_FRAME as e:
            problem: Exception = e
        if frame[:10].lower() == b"cloudflare":
            # "CloudFlare WebSocket proxy restarting": plain text, seen before a close.
            return (Closing(frame[:200].decode("utf-8", "replace")),)
        if _EXPONENT.search(frame):
            try:
                message = _decode_exponents(frame)
                return _READERS[type(message)](message, names, received_ns)
            except _BAD_FRAME as e:
                problem = e
        raise DecodeError(f"bad frame {frame[:120]!r} ({problem!r})", venue=VENUE) from problem


def _other(frame: bytes, problem: Exception) -> Sequence[Signal]:
    """Read a frame that is none of those with data: an answer, or a channel that we do not know."""
    message = orjson.loads(frame)
    channel = message.get("channel")
    if channel is None:
        return _answer(message)
    if channel in _CHANNEL_DIGITS:
        raise problem
    return ()


# --- Answers ----------------------------------------------------------------------------------------------


def _answer(message: Any) -> Sequence[Signal]:
    """Read the answer to a request of ours."""
    method = message.get("method")
    if method == "subscribe":
        if message["success"] is True:
            result = message["result"]
            symbol = result.get("symbol")
            return () if symbol is None else (Accepted(streams=(_name(result["channel"], symbol),)),)
        return _refusal(message["error"], message.get("req_id"), message.get("symbol"))
    if method is not None:
        # Pongs, and answers to what was ended: nothing waits for them.
        return ()
    # The old form of the rate error has a capital E and no method.
    error = message.get("Error") or message["error"]
    return _refusal(error, message.get("req_id"), message.get("symbol"))


def _refusal(error: Any, number: Any, symbol: Any) -> Sequence[Signal]:
    if type(error) is not str:
        raise TypeError("the error is not a text")
    words = error.lower()
    if "msg rate" in words:
        # The request is lost, not refused; it goes out again when its ack does not come in time.
        return ()
    request_id: int | None = None
    streams: tuple[str, ...] = ()
    if type(number) is int:
        request_id, digit = divmod(number, 10)
        channel = _CHANNELS_BY_DIGIT.get(digit)
        if channel is None:
            request_id = None
        elif symbol is not None:
            streams = (_name(channel, symbol),)
    if streams and words.startswith("already subscribed"):
        return (Accepted(streams=streams),)
    return (Refused(reason=error, request_id=request_id, streams=streams),)


def _name(channel: Any, symbol: Any) -> str:
    if type(channel) is not str or type(symbol) is not str:
        raise TypeError("channel or symbol is not a text")
    return f"{channel}:{symbol}"


# --- Readers, one per channel -----------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _second_ns(text: str) -> int:
    """Return the time of `2024-05-27T12:43:11`; many frames of a second ask for the same one."""
    when = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int(when.timestamp()) * 1_000_000_000


def read_time(text: Any) -> int:
    """Return an RFC 3339 time in UTC, `2024-05-27T12:43:11.798009Z`, in ns since the Unix epoch.

    Raises:
        ValueError, TypeError, IndexError: It is not one.
    """
    digits = text[20:-1]
    if text[-1] != "Z" or text[19] not in ".Z" or len(digits) > 9 or not (digits or "0").isdecimal():
        raise ValueError(f"not a time: {text!r}")
    return _second_ns(text[:19]) + (int(digits) * _SCALE[len(digits)] if digits else 0)


def _number(value: Any) -> str:
    """Return a number's text; the decoder leaves whole numbers as integers."""
    text = str(value) if type(value) is int else value
    if not text.replace(".", "", 1).isdecimal():
        raise ValueError(f"not a decimal number: {value!r}")
    return str(text)


def _proof(channel: str, symbols: Iterable[str]) -> list[Event | Signal]:
    """Return the proof that these subscriptions hold, whose acks may be lost or late."""
    return [Accepted(streams=tuple(f"{channel}:{symbol}" for symbol in dict.fromkeys(symbols)))]


def _trades(message: _Trades, names: Mapping[str, str], received_ns: int) -> Sequence[Event | Signal]:
    rows = message.data
    if message.type == "update":
        return [
            _trade(row, name, received_ns, LIVE)
            for row in rows
            if (name := names.get(row.symbol)) is not None
        ]
    # The last 50 trades, some of which may be known: they fill a short hole without REST.
    known = sorted((row for row in rows if row.symbol in names), key=attrgetter("trade_id"))
    if not known:
        return ()
    return _proof("trade", [row.symbol for row in known]) + [
        _trade(row, names[row.symbol], received_ns, Origin.BACKFILL) for row in known
    ]


def _trade(row: _TradeRow, name: str, received_ns: int, origin: Origin) -> Trade:
    price, size = row.price, row.qty
    if type(price) is not str or not price.replace(".", "", 1).isdecimal():
        price = _number(price)
    if type(size) is not str or not size.replace(".", "", 1).isdecimal():
        size = _number(size)
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=read_time(row.timestamp),
        received_ns=received_ns,
        origin=origin,
        id=str(row.trade_id),
        price=price,
        size=size,
        aggressor=_SIDES[row.side],
    )
    return trade


def _tickers(message: _Tickers, names: Mapping[str, str], received_ns: int) -> Sequence[Event | Signal]:
    found: list[Event | Signal] = []
    for row in message.data:
        name = names.get(row.symbol)
        if name is None:
            continue
        if message.type == "snapshot":
            found += _proof("ticker", [row.symbol])
        bid, bid_size, ask, ask_size = row.bid, row.bid_qty, row.ask, row.ask_qty
        last, high, low, volume = row.last, row.high, row.low, row.volume
        time_ns = None if row.timestamp is None else read_time(row.timestamp) or None
        try:
            texts = bid + bid_size + ask + ask_size + last + high + low + volume
            good = not texts.encode().translate(None, _DECIMAL)
        except TypeError:
            good = False
        if not good:
            # A whole number is no text yet.
            bid, bid_size, ask, ask_size = _number(bid), _number(bid_size), _number(ask), _number(ask_size)
            last, high, low, volume = _number(last), _number(high), _number(low), _number(volume)
        # An empty side is sent as zeros.
        if bid_size[0] == "0" and not bid_size.strip("0."):
            bid = bid_size = None
        if ask_size[0] == "0" and not ask_size.strip("0."):
            ask = ask_size = None
        quote = _new(Quote)
        quote.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=time_ns,
            received_ns=received_ns,
            bid_price=bid,
            bid_size=bid_size,
            ask_price=ask,
            ask_size=ask_size,
        )
        ticker = _new(Ticker)
        ticker.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=time_ns,
            received_ns=received_ns,
            last=last,
            high_24h=high,
            low_24h=low,
            volume_24h=volume,
        )
        found += (quote, ticker)
    return found


def _candles(message: _Candles, names: Mapping[str, str], received_ns: int) -> Sequence[Event | Signal]:
    rows = [row for row in message.data if row.interval == 1 and row.symbol in names]
    time_ns = None if message.timestamp is None else read_time(message.timestamp)
    if message.type == "update":
        return [_candle(row, names[row.symbol], time_ns, received_ns, closed=False) for row in rows]
    if not rows:
        return ()
    # There is no flag. A minute behind which another follows is over; the last one may run still.
    rows.sort(key=attrgetter("interval_begin"))
    last = {row.symbol: row.interval_begin for row in rows}
    return _proof("ohlc", [row.symbol for row in rows]) + [
        _candle(row, names[row.symbol], time_ns, received_ns, closed=row.interval_begin < last[row.symbol])
        for row in rows
    ]


def _candle(row: _CandleRow, name: str, time_ns: int | None, received_ns: int, *, closed: bool) -> Candle:
    return Candle(
        venue=VENUE,
        instrument=name,
        venue_time_ns=time_ns,
        received_ns=received_ns,
        origin=Origin.BACKFILL if closed else LIVE,
        start_ns=read_time(row.interval_begin),
        open=_number(row.open),
        high=_number(row.high),
        low=_number(row.low),
        close=_number(row.close),
        volume=_number(row.volume),
        trades=row.trades,
        closed=closed,
    )


def _levels(rows: list[_Level]) -> list[tuple[str, str]]:
    """Return a side of a book as pairs of texts.

    All texts are checked at once: one by one that costs more than parsing the frame.
    """
    levels = [(row.price, row.qty) for row in rows]
    try:
        if not "".join(chain.from_iterable(levels)).encode().translate(None, _DECIMAL):
            return levels
    except TypeError:
        pass  # a whole number is no text yet
    return [(_number(price), _number(size)) for price, size in levels]


def _books(message: _Books, names: Mapping[str, str], received_ns: int) -> Sequence[Event | Signal]:
    found: list[Event | Signal] = []
    for row in message.data:
        name = names.get(row.symbol)
        if name is None:
            continue
        if message.type == "update":
            book: BookDelta | BookSnapshot = _new(BookDelta)
        else:
            book = _new(BookSnapshot)
            found += _proof("book", [row.symbol])
        time = row.timestamp
        book.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=None if time is None else read_time(time),
            received_ns=received_ns,
            bids=_levels(row.bids) if row.bids else [],
            asks=_levels(row.asks) if row.asks else [],
            checksum=row.checksum,
        )
        found.append(book)
    return found


_READERS: dict[type[_Data], Callable[[Any, Mapping[str, str], int], Sequence[Event | Signal]]] = {
    _Trades: _trades,
    _Tickers: _tickers,
    _Candles: _candles,
    _Books: _books,
}
