"""Why we close connections, and what clients are told of it."""

from __future__ import annotations

import attrs

SHUTDOWN = 4001
TOO_SLOW = 4008
STATE_LOST = 4010
BAD_REQUEST = 4500
UNAUTHORISED = 4501
LIMIT = 4504


@attrs.frozen
class Goodbye:
    """Why we close a connection. Codes 4000-4499 invite to come back, 4500-4999 do not.

    Attributes:
        retry_after_ms: When coming back may help; None if it will not.
    """

    code: int
    reason: str
    retry_after_ms: int | None = None

    def message(self) -> dict[str, object]:
        """Return the `bye` message."""
        return {
            "type": "bye",
            "code": self.code,
            "reason": self.reason,
            "retry_after_ms": self.retry_after_ms,
        }
