"""What comes back for each kind of frame and handshake that RFC 6455 allows or forbids, on every way of serving."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing

from pricefeedd.web import hyper, listen
from pricefeedd.web.daemon import Limits

TOPIC = "trade:*:*"

#: Continuation, text, binary, close, ping, pong.
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: A request, and what is answered.
ASK = b'{"op":"ping","id":7}'
ANSWER = "pong message 7"

WIDE = '{"op":"ping","id":"κόσμε 𝄞"}'.encode()

#: The largest request that is allowed here.
MOST = 65_536

#: Why the ordinary way of serving differs from ours, which mends it.
NO_FRAME = "hypercorn ends a connection that broke the protocol without a close frame"
WAITS = "hypercorn waits for the whole message, up to a bound of its own of 1 MiB"


@attrs.frozen
class Row:
    """One exchange on an open connection.

    Attributes:
        sends: Each is sent by itself, in its own segment as far as that is in our hand.
        wanted: The frames that come back, as `_told` words them. After a "close" the connection must end;
            otherwise it must go on.
        ordinary: What hypercorn's ordinary way answers instead; None if it cannot be asked.
        why: The reason for that.
    """

    name: str
    sends: list[bytes]
    wanted: list[str]
    ordinary: list[str] | None = attrs.field(kw_only=True)
    why: str = attrs.field(default="", kw_only=True)

    @ordinary.default
    def _same(self) -> list[str] | None:
        return self.wanted


def _broken(name: str, sends: list[bytes], code: int = 1002, before: tuple[str, ...] = ()) -> Row:
    """A row whose frames break the protocol."""
    return Row(name, sends, [*before, f"close {code}"], ordinary=[*before, "end"], why=NO_FRAME)


def _close(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


def _pieces(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[i : i + size] for i in range(0, len(data), size)]


def _table(f: Callable[..., bytes]) -> list[Row]:
    """Return all rows; `f` makes a frame."""

    def fragments(parts: list[bytes], between: bytes = b"", opcode: int = TEXT) -> list[bytes]:
        last = len(parts) - 1
        return [
            f(opcode if i == 0 else CONT, part, fin=i == last) + (between if i < last else b"")
            for i, part in enumerate(parts)
        ]

    return [
        # --- messages and fragments
        *(Row(f"a text in {n} fragments", fragments(_pieces(ASK, n)), [ANSWER]) for n in (1, 2, 3, len(ASK))),
        Row("fragments in one segment", [b"".join(fragments(_pieces(ASK, 5)))], [ANSWER]),
        Row("empty fragments", fragments([b"", ASK[:4], b"", b"", ASK[4:], b""]), [ANSWER]),
        Row("an empty text", [f(TEXT)], ["error bad_json"]),
        Row("an empty text in empty fragments", fragments([b"", b"", b""]), ["error bad_json"]),
        Row(
            "control frames between fragments",
            fragments(_pieces(ASK, 3), between=f(PING, b"in") + f(PONG, b"x")),
            ["pong b'in'", "pong b'in'", ANSWER],
        ),
        Row(
            "several frames in one segment", [f(TEXT, ASK) * 3 + f(PING, b"4")], [*[ANSWER] * 3, "pong b'4'"]
        ),
        Row("a byte at a time", [bytes([b]) for b in f(TEXT, ASK) + f(PING, b"z")], [ANSWER, "pong b'z'"]),
        Row(
            "a long text a byte at a time in its header",
            [bytes([b]) for b in f(TEXT, ASK.ljust(70_000)[:MOST])[:14]] + [f(TEXT, ASK.ljust(MOST))[14:]],
            [ANSWER],
        ),
        Row("a mask of zeros", [f(TEXT, ASK, mask=b"\0\0\0\0")], [ANSWER]),
        Row("the largest message allowed", [f(TEXT, ASK.ljust(MOST))], [ANSWER]),
        Row("that in fragments", fragments(_pieces(ASK.ljust(MOST), 7)), [ANSWER]),
        Row("a length of 16 bits", [f(TEXT, ASK.ljust(126))], [ANSWER]),
        Row("binary", [f(BINARY, ASK)], ["bye message 4500", "close 4500"]),
        # --- ping and pong
        *(Row(f"a ping of {n}", [f(PING, b"p" * n)], [f"pong {b'p' * n!r}"]) for n in (0, 1, 124, 125)),
        Row("a ping of any bytes", [f(PING, bytes(range(125)))], [f"pong {bytes(range(125))!r}"]),
        Row("ten pings", [f(PING, b"%d" % i) for i in range(10)], [f"pong b'{i}'" for i in range(10)]),
        Row("a ping a byte at a time", [bytes([b]) for b in f(PING, b"slow")], ["pong b'slow'"]),
        Row("an unasked pong", [f(PONG), f(PONG, b"x" * 125)], []),
        _broken("a ping of 126", [f(PING, b"p" * 126)]),
        _broken("a pong of 126", [f(PONG, b"p" * 126)]),
        _broken("a ping in fragments", [f(PING, b"p", fin=False), f(CONT, b"q")]),
        _broken("a close in fragments", [f(CLOSE, _close(1000), fin=False)]),
        # --- headers
        _broken("an unmasked text", [f(TEXT, ASK, mask=None)]),
        _broken("an unmasked ping", [f(PING, b"", mask=None)]),
        _broken(
            "an unmasked text after a good one",
            [f(TEXT, ASK), f(TEXT, ASK, mask=None)],
            before=("?" + ANSWER,),
        ),
        *(
            _broken(f"reserved bits {rsv:03b} on {what}", [f(opcode, ASK, rsv=rsv)])
            for rsv in (1, 2, 3, 4, 5, 6, 7)
            for opcode, what in ((TEXT, "text"), (PING, "a ping"))
        ),
        _broken("reserved bits on a continuation", [f(TEXT, ASK[:3], fin=False), f(CONT, ASK[3:], rsv=4)]),
        _broken("reserved bits on a close", [f(CLOSE, _close(1000), rsv=2)]),
        *(_broken(f"opcode {n:X}", [f(n, b"x")]) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        _broken("an empty frame of opcode 3", [f(3)]),
        _broken("5 bytes in a length of 16 bits", [f(TEXT, b"12345", size_bytes=2)]),
        _broken("300 bytes in a length of 64 bits", [f(TEXT, b"1" * 300, size_bytes=8)]),
        _broken("a length with the top bit", [f(TEXT, declared=1 << 63)]),
        # --- UTF-8
        Row("UTF-8", [f(TEXT, WIDE)], ["pong message κόσμε 𝄞"]),
        Row("UTF-8 cut anywhere", fragments(_pieces(WIDE, len(WIDE))), ["pong message κόσμε 𝄞"]),
        *(
            _broken(f"bad UTF-8: {what}", [f(TEXT, bad)], 1007)
            for what, bad in (
                ("no start byte", b"\x80abc"),
                ("too long", b"\xc0\xaf"),
                ("a surrogate", b"\xed\xa0\x80"),
                ("beyond Unicode", b"\xf4\x90\x80\x80"),
                ("cut at the end", "κ".encode()[:1]),
                ("within", b'{"op":"\xff"}'),
            )
        ),
        _broken("bad UTF-8 in a later fragment", fragments([ASK, b"ok", b"\xff"]), 1007),
        _broken("bad UTF-8 before the message ends", [f(TEXT, b"a\xffb", fin=False)], 1007),
        _broken("a code point cut at the end of the last fragment", fragments([b"a", b"\xf0\x9d"]), 1007),
        # --- order of frames
        _broken("a continuation of nothing", [f(CONT, ASK)]),
        _broken("an unfinished continuation of nothing", [f(CONT, ASK, fin=False)]),
        _broken("a continuation after a whole text", [f(TEXT, ASK), f(CONT, b"x")], before=("?" + ANSWER,)),
        _broken("a text within a text", [f(TEXT, ASK[:4], fin=False), f(TEXT, ASK)]),
        _broken("a binary within a text", [f(TEXT, ASK[:4], fin=False), f(BINARY, ASK)]),
        # --- too large: told before the bytes are there
        *(
            Row(
                f"a declared length of {size}",
                [f(TEXT, declared=size)],
                ["bye message 4500", "close 4500"],
                ordinary=None,
                why=WAITS,
            )
            for size in (MOST + 1, 1 << 20, 1 << 40, (1 << 63) - 1)
        ),
        Row(
            "fragments that are too large together",
            [f(TEXT, b" " * 40_000, fin=False), f(PING, b"n"), f(CONT, declared=40_000, fin=False)],
            ["pong b'n'", "bye message 4500", "close 4500"],
            ordinary=None,
            why=WAITS,
        ),
        Row("a whole message too large", [f(TEXT, b" " * (MOST + 1))], ["bye message 4500", "close 4500"]),
        # --- close
        *(
            Row(f"close {code}", [f(CLOSE, _close(code))], [f"close {code}"])
            for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
        ),
        Row("close without a code", [f(CLOSE)], ["close"]),
        Row("close with words", [f(CLOSE, _close(1000, "good bye, κόσμε".encode()))], ["close 1000"]),
        Row("close with the longest words", [f(CLOSE, _close(1000, b"w" * 123))], ["close 1000"]),
        Row("data after close", [f(CLOSE, _close(1000)) + f(TEXT, ASK) + f(PING)], ["close 1000"]),
        Row("close twice", [f(CLOSE, _close(1000)) * 2], ["close 1000"]),
        Row("close within a message", [f(TEXT, ASK[:4], fin=False), f(CLOSE, _close(1001))], ["close 1001"]),
        Row("close a byte at a time", [bytes([b]) for b in f(CLOSE, _close(1000))], ["close 1000"]),
        Row(
            "a request and close at once",
            [f(TEXT, ASK) + f(CLOSE, _close(1000))],
            ["?" + ANSWER, "close 1000"],
        ),
        _broken("close with one byte", [f(CLOSE, b"\x03")]),
        _broken("close of 126 bytes", [f(CLOSE, _close(1000, b"w" * 124))]),
        *(
            _broken(f"close {code}", [f(CLOSE, _close(code))])
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
        ),
        _broken("close with bad UTF-8", [f(CLOSE, _close(1000, b"\xce\xba\xff"))], 1007),
        _broken("close with words cut short", [f(CLOSE, _close(1000, "κ".encode()[:1]))], 1007),
    ]


def _told(frame: tuple[int, bytes]) -> str:
    """Return a frame in words."""
    first, payload = frame
    if first == 0x80 | CLOSE:
        if payload:
            payload[2:].decode()
        return f"close {int.from_bytes(payload[:2])}" if payload else "close"
    if first == 0x80 | PONG:
        return f"pong {payload!r}"
    assert first == 0x80 | TEXT, f"an unexpected first byte {first:#x}"
    message = json.loads(payload)
    if message["type"] == "error":
        return f"error {message['error']['code']}"
    return f"{message['type']} message {message.get('code', message.get('id'))}"


async def _exchange(raw: Any, row: Row, f: Callable[..., bytes]) -> list[str]:
    """Carry out a row; return what came back. "end" stands for an end without a close frame."""
    assert (await raw.open())[":status"] == "101"
    assert (await raw.json())["type"] == "welcome"
    try:
        for data in row.sends:
            await raw.send(data)
            await trio.lowlevel.checkpoint()
        if not any(told.startswith("close") for told in row.wanted):
            await raw.send(f(TEXT, b'{"op":"ping","id":"still there"}'))
    except trio.BrokenResourceError:
        pass  # it has had enough; what it said before is read below
    found: list[str] = []
    while (frame := await raw.frame()) is not None:
        told = _told(frame)
        if told == "pong message still there":
            return found
        found.append(told)
        if told == "close 4500":
            with trio.move_on_after(1):
                await raw.send(f(CLOSE, _close(4500)))
    return found if found and found[-1].startswith("close") else [*found, "end"]


def _fits(found: list[str], wanted: list[str]) -> bool:
    """Return whether that is what was wanted.

    A close comes last. What is answered to requests keeps its order, and so do pongs; the two may overtake each other.
    What begins with "?" may be missing: the end of the connection can be quicker than the answer.
    """

    def parted(told: list[str]) -> tuple[list[str], ...]:
        pongs = [one for one in told if one.startswith("pong b'")]
        return pongs, [one for one in told if one not in pongs], told[-1:] if "close" in "".join(told) else []

    must = [told for told in wanted if not told.startswith("?")]
    may = [told.removeprefix("?") for told in wanted]
    return parted(found) in (parted(must), parted(may))


async def _bind(
    way: str, start_web: Any, folder: Path, request: pytest.FixtureRequest
) -> tuple[Any, str, Any]:
    """Serve in one of the ways; return the server, where it listens, and the certificate to trust."""
    if way == "unix":
        web = await start_web(listen=(f"unix:{folder}/s",))
        return web, web.http, None
    if way == "tls":
        tls = request.getfixturevalue("self_signed")
        web = await start_web(tls=tls)
        return web, web.http, tls.certfile
    if way == "ordinary":
        request.getfixturevalue("monkeypatch").setattr(hyper, "missing_parts", lambda: ["all of it"])
    web = await start_web()
    return web, web.http, None


async def _other_reader(raw: Any, seqs: list[int], ready: trio.Event) -> None:
    """Read the topic all the while."""
    await raw.open()
    assert (await raw.ask({"op": "subscribe", "topics": [TOPIC]}))["type"] == "ack"
    ready.set()
    while True:
        message = await raw.until("trade", "gap", "bye")
        seqs.append(message["seq"] if message["type"] == "trade" else message)


async def _publish(daemon: Any) -> None:
    while True:
        daemon.trade(3)
        await trio.sleep(0.005)


@pytest.mark.parametrize("way", ["fast", "tls", "unix", "ordinary"])
async def test_every_row_is_answered_as_the_protocol_says(
    way: str,
    start_web: Any,
    open_raw: Any,
    raw_frame: Any,
    until: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    web, bind, cafile = await _bind(way, start_web, tmp_path, request)
    wrong: dict[str, str] = {}
    seqs: list[Any] = []
    room = trio.Semaphore(20)
    rows = _table(raw_frame)
    assert len(rows) > 100

    async def check(row: Row) -> None:
        wanted = row.ordinary if way == "ordinary" else row.wanted
        if wanted is None:
            assert row.why
            return
        async with room:
            with trio.move_on_after(10) as within:
                raw = await open_raw(bind, cafile=cafile)
                found = await _exchange(raw, row, raw_frame)
                if not _fits(found, wanted):
                    wrong[row.name] = f"wanted {wanted}, found {found}"
            if within.cancelled_caught:
                wrong[row.name] = "hangs"

    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        nursery.start_soon(_other_reader, await open_raw(bind, cafile=cafile), seqs, ready)
        await ready.wait()
        nursery.start_soon(_publish, web.daemon)
        async with trio.open_nursery() as checks:
            for row in rows:
                checks.start_soon(check, row)
        count = len(seqs)
        await until(lambda: len(seqs) > count + 10)  # the other reader still reads
        nursery.cancel_scope.cancel()
    assert wrong == {}
    assert seqs == list(range(1, len(seqs) + 1))
    assert "connection crashed" not in caplog.text
    # Those that went on are there until they are closed; nobody else is.
    goes_on = sum(1 for row in rows if not any("close" in told for told in row.wanted))
    await until(lambda: len(web.app.readers) <= goes_on + 1)


# --- handshakes ---------------------------------------------------------------------------------------------

GOOD = {
    "Host": "x",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@attrs.frozen
class Shake:
    """One handshake.

    Attributes:
        changes: Headers in place of the good ones; None leaves one out.
        status: What is answered; several where that is up to the app behind.
        ordinary: Status in hypercorn's ordinary way, where that differs.
    """

    name: str
    changes: dict[str, str | None]
    status: str
    first: str = "GET /ws HTTP/1.1"
    ordinary: str | None = None
    why: str = ""


SHAKES = [
    Shake("good", {}, "101"),
    Shake("mixed case", {"Upgrade": "WebSocket", "Connection": "UPGRADE"}, "101"),
    Shake(
        "names in mixed case",
        {"Sec-WebSocket-Key": None, "sEC-wEBSOCKET-kEY": GOOD["Sec-WebSocket-Key"]},
        "101",
    ),
    Shake("more tokens", {"Connection": "keep-alive, Upgrade"}, "101"),
    Shake("subprotocols offered", {"Sec-WebSocket-Protocol": "chat, v1.json"}, "101"),
    Shake("an unknown extension offered", {"Sec-WebSocket-Extensions": "x-unknown; a=1, x-other"}, "101"),
    Shake(
        "compression offered",
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        "101",
        why="hypercorn alone accepts it",
    ),
    Shake("no key", {"Sec-WebSocket-Key": None}, "400"),
    Shake("an empty key", {"Sec-WebSocket-Key": ""}, "400", ordinary="101", why="hypercorn does not look"),
    Shake("a short key", {"Sec-WebSocket-Key": "AAAA"}, "400", ordinary="101", why="hypercorn does not look"),
    Shake("a key not in base64", {"Sec-WebSocket-Key": "*" * 24}, "400", ordinary="101", why="likewise"),
    Shake(
        "an older version",
        {"Sec-WebSocket-Version": "8"},
        "426",
        ordinary="400",
        why="hypercorn knows no 426",
    ),
    Shake("no version", {"Sec-WebSocket-Version": None}, "426", ordinary="400", why="likewise"),
    Shake("a version that is none", {"Sec-WebSocket-Version": "x"}, "426", ordinary="400", why="likewise"),
    Shake("HTTP/1.0", {}, "400", first="GET /ws HTTP/1.0"),
    Shake("POST", {"Content-Length": "0"}, "404 405", first="POST /ws HTTP/1.1"),
    Shake("no upgrade", {"Upgrade": None}, "400 404 426"),
    Shake("no connection token", {"Connection": "keep-alive"}, "400 404 426"),
    Shake("another upgrade", {"Upgrade": "h3"}, "400 404 426"),
    Shake("no host", {"Host": None}, "400"),
    Shake("a path that is none", {}, "404", first="GET /nowhere HTTP/1.1"),
    Shake("a foreign origin", {"Origin": "https://evil.test"}, "403"),
    Shake("a head too large", {"X-Large": "x" * 70_000}, "431"),
    Shake("nonsense", {}, "400", first="\x01\x02 nonsense"),
]


@pytest.mark.parametrize("way", ["fast", "tls", "unix", "ordinary"])
async def test_handshakes(
    way: str, start_web: Any, open_raw: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    web, bind, cafile = await _bind(way, start_web, tmp_path, request)
    wrong: dict[str, str] = {}

    async def check(shake: Shake) -> None:
        wanted = shake.ordinary if way == "ordinary" and shake.ordinary else shake.status
        headers = {k: v for k, v in (GOOD | shake.changes).items() if v is not None}
        text = "\r\n".join([shake.first, *(f"{k}: {v}" for k, v in headers.items()), "", ""])
        raw = await open_raw(bind, cafile=cafile)
        with trio.move_on_after(8) as within:
            await raw.send(text.encode("latin-1"))
            head = await raw.head()
            found = head[":status"]
            if found not in wanted.split():
                wrong[shake.name] = f"wanted {wanted}, found {found}"
            elif found == "101":
                assert head["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" or way == "ordinary"
                assert head["upgrade"].lower() == "websocket"
                assert "sec-websocket-protocol" not in head
                if way != "ordinary":
                    assert "sec-websocket-extensions" not in head
                    assert (await raw.json())["type"] == "welcome"
            elif found == "426":
                assert head["sec-websocket-version"] == "13"
        if within.cancelled_caught:
            wrong[shake.name] = "hangs"

    async with trio.open_nursery() as nursery:
        for shake in SHAKES:
            nursery.start_soon(check, shake)
    assert wrong == {}
    if bind.startswith("http://"):
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{web.http}/health")).status_code == 200


async def test_a_handshake_that_dribbles_is_bounded(
    start_web: Any, open_raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head must be there within the keep-alive time, however busily it comes."""
    ordinary = listen._config

    def hasty() -> Any:
        config = ordinary()
        config.keep_alive_timeout = 0.5
        return config

    monkeypatch.setattr(listen, "_config", hasty)
    web = await start_web()
    raw = await open_raw(web.http)
    began = trio.current_time()
    await raw.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await _send_on(raw, b"x", every_s=0.02)
    assert 0.4 < trio.current_time() - began < 3
    # A dribble that is done in time is served.
    raw = await open_raw(web.http)
    text = "GET /ws HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in GOOD.items()) + "\r\n"
    for part in re.findall(r"(?s).{1,3}", text):
        await raw.send(part.encode())
        await trio.lowlevel.checkpoint()
    assert (await raw.head())[":status"] == "101"
    assert (await raw.json())["type"] == "welcome"
    # Once it is open that time no longer counts.
    await trio.sleep(0.6)
    assert (await raw.ask({"op": "ping", "id": 1}))["id"] == 1


async def test_http_2_is_not_spoken(start_web: Any, open_raw: Any) -> None:
    """Neither by prior knowledge nor by an upgrade: there a client would be out of our bounds."""
    web = await start_web()
    raw = await open_raw(web.http)
    await raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await raw.head())[":status"] in ("400", "505")
    raw = await open_raw(web.http)
    await raw.send(
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    )
    assert (await raw.head())[":status"] == "200"


async def test_a_message_without_end_costs_no_memory(start_web: Any, open_raw: Any, raw_frame: Any) -> None:
    """What is passed over is not kept: the server's own buffers stay small while 64 MB come in."""
    web = await start_web(limits=Limits(goodbye_s=5.0))
    raw = await open_raw(web.http)
    await raw.open()
    before = _rss()
    await raw.send(raw_frame(TEXT, declared=1 << 40))
    assert (await raw.until("bye"))["code"] == 4500
    block = bytes(1 << 20)
    for _ in range(64):
        await raw.send(block)
    assert _rss() - before < 16 << 20
    assert len(web.app.readers) == 0


async def test_a_client_that_sends_on_after_its_end_is_let_go(
    start_web: Any, open_raw: Any, raw_frame: Any, until: Any
) -> None:
    """Requests that nobody takes any longer must not keep the connection open."""
    web = await start_web(limits=Limits(burst=5, requests_per_s=1.0, goodbye_s=0.3))
    raw = await open_raw(web.http)
    await raw.open()
    block = raw_frame(TEXT, ASK) * 1000
    with trio.fail_after(8), pytest.raises(trio.BrokenResourceError):
        await _send_on(raw, block)
    await until(lambda: len(web.app.readers) == 0)


async def test_a_body_that_nobody_takes_is_let_go(start_web: Any, open_raw: Any) -> None:
    web = await start_web(limits=Limits(body_bytes=1000, body_s=0.5))
    raw = await open_raw(web.http)
    await raw.send(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
    with trio.fail_after(8), pytest.raises(trio.BrokenResourceError):
        await _send_on(raw, bytes(10_000))
    assert (await raw.head())[":status"] in ("413", "")  # a reset may take it along


async def _send_on(raw: Any, data: bytes, *, every_s: float = 0.0) -> None:
    """Send until the other end has had enough."""
    while True:
        await raw.send(data)
        await trio.sleep(every_s)


def _rss() -> int:
    """Return the memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
