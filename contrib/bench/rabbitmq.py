"""What the RabbitMQ sink does: confirmed messages a second, CPU for each, and how late the daemon's loop is meanwhile.

python contrib/bench/rabbitmq.py                  against the broker of the machine
python contrib/bench/rabbitmq.py --restart        and how long it takes to recover, with a broker of its own
"""

from __future__ import annotations

import argparse
import importlib.util
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import trio

from pricefeedd.bus import Bus
from pricefeedd.config import Config, SinkConfig, VenueConfig
from pricefeedd.config.settings import AccountConfig
from pricefeedd.events import AccountEvent, Event, Trade
from pricefeedd.lanes import SinkLanes
from pricefeedd_rabbitmq import pricefeedd_sinks
from pricefeedd_rabbitmq.settings import QueueSettings, RabbitSettings

BROKERS = Path(__file__).parents[2] / "tests" / "services" / "brokers.py"


def trade(number: int) -> Event:
    """Return a trade."""
    return Trade(
        venue="bybit",
        instrument="BTC-USDT",
        venue_time_ns=time.time_ns(),
        received_ns=time.time_ns(),
        id=str(number),
        price="65000.10",
        size="0.5",
        aggressor=None,
    )


def order(number: int) -> Event:
    """Return what an account is told of an order."""
    fields = {"order_id": str(number), "status": "filled", "price": "65000.10", "size": "0.5"}
    return AccountEvent(
        venue="bybit",
        instrument="BTC-USDT",
        received_ns=time.time_ns(),
        account="main",
        kind="order",
        key=str(number),
        fields=fields,
    )


class Late:
    """How late a task that sleeps a millisecond wakes up: the delay that everybody on the loop has."""

    def __init__(self) -> None:
        self.found: list[float] = []

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            before = trio.current_time()
            await trio.sleep(0.001)
            self.found.append(trio.current_time() - before - 0.001)

    def __str__(self) -> str:
        found = sorted(self.found)
        return f"{found[len(found) // 2] * 1e3:>7.2f} {found[int(len(found) * 0.99)] * 1e3:>7.2f} {found[-1] * 1e3:>7.1f}"


class Rig:
    """A bus with the sink behind it."""

    def __init__(self, url: str, folder: Path, kind: str) -> None:
        name = f"bench-{secrets.token_hex(4)}"
        none: Any = {"ttl_s": 0, "max_length": 0}
        queues = {"trade": QueueSettings(**none)} if kind != "stream" else {}
        self.settings = RabbitSettings(
            url=url, exchange=name, queue_prefix=f"{name}.", queue_type=kind, queues=queues, retry_max_s=1.0
        )
        account = AccountConfig(api_key="k", api_secret="s", channels=("order",))
        venue = VenueConfig(name="bybit", plugin="bybit", accounts={"main": account})
        section = SinkConfig(
            name="rabbitmq",
            plugin="rabbitmq",
            accounts=("*",),
            queue_bytes=1 << 26,
            settings=self.settings,
        )
        self.bus = Bus()
        (sink,) = pricefeedd_sinks()
        config = Config(venues={"bybit": venue}, state_dir=folder)
        self.lanes = SinkLanes(self.bus, sink, config, section)
        self.published = 0

    async def feed(self, make: Callable[[int], Event], count: int) -> None:
        """Publish so many, a few thousand ahead of the broker."""
        begin = self.published
        while self.published < begin + count:
            if self.published - self.lanes.report.delivered < 4000:
                self.bus.publish([make(number) for number in range(self.published, self.published + 100)])
                self.published += 100
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(0.001)

    async def arrived(self) -> None:
        """Wait until the broker confirmed everything."""
        await until(lambda: self.lanes.report.delivered >= self.published)

    def clean(self) -> None:
        """Remove queues and exchange."""
        with pika.BlockingConnection(pika.URLParameters(self.settings.url)) as connection:
            channel = connection.channel()
            for queue in self.settings.queues_wanted():
                channel.queue_delete(queue.name)
            channel.exchange_delete(self.settings.exchange)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens in a thread and at a broker; neither has an event here."""
    while not condition():  # noqa: ASYNC110  # see above
        await trio.sleep(0.001)


async def up(rig: Rig) -> None:
    """Wait for the connection."""
    await until(lambda: rig.lanes.report.state == "up")


async def measure(url: str, kind: str, what: str, make: Callable[[int], Event], count: int) -> None:
    """Print one row."""
    with tempfile.TemporaryDirectory() as folder:
        rig, late = Rig(url, Path(folder), kind), Late()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.lanes.run)
            await up(rig)
            nursery.start_soon(late.run)
            begun, cpu = time.perf_counter(), time.process_time()
            await rig.feed(make, count)
            await rig.arrived()
            took, cpu = time.perf_counter() - begun, time.process_time() - cpu
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(rig.clean)
        print(f"{kind:8} {what:10} {count / took:>10,.0f} {cpu / count * 1e6:>8.1f} {late}")


async def restart(count: int) -> None:
    """Print how long it takes until all is well again after a broker was killed."""
    spec = importlib.util.spec_from_file_location("brokers", BROKERS)
    assert spec is not None
    assert spec.loader is not None
    brokers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(brokers)
    with tempfile.TemporaryDirectory() as folder:
        broker = brokers.Broker(Path(folder) / "broker")
        try:
            await trio.to_thread.run_sync(broker.start)
            rig = Rig(broker.url, Path(folder) / "state", "classic")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.lanes.run)
                await up(rig)
                await trio.to_thread.run_sync(broker.kill)
                await until(lambda: rig.lanes.report.state != "up")
                rig.bus.publish([order(number) for number in range(count)])
                rig.published += count
                await trio.to_thread.run_sync(broker.start)
                begun = time.perf_counter()
                await up(rig)
                back_s = time.perf_counter() - begun
                await rig.arrived()
                print(
                    f"killed, and there again: connected after {back_s:.2f} s, "
                    f"{count} events that had waited delivered after {time.perf_counter() - begun:.2f} s"
                )
                nursery.cancel_scope.cancel()
        finally:
            broker.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the RabbitMQ sink.")
    parser.add_argument("--url", default="amqp://guest:guest@127.0.0.1:5672/%2F")
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--restart", action="store_true")
    arguments = parser.parse_args()
    print(f"{'':19} {'confirmed':>10} {'CPU':>8} {'loop is late, ms':>23}")
    print(f"{'queues':8} {'what':10} {'a second':>10} {'µs each':>8} {'p50':>7} {'p99':>7} {'worst':>7}")
    for kind in ("classic", "quorum", "stream"):
        await measure(arguments.url, kind, "market", trade, arguments.count)
        await measure(arguments.url, kind, "accounts", order, arguments.count)
    if arguments.restart:
        await restart(5_000)


if __name__ == "__main__":
    trio.run(main)
