"""`/api/v1`: reading instruments and latest values over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pricefeedd.events import AccountEvent


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


def _order(daemon: Any) -> None:
    row = AccountEvent(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        received_ns=1,
        account="main",
        kind="order",
        key="o1",
        fields={"status": "new"},
    )
    daemon.bus.publish([row])


async def test_instruments_are_listed_searched_and_paged(start_web: Any, http: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    url = f"{web.http}/api/v1/instruments"

    everything = (await http.get(url)).json()
    found = (await http.get(url, params={"search": "btc", "venue": "binance"})).json()
    linear = (await http.get(url, params={"market": "linear", "search": "USDT-PERP"})).json()
    second = (await http.get(url, params={"limit": 2, "offset": 2})).json()

    assert everything["total"] == len(everything["instruments"]) == 5
    assert everything["instruments"][0] == {
        "venue": "binance",
        "market": "spot",
        "instrument": "BTC-USDT",
        "symbol": "BTCUSDT",
        "kind": "spot",
        "base": "BTC",
        "quote": "USDT",
        "tradable": True,
        "tick_size": None,
        "lot_size": None,
    }
    assert [row["instrument"] for row in found["instruments"]] == ["BTC-USDT", "BTC-USDT-PERP"]
    assert [row["instrument"] for row in linear["instruments"]] == ["BTC-USDT-PERP", "DOGE-USDT-PERP"]
    assert (second["total"], second["offset"], second["limit"]) == (5, 2, 2)
    assert second["instruments"] == everything["instruments"][2:4]


async def test_latest_brings_what_get_brings(start_web: Any, open_client: Any, http: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    web.daemon.trade(3)
    web.daemon.quote("1.5")
    topics = ["trade:binance:btc-usdt", "*:binance:BTC-USDT", "trade:binance:BTC-USDC"]
    client = await open_client(web.ws)

    got = await client.ask({"op": "get", "topics": topics})
    read = await http.get(f"{web.http}/api/v1/latest", params={"topics": ",".join(topics)})
    repeated = await http.get(f"{web.http}/api/v1/latest", params={"topics": topics})

    assert read.json() == {"epoch": "epoch1", "results": got["results"]}
    assert repeated.json() == read.json()
    assert [result["ok"] for result in got["results"]] == [True, True, False]
    assert got["results"][0]["messages"][0]["seq"] == 3


@pytest.mark.parametrize(
    ("query", "status", "code", "parameter", "near"),
    [
        ("instruments?venue=binanse", 404, "UNKNOWN_VENUE", "venue", ["binance"]),
        ("instruments?market=sport", 400, "BAD_REQUEST", "market", ["spot"]),
        ("instruments?limit=many", 400, "BAD_REQUEST", "limit", None),
        ("instruments?limit=0", 400, "BAD_REQUEST", "limit", None),
        ("instruments?limit=5&limit=6", 400, "BAD_REQUEST", "limit", None),
        ("instruments?offset=-1", 400, "BAD_REQUEST", "offset", None),
        ("instruments?ofset=1", 400, "BAD_REQUEST", "ofset", ["offset"]),
        ("instruments?search=", 400, "BAD_REQUEST", "search", None),
        ("latest", 400, "BAD_REQUEST", "topics", None),
        ("latest?topics=trade:binance", 400, "BAD_REQUEST", "topics", None),
        ("latest?topics=trad:binance:BTC-USDT", 404, "UNKNOWN_CHANNEL", "topics", ["trade"]),
        ("latest?topics=trade:binance:ETH-USDD", 404, "UNKNOWN_INSTRUMENT", "topics", ["ETH-USDT"]),
        ("latest?topics=order:bybit:main", 403, "FORBIDDEN", "topics", None),
    ],
)
async def test_a_wrong_read_is_told_what_is_wrong(
    start_web: Any, http: Any, query: str, status: int, code: str, parameter: str, near: list[str] | None
) -> None:
    web = await start_web()
    web.daemon.list_instruments()

    refused = await http.get(f"{web.http}/api/v1/{query}")

    body = refused.json()
    assert (refused.status_code, body["code"], body["parameter"]) == (status, code, parameter)
    assert body["error"]
    if near is not None:
        assert near[0] in body["did_you_mean"]


async def test_a_topic_too_many_is_refused_alone(start_web: Any, http: Any) -> None:
    web = await start_web()
    for number in range(1_001):
        web.daemon.trade(1, f"I{number}")

    read = (await http.get(f"{web.http}/api/v1/latest?topics=trade:*:*,trade:binance:I5")).json()

    assert read["results"][0]["error"]["code"] == "limit"
    assert read["results"][1]["messages"][0]["topic"] == "trade:binance:I5"


async def test_reads_need_a_key_where_reading_does(start_web: Any, http: Any, web_key: Any) -> None:
    keys = (
        web_key(name="me", key="sesame"),
        web_key(name="ops", key="open", scopes=("read", "account:main")),
    )
    web = await start_web(public_read=False, keys=keys)
    _order(web.daemon)
    url = f"{web.http}/api/v1/latest?topics=order:bybit:main"

    assert (await http.get(url)).status_code == 401
    assert (await http.get(f"{url}&api_key=sesame")).status_code == 403
    read = await http.get(url, headers={"Authorization": "Bearer open"})
    assert read.json()["results"][0]["messages"][0]["data"]["status"] == "new"


async def test_topics_of_an_account_are_shown_to_its_keys_only(
    start_web: Any, http: Any, web_key: Any
) -> None:
    web = await start_web(keys=(web_key(name="ops", key="open", scopes=("read", "account:main")),))
    web.daemon.trade(1)
    _order(web.daemon)

    assert "order:bybit:main" not in (await http.get(f"{web.http}/feeds")).text
    assert "order:bybit:main" in (await http.get(f"{web.http}/feeds?api_key=open")).text


async def test_with_an_admin_listener_reads_are_served_there_only(start_web: Any, http: Any) -> None:
    web = await start_web(admin_listen=("127.0.0.1:0",))

    for path in ("instruments", "latest?topics=trade:*:*", "stream?topics=trade:*:*"):
        refused = await http.get(f"{web.http}/api/v1/{path}")
        assert (refused.status_code, refused.json()["code"]) == (404, "NOT_FOUND")
        assert (await http.head(f"{web.binds[1]}/api/v1/{path}")).status_code == 200
