"""Requests of clients, from literals: what they mean, and why they are refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricefeedd.web.fields import ABSENT, BadRequest, object_schema
from pricefeedd.web.requests import (
    REQUESTS,
    Connection,
    History,
    Instruments,
    Ping,
    Since,
    Subscribe,
    connection,
    parse,
)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ('{"op":"subscribe","topics":["a:b:c"]}', Subscribe(topics=("a:b:c",))),
        (
            '{"op":"subscribe","id":"x","topics":["t"],"snapshot":false,"every_ms":10,"depth":1000}',
            Subscribe(id="x", topics=("t",), snapshot=False, every_ms=10, depth=1000),
        ),
        (
            '{"op":"subscribe","topics":["t"],"every_ms":null,"since":{"epoch":"e","seq":{"t":4}}}',
            Subscribe(topics=("t",), since=Since(epoch="e", seq={"t": 4})),
        ),
        (
            '{"op":"history","id":7,"topics":["t"],"from_seq":3,"to_seq":3}',
            History(id=7, topics=("t",), from_seq=3, to_seq=3),
        ),
        ('{"op":"instruments","market":"spot"}', Instruments(market="spot")),
        ('{"op":"ping"}', Ping(data=ABSENT)),
        ('{"op":"ping","data":null}', Ping(data=None)),
    ],
)
def test_a_request_is_read(text: str, means: object) -> None:
    assert parse(text) == means


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a request is a JSON object with an op"),
        ('{"topics":[]}', "op: expected one of subscribe, unsubscribe, list,"),
        ('{"op":"subscribe"}', "topics: expected a list of texts such as trade:binance:BTC-USDT"),
        ('{"op":"subscribe","topics":[]}', "topics: expected a list of texts such as trade:binance:BTC-USDT"),
        ('{"op":"subscribe","topics":["t"],"snapshot":1}', "snapshot: expected true or false, found 1"),
        ('{"op":"subscribe","topics":["t"],"every_ms":true}', "every_ms: expected a whole number from 10 to"),
        (
            '{"op":"subscribe","topics":["t"],"every_ms":9}',
            "every_ms: expected a whole number from 10 to 60000",
        ),
        (
            '{"op":"subscribe","topics":["t"],"depth":1.0}',
            "depth: expected a whole number from 1 to 1000, found 1.0",
        ),
        (
            '{"op":"subscribe","topics":["t"],"since":4}',
            "since: expected an object with epoch and seq, found 4",
        ),
        (
            '{"op":"subscribe","topics":["t"],"since":{"epoch":"e"}}',
            "since.seq: expected an object of whole numbers",
        ),
        (
            '{"op":"subscribe","topics":["t"],"since":{"epoc":"e"}}',
            "since: unknown key 'epoc'; known: epoch, seq",
        ),
        ('{"op":"history","topics":["t"],"from_seq":4,"to_seq":3}', "from_seq is larger than to_seq"),
        ('{"op":"instruments","market":"sport"}', "market: expected one of spot, linear,"),
        ('{"op":"list","id":[]}', "id: expected a number or a short text, found []"),
        ('{"op":"list","id":true}', "id: expected a number or a short text, found true"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(text)

    assert caught.value.code == "bad_request"
    assert caught.value.message.startswith(message)


def test_a_refusal_bears_what_could_be_read_and_what_may_have_been_meant() -> None:
    with pytest.raises(BadRequest) as key:
        parse('{"op":"subscribe","id":5,"topics":["t"],"everyms":50}')
    with pytest.raises(BadRequest) as op:
        parse('{"op":"subscrib","id":"mine"}')
    with pytest.raises(BadRequest) as nonsense:
        parse("{")

    assert (key.value.id, key.value.op, key.value.did_you_mean) == (5, "subscribe", ("every_ms",))
    assert (op.value.id, op.value.op, op.value.did_you_mean[0]) == ("mine", "subscrib", "subscribe")
    assert (nonsense.value.code, nonsense.value.id) == ("bad_json", None)


def test_options_of_the_connection_come_as_text() -> None:
    assert connection({"batch_ms": ["100"], "numbers": ["float"]}) == Connection(
        batch_ms=100, numbers="float"
    )
    for wrong in (
        {"batch_ms": ["0"]},
        {"batch_ms": ["5", "6"]},
        {"batch_ms": ["²"]},
        {"batchms": ["5"]},
        {"numbers": ["flaot"]},
    ):
        with pytest.raises(BadRequest) as caught:
            connection(wrong)
        assert caught.value.where in wrong


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70_000) | st.text(max_size=5) | st.just(2.5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["epoch", "seq", "t"]), inner)
    ),
    max_leaves=4,
)
_keys = sorted({field for made in REQUESTS.values() for field in object_schema(made)["properties"]} | {"x"})


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(REQUESTS)),
    st.dictionaries(st.sampled_from(_keys), _json, max_size=4),
    st.booleans(),
)
def test_what_the_parser_takes_is_what_the_schema_allows(op: str, keys: dict[str, Any], filled: bool) -> None:
    if filled and "topics" in object_schema(REQUESTS[op])["properties"]:
        keys = keys | {"topics": ["trade:v:X"]}
    allowed = jsonschema.Draft202012Validator(object_schema(REQUESTS[op])).is_valid(keys)
    try:
        parse(json.dumps({"op": op, **keys}))
        why = ""
    except BadRequest as e:
        why = e.message

    assert "larger" in why or allowed == (not why)  # what lies between two keys no schema says
