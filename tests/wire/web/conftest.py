"""A daemon's edge on real sockets, and an independent client for it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pricefeedd.bus import Bus
from pricefeedd.events import Quote, State, Status, Trade
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, Kind
from pricefeedd.stats import Stats
from pricefeedd.web.app import WebApp, create_app
from pricefeedd.web.daemon import Limits
from pricefeedd.web.listen import serve


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
class Settings:
    web: WebSettings


@attrs.define(kw_only=True)
class Plugin:
    name: str
    status: str
    reason: str


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
        self.facts: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        return self.facts

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
                max_clients=settings.max_clients,
                grace_s=grace_s,
                shutdown=stop.wait,
                task_status=task_status,
            )
            stopped.set()

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


def _cut(connection: ClientConnection) -> None:
    """End a connection without ceremony: at the end of a test nobody may be there to answer."""
    with suppress(OSError):  # it may be closed already
        connection.socket.shutdown(socket.SHUT_RDWR)
    connection.recv_events_thread.join(5)
