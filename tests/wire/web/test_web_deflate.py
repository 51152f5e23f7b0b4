"""permessage-deflate, seen by an independent client and by raw frames."""

from __future__ import annotations

import json
import ssl
import zlib
from pathlib import Path
from typing import Any

import pytest
import trio

from pricefeedd.web.deflate import ANSWER

OFFER = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}
TRADES = {"op": "subscribe", "topics": ["trade:*:*"]}


def _squeezed(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _read(frame: tuple[int, bytes]) -> Any:
    """Return a message, each inflated by itself."""
    first, payload = frame
    if first == 0xC1:
        payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
    else:
        assert first == 0x81
    return json.loads(payload)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_library_that_compresses(
    tls: bool, start_web: Any, open_client: Any, request: pytest.FixtureRequest
) -> None:
    options: dict[str, Any] = {}
    if tls:
        options["tls"] = request.getfixturevalue("self_signed")
    web = await start_web(compression=True, **options)
    web.daemon.trade(2)
    trusted = {"ssl": ssl.create_default_context(cafile=options["tls"].certfile)} if tls else {}
    client = await open_client(web.ws, compression="deflate", **trusted)
    extensions = client.connection.protocol.extensions
    assert [type(one).__name__ for one in extensions] == ["PerMessageDeflate"]
    assert (await client.receive())["type"] == "welcome"
    # Long enough that the library compresses it.
    ack = await client.ask({"op": "subscribe", "id": "x" * 150, "topics": ["trade:*:*"] * 20})
    assert ack["id"] == "x" * 150
    assert (await client.until("trade"))["seq"] == 2
    web.daemon.trade(200)
    web.daemon.trade(50, pad="€" * 300)
    messages = [await client.until("trade") for _ in range(250)]
    assert [message["seq"] for message in messages] == list(range(3, 253))
    assert messages[-1]["data"]["id"] == "49" + "€" * 300
    pong = await trio.to_thread.run_sync(client.connection.ping, b"plain")
    assert await trio.to_thread.run_sync(pong.wait, 5)
    web.stop.set()
    assert (await client.until("bye"))["code"] == 4001
    assert (await client.closed())[0] == 4001


async def test_readers_of_both_kinds_share_their_bytes(start_web: Any, open_raw: Any, until: Any) -> None:
    web = await start_web(compression=True)
    plain, *small = [await open_raw(web.http) for _ in range(3)]
    assert "sec-websocket-extensions" not in await plain.open()
    for raw in small:
        assert (await raw.open(**OFFER))["sec-websocket-extensions"] == ANSWER
    frames: list[list[tuple[int, bytes]]] = []
    for raw in (plain, *small):
        await raw.frame()
        await raw.send(_masked_text(TRADES))
        await raw.frame()
    web.daemon.trade(5, pad="y" * 200)
    for raw in (plain, *small):
        frames += [[await raw.frame() for _ in range(5)]]
    assert frames[1] == frames[2]
    assert all(first == 0x81 for first, _ in frames[0])
    assert all(first == 0xC1 for first, _ in frames[1])
    assert [_read(frame) for frame in frames[1]] == [_read(frame) for frame in frames[0]]
    assert sum(len(data) for _, data in frames[1]) < 0.6 * sum(len(data) for _, data in frames[0])


async def test_it_is_refused_unless_configured(start_web: Any, open_raw: Any, open_client: Any) -> None:
    web = await start_web()
    raw = await open_raw(web.http)
    assert "sec-websocket-extensions" not in await raw.open(**OFFER)
    client = await open_client(web.ws, compression="deflate")
    assert client.connection.protocol.extensions == []
    assert (await client.receive())["type"] == "welcome"


def _masked_text(message: dict[str, Any]) -> bytes:
    data = json.dumps(message).encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data)]) + bytes(4) + data


ASK = b'{"op":"ping","id":7}'
BOMB = _squeezed(bytes(64 << 20))


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        ([(1, _squeezed(ASK), True, 4)], "pong"),
        ([(1, ASK, True, 0)], "pong"),
        ([(1, _squeezed(ASK)[:5], False, 4), (0, _squeezed(ASK)[5:], True, 0)], "pong"),
        ([(1, _squeezed(ASK)[:5], False, 4), (9, b"!", True, 0), (0, _squeezed(ASK)[5:], True, 0)], "pong"),
        ([(1, b"", False, 4), (0, _squeezed(ASK), False, 0), (0, b"", True, 0)], "pong"),
        ([(1, _squeezed(ASK), True, 4), (1, _squeezed(ASK), True, 4)], "pong"),
        ([(1, _squeezed(ASK.ljust(65_536)), True, 4)], "pong"),
        ([(1, _squeezed(ASK.ljust(65_537)), True, 4)], 1009),
        ([(1, BOMB[:65_000], True, 4)], 1009),
        ([(1, BOMB[:100], False, 4), (0, BOMB[100:60_000], True, 0)], 1009),
        ([(1, b"\xff\xff\xff\xff", True, 4)], 1007),
        ([(1, _squeezed(b"\xff\xfe"), True, 4)], 1007),
        ([(1, _squeezed(ASK)[:5], False, 4), (0, _squeezed(ASK)[5:], True, 4)], 1002),
        ([(9, b"!", True, 4)], 1002),
        ([(1, _squeezed(ASK), True, 6)], 1002),
    ],
)
async def test_what_clients_compress(
    frames: list[tuple[int, bytes, bool, int]],
    wanted: str | int,
    start_web: Any,
    open_raw: Any,
    raw_frame: Any,
) -> None:
    web = await start_web(compression=True)
    raw = await open_raw(web.http)
    await raw.open(**OFFER)
    assert _read(await raw.frame())["type"] == "welcome"
    before = _rss()
    for opcode, data, fin, rsv in frames:
        await raw.send(raw_frame(opcode, data, fin=fin, rsv=rsv))
    with trio.fail_after(5):
        first, payload = await raw.frame()
        while first == 0x8A:
            first, payload = await raw.frame()
        if isinstance(wanted, int):
            assert (first, int.from_bytes(payload[:2])) == (0x88, wanted)
            assert await raw.frame() is None
        else:
            assert _read((first, payload))["type"] == wanted
    assert _rss() - before < 8 << 20


async def test_a_bomb_in_many_frames_is_stopped(start_web: Any, open_raw: Any, raw_frame: Any) -> None:
    """Small frames that each inflate to much: the bound is on the message, and the connection ends at once."""
    web = await start_web(compression=True)
    raw = await open_raw(web.http)
    await raw.open(**OFFER)
    await raw.frame()
    parts = [BOMB[i : i + 50] for i in range(0, 2500, 50)]
    head, *rest = parts
    await raw.send(
        raw_frame(1, head, fin=False, rsv=4) + b"".join(raw_frame(0, part, fin=False) for part in rest)
    )
    first, payload = await raw.frame()
    assert (first, payload[:2]) == (0x88, (1009).to_bytes(2))


async def test_a_reader_costs_no_compressor(start_web: Any, open_raw: Any) -> None:
    """A compressor is 256 kB: none may stay with a connection. The bound leaves room for the allocator's moods."""
    web = await start_web(compression=True)
    web.daemon.trade()

    async def cost(count: int, **headers: str) -> float:
        before = _rss()
        for _ in range(count):
            raw = await open_raw(web.http)
            await raw.open(**headers)
            await raw.frame()
            await raw.send(_masked_text(TRADES))
            web.daemon.trade()
            await raw.frame()
        return (_rss() - before) / count

    await cost(50, **OFFER)  # what is allocated once
    plain = await cost(100)
    compressed = await cost(100, **OFFER)
    assert compressed < plain + 80_000


def _rss() -> int:
    """Return the memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
