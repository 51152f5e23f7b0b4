"""The bench runs with its one command, and its table has everybody in it. Nothing here is about speed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


def test_a_rival_that_is_not_installed_is_absent_and_no_crash() -> None:
    # Without uv nobody fetches cryptofeed, which pricefeedd does not depend on.
    done = bench(
        "ingest", "--only=pricefeedd,cryptofeed", "--messages=2000", "--rounds=2", "--pause-ms=0", path=""
    )
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "cryptofeed")[0] == "absent"
    assert "No module named 'cryptofeed'" in done.stdout
    assert cells(done.stdout, "pricefeedd: socket")[1] == "1.00"


def test_latency_reaches_every_reader_and_nothing_is_lost() -> None:
    done = bench("latency", "--rate=400", "--readers=20", "--seconds=0.5")
    assert done.returncode == 0, done.stderr
    p50, p99, longest, sent, received, lost, _ = cells(done.stdout, "400/s, 20 readers")
    assert 0 < float(p50) <= float(p99) <= float(longest)
    # 20 of the 100 instruments are read.
    assert int(sent) >= 400
    assert abs(int(received) - int(sent) / 5) <= 20
    assert lost == "0"


def test_an_unknown_part_or_contestant_is_refused_with_the_known_ones() -> None:
    part = bench("speed")
    assert part.returncode == 2
    assert "ingest, latency, footprint" in part.stderr
    contestant = bench("ingest", "--only=rocket")
    assert contestant.returncode == 2
    assert "trio-websocket" in contestant.stderr
