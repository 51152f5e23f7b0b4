"""The tools for REST dialects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.events import Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply, Page, TradeHole, checked, listed, venue_clock_ns

INSTRUMENT = Instrument(
    venue="acme", name="BTC-USDT", symbol="BTCUSDT", market="spot", kind=Kind.SPOT, base="BTC", quote="USDT"
)


def trade(number: int | None, time_ns: int | None = None) -> Trade:
    return Trade(
        venue="acme",
        instrument="BTC-USDT",
        venue_time_ns=time_ns,
        received_ns=0,
        id=None if number is None else str(number),
        price="1",
        size="1",
        aggressor=None,
    )


def hole(
    after: str | None = None, before: str | None = None, *, from_ns: int = 0, to_ns: int = 0
) -> TradeHole:
    return TradeHole.between(INSTRUMENT, after_id=after, before_id=before, from_ns=from_ns, to_ns=to_ns)


# --- holes ------------------------------------------------------------------------------------------------


def test_a_hole_between_ids_is_without_them_and_without_regard_to_time() -> None:
    between = hole("9", "12", from_ns=5, to_ns=6)
    assert [n for n in range(8, 14) if between.holds(trade(n))] == [10, 11]
    assert between.holds(trade(10, 0))
    assert between.holds(trade(10, 100))


def test_a_hole_between_times_is_with_them_and_without_regard_to_ids() -> None:
    between = hole(from_ns=5, to_ns=7)
    assert [t for t in range(4, 9) if between.holds(trade(None, t))] == [5, 6, 7]


def test_an_id_and_a_time_may_each_be_one_end_of_a_hole() -> None:
    assert [n for n in range(8, 13) if hole("9", to_ns=11).holds(trade(n, n))] == [10, 11]
    assert [n for n in range(8, 13) if hole(None, "11", from_ns=9).holds(trade(n, n))] == [9, 10]


def test_the_search_for_a_hole_ends_with_the_trade_next_to_its_edge() -> None:
    between = hole("9", "13")
    assert [n for n in range(8, 14) if between.begins_with(trade(n))] == [8, 9, 10]
    assert [n for n in range(8, 15) if between.ends_with(trade(n))] == [12, 13, 14]


def test_trades_of_one_time_are_searched_to_the_last() -> None:
    between = hole(from_ns=5, to_ns=7)
    assert [t for t in range(3, 9) if between.begins_with(trade(1, t))] == [3, 4]
    assert [t for t in range(5, 10) if between.ends_with(trade(1, t))] == [8, 9]


def test_a_trade_that_does_not_tell_its_place_is_no_answer() -> None:
    with pytest.raises(ValueError, match="without an id"):
        hole("9", "12").holds(trade(None, 10))
    with pytest.raises(ValueError, match="without a time"):
        hole(from_ns=1, to_ns=2).holds(trade(10))


def test_a_hole_needs_numbers_as_ids() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        hole("0x-1", None)


# --- answers ----------------------------------------------------------------------------------------------


def reply(body: bytes = b"[]", date: str | None = None) -> HttpReply:
    headers = {} if date is None else {"date": date}
    return HttpReply(status=200, body=body, headers=headers, received_ns=7)


def test_the_venue_tells_its_time_by_the_date_of_its_answer() -> None:
    assert venue_clock_ns(reply(date="Sun, 09 Sep 2001 01:46:40 GMT")) == 10**18


@pytest.mark.parametrize("date", [None, "yesterday", "Sun, 09 Sep 99999 01:46:40 GMT"])
def test_an_answer_without_a_date_came_when_we_had_it(date: str | None) -> None:
    assert venue_clock_ns(reply(date=date)) == 7


BAD_READS: list[Callable[[Any], Any]] = [
    lambda row: row["a"],
    lambda row: {"b": row}["a"],
    lambda row: row[3],
    lambda row: row.a,
    lambda row: int("a"),
    lambda row: int(float("inf")),
    lambda row: Decimal("a"),
]


@pytest.mark.parametrize("read", BAD_READS)
def test_a_reply_of_the_wrong_shape_is_told_with_its_beginning(read: Callable[[Any], Any]) -> None:
    parse = checked(lambda reply: Page(items=[read(reply.json())]), venue="acme")
    with pytest.raises(DecodeError, match=r"bad reply b'\[1\]'") as e:
        parse(reply(b"[1]"))
    assert e.value.venue == "acme"


def test_a_checked_reply_is_read_as_it_is() -> None:
    parse = checked(lambda reply: Page(items=reply.json()), venue="acme")
    assert parse(reply(b"[1, 2]")) == Page(items=[1, 2])


def test_a_parser_may_have_exceptions_of_its_own() -> None:
    class ParserError(Exception):
        pass

    def read(reply: HttpReply) -> Page[int]:
        raise ParserError

    with pytest.raises(ParserError):
        checked(read, venue="acme")(reply())
    with pytest.raises(DecodeError, match="ParserError"):
        checked(read, venue="acme", also=(ParserError,))(reply())


# --- lists ------------------------------------------------------------------------------------------------


def test_a_row_that_cannot_be_read_is_passed_over() -> None:
    assert listed(["1", None, "x", "2"], int, what="numbers", venue="acme") == [1, 2]


@pytest.mark.parametrize("read", [*BAD_READS, lambda row: datetime.fromtimestamp(10**15, UTC)])
def test_a_list_of_which_no_row_can_be_read_is_told(read: Callable[[Any], Any]) -> None:
    with pytest.raises(DecodeError, match="no row of numbers can be read") as e:
        listed([[1], [2]], read, what="numbers", venue="acme")
    assert e.value.venue == "acme"


def test_rows_may_be_left_out_on_purpose() -> None:
    assert listed([1, 2, 3], lambda n: None if n == 2 else n, what="numbers", venue="acme") == [1, 3]
    assert listed([1, 2], lambda n: None, what="numbers", venue="acme") == []
    assert listed([], int, what="numbers", venue="acme") == []
