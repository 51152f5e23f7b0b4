"""Gate's stream dialect (API v4): spot and perpetual futures frames to events.

Both speak the same envelope of `channel`, `event` and `result`, and differ in nearly every payload: a spot
payload is an object of texts, a futures one is often a list, counts contracts and tells the side by a sign.

https://www.gate.com/docs/developers/apiv4/ws/en/
https://www.gate.com/docs/developers/futures/ws/en/
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
    Opening,
    Refused,
    Signal,
    Stream,
    integer,
    ns_of_ms,
    plain_decimal,
)
from pricefeedd.errors import DecodeError
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Liquidation,
    Quote,
    Side,
    Ticker,
    Trade,
)
from pricefeedd.instruments import Instrument
from pricefeedd.venue import Account, Feed

VENUE = "gateio"

#: Names of this module, because looking things up on other modules and on enums is felt at this rate.
_loads = orjson.loads
_BUY = Side.BUY
_SELL = Side.SELL
_SIDES = {"buy": _BUY, "sell": _SELL}

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000
_MINUTE_S = 60

#: Depths of a book, and the stream that brings each: `obu` begins with the whole book by itself, the deltas of
#: `order_book_update` are joined to a snapshot by REST. The short ones come each 20 ms, the others each 100 ms.
OBU_DEPTHS = (50, 400)
UPDATE_DEPTHS = {20: "20ms", 100: "100ms"}
BOOK_DEPTHS = (*UPDATE_DEPTHS, *OBU_DEPTHS)

#: Sizes as texts with their fractions; without it they are integers and fractions are cut off.
SIZE_HEADERS = {"X-Gate-Size-Decimal": "1"}

#: A request whose time is further from the venue's is refused, whatever it asks for.
_CLOCK_LIMIT_S = 60

#: A fault of the venue's own: the request may be sent again.
_SERVER_FAULT = 3
_SERVER_FAULT_S = 30.0

#: Channels whose payload is one list of arguments for one symbol; the others take a list of symbols.
_ONE_BY_ONE = frozenset({"candlesticks", "order_book_update"})

_BY_SYMBOL = {
    "trade": "trades",
    "quote": "book_ticker",
    "ticker": "tickers",
    "liquidation": "public_liquidates",
}

#: Data says `update`, or `all` for a whole; frames of `obu` say nothing.
_DATA_EVENTS = frozenset({"update", "all", "", None})

#: Times above this are milliseconds, those below are seconds; some fields have changed from one to the other.
_MOST_SECONDS = 100_000_000_000

#: All that a price or a size is written with.
_DECIMAL = b"0123456789."

Reader = Callable[[Any, Any, Mapping[str, str], int], Sequence[Event | Signal]]


class GateioCodec(BaseCodec):
    """Speaks the streams of spot and of futures; the feed says which.

    The name of a stream is the channel without `spot.` or `futures.`, and the arguments that are sent as its
    payload, with colons between: `trades:BTC_USDT`, `candlesticks:1m:BTC_USDT`, `obu:ob.BTC_USDT.400`.

    Attributes:
        book_depth: Levels per side of an order book: 20, 50, 100 or 400.
    """

    def __init__(self, book_depth: int = 400) -> None:
        self.book_depth = book_depth

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the stream of a channel; each needs one."""
        symbol = instrument.symbol
        spot = instrument.market == "spot"
        if channel == "candle_1m":
            name = f"candlesticks:1m:{symbol}"
        elif channel == "book":
            name = self._book_stream(symbol, spot=spot)
        elif channel in _BY_SYMBOL and not (spot and channel == "liquidation"):
            name = f"{_BY_SYMBOL[channel]}:{symbol}"
        else:
            return ()
        kind = name.partition(":")[0]
        return (Stream(feed=feed_of(instrument), name=name, group=name if kind in _ONE_BY_ONE else kind),)

    def _book_stream(self, symbol: str, *, spot: bool) -> str:
        depth = self.book_depth
        if depth in OBU_DEPTHS:
            return f"obu:ob.{symbol}.{depth}"
        pace = UPDATE_DEPTHS[depth]
        return f"order_book_update:{symbol}:{pace}" if spot else f"order_book_update:{symbol}:{pace}:{depth}"

    def open(
        self, feed: Feed, streams: Sequence[Stream], *, path: str, now_ns: int, account: Account | None
    ) -> Opening:
        """Open the feed's path; futures are asked for sizes with their fractions."""
        return Opening(path=path, headers={} if feed.market == "spot" else SIZE_HEADERS)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return a subscribe frame; it is answered once."""
        return _request("subscribe", feed, streams, request_id, now_ns)

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return an unsubscribe frame, with the same payload as the one that subscribed."""
        return _request("unsubscribe", feed, streams, request_id, now_ns)

    def ping(self, feed: Feed, *, now_ns: int) -> Frame:
        """Return the application's ping, which the venue counts as a sign of life; ping frames it does not."""
        return f'{{"time":{now_ns // _NS_PER_S},"channel":"{_prefix(feed)}.ping"}}'

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says. Symbols and channels that we do not know are passed over.

        Raises:
            DecodeError: The frame is not JSON, or lacks what the pages above promise.
        """
        try:
            message = _loads(frame)
            read = _READERS.get(message.get("channel"))
            if (
                read is not None
                and message.get("event") in _DATA_EVENTS
                and message.get("error") is None
                and "payload" not in message
            ):
                return read(message["result"], message, names, received_ns)
            return _control(message, received_ns)
        except BAD_DATA as e:
            raise DecodeError(f"bad frame {frame[:120]!r} ({e!r})", venue=VENUE) from e


def feed_of(instrument: Instrument) -> str:
    """Return the name of the feed that carries an instrument: one connection serves one settle currency."""
    if instrument.market == "linear" and instrument.settle == "USD1":
        return "linear-usd1"
    return instrument.market


def _prefix(feed: Feed) -> str:
    return "spot" if feed.market == "spot" else "futures"


def _request(event: str, feed: Feed, streams: Sequence[Stream], request_id: int, now_ns: int) -> str:
    kind, *arguments = streams[0].name.split(":")
    if kind not in _ONE_BY_ONE:
        arguments = [stream.name.partition(":")[2] for stream in streams]
    body = {
        "time": now_ns // _NS_PER_S,
        "id": request_id,
        "channel": f"{_prefix(feed)}.{kind}",
        "event": event,
        "payload": arguments,
    }
    return orjson.dumps(body).decode()


# --- Answers and notices ----------------------------------------------------------------------------------


def _control(message: Any, received_ns: int) -> Sequence[Signal]:
    """Read a frame that is no data: the answer to a request, a pong, or a notice."""
    channel, event = message.get("channel") or "", message.get("event")
    if message.get("type") == "upgrade" or event == "upgrade":
        return (Closing(str(message.get("msg") or "service upgrade")),)
    if channel.endswith(".system"):
        result = message["result"]
        return (Closing(str(result.get("msg") or "service upgrade")),) if result["type"] == "upgrade" else ()
    if channel.endswith(".pong"):
        return ()
    error = message.get("error")
    if error is not None:
        # That an end was refused changes nothing: there was no such subscription.
        return () if event == "unsubscribe" else _refusal(message, channel, error, received_ns)
    if event != "subscribe":
        return ()
    request_id = _request_id(message)
    if request_id is not None:
        return (Accepted(request_id=request_id),)
    return (Accepted(streams=_stream_names(channel, message.get("payload"))),)


def _refusal(message: Any, channel: str, error: Any, received_ns: int) -> Sequence[Signal]:
    words = str(error["message"])
    reason = f"{words} (code {error['code']})"
    ahead_s = received_ns / _NS_PER_S - _seconds(message["time"]) if "time" in message else 0.0
    if abs(ahead_s) >= _CLOCK_LIMIT_S:
        where = "ahead of" if ahead_s > 0 else "behind"
        return (Failed(f"{reason}: our clock is {abs(ahead_s):.0f} s {where} the venue's"),)
    request_id = _request_id(message)
    names = _stream_names(channel, message.get("payload"))
    if words.startswith("Alert sub "):
        # It is subscribed already, on this connection: the answer to an earlier request was lost.
        return (Accepted(request_id=request_id, streams=() if request_id is not None else names),)
    if error["code"] == _SERVER_FAULT:
        return (Refused(reason=reason, request_id=request_id, retry_after_s=_SERVER_FAULT_S),)
    bad = tuple(name for name in names if words.endswith(" " + name.rpartition(":")[2])) if names[1:] else ()
    return (Refused(reason=reason, request_id=request_id, streams=bad, others_lost=bool(bad)),)


def _request_id(message: Any) -> int | None:
    request_id = message.get("id")
    return request_id if type(request_id) is int else None


def _stream_names(channel: str, payload: Any) -> tuple[str, ...]:
    """Return the names of the streams that an answer is about, if it repeats the payload."""
    if not isinstance(payload, list):
        return ()
    kind = channel.partition(".")[2]
    if kind in _ONE_BY_ONE:
        return (":".join([kind, *payload]),)
    return tuple(f"{kind}:{argument}" for argument in payload)


# --- Numbers ----------------------------------------------------------------------------------------------
# They are checked because JSON of the wrong shape must end here: a text times 1 000 000 is 13 MB.


def plain(number: Any) -> str:
    """Return an unsigned number as plain decimal text: texts come back as they are, JSON numbers as text.

    Raises:
        TypeError, ValueError: It is none.
    """
    text: str = repr(number) if type(number) is int or type(number) is float else number
    if not isinstance(text, str):
        raise TypeError(f"not a number: {number!r}")
    if not text.replace(".", "", 1).isdecimal():
        text = plain_decimal(text)
        if not text.replace(".", "", 1).isdecimal():
            raise ValueError(f"not a decimal text: {number!r}")
    return text


def _signed(number: Any) -> str:
    text = number if isinstance(number, str) else repr(number)
    return f"-{plain(text[1:])}" if text[:1] == "-" else plain(number)


def _maybe(number: Any) -> str | None:
    """Return a number that may be missing, or empty."""
    return None if number is None or number == "" else _signed(number)


def _seconds(value: Any) -> float:
    if type(value) is not int and type(value) is not float:
        raise TypeError(f"not a time: {value!r}")
    return value / 1000 if value > _MOST_SECONDS else value


def _text_ms_ns(text: Any) -> int:
    """Return a time in milliseconds with decimals, as text, as ns."""
    if not text.replace(".", "", 1).isdecimal():
        raise ValueError(f"not a time in ms: {text!r}")
    whole, _, fraction = text.partition(".")
    return int(whole + fraction[:6].ljust(6, "0"))


def any_time_ns(value: Any) -> int:
    """Return a time as ns: a number or text, with or without decimals, in seconds or milliseconds.

    Futures fields named `..._ms` hold milliseconds on the streams, and seconds with decimals in REST.

    Raises:
        TypeError, ValueError: It is none.
    """
    text = plain(value)
    whole, _, fraction = text.partition(".")
    number, digits = int(whole), 6 if int(whole) > _MOST_SECONDS else 9
    scale: int = 10**digits
    return number * scale + (int(fraction[:digits].ljust(digits, "0")) if fraction else 0)


def _frame_ns(message: Any) -> int:
    """Return the time of a frame; before 2023 only seconds were sent."""
    time_ms = message.get("time_ms")
    return ns_of_ms(time_ms) if time_ms else integer(message["time"]) * _NS_PER_S


# --- Readers, one per channel -----------------------------------------------------------------------------

# Trades and quotes are most of what comes. To call a class with keywords costs 0.57 µs on Python 3.11, to make
# the object and call its __init__ 0.32 µs.
_new = object.__new__


def read_spot_trade(row: Any, trade_id: Any, name: str, received_ns: int) -> Trade:
    """Return the trade in a `spot.trades` payload; REST rows have the same keys, and their ids are texts.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is none.
    """
    price, size = row["price"], row["amount"]
    if not (price.replace(".", "", 1).isdecimal() and size.replace(".", "", 1).isdecimal()):
        price, size = plain(price), plain(size)
    if type(trade_id) is int:
        trade_id = str(trade_id)
    elif not trade_id.isdecimal():
        raise ValueError(f"not a trade id: {trade_id!r}")
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=_text_ms_ns(row["create_time_ms"]),
        received_ns=received_ns,
        id=trade_id,
        price=price,
        size=size,
        aggressor=_SIDES[row["side"]],
    )
    return trade


def _spot_trade(row: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(row["currency_pair"])
    if name is None:
        return ()
    # `id` counts the trades of all markets, `id_market` those of this one; before 2023 there was only `id`.
    trade_id = row.get("id_market")
    return (read_spot_trade(row, row["id"] if trade_id is None else trade_id, name, received_ns),)


def read_futures_trade(row: Any, name: str, received_ns: int) -> Trade | None:
    """Return the trade in a row of `futures.trades` or of REST; None for one that was not made on the book.

    With `is_internal` the insurance fund or the auto-deleveraging took a position over, at a price that may
    be far from the market's; the venue's own candles leave it out.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is none.
    """
    if row.get("is_internal") is True:
        return None
    size = row["size"]
    if type(size) is not str:
        size = _signed(size)
    # Above 0 the taker bought, below he sold.
    side = _BUY
    if size[:1] == "-":
        side = _SELL
        size = size[1:]
    price = row["price"]
    if not (price.replace(".", "", 1).isdecimal() and size.replace(".", "", 1).isdecimal()):
        price, size = plain(price), plain(size)
    time_ms = row["create_time_ms"]
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=(
            time_ms * _NS_PER_MS if type(time_ms) is int and time_ms > _MOST_SECONDS else any_time_ns(time_ms)
        ),
        received_ns=received_ns,
        id=str(integer(row["id"])),
        price=price,
        size=size,
        aggressor=side,
    )
    return trade


def _futures_trades(rows: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    found = []
    for row in rows:
        name = names.get(row["contract"])
        if name is not None:
            trade = read_futures_trade(row, name, received_ns)
            if trade is not None:
                found.append(trade)
    return found


def _quote(row: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(row["s"])
    if name is None:
        return ()
    bid_price, bid_size, ask_price, ask_size = row["b"], row["B"], row["a"], row["A"]
    if type(bid_size) is int:
        bid_size = str(bid_size)
    if type(ask_size) is int:
        ask_size = str(ask_size)
    if not (
        bid_price.replace(".", "", 1).isdecimal()
        and bid_size.replace(".", "", 1).isdecimal()
        and ask_price.replace(".", "", 1).isdecimal()
        and ask_size.replace(".", "", 1).isdecimal()
    ):
        # A side that is empty has the price "" and the size 0.
        bid_price, bid_size = (plain(bid_price), plain(bid_size)) if bid_price else ("0", "0")
        ask_price, ask_size = (plain(ask_price), plain(ask_size)) if ask_price else ("0", "0")
    sequence, time_ms = row["u"], row["t"]
    if type(sequence) is not int or type(time_ms) is not int:
        raise TypeError("u or t has the wrong type")
    if bid_size[0] == "0" and not bid_size.strip("0."):
        bid_price = bid_size = None
    if ask_size[0] == "0" and not ask_size.strip("0."):
        ask_price = ask_size = None
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
        sequence=sequence,
    )
    return (quote,)


def _spot_ticker(row: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(row["currency_pair"])
    if name is None:
        return ()
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=_frame_ns(message),  # there is no time inside
            received_ns=received_ns,
            last=plain(row["last"]),
            high_24h=_maybe(row["high_24h"]),
            low_24h=_maybe(row["low_24h"]),
            volume_24h=_maybe(row["base_volume"]),
            turnover_24h=_maybe(row["quote_volume"]),
        ),
    )


def _futures_tickers(rows: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    found = []
    for row in rows:
        symbol = row["contract"]
        name = names.get(symbol)
        if name is None:
            continue
        time_ms = row.get("t")
        funding = row.get("funding_next_apply")
        found.append(
            Ticker(
                venue=VENUE,
                instrument=name,
                venue_time_ns=ns_of_ms(time_ms) if time_ms else _frame_ns(message),
                received_ns=received_ns,
                last=plain(row["last"]),
                high_24h=_maybe(row.get("high_24h")),
                low_24h=_maybe(row.get("low_24h")),
                volume_24h=_maybe(row.get("volume_24h")),
                # The only inverse contract is settled in its base, all others in their quote.
                turnover_24h=_maybe(row.get("volume_24h_settle")),
                mark_price=_maybe(row.get("mark_price")),
                index_price=_maybe(row.get("index_price")),
                funding_rate=_maybe(row.get("funding_rate")),
                next_funding_ns=any_time_ns(funding) if funding else None,
                open_interest=_maybe(row.get("total_size")),
            )
        )
    return found


def _candle_names(row: Any, names: Mapping[str, str]) -> str | None:
    """Return our name for a candle's `n`, `1m_BTC_USDT`; None for another interval or symbol."""
    interval, _, symbol = row["n"].partition("_")
    return names.get(symbol) if interval == "1m" else None


def _minute_ns(start_s: int) -> int:
    if start_s % _MINUTE_S:
        raise ValueError(f"not the start of a minute: {start_s}")
    return start_s * _NS_PER_S


def _closed(row: Any) -> bool:
    closed = row.get("w", False)
    if type(closed) is not bool:
        raise TypeError(f"w is no flag: {closed!r}")
    return closed


def _spot_candle(row: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = _candle_names(row, names)
    if name is None:
        return ()
    turnover = plain(row["v"])  # of the quote currency, whatever its name
    return (
        Candle(
            venue=VENUE,
            instrument=name,
            venue_time_ns=_frame_ns(message),
            received_ns=received_ns,
            start_ns=_minute_ns(int(row["t"])),
            open=plain(row["o"]),
            high=plain(row["h"]),
            low=plain(row["l"]),
            close=plain(row["c"]),
            volume=spot_volume(row.get("a"), turnover),
            turnover=turnover,
            closed=_closed(row),
        ),
    )


def spot_volume(volume: Any, turnover: str) -> str:
    """Return the base volume of a spot candle.

    Candles of 2021 had none: that of a minute without trades is known all the same.

    Raises:
        TypeError, ValueError: It is missing, or no number.
    """
    if volume is None and not turnover.strip("0."):
        return "0"
    return plain(volume)


def _futures_candles(rows: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    found = []
    for row in rows:
        name = _candle_names(row, names)
        if name is not None:
            found.append(
                Candle(
                    venue=VENUE,
                    instrument=name,
                    venue_time_ns=_frame_ns(message),
                    received_ns=received_ns,
                    start_ns=_minute_ns(integer(row["t"])),
                    open=plain(row["o"]),
                    high=plain(row["h"]),
                    low=plain(row["l"]),
                    close=plain(row["c"]),
                    volume=plain(row["v"]),
                    # `a` is documented as the base volume and was seen to hold the turnover: not to be used.
                    closed=_closed(row),
                )
            )
    return found


def read_levels(bids: Any, asks: Any) -> tuple[Any, Any]:
    """Return the sides of a book as pairs of plain decimal texts; what is not there is empty.

    Futures deltas and REST write a level as `{"p": price, "s": size}`, all others as `[price, size]`. All
    texts are checked at once: one by one that costs more than parsing the frame.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: They are not levels.
    """
    bids = [] if bids is None else bids
    asks = [] if asks is None else asks
    if type(bids) is not list or type(asks) is not list:
        raise TypeError("the levels are not lists")
    rows = bids + asks
    if rows and type(rows[0]) is dict:
        rows = [(row["p"], row["s"]) for row in rows]
        bids, asks = rows[: len(bids)], rows[len(bids) :]
    try:
        # The unpacking requires pairs, the sum texts.
        texts = [price + size for price, size in rows if price and size]
        if len(texts) == len(rows) and not "".join(texts).encode().translate(None, _DECIMAL):
            return bids, asks
    except TypeError:
        pass  # not all of them are texts
    rows = [(plain(price), plain(size)) for price, size in rows]
    return rows[: len(bids)], rows[len(bids) :]


def _book(row: Any, symbol: str, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(symbol)
    if name is None:
        return ()
    last, time_ms = row["u"], row["t"]
    if type(last) is not int or type(time_ms) is not int:
        raise TypeError("u or t has the wrong type")
    bids, asks = read_levels(row.get("b"), row.get("a"))
    if row.get("full") is True:
        return (
            BookSnapshot(
                venue=VENUE,
                instrument=name,
                venue_time_ns=time_ms * _NS_PER_MS,
                received_ns=received_ns,
                bids=bids,
                asks=asks,
                sequence=last,
            ),
        )
    first = row["U"]
    if type(first) is not int:
        raise TypeError("U is not an update id")
    delta = _new(BookDelta)
    delta.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=time_ms * _NS_PER_MS,
        received_ns=received_ns,
        bids=bids,
        asks=asks,
        sequence=last,
        first_sequence=first,
    )
    return (delta,)


def _book_update(row: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    return _book(row, row["s"], names, received_ns)


def _obu(row: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    # Here `s` is the name of the stream, ob.BTC_USDT.400.
    return _book(row, row["s"].removeprefix("ob.").rpartition(".")[0], names, received_ns)


def _liquidations(rows: Any, message: Any, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read `futures.public_liquidates`: the forced orders of a contract within a second.

    `time` was in seconds before 2026-08-20, and is in milliseconds since.
    """
    found = []
    for row in rows:
        name = names.get(row["contract"])
        if name is None:
            continue
        size = _signed(row["size"])
        found.append(
            Liquidation(
                venue=VENUE,
                instrument=name,
                venue_time_ns=any_time_ns(row.get("time_ms") or row["time"]),
                received_ns=received_ns,
                price=plain(row["price"]),
                size=size.removeprefix("-"),
                # The order's own sign: below 0 it sells, which closes a long.
                side=_SELL if size[0] == "-" else _BUY,
            )
        )
    return found


_READERS: dict[Any, Reader] = {
    "spot.trades": _spot_trade,
    "spot.book_ticker": _quote,
    "spot.tickers": _spot_ticker,
    "spot.candlesticks": _spot_candle,
    "spot.order_book_update": _book_update,
    "spot.obu": _obu,
    "futures.trades": _futures_trades,
    "futures.book_ticker": _quote,
    "futures.tickers": _futures_tickers,
    "futures.candlesticks": _futures_candles,
    "futures.order_book_update": _book_update,
    "futures.obu": _obu,
    "futures.public_liquidates": _liquidations,
}
