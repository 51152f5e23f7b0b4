"""When a leader is of no use: all that it serves is unhealthy, and another daemon may reach what it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from pricefeedd.stats import MarketStats

_LOOK_S = 1.0


async def until_unhealthy(
    markets: Iterable[MarketStats], now_ns: Callable[[], int], after_s: Callable[[], float]
) -> None:
    """Wait until every market was unhealthy for so long, counted from now at the earliest.

    Where there is nothing, nothing is unhealthy. Accounts do not count: they may rightly be silent.
    """
    well = trio.current_time()
    while True:
        found = [market for market in markets if not market.account]
        if not found or any(market.healthy(now_ns()) for market in found):
            well = trio.current_time()
        elif trio.current_time() - well >= after_s():
            return
        await trio.sleep(_LOOK_S)
