"""The simulated Binance of pricefeedd's plugin, in a process of its own: it goes on whatever happens to daemons.

It prints `{"endpoints": ...}` once it listens, and ends when its stdin does.
"""

from __future__ import annotations

import argparse
import json
import sys

import trio

from pricefeedd_binance.testing import BinanceFake


async def main() -> None:
    """Trade until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=50.0, help="steps of each instrument per second")
    args = parser.parse_args()
    # Each new leader asks for everything; a limit of requests per minute would be measured, and not the daemon.
    fake = BinanceFake(history_minutes=5, spot_weight=1_000_000, futures_weight=1_000_000)
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        nursery.start_soon(fake.play, args.rate)
        print(json.dumps({"endpoints": fake.endpoints()}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
