"""The gate of a market: topics side by side, and the law that what comes twice goes out once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Origin,
    Price,
    Quote,
    Side,
    State,
    Status,
    Ticker,
    Trade,
)
from pricefeedd.gate import Gate
from pricefeedd.lines import Context, WantBook, WantCandles, WantTrades
from pricefeedd.rules import BookRule, CandleRule, Rules, Source, TradeIds, TradeRule
from pricefeedd.stats import MarketStats

S = 1_000_000_000
M = 60 * S
NOW = 1_767_225_600 * S
CHANNELS = ("trade", "quote", "ticker", "candle_1m", "book", "price")


def made(*, channels: Iterable[str] = CHANNELS, instruments: Iterable[str] = ("A-B", "C-D")) -> Gate:
    gate = Gate(
        Context(
            venue="v",
            rules=Rules(
                book=BookRule(source=Source.REST),
                trade=TradeRule(ids=TradeIds.CONSECUTIVE),
                candle=CandleRule(),
            ),
            stats=MarketStats(venue="v", market="spot"),
            wants=[],
        )
    )
    for channel in channels:
        for instrument in instruments:
            gate.expect(channel, instrument)
    return gate


def admitted(gate: Gate, events: Iterable[Event]) -> list[Event]:
    out: list[Event] = []
    gate.admit(events, out)
    return out


def trade(number: int, instrument: str = "A-B") -> Trade:
    return Trade(
        venue="v",
        instrument=instrument,
        venue_time_ns=NOW - 50_000_000,
        received_ns=NOW,
        id=str(number),
        price="1",
        size="1",
        aggressor=Side.SELL,
    )


def quote(number: int, instrument: str = "A-B") -> Quote:
    return Quote(
        venue="v",
        instrument=instrument,
        received_ns=NOW,
        bid_price=str(number),
        bid_size="1",
        ask_price="9",
        ask_size="1",
        sequence=number,
    )


def ticker(number: int) -> Ticker:
    return Ticker(venue="v", instrument="A-B", venue_time_ns=number, received_ns=NOW, last=str(number))


def candle(minute: int, *, closed: bool = True) -> Candle:
    return Candle(
        venue="v",
        instrument="A-B",
        received_ns=NOW,
        start_ns=NOW + minute * M,
        open="1",
        high="1",
        low="1",
        close="1",
        volume="1",
        closed=closed,
    )


def price(slot: int) -> Price:
    return Price(
        venue="v", instrument="A-B", received_ns=NOW, price="1", conf="0", publish_time_ns=NOW, slot=slot
    )


def delta(number: int) -> BookDelta:
    return BookDelta(
        venue="v",
        instrument="A-B",
        received_ns=NOW,
        bids=[["1", str(number)]],
        asks=[],
        sequence=number,
    )


def snapshot(number: int) -> BookSnapshot:
    return BookSnapshot(
        venue="v",
        instrument="A-B",
        received_ns=NOW,
        bids=[["1", "1"]],
        asks=[["2", "1"]],
        sequence=number,
    )


def test_topics_do_not_touch_each_other() -> None:
    gate = made()
    out = admitted(gate, [trade(1), trade(70, "C-D"), quote(5), quote(2, "C-D"), trade(2), trade(71, "C-D")])
    assert len(out) == 6
    assert gate.take_wants() == []


def test_what_nobody_expects_is_passed_over() -> None:
    gate = made(channels=["trade"], instruments=["A-B"])
    assert admitted(gate, [trade(1, "X-Y"), quote(1), trade(1)]) == [trade(1)]
    gate.forget("trade", "A-B")
    assert admitted(gate, [trade(2)]) == []
    assert gate.line("trade", "A-B") is None
    gate.forget("trade", "never")


def test_expecting_twice_keeps_what_is_known() -> None:
    gate = made()
    admitted(gate, [trade(1)])
    line = gate.expect("trade", "A-B")
    assert admitted(gate, [trade(1)]) == []
    assert line in list(gate)


def test_wants_are_taken_once() -> None:
    gate = made()
    admitted(gate, [trade(1), trade(5)])
    assert len(gate.take_wants()) == 1
    assert gate.take_wants() == []


def test_answers_find_their_topics() -> None:
    gate = made()
    out: list[Event] = []
    topics = [("trade", "A-B"), ("candle_1m", "A-B"), ("book", "A-B"), ("book", "unknown")]
    gate.accepted(1, topics, NOW, out)
    gate.admit([trade(1), trade(3), delta(5)], out)
    for want in gate.take_wants():
        if isinstance(want, WantBook):
            gate.book_fetched(want.instrument, snapshot(4), NOW, out)
        elif isinstance(want, WantTrades):
            gate.trades_fetched(want.instrument, [trade(2)], NOW, out)
        elif isinstance(want, WantCandles):
            assert want.end_ns == NOW - 2 * M
            gate.candles_fetched(want, [candle(-2)], NOW, out)
    assert [event.id for event in out if isinstance(event, Trade)] == ["1", "2", "3"]
    assert [event.start_ns for event in out if isinstance(event, Candle)] == [NOW - 2 * M]
    book = gate.book("A-B")
    assert book is not None
    assert (book.bids, book.sequence) == ([["1", "5"]], 5)


def test_answers_for_topics_that_were_let_go_are_dropped() -> None:
    gate = made(channels=[])
    out: list[Event] = []
    gate.book_fetched("A-B", snapshot(1), NOW, out)
    gate.trades_fetched("A-B", [trade(1)], NOW, out)
    gate.candles_fetched(WantCandles(instrument="A-B", start_ns=0, end_ns=0), [candle(0)], NOW, out)
    assert out == []
    assert gate.book("A-B") is None


def test_connections_come_and_go_by_topic() -> None:
    gate = made()
    out: list[Event] = []
    gate.accepted(1, [("quote", "A-B"), ("quote", "C-D"), ("quote", "unknown")], NOW, out)
    gate.accepted(2, [("quote", "A-B")], NOW, out)
    gate.lost(1, [("quote", "A-B"), ("quote", "C-D")], "cut", NOW, out, state=State.DOWN)
    said = [(event.instrument, event.state) for event in out if isinstance(event, Status)]
    assert said == [("A-B", State.LIVE), ("C-D", State.LIVE), ("C-D", State.DOWN)]


def test_the_clock_ticks_for_all_topics() -> None:
    gate = made()
    out: list[Event] = []
    for line in gate:
        line.owes_within_s = 1.0
    gate.accepted(1, [("quote", "A-B"), ("quote", "C-D")], NOW, out)
    out.clear()
    gate.tick(NOW + M, out)
    assert [event.state for event in out if isinstance(event, Status)] == [State.STALE, State.STALE]


def test_latency_is_measured_by_channel() -> None:
    gate = made()
    admitted(gate, [quote(1), trade(1)])
    admitted(gate, [])
    latency = gate.context.stats.latency
    assert set(latency) == {"trade"}
    assert sum(latency["trade"].counts) == 1
    assert 0.04 < latency["trade"].total_s < 0.06


def test_latency_is_of_the_newest_event_that_bears_a_time() -> None:
    gate = made()
    timeless = quote(1)
    timeless.venue_time_ns = None
    admitted(gate, [trade(1), timeless])
    assert set(gate.context.stats.latency) == {"trade"}


def test_a_channel_that_nobody_asked_for_names_no_metric() -> None:
    gate = made(channels=("quote",))
    for number in range(20):
        admitted(gate, [trade(number)])
    assert gate.context.stats.latency == {}


def test_a_venue_that_is_ahead_of_us_makes_no_negative_latency() -> None:
    gate = made()
    for number in range(1, 20):
        event = trade(number)
        event.received_ns = NOW + number * S
        event.venue_time_ns = event.received_ns + 3 * S - number % 5 * 1_000_000
        admitted(gate, [event])
    histogram = gate.context.stats.latency["trade"]
    assert sum(histogram.counts[:5]) == 19, "all of them below 10 ms, once the clock is put right"
    assert histogram.total_ns >= 0
    gate.shift(-3 * S)
    assert gate.context.stats.offset.least_ns is None


events_st = st.lists(
    st.one_of(
        st.integers(1, 20).map(trade),
        st.integers(1, 20).map(quote),
        st.integers(1, 20).map(ticker),
        st.integers(1, 20).map(price),
        st.integers(1, 20).map(delta),
        st.builds(candle, st.integers(0, 10), closed=st.booleans()),
    ),
    max_size=40,
)


def told(gate: Gate, events: Sequence[Event]) -> list[Event]:
    """Feed the events in one batch; answer all that is wanted with nothing."""
    out: list[Event] = []
    gate.admit(events, out)
    while wants := gate.take_wants():
        for want in wants:
            if isinstance(want, WantTrades):
                gate.trades_fetched(want.instrument, [], NOW, out)
            elif isinstance(want, WantCandles):
                gate.candles_fetched(want, [], NOW + 1000 * M, out)
    return out


@given(events_st)
def test_a_gate_fed_twice_admits_once(events: list[Event]) -> None:
    """Two connections during a hand-over bring everything twice, the second a moment later."""
    single, double = made(), made()
    for gate in (single, double):
        gate.accepted(1, [("book", "A-B")], NOW, [])
        gate.book_fetched("A-B", snapshot(0), NOW, [])
        gate.take_wants()
    once: list[Event] = []
    twice: list[Event] = []
    for event in events:
        once += told(single, [event])
        twice += told(double, [event])
        assert told(double, [event]) == [], "it was let through a moment ago, or refused for good"
    assert twice == once


@given(events_st)
def test_what_is_let_through_is_what_came(events: list[Event]) -> None:
    """Nothing is made up: besides statuses and gaps only what was admitted goes out."""
    out = told(made(), events)
    assert all(event in events for event in out if not isinstance(event, Status | Gap))
    assert {event.origin for event in out if not isinstance(event, Status | Gap)} <= {Origin.LIVE}


def test_an_event_that_holds_no_number_is_kept_to_be_looked_at_and_hurts_no_other() -> None:
    gate = made()
    gate.accepted(1, [("trade", "A-B")], NOW, [])
    good, bad = trade(1), attrs.evolve(trade(2), id="two")
    out = admitted(gate, [good, bad, trade(2)])
    assert [event.id for event in out if isinstance(event, Trade)] == ["1", "2"]
    assert gate.context.stats.decode_errors == 1
    assert "two" in gate.context.stats.bad_frames[0].reason
