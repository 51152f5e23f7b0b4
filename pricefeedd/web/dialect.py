"""One WebSocket connection from its handshake to its end, whatever dialect it speaks.

One task per client reads its requests; data goes past it, from the bus through the reader's mailbox straight
to the connection's writer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

import attrs
import structlog
import trio

from pricefeedd import wire
from pricefeedd.web import deflate
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.fields import BadRequest
from pricefeedd.web.goodbye import (
    BAD_REQUEST,
    LIMIT,
    SHUTDOWN,
    STATE_LOST,
    TOO_SLOW,
    UNAUTHORISED,
    Goodbye,
)
from pricefeedd.web.keys import READ, denial, presented, scopes
from pricefeedd.web.reader import Reader
from pricefeedd.web.readers import Readers
from pricefeedd.web.socket import Socket
from pricefeedd.web.writer import GONE, WRITER, OrdinaryWriter, Pusher, Writer

log = structlog.get_logger("pricefeedd.web.clients")


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


@attrs.frozen(kw_only=True)
class Terms:
    """What a client asked of its connection before it said anything.

    Attributes:
        form: How its messages look.
        batch_s: Data is collected for so long; 0 for not at all.
        refusal: Why it is closed at once; None if it is not.
    """

    form: wire.Form = wire.NATIVE
    batch_s: float = 0.0
    refusal: Goodbye | None = None


class Talk(ABC):
    """The requests of one reader, and their answers."""

    def __init__(self, daemon: Daemon, reader: Reader, limits: Limits) -> None:
        self.daemon = daemon
        self.reader = reader
        self.limits = limits
        self._requests = Bucket(burst=limits.burst, per_s=limits.requests_per_s)
        self._errors = Bucket(burst=limits.errors, per_s=limits.errors / 60)

    @abstractmethod
    def greet(self) -> None:
        """Say what comes first."""

    @abstractmethod
    async def carry_out(self, text: str) -> None:
        """Do what is asked, and answer.

        Raises:
            BadRequest: It cannot be done; nothing was answered so far.
        """

    @abstractmethod
    def refuse(self, error: BadRequest) -> None:
        """Say what is wrong with a request."""

    async def answer(self, text: str) -> None:
        """Answer a request, wrong ones too. It may close the reader."""
        try:
            await self.carry_out(text)
        except BadRequest as e:
            if self.reader.goodbye is not None:
                return
            self.refuse(e)
            # Who asks too much is told so, and closed for that; a wrong request is another matter.
            if e.code != "limit" and self._errors.draw(1):
                self.reader.close(Goodbye(BAD_REQUEST, "too many requests that are wrong"))

    def afford(self, cost: float) -> None:
        """Count a request, or the rest of a large one.

        Raises:
            BadRequest: It came too early; after many of them the reader is being closed.
        """
        early_s = self._requests.draw(cost)
        if early_s and self._requests.spent:
            self.reader.close(Goodbye(LIMIT, "too many requests", round(early_s * 1000)))
        if early_s:
            raise BadRequest("limit", f"too many requests; try again in {early_s:.1f} s")


class Dialect(Protocol):
    """What a path speaks."""

    def terms(self, socket: Socket) -> Terms:
        """Return what a client asks by its handshake."""
        ...

    def talk(self, reader: Reader, limits: Limits) -> Talk:
        """Begin to talk with a client."""
        ...

    def farewell(self, goodbye: Goodbye) -> dict[str, object] | None:
        """Return the last words; None for none but the close frame's."""
        ...


def writer_of(socket: Socket, *, stall_s: float) -> Pusher:
    """Return the connection's own writer, or the ordinary way of sending where there is none."""
    scope: Mapping[str, Any] = socket.scope
    found = scope.get("state", {}).get(WRITER)
    if isinstance(found, Writer):
        return found
    return OrdinaryWriter(socket.send, stall_s=stall_s)


def _compresses(socket: Socket) -> bool:
    """Return whether the connection agreed on compressed messages."""
    scope: Mapping[str, Any] = socket.scope
    return bool(scope.get("state", {}).get(deflate.NEGOTIATED))


async def serve_connection(daemon: Daemon, readers: Readers, dialect: Dialect, socket: Socket) -> None:
    """Serve one client until it goes or we close."""
    limits = readers.limits
    web = daemon.config.web
    given = presented(socket.headers, socket.args)
    denied = denial(web.keys, given, scope=READ, public=web.public_read)
    await socket.accept()
    writer = writer_of(socket, stall_s=limits.stall_s)
    terms = dialect.terms(socket)
    refused = terms.refusal if denied is None else Goodbye(UNAUTHORISED, denied)
    reader = Reader(
        daemon,
        limits,
        writer,
        readers.nursery,
        form=deflate.deflated(terms.form) if _compresses(socket) else terms.form,
        batch_s=terms.batch_s,
        scopes=scopes(web.keys, given),
        key=given,
    )
    try:
        refused = refused or readers.admit(reader)
        if refused is None:
            talk = dialect.talk(reader, limits)
            talk.greet()
            with reader.reading:
                await _listen(readers, reader, talk, socket)
        goodbye = refused or reader.goodbye
        readers.discard(reader)
        if goodbye is not None:
            _tell(socket, reader, goodbye)
            reader.farewell(goodbye, dialect.farewell(goodbye))
            await _part(socket, reader, goodbye, limits.goodbye_s)
    finally:
        readers.discard(reader)
        reader.end()


def _tell(socket: Socket, reader: Reader, goodbye: Goodbye) -> None:
    """Log why we close, where it is the client's own doing: else it is told for all of them at once."""
    if goodbye.code not in (SHUTDOWN, STATE_LOST):
        host, *_ = socket.scope.get("client") or ("",)
        log.info(
            "client closed",
            client=host,
            path=socket.scope["path"],
            session=reader.session,
            code=goodbye.code,
            reason=goodbye.reason,
        )


async def _listen(readers: Readers, reader: Reader, talk: Talk, socket: Socket) -> None:
    """Hand requests over until the reader is closed."""
    limits = readers.limits
    for number in count(1):
        if reader.goodbye is not None:
            return
        try:
            message = await socket.receive()
            await reader.drained()
        except trio.TooSlowError:
            # The reader's own task is about to close it, if there is one; else this is the first to know.
            reader.close(Goodbye(TOO_SLOW, f"nothing was read for {limits.stall_s:g} s", 1_000))
            return
        except GONE:
            return
        readers.spoke(reader)
        if not isinstance(message, str):
            reader.close(Goodbye(BAD_REQUEST, "requests are JSON text, this was a binary message"))
        elif len(message) > limits.message_bytes:
            reader.close(Goodbye(BAD_REQUEST, f"a request has at most {limits.message_bytes} bytes"))
        else:
            with structlog.contextvars.bound_contextvars(trace_id=f"{socket.trace_id}.{number}"):
                log.debug("asked", session=reader.session, request=message[:200])
                await talk.answer(message)


async def _part(socket: Socket, reader: Reader, goodbye: Goodbye, within_s: float) -> None:
    """Close, and give the client a moment to take our last words."""
    said = False
    with trio.move_on_after(within_s):
        try:
            await reader.drained()
            await socket.close(goodbye.code, goodbye.reason[:120])
            said = True
        except (*GONE, trio.TooSlowError):
            pass
        # A socket closed while it holds unread requests is reset, and the reset can overtake our `bye`: so wait until
        # the client has answered the close.
        with suppress(*GONE):
            while said:
                await socket.receive()
    if not said:
        reader.abort()
