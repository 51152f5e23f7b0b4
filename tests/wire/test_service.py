"""The whole daemon in this process: sinks and venues of plugins, and what a reader sees of trouble."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio

from pricefeedd.config import Config, build
from pricefeedd.events import BookDelta
from pricefeedd.hookspecs import Delivery, Lanes, Sink
from pricefeedd.loader import PluginRecord
from pricefeedd.rules import Verdict
from pricefeedd.service import Daemon
from pricefeedd.venue import Venue
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance


@attrs.define
class Brought:
    """What plugins brought, without anything being installed; the loader's `Plugins` has the same names."""

    venues: dict[str, Venue] = attrs.field(factory=lambda: {"binance": binance()})
    sinks: dict[str, Sink] = attrs.field(factory=dict)
    electors: dict[str, Any] = attrs.field(factory=dict)
    records: list[PluginRecord] = attrs.field(factory=list)
    fakes: dict[str, Any] = attrs.field(factory=dict)
    broken: dict[str, str] = attrs.field(factory=dict)


def configure(brought: Brought, fake: BinanceFake, *venues: str, sinks: tuple[str, ...] = ()) -> Config:
    """Return a configuration with trades and a book of each of these venues."""
    subscribe = [
        {"market": "spot", "instruments": ["BTC-USDT", "ETH-USDT"], "channels": ["trade", "quote", "book"]}
    ]
    return build(
        {
            "web": {"listen": ["127.0.0.1:0"]},
            "venues": {name: {"endpoints": fake.endpoints(), "subscribe": subscribe} for name in venues},
            "sinks": {name: {} for name in sinks},
        },
        venues=brought.venues,
        sinks=brought.sinks,
        electors=brought.electors,
        environ={},
        source="test",
    )


@attrs.define
class Served:
    """A daemon that runs.

    Attributes:
        stopped: Set when `Daemon.run` has returned.
    """

    daemon: Daemon
    base: str
    stopped: trio.Event

    async def stop(self) -> None:
        """Stop it; it must end within 10 s."""
        self.daemon.stop()
        with trio.fail_after(10):
            await self.stopped.wait()


async def serve(nursery: trio.Nursery, config: Config, brought: Brought) -> Served:
    """Run a daemon."""
    daemon = Daemon(config, brought)  # type: ignore[arg-type]  # the same names as the loader's class
    stopped = trio.Event()

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await daemon.run(task_status=task_status)
        stopped.set()

    binds = await nursery.start(run)
    return Served(daemon, binds[0], stopped)


def collecting(got: list[Delivery], ends: list[str], enough: Callable[[], None]) -> Sink:
    """Return a sink that keeps all it is given."""

    async def run(settings: Any, lanes: Lanes) -> None:
        try:
            while True:
                got.extend(await lanes.receive())
                enough()
        except trio.EndOfChannel:
            await trio.sleep(0.1)  # it may still flush
            ends.append("end")

    return Sink(name="keep", api_version=1, run=run)


async def test_a_sink_gets_every_event_in_order_and_then_the_end(
    nursery: trio.Nursery, exchange: BinanceFake
) -> None:
    got: list[Delivery] = []
    ends: list[str] = []
    plenty = trio.Event()
    brought = Brought(sinks={"keep": collecting(got, ends, lambda: plenty.set() if len(got) > 200 else None)})
    served = await serve(nursery, configure(brought, exchange, "binance", sinks=("keep",)), brought)
    with trio.fail_after(20):
        await plenty.wait()
    await served.stop()

    assert ends == ["end"]
    last: dict[str, int] = {}
    for delivery in got:
        before = last.get(delivery.topic, 0)
        # A sink that lags, on a busy machine, gets the newest quote and book; of trades it gets each.
        lagged = delivery.topic.startswith(("quote", "book")) and delivery.seq > before + 1
        assert lagged or delivery.seq == before + 1, "from the first on, without a hole"
        last[delivery.topic] = delivery.seq
    assert len(last) == 6
    for topic in served.daemon.bus:
        assert last[topic.name] == topic.seq, "to the last one, the word of the end included"
    ids = [int(d.event.id) for d in got if d.topic == "trade:binance:BTC-USDT" and hasattr(d.event, "id")]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_a_sink_that_crashes_is_begun_again_and_harms_nobody(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any
) -> None:
    starts = 0
    again = trio.Event()
    last: list[str] = []

    async def run(settings: Any, lanes: Lanes) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            await lanes.receive()
            raise ZeroDivisionError("a mistake of the sink's author")
        with suppress(trio.EndOfChannel):
            while True:
                last[:] = [delivery.topic for delivery in await lanes.receive()]
                again.set()

    brought = Brought(sinks={"keep": Sink(name="keep", api_version=1, run=run)})
    served = await serve(nursery, configure(brought, exchange, "binance", sinks=("keep",)), brought)
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:*:*"]})
    with trio.fail_after(20):
        await again.wait()
    await reader.until("trade")
    reader.check_sequence()
    await served.stop()
    assert starts == 2


async def test_a_sink_that_does_not_end_is_ended(nursery: trio.Nursery, exchange: BinanceFake) -> None:
    cancelled = trio.Event()

    async def run(settings: Any, lanes: Lanes) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    brought = Brought(sinks={"keep": Sink(name="keep", api_version=1, run=run)})
    served = await serve(nursery, configure(brought, exchange, "binance", sinks=("keep",)), brought)
    await served.stop()
    assert cancelled.is_set()


class Faulty:
    """A codec with a bug that is no `DecodeError`; all else is the real one's."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode(self, frame: bytes, **options: Any) -> Any:
        """Fail at data."""
        self.calls += 1
        if b'"aggTrade"' in frame:
            raise ZeroDivisionError("a mistake of the plugin's author")
        return self._codec.decode(frame, **options)


async def test_a_venue_whose_codec_crashes_takes_no_other_with_it(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any, eventually: Any
) -> None:
    healthy = binance()
    codec = Faulty(healthy.codec)
    # It has no settings of its own, so that nothing puts the real codec back.
    sick = attrs.evolve(healthy, name="sick", codec=codec, configure=lambda venue, settings: venue)
    brought = Brought(venues={"binance": healthy, "sick": sick})
    served = await serve(nursery, configure(brought, exchange, "binance", "sick"), brought)
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:*:*"]})
    await eventually(lambda: codec.calls > 1)
    for _ in range(20):
        assert (await reader.until("trade"))["topic"].startswith("trade:binance:")
    reader.check_sequence()
    assert not [m for m in reader.of("trade") if ":sick:" in m["topic"]]
    told = await reader.until(lambda m: m["type"] == "status" and "mistake" in m["data"]["reason"])
    assert told["topic"].startswith("trade:sick:")
    assert told["data"]["state"] != "live"
    assert not served.stopped.is_set()
    await served.stop()


async def test_a_venue_whose_rules_crash_is_down_and_its_books_cannot_be_read(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any
) -> None:
    healthy = binance()

    def mistaken(last: int, delta: BookDelta) -> Verdict:
        raise ZeroDivisionError("a mistake of the plugin's author")

    spot = healthy.rules["spot"]
    assert spot.book is not None
    rules = {**healthy.rules, "spot": attrs.evolve(spot, book=attrs.evolve(spot.book, follows=mistaken))}
    sick = attrs.evolve(healthy, name="sick", rules=rules, configure=lambda venue, settings: venue)
    brought = Brought(venues={"binance": healthy, "sick": sick})
    served = await serve(nursery, configure(brought, exchange, "binance", "sick"), brought)
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["book:*:*"]})
    told = await reader.until(lambda m: m["type"] == "status" and "crashed" in m["data"]["reason"])
    assert told["topic"].startswith("book:sick:")
    assert told["data"]["state"] == "down"
    assert served.daemon.bus.book(told["topic"]) is None, (
        "it is begun again a tenth of a second later at least"
    )
    for _ in range(20):  # begun again, the sick one may show a snapshot before it crashes once more
        await reader.until(lambda m: m["type"] == "book" and m["topic"].startswith("book:binance:"))
    reader.check_sequence()
    await served.stop()


async def test_a_venue_is_served_under_its_sections_name(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any
) -> None:
    """One plugin may serve several sections; its codec knows only one name."""
    healthy = binance()
    other = attrs.evolve(healthy, name="other", configure=lambda venue, settings: venue)
    brought = Brought(venues={"binance": healthy, "other": other})
    served = await serve(nursery, configure(brought, exchange, "binance", "other"), brought)
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    for kind in ("trade", "book"):
        for name in ("binance", "other"):
            for _ in range(5):
                await reader.until(lambda m, at=f"{kind}:{name}:": m.get("topic", "").startswith(at))
    reader.check_sequence()
    for topic in served.daemon.bus:
        assert topic.last is None or topic.last.event.venue == topic.venue
    trades = [m["data"]["id"] for m in reader.of("trade") if m["topic"] == "trade:binance:BTC-USDT"]
    assert len(trades) == len(set(trades)), "nothing of the other comes in between"
    await served.stop()


async def test_a_lost_delta_is_told_before_anyone_reads_the_book_again(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any
) -> None:
    brought = Brought()
    served = await serve(nursery, configure(brought, exchange, "binance"), brought)
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["book:binance:*"]})
    mine = "book:binance:BTC-USDT"

    def is_delta(message: dict[str, Any]) -> bool:
        return bool(
            message["type"] == "book" and message["topic"] == mine and message["data"]["kind"] == "delta"
        )

    await reader.until(is_delta)
    for _ in range(2):
        drop = exchange.faults.drop(match="btcusdt@depth@100ms")
        await reader.until(lambda m: m["type"] == "status" and m["data"]["state"] == "resyncing")
        await reader.until(is_delta)
        assert drop.hits == 1
    await served.stop()

    reader.check_sequence()
    assert reader.notices[0]["type"] == "welcome"
    usable, resyncs, other = False, 0, 0
    for message in reader.messages:
        if message["topic"] != mine:
            other += message["type"] == "status"
        elif message["type"] == "status":
            resyncs += message["data"]["state"] == "resyncing"
            usable = False
        elif message["data"]["kind"] == "snapshot":
            usable = True
        else:
            assert usable, "a delta between `resyncing` and the next snapshot"
    assert resyncs == 2
    assert other <= 2, "the other book was left alone: connecting and live at the start, and nothing more"


async def test_missed_trades_are_filled_in_and_told(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any
) -> None:
    brought = Brought()
    served = await serve(nursery, configure(brought, exchange, "binance"), brought)
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:binance:BTC-USDT"]})
    await reader.until("trade")
    exchange.faults.drop(times=3, match="btcusdt@aggTrade")
    gap = await reader.until("gap")
    for _ in range(6):
        await reader.until("trade")
    await served.stop()

    assert (gap["data"]["recovered"], gap["data"]["missing"]) == (3, 0)
    reader.check_sequence()
    ids = [int(m["data"]["id"]) for m in reader.messages if m["type"] == "trade"]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(reader.of("trade", origin="backfill")) == 3


async def test_a_connection_that_ends_is_told_and_mended(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any
) -> None:
    brought = Brought()
    served = await serve(nursery, configure(brought, exchange, "binance"), brought)
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["trade:binance:BTC-USDT"]})
    await reader.until("trade")
    assert exchange.faults.cut("/spot") == 1
    lost = await reader.until("status")
    live = await reader.until("status")
    while live["data"]["state"] != "live":
        live = await reader.until("status")
    await reader.until("trade")
    await served.stop()

    assert lost["data"]["state"] != "live"
    assert lost["data"]["reason"]
    reader.check_sequence()
    ids = [int(m["data"]["id"]) for m in reader.messages if m["type"] == "trade"]
    assert ids == list(range(ids[0], ids[0] + len(ids))), "what was missed came from REST"


@pytest.mark.parametrize("times", [3])
async def test_readers_come_and_go_while_data_flows(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any, times: int
) -> None:
    brought = Brought()
    served = await serve(nursery, configure(brought, exchange, "binance"), brought)
    readers = []
    for _ in range(times):
        reader = await open_reader(served.base)
        await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
        await reader.until("trade")
        await reader.close()
        readers.append(reader)
    await served.stop()
    for reader in readers:
        reader.check_sequence()
