"""WebSocket frames, read and written without I/O (RFC 6455 section 5).

The decoder takes whatever one read brought and gives back all messages in it: under half a microsecond for a
small frame, where a general parser takes ten times that.
"""

from __future__ import annotations

import secrets
import zlib

from pricefeedd.errors import ConnectionLostError

#: Bytes of a frame that are shown to people, where not all of it can be.
SHOWN_BYTES = 2_000
#: Characters of it that are shown.
SHOWN = 300


def readable(frame: bytes) -> str:
    """Return the beginning of a frame as text for people; what gzip or deflate made of it is undone."""
    for bits in (31, -15) if frame and frame[:1] not in b"{[" else ():
        try:
            return zlib.decompressobj(bits).decompress(frame, SHOWN_BYTES).decode()
        except (zlib.error, UnicodeDecodeError):
            continue
    return frame[:SHOWN_BYTES].decode("utf-8", "replace")


class FrameDecoder:
    """Bytes of a WebSocket server to messages and control frames (RFC 6455 section 5).

    Attributes:
        controls: Control frames seen and not yet taken: (opcode, payload).
        broken: The breach of protocol that was met behind good messages; nothing can be read after it.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self.controls: list[tuple[int, bytes]] = []
        self.broken: ConnectionLostError | None = None
        self._max = max_message_bytes
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 2
        self._parts: list[bytes] | None = None
        self._parts_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the messages that they complete.

        Raises:
            ConnectionLostError: The bytes break the protocol, or a message is larger than allowed.
        """
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks = []
        messages: list[bytes] = []
        try:
            self._split(data, messages)
        except ConnectionLostError as e:
            if not messages:
                raise
            self.broken = e
        return messages

    def _split(self, data: bytes, messages: list[bytes]) -> None:
        """Cut the bytes into frames, and keep what is left for the next time."""
        at = 0
        end = len(data)
        need = 2
        while end - at >= 2:
            head = data[at]
            size = data[at + 1]
            start = at + 2
            if size >= 126:
                if size > 127:
                    raise ConnectionLostError("the venue sent a masked frame")
                start += 2 if size == 126 else 8
                if start > end:
                    need = start - at
                    break
                short = size == 126
                size = data[at + 2] << 8 | data[at + 3] if short else int.from_bytes(data[at + 2 : start])
                if size > self._max:
                    raise ConnectionLostError(f"a message of {size} bytes is larger than {self._max} allowed")
            stop = start + size
            if stop > end:
                need = stop - at
                break
            payload = data[start:stop]
            at = stop
            if (head == 0x81 or head == 0x82) and self._parts is None:
                messages.append(payload)
            else:
                self._uncommon(head, payload, messages)
        if at < end:
            rest = data[at:]
            self._chunks = [rest]
            self._have = len(rest)
            self._need = need

    def _uncommon(self, head: int, payload: bytes, messages: list[bytes]) -> None:
        """Take a control frame or a piece of a fragmented message."""
        if head & 0x70:
            raise ConnectionLostError("the venue sent a frame with reserved bits that we did not agree to")
        opcode = head & 0x0F
        if opcode >= 8:
            if opcode > 10 or not head & 0x80 or len(payload) > 125:
                raise ConnectionLostError(f"the venue sent a broken control frame (opcode {opcode})")
            self.controls.append((opcode, payload))
            return
        if (opcode == 0) == (self._parts is None) or opcode > 2:
            raise ConnectionLostError(f"the venue sent a frame out of order (opcode {opcode})")
        if self._parts is None:
            self._parts = []
            self._parts_bytes = 0
        self._parts.append(payload)
        self._parts_bytes += len(payload)
        if self._parts_bytes > self._max:
            raise ConnectionLostError(f"a message is larger than {self._max} bytes allowed")
        if head & 0x80:
            messages.append(b"".join(self._parts))
            self._parts = None


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """Return one frame as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8)
    mask = secrets.token_bytes(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return head + mask + (int.from_bytes(payload) ^ key).to_bytes(size)
