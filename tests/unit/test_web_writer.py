"""The writer on a socket pair: order, fullness, stalls and loss."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from pricefeedd.web.writer import OrdinaryWriter, Writer
from pricefeedd.wire import frame


def pair() -> tuple[Writer, trio.SocketStream, trio.SocketStream]:
    ours, theirs = (trio.SocketStream(s) for s in trio.socket.socketpair())
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    return Writer(ours), ours, theirs


async def read(stream: trio.SocketStream, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += await stream.receive_some(65_536)
    return got


async def test_what_fits_leaves_at_once() -> None:
    writer, ours, theirs = pair()
    async with ours, theirs:
        assert writer.push([b"one"])
        assert writer.push([b"two", b"three"])
        assert writer.waiting_bytes == 0
        await writer.drain()
        assert await read(theirs, 11) == b"onetwothree"


async def test_what_does_not_fit_waits_in_order_with_what_the_library_sends() -> None:
    writer, ours, theirs = pair()
    async with ours, theirs, trio.open_nursery() as nursery:
        frames = [bytes([65 + i % 26]) * 1000 for i in range(200)]
        assert not writer.push(frames)
        assert not writer.push([b"later"])
        nursery.start_soon(writer.send_all, b"control")
        await trio.testing.wait_all_tasks_blocked()
        assert not writer.push([b"last"])
        nursery.start_soon(writer.drain)
        wanted = b"".join(frames) + b"latercontrollast"
        assert await read(theirs, len(wanted)) == wanted
    assert writer.waiting_bytes == 0


async def test_nothing_follows_the_last_bytes() -> None:
    writer, ours, theirs = pair()
    async with ours, theirs:
        await writer.send_last(b"close")
        assert writer.push([b"too late"])
        await writer.send_all(b"too late")
        assert not writer.waiting
        await ours.send_eof()
        assert await read(theirs, 5) == b"close"
        assert await theirs.receive_some() == b""


async def test_nothing_follows_the_last_bytes_that_wait() -> None:
    writer, ours, theirs = pair()
    async with ours, theirs, trio.open_nursery() as nursery:
        assert not writer.push([b"x" * 300_000])
        nursery.start_soon(writer.send_last, b"close")
        await trio.testing.wait_all_tasks_blocked()
        assert writer.waiting
        assert writer.push([b"too late"])
        assert await read(theirs, 300_005) == b"x" * 300_000 + b"close"
    assert not writer.waiting


async def test_progress_at_the_start_does_not_pass_for_progress_at_the_end() -> None:
    """A peer that takes something and then nothing is given up soon after `stall_s`, not after twice that."""
    writer, ours, theirs = pair()
    writer.stall_s = 0.5
    async with ours, theirs, trio.open_nursery() as nursery:
        writer.push([b"x" * 300_000])
        began = trio.current_time()

        async def once() -> None:
            await trio.sleep(0.1)
            await theirs.receive_some(10_000)

        nursery.start_soon(once)
        with pytest.raises(trio.TooSlowError):
            await writer.drain()
        assert 0.5 <= trio.current_time() - began < 0.95


async def test_a_peer_that_takes_nothing_is_told_apart_from_a_slow_one() -> None:
    writer, ours, theirs = pair()
    writer.stall_s = 0.2
    async with ours, theirs, trio.open_nursery() as nursery:
        writer.push([b"x" * 300_000])

        async def slowly() -> None:
            for _ in range(12):  # longer than stall_s in all, never so long without progress
                await theirs.receive_some(3_000)
                await trio.sleep(0.05)

        nursery.start_soon(slowly)
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await writer.drain()
        assert trio.current_time() - began > 0.6


async def test_discard_keeps_the_chunk_that_was_begun() -> None:
    writer, ours, theirs = pair()
    async with ours, theirs:
        begun = b"a" * 100_000
        assert not writer.push([begun])
        writer.push([b"b" * 1000, b"c" * 1000])
        writer.discard()
        writer.push([b"bye"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.drain)
            assert await read(theirs, len(begun) + 3) == begun + b"bye"


async def test_on_a_lost_connection_nothing_waits() -> None:
    writer, ours, theirs = pair()
    await theirs.aclose()
    async with ours:
        assert writer.push([b"x"])
        assert writer.broken
        assert writer.push([b"y"])
        with pytest.raises(trio.BrokenResourceError):
            await writer.send_all(b"z")


async def test_a_cut_wakes_who_waits() -> None:
    writer, ours, theirs = pair()
    async with theirs, trio.open_nursery() as nursery:
        writer.push([b"x" * 300_000])

        async def wait() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await writer.drain()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        writer.abort()
    assert ours.socket.fileno() == -1


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
async def test_the_ordinary_writer_sends_the_text_of_each_frame(size: int) -> None:
    sent: list[str] = []

    async def send(text: str) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(text)

    writer = OrdinaryWriter(send, stall_s=1)
    assert not writer.push([frame(b"x" * size), frame("ü".encode())])
    await writer.drain()
    assert sent == ["x" * size, "ü"]


async def test_the_ordinary_writer_gives_up_on_a_stall(autojump_clock: trio.testing.MockClock) -> None:
    async def send(text: str) -> None:
        await trio.sleep_forever()

    writer = OrdinaryWriter(send, stall_s=10)
    writer.push([frame(b"x")])
    with pytest.raises(trio.TooSlowError):
        await writer.drain()
