"""`/api/v1/explain`: why a topic is as it is."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import attrs
from quart import Quart, Response

from pricefeedd.events import State, Status
from pricefeedd.explain.assembly import UnexplainedError
from pricefeedd.topic import Pattern, Topic
from pricefeedd.web.api import shown
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import Text, given
from pricefeedd.web.http import Query, asked, own_scopes, refuse, respond
from pricefeedd.web.topics import Problem, Resolver

PATH: Final = "/api/v1/explain"

#: Topics of a pattern that are named; the others are counted.
MOST: Final = 20


@attrs.frozen(kw_only=True)
class ExplainQuery(Query):
    """Which topic."""

    topic: str = given(
        Text(longest=200),
        "One topic by its full name, `channel:venue:instrument`; a venue's own symbol is understood too.",
        example="trade:binance:BTC-USDT",
    )


class Explain:
    """The handler, over one daemon."""

    def __init__(self, daemon: Daemon, resolver: Resolver) -> None:
        self._daemon = daemon
        self._resolver = resolver

    def add_routes(self, app: Quart) -> None:
        """Add the path to the app."""
        app.add_url_rule(PATH, "explain", self.explain)

    async def explain(self) -> Response:
        """Tell all that is known of a topic, and the most likely cause of how it stands."""
        topic = asked(ExplainQuery).topic
        found = self._resolver.resolve(topic, scopes=own_scopes(self._daemon))
        if isinstance(found, Problem) and found.code == "unknown_venue":
            found = self._without_data(Pattern(topic), found)
        if isinstance(found, Problem):
            return refuse(found, parameter="topic")
        if not found.exact:
            return self._several(found)
        try:
            return respond(self._daemon.explain(found.text))
        except UnexplainedError as e:
            return refuse(Problem(e.code, e.message, e.did_you_mean), parameter="topic")

    def _without_data(self, pattern: Pattern, problem: Problem) -> Pattern | Problem:
        """Return the pattern if its venue is configured, though nothing is known of it yet; else what hinders it."""
        venue = pattern.venue
        if venue in self._daemon.subscriptions.venues:
            return pattern
        for record in self._daemon.plugins:
            if record.name == venue and record.status == "broken":
                return Problem(
                    problem.code, f"{venue!r} is not served: its plugin is broken: {record.reason}"
                )
            if record.name == venue:
                why = f"{venue!r} is not configured here: its plugin is {record.status}, and there is no [venues.{venue}]"
                return Problem(problem.code, why)
        return problem

    def _several(self, pattern: Pattern) -> Response:
        """Refuse a pattern, and tell how the topics stand that it means, those in trouble first."""
        bus = self._daemon.bus
        meant = [topic for topic in shown(bus, ()) if pattern.matches(topic)]
        meant.sort(key=lambda topic: bus.state(topic) is State.LIVE)
        counts = Counter(bus.state(topic).value for topic in meant)
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        problem = Problem(
            "pattern",
            f"one topic at a time can be explained; {pattern.text} means {len(meant)}"
            + (f": {told}" if told else ""),
        )
        return refuse(problem, parameter="topic", results=[self._row(topic) for topic in meant[:MOST]])

    def _row(self, topic: Topic) -> dict[str, Any]:
        status = None if topic.status is None else topic.status.event
        reason = status.reason if isinstance(status, Status) else ""
        return {"topic": topic.name, "state": self._daemon.bus.state(topic), "reason": reason}
