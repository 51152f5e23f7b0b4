"""Counts, what came to them lately, and the health made of that."""

from __future__ import annotations

import pytest

from pricefeedd.health import health_score
from pricefeedd.histogram import LATENCY_BUCKETS_S, Histogram, buckets, merged, quantile
from pricefeedd.stats import BadFrame, MarketStats, Stats

S = 1_000_000_000
START = 1_767_225_600 * S


def well(now_ns: int = START) -> MarketStats:
    """Return a market at which nothing is wrong."""
    market = MarketStats(venue="binance", market="spot", connections=1, last_message_ns=now_ns)
    market.topics = market.live = 4
    return market


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((0.001, 0.01))
    histogram.observe_ns(1_000_000, 3)
    histogram.observe(0.005)
    histogram.observe(7.0)
    assert buckets(histogram) == [("0.001", 3), ("0.01", 4), ("+Inf", 5)]
    assert histogram.total_s == pytest.approx(7.008)


def test_quantiles_lie_where_prometheus_puts_them() -> None:
    assert quantile(0.5, [0, 0, 0], (1.0, 2.0)) is None
    assert quantile(0.5, [4, 0, 0], (1.0, 2.0)) == 0.5
    assert quantile(0.5, [1, 2, 1], (1.0, 2.0)) == 1.5
    assert quantile(0.99, [0, 0, 9], (1.0, 2.0)) == 2.0


def test_histograms_are_merged_by_bucket() -> None:
    one, two = Histogram(), Histogram()
    one.observe(0.0001)
    two.observe(100)
    assert merged((one, two)) == [1, *[0] * (len(LATENCY_BUCKETS_S) - 1), 1]
    assert merged(()) == [0] * (len(LATENCY_BUCKETS_S) + 1)


def test_lately_is_the_last_minute_and_no_more() -> None:
    market = well()
    for second in range(200):
        market.messages += 10
        market.published.observe_ns(1000)
        market.mark(START + second * S)
    lately = market.lately(START + 199 * S)
    assert 600 <= lately.messages <= 660
    assert lately.published[0] * 10 == lately.messages
    assert market.lately(START + 1_000 * S).messages <= 50, "nothing came since"


def test_lately_is_all_there_is_at_first_and_after_our_clock_went_back() -> None:
    market = well()
    market.messages = 7
    assert market.lately(START).messages == 7
    market.mark(START)
    market.messages = 9
    assert market.lately(START).messages == 9
    market.mark(START - 3_600 * S)
    market.messages = 12
    assert market.lately(START - 3_590 * S).messages == 3


def test_a_market_at_which_nothing_is_wrong_has_full_health() -> None:
    assert health_score(well(), START) == 100


def test_health_goes_down_with_silence() -> None:
    found = [health_score(well(), START + seconds * S) for seconds in (0, 10, 35, 60, 600)]
    assert found == [100, 100, 50, 0, 0]


def test_without_a_connection_or_a_message_there_is_no_health() -> None:
    market = well()
    market.connections = 0
    assert health_score(market, START) == 0
    market = well()
    market.last_message_ns = None
    assert health_score(market, START) == 0


def test_health_is_of_the_topics_that_may_be_believed() -> None:
    market = well()
    market.live = 1
    assert health_score(market, START) == 25


def test_what_nobody_reads_is_well_and_an_account_may_be_silent() -> None:
    market = MarketStats(venue="pyth", market="oracle", idle_ns=START)
    assert health_score(market, START) == 100
    account = MarketStats(venue="bybit", market="account:main", account="main", connections=1)
    assert health_score(account, START) == 100


@pytest.mark.parametrize(("state", "most"), [("half-open", 70), ("open", 40)])
def test_a_circuit_breaker_caps_health(state: str, most: int) -> None:
    market = well()
    market.breakers["spot_rest"] = state
    assert health_score(market, START) == most


def test_faults_cost_health_for_a_minute() -> None:
    market = well()
    for second in range(0, 120, 5):
        if second == 50:
            market.messages += 1000
            for _ in range(5):
                market.misunderstood(BadFrame(at_ns=START, feed="trade", reason="?", frame=b"?"))
            market.errors += 1
            market.reconnects += 1
            market.gaps += 2
        market.last_message_ns = START + second * S
        market.mark(START + second * S)
        if second == 50:
            # Half of the most for 0.5 % of bad frames, 10 for a session, 5 for each gap.
            assert health_score(market, START + second * S) == 100 - 15 - 10 - 10
    assert health_score(market, START + 119 * S) == 100


def test_health_stays_between_its_bounds_whatever_happens() -> None:
    market = well()
    market.mark(START)
    market.errors = market.reconnects = market.gaps = market.decode_errors = 10_000
    assert health_score(market, START) == 20
    market.live = 0
    assert health_score(market, START) == 0


def test_a_dropped_venue_leaves_nothing() -> None:
    stats = Stats(started_ns=START)
    stats.market("binance", "spot")
    stats.account("binance", "main")
    stats.market("okx", "spot")
    changes = stats.changes
    stats.drop("binance", account="main")
    assert [market.market for market in stats] == ["spot", "spot"]
    stats.drop("binance")
    assert [market.venue for market in stats] == ["okx"]
    assert stats.changes > changes
