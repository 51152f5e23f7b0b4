"""Where the keys of a TOML file stand, by line, for messages that an operator can follow.

`tomllib` reads values and forgets where they stood. This reads the same text again, only for places, and
only once something is wrong with it; text that `tomllib` took is all it has to understand.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from bisect import bisect_right

#: Table names and keys as text, positions in arrays as int.
KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_SCALAR = re.compile(r"[^,\]}\n#]*")


class _NotUnderstoodError(Exception):
    """The text is not TOML as we know it; the places found so far have to do."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._arrays: dict[KeyPath, int] = {}

    def scan(self) -> None:
        table: KeyPath = ()
        self._blank()
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self._header("[[", "]]")
            elif self.text.startswith("[", self.at):
                table = self._header("[", "]")
            else:
                self._pair(table)
            self._blank()

    def _blank(self) -> None:
        found = _BLANK.match(self.text, self.at)
        assert found is not None, "the pattern matches the empty text"
        self.at = found.end()

    def _take(self, pattern: re.Pattern[str] | str) -> str:
        if isinstance(pattern, str):
            if not self.text.startswith(pattern, self.at):
                raise _NotUnderstoodError
            self.at += len(pattern)
            return pattern
        found = pattern.match(self.text, self.at)
        if found is None:
            raise _NotUnderstoodError
        self.at = found.end()
        return found.group()

    def _keys(self) -> list[str]:
        keys = []
        while True:
            if self.text[self.at : self.at + 1] in ('"', "'"):
                keys.append(tomllib.loads(f"key = {self._take(_STRING)}")["key"])
            else:
                keys.append(self._take(_BARE_KEY))
            dot = _DOT.match(self.text, self.at)
            if dot is None:
                return keys
            self.at = dot.end()

    def _header(self, begin: str, end: str) -> KeyPath:
        line = self._line()
        self._take(begin)
        self._blank()
        keys = self._keys()
        self._blank()
        self._take(end)
        path: KeyPath = ()
        for position, key in enumerate(keys):
            path += (key,)
            self.lines.setdefault(path, line)
            if begin == "[[" and position == len(keys) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path += (self._arrays[path],)
                self.lines.setdefault(path, line)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path += (key,)
            self.lines.setdefault(path, line)
        self._blank()
        self._take("=")
        self._blank()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self._line())
        head = self.text[self.at : self.at + 1]
        if head in ('"', "'"):
            self._take(_STRING)
        elif head == "[":
            self._listed(path)
        elif head == "{":
            self._inline_table(path)
        else:
            self._take(_SCALAR)

    def _listed(self, path: KeyPath) -> None:
        self._take("[")
        self._blank()
        index = 0
        while not self.text.startswith("]", self.at):
            self._value((*path, index))
            self._blank()
            if not self.text.startswith("]", self.at):
                self._take(",")
                self._blank()
            index += 1
        self._take("]")

    def _inline_table(self, path: KeyPath) -> None:
        self._take("{")
        self._blank()
        while not self.text.startswith("}", self.at):
            self._pair(path)
            self._blank()
            if not self.text.startswith("}", self.at):
                self._take(",")
                self._blank()
        self._take("}")

    def _line(self) -> int:
        return bisect_right(self._ends, self.at - 1) + 1


def lines_of_keys(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, of every table, key and array item of a TOML text.

    Text that is not TOML gives the places up to the fault.
    """
    scanner = _Scanner(text)
    with contextlib.suppress(_NotUnderstoodError, tomllib.TOMLDecodeError):
        scanner.scan()
    return scanner.lines


def line_of(path: KeyPath, lines: dict[KeyPath, int]) -> int | None:
    """Return the line of a key or, where it is missing, of the nearest table around it."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def spell(path: KeyPath) -> str:
    """Return a path as people write it: `venues.binance.subscribe[0].market`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            text += f".{name}" if text else name
    return text
