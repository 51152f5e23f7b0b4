"""`/api/v1/candles`, `/gaps` and `/balances`: what is asked, who may ask, and what comes."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import attrs
import httpx
import pytest
import trio

from pricefeedd.config import Config, StoreConfig
from pricefeedd.events import AccountEvent, Candle, Gap
from pricefeedd.store.archive import Archive

MINUTE_NS = 60_000_000_000


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


def minutes(count: int = 5, *, before_ns: int = 0) -> list[Candle]:
    """Return the newest closed minutes up to now."""
    end = (time.time_ns() - before_ns) // MINUTE_NS * MINUTE_NS
    return [
        Candle(
            venue="binance",
            instrument="BTC-USDT",
            received_ns=time.time_ns(),
            start_ns=end - n * MINUTE_NS,
            open="65000.10",
            high="65000.20",
            low="64999.00",
            close="65000.00",
            volume="12.3400",
            trades=7,
            closed=True,
        )
        for n in range(count, 0, -1)
    ]


def gap(number: int, **more: Any) -> Gap:
    fields = {
        "venue": "binance",
        "instrument": "BTC-USDT",
        "received_ns": number * 10_000_000,
        "topic_channel": "trade",
        "from_ns": number * 1_000_000,
        "to_ns": number * 1_000_000 + 500_000,
        "reason": "connection lost",
        "recovered": 1,
    }
    return Gap(**{**fields, **more})


def balance(number: int, coin: str | None = "USDT", account: str = "main") -> AccountEvent:
    fields: dict[str, Any] = {"coin": coin, "equity": f"{number}.50"} if coin else {"total_equity": "7.0"}
    return AccountEvent(
        venue="bybit",
        instrument=coin or "UNIFIED",
        venue_time_ns=number * 1_000_000,
        received_ns=number * 1_000_000,
        account=account,
        kind="balance",
        key=f"{number}:{coin}",
        fields=fields,
        trace_id="5e1d0c8ab33f4d0e9b1f6c7a2d4e8f90",
    )


async def asks(web: Any, http: httpx.AsyncClient, path: str, key: str = "", **query: Any) -> Any:
    """Return status and body of a request."""
    headers = {"X-API-Key": key} if key else {}
    answer = await http.get(f"{web.http}/api/v1/{path}", params=query, headers=headers)
    return answer.status_code, answer.json()


# --- candles --------------------------------------------------------------------------------------------------


async def test_candles_come_by_topic_or_by_its_parts(start_web: Any, http: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    sent = minutes()
    web.daemon.bus.publish(
        [*sent, attrs.evolve(sent[-1], start_ns=sent[-1].start_ns + MINUTE_NS, closed=False)]
    )
    get = partial(asks, web, http, "candles")

    status, body = await get(topic="candle_1m:binance:BTC-USDT", limit=5)

    assert status == 200
    assert [row["start"] for row in body["candles"]] == [candle.start_ns // 1000 for candle in sent]
    assert body["candles"][0] == {
        "start": sent[0].start_ns // 1000,
        "open": "65000.10",
        "high": "65000.20",
        "low": "64999.00",
        "close": "65000.00",
        "volume": "12.3400",
        "turnover": None,
        "trades": 7,
        "closed": True,
        "origin": "live",
    }
    assert (body["next"], body["complete"], body["interval"]) == (None, True, "1m")
    assert (await get(venue="binance", instrument="BTC-USDT", limit=5))[1] == body
    assert (await get(venue="binance", instrument="ETHUSDT"))[1]["instrument"] == "ETH-USDT"
    assert len((await get(topic="candle_1m:binance:BTC-USDT", limit=5, open="true"))[1]["candles"]) == 6


async def test_times_are_numbers_or_iso_8601(start_web: Any, http: Any) -> None:
    web = await start_web()
    sent = minutes()
    web.daemon.bus.publish(sent)
    start_us, end_us = sent[1].start_ns // 1000, sent[3].start_ns // 1000
    seconds = start_us // 1_000_000
    texts = (
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)),
        time.strftime("%Y-%m-%dT%H:%M:%S+01:00", time.gmtime(seconds + 3_600)),
        time.strftime("%Y-%m-%dT%H:%M:%S 01:00", time.gmtime(seconds + 3_600)),
    )
    for start in (str(start_us), *texts):
        query = {"topic": "candle_1m:binance:BTC-USDT", "from": start, "to": end_us}
        _, body = await asks(web, http, "candles", **query)
        assert [row["start"] for row in body["candles"]] == [start_us, start_us + 60_000_000], start


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({}, 400, "BAD_REQUEST"),
        ({"venue": "binance"}, 400, "BAD_REQUEST"),
        ({"topic": "candle_1m:binance:BTC-USDT", "venue": "binance"}, 400, "BAD_REQUEST"),
        ({"topic": "trade:binance:BTC-USDT"}, 400, "BAD_TOPIC"),
        ({"topic": "candle_1m:*:BTC-USDT"}, 400, "BAD_TOPIC"),
        ({"topic": "nonsense"}, 400, "BAD_TOPIC"),
        ({"topic": "candle_1m:binanse:BTC-USDT"}, 404, "UNKNOWN_VENUE"),
        ({"venue": "binance", "instrument": "BTC-USTD"}, 404, "UNKNOWN_INSTRUMENT"),
        ({"topic": "candle_1m:binance:BTC-USDT", "from": "yesterday"}, 400, "BAD_REQUEST"),
        ({"topic": "candle_1m:binance:BTC-USDT", "limit": "0"}, 400, "BAD_REQUEST"),
        ({"topic": "candle_1m:binance:BTC-USDT", "form": "1"}, 400, "BAD_REQUEST"),
        ({"venue": "binance", "instrument": "BTC-USDT", "interval": "7m"}, 400, "BAD_REQUEST"),
    ],
)
async def test_a_wrong_question_is_refused(
    start_web: Any, http: Any, query: dict[str, str], status: int, code: str
) -> None:
    web = await start_web()
    web.daemon.list_instruments()

    found = await asks(web, http, "candles", **query)

    assert (found[0], found[1]["code"]) == (status, code)
    assert found[1]["error"]


# --- gaps -----------------------------------------------------------------------------------------------------


async def test_gaps_are_told_without_a_store(start_web: Any, http: Any, web_key: Any) -> None:
    web = await start_web(keys=(web_key(name="me", key="sesame", scopes=("read", "account:main")),))
    web.daemon.bus.publish([gap(n) for n in range(1, 6)])
    web.daemon.bus.publish([gap(9, topic_channel="order", instrument="main", venue="bybit")])
    get = partial(asks, web, http, "gaps")

    status, body = await get(limit=2, offset=1)

    assert status == 200
    assert (body["total"], body["limit"], body["offset"], body["stored"]) == (5, 2, 1, False)
    assert [row["from"] for row in body["gaps"]] == [4_000, 3_000]
    assert body["gaps"][0] == {
        "venue": "binance",
        "instrument": "BTC-USDT",
        "channel": "trade",
        "from": 4_000,
        "to": 4_500,
        "reason": "connection lost",
        "recovered": 1,
        "missing": None,
        "recorded_at": 40_000,
    }
    assert (await get(channel="book"))[1]["total"] == 0
    assert (await get(venue="binance", instrument="BTC-USDT", channel="trade"))[1]["total"] == 5
    assert (await get(**{"from": 2_400, "to": 4_000}))[1]["total"] == 2
    assert (await get(key="sesame"))[1]["total"] == 6


# --- balances -------------------------------------------------------------------------------------------------


async def test_balances_need_the_scope_of_their_account(start_web: Any, http: Any, web_key: Any) -> None:
    keys = (
        web_key(name="reader", key="plain", scopes=("read",)),
        web_key(name="admin", key="root", scopes=("read", "admin")),
        web_key(name="bot", key="bot", scopes=("read", "account:main")),
        web_key(name="desk", key="desk", scopes=("read", "account:main", "account:other")),
    )
    web = await start_web(keys=keys)
    web.daemon.bus.publish([balance(1), balance(3), balance(2), balance(4, "BTC"), balance(5, None)])
    web.daemon.bus.publish([balance(1, account="other"), balance(1, account="third")])
    get = partial(asks, web, http, "balances")

    assert (await get())[0] == (await get(account="main"))[0] == 401
    assert (await get(key="plain"))[0] == (await get(key="root"))[0] == 403
    assert (await get(key="bot", account="other"))[1]["code"] == "FORBIDDEN"
    assert (await asks(web, http, "balances/history"))[0] == 401
    assert (await get(key="wrong"))[0] == 401
    status, body = await get(key="bot")
    assert (status, body["total"]) == (200, 1)
    (account,) = body["accounts"]
    assert (account["venue"], account["account"]) == ("bybit", "main")
    assert [(row["coin"], row["equity"]) for row in account["balances"]] == [
        ("BTC", "4.50"),
        ("USDT", "3.50"),
    ]
    assert account["balances"][0]["event_time"] == 4_000
    assert account["balances"][0]["trace_id"] == "5e1d0c8ab33f4d0e9b1f6c7a2d4e8f90"
    assert account["margin"]["total_equity"] == "7.0"
    assert [a["account"] for a in (await get(key="desk"))[1]["accounts"]] == ["main", "other"]
    assert (await get(key="bot", venue="coinbase"))[1] == {"total": 0, "accounts": []}
    assert (await asks(web, http, "balances/history", key="bot"))[1]["code"] == "NO_STORE"


async def test_the_history_of_balances_comes_from_the_store(
    start_web: Any, http: Any, web_key: Any, tmp_path: Any
) -> None:
    web = await start_web(keys=(web_key(name="bot", key="bot", scopes=("read", "account:main")),))
    daemon = web.daemon
    config = Config(store=StoreConfig(url=f"sqlite:///{tmp_path}/x.db"), state_dir=tmp_path)
    daemon.archive = Archive(config, daemon.bus, daemon.directory, {}, now_ns=daemon.now_ns)
    get = partial(asks, web, http, "balances/history", key="bot")

    assert (await get())[1]["code"] == "STORE_AWAY"
    async with daemon.archive.running():
        daemon.bus.publish([balance(n, "BTC" if n % 2 else "USDT") for n in range(10)])
        daemon.bus.publish([balance(20, account="other"), balance(30, None), gap(1)])
        store = daemon.archive.store
        while sum(store.written.values()) < 13:  # noqa: ASYNC110  # a thread writes them
            await trio.sleep(0.01)
        status, body = await get(coin="BTC", limit=2, offset=1)
        assert (status, body["total"]) == (200, 5)
        assert [row["equity"] for row in body["balances"]] == ["7.50", "5.50"]
        assert (await get(**{"from": 3_000, "to": 6_000}))[1]["total"] == 3
        assert (await get(account="other"))[0] == 403
        assert (await get())[1]["total"] == 10
        gaps = (await asks(web, http, "gaps"))[1]
        assert (gaps["total"], gaps["stored"]) == (1, True)
        metrics = (await http.get(f"{web.http}/metrics")).text
        assert "pricefeedd_store_up 1.0" in metrics
        assert 'pricefeedd_store_rows_total{table="account_balances"} 11.0' in metrics
        assert "pricefeedd_store_write_seconds_count" in metrics
        ready = (await http.get(f"{web.http}/ready")).json()
        assert not [reason for reason in ready["reasons"] if reason.startswith("store")]
        store.state, store.reason = "down", "gone for the test"
        ready = (await http.get(f"{web.http}/ready")).json()
        assert "store: down: gone for the test" in ready["reasons"]
        assert "pricefeedd_store_up 0.0" in (await http.get(f"{web.http}/metrics")).text

    again = Archive(config, daemon.bus, daemon.directory, {}, now_ns=daemon.now_ns)
    async with again.running():
        while not list(again.balances):  # noqa: ASYNC110  # they are read by a thread
            await trio.sleep(0.01)
        (main,) = [account for account in again.balances if account.account == "main"]
        assert main.coins["BTC"]["equity"] == "9.50"
        assert main.margin is not None
        assert main.margin["total_equity"] == "7.0"
