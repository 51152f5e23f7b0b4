"""`[metrics] compat`: the metric names of the systems that pricefeedd replaces, with their labels.

`connector_*` were those of a connector for OHLCV quotes, by `exchange` and `contract_type`; its quotes are candles here.
`websocket_*` and `message_processing_seconds` were those of a price service that knew one venue. What every name
means is in contrib/prometheus/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.metrics_core import Metric

from pricefeedd.bus import Bus
from pricefeedd.events import PRIVATE_CHANNELS, Candle
from pricefeedd.histogram import PROCESSING_BUCKETS_S, Histogram, buckets, merged
from pricefeedd.instruments import Directory
from pricefeedd.message import Message
from pricefeedd.stats import MarketStats

_LABELS: Final = ("exchange", "contract_type")

#: The old connector had other numbers than `pricefeedd_circuit_breaker_state`.
_BREAKER: Final = {"closed": 0, "open": 1, "half-open": 2}


class Candles:
    """Counts candles as they pass, by market and by whether they are closed."""

    def __init__(self, bus: Bus, directory: Directory) -> None:
        """Begin to count."""
        self.counts: dict[tuple[str, str, bool], int] = {}
        self._directory = directory
        self._markets: dict[tuple[str, str], str] = {}
        bus.listen(Candle, self._count)

    def _count(self, message: Message) -> None:
        event = message.event
        if not isinstance(event, Candle) or event.interval != "1m":
            return
        key = (event.venue, event.instrument)
        market = self._markets.get(key)
        if market is None:
            try:
                market = self._directory.find(*key).market
            except LookupError:
                return  # its venue was taken from the configuration this moment
            self._markets[key] = market
        counted = (event.venue, market, event.closed)
        self.counts[counted] = self.counts.get(counted, 0) + 1


def connector(
    markets: Sequence[MarketStats], candles: Candles, sessions: Mapping[str, Mapping[str, Any]]
) -> Iterator[Metric]:
    """Yield `connector_*`; accounts had no part in it."""
    markets = [market for market in markets if not market.account]
    quotes = CounterMetricFamily(
        "connector_quotes_processed", "Minute candles published.", labels=(*_LABELS, "is_closed")
    )
    for (venue, name, closed), count in sorted(candles.counts.items()):
        quotes.add_metric((venue, name, str(closed)), count)
    latency = HistogramMetricFamily(
        "connector_quote_latency_seconds", "From the venue's clock to ours, of candles.", labels=_LABELS
    )
    connections = GaugeMetricFamily("connector_active_connections", "Open connections.", labels=_LABELS)
    errors = CounterMetricFamily(
        "connector_connection_errors",
        "Sessions and requests that failed, and frames that could not be decoded.",
        labels=(*_LABELS, "error_type"),
    )
    breaker = GaugeMetricFamily(
        "connector_circuit_breaker_state",
        "0 closed, 1 open, 2 half-open; the worst of the market.",
        labels=_LABELS,
    )
    depth = GaugeMetricFamily(
        "connector_queue_depth_closed",
        "Reads that wait between the venue's sessions and its gates.",
        labels=_LABELS,
    )
    blocked = CounterMetricFamily(
        "connector_queue_blocking_events", "Times that a session waited because it was full.", labels=_LABELS
    )
    duplicates = CounterMetricFamily("connector_duplicates_filtered", "Events seen before.", labels=_LABELS)
    for market in markets:
        labels = (market.venue, market.market)
        histogram = market.latency.get("candle_1m") or Histogram()
        latency.add_metric(labels, buckets(histogram), histogram.total_s)
        connections.add_metric(labels, market.connections)
        errors.add_metric((*labels, "connection"), market.errors)
        errors.add_metric((*labels, "decode"), market.decode_errors)
        breaker.add_metric(labels, _BREAKER[market.circuit_state])
        depth.add_metric(labels, sessions.get(market.venue, {}).get("queue", {}).get("batches", 0))
        blocked.add_metric(labels, market.blocked)
        duplicates.add_metric(labels, market.duplicates)
    yield from (quotes, latency, connections, errors, breaker, depth, blocked, duplicates)


def websocket(markets: Sequence[MarketStats], symbols: Mapping[str, int]) -> Iterator[Metric]:
    """Yield `websocket_*` and `message_processing_seconds`.

    The counters had no `_total` where they were described, and one where the client library showed them: both are
    served.

    Args:
        symbols: Messages by symbol.
    """
    markets = [market for market in markets if not market.account]
    for suffix in ("", "_total"):
        yield UnknownMetricFamily(
            f"websocket_messages_processed{suffix}",
            "Frames received.",
            value=sum(market.messages for market in markets),
        )
        by_symbol = UnknownMetricFamily(
            f"websocket_messages_by_symbol{suffix}", "Messages published.", labels=("symbol",)
        )
        for symbol, count in symbols.items():
            by_symbol.add_metric((symbol,), count)
        yield by_symbol
        yield UnknownMetricFamily(
            f"websocket_connection_errors{suffix}",
            "Sessions that ended in failure, and requests that failed.",
            value=sum(market.errors for market in markets),
        )
    newest_ns = max((market.last_message_ns or 0 for market in markets), default=0)
    yield GaugeMetricFamily(
        "websocket_last_message_timestamp_seconds", "When the newest frame came.", value=newest_ns / 1e9
    )
    together = Histogram(PROCESSING_BUCKETS_S)
    together.counts = merged((market.published for market in markets), PROCESSING_BUCKETS_S)
    together.total_ns = sum(market.published.total_ns for market in markets)
    processing = HistogramMetricFamily("message_processing_seconds", "From our receipt to the bus.")
    processing.add_metric((), buckets(together), together.total_s)
    yield processing


def count_symbol(symbols: dict[str, int], channel: str, instrument: str, count: int) -> None:
    """Add a topic's messages to those of its instrument; accounts had no part in it."""
    if channel not in PRIVATE_CHANNELS:
        symbols[instrument] = symbols.get(instrument, 0) + count
