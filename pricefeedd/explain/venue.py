"""What is known of one topic of a venue, served or not, from all the parts that bring it.

Plain data: times are seconds, and ago unless their name says otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from pricefeedd.config import VenueConfig
from pricefeedd.demand import Demands
from pricefeedd.derive import TopicKey
from pricefeedd.frames import SHOWN, readable
from pricefeedd.instruments import Instrument
from pricefeedd.keepers import Breakers, Keepers
from pricefeedd.limits import Bucket
from pricefeedd.market import Market
from pricefeedd.plan import Connection, Plan
from pricefeedd.served import Served, ServedTopics
from pricefeedd.stats import MarketStats
from pricefeedd.venue import Venue
from pricefeedd.wants import Wants

#: Frames that could not be understood, of those that are kept.
BAD_FRAMES = 3


@attrs.frozen(kw_only=True)
class Parts:
    """One venue at work."""

    venue: Venue
    config: VenueConfig
    markets: Mapping[str, Market]
    served: ServedTopics
    plan: Plan
    keepers: Keepers
    wants: Wants
    breakers: Breakers
    buckets: Mapping[str, Bucket]
    demands: Demands


def topic_facts(parts: Parts, topic: TopicKey, *, now: float, now_ns: int) -> dict[str, Any]:
    """Return what is known of a topic.

    Args:
        now: By Trio's clock.
        now_ns: By the wall clock, as the venue's lines know it.
    """
    served = parts.served.get(topic)
    found = _instrument(parts, topic, served)
    market = served.market if served is not None else None if found is None else parts.markets[found.market]
    brought = [] if served is None else parts.plan.of((topic[0], served.by.name))
    connections = list(dict.fromkeys(connection for connection, _ in brought))
    return {
        "served": parts.served.describe(topic),
        "has": found is None or has(parts.venue, found.market, topic[0]),
        "listed": None if found is None else instrument_facts(found),
        "markets": [market_facts(m, now) for m in parts.markets.values() if market is None or m is market],
        "demand": parts.demands.describe(*topic),
        "lines": [] if served is None else [_line(parts, served, line, now_ns) for line in served.lines()],
        "streams": [connection.standing(stream, now) for connection, stream in brought],
        "connections": [_connection(parts, served, each, now) for each in connections if served is not None],
        "breakers": parts.breakers.describe(now),
        "budgets": [bucket.describe(now) for bucket in parts.buckets.values()],
        **trouble(None if market is None else market.stats, connections, topic[0], now_ns),
    }


def has(venue: Venue, market: str, channel: str) -> bool:
    """Return whether a market has a channel, or what it is made of."""
    offered = venue.channels[market]
    return channel in offered or (channel.startswith("candle_") and "candle_1m" in offered)


def trouble(
    stats: MarketStats | None,
    connections: Iterable[Connection],
    channel: str,
    now_ns: int,
    *,
    hide: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Return what went wrong last in a market: the frames of these connections that meant nothing, and the error.

    Args:
        hide: Takes what is secret out of a text.
    """
    if stats is None:
        return {"bad_frames": [], "last_error": "", "last_error_s": None}
    feeds = {channel, *(connection.feed.name for connection in connections)}
    bad = [frame for frame in stats.bad_frames if frame.feed in feeds]
    failed_ns = stats.last_error_ns
    return {
        "bad_frames": [
            {
                "age_s": ago(frame.at_ns, now_ns),
                "feed": frame.feed,
                "reason": frame.reason[:SHOWN],
                "text": hide(readable(frame.frame))[:SHOWN],
            }
            for frame in reversed(bad[-BAD_FRAMES:])
        ],
        "last_error": stats.last_error,
        "last_error_s": None if failed_ns is None else ago(failed_ns, now_ns),
    }


def ago(then_ns: int, now_ns: int) -> float:
    """Return how many seconds lie between two times."""
    return round((now_ns - then_ns) / 1e9, 1)


def instrument_facts(found: Instrument) -> dict[str, Any]:
    """Return what the venue says of an instrument."""
    return {
        "market": found.market,
        "name": found.name,
        "symbol": found.symbol,
        "tradable": found.tradable,
        "status": found.status,
        "alias_of": found.alias_of,
    }


def market_facts(market: Market, now: float) -> dict[str, Any]:
    """Return whether the instruments of a market are known, and since when."""
    listed = market.instruments
    return {
        "market": market.name,
        "instruments": None if listed is None else len(listed),
        "loaded_s": None if market.loaded_at is None else round(now - market.loaded_at, 1),
        "not_loaded": market.not_loaded,
    }


def _instrument(parts: Parts, topic: TopicKey, served: Served | None) -> Instrument | None:
    """Return the instrument of a topic, of the market that serves it or the first that lists it."""
    markets = parts.markets.values() if served is None else [served.market]
    for market in markets:
        found = None if market.instruments is None else market.instruments.by_name(topic[1])
        if found is not None:
            return found
    return None


def _line(parts: Parts, served: Served, topic: TopicKey, now_ns: int) -> dict[str, Any]:
    line = served.market.gate.line(*topic)
    assert line is not None, "what is served has its lines"
    return line.describe(now_ns) | {"requests": parts.wants.fetching(topic)}


def _connection(parts: Parts, served: Served, connection: Connection, now: float) -> dict[str, Any]:
    """Return how a connection is, and how the topics are that it brings."""
    gate, feed = served.market.gate, connection.feed
    lines = [gate.line(*topic) for topic in connection.all_topics()]
    return connection.explain(now) | {
        "kept": connection in parts.keepers,
        "endpoint": feed.endpoint,
        "connect_budget": feed.connect_budget,
        "topics": dict(Counter(line.state.value for line in lines if line is not None)),
    }
