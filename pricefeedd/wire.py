"""Events to and from the JSON that we serve (protocol version 1).

Times on the wire are integer microseconds since the Unix epoch, UTC, because nanoseconds do not fit the
integers of JavaScript. Numbers of the market stay the venue's decimal text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import orjson

from pricefeedd.errors import DecodeError
from pricefeedd.events import (
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Origin,
    Price,
    Quote,
    Side,
    State,
    Status,
    Ticker,
    Trade,
)

PROTOCOL = 1


def _us(ns: int | None) -> int | None:
    return None if ns is None else ns // 1000


def _ns(us: int | None) -> int | None:
    return None if us is None else us * 1000


def _trade(e: Trade) -> dict[str, Any]:
    return {"id": e.id, "price": e.price, "size": e.size, "side": e.aggressor}


def _quote(e: Quote) -> dict[str, Any]:
    return {
        "bid_price": e.bid_price,
        "bid_size": e.bid_size,
        "ask_price": e.ask_price,
        "ask_size": e.ask_size,
        "venue_sequence": e.sequence,
    }


_TICKER_TEXTS = (
    "last",
    "open_24h",
    "high_24h",
    "low_24h",
    "volume_24h",
    "turnover_24h",
    "mark_price",
    "index_price",
    "funding_rate",
    "open_interest",
)


def _ticker(e: Ticker) -> dict[str, Any]:
    data = {field: value for field in _TICKER_TEXTS if (value := getattr(e, field)) is not None}
    if e.next_funding_ns is not None:
        data["next_funding"] = _us(e.next_funding_ns)
    return data


def _candle(e: Candle) -> dict[str, Any]:
    return {
        "start": _us(e.start_ns),
        "open": e.open,
        "high": e.high,
        "low": e.low,
        "close": e.close,
        "volume": e.volume,
        "turnover": e.turnover,
        "trades": e.trades,
        "closed": e.closed,
    }


def _snapshot(e: BookSnapshot) -> dict[str, Any]:
    return {"kind": "snapshot", "bids": e.bids, "asks": e.asks, "venue_sequence": e.sequence}


def _delta(e: BookDelta) -> dict[str, Any]:
    return {"kind": "delta", "bids": e.bids, "asks": e.asks, "venue_sequence": e.sequence}


def _price(e: Price) -> dict[str, Any]:
    return {
        "price": e.price,
        "conf": e.conf,
        "ema_price": e.ema_price,
        "ema_conf": e.ema_conf,
        "publish_time": _us(e.publish_time_ns),
        "slot": e.slot,
    }


def _liquidation(e: Liquidation) -> dict[str, Any]:
    return {"price": e.price, "size": e.size, "side": e.side}


def _account(e: AccountEvent) -> dict[str, Any]:
    return {"account": e.account, "instrument": e.instrument, "key": e.key, **e.fields}


def _status(e: Status) -> dict[str, Any]:
    return {"state": e.state, "reason": e.reason}


def _gap(e: Gap) -> dict[str, Any]:
    return {
        "from": _us(e.from_ns),
        "to": _us(e.to_ns),
        "reason": e.reason,
        "recovered": e.recovered,
        "missing": e.missing,
    }


_ENCODERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    Trade: _trade,
    Quote: _quote,
    Ticker: _ticker,
    Candle: _candle,
    BookSnapshot: _snapshot,
    BookDelta: _delta,
    Price: _price,
    Liquidation: _liquidation,
    AccountEvent: _account,
    Status: _status,
    Gap: _gap,
}


def data_of(event: Event) -> dict[str, Any]:
    """Return the `data` part of an event's message."""
    return _ENCODERS[type(event)](event)


def type_of(event: Event) -> str:
    """Return the `type` of an event's message: its channel, or `status` or `gap`."""
    if isinstance(event, Candle):
        return f"candle_{event.interval}"
    if isinstance(event, AccountEvent):
        return event.kind
    return event.channel


def encode(topic: str, seq: int, event: Event, previous: int | None = None) -> bytes:
    """Return an event's message as JSON.

    Args:
        previous: The `seq` that the reader had before, where numbers are passed over on purpose.
    """
    return orjson.dumps(_message(topic, seq, event, previous, _ENCODERS[type(event)](event)))


def _message(
    topic: str, seq: int, event: Event, previous: int | None, data: dict[str, Any]
) -> dict[str, Any]:
    venue_time_ns = event.venue_time_ns
    message = {
        "type": type_of(event),
        "topic": topic,
        "seq": seq,
        "ts_event": None if venue_time_ns is None else venue_time_ns // 1000,
        "ts_recv": event.received_ns // 1000,
        "origin": event.origin,
        "data": data,
    }
    if previous is not None:
        message["prev_seq"] = previous
    if type(event) is AccountEvent and event.trace_id:
        message["trace_id"] = event.trace_id
    return message


#: What is a number to the market, whichever channel it stands in.
NUMBERS = frozenset(
    (
        *("price", "size", "bid_price", "bid_size", "ask_price", "ask_size", "conf", "ema_price", "ema_conf"),
        *("open", "high", "low", "close", "volume", "turnover"),
        *_TICKER_TEXTS,
    )
)


def encode_floats(topic: str, seq: int, event: Event, previous: int | None = None) -> bytes:
    """Return an event's message as JSON whose prices and sizes are numbers: handy, and no longer exact."""
    data = _ENCODERS[type(event)](event)
    for side in ("bids", "asks"):
        if side in data:
            data[side] = [[float(price), float(size)] for price, size in data[side]]
    for name, value in data.items():
        if name in NUMBERS and isinstance(value, str):
            data[name] = float(value)
    return orjson.dumps(_message(topic, seq, event, previous, data))


def decode(text: bytes | str) -> tuple[str, int, Event]:
    """Return topic, seq and event of a data message; times come back cut to microseconds.

    Raises:
        DecodeError: Not a data message of protocol version 1.
    """
    try:
        return read(orjson.loads(text))
    except orjson.JSONDecodeError as e:
        raise DecodeError(f"not JSON: {text[:120]!r}") from e


def read(message: Any) -> tuple[str, int, Event]:
    """Return topic, seq and event of a data message that was parsed already.

    Raises:
        DecodeError: Not a data message of protocol version 1.
    """
    try:
        topic = message["topic"]
        channel, venue, instrument = topic.split(":", 2)
        common = {
            "venue": venue,
            "instrument": instrument,
            "venue_time_ns": _ns(message["ts_event"]),
            "received_ns": message["ts_recv"] * 1000,
            "origin": Origin(message["origin"]),
        }
        event = _event(message["type"], channel, message["data"], common)
        if type(event) is AccountEvent:
            event.trace_id = message.get("trace_id", "")
        return topic, message["seq"], event
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise DecodeError(f"not a data message: {str(message)[:120]} ({e!r})") from e


def _event(kind: str, channel: str, data: dict[str, Any], common: dict[str, Any]) -> Event:
    if kind == "trade":
        side = data["side"]
        return Trade(
            id=data["id"],
            price=data["price"],
            size=data["size"],
            aggressor=None if side is None else Side(side),
            **common,
        )
    if kind == "quote":
        return Quote(
            bid_price=data["bid_price"],
            bid_size=data["bid_size"],
            ask_price=data["ask_price"],
            ask_size=data["ask_size"],
            sequence=data["venue_sequence"],
            **common,
        )
    if kind == "ticker":
        texts: dict[str, Any] = {field: data.get(field) for field in _TICKER_TEXTS}
        return Ticker(next_funding_ns=_ns(data.get("next_funding")), **texts, **common)
    if kind.startswith("candle_"):
        fields = {
            k: data[k] for k in ("open", "high", "low", "close", "volume", "turnover", "trades", "closed")
        }
        return Candle(
            start_ns=data["start"] * 1000, interval=kind.removeprefix("candle_"), **fields, **common
        )
    if kind == "book":
        made = BookSnapshot if data["kind"] == "snapshot" else BookDelta
        return made(bids=data["bids"], asks=data["asks"], sequence=data["venue_sequence"], **common)
    if kind == "price":
        return Price(
            price=data["price"],
            conf=data["conf"],
            ema_price=data["ema_price"],
            ema_conf=data["ema_conf"],
            publish_time_ns=data["publish_time"] * 1000,
            slot=data["slot"],
            **common,
        )
    if kind == "liquidation":
        return Liquidation(price=data["price"], size=data["size"], side=Side(data["side"]), **common)
    if kind == "status":
        return Status(topic_channel=channel, state=State(data["state"]), reason=data["reason"], **common)
    if kind == "gap":
        return Gap(
            topic_channel=channel,
            from_ns=data["from"] * 1000,
            to_ns=data["to"] * 1000,
            reason=data["reason"],
            recovered=data["recovered"],
            missing=data["missing"],
            **common,
        )
    # The topic of an account has its name in the instrument's place.
    rest = dict(data)
    common["instrument"] = rest.pop("instrument")
    return AccountEvent(account=rest.pop("account"), kind=kind, key=rest.pop("key"), fields=rest, **common)


def frame(text: bytes) -> bytes:
    """Return one unmasked WebSocket text frame, as a server sends it (RFC 6455 section 5.2)."""
    size = len(text)
    if size < 126:
        return b"\x81" + size.to_bytes(1) + text
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2) + text
    return b"\x81\x7f" + size.to_bytes(8) + text


@attrs.frozen(eq=False)
class Form:
    """How messages look on one kind of connection. All connections of a kind share one `Form`, and so the bytes.

    Attributes:
        encode: Topic, seq, event and the seq before it (see `encode`) to the text sent; empty for what is not sent.
        frame: Text to a WebSocket frame.
        notices: Whether the reader is told of what concerns it alone: that it lagged, or lost events.
    """

    encode: Callable[[str, int, Event, int | None], bytes]
    frame: Callable[[bytes], bytes]
    notices: bool = True


NATIVE = Form(encode, frame)
FLOATS = Form(encode_floats, frame)
