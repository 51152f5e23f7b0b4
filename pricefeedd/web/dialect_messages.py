"""The dialects `/ws/pyth` and `/ws/ohlcv` for the documents: what clients of older systems say and are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from pricefeedd.events import Candle, Price, State
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.web.dialects import ohlcv, pyth
from pricefeedd.web.fields import GIVEN, object_schema
from pricefeedd.web.messages import SAMPLES, Described
from pricefeedd.web.schema import Schema, closed, described

_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "number"}
_MAYBE_NUMBER: Final[Schema] = {"type": ["number", "null"]}

#: Options in the URL.
QUERY: Final = closed(
    {"api_key": described(_TEXT, "A key, where headers cannot be set.")}, optional=("api_key",)
)


@attrs.frozen(kw_only=True)
class Dialect:
    """One of them.

    Attributes:
        name: The last part of its path.
        title: For people.
        about: Likewise, at more length.
        requests: What clients say.
        answers: What they are answered.
        data: What comes by itself.
    """

    name: str
    title: str
    about: str
    requests: tuple[Described, ...]
    answers: tuple[Described, ...]
    data: tuple[Described, ...]


def _asked(name: str, about: str, made: type[Any], kind: str | None = None) -> Described:
    """Return a request; what clients add to it is passed over."""
    body = object_schema(made) | {"additionalProperties": True}
    example = {
        field.name: told.example or told.kind.schema["examples"][0]
        for field in attrs.fields(made)
        if (told := field.metadata[GIVEN]).example is not None or "examples" in told.kind.schema
    }
    if "feed_id" in body["properties"]:
        example["feed_id"] = f"0x{_FEED.symbol}"
    if kind is not None:
        body |= {
            "properties": {"type": {"const": kind}, **body["properties"]},
            "required": ["type", *body.get("required", ())],
        }
        example = {"type": kind, **example}
    return Described(name=name, about=about, schema=body, example=example)


def _said(
    prefix: str,
    kind: str,
    about: str,
    properties: Mapping[str, Schema],
    example: Mapping[str, Any],
    *maybe: str,
) -> Described:
    """Return a message of ours.

    Args:
        maybe: Properties that are not always there.
    """
    body = closed({"type": {"const": kind}, **properties}, optional=maybe)
    return Described(name=f"{prefix}_{kind}", about=about, schema=body, example={"type": kind, **example})


# --- pyth ---------------------------------------------------------------------------------------------------

_FEED: Final = Instrument(
    venue="pyth",
    market="oracle",
    name="BTC-USD",
    symbol="e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43",
    kind=Kind.ORACLE,
    base="BTC",
    quote="USD",
)
_SAMPLE: Final = SAMPLES["price"]
assert isinstance(_SAMPLE, Price)
_UPDATE: Final = pyth.update(_FEED, _SAMPLE, State.LIVE)
_ID: Final = described(_TEXT, "The feed's id: 64 hex digits, lower case, without `0x`.")
_AS_ASKED: Final = described(_TEXT, "The feed's id as you wrote it.")
_STATUS: Final[Schema] = {
    "enum": [pyth.TRADING, pyth.HALTED, pyth.UNKNOWN],
    "description": "`halted` repeats the last price of a closed market; `unknown` may not be used.",
}
_EXPO: Final = {"type": "integer", "description": "The power of ten in which the oracle counts."}
_CONFIRMED: Final = {"feed_id": _AS_ASKED, "id": _ID}
_CONFIRMED_EXAMPLE: Final = {"feed_id": f"0x{_FEED.symbol}", "id": _FEED.symbol}
_LISTED: Final = closed(
    {
        "id": _ID,
        "symbol": described(_TEXT, "Such as `BTC/USD`."),
        "price": _MAYBE_NUMBER,
        "conf": _MAYBE_NUMBER,
        "expo": {"type": ["integer", "null"]},
        "status": _STATUS,
    }
)
_LISTED_EXAMPLE: Final = {
    "id": _FEED.symbol,
    "symbol": pyth.symbol_of(_FEED),
    **{key: _UPDATE[key] for key in ("price", "conf", "expo", "status")},
}
_PRICE: Final = closed(
    {
        "id": _ID,
        "price": described(_NUMBER, "Already scaled."),
        "conf": described(_NUMBER, "Half-width of the confidence interval, already scaled."),
        "ema_price": _MAYBE_NUMBER,
        "ema_conf": _MAYBE_NUMBER,
        "expo": _EXPO,
        "status": _STATUS,
        "publish_time": {"type": ["string", "null"], "description": "ISO 8601, UTC."},
    }
)
_ABOUT: Final = {
    "subscribe": "Read one feed.",
    "unsubscribe": "Read one feed no longer.",
    "subscribe_multiple": "Read several feeds; each is confirmed or refused on its own.",
    "get_available_feeds": "Tell the feeds that are served.",
    "ping": "Ask for a `pong`.",
}

PYTH: Final = Dialect(
    name="pyth",
    title="Prices of Pyth",
    about="For clients of an older gateway of Pyth's prices, by feed id. The newest price comes right after the "
    "confirmation. Keys that are not known are passed over.",
    requests=tuple(_asked(f"pyth_{kind}", _ABOUT[kind], made, kind) for kind, made in pyth.REQUESTS.items()),
    answers=(
        _said("pyth", "subscription_confirmed", "The feed is read.", _CONFIRMED, _CONFIRMED_EXAMPLE),
        _said(
            "pyth", "unsubscription_confirmed", "The feed is read no longer.", _CONFIRMED, _CONFIRMED_EXAMPLE
        ),
        _said(
            "pyth",
            "available_feeds",
            "The feeds that are served.",
            {"feeds": {"type": "array", "items": _LISTED}},
            {"feeds": [_LISTED_EXAMPLE]},
        ),
        _said("pyth", "pong", "The answer to `ping`.", {}, {}),
        _said(
            "pyth",
            "error",
            "What was wrong, or why the connection ends.",
            {"message": _TEXT, "feed_id": _AS_ASKED},
            {
                "message": "unknown feed 'abc'; get_available_feeds tells those that there are",
                "feed_id": "abc",
            },
            "feed_id",
        ),
    ),
    data=(
        _said(
            "pyth",
            "connection_established",
            "The first message.",
            {"client_id": _TEXT, "message": _TEXT},
            {
                "client_id": "6f0f3a52c9b1d7e4",
                "message": "connected to pricefeedd; subscribe to feeds by feed_id",
            },
        ),
        _said(
            "pyth",
            "price_update",
            "A new price, or that it may not be used now.",
            {"data": _PRICE},
            {"data": _UPDATE},
        ),
    ),
)

# --- ohlcv --------------------------------------------------------------------------------------------------

_CANDLE: Final = SAMPLES["candle"]
assert isinstance(_CANDLE, Candle)
_SERIES: Final[dict[str, Schema]] = {
    "exchange": _TEXT,
    "contract_type": {"enum": list(ohlcv.CONTRACT_TYPES)},
    "symbol": described(_TEXT, "As the venue writes it."),
}
_SERIES_EXAMPLE: Final = {"exchange": "binance", "contract_type": "spot", "symbol": "BTCUSDT"}

OHLCV: Final = Dialect(
    name="ohlcv",
    title="Candles by the venues' own symbols",
    about="For clients of an older gateway of one-minute candles. A symbol that is not fed yet is brought on demand, and "
    "let go some time after its last reader left. Keys that are not known are passed over.",
    requests=(_asked("ohlcv_subscribe", "Read the candles of symbols. It has no type.", ohlcv.Subscribe),),
    answers=(
        _said(
            "ohlcv",
            "subscribed",
            "The symbols that are read.",
            {
                "exchange": _TEXT,
                "contract_type": _SERIES["contract_type"],
                "symbols": {"type": "array", "items": _TEXT, "minItems": 1},
                "limit": {"type": "integer", "minimum": 0},
            },
            {"exchange": "binance", "contract_type": "spot", "symbols": ["BTCUSDT"], "limit": 0},
        ),
        _said(
            "ohlcv",
            "error",
            "What was wrong, or why the connection ends.",
            {"message": _TEXT, **_SERIES, "symbol": {"type": ["string", "null"]}},
            {
                "message": "unknown symbol 'BTCUSD' on binance spot; did you mean BTCUSDT?",
                **_SERIES_EXAMPLE,
                "symbol": "BTCUSD",
            },
            *_SERIES,
        ),
    ),
    data=(
        _said(
            "ohlcv",
            "quote",
            "The candle of the present minute, again and again; `is_closed` with its last word.",
            {
                **_SERIES,
                "timestamp": {
                    "type": "integer",
                    "description": "Start of the minute, ms since the Unix epoch.",
                },
                **dict.fromkeys(("open", "high", "low", "close", "volume"), _NUMBER),
                "is_closed": {"type": "boolean"},
            },
            {**_SERIES_EXAMPLE, **ohlcv.quote(_CANDLE)},
        ),
    ),
)

DIALECTS: Final = (PYTH, OHLCV)
