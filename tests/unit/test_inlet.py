"""What a source delivers, and what readers make of it: numbers, holes, books, epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio

from pricefeedd import wire
from pricefeedd.client.tracker import Tracker
from pricefeedd.client.updates import Missed
from pricefeedd.config import SourceConfig
from pricefeedd.events import (
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Origin,
    Quote,
    Side,
    State,
    Status,
    Trade,
)
from pricefeedd.inlet import Inlet
from pricefeedd.instruments import Directory, Instrument, Kind
from pricefeedd.mirror import Mirror
from pricefeedd.source import Hole
from pricefeedd.topic import Pattern
from pricefeedd.views import Options

VENUE, BTC = "example", "BTC-USDT"
TRADES, QUOTES, BOOK = f"trade:{VENUE}:{BTC}", f"quote:{VENUE}:{BTC}", f"book:{VENUE}:{BTC}"
CANDLES = f"candle_1m:{VENUE}:{BTC}"
START_NS = 1_800_000_000_000_000_000
MINUTE_NS = 60_000_000_000


def common(n: int) -> dict[str, Any]:
    return {
        "venue": VENUE,
        "instrument": BTC,
        "venue_time_ns": START_NS + n * 1_000_000,
        "received_ns": START_NS + n * 1_000_000 + 1_000,
    }


def trade(n: int) -> Trade:
    return Trade(id=str(n), price="100.0", size="1", aggressor=Side.BUY, **common(n))


def quote(n: int) -> Quote:
    return Quote(bid_price=str(n), bid_size="1", ask_price=str(n + 1), ask_size="1", **common(n))


def candle(minute: int, *, closed: bool, n: int = 0) -> Candle:
    return Candle(
        start_ns=minute * MINUTE_NS,
        open="1",
        high="2",
        low="1",
        close="2",
        volume="3",
        closed=closed,
        **common(n),
    )


def snapshot(n: int, *bids: str) -> BookSnapshot:
    return BookSnapshot(bids=[[b, "1"] for b in bids], asks=[["200", "1"]], sequence=n, **common(n))


def delta(n: int, price: str, size: str = "1") -> BookDelta:
    return BookDelta(bids=[[price, size]], asks=[], sequence=n, **common(n))


def status(n: int, state: State, channel: str = "book") -> Status:
    return Status(topic_channel=channel, state=state, **common(n))


def sent(topic: str, seq: int, event: Event, epoch: str = "one") -> bytes:
    """Return a message as the upstream's stream has it."""
    return wire.encode(topic, seq, event)[:-1] + b',"epoch":"%b"}' % epoch.encode()


@attrs.define
class Read:
    """What one reader got, and a tracker that verifies it."""

    messages: list[dict[str, Any]] = attrs.field(factory=list)
    texts: list[bytes] = attrs.field(factory=list)
    tracker: Tracker = attrs.field(factory=lambda: Tracker("one"))
    missed: list[tuple[int, int | None]] = attrs.field(factory=list)

    def take(self, text: bytes) -> None:
        message = orjson.loads(text)
        self.texts.append(text)
        self.messages.append(message)
        self.missed += [
            (found.from_seq, found.to_seq)
            for found in self.tracker.take(message)
            if isinstance(found, Missed)
        ]

    def brief(self) -> list[tuple[str, int]]:
        """Return type and number of each message."""
        return [(message["type"], message["seq"]) for message in self.messages]


@attrs.define
class Rig:
    bus: Mirror
    inlet: Inlet

    def reader(self, pattern: str = "*:*:*", options: Options = Options()) -> Read:  # noqa: B008  # frozen
        """Return what a reader gets from now on that keeps up."""
        read = Read()

        def flush() -> None:
            for message in mailbox.take():
                if text := message.text_in(wire.NATIVE):
                    read.take(text)

        mailbox = self.bus.mailbox(limit_bytes=1_000_000, flush=flush)
        for topic in self.bus.subscribe(mailbox, Pattern(pattern), options):
            for message in self.bus.latest(topic, mailbox):
                read.take(message.text_in(wire.NATIVE))
        return read

    async def deliver(self, *messages: bytes | dict[str, Any]) -> None:
        await self.inlet.deliver(messages)

    def latest(self, name: str) -> list[dict[str, Any]]:
        topic = self.bus.get(name)
        assert topic is not None
        return [orjson.loads(message.text) for message in self.bus.latest(topic)]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Rig]:
    """Return a function that makes an inlet, from the keys of its section."""

    def made(**keys: Any) -> Rig:
        bus = Mirror()
        config = SourceConfig(name="relay", plugin="relay", **keys)
        inlet = Inlet(bus, config, Directory(), state_dir=tmp_path / "relay", now_ns=lambda: START_NS)
        return Rig(bus, inlet)

    return made


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()


async def test_topic_number_and_text_stay_as_they_are(rig: Rig) -> None:
    read = rig.reader()

    await rig.deliver(sent(TRADES, 41, trade(1)), sent(TRADES, 42, trade(2)))

    assert read.texts == [wire.encode(TRADES, 41, trade(1)), wire.encode(TRADES, 42, trade(2))]
    assert rig.bus.epoch == rig.inlet.report.epoch == "one"
    assert rig.inlet.report.messages == 2
    assert read.missed == []


async def test_a_parsed_message_is_served_as_the_same_text(rig: Rig) -> None:
    read = rig.reader()
    text = wire.encode(TRADES, 7, trade(1))

    await rig.deliver(orjson.loads(text) | {"epoch": "one"})

    assert read.texts == [text]


async def test_what_is_known_is_dropped(rig: Rig) -> None:
    read = rig.reader()
    ten = [sent(TRADES, n, trade(n)) for n in range(1, 11)]

    await rig.deliver(*ten, *ten[4:], ten[0])

    assert read.brief() == [("trade", n) for n in range(1, 11)]
    assert rig.inlet.report.duplicates == 7


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b"3",
        b"\xff\xfe",
        b'{"topic":"trade:a:b","seq":1,"epoch":"one"}',
        sent(TRADES, 2, trade(2)).replace(b'"seq":2', b'"seq":"2"'),
        sent(TRADES, 2, trade(2)).replace(b'"type":"trade"', b'"type":"quote"'),
        sent(TRADES, 2, trade(2)).replace(b'"epoch":"one"', b'"epoch":7'),
        sent(TRADES, 2, trade(2)).replace(b'"epoch":"one"', b'"epoch":""'),
        sent(TRADES, 2, trade(2)).replace(b'"origin":"live"', b'"origin":"moon"'),
        sent(TRADES, 2, trade(2)).replace(TRADES.encode(), b"trade"),
        sent("trade:*:X", 2, trade(2)),
    ],
)
async def test_garbage_is_counted_and_harms_nothing(rig: Rig, garbage: bytes) -> None:
    read = rig.reader()

    await rig.deliver(sent(TRADES, 1, trade(1)), garbage, sent(TRADES, 2, trade(2)))

    assert read.brief() == [("trade", 1), ("trade", 2)]
    assert rig.inlet.report.unreadable == 1
    assert "unreadable" in rig.inlet.report.last_error


# --- holes ------------------------------------------------------------------------------------------------


async def test_events_that_did_not_come_are_a_gap_with_their_numbers(rig: Rig) -> None:
    read = rig.reader()

    await rig.deliver(sent(TRADES, 1, trade(1)), sent(TRADES, 5, trade(5)))

    assert read.brief() == [("trade", 1), ("gap", 4), ("trade", 5)]
    assert read.messages[1]["data"] == {
        "reason": "they did not reach this relay",
        "from_seq": 2,
        "to_seq": 4,
        "recovered": 0,
        "missing": 3,
    }
    assert read.missed == [(2, 4)]
    assert rig.inlet.report.missing == 3


async def test_newer_state_stands_for_state_that_did_not_come(rig: Rig) -> None:
    read = rig.reader()

    await rig.deliver(sent(QUOTES, 1, quote(1)), sent(QUOTES, 5, quote(5)))

    assert read.brief() == [("quote", 1), ("conflated", 5), ("quote", 5)]
    assert read.messages[1]["data"] == {"dropped": 3}
    assert read.missed == []
    assert (rig.inlet.report.missing, rig.inlet.report.conflated) == (0, 3)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (candle(1, closed=False), candle(1, closed=False), "conflated"),
        (candle(1, closed=False), candle(1, closed=True), "conflated"),
        (candle(1, closed=True), candle(2, closed=False), "conflated"),
        (candle(1, closed=False), candle(2, closed=False), "gap"),
        (candle(1, closed=True), candle(3, closed=False), "gap"),
    ],
)
async def test_of_candles_only_closed_ones_can_be_lost(
    rig: Rig, before: Candle, after: Candle, told: str
) -> None:
    read = rig.reader()

    await rig.deliver(sent(CANDLES, 1, before), sent(CANDLES, 9, after))

    assert read.brief()[1][0] == told
    if told == "gap":
        assert read.messages[1]["data"]["missing"] is None
    assert read.brief()[2] == ("candle_1m", 9)


async def test_a_reader_that_comes_back_is_told_of_the_gap_too(rig: Rig) -> None:
    await rig.deliver(*(sent(TRADES, n, trade(n)) for n in (10, 11, 15, 16)))
    topic = rig.bus.get(TRADES)
    assert topic is not None

    told, more = rig.bus.since(topic, 10)
    read = Read()
    for message in told:
        read.take(message.text_in(wire.NATIVE))

    assert read.brief() == [("trade", 11), ("gap", 14), ("trade", 15), ("trade", 16)]
    assert more is None
    assert rig.bus.since(topic, 3)[0][0].text_in(wire.NATIVE).startswith(b'{"type":"gap"')


async def test_a_hole_is_filled_before_what_follows_it(rig: Rig) -> None:
    rig.inlet.repairs = True
    read = rig.reader()

    await rig.deliver(*(sent(TRADES, n, trade(n)) for n in (1, 5, 6)))
    hole = await rig.inlet.hole()
    waiting = read.brief()
    await rig.deliver(sent(TRADES, 6, trade(6)), sent(TRADES, 7, trade(7)))
    rig.inlet.fill(hole, [sent(TRADES, n, trade(n)) for n in (2, 3, 4)])

    assert (hole.topic, hole.first, hole.last) == (TRADES, 2, 4)
    assert waiting == [("trade", 1)]
    assert read.brief() == [("trade", n) for n in range(1, 8)]
    report = rig.inlet.report
    assert (report.recovered, report.missing, report.duplicates, report.gaps) == (3, 0, 1, 1)


async def test_what_could_not_be_filled_is_told(rig: Rig) -> None:
    rig.inlet.repairs = True
    read = rig.reader()

    await rig.deliver(*(sent(TRADES, n, trade(n)) for n in (1, 6, 7, 10)))
    rig.inlet.fill(await rig.inlet.hole(), [sent(TRADES, 3, trade(3)), sent(TRADES, 4, trade(4), "other")])
    rig.inlet.fill(await rig.inlet.hole(), [])

    numbers = [*read.brief()]
    assert numbers == [
        *[("trade", 1), ("gap", 2), ("trade", 3), ("gap", 5), ("trade", 6), ("trade", 7)],
        *[("gap", 9), ("trade", 10)],
    ]
    assert read.missed == [(2, 2), (4, 5), (8, 9)]


async def test_of_candles_the_closed_ones_come_again_and_the_open_ones_are_passed_over(rig: Rig) -> None:
    rig.inlet.repairs = True
    read = rig.reader()

    await rig.deliver(
        sent(CANDLES, 1, candle(1, closed=False)), sent(CANDLES, 9, candle(2, closed=False, n=9))
    )
    rig.inlet.fill(await rig.inlet.hole(), [sent(CANDLES, 4, candle(1, closed=True, n=4))], complete=True)

    assert read.brief() == [
        *[("candle_1m", 1), ("conflated", 4), ("candle_1m", 4), ("conflated", 9), ("candle_1m", 9)]
    ]
    assert read.missed == []


async def test_a_reader_that_lags_hears_of_holes_in_their_place(rig: Rig) -> None:
    read = Read()
    mailbox = rig.bus.mailbox(limit_bytes=1_000_000, flush=lambda: None)
    rig.bus.subscribe(mailbox, Pattern("*:*:*"))
    mailbox.lag()

    await rig.deliver(*(sent(TRADES, n, trade(n)) for n in (1, 2, 6, 7)))
    await rig.deliver(*(sent(QUOTES, n, quote(n)) for n in (1, 2, 6, 7)))
    for message in mailbox.take():
        read.take(message.text_in(wire.NATIVE))

    trades = [
        (kind, seq)
        for (kind, seq), m in zip(read.brief(), read.messages, strict=True)
        if m["topic"] == TRADES
    ]
    assert trades == [("trade", 1), ("trade", 2), ("gap", 5), ("trade", 6), ("trade", 7)]
    assert read.missed == [(3, 5)]
    assert read.messages[-1]["seq"] == 7


async def test_a_reader_of_a_view_hears_of_lost_events(rig: Rig) -> None:
    read = rig.reader(TRADES, Options(every_ms=1_000))
    await rig.deliver(*(sent(TRADES, n, trade(n)) for n in (1, 2, 6)))

    assert ("gap", 5) in read.brief()


# --- books ------------------------------------------------------------------------------------------------


async def test_a_reader_begins_with_the_book_as_it_stands(rig: Rig) -> None:
    await rig.deliver(
        sent(BOOK, 3, snapshot(3, "100", "99")),
        sent(BOOK, 4, delta(4, "101")),
        sent(BOOK, 5, delta(5, "99", "0")),
    )

    [first] = rig.latest(BOOK)

    assert first["seq"] == 5
    assert first["data"]["bids"] == [["101", "1"], ["100", "1"]]
    read = rig.reader(BOOK)
    await rig.deliver(sent(BOOK, 6, delta(6, "98")))
    assert read.brief() == [("book", 5), ("book", 6)]
    book = read.tracker.book(BOOK)
    assert book is not None
    assert [level[0] for level in book.bids.levels()] == ["101", "100", "98"]


async def test_a_book_that_begins_in_the_middle_is_absent_until_a_whole_one_comes(rig: Rig) -> None:
    read = rig.reader()

    await rig.deliver(sent(BOOK, 50, delta(50, "1")), sent(BOOK, 51, delta(51, "2")))
    absent = rig.latest(BOOK)
    await rig.deliver(sent(BOOK, 52, snapshot(52, "100")), sent(BOOK, 53, delta(53, "101")))

    assert absent == []
    assert read.brief() == [("conflated", 52), ("book", 52), ("book", 53)]
    assert read.missed == []
    assert read.tracker.book(BOOK) is not None


async def test_a_book_that_missed_a_change_is_none_until_the_next_whole_one(rig: Rig) -> None:
    read = rig.reader()

    await rig.deliver(sent(BOOK, 1, snapshot(1, "100")), sent(BOOK, 3, delta(3, "101")))
    topic = rig.bus.get(BOOK)
    assert topic is not None
    between = (rig.latest(BOOK), read.tracker.book(BOOK), topic.state)
    await rig.deliver(sent(BOOK, 4, delta(4, "102")), sent(BOOK, 5, snapshot(5, "90")))

    assert between == ([], None, State.RESYNCING)
    assert read.brief() == [("book", 1), ("gap", 2), ("conflated", 5), ("book", 5)]
    assert read.missed == [(2, 2)]
    assert topic.state is State.LIVE
    book = read.tracker.book(BOOK)
    assert book is not None
    assert book.bids.best() == 90


async def test_a_book_is_made_of_one_that_was_fetched_and_what_came_since(rig: Rig) -> None:
    rig.inlet.repairs = True
    read = rig.reader()

    await rig.deliver(*(sent(BOOK, n, delta(n, str(n))) for n in range(50, 56)))
    hole = await rig.inlet.hole()
    too_old = rig.inlet.fill(hole, [sent(BOOK, 48, snapshot(48, "1"))])
    filled = rig.inlet.fill(hole, [sent(BOOK, 52, snapshot(52, "10", "50", "51", "52"))])
    await rig.deliver(sent(BOOK, 56, delta(56, "56")))

    assert (too_old, filled) == (False, True)
    assert read.brief() == [("conflated", 55), ("book", 55), ("book", 56)]
    book = read.tracker.book(BOOK)
    assert book is not None
    assert [float(level[0]) for level in book.bids.levels()] == [56, 55, 54, 53, 52, 51, 50, 10]
    assert rig.latest(BOOK)[0]["seq"] == 56


async def test_a_book_that_is_ahead_of_the_stream_is_taken_and_the_stream_catches_up(rig: Rig) -> None:
    rig.inlet.repairs = True
    read = rig.reader()

    await rig.deliver(sent(BOOK, 50, delta(50, "50")))
    rig.inlet.fill(await rig.inlet.hole(), [sent(BOOK, 53, snapshot(53, "100"))])
    await rig.deliver(*(sent(BOOK, n, delta(n, str(n))) for n in range(51, 56)))

    assert [pair for pair in read.brief() if pair[0] == "book"] == [("book", 53), ("book", 54), ("book", 55)]
    assert rig.inlet.report.duplicates == 3
    assert read.missed == []


async def test_a_book_is_gone_when_the_upstream_says_so(rig: Rig) -> None:
    await rig.deliver(sent(BOOK, 1, snapshot(1, "100")), sent(BOOK, 2, status(2, State.RESYNCING)))

    assert [message["type"] for message in rig.latest(BOOK)] == ["status"]

    await rig.deliver(sent(BOOK, 3, snapshot(3, "99")), sent(BOOK, 4, status(4, State.LIVE)))

    assert rig.latest(BOOK)[0]["data"]["bids"] == [["99", "1"]]


async def test_a_whole_book_at_the_number_that_is_known_makes_an_absent_one_whole(rig: Rig) -> None:
    read = rig.reader()

    await rig.deliver(sent(BOOK, 50, delta(50, "50")), sent(BOOK, 50, snapshot(50, "10", "50")))

    assert read.brief() == [("book", 50)]
    assert rig.inlet.report.duplicates == 0


async def test_levels_that_are_no_numbers_end_the_book_and_nothing_else(rig: Rig) -> None:
    read = rig.reader()

    await rig.deliver(
        sent(BOOK, 1, snapshot(1, "100")), sent(BOOK, 2, delta(2, "x")), sent(BOOK, 3, snapshot(3, "101"))
    )

    assert rig.inlet.report.unreadable == 1
    assert read.brief() == [("book", 1), ("gap", 2), ("book", 3)]


async def test_views_of_a_book_go_on_after_a_hole(rig: Rig) -> None:
    await rig.deliver(sent(BOOK, 1, snapshot(1, "100", "99", "98")))
    read = rig.reader(BOOK, Options(depth=2))

    await rig.deliver(sent(BOOK, 3, delta(3, "101")), sent(BOOK, 4, snapshot(4, "90", "89", "88")))

    assert read.messages[-1]["data"]["kind"] == "snapshot"
    assert read.messages[-1]["data"]["bids"] == [["90", "1"], ["89", "1"]]


# --- epochs and the upstream ------------------------------------------------------------------------------


async def test_another_epoch_ends_the_one_before(rig: Rig) -> None:
    ended: list[str] = []
    rig.bus.on_renewal = lambda: ended.append(rig.bus.epoch)
    await rig.deliver(sent(TRADES, 900, trade(1)), sent(QUOTES, 5, quote(1)))
    rig.inlet.up()

    await rig.deliver(
        sent(TRADES, 1, trade(2), "two"), sent(TRADES, 901, trade(3), "one"), sent(TRADES, 2, trade(4), "two")
    )

    assert ended == ["two"]
    assert rig.bus.epoch == "two"
    assert rig.bus.get(QUOTES) is None
    topic = rig.bus.get(TRADES)
    assert topic is not None
    assert topic.seq == 2
    assert (rig.inlet.report.outdated, rig.inlet.report.epochs) == (1, 1)


async def test_while_the_past_is_read_an_older_epoch_is_known_by_its_time(rig: Rig) -> None:
    rig.inlet.catching_up()

    await rig.deliver(sent(TRADES, 5, trade(100), "new"), sent(QUOTES, 70, quote(50), "old"))

    assert rig.bus.epoch == "new"
    assert rig.inlet.report.outdated == 1


async def test_readers_may_come_once_the_past_is_read_and_the_epoch_known(rig: Rig) -> None:
    told: list[str] = []
    rig.bus.on_upstream = lambda: told.append(rig.bus.upstream.away)
    rig.inlet.catching_up()
    await rig.deliver(sent(TRADES, 5, trade(1)))
    before = rig.bus.upstream.open
    rig.inlet.up()
    after = rig.bus.upstream.open
    rig.inlet.lost("the broker went")
    topic = rig.bus.get(TRADES)
    assert topic is not None
    lost_state = rig.bus.state(topic)
    rig.inlet.lost("still")
    rig.inlet.up()

    assert (before, after, rig.bus.upstream.open) == (False, True, True)
    assert told == ["", "the broker went", "still", ""]
    assert lost_state is State.STALE
    assert rig.bus.state(topic) is State.LIVE


async def test_an_upstream_that_is_connected_and_says_nothing_opens_nothing(rig: Rig) -> None:
    rig.inlet.up()
    assert not rig.bus.upstream.open
    await rig.deliver(sent(TRADES, 5, trade(1)))
    assert rig.bus.upstream.open


async def test_how_things_stand_is_taken_only_where_less_is_known(rig: Rig) -> None:
    await rig.deliver(sent(TRADES, 10, trade(10)), sent(BOOK, 20, delta(20, "20")))

    rig.inlet.refresh(
        [
            sent(TRADES, 15, trade(15)),
            sent(QUOTES, 7, quote(7)),
            sent(BOOK, 20, snapshot(20, "10", "20")),
            sent(BOOK, 20, status(20, State.STALE)),
        ]
    )

    assert [message["seq"] for message in rig.latest(TRADES)] == [10]
    assert [message["seq"] for message in rig.latest(QUOTES)] == [7]
    assert rig.latest(BOOK)[0]["data"]["bids"] == [["20", "1"], ["10", "1"]]


# --- what is wanted ---------------------------------------------------------------------------------------


def balance(account: str) -> AccountEvent:
    return AccountEvent(account=account, kind="balance", key="k", fields={"coin": "BTC"}, **common(1))


@pytest.mark.parametrize(
    ("accounts", "served"), [((), []), (("main",), ["main"]), (("*",), ["main", "other"])]
)
async def test_accounts_are_served_only_if_they_are_named(
    make: Callable[..., Rig], accounts: tuple[str, ...], served: list[str]
) -> None:
    rig = make(accounts=accounts)

    await rig.deliver(*(sent(f"balance:bybit:{name}", 1, balance(name)) for name in ("main", "other")))

    assert sorted(topic.instrument for topic in rig.bus) == served
    assert rig.inlet.report.unwanted == 2 - len(served)


async def test_only_the_topics_of_the_patterns_are_served(make: Callable[..., Rig]) -> None:
    rig = make(topics=("trade:*:BTC-USDT", "quote:example:*"))

    await rig.deliver(
        sent(TRADES, 1, trade(1)),
        sent("trade:example:ETH-USDT", 1, trade(1)),
        sent(QUOTES, 1, quote(1)),
        sent(BOOK, 1, snapshot(1, "1")),
    )

    assert sorted(topic.name for topic in rig.bus) == [QUOTES, TRADES]


async def test_gaps_of_the_upstream_are_its_own_messages(rig: Rig) -> None:
    read = rig.reader()
    gap = Gap(
        topic_channel="trade",
        from_ns=START_NS,
        to_ns=START_NS + 1_000,
        reason="reconnect",
        missing=3,
        **(common(2) | {"origin": Origin.DERIVED}),
    )

    await rig.deliver(sent(TRADES, 1, trade(1)), sent(TRADES, 2, gap))

    assert read.texts[1] == wire.encode(TRADES, 2, gap)


async def test_what_the_upstream_lists_can_be_looked_up(rig: Rig) -> None:
    listed = Instrument(
        venue=VENUE, market="spot", name=BTC, symbol="BTCUSDT", kind=Kind.SPOT, base="BTC", quote="USDT"
    )

    rig.inlet.list_instruments(VENUE, "spot", [listed])

    assert rig.inlet._directory.find(VENUE, "BTCUSDT").name == BTC


async def test_a_hole_that_is_closed_already_is_not_handed_out(rig: Rig) -> None:
    rig.inlet.repairs = True
    await rig.deliver(sent(BOOK, 1, delta(1, "1")), sent(BOOK, 2, snapshot(2, "1")))
    await rig.deliver(sent(TRADES, 1, trade(1)), sent(TRADES, 3, trade(3)))

    hole = await rig.inlet.hole()

    assert hole.topic == TRADES
    assert rig.inlet.fill(Hole("trade:no:NE", 1, 1), [])
    assert rig.inlet.fill(Hole(TRADES, 2, 2), [])  # not the one that was asked for


async def test_a_long_batch_lets_others_work(rig: Rig) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await rig.deliver(*(sent(TRADES, n, trade(n)) for n in range(1, 2_001)))
        nursery.cancel_scope.cancel()

    assert turns >= 5
