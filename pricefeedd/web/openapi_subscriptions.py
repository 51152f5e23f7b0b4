"""`/openapi.json` of the subscriptions of services."""

from __future__ import annotations

from typing import Any, Final

from pricefeedd.offer import CHANNEL_TYPES
from pricefeedd.web.fields import Given
from pricefeedd.web.operation import COUNT, MAYBE_TEXT, MAYBE_WHEN, TEXT, WHEN, Operation
from pricefeedd.web.schema import closed, described
from pricefeedd.web.subscriptions import ID, NAME, PATH, Order, SubscriptionsQuery

EXAMPLE_ID: Final = "6f0c4a52-6a0e-4c0b-9d6f-3b1f5e6f7a80"
_EXAMPLE: Final[dict[str, Any]] = {
    "id": EXAMPLE_ID,
    "channel_type": "trades",
    "symbol": "BTCUSDT",
    "topic": "publicTrade.BTCUSDT",
    "requesting_service": "order-manager",
    "is_active": True,
    "created_at": "2026-01-01T00:00:00.123456+00:00",
    "updated_at": "2026-01-01T00:00:00.123456+00:00",
    "last_event_at": None,
    "venue": "bybit",
    "market": "linear",
    "account": None,
    "feed": "trade:bybit:BTC-USDT-PERP",
}
_RECORD: Final = closed(
    {
        "id": {"type": "string", "format": "uuid"},
        "channel_type": {"type": "string", "enum": list(CHANNEL_TYPES)},
        "symbol": described(MAYBE_TEXT, "As the service spelt it; null where there is none."),
        "topic": described(MAYBE_TEXT, "As the service gave it, or the venue's own."),
        "requesting_service": TEXT,
        "is_active": {"type": "boolean"},
        "created_at": WHEN,
        "updated_at": described(WHEN, "When it was created or cancelled."),
        "last_event_at": described(MAYBE_WHEN, "When something last came of it."),
        "venue": TEXT,
        "market": MAYBE_TEXT,
        "account": MAYBE_TEXT,
        "feed": described(
            MAYBE_TEXT,
            "Our topic that brings it, to be read on `/ws`; null after the end, and while the venue's instruments are not "
            "loaded.",
        ),
    }
)

#: What `/status` says of all of them.
REGISTRY: Final = closed(
    {
        "total": COUNT,
        "active": COUNT,
        "waiting": described(
            COUNT, "Active, and not asked for yet: instruments are not loaded, or listed no more."
        ),
        "persistent": described({"type": "boolean"}, "Whether they outlive the process: there is a store."),
        "loaded": described({"type": "boolean"}, "Whether those that are stored are known."),
        "unsaved": described(COUNT, "Changes that the store has not taken yet."),
    }
)

_WHICH: Final = {"subscription_id": Given(kind=ID, about="The `id` of its record.", example=EXAMPLE_ID)}
_WHOSE: Final = {"name": Given(kind=NAME, about="What the service calls itself.", example="order-manager")}
_UNAUTHENTICATED: Final = {"error": "the key is not known here", "code": "AUTHENTICATION_FAILED"}
_FORBIDDEN: Final = {"error": "the key 'me' lacks the scope 'admin'", "code": "FORBIDDEN"}
_NOT_FOUND: Final = {"error": f"there is no subscription '{EXAMPLE_ID}'", "code": "SUBSCRIPTION_NOT_FOUND"}
_NOT_LOADED: Final = {
    "error": "the stored subscriptions are not read yet; try again in a moment",
    "code": "STORE_NOT_LOADED",
}
_CHANGES: Final = (
    "Where keys are configured, a change needs one with the scope `admin`; where none are, it must come from a program "
    "of this machine."
)

SUBSCRIPTIONS: Final = (
    Operation(
        path=PATH,
        name="subscriptions",
        summary="What services subscribed",
        about="The oldest first; `total` counts all that fit. Those of an account are shown to keys with its scope, and "
        "to administrators.",
        query=SubscriptionsQuery,
        schema=closed({"subscriptions": {"type": "array", "items": _RECORD}, "total": COUNT}),
        example={"subscriptions": [_EXAMPLE], "total": 1},
        refused={401: _UNAUTHENTICATED},
    ),
    Operation(
        path=PATH,
        name="subscribe",
        method="post",
        summary="Have something served",
        about="It is asked of the venue at once, unless another service has the same: then it is shared. It goes on until "
        "it is cancelled; with a store, over restarts too. The codes of 400 are `INVALID_CHANNEL_TYPE`, `MISSING_SYMBOL`, "
        "`INVALID_SYMBOL`, `INVALID_TOPIC`, `INVALID_VENUE`, `INVALID_MARKET`, `INVALID_ACCOUNT`, `BAD_REQUEST` and "
        f"`BAD_JSON`. {_CHANGES}",
        body=Order,
        status=201,
        schema=_RECORD,
        example=_EXAMPLE,
        refused={
            400: {
                "error": "symbol: 'BTCUSTD' is not listed on bybit linear or spot or inverse; did you mean BTC-USDT-PERP?",
                "code": "INVALID_SYMBOL",
                "parameter": "symbol",
                "did_you_mean": ["BTC-USDT-PERP"],
            },
            401: _UNAUTHENTICATED,
            403: _FORBIDDEN,
            409: {
                "error": f"order-manager has trade:bybit:BTC-USDT-PERP already, as subscription {EXAMPLE_ID}",
                "code": "SUBSCRIPTION_EXISTS",
            },
            413: {
                "error": "The data value transmitted exceeds the capacity limit.",
                "code": "REQUEST_ENTITY_TOO_LARGE",
            },
            429: {"error": "there are 10000 subscriptions; cancel some", "code": "LIMIT"},
            503: {
                "error": "the instruments of bybit are not loaded yet; try again soon",
                "code": "INSTRUMENTS_NOT_LOADED",
            },
        },
        scope="admin",
    ),
    Operation(
        path=f"{PATH}/{{subscription_id}}",
        name="subscription",
        summary="One subscription",
        path_parts=_WHICH,
        schema=_RECORD,
        example=_EXAMPLE,
        refused={
            400: {"error": "unknown parameter 'x'; known: api_key", "code": "BAD_REQUEST", "parameter": "x"},
            401: _UNAUTHENTICATED,
            404: _NOT_FOUND,
            503: _NOT_LOADED,
        },
    ),
    Operation(
        path=f"{PATH}/{{subscription_id}}",
        name="unsubscribe",
        method="delete",
        summary="End a subscription",
        about=f"The last one ends it at the venue, a minute later. To end it twice is no mistake. {_CHANGES}",
        path_parts=_WHICH,
        schema=_RECORD,
        example=_EXAMPLE | {"is_active": False, "feed": None},
        refused={
            400: {"error": "unknown parameter 'x'; known: api_key", "code": "BAD_REQUEST", "parameter": "x"},
            401: _UNAUTHENTICATED,
            403: _FORBIDDEN,
            404: _NOT_FOUND,
            503: _NOT_LOADED,
        },
        scope="admin",
    ),
    Operation(
        path=f"{PATH}/by-service/{{name}}",
        name="unsubscribe_service",
        method="delete",
        summary="End all subscriptions of a service",
        about=_CHANGES,
        path_parts=_WHOSE,
        schema=closed({"cancelled_count": COUNT}),
        example={"cancelled_count": 3},
        refused={
            400: {"error": "unknown parameter 'x'; known: api_key", "code": "BAD_REQUEST", "parameter": "x"},
            401: _UNAUTHENTICATED,
            403: _FORBIDDEN,
            503: _NOT_LOADED,
        },
        scope="admin",
    ),
)
