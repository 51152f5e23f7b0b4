"""The least that is logged, changed by signals and for a while; at times that are given."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

from pricefeedd.logs import SIGNALS
from pricefeedd.logs.levels import BACK, MORE, Levels


class Clock:
    def __init__(self) -> None:
        self.now = 100.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def levels(clock: Clock) -> Iterator[Levels]:
    """Levels as configured with `warning`; afterwards the root logger is as it was found."""
    level = logging.getLogger().level
    found = Levels(now_s=lambda: clock.now, now_ns=lambda: int(clock.now * 1e9))
    found.configure("warning")
    yield found
    logging.getLogger().setLevel(level)


def test_a_level_holds_until_it_lapses(levels: Levels, clock: Clock) -> None:
    levels.change("debug", 60)
    assert (levels.current, levels.configured) == ("debug", "warning")
    assert levels.until_ns == 160_000_000_000
    assert levels.due_s == 60
    clock.now = 159.9
    assert not levels.lapse()
    clock.now = 160.0
    assert levels.lapse()
    assert logging.getLogger().level == logging.WARNING
    assert (levels.current, levels.until_ns, levels.due_s) == ("warning", None, None)
    assert not levels.lapse()


def test_a_later_change_replaces_an_earlier_one(levels: Levels, clock: Clock) -> None:
    levels.change("debug", 60)
    levels.change("info")
    clock.now = 1000.0
    assert not levels.lapse()
    assert levels.current == "info"
    levels.configure("error")
    assert (levels.current, levels.configured) == ("error", "error")


@pytest.mark.skipif(MORE is None, reason="no such signals on this system")
def test_signals_change_it_step_by_step_and_back(levels: Levels) -> None:
    assert MORE is not None
    assert BACK is not None
    assert SIGNALS == (signal.SIGUSR1, signal.SIGUSR2)
    seen = []
    for _ in range(4):
        assert levels.heard(MORE)
        seen.append(levels.current)
    assert seen == ["info", "debug", "debug", "debug"]
    assert levels.heard(BACK)
    assert levels.current == "warning"
    assert not levels.heard(signal.SIGTERM)


def test_a_change_wakes_who_waits_for_the_lapse(levels: Levels) -> None:
    woken = []
    levels.wake = lambda: woken.append(levels.due_s)
    levels.change("debug", 5)
    assert woken == [5]


@pytest.mark.parametrize("level", ["loud", "", "INFO"])
def test_unknown_levels_are_refused(levels: Levels, level: str) -> None:
    with pytest.raises(ValueError, match="unknown log level"):
        levels.change(level)
    assert levels.current == "warning"
