"""Plugins: entry points to records, one at a time, so that a broken one harms nobody but those who ask for it.

This is one of the two borders with plugin code, and catches whatever that raises.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol

import attrs
import pluggy

from pricefeedd.config.settings import SinkConfig, SourceConfig, VenueConfig
from pricefeedd.errors import PluginError
from pricefeedd.events import CHANNELS
from pricefeedd.hookspecs import API_VERSION, ENTRY_POINT_GROUP, Command, Elector, Sink, Specs
from pricefeedd.instruments import MARKETS
from pricefeedd.source import Source
from pricefeedd.venue import Venue

log = logging.getLogger(__name__)


class Status(StrEnum):
    """What became of a plugin."""

    LOADED = "loaded"
    DISABLED = "disabled"
    BROKEN = "broken"


class Distribution(Protocol):
    """What is asked of an installed distribution."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


class EntryPoint(Protocol):
    """What is asked of an entry point, as `importlib.metadata` has it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def dist(self) -> Distribution | None: ...
    def load(self) -> Any: ...


@attrs.frozen(kw_only=True)
class PluginRecord:
    """One plugin that was found.

    Attributes:
        name: The entry point's.
        distribution: What `pip` calls it; "" if that cannot be told.
        version: Of the distribution.
        package: The Python package.
        status: Loaded, disabled or broken.
        reason: Why it is broken or disabled, and what to do.
        provides: What it brings, such as `venue binance`; for a broken one, as far as that is known.
    """

    name: str
    distribution: str = ""
    version: str = ""
    package: str = ""
    status: Status = Status.LOADED
    reason: str = ""
    provides: tuple[str, ...] = ()

    @property
    def trouble(self) -> str:
        """The reason, with the name of the plugin in front."""
        return f"plugin {self.name!r} ({self.package or self.distribution}): {self.reason}"


class _BrokenError(Exception):
    """Ends the loading of one plugin, with the reason."""


@attrs.define
class _Candidate:
    record: PluginRecord
    manager: pluggy.PluginManager | None = None
    venues: Sequence[Venue] = ()
    sinks: Sequence[Sink] = ()
    sources: Sequence[Source] = ()
    electors: Sequence[Elector] = ()
    commands: Sequence[Command] = ()

    @property
    def provides(self) -> tuple[str, ...]:
        return (
            *(f"venue {venue.name}" for venue in self.venues),
            *(f"sink {sink.name}" for sink in self.sinks),
            *(f"source {source.name}" for source in self.sources),
            *(f"elector {elector.name}" for elector in self.electors),
            *(f"command {command.name}" for command in self.commands),
        )


class Plugins:
    """All plugins that were found, and what the loaded ones bring.

    Attributes:
        records: One for each plugin, by name.
        venues: The venues, by name.
        sinks: The sinks, by name.
        sources: The sources, by name.
        electors: The electors, by name.
        commands: The commands, by name.
    """

    def __init__(self, candidates: Iterable[_Candidate]) -> None:
        loaded = []
        self.records: list[PluginRecord] = []
        for candidate in candidates:
            self.records.append(candidate.record)
            if candidate.record.status is Status.LOADED:
                loaded.append(candidate)
        self.venues: Mapping[str, Venue] = {v.name: v for c in loaded for v in c.venues}
        self.sinks: Mapping[str, Sink] = {s.name: s for c in loaded for s in c.sinks}
        self.sources: Mapping[str, Source] = {s.name: s for c in loaded for s in c.sources}
        self.electors: Mapping[str, Elector] = {e.name: e for c in loaded for e in c.electors}
        self.commands: Mapping[str, Command] = {m.name: m for c in loaded for m in c.commands}
        self._managers = [c.manager for c in loaded if c.manager is not None]

    @cached_property
    def fakes(self) -> Mapping[str, Callable[..., Any]]:
        """Makers of fake venues, by the venue's name; the plugins are asked at the first use.

        A plugin that fails to answer is logged and left out.
        """
        fakes: dict[str, Callable[..., Any]] = {}
        for manager in self._managers:
            try:
                for answer in manager.hook.pricefeedd_fakes():
                    fakes.update(answer)
            except Exception as e:  # noqa: BLE001  # the border with plugin code
                names = [name for name, _ in manager.list_name_plugin()]
                log.warning("plugin failed", extra={"plugin": names[0], "reason": f"pricefeedd_fakes: {e!r}"})
        return fakes

    @property
    def broken(self) -> Mapping[str, str]:
        """Why the plugins that are not loaded are not, by their names and the names of what they bring."""
        loaded = [record for record in self.records if record.status is Status.LOADED]
        taken = {record.name for record in loaded} | {what for record in loaded for what in record.provides}
        trouble: dict[str, str] = {}
        for record in self.records:
            if record in loaded:
                continue
            if record.name not in taken:
                trouble[record.name] = record.trouble
            for what in record.provides:
                if what not in taken:
                    trouble.setdefault(what.partition(" ")[2], record.trouble)
        return trouble

    def require(self, kind: str, name: str) -> Venue | Sink | Source | Elector:
        """Return what the configuration asks for.

        Args:
            kind: `venue`, `sink`, `source` or `elector`.

        Raises:
            PluginError: No plugin brings it, or the one that should is broken or disabled.
        """
        known: Mapping[str, Mapping[str, Venue | Sink | Source | Elector]] = {
            "venue": self.venues,
            "sink": self.sinks,
            "source": self.sources,
            "elector": self.electors,
        }
        if name in known[kind]:
            return known[kind][name]
        if name in self.broken:
            raise PluginError(self.broken[name])
        raise PluginError(f"no plugin brings the {kind} {name!r}; pip install pricefeedd-{name}")


def load_plugins(
    entry_points: Iterable[EntryPoint] | None = None, *, disabled: Collection[str] = ()
) -> Plugins:
    """Load the plugins that are installed; a broken one is reported in its record and passed over.

    Args:
        entry_points: By default, all of the group `pricefeedd`.
        disabled: Names of entry points that are not even imported.
    """
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    found = sorted(entry_points, key=lambda point: (point.name, _distribution(point)[0]))
    candidates = [_load(point, disabled=point.name in disabled) for point in found]
    _settle_clashes(candidates)
    return Plugins(candidates)


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return ("", "") if point.dist is None else (point.dist.name, point.dist.version)


def _load(point: EntryPoint, *, disabled: bool) -> _Candidate:
    distribution, version = _distribution(point)
    package = point.value.partition(":")[0].partition(".")[0]
    candidate = _Candidate(
        PluginRecord(name=point.name, distribution=distribution, version=version, package=package)
    )
    if disabled:
        candidate.record = attrs.evolve(
            candidate.record, status=Status.DISABLED, reason="disabled by the operator"
        )
        return candidate
    reason = ""
    try:
        _fill(candidate, point)
    except _BrokenError as e:
        reason = str(e)
    candidate.record = attrs.evolve(
        candidate.record,
        status=Status.BROKEN if reason else Status.LOADED,
        reason=reason,
        provides=candidate.provides,
    )
    return candidate


def _fill(candidate: _Candidate, point: EntryPoint) -> None:
    try:
        plugin = point.load()
    except (Exception, SystemExit) as e:
        raise _BrokenError(
            f"cannot be imported ({type(e).__name__}: {e}); upgrade, mend or uninstall it"
        ) from e
    # A manager for each, so that nothing in one plugin can be taken for a fault of another.
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    try:
        manager.register(plugin, name=point.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError, TypeError) as e:
        raise _BrokenError(f"implements a hook that does not exist, or not as specified ({e})") from e
    if not manager.get_hookcallers(plugin):
        raise _BrokenError("implements no hook; mark its functions with @hookimpl")
    candidate.manager = manager
    venues = _call(manager, "pricefeedd_venues", Venue)
    sinks = _call(manager, "pricefeedd_sinks", Sink)
    sources = _call(manager, "pricefeedd_sources", Source)
    electors = _call(manager, "pricefeedd_electors", Elector)
    commands = _call(manager, "pricefeedd_commands", Command)
    candidate.venues, candidate.sinks, candidate.electors = venues, sinks, electors
    candidate.sources, candidate.commands = sources, commands
    _no_name_twice(candidate.provides)
    for venue in venues:
        _check_settings(venue, VenueConfig)
        _check_venue(venue)
    for sink in sinks:
        _check_settings(sink, SinkConfig)
    for source in sources:
        _check_settings(source, SourceConfig)
    for elector in electors:
        _check_settings(elector, None)


def _call(manager: pluggy.PluginManager, hook: str, kind: type[Any]) -> list[Any]:
    try:
        answers = getattr(manager.hook, hook)()
        made = [item for answer in answers for item in answer]
    except (Exception, SystemExit) as e:
        raise _BrokenError(f"{hook}() failed ({type(e).__name__}: {e}); upgrade or mend it") from e
    for item in made:
        if not isinstance(item, kind):
            raise _BrokenError(f"{hook}() returned a {type(item).__name__}; expected {kind.__name__}s")
        if item.api_version != API_VERSION:
            raise _BrokenError(
                f"written for plugin API {item.api_version}, this pricefeedd speaks {API_VERSION}; "
                "install a matching release"
            )
    return made


def _no_name_twice(provides: Sequence[str]) -> None:
    for number, provided in enumerate(provides):
        if provided in provides[:number]:
            raise _BrokenError(f"brings the {provided} twice; give each its own name")


def _check_settings(
    brought: Venue | Sink | Source | Elector, ours: type[VenueConfig | SinkConfig | SourceConfig] | None
) -> None:
    what = f"settings of {brought.name!r}"
    if not attrs.has(brought.settings):
        raise _BrokenError(f"{what}: {brought.settings!r} is not an attrs class")
    try:
        attrs.resolve_types(brought.settings)
    except (NameError, TypeError) as e:
        raise _BrokenError(f"{what}: import its types for real, not under TYPE_CHECKING ({e})") from e
    if ours is None:
        return
    taken = {field.name for field in attrs.fields(ours)} - {"name", "settings"}
    for field in attrs.fields(brought.settings):
        if field.name in taken:
            raise _BrokenError(f"{what}: the key {field.name!r} is pricefeedd's own; choose another")


def _check_venue(venue: Venue) -> None:
    def wrong(text: str) -> _BrokenError:
        return _BrokenError(f"venue {venue.name!r}: {text}")

    for market, channels in venue.channels.items():
        if market not in MARKETS:
            raise wrong(f"{market!r} is no market; there is {', '.join(MARKETS)}")
        for channel in sorted(set(channels) - set(CHANNELS)):
            raise wrong(f"{channel!r} is no channel; there is {', '.join(CHANNELS)}")
        if market not in venue.rules:
            raise wrong(f"market {market!r} has no rules")
    names = [feed.name for feed in venue.feeds]
    for feed in venue.feeds:
        if names.count(feed.name) > 1:
            raise wrong(f"two feeds are named {feed.name!r}")
        if feed.market not in ("", *venue.channels):
            raise wrong(f"feed {feed.name!r} speaks market {feed.market!r}, which has no channels")
        if feed.endpoint not in venue.endpoints:
            raise wrong(f"feed {feed.name!r} dials endpoint {feed.endpoint!r}, which has no URL")
    for environment, endpoints in venue.environments.items():
        for key in sorted(set(endpoints) - set(venue.endpoints)):
            raise wrong(f"environment {environment!r} has the endpoint {key!r}, which the venue has not")


def _settle_clashes(candidates: Sequence[_Candidate]) -> None:
    """Mark as broken who brings a name that is another's.

    A name belongs to the plugin that is called so; a stranger cannot take it by coming earlier in the
    alphabet.
    """
    claims: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        if candidate.record.status is Status.LOADED:
            for provided in candidate.provides:
                claims.setdefault(provided, []).append(candidate)
    for provided, claimants in claims.items():
        name = provided.partition(" ")[2]
        owner = next((c for c in claimants if c.record.name == name), claimants[0])
        for candidate in claimants:
            if candidate is owner or candidate.record.status is Status.BROKEN:
                continue
            theirs = owner.record
            candidate.record = attrs.evolve(
                candidate.record,
                status=Status.BROKEN,
                reason=f"brings the {provided}, as plugin {theirs.name!r} "
                f"({theirs.distribution or theirs.package}) does; uninstall one of them",
            )
