"""Compressed frames that are each complete in themselves, and what is agreed about them."""

from __future__ import annotations

import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from pricefeedd import wire
from pricefeedd.web.bounds import Bounds
from pricefeedd.web.deflate import ANSWER, Deflater, Inflater, agree, deflated, frame_deflated


def payload(frame: bytes) -> bytes:
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def inflated(frame: bytes) -> bytes:
    """Return the text of a frame, as a reader that knows no other frame gets it."""
    if frame[0] == 0x81:
        return payload(frame)
    assert frame[0] == 0xC1
    return zlib.decompressobj(-15).decompress(payload(frame) + b"\x00\x00\xff\xff")


@given(st.lists(st.binary(max_size=5000) | st.integers(1, 3000).map(lambda n: b'{"a":1}' * n), max_size=8))
def test_each_frame_stands_for_itself(texts: list[bytes]) -> None:
    deflater = Deflater()
    for text in texts:
        frame = deflater.frame(text)
        assert inflated(frame) == text
        assert len(frame) <= len(wire.frame(text))


def test_what_does_not_shrink_stays_plain() -> None:
    for text in (b"", b"{}", os.urandom(1000)):
        assert frame_deflated(text) == wire.frame(text)
    assert len(frame_deflated(b'{"price":"1.0"}' * 100)) < 100


@pytest.mark.parametrize("level", [1, 6, 9])
def test_levels(level: int) -> None:
    text = b",".join(b'["65000.%02d","0.%05d"]' % (i, i * 7919 % 99_999) for i in range(100))
    assert inflated(Deflater(level).frame(text)) == text


def test_a_form_is_shared() -> None:
    assert deflated(wire.NATIVE) is deflated(wire.NATIVE)
    assert deflated(wire.NATIVE).encode is wire.encode


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", ANSWER),
        ("permessage-deflate; client_max_window_bits", ANSWER),
        ("permessage-deflate; client_max_window_bits=8; server_no_context_takeover", ANSWER),
        ("permessage-deflate; client_no_context_takeover", ANSWER),
        ("permessage-deflate; server_max_window_bits=15", ANSWER + "; server_max_window_bits=15"),
        ('permessage-deflate; server_max_window_bits="15"', ANSWER + "; server_max_window_bits=15"),
        ("x-webkit-deflate-frame, permessage-deflate", ANSWER),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", ANSWER),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=x", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
        ("permessage-deflate; unknown", None),
        ("x-webkit-deflate-frame", None),
        ("", None),
        (";;,=,", None),
    ],
)
def test_offers(offer: str, answer: str | None) -> None:
    assert agree([offer.encode()]) == (None if answer is None else answer.encode())


def test_offers_in_several_headers() -> None:
    assert agree([b"other", b"permessage-deflate"]) == ANSWER.encode()
    assert agree([]) is None


def test_nothing_is_kept_between_messages() -> None:
    """An inflater is 40 kB, which a thousand readers at rest should not hold."""
    bounds = Bounds(1000, inflating=True)
    connection = Connection(ConnectionType.SERVER, [bounds])
    small = Deflater().frame(b"x" * 500)[2:]
    for first, data, wanted in (
        (0xC1, small, "x" * 500),
        (0x81, b"plain", "plain"),
        (0xC1, small, "x" * 500),
    ):
        connection.receive_data(bytes([first, 0x80 | len(data)]) + bytes(4) + data)
        texts = [event.data for event in connection.events() if isinstance(event, TextMessage)]
        assert "".join(texts) == wanted
        assert bounds._inflater is None


def test_inflating_is_bounded() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = bomb.compress(bytes(50 << 20)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert Inflater().inflate(data, 1000) is None
    exactly = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = exactly.compress(b"x" * 1000) + exactly.flush(zlib.Z_SYNC_FLUSH)
    assert Inflater().inflate(data, 1000) == b"x" * 1000
    assert Inflater().inflate(data, 999) is None
    with pytest.raises(zlib.error):
        Inflater().inflate(b"\xff\xff\xff", 1000)
