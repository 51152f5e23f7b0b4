"""The sink against plain ZeroMQ sockets."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import trio
import zmq

from pricefeedd.events import Quote, Trade

Begin = Callable[..., Awaitable[Any]]
Connect = Callable[..., Any]


def trade(instrument: str = "BTC-USDT", price: str = "1.10") -> Trade:
    return Trade(
        venue="binance",
        instrument=instrument,
        received_ns=1_000,
        id="1",
        price=price,
        size="2",
        aggressor=None,
    )


def quote(instrument: str = "BTC-USDT", bid: str = "1.1") -> Quote:
    return Quote(
        venue="binance",
        instrument=instrument,
        received_ns=1_000,
        bid_price=bid,
        bid_size="1",
        ask_price="2",
        ask_size="1",
    )


async def test_a_message_is_its_topic_and_the_json_with_the_epoch(
    publish: Begin, subscriber: Connect
) -> None:
    sink = await publish()
    reader = subscriber(sink.address, "trade:")
    await sink.until(subscriptions=1, peers=1)
    sink.lanes.put(trade(), quote(), trade("ETH-USDT"))

    assert await reader.receive() == (
        b"trade:binance:BTC-USDT",
        {"type": "trade", "topic": "trade:binance:BTC-USDT", "seq": 1, "epoch": "e1"},
    )
    assert (await reader.receive())[0] == b"trade:binance:ETH-USDT"
    await sink.end()
    report = sink.lanes.report
    assert (report.delivered, report.gauges["unread"], report.dropped) == (2, 1, {})
    assert report.last_delivered_ns is not None


async def test_subscriptions_and_peers_are_counted_and_go_back_to_none(
    publish: Begin, subscriber: Connect, context: Any
) -> None:
    sink = await publish()
    one, two = subscriber(sink.address, "trade:", "trade:"), subscriber(sink.address, "trade:", "quote:")
    await sink.until(peers=2, subscriptions=2)
    one.socket.unsubscribe("trade:")
    one.socket.unsubscribe("trade:")
    two.socket.unsubscribe("trade:")
    await sink.until(peers=2, subscriptions=1)
    one.socket.close()
    two.socket.close()
    await sink.until(peers=0, subscriptions=0)
    sink.lanes.put(trade())
    await sink.when(lambda: sink.lanes.report.gauges["unread"] == 1)

    assert sink.lanes.report.delivered == 0


async def test_who_knocks_without_being_a_peer_is_counted_apart(publish: Begin) -> None:
    sink = await publish()
    host, port = sink.address.removeprefix("tcp://").split(":")
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        stream = await trio.open_tcp_stream(host, int(port))
        if words:
            await stream.send_all(words)
        await stream.aclose()
    await sink.until(refused=2)
    await sink.until(peers=0)

    assert sink.lanes.report.state == "up"


async def test_a_crowded_batch_goes_out_whole_and_in_order(publish: Begin, subscriber: Connect) -> None:
    sink = await publish(snapshot=False)
    reader = subscriber(sink.address, "")
    await sink.until(subscriptions=1)
    for _ in range(5):
        sink.lanes.put(*(trade() for _ in range(1_000)))

    assert [(await reader.receive())[1]["seq"] for _ in range(5_000)] == list(range(1, 5_001))


async def test_what_is_too_large_is_dropped_and_counted(publish: Begin, subscriber: Connect) -> None:
    sink = await publish(max_message_bytes=1024)
    reader = subscriber(sink.address, "")
    await sink.until(subscriptions=1)
    sink.lanes.put(trade(), text=b'{"a":"' + b"x" * 1024 + b'"}')
    sink.lanes.put(trade())

    assert (await reader.receive())[1]["seq"] == 2
    assert sink.lanes.report.dropped == {"too_large": 1}


async def test_an_address_that_is_taken_is_said_and_tried_again(publish: Begin, subscriber: Connect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        sink = await publish(bind=address)
        report = sink.lanes.report
        assert (report.state, report.reason) == (
            "down",
            f"cannot listen on {address}: Address already in use",
        )
        sink.lanes.put(trade())
        await sink.when(lambda: report.dropped == {"down": 1})
    await sink.when(lambda: report.state == "up")
    reader = subscriber(address, "")
    await sink.until(subscriptions=1)
    sink.lanes.put(trade())

    # What went down with the address is missed by number; the present state is told first, if it is known.
    assert (await reader.receive())[1]["seq"] == 2


async def test_it_ends_at_once_while_the_address_is_taken(publish: Begin) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sink = await publish(bind=f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        await sink.end()


async def test_several_addresses_and_a_path(publish: Begin, subscriber: Connect, tmp_path: Any) -> None:
    sink = await publish(bind=["tcp://127.0.0.1:*", f"ipc://{tmp_path}/x.sock"])
    readers = [subscriber(address, "") for address in sink.publisher.addresses]
    await sink.until(peers=2)
    sink.lanes.put(trade())

    assert [(await reader.receive())[0] for reader in readers] == [b"trade:binance:BTC-USDT"] * 2


async def test_pub_sends_without_knowing_who_reads(publish: Begin, subscriber: Connect) -> None:
    sink = await publish(mode="pub")
    reader = subscriber(sink.address, "quote:")
    await sink.until(peers=1)
    with trio.fail_after(10):
        while await reader.nothing(0.02):
            sink.lanes.put(trade(), quote())

    assert (await reader.receive())[0] == b"quote:binance:BTC-USDT"
    assert sink.lanes.report.gauges["unread"] == 0


async def test_messages_on_their_way_still_leave_at_the_end(publish: Begin, subscriber: Connect) -> None:
    sink = await publish(snapshot=False)
    reader = subscriber(sink.address, "")
    await sink.until(subscriptions=1)
    sink.lanes.put(*(trade() for _ in range(900)))
    await sink.end()

    assert [(await reader.receive())[1]["seq"] for _ in range(900)] == list(range(1, 901))


async def test_a_reader_that_stands_still_holds_nothing_up_and_sees_by_number_what_it_lost(
    publish: Begin, subscriber: Connect, context: Any
) -> None:
    sink = await publish(high_water_mark=100, send_buffer_bytes=4096, snapshot=False, linger_ms=0)
    still = context.socket(zmq.SUB)
    still.set_hwm(10)
    still.setsockopt(zmq.RCVBUF, 4096)
    still.connect(sink.address)
    still.subscribe("")
    await sink.until(subscriptions=1)
    with trio.fail_after(10):
        for _ in range(100):
            sink.lanes.put(*(trade() for _ in range(300)))
            await trio.lowlevel.checkpoint()
        await sink.when(lambda: sink.lanes.report.delivered == 30_000)
    seen = [(await trio.to_thread.run_sync(still.recv_multipart))[1] for _ in range(50)]
    assert b'"seq":1,' in seen[0]

    # It reads on; what is new comes after the hole.
    def drain() -> int:
        last = 0
        while still.poll(300):
            last = orjson.loads(still.recv_multipart()[1])["seq"]
        return last

    assert await trio.to_thread.run_sync(drain) < 30_000
    sink.lanes.put(trade())
    assert b'"seq":30001,' in (await trio.to_thread.run_sync(still.recv_multipart))[1]


async def test_push_waits_for_a_proxy_and_then_drops_what_is_old(publish: Begin, context: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    sink = await publish(mode="push", connect=address, wait_ms=50)
    report = sink.lanes.report
    sink.lanes.put(trade(), trade())
    await sink.when(lambda: report.dropped == {"slow": 2})
    assert (report.state, report.reason) == ("connecting", f"no proxy answers at {address}")
    pull = context.socket(zmq.PULL)
    pull.bind(address)
    await sink.until(peers=1)
    assert report.state == "up"
    sink.lanes.put(trade())

    assert b'"seq":3,' in (await trio.to_thread.run_sync(pull.recv_multipart))[1]
    pull.close()
    await sink.until(peers=0)
    assert report.state == "down"


async def test_push_that_is_blocked_for_a_moment_loses_nothing(publish: Begin, context: Any) -> None:
    pull = context.socket(zmq.PULL)
    pull.set_hwm(5)
    pull.setsockopt(zmq.RCVBUF, 4096)
    pull.bind("tcp://127.0.0.1:*")
    address = pull.getsockopt(zmq.LAST_ENDPOINT).decode()
    sink = await publish(
        mode="push", connect=address, wait_ms=10_000, high_water_mark=5, send_buffer_bytes=4096
    )
    await sink.until(peers=1)
    sink.lanes.put(*(trade() for _ in range(20_000)))
    await sink.when(lambda: sink.lanes.report.state == "blocked")

    def read() -> list[int]:
        return [orjson.loads(pull.recv_multipart()[1])["seq"] for _ in range(20_000)]

    assert await trio.to_thread.run_sync(read) == list(range(1, 20_001))
    await sink.when(lambda: sink.lanes.report.state == "up")
    assert sink.lanes.report.dropped == {}
    assert sink.lanes.report.gauges["would_block"] > 0


@pytest.mark.skipif(not zmq.has("curve"), reason="this build of ZeroMQ has no CURVE")
async def test_curve_lets_in_who_has_the_key(publish: Begin, subscriber: Connect, context: Any) -> None:
    public, secret = zmq.curve_keypair()
    sink = await publish(curve_secret_key=secret.decode())
    stranger = subscriber(sink.address, "")
    friend = context.socket(zmq.SUB)
    friend.curve_serverkey = public
    friend.curve_publickey, friend.curve_secretkey = zmq.curve_keypair()
    friend.connect(sink.address)
    friend.subscribe("")
    await sink.until(peers=1, subscriptions=1)
    await sink.when(lambda: sink.lanes.report.gauges["refused"] > 0)
    sink.lanes.put(trade())

    assert (await trio.to_thread.run_sync(friend.recv_multipart))[0] == b"trade:binance:BTC-USDT"
    assert await stranger.nothing(0.1)


async def test_nothing_is_sent_once_another_daemon_may_lead(publish: Begin, subscriber: Connect) -> None:
    sink = await publish()
    reader = subscriber(sink.address, "")
    await sink.until(subscriptions=1, peers=1)
    sink.lanes.most = 3
    sink.lanes.put(*[trade() for _ in range(500)])
    sink.lanes.put(trade("LATE"))
    await sink.when(lambda: sink.lanes.most < 0)  # it was refused, in the midst of a batch

    assert [(await reader.receive())[1]["seq"] for _ in range(3)] == [1, 2, 3]
    late = subscriber(sink.address, "")  # nor is the present state
    await sink.until(peers=2)
    assert await reader.nothing()
    assert await late.nothing()
