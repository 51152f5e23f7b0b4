"""Coinbase's stream dialect: frames of Advanced Trade's market data host, and of the user host, to events.

One connection carries any number of channels and products. Every frame but an error bears a number that counts
the frames of its connection, whatever they are about, so that a lost one is seen at the next.

https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-overview
https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import msgspec
import orjson

from pricefeedd.codec import (
    BAD_DATA,
    Accepted,
    BaseCodec,
    Count,
    Failed,
    Frame,
    LoginRefused,
    Refused,
    Signal,
    Stream,
    decimal_text,
)
from pricefeedd.errors import DecodeError, LoginRejectedError
from pricefeedd.events import BookDelta, BookSnapshot, Event, Level, Origin, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply, retry_after_s
from pricefeedd.venue import Account, Feed
from pricefeedd_coinbase.times import ns_of
from pricefeedd_coinbase.tokens import Key
from pricefeedd_coinbase.user import USER, VENUE, read_user

#: The name of the stream that keeps a connection alive.
HEARTBEATS = "heartbeats"

#: What brings each of our channels, and on which feed. Minutes are made of trades: the venue's own candles
#: are five minutes long. Quotes are made of books, unless those of tickers are wished for.
_CHANNELS = {
    "trade": ("spot", "market_trades"),
    "candle_1m": ("spot", "market_trades"),
    "quote": ("spot-book", "level2"),
    "ticker": ("spot", "ticker"),
    "book": ("spot-book", "level2"),
}

#: After a refused connection the venue names no time to wait; its limit is per second.
_REFUSED_S = 10.0

#: Credentials that were refused are tried again this much later: a clock may be put right.
_LOGIN_AGAIN_S = 60.0

#: Names of this module, because looking things up on other modules and on enums is felt at this rate.
_BUY = Side.BUY
_SELL = Side.SELL
_LIVE = Origin.LIVE
_BACKFILL = Origin.BACKFILL

#: To call a class with keywords costs 0.6 µs, to make the object and call its __init__ 0.35 µs.
_new = object.__new__

#: All that a price or a size is written with.
_DECIMAL = b"0123456789."

#: Before this a time is a placeholder: snapshots are documented with 1970-01-01.
_EARLIEST_NS = 1_262_304_000_000_000_000

#: What `decode` may meet in bytes that are not what the venue documents.
_BAD_FRAME: tuple[type[Exception], ...] = (msgspec.DecodeError, *BAD_DATA)


# --- Frames, as far as we read them -----------------------------------------------------------------------
# msgspec checks types while it parses, and passes over what is not named here; so `client_id` may come and go.


class TradeRow(msgspec.Struct, gc=False):
    """A trade on the stream or in REST."""

    product_id: str
    trade_id: str
    price: str
    size: str
    time: str
    side: Literal["BUY", "SELL"]


class _Trades(msgspec.Struct):
    trades: list[TradeRow]
    type: str = ""


class _Level(msgspec.Struct, gc=False):
    side: Literal["bid", "offer"]
    event_time: str
    price_level: str
    new_quantity: str


class _Levels(msgspec.Struct):
    product_id: str
    updates: list[_Level]
    type: Literal["snapshot", "update"]


class _Ticker(msgspec.Struct, gc=False):
    product_id: str = ""
    price: str = ""
    volume_24_h: str = ""
    low_24_h: str = ""
    high_24_h: str = ""
    best_bid: str = ""
    best_bid_quantity: str = ""
    best_ask: str = ""
    best_ask_quantity: str = ""


class _Tickers(msgspec.Struct):
    tickers: list[_Ticker]
    type: str = ""


class _Subscribed(msgspec.Struct):
    subscriptions: dict[str, list[str]]


class _TradesFrame(msgspec.Struct, tag_field="channel", tag="market_trades"):
    sequence_num: int
    events: list[_Trades]


class _LevelsFrame(msgspec.Struct, tag_field="channel", tag="l2_data"):
    sequence_num: int
    timestamp: str
    events: list[_Levels]


class _TickerFrame(msgspec.Struct, tag_field="channel", tag="ticker"):
    sequence_num: int
    timestamp: str
    events: list[_Tickers]


class _TickerBatchFrame(msgspec.Struct, tag_field="channel", tag="ticker_batch"):
    sequence_num: int
    timestamp: str
    events: list[_Tickers]


class _HeartbeatsFrame(msgspec.Struct, tag_field="channel", tag=HEARTBEATS):
    sequence_num: int


class _SubscriptionsFrame(msgspec.Struct, tag_field="channel", tag="subscriptions"):
    sequence_num: int
    events: list[_Subscribed]


class _OtherFrame(msgspec.Struct):
    """A frame of a channel that we do not ask for, or an error, which has neither channel nor number."""

    channel: str = ""
    sequence_num: int | None = None
    type: str = ""
    message: str = ""


_parse = msgspec.json.Decoder(
    _LevelsFrame | _TradesFrame | _TickerFrame | _TickerBatchFrame | _HeartbeatsFrame | _SubscriptionsFrame
).decode
_parse_other = msgspec.json.Decoder(_OtherFrame).decode


class CoinbaseCodec(BaseCodec):
    """Speaks the market data host.

    Attributes:
        key: Signs a token into each request, which the venue advises; None to ask without.
        ticker_quotes: Tickers bring quotes: the top of the book at the time of the last match.
    """

    def __init__(self, key: Key | None = None, *, ticker_quotes: bool = False) -> None:
        self.key = key
        self.ticker_quotes = ticker_quotes

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the stream of a channel; its name is the venue's channel and product, `level2:BTC-USD`."""
        if channel == "order":
            # Without products it is of all of them; to change them would take a new connection.
            return (Stream(feed=USER, name=USER, group=USER),)
        known = _CHANNELS.get("ticker" if channel == "quote" and self.ticker_quotes else channel)
        if known is None:
            return ()
        feed, theirs = known
        # A subscribe frame names one channel, so channels never share one.
        return (Stream(feed=feed, name=f"{theirs}:{instrument.symbol}", group=theirs),)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return a `subscribe` frame: one channel, any number of products."""
        return self._request("subscribe", streams, request_id, now_ns, account)

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return an `unsubscribe` frame."""
        return self._request("unsubscribe", streams, request_id, now_ns, account)

    def _request(
        self, what: str, streams: Sequence[Stream], request_id: int, now_ns: int, account: Account | None
    ) -> str:
        body: dict[str, Any] = {"type": what}
        products = [product for stream in streams if (product := stream.name.partition(":")[2])]
        if products:
            body["product_ids"] = products
        body["channel"] = streams[0].group
        key = self.key if account is None else _key_of(account)
        if key is not None:
            body["jwt"] = key.token(now_ns, request_id)  # each request needs a new one
        return orjson.dumps(body).decode()

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return the number of a frame and what it says. Products and channels that we do not know are passed over.

        Raises:
            DecodeError: The frame is not JSON, or lacks what the pages above promise.
        """
        try:
            try:
                message = _parse(frame)
            except msgspec.ValidationError:
                return self._other(frame, feed, received_ns)
            said: list[Event | Signal] = [Count(message.sequence_num)]
            read = _READERS.get(message.__class__)
            if read is not None:
                read(message, names, received_ns, said)
            if self.ticker_quotes and message.__class__ is _TickerFrame:
                _quotes(message, names, received_ns, said)
        except _BAD_FRAME as e:
            raise DecodeError(f"bad frame {frame[:120]!r} ({e!r})", venue=VENUE) from e
        return said

    def refused(self, feed: Feed, reply: HttpReply) -> Sequence[Signal]:
        """Read how long HTTP 429 keeps us away: 8 connections a second are allowed to one address."""
        if reply.status != 429:
            return ()
        text = reply.body[:200].decode("utf-8", "replace")
        wait_s = retry_after_s(reply.headers)
        return (Failed(f"HTTP 429: {text}".rstrip(), _REFUSED_S if wait_s is None else wait_s),)

    def _other(self, frame: bytes, feed: Feed, received_ns: int) -> Sequence[Event | Signal]:
        """Read a frame that is none of those of public data."""
        message = _parse_other(frame)
        if message.channel == USER and feed.private:
            return read_user(frame, received_ns)
        if message.type == "error" and not message.channel:
            return (self._fault(message.message, feed),)
        if not message.channel or message.channel in _KNOWN or message.sequence_num is None:
            _parse(frame)  # tells what is wrong with it
            raise ValueError("a frame without channel or number")
        return (Count(message.sequence_num),)

    def _fault(self, text: str, feed: Feed) -> Signal:
        """Return what an error stands for; it names neither request nor channel.

        The venue says `authentication failure` of a bad token, and of a channel that it does not know.
        """
        if feed.private and "authentication" in text:
            return LoginRefused(f"{text} (look at the key, its rights and this host's clock)")
        if self.key is not None and "authentication" in text:
            return Failed(f"{text}: the API key is wrong, or the clock", _LOGIN_AGAIN_S)
        return Refused(reason=text or "error without a message")


def _key_of(account: Account) -> Key:
    """Return the key of an account.

    Raises:
        LoginRejectedError: Its secret is none.
    """
    try:
        return Key(account.api_key, account.api_secret)
    except ValueError as e:
        raise LoginRejectedError(f"api_secret of the account {account.name!r}: {e}", venue=VENUE) from None


# --- Readers, one per channel -----------------------------------------------------------------------------


def _trades(message: Any, names: Mapping[str, str], received_ns: int, said: list[Event | Signal]) -> None:
    for event in message.events:
        rows = event.trades
        origin = _LIVE
        if event.type == "snapshot":
            # The last hundred trades from before we asked. Their coming shows that we were heard.
            origin = _BACKFILL
            said.append(Accepted(streams=tuple({f"market_trades:{row.product_id}": None for row in rows})))
        if len(rows) > 1:
            rows.sort(key=_id_of)  # they come newest first
        for row in rows:
            name = names.get(row.product_id)
            if name is not None:
                said.append(read_trade(row, name, received_ns, origin))


def _id_of(row: TradeRow) -> int:
    return int(row.trade_id)


def read_trade(row: TradeRow, name: str, received_ns: int, origin: Origin) -> Trade:
    """Return the trade in a row of a stream or of REST.

    Raises:
        ValueError: It is not one.
    """
    price = row.price
    size = row.size
    if not (price.replace(".", "", 1).isdecimal() and size.replace(".", "", 1).isdecimal()):
        price, size = decimal_text(price), decimal_text(size)
    if not row.trade_id.isdecimal():
        raise ValueError(f"not a trade id: {row.trade_id!r}")
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=ns_of(row.time),
        received_ns=received_ns,
        origin=origin,
        id=row.trade_id,
        price=price,
        size=size,
        # `side` is the maker's, so the taker did the opposite.
        aggressor=_BUY if row.side == "SELL" else _SELL,
    )
    return trade


def _levels(message: Any, names: Mapping[str, str], received_ns: int, said: list[Event | Signal]) -> None:
    for event in message.events:
        symbol = event.product_id
        updates = event.updates
        if event.type == "snapshot":
            said.append(Accepted(streams=(f"level2:{symbol}",)))
        name = names.get(symbol)
        if name is None:
            continue
        bids: list[Level] = []
        asks: list[Level] = []
        for row in updates:
            (bids if row.side == "bid" else asks).append((row.price_level, row.new_quantity))
        if not _are_decimal(bids, asks):
            bids = [(decimal_text(price), decimal_text(size)) for price, size in bids]
            asks = [(decimal_text(price), decimal_text(size)) for price, size in asks]
        # The engine's time, the same in all rows; a side that is empty, or a placeholder, has none.
        time_ns = ns_of(updates[0].event_time) if updates else 0
        if time_ns < _EARLIEST_NS:
            time_ns = ns_of(message.timestamp)
        kind = BookSnapshot if event.type == "snapshot" else BookDelta
        book = _new(kind)
        book.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=time_ns,
            received_ns=received_ns,
            bids=bids,
            asks=asks,
        )
        said.append(book)


def _are_decimal(bids: list[Level], asks: list[Level]) -> bool:
    """Return whether all prices and sizes are plain decimal texts.

    All are looked at together: one by one that costs more than parsing the frame.
    """
    texts = [*chain.from_iterable(bids), *chain.from_iterable(asks)]
    return "" not in texts and not "".join(texts).encode().translate(None, _DECIMAL)


def _tickers(message: Any, names: Mapping[str, str], received_ns: int, said: list[Event | Signal]) -> None:
    # A ticker has no time of its own.
    time_ns = ns_of(message.timestamp)
    for event in message.events:
        if event.type == "snapshot":
            said.append(Accepted(streams=tuple(f"ticker:{row.product_id}" for row in event.tickers)))
        for row in event.tickers:
            name = names.get(row.product_id)
            if name is None:
                continue
            last, high, low, volume = row.price, row.high_24_h, row.low_24_h, row.volume_24_h
            if not (last + high + low + volume).encode().translate(None, _DECIMAL):
                numbers = (last or None, high or None, low or None, volume or None)
            else:
                numbers = (_known(last), _known(high), _known(low), _known(volume))
            ticker = _new(Ticker)
            ticker.__init__(  # type: ignore[misc]  # see _new
                venue=VENUE,
                instrument=name,
                venue_time_ns=time_ns,
                received_ns=received_ns,
                last=numbers[0],
                high_24h=numbers[1],
                low_24h=numbers[2],
                volume_24h=numbers[3],
            )
            said.append(ticker)


def _known(text: str) -> str | None:
    """Return a number; None for "", which stands for no value everywhere in this API."""
    return text if text.replace(".", "", 1).isdecimal() else decimal_text(text) if text else None


def _quotes(message: Any, names: Mapping[str, str], received_ns: int, said: list[Event | Signal]) -> None:
    """Read the top of the book as it was at the time of the match that a ticker tells of."""
    for event in message.events:
        for row in event.tickers:
            name = names.get(row.product_id)
            if name is None or not (row.best_bid or row.best_ask):
                continue
            bid_price, bid_size = _side(row.best_bid, row.best_bid_quantity)
            ask_price, ask_size = _side(row.best_ask, row.best_ask_quantity)
            said.append(
                Quote(
                    venue=VENUE,
                    instrument=name,
                    venue_time_ns=ns_of(message.timestamp),
                    received_ns=received_ns,
                    bid_price=bid_price,
                    bid_size=bid_size,
                    ask_price=ask_price,
                    ask_size=ask_size,
                )
            )


def _side(price: str, size: str) -> tuple[str | None, str | None]:
    """Return price and size of one side of a quote; nothing for a side that is empty."""
    known_price, known_size = _known(price), _known(size)
    if known_price is None or known_size is None or not known_size.strip("0."):
        return None, None
    return known_price, known_size


def _subscriptions(
    message: Any, names: Mapping[str, str], received_ns: int, said: list[Event | Signal]
) -> None:
    """Read an answer: it names all that is subscribed now, not what was asked for last."""
    streams = [
        channel if channel in _WHOLE else f"{channel}:{product}"
        for event in message.events
        for channel, products in event.subscriptions.items()
        for product in products
    ]
    said.append(Accepted(streams=tuple(streams), complete=True))


#: Channels that are not subscribed by product; their answers list themselves, or the user's id.
_WHOLE = frozenset({HEARTBEATS, USER, "futures_balance_summary"})

Reader = Callable[[Any, Mapping[str, str], int, list[Event | Signal]], None]

_READERS: dict[type, Reader] = {
    _LevelsFrame: _levels,
    _TradesFrame: _trades,
    _TickerFrame: _tickers,
    _TickerBatchFrame: _tickers,
    _SubscriptionsFrame: _subscriptions,
}

_KNOWN = frozenset({"l2_data", "market_trades", "ticker", "ticker_batch", HEARTBEATS, "subscriptions"})
