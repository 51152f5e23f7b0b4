"""From a parsed file to `Config`: each section by its settings class, and against what the plugins declare."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from pricefeedd.config import overrides
from pricefeedd.config.checks import endpoint, name
from pricefeedd.config.settings import (
    AccountConfig,
    Config,
    LeaderConfig,
    LoggingConfig,
    MetricsConfig,
    SinkConfig,
    SourceConfig,
    StoreConfig,
    SubscribeConfig,
    VenueConfig,
    WebConfig,
    state_dir,
)
from pricefeedd.config.strict import Problem, Strict, StructureError, did_you_mean, mismatch, unknown_key
from pricefeedd.config.toml_place import KeyPath
from pricefeedd.events import CHANNELS, DERIVED_CHANNELS, PRIVATE_CHANNELS
from pricefeedd.hookspecs import Elector, Sink
from pricefeedd.source import Source
from pricefeedd.venue import Venue

_VENUE_KEYS = ("plugin", "endpoints", "session")
_VENUE_ENTRIES = ("subscribe", "accounts")
_SINK_KEYS = ("plugin", "topics", "accounts", "conflate", "queue_bytes", "spool_bytes")
_SOURCE_KEYS = ("plugin", "topics", "accounts")
_LEADER_KEYS = ("elector", "unhealthy_after_s", "rest_s")

T = TypeVar("T")
P = TypeVar("P")


class ConfigReader:
    """Structures one parsed file. A section with problems is left at its defaults, and the rest is read on.

    Attributes:
        problems: All mistakes found so far.
    """

    def __init__(
        self,
        tree: dict[str, Any],
        venues: Mapping[str, Venue],
        sinks: Mapping[str, Sink],
        sources: Mapping[str, Source],
        electors: Mapping[str, Elector],
        environ: Mapping[str, str],
        broken: Mapping[str, str],
    ) -> None:
        self.problems: list[Problem] = []
        self._tree = tree
        self._venues = venues
        self._sinks = sinks
        self._sources = sources
        self._electors = electors
        self._environ = environ
        self._broken = broken
        self._strict = Strict(environ)

    def read(self) -> Config:
        """Return the configuration; it may be used if there are no `problems`."""
        sections = [field.name for field in attrs.fields(Config) if not field.metadata.get("outside")]
        self.problems += [unknown_key(key, sections) for key in self._tree if key not in sections]
        return Config(
            web=self._section("web", WebConfig),
            venues=self._tables("venues", self._venue),
            store=self._store(),
            sinks=self._tables("sinks", self._sink),
            sources=self._all_sources(),
            leader=self._leader(),
            logging=self._section("logging", LoggingConfig),
            metrics=self._section("metrics", MetricsConfig),
            state_dir=Path(state_dir(self._environ)),
        )

    def _section(self, section: str, kind: type[T]) -> T:
        try:
            return self._strict.structure(self._tree.get(section, {}), kind)
        except StructureError as e:
            self.problems += e.under(section)
            return kind()

    def _store(self) -> StoreConfig | None:
        if "store" not in self._tree:
            return None
        store = self._section("store", StoreConfig)
        return attrs.evolve(store, url=store.url.replace("{state_dir}", state_dir(self._environ)))

    def _tables(self, section: str, read: Callable[[str, dict[str, Any]], T | None]) -> dict[str, T]:
        tables = self._table((section,), self._tree.get(section, {}))
        found = {}
        for key, value in tables.items():
            try:
                name(None, None, key)
            except ValueError as e:
                self._add((section, key), str(e))
            table = self._table((section, key), value)
            made = read(key, table)
            if made is not None:
                found[key] = made
        return found

    def _table(self, path: KeyPath, value: Any) -> dict[str, Any]:
        if isinstance(value, overrides.Given):
            value = value.value
        if isinstance(value, dict):
            return value
        self.problems += mismatch("a table", value).under(*path)
        return {}

    def _add(self, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(path, text))

    # --- sections that belong to a plugin -----------------------------------------------------------------

    def _plugin(self, section: str, key: str, table: Mapping[str, Any], known: Mapping[str, P]) -> P | None:
        """Return what the plugin of a section brings; None, with a problem, if there is no such plugin."""
        wanted = self._plugin_name(key, table)
        if wanted in known:
            return known[wanted]
        path: KeyPath = (section, key, "plugin") if "plugin" in table else (section, key)
        if wanted in self._broken:
            self._add(path, self._broken[wanted])
            return None
        near = did_you_mean(wanted, known)
        hint = f"{near} if not: " if near.endswith("?") else "; "
        self._add(path, f"no plugin named {wanted!r} is installed{hint}pip install pricefeedd-{wanted}")
        return None

    def _plugin_name(self, key: str, table: Mapping[str, Any]) -> str:
        value = table.get("plugin", key)
        value = value.value if isinstance(value, overrides.Given) else value
        return value if type(value) is str else key

    def _fields(
        self, path: KeyPath, kind: type, keys: Collection[str], table: Mapping[str, Any], plugin: Any
    ) -> dict[str, Any]:
        """Return our keys of a plugin's section, and `settings` from the keys of the plugin."""
        present = [key for key in keys if key in table]
        good, problems = self._strict.fields(kind, table, present)
        theirs = {key: value for key, value in table.items() if key not in keys}
        if plugin is not None:
            own = [field.alias or field.name for field in attrs.fields(plugin.settings)]
            problems += [
                unknown_key(key, [*keys, *(_VENUE_ENTRIES if kind is VenueConfig else ()), *own])
                for key in theirs
                if key not in own
            ]
            try:
                good["settings"] = self._strict.structure(
                    {key: value for key, value in theirs.items() if key in own}, plugin.settings
                )
            except StructureError as e:
                problems += e.problems
        self.problems += StructureError(problems).under(*path)
        return good

    def _venue(self, key: str, table: dict[str, Any]) -> VenueConfig | None:
        path: KeyPath = ("venues", key)
        venue = self._plugin("venues", key, table, self._venues)
        # Arrays and tables of tables are read entry by entry, so that one bad entry does not hide another.
        subscribe = self._entries((*path, "subscribe"), table.get("subscribe", []), list)
        accounts = self._entries((*path, "accounts"), table.get("accounts", {}), dict)
        rest = {key: value for key, value in table.items() if key not in _VENUE_ENTRIES}
        good = self._fields(path, VenueConfig, _VENUE_KEYS, rest, venue)
        good["subscribe"] = tuple(
            made
            for index, entry in subscribe
            if (made := self._subscribe((*path, "subscribe", index), entry, venue)) is not None
        )
        good["accounts"] = {
            key: account
            for key, entry in accounts
            if (account := self._account((*path, "accounts", key), key, entry, venue)) is not None
        }
        for host, url in good.get("endpoints", {}).items():
            self._check_endpoint((*path, "endpoints", host), host, url, venue)
        if venue is None:
            return None
        good["plugin"] = venue.name
        return VenueConfig(name=key, **good)

    def _entries(self, path: KeyPath, value: Any, kind: type) -> list[tuple[Any, Any]]:
        value = value.value if isinstance(value, overrides.Given) else value
        if kind is list and isinstance(value, list):
            return list(enumerate(value))
        if kind is dict and isinstance(value, dict):
            return list(value.items())
        self.problems += mismatch("an array" if kind is list else "a table", value).under(*path)
        return []

    def _entry(self, path: KeyPath, kind: type[T], value: Any) -> tuple[dict[str, Any], T | None]:
        """Return the good fields of a table, and the instance if all are good."""
        table = self._table(path, value)
        good, problems = self._strict.fields(kind, table)
        known = [field.name for field in attrs.fields(kind)]  # type: ignore[arg-type]  # an attrs class
        problems += [unknown_key(key, known) for key in table if key not in known]
        self.problems += StructureError(problems).under(*path)
        return good, None if problems else kind(**good)

    def _sink(self, key: str, table: dict[str, Any]) -> SinkConfig | None:
        sink = self._plugin("sinks", key, table, self._sinks)
        good = self._fields(("sinks", key), SinkConfig, _SINK_KEYS, table, sink)
        if sink is None or "settings" not in good:
            return None
        good["plugin"] = sink.name
        return SinkConfig(name=key, **good)

    def _all_sources(self) -> dict[str, SourceConfig]:
        found = self._tables("sources", self._source)
        table = self._tree.get("sources")
        named = list(table) if isinstance(table, dict) else []
        why = "a source brings the epoch in which all numbers count, so it stands alone"
        if named and self._tree.get("venues"):
            self._add(("sources", named[0]), f"{why}; remove [venues], or serve them by another daemon")
        if len(named) > 1:
            self._add(("sources", named[1]), f"{why}; run a daemon for each source")
        return found

    def _source(self, key: str, table: dict[str, Any]) -> SourceConfig | None:
        source = self._plugin("sources", key, table, self._sources)
        good = self._fields(("sources", key), SourceConfig, _SOURCE_KEYS, table, source)
        if source is None or "settings" not in good:
            return None
        good["plugin"] = source.name
        return SourceConfig(name=key, **good)

    def _leader(self) -> LeaderConfig:
        table = self._table(("leader",), self._tree.get("leader", {}))
        good, problems = self._strict.fields(LeaderConfig, table, [k for k in _LEADER_KEYS if k in table])
        self.problems += StructureError(problems).under("leader")
        chosen = good.pop("elector", "none")
        settings: dict[str, Any] = {}
        for key, value in table.items():
            if key in _LEADER_KEYS:
                continue
            if key not in self._electors:
                # The section of an elector that is missing is told about once, by the elector's own problem.
                if key != chosen:
                    self.problems += StructureError(
                        [unknown_key(key, [*_LEADER_KEYS, *self._electors])]
                    ).under("leader")
                continue
            try:
                settings[key] = self._strict.structure(value, self._electors[key].settings)
            except StructureError as e:
                self.problems += e.under("leader", key)
        if chosen == "none":
            return LeaderConfig(**good)
        if self._tree.get("sources"):
            self._add(
                ("leader", "elector"),
                "a daemon with a source has no venues to lead; let the daemons that it reads elect one",
            )
        if chosen not in self._electors:
            self._no_elector(chosen)
        elif chosen not in table:
            try:
                settings[chosen] = self._strict.structure({}, self._electors[chosen].settings)
            except StructureError as e:
                self.problems += e.under("leader", chosen)
        return LeaderConfig(elector=chosen, settings=settings.get(chosen), **good)

    def _no_elector(self, chosen: str) -> None:
        if chosen in self._broken:
            self._add(("leader", "elector"), self._broken[chosen])
            return
        near = did_you_mean(chosen, ["none", *self._electors])
        hint = f"{near} if not: " if near.endswith("?") else "; "
        self._add(
            ("leader", "elector"),
            f"no elector named {chosen!r} is installed{hint}pip install pricefeedd-{chosen}",
        )

    # --- what only the venue knows ------------------------------------------------------------------------

    def _check_endpoint(self, path: KeyPath, key: str, url: str, venue: Venue | None) -> None:
        if venue is not None:
            known = {*venue.endpoints, *(k for hosts in venue.environments.values() for k in hosts)}
            if key not in known:
                self._add(path, f"{venue.title} has no endpoint {key!r}{did_you_mean(key, known)}")
        try:
            endpoint(url)
        except ValueError as e:
            self._add(path, str(e))

    def _subscribe(self, path: KeyPath, value: Any, venue: Venue | None) -> SubscribeConfig | None:
        """Return the entry with the market in our words, and repeated names once."""
        good, made = self._entry(path, SubscribeConfig, value)
        if not good.get("instruments", made is None) and not good.get("on_demand"):
            self._add(path, "names no instruments; list some, or set on_demand = true")
        word = good.get("market")
        if venue is None or word is None:
            return made
        market = venue.market_names.get(word, word)
        if market not in venue.channels:
            hint = did_you_mean(word, [*venue.markets, *venue.market_names])
            self._add((*path, "market"), f"{venue.title} has no market {word!r}{hint}")
            return made
        for index, channel in enumerate(good.get("channels", ())):
            self._check_channel((*path, "channels", index), channel, market, venue)
        if made is None:
            return None
        return attrs.evolve(
            made,
            market=market,
            instruments=tuple(dict.fromkeys(made.instruments)),
            channels=tuple(dict.fromkeys(made.channels)),
        )

    def _check_channel(self, path: KeyPath, channel: str, market: str, venue: Venue) -> None:
        offered = {c for c in venue.channels[market] if c not in PRIVATE_CHANNELS}
        if "candle_1m" in offered:
            offered.update(DERIVED_CHANNELS)
        if channel in PRIVATE_CHANNELS:
            self._add(
                path, f"{channel!r} belongs to an account; ask for it in [venues.NAME.accounts.ACCOUNT]"
            )
        elif channel not in offered:
            known = channel in CHANNELS or channel in DERIVED_CHANNELS
            what = f"{venue.title} {market} has no channel" if known else "there is no channel"
            self._add(path, f"{what} {channel!r}{did_you_mean(channel, offered)}")

    def _account(self, path: KeyPath, key: str, value: Any, venue: Venue | None) -> AccountConfig | None:
        good, made = self._entry(path, AccountConfig, value)
        try:
            name(None, None, key)
        except ValueError as e:
            self._add(path, str(e))
        if venue is None:
            return made
        if not any(feed.private for feed in venue.feeds):
            self._add(path, f"the plugin of {venue.title} has no private streams; remove the account")
            return made
        environment, environments = good.get("environment", "mainnet"), ("mainnet", *venue.environments)
        if environment not in environments:
            hint = did_you_mean(environment, environments)
            self._add((*path, "environment"), f"{venue.title} has no environment {environment!r}{hint}")
        for index, channel in enumerate(good.get("channels", ())):
            if channel not in venue.account_channels:
                hint = did_you_mean(channel, venue.account_channels)
                self._add(
                    (*path, "channels", index), f"{venue.title} has no private channel {channel!r}{hint}"
                )
        return made
