"""What a changed configuration asks a running daemon to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from pricefeedd.config import AccountConfig, Config, SinkConfig, StoreConfig, SubscribeConfig, VenueConfig
from pricefeedd.config.delta import delta
from pricefeedd.config.settings import LeaderConfig, LoggingConfig, SessionConfig, SourceConfig, WebConfig

HERE = Path("/nowhere")


def entry(*instruments: str) -> SubscribeConfig:
    return SubscribeConfig(market="spot", instruments=instruments, channels=("trade",))


def account(*channels: str, key: str = "key") -> AccountConfig:
    return AccountConfig(api_key=key, api_secret="secret", channels=channels or ("order",))


def venue(name: str, *instruments: str, **more: Any) -> VenueConfig:
    return VenueConfig(name=name, plugin=name, subscribe=(entry(*instruments),), **more)


def config(*venues: VenueConfig, sinks: Mapping[str, SinkConfig] | None = None, **more: Any) -> Config:
    return Config(venues={v.name: v for v in venues}, sinks=sinks or {}, state_dir=HERE, **more)


def asked(old: Config, new: Config) -> dict[str, Any]:
    """Return what is to be done, without what is not."""
    found = attrs.asdict(delta(old, new), recurse=False)
    return {key: value for key, value in found.items() if value and key not in ("config", "lines", "waiting")}


def test_nothing() -> None:
    same = config(venue("binance", "BTC-USDT"), sinks={"zmq": SinkConfig(name="zmq", plugin="zmq")})
    found = delta(same, same)
    assert asked(same, same) == {}
    assert (found.lines, found.waiting) == ((), ())


def test_only_what_is_subscribed() -> None:
    old, new = config(venue("binance", "A")), config(venue("binance", "A", "B"))
    assert asked(old, new) == {"venues_changed": ("binance",)}
    assert delta(old, new).lines == ("venues.binance.subscribe[spot].instruments: + B",)


def test_venues_come_go_and_are_begun_anew() -> None:
    old = config(venue("binance", "A"), venue("okx", "A"), venue("bybit", "A"))
    new = config(
        venue("binance", "B", session=SessionConfig(stale_after_s=5.0)),
        venue("okx", "A", endpoints={"ws": "ws://127.0.0.1:1"}),
        venue("kraken", "A"),
    )
    assert asked(old, new) == {
        "venues_added": ("kraken",),
        "venues_removed": ("bybit",),
        "venues_restarted": ("binance", "okx"),
    }


def test_accounts() -> None:
    old = config(venue("bybit", accounts={"main": account(), "old": account(), "same": account()}))
    new = config(
        venue("bybit", accounts={"main": account(key="other"), "new": account(), "same": account()}),
        venue("okx", accounts={"main": account()}),
    )
    assert asked(old, new) == {
        "venues_added": ("okx",),
        "accounts_ended": (("bybit", "main"), ("bybit", "old")),
        "accounts_begun": (("bybit", "main"), ("bybit", "new")),
    }
    assert not any("other" in line or "secret" in line for line in delta(old, new).lines)


def test_accounts_go_with_the_endpoints_that_they_use() -> None:
    old = config(venue("bybit", accounts={"main": account()}))
    new = config(venue("bybit", accounts={"main": account()}, endpoints={"private": "ws://127.0.0.1:1"}))
    assert asked(old, new) == {
        "venues_restarted": ("bybit",),
        "accounts_ended": (("bybit", "main"),),
        "accounts_begun": (("bybit", "main"),),
    }


def test_sinks() -> None:
    def sinks(**changes: Any) -> dict[str, SinkConfig]:
        plain = SinkConfig(name="jsonl", plugin="jsonl")
        return {"jsonl": plain, "rabbitmq": SinkConfig(name="rabbitmq", plugin="rabbitmq", **changes)}

    old = config(venue("bybit"), sinks=sinks())
    assert asked(old, config(venue("bybit"), sinks=sinks(conflate=False))) == {
        "sinks_restarted": ("rabbitmq",)
    }
    assert asked(old, config(venue("bybit"))) == {"sinks_removed": ("jsonl", "rabbitmq")}
    assert asked(config(venue("bybit")), old) == {"sinks_added": ("jsonl", "rabbitmq")}
    # One that carries accounts reads other topics when these have others.
    old = config(venue("bybit", accounts={"main": account()}), sinks=sinks(accounts=("*",)))
    new = config(venue("bybit", accounts={"main": account("order", "balance")}), sinks=sinks(accounts=("*",)))
    assert asked(old, new)["sinks_restarted"] == ("rabbitmq",)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"web": WebConfig(listen=("127.0.0.1:1",))}, "web.listen: + 127.0.0.1:1"),
        ({"web": WebConfig(history_events=5)}, "web.history_events: 20000 -> 5"),
        ({"store": StoreConfig()}, "store: off -> on"),
        ({"leader": LeaderConfig(elector="postgres")}, "leader.elector: none -> postgres"),
        ({"sources": {"relay": SourceConfig(name="relay", plugin="relay")}}, "sources.relay: added"),
    ],
)
def test_what_waits_for_the_next_start(change: dict[str, Any], line: str) -> None:
    old = config(venue("binance", "A"))
    found = delta(old, attrs.evolve(old, **change))
    assert line in found.waiting
    assert found.lines == ()
    assert found.config == old


def test_the_rest_of_a_section_does_not_wait() -> None:
    old = config()
    web = WebConfig(listen=("127.0.0.1:1",), max_clients=5, heartbeat_s=1.0)
    new = config(web=web, leader=LeaderConfig(rest_s=5.0), logging=LoggingConfig(level="debug"))
    found = delta(old, new)
    assert found.lines == (
        "web.max_clients: 10000 -> 5",
        "web.heartbeat_s: 15.0 -> 1.0",
        "leader.rest_s: 30.0 -> 5.0",
        "logging.level: info -> debug",
    )
    assert found.config.web.listen == old.web.listen
    assert delta(found.config, new).lines == ()
    assert delta(found.config, new).waiting == found.waiting


def test_a_relay_stays_one_until_the_next_start() -> None:
    relay = config(sources={"relay": SourceConfig(name="relay", plugin="relay")})
    found = delta(relay, config(venue("binance", "A")))
    assert found.config == relay
    assert found.waiting == ("venues.binance: added", "sources.relay: removed")
