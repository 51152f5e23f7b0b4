"""Coinbase's times: RFC 3339 in UTC, with up to nine digits behind the second."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_SECOND = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", re.ASCII)

#: Nanoseconds that the last digit of a fraction counts, by its number of digits.
_UNITS = (1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1000, 100, 10, 1)


@lru_cache(maxsize=4096)
def _second_ns(text: str) -> int:
    """Return a whole second, ns since the Unix epoch; frames of one second ask for the same one."""
    if _SECOND.fullmatch(text) is None:
        raise ValueError(f"not a time: {text!r}")
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def ns_of(text: str) -> int:
    """Return a time such as `2026-09-30T02:39:53.78865513Z`, ns since the Unix epoch.

    The standard library takes these texts, but cuts them to microseconds.

    Raises:
        ValueError: It is not such a time.
    """
    if text[-1:] == "Z":
        fraction = text[20:-1]
        if fraction.isdecimal() and text[19] == "." and len(fraction) < 10:
            return _second_ns(text[:19]) + int(fraction) * _UNITS[len(fraction)]
        if len(text) == 20:
            return _second_ns(text[:19])
    raise ValueError(f"not a time in UTC: {text!r}")
