"""A fake Kraken: spot, WebSocket v2 and REST on one port.

It speaks the protocol as of 2026: an answer per symbol, snapshots, books that are silent about what leaves their
depth, checksums, heartbeats each second, the end after a minute without subscriptions, the ban of who connects too
often, and REST whose errors come with HTTP 200.
"""

from __future__ import annotations

import re
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
    SimDelta,
    SimEvent,
    SimQuote,
    SimTrade,
)
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd_kraken.fake_words import Rows, Words, clock, crc, dump

DEPTHS = (10, 25, 100, 500, 1000)
INTERVALS = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)

_SECOND_NS = 1_000_000_000
_HEARTBEAT_S = 1.0
#: A connection without a subscription or a ping for this long is closed.
_IDLE_S = 60.0
_BAN_S = 600.0
_SNAPSHOT_TRADES = 50
_MAX_CANDLES = 720
_MAX_TRADES = 1000


@attrs.define
class _View:
    """A book as the clients of one depth have it."""

    bids: dict[str, str] = attrs.field(factory=dict)
    asks: dict[str, str] = attrs.field(factory=dict)


class KrakenFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        snapshots: Whether it sends what a channel begins with; a server of captures does that itself.
        refuses: Symbols that it lists and will not serve on streams.
        banned_until: On Trio's clock; minus infinity if nobody was ever banned.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        snapshots: bool = True,
        connects: int = 150,
        requests_per_s: float = 1.0,
        burst: int = 3,
        messages_per_second: int = 50,
    ) -> None:
        """Make a fake Kraken.

        Args:
            market: By default one with the pairs of `default_listings`.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
            snapshots: Send what a channel begins with.
            connects: Connection attempts in 10 minutes; one more is banned for as long.
            requests_per_s: REST requests that are paid back in each second.
            burst: REST requests at once.
            messages_per_second: Messages of one client; the ones above are lost.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        self.snapshots = snapshots
        self.refuses: set[str] = set()
        self.banned_until = float("-inf")
        self._connects = connects
        self._attempts: deque[float] = deque()
        self._requests_per_s = requests_per_s
        self._burst = burst
        self._spent = 0.0
        self._spent_at = 0.0
        self._messages_per_second = messages_per_second
        self._words = {name: Words(listing) for name, listing in self.market.listings.items()}
        self._by_symbol = {words.symbol: name for name, words in self._words.items()}
        self._views: dict[tuple[str, int], _View] = {}
        self._connection_id = 2**63

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return pairs with Kraken's eight decimals of size; two of them have other names in REST."""
        pairs = [
            ("BTC", "USD", "60000.0", "0.1"),
            ("ETH", "USD", "2500.00", "0.01"),
            ("DOGE", "USD", "0.1500000", "0.0000001"),
            ("MINA", "GBP", "0.0294", "0.0001"),
        ]
        return tuple(
            Listing(
                market="spot",
                base=base,
                quote=quote,
                kind=Kind.SPOT,
                price=price,
                tick=tick,
                lot="0.00000100",
            )
            for base, quote, price, tick in pairs
        )

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.kraken.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        return {"spot_ws": f"ws://{base}", "spot_rest": f"http://{base}"}

    # --- What happens -------------------------------------------------------------------------------------

    def tell(self, event: SimEvent) -> None:
        """Publish what happened, in Kraken's words, to whoever subscribed it."""
        words = self._words[event.name]
        symbol = words.symbol
        match event:
            case SimTrade():
                if self.wanted(f"trade:{symbol}"):
                    self.publish(f"trade:{symbol}", _message("trade", "update", [words.trade(event)]))
                if self.wanted(f"ticker@trades:{symbol}"):
                    self.publish(f"ticker@trades:{symbol}", self._ticker(event.name, "update"))
            case SimQuote():
                if self.wanted(f"ticker:{symbol}"):
                    self.publish(f"ticker:{symbol}", self._ticker(event.name, "update"))
            case SimDelta():
                for name, depth in list(self._views):
                    if name == event.name:
                        self._tell_book(name, depth)
            case SimCandle() if not event.closed:
                # Nothing is sent when a minute ends.
                if self.wanted(f"ohlc:{symbol}"):
                    message = _message("ohlc", "update", [words.ohlc(event)])
                    self.publish(f"ohlc:{symbol}", message | {"timestamp": clock(event.time_ns, 9)})

    def _ticker(self, name: str, kind: str) -> dict[str, Any]:
        now_ns = self.now_ns()
        row = self._words[name].ticker(self.market.quote(name), self.market.ticker(name, now_ns), now_ns)
        return _message("ticker", kind, [row])

    def _tell_book(self, name: str, depth: int) -> None:
        """Publish what changed in the best levels since the last time, to those who have this depth."""
        words = self._words[name]
        stream = f"book:{words.symbol}"
        readers = [s for s in self.sockets if _depths(s).get(stream) == depth]
        view = self._views.get((name, depth))
        if view is None or not readers:
            self._views.pop((name, depth), None)
            return
        bids, asks = self.market.book(name)
        changed_bids = _changes(view.bids, bids, depth)
        changed_asks = _changes(view.asks, asks, depth)
        if changed_bids or changed_asks:
            row = words.book(changed_bids, changed_asks, crc(bids, asks), self.now_ns())
            text = dump(_message("book", "update", [row]))
            for socket in readers:
                self.faults.deliver(socket, stream, text)

    # --- The stream server --------------------------------------------------------------------------------

    async def on_handshake(self, request: Request) -> Response | None:
        """Accept `/v2`, and ban who connects too often."""
        if (ban := self._attempt()) is not None:
            return ban
        return None if request.path == "/v2" else Response(status=404)

    def _attempt(self) -> Response | None:
        now = trio.current_time()
        while self._attempts and self._attempts[0] <= now - _BAN_S:
            self._attempts.popleft()
        self._attempts.append(now)
        if len(self._attempts) > self._connects and now >= self.banned_until:
            self.banned_until = now + _BAN_S
        return self._ban()

    def _ban(self) -> Response | None:
        if trio.current_time() >= self.banned_until:
            return None
        return Response(status=429, headers={"content-type": "text/html"}, body=b"error code: 1015")

    async def on_open(self, socket: Socket) -> None:
        """Greet with the state of the system, before anything is asked."""
        self._connection_id += 1
        socket.memo["asked_at"] = trio.current_time()
        socket.memo["asks"] = deque()
        socket.send(dump(self.status("online", self._connection_id)))

    def status(self, system: str, connection_id: int | None = None) -> dict[str, Any]:
        """Return a status frame; the number of the connection is missing from those of a maintenance."""
        row: dict[str, Any] = {"version": "2.0.10", "system": system, "api_version": "v2"}
        if connection_id is not None:
            row["connection_id"] = connection_id
        return {"channel": "status", "type": "update", "data": [row]}

    async def beside(self, socket: Socket) -> None:
        """Send heartbeats to who has a subscription, and close who has none and asks nothing."""
        while True:
            await trio.sleep(_HEARTBEAT_S)
            if socket.subscriptions:
                socket.send('{"channel":"heartbeat"}')
            elif trio.current_time() - float(str(socket.memo["asked_at"])) >= _IDLE_S:
                socket.close(1001, "idle")

    async def on_text(self, socket: Socket, text: str) -> None:
        """Obey ping, subscribe and unsubscribe."""
        now = trio.current_time()
        socket.memo["asked_at"] = now
        asks = socket.memo["asks"]
        assert isinstance(asks, deque), "on_open made it"
        while asks and asks[0] <= now - 1.0:
            asks.popleft()
        asks.append(now)
        if len(asks) > self._messages_per_second:
            socket.send('{"Error":"Exceeded msg rate"}')
            return
        try:
            request = orjson.loads(text)
            method = request["method"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            socket.send(dump({"error": "Malformed request", "success": False}))
            return
        ids = {"req_id": request["req_id"]} if "req_id" in request else {}
        if method == "ping":
            if "params" in request:
                error = "Unsupported field: 'params' for the given msg type: ping"
                socket.send(
                    dump({"error": error, "method": "ping", **ids, "success": False, **self._times()})
                )
            else:
                socket.send(dump({"method": "pong", **ids, **self._times()}))
        elif method == "subscribe":
            self.seen.subscribes += 1
            self._subscribe(socket, request.get("params") or {}, ids)
        elif method == "unsubscribe":
            self.seen.unsubscribes += 1
            self._unsubscribe(socket, request.get("params") or {}, ids)
        else:
            self._refuse(socket, str(method), "Unsupported event", ids)

    def _times(self) -> dict[str, str]:
        now = clock(self.now_ns())
        return {"time_in": now, "time_out": now}

    def _refuse(
        self, socket: Socket, method: str, error: str, ids: Mapping[str, Any], symbol: str | None = None
    ) -> None:
        more = {} if symbol is None else {"symbol": symbol}
        answer = {"error": error, "method": method, **ids, "success": False, **more, **self._times()}
        self.acknowledge(socket, dump(answer))

    def _subscribe(self, socket: Socket, params: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
        channel = params.get("channel")
        if channel not in ("trade", "ticker", "ohlc", "book"):
            self._refuse(socket, "subscribe", "Unsupported event", ids)
            return
        depth, interval = params.get("depth", 10), params.get("interval", 1)
        for symbol in params.get("symbol", ()):
            if symbol not in self._by_symbol or symbol in self.refuses:
                error = f"Currency pair not supported {symbol}"
            elif channel == "book" and depth not in DEPTHS:
                error = "Subscription depth not supported"
            elif channel == "ohlc" and interval not in INTERVALS:
                error = "Subscription interval not supported"
            elif channel == "ohlc" and f"ohlc:{symbol}" in socket.subscriptions:
                error = "Already subscribed to one ohlc interval on this symbol"
            else:
                self._begin_stream(socket, channel, symbol, params, ids)
                continue
            self._refuse(socket, "subscribe", error, ids, symbol)

    def _begin_stream(
        self, socket: Socket, channel: str, symbol: str, params: Mapping[str, Any], ids: Mapping[str, Any]
    ) -> None:
        name = self._by_symbol[symbol]
        result: dict[str, Any] = {"channel": channel}
        snapshot = params.get("snapshot", channel != "trade")
        stream = f"{channel}:{symbol}"
        if channel == "book":
            result["depth"] = params.get("depth", 10)
        elif channel == "ohlc":
            result["interval"] = params.get("interval", 1)
            result["warnings"] = ["timestamp is deprecated, use interval_begin"]
        elif channel == "ticker":
            result["event_trigger"] = params.get("event_trigger", "trades")
            if result["event_trigger"] == "trades":
                stream = f"ticker@trades:{symbol}"
        result |= {"snapshot": snapshot, "symbol": symbol}
        answer = {"method": "subscribe", **ids, "result": result, "success": True, **self._times()}
        self.acknowledge(socket, dump(answer))
        if channel == "book":
            self._begin_book(socket, name, stream, int(result["depth"]), snapshot=snapshot)
            return
        self.subscribe(socket, [stream])
        if snapshot and self.snapshots:
            self.begin()
            message = self._first(name, channel)
            if message is not None:
                self.faults.deliver(socket, stream, dump(message))

    def _first(self, name: str, channel: str) -> dict[str, Any] | None:
        """Return what a channel begins with."""
        words = self._words[name]
        if channel == "ticker":
            return self._ticker(name, "snapshot")
        if channel == "trade":
            trades = list(self.market.trades(name))[-_SNAPSHOT_TRADES:]
            return _message("trade", "snapshot", [words.trade(trade) for trade in trades])
        # Minutes without trades are left out.
        candles = [candle for candle in self.market.candles(name) if candle.trades][-_MAX_CANDLES:]
        message = _message("ohlc", "snapshot", [words.ohlc(candle) for candle in candles])
        return message | {"timestamp": clock(self.now_ns(), 9)} if candles else None

    def _begin_book(self, socket: Socket, name: str, stream: str, depth: int, *, snapshot: bool) -> None:
        """Begin a book: all who have this depth are first brought to the state that the snapshot shows."""
        self._tell_book(name, depth)
        _depths(socket)[stream] = depth
        self.subscribe(socket, [stream])
        bids, asks = self.market.book(name, depth)
        self._views[name, depth] = _View(dict(bids), dict(asks))
        if snapshot and self.snapshots:
            row = self._words[name].book(bids, asks, crc(bids, asks), self.now_ns())
            self.faults.deliver(socket, stream, dump(_message("book", "snapshot", [row])))

    def _unsubscribe(self, socket: Socket, params: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
        channel = params.get("channel")
        for symbol in params.get("symbol", ()):
            stream = f"{channel}:{symbol}"
            if channel == "ticker" and params.get("event_trigger", "trades") == "trades":
                stream = f"ticker@trades:{symbol}"
            known = stream in socket.subscriptions
            if channel == "book":
                known = known and _depths(socket).get(stream) == params.get("depth", 10)
            if not known:
                self._refuse(socket, "unsubscribe", "Subscription Not Found", ids, symbol)
                continue
            self.unsubscribe(socket, [stream])
            _depths(socket).pop(stream, None)
            asked = {key: params[key] for key in ("depth", "interval", "event_trigger") if key in params}
            result = {"channel": channel, **asked, "symbol": symbol}
            answer = {"method": "unsubscribe", **ids, "result": result, "success": True, **self._times()}
            self.acknowledge(socket, dump(answer))

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer Time, SystemStatus, AssetPairs, OHLC and Trades, and count what they cost."""
        if (ban := self._ban()) is not None:
            return ban
        handlers: Mapping[str, Callable[[Mapping[str, str]], Any]] = {
            "/0/public/Time": lambda query: {"unixtime": self.now_ns() // _SECOND_NS, "rfc1123": "-"},
            "/0/public/SystemStatus": lambda query: {
                "status": "online",
                "timestamp": clock(self.now_ns(), 0),
            },
            "/0/public/AssetPairs": self._asset_pairs,
            "/0/public/OHLC": self._ohlc,
            "/0/public/Trades": self._trades,
        }
        handler = handlers.get(request.path)
        if handler is None:
            return _errors("EGeneral:Unknown method")
        now = trio.current_time()
        self._spent = max(0.0, self._spent - (now - self._spent_at) * self._requests_per_s)
        self._spent_at = now
        if self._spent + 1 > self._burst:
            return _errors("EAPI:Rate limit exceeded")
        self._spent += 1
        self.begin()
        for event in self.market.turn(self.now_ns()):
            self.tell(event)
        try:
            result = handler(request.query)
        except _RefusedError as e:
            return _errors(str(e))
        return Response(body=orjson.dumps({"error": [], "result": result}))

    def _find(self, query: Mapping[str, str]) -> str:
        asked = query.get("pair", "")
        for name, words in self._words.items():
            if asked in (words.altname, words.key):
                return name
        raise _RefusedError("EQuery:Unknown asset pair")

    def _asset_pairs(self, query: Mapping[str, str]) -> dict[str, Any]:
        names = [self._find(query)] if "pair" in query else list(self._words)
        return {self._words[name].key: self._words[name].listed() for name in names}

    def _ohlc(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the newest minutes from `since` on; the last one runs still."""
        name = self._find(query)
        if query.get("interval", "1") != "1":
            raise _RefusedError("EGeneral:Invalid arguments")
        since = _number(query, "since", 0)
        candles = self.market.candles(name)[-_MAX_CANDLES:]
        words = self._words[name]
        rows = [words.ohlc_row(candle) for candle in candles if candle.start_ns // _SECOND_NS > since]
        finished = [candle.start_ns // _SECOND_NS for candle in candles if candle.closed]
        return {words.key: rows, "last": finished[-1] if finished else 0}

    def _trades(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the oldest trades after `since`, or the newest."""
        name = self._find(query)
        count = min(_number(query, "count", _MAX_TRADES), _MAX_TRADES)
        trades = list(self.market.trades(name))
        if "since" in query:
            since = _number(query, "since", 0)
            if since < 10**12:
                since *= _SECOND_NS
            trades = [trade for trade in trades if trade.time_ns > since][:count]
        else:
            trades = trades[-count:]
        last = trades[-1].time_ns if trades else _number(query, "since", 0)
        words = self._words[name]
        return {words.key: [words.trade_row(trade) for trade in trades], "last": str(last)}

    def shut_down(self, market: str = "spot") -> None:
        """Announce the end of the connections in plain text, as has been seen; `faults.close` ends them then."""
        for socket in self.sockets:
            socket.send("CloudFlare WebSocket proxy restarting")


class _RefusedError(Exception):
    """An answer with an error, and HTTP 200."""


def _errors(*errors: str) -> Response:
    return Response(body=orjson.dumps({"error": errors}))


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(query.get(key, default))
    except ValueError:
        raise _RefusedError("EGeneral:Invalid arguments") from None


def _message(channel: str, kind: str, rows: list[Any]) -> dict[str, Any]:
    return {"channel": channel, "type": kind, "data": rows}


def _depths(socket: Socket) -> dict[str, int]:
    """Return the depths of a socket's books, by stream."""
    depths = socket.memo.setdefault("depths", {})
    assert isinstance(depths, dict), "only this function puts it there"
    return depths


def _changes(view: dict[str, str], levels: Rows, depth: int) -> list[tuple[str, str]]:
    """Return what to tell of one side, and bring the view up to date.

    A level that still exists and only fell out of the depth is not told; one that comes back into it is.
    """
    new = dict(levels[:depth])
    there = {price for price, _ in levels}
    # Removals first: the venue sends them in any order, and a client cuts after the whole message.
    gone = [(price, "0.00000000") for price in view if price not in there]
    changed = [(price, size) for price, size in new.items() if view.get(price) != size]
    view.clear()
    view.update(new)
    return gone + changed


# --- Captures ---------------------------------------------------------------------------------------------

_SYMBOL = re.compile(r'"symbol":"([^"/]+/[^"]+)"')
_CHANNEL = re.compile(r'"channel":"(trade|ticker|ohlc|book)"')


def stream_of(frame: str) -> tuple[str, str] | None:
    """Return scope and stream of a recorded data frame; None for answers, heartbeats and states."""
    channel, symbol = _CHANNEL.search(frame), _SYMBOL.search(frame)
    if '"data"' not in frame or channel is None or symbol is None:
        return None
    return "", f"{channel[1]}:{symbol[1]}"


def tape(*paths: Path | str) -> Tape:
    """Return captures of the stream as they are to be served; Kraken's books need nothing from REST."""
    return Tape(records=read_capture(*paths), stream_of=stream_of)


def capture_server(*tapes: Tape, settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind a Kraken that lists their pairs and has no history."""
    found = [stream_of(record.text) for one in tapes for record in one.records]
    symbols = dict.fromkeys(place[1].partition(":")[2] for place in found if place is not None)
    pairs = [symbol.split("/") for symbol in symbols]
    market = Market(
        Listing(market="spot", base=base, quote=quote, price="1000.00", tick="0.01", lot="0.00000100")
        for base, quote in pairs
    )
    fake = KrakenFake(market, snapshots=False)

    async def no_history(request: Request) -> Response | None:
        if request.path.endswith(("/OHLC", "/Trades")):
            return Response(body=b'{"error":[],"result":{"none":[],"last":0}}')
        return None

    fake.answers.append(no_history)
    return CaptureServer(fake, tapes, settle_s=settle_s)
