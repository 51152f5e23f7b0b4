"""The record, read back from its files."""

from __future__ import annotations

import errno
import gzip
import math
import os
import resource
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
import trio.testing
import zstandard

from pricefeedd.events import Event, Trade
from pricefeedd.hookspecs import Delivery, KeptLane, SinkReport
from pricefeedd_jsonl.settings import JsonlSettings
from pricefeedd_jsonl.sink import Recorder

#: 2026-11-21 14:00 UTC.
TWO = int(datetime(2026, 11, 21, 14, tzinfo=UTC).timestamp())
TOPIC = "trade:binance:BTC-USDT"
READERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(),
}
SUFFIX = {"none": "", "gzip": ".gz", "zstd": ".zst"}


@attrs.frozen(kw_only=True)
class Said:
    """A message as readers get it."""

    topic: str = TOPIC
    seq: int
    event: Event
    text: bytes


class FilledLanes:
    """What a sink is given, filled by the test."""

    section = "jsonl"
    epoch = "e1"
    kept: KeptLane | None = None

    def __init__(self, folder: Path) -> None:
        self.report = SinkReport()
        self.most = math.inf
        self.state_dir = folder
        self._send, self._receive = trio.open_memory_channel[Sequence[Delivery]](1000)
        self._seq = 0

    def may_send(self) -> bool:
        """Say yes so many times as the test wants."""
        self.most -= 1
        return self.most >= 0

    async def receive(self) -> Sequence[Delivery]:
        return await self._receive.receive()

    def end(self) -> None:
        self._send.close()

    def put(self, *seconds: float, size: int = 0) -> None:
        """Let a batch wait, of one message received at each of these times."""
        batch = []
        for second in seconds:
            self._seq += 1
            event = Trade(
                venue="binance",
                instrument="BTC-USDT",
                received_ns=int(second * 1e9),
                id=None,
                price="1",
                size="1",
                aggressor=None,
            )
            text = orjson.dumps({"seq": self._seq, "at": second, "x": os.urandom(size // 2).hex()})
            batch.append(Said(seq=self._seq, event=event, text=text))
        self._send.send_nowait(batch)


@attrs.frozen
class Running:
    """A sink that runs."""

    lanes: FilledLanes
    folder: Path
    ended: trio.Event

    @property
    def report(self) -> SinkReport:
        return self.lanes.report

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is true: what is done in a thread has no event here."""
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110  # see above
                await trio.sleep(0.01)

    async def written(self, count: int) -> None:
        """Wait until so many messages are on the disk."""
        await self.until(lambda: self.report.delivered >= count)

    async def end(self) -> None:
        """End the lanes, and wait for the sink to return."""
        self.lanes.end()
        with trio.fail_after(5):
            await self.ended.wait()

    def files(self) -> list[str]:
        """Return the names of the files, below the directory."""
        return sorted(
            path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()
        )

    def seqs(self, name: str, compression: str = "none") -> list[int]:
        """Return the numbers in a file."""
        lines = READERS[compression]((self.folder / name).read_bytes()).splitlines()
        return [orjson.loads(line)["seq"] for line in lines]


Begin = Callable[..., Awaitable[Running]]


@pytest.fixture
async def record(nursery: trio.Nursery, tmp_path: Path) -> Begin:
    """Return a function that runs a sink with these settings."""

    async def begin(**settings: Any) -> Running:
        lanes = FilledLanes(tmp_path)
        running = Running(lanes, tmp_path / "jsonl", trio.Event())

        async def run() -> None:
            await Recorder(JsonlSettings(**{"flush_s": 0.02} | settings), lanes).run()
            running.ended.set()

        nursery.start_soon(run)
        await running.until(lambda: lanes.report.state != "connecting")
        return running

    return begin


@pytest.mark.parametrize("compression", READERS)
async def test_each_line_is_the_message_with_its_epoch_in_the_hour_that_it_was_received(
    record: Begin, compression: str
) -> None:
    sink = await record(compression=compression)
    sink.lanes.put(TWO - 1, TWO - 0.001, TWO, TWO + 1)
    sink.lanes.put(TWO + 3600)
    await sink.end()
    end = f".jsonl{SUFFIX[compression]}"

    assert sink.files() == [f"2026-11-21/{hour}{end}" for hour in (13, 14, 15)]
    assert [sink.seqs(name, compression) for name in sink.files()] == [[1, 2], [3, 4], [5]]
    line = READERS[compression]((sink.folder / f"2026-11-21/15{end}").read_bytes())
    assert orjson.loads(line) == {"seq": 5, "at": TWO + 3600, "x": "", "epoch": "e1"}
    assert (sink.report.delivered, sink.report.waiting, sink.report.dropped) == (5, 0, {})


@pytest.mark.parametrize("compression", READERS)
async def test_a_file_can_be_read_while_it_is_written(record: Begin, compression: str) -> None:
    sink = await record(compression=compression)
    name = f"2026-11-21/14.jsonl{SUFFIX[compression]}"
    for count in (1, 2, 3):
        sink.lanes.put(TWO)
        await sink.written(count)
        assert sink.seqs(name, compression) == list(range(1, count + 1))


async def test_stragglers_go_to_the_hour_that_is_theirs(record: Begin) -> None:
    sink = await record()
    for second in (TWO - 1, TWO + 1, TWO - 0.5, TWO + 2):
        sink.lanes.put(second)
        await sink.written(sink.lanes._seq)

    assert sink.files() == ["2026-11-21/13.jsonl", "2026-11-21/14.jsonl"]
    assert sink.seqs("2026-11-21/13.jsonl") == [1, 3]


async def test_only_a_few_files_are_open_at_a_time(record: Begin) -> None:
    sink = await record()
    for hour in range(6):
        sink.lanes.put(TWO + 3600 * hour)
        await sink.written(hour + 1)

    assert sink.report.gauges["open_files"] == 3


@pytest.mark.parametrize("compression", READERS)
async def test_a_restart_goes_on_in_another_part_and_leaves_a_torn_one_alone(
    record: Begin, compression: str
) -> None:
    sink = await record(compression=compression)
    sink.lanes.put(TWO)
    await sink.end()
    end = f".jsonl{SUFFIX[compression]}"
    first = sink.folder / f"2026-11-21/14{end}"
    torn = first.read_bytes() + b"torn"
    first.write_bytes(torn)
    for part in (1, 2):
        again = await record(compression=compression)
        again.lanes.put(TWO + 1)
        await again.end()
        assert again.seqs(f"2026-11-21/14.{part}{end}", compression) == [1]

    assert first.read_bytes() == torn


async def test_a_file_that_is_taken_away_is_begun_anew(record: Begin) -> None:
    sink = await record()
    sink.lanes.put(TWO)
    await sink.written(1)
    (sink.folder / "2026-11-21/14.jsonl").unlink()
    sink.lanes.put(TWO)
    await sink.written(2)

    assert sink.seqs("2026-11-21/14.jsonl") == [2]


@pytest.mark.parametrize("compression", READERS)
async def test_a_full_disk_is_said_and_waited_for_and_nothing_is_torn(
    record: Begin, compression: str
) -> None:
    sink = await record(compression=compression)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    name = f"2026-11-21/14.jsonl{SUFFIX[compression]}"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        for _ in range(8):
            sink.lanes.put(TWO, size=30_000)
            await trio.sleep(0.03)
        await sink.until(lambda: sink.report.state == "down")
        assert sink.report.reason == "cannot write: File too large"
        assert sink.report.waiting > 0
        whole = sink.seqs(name, compression)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await sink.until(lambda: sink.report.state == "up")
    await sink.written(8)

    assert whole == list(range(1, len(whole) + 1))
    assert sink.seqs(name, compression) == list(range(1, 9))
    assert (sink.report.waiting, sink.report.dropped) == (0, {})
    assert sink.files() == [name]


async def test_what_a_disk_takes_only_in_part_is_cut_off(
    record: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await record()
    real, full = os.write, [True]

    def write(descriptor: int, data: Any) -> int:
        if len(data) < 1_000 or not full:
            return real(descriptor, data)
        if len(data) < 9_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:2_000])

    monkeypatch.setattr(os, "write", write)
    sink.lanes.put(TWO)
    await sink.written(1)
    sink.lanes.put(TWO, size=10_000)
    await sink.until(lambda: sink.report.state == "down")
    assert sink.report.reason == "cannot write: No space left on device"
    assert sink.seqs("2026-11-21/14.jsonl") == [1]
    full.clear()
    await sink.written(2)

    assert sink.seqs("2026-11-21/14.jsonl") == [1, 2]


async def test_an_end_with_a_full_disk_is_no_wait(record: Begin, tmp_path: Path) -> None:
    (tmp_path / "jsonl").write_text("not a directory")
    sink = await record()
    assert sink.report.state == "down"
    assert "File exists" in sink.report.reason
    sink.lanes.put(TWO, TWO)
    await sink.end()

    assert sink.report.dropped == {"unwritten": 2}
    assert sink.report.waiting == 0


async def test_a_slow_disk_makes_the_lanes_wait_and_not_the_loop(
    record: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        if len(data) > 100_000:
            go.wait(10)
        return real(descriptor, data)

    sink = await record()
    monkeypatch.setattr(os, "write", write)
    for _ in range(10):
        sink.lanes.put(TWO, size=1_000_000)
    with trio.fail_after(5):
        await sink.until(lambda: sink.report.waiting > 2)
        await trio.testing.wait_all_tasks_blocked(0.05)
    # Some 2 MB are in the thread and as much is gathered; the rest stays in the lanes, where it is bounded.
    assert sink.report.waiting <= 6
    go.set()
    await sink.written(10)

    assert sink.seqs("2026-11-21/14.jsonl") == list(range(1, 11))


async def test_old_days_are_removed_and_what_is_not_ours_stays(record: Begin, tmp_path: Path) -> None:
    today = datetime.now(UTC)
    for days in (0, 1, 2, 3, 40):
        folder = tmp_path / "jsonl" / f"{today - timedelta(days=days):%Y-%m-%d}"
        folder.mkdir(parents=True)
        (folder / "14.1.jsonl.zst").touch()
    (tmp_path / "jsonl" / f"{today - timedelta(days=40):%Y-%m-%d}" / "notes.txt").touch()
    (tmp_path / "jsonl" / "other").mkdir()
    sink = await record(keep_days=2)
    sink.lanes.put(today.timestamp() + 90 * 86_400)  # a clock that is wrong
    sink.lanes.put(today.timestamp())
    await sink.end()
    left = {path.name for path in sink.folder.iterdir()}
    kept = {f"{today - timedelta(days=days):%Y-%m-%d}" for days in (0, 1, 2, 40, -90)}

    assert left == kept | {"other"}
    assert [name for name in sink.files() if "notes" in name or "40" in name] != []


async def test_stdout(record: Begin, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    saved = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    try:
        sink = await record(path="-")
        sink.lanes.put(TWO, TWO + 3600)
        await sink.written(2)
        await sink.end()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    text = os.read(reading, 10_000)
    os.close(reading)
    assert [orjson.loads(line)["seq"] for line in text.splitlines()] == [1, 2]
    assert sink.files() == []


async def test_a_stdout_that_is_full_goes_on_where_it_stopped(record: Begin) -> None:
    saved, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.close(full)
    try:
        sink = await record(path="-")
        sink.lanes.put(TWO)
        await sink.until(lambda: sink.report.state == "down")
        assert sink.report.reason == "cannot write: No space left on device"
    finally:
        os.dup2(saved, 1)
        os.close(saved)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"path": "relative"}, "expected an absolute path"),
        ({"level": 3}, "only 0: nothing is compressed"),
        ({"level": 10, "compression": "gzip"}, 'levels of compression "gzip" are from 1 to 9; found 10'),
        ({"flush_s": 0.0}, "expected at least 0.01"),
        ({"keep_days": 0}, "expected at least 1"),
    ],
)
def test_mistakes_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        JsonlSettings(**given)

    assert said in str(raised.value)


async def test_nothing_is_written_once_another_daemon_may_lead(record: Begin) -> None:
    sink = await record(flush_s=0.01)
    sink.lanes.most = 2
    sink.lanes.put(TWO)
    await sink.written(1)
    sink.lanes.put(TWO, TWO + 3600, TWO + 7200)
    await sink.until(lambda: sink.lanes.most < 0)

    assert sink.files() == ["2026-11-21/14.jsonl", "2026-11-21/15.jsonl"]
    assert sink.seqs("2026-11-21/14.jsonl") == [1, 2]
    assert sink.seqs("2026-11-21/15.jsonl") == []
