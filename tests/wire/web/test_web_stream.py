"""The WebSocket protocol, seen by an independent client."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pricefeedd.events import BookSnapshot, State
from pricefeedd.web.daemon import Limits

TRADES = "trade:binance:BTC-USDT"


async def subscribe(client: Any, *topics: str, **options: Any) -> Any:
    return await client.ask({"op": "subscribe", "id": 1, "topics": list(topics), **options})


async def test_welcome_comes_first_and_tells_the_terms(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    client = await open_client(web.ws)
    welcome = await client.receive()
    assert welcome["type"] == "welcome"
    assert welcome["protocol"] == 1
    assert welcome["epoch"] == "epoch1"
    assert welcome["heartbeat_s"] == 15.0
    assert welcome["session"]
    assert welcome["limits"]["message_bytes"] == 65_536


async def test_the_root_speaks_the_native_dialect(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    client = await open_client(web.ws.removesuffix("/ws") + "/")
    assert (await client.receive())["type"] == "welcome"


async def test_snapshot_then_live_without_loss_or_repetition(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(3)
    client = await open_client(web.ws)
    await client.receive()
    await client.send({"op": "subscribe", "id": "a", "topics": [TRADES]})
    async with trio.open_nursery() as nursery:

        async def publish() -> None:
            for _ in range(200):
                web.daemon.trade(5)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(publish)
        ack = await client.receive()
        assert ack["type"] == "ack"
        assert ack["id"] == "a"
        assert ack["results"] == [{"topic": TRADES, "ok": True, "matched": 1}]
        seqs = [(await client.until("trade"))["seq"]]
        while seqs[-1] < 1003:
            seqs.append((await client.until("trade"))["seq"])
    assert seqs == list(range(seqs[0], 1004))
    assert seqs[0] >= 3


async def test_a_snapshot_ends_at_the_seq_that_live_goes_on_from(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade()
    web.daemon.status(State.STALE)
    web.daemon.status(State.LIVE)
    client = await open_client(web.ws)
    await subscribe(client, TRADES)
    web.daemon.trade()
    got = [await client.receive() for _ in range(3)]
    assert [(m["type"], m["seq"]) for m in got] == [("trade", 1), ("status", 3), ("trade", 4)]


async def test_without_snapshot_only_what_is_new_comes_save_for_books(
    start_web: Any, open_client: Any
) -> None:
    web = await start_web()
    web.daemon.trade(2)
    book = BookSnapshot(venue="binance", instrument="BTC-USDT", received_ns=1, bids=[["1", "2"]], asks=[])
    web.daemon.bus.topic("book", "binance", "BTC-USDT").book = lambda: book
    client = await open_client(web.ws)
    await subscribe(client, TRADES, "book:binance:BTC-USDT", snapshot=False)
    web.daemon.trade()
    got = [await client.receive() for _ in range(2)]
    assert [m["type"] for m in got] == ["book", "trade"]
    assert got[0]["data"]["kind"] == "snapshot"
    assert got[1]["seq"] == 3


async def test_a_pattern_also_means_topics_born_later(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.trade(instrument="BTC-USDT")
    client = await open_client(web.ws)
    ack = await subscribe(client, "trade:*:*")
    assert ack["results"][0]["matched"] == 1
    assert (await client.until("trade"))["topic"] == TRADES
    web.daemon.trade(instrument="NEW-USDT")
    born = await client.until("trade")
    assert (born["topic"], born["seq"]) == ("trade:binance:NEW-USDT", 1)


async def test_one_bad_topic_does_not_fail_the_others(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    web.daemon.trade()
    client = await open_client(web.ws)
    ack = await subscribe(
        client,
        TRADES,
        "trade:binance:SOLUSDT",
        "trades:binance:BTC-USDT",
        "trade:binanc:BTC-USDT",
        "trade:binance:BTC-USTD",
        "trade:binance",
        "order:binance:BTC-USDT",
        "trade:binance:BTCUSDT",
    )
    by_topic = {result["topic"]: result for result in ack["results"]}
    codes = {topic: result.get("error", {}).get("code") for topic, result in by_topic.items()}
    assert codes == {
        TRADES: None,
        "trade:binance:SOLUSDT": None,
        "trades:binance:BTC-USDT": "unknown_channel",
        "trade:binanc:BTC-USDT": "unknown_venue",
        "trade:binance:BTC-USTD": "unknown_instrument",
        "trade:binance": "bad_topic",
        "order:binance:BTC-USDT": "forbidden",
        "trade:binance:BTCUSDT": "unknown_instrument",
    }
    assert by_topic["trade:binance:SOLUSDT"]["as"] == "trade:binance:SOL-USDT"
    assert by_topic["trades:binance:BTC-USDT"]["error"]["did_you_mean"] == ["trade"]
    assert by_topic["trade:binanc:BTC-USDT"]["error"]["did_you_mean"] == ["binance"]
    assert by_topic["trade:binance:BTC-USTD"]["error"]["did_you_mean"][0] == "BTC-USDT"
    # Binance lists that symbol on spot and as a perpetual.
    assert set(by_topic["trade:binance:BTCUSDT"]["error"]["did_you_mean"]) == {"BTC-USDT", "BTC-USDT-PERP"}
    assert (await client.until("trade"))["topic"] == TRADES
    web.daemon.trade(instrument="SOL-USDT")
    assert (await client.until("trade"))["topic"] == "trade:binance:SOL-USDT"


async def test_unsubscribe_list_get_ping_status_instruments(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    web.daemon.list_instruments()
    web.daemon.trade()
    web.daemon.quote("1")
    client = await open_client(web.ws)
    await subscribe(client, TRADES, "quote:binance:*")
    listed = await client.ask({"op": "list", "id": 2})
    assert {row["topic"]: row["matched"] for row in listed["results"]} == {TRADES: 1, "quote:binance:*": 1}
    gone = await client.ask({"op": "unsubscribe", "id": 3, "topics": [TRADES, "trade:binance:ETH-USDT"]})
    assert [row["ok"] for row in gone["results"]] == [True, False]
    assert gone["results"][1]["error"]["code"] == "not_subscribed"
    web.daemon.trade()
    web.daemon.quote("1.5")
    assert (await client.until("trade", "quote"))["type"] == "quote"
    got = await client.ask({"op": "get", "id": 4, "topics": [TRADES, "trade:*:*", "nonsense"]})
    assert got["results"][0]["messages"][0]["seq"] == 2
    assert got["results"][1]["matched"] == 1
    assert got["results"][2]["error"]["code"] == "bad_topic"
    pong = await client.ask({"op": "ping", "id": 5, "data": {"x": 1}})
    assert pong["type"] == "pong"
    assert pong["id"] == 5
    assert pong["data"] == {"x": 1}
    status = await client.ask({"op": "status", "id": 6})
    assert status["result"]["topics"] == 2
    rows = await client.ask({"op": "instruments", "venue": "binance", "market": "spot"})
    assert {"BTC-USDT", "ETH-USDT", "SOL-USDT"} == {row["instrument"] for row in rows["results"]}


async def test_heartbeats_tell_the_last_seq_of_each_topic(start_web: Any, open_client: Any) -> None:
    web = await start_web(heartbeat_s=0.1)
    web.daemon.trade(7)
    client = await open_client(web.ws)
    assert (await client.until("heartbeat"))["seq"] == {}
    await subscribe(client, "trade:*:*")
    assert (await client.until("heartbeat"))["seq"] == {TRADES: 7}
    web.daemon.trade(1, "NEW-USDT")
    await client.until("heartbeat")
    assert (await client.until("heartbeat"))["seq"] == {TRADES: 7, "trade:binance:NEW-USDT": 1}


async def test_heartbeats_are_bounded_and_take_turns(start_web: Any, open_client: Any) -> None:
    web = await start_web(heartbeat_s=0.1, limits=Limits(heartbeat_topics=2))
    names = [f"I{i}-USDT" for i in range(5)]
    for name in names:
        web.daemon.trade(1, name)
    client = await open_client(web.ws)
    await subscribe(client, "trade:*:*")
    seen: set[str] = set()
    for _ in range(4):
        beat = (await client.until("heartbeat"))["seq"]
        assert len(beat) <= 2
        seen.update(beat)
    assert seen == {f"trade:binance:{name}" for name in names}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "bad_json"),
        ("", "bad_json"),
        ("[]", "bad_request"),
        ("null", "bad_request"),
        ('{"op": 1}', "bad_request"),
        ('{"op": "subscrib", "topics": []}', "unknown_op"),
        ('{"op": "history"}', "bad_request"),
        ('{"op": "subscribe"}', "bad_request"),
        ('{"op": "subscribe", "topics": "trade:binance:BTC-USDT"}', "bad_request"),
        ('{"op": "subscribe", "topics": [1]}', "bad_request"),
        ('{"op": "subscribe", "topics": ["trade:*:*"], "snapshot": "no"}', "bad_request"),
        ('{"op": "subscribe", "topics": ["trade:*:*"], "topic": 1}', "bad_request"),
        ('{"op": "subscribe", "topics": ["trade:*:*"], "every_ms": 1}', "bad_request"),
        ('{"op": "ping", "id": {"deep": []}}', "bad_request"),
        ('{"op": "instruments", "venue": 5}', "bad_request"),
        ('{"op": "instruments", "venue": "nowhere"}', "unknown_venue"),
    ],
)
async def test_a_wrong_request_is_answered_and_the_connection_stays(
    start_web: Any, open_client: Any, text: str, code: str
) -> None:
    web = await start_web()
    client = await open_client(web.ws)
    await client.receive()
    await client.send(text)
    error = await client.receive()
    assert error["type"] == "error"
    assert error["error"]["code"] == code
    assert error["error"]["message"]
    assert (await client.ask({"op": "ping", "id": 1}))["type"] == "pong"


async def test_errors_without_end_are_ended(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(errors=5))
    client = await open_client(web.ws)
    for _ in range(6):
        await client.send("nonsense")
    assert (await client.until("bye"))["code"] == 4500
    assert (await client.closed())[0] == 4500


@pytest.mark.parametrize("message", [b"\x00\x01", b"", b"{}" * 10, "x" * 1_000_000])
async def test_binary_and_oversize_are_told_and_closed(
    start_web: Any, open_client: Any, message: bytes | str
) -> None:
    web = await start_web()
    other = await open_client(web.ws)
    await other.receive()
    client = await open_client(web.ws)
    await client.receive()
    await client.send(message)
    bye = await client.receive()
    assert (bye["type"], bye["code"]) == ("bye", 4500)
    assert (await client.closed())[0] == 4500
    assert (await other.ask({"op": "ping"}))["type"] == "pong"


async def test_a_message_beyond_all_bounds_is_cut_off(start_web: Any, open_client: Any, until: Any) -> None:
    web = await start_web(limits=Limits(message_bytes=1000))
    client = await open_client(web.ws)
    await client.receive()
    with suppress(ConnectionClosed):  # reset while it sends, or later, by timing
        await client.send("x" * 5_000_000)
    await until(lambda: len(web.app.readers) == 0)


async def test_fragments_are_joined(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    client = await open_client(web.ws)
    await client.receive()
    await client.send(['{"op":', '"ping"', "", ',"id":', "9}"])
    assert (await client.receive())["id"] == 9


async def test_compression_is_refused(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    client = await open_client(web.ws, compression="deflate")
    assert "Sec-WebSocket-Extensions" in client.connection.request.headers
    assert "Sec-WebSocket-Extensions" not in client.connection.response.headers
    web.daemon.trade()
    await subscribe(client, TRADES)
    assert (await client.until("trade"))["seq"] == 1


async def test_subscriptions_are_limited_topic_by_topic(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(subscriptions=2))
    client = await open_client(web.ws)
    web.daemon.trade()
    ack = await subscribe(client, "trade:*:A", "trade:*:B", "trade:*:C", "trade:*:A")
    assert [row["ok"] for row in ack["results"]] == [True, True, False, True]
    assert ack["results"][2]["error"]["code"] == "limit"


async def test_a_hundred_thousand_topics_end_in_limits_not_in_trouble(
    start_web: Any, open_client: Any, until: Any
) -> None:
    web = await start_web(limits=Limits(burst=10_000))
    web.daemon.trade()
    client = await open_client(web.ws)
    await client.receive()
    accepted = refused = 0
    for start in range(0, 100_000, 2_000):
        ack = await subscribe(client, *(f"trade:binance:I{i}" for i in range(start, start + 2_000)))
        accepted += sum(row["ok"] for row in ack["results"])
        refused += sum(not row["ok"] for row in ack["results"])
    assert (accepted, refused) == (10_000, 90_000)
    await client.close()
    await until(lambda: len(web.app.readers) == 0)


async def test_too_many_requests_are_first_told_then_closed(start_web: Any, open_client: Any) -> None:
    web = await start_web(limits=Limits(burst=5, requests_per_s=0.1, errors=1000))
    client = await open_client(web.ws)
    await client.receive()
    with suppress(ConnectionClosed):  # the server may have had enough before we are through
        for _ in range(12):
            await client.send({"op": "ping"})
    kinds: list[str] = []
    while not kinds or kinds[-1] != "bye":
        message = await client.receive()
        kinds.append(message["type"])
    assert kinds[:5] == ["pong"] * 5
    assert set(kinds[5:-1]) == {"error"}
    assert message["code"] == 4504
    assert message["retry_after_ms"] > 0
    assert (await client.closed())[0] == 4504


async def test_max_clients(start_web: Any, open_client: Any, until: Any) -> None:
    web = await start_web(max_clients=2)
    web.daemon.trade()
    first, second = await open_client(web.ws), await open_client(web.ws)
    await subscribe(first, TRADES)
    await subscribe(second, TRADES)
    third = await open_client(web.ws)
    assert (await third.receive())["code"] == 4504
    assert (await third.closed())[0] == 4504
    await second.close()
    await until(lambda: len(web.app.readers) == 1)
    fourth = await open_client(web.ws)
    assert (await fourth.receive())["type"] == "welcome"


async def test_who_asks_for_nothing_makes_room_for_others(start_web: Any, open_client: Any) -> None:
    web = await start_web(max_clients=1, limits=Limits(silent_s=0.0))
    silent = await open_client(web.ws)
    await silent.receive()
    other = await open_client(web.ws)
    assert (await other.receive())["type"] == "welcome"
    assert (await silent.until("bye"))["code"] == 4504


async def test_keys(start_web: Any, open_client: Any, web_key: Any) -> None:
    keys = (web_key(name="a", key="sesame"), web_key(name="b", key="other", scopes=("admin",)))
    web = await start_web(public_read=False, keys=keys)
    for url, headers in (
        (web.ws, {}),
        (web.ws, {"X-API-Key": "wrong"}),
        (web.ws, {"X-API-Key": "other"}),
        (f"{web.ws}?api_key=", {}),
    ):
        client = await open_client(url, additional_headers=headers)
        bye = await client.receive()
        assert (bye["type"], bye["code"]) == ("bye", 4501)
        assert "sesame" not in str(bye)
        assert (await client.closed())[0] == 4501
    for url, headers in (
        (web.ws, {"X-API-Key": "sesame"}),
        (web.ws, {"Authorization": "Bearer sesame"}),
        (f"{web.ws}?api_key=sesame", {}),
    ):
        client = await open_client(url, additional_headers=headers)
        assert (await client.receive())["type"] == "welcome"


async def test_pages_of_other_origins_are_kept_out(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    with pytest.raises(InvalidStatus) as refused:
        await open_client(web.ws, origin="https://evil.test")
    assert refused.value.response.status_code == 403
    own = await open_client(web.ws, origin=web.http)
    assert (await own.receive())["type"] == "welcome"
    web.daemon.config.web.allowed_origins = ("https://app.test",)
    listed = await open_client(web.ws, origin="https://app.test")
    assert (await listed.receive())["type"] == "welcome"


async def test_a_reader_that_vanishes_is_released(start_web: Any, open_client: Any, until: Any) -> None:
    web = await start_web()
    web.daemon.trade()
    topic = web.daemon.bus.get(TRADES)
    client = await open_client(web.ws)
    await subscribe(client, TRADES)
    assert len(topic.readers) == 1
    client.connection.socket.shutdown(socket.SHUT_RDWR)
    await until(lambda: len(web.app.readers) == 0)
    await until(lambda: not topic.readers)
    web.daemon.trade()


class Raw:
    """A client that speaks just enough to subscribe, and then reads nothing."""

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.connect((host, port))
        head = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.sock.sendall(
            f"{head}Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.sock.recv(4096)
        self.sock.sendall(self.frame(b'{"op":"subscribe","topics":["trade:*:*"]}'))

    @staticmethod
    def frame(text: bytes) -> bytes:
        return bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text

    def read_all(self) -> bytes:
        self.sock.settimeout(1)
        parts = []
        try:
            while part := self.sock.recv(65536):
                parts.append(part)
        except OSError:
            pass
        return b"".join(parts)


@pytest.fixture
def stalled(until: Any) -> Any:
    """Return a function that connects a reader of all trades that reads nothing."""
    opened: list[Raw] = []

    async def open_(web: Any) -> Raw:
        host, port = web.http.removeprefix("http://").split(":")
        topic = web.daemon.bus.get(TRADES)
        before = len(topic.readers)
        raw = await trio.to_thread.run_sync(Raw, host, int(port))
        opened.append(raw)
        await until(lambda: len(topic.readers) > before)
        return raw

    yield open_
    for raw in opened:
        raw.sock.close()


async def test_a_stalled_reader_is_closed_and_disturbs_nobody(
    start_web: Any, open_client: Any, stalled: Any, until: Any
) -> None:
    web = await start_web(
        limits=Limits(stall_s=1.0, goodbye_s=0.5), client_queue_bytes=262_144, heartbeat_s=0.2
    )
    web.daemon.trade()
    good = await open_client(web.ws)
    await subscribe(good, TRADES)
    first = (await good.until("trade"))["seq"]
    await stalled(web)
    (mailbox,) = [m for m in web.daemon.bus.get(TRADES).readers if m is not _mailboxes(web)[0]]
    seqs, most = [first], 0
    with trio.fail_after(20):
        while web.daemon.stats.readers.closed.get(4008) is None:
            web.daemon.trade(50, pad="x" * 1000)
            most = max(most, mailbox.waiting_bytes)
            while seqs[-1] < web.daemon.bus.get(TRADES).seq:
                seqs.append((await good.until("trade"))["seq"])
    assert seqs == list(range(seqs[0], seqs[-1] + 1))
    assert mailbox.lost > 0
    assert most <= 262_144 + 2_000
    assert web.daemon.stats.readers.closed == {4008: 1}
    await until(lambda: len(web.app.readers) == 1)
    assert (await good.ask({"op": "ping"}))["type"] == "pong"
    # Whoever still points at it: the megabytes that waited are let go of at once.
    assert mailbox.empty
    assert mailbox.waiting_bytes == 0


def _mailboxes(web: Any) -> list[Any]:
    return list(web.daemon.bus.get(TRADES).readers)


async def test_who_reads_again_in_time_is_told_what_was_lost(start_web: Any, stalled: Any) -> None:
    web = await start_web(client_queue_bytes=65_536)
    web.daemon.trade()
    raw = await stalled(web)
    (mailbox,) = _mailboxes(web)
    for _ in range(1000):
        web.daemon.trade(20, pad="x" * 1000)
        if mailbox.lost:
            break
    assert mailbox.lost
    text = await trio.to_thread.run_sync(raw.read_all)
    assert b'"type":"gap"' in text
    assert b'"reason":"slow reader"' in text
    assert web.daemon.stats.readers.lost == mailbox.lost


async def test_state_for_a_slow_reader_is_conflated_to_the_newest(
    start_web: Any, stalled: Any, until: Any
) -> None:
    web = await start_web()
    web.daemon.trade()
    raw = await stalled(web)
    web.daemon.quote("0")
    raw.sock.sendall(raw.frame(b'{"op":"subscribe","topics":["quote:*:*"]}'))
    await until(lambda: web.daemon.bus.get("quote:binance:BTC-USDT").readers)
    with trio.fail_after(20):
        while not any(m.conflated for m in _mailboxes(web)):
            web.daemon.trade(20, pad="x" * 1000)
            for i in range(10):
                web.daemon.quote(str(i))
            await trio.lowlevel.checkpoint()
    web.daemon.quote("99999")
    text = await trio.to_thread.run_sync(raw.read_all)
    assert b'"type":"conflated"' in text
    assert text.rindex(b'"bid_price":"99999"') > text.rindex(b'"type":"conflated"')


async def test_a_snapshot_larger_than_all_buffers_arrives_whole(start_web: Any, open_client: Any) -> None:
    web = await start_web(client_queue_bytes=65_536)
    for i in range(3000):
        web.daemon.trade(1, f"I{i}-USDT", pad="x" * 1000)
    client = await open_client(web.ws)
    await subscribe(client, "trade:*:*")
    seen: dict[str, int] = {}
    while len(seen) < 3000:
        message = await client.until("trade", "gap")
        assert message["type"] == "trade"
        seen[message["topic"]] = message["seq"]
        if len(seen) == 10:
            web.daemon.trade(1, "I2999-USDT")
    assert seen["trade:binance:I2999-USDT"] == 2


async def test_shutdown_says_bye_to_all_and_ends_with_a_stalled_client(
    start_web: Any, open_client: Any, stalled: Any
) -> None:
    web = await start_web(grace_s=3.0)
    web.daemon.trade()
    good = await open_client(web.ws)
    await subscribe(good, TRADES)
    await stalled(web)
    (_, mailbox) = _mailboxes(web)
    while not mailbox.lagging:
        web.daemon.trade(20, pad="x" * 1000)
    began = trio.current_time()
    web.stop.set()
    bye = await good.until("bye")
    assert bye["code"] == 4001
    assert bye["retry_after_ms"]
    assert (await good.closed())[0] == 4001
    with trio.fail_after(8):
        await web.stopped.wait()
    assert trio.current_time() - began < 8


async def test_stalled_http_clients_do_not_hold_up_the_end(start_web: Any) -> None:
    web = await start_web(grace_s=1.0)
    for i in range(20_000):
        web.daemon.trade(1, f"I{i}")
    host, port = web.http.removeprefix("http://").split(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        sock.sendall(b"GET /feeds HTTP/1.1\r\nHost: x\r\n\r\n")
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{web.http}/health")).status_code == 200
        web.stop.set()
        with trio.fail_after(5):
            await web.stopped.wait()


async def test_a_unix_socket_and_a_given_descriptor(start_web: Any, tmp_path: Any) -> None:
    path = tmp_path / "feed.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()  # left behind, as after a crash
    given = socket.socket()
    given.bind(("127.0.0.1", 0))
    given.listen()
    port = given.getsockname()[1]
    web = await start_web(listen=(f"unix:{path}", f"fd://{os.dup(given.fileno())}", "[::1]:0"))
    given.close()
    assert web.binds[:2] == [f"unix:{path}", f"http://127.0.0.1:{port}"]
    assert web.binds[2].startswith("http://[::1]:")
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as http:
        assert (await http.get("http://x/health")).json()["status"] == "healthy"
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{port}/health")).status_code == 200
        assert (await http.get(f"{web.binds[2]}/health")).status_code == 200
    with pytest.RaisesGroup(OSError, flatten_subgroups=True, allow_unwrapped=True):
        await start_web(listen=(f"unix:{path}",))
