"""What is known of the source of a relay, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

_COUNTERS = {
    "messages": "Messages that came from the upstream.",
    "duplicates": "Messages that were known already.",
    "outdated": "Messages of an epoch that had ended.",
    "unwanted": "Messages of topics or accounts that are not configured.",
    "unreadable": "Messages that could not be understood.",
    "gaps": "Jumps of numbers.",
    "missing": "Events and changes of books that did not come.",
    "conflated": "Messages of state that did not come, and for which newer ones stand.",
    "recovered": "Messages that were fetched after a jump.",
    "epochs": "How often the upstream began anew.",
    "reconnects": "Connections after the first.",
}


def families(source: Mapping[str, Any] | None) -> Iterator[Metric]:
    """Yield what `/status` says of the source as metric families; nothing without one."""
    if source is None:
        return
    label = (source["name"],)
    for key, text in _COUNTERS.items():
        counter = CounterMetricFamily(f"pricefeedd_source_{key}", text, labels=("source",))
        counter.add_metric(label, source[key])
        yield counter
    up = GaugeMetricFamily(
        "pricefeedd_source_up", "1 while the upstream is connected and caught up with.", labels=("source",)
    )
    up.add_metric(label, int(source["state"] == "up"))
    yield up
    for key, text in (
        ("lag_s", "From the upstream's receipt of the newest message to ours."),
        ("last_message_age_s", "Since something came last."),
    ):
        if source[key] is not None:
            name = f"pricefeedd_source_{key.removesuffix('_s')}_seconds"
            gauge = GaugeMetricFamily(name, text, labels=("source",))
            gauge.add_metric(label, source[key])
            yield gauge
    offsets = GaugeMetricFamily(
        "pricefeedd_source_offset", "How far each stream was read.", labels=("source", "stream")
    )
    for name, offset in source["positions"].items():
        offsets.add_metric((*label, name), offset)
    yield offsets
