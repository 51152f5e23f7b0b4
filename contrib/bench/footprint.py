"""Memory of a daemon at work, and how long starting takes."""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from daemon import daemon, pause
from processes import environment, helper, rss_mb, table

CHANNELS = ("trade", "quote", "candle_1m", "book")


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Say what can be chosen."""
    parser.add_argument("--instruments", type=int, default=200, help="with four channels each (%(default)s)")
    parser.add_argument("--minutes", type=float, default=1.0, help="memory is looked at then (%(default)s)")


def version_s() -> float:
    """Return how long `pricefeedd --version` takes, the median of five."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "pricefeedd.cli", "--version"],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment(),
        )
        times.append(time.monotonic() - began)
    return statistics.median(times)


def _live(port: int) -> int:
    """Return how many topics are live."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/feeds")
        feeds: Any = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return sum(1 for feed in feeds["feeds"] if feed["state"] == "live")


def run(args: argparse.Namespace) -> str:
    """Return the table."""
    minutes = args.minutes
    print(f"  {args.instruments} instruments for {minutes:g} min ...", file=sys.stderr)
    with helper("fake_binance.py", f"--instruments={args.instruments}") as fake:
        told = fake.read()
        endpoints = {name: url for name, url in told["endpoints"].items() if name.startswith("spot_")}
        with daemon(endpoints, told["instruments"], CHANNELS):
            pass  # the first start compiles the modules
        with daemon(endpoints, told["instruments"], CHANNELS) as running:
            at_start = rss_mb(running.pid)
            pause(60 * minutes)
            later = rss_mb(running.pid)
            live = _live(running.port)
    rows = [
        ["memory when /health first answers", f"{at_start:.0f} MB"],
        [
            f"memory after {minutes:g} min of {args.instruments} instruments x {', '.join(CHANNELS)}",
            f"{later:.0f} MB",
        ],
        ["topics live by then", f"{live} of {args.instruments * len(CHANNELS)}"],
        ["from starting the process to /health", f"{running.start_s:.2f} s"],
        ["`pricefeedd --version`", f"{version_s():.2f} s"],
    ]
    return table(["what", "value"], rows)
