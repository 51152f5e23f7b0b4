"""Readiness, from literals."""

from __future__ import annotations

from pricefeedd.stats import MarketStats
from pricefeedd.web.health import readiness

SECOND = 1_000_000_000
START = 1_000 * SECOND


def market(name: str = "spot", *, connections: int = 1, last_s: float | None = None) -> MarketStats:
    last_ns = None if last_s is None else START + int(last_s * SECOND)
    return MarketStats(venue="binance", market=name, connections=connections, last_message_ns=last_ns)


def at(after_s: float, *markets: MarketStats, standby: str = "") -> tuple[bool, tuple[str, ...]]:
    found = readiness(markets, now_ns=START + int(after_s * SECOND), started_ns=START, standby=standby)
    return found.ready, found.reasons


def test_without_venues_nobody_is_sent_here() -> None:
    assert at(1) == (False, ("no venue is being served",))


def test_while_starting_a_connection_is_enough() -> None:
    assert at(1, market()) == (True, ())
    assert at(299, market()) == (True, ())
    assert at(1, market(connections=0)) == (False, ("no venue is healthy",))


def test_after_the_grace_silence_counts() -> None:
    assert at(301, market()) == (False, ("no venue is healthy", "no message came for 60 s"))
    assert at(400, market(last_s=341)) == (True, ())
    assert at(400, market(last_s=339)) == (False, ("no venue is healthy", "no message came for 60 s"))


def test_one_healthy_market_is_enough() -> None:
    assert at(400, market(connections=0, last_s=1), market("linear", last_s=399)) == (True, ())


def test_an_open_breaker_is_not_health() -> None:
    broken = market(last_s=399)
    broken.breakers["spot_ws"] = "open"
    assert at(400, broken) == (False, ("no venue is healthy",))


def test_standby_is_never_ready() -> None:
    assert at(400, market(last_s=399), standby="standby: other leads") == (False, ("standby: other leads",))


def test_facts_by_venue_and_market() -> None:
    counted = market(last_s=0)
    counted.messages, counted.errors, counted.decode_errors = 7, 2, 1
    found = readiness([counted], now_ns=START + SECOND, started_ns=START)
    assert found.venues == {
        "binance": {
            "spot": {
                "active_connections": 1,
                "last_message_time": "1970-01-01T00:16:40.000+00:00",
                "total_messages": 7,
                "total_errors": 3,
                "circuit_state": "closed",
                "healthy": True,
            }
        }
    }


def account(*, connections: int = 1) -> MarketStats:
    return MarketStats(venue="bybit", market="account:main", account="main", connections=connections)


def test_an_account_may_be_silent_for_days() -> None:
    quiet = account()
    found = readiness([quiet, market(last_s=399)], now_ns=START + 400 * SECOND, started_ns=START)
    assert found.ready
    assert found.venues["bybit"]["account:main"]["healthy"] is True
    assert at(86_400, quiet) == (True, ()), "where nothing else is served it decides"
    assert at(86_400, account(connections=0)) == (
        False,
        ("no venue is healthy", "no message came for 60 s"),
    )


def test_an_account_neither_makes_nor_breaks_the_health_of_public_data() -> None:
    assert at(400, account(connections=0), market(last_s=399)) == (True, ())
    assert at(400, account(), market(connections=0)) == (
        False,
        ("no venue is healthy", "no message came for 60 s"),
    )
