"""JSON Schema (draft 2020-12) of what we serve, made from the classes that the code itself uses.

What `wire` does to an event on its way out is told here once more as rules, and a test holds the two together:
the output of each encoder fits its schema, and with a key more or less does not.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import attrs

from pricefeedd import wire
from pricefeedd.events import (
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Origin,
    Price,
    Quote,
    State,
    Status,
    Ticker,
    Trade,
)

Schema = dict[str, Any]

#: Fields of events that stand outside of `data`, or that are not told.
_UNSAID: Final = {
    *(field.name for field in attrs.fields(Event)),
    *("fills", "partial", "checksum", "first_sequence", "previous_sequence", "interval", "topic_channel"),
}
_RENAMED: Final = {"aggressor": "side", "sequence": "venue_sequence"}

DECIMAL: Final[Schema] = {
    "type": "string",
    "pattern": r"^-?[0-9]+(\.[0-9]+)?$",
    "description": "A number as the venue's own decimal text, exact. With `numbers=float` a JSON number.",
}
LEVELS: Final[Schema] = {
    "type": "array",
    "items": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Decimal"},
        "minItems": 2,
        "maxItems": 2,
    },
    "description": "Price and size of each level.",
}

_SIMPLE: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    Any: {},
    object: {},
}


def of(hint: Any) -> Schema:
    """Return the schema of a type.

    Raises:
        TypeError: It is none that we put on the wire.
    """
    if hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _either([of(arg) for arg in args])
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"type": "string", "enum": [member.value for member in hint]}
    if isinstance(hint, type) and attrs.has(hint):
        return of_class(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": of(args[1])}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": of(args[0])}
    raise TypeError(f"no schema for {hint!r}")


def _either(choices: list[Schema]) -> Schema:
    if all(set(choice) == {"type"} for choice in choices):
        return {"type": [choice["type"] for choice in choices]}
    null = {"type": "null"}
    kinds = [choice for choice in choices if choice != null]
    if len(kinds) == 1 and "enum" in kinds[0]:
        return {"type": ["string", "null"], "enum": [*kinds[0]["enum"], None]}
    return {"anyOf": choices}


def of_class(made: type[Any], *, names: Mapping[str, str] | None = None) -> Schema:
    """Return the schema of an object with the fields of an attrs class.

    Args:
        names: Keys of the object, each with the field behind it; all fields under their own names if None.
    """
    hints, told = get_type_hints(made), attributes(made)
    names = names or {field.name: field.name for field in attrs.fields(made)}
    properties = {key: described(of(hints[field]), told.get(field)) for key, field in names.items()}
    return closed(properties)


def closed(properties: Mapping[str, Schema], *, optional: Sequence[str] = ()) -> Schema:
    """Return the schema of an object that has these properties and no other."""
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def described(schema: Schema, text: str | None) -> Schema:
    """Return the schema with a description."""
    return schema | {"description": text} if text else schema


def attributes(made: type[Any]) -> Mapping[str, str]:
    """Return what the docstrings of a class and its bases say of its attributes."""
    found: dict[str, str] = {}
    for each in reversed(made.__mro__):
        text = inspect.getdoc(each) if "__doc__" in vars(each) and each.__doc__ else ""
        _, _, section = (text or "").partition("Attributes:\n")
        for name, about in re.findall(r"^    (\w+): (.*(?:\n      +.*)*)", section, re.MULTILINE):
            found[name] = _for_readers(about)
    return found


def _for_readers(text: str) -> str:
    """Return what a docstring says, in the words of JSON and with the units of the wire."""
    for ours, theirs in (
        ("None", "null"),
        ("True", "true"),
        ("False", "false"),
        ("nanosecond", "microsecond"),
    ):
        text = re.sub(rf"\b{ours}\b", theirs, text)
    return " ".join(text.split())


def summary(made: Any) -> str:
    """Return the first sentence of a docstring."""
    return " ".join((inspect.getdoc(made) or "").partition("\n\n")[0].split())


def data_of(made: type[Event]) -> Schema:
    """Return the schema of `data` in the messages of an event class."""
    if made is AccountEvent:
        return _account()
    hints, told = get_type_hints(made), attributes(made)
    properties: dict[str, Schema] = {}
    if made in (BookSnapshot, BookDelta):
        properties["kind"] = {"const": "snapshot" if made is BookSnapshot else "delta"}
    for field in attrs.fields(made):
        if field.name in _UNSAID:
            continue
        key = _RENAMED.get(field.name, field.name).removesuffix("_ns")
        hint = hints[field.name]
        if made is Ticker:  # it leaves out what the venue does not say
            hint = next(kind for kind in get_args(hint) if kind is not NoneType)
        properties[key] = described(_field(field.name, hint), told.get(field.name))
    return closed(properties, optional=tuple(properties) if made is Ticker else ())


def _field(name: str, hint: Any) -> Schema:
    if name in ("bids", "asks"):
        return {"$ref": "#/components/schemas/Levels"}
    optional = NoneType in get_args(hint)
    if name in wire.NUMBERS:
        decimal: Schema = {"$ref": "#/components/schemas/Decimal"}
        return {"anyOf": [decimal, {"type": "null"}]} if optional else decimal
    if name.endswith("_ns"):
        time: Schema = {"$ref": "#/components/schemas/Time"}
        return {"anyOf": [time, {"type": "null"}]} if optional else time
    return of(hint)


def _account() -> Schema:
    told = attributes(AccountEvent)
    return {
        "type": "object",
        "properties": {
            "account": {"type": "string", "description": told.get("account", "")},
            "instrument": {"type": "string", "description": "What it concerns, by our name."},
            "key": {"type": "string", "description": told.get("key", "")},
        },
        "required": ["account", "instrument", "key"],
        "additionalProperties": of(get_type_hints(AccountEvent)["fields"])["additionalProperties"],
    }


#: Event classes by the names of their messages.
EVENTS: Final[dict[str, type[Event]]] = {
    "trade": Trade,
    "quote": Quote,
    "ticker": Ticker,
    "candle": Candle,
    "book_snapshot": BookSnapshot,
    "book_delta": BookDelta,
    "price": Price,
    "liquidation": Liquidation,
    "account": AccountEvent,
    "status": Status,
    "gap": Gap,
}


def message_of(made: type[Event], types: Sequence[str]) -> Schema:
    """Return the schema of the whole message of an event class.

    Args:
        types: What its `type` may be.
    """
    return closed(
        {
            "type": {"const": types[0]} if len(types) == 1 else {"enum": list(types)},
            "topic": {"$ref": "#/components/schemas/Topic"},
            "seq": {"$ref": "#/components/schemas/Seq"},
            "ts_event": {
                "anyOf": [{"$ref": "#/components/schemas/Time"}, {"type": "null"}],
                "description": "The venue's clock; null if it sent none.",
            },
            "ts_recv": {
                "$ref": "#/components/schemas/Time",
                "description": "Our clock when the frame arrived.",
            },
            "origin": described(of(Origin), attributes(Event).get("origin")),
            "prev_seq": {
                "$ref": "#/components/schemas/Seq",
                "description": "With `every_ms` or `depth`: the number of the message that you had before this one.",
            },
            **({"trace_id": described(of(str), told)} if (told := attributes(made).get("trace_id")) else {}),
            "data": data_of(made),
        },
        optional=("prev_seq", "trace_id") if made is AccountEvent else ("prev_seq",),
    )


#: What the other schemas refer to.
SHARED: Final[dict[str, Schema]] = {
    "Decimal": DECIMAL,
    "Levels": LEVELS,
    "Time": {"type": "integer", "description": "Microseconds since the Unix epoch, UTC."},
    "Seq": {
        "type": "integer",
        "minimum": 0,
        "description": "Counts up by one for each message of a topic within an `epoch`, the same for all readers.",
    },
    "Topic": {
        "type": "string",
        "description": "`channel:venue:instrument`; account topics have the account's name in "
        "the instrument's place.",
        "examples": ["trade:binance:BTC-USDT"],
    },
    "State": of(State) | {"description": summary(State)},
}
