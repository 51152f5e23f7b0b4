"""The part of a contestant on asyncio that is the same for all of them."""

from __future__ import annotations

import asyncio  # noqa: TID251  # the rivals run on it
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from serving import Flow, announce, listen_to_the_bench


async def obey(port: int, publish: Callable[[int], Awaitable[None]]) -> None:
    """Publish what the bench asks for, until it ends us.

    Args:
        publish: Sends so many new messages, one batch, to all readers.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    listen_to_the_bench(lambda line: loop.call_soon_threadsafe(lines.put_nowait, line))
    announce(port)
    while (line := await lines.get()) is not None:
        flow = Flow(line)
        with suppress(
            TimeoutError
        ):  # a server that waits for each reader waits for ever for one that stopped
            async with asyncio.timeout(flow.within_s):
                for wait_s, count in flow.batches():
                    await asyncio.sleep(wait_s)
                    await publish(count)
        flow.report()
    os._exit(0)  # a thousand readers need no goodbye
