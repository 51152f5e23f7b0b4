"""Single families of metrics: what a daemon in good order never shows."""

from __future__ import annotations

import time
from typing import Any

from pricefeedd.bus import Bus
from pricefeedd.events import Candle
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, Kind
from pricefeedd.stats import MarketStats, ReaderStats
from pricefeedd.web import (
    metrics_compat,
    process_metrics,
    reader_metrics,
    sink_metrics,
    venue_metrics,
)

FACTS: dict[str, Any] = {
    "state": "up",
    "delivered": 0,
    "waiting": 0,
    "lane_bytes": 0,
    "reconnects": 0,
    "dropped": {},
    "queues": {},
    "gauges": {},
    "spool": None,
}


def values(families: Any) -> dict[tuple[str, ...], float]:
    """Return values by name and values of labels."""
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_cpu_and_memory_are_told_where_there_is_no_proc() -> None:
    found = values(process_metrics.ProcessFallback().collect())
    assert 0 < found["process_cpu_seconds_total",] <= time.process_time() * 1.1 + 1
    assert 5_000_000 < found["process_resident_memory_bytes",] < 1 << 40


def test_names_that_a_sink_makes_up_are_bounded() -> None:
    many = {f"made-up-{number}": 1 for number in range(1_000)}
    found = values(sink_metrics.families({"wild": FACTS | {"dropped": many}}))
    told = {key[2]: value for key, value in found.items() if key[0] == "pricefeedd_sink_dropped_total"}
    assert len(told) == sink_metrics.MOST_NAMES + 1
    assert told["other"] == 1_000 - sink_metrics.MOST_NAMES


def test_what_waits_for_readers_is_summed_up() -> None:
    class Slow:
        def __init__(self, waiting_bytes: int) -> None:
            self.waiting_bytes = waiting_bytes

    readers = ReaderStats(connected=5)
    readers.lagging.update((Slow(100), Slow(30)))
    readers.delay.observe(0.3)
    found = values(reader_metrics.families(readers, frames=9))
    assert found["pricefeedd_clients",] == 5
    assert found["pricefeedd_clients_lagging",] == 2
    assert found["pricefeedd_reader_queue_bytes",] == 130
    assert found["pricefeedd_reader_queue_max_bytes",] == 100
    assert found["pricefeedd_reader_delay_seconds_count",] == 1
    assert found["pricefeedd_frames_sent_total",] == 9


def test_who_leads_and_what_became_of_reloads() -> None:
    lead = {"elector": "postgres", "leads": False, "fence": 7, "changes": 3, "since": 5_000_000_000}
    found = values(process_metrics.of_leader(lead))
    assert found["pricefeedd_leader", "postgres"] == 0
    assert found["pricefeedd_leader_fence", "postgres"] == 7
    assert found["pricefeedd_leader_changes_total", "postgres"] == 3
    assert found["pricefeedd_leader_since_timestamp_seconds", "postgres"] == 5
    reloads = {"count": 4, "failed": 1, "last": 6_000_000_000, "last_ok": False}
    found = values(process_metrics.of_reloads(reloads))
    assert found["pricefeedd_reloads_total",] == 4
    assert found["pricefeedd_reload_ok",] == 0
    assert not values(process_metrics.of_leader(None))
    assert not values(process_metrics.of_reloads(None))


def test_a_venue_that_is_only_beginning_has_little_to_tell() -> None:
    assert not values(venue_metrics.families({"okx": {}}))
    found = values(venue_metrics.families({"okx": {"clock": {"least_s": -0.5, "most_s": 0.2}}}))
    assert found["pricefeedd_venue_clock_bound_seconds", "okx", "least"] == -0.5


def test_the_old_connector_had_other_numbers_for_its_breaker_and_counted_candles() -> None:
    bus, directory = Bus(), Directory()
    btc = Instrument(
        venue="okx",
        market="spot",
        name="BTC-USDT",
        symbol="BTC-USDT",
        kind=Kind.SPOT,
        base="BTC",
        quote="USDT",
    )
    directory.put(InstrumentMap("okx", "spot", [btc]))
    candles = metrics_compat.Candles(bus, directory)
    for instrument, interval, closed in (
        ("BTC-USDT", "1m", False),
        ("BTC-USDT", "1m", True),
        ("BTC-USDT", "5m", True),
        ("GONE-USDT", "1m", True),
    ):
        bus.publish(
            [
                Candle(
                    venue="okx",
                    instrument=instrument,
                    received_ns=1,
                    venue_time_ns=1,
                    start_ns=0,
                    interval=interval,
                    open="1",
                    high="1",
                    low="1",
                    close="1",
                    volume="1",
                    closed=closed,
                )
            ]
        )
    market = MarketStats(venue="okx", market="spot", breakers={"spot_ws": "open"}, errors=2, decode_errors=3)
    account = MarketStats(venue="okx", market="account:main", account="main", errors=50)
    found = values(metrics_compat.connector([market, account], candles, {"okx": {"queue": {"batches": 9}}}))
    assert found["connector_quotes_processed_total", "okx", "spot", "True"] == 1
    assert found["connector_quotes_processed_total", "okx", "spot", "False"] == 1
    assert found["connector_circuit_breaker_state", "okx", "spot"] == 1
    assert found["connector_queue_depth_closed", "okx", "spot"] == 9
    assert found["connector_connection_errors_total", "okx", "spot", "decode"] == 3
    assert found["connector_connection_errors_total", "okx", "spot", "connection"] == 2
    assert not [key for key in found if "account:main" in key]
    market.breakers["spot_ws"] = "half-open"
    found = values(metrics_compat.connector([market], candles, {}))
    assert found["connector_circuit_breaker_state", "okx", "spot"] == 2
