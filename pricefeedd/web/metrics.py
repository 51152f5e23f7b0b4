"""The counts of `stats` for Prometheus. They stay plain integers; this reads them when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pricefeedd.events import State
from pricefeedd.histogram import buckets
from pricefeedd.stats import MarketStats
from pricefeedd.web import sink_metrics, source_metrics, store_metrics
from pricefeedd.web.daemon import Daemon

_LABELS = ("venue", "market")

_COUNTERS: tuple[tuple[str, str, Callable[[MarketStats], int]], ...] = (
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
    ("backfills", "REST requests that filled candles or trades.", lambda m: m.backfills),
)

_BREAKER = {"closed": 0, "half-open": 1, "open": 2}


class StatsCollector(Collector):
    """Turns the daemon's counts into metric families."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are checked when collected."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all families, as they stand now."""
        yield from self._markets(list(self._daemon.stats))
        yield from self._readers()
        yield from self._topics()
        yield self._subscriptions()
        yield from store_metrics.families(self._daemon.archive.store)
        facts = self._daemon.describe()
        yield from source_metrics.families(facts.get("source"))
        yield from sink_metrics.families(facts.get("sinks", {}))

    def _markets(self, markets: list[MarketStats]) -> Iterator[Metric]:
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(f"pricefeedd_{name}", text, labels=_LABELS)
            for market in markets:
                counter.add_metric((market.venue, market.market), value(market))
            yield counter
        events = CounterMetricFamily("pricefeedd_events", "Events published.", labels=(*_LABELS, "channel"))
        latency = HistogramMetricFamily(
            "pricefeedd_venue_latency_seconds",
            "From the venue's clock to ours.",
            labels=(*_LABELS, "channel"),
        )
        connections = GaugeMetricFamily("pricefeedd_connections", "Open connections.", labels=_LABELS)
        breaker = GaugeMetricFamily(
            "pricefeedd_circuit_breaker_state",
            "0 closed, 1 half-open, 2 open.",
            labels=(*_LABELS, "endpoint"),
        )
        last = GaugeMetricFamily(
            "pricefeedd_last_message_timestamp_seconds", "When the newest frame came.", labels=_LABELS
        )
        health = GaugeMetricFamily("pricefeedd_market_healthy", "1 while data flows, else 0.", labels=_LABELS)
        now_ns = self._daemon.now_ns()
        for market in markets:
            labels = (market.venue, market.market)
            connections.add_metric(labels, market.connections)
            health.add_metric(labels, int(market.healthy(now_ns)))
            if market.last_message_ns is not None:
                last.add_metric(labels, market.last_message_ns / 1e9)
            for channel, count in market.events.items():
                events.add_metric((*labels, channel), count)
            for channel, histogram in market.latency.items():
                latency.add_metric((*labels, channel), buckets(histogram), histogram.total_s)
            for endpoint, state in market.breakers.items():
                breaker.add_metric((*labels, endpoint), _BREAKER[state])
        yield from (events, latency, connections, breaker, last, health)

    def _readers(self) -> Iterator[Metric]:
        readers = self._daemon.stats.readers
        yield GaugeMetricFamily("pricefeedd_clients", "WebSocket readers now.", value=readers.connected)
        for name, text, value in (
            ("clients_accepted", "WebSocket readers since the start.", readers.accepted),
            ("frames_sent", "Data frames handed to readers.", readers.frames + self._daemon.bus.sent),
            ("conflated", "Messages replaced by newer ones for a reader that lagged.", readers.conflated),
            ("reader_events_lost", "Events dropped for a reader that lagged.", readers.lost),
        ):
            yield CounterMetricFamily(f"pricefeedd_{name}", text, value=value)
        closed = CounterMetricFamily("pricefeedd_clients_closed", "Readers that we closed.", labels=("code",))
        for code, count in readers.closed.items():
            closed.add_metric((str(code),), count)
        yield closed

    def _topics(self) -> Iterator[Metric]:
        counts: dict[tuple[str, str, str], int] = {}
        for topic in self._daemon.bus:
            key = (topic.venue, topic.channel, self._daemon.bus.state(topic).value)
            counts[key] = counts.get(key, 0) + 1
        topics = GaugeMetricFamily(
            "pricefeedd_topics", "Topics served.", labels=("venue", "channel", "state")
        )
        for venue, channel in sorted({key[:2] for key in counts}):
            for state in State:
                topics.add_metric((venue, channel, state.value), counts.get((venue, channel, state.value), 0))
        yield topics
        published = self._daemon.bus.published
        yield CounterMetricFamily("pricefeedd_published", "Messages put on the bus.", value=published)
        uptime = (self._daemon.now_ns() - self._daemon.stats.started_ns) / 1e9
        yield GaugeMetricFamily("pricefeedd_uptime_seconds", "Time since the start.", value=uptime)

    def _subscriptions(self) -> Metric:
        found = GaugeMetricFamily(
            "pricefeedd_subscriptions",
            "Subscriptions of services by the REST API.",
            labels=("venue", "channel_type", "active"),
        )
        for (venue, kind, active), count in sorted(self._daemon.subscriptions.counts().items()):
            found.add_metric((venue, kind, str(active).lower()), count)
        return found


class Metrics:
    """The registry of one daemon, with the process's own metrics."""

    def __init__(self, daemon: Daemon) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StatsCollector(daemon))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics where the Accept header asks for it."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type
