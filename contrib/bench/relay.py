"""What a relay pays for a message: in the inlet alone, and from ZeroMQ's and RabbitMQ's wire, as CPU of its process.

uv run contrib/bench/relay.py [--messages 100000] [--rabbitmq amqp://guest:guest@127.0.0.1:5672/%2F]

The messages are trades and changes of books of 50 instruments, half of each. One reader takes all of them from its
mailbox, so that the text that would be sent is made.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import trio

from pricefeedd import wire
from pricefeedd.config import SourceConfig
from pricefeedd.envelope import envelope, with_epoch
from pricefeedd.events import BookDelta, BookSnapshot, Event, Side, Trade
from pricefeedd.inlet import Inlet
from pricefeedd.instruments import Directory
from pricefeedd.message import Message
from pricefeedd.mirror import Mirror
from pricefeedd.topic import Pattern
from pricefeedd_relay.relay import run
from pricefeedd_relay.settings import RelaySettings
from pricefeedd_relay.streams import parse

EPOCH = "5f1c0e8a9b7d"
INSTRUMENTS = [f"COIN{number}-USDT" for number in range(50)]
BATCH = 200


def messages(count: int) -> Iterator[Message]:
    """Yield numbered messages: a whole book of each instrument, then trades and changes in turn."""
    now_ns = time.time_ns()
    for number in range(count):
        round_, at = divmod(number, 2 * len(INSTRUMENTS))
        instrument = INSTRUMENTS[at // 2]
        common: dict[str, Any] = {
            "venue": "binance",
            "instrument": instrument,
            "venue_time_ns": now_ns,
            "received_ns": now_ns + number * 1_000,
        }
        event: Event
        if at % 2:
            event = Trade(id=str(round_), price="61234.50", size="0.00250", aggressor=Side.BUY, **common)
        elif round_ == 0:
            levels = [[f"{61000 - level}.50", "1.250"] for level in range(50)]
            event = BookSnapshot(bids=levels, asks=[["62000.00", "1.0"]], sequence=1, **common)
        else:
            bids = [[f"{61000 - (round_ * 7 + step) % 50}.50", f"{step}.125"] for step in range(1, 4)]
            event = BookDelta(bids=bids, asks=[], sequence=round_, **common)
        yield Message(f"{event.channel}:binance:{instrument}", round_ + 1, event)


def inlet(folder: Path) -> tuple[Inlet, list[int]]:
    """Return an inlet with a reader, and how many messages and bytes that reader got."""
    bus = Mirror()
    got = [0, 0]

    def flush() -> None:
        for message in mailbox.take():
            got[0] += 1
            got[1] += len(message.text_in(wire.NATIVE))

    mailbox = bus.mailbox(limit_bytes=1 << 26, flush=flush)
    bus.subscribe(mailbox, Pattern("*:*:*"))
    config = SourceConfig(name="relay", plugin="relay")
    return Inlet(bus, config, Directory(), state_dir=folder, now_ns=time.time_ns), got


async def deliver(count: int, make: Callable[[Message], bytes], read: Callable[[bytes], Any]) -> float:
    """Return the seconds of CPU for messages that are there already.

    Args:
        read: From what came to what is delivered; it counts as well.
    """
    raw = [make(message) for message in messages(count)]
    into, got = inlet(Path())
    began = time.process_time()
    for start in range(0, count, BATCH):
        await into.deliver([read(one) for one in raw[start : start + BATCH]])
    spent = time.process_time() - began
    assert got[0] == count, "the reader got everything"
    return spent


async def from_wire(count: int, settings: RelaySettings, begin: Callable[[], Awaitable[None]]) -> float:
    """Return the seconds of CPU of the whole relay for messages that another process sends."""
    with tempfile.TemporaryDirectory() as folder:
        into, got = inlet(Path(folder))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, settings, into)
            while into.report.state != "up":  # noqa: ASYNC110  # it has no event of its own
                await trio.sleep(0.01)
            used = time.process_time()
            await begin()
            with trio.move_on_after(120):
                while got[0] < count:  # noqa: ASYNC110  # as above
                    await trio.sleep(0.02)
            used = time.process_time() - used
            nursery.cancel_scope.cancel()
    print(f"  {got[0]} of {count} arrived, {into.report.missing} told as missing")
    return used


def publish_zmq(address: str, count: int, start: Any) -> None:
    """Publish everything by ZeroMQ once told to."""
    import zmq

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, count)
    socket.bind(address)
    ready = [(m.topic.encode(), with_epoch(m, EPOCH)) for m in messages(count)]
    start.wait()
    for message in ready:
        socket.send_multipart(message)
    socket.close(linger=-1)
    context.term()


def publish_rabbitmq(url: str, queue: str, count: int, start: Any) -> None:
    """Publish everything to a stream once told to."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    start.wait()
    for message in messages(count):
        channel.basic_publish("", queue, orjson.dumps(envelope(message, EPOCH)))
    connection.close()


async def wire_figures(count: int, rabbitmq: str) -> None:
    """Print what messages cost that come over a wire."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        address, start = f"ipc://{folder}/feed.sock", spawn.Event()
        publisher = spawn.Process(target=publish_zmq, args=(address, count, start), daemon=True)
        publisher.start()

        async def begin() -> None:
            await trio.sleep(0.2)  # the subscription has to reach the publisher
            start.set()

        settings = RelaySettings(zmq=(address,), high_water_mark=count)
        spent = await from_wire(count, settings, begin)
        publisher.join()
    tell("ZeroMQ, from the socket to the reader's text", spent, count)
    if not rabbitmq:
        return
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq))
    queue = f"bench-relay-{secrets.token_hex(4)}"
    connection.channel().queue_declare(queue, durable=True, arguments={"x-queue-type": "stream"})
    try:
        start = spawn.Event()
        publisher = spawn.Process(target=publish_rabbitmq, args=(rabbitmq, queue, count, start), daemon=True)
        publisher.start()

        async def begin_stream() -> None:
            start.set()
            await trio.lowlevel.checkpoint()

        spent = await from_wire(count, RelaySettings(rabbitmq=rabbitmq, queues=(queue,)), begin_stream)
        publisher.join()
    finally:
        connection.channel().queue_delete(queue)
        connection.close()
    tell("RabbitMQ stream, from the socket to the reader's text", spent, count)


def tell(what: str, seconds: float, count: int) -> None:
    """Print one figure."""
    print(f"{what}: {seconds / count * 1e6:.1f} µs CPU per message")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rabbitmq", default="", help="also by a stream of this broker")
    args = parser.parse_args()
    count = args.messages
    zmq_text = partial(with_epoch, epoch=EPOCH)
    tell("inlet, text of ZeroMQ", trio.run(deliver, count, zmq_text, lambda raw: raw), count)
    dumped = lambda message: orjson.dumps(envelope(message, EPOCH))  # noqa: E731  # two lines would hide the pair
    tell("inlet, envelope of RabbitMQ", trio.run(deliver, count, dumped, parse), count)
    trio.run(wire_figures, count, args.rabbitmq)


if __name__ == "__main__":
    main()
