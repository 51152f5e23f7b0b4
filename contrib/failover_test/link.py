"""A stretch of network that can be cut and stalled: a TCP proxy on a port of its own."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from functools import partial

import trio

_CHUNK = 65_536
#: SO_LINGER of no time: to close is a reset then.
_RESET = struct.pack("ii", 1, 0)


class Link:
    """Between a daemon and a service.

    Attributes:
        port: Where it listens on 127.0.0.1; known once it runs.
    """

    def __init__(self, host: str, port: int) -> None:
        """Prepare a proxy before this service."""
        self.port = 0
        self._target = host, port
        self._streams: set[trio.SocketStream] = set()
        self._cut = False
        self._flows = trio.Event()
        self._flows.set()

    def stall(self) -> None:
        """Keep connections, take new ones, and let nothing through: the other side seems to think."""
        if self._flows.is_set():
            self._flows = trio.Event()

    def cut(self) -> None:
        """Reset all connections, and those that come."""
        self._cut = True
        self._flows.set()
        for stream in list(self._streams):
            _reset(stream)

    def heal(self) -> None:
        """Let through again what comes, and what was held back."""
        self._cut = False
        self._flows.set()

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `nursery.start` returns the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_listeners, self._carry, listeners, handler_nursery=nursery)
            await nursery.start(serve)
            task_status.started(self.port)

    async def _carry(self, near: trio.SocketStream) -> None:
        if self._cut:
            _reset(near)
            return
        streams = [near]
        self._streams.add(near)
        # Both sides come to their ends as they like, resets among them.
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                await self._flows.wait()
                far = await trio.open_tcp_stream(*self._target)
                streams.append(far)
                self._streams.add(far)
                if self._cut:
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
                    nursery.start_soon(self._pump, far, near, nursery.cancel_scope)
            finally:
                for stream in streams:
                    self._streams.discard(stream)
                    _reset(stream)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(_CHUNK):
                await self._flows.wait()
                await target.send_all(data)
        both.cancel()


def _reset(stream: trio.SocketStream) -> None:
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()
