"""The RabbitMQ sink against real brokers: what arrives, what is kept while they are away, and what is said of it."""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import orjson
import pika
import pytest
import structlog
import trio

from pricefeedd.bus import Bus
from pricefeedd.config import Config, SinkConfig, VenueConfig
from pricefeedd.config.settings import AccountConfig
from pricefeedd.events import AccountEvent, BookSnapshot, Candle, Event, Gap, Quote, State, Status, Trade
from pricefeedd.hookspecs import SinkReport
from pricefeedd.lanes import SinkLanes
from pricefeedd_rabbitmq import pricefeedd_sinks
from pricefeedd_rabbitmq.settings import QueueSettings, RabbitSettings

EXAMPLE = Path(__file__).parents[2] / "contrib" / "examples" / "rabbitmq_consumer.py"


def told(kind: str, number: int, account: str = "main", *, pad: int = 0) -> AccountEvent:
    return AccountEvent(
        venue="bybit",
        instrument="BTC-USDT",
        received_ns=time.time_ns(),
        account=account,
        kind=kind,
        key=f"{kind}-{account}-{number}",
        fields={"number": number, "pad": "x" * pad},
    )


def trade(number: int, instrument: str = "BTC-USDT") -> Trade:
    return Trade(
        venue="bybit",
        instrument=instrument,
        venue_time_ns=1_700_000_000_123_456_000,
        received_ns=time.time_ns(),
        id=str(number),
        price="65000.10",
        size="0.5",
        aggressor=None,
    )


@attrs.frozen
class Got:
    """One message as a consumer has it."""

    key: str
    properties: Any
    body: dict[str, Any]


class Rig:
    """A bus with the sink behind it, and a consumer at the other side."""

    def __init__(self, folder: Path, url: str, settings: RabbitSettings, section: SinkConfig) -> None:
        channels = ("order", "execution", "position", "balance")
        account = AccountConfig(api_key="k", api_secret="s", channels=channels)
        venue = VenueConfig(name="bybit", plugin="bybit", accounts={"main": account, "spare": account})
        config = Config(venues={"bybit": venue}, state_dir=folder)
        self.url = url
        self.settings = settings
        self.bus = Bus()
        (sink,) = pricefeedd_sinks()
        self.lanes = SinkLanes(self.bus, sink, config, section)

    @property
    def report(self) -> SinkReport:
        return self.lanes.report

    def publish(self, *events: Event) -> None:
        self.bus.publish(list(events))

    async def until(self, condition: Callable[[], object], *, within_s: float = 10.0) -> None:
        """Wait for what happens in a thread and at a broker; neither has an event here."""
        with trio.move_on_after(within_s):
            while not condition():  # noqa: ASYNC110  # see above
                await trio.sleep(0.01)
        assert condition(), self.lanes.describe(time.time_ns())

    async def up(self) -> None:
        await self.until(lambda: self.report.state == "up")

    async def idle(self, *, within_s: float = 20.0) -> None:
        """Wait until nothing waits any more."""
        kept = self.lanes.kept
        assert kept is not None
        await self.until(lambda: kept.idle and not self.report.waiting, within_s=within_s)

    def queue(self, name: str) -> str:
        return self.settings.queue_prefix + name

    async def call(self, action: Callable[[Any], Any]) -> Any:
        """Do something on a channel of pika's."""

        def run() -> Any:
            connection = pika.BlockingConnection(pika.URLParameters(self.url))
            try:
                return action(connection.channel())
            finally:
                if connection.is_open:
                    connection.close()

        return await trio.to_thread.run_sync(run)

    async def take(self, name: str) -> list[Got]:
        """Return all that waits in a queue, and leave it empty."""

        def drain(channel: Any) -> list[Got]:
            found = []
            while True:
                method, properties, body = channel.basic_get(self.queue(name), auto_ack=True)
                if method is None:
                    return found
                found.append(Got(method.routing_key, properties, orjson.loads(body)))

        return list(await self.call(drain))

    async def clean(self) -> None:
        def delete(channel: Any) -> None:
            for queue in self.settings.queues_wanted():
                channel.queue_delete(queue.name)
            channel.exchange_delete(self.settings.exchange)

        await self.call(delete)


@asynccontextmanager
async def sinking(
    folder: Path, url: str, name: str = "", *, clean: bool = True, queue_bytes: int = 8_388_608, **more: Any
) -> AsyncIterator[Rig]:
    """Run the sink on names of its own."""
    name = name or f"test-{secrets.token_hex(6)}"
    more = {"backlog_s": 0.2, "retry_max_s": 1.0, **more}
    settings = RabbitSettings(url=url, exchange=name, queue_prefix=f"{name}.", **more)
    section = SinkConfig(
        name="rabbitmq", plugin="rabbitmq", accounts=("*",), queue_bytes=queue_bytes, settings=settings
    )
    rig = Rig(folder, url, settings, section)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.lanes.run)
        try:
            yield rig
        finally:
            nursery.cancel_scope.cancel()
    if clean:
        await rig.clean()


def numbers(got: list[Got]) -> list[int]:
    return [message.body["payload"]["number"] for message in got]


def first_of_each(got: list[Got]) -> list[Got]:
    """Return what is left when repetitions are dropped as consumers are told to."""
    return list({message.properties.message_id: message for message in reversed(got)}.values())[::-1]


# --- what arrives -----------------------------------------------------------------------------------------------


async def test_a_message_is_what_the_readme_says(rabbitmq_url: str, tmp_path: Path) -> None:
    async with sinking(tmp_path, rabbitmq_url) as rig:
        await rig.up()
        rig.publish(trade(7), told("order", 1))
        await rig.idle()
        await rig.until(lambda: rig.report.delivered == 2)
        (market,) = await rig.take("trade")
        (order,) = await rig.take("order")

        assert market.key == "trade.bybit.BTC-USDT"
        assert market.body == {
            "event_id": f"{rig.bus.epoch}:trade:bybit:BTC-USDT:1",
            "event_type": "trade",
            "topic": "trade:bybit:BTC-USDT",
            "timestamp": 1_700_000_000_123_456,
            "received_at": market.body["received_at"],
            "origin": "live",
            "epoch": rig.bus.epoch,
            "seq": 1,
            "trace_id": None,
            "payload": {"id": "7", "price": "65000.10", "size": "0.5", "side": None},
        }
        assert market.properties.message_id == market.body["event_id"]
        assert market.properties.content_type == "application/json"
        assert market.properties.type == "trade"
        assert market.properties.timestamp == market.body["received_at"] // 1_000_000
        assert market.properties.headers == {
            "topic": "trade:bybit:BTC-USDT",
            "seq": 1,
            "epoch": rig.bus.epoch,
        }
        assert market.properties.delivery_mode == 1
        assert order.key == "order.bybit.main"
        assert order.properties.delivery_mode == 2
        assert order.body["payload"]["key"] == "order-main-1"
        assert rig.report.reconnects == 0
        assert rig.report.last_delivered_ns is not None


async def test_each_class_has_its_queue_and_status_goes_where_its_data_goes(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"venue": "bybit", "instrument": "A.B-C", "received_ns": time.time_ns()}
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), "1")
    async with sinking(tmp_path, rabbitmq_url, persistent=True) as rig:
        await rig.up()
        rig.publish(
            Quote(**common, bid_price="1", bid_size="1", ask_price="2", ask_size="1"),
            Candle(**common, start_ns=0, closed=True, **prices),
            Candle(**common, start_ns=0, interval="5m", closed=True, **prices),
            BookSnapshot(**common, bids=[["1", "1"]], asks=[]),
            Status(**common, topic_channel="trade", state=State.STALE, reason="silence"),
            Gap(
                **common | {"instrument": "main"}, topic_channel="balance", from_ns=1, to_ns=2, reason="away"
            ),
        )
        await rig.until(lambda: rig.report.delivered == 6)
        found = {
            name: [
                (got.key, got.body["event_type"], got.properties.delivery_mode)
                for got in await rig.take(name)
            ]
            for name in ("quote", "candle", "book", "trade", "balance", "ticker")
        }
    assert found == {
        "quote": [("quote.bybit.A%2EB-C", "quote", 2)],
        "candle": [("candle_1m.bybit.A%2EB-C", "candle_1m", 2), ("candle_5m.bybit.A%2EB-C", "candle_5m", 2)],
        "book": [("book.bybit.A%2EB-C", "book", 2)],
        "trade": [("trade.bybit.A%2EB-C", "status", 2)],
        "balance": [("balance.bybit.main", "gap", 2)],
        "ticker": [],
    }


async def test_backlog_is_told_and_a_queue_that_somebody_deleted_is_made_again(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    async with sinking(tmp_path, rabbitmq_url) as rig:
        await rig.up()
        rig.publish(trade(1), trade(2))
        await rig.until(lambda: rig.report.queues.get(rig.queue("trade")) == 2)
        assert rig.report.queues[rig.queue("order")] == 0
        await rig.call(lambda channel: channel.queue_delete(rig.queue("trade")))
        await rig.until(lambda: rig.report.queues.get(rig.queue("trade")) == 0)
        rig.publish(trade(3))
        await rig.until(lambda: rig.report.queues.get(rig.queue("trade")) == 1)
        assert rig.report.state == "up"


async def test_the_example_consumer_reads_it_with_pika_alone(rabbitmq_url: str, tmp_path: Path) -> None:
    async with sinking(tmp_path, rabbitmq_url) as rig:
        await rig.up()
        repeated = told("order", 2)
        rig.publish(told("order", 1), repeated, repeated, told("order", 3))
        await rig.idle()
        command = [sys.executable, str(EXAMPLE), rig.url, rig.queue("order"), "--count", "3"]
        with trio.fail_after(20):
            ended = await trio.run_process(command, capture_stdout=True)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["payload"]["number"] for line in lines] == [1, 2, 3]
    assert [line["seq"] for line in lines] == [1, 2, 4]


async def test_streams_and_quorum_queues_by_configuration(rabbitmq_url: str, tmp_path: Path) -> None:
    name = f"test-{secrets.token_hex(6)}"
    queues = {
        "trade": QueueSettings(type="stream", name=f"{name}.ws-gateway.trade", max_length_bytes=10_000_000),
        "order": QueueSettings(type="quorum", ttl_s=3600),
        "quote": QueueSettings(ttl_s=60, max_length=5),
    }
    async with sinking(tmp_path, rabbitmq_url, name, queues=queues) as rig:
        await rig.until(lambda: rig.report.state == "up", within_s=20)
        rig.publish(*[trade(number) for number in range(1, 21)], *[told("order", n) for n in range(1, 6)])
        await rig.idle()
        await rig.until(lambda: rig.report.delivered == 25)

        def replay(channel: Any) -> list[str]:
            channel.basic_qos(prefetch_count=50)
            found: list[str] = []
            queue, start = f"{name}.ws-gateway.trade", {"x-stream-offset": "first"}
            for method, _, body in channel.consume(queue, arguments=start, inactivity_timeout=5):
                assert method is not None, found
                channel.basic_ack(method.delivery_tag)
                found.append(orjson.loads(body)["payload"]["id"])
                if len(found) == 20:
                    channel.cancel()
                    return found
            return found

        for _ in range(2):  # to read a stream takes nothing from it
            assert await rig.call(replay) == [str(number) for number in range(1, 21)]
        assert numbers(await rig.take("order")) == [1, 2, 3, 4, 5]

        def same(channel: Any) -> None:
            arguments = {"x-message-ttl": 60_000, "x-max-length": 5, "x-overflow": "drop-head"}
            channel.queue_declare(rig.queue("quote"), durable=True, arguments=arguments)

        await rig.call(same)


# --- what the broker refuses -----------------------------------------------------------------------------------------


async def test_a_queue_that_is_otherwise_is_named_with_the_argument_and_the_rest_goes_on(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    name = f"test-{secrets.token_hex(6)}"
    async with sinking(tmp_path / "a", rabbitmq_url, name, clean=False) as rig:
        await rig.up()
    queues = {"trade": QueueSettings(max_length=77)}
    with structlog.testing.capture_logs() as logs:
        async with sinking(tmp_path / "b", rabbitmq_url, name, queues=queues) as rig:
            await rig.until(lambda: rig.report.state == "down")
            assert f"queue '{name}.trade'" in rig.report.reason
            assert "x-max-length" in rig.report.reason
            assert "[sinks.rabbitmq.queues.trade]" in rig.report.reason
            rig.publish(trade(1), told("order", 1))
            await rig.until(lambda: rig.report.delivered == 2)
            assert len(await rig.take("trade")) == len(await rig.take("order")) == 1
            # When it is out of the way it is made as it should be.
            await rig.call(lambda channel: channel.queue_delete(rig.queue("trade")))
            await rig.up()
    assert [line["event"] for line in logs].count("broker is not as configured") == 1


async def test_what_no_queue_takes_is_counted_or_kept_until_one_does(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    name = f"test-{secrets.token_hex(6)}"
    queues = {"trade": QueueSettings(enabled=False), "order": QueueSettings(enabled=False)}
    async with sinking(tmp_path, rabbitmq_url, name, queues=queues) as rig:
        await rig.up()
        rig.publish(trade(1), trade(2), *[told("order", number) for number in range(1, 51)])
        await rig.until(lambda: rig.report.state == "down")
        assert rig.report.reason == f"no queue is bound for 'order.bybit.main' at exchange '{name}'"
        await rig.until(lambda: rig.report.dropped == {"unroutable": 2})
        rig.publish(told("balance", 1))
        assert rig.lanes.kept is not None
        await rig.until(lambda: rig.lanes.kept is not None and rig.lanes.kept.spool.count == 51)

        def bind(channel: Any) -> None:
            channel.queue_declare(f"{name}.order", durable=True)
            channel.queue_bind(f"{name}.order", name, "order.#")

        await rig.call(bind)
        await rig.idle()
        assert numbers(await rig.take("order")) == list(range(1, 51))
        assert numbers(await rig.take("balance")) == [1]
        await rig.up()
        await rig.call(lambda channel: channel.queue_delete(f"{name}.order"))


async def test_what_a_full_queue_refuses_is_kept_and_comes_in_order_when_there_is_room(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    queues = {"order": QueueSettings(max_length=10, overflow="reject-publish")}
    async with sinking(tmp_path, rabbitmq_url, queues=queues, window=20) as rig:
        await rig.up()
        rig.publish(*[told("order", number) for number in range(1, 61)])
        await rig.until(lambda: rig.report.state == "down")
        assert "refuses what is published; it is full" in rig.report.reason
        got: list[Got] = []
        with trio.fail_after(40):
            while len(first_of_each(got)) < 60:
                got += await rig.take("order")
        assert sorted(numbers(first_of_each(got))) == list(range(1, 61))
        await rig.idle()
        await rig.up()


async def test_a_refused_login_is_said_tried_slowly_and_the_password_stays_secret(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    where = pika.URLParameters(rabbitmq_url)
    url = f"amqp://nobody:hunter2@{where.host}:{where.port}/%2F"
    with structlog.testing.capture_logs() as logs:
        async with sinking(tmp_path, url, clean=False) as rig:
            await rig.until(lambda: rig.report.state == "down")
            assert (
                "refuses user name and password" in rig.report.reason or "ACCESS_REFUSED" in rig.report.reason
            )
            rig.publish(told("order", 1))
            assert rig.lanes.kept is not None
            await rig.until(lambda: rig.lanes.kept is not None and rig.lanes.kept.spool.count == 1)
            said = str((logs, rig.lanes.describe(1), rig.settings))
    assert "hunter2" not in said
    (line,) = [line for line in logs if line["event"] == "broker is away"]
    assert line["delay_s"] >= 6


# --- a broker that goes away -------------------------------------------------------------------------------------------


@pytest.fixture
def broker(own_rabbitmq: Any) -> Iterator[Any]:
    yield own_rabbitmq
    if own_rabbitmq.running:
        own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_nothing_of_accounts_is_lost_while_the_broker_is_away(
    broker: Any, tmp_path: Path, how: str, nursery: trio.Nursery
) -> None:
    async with sinking(tmp_path, broker.url, queue_bytes=60_000) as rig:
        await rig.up()
        sent = {"main": 0, "spare": 0}
        back = trio.Event()

        async def restart() -> None:
            await trio.sleep(0.3)
            await trio.to_thread.run_sync(getattr(broker, how))
            await rig.until(lambda: rig.report.state == "down")
            await trio.to_thread.run_sync(broker.start)
            back.set()

        nursery.start_soon(restart)
        trades = 0
        while not back.is_set() or min(sent.values()) < 1000:
            for account in sent:
                sent[account] += 1
                rig.publish(told("order", sent[account], account))
            trades += 2
            rig.publish(trade(trades - 1), trade(trades))
            await trio.sleep(0.004)
        await rig.idle()
        assert rig.report.reconnects >= 1
        await rig.up()

        got = await rig.take("order")
        for account, count in sent.items():
            mine = [message for message in got if message.body["topic"] == f"order:bybit:{account}"]
            assert numbers(first_of_each(mine)) == list(range(1, count + 1))
            # Repetitions are of what was on its way when the broker went, and in order as well.
            assert len(mine) <= count + 1000
        # Market data: what the queue in memory did not hold is counted, all else was confirmed.
        await rig.until(lambda: not rig.report.waiting)
        lost = rig.report.dropped["slow"]
        assert lost > 0
        assert rig.report.delivered >= sum(sent.values()) + trades - lost
        assert set(rig.report.dropped) == {"slow"}


async def test_a_broker_short_of_memory_is_waited_for(broker: Any, tmp_path: Path) -> None:
    async with sinking(tmp_path, broker.url) as rig:
        await rig.up()
        await trio.to_thread.run_sync(broker.ctl, "set_vm_memory_high_watermark", "0")
        rig.publish(*[told("order", number) for number in range(1, 11)])
        await rig.until(lambda: rig.report.state == "blocked", within_s=20)
        assert "low on memory" in rig.report.reason
        rig.publish(*[told("order", number) for number in range(11, 3001)], *map(trade, range(100)))
        assert rig.lanes.kept is not None
        await rig.until(lambda: rig.lanes.kept is not None and rig.lanes.kept.spool.count >= 2990)
        assert rig.report.waiting <= 1000
        assert rig.report.reconnects == 0
        await trio.to_thread.run_sync(broker.ctl, "set_vm_memory_high_watermark", "0.4")
        await rig.idle()
        await rig.up()
        assert numbers(await rig.take("order")) == list(range(1, 3001))
        assert len(await rig.take("trade")) == 100
        assert rig.report.dropped == {}


async def test_over_tls_the_broker_is_verified(broker: Any, tmp_path: Path) -> None:
    url = f"amqps://guest:guest@localhost:{broker.tls_port}/%2F"
    async with sinking(tmp_path / "a", url, tls_ca_file=str(broker.authority), clean=False) as rig:
        rig.publish(told("order", 1))
        await rig.up()
        await rig.idle()
        rig.url = broker.url
        assert numbers(await rig.take("order")) == [1]
        await rig.clean()
    async with sinking(tmp_path / "b", url, clean=False) as rig:
        await rig.until(lambda: rig.report.state == "down")
        assert "certificate verify failed" in rig.report.reason.lower()


# --- the end ---------------------------------------------------------------------------------------------------------


def _purge(queue: str, channel: Any) -> int:
    """Empty a queue; return how many messages it had."""
    count: int = channel.queue_purge(queue).method.message_count
    return count


async def test_at_the_end_everything_arrives_if_the_broker_is_there(
    rabbitmq_url: str, tmp_path: Path
) -> None:
    name = f"test-{secrets.token_hex(6)}"
    async with sinking(tmp_path, rabbitmq_url, name) as rig:
        await rig.up()
        rig.publish(*map(trade, range(3000)), *[told("order", number) for number in range(3000)])
        rig.lanes.end()
        await rig.until(lambda: rig.report.reason == "it has ended")
        assert rig.report.dropped == {}
        assert rig.lanes.kept is not None
        assert rig.lanes.kept.idle
        for name in ("trade", "order"):
            purge = partial(_purge, rig.queue(name))
            assert await rig.call(purge) == 3000


async def test_at_the_end_nobody_waits_for_a_broker_that_is_away(tmp_path: Path) -> None:
    async with sinking(tmp_path, "amqp://guest:guest@127.0.0.1:1/%2F", clean=False) as rig:
        rig.publish(*[told("order", number) for number in range(10)])
        await rig.until(lambda: rig.report.state == "down")
        rig.lanes.end()
        await rig.until(lambda: rig.report.reason == "it has ended", within_s=2)
        await rig.until(lambda: rig.lanes.kept is not None and rig.lanes.kept.spool.count == 10)


async def test_nothing_is_published_once_another_daemon_may_lead(rabbitmq_url: str, tmp_path: Path) -> None:
    async with sinking(tmp_path, rabbitmq_url) as rig:
        await rig.up()
        rig.publish(*map(trade, range(200)), *[told("order", number) for number in range(200)])
        rig.bus.lease.until = -math.inf  # what was handed out a moment ago lies in the sink
        await rig.until(lambda: "another daemon may lead" in rig.report.last_error)
        assert await rig.take("trade") == []
        assert await rig.take("order") == []
        kept = rig.lanes.kept
        assert kept is not None
        await rig.until(lambda: kept.spool.count == 200)


async def test_a_sink_that_is_cancelled_publishes_no_more(rabbitmq_url: str, tmp_path: Path) -> None:
    name = f"test-{secrets.token_hex(6)}"
    async with sinking(tmp_path, rabbitmq_url, name, clean=False, window=20_000) as rig:
        await rig.up()
        rig.publish(*map(trade, range(20_000)))
        await rig.until(lambda: rig.report.delivered)  # the rest is on its way to the thread, or in it
    count = len(await rig.take("trade"))
    assert rig.report.delivered <= count < 20_000
    await rig.clean()
