"""A fake Binance: spot, USDⓈ-M and COIN-M futures on one port, told apart by the first part of the path.

`/spot`, `/linear` and `/inverse` stand for Binance's hosts, so `ws://127.0.0.1:PORT/linear` is what
`wss://fstream.binance.com` is. It speaks the protocol as of 2026: routed futures, the ids and joins of both
book dialects, request weights with bans, pings, message limits and the end of each connection after 24 h.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import orjson

from pricefeedd.testing import Request, Response, Socket
from pricefeedd.testing.capture import CaptureServer, Tape, read_capture
from pricefeedd.testing.market import (
    Market,
    SimCandle,
    SimDelta,
    SimEvent,
    SimLiquidation,
    SimQuote,
    SimTicker,
    SimTrade,
)
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd_binance.fake_words import Words, symbol_of

MARKETS = ("spot", "linear", "inverse")

_API = {"spot": "/api/v3", "linear": "/fapi/v1", "inverse": "/dapi/v1"}

#: Streams of the order-book class, which the futures serve on `/public`; all others are on `/market`.
#: https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams
_PUBLIC = ("@depth", "@bookTicker", "@trade", "@rpiDepth")

#: The delta streams besides `@depth@100ms`, with their pace: spot 1000 ms, futures 250 and 500 ms.
_SLOW_DEPTHS = {
    "spot": (("depth", 1_000_000_000),),
    "linear": (("depth", 250_000_000), ("depth@500ms", 500_000_000)),
    "inverse": (("depth", 250_000_000), ("depth@500ms", 500_000_000)),
}

_FUTURES_DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
_DAY_S = 86_400.0


@attrs.define
class _Weights:
    """The request weight used in the current minute by one address, and its ban."""

    limit: int
    minute: int = 0
    used: int = 0
    refused: int = 0
    banned_until_ns: int = 0


class _Joined:
    """Deltas on their way to become one.

    Attributes:
        told_ns: When the last one was sent.
    """

    def __init__(self, told_ns: int, previous: int) -> None:
        self.told_ns = told_ns
        self._previous = previous
        self._first: int | None = None
        self._bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}

    def add(self, event: SimDelta) -> None:
        """Take one more; newer sizes replace older ones."""
        if self._first is None:
            self._first = event.first
        self._bids |= dict(event.bids)
        self._asks |= dict(event.asks)

    def take(self, event: SimDelta) -> SimDelta:
        """Return all of them up to `event`, and begin anew."""
        joined = attrs.evolve(
            event,
            first=event.first if self._first is None else self._first,
            previous=self._previous,
            bids=tuple(self._bids.items()),
            asks=tuple(self._asks.items()),
        )
        self.told_ns, self._previous, self._first = event.time_ns, event.last, None
        self._bids, self._asks = {}, {}
        return joined


class BinanceFake(SimulatedVenue):
    """The fake itself."""

    lifetime_s = _DAY_S

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        spot_weight: int = 6000,
        futures_weight: int = 2400,
    ) -> None:
        """Make a fake Binance.

        Args:
            market: By default one with the usual instruments of all three markets.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
            spot_weight: Request weight per minute that one address may use on spot.
            futures_weight: The same for both futures together.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        futures = _Weights(futures_weight)
        self._weights = {"spot": _Weights(spot_weight), "linear": futures, "inverse": futures}
        self._words = {name: Words(listing) for name, listing in self.market.listings.items()}
        self._names = {
            (listing.market, symbol_of(listing)): name for name, listing in self.market.listings.items()
        }
        self._joined: dict[str, _Joined] = {}

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.binance.endpoints]`.

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
        """Publish what happened, in Binance's words, to whoever subscribed it on the right route."""
        words = self._words[event.name]
        market, symbol = words.listing.market, words.stream_symbol
        now_ms = self.now_ns() // 1_000_000

        def publish(kind: str, make: Callable[[], Any]) -> None:
            scope = _scope(market, f"{symbol}@{kind}")
            if self.wanted(f"{symbol}@{kind}", scope=scope):
                self.publish(f"{symbol}@{kind}", make(), scope=scope)

        match event:
            case SimTrade():
                publish("aggTrade", lambda: words.agg_trade(event, now_ms))
                publish("trade", lambda: words.trade(event, now_ms))
            case SimQuote():
                publish("bookTicker", lambda: words.book_ticker(event, now_ms))
            case SimDelta():
                publish("depth@100ms", lambda: words.depth(event, now_ms))
                for kind, pace_ns in _SLOW_DEPTHS[market]:
                    self._slowly(words, kind, pace_ns, event, now_ms)
                for levels in (5, 10, 20):
                    publish(
                        f"depth{levels}@100ms", functools.partial(self._partial, words, levels, event, now_ms)
                    )
            case SimCandle():
                publish("kline_1m", lambda: words.kline(event, now_ms))
            case SimTicker():
                publish("ticker", lambda: words.ticker(event, self.market.quote(event.name), now_ms))
                publish("miniTicker", lambda: words.mini_ticker(event, now_ms))
                if market != "spot":
                    publish("markPrice@1s", lambda: words.mark_price(event, now_ms))
                    publish("markPrice", lambda: words.mark_price(event, now_ms))
            case SimLiquidation() if market != "spot":
                publish("forceOrder", lambda: words.force_order(event, now_ms))

    def _slowly(self, words: Words, kind: str, pace_ns: int, event: SimDelta, now_ms: int) -> None:
        """Publish a slower delta stream, which joins what happened meanwhile and has a chain of its own."""
        stream = f"{words.stream_symbol}@{kind}"
        scope = _scope(words.listing.market, stream)
        if not self.wanted(stream, scope=scope):
            self._joined.pop(stream + scope, None)
            return
        joined = self._joined.get(stream + scope)
        if joined is None:
            # Begun a moment ago: the first message carries what came since the chain's last one.
            joined = self._joined[stream + scope] = _Joined(event.time_ns, event.previous)
        joined.add(event)
        if event.time_ns - joined.told_ns >= pace_ns:
            self.publish(stream, words.depth(joined.take(event), now_ms), scope=scope)

    def _partial(self, words: Words, levels: int, event: SimDelta, now_ms: int) -> dict[str, Any]:
        bids, asks = self.market.book(event.name, levels)
        return words.partial_depth(event, bids, asks, now_ms)

    def shut_down(self, market: str = "spot") -> None:
        """Announce that this node goes away, as spot does before it closes; `faults.close` ends it then.

        https://github.com/binance/binance-spot-api-docs/blob/master/web-socket-streams.md
        """
        event = orjson.dumps({"e": "serverShutdown", "E": self.now_ns() // 1_000_000}).decode()
        for socket in self.sockets:
            if socket.path.startswith(f"/{market}/"):
                socket.send(self.frame(socket, "!serverShutdown", event))

    # --- The stream server --------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept the paths that exist, old and un-routed ones too."""
        return None if _ws_path(request.path) is not None else Response(status=404)

    async def on_open(self, socket: Socket) -> None:
        """Subscribe the streams that the URL names; they get no answer."""
        place = _ws_path(socket.path)
        assert place is not None, "other paths were denied"
        market, route, combined, stream = place
        socket.memo["combined"] = combined
        socket.scope = f"{market}{route}"
        if market == "inverse" and not route:
            # An un-routed dstream connection is reported to deliver the order-book class only.
            socket.scope = "inverse/public"
        names = stream or socket.request.query.get("streams", "")
        self.subscribe(socket, [name for name in names.split("/") if name])

    def ping_every_s(self, socket: Socket) -> tuple[float, float]:
        """Ping each 20 s on spot and each 3 min on futures; a pong is due in 60 s and 10 min."""
        return (20.0, 60.0) if socket.path.startswith("/spot/") else (180.0, 600.0)

    def messages_per_s(self, socket: Socket) -> int:
        """Take 5 messages per second on spot and 10 on futures."""
        return 5 if socket.path.startswith("/spot/") else 10

    def frame(self, socket: Socket, stream: str, payload: str) -> str:
        """Wrap the payload on `/stream`, or send it raw on `/ws`."""
        return f'{{"stream":"{stream}","data":{payload}}}' if socket.memo["combined"] else payload

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY and GET_PROPERTY."""
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            self._complain(socket, 3, "Invalid JSON: expected value at line 1 column 1")
            return
        if not isinstance(request, dict) or "method" not in request:
            self._complain(socket, 2, f"Invalid request: missing field `method` at line 1 column {len(text)}")
            return
        number = request.get("id")
        params = request.get("params", [])
        match request["method"]:
            case "SUBSCRIBE" | "UNSUBSCRIBE" as method:
                if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
                    self._complain(socket, 2, "Invalid request: params must be an array of strings")
                    return
                if method == "SUBSCRIBE":
                    self.seen.subscribes += 1
                    self.subscribe(socket, params)
                else:
                    self.seen.unsubscribes += 1
                    self.unsubscribe(socket, params)
                self.acknowledge(socket, {"result": None, "id": number})
            case "LIST_SUBSCRIPTIONS":
                self.acknowledge(socket, {"result": list(socket.subscriptions), "id": number})
            case "SET_PROPERTY" if isinstance(params, list) and len(params) == 2 and params[0] == "combined":
                socket.memo["combined"] = params[1] is True
                self.acknowledge(socket, {"result": None, "id": number})
            case "GET_PROPERTY":
                self.acknowledge(socket, {"result": socket.memo["combined"], "id": number})
            case method:
                self._complain(socket, 2, f"Invalid request: unknown variant `{method}`")

    def _complain(self, socket: Socket, code: int, text: str) -> None:
        socket.send(orjson.dumps({"code": code, "msg": text}).decode())

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer ping, time, exchangeInfo, depth, klines and aggTrades, and count their weight."""
        market, _, rest = request.path.removeprefix("/").partition("/")
        path = f"/{rest}"
        if market not in MARKETS or not path.startswith(_API[market]):
            return Response(status=404, body=b'{"code":-1,"msg":"no such path"}')
        self.begin()
        what = path.removeprefix(_API[market]).removeprefix("/")
        handlers: Mapping[str, Callable[[str, Mapping[str, str]], Any]] = {
            "ping": lambda market, query: {},
            "time": lambda market, query: {"serverTime": self.now_ns() // 1_000_000},
            "exchangeInfo": self._exchange_info,
            "depth": self._depth,
            "klines": self._klines,
            "aggTrades": self._agg_trades,
        }
        if what not in handlers:
            return Response(status=404, body=b'{"code":-1,"msg":"no such path"}')
        if (refusal := self._weigh(market, _weight(market, what, request.query))) is not None:
            return refusal
        headers = {"x-mbx-used-weight-1m": str(self._weights[market].used)}
        try:
            answer = handlers[what](market, request.query)
        except _BadRequestError as e:
            body = orjson.dumps({"code": e.code, "msg": str(e)})
            return Response(status=400, headers=headers, body=body)
        return Response(headers=headers, body=orjson.dumps(answer))

    def _weigh(self, market: str, weight: int) -> Response | None:
        """Count a request; 429 past the limit until the minute ends, 418 for who goes on regardless."""
        weights, now_ns = self._weights[market], self.now_ns()
        minute = now_ns // 60_000_000_000
        if minute != weights.minute:
            weights.minute, weights.used, weights.refused = minute, 0, 0
        weights.used += weight
        banned = now_ns < weights.banned_until_ns
        if not banned and weights.used <= weights.limit:
            return None
        weights.refused += 1
        if weights.refused > 5 and not banned:
            weights.banned_until_ns = now_ns + 120_000_000_000
            banned = True
        until_ns = weights.banned_until_ns if banned else (minute + 1) * 60_000_000_000
        body = {
            "code": -1003,
            "msg": f"Too many requests; current limit is {weights.limit} weight per minute.",
        }
        return Response(
            status=418 if banned else 429,
            headers={
                "retry-after": str(-(-(until_ns - now_ns) // 1_000_000_000)),
                "x-mbx-used-weight-1m": str(weights.used),
            },
            body=orjson.dumps(body),
        )

    def _find(self, market: str, query: Mapping[str, str]) -> str:
        if "symbol" not in query:
            raise _BadRequestError(
                -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            )
        name = self._names.get((market, query["symbol"]))
        if name is None:
            raise _BadRequestError(-1121, "Invalid symbol.")
        return name

    def _exchange_info(self, market: str, query: Mapping[str, str]) -> dict[str, Any]:
        names = [name for (where, _), name in self._names.items() if where == market]
        if market == "spot" and "symbol" in query:
            names = [self._find(market, query)]
        return {
            "timezone": "UTC",
            "serverTime": self.now_ns() // 1_000_000,
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self._weights[market].limit,
                }
            ],
            "exchangeFilters": [],
            "symbols": [self._words[name].listed() for name in names],
        }

    def _depth(self, market: str, query: Mapping[str, str]) -> dict[str, Any]:
        name = self._find(market, query)
        limit = _number(query, "limit", 100 if market == "spot" else 500)
        if market == "spot":
            limit = min(limit, 5000)
        elif limit not in _FUTURES_DEPTHS:
            raise _BadRequestError(-1130, "Data sent for parameter 'limit' is not valid.")
        bids, asks = self.market.book(name, limit)
        return self._words[name].snapshot(self.market.sequence(name), bids, asks, self.now_ns() // 1_000_000)

    def _klines(self, market: str, query: Mapping[str, str]) -> list[list[Any]]:
        name = self._find(market, query)
        if query.get("interval") != "1m":
            raise _BadRequestError(-1120, "Invalid interval.")
        most = 1000 if market == "spot" else 1500
        limit = min(_number(query, "limit", 500), most)
        for event in self.market.turn(self.now_ns()):
            self.tell(event)
        start, end = _range(query)
        if market == "inverse" and start is not None and end is None:
            end = start + 200 * 86_400_000
        rows = [
            self._words[name].kline_row(candle)
            for candle in self.market.candles(name)
            if (start is None or candle.start_ns // 1_000_000 >= start)
            and (end is None or candle.start_ns // 1_000_000 <= end)
        ]
        # COIN-M gives the newest rows of the window, the others the oldest where there is a start.
        return rows[:limit] if start is not None and market != "inverse" else rows[-limit:]

    def _agg_trades(self, market: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        name = self._find(market, query)
        limit = min(_number(query, "limit", 500), 1000)
        trades = self.market.trades(name)
        if "fromId" in query:
            first = _number(query, "fromId", 0)
            found = [trade for trade in trades if trade.id >= first][:limit]
        else:
            start, end = _range(query)
            found = [
                trade
                for trade in trades
                if (start is None or trade.time_ns // 1_000_000 >= start)
                and (end is None or trade.time_ns // 1_000_000 <= end)
            ]
            found = found[:limit] if start is not None else found[-limit:]
        return [self._words[name].agg_trade_row(trade) for trade in found]


class _BadRequestError(Exception):
    """An answer of HTTP 400."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def _ws_path(path: str) -> tuple[str, str, bool, str] | None:
    """Return market, route (`/public`, `/market` or ""), whether combined, and the stream in the path."""
    market, _, rest = path.removeprefix("/").partition("/")
    if market not in MARKETS:
        return None
    route = ""
    if market != "spot" and rest.split("/")[0] in ("public", "market"):
        name, _, rest = rest.partition("/")
        route = f"/{name}"
    kind, _, stream = rest.partition("/")
    return (market, route, kind == "stream", stream) if kind in ("ws", "stream") else None


def _scope(market: str, stream: str) -> str:
    if market == "spot":
        return "spot"
    public = any(kind in stream for kind in _PUBLIC)
    return f"{market}/public" if public else f"{market}/market"


def _weight(market: str, what: str, query: Mapping[str, str]) -> int:
    """Return what a request costs: binance.com's REST documentation, as of July 2026."""
    limit = _number(query, "limit", 500) if query.get("limit", "1").isdigit() else 500
    if what == "exchangeInfo":
        return 20 if market == "spot" else 1
    if what == "depth":
        steps = ((100, 5), (500, 25), (1000, 50)) if market == "spot" else ((50, 2), (100, 5), (500, 10))
        return next((cost for most, cost in steps if limit <= most), 250 if market == "spot" else 20)
    if what == "klines":
        if market == "spot":
            return 2
        return next((cost for most, cost in ((99, 1), (499, 2), (1000, 5)) if limit <= most), 10)
    if what == "aggTrades":
        return 4 if market == "spot" else 20
    return 1


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(query.get(key, default))
    except ValueError:
        raise _BadRequestError(-1100, f"Illegal characters found in parameter '{key}'.") from None


def _range(query: Mapping[str, str]) -> tuple[int | None, int | None]:
    start = _number(query, "startTime", 0) if "startTime" in query else None
    end = _number(query, "endTime", 0) if "endTime" in query else None
    return start, end


# --- Captures ---------------------------------------------------------------------------------------------

_STREAM = re.compile(r'\{"stream":"([^"]+)"')


def tape(market: str, *paths: Path | str) -> Tape:
    """Return captures of one market as they are to be served: futures by route, books after their snapshots."""

    def stream_of(frame: str) -> tuple[str, str] | None:
        found = _STREAM.match(frame)
        return None if found is None else (_scope(market, found[1]), found[1])

    def book_of(stream: str) -> str | None:
        symbol, _, kind = stream.partition("@")
        return symbol.upper() if kind.startswith("depth@") else None

    return Tape(records=read_capture(*paths), prefix=f"/{market}", stream_of=stream_of, book_of=book_of)


def capture_server(*tapes: Tape, settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind a Binance that lists nothing else and has no history."""
    fake = BinanceFake(Market(()))

    async def no_history(request: Request) -> Response | None:
        past = request.path.endswith(("/klines", "/aggTrades"))
        return Response(body=b"[]") if past else None

    fake.answers.append(no_history)
    return CaptureServer(fake, tapes, settle_s=settle_s)
