"""The relay over RabbitMQ's streams, which a plain publisher fills in the documented form."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import orjson
import pytest
import trio

TRADES, QUOTES = "trade:example:BTC-USDT", "quote:example:BTC-USDT"


@pytest.fixture
def streams(relays: Any, rabbitmq_url: str) -> Iterator[Any]:
    found = relays.Streams(rabbitmq_url, "trade", "quote")
    yield found
    found.close()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the section of a relay of some streams."""

    def made(streams: Any, **keys: Any) -> dict[str, Any]:
        return {"relay": {"rabbitmq": reference(monkeypatch, streams.url), "queues": streams.queues, **keys}}

    return made


def reference(monkeypatch: pytest.MonkeyPatch, secret: str) -> dict[str, str]:
    name = f"RELAY_TEST_{secrets.token_hex(4)}"
    monkeypatch.setenv(name, secret)
    return {"env": name}


def trades(
    relays: Any, first: int, last: int, instrument: str = "BTC-USDT", at_ns: int | None = None
) -> list[Any]:
    at_ns = time.time_ns() if at_ns is None else at_ns
    return [relays.numbered(relays.trade(n, instrument, at_ns), n) for n in range(first, last + 1)]


async def publish(streams: Any, messages: list[Any], epoch: str = "one") -> None:
    await trio.to_thread.run_sync(streams.publish, messages, epoch)


async def test_the_past_is_read_first_and_then_what_comes(
    relays: Any, streams: Any, source: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    await publish(streams, trades(relays, 1, 300))
    async with relays.run(tmp_path, sources=source(streams)) as relay:
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        caught_up_at = relay.daemon.bus.get(TRADES).seq
        got = relays.Got()
        since = {"epoch": "one", "seq": {TRADES: 120}}
        nursery.start_soon(partial(relays.read, relay.base, got, [TRADES, QUOTES], since=since))
        await relays.until(lambda: got.last(TRADES) == 300)
        streams.publish_raw("trade.example.x", b"garbage")
        streams.publish_raw("trade.example.x", b'{"event_id":"x"}')
        await publish(streams, trades(relays, 295, 400))
        await publish(streams, [relays.numbered(relays.quote(9), 9)])
        await relays.until(lambda: got.last(TRADES) == 400 and got.last(QUOTES) == 9)
        status, facts = await relay.get("/status")

    assert caught_up_at == 300
    assert got.seqs(TRADES) == list(range(121, 401))
    assert not [m for m in got.messages if m["type"] == "gap"]
    assert status == 200
    assert facts["source"]["state"] == "up"
    assert (facts["source"]["unreadable"], facts["source"]["duplicates"]) == (2, 6)
    assert facts["source"]["positions"][streams.queues[0]] == 300 + 2 + 106 - 1
    kept = orjson.loads((tmp_path / "sources/relay/positions.json").read_bytes())
    assert kept["streams"][streams.queues[0]]["offset"] == 407
    assert "guest:" not in str(kept)


async def test_a_relay_that_begins_again_reads_what_it_missed_and_enough_of_the_past(
    relays: Any, streams: Any, source: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    await publish(streams, trades(relays, 1, 100))
    async with relays.run(tmp_path, sources=source(streams)) as relay:
        await relay.until(lambda: relay.daemon.bus.upstream.open)
    await publish(streams, trades(relays, 101, 200))
    async with relays.run(tmp_path, sources=source(streams)) as relay:
        got = relays.Got()
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        since = {"epoch": "one", "seq": {TRADES: 50}}
        nursery.start_soon(partial(relays.read, relay.base, got, [TRADES], since=since))
        await relays.until(lambda: got.last(TRADES) == 200)

    assert got.seqs(TRADES) == list(range(51, 201))

    # With no past wanted, it goes on where it was, so that nothing is missed in between.
    await publish(streams, trades(relays, 201, 230))
    async with relays.run(tmp_path, sources=source(streams, history_s=0.0)) as relay:
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        topic = relay.daemon.bus.get(TRADES)
        assert [message.seq for message in topic.history][-30:] == list(range(201, 231))


async def test_only_the_newest_epoch_of_the_past_counts(
    relays: Any, streams: Any, source: Any, tmp_path: Path
) -> None:
    now = time.time_ns()
    await publish(streams, trades(relays, 1, 500, at_ns=now - 60_000_000_000), "first")
    quote = attrs.evolve(relays.quote(7), received_ns=now - 90_000_000_000)
    await publish(streams, [relays.numbered(quote, 7)], "ancient")
    await publish(streams, trades(relays, 1, 20, at_ns=now), "second")
    await publish(streams, trades(relays, 501, 505, at_ns=now), "first")
    async with relays.run(tmp_path, sources=source(streams)) as relay:
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        bus = relay.daemon.bus

        assert bus.epoch == "second"
        assert [message.seq for message in bus.get(TRADES).history] == list(range(1, 21))
        assert relay.report.outdated >= 5


async def test_a_stream_that_was_made_anew_is_read_from_its_beginning(
    relays: Any, streams: Any, source: Any, tmp_path: Path
) -> None:
    await publish(streams, trades(relays, 1, 300))
    async with relays.run(tmp_path, sources=source(streams, history_s=0.0)) as relay:
        await relay.until(lambda: relay.report.state == "up")
        await publish(streams, trades(relays, 301, 302))
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        await relay.until(lambda: relay.daemon.bus.get(TRADES).seq == 302)
        assert [message.seq for message in relay.daemon.bus.get(TRADES).history] == [301, 302]
    queue = streams.queues[0]
    streams.channel.queue_delete(queue)
    streams.declare(queue)
    streams.channel.queue_bind(queue, streams.exchange, "trade.#")
    await publish(streams, trades(relays, 303, 310))
    async with relays.run(tmp_path, sources=source(streams, history_s=0.0)) as relay:
        await relay.until(lambda: relay.daemon.bus.get(TRADES) is not None)
        await relay.until(lambda: relay.daemon.bus.get(TRADES).seq == 310)
        assert [message.seq for message in relay.daemon.bus.get(TRADES).history] == list(range(303, 311))


async def test_a_stream_that_is_not_there_is_waited_for_and_told(
    relays: Any, streams: Any, source: Any, tmp_path: Path
) -> None:
    missing = f"{streams.exchange}.later"
    section = source(streams)
    section["relay"]["queues"] = [missing]
    async with relays.run(tmp_path, sources=section) as relay:
        await relay.until(lambda: relay.report.state == "lost")
        status, ready = await relay.get("/ready")
        streams.declare(missing)
        streams.queues.append(missing)
        streams.channel.queue_bind(missing, streams.exchange, "trade.#")
        await publish(streams, trades(relays, 1, 3))
        await relay.until(lambda: relay.daemon.bus.upstream.open)

    assert status == 503
    assert missing in ready["reasons"][0]


async def test_the_broker_goes_and_comes_back(
    relays: Any, own_rabbitmq: Any, source: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    streams = await trio.to_thread.run_sync(relays.Streams, own_rabbitmq.url, "trade")
    await publish(streams, trades(relays, 1, 500))
    async with relays.run(tmp_path, sources=source(streams)) as relay:
        await relay.until(lambda: relay.daemon.bus.upstream.open)
        got = relays.Got()
        nursery.start_soon(relays.read, relay.base, got, [TRADES])
        await relays.until(lambda: got.last(TRADES) == 500)
        # Not killed: RabbitMQ itself forgets a stream that was declared a moment before it is.
        await trio.to_thread.run_sync(own_rabbitmq.stop)
        await relays.until(lambda: bool(relay.daemon.bus.upstream.away))
        await trio.to_thread.run_sync(own_rabbitmq.start)
        # The broker is back sooner than its streams, and what is published in between goes nowhere.
        await relay.until(lambda: relay.report.state == "up", 60)
        await trio.to_thread.run_sync(streams.again)
        await publish(streams, trades(relays, 501, 600))
        await relays.until(lambda: got.last(TRADES) == 600, 60)
        await relays.until(lambda: len([m for m in got.others if m["type"] == "upstream"]) >= 2)

    assert got.seqs(TRADES) == list(range(500, 601))
    told = [m["state"] for m in got.others if m["type"] == "upstream"]
    assert (told[0], told[-1]) == ("lost", "live")
    await trio.to_thread.run_sync(streams.close)


async def test_what_the_real_sink_publishes_is_what_the_relay_serves(
    relays: Any, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, tmp_path: Path
) -> None:
    name = f"relay-test-{secrets.token_hex(6)}"
    classes = ("trade", "quote", "candle", "book")
    others = ("ticker", "price", "liquidation", "order", "execution", "position", "balance")
    url = reference(monkeypatch, rabbitmq_url)
    sink = {
        "url": url,
        "exchange": name,
        "queue_prefix": f"{name}.",
        "queue_type": "stream",
        "conflate": False,
        "queues": {other: {"enabled": False} for other in others},
    }
    queues = [f"{name}.{one}" for one in classes]
    try:
        async with relays.run(tmp_path / "u", sinks={"rabbitmq": sink}) as upstream:
            bus, report = upstream.daemon.bus, upstream.daemon.sinks["rabbitmq"].report
            await upstream.until(lambda: report.state == "up", 30)
            events = [relays.snapshot(1, "100", "99")]
            for n in range(2, 300):
                events += [relays.trade(n), relays.quote(n), relays.candle(n), relays.delta(n, f"{n}.5")]
            bus.publish(events)
            await upstream.until(lambda: report.delivered >= len(events), 30)
            source = {"relay": {"rabbitmq": url, "queues": queues, "upstream": upstream.base}}
            async with relays.run(tmp_path / "r", sources=source) as relay:
                await relay.until(lambda: relay.daemon.bus.upstream.open)
                mirror = relay.daemon.bus
                topics = ["trade", "quote", "candle_1m", "book"]
                for topic in topics:
                    there = bus.get(f"{topic}:example:BTC-USDT")
                    here = mirror.get(there.name)
                    await relay.until(lambda here=here, there=there: here.seq == there.seq)
                    assert [m.text for m in here.history] == [m.text for m in there.history]
                book = mirror.book("book:example:BTC-USDT")
                got = relays.Got()
                nursery.start_soon(relays.read, relay.base, got, ["*:*:*"])
                await relays.until(lambda: got.last("candle_1m:example:BTC-USDT") == 298)
                bus.publish([relays.trade(300), relays.delta(300, "500")])
                await relays.until(lambda: got.last(TRADES) == 299)
                assert mirror.epoch == bus.epoch
                assert relay.report.gaps == relay.report.unreadable == 0
                assert len(book.event.bids) == 300
    finally:
        streams = relays.Streams(rabbitmq_url)
        for queue in queues:
            streams.channel.queue_delete(queue)
        streams.channel.exchange_delete(name)
        streams.close()


# --- two relays, and readers that go from one to the other ------------------------------------------------


class Process:
    """A relay as a process of its own, to be killed."""

    def __init__(self, folder: Path, streams: Any) -> None:
        folder.mkdir()
        port_file = folder / "log.json"
        listed = ", ".join(f'"{queue}"' for queue in streams.queues)
        (folder / "pricefeedd.toml").write_text(
            "[web]\nlisten = ['127.0.0.1:0']\nhistory_events = 100000\nclient_queue_bytes = 50000000\n"
            f"[sources.relay]\nrabbitmq = {{ env = 'RELAY_URL' }}\nqueues = [{listed}]\n"
            "[logging]\nformat = 'json'\n"
        )
        environ = os.environ | {"STATE_DIRECTORY": str(folder), "RELAY_URL": streams.url}
        with port_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pricefeedd.cli", "run", "--config", str(folder / "pricefeedd.toml")],
                env=environ,
                stderr=log,
                stdout=log,
            )
        self._log = port_file

    def base(self) -> str | None:
        """Return where it serves, once it does."""
        for line in self._log.read_bytes().splitlines():
            if b'"serving"' in line:
                return str(orjson.loads(line)["binds"][0])
        return None

    def kill(self) -> None:
        """Give it no time for anything."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


async def test_50_000_messages_and_a_reader_that_goes_on_at_another_relay(
    relays: Any, streams: Any, source: Any, nursery: trio.Nursery, tmp_path: Path
) -> None:
    names = [f"I{number}-USDT" for number in range(9)]
    topics = [f"trade:example:{name}" for name in names] + [QUOTES]

    def some(first: int, last: int) -> list[Any]:
        at_ns = time.time_ns()
        messages = []
        for n in range(first, last + 1):
            messages += [relays.numbered(relays.trade(n, name, at_ns), n) for name in names]
            messages.append(relays.numbered(relays.quote(n), n))
        return messages

    a = Process(tmp_path / "a", streams)
    try:
        await publish(streams, some(1, 500))
        async with relays.run(tmp_path / "b", sources=source(streams)) as b:
            await relays.until(lambda: a.base() is not None, 30)
            first = a.base()
            assert first is not None
            await b.until(lambda: b.daemon.bus.upstream.open)
            async with httpx.AsyncClient() as http:
                with trio.fail_after(20):
                    while (await http.get(first + "/ready")).status_code != 200:  # noqa: ASYNC110  # a process
                        await trio.sleep(0.05)
            mover, stayer, then = relays.Got(), relays.Got(), relays.Got()
            begin = {"epoch": "one", "seq": dict.fromkeys(topics, 0)}
            gone = trio.Event()

            async def read_until_killed() -> None:
                try:
                    await relays.read(first, mover, topics, since=begin, batch_ms=20)
                finally:
                    gone.set()

            nursery.start_soon(read_until_killed)
            nursery.start_soon(partial(relays.read, b.base, stayer, topics, since=begin, batch_ms=20))
            await publish(streams, some(501, 2_500))
            await relays.until(lambda: mover.last(topics[0]) >= 1_500, 60)
            nursery.start_soon(publish, streams, some(2_501, 5_000))
            await relays.until(lambda: mover.last(topics[0]) >= 2_600, 60)
            a.kill()
            with trio.fail_after(10):
                await gone.wait()
            since = relays.position(mover, *topics)
            nursery.start_soon(partial(relays.read, b.base, then, topics, since=since, batch_ms=20))
            for got in (stayer, then):
                await relays.until(lambda got=got: all(got.last(topic) == 5_000 for topic in topics), 90)
    finally:
        a.kill()

    every = list(range(1, 5_001))
    killed_at = mover.last(topics[0])
    assert 2_600 <= killed_at < 5_000
    for topic in topics[:-1]:
        assert stayer.seqs(topic) == every
        # The other relay may have been a little behind: then it repeats what the reader has.
        ours = mover.seqs(topic)
        assert ours == every[: len(ours)]
        later = then.seqs(topic)
        assert later[0] <= len(ours) + 1
        assert later == every[later[0] - 1 :]
    assert b.report.gaps == 0
    texts = {(m["topic"], m["seq"]): m for m in stayer.messages if m["type"] == "trade"}
    for message in mover.messages + then.messages:
        if message["type"] == "trade":
            assert texts[message["topic"], message["seq"]] == message
