"""`/openapi.json` of what is kept: candles, gaps and balances."""

from __future__ import annotations

from typing import Any, Final

from pricefeedd.events import Candle, Origin
from pricefeedd.store.rows import COIN_NUMBERS, MARGIN_NUMBERS
from pricefeedd.web.balances import BalanceHistoryQuery, BalancesQuery
from pricefeedd.web.candles import CandlesQuery, GapsQuery
from pricefeedd.web.operation import COUNT, MAYBE_TEXT, TEXT, Operation
from pricefeedd.web.schema import Schema, closed, data_of, described, of

_TIME: Final[Schema] = {"$ref": "#/components/schemas/Time"}
_MAYBE_TIME: Final[Schema] = {"anyOf": [_TIME, {"type": "null"}]}
_MAYBE_NUMBER: Final[Schema] = {"anyOf": [{"$ref": "#/components/schemas/Decimal"}, {"type": "null"}]}
_FLAG: Final[Schema] = {"type": "boolean"}
_START: Final = 1_767_225_600_000_000

_CANDLE: Final = data_of(Candle)
_CANDLE_ROW: Final = closed({**_CANDLE["properties"], "origin": of(Origin)})
_CANDLE_EXAMPLE: Final = {
    "start": _START,
    "open": "64980.10",
    "high": "65010.00",
    "low": "64975.50",
    "close": "65000.10",
    "volume": "12.4031",
    "turnover": "806021.7",
    "trades": 1_811,
    "closed": True,
    "origin": "live",
}
_GAP_ROW: Final = closed(
    {
        "venue": TEXT,
        "instrument": described(TEXT, "By our name; the account's name where the channel is of an account."),
        "channel": TEXT,
        "from": described(_TIME, "The last event before the hole."),
        "to": described(_TIME, "The first event after it."),
        "reason": TEXT,
        "recovered": described(COUNT, "Events that were filled in again."),
        "missing": {
            "type": ["integer", "null"],
            "description": "Events that stay lost; null if nobody can know.",
        },
        "recorded_at": _TIME,
    }
)
_GAP_EXAMPLE: Final = {
    "venue": "binance",
    "instrument": "BTC-USDT",
    "channel": "trade",
    "from": _START,
    "to": _START + 4_000_000,
    "reason": "connection lost",
    "recovered": 211,
    "missing": 0,
    "recorded_at": _START + 4_200_000,
}


def _of_account(numbers: tuple[str, ...], own: dict[str, Schema]) -> Schema:
    """Return the schema of a row; the venue's other fields stand in it as well."""
    return closed(
        {
            "event_id": described(TEXT, "The same wherever this event is told."),
            "venue": TEXT,
            "account": TEXT,
            **own,
            "account_type": MAYBE_TEXT,
            **dict.fromkeys(numbers, _MAYBE_NUMBER),
            "event_time": described(_MAYBE_TIME, "By the venue's clock; null if it did not say."),
            "received_at": _TIME,
            "origin": of(Origin),
            "trace_id": MAYBE_TEXT,
        }
    ) | {"additionalProperties": True}


_BALANCE: Final = _of_account(COIN_NUMBERS, {"coin": TEXT})
_MARGIN: Final = _of_account(MARGIN_NUMBERS, {})
_TOLD: Final[dict[str, Any]] = {
    "event_id": "fe301c7c-e45e-84c9-8296-229d5799fdba",
    "venue": "bybit",
    "account": "main",
}
_CAME: Final[dict[str, Any]] = {
    "event_time": _START,
    "received_at": _START + 21_000,
    "origin": "live",
    "trace_id": "b7a3c1d09f4e4f6e8c0d5a2b91e3f704",
}
_BALANCE_EXAMPLE: Final = (
    _TOLD
    | {"coin": "USDT", "account_type": "UNIFIED"}
    | dict.fromkeys(COIN_NUMBERS)
    | {"wallet_balance": "1520.25", "equity": "1522.10", "locked": "0"}
    | _CAME
)
_MARGIN_EXAMPLE: Final = (
    _TOLD
    | {"account_type": "UNIFIED"}
    | dict.fromkeys(MARGIN_NUMBERS)
    | {"total_equity": "1522.10", "total_available_balance": "1480.00"}
    | _CAME
)
_NO_SCOPE: Final = {403: {"error": "the key lacks the scope account:main", "code": "FORBIDDEN"}}
_PAGE: Final[dict[str, Schema]] = {"total": COUNT, "limit": COUNT, "offset": COUNT}

STORED: Final = (
    Operation(
        path="/api/v1/candles",
        name="candles",
        summary="Candles of the past",
        about="Oldest first: from the store, and from the venue's history where the store has a hole or there is none. "
        "Longer intervals are made of minutes where nobody kept them. Name a `topic`, or a `venue` and an "
        "`instrument`. Without `from` these are the newest `limit` before `to`. `next` is the `from` of the next page. "
        "`complete` is false if some could not be had now.",
        query=CandlesQuery,
        schema=closed(
            {
                "topic": {"$ref": "#/components/schemas/Topic"},
                "venue": TEXT,
                "instrument": TEXT,
                "interval": TEXT,
                "candles": {"type": "array", "items": _CANDLE_ROW},
                "next": described(_MAYBE_TIME, "Where to go on from; null if that was all."),
                "complete": described(_FLAG, "Whether nothing is missing, as far as the venue tells."),
            }
        ),
        example={
            "topic": "candle_1m:binance:BTC-USDT",
            "venue": "binance",
            "instrument": "BTC-USDT",
            "interval": "1m",
            "candles": [_CANDLE_EXAMPLE],
            "next": _START + 60_000_000,
            "complete": True,
        },
        refusals=(404,),
    ),
    Operation(
        path="/api/v1/gaps",
        name="gaps",
        summary="Holes in the data, and what was filled in again",
        about="Newest first. Those that overlap the time from `from` to `to`. Of an account's channels only for keys with "
        "its scope.",
        query=GapsQuery,
        schema=closed(
            {
                **_PAGE,
                "stored": described(
                    _FLAG, "False if these are only those since the start: the store was not asked."
                ),
                "gaps": {"type": "array", "items": _GAP_ROW},
            }
        ),
        example={"total": 1, "limit": 100, "offset": 0, "stored": True, "gaps": [_GAP_EXAMPLE]},
    ),
    Operation(
        path="/api/v1/balances",
        name="balances",
        summary="The latest balances of accounts",
        about="The newest row of each coin, and of the account's totals. Always needs a key with the scope "
        "`account:NAME`; without `account`, all accounts of the key are told.",
        query=BalancesQuery,
        schema=closed(
            {
                "total": COUNT,
                "accounts": {
                    "type": "array",
                    "items": closed(
                        {
                            "venue": TEXT,
                            "account": TEXT,
                            "balances": {"type": "array", "items": _BALANCE},
                            "margin": {"anyOf": [_MARGIN, {"type": "null"}]},
                        }
                    ),
                },
            }
        ),
        example={
            "total": 1,
            "accounts": [
                {
                    "venue": "bybit",
                    "account": "main",
                    "balances": [_BALANCE_EXAMPLE],
                    "margin": _MARGIN_EXAMPLE,
                }
            ],
        },
        refused=_NO_SCOPE,
        scope="account:NAME",
    ),
    Operation(
        path="/api/v1/balances/history",
        name="balances_history",
        summary="All that accounts were told of their coins",
        about="Newest first, by the time at which it came. Needs a store, and a key with the scope `account:NAME`.",
        query=BalanceHistoryQuery,
        schema=closed({**_PAGE, "balances": {"type": "array", "items": _BALANCE}}),
        example={"total": 1, "limit": 100, "offset": 0, "balances": [_BALANCE_EXAMPLE]},
        refused={
            **_NO_SCOPE,
            404: {"error": "nothing is stored: the configuration has no [store]", "code": "NO_STORE"},
            503: {"error": "the store cannot be read now: connection refused", "code": "STORE_AWAY"},
        },
        scope="account:NAME",
    ),
)
