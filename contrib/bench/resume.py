"""Readers that come back and ask for what they missed, all at once."""

from __future__ import annotations

import argparse
import statistics
import sys

import attrs
from processes import BenchError, cpu_s, table
from servers import SERVERS, crowd, server


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    parser.add_argument("--resumed", type=int, default=1000, help="readers that come back (%(default)s)")
    parser.add_argument("--missed", default="100,1000", help="events that each has missed (%(default)s)")


@attrs.frozen(kw_only=True)
class Resumed:
    """How it went.

    Attributes:
        half_s: From the first request until half of the readers had everything.
        all_s: Until the last had.
    """

    half_s: float
    all_s: float
    cpu_s: float


def measure(readers: int, missed: int) -> Resumed:
    """Return how long the readers took.

    Raises:
        BenchError: They did not all get everything, in order.
    """
    with (
        server(SERVERS[0]) as serving,
        crowd(serving.port, readers, "--sample=50", "--no-snapshot") as reading,
    ):
        reading.connect(subscribe=False)
        published = serving.publish(2 * missed, batch=100, per_s=1e6, within_s=30.0)
        before = cpu_s(serving.pid)
        answer = reading.do("ask", since=published - missed, goal=missed)
        spent = cpu_s(serving.pid) - before
        if answer["failed"]:
            raise BenchError(f"{answer['failed']} readers did not get back what they missed")
        reading.receive(missed * readers)
    times = answer["times_s"]
    return Resumed(half_s=times[len(times) // 2], all_s=times[-1], cpu_s=spent)


def run(args: argparse.Namespace) -> str:
    """Return the table: medians over the rounds."""
    sizes = [int(one) for one in args.missed.split(",")]
    found: dict[int, list[Resumed]] = {}
    for at in range(args.rounds):
        for missed in sizes:
            print(f"  round {at + 1}: {args.resumed} readers missed {missed} ...", file=sys.stderr)
            found.setdefault(missed, []).append(measure(args.resumed, missed))
    rows = []
    for missed, runs in found.items():
        cpu = statistics.median(run.cpu_s for run in runs)
        rows.append(
            [
                str(missed),
                f"{1000 * statistics.median(run.half_s for run in runs):.1f}",
                f"{1000 * statistics.median(run.all_s for run in runs):.1f}",
                f"{cpu / args.resumed * 1e6:.0f}",
                f"{cpu / args.resumed / missed * 1e6:.2f}",
            ]
        )
    header = [
        "events missed",
        "half have all, ms",
        "all have all, ms",
        "µs CPU per reader",
        "µs CPU per event",
    ]
    about = (
        f"{args.resumed} connected readers subscribe at once with `since`. Median of {args.rounds} rounds."
    )
    return f"{about}\n\n{table(header, rows)}"
