"""Bytes of a WebSocket server to messages, against wsproto as the other side."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Iterable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from pricefeedd.errors import ConnectionLostError
from pricefeedd.frames import FrameDecoder, masked_frame
from pricefeedd.transport import WebSocket

LIMIT = 1 << 20

payloads = st.one_of(
    st.binary(max_size=20),
    st.sampled_from((0, 1, 124, 125, 126, 127, 128, 65535, 65536, 65537)).map(lambda size: b"x" * size),
)


def server() -> Connection:
    return Connection(ConnectionType.SERVER)


def fed(decoder: FrameDecoder, data: bytes, cuts: Iterable[int] = ()) -> list[bytes]:
    """Feed the bytes in the parts that the cuts make."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    messages = []
    for start, stop in itertools.pairwise(edges):
        messages += decoder.feed(data[start:stop])
    return messages


def frame(head: int, payload: bytes = b"") -> bytes:
    """Return an unmasked frame with any first byte, in the shortest form."""
    size = len(payload)
    if size < 126:
        return bytes((head, size)) + payload
    if size < 65536:
        return bytes((head, 126)) + struct.pack("!H", size) + payload
    return bytes((head, 127)) + struct.pack("!Q", size) + payload


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[bytes], list[tuple[int, bytes]]]:
    """Bytes of a server that sends whole and fragmented messages with control frames between the parts."""
    theirs = server()
    data = b""
    messages: list[bytes] = []
    controls: list[tuple[int, bytes]] = []

    def control() -> bytes:
        payload = draw(st.binary(max_size=125))
        ping = draw(st.booleans())
        controls.append((9 if ping else 10, payload))
        return theirs.send(Ping(payload=payload) if ping else Pong(payload=payload))

    for payload in draw(st.lists(payloads, max_size=6)):
        pieces = draw(st.integers(1, 4))
        size = len(payload) // pieces + 1
        parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for index, part in enumerate(parts):
            data += theirs.send(BytesMessage(data=part, message_finished=index == len(parts) - 1))
            if draw(st.booleans()):
                data += control()
        messages.append(payload)
    return data, messages, controls


@given(conversations(), st.lists(st.integers(0, 1000), max_size=8), st.booleans())
def test_any_chunking_gives_the_same_messages(
    talk: tuple[bytes, list[bytes], list[tuple[int, bytes]]], cuts: list[int], single_bytes: bool
) -> None:
    data, messages, controls = talk
    decoder = FrameDecoder(LIMIT)
    came = fed(decoder, data, range(min(len(data), 400)) if single_bytes else cuts)
    assert came == messages
    assert decoder.controls == controls
    assert decoder.broken is None


def test_text_and_binary_frames_both_come_as_bytes() -> None:
    theirs = server()
    data = theirs.send(TextMessage(data="€")) + theirs.send(BytesMessage(data=b"\x1f\x8b"))
    assert FrameDecoder(LIMIT).feed(data) == ["€".encode(), b"\x1f\x8b"]


@pytest.mark.parametrize("size", [0, 125, 126, 127, 65535, 65536, 70000])
def test_each_form_of_length_is_read_at_its_edges(size: int) -> None:
    data = server().send(BytesMessage(data=b"a" * size))
    for cuts in ((), (1,), (2,), (3,), (4,), (9,), (10,), (11,)):
        assert fed(FrameDecoder(LIMIT), data, cuts) == [b"a" * size]


def test_a_message_as_large_as_allowed_passes_and_one_byte_more_does_not() -> None:
    assert FrameDecoder(1000).feed(frame(0x82, b"a" * 1000)) == [b"a" * 1000]
    with pytest.raises(ConnectionLostError, match="1001 bytes is larger than 1000"):
        FrameDecoder(1000).feed(frame(0x82, b"a" * 1001))


def test_an_oversized_message_is_refused_by_its_head_alone() -> None:
    with pytest.raises(ConnectionLostError, match="larger"):
        FrameDecoder(1000).feed(b"\x82\x7f" + struct.pack("!Q", 1 << 62))


def test_fragments_are_summed_up_against_the_limit() -> None:
    decoder = FrameDecoder(1000)
    assert decoder.feed(frame(0x02, b"a" * 600)) == []
    with pytest.raises(ConnectionLostError, match="larger than 1000"):
        decoder.feed(frame(0x80, b"a" * 600))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x81\x85\x00\x00\x00\x00hello", "masked"),
        (frame(0xC1, b"deflated"), "reserved bits"),
        (frame(0xA1, b"x"), "reserved bits"),
        (frame(0x91, b"x"), "reserved bits"),
        (frame(0xC9, b"x"), "reserved bits"),
        (frame(0x83, b"x"), "out of order .opcode 3"),
        (frame(0x87, b"x"), "out of order .opcode 7"),
        (frame(0x8B, b"x"), "broken control frame .opcode 11"),
        (frame(0x8F, b"x"), "broken control frame .opcode 15"),
        (frame(0x09, b"x"), "broken control frame .opcode 9"),
        (frame(0x89, b"x" * 126), "broken control frame .opcode 9"),
        (frame(0x80, b"x"), "out of order .opcode 0"),
        (frame(0x01, b"x") + frame(0x81, b"y"), "out of order .opcode 1"),
        (frame(0x01, b"x") + frame(0x02, b"y"), "out of order .opcode 2"),
    ],
)
def test_a_breach_of_protocol_ends_the_connection(data: bytes, reason: str) -> None:
    with pytest.raises(ConnectionLostError, match=reason):
        FrameDecoder(LIMIT).feed(data)


def test_a_breach_behind_good_messages_is_kept_for_later() -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(frame(0x81, b"good") + frame(0x83, b"bad")) == [b"good"]
    assert "opcode 3" in str(decoder.broken)


def test_a_close_behind_good_messages_is_a_control_frame() -> None:
    theirs = server()
    data = theirs.send(TextMessage(data="last words")) + theirs.send(
        CloseConnection(code=1001, reason="restart")
    )
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(data) == [b"last words"]
    assert decoder.controls == [(8, struct.pack("!H", 1001) + b"restart")]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
def test_any_bytes_give_messages_or_the_connections_end(data: bytes, cuts: list[int]) -> None:
    try:
        messages = fed(FrameDecoder(1000), data, cuts)
    except ConnectionLostError:
        return
    assert sum(map(len, messages)) <= len(data)


@given(payloads, st.sampled_from((1, 2, 9, 10)))
def test_wsproto_reads_our_frames(payload: bytes, opcode: int) -> None:
    if opcode > 2:
        payload = payload[:125]
    elif opcode == 1:
        payload = payload.hex().encode()
    theirs = server()
    theirs.receive_data(masked_frame(opcode, payload))
    came = list(theirs.events())
    if opcode <= 2:
        whole = [event.data for event in came if isinstance(event, TextMessage | BytesMessage)]
        assert b"".join(w.encode() if isinstance(w, str) else bytes(w) for w in whole) == payload
        assert {type(event) for event in came} == {TextMessage if opcode == 1 else BytesMessage}
    else:
        (event,) = came
        assert isinstance(event, Ping if opcode == 9 else Pong)
        assert bytes(event.payload) == payload


def test_each_frame_of_ours_has_a_mask_of_its_own() -> None:
    assert len({masked_frame(1, b"the same words") for _ in range(20)}) == 20


def test_a_large_message_in_small_chunks_costs_in_proportion() -> None:
    """5 MB that dribble in by 4 kB: joined once, not once for each read."""
    data = frame(0x82, bytes(5 << 20))
    chunks = [data[at : at + 4096] for at in range(0, len(data), 4096)]

    def decode() -> None:
        decoder = FrameDecoder(64 << 20)
        messages = [message for chunk in chunks for message in decoder.feed(chunk)]
        assert [len(message) for message in messages] == [5 << 20]

    def join_at_each_read() -> None:
        buffer = b""
        for chunk in chunks:
            buffer = b"".join((buffer, chunk))

    def cost(work: Callable[[], None]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    assert min(cost(decode) for _ in range(5)) < 0.2 * cost(join_at_each_read)


# --- the same through WebSocket, which answers -------------------------------------------------------------


async def test_what_came_before_a_close_is_delivered_and_then_the_end_is_told() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    socket = WebSocket(ours, max_message_bytes=LIMIT, early=b"")
    speaker = server()
    await theirs.send_all(
        speaker.send(TextMessage(data="one"))
        + speaker.send(Ping(payload=b"alive?"))
        + speaker.send(TextMessage(data="two"))
        + speaker.send(CloseConnection(code=1012, reason="restart"))
        + b"\xff\xffnot a frame"
    )
    assert await socket.receive() == [b"one", b"two"]
    with pytest.raises(ConnectionLostError, match="closed by the venue: 1012 restart"):
        await socket.receive()
    speaker.receive_data(bytes(await theirs.receive_some()))
    pong, closed = speaker.events()
    assert isinstance(pong, Pong)
    assert bytes(pong.payload) == b"alive?"
    assert isinstance(closed, CloseConnection)
    assert closed.code == 1012
    await socket.aclose()


async def test_messages_survive_a_pong_that_nobody_takes() -> None:
    """A venue that sends its last trades, pings and is gone: the trades count."""
    ours, theirs = trio.testing.memory_stream_pair()
    socket = WebSocket(ours, max_message_bytes=LIMIT, early=b"")
    speaker = server()
    await theirs.send_all(speaker.send(TextMessage(data="last trade")) + speaker.send(Ping()))
    assert isinstance(ours, trio.StapledStream)
    await ours.send_stream.aclose()
    assert await socket.receive() == [b"last trade"]
    with pytest.raises(ConnectionLostError, match="cut"):
        await socket.receive()
    await socket.aclose()


async def test_an_end_without_a_close_frame_is_told() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    socket = WebSocket(ours, max_message_bytes=LIMIT, early=b"")
    await theirs.send_eof()
    with pytest.raises(ConnectionLostError, match="without a close frame"):
        await socket.receive()
    await socket.aclose()
    await socket.aclose()


async def test_messages_before_a_breach_are_delivered() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    socket = WebSocket(ours, max_message_bytes=LIMIT, early=b"")
    await theirs.send_all(frame(0x81, b"good") + frame(0xC1, b"compressed"))
    assert await socket.receive() == [b"good"]
    with pytest.raises(ConnectionLostError, match="reserved bits"):
        await socket.receive()
    await socket.aclose()
