"""A fake Hyperliquid: perpetuals and spot pairs on one port, `/ws` for streams and `/info` for REST.

It speaks the protocol as of 2026, with its harsh parts: a wrong coin ends the connection without a word, a
connection to which nothing was sent for 60 s is cut, each subscription to trades begins with a replay of past
ones, and candles never say that they are final.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
import trio

from pricefeedd.instruments import Kind
from pricefeedd.testing import Request, Response, Socket
from pricefeedd.testing.capture import CaptureServer, Tape, read_capture
from pricefeedd.testing.market import (
    Listing,
    Market,
    SimCandle,
    SimEvent,
    SimQuote,
    SimTicker,
    SimTrade,
)
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd_hyperliquid.codec import Subscription, name_of
from pricefeedd_hyperliquid.fake_words import Words, delisted, spot_meta

#: Cut when nothing was sent to it for this long; what the client sends does not count.
SILENCE_S = 60.0
#: Pushed on a clock, changed or not, since June 2026.
FAST_BOOK_S = 0.54
DEEP_BOOK_S = 5.4
FAST_LEVELS = 5
DEEP_LEVELS = 20
#: Trades in the first frame after a subscribe.
REPLAYED = 30
#: Minutes that exist by REST, and how long a row of one without trades takes to appear.
HISTORY_MINUTES = 5000
FLAT_AFTER_NS = 180_000_000_000

MAX_CONNECTIONS = 10
MAX_SUBSCRIPTIONS = 1000
MAX_CONNECTS_PER_MINUTE = 30
MAX_MESSAGES_PER_MINUTE = 2000
WEIGHT_PER_MINUTE = 1200

_MINUTE_NS = 60_000_000_000
_MS = 1_000_000

_KINDS = ("trades", "bbo", "l2Book", "candle", "activeAssetCtx")
_INTERVALS = frozenset(
    ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w", "1M"]
)
_ADDRESS_KINDS = frozenset({"userFills", "orderUpdates", "userEvents"})

#: Indices of pairs and tokens as on mainnet; they have holes.
_PAIR_INDEX = {("PURR", "USDC"): 0, ("HYPE", "USDC"): 107, ("UBTC", "USDC"): 142}
_TOKEN_INDEX = {"USDC": 0, "PURR": 1, "HYPE": 150, "UBTC": 197}
#: Known and traded no longer.
DELISTED = "MATIC"

_CANNOT_READ = b"Failed to deserialize the JSON body into the target type"


def perpetual(coin: str, price: str, tick: str, lot: str) -> Listing:
    """Return the listing of a perpetual."""
    return Listing(
        market="linear", base=coin, quote="USD", kind=Kind.PERPETUAL, price=price, tick=tick, lot=lot
    )


def pair(base: str, price: str, tick: str, lot: str, *, quote: str = "USDC") -> Listing:
    """Return the listing of a spot pair."""
    return Listing(market="spot", base=base, quote=quote, price=price, tick=tick, lot=lot)


class HyperliquidFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        silence_s: A socket to which nothing was sent for this long is cut.
        max_connections: Sockets that may be open at one time.
        max_subscriptions: Subscriptions over all sockets.
        weight_per_minute: Request weight that REST gives out.
        generates: Whether it sends what it makes up itself; a server of captures does not.
    """

    silence_s = SILENCE_S
    max_connections = MAX_CONNECTIONS
    max_subscriptions = MAX_SUBSCRIPTIONS
    max_connects_per_minute = MAX_CONNECTS_PER_MINUTE
    max_messages_per_minute = MAX_MESSAGES_PER_MINUTE
    weight_per_minute = WEIGHT_PER_MINUTE
    generates = True

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
    ) -> None:
        """Make a fake Hyperliquid.

        Args:
            market: By default one with perpetuals and spot pairs.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        listings = self.market.listings
        self._tokens = _numbered(
            [
                token
                for each in listings.values()
                if each.market == "spot"
                for token in (each.quote, each.base)
            ],
            _TOKEN_INDEX,
            first=300,
        )
        indices = _numbered(
            [(each.base, each.quote) for each in listings.values() if each.market == "spot"],
            _PAIR_INDEX,
            first=200,
        )
        self._pairs: dict[str, tuple[int, Listing]] = {}
        self._words: dict[str, Words] = {}
        for name, listing in listings.items():
            coin = listing.base
            if listing.market == "spot":
                index = indices[listing.base, listing.quote]
                coin = f"@{index}" if index else f"{listing.base}/{listing.quote}"
                self._pairs[coin] = (index, listing)
            self._words[name] = Words(listing, coin)
        self._names = {words.coin: name for name, words in self._words.items()}
        self._blocks: dict[str, int] = {}
        self._weight = _Spent()
        self._connects: deque[float] = deque()
        self._messages: deque[float] = deque()

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return some well-known coins of both markets, one of which is a thousand tokens."""
        return (
            perpetual("BTC", "83757", "1", "0.00001"),
            perpetual("ETH", "2070.5", "0.1", "0.0001"),
            perpetual("SOL", "128.50", "0.01", "0.01"),
            perpetual("kPEPE", "0.007021", "0.000001", "1"),
            pair("PURR", "0.27736", "0.00001", "1"),
            pair("HYPE", "42.150", "0.001", "0.01"),
            pair("UBTC", "83760", "1", "0.00001"),
        )

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.hyperliquid.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        return {
            f"{market}_{kind}": f"{scheme}://{base}"
            for market in ("linear", "spot")
            for kind, scheme in (("ws", "ws"), ("rest", "http"))
        }

    def told_book(self, name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return bids and asks, as deep as the fast book goes, which is subscribed unless settings say otherwise."""
        return self.market.book(name, FAST_LEVELS)

    def coin(self, name: str) -> str:
        """Return the venue's symbol of one of the market's listings."""
        return self._words[name].coin

    def tell(self, event: SimEvent) -> None:
        """Publish what happened to whoever subscribed it. Books go out on a clock of their own."""
        words = self._words[event.name]
        coin = words.coin

        def publish(kind: str, make: Callable[[], Any]) -> None:
            if self.wanted(f"{kind}:{coin}"):
                self.publish(f"{kind}:{coin}", make())

        match event:
            case SimTrade():
                publish("trades", lambda: [words.trade(event)])
            case SimQuote():
                publish("bbo", lambda: words.bbo(event, self._block_ms(coin)))
            case SimCandle() if event.trades and not event.closed:
                publish("candle_1m", lambda: words.candle(event))
            case SimTicker():
                publish("activeAssetCtx", lambda: words.context(event))

    def _block_ms(self, coin: str) -> int:
        """Return the time of the block that changes a quote: a coin has one quote per block, so no two are the same."""
        self._blocks[coin] = max(self._now_ms(), self._blocks.get(coin, 0) + 1)
        return self._blocks[coin]

    def _now_ms(self) -> int:
        return self.now_ns() // _MS

    # --- The stream server --------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept `/ws`, from an address that has not too many connections. How it refuses is UNCONFIRMED."""
        if request.path != "/ws":
            return Response(status=404)
        recent = _forget(self._connects, 60.0)
        if len(self.sockets) >= self.max_connections or len(recent) >= self.max_connects_per_minute:
            return Response(status=429)
        recent.append(trio.current_time())
        return None

    async def on_open(self, socket: Socket) -> None:
        """Begin to count the time in which nothing is sent."""
        socket.memo["sent_at"] = trio.current_time()

    async def beside(self, socket: Socket) -> None:
        """Cut the socket when nothing was sent to it for long."""
        while True:
            sent_at = socket.memo["sent_at"]
            assert isinstance(sent_at, float), "nobody else writes it"
            left_s = sent_at + self.silence_s - trio.current_time()
            if left_s <= 0:
                break
            await trio.sleep(left_s)
        socket.abort()

    def frame(self, socket: Socket, stream: str, payload: str) -> str:
        """Wrap a payload with the name of its channel, which is not always the subscription's."""
        socket.memo["sent_at"] = trio.current_time()
        kind, _, coin = stream.partition(":")
        channel = "candle" if kind == "candle_1m" else kind
        if kind == "activeAssetCtx" and (coin.startswith("@") or "/" in coin):
            channel = "activeSpotAssetCtx"
        return f'{{"channel":"{channel}","data":{payload}}}'

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey ping, subscribe and unsubscribe."""
        recent = _forget(self._messages, 60.0)
        recent.append(trio.current_time())
        if len(recent) > self.max_messages_per_minute:  # how it reacts is UNCONFIRMED
            socket.abort()
            return
        try:
            request = orjson.loads(text)
            method = request["method"]
            if method == "ping":
                self._say(socket, "pong")
                return
            subscription = request["subscription"]
            kind, coin = subscription["type"], subscription.get("coin")
            fit = method in ("subscribe", "unsubscribe") and (
                isinstance(coin, str) and kind in _KINDS
                if kind not in _ADDRESS_KINDS
                else isinstance(subscription.get("user"), str)
            )
            if kind == "candle":
                fit = fit and subscription.get("interval") in _INTERVALS
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            fit = False
        if not fit:
            self._say(socket, "error", f"Error parsing JSON into valid websocket request: {text}")
            return
        if kind in _ADDRESS_KINDS:
            self._answer(socket, method, {**subscription, "user": subscription["user"].lower()})
            return
        self._obey(socket, method, subscription)

    def _obey(self, socket: Socket, method: str, subscription: dict[str, Any]) -> None:
        kind, coin = subscription["type"], subscription["coin"]
        figures = subscription.get("nSigFigs")
        if (coin not in self._names and coin != DELISTED) or figures not in (None, 2, 3, 4, 5):
            socket.abort()  # without a word, and everything on it is gone
            return
        normal = {"type": kind, "coin": coin}
        if kind == "candle":
            normal["interval"] = subscription["interval"]
        elif kind == "l2Book":
            normal |= {"nSigFigs": figures, "mantissa": subscription.get("mantissa")}
            normal["fast"] = subscription.get("fast", False)
        named = name_of(Subscription(kind, coin, normal.get("interval", "")))
        stream = named or f"{kind}:{coin}:{normal['interval']}"
        known = stream in socket.subscriptions
        short = orjson.dumps(subscription).decode()
        if method == "unsubscribe":
            self.seen.unsubscribes += 1
            if not known:
                self._say(socket, "error", f"Already unsubscribed: {short}")
                return
            self.unsubscribe(socket, [stream])
            self._answer(socket, method, normal)
            return
        self.seen.subscribes += 1
        if known:
            self._say(socket, "error", f"Already subscribed: {short}")
        elif sum(len(each.subscriptions) for each in self.sockets) >= self.max_subscriptions:
            # The words are UNCONFIRMED.
            self._say(socket, "error", f"Cannot subscribe to more than {self.max_subscriptions}: {short}")
        else:
            self._answer(socket, method, normal)
            self.subscribe(socket, [stream])
            if self.generates:
                self._greet(socket, stream, fast=normal.get("fast") is True)

    def _say(self, socket: Socket, channel: str, data: Any = None) -> None:
        socket.memo["sent_at"] = trio.current_time()
        message = {"channel": channel} if data is None else {"channel": channel, "data": data}
        socket.send(orjson.dumps(message).decode())

    def _answer(self, socket: Socket, method: str, normal: dict[str, Any]) -> None:
        socket.memo["sent_at"] = trio.current_time()
        data = {"method": method, "subscription": normal}
        self.acknowledge(socket, {"channel": "subscriptionResponse", "data": data})

    def _greet(self, socket: Socket, stream: str, *, fast: bool) -> None:
        """Send what a subscription begins with."""
        kind, _, coin = stream.partition(":")
        if kind == "l2Book":
            self._push_books(socket, coin, fast=fast)
            return
        payload: Any = None
        if coin == DELISTED:
            if kind == "bbo":
                payload = {"coin": coin, "time": self._now_ms(), "bbo": [None, None]}
        else:
            payload = self._beginning(kind, self._names[coin])
        if payload is not None:
            self._deliver(socket, stream, payload)

    def _beginning(self, kind: str, name: str) -> Any:
        self.begin()
        words, now_ns = self._words[name], self.now_ns()
        for event in self.market.turn(now_ns):
            self.tell(event)
        if kind == "trades":
            return [words.trade(trade) for trade in list(self.market.trades(name))[-REPLAYED:]] or None
        if kind == "bbo":
            return words.bbo(self.market.quote(name), self._block_ms(words.coin))
        if kind == "candle_1m":
            traded = [candle for candle in self.market.candles(name)[-10:] if candle.trades]
            return words.candle(traded[-1]) if traded else None
        if kind == "activeAssetCtx":
            return words.context(self.market.ticker(name, now_ns))
        return None

    def _deliver(self, socket: Socket, stream: str, payload: Any) -> None:
        self.faults.deliver(socket, stream, self.frame(socket, stream, orjson.dumps(payload).decode()))

    # --- Books --------------------------------------------------------------------------------------------

    def _push_books(self, socket: Socket, coin: str, *, fast: bool) -> None:
        """Send a book now, and from now on with the others of its kind."""
        kept = socket.memo.setdefault("fast" if fast else "deep", set())
        assert isinstance(kept, set), "nobody else writes it"
        if not kept:
            socket.start_soon(functools.partial(self._pace_books, socket, kept, fast=fast))
        kept.add(coin)
        self._push_book(socket, coin, fast=fast)

    def _push_book(self, socket: Socket, coin: str, *, fast: bool) -> None:
        self._deliver(socket, f"l2Book:{coin}", self._book(coin, fast=fast))

    def _book(self, coin: str, *, fast: bool) -> dict[str, Any]:
        if coin == DELISTED:
            return {"coin": coin, "time": self._now_ms(), "levels": [[], []]}
        name = self._names[coin]
        bids, asks = self.market.book(name, FAST_LEVELS if fast else DEEP_LEVELS)
        return self._words[name].book(bids, asks, self._now_ms(), fast=fast)

    async def _pace_books(self, socket: Socket, coins: set[str], *, fast: bool) -> None:
        while True:
            await trio.sleep(FAST_BOOK_S if fast else DEEP_BOOK_S)
            coins &= {stream.partition(":")[2] for stream in socket.subscriptions if stream[:2] == "l2"}
            if not coins:
                return
            for coin in coins - {DELISTED}:
                self._push_book(socket, coin, fast=fast)

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer POST `/info`, and count its weight."""
        if request.path != "/info":
            return Response(status=404)
        if request.method != "POST":
            return Response(status=405)
        self.begin()
        try:
            question = orjson.loads(request.body)
            answer = _ANSWERS[question["type"]](self, question)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return Response(status=422, headers={"content-type": "text/plain"}, body=_CANNOT_READ)
        minute = self.now_ns() // _MINUTE_NS
        if minute != self._weight.minute:
            self._weight = _Spent(minute=minute)
        self._weight.weight += _weight(question["type"], answer)
        if self._weight.weight > self.weight_per_minute:
            return Response(status=429, body=b"null")
        if isinstance(answer, _FaultError):
            return Response(status=500, body=b"null")
        return Response(body=orjson.dumps(answer))

    def _meta(self, question: Mapping[str, Any]) -> Any:
        dex = question.get("dex", "")
        mine = [
            words.listed()
            for words in self._words.values()
            if not words.spot and dex == ("" if ":" not in words.coin else words.coin.partition(":")[0])
        ]
        if dex and not mine:
            return None
        if not dex:
            mine.insert(1, delisted(DELISTED))
        return {"universe": mine, "marginTables": [], "collateralToken": 0}

    def _spot_meta(self, question: Mapping[str, Any]) -> Any:
        return spot_meta(self._pairs, self._tokens)

    def _l2_book(self, question: Mapping[str, Any]) -> Any:
        coin = question["coin"]
        return self._book(coin, fast=False) if coin in self._names else None

    def _recent_trades(self, question: Mapping[str, Any]) -> Any:
        name = self._names.get(question["coin"])
        if name is None:
            return _FaultError()
        newest = list(self.market.trades(name))[-REPLAYED:]
        return [self._words[name].trade(trade) for trade in reversed(newest)]

    def _candle_snapshot(self, question: Mapping[str, Any]) -> Any:
        span = question["req"]
        start_ms, end_ms = span["startTime"], span["endTime"]
        if type(start_ms) is not int or type(end_ms) is not int or span["interval"] not in _INTERVALS:
            raise ValueError("not a span")
        name = self._names.get(span["coin"])
        if name is None:
            return _FaultError()  # or an empty list: UNCONFIRMED
        now_ns = self.now_ns()
        for event in self.market.turn(now_ns):
            self.tell(event)
        return [
            self._words[name].candle(candle)
            for candle in self.market.candles(name)[-HISTORY_MINUTES:]
            if start_ms <= candle.start_ns // _MS <= end_ms
            and (candle.trades or candle.start_ns < now_ns - FLAT_AFTER_NS)
        ]

    def _all_mids(self, question: Mapping[str, Any]) -> Any:
        return {words.coin: self.market.quote(name).bid[0] for name, words in self._words.items()}

    def _status(self, question: Mapping[str, Any]) -> Any:
        return {"specialStatuses": None, "time": self._now_ms()}


class _FaultError(Exception):
    """An answer of HTTP 500, as an unknown coin may give."""


@attrs.define
class _Spent:
    """The weight used in one minute."""

    minute: int = 0
    weight: float = 0.0


_ANSWERS: Mapping[str, Callable[[HyperliquidFake, Mapping[str, Any]], Any]] = {
    "meta": HyperliquidFake._meta,
    "spotMeta": HyperliquidFake._spot_meta,
    "l2Book": HyperliquidFake._l2_book,
    "recentTrades": HyperliquidFake._recent_trades,
    "candleSnapshot": HyperliquidFake._candle_snapshot,
    "allMids": HyperliquidFake._all_mids,
    "exchangeStatus": HyperliquidFake._status,
}


def _weight(kind: str, answer: Any) -> float:
    if kind in ("l2Book", "allMids", "exchangeStatus"):
        return 2.0
    return 20.0 + (len(answer) / 60 if kind == "candleSnapshot" and isinstance(answer, list) else 0.0)


def _forget(times: deque[float], window_s: float) -> deque[float]:
    """Return the times, without those from before the window."""
    while times and times[0] <= trio.current_time() - window_s:
        times.popleft()
    return times


def _numbered(keys: Sequence[Any], known: Mapping[Any, int], *, first: int) -> dict[Any, int]:
    """Return indices for keys: the known ones, and for the others some with holes."""
    found: dict[Any, int] = {}
    for key in keys:
        if key not in found:
            found[key] = known.get(key, first + 3 * len(found))
    return found


# --- Captures ---------------------------------------------------------------------------------------------


def tape(*paths: Path | str) -> Tape:
    """Return captures as they are to be served; acks, pongs and errors are left to the fake."""

    def stream_of(frame: str) -> tuple[str, str] | None:
        message = orjson.loads(frame)
        kind, data = message["channel"], message.get("data")
        if kind == "trades":
            return "", f"trades:{data[0]['coin']}"
        if kind == "candle":
            return "", f"candle_1m:{data['s']}"
        if kind in ("bbo", "l2Book", "activeAssetCtx", "activeSpotAssetCtx"):
            return "", f"{kind.replace('Spot', '')}:{data['coin']}"
        return None

    return Tape(records=read_capture(*paths), stream_of=stream_of)


def capture_server(*tapes: Tape, listings: Sequence[Listing], settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind a Hyperliquid that lists these coins, and of itself says nothing."""
    fake = HyperliquidFake(Market(listings))
    fake.generates = False

    async def no_history(request: Request) -> Response | None:
        past = b"candleSnapshot" in request.body or b"recentTrades" in request.body
        return Response(body=b"[]") if past else None

    fake.answers.append(no_history)
    return CaptureServer(fake, tapes, settle_s=settle_s)
