"""Reading the configuration: one TOML file, the environment over it, checked against the plugins.

Reading runs once, before Trio starts, and again for each reload. It has no effects, and it tells all
mistakes at once, each with its line and a way out.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pricefeedd.config import overrides
from pricefeedd.config.changes import diff
from pricefeedd.config.reader import ConfigReader
from pricefeedd.config.settings import (
    AccountConfig,
    Config,
    KeyConfig,
    LeaderConfig,
    LoggingConfig,
    MetricsConfig,
    SessionConfig,
    SinkConfig,
    SourceConfig,
    StoreConfig,
    SubscribeConfig,
    TlsConfig,
    VenueConfig,
    WebConfig,
    state_dir,
)
from pricefeedd.config.strict import Problem
from pricefeedd.config.toml_place import KeyPath, line_of, lines_of_keys, spell
from pricefeedd.errors import ConfigError
from pricefeedd.hookspecs import Elector, Sink
from pricefeedd.source import Source
from pricefeedd.venue import Venue

__all__ = [
    "SEARCH_PLACES",
    "AccountConfig",
    "Config",
    "KeyConfig",
    "LeaderConfig",
    "LoggingConfig",
    "MetricsConfig",
    "SessionConfig",
    "SinkConfig",
    "SourceConfig",
    "StoreConfig",
    "SubscribeConfig",
    "TlsConfig",
    "VenueConfig",
    "WebConfig",
    "build",
    "diff",
    "find_file",
    "load",
    "state_dir",
]

SEARCH_PLACES = (Path("pricefeedd.toml"), Path("/etc/pricefeedd/pricefeedd.toml"))

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_SOURCES: Mapping[str, Source] = MappingProxyType({})


def find_file(explicit: Path | None) -> Path | None:
    """Return the file to read: the one asked for, or else the first of `SEARCH_PLACES` that is there.

    A file that was asked for is returned whether it is there or not, so that `load` can say so.
    """
    if explicit is not None:
        return explicit
    return next((place for place in SEARCH_PLACES if place.is_file()), None)


def load(
    path: Path | None,
    *,
    venues: Mapping[str, Venue],
    sinks: Mapping[str, Sink],
    electors: Mapping[str, Elector],
    sources: Mapping[str, Source] = _NO_SOURCES,
    environ: Mapping[str, str] = os.environ,
    broken: Mapping[str, str] = _NOTHING,
) -> Config:
    """Return the configuration in a file, with `PRICEFEEDD__...` variables laid over it.

    Args:
        path: The file; None reads the environment alone, over the defaults.
        venues: The venues of the plugins that were loaded, by name; likewise `sinks`, `electors` and `sources`.
        environ: The environment, for the variables, for secrets and for the state directory.
        broken: Why a plugin that is installed cannot be used, by the name of the plugin.

    Raises:
        ConfigError: It cannot be used, with all the reasons.
    """
    source = str(path) if path is not None else "environment"
    text = _text(path) if path is not None else ""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError([_syntax(source, text, e)], source=source) from e
    return build(
        tree,
        venues=venues,
        sinks=sinks,
        electors=electors,
        sources=sources,
        environ=environ,
        broken=broken,
        source=source,
        text=text,
    )


def build(
    tree: dict[str, Any],
    *,
    venues: Mapping[str, Venue],
    sinks: Mapping[str, Sink],
    electors: Mapping[str, Elector],
    sources: Mapping[str, Source] = _NO_SOURCES,
    environ: Mapping[str, str] = os.environ,
    broken: Mapping[str, str] = _NOTHING,
    source: str = "arguments",
    text: str = "",
) -> Config:
    """Return the configuration in a parsed file, or in what a command made; the environment lies over it.

    Args:
        tree: The sections; it is changed.
        source: What problems name as their place.
        text: The file's text, for the lines of problems.

    Raises:
        ConfigError: It cannot be used, with all the reasons.
    """
    variables, outside = overrides.apply(tree, environ)
    reader = ConfigReader(tree, venues, sinks, sources, electors, environ, broken)
    config = reader.read()
    if reader.problems or outside:
        shown = _Places(source, text, variables)
        raise ConfigError([*shown.in_order(reader.problems), *outside], source=source)
    return config


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as e:
        raise ConfigError([f"cannot be read: {e.strerror}"], source=str(path)) from e
    except UnicodeDecodeError as e:
        line = e.object[: e.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text; save the file as UTF-8"], source=str(path)) from e


def _syntax(source: str, text: str, error: tomllib.TOMLDecodeError) -> str:
    message = str(error)
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:
        return f"{source}: {message}"
    line = int(found[1]) if found[1] else text.count("\n") + 1
    return f"{source}:{line}: not TOML: {message[: found.start()]}"


class _Places:
    """Tells where problems are: the line of the file, or the variable that set the value."""

    def __init__(self, source: str, text: str, variables: Mapping[KeyPath, str]) -> None:
        self._source = source
        self._lines = lines_of_keys(text)
        self._variables = variables

    def in_order(self, problems: Collection[Problem]) -> list[str]:
        placed = [(self._line(problem), self._tell(problem)) for problem in problems]
        return list(dict.fromkeys(text for _, text in sorted(placed, key=lambda pair: pair[0])))

    def _full(self, problem: Problem) -> KeyPath:
        return problem.path if problem.key is None else (*problem.path, problem.key)

    def _line(self, problem: Problem) -> int:
        return line_of(self._full(problem), self._lines) or 0

    def _tell(self, problem: Problem) -> str:
        path = self._full(problem)
        variable = next(
            (name for end in range(len(path), 0, -1) if (name := self._variables.get(path[:end]))), None
        )
        line = self._line(problem)
        if variable is None and not line:
            # A table that a variable made: the variable goes on where the problem's path ends.
            variable = next(
                (name for p, name in self._variables.items() if path and p[: len(path)] == path), None
            )
        place = variable or (f"{self._source}:{line}" if line else self._source)
        shown = f"{spell(problem.path)}: " if problem.path else ""
        return f"{place}: {shown}{problem.text}{problem.value}"
