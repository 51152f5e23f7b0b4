"""The nginx configuration in a real nginx, with TLS, before a real daemon: read through it, restart the daemon behind it."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import httpx
import orjson
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pricefeedd.client import Disconnected, EpochChanged, Missed, connect
from pricefeedd.testing.ports import free_port
from pricefeedd_binance.testing import BinanceFake

ROOT = Path(__file__).parents[2]
NGINX = ROOT / "contrib" / "nginx"
LOAD_TEST = ROOT / "contrib" / "load_test" / "load_test.py"

CONFIG = """
[web]
listen = ["127.0.0.1:{port}"]
[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT"]
channels = ["trade", "quote", "candle_1m", "book"]
"""


@attrs.frozen(kw_only=True)
class Site:
    """The configuration on ports of its own.

    Attributes:
        file: `nginx.conf`; nothing of it is changed but addresses and paths.
        daemon_port: Where the daemon is expected.
        tls: What a client trusts.
    """

    file: Path
    http: str
    https: str
    daemon_port: int
    tls: ssl.SSLContext

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Return an HTTP client that trusts it."""
        return httpx.AsyncClient(base_url=self.https, verify=self.tls, timeout=10, **options)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.pem", folder / "tls.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Write the configuration, with ports and paths of this test."""
    folder = tmp_path / "nginx"
    shutil.copytree(NGINX, folder, ignore=shutil.ignore_patterns("README.md"))
    pem, key = certificate(folder)
    ports = free_port(), free_port(), free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    changes = {
        "nginx.conf": {
            "/run/nginx.pid": f"{folder}/pid",
            "http {\n": f"http {{\n{temporary}\n",
            "listen 80 ": f"listen 127.0.0.1:{ports[0]} ",
            "listen 443 ": f"listen 127.0.0.1:{ports[1]} ",
            "/run/secrets/tls-certificate;": f"{pem};",
            "/run/secrets/tls-key;": f"{key};",
            "/etc/nginx/pricefeedd/": f"{folder}/pricefeedd/",
            "worker_processes auto": "worker_processes 1",
        },
        "pricefeedd/upstream.conf": {"server pricefeedd:8765": f"server 127.0.0.1:{ports[2]}"},
    }
    for name, each in changes.items():
        text = (folder / name).read_text()
        for was, now in each.items():
            assert was in text, f"{name} has no {was!r} any more"
            text = text.replace(was, now)
        (folder / name).write_text(text)
    return Site(
        file=folder / "nginx.conf",
        http=f"http://localhost:{ports[0]}",
        https=f"https://localhost:{ports[1]}",
        daemon_port=ports[2],
        tls=ssl.create_default_context(cafile=pem),
    )


def arguments(site: Site) -> list[str]:
    """Return how nginx is called, by whomever these tests run as: one process, that leaves none behind when killed."""
    return [
        "-e",
        "stderr",
        "-p",
        str(site.file.parent),
        "-c",
        str(site.file),
        "-g",
        "daemon off; master_process off;",
    ]


@pytest.fixture
async def serving(
    cli: Any,
    site: Site,
    program: Callable[[str], str],
    exchange: BinanceFake,
    eventually: Callable[..., Awaitable[None]],
) -> AsyncIterator[tuple[Any, Any]]:
    """Start the daemon, and nginx before it; return both."""
    path = cli.config(CONFIG.format(port=site.daemon_port))
    daemon = await cli.start("run", "--config", path)
    nginx = await cli.program(program("nginx"), *arguments(site))
    await daemon.binds()

    def up() -> bool:
        try:
            return httpx.get(f"{site.http}/nginx-health").text == "healthy\n"
        except httpx.TransportError:
            return False

    await eventually(up)
    yield daemon, nginx
    nginx.process.send_signal(signal.SIGTERM)
    await nginx.ended()


def test_nginx_and_its_linter_accept_it_and_would_not_accept_anything(
    site: Site, program: Callable[[str], str], lint: Callable[..., tuple[int, str]]
) -> None:
    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program("nginx"), "-t", *arguments(site)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    done = check()
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr
    code, said = lint("gixy", site.file)
    assert code == 0, said
    proxy = site.file.parent / "pricefeedd" / "proxy.conf"
    text = proxy.read_text()
    proxy.write_text(text.replace("Host $host;", "Host $http_host;"))
    code, said = lint("gixy", site.file)
    assert code != 0
    assert "host_spoofing" in said
    proxy.write_text(text.replace("proxy_buffering off", "proxy_bufering off"))
    assert "unknown directive" in check().stderr


def lateness(site: Site) -> list[int]:
    """Return how late each of 20 trades comes as Server-Sent Events, µs."""
    late: list[int] = []
    url = f"{site.https}/api/v1/stream?topics=trade:*:*&snapshot=false"
    with httpx.stream("GET", url, verify=site.tls, timeout=10) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in response.headers
        for line in response.iter_lines():
            if line.startswith("data: ") and '"type":"trade"' in line:
                late.append(time.time_ns() // 1000 - orjson.loads(line[6:])["ts_recv"])
                if len(late) == 20:
                    return late
    raise AssertionError("the stream ended")


async def test_streams_pass_at_once_and_outlive_a_restart_of_the_daemon(
    cli: Any, site: Site, serving: tuple[Any, Any]
) -> None:
    daemon, _ = serving
    async with site.client() as client:
        late_us = await trio.to_thread.run_sync(lateness, site)
        # Buffered they come in heaps, a second and more late.
        assert sorted(late_us)[10] < 300_000
        url = site.https.replace("http", "ws", 1) + "/ws"
        with trio.fail_after(60):
            async with connect(url, tls=site.tls, first_delay_s=0.1, max_delay_s=0.5) as feed:
                assert all(result["ok"] for result in await feed.subscribe(["trade:*:*", "book:*:*"]))
                for _ in range(50):
                    assert not isinstance(await anext(feed), Missed)
                assert (await daemon.end()).code == 0
                assert (await client.get("/health")).status_code == 502
                daemon = await cli.start("run", "--config", cli.folder / "pricefeedd.toml")
                kinds = set()
                async for update in feed:
                    kinds.add(type(update))
                    if update.event is not None and EpochChanged in kinds:
                        break
                assert Disconnected in kinds
        assert (await client.get("/health")).status_code == 200


def answers(site: Site, count: int) -> list[int]:
    """Return the codes of so many requests that are sent at once, on one connection."""
    port = int(site.https.rpartition(":")[2])
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        socket.create_connection(("localhost", port), timeout=30) as plain,
        site.tls.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(request * (count - 1) + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        said = b"".join(iter(lambda: secure.recv(65536), b""))
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+)", said)]


async def test_the_load_test_and_what_is_kept_from_the_public(
    cli: Any, site: Site, serving: tuple[Any, Any]
) -> None:
    _, nginx = serving
    url = site.https.replace("http", "ws", 1) + "/ws"
    command = ("--url", url, "--connections", "5", "--duration", "1.5", "--json")
    trust = {"SSL_CERT_FILE": str(site.file.parent / "tls.pem")}
    ended = await (await cli.python(LOAD_TEST, *command, environ=trust)).ended(within_s=40)
    found = orjson.loads(ended.out)
    assert (ended.code, found["connected"], found["lost"]) == (0, 5, 0), ended.out + ended.err
    assert found["messages"] > 50
    async with site.client() as client:
        assert (await client.get("/metrics")).status_code == 403
        ready = await client.get("/ready?api_key=never-in-a-log")
        assert ready.status_code == 200
        assert ready.headers["strict-transport-security"]
        page = await client.get("/")
        assert page.headers["content-encoding"] == "gzip"
        # Without keys, changes are for programs of the daemon's own machine, and the proxy's requests are none.
        wanted = {
            "venue": "binance",
            "channel_type": "trades",
            "symbol": "BTCUSDT",
            "requesting_service": "test",
        }
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}):
            refused = await client.post("/api/v1/subscriptions", json=wanted, headers=headers)
            assert refused.status_code == 403
            assert refused.json()["code"] == "FORBIDDEN"
        moved = await client.get(f"{site.http}/api/v1/latest?topics=trade:*:*")
        assert moved.status_code == 308
        assert moved.headers["location"] == "https://localhost/api/v1/latest?topics=trade:*:*"
        codes = await trio.to_thread.run_sync(answers, site, 400)
        assert set(codes) == {200, 429}
        assert codes.index(429) > 50
    assert '"GET /ready" 200' in nginx.out
    assert "never-in-a-log" not in nginx.out + nginx.err
