"""One writer for all bytes of a connection: ready frames leave by a plain `send`, the rest waits its turn.

Data frames, replies and the control frames of the WebSocket library go through the same writer, so their
order is the order of the calls and no frame is cut in two by another.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol

import trio

if sys.platform == "linux":
    import fcntl

#: Key of the connection's writer in the ASGI scope's `state`.
WRITER: Final = "pricefeedd.writer"

#: Most bytes that are joined for one send.
CHUNK_BYTES = 262_144

#: ioctl request for the bytes that the peer has not yet acknowledged (tcp(7) SIOCOUTQ, unix(7)); Linux.
_SIOCOUTQ = 0x5411

#: How often progress is looked for within `stall_s`.
_LOOKS = 10

#: What a write may raise once the connection is of no more use.
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Pusher(Protocol):
    """What a reader writes its frames to."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait to be sent."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether something waits to be sent."""
        ...

    def push(self, frames: list[bytes]) -> bool:
        """Send what can be sent now, keep the rest in order; return whether nothing waits."""
        ...

    def push_bytes(self, data: bytes) -> bool:
        """Do as `push` for one frame, or several joined already."""
        ...

    async def drain(self) -> None:
        """Wait until all that waited when this was called is sent.

        Raises:
            trio.TooSlowError: The peer took nothing for too long.
            trio.BrokenResourceError: The connection is lost.
        """
        ...

    def discard(self) -> None:
        """Drop what waits, save for a frame already begun."""
        ...

    def abort(self) -> None:
        """Cut the connection, as far as that can be done."""
        ...


def _nobody() -> None:
    """Stand for the reader of a connection that has none."""


class Writer:
    """All bytes of one connection, in the order of the calls.

    Over TLS nothing can be sent without waiting, so there `push` always keeps everything for `drain`.

    Attributes:
        stall_s: Without any progress for so long while something waits, `drain` gives up.
        broken: The connection is lost; what is pushed goes nowhere.
        on_detour: Called when nothing may go straight to the socket any more, because something waits before it.
    """

    __slots__ = (
        "_ended",
        "_fileno",
        "_indirect",
        "_lock",
        "_plain",
        "_queued",
        "_send",
        "_sent",
        "_stream",
        "_waiting",
        "broken",
        "on_detour",
        "stall_s",
    )

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stall_s = 10.0
        self.on_detour: Callable[[], None] = _nobody
        self.broken = False
        self._stream = stream
        self._ended = False
        # Nothing may go straight to the socket: over TLS, or after the last bytes.
        self._indirect = isinstance(stream, trio.SSLStream)
        plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self._plain: trio.SocketStream = plain
        self._fileno = plain.socket.fileno
        # Trio's sockets cannot send without waiting. The one inside can, and raises OSError once it is closed.
        inner: socket.socket | None = getattr(plain.socket, "_sock", None)
        self._send: Callable[[bytes], int] = self._write_fd if inner is None else inner.send
        self._waiting: deque[bytes] = deque()
        self._queued = 0
        self._sent = 0
        self._lock = trio.Lock()

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        """What sends bytes straight to the socket; None while they have to wait for others."""
        return None if self._waiting or self._indirect or self.broken else self._send

    @property
    def waiting(self) -> bool:
        """Whether something waits for the socket."""
        return self._sent < self._queued

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the socket."""
        return self._queued - self._sent

    def push(self, frames: list[bytes]) -> bool:
        """Send what the socket takes now, keep the rest in order; return whether nothing waits.

        On a lost connection everything counts as sent: the reader is about to be released.
        """
        if self._waiting or self._indirect:
            if self.broken or self._ended:
                return True
            self._keep(frames)
            return False
        if len(frames) > 32:
            self._keep(frames)
            return self._write()
        return self.push_bytes(frames[0] if len(frames) == 1 else b"".join(frames))

    def push_bytes(self, data: bytes) -> bool:
        """Do as `push` for one frame, or several joined already."""
        if self._waiting or self._indirect:
            return self.push([data])
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._break()
            return True
        if sent == len(data):
            return True
        self._keep([data[sent:]])
        return False

    def rest(self, data: bytes, sent: int) -> None:
        """Take over what went straight to the socket and did not all leave.

        Args:
            sent: How many bytes did; -1 if the connection is lost.
        """
        if sent < 0:
            self._break()
        else:
            self._keep([data[sent:]])

    async def drain(self) -> None:
        """Wait until all that waited when this was called is sent.

        Raises:
            trio.TooSlowError: The peer took nothing for `stall_s`.
            trio.BrokenResourceError: The connection is lost.
        """
        target = self._queued
        while self._sent < target:
            async with self._lock:
                if self._sent < target:
                    await self._advance()
        if self.broken:
            raise trio.BrokenResourceError("the client is gone")

    async def send_all(self, data: bytes) -> None:
        """Send after what waits already, and wait until it is gone.

        Raises:
            trio.TooSlowError: The peer took nothing for `stall_s`.
            trio.BrokenResourceError: The connection is lost.
        """
        if self.broken or not self.push([data]):
            await self.drain()

    async def send_last(self, data: bytes) -> None:
        """Send like `send_all`; what is pushed from now on goes nowhere. Nothing may follow a close frame.

        Raises:
            trio.TooSlowError: The peer took nothing for `stall_s`.
            trio.BrokenResourceError: The connection is lost.
        """
        sent = self.push([data])
        self._ended = self._indirect = True
        self.on_detour()
        if self.broken or not sent:
            await self.drain()

    def discard(self) -> None:
        """Drop what waits, save for the chunk that was begun: its rest is needed to end a frame."""
        while len(self._waiting) > 1:
            self._sent += len(self._waiting.pop())

    def abort(self) -> None:
        """Cut the connection; whoever reads or writes it hears of that."""
        self._break()
        self._plain.socket.close()

    def _write_fd(self, data: bytes) -> int:
        return os.write(self._fileno(), data)

    def _keep(self, frames: list[bytes]) -> None:
        self.on_detour()
        self._waiting.extend(frames)
        self._queued += sum(map(len, frames))

    def _break(self) -> None:
        self.on_detour()
        self.broken = True
        self._waiting.clear()
        self._sent = self._queued

    def _next_chunk(self) -> bytes:
        """Take the next bytes to send off the queue; small frames are joined."""
        waiting = self._waiting
        chunk = [waiting.popleft()]
        size = len(chunk[0])
        while waiting and size + len(waiting[0]) <= CHUNK_BYTES:
            size += len(waiting[0])
            chunk.append(waiting.popleft())
        return chunk[0] if len(chunk) == 1 else b"".join(chunk)

    def _write(self) -> bool:
        """Send until the socket is full; return whether nothing waits."""
        while self._waiting:
            chunk = self._next_chunk()
            try:
                sent = self._send(chunk)
            except BlockingIOError:
                self._waiting.appendleft(chunk)
                return False
            except OSError:
                self._break()
                return True
            self._sent += sent
            if sent < len(chunk):
                self._waiting.appendleft(chunk[sent:])
                return False
        return True

    async def _advance(self) -> None:
        """Wait for room and use it. The caller holds the lock.

        Raises:
            trio.TooSlowError: The peer took nothing for `stall_s`.
        """
        try:
            if isinstance(self._stream, trio.SSLStream):
                await self._advance_tls(self._stream)
            else:
                await self._until_progress(self._plain.wait_send_all_might_not_block)
                self._write()
        except GONE:
            self._break()

    async def _advance_tls(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        chunk = self._next_chunk()
        try:
            # A TLS record cannot be taken back: an interrupted send leaves the stream of no use.
            await self._until_progress(lambda: stream.send_all(chunk))
        except BaseException:
            self._break()
            raise
        self._sent += len(chunk)

    async def _until_progress(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await, for as long as the peer goes on taking bytes.

        Raises:
            trio.TooSlowError: It took nothing for `stall_s`.
        """
        async with trio.open_nursery() as nursery:
            stalled = False

            async def watch() -> None:
                nonlocal stalled
                least = self._unacknowledged()
                since = trio.current_time()
                while not stalled:
                    # Looked at often: what is under way at the start would pass for progress made at the end.
                    await trio.sleep(self.stall_s / _LOOKS)
                    left = self._unacknowledged()
                    if left < least:
                        least, since = left, trio.current_time()
                    elif trio.current_time() - since >= self.stall_s:
                        stalled = True
                        nursery.cancel_scope.cancel()

            nursery.start_soon(watch, name="stall watch")
            error: BaseException | None = None
            try:
                await wait()
            except GONE as e:
                error = e  # raised below, outside the nursery, which would wrap it in a group
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        if stalled:
            raise trio.TooSlowError

    def _unacknowledged(self) -> int:
        """Return the bytes in the kernel that the peer has not taken; 0 where that cannot be asked."""
        if sys.platform == "linux":
            with suppress(OSError):
                answer = fcntl.ioctl(self._fileno(), _SIOCOUTQ, b"\0" * 4)
                return int(struct.unpack("i", answer)[0])
        return 0


def _frames(data: bytes) -> Iterator[bytes]:
    """Yield the frames that were joined (RFC 6455 section 5.2)."""
    at = 0
    while at < len(data):
        short = data[at + 1]
        head = {126: 4, 127: 10}.get(short, 2)
        end = at + head + (short if head == 2 else int.from_bytes(data[at + 2 : at + head]))
        yield data[at:end]
        at = end


def _payload(frame: bytes) -> bytes:
    """Return the text inside a frame made by `wire.frame` (RFC 6455 section 5.2)."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


class OrdinaryWriter:
    """Sends each frame by the WebSocket library's own call, where the connection's writer cannot be had.

    That is with a hypercorn whose inside is not as we know it: slow, but right.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], *, stall_s: float) -> None:
        self.stall_s = stall_s
        self._send = send
        self._waiting: deque[bytes] = deque()
        self._queued = 0
        self._sent = 0
        self._lock = trio.Lock()

    @property
    def waiting(self) -> bool:
        """Whether something waits for `drain`."""
        return self._sent < self._queued

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for `drain`."""
        return sum(map(len, self._waiting))

    def push(self, frames: list[bytes]) -> bool:
        """Keep everything for `drain`."""
        self._waiting.extend(frames)
        self._queued += len(frames)
        return False

    def push_bytes(self, data: bytes) -> bool:
        """Keep it for `drain`; several frames are taken apart again."""
        return self.push(list(_frames(data)))

    async def drain(self) -> None:
        """Wait until all that waited when this was called is sent.

        Raises:
            trio.TooSlowError: One frame took longer than `stall_s`.
        """
        target = self._queued
        while self._sent < target:
            async with self._lock:
                if self._sent < target:
                    self._sent += 1
                    text = _payload(self._waiting.popleft()).decode()
                    with trio.fail_after(self.stall_s):
                        await self._send(text)

    def discard(self) -> None:
        """Drop what waits."""
        self._sent += len(self._waiting)
        self._waiting.clear()

    def abort(self) -> None:
        """Drop what waits; the connection ends with the handler."""
        self.discard()
