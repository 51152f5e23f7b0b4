"""The WebSocket protocol, version 1: what clients ask and what they are answered.

One task per client reads its requests; data goes past it, from the bus through the reader's mailbox straight
to the connection's writer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import orjson
import trio
from quart import Websocket

from pricefeedd import wire
from pricefeedd.bus import Pattern
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.keys import READ, denial, presented
from pricefeedd.web.reader import BAD_REQUEST, LIMIT, TOO_SLOW, UNAUTHORISED, Goodbye, Reader, Readers
from pricefeedd.web.topics import Problem, Resolver
from pricefeedd.web.writer import GONE, OrdinaryWriter, Pusher, Writer

#: Key of the connection's writer in the ASGI scope's `state`.
WRITER: Final = "pricefeedd.writer"

#: Similar names that are looked for in one request: each costs milliseconds.
_SUGGESTIONS = 5

_LATER = ("history",)
_LATER_OPTIONS = ("every_ms", "depth", "since")
_KEYS = {
    "subscribe": ("topics", "snapshot"),
    "unsubscribe": ("topics",),
    "list": (),
    "get": ("topics",),
    "instruments": ("venue", "market"),
    "status": (),
    "ping": ("data",),
}


@attrs.frozen
class BadRequest(Exception):  # noqa: N818  # named for what the client is told
    """A request that cannot be carried out.

    Attributes:
        code: For programs.
        message: For people: what is wrong, and what to do.
    """

    code: str
    message: str
    did_you_mean: tuple[str, ...] = ()


class Bucket:
    """A rate limit: `burst` at once, `per_s` in the long run."""

    def __init__(self, *, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._level = burst
        self._at = trio.current_time()

    def draw(self, cost: float) -> float:
        """Draw, and return 0; or return how many seconds too early it is. A debt of one burst is kept."""
        now = trio.current_time()
        self._level = min(self._burst, self._level + (now - self._at) * self._per_s)
        self._at = now
        early = 0.0 if self._level >= min(cost, self._burst) else (cost - self._level) / self._per_s
        self._level = max(self._level - cost, -self._burst)
        return early

    @property
    def spent(self) -> bool:
        """Whether the client went on for a whole burst after it was told to stop."""
        return self._level <= -self._burst


def writer_of(websocket: Websocket, *, stall_s: float) -> Pusher:
    """Return the connection's own writer, or the ordinary way of sending where there is none.

    On HTTP/2 several streams share a connection, so bytes of ours cannot go past its framing.
    """
    scope: Mapping[str, Any] = websocket.scope
    found = scope.get("state", {}).get(WRITER)
    if isinstance(found, Writer) and scope.get("http_version") == "1.1":
        return found
    return OrdinaryWriter(websocket.send, stall_s=stall_s)


def _refusal(daemon: Daemon, websocket: Websocket) -> Goodbye | None:
    """Return why the client may not read; None if it may."""
    web = daemon.config.web
    given = presented(websocket.headers, websocket.args)
    why = denial(web.keys, given, scope=READ, public=web.public_read)
    return None if why is None else Goodbye(UNAUTHORISED, why)


async def serve_reader(daemon: Daemon, readers: Readers, resolver: Resolver, websocket: Websocket) -> None:
    """Serve one client that speaks the native protocol, until it goes or we close."""
    limits = readers.limits
    refused = _refusal(daemon, websocket)
    await websocket.accept()
    writer = writer_of(websocket, stall_s=limits.stall_s)
    async with trio.open_nursery() as nursery:
        reader = Reader(daemon, limits, writer, nursery)
        try:
            refused = refused or _unserved(websocket) or readers.admit(reader)
            if refused is None:
                reader.reply(_welcome(daemon, reader, limits.public()))
                with reader.reading:
                    await Conversation(daemon, readers, resolver, reader).run(websocket.receive)
            goodbye = refused or reader.goodbye
            readers.discard(reader)
            if goodbye is not None:
                await _part(websocket, reader, goodbye, limits.goodbye_s)
        finally:
            readers.discard(reader)
            reader.leave()
            nursery.cancel_scope.cancel()


def _unserved(websocket: Websocket) -> Goodbye | None:
    asked = [name for name in ("batch_ms", "numbers") if name in websocket.args]
    if asked:
        return Goodbye(BAD_REQUEST, f"{asked[0]} is not served by this version; leave it out of the URL")
    return None


def _welcome(daemon: Daemon, reader: Reader, limits: dict[str, int | float]) -> dict[str, object]:
    return {
        "type": "welcome",
        "protocol": wire.PROTOCOL,
        "session": reader.session,
        "epoch": daemon.epoch,
        "heartbeat_s": daemon.config.web.heartbeat_s,
        "limits": limits,
    }


async def _part(websocket: Websocket, reader: Reader, goodbye: Goodbye, within_s: float) -> None:
    """Say `bye`, close, and give the client a moment to take both."""
    reader.farewell(goodbye)
    said = False
    with trio.move_on_after(within_s):
        try:
            await reader.drained()
            await websocket.close(goodbye.code, goodbye.reason[:120])
            said = True
        except (*GONE, trio.TooSlowError):
            pass
        # A socket closed while it holds unread requests is reset, and the reset can overtake our `bye`. The
        # handler is cancelled when the client answers the close.
        while said:
            await websocket.receive()
    if not said:
        reader.abort()


class Conversation:
    """The requests of one reader, and their answers."""

    def __init__(self, daemon: Daemon, readers: Readers, resolver: Resolver, reader: Reader) -> None:
        self._daemon = daemon
        self._readers = readers
        self._limits = readers.limits
        self._resolver = resolver
        self._reader = reader
        self._requests = Bucket(burst=self._limits.burst, per_s=self._limits.requests_per_s)
        self._errors = Bucket(burst=self._limits.errors, per_s=self._limits.errors / 60)
        self._suggestions = 0

    async def run(self, receive: Callable[[], Any]) -> None:
        """Answer requests until the reader is closed."""
        while self._reader.goodbye is None:
            message = await receive()
            try:
                await self._reader.drained()
            except trio.TooSlowError:
                # The reader's own task is about to close it, if there is one; else this is the first to know.
                self._reader.close(
                    Goodbye(TOO_SLOW, f"nothing was read for {self._limits.stall_s:g} s", 1_000)
                )
                return
            except GONE:
                return
            self._readers.spoke(self._reader)
            if not isinstance(message, str):
                self._reader.close(Goodbye(BAD_REQUEST, "requests are JSON text, this was a binary message"))
            elif len(message) > self._limits.message_bytes:
                most = self._limits.message_bytes
                self._reader.close(Goodbye(BAD_REQUEST, f"a request has at most {most} bytes"))
            else:
                await self._answer(message)

    async def _answer(self, text: str) -> None:
        request: object = None
        try:
            request = _parse(text)
            early_s = self._requests.draw(_cost(request))
            if early_s:
                if self._requests.spent:
                    self._reader.close(Goodbye(LIMIT, "too many requests", round(early_s * 1000)))
                    return
                raise BadRequest("limit", f"too many requests; try again in {early_s:.1f} s")
            await self._carry_out(request)
        except BadRequest as e:
            known = request if isinstance(request, dict) else {}
            problem = Problem(e.code, e.message, e.did_you_mean)
            self._reader.reply(
                {"type": "error", "id": _id(known), "op": known.get("op"), "error": problem.as_json()}
            )
            if self._errors.draw(1):
                self._reader.close(Goodbye(BAD_REQUEST, "too many requests that are wrong"))

    async def _carry_out(self, request: dict[str, Any]) -> None:
        op = request["op"]
        self._suggestions = _SUGGESTIONS
        if op in ("subscribe", "unsubscribe", "get"):
            await self._each_topic(op, request)
        elif op == "list":
            self._ack(request, results=self._list())
        elif op == "instruments":
            await self._instruments(request)
        elif op == "status":
            self._ack(request, result=self._status())
        else:
            pong: dict[str, object] = {"type": "pong", "id": _id(request), "ts": self._now_us()}
            self._reader.reply(pong | ({"data": request["data"]} if "data" in request else {}))

    def _ack(self, request: dict[str, Any], **fields: object) -> None:
        self._reader.reply({"type": "ack", "id": _id(request), "op": request["op"], **fields})

    def _now_us(self) -> int:
        return self._daemon.now_ns() // 1000

    # --- topics ---------------------------------------------------------------------------------------

    async def _each_topic(self, op: str, request: dict[str, Any]) -> None:
        topics = _texts(request, "topics")
        snapshot = request.get("snapshot", True)
        if type(snapshot) is not bool:
            raise BadRequest("bad_request", f"snapshot: expected true or false, found {snapshot!r}")
        meant: list[tuple[str, Pattern | Problem]] = []
        for done, topic in enumerate(topics):
            meant.append((topic, self._meaning(topic)))
            if done % 50 == 49:
                await trio.lowlevel.checkpoint()
        if op == "subscribe":
            results = [self._subscribe(asked, found, snapshot) for asked, found in meant]
        elif op == "unsubscribe":
            results = [self._unsubscribe(asked, found) for asked, found in meant]
        else:
            results = self._get(meant)
        self._ack(request, results=results)
        self._reader.introduce()

    def _meaning(self, topic: str) -> Pattern | Problem:
        if topic in self._reader.patterns:
            return self._reader.patterns[topic]
        found = self._resolver.resolve(topic, suggest=self._suggestions > 0)
        if isinstance(found, Problem) and found.code == "unknown_instrument":
            self._suggestions -= 1
        return found

    def _subscribe(self, asked: str, found: Pattern | Problem, snapshot: bool) -> dict[str, object]:
        held = self._reader.patterns
        if isinstance(found, Pattern) and found.text not in held and len(held) >= self._limits.subscriptions:
            most = self._limits.subscriptions
            found = Problem("limit", f"a client may hold {most} topics; unsubscribe some, or use patterns")
        if isinstance(found, Problem):
            return {"topic": asked, "ok": False, "error": found.as_json()}
        matched = self._reader.subscribe(found, snapshot=snapshot)
        return _named(asked, found, matched=matched)

    def _unsubscribe(self, asked: str, found: Pattern | Problem) -> dict[str, object]:
        if isinstance(found, Pattern) and found.text not in self._reader.patterns:
            near = difflib.get_close_matches(asked, list(self._reader.patterns)[:1000], n=3)
            found = Problem("not_subscribed", f"{asked} is not subscribed", tuple(near))
        if isinstance(found, Problem):
            return {"topic": asked, "ok": False, "error": found.as_json()}
        return _named(asked, found, matched=self._reader.unsubscribe(found))

    def _get(self, meant: list[tuple[str, Pattern | Problem]]) -> list[dict[str, object]]:
        bus = self._daemon.bus
        left = self._limits.reply_messages
        results: list[dict[str, object]] = []
        for asked, found in meant:
            if isinstance(found, Pattern):
                topics = bus.match(found)
                if len(topics) <= left:
                    left -= len(topics)
                    messages = [orjson.Fragment(m.text) for topic in topics for m in bus.latest(topic)]
                    results.append(_named(asked, found, matched=len(topics)) | {"messages": messages})
                    continue
                most = self._limits.reply_messages
                found = Problem("limit", f"a reply holds {most} topics and this one means {len(topics)}")
            results.append({"topic": asked, "ok": False, "error": found.as_json()})
        return results

    def _list(self) -> list[dict[str, object]]:
        bus = self._daemon.bus
        return [
            _named(text, held, matched=len(bus.match(held))) for text, held in self._reader.patterns.items()
        ]

    # --- facts ----------------------------------------------------------------------------------------

    async def _instruments(self, request: dict[str, Any]) -> None:
        venue, market = request.get("venue", "*"), request.get("market")
        if not isinstance(venue, str) or not isinstance(market, str | None):
            raise BadRequest("bad_request", "venue and market are text")
        venues = self._resolver.venues()
        if venue != "*" and venue not in venues:
            near = tuple(difflib.get_close_matches(venue, venues, n=3))
            raise BadRequest("unknown_venue", f"unknown venue {venue!r}", near)
        rows = []
        for listed in self._daemon.directory.maps(venue):
            if market in (None, listed.market):
                for entry in listed:
                    rows.append(
                        {
                            "venue": entry.venue,
                            "market": entry.market,
                            "instrument": entry.name,
                            "symbol": entry.symbol,
                            "tradable": entry.tradable,
                            "tick_size": entry.tick_size,
                            "lot_size": entry.lot_size,
                        }
                    )
                    if len(rows) % 500 == 0:
                        await trio.lowlevel.checkpoint()
        self._ack(request, results=rows)

    def _status(self) -> dict[str, object]:
        states: dict[str, int] = {}
        for topic in self._daemon.bus:
            states[topic.state.value] = states.get(topic.state.value, 0) + 1
        return {
            "ts": self._now_us(),
            "epoch": self._daemon.epoch,
            "venues": self._resolver.venues(),
            "topics": len(self._daemon.bus),
            "states": states,
            "clients": len(self._readers),
        }


def _named(asked: str, found: Pattern, *, matched: int) -> dict[str, object]:
    """Return the result for one topic; it says what the topic is called here if that differs."""
    result: dict[str, object] = {"topic": asked, "ok": True, "matched": matched}
    if found.text != asked:
        result["as"] = found.text
    return result


def _parse(text: str) -> dict[str, Any]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise BadRequest("bad_json", f"not JSON: {e}") from e
    if not isinstance(request, dict):
        raise BadRequest("bad_request", "a request is a JSON object with an op")
    op = request.get("op")
    if not isinstance(op, str):
        raise BadRequest("bad_request", f"op: expected one of {', '.join(_KEYS)}")
    if op in _LATER:
        raise BadRequest("unsupported_op", f"{op} is not served by this version")
    if op not in _KEYS:
        raise BadRequest("unknown_op", f"unknown op {op[:40]!r}", tuple(difflib.get_close_matches(op, _KEYS)))
    for key in request:
        if key in ("op", "id") or key in _KEYS[op]:
            continue
        if op == "subscribe" and key in _LATER_OPTIONS:
            raise BadRequest("unsupported_option", f"{key} is not served by this version")
        near = tuple(difflib.get_close_matches(key, ("id", *_KEYS[op])))
        raise BadRequest("bad_request", f"unknown key {key[:40]!r}", near)
    if type(request.get("id")) not in (int, str, type(None)) or len(str(request.get("id"))) > 200:
        del request["id"]
        raise BadRequest("bad_request", "id: expected a number or a short text")
    return request


def _id(request: Mapping[str, Any]) -> int | str | None:
    given = request.get("id")
    return given if type(given) in (int, str) else None


def _texts(request: dict[str, Any], key: str) -> list[str]:
    given = request.get(key)
    if not isinstance(given, list) or not given or not all(isinstance(text, str) for text in given):
        raise BadRequest("bad_request", f"{key}: expected a list of texts such as trade:binance:BTC-USDT")
    return given


def _cost(request: dict[str, Any]) -> float:
    topics = request.get("topics")
    return 1 + (len(topics) / 100 if isinstance(topics, list) else 0)
