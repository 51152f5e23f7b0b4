"""All accounts of the daemon: each is begun, and begun again if it crashes, without hurting another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pricefeedd.accounts.plan import account_of
from pricefeedd.accounts.runtime import AccountRuntime
from pricefeedd.bus import Bus
from pricefeedd.config import VenueConfig
from pricefeedd.events import Origin, State, Status
from pricefeedd.runtime import Surroundings
from pricefeedd.supervisor import supervise
from pricefeedd.venue import Account, Venue


class Accounts:
    """Runs the accounts of all venues.

    Attributes:
        running: Those at work, by venue section and name.
        configs: The venues' sections; a reload replaces them.
        venues: As plugins declare them, by the plugins' names.
    """

    def __init__(self, configs: Mapping[str, VenueConfig], venues: Mapping[str, Venue]) -> None:
        """Prepare to run accounts."""
        self.running: dict[tuple[str, str], AccountRuntime] = {}
        self.configs = configs
        self.venues = venues

    async def run_one(self, section: str, name: str, around: Surroundings) -> None:
        """Run one of them until cancelled."""
        await supervise(
            partial(self._run, section, name, around),
            what="account",
            name=f"{section}:{name}",
            crashed=partial(self._crashed, section, name, around),
        )

    async def _run(self, section: str, name: str, around: Surroundings) -> None:
        config = self.configs[section]
        venue = self.venues[config.plugin or section]
        runtime = AccountRuntime(venue, config, name, config.accounts[name], around)
        self.running[section, name] = runtime
        try:
            await runtime.run()
        finally:
            self.running.pop((section, name), None)

    def _crashed(self, section: str, name: str, around: Surroundings, reason: str) -> None:
        account = account_of(name, self.configs[section].accounts[name])
        say_down(
            around.bus,
            section,
            account,
            reason=f"the venue's plugin crashed: {account.hide(reason)}",
            now_ns=around.now_ns(),
        )

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status`, by venue and account."""
        found: dict[str, Any] = {}
        for (section, name), runtime in self.running.items():
            found.setdefault(section, {})[name] = runtime.describe()
        return found


def say_down(bus: Bus, section: str, account: Account, *, reason: str, now_ns: int) -> None:
    """Let nobody believe what was told of an account until it is told anew."""
    bus.publish(
        Status(
            venue=section,
            instrument=account.name,
            received_ns=now_ns,
            origin=Origin.DERIVED,
            topic_channel=channel,
            state=State.DOWN,
            reason=reason,
        )
        for channel in account.channels
    )
