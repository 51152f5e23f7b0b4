"""From the venue's socket to the reader's, through the whole daemon: how late, how much CPU, anything lost?"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import attrs
from daemon import daemon, pause
from processes import BenchError, Helper, cpu_s, helper, table
from sender import instruments
from servers import crowd

#: So much at the beginning is warm-up.
WARM_UP_S = 1.0
#: After the last trade, for what is on its way.
_SETTLE_S = 10.0
#: Readers that look at what they get; with more, the others only count.
_LOOKING = 50
#: Above this rate trades leave in one write per ms, or the sender would need the core of another.
_SINGLE_RATE = 5000.0


@attrs.frozen(kw_only=True)
class Load:
    """What goes through the daemon.

    Attributes:
        rate: Trades a second, evenly over the instruments.
        readers: Of one instrument each.
    """

    rate: float
    instruments: int
    readers: int

    @property
    def title(self) -> str:
        """Return the heading of its row."""
        return f"{self.rate:g}/s of {self.instruments} instruments, {self.readers} readers"


def _load(text: str) -> Load:
    rate, kinds, readers = text.split(":")
    return Load(rate=float(rate), instruments=int(kinds), readers=int(readers))


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    parser.add_argument(
        "--loads",
        default="5000:100:100,20000:200:1000,50000:200:1000",
        help="trades a second : instruments : readers of one instrument each, with commas between (%(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=10, help="how long (%(default)s)")


def _subscribed(sender: Helper, instruments: int) -> None:
    for _ in range(600):
        sender.tell("status")
        if sender.read()["subscribed"] >= instruments:
            return
        pause(0.05)
    raise BenchError("the daemon did not subscribe everything within 30 s")


def _sent(sender: Helper) -> int:
    """Return how many trades left; a sender that is held up ends late."""
    for _ in range(600):
        sender.tell("status")
        status = sender.read()
        if status["sent"] and not status["sending"]:
            return int(status["sent"])
        pause(0.05)
    raise BenchError("the daemon did not take what the sender had within 30 s")


def measure(load: Load, seconds: float) -> dict[str, Any]:
    """Return the figures of one run.

    Raises:
        BenchError: Something did not start, or a reader was cut off.
    """
    sending = helper(
        "sender.py",
        f"--instruments={load.instruments}",
        f"--rate={load.rate}",
        f"--tick-ms={0 if load.rate <= _SINGLE_RATE else 1}",
        f"--seconds={seconds + WARM_UP_S}",
    )
    sample = max(1, load.readers // _LOOKING) if load.readers > 2 * _LOOKING else 1
    with sending as sender:
        base = f"127.0.0.1:{sender.read()['port']}"
        endpoints = {"spot_ws": f"ws://{base}", "spot_rest": f"http://{base}"}
        with daemon(endpoints, instruments(load.instruments), ["trade"]) as running:
            _subscribed(sender, load.instruments)
            chosen = [f"--instruments={load.instruments}", f"--sample={sample}", "--clock", "--no-snapshot"]
            with crowd(running.port, load.readers, *chosen, topic=None) as reading:
                reading.connect()
                pids = {"daemon": running.pid, "sender": sender.pid, "readers": reading.pid}
                before = {name: cpu_s(pid) for name, pid in pids.items()}
                began = time.monotonic()
                sender.tell("go")
                pause(seconds + WARM_UP_S)
                sent = _sent(sender)
                wall_s = time.monotonic() - began
                spent = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
                # Readers go round the instruments: each instrument's trades count once for each of its readers.
                expected = sum(
                    _trades(load, sent, at) * len(range(at, load.readers, load.instruments))
                    for at in range(load.instruments)
                )
                reading.do("await", received=expected, within_s=_SETTLE_S)
                result = reading.do("result", skip=WARM_UP_S / (seconds + WARM_UP_S))
    if result["gone"]:
        raise BenchError(f"the daemon closed {result['gone']} readers")
    result["sent"] = sent
    result["lost"] = max(result.pop("missing"), expected - result["received"])
    result["cpu_us"] = spent["daemon"] / sent * 1e6
    result["busy"] = {name: cpu / wall_s for name, cpu in spent.items()}
    return result


def _trades(load: Load, sent: int, instrument: int) -> int:
    return sent // load.instruments + (instrument < sent % load.instruments)


def run(args: argparse.Namespace) -> str:
    """Return the table, with one run of each load."""
    rows = []
    for load in map(_load, args.loads.split(",")):
        print(f"  {load.title}, {args.seconds:g} s ...", file=sys.stderr)
        found = measure(load, args.seconds)
        rows.append(
            [
                load.title,
                f"{found['p50_ms']:.2f}",
                f"{found['p99_ms']:.2f}",
                f"{found['max_ms']:.2f}",
                str(found["sent"]),
                str(found["received"]),
                str(found["lost"]),
                f"{found['cpu_us']:.0f}",
                *(f"{found['busy'][name]:.0%}" for name in ("daemon", "sender", "readers")),
            ]
        )
    header = ["load", "p50 ms", "p99 ms", "max ms", "sent", "received", "lost", "daemon µs CPU per trade"]
    header += ["daemon's core", "sender's", "readers'"]
    about = (
        f"One instrument to a reader; the trade carries the sender's clock, taken before it is written, and the "
        f"reader takes his after reading. All on loopback, {args.seconds:g} s, and {WARM_UP_S:g} s before that is left "
        f"out of the latencies. Above {_SINGLE_RATE:g}/s the sender writes once a ms what is due. Of a crowd "
        f"{_LOOKING} readers look and all count."
    )
    return f"{about}\n\n{table(header, rows)}"
