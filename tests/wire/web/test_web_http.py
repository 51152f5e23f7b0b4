"""HTTP endpoints and listeners, seen by an independent client."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from pricefeedd.events import State
from pricefeedd.histogram import Histogram
from pricefeedd.web import hyper
from pricefeedd.web.daemon import Limits


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


def _healthy(daemon: Any) -> None:
    market = daemon.stats.market("binance", "spot")
    market.connections = 1
    market.messages = 5
    market.last_message_ns = time.time_ns()


async def test_health_and_ready(start_web: Any, http: Any) -> None:
    web = await start_web()
    health = await http.get(f"{web.http}/health")
    assert health.status_code == 200
    assert health.json()["status"] == "healthy"
    ready = await http.get(f"{web.http}/ready")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["no venue is being served"]
    _healthy(web.daemon)
    ready = await http.get(f"{web.http}/ready")
    assert ready.status_code == 200
    facts = ready.json()["venues"]["binance"]["spot"]
    assert facts["healthy"] is True
    assert facts["total_messages"] == 5
    web.daemon.standby = "standby: other:1 leads"
    ready = await http.get(f"{web.http}/ready")
    assert ready.status_code == 503
    assert "standby" in ready.json()["reasons"][0]


async def test_status_and_feeds(start_web: Any, http: Any) -> None:
    web = await start_web()
    _healthy(web.daemon)
    web.daemon.facts = {"connections": [{"venue": "binance", "state": "open"}]}
    web.daemon.trade(3)
    web.daemon.quote("1.10")
    web.daemon.status(State.STALE)
    status = (await http.get(f"{web.http}/status")).json()
    assert status["epoch"] == "epoch1"
    assert status["topics"]["total"] == 2
    assert status["topics"]["states"]["stale"] == 1
    assert status["connections"] == [{"venue": "binance", "state": "open"}]
    assert status["plugins"] == [{"name": "binance", "status": "loaded", "reason": ""}]
    assert status["venues"]["binance"]["spot"]["reconnects"] == 0
    feeds = (await http.get(f"{web.http}/feeds")).json()
    assert feeds["total"] == 2
    by_topic = {row["topic"]: row for row in feeds["feeds"]}
    trade = by_topic["trade:binance:BTC-USDT"]
    assert trade["last"]["price"] == "65000.10"
    assert trade["state"] == "stale"
    assert trade["seq"] == 4
    assert trade["age_s"] < 60
    chosen = (await http.get(f"{web.http}/feeds?channel=quote")).json()
    assert [row["topic"] for row in chosen["feeds"]] == ["quote:binance:BTC-USDT"]
    wrong = await http.get(f"{web.http}/feeds?chanel=quote")
    assert wrong.status_code == 400
    assert wrong.json()["code"] == "BAD_REQUEST"


async def test_errors_are_json_with_the_right_status(start_web: Any, http: Any) -> None:
    web = await start_web(limits=Limits(body_bytes=1000, body_s=0.3))
    missing = await http.get(f"{web.http}/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
    wrong = await http.post(f"{web.http}/health")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in wrong.headers["Allow"]
    large = await http.post(f"{web.http}/health", content=b"x" * 5000)
    assert (large.status_code, large.json()["code"]) == (413, "REQUEST_ENTITY_TOO_LARGE")
    assert (await http.get(f"{web.http}/health")).status_code == 200


async def test_a_handler_that_fails_is_a_500_in_json(start_web: Any, http: Any) -> None:
    web = await start_web()

    def broken() -> dict[str, Any]:
        raise RuntimeError("secret detail")

    web.daemon.describe = broken
    failed = await http.get(f"{web.http}/status")
    assert (failed.status_code, failed.json()["code"]) == (500, "INTERNAL_SERVER_ERROR")
    assert "secret" not in failed.text


async def test_a_body_that_comes_late_does_not_hang_the_connection(start_web: Any) -> None:
    """Hypercorn 0.18 leaves the next request unanswered if a response goes out before the body was read."""
    web = await start_web(limits=Limits(body_s=0.3))
    host, port = web.http.removeprefix("http://").split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        head = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
        await stream.send_all(head)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await stream.send_all(b"hello")
        with trio.fail_after(5):
            assert b" 405 " in await stream.receive_some()
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(5):
            assert b" 200 " in await stream.receive_some()
        # A body that never comes is not waited for, and the connection ends.
        await stream.send_all(head)
        with trio.fail_after(5):
            assert b" 408 " in await stream.receive_some()
            while await stream.receive_some():
                pass


async def test_metrics_in_both_formats(start_web: Any, http: Any) -> None:
    web = await start_web()
    _healthy(web.daemon)
    market = web.daemon.stats.market("binance", "spot")
    market.events["trade"] = 7
    market.breakers["spot_ws"] = "open"
    market.latency["trade"] = histogram = Histogram()
    histogram.observe(0.003)
    histogram.observe(99.0)
    web.daemon.trade()
    plain = await http.get(f"{web.http}/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    lines = plain.text.splitlines()
    assert 'pricefeedd_messages_total{market="spot",venue="binance"} 5.0' in lines
    assert 'pricefeedd_events_total{channel="trade",market="spot",venue="binance"} 7.0' in lines
    breaker = 'pricefeedd_circuit_breaker_state{endpoint="spot_ws",market="spot",venue="binance"} 2.0'
    assert breaker in lines
    name = "pricefeedd_venue_latency_seconds"
    labels = 'channel="trade",market="spot",venue="binance"'
    assert f'{name}_bucket{{channel="trade",le="0.005",market="spot",venue="binance"}} 1.0' in lines
    assert f'{name}_bucket{{channel="trade",le="+Inf",market="spot",venue="binance"}} 2.0' in lines
    assert f"{name}_count{{{labels}}} 2.0" in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    assert 'pricefeedd_topics{channel="trade",state="connecting",venue="binance"} 1.0' in lines
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    openmetrics = await http.get(f"{web.http}/metrics", headers=accept)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_keys_guard_http(start_web: Any, http: Any, web_key: Any) -> None:
    keys = (web_key(name="r", key="reader"), web_key(name="o", key="ops", scopes=("read", "admin")))
    web = await start_web(public_read=False, keys=keys)

    async def status(path: str, **headers: str) -> int:
        return int((await http.get(web.http + path, headers=headers)).status_code)

    assert await status("/health") == 200
    assert await status("/ready") == 503
    assert await status("/feeds") == 401
    assert await status("/feeds", **{"X-API-Key": "reader"}) == 200
    assert await status("/feeds", **{"X-API-Key": "wrong"}) == 401
    assert await status("/feeds?api_key=reader") == 200
    assert await status("/metrics", Authorization="Bearer reader") == 401
    assert await status("/metrics", Authorization="Bearer ops") == 200
    refused = await http.get(f"{web.http}/feeds")
    assert refused.json()["code"] == "UNAUTHORISED"
    assert refused.headers["WWW-Authenticate"] == "Bearer"


async def test_what_is_for_admins_is_served_on_their_listener_only(start_web: Any, http: Any) -> None:
    web = await start_web(admin_listen=("127.0.0.1:0",))
    public, admin = web.binds
    assert (await http.get(f"{public}/metrics")).status_code == 404
    assert (await http.get(f"{public}/api/v1/anything")).json()[
        "error"
    ] == "served on the admin listener only"
    assert (await http.get(f"{public}/feeds")).status_code == 200
    assert (await http.get(f"{admin}/metrics")).status_code == 200
    assert (await http.get(f"{admin}/health")).status_code == 200


async def test_pages_on_the_list_may_fetch(start_web: Any, http: Any) -> None:
    web = await start_web(allowed_origins=("https://app.test",))
    listed = await http.get(f"{web.http}/feeds", headers={"Origin": "https://app.test"})
    assert listed.headers["Access-Control-Allow-Origin"] == "https://app.test"
    other = await http.get(f"{web.http}/feeds", headers={"Origin": "https://evil.test"})
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_a_port_in_use_is_an_error_at_the_start(start_web: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            await start_web(listen=(f"127.0.0.1:{port}",))
    with pytest.raises(ValueError, match="expected host:port"):
        await start_web(listen=("nonsense",))


async def test_tls(start_web: Any, open_client: Any, self_signed: Any, tmp_path: Path) -> None:
    tls = self_signed
    web = await start_web(tls=tls, listen=("127.0.0.1:0", f"unix:{tmp_path}/plain.sock"))
    assert web.http.startswith("https://")
    trusted = ssl.create_default_context(cafile=tls.certfile)
    async with httpx.AsyncClient(verify=trusted) as http:
        assert (await http.get(f"{web.http}/health")).status_code == 200
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=f"{tmp_path}/plain.sock")) as http:
        assert (await http.get("http://x/health")).status_code == 200
    client = await open_client(web.ws, ssl=trusted)
    assert (await client.receive())["type"] == "welcome"
    await client.ask({"op": "subscribe", "topics": ["trade:*:*"]})
    for _ in range(100):
        web.daemon.trade(10, pad="x" * 1000)
        await trio.lowlevel.checkpoint()
    seqs = [(await client.until("trade"))["seq"] for _ in range(1000)]
    assert seqs == list(range(1, 1001))
    web.stop.set()
    assert (await client.until("bye"))["code"] == 4001
    assert (await client.closed())[0] == 4001
    with trio.fail_after(8):
        await web.stopped.wait()


async def test_a_connection_is_bounded_by_the_kernel_too(
    start_web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[int] = []
    tune = hyper._tune

    def spy(stream: trio.SocketStream) -> None:
        tune(stream)
        if stream.socket.family == socket.AF_INET:
            tuned.append(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    monkeypatch.setattr(hyper, "_tune", spy)
    web = await start_web()
    async with httpx.AsyncClient() as http:
        await http.get(f"{web.http}/health")
    assert tuned == [30_000]
