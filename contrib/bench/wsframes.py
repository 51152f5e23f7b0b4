"""The little of RFC 6455 that the bench needs, on plain bytes and sockets: no library is measured by accident."""

from __future__ import annotations

import base64
import hashlib
import os
import socket

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return one frame as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2) + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8) + payload


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return one frame as a client sends it; the mask is all zeros, which the protocol allows."""
    frame = bytearray(server_frame(payload, opcode))
    frame[1] |= 0x80
    head = len(frame) - len(payload)
    return bytes(frame[:head]) + bytes(4) + payload


def accept_key(key: str) -> str:
    """Return the answer to a client's `Sec-WebSocket-Key`."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the whole frames in the bytes as (opcode, payload), unmasked, and what is left of them."""
    found = []
    at = 0
    while len(data) - at >= 2:
        opcode = data[at] & 0x0F
        masked = data[at + 1] & 0x80
        size = data[at + 1] & 0x7F
        start = at + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            if start > len(data):
                break
            size = int.from_bytes(data[at + 2 : start])
        stop = start + size + (4 if masked else 0)
        if stop > len(data):
            break
        payload = data[start:stop]
        if masked:
            mask, body = payload[:4], payload[4:]
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))
        found.append((opcode, payload))
        at = stop
    return found, data[at:]


def connect(host: str, port: int, path: str) -> tuple[socket.socket, bytes]:
    """Open a WebSocket and return its socket, still blocking, and the bytes that came behind the handshake.

    Raises:
        ConnectionError: The server did not accept it.
    """
    sock = socket.create_connection((host, port), timeout=10)
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            break
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    if b" 101 " not in head.split(b"\r\n", 1)[0] + b" ":
        raise ConnectionError(f"handshake refused: {head[:200]!r}")
    return sock, rest
