"""The counts of markets for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from pricefeedd.health import health_score
from pricefeedd.histogram import Histogram, buckets
from pricefeedd.stats import MarketStats

_LABELS: Final = ("venue", "market")

_COUNTERS: Final[tuple[tuple[str, str, Callable[[MarketStats], int]], ...]] = (
    ("messages", "Frames received.", lambda m: m.messages),
    ("received_bytes", "Payload bytes received.", lambda m: m.bytes),
    ("decode_errors", "Frames that could not be decoded.", lambda m: m.decode_errors),
    ("errors", "Sessions that ended in failure, and requests that failed.", lambda m: m.errors),
    ("reconnects", "Sessions begun after the first of each connection.", lambda m: m.reconnects),
    ("duplicates", "Events dropped because they had been seen.", lambda m: m.duplicates),
    ("gaps", "Holes found in sequences and ids.", lambda m: m.gaps),
    ("recovered", "Events filled in from REST.", lambda m: m.recovered),
    ("lost", "Events that stay lost.", lambda m: m.lost),
    ("book_resyncs", "Books thrown away and made again.", lambda m: m.resyncs),
    ("gate_blocked", "Reads that had to wait because too many waited for the gate.", lambda m: m.blocked),
    ("backfills", "REST requests that filled candles or trades.", lambda m: m.backfills),
)

#: Circuit breakers as numbers.
BREAKER: Final = {"closed": 0, "half-open": 1, "open": 2}


def counters(markets: Sequence[MarketStats]) -> Iterator[Metric]:
    """Yield what only counts up."""
    for name, text, value in _COUNTERS:
        counter = CounterMetricFamily(f"pricefeedd_{name}", text, labels=_LABELS)
        for market in markets:
            counter.add_metric((market.venue, market.market), value(market))
        yield counter
    events = CounterMetricFamily("pricefeedd_events", "Events published.", labels=(*_LABELS, "channel"))
    for market in markets:
        for channel, count in market.events.items():
            events.add_metric((market.venue, market.market, channel), count)
    yield events


def gauges(markets: Sequence[MarketStats], now_ns: int) -> Iterator[Metric]:
    """Yield how markets stand now."""
    connections = GaugeMetricFamily("pricefeedd_connections", "Open connections.", labels=_LABELS)
    breaker = GaugeMetricFamily(
        "pricefeedd_circuit_breaker_state", "0 closed, 1 half-open, 2 open.", labels=(*_LABELS, "endpoint")
    )
    last = GaugeMetricFamily(
        "pricefeedd_last_message_timestamp_seconds", "When the newest frame came.", labels=_LABELS
    )
    healthy = GaugeMetricFamily("pricefeedd_market_healthy", "1 while data flows, else 0.", labels=_LABELS)
    score = GaugeMetricFamily(
        "pricefeedd_health_score",
        "0 nothing comes, 100 all is well: connection, silence, topics, and the last minute's errors.",
        labels=_LABELS,
    )
    live = GaugeMetricFamily("pricefeedd_market_topics_live", "Topics that may be believed.", labels=_LABELS)
    topics = GaugeMetricFamily("pricefeedd_market_topics", "Topics that are asked for.", labels=_LABELS)
    offset = GaugeMetricFamily(
        "pricefeedd_venue_clock_offset_seconds",
        "The venue's clock is ahead of ours by at least so much: a lower bound, by its fastest message of a minute.",
        labels=_LABELS,
    )
    for market in markets:
        labels = (market.venue, market.market)
        connections.add_metric(labels, market.connections)
        healthy.add_metric(labels, int(market.healthy(now_ns)))
        score.add_metric(labels, health_score(market, now_ns))
        live.add_metric(labels, market.live)
        topics.add_metric(labels, market.topics)
        if market.last_message_ns is not None:
            last.add_metric(labels, market.last_message_ns / 1e9)
        if market.offset.least_ns is not None:
            offset.add_metric(labels, market.offset.least_ns / 1e9)
        for endpoint, state in market.breakers.items():
            breaker.add_metric((*labels, endpoint), BREAKER[state])
    yield from (connections, breaker, last, healthy, score, live, topics, offset)


def latencies(markets: Sequence[MarketStats]) -> Iterator[Metric]:
    """Yield how long events took, part by part.

    With many markets these are most of all that is told: each family comes in parts, one right after the other.
    """
    for name, text, of in (
        (
            "venue",
            "From the venue's clock to our receipt, of the newest event of each read. Where the venue's clock is surely "
            "ahead of ours it is put right first.",
            lambda market: market.latency,
        ),
        ("publish", "From our receipt to the bus.", lambda market: {"": market.published}),
        (
            "send",
            "From the bus until all readers that keep up have it; of what somebody reads.",
            lambda market: {"": market.sent},
        ),
    ):
        labels = (*_LABELS, "channel") if name == "venue" else _LABELS
        for market in markets:
            yield _family(f"pricefeedd_{name}_latency_seconds", text, labels, market, of(market))


def _family(
    name: str,
    text: str,
    labels: Sequence[str],
    market: MarketStats,
    histograms: Mapping[str, Histogram],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for channel, histogram in histograms.items():
        values = (market.venue, market.market, channel)[: len(labels)]
        family.add_metric(values, buckets(histogram), histogram.total_s)
    return family
