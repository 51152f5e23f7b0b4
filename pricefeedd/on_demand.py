"""Acts on what readers claim of a venue: see `demand` for the claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import trio

from pricefeedd.bus import Bus
from pricefeedd.demand import Demands, not_offered
from pricefeedd.derive import TopicKey
from pricefeedd.events import Event, State, Status
from pricefeedd.instruments import Instrument
from pricefeedd.market import Market
from pricefeedd.served import ServedTopics

#: So many topics are begun or ended at a time, so that readers of all others do not wait.
TOPICS_AT_ONCE = 200


class OnDemand:
    """What is served of one venue for as long as somebody claims it."""

    def __init__(
        self, demands: Demands, served: ServedTopics, markets: Mapping[str, Market], bus: Bus
    ) -> None:
        """Prepare to act.

        Args:
            markets: Those at work, as they are at any time.
        """
        self._demands = demands
        self._served = served
        self._markets = markets
        self._bus = bus
        self._waiting: dict[TopicKey, None] = {}  # claimed, and not known to any market so far

    async def run(self, nursery: trio.Nursery) -> None:
        """Begin what readers ask for, and end what nobody reads any more."""
        self._demands.renew()
        while True:
            changes = await self._demands.changes()
            for some in _parts(changes.demanded):
                self._begin(some, nursery)
                await trio.lowlevel.checkpoint()
            for some in _parts(changes.ended):
                for topic in some:
                    if topic not in self._demands:  # somebody may have come while we were at the others
                        self._waiting.pop(topic, None)
                        self._served.let_go(topic)
                await trio.lowlevel.checkpoint()
            if changes.ended:
                self._served.retry_full(nursery)

    def begin_waiting(self, nursery: trio.Nursery) -> None:
        """Begin what was claimed before the instruments of its market were known."""
        self._begin(list(self._waiting), nursery)

    def tell_waiting(self, market: Market, reason: str) -> None:
        """Say why topics are not begun yet."""
        if market.instruments is None:
            waiting = [topic for topic in self._waiting if market.name in self._demands.markets_of(topic)]
            told = [self._served.status(*topic, reason, State.CONNECTING) for topic in waiting]
            if told:
                self._bus.publish(told)

    def note_idle(self, now_ns: int) -> None:
        """Note for which markets the venue is asked for nothing, because nobody reads."""
        busy = self._served.markets()
        for name in self._demands.markets():
            market = self._known(name)
            if market is not None and market not in busy:
                market.stats.idle_ns = now_ns

    def _begin(self, topics: Iterable[TopicKey], nursery: trio.Nursery) -> None:
        """Serve topics that are claimed."""
        fresh: dict[Market, list[tuple[str, Instrument]]] = {}
        waiting: list[Event] = []
        again: list[TopicKey] = []
        for topic in topics:
            if topic in self._served:
                self._waiting.pop(topic, None)
                again.append(topic)
            elif (found := self._offered(*topic)) is not None:
                self._waiting.pop(topic, None)
                market, instrument = found
                fresh.setdefault(market, []).append((topic[0], instrument))
            else:
                status = self._why_waiting(topic)
                if topic not in self._waiting or status.state is State.DOWN:
                    waiting.append(status)
                self._waiting[topic] = None
        if waiting:
            self._bus.publish(waiting)
        for market, found_here in fresh.items():
            self._served.begin(market, found_here, nursery)
        for topic in again:
            self._served.ask_again(topic, nursery)

    def _known(self, name: str) -> Market | None:
        """Return a market whose instruments are known; None before."""
        market = self._markets.get(name)
        return None if market is None or market.instruments is None else market

    def _offered(self, channel: str, name: str) -> tuple[Market, Instrument] | None:
        """Return market and instrument of a topic that is offered; None while no market is known to have it."""
        for offering in self._demands.markets_of((channel, name)):
            market = self._known(offering)
            if market is not None and self._demands.names(market.name, channel, name):
                return market, market.find(name)
        return None

    def _why_waiting(self, topic: TopicKey) -> Status:
        channel, name = topic
        found = [self._known(market) for market in self._demands.markets_of(topic)]
        maps = [
            market.instruments for market in found if market is not None and market.instruments is not None
        ]
        if len(maps) == len(found):
            return self._served.status(channel, name, not_offered(maps, name))
        return self._served.status(channel, name, "", State.CONNECTING)


def _parts(topics: list[TopicKey]) -> Iterator[list[TopicKey]]:
    for start in range(0, len(topics), TOPICS_AT_ONCE):
        yield topics[start : start + TOPICS_AT_ONCE]
