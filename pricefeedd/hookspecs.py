"""The hooks that a plugin may implement. One entry-point group, `pricefeedd`, for all kinds of plugin.

A plugin is a distribution `pricefeedd-NAME` with the package `pricefeedd_NAME` and the entry point `NAME`.
Hooks return data; pricefeedd does the running.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import attrs
import pluggy

from pricefeedd.envelope import Numbered
from pricefeedd.events import Event
from pricefeedd.source import Source
from pricefeedd.venue import NoSettings, Venue

#: The plugin API that this pricefeedd speaks. It counts up when a change breaks plugins.
API_VERSION = 1

ENTRY_POINT_GROUP = "pricefeedd"

_F = TypeVar("_F", bound=Callable[..., Any])

# pluggy's markers are untyped decorators; these keep the decorated function's type.
hookspec = cast("Callable[[_F], _F]", pluggy.HookspecMarker("pricefeedd"))
hookimpl = cast("Callable[[_F], _F]", pluggy.HookimplMarker("pricefeedd"))


@attrs.define(kw_only=True)
class SinkReport:
    """What a sink tells of itself.

    Attributes:
        state: `connecting`, `up`, `blocked` (it is there and takes nothing), or `down`.
        reason: Why it is not up; "" if it is.
        delivered: Messages that arrived, as far as the sink can know.
        dropped: Messages that are lost, by reason: `slow`, `unroutable`, `too_large`, ...
        waiting: Messages that the sink holds and that were not delivered yet.
        reconnects: Connections after the first.
        queues: Messages that wait at the other side, by the queue's name, where it tells.
        gauges: Other numbers worth watching, by name: `peers`, `subscriptions`, ...
        last_error: What went wrong last.
        last_delivered_ns: When something arrived last; None before the first.
    """

    state: str = "connecting"
    reason: str = ""
    delivered: int = 0
    dropped: dict[str, int] = attrs.field(factory=dict)
    waiting: int = 0
    reconnects: int = 0
    queues: dict[str, int] = attrs.field(factory=dict)
    gauges: dict[str, float] = attrs.field(factory=dict)
    last_error: str = ""
    last_delivered_ns: int | None = None

    def drop(self, reason: str, count: int = 1) -> None:
        """Count messages that are lost."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count


class Delivery(Numbered, Protocol):
    """One message of the two lanes, encoded once for all its readers.

    Attributes:
        event: The event itself.
    """

    @property
    def event(self) -> Event: ...


class Kept(Numbered, Protocol):
    """One message of those that may not be lost: it lies on disk until it is done.

    Attributes:
        number: Counts up through all that this sink was ever to keep.
        epoch: The life of the streams in which `seq` counts; after a restart those of the last are handed out first.
    """

    @property
    def number(self) -> int: ...
    @property
    def epoch(self) -> str: ...


class KeptLane(Protocol):
    """What may not be lost, in order, on disk: a sink that ends, or a daemon that is killed, finds it again."""

    async def receive(self, most: int) -> Sequence[Kept]:
        """Wait until there is something that was not handed out yet, and return up to `most` of it in order.

        A sink that begins anew (its `run` was called again) is handed out everything that is not done.

        Raises:
            trio.EndOfChannel: pricefeedd is stopping and everything was handed out.
        """
        ...

    async def done(self, number: int) -> None:
        """Forget everything up to this number: it is where it should be."""
        ...


class Lanes(Protocol):
    """What a sink is given to read.

    Two lanes for what may be dropped: state keeps only the newest of each topic, events wait in order. And a third one
    on disk for what may not: the events of accounts, for a sink that declares `keeps`.

    Attributes:
        section: Name of the sink's section, `[sinks.NAME]`.
        epoch: One life of all streams: `seq` counts only within it.
        kept: The lane on disk; None if there is nothing to keep.
        state_dir: Where the sink may keep files of its own; made when it is first asked for.
        report: What `/status` and `/metrics` tell of the sink; it writes here what it knows.
    """

    @property
    def section(self) -> str: ...
    @property
    def epoch(self) -> str: ...
    @property
    def kept(self) -> KeptLane | None: ...
    @property
    def state_dir(self) -> Path: ...
    @property
    def report(self) -> SinkReport: ...

    async def receive(self) -> Sequence[Delivery]:
        """Wait until there is something in the two lanes, and return all of it in order.

        Raises:
            trio.EndOfChannel: pricefeedd is stopping and everything was handed out; flush and return.
        """
        ...

    def may_send(self) -> bool:
        """Return whether what was handed out may still be sent: not once another daemon may lead. From any thread.

        To be asked right before something is sent, for a process that was frozen does not know that it was. A sink that
        may not send keeps what it has, and waits: it is cancelled soon.
        """
        ...

    async def ending(self) -> None:
        """Wait until pricefeedd begins to stop: nothing more comes into the lanes then.

        For a sink that reads nothing while its other side is away, and would else not see the end of the lanes.
        """
        ...


@attrs.frozen(kw_only=True)
class Sink:
    """Somewhere that messages go.

    Attributes:
        name: Of the section `[sinks.NAME]`.
        api_version: The plugin API that this was written for; a literal.
        settings: attrs class of `[sinks.NAME]`.
        run: Given the settings and the lanes; returns when the lanes end.
        keeps: Whether the events of accounts come through `Lanes.kept` and none of them may be lost. Otherwise
            they come through `receive`, like any other event.
        load: Imports what `run` needs and is slow to import. A daemon that stands by calls it, in a thread, so that who
            gains the lead publishes at once.
    """

    name: str
    api_version: int
    settings: type = NoSettings
    run: Callable[[Any, Lanes], Awaitable[None]]
    keeps: bool = False
    load: Callable[[], object] | None = None


class Leadership(Protocol):
    """How an elector tells whether we lead. To be called in Trio's thread.

    Attributes:
        identity: Who we are among the daemons: host, process, and a part that differs at each start.
    """

    @property
    def identity(self) -> str: ...

    def gained(self, fence: int, *, until: float) -> None:
        """We lead from now on.

        Args:
            fence: Grows with each new leader, whichever daemon that is: who sees a greater one knows that the other
                leads no more. It is the head of the epoch of our streams.
            until: Time of `time.monotonic()` before which nobody else can lead, even if we are never heard of again. It
                counts from before the request was sent that won the lead. What is published after it without `renewed`
                is not published: a daemon that was frozen finds its lead over.
        """
        ...

    def renewed(self, *, until: float) -> None:
        """We still lead, and nobody else can before `until`. Too late if the time told before has come."""
        ...

    def lost(self, reason: str) -> None:
        """We lead no longer; venues are let go at once, and `gained` may follow at any time."""
        ...

    def heard(self, leader: str) -> None:
        """Say who leads as far as is known, by its identity; "" for nobody. For operators."""
        ...


@attrs.frozen(kw_only=True)
class Elector:
    """Decides which of several daemons dials the venues.

    Attributes:
        name: The value of `[leader] elector`.
        api_version: The plugin API that this was written for; a literal.
        settings: attrs class of `[leader.NAME]`.
        run: Given the settings and the leadership; runs until cancelled, and then gives the lead up within a second, so
            that another daemon has it at once. It is cancelled only when nothing is published any more.
    """

    name: str
    api_version: int
    settings: type = NoSettings
    run: Callable[[Any, Leadership], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Command:
    """A command of `pricefeedd` that a plugin brings.

    Attributes:
        name: What is typed after `pricefeedd`.
        api_version: The plugin API that this was written for; a literal.
        help: One line that says what it does.
        load: Returns the `click.Command`; called when it is typed, so that heavy imports belong there.
    """

    name: str
    api_version: int
    help: str
    load: Callable[[], Any]


class Specs:
    """The hook specifications."""

    @hookspec
    def pricefeedd_venues(self) -> Sequence[Venue]:
        """Return the venues that this plugin brings. Called once, before Trio starts."""
        raise NotImplementedError  # a specification has no body of its own

    @hookspec
    def pricefeedd_sinks(self) -> Sequence[Sink]:
        """Return the sinks that this plugin brings. Called once, before Trio starts."""
        raise NotImplementedError  # a specification has no body of its own

    @hookspec
    def pricefeedd_sources(self) -> Sequence[Source]:
        """Return the sources that this plugin brings. Called once, before Trio starts."""
        raise NotImplementedError  # a specification has no body of its own

    @hookspec
    def pricefeedd_electors(self) -> Sequence[Elector]:
        """Return the electors that this plugin brings. Called once, before Trio starts."""
        raise NotImplementedError  # a specification has no body of its own

    @hookspec
    def pricefeedd_commands(self) -> Sequence[Command]:
        """Return the commands that this plugin brings. Called once, before Trio starts."""
        raise NotImplementedError  # a specification has no body of its own

    @hookspec
    def pricefeedd_fakes(self) -> Mapping[str, Callable[..., Any]]:
        """Return, by venue name, a `pricefeedd.testing.FakeVenue` that speaks the venue's protocol.

        Called by `pricefeedd demo` and by tests, never by the daemon.
        """
        raise NotImplementedError  # a specification has no body of its own
