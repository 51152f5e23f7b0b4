"""OKX's stream dialect: pushes of the public and business endpoints to events.

One protocol serves all markets: the same URLs, channels and fields. Only the unit of sizes differs, base units
on spot and contracts elsewhere, and which of two turnovers is in the currency that we speak of.

https://www.okx.com/docs-v5/en/#order-book-trading-market-data
https://www.okx.com/docs-v5/en/#public-data-websocket
https://www.okx.com/docs-v5/en/#overview-websocket
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

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
    decimal_text,
)
from pricefeedd.errors import DecodeError
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Level,
    Liquidation,
    Quote,
    Side,
    Ticker,
    Trade,
)
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.venue import Account, Feed

VENUE = "okx"

#: Names of this module, because looking things up on other modules and on enums is felt at this rate.
_loads = orjson.loads
_flat = chain.from_iterable
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}

_NS_PER_MS = 1_000_000

#: The mark price is pushed each 10 s even when it does not change; every other stream may rightly be silent.
#: https://www.okx.com/docs-v5/en/#public-data-websocket-mark-price-channel
_MARK_PRICE_OWES_S = 15.0

#: Channels that are subscribed by kind of contract instead of by instrument.
_BY_TYPE = frozenset({"liquidation-orders"})

#: All that prices and sizes are written with, and what we put between them.
_DECIMALS = b"0123456789.|"

#: The venue was asked too fast, or has a fault of its own: the same request may be taken later, after so many s.
_PASSING = {"60014": 60.0, "64007": 30.0}
_UPGRADE = "64008"

#: How the venue names what it does not have; the error itself has no `arg`.
_NO_SUCH = re.compile(r"channel:([^,\s]+),inst(?:Id|Type):(\S+?) doesn't exist")

Reader = Callable[[Any, Any, Feed, Mapping[str, str], int], Sequence[Event | Signal]]


class OkxCodec(BaseCodec):
    """Speaks the streams of all markets.

    Attributes:
        trade_channel: `trades`, one push per order, price and source; or `trades-all`, one per fill.
    """

    def __init__(self, trade_channel: str = "trades") -> None:
        self.trade_channel = trade_channel

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the streams of a channel; a derivative's ticker is made of up to five."""
        market, symbol = instrument.market, instrument.symbol
        perpetual = instrument.kind is Kind.PERPETUAL
        if channel == "trade":
            feed = "business" if self.trade_channel == "trades-all" else "public"
            return (Stream(feed=f"{market}-{feed}", name=f"{self.trade_channel}:{symbol}"),)
        if channel == "quote":
            return (Stream(feed=f"{market}-public", name=f"bbo-tbt:{symbol}"),)
        if channel == "candle_1m":
            return (Stream(feed=f"{market}-business", name=f"candle1m:{symbol}"),)
        if channel == "book":
            return (Stream(feed=f"{market}-book", name=f"books:{symbol}"),)
        if channel == "liquidation" and market != "spot":
            return (Stream(feed=f"{market}-public", name=f"liquidation-orders:{_type(instrument)}"),)
        if channel != "ticker":
            return ()
        ticker = Stream(feed=f"{market}-public", name=f"tickers:{symbol}")
        if market == "spot":
            return (ticker,)
        names = [f"open-interest:{symbol}"]
        if perpetual:
            names.append(f"funding-rate:{symbol}")
        index = f"{instrument.base}-{instrument.quote}"
        if symbol == _swap_on(index):
            names.append(f"index-tickers:{index}")
        mark = Stream(feed=ticker.feed, name=f"mark-price:{symbol}", owes_within_s=_MARK_PRICE_OWES_S)
        return (ticker, mark, *(Stream(feed=ticker.feed, name=name) for name in names))

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return a subscribe frame; each of its streams is answered on its own."""
        return _request("subscribe", streams, str(request_id))

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Return an unsubscribe frame, whose id tells its answers from those to subscribe frames."""
        return _request("unsubscribe", streams, f"u{request_id}")

    def ping(self, feed: Feed, *, now_ns: int) -> Frame:
        """Return the word that keeps a quiet connection: it is cut after 30 s without a push.

        https://www.okx.com/docs-v5/en/#overview-websocket-connect
        """
        return "ping"

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return what one frame says. Symbols and channels that we do not know are passed over.

        Raises:
            DecodeError: The frame is not JSON, or lacks what the pages above promise.
        """
        if frame == b"pong":
            return ()
        try:
            message = _loads(frame)
            if "data" in message:
                arg = message["arg"]
                read = _READERS.get(arg["channel"])
                return () if read is None else read(message, arg, feed, names, received_ns)
            return _control(message)
        except BAD_DATA as e:
            raise DecodeError(f"bad frame {frame[:120]!r} ({e!r})", venue=VENUE) from e


def _type(instrument: Instrument) -> str:
    return "SWAP" if instrument.kind is Kind.PERPETUAL else "FUTURES"


def _swap_on(index: str) -> str:
    """Return the symbol of the swap on an index, by the documented form `BASE-QUOTE-SWAP`."""
    return f"{index}-SWAP"


def stream_name(arg: Mapping[str, str]) -> str:
    """Return the name of the stream that an `arg` stands for: channel, and instrument or its type.

    Raises:
        KeyError, TypeError: It is none.
    """
    what = arg.get("instId") or arg["instType"]
    return arg["channel"] + ":" + what


def stream_arg(name: str) -> dict[str, str]:
    """Return the `arg` of a stream's name."""
    channel, _, what = name.partition(":")
    return {"channel": channel, "instType" if channel in _BY_TYPE else "instId": what}


def _request(op: str, streams: Sequence[Stream], request_id: str) -> str:
    args = [stream_arg(stream.name) for stream in streams]
    return orjson.dumps({"id": request_id, "op": op, "args": args}).decode()


def _control(message: Any) -> Sequence[Signal]:
    """Read a frame that is no data: an answer to a request, or an announcement."""
    event = message["event"]
    text = message.get("id")
    request_id = int(text) if type(text) is str and text.isdecimal() else None
    if event == "subscribe":
        return (Accepted(request_id=request_id, streams=(stream_name(message["arg"]),)),)
    if event == "error":
        code, reason = message["code"], message["msg"]
        if type(text) is str and text[:1] == "u":
            return ()  # what is not subscribed cannot be ended
        found = _NO_SUCH.search(reason)
        names = () if found is None else (f"{found[1]}:{found[2]}",)
        return (
            Refused(
                reason=f"{reason} (code {code})",
                request_id=request_id,
                streams=names,
                retry_after_s=_PASSING.get(code),
            ),
        )
    if event == "notice" and message["code"] == _UPGRADE:
        return (Closing(str(message["msg"])),)
    return ()  # unsubscribed, or a count of connections: nobody waits for it


# --- Readers, one per channel -----------------------------------------------------------------------------
# They check types because JSON of the wrong shape must end here.


def _ns(text: Any) -> int:
    """Return a time: all of them are texts of ms."""
    if type(text) is not str:
        raise TypeError(f"not a time in ms: {text!r}")
    return int(text) * _NS_PER_MS


def _optional(text: Any) -> str | None:
    """Return a decimal text; None for the "" that stands for no value."""
    return decimal_text(text) if text else None


# Trades and quotes are most of what comes. To call a class with keywords costs 0.57 µs on Python 3.11, to make
# the object and call its __init__ 0.32 µs.
_new = object.__new__


def read_trade(row: Any, name: str, received_ns: int) -> Trade:
    """Return the trade in a row of `trades` or `trades-all`; REST rows have the same keys.

    A row of `trades` stands for `count` fills of one order at one price, and has the id of the last. Ids count the
    fills of an instrument by one. Other rows are single fills and have no count.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is none.
    """
    trade_id, price, size, ts = row["tradeId"], row["px"], row["sz"], row["ts"]
    if not (trade_id.isdecimal() and type(ts) is str):
        raise TypeError(f"tradeId or ts is not a text of digits: {trade_id!r}, {ts!r}")
    if not (price.replace(".", "", 1).isdecimal() and size.replace(".", "", 1).isdecimal()):
        price, size = decimal_text(price), decimal_text(size)
    fills = int(row.get("count", 1))
    if fills < 1:
        raise ValueError(f"a trade of {fills} fills")
    trade = _new(Trade)
    trade.__init__(  # type: ignore[misc]  # see _new
        venue=VENUE,
        instrument=name,
        venue_time_ns=int(ts) * _NS_PER_MS,
        received_ns=received_ns,
        id=trade_id,
        price=price,
        size=size,
        aggressor=_SIDES[row["side"]],  # of the taker
        fills=fills,
    )
    return trade


def _trades(
    message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    name = names.get(arg["instId"])
    if name is None:
        return ()
    return [read_trade(row, name, received_ns) for row in message["data"]]


def _best(rows: Any) -> tuple[str | None, str | None]:
    """Return price and size of the only level of a side; None for both where it is empty."""
    if type(rows) is not list:
        raise TypeError("the levels are not a list")
    if not rows:
        return None, None
    row = rows[0]
    price, size = row[0], row[1]
    if price.replace(".", "", 1).isdecimal() and size.replace(".", "", 1).isdecimal():
        return price, size
    return decimal_text(price), decimal_text(size)


def _quote(message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read `bbo-tbt`: the best level, complete each time."""
    name = names.get(arg["instId"])
    if name is None:
        return ()
    quotes = []
    for row in message["data"]:
        bid_price, bid_size = _best(row["bids"])
        ask_price, ask_size = _best(row["asks"])
        ts, sequence = row["ts"], row.get("seqId")
        if type(ts) is not str or (sequence is not None and type(sequence) is not int):
            raise TypeError(f"ts or seqId has the wrong type: {ts!r}, {sequence!r}")
        quote = _new(Quote)
        quote.__init__(  # type: ignore[misc]  # see _new
            venue=VENUE,
            instrument=name,
            venue_time_ns=int(ts) * _NS_PER_MS,
            received_ns=received_ns,
            bid_price=bid_price,
            bid_size=bid_size,
            ask_price=ask_price,
            ask_size=ask_size,
            sequence=sequence,
        )
        quotes.append(quote)
    return quotes


def read_levels(bids: Any, asks: Any) -> tuple[Sequence[Level], Sequence[Level]]:
    """Return price and size of the levels of both sides: rows of price, size, a constant and a count.

    All texts are checked at once: one by one that costs more than parsing the frame.

    Raises:
        IndexError, TypeError, ValueError: They are not.
    """
    if type(bids) is not list or type(asks) is not list:
        raise TypeError("the levels are not lists")
    levels = ([(row[0], row[1]) for row in bids], [(row[0], row[1]) for row in asks])
    text = "|".join(_flat(levels[0] + levels[1]))
    if text.encode().translate(None, _DECIMALS) or "||" in text or text[:1] == "|" or text[-1:] == "|":
        bid_levels, ask_levels = (
            [(decimal_text(price), decimal_text(size)) for price, size in side] for side in levels
        )
        return bid_levels, ask_levels
    return levels


def _book(message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read `books`: a snapshot, then absolute sizes of the levels that changed.

    Before 2023 there were no numbers, and a true checksum instead.
    """
    name = names.get(arg["instId"])
    if name is None:
        return ()
    action = message["action"]
    found: list[Event] = []
    for row in message["data"]:
        bids, asks = read_levels(row["bids"], row["asks"])
        ts, sequence, previous = row["ts"], row.get("seqId"), row.get("prevSeqId")
        checksum = row.get("checksum")
        if type(ts) is not str or not (
            type(sequence) in _NUMBERS and type(previous) in _NUMBERS and type(checksum) in _NUMBERS
        ):
            raise TypeError("ts, seqId, prevSeqId or checksum has the wrong type")
        if action == "update":
            delta = _new(BookDelta)
            delta.__init__(  # type: ignore[misc]  # see _new
                venue=VENUE,
                instrument=name,
                venue_time_ns=int(ts) * _NS_PER_MS,
                received_ns=received_ns,
                bids=bids,
                asks=asks,
                sequence=sequence,
                previous_sequence=previous,
                checksum=checksum or None,  # 0 since June 2026
            )
            found.append(delta)
        elif action == "snapshot":
            found.append(
                BookSnapshot(
                    venue=VENUE,
                    instrument=name,
                    venue_time_ns=int(ts) * _NS_PER_MS,
                    received_ns=received_ns,
                    bids=bids,
                    asks=asks,
                    sequence=sequence,
                    checksum=checksum or None,
                )
            )
        else:
            raise ValueError(f"neither snapshot nor update: {action!r}")
    return found


_NUMBERS = frozenset({int, type(None)})


def read_candle(row: Any, name: str, market: str, received_ns: int) -> Candle:
    """Return the minute in a row of `candle1m`; REST rows are the same.

    A row is open time, open, high, low, close, `vol` (base units, or contracts), `volCcy` (quote currency on spot,
    base currency on derivatives), `volCcyQuote` (quote currency) and `confirm`.

    Raises:
        IndexError, TypeError, ValueError, AttributeError: It is none.
    """
    if type(row) is not list:
        raise TypeError("a candle is not a list")
    confirm = row[8]
    if confirm not in ("0", "1"):
        raise ValueError(f"neither closed nor running: {confirm!r}")
    return Candle(
        venue=VENUE,
        instrument=name,
        received_ns=received_ns,
        start_ns=_ns(row[0]),
        open=decimal_text(row[1]),
        high=decimal_text(row[2]),
        low=decimal_text(row[3]),
        close=decimal_text(row[4]),
        volume=decimal_text(row[5]),
        turnover=_optional(row[6] if market == "inverse" else row[7]),
        closed=confirm == "1",
    )


def _candle(
    message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    name = names.get(arg["instId"])
    if name is None:
        return ()
    return [read_candle(row, name, feed.market, received_ns) for row in message["data"]]


def _ticker(
    message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    name = names.get(arg["instId"])
    if name is None:
        return ()
    spot = feed.market == "spot"
    return [
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=_ns(row["ts"]),
            received_ns=received_ns,
            last=_optional(row["last"]),
            open_24h=_optional(row["open24h"]),
            high_24h=_optional(row["high24h"]),
            low_24h=_optional(row["low24h"]),
            volume_24h=_optional(row["vol24h"]),
            # On linear contracts it counts base units: what was paid for them is not told.
            turnover_24h=None if feed.market == "linear" else _optional(row["volCcy24h"]),
            partial=not spot,  # the other channels of a derivative's ticker bring the rest
        )
        for row in message["data"]
    ]


def _part(name: str | None, row: Any, received_ns: int, **fields: str | int | None) -> Sequence[Event]:
    """Return a part of a derivative's ticker."""
    if name is None:
        return ()
    return (
        Ticker(
            venue=VENUE,
            instrument=name,
            venue_time_ns=_ns(row["ts"]),
            received_ns=received_ns,
            partial=True,
            **fields,  # type: ignore[arg-type]  # each caller names fields of its own
        ),
    )


def _mark_price(
    message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    name = names.get(arg["instId"])
    return [
        event
        for row in message["data"]
        for event in _part(name, row, received_ns, mark_price=_optional(row["markPx"]))
    ]


def _index(message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int) -> Sequence[Event]:
    """Read `index-tickers`, which goes by the index's name: its swap's ticker gets it."""
    name = names.get(_swap_on(arg["instId"]))
    return [
        event
        for row in message["data"]
        for event in _part(name, row, received_ns, index_price=_optional(row["idxPx"]))
    ]


def _funding(
    message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    """Read `funding-rate`: the rate that is settled at `fundingTime`.

    https://www.okx.com/docs-v5/en/#public-data-websocket-funding-rate-channel
    """
    name = names.get(arg["instId"])
    events: list[Event] = []
    for row in message["data"]:
        rate, due = row["fundingRate"], row["fundingTime"]
        sign = "-" if rate[:1] == "-" else ""
        events += _part(
            name,
            row,
            received_ns,
            funding_rate=sign + decimal_text(rate.removeprefix("-")) if rate else None,
            next_funding_ns=_ns(due) if due else None,
        )
    return events


def _open_interest(
    message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    """Read `open-interest`, in contracts."""
    name = names.get(arg["instId"])
    return [
        event
        for row in message["data"]
        for event in _part(name, row, received_ns, open_interest=_optional(row["oi"]))
    ]


def _liquidations(
    message: Any, arg: Any, feed: Feed, names: Mapping[str, str], received_ns: int
) -> Sequence[Event]:
    """Read `liquidation-orders`: those of all contracts of one kind, not always in the order of their times.

    https://www.okx.com/docs-v5/en/#public-data-websocket-liquidation-orders-channel
    """
    events = []
    for contract in message["data"]:
        name = names.get(contract["instId"])
        if name is None:
            continue
        events += [
            Liquidation(
                venue=VENUE,
                instrument=name,
                venue_time_ns=_ns(row["ts"]),
                received_ns=received_ns,
                price=decimal_text(row["bkPx"]),
                size=decimal_text(row["sz"]),
                side=_SIDES[row["side"]],
            )
            for row in contract["details"]
        ]
    return events


_READERS: dict[str, Reader] = {
    "trades-all": _trades,
    "trades": _trades,
    "bbo-tbt": _quote,
    "books": _book,
    "candle1m": _candle,
    "tickers": _ticker,
    "mark-price": _mark_price,
    "index-tickers": _index,
    "funding-rate": _funding,
    "open-interest": _open_interest,
    "liquidation-orders": _liquidations,
}
