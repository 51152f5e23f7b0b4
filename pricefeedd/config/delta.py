"""What a changed configuration asks a running daemon to do, and what of it has to wait for the next start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from pricefeedd.config.changes import diff
from pricefeedd.config.settings import Config, VenueConfig

#: Keys of `[web]` that are read once: sockets are opened, and the memory for readers is laid out.
_WEB_AT_START = ("listen", "admin_listen", "tls", "history_events", "compression")

#: Whole sections likewise.
_AT_START = ("store", "sources")

#: Of `[leader]`: to change who decides while somebody leads would let two lead.
_LEADER_AT_START = ("elector", "settings")


@attrs.frozen(kw_only=True)
class Delta:
    """The difference.

    Attributes:
        config: The new configuration, with what waits for the next start as it was.
        lines: What changes now, for people, one line for each key.
        waiting: What would change at the next start.
        venues_added: Sections that are new, as everywhere by name.
        venues_removed: Sections that are gone.
        venues_restarted: Other endpoints, sessions or settings: such a venue is begun anew.
        venues_changed: Only what is subscribed differs.
        accounts_ended: Venue and name of accounts that are gone, or differ.
        accounts_begun: Venue and name of accounts that are new, or differ; not those of new venues.
        sinks_added: Sections that are new.
        sinks_removed: Sections that are gone.
        sinks_restarted: Those that differ, or whose accounts do.
    """

    config: Config
    lines: tuple[str, ...]
    waiting: tuple[str, ...]
    venues_added: tuple[str, ...]
    venues_removed: tuple[str, ...]
    venues_restarted: tuple[str, ...]
    venues_changed: tuple[str, ...]
    accounts_ended: tuple[tuple[str, str], ...]
    accounts_begun: tuple[tuple[str, str], ...]
    sinks_added: tuple[str, ...]
    sinks_removed: tuple[str, ...]
    sinks_restarted: tuple[str, ...]


def delta(old: Config, new: Config) -> Delta:
    """Return what leads from one configuration to another."""
    now = _without_waiting(old, new)
    before, after = old.venues, now.venues
    kept = [name for name in after if name in before]
    restarted = [name for name in kept if _restarts(before[name], after[name])]
    changed = [n for n in kept if n not in restarted and before[n].subscribe != after[n].subscribe]
    was = {
        (v.name, name): (account, _whole(v)) for v in before.values() for name, account in v.accounts.items()
    }
    shall = {
        (v.name, name): (account, _whole(v)) for v in after.values() for name, account in v.accounts.items()
    }
    ended = [key for key in was if shall.get(key) != was[key]]
    begun = [key for key in shall if was.get(key) != shall[key] and key[0] in kept]
    channels_differ = _account_channels(before) != _account_channels(after)
    sinks = [name for name in now.sinks if name in old.sinks]
    return Delta(
        config=now,
        lines=tuple(diff(old, now)),
        waiting=tuple(diff(now, new)),
        venues_added=_missing(after, before),
        venues_removed=_missing(before, after),
        venues_restarted=tuple(restarted),
        venues_changed=tuple(changed),
        accounts_ended=tuple(ended),
        accounts_begun=tuple(begun),
        sinks_added=_missing(now.sinks, old.sinks),
        sinks_removed=_missing(old.sinks, now.sinks),
        sinks_restarted=tuple(
            name
            for name in sinks
            if old.sinks[name] != now.sinks[name] or (now.sinks[name].accounts and channels_differ)
        ),
    )


def _without_waiting(old: Config, new: Config) -> Config:
    """Return the new configuration, with what cannot change while running as it was."""
    web = attrs.evolve(new.web, **{key: getattr(old.web, key) for key in _WEB_AT_START})
    leader = attrs.evolve(new.leader, **{key: getattr(old.leader, key) for key in _LEADER_AT_START})
    kept: dict[str, Any] = {key: getattr(old, key) for key in (*_AT_START, "state_dir")}
    if bool(old.sources) != bool(new.sources):
        kept["venues"] = old.venues  # a relay has none: what it is changes as a whole
    return attrs.evolve(new, web=web, leader=leader, **kept)


def _restarts(old: VenueConfig, new: VenueConfig) -> bool:
    return _whole(old) != _whole(new)


def _whole(config: VenueConfig) -> tuple[Any, ...]:
    """Return what every part of a venue depends on."""
    return config.plugin, dict(config.endpoints), config.session, config.settings


def _account_channels(venues: Mapping[str, VenueConfig]) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(v.name, name): account.channels for v in venues.values() for name, account in v.accounts.items()}


def _missing(some: Mapping[str, Any], others: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in some if name not in others)
