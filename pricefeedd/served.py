"""Which topics of a venue are served, and what each needs: begun, asked for again, and let go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import attrs
import trio

from pricefeedd.bus import Bus
from pricefeedd.codec import Stream
from pricefeedd.config import SubscribeConfig
from pricefeedd.demand import meant
from pricefeedd.derive import TopicKey, sources
from pricefeedd.events import Event, Origin, State, Status
from pricefeedd.gate import Gate
from pricefeedd.instruments import Instrument, UnknownInstrumentError
from pricefeedd.keepers import Keepers
from pricefeedd.market import Market
from pricefeedd.plan import Connection, FullError, Plan
from pricefeedd.venue import Venue
from pricefeedd.wants import Wants

#: What the venue refused is asked for again when somebody new asks for it, but not more often than this.
REFUSED_FOR_S = 10.0
#: The last words on a topic that was served on demand.
UNREAD = "nobody reads it any more"


@attrs.frozen
class Served:
    """How a topic is served.

    Attributes:
        by: The instrument whose streams bring it: nearly always its own.
        chain: Its channel, the one that it is made of, and so on; empty where the venue has nothing for it.
        streams: What the venue is asked for.
    """

    market: Market
    by: Instrument
    chain: tuple[str, ...] = ()
    streams: tuple[Stream, ...] = ()

    def lines(self) -> list[TopicKey]:
        """Return the topics of the gate that it needs, its own first."""
        return [(channel, self.by.name) for channel in self.chain]


class ServedTopics:
    """The topics of one venue that are served now.

    Nothing here waits: a topic is begun, or gone, as a whole between two turns of the venue's loop.
    """

    def __init__(
        self,
        name: str,
        venue: Venue,
        *,
        bus: Bus,
        now_ns: Callable[[], int],
        plan: Plan,
        keepers: Keepers,
        wants: Wants,
    ) -> None:
        self._name = name
        self._venue = venue
        self._bus = bus
        self._now_ns = now_ns
        self._plan = plan
        self._keepers = keepers
        self._wants = wants
        self._served: dict[TopicKey, Served] = {}
        self._fixed: set[TopicKey] = set()
        self._wrong: set[TopicKey] = set()  # configured, and unknown to the venue
        self._full: dict[TopicKey, None] = {}  # without a connection that takes them
        self._needed_by: dict[TopicKey, set[TopicKey]] = {}

    def __contains__(self, topic: TopicKey) -> bool:
        return topic in self._served

    def get(self, topic: TopicKey) -> Served | None:
        """Return how a topic is served; None if it is not."""
        return self._served.get(topic)

    def describe(self, topic: TopicKey) -> dict[str, Any] | None:
        """Return what a topic is made of, by the name of its instrument or another; None if it is not served."""
        served = self._served.get(topic)
        if served is None:
            return None
        return {
            "by": served.by.name,
            "chain": list(served.chain),
            "always": topic in self._fixed,
            "no_room": topic in self._full,
        }

    def markets(self) -> set[Market]:
        """Return the markets of which something is served."""
        return {served.market for served in self._served.values()}

    def status(self, channel: str, instrument: str, reason: str, state: State = State.DOWN) -> Status:
        """Return the word on a topic that no line speaks for."""
        return Status(
            venue=self._name,
            instrument=instrument,
            received_ns=self._now_ns(),
            origin=Origin.DERIVED,
            topic_channel=channel,
            state=state,
            reason=reason,
        )

    # --- beginning -------------------------------------------------------------------------------------

    def begin_configured(
        self, market: Market, configured: Iterable[SubscribeConfig], nursery: trio.Nursery
    ) -> list[UnknownInstrumentError]:
        """Begin what is to be served always, as far as it is not; return what is wrong with it."""
        assert market.instruments is not None, "they say what is meant"
        wrong: list[UnknownInstrumentError] = []
        out: list[Event] = []
        fresh: list[tuple[str, Instrument]] = []
        for subscribe in configured:
            for spelling in subscribe.instruments:
                try:
                    found = meant(market.instruments, spelling)
                except UnknownInstrumentError as e:
                    wrong.append(e)
                    out += [self.status(channel, spelling, str(e)) for channel in subscribe.channels]
                    self._wrong.update((channel, spelling) for channel in subscribe.channels)
                    continue
                fresh += [(channel, instrument) for instrument in found for channel in subscribe.channels]
        begun = {(channel, instrument.name) for channel, instrument in fresh}
        self._fixed |= begun
        self._wrong -= begun
        if out:
            self._bus.publish(out)
        self.begin(market, fresh, nursery)
        return wrong

    def begin(self, market: Market, fresh: Iterable[tuple[str, Instrument]], nursery: trio.Nursery) -> None:
        """Have topics brought, and say how they stand."""
        begun: list[TopicKey] = []
        out: list[Event] = []
        copied: list[Event] = []
        for channel, instrument in fresh:
            topic = (channel, instrument.name)
            if topic in self._served:
                continue
            by = market.canonical(instrument)
            chain = sources(channel, self._venue.rules[market.name])
            streams = self._venue.codec.streams(chain[-1], by)
            if not streams:
                self._served[topic] = Served(market, by)
                reason = f"{self._venue.title} has no {channel} here"
                copied.append(self.status(channel, instrument.name, reason))
                continue
            served = self._served[topic] = Served(market, by, tuple(chain), tuple(streams))
            self._expect(topic, served, out, copied)
            begun += served.lines()
        self._show(market.gate, begun, out, copied)
        self._keepers.carry(market, nursery)

    def _expect(self, topic: TopicKey, served: Served, out: list[Event], copied: list[Event]) -> None:
        """Begin the lines of a topic, and have their streams carried."""
        gate, (channel, name) = served.market.gate, topic
        by = served.by.name
        owes = min((s.owes_within_s for s in served.streams if s.owes_within_s is not None), default=None)
        lines = gate.expect_made(served.chain, served.by, owes_within_s=owes)
        on_bus = self._bus.topic(channel, self._name, name)
        if by == name:
            gate.derivations.show(topic)
        if channel == "book":
            on_bus.book = partial(gate.book, by, name)
        for line_topic in served.lines():
            self._needed_by.setdefault(line_topic, set()).add(topic)
        self._bring(topic, served)
        told: list[Event] = []
        lines[0].tell(self._now_ns(), told)
        if by == name:
            out += told
        else:
            # The other name's readers know how it stands: this is for this one's alone.
            gate.derivations.copy((channel, by), name)
            copied += [attrs.evolve(event, instrument=name) for event in told]

    def _bring(self, topic: TopicKey, served: Served) -> bool:
        """Have the streams of a topic's lines carried; return whether there is room for them."""
        self._full.pop(topic, None)
        for channel, by in served.lines():
            try:
                self._plan.add((channel, by), served.streams, by)
            except FullError as e:
                line = served.market.gate.line(channel, by)
                assert line is not None, "it was just begun"
                line.state, line.reason = State.DOWN, str(e)
                self._full[topic] = None
        return topic not in self._full

    def _show(
        self, gate: Gate, lines: Iterable[TopicKey], out: list[Event], copied: Iterable[Event] = ()
    ) -> None:
        """Publish what was told, and let lines know of connections that bring their streams already."""
        now_ns = self._now_ns()
        for topic in lines:
            line = gate.line(*topic)
            if line is None or line.carriers or line.state is not State.CONNECTING:
                continue
            for connection, stream in self._plan.of(topic):
                session = connection.session
                if session is not None and session.carries(stream):
                    line.accepted(session.carrier, now_ns, out)
        done = [*copied, *gate.derive(out)]
        if done:
            self._bus.publish(done)

    # --- asking again ----------------------------------------------------------------------------------

    def ask_again(self, topic: TopicKey, nursery: trio.Nursery) -> None:
        """Ask the venue again for what it refused, or what was given up: somebody new wants it."""
        served = self._served[topic]
        if topic in self._full:
            self.retry_full(nursery)
        out: list[Event] = []
        now = trio.current_time()
        for connection, stream in self._plan.of((topic[0], served.by.name)):
            if connection not in self._keepers:
                self._keepers.begin(served.market, connection, nursery)
            elif connection.refused.get(stream.name, math.inf) <= now - REFUSED_FOR_S:
                connection.ask([stream])
            else:
                continue
            self._say_connecting(served, "asked again", out)
        self._show(served.market.gate, served.lines(), out)

    def retry_full(self, nursery: trio.Nursery) -> None:
        """Look whether there is room now for what did not fit before."""
        for topic in list(self._full):
            served = self._served[topic]
            if not self._bring(topic, served):
                continue
            out: list[Event] = []
            self._say_connecting(served, "", out)
            self._show(served.market.gate, served.lines(), out)
            self._keepers.carry(served.market, nursery)

    def _say_connecting(self, served: Served, reason: str, out: list[Event]) -> None:
        """Say of the lines of a topic that nothing brings that they are on their way."""
        for channel, by in served.lines():
            line = served.market.gate.line(channel, by)
            if line is not None and not line.carriers:
                line.say(State.CONNECTING, reason, self._now_ns(), out)

    # --- changing ---------------------------------------------------------------------------------------

    def unfix(self, configured: Mapping[Market, Iterable[SubscribeConfig]]) -> list[TopicKey]:
        """Take what is configured now as what is to be served always; return what was so before, and is not any more.

        Args:
            configured: Of each market whose instruments are known.
        """
        wanted: set[TopicKey] = set()
        for market, entries in configured.items():
            assert market.instruments is not None, "they say what is meant"
            for entry in entries:
                for spelling in entry.instruments:
                    try:
                        names = [found.name for found in meant(market.instruments, spelling)]
                    except UnknownInstrumentError:
                        names = [spelling]
                    wanted.update((channel, name) for name in names for channel in entry.channels)
        gone = [topic for topic in (*self._fixed, *self._wrong) if topic not in wanted]
        self._fixed &= wanted
        self._wrong &= wanted
        return gone

    # --- ending ----------------------------------------------------------------------------------------

    def let_go(self, topic: TopicKey, reason: str = UNREAD) -> None:
        """Serve a topic no longer, unless it is configured to be served always."""
        if topic in self._fixed:
            return
        self._full.pop(topic, None)
        served = self._served.pop(topic, None)
        if served is not None:
            self._forget(topic, served)
        channel, name = topic
        on_bus = self._bus.get(f"{channel}:{self._name}:{name}")
        if on_bus is not None:
            self._bus.publish([self.status(channel, name, reason)])
            on_bus.book = None
            self._bus.drop(on_bus)

    def _forget(self, topic: TopicKey, served: Served) -> None:
        """End a topic's lines and streams, as far as nothing else needs them."""
        gate, (channel, name) = served.market.gate, topic
        if served.by.name != name:
            gate.derivations.uncopy((channel, served.by.name), name)
        ended: list[tuple[Connection, Stream]] = []
        for line_topic, source in zip(served.lines(), (*served.chain[1:], None), strict=False):
            needed_by = self._needed_by[line_topic]
            needed_by.discard(topic)
            if needed_by:
                if line_topic not in self._served:
                    gate.derivations.hide(line_topic)
                continue
            del self._needed_by[line_topic]
            gate.forget(*line_topic, source=source)
            self._wants.end(line_topic)
            ended += self._plan.remove(line_topic)
        self._keepers.end(ended)
