"""Damage for frames: a Hypothesis strategy that keeps most of a real one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import strategies as st

_ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63, 1.5, "", "0", "x", "NaN", "Infinity", "1E-7", "-1", [], {}, [[]], [None], "é",
]  # fmt: skip


def mutated(frame: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of damaged versions of a frame: cut, with bytes changed, or with JSON fields changed."""
    damages = [_cut(frame), _bytes_changed(frame)]
    try:
        value = orjson.loads(frame)
    except orjson.JSONDecodeError:
        pass
    else:
        places = list(_places(value, ()))
        if places:
            damages.append(
                st.builds(
                    _changed,
                    st.just(value),
                    st.sampled_from(places),
                    st.sampled_from(["drop", "put", "double"]),
                    st.sampled_from(_ODD_VALUES),
                )
            )
    return st.one_of(damages)


def _cut(frame: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, len(frame)).map(lambda size: frame[:size])


def _bytes_changed(frame: bytes) -> st.SearchStrategy[bytes]:
    def change(at: int, value: int) -> bytes:
        return frame[:at] + bytes((value,)) + frame[at + 1 :]

    return st.builds(change, st.integers(0, max(0, len(frame) - 1)), st.integers(0, 255))


def _places(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _changed(value: Any, path: tuple[str | int, ...], deed: str, odd: Any) -> bytes:
    changed = copy.deepcopy(value)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    last: Any = path[-1]
    if deed == "drop":
        del holder[last]
    elif deed == "double" and isinstance(holder, list):
        holder.append(holder[last])
    else:
        holder[last] = odd
    try:
        return orjson.dumps(changed)
    except TypeError:
        return repr(changed).encode()
