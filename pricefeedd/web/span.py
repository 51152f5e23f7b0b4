"""What requests for rows of the past share: from when to when, and which page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from pricefeedd.web.fields import SAFE_INTEGER, Whole, given
from pricefeedd.web.http import Query

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: A `+` in a URL that nobody escaped is a blank.
_UNESCAPED: Final = re.compile(r"(T.*) (\d\d:?\d\d)$")


@attrs.frozen(kw_only=True)
class Moment:
    """A time: µs since the Unix epoch, or ISO 8601; what lacks an offset is UTC."""

    expected = "a time: µs since the Unix epoch, or ISO 8601 such as 2026-01-01T00:00:00Z"

    @property
    def schema(self) -> dict[str, Any]:
        """Either of the two."""
        return {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": SAFE_INTEGER},
                {"type": "string", "format": "date-time"},
            ]
        }

    def read(self, value: Any) -> int:
        """Take a whole number, or a text."""
        if isinstance(value, str):
            return self.read_text([value])
        return Whole().read(value)

    def read_text(self, texts: Sequence[str]) -> int:
        """Take digits, or a date with or without a time; years before 1970 are as 1970."""
        (text,) = texts
        if len(text) > 40:
            raise ValueError
        if text.isascii() and text.isdigit():
            return Whole().read_text([text])
        moment = datetime.fromisoformat(_UNESCAPED.sub(r"\1+\2", text.upper()))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - _EPOCH
        return max(0, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


_TIME: Final = "µs since the Unix epoch, or ISO 8601 in UTC unless it says otherwise."


@attrs.frozen(kw_only=True)
class Span(Query):
    """From when to when."""

    from_us: int | None = given(
        Moment(),
        f"The oldest wanted, included; {_TIME}",
        default=None,
        name="from",
        example="2026-01-01T00:00:00Z",
    )
    to_us: int | None = given(
        Moment(), f"The end, not included; {_TIME}", default=None, name="to", example=1_767_229_200_000_000
    )


@attrs.frozen(kw_only=True)
class Paged(Span):
    """A page of rows, newest first."""

    limit: int = given(Whole(least=1, most=1_000), "The most rows.", default=100)
    offset: int = given(Whole(most=10_000_000), "Rows to pass over.", default=0)
