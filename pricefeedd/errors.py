"""Every exception that pricefeedd raises on purpose.

Classes differ where a handler differs. A message says what happened, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator


class PricefeeddError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(PricefeeddError):
    """The configuration cannot be used; the process exits with 78.

    Attributes:
        problems: One text per mistake, each with its place and a way out.
        source: The file that was read, or where the settings came from.
    """

    def __init__(self, problems: list[str] | tuple[str, ...], *, source: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        count = len(self.problems)
        head = f"{source}: {count} problem{'s' if count != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


class PluginError(PricefeeddError):
    """A plugin that the configuration asks for cannot be used; the process exits with 78."""


class ServiceAwayError(PricefeeddError):
    """A service that is needed cannot be reached; a command exits with 69."""


class StoreAwayError(ServiceAwayError):
    """The database cannot be used now: it is away, locked, full, or of a newer pricefeedd."""


class SinkOverflowError(PricefeeddError):
    """A sink that may lose nothing fell behind by more than its spool holds."""


class SpoolError(PricefeeddError):
    """A queue on disk cannot be read or written; nothing of what was asked was done."""


class VenueError(PricefeeddError):
    """A venue failed us, or we cannot understand it.

    Attributes:
        venue: The venue's name.
        retry: Whether trying again can help.
        retry_after_s: The venue's own word on when to try again, seconds; None if it gave none.
    """

    retry = True

    def __init__(self, message: str, *, venue: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(f"{venue}: {message}" if venue else message)
        self.venue = venue
        self.retry_after_s = retry_after_s


class DecodeError(VenueError):
    """A frame or a reply is not what the venue documents; it is counted, kept and passed over."""


class ConnectError(VenueError):
    """The venue could not be reached, or refused the connection."""


class ConnectionLostError(VenueError):
    """An open connection ended without our doing."""


class StaleFeedError(VenueError):
    """A connection stays open and brings nothing."""


class SequenceGapError(VenueError):
    """A connection proves by its own counter that it lost frames."""


class ClockSkewError(VenueError):
    """The venue refuses a request for the time in it: our clock and the venue's differ."""


class RateLimitedError(VenueError):
    """The venue asks us to slow down; nothing is sent to that host for `retry_after_s`."""


class SubscriptionRejectedError(VenueError):
    """The venue will not serve what was asked for; asking again does not help."""

    retry = False


class LoginRejectedError(SubscriptionRejectedError):
    """The venue refuses our credentials; we do not hammer it with them."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the single errors inside nested exception groups, in order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
