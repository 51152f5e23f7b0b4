"""The dialect `ohlcv`: one-minute candles by the venues' own symbols, for clients of an older gateway.

A request opens a subscription of one or more symbols. With a limit it ends after so many quotes, all its symbols
together; the connection stays, and other subscriptions go on. A symbol that several subscriptions name is quoted
once, for as long as the longest of them lasts.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import orjson
import trio

from pricefeedd import wire
from pricefeedd.events import Candle, Event, State, Status
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.message import Message, Notice
from pricefeedd.topic import Pattern
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.dialect import Terms
from pricefeedd.web.dialects.talk import SUGGESTIONS, TURN, Items, OldTalk, did_you_mean, parting, read_known
from pricefeedd.web.fields import BadRequest, Text, Whole, given
from pricefeedd.web.goodbye import Goodbye
from pricefeedd.web.reader import Reader
from pricefeedd.web.socket import Socket
from pricefeedd.web.topics import Resolver

CHANNEL: Final = "candle_1m"

#: What venues call their markets, and which of ours each means. The first that lists a symbol has it.
CONTRACT_TYPES: Final = {
    "spot": ("spot",),
    "linear": ("linear",),
    "usdm": ("linear",),
    "inverse": ("inverse",),
    "coinm": ("inverse",),
    "swap": ("linear", "inverse"),
}

#: The word that means perpetuals alone; the others mean dated contracts as well.
SWAP: Final = "swap"

_LONGEST = 100

Framing = Callable[[bytes], bytes]


@attrs.frozen(kw_only=True)
class Subscribe:
    """The one request of this dialect; it has no type."""

    exchange: str = given(Text(), "The venue, such as `binance`.", example="binance")
    contract_type: str = given(Text(), f"One of {', '.join(CONTRACT_TYPES)}.", default="spot", example="spot")
    symbols: tuple[Any, ...] = given(
        Items(
            expected='a list of symbols such as ["BTCUSDT"]',
            item={"type": "string", "maxLength": _LONGEST},
            example=["BTCUSDT"],
        ),
        "Symbols as the venue writes them.",
    )
    limit: int = given(Whole(), "0 is endless; n ends the subscription after n quotes.", default=0)


class Order:
    """A subscription that ends after so many quotes.

    Attributes:
        left: Quotes still to come.
        lines: What it reads.
    """

    __slots__ = ("left", "lines")

    def __init__(self, left: int) -> None:
        self.left = left
        self.lines: list[Line] = []


class Line:
    """One symbol as a client called its contract type: what its quotes look like, and how long they come.

    Attributes:
        endless: A subscription without a limit reads it.
        orders: Those with a limit that read it.
    """

    __slots__ = ("endless", "form", "orders", "pattern", "word")

    def __init__(self, pattern: Pattern, word: str, form: wire.Form) -> None:
        self.pattern = pattern
        self.word = word
        self.form = form
        self.endless = False
        self.orders: list[Order] = []


class Ohlcv:
    """The dialect of `/ws/ohlcv`."""

    def __init__(self, daemon: Daemon, resolver: Resolver) -> None:
        self._daemon = daemon
        self._resolver = resolver
        # A quote says the contract type as its reader called it: those who use the same word share the frames,
        # where these are made in the same way (plain, or compressed).
        self._encoders = {word: self._encoder(word) for word in CONTRACT_TYPES}
        self._forms: dict[Framing, dict[str, wire.Form]] = {}

    def terms(self, socket: Socket) -> Terms:
        """Return a form of this dialect; what the URL says besides is passed over."""
        return Terms(form=self._framed(wire.frame)["spot"])

    def talk(self, reader: Reader, limits: Limits) -> Conversation:
        """Begin to talk with a client."""
        forms = self._framed(reader.form.frame)
        return Conversation(self._daemon, self._resolver, forms, reader, limits)

    def farewell(self, goodbye: Goodbye) -> dict[str, object]:
        """Return an `error`."""
        return parting(goodbye)

    def _framed(self, frame: Framing) -> dict[str, wire.Form]:
        """Return the form for each word."""
        forms = self._forms.get(frame)
        if forms is None:
            forms = {word: wire.Form(encode, frame, notices=False) for word, encode in self._encoders.items()}
            self._forms[frame] = forms
        return forms

    def _encoder(self, word: str) -> Callable[[str, int, Event, int | None], bytes]:
        markets = CONTRACT_TYPES[word]

        def encode(topic: str, seq: int, event: Event, previous: int | None) -> bytes:
            said: dict[str, object]
            if isinstance(event, Candle):
                kind, said = "quote", quote(event)
            elif isinstance(event, Status) and event.state is State.DOWN:
                kind, said = "error", {"message": f"the symbol is down: {event.reason}"}
            else:
                return b""
            listed = _named(self._daemon, event.venue, markets, event.instrument)
            symbol = event.instrument if listed is None else listed.symbol
            series = {"exchange": event.venue, "contract_type": word, "symbol": symbol}
            return orjson.dumps({"type": kind, **series, **said})

        return encode


def _named(daemon: Daemon, venue: str, markets: Sequence[str], name: str) -> Instrument | None:
    """Return an instrument by our name."""
    for listed in daemon.directory.maps(venue):
        if listed.market in markets and (found := listed.by_name(name)) is not None:
            return found
    return None


def quote(candle: Candle) -> dict[str, object]:
    """Return the numbers of a `quote`; the time is the minute's start in ms."""
    return {
        "timestamp": candle.start_ns // 1_000_000,
        "open": float(candle.open),
        "high": float(candle.high),
        "low": float(candle.low),
        "close": float(candle.close),
        "volume": float(candle.volume),
        "is_closed": candle.closed,
    }


class Conversation(OldTalk):
    """The requests of one reader, and their answers."""

    def __init__(
        self,
        daemon: Daemon,
        resolver: Resolver,
        forms: dict[str, wire.Form],
        reader: Reader,
        limits: Limits,
    ) -> None:
        super().__init__(daemon, reader, limits)
        self._resolver = resolver
        self._forms = forms
        # By topic, then by the word for the contract type.
        self._lines: dict[str, dict[str, Line]] = {}
        self._orders = 0
        self._suggestions = 0
        reader.render = self._render

    def greet(self) -> None:
        """Say nothing: the client speaks first."""

    # --- quotes ---------------------------------------------------------------------------------------

    def _render(self, messages: Sequence[Message | Notice]) -> list[bytes]:
        """Return the frames of messages, and end what has had its last quote; later ones in the batch are no more."""
        frames: list[bytes] = []
        for message in messages:
            lines = self._lines.get(message.topic)
            if lines is None:
                continue
            for line in list(lines.values()):
                frame = message.frame_in(line.form)
                if frame:
                    frames.append(frame)
                    if line.orders and isinstance(message, Message) and type(message.event) is Candle:
                        self._count(line)
        return frames

    def _count(self, line: Line) -> None:
        for order in line.orders.copy():
            order.left -= 1
            if order.left == 0:
                self._end(order)

    def _end(self, order: Order) -> None:
        self._orders -= 1
        for line in order.lines:
            line.orders.remove(order)
            if not line.orders and not line.endless:
                topic = line.pattern.text
                del self._lines[topic][line.word]
                if not self._lines[topic]:
                    del self._lines[topic]
                    self.reader.unsubscribe(line.pattern)

    # --- requests -------------------------------------------------------------------------------------

    async def obey(self, message: dict[str, Any]) -> None:
        """Open a subscription, and tell what is wrong with some of its symbols.

        Raises:
            BadRequest: All of it is wrong.
        """
        asked = read_known(Subscribe, message)
        self.afford(len(asked.symbols) / 100)
        word = asked.contract_type.strip().lower()
        if word not in CONTRACT_TYPES:
            near = tuple(difflib.get_close_matches(word[:40], CONTRACT_TYPES, n=1))
            raise BadRequest(
                "bad_request",
                f"unknown contract_type {asked.contract_type[:40]!r}; known: {', '.join(CONTRACT_TYPES)}",
                near,
            )
        maps = await self._markets(asked.exchange.strip(), word)
        if asked.limit and self._orders >= self.limits.subscriptions:
            most = self.limits.subscriptions
            raise BadRequest("limit", f"a client may hold {most} subscriptions with a limit")
        await self._open(asked, word, maps)

    async def _markets(self, exchange: str, word: str) -> list[InstrumentMap]:
        """Return the lists of instruments that a word means at a venue, the first to look in first.

        Raises:
            BadRequest: There is no such venue, or it has no such market here.
        """
        await self.listed(lambda: self._loading(exchange, word))
        venue = self._venue(exchange)
        if venue is None:
            venues = self._resolver.venues()
            near = tuple(difflib.get_close_matches(exchange[:40].lower(), venues, n=1))
            raise BadRequest(
                "unknown_venue", f"unknown exchange {exchange[:40]!r}; known: {', '.join(venues)}", near
            )
        by_market = {listed.market: listed for listed in self.daemon.directory.maps(venue)}
        maps = [by_market[market] for market in CONTRACT_TYPES[word] if market in by_market]
        if maps:
            return maps
        if self._loading(exchange, word):
            what = f"the list of symbols of {venue} {word} has not come yet; try again"
            raise BadRequest("unknown_instrument", what)
        has = [kind for kind, markets in CONTRACT_TYPES.items() if any(m in by_market for m in markets)]
        raise BadRequest(
            "unknown_instrument",
            f"{venue} has no {word} here; contract types that it has: {', '.join(has) or 'none'}",
        )

    def _venue(self, exchange: str) -> str | None:
        """Return what a venue is called here, whatever the letter case; None if there is none by that name."""
        known = [found.venue for found in self.daemon.stats]
        known += [listed.venue for listed in self.daemon.directory.maps()]
        if exchange in known:
            return exchange
        return {venue.casefold(): venue for venue in known}.get(exchange.casefold())

    def _loading(self, exchange: str, word: str) -> bool:
        """Return whether a list that the word means is on its way."""
        venue = self._venue(exchange)
        if venue is None:  # it may be that the daemon has just begun
            return not list(self.daemon.stats) and not self.daemon.directory.maps()
        listed = {found.market for found in self.daemon.directory.maps(venue)}
        expected = {found.market for found in self.daemon.stats if found.venue == venue}
        return any(market in expected and market not in listed for market in CONTRACT_TYPES[word])

    async def _open(self, asked: Subscribe, word: str, maps: list[InstrumentMap]) -> None:
        self._suggestions = SUGGESTIONS
        found: list[Instrument] = []
        troubles: list[tuple[object, str]] = []
        for done, symbol in enumerate(asked.symbols, 1):
            told = self._find(symbol, word, maps)
            if isinstance(told, str):
                troubles.append((symbol, told))
            else:
                found.append(told)
            if done % TURN == 0 or isinstance(told, str):
                await trio.lowlevel.checkpoint()
        order = Order(asked.limit) if asked.limit else None
        symbols: list[str] = []
        for instrument in dict.fromkeys(found):
            trouble = self._join(instrument, word, order)
            if trouble is None:
                symbols.append(instrument.symbol)
            else:
                troubles.append((instrument.symbol, f"{instrument.symbol}: {trouble}"))
        if order is not None and order.lines:
            self._orders += 1
        series: dict[str, object] = {"exchange": maps[0].venue, "contract_type": word}
        if symbols:
            self.reader.reply({"type": "subscribed", **series, "symbols": symbols, "limit": asked.limit})
        for symbol, trouble in troubles:
            self.error(trouble, {**series, "symbol": symbol if isinstance(symbol, str) else None})
        self.reader.introduce()

    def _find(self, symbol: object, word: str, maps: list[InstrumentMap]) -> Instrument | str:
        """Return what a symbol means; or why nothing."""
        if not isinstance(symbol, str) or not 0 < len(symbol) <= _LONGEST:
            return f"a symbol is a text of 1 to {_LONGEST} characters"
        known = [found for listed in maps if (found := listed.by_symbol(symbol)) is not None]
        known += [found for listed in maps if (found := listed.get(symbol)) is not None]
        for instrument in known:
            if word != SWAP or instrument.kind is Kind.PERPETUAL:
                return instrument
        where = f"{maps[0].venue} {word}"
        if known:
            return f"{symbol} on {where} is no perpetual; ask for {known[0].market}"
        near: list[str] = []
        if self._suggestions:
            self._suggestions -= 1
            # Among those that begin alike: to look at all of a venue's takes 50 ms.
            start = symbol[:2].upper()
            alike = [one.symbol for listed in maps for one in listed if one.symbol[:2].upper() == start]
            near = difflib.get_close_matches(symbol.upper(), alike, n=3)
        return f"unknown symbol {symbol!r} on {where}{did_you_mean(near)}"

    def _join(self, instrument: Instrument, word: str, order: Order | None) -> str | None:
        """Read an instrument's candles; return why not."""
        pattern = Pattern(f"{CHANNEL}:{instrument.venue}:{instrument.name}")
        trouble = self.begin(pattern)
        if trouble is not None:
            return trouble
        lines = self._lines.setdefault(pattern.text, {})
        line = lines.get(word)
        if line is None:
            line = lines[word] = Line(pattern, word, self._forms[word])
        if order is None:
            line.endless = True
        else:
            line.orders.append(order)
            order.lines.append(line)
        return None
