"""The WebSocket protocol, version 1: what clients ask and what they are answered."""

from __future__ import annotations

import difflib

import orjson
import trio

from pricefeedd import wire
from pricefeedd.topic import Pattern
from pricefeedd.views import Options
from pricefeedd.web import requests
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.dialect import Talk, Terms
from pricefeedd.web.fields import ABSENT, BadRequest
from pricefeedd.web.goodbye import BAD_REQUEST, Goodbye
from pricefeedd.web.reader import Reader, Since
from pricefeedd.web.readers import Readers
from pricefeedd.web.reading import instrument_row
from pricefeedd.web.requests import (
    Get,
    History,
    Instruments,
    List,
    Ping,
    Request,
    Status,
    Subscribe,
    Unsubscribe,
)
from pricefeedd.web.socket import Socket
from pricefeedd.web.topics import Problem, Resolver

#: Similar names that are looked for in one request: each costs milliseconds.
_SUGGESTIONS = 5

_FORMS = {"text": wire.NATIVE, "float": wire.FLOATS}


class Native:
    """The dialect of `/ws`."""

    def __init__(self, daemon: Daemon, readers: Readers, resolver: Resolver) -> None:
        self._daemon = daemon
        self._readers = readers
        self._resolver = resolver

    def terms(self, socket: Socket) -> Terms:
        """Return what a client asks in the URL."""
        try:
            asked = requests.connection(socket.args.to_dict(flat=False))
        except BadRequest as e:
            return Terms(refusal=Goodbye(BAD_REQUEST, e.message))
        return Terms(form=_FORMS[asked.numbers], batch_s=(asked.batch_ms or 0) / 1000)

    def talk(self, reader: Reader, limits: Limits) -> Conversation:
        """Begin to talk with a client."""
        return Conversation(self._daemon, self._readers, self._resolver, reader)

    def farewell(self, goodbye: Goodbye) -> dict[str, object]:
        """Return `bye`."""
        return goodbye.message()


class Conversation(Talk):
    """The requests of one reader, and their answers."""

    def __init__(self, daemon: Daemon, readers: Readers, resolver: Resolver, reader: Reader) -> None:
        super().__init__(daemon, reader, readers.limits)
        self._readers = readers
        self._resolver = resolver
        self._suggestions = 0

    def greet(self) -> None:
        """Say `welcome`."""
        self.reader.reply(
            {
                "type": "welcome",
                "protocol": wire.PROTOCOL,
                "session": self.reader.session,
                "epoch": self.daemon.epoch,
                "heartbeat_s": self.daemon.config.web.heartbeat_s,
                "limits": self.limits.public(),
            }
        )
        if self.daemon.bus.upstream is not None and self.daemon.bus.upstream.away:
            self.reader.tell_upstream()

    def refuse(self, error: BadRequest) -> None:
        """Say `error`."""
        problem = Problem(error.code, error.message, error.did_you_mean)
        self.reader.reply({"type": "error", "id": error.id, "op": error.op, "error": problem.as_json()})

    async def carry_out(self, text: str) -> None:
        """Do what one of `requests.REQUESTS` asks."""
        try:
            request = requests.parse(text)
        except BadRequest:
            self.afford(1.0)
            raise
        self.afford(request.cost)
        self._suggestions = _SUGGESTIONS
        match request:
            case Subscribe() | Unsubscribe() | Get() | History():
                await self._each_topic(request)
            case List():
                self._ack(request, results=self._list())
            case Instruments():
                await self._instruments(request)
            case Status():
                self._ack(request, result=self._status())
            case Ping():
                pong: dict[str, object] = {"type": "pong", "id": request.id, "ts": self._now_us()}
                self.reader.reply(pong | ({} if request.data is ABSENT else {"data": request.data}))

    def _ack(self, request: Request, **fields: object) -> None:
        self.reader.reply({"type": "ack", "id": request.id, "op": request.op, **fields})

    def _now_us(self) -> int:
        return self.daemon.now_ns() // 1000

    # --- topics ---------------------------------------------------------------------------------------

    async def _each_topic(self, request: Subscribe | Unsubscribe | Get | History) -> None:
        meant: list[tuple[str, Pattern | Problem]] = []
        for done, topic in enumerate(request.topics):
            meant.append((topic, self._meaning(topic)))
            if done % 50 == 49:
                await trio.lowlevel.checkpoint()
        match request:
            case Subscribe():
                self._subscribe_all(request, meant)
            case Unsubscribe():
                self._ack(request, results=[self._unsubscribe(asked, found) for asked, found in meant])
            case Get():
                self._ack(request, results=self._get(meant))
            case History():
                self._ack(request, results=self._history(request, meant))

    def _meaning(self, topic: str) -> Pattern | Problem:
        if topic in self.reader.patterns:
            return self.reader.patterns[topic]
        found = self._resolver.resolve(topic, suggest=self._suggestions > 0, scopes=self.reader.scopes)
        if isinstance(found, Problem) and found.code == "unknown_instrument":
            self._suggestions -= 1
        return found

    def _subscribe_all(self, request: Subscribe, meant: list[tuple[str, Pattern | Problem]]) -> None:
        options = Options(request.every_ms or 0, request.depth or 0)
        since = None if request.since is None else Since(request.since.epoch, dict(request.since.seq))
        results = [self._subscribe(asked, found, options, request.snapshot, since) for asked, found in meant]
        more: dict[str, object] = {}
        if since is not None:
            more["epoch"] = self.daemon.epoch
            if since.epoch != self.daemon.epoch:
                more["epoch_changed"] = True
        self._ack(request, results=results, **more)
        self.reader.introduce()

    def _subscribe(
        self, asked: str, found: Pattern | Problem, options: Options, snapshot: bool, since: Since | None
    ) -> dict[str, object]:
        held = self.reader.patterns
        if isinstance(found, Pattern) and found.text not in held and len(held) >= self.limits.subscriptions:
            most = self.limits.subscriptions
            found = Problem("limit", f"a client may hold {most} topics; unsubscribe some, or use patterns")
        if isinstance(found, Problem):
            return {"topic": asked, "ok": False, "error": found.as_json()}
        done = self.reader.subscribe(found, options=options, snapshot=snapshot, since=since)
        result = _named(asked, found, matched=done.matched)
        if done.on_demand:
            result["on_demand"] = True
        if since is not None:
            result["replayed"] = done.replayed
        return result

    def _unsubscribe(self, asked: str, found: Pattern | Problem) -> dict[str, object]:
        if isinstance(found, Pattern) and found.text not in self.reader.patterns:
            near = difflib.get_close_matches(asked, list(self.reader.patterns)[:1000], n=3)
            found = Problem("not_subscribed", f"{asked} is not subscribed", tuple(near))
        if isinstance(found, Problem):
            return {"topic": asked, "ok": False, "error": found.as_json()}
        return _named(asked, found, matched=self.reader.unsubscribe(found))

    def _get(self, meant: list[tuple[str, Pattern | Problem]]) -> list[dict[str, object]]:
        bus, form = self.daemon.bus, self.reader.form
        left = self.limits.reply_messages
        results: list[dict[str, object]] = []
        for asked, found in meant:
            if isinstance(found, Pattern):
                topics = bus.match(found)
                if len(topics) <= left:
                    left -= len(topics)
                    messages = [
                        orjson.Fragment(m.text_in(form)) for topic in topics for m in bus.latest(topic)
                    ]
                    results.append(_named(asked, found, matched=len(topics)) | {"messages": messages})
                    continue
                most = self.limits.reply_messages
                found = Problem("limit", f"a reply holds {most} topics and this one means {len(topics)}")
            results.append({"topic": asked, "ok": False, "error": found.as_json()})
        return results

    def _history(
        self, request: History, meant: list[tuple[str, Pattern | Problem]]
    ) -> list[dict[str, object]]:
        bus, form = self.daemon.bus, self.reader.form
        most = self.limits.history_messages
        first = request.from_seq or 1
        last = float("inf") if request.to_seq is None else request.to_seq
        left = most
        results: list[dict[str, object]] = []
        for asked, found in meant:
            if isinstance(found, Problem):
                results.append({"topic": asked, "ok": False, "error": found.as_json()})
                continue
            topics = bus.match(found)
            messages: list[orjson.Fragment] = []
            complete = True
            for topic in topics:
                kept = [message for message in topic.history if first <= message.seq <= last]
                complete = complete and topic.forgotten < first and len(kept) <= request.limit
                messages += [orjson.Fragment(m.text_in(form)) for m in kept[-request.limit :]]
            if len(messages) > left:
                problem = Problem(
                    "limit", f"a reply holds {most} messages; ask for fewer topics, or set limit"
                )
                results.append({"topic": asked, "ok": False, "error": problem.as_json()})
                continue
            left -= len(messages)
            told = {"messages": messages, "complete": complete}
            results.append(_named(asked, found, matched=len(topics)) | told)
        return results

    def _list(self) -> list[dict[str, object]]:
        bus = self.daemon.bus
        return [
            _named(text, held, matched=len(bus.match(held))) for text, held in self.reader.patterns.items()
        ]

    # --- facts ----------------------------------------------------------------------------------------

    async def _instruments(self, request: Instruments) -> None:
        venue, market = request.venue, request.market
        venues = self._resolver.venues()
        if venue != "*" and venue not in venues:
            near = tuple(difflib.get_close_matches(venue, venues, n=3))
            raise BadRequest(
                "unknown_venue", f"unknown venue {venue!r}", near, "venue", request.id, request.op
            )
        rows = []
        for listed in self.daemon.directory.maps(venue):
            if market in (None, listed.market):
                for entry in listed:
                    rows.append(instrument_row(entry))
                    if len(rows) % 500 == 0:
                        await trio.lowlevel.checkpoint()
        self._ack(request, results=rows)

    def _status(self) -> dict[str, object]:
        states: dict[str, int] = {}
        for topic in self.daemon.bus:
            states[topic.state.value] = states.get(topic.state.value, 0) + 1
        return {
            "ts": self._now_us(),
            "epoch": self.daemon.epoch,
            "venues": self._resolver.venues(),
            "topics": len(self.daemon.bus),
            "states": states,
            "clients": len(self._readers),
        }


def _named(asked: str, found: Pattern, *, matched: int) -> dict[str, object]:
    """Return the result for one topic; it says what the topic is called here if that differs."""
    result: dict[str, object] = {"topic": asked, "ok": True, "matched": matched}
    if found.text != asked:
        result["as"] = found.text
    return result
