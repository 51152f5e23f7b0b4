"""`/api/v1/stream`: topics as Server-Sent Events, for browsers and shells that speak no WebSocket.

The reader behind it is the same as on `/ws`: what it is told, what it loses when it is slow and how it ends
do not differ. Only the last step does: messages leave as the body of a response that goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

import attrs
import trio
from quart import Quart, Response, request
from quart.wrappers.response import ResponseBody

from pricefeedd import wire
from pricefeedd.topic import Pattern
from pricefeedd.views import Options
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import Flag, about, given
from pricefeedd.web.goodbye import TOO_SLOW
from pricefeedd.web.http import asked, own_scopes, respond
from pricefeedd.web.keys import origin_allowed, presented
from pricefeedd.web.reader import Reader
from pricefeedd.web.readers import Readers
from pricefeedd.web.reading import LatestQuery, meanings, named, none_good
from pricefeedd.web.requests import DEPTH, EVERY_MS, Subscribe
from pricefeedd.web.topics import Problem, Resolver
from pricefeedd.web.writer import CHUNK_BYTES, WRITER, Writer

#: A browser that lost us comes back after this.
RETRY_MS: Final = 1_000

_HEARTBEAT = b": heartbeat\n\n"

#: What every message of ours begins with, up to its type.
_BEFORE_TYPE = len('{"type":"')


@attrs.frozen(kw_only=True)
class StreamQuery(LatestQuery):
    """Which topics, and how."""

    snapshot: bool = given(Flag(), about(Subscribe, "snapshot"), default=True)
    every_ms: int | None = given(EVERY_MS, about(Subscribe, "every_ms"), default=None, example=1_000)
    depth: int | None = given(DEPTH, about(Subscribe, "depth"), default=None, example=10)


def event_of(text: bytes) -> bytes:
    """Return a message of ours as one Server-Sent Event; a heartbeat as a comment, which no client sees."""
    kind = text[_BEFORE_TYPE : text.index(b'"', _BEFORE_TYPE)]
    if kind == b"heartbeat":
        return _HEARTBEAT
    return b"event: %s\ndata: %s\n\n" % (kind, text)


#: All these readers share the bytes of an event.
EVENTS: Final = wire.Form(wire.encode, event_of)


class EventWriter:
    """What a reader writes its frames to, when its client takes the body of a response.

    The body takes all that waits at once, and comes again when the socket took that.
    """

    def __init__(self, *, stall_s: float | None) -> None:
        """Make an empty one.

        Args:
            stall_s: After so long `drain` gives up; None where the connection's own writer looks after that.
        """
        self._stall_s = stall_s
        self._chunks: list[bytes] = [b"retry: %d\n\n" % RETRY_MS]
        self._pushed = 1
        self._taken = 0
        self._sent = 0
        self._news = trio.Event()
        self._room = trio.Event()
        self._ended = False

    @property
    def waiting(self) -> bool:
        """Whether anything has still to be sent."""
        return self._sent < self._pushed and not self._ended

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were not taken yet."""
        return sum(map(len, self._chunks))

    def push(self, frames: list[bytes]) -> bool:
        """Keep everything for the body."""
        if not self._ended:
            self._chunks += frames
            self._pushed += len(frames)
            self._news.set()
        return False

    def push_bytes(self, data: bytes) -> bool:
        """Keep it for the body."""
        return self.push([data])

    async def drain(self) -> None:
        """Wait until all that waited when this was called is sent.

        Raises:
            trio.TooSlowError: It took longer than `stall_s`.
            trio.BrokenResourceError: The response has ended.
        """
        target = self._pushed
        with trio.fail_after(float("inf") if self._stall_s is None else self._stall_s):
            while self._sent < target and not self._ended:
                await self._room.wait()
        if self._sent < target:
            raise trio.BrokenResourceError("the client is gone")

    async def take(self) -> bytes:
        """Return the next part of the body; empty at its end. What was returned before counts as sent."""
        self._sent = self._taken
        self._room.set()
        self._room = trio.Event()
        while not self._chunks and not self._ended:
            self._news = trio.Event()
            await self._news.wait()
        size = count = 0
        while count < len(self._chunks) and size < CHUNK_BYTES:
            size += len(self._chunks[count])
            count += 1
        chunk = b"".join(self._chunks[:count])
        del self._chunks[:count]
        self._taken += count
        return chunk

    def end(self) -> None:
        """Take in no more; the body ends behind what waits."""
        self._ended = True
        self._news.set()
        self._room.set()

    def discard(self) -> None:
        """Drop what waits."""
        self._taken += len(self._chunks)
        self._chunks.clear()

    def abort(self) -> None:
        """Drop what waits, and end."""
        self.discard()
        self.end()


class EventBody(ResponseBody):
    """The body of the response: a reader from its first byte to its last."""

    def __init__(
        self,
        daemon: Daemon,
        readers: Readers,
        meant: Sequence[tuple[str, Pattern | Problem]],
        query: StreamQuery,
        *,
        scopes: frozenset[str],
        key: str | None,
        stall_s: float | None,
    ) -> None:
        self._daemon = daemon
        self._readers = readers
        self._meant = meant
        self._query = query
        self._scopes = scopes
        self._key = key
        self._writer = EventWriter(stall_s=stall_s)
        self._nursery_manager = trio.open_nursery()
        self._handed_at = trio.current_time()

    async def __aenter__(self) -> EventBody:
        """Begin to read. Quart enters and leaves in one task, so that a nursery may span the body."""
        nursery = await self._nursery_manager.__aenter__()
        self._nursery = nursery
        self._reader = reader = Reader(
            self._daemon,
            self._readers.limits,
            self._writer,
            nursery,
            form=EVENTS,
            scopes=self._scopes,
            key=self._key,
        )
        refused = self._readers.admit(reader)
        if refused is not None:
            reader.close(refused)
        else:
            self._readers.spoke(reader)
            self._subscribe(reader)
        nursery.start_soon(self._until_closed, name=f"events:{reader.session}")
        return self

    def _subscribe(self, reader: Reader) -> None:
        query = self._query
        options = Options(query.every_ms or 0, query.depth or 0)
        results: list[dict[str, object]] = []
        for topic, found in self._meant:
            if isinstance(found, Problem):
                results.append({"topic": topic, "ok": False, "error": found.as_json()})
                continue
            begun = reader.subscribe(found, options=options, snapshot=query.snapshot)
            result = named(topic, found, matched=begun.matched)
            results.append(result | ({"on_demand": True} if begun.on_demand else {}))
        ack: dict[str, object] = {"type": "ack", "id": None, "op": "subscribe", "epoch": self._daemon.epoch}
        reader.reply(ack | {"results": results})
        if self._daemon.bus.upstream is not None and self._daemon.bus.upstream.away:
            reader.tell_upstream()
        reader.introduce()

    async def _until_closed(self) -> None:
        with self._reader.reading:
            await trio.sleep_forever()
        goodbye = self._reader.goodbye
        if goodbye is not None:
            self._reader.farewell(goodbye, goodbye.message())
        self._writer.end()

    def __aiter__(self) -> EventBody:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._writer.take()
        if not chunk:
            raise StopAsyncIteration
        self._handed_at = trio.current_time()
        return chunk

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reader, limits = self._reader, self._readers.limits
        reader.leave()
        self._readers.discard(reader)
        self._writer.abort()
        if (
            kind is not None
            and trio.current_time() - self._handed_at >= limits.stall_s
            and reader.goodbye is None
        ):
            # The connection's writer gave up on it: too late for a `bye`, but it counts as one.
            closed = self._daemon.stats.readers.closed
            closed[TOO_SLOW] = closed.get(TOO_SLOW, 0) + 1
        self._nursery.cancel_scope.cancel()
        await self._nursery_manager.__aexit__(kind, error, trace)


class Streams:
    """The handler, over one daemon."""

    def __init__(self, daemon: Daemon, readers: Readers, resolver: Resolver) -> None:
        self._daemon = daemon
        self._readers = readers
        self._resolver = resolver

    def add_routes(self, app: Quart) -> None:
        """Add the path to the app."""
        app.add_url_rule("/api/v1/stream", "stream", self.stream)

    async def stream(self) -> Response:
        """Send topics as Server-Sent Events, without end."""
        web = self._daemon.config.web
        query = asked(StreamQuery)
        if not origin_allowed(
            request.headers.get("Origin"), request.headers.get("Host"), web.allowed_origins
        ):
            return respond({"error": "pages of this origin may not read here", "code": "FORBIDDEN"}, 403)
        scopes = own_scopes(self._daemon)
        meant = await meanings(self._resolver, query.topics, scopes)
        results = [
            {"topic": topic, "ok": False, "error": found.as_json()}
            if isinstance(found, Problem)
            else {"ok": True}
            for topic, found in meant
        ]
        refused = none_good(results) or self._no_room()
        if refused is not None:
            return refused
        headers = {"X-Accel-Buffering": "no"}  # nginx would keep events back until it has a buffer full
        content_type = "text/event-stream; charset=utf-8"
        if request.method == "HEAD":
            return Response(b"", headers=headers, content_type=content_type)
        state: dict[str, Any] = request.scope.get("state", {})
        key = presented(request.headers, request.args)
        stall_s = None if isinstance(state.get(WRITER), Writer) else self._readers.limits.stall_s
        body = EventBody(self._daemon, self._readers, meant, query, scopes=scopes, key=key, stall_s=stall_s)
        response = Response(body, headers=headers, content_type=content_type)
        response.timeout = None
        return response

    def _no_room(self) -> Response | None:
        if len(self._readers) < self._daemon.config.web.max_clients:
            return None
        response = respond({"error": "as many clients as max_clients are connected", "code": "LIMIT"}, 503)
        response.headers["Retry-After"] = "30"
        return response
