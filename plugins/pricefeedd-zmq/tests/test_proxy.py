"""The proxy between plain sockets, and its pages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import attrs
import httpx
import orjson
import pytest
import trio
import zmq
from prometheus_client.parser import text_string_to_metric_families

from pricefeedd_zmq import proxy_web
from pricefeedd_zmq.proxy import TURN, Proxy, ProxyOptions
from pricefeedd_zmq.sockets import AddressError

ANY = "tcp://127.0.0.1:*"


@attrs.frozen
class Served:
    """A proxy that runs, with sockets on both sides."""

    proxy: Proxy
    stop: trio.Event
    stopped: trio.Event
    http: httpx.AsyncClient
    context: Any

    def push(self) -> Any:
        """Return a publisher's socket."""
        socket = self.context.socket(zmq.PUSH)
        socket.connect(self.proxy.pull[0])
        return socket

    async def subscribe(self, prefix: str = "") -> Any:
        """Return a subscriber's socket, once its subscription has arrived."""
        before = len(self.proxy.interest)
        socket = self.context.socket(zmq.SUB)
        socket.connect(self.proxy.pub[0])
        socket.subscribe(prefix)
        await self.until(lambda: len(self.proxy.interest) > before)
        return socket

    async def until(self, condition: Any) -> None:
        """Wait until something is true: what ZeroMQ's own threads do has no event here."""
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110  # see above
                await trio.sleep(0.01)

    async def metrics(self) -> dict[str, float]:
        """Return what `/metrics` says, by name."""
        text = (await self.http.get("/metrics")).text
        families = text_string_to_metric_families(text)
        return {sample.name: sample.value for family in families for sample in family.samples}


async def receive(socket: Any) -> list[bytes]:
    parts: list[bytes] = await trio.to_thread.run_sync(socket.recv_multipart)
    return parts


@pytest.fixture
async def served(nursery: trio.Nursery, context: Any) -> AsyncIterator[Served]:
    proxy = Proxy(ProxyOptions(pull=(ANY,), pub=(ANY,), max_message_bytes=2048))
    stop, stopped = trio.Event(), trio.Event()
    sock = proxy_web.listen("127.0.0.1:0")
    host, port = sock.getsockname()

    async def run() -> None:
        await proxy.run(stop)
        stopped.set()

    nursery.start_soon(run)
    nursery.start_soon(proxy_web.serve, sock, proxy, stop)
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=10) as http:
        yield Served(proxy, stop, stopped, http, context)
    stop.set()


async def test_what_several_publishers_push_comes_out_at_one_address(served: Served) -> None:
    reader, one, two = await served.subscribe("trade:"), served.push(), served.push()
    await served.until(lambda: served.proxy.publishers.count == 2)
    for socket, venue in ((one, b"a"), (two, b"b")):
        for number in range(500):
            socket.send_multipart([b"trade:" + venue + b":X", b"%d" % number])
        socket.send_multipart([b"quote:" + venue + b":X", b"{}"])
    got = [await receive(reader) for _ in range(1_000)]

    for venue in (b"a", b"b"):
        assert [int(text) for topic, text in got if topic == b"trade:" + venue + b":X"] == list(range(500))
    await served.until(lambda: served.proxy.counts.forwarded == 1_002)
    metrics = await served.metrics()
    assert metrics["zmq_proxy_messages_received_total"] == 1_002
    assert metrics["zmq_proxy_messages_forwarded_total"] == 1_002
    assert metrics["zmq_proxy_message_errors_total"] == 0
    assert metrics["zmq_proxy_processing_time_seconds_count"] == 1_002
    assert 0 < metrics["zmq_proxy_processing_time_seconds_sum"] < 10
    assert metrics["zmq_proxy_memory_usage_bytes"] > 10_000_000
    assert metrics["zmq_proxy_cpu_usage_percent"] >= 0
    assert 0 < metrics["zmq_proxy_health_score"] <= 100
    assert 0 <= metrics["zmq_proxy_queue_size"] <= TURN
    assert (metrics["zmq_proxy_publishers"], metrics["zmq_proxy_subscribers"]) == (2, 1)
    assert metrics["zmq_proxy_subscriptions"] == 1
    assert time.time() - metrics["zmq_proxy_last_message_timestamp_seconds"] < 60


async def test_what_is_no_message_is_dropped_and_counted(served: Served) -> None:
    reader, push = await served.subscribe(), served.push()
    bad = (
        [b"alone"],
        [b"trade:a:b", b"{}", b"more"],
        [b"\xff\xfe", b"{}"],
        [b"", b"{}"],
        [b"t" * 256, b"{}"],
        [b"trade:a:b", b"x" * 2049],
    )
    for parts in bad:
        push.send_multipart(parts)
    push.send_multipart(["trade:a:ü".encode(), b"{}"])

    assert await receive(reader) == ["trade:a:ü".encode(), b"{}"]
    assert served.proxy.counts.errors == {"parts": 2, "topic": 3, "too_large": 1}
    assert (await served.metrics())["zmq_proxy_message_errors_total"] == 6
    assert served.proxy.health_score == round(100 - 60 * 6 / 7)


async def test_a_huge_message_ends_the_connection_of_who_sent_it(served: Served) -> None:
    push = served.push()
    await served.until(lambda: served.proxy.publishers.count == 1)
    push.send_multipart([b"trade:a:b", b"x" * 2048 * 17])
    await served.until(lambda: served.proxy.publishers.count == 0)

    assert served.proxy.counts.received == 0


async def test_pages(served: Served) -> None:
    health = await served.http.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    ready = await served.http.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == [f"no publisher is connected to {served.proxy.pull[0]}"]
    served.push()
    await served.until(lambda: served.proxy.publishers.count == 1)
    assert (await served.http.get("/ready")).json() == {"status": "ready", "reasons": []}
    status = (await served.http.get("/status")).json()
    assert (status["publishers"], status["errors"], status["last_message_age_s"]) == (1, {}, None)
    openmetrics = await served.http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_requests_that_are_wrong(served: Served) -> None:
    missing = await served.http.get("/nope")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
    post = await served.http.post("/metrics", content=b"x" * 100_000)
    assert (post.status_code, post.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert post.headers["allow"] == "GET, HEAD"
    head = await served.http.head("/health")
    assert (head.status_code, head.content) == (200, b"")


async def test_what_had_come_is_forwarded_at_the_end(served: Served) -> None:
    reader, push = await served.subscribe(), served.push()
    for number in range(900):
        push.send_multipart([b"trade:a:b", b"%d" % number])
    await served.until(lambda: served.proxy.counts.received > 0)
    served.stop.set()
    with trio.fail_after(5):
        await served.stopped.wait()
    count = served.proxy.counts.forwarded

    assert count > 0
    assert [int((await receive(reader))[1]) for _ in range(count)] == list(range(count))


async def test_an_address_that_is_taken_leaves_nothing_open(served: Served) -> None:
    for options in (
        ProxyOptions(pull=tuple(served.proxy.pull), pub=(ANY,)),
        ProxyOptions(pull=(ANY,), pub=tuple(served.proxy.pub)),
    ):
        with pytest.raises(AddressError, match=r"cannot listen on tcp://127.0.0.1:.*Address already in use"):
            Proxy(options)


async def test_curve_on_both_sides(nursery: trio.Nursery, context: Any) -> None:
    public, secret = zmq.curve_keypair()
    proxy = Proxy(ProxyOptions(pull=(ANY,), pub=(ANY,), secret_key=secret.decode()))
    stop = trio.Event()
    nursery.start_soon(proxy.run, stop)
    sockets = []
    for kind, address in ((zmq.PUSH, proxy.pull[0]), (zmq.SUB, proxy.pub[0])):
        socket = context.socket(kind)
        socket.curve_serverkey = public
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.connect(address)
        sockets.append(socket)
    push, reader = sockets
    reader.subscribe("")
    with trio.fail_after(10):
        while not len(proxy.interest):  # noqa: ASYNC110  # see above
            await trio.sleep(0.01)
    push.send_multipart([b"trade:a:b", orjson.dumps({})])

    assert await receive(reader) == [b"trade:a:b", b"{}"]
    stop.set()
