"""A fake BingX: spot and swaps on one port, told apart by the first part of the path.

`/spot` and `/linear` stand for BingX's hosts, so `ws://127.0.0.1:PORT/linear` is what
`wss://open-api-swap.bingx.com` is. It speaks both protocols as of 2026: gzip in every frame, one topic per
message, the venue's own pings and its cut without a close frame, codes inside HTTP 200, and REST with its limits.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Any

import orjson
import trio

from pricefeedd.testing import Request, Response, Socket
from pricefeedd.testing.market import (
    Listing,
    Market,
    SimCandle,
    SimDelta,
    SimEvent,
    SimQuote,
    SimTicker,
    SimTrade,
    usual_listings,
)
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd_bingx.fake_words import Words

MARKETS = ("spot", "linear")

_WS_PATHS = {"/spot/market": "spot", "/linear/swap-market": "linear"}

_PING_EVERY_S = 5.0
_PINGS_UNANSWERED = 6
#: The cut came this long after the last ping that nobody answered.
_CUT_AFTER_S = 0.5

_TOPICS_PER_CONNECTION = 200
_CONNECTIONS = 60

_LEVELS = (5, 10, 20, 50, 100)
_BOOK_LEVELS = {"spot": 1000, "linear": 1024}

#: What a topic may end with.
_KINDS = {
    "spot": {
        *("trade", "kline_1min", "ticker", "bookTicker", "lastPrice", "incrDepth"),
        *(f"depth{levels}" for levels in _LEVELS),
    },
    "linear": {
        *("trade", "kline_1m", "ticker", "bookTicker", "lastPrice", "markPrice", "incrDepth"),
        *(f"depth{levels}{pace}" for levels in _LEVELS for pace in ("", "@100ms", "@200ms", "@500ms")),
    },
}

_WINDOW_NS = 10_000_000_000
_BAN_NS = 300_000_000_000


@functools.lru_cache(maxsize=256)
def packed(text: str) -> bytes:
    """Return a text as BingX sends it: one gzip member."""
    return gzip.compress(text.encode(), 1, mtime=0)


class BingxFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        paused: Our names of instruments that are listed, and refused.
        leaks: A refused topic sends one frame all the same, as was seen.
        replays: Trades of the past, newest first, in the first frame of a swap's topic.
        quiet_minutes: REST has rows for minutes without a trade.
        quote_age_ms: How much older a swap's `bookTicker` is than it says.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        requests_per_10s: int = 500,
    ) -> None:
        """Make a fake BingX.

        Args:
            market: By default one with the usual instruments of both markets.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
            requests_per_10s: REST requests that one address may make in 10 s.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        self.paused: set[str] = set()
        self.leaks = True
        self.replays = 0
        self.quiet_minutes = True
        self.quote_age_ms = 0
        self._words = {
            name: Words(listing) for name, listing in self.market.listings.items() if _is_offered(listing)
        }
        self._names = {(words.listing.market, words.symbol): name for name, words in self._words.items()}
        self._limit = requests_per_10s
        self._window = 0
        self._asked = 0
        self._banned_until_ns = 0

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return the usual instruments of spot, and the perpetuals among the linear ones."""
        return tuple(listing for listing in usual_listings() if _is_offered(listing))

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.bingx.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        return {
            f"{market}_{kind}": f"{scheme}://{base}/{market}"
            for market in MARKETS
            for kind, scheme in (("ws", "ws"), ("rest", "http"))
        }

    def tell(self, event: SimEvent) -> None:
        """Publish what happened, in BingX's words, to whoever subscribed it."""
        words = self._words.get(event.name)
        if words is None:
            return
        market, symbol = words.listing.market, words.symbol
        now_ms = self.now_ns() // 1_000_000

        def publish(kind: str, make: Callable[[], Any]) -> None:
            topic = f"{symbol}@{kind}"
            if self.wanted(topic, scope=market):
                self.publish(topic, make(), scope=market)

        match event:
            case SimTrade():
                publish("trade", lambda: words.trades((event,), now_ms))
                publish("lastPrice", lambda: words.last_price(event, now_ms))
            case SimQuote():
                late_ms = now_ms + (self.quote_age_ms if market == "linear" else 0)
                publish("bookTicker", lambda: words.book_ticker(event, late_ms))
            case SimDelta():
                publish("incrDepth", lambda: words.update(event, now_ms))
                self._whole_books(words, publish, now_ms)
            case SimCandle() if event.trades:
                # Sent while there is trading, and once more when the minute is over.
                kind = "kline_1min" if market == "spot" else "kline_1m"
                publish(kind, lambda: words.kline(event, now_ms))
            case SimTicker():
                publish("ticker", lambda: words.ticker(event, self.market.quote(event.name), now_ms))
                if market == "linear":
                    publish("markPrice", lambda: words.mark_price(event, now_ms))
                self._whole_books(words, publish, now_ms)  # they repeat, changed or not
            case _:
                pass  # there are no liquidations

    def _whole_books(
        self, words: Words, publish: Callable[[str, Callable[[], Any]], None], now_ms: int
    ) -> None:
        for kind in _KINDS[words.listing.market]:
            if kind.startswith("depth"):
                publish(kind, functools.partial(self._whole_book, words, kind, now_ms))

    def _whole_book(self, words: Words, kind: str, now_ms: int) -> dict[str, Any]:
        levels = int(kind.removeprefix("depth").partition("@")[0])
        bids, asks = self.market.book(words.listing.name, levels)
        return words.depth(kind, self.market.sequence(words.listing.name), bids, asks, now_ms)

    # --- The stream server --------------------------------------------------------------------------------

    def frame(self, socket: Socket, stream: str, payload: str) -> bytes:
        """Return the payload as a gzip member."""
        return packed(payload)

    def acknowledge(self, socket: Socket, answer: Any) -> None:
        """Send the answer to a subscribe frame, as the faults allow; it is gzip as well."""
        self.faults.acknowledge(socket, packed(orjson.dumps(answer).decode()))

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept the two paths that exist, for up to 60 connections."""
        if request.path not in _WS_PATHS:
            return Response(status=404)
        return Response(status=403) if len(self.sockets) >= _CONNECTIONS else None

    async def on_open(self, socket: Socket) -> None:
        """Note the market; nothing is subscribed by the URL."""
        socket.scope = _WS_PATHS[socket.path]

    def messages_per_s(self, socket: Socket) -> int:
        """Take 10 messages per second. What happens above that is not documented; here the socket is closed."""
        return 10

    async def beside(self, socket: Socket) -> None:
        """Ping in data frames; who answers none of six is cut off without a close frame."""
        socket.memo["unanswered"] = 0
        number = 0
        while True:
            await trio.sleep(_PING_EVERY_S)
            number += 1
            unanswered = int(str(socket.memo["unanswered"])) + 1
            socket.memo["unanswered"] = unanswered
            if socket.path == "/linear/swap-market":
                socket.send(packed("Ping"))
            else:
                key, shown = f"{number:032x}", "2026-06-07T16:27:36.323+0800"
                socket.memo["ping"] = (key, shown)
                socket.send(packed(orjson.dumps({"ping": key, "time": shown}).decode()))
            if unanswered >= _PINGS_UNANSWERED:
                await trio.sleep(_CUT_AFTER_S)
                if socket.memo["unanswered"]:
                    socket.abort()
                    return

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey `sub` and `unsub`, and take pongs. What is no JSON or names several topics is ignored."""
        if text == "Pong":
            # Spot wants JSON; that a plain Pong works there as well is not confirmed, so here it does not.
            if socket.scope == "linear":
                socket.memo["unanswered"] = 0
            return
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            return
        if not isinstance(request, dict):
            return
        if "pong" in request:
            if socket.memo.get("ping") == (request["pong"], request.get("time")):
                socket.memo["unanswered"] = 0
            return
        topic, number = request.get("dataType"), request.get("id")
        if not isinstance(topic, str):
            return
        if request.get("reqType") == "sub":
            self.seen.subscribes += 1
            self._subscribe(socket, topic, number)
        elif request.get("reqType") == "unsub":
            self.seen.unsubscribes += 1
            self.unsubscribe(socket, [topic])
            self._answer(socket, number)

    def _subscribe(self, socket: Socket, topic: str, number: Any) -> None:
        symbol, _, kind = topic.partition("@")
        name = self._names.get((socket.scope, symbol))
        if name is None or kind not in _KINDS[socket.scope] or name in self.paused:
            if socket.scope == "spot":
                self._answer(socket, None, 100400, f"code:100400:{kind} dataType is not supported")
            else:
                self._answer(socket, number, 80015, "dataType not support")
            if name in self.paused and self.leaks:
                self._first_frame(socket, topic)
            return
        known = topic in socket.subscriptions
        if not known and len(socket.subscriptions) >= _TOPICS_PER_CONNECTION:
            told = f"your topic num over max {_TOPICS_PER_CONNECTION}"
            self._answer(socket, number if socket.scope == "linear" else None, 80403, told)
            return
        self.subscribe(socket, [topic])
        self._answer(socket, number)
        if not known:
            self._first_frame(socket, topic)

    def _answer(self, socket: Socket, number: Any, code: int = 0, told: str = "") -> None:
        """Answer in the market's form: errors on spot do not repeat the id."""
        if socket.scope == "linear":
            answer = {"id": number, "code": code, "msg": told, "dataType": "", "data": None}
        else:
            answer = {"code": code, "id": number, "msg": told or "SUCCESS"}
            answer = {key: value for key, value in answer.items() if value is not None}
            answer["timestamp"] = self.now_ns() // 1_000_000
        self.acknowledge(socket, answer)

    def _first_frame(self, socket: Socket, topic: str) -> None:
        """Send what a topic begins with: the whole book, or trades of the past."""
        self.begin()
        symbol, _, kind = topic.partition("@")
        words = self._words[self._names[socket.scope, symbol]]
        name, now_ms = words.listing.name, self.now_ns() // 1_000_000
        message = None
        if kind == "incrDepth":
            bids, asks = self.market.book(name, _BOOK_LEVELS[socket.scope])
            message = words.book(self.market.sequence(name), bids, asks, now_ms)
        elif kind.startswith("depth"):
            message = self._whole_book(words, kind, now_ms)
        elif kind == "trade" and socket.scope == "linear" and self.replays:
            past = list(self.market.trades(name))[-self.replays :]
            message = words.trades(past, now_ms) if past else None
        if message is not None:
            text = orjson.dumps(message).decode()
            self.faults.deliver(socket, topic, self.frame(socket, topic, text))

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer symbols, contracts, klines, trades, depth and the clock; count the requests."""
        market, _, rest = request.path.removeprefix("/").partition("/")
        handlers: Mapping[tuple[str, str], Callable[[str, Mapping[str, str]], Any]] = {
            ("spot", "openApi/spot/v1/common/symbols"): self._symbols,
            ("spot", "openApi/spot/v2/market/kline"): self._klines,
            ("spot", "openApi/spot/v1/market/trades"): self._trades,
            ("linear", "openApi/swap/v2/quote/contracts"): self._symbols,
            ("linear", "openApi/swap/v3/quote/klines"): self._klines,
            ("linear", "openApi/swap/v2/quote/trades"): self._trades,
            ("linear", "openApi/swap/v2/quote/depth"): self._depth,
            ("linear", "openApi/swap/v2/server/time"): self._time,
        }
        handler = handlers.get((market, rest))
        if market not in MARKETS:
            return Response(status=404)
        self.begin()
        headers = self._headers()
        if (refusal := self._weigh(market, headers)) is not None:
            return refusal
        try:
            if handler is None:
                raise _RefusedError(100400, "this api is not exist")
            answer = {"code": 0, "msg": "", "data": handler(market, request.query)}
        except _RefusedError as e:
            answer = {"code": e.code, "msg": str(e), "data": {}}
        if market == "spot":
            answer = {"code": answer["code"], "timestamp": self.now_ns() // 1_000_000} | answer
        return Response(headers=headers, body=orjson.dumps(answer))

    def _headers(self) -> dict[str, str]:
        """Count a request in its window of 10 s, and say what is left of it."""
        now_ns = self.now_ns()
        window = now_ns // _WINDOW_NS
        if window != self._window:
            self._window, self._asked = window, 0
        self._asked += 1
        return {
            "date": formatdate(now_ns / 1e9, usegmt=True),
            "x-ratelimit-requests-remain": str(max(0, self._limit - self._asked)),
            "x-ratelimit-requests-expire": str((window + 1) * _WINDOW_NS // 1_000_000),
        }

    def _weigh(self, market: str, headers: Mapping[str, str]) -> Response | None:
        """Refuse past the limit with a code inside HTTP 200; 418 for who goes on regardless, for 5 minutes."""
        now_ns = self.now_ns()
        if self._asked > self._limit + 5:
            self._banned_until_ns = max(self._banned_until_ns, now_ns + _BAN_NS)
        if now_ns < self._banned_until_ns:
            return Response(status=418, headers=headers, body=b'{"code":100410,"msg":"banned"}')
        if self._asked <= self._limit:
            return None
        # Swaps have a new code since 2025-10-16; spot's pages have the old one.
        code = 100410 if market == "spot" else 109429
        return Response(headers=headers, body=orjson.dumps({"code": code, "msg": "rate limited"}))

    def _find(self, market: str, query: Mapping[str, str]) -> str:
        if not query.get("symbol"):
            raise _RefusedError(109400, "Invalid parameters, err:symbol: This field is required.")
        name = self._names.get((market, query["symbol"]))
        if name is None:
            raise _RefusedError(109425, f"{query['symbol']} this symbol is not exist")
        if name in self.paused:
            raise _RefusedError(109415, f"{query['symbol']} is pause currently")
        return name

    def _time(self, market: str, query: Mapping[str, str]) -> Any:
        return {"serverTime": self.now_ns() // 1_000_000}

    def _symbols(self, market: str, query: Mapping[str, str]) -> Any:
        rows = [
            words.listed(online=name not in self.paused)
            for name, words in self._words.items()
            if words.listing.market == market
        ]
        return {"symbols": rows} if market == "spot" else rows

    def _klines(self, market: str, query: Mapping[str, str]) -> Any:
        name = self._find(market, query)
        if query.get("interval") != "1m":
            raise _RefusedError(109400, "Invalid parameters, err:interval")
        # The documents say 1440 for both; swaps were seen to give 1000 at the most.
        limit = min(_number(query, "limit", 500), 1440 if market == "spot" else 1000)
        start, end = _number(query, "startTime", 0), _number(query, "endTime", 1 << 62)
        for event in self.market.turn(self.now_ns()):
            self.tell(event)
        rows = [
            candle
            for candle in self.market.candles(name)
            if start < candle.start_ns // 1_000_000 <= end and (candle.trades or self.quiet_minutes)
        ]
        return [self._words[name].kline_row(candle) for candle in rows[: -limit - 1 : -1]]

    def _trades(self, market: str, query: Mapping[str, str]) -> Any:
        name = self._find(market, query)
        limit = min(_number(query, "limit", 500), 500 if market == "spot" else 1000)
        return [self._words[name].trade_row(e) for e in list(self.market.trades(name))[: -limit - 1 : -1]]

    def _depth(self, market: str, query: Mapping[str, str]) -> Any:
        name = self._find(market, query)
        limit = _number(query, "limit", 20)
        if limit not in (5, 10, 20, 50, 100, 500, 1000):
            raise _RefusedError(109400, "Invalid parameters, err:limit")
        bids, asks = self.market.book(name, limit)
        rows = {"bids": bids, "asks": asks[::-1], "bidsCoin": bids, "asksCoin": asks[::-1]}
        return {"T": self.now_ns() // 1_000_000, **rows}


def _is_offered(listing: Listing) -> bool:
    """Return whether BingX could list it: there are no dated contracts."""
    return listing.market in MARKETS and listing.expiry_ns is None


class _RefusedError(Exception):
    """An answer of HTTP 200 with a code that is not 0."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(query.get(key, default))
    except ValueError:
        raise _RefusedError(109400, f"Invalid parameters, err:{key}") from None
