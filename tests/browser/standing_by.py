"""A daemon that stands by: its elector lets it lead when a line comes on stdin, and no more at the next one."""

from __future__ import annotations

import sys
import time
from typing import Any

import trio

from pricefeedd.config import build
from pricefeedd.hookspecs import Elector, Leadership
from pricefeedd.loader import load_plugins
from pricefeedd.service import Daemon
from pricefeedd_binance.testing import BinanceFake


async def elect(settings: Any, leadership: Leadership) -> None:
    """Lead by order of whoever writes to us."""
    fence = 0
    leadership.heard("other:7:abc")
    while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        fence += 1
        leadership.gained(fence, until=time.monotonic() + 600)
        await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        leadership.lost("another one was chosen")
        leadership.heard("other:7:abc")


async def main() -> None:
    """Serve."""
    plugins = load_plugins()
    plugins.electors = {"word": Elector(name="word", api_version=1, run=elect)}
    fake = BinanceFake()
    subscribe = [{"market": "spot", "instruments": ["BTC-USDT"], "channels": ["trade", "quote"]}]
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        nursery.start_soon(fake.play, 20.0)
        config = build(
            {
                "web": {"listen": ["127.0.0.1:0"]},
                "venues": {"binance": {"endpoints": dict(fake.endpoints()), "subscribe": subscribe}},
                "leader": {"elector": "word"},
            },
            venues=plugins.venues,
            sinks=plugins.sinks,
            electors=plugins.electors,
            environ={},
            source="test",
        )
        (base,) = await nursery.start(Daemon(config, plugins).run)
        print(f"serving on {base}")


if __name__ == "__main__":
    trio.run(main)
