"""A fake OKX: all instruments on one port, as OKX itself serves them from one host.

`ws://127.0.0.1:PORT` is what `wss://ws.okx.com:8443` is, and `http://127.0.0.1:PORT` what `https://www.okx.com` is.
It speaks the protocol as of September 2026: one ack per arg and errors without one, two endpoints, the cut after
30 s without a push, snapshots and chained updates without a checksum, requests counted by the hour, and REST whose
errors hide behind HTTP 200.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import trio

from pricefeedd.instruments import Kind
from pricefeedd.testing import Request, Response, Socket
from pricefeedd.testing.capture import CaptureServer, Tape, read_capture
from pricefeedd.testing.market import (
    Listing,
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
from pricefeedd_okx.codec import stream_name
from pricefeedd_okx.fake_words import Words, ms, type_of

MARKETS = ("spot", "linear", "inverse")

_PUBLIC = frozenset(
    {"trades", "tickers", "bbo-tbt", "books", "mark-price", "index-tickers", "funding-rate", "open-interest",
     "liquidation-orders"}
)  # fmt: skip
_BUSINESS = frozenset({"candle1m", "trades-all"})
_FOR_VIPS = frozenset({"books-l2-tbt", "books50-l2-tbt"})
_ENDPOINTS = {"/ws/v5/public": "public", "/ws/v5/business": "business", "/ws/v5/private": "private"}

_REQUEST_ID = re.compile(r"[0-9A-Za-z]{1,32}\Z")
_MAX_ARGS_BYTES = 65_536
_IDLE_S = 30.0
_KEEP_ALIVE_S = 60.0
_HOUR_S = 3600.0
_NOTICE_S = 60.0

_DATED_NS = 1_798_185_600 * 10**9  # 2026-12-25T08:00:00Z

#: Requests in 2 s, by the last part of the path.
_LIMITS = {
    "instruments": 20,
    "books": 40,
    "candles": 40,
    "history-candles": 20,
    "trades": 100,
    "history-trades": 20,
    "time": 10,
}
_RECENT_MINUTES = 1440


class OkxFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        snapshots: Whether `books` begins with a snapshot; without, it begins with an update, as OKX announced.
        unserved: Symbols that REST lists and the streams do not know.
    """

    snapshots = True

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        requests_per_hour: int = 480,
        connections_per_s: int = 3,
    ) -> None:
        """Make a fake OKX.

        Args:
            market: By default one with two or three instruments of each market.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
            requests_per_hour: Subscribe and unsubscribe requests that one connection may send.
            connections_per_s: New connections that one address may make.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        self._requests_per_hour = requests_per_hour
        self._connections_per_s = connections_per_s
        self.unserved: set[str] = set()
        self._opened: deque[float] = deque()
        self._asked: dict[str, deque[float]] = {}
        self._words = {name: Words(listing) for name, listing in self.market.listings.items()}
        self._names = {words.symbol: name for name, words in self._words.items()}
        self._indices = {
            words.index: name for name, words in self._words.items() if words.listing.kind is Kind.PERPETUAL
        }
        #: What is taken from the market's numbers, by instrument: a reset after maintenance makes it grow.
        self._behind: Counter[str] = Counter()
        self._resets: dict[str, int] = {}
        self._connections = 0

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return instruments of each market, as OKX names and sizes them."""
        spot = [
            ("BTC", "60000.0", "0.1", "0.00000001"),
            ("ETH", "2500.00", "0.01", "0.000001"),
            ("SOL", "150.00", "0.01", "0.0001"),
        ]
        linear = [("BTC", "60010.0", "0.1", "0.01"), ("ETH", "2501.00", "0.01", "0.1")]
        inverse = [("BTC", "60005.0", "0.1", "100"), ("ETH", "2500.50", "0.01", "10")]
        return (
            *(Listing(market="spot", base=b, quote="USDT", price=p, tick=t, lot=s) for b, p, t, s in spot),
            *(
                Listing(
                    market="linear", base=b, quote="USDT", kind=Kind.PERPETUAL, price=p, tick=t, lot="0.01",
                    contract_size=c,
                )
                for b, p, t, c in linear
            ),
            Listing(
                market="linear", base="BTC", quote="USD_UM", kind=Kind.FUTURE, price="60500.0", tick="0.1", lot="0.01",
                contract_size="0.01", expiry_ns=_DATED_NS,
            ),
            *(
                Listing(
                    market="inverse", base=b, quote="USD", kind=Kind.PERPETUAL, price=p, tick=t, lot="1",
                    contract_size=c,
                )
                for b, p, t, c in inverse
            ),
            Listing(
                market="inverse", base="BTC", quote="USD", kind=Kind.FUTURE, price="60490.0", tick="0.1", lot="1",
                contract_size="100", expiry_ns=_DATED_NS,
            ),
        )  # fmt: skip

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.okx.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        return {
            f"{market}_{kind}": f"{scheme}://{base}"
            for market in MARKETS
            for kind, scheme in (("ws", "ws"), ("rest", "http"))
        }

    # --- What is told -------------------------------------------------------------------------------------

    def tell(self, event: SimEvent) -> None:
        """Publish what happened, in OKX's words, to whoever subscribed it on the right endpoint."""
        words = self._words[event.name]
        push = words.push

        def publish(channel: str, make: Callable[[], Any], what: str = words.symbol) -> None:
            scope = "business" if channel in _BUSINESS else "public"
            if self.wanted(f"{channel}:{what}", scope=scope):
                self.publish(f"{channel}:{what}", make(), scope=scope)

        match event:
            case SimTrade():
                publish("trades", lambda: push("trades", words.trade(event)))
                publish("trades-all", lambda: push("trades-all", words.fill(event)))
            case SimQuote():
                publish("bbo-tbt", lambda: push("bbo-tbt", self._quote(words, event)))
            case SimDelta():
                row = self._delta(words, event)
                publish("books", lambda: push("books", row, action="update"))
            case SimCandle():
                publish("candle1m", lambda: push("candle1m", words.candle(event)))
            case SimTicker():
                quote = self.market.quote(event.name)
                publish("tickers", lambda: push("tickers", words.ticker(event, quote)))
                if words.type != "SPOT":
                    publish("mark-price", lambda: push("mark-price", words.mark_price(event)))
                    publish("open-interest", lambda: push("open-interest", words.open_interest(event)))
                if words.type == "SWAP":
                    publish("funding-rate", lambda: push("funding-rate", words.funding(event)))
                if self._indices.get(words.index) == event.name:
                    publish("index-tickers", lambda: words.index_ticker(event), words.index)
            case SimLiquidation() if words.type != "SPOT":
                publish("liquidation-orders", lambda: words.liquidation(event), words.type)

    def _quote(self, words: Words, event: SimQuote) -> dict[str, Any]:
        row = words.quote(event, self.now_ns())
        row["seqId"] -= self._behind[event.name]
        return row

    def _delta(self, words: Words, event: SimDelta) -> dict[str, Any]:
        row = words.delta(event)
        row["prevSeqId"] -= self._behind[event.name]
        self._behind[event.name] += self._resets.pop(event.name, 0)
        row["seqId"] -= self._behind[event.name]
        return row

    def reset_sequence(self, name: str, by: int = 1_000_000) -> None:
        """Begin the numbers of a book anew, lower by so many, as after maintenance; the next update tells it."""
        self._resets[name] = by

    def keep_alive(self, name: str) -> None:
        """Push an update without changes, as OKX does where nothing changed for a minute."""
        words = self._words[name]
        self.flush()
        sequence = self._sequence(name)
        row = words.book((), (), self.now_ns(), sequence, sequence)
        self.publish(f"books:{words.symbol}", words.push("books", row, action="update"), scope="public")

    def _sequence(self, name: str) -> int:
        return self.market.sequence(name) - self._behind[name]

    def shut_down(self, market: str = "") -> None:
        """Announce to all connections, which know no market, that they end; they do 60 s later.

        https://www.okx.com/docs-v5/en/#overview-websocket-notification
        """
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        for socket in self.sockets:
            notice = {"event": "notice", "code": "64008", "msg": text, "connId": socket.memo["id"]}
            self._send(socket, notice)
            socket.start_soon(functools.partial(self._end, socket))

    async def _end(self, socket: Socket) -> None:
        await trio.sleep(_NOTICE_S)
        socket.close(1001, "service upgrade")

    # --- The stream server --------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept the three endpoints, so many connections a second."""
        if request.path not in _ENDPOINTS:
            return Response(status=404)
        now = trio.current_time()
        if not _counts(self._opened, now, 1.0, self._connections_per_s):
            return Response(status=429)
        return None

    async def on_open(self, socket: Socket) -> None:
        """Name the connection, and note where it is."""
        self._connections += 1
        socket.scope = _ENDPOINTS[socket.path]
        socket.memo["id"] = f"{self._connections:08x}"
        socket.memo["requests"] = deque[float]()
        self._active(socket)

    async def beside(self, socket: Socket) -> None:
        """Cut the socket when nothing was pushed to it for 30 s, and show that quiet books live."""
        while True:
            await trio.sleep(1.0)
            now = trio.current_time()
            if now - _time(socket, "active", now) >= _IDLE_S:
                socket.close(4004, "No data received in 30s.")
                await trio.sleep(5.0)
                socket.abort()
            for stream in tuple(socket.subscriptions):
                name = self._names.get(stream.removeprefix("books:"))
                if stream.startswith("books:") and name and now - _time(socket, stream, now) >= _KEEP_ALIVE_S:
                    self.keep_alive(name)

    def frame(self, socket: Socket, stream: str, payload: str) -> str:
        """Note that something is pushed, and push it as it is."""
        self._active(socket)
        socket.memo[stream] = trio.current_time()
        return payload

    def _active(self, socket: Socket) -> None:
        socket.memo["active"] = trio.current_time()

    def _send(self, socket: Socket, message: Mapping[str, Any] | str) -> None:
        self._active(socket)
        socket.send(message if isinstance(message, str) else orjson.dumps(message).decode())

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey `ping`, subscribe and unsubscribe."""
        if text == "ping":
            self._send(socket, "pong")
            return
        if len(text) > _MAX_ARGS_BYTES:
            socket.close(1009, "Request message exceeds the maximum frame length")
            return
        try:
            request = orjson.loads(text)
            request_id, op, args = request.get("id"), request["op"], request["args"]
            well_formed = type(args) is list and all(type(arg) is dict for arg in args)
        except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
            self._fail(socket, None, "60012", f"Invalid request: {text}")
            return
        if request_id is not None and not (type(request_id) is str and _REQUEST_ID.match(request_id)):
            self._fail(socket, None, "60033", "The id parameter is invalid")
            return
        if op not in ("subscribe", "unsubscribe"):
            self._fail(socket, request_id, "60019", f"Invalid op: {op}")
            return
        if not well_formed or not args:
            self._fail(socket, request_id, "60013", "Invalid args")
            return
        requests = socket.memo["requests"]
        assert isinstance(requests, deque), "on_open made it"
        if not _counts(requests, trio.current_time(), _HOUR_S, self._requests_per_hour):
            self._fail(socket, request_id, "60014", "Requests too frequent.")
            return
        if op == "subscribe":
            self.seen.subscribes += 1
        else:
            self.seen.unsubscribes += 1
        for arg in args:
            self._obey(socket, request_id, op, arg)

    def _obey(self, socket: Socket, request_id: str | None, op: str, arg: Mapping[str, Any]) -> None:
        """Answer one arg: each has an ack of its own, or an error that does not repeat it."""
        channel = arg.get("channel")
        if socket.scope == "private":
            self._fail(socket, request_id, "60011", "Please log in")
            return
        if channel in _FOR_VIPS:
            reason = "Your trading fee tier doesn't meet the requirement to access this channel"
            self._fail(socket, request_id, "64003", reason)
            return
        if not self._has(socket.scope, channel, arg):
            given = ",".join(f"{key}:{value}" for key, value in arg.items())
            reason = (
                f"{op.capitalize()} failed, wrong URL or {given} doesn't exist. "
                "Please use the correct URL, channel and parameters referring to API document."
            )
            self._fail(socket, request_id, "60018", reason)
            return
        name = stream_name(arg)
        if op == "unsubscribe":
            self.unsubscribe(socket, [name])
        ack: dict[str, Any] = {"event": op, "arg": dict(arg), "connId": socket.memo["id"]}
        if request_id is not None:
            ack = {"id": request_id, **ack}
        self._active(socket)
        self.acknowledge(socket, ack)
        if op == "subscribe" and name not in socket.subscriptions:
            first = self._first(name)
            self.subscribe(socket, [name])
            socket.memo[name] = trio.current_time()
            if first is not None:
                text = orjson.dumps(first).decode()
                self.faults.deliver(socket, name, self.frame(socket, name, text))

    def _has(self, endpoint: str, channel: Any, arg: Mapping[str, Any]) -> bool:
        """Return whether an endpoint has such a stream."""
        if channel not in (_BUSINESS if endpoint == "business" else _PUBLIC):
            return False
        if channel == "liquidation-orders":
            return arg.get("instType") in ("SWAP", "FUTURES", "MARGIN", "OPTION")
        if channel == "index-tickers":
            return any(words.index == arg.get("instId") for words in self._words.values())
        name = self._names.get(arg.get("instId", ""))
        if name is None or arg["instId"] in self.unserved:
            return False
        kind = self._words[name].type
        if channel == "funding-rate":
            return kind == "SWAP"
        return channel not in ("mark-price", "open-interest") or kind != "SPOT"

    def _first(self, stream: str) -> dict[str, Any] | None:
        """Return what is pushed at once to a new subscriber; it may be old."""
        channel, _, symbol = stream.partition(":")
        name = self._indices.get(symbol) if channel == "index-tickers" else self._names.get(symbol)
        if name is None:
            return None
        self.begin()
        words, now_ns = self._words[name], self.now_ns()
        ticker = functools.partial(self.market.ticker, name, now_ns)
        match channel:
            case "books":
                self.flush()  # what follows is then chained to the snapshot
                if not self.snapshots:
                    return None
                bids, asks = self.market.book(name, 400)
                row = words.book(bids, asks, now_ns, self._sequence(name), -1)
                return words.push(channel, row, action="snapshot")
            case "bbo-tbt":
                return words.push(channel, self._quote(words, self.market.quote(name)))
            case "trades" | "trades-all":
                trades = self.market.trades(name)
                make = words.trade if channel == "trades" else words.fill
                return words.push(channel, make(trades[-1])) if trades else None
            case "candle1m":
                for event in self.market.turn(now_ns):
                    self.tell(event)
                return words.push(channel, words.candle(self.market.candles(name)[-1]))
            case "tickers":
                return words.push(channel, words.ticker(ticker(), self.market.quote(name)))
            case "mark-price":
                return words.push(channel, words.mark_price(ticker()))
            case "index-tickers":
                return words.index_ticker(ticker())
            case "funding-rate":
                return words.push(channel, words.funding(ticker()))
            case "open-interest":
                return words.push(channel, words.open_interest(ticker()))
        return None

    def _fail(self, socket: Socket, request_id: str | None, code: str, reason: str) -> None:
        error = {"event": "error", "code": code, "msg": reason, "connId": socket.memo["id"]}
        if request_id is not None:
            error = {"id": request_id, **error}
        self._active(socket)
        self.acknowledge(socket, error)

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer time, instruments, books, candles and trades, so many of each in 2 s."""
        self.begin()
        handlers: Mapping[str, Callable[[Mapping[str, str]], Any]] = {
            "/api/v5/public/time": lambda query: [{"ts": ms(self.now_ns())}],
            "/api/v5/public/instruments": self._instruments,
            "/api/v5/market/books": self._book,
            "/api/v5/market/candles": functools.partial(self._candles, history=False),
            "/api/v5/market/history-candles": functools.partial(self._candles, history=True),
            "/api/v5/market/trades": self._trades,
            "/api/v5/market/history-trades": self._past_trades,
        }
        handler = handlers.get(request.path)
        if handler is None:
            return Response(status=404, body=b'{"code":"404","data":{},"msg":"Not Found"}')
        what = request.path.rpartition("/")[2]
        # The limit of instruments is by type as well.
        asked = self._asked.setdefault(what + request.query.get("instType", ""), deque())
        if not _counts(asked, trio.current_time(), 2.0, _LIMITS[what]):
            return _answer({"code": "50011", "data": [], "msg": "Too Many Requests"}, status=429)
        try:
            data = handler(request.query)
        except _BadRequestError as e:
            return _answer({"code": e.code, "data": [], "msg": str(e)}, status=e.status)
        return _answer({"code": "0", "data": data, "msg": ""})

    def _find(self, query: Mapping[str, str]) -> str:
        if not query.get("instId"):
            raise _BadRequestError("50014", "Parameter instId can not be empty.", status=400)
        name = self._names.get(query["instId"])
        if name is None:
            raise _BadRequestError("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist.")
        return name

    def _instruments(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        kind = query.get("instType", "")
        if not kind:
            raise _BadRequestError("50014", "Parameter instType can not be empty.", status=400)
        if kind not in ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"):
            raise _BadRequestError("51000", "Parameter instType error", status=400)
        found = [words for words in self._words.values() if type_of(words.listing) == kind]
        if "instId" in query:
            self._find(query)
            found = [words for words in found if words.symbol == query["instId"]]
        return [words.listed() for words in found]

    def _book(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        name = self._find(query)
        size = min(_number(query, "sz", 1), 400)
        bids, asks = self.market.book(name, size)
        row = self._words[name].book(bids, asks, self.now_ns(), self._sequence(name), -1)
        return [{key: row[key] for key in ("asks", "bids", "ts", "seqId")}]

    def _candles(self, query: Mapping[str, str], *, history: bool) -> list[list[str]]:
        name = self._find(query)
        if query.get("bar", "1m") != "1m":
            raise _BadRequestError("51000", "Parameter bar error", status=400)
        for event in self.market.turn(self.now_ns()):
            self.tell(event)
        found = self.market.candles(name)
        found = [candle for candle in found if candle.closed] if history else found[-_RECENT_MINUTES:]
        rows = [self._words[name].candle(candle) for candle in found]
        older, newer = _number(query, "after", 1 << 62), _number(query, "before", 0)
        chosen = [row for row in rows if newer < int(row[0]) < older]
        return chosen[::-1][: min(_number(query, "limit", 100), 300)]

    def _trades(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        name = self._find(query)
        most = min(_number(query, "limit", 100), 500)
        newest = list(self.market.trades(name))[-most:]
        return [{**self._words[name].fill(trade), "source": "0"} for trade in reversed(newest)]

    def _past_trades(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        name = self._find(query)
        by_time = query.get("type", "1") == "2"
        older, newer = _number(query, "after", 1 << 62), _number(query, "before", 0)
        if by_time and "before" in query:
            raise _BadRequestError("51000", "Parameter before error", status=400)
        found = []
        for trade in reversed(self.market.trades(name)):
            number = trade.time_ns // 1_000_000 if by_time else trade.id
            if newer < number < older:
                found.append({**self._words[name].fill(trade), "source": "0"})
        return found[: min(_number(query, "limit", 100), 100)]


class _BadRequestError(Exception):
    """An answer with a code other than 0."""

    def __init__(self, code: str, text: str, *, status: int = 200) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


def _answer(body: Mapping[str, Any], *, status: int = 200) -> Response:
    return Response(status=status, headers={"content-type": "application/json"}, body=orjson.dumps(body))


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(query.get(key, default))
    except ValueError:
        raise _BadRequestError("51000", f"Parameter {key} error", status=400) from None


def _counts(times: deque[float], now: float, within_s: float, most: int) -> bool:
    """Count one more in a sliding window, if it may be."""
    while times and times[0] <= now - within_s:
        times.popleft()
    if len(times) >= most:
        return False
    times.append(now)
    return True


def _time(socket: Socket, key: str, default: float) -> float:
    found = socket.memo.get(key, default)
    return found if isinstance(found, float) else default


# --- Captures ---------------------------------------------------------------------------------------------


def tape(*paths: Path | str) -> Tape:
    """Return captures as they are to be served: all markets are on one endpoint."""

    def stream_of(frame: str) -> tuple[str, str] | None:
        message = orjson.loads(frame)
        if "data" not in message:
            return None
        name = stream_name(message["arg"])
        return ("business" if name.partition(":")[0] in _BUSINESS else "public"), name

    return Tape(records=read_capture(*paths), stream_of=stream_of, key_params=("instType",))


class _Recorder(OkxFake):
    """Has what a tape has, and no market of its own."""

    def _has(self, endpoint: str, channel: Any, arg: Mapping[str, Any]) -> bool:
        return channel in (_BUSINESS if endpoint == "business" else _PUBLIC)


def capture_server(*tapes: Tape, settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind an OKX that lists nothing else and has no history."""
    fake = _Recorder(Market(()))

    async def no_history(request: Request) -> Response | None:
        past = request.path.startswith("/api/v5/market/")
        return _answer({"code": "0", "data": [], "msg": ""}) if past else None

    fake.answers.append(no_history)
    return CaptureServer(fake, tapes, settle_s=settle_s)
