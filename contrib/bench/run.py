"""The bench: ingest against others, latency through the whole daemon, memory and start-up.

    uv run contrib/bench/run.py

Everything is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys

import footprint
import ingest
import latency
from processes import HERE, BenchError, machine

PARTS = ("ingest", "latency", "footprint")


def arguments() -> argparse.Namespace:
    """Return what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {' '.join(PARTS)} (all)")
    parser.add_argument("--write", action="store_true", help="keep the result in RESULTS.md")
    one = parser.add_argument_group("ingest")
    names = [contestant.name for contestant in ingest.CONTESTANTS]
    one.add_argument("--only", default=",".join(names), help="contestants, with commas between: %(default)s")
    one.add_argument("--messages", type=int, default=100_000, help="of each run (%(default)s)")
    one.add_argument("--rounds", type=int, default=3, help="the median counts (%(default)s)")
    one.add_argument("--burst", type=int, default=50, help="frames in one write (%(default)s)")
    one.add_argument(
        "--pause-ms", default="0,2.5", help="from one burst to the next, a column for each (%(default)s)"
    )
    latency.add_arguments(parser.add_argument_group("latency"))
    footprint.add_arguments(parser.add_argument_group("footprint"))
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    args.contestants = args.only.split(",")
    if unknown := set(args.contestants) - set(names):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return args


def sections(args: argparse.Namespace) -> list[str]:
    """Measure, and return one section of text for each part."""
    parts = args.parts or PARTS
    found = []
    if "ingest" in parts:
        chosen = [contestant for contestant in ingest.CONTESTANTS if contestant.name in args.contestants]
        loads = [
            ingest.Load(messages=args.messages, instruments=10, burst=args.burst, pause_ms=float(pause))
            for pause in args.pause_ms.split(",")
        ]
        text = ingest.run(chosen, loads, args.rounds)
        about = f"{args.messages} frames a run, median of {args.rounds} interleaved rounds."
        found.append(f"## Ingest\n\n{about}\n\n{text}")
    if "latency" in parts:
        found.append(f"## Venue to reader\n\n{latency.run(args)}")
    if "footprint" in parts:
        found.append(f"## Footprint\n\n{footprint.run(args)}")
    return found


def main() -> int:
    """Run what was asked for; return the exit code."""
    args = arguments()
    facts = machine()
    try:
        text = "\n\n".join(sections(args))
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    command = shlex.join(["uv", "run", "contrib/bench/run.py", *sys.argv[1:]])
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    report = f"# Results\n\n`{command}` on {today}\n\n{facts}\n\n{text}\n"
    print(report)
    if args.write:
        (HERE / "RESULTS.md").write_text(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
