"""The soak, for a quarter of a minute: that it sees what it looks at."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

RUN = Path(__file__).parents[2] / "contrib" / "soak" / "run.py"


async def test_it_samples_fails_and_judges(tmp_path: Path) -> None:
    command = [sys.executable, str(RUN), "--output", str(tmp_path), "--minutes", "0.3", "--rate", "300"]
    command += ["--fault-every", "4", "--sample-every", "2", "--seed", "2", "--calm", "8"]
    run = partial(subprocess.run, command, capture_output=True, text=True, timeout=110, check=False)
    done = await trio.to_thread.run_sync(run)
    assert done.returncode == 0, done.stdout + done.stderr

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["wrong"] == []
    assert result["faults"]
    everything = result["readers"]["all"]
    assert everything["kinds"]["trade"] == sum(one["count"] for one in everything["trades"].values())
    assert len(everything["trades"]) == 4
    with (tmp_path / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["rss_mb"]) > 10 and int(row["tasks"]) > 10 for row in rows)
    assert "</svg>" in (tmp_path / "curve.svg").read_text()
