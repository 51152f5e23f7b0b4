"""CPU per message from the socket to the user's code, in turns with others on the same frames.

Each contestant is a process of its own and measures its own CPU time; a sender in another process feeds it
frames that were encoded before. The rounds are interleaved, so that a change of the machine's mood hits all.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence

import attrs
from processes import HERE, BenchError, helper, table

#: Long enough for uv to fetch a rival, once.
PATIENCE_S = 300.0


@attrs.frozen(kw_only=True)
class Contestant:
    """One row of the table.

    Attributes:
        variant: Told to the script, which has several ways.
        foreign: Its script brings dependencies that pricefeedd does not have; uv installs them apart.
    """

    name: str
    title: str
    script: str
    variant: str = ""
    foreign: bool = False

    def command(self) -> list[str]:
        """Return how to start it."""
        uv = shutil.which("uv")
        start = (
            [uv, "run", "--quiet", "--no-project", "--script"] if self.foreign and uv else [sys.executable]
        )
        return [*start, str(HERE / self.script)]


CONTESTANTS = (
    Contestant(
        name="pricefeedd",
        title="pricefeedd: socket, decode, gate, bus",
        script="ingest_pricefeedd.py",
    ),
    Contestant(
        name="pricefeedd-reader",
        title="pricefeedd, with a reader: and JSON, frame",
        script="ingest_pricefeedd.py",
        variant="reader",
    ),
    Contestant(
        name="trio-websocket",
        title="trio-websocket: get_message, no decoding",
        script="ingest_trio_websocket.py",
    ),
    Contestant(
        name="trio-websocket-orjson",
        title="trio-websocket: get_message, orjson.loads",
        script="ingest_trio_websocket.py",
        variant="orjson",
    ),
    Contestant(
        name="cryptofeed",
        title="cryptofeed: Binance feed, empty callbacks",
        script="ingest_cryptofeed.py",
        foreign=True,
    ),
)


@attrs.frozen(kw_only=True)
class Load:
    """What the sender sends.

    Attributes:
        pause_ms: From the start of one burst to the next; 0 sends as fast as the receiver takes.
    """

    messages: int
    instruments: int
    burst: int
    pause_ms: float

    @property
    def title(self) -> str:
        """Return the heading of its column."""
        if self.pause_ms:
            return f"{self.burst} every {self.pause_ms:g} ms"
        return "all at once"


def measure(contestant: Contestant, load: Load) -> float:
    """Return µs of CPU per message of one run.

    Raises:
        BenchError: The contestant is not there, or did not get all messages.
    """
    with helper(
        "sender.py",
        f"--messages={load.messages}",
        f"--instruments={load.instruments}",
        f"--burst={load.burst}",
        f"--pause-ms={load.pause_ms}",
    ) as sender:
        command = [
            *contestant.command(),
            f"--port={sender.read()['port']}",
            f"--messages={load.messages}",
            f"--instruments={load.instruments}",
            f"--variant={contestant.variant}",
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=HERE, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise BenchError(f"{contestant.name} did not get all messages in {PATIENCE_S:.0f} s") from e
    if done.returncode:
        why = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BenchError(f"{contestant.name} failed: {why}")
    return float(json.loads(done.stdout.splitlines()[-1])["us"])


def run(chosen: Sequence[Contestant], loads: Sequence[Load], rounds: int) -> str:
    """Return the table: medians over the rounds, and ratios to pricefeedd's."""
    found: dict[tuple[str, Load], list[float]] = {}
    absent: dict[str, str] = {}
    for number in range(rounds):
        for load in loads:
            for contestant in chosen:
                if contestant.name in absent:
                    continue
                print(f"  round {number + 1}, {load.title}: {contestant.name} ...", file=sys.stderr)
                try:
                    us = measure(contestant, load)
                except BenchError as e:
                    if not contestant.foreign:
                        raise
                    absent[contestant.name] = str(e)
                    continue
                found.setdefault((contestant.name, load), []).append(us)
    header = ["µs CPU per message"]
    for load in loads:
        header += [load.title, "ratio"]
    rows = []
    for contestant in chosen:
        row = [contestant.title]
        for load in loads:
            if contestant.name in absent:
                row += ["absent", ""]
                continue
            us = statistics.median(found[contestant.name, load])
            ours = found.get((CONTESTANTS[0].name, load))
            row += [f"{us:.1f}", f"{us / statistics.median(ours):.2f}" if ours else ""]
        rows.append(row)
    notes = [f"\n{reason}" for reason in absent.values()]
    return "\n".join([table(header, rows), *notes])
