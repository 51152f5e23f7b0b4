"""Whether the daemon is ready, and why not: pure, told the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from pricefeedd.stats import MarketStats

#: After the start a market counts as healthy once it is connected, message or not.
GRACE_S = 300.0

#: Silence of all markets together that ends readiness.
SILENCE_S = 60.0


@attrs.frozen
class Readiness:
    """The answer of `/ready`.

    Attributes:
        ready: Whether clients should be sent here.
        reasons: Why not, and what else is amiss that is no reason to send clients elsewhere.
        venues: The facts, by venue and market.
    """

    ready: bool
    reasons: tuple[str, ...]
    venues: dict[str, dict[str, dict[str, Any]]]


def iso(ns: int | None) -> str | None:
    """Return a wall clock time as ISO 8601 in UTC; None for None."""
    return None if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")


def readiness(
    markets: Iterable[MarketStats],
    *,
    now_ns: int,
    started_ns: int,
    standby: str = "",
    on_request: bool = False,
) -> Readiness:
    """Return whether we are ready.

    Not ready: on standby; when no market is healthy; and, once the grace after the start is over, when no
    message came from anywhere for a minute. A market that is served on demand and that nobody reads is healthy.
    Accounts are shown, but only decide where nothing else is served: they may rightly be silent for days.

    Args:
        on_request: Venues are configured, and nothing of them: they are begun when services ask.
    """
    in_grace = now_ns - started_ns < GRACE_S * 1e9
    venues: dict[str, dict[str, dict[str, Any]]] = {}
    any_healthy = False
    newest: int | None = None
    markets = list(markets)
    only_accounts = all(market.account for market in markets)
    for market in markets:
        up = market.idle(now_ns) or (market.connections > 0 and market.circuit_state != "open")
        healthy = up if in_grace else market.healthy(now_ns, silence_s=SILENCE_S)
        counts = only_accounts or not market.account
        any_healthy = any_healthy or (healthy and counts)
        for seen_ns in (market.last_message_ns, market.idle_ns):
            if seen_ns is not None and counts:
                newest = max(newest or 0, seen_ns)
        venues.setdefault(market.venue, {})[market.market] = {
            "active_connections": market.connections,
            "last_message_time": iso(market.last_message_ns),
            "total_messages": market.messages,
            "total_errors": market.errors + market.decode_errors,
            "circuit_state": market.circuit_state,
            "healthy": healthy,
        }
    reasons = []
    if standby:
        reasons.append(standby)
    waiting = on_request and not venues
    if not venues and not waiting:
        reasons.append("no venue is being served")
    elif venues and not any_healthy:
        reasons.append("no venue is healthy")
    silent = newest is None or now_ns - newest >= SILENCE_S * 1e9
    if not in_grace and silent and not waiting and not (only_accounts and any_healthy):
        reasons.append(f"no message came for {SILENCE_S:g} s")
    return Readiness(not reasons, tuple(reasons), venues)


def source_readiness(source: Mapping[str, Any], *, now_ns: int, started_ns: int) -> Readiness:
    """Return whether a daemon is ready that serves another one's topics: connected, caught up, and messages come.

    Args:
        source: What `/status` says of the source.
    """
    reasons = []
    age_s = source["last_message_age_s"]
    if source["state"] != "up":
        why = source["reason"] or "the upstream is not connected yet"
        reasons.append(f"source {source['name']}: {why}")
    elif not source["epoch"]:
        reasons.append(f"source {source['name']}: nothing was heard of the upstream yet")
    if now_ns - started_ns >= GRACE_S * 1e9 and (age_s is None or age_s >= SILENCE_S):
        reasons.append(f"no message came for {SILENCE_S:g} s")
    return Readiness(not reasons, tuple(reasons), {})
