"""Bybit's stream dialect: v5 public streams of spot, linear and inverse, and the private stream.

A connection carries one market, which its path names and no frame does: `BTCUSDT` is on spot and on linear.

https://bybit-exchange.github.io/docs/v5/ws/connect
https://bybit-exchange.github.io/docs/v5/websocket/public/trade
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from pricefeedd.codec import (
    BAD_DATA,
    Accepted,
    BaseCodec,
    Failed,
    Frame,
    LoggedIn,
    LoginRefused,
    Refused,
    Signal,
    Stream,
    decimal_text,
    ns_of_ms,
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
from pricefeedd.rest import HttpReply
from pricefeedd.venue import Account, Feed
from pricefeedd_bybit.accounts import PRIVATE_TOPICS, read_private
from pricefeedd_bybit.wire import VENUE, best_level, decimal_texts, levels, ns_of_text, signed_text

#: Names of this module, because looking things up on other modules and on enums is felt at this rate.
_loads = orjson.loads
_BUY = Side.BUY
_SELL = Side.SELL
_SIDES = {"Buy": _BUY, "Sell": _SELL}

_NS_PER_MS = 1_000_000

#: The best level is sent again when 3 s pass without a change. This is a little more than three of these.
#: https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook
_QUOTE_OWES_S = 10.0

#: Login stamps say until when they hold. The second that the official samples give is too tight for clocks
#: that differ a little, and the venue then says no more than "Params Error".
_LOGIN_HOLDS_MS = 10_000

#: An address that connects too often is refused; at least this long it must not come again.
#: https://bybit-exchange.github.io/docs/v5/rate-limit
_BAN_S = 600.0
_RETRY_S = 300.0

_PING = '{"op":"ping"}'

#: `error:handler not found,topic:orderbook.500.BTCUSDT` on linear and inverse, `Invalid symbol :[...]` on spot.
_ALREADY = re.compile(r"already subscribed,topic:(\S+)")
_NOT_FOUND = re.compile(r"topic:(\S+)|Invalid symbol ?:\[([^\]]*)\]")

Reader = Callable[[Any, str, Feed, Mapping[str, str], int], Sequence[Event | Signal]]


class BybitCodec(BaseCodec):
    """Speaks the public streams of all three markets, and the private one; the feed says which.

    Attributes:
        book_depth: Levels per side of the order book: 50, 200 or 1000.
    """

    def __init__(self, book_depth: int = 50) -> None:
        self.book_depth = book_depth

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the one stream of a channel; for a private channel that of the account."""
        if channel in PRIVATE_TOPICS:
            return (Stream(feed="private", name=PRIVATE_TOPICS[channel]),)
        market, symbol = instrument.market, instrument.symbol
        if channel == "trade":
            return (Stream(feed=market, name=f"publicTrade.{symbol}"),)
        if channel == "quote":
            return (Stream(feed=market, name=f"orderbook.1.{symbol}", owes_within_s=_QUOTE_OWES_S),)
        if channel == "ticker":
            return (Stream(feed=market, name=f"tickers.{symbol}"),)
        if channel == "candle_1m":
            return (Stream(feed=market, name=f"kline.1.{symbol}"),)
        if channel == "book":
            return (Stream(feed=market, name=f"orderbook.{self.book_depth}.{symbol}"),)
        if channel == "liquidation" and market != "spot":
            return (Stream(feed=market, name=f"allLiquidation.{symbol}"),)
        return ()

    def login(self, feed: Feed, *, now_ns: int, account: Account) -> Sequence[Frame]:
        """Return the frame that logs in: an HMAC over the time until which it holds.

        https://bybit-exchange.github.io/docs/v5/ws/connect#authentication
        """
        expires = now_ns // _NS_PER_MS + _LOGIN_HOLDS_MS
        payload = f"GET/realtime{expires}".encode()
        signature = hmac.new(account.api_secret.encode(), payload, hashlib.sha256).hexdigest()
        body = {"req_id": "login", "op": "auth", "args": [account.api_key, expires, signature]}
        return (orjson.dumps(body).decode(),)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return a subscribe frame; it is answered once, and one bad topic loses all of it."""
        return _request("subscribe", streams, request_id)

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return an unsubscribe frame."""
        return _request("unsubscribe", streams, request_id)

    def ping(self, feed: Feed, *, now_ns: int) -> Frame:
        """Return the application's ping, which the venue wants each 20 s."""
        return _PING

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says. Symbols and topics that we do not know are passed over.

        Raises:
            DecodeError: The frame is not JSON, or lacks what the pages above promise.
        """
        try:
            message = _loads(frame)
            topic = message.get("topic")
            if topic is None:
                return _control(message, feed)
            if feed.private:
                return read_private(message, received_ns)
            kind, _, rest = topic.partition(".")
            read = _READERS.get(kind)
            return () if read is None else read(message, rest, feed, names, received_ns)
        except BAD_DATA as e:
            raise DecodeError(f"bad frame {frame[:120]!r} ({e!r})", venue=VENUE) from e

    def refused(self, feed: Feed, reply: HttpReply) -> Sequence[Signal]:
        """Tell a ban from other refusals: 403 stands for too many connections or a region not served."""
        if reply.status not in (403, 429):
            return ()
        text = reply.body[:200].decode("utf-8", "replace")
        wait_s = _BAN_S if "too frequent" in text else _RETRY_S
        reason = f"HTTP {reply.status} (too many connections, or a region that is not served): {text}"
        return (Failed(reason, retry_after_s=wait_s),)


def _request(op: str, streams: Sequence[Stream], request_id: int) -> str:
    body = {"req_id": str(request_id), "op": op, "args": [stream.name for stream in streams]}
    return orjson.dumps(body).decode()


# --- Answers ----------------------------------------------------------------------------------------------


def _control(message: Any, feed: Feed) -> Sequence[Signal]:
    """Read a frame without a topic: the answer to a request, a ping or the login."""
    op = message.get("op")
    # Pongs are called `ping` on public streams and `pong` on private ones.
    if op == "pong" or (op == "ping" and message.get("ret_msg") == "pong"):
        return ()
    # The order-entry host has other keys for the same: retCode, retMsg.
    good = message.get("success")
    if good is None and "retCode" in message:
        good = message["retCode"] == 0
    if type(good) is not bool:
        raise TypeError("neither data nor an answer")
    reason = message.get("ret_msg") or message.get("retMsg") or "refused without a reason"
    if type(reason) is not str:
        raise TypeError("ret_msg is not a text")
    if op == "auth":
        if good:
            return (LoggedIn(),)
        # "Params Error" stands for nearly all of them: decide by `success`, and tell what to look at.
        return (LoginRefused(f"{reason} (look at the key, its environment and this host's clock)"),)
    if op == "unsubscribe":
        # Nothing hangs on it: a new subscription of what is still subscribed is told as such.
        return ()
    request_id = _request_id(message.get("req_id"))
    if good:
        return () if request_id is None or op != "subscribe" else (Accepted(request_id=request_id),)
    return _refusal(reason, request_id)


def _request_id(text: Any) -> int | None:
    """Return our number from `req_id`, which is "" where we sent none."""
    if type(text) is str and text.isdecimal() and text.isascii() and len(text) < 19:
        return int(text)
    return None


def _refusal(reason: str, request_id: int | None) -> Sequence[Signal]:
    """Tell a topic that is bad from one that flows already; both lose the rest of their request."""
    already = _ALREADY.search(reason)
    if already is not None:
        rest = Refused(reason=reason, request_id=request_id, others_lost=True)
        return (Accepted(streams=(already[1],)), rest)
    found = _NOT_FOUND.search(reason)
    topic = None if found is None else found[1] or found[2]
    if topic and "." in topic:
        names = tuple(name.strip() for name in topic.split(","))
        return (Refused(reason=reason, request_id=request_id, streams=names, others_lost=True),)
    # No topic is named: each of the request is asked for alone.
    return (Refused(reason=reason, request_id=request_id),)


# --- Readers, one per kind of topic -----------------------------------------------------------------------
# They check types because JSON of the wrong shape must end here.

# To call a class with keywords costs 0.57 µs on Python 3.11, to make the object and call its __init__ 0.32 µs.
_new = object.__new__


def _trades(
    message: Any, symbol: str, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    """Read a `publicTrade`: new trades, oldest first, up to 1024. Its `type` is always `snapshot`.

    https://bybit-exchange.github.io/docs/v5/websocket/public/trade
    """
    name = names.get(symbol)
    if name is None:
        return ()
    trades = []
    for row in message["data"]:
        price = row["p"]
        size = row["v"]
        trade_id = row["i"]
        time_ms = row["T"]
        if type(trade_id) is not str or type(time_ms) is not int:
            raise TypeError("i or T has the wrong type")
        if not (
            price.replace(".", "", 1).isdecimal()
            and size.replace(".", "", 1).isdecimal()
            and price.isascii()
            and size.isascii()
        ):
            price, size = decimal_text(price), decimal_text(size)
        trade = _new(Trade)
        trade.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=time_ms * _NS_PER_MS,
            received_ns=received_ns,
            id=trade_id,
            price=price,
            size=size,
            aggressor=_SIDES[row["S"]],  # the taker's side
        )
        trades.append(trade)
    return trades


def _order_book(
    message: Any, rest: str, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    depth, _, symbol = rest.partition(".")
    name = names.get(symbol)
    if name is None:
        return ()
    data = message["data"]
    kind = message["type"]
    sequence = data["u"]
    # `cts` is the matching engine's time; captures before 2023-11 lack it.
    time_ms = message.get("cts")
    if time_ms is None:
        time_ms = message["ts"]
    if type(sequence) is not int or type(time_ms) is not int:
        raise TypeError("u, cts or ts has the wrong type")
    if depth == "1":
        return (_quote(kind, data, name, time_ms, received_ns),)
    bids, asks = levels(data["b"], data["a"])
    if kind == "delta" and sequence != 1:
        delta = _new(BookDelta)
        delta.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=time_ms * _NS_PER_MS,
            received_ns=received_ns,
            bids=bids,
            asks=asks,
            sequence=sequence,
        )
        return (delta,)
    # A message with `u` 1 is a whole book, whatever it calls itself: the venue's service began anew.
    if kind not in ("snapshot", "delta"):
        raise ValueError(f"unknown type {kind!r}")
    return (
        BookSnapshot(
            venue=VENUE,
            instrument=name,
            venue_time_ns=time_ms * _NS_PER_MS,
            received_ns=received_ns,
            bids=bids,
            asks=asks,
            sequence=sequence,
        ),
    )


def _quote(kind: Any, data: Any, name: str, time_ms: int, received_ns: int) -> Quote:
    """Read the book of depth 1: the whole best level each time, since 2025-03-20.

    It is numbered by the cross sequence: `u` begins anew with the venue's service, this one grows on, and it
    is the same when the level is sent again for want of news.
    """
    if kind != "snapshot":
        raise ValueError(f"the best level comes as {kind!r} and not whole")
    sequence = data["seq"]
    if type(sequence) is not int:
        raise TypeError(f"not a sequence: {sequence!r}")
    bid_price, bid_size = best_level(data["b"])
    ask_price, ask_size = best_level(data["a"])
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
    return quote


#: Our fields by the venue's; `usdIndexPrice` of spot is no index of the pair.
_TICKER_FIELDS = {
    "lastPrice": "last",
    "prevPrice24h": "open_24h",
    "highPrice24h": "high_24h",
    "lowPrice24h": "low_24h",
    "volume24h": "volume_24h",
    "turnover24h": "turnover_24h",
    "markPrice": "mark_price",
    "indexPrice": "index_price",
    "openInterest": "open_interest",
}


def _ticker(
    message: Any, symbol: str, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    """Read a `tickers`: a delta has what changed only. The best bid and offer in it are left to the quote.

    https://bybit-exchange.github.io/docs/v5/websocket/public/ticker
    """
    name = names.get(symbol)
    if name is None:
        return ()
    data = message["data"]
    kind = message["type"]
    if kind not in ("snapshot", "delta"):
        raise ValueError(f"unknown type {kind!r}")
    values = decimal_texts(
        {ours: text for theirs, text in data.items() if text and (ours := _TICKER_FIELDS.get(theirs))}
    )
    # Dated contracts have no funding: "" stands for nothing. The time is a text here, in ms.
    if rate := data.get("fundingRate"):
        values["funding_rate"] = signed_text(rate)
    if next_funding := data.get("nextFundingTime"):
        values["next_funding_ns"] = ns_of_text(next_funding) or None
    if not values:
        return ()
    ticker = _new(Ticker)
    ticker.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=ns_of_ms(message["ts"]),
        received_ns=received_ns,
        partial=kind == "delta",
        **values,
    )
    return (ticker,)


def _candles(
    message: Any, rest: str, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    """Read a `kline`: one row, or around the change of a minute also two. `confirm` is the venue's final word.

    https://bybit-exchange.github.io/docs/v5/websocket/public/kline
    """
    interval, _, symbol = rest.partition(".")
    name = names.get(symbol)
    if name is None or interval != "1":
        return ()
    time_ns = ns_of_ms(message["ts"])
    candles = []
    for row in message["data"]:
        closed = row["confirm"]
        if type(closed) is not bool:
            raise TypeError("confirm has the wrong type")
        candle = _new(Candle)
        candle.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=time_ns,
            received_ns=received_ns,
            start_ns=ns_of_ms(row["start"]),
            open=decimal_text(row["open"]),
            high=decimal_text(row["high"]),
            low=decimal_text(row["low"]),
            close=decimal_text(row["close"]),
            volume=decimal_text(row["volume"]),
            turnover=decimal_text(row["turnover"]),
            closed=closed,
        )
        candles.append(candle)
    return candles


def _liquidations(
    message: Any, symbol: str, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    """Read an `allLiquidation`: all of the last 500 ms, each at its bankruptcy price.

    `S` is the side of the position: `Buy` says that a long one was closed, by an order that sold.
    https://bybit-exchange.github.io/docs/v5/websocket/public/all-liquidation
    """
    name = names.get(symbol)
    if name is None:
        return ()
    return [
        Liquidation(
            venue=VENUE,
            instrument=name,
            venue_time_ns=ns_of_ms(row["T"]),
            received_ns=received_ns,
            price=decimal_text(row["p"]),
            size=decimal_text(row["v"]),
            side=_SELL if _SIDES[row["S"]] is _BUY else _BUY,
        )
        for row in message["data"]
    ]


_READERS: dict[str, Reader] = {
    "publicTrade": _trades,
    "orderbook": _order_book,
    "tickers": _ticker,
    "kline": _candles,
    "allLiquidation": _liquidations,
}
