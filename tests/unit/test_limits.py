"""Rate budgets: never more in any window than the venue allows, and the venue's own count is believed."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.limits import Bucket, backoff
from pricefeedd.rest import RateSignal
from pricefeedd.venue import Budget


def bucket(capacity: float = 100, per_s: float = 60, reserve: float = 0.0) -> Bucket:
    return Bucket(Budget(name="weight", capacity=capacity, per_s=per_s, reserve=reserve))


def test_what_is_there_is_given_at_once_and_the_rest_has_to_wait() -> None:
    budget = bucket()
    assert budget.take(60, 0.0) == 0
    assert budget.take(40, 10.0) == 0
    assert budget.left == 0
    assert budget.take(1, 20.0) == 40.0
    assert budget.take(61, 20.0) == 50.0
    assert budget.take(60, 60.0) == 0
    assert budget.take(40, 69.9) == pytest.approx(0.1)
    assert budget.take(40, 70.0) == 0


def test_the_reserve_is_left_to_others() -> None:
    budget = bucket(reserve=0.2)
    assert budget.take(80, 0.0) == 0
    assert budget.take(1, 0.0) == 60.0


def test_refused_costs_are_not_taken() -> None:
    budget = bucket()
    budget.take(90, 0.0)
    for _ in range(10):
        assert budget.take(20, 1.0) == 59.0
    assert budget.take(10, 1.0) == 0


def test_a_cost_above_the_budget_goes_through_when_it_is_full() -> None:
    budget = bucket()
    budget.take(1, 0.0)
    assert budget.take(250, 30.0) == 30.0
    assert budget.take(250, 60.0) == 0
    assert budget.take(1, 119.0) == 1.0
    assert budget.take(1, 120.0) == 0


@given(
    st.integers(1, 50),
    st.floats(0, 0.9),
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 50)), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_than_the_budget(
    capacity: int, reserve: float, asked: list[tuple[float, int]]
) -> None:
    """Whoever asks, waits as long as told and asks again is let through, and never beyond the limit."""
    per_s = 10.0
    budget = bucket(capacity, per_s, reserve)
    limit = capacity * (1 - reserve)
    now = 0.0
    taken: list[tuple[float, float]] = []
    for pause, cost in asked:
        now += pause
        affordable = min(float(cost), limit)
        for _ in range(3):
            wait_s = budget.take(affordable, now)
            if wait_s == 0:
                break
            assert 0 < wait_s <= per_s + 1e-9
            now += wait_s
        else:
            pytest.fail("had to wait again and again")
        taken.append((now, affordable))
    for end, _ in taken:
        # Half open, less the rounding of the clock: what was taken at 0 is back at 10.
        inside = sum(cost for at, cost in taken if end - per_s + 1e-9 < at <= end)
        assert inside <= limit + 1e-6


def test_the_venues_count_is_believed_where_it_is_higher() -> None:
    budget = bucket()
    budget.take(10, 0.0)
    budget.observe(RateSignal(used=95), 0.0)
    assert budget.left == 5
    assert budget.take(6, 1.0) > 0
    assert budget.take(5, 1.0) == 0


def test_the_venues_count_is_not_believed_where_it_is_lower() -> None:
    """Its window may just have begun, and requests of ours may be on their way."""
    budget = bucket()
    budget.take(90, 0.0)
    budget.observe(RateSignal(used=2), 1.0)
    budget.observe(RateSignal(remaining=98), 1.0)
    budget.observe(RateSignal(), 1.0)
    assert budget.left == 10


def test_what_remains_counts_against_the_whole_limit() -> None:
    budget = bucket(reserve=0.2)
    budget.observe(RateSignal(remaining=25), 0.0)
    assert budget.left == 5
    assert budget.take(6, 0.0) == 60.0
    assert budget.take(5, 0.0) == 0


def test_the_venues_word_on_the_end_of_its_window_is_believed() -> None:
    budget = bucket()
    budget.observe(RateSignal(remaining=0, reset_after_s=7), 0.0)
    assert budget.take(1, 0.0) == 7.0
    assert budget.take(1, 7.0) == 0


def test_nothing_goes_through_while_stopped() -> None:
    budget = bucket()
    budget.stop(30, now=5.0)
    budget.stop(1, now=5.0)
    assert budget.take(1, 5.0) == 30.0
    assert budget.take(1, 34.0) == 1.0
    assert budget.take(1, 35.0) == 0


def test_delays_are_jittered_under_a_doubling_ceiling() -> None:
    ceilings = [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    runs = [list(islice(backoff(), len(ceilings))) for _ in range(300)]
    for index, ceiling in enumerate(ceilings):
        delays = [run[index] for run in runs]
        assert min(delays) >= 0.1 * ceiling
        assert max(delays) <= ceiling
        assert max(delays) - min(delays) > 0.5 * ceiling, "no jitter: all would come back at once"


def test_bounds_of_delays_can_be_chosen() -> None:
    assert all(1 <= delay <= 300 for delay in islice(backoff(10.0, 300.0), 50))
