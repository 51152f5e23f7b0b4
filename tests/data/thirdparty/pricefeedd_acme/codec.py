"""Acme's stream dialect: https://docs.acme.test/ws/v1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pricefeedd.codec import Accepted, BaseCodec, Frame, Refused, Reply, Signal, Stream
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Event, Level, Side, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.venue import Account, Feed

_MS = 1_000_000
_WORDS = {"trade": "trades", "book": "book"}
_DECIMAL = re.compile(r"\d+(\.\d+)?", re.ASCII)


class AcmeCodec(BaseCodec):
    """Text pings, one ack for each channel, trades and in-stream books."""

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return `trades:SYMBOL` or `book:SYMBOL`."""
        word = _WORDS.get(channel)
        return () if word is None else (Stream(feed="public", name=f"{word}:{instrument.symbol}"),)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Name the channels; Acme knows no request ids."""
        return _request("subscribe", streams)

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Name the channels; Acme knows no request ids."""
        return _request("unsubscribe", streams)

    def ping(self, feed: Feed, *, now_ns: int) -> Frame:
        """Ping by the word itself."""
        return "ping"

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return the trades, book or signal of one frame.

        Raises:
            DecodeError: The frame is not what Acme documents.
        """
        if frame == b"pong":
            return ()
        if frame == b"ping":
            return (Reply("pong"),)
        try:
            message = orjson.loads(frame)
            if "event" in message:
                return _signals(message)
            kind, _, symbol = message["channel"].partition(":")
            name = names.get(symbol)
            if name is None:
                return ()
            if kind == "trades":
                return tuple(_trade(row, name, received_ns) for row in message["data"])
            return (_book(message, name, received_ns),)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise DecodeError(f"bad frame {frame[:120]!r} ({e!r})", venue="acme") from e


def _request(op: str, streams: Sequence[Stream]) -> str:
    return orjson.dumps({"op": op, "channels": [stream.name for stream in streams]}).decode()


def _signals(message: dict[str, Any]) -> Sequence[Signal]:
    if message["event"] == "subscribed":
        return (Accepted(streams=(_text(message["channel"]),)),)
    if message["event"] == "error":
        return (Refused(reason=_text(message["message"]), streams=(_text(message["channel"]),)),)
    return ()


def _trade(row: dict[str, Any], name: str, received_ns: int) -> Trade:
    size = _decimal(row["qty"])
    if not size.strip("0."):
        raise ValueError("a trade of nothing")
    return Trade(
        venue="acme",
        instrument=name,
        venue_time_ns=_time_ns(row["ts"]),
        received_ns=received_ns,
        id=str(_whole(row["id"])),
        price=_decimal(row["px"]),
        size=size,
        aggressor=Side(row["side"]),
    )


def _book(message: dict[str, Any], name: str, received_ns: int) -> BookSnapshot | BookDelta:
    common: dict[str, Any] = {
        "venue": "acme",
        "instrument": name,
        "venue_time_ns": _time_ns(message["ts"]),
        "received_ns": received_ns,
        "bids": _levels(message["bids"]),
        "asks": _levels(message["asks"]),
        "sequence": _whole(message["seq"]),
    }
    if message["kind"] == "snapshot":
        return BookSnapshot(**common)
    if message["kind"] == "update":
        return BookDelta(previous_sequence=_whole(message["prev"]), **common)
    raise ValueError(f"a book is a snapshot or an update, not {message['kind']!r}")


def _levels(rows: list[list[str]]) -> list[Level]:
    return [(_decimal(price), _decimal(size)) for price, size in rows]


def _decimal(text: str) -> str:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"not a number: {text!r}")
    return text


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"not text: {value!r}")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"not a whole number: {value!r}")
    return value


def _time_ns(value: Any) -> int:
    """Return Acme's milliseconds as ns; a time before 2010 or after 2100 is none."""
    if not 1_262_304_000_000 <= _whole(value) < 4_102_444_800_000:
        raise ValueError(f"not a time in ms: {value}")
    return int(value) * _MS
