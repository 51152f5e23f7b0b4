"""The hooks that a plugin may implement. One entry-point group, `pricefeedd`, for all kinds of plugin.

A plugin is a distribution `pricefeedd-NAME` with the package `pricefeedd_NAME` and the entry point `NAME`.
Hooks return data; pricefeedd does the running.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import attrs
import pluggy

from pricefeedd.events import Event
from pricefeedd.venue import NoSettings, Venue

#: The plugin API that this pricefeedd speaks. It counts up when a change breaks plugins.
API_VERSION = 1

ENTRY_POINT_GROUP = "pricefeedd"

_F = TypeVar("_F", bound=Callable[..., Any])

# pluggy's markers are untyped decorators; these keep the decorated function's type.
hookspec = cast("Callable[[_F], _F]", pluggy.HookspecMarker("pricefeedd"))
hookimpl = cast("Callable[[_F], _F]", pluggy.HookimplMarker("pricefeedd"))


class Delivery(Protocol):
    """One message as readers get it.

    Attributes:
        topic: `channel:venue:instrument`.
        seq: Counts up by one per topic within an epoch.
        event: The event itself.
        text: The message as JSON, encoded once for all readers.
    """

    @property
    def topic(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def event(self) -> Event: ...
    @property
    def text(self) -> bytes: ...


class Lanes(Protocol):
    """A sink's two lanes: state keeps only the newest of each topic, events wait in order."""

    async def receive(self) -> Sequence[Delivery]:
        """Wait until there is something, and return all of it in order.

        Raises:
            trio.EndOfChannel: pricefeedd is stopping and everything was handed out; flush and return.
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
    """

    name: str
    api_version: int
    settings: type = NoSettings
    run: Callable[[Any, Lanes], Awaitable[None]]


class Leadership(Protocol):
    """How an elector tells whether we lead."""

    def gained(self, epoch: int) -> None:
        """We lead from now on; `epoch` grows with each new leader."""
        ...

    def lost(self, reason: str) -> None:
        """We lead no longer; venues are let go at once."""
        ...


@attrs.frozen(kw_only=True)
class Elector:
    """Decides which of several daemons dials the venues.

    Attributes:
        name: The value of `[leader] elector`.
        api_version: The plugin API that this was written for; a literal.
        settings: attrs class of `[leader.NAME]`.
        run: Given the settings and the leadership; runs until cancelled, and then gives the lead up.
    """

    name: str
    api_version: int
    settings: type = NoSettings
    run: Callable[[Any, Leadership], Awaitable[None]]


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
    def pricefeedd_electors(self) -> Sequence[Elector]:
        """Return the electors that this plugin brings. Called once, before Trio starts."""
        raise NotImplementedError  # a specification has no body of its own

    @hookspec
    def pricefeedd_fakes(self) -> Mapping[str, Callable[..., Any]]:
        """Return, by venue name, a `pricefeedd.testing.FakeVenue` that speaks the venue's protocol.

        Called by `pricefeedd demo` and by tests, never by the daemon.
        """
        raise NotImplementedError  # a specification has no body of its own
