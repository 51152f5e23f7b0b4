"""From the venue's socket to the reader's, through the whole daemon: how late, how much CPU, anything lost?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from daemon import daemon, pause
from processes import BenchError, Helper, cpu_s, helper, table
from sender import instruments

INSTRUMENTS = 100
#: So much at the beginning is warm-up.
WARM_UP_S = 1.0


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    parser.add_argument("--rate", type=float, default=5000, help="trades a second (%(default)s)")
    parser.add_argument("--readers", type=int, default=100, help="of one instrument each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="how long (%(default)s)")


def _subscribed(sender: Helper) -> None:
    for _ in range(600):
        sender.tell("status")
        if sender.read()["subscribed"] >= INSTRUMENTS:
            return
        pause(0.05)
    raise BenchError("the daemon did not subscribe everything within 30 s")


def measure(rate: float, readers: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one run.

    Raises:
        BenchError: Something did not start, or a reader was cut off.
    """
    sending = helper(
        "sender.py", f"--instruments={INSTRUMENTS}", f"--rate={rate}", f"--seconds={seconds + WARM_UP_S}"
    )
    names = instruments(INSTRUMENTS)
    with sending as sender:
        base = f"127.0.0.1:{sender.read()['port']}"
        endpoints = {"spot_ws": f"ws://{base}", "spot_rest": f"http://{base}"}
        with daemon(endpoints, names, ["trade"]) as running:
            _subscribed(sender)
            per_second = rate * readers / INSTRUMENTS
            reading = helper(
                "readers.py",
                f"--port={running.port}",
                f"--readers={readers}",
                f"--instruments={INSTRUMENTS}",
                f"--skip={int(per_second * WARM_UP_S)}",
            )
            with reading as crowd:
                crowd.read()
                before = cpu_s(running.pid)
                sender.tell("go")
                pause(seconds + WARM_UP_S + 0.5)
                spent = cpu_s(running.pid) - before
                sender.tell("status")
                sent = sender.read()["sent"]
                crowd.tell("stop")
                result = crowd.read()
    # Readers go round the instruments: each instrument's trades count once for each of its readers.
    expected = sum(
        _trades(sent, at) * (readers // INSTRUMENTS + (at < readers % INSTRUMENTS))
        for at in range(INSTRUMENTS)
    )
    result["sent"] = sent
    result["lost"] = max(result.pop("missing"), expected - result["received"])
    result["cpu_us"] = spent / max(sent, 1) * 1e6
    return result


def _trades(sent: int, instrument: int) -> int:
    return sent // INSTRUMENTS + (instrument < sent % INSTRUMENTS)


def run(args: argparse.Namespace) -> str:
    """Return the table of one run."""
    print(f"  {args.rate:g} trades/s to {args.readers} readers, {args.seconds:g} s ...", file=sys.stderr)
    found = measure(args.rate, args.readers, args.seconds)
    row = [
        f"{args.rate:g}/s, {args.readers} readers",
        f"{found['p50_ms']:.2f}",
        f"{found['p99_ms']:.2f}",
        f"{found['max_ms']:.2f}",
        str(found["sent"]),
        str(found["received"]),
        str(found["lost"]),
        f"{found['cpu_us']:.0f}",
    ]
    header = ["load", "p50 ms", "p99 ms", "max ms", "sent", "received", "lost", "daemon µs CPU per trade"]
    about = (
        f"Trades of {INSTRUMENTS} instruments, one instrument to a reader; the trade carries the sender's clock, "
        f"taken before it is written, and the reader takes his after reading. All on loopback, the first "
        f"{WARM_UP_S:g} s left out of the latencies."
    )
    return f"{about}\n\n{table(header, [row])}"
