"""Reads a running daemon: `async with connect(url) as feed: await feed.subscribe(...); async for ...`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import trio

from pricefeedd.client.feed import Feed
from pricefeedd.client.keeper import Keeper, Manners
from pricefeedd.client.line import Address, with_options
from pricefeedd.client.updates import (
    Answer,
    Bye,
    Conflated,
    Connected,
    Disconnected,
    EpochChanged,
    Missed,
    RefusedError,
    RequestError,
    Unserved,
    Update,
    Upstream,
)
from pricefeedd.errors import leaves

__all__ = [
    "Answer",
    "Bye",
    "Conflated",
    "Connected",
    "Disconnected",
    "EpochChanged",
    "Feed",
    "Missed",
    "RefusedError",
    "RequestError",
    "Unserved",
    "Update",
    "Upstream",
    "connect",
]


@asynccontextmanager
async def connect(
    url: str,
    *,
    api_key: str | None = None,
    numbers: Literal["text", "float"] | None = None,
    batch_ms: int | None = None,
    reconnect: bool = True,
    wait: bool = False,
    answer_s: float = 10.0,
    first_delay_s: float = 0.25,
    max_delay_s: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Feed]:
    """Connect to a daemon's `/ws`.

    Args:
        url: Such as `ws://127.0.0.1:8765/ws`.
        numbers: "float" for prices and sizes as floats: handy, and no longer exact.
        batch_ms: Let the daemon collect messages for so long and send them in one frame, which costs less.
        reconnect: Connect again whenever the connection ends, and go on where each topic stood.
        wait: Do so from the beginning: wait for a daemon that does not answer yet.
        answer_s: How long a request may wait for its answer, reconnecting included.
        first_delay_s: Before the first try to reconnect; it doubles up to `max_delay_s`, with full jitter.
        tls: For `wss`, where the system's trust is not enough.

    Raises:
        ServiceAwayError: Nobody serves there, or not this protocol.
        RefusedError: The daemon does not want us: a wrong key, a bad URL, a limit.
    """
    headers = () if api_key is None else ((b"X-API-Key", api_key.encode()),)
    address = Address(with_options(url, numbers=numbers, batch_ms=batch_ms), headers, tls)
    keeper = Keeper(
        address,
        Manners(
            reconnect=reconnect,
            wait=wait,
            answer_s=answer_s,
            first_delay_s=first_delay_s,
            max_delay_s=max_delay_s,
        ),
    )
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(keeper.run)
            try:
                yield Feed(keeper)
            finally:
                if (
                    trio.current_effective_deadline() > trio.current_time()
                ):  # else nobody has time for manners
                    await keeper.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours alone: what went wrong in the caller's block comes out as it went in.
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise
