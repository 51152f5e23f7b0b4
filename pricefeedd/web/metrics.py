"""The counts of `stats` for Prometheus. They stay plain integers; this reads them when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import attrs
import trio
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from pricefeedd.events import State
from pricefeedd.web import (
    market_metrics,
    metrics_compat,
    process_metrics,
    reader_metrics,
    sink_metrics,
    source_metrics,
    store_metrics,
    venue_metrics,
)
from pricefeedd.web.daemon import Daemon

#: So much is done between two looks at what else there is to do: about a millisecond.
TOPICS_AT_ONCE: Final = 1_000
SAMPLES_AT_ONCE: Final = 150

_END: Final = b"# EOF\n"


@attrs.define
class _Topics:
    """What is counted over all topics.

    Attributes:
        states: How many there are, by venue, channel and state.
        symbols: Messages by instrument; empty unless the old names are served.
    """

    states: dict[tuple[str, str, State], int] = attrs.field(factory=dict)
    symbols: dict[str, int] = attrs.field(factory=dict)


@attrs.frozen
class _Part:
    """Some families in the place of a registry: encoders want no more of one than this."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self.families


class Metrics:
    """The metrics of one daemon, with those of its process."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._process = CollectorRegistry()
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)
        if not list(ProcessCollector(registry=self._process).collect()):
            self._process.register(process_metrics.ProcessFallback())
        self._candles: metrics_compat.Candles | None = None
        self._compat()

    def _compat(self) -> metrics_compat.Candles | None:
        """Return what counts for the old names; None while they are not asked for."""
        if not self._daemon.config.metrics.compat:
            return None
        if self._candles is None:
            self._candles = metrics_compat.Candles(self._daemon.bus, self._daemon.directory)
        return self._candles

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics where the Accept header asks for it.

        It takes turns with everybody else: the counts of one scrape may be some milliseconds apart.
        """
        encode, content_type = choose_encoder(accept)
        topics = await self._count_topics()
        text: list[bytes] = []
        told = ""
        for families in self._groups(topics):
            for family in families:
                for part in _parts(family):
                    encoded = encode(_Part([part])).removesuffix(_END)
                    # A family may come in several parts, one right after the other.
                    text.append(_without_head(encoded) if part.name == told else encoded)
                    told = part.name
                    await trio.lowlevel.checkpoint()
        if content_type.startswith("application/openmetrics-text"):
            text.append(_END)
        return b"".join(text), content_type

    def _groups(self, topics: _Topics) -> Iterator[Iterable[Metric]]:
        """Yield all families, as they stand when they are asked for."""
        daemon = self._daemon
        stats = daemon.stats
        facts = daemon.describe()
        yield process_metrics.families(stats, daemon.now_ns())
        yield process_metrics.of_leader(facts.get("leader"))
        yield process_metrics.of_reloads(facts.get("reload"))
        yield market_metrics.counters(list(stats))
        yield market_metrics.gauges(list(stats), daemon.now_ns())
        yield market_metrics.latencies(list(stats))
        yield venue_metrics.families(facts.get("sessions", {}))
        yield venue_metrics.of_accounts(facts.get("accounts", {}))
        yield reader_metrics.families(stats.readers, frames=stats.readers.frames + daemon.bus.sent)
        yield self._topics(topics)
        yield store_metrics.families(daemon.archive.store)
        yield source_metrics.families(facts.get("source"))
        yield sink_metrics.families(facts.get("sinks", {}))
        candles = self._compat()
        if candles is not None:
            yield metrics_compat.connector(list(stats), candles, facts.get("sessions", {}))
            yield metrics_compat.websocket(list(stats), topics.symbols)
        yield self._process.collect()

    async def _count_topics(self) -> _Topics:
        """Look at all topics, some at a time."""
        found, bus, compat = _Topics(), self._daemon.bus, self._compat() is not None
        all_topics = list(bus)
        for at in range(0, len(all_topics), TOPICS_AT_ONCE):
            for topic in all_topics[at : at + TOPICS_AT_ONCE]:
                key = (topic.venue, topic.channel, bus.state(topic))
                found.states[key] = found.states.get(key, 0) + 1
                if compat:
                    metrics_compat.count_symbol(found.symbols, topic.channel, topic.instrument, topic.count)
            await trio.lowlevel.checkpoint()
        return found

    def _topics(self, found: _Topics) -> Iterator[Metric]:
        topics = GaugeMetricFamily(
            "pricefeedd_topics", "Topics served.", labels=("venue", "channel", "state")
        )
        for venue, channel in sorted({key[:2] for key in found.states}):
            for state in State:
                topics.add_metric((venue, channel, state.value), found.states.get((venue, channel, state), 0))
        yield topics
        published = self._daemon.bus.published
        yield CounterMetricFamily("pricefeedd_published", "Messages put on the bus.", value=published)
        subscriptions = GaugeMetricFamily(
            "pricefeedd_subscriptions",
            "Subscriptions of services by the REST API.",
            labels=("venue", "channel_type", "active"),
        )
        for (venue, kind, active), count in sorted(self._daemon.subscriptions.counts().items()):
            subscriptions.add_metric((venue, kind, str(active).lower()), count)
        yield subscriptions


def _parts(family: Metric) -> Iterator[Metric]:
    """Cut a large family into some that are encoded one at a time."""
    if len(family.samples) <= SAMPLES_AT_ONCE:
        yield family
        return
    for at in range(0, len(family.samples), SAMPLES_AT_ONCE):
        part = Metric(family.name, family.documentation, family.type, family.unit)
        part.samples = family.samples[at : at + SAMPLES_AT_ONCE]
        yield part


def _without_head(text: bytes) -> bytes:
    """Return the samples without what is said of the family before them."""
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))
