"""Reads a running daemon: `async with connect(url) as feed: await feed.subscribe(...); async for ...`."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import orjson
import trio
import trio_websocket

from pricefeedd import wire
from pricefeedd.errors import ConnectionLostError, DecodeError, PricefeeddError, ServiceAwayError, leaves
from pricefeedd.events import Event

CONNECT_S = 5.0


class RequestError(PricefeeddError):
    """The daemon answered a request with an error."""


@attrs.frozen(kw_only=True)
class Update:
    """One message of a topic.

    Attributes:
        topic: `channel:venue:instrument`.
        seq: Counts up by one per topic within an epoch.
        event: The event; None for notices to this reader alone (`conflated`, a `gap` of its own).
        text: The message as it came.
        message: The message as parsed JSON.
    """

    topic: str
    seq: int
    event: Event | None
    text: str = attrs.field(repr=False)
    message: dict[str, Any] = attrs.field(repr=False)


class Feed:
    """An open connection with a daemon.

    Attributes:
        welcome: The daemon's first message: protocol, session, epoch, heartbeat_s, limits.
    """

    def __init__(self, socket: trio_websocket.WebSocketConnection, welcome: dict[str, Any]) -> None:
        self.welcome = welcome
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: list[Update] = []

    async def subscribe(self, topics: Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """Subscribe topics, `*` allowed for a part, and return the daemon's result for each.

        Raises:
            RequestError: The daemon refused the request as a whole.
            ConnectionLostError: The connection ended.
        """
        ack = await self.request("subscribe", topics=list(topics), **options)
        results: list[dict[str, Any]] = ack["results"]
        return results

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request and return its answer; data that arrives meanwhile is kept for the iterator."""
        number = next(self._ids)
        await self._send({"op": op, "id": number, **fields})
        while True:
            text, message = await self._receive()
            if message.get("id") == number:
                if message.get("type") == "error":
                    error = message.get("error", {})
                    raise RequestError(f"{op}: {error.get('message', message)}")
                return message
            if (update := _update(text, message)) is not None:
                self._waiting.append(update)

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Yield updates until the connection ends."""
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            text, message = await self._receive()
            if (update := _update(text, message)) is not None:
                yield update

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            await self._socket.send_message(orjson.dumps(message).decode())
        except trio_websocket.ConnectionClosed as e:
            raise _ended(e) from e

    async def _receive(self) -> tuple[str, dict[str, Any]]:
        try:
            text = await self._socket.get_message()
        except trio_websocket.ConnectionClosed as e:
            raise _ended(e) from e
        return str(text), orjson.loads(text)


def _ended(error: trio_websocket.ConnectionClosed) -> ConnectionLostError:
    reason = error.reason
    return ConnectionLostError(
        "the daemon closed the connection" + (f": {reason.code} {reason.reason or ''}" if reason else "")
    )


def _update(text: str, message: dict[str, Any]) -> Update | None:
    if "topic" not in message:
        return None
    event: Event | None = None
    if message["type"] != "conflated":
        try:
            _, _, event = wire.read(message)
        except DecodeError:
            event = None  # a notice, or a type of message that is younger than this client
    return Update(topic=message["topic"], seq=message.get("seq", 0), event=event, text=text, message=message)


@asynccontextmanager
async def connect(url: str, *, api_key: str | None = None) -> AsyncIterator[Feed]:
    """Connect to a daemon's `/ws`.

    Raises:
        ServiceAwayError: Nobody serves there, or not this protocol.
    """
    headers = [] if api_key is None else [(b"X-API-Key", api_key.encode())]
    try:
        async with trio.open_nursery() as nursery:
            socket, welcome = await _open(nursery, url, headers)
            try:
                yield Feed(socket, welcome)
            finally:
                with trio.move_on_after(1, shield=True):
                    await socket.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours alone: what went wrong in the caller's block comes out as it went in.
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise


async def _open(
    nursery: trio.Nursery, url: str, headers: list[tuple[bytes, bytes]]
) -> tuple[trio_websocket.WebSocketConnection, dict[str, Any]]:
    try:
        with trio.fail_after(CONNECT_S):
            socket = await trio_websocket.connect_websocket_url(
                nursery, url, extra_headers=headers, max_message_size=64 << 20
            )
            return socket, orjson.loads(await socket.get_message())
    except (
        OSError,
        ValueError,
        trio.TooSlowError,
        trio_websocket.HandshakeError,
        trio_websocket.ConnectionClosed,
    ) as e:
        why = f"HTTP {e.status_code}" if isinstance(e, trio_websocket.ConnectionRejected) else str(e)
        raise ServiceAwayError(f"no pricefeedd answers at {url} ({why or type(e).__name__})") from e
