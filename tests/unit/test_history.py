"""What a reader that was away is given: as if it had lagged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.bus import Bus
from pricefeedd.events import BookSnapshot, Candle, Event, Quote, State, Status, Trade
from pricefeedd.message import Lane, Message, Notice
from pricefeedd.topic import Topic


def trade(instrument: str = "A") -> Trade:
    return Trade(
        venue="v", instrument=instrument, received_ns=1, id=None, price="1", size="1", aggressor=None
    )


def quote() -> Quote:
    return Quote(
        venue="v", instrument="A", received_ns=1, bid_price="1", bid_size="1", ask_price="2", ask_size="1"
    )


def candle(*, closed: bool) -> Candle:
    return Candle(
        venue="v",
        instrument="A",
        received_ns=1,
        start_ns=0,
        open="1",
        high="1",
        low="1",
        close="1",
        volume="1",
        closed=closed,
    )


def status(state: State, channel: str) -> Status:
    return Status(venue="v", instrument="A", received_ns=1, topic_channel=channel, state=state)


def topic_of(bus: Bus, name: str) -> Topic:
    topic = bus.get(name)
    assert topic is not None
    return topic


def all_since(bus: Bus, topic: Topic, seq: int, most: int = 1_000) -> list[Message | Notice]:
    found: list[Message | Notice] = []
    more: int | None = seq
    while more is not None:
        part, more = bus.since(topic, more, most=most)
        found += part
    return found


def test_events_come_again_and_nothing_else() -> None:
    bus = Bus()
    bus.publish([trade() for _ in range(10)])
    topic = topic_of(bus, "trade:v:A")
    assert [m.seq for m in all_since(bus, topic, 4)] == [5, 6, 7, 8, 9, 10]
    assert [m.seq for m in all_since(bus, topic, 4, most=2)] == [5, 6, 7, 8, 9, 10]
    assert all_since(bus, topic, 10) == []


def test_of_state_comes_the_newest_with_a_notice_of_the_rest() -> None:
    bus = Bus()
    bus.publish([quote() for _ in range(10)])
    topic = topic_of(bus, "quote:v:A")
    notice, newest = all_since(bus, topic, 4)
    assert b'"dropped":5' in notice.text
    assert (notice.seq, newest.seq) == (10, 10)
    assert [m.seq for m in all_since(bus, topic, 9)] == [10]
    assert all_since(bus, topic, 10) == []


def test_state_keeps_its_place_among_the_events() -> None:
    bus = Bus()
    bus.publish([candle(closed=False), candle(closed=True), candle(closed=False)])
    bus.publish([status(State.STALE, "candle_1m")])
    topic = topic_of(bus, "candle_1m:v:A")
    assert [(m.seq, type(m).__name__) for m in all_since(bus, topic, 0)] == [
        (2, "Message"),
        (3, "Notice"),
        (3, "Message"),
        (4, "Message"),
    ]


def test_a_book_comes_as_it_stands() -> None:
    bus = Bus()
    whole = BookSnapshot(venue="v", instrument="A", received_ns=1, bids=[], asks=[])
    bus.publish([whole, whole])
    topic = topic_of(bus, "book:v:A")
    topic.book = lambda: whole
    assert [m.seq for m in all_since(bus, topic, 2)] == [2]


def test_what_is_forgotten_is_told_as_a_gap() -> None:
    bus = Bus(history=5)
    bus.publish([trade() for _ in range(12)])
    topic = topic_of(bus, "trade:v:A")
    gap, *rest = all_since(bus, topic, 3)
    assert isinstance(gap, Notice)
    assert b'"from_seq":4,"to_seq":7' in gap.text
    assert b'"missing":null' in gap.text
    assert [m.seq for m in rest] == [8, 9, 10, 11, 12]
    assert [m.seq for m in all_since(bus, topic, 7)] == [8, 9, 10, 11, 12]


def test_history_is_bounded_for_all_topics_of_a_channel_together() -> None:
    bus = Bus(history=100)
    for number in range(1_000):
        bus.publish([trade(f"I{number % 7}"), candle(closed=True)])
    kept = [len(topic.history) for topic in bus if topic.channel == "trade"]
    assert sum(kept) == 100
    assert max(kept) - min(kept) <= 1
    assert len(topic_of(bus, "candle_1m:v:A").history) == 100


def test_a_topic_that_ended_and_began_again_is_honest_about_its_past() -> None:
    bus = Bus()
    bus.publish([trade(), trade()])
    bus.drop(topic_of(bus, "trade:v:A"))
    bus.publish([trade()])
    gap, again = all_since(bus, topic_of(bus, "trade:v:A"), 1)
    assert isinstance(gap, Notice)
    assert b'"from_seq":2,"to_seq":2' in gap.text
    assert again.seq == 3


makers = st.sampled_from(
    [
        lambda: candle(closed=True),
        lambda: candle(closed=False),
        lambda: status(State.STALE, "candle_1m"),
        lambda: status(State.LIVE, "candle_1m"),
    ]
)


@given(st.lists(makers, min_size=1, max_size=40), st.integers(0, 45), st.integers(1, 10), st.integers(1, 40))
def test_whoever_comes_back_stands_where_the_topic_stands(
    made: list[object], seq: int, most: int, history: int
) -> None:
    """Each event once, in order; the rest told as gap or conflated; and in the end the newest state."""
    bus = Bus(history=history)
    events: list[Event] = [make() for make in made]  # type: ignore[operator]  # functions, as a strategy gives them
    bus.publish(events)
    topic = topic_of(bus, "candle_1m:v:A")
    seq = min(seq, topic.seq)
    found = all_since(bus, topic, seq, most)
    messages = [m for m in found if isinstance(m, Message)]
    assert [m.seq for m in messages] == sorted({m.seq for m in messages})
    got = {m.seq for m in messages if m.lane is Lane.EVENT}
    owed = {at for at, event in enumerate(events, 1) if at > seq and not _is_state(event)}
    assert got == {at for at in owed if at > topic.forgotten}
    newest = max((at for at, event in enumerate(events, 1) if _is_state(event)), default=0)
    if newest > seq and topic.last is not None and topic.last.seq == newest:
        assert newest in {m.seq for m in messages}
    assert (seq < topic.forgotten) == any(b'"gap"' in m.text for m in found if isinstance(m, Notice))


def _is_state(event: Event) -> bool:
    return isinstance(event, Candle) and not event.closed
