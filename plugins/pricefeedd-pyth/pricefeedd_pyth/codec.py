"""Hermes' stream dialect: Server-Sent Events with the prices of one round of the oracle.

The feeds are named in the request and there is no answer to it: the first event shows what is served. Each event
brings all feeds of the stream, changed or not.

https://docs.pyth.network/price-feeds/core/fetch-price-updates
https://github.com/pyth-network/pyth-crosschain/tree/main/apps/hermes/server
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from pricefeedd.codec import (
    BAD_DATA,
    Accepted,
    BaseCodec,
    Failed,
    Frame,
    LoginRefused,
    Opening,
    Refused,
    Signal,
    Stream,
    server_sent_event,
)
from pricefeedd.errors import DecodeError
from pricefeedd.events import Event, Price
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply
from pricefeedd.venue import Account, Feed

VENUE = "pyth"

_NS_PER_S = 1_000_000_000

#: Rounds come twice a second or faster, for closed markets too.
_OWES_S = 5.0

#: A number of digits with which any price can be written; more is no exponent of this oracle.
_MAX_EXPONENT = 64

_FEED_ID = re.compile(r"\b(?:0x)?([0-9a-f]{64})\b", re.IGNORECASE)


class PythCodec(BaseCodec):
    """Speaks the stream of prices.

    Attributes:
        api_key: Sent with each request; "" for none.
    """

    def __init__(self, api_key: str = "") -> None:
        self.api_key = api_key

    def streams(self, channel: str, instrument: Instrument) -> Sequence[Stream]:
        """Return the stream of a feed, which is named by its id."""
        if channel != "price":
            return ()
        return (Stream(feed="oracle", name=instrument.symbol, owes_within_s=_OWES_S),)

    def open(
        self, feed: Feed, streams: Sequence[Stream], *, path: str, now_ns: int, account: Account | None
    ) -> Opening:
        """Name the feeds in the path.

        Unknown ids are to be left out, because else one of them fails the whole request; the first event shows
        which they are. The signed blobs cannot be left out; as base64 they are smaller.
        """
        ids = "&".join(f"ids[]={quote(stream.name)}" for stream in streams)
        query = f"{ids}&encoding=base64&parsed=true&ignore_invalid_price_ids=true"
        return Opening(path=f"{path}?{query}", headers=authorization(self.api_key), subscribed=True)

    def subscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Refuse: the stream takes no requests.

        Raises:
            TypeError: Always; feeds are named in `open`.
        """
        raise TypeError("an event stream takes no requests: feeds are named in its path")

    def unsubscribe(
        self,
        feed: Feed,
        streams: Sequence[Stream],
        *,
        request_id: int,
        now_ns: int,
        account: Account | None,
    ) -> Frame:
        """Refuse: the stream takes no requests.

        Raises:
            TypeError: Always; a change of feeds is a new connection.
        """
        raise TypeError("an event stream takes no requests: feeds are named in its path")

    def decode(
        self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int
    ) -> Sequence[Event | Signal]:
        """Return the prices in one event, and which feeds it shows. Feeds that we do not know are passed over.

        Raises:
            DecodeError: The event is not what the pages above promise.
        """
        try:
            name, data = server_sent_event(frame)
            if name == "error":
                return _trouble(data.decode("utf-8", "replace"))
            if name:
                return ()
            rows = orjson.loads(data)["parsed"]
            shown = tuple([read_id(row) for row in rows])
            said: list[Event | Signal] = [Accepted(streams=shown, complete=True)]
            for feed_id, row in zip(shown, rows, strict=True):
                our_name = names.get(feed_id)
                if our_name is not None:
                    price = read_price(row, our_name, received_ns)
                    if price is not None:
                        said.append(price)
        except BAD_DATA as e:
            raise DecodeError(f"bad event {frame[-120:]!r} ({e!r})", venue=VENUE) from e
        return said

    def refused(self, feed: Feed, reply: HttpReply) -> Sequence[Signal]:
        """Return what an error in place of the stream means; its body is plain text."""
        text = reply.body[:2000].decode("utf-8", "replace").strip()
        if reply.status == 401:
            return (LoginRefused(unauthorized(text, self.api_key)),)
        ids = tuple(dict.fromkeys(found.lower() for found in _FEED_ID.findall(text)))
        if reply.status == 403 and "not entitled" in text.lower():
            if ids:
                return (Refused(reason=text[:200], streams=ids),)
            return (LoginRefused(f"the plan of this API key does not cover what was asked for: {text}"),)
        if reply.status == 404 and ids:
            return (Refused(reason="unknown to Pyth: " + text[:200], streams=ids),)
        return ()


def authorization(api_key: str) -> dict[str, str]:
    """Return the headers that a key is sent in; never in the URL, which ends up in logs."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def unauthorized(text: str, api_key: str) -> str:
    """Return what to say of a 401: what is missing and where it goes."""
    what = "refuses the API key" if api_key else "wants an API key (since 2026-08-26)"
    hint = (
        'set api_key in [venues.pyth], as in api_key = { env = "PYTH_API_KEY" }; keys: https://pythdata.app'
    )
    return f"Pyth {what}: {text or 'unauthorized'}; {hint}"


def _trouble(text: str) -> Sequence[Signal]:
    """Read an `event:error`, which is plain text."""
    if text.startswith("Error receiving update"):
        return ()  # the stream goes on
    if text.startswith(("Slow consumer", "Connection timeout reached")):
        return (Failed(text),)
    raise ValueError(f"unknown error event {text[:200]!r}")


def read_id(row: Any) -> str:
    """Return a feed's id as it is in answers: 64 hex digits in lower case.

    Raises:
        KeyError, TypeError, AttributeError: There is none.
    """
    return str(row["id"].lower().removeprefix("0x"))


def scale(mantissa: Any, exponent: Any) -> str:
    """Return `mantissa` times ten to the power of `exponent` as decimal text, exactly.

    >>> scale("6163260000000", -8)
    '61632.60000000'

    Raises:
        TypeError, ValueError: They are no integers, or the exponent is out of all reason.
    """
    digits = mantissa[1:] if mantissa[:1] == "-" else mantissa
    if type(exponent) is not int or not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"not a scaled integer: {mantissa!r}, {exponent!r}")
    if not -_MAX_EXPONENT <= exponent <= _MAX_EXPONENT or len(digits) > _MAX_EXPONENT:
        raise ValueError(f"out of range: {mantissa!r}, {exponent!r}")
    sign = "-" if digits is not mantissa else ""
    if exponent >= 0:
        whole = digits.lstrip("0")
        return f"{sign}{whole}{'0' * exponent}" if whole else "0"
    digits = digits.rjust(1 - exponent, "0")
    return f"{sign}{digits[:exponent].lstrip('0') or '0'}.{digits[exponent:]}"


def read_price(row: Any, name: str, received_ns: int) -> Price | None:
    """Return the price in an element of `parsed`; None where the oracle has never had one.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not one.
    """
    price = row["price"]
    published_s = price["publish_time"]
    slot = (row.get("metadata") or {}).get("slot")
    if type(published_s) is not int or (slot is not None and type(slot) is not int):
        raise TypeError("publish_time or slot is not an integer")
    if published_s <= 0:
        return None
    # The exponent belongs to the number beside it: it differs between feeds and may change.
    ema = row.get("ema_price")
    conf = scale(price["conf"], price["expo"])
    if conf[0] == "-":
        raise ValueError("a confidence below zero")
    published_ns = published_s * _NS_PER_S
    return Price(
        venue=VENUE,
        instrument=name,
        # Whole seconds, and several rounds share one: only the slot tells their order.
        venue_time_ns=published_ns,
        received_ns=received_ns,
        price=scale(price["price"], price["expo"]),
        conf=conf,
        ema_price=None if ema is None else scale(ema["price"], ema["expo"]),
        ema_conf=None if ema is None else scale(ema["conf"], ema["expo"]),
        publish_time_ns=published_ns,
        slot=slot,
    )
