"""Hermes' and Benchmarks' REST dialects: feeds, latest prices and minutes of history.

https://docs.pyth.network/price-feeds/core/api-reference
https://docs.pyth.network/price-feeds/core/create-tradingview-charts
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from pricefeedd.codec import plain_decimal
from pricefeedd.errors import (
    LoginRejectedError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import BookSnapshot, Candle, Origin, Price, Trade
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply, HttpRequest, Page, RateSignal, RestCall, checked, raise_for_status
from pricefeedd_pyth.codec import VENUE, authorization, read_id, read_price, unauthorized
from pricefeedd_pyth.listing import read_instruments

T = TypeVar("T")

#: Kinds of feeds that can be asked for.
ASSET_TYPES = (
    "crypto",
    "fx",
    "equity",
    "metal",
    "rates",
    "commodities",
    "crypto_redemption_rate",
    "crypto_index",
    "crypto_nav",
    "eco",
    "kalshi",
)

_NS_PER_S = 1_000_000_000
_MINUTE_S = 60
#: A bar may change this long after its end.
_FINAL_AFTER_NS = 2 * _NS_PER_S
#: The limit is not documented; about a day is what clients ask for.
_PAGE_S = 86_400

#: After a 429 everything is answered with 429 for the next minute.
_LOCKED_OUT_S = 60.0


class PythRest:
    """Speaks REST with Hermes, and with Benchmarks for history.

    Attributes:
        api_key: Sent with each request; "" for none.
        asset_types: Kinds of feeds to list, of `ASSET_TYPES`; none for all of them.
    """

    def __init__(self, api_key: str = "", asset_types: Sequence[str] = ()) -> None:
        self.api_key = api_key
        self.asset_types = tuple(asset_types)

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all feeds, some MB; or for one kind after the other."""
        return self._feeds(self.asset_types)

    def _feeds(self, kinds: tuple[str, ...]) -> RestCall[Instrument]:
        params: dict[str, str | int] = {"asset_type": kinds[0]} if kinds else {}
        request = HttpRequest(
            endpoint="oracle_rest",
            path="/v2/price_feeds",
            params=params,
            headers=authorization(self.api_key),
            budget="hermes",
        )

        def parse(reply: HttpReply) -> Page[Instrument]:
            more = self._feeds(kinds[1:]) if len(kinds) > 1 else None
            return Page(items=read_instruments(reply.json()), next=more)

        return RestCall(request=request, parse=parse)

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        """Offer nothing: an oracle has no book."""
        return None

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade] | None:
        """Offer nothing: an oracle has no trades."""
        return None

    def latest(self, instruments: Sequence[Instrument]) -> RestCall[Price]:
        """Ask for the newest prices once; the stream has them half a second later."""
        names = {instrument.symbol: instrument.name for instrument in instruments}
        ids = "&".join(f"ids[]={quote(feed_id)}" for feed_id in names)
        request = HttpRequest(
            endpoint="oracle_rest",
            path=f"/v2/updates/price/latest?{ids}&encoding=base64&parsed=true&ignore_invalid_price_ids=true",
            headers=authorization(self.api_key),
            budget="hermes",
        )

        def read(reply: HttpReply) -> Page[Price]:
            rows = [(names.get(read_id(row)), row) for row in reply.json()["parsed"]]
            prices = [read_price(row, name, reply.received_ns) for name, row in rows if name is not None]
            return Page(items=[price for price in prices if price is not None])

        return RestCall(request=request, parse=checked(read, venue=VENUE))

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        """Ask for minutes of history, a day at a time, oldest first."""
        start_s = -(-start_ns // (_MINUTE_S * _NS_PER_S)) * _MINUTE_S
        return self._bars(instrument, start_s, max(start_s, end_ns // _NS_PER_S))

    def _bars(self, instrument: Instrument, start_s: int, end_s: int) -> RestCall[Candle]:
        last_s = min(end_s, start_s + _PAGE_S - 1)
        request = HttpRequest(
            endpoint="oracle_history",
            path="/v1/shims/tradingview/history",
            params={
                "symbol": instrument.rest_symbol,
                "resolution": "1",
                "from": start_s,
                # Whether the end belongs to it is not documented; what is too much is left out.
                "to": last_s + 1,
            },
            headers=authorization(self.api_key),
            budget="benchmarks",
        )
        more = None if last_s >= end_s else partial(self._bars, instrument, last_s + 1, end_s)

        def read(reply: HttpReply) -> Page[Candle]:
            found = _read_bars(instrument, reply)
            wanted = [bar for bar in found if start_s <= bar.start_ns // _NS_PER_S <= last_s]
            return Page(items=wanted, next=None if more is None else more())

        return RestCall(request=request, parse=checked(read, venue=VENUE))

    def examine(self, reply: HttpReply) -> RateSignal:
        """Raise what the answer stands for; Pyth does not tell how much of a limit is used.

        Raises:
            RateLimitedError: Too many requests: nothing is answered for a minute.
            LoginRejectedError: There is no key, or it is refused.
            SubscriptionRejectedError: The feed does not exist or is not in the key's plan, or the request is
                wrong.
            VenueError: A fault on the venue's side, or a feed that has no price yet.
        """
        text = reply.body[:300].decode("utf-8", "replace").strip()
        what = f"HTTP {reply.status}: {text}"
        if reply.status == 429:
            raise RateLimitedError(what, venue=VENUE, retry_after_s=_LOCKED_OUT_S)
        if reply.status == 401:
            raise LoginRejectedError(unauthorized(text, self.api_key), venue=VENUE)
        if reply.status == 403 and "not entitled" in text.lower():
            raise SubscriptionRejectedError(what, venue=VENUE)
        if reply.status == 404 and "Update data not found" in text:
            raise VenueError(what, venue=VENUE)
        raise_for_status(reply, venue=VENUE)
        if '"s":"error"' in text.replace(" ", ""):
            # The shim of Benchmarks tells its errors with HTTP 200.
            raise SubscriptionRejectedError(what, venue=VENUE)
        return RateSignal()


def _number(value: Any) -> str:
    """Return a JSON number's text."""
    text = str(value) if type(value) is int else plain_decimal(value)
    if not text.removeprefix("-").replace(".", "", 1).isdecimal():
        raise ValueError(f"not a decimal number: {value!r}")
    return text


def _read_bars(instrument: Instrument, reply: HttpReply) -> list[Candle]:
    """Read the columns of a reply; the last bar may run still."""
    body = json.loads(reply.body, parse_float=str, parse_constant=str)
    if body["s"] == "no_data":
        return []
    bars = []
    for start_s, opening, high, low, close in zip(
        body["t"], body["o"], body["h"], body["l"], body["c"], strict=True
    ):
        if type(start_s) is not int:
            raise TypeError(f"not a time: {start_s!r}")
        if start_s % _MINUTE_S:
            raise ValueError(f"not the beginning of a minute: {start_s}")
        ends_ns = (start_s + _MINUTE_S) * _NS_PER_S
        bars.append(
            Candle(
                venue=VENUE,
                instrument=instrument.name,
                received_ns=reply.received_ns,
                origin=Origin.BACKFILL,
                start_ns=start_s * _NS_PER_S,
                open=_number(opening),
                high=_number(high),
                low=_number(low),
                close=_number(close),
                # Made of prices, not of trades.
                volume="0",
                closed=ends_ns + _FINAL_AFTER_NS <= reply.received_ns,
            )
        )
    return bars
