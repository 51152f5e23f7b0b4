"""Minutes from ticks and longer intervals from minutes: exact, whole, and closed no earlier than they are over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.candles import INTERVALS, LongCandles, TickMinutes
from pricefeedd.events import Candle, Event, Gap, Origin, Price, State, Status, Trade
from pricefeedd.rules import EmptyMinutes

S = 1_000_000_000
MINUTE = 60 * S
DAY = 1440 * MINUTE
#: The first nanosecond of a day, far from the epoch.
T0 = 20_000 * DAY


def trade(at_s: float, price: str = "10", size: str = "1", *, late_s: float = 0.1, **fields: Any) -> Trade:
    at_ns = T0 + round(at_s * S)
    return Trade(
        venue="v",
        instrument="A-B",
        venue_time_ns=at_ns,
        received_ns=at_ns + round(late_s * S),
        id="1",
        price=price,
        size=size,
        aggressor=None,
        **fields,
    )


def status(state: State, at_s: float) -> Status:
    return Status(
        venue="v", instrument="A-B", received_ns=T0 + round(at_s * S), topic_channel="trade", state=state
    )


def gap(from_s: float, to_s: float, missing: int | None) -> Gap:
    return Gap(
        venue="v",
        instrument="A-B",
        received_ns=T0 + round(to_s * S),
        topic_channel="trade",
        from_ns=T0 + round(from_s * S),
        to_ns=T0 + round(to_s * S),
        reason="",
        missing=missing,
    )


def builder(**options: Any) -> TickMinutes:
    # Something later came over the connection, whatever the time.
    defaults: dict[str, Any] = {
        "grace_s": 3.0, "empty": EmptyMinutes.FLAT, "proof": True, "shown_ns": lambda: T0 + 10 * DAY
    }  # fmt: skip
    return TickMinutes("v", "A-B", **{**defaults, **options})


def take(minutes: TickMinutes, *events: Event) -> None:
    for event in events:
        minutes.take(event)


def closed(minutes: TickMinutes, at_s: float) -> list[Candle]:
    return [c for _, c in minutes.closed(T0 + round(at_s * S)) if c is not None]


def figures(candle: Candle) -> tuple[str, ...]:
    return (candle.open, candle.high, candle.low, candle.close, candle.volume)


# --- minutes from ticks ------------------------------------------------------------------------------------


def test_a_minute_is_what_was_traded_in_it_to_the_last_digit() -> None:
    minutes = builder()
    take(
        minutes,
        status(State.LIVE, -10),
        trade(0, "10.10", "0.1"),
        trade(20, "9.900", "0.20"),
        trade(40, "10.5", "0.003"),
        trade(59.999999, "10.00", "1"),
        trade(60, "11", "5"),
    )
    (candle,) = closed(minutes, 63.2)
    assert figures(candle) == ("10.10", "10.5", "9.900", "10.00", "1.303")
    assert (candle.trades, candle.origin, candle.closed) == (4, Origin.DERIVED, True)
    assert candle.turnover is not None
    assert Decimal(candle.turnover) == Decimal("1.01") + Decimal("1.98") + Decimal("0.0315") + 10
    assert candle.start_ns == T0


def test_a_minute_is_not_closed_before_its_grace_and_takes_late_trades() -> None:
    minutes = builder()
    take(minutes, status(State.LIVE, -1), trade(10, "1"), trade(61, "3"))
    assert closed(minutes, 62.9) == []
    take(minutes, trade(59, "2", late_s=3.5))
    (candle,) = closed(minutes, 63.2)
    assert figures(candle) == ("1", "2", "1", "2", "2")


def test_the_open_minute_is_told_once_for_all_that_came_together() -> None:
    minutes = builder()
    take(minutes, status(State.LIVE, -1), trade(1, "1"), trade(2, "2"))
    opened = minutes.open_minute(5)
    assert opened is not None
    assert (figures(opened), opened.closed) == (("1", "2", "1", "2", "2"), False)
    assert minutes.open_minute(6) is None


def test_a_minute_without_trades_is_flat() -> None:
    minutes = builder()
    take(minutes, status(State.LIVE, -1), trade(10, "7"))
    found = closed(minutes, 190)
    assert [figures(c) for c in found] == [("7", "7", "7", "7", "1"), *[("7", "7", "7", "7", "0")] * 2]
    assert [(c.trades, c.turnover) for c in found[1:]] == [(0, "0")] * 2


def test_where_empty_minutes_do_not_exist_they_are_told_as_absent() -> None:
    minutes = builder(empty=EmptyMinutes.NONE, proof=False)
    take(minutes, status(State.LIVE, -1), trade(10, "7"))
    found = minutes.closed(T0 + 190 * S)
    assert [start - T0 for start, _ in found] == [0, MINUTE, 2 * MINUTE]
    assert [c is None for _, c in found] == [False, True, True]


def test_a_minute_that_was_not_seen_from_its_beginning_is_left_to_rest() -> None:
    minutes = builder()
    take(minutes, status(State.LIVE, 30), trade(31), trade(61))
    assert [c.start_ns - T0 for c in closed(minutes, 130)] == [MINUTE]


def test_ids_that_prove_it_make_a_minute_whole_from_the_first_trade_on() -> None:
    minutes = builder()
    take(minutes, trade(-5, origin=Origin.BACKFILL), trade(3, origin=Origin.BACKFILL), status(State.LIVE, 30))
    take(minutes, trade(31))
    assert [c.trades for c in closed(minutes, 64)] == [2]


@pytest.mark.parametrize(("missing", "starts"), [(0, [0, 1]), (2, [1]), (None, [1])])
def test_a_minute_in_which_something_was_lost_is_left_to_rest(missing: int | None, starts: list[int]) -> None:
    minutes = builder()
    take(minutes, status(State.LIVE, -1), trade(1), gap(5, 30, missing), trade(31), trade(61))
    assert [(c.start_ns - T0) // MINUTE for c in closed(minutes, 124)] == starts


def test_nothing_is_closed_by_the_clock_alone_after_a_reconnect() -> None:
    """Until the next trade shows whether something was missed, a quiet minute and a lost one look the same."""
    minutes = builder()
    take(minutes, status(State.LIVE, -1), trade(1), status(State.CONNECTING, 30), status(State.LIVE, 150))
    assert closed(minutes, 200) == []
    take(minutes, trade(80, "5", late_s=120, origin=Origin.BACKFILL), trade(201))
    assert [c.close for c in closed(minutes, 202)] == ["10", "5", "5"]


def test_without_proof_a_time_without_connection_is_a_hole() -> None:
    minutes = builder(proof=False)
    take(minutes, status(State.LIVE, -1), trade(1), status(State.DOWN, 30), status(State.LIVE, 70), trade(71))
    take(minutes, trade(121))
    assert [(c.start_ns - T0) // MINUTE for c in closed(minutes, 190)] == [2]


def test_a_stale_topic_is_still_connected() -> None:
    minutes = builder(proof=False)
    take(
        minutes, status(State.LIVE, -1), trade(1), status(State.STALE, 31), status(State.LIVE, 40), trade(41)
    )
    assert [c.trades for c in closed(minutes, 64)] == [2]


def test_nothing_is_closed_while_trades_are_held_back() -> None:
    held = True
    minutes = builder(pending=lambda: held)
    take(minutes, status(State.LIVE, -1), trade(1))
    assert closed(minutes, 100) == []
    held = False
    assert len(closed(minutes, 100)) == 1


def test_silence_closes_no_minute_until_something_later_came_over_the_connection() -> None:
    shown_s = 50.0
    minutes = builder(shown_ns=lambda: T0 + round(shown_s * S))
    take(minutes, status(State.LIVE, -1), trade(1))
    assert closed(minutes, 200) == []
    shown_s = 61.0
    assert [c.start_ns for c in closed(minutes, 200)] == [T0]
    take(minutes, trade(150))
    assert len(closed(minutes, 200)) == 1


@pytest.mark.parametrize("ahead_s", [-3600.0, -10.0, 10.0, 3600.0])
def test_our_clock_may_be_wrong(ahead_s: float) -> None:
    minutes = builder()
    late_s = 0.1 + ahead_s
    take(minutes, status(State.LIVE, -1 + ahead_s), trade(-70, late_s=late_s), trade(1, late_s=late_s))
    assert [c.start_ns - T0 for c in closed(minutes, 62 + ahead_s)] == [-MINUTE]
    assert len(closed(minutes, 63.2 + ahead_s)) == 1


def test_our_clock_may_jump() -> None:
    minutes = builder()
    take(minutes, status(State.LIVE, -1), trade(1))
    minutes.shift(3600 * S)
    assert closed(minutes, 3700) == []
    take(minutes, trade(61, late_s=3600.1))
    assert closed(minutes, 3662) == []
    assert len(closed(minutes, 3663.2)) == 1


def test_prices_make_minutes_by_when_they_were_published() -> None:
    def price(at_s: float, text: str) -> Price:
        at_ns = T0 + round(at_s * S)
        return Price(
            venue="v", instrument="A-B", received_ns=at_ns, price=text, conf="1", publish_time_ns=at_ns
        )

    minutes = builder(proof=False, empty=EmptyMinutes.NONE, counts=False, worth=False)
    old = attrs.evolve(price(20, "3"), received_ns=T0 + 100 * S)
    take(minutes, status(State.LIVE, -1), price(1, "2"), price(20, "3"))
    (candle,) = closed(minutes, 64)
    take(minutes, old)
    assert figures(candle) == ("2", "3", "2", "3", "0")
    assert (candle.trades, candle.turnover) == (None, None)
    assert minutes.open_minute(1) is None
    assert closed(minutes, 300) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 600_000), st.integers(1, 999), st.integers(1, 99)), min_size=1, max_size=60
    )
)
def test_minutes_are_the_sums_of_their_trades(rows: list[tuple[int, int, int]]) -> None:
    rows.sort(key=lambda row: row[0])
    minutes = builder()
    take(minutes, status(State.LIVE, -61), trade(-60.5, "1"))
    for at_ms, price, size in rows:
        take(minutes, trade(at_ms / 1000, str(price), f"0.{size:02}"))
    found = {c.start_ns: c for c in closed(minutes, 700)}
    for start in range(T0, T0 + 10 * MINUTE, MINUTE):
        mine = [r for r in rows if start <= T0 + r[0] * 1_000_000 < start + MINUTE]
        candle = found[start]
        assert candle.trades == len(mine)
        assert Decimal(candle.volume) == sum((Decimal(f"0.{r[2]:02}") for r in mine), Decimal(0))
        if mine:
            prices = [r[1] for r in mine]
            expected = (prices[0], max(prices), min(prices), prices[-1])
            assert tuple(map(int, figures(candle)[:4])) == expected


# --- longer intervals --------------------------------------------------------------------------------------


def minute(number: int, price: int = 10, **fields: Any) -> Candle:
    made = Candle(
        venue="v",
        instrument="A-B",
        received_ns=T0 + (number + 1) * MINUTE,
        start_ns=T0 + number * MINUTE,
        open=f"{price}",
        high=f"{price + 2}.0",
        low=f"{price - 2}",
        close=f"{price + 1}",
        volume="0.5",
        turnover="5",
        trades=3,
        closed=True,
    )
    return attrs.evolve(made, **fields)


def long(interval: str, events: Iterable[Event], empty: EmptyMinutes = EmptyMinutes.SENT) -> list[Event]:
    candles = LongCandles("v", "A-B", interval, empty=empty)
    out: list[Event] = []
    for event in events:
        candles.take(event, out)
    return out


def ends(events: Sequence[Event]) -> list[Candle]:
    return [e for e in events if isinstance(e, Candle) and e.closed]


def test_five_minutes_make_one_candle_told_open_after_each() -> None:
    out = long("5m", [minute(i, 10 + i) for i in range(5)])
    assert [e.closed for e in out if isinstance(e, Candle)] == [False] * 4 + [True]
    (candle,) = ends(out)
    assert (candle.interval, candle.start_ns, candle.origin) == ("5m", T0, Origin.DERIVED)
    assert figures(candle) == ("10", "16.0", "8", "15", "2.5")
    assert (candle.turnover, candle.trades) == ("25", 15)


@pytest.mark.parametrize("interval", INTERVALS)
def test_intervals_begin_exactly_at_their_edges(interval: str) -> None:
    step = INTERVALS[interval]
    out = long(interval, [minute(i, 10 + i % 7) for i in range(-1, 2 * step)])
    assert [(c.start_ns - T0) // MINUTE for c in ends(out)] == [0, step]
    assert all(Decimal(c.volume) == Decimal(step) / 2 for c in ends(out))


def test_an_interval_that_had_begun_before_the_first_minute_is_not_told() -> None:
    assert long("5m", [minute(2), minute(3), minute(4)]) == []
    assert len(ends(long("5m", [minute(i) for i in range(2, 10)]))) == 1


@pytest.mark.parametrize("lost", [[2], [4], [1, 2, 3]])
def test_an_interval_with_minutes_missing_is_a_gap(lost: list[int]) -> None:
    out = long("5m", [minute(i) for i in range(10) if i not in lost])
    (hole,) = [e for e in out if isinstance(e, Gap)]
    assert (hole.topic_channel, hole.from_ns, hole.to_ns, hole.missing) == (
        "candle_5m",
        T0,
        T0 + 5 * MINUTE,
        1,
    )
    assert f"{len(lost)} of its minutes" in hole.reason
    assert [(c.start_ns - T0) // MINUTE for c in ends(out)] == [5]


def test_where_minutes_may_not_exist_an_interval_is_made_of_those_that_do() -> None:
    candles = LongCandles("v", "A-B", "5m", empty=EmptyMinutes.NONE)
    out: list[Event] = []
    for number in (0, 3, 6):
        candles.take(minute(number), out)
    assert [Decimal(c.volume) for c in ends(out)] == [1]
    candles.tick(T0 + 13 * MINUTE, out)
    assert [(c.start_ns - T0) // MINUTE for c in ends(out)] == [0, 5]
    candles.tick(T0 + 20 * MINUTE, out)
    assert len(ends(out)) == 2
    assert not [e for e in out if isinstance(e, Gap)]


def test_open_minutes_change_nothing() -> None:
    assert long("5m", [minute(0, closed=False)]) == []


def test_what_one_minute_does_not_say_the_sum_does_not_say() -> None:
    (candle,) = ends(long("5m", [minute(i, turnover=None if i == 3 else "1", trades=None) for i in range(5)]))
    assert (candle.turnover, candle.trades) == (None, None)
