"""The daemon as a process, and as one of several, for Prometheus."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import trio
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pricefeedd import __version__
from pricefeedd.histogram import buckets
from pricefeedd.stats import Stats


def families(stats: Stats, now_ns: int) -> Iterator[Metric]:
    """Yield what runs, for how long, and how well its loop turns."""
    build = InfoMetricFamily("pricefeedd_build", "What runs.")
    build.add_metric(
        (), {"version": __version__, "python": platform.python_version(), "trio": trio.__version__}
    )
    yield build
    uptime = (now_ns - stats.started_ns) / 1e9
    yield GaugeMetricFamily("pricefeedd_uptime_seconds", "Time since the start.", value=uptime)
    lag = HistogramMetricFamily("pricefeedd_loop_lag_seconds", "How late the event loop woke a task.")
    lag.add_metric((), buckets(stats.loop_lag), stats.loop_lag.total_s)
    yield lag
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield GaugeMetricFamily("pricefeedd_tasks", "Tasks that are alive.", value=tasks)


def of_leader(lead: Mapping[str, Any] | None) -> Iterator[Metric]:
    """Yield who leads; nothing where that is not known."""
    if lead is None:
        return
    label = (str(lead["elector"]),)
    leads = GaugeMetricFamily(
        "pricefeedd_leader",
        "1 while this daemon leads or has no other to share with, 0 on standby.",
        labels=("elector",),
    )
    leads.add_metric(label, int(lead["leads"]))
    fence = GaugeMetricFamily(
        "pricefeedd_leader_fence", "Number of the term that this daemon led last.", labels=("elector",)
    )
    fence.add_metric(label, lead["fence"] or 0)
    changes = CounterMetricFamily(
        "pricefeedd_leader_changes", "How often this daemon came to lead, or ceased to.", labels=("elector",)
    )
    changes.add_metric(label, lead["changes"])
    yield from (leads, fence, changes)
    if lead["since"]:
        since = GaugeMetricFamily(
            "pricefeedd_leader_since_timestamp_seconds", "When that was last.", labels=("elector",)
        )
        since.add_metric(label, lead["since"] / 1e9)
        yield since


def of_reloads(reloads: Mapping[str, Any] | None) -> Iterator[Metric]:
    """Yield what became of reloads; nothing where there are none."""
    if reloads is None:
        return
    for name, text, count in (
        ("reloads", "Times that the configuration was read again.", reloads["count"]),
        ("reload_failures", "Times that it was refused.", reloads["failed"]),
    ):
        yield CounterMetricFamily(f"pricefeedd_{name}", text, value=count)
    ok = int(reloads["last_ok"])
    yield GaugeMetricFamily(
        "pricefeedd_reload_ok", "0 if the configuration was refused when it was read last.", value=ok
    )
    if reloads["last"]:
        yield GaugeMetricFamily(
            "pricefeedd_reload_timestamp_seconds", "When it was read again last.", value=reloads["last"] / 1e9
        )


class ProcessFallback(Collector):
    """Memory and CPU where the client library does not know how to ask: it reads `/proc`."""

    def collect(self) -> Iterator[Metric]:
        """Yield the names of the library, as far as the system tells."""
        yield CounterMetricFamily(
            "process_cpu_seconds", "User and system CPU time.", value=time.process_time()
        )
        try:
            import resource
        except ImportError:  # Windows
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        # getrusage(2) counts kilobytes, on macOS bytes; and only the most that there ever was.
        peak = used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024
        yield GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory: the most that it ever was.", value=peak
        )
