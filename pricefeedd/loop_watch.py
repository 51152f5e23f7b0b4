"""Whether the event loop keeps up: how late a task wakes that asked to be woken."""

from __future__ import annotations

import trio

from pricefeedd.stats import Stats

#: How often is looked. Each look costs some 20 µs, and a loop that is held up is late for all looks meanwhile.
LOOK_S = 0.25


async def watch_loop(stats: Stats) -> None:
    """Measure how late the loop turns; runs until cancelled."""
    while True:
        due = trio.current_time() + LOOK_S
        await trio.sleep_until(due)
        stats.loop_lag.observe_ns(max(int((trio.current_time() - due) * 1e9), 0))
