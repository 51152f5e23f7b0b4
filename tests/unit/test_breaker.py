"""The circuit breaker, told the time."""

from __future__ import annotations

import pytest

from pricefeedd.breaker import Breaker, Circuit


def broken(**settings: float) -> Breaker:
    """Return a breaker that failed five times, the last at 0."""
    breaker = Breaker(**settings)  # type: ignore[arg-type]  # seconds only
    for _ in range(5):
        assert breaker.wait_s(0.0) == 0
        breaker.failure(0.0)
    return breaker


def test_stays_closed_below_the_limit() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.failure(0.0)
    assert breaker.state is Circuit.CLOSED
    assert breaker.wait_s(0.0) == 0


def test_only_failures_in_a_row_count() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(4):
            breaker.failure(0.0)
        breaker.success()
    assert breaker.state is Circuit.CLOSED


def test_opens_and_says_how_long_to_wait() -> None:
    breaker = broken()
    assert breaker.state is Circuit.OPEN
    assert breaker.wait_s(0.0) == 30.0
    assert breaker.wait_s(29.5) == 0.5


def test_failures_of_calls_that_were_under_way_do_not_prolong_it() -> None:
    breaker = broken()
    breaker.failure(20.0)
    breaker.failure(25.0)
    assert breaker.wait_s(25.0) == 5.0


def test_lets_one_probe_through_when_half_open() -> None:
    breaker = broken()
    assert breaker.wait_s(30.0) == 0
    assert breaker.state is Circuit.HALF_OPEN
    assert breaker.wait_s(30.0) == 1.0
    assert breaker.wait_s(59.5) == 0.5


def test_a_probe_whose_outcome_is_never_told_is_followed_by_another() -> None:
    breaker = broken()
    assert breaker.wait_s(30.0) == 0
    assert breaker.wait_s(59.9) > 0
    assert breaker.wait_s(60.0) == 0
    assert breaker.wait_s(60.0) > 0


def test_a_good_probe_closes_it_and_makes_the_next_wait_short_again() -> None:
    breaker = broken()
    assert breaker.wait_s(30.0) == 0
    breaker.failure(31.0)
    assert breaker.wait_s(91.0) == 0
    breaker.success()
    assert breaker.state is Circuit.CLOSED
    for _ in range(5):
        assert breaker.wait_s(100.0) == 0
        breaker.failure(100.0)
    assert breaker.wait_s(100.0) == 30.0


def test_failed_probes_double_the_wait_up_to_the_limit() -> None:
    breaker = broken()
    now, waits = 0.0, []
    for _ in range(6):
        wait_s = breaker.wait_s(now)
        waits.append(wait_s)
        now += wait_s
        assert breaker.wait_s(now) == 0
        breaker.failure(now)
    assert waits == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


def test_times_and_limit_can_be_chosen() -> None:
    breaker = broken(open_s=2.0, max_open_s=3.0)
    assert breaker.wait_s(0.0) == 2.0
    assert breaker.wait_s(2.0) == 0
    breaker.failure(2.0)
    assert breaker.wait_s(2.0) == 3.0
    sensitive = Breaker(failures=1)
    sensitive.failure(0.0)
    assert sensitive.state is Circuit.OPEN


def test_each_change_is_told_once() -> None:
    told: list[Circuit] = []
    breaker = Breaker(on_change=told.append)
    breaker.success()
    for _ in range(8):
        breaker.failure(0.0)
    breaker.wait_s(10.0)
    breaker.wait_s(30.0)
    breaker.wait_s(31.0)
    breaker.success()
    breaker.success()
    assert told == [Circuit.OPEN, Circuit.HALF_OPEN, Circuit.CLOSED]


@pytest.mark.parametrize("state", list(Circuit))
def test_states_read_as_the_metrics_say_them(state: Circuit) -> None:
    assert state.value in {"closed", "open", "half-open"}
