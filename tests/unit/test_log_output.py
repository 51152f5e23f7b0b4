"""The thread that writes the log: nobody who logs waits, whatever the reader of the log does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from pricefeedd.logs.output import Output


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: what reads it, and the stream that leads into it."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
        os.close(reader)


def read_all(reader: int, until: Callable[[bytes], bool]) -> bytes:
    """Read until what came so far is enough."""
    data = b""
    while not until(data):
        data += os.read(reader, 65_536)
    return data


def test_lines_are_written_in_order(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    output = Output(stream)
    for number in range(1000):
        output.put(f"line {number}")
    data = read_all(reader, lambda data: data.endswith(b"line 999\n"))
    assert data.decode().splitlines() == [f"line {number}" for number in range(1000)]
    assert output.flush(5)
    output.close()
    assert output.dropped == 0


def test_a_reader_that_stops_reading_delays_nobody(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    output = Output(stream, limit_bytes=100_000, excuse=lambda dropped: f"{dropped} dropped")
    line = "x" * 999
    slowest = 0.0
    for _ in range(2000):  # 2 MB; the kernel takes 64 kB of them
        began = time.monotonic()
        output.put(line)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 0.5
    assert 1800 < output.dropped < 2000
    assert not output.flush(0.05)

    dropped = output.dropped
    data = read_all(reader, lambda data: b"dropped\n" in data)
    *lines, excuse = data.decode().splitlines()
    assert excuse == f"{dropped} dropped"
    assert len(lines) + dropped == 2000
    assert set(lines) == {line}
    output.put("it goes on")
    assert read_all(reader, lambda data: data.endswith(b"\n")) == b"it goes on\n"
    output.close()


def test_the_end_waits_no_longer_than_it_may(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    output = Output(stream)
    output.put("x" * 200_000)
    began = time.monotonic()
    output.close(0.2)
    assert time.monotonic() - began < 2
    output.put("after the end")
    assert output.dropped == 1


def test_a_stream_that_is_broken_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        output = Output(stream)
        output.put("nobody")
        assert output.flush(5)
        output.put("reads this")
        assert output.flush(5)
    assert output.dropped == 2
    output.put("and now it is closed")
    assert output.flush(5)
    assert output.dropped == 3
    output.close()


def test_a_stream_closed_before_is_none(tmp_path: Path) -> None:
    stream = (tmp_path / "log").open("w")
    stream.close()
    for output in (Output(stream), Output(None)):
        output.put("nobody")
        assert output.flush(1)
        output.close()


def test_a_stream_that_others_made_nonblocking_is_waited_for(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    os.set_blocking(stream.fileno(), False)
    output = Output(stream)
    output.put("x" * 300_000)
    data = read_all(reader, lambda data: data.endswith(b"\n"))
    assert len(data) == 300_001
    assert output.flush(5)
    output.close()


def test_chores_are_done_when_they_are_due(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    done = threading.Event()
    times: list[float] = []

    def chores() -> float | None:
        times.append(time.monotonic())
        if len(times) == 3:
            done.set()
        return 0.05 if len(times) < 3 else None

    output = Output(stream, chores=chores)
    output.wake()
    assert done.wait(5)
    assert times[2] - times[0] >= 0.05
    output.close()


async def test_the_thread_ends_with_the_output(
    pipe: tuple[int, TextIO], eventually: Callable[..., Awaitable[None]]
) -> None:
    reader, stream = pipe
    before = set(threading.enumerate())
    output = Output(stream)
    output.put("last")
    (thread,) = [new for new in threading.enumerate() if new not in before and new.name == "log"]
    output.close(5)
    assert os.read(reader, 100) == b"last\n"
    await eventually(lambda: not thread.is_alive(), within_s=5)
