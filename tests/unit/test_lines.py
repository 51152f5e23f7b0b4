"""What is remembered of one topic: trades, quotes, tickers, minutes and books, each once and in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.book_line import BookLine
from pricefeedd.candle_line import CandleLine
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Origin,
    Price,
    Quote,
    Side,
    State,
    Status,
    Ticker,
    Trade,
)
from pricefeedd.gate import line_for
from pricefeedd.lines import (
    Context,
    Line,
    QuoteLine,
    Seen,
    TickerLine,
    Want,
    WantBook,
    WantCandles,
    WantResubscribe,
    WantTrades,
)
from pricefeedd.rules import BookRule, CandleEnd, CandleRule, EmptyMinutes, Rules, Source, TradeIds, TradeRule
from pricefeedd.stats import MarketStats
from pricefeedd.trade_line import HOLD_S, MAX_FILL_TRADES, MAX_HELD, TradeLine

S = 1_000_000_000
M = 60 * S
#: 2026-01-01 00:00 UTC, so that the minutes before it belong to another day, month and year.
MIDNIGHT = 1_767_225_600 * S

E = TypeVar("E", bound=Event)


def context(
    *,
    ids: TradeIds = TradeIds.CONSECUTIVE,
    end: CandleEnd = CandleEnd.FLAG,
    history: int | None = None,
    source: Source = Source.REST,
    empty: EmptyMinutes = EmptyMinutes.SENT,
) -> Context:
    return Context(
        venue="v",
        rules=Rules(
            book=BookRule(source=source),
            trade=TradeRule(ids=ids),
            candle=CandleRule(end=end, grace_s=2.0, history_minutes=history, empty=empty),
        ),
        stats=MarketStats(venue="v", market="spot"),
        wants=[],
    )


def wants(line: Line[Any]) -> list[Want]:
    taken = line.context.wants[:]
    line.context.wants.clear()
    return taken


def of(kind: type[E], events: Iterable[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def states(events: Iterable[Event]) -> list[State]:
    return [event.state for event in of(Status, events)]


# --- seen --------------------------------------------------------------------------------------------------


def test_seen_forgets_by_age() -> None:
    seen = Seen(10.0, 100)
    assert not seen.again("a", 0)
    assert not seen.again("b", 6 * S)
    assert seen.again("a", 10 * S)
    assert not seen.again("a", 11 * S)
    assert seen.again("b", 12 * S)
    assert len(seen) == 2


def test_seen_forgets_the_oldest_when_there_are_too_many() -> None:
    seen = Seen(1000.0, 3)
    for key in "abc":
        assert not seen.again(key, 0)
    for key in "abc":
        assert seen.again(key, 1), "what it holds it knows, full or not"
    assert not seen.again("d", 2)
    assert len(seen) == 3
    assert seen.again("b", 3)
    assert not seen.again("a", 3)


def test_a_memory_of_one_knows_one() -> None:
    seen = Seen(1000.0, 1)
    assert [seen.again(key, 0) for key in "aabba"] == [False, True, False, True, False]


# --- trades ------------------------------------------------------------------------------------------------


def trade(
    number: int, *, at: int | None = None, ns: int | None = None, origin: Origin = Origin.LIVE
) -> Trade:
    return Trade(
        venue="v",
        instrument="A-B",
        received_ns=number * S if ns is None else ns,
        venue_time_ns=at,
        origin=origin,
        id=str(number),
        price="1",
        size="1",
        aggressor=Side.BUY,
    )


def trade_line(ids: TradeIds = TradeIds.CONSECUTIVE) -> TradeLine:
    return TradeLine("trade", "A-B", context(ids=ids))


def admit(line: Line[Any], *events: Event) -> list[Event]:
    out: list[Event] = []
    for event in events:
        line.admit(event, out)
    return out


def fill(line: TradeLine, numbers: Iterable[int], now_ns: int = 0) -> list[Event]:
    out: list[Event] = []
    line.filled([trade(number, origin=Origin.BACKFILL) for number in numbers], now_ns, out)
    return out


def ids(events: Iterable[Event]) -> list[int]:
    return [int(event.id or 0) for event in of(Trade, events)]


def test_trades_in_a_row_pass_at_once() -> None:
    line = trade_line()
    assert ids(admit(line, *map(trade, (5, 6, 7)))) == [5, 6, 7]
    assert wants(line) == []


def test_repeated_trades_are_dropped_and_counted() -> None:
    line = trade_line()
    assert ids(admit(line, *map(trade, (5, 6, 5, 6, 6, 7, 4)))) == [5, 6, 7]
    assert line.context.stats.duplicates == 4
    assert line.count == 7, "they are signs of life all the same"


def test_a_hole_is_wanted_once_filled_told_and_closed_in_order() -> None:
    line = trade_line()
    assert ids(admit(line, *map(trade, (1, 2, 6, 7)))) == [1, 2]
    assert wants(line) == [
        WantTrades(instrument="A-B", after_id="2", before_id="6", from_ns=2 * S, to_ns=6 * S)
    ]
    out = fill(line, [3, 4, 5])
    gap = out[0]
    assert isinstance(gap, Gap)
    assert (gap.recovered, gap.missing, gap.from_ns, gap.to_ns) == (3, 0, 2 * S, 6 * S)
    assert ids(out) == [3, 4, 5, 6, 7]
    assert [event.origin for event in of(Trade, out)] == [Origin.BACKFILL] * 3 + [Origin.LIVE] * 2
    assert ids(admit(line, trade(8))) == [8]
    assert (line.context.stats.recovered, line.context.stats.lost) == (3, 0)


def test_what_rest_does_not_have_is_told_as_missing_exactly() -> None:
    line = trade_line()
    admit(line, trade(1), trade(9))
    out = fill(line, [2, 5])
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (2, 5)
    assert ids(out) == [2, 5, 9]


def test_an_empty_answer_lets_go_what_was_held() -> None:
    line = trade_line()
    admit(line, trade(1), trade(4))
    out = fill(line, [])
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (0, 2)
    assert ids(out) == [4]


def test_reordered_trades_heal_by_themselves_without_a_gap() -> None:
    line = trade_line()
    out = admit(line, *map(trade, (1, 3, 4, 2, 5)))
    assert ids(out) == [1, 2, 3, 4, 5]
    assert of(Gap, out + fill(line, [2])) == []


def test_an_answer_to_a_hole_that_healed_is_not_taken_for_one_to_the_next_hole() -> None:
    """Else trades that nobody asked REST for would be called lost."""
    line = trade_line()
    assert ids(admit(line, *map(trade, (1, 3, 2)))) == [1, 2, 3]
    assert len(wants(line)) == 1
    assert admit(line, trade(10)) == []
    assert wants(line) == []
    assert fill(line, [2]) == []
    (want,) = wants(line)
    assert isinstance(want, WantTrades)
    assert (want.after_id, want.before_id) == ("3", "10")
    out = fill(line, range(4, 10))
    assert ids(out) == list(range(4, 11))
    assert [(gap.recovered, gap.missing) for gap in of(Gap, out)] == [(6, 0)]


def test_a_second_hole_is_wanted_after_the_first() -> None:
    line = trade_line()
    admit(line, *map(trade, (1, 3, 4, 7)))
    assert [want.before_id for want in wants(line) if isinstance(want, WantTrades)] == ["3"]
    assert ids(fill(line, [2])) == [2, 3, 4]
    (want,) = wants(line)
    assert isinstance(want, WantTrades)
    assert (want.after_id, want.before_id) == ("4", "7")
    assert ids(fill(line, [5, 6])) == [5, 6, 7]


def test_an_answer_serves_both_holes_that_a_straggler_made_of_one() -> None:
    line = trade_line()
    admit(line, *map(trade, (10, 20, 15)))
    out = fill(line, [11, 12, 13, 14, 16, 17, 18, 19])
    assert ids(out) == list(range(11, 21))
    assert [(gap.recovered, gap.missing) for gap in of(Gap, out)] == [(4, 0), (4, 0)]
    assert len(wants(line)) == 1, "once is enough"


def test_a_very_long_hole_is_filled_at_its_end_and_the_rest_is_told() -> None:
    line = trade_line()
    far = 3 * MAX_FILL_TRADES
    admit(line, trade(1), trade(far))
    (want,) = wants(line)
    assert isinstance(want, WantTrades)
    assert int(want.after_id) == far - 1 - MAX_FILL_TRADES
    out = fill(line, range(int(want.after_id) + 1, far))
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (MAX_FILL_TRADES, far - 2 - MAX_FILL_TRADES)


def test_trades_are_not_held_for_ever() -> None:
    line = trade_line()
    admit(line, trade(1), trade(4), trade(5))
    out: list[Event] = []
    line.tick(4 * S + int(HOLD_S * S), out)
    assert of(Trade, out) == []
    line.tick(4 * S + int(HOLD_S * S) + 1, out)
    (gap,) = of(Gap, out)
    assert gap.missing == 2
    assert ids(out) == [4, 5]
    assert fill(line, [2, 3]) == [], "too late: they would be out of order"
    assert ids(admit(line, trade(6))) == [6]


def test_after_giving_up_the_late_answer_does_not_close_the_next_hole() -> None:
    line = trade_line()
    admit(line, trade(1), trade(4))
    line.tick(100 * S, [])
    wants(line)
    admit(line, trade(10))
    assert fill(line, [2, 3]) == []
    (want,) = wants(line)
    assert isinstance(want, WantTrades)
    assert ids(fill(line, range(5, 10))) == list(range(5, 11))


def test_held_trades_are_bounded_by_number() -> None:
    line = trade_line()
    out = admit(line, trade(1), *(trade(number, ns=S) for number in range(5, 5 + MAX_HELD + 1)))
    assert ids(out)[:3] == [1, 5, 6]
    assert len(ids(out)) == MAX_HELD + 2
    assert [gap.missing for gap in of(Gap, out)] == [3]


def test_ids_far_below_began_anew() -> None:
    line = trade_line()
    admit(line, trade(900_000_000))
    out = admit(line, trade(7), trade(8))
    assert ids(out) == [7, 8]
    (gap,) = of(Gap, out)
    assert gap.missing is None
    assert "anew" in gap.reason


def test_low_ids_that_are_traded_later_began_anew() -> None:
    """A testnet that was reset, a symbol listed again: not a repetition, however near the ids are."""
    line = trade_line()
    admit(line, trade(5000, at=MIDNIGHT))
    assert admit(line, trade(1, at=MIDNIGHT + 30 * S)) == []
    out = admit(line, trade(40, at=MIDNIGHT + 2 * M), trade(41, at=MIDNIGHT + 2 * M))
    assert ids(out) == [40, 41]
    assert len(of(Gap, out)) == 1


def test_what_is_held_when_ids_begin_anew_is_let_go_first() -> None:
    line = trade_line()
    admit(line, trade(900_000_000), trade(900_000_005))
    out = admit(line, trade(3))
    assert ids(out) == [900_000_005, 3]
    assert [gap.missing for gap in of(Gap, out)] == [4, None]


@given(
    st.lists(st.integers(1, 60), max_size=120),
    st.lists(st.tuples(st.integers(0, 120), st.sets(st.integers(1, 60))), max_size=12),
)
def test_whatever_comes_trades_go_out_in_order_once_and_every_hole_is_accounted_for(
    stream: list[int], answers: list[tuple[int, set[int]]]
) -> None:
    """Any duplication, order and loss, with answers at any time that hold any part of the truth."""
    line = trade_line()
    out: list[Event] = []
    at: dict[int, list[set[int]]] = {}
    for index, found in answers:
        at.setdefault(index, []).append(found)
    outstanding: list[WantTrades] = []

    def answer(found: set[int]) -> None:
        if outstanding:
            want = outstanding.pop(0)
            between = [n for n in found if int(want.after_id) < n < int(want.before_id)]
            line.filled([trade(n, origin=Origin.BACKFILL) for n in between], 0, out)

    given_up: set[int] = set()
    for index, number in enumerate(stream):
        if out and number < ids(out)[-1]:
            given_up.add(number)  # told as missing already, or a repetition: it cannot go out in order
        line.admit(trade(number, ns=index), out)
        outstanding += of_trades(wants(line))
        for found in at.get(index, ()):
            answer(found)
            outstanding += of_trades(wants(line))
        assert len(outstanding) <= 1, "one question at a time"
    while outstanding:
        answer(set())
        outstanding += of_trades(wants(line))

    came = ids(out)
    assert all(a < b for a, b in itertools.pairwise(came)), "strictly increasing"
    if stream:
        in_time = {number for number in stream if number >= stream[0]} - (given_up - set(came))
        assert set(came) >= in_time, "all that came in time is let go"
        skipped = came[-1] - came[0] + 1 - len(came)
        assert sum(gap.missing or 0 for gap in of(Gap, out)) == skipped
        assert line.context.stats.lost == skipped
        recovered = sum(event.origin is Origin.BACKFILL for event in of(Trade, out))
        assert sum(gap.recovered for gap in of(Gap, out)) == recovered
    # Each gap stands right before what it tells of: its own trades are the next to come.
    for place, event in enumerate(out):
        if isinstance(event, Gap):
            before = ids(out[:place])[-1]
            after = ids(out[place:])
            assert after[event.recovered] - before - 1 == event.recovered + (event.missing or 0)


def of_trades(wanted: Iterable[Want]) -> list[WantTrades]:
    return [want for want in wanted if isinstance(want, WantTrades)]


@pytest.mark.parametrize("kind", [TradeIds.UNIQUE, TradeIds.INCREASING])
def test_ids_that_prove_no_loss_prove_repetition(kind: TradeIds) -> None:
    line = trade_line(kind)
    assert ids(admit(line, *map(trade, (5, 9, 5, 9, 20)))) == [5, 9, 20]
    assert wants(line) == []


def test_trades_without_ids_all_pass() -> None:
    line = trade_line(TradeIds.NONE)
    assert len(admit(line, trade(1), trade(1))) == 2
    nameless = attrs.evolve(trade(1), id=None)
    for kind in TradeIds:
        assert len(admit(trade_line(kind), nameless, nameless)) == 2


@pytest.mark.parametrize("kind", [TradeIds.UNIQUE, TradeIds.INCREASING, TradeIds.NONE])
def test_readers_hear_of_a_hole_that_ids_cannot_prove(kind: TradeIds) -> None:
    line = trade_line(kind)
    out: list[Event] = []
    line.accepted(1, 0, out)
    line.admit(trade(5), out)
    assert of(Gap, out) == []
    line.lost(1, State.CONNECTING, "cut", 6 * S, out)
    line.lost(2, State.CONNECTING, "refused", 7 * S, out)
    line.accepted(3, 9 * S, out)
    (want,) = of_trades(wants(line))
    assert (want.after_id, want.before_id, want.from_ns, want.to_ns) == (None, None, 4 * S, 10 * S)
    assert of(Gap, out) == []
    line.filled(None, 9 * S, out)
    (gap,) = of(Gap, out)
    assert (gap.from_ns, gap.to_ns, gap.missing) == (5 * S, 9 * S, None)


def away(kind: TradeIds = TradeIds.UNIQUE) -> TradeLine:
    """Return a line that saw the trades 4 and 5, was away, and is connected again."""
    line = trade_line(kind)
    line.accepted(1, 0, [])
    admit(line, timed(4), timed(5))
    line.lost(1, State.CONNECTING, "cut", 6 * S, [])
    line.accepted(2, 9 * S, [])
    return line


def test_a_trade_of_several_fills_follows_by_the_first_of_them() -> None:
    """OKX merges the fills of one order: ...221, then ...280 with 59 fills."""
    line = trade_line()
    assert ids(admit(line, trade(221), attrs.evolve(trade(280), fills=59), trade(281))) == [221, 280, 281]
    assert wants(line) == []
    merged = attrs.evolve(trade(290), fills=5)
    assert admit(line, merged, merged) == []
    (want,) = of_trades(wants(line))
    assert (want.after_id, want.before_id) == ("281", "286")
    out = fill(line, [282, 284, 285, 286, 290])
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (3, 1)
    assert ids(out) == [282, 284, 285, 290]
    assert ids(admit(line, trade(291))) == [291]


def test_a_merged_trade_that_closes_a_hole_by_itself_needs_no_rest() -> None:
    line = trade_line()
    admit(line, trade(1), trade(5))
    wants(line)
    assert ids(admit(line, attrs.evolve(trade(4), fills=3))) == [4, 5]


def timed(number: int, origin: Origin = Origin.LIVE) -> Trade:
    return trade(number, at=number * S, origin=origin)


def past(*numbers: int) -> list[Trade]:
    """Return what REST answers, newest first."""
    return [timed(number, Origin.BACKFILL) for number in sorted(numbers, reverse=True)]


@pytest.mark.parametrize("kind", [TradeIds.UNIQUE, TradeIds.INCREASING])
def test_trades_missed_without_proof_are_filled_in_by_time(kind: TradeIds) -> None:
    line = away(kind)
    assert admit(line, timed(9)) == []
    out: list[Event] = []
    line.filled(past(5, 6, 7, 9), 10 * S, out)
    (gap,) = of(Gap, out)
    assert (gap.from_ns, gap.recovered, gap.missing) == (5 * S, 2, 0)
    assert ids(out) == [6, 7, 9]
    assert [t.origin for t in of(Trade, out)] == [Origin.BACKFILL, Origin.BACKFILL, Origin.LIVE]
    assert ids(admit(line, timed(9), timed(10))) == [10]


def test_an_answer_that_begins_after_what_we_know_proves_nothing() -> None:
    line = away()
    out: list[Event] = []
    line.filled(past(7, 8), 10 * S, out)
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (2, None)
    assert ids(out) == [7, 8]


def test_nothing_is_told_when_nothing_was_missed() -> None:
    line = away()
    assert admit(line, timed(6)) == []
    out: list[Event] = []
    line.filled(past(4, 5, 6), 10 * S, out)
    assert of(Gap, out) == []
    assert ids(out) == [6]


def test_old_trades_at_the_start_of_a_stream_fill_the_hole_and_come_once() -> None:
    """What some venues send first after each subscription: what was passed long ago is not passed again."""
    line = trade_line(TradeIds.UNIQUE)
    line.accepted(1, 0, [])
    admit(line, *(timed(number) for number in range(1, 400)))
    line.lost(1, State.CONNECTING, "cut", 400 * S, [])
    line.accepted(2, 405 * S, [])
    replay = [timed(number, Origin.BACKFILL) for number in (20, 398, 399, 400, 402)]
    assert admit(line, *replay, timed(406)) == []
    out: list[Event] = []
    line.filled(None, 406 * S, out)
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (2, 0)
    assert ids(out) == [400, 402, 406]


@pytest.mark.parametrize("kind", [TradeIds.UNIQUE, TradeIds.NONE])
def test_data_before_its_ack_does_not_hide_the_hole(kind: TradeIds) -> None:
    line = trade_line(kind)
    line.accepted(1, 0, [])
    admit(line, timed(4), timed(5))
    line.lost(1, State.CONNECTING, "cut", 6 * S, [])
    assert admit(line, timed(9)) == []
    (want,) = of_trades(wants(line))
    assert want.from_ns == 4 * S
    line.accepted(2, 10 * S, [])
    assert of_trades(wants(line)) == []
    out: list[Event] = []
    line.filled(past(5, 6, 7, 9), 10 * S, out)
    assert of(Gap, out)[0].recovered == 2
    assert ids(out) == [6, 7, 9]


@pytest.mark.parametrize("kind", [TradeIds.UNIQUE, TradeIds.INCREASING, TradeIds.NONE])
def test_trades_missed_while_a_stream_was_stale_are_filled_in(kind: TradeIds) -> None:
    line = trade_line(kind)
    line.accepted(1, 0, [])
    admit(line, timed(4), timed(5))
    line.say(State.STALE, "no data for 40 s", 45 * S, [])
    assert admit(line, timed(50)) == []
    out: list[Event] = []
    line.filled(past(5, 20, 50), 51 * S, out)
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (1, 0)
    assert ids(out) == [20, 50]


def test_the_last_trade_before_a_long_time_away_does_not_come_again() -> None:
    line = trade_line(TradeIds.UNIQUE)
    line.accepted(1, 0, [])
    admit(line, timed(4), timed(5))
    line.lost(1, State.CONNECTING, "cut", 6 * S, [])
    line.accepted(2, 900 * S, [])
    assert admit(line, timed(901)) == []
    out: list[Event] = []
    line.filled(past(4, 5, 700, 901), 902 * S, out)
    assert ids(out) == [700, 901]
    assert of(Gap, out)[0].missing == 0


def test_trades_by_time_are_not_waited_for_for_ever() -> None:
    line = away()
    assert admit(line, timed(20)) == []
    out: list[Event] = []
    line.tick(40 * S, out)
    (gap,) = of(Gap, out)
    assert gap.missing is None
    assert ids(out) == [20]
    line.filled(past(5, 6), 41 * S, out)
    assert ids(out) == [20]


def test_trades_without_ids_are_filled_in_by_time_alone() -> None:
    line = away(TradeIds.NONE)
    assert admit(line, timed(3), timed(9), timed(9)) == []
    out: list[Event] = []
    line.filled(past(4, 5, 6, 7, 9, 12), 10 * S, out)
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (2, 0)
    assert ids(out) == [6, 7, 9, 9]
    assert ids(admit(line, timed(9), timed(4), timed(10))) == [9, 10]


def test_of_two_connections_only_one_is_heard_where_trades_have_no_ids() -> None:
    line = trade_line(TradeIds.NONE)
    line.accepted(1, 0, [])
    out: list[Event] = []
    line.admit(trade(1), out, 1)
    line.accepted(2, 0, out)
    line.admit(trade(2), out, 2)
    line.admit(trade(2), out, 1)
    line.lost(1, State.CONNECTING, "", 0, out)
    line.admit(trade(3), out, 2)
    assert ids(out) == [1, 2, 3]


# --- quotes, tickers, prices, liquidations -----------------------------------------------------------------


def quote(price: str, sequence: int | None = None) -> Quote:
    return Quote(
        venue="v",
        instrument="A-B",
        received_ns=1,
        bid_price=price,
        bid_size="1",
        ask_price=None,
        ask_size=None,
        sequence=sequence,
    )


def test_an_older_quote_never_follows_a_newer_one() -> None:
    line = QuoteLine("quote", "A-B", context())
    out = admit(line, quote("1", 5), quote("1", 5), quote("2", 4), quote("3", 6))
    assert [event.bid_price for event in of(Quote, out)] == ["1", "3"]
    assert line.context.stats.duplicates == 2


def test_a_venue_may_number_its_quotes_anew_after_a_reconnect() -> None:
    line = QuoteLine("quote", "A-B", context())
    line.accepted(1, 0, [])
    admit(line, quote("1", 500))
    line.lost(1, State.CONNECTING, "cut", 0, [])
    assert len(admit(line, quote("2", 1))) == 1


def test_quotes_that_the_venue_numbers_anew_pass() -> None:
    """After maintenance OKX counts from the beginning, on a connection that lives on."""
    line = QuoteLine("quote", "A-B", context())
    quotes = [attrs.evolve(quote(price, n), venue_time_ns=at) for price, n, at in (
        ("1", 900, S), ("2", 1, S + 1), ("3", 2, 3 * S), ("4", 3, 3 * S), ("5", 2, 3 * S),
    )]  # fmt: skip
    assert [q.bid_price for q in of(Quote, admit(line, *quotes))] == ["1", "3", "4"]


def test_a_quote_without_number_passes_when_it_is_news() -> None:
    line = QuoteLine("quote", "A-B", context())
    out = admit(line, quote("1"), quote("1"), quote("2"), quote("1"))
    assert [event.bid_price for event in of(Quote, out)] == ["1", "2", "1"]


def ticker(*, partial: bool = False, at: int | None = None, ns: int = 1, **fields: Any) -> Ticker:
    return Ticker(venue="v", instrument="A-B", received_ns=ns, venue_time_ns=at, partial=partial, **fields)


def test_partial_tickers_are_merged() -> None:
    line = TickerLine("ticker", "A-B", context())
    out = of(
        Ticker,
        admit(
            line,
            ticker(last="1", volume_24h="10", at=5),
            ticker(mark_price="1.5", partial=True, ns=2),
            ticker(last="2", funding_rate="0.0001", partial=True, at=9, ns=3),
        ),
    )
    assert [event.partial for event in out] == [False] * 3
    assert (out[1].last, out[1].mark_price, out[1].venue_time_ns, out[1].received_ns) == ("1", "1.5", 5, 2)
    assert (out[2].last, out[2].mark_price, out[2].volume_24h) == ("2", "1.5", "10")
    assert out[2].venue_time_ns == 9
    assert out[0].mark_price is None, "what readers hold is not changed under them"


def test_a_ticker_that_says_nothing_new_is_a_repetition() -> None:
    line = TickerLine("ticker", "A-B", context())
    again = ticker(last="1", at=5, ns=2)
    assert len(admit(line, ticker(last="1", at=5), again, again)) == 1
    assert len(admit(line, ticker(last="1", at=6))) == 1, "a new time is news: the venue confirms it"
    assert line.context.stats.duplicates == 2


def test_tickers_are_not_merged_across_a_reconnect() -> None:
    line = TickerLine("ticker", "A-B", context())
    line.accepted(1, 0, [])
    admit(line, ticker(last="1", mark_price="2"))
    line.lost(1, State.CONNECTING, "cut", 0, [])
    (out,) = of(Ticker, admit(line, ticker(last="3", partial=True)))
    assert out.mark_price is None


def test_prices_follow_their_slots() -> None:
    def price(slot: int | None, text: str = "1") -> Price:
        return Price(
            venue="v",
            instrument="A-B",
            received_ns=1,
            price=text,
            conf="0",
            publish_time_ns=1,
            slot=slot,
        )

    line = line_for("price", "A-B", context())
    out = admit(line, price(5), price(5), price(4), price(7), price(None))
    assert [event.slot for event in of(Price, out)] == [5, 7, None]
    line.lost(1, State.CONNECTING, "", 0, [])
    assert len(admit(line, price(1))) == 1


def test_a_liquidation_is_told_once() -> None:
    def liquidation(price: str) -> Liquidation:
        return Liquidation(
            venue="v",
            instrument="A-B",
            venue_time_ns=1,
            received_ns=1,
            price=price,
            size="1",
            side=Side.SELL,
        )

    line = line_for("liquidation", "A-B", context())
    assert len(admit(line, liquidation("1"), liquidation("1"), liquidation("2"))) == 2


# --- candles -----------------------------------------------------------------------------------------------


def candle(minute: int, *, closed: bool = True, close: str = "1", origin: Origin = Origin.LIVE) -> Candle:
    """Return the candle that opens so many minutes after midnight."""
    return Candle(
        venue="v",
        instrument="A-B",
        received_ns=MIDNIGHT + (minute + 1) * M,
        origin=origin,
        start_ns=MIDNIGHT + minute * M,
        open="1",
        high="1",
        low="1",
        close=close,
        volume="1",
        closed=closed,
    )


def candle_line(**options: Any) -> CandleLine:
    return CandleLine("candle_1m", "A-B", context(**options))


def started(**options: Any) -> CandleLine:
    """Return a line that has the minutes -5 to -1, with midnight just past."""
    line = candle_line(**options)
    now = MIDNIGHT + 6 * S
    line.accepted(1, now, [])
    (want,) = wants(line)
    assert isinstance(want, WantCandles)
    line.filled(want, [candle(n, origin=Origin.BACKFILL) for n in range(-5, 0)], now, [])
    return line


def minutes(events: Iterable[Event], *, closed: bool = True) -> list[int]:
    return [(e.start_ns - MIDNIGHT) // M for e in of(Candle, events) if e.closed is closed]


def tick(line: Line[Any], now_ns: int) -> list[Event]:
    out: list[Event] = []
    line.tick(now_ns, out)
    return out


def filled(line: CandleLine, want: Want, starts: Iterable[int] | None, now_ns: int) -> list[Event]:
    assert isinstance(want, WantCandles)
    out: list[Event] = []
    found = None if starts is None else [candle(n, origin=Origin.BACKFILL) for n in starts]
    line.filled(want, found, now_ns, out)
    return out


def wanted(line: CandleLine) -> list[tuple[int, int]]:
    return [
        ((want.start_ns - MIDNIGHT) // M, (want.end_ns - MIDNIGHT) // M)
        for want in wants(line)
        if isinstance(want, WantCandles)
    ]


def test_the_last_five_minutes_are_fetched_at_the_start_across_the_days_edge() -> None:
    line = candle_line()
    out: list[Event] = []
    now = MIDNIGHT + 2 * M + 6 * S
    line.accepted(1, now, out)
    (want,) = wants(line)
    assert isinstance(want, WantCandles)
    assert (want.start_ns, want.end_ns) == (MIDNIGHT - 3 * M, MIDNIGHT + M)
    out = filled(line, want, range(-10, 5), now)
    assert minutes(out) == [-3, -2, -1, 0, 1], "in order, and only what was asked for"
    assert of(Gap, out) == [], "nothing was missed"
    assert {event.origin for event in out} == {Origin.BACKFILL}


def test_a_minute_that_just_ended_is_not_fetched_before_its_grace_is_over() -> None:
    line = candle_line()
    line.accepted(1, MIDNIGHT + 2 * M + 4 * S, [])
    assert wanted(line) == [(-4, 0)]


def test_closed_minutes_pass_once_in_order() -> None:
    line = started()
    out = admit(line, candle(0), candle(0), candle(-1), candle(1), candle(0, close="2"))
    assert minutes(out) == [0, 1]
    assert line.context.stats.duplicates == 3


def test_an_open_minute_passes_when_it_changes_and_never_after_its_close() -> None:
    line = started()
    out = admit(
        line,
        candle(0, closed=False, close="1"),
        candle(0, closed=False, close="1"),
        candle(0, closed=False, close="2"),
        candle(0, close="3"),
        candle(0, closed=False, close="2"),
        candle(1, closed=False),
        candle(0, closed=False, close="9"),
    )
    assert [(minutes([e], closed=e.closed), e.close, e.closed) for e in of(Candle, out)] == [
        ([0], "1", False),
        ([0], "2", False),
        ([0], "3", True),
        ([1], "1", False),
    ]


def test_minutes_are_asked_for_by_the_venues_clock_where_ours_is_behind() -> None:
    line = started()
    line.context.clock.latest_ns = MIDNIGHT + 3 * M
    tick(line, MIDNIGHT - 60 * M)
    assert wanted(line) == [(0, 1)]


def test_a_minute_that_closes_while_the_future_is_asked_for_does_not_skip_it() -> None:
    """Our clock an hour ahead asks for minutes to come; the stream closes one of them before the answer is here."""
    line = started()
    admit(line, candle(0))
    tick(line, MIDNIGHT + 62 * M)
    (want,) = wants(line)
    assert admit(line, candle(1)) == []
    assert minutes(filled(line, want, [1], MIDNIGHT + 62 * M)) == [1]
    assert minutes(admit(line, candle(2))) == [2]


def test_a_hole_is_wanted_and_what_came_behind_it_waits() -> None:
    line = started()
    assert minutes(admit(line, candle(0), candle(3))) == [0]
    (want,) = wants(line)
    assert isinstance(want, WantCandles)
    assert (want.start_ns, want.end_ns) == (MIDNIGHT + M, MIDNIGHT + 2 * M)
    assert admit(line, candle(3), candle(4)) == []
    out = filled(line, want, [1, 2], MIDNIGHT + 5 * M)
    assert minutes(out) == [1, 2, 3, 4]
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (2, 0)
    assert (gap.from_ns, gap.to_ns) == (MIDNIGHT + M, MIDNIGHT + 3 * M)
    assert out.index(gap) == 0


@pytest.mark.parametrize(
    ("answer", "came", "recovered", "missing"),
    [([1, 2], [1, 2, 3], 2, 0), ([2], [2, 3], 1, 1), ([], [3], 0, 2), (None, [3], 0, 2)],
)
def test_answers_complete_partial_and_none(
    answer: list[int] | None, came: list[int], recovered: int, missing: int
) -> None:
    line = started()
    admit(line, candle(0), candle(3))
    (want,) = wants(line)
    out = filled(line, want, answer, MIDNIGHT + 4 * M + S)
    assert minutes(out) == came
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (recovered, missing)
    assert minutes(admit(line, candle(4))) == [4]


def test_open_rows_of_an_answer_are_no_final_word() -> None:
    line = started()
    admit(line, candle(0), candle(2))
    (want,) = wants(line)
    assert isinstance(want, WantCandles)
    out: list[Event] = []
    line.filled(want, [candle(1, closed=False)], MIDNIGHT + 4 * M, out)
    assert minutes(out) == [2]
    assert [gap.missing for gap in of(Gap, out)] == [1]


def test_a_minute_that_does_not_close_in_time_is_fetched() -> None:
    line = started()
    assert tick(line, MIDNIGHT + M + 4 * S) == []
    assert wanted(line) == []
    assert tick(line, MIDNIGHT + M + 5 * S) == []
    assert wanted(line) == [(0, 0)]
    assert tick(line, MIDNIGHT + M + 6 * S) == []
    assert wanted(line) == [], "once"


def test_a_single_fetched_minute_is_no_gap() -> None:
    line = started()
    now = MIDNIGHT + M + 5 * S
    tick(line, now)
    (want,) = wants(line)
    out = filled(line, want, [0], now)
    assert minutes(out) == [0]
    assert of(Gap, out) == []


def test_a_minute_that_rest_does_not_have_yet_is_asked_for_again_less_and_less_often() -> None:
    line = started()
    asked = []
    lost: list[Gap] = []
    for second in range(5, 55):
        now = MIDNIGHT + M + second * S
        out = tick(line, now)
        for want in wants(line):
            asked.append(second)
            out += filled(line, want, [], now)
        lost += of(Gap, out)
    assert asked == [5, 6, 8, 12, 20, 36]
    assert lost == [], "that the minute has passed is only our clock's word"


def test_a_minute_that_nobody_has_is_missing_once_the_venue_shows_a_later_one() -> None:
    line = started()
    for second in range(5, 55):
        tick(line, MIDNIGHT + M + second * S)
        for want in wants(line):
            filled(line, want, [], MIDNIGHT + M + second * S)
    assert admit(line, candle(1, closed=False)) != []
    now = MIDNIGHT + 2 * M + 10 * S
    tick(line, now)
    (want,) = wants(line)
    (gap,) = of(Gap, filled(line, want, [], now))
    assert gap.missing == 1
    assert minutes(admit(line, candle(1))) == [1]


def test_the_streams_late_word_is_taken_while_rest_lags() -> None:
    line = started()
    now = MIDNIGHT + M + 5 * S
    tick(line, now)
    (want,) = wants(line)
    assert filled(line, want, [], now) == []
    assert minutes(admit(line, candle(0))) == [0]
    assert tick(line, now + 10 * S) == []
    assert wants(line) == []


def test_what_rest_has_is_published_while_the_newest_is_awaited() -> None:
    line = started()
    now = MIDNIGHT + 3 * M + 5 * S
    tick(line, now)
    (want,) = wants(line)
    out = filled(line, want, [0, 1], now)
    assert minutes(out) == [0, 1]
    assert [(gap.recovered, gap.missing) for gap in of(Gap, out)] == [(2, 0)]
    tick(line, now + S)
    assert wanted(line) == [(2, 2)]


def test_a_live_close_that_comes_during_the_fetch_is_not_lost_nor_repeated() -> None:
    line = started()
    now = MIDNIGHT + M + 5 * S
    tick(line, now)
    (want,) = wants(line)
    assert admit(line, candle(0, close="live")) == []
    out = of(Candle, filled(line, want, [0], now))
    assert [(event.close, event.origin) for event in out] == [("live", Origin.LIVE)]


def test_a_second_hole_behind_the_first_is_found() -> None:
    """The answer took more than a minute, and a close got lost meanwhile."""
    line = started()
    admit(line, candle(0), candle(2))
    (want,) = wants(line)
    assert admit(line, candle(4)) == []
    out = filled(line, want, [1], MIDNIGHT + 6 * M)
    assert minutes(out) == [1, 2]
    (want,) = wants(line)
    out = filled(line, want, [3], MIDNIGHT + 6 * M)
    assert minutes(out) == [3, 4]


def test_what_lies_beyond_the_history_of_rest_is_told_as_missing() -> None:
    line = started(history=3)
    admit(line, candle(0))
    admit(line, candle(10))
    (want,) = wants(line)
    assert isinstance(want, WantCandles)
    assert (want.start_ns, want.end_ns) == (MIDNIGHT + 7 * M, MIDNIGHT + 9 * M)
    out = filled(line, want, [7, 8, 9], MIDNIGHT + 11 * M)
    assert minutes(out) == [7, 8, 9, 10]
    (gap,) = of(Gap, out)
    assert (gap.recovered, gap.missing) == (3, 6)


def test_minutes_missed_while_there_was_no_connection_are_fetched_at_once() -> None:
    line = started()
    line.lost(1, State.CONNECTING, "cut", MIDNIGHT + 30 * S, [])
    assert tick(line, MIDNIGHT + 8 * M) == []
    assert wants(line) == [], "whoever has no connection asks when he has one"
    line.accepted(2, MIDNIGHT + 8 * M + 30 * S, [])
    assert wanted(line) == [(0, 7)]


def test_a_start_without_an_answer_goes_on_with_what_is_live() -> None:
    line = candle_line()
    now = MIDNIGHT + 6 * S
    line.accepted(1, now, [])
    (want,) = wants(line)
    assert filled(line, want, None, now) == []
    assert minutes(admit(line, candle(0))) == [0]
    assert wants(line) == []


def test_next_venues_close_a_minute_by_the_next_one() -> None:
    line = started(end=CandleEnd.NEXT)
    out = admit(
        line,
        candle(0, closed=False, close="1"),
        candle(0, closed=False, close="2"),
        candle(1, closed=False, close="5"),
    )
    assert [(event.close, event.closed, event.origin) for event in of(Candle, out)] == [
        ("1", False, Origin.LIVE),
        ("2", False, Origin.LIVE),
        ("2", True, Origin.DERIVED),
        ("5", False, Origin.LIVE),
    ]


def test_next_venues_do_not_close_what_rest_closed_already() -> None:
    line = started(end=CandleEnd.NEXT)
    admit(line, candle(0, closed=False))
    now = MIDNIGHT + M + 5 * S
    tick(line, now)
    (want,) = wants(line)
    assert minutes(filled(line, want, [0], now)) == [0]
    out = admit(line, candle(1, closed=False))
    assert minutes(out) == []
    assert minutes(out, closed=False) == [1]


def test_next_venues_do_not_close_a_minute_that_they_did_not_see_to_its_end() -> None:
    line = started(end=CandleEnd.NEXT)
    admit(line, candle(0, closed=False, close="half way"))
    line.lost(1, State.CONNECTING, "cut", MIDNIGHT + 30 * S, [])
    line.accepted(2, MIDNIGHT + M + 10 * S, [])
    (want,) = wants(line)
    assert minutes(admit(line, candle(1, closed=False))) == []
    assert minutes(filled(line, want, [0], MIDNIGHT + M + 11 * S)) == [0]


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.sampled_from("123")), max_size=60),
    st.lists(st.sets(st.integers(-5, 12)), max_size=40),
    st.sampled_from(CandleEnd),
)
def test_whatever_comes_minutes_close_once_in_order(
    stream: list[tuple[int, bool, str]], answers: list[set[int]], end: CandleEnd
) -> None:
    line = started(end=end)
    out: list[Event] = []
    replies = iter(answers)
    for minute, closed, close in sorted(stream, key=lambda item: item[0] // 3):
        line.admit(candle(minute, closed=closed, close=close), out)
        for want in wants(line):
            out += filled(line, want, next(replies, set()), MIDNIGHT + 60 * M)
    closes = minutes(out)
    assert closes == sorted(set(closes))
    done = -6
    for event in of(Candle, out):
        minute = (event.start_ns - MIDNIGHT) // M
        assert minute > done, "nothing of a minute comes behind its close"
        done = minute if event.closed else done
    if closes:
        skipped = closes[-1] + 1 - len(closes)
        assert sum(gap.missing or 0 for gap in of(Gap, out)) == skipped


# --- life --------------------------------------------------------------------------------------------------


def plain(**options: Any) -> Line[Any]:
    return line_for("quote", "A-B", context(**options))


def test_readers_are_told_only_of_changes() -> None:
    line = plain()
    out: list[Event] = []
    line.say(State.CONNECTING, "", 0, out)
    line.say(State.CONNECTING, "", 1, out)
    line.accepted(1, 2, out)
    line.accepted(1, 3, out)
    line.lost(1, State.CONNECTING, "cut", 4, out)
    line.lost(1, State.CONNECTING, "cut", 5, out)
    line.lost(2, State.DOWN, "refused", 6, out)
    assert [(event.state, event.reason) for event in of(Status, out)] == [
        (State.CONNECTING, ""),
        (State.LIVE, ""),
        (State.CONNECTING, "cut"),
        (State.DOWN, "refused"),
    ]


def test_a_hand_over_between_two_connections_is_silent() -> None:
    line = plain()
    out: list[Event] = []
    line.accepted(1, 0, out)
    line.accepted(2, 1, out)
    line.lost(1, State.CONNECTING, "replaced", 2, out)
    assert states(out) == [State.LIVE]
    line.lost(2, State.CONNECTING, "cut", 3, out)
    assert states(out) == [State.LIVE, State.CONNECTING]


def run(line: Line[Any], seconds: Iterable[int], speaks: dict[int, int] | None = None) -> list[Event]:
    """Let the clock tick, with so many quotes in the seconds named."""
    out: list[Event] = []
    for second in seconds:
        for number in range((speaks or {}).get(second, 0)):
            line.admit(quote(f"{second}.{number}"), out)
        line.tick(second * S, out)
    return of_status(out)


def of_status(events: Iterable[Event]) -> list[Event]:
    return list(of(Status, events))


def test_a_stream_that_spoke_every_second_and_stops_is_stale_after_a_while() -> None:
    line = plain()
    line.accepted(1, 0, [])
    assert run(line, range(100), dict.fromkeys(range(100), 3)) == []
    assert run(line, range(100, 130)) == []
    (status,) = run(line, range(130, 160))
    assert isinstance(status, Status)
    assert status.state is State.STALE
    assert status.reason == "no data for 31 s"
    assert wants(line) == [WantResubscribe(channel="quote", instrument="A-B", reason="stale")]


def test_a_stream_that_speaks_seldom_is_not_stale_when_it_is_silent() -> None:
    line = plain()
    line.accepted(1, 0, [])
    every_two_minutes = dict.fromkeys(range(0, 6000, 120), 1)
    assert run(line, range(6000), every_two_minutes) == []
    assert run(line, range(6000, 6000 + 1800)) == []


def test_a_stream_that_speaks_in_bursts_is_not_stale_between_them() -> None:
    line = plain()
    line.accepted(1, 0, [])
    bursts = dict.fromkeys(range(0, 9000, 300), 200)
    assert run(line, range(9000), bursts) == []


def test_a_stream_that_just_began_is_not_judged() -> None:
    """Many venues begin with a hundred old trades; the next may come in an hour."""
    line = plain()
    line.accepted(1, 0, [])
    assert run(line, range(3600), {0: 100, 1: 1, 2: 1}) == []


def test_a_stream_that_never_spoke_is_stale_only_if_its_venue_promised() -> None:
    quiet, owing = plain(), plain()
    owing.owes_within_s = 20.0
    quiet.accepted(1, 0, [])
    owing.accepted(1, 0, [])
    assert run(quiet, range(7200)) == []
    assert run(owing, range(61)) == []
    (status,) = run(owing, range(61, 70))
    assert isinstance(status, Status)
    assert status.state is State.STALE


def test_data_makes_a_stale_stream_live_again() -> None:
    line = plain()
    line.owes_within_s = 1.0
    line.accepted(1, 0, [])
    said = run(line, range(200), {100: 1})
    assert [event.state for event in said if isinstance(event, Status)] == [
        State.STALE,
        State.LIVE,
        State.STALE,
    ]


def test_a_stream_that_stays_stale_is_asked_for_less_and_less_often() -> None:
    """Each session that brings nothing is told stale again; the waits between double."""
    line = plain()
    line.owes_within_s = 1.0
    asked = []
    carrier = 0
    for second in range(2000):
        if line.state is not State.LIVE:
            line.lost(carrier, State.CONNECTING, "replaced", second * S, [])
            carrier += 1
            line.accepted(carrier, second * S, [])
        line.tick(second * S, [])
        asked += [second for want in wants(line) if isinstance(want, WantResubscribe)]
    pauses = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert pauses[0] >= 60
    assert all(later > 1.8 * sooner for sooner, later in itertools.pairwise(pauses))


def test_nothing_is_stale_without_a_connection() -> None:
    line = plain()
    line.owes_within_s = 1.0
    assert run(line, range(1000)) == []


# --- minutes without a trade -------------------------------------------------------------------------------


def flats(events: Iterable[Event]) -> list[int]:
    return [(e.start_ns - MIDNIGHT) // M for e in of(Candle, events) if e.closed and e.volume == "0"]


def quiet(empty: EmptyMinutes = EmptyMinutes.FLAT, end: CandleEnd = CandleEnd.NEXT) -> CandleLine:
    """Return a line that has all up to minute 1, on a connection that was there before."""
    line = started(empty=empty, end=end)
    admit(line, candle(0), candle(1, close="7"))
    return line


def test_minutes_that_the_stream_passes_over_are_flat_without_asking() -> None:
    line = quiet()
    out = admit(line, candle(5, closed=False))
    out += admit(line, candle(6, closed=False))
    assert minutes(out) == [2, 3, 4, 5]
    assert flats(out) == [2, 3, 4]
    flat = of(Candle, out)[1]
    assert (flat.open, flat.high, flat.low, flat.close, flat.trades) == ("7", "7", "7", "7", 0)
    assert flat.origin is Origin.DERIVED
    assert wants(line) == []


def test_a_quiet_minute_is_flat_once_something_later_came_over_its_connection() -> None:
    line = quiet()
    clock = line.context.clock
    assert tick(line, MIDNIGHT + 3 * M + 10 * S) == []
    assert wanted(line) == [(2, 2)]
    line.filled(WantCandles(instrument="A-B", start_ns=MIDNIGHT + 2 * M, end_ns=MIDNIGHT + 2 * M), [], 0, [])
    clock.by_carrier[1] = clock.latest_ns = MIDNIGHT + 3 * M + 10 * S
    assert flats(tick(line, MIDNIGHT + 3 * M + 11 * S)) == [2]
    clock.by_carrier[2] = MIDNIGHT + 9 * M
    assert flats(tick(line, MIDNIGHT + 4 * M)) == []


def test_a_minute_that_was_shown_open_is_not_flat() -> None:
    line = quiet(end=CandleEnd.FLAG)
    admit(line, candle(3, closed=False))
    line.context.clock.by_carrier[1] = line.context.clock.latest_ns = MIDNIGHT + 6 * M
    assert flats(tick(line, MIDNIGHT + 6 * M)) == [2]
    assert wanted(line) == [(3, 4)]
    out = filled(
        line, WantCandles(instrument="A-B", start_ns=MIDNIGHT + 3 * M, end_ns=MIDNIGHT + 4 * M), [3], 0
    )
    assert minutes(out) == [3, 4]
    assert flats(out) == [4]


def test_minutes_of_a_time_away_are_flat_only_if_rest_leaves_them_out() -> None:
    line = quiet()
    line.lost(1, State.CONNECTING, "cut", MIDNIGHT + 2 * M, [])
    line.accepted(2, MIDNIGHT + 5 * M, [])
    (want,) = wants(line)
    line.context.clock.latest_ns = MIDNIGHT + 5 * M
    assert minutes(admit(line, candle(6, closed=False), candle(7, closed=False))) == []
    out = filled(line, want, [3], MIDNIGHT + 8 * M)
    assert flats(out) == [2]
    assert minutes(out)[:2] == [2, 3]


def test_where_rest_alone_knows_the_stream_makes_no_minute_flat() -> None:
    line = quiet(end=CandleEnd.REST)
    line.context.clock.by_carrier[1] = line.context.clock.latest_ns = MIDNIGHT + 4 * M
    assert tick(line, MIDNIGHT + 4 * M) == []
    assert wanted(line) == [(2, 2)]


def test_minutes_that_do_not_exist_are_neither_told_nor_missed() -> None:
    line = quiet(empty=EmptyMinutes.NONE)
    out = admit(line, candle(5, closed=False), candle(6, closed=False))
    assert minutes(out) == [5]
    assert of(Gap, out) == []
    line.absent(MIDNIGHT + 6 * M)
    assert minutes(admit(line, candle(7))) == [7]


def test_a_minute_that_rest_does_not_have_yet_is_not_taken_for_an_empty_one() -> None:
    line = quiet(end=CandleEnd.REST)
    line.context.clock.latest_ns = MIDNIGHT + 3 * M + 6 * S
    tick(line, MIDNIGHT + 3 * M + 6 * S)
    (want,) = wants(line)
    assert filled(line, want, [], MIDNIGHT + 3 * M + 7 * S) == []
    tick(line, MIDNIGHT + 3 * M + 9 * S)
    (want,) = wants(line)
    assert minutes(filled(line, want, [2], MIDNIGHT + 3 * M + 9 * S)) == [2]


def test_when_the_first_question_fails_what_the_stream_brought_is_told_and_no_minute_skipped() -> None:
    line = candle_line()
    line.accepted(1, MIDNIGHT + 6 * S, [])
    (want,) = wants(line)
    assert minutes(admit(line, candle(-4), candle(-3), candle(0))) == []
    out = filled(line, want, None, MIDNIGHT + M)
    assert minutes(out) == [-4, -3]
    (want,) = wants(line)
    assert minutes(filled(line, want, [-2, -1], MIDNIGHT + M)) == [-2, -1, 0]


# --- books -------------------------------------------------------------------------------------------------


def book_line(source: Source = Source.REST, **rule: Any) -> BookLine:
    made = context(source=source)
    assert made.rules.book is not None
    rules = attrs.evolve(made.rules, book=attrs.evolve(made.rules.book, **rule))
    return BookLine("book", "A-B", attrs.evolve(made, rules=rules))


def book(sequence: int) -> BookSnapshot:
    return BookSnapshot(
        venue="v",
        instrument="A-B",
        received_ns=sequence,
        bids=[["1", "1"]],
        asks=[["2", "1"]],
        sequence=sequence,
    )


def change(sequence: int, size: str = "1") -> BookDelta:
    return BookDelta(
        venue="v",
        instrument="A-B",
        received_ns=sequence,
        bids=[["1", size]],
        asks=[],
        sequence=sequence,
    )


def fetched(line: BookLine, snapshot: BookSnapshot | None) -> list[Event]:
    out: list[Event] = []
    line.fetched(snapshot, 0, out)
    return out


def test_a_book_from_rest_is_live_with_its_snapshot() -> None:
    line = book_line()
    out: list[Event] = []
    line.accepted(1, 0, out)
    assert wants(line) == [WantBook(instrument="A-B")]
    assert out == []
    assert admit(line, change(5), change(6, "6")) == []
    assert line.current() is None
    status, snapshot = fetched(line, book(5))
    assert isinstance(status, Status)
    assert status.state is State.LIVE
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.bids == [["1", "6"]]
    assert line.current() == snapshot


def test_a_book_that_missed_an_update_is_resyncing_and_cannot_be_read() -> None:
    line = book_line()
    line.accepted(1, 0, [])
    fetched(line, book(4))
    wants(line)
    _, status = admit(line, change(5), change(9))
    assert isinstance(status, Status)
    assert status.state is State.RESYNCING
    assert "follows 5, got 9" in status.reason
    assert line.current() is None
    assert wants(line) == [WantBook(instrument="A-B")]
    assert admit(line, change(10)) == []
    assert wants(line) == [], "one at a time"
    live, snapshot = fetched(line, book(9))
    assert isinstance(live, Status)
    assert live.state is State.LIVE
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.sequence == 10
    assert line.context.stats.resyncs == 1


def test_snapshots_that_come_too_old_are_counted_for_the_next_to_wait() -> None:
    line = book_line()
    line.accepted(1, 0, [])
    wants(line)
    admit(line, change(9))
    for late in (1, 2, 3):
        assert states(fetched(line, book(5))) == ([State.RESYNCING] if late == 1 else [])
        assert wants(line) == [WantBook(instrument="A-B", late=late)]
    fetched(line, book(8))
    admit(line, change(20))
    assert wants(line) == [WantBook(instrument="A-B", late=0)]


def test_a_snapshot_that_could_not_be_had_is_wanted_again() -> None:
    line = book_line()
    line.accepted(1, 0, [])
    wants(line)
    assert fetched(line, None) == []
    assert wants(line) == [WantBook(instrument="A-B")]


def test_a_snapshot_that_comes_without_a_connection_is_no_book() -> None:
    line = book_line()
    line.accepted(1, 0, [])
    wants(line)
    line.lost(1, State.CONNECTING, "cut", 0, [])
    assert fetched(line, book(5)) == []
    assert line.current() is None
    assert wants(line) == []
    line.accepted(2, 0, [])
    assert wants(line) == [WantBook(instrument="A-B")]


def test_a_book_is_kept_through_a_hand_over_and_forgotten_with_the_last_connection() -> None:
    line = book_line()
    line.accepted(1, 0, [])
    fetched(line, book(5))
    wants(line)
    line.accepted(2, 0, [])
    assert admit(line, change(6), change(6)) == [change(6)]
    line.lost(1, State.CONNECTING, "replaced", 0, [])
    assert line.current() is not None
    assert wants(line) == []
    out: list[Event] = []
    line.lost(2, State.CONNECTING, "cut", 0, out)
    assert states(out) == [State.CONNECTING]
    assert line.current() is None


def test_a_book_from_the_stream_may_come_before_its_ack() -> None:
    line = book_line(Source.STREAM)
    out = admit(line, book(3))
    line.accepted(1, 0, out)
    assert states(out) == [State.LIVE]
    assert len(of(BookSnapshot, out)) == 1
    assert wants(line) == []


def test_a_broken_book_from_the_stream_is_subscribed_anew() -> None:
    line = book_line(Source.STREAM)
    line.accepted(1, 0, [])
    admit(line, book(3))
    assert states(admit(line, change(9), change(10))) == [State.RESYNCING]
    (want,) = wants(line)
    assert isinstance(want, WantResubscribe)
    assert (want.channel, want.instrument) == ("book", "A-B")
    assert states(admit(line, book(20))) == [State.LIVE]


def test_a_book_that_breaks_again_and_again_is_asked_for_less_and_less_often() -> None:
    line = book_line(Source.STREAM)
    line.accepted(1, 0, [])
    asked = []
    for second in range(200):
        at = second * S
        admit(line, attrs.evolve(book(3), received_ns=at), attrs.evolve(change(9), received_ns=at))
        line.tick(at, [])
        asked += [second for want in wants(line) if isinstance(want, WantResubscribe)]
    assert asked == [0, 1, 3, 7, 15, 31, 63, 127, 191]


def test_while_a_connection_takes_over_two_books_are_not_mixed() -> None:
    line = book_line(Source.STREAM)
    out: list[Event] = []
    line.accepted(1, 0, out)
    line.admit(book(3), out, 1)
    line.accepted(2, S, out)
    line.admit(attrs.evolve(book(100), bids=[["1.5", "9"]]), out, 2)
    line.admit(change(4), out, 1)
    line.admit(change(101), out, 2)
    assert [e.sequence for e in of(BookDelta, out)] == [4]
    out.clear()
    line.lost(1, State.CONNECTING, "", 2 * S, out)
    (taken,) = of(BookSnapshot, out)
    assert taken.sequence == 101
    assert ["1.5", "9"] in list(taken.bids)
    assert states(out) == []
    line.admit(change(102), out, 2)
    assert [e.sequence for e in of(BookDelta, out)] == [102]


def test_a_stream_that_begins_with_changes_is_joined_to_a_snapshot_where_that_is_allowed() -> None:
    line = book_line(Source.STREAM, splice=True)
    line.accepted(1, 0, [])
    out: list[Event] = []
    for second in range(6):
        line.admit(change(second + 10), out)
        line.tick(second * S, out)
    (want,) = wants(line)
    assert isinstance(want, WantBook)
    line.fetched(book(12), 6 * S, out)
    (taken,) = of(BookSnapshot, out)
    assert taken.sequence == 15
    assert line.state is State.LIVE
    admit(line, book(30))
    assert line.current() is not None
    assert line.sync.sequence == 30


def test_a_level_that_is_no_number_breaks_that_book_alone() -> None:
    line = book_line()
    line.accepted(1, 0, [])
    fetched(line, book(3))
    out = admit(line, attrs.evolve(change(4), bids=[["1.2.3", "1"]]))
    assert states(out) == [State.RESYNCING]
    assert "not made of numbers" in (line.reason or "")
    assert isinstance(wants(line)[-1], WantBook)


def test_a_whole_book_that_did_not_change_is_a_repetition() -> None:
    line = book_line(Source.STREAM)
    line.accepted(1, 0, [])
    same = attrs.evolve(book(4), received_ns=S)
    out = admit(line, book(3), same, change(5), attrs.evolve(same, sequence=6))
    assert [e.sequence for e in of(BookSnapshot, out)] == [3, 6]
    assert line.context.stats.duplicates == 1


def test_a_book_that_may_cross_is_served_crossed() -> None:
    crossed = attrs.evolve(book(3), bids=[["10", "1"]], asks=[["9", "1"]])
    for may_cross in (False, True):
        line = book_line(Source.STREAM, may_cross=may_cross)
        line.accepted(1, 0, [])
        admit(line, crossed)
        assert (line.state is State.LIVE) is may_cross


def test_a_snapshot_that_the_stream_owes_is_asked_for_again() -> None:
    """The answer to a resubscription can get lost as well; deltas alone make no book."""
    line = book_line(Source.STREAM)
    line.accepted(1, 0, [])
    asked = []
    for second in range(400):
        line.admit(change(second + 1), [])
        line.tick(second * S, [])
        asked += [second for want in wants(line) if isinstance(want, WantResubscribe)]
    assert asked == [31, 92, 213]
    admit(line, book(1000))
    line.tick(400 * S, [])
    assert wants(line) == []


def test_a_stale_book_whose_sequence_held_is_live_with_the_next_delta() -> None:
    line = book_line()
    line.owes_within_s = 1.0
    line.accepted(1, 0, [])
    fetched(line, book(5))
    assert states(tick(line, 100 * S)) == [State.STALE]
    assert states(admit(line, change(6)) + tick(line, 101 * S)) == [State.LIVE]
