"""The REST side of a venue, as data: what to ask, what it costs, and how to read the answer.

A plugin builds a `RestCall`; the runtime sends it within the venue's rate budget, hands the answer to
`parse`, and follows `Page.next` until there is no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import attrs
import orjson

from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import BookSnapshot, Candle, Trade
from pricefeedd.instruments import Instrument

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class HttpRequest:
    """One request to a venue.

    Attributes:
        endpoint: Key of the base URL in the venue's endpoints.
        path: Joined by hand to the base URL.
        budget: Name of the rate budget that this draws on.
        cost: What it takes from that budget.
    """

    method: str = "GET"
    endpoint: str
    path: str
    params: Mapping[str, str | int] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes | None = None
    budget: str = ""
    cost: float = 1.0


@attrs.frozen(kw_only=True)
class HttpReply:
    """A venue's answer.

    Attributes:
        headers: Names in lower case.
        received_ns: Our clock when the answer was complete.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(repr=False)
    received_ns: int

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            DecodeError: It is not JSON.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as e:
            raise DecodeError(f"reply is not JSON: HTTP {self.status} {self.body[:80]!r}") from e


@attrs.frozen(kw_only=True)
class Page(Generic[T]):
    """What one answer holds, and how to get the next part; `next` is None at the end."""

    items: Sequence[T]
    next: RestCall[T] | None = None


@attrs.frozen(kw_only=True)
class RestCall(Generic[T]):
    """A request with the pure function that reads its answer.

    `parse` is only given answers that `Rest.examine` let pass. It raises DecodeError for anything else than
    the venue documents.
    """

    request: HttpRequest
    parse: Callable[[HttpReply], Page[T]]


@attrs.frozen(kw_only=True)
class RateSignal:
    """What an answer tells about a rate budget.

    Attributes:
        used: Cost used up in the current window, as the venue counts; None if it does not say.
        remaining: Cost left in the current window; None if it does not say.
        reset_after_s: When the window ends; None if it does not say.
    """

    used: float | None = None
    remaining: float | None = None
    reset_after_s: float | None = None


class Rest(Protocol):
    """The REST dialect of a venue. A method returns None for what the venue does not offer."""

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all instruments of a market."""
        ...

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        """Ask for a snapshot to which the stream's deltas can be joined."""
        ...

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle] | None:
        """Ask for the one-minute candles that open in [start_ns, end_ns], both ends included.

        Rows may come in any order; a row whose minute may still run has `closed` False.
        """
        ...

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade] | None:
        """Ask for the trades strictly between two ids, or between two times where ids tell nothing."""
        ...

    def examine(self, reply: HttpReply) -> RateSignal:
        """Return what the answer says of the rate budget, or raise what it stands for.

        Raises:
            RateLimitedError: We are too fast.
            SubscriptionRejectedError: The venue will not serve this; asking again does not help.
            VenueError: Something else; asking again may help.
        """
        ...


def raise_for_status(reply: HttpReply, *, venue: str) -> None:
    """Raise what an HTTP status says by itself; return for 2xx.

    429 and 418 stop us for Retry-After seconds (RFC 9110 section 10.2.3; 60 s where it is missing).
    """
    if 200 <= reply.status < 300:
        return
    text = reply.body[:200].decode("utf-8", "replace")
    if reply.status in (429, 418):
        raise RateLimitedError(
            f"HTTP {reply.status}: {text}", venue=venue, retry_after_s=retry_after_s(reply.headers) or 60.0
        )
    if reply.status in (403, 451):
        raise ConnectError(
            f"HTTP {reply.status} (forbidden from this address): {text}", venue=venue, retry_after_s=300.0
        )
    if reply.status in (400, 401, 404):
        raise SubscriptionRejectedError(f"HTTP {reply.status}: {text}", venue=venue)
    raise VenueError(f"HTTP {reply.status}: {text}", venue=venue)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in a Retry-After header; None if there is none or it is a date."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
