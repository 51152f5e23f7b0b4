"""How fast the queue on disk takes records, hands them out and forgets them: `python contrib/bench/spool.py`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import trio

from pricefeedd.spool import Spool


async def measure(folder: Path, group: int, seconds: float, size: int) -> None:
    """Print one row: groups of so many, appended, read and done one after the other."""
    spool = Spool(folder / f"{group}.db", limit_bytes=1 << 32)
    await spool.open()
    records = [b"x" * size] * group
    waits = []
    count, begun, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        last = await spool.append(records)
        waits.append(time.perf_counter() - before)
        count += group
    append_s, append_cpu = time.perf_counter() - begun, time.process_time() - cpu
    begun, cpu, at = time.perf_counter(), time.process_time(), 0
    while at < last:
        at = (await spool.read(at, max(group, 100)))[-1].number
        await spool.done(at)
    drain_s, drain_cpu = time.perf_counter() - begun, time.process_time() - cpu
    await spool.close()
    waits.sort()
    print(
        f"{group:>6} {count / append_s:>12,.0f} {append_cpu / count * 1e6:>8.1f} {waits[len(waits) // 2] * 1e3:>8.2f} "
        f"{waits[int(len(waits) * 0.99)] * 1e3:>8.2f} {count / drain_s:>12,.0f} {drain_cpu / count * 1e6:>8.1f}"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--bytes", type=int, default=400)
    parser.add_argument("--folder", type=Path, help="where; the disk counts")
    arguments = parser.parse_args()
    print(f"{'':6} {'append':>12} {'CPU':>8} {'p50':>8} {'p99':>8} {'read, done':>12} {'CPU':>8}")
    print(f"{'group':>6} {'records/s':>12} {'µs':>8} {'ms':>8} {'ms':>8} {'records/s':>12} {'µs':>8}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for group in (1, 10, 100, 1000):
            await measure(Path(folder), group, arguments.seconds, arguments.bytes)


if __name__ == "__main__":
    trio.run(main)
