"""How well a market does, as one number for dashboards. Pure: told the time."""

from __future__ import annotations

from typing import Final

from pricefeedd.stats import MarketStats

#: Silence that is none yet, and silence after which nothing is left, seconds.
SILENT_FROM_S: Final = 10.0
SILENT_S: Final = 60.0

#: Most that a market can have while a circuit breaker of it is not closed.
_CAPS: Final = {"closed": 100, "half-open": 70, "open": 40}

#: Of this share of bad frames on all the most is taken off.
_BAD_SHARE: Final = 0.01


def health_score(market: MarketStats, now_ns: int) -> int:
    """Return 0 (nothing comes) to 100 (all is well).

    Nothing without a connection, and less the longer nothing came: all at 10 s, none at 60 s. Of that the share of
    its topics that may be believed. Then what went wrong in the last minute is taken off: up to 30 for frames
    that cannot be decoded (all of it at 1 %), 10 for each session that failed or began anew up to 30, 5 for each gap
    up to 20. While a circuit breaker is open there are 40 at most, half-open 70. A market that is served on demand and
    that nobody reads is well, and an account may be silent.
    """
    if market.idle(now_ns):
        return 100
    if not market.connections:
        return 0
    score = 100.0
    if not market.account:
        if market.last_message_ns is None:
            return 0
        silent_s = (now_ns - market.last_message_ns) / 1e9
        score *= min(max((SILENT_S - silent_s) / (SILENT_S - SILENT_FROM_S), 0.0), 1.0)
    if market.topics:
        score *= market.live / market.topics
    lately = market.lately(now_ns)
    if lately.decode_errors:
        share = lately.decode_errors / max(lately.messages, lately.decode_errors)
        score -= 30 * min(share / _BAD_SHARE, 1.0)
    score -= min(10 * max(lately.errors, lately.reconnects), 30)
    score -= min(5 * lately.gaps, 20)
    return round(min(max(score, 0.0), _CAPS[market.circuit_state]))
