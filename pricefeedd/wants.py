"""Does what gates want: fetches what is missing, and asks again for streams."""

from __future__ import annotations

import structlog
import trio

from pricefeedd.backfill import Backfill
from pricefeedd.derive import TopicKey
from pricefeedd.events import State
from pricefeedd.gate import Gate
from pricefeedd.lines import Want, WantResubscribe
from pricefeedd.market import Market
from pricefeedd.plan import Plan

log = structlog.get_logger("pricefeedd.wants")


class Wants:
    """What the gates of one venue want, and what is under way for them."""

    def __init__(self, venue: str, plan: Plan, backfill: Backfill) -> None:
        self._venue = venue
        self._plan = plan
        self._backfill = backfill
        self._fetching: dict[TopicKey, set[trio.CancelScope]] = {}

    def begin(self, market: Market, nursery: trio.Nursery) -> None:
        """Begin what a market's gate wants."""
        gate = market.gate
        for want in gate.take_wants():
            if isinstance(want, WantResubscribe):
                self._resubscribe(gate, want)
                continue
            if gate.line(want.channel, want.instrument) is not None:
                # One task per hole; a line wants one thing at a time, so there are never more than lines.
                nursery.start_soon(self._fill, market, want)

    def fetching(self, topic: TopicKey) -> int:
        """Return how many requests are under way for a topic."""
        return len(self._fetching.get(topic, ()))

    def end(self, topic: TopicKey) -> None:
        """Fetch nothing any more for a topic whose line is forgotten."""
        for scope in self._fetching.pop(topic, ()):
            scope.cancel()

    async def _fill(self, market: Market, want: Want) -> None:
        """Fetch what a line wants, for as long as there is such a line."""
        scopes = self._fetching.setdefault((want.channel, want.instrument), set())
        scope = trio.CancelScope()
        scopes.add(scope)
        with scope:
            await self._backfill.fetch(market.name, want, market.find(want.instrument))
        scopes.discard(scope)

    def _resubscribe(self, gate: Gate, want: WantResubscribe) -> None:
        """Ask again for one topic's streams; if everything on the connection is stale, replace that."""
        for connection, stream in self._plan.of((want.channel, want.instrument)):
            session = connection.session
            if session is None:
                continue
            lines = [gate.line(*topic) for topic in connection.all_topics()]
            spoke = [line for line in lines if line is not None and line.seen_ns is not None]
            if want.reason == "stale" and spoke and all(line.state is State.STALE for line in spoke):
                session.doom("all its streams are stale")
            else:
                log.info("resubscribing", venue=self._venue, stream=stream.name, reason=want.reason)
                session.resubscribe([stream])
