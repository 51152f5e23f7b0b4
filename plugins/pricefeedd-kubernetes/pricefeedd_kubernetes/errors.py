"""What goes wrong between us and the API server. Classes differ where a handler differs."""

from __future__ import annotations

from pricefeedd.errors import PricefeeddError


class ApiError(PricefeeddError):
    """The API server cannot be reached, or does not do now what it was asked.

    Attributes:
        retry_after_s: Its own word on when to try again; None if it gave none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(ApiError):
    """It does not know us, or we may not do this: somebody has to see to it."""


class OutdatedError(ApiError):
    """The Lease is not as it was when we read it; nothing was written."""
