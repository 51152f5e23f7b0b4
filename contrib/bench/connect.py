"""A storm: all readers connect and subscribe at the same moment."""

from __future__ import annotations

import argparse
import statistics

import attrs
from fanout import chosen
from ingest import Contestant
from processes import cpu_s, table
from servers import crowd, rounds, server


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    parser.add_argument("--storm", type=int, default=1000, help="readers that connect at once (%(default)s)")


@attrs.frozen(kw_only=True)
class Storm:
    """How it went.

    Attributes:
        all_s: Until the last reader had `welcome`, its answer and the first message.
        half_s: Until half of them had.
        cpu_us: CPU of the server for each.
    """

    all_s: float
    half_s: float
    failed: int
    cpu_us: float


def measure(contestant: Contestant, readers: int) -> Storm:
    """Return how one storm went.

    Raises:
        BenchError: The contestant is not there.
    """
    with server(contestant) as serving:
        serving.publish(1, batch=1, per_s=100.0, within_s=5.0)
        with crowd(serving.port, 1) as first:  # what is loaded at the first use
            first.connect(goal=1)
        with crowd(serving.port, readers, "--sample=50") as reading:
            before = cpu_s(serving.pid)
            answer = reading.do("connect", subscribe=True, goal=1)
            spent = cpu_s(serving.pid) - before
    times = answer["times_s"] or [0.0]
    return Storm(
        all_s=times[-1],
        half_s=times[len(times) // 2],
        failed=answer["failed"],
        cpu_us=spent / readers * 1e6,
    )


def run(args: argparse.Namespace) -> str:
    """Return the table: medians over the rounds; failures are added up."""
    contestants = [one for one in chosen(args) if one.name != "bare"]
    found, absent = rounds(contestants, args.rounds, lambda one: measure(one, args.storm))
    rows = []
    for one in contestants:
        if one.name in absent:
            rows.append([one.title.partition(":")[0], "absent", "", "", ""])
            continue
        storms = found[one.name]
        rows.append(
            [
                one.title.partition(":")[0],
                f"{1000 * statistics.median(storm.half_s for storm in storms):.1f}",
                f"{1000 * statistics.median(storm.all_s for storm in storms):.1f}",
                f"{statistics.median(storm.cpu_us for storm in storms):.0f}",
                str(sum(storm.failed for storm in storms)),
            ]
        )
    header = ["server", "half served, ms", "all served, ms", "µs CPU per connect", "failures"]
    about = (
        f"{args.storm} readers connect at once and subscribe; served is who has `welcome`, the answer and the newest "
        f"message. Median of {args.rounds} interleaved rounds; failures of all rounds."
    )
    return "\n".join([f"{about}\n\n{table(header, rows)}", *(f"\n{why}" for why in absent.values())])
