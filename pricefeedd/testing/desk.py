"""Accounts of a venue at work against its fake, in memory: what readers of their topics got.

Under Trio's mock clock an absence of minutes, or a pause of hours, takes no time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from pricefeedd.accounts.keeper import Accounts
from pricefeedd.accounts.runtime import AccountRuntime
from pricefeedd.bus import Bus
from pricefeedd.config import AccountConfig, VenueConfig
from pricefeedd.errors import leaves
from pricefeedd.events import PRIVATE_CHANNELS, AccountEvent, Gap, State, Status
from pricefeedd.instruments import Directory
from pricefeedd.message import Message
from pricefeedd.runtime import Surroundings, VenueRuntime
from pricefeedd.stats import Stats
from pricefeedd.testing.fake import FakeVenue
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.testing.rig import SkewedClock
from pricefeedd.topic import Pattern
from pricefeedd.venue import Venue


class Desk:
    """Accounts at work, and everything that one reader of all their topics got.

    Attributes:
        messages: What the reader got, in order.
        clock: Our wall clock; the venue has its own.
        dialer: What they reach the venue by; it knows all URLs that were dialled.
        accounts: The accounts themselves.
    """

    def __init__(
        self, name: str, bus: Bus, stats: Stats, clock: SkewedClock, accounts: Accounts, dialer: MemoryDialer
    ) -> None:
        self.bus = bus
        self.stats = stats
        self.clock = clock
        self.dialer = dialer
        self.messages: list[Message] = []
        self._name = name
        self.accounts = accounts
        self._changed = trio.lowlevel.ParkingLot()
        self._mailbox = bus.mailbox(limit_bytes=1 << 40, flush=self._flush)

    def read(self, account: str) -> None:
        """Read all topics of an account, from now on."""
        for channel in PRIVATE_CHANNELS:
            self.bus.subscribe(self._mailbox, Pattern(f"{channel}:{self._name}:{account}"))

    def _flush(self) -> None:
        self.messages += [message for message in self._mailbox.take() if isinstance(message, Message)]
        self._changed.unpark_all()

    async def until(self, condition: Callable[[], object], *, within_s: float = 600.0) -> None:
        """Wait until something is true of what the reader got.

        Raises:
            trio.TooSlowError: It did not come true in time.
        """
        with trio.fail_after(within_s):
            while not condition():
                await self._changed.park()

    def runtime(self, account: str = "main") -> AccountRuntime:
        """Return an account that runs."""
        return self.accounts.running[self._name, account]

    def events(self, channel: str, account: str = "main") -> list[AccountEvent]:
        """Return what an account was told of a channel."""
        topic = f"{channel}:{self._name}:{account}"
        return [m.event for m in self.messages if m.topic == topic and isinstance(m.event, AccountEvent)]

    def gaps(self, channel: str, account: str = "main") -> list[Gap]:
        """Return the holes that readers were told of."""
        topic = f"{channel}:{self._name}:{account}"
        return [m.event for m in self.messages if m.topic == topic and isinstance(m.event, Gap)]

    def said(self, channel: str, account: str = "main") -> list[tuple[State, str]]:
        """Return state and reason of each status, in order."""
        topic = f"{channel}:{self._name}:{account}"
        found = [m.event for m in self.messages if m.topic == topic]
        return [(event.state, event.reason) for event in found if isinstance(event, Status)]

    def state(self, channel: str = "order", account: str = "main") -> State:
        """Return the present state of a topic."""
        return self.bus.topic(channel, self._name, account).state

    def whole(self, account: str = "main") -> bool:
        """Return whether nothing is missing of an account, as far as anybody knows."""
        runtime = self.accounts.running.get((self._name, account))
        told = [] if runtime is None else runtime.describe()["channels"].values()
        return bool(told) and all(channel["whole"] for channel in told)


@asynccontextmanager
async def desk(
    venue: Venue,
    fakes: FakeVenue | Mapping[str, FakeVenue],
    accounts: Mapping[str, Mapping[str, Any]],
    *,
    endpoints: Mapping[str, str] | None = None,
    state_dir: Path | None = None,
    public: VenueConfig | None = None,
    clock: SkewedClock | None = None,
) -> AsyncIterator[Desk]:
    """Run accounts against a fake, in memory.

    Args:
        fakes: One that answers everywhere, or several by their base URLs.
        accounts: Sections `[venues.NAME.accounts.ACCOUNT]`, by account.
        endpoints: Base URLs in place of the venue's own.
        state_dir: Where it is kept up to when they were seen; None to keep nothing.
        public: What of the venue's public data is served beside them; nothing by default.
    """
    config = VenueConfig(
        name=venue.name,
        plugin=venue.name,
        subscribe=() if public is None else public.subscribe,
        endpoints=dict(endpoints or {}),
        accounts={name: AccountConfig(**section) for name, section in accounts.items()},
        settings=venue.settings(),
    )
    if isinstance(fakes, FakeVenue):
        urls = {**venue.endpoints, **(endpoints or {})}.values()
        environments = [url for hosts in venue.environments.values() for url in hosts.values()]
        fakes = dict.fromkeys([*urls, *environments], fakes)
    bus = Bus()
    clock = clock or SkewedClock(next(iter(fakes.values())).now_ns)
    stats = Stats(started_ns=clock())
    try:
        async with trio.open_nursery() as nursery:
            dialer = MemoryDialer(nursery, fakes, now_ns=clock)
            around = Surroundings(
                bus=bus,
                directory=Directory(),
                stats=stats,
                dialer=dialer,
                now_ns=clock,
                state_dir=state_dir,
            )
            keeper = Accounts({venue.name: config}, {venue.name: venue})
            made = Desk(venue.name, bus, stats, clock, keeper, dialer)
            for name in accounts:
                made.read(name)
            if config.subscribe:
                nursery.start_soon(VenueRuntime(venue, config, around).run, name=f"venue:{venue.name}")
            for name in accounts:
                nursery.start_soon(keeper.run_one, venue.name, name, around, name=f"account:{name}")
            yield made
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # What a test asserts in the block comes out as it went in.
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise
