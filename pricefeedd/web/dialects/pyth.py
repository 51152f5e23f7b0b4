"""The dialect `pyth`: oracle prices by feed id, for clients of an older gateway.

A price is told as JSON numbers. `status` is the oracle's word for whether it may be used: `trading`; `halted` where
the venue repeats the last price of a closed market; `unknown` while we do not know better. What the daemon says of
the topic (it went stale, the connection is lost) is told as the last price again, with `unknown`.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs
import orjson
import trio

from pricefeedd import wire
from pricefeedd.events import Event, Price, State, Status
from pricefeedd.instruments import Directory, Instrument, InstrumentMap
from pricefeedd.topic import Pattern, Topic
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.dialect import Terms
from pricefeedd.web.dialects.talk import SUGGESTIONS, TURN, Items, OldTalk, did_you_mean, parting, read_known
from pricefeedd.web.fields import BadRequest, Text, given
from pricefeedd.web.goodbye import Goodbye
from pricefeedd.web.reader import Reader
from pricefeedd.web.socket import Socket

TRADING: Final = "trading"
HALTED: Final = "halted"
UNKNOWN: Final = "unknown"

#: A price that was this old when it came is the last one of a closed market, which oracles repeat.
HALTED_AFTER_NS: Final = 60 * 1_000_000_000

#: An id that begins or ends with so many digits of a feed's is taken for a misspelling of it.
_SAME = 8

_FEED_ID = Text(longest=100, expected="the id of a feed, 64 hex digits with or without 0x")
_FEED_ITEM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"feed_id": {"type": "string"}},
    "required": ["feed_id"],
}


@attrs.frozen(kw_only=True)
class OneFeed:
    """`subscribe` and `unsubscribe`."""

    feed_id: str = given(_FEED_ID, "The feed's id, with or without `0x`, in any letter case.")


@attrs.frozen(kw_only=True)
class ManyFeeds:
    """`subscribe_multiple`."""

    subscriptions: tuple[Any, ...] = given(
        Items(
            expected='a list of objects such as {"feed_id": "e62d..."}',
            item=_FEED_ITEM,
            example=[{"feed_id": "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"}],
        ),
        "The feeds; each is confirmed or refused on its own.",
    )


@attrs.frozen(kw_only=True)
class Nothing:
    """`get_available_feeds` and `ping`."""


#: What each type of request has besides its type.
REQUESTS: Final[dict[str, type[Any]]] = {
    "subscribe": OneFeed,
    "unsubscribe": OneFeed,
    "subscribe_multiple": ManyFeeds,
    "get_available_feeds": Nothing,
    "ping": Nothing,
}


def _key(text: str) -> str:
    return text.strip().casefold().removeprefix("0x")


def symbol_of(feed: Instrument) -> str:
    """Return what people call a feed: `BTC/USD`, or all of it where several feeds are about that."""
    if feed.quote and feed.name == f"{feed.base}-{feed.quote}":
        return f"{feed.base}/{feed.quote}"
    return feed.rest_symbol


class Feeds:
    """The feeds of all oracles, found by what clients call them."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._by_key: WeakKeyDictionary[InstrumentMap, dict[str, Instrument]] = WeakKeyDictionary()

    def _maps(self) -> list[InstrumentMap]:
        return [listed for listed in self._directory.maps() if listed.market == "oracle"]

    def by_id(self, feed_id: str) -> Instrument | None:
        """Return the feed with an id, in any spelling of it."""
        key = _key(feed_id)
        for listed in self._maps():
            known = self._by_key.get(listed)
            if known is None:
                known = self._by_key[listed] = {_key(feed.symbol): feed for feed in listed}
            if key in known:
                return known[key]
        return None

    def by_symbol(self, symbol: str) -> Instrument | None:
        """Return the feed that people call so."""
        for spelling in (symbol, symbol.replace("/", "-")):
            for listed in self._maps():
                found = listed.get(spelling)
                if found is not None:
                    return found
        return None

    def of(self, venue: str, name: str) -> Instrument | None:
        """Return the feed of a topic."""
        for listed in self._directory.maps(venue):
            if listed.market == "oracle" and (found := listed.by_name(name)) is not None:
                return found
        return None


class Pyth:
    """The dialect of `/ws/pyth`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.feeds = Feeds(daemon.directory)
        self._form = wire.Form(self._encode, wire.frame, notices=False)

    def terms(self, socket: Socket) -> Terms:
        """Return the form of all; what the URL says besides is passed over."""
        return Terms(form=self._form)

    def talk(self, reader: Reader, limits: Limits) -> Conversation:
        """Begin to talk with a client."""
        return Conversation(self._daemon, self.feeds, reader, limits)

    def farewell(self, goodbye: Goodbye) -> dict[str, object]:
        """Return an `error`."""
        return parting(goodbye)

    def _encode(self, topic: str, seq: int, event: Event, previous: int | None) -> bytes:
        """Return a `price_update`; nothing for what has no word in this dialect."""
        on_bus = self._daemon.bus.get(topic)
        if on_bus is None:
            return b""
        state = on_bus.state
        if isinstance(event, Status):
            if event.state is State.LIVE or on_bus.last is None:
                return b""
            state, event = event.state, on_bus.last.event
        feed = self.feeds.of(event.venue, event.instrument)
        if type(event) is not Price or feed is None:
            return b""
        return orjson.dumps({"type": "price_update", "data": update(feed, event, state)})


def update(feed: Instrument, price: Price, state: State) -> dict[str, object]:
    """Return the `data` of a `price_update`."""
    return {
        "id": feed.symbol,
        "price": float(price.price),
        "conf": float(price.conf),
        "ema_price": None if price.ema_price is None else float(price.ema_price),
        "ema_conf": None if price.ema_conf is None else float(price.ema_conf),
        "expo": expo(price.price),
        "status": status(price, state),
        "publish_time": iso(price.publish_time_ns),
    }


def iso(ns: int) -> str | None:
    """Return a time as ISO 8601; None for one that no calendar has.

    With an offset in digits: `Z` is more than Python's own reader took before 3.11.

    >>> iso(1_714_748_300_000_000_000)
    '2024-05-03T14:58:20+00:00'
    """
    seconds, rest_ns = divmod(ns, 1_000_000_000)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def expo(price: str) -> int:
    """Return the power of ten in which the oracle counts: it tells all digits of a price.

    >>> expo("61632.60000000")
    -8
    """
    return -len(price.partition(".")[2])


def status(price: Price, state: State) -> str:
    """Return whether a price may be used."""
    if state is not State.LIVE:
        return UNKNOWN
    return HALTED if price.received_ns - price.publish_time_ns > HALTED_AFTER_NS else TRADING


class Conversation(OldTalk):
    """The requests of one reader, and their answers."""

    def __init__(self, daemon: Daemon, feeds: Feeds, reader: Reader, limits: Limits) -> None:
        super().__init__(daemon, reader, limits)
        self._feeds = feeds
        self._held: dict[str, tuple[str, Pattern]] = {}
        self._suggestions = 0

    def greet(self) -> None:
        """Say `connection_established`."""
        self.reader.reply(
            {
                "type": "connection_established",
                "client_id": self.reader.session,
                "message": "connected to pricefeedd; subscribe to feeds by feed_id",
            }
        )

    async def obey(self, message: dict[str, Any]) -> None:
        """Do what is asked, and answer.

        Raises:
            BadRequest: It cannot be done.
        """
        kind = message.get("type")
        if not isinstance(kind, str):
            raise BadRequest("bad_request", f"type: expected one of {', '.join(REQUESTS)}")
        made = REQUESTS.get(kind)
        if made is None:
            near = tuple(difflib.get_close_matches(kind[:40], REQUESTS, n=1))
            raise BadRequest("bad_request", f"unknown type {kind[:40]!r}; known: {', '.join(REQUESTS)}", near)
        asked = read_known(made, message)
        self._suggestions = SUGGESTIONS
        match asked:
            case ManyFeeds(subscriptions=items):
                await self._subscribe_multiple(items)
            case OneFeed(feed_id=feed_id) if kind == "subscribe":
                await self.listed(self._loading)
                self._subscribe(feed_id)
            case OneFeed(feed_id=feed_id):
                self._unsubscribe(feed_id)
            case _ if kind == "ping":
                self.reader.reply({"type": "pong"})
            case _:
                await self.listed(self._loading)
                await self._tell_feeds()

    def _loading(self) -> bool:
        """Return whether the list of an oracle is on its way."""
        listed = {found.venue for found in self.daemon.directory.maps() if found.market == "oracle"}
        markets = list(self.daemon.stats)
        if not markets:  # the daemon has just begun
            return not listed
        return any(found.market == "oracle" and found.venue not in listed for found in markets)

    # --- subscriptions --------------------------------------------------------------------------------

    async def _subscribe_multiple(self, items: tuple[Any, ...]) -> None:
        self.afford(len(items) / 100)
        await self.listed(self._loading)
        for done, item in enumerate(items, 1):
            if isinstance(item, dict):
                try:
                    self._subscribe(read_known(OneFeed, item).feed_id)
                except BadRequest as e:
                    self.error(f"subscriptions[{done - 1}].{e.message}")
            else:
                self.error(f'subscriptions[{done - 1}]: expected an object such as {{"feed_id": "e62d..."}}')
            if done % TURN == 0:
                await trio.lowlevel.checkpoint()

    def _subscribe(self, feed_id: str) -> None:
        """Confirm, and tell the newest price; or say why not."""
        feed = self._feeds.by_id(feed_id)
        if feed is None:
            self.error(self._unknown(feed_id), {"feed_id": feed_id})
            return
        pattern = Pattern(f"price:{feed.venue}:{feed.name}")
        again = pattern.text in self.reader.patterns
        trouble = self.begin(pattern)
        if trouble is not None:
            self.error(f"{symbol_of(feed)}, feed {feed.symbol}: {trouble}", {"feed_id": feed_id})
            return
        self._held[_key(feed_id)] = (feed.symbol, pattern)
        self.reader.reply({"type": "subscription_confirmed", "feed_id": feed_id, "id": feed.symbol})
        topic = self.daemon.bus.get(pattern.text)
        if again and topic is not None:
            self.reader.say(list(self.daemon.bus.latest(topic)))
        self.reader.introduce()

    def _unsubscribe(self, feed_id: str) -> None:
        held = self._held.pop(_key(feed_id), None)
        if held is None:
            unknown = self._feeds.by_id(feed_id) is None
            what = self._unknown(feed_id) if unknown else f"feed {feed_id} is not subscribed"
            self.error(what, {"feed_id": feed_id})
            return
        symbol, pattern = held
        self.reader.unsubscribe(pattern)
        self.reader.reply({"type": "unsubscription_confirmed", "feed_id": feed_id, "id": symbol})

    def _unknown(self, asked: str) -> str:
        """Return what to say of an id that is none, with what may have been meant."""
        called = self._feeds.by_symbol(asked.strip())
        if called is not None:
            return f"a feed is named by its id: {symbol_of(called)} is {called.symbol}"
        said = f"unknown feed {asked!r}"
        if self._loading():
            return f"{said}: the list of feeds has not come yet; try again"
        key = _key(asked)
        self._suggestions -= 1
        for feed, _ in self._served() if self._suggestions >= 0 else ():
            # A digit is wrong, or some are missing. More is not worth the time: ids are all alike.
            if len(key) >= 2 * _SAME and (
                feed.symbol.startswith(key[:_SAME]) or feed.symbol.endswith(key[-_SAME:])
            ):
                return said + did_you_mean([f"{feed.symbol} ({symbol_of(feed)})"])
        return f"{said}; get_available_feeds tells those that there are"

    # --- facts ----------------------------------------------------------------------------------------

    def _served(self) -> list[tuple[Instrument, Topic]]:
        topics = [topic for topic in self.daemon.bus if topic.channel == "price"]
        found = ((self._feeds.of(topic.venue, topic.instrument), topic) for topic in topics)
        return [(feed, topic) for feed, topic in found if feed is not None]

    async def _tell_feeds(self) -> None:
        """Tell the feeds that are served; one that has no price yet is told with null."""
        rows: list[dict[str, object]] = []
        for done, (feed, topic) in enumerate(self._served(), 1):
            price = None if topic.last is None else topic.last.event
            row: dict[str, object] = {"id": feed.symbol, "symbol": symbol_of(feed)}
            if type(price) is Price:
                told = update(feed, price, topic.state)
                row |= {key: told[key] for key in ("price", "conf", "expo", "status")}
            else:
                row |= {"price": None, "conf": None, "expo": None, "status": UNKNOWN}
            rows.append(row)
            if done % (TURN * 10) == 0:
                await trio.lowlevel.checkpoint()
        self.afford(len(rows) / 100)
        self.reader.reply({"type": "available_feeds", "feeds": rows})
