"""HTTP: health, readiness, status, feeds and metrics."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Any

import attrs
from quart import Quart, Response, request

from pricefeedd import __version__, wire
from pricefeedd.bus import Bus
from pricefeedd.events import PRIVATE_CHANNELS, State
from pricefeedd.topic import Topic
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import Text, given
from pricefeedd.web.health import Readiness, iso, readiness, source_readiness
from pricefeedd.web.http import Query, asked, own_scopes, respond
from pricefeedd.web.latency import latency
from pricefeedd.web.metrics import Metrics


@attrs.frozen(kw_only=True)
class FeedsQuery(Query):
    """Which topics."""

    channel: str | None = given(Text(), "One channel.", default=None, example="trade")
    venue: str | None = given(Text(), "One venue.", default=None, example="binance")
    instrument: str | None = given(Text(), "One instrument, by our name.", default=None, example="BTC-USDT")


def shown(bus: Bus, scopes: Collection[str]) -> Iterator[Topic]:
    """Yield the topics that the bearer of a key may know of: those of an account need its scope."""
    for topic in bus:
        if topic.channel not in PRIVATE_CHANNELS or f"account:{topic.instrument}" in scopes:
            yield topic


def _age_s(topic: Topic, now_ns: int) -> float | None:
    return None if topic.newest is None else max(0.0, (now_ns - topic.newest.event.received_ns) / 1e9)


def feed(topic: Topic, state: State, now_ns: int) -> dict[str, Any]:
    """Return what `/feeds` says of a topic; `age_s` is the time since its newest message.

    A book has no `last`: to make one for a list costs too much, and `get` on the WebSocket brings it.
    """
    event = None if topic.last is None else topic.last.event
    age_s = _age_s(topic, now_ns)
    return {
        "topic": topic.name,
        "channel": topic.channel,
        "venue": topic.venue,
        "instrument": topic.instrument,
        "state": state,
        "seq": topic.seq,
        "messages": topic.count,
        "readers": topic.reader_count,
        "age_s": None if age_s is None else round(age_s, 3),
        "last": None if event is None else wire.data_of(event),
    }


class Api:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._metrics = Metrics(daemon)

    def add_routes(self, app: Quart) -> None:
        """Add all paths to the app."""
        app.add_url_rule("/health", "health", self.health)
        app.add_url_rule("/ready", "ready", self.ready)
        app.add_url_rule("/status", "status", self.status)
        app.add_url_rule("/feeds", "feeds", self.feeds)
        app.add_url_rule("/metrics", "metrics", self.metrics)

    def _readiness(self) -> Readiness:
        found = self._readiness_of_feeds()
        sinks = self._daemon.describe().get("sinks", {})
        of_sinks = [text for facts in sinks.values() for text in facts["concerns"]]
        return attrs.evolve(found, reasons=(*found.reasons, *self._daemon.archive.troubles, *of_sinks))

    def _readiness_of_feeds(self) -> Readiness:
        stats = self._daemon.stats
        facts, now_ns = self._daemon.describe(), self._daemon.now_ns()
        source = facts.get("source")
        if source is not None:
            return source_readiness(source, now_ns=now_ns, started_ns=stats.started_ns)
        return readiness(
            stats,
            now_ns=now_ns,
            started_ns=stats.started_ns,
            standby=self._daemon.standby,
            on_request=self._daemon.subscriptions.alone,
        )

    async def health(self) -> Response:
        """Say that the process serves."""
        return respond({"status": "healthy", "timestamp": iso(self._daemon.now_ns())})

    async def ready(self) -> Response:
        """Say whether clients should be sent here."""
        found = self._readiness()
        body = {
            "status": "ready" if found.ready else "not ready",
            "timestamp": iso(self._daemon.now_ns()),
            "reasons": found.reasons,
            "venues": found.venues,
        }
        return respond(body, 200 if found.ready else 503)

    async def status(self) -> Response:
        """Tell an operator everything."""
        daemon = self._daemon
        now_ns, stats, found = daemon.now_ns(), daemon.stats, self._readiness()
        readers = stats.readers
        states: dict[str, int] = {}
        for topic in daemon.bus:
            state = daemon.bus.state(topic).value
            states[state] = states.get(state, 0) + 1
        body = {
            "version": __version__,
            "timestamp": iso(now_ns),
            "started": iso(stats.started_ns),
            "uptime_s": round((now_ns - stats.started_ns) / 1e9, 3),
            "epoch": daemon.epoch,
            "ready": found.ready,
            "reasons": found.reasons,
            "venues": {
                venue: {
                    market: facts | _details(self._daemon, venue, market) for market, facts in markets.items()
                }
                for venue, markets in found.venues.items()
            },
            "topics": {"total": len(daemon.bus), "states": states, "published": daemon.bus.published},
            "clients": {
                "connected": readers.connected,
                "accepted": readers.accepted,
                "closed": {str(code): count for code, count in readers.closed.items()},
                "frames": readers.frames + daemon.bus.sent,
                "conflated": readers.conflated,
                "lost": readers.lost,
            },
            "plugins": [
                {"name": p.name, "status": str(getattr(p.status, "value", p.status)), "reason": p.reason}
                for p in daemon.plugins
            ],
            "subscriptions": daemon.subscriptions.describe(),
            "memory": {"peak_rss_bytes": _peak_rss_bytes()},
        }
        return respond({"sinks": {}} | dict(daemon.describe()) | body)

    async def feeds(self) -> Response:
        """List the topics served, all or some."""
        query = asked(FeedsQuery)
        wanted = {n: v for n in ("channel", "venue", "instrument") if (v := getattr(query, n)) is not None}
        bus, now_ns = self._daemon.bus, self._daemon.now_ns()
        rows = [
            feed(topic, bus.state(topic), now_ns)
            for topic in shown(bus, own_scopes(self._daemon))
            if all(getattr(topic, name) == value for name, value in wanted.items())
        ]
        return respond({"epoch": self._daemon.epoch, "total": len(rows), "feeds": rows})

    async def metrics(self) -> Response:
        """Expose the counts to Prometheus, as OpenMetrics where it asks for that."""
        body, content_type = await self._metrics.render(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)


def _details(daemon: Daemon, venue: str, market: str) -> dict[str, Any]:
    counts = daemon.stats.market(venue, market)
    return {
        "latency": latency(counts, daemon.now_ns()),
        "events": counts.events,
        "reconnects": counts.reconnects,
        "duplicates": counts.duplicates,
        "gaps": counts.gaps,
        "recovered": counts.recovered,
        "lost": counts.lost,
        "resyncs": counts.resyncs,
        "backfills": counts.backfills,
        "breakers": counts.breakers,
        "last_error": counts.last_error,
        "last_error_time": iso(counts.last_error_ns),
    }


def _peak_rss_bytes() -> int | None:
    """Return the most memory that was resident; getrusage(2) counts kilobytes on Linux, bytes on macOS.

    None where the system does not say it so.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
