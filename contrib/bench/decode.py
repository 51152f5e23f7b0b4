"""CPU per message of decoding alone, for every channel of every venue, next to others on the same frames.

Each contestant is a process of its own that reads its own CPU clock; all get the same frames by a file. They take
turns row by row, so that a change of the machine's mood hits all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
from processes import HERE, BenchError, Helper, stop, table

from pricefeedd.errors import PluginError
from pricefeedd.logs import configure

VENUES = ("binance", "bingx", "bybit", "coinbase", "gateio", "hyperliquid", "kraken", "okx", "pyth")


@attrs.frozen(kw_only=True)
class Contestant:
    """One column of the table.

    Attributes:
        foreign: Its script brings dependencies that pricefeedd does not have; uv installs them apart.
    """

    name: str
    foreign: bool = True

    def command(self) -> list[str]:
        """Return how to start it."""
        uv = shutil.which("uv")
        start = (
            [uv, "run", "--quiet", "--no-project", "--script"] if self.foreign and uv else [sys.executable]
        )
        return [*start, str(HERE / f"decode_{self.name}.py")]


OURS = Contestant(name="pricefeedd", foreign=False)
RIVALS = (Contestant(name="cryptofeed"), Contestant(name="ccxt"))


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    parser.add_argument("--venues", default=",".join(VENUES), help="with commas between: %(default)s")
    parser.add_argument(
        "--against", default=",".join(one.name for one in RIVALS), help="rivals, or nothing (%(default)s)"
    )
    parser.add_argument("--decodes", type=int, default=20_000, help="frames of each row (%(default)s)")
    parser.add_argument(
        "--row-seconds", type=float, default=0.5, help="or as many as fit in this CPU time (%(default)s)"
    )


class _Column:
    """A contestant at work, and what it reported.

    Attributes:
        absent: Why it is not there; empty if it is.
    """

    def __init__(
        self, contestant: Contestant, frames: Path, args: argparse.Namespace, running: ExitStack
    ) -> None:
        self.title = contestant.name
        self.absent = ""
        self._name = contestant.name
        self._found: dict[int, list[float]] = {}
        self._silent: set[int] = set()
        self._errors = running.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115  # the stack closes it
        process = subprocess.Popen(
            [
                *contestant.command(),
                f"--frames={frames}",
                f"--decodes={args.decodes}",
                f"--row-seconds={args.row_seconds}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=HERE,
        )
        running.callback(stop, process)
        self._process = Helper(process)
        try:
            # uv may have to fetch it first.
            self.title = f"{contestant.name} {self._process.read()['version']}"
        except BenchError:
            self.absent = self._why()

    def _why(self) -> str:
        self._errors.seek(0)
        return f"{self._name} failed: {(self._errors.read().strip() or 'no message').splitlines()[-1]}"

    def measure(self, row: int) -> None:
        """Let it decode a row, unless it makes nothing of it.

        Raises:
            BenchError: It ended.
        """
        if self.absent or row in self._silent:
            return
        try:
            self._process.tell(str(row))
            told = self._process.read()
        except (BenchError, OSError) as e:
            raise BenchError(self._why()) from e
        if "why" in told:
            self._silent.add(row)
        else:
            self._found.setdefault(row, []).append(told["us"])

    def us(self, row: int) -> float | None:
        """Return the median over the rounds; None if it makes nothing of these frames."""
        found = self._found.get(row)
        return statistics.median(found) if found else None


def run(args: argparse.Namespace) -> str:
    """Return the table: µs of ours, and how many times that the rivals need.

    Raises:
        BenchError: A venue's plugin is not there, or our own part failed.
    """
    configure("critical", "auto")  # the connections are cut on purpose
    from decode_frames import record  # it loads the plugins, and the other parts start sooner without

    recorded = []
    for venue in sorted(args.venues):
        print(f"  frames of {venue} ...", file=sys.stderr)
        try:
            recorded.append(record(venue).as_json())
        except PluginError as e:
            raise BenchError(str(e)) from e
    rows = [(venue["venue"], row) for venue in recorded for row in venue["rows"]]
    with ExitStack() as running:
        frames = Path(running.enter_context(tempfile.TemporaryDirectory())) / "frames.json"
        frames.write_text(json.dumps(recorded))
        ours = _Column(OURS, frames, args, running)
        if ours.absent:
            raise BenchError(ours.absent)
        rivals = [_Column(one, frames, args, running) for one in RIVALS if one.name in args.against]
        for number in range(args.rounds):
            print(f"  round {number + 1} ...", file=sys.stderr)
            for row in range(len(rows)):
                for column in (ours, *rivals):
                    column.measure(row)
        return _table(rows, ours, rivals)


def _table(rows: Sequence[tuple[str, dict[str, Any]]], ours: _Column, rivals: Sequence[_Column]) -> str:
    header = ["venue", "channel", "market", "levels", "bytes", "µs", *(rival.title for rival in rivals)]
    cells = []
    for number, (venue, row) in enumerate(rows):
        us = ours.us(number)
        if us is None:
            raise BenchError(
                f"{venue} {row['channel']}: our codec says other events than it was recorded with"
            )
        levels = "" if row["levels"] is None else f"{row['levels']:.0f}"
        line = [venue, row["channel"], row["market"], levels, f"{row['bytes']:.0f}", f"{us:.1f}"]
        for rival in rivals:
            theirs = rival.us(number)
            line.append("–" if theirs is None else f"{theirs / us:.1f}")
        cells.append(line)
    notes = [f"\n{rival.absent}" for rival in rivals if rival.absent]
    return "\n".join([table(header, cells), *notes])
