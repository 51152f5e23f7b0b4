"""The relay's parts without an upstream: settings, prefixes, positions, envelopes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest

from pricefeedd.envelope import envelope
from pricefeedd_relay import pricefeedd_sources
from pricefeedd_relay.positions import Position, Positions
from pricefeedd_relay.settings import QUEUES, RelaySettings
from pricefeedd_relay.streams import parse
from pricefeedd_relay.subscriber import prefixes

README = (Path(__file__).parents[1] / "README.md").read_text()
TEXT = (
    b'{"type":"trade","topic":"trade:example:BTC-USDT","seq":7,"ts_event":1,"ts_recv":2,"origin":"live",'
    b'"data":{"id":"1","price":"1.0","size":"2","side":null}}'
)


@attrs.frozen
class Message:
    topic: str = "trade:example:BTC-USDT"
    seq: int = 7
    text: bytes = TEXT


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "say where the upstream publishes: either zmq or rabbitmq"),
        ({"zmq": ("tcp://a:1",), "rabbitmq": "amqp://b"}, "either zmq or rabbitmq"),
        ({"zmq": ("tcp://*:5545",)}, 'expected an address such as "tcp://feed-1:5545"'),
        ({"zmq": ("feed-1:5545",)}, "found 'feed-1:5545'"),
        ({"rabbitmq": "http://hush@broker"}, "expected a URL such as amqp://user@host:5672/vhost"),
        ({"rabbitmq": "amqp://b", "queues": ()}, "queues: name the streams to read"),
        ({"zmq": ("tcp://a:1",), "upstream": "feed-1:8765"}, "upstream: expected a URL"),
        ({"zmq": ("tcp://a:1",), "curve_server_key": "x" * 40}, "CURVE needs both"),
        ({"zmq": ("tcp://a:1",), "curve_server_key": "x", "curve_secret_key": "hush"}, "40 characters"),
        ({"zmq": ("tcp://a:1",), "history_s": -1.0}, "expected at least 0, found -1"),
        ({"zmq": ("tcp://a:1",), "prefetch": 0}, "expected at least 1, found 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        RelaySettings(**keys)
    assert "hush" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(RelaySettings(rabbitmq="amqp://user:hush@broker", api_key="hush"))

    assert "hush" not in shown


def test_the_plugin_brings_a_source() -> None:
    [source] = pricefeedd_sources()

    assert (source.name, source.api_version, source.settings) == ("relay", 1, RelaySettings)
    assert "pricefeedd.trade" in QUEUES


@pytest.mark.parametrize(
    ("topics", "accounts", "expected"),
    [
        (["*:*:*"], False, [b""]),
        (["*:*:*"], True, [b""]),
        (
            ["trade:*:*", "trade:binance:*", "quote:binance:BTC-USDT"],
            False,
            [b"quote:binance:BTC-USDT", b"trade:"],
        ),
        (["trade:*:BTC-USDT"], True, [b"balance:", b"execution:", b"order:", b"position:", b"trade:"]),
    ],
)
def test_the_fewest_prefixes_let_all_through(
    topics: list[str], accounts: bool, expected: list[bytes]
) -> None:
    assert prefixes(topics, accounts=accounts) == expected


def test_an_envelope_is_taken_out_and_garbage_passed_on() -> None:
    assert parse(orjson.dumps(envelope(Message(), "one"))) == orjson.loads(TEXT) | {"epoch": "one"}
    for garbage in (b"", b"x", b"[]", b"3", b'{"event_id":"x"}', TEXT):
        assert parse(garbage) == garbage


def test_positions_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    positions = Positions(path, "broker:5672/")
    positions.of["pricefeedd.trade"] = Position(41, 1_000)
    positions.save()

    assert Positions(path, "broker:5672/").of == {"pricefeedd.trade": Position(41, 1_000)}
    assert Positions(path, "other:5672/").of == {}
    assert [file.name for file in tmp_path.iterdir()] == ["positions.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"broker":"b","streams":3}', '{"broker":"b","streams":{"q":{}}}']
)
def test_a_file_of_positions_that_is_broken_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "positions.json"
    path.write_text(text)

    assert Positions(path, "b").of == {}


def test_the_readme_names_every_setting_and_shows_toml_that_can_be_read() -> None:
    for field in attrs.fields(RelaySettings):
        assert f"`{field.name}`" in README
    sections = [tomllib.loads(text) for text in re.findall(r"^```toml\n(.*?)^```", README, re.M | re.S)]
    relays = [section["sources"]["relay"] for section in sections if "sources" in section]
    assert len(relays) == 2
    for relay in relays:
        if "rabbitmq" in relay:
            assert relay["rabbitmq"] == {"env": "RABBITMQ_URL"}
            relay["rabbitmq"] = "amqp://broker"
        RelaySettings(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in relay.items()}
        )
