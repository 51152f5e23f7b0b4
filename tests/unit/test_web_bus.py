"""What readers rely on in the bus: joining, parting, and what comes first."""

from __future__ import annotations

from pricefeedd.bus import Bus
from pricefeedd.events import BookDelta, BookSnapshot, State, Status, Trade
from pricefeedd.mailbox import Mailbox
from pricefeedd.topic import Pattern


def trade(instrument: str = "A", *, at: int = 1) -> Trade:
    return Trade(
        venue="v", instrument=instrument, received_ns=at, id=None, price="1", size="1", aggressor=None
    )


def status(state: State, channel: str = "trade") -> Status:
    return Status(venue="v", instrument="A", received_ns=1, topic_channel=channel, state=state)


def reader(bus: Bus) -> tuple[Mailbox, list[str]]:
    got: list[str] = []

    def flush() -> None:
        got.extend(f"{m.topic}#{m.seq}" for m in mailbox.take())

    mailbox = bus.mailbox(limit_bytes=10_000, flush=flush)
    return mailbox, got


def test_a_topic_read_by_two_patterns_comes_once_and_stays_until_both_are_gone() -> None:
    bus = Bus()
    mailbox, got = reader(bus)
    exact, wild = Pattern("trade:v:A"), Pattern("trade:*:*")
    bus.subscribe(mailbox, exact)
    bus.subscribe(mailbox, wild)
    bus.publish([trade()])
    assert bus.unsubscribe(mailbox, exact) == []
    bus.publish([trade()])
    assert [t.name for t in bus.unsubscribe(mailbox, wild)] == ["trade:v:A"]
    bus.publish([trade()])
    assert got == ["trade:v:A#1", "trade:v:A#2"]


def test_parting_from_a_pattern_keeps_what_is_named_alone() -> None:
    bus = Bus()
    mailbox, got = reader(bus)
    bus.publish([trade("A"), trade("B")])
    bus.subscribe(mailbox, Pattern("trade:v:A"))
    bus.subscribe(mailbox, Pattern("trade:v:*"))
    assert [t.name for t in bus.unsubscribe(mailbox, Pattern("trade:v:*"))] == ["trade:v:B"]
    bus.publish([trade("A"), trade("B"), trade("C")])
    assert got == ["trade:v:A#2"]


def test_who_leaves_is_forgotten_everywhere() -> None:
    bus = Bus()
    mailbox, got = reader(bus)
    bus.publish([trade("A")])
    for text in ("trade:v:A", "trade:v:LATER", "quote:*:*"):
        bus.subscribe(mailbox, Pattern(text))
    bus.leave(mailbox)
    bus.publish([trade("A"), trade("LATER")])
    assert got == []
    assert not any(topic.readers for topic in bus)


def test_a_topic_that_was_dropped_and_comes_back_goes_on_with_its_readers() -> None:
    bus = Bus()
    mailbox, got = reader(bus)
    bus.subscribe(mailbox, Pattern("trade:v:A"))
    bus.publish([trade()])
    topic = bus.get("trade:v:A")
    assert topic is not None
    before = bus.changes
    bus.drop(topic)
    bus.publish([trade()])
    assert bus.changes == before + 2
    assert got == ["trade:v:A#1", "trade:v:A#2"]


def test_the_first_messages_end_at_the_topics_seq() -> None:
    bus = Bus()
    bus.publish([trade(), status(State.STALE), trade(), status(State.LIVE)])
    topic = bus.get("trade:v:A")
    assert topic is not None
    assert [m.seq for m in bus.latest(topic)] == [3, 4]
    bus.publish([trade()])
    assert [m.seq for m in bus.latest(topic)] == [5]
    bus.publish([status(State.DOWN)])
    assert [m.seq for m in bus.latest(topic)] == [5, 6]


def test_of_a_book_comes_the_whole_at_the_present_seq() -> None:
    bus = Bus()
    whole = BookSnapshot(venue="v", instrument="A", received_ns=1, bids=[], asks=[])
    bus.publish([whole, BookDelta(venue="v", instrument="A", received_ns=1, bids=[], asks=[])])
    topic = bus.get("book:v:A")
    assert topic is not None
    topic.book = lambda: whole
    (first,) = bus.latest(topic)
    assert (first.seq, first.event) == (2, whole)
    topic.book = lambda: None
    assert bus.latest(topic) == []


def test_what_waits_for_topics_no_longer_read_is_dropped() -> None:
    bus = Bus()
    mailbox, _ = reader(bus)
    bus.subscribe(mailbox, Pattern("trade:v:*"))
    mailbox.lag()
    bus.publish([trade("A"), trade("B"), trade("A")])
    mailbox.forget("trade:v:A", "trade:v:NONE")
    assert [m.topic for m in mailbox.take()] == ["trade:v:B"]
    assert mailbox.waiting_bytes == 0
