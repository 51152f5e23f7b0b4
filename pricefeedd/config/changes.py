"""What a change of configuration changes, for `check --diff` and the log of a reload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from pricefeedd.config.settings import Config, SubscribeConfig


def diff(old: Config, new: Config) -> list[str]:
    """Return what a change of configuration changes, one line each, in the file's order; secrets not shown."""
    return list(_changes("", old, new))


def _changes(path: str, old: Any, new: Any, *, hidden: bool = False) -> list[str]:
    if old == new:
        return []
    if attrs.has(type(old)) and type(old) is type(new):
        lines = []
        for field in attrs.fields(type(old)):
            inner = f"{path}.{field.name}" if path else field.name
            if field.name == "settings":
                inner = path  # a plugin's keys stand beside ours
            lines += _changes(
                inner, getattr(old, field.name), getattr(new, field.name), hidden=not field.repr
            )
        return lines
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _changed_items(path, old, new, hidden=hidden, spell="{}.{}")
    if isinstance(old, tuple) and isinstance(new, tuple) and not hidden:
        if all(isinstance(item, str) for item in (*old, *new)):
            gone = [f"{path}: - {item}" for item in old if item not in new]
            come = [f"{path}: + {item}" for item in new if item not in old]
            return gone + come or [f"{path}: order changed"]
        return _changed_items(path, _by_label(old), _by_label(new), hidden=False, spell="{}[{}]")
    if hidden:
        return [f"{path}: changed (not shown)"]
    return [f"{path}: {_shown(old)} -> {_shown(new)}"]


def _changed_items(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], *, hidden: bool, spell: str
) -> list[str]:
    lines = []
    for key in dict.fromkeys([*old, *new]):
        inner = spell.format(path, key)
        if key not in new:
            lines.append(f"{inner}: removed")
        elif key not in old:
            lines.append(f"{inner}: added{_summary(new[key])}")
        else:
            lines += _changes(inner, old[key], new[key], hidden=hidden)
    return lines


def _by_label(items: tuple[Any, ...]) -> dict[str, Any]:
    """Return the tables of an array by what tells them apart, so that one put in front moves none."""
    labelled: dict[str, Any] = {}
    for item in items:
        label = getattr(item, "name", None) or getattr(item, "market", None) or "item"
        count = sum(1 for known in labelled if known.partition("#")[0] == label)
        labelled[label if not count else f"{label}#{count + 1}"] = item
    return labelled


def _summary(item: Any) -> str:
    if isinstance(item, SubscribeConfig):
        return f" {', '.join(item.instruments) or 'any instrument'} ({', '.join(item.channels)})"
    if isinstance(item, str | int | float):
        return f" {_shown(item)}"
    return ""


def _shown(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return str(value).lower()
    if attrs.has(type(value)):
        return "on"
    return str(value)
