"""What Prometheus sees of a whole daemon: well-formed, bounded, and never going back."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import attrs
import httpx
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from pricefeedd.config import build
from pricefeedd.events import BookDelta, Trade
from pricefeedd.loader import PluginRecord
from pricefeedd.rules import Verdict
from pricefeedd.service import Daemon
from pricefeedd.venue import Venue
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@attrs.define
class Brought:
    """What plugins brought, without anything being installed; the loader's `Plugins` has the same names."""

    venues: dict[str, Venue]
    sinks: dict[str, Any] = attrs.field(factory=dict)
    sources: dict[str, Any] = attrs.field(factory=dict)
    electors: dict[str, Any] = attrs.field(factory=dict)
    records: list[PluginRecord] = attrs.field(factory=list)
    fakes: dict[str, Any] = attrs.field(factory=dict)
    broken: dict[str, str] = attrs.field(factory=dict)


@attrs.define
class Served:
    """A daemon that runs in this process."""

    daemon: Daemon
    base: str

    async def counters(self) -> Samples:
        """Return all that only counts up."""
        async with httpx.AsyncClient(timeout=10) as http:
            text = (await http.get(f"{self.base}/metrics", headers=OPENMETRICS)).text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }

    async def until(self, name: str, least: float, **labels: str) -> float:
        """Wait until a counter is so large; return it."""
        wanted = set(labels.items())
        with trio.fail_after(40):
            while True:
                for (found, tagged), value in (await self.counters()).items():
                    if found == name and wanted <= tagged and value >= least:
                        return value
                await trio.sleep(0.1)


async def serve(
    nursery: trio.Nursery,
    fake: BinanceFake,
    venue: Venue,
    channels: Iterable[str] = ("trade", "quote", "book"),
) -> Served:
    """Run a daemon with one venue, under the name of its plugin."""
    brought = Brought({venue.name: venue})
    subscribe = [{"market": "spot", "instruments": ["BTC-USDT", "ETH-USDT"], "channels": list(channels)}]
    config = build(
        {
            "web": {"listen": ["127.0.0.1:0"]},
            "metrics": {"compat": True},
            "venues": {venue.name: {"endpoints": fake.endpoints(), "subscribe": subscribe}},
        },
        venues=brought.venues,
        sinks={},
        electors={},
        environ={},
        source="test",
    )
    daemon = Daemon(config, brought)  # type: ignore[arg-type]  # the same names as the loader's class

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await daemon.run(task_status=task_status)

    binds = await nursery.start(run)
    return Served(daemon, binds[0])


def sometimes(venue: Venue, share: float) -> Venue:
    """Return a venue whose rules crash now and then: its whole runtime is then begun anew."""
    chance = random.Random(1)
    spot = venue.rules["spot"]
    assert spot.book is not None
    follows = spot.book.follows

    def mistaken(last: int, delta: BookDelta) -> Verdict:
        if chance.random() < share:
            raise ZeroDivisionError("a mistake of the plugin's author")
        return follows(last, delta)

    rules = {**venue.rules, "spot": attrs.evolve(spot, book=attrs.evolve(spot.book, follows=mistaken))}
    return attrs.evolve(venue, rules=rules, configure=lambda venue, settings: venue)


class Inventive:
    """A codec that names an instrument that nobody asked for in every second trade."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode(self, frame: bytes, **options: Any) -> Any:
        said = self._codec.decode(frame, **options)
        for item in said:
            if isinstance(item, Trade):
                self.count += 1
                if self.count % 2:
                    item.instrument = f"MADE-UP-{self.count}"
        return said


async def test_no_counter_goes_back_when_a_venue_crashes(
    nursery: trio.Nursery, exchange: BinanceFake
) -> None:
    served = await serve(nursery, exchange, sometimes(binance(), 0.02))
    lives: list[object] = []
    before: Samples = {}
    with trio.fail_after(60):
        while len(lives) < 4:
            runtime = served.daemon.runtimes.get("binance")
            if runtime is not None and runtime not in lives:
                lives.append(runtime)
            now = await served.counters()
            back = {key: (value, now.get(key)) for key, value in before.items() if now.get(key, -1) < value}
            assert not back
            before = now
            await trio.sleep(0.1)
    # What the second life counted stands on top of the first one's.
    assert await served.until("pricefeedd_events_total", 1, channel="trade") > 0
    served.daemon.stop()


async def test_status_tells_latency_by_part_and_the_health(
    nursery: trio.Nursery, exchange: BinanceFake, open_reader: Any
) -> None:
    served = await serve(nursery, exchange, binance(), ("trade", "quote"))
    reader = await open_reader(served.base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*"]})
    await reader.until("trade")
    await served.until("pricefeedd_send_latency_seconds_count", 10, market="spot")
    async with httpx.AsyncClient(timeout=10) as http:
        status = (await http.get(f"{served.base}/status")).json()
    found = status["venues"]["binance"]["spot"]["latency"]
    for part in ("venue_ms", "publish_ms", "sent_ms"):
        assert 0 < found[part]["p50"] <= found[part]["p99"], part
    assert found["clock_offset_ms"] <= 0, "one clock for both: nothing comes before it was sent"
    assert 0 < found["health"] <= 100
    served.daemon.stop()


async def test_both_formats_tell_the_same_and_are_read_by_their_parsers(
    nursery: trio.Nursery, exchange: BinanceFake
) -> None:
    served = await serve(nursery, exchange, binance(), ("trade", "candle_1m"))
    await served.until("connector_quotes_processed_total", 1)
    async with httpx.AsyncClient(timeout=10) as http:
        plain = (await http.get(f"{served.base}/metrics")).text
        strict = (await http.get(f"{served.base}/metrics", headers=OPENMETRICS)).text
    families = list(text_string_to_metric_families(strict))
    assert all(family.documentation for family in families)
    names = [family.name for family in families]
    assert len(set(names)) == len(names), "each family stands in one piece"
    one = {sample.name for family in plain_families(plain) for sample in family.samples}
    assert one == {sample.name for family in families for sample in family.samples}
    served.daemon.stop()


async def test_a_plugin_that_makes_up_names_makes_no_series(
    nursery: trio.Nursery, exchange: BinanceFake
) -> None:
    """A codec may hand out events of what was never asked for; they name nothing."""
    healthy = binance()
    codec = Inventive(healthy.codec)
    venue = attrs.evolve(healthy, codec=codec, configure=lambda venue, settings: venue)
    served = await serve(nursery, exchange, venue, ("trade", "quote"))
    await served.until("pricefeedd_events_total", 20, channel="quote")
    async with httpx.AsyncClient(timeout=10) as http:
        text = (await http.get(f"{served.base}/metrics")).text
    assert codec.count > 5
    assert "MADE-UP" not in text
    assert 'channel="book"' not in text
    served.daemon.stop()
