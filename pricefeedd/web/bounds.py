"""Bounds on what a client may send in one WebSocket message."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from pricefeedd.web import deflate


class Bounds(Extension):
    """Bounds what a client's message may hold, by the length that its frames declare, and inflates it.

    Wsproto asks its extensions about each frame's header before the payload comes. A message that is too large is
    passed over as it comes, and nothing of it is kept.

    Attributes:
        too_large: The message now coming in, or the last one, is larger than allowed.
    """

    name = "pricefeedd-bounds"

    def __init__(self, message_bytes: int, *, inflating: bool) -> None:
        self.too_large = False
        self._most = message_bytes
        self._inflating = inflating
        self._inflater: deflate.Inflater | None = None
        self._control = False
        self._wire_bytes = 0
        self._text_bytes = 0

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        # Called again for the same header while its last bytes are on their way.
        self._control = opcode.iscontrol()
        if rsv.rsv1 and (self._control or opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR
        if not self._control:
            if opcode is not Opcode.CONTINUATION:
                self._inflater = deflate.Inflater() if rsv.rsv1 and self._inflating else None
                self._wire_bytes = self._text_bytes = 0
                self.too_large = False
            if self._wire_bytes + payload_length > self._most:
                self.too_large = True
        return RsvBits(self._inflating, False, False)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        if self._control:
            return data
        self._wire_bytes += len(data)
        if self.too_large:
            return b""
        return data if self._inflater is None else self._inflated(self._inflater.inflate, data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        if self._control or not fin or self._inflater is None or self.too_large:
            return None
        finish, self._inflater = self._inflater.finish, None  # 40 kB that a reader at rest does without
        return self._inflated(finish)

    def _inflated(self, inflate: Callable[..., bytes | None], *data: bytes) -> bytes | CloseReason:
        try:
            text = inflate(*data, self._most - self._text_bytes)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        if text is None:
            return CloseReason.MESSAGE_TOO_BIG
        self._text_bytes += len(text)
        return text
