"""The counts of the store for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from pricefeedd.histogram import buckets

if TYPE_CHECKING:
    from pricefeedd.store.service import Store  # what it needs takes a third of a second to load


def families(store: Store | None) -> Iterator[Metric]:
    """Yield what there is to tell; nothing without a store."""
    if store is None:
        return
    for name, text, value in (
        ("up", "1 while the database takes rows, else 0.", int(store.state == "up")),
        ("waiting", "Rows that are not in the database yet.", store.waiting),
        ("lag_seconds", "How long the oldest of them waits.", store.lag_s),
    ):
        yield GaugeMetricFamily(f"pricefeedd_store_{name}", text, value=value)
    rows = CounterMetricFamily("pricefeedd_store_rows", "Rows written.", labels=("table",))
    for table, count in store.written.copy().items():
        rows.add_metric((table,), count)
    yield rows
    dropped = CounterMetricFamily(
        "pricefeedd_store_dropped", "Rows lost: neither disk nor memory had room.", labels=("lane",)
    )
    for lane in store.lanes:
        dropped.add_metric((lane.name,), lane.dropped)
    yield dropped
    size = GaugeMetricFamily(
        "pricefeedd_store_spool_bytes", "Bytes of rows that wait on disk.", labels=("lane",)
    )
    limit = GaugeMetricFamily(
        "pricefeedd_store_spool_limit_bytes", "Most that may wait there.", labels=("lane",)
    )
    for lane in store.lanes:
        size.add_metric((lane.name,), lane.spool.bytes)
        limit.add_metric((lane.name,), lane.spool.limit_bytes)
    yield from (size, limit)
    for name, text, count in (
        ("errors", "Tries to use the database that failed.", store.errors),
        ("refused", "Rows that the database refused, put aside.", store.refused),
    ):
        yield CounterMetricFamily(f"pricefeedd_store_{name}", text, value=count)
    taken = HistogramMetricFamily(
        "pricefeedd_store_write_seconds", "How long a transaction that writes takes."
    )
    taken.add_metric((), buckets(store.write_time), store.write_time.total_s)
    yield taken
