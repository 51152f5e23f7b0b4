"""The last lines, for people who look from elsewhere: `GET /api/v1/log`."""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from typing import Any, Final

import attrs
import orjson
from structlog.typing import EventDict, WrappedLogger

#: From the least to the most important.
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_RANK: Final = {level: rank for rank, level in enumerate(LEVELS)}

#: Lines that are kept, and the most characters of one text in them.
LINES: Final = 500
_TEXT: Final = 2_000

#: What each line has; a fact of the same name gets an underscore.
_OURS: Final = ("number", "time", "level", "message", "logger")


@attrs.frozen(kw_only=True)
class Page:
    """Some of the last lines.

    Attributes:
        lines: The oldest first; each has `number`, `time`, `level`, `message`, `logger` and its facts.
        next: What to ask for next time: all up to there was told, or left out for its level.
        missed: Lines in between that are not kept any longer.
    """

    lines: list[dict[str, Any]]
    next: int
    missed: int


class Recent:
    """The last lines of level info and above, numbered from 1.

    It is given lines after secrets were struck out. Of an exception it keeps the last line: a traceback is for those who
    can read the log itself.
    """

    def __init__(self, lines: int = LINES) -> None:
        self._lines: deque[dict[str, Any]] = deque(maxlen=lines)
        self._numbers = count(1)
        self._last = 0
        self._lock = threading.Lock()

    def keep(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Keep a line; a structlog processor that changes nothing."""
        level = event.get("level", "info")
        if _RANK.get(level, 1) >= _RANK["info"]:
            facts = {name: value for name, value in event.items() if name not in ("event", "exception")}
            line = {
                "time": facts.pop("time", ""),
                "level": facts.pop("level", "info"),
                "message": _plain(event.get("event", "")),
                "logger": facts.pop("logger", ""),
            }
            for name, value in facts.items():
                line[f"{name}_" if name in _OURS else name] = _plain(value)
            if exception := event.get("exception"):
                line["exception"] = str(exception).rstrip().rpartition("\n")[2].strip("| ")[:_TEXT]
            with self._lock:
                self._last = next(self._numbers)
                self._lines.append({"number": self._last, **line})
        return event

    def page(self, after: int = 0, level: str = "info", limit: int = LINES) -> Page:
        """Return the lines after a number, of a level and above.

        A number that was never given out is of an earlier life of this process, and begins anew.

        Args:
            limit: The most lines; the oldest of those asked for come first.
        """
        with self._lock:
            lines, last = list(self._lines), self._last
        if after > last:
            after = 0
        first = lines[0]["number"] if lines else last + 1
        asked = [line for line in lines if line["number"] > after]
        found = [line for line in asked if _RANK.get(line["level"], 1) >= _RANK[level]]
        if len(found) > limit:
            found = found[:limit]
            last = found[-1]["number"]
        return Page(lines=found, next=last, missed=max(0, first - after - 1))


def _plain(value: Any) -> Any:
    """Return a value that JSON can say, and that is not shared with anybody."""
    if isinstance(value, str):
        return value if len(value) <= _TEXT else f"{value[:_TEXT]}…"
    if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 53):
        return value
    try:
        text = orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        text = b""
    return orjson.loads(text) if 0 < len(text) <= _TEXT else repr(value)[:_TEXT]
