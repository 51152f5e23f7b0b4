"""Subscriptions of services, without sockets: what is shared, what is written when, and what is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pricefeedd import registry
from pricefeedd.bus import Bus
from pricefeedd.config import VenueConfig
from pricefeedd.demand import Demands
from pricefeedd.errors import ServiceAwayError
from pricefeedd.events import BookSnapshot, Side, State, Status, Trade
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.offer import Offer, SubscriptionRefusedError, Wish
from pricefeedd.registry import LAST_EVENT_S, REMEMBERED_US, Registry
from pricefeedd.store.records import SubscriptionRecord
from pricefeedd_bybit.venue import bybit

DAY_US = 86_400 * 1_000_000
BTC = Wish(venue="bybit", channel_type="trades", symbol="BTCUSDT")
FEED = "trade:bybit:BTC-USDT-PERP"


class Shelf:
    """A store that says what it was told, and that may be away or slow."""

    def __init__(self) -> None:
        self.records: dict[str, SubscriptionRecord] = {}
        self.writes: list[list[SubscriptionRecord]] = []
        self.away = False
        self.slow_s = 0.0

    async def _reach(self) -> None:
        await trio.sleep(self.slow_s)
        if self.away:
            raise ServiceAwayError("the database is away")

    async def load(self) -> list[SubscriptionRecord]:
        await self._reach()
        return list(self.records.values())

    async def save(self, records: Collection[SubscriptionRecord]) -> None:
        await self._reach()
        self.writes.append(list(records))
        self.records.update({record.id: record for record in records})

    async def remove(self, ids: Collection[str]) -> None:
        await self._reach()
        for id_ in ids:
            self.records.pop(id_, None)


@attrs.define
class Scene:
    """A registry over one venue, and the time."""

    registry: Registry
    demands: Demands
    bus: Bus
    shelf: Shelf | None
    now_ns: int = 1_800_000_000_000_000_000

    async def create(self, wish: Wish = BTC, service: str = "a") -> SubscriptionRecord:
        """Subscribe as the edge does."""
        record = self.registry.create(wish, await self.registry.find(wish), service)
        await self.registry.stored([record])
        return record

    def trade(self) -> None:
        """Let a trade come now."""
        self.bus.publish(
            [
                Trade(
                    venue="bybit",
                    instrument="BTC-USDT-PERP",
                    received_ns=self.now_ns,
                    id=None,
                    price="1",
                    size="1",
                    aggressor=Side.BUY,
                )
            ]
        )


def listed(market: str, *bases: str) -> InstrumentMap:
    """Return a list of Bybit's."""
    kind, tail = (Kind.SPOT, "") if market == "spot" else (Kind.PERPETUAL, "-PERP")
    rows = [
        Instrument(
            venue="bybit",
            market=market,
            name=f"{base}-USDT{tail}",
            symbol=f"{base}USDT",
            kind=kind,
            base=base,
            quote="USDT",
        )
        for base in bases
    ]
    return InstrumentMap("bybit", market, rows)


@asynccontextmanager
async def scene(shelf: Shelf | None = None, *, known: bool = True) -> AsyncIterator[Scene]:
    bus = Bus()
    config = VenueConfig(name="bybit", plugin="bybit")
    demands = Demands(config, bus, linger_s=60.0)
    if known:
        demands.know(listed("linear", "BTC", "ETH"))
    offers = {"bybit": Offer(bybit(), config, demands)}
    made: Any = None
    subscriptions = Registry(offers, bus, now_ns=lambda: made.now_ns, repository=shelf)
    made = Scene(subscriptions, demands, bus, shelf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscriptions.run)
        await wait_all_tasks_blocked()
        yield made
        subscriptions.close()


# --- Claims ------------------------------------------------------------------------------------------------


async def test_the_last_of_several_lets_go(autojump_clock: MockClock) -> None:
    async with scene() as run:
        one, two = await run.create(), await run.create(service="b")
        assert (run.demands.held, run.demands.markets()) == (1, ["linear"])
        run.registry.cancel(one.id)
        assert (run.demands.held, run.demands.leaving) == (1, 0)
        run.registry.cancel(two.id)
        run.registry.cancel(two.id)
        assert (run.demands.held, run.demands.leaving) == (0, 1)
        assert run.registry.counts() == {("bybit", "trades", False): 2}
        three = await run.create()
        assert (run.demands.held, run.demands.leaving) == (1, 0)
        assert run.registry.feed(three) == FEED
        assert run.registry.feed(one) is None


async def test_readers_may_not_claim_what_only_services_may(autojump_clock: MockClock) -> None:
    async with scene() as run:
        await run.create()
        assert run.demands.demand("trade", "BTC-USDT-PERP") is None
        assert run.demands.names("linear", "trade", "BTC-USDT-PERP")
        assert not run.demands.names("linear", "trade", "ETH-USDT-PERP")
        assert run.demands.markets_of(("trade", "BTC-USDT-PERP")) == ["linear"]
        assert run.demands.markets_of(("trade", "ETH-USDT-PERP")) == []


async def test_who_waits_for_a_list_gets_the_next(autojump_clock: MockClock) -> None:
    demands = Demands(VenueConfig(name="v", plugin="v"), Bus())
    got: list[InstrumentMap] = []

    async def wait(other_than: InstrumentMap | None) -> None:
        got.append(await demands.listed("spot", other_than=other_than))

    first, second = listed("spot", "A"), listed("spot", "B")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, None)
        await wait_all_tasks_blocked()
        assert await demands.called(()) == ["spot"]
        demands.know(listed("linear"))
        await wait_all_tasks_blocked()
        assert got == []
        demands.know(first)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait, first)
        await wait_all_tasks_blocked()
        demands.know(second)
    assert got == [first, second]
    with trio.move_on_after(1) as scope:
        await demands.called({"spot"})
    assert scope.cancelled_caught


# --- Writing -----------------------------------------------------------------------------------------------


async def test_when_something_last_came_is_written_now_and_then(autojump_clock: MockClock) -> None:
    shelf = Shelf()
    async with scene(shelf) as run:
        record = await run.create()
        quiet = await run.create(attrs.evolve(BTC, symbol="ETHUSDT"))
        began = run.now_ns
        for _ in range(10 * int(LAST_EVENT_S)):
            run.now_ns += 100_000_000
            run.trade()
            await trio.sleep(0.1)
        assert run.registry.get(record.id).last_event_at == run.now_ns // 1000, "told at once"
        await trio.sleep(LAST_EVENT_S / 2)
        assert [[r.id for r in batch] for batch in shelf.writes] == [[record.id], [quiet.id], [record.id]]
        last = shelf.records[record.id].last_event_at
        assert last is not None
        assert last * 1000 > began
        await trio.sleep(5 * LAST_EVENT_S)
        assert len(shelf.writes) == 3, "nothing came, and nothing is written"
        run.trade()
        run.now_ns += 1_000_000_000
        run.trade()
    assert [r.id for r in shelf.writes[-1]] == [record.id]
    assert shelf.records[record.id].last_event_at == run.now_ns // 1000
    assert shelf.records[quiet.id].last_event_at is None


async def test_only_data_counts_as_something(autojump_clock: MockClock) -> None:
    async with scene() as run:
        record = await run.create(attrs.evolve(BTC, channel_type="orderbook"))
        told = {"venue": "bybit", "instrument": "BTC-USDT-PERP", "received_ns": run.now_ns}
        status = Status(**told, topic_channel="book", state=State.LIVE, reason="")
        run.bus.publish([status])
        assert run.registry.get(record.id).last_event_at is None
        run.bus.publish([BookSnapshot(**told, bids=[("1", "1")], asks=[("2", "1")], sequence=1)])
        assert run.registry.get(record.id).last_event_at == run.now_ns // 1000


async def test_a_store_that_is_slow_or_away_gets_the_newest_of_each(autojump_clock: MockClock) -> None:
    shelf = Shelf()
    shelf.away = True
    async with scene(shelf) as run:
        await trio.sleep(100)
        meaning = await run.registry.find(BTC)
        record = run.registry.create(BTC, meaning, "a")
        with trio.move_on_after(2) as scope:
            await run.registry.stored([record])
        assert scope.cancelled_caught
        assert not run.registry.loaded.is_set()
        shelf.away = False
        with trio.fail_after(120):
            await run.registry.loaded.wait()
            await run.registry.stored([record])
        assert list(shelf.records) == [record.id]

        shelf.slow_s = 5.0
        run.registry.cancel(record.id)
        await trio.sleep(1)
        again = run.registry.create(BTC, meaning, "a")
        ended = run.registry.cancel(again.id)
        await run.registry.stored([ended])
        assert {id_: r.is_active for id_, r in shelf.records.items()} == {record.id: False, again.id: False}
        assert run.registry.describe()["unsaved"] == 0


async def test_a_store_that_stays_away_does_not_stop_the_end(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf()
    async with scene(shelf) as run:
        await run.create()
        shelf.away = True
        ether = attrs.evolve(BTC, symbol="ETHUSDT")
        run.registry.create(ether, await run.registry.find(ether), "a")
        began = trio.current_time()
    assert trio.current_time() - began < 5
    assert len(shelf.records) == 1
    assert "subscriptions not stored" in "".join(capsys.readouterr())


# --- Coming back -------------------------------------------------------------------------------------------


def kept(number: int, **changes: Any) -> SubscriptionRecord:
    """Return a stored record."""
    record = SubscriptionRecord(
        id=f"00000000-0000-4000-8000-{number:012}",
        venue="bybit",
        channel_type="trades",
        symbol="BTCUSDT",
        topic="publicTrade.BTCUSDT",
        market="linear",
        requesting_service=f"service-{number}",
        created_at=number,
        updated_at=number,
    )
    return attrs.evolve(record, **changes)


def shelf_of(*records: SubscriptionRecord) -> Shelf:
    shelf = Shelf()
    shelf.records = {record.id: record for record in records}
    return shelf


async def test_stored_ones_wait_for_their_market_and_may_be_cancelled_meanwhile(
    autojump_clock: MockClock,
) -> None:
    records = [kept(number) for number in range(5)]
    async with scene(shelf_of(*records), known=False) as run:
        assert run.registry.waiting == run.registry.active == 5
        assert len(run.bus) == 0
        assert not run.registry.cancel(records[0].id).is_active
        assert len(run.registry.cancel_service("service-1")) == 1
        run.demands.know(listed("linear", "BTC"))
        await wait_all_tasks_blocked()
        assert (run.registry.waiting, run.registry.active, run.demands.held) == (0, 3, 1)


async def test_what_is_listed_no_more_is_begun_when_it_is_listed_again(autojump_clock: MockClock) -> None:
    async with scene(shelf_of(kept(1), kept(2, symbol="NEWUSDT", topic=None))) as run:
        assert (run.registry.waiting, run.registry.active) == (1, 2)
        run.demands.know(listed("linear", "BTC", "NEW"))
        await wait_all_tasks_blocked()
        assert (run.registry.waiting, run.registry.active) == (0, 2)


async def test_a_topic_that_the_settings_changed_is_found_by_its_kind(autojump_clock: MockClock) -> None:
    record = kept(1, channel_type="orderbook", topic="orderbook.200.BTCUSDT")
    async with scene(shelf_of(record)) as run:
        assert run.registry.feed(record) == "book:bybit:BTC-USDT-PERP"


async def test_a_service_does_not_get_anew_what_it_has_in_the_store(autojump_clock: MockClock) -> None:
    async with scene(shelf_of(kept(1)), known=False) as run:
        meanings = []

        async def find() -> None:
            meanings.append(await run.registry.find(BTC))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(find)
            await wait_all_tasks_blocked()
            run.demands.know(listed("linear", "BTC"))
        with pytest.raises(SubscriptionRefusedError, match="service-1 has trade:bybit:BTC-USDT-PERP already"):
            run.registry.create(BTC, meanings[0], "service-1")


# --- Forgetting --------------------------------------------------------------------------------------------


async def test_what_was_cancelled_long_ago_is_forgotten(autojump_clock: MockClock) -> None:
    now_us = 1_800_000_000_000_000
    old = kept(1, is_active=False, updated_at=now_us - REMEMBERED_US - DAY_US)
    young = kept(2, is_active=False, updated_at=now_us - REMEMBERED_US + DAY_US)
    shelf = shelf_of(old, young, kept(3, updated_at=0))
    async with scene(shelf) as run:
        assert run.registry.describe()["total"] == 3
        await trio.sleep(LAST_EVENT_S + 1)
        assert {record.id for record in run.registry.records()} == {young.id, kept(3).id}
        assert set(shelf.records) == {young.id, kept(3).id}


async def test_of_too_many_cancelled_ones_the_oldest_are_forgotten(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST", 3)
    async with scene(Shelf()) as run:
        made = []
        for _ in range(5):
            run.now_ns += 1_000_000
            made.append(await run.create())
            run.now_ns += 1_000_000
            run.registry.cancel(made[-1].id)
        await trio.sleep(LAST_EVENT_S + 1)
        assert [record.id for record in run.registry.records()] == [record.id for record in made[2:]]
        assert run.shelf is not None
        assert list(run.shelf.records) == [record.id for record in made[2:]]
