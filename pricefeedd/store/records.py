"""What the store keeps that is no event."""

from __future__ import annotations

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
