"""The simulated Binance of pricefeedd's plugin, with many instruments, in a process of its own.

It prints `{"endpoints": ..., "instruments": ...}` once it listens, and ends when its stdin does.
"""

from __future__ import annotations

import argparse
import json
import sys

import trio

from pricefeedd.testing.market import Market, many_listings
from pricefeedd_binance.testing import BinanceFake


async def main() -> None:
    """Trade until stdin ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--rate", type=float, default=2.0, help="events per instrument and second")
    args = parser.parse_args()
    # All books come at once over REST; a weight limit would make that minutes, and measure the limit.
    fake = BinanceFake(Market(many_listings(args.instruments), keep=2000), spot_weight=1_000_000)
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        nursery.start_soon(fake.play, args.rate)
        names = sorted(fake.market.listings)
        print(json.dumps({"endpoints": fake.endpoints(), "instruments": names}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
