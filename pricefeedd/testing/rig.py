"""A venue's whole pipeline against its fake, in memory: sessions, gates, books and a reader.

Under Trio's mock clock hours of venue time take no time. What the reader got is kept, and can be held
against the fake's own truth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from pricefeedd.bus import Bus
from pricefeedd.config import SessionConfig, SubscribeConfig, VenueConfig
from pricefeedd.errors import leaves
from pricefeedd.events import BookDelta, BookSnapshot, Event, Gap, State, Status
from pricefeedd.instruments import Directory
from pricefeedd.message import Message
from pricefeedd.runtime import Surroundings, VenueRuntime
from pricefeedd.stats import MarketStats, Stats
from pricefeedd.testing.fake import FakeVenue
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.topic import Pattern
from pricefeedd.venue import Venue

E = TypeVar("E", bound=Event)


class SkewedClock:
    """Our wall clock, as far ahead of the venue's as a test wants it.

    Attributes:
        ahead_ns: How far.
    """

    def __init__(self, venue_now_ns: Callable[[], int]) -> None:
        self.ahead_ns = 0
        self._venue_now_ns = venue_now_ns

    def __call__(self) -> int:
        """Return the time, ns since the Unix epoch."""
        return self._venue_now_ns() + self.ahead_ns


class Rig:
    """A venue at work, and everything that one reader of all its topics got.

    Attributes:
        messages: What the reader got, in order.
        clock: Our wall clock; the venue has its own.
    """

    def __init__(
        self, venue: Venue, bus: Bus, runtime: VenueRuntime, stats: Stats, clock: SkewedClock
    ) -> None:
        self.venue = venue
        self.bus = bus
        self.runtime = runtime
        self.stats = stats
        self.clock = clock
        self.messages: list[Message] = []
        self._by_topic: dict[str, list[Message]] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._mailbox = bus.mailbox(limit_bytes=1 << 40, flush=self._flush)
        bus.subscribe(self._mailbox, Pattern("*:*:*"))

    def _flush(self) -> None:
        for message in self._mailbox.take():
            if isinstance(message, Message):
                self.messages.append(message)
                self._by_topic.setdefault(message.topic, []).append(message)
        self._changed.unpark_all()

    async def until(self, condition: Callable[[], object], *, within_s: float = 600.0) -> None:
        """Wait until something is true of what the reader got.

        Raises:
            trio.TooSlowError: It did not come true in time.
        """
        with trio.fail_after(within_s):
            while not condition():
                await self._changed.park()

    def topic(self, name: str) -> list[Message]:
        """Return the messages of one topic, named without the venue: `trade:BTC-USDT`."""
        channel, _, instrument = name.partition(":")
        return self._by_topic.get(f"{channel}:{self.runtime.name}:{instrument}", [])

    def forget(self) -> None:
        """Forget what the reader got so far."""
        self.messages.clear()
        self._by_topic.clear()

    def events(self, name: str, kind: type[E]) -> list[E]:
        """Return the events of one kind of one topic."""
        return [m.event for m in self.topic(name) if isinstance(m.event, kind)]

    def states(self, name: str) -> list[State]:
        """Return what the reader was told of a topic's state, in order."""
        return [status.state for status in self.events(name, Status)]

    def gaps(self, name: str) -> list[Gap]:
        """Return the holes that the reader was told of."""
        return self.events(name, Gap)

    def state(self, name: str) -> State:
        """Return the present state of a topic."""
        channel, _, instrument = name.partition(":")
        return self.bus.topic(channel, self.runtime.name, instrument).state

    def live(self, *names: str) -> bool:
        """Return whether all of these topics are live."""
        return all(self.state(name) is State.LIVE for name in names)

    def market(self, market: str) -> MarketStats:
        """Return the counts of one market."""
        return self.stats.market(self.runtime.name, market)

    def book(self, name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]] | None:
        """Return the book as the reader has it, made from what it got alone; None without a snapshot.

        It is not kept by pricefeedd's own book but by dictionaries, so that each checks the other.
        """
        bids: dict[float, tuple[str, str]] = {}
        asks: dict[float, tuple[str, str]] = {}
        known = False
        for message in self.topic(f"book:{name}"):
            event = message.event
            if isinstance(event, BookSnapshot):
                bids, asks, known = {}, {}, True
            if isinstance(event, BookSnapshot | BookDelta):
                for side, levels in ((bids, event.bids), (asks, event.asks)):
                    for price, size in levels:
                        if float(size):
                            side[float(price)] = (price, size)
                        else:
                            side.pop(float(price), None)
        if not known:
            return None
        return [bids[key] for key in sorted(bids, reverse=True)], [asks[key] for key in sorted(asks)]

    def check_sequence(self) -> None:
        """Assert that each topic's numbers go up by one, from the first message to the last."""
        last: dict[str, int] = {}
        for message in self.messages:
            before = last.get(message.topic)
            assert before is None or message.seq == before + 1, f"{message!r} follows #{before}"
            last[message.topic] = message.seq


@asynccontextmanager
async def rig(
    venue: Venue,
    fake: FakeVenue,
    subscribe: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    endpoints: Mapping[str, str],
    settings: Any = None,
    on_demand: Mapping[str, Sequence[str]] | None = None,
    **session: Any,
) -> AsyncIterator[Rig]:
    """Run a venue's pipeline against a fake, in memory.

    Args:
        subscribe: Channels by instrument by market: `{"spot": {"BTC-USDT": ["trade", "book"]}}`.
        endpoints: The venue's base URLs, as the fake names them.
        settings: The venue's own settings; their defaults if None.
        on_demand: Channels by market that are served on demand, of any instrument.
        session: Keys of `[venues.NAME.session]` to set.
    """
    config = VenueConfig(
        name=venue.name,
        plugin=venue.name,
        subscribe=(*_subscriptions(subscribe), *_offers(on_demand or {})),
        endpoints=dict(endpoints),
        session=SessionConfig(**session),
        accounts={},
        settings=venue.settings() if settings is None else settings,
    )
    bus = Bus()
    clock = SkewedClock(fake.now_ns)
    stats = Stats(started_ns=clock())
    try:
        async with trio.open_nursery() as nursery:
            dialer = MemoryDialer(
                nursery, dict.fromkeys({_root(url) for url in endpoints.values()}, fake), now_ns=clock
            )
            around = Surroundings(bus=bus, directory=Directory(), stats=stats, dialer=dialer, now_ns=clock)
            runtime = VenueRuntime(venue, config, around)
            made = Rig(venue, bus, runtime, stats, clock)
            nursery.start_soon(runtime.run, name=f"venue:{venue.name}")
            yield made
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # What a test asserts in the block comes out as it went in.
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise


def _subscriptions(
    subscribe: Mapping[str, Mapping[str, Sequence[str]]],
) -> Iterable[SubscribeConfig]:
    for market, instruments in subscribe.items():
        for instrument, channels in instruments.items():
            yield SubscribeConfig(market=market, instruments=(instrument,), channels=tuple(channels))


def _offers(on_demand: Mapping[str, Sequence[str]]) -> Iterable[SubscribeConfig]:
    for market, channels in on_demand.items():
        yield SubscribeConfig(market=market, channels=tuple(channels), on_demand=True)


def _root(url: str) -> str:
    """Return scheme and authority of a URL: the fake itself tells its paths apart."""
    return "/".join(url.split("/")[:3])
