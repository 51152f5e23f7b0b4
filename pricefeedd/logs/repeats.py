"""The same line again and again: written once, then counted, and summed up.

A line is the same if its message is, and its facts save those that count or measure (`attempt`, `delay_s`). The first is
written; those that follow within the window are held back, and told by one line with `repeated` when the window ends, or
before another line with the same message is written. While they go on coming, each window brings one such line.

Where the facts differ without end (a client's address), a message may be written `PER_MESSAGE` times in a window; what is
beyond is counted together. An error is never held back for that: each kind of it is seen at least once.

Nothing is here but state that is told the time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

#: Lines of one message with differing facts that are written in a window.
PER_MESSAGE: Final = 50
#: Different lines that are remembered.
MOST: Final = 1_000

#: Facts that differ between lines that say the same.
_MEASURES: Final = frozenset({"attempt", "count", "dropped", "sequence", "seconds", "trace_id", "waiting"})
_UNITS: Final = ("_s", "_ms", "_us", "_ns", "_bytes")

#: Levels whose lines are held back; who asks for `debug` wants to see each.
_HELD: Final = frozenset({"info", "warning", "error", "critical"})
_ERRORS: Final = frozenset({"error", "critical"})

Message = tuple[str, str, str]
Key = tuple[Message, object]


@attrs.frozen(kw_only=True)
class Summary:
    """What was held back of one line.

    Attributes:
        facts: Those of the last one.
        repeated: How many were.
    """

    level: str
    logger: str
    message: str
    facts: Mapping[str, Any]
    repeated: int


@attrs.define
class _Seen:
    message: Message
    since_s: float
    facts: Mapping[str, Any]
    repeated: int = 0

    def summary(self) -> Summary:
        level, logger, message = self.message
        told = Summary(level=level, logger=logger, message=message, facts=self.facts, repeated=self.repeated)
        self.repeated = 0
        return told


class Repeats:
    """Which lines were written lately.

    Attributes:
        window_s: How long a line is not written again; 0 for never.
        held: Lines held back so far.
    """

    def __init__(self, window_s: float, *, most: int = MOST, per_message: int = PER_MESSAGE) -> None:
        self.window_s = window_s
        self.held = 0
        self._most = most
        self._per_message = per_message
        self._seen: OrderedDict[Key, _Seen] = OrderedDict()  # the oldest window first
        self._of: dict[Message, set[Key]] = {}
        self._waiting: dict[Message, dict[Key, None]] = {}

    @property
    def waits(self) -> bool:
        """Whether something is held back that is to be summed up."""
        return bool(self._waiting)

    def __len__(self) -> int:
        """Return how many different lines are remembered."""
        return len(self._seen)

    def admit(self, key: Key, facts: Mapping[str, Any], now_s: float) -> tuple[bool, list[Summary]]:
        """Return whether a line is to be written, and what is to be written before it.

        Args:
            key: What `key_of` made of it.
        """
        said = key[0]
        if self.window_s <= 0 or said[0] not in _HELD:
            return True, []
        ended = self.ended(now_s)
        seen = self._seen.get(key)
        if seen is None:
            if len(self._of.get(said, ())) < self._per_message or said[0] in _ERRORS:
                before = [self._seen[k].summary() for k in self._waiting.pop(said, ())]
                return True, [*ended, *before, *self._remember(key, facts, now_s)]
            key = (said, None)
            seen = self._seen.get(key)
            if seen is None:
                ended += self._remember(key, facts, now_s)
                seen = self._seen[key]
        seen.repeated += 1
        seen.facts = facts
        self.held += 1
        self._waiting.setdefault(said, {})[key] = None
        return False, ended

    def ended(self, now_s: float) -> list[Summary]:
        """Return what is to be written because its window ended."""
        told: list[Summary] = []
        while self._seen:
            key, seen = next(iter(self._seen.items()))
            if now_s < seen.since_s + self.window_s:
                break
            if seen.repeated:
                told.append(seen.summary())
                self._no_longer_waiting(key)
                seen.since_s = now_s
                self._seen.move_to_end(key)
            else:
                self._forget(key)
        return told

    def due_s(self, now_s: float) -> float | None:
        """Return in how many seconds `ended` may have something to tell; None if nothing waits."""
        if not self._waiting:
            return None
        first = min(self._seen[key].since_s for keys in self._waiting.values() for key in keys)
        return max(0.0, first + self.window_s - now_s)

    def rest(self) -> list[Summary]:
        """Return all that is still held back, at the end."""
        told = [seen.summary() for seen in self._seen.values() if seen.repeated]
        self._waiting.clear()
        return told

    def _remember(self, key: Key, facts: Mapping[str, Any], now_s: float) -> list[Summary]:
        told = []
        if len(self._seen) >= self._most:
            oldest, seen = next(iter(self._seen.items()))
            if seen.repeated:
                told.append(seen.summary())
            self._forget(oldest)
        self._seen[key] = _Seen(key[0], now_s, facts)
        self._of.setdefault(key[0], set()).add(key)
        return told

    def _forget(self, key: Key) -> None:
        self._no_longer_waiting(key)
        del self._seen[key]
        of = self._of[key[0]]
        of.discard(key)
        if not of:
            del self._of[key[0]]

    def _no_longer_waiting(self, key: Key) -> None:
        waiting = self._waiting.get(key[0])
        if waiting is not None:
            waiting.pop(key, None)
            if not waiting:
                del self._waiting[key[0]]


def key_of(
    level: str, logger: str, message: str, facts: Mapping[str, Any], error: BaseException | None = None
) -> Key:
    """Return what tells a line from others.

    Args:
        error: The exception that it shows.
    """
    shown = None if error is None else (type(error).__name__, _text(error))
    return (level, logger, message), (*_distinct(facts), shown)


def _distinct(facts: Mapping[str, Any]) -> Iterator[object]:
    for name, value in facts.items():
        if name in _MEASURES or name.endswith(_UNITS):
            continue
        yield name
        yield value if value is None or type(value) in (str, int, float, bool) else _text(value)


def _text(value: object) -> str:
    try:
        return str(value)[:200]
    except Exception as e:  # noqa: BLE001  # a fact that cannot be shown; the line says so where it is written
        return type(e).__name__
