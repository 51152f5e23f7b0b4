"""`pricefeedd explain` as an operator types it, against a daemon whose exchange has faults on real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
from jsonschema import Draft202012Validator

from pricefeedd.testing.conformance.scene import is_stream
from pricefeedd.testing.ports import free_port
from pricefeedd.web import openapi
from pricefeedd.web.openapi_explain import EXPLAIN
from pricefeedd_binance.testing import BinanceFake

CONFIG = """
[web]
listen = ["127.0.0.1:{port}"]
[logging]
format = "json"
[venues.binance.session]
stale_after_s = 2
breaker_open_s = 60
[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT", "ETH-USDT"]
channels = ["trade", "quote", "book"]
[[venues.binance.subscribe]]
market = "spot"
channels = ["ticker"]
on_demand = true
"""
TRADE, BOOK = "trade:binance:BTC-USDT", "book:binance:BTC-USDT"


class Daemon:
    """A daemon in a process of its own."""

    def __init__(self, url: str, cli: Any, exchange: BinanceFake, http: httpx.AsyncClient) -> None:
        self.url = url
        self.cli = cli
        self.exchange = exchange
        self._http = http

    async def why(self, topic: str = TRADE) -> dict[str, Any]:
        """Return what `/api/v1/explain` says."""
        answer = await self._http.get(f"{self.url}/api/v1/explain", params={"topic": topic})
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    async def until(self, cause: str, topic: str = TRADE) -> dict[str, Any]:
        """Wait until a topic's trouble has this cause: nobody but the daemon knows when."""
        told: dict[str, Any] = {}
        with trio.move_on_after(60):
            while (told := await self.why(topic))["verdict"]["cause"] != cause:  # noqa: ASYNC110  # see above
                await trio.sleep(0.05)
        assert told["verdict"]["cause"] == cause, told["verdict"]
        return told


@pytest.fixture
async def daemon(cli: Any, exchange: BinanceFake) -> AsyncIterator[Daemon]:
    """Return a daemon that serves, and is configured in the folder in which commands run."""
    port = free_port()
    cli.config(CONFIG.format(port=port))
    running = await cli.start("run")
    (url,) = await running.binds()
    async with httpx.AsyncClient(timeout=10) as http:
        made = Daemon(url, cli, exchange, http)
        for topic in (TRADE, BOOK):
            await made.until("live", topic)
        yield made


async def test_a_live_topic_on_one_screen(daemon: Daemon) -> None:
    ended = await daemon.cli.run("explain", BOOK)
    as_json = await daemon.cli.run("explain", TRADE, "--json", "--url", daemon.url)

    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[0] == f"{BOOK}: live (live)"
    assert ended.lines[1].startswith("The topic is live: the last event came ")
    headings = [line.split("  ")[0] for line in ended.lines if not line.startswith(" ")]
    assert [
        name for name in ("topic", "readers", "wanted", "streams", "latency") if name not in headings
    ] == []
    assert "always, by [[venues.binance.subscribe]] number 1 (market spot)" in ended.out
    assert "btcusdt@depth@100ms on spot #0: accepted" in ended.out
    assert " last frame 0." in ended.out
    assert len(ended.lines) <= 30, "it fits on a screen"
    assert as_json.code == 0
    (told,) = as_json.json()
    whole = {**openapi.document(), **EXPLAIN.schema}
    Draft202012Validator(whole).validate(told)


async def test_a_venue_that_goes_away_and_comes_back(daemon: Daemon) -> None:
    with daemon.exchange.faults.refuse(is_stream):
        daemon.exchange.faults.cut()
        await daemon.until("breaker_open")
        ended = await daemon.cli.run("explain", TRADE)
        idle = await daemon.cli.run("explain", "ticker:binance:ETH-USDT")

    assert ended.code == 1
    assert ended.lines[0] == f"{TRADE}: down (breaker_open)"
    assert "The circuit breaker of spot_ws is open after 5 failures in a row: " in ended.lines[1]
    assert ended.lines[2] == "Put right what the error says, or wait for the venue."
    assert "spot_ws open after 5 failures, tried again in " in ended.out
    assert idle.code == 1
    assert "on_demand_idle" in idle.lines[0]


async def test_garbage(daemon: Daemon) -> None:
    daemon.exchange.faults.message("<html>502 Bad Gateway</html>")
    told = await daemon.until("garbage")
    ended = await daemon.cli.run("explain", TRADE)

    assert told["bad_frames"][0]["text"] == "<html>502 Bad Gateway</html>"
    assert ended.code == 1
    assert "bad frames" in ended.out


async def test_a_book_whose_rest_is_slow(daemon: Daemon) -> None:
    with daemon.exchange.faults.late_reply("/spot/api/v3/depth"):
        daemon.exchange.faults.drop(match="btcusdt@depth")
        told = await daemon.until("book_snapshot", BOOK)
        ended = await daemon.cli.run("explain", BOOK)
    await daemon.until("live", BOOK)

    assert told["lines"][0]["requests"] == 1
    assert ended.code == 1
    assert "wait for snapshot by rest" in ended.out
    assert "1 requests under way" in ended.out


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("trade:binance:BTC-USDX", "did you mean BTC-USDT"),
        ("trad:binance:BTC-USDT", "unknown channel 'trad'; did you mean trade?"),
        ("trade:binanse:BTC-USDT", "unknown venue 'binanse'; did you mean binance?"),
        ("trade:kraken:BTC-USD", "there is no [venues.kraken]"),
        ("nonsense", "a topic is channel:venue:instrument"),
        ("order:binance:main", "needs a key with the scope of its account"),
    ],
)
async def test_what_there_is_not(daemon: Daemon, topic: str, words: str) -> None:
    ended = await daemon.cli.run("explain", topic)

    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert "Traceback" not in ended.err


async def test_a_pattern_is_listed_instead(daemon: Daemon) -> None:
    ended = await daemon.cli.run("explain", "trade:*:*")

    assert ended.code == 2
    assert "one topic at a time can be explained; trade:*:* means 2: 2 live" in ended.err
    assert "  trade:binance:ETH-USDT live" in ended.err


async def test_nobody_there(cli: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        port = bound.getsockname()[1]
        cli.config(CONFIG.format(port=port))
        configured = await cli.run("explain", TRADE)
        named = await cli.run("explain", TRADE, "--url", f"http://127.0.0.1:{port}")

    for ended in (configured, named):
        assert ended.code == 69
        assert ended.err.startswith(f"no daemon answers at http://127.0.0.1:{port}")
        assert len(ended.err.splitlines()) == 1


async def test_a_configuration_is_asked_only_where_to_find_the_daemon(cli: Any) -> None:
    cli.config('[web]\nlisten = ["127.0.0.1:1"]\n[venues.nobody-has-that-plugin]\n')
    away = await cli.run("explain", TRADE)
    cli.config("[web\n")
    broken = await cli.run("explain", TRADE)

    assert away.code == 69
    assert "http://127.0.0.1:1 " in away.err
    assert broken.code == 78
    assert "Traceback" not in broken.err


async def test_what_answers_is_something_else(cli: Any, nursery: trio.Nursery) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            body = json.dumps({"hello": "world"})
            await stream.send_all(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, answer, [listener])
    port = listener.socket.getsockname()[1]

    ended = await cli.run("explain", TRADE, "--url", f"http://127.0.0.1:{port}")
    nursery.cancel_scope.cancel()

    assert ended.code == 69
    assert "is no pricefeedd" in ended.err
