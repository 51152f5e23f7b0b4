"""Settings from the environment: `PRICEFEEDD__SECTION__KEY=value` lays a value over the file's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import attrs

from pricefeedd.config.toml_place import KeyPath, spell

PREFIX = "PRICEFEEDD__"


@attrs.frozen
class Given:
    """A value from the environment.

    Attributes:
        raw: The variable's text, for keys that want text: an API key of digits only stays text.
        value: What the text means in TOML; the text itself where it means nothing.
    """

    raw: str = attrs.field(repr=False)
    value: Any = attrs.field(repr=False)


def parse(text: str) -> Given:
    """Return a variable's text with its meaning as a TOML value."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return Given(text, text)
    # A text with line ends in it could bring keys of its own.
    return Given(text, document["value"] if len(document) == 1 else text)


def apply(tree: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[KeyPath, str], list[str]]:
    """Lay the variables over a parsed file, in place.

    Names in a variable are matched to the file's without regard to case and to `-` against `_`; a number
    picks an item of an array that is there.

    Returns:
        The variable that set each path, and a problem for each variable that fits nowhere.
    """
    names: dict[KeyPath, str] = {}
    problems = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        parts = variable.removeprefix(PREFIX).split("__")
        try:
            names[_put(tree, parts, parse(environ[variable]))] = variable
        except ValueError as e:
            problems.append(f"{variable}: {e}")
    return names, problems


def _put(tree: dict[str, Any], parts: list[str], value: Given) -> KeyPath:
    if not all(parts):
        raise ValueError(f"a name is empty; write {PREFIX}SECTION__KEY")
    node: Any = tree
    path: KeyPath = ()
    for depth, part in enumerate(parts):
        if isinstance(node, Given):
            node = node.value
        last = depth == len(parts) - 1
        if isinstance(node, list):
            index = int(part) if part.isdecimal() else -1
            if not 0 <= index < len(node):
                raise ValueError(f"{part!r} is no item of an array of {len(node)}")
            path += (index,)
            if last:
                node[index] = value
            node = node[index]
            continue
        if not isinstance(node, dict):
            # Not a TypeError: what is wrong is the variable's name.
            raise ValueError(f"{spell(path)} is a value, not a table")  # noqa: TRY004
        key = _matching(part, node)
        path += (key,)
        if last:
            node[key] = value
        else:
            node = node.setdefault(key, {})
    return path


def _matching(part: str, node: dict[str, Any]) -> str:
    folded = part.casefold().replace("-", "_")
    for key in node:
        if key.casefold().replace("-", "_") == folded:
            return key
    return part.lower()
