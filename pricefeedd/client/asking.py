"""Requests in pieces that the daemon takes: a message has a bounded size, and topics may be many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import orjson

#: Room for what is added to a request: op, id, braces.
_FRAME_BYTES = 100


@attrs.frozen
class Request:
    """One message to the daemon.

    Attributes:
        inner: Of the client's own making: nobody asked for these topics by name.
    """

    op: str
    fields: dict[str, Any]
    inner: bool = False


def pieces(topics: Sequence[str], fields: Mapping[str, Any], *, limit_bytes: int) -> Iterator[list[str]]:
    """Cut topics into runs that fit a message with these fields."""
    room = limit_bytes - _FRAME_BYTES - len(orjson.dumps(dict(fields)))
    piece: list[str] = []
    left = room
    for topic in topics:
        size = _size(topic)
        if piece and size > left:
            yield piece
            piece, left = [], room
        piece.append(topic)
        left -= size
    yield piece


def resumption(
    wanted: Mapping[str, Mapping[str, Any]],
    positions: Mapping[str, Mapping[str, tuple[str, int]]],
    *,
    limit_bytes: int,
) -> Iterator[Request]:
    """Yield the requests that subscribe topics and patterns from where they stood.

    A pattern's topics have to be named in the message that subscribes it: one that is not named begins
    as if it were new. Where they do not fit into one message, they are subscribed by their own names first,
    which are let go again once the pattern holds them.

    Args:
        wanted: Topics and patterns, and the options of each.
        positions: For each of these its topics, with epoch and number.
    """
    told: set[str] = set()
    for key, texts in _with_the_same_options(wanted):
        packer = _Packer(orjson.loads(key), limit_bytes)
        for text in sorted(texts, key=lambda text: "*" in text):
            since = {name: at for name, at in positions.get(text, {}).items() if name not in told}
            told.update(since)
            if packer.fits(text, since):
                yield from packer.add(text, since)
                continue
            yield from packer.end()
            for name, at in since.items():
                yield from packer.add(name, {name: at}, inner=True)
            yield from packer.end()
            yield from packer.add(text, {})
            yield from packer.end()
            let_go = [name for name in since if name not in wanted]
            for piece in pieces(let_go, {}, limit_bytes=limit_bytes):
                if piece:
                    yield Request("unsubscribe", {"topics": piece}, inner=True)
        yield from packer.end()


def _with_the_same_options(wanted: Mapping[str, Mapping[str, Any]]) -> list[tuple[bytes, list[str]]]:
    """Return topics by their options; with patterns in the order of subscription, as a later one has its way."""
    groups: list[tuple[bytes, list[str]]] = []
    known: dict[bytes, list[str]] = {}
    in_order = any("*" in text for text in wanted)
    for text, options in wanted.items():
        key = orjson.dumps(options, option=orjson.OPT_SORT_KEYS)
        if key not in known or (in_order and groups[-1][0] != key):
            known[key] = []
            groups.append((key, known[key]))
        known[key].append(text)
    return groups


class _Packer:
    """Collects topics with the same options into messages. One message can tell one epoch."""

    def __init__(self, options: dict[str, Any], limit_bytes: int) -> None:
        self._options = options
        self._room = limit_bytes - _FRAME_BYTES - len(orjson.dumps(options)) - 60
        self._begin()

    def _begin(self) -> None:
        self._topics: list[str] = []
        self._epoch = ""
        self._seqs: dict[str, int] = {}
        self._left = self._room
        self._inner = False

    def fits(self, text: str, since: Mapping[str, tuple[str, int]]) -> bool:
        """Return whether a topic or pattern fits a message of its own."""
        return len({epoch for epoch, _ in since.values()}) < 2 and _cost(text, since) <= self._room

    def add(
        self, text: str, since: Mapping[str, tuple[str, int]], *, inner: bool = False
    ) -> Iterator[Request]:
        """Add one that fits, and yield the message before it if that is full now."""
        epoch = next((epoch for epoch, _ in since.values()), "")
        cost = _cost(text, since)
        other = bool(self._epoch and epoch and self._epoch != epoch)
        if self._topics and (cost > self._left or other or inner != self._inner):
            yield from self.end()
        self._inner = inner
        self._topics.append(text)
        self._epoch = self._epoch or epoch
        self._seqs.update((name, seq) for name, (_, seq) in since.items())
        self._left -= cost

    def end(self) -> Iterator[Request]:
        """Yield the message that is being filled."""
        if self._topics:
            fields: dict[str, Any] = {"topics": self._topics, **self._options}
            if self._seqs:
                fields["since"] = {"epoch": self._epoch, "seq": self._seqs}
            yield Request("subscribe", fields, self._inner)
        self._begin()


def _cost(text: str, names: Iterable[str]) -> int:
    return _size(text) + sum(_size(name) + 20 for name in names)


def _size(text: str) -> int:
    return len(orjson.dumps(text)) + 1
