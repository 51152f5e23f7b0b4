"""What the store keeps that is no event, and what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class SubscriptionRecord:
    """One subscription that a service made by the REST API.

    Times are µs since the Unix epoch UTC.

    Attributes:
        id: A UUID as text.
        channel_type: As the service named it: `trades`, `kline`, ...
        symbol: As the service spelt it; None for what has none.
        topic: As the service gave it, or as we made it.
        market: One of the venue's markets; None for what has none.
        account: The name of the account in the configuration; None for public data.
        requesting_service: Who asked for it.
        last_event_at: When something came of it last; None before the first.
    """

    id: str
    venue: str
    channel_type: str
    symbol: str | None = None
    topic: str | None = None
    market: str | None = None
    account: str | None = None
    requesting_service: str
    is_active: bool = True
    created_at: int
    updated_at: int
    last_event_at: int | None = None


@attrs.frozen(kw_only=True)
class Slice:
    """Which rows of a list, newest first.

    Attributes:
        equal: Columns that must have this value, or one of a tuple of values.
        from_us: The oldest wanted, included; None for all.
        to_us: The newest wanted, not included; None for all.
        accounts: Whose rows may be shown, where some rows are an account's and others everybody's.
    """

    equal: Mapping[str, Any]
    from_us: int | None
    to_us: int | None
    limit: int
    offset: int
    accounts: tuple[str, ...] = ()
