"""CPU per frame of serving one topic to many readers, in turns with others."""

from __future__ import annotations

import argparse
import statistics
from itertools import product

import attrs
from ingest import Contestant
from processes import cpu_s, table
from servers import SERVERS, crowd, rounds, server

#: Messages a second to each reader.
PER_S = 50.0
#: Messages before the clock is read.
WARM_UP = 20
#: A contestant that cannot keep the pace stops after so many times the window.
_PATIENCE = 4.0


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    names = ",".join(one.name for one in SERVERS)
    parser.add_argument(
        "--servers", default=names, help="contestants of fanout, connect and idle: %(default)s"
    )
    parser.add_argument("--crowds", default="100,1000", help="numbers of readers (%(default)s)")
    parser.add_argument("--batches", default="1,5", help="messages in one publish (%(default)s)")
    parser.add_argument("--window", type=float, default=3.0, help="seconds of each run (%(default)s)")


def chosen(args: argparse.Namespace) -> list[Contestant]:
    """Return the contestants that were asked for."""
    return [one for one in SERVERS if one.name in args.servers.split(",")]


@attrs.frozen(kw_only=True)
class Cost:
    """µs of CPU per frame, of the server and of the readers."""

    server: float
    readers: float


def measure(contestant: Contestant, readers: int, batches: list[int], seconds: float) -> list[Cost]:
    """Return the cost with each size of batch.

    Raises:
        BenchError: The contestant is not there, or a frame did not arrive.
    """
    found = []
    # The readers rest between two looks, so that the server does not pay for waking them.
    with (
        server(contestant) as serving,
        crowd(serving.port, readers, "--sample=50", "--nap-ms=50", "--no-snapshot") as reading,
    ):
        reading.connect()
        within_s = seconds * _PATIENCE
        sent = serving.publish(WARM_UP, batch=1, per_s=4 * PER_S, within_s=within_s)
        for batch in batches:
            reading.receive(sent * readers)
            before = cpu_s(serving.pid), cpu_s(reading.pid)
            count = serving.publish(int(PER_S * seconds), batch=batch, per_s=PER_S, within_s=within_s)
            sent += count
            reading.receive(sent * readers)
            spent = cpu_s(serving.pid) - before[0], cpu_s(reading.pid) - before[1]
            frames = count * readers
            found.append(Cost(server=spent[0] / frames * 1e6, readers=spent[1] / frames * 1e6))
    return found


def run(args: argparse.Namespace) -> str:
    """Return the table: medians over the rounds, and ratios to `websockets.broadcast`."""
    crowds = [int(one) for one in args.crowds.split(",")]
    batches = [int(one) for one in args.batches.split(",")]
    contestants = chosen(args)
    costs: dict[str, list[list[Cost]]] = {}
    absent: dict[str, str] = {}
    for readers in crowds:
        found, gone = rounds(
            [one for one in contestants if one.name not in absent],
            args.rounds,
            lambda one, readers=readers: measure(one, readers, batches, args.window),  # type: ignore[misc]  # its default binds it
        )
        absent |= gone
        for name, runs in found.items():
            for at in range(len(batches)):
                costs.setdefault(name, []).append([run[at] for run in runs])
    header = ["µs CPU per frame"]
    for readers, batch in product(crowds, batches):
        header += [f"{readers} readers, {batch} a batch", "ratio"]
    rows = []
    for one in contestants:
        row = [one.title]
        for at in range(len(crowds) * len(batches)):
            if one.name in absent:
                row += ["absent", ""]
                continue
            us = statistics.median(cost.server for cost in costs[one.name][at])
            base = costs.get("websockets") if "websockets" not in absent else None
            ratio = us / statistics.median(cost.server for cost in base[at]) if base else None
            row += [f"{us:.2f}", "" if ratio is None else f"{ratio:.2f}"]
        rows.append(row)
    theirs = statistics.median(cost.readers for each in costs.values() for cells in each for cost in cells)
    about = (
        f"One topic, {PER_S:g} messages a second to each reader for {args.window:g} s, median of {args.rounds} "
        f"interleaved rounds. Ratios to websockets' `broadcast`. The readers' process used {theirs:.1f} µs per frame "
        f"beside it."
    )
    return "\n".join([f"{about}\n\n{table(header, rows)}", *(f"\n{why}" for why in absent.values())])
