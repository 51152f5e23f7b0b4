"""A fake Coinbase: Advanced Trade's market data host, its user host (as the path `/user`) and its public REST, on one port.

It speaks the protocol as of 2026: one number per frame and connection, data before its answer, answers that name
all that is subscribed, silence about what does not exist, heartbeats, and the ends that a connection comes to
without them.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson
import trio

from pricefeedd.testing import Request, Response, Socket
from pricefeedd.testing.capture import CaptureServer, Tape, read_capture
from pricefeedd.testing.faults import Fault, Faults, Match, Where
from pricefeedd.testing.market import (
    Listing,
    Market,
    SimCandle,
    SimDelta,
    SimEvent,
    SimQuote,
    SimTicker,
    SimTrade,
)
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd_coinbase.fake_users import User, signer
from pricefeedd_coinbase.fake_words import Words, envelope, listed_row, time_text
from pricefeedd_coinbase.tokens import Key

_SECOND_NS = 1_000_000_000

#: Channels that are subscribed by product.
CHANNELS = ("level2", "market_trades", "ticker", "ticker_batch", "candles")
#: Channels that may be subscribed without a product.
WHOLE = ("heartbeats", "status")

_API = "/api/v3/brokerage"
_GRANULARITIES = {"ONE_MINUTE": 60}
_SNAPSHOT_TRADES = 100
_MAX_TRADES = 1000
_BATCH_NS = 5 * _SECOND_NS

#: The path that stands for the user host.
_USER_HOST = "/user"

_NO_POSITIONS: dict[str, Any] = {
    "positions": {
        "perpetual_futures_positions": [],
        "expiring_futures_positions": [],
        "prediction_market_positions": [],
    }
}

_NUMBER = re.compile(r'"sequence_num":\d+')


class _NumberedFaults(Faults):
    """Faults of a venue that numbers its frames: what is lost on the way leaves a hole, what is never sent none."""

    def __init__(self, sockets: Sequence[Socket]) -> None:
        super().__init__(sockets)
        self._drops: list[Fault] = []

    def acknowledge(self, socket: Socket, message: str | bytes) -> None:
        """Send an answer as the faults allow."""
        super().acknowledge(_numbering(socket), message)

    def deliver(self, socket: Socket, stream: str, message: str | bytes) -> None:
        """Send a data message as the faults allow; one that is dropped had its number."""
        numbering = _numbering(socket)
        before = self._dropped()
        super().deliver(numbering, stream, message)
        numbering.number += self._dropped() - before

    def _dropped(self) -> int:
        return sum(fault.hits for fault in self._drops)

    def drop(self, times: int | None = 1, *, match: Match = "", where: Where = "") -> Fault:
        """Lose data messages."""
        fault = super().drop(times, match=match, where=where)
        self._drops.append(fault)
        return fault


class _Numbering(Socket):
    """A socket's outlet, which numbers each message when it goes."""

    def __init__(self, socket: Socket) -> None:
        self.request = socket.request
        self.number = 0
        self._socket = socket

    def send(self, message: str | bytes) -> None:
        """Send a message with the next number, if it has room for one."""
        if isinstance(message, str):
            message, found = _NUMBER.subn(f'"sequence_num":{self.number}', message, count=1)
            self.number += found
        self._socket.send(message)

    def start_soon(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task beside the socket."""
        self._socket.start_soon(task)


def _numbering(socket: Socket) -> _Numbering:
    """Return the outlet of a socket, always the same one."""
    outlet = socket.memo.get("outlet")
    if not isinstance(outlet, _Numbering):
        outlet = socket.memo["outlet"] = _Numbering(socket)
    return outlet


class CoinbaseFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        first_subscribe_s: A socket without a subscription by then is cut.
        quiet_s: A socket without heartbeats that had nothing to say for this long is cut.
        messages_limit: Messages per second that one address may send, over all sockets.
        connections_limit: Handshakes per second of one address.
        requests_limit: REST requests per second of one address.
        trades_every_ns: Trades of a product are told together, this far apart; 0 tells each at once.
        page: Products in one answer of the list; None for all.
        users: Those with accounts, by the names of their keys.
        login_attempts: Subscribe frames for a user's channel.
        logins: Those of them that had a good token, by the key's name.
    """

    first_subscribe_s = 5.0
    quiet_s = 75.0
    messages_limit = 8
    connections_limit = 8
    requests_limit = 10
    trades_every_ns = 0
    page: int | None = None

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        aliases: Mapping[str, str] | None = None,
        recorded: Sequence[str] = (),
    ) -> None:
        """Make a fake Coinbase.

        Args:
            market: By default one with the usual instruments.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
            aliases: Products by the alias that stands for them; by default that of the first listing.
            recorded: Products that are listed and answered, and whose data somebody else publishes.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        self.faults = self.pacing = _NumberedFaults(self.sockets)
        self._words = {name: Words(listing) for name, listing in self.market.listings.items()}
        self._names = {words.product: name for name, words in self._words.items()}
        self._recorded = tuple(recorded)
        if aliases is None:
            first = next(iter(self._words.values()), None)
            own = first is not None and f"{first.listing.base}-USDC" not in self._names
            aliases = {f"{first.listing.base}-USDC": first.product} if first is not None and own else {}
        self._aliases = dict(aliases)
        self.users: dict[str, User] = {}
        self.login_attempts = 0
        self.logins: Counter[str] = Counter()
        self._untold: dict[str, list[SimTrade]] = {}
        self._batched_ns: dict[str, int] = {}
        self._recent: dict[str, deque[float]] = {}
        self._began_ns: int | None = None
        self._quotes: dict[str, SimQuote] = {}

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return what is traded unless a test says otherwise."""
        rows = [
            ("BTC", "USD", "83277.26", "0.01", "0.00000001"),
            ("ETH", "USD", "2666.08", "0.01", "0.00000001"),
            ("SOL", "USD", "150.00", "0.01", "0.00000001"),
            ("USDT", "USDC", "0.99950", "0.00001", "0.01"),
        ]
        return tuple(
            Listing(market="spot", base=base, quote=quote, price=price, tick=tick, lot=lot)
            for base, quote, price, tick, lot in rows
        )

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.coinbase.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        return {
            "spot_ws": f"ws://{base}",
            "spot_rest": f"http://{base}",
            "user_ws": f"ws://{base}{_USER_HOST}",
        }

    # --- What is told -------------------------------------------------------------------------------------

    def tell(self, event: SimEvent) -> None:
        """Publish what happened, in Coinbase's words."""
        words = self._words[event.name]
        product, now_ns = words.product, self.now_ns()
        match event:
            case SimTrade():
                self._tell_trade(words, event)
                if self.wanted(f"ticker:{product}"):
                    self.publish(f"ticker:{product}", self._ticker(words, "update"))
            case SimDelta():
                if self.wanted(f"level2:{product}"):
                    self.publish(f"level2:{product}", words.delta(event, now_ns))
            case SimCandle() if event.trades and self.wanted(f"candles:{product}"):
                minutes = self.market.candles(event.name)[-5:]
                self.publish(f"candles:{product}", words.candles("update", minutes, now_ns))
            case SimTicker():
                since_ns = now_ns - self._batched_ns.get(product, 0)
                if self.wanted(f"ticker_batch:{product}") and since_ns >= _BATCH_NS:
                    self._batched_ns[product] = now_ns
                    self.publish(f"ticker_batch:{product}", self._ticker(words, "update", batch=True))

    def _tell_trade(self, words: Words, event: SimTrade) -> None:
        untold = self._untold.setdefault(words.product, [])
        untold.append(event)
        if event.time_ns - untold[0].time_ns >= self.trades_every_ns:
            self._tell_trades(words)

    def _tell_trades(self, words: Words) -> None:
        untold = self._untold.pop(words.product, [])
        stream = f"market_trades:{words.product}"
        if untold and self.wanted(stream):
            self.publish(stream, words.trades("update", untold, self.now_ns()))

    def ticker_quote(self, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return the best bid and offer as tickers told them last: with a trade, and not whenever they change."""
        quote = self._quotes[name]
        return quote.bid, quote.ask

    def flush(self) -> None:
        """Publish the trades and book changes that wait for their turn."""
        for words in self._words.values():
            self._tell_trades(words)
        super().flush()

    def _ticker(self, words: Words, kind: str, *, batch: bool = False) -> dict[str, Any]:
        name, now_ns = words.listing.name, self.now_ns()
        quote = self._quotes[name] = self.market.quote(name)
        return words.ticker(kind, self.market.ticker(name, now_ns), quote, now_ns, batch=batch)

    def _snapshot(self, channel: str, words: Words) -> dict[str, Any]:
        """Return the first frame of a stream."""
        name, now_ns = words.listing.name, self.now_ns()
        if channel == "level2":
            bids, asks = self.market.book(name)
            return words.levels("snapshot", bids, asks, now_ns, now_ns)
        if channel == "market_trades":
            untold = len(self._untold.get(words.product, ()))
            told = list(self.market.trades(name))
            told = told[: len(told) - untold]
            return words.trades("snapshot", told[-_SNAPSHOT_TRADES:], now_ns)
        if channel == "candles":
            return words.candles("snapshot", self.market.candles(name), now_ns)
        return self._ticker(words, "snapshot", batch=channel == "ticker_batch")

    # --- The stream server --------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept the one path that there is on each host, so many times a second."""
        if request.path not in ("/", _USER_HOST, f"{_USER_HOST}/"):
            return Response(status=404)
        if self._too_many("connections", self.connections_limit):
            return Response(status=429, body=b"Too many requests")
        return None

    async def beside(self, socket: Socket) -> None:
        """Send heartbeats, and cut a socket that asked for nothing or has long had nothing to say."""
        began = spoke = trio.current_time()
        number = 0
        while True:
            await trio.sleep(1.0)
            now = trio.current_time()
            if _numbering(socket).number != number:
                number, spoke = _numbering(socket).number, now
            if "heartbeats" in socket.subscriptions:
                self.faults.deliver(socket, "heartbeats", self._heartbeat())
            elif "asked" not in socket.memo and now - began >= self.first_subscribe_s:
                socket.close(1008, "no subscription")
            elif now - spoke >= self.quiet_s:
                socket.close(1000, "quiet")

    def _heartbeat(self) -> str:
        now_ns = self.now_ns()
        if self._began_ns is None:
            self._began_ns = now_ns - 12_240 * _SECOND_NS
        up_s = (now_ns - self._began_ns) / 1e9
        printed = time_text(now_ns).replace("T", " ").replace("Z", f" +0000 UTC m=+{up_s:.9f}")
        event = {"current_time": printed, "heartbeat_counter": int(up_s)}
        return orjson.dumps(envelope("heartbeats", [event], now_ns)).decode()

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey `subscribe` and `unsubscribe`."""
        if self._too_many("messages", self.messages_limit):
            self._complain(socket, "rate limit exceeded")
            socket.close(1008, "rate limit exceeded")
            return
        try:
            request = orjson.loads(text)
            what, channel = request["type"], request["channel"]
            products = request.get("product_ids")
            if what not in ("subscribe", "unsubscribe") or not (
                products is None or all(isinstance(product, str) for product in products)
            ):
                raise ValueError(what)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            self._complain(socket, "failure to subscribe")
            return
        if socket.path.startswith(_USER_HOST):
            self._take_user(socket, what, channel, request.get("jwt"))
            return
        if channel not in (*CHANNELS, *WHOLE) or not _is_token(request.get("jwt")):
            # So it says of a bad token, and of a channel that does not exist.
            self._complain(socket, "authentication failure")
            return
        socket.memo["asked"] = True
        if what == "subscribe":
            self.seen.subscribes += 1
            self._begin_streams(socket, channel, products or ())
        else:
            self.seen.unsubscribes += 1
            self._end_streams(socket, channel, products)
        self.acknowledge(socket, envelope("subscriptions", [_answer(socket)], self.now_ns()))

    # --- The user host ------------------------------------------------------------------------------------

    def user(self, name: str, secret: str) -> User:
        """Return the owner of a key, who is made now if he is new."""
        return self.users.setdefault(name, User(name, Key(name, secret).public))

    def order(self, name: str, order_id: str, status: str = "OPEN", **change: Any) -> int:
        """Let a user's order become so; returns how many connections hear of it."""
        user = self.users[name]
        event = {"type": "update", "orders": [user.row(order_id, status, self.now_ns(), **change)]}
        return self.publish("user", envelope("user", [event | _NO_POSITIONS], self.now_ns()), scope=name)

    def _take_user(self, socket: Socket, what: str, channel: str, token: object) -> None:
        """Obey a request of the user host; each needs a good token of its own."""
        self.login_attempts += channel == "user"
        user = signer(token, self.users, self.now_ns() // _SECOND_NS)
        if user is None or channel not in ("user", "heartbeats"):
            self._complain(socket, "authentication failure")
            return
        socket.memo["asked"] = True
        socket.scope = user.name
        if what == "unsubscribe":
            self.unsubscribe(socket, [channel])
        else:
            self.seen.subscribes += 1
            self.subscribe(socket, [channel])
        if what == "subscribe" and channel == "user":
            self.logins[user.name] += 1
            for rows in user.open_orders():
                event = {"type": "snapshot", "orders": rows}
                self._send(socket, channel, envelope("user", [event | _NO_POSITIONS], self.now_ns()))
        self.acknowledge(socket, envelope("subscriptions", [_answer(socket)], self.now_ns()))

    def _begin_streams(self, socket: Socket, channel: str, products: Sequence[str]) -> None:
        """Subscribe what exists and send its snapshots, before the answer; of the rest nothing is said."""
        self.begin()
        if channel in WHOLE:
            self.subscribe(socket, [channel])
            if channel == "status":
                rows = [words.status() for words in self._words.values()]
                event = {"type": "snapshot", "products": rows}
                self._send(socket, channel, envelope("status", [event], self.now_ns()))
            return
        for asked in products:
            product = self._aliases.get(asked, asked)
            stream = f"{channel}:{product}"
            if product in self._recorded:
                self.subscribe(socket, [stream])
            elif product in self._names:
                # Asked again it begins again: a fresh snapshot.
                self.subscribe(socket, [stream])
                self._send(socket, stream, self._snapshot(channel, self._words[self._names[product]]))

    def _end_streams(self, socket: Socket, channel: str, products: Sequence[str] | None) -> None:
        streams = [
            stream
            for stream in socket.subscriptions
            if stream.partition(":")[0] == channel
            and (products is None or stream.partition(":")[2] in {self._aliases.get(p, p) for p in products})
        ]
        self.unsubscribe(socket, streams)

    def _send(self, socket: Socket, stream: str, frame: dict[str, Any]) -> None:
        self.faults.deliver(socket, stream, orjson.dumps(frame).decode())

    def _complain(self, socket: Socket, text: str) -> None:
        socket.send(orjson.dumps({"type": "error", "message": text}).decode())

    def _too_many(self, what: str, limit: int) -> bool:
        """Count something that one address may do so many times a second."""
        recent, now = self._recent.setdefault(what, deque()), trio.current_time()
        while recent and recent[0] <= now - 1.0:
            recent.popleft()
        recent.append(now)
        return len(recent) > limit

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer the time, products, candles, trades and books, so many times a second."""
        self.begin()
        if self._too_many("requests", self.requests_limit):
            body: dict[str, Any] = {"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]}
            return Response(status=429, headers=self._headers(), body=orjson.dumps(body))
        try:
            answer = self._resolve(request.path.removeprefix(_API), request.query)
        except _RefusedError as e:
            body = {"error": e.error, "error_details": str(e), "message": str(e)}
            return Response(status=e.status, headers=self._headers(), body=orjson.dumps(body))
        return Response(headers=self._headers(), body=orjson.dumps(answer))

    def _headers(self) -> dict[str, str]:
        used = len(self._recent["requests"])
        return {
            "x-ratelimit-limit": str(self.requests_limit),
            "x-ratelimit-remaining": str(max(0, self.requests_limit - used)),
            "x-ratelimit-reset": "1",
            "date": formatdate(self.now_ns() / 1e9, usegmt=True),
        }

    def _resolve(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        if path == "/time":
            now_ns = self.now_ns()
            return {
                "iso": time_text(now_ns),
                "epochSeconds": str(now_ns // _SECOND_NS),
                "epochMillis": str(now_ns // 1_000_000),
            }
        if path == "/market/product_book":
            return self._book(self._find(query.get("product_id", "")), query)
        head, _, rest = path.partition("/market/products")
        if head or not path.startswith("/market/products"):
            raise _RefusedError(404, "NOT_FOUND", "no such path")
        if rest in ("", "/"):
            return self._products(query)
        product, _, what = rest.removeprefix("/").partition("/")
        if product in self._recorded:
            return {"candles": []} if what == "candles" else {"trades": [], "best_bid": "", "best_ask": ""}
        words = self._find(product)
        if what == "candles":
            return self._candles(words, query)
        if what == "ticker":
            return self._trades(words, query)
        if what == "":
            return self._listed(words)
        raise _RefusedError(404, "NOT_FOUND", "no such path")

    def _find(self, product: str) -> Words:
        name = self._names.get(self._aliases.get(product, product))
        if name is None:
            raise _RefusedError(404, "NOT_FOUND", "product not found")
        return self._words[name]

    def _listed(self, words: Words) -> dict[str, Any]:
        aliases = [alias for alias, product in self._aliases.items() if product == words.product]
        return words.listed(self.market.ticker(words.listing.name, self.now_ns()).last, aliases)

    def _products(self, query: Mapping[str, str]) -> dict[str, Any]:
        rows: list[dict[str, Any]] = [self._listed(words) for words in self._words.values()]
        rows += [
            listed_row(alias, row["price_increment"], row["base_increment"], alias=product)
            for alias, product in self._aliases.items()
            for row in rows
            if row["product_id"] == product
        ]
        rows += [listed_row(product, "0.01", "0.00000001") for product in self._recorded]
        if query.get("product_type", "SPOT") != "SPOT":
            rows = []
        offset = _number(query, "offset", 0)
        limit = _number(query, "limit", self.page or len(rows))
        return {"products": rows[offset : offset + limit], "num_products": len(rows)}

    def _candles(self, words: Words, query: Mapping[str, str]) -> dict[str, Any]:
        if "start" not in query or "end" not in query or query.get("granularity") not in _GRANULARITIES:
            raise _RefusedError(400, "INVALID_ARGUMENT", "start, end and granularity are required")
        start, end = _number(query, "start", 0), _number(query, "end", 0)
        if not 0 <= end - start < 300 * 60:
            text = "start and end argument is invalid - number of candles requested should be less than 300"
            raise _RefusedError(400, "INVALID_ARGUMENT", text)
        for event in self.market.turn(self.now_ns()):
            self.tell(event)
        rows = [
            words.candle_row(minute)
            for minute in self.market.candles(words.listing.name)
            if minute.trades and start <= minute.start_ns // _SECOND_NS <= end
        ]
        return {"candles": rows[::-1]}

    def _trades(self, words: Words, query: Mapping[str, str]) -> dict[str, Any]:
        if "limit" not in query:
            raise _RefusedError(400, "INVALID_ARGUMENT", "limit is required")
        limit = min(_number(query, "limit", 0), _MAX_TRADES)
        start, end = _number(query, "start", 0), _number(query, "end", 1 << 40)
        found = [
            words.trade_row(trade)
            for trade in self.market.trades(words.listing.name)
            if start * _SECOND_NS <= trade.time_ns <= end * _SECOND_NS
        ]
        quote = self.market.quote(words.listing.name)
        return {"trades": found[::-1][:limit], "best_bid": quote.bid[0], "best_ask": quote.ask[0]}

    def _book(self, words: Words, query: Mapping[str, str]) -> dict[str, Any]:
        bids, asks = self.market.book(words.listing.name, _number(query, "limit", 0) or None)
        book: dict[str, Any] = {
            "product_id": words.product,
            "bids": [{"price": price, "size": size} for price, size in bids],
            "asks": [{"price": price, "size": size} for price, size in asks],
            "time": time_text(self.now_ns(), 6),
        }
        return {"pricebook": book, "last": "", "mid_market": "", "spread_bps": ""}


class _RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, error: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.error = error


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(query.get(key, default))
    except ValueError:
        raise _RefusedError(400, "INVALID_ARGUMENT", f"{key} is no number") from None


def _is_token(jwt: object) -> bool:
    """Return whether a token could be one; none is needed."""
    return jwt is None or (isinstance(jwt, str) and jwt.count(".") == 2)


def _answer(socket: Socket) -> dict[str, Any]:
    """Return all that is subscribed, by channel; those without products list themselves."""
    subscribed: dict[str, list[str]] = {}
    for stream in socket.subscriptions:
        channel, _, product = stream.partition(":")
        # A user is listed by his id.
        subscribed.setdefault(channel, []).append("7f1c" if channel == "user" else product or channel)
    return {"subscriptions": subscribed}


# --- Captures ---------------------------------------------------------------------------------------------

_STREAMS = {"l2_data": "level2", "market_trades": "market_trades", "ticker": "ticker"}
_CHANNEL = re.compile(r'"channel":"([a-z0-9_]+)"')
_PRODUCT = re.compile(r'"product_id":"([^"]+)"')


def _stream_of(frame: str) -> tuple[str, str] | None:
    channel, product = _CHANNEL.search(frame), _PRODUCT.search(frame)
    if channel is None or product is None or channel[1] not in _STREAMS:
        return None  # answers and heartbeats are the fake's own
    return "", f"{_STREAMS[channel[1]]}:{product[1]}"


def tape(*paths: Path | str) -> Tape:
    """Return captures as they are to be served; the frames are numbered anew for each connection."""
    return Tape(records=read_capture(*paths), stream_of=_stream_of)


def capture_server(*tapes: Tape, settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind a Coinbase that lists their products only and has no history."""
    streams = [tape.stream_of(record.text) for tape in tapes for record in tape.records]
    products = {name.partition(":")[2]: None for _, name in filter(None, streams)}
    return CaptureServer(CoinbaseFake(Market(()), recorded=tuple(products)), tapes, settle_s=settle_s)
