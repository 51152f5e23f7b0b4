"""BingX's stream dialects: frames of spot and of swaps to events.

The two markets share the subscribe message and little else: acks, pings, trades, candles and tickers have shapes
of their own. Every frame of the venue is a binary one with a gzip member inside, pings and acks too.

https://bingx-api.github.io/docs-v3/ (pages "USDT-M Perp Futures" and "Spot", part "Websocket Market Data")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import orjson

from pricefeedd import codec
from pricefeedd.codec import (
    Accepted,
    BaseCodec,
    Failed,
    Frame,
    Refused,
    Reply,
    Signal,
    Stream,
    gunzip,
    plain_decimal,
)
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Level, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply
from pricefeedd.venue import Account, Feed

VENUE = "bingx"

#: Where the quotes of swaps come from.
LINEAR_QUOTES = ("depth5", "bookTicker")
#: Where the order books of spot come from.
SPOT_BOOKS = ("depth5", "depth10", "depth20", "depth50", "depth100", "incrDepth")

#: Keeps the text of numbers: spot tickers and REST rows have JSON numbers, some with the noise of floats.
loads = msgspec.json.Decoder(float_hook=str).decode

#: What `loads` and the readers may meet in bytes that are not what the venue documents.
BAD_DATA: tuple[type[Exception], ...] = (msgspec.DecodeError, *codec.BAD_DATA)

_BUY = Side.BUY
_SELL = Side.SELL

_NS_PER_MS = 1_000_000
_MINUTE_MS = 60_000

_GZIP = b"\x1f\x8b"

#: The largest frame seen is a book of 1 024 levels a side, about 50 kB.
_MAX_TEXT_BYTES = 4 << 20

#: `@markPrice` comes once a second, trades or no trades; a healthy one is never this late. Any other stream may
#: be silent for as long as nothing happens.
_MARK_PRICE_OWES_S = 15.0

#: A frame of the swaps' `@bookTicker` whose quote is older than this is passed over: frames with quotes that were
#: 22 minutes old have been seen.
_QUOTE_MAX_AGE_MS = 2_000

#: Codes that speak of the connection or the server, not of the topic that was asked for.
_TROUBLE = frozenset({100410, 100500, 100503, 109429, 109500})

#: What the venue's firewall asks of who was too fast.
_FIREWALL_S = 300.0

#: All that a price or a size is written with.
_DECIMAL = b"0123456789."

_PING = (Reply("Pong"),)

Reader = Callable[[Any, str, int, Any], Sequence[Event]]


class BingxCodec(BaseCodec):
    """Speaks the streams of both markets; the feed says which.

    Attributes:
        linear_quote: The topic that quotes of swaps are taken from, one of `LINEAR_QUOTES`. `bookTicker` has been
            seen to be minutes late, with the venue's clock of now on it.
        spot_book: The topic that spot's books are taken from, one of `SPOT_BOOKS`.
    """

    def __init__(self, linear_quote: str = "depth5", spot_book: str = "depth100") -> None:
        self.linear_quote = linear_quote
        self.spot_book = spot_book
        self._suffixes: Mapping[str, Mapping[str, tuple[str, ...]]] = {
            "spot": {
                "trade": ("trade",),
                "quote": ("bookTicker",),
                "ticker": ("ticker",),
                "candle_1m": ("kline_1min",),
                "book": (spot_book,),
            },
            "linear": {
                "trade": ("trade",),
                "quote": ("depth5@500ms" if linear_quote == "depth5" else linear_quote,),
                "ticker": ("ticker", "markPrice"),
                "candle_1m": ("kline_1m",),
                "book": ("incrDepth",),
            },
        }

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the topics of a channel; two for a swap's ticker, whose mark price comes apart."""
        return tuple(
            Stream(
                feed=instrument.market,
                name=f"{instrument.symbol}@{suffix}",
                owes_within_s=_MARK_PRICE_OWES_S if suffix == "markPrice" else None,
            )
            for suffix in self._suffixes.get(instrument.market, {}).get(channel, ())
        )

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return the message that begins a topic; the venue takes one at a time."""
        return _request("sub", streams, request_id)

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return the message that ends a topic."""
        return _request("unsub", streams, request_id)

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says. Symbols and topics that we do not know are passed over.

        Plain text is taken as well as gzip, so that recordings of either can be read.

        Raises:
            DecodeError: The frame is not gzip or JSON, or lacks what the pages above promise.
        """
        text = gunzip(frame, limit=_MAX_TEXT_BYTES) if frame[:2] == _GZIP else frame
        if text == b"Ping":
            return _PING
        try:
            message = loads(text)
            topic = message.get("dataType")
            if topic and message["code"] == 0:
                symbol, _, kind = topic.partition("@")
                name = names.get(symbol)
                read = (_SPOT if feed.market == "spot" else _LINEAR).get(kind)
                if name is None or read is None:
                    return ()
                return read(message["data"], name, received_ns, message)
            return _control(message)
        except BAD_DATA as e:
            raise DecodeError(f"bad frame {text[:120]!r} ({e!r})", venue=VENUE) from e

    def refused(self, feed: Feed, reply: HttpReply) -> Sequence[Signal]:
        """Return what an HTTP answer in place of the connection means: 403 is the firewall, for 5 minutes."""
        if reply.status in (403, 418, 429):
            return (Failed(f"HTTP {reply.status}: too many connections or requests, or region", _FIREWALL_S),)
        return ()


def _request(what: str, streams: Sequence[Stream], request_id: int) -> str:
    # An array of topics would be ignored without an answer; a feed allows one stream per request.
    names = [stream.name for stream in streams]
    body = {"id": str(request_id), "reqType": what, "dataType": ",".join(names)}
    return orjson.dumps(body).decode()


def _control(message: Any) -> Sequence[Signal]:
    """Read an ack, an error or a ping: whatever is no data.

    An ack and a refusal name their request by its id, not their topic; a refusal on spot names neither.
    """
    if "ping" in message:
        # The time is a local print of the venue's (+0800): it is repeated, not read.
        answer = {"pong": message["ping"]} | ({"time": message["time"]} if "time" in message else {})
        return (Reply(orjson.dumps(answer).decode()),)
    code = message["code"]
    if type(code) is not int:
        raise TypeError(f"not a code: {code!r}")
    given = message.get("id")
    request_id = int(given) if type(given) is str and given.isascii() and given.isdecimal() else None
    if code == 0:
        return () if request_id is None else (Accepted(request_id=request_id),)
    reason = f"{message.get('msg')} (code {code})"
    if code in _TROUBLE:
        return (Failed(reason),)
    return (Refused(reason=reason, request_id=request_id),)


# --- Values -----------------------------------------------------------------------------------------------
# They check types because JSON of the wrong shape must end here: a text times 1 000 000 is 13 MB.


def integer(value: Any) -> int:
    """Return an integer; older frames have them as texts.

    Raises:
        TypeError, ValueError: It is none.
    """
    if type(value) is int:
        return value
    if type(value) is str and len(value) < 20 and value.isascii():
        return int(value)
    raise TypeError(f"not an integer: {value!r}")


def decimal(value: Any) -> str:
    """Return a price or size as plain decimal text; it may come as text or as a number, with an exponent.

    Raises:
        TypeError, ValueError: It is neither, or negative.
    """
    if type(value) is str and value.replace(".", "", 1).isdecimal():
        return value
    if type(value) not in (int, str):
        raise TypeError(f"not a decimal: {value!r}")
    text = plain_decimal(str(value))
    if not text.replace(".", "", 1).isdecimal():
        raise ValueError(f"not a decimal: {value!r}")
    return text


def flag(value: Any) -> bool:
    """Return a truth value; older frames have them as texts.

    Raises:
        TypeError: It is none.
    """
    if type(value) is bool:
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise TypeError(f"neither true nor false: {value!r}")


def _levels(bids: Any, asks: Any) -> tuple[Sequence[Level], Sequence[Level]]:
    """Return both sides of a book as lists of pairs of decimal texts; a side may be missing.

    All texts are checked at once: one by one that costs more than parsing the frame.

    Raises:
        TypeError, ValueError: They are not.
    """
    bids = [] if bids is None else bids
    asks = [] if asks is None else asks
    if type(bids) is not list or type(asks) is not list:
        raise TypeError("the levels are not lists")
    rows = bids + asks
    try:
        texts = [price + size for price, size in rows if price and size]
        if len(texts) == len(rows) and not "".join(texts).encode().translate(None, _DECIMAL):
            return bids, asks
    except TypeError:
        pass  # numbers, or no pairs: what can be read is read below
    return _each_level(bids), _each_level(asks)


def _each_level(rows: list[Any]) -> list[Level]:
    return [(decimal(price), decimal(size)) for price, size in rows]


# --- Readers, one per kind of topic -----------------------------------------------------------------------

# To call a class with keywords costs 0.57 µs on Python 3.11, to make the object and call its __init__ 0.32 µs.
_new = object.__new__
_by_time = attrgetter("venue_time_ns")


def _trade(row: Any, name: str, received_ns: int) -> Trade:
    time_ms = row["T"]
    price = row["p"]
    size = row["q"]
    maker_bought = row["m"]
    trade_id = row.get("t")
    if type(time_ms) is not int or type(maker_bought) is not bool:
        time_ms, maker_bought = integer(time_ms), flag(maker_bought)
    if trade_id is not None and type(trade_id) is not str:
        trade_id = str(integer(trade_id))
    if not (
        type(price) is type(size) is str
        and price.replace(".", "", 1).isdecimal()
        and size.replace(".", "", 1).isdecimal()
    ):
        price, size = decimal(price), decimal(size)
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=time_ms * _NS_PER_MS,
        received_ns=received_ns,
        id=trade_id,
        price=price,
        size=size,
        # `m` is true when the buyer was the maker, so the taker sold: the Chinese page says it, the English one
        # has it the other way round.
        aggressor=_SELL if maker_bought else _BUY,
    )
    return trade


def _trades(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    """Read trades: one object on spot; on swaps an array, newest first, in which equal rows are true."""
    if type(data) is not list:
        return (_trade(data, name, received_ns),)
    found = [_trade(row, name, received_ns) for row in reversed(data)]
    if len(found) > 1:
        found.sort(key=_by_time)
    return found


def _quote(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    """Read a `bookTicker`: small letters are prices and capitals sizes, the other way round than in `ticker`."""
    time_ms = integer(data["E"])
    traded_ms = data.get("T")
    if traded_ms is not None:
        if time_ms - integer(traded_ms) > _QUOTE_MAX_AGE_MS:
            return ()
        time_ms = integer(traded_ms)
    sequence = data.get("u")
    bid_price, bid_size = _side(data["b"], data["B"])
    ask_price, ask_size = _side(data["a"], data["A"])
    quote = _new(Quote)
    quote.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=time_ms * _NS_PER_MS,
        received_ns=received_ns,
        bid_price=bid_price,
        bid_size=bid_size,
        ask_price=ask_price,
        ask_size=ask_size,
        sequence=None if sequence is None else integer(sequence),
    )
    return (quote,)


def _side(price: Any, size: Any) -> tuple[str | None, str | None]:
    """Return price and size of one side of a quote; None for both where it is empty."""
    if not price or not size:
        return None, None
    price, size = decimal(price), decimal(size)
    return (price, size) if size.strip("0.") else (None, None)


def _quote_of_depth(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    """Read the best levels as a quote. Bids come best first and asks worst first; either end is looked at."""
    bids, asks = data["bids"], data["asks"]
    bid_price = bid_size = ask_price = ask_size = None
    if bids:
        first, last = bids[0], bids[-1]
        bid_price, bid_size = first if float(first[0]) >= float(last[0]) else last
        bid_price, bid_size = decimal(bid_price), decimal(bid_size)
    if asks:
        first, last = asks[0], asks[-1]
        ask_price, ask_size = last if float(last[0]) <= float(first[0]) else first
        ask_price, ask_size = decimal(ask_price), decimal(ask_size)
    time_ms = message.get("ts")
    quote = _new(Quote)
    quote.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=None if time_ms is None else integer(time_ms) * _NS_PER_MS,
        received_ns=received_ns,
        bid_price=bid_price,
        bid_size=bid_size,
        ask_price=ask_price,
        ask_size=ask_size,
    )
    return (quote,)


def _frame_time_ns(message: Any) -> int | None:
    """Return the time of a whole book: `ts` on swaps, `timestamp` on spot, none in older frames."""
    time_ms = message.get("ts") or message.get("timestamp")
    return None if time_ms is None else integer(time_ms) * _NS_PER_MS


def _whole_book(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    """Read a frame that replaces the book."""
    bids, asks = _levels(data["bids"], data["asks"])
    sequence = data.get("lastUpdateId")
    return (
        BookSnapshot(
            venue=VENUE,
            instrument=name,
            venue_time_ns=_frame_time_ns(message),
            received_ns=received_ns,
            bids=bids,
            asks=asks,
            sequence=None if sequence is None else integer(sequence),
        ),
    )


def _book(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    """Read an `incrDepth`: `all` replaces the book, `update` changes it; ids grow and skip."""
    action = data["action"]
    make: type[BookDelta | BookSnapshot]
    if action == "update":
        make = BookDelta
    elif action == "all":
        make = BookSnapshot
    else:
        raise ValueError(f"neither all nor update: {action!r}")
    bids, asks = _levels(data["bids"], data["asks"])
    time_ms = data.get("time")
    return (
        make(
            venue=VENUE,
            instrument=name,
            venue_time_ns=_frame_time_ns(message) if time_ms is None else integer(time_ms) * _NS_PER_MS,
            received_ns=received_ns,
            bids=bids,
            asks=asks,
            sequence=integer(data["lastUpdateId"]),
        ),
    )


def _swap_ticker(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    # `q` does not equal volume times price, and nobody says what it counts.
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=integer(data["E"]) * _NS_PER_MS,
            received_ns=received_ns,
            last=decimal(data["c"]),
            open_24h=decimal(data["o"]),
            high_24h=decimal(data["h"]),
            low_24h=decimal(data["l"]),
            volume_24h=decimal(data["v"]),
            partial=True,  # the mark price comes by another topic
        ),
    )


def _spot_ticker(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=integer(data["E"]) * _NS_PER_MS,
            received_ns=received_ns,
            last=decimal(data["c"]),
            open_24h=decimal(data["o"]),
            high_24h=decimal(data["h"]),
            low_24h=decimal(data["l"]),
            volume_24h=decimal(data["v"]),
            turnover_24h=decimal(data["q"]),
        ),
    )


def _mark_price(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=integer(data["E"]) * _NS_PER_MS,
            received_ns=received_ns,
            mark_price=decimal(data["p"]),
            partial=True,
        ),
    )


def minute_ns(time_ms: Any) -> int:
    """Return the start of a minute, ns.

    Raises:
        TypeError, ValueError: It is no time, or not the start of a minute.
    """
    start_ms = integer(time_ms)
    if start_ms % _MINUTE_MS:
        raise ValueError(f"not the start of a minute: {start_ms}")
    return start_ms * _NS_PER_MS


def _swap_candles(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    """Read minutes of swaps: an array, and `T` is the start. Nothing says that a minute is over."""
    if type(data) is not list:
        data = [data]
    found = [
        Candle(
            venue=VENUE,
            instrument=name,
            received_ns=received_ns,
            start_ns=minute_ns(row["T"]),
            open=decimal(row["o"]),
            high=decimal(row["h"]),
            low=decimal(row["l"]),
            close=decimal(row["c"]),
            volume=decimal(row["v"]),
            closed=False,
        )
        for row in data
    ]
    if len(found) > 1:
        found.sort(key=attrgetter("start_ns"))
    return found


def _spot_candle(data: Any, name: str, received_ns: int, message: Any) -> Sequence[Event]:
    """Read a minute of spot: `K.t` is its start and `K.T` its last millisecond."""
    row = data["K"]
    return (
        Candle(
            venue=VENUE,
            instrument=name,
            venue_time_ns=integer(data["E"]) * _NS_PER_MS,
            received_ns=received_ns,
            start_ns=minute_ns(row["t"]),
            open=decimal(row["o"]),
            high=decimal(row["h"]),
            low=decimal(row["l"]),
            close=decimal(row["c"]),
            volume=decimal(row["v"]),
            turnover=decimal(row["q"]),
            trades=integer(row["n"]),
            closed=False,
        ),
    )


#: Levels of a whole book that the venue offers, and the paces that clients ask for: it grants its own.
_DEPTHS = tuple(f"depth{levels}{pace}" for levels in (5, 10, 20, 50, 100) for pace in ("", "@500ms"))

#: By what stands behind the first `@` of a topic.
_SPOT: dict[str, Reader] = {
    "trade": _trades,
    "bookTicker": _quote,
    "ticker": _spot_ticker,
    "kline_1min": _spot_candle,
    "incrDepth": _book,
    **dict.fromkeys(_DEPTHS, _whole_book),
}
_LINEAR: dict[str, Reader] = {
    "trade": _trades,
    "bookTicker": _quote,
    "ticker": _swap_ticker,
    "markPrice": _mark_price,
    "kline_1m": _swap_candles,
    "incrDepth": _book,
    **dict.fromkeys(
        (*_DEPTHS, *(f"depth{levels}@100ms" for levels in (5, 10, 20, 50, 100))), _quote_of_depth
    ),
}
