"""A WebSocket as the server hands it to us: ASGI's messages and nothing between.

Quart would hold five times as much for each connection: a request's context, two tasks and two queues, for as long as
somebody reads. So the app's `asgi_websocket_class`, which is Quart's own door for this, takes our paths past it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
import trio
from werkzeug.datastructures import MultiDict

from pricefeedd.web.trace import HEADER, trace_id_of


class Headers:
    """The headers of a handshake; of one given several times the first counts."""

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            self._values.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def get(self, name: str, /) -> str | None:
        """Return a header, however its name is written; None without it."""
        return self._values.get(name.lower())


class Socket:
    """One WebSocket of a client.

    Attributes:
        scope: ASGI's own description of it.
        headers: Those of the handshake.
        args: The parameters in its URL.
        trace_id: What the log calls it, and the answer to the handshake.
    """

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        self.scope = scope
        self.headers = Headers(scope["headers"])
        self.args: MultiDict[str, str] = MultiDict(
            parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        )
        self.trace_id = trace_id_of(self.headers)
        self._receive = receive
        self._send = send

    async def accept(self) -> None:
        """Complete the handshake."""
        await self._receive()  # what asks for it
        await self._send({"type": "websocket.accept", "subprotocol": None, "headers": [self._named]})

    async def refuse(self, status: int, body: object) -> None:
        """Answer the handshake with an HTTP error and JSON."""
        await self._receive()
        headers = [(b"content-type", b"application/json"), self._named]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": orjson.dumps(body)})

    @property
    def _named(self) -> tuple[bytes, bytes]:
        return HEADER.lower().encode(), self.trace_id.encode()

    async def receive(self) -> str | bytes:
        """Wait for the client's next message.

        Raises:
            trio.BrokenResourceError: The client is gone.
        """
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise trio.BrokenResourceError("the client is gone")
        text: str | None = message.get("text")
        found: str | bytes = message["bytes"] if text is None else text
        return found

    async def send(self, text: str) -> None:
        """Send a text message the library's own way."""
        await self._send({"type": "websocket.send", "bytes": None, "text": text})

    async def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
