"""The bench runs with its one command, and its tables have everybody in them. Nothing here is about speed."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[2] / "contrib" / "bench" / "run.py"


def bench(*args: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = os.environ if path is None else {**os.environ, "PATH": path}
    return subprocess.run(
        [sys.executable, str(BENCH), *args],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=environ,
    )


def cells(report: str, title: str) -> list[str]:
    """Return the cells behind the row's title."""
    for line in report.splitlines():
        columns = [cell.strip() for cell in line.strip("|").split("|")]
        if columns[0].startswith(title):
            return columns[1:]
    raise AssertionError(f"no row {title!r} in\n{report}")


def test_ingest_has_a_row_for_each_contestant_with_ratios_to_pricefeedd() -> None:
    done = bench(
        "ingest",
        "--only=pricefeedd,pricefeedd-reader,trio-websocket,trio-websocket-orjson",
        "--messages=3000",
        "--rounds=1",
        "--pause-ms=0,1",
    )
    assert done.returncode == 0, done.stderr
    rows = [
        cells(done.stdout, title)
        for title in (
            "pricefeedd: socket",
            "pricefeedd, with a reader",
            "trio-websocket: get_message, no decoding",
            "trio-websocket: get_message, orjson",
        )
    ]
    for row in rows:
        assert len(row) == 4, "µs and ratio for each of the two paces"
        assert all(re.fullmatch(r"\d+\.\d+", cell) and float(cell) > 0 for cell in row), row
    assert [rows[0][1], rows[0][3]] == ["1.00", "1.00"]


def test_decode_has_a_row_for_each_channel_and_goes_on_without_rivals() -> None:
    # Without uv nobody fetches the rivals, which pricefeedd does not depend on.
    done = bench("decode", "--venues=pyth,coinbase", "--decodes=100", "--rounds=2", path="")
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith(("| coinbase", "| pyth"))
    ]
    # Coinbase has no minutes and no quotes on its streams: its trades and books make them.
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
        ("coinbase", "book delta", "spot", "3"),
        ("coinbase", "book snapshot", "spot", "80"),
        ("coinbase", "ticker", "spot", ""),
        ("coinbase", "trade", "spot", ""),
        ("pyth", "price", "oracle", ""),
    ]
    for row in rows:
        assert int(row[4]) > 100, "bytes"
        assert float(row[5]) > 0, "µs"
        assert row[6:] == ["–", "–"], "the rivals are absent"
    for name in ("cryptofeed", "ccxt"):
        assert f"{name} failed: ModuleNotFoundError: No module named" in done.stdout


def test_a_rival_that_is_not_installed_is_absent_and_no_crash() -> None:
    # Without uv nobody fetches cryptofeed, which pricefeedd does not depend on.
    done = bench(
        "ingest", "--only=pricefeedd,cryptofeed", "--messages=2000", "--rounds=2", "--pause-ms=0", path=""
    )
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "cryptofeed")[0] == "absent"
    assert "No module named 'cryptofeed'" in done.stdout
    assert cells(done.stdout, "pricefeedd: socket")[1] == "1.00"


def small(*args: str, path: str | None = "") -> str:
    """Run parts of the bench with tiny sizes and without uv, so that nobody fetches the rivals."""
    done = bench(*args, "--rounds=1", path=path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fanout_counts_every_frame_and_compares_with_broadcast() -> None:
    # The tests' own client library serves here; with uv the bench takes a version of its own.
    report = small(
        "fanout",
        "--servers=pricefeedd,websockets,aiohttp,bare",
        "--crowds=60",
        "--batches=1,5",
        "--window=0.1",
    )
    for title in ("pricefeedd: bus", "websockets: broadcast", "bare: socket.send"):
        row = cells(report, title)
        assert len(row) == 4, "µs and ratio for each size of batch"
        assert all(float(cell) > 0 for cell in row), row
    assert cells(report, "websockets: broadcast")[1::2] == ["1.00", "1.00"]
    assert cells(report, "aiohttp: gather")[::2] == ["absent", "absent"]
    assert "aiohttp failed: ModuleNotFoundError: No module named 'aiohttp'" in report


def test_connect_serves_all_of_a_storm() -> None:
    half, everybody, cpu_us, failures = cells(
        small("connect", "--servers=pricefeedd", "--storm=30"), "pricefeedd"
    )
    assert 0 < float(half) <= float(everybody)
    assert float(cpu_us) > 0
    assert failures == "0"


def test_idle_tells_memory_of_readers_that_are_idle_and_that_stopped() -> None:
    report = small(
        "idle", "--servers=pricefeedd", "--idle=30", "--stopped=4", "--flow=600", "--queue-bytes=4096"
    )
    resident, own, stopped, published, kept_up = cells(report, "pricefeedd")
    assert float(resident) > 0
    assert float(own) > 0
    assert float(stopped) >= 0
    assert 0 < int(kept_up) <= int(published) <= 600


def test_resume_gives_back_all_that_was_missed() -> None:
    report = small("resume", "--resumed=20", "--missed=10,60")
    for missed in ("10", "60"):
        half, everybody, per_reader, per_event = cells(report, missed)
        assert 0 < float(half) <= float(everybody)
        assert float(per_reader) > 0
        assert float(per_event) > 0


def test_latency_reaches_every_reader_and_nothing_is_lost() -> None:
    done = bench("latency", "--loads=400:100:20,6000:10:120", "--seconds=0.5")
    assert done.returncode == 0, done.stderr
    for load, share in (
        ("400/s of 100 instruments, 20 readers", 0.2),
        ("6000/s of 10 instruments, 120 readers", 12),
    ):
        p50, p99, longest, sent, received, lost, _, *busy = cells(done.stdout, load)
        assert 0 < float(p50) <= float(p99) <= float(longest)
        assert int(sent) >= 400
        # Each reader has one of the instruments.
        assert abs(int(received) - int(sent) * share) <= 20
        assert lost == "0"
        assert len(busy) == 3, "what daemon, sender and readers used of a core"


def test_an_unknown_part_or_contestant_is_refused_with_the_known_ones() -> None:
    part = bench("speed")
    assert part.returncode == 2
    assert "decode, ingest, fanout, connect, idle, resume, latency, footprint" in part.stderr
    contestant = bench("ingest", "--only=rocket")
    assert contestant.returncode == 2
    assert "trio-websocket" in contestant.stderr
    server = bench("fanout", "--servers=rocket")
    assert server.returncode == 2
    assert "picows" in server.stderr
    venue = bench("decode", "--venues=moon")
    assert venue.returncode == 2
    assert "hyperliquid" in venue.stderr


def test_a_part_that_is_measured_again_leaves_the_others_in_the_results(monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(BENCH.parent))
    kept = importlib.import_module("run").kept
    old = "# Results\n\n## Ingest\n\nold ingest\n\n## Footprint\n\nold footprint\n"
    new = kept(old, ["## Footprint\n\nnew footprint", "## Decode\n\nnew decode"])
    assert new == (
        "# Results\n\n## Decode\n\nnew decode\n\n## Ingest\n\nold ingest\n\n## Footprint\n\nnew footprint\n"
    )
