"""The lane that may not lose: from the bus to disk to the sink, whatever the disk and the sink do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from pricefeedd.bus import Bus
from pricefeedd.config import Config, SinkConfig, VenueConfig
from pricefeedd.config.settings import AccountConfig
from pricefeedd.errors import SinkOverflowError
from pricefeedd.events import AccountEvent, Gap, Quote, State, Status, Trade
from pricefeedd.hookspecs import Kept, Lanes, Sink
from pricefeedd.kept import KeptMessage, account_topics
from pricefeedd.lanes import SinkLanes
from pricefeedd.spool import Record, Spool


def order(number: int, account: str = "main", *, kind: str = "order", pad: int = 0) -> AccountEvent:
    return AccountEvent(
        venue="bybit",
        instrument="BTC-USDT",
        received_ns=1,
        account=account,
        kind=kind,
        key=f"{number}{'x' * pad}",
        fields={"order_id": str(number)},
    )


def trade(number: int) -> Trade:
    return Trade(
        venue="bybit",
        instrument="BTC-USDT",
        received_ns=1,
        id=str(number),
        price="1",
        size="1",
        aggressor=None,
    )


def quote(number: int) -> Quote:
    sizes = {"bid_size": "1", "ask_size": "1"}
    return Quote(
        venue="bybit", instrument="BTC-USDT", received_ns=1, bid_price=str(number), ask_price="9", **sizes
    )


def account(*channels: str) -> AccountConfig:
    return AccountConfig(api_key="k", api_secret="s", channels=channels or ("order",))


def lanes_of(
    bus: Bus,
    folder: Path,
    sink: Sink | None = None,
    *,
    accounts: tuple[str, ...] = ("*",),
    keeps: bool = True,
    **more: object,
) -> SinkLanes:
    async def run(settings: object, lanes: Lanes) -> None:
        """Do nothing."""

    venue = VenueConfig(
        name="bybit",
        plugin="bybit",
        accounts={"main": account("order", "balance"), "other": account("order")},
    )
    section = SinkConfig(name="queue", plugin="queue", accounts=accounts, **more)  # type: ignore[arg-type]  # see callers
    config = Config(venues={"bybit": venue}, sinks={"queue": section}, state_dir=folder)
    return SinkLanes(bus, sink or Sink(name="queue", api_version=1, run=run, keeps=keeps), config, section)


async def kept(lanes: Lanes, count: int) -> list[Kept]:
    """Return so many of what is handed out next."""
    assert lanes.kept is not None
    found: list[Kept] = []
    with trio.fail_after(5):
        while len(found) < count:
            found += await lanes.kept.receive(count - len(found))
    return found


def sequences(found: list[Kept]) -> list[tuple[str, int]]:
    return [(message.topic, message.seq) for message in found]


class Queue:
    """A sink whose reading is up to the test: each `run` waits for what the test does with its lanes."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.lanes: Lanes | None = None
        self.sink = Sink(name="queue", api_version=1, run=self.run, keeps=True)

    async def run(self, settings: object, lanes: Lanes) -> None:
        self.lanes = lanes
        self.begun.set()
        await trio.sleep_forever()


async def test_what_accounts_are_told_comes_in_order_and_stays_until_it_is_done(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    bus, queue = Bus(), Queue()
    lanes = lanes_of(bus, tmp_path, queue.sink)
    assert lanes.kept is not None
    nursery.start_soon(lanes.run)
    bus.publish([order(1), trade(1), order(2, "other"), order(3, kind="balance"), order(4, kind="execution")])
    down = Status(
        venue="bybit",
        instrument="main",
        received_ns=1,
        topic_channel="order",
        state=State.STALE,
        reason="away",
    )
    hole = Gap(
        venue="bybit", instrument="main", received_ns=1, topic_channel="order", from_ns=1, to_ns=2, reason="x"
    )
    bus.publish([down, hole])

    found = await kept(lanes, 5)
    # An execution is not among the channels of the account.
    assert sequences(found) == [
        ("order:bybit:main", 1),
        ("order:bybit:other", 1),
        ("balance:bybit:main", 1),
        ("order:bybit:main", 2),
        ("order:bybit:main", 3),
    ]
    assert {message.epoch for message in found} == {bus.epoch}
    assert found[0].text.startswith(b'{"type":"order","topic":"order:bybit:main","seq":1,')
    assert b'"type":"gap"' in found[4].text
    assert lanes.kept.spool.count == 5
    await lanes.kept.done(found[2].number)
    assert lanes.kept.spool.count == 2
    assert [message.topic for message in await lanes.receive()] == ["trade:bybit:BTC-USDT"]


async def test_one_that_begins_anew_gets_what_is_not_done_again(tmp_path: Path) -> None:
    runs: list[list[tuple[str, int]]] = []
    again = trio.Event()

    async def run(settings: object, lanes: Lanes) -> None:
        found = await kept(lanes, 3)
        runs.append(sequences(found))
        if len(runs) == 1:
            assert lanes.kept is not None
            await lanes.kept.done(found[0].number)
            raise ZeroDivisionError
        again.set()

    bus = Bus()
    lanes = lanes_of(bus, tmp_path, Sink(name="queue", api_version=1, run=run, keeps=True))
    bus.publish([order(n) for n in range(1, 5)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lanes.run)
        with trio.fail_after(5):
            await again.wait()
        nursery.cancel_scope.cancel()
    assert runs == [
        [("order:bybit:main", n) for n in (1, 2, 3)],
        [("order:bybit:main", n) for n in (2, 3, 4)],
    ]


async def test_what_was_not_done_is_handed_out_first_after_a_restart(tmp_path: Path) -> None:
    first = Bus()
    lanes = lanes_of(first, tmp_path)
    first.publish([order(1), order(2)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lanes.run)
        await kept(lanes, 2)
        lanes.end()  # and then the nursery ends by itself

    second = Bus()
    lanes = lanes_of(second, tmp_path)
    second.publish([order(3)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lanes.run)
        found = await kept(lanes, 3)
        nursery.cancel_scope.cancel()
    assert [(message.number, message.epoch, message.seq) for message in found] == [
        (1, first.epoch, 1),
        (2, first.epoch, 2),
        (3, second.epoch, 1),
    ]


async def test_what_waits_is_written_before_the_end_even_if_nobody_reads_it(tmp_path: Path) -> None:
    bus, queue = Bus(), Queue()
    lanes = lanes_of(bus, tmp_path, queue.sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lanes.run)
        await queue.begun.wait()
        bus.publish([order(n) for n in range(3000)])
        nursery.cancel_scope.cancel()
    spool = Spool(tmp_path / "sinks" / "queue" / "spool.db", limit_bytes=1 << 30)
    await spool.open()
    assert spool.count == 3000
    await spool.close()


async def test_the_end_comes_when_everything_was_handed_out(nursery: trio.Nursery, tmp_path: Path) -> None:
    bus, queue = Bus(), Queue()
    lanes = lanes_of(bus, tmp_path, queue.sink)
    nursery.start_soon(lanes.run)
    bus.publish([order(1), order(2)])
    lanes.end()
    assert len(await kept(lanes, 2)) == 2
    with pytest.raises(trio.EndOfChannel):
        await kept(lanes, 1)


async def test_without_accounts_there_is_nothing_to_keep_and_without_keeping_they_are_like_any_other(
    tmp_path: Path,
) -> None:
    assert lanes_of(Bus(), tmp_path, accounts=()).kept is None
    bus = Bus()
    lanes = lanes_of(bus, tmp_path, keeps=False, accounts=("other",))
    assert lanes.kept is None
    bus.publish([order(1), order(2, "other"), trade(3)])
    assert [message.topic for message in await lanes.receive()] == [
        "order:bybit:other",
        "trade:bybit:BTC-USDT",
    ]


async def test_a_spool_of_accounts_that_are_configured_no_longer_is_still_emptied(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    bus = Bus()
    lanes = lanes_of(bus, tmp_path)
    bus.publish([order(1)])
    lanes.end()
    await lanes.run()

    lanes = lanes_of(Bus(), tmp_path, Queue().sink, accounts=())
    nursery.start_soon(lanes.run)
    assert sequences(await kept(lanes, 1)) == [("order:bybit:main", 1)]


# --- a disk that does not do what it should ---------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread does; it has no event here."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # see above
            await trio.sleep(0.01)


async def test_a_disk_that_fails_is_told_once_and_tried_again(nursery: trio.Nursery, tmp_path: Path) -> None:
    (tmp_path / "sinks").write_text("in the way")
    bus, queue = Bus(), Queue()
    lanes = lanes_of(bus, tmp_path, queue.sink)
    with structlog.testing.capture_logs() as logs:
        nursery.start_soon(lanes.run)
        bus.publish([order(1)])
        assert lanes.kept is not None
        await until(lambda: lanes.concerns())
        assert "sink queue cannot write its spool" in lanes.concerns()[0]
        assert "sinks" in lanes.report.last_error
        bus.publish([order(2)])
        (tmp_path / "sinks").unlink()
        assert sequences(await kept(lanes, 2)) == [("order:bybit:main", 1), ("order:bybit:main", 2)]
    assert [line["event"] for line in logs] == [
        "spool takes nothing, tried again",
        "spool takes events again",
    ]
    assert lanes.concerns() == []
    assert lanes.report.dropped == {}


async def test_a_full_spool_holds_what_fits_then_memory_then_it_is_loud(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    bus, queue = Bus(), Queue()
    lanes = lanes_of(bus, tmp_path, queue.sink, spool_bytes=65_536, queue_bytes=20_000)
    assert lanes.kept is not None
    nursery.start_soon(lanes.run)
    with structlog.testing.capture_logs() as logs:
        for number in range(200):
            bus.publish([order(number, pad=400)])
            await trio.sleep(0.001)
        await until(lambda: lanes.kept is not None and lanes.kept.full > 0.95 and lanes.kept.trouble)
        lost = lanes.report.dropped["overflow"]
        assert lost > 20
        with pytest.raises(
            SinkOverflowError, match=r"events of accounts are lost from order:bybit:main #\d+ on"
        ):
            await kept(lanes, 1)
    errors = [line["event"] for line in logs if line["log_level"] == "error"]
    assert (
        1 <= errors.count("events of accounts are lost") <= 3
    )  # a disk that takes a little now and then tells again
    assert any("spool_bytes = 65536" in text for text in lanes.concerns())

    # What was accepted is all there and in order; once there is room it goes on.
    found: list[Kept] = []
    while len(found) < 200 - lost:
        group = await kept(lanes, 1)
        found += group
        await lanes.kept.done(group[-1].number)
    assert [message.seq for message in found] == list(range(1, 201 - lost))
    await until(lambda: lanes.kept is not None and lanes.kept.idle)
    bus.publish([order(201)])
    assert sequences(await kept(lanes, 1)) == [("order:bybit:main", 201)]
    assert lanes.report.dropped == {"overflow": lost}


# --- the other lanes ----------------------------------------------------------------------------------------------


async def test_lost_events_are_counted_for_the_sink(tmp_path: Path) -> None:
    bus = Bus()
    lanes = lanes_of(bus, tmp_path, queue_bytes=2000)
    for number in range(100):
        bus.publish([trade(number)])
    got = await lanes.receive()
    assert 0 < len(got) < 20
    assert lanes.report.dropped == {"slow": 100 - len(got)}


async def test_without_conflation_quotes_wait_in_order(tmp_path: Path) -> None:
    for conflate, expected in ((True, [10]), (False, list(range(1, 11)))):
        bus = Bus()
        lanes = lanes_of(bus, tmp_path, conflate=conflate)
        for number in range(10):
            bus.publish([quote(number)])
        assert [message.seq for message in await lanes.receive()] == expected
        assert lanes.report.dropped == {}


def test_topics_of_accounts_by_name() -> None:
    venues = [
        ("bybit", "main", ("order", "balance")),
        ("bybit", "spare", ("order",)),
        ("okx", "main", ("order",)),
    ]
    assert account_topics(venues, ["main"]) == ["order:bybit:main", "balance:bybit:main", "order:okx:main"]
    assert len(account_topics(venues, ["*"])) == 4
    assert account_topics(venues, []) == []


def test_a_record_is_what_it_was() -> None:
    found = KeptMessage.of(Record(7, b'e1\norder:bybit:main\n12\n{"a":"b\\nc"}\n'))
    assert found == KeptMessage(7, "e1", "order:bybit:main", 12, b'{"a":"b\\nc"}\n')
