"""The relay over ZeroMQ: against a plain publisher of the documented form, and against the real daemon."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import zmq

from pricefeedd import client
from pricefeedd.client.tracker import Tracker
from pricefeedd.events import AccountEvent
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.web.messages import UPSTREAM

TRADES, QUOTES, BOOK = (f"{channel}:example:BTC-USDT" for channel in ("trade", "quote", "book"))


@attrs.define
class Publisher:
    """A plain PUB socket."""

    socket: Any
    address: str

    def send(self, message: Any, epoch: str = "one") -> None:
        """Publish a numbered message."""
        self.socket.send_multipart([message.topic.encode(), message.stream(epoch)])


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, 200_000)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    yield Publisher(socket, f"tcp://127.0.0.1:{port}")
    context.destroy(linger=0)


async def subscribed(publisher: Publisher) -> bytes:
    """Wait until somebody subscribes."""
    with trio.fail_after(10):
        while True:
            try:
                return publisher.socket.recv(zmq.NOBLOCK)  # type: ignore[no-any-return]  # bytes
            except zmq.Again:
                await trio.sleep(0.01)


def source(*addresses: str, **keys: Any) -> dict[str, Any]:
    return {"relay": {"zmq": list(addresses), **keys}}


async def test_topics_epoch_and_numbers_are_the_publishers(
    relays: Any, publisher: Publisher, nursery: trio.Nursery, tmp_path: Path
) -> None:
    async with relays.run(tmp_path, sources=source(publisher.address)) as relay:
        early = relays.Got()
        await relays.read(relay.base, early, [TRADES])
        ready_before, body = await relay.get("/ready")
        await subscribed(publisher)
        publisher.send(relays.numbered(relays.trade(1), 41))
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        got = relays.Got()
        nursery.start_soon(relays.read, relay.base, got, ["*:*:*"])
        await relays.until(lambda: got.last(TRADES) == 41)
        for message in (
            relays.numbered(relays.trade(2), 42),
            relays.numbered(relays.trade(2), 42),
            relays.numbered(relays.trade(5), 45),
            relays.numbered(relays.quote(1), 7),
            relays.numbered(relays.quote(2), 9),
        ):
            publisher.send(message)
        publisher.socket.send_multipart([b"trade:x", b"garbage"])
        publisher.socket.send(b"one part")
        await relay.until(lambda: relay.report.unreadable == 2)
        await relays.until(lambda: got.last(QUOTES) == 9)
        status, facts = await relay.get("/status")
        ready, _ = await relay.get("/ready")
        _, metrics = await relay.get("/metrics")

    assert (early.code, early.others[0]["type"]) == (4010, "bye")
    assert (ready_before, body["status"]) == (503, "not ready")
    assert got.welcome["epoch"] == "one"
    assert got.kinds(TRADES) == [("trade", 41), ("trade", 42), ("gap", 44), ("trade", 45)]
    assert got.kinds(QUOTES) == [("quote", 7), ("conflated", 9), ("quote", 9)]
    assert (status, ready) == (200, 200)
    assert facts["source"]["epoch"] == "one"
    assert facts["source"]["duplicates"] == 1
    assert 'pricefeedd_source_messages_total{source="relay"} 8.0' in metrics
    assert 'pricefeedd_source_up{source="relay"} 1.0' in metrics


async def test_another_epoch_sends_readers_back_to_begin_anew(
    relays: Any, publisher: Publisher, nursery: trio.Nursery, tmp_path: Path
) -> None:
    async with relays.run(tmp_path, sources=source(publisher.address)) as relay:
        await subscribed(publisher)
        publisher.send(relays.numbered(relays.trade(1), 900))
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        raw = relays.Got()
        nursery.start_soon(relays.read, relay.base, raw, [TRADES])
        url = relay.base.replace("http", "ws") + "/ws"
        async with client.connect(url, first_delay_s=0.01) as feed:
            await feed.subscribe([TRADES])
            await relays.until(lambda: raw.last(TRADES) == 900)
            publisher.send(relays.numbered(relays.trade(2), 1), "two")
            publisher.send(relays.numbered(relays.trade(3), 2), "two")
            publisher.send(relays.numbered(relays.trade(4), 901))
            seen: list[Any] = []
            with trio.fail_after(10):
                async for update in feed:
                    seen.append(update)
                    if update.seq == 2:
                        break
        await relays.until(lambda: raw.code is not None)

    assert raw.code == 4010
    [changed] = [update for update in seen if isinstance(update, client.EpochChanged)]
    assert (changed.before, changed.now) == ("one", "two")
    assert relay.report.outdated == 1
    assert seen[-1].seq == 2


async def _collect(url: str, seen: list[client.Update]) -> None:
    async with client.connect(url) as feed:
        await feed.subscribe([TRADES])
        async for update in feed:
            seen.append(update)  # noqa: PERF401  # who waits must see each at once


async def test_readers_are_told_that_the_upstream_is_lost_and_back(
    relays: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/feed.sock"
    context = zmq.Context()
    first = context.socket(zmq.XPUB)
    first.bind(address)
    publisher = Publisher(first, address)
    async with relays.run(tmp_path, sources=source(address)) as relay:
        await subscribed(publisher)
        publisher.send(relays.numbered(relays.trade(1), 1))
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        got = relays.Got()
        nursery.start_soon(relays.read, relay.base, got, [TRADES])
        await relays.until(lambda: got.last(TRADES) == 1)
        seen: list[client.Update] = []
        nursery.start_soon(_collect, relay.base.replace("http", "ws") + "/ws", seen)
        await relays.until(lambda: bool(seen))
        first.close(linger=0)
        await relays.until(lambda: any(m["type"] == "upstream" for m in got.others))
        _, feeds = await relay.get("/feeds")
        status, ready = await relay.get("/ready")
        late = relays.Got()
        nursery.start_soon(relays.read, relay.base, late, [TRADES])
        await relays.until(lambda: late.last(TRADES) == 1)
        second = context.socket(zmq.XPUB)
        second.bind(address)
        publisher = Publisher(second, address)
        await subscribed(publisher)
        publisher.send(relays.numbered(relays.trade(4), 4))
        await relays.until(lambda: got.last(TRADES) == 4)
        await relays.until(lambda: len([m for m in got.others if m["type"] == "upstream"]) == 2)
    context.destroy(linger=0)

    assert [update.live for update in seen if isinstance(update, client.Upstream)] == [False, True]
    told = [message for message in got.others if message["type"] == "upstream"]
    assert [message["state"] for message in told] == ["lost", "live"]
    assert told[0].keys() == UPSTREAM.schema["properties"].keys()
    assert [message["type"] for message in late.others[:2]] == ["upstream", "ack"]
    assert feeds["feeds"][0]["state"] == "stale"
    assert status == 503
    assert "ended" in ready["reasons"][0]
    assert got.kinds(TRADES) == [("trade", 1), ("gap", 3), ("trade", 4)]


async def test_a_late_relay_fetches_books_and_lists_from_the_upstream(
    relays: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/feed.sock"
    sinks = {"zmq": {"bind": address, "snapshot": False, "conflate": False}}
    async with relays.run(tmp_path, sinks=sinks) as upstream:
        bus = upstream.daemon.bus
        book = bus.topic("book", "example", "BTC-USDT")
        held = relays.snapshot(0, "100", "99")
        book.book = lambda: held
        bus.publish([held, relays.quote(1), relays.trade(1), relays.trade(2)])
        async with relays.run(tmp_path, sources=source(address, upstream=upstream.base)) as relay:
            await relay.until(lambda: relay.daemon.bus.upstream.open)
            mirror = relay.daemon.bus
            await relay.until(lambda: mirror.get(BOOK) is not None and mirror.book(BOOK) is not None)
            bus.publish([relays.delta(2, "101")])
            got = relays.Got()
            nursery.start_soon(relays.read, relay.base, got, ["*:*:*"])
            await relays.until(lambda: got.last(BOOK) == 2)
            await relays.until(lambda: got.last(QUOTES) == 1)

            # A change is lost on the way: the relay asks for the whole book again.
            held = relays.snapshot(4, "103", "102", "101", "100")
            book.seq += 1
            bus.publish([relays.delta(4, "103")])
            await relays.until(lambda: got.last(BOOK) == 4)
            # And so are trades, which the upstream still has.
            topic = bus.get(TRADES)
            assert topic is not None
            readers, topic.readers = topic.readers, {}
            bus.publish([relays.trade(3), relays.trade(4)])
            topic.readers = readers
            bus.publish([relays.trade(5)])
            await relays.until(lambda: got.last(TRADES) == 5)

    kinds = got.kinds(BOOK)
    assert ("gap", 3) in kinds
    assert kinds[-1] == ("book", 4)
    assert got.messages[-1]["topic"] == TRADES
    [whole] = [m for m in got.messages if m["topic"] == BOOK and m["seq"] == 4 and m["type"] == "book"]
    assert [level[0] for level in whole["data"]["bids"]] == ["103", "102", "101", "100"]
    assert got.seqs(TRADES) == [2, 3, 4, 5]
    assert relay.report.recovered >= 3


async def test_a_relay_of_a_relay_goes_on_with_the_same_numbers(
    relays: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    first, second = f"ipc://{tmp_path}/first.sock", f"ipc://{tmp_path}/second.sock"
    async with (
        relays.run(tmp_path / "a", sinks={"zmq": {"bind": first, "conflate": False}}) as upstream,
        relays.run(
            tmp_path / "b", sources=source(first), sinks={"zmq": {"bind": second, "conflate": False}}
        ) as middle,
        relays.run(tmp_path / "c", sources=source(second)) as last,
    ):
        bus = upstream.daemon.bus
        bus.publish([relays.snapshot(1, "100"), relays.delta(2, "101"), relays.trade(1)])
        await last.until(lambda: last.daemon.bus.upstream.open)
        await last.until(lambda: last.daemon.bus.get(BOOK) is not None)
        got = relays.Got()
        nursery.start_soon(relays.read, last.base, got, ["*:*:*"])
        await relays.until(lambda: got.last(BOOK) == 2)
        bus.publish([relays.delta(3, "102"), relays.trade(2), relays.quote(1)])
        await relays.until(lambda: got.last(QUOTES) == 1)

        assert upstream.daemon.epoch == middle.daemon.epoch == last.daemon.epoch == got.welcome["epoch"]
        assert got.seqs(BOOK) == [2, 3]
        assert got.seqs(TRADES) == [1, 2]


async def test_accounts_are_relayed_to_those_who_may_read_them(
    relays: Any,
    publisher: Publisher,
    nursery: trio.Nursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RELAY_TEST_KEY", "swordfish-swordfish")
    keys = [{"name": "bot", "key": {"env": "RELAY_TEST_KEY"}, "scopes": ["read", "account:main"]}]
    section = source(publisher.address, accounts=["main"])

    def balance(account: str) -> Any:
        event = AccountEvent(
            **relays.common("BTC-USDT", 1), account=account, kind="balance", key="k1", fields={"coin": "BTC"}
        )
        return relays.Numbered(f"balance:bybit:{account}", 5, attrs.evolve(event, venue="bybit"))

    async with relays.run(tmp_path, sources=section, web={"keys": keys}) as relay:
        await subscribed(publisher)
        publisher.send(balance("main"))
        publisher.send(balance("other"))
        await relay.until(lambda: relay.daemon.bus.upstream.open and relay.report.unwanted == 1)
        may, may_not = relays.Got(), relays.Got()
        topics = ["balance:bybit:main", "*:*:*"]
        nursery.start_soon(partial(relays.read, relay.base, may, topics, api_key="swordfish-swordfish"))
        nursery.start_soon(relays.read, relay.base, may_not, topics)
        await relays.until(lambda: bool(may.messages) and bool(may_not.others))

    assert may.kinds("balance:bybit:main") == [("balance", 5)]
    assert may_not.messages == []
    [refused] = [m for m in may_not.others if m["type"] == "ack"]
    assert refused["results"][0]["error"]["code"] == "forbidden"


async def test_symbols_are_those_that_the_upstream_lists(relays: Any, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/feed.sock"
    async with relays.run(tmp_path / "u", sinks={"zmq": {"bind": address}}) as upstream:
        listed = Instrument(
            venue="example",
            market="spot",
            name="BTC-USDT",
            symbol="BTCUSDT",
            kind=Kind.SPOT,
            base="BTC",
            quote="USDT",
        )
        upstream.daemon.directory.put(InstrumentMap("example", "spot", [listed]))
        upstream.daemon.bus.publish([relays.trade(1)])
        section = source(address, upstream=upstream.base)
        async with relays.run(tmp_path / "r", sources=section) as relay:
            await relay.until(lambda: bool(relay.daemon.directory.maps()))
            await relay.until(lambda: relay.daemon.bus.upstream.open)
            _, rows = await relay.get("/api/v1/instruments")
            _, theirs = await upstream.get("/api/v1/instruments")
            _, found = await relay.get("/api/v1/latest?topics=trade:example:BTCUSDT,trade:example:BTC-USDC")

    assert rows == theirs
    assert found["results"][0]["as"] == TRADES
    assert found["results"][1]["error"]["did_you_mean"] == ["BTC-USDT"]


async def test_a_relay_without_an_upstream_of_its_own_knows_the_names_that_came(
    relays: Any, publisher: Publisher, tmp_path: Path
) -> None:
    async with relays.run(tmp_path, sources=source(publisher.address)) as relay:
        await subscribed(publisher)
        publisher.send(relays.numbered(relays.trade(1), 1))
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        _, found = await relay.get("/api/v1/latest?topics=trade:example:BTC-USDT,trade:example:NEW-USDT")

    assert [result["ok"] for result in found["results"]] == [True, True]


async def test_50_000_messages_reach_readers_of_two_relays(
    relays: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/{secrets.token_hex(4)}.sock"
    sinks = {"zmq": {"bind": address, "conflate": False, "queue_bytes": 100_000_000}}
    names = [f"I{number}-USDT" for number in range(9)]
    trades = [f"trade:example:{name}" for name in names]
    topics = [*trades, QUOTES]
    async with (
        relays.run(tmp_path / "u", sinks=sinks) as upstream,
        relays.run(tmp_path / "a", sources=source(address)) as a,
        relays.run(tmp_path / "b", sources=source(address)) as b,
    ):
        bus = upstream.daemon.bus
        bus.publish([relays.quote(1), *(relays.trade(1, name) for name in names)])
        for relay in (a, b):
            bus_of = relay.daemon.bus
            await relays.until(lambda bus_of=bus_of: bus_of.upstream.open and len(bus_of) == 10)
        readers = [relays.Got(), relays.Got()]
        for relay, got in zip((a, b), readers, strict=True):
            nursery.start_soon(partial(relays.read, relay.base, got, topics, batch_ms=20))
            await relays.until(lambda got=got: len(got.messages) == 10)
        for n in range(2, 5_001):
            bus.publish([relays.quote(n), *(relays.trade(n, name) for name in names)])
            if n % 50 == 0:
                # At the pace of the slower reader: ZeroMQ has no way to wait for its subscribers.
                await relays.until(lambda n=n: min(got.last(trades[0]) for got in readers) > n - 500)
        for got in readers:
            await relays.until(lambda got=got: all(got.last(topic) == 5_000 for topic in topics), 90)

    for relay, got in zip((a, b), readers, strict=True):
        for topic in trades:
            assert got.seqs(topic) == list(range(1, 5_001))
        # Of state a reader that lags gets the newest, and is told of the rest.
        tracker = Tracker(got.welcome["epoch"])
        for message in got.messages:
            assert not [found for found in tracker.take(message) if isinstance(found, client.Missed)]
        report = relay.report
        assert (report.gaps, report.conflated, report.messages - report.duplicates) == (0, 0, 50_000)
    texts = [{(m["topic"], m["seq"]): m for m in got.messages if m["type"] != "conflated"} for got in readers]
    assert all(texts[0][key] == texts[1][key] for key in texts[0].keys() & texts[1].keys())
