"""A fake Gate: spot and the perpetuals of each settle currency, on one port with the venue's own paths.

It speaks the protocol as of 2026: acks with payload and id, refusals in the venue's words, the stream that begins
with a whole book and the one that is joined to REST, pings that keep a connection, and a rate limit per endpoint.
"""

from __future__ import annotations

import math
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
from pricefeedd.testing.listing import Listing
from pricefeedd.testing.market import Market
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.testing.truth import (
    SimCandle,
    SimDelta,
    SimEvent,
    SimLiquidation,
    SimQuote,
    SimTicker,
    SimTrade,
)
from pricefeedd_gateio.codec import BOOK_DEPTHS, OBU_DEPTHS, UPDATE_DEPTHS
from pricefeedd_gateio.fake_words import Rows, Words

#: Where each part of the venue is found.
_PATHS = {
    "/ws/v4/": "spot",
    "/ws/v4": "spot",
    "/v4/ws/usdt": "usdt",
    "/v4/ws/btc": "btc",
    "/v4/ws/usd1": "usd1",
}
_SETTLES = ("usdt", "btc", "usd1")

_ONE_BY_ONE = ("candlesticks", "order_book_update")
_LISTS = ("trades", "tickers", "book_ticker", "obu")
_MS = 1_000_000
_S = 1_000_000_000

#: A client that says nothing for this long is cut off.
_IDLE_S = 30.5
_CLOCK_LIMIT_S = 60
_CONNECTIONS = 300
_PER_WINDOW, _WINDOW_S = 200, 10.0
_MAX_CANDLES = {"spot": 1000}
_MINUTES_KEPT = 10_000


@attrs.define
class _View:
    """The best levels of a book that a stream has told: what lies deeper is none of its business."""

    bids: set[str]
    asks: set[str]


class GateioFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        closes_candles: Whether a minute's last message is sent; the venue says that it may not be.
        keeps_good: Whether a request with one bad symbol subscribes the others; not documented.
        knows_all: Whether every symbol can be subscribed, listed or not.
        per_window: Requests in 10 seconds that an endpoint takes.
        connections: Sockets that may be open.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        per_window: int = _PER_WINDOW,
        connections: int = _CONNECTIONS,
    ) -> None:
        """Make a fake Gate.

        Args:
            market: By default one with some instruments of all markets.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
            per_window: Requests in 10 seconds that an endpoint takes.
            connections: Sockets that may be open.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        self.closes_candles = True
        self.keeps_good = False
        self.knows_all = False
        self.per_window = per_window
        self.connections = connections
        self._asked: dict[str, deque[float]] = {}
        self._words = {name: Words(listing) for name, listing in self.market.listings.items()}
        self._names = {(words.scope, words.symbol): name for name, words in self._words.items()}
        self._views: dict[tuple[str, str], _View] = {}

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return pairs, linear contracts of which one is traded in fractions, and inverse ones."""
        spot = [
            ("BTC", "83766.1", "0.1", "0.000001"),
            ("ETH", "2666.10", "0.01", "0.0001"),
            ("SOL", "150.00", "0.01", "0.001"),
        ]
        linear = [
            ("BTC", "83746.9", "0.1", "1", "0.0001"),
            ("ETH", "2665.50", "0.01", "1", "0.01"),
            ("SOL", "150.100", "0.001", "0.1", "1"),
        ]
        return (
            *(Listing(market="spot", base=b, quote="USDT", price=p, tick=t, lot=s) for b, p, t, s in spot),
            *(
                Listing(
                    market="linear",
                    base=b,
                    quote="USDT",
                    kind=Kind.PERPETUAL,
                    price=p,
                    tick=t,
                    lot=s,
                    contract_size=c,
                )
                for b, p, t, s, c in linear
            ),
            # The venue itself has the first of these only.
            *(
                Listing(
                    market="inverse", base=b, quote="USD", kind=Kind.PERPETUAL, price=p, tick="0.1", lot="1"
                )
                for b, p in (("BTC", "83750.5"), ("ETH", "2666.5"))
            ),
        )

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.gateio.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        return {
            "spot_ws": f"ws://{base}/ws/v4",
            "linear_ws": f"ws://{base}/v4/ws/usdt",
            "linear_usd1_ws": f"ws://{base}/v4/ws/usd1",
            "inverse_ws": f"ws://{base}/v4/ws/btc",
            **{f"{market}_rest": f"http://{base}/api/v4" for market in ("spot", "linear", "inverse")},
        }

    # --- What happens -------------------------------------------------------------------------------------

    def tell(self, event: SimEvent) -> None:
        """Publish what happened, in Gate's words, to whoever subscribed it."""
        words = self._words[event.name]
        match event:
            case SimTrade():
                self._tell(words, "trades", words.trade(event))
            case SimQuote():
                self._tell(words, "book_ticker", words.book_ticker(event))
            case SimTicker():
                self._tell(words, "tickers", words.ticker(event))
            case SimCandle():
                if self.closes_candles or not event.closed:
                    stream = f"candlesticks:1m:{words.symbol}"
                    self._tell(words, "candlesticks", words.candle(event), stream)
            case SimDelta():
                self._tell_book(words, event)
            case SimLiquidation() if not words.spot:
                for who in (words.symbol, "!all"):
                    stream = f"public_liquidates:{who}"
                    self._tell(words, "public_liquidates", words.liquidation(event), stream)

    def _tell(
        self, words: Words, kind: str, result: Any, stream: str = "", *, event: str | None = "update"
    ) -> None:
        stream = stream or f"{kind}:{words.symbol}"
        if self.wanted(stream, scope=words.scope):
            self.publish(stream, words.message(kind, result, self.now_ns(), event), scope=words.scope)

    def _tell_book(self, words: Words, event: SimDelta) -> None:
        # The simulated futures share one count that jumps; this venue's numbers have no holes.
        first, last, time_ns = event.previous + 1, event.last, event.time_ns
        for depth in BOOK_DEPTHS:
            stream = _book_stream(words, depth)
            if not self.wanted(stream, scope=words.scope):
                continue
            bids, asks = self._seen_by(words, stream, depth, event)
            if depth in UPDATE_DEPTHS:
                result = words.book_update(first, last, time_ns, bids, asks)
                self._tell(words, "order_book_update", result, stream)
            else:
                result = words.obu(stream.removeprefix("obu:"), first, last, time_ns, bids, asks)
                self._tell(words, "obu", result, stream, event=None)

    def _seen_by(self, words: Words, stream: str, depth: int, event: SimDelta) -> tuple[Rows, Rows]:
        """Return the changes that a stream of this depth tells.

        A level that comes into the depth is told, one that is pushed out of it is not.
        """
        bids, asks = self.market.book(event.name, depth)
        new = _View({price for price, _ in bids}, {price for price, _ in asks})
        old = self._views.get((words.scope, stream), new)
        self._views[words.scope, stream] = new
        return (
            _changes(event.bids, bids, old.bids, new.bids),
            _changes(event.asks, asks, old.asks, new.asks),
        )

    def liquidate(self, name: str) -> None:
        """Close a position by force, and tell it."""
        self.tell(self.market.liquidate(name, self.now_ns()))

    def shut_down(self, market: str) -> None:
        """Announce that this node goes away; `faults.close` ends it then."""
        notice: dict[str, Any] = {
            "type": "upgrade",
            "msg": "The connection will soon be closed for a service upgrade. Please reconnect.",
        }
        if market != "spot":
            notice = {**self._head(), "channel": "futures.system", "event": "update", "result": notice}
        scopes = {words.scope for words in self._words.values() if words.listing.market == market}
        for socket in self.sockets:
            if socket.scope in scopes:
                socket.send(orjson.dumps(notice).decode())

    def told_book(self, name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return bids and asks, best first, to the depth of the stream that is subscribed now."""
        words = self._words[name]
        depths = [d for d in BOOK_DEPTHS if self.wanted(_book_stream(words, d), scope=words.scope)]
        return self.market.book(name, min(depths, default=None))

    # --- The stream server --------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept the paths that exist, up to as many connections as one address may have."""
        if request.path not in _PATHS:
            return Response(status=404)
        return Response(status=429) if len(self.sockets) >= self.connections else None

    async def on_open(self, socket: Socket) -> None:
        """Note which part of the venue it speaks with, and how it wants sizes."""
        socket.scope = _PATHS[socket.path]
        socket.memo["decimal"] = socket.request.headers.get("x-gate-size-decimal") == "1"
        socket.memo["heard"] = trio.current_time()

    async def beside(self, socket: Socket) -> None:
        """Cut a client that says nothing; the venue's own pings were documented, and not seen."""
        while True:
            heard = socket.memo["heard"]
            assert isinstance(heard, float), "a time of Trio's clock"
            left = heard + _IDLE_S - trio.current_time()
            if left <= 0:
                socket.abort()
                return
            await trio.sleep(left)

    def frame(self, socket: Socket, stream: str, payload: str) -> str:
        """Send the payload as it is, or with whole sizes to who did not ask for texts."""
        if socket.scope == "spot" or socket.memo["decimal"]:
            return payload
        return orjson.dumps(_whole(orjson.loads(payload))).decode()

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey subscribe and unsubscribe, and answer pings."""
        socket.memo["heard"] = trio.current_time()
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("channel"), str):
            self._answer(socket, {}, 1, "invalid request body format")
            return
        prefix, _, kind = request["channel"].partition(".")
        if prefix != ("spot" if socket.scope == "spot" else "futures"):
            self._answer(socket, request, 2, f"unknown channel {request['channel']}")
        elif kind == "ping":
            body = {**self._head(), "channel": f"{prefix}.pong", "event": "", "result": None}
            socket.send(orjson.dumps(body).decode())
        elif abs(request.get("time", 0) - self.now_ns() / _S) > _CLOCK_LIMIT_S:
            self._answer(socket, request, 1, "request time is out of range")
        elif request.get("event") == "subscribe":
            self.seen.subscribes += 1
            self._subscribe(socket, request, kind)
        elif request.get("event") == "unsubscribe":
            self.seen.unsubscribes += 1
            streams, _ = self._streams(socket, kind, request.get("payload"))
            self.unsubscribe(socket, streams)
            self._answer(socket, request)
        else:
            self._answer(socket, request, 2, f"unknown event {request.get('event')}")

    def _head(self) -> dict[str, Any]:
        now_ns = self.now_ns()
        return {"time": now_ns // _S, "time_ms": now_ns // _MS}

    def _answer(self, socket: Socket, request: Mapping[str, Any], code: int = 0, words: str = "") -> None:
        body: dict[str, Any] = self._head()
        body |= {key: request[key] for key in ("id",) if key in request}
        body |= {"conn_id": "d7de96c024f2a5b2", "trace_id": "e6fd9bdd617fcdb80d0762ffa33e71f6"}
        body |= {key: request.get(key, "") for key in ("channel", "event")}
        if "payload" in request:
            body["payload"] = request["payload"]
        if code:
            body["error"] = {"code": code, "message": words}
        body["result"] = {"status": "fail" if code else "success"}
        self.acknowledge(socket, body)

    def _subscribe(self, socket: Socket, request: Mapping[str, Any], kind: str) -> None:
        streams, fault = self._streams(socket, kind, request.get("payload"))
        if fault is not None and not (streams and self.keeps_good):
            self._answer(socket, request, *fault)
            return
        again = next((s for s in streams if kind == "obu" and s in socket.subscriptions), None)
        if again is not None:
            self._answer(socket, request, 2, f"Alert sub {again.partition(':')[2]}")
            return
        # What happened so far belongs before the streams that begin now.
        self.begin()
        self.flush()
        self.subscribe(socket, streams)
        for stream in streams:
            self._begin_book(socket, stream)
        self._answer(socket, request, *(fault or ()))

    def _begin_book(self, socket: Socket, stream: str) -> None:
        """Note what a book stream begins with; one of `obu` sends it, which may well come before the ack."""
        kind, _, argument = stream.partition(":")
        if kind == "obu":
            symbol = argument.removeprefix("ob.").rpartition(".")[0]
        elif kind == "order_book_update":
            symbol = argument.partition(":")[0]
        else:
            return
        name = self._names.get((socket.scope, symbol))
        words = None if name is None else self._words[name]
        depths = [] if words is None else [d for d in BOOK_DEPTHS if _book_stream(words, d) == stream]
        if name is None or words is None or not depths:
            return  # acknowledged, and silent for ever
        bids, asks = self.market.book(name, depths[0])
        self._views[words.scope, stream] = _View({price for price, _ in bids}, {price for price, _ in asks})
        if kind == "obu":
            now_ns = self.now_ns()
            whole = words.obu(argument, None, self.market.sequence(name), now_ns, bids, asks)
            text = orjson.dumps(words.message("obu", whole, now_ns, None)).decode()
            self.faults.deliver(socket, stream, self.frame(socket, stream, text))

    def _streams(self, socket: Socket, kind: str, payload: Any) -> tuple[list[str], tuple[int, str] | None]:
        """Return the streams that a payload names, and what is wrong with it."""
        schema = (1, "request payload does not follow json schema")
        lists = _LISTS if socket.scope == "spot" else (*_LISTS, "public_liquidates")
        if kind not in (*_ONE_BY_ONE, *lists):
            return [], (2, f"unknown channel {kind}")
        if not isinstance(payload, list) or not payload or not all(isinstance(one, str) for one in payload):
            return [], schema
        if kind in _ONE_BY_ONE:
            symbol = payload[-1] if kind == "candlesticks" else payload[0]
            others = payload[:-1] if kind == "candlesticks" else payload[1:]
            if not self._offers(socket.scope, kind, others):
                return [], schema
            if not self._knows(socket.scope, symbol):
                return [], (2, f"unknown currency pair {symbol}")
            return [":".join((kind, *payload))], None
        if kind == "obu":
            return [f"obu:{one}" for one in payload], None
        good = [one for one in payload if self._knows(socket.scope, one) or one == "!all"]
        bad = [one for one in payload if one not in good]
        return [f"{kind}:{one}" for one in good], (2, f"unknown currency pair {bad[0]}") if bad else None

    def _knows(self, scope: str, symbol: str) -> bool:
        return self.knows_all or (scope, symbol) in self._names

    @staticmethod
    def _offers(scope: str, kind: str, arguments: list[str]) -> bool:
        if kind == "candlesticks":
            return arguments in (["1m"], ["5m"], ["1h"])
        if scope == "spot":
            return arguments in (["20ms"], ["100ms"])
        # The newest form names the depth as well.
        return arguments in (["100ms"], ["20ms", "20"], ["100ms", "20"], ["100ms", "50"], ["100ms", "100"])

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer the time, the lists, order_book, candlesticks and trades, and count requests per endpoint."""
        scope, _, what = request.path.removeprefix("/api/v4/").rpartition("/")
        scope = scope.removeprefix("futures/")
        kind = "spot" if scope == "spot" else "futures"
        handlers: dict[str, Callable[[str, Mapping[str, str]], Any]] = {
            "order_book": self._order_book,
            "candlesticks": self._candlesticks,
            "trades": self._trades,
        }
        if scope == "spot":
            handlers |= {"time": lambda scope, query: {"server_time": self.now_ns() // _MS}}
        handlers["currency_pairs" if scope == "spot" else "contracts"] = self._listed
        if (
            not request.path.startswith("/api/v4/")
            or scope not in ("spot", *_SETTLES)
            or what not in handlers
        ):
            return Response(status=404, body=b'{"label":"NOT_FOUND","message":"no such path"}')
        self.begin()
        headers, refused = self._count(f"{kind}/{what}")
        if refused:
            body = {"label": "TOO_MANY_REQUESTS", "message": "Request Rate Limit Exceeded (003)"}
            return Response(status=429, headers=headers, body=orjson.dumps(body))
        try:
            answer = handlers[what](scope, request.query)
        except _BadRequestError as e:
            body = {"label": e.label, "message": str(e)}
            return Response(status=400, headers=headers, body=orjson.dumps(body))
        if scope != "spot" and request.headers.get("x-gate-size-decimal") != "1":
            answer = _whole(answer)
        return Response(headers=headers, body=orjson.dumps(answer))

    def _count(self, endpoint: str) -> tuple[dict[str, str], bool]:
        """Count a request; return the headers that tell of the limit, and whether it is used up."""
        now = trio.current_time()
        asked = self._asked.setdefault(endpoint, deque())
        while asked and asked[0] <= now - _WINDOW_S:
            asked.popleft()
        refused = len(asked) >= self.per_window
        if not refused:
            asked.append(now)
        reset_s = self.now_ns() / _S + (asked[0] + _WINDOW_S - now if asked else _WINDOW_S)
        headers = {
            "x-gate-ratelimit-limit": str(self.per_window),
            "x-gate-ratelimit-requests-remain": str(self.per_window - len(asked)),
            "x-gate-ratelimit-reset-timestamp": str(math.ceil(reset_s)),
        }
        return headers, refused

    def _find(self, scope: str, query: Mapping[str, str]) -> str:
        key = "currency_pair" if scope == "spot" else "contract"
        if key not in query:
            raise _BadRequestError("MISSING_REQUIRED_PARAM", f"Missing required parameter: {key}")
        name = self._names.get((scope, query[key]))
        if name is None:
            label = "INVALID_CURRENCY_PAIR" if scope == "spot" else "CONTRACT_NOT_FOUND"
            raise _BadRequestError(label, f"Invalid {key} {query[key]}")
        return name

    def _listed(self, scope: str, query: Mapping[str, str]) -> list[Any]:
        found = [words.listed() for words in self._words.values() if words.scope == scope]
        return found[: _number(query, "limit", len(found))]

    def _order_book(self, scope: str, query: Mapping[str, str]) -> dict[str, Any]:
        name = self._find(scope, query)
        bids, asks = self.market.book(name, _number(query, "limit", 10))
        sequence = self.market.sequence(name) if query.get("with_id") == "true" else None
        return self._words[name].snapshot(sequence, bids, asks, self.now_ns())

    def _candlesticks(self, scope: str, query: Mapping[str, str]) -> list[Any]:
        name = self._find(scope, query)
        if query.get("interval") != "1m":
            raise _BadRequestError("INVALID_PARAM_VALUE", "Only minutes are simulated")
        now_ns = self.now_ns()
        for event in self.market.turn(now_ns):
            self.tell(event)
        if "from" not in query:
            limit = _number(query, "limit", 100)
            chosen = self.market.candles(name)[-limit:]
            return [self._words[name].candle_row(candle) for candle in chosen]
        if "limit" in query:
            text = f"Invalid request parameter `limit` value: {query['limit']}"
            raise _BadRequestError("INVALID_PARAM_VALUE", text)
        start_s, end_s = _number(query, "from", 0), _number(query, "to", now_ns // _S)
        if (end_s - start_s) // 60 >= 1000:
            text = "Candlestick range too broad. Maximum 1000 data points are allowed per request"
            raise _BadRequestError("INVALID_PARAM_VALUE", text)
        if start_s < now_ns // _S - _MINUTES_KEPT * 60:
            text = f"Candlestick too long ago. Maximum {_MINUTES_KEPT} points ago are allowed"
            raise _BadRequestError("INVALID_PARAM_VALUE", text)
        return [
            self._words[name].candle_row(candle)
            for candle in self.market.candles(name)
            if start_s * _S <= candle.start_ns <= end_s * _S
        ]

    def _trades(self, scope: str, query: Mapping[str, str]) -> list[Any]:
        name = self._find(scope, query)
        limit = _number(query, "limit", 100)
        if not 1 <= limit <= 1000:
            raise _BadRequestError("INVALID_PARAM_VALUE", f"Invalid request parameter `limit` value: {limit}")
        start_s = _number(query, "from", 0)
        end_s = _number(query, "to", self.now_ns() // _S + 1)
        found = [t for t in reversed(self.market.trades(name)) if start_s <= t.time_ns // _S <= end_s]
        skip = (_number(query, "page", 1) - 1) * limit if scope == "spot" else _number(query, "offset", 0)
        return [self._words[name].trade_row(trade) for trade in found[skip : skip + limit]]


class _BadRequestError(Exception):
    """An answer of HTTP 400."""

    def __init__(self, label: str, text: str) -> None:
        super().__init__(text)
        self.label = label


def _book_stream(words: Words, depth: int) -> str:
    """Return the stream that brings a book of this depth."""
    if depth in OBU_DEPTHS:
        return f"obu:ob.{words.symbol}.{depth}"
    stream = f"order_book_update:{words.symbol}:{UPDATE_DEPTHS[depth]}"
    return stream if words.spot else f"{stream}:{depth}"


def _changes(told: Rows, book: Rows, old: set[str], new: set[str]) -> Rows:
    changed = [(price, size) for price, size in told if price in new or not size.strip("0.")]
    known = {price for price, _ in told}
    return [*changed, *((p, size) for p, size in book if p not in old and p not in known)]


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(query.get(key, default))
    except ValueError:
        text = f"Invalid request parameter `{key}` value: {query[key]}"
        raise _BadRequestError("INVALID_PARAM_VALUE", text) from None


#: Fields that count contracts.
_COUNTS = frozenset({"size", "s", "v", "A", "B", "order_size_min", "order_size_max", "total_size"})


def _whole(value: Any) -> Any:
    """Return a value of JSON with its sizes as integers, their fractions cut off."""
    if isinstance(value, list):
        # A level of `obu` keeps its texts.
        return [_whole(one) if isinstance(one, dict | list) else one for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: int(float(one))
        if key in _COUNTS and isinstance(one, str) and one.lstrip("-").replace(".", "", 1).isdecimal()
        else _whole(one)
        for key, one in value.items()
    }


# --- Captures ---------------------------------------------------------------------------------------------


def tape(market: str, *paths: Path | str) -> Tape:
    """Return captures of one market as they are to be served: `spot`, or `linear` for those settled in USDT.

    Books of captures are made of deltas of 100 levels: they are read with `book_depth = 100`.
    """
    scope = "spot" if market == "spot" else "usdt"

    def stream_of(frame: str) -> tuple[str, str] | None:
        message = orjson.loads(frame)
        if message.get("event") != "update":
            return None
        return scope, _recorded_stream(message)

    def book_of(stream: str) -> str | None:
        kind, _, rest = stream.partition(":")
        return rest.partition(":")[0] if kind == "order_book_update" else None

    return Tape(
        records=read_capture(*paths),
        stream_of=stream_of,
        book_of=book_of,
        book_path="/order_book",
        key_params=("currency_pair", "contract"),
    )


def _recorded_stream(message: Any) -> str:
    """Return the stream of a recorded frame, as it is subscribed today."""
    prefix, _, kind = message["channel"].partition(".")
    result = message["result"]
    row = result[0] if isinstance(result, list) else result
    if kind == "candlesticks":
        interval, _, symbol = row["n"].partition("_")
        return f"{kind}:{interval}:{symbol}"
    symbol = row.get("s") or row.get("currency_pair") or row["contract"]
    if kind == "order_book_update":
        return f"{kind}:{symbol}:100ms" if prefix == "spot" else f"{kind}:{symbol}:100ms:100"
    return f"{kind}:{symbol}"


def capture_server(*tapes: Tape, settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind a Gate that lists nothing else and has no history."""
    fake = GateioFake(Market(()))
    fake.knows_all = True

    async def no_history(request: Request) -> Response | None:
        past = request.path.endswith(("/candlesticks", "/trades"))
        return Response(body=b"[]") if past else None

    fake.answers.append(no_history)
    return CaptureServer(fake, tapes, settle_s=settle_s)
