"""`/api/v1/explain` over HTTP: what is refused, and who may ask what."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pricefeedd.config import AccountConfig, VenueConfig
from pricefeedd.events import State


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


@pytest.mark.parametrize(
    ("query", "status", "code", "near"),
    [
        ("", 400, "BAD_REQUEST", None),
        ("topic=trade:binance", 400, "BAD_TOPIC", None),
        ("topic=trade:binance:BTC-USDT&topic=trade:binance:ETH-USDT", 400, "BAD_REQUEST", None),
        ("topics=trade:binance:BTC-USDT", 400, "BAD_REQUEST", "topic"),
        ("topic=trad:binance:BTC-USDT", 404, "UNKNOWN_CHANNEL", "trade"),
        ("topic=trade:binanse:BTC-USDT", 404, "UNKNOWN_VENUE", "binance"),
        ("topic=trade:binance:BTC-USDX", 404, "UNKNOWN_INSTRUMENT", "BTC-USDT"),
        ("topic=order:bybit:main", 403, "FORBIDDEN", None),
        ("topic=order:nowhere:main", 403, "FORBIDDEN", None),
    ],
)
async def test_what_cannot_be_explained_is_told_why(
    start_web: Any, http: Any, query: str, status: int, code: str, near: str | None
) -> None:
    web = await start_web()
    web.daemon.list_instruments()

    refused = await http.get(f"{web.http}/api/v1/explain?{query}")

    body = refused.json()
    assert (refused.status_code, body["code"]) == (status, code), body
    assert body["error"]
    if near is not None:
        assert near in body["did_you_mean"]


async def test_a_pattern_is_refused_with_how_its_topics_stand(start_web: Any, http: Any) -> None:
    web = await start_web()
    web.daemon.trade(1, "ETH-USDT")
    web.daemon.status(State.LIVE)
    web.daemon.status(State.STALE, "quote")

    refused = await http.get(f"{web.http}/api/v1/explain?topic=*:binance:*")

    body = refused.json()
    assert (refused.status_code, body["code"]) == (400, "PATTERN")
    assert body["error"].startswith("one topic at a time can be explained; *:binance:* means 3: ")
    assert "1 stale" in body["error"]
    assert [row["state"] for row in body["results"]] == ["connecting", "stale", "live"]
    assert body["results"][1] == {"topic": "quote:binance:BTC-USDT", "state": "stale", "reason": "test"}


async def test_a_venue_says_why_it_is_not_there(start_web: Any, http: Any) -> None:
    web = await start_web()
    plugin = web.daemon.plugins[0]
    web.daemon.plugins += [
        type(plugin)(name="kraken", status="loaded", reason=""),
        type(plugin)(name="okx", status="broken", reason="written for plugin API 99"),
    ]
    web.daemon.offer_bybit()
    errors = {}
    for venue in ("kraken", "okx"):
        answer = await http.get(f"{web.http}/api/v1/explain?topic=trade:{venue}:BTC-USDT")
        assert answer.status_code == 404
        errors[venue] = answer.json()["error"]
    configured = (await http.get(f"{web.http}/api/v1/explain?topic=trade:bybit:BTC-USDT")).json()

    assert "its plugin is loaded, and there is no [venues.kraken]" in errors["kraken"]
    assert "broken: written for plugin API 99" in errors["okx"]
    assert configured["verdict"]["cause"] == "crashed", "it is configured, and not at work"
    assert not configured["at_work"]


async def test_an_accounts_topic_needs_its_scope(start_web: Any, http: Any, web_key: Any) -> None:
    keys = (
        web_key(name="me", key="sesame"),
        web_key(name="ops", key="open", scopes=("read", "account:main", "account:gone")),
    )
    web = await start_web(public_read=False, keys=keys)
    account = AccountConfig(api_key="key", api_secret="secret", channels=("order",))
    web.daemon.config.venues["bybit"] = VenueConfig(name="bybit", plugin="bybit", accounts={"main": account})
    url = f"{web.http}/api/v1/explain?topic="

    async def asked(topic: str, key: str) -> tuple[int, Any]:
        answer = await http.get(url + topic, headers={"X-API-Key": key} if key else {})
        return answer.status_code, answer.json()

    assert (await asked("trade:binance:BTC-USDT", ""))[0] == 401
    there = await asked("order:bybit:main", "sesame")
    assert there[0] == 403
    assert there == await asked("order:bybit:nobody", "sesame"), "it is not told which accounts there are"
    status, told = await asked("order:bybit:main", "open")
    assert (status, told["verdict"]["cause"]) == (200, "crashed")
    status, told = await asked("balance:bybit:main", "open")
    assert (status, told["code"], told["did_you_mean"]) == (404, "UNKNOWN_CHANNEL", ["order"])
    status, told = await asked("order:bybit:gone", "open")
    assert (status, told["code"]) == (404, "UNKNOWN_ACCOUNT")


async def test_who_stands_by_says_so(start_web: Any, http: Any) -> None:
    web = await start_web()
    web.daemon.offer_bybit()
    web.daemon.standby = "standby: feed-1 leads"
    leader = {"elector": "postgres", "leads": False, "leader": "feed-1:7:ab", "reason": ""}
    web.daemon.facts["leader"] = leader

    told = (await http.get(f"{web.http}/api/v1/explain?topic=trade:bybit:BTC-USDT")).json()

    assert told["verdict"]["cause"] == "standby"
    assert "feed-1:7:ab leads" in told["verdict"]["text"]
    assert told["leader"] == leader
