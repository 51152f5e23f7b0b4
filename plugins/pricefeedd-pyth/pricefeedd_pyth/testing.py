"""A fake Pyth: Hermes and Benchmarks on one port, Hermes below `/hermes` as on the newer host.

It speaks the protocol as of 2026: keys, feeds in the URL, events without a space after the colon, comments while
nothing happens, errors as plain text, the end after 24 h, and the lock-out of who asks too often. The trades of the
simulated market move the prices; all feeds are told in each slot, changed or not.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs
import orjson
import trio

from pricefeedd.instruments import Kind
from pricefeedd.testing import Request, Response, Socket
from pricefeedd.testing.capture import CaptureServer, Record, Tape, read_capture
from pricefeedd.testing.market import Listing, Market, SimCandle, SimEvent, SimTrade
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd_pyth.fake_words import Told, Words, event

SLOT_NS = 400_000_000

_SECOND_NS = 1_000_000_000
_MINUTE_NS = 60 * _SECOND_NS
_COMMENT_S = 15.0
#: A stream whose prices stand still is told them this long after its beginning.
_FIRST_S = 1.0
_LOCK_OUT_S = 60.0
_STREAM = "/hermes/v2/updates/price/stream"
_ID = re.compile(r"(?:0[xX])?[0-9a-fA-F]{64}\Z")


class _Limit:
    """Requests of the last 10 s, and until when all are refused."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._recent: deque[float] = deque()
        self._locked_until = float("-inf")

    def refuses(self, now: float) -> bool:
        """Count a request, and return whether it is one too many."""
        while self._recent and self._recent[0] <= now - 10.0:
            self._recent.popleft()
        if now < self._locked_until:
            return True
        self._recent.append(now)
        if len(self._recent) > self._most:
            self._locked_until = now + _LOCK_OUT_S
            return True
        return False


class PythFake(SimulatedVenue):
    """The fake itself.

    Attributes:
        not_entitled: Ids of feeds that the key's plan does not cover.
        vanished: Ids of feeds that are listed and have no price any more.
        closed: Names of feeds whose market is closed: they are told with an old publish time.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
        api_key: str = "",
        requests_per_10_s: int = 10,
        slots: bool = True,
        stream_s: float = 86_400.0,
    ) -> None:
        """Make a fake Pyth.

        Args:
            market: By default one with the feeds of `default_listings`.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of prices to invent before the first event, for REST to give out.
            api_key: The key that prices are given for; "" asks for none.
            requests_per_10_s: Requests to Hermes that one address may make.
            slots: Tell prices; a server of captures does that itself.
            stream_s: A stream of this age is ended.
        """
        super().__init__(market, now_ns=now_ns, history_minutes=history_minutes)
        self.not_entitled: set[str] = set()
        self.vanished: set[str] = set()
        self.closed: dict[str, int] = {}
        self._api_key = api_key
        self._slots = slots
        self._stream_s = stream_s
        self._limits = {"hermes": _Limit(requests_per_10_s), "benchmarks": _Limit(90)}
        self._words = {name: Words(listing) for name, listing in self.market.listings.items()}
        self._by_id = {words.feed_id: name for name, words in self._words.items()}
        self._by_symbol = {words.symbol: name for name, words in self._words.items()}
        self._prices = {name: listing.price for name, listing in self.market.listings.items()}
        self._told: dict[str, list[Told]] = {name: [] for name in self._words}
        self._bars: dict[str, dict[int, list[str]]] = {name: {} for name in self._words}
        self._slot = 0

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return feeds of three kinds, whose exponents differ."""
        feeds = [
            ("BTC", "60000.00", "0.01"),
            ("ETH", "2500.00", "0.01"),
            ("EUR", "1.10000", "0.00001"),
            ("AAPL", "330.000", "0.001"),
        ]
        return tuple(
            Listing(
                market="oracle", base=base, quote="USD", kind=Kind.ORACLE, price=price, tick=tick, lot="0.001"
            )
            for base, price, tick in feeds
        )

    def endpoints(self, authority: str | None = None) -> dict[str, str]:
        """Return the base URLs for `[venues.pyth.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """
        base = self.authority if authority is None else authority
        hermes = f"http://{base}/hermes"
        return {"oracle_sse": hermes, "oracle_rest": hermes, "oracle_history": f"http://{base}"}

    # --- What happens -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Invent the past: its trades are its prices."""
        if self._begun:
            return
        super().begin()
        for name in self._words:
            for trade in self.market.trades(name):
                self._prices[name] = trade.price
                self._count(name, trade.time_ns // _SECOND_NS, self._words[name].text(trade.price))

    def tell(self, event: SimEvent) -> None:
        """Move a price with each trade, and tell all prices when a slot has passed."""
        if isinstance(event, SimTrade):
            self._prices[event.name] = event.price
        slot = self.now_ns() // SLOT_NS
        if slot > self._slot:
            self._tell_slot(slot)

    def flush(self) -> None:
        """Tell the prices that wait for their slot."""
        super().flush()
        if any(not told or told[-1].text != self._text(name) for name, told in self._told.items()):
            self._tell_slot(self._slot + 1)

    def id_of(self, name: str) -> str:
        """Return the id of a feed, 64 hex digits."""
        return self._words[name].feed_id

    def _text(self, name: str) -> str:
        return self._words[name].text(self._prices[name])

    def _tell_slot(self, slot: int) -> None:
        self._slot = slot
        publish_s = self.now_ns() // _SECOND_NS
        for name, told in self._told.items():
            if name in self.closed and told:
                told.append(Told(slot=slot, publish_s=self.closed[name], text=told[-1].text))
                continue
            text = self._text(name)
            told.append(Told(slot=slot, publish_s=publish_s, text=text))
            self._count(name, publish_s, text)
        if self._slots:
            for socket in list(self.sockets):
                self._tell_socket(socket)

    def _tell_socket(self, socket: Socket) -> None:
        rows = [
            self._words[name].parsed(self._told[name][-1])
            # In an order of its own, which is not that of the request.
            for name in sorted(self._words)
            if self._words[name].feed_id in socket.subscriptions
            and self._words[name].feed_id not in self.vanished
        ]
        if rows:
            socket.memo["told_at"] = trio.current_time()
            # Faults are aimed at feeds, and an event has all of them.
            self.faults.deliver(socket, " ".join(row["id"] for row in rows), event(rows))

    def _count(self, name: str, publish_s: int, text: str) -> None:
        """Make the bars of history."""
        bars = self._bars[name]
        start_s = publish_s // 60 * 60
        bar = bars.get(start_s)
        if bar is None:
            bars[start_s] = [text, text, text, text]
        else:
            bar[1] = max(bar[1], text, key=float)
            bar[2] = min(bar[2], text, key=float)
            bar[3] = text

    def told_prices(self, name: str) -> Sequence[str]:
        """Return a feed's prices so far, one for each slot."""
        return [told.text for told in self._told[name]]

    def told_candles(self, name: str) -> Sequence[SimCandle]:
        """Return the minutes of the prices told. Nothing is traded in them: `trades` only says that they exist."""
        now_ns = self.now_ns()
        return [
            SimCandle(
                name=name,
                time_ns=now_ns,
                start_ns=start_s * _SECOND_NS,
                open=bar[0],
                high=bar[1],
                low=bar[2],
                close=bar[3],
                volume="0",
                turnover="0",
                buy_volume="0",
                buy_turnover="0",
                trades=1,
                first_id=None,
                last_id=None,
                closed=start_s * _SECOND_NS + _MINUTE_NS <= now_ns,
            )
            for start_s, bar in sorted(self._bars[name].items())
        ]

    # --- Streams ------------------------------------------------------------------------------------------

    def trouble(self, text: str) -> None:
        """Send an error event, which is plain text, to all."""
        for socket in self.sockets:
            socket.send_raw(_chunk(f"event:error\ndata:{text}\n\n"))

    async def on_open(self, socket: Socket) -> None:
        """Subscribe what the URL names; unknown ids are left out without a word."""
        socket.memo["told_at"] = trio.current_time()
        self.subscribe(socket, [feed_id for feed_id in _ids(socket.request) if feed_id in self._by_id])

    async def beside(self, socket: Socket) -> None:
        """Tell a first slot, then send a comment each 15 s without an event; end the stream after 24 h.

        Slots go on whether prices move or not. Here one is told for that reason only where a stream begins, so
        that days of mock time stay cheap.
        """
        began = trio.current_time()
        ends = began + self._stream_s
        await trio.sleep(_FIRST_S)
        slot = self.now_ns() // SLOT_NS
        if socket.memo["told_at"] == began and slot > self._slot:
            self.begin()
            self._tell_slot(slot)
        while (now := trio.current_time()) < ends:
            due = float(str(socket.memo["told_at"])) + _COMMENT_S
            if now >= due:
                socket.memo["told_at"] = now
                socket.send_raw(_chunk(":\n\n"))
                due = now + _COMMENT_S
            await trio.sleep(min(due, ends) - now)
        socket.send_raw(_chunk("event:error\ndata:Connection timeout reached (24h)\n\n"))
        socket.close()

    # --- REST ---------------------------------------------------------------------------------------------

    async def on_http(self, request: Request) -> Response:
        """Answer feeds, latest prices, the stream and history."""
        path = request.path
        place = "hermes" if path.startswith("/hermes/") else "benchmarks"
        if self._limits[place].refuses(trio.current_time()):
            return _text(429, "Too Many Requests")
        self.begin()
        if path == "/hermes/v2/price_feeds":
            return self._feeds(request)
        if self._api_key and request.headers.get("authorization") != f"Bearer {self._api_key}":
            return _text(401, "unauthorized")
        if path in (_STREAM, "/hermes/v2/updates/price/latest"):
            return self._prices_of(request)
        if path == "/v1/shims/tradingview/history":
            return self._history(request.query)
        return _text(404, "")

    def _feeds(self, request: Request) -> Response:
        """List the feeds; no key is needed."""
        wanted = request.query.get("query", "").lower()
        kind = request.query.get("asset_type")
        rows = [
            row
            for words in self._words.values()
            for row in words.listed()
            if wanted in row["attributes"]["symbol"].lower()
            and kind in (None, row["attributes"]["asset_type"].lower())
        ]
        return Response(body=orjson.dumps(rows))

    def _prices_of(self, request: Request) -> Response:
        asked = [value for key, value in request.pairs if key == "ids[]"]
        if not asked:
            return _text(400, "Failed to deserialize query string: missing field `ids`")
        for text in asked:
            if not _ID.match(text):
                return _text(400, f"Failed to deserialize query string: invalid price id {text}")
        ids = _ids(request)
        forbidden = [feed_id for feed_id in ids if feed_id in self.not_entitled]
        if forbidden:
            return _text(403, f"Not entitled: feed {', '.join(forbidden)}")
        unknown = [feed_id for feed_id in ids if feed_id not in self._by_id]
        if unknown and request.query.get("ignore_invalid_price_ids") != "true":
            return _text(404, f"Price ids not found: {', '.join(unknown)}")
        if request.path == _STREAM:
            return Response(events=True)
        if not self._slot:
            self._tell_slot(self.now_ns() // SLOT_NS)
        names = [self._by_id[feed_id] for feed_id in ids if feed_id in self._by_id]
        rows = [self._words[name].parsed(self._told[name][-1]) for name in names]
        return Response(body=event(rows).encode())

    def _history(self, query: Mapping[str, str]) -> Response:
        """Return bars in columns; the last one may run still."""
        name = self._by_symbol.get(query.get("symbol", ""))
        if name is None or query.get("resolution") != "1":
            return Response(body=orjson.dumps({"s": "error", "errmsg": "Invalid symbol or resolution"}))
        start, end = int(query["from"]), int(query["to"])
        rows = [(at, bar) for at, bar in sorted(self._bars[name].items()) if start <= at <= end]
        if not rows:
            return Response(body=b'{"s":"no_data","t":[],"o":[],"h":[],"l":[],"c":[],"v":[]}')
        columns = {
            key: [orjson.Fragment(bar[i]) for _, bar in rows] for i, key in enumerate(("o", "h", "l", "c"))
        }
        body = {"s": "ok", "t": [at for at, _ in rows], **columns, "v": [0] * len(rows)}
        return Response(body=orjson.dumps(body))


def _ids(request: Request) -> list[str]:
    """Return the ids that a URL names, as they are in answers."""
    asked = [value.lower().removeprefix("0x") for key, value in request.pairs if key == "ids[]"]
    return list(dict.fromkeys(asked))


def _text(status: int, body: str) -> Response:
    """Return an error, whose body is plain text."""
    return Response(status=status, headers={"content-type": "text/plain"}, body=body.encode())


def _chunk(text: str) -> bytes:
    """Return a part of a chunked answer with exactly this text."""
    data = text.encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


# --- Captures ---------------------------------------------------------------------------------------------


def tape(*paths: Path | str) -> Tape:
    """Return captures of streams as they are to be served: the data of events that have one feed each."""

    def stream_of(frame: str) -> tuple[str, str] | None:
        found = re.search(r'"id":"([0-9a-f]{64})"', frame)
        return None if found is None else ("", found[1])

    records = [_bare(record) for record in read_capture(*paths)]
    return Tape(records=records, stream_of=stream_of)


def _bare(record: Record) -> Record:
    """Return a record without `data:`, which the server puts before what it sends."""
    return attrs.evolve(record, text=record.text.removeprefix("data:"))


def capture_server(*tapes: Tape, listings: Iterable[Listing], settle_s: float = 0.25) -> CaptureServer:
    """Return a server of captures behind a Pyth that lists these feeds and tells nothing of its own."""
    return CaptureServer(PythFake(Market(listings), slots=False), tapes, settle_s=settle_s)
