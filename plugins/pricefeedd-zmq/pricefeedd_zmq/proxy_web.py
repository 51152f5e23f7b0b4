"""The proxy over HTTP: `/health`, `/ready`, `/status` and `/metrics`."""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import hypercorn.trio
import orjson
import trio
from hypercorn.config import Config
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pricefeedd_zmq.proxy import BUCKETS_S, Proxy
from pricefeedd_zmq.sockets import AddressError

_JSON = "application/json"
#: A request has no use for a body; so much of one is read and forgotten.
_BODY_BYTES = 65_536


class Load:
    """What the process takes of the machine."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.process_time()
        self._percent = 0.0

    @property
    def memory_bytes(self) -> int:
        """Resident memory; where the system does not tell, the most that it ever was."""
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return most if sys.platform == "darwin" else most * 1024

    @property
    def cpu_percent(self) -> float:
        """Of one core, since it was asked last (a second ago or more)."""
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._wall >= 1.0:
            self._percent = 100 * (cpu - self._cpu) / (wall - self._wall)
            self._wall, self._cpu = wall, cpu
        return self._percent


class ProxyCollector(Collector):
    """Turns the proxy's counts into metric families."""

    def __init__(self, proxy: Proxy, load: Load) -> None:
        self._proxy = proxy
        self._load = load

    def collect(self) -> Iterator[Metric]:
        """Yield all families, as they stand now."""
        proxy, counts = self._proxy, self._proxy.counts
        for name, text, number in (
            ("messages_received", "Messages that came, good and bad.", counts.received),
            ("messages_forwarded", "Messages handed to the publishing socket.", counts.forwarded),
            ("message_errors", "Messages that were dropped: not [topic, json], or too large.", counts.bad),
        ):
            yield CounterMetricFamily(f"zmq_proxy_{name}", text, value=number)
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        yield HistogramMetricFamily(
            "zmq_proxy_processing_time_seconds",
            "Time that each message took, averaged over those that came together.",
            buckets=list(zip(bounds, accumulate(counts.processing), strict=True)),
            sum_value=counts.processing_s,
        )
        for name, text, value in (
            ("memory_usage_bytes", "Resident memory.", self._load.memory_bytes),
            ("cpu_usage_percent", "Of one core.", self._load.cpu_percent),
            ("health_score", "100 is well; bad messages and full turns lower it.", proxy.health_score),
            ("queue_size", "Messages that the last turn found waiting, 256 at most.", counts.queue_size),
            ("publishers", "Peers that push.", proxy.publishers.count),
            ("subscribers", "Peers that read.", proxy.subscribers.count),
            ("subscriptions", "Different prefixes that are subscribed.", len(proxy.interest)),
            (
                "last_message_timestamp_seconds",
                "When a good message came last; 0 before the first.",
                (counts.last_message_ns or 0) / 1e9,
            ),
        ):
            yield GaugeMetricFamily(f"zmq_proxy_{name}", text, value=value)


class App:
    """The four pages as an ASGI app."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._load = Load()
        self._registry = CollectorRegistry()
        self._registry.register(ProxyCollector(proxy, self._load))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            size = 0
            while (event := await receive())["type"] == "http.request":
                size += len(event["body"])
                if not event["more_body"] or size > _BODY_BYTES:
                    break
            if event["type"] == "http.disconnect":
                return
            status, kind, body = self._answer(scope)
            headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
            if status == 405:
                headers.append((b"allow", b"GET, HEAD"))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _answer(self, scope: Any) -> tuple[int, str, bytes]:
        path = scope["path"]
        if path not in ("/health", "/ready", "/status", "/metrics"):
            return _error(404, "NOT_FOUND", f"no such path: {path}; there is /health /ready /status /metrics")
        if scope["method"] not in ("GET", "HEAD"):
            return _error(405, "METHOD_NOT_ALLOWED", f"{path} is read with GET")
        if path == "/metrics":
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            encode, kind = choose_encoder(accept)
            return 200, kind, encode(self._registry)
        if path == "/health":
            return 200, _JSON, orjson.dumps({"status": "healthy", "timestamp": time.time()})
        if path == "/ready":
            ready = self._proxy.publishers.count > 0
            reasons = [] if ready else [f"no publisher is connected to {', '.join(self._proxy.pull)}"]
            body = {"status": "ready" if ready else "not ready", "reasons": reasons}
            return 200 if ready else 503, _JSON, orjson.dumps(body)
        return 200, _JSON, orjson.dumps(self._status())

    def _status(self) -> dict[str, Any]:
        proxy, counts = self._proxy, self._proxy.counts
        now_ns = time.time_ns()
        return {
            "uptime_s": round((now_ns - proxy.began_ns) / 1e9, 1),
            "pull": proxy.pull,
            "pub": proxy.pub,
            "publishers": proxy.publishers.count,
            "subscribers": proxy.subscribers.count,
            "refused": proxy.publishers.refused + proxy.subscribers.refused,
            "subscriptions": len(proxy.interest),
            "received": counts.received,
            "forwarded": counts.forwarded,
            "errors": counts.errors,
            "queue_size": counts.queue_size,
            "last_message_age_s": (
                None if counts.last_message_ns is None else round((now_ns - counts.last_message_ns) / 1e9, 3)
            ),
            "health_score": proxy.health_score,
            "memory_bytes": self._load.memory_bytes,
            "cpu_percent": round(self._load.cpu_percent, 1),
        }


def _error(status: int, code: str, text: str) -> tuple[int, str, bytes]:
    return status, _JSON, orjson.dumps({"error": text, "code": code})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


def listen(address: str) -> socket.socket:
    """Return a listening socket for `host:port`.

    Raises:
        AddressError: It cannot be listened on.
        ValueError: It is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"expected host:port, found {address!r}")
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host.removeprefix("[").removesuffix("]"), int(port), type=socket.SOCK_STREAM
        )[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
            sock.listen(128)
        except OSError:
            sock.close()
            raise
    except OSError as e:
        raise AddressError(f"cannot listen on {address}: {e.strerror or e}") from e
    return sock


async def serve(sock: socket.socket, proxy: Proxy, stop: trio.Event) -> None:
    """Serve the pages on a listening socket until stopped."""
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.errorlog = logging.getLogger("pricefeedd.zmq.http")
    config.graceful_timeout = 1.0
    config.shutdown_timeout = 1.0
    config.keep_alive_timeout = 15
    config.h11_max_incomplete_size = 16_384
    await hypercorn.trio.serve(App(proxy), config, shutdown_trigger=stop.wait, mode="asgi")
