"""A daemon's edge on real sockets, and an independent client for it."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pricefeedd.accounts.keeper import Accounts
from pricefeedd.bus import Bus
from pricefeedd.config import AccountConfig, Config, VenueConfig
from pricefeedd.demand import Demands
from pricefeedd.events import Quote, State, Status, Trade
from pricefeedd.explain.assembly import explain
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, Kind, spell
from pricefeedd.offer import Offer
from pricefeedd.registry import Registry
from pricefeedd.reload import Reloader
from pricefeedd.stats import Stats
from pricefeedd.store.archive import Archive
from pricefeedd.web.app import WebApp, create_app
from pricefeedd.web.daemon import Limits
from pricefeedd.web.listen import serve
from pricefeedd_bybit.venue import bybit


@attrs.frozen(kw_only=True)
class KeySettings:
    name: str
    key: str
    scopes: tuple[str, ...] = ("read",)


@attrs.frozen(kw_only=True)
class TlsSettings:
    certfile: str
    keyfile: str


@attrs.define(kw_only=True)
class WebSettings:
    listen: tuple[str, ...] = ("127.0.0.1:0",)
    admin_listen: tuple[str, ...] = ()
    root_dialect: str = "native"
    max_clients: int = 10_000
    client_queue_bytes: int = 2_097_152
    heartbeat_s: float = 15.0
    allowed_origins: tuple[str, ...] = ()
    public_read: bool = True
    compression: bool = False
    keys: tuple[KeySettings, ...] = ()
    tls: TlsSettings | None = None


@attrs.define(kw_only=True)
class MetricsSettings:
    compat: bool = False


@attrs.define(kw_only=True)
class Settings:
    web: WebSettings
    venues: dict[str, VenueConfig] = attrs.field(factory=dict)
    metrics: MetricsSettings = attrs.field(factory=MetricsSettings)


@attrs.define(kw_only=True)
class Plugin:
    name: str
    status: str
    reason: str


async def _follow(_: Any) -> None:
    """Change nothing."""


class Daemon:
    """What the web layer sees of the daemon, with nothing behind it."""

    def __init__(self, **web: Any) -> None:
        self.config = Settings(web=WebSettings(**web))
        self.bus = Bus("epoch1")
        self.directory = Directory()
        self.stats = Stats(started_ns=time.time_ns())
        self.plugins = [Plugin(name="binance", status="loaded", reason="")]
        self.epoch = self.bus.epoch
        self.now_ns = time.time_ns
        self.offers: dict[str, Offer] = {}
        self.subscriptions = Registry(self.offers, self.bus, now_ns=self.now_ns)
        self.archive = Archive(Config(), self.bus, self.directory, {}, now_ns=self.now_ns)
        self.facts: dict[str, Any] = {}
        self.runtimes: dict[str, Any] = {}
        self.sinks: dict[str, Any] = {}
        self.accounts = Accounts({}, {})
        self.inlet = None
        self.standby = ""
        self.reloader = Reloader(cast("Any", None), _follow, None)

    def describe(self) -> dict[str, Any]:
        return self.facts

    def explain(self, topic: str) -> dict[str, Any]:
        return explain(topic, cast("Any", self))

    def demand(self, channel: str, venue: str, instrument: str) -> None:
        """Bring nothing: there are no venues behind it."""

    def offer_bybit(self, *loaded: str) -> Demands:
        """Offer Bybit to services, with an account, and one instrument in the markets whose list is loaded."""
        account = AccountConfig(api_key="key", api_secret="secret", channels=("order",))
        config = VenueConfig(name="bybit", plugin="bybit", accounts={"main": account})
        demands = Demands(config, self.bus)
        self.offers["bybit"] = Offer(bybit(), config, demands)
        for market in loaded:
            kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
            quote = "USD" if market == "inverse" else "USDT"
            listed = Instrument(
                venue="bybit",
                market=market,
                name=spell("BTC", quote, kind),
                symbol=f"BTC{quote}",
                kind=kind,
                base="BTC",
                quote=quote,
            )
            demands.know(InstrumentMap("bybit", market, [listed]))
        return demands

    def list_instruments(self) -> None:
        """Fill the directory with a few instruments of Binance."""
        for market, kind in (("spot", Kind.SPOT), ("linear", Kind.PERPETUAL)):
            tail = "-PERP" if kind is Kind.PERPETUAL else ""
            bases = ("BTC", "ETH", "SOL") if market == "spot" else ("BTC", "DOGE")
            rows = [
                Instrument(
                    venue="binance",
                    market=market,
                    name=f"{base}-USDT{tail}",
                    symbol=f"{base}USDT",
                    kind=kind,
                    base=base,
                    quote="USDT",
                )
                for base in bases
            ]
            self.directory.put(InstrumentMap("binance", market, rows))

    def trade(self, count: int = 1, instrument: str = "BTC-USDT", *, pad: str = "") -> None:
        """Publish trades, one batch for all."""
        now = time.time_ns()
        self.bus.publish(
            Trade(
                venue="binance",
                instrument=instrument,
                venue_time_ns=now,
                received_ns=now,
                id=f"{i}{pad}",
                price="65000.10",
                size="0.5",
                aggressor=None,
            )
            for i in range(count)
        )

    def quote(self, bid: str, instrument: str = "BTC-USDT") -> None:
        self.bus.publish(
            [
                Quote(
                    venue="binance",
                    instrument=instrument,
                    received_ns=time.time_ns(),
                    bid_price=bid,
                    bid_size="1",
                    ask_price="2",
                    ask_size="1",
                )
            ]
        )

    def status(self, state: State, channel: str = "trade") -> None:
        self.bus.publish(
            [
                Status(
                    venue="binance",
                    instrument="BTC-USDT",
                    received_ns=time.time_ns(),
                    topic_channel=channel,
                    state=state,
                    reason="test",
                )
            ]
        )


@attrs.define
class Web:
    """A served daemon."""

    daemon: Daemon
    app: WebApp
    binds: list[str]
    stop: trio.Event
    stopped: trio.Event

    @property
    def http(self) -> str:
        return self.binds[0]

    @property
    def ws(self) -> str:
        return self.binds[0].replace("http", "ws", 1) + "/ws"


class Client:
    """`websockets`' own client, in a thread for each call."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: object) -> None:
        text = message if isinstance(message, str | bytes | list) else json.dumps(message)
        await trio.to_thread.run_sync(self.connection.send, text)

    async def receive(self, within_s: float = 10.0) -> Any:
        return json.loads(await trio.to_thread.run_sync(partial(self.connection.recv, within_s)))

    async def until(self, *kinds: str) -> Any:
        while True:
            message = await self.receive()
            if message["type"] in kinds:
                return message

    async def ask(self, message: dict[str, Any]) -> Any:
        await self.send(message)
        return await self.until("ack", "error", "pong")

    async def close(self) -> None:
        await trio.to_thread.run_sync(self.connection.close)

    async def closed(self) -> tuple[int, str]:
        """Read on until the connection ends; return the close code and reason."""

        def drain() -> None:
            for _ in self.connection:
                pass

        await trio.to_thread.run_sync(self._quietly, drain)
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""

    @staticmethod
    def _quietly(drain: Callable[[], None]) -> None:
        with suppress(ConnectionClosed):
            drain()


def masked(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    size_bytes: int | None = None,
    declared: int | None = None,
) -> bytes:
    """Return a frame as a client sends it, or as it should not.

    Args:
        mask: None leaves the payload unmasked.
        size_bytes: Writes the length in so many extra bytes, 0, 2 or 8, where fewer would do.
        declared: The length that the header claims.
    """
    size = len(payload) if declared is None else declared
    if size_bytes is None:
        size_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    short = {0: size, 2: 126, 8: 127}[size_bytes]
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    head += size.to_bytes(size_bytes) if size_bytes else b""
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Raw:
    """A WebSocket client that sends any bytes and sees every frame."""

    KEY = b"dGhlIHNhbXBsZSBub25jZQ=="

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ended = False
        self._data = bytearray()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def open(self, path: str = "/ws", **headers: str) -> dict[str, str]:
        """Open the WebSocket; return the headers of the answer, with its status as ":status"."""
        wanted = {
            "Host": "x",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self.KEY.decode(),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in wanted.items()), "", ""]
        await self.send("\r\n".join(lines).encode())
        return await self.head()

    async def head(self) -> dict[str, str]:
        """Read the head of an HTTP response."""
        while b"\r\n\r\n" not in self._data and await self._more():
            pass
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self._data[:] = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return found | {":status": first.split(" ")[1] if " " in first else ""}

    async def frame(self) -> tuple[int, bytes] | None:
        """Return the first byte and the payload of the next frame; None at the end."""
        while True:
            data = self._data
            if len(data) >= 2:
                start = 2 + {126: 2, 127: 8}.get(data[1], 0)
                size = int.from_bytes(data[2:start]) if start > 2 else data[1]
                if len(data) >= start + size:
                    payload = bytes(data[start : start + size])
                    first = data[0]
                    del data[: start + size]
                    return first, payload
            if not await self._more():
                assert not data, f"the connection ended within a frame: {bytes(data)!r}"
                return None

    async def json(self) -> Any:
        """Return the next text message."""
        found = await self.frame()
        assert found is not None
        assert found[0] == 0x81, found
        return json.loads(found[1])

    async def until(self, *kinds: str) -> Any:
        """Return the next message of one of these types."""
        while (message := await self.json())["type"] not in kinds:
            pass
        return message

    async def ask(self, message: dict[str, Any]) -> Any:
        await self.send(masked(1, json.dumps(message).encode()))
        return await self.until("ack", "error", "pong")

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            data = b""
        self._data += data
        self.ended = not data
        return bool(data)


async def eventually(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait until the condition holds: what the other end of a socket brings about has no event here."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110  # see above
            await trio.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Return `eventually`."""
    return eventually


@pytest.fixture
def web_key() -> type[KeySettings]:
    """Return the class of a key."""
    return KeySettings


@pytest.fixture
def web_tls() -> type[TlsSettings]:
    """Return the class of `[web.tls]`."""
    return TlsSettings


@pytest.fixture
def self_signed(tmp_path: Path) -> TlsSettings:
    """Return `[web.tls]` with a certificate for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return TlsSettings(certfile=str(cert), keyfile=str(key))


@pytest.fixture
async def start_web(nursery: trio.Nursery) -> Callable[..., Awaitable[Web]]:
    """Return a function that serves a daemon: `await start_web(limits=Limits(...), max_clients=2)`."""

    async def start(*, limits: Limits | None = None, grace_s: float = 5.0, **web: Any) -> Web:
        daemon = Daemon(**web)
        app = create_app(daemon, limits)
        stop, stopped = trio.Event(), trio.Event()

        async def run(task_status: trio.TaskStatus[list[str]]) -> None:
            settings = daemon.config.web
            await serve(
                app,
                listen=settings.listen,
                admin_listen=settings.admin_listen,
                tls=settings.tls,
                max_clients=lambda: settings.max_clients,
                compression=settings.compression,
                grace_s=grace_s,
                shutdown=stop.wait,
                task_status=task_status,
            )
            stopped.set()

        nursery.start_soon(daemon.reloader.run)
        binds = await nursery.start(run)
        return Web(daemon, app, binds, stop, stopped)

    return start


@pytest.fixture
async def open_client() -> Any:
    """Return a function that connects a client; all are closed at the end."""
    with ExitStack() as opened:

        async def open_(url: str, **options: Any) -> Client:
            options = {"max_size": None, "ping_interval": None, "close_timeout": 1, **options}

            def enter() -> ClientConnection:
                connection: ClientConnection = opened.enter_context(connect(url, **options))
                opened.callback(_cut, connection)
                return connection

            return Client(await trio.to_thread.run_sync(enter))

        yield open_


@pytest.fixture
async def open_raw() -> Any:
    """Return a function that connects a `Raw` to a bind of ours, without a handshake: `await open_raw(web.http)`."""
    opened: list[trio.abc.Stream] = []

    async def open_(bind: str, *, cafile: str | None = None) -> Raw:
        stream: trio.abc.Stream
        if bind.startswith("unix:"):
            stream = await trio.open_unix_socket(bind.removeprefix("unix:"))
        else:
            host, _, port = bind.partition("://")[2].rpartition(":")
            plain = await trio.open_tcp_stream(host.strip("[]"), int(port))
            stream = plain
            if cafile is not None:
                trusted = ssl.create_default_context(cafile=cafile)
                stream = trio.SSLStream(plain, trusted, server_hostname=host, https_compatible=True)
        opened.append(stream)
        return Raw(stream)

    yield open_
    for stream in opened:
        await trio.aclose_forcefully(stream)


@pytest.fixture
def raw_frame() -> Callable[..., bytes]:
    """Return `masked`."""
    return masked


def _cut(connection: ClientConnection) -> None:
    """End a connection without ceremony: at the end of a test nobody may be there to answer."""
    with suppress(OSError):  # it may be closed already
        connection.socket.shutdown(socket.SHUT_RDWR)
    connection.recv_events_thread.join(5)
