"""From an event to a ZeroMQ subscriber, through the real bus, lanes and sink: how many, how late, what does it cost?

uv run contrib/bench/zmq_sink.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from pricefeedd.bus import Bus
from pricefeedd.events import Event, Side, Trade
from pricefeedd.hookspecs import SinkReport
from pricefeedd.lanes import Lanes
from pricefeedd.message import Message
from pricefeedd_zmq.settings import ZmqSettings
from pricefeedd_zmq.sink import Publisher

ENDS = Path(__file__).parent / "zmq_ends.py"
INSTRUMENTS = [f"COIN{number}-USDT" for number in range(100)]
#: So many events come at once, as from one chunk of a venue's socket.
BURST = 50
#: The publisher is not more than this ahead of the sink, so that lanes drop nothing.
AHEAD = 5_000


class SinkLanes(Lanes):
    """The daemon's lanes with what else a sink asks of them."""

    section = "zmq"
    kept = None
    state_dir = Path()

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus, ["*:*:*"], limit_bytes=8 << 20)
        self.epoch = bus.epoch
        self.report = SinkReport()

    async def receive(self) -> list[Message]:  # type: ignore[override]  # a narrower answer
        """Return what is no notice."""
        return [m for m in await super().receive() if isinstance(m, Message)]


def events(first: int, count: int) -> list[Event]:
    """Return trades, received now."""
    now_ns = time.time_ns()
    return [
        Trade(
            venue="binance",
            instrument=INSTRUMENTS[number % 100],
            venue_time_ns=now_ns,
            received_ns=now_ns,
            id=str(1_062_992_715 + number),
            price="83772.60",
            size="0.00001780",
            aggressor=Side.BUY,
        )
        for number in range(first, first + count)
    ]


@contextmanager
def reader(address: str, messages: int, *, look: bool) -> Iterator[subprocess.Popen[str]]:
    """Run a subscriber in a process of its own."""
    command = [sys.executable, str(ENDS), "read", address, f"--messages={messages}"]
    with subprocess.Popen(command + ["--look"] * look, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


async def lag(worst: list[float]) -> None:
    """Note how late the loop turns to a task that sleeps 1 ms."""
    while True:
        due = trio.current_time() + 0.001
        await trio.sleep_until(due)
        worst.append(trio.current_time() - due)


async def measure(
    messages: int, rate: float, *, look: bool, readers: int, settings: ZmqSettings
) -> dict[str, Any]:
    """Return the figures of one run.

    Args:
        rate: Events a second; 0 for as many as go.
    """
    bus = Bus()
    lanes = SinkLanes(bus)
    publisher = Publisher(settings, lanes)
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        while not publisher.addresses:  # noqa: ASYNC110  # it has no event for that
            await trio.sleep(0.01)
        with reader(publisher.addresses[0], messages, look=look) as one:
            others = [reader(publisher.addresses[0], messages, look=False) for _ in range(readers - 1)]
            for other in others:
                other.__enter__()
            gauges = lanes.report.gauges
            while gauges["peers"] < readers or not gauges["subscriptions"]:  # noqa: ASYNC110  # see above
                await trio.sleep(0.01)
            nursery.start_soon(lag, late)
            cpu, loop, began = time.process_time(), time.thread_time(), time.perf_counter()
            burst = BURST if not rate else max(1, round(rate / 1000))
            sent = 0
            while sent < messages:
                bus.publish(events(sent, burst))
                sent += burst
                if rate:
                    await trio.sleep_until(trio.current_time() + began + sent / rate - time.perf_counter())
                else:
                    await trio.lowlevel.checkpoint()
                    while sent - lanes.report.delivered > AHEAD:
                        await trio.lowlevel.checkpoint()
            while lanes.report.delivered < sent:  # noqa: ASYNC110  # another task counts
                await trio.sleep(0.001)
            wall, cpu, loop = (
                time.perf_counter() - began,
                time.process_time() - cpu,
                time.thread_time() - loop,
            )
            assert one.stdout is not None
            found: dict[str, Any] = json.loads(await trio.to_thread.run_sync(one.stdout.readline))
            for other in others:
                await trio.to_thread.run_sync(other.__exit__, None, None, None)
        lanes.end()
        nursery.cancel_scope.deadline = trio.current_time() + 2
    late.sort()
    return found | {
        "sent": sent,
        "sent_per_s": sent / wall,
        "cpu_us": cpu / sent * 1e6,
        "loop_us": loop / sent * 1e6,
        "lag_p99_ms": late[int(len(late) * 0.99)] * 1000,
        "lag_max_ms": late[-1] * 1000,
    }


async def main(args: argparse.Namespace) -> None:
    """Print a row for each load."""
    print(
        "| load | sent/s | received | missed | p50 ms | p99 ms | µs CPU each (on the loop) | loop lag p99, max ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for rate in map(float, args.rates.split(",")):
        for readers in map(int, args.readers.split(",")):
            settings = ZmqSettings(bind="tcp://127.0.0.1:*", high_water_mark=args.high_water_mark)
            messages = args.messages if not rate else round(rate * args.seconds)
            found = await measure(messages, rate, look=bool(rate), readers=readers, settings=settings)
            late = ["–" if found[q] is None else f"{found[q]:.2f}" for q in ("p50_ms", "p99_ms")]
            title = f"{rate:g}/s" if rate else "as many as go"
            print(
                f"| {title}, {readers} readers | {found['sent_per_s']:.0f} | {found['received']} of {found['sent']} | "
                f"{found['missed'] if rate else found['sent'] - found['received']} | {late[0]} | {late[1]} | "
                f"{found['cpu_us']:.1f} ({found['loop_us']:.1f}) | {found['lag_p99_ms']:.1f}, {found['lag_max_ms']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000, help="where as many go as can")
    parser.add_argument("--seconds", type=float, default=5, help="of the loads with a rate")
    parser.add_argument("--rates", default="0,5000,20000", help="events a second; 0 for as many as go")
    parser.add_argument("--readers", default="1", help="processes that read, with commas between")
    parser.add_argument("--high-water-mark", type=int, default=10_000)
    trio.run(main, parser.parse_args())
