"""What readers and services hold of a venue: counted holds, and when the last was let go.

Readers may hold what the configuration offers on demand; services that subscribe by the REST API anything that
the venue lists. Plain state that readers change by plain calls. The venue's runtime waits for changes and acts on them; the
state outlives it, so that what is still held is served again after a crash of the venue's plugin.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Iterable, Iterator
from typing import Any

import attrs
import trio

from pricefeedd.bus import Bus
from pricefeedd.config import SubscribeConfig, VenueConfig
from pricefeedd.derive import TopicKey
from pricefeedd.instruments import Instrument, InstrumentMap, UnknownInstrumentError

#: A topic is served for this long after its last reader: one that comes back finds it as it was.
LINGER_S = 60.0

#: The longest name that is remembered before the venue's instruments are known.
NAME_CHARS = 64


class Hold:
    """One reader's claim on a topic. Made by `Demands.demand`."""

    __slots__ = ("_demands", "_topic")

    def __init__(self, demands: Demands, topic: TopicKey) -> None:
        self._demands: Demands | None = demands
        self._topic = topic

    def release(self) -> None:
        """End the claim; a second time does nothing."""
        demands, self._demands = self._demands, None
        if demands is not None:
            demands.release(self._topic)


@attrs.frozen
class Changes:
    """What changed since the last time.

    Attributes:
        demanded: Topics that somebody asked for, whether they were held already or not.
        ended: Topics whose time after the last reader is over.
    """

    demanded: list[TopicKey]
    ended: list[TopicKey]


class Demands:
    """What is held of one venue."""

    def __init__(self, config: VenueConfig, bus: Bus, *, linger_s: float = LINGER_S) -> None:
        self._venue = config.name
        self._bus = bus
        self._linger_s = linger_s
        # Our names that each entry means; an entry is in it once its market's instruments are known.
        self._names: dict[SubscribeConfig, frozenset[str]] = {}
        self._entries = [entry for entry in config.subscribe if entry.on_demand]
        self._maps: dict[str, InstrumentMap] = {}
        self._listed = trio.Event()
        self._called: dict[str, None] = {}  # markets that somebody needs, whatever is configured
        self._calling = trio.Event()
        self._claimed: dict[TopicKey, str] = {}  # of which market, whatever is configured
        self._holds: dict[TopicKey, int] = {}
        self._until: dict[TopicKey, float] = {}  # in the order in which they end: all wait equally long
        self._fresh: dict[TopicKey, None] = {}
        self._changed = trio.Event()

    # --- what readers call -----------------------------------------------------------------------------

    def demand(self, channel: str, instrument: str) -> Hold | None:
        """Claim a topic; None if it is not offered. The topic is on the bus when this returns."""
        return self._hold((channel, instrument)) if self.offers(channel, instrument) else None

    def claim(self, channel: str, instrument: Instrument) -> Hold:
        """Claim a topic of an instrument that the venue lists, whether the configuration offers it or not."""
        topic = (channel, instrument.name)
        self._claimed[topic] = instrument.market
        self._call(instrument.market)
        return self._hold(topic)

    async def listed(self, market: str, *, other_than: InstrumentMap | None = None) -> InstrumentMap:
        """Return what a market lists, as soon as that is known; the market is begun if it was not.

        Args:
            other_than: A list that is known already: wait for the next.
        """
        self._call(market)
        while (found := self._maps.get(market)) is None or found is other_than:
            await self._listed.wait()
        return found

    def known(self, market: str) -> InstrumentMap | None:
        """Return what a market lists; None while that is not known."""
        return self._maps.get(market)

    def _call(self, market: str) -> None:
        if market not in self._called:
            self._called[market] = None
            self._calling.set()

    def _hold(self, topic: TopicKey) -> Hold:
        self._until.pop(topic, None)
        self._holds[topic] = self._holds.get(topic, 0) + 1
        self._bus.topic(topic[0], self._venue, topic[1])
        self._fresh[topic] = None
        self._changed.set()
        return Hold(self, topic)

    def offers(self, channel: str, instrument: str) -> bool:
        """Return whether a topic may be claimed; while a market's instruments are not known, any name of it."""
        for entry in self._entries:
            if channel in entry.channels:
                names = self._names.get(entry)
                if instrument in names if names is not None else _plausible(instrument):
                    return True
        return False

    def release(self, topic: TopicKey) -> None:
        """End one claim. After the last the topic is served for a while still."""
        left = self._holds[topic] - 1
        if left:
            self._holds[topic] = left
            return
        del self._holds[topic]
        self._until[topic] = trio.current_time() + self._linger_s
        self._changed.set()

    # --- what the venue's runtime calls ----------------------------------------------------------------

    def __contains__(self, topic: TopicKey) -> bool:
        return topic in self._holds or topic in self._until

    @property
    def held(self) -> int:
        """How many topics are claimed now."""
        return len(self._holds)

    @property
    def leaving(self) -> int:
        """How many are served still, after their last reader."""
        return len(self._until)

    def describe(self, channel: str, instrument: str) -> dict[str, Any]:
        """Return whether a topic is offered, how many hold it, and in how many seconds it is let go."""
        topic = (channel, instrument)
        until = self._until.get(topic)
        return {
            "offered": self.offers(channel, instrument),
            "holds": self._holds.get(topic, 0),
            "leaving_s": None if until is None else round(max(0.0, until - trio.current_time()), 1),
        }

    def markets(self) -> list[str]:
        """Return the markets that offer anything, or that somebody needs."""
        return list(dict.fromkeys((*(entry.market for entry in self._entries), *self._called)))

    async def called(self, known: Container[str]) -> list[str]:
        """Wait until somebody needs markets besides those that are known, and return them."""
        while True:
            self._calling = trio.Event()
            found = [market for market in self._called if market not in known]
            if found:
                return found
            await self._calling.wait()

    def markets_of(self, topic: TopicKey) -> list[str]:
        """Return the markets that may have a topic: the one that it was claimed of, and those that offer its channel."""
        offering = [entry.market for entry in self._entries if topic[0] in entry.channels]
        claimed = self._claimed.get(topic)
        return list(dict.fromkeys(offering if claimed is None else (claimed, *offering)))

    def names(self, market: str, channel: str, name: str) -> bool:
        """Return whether a market whose instruments are known has this topic for those who hold it."""
        if self._claimed.get((channel, name)) == market:
            return self._maps[market].by_name(name) is not None
        return any(
            entry.market == market and channel in entry.channels and name in self._names.get(entry, ())
            for entry in self._entries
        )

    def reconfigure(self, config: VenueConfig) -> list[UnknownInstrumentError]:
        """Offer what another configuration says; return what is wrong with it, as far as that is known.

        What is held stays held, whether it is still offered or not.
        """
        self._entries = [entry for entry in config.subscribe if entry.on_demand]
        self._names.clear()
        wrong = [error for instruments in self._maps.values() for error in self._name(instruments)]
        for entry in config.subscribe:
            self._call(entry.market)
        return wrong

    def know(self, instruments: InstrumentMap) -> list[UnknownInstrumentError]:
        """Take a market's instruments; return what is wrong with the configured ones."""
        self._maps[instruments.market] = instruments
        listed, self._listed = self._listed, trio.Event()
        listed.set()
        return self._name(instruments)

    def _name(self, instruments: InstrumentMap) -> list[UnknownInstrumentError]:
        """Note what the entries of a market mean; return what is wrong with them."""
        wrong = []
        for entry in self._entries:
            if entry.market != instruments.market:
                continue
            names: set[str] = set()
            for spelling in entry.instruments or ("*",):
                try:
                    names.update(found.name for found in meant(instruments, spelling))
                except UnknownInstrumentError as e:
                    wrong.append(e)
            self._names[entry] = frozenset(names)
        return wrong

    def renew(self) -> None:
        """Take all that is claimed as asked for just now: there is a new runtime, which serves nothing yet."""
        self._fresh.update(dict.fromkeys((*self._holds, *self._until)))
        self._changed.set()

    async def changes(self) -> Changes:
        """Wait until something changed, and return all of it: a thousand claims of one moment come together."""
        while True:
            with trio.move_on_at(next(iter(self._until.values()), float("inf"))):
                await self._changed.wait()
            self._changed = trio.Event()
            demanded = [topic for topic in self._fresh if topic in self]
            self._fresh.clear()
            ended = list(self._over(trio.current_time()))
            if demanded or ended:
                return Changes(demanded, ended)

    def _over(self, now: float) -> Iterator[TopicKey]:
        for topic, until in list(self._until.items()):
            if until > now:
                return
            del self._until[topic]
            self._claimed.pop(topic, None)
            yield topic


def meant(instruments: InstrumentMap, spelling: str) -> list[Instrument]:
    """Return the instruments that a configured name means; `*` and `?` mean all tradable ones that fit.

    Raises:
        UnknownInstrumentError: None.
    """
    if not any(sign in spelling for sign in "*?["):
        return [instruments.find(spelling)]
    found = [i for i in instruments if i.tradable and fnmatch.fnmatchcase(i.name, spelling)]
    if not found:
        raise UnknownInstrumentError(spelling, [], where=f"{instruments.venue} {instruments.market}")
    return found


def not_offered(maps: Iterable[InstrumentMap], name: str) -> str:
    """Return why none of these markets serves an instrument."""
    reason = f"unknown instrument {name!r}"
    for instruments in maps:
        try:
            found = instruments.find(name)
        except UnknownInstrumentError as e:
            reason = str(e)
            continue
        if found.name != name:
            return f"{name!r} is the venue's word for {found.name}; subscribe to that"
        if not found.tradable:
            return f"{name} cannot be traded now ({found.status or 'the venue says no more'})"
        return f"{name} is not offered on demand"
    return reason


def _plausible(name: str) -> bool:
    """Return whether this may be the name of an instrument."""
    return 0 < len(name) <= NAME_CHARS and name.isprintable() and not any(sign in " *?[" for sign in name)
