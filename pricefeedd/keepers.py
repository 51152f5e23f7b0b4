"""A venue's connections at work: a task that keeps each one, and the circuit breakers of its endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import structlog
import trio

from pricefeedd.breaker import Breaker, Circuit
from pricefeedd.codec import Stream
from pricefeedd.config import VenueConfig
from pricefeedd.events import State
from pricefeedd.limits import Bucket
from pricefeedd.market import Market
from pricefeedd.plan import Connection, Plan
from pricefeedd.session import Link
from pricefeedd.stats import Stats
from pricefeedd.supervisor import Keeper, Lost
from pricefeedd.venue import Feed, Venue

log = structlog.get_logger("pricefeedd.keepers")


class Breakers:
    """The circuit breakers of one venue, by endpoint, and what `/status` shows of them."""

    def __init__(self, venue: Venue, config: VenueConfig, stats: Stats, markets: Collection[str]) -> None:
        """Prepare to make breakers.

        Args:
            markets: Those at work, as they are at any time.
        """
        self._venue = venue
        self._config = config
        self._stats = stats
        self._markets = markets
        self._breakers: dict[str, Breaker] = {}

    def get(self, endpoint: str) -> Breaker | None:
        """Return the breaker of an endpoint; None before it was used."""
        return self._breakers.get(endpoint)

    def of(self, endpoint: str) -> Breaker:
        """Return the breaker of an endpoint, made now if it is new."""
        found = self._breakers.get(endpoint)
        if found is None:
            session = self._config.session

            def changed(state: Circuit) -> None:
                log.warning("circuit breaker", venue=self._config.name, endpoint=endpoint, state=state.value)
                self._show()

            found = self._breakers[endpoint] = Breaker(
                failures=session.breaker_failures, open_s=session.breaker_open_s, on_change=changed
            )
            self._show()
        return found

    def states(self) -> dict[str, str]:
        """Return the state of each breaker by its endpoint."""
        return {endpoint: breaker.state.value for endpoint, breaker in self._breakers.items()}

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Return each breaker with its endpoint."""
        return [{"endpoint": name} | breaker.describe(now) for name, breaker in self._breakers.items()]

    def _show(self) -> None:
        states = self.states()
        for market in self._markets:
            mine = {feed.endpoint for feed in self._venue.feeds if feed.market == market}
            self._stats.market(self._config.name, market).breakers = {
                endpoint: state
                for endpoint, state in states.items()
                if endpoint in mine or endpoint.startswith(market)
            }


class Keepers:
    """The tasks that keep the connections of one venue's plan."""

    def __init__(
        self,
        venue: str,
        plan: Plan,
        *,
        link: Callable[[Market, Feed], Link],
        breakers: Breakers,
        buckets: Mapping[str, Bucket],
        tell: Callable[[str, Lost], Awaitable[None]],
    ) -> None:
        """Prepare to keep connections.

        Args:
            link: Returns what a new session of a market's feed needs, as it is now.
            tell: Hears, with the market, of each connection that ended.
        """
        self._venue = venue
        self._plan = plan
        self._link = link
        self._breakers = breakers
        self._buckets = buckets
        self._tell = tell
        self._keeping: dict[Connection, trio.CancelScope] = {}

    def __contains__(self, connection: Connection) -> bool:
        """Return whether a connection is kept: not if its credentials were refused."""
        return connection in self._keeping

    def carry(self, market: Market, nursery: trio.Nursery) -> None:
        """Have the connections carry what was planned: begin new ones, and ask the others for what is new."""
        for connection, streams in self._plan.fresh().items():
            if connection in self._keeping:
                connection.ask(streams)
            else:
                self.begin(market, connection, nursery)

    def begin(self, market: Market, connection: Connection, nursery: trio.Nursery) -> None:
        """Begin to keep a connection."""
        self._keeping[connection] = trio.CancelScope()
        name = f"connection:{self._venue}:{connection.feed.name}:{connection.index}"
        nursery.start_soon(self._keep, market, connection, name=name)

    def end(self, streams: Iterable[tuple[Connection, Stream]]) -> None:
        """End streams that were taken out of the plan, and connections that carry nothing any more."""
        ended: dict[Connection, list[Stream]] = {}
        for connection, stream in streams:
            ended.setdefault(connection, []).append(stream)
        for connection, gone in ended.items():
            if connection.streams:
                connection.drop(gone)
            elif connection in self._keeping:
                self._keeping[connection].cancel()

    async def _keep(self, market: Market, connection: Connection) -> None:
        """Keep one connection until it carries nothing any more, or is given up."""
        feed, tell = connection.feed, partial(self._tell, market.name)
        keeper = Keeper(
            connection,
            link=partial(self._link, market, feed),
            breaker=self._breakers.of(feed.endpoint),
            bucket=self._buckets.get(feed.connect_budget),
            tell=tell,
        )
        try:
            with self._keeping[connection]:
                await keeper.run()
        finally:
            del self._keeping[connection]
        carriers, connection.carriers = connection.carriers, set()
        for carrier in carriers:
            await tell(Lost(carrier, frozenset(), "", State.DOWN))
