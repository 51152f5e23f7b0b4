"""What a source plugin implements: where messages come from that another pricefeedd has numbered already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from pricefeedd.instruments import Instrument
from pricefeedd.venue import NoSettings


@attrs.define(kw_only=True)
class SourceReport:
    """What is known of a source; the source writes what only it knows, and pricefeedd the rest.

    Attributes:
        state: `connecting`, `catching_up` (it reads what was before), `up`, or `lost`.
        reason: Why it is not up; "" if it is.
        epoch: The life of the upstream's streams that is served; "" before the first message.
        messages: Messages that it delivered, of any kind.
        duplicates: Messages that were known already.
        outdated: Messages of an epoch that had ended.
        unwanted: Messages of topics or accounts that are not configured.
        unreadable: Messages that could not be understood.
        gaps: Jumps of numbers.
        missing: Events and changes of books that did not come, as far as they were not recovered.
        conflated: Messages of state that did not come, and for which newer ones stand.
        recovered: Messages that were fetched after a jump.
        epochs: How often the upstream began anew.
        reconnects: Connections after the first.
        lag_s: How long after the upstream received it the newest message was here; None before the first.
        positions: How far each stream was read, by its name.
        last_error: What went wrong last.
        last_message_ns: When something came last; None before the first.
    """

    state: str = "connecting"
    reason: str = ""
    epoch: str = ""
    messages: int = 0
    duplicates: int = 0
    outdated: int = 0
    unwanted: int = 0
    unreadable: int = 0
    gaps: int = 0
    missing: int = 0
    conflated: int = 0
    recovered: int = 0
    epochs: int = 0
    reconnects: int = 0
    lag_s: float | None = None
    positions: dict[str, int] = attrs.field(factory=dict)
    last_error: str = ""
    last_message_ns: int | None = None


@attrs.frozen(eq=False)
class Hole:
    """Numbers of a topic that did not come, and that the source may be able to fetch.

    Attributes:
        topic: `channel:venue:instrument`. Of a book no numbers are wanted, but the book as it is.
        first: First number that is missing.
        last: Last number that is missing.
    """

    topic: str
    first: int
    last: int


class Inlet(Protocol):
    """What a source is given to deliver to.

    A message is what a reader of the upstream's `/ws` gets, and its epoch: the text that `envelope.with_epoch` makes, or
    the parsed message with the key `epoch`. Topic, epoch and number stay as they are. What is known is dropped, what
    cannot be understood is counted, so that a source may deliver twice and need not look into what it delivers.

    Attributes:
        section: Name of the source's section, `[sources.NAME]`.
        topics: Patterns of the topics that are wanted.
        accounts: Names of the accounts whose topics are wanted as well; `*` for all.
        state_dir: Where the source may keep files of its own; made when it is first asked for.
        report: What `/status` and `/metrics` tell of the source.
        repairs: Set it to True to be told of holes by `hole`. Each must then be answered with `fill`, since the messages
            of the topic wait for it.
    """

    repairs: bool

    @property
    def section(self) -> str: ...
    @property
    def topics(self) -> Sequence[str]: ...
    @property
    def accounts(self) -> Sequence[str]: ...
    @property
    def state_dir(self) -> Path: ...
    @property
    def report(self) -> SourceReport: ...

    async def deliver(self, messages: Sequence[bytes | dict[str, Any]]) -> None:
        """Serve messages, in the order in which the upstream published them topic by topic."""
        ...

    def refresh(self, messages: Sequence[bytes | dict[str, Any]]) -> None:
        """Take how things stand at the upstream, for topics of which nothing is known yet, and books that are absent."""
        ...

    def catching_up(self) -> None:
        """Say that the upstream is connected, and that what comes now is its past: new readers wait until `up`."""
        ...

    def up(self) -> None:
        """Say that the upstream is connected, and that all of its past that is to be had was delivered."""
        ...

    def lost(self, reason: str) -> None:
        """Say that the upstream is away; readers are told that what they have may be old."""
        ...

    async def hole(self) -> Hole:
        """Wait for the next hole."""
        ...

    def fill(self, hole: Hole, messages: Sequence[bytes | dict[str, Any]], *, complete: bool = False) -> bool:
        """Take what was found of a hole, in order; what is still missing then is told to readers.

        Args:
            complete: These are all the events that there were.

        Returns:
            False for a book that is too old to go on from: fetch it again.
        """
        ...

    def list_instruments(self, venue: str, market: str, instruments: Sequence[Instrument]) -> None:
        """Take what the upstream knows of one market, in place of what was known before."""
        ...


@attrs.frozen(kw_only=True)
class Source:
    """Where messages come from that are numbered already: another pricefeedd.

    Attributes:
        name: Of the section `[sources.NAME]`.
        api_version: The plugin API that this was written for; a literal.
        settings: attrs class of `[sources.NAME]`.
        run: Given the settings and the inlet; runs until cancelled.
    """

    name: str
    api_version: int
    settings: type = NoSettings
    run: Callable[[Any, Inlet], Awaitable[None]]
