"""The upstream's own `/ws`: how things stand there, books, events that did not come, and what the venues list."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog
import trio
import trio_websocket

from pricefeedd.events import CHANNELS, DERIVED_CHANNELS, PRIVATE_CHANNELS
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.source import Hole, Inlet
from pricefeedd_relay.settings import RelaySettings

log = structlog.get_logger("pricefeedd.relay")

_CONNECT_S = 5.0
_ANSWER_S = 5.0
#: A hole is waited for this long; then its events are told as missing.
_PATIENCE_S = 2.0
_RETRY_S = 1.0
_LOOK_S = 0.1
_LISTS_S = 600.0
#: Events that one request may bring, and requests for one hole.
_PAGE = 1_000
_PAGES = 10
_MESSAGE_BYTES = 256 * 1024 * 1024
#: Books in one request, and the pause between two for those that are still absent.
_BOOKS = 50
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
#: Holes that are looked after at a time.
_AT_ONCE = 8

_LOST = (
    OSError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    trio.TooSlowError,
    ValueError,
)


class NoAnswerError(Exception):
    """The upstream is away, or does not answer that."""


class Talk:
    """One connection with the upstream.

    Attributes:
        epoch: That all its numbers count in.
    """

    def __init__(self, socket: trio_websocket.WebSocketConnection, epoch: str) -> None:
        self.epoch = epoch
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}

    async def read(self) -> None:
        """Hand answers to who waits for them, until the connection ends, which is an error."""
        while True:
            message = orjson.loads(await self._socket.get_message())
            waiting = self._answers.get(message.get("id") or 0)
            if waiting is not None:
                waiting.send_nowait(message)

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            NoAnswerError: There is none, or the upstream refuses.
        """
        number = next(self._ids)
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._answers[number] = send
        try:
            with trio.fail_after(_ANSWER_S):
                await self._socket.send_message(orjson.dumps({"op": op, "id": number, **fields}).decode())
                answer = await receive.receive()
        except (trio.TooSlowError, trio_websocket.ConnectionClosed) as e:
            raise NoAnswerError(f"{op}: no answer") from e
        finally:
            del self._answers[number]
        if answer["type"] == "error":
            raise NoAnswerError(f"{op}: {answer['error']['message']}")
        return answer

    async def messages(self, op: str, topics: Iterable[str], **fields: Any) -> tuple[list[Any], bool]:
        """Return the messages in the answer, with their epoch, and whether those are all."""
        answer = await self.ask(op, topics=list(topics), **fields)
        found, complete = [], True
        for result in answer["results"]:
            complete = complete and result["ok"] and result.get("complete", True)
            found += [message | {"epoch": self.epoch} for message in result.get("messages", ())]
        return found, complete


class Upstream:
    """Keeps a connection with the upstream, and answers the inlet's questions by it."""

    def __init__(self, settings: RelaySettings, inlet: Inlet) -> None:
        parts = urlsplit(settings.upstream)
        secure = "wss" if parts.scheme == "https" else "ws"
        self._url = f"{secure}://{parts.netloc}{parts.path.rstrip('/')}/ws"
        self._headers = [(b"X-API-Key", settings.api_key.encode())] if settings.api_key else []
        self._inlet = inlet
        self._talk: Talk | None = None
        self._there = trio.Event()
        self._books: dict[str, Hole] = {}
        self._wanted = trio.Event()

    async def run(self) -> None:
        """Look after holes, and keep the connection, until cancelled."""
        async with trio.open_nursery() as nursery:
            for number in range(_AT_ONCE):
                nursery.start_soon(self._mend, name=f"mend:{number}")
            nursery.start_soon(self._mend_books, name="mend:books")
            told = ""
            while True:
                reason = await self._once()
                if reason != told:
                    log.warning("the upstream does not answer", url=self._url, reason=reason)
                    told = reason
                await trio.sleep(_RETRY_S)

    async def _once(self) -> str:
        """Hold one connection; return why it ended."""
        reason = ""
        try:
            async with self._connect() as talk, trio.open_nursery() as nursery:
                nursery.start_soon(talk.read)
                self._talk = talk
                self._there.set()
                await self._refresh(talk)
                while True:
                    await self._list_instruments(talk)
                    await trio.sleep(_LISTS_S)
        except* (*_LOST, NoAnswerError, KeyError, TypeError) as group:
            reason = "; ".join(str(error) or type(error).__name__ for error in _leaves(group))
        finally:
            self._talk = None
            if self._there.is_set():
                self._there = trio.Event()
        return reason

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Talk]:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(_CONNECT_S):
                socket = await trio_websocket.connect_websocket_url(
                    nursery, self._url, extra_headers=self._headers, max_message_size=_MESSAGE_BYTES
                )
            try:
                with trio.fail_after(_CONNECT_S):
                    welcome = orjson.loads(await socket.get_message())
                if welcome["type"] != "welcome":
                    raise NoAnswerError(f"it began with {str(welcome)[:120]}")
                yield Talk(socket, welcome["epoch"])
            finally:
                with trio.move_on_after(1, shield=True):
                    await socket.aclose()
                nursery.cancel_scope.cancel()

    # --- how things stand -----------------------------------------------------------------------------

    async def _refresh(self, talk: Talk) -> None:
        """Bring what is not known here yet: books, and the newest of what is rare."""
        # Not before the past was read: what is newer would stand for it.
        while self._inlet.report.state != "up":  # noqa: ASYNC110  # the other reader says it there
            await trio.sleep(_LOOK_S)
        venues = (await talk.ask("status"))["result"]["venues"]
        public = [channel for channel in (*CHANNELS, *DERIVED_CHANNELS) if channel not in PRIVATE_CHANNELS]
        for venue in venues:
            for channel in public:
                # One at a time: an answer has room for so many topics, and others work meanwhile.
                messages, _ = await talk.messages("get", [f"{channel}:{venue}:*"])
                self._inlet.refresh([m for m in messages if "origin" in m])

    async def _list_instruments(self, talk: Talk) -> None:
        markets: dict[tuple[str, str], list[Instrument]] = {}
        for row in (await talk.ask("instruments"))["results"]:
            markets.setdefault((row["venue"], row["market"]), []).append(
                Instrument(
                    venue=row["venue"],
                    market=row["market"],
                    name=row["instrument"],
                    symbol=row["symbol"],
                    kind=Kind(row["kind"]),
                    base=row["base"],
                    quote=row["quote"],
                    tradable=row["tradable"],
                    tick_size=row["tick_size"],
                    lot_size=row["lot_size"],
                )
            )
        for (venue, market), listed in markets.items():
            self._inlet.list_instruments(venue, market, listed)

    # --- holes ----------------------------------------------------------------------------------------

    async def _mend(self) -> None:
        while True:
            hole = await self._inlet.hole()
            if hole.topic.startswith("book:"):
                self._books[hole.topic] = hole
                self._wanted.set()
            else:
                await self._mend_events(hole)

    async def _mend_events(self, hole: Hole) -> None:
        """Fetch the events of a hole; if that takes too long they count as missing, and what waits goes on."""
        found: list[Any] = []
        complete = False
        with trio.move_on_after(_PATIENCE_S):
            try:
                found, complete = await self._history(hole)
            except (NoAnswerError, KeyError, TypeError) as e:
                log.warning("a gap stays", topic=hole.topic, reason=str(e))
        self._inlet.fill(hole, found, complete=complete)

    async def _history(self, hole: Hole) -> tuple[list[Any], bool]:
        await self._there.wait()
        talk = self._talk
        if talk is None:
            raise NoAnswerError("the upstream is away")
        found: list[Any] = []
        complete = hole.last - hole.first < _PAGE * _PAGES
        for first in range(hole.first, hole.last + 1, _PAGE)[:_PAGES]:
            last = min(first + _PAGE - 1, hole.last)
            page, whole = await talk.messages(
                "history", [hole.topic], limit=_PAGE, from_seq=first, to_seq=last
            )
            found += [message for message in page if "origin" in message]
            complete = complete and whole
        return found, complete

    async def _mend_books(self) -> None:
        """Fetch books that are absent until they are there, by this or other means."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            pause_s = _FIRST_PAUSE_S
            while self._books:
                with trio.move_on_after(_PATIENCE_S):
                    try:
                        await self._fetch_books()
                    except (NoAnswerError, KeyError, TypeError) as e:
                        log.debug("no books", reason=str(e))
                if self._books:
                    with trio.move_on_after(pause_s):
                        await self._wanted.wait()
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _fetch_books(self) -> None:
        await self._there.wait()
        holes = list(self._books.values())
        for start in range(0, len(holes), _BOOKS):
            some = holes[start : start + _BOOKS]
            if self._talk is None:
                raise NoAnswerError("the upstream is away")
            found, _ = await self._talk.messages("get", [hole.topic for hole in some])
            for hole in some:
                own = [message for message in found if message["topic"] == hole.topic]
                if self._inlet.fill(hole, own) and self._books.get(hole.topic) is hole:
                    del self._books[hole.topic]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
