"""A fake Bybit: the v5 public streams of spot, linear and inverse, the private stream, and REST, on one port.

It speaks the protocol as of 2026: requests that fail as a whole, pongs that differ by market, the cut after
10 minutes of silence, books of three depths with their numbers, pages of instruments, and the ban of an
address that asks too often.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

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
    SimDelta,
    SimEvent,
    SimLiquidation,
    SimQuote,
    SimTicker,
    SimTrade,
)
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd_bybit.fake_accounts import HANDLERS, BadQueryError, Ledger, signer
from pricefeedd_bybit.fake_trader import Trader
from pricefeedd_bybit.fake_words import Words, symbol_of

MARKETS = ("spot", "linear", "inverse")

DEPTHS = (50, 200, 1000)

#: The best level is sent again after this long without a change.
_REPEAT_NS = 3_000_000_000
#: Characters of all topics of a public connection together.
_MAX_TOPICS = 21_000
_MAX_SPOT_ARGS = 10
_WINDOW_S = 5.0
_BAN_S = 600.0
_CONNECT_WINDOW_S = 300.0

_PRIVATE_TOPICS = re.compile(
    r"(?:order|execution|position)(?:\.(?:spot|linear|inverse|option))?|execution\.fast|wallet|greeks"
)
_LIMITS = {"spot": (60, 60), "linear": (500, 1000), "inverse": (500, 1000)}

Side = dict[str, str]


@attrs.define
class _Book:
    """A book of one depth as it was last told."""

    u: int
    seq: int
    bids: Side
    asks: Side


@attrs.define
class _Best:
    """The best level as it was last told."""

    message: dict[str, Any]
    told_ns: int


@attrs.define
class _Visits:
    """When somebody came lately, and until when he is shut out, on Trio's clock."""

    most: int
    within_s: float
    times: deque[float] = attrs.field(factory=deque)
    banned_until: float = float("-inf")

    def admits(self) -> bool:
        """Count a visit; one too many is answered with a ban."""
        now = trio.current_time()
        if now < self.banned_until:
            return False
        while self.times and self.times[0] <= now - self.within_s:
            self.times.popleft()
        self.times.append(now)
        if len(self.times) > self.most:
            self.banned_until = now + _BAN_S
            return False
        return True


class BybitFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        accounts: Secrets by key, for the private stream and signed requests.
        ledgers: What each account owns and did, by its key.
        login_attempts: How often each key tried to log in.
        logins: How often it succeeded.
        account_subscribes: Subscribe frames of each account.
        statuses: Status by our name of what is listed and not `Trading`.
        unserved: Symbols that are listed, and whose topics do not exist all the same.
        mute: Nothing is told by itself; captures are served so.
        page: Rows in a page of instruments-info without a limit, and the most with one.
    """

    #: The venue never pings, and cuts who says nothing for 10 minutes.
    client_silence_s = 600.0

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        requests_per_5s: int = 600,
        connections_per_5min: int = 500,
    ) -> None:
        """Make a fake Bybit.

        Args:
            market: By default one with `default_listings`.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
            requests_per_5s: REST requests that one address may send; more are a ban for 10 minutes.
            connections_per_5min: The same for connections with the streams.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        self.accounts: dict[str, str] = {}
        self.ledgers: defaultdict[str, Ledger] = defaultdict(Ledger)
        self.login_attempts: Counter[str] = Counter()
        self.logins: Counter[str] = Counter()
        self.account_subscribes: Counter[str] = Counter()
        self.statuses: dict[str, str] = {}
        self.unserved: set[str] = set()
        self.mute = False
        self.page = (500, 1000)
        self._visits = _Visits(requests_per_5s, _WINDOW_S)
        self._connects = _Visits(connections_per_5min, _CONNECT_WINDOW_S)
        self._words = {name: Words(listing) for name, listing in self.market.listings.items()}
        self._names = {(words.listing.market, words.symbol): name for name, words in self._words.items()}
        self._seq = 546_137_962_055
        self._happened = 0
        self._updates: dict[tuple[str, str], int] = {}
        self._books: dict[tuple[str, str], _Book] = {}
        self._bests: dict[tuple[str, str], _Best] = {}
        self._tickers: dict[tuple[str, str], dict[str, Any]] = {}

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return a handful of instruments: spot, linear in USDT and USDC, inverse, and one dated of each."""
        dated_ns = 1_798_185_600_000_000_000  # 2026-12-25T08:00:00Z
        spot = [
            ("BTC", "60000.00", "0.01", "0.000001"),
            ("ETH", "2500.00", "0.01", "0.00001"),
            ("SOL", "150.00", "0.01", "0.001"),
        ]
        linear = [
            ("BTC", "USDT", "60010.00", "0.10", "0.001"),
            ("ETH", "USDT", "2501.00", "0.01", "0.01"),
            ("SOL", "USDT", "150.100", "0.010", "0.1"),
            ("BTC", "USDC", "60012.00", "0.10", "0.001"),
        ]
        inverse = [("BTC", "60005.00", "0.50"), ("ETH", "2500.50", "0.05")]
        perpetual, future = Kind.PERPETUAL, Kind.FUTURE
        return (
            *(Listing(market="spot", base=b, quote="USDT", price=p, tick=t, lot=s) for b, p, t, s in spot),
            *(
                Listing(market="linear", base=b, quote=q, kind=perpetual, price=p, tick=t, lot=s)
                for b, q, p, t, s in linear
            ),
            Listing(
                market="linear", base="BTC", quote="USDT", kind=future, price="60500.00", tick="0.10", lot="0.001",
                expiry_ns=dated_ns,
            ),
            *(
                Listing(market="inverse", base=b, quote="USD", kind=perpetual, price=p, tick=t, lot="1")
                for b, p, t in inverse
            ),
            Listing(
                market="inverse", base="BTC", quote="USD", kind=future, price="60400.00", tick="0.50", lot="1",
                expiry_ns=dated_ns,
            ),
        )  # fmt: skip

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.bybit.endpoints]`; the paths tell the markets apart.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        found = {f"{market}_ws": f"ws://{base}" for market in (*MARKETS, "private")}
        return found | {f"{market}_rest": f"http://{base}" for market in (*MARKETS, "private")}

    # --- What happens, in Bybit's words -------------------------------------------------------------------

    def tell(self, event: SimEvent) -> None:
        """Publish what happened to whoever subscribed it."""
        if self.mute:
            return
        words = self._words[event.name]
        market, symbol = words.listing.market, words.symbol
        now_ms = self._now_ms()
        match event:
            case SimTrade():
                topic = f"publicTrade.{symbol}"
                seq = self._next_seq()
                if self.wanted(topic, scope=market):
                    self.publish(topic, words.trades(topic, [(event, seq)], now_ms), scope=market)
            case SimQuote():
                self._tell_best(words, event)
                self._tell_ticker(words, event.time_ns, quote=event)
            case SimDelta():
                for depth in DEPTHS:
                    self._tell_book(words, depth, event.time_ns)
            case SimCandle():
                topic = f"kline.1.{symbol}"
                if self.wanted(topic, scope=market):
                    self.publish(topic, words.kline(topic, event, now_ms), scope=market)
            case SimTicker():
                self._tell_ticker(words, event.time_ns, ticker=event)
            case SimLiquidation() if market != "spot":
                topic = f"allLiquidation.{symbol}"
                if self.wanted(topic, scope=market):
                    self.publish(topic, words.liquidation(topic, event, now_ms), scope=market)

    def _now_ms(self) -> int:
        return self.now_ns() // 1_000_000

    def _next_seq(self) -> int:
        self._seq += 7
        return self._seq

    def _next_u(self, place: tuple[str, str]) -> int:
        self._updates[place] = self._updates.get(place, 10_132_539) + 1
        return self._updates[place]

    def _now_book(self, name: str, depth: int) -> tuple[Side, Side]:
        bids, asks = self.market.book(name, depth)
        return dict(bids), dict(asks)

    def _tell_book(self, words: Words, depth: int, at_ns: int) -> None:
        """Publish what changed in the best levels since they were last told; what left them is removed."""
        market, topic = words.listing.market, f"orderbook.{depth}.{words.symbol}"
        place = market, topic
        if not self.wanted(topic, scope=market):
            self._books.pop(place, None)
            return
        told = self._books.get(place)
        if told is None:
            return  # it begins with the snapshot of its first reader
        now = self._now_book(words.listing.name, depth)
        bids, asks = (_changes(old, new) for old, new in zip((told.bids, told.asks), now, strict=True))
        if not bids and not asks:
            return
        told.bids, told.asks = now
        told.u, told.seq = self._next_u(place), self._next_seq()
        message = words.book(
            topic,
            "delta",
            bids,
            asks,
            u=told.u,
            seq=told.seq,
            at_ms=at_ns // 1_000_000,
            now_ms=self._now_ms(),
        )
        self.publish(topic, message, scope=market)

    def _book_snapshot(self, words: Words, depth: int) -> dict[str, Any]:
        """Return a depth as it was last told, so that the next delta follows on it."""
        topic = f"orderbook.{depth}.{words.symbol}"
        place = words.listing.market, topic
        told = self._books.get(place)
        if told is None:
            bids, asks = self._now_book(words.listing.name, depth)
            told = self._books[place] = _Book(self._next_u(place), self._next_seq(), bids, asks)
        return self._as_snapshot(words, topic, told)

    def _as_snapshot(self, words: Words, topic: str, told: _Book, kind: str = "snapshot") -> dict[str, Any]:
        now_ms = self._now_ms()
        bids, asks = list(told.bids.items()), list(told.asks.items())
        return words.book(topic, kind, bids, asks, u=told.u, seq=told.seq, at_ms=now_ms, now_ms=now_ms)

    def _best_message(self, words: Words, quote: SimQuote) -> dict[str, Any]:
        topic = f"orderbook.1.{words.symbol}"
        now_ms = self._now_ms()
        return words.book(
            topic,
            "snapshot",
            [quote.bid],
            [quote.ask],
            u=self._next_u((words.listing.market, topic)),
            seq=self._next_seq(),
            at_ms=now_ms,
            now_ms=now_ms,
        )

    def _tell_best(self, words: Words, quote: SimQuote) -> None:
        market, topic = words.listing.market, f"orderbook.1.{words.symbol}"
        if not self.wanted(topic, scope=market):
            self._bests.pop((market, topic), None)
            return
        best = self._bests[market, topic] = _Best(self._best_message(words, quote), quote.time_ns)
        self.publish(topic, best.message, scope=market)

    async def beside(self, socket: Socket) -> None:
        """Send best levels again, with the same numbers, where nothing changed for 3 s."""
        while True:
            now_ns = self.now_ns()
            wait_ns = _REPEAT_NS
            for topic in tuple(socket.subscriptions):
                best = self._bests.get((socket.scope, topic))
                if best is None:
                    continue
                if now_ns - best.told_ns >= _REPEAT_NS:
                    best.told_ns = now_ns
                    self.publish(topic, best.message | {"ts": self._now_ms()}, scope=socket.scope)
                wait_ns = min(wait_ns, best.told_ns + _REPEAT_NS - now_ns)
            # Clocks are rounded: not a moment too early, or it would spin.
            await trio.sleep(wait_ns / 1e9 + 0.001)

    def _best_snapshot(self, words: Words) -> dict[str, Any]:
        place = words.listing.market, f"orderbook.1.{words.symbol}"
        best = self._bests.get(place)
        if best is None:
            message = self._best_message(words, self.market.quote(words.listing.name))
            best = self._bests[place] = _Best(message, self.now_ns())
        return best.message

    def _tell_ticker(
        self, words: Words, now_ns: int, *, ticker: SimTicker | None = None, quote: SimQuote | None = None
    ) -> None:
        """Publish a ticker: all of it on spot, elsewhere the fields that changed."""
        market, topic = words.listing.market, f"tickers.{words.symbol}"
        place = market, topic
        if not self.wanted(topic, scope=market):
            self._tickers.pop(place, None)
            return
        if market == "spot":
            if ticker is not None:
                fields = words.ticker(ticker, self.market.quote(words.listing.name))
                self.publish(topic, self._ticker_message(words, "snapshot", fields), scope=market)
            return
        told = self._tickers.get(place)
        if told is None:
            return  # it begins with the snapshot of its first reader
        now = dict(told)
        if ticker is not None:
            now |= words.ticker(ticker, self.market.quote(words.listing.name))
        if quote is not None:
            now |= {
                "bid1Price": quote.bid[0], "bid1Size": quote.bid[1],
                "ask1Price": quote.ask[0], "ask1Size": quote.ask[1],
            }  # fmt: skip
        changed = {key: value for key, value in now.items() if told.get(key) != value}
        if changed:
            self._tickers[place] = now
            fields = {"symbol": words.symbol, **changed}
            self.publish(topic, self._ticker_message(words, "delta", fields), scope=market)

    def _ticker_message(self, words: Words, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        return words.ticker_message(f"tickers.{words.symbol}", kind, fields, self._next_seq(), self._now_ms())

    def _ticker_snapshot(self, words: Words) -> dict[str, Any]:
        place = words.listing.market, f"tickers.{words.symbol}"
        told = self._tickers.get(place)
        if told is None:
            name = words.listing.name
            ticker = self.market.ticker(name, self.now_ns())
            told = self._tickers[place] = words.ticker(ticker, self.market.quote(name))
        return self._ticker_message(words, "snapshot", told)

    def restart_books(self, name: str, *, kind: str = "snapshot") -> None:
        """Let the book service of an instrument begin anew: its numbers start at 1, with a whole book.

        https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook

        Args:
            kind: What the message with the number 1 calls itself.
        """
        words = self._words[name]
        market = words.listing.market
        for depth in DEPTHS:
            topic = f"orderbook.{depth}.{words.symbol}"
            told = self._books.get((market, topic))
            if told is not None:
                self._updates[market, topic] = 0
                told.u, told.seq = self._next_u((market, topic)), self._next_seq()
                told.bids, told.asks = self._now_book(name, depth)
                self.publish(topic, self._as_snapshot(words, topic, told, kind), scope=market)
        best = f"orderbook.1.{words.symbol}"
        if (market, best) in self._bests:
            self._updates[market, best] = 0
            self._tell_best(words, attrs.evolve(self.market.quote(name), time_ns=self.now_ns()))

    def told_book(self, name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return the book as deep as the stream that is read goes: 50 levels unless another one is subscribed."""
        listing = self.market.listings[name]
        depths = [
            d for d in DEPTHS if self.wanted(f"orderbook.{d}.{symbol_of(listing)}", scope=listing.market)
        ]
        return self.market.book(name, max(depths, default=50))

    # --- The stream server --------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept the paths that exist, from an address that does not connect too often."""
        if _scope(request.path) is None:
            return Response(status=404)
        return None if self._connects.admits() else Response(status=403, body=b"access too frequent")

    async def on_open(self, socket: Socket) -> None:
        """Take the market from the path."""
        socket.scope = _scope(socket.path) or ""
        socket.memo["topics"] = 0

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey subscribe, unsubscribe, ping and auth."""
        try:
            request = orjson.loads(text)
            op, args = request["op"], request.get("args", [])
        except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
            why = f"readObjectStart: expect {{ or n, but found {text[:1]}"
            socket.send(self._answer(socket, "", False, f"Failed to decode incoming data:{why}", ""))
            return
        req_id = str(request.get("req_id", ""))
        match op:
            case "ping":
                self._pong(socket, req_id, "req_id" in request)
            case "auth" if socket.scope.startswith("private"):
                good, why = self._log_in(socket, args)
                socket.send(self._answer(socket, "auth", good, why, req_id))
            case "subscribe" | "unsubscribe":
                if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
                    socket.send(self._answer(socket, op, False, "Params Error", req_id))
                elif op == "subscribe":
                    self.seen.subscribes += 1
                    if socket.scope.startswith("private:"):
                        self.account_subscribes[socket.scope.removeprefix("private:")] += 1
                    self._subscribe(socket, args, req_id)
                else:
                    self.seen.unsubscribes += 1
                    socket.memo["topics"] = cast("int", socket.memo["topics"]) - sum(
                        len(arg) for arg in args if arg in socket.subscriptions
                    )
                    self.unsubscribe(socket, args)
                    socket.send(self._answer(socket, op, True, "", req_id))
            case _:
                socket.send(self._answer(socket, str(op), False, "error:invalid op", req_id))

    def _answer(self, socket: Socket, op: str, good: bool, why: str, req_id: str) -> str:
        body = {"success": good, "ret_msg": why, "conn_id": _conn_id(socket), "req_id": req_id, "op": op}
        if socket.scope.startswith("private") and not req_id:
            del body["req_id"]
        return orjson.dumps(body).decode()

    def _pong(self, socket: Socket, req_id: str, named: bool) -> None:
        """Answer a ping: private connections say `pong`, public ones `ping`."""
        body: dict[str, Any] = {"req_id": req_id} if named else {}
        if socket.scope.startswith("private"):
            body |= {"op": "pong", "args": [str(self._now_ms())], "conn_id": _conn_id(socket)}
        else:
            body = {"success": True, "ret_msg": "pong", "conn_id": _conn_id(socket), **body, "op": "ping"}
            if socket.scope != "spot":
                body.setdefault("req_id", "")
        socket.send(orjson.dumps(body).decode())

    def _log_in(self, socket: Socket, args: Any) -> tuple[bool, str]:
        """Judge a login by its signature, and by the time until which it holds."""
        if not isinstance(args, list) or len(args) != 3 or type(args[1]) is not int:
            return False, "Params Error"
        key, expires, signature = args
        self.login_attempts[str(key)] += 1
        secret = self.accounts.get(key)
        if secret is None or expires <= self._now_ms():
            return False, "Params Error"
        due = hmac.new(secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
        if signature != due:
            return False, "Params Error"
        socket.scope = f"private:{key}"
        self.logins[key] += 1
        return True, ""

    def _subscribe(self, socket: Socket, topics: list[str], req_id: str) -> None:
        """Subscribe all topics of a request, or none of them when one is bad."""
        why = self._refusal(socket, topics)
        if why:
            self.acknowledge(socket, self._answer(socket, "subscribe", False, why, req_id))
            return
        socket.memo["topics"] = cast("int", socket.memo["topics"]) + sum(map(len, topics))
        text = "subscribe" if socket.scope == "spot" else ""
        self.acknowledge(socket, self._answer(socket, "subscribe", True, text, req_id))
        self.subscribe(socket, topics)
        if not self.mute:
            for topic in topics:
                first = self._first(socket.scope, topic)
                if first is not None:
                    self.faults.deliver(socket, topic, orjson.dumps(first).decode())

    def _refusal(self, socket: Socket, topics: list[str]) -> str:
        """Return why a request fails; "" if it does not."""
        market = socket.scope
        if market == "spot" and len(topics) > _MAX_SPOT_ARGS:
            return f"args size >{_MAX_SPOT_ARGS}"
        # What the venue says to these two is not known.
        if (
            not market.startswith("private")
            and cast("int", socket.memo["topics"]) + sum(map(len, topics)) > _MAX_TOPICS
        ):
            return f"args length >{_MAX_TOPICS}"
        if market == "private":
            return "Request not authorized"
        seen = set(socket.subscriptions)
        for topic in topics:
            if not self._exists(market, topic):
                kind = topic.rpartition(".")[0]
                known = kind in ("publicTrade", "tickers", "kline.1") or kind.startswith("orderbook.")
                spot = market == "spot" and known
                return f"Invalid symbol :[{topic}]" if spot else f"error:handler not found,topic:{topic}"
            if topic in seen:
                return f"error:already subscribed,topic:{topic}"
            seen.add(topic)
        return ""

    def _exists(self, market: str, topic: str) -> bool:
        if market.startswith("private"):
            return _PRIVATE_TOPICS.fullmatch(topic) is not None
        kind, _, symbol = topic.rpartition(".")
        kinds = {"publicTrade", "tickers", "kline.1", "orderbook.1", *(f"orderbook.{d}" for d in DEPTHS)}
        if market != "spot":
            kinds.add("allLiquidation")
        name = self._names.get((market, symbol))
        served = name is not None and symbol not in self.unserved and name not in self.statuses
        return kind in kinds and served

    def _first(self, market: str, topic: str) -> dict[str, Any] | None:
        """Return the snapshot that a topic begins with; None for one that has none."""
        kind, _, symbol = topic.rpartition(".")
        name = self._names.get((market, symbol))
        if name is None:
            return None
        self.begin()
        words = self._words[name]
        if kind == "orderbook.1":
            return self._best_snapshot(words)
        if kind.startswith("orderbook."):
            return self._book_snapshot(words, int(kind.partition(".")[2]))
        return self._ticker_snapshot(words) if kind == "tickers" else None

    def push(self, key: str, topic: str, rows: Sequence[Mapping[str, Any]], *, message_id: str) -> int:
        """Tell an account something on its private stream; returns how many connections hear it.

        Args:
            key: The account's API key.
            topic: Without a category, such as `order`.
        """
        heard = 0
        for name in (topic, *(f"{topic}.{category}" for category in (*MARKETS, "option"))):
            category = name.partition(".")[2]
            mine = [row for row in rows if not category or row.get("category") == category]
            if mine:
                body = {"id": message_id, "topic": name, "creationTime": self._now_ms(), "data": mine}
                heard += self.publish(name, body, scope=f"private:{key}")
        return heard

    def happen(self, key: str, topic: str, *rows: Mapping[str, Any]) -> int:
        """Let something happen on an account: REST knows it from now on, and the stream tells whoever listens.

        Args:
            topic: `order`, `execution`, `position` or `wallet`.

        Returns:
            How many connections hear of it.
        """
        for row in rows:
            self.ledgers[key].note(topic, row)
        self._happened += 1
        return self.push(key, topic, rows, message_id=f"m-{self._happened}")

    def trader(self, key: str, secret: str) -> Trader:
        """Return the owner of an account, which is opened now if it is new."""
        self.accounts[key] = secret
        return Trader(self, key)

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer time, instruments-info, kline, recent-trade and orderbook; shut out who asks too often."""
        if not self._visits.admits():
            return Response(status=403, body=b"access too frequent")
        self.begin()
        handlers: Mapping[str, Callable[[str, Mapping[str, str]], Any]] = {
            "instruments-info": self._instruments_info,
            "kline": self._kline,
            "recent-trade": self._recent_trade,
            "orderbook": self._orderbook,
        }
        head, _, what = request.path.rpartition("/")
        if request.path in HANDLERS:
            return self._signed(request)
        if request.path == "/v5/market/time":
            now_ns = self.now_ns()
            return self._reply({"timeSecond": str(now_ns // 1_000_000_000), "timeNano": str(now_ns)})
        if head != "/v5/market" or what not in handlers:
            return Response(status=404)
        market = request.query.get("category", "linear")
        try:
            if market not in MARKETS:
                raise _BadRequestError("Not supported category")
            return self._reply(handlers[what](market, request.query))
        except _BadRequestError as e:
            return self._reply({}, 10001, str(e))

    def _signed(self, request: Request) -> Response:
        """Answer for the account that signed a request."""
        try:
            ledger = self.ledgers[signer(request, self.accounts, self._now_ms())]
            if ledger.denial is not None:
                raise BadQueryError(*ledger.denial)
            return self._reply(HANDLERS[request.path](ledger, request.query))
        except BadQueryError as e:
            return self._reply({}, e.code, str(e))

    def _reply(self, result: Any, code: int = 0, text: str = "OK") -> Response:
        body = {
            "retCode": code,
            "retMsg": text,
            "result": result,
            "retExtInfo": {},
            "time": self._now_ms(),
        }
        return Response(headers={"content-type": "application/json"}, body=orjson.dumps(body))

    def _find(self, market: str, query: Mapping[str, str]) -> str:
        name = self._names.get((market, query.get("symbol", "")))
        if name is None:
            raise _BadRequestError("params error: symbol invalid")
        return name

    def _instruments_info(self, market: str, query: Mapping[str, str]) -> dict[str, Any]:
        status = query.get("status", "Trading")
        names = [
            name
            for (where, _), name in self._names.items()
            if where == market and self.statuses.get(name, "Trading") == status
        ]
        if market == "spot":
            return {"category": market, "list": [self._words[name].listed(status) for name in names]}
        usual, most = self.page
        limit = min(_number(query, "limit", usual), most)
        start = _number(query, "cursor", 0)
        rows = [self._words[name].listed(status) for name in names[start : start + limit]]
        more = str(start + limit) if start + limit < len(names) else ""
        return {"category": market, "list": rows, "nextPageCursor": more}

    def _kline(self, market: str, query: Mapping[str, str]) -> dict[str, Any]:
        name = self._find(market, query)
        if query.get("interval") != "1":
            raise _BadRequestError("Invalid period!")
        limit = min(max(_number(query, "limit", 200), 1), 1000)
        for event in self.market.turn(self.now_ns()):
            self.tell(event)
        start = _number(query, "start", 0)
        end = _number(query, "end", 1 << 62)
        rows = [
            self._words[name].kline_row(candle)
            for candle in self.market.candles(name)
            if start <= candle.start_ns // 1_000_000 <= end
        ]
        return {"category": market, "symbol": self._words[name].symbol, "list": rows[-limit:][::-1]}

    def _recent_trade(self, market: str, query: Mapping[str, str]) -> dict[str, Any]:
        name = self._find(market, query)
        usual, most = _LIMITS[market]
        limit = _number(query, "limit", usual)
        if not 1 <= limit <= most:
            raise _BadRequestError("params error: limit invalid")
        trades = list(self.market.trades(name))[-limit:]
        return {
            "category": market,
            "list": [self._words[name].trade_row(trade) for trade in reversed(trades)],
        }

    def _orderbook(self, market: str, query: Mapping[str, str]) -> dict[str, Any]:
        name = self._find(market, query)
        limit = min(max(_number(query, "limit", 1 if market == "spot" else 25), 1), 1000)
        bids, asks = self.market.book(name, limit)
        symbol, now_ms = self._words[name].symbol, self._now_ms()
        u = self._updates.get((market, f"orderbook.1000.{symbol}"), 1)
        return {"s": symbol, "b": bids, "a": asks, "ts": now_ms, "u": u, "seq": self._seq, "cts": now_ms}


class _BadRequestError(Exception):
    """An answer with retCode 10001, and HTTP 200 as all."""


def _scope(path: str) -> str | None:
    """Return the market that a path serves; `private` for the private stream, None where there is nothing."""
    if path == "/v5/private":
        return "private"
    head, _, market = path.rpartition("/")
    return market if head == "/v5/public" and market in MARKETS else None


def _conn_id(socket: Socket) -> str:
    return f"d6ki1eae0cl5msgggj7g-{id(socket):x}"


def _changes(old: Side, new: Side) -> list[tuple[str, str]]:
    """Return the levels that changed, and with size "0" those that are gone."""
    changed = [(price, size) for price, size in new.items() if old.get(price) != size]
    return changed + [(price, "0") for price in old if price not in new]


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(query.get(key) or default)
    except ValueError:
        raise _BadRequestError(f"params error: {key} invalid") from None


# --- Captures ---------------------------------------------------------------------------------------------


def tape(market: str, *paths: Path | str) -> Tape:
    """Return captures of one market as they are to be served; answers to requests are left to the fake."""

    def stream_of(frame: str) -> tuple[str, str] | None:
        topic = orjson.loads(frame).get("topic")
        return None if topic is None else (market, topic)

    return Tape(records=read_capture(*paths), stream_of=stream_of)


def capture_server(*tapes: Tape, listings: Sequence[Listing], settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind a Bybit that lists these instruments, says nothing else and has no past.

    Args:
        listings: What the captures are of; they hold no list of instruments.
    """
    fake = BybitFake(Market(listings))
    fake.mute = True

    async def no_history(request: Request) -> Response | None:
        past = request.path.endswith(("/kline", "/recent-trade"))
        body = {"retCode": 0, "retMsg": "OK", "result": {"list": []}, "time": fake.now_ns() // 1_000_000}
        return Response(body=orjson.dumps(body)) if past else None

    fake.answers.append(no_history)
    return CaptureServer(fake, tapes, settle_s=settle_s)
