"""What is remembered of an account: repetitions, orders out of order, and the file that outlives a restart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd import wire
from pricefeedd.accounts.lines import AccountLine, Held, OrderLine, StateLine, line_for
from pricefeedd.accounts.marks import Marks
from pricefeedd.events import AccountEvent, Event, Origin, State, Status
from pricefeedd.lines import Context
from pricefeedd.rules import Rules
from pricefeedd.stats import MarketStats


def context() -> Context:
    return Context(venue="v", rules=Rules(), stats=MarketStats(venue="v", market="account:a"), wants=[])


_keys = itertools.count()


def event(
    kind: str, at: int = 1, *, key: str = "", origin: Origin = Origin.LIVE, **fields: Any
) -> AccountEvent:
    return AccountEvent(
        venue="v",
        instrument="BTC-USD",
        venue_time_ns=at * 1000,
        received_ns=at * 1000 + 5,
        origin=origin,
        account="a",
        kind=kind,
        key=key or f"key-{next(_keys)}",
        fields={"market": "spot", "symbol": "BTCUSD", **fields},
    )


def order(at: int, *, is_open: bool, filled: str = "0", **more: Any) -> AccountEvent:
    return event("order", at, order_id="o", open=is_open, updated_us=at, filled_size=filled, **more)


def let_through(line: AccountLine, *events: AccountEvent) -> list[Event]:
    out: list[Event] = []
    for each in events:
        line.admit(each, out)
    return out


def test_an_order_that_ended_stays_so() -> None:
    new, part, done = (
        order(1, is_open=True),
        order(2, is_open=True, filled="1"),
        order(3, is_open=False, filled="2"),
    )
    for events in itertools.permutations((new, part, done)):
        line = OrderLine("order", "a", context())
        told = let_through(line, *events)
        assert told[-1] is done
        assert told == sorted(told, key=lambda e: [new, part, done].index(e))  # type: ignore[arg-type]
        assert line.held == {}
        assert line.newest == {}


def test_within_one_moment_the_fills_decide() -> None:
    line = OrderLine("order", "a", context())
    more, less = order(1, is_open=True, filled="0.2"), order(1, is_open=True, filled="0.10")
    assert let_through(line, more, less) == [more]


def test_it_ends_even_if_the_last_word_bears_an_older_time() -> None:
    line = OrderLine("order", "a", context())
    events = [order(9, is_open=True), order(8, is_open=False)]
    assert let_through(line, *events) == events


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), max_size=20))
def test_what_is_told_of_an_order_never_goes_back(steps: list[tuple[int, bool, int]]) -> None:
    line = OrderLine("order", "a", context())
    told = let_through(line, *(order(at, is_open=o, filled=str(f)) for at, o, f in steps))
    fields = [e.fields for e in told if isinstance(e, AccountEvent)]
    for before, after in itertools.pairwise(fields):
        assert not (after["open"] and not before["open"])
        if after["open"] == before["open"]:
            assert (after["updated_us"], after["filled_size"]) >= (
                before["updated_us"],
                before["filled_size"],
            )
    assert bool(line.held) == bool(fields and fields[-1]["open"])


def test_a_state_that_is_older_or_the_same_is_no_news() -> None:
    line = StateLine("balance", "a", context())
    first = event("balance", 5, coin="BTC", wallet_balance="1")
    old = event("balance", 4, coin="BTC", wallet_balance="0.5")
    other = event("balance", 4, coin="ETH", wallet_balance="2")
    same = event("balance", 6, origin=Origin.BACKFILL, coin="BTC", wallet_balance="1")
    later = event("balance", 7, coin="BTC", wallet_balance="0")
    assert let_through(line, first, old, other, same, later) == [first, other, later]
    assert [held.id for held in line.held.values()] == ["ETH"]
    assert {e.fields["coin"]: e.fields["wallet_balance"] for e in line.newest.values()} == {
        "BTC": "0",
        "ETH": "2",
    }
    assert line.context.stats.duplicates == 2


def test_a_day_later_a_repetition_is_known_still() -> None:
    line = line_for("execution", "a", context())
    first, again = event("execution", 1, key="k"), event("execution", 86_400_000_000, key="k")
    assert let_through(line, first, again) == [first]


def test_silence_is_no_fault_of_an_account() -> None:
    line = line_for("execution", "a", context())
    out: list[Event] = []
    line.accepted(1, 0, out)
    for second in range(1, 100):
        line.admit(event("execution", second * 1_000_000), out)
        line.tick(second * 1_000_000_000, out)
    line.tick(10**18, out)
    assert [e.state for e in out if isinstance(e, Status)] == [State.LIVE]
    assert line.context.wants == []


def test_orders_that_end_unseen_are_told() -> None:
    line = OrderLine("order", "a", context())
    line.recall([Held(market="spot", symbol="ETHUSD", id="of-old", told_ns=0)])
    let_through(line, order(1, is_open=True, price="5"))
    out: list[Event] = []
    line.gone(before_ns=1005, now_ns=9000, out=out)
    assert [(e.fields["order_id"], e.fields["open"]) for e in out if isinstance(e, AccountEvent)] == [
        ("of-old", False)
    ]
    line.gone(before_ns=1006, now_ns=9000, out=out)
    (_, last) = out
    assert isinstance(last, AccountEvent)
    assert (last.fields["status"], last.fields["price"], last.origin) == ("unknown", "5", Origin.DERIVED)
    assert line.held == {}


# --- The file ---------------------------------------------------------------------------------------------


def test_marks_come_back(tmp_path: Path) -> None:
    path = tmp_path / "accounts" / "bybit-main.json"
    marks = Marks(path)
    assert (marks.until_ns, marks.held) == ({}, {})
    held = Held(market="linear", symbol="BTCUSDT", id="7", told_ns=5)
    marks.write(marks.text({"order": 1_234_000}, {"order": [held]}))
    again = Marks(path)
    assert again.until_ns == {"order": 1_234_000}
    assert [(h.market, h.symbol, h.id, h.told_ns) for h in again.held["order"]] == [
        ("linear", "BTCUSDT", "7", 0)
    ]
    assert list(path.parent.iterdir()) == [path], "the draft took its place"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"until_us":{"order":"x"},"held":{}}',
        b'{"until_us":{},"held":{"order":[1]}}',
        b"\xff",
    ],
)
def test_a_broken_file_is_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bybit-main.json"
    path.write_bytes(text)
    marks = Marks(path)
    assert (marks.until_ns, marks.held) == ({}, {})


def test_nothing_is_kept_without_a_place() -> None:
    marks = Marks(None)
    marks.write(marks.text({}, {}))


# --- On the wire ------------------------------------------------------------------------------------------


def test_the_trace_stands_beside_the_data() -> None:
    told = event("order", order_id="o")
    told.trace_id = "5e1d0c8ab33f4d0e9b1f6c7a2d4e8f90"
    text = wire.encode("order:v:a", 3, told)
    assert b'"trace_id":"5e1d0c8ab33f4d0e9b1f6c7a2d4e8f90"' in text
    topic, seq, back = wire.decode(text)
    assert (topic, seq) == ("order:v:a", 3)
    assert isinstance(back, AccountEvent)
    assert (back.trace_id, back.account, dict(back.fields)) == (told.trace_id, "a", dict(told.fields))
    told.trace_id = ""
    assert b"trace_id" not in wire.encode("order:v:a", 3, told)
