"""The REST side of a venue, as data: what to ask, what it costs, and how to read the answer.

A plugin builds a `RestCall`; the runtime sends it within the venue's rate budget, hands the answer to
`parse`, and follows `Page.next` until there is no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import urlencode

import attrs
import orjson

from pricefeedd.codec import BAD_DATA
from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import AccountEvent, BookSnapshot, Candle, Trade
from pricefeedd.instruments import Instrument

if TYPE_CHECKING:
    from pricefeedd.venue import Account

T = TypeVar("T")

#: OSError is a time that no date can have.
_BAD_ROW: tuple[type[Exception], ...] = (*BAD_DATA, OSError)


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

    @property
    def query(self) -> str:
        """The query string, just as it is sent; signatures cover it."""
        return urlencode(self.params)


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


@attrs.frozen(kw_only=True)
class TradeHole:
    """Which trades are missing, where a venue numbers its trades: between two ids, or two times.

    An id decides at its end of the hole; where there is none, the time does.

    Attributes:
        after: Id of the last trade before the hole; None if it is not known.
        before: Id of the first trade behind the hole; None if it is not known.
        from_ns: Where the hole begins if `after` is None, included; ns since the Unix epoch UTC.
        to_ns: Where it ends if `before` is None, included.
    """

    instrument: Instrument
    after: int | None
    before: int | None
    from_ns: int
    to_ns: int

    @classmethod
    def between(
        cls, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> TradeHole:
        """Return the hole that `Rest.trades` is asked about.

        Raises:
            ValueError: An id is not a number.
        """
        return cls(
            instrument=instrument,
            after=None if after_id is None else int(after_id),
            before=None if before_id is None else int(before_id),
            from_ns=from_ns,
            to_ns=to_ns,
        )

    def holds(self, trade: Trade) -> bool:
        """Return whether a trade is missing.

        Raises:
            ValueError: It lacks the id or the time that tells.
        """
        starts = _time_ns(trade) >= self.from_ns if self.after is None else _number(trade) > self.after
        return starts and (
            _time_ns(trade) <= self.to_ns if self.before is None else _number(trade) < self.before
        )

    def begins_with(self, trade: Trade) -> bool:
        """Return whether no trade older than this one is missing.

        Raises:
            ValueError: It lacks the id or the time that tells.
        """
        return _time_ns(trade) < self.from_ns if self.after is None else _number(trade) <= self.after + 1

    def ends_with(self, trade: Trade) -> bool:
        """Return whether no trade newer than this one is missing.

        Raises:
            ValueError: It lacks the id or the time that tells.
        """
        return _time_ns(trade) > self.to_ns if self.before is None else _number(trade) + 1 >= self.before


def _number(trade: Trade) -> int:
    if trade.id is None:
        raise ValueError("a trade without an id")
    return int(trade.id)


def _time_ns(trade: Trade) -> int:
    if trade.venue_time_ns is None:
        raise ValueError("a trade without a time")
    return trade.venue_time_ns


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


class AccountRest(Protocol):
    """What an account is asked by REST: how it stands, and what it missed. Pure functions, like those of `Rest`.

    A stream tells what happens from now on. So once it is subscribed, the core asks how the account stands, and
    after a time without a stream also what happened meanwhile. Rows are the same events as the stream's, with the
    same `key`, so that what both tell is told once; they may come in any order.
    """

    def state(self, channel: str) -> Sequence[RestCall[AccountEvent]]:
        """Ask how a channel stands now: all open orders, positions, or balances.

        Nothing for a channel that has no state (`execution`), or that the venue does not tell.
        """
        ...

    def missed(self, channel: str, from_ns: int, to_ns: int) -> Sequence[RestCall[AccountEvent]] | None:
        """Ask for what happened in [from_ns, to_ns] by the venue's clock: executions, and orders that were closed.

        Nothing for a channel whose `state` says it all (`position`, `balance`); None for one of which the venue does
        not tell what happened.
        """
        ...

    def one(self, channel: str, market: str, symbol: str, id_: str) -> RestCall[AccountEvent] | None:
        """Ask what became of one order, position or coin that there was, and that the answers above do not name.

        None where the venue does not tell.

        Args:
            id_: The field `order_id`, `position_index` or `coin`.
        """
        ...

    def clock(self) -> RestCall[int] | None:
        """Ask for the venue's time, ns since the Unix epoch UTC, without a signature; None if it does not tell."""
        ...

    def sign(self, request: HttpRequest, account: Account, now_ns: int) -> Mapping[str, str]:
        """Return the headers that prove whose request this is.

        Args:
            now_ns: The venue's time, as far as it is known.
        """
        ...

    def examine(self, reply: HttpReply) -> RateSignal:
        """Do as `Rest.examine` for answers to signed requests.

        Raises:
            ClockSkewError: The time in it is too far from the venue's.
            LoginRejectedError: The credentials are not good for it; asking again does not help.
            VenueError: As `Rest.examine` says.
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


def venue_clock_ns(reply: HttpReply) -> int:
    """Return when the venue answered, by its own Date header, to the second; by our clock where there is none.

    What is over by now must not depend on how our clock goes. RFC 9110 section 6.6.1.
    """
    try:
        return int(parsedate_to_datetime(reply.headers["date"]).timestamp()) * 1_000_000_000
    except (KeyError, ValueError, OverflowError):
        return reply.received_ns


def checked(
    read: Callable[[HttpReply], Page[T]], *, venue: str, also: tuple[type[Exception], ...] = ()
) -> Callable[[HttpReply], Page[T]]:
    """Return `read` with what it meets in a reply of the wrong shape told as DecodeError.

    Args:
        also: What else than `BAD_DATA` that may be: exceptions of the parser's own.
    """
    bad: tuple[type[Exception], ...] = (*BAD_DATA, *also)

    def parse(reply: HttpReply) -> Page[T]:
        try:
            return read(reply)
        except bad as e:
            raise DecodeError(f"bad reply {reply.body[:120]!r} ({e!r})", venue=venue) from e

    return parse


def listed(rows: Iterable[Any], read: Callable[[Any], T | None], *, what: str, venue: str) -> list[T]:
    """Return what `read` makes of each row of a list, such as of instruments.

    A row that cannot be read is passed over, for one odd listing must not take the other thousand with it; so
    is one of which `read` makes None.

    Raises:
        DecodeError: Some rows cannot be read, and none can.
    """
    found = []
    problem: Exception | None = None
    for row in rows:
        try:
            value = read(row)
        except _BAD_ROW as e:
            problem = e
        else:
            if value is not None:
                found.append(value)
    if problem is not None and not found:
        raise DecodeError(f"no row of {what} can be read ({problem!r})", venue=venue)
    return found
