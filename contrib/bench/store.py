"""How fast candles get into a database, what a row costs, and how late the loop is meanwhile.

    python contrib/bench/store.py                                                # SQLite in a folder of its own
    python contrib/bench/store.py postgresql://postgres@127.0.0.1:5432/bench     # a database that may be filled

`rows/s` and `CPU` of `write` are those of the database alone, in batches; of `store` those of the whole way, from the
bus over the spool into the database. The rows are written twice: once new, once as changes.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path

import structlog
import trio

from pricefeedd.bus import Bus
from pricefeedd.config import StoreConfig
from pricefeedd.events import Candle
from pricefeedd.store import rows
from pricefeedd.store.database import Database
from pricefeedd.store.service import Store
from pricefeedd.store.writing import write

MINUTE_NS = 60_000_000_000
BEGAN_NS = 1_767_225_600_000_000_000


def candles(count: int, first: int = 0) -> list[Candle]:
    """Return closed minutes of a thousand instruments."""
    return [
        Candle(
            venue="bench",
            instrument=f"I{n % 1_000}-USDT",
            received_ns=BEGAN_NS,
            start_ns=BEGAN_NS + n // 1_000 * MINUTE_NS,
            open="65000.10",
            high="65010.00",
            low="64990.55",
            close="65001.20",
            volume="12.34567",
            turnover="802461.12",
            trades=411,
            closed=True,
        )
        for n in range(first, first + count)
    ]


def show(name: str, count: int, began: float, cpu: float, lags: list[float] | None = None) -> None:
    """Print a row."""
    rate = count / (time.perf_counter() - began)
    cost = (time.process_time() - cpu) / count * 1e6
    late = "" if not lags else f"{sorted(lags)[len(lags) * 99 // 100] * 1e3:>9.1f} {max(lags) * 1e3:>9.1f}"
    print(f"{name:<26} {rate:>10,.0f} {cost:>8.1f} {late}")


def measure_write(url: str, count: int) -> None:
    """Measure the database alone."""
    database = Database(url)
    database.migrate()
    for batch in (1, 100, 1_000):
        some = [rows.Entry(rows.CANDLES, rows.candle_row(c)) for c in candles(min(count, batch * 200))]
        with database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM candles")
        for what in ("new", "changed"):
            began, cpu = time.perf_counter(), time.process_time()
            for at in range(0, len(some), batch):
                with database.writing() as connection:
                    write(connection, some[at : at + batch])
            show(f"write, {what}, by {batch}", len(some), began, cpu)
    database.close()


async def measure_store(url: str, folder: Path, count: int) -> None:
    """Measure the whole way, and the loop."""
    bus = Bus()
    store = Store(bus, StoreConfig(url=url), folder, now_ns=time.time_ns)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        while store.state != "up":  # noqa: ASYNC110  # it has no event for this
            await trio.sleep(0.01)
        made = [candles(1_000, first) for first in range(0, count, 1_000)]
        gc.collect()  # as the daemon does
        gc.freeze()
        gc.set_threshold(100_000, 50, 1_000)
        await trio.sleep(0.5)
        for what in ("idle", "store"):
            lags: list[float] = []
            began, cpu = time.perf_counter(), time.process_time()
            waiting = iter(made if what == "store" else ())
            while (
                time.perf_counter() - began < 1.0
                if what == "idle"
                else store.written.get("candles", 0) < count
            ):
                batch = next(waiting, None)
                if batch is not None:
                    bus.publish(batch)
                due = trio.current_time() + 0.002
                await trio.sleep_until(due)
                lags.append(trio.current_time() - due)
            show(what, count if what == "store" else 1, began, cpu, lags)
        store.end()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", nargs="?", help="a database; its candles are deleted")
    parser.add_argument("--rows", type=int, default=50_000, help="candles (%(default)s)")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/bench.db"
        print(f"{'':26} {'':>10} {'CPU':>8} {'lag p99':>9} {'lag max':>9}")
        print(f"{'':26} {'rows/s':>10} {'µs/row':>8} {'ms':>9} {'ms':>9}")
        measure_write(url, arguments.rows)
        trio.run(measure_store, url, Path(folder), arguments.rows)


if __name__ == "__main__":
    main()
