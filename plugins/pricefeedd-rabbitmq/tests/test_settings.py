"""What can be set, what is refused, and the queues that follow from it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from pricefeedd_rabbitmq.settings import CLASSES, QueueSettings, RabbitSettings, routing_key

ROOT = Path(__file__).parents[3]
URL = "amqp://user:hunter2@mq.example:5672/%2F"
DAY_MS = 86_400_000


def queues(**more: Any) -> dict[str, dict[str, Any]]:
    found = RabbitSettings(url=URL, **more).queues_wanted()
    return {queue.name: queue.arguments for queue in found}


def test_each_class_has_a_queue_and_accounts_have_no_limits() -> None:
    found = queues()
    assert list(found) == [f"pricefeedd.{name}" for name in CLASSES]
    market = {"x-message-ttl": DAY_MS, "x-max-length": 100_000, "x-overflow": "drop-head"}
    assert found["pricefeedd.trade"] == found["pricefeedd.candle"] == market
    assert found["pricefeedd.order"] == found["pricefeedd.balance"] == {}


def test_types_limits_and_names_by_class() -> None:
    found = queues(
        queue_type="quorum",
        queue_prefix="mine.",
        queues={
            "trade": QueueSettings(name="ws-gateway.trade", type="stream"),
            "quote": QueueSettings(type="stream", ttl_s=0, max_length_bytes=5_000),
            "order": QueueSettings(type="classic", max_length=10, overflow="reject-publish"),
            "price": QueueSettings(ttl_s=0, max_length=0),
            "book": QueueSettings(enabled=False),
        },
    )
    assert found["ws-gateway.trade"] == {
        "x-queue-type": "stream",
        "x-max-age": "86400s",
        "x-max-length-bytes": 1 << 30,
    }
    assert found["mine.quote"] == {"x-queue-type": "stream", "x-max-length-bytes": 5_000}
    assert found["mine.order"] == {"x-max-length": 10, "x-overflow": "reject-publish"}
    assert found["mine.price"] == {"x-queue-type": "quorum"}
    assert found["mine.balance"] == {"x-queue-type": "quorum"}
    assert "mine.book" not in found


def test_classes_may_share_a_queue_if_they_want_the_same() -> None:
    shared = {name: QueueSettings(name="accounts") for name in ("order", "execution")}
    (queue,) = [
        queue for queue in RabbitSettings(url=URL, queues=shared).queues_wanted() if queue.name == "accounts"
    ]
    assert queue.classes == ("order", "execution")
    assert queue.bindings == ("order.#", "execution.#")
    with pytest.raises(ValueError, match=r"queues.order: trade has the queue 'all' too, with other limits"):
        queues(queues={name: QueueSettings(name="all") for name in ("trade", "order")})


def test_candles_of_all_intervals_go_to_one_queue() -> None:
    (candles,) = [q for q in RabbitSettings(url=URL).queues_wanted() if q.classes == ("candle",)]
    assert candles.bindings == tuple(f"candle_{each}.#" for each in ("1m", "5m", "15m", "1h", "4h", "1d"))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"url": "http://mq"}, "expected amqp://user:password@host:port/vhost"),
        ({"url": "amqp://u:hunter2@h:99999/"}, "a bad address"),
        ({"exchange": ""}, "exchange: expected a name"),
        ({"exchange": "amq.topic"}, "does not begin with amq."),
        ({"window": 0}, "expected at least 1"),
        (
            {"queues": {"trades": QueueSettings()}},
            "queues.trades: no class of events; expected one of trade, quote",
        ),
        ({"queues": {"trade": QueueSettings(type="stream", max_length=5)}}, "a stream has no max_length"),
        ({"tls_cert_file": "x"}, "belong together"),
        ({"tls_ca_file": "x"}, "need an url of amqps://"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(more: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as refused:
        RabbitSettings(**{"url": URL, **more})
    assert "hunter2" not in str(refused.value)


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(RabbitSettings(url=URL))


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        ("trade:binance:BTC-USDT", "trade.binance.BTC-USDT"),
        ("candle_5m:okx:BTC-USDT-PERP", "candle_5m.okx.BTC-USDT-PERP"),
        ("order:bybit:main", "order.bybit.main"),
        ("quote:hyperliquid:U.S #1*%", "quote.hyperliquid.U%2ES%20%231%2A%25"),
        ("quote:a:b:c", "quote.a.b:c"),
    ],
)
def test_routing_keys_have_three_words(topic: str, key: str) -> None:
    assert routing_key(topic) == key
    assert key.count(".") == 2


def test_the_example_names_every_key_with_its_default() -> None:
    text = (ROOT / "pricefeedd.toml.example").read_text()
    table = tomllib.loads(re.sub(r"(?m)^#(?=[\[\w])", "", text))["sinks"]["rabbitmq"]
    by_class = table["queues"]["trade"]
    for field in attrs.fields(RabbitSettings):
        assert field.name in table, field.name
        if field.name not in ("url", "queues"):
            assert table[field.name] == field.default
    assert set(by_class) == {field.name for field in attrs.fields(QueueSettings)}
    # The name is the example's point; all else is what the class has anyway.
    assert (
        queues(queues={"trade": QueueSettings(**by_class)})["ws-gateway.trade"]
        == queues()["pricefeedd.trade"]
    )


def test_the_readme_names_every_key() -> None:
    readme = (ROOT / "plugins" / "pricefeedd-rabbitmq" / "README.md").read_text()
    for kind in (RabbitSettings, QueueSettings):
        for field in attrs.fields(kind):
            assert f"`{field.name}`" in readme or field.name == "queues", field.name
