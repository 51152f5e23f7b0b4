"""Kills, freezes and cuts off leaders, and prints how long it took until another daemon published.

    uv run contrib/failover_test/run.py --elector postgres --faults 100
    uv run contrib/failover_test/run.py --elector kubernetes --faults 100 --seed 7 --json

Several daemons share one simulated venue. A subscriber of all of them checks that nobody publishes once a later leader
has: each message bears the leader's fence at the head of its epoch. It ends with 1 if that was broken, or if it took longer
than promised.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from fleet import Fleet, FleetError, Member, fleet

from pricefeedd.errors import leaves

#: What is done to the leader, how often among ten, and to one of the others.
LEADER = {"kill": 3, "freeze": 2, "cut": 1, "stall": 1, "stop": 2}
STANDBY = ("kill", "freeze", "cut", "stall", "stop")
#: One of so many faults strikes a daemon that does not lead.
STANDBY_SHARE = 8

#: Promised: a crash to the first message of the next leader, and the same where the leader was asked to stop.
CRASH_S = 5.0
HAND_OVER_S = 1.0
#: Nobody waits longer than this for a next leader.
PATIENCE_S = 20.0
#: After a fault that left the leader in place, nothing may change for so long.
QUIET_S = 1.5

POSTGRES = os.environ.get("PRICEFEEDD_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of one fault.

    Attributes:
        kind: `kill`, `freeze`, `cut`, `stall` or `stop`, with ` standby` if it struck one of the others.
        lasted_s: How long the daemon was frozen or cut off; None for those that ended.
        took_s: From the fault to the first message of the next leader; None if the leader stayed.
        silent_s: The longest time without a message.
    """

    number: int
    kind: str
    lasted_s: float | None
    took_s: float | None
    silent_s: float
    epoch: str


def schedule(count: int, chance: random.Random) -> list[str]:
    """Return kinds of faults in random order, in fixed shares."""
    words = [kind for kind, share in LEADER.items() for _ in range(share)]
    standby = count // STANDBY_SHARE
    kinds = [words[n % len(words)] for n in range(count - standby)]
    kinds += [f"{STANDBY[n % len(STANDBY)]} standby" for n in range(standby)]
    chance.shuffle(kinds)
    return kinds


async def strike(fleet: Fleet, number: int, kind: str, chance: random.Random) -> Outcome:
    """Do one thing to one daemon, and wait for what follows.

    Raises:
        FleetError: Nobody leads for too long.
    """
    leader = await fleet.settled()
    await trio.sleep(chance.uniform(0.0, 0.5))  # anywhere between two renewals
    watch = fleet.watch
    fault, _, aside = kind.partition(" ")
    victim = chance.choice([m for m in fleet.members if m is not leader]) if aside else leader
    epoch, firsts, pauses = watch.epoch, len(watch.firsts), len(watch.pauses)
    lasts_s = None if fault in ("kill", "stop") else chance.uniform(1.0, 8.0)
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_inflict, victim, fault, lasts_s)
        if aside or (lasts_s is not None and lasts_s < PATIENCE_S):
            with trio.move_on_after((lasts_s or 0.0) + QUIET_S):
                await watch.until(lambda: len(watch.firsts) > firsts)
        if len(watch.firsts) == firsts and not aside and lasts_s is None:
            with trio.move_on_after(PATIENCE_S):
                await watch.until(lambda: len(watch.firsts) > firsts)
            if len(watch.firsts) == firsts:
                raise FleetError(f"fault {number}, {kind}: nobody leads {PATIENCE_S:g} s later")
    if len(watch.firsts) == firsts:
        with trio.move_on_after(PATIENCE_S):
            await watch.until(lambda: watch.at > time.monotonic() - 0.3)
    found = watch.firsts[firsts:]
    silent = [first["at"] - first["before"] for first in found]
    silent += [pause["at"] - pause["since"] for pause in watch.pauses[pauses:]]
    return Outcome(
        number=number,
        kind=kind,
        lasted_s=lasts_s,
        took_s=found[0]["at"] - began if found else None,
        silent_s=max(silent, default=0.0),
        epoch=watch.epoch if found else epoch,
    )


async def _inflict(member: Member, fault: str, lasts_s: float | None) -> None:
    """Do it, and after a while undo it."""
    match fault:
        case "kill":
            member.send(signal.SIGKILL)
        case "stop":
            member.send(signal.SIGTERM)
        case "freeze":
            member.send(signal.SIGSTOP)
        case "cut":
            member.link.cut()
        case "stall":
            member.link.stall()
    if lasts_s is not None:
        await trio.sleep(lasts_s)
    if fault == "freeze":
        member.send(signal.SIGCONT)
    elif fault in ("cut", "stall"):
        member.link.heal()
    else:
        while member.running:  # noqa: ASYNC110  # it has no event here
            await trio.sleep(0.02)
        member.start()


def wrong(outcomes: list[Outcome], stale: list[dict[str, Any]]) -> list[str]:
    """Return what was promised and did not hold."""
    found = [
        f"a message of epoch {told['epoch']} came after {told['after']} had begun: {told['topic']}"
        for told in stale
        if not told["late"]
    ]
    for outcome in outcomes:
        if outcome.took_s is None:
            continue
        most = HAND_OVER_S if outcome.kind == "stop" else CRASH_S
        if outcome.kind.endswith("standby"):
            found.append(f"fault {outcome.number}, {outcome.kind}: the lead changed")
        elif outcome.took_s > most:
            found.append(f"fault {outcome.number}, {outcome.kind}: {outcome.took_s:.2f} s, promised {most:g}")
    return found


def table(outcomes: list[Outcome]) -> str:
    """Return a Markdown table of what came of the faults, by kind."""
    header = ["fault", "times", "lead changed", "p50", "p99", "most", "longest silence"]
    rows = []
    for kind in (*LEADER, *(f"{kind} standby" for kind in STANDBY)):
        same = [outcome for outcome in outcomes if outcome.kind == kind]
        if not same:
            continue
        took = sorted(outcome.took_s for outcome in same if outcome.took_s is not None)
        figures = [f"{_at(took, share):.2f} s" if took else "" for share in (0.5, 0.99, 1.0)]
        silent = max(outcome.silent_s for outcome in same)
        rows.append([kind, str(len(same)), str(len(took)), *figures, f"{silent:.2f} s"])
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _at(values: list[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    return values[min(len(values) - 1, int(share * len(values)))]


async def play(
    folder: Path,
    *,
    elector: str,
    faults: int | list[str],
    seed: int,
    members: int = 3,
    rate: float = 200.0,
    server: str = POSTGRES,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[list[Outcome], Fleet]:
    """Play faults, and return what came of them.

    Args:
        faults: How many, or of which kinds one after the other.

    Raises:
        FleetError: Something that had to be there is not, or nobody leads for too long.
    """
    chance = random.Random(seed)
    kinds = schedule(faults, chance) if isinstance(faults, int) else faults
    outcomes = []
    async with fleet(folder, elector=elector, members=members, rate=rate, server=server) as made:
        for number, kind in enumerate(kinds, 1):
            outcomes.append(await strike(made, number, kind, chance))
            tell(outcomes[-1])
        await made.settled()
    return outcomes, made


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--elector", choices=("postgres", "kubernetes"), default="postgres")
    parser.add_argument("--faults", type=int, default=20, help="how many, of all kinds")
    parser.add_argument(
        "--kinds", help="these, one after the other: kill,stop,freeze,cut,stall,'kill standby'"
    )
    parser.add_argument("--daemons", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0, help="steps of each instrument per second")
    parser.add_argument("--seed", type=int, default=None, help="play the same faults again")
    parser.add_argument("--server", default=POSTGRES, help="URL of PostgreSQL without a database")
    parser.add_argument("--json", action="store_true", help="print one document")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the daemons' logs")
    args = parser.parse_args()
    words = {*LEADER, *(f"{kind} standby" for kind in STANDBY)}
    if args.kinds is not None and not words.issuperset(args.kinds.split(",")):
        parser.error(f"--kinds: expected some of {', '.join(sorted(words))}")
    seed = random.randrange(1_000_000) if args.seed is None else args.seed

    def tell(outcome: Outcome) -> None:
        took = "the leader stayed" if outcome.took_s is None else f"{outcome.took_s:.2f} s"
        lasted = "" if outcome.lasted_s is None else f" for {outcome.lasted_s:.1f} s"
        print(f"{outcome.number:4} {outcome.kind}{lasted}: {took}, epoch {outcome.epoch}", file=sys.stderr)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what we started then, too
    folder = Path(tempfile.mkdtemp(prefix="pricefeedd-failover-"))
    began = time.monotonic()
    run = partial(
        play,
        folder,
        elector=args.elector,
        faults=args.faults if args.kinds is None else args.kinds.split(","),
        seed=seed,
        members=args.daemons,
        rate=args.rate,
        server=args.server,
        tell=tell,
    )
    try:
        outcomes, made = trio.run(run)
    except* FleetError as group:
        for error in leaves(group):
            print(error, file=sys.stderr)
        print(f"logs: {folder}", file=sys.stderr)
        sys.exit(1)
    failures = wrong(outcomes, made.watch.stale)
    facts = {
        "elector": args.elector,
        "seed": seed,
        "daemons": args.daemons,
        "seconds": round(time.monotonic() - began, 1),
        "messages": made.watch.count,
        "epochs": len(made.watch.firsts),
        "late": sum(told["late"] for told in made.watch.stale),
    }
    if args.json:
        rows = [attrs.asdict(outcome) for outcome in outcomes]
        print(json.dumps({**facts, "outcomes": rows, "stale": made.watch.stale, "wrong": failures}, indent=1))
    else:
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        print(f"\n{table(outcomes)}\n")
        if facts["late"]:
            print(f"{facts['late']} messages that frozen leaders had handed to ZeroMQ came when they thawed")
        print(
            "\n".join(failures)
            or "nobody published after another daemon did; all times are within what is promised"
        )
    if args.keep or failures:
        print(f"logs: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
