# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["picows==2.3.1"]
# ///
"""Contestant: the server of picows, compiled, and a loop over its transports."""

from __future__ import annotations

import asyncio  # noqa: TID251  # picows runs on it
from typing import Any

# mypy: disable-error-code="import-not-found, import-untyped"
# What follows is installed by uv for this script alone.
from picows import WSListener, WSMsgType, ws_create_server
from serving import ACK, BACKLOG, WELCOME, Feed, arguments, listening
from serving_asyncio import obey


async def main() -> None:
    """Serve until the bench ends us."""
    arguments(__doc__ or "")
    feed = Feed()
    readers: set[Any] = set()

    class Reader(WSListener):  # type: ignore[misc]  # compiled, not known here
        """One connection."""

        def on_ws_connected(self, transport: Any) -> None:
            """Greet."""
            transport.send(WSMsgType.TEXT, WELCOME.encode())

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            """Take any text as a subscription."""
            if frame.msg_type == WSMsgType.TEXT:
                transport.send(WSMsgType.TEXT, ACK.encode())
                if feed.newest:
                    transport.send(WSMsgType.TEXT, feed.newest.encode())
                readers.add(transport)

        def on_ws_disconnected(self, transport: Any) -> None:
            """Forget it."""
            readers.discard(transport)

    async def publish(count: int) -> None:
        for text in feed.take(count):
            payload = text.encode()
            for transport in readers:
                transport.send(WSMsgType.TEXT, payload)

    sock = listening()
    await ws_create_server(lambda _: Reader(), sock=sock, backlog=BACKLOG)
    await obey(sock.getsockname()[1], publish)


if __name__ == "__main__":
    asyncio.run(main())
