"""The counts of readers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from pricefeedd.histogram import buckets
from pricefeedd.stats import ReaderStats


def families(readers: ReaderStats, *, frames: int) -> Iterator[Metric]:
    """Yield what there is to tell.

    Args:
        frames: Data frames handed to sockets, by whomever.
    """
    waiting = [reader.waiting_bytes for reader in readers.lagging]
    for name, text, value in (
        ("clients", "WebSocket readers now.", readers.connected),
        (
            "clients_lagging",
            "Readers for whom something waits: they do not keep up, or read over TLS.",
            len(waiting),
        ),
        ("reader_queue_bytes", "Bytes that wait for readers.", sum(waiting)),
        ("reader_queue_max_bytes", "Bytes that wait for the reader with most.", max(waiting, default=0)),
    ):
        yield GaugeMetricFamily(f"pricefeedd_{name}", text, value=value)
    for name, text, value in (
        ("clients_accepted", "WebSocket readers since the start.", readers.accepted),
        ("frames_sent", "Data frames handed to readers.", frames),
        ("conflated", "Messages replaced by newer ones for a reader that lagged.", readers.conflated),
        ("reader_events_lost", "Events dropped for a reader that lagged.", readers.lost),
    ):
        yield CounterMetricFamily(f"pricefeedd_{name}", text, value=value)
    closed = CounterMetricFamily("pricefeedd_clients_closed", "Readers that we closed.", labels=("code",))
    for code, count in readers.closed.items():
        closed.add_metric((str(code),), count)
    yield closed
    delay = HistogramMetricFamily(
        "pricefeedd_reader_delay_seconds",
        "Of readers that lag: from our receipt to the socket, of the oldest message whenever there was room.",
    )
    delay.add_metric((), buckets(readers.delay), readers.delay.total_s)
    yield delay
