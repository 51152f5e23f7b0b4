"""Runs a daemon for hours against a busy venue that fails every minute, and looks whether anything grows or is kept quiet.

    uv run contrib/soak/run.py --minutes 60 --rate 2000
    uv run contrib/soak/run.py --minutes 60 --page --output soak

A daemon with a store and a sink, a simulated venue, and readers that check each number. Memory, tasks, descriptors, CPU and the
loop's lag are sampled; it writes samples.csv, curve.svg and result.json. It ends with 1 if something grew from the second quarter of
the time to the last, if a reader lost what nobody told it, or if the page stood still.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from curve import line, svg
from parts import Helper, SoakError, cpu_s, descriptors, environment, pause, resident_mb
from prometheus_client.parser import text_string_to_metric_families

from pricefeedd.testing.ports import free_port

#: What the venue does wrong, and for how many seconds where it lasts.
VENUE = {
    "cut": 0.0,
    "away": 6.0,
    "stall": 8.0,
    "garbage": 0.0,
    "slow_rest": 20.0,
    "drop": 0.0,
    "half_close": 0.0,
    "rest_down": 15.0,
    "duplicate": 0.0,
    "reorder": 0.0,
    "close": 0.0,
    "nonsense": 0.0,
    "ping_flood": 0.0,
    "slow_drip": 10.0,
    "fragment": 10.0,
}
#: What we do besides: a reader freezes or is killed, and the configuration is read again.
OURS = ("reader_stall", "reader_kill", "reload")
STALL_S = 15.0

SAMPLE_S = 10.0
FAULT_S = 60.0
#: What was told up to now must have reached the reader after so long.
SETTLE_S = 30.0

#: Until then histories fill, and what grows says nothing.
WARM_S = 180.0
#: How much the median of the last quarter may lie above that of the second one.
GROWTH = {"rss_mb": (0.05, 8.0), "tasks": (0.0, 4.0), "descriptors": (0.0, 4.0)}

COLUMNS = (
    *("seconds", "rss_mb", "tasks", "descriptors", "cpu", "lag_ms", "messages_s", "told_s", "announced"),
    *("unannounced", "missing", "page", "fault"),
)


class Soak:
    """All that runs, and what was seen of it."""

    def __init__(self, folder: Path, args: argparse.Namespace, stack: ExitStack) -> None:
        self.folder = folder
        self.samples: list[dict[str, Any]] = []
        self.marks: list[tuple[float, str]] = []
        self.stood = 0
        self._stack = stack
        self._port = free_port()
        self._extra = False
        self._due: list[tuple[float, Callable[[], None]]] = []
        self.venue = self._helper("venue.py", "--rate", str(args.rate))
        self._endpoints = self.venue.read()["endpoints"]
        self._configure()
        log = stack.enter_context((folder / "log").open("ab"))
        self.daemon = subprocess.Popen(
            [sys.executable, "-m", "pricefeedd.cli", "run", "--config", "pricefeedd.toml"],
            cwd=folder,
            env={**environment(), "STATE_DIRECTORY": str(folder / "state")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.callback(self._end_daemon)
        self._client = stack.enter_context(httpx.Client(base_url=self._url, timeout=10, trust_env=False))
        self._await_ready()
        self.readers = {kind: self._reader(kind) for kind in ("all", "thin", "slow")}
        self.page: Helper | None = None
        if args.page:
            self.page = self._helper("page.py", self._url + "/")
            self.page.read()
        self.began = time.monotonic()
        self._before: tuple[float, ...] = (0.0,) * 6
        self.sample()  # what came before counts for nothing
        self.samples.clear()

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def elapsed(self) -> float:
        """Seconds since all of it ran."""
        return time.monotonic() - self.began

    def _helper(self, script: str, *arguments: str) -> Helper:
        made = Helper(script, *arguments)
        self._stack.callback(made.end)
        return made

    def _reader(self, kind: str) -> Helper:
        reader = self._helper("reader.py", self._url.replace("http", "ws") + "/ws", kind)
        reader.read()
        return reader

    def _configure(self) -> None:
        """Write the configuration; every other time with one more channel."""
        channels = '"trade", "quote", "book", "candle_1m"' + (', "ticker"' if self._extra else "")
        (self.folder / "pricefeedd.toml").write_text(
            "\n".join(
                [
                    f'web.listen = ["127.0.0.1:{self._port}"]',
                    "[[venues.binance.subscribe]]",
                    'market = "spot"',
                    'instruments = ["BTC-USDT", "ETH-USDT", "SOL-USDT"]',
                    f"channels = [{channels}]",
                    "[[venues.binance.subscribe]]",
                    'market = "linear"',
                    'instruments = ["BTC-USDT-PERP"]',
                    'channels = ["trade", "quote", "book", "candle_1m"]',
                    "[venues.binance.endpoints]",
                    *(f'{name} = "{url}"' for name, url in self._endpoints.items()),
                    "[store]",
                    "[sinks.jsonl]",
                    'topics = ["trade:*:*"]',
                    'compression = "gzip"',
                    "keep_days = 1",
                    "[logging]",
                    'format = "json"',
                    "",
                ]
            )
        )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.daemon.poll() is not None:
                break
            try:
                if self._client.get("/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not yet
            pause(0.1)
        raise SoakError(f"the daemon does not become ready; its log is {self.folder / 'log'}")

    def _end_daemon(self) -> None:
        self.daemon.terminate()
        try:
            self.daemon.wait(15)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()

    # --- faults -------------------------------------------------------------------------------------------

    def fail(self, what: str) -> None:
        """Let one thing go wrong."""
        self.marks.append((self.elapsed, what))
        if what in VENUE:
            self.venue.ask(json.dumps({"do": what, "seconds": VENUE[what]}))
        elif what == "reload":
            self._extra = not self._extra
            self._configure()
            self.daemon.send_signal(signal.SIGHUP)
        elif what == "reader_kill":
            self.readers["thin"].end()
            self.readers["thin"] = self._reader("thin")
        else:
            pid = self.readers["slow"].pid
            os.kill(pid, signal.SIGSTOP)
            self._due.append((time.monotonic() + STALL_S, lambda: os.kill(pid, signal.SIGCONT)))

    def undo(self, *, now: bool = False) -> None:
        """End what has lasted long enough."""
        for due in list(self._due):
            if now or time.monotonic() >= due[0]:
                self._due.remove(due)
                due[1]()

    # --- samples ------------------------------------------------------------------------------------------

    def sample(self) -> dict[str, Any]:
        """Look at everything once.

        Raises:
            SoakError: The daemon has ended.
        """
        if self.daemon.poll() is not None:
            raise SoakError(
                f"the daemon ended with {self.daemon.returncode}; its log is {self.folder / 'log'}"
            )
        pid = self.daemon.pid
        metrics = {
            sample.name: sample.value
            for family in text_string_to_metric_families(self._client.get("/metrics").text)
            for sample in family.samples
        }
        found = {kind: helper.ask() for kind, helper in self.readers.items() if not self._frozen(kind)}
        told = self.venue.ask('{"do": "truth"}')
        looked = self.page.ask() if self.page is not None else {"ticks": True, "errors": []}
        if not looked["ticks"] or looked["errors"]:
            self.stood += 1
        now = time.monotonic()
        lag_s, lags = metrics["pricefeedd_loop_lag_seconds_sum"], metrics["pricefeedd_loop_lag_seconds_count"]
        everything = found["all"]
        after = (now, cpu_s(pid), everything["messages"], told["sent"], lag_s, lags)
        span_s, cpu, messages, sent, late_s, turns = (b - a for a, b in zip(self._before, after, strict=True))
        self._before = after
        trades = everything["trades"].values()
        row = {
            "seconds": round(self.elapsed, 1),
            "rss_mb": round(resident_mb(pid), 2),
            "tasks": int(metrics["pricefeedd_tasks"]),
            "descriptors": descriptors(pid),
            "cpu": round(cpu / span_s, 3),
            "lag_ms": round(1000 * late_s / turns, 3) if turns else 0.0,
            "messages_s": round(messages / span_s),
            "told_s": round(sent / span_s),
            "announced": sum(one["announced"] for one in found.values()),
            "unannounced": sum(one["unannounced"] for one in found.values()),
            "missing": sum(one["missing"] for one in trades),
            "page": int(looked["ticks"]),
            "fault": "",
        }
        self.samples.append(row)
        return row

    def _frozen(self, kind: str) -> bool:
        return kind == "slow" and bool(self._due)

    def last_words(self) -> tuple[dict[str, Any], list[str]]:
        """Let everything settle, and return what readers have, and what is wrong with that."""
        self.undo(now=True)
        truth = self.venue.ask('{"do": "truth"}')["last"]
        deadline = time.monotonic() + SETTLE_S
        wrong: list[str] = []
        while True:
            everything = self.readers["all"].ask()
            behind = [
                f"{name}: the venue told trade {last}, the reader has {got}"
                for name, last in truth.items()
                if (got := everything["trades"].get(f"trade:binance:{name}", {}).get("last", 0)) < last
            ]
            if not behind or time.monotonic() > deadline:
                break
            pause(0.5)
        wrong += behind
        figures = {kind: reader.ask() for kind, reader in self.readers.items()}
        for kind, one in figures.items():
            wrong += [f"reader {kind} lost what nobody told it: {what}" for what in one["wrong"]]
        for topic, trades in figures["all"]["trades"].items():
            if trades["missing"] > trades["announced"] and not trades["blind"]:
                wrong.append(
                    f"{topic}: {trades['missing']} trades never came, and only {trades['announced']} were said to be lost"
                )
        return figures, wrong


def grown(samples: list[dict[str, Any]]) -> list[str]:
    """Return what grew from the second quarter to the last; nothing in a run too short to say."""
    samples = [row for row in samples if row["seconds"] > WARM_S]
    quarter = len(samples) // 4
    if quarter < 3:
        return []
    found = []
    for name, (share, more) in GROWTH.items():
        before = statistics.median(row[name] for row in samples[quarter : 2 * quarter])
        after = statistics.median(row[name] for row in samples[-quarter:])
        if after > before + max(before * share, more):
            found.append(f"{name} grew from {before:g} to {after:g}")
    return found


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="messages of the venue a second")
    parser.add_argument("--fault-every", type=float, default=FAULT_S, help="seconds; 0 for no faults")
    parser.add_argument("--sample-every", type=float, default=SAMPLE_S, help="seconds")
    parser.add_argument("--calm", type=float, default=SETTLE_S, help="seconds without faults at the end")
    parser.add_argument("--seed", type=int, default=1, help="order of the faults")
    parser.add_argument(
        "--page", action="store_true", help="keep the status page open in a browser (Playwright)"
    )
    parser.add_argument("--output", type=Path, default=Path("soak"), help="folder for what is written")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what we started then, too
    folder = Path(tempfile.mkdtemp(prefix="pricefeedd-soak-"))
    wrong: list[str] = []
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        try:
            soak = Soak(folder, args, stack)
        except SoakError as e:
            print(e, file=sys.stderr)
            return 1
        try:
            _play(soak, args, chance)
            figures, wrong = soak.last_words()
        except (SoakError, httpx.HTTPError) as e:
            wrong = [str(e)]
        finally:
            soak.undo(now=True)
        if soak.stood:
            wrong.append(f"the page stood still or failed {soak.stood} times")
        wrong += grown(soak.samples)
    _write(args.output, soak, figures, wrong)
    print("\n".join(wrong) or "nothing grew, and nothing was lost without a word")
    if wrong:
        print(f"logs: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


def _play(soak: Soak, args: argparse.Namespace, chance: random.Random) -> None:
    """Sample and fail until the time is over, with nothing that fails towards the end."""
    faults: list[str] = []
    next_fault = args.fault_every or float("inf")
    next_sample = 0.0
    end = args.minutes * 60
    while soak.elapsed < end:
        soak.undo()
        if soak.elapsed >= next_fault and soak.elapsed < end - args.calm:
            if not faults:
                faults = chance.sample([*VENUE, *OURS], len(VENUE) + len(OURS))
            soak.fail(faults.pop())
            next_fault += args.fault_every
        if soak.elapsed >= next_sample:
            next_sample += args.sample_every
            row = soak.sample()
            row["fault"] = " ".join(
                what for at, what in soak.marks if at > row["seconds"] - args.sample_every
            )
            shown = (f"{name} {row[name]}" for name in COLUMNS[1:-1])
            print(f"{row['seconds']:7.0f} s  {', '.join(shown)}  {row['fault']}", flush=True)
        pause(0.2)


def _write(folder: Path, soak: Soak, figures: dict[str, Any], wrong: list[str]) -> None:
    with (folder / "samples.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(soak.samples)
    names = ("rss_mb", "tasks", "descriptors", "cpu", "lag_ms", "messages_s", "announced", "unannounced")
    curves = {name: [row[name] for row in soak.samples] for name in names}
    times = [row["seconds"] for row in soak.samples]
    (folder / "curve.svg").write_text(svg("pricefeedd, soaked", times, curves, soak.marks))
    result = {"wrong": wrong, "readers": figures, "faults": soak.marks}
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    for name, values in curves.items():
        if values:
            print(f"{name:12} {line(values)} {min(values):g} to {max(values):g}")


if __name__ == "__main__":
    sys.exit(main())
