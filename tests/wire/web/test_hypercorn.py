"""What we lean on inside of hypercorn is pinned, and where it is another the ordinary way serves."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WebsocketBuffer, WSStream
from hypercorn.trio.tcp_server import TCPServer

from pricefeedd.web import hyper, listen, rehearsal
from pricefeedd.web.daemon import Limits

WARNING = "hypercorn is not as known, readers are served slowly"
PARTS = [(owner, name) for owner, name, _ in hyper._KNOWN]


def _warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == WARNING]


@pytest.fixture
def other_hypercorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the installed hypercorn one that lacks a part."""
    monkeypatch.setattr(hyper, "missing_parts", lambda: ["H11Protocol._create_stream"])


# --- what is pinned -----------------------------------------------------------------------------------------


async def test_hypercorn_is_as_we_know_it() -> None:
    """If this fails, see what the new version changed and mend `hyper`."""
    assert hyper.missing_parts() == []
    assert await rehearsal.rehearse(listen._config()) is None


def test_it_is_named_in_one_module() -> None:
    """Only `hyper` imports from inside of hypercorn; its public names are `hypercorn.trio` and `hypercorn.config`."""
    package = Path(hyper.__file__).parents[1]
    inside = {
        path.name
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith(("from hypercorn.", "import hypercorn."))
        and not line.startswith(("from hypercorn.config import", "import hypercorn.trio"))
    }
    assert inside == {"hyper.py"}


@pytest.mark.parametrize(("owner", "name"), PARTS, ids=[f"{o.__name__}.{n}" for o, n in PARTS])
def test_a_part_that_was_renamed_or_changed_is_noticed(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in vars(owner) and not name.startswith("__"):
        monkeypatch.delattr(owner, name)
        assert hyper.missing_parts() == [f"{owner.__name__}.{name}"]
        monkeypatch.undo()

    def changed(self: object, new: object) -> None: ...

    monkeypatch.setattr(owner, name, changed)
    assert hyper.missing_parts() == [f"{owner.__name__}.{name}(self, new)"]


async def test_a_change_that_keeps_the_names_fails_the_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(self: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(rehearsal, "_WITHIN_S", 0.2)
    monkeypatch.setattr(TCPServer, "_read_data", deaf)
    why = await rehearsal.rehearse(listen._config())
    assert why is not None
    assert "rehearsal failed: TooSlowError" in why


async def test_what_breaks_in_the_rehearsal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, event: object) -> None:
        raise KeyError("moved")

    monkeypatch.setattr(H11Protocol, "handle", broken)
    assert await rehearsal.rehearse(listen._config()) == "a rehearsal failed: KeyError('moved')"


async def test_a_rehearsal_costs_little() -> None:
    await rehearsal.rehearse(listen._config())
    began = trio.current_time()
    await rehearsal.rehearse(listen._config())
    assert trio.current_time() - began < 0.5  # 3 ms in truth; the machine may be busy


def test_behaviour_that_no_signature_shows() -> None:
    """The buffer counts what it holds, and a stream is idle only when closed: `hyper` relies on both."""
    buffer = WebsocketBuffer(10)
    assert (buffer.value, buffer.length, buffer.max_length) == (None, 0, 10)
    stream = WSStream.__new__(WSStream)
    stream.state = ASGIWebsocketState.CONNECTED
    assert not stream.idle


# --- the ordinary way ---------------------------------------------------------------------------------------


async def test_a_hypercorn_without_our_modules_is_served_too(
    start_web: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "pricefeedd.web.hyper")
    monkeypatch.delattr(sys.modules["pricefeedd.web"], "hyper")
    monkeypatch.setitem(sys.modules, "hypercorn.trio.tcp_server", None)  # to import it is an error
    web = await start_web()
    monkeypatch.undo()
    client = await open_client(web.ws)
    assert (await client.receive())["type"] == "welcome"
    (warning,) = _warnings(caplog)
    assert "hypercorn.trio.tcp_server" in warning.__dict__["reason"]


async def test_one_that_fails_the_rehearsal_is_served_too(
    start_web: Any, open_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(config: object) -> str:
        return "a rehearsal failed: KeyError('moved')"

    monkeypatch.setattr(rehearsal, "rehearse", fails)
    web = await start_web()
    client = await open_client(web.ws)
    assert (await client.receive())["type"] == "welcome"
    (warning,) = _warnings(caplog)
    assert warning.__dict__["reason"] == "a rehearsal failed: KeyError('moved')"


async def test_the_ordinary_way_warns_once_and_serves(
    other_hypercorn: None, start_web: Any, open_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    web = await start_web(admin_listen=("127.0.0.1:0",), heartbeat_s=0.2)
    web.daemon.trade(3)
    clients = [await open_client(web.ws) for _ in range(3)]
    for client in clients:
        assert (await client.receive())["type"] == "welcome"
        await client.send({"op": "subscribe", "topics": ["trade:*:*"]})
        assert (await client.until("trade"))["seq"] == 3
    for _ in range(10):
        web.daemon.trade(5, pad="x" * 30_000)
    for client in clients:
        seqs = [(await client.until("trade"))["seq"] for _ in range(50)]
        assert seqs == list(range(4, 54))
        assert (await client.until("heartbeat"))["seq"] == {"trade:binance:BTC-USDT": 53}
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{web.binds[0]}/metrics")).status_code == 404
        assert (await http.get(f"{web.binds[1]}/metrics")).status_code == 200
    web.stop.set()
    for client in clients:
        assert (await client.until("bye"))["code"] == 4001
        assert (await client.closed())[0] == 4001
    with trio.fail_after(9):
        await web.stopped.wait()
    assert len(_warnings(caplog)) == 1


async def test_replies_do_not_lie_in_the_ordinary_way(
    other_hypercorn: None, start_web: Any, open_raw: Any, raw_frame: Any
) -> None:
    """Two requests at once are both answered, with nothing else to send: who drains looks again before it stops."""
    web = await start_web()

    async def ask() -> None:
        raw = await open_raw(web.http)
        await raw.open()
        await raw.json()
        await raw.send(raw_frame(1, b'{"op":"ping","id":1}') + raw_frame(1, b'{"op":"ping","id":2}'))
        assert [(await raw.json())["id"] for _ in range(2)] == [1, 2]

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)


async def test_the_ordinary_way_closes_who_does_not_read(
    other_hypercorn: None, start_web: Any, open_raw: Any, raw_frame: Any, until: Any
) -> None:
    web = await start_web(limits=Limits(stall_s=0.3, goodbye_s=0.3), client_queue_bytes=100_000)
    web.daemon.trade()
    slow, quick = await open_raw(web.http), await open_raw(web.http)
    for raw in (slow, quick):
        await raw.open()
        assert (await raw.ask({"op": "subscribe", "topics": ["trade:*:*"]}))["type"] == "ack"
    seqs: list[int] = []

    async def read() -> None:
        while True:
            seqs.append((await quick.until("trade"))["seq"])

    slow.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.fail_after(10):
            while len(web.app.readers) == 2:
                web.daemon.trade(2, pad="x" * 20_000)
                await trio.sleep(0.005)
        last = len(seqs)
        web.daemon.trade()
        await until(lambda: len(seqs) > last)
        nursery.cancel_scope.cancel()
    first = seqs[0]  # a snapshot is of the moment when it leaves
    assert seqs == list(range(first, first + len(seqs)))


async def test_the_ordinary_way_over_tls(
    other_hypercorn: None, start_web: Any, open_raw: Any, self_signed: Any
) -> None:
    web = await start_web(tls=self_signed)
    assert web.http.startswith("https://")
    web.daemon.trade()
    raw = await open_raw(web.http, cafile=self_signed.certfile)
    await raw.open()
    await raw.ask({"op": "subscribe", "topics": ["trade:*:*"]})
    assert (await raw.until("trade"))["seq"] == 1
    web.daemon.trade(5)
    assert [(await raw.until("trade"))["seq"] for _ in range(5)] == [2, 3, 4, 5, 6]
    web.stop.set()
    assert (await raw.until("bye"))["code"] == 4001
    await trio.aclose_forcefully(raw.stream)
    with trio.fail_after(9):
        await web.stopped.wait()
