"""The queue on disk: what it confirmed is there, whatever happens to the process or the file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from pricefeedd.errors import SinkOverflowError, SpoolError
from pricefeedd.spool import RECORD_BYTES, Record, Spool

MEBI = 1 << 20


async def opened(path: Path, *, limit_bytes: int = 64 * MEBI, most_pages: int = 0) -> Spool:
    spool = Spool(path, limit_bytes=limit_bytes, most_pages=most_pages)
    await spool.open()
    return spool


def size(path: Path) -> int:
    """Return the bytes of the file, without SQLite's log."""
    return path.stat().st_size


def scribble(path: Path, *, pages: int = 1) -> None:
    """Write nonsense over pages in the middle of the file."""
    with path.open("r+b") as file:
        file.seek(size(path) // 2 // 4096 * 4096)
        file.write(os.urandom(4096 * pages))


def hold(path: Path, data: bytes) -> None:
    """Let the file be something else."""
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sinks" / "queue" / "spool.db"


async def everything(spool: Spool) -> list[Record]:
    return await spool.read(0, 1_000_000)


# --- a queue ------------------------------------------------------------------------------------------------


async def test_what_is_appended_is_read_in_order_until_it_is_done(path: Path) -> None:
    spool = await opened(path)
    assert await spool.append([b"one", b"two"]) == 2
    assert await spool.append([b"three"]) == 3

    assert await spool.read(0, 2) == [Record(1, b"one"), Record(2, b"two")]
    assert await spool.read(2, 2) == [Record(3, b"three")]
    assert await spool.read(3, 2) == []
    assert (spool.count, spool.first, spool.last) == (3, 1, 3)
    assert spool.bytes == len(b"onetwothree") + 3 * RECORD_BYTES

    await spool.done(2)
    assert await everything(spool) == [Record(3, b"three")]
    assert (spool.count, spool.first, spool.last, spool.bytes) == (1, 3, 3, 5 + RECORD_BYTES)
    await spool.close()


async def test_it_stays_over_a_restart_and_no_number_comes_twice(path: Path) -> None:
    spool = await opened(path)
    await spool.append([b"a", b"b", b"c"])
    await spool.done(1)
    await spool.close()
    await spool.close()

    spool = await opened(path)
    assert (spool.count, spool.first, spool.last) == (2, 2, 3)
    assert spool.oldest_ns is not None
    assert [r.data for r in await everything(spool)] == [b"b", b"c"]
    await spool.done(3)
    await spool.close()

    spool = await opened(path)
    assert (spool.count, spool.bytes, spool.first, spool.last, spool.oldest_ns) == (0, 0, 4, 3, None)
    assert await spool.append([b"d"]) == 4
    await spool.close()


async def test_nobody_else_may_read_it(path: Path) -> None:
    spool = await opened(path)
    await spool.append([b"secret"])
    modes = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {folder.stat().st_mode & 0o777 for folder in (path.parent, path.parent.parent)} == {0o700}
    await spool.close()


async def test_two_cannot_have_it_at_once(path: Path) -> None:
    spool = await opened(path)
    await spool.append([b"x"])
    with pytest.raises(SpoolError, match="another process holds it; is pricefeedd running already"):
        await opened(path)
    await spool.close()
    await (await opened(path)).close()


async def test_the_limit_is_said_clearly_and_nothing_of_the_group_is_kept(path: Path) -> None:
    spool = await opened(path, limit_bytes=1000)
    await spool.append([b"x" * 500])
    with pytest.raises(SinkOverflowError, match=r"1 records, 532 bytes, wait already .* spool_bytes = 1000"):
        await spool.append([b"y" * 10, b"z" * 500])
    assert [r.data for r in await everything(spool)] == [b"x" * 500]
    await spool.done(1)
    assert await spool.append([b"y" * 10, b"z" * 500]) == 3
    await spool.close()


async def test_space_comes_back(path: Path) -> None:
    spool = await opened(path)
    for _ in range(20):
        await spool.append([b"x" * 1000] * 1000)
    assert size(path) > 15 * MEBI
    for number in range(0, 20_001, 500):
        await spool.done(number)
    # What is free shows in the file once the log was carried over into it.
    await spool.close()
    assert size(path) < 3 * MEBI


async def test_a_steady_flow_does_not_let_it_grow(path: Path) -> None:
    spool = await opened(path)
    for _ in range(150):
        await spool.done(await spool.append([b"x" * 1000] * 200))
    assert sum(found.stat().st_size for found in path.parent.iterdir()) < 12 * MEBI
    await spool.close()


async def test_a_cancelled_append_is_whole_or_not_at_all(path: Path) -> None:
    spool = await opened(path)
    with trio.move_on_after(0) as scope:
        await spool.append([b"a", b"b"])
    assert scope.cancelled_caught
    assert await everything(spool) == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spool.append, [b"c"] * 1000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()  # it is in its thread, and ends there
    assert spool.count == len(await everything(spool)) == 1000
    await spool.close()


# --- killed, torn, scribbled on -----------------------------------------------------------------------------

WRITER = """
import sys, trio
from pathlib import Path
from pricefeedd.spool import Spool

async def main():
    spool = Spool(Path(sys.argv[1]), limit_bytes=1 << 30)
    await spool.open()
    while True:
        first = spool.last + 1
        last = await spool.append([b"event %d" % n for n in range(first, first + 7)])
        print(last, flush=True)

trio.run(main)
"""


def begin_writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


async def test_what_was_confirmed_survives_kill_9(path: Path) -> None:
    confirmed = 0
    for round_ in range(5):
        writer = begin_writer(path)
        assert writer.stdout is not None
        for _ in range(20 + 17 * round_):
            confirmed = int(await trio.to_thread.run_sync(writer.stdout.readline))
        writer.send_signal(signal.SIGKILL)
        rest = await trio.to_thread.run_sync(writer.communicate)
        confirmed = max([confirmed, *map(int, rest[0].split("\n")[:-1])])

        spool = await opened(path)
        found = await everything(spool)
        assert found == [Record(n, b"event %d" % n) for n in range(1, len(found) + 1)]
        # A group that was written and not confirmed any more may be there, as a whole.
        assert len(found) - confirmed in (0, 7)
        await spool.close()
    assert confirmed > 5 * 20 * 7


def killed_with(path: Path, groups: int) -> None:
    """Leave behind what a process that was killed after so many groups leaves: a file with a log beside it."""
    source = WRITER.replace("while True:", f"for _ in range({groups}):") + "\nimport os; os._exit(9)"
    source = source.replace("trio.run(main)", "").replace("import os;", "import os; trio.run(main);")
    subprocess.run([sys.executable, "-c", source, str(path)], stdout=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("how", ["cut", "cut short", "scribbled"])
async def test_a_torn_last_group_is_left_out_and_the_others_are_there(path: Path, how: str) -> None:
    killed_with(path, 30)
    wal = path.with_name("spool.db-wal")
    data = wal.read_bytes()
    if how == "cut":
        data = data[:-100]
    elif how == "cut short":
        data = data[:-4096]
    else:
        data = data[:-2000] + os.urandom(1000) + data[-1000:]
    wal.write_bytes(data)

    spool = await opened(path)
    found = await everything(spool)
    assert found == [Record(n, b"event %d" % n) for n in range(1, 29 * 7 + 1)]
    assert await spool.append([b"on"]) == 29 * 7 + 1
    assert list(path.parent.glob("*.corrupt-*")) == []
    await spool.close()


@pytest.mark.parametrize("garbage", [b"no database, but longer than a header of one. " * 200, b"\0" * 8192])
async def test_what_is_no_database_is_set_aside(path: Path, garbage: bytes) -> None:
    hold(path, garbage)
    with structlog.testing.capture_logs() as logs:
        spool = await opened(path)
    assert await spool.append([b"x"]) == 1
    await spool.close()
    (aside,) = path.parent.glob("spool.db.corrupt-*Z")
    assert aside.read_bytes() == garbage
    assert [(line["log_level"], line["event"]) for line in logs] == [("error", "spool is broken, begun anew")]


async def test_of_a_broken_file_is_saved_what_can_be(path: Path) -> None:
    spool = await opened(path)
    for number in range(1, 2001):
        if number % 100 == 1:
            await spool.append([b"%d " % n + b"x" * 300 for n in range(number, number + 100)])
    await spool.close()
    scribble(path)

    with structlog.testing.capture_logs() as logs:
        spool = await opened(path)
    found = await everything(spool)
    assert 1900 < len(found) < 2000
    assert all(record.data == b"%d " % record.number + b"x" * 300 for record in found)
    assert [record.number for record in found] == sorted({record.number for record in found})
    assert logs[0]["saved"] == len(found) == spool.count
    assert await spool.append([b"next"]) == 2001
    await spool.close()


async def test_a_file_that_breaks_while_it_is_open_does_not_end_anything(path: Path) -> None:
    spool = await opened(path)
    await spool.append([b"x" * 1000] * 5000)
    await spool.close()
    spool = await opened(path)
    scribble(path, pages=2)
    found = [record for record in await everything(spool) if record.data == b"x" * 1000]
    assert 4900 < len(found) < 5001
    assert await spool.append([b"next"]) == 5001
    await spool.close()


async def test_a_record_whose_checksum_is_wrong_is_passed_over_and_counted(path: Path) -> None:
    spool = await opened(path)
    await spool.append([b"a", b"b", b"c", b"d"])
    await spool.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE record SET data = x'00' WHERE number IN (2, 3)")
    connection.close()

    spool = await opened(path)
    with structlog.testing.capture_logs() as logs:
        assert [record.number for record in await spool.read(1, 1)] == [4]
        assert [record.number for record in await everything(spool)] == [1, 4]
    assert spool.damaged == 2
    assert len(logs) == 1
    await spool.done(4)
    assert (spool.count, spool.bytes) == (0, 0)
    await spool.close()


# --- a full disk --------------------------------------------------------------------------------------------


async def test_a_full_disk_is_said_and_what_was_there_stays(path: Path) -> None:
    spool = await opened(path, most_pages=60)
    kept = 0

    async def until_it_fails() -> None:
        nonlocal kept
        while True:
            kept = await spool.append([b"x" * 1000] * 10)

    with pytest.raises(SpoolError, match=rf"spool {path}: the disk is full"):
        await until_it_fails()
    assert kept > 50
    assert [record.number for record in await everything(spool)] == list(range(1, kept + 1))
    assert (spool.last, spool.count) == (kept, kept)

    await spool.done(kept - 10)
    assert await spool.append([b"y"] * 10) == kept + 10  # nothing was passed over
    await spool.close()


LIMITED = """
import resource, sys, trio
from pathlib import Path
from pricefeedd.errors import SpoolError
from pricefeedd.spool import Spool

async def main():
    spool = Spool(Path(sys.argv[1]), limit_bytes=1 << 30)
    await spool.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    kept = 0
    try:
        while True:
            kept = await spool.append([b"x" * 1000] * 10)
    except SpoolError as e:
        print(kept, len(await spool.read(0, 10_000)), e)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(await spool.append([b"room again"]))

trio.run(main)
"""


async def test_a_write_that_fails_is_said_and_goes_on_when_there_is_room(path: Path) -> None:
    ended = await trio.run_process([sys.executable, "-c", LIMITED, str(path)], capture_stdout=True)
    first, second = ended.stdout.decode().splitlines()
    kept, read, *text = first.split(" ", 2)
    assert kept == read
    assert int(second) == int(kept) + 1
    assert "the disk is full" in text[0]
    assert str(path) in text[0]


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        await opened(tmp_path / "file" / "spool.db")


# --- laws ---------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(st.binary(max_size=40), max_size=5)),
    st.tuples(st.just("read"), st.tuples(st.integers(0, 30), st.integers(1, 10))),
    st.tuples(st.just("done"), st.integers(0, 30)),
    st.tuples(st.just("restart"), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=12))
def test_it_is_a_list_whose_numbers_go_on(steps: list[tuple[str, object]]) -> None:
    async def main(path: Path) -> None:
        limit = 10 * (20 + RECORD_BYTES)
        spool = await opened(path, limit_bytes=limit)
        model: list[Record] = []
        last = 0
        for step, argument in steps:
            if step == "append":
                assert isinstance(argument, list)
                more = sum(len(data) + RECORD_BYTES for data in argument)
                if spool.bytes + more > limit:
                    with pytest.raises(SinkOverflowError):
                        await spool.append(argument)
                else:
                    model += [Record(n, data) for n, data in enumerate(argument, last + 1)]
                    last += len(argument)
                    assert await spool.append(argument) == last
            elif step == "read":
                assert isinstance(argument, tuple)
                after, most = argument
                assert await spool.read(after, most) == [r for r in model if r.number > after][:most]
            elif step == "done":
                assert isinstance(argument, int)
                model = [r for r in model if r.number > argument]
                await spool.done(argument)
            else:
                await spool.close()
                spool = await opened(path, limit_bytes=limit)
            assert spool.count == len(model)
            assert spool.bytes == sum(len(r.data) + RECORD_BYTES for r in model)
            assert spool.first == (model[0].number if model else last + 1)
            assert spool.last == last
        await spool.close()

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder) / "spool.db")
