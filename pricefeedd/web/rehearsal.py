"""One connection led through its life before readers come: what hypercorn changed without renaming it shows here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config

from pricefeedd import wire
from pricefeedd.errors import leaves
from pricefeedd.web.hyper import Connections
from pricefeedd.web.writer import WRITER

#: How long it may take before it counts as failed.
_WITHIN_S = 5.0

_OPENING = (
    b"GET /rehearsal HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _masked(opcode: int, payload: bytes) -> bytes:
    """Return a short frame as a client sends it; the mask of zeros changes nothing."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


async def rehearse(config: Config) -> str | None:
    """Lead a connection through its life, on a socket pair; return what went wrong, None if nothing did."""
    ours, theirs = (trio.SocketStream(s) for s in trio.socket.socketpair())
    connections = Connections(_echo, config)
    wanted = wire.frame(b"hello") + wire.frame(b"echo") + b"\x8a\x01!" + b"\x88\x02\x03\xe8"
    got = b""
    why = None
    try:
        with trio.fail_after(_WITHIN_S):
            async with theirs, trio.open_nursery() as nursery:
                nursery.start_soon(connections.serve, ours, {})
                await theirs.send_all(_OPENING)
                while b"hello" not in got:
                    got += await _some(theirs)
                head, _, got = got.partition(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 101 "):
                    raise trio.BrokenResourceError(f"the handshake was answered {head[:40]!r}")
                await theirs.send_all(_masked(1, b"echo"))
                while b"echo" not in got:
                    got += await _some(theirs)
                await theirs.send_all(_masked(9, b"!") + _masked(8, b"\x03\xe8"))
                async for data in theirs:
                    got += data
    except* Exception as group:  # noqa: BLE001  # whatever it is, it is told and there is another way
        why = f"a rehearsal failed: {next(leaves(group))!r}"
    if why is None and got != wanted:
        why = f"a rehearsal brought {got!r}"
    return why


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise trio.BrokenResourceError("it closed early")
    return bytes(data)


async def _echo(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Greet by the writer, and send back what comes: the app of the rehearsal."""
    await receive()
    await send({"type": "websocket.accept"})
    scope["state"][WRITER].push([wire.frame(b"hello")])
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
