"""Hyperliquid's stream dialect: one JSON object per frame, told apart by its `channel`.

There are no request ids, and acks repeat the subscription in a normal form, so they are matched by their content.

https://hyperliquid.gitbook.io/hyperliquid-docs/for-developers/api/websocket/subscriptions
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from pricefeedd.codec import BAD_DATA, Accepted, BaseCodec, Frame, Refused, Signal, Stream, plain_decimal
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookSnapshot, Candle, Event, Origin, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.venue import Account, Feed

VENUE = "hyperliquid"

#: Names of this module, because looking things up on other modules and on enums is felt at this rate.
_SIDES = {"B": Side.BUY, "A": Side.SELL}
_LIVE = Origin.LIVE
_BACKFILL = Origin.BACKFILL

_NS_PER_MS = 1_000_000

#: The first `trades` frame after each subscribe is a replay of about 30 past trades, and nothing says so. A frame
#: of live trades holds those of one block, so a row well before the newest of its frame is one of the past.
_PAST_NS = 2_000_000_000
#: A quiet coin's replay may be all from long ago; no live trade is ever this late.
_OLD_NS = 60_000_000_000

#: What `decode` may meet in bytes that are not what the venue documents.
_BAD_FRAME: tuple[type[Exception], ...] = (msgspec.MsgspecError, *BAD_DATA)

#: Sent as plain text by older servers, before anything else.
_GREETING = b"Websocket connection established"

_PING = '{"method":"ping"}'

#: How the venue words what went wrong with a request, before the request itself.
_ALREADY_SUBSCRIBED = "Already subscribed: "
_ALREADY_UNSUBSCRIBED = "Already unsubscribed: "

#: What a stream's name begins with, by channel; the coin follows a colon. HIP-3 coins have colons of their own.
_KINDS = {
    "trade": "trades",
    "quote": "bbo",
    "ticker": "activeAssetCtx",
    "candle_1m": "candle_1m",
    "book": "l2Book",
}

#: Books are pushed on a clock, about every 0.54 s with 5 levels and every 5.4 s with 20, changed or not.
_BOOK_OWES_S = {5: 3.0, 20: 15.0}
#: A perpetual's context moves with its oracle price, about once a second.
_CONTEXT_OWES_S = 20.0

#: All that prices and sizes are written with.
_DECIMAL = b"0123456789."


# --- What frames are made of ------------------------------------------------------------------------------
# Parsed into these the types are checked on the way. Fields that we do not read are not named, and passed over.


class TradeRow(msgspec.Struct, gc=False):
    """A row of `trades`, and of `recentTrades` by REST."""

    coin: str
    side: str
    px: str
    sz: str
    time: int
    tid: int


class LevelRow(msgspec.Struct, gc=False):
    """One level of a book, or one side of a quote."""

    px: Annotated[str, msgspec.Meta(min_length=1)]
    sz: Annotated[str, msgspec.Meta(min_length=1)]


class QuoteData(msgspec.Struct, gc=False):
    """A `bbo`: bid and ask, null where there is none."""

    coin: str
    time: int
    bbo: list[LevelRow | None]


class BookData(msgspec.Struct, gc=False):
    """An `l2Book`: bids and asks, best first; the answer of REST is the same."""

    coin: str
    time: int
    levels: tuple[list[LevelRow], list[LevelRow]]


class CandleRow(msgspec.Struct, gc=False):
    """A `candle`, and a row of `candleSnapshot`. Mind the case: `t` is the start and `T` the end."""

    t: int
    T: int
    s: str
    i: str
    o: str
    h: str
    l: str  # noqa: E741  # the venue's word
    c: str
    v: str
    n: int


class Context(msgspec.Struct, gc=False, rename="camel"):
    """The inside of an `activeAssetCtx`; spot pairs and older frames have less of it."""

    prev_day_px: str | None = None
    day_ntl_vlm: str | None = None
    day_base_vlm: str | None = None
    mark_px: str | None = None
    oracle_px: str | None = None
    funding: str | None = None
    open_interest: str | None = None


class ContextData(msgspec.Struct, gc=False):
    """An `activeAssetCtx`."""

    coin: str
    ctx: Context


class Subscription(msgspec.Struct, gc=False):
    """A subscription, as the venue repeats it."""

    type: str = ""
    coin: str = ""
    interval: str = ""


class Response(msgspec.Struct, gc=False):
    """A `subscriptionResponse`."""

    method: str
    subscription: Subscription


class _Trades(msgspec.Struct, gc=False, tag_field="channel", tag="trades"):
    data: list[TradeRow]


class _Quote(msgspec.Struct, gc=False, tag_field="channel", tag="bbo"):
    data: QuoteData


class _Book(msgspec.Struct, gc=False, tag_field="channel", tag="l2Book"):
    data: BookData


class _Candle(msgspec.Struct, gc=False, tag_field="channel", tag="candle"):
    data: CandleRow


class _Context(msgspec.Struct, gc=False, tag_field="channel", tag="activeAssetCtx"):
    data: ContextData


class _SpotContext(msgspec.Struct, gc=False, tag_field="channel", tag="activeSpotAssetCtx"):
    """A spot pair's context is subscribed as `activeAssetCtx` and comes under a name of its own."""

    data: ContextData


class _Response(msgspec.Struct, gc=False, tag_field="channel", tag="subscriptionResponse"):
    data: Response


class _Error(msgspec.Struct, gc=False, tag_field="channel", tag="error"):
    data: str


class _Pong(msgspec.Struct, gc=False, tag_field="channel", tag="pong"):
    """The answer to a ping; it has no `data`."""


class _Other(msgspec.Struct, gc=False):
    """Any frame at all."""

    channel: str


class _Blamed(Subscription, gc=False):
    """What an error repeats: our request, or the subscription in it."""

    subscription: Subscription | None = None


_Message = _Trades | _Quote | _Book | _Candle | _Context | _SpotContext | _Response | _Error | _Pong

_KNOWN = frozenset(
    [
        "trades",
        "bbo",
        "l2Book",
        "candle",
        "activeAssetCtx",
        "activeSpotAssetCtx",
        "subscriptionResponse",
        "error",
        "pong",
    ]
)
_STREAM_KINDS = frozenset(_KINDS.values())

_decode = msgspec.json.Decoder(_Message).decode
_decode_other = msgspec.json.Decoder(_Other).decode
_decode_blamed = msgspec.json.Decoder(_Blamed).decode
_encode = msgspec.json.encode

Reader = Callable[[Any, Mapping[str, str], int], Sequence[Event | Signal]]


class HyperliquidCodec(BaseCodec):
    """Speaks the streams of perpetuals and spot pairs, which differ in the coin only.

    Attributes:
        book_levels: 5, which the venue sends twice a second, or 20, which it sends every five seconds.
    """

    def __init__(self, book_levels: int = 5) -> None:
        self.book_levels = book_levels

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the one stream of a channel.

        Delisted coins are accepted by the venue and stay silent, so nothing is expected of them.
        """
        kind = _KINDS.get(channel)
        if kind is None:
            return ()
        owes_s = None
        if instrument.tradable:
            if channel == "book":
                owes_s = _BOOK_OWES_S[self.book_levels]
            elif channel == "ticker" and instrument.market != "spot":
                owes_s = _CONTEXT_OWES_S
        name = f"{kind}:{instrument.symbol}"
        # A group of its own: a frame names one subscription.
        return (Stream(feed=instrument.market, name=name, group=name, owes_within_s=owes_s),)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return the frame that subscribes one stream; the venue takes one per frame."""
        return self._request("subscribe", streams)

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return the frame that ends one stream."""
        return self._request("unsubscribe", streams)

    def _request(self, method: str, streams: Sequence[Stream]) -> str:
        (stream,) = streams
        subscription = subscription_of(stream.name, fast=self.book_levels == 5)
        return _encode({"method": method, "subscription": subscription}).decode()

    def ping(self, feed: Feed, *, now_ns: int) -> Frame:
        """Return the JSON ping. What keeps a connection alive is the venue's own traffic, here its pong."""
        return _PING

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says. Coins and channels that we do not know are passed over.

        Raises:
            DecodeError: The frame is not JSON, or lacks what the page above promises.
        """
        try:
            message = _decode(frame)
            if message.__class__ is _Pong:
                return ()
            return _READERS[message.__class__](message.data, names, received_ns)
        except _BAD_FRAME as e:
            if _means_nothing(frame):
                return ()
            raise DecodeError(f"bad frame {frame[:120]!r} ({e!r})", venue=VENUE) from e


def _means_nothing(frame: bytes) -> bool:
    """Return whether a frame is the old greeting, or of a channel that we do not know."""
    if frame.startswith(_GREETING):
        return True
    try:
        return _decode_other(frame).channel not in _KNOWN
    except _BAD_FRAME:
        return False


# --- Streams and subscriptions ----------------------------------------------------------------------------


def subscription_of(name: str, *, fast: bool) -> dict[str, Any]:
    """Return the subscription that a stream's name stands for.

    Args:
        fast: Whether a book is the one of 5 levels.
    """
    kind, _, coin = name.partition(":")
    if kind == "candle_1m":
        return {"type": "candle", "coin": coin, "interval": "1m"}
    if kind == "l2Book" and fast:
        return {"type": kind, "coin": coin, "fast": True}
    return {"type": kind, "coin": coin}


def name_of(subscription: Subscription) -> str | None:
    """Return the name of the stream that a subscription stands for, None for one that is none of ours.

    Both kinds of book have one name: their frames come on one channel, so a connection has one of them only.
    """
    kind = subscription.type
    if kind == "candle" and subscription.interval == "1m":
        kind = "candle_1m"
    return f"{kind}:{subscription.coin}" if kind in _STREAM_KINDS and subscription.coin else None


def _response(data: Response, names: Mapping[str, str], received_ns: int) -> Sequence[Signal]:
    name = name_of(data.subscription)
    if name is None or data.method != "subscribe":
        return ()
    return (Accepted(streams=(name,)),)


def _error(data: str, names: Mapping[str, str], received_ns: int) -> Sequence[Signal]:
    """Read an error: a sentence, and often the request or the subscription that it is about."""
    if data.startswith(_ALREADY_UNSUBSCRIBED):
        return ()
    name = _blamed(data)
    if data.startswith(_ALREADY_SUBSCRIBED):
        return () if name is None else (Accepted(streams=(name,)),)
    return (Refused(reason=data, streams=() if name is None else (name,)),)


def _blamed(text: str) -> str | None:
    """Return the stream that an error is about, where it repeats the request."""
    try:
        found = _decode_blamed(text[text.index("{") :])
    except _BAD_FRAME:
        return None
    return name_of(found.subscription or found)


# --- Data -------------------------------------------------------------------------------------------------


def number(text: str) -> str:
    """Return a decimal text, written out if it has an exponent.

    Raises:
        ValueError: It is none.
    """
    if text.replace(".", "", 1).isdecimal():
        return text
    plain = plain_decimal(text)
    if not plain.replace("-", "", 1).replace(".", "", 1).isdecimal():
        raise ValueError(f"not a decimal text: {text!r}")
    return plain


# Trades and quotes are most of what comes. To call a class with keywords costs 0.57 µs on Python 3.11, to make
# the object and call its __init__ 0.32 µs.
_new = object.__new__


def read_trade(row: TradeRow, name: str, received_ns: int, origin: Origin = _LIVE) -> Trade:
    """Return the trade in a row.

    The hash may be all zeros (as of TWAP orders), so only `tid` tells trades apart; it does not grow.

    Raises:
        KeyError, ValueError: It is not one.
    """
    price, size = row.px, row.sz
    if not (price.replace(".", "", 1).isdecimal() and size.replace(".", "", 1).isdecimal()):
        price, size = number(price), number(size)
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=row.time * _NS_PER_MS,
        received_ns=received_ns,
        origin=origin,
        id=str(row.tid),
        price=price,
        size=size,
        aggressor=_SIDES[row.side],
    )
    return trade


time_of = attrgetter("time")


def _trades(rows: list[TradeRow], names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read the trades of one block and one coin, or the replay of past ones that follows a subscribe."""
    past_ns = received_ns - _OLD_NS
    if len(rows) > 1:
        rows.sort(key=time_of)
        past_ns = max(past_ns, rows[-1].time * _NS_PER_MS - _PAST_NS)
    return [
        read_trade(row, name, received_ns, _LIVE if row.time * _NS_PER_MS >= past_ns else _BACKFILL)
        for row in rows
        if (name := names.get(row.coin)) is not None
    ]


def _quote(data: QuoteData, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data.coin)
    if name is None:
        return ()
    # A side that is empty is null; one that is not there at all was seen once.
    sides = data.bbo
    bid = sides[0]
    ask = sides[1] if len(sides) > 1 else None
    bid_price = bid_size = ask_price = ask_size = None
    if bid is not None:
        bid_price, bid_size = bid.px, bid.sz
        if not (bid_price.replace(".", "", 1).isdecimal() and bid_size.replace(".", "", 1).isdecimal()):
            bid_price, bid_size = number(bid_price), number(bid_size)
    if ask is not None:
        ask_price, ask_size = ask.px, ask.sz
        if not (ask_price.replace(".", "", 1).isdecimal() and ask_size.replace(".", "", 1).isdecimal()):
            ask_price, ask_size = number(ask_price), number(ask_size)
    quote = _new(Quote)
    quote.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=data.time * _NS_PER_MS,
        received_ns=received_ns,
        bid_price=bid_price,
        bid_size=bid_size,
        ask_price=ask_price,
        ask_size=ask_size,
        # A coin has one quote per block, so the time of the block numbers them.
        sequence=data.time,
    )
    return (quote,)


def _maybe(text: str | None) -> str | None:
    return None if text is None else number(text)


def _context(data: ContextData, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read an asset's context; spot pairs have no oracle, funding or open interest.

    `funding` is a fraction per hour, and funding is exchanged each hour. There is no time in it, and no last price.
    """
    name = names.get(data.coin)
    if name is None:
        return ()
    context = data.ctx
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            received_ns=received_ns,
            open_24h=_maybe(context.prev_day_px),
            volume_24h=_maybe(context.day_base_vlm),
            turnover_24h=_maybe(context.day_ntl_vlm),
            mark_price=_maybe(context.mark_px),
            index_price=_maybe(context.oracle_px),
            funding_rate=_maybe(context.funding),
            open_interest=_maybe(context.open_interest),
        ),
    )


def read_candle(
    row: CandleRow, name: str, received_ns: int, *, closed: bool, origin: Origin = _LIVE
) -> Candle:
    """Return a candle.

    Raises:
        ValueError: It is not one.
    """
    return Candle(
        venue=VENUE,
        instrument=name,
        received_ns=received_ns,
        origin=origin,
        start_ns=row.t * _NS_PER_MS,
        open=number(row.o),
        high=number(row.h),
        low=number(row.l),
        close=number(row.c),
        volume=number(row.v),
        trades=row.n,
        closed=closed,
    )


def _candle(row: CandleRow, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read a candle. Nothing in it says that it is final: the next one's appearance does."""
    name = names.get(row.s)
    if name is None or row.i != "1m":
        return ()
    return (read_candle(row, name, received_ns, closed=False),)


def read_book(data: BookData, name: str, received_ns: int) -> BookSnapshot:
    """Return an order book, which is always a whole one.

    Raises:
        ValueError: It is not one.
    """
    bid_rows, ask_rows = data.levels
    bids = [(row.px, row.sz) for row in bid_rows]
    asks = [(row.px, row.sz) for row in ask_rows]
    # All texts are checked at once: one by one that costs more than parsing the frame.
    if "".join(map("".join, bids + asks)).encode().translate(None, _DECIMAL):
        bids = [(number(price), number(size)) for price, size in bids]
        asks = [(number(price), number(size)) for price, size in asks]
    return BookSnapshot(
        venue=VENUE,
        instrument=name,
        venue_time_ns=data.time * _NS_PER_MS,
        received_ns=received_ns,
        bids=bids,
        asks=asks,
    )


def _book(data: BookData, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    name = names.get(data.coin)
    return () if name is None else (read_book(data, name, received_ns),)


#: By kind of message.
_READERS: dict[type, Reader] = {
    _Trades: _trades,
    _Quote: _quote,
    _Book: _book,
    _Candle: _candle,
    _Context: _context,
    _SpotContext: _context,
    _Response: _response,
    _Error: _error,
}
