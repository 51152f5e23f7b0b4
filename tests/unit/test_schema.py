"""Schemas made from our types, against what the encoders really say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import attrs
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricefeedd import wire
from pricefeedd.events import AccountEvent, Event, Ticker
from pricefeedd.web import messages, schema

decimals = st.decimals(0, 10**9, allow_nan=False, allow_infinity=False, places=4).map(str)
integers = st.integers(0, 2**62)
levels = st.lists(st.tuples(decimals, decimals).map(list), max_size=3)
scalars = st.none() | st.text(max_size=5) | st.booleans() | st.integers(0, 2**53)


def values(made: type[Event], name: str, hint: Any) -> st.SearchStrategy[Any]:
    if name in ("bids", "asks"):
        return levels
    if name == "fields":
        return st.dictionaries(st.sampled_from(["status", "price", "reduce_only"]), scalars)
    if name == "kind":
        return st.sampled_from(messages.types_of("account"))
    if name == "interval":
        return st.sampled_from(["1m", "5m", "1d"])
    if name in wire.NUMBERS:
        return decimals if hint is str else st.none() | decimals
    if int in (hint, *get_args(hint)):
        return integers if hint is int else st.none() | integers
    return st.from_type(hint)


def events(made: type[Event]) -> st.SearchStrategy[Event]:
    hints = get_type_hints(made)
    fields = {field.name: values(made, field.name, hints[field.name]) for field in attrs.fields(made)}
    return st.builds(made, **fields)


def validator(found: schema.Schema) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(found | {"components": {"schemas": messages.SHARED}})


SAMPLES = {name: events(made) for name, made in schema.EVENTS.items()}
VALIDATORS = {event.name: validator(event.schema) for event in messages.EVENTS}
names = st.sampled_from(sorted(schema.EVENTS))


def test_every_event_that_has_an_encoder_has_a_schema() -> None:
    assert set(schema.EVENTS.values()) == set(wire._ENCODERS)


@settings(max_examples=150)
@given(names, st.data())
def test_what_an_encoder_says_fits_its_schema(name: str, data: st.DataObject) -> None:
    event = data.draw(SAMPLES[name])
    previous = data.draw(st.none() | st.integers(1, 99))

    message = json.loads(wire.encode("a:b:c", 7, event, previous))

    VALIDATORS[name].validate(message)


@settings(max_examples=150)
@given(names, st.data())
def test_a_key_more_or_less_does_not_fit(name: str, data: st.DataObject) -> None:
    made = schema.EVENTS[name]
    message = json.loads(wire.encode("a:b:c", 7, data.draw(SAMPLES[name])))
    where = data.draw(st.sampled_from(["message", "data"]))
    part = message if where == "message" else message["data"]
    free = where == "data" and made in (Ticker, AccountEvent)  # these say what there is to say
    if data.draw(st.booleans()) and not free:
        del part[data.draw(st.sampled_from(sorted(part)))]
    else:
        part["surplus"] = {"of": "no use"}

    assert not VALIDATORS[name].is_valid(message)


@pytest.mark.parametrize(
    "found",
    [*messages.EVENTS, *messages.OTHERS, *messages.REQUESTED.values(), *messages.ANSWERS.values()],
    ids=lambda d: d.name,
)
def test_examples_fit(found: messages.Described) -> None:
    jsonschema.Draft202012Validator.check_schema(found.schema)
    validator(found.schema).validate(found.example)


def test_docstrings_become_descriptions() -> None:
    trade = schema.data_of(schema.EVENTS["trade"])["properties"]

    assert trade["id"]["description"] == "The venue's trade id; null if it gives none."
    assert "null" in trade["side"]["enum"] or None in trade["side"]["enum"]
    assert schema.data_of(schema.EVENTS["candle"])["properties"]["start"]["description"].startswith(
        "First microsecond"
    )


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Thing:
    name: str
    sizes: tuple[int, ...]
    colour: Colour | None
    notes: Mapping[str, float]


def test_a_class_becomes_an_object() -> None:
    assert schema.of(Thing) == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "sizes": {"type": "array", "items": {"type": "integer"}},
            "colour": {"type": ["string", "null"], "enum": ["red", "blue", None]},
            "notes": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "additionalProperties": False,
        "required": ["name", "sizes", "colour", "notes"],
    }
    assert schema.of(Thing | None) == {"anyOf": [schema.of(Thing), {"type": "null"}]}
    with pytest.raises(TypeError, match="no schema"):
        schema.of(bytes)
