# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["aiohttp==3.14.5"]
# ///
"""Contestant: aiohttp's server, and `send_str` to all readers with `asyncio.gather`, as its users do it."""

from __future__ import annotations

import asyncio  # noqa: TID251  # aiohttp runs on it
from typing import Any

# mypy: disable-error-code="import-not-found, import-untyped"
# What follows is installed by uv for this script alone.
from aiohttp import web
from serving import ACK, BACKLOG, WELCOME, Feed, arguments, listening
from serving_asyncio import obey


async def main() -> None:
    """Serve until the bench ends us."""
    arguments(__doc__ or "")
    feed = Feed()
    readers: set[Any] = set()

    async def reader(request: Any) -> Any:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        await connection.send_str(WELCOME)
        try:
            async for _ in connection:
                await connection.send_str(ACK)
                if feed.newest:
                    await connection.send_str(feed.newest)
                readers.add(connection)
        finally:
            readers.discard(connection)
        return connection

    async def publish(count: int) -> None:
        for text in feed.take(count):
            await asyncio.gather(*(one.send_str(text) for one in readers), return_exceptions=True)

    app = web.Application()
    app.router.add_get("/ws", reader)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sock = listening()
    await web.SockSite(runner, sock, backlog=BACKLOG).start()
    await obey(sock.getsockname()[1], publish)


if __name__ == "__main__":
    asyncio.run(main())
