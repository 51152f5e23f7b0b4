"""The laws of mailboxes and of the bus: order, bounds, and that what is missing was told."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.bus import Bus
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Price,
    Quote,
    State,
    Status,
    Ticker,
    Trade,
)
from pricefeedd.mailbox import Mailbox
from pricefeedd.message import Lane, Message, Notice, lane_of
from pricefeedd.topic import Pattern, Topic
from pricefeedd.views import Pacer

INSTRUMENTS = ("A-B", "C-D")
LIMIT_BYTES = 2000


def trade(instrument: str, padding: int = 0) -> Event:
    return Trade(
        venue="v", instrument=instrument, received_ns=0, id="x" * padding, price="1", size="1", aggressor=None
    )


def quote(instrument: str, padding: int = 0) -> Event:
    return Quote(
        venue="v",
        instrument=instrument,
        received_ns=0,
        bid_price="1",
        bid_size="1",
        ask_price="1" * (padding + 1),
        ask_size="1",
    )


def delta(instrument: str, padding: int = 0) -> Event:
    return BookDelta(
        venue="v", instrument=instrument, received_ns=0, bids=[["1", "1" * (padding + 1)]], asks=[]
    )


def snapshot(instrument: str = "A-B", padding: int = 0) -> BookSnapshot:
    return BookSnapshot(venue="v", instrument=instrument, received_ns=0, bids=[["1", "1"]], asks=[])


def status(instrument: str, padding: int = 0) -> Event:
    return Status(
        venue="v",
        instrument=instrument,
        received_ns=0,
        topic_channel="quote",
        state=State.STALE,
        reason="x" * padding,
    )


def candle(closed: bool, instrument: str = "A-B") -> Event:
    return Candle(
        venue="v",
        instrument=instrument,
        received_ns=0,
        start_ns=0,
        open="1",
        high="1",
        low="1",
        close="1",
        volume="1",
        closed=closed,
    )


class Reader:
    """A reader of everything on a bus, which takes what is there or lags."""

    def __init__(self, bus: Bus, limit_bytes: int = LIMIT_BYTES, *, conflates: bool = True) -> None:
        self.got: list[Message | Notice] = []
        self.stuck = False
        self.flushes = 0
        self.mailbox = bus.mailbox(limit_bytes=limit_bytes, flush=self.flush, conflates=conflates)
        bus.subscribe(self.mailbox, Pattern("*:*:*"))

    def flush(self) -> None:
        self.flushes += 1
        if self.stuck:
            self.mailbox.lag()
        else:
            self.got += self.mailbox.take()

    def catch_up(self) -> None:
        self.stuck = False
        self.got += self.mailbox.take()
        self.mailbox.lagging = False


def with_books(bus: Bus) -> None:
    for instrument in INSTRUMENTS:
        bus.topic("book", "v", instrument).book = lambda instrument=instrument: snapshot(
            instrument
        )  # the default binds the loop's value


makers: st.SearchStrategy[Callable[[str, int], Event]] = st.sampled_from([trade, quote, delta, status])
offers = st.tuples(makers, st.sampled_from(INSTRUMENTS), st.integers(0, 300)).map(
    lambda offer: offer[0](offer[1], offer[2])
)
#: What happens: events come, or the reader gets stuck, or catches up.
steps = st.lists(
    st.lists(offers, min_size=1, max_size=6) | st.just("stuck") | st.just("catch up"), max_size=25
)


def play(happens: list[list[Event] | str]) -> tuple[Bus, Reader, list[Message]]:
    """Return bus and reader after all that happened, and each message as it was published."""
    bus = Bus()
    with_books(bus)
    reader = Reader(bus)
    everything: list[Message] = []
    keen = Reader(bus, limit_bytes=1 << 30)
    for step in happens:
        if step == "stuck":
            reader.stuck = True
        elif step == "catch up":
            reader.catch_up()
        else:
            bus.publish([event for event in step if isinstance(event, Event)])
        limit = LIMIT_BYTES + LIMIT_BYTES // 8
        assert reader.mailbox.waiting_bytes <= limit, "the bound of both lanes"
    reader.catch_up()
    everything += [m for m in keen.got if isinstance(m, Message)]
    return bus, reader, everything


@given(steps)
def test_a_reader_that_keeps_up_gets_everything_once_and_in_order(happens: list[list[Event] | str]) -> None:
    flowing = [step for step in happens if not isinstance(step, str)]
    bus, reader, everything = play(list(flowing))

    assert reader.got == everything
    assert bus.published == len(everything) == sum(map(len, flowing))
    assert reader.flushes == len(flowing), "once for each batch"
    assert (reader.mailbox.lost, reader.mailbox.conflated) == (0, 0)


@given(steps)
def test_a_topics_numbers_only_grow_and_end_at_the_newest(happens: list[list[Event] | str]) -> None:
    bus, reader, everything = play(happens)
    seen: dict[str, int] = {}

    for message in reader.got:
        if isinstance(message, Message):
            assert message.seq > seen.get(message.topic, 0)
            seen[message.topic] = message.seq
        elif message.lost:
            seen[message.topic] = max(message.seq, seen.get(message.topic, 0))
    assert seen == {topic.name: topic.seq for topic in bus if topic.seq}
    assert [m.seq for m in everything if m.topic == "trade:v:A-B"] == list(
        range(1, 1 + sum(m.topic == "trade:v:A-B" for m in everything))
    )


@given(steps)
def test_what_is_delivered_keeps_the_order_in_which_it_came(happens: list[list[Event] | str]) -> None:
    _, reader, everything = play(happens)
    place = {id(message): index for index, message in enumerate(everything)}
    # Books that were made anew stand where they were made, and are not among the published.
    places = [place[id(m)] for m in reader.got if id(m) in place]

    assert places == sorted(places)


@given(steps)
def test_where_nothing_is_conflated_every_number_is_delivered_or_told_as_lost(
    happens: list[list[Event] | str],
) -> None:
    bus = Bus()
    with_books(bus)
    reader = Reader(bus, conflates=False)
    for step in happens:
        if step == "stuck":
            reader.stuck = True
        elif step == "catch up":
            reader.catch_up()
        else:
            bus.publish([event for event in step if isinstance(event, Event)])
        assert reader.mailbox.waiting_bytes <= LIMIT_BYTES + LIMIT_BYTES // 8
    reader.catch_up()

    for topic in bus:
        if topic.channel == "book":
            continue
        told: list[int] = []
        for message in reader.got:
            if message.topic != topic.name:
                continue
            if isinstance(message, Message):
                told.append(message.seq)
            else:
                data = orjson.loads(message.text)["data"]
                assert message.lost == data["missing"] == data["to_seq"] - data["from_seq"] + 1
                told += range(data["from_seq"], data["to_seq"] + 1)
        assert told == list(range(1, topic.seq + 1))


@given(steps)
def test_events_are_delivered_or_told_as_lost(happens: list[list[Event] | str]) -> None:
    _, reader, everything = play(happens)
    offered = [m for m in everything if m.lane is Lane.EVENT]
    delivered = [m for m in reader.got if isinstance(m, Message) and m.lane is Lane.EVENT]
    told = [orjson.loads(m.text) for m in reader.got if isinstance(m, Notice) and m.lost]

    assert len(delivered) + reader.mailbox.lost == len(offered)
    assert sum(gap["data"]["missing"] for gap in told) == reader.mailbox.lost
    missing = {(m.topic, m.seq) for m in offered} - {(m.topic, m.seq) for m in delivered}
    covered = {
        (gap["topic"], seq)
        for gap in told
        for seq in range(gap["data"]["from_seq"], gap["data"]["to_seq"] + 1)
    }
    assert missing <= covered


@given(steps)
def test_replaced_state_is_told(happens: list[list[Event] | str]) -> None:
    _, reader, everything = play(happens)
    published = sum(m.lane is Lane.STATE for m in everything)
    delivered = sum(isinstance(m, Message) and m.lane is Lane.STATE for m in reader.got)
    told = [orjson.loads(m.text) for m in reader.got if isinstance(m, Notice) and not m.lost]
    replaced = sum(m["data"]["dropped"] for m in told if m["topic"].startswith("quote"))

    assert all(m["type"] == "conflated" for m in told)
    assert published == delivered + replaced


@given(steps)
def test_a_book_goes_on_without_a_hole_or_starts_anew(happens: list[list[Event] | str]) -> None:
    _, reader, _ = play(happens)
    at: dict[str, int] = {}

    for message in reader.got:
        if isinstance(message, Message) and message.lane is Lane.BOOK:
            if isinstance(message.event, BookDelta):
                assert message.seq == at.get(message.topic, 0) + 1, "a delta upon another book"
            at[message.topic] = message.seq


@given(steps)
def test_no_number_is_passed_over_without_a_word(happens: list[list[Event] | str]) -> None:
    """A reader that counts can trust its count: where numbers jump, a notice said so before."""
    _, reader, _ = play(happens)
    at: dict[str, int] = {}

    for message in reader.got:
        before = at.get(message.topic, 0)
        if isinstance(message, Message):
            starts_anew = isinstance(message.event, BookSnapshot) and message.seq >= before
            assert message.seq == before + 1 or starts_anew
            at[message.topic] = message.seq
        elif message.lost:
            assert message.seq > before
            at[message.topic] = message.seq
        else:
            assert message.seq > before
            at[message.topic] = message.seq - 1


# --- examples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "lane"),
    [
        (trade("A-B"), Lane.EVENT),
        (quote("A-B"), Lane.STATE),
        (Ticker(venue="v", instrument="i", received_ns=0), Lane.STATE),
        (Price(venue="v", instrument="i", received_ns=0, price="1", conf="1", publish_time_ns=0), Lane.STATE),
        (candle(closed=False), Lane.STATE),
        (candle(closed=True), Lane.EVENT),
        (snapshot(), Lane.BOOK),
        (delta("A-B"), Lane.BOOK),
        (status("A-B"), Lane.EVENT),
        (
            Gap(
                venue="v", instrument="i", received_ns=0, topic_channel="book", from_ns=0, to_ns=1, reason=""
            ),
            Lane.EVENT,
        ),
    ],
)
def test_each_event_has_its_lane(event: Event, lane: Lane) -> None:
    assert lane_of(event) is lane


def test_a_message_is_encoded_once_for_all_its_readers() -> None:
    bus = Bus()
    one, two = Reader(bus), Reader(bus)

    bus.publish([trade("A-B")])

    [first], [second] = one.got, two.got
    assert first is second
    assert isinstance(first, Message)
    assert first.text is first.text
    assert first.frame is first.frame
    assert first.frame.endswith(first.text)


def test_the_lost_are_told_before_what_came_after_them() -> None:
    bus = Bus()
    reader = Reader(bus, limit_bytes=400)
    reader.stuck = True
    bus.publish([trade("A-B") for _ in range(10)])

    reader.catch_up()

    gap, *rest = reader.got
    assert isinstance(gap, Notice)
    told = orjson.loads(gap.text)
    assert (told["type"], told["topic"]) == ("gap", "trade:v:A-B")
    assert told["data"]["reason"] == "slow reader"
    assert [m.seq for m in rest] == list(range(told["data"]["to_seq"] + 1, 11))
    assert told["data"]["from_seq"] == 1
    assert gap.lost == told["data"]["missing"] == told["data"]["to_seq"]


def test_the_empty_mailbox_says_so() -> None:
    mailbox = Mailbox(limit_bytes=100, snapshot=lambda topic: None, flush=lambda: None, dirty=[])

    states = [mailbox.empty]
    mailbox.offer(Message("trade:v:A-B", 1, trade("A-B")))
    states.append(mailbox.empty)
    mailbox.take()
    states.append(mailbox.empty)

    assert states == [True, False, True]


# --- the bus ----------------------------------------------------------------------------------------------

parts = st.sampled_from(["*", "trade", "book", "order", "v", "w", "A-B"])


@given(parts, parts, parts, parts, parts, parts)
def test_a_pattern_means_what_each_part_says(a: str, b: str, c: str, x: str, y: str, z: str) -> None:
    if "*" in (x, y, z):
        return
    fits = (a in ("*", x)) and (b in ("*", y)) and (c in ("*", z))
    # What belongs to an account is never meant by a star.
    secret = "*" in (a, b, c) and x == "order"

    assert Pattern(f"{a}:{b}:{c}").matches(Topic(x, y, z, Pacer())) is (fits and not secret)
    assert Pattern(f"{a}:{b}:{c}").exact is ("*" not in (a, b, c))


@pytest.mark.parametrize("text", ["", "trade", "trade:v", "trade::A-B", ":v:A-B", "trade:v:"])
def test_a_pattern_has_three_parts(text: str) -> None:
    with pytest.raises(ValueError, match="a topic is channel:venue:instrument"):
        Pattern(text)


def test_a_name_may_hold_colons() -> None:
    assert Pattern("quote:hyperliquid:xyz:TSLA").instrument == "xyz:TSLA"


def test_each_topic_counts_by_itself_within_an_epoch() -> None:
    bus = Bus()
    reader = Reader(bus)

    bus.publish([trade("A-B"), trade("C-D"), trade("A-B"), quote("A-B")])

    assert [(m.topic, m.seq) for m in reader.got] == [
        ("trade:v:A-B", 1),
        ("trade:v:C-D", 1),
        ("trade:v:A-B", 2),
        ("quote:v:A-B", 1),
    ]
    assert bus.epoch != Bus().epoch


def test_a_status_changes_the_state_of_its_topic() -> None:
    bus = Bus()
    bus.publish([quote("A-B"), status("A-B")])
    topic = bus.get("quote:v:A-B")

    assert topic is not None
    assert topic.state is State.STALE
    assert (topic.seq, topic.count) == (2, 1)
    assert [type(m.event) for m in bus.latest(topic)] == [Quote, Status]
