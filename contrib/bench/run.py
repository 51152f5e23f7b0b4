"""The bench: decoding, ingest and serving against others, latency through the whole daemon, memory, start-up.

    uv run contrib/bench/run.py

Everything is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys

import connect
import decode
import fanout
import footprint
import idle
import ingest
import latency
import resume
from processes import HERE, BenchError, machine
from servers import SERVERS

#: The headings of the parts.
TITLES = {
    "decode": "Decode",
    "ingest": "Ingest",
    "fanout": "Fan-out",
    "connect": "Connect storm",
    "idle": "Memory per reader",
    "resume": "Resume",
    "latency": "Venue to reader",
    "footprint": "Footprint",
}
PARTS = tuple(TITLES)


def arguments() -> argparse.Namespace:
    """Return what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {' '.join(PARTS)} (all)")
    parser.add_argument("--write", action="store_true", help="keep the result in RESULTS.md")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="of all but latency and footprint; the median counts (%(default)s)",
    )
    decode.add_arguments(parser.add_argument_group("decode"))
    one = parser.add_argument_group("ingest")
    names = [contestant.name for contestant in ingest.CONTESTANTS]
    one.add_argument("--only", default=",".join(names), help="contestants, with commas between: %(default)s")
    one.add_argument("--messages", type=int, default=100_000, help="of each run (%(default)s)")
    one.add_argument("--burst", type=int, default=50, help="frames in one write (%(default)s)")
    one.add_argument(
        "--pause-ms", default="0,2.5", help="from one burst to the next, a column for each (%(default)s)"
    )
    fanout.add_arguments(parser.add_argument_group("fanout"))
    connect.add_arguments(parser.add_argument_group("connect"))
    idle.add_arguments(parser.add_argument_group("idle"))
    resume.add_arguments(parser.add_argument_group("resume"))
    latency.add_arguments(parser.add_argument_group("latency"))
    footprint.add_arguments(parser.add_argument_group("footprint"))
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    args.contestants = args.only.split(",")
    if unknown := set(args.contestants) - set(names):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    serving = [one.name for one in SERVERS]
    if unknown := set(args.servers.split(",")) - set(serving):
        parser.error(f"no such server: {', '.join(sorted(unknown))}; there are {', '.join(serving)}")
    args.venues = args.venues.split(",")
    if unknown := set(args.venues) - set(decode.VENUES):
        parser.error(f"no such venue: {', '.join(sorted(unknown))}; there are {', '.join(decode.VENUES)}")
    args.against = [name for name in args.against.split(",") if name]
    if unknown := set(args.against) - (rivals := {one.name for one in decode.RIVALS}):
        parser.error(f"no such rival: {', '.join(sorted(unknown))}; there are {', '.join(sorted(rivals))}")
    return args


def sections(args: argparse.Namespace) -> list[str]:
    """Measure, and return one section of text for each part."""
    parts = args.parts or PARTS
    found = []
    if "decode" in parts:
        about = (
            f"Median of {args.rounds} interleaved rounds of {args.decodes} frames, or as many as fit in "
            f"{args.row_seconds:g} s. Behind µs: how many times ours the others need."
        )
        found.append(f"## Decode\n\n{about}\n\n{decode.run(args)}")
    if "ingest" in parts:
        chosen = [contestant for contestant in ingest.CONTESTANTS if contestant.name in args.contestants]
        loads = [
            ingest.Load(messages=args.messages, instruments=10, burst=args.burst, pause_ms=float(pause))
            for pause in args.pause_ms.split(",")
        ]
        text = ingest.run(chosen, loads, args.rounds)
        about = f"{args.messages} frames a run, median of {args.rounds} interleaved rounds."
        found.append(f"## Ingest\n\n{about}\n\n{text}")
    others = (fanout, connect, idle, resume, latency, footprint)
    found += [f"## {TITLES[one.__name__]}\n\n{one.run(args)}" for one in others if one.__name__ in parts]
    return found


def kept(old: str, new: list[str]) -> str:
    """Return the text of RESULTS.md with the new sections in the place of those of the same title."""
    head, *parts = old.split("\n## ")
    found = {part.partition("\n")[0]: f"## {part.strip()}" for part in parts}
    found |= {part.partition("\n")[0].removeprefix("## "): part.strip() for part in new}
    order = [title for title in TITLES.values() if title in found]
    return "\n\n".join([head.strip(), *(found[title] for title in order)]) + "\n"


def main() -> int:
    """Run what was asked for; return the exit code."""
    args = arguments()
    facts = machine()
    command = shlex.join(["uv", "run", "contrib/bench/run.py", *sys.argv[1:]])
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        found = [
            section.replace("\n\n", f"\n\n`{command}` on {today}; {facts}\n\n", 1)
            for section in sections(args)
        ]
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    print(kept("# Results", found))
    if args.write:
        results = HERE / "RESULTS.md"
        results.write_text(kept(results.read_text() if results.exists() else "# Results", found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
