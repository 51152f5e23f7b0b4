"""The same line again and again: what is written, what is counted; at times that are given."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd import logs
from pricefeedd.logs.repeats import Repeats, key_of


class Log:
    """What would be written of a log, at given times."""

    def __init__(self, **options: Any) -> None:
        self.repeats = Repeats(10.0, **options)
        self.written: list[tuple[str, Any, int]] = []

    def say(
        self, at_s: float, message: str, *, level: str = "warning", error: Any = None, **facts: Any
    ) -> bool:
        key = key_of(level, "x", message, facts, error)
        admitted, before = self.repeats.admit(key, facts, at_s)
        self._sum_up(before)
        if admitted:
            self.written.append((message, facts.get("venue"), 0))
        return admitted

    def tick(self, at_s: float) -> None:
        self._sum_up(self.repeats.ended(at_s))

    def _sum_up(self, summaries: Any) -> None:
        self.written += [(s.message, s.facts.get("venue"), s.repeated) for s in summaries]


def test_the_first_is_written_and_the_rest_summed_up_when_the_window_ends() -> None:
    log = Log()
    for at in range(9):
        log.say(float(at), "session lost", venue="okx", attempt=at, delay_s=at * 1.5)
    assert log.written == [("session lost", "okx", 0)]
    assert log.repeats.due_s(9.0) == 1.0
    log.tick(9.9)
    assert len(log.written) == 1
    log.tick(10.0)
    assert log.written[1:] == [("session lost", "okx", 8)]
    assert log.repeats.due_s(10.0) is None


def test_while_it_goes_on_each_window_has_one_line() -> None:
    log = Log()
    for at in range(1000):
        log.say(at / 10, "session lost", venue="okx")
    log.tick(110.0)
    assert log.written[0] == ("session lost", "okx", 0)
    assert len(log.written) == 11
    assert 1 + sum(repeated for *_, repeated in log.written) == 1000


def test_once_it_is_quiet_it_is_written_again() -> None:
    log = Log()
    log.say(0.0, "session lost", venue="okx")
    log.say(10.0, "session lost", venue="okx")
    assert log.written == [("session lost", "okx", 0)] * 2
    log.tick(20.0)
    assert len(log.repeats) == 0


def test_another_line_with_that_message_brings_the_sum_before_it() -> None:
    log = Log()
    for venue in ("okx", "okx", "okx", "kraken", "okx", "kraken"):
        log.say(1.0, "session lost", venue=venue)
    log.say(2.0, "session up", venue="okx")
    assert log.written == [
        ("session lost", "okx", 0),
        ("session lost", "okx", 2),
        ("session lost", "kraken", 0),
        ("session up", "okx", 0),
    ]


def test_what_differs_in_substance_is_another_line() -> None:
    log = Log()
    assert log.say(0.0, "m", venue="a", status=404)
    assert log.say(0.0, "m", venue="a", status=500)
    assert log.say(0.0, "m", venue="a", status=500, level="error")
    assert log.say(0.0, "m", venue="a", status=500, error=ValueError("one"))
    assert log.say(0.0, "m", venue="a", status=500, error=ValueError("two"))
    assert log.say(0.0, "m", venue="a", status=500, error=KeyError("two"))
    assert log.say(0.0, "m", venues=["a", "b"])
    assert log.say(0.0, "m", venues=["a", "c"])
    assert not log.say(0.0, "m", venues=["a", "c"], trace_id="other", delay_s=2.5, dropped=7)


def test_facts_that_never_repeat_are_bounded_but_errors_are_all_seen_once() -> None:
    log = Log(per_message=5)
    for number in range(100):
        log.say(1.0, "client closed", client=f"192.0.2.{number}", level="info")
        log.say(1.0, "row refused", reason=f"row {number}", level="error")
    assert len([line for line in log.written if line[0] == "client closed"]) == 5
    assert len([line for line in log.written if line[0] == "row refused"]) == 100
    log.tick(11.0)
    assert log.written[-1] == ("client closed", None, 95)


def test_memory_is_bounded_and_nothing_is_forgotten_untold() -> None:
    log = Log(most=100)
    for number in range(1000):
        log.say(1.0, "e", venue=number, level="error")
        log.say(1.0, "e", venue=number, level="error")
        assert len(log.repeats) <= 100
    log._sum_up(log.repeats.rest())
    assert sum(repeated or 1 for *_, repeated in log.written) == 2000


def test_debug_is_never_held_back_nor_anything_without_a_window() -> None:
    log = Log()
    assert all(log.say(0.0, "frame", level="debug") for _ in range(5))
    key = key_of("info", "x", "m", {})
    assert all(Repeats(0.0).admit(key, {}, 0.0) == (True, []) for _ in range(5))


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_fact_that_cannot_be_shown_fails_nothing() -> None:
    log = Log()
    assert log.say(0.0, "m", what=Odd())
    assert not log.say(0.0, "m", what=Odd())


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3), st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(["info", "error"])
        ),
        max_size=60,
    )
)
def test_whatever_comes_each_line_is_written_or_counted(lines: list[tuple[float, str, str, str]]) -> None:
    log, now = Log(per_message=2, most=4), 0.0
    for pause, message, venue, level in lines:
        now += pause
        log.say(now, message, venue=venue, level=level)
    log._sum_up(log.repeats.rest())
    assert sum(repeated or 1 for *_, repeated in log.written) == len(lines)


# --- on the way of the lines ---------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A log whose window is short; afterwards logging is as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    written = io.StringIO()
    logs.configure("info", "json", written, repeat_s=0.3)
    yield written
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def told(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def wait_for(stream: io.StringIO, count: int) -> list[dict[str, Any]]:
    """Return the lines once there are so many: the thread that sums up has no event here."""
    with trio.fail_after(10):
        while len(told(stream)) < count:  # noqa: ASYNC110  # see above
            await trio.sleep(0.01)
    return told(stream)


@pytest.mark.parametrize("ours", [True, False])
async def test_both_kinds_of_logger_are_held_back(stream: io.StringIO, ours: bool) -> None:
    for attempt in range(38):
        if ours:
            structlog.get_logger("v").warning("session lost", venue="okx", attempt=attempt)
        else:
            logging.getLogger("v").warning("session %s", "lost", extra={"venue": "okx", "attempt": attempt})

    first, summed = await wait_for(stream, 2)

    assert (first["message"], first["attempt"], "repeated" in first) == ("session lost", 0, False)
    assert summed["repeated"] == 37
    expected = {"message": "session lost", "venue": "okx", "attempt": 37, "level": "warning", "logger": "v"}
    assert expected.items() <= summed.items()
    assert logs.describe()["repeated"] == 37


async def test_exceptions_that_repeat_show_their_traceback_once(stream: io.StringIO) -> None:
    for number in (1, 2, 2):
        try:
            raise ValueError(number)
        except ValueError:
            structlog.get_logger("v").exception("session crashed", venue="okx")

    lines = await wait_for(stream, 3)

    assert [("exception" in line, line.get("repeated")) for line in lines] == [(True, None)] * 2 + [
        (False, 1)
    ]


async def test_a_flood_costs_little_and_writes_little(stream: io.StringIO) -> None:
    log = structlog.get_logger("v")
    began, cpu = time.monotonic(), time.thread_time()
    for attempt in range(10_000):
        log.warning("session lost", venue="okx", reason="refused", attempt=attempt, delay_s=attempt / 7)
    spent_s, took_s = time.thread_time() - cpu, time.monotonic() - began

    # A second of 10 000 lines a second may cost a fifth of it; the machine of the gate has others at work.
    assert spent_s < 0.4, spent_s
    lines = await wait_for(stream, 2 + int(took_s / 0.4))
    assert len(lines) <= 3 + took_s / 0.3
