"""What is known of sinks, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from pricefeedd.web.openapi_sinks import STATES

#: Each name that a plugin makes up is a time series: so many, and no more.
MOST_NAMES = 100


def families(sinks: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield what is measured of the sinks."""
    name = ("sink",)
    up = GaugeMetricFamily("pricefeedd_sink_up", "1 while the sink delivers, else 0.", labels=name)
    state = GaugeMetricFamily("pricefeedd_sink_state", "1 for the state it is in.", labels=("sink", "state"))
    delivered = CounterMetricFamily("pricefeedd_sink_delivered", "Messages that arrived.", labels=name)
    dropped = CounterMetricFamily(
        "pricefeedd_sink_dropped", "Messages that are lost.", labels=("sink", "reason")
    )
    waiting = GaugeMetricFamily("pricefeedd_sink_waiting", "Messages that the sink holds.", labels=name)
    reconnects = CounterMetricFamily(
        "pricefeedd_sink_reconnects", "Connections after the first.", labels=name
    )
    queues = GaugeMetricFamily(
        "pricefeedd_sink_queue_messages", "Messages that wait at the other side.", labels=("sink", "queue")
    )
    gauges = GaugeMetricFamily("pricefeedd_sink_gauge", "What only this sink has.", labels=("sink", "name"))
    records = GaugeMetricFamily("pricefeedd_sink_spool_records", "Events that wait on disk.", labels=name)
    size = GaugeMetricFamily("pricefeedd_sink_spool_bytes", "Bytes that wait on disk.", labels=name)
    limit = GaugeMetricFamily("pricefeedd_sink_spool_limit_bytes", "Most that may wait there.", labels=name)
    age = GaugeMetricFamily(
        "pricefeedd_sink_spool_oldest_age_seconds", "How long the oldest of them waits.", labels=name
    )
    lane = GaugeMetricFamily(
        "pricefeedd_sink_lane_bytes", "Bytes of events and books that it has not taken yet.", labels=name
    )
    for sink, facts in sinks.items():
        up.add_metric((sink,), int(facts["state"] == "up"))
        for each in STATES:
            state.add_metric((sink, each), int(facts["state"] == each))
        delivered.add_metric((sink,), facts["delivered"])
        waiting.add_metric((sink,), facts["waiting"])
        reconnects.add_metric((sink,), facts["reconnects"])
        lane.add_metric((sink,), facts["lane_bytes"])
        for family, values in ((dropped, "dropped"), (queues, "queues"), (gauges, "gauges")):
            for key, value in _bounded(facts[values]).items():
                family.add_metric((sink, key), value)
        spool = facts["spool"]
        if spool is not None:
            records.add_metric((sink,), spool["records"] + spool["pending"])
            size.add_metric((sink,), spool["bytes"])
            limit.add_metric((sink,), spool["limit_bytes"])
            age.add_metric((sink,), spool["oldest_age_s"] or 0.0)
    yield from (up, state, delivered, dropped, waiting, lane, reconnects, queues, gauges)
    yield from (records, size, limit, age)


def _bounded(values: Mapping[str, float]) -> Mapping[str, float]:
    """Return what a sink told by names of its own: of too many names, the last are told as one."""
    if len(values) <= MOST_NAMES:
        return values
    items = list(values.items())
    rest = sum(value for _, value in items[MOST_NAMES:])
    return dict(items[:MOST_NAMES]) | {"other": rest}
