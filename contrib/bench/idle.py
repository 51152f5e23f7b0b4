"""Memory of the server for each reader that has nothing to read, and for each that does not read."""

from __future__ import annotations

import argparse
import statistics

import attrs
from daemon import pause
from fanout import chosen
from ingest import Contestant
from processes import memory_kb, table
from servers import Server, crowd, rounds, server

#: After connecting, so that what comes later is there too.
SETTLE_S = 0.5
#: The pace of the topic that flows past the readers that stopped; all is over before they are closed.
PER_S = 2000.0
BATCH = 20
#: What the kernel holds for a reader: little, so that the rest is the server's.
RECEIVE_BUFFER = 4096


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    parser.add_argument("--idle", type=int, default=1000, help="idle readers (%(default)s)")
    parser.add_argument("--stopped", type=int, default=100, help="readers that stop reading (%(default)s)")
    parser.add_argument("--flow", type=int, default=15_000, help="messages past these (%(default)s)")
    parser.add_argument("--queue-bytes", type=int, default=2_097_152, help="client_queue_bytes (%(default)s)")


@attrs.frozen(kw_only=True)
class Memory:
    """kB for each reader.

    Attributes:
        idle: Resident, and the process' own, for each idle one.
        stopped: The process' own for each that stopped reading.
        published: Messages that the server got rid of meanwhile.
        kept_up: Messages that the one that went on reading has got.
    """

    idle: tuple[float, float]
    stopped: float
    published: int
    kept_up: int


def measure(contestant: Contestant, args: argparse.Namespace) -> Memory:
    """Return what one server needs.

    Raises:
        BenchError: The contestant is not there.
    """
    with server(contestant) as serving:
        idle = _idle(serving, args.idle)
    with server(contestant, f"--queue-bytes={args.queue_bytes}") as serving:
        stopped, published, kept_up = _stopped(serving, args)
    return Memory(idle=idle, stopped=stopped, published=published, kept_up=kept_up)


def _warm(serving: Server) -> None:
    """Have a few readers come and go, so that what is loaded at the first use is there."""
    with crowd(serving.port, 5) as first:
        first.connect()
        serving.publish(1, batch=1, per_s=100.0, within_s=5.0)
    pause(SETTLE_S)


def _idle(serving: Server, readers: int) -> tuple[float, float]:
    _warm(serving)
    before = memory_kb(serving.pid)
    with crowd(serving.port, readers) as reading:
        reading.connect()
        pause(SETTLE_S)
        after = memory_kb(serving.pid)
    return (after[0] - before[0]) / readers, (after[1] - before[1]) / readers


def _stopped(serving: Server, args: argparse.Namespace) -> tuple[float, int, int]:
    _warm(serving)
    buffer = f"--receive-buffer={RECEIVE_BUFFER}"
    with crowd(serving.port, args.stopped + 1, buffer, "--no-snapshot") as reading:
        reading.connect()
        pause(SETTLE_S)
        reading.do("hold")
        first = reading.do("result", skip=0)["first_received"]
        before = memory_kb(serving.pid)
        published = serving.publish(
            args.flow, batch=BATCH, per_s=PER_S, within_s=args.flow / PER_S + SETTLE_S
        )
        pause(SETTLE_S)
        after = memory_kb(serving.pid)
        kept_up = int(reading.do("result", skip=0)["first_received"] - first)
    return (after[1] - before[1]) / args.stopped, published, kept_up


def run(args: argparse.Namespace) -> str:
    """Return the table: medians over the rounds."""
    contestants = [one for one in chosen(args) if one.name != "bare"]
    found, absent = rounds(contestants, args.rounds, lambda one: measure(one, args))
    rows = []
    for one in contestants:
        if one.name in absent:
            rows.append([one.title.partition(":")[0], "absent", "", "", "", ""])
            continue
        runs = found[one.name]
        rows.append(
            [
                one.title.partition(":")[0],
                f"{statistics.median(run.idle[0] for run in runs):.1f}",
                f"{statistics.median(run.idle[1] for run in runs):.1f}",
                f"{statistics.median(run.stopped for run in runs):.0f}",
                str(min(run.published for run in runs)),
                str(min(run.kept_up for run in runs)),
            ]
        )
    header = [
        "server",
        "idle: kB resident",
        "kB its own",
        "stopped reading: kB its own",
        "published in time",
        "one that reads got",
    ]
    about = (
        f"For each of {args.idle} readers subscribed to a topic that is quiet; and for each of {args.stopped} that "
        f"stopped reading while {args.flow} messages of about 190 bytes were published at {PER_S:g} a second, with "
        f"`client_queue_bytes` at {args.queue_bytes}. Memory of the process, without the kernel's buffers. Median of "
        f"{args.rounds} interleaved rounds."
    )
    return "\n".join([f"{about}\n\n{table(header, rows)}", *(f"\n{why}" for why in absent.values())])
