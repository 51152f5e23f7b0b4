"""What can be known of a venue's clock: never more than its messages tell."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.clock_offset import ROUND_TRIP_NS, SLOT_NS, SLOTS, ClockOffset, RoundTrips

MS = 1_000_000
S = 1_000_000_000
START = 1_767_225_600 * S


def feed(
    offset: ClockOffset, *, begin_s: float, seconds: float, ahead_ns: int, delay_ms: tuple[float, float]
) -> list[int]:
    """Send ten messages a second; return the latencies found."""
    chance = random.Random(7)
    found = []
    for tenth in range(int(seconds * 10)):
        sent_ns = START + int((begin_s + tenth / 10) * S)
        delay_ns = int(chance.uniform(*delay_ms) * MS)
        found.append(offset.observe(sent_ns + ahead_ns, sent_ns + delay_ns))
    return found


def test_nothing_is_known_before_the_first_message() -> None:
    assert ClockOffset().least_ns is None


def test_with_equal_clocks_the_bound_is_the_fastest_way_and_latencies_are_as_they_are() -> None:
    offset = ClockOffset()
    found = feed(offset, begin_s=0, seconds=60, ahead_ns=0, delay_ms=(20, 80))
    assert offset.least_ns is not None
    assert -22 * MS < offset.least_ns <= -20 * MS
    assert min(found) >= 20 * MS
    assert max(found) <= 80 * MS


def test_a_clock_that_is_surely_ahead_is_put_right() -> None:
    offset = ClockOffset()
    found = feed(offset, begin_s=0, seconds=60, ahead_ns=500 * MS, delay_ms=(20, 80))
    assert offset.least_ns is not None
    assert 478 * MS < offset.least_ns <= 480 * MS
    assert min(found) >= 0
    assert max(found[100:]) <= 61 * MS, "what is left is how much slower a message was than the fastest"


def test_a_clock_behind_ours_looks_like_a_long_way_and_stays_uncorrected() -> None:
    offset = ClockOffset()
    found = feed(offset, begin_s=0, seconds=30, ahead_ns=-3 * S, delay_ms=(20, 80))
    assert min(found) >= 3 * S


def test_a_drifting_clock_is_followed() -> None:
    offset = ClockOffset()
    chance = random.Random(3)
    for tenth in range(36_000):  # an hour at 100 ppm
        sent_ns = START + tenth * S // 10
        drift_ns = tenth * S // 10 // 10_000
        offset.observe(sent_ns + drift_ns, sent_ns + int(chance.uniform(5, 20) * MS))
    assert offset.least_ns is not None
    assert abs(offset.least_ns - (360 * MS - 5 * MS)) < 10 * MS


def test_a_clock_that_was_put_forward_shows_within_two_slots() -> None:
    offset = ClockOffset()
    feed(offset, begin_s=0, seconds=60, ahead_ns=0, delay_ms=(20, 80))
    found = feed(offset, begin_s=60, seconds=12, ahead_ns=2 * S, delay_ms=(20, 80))
    assert min(found) >= 0
    assert offset.least_ns is not None
    assert offset.least_ns > 1_900 * MS


def test_a_clock_that_was_put_back_shows_within_the_window() -> None:
    offset = ClockOffset()
    feed(offset, begin_s=0, seconds=60, ahead_ns=2 * S, delay_ms=(20, 80))
    feed(offset, begin_s=60, seconds=SLOTS * SLOT_NS / S, ahead_ns=0, delay_ms=(20, 80))
    assert offset.least_ns is not None
    assert offset.least_ns < 0


def test_one_wrong_time_changes_nothing() -> None:
    offset = ClockOffset()
    feed(offset, begin_s=0, seconds=30, ahead_ns=0, delay_ms=(20, 80))
    before = offset.least_ns
    assert offset.observe(START + 86_400 * S, START + 31 * S) == 0
    assert before is not None
    assert offset.least_ns is not None
    assert abs(offset.least_ns - before) < 5 * MS
    found = feed(offset, begin_s=32, seconds=5, ahead_ns=0, delay_ms=(20, 80))
    assert max(found) <= 80 * MS


def test_our_own_clock_jumping_is_forgotten_on_demand_and_survived_without() -> None:
    offset = ClockOffset()
    feed(offset, begin_s=0, seconds=30, ahead_ns=0, delay_ms=(20, 80))
    offset.reset()
    assert offset.least_ns is None
    feed(offset, begin_s=1_000, seconds=5, ahead_ns=0, delay_ms=(20, 80))
    found = feed(offset, begin_s=-5_000, seconds=5, ahead_ns=0, delay_ms=(20, 80))
    assert max(found) <= 80 * MS


def test_a_message_read_a_moment_earlier_on_another_connection_belongs_to_the_same_slot() -> None:
    offset = ClockOffset()
    end = START + SLOT_NS
    offset.observe(end - 9 * MS, end + MS)
    offset.observe(end - 30 * MS, end - MS)
    assert offset.least_ns == -10 * MS


@given(
    st.lists(
        st.tuples(st.integers(-(10**15), 10**15), st.integers(-(10**12), 10**12)), min_size=1, max_size=200
    )
)
def test_no_latency_is_ever_negative(steps: list[tuple[int, int]]) -> None:
    offset = ClockOffset()
    now_ns = START
    for step, ahead_ns in steps:
        now_ns += step
        assert offset.observe(now_ns + ahead_ns, now_ns) >= 0


def test_round_trips_bound_the_offset_closer_the_more_there_are() -> None:
    trips = RoundTrips()
    assert trips.bounds_ns(START) is None
    chance = random.Random(5)
    ahead_ns = 123 * MS
    for second in range(60):
        sent_ns = START + second * 7 * S + chance.randrange(S)
        received_ns = sent_ns + 40 * MS
        venue_ns = sent_ns + 20 * MS + ahead_ns
        trips.observe(sent_ns, venue_ns - venue_ns % S, received_ns, grain_ns=S)
        bounds = trips.bounds_ns(received_ns)
        assert bounds is not None
        assert bounds[0] <= ahead_ns <= bounds[1]
    assert bounds is not None
    assert bounds[1] - bounds[0] < 150 * MS


def test_a_clock_that_was_put_right_contradicts_older_round_trips_which_are_left_out() -> None:
    trips = RoundTrips()
    trips.observe(START, START, START + 10 * MS)
    trips.observe(START + S, START + 6 * S, START + S + 10 * MS)
    assert trips.bounds_ns(START + 2 * S) == (5 * S - 10 * MS, 5 * S)


def test_old_round_trips_say_nothing_of_clocks_that_drift() -> None:
    trips = RoundTrips()
    trips.observe(START, START, START + 10 * MS)
    assert trips.bounds_ns(START + 10 * MS + ROUND_TRIP_NS + 1) is None
