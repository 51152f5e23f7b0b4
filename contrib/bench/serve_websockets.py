# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["websockets==17.4"]
# ///
"""Contestant: the asyncio server of websockets, and its `broadcast`."""

from __future__ import annotations

import asyncio  # noqa: TID251  # websockets runs on it
from typing import Any

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"
# What follows is installed by uv for this script alone.
import websockets
from serving import ACK, BACKLOG, WELCOME, Feed, arguments, listening
from serving_asyncio import obey
from websockets.asyncio.server import broadcast, serve


async def main() -> None:
    """Serve until the bench ends us."""
    arguments(__doc__ or "")
    feed = Feed()
    readers: set[Any] = set()

    async def reader(connection: Any) -> None:
        await connection.send(WELCOME)
        try:
            async for _ in connection:
                await connection.send(ACK)
                if feed.newest:
                    await connection.send(feed.newest)
                readers.add(connection)
        except websockets.ConnectionClosed:
            pass
        finally:
            readers.discard(connection)

    async def publish(count: int) -> None:
        for text in feed.take(count):
            broadcast(readers, text)

    sock = listening()
    async with serve(reader, sock=sock, backlog=BACKLOG, ping_interval=None):
        await obey(sock.getsockname()[1], publish)


if __name__ == "__main__":
    asyncio.run(main())
