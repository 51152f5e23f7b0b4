"""Order books against a naive model, and the rules by which they are joined, kept and given up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.book import Book, BookSync, Broken, Ladder, Standing, TooOld
from pricefeedd.events import BookDelta, BookSnapshot, Event, Level
from pricefeedd.rules import BookRule, Link, Source, Verdict, contiguous, increasing, linked, unnumbered

REST = BookRule(source=Source.REST)
STREAM = BookRule(source=Source.STREAM)
NOTHING: Sequence[Level] = ()


def snapshot(
    sequence: int | None = None,
    bids: Sequence[Level] = (("100", "1"),),
    asks: Sequence[Level] = (("101", "1"),),
    *,
    checksum: int | None = None,
) -> BookSnapshot:
    return BookSnapshot(
        venue="v", instrument="A-B", received_ns=1, bids=bids, asks=asks, sequence=sequence, checksum=checksum
    )


def delta(
    sequence: int | None = None,
    bids: Sequence[Level] = NOTHING,
    asks: Sequence[Level] = NOTHING,
    *,
    first: int | None = None,
    previous: int | None = None,
    checksum: int | None = None,
) -> BookDelta:
    return BookDelta(
        venue="v",
        instrument="A-B",
        received_ns=2,
        bids=bids,
        asks=asks,
        sequence=sequence,
        first_sequence=first,
        previous_sequence=previous,
        checksum=checksum,
    )


class Model:
    """A book as anybody would write it."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Level] = {}
        self.asks: dict[Decimal, Level] = {}

    def apply(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for level in levels:
                if Decimal(level[1]):
                    side[Decimal(level[0])] = level
                else:
                    side.pop(Decimal(level[0]), None)

    def hear(self, events: list[Event]) -> None:
        """Do what a reader does with what is published."""
        for event in events:
            assert isinstance(event, BookSnapshot | BookDelta)
            if isinstance(event, BookSnapshot):
                self.bids, self.asks = {}, {}
            self.apply(event.bids, event.asks)

    @property
    def sides(self) -> tuple[list[Level], list[Level]]:
        bids = [self.bids[price] for price in sorted(self.bids, reverse=True)]
        return bids, [self.asks[price] for price in sorted(self.asks)]


def sides(sync: BookSync) -> tuple[list[Level], list[Level]]:
    book = sync.current(snapshot())
    return list(book.bids), list(book.asks)


def events(result: list[Event] | Broken | TooOld) -> list[Event]:
    assert isinstance(result, list), result
    return result


def texts(whole: int, places: int) -> str:
    return f"{whole}.{'0' * places}" if places else str(whole)


sizes = st.sampled_from(("0", "0.000", "1", "2.50", "0.00000001"))
bids_st = st.lists(st.tuples(st.builds(texts, st.integers(1, 20), st.integers(0, 3)), sizes), max_size=12)
asks_st = st.lists(st.tuples(st.builds(texts, st.integers(21, 40), st.integers(0, 3)), sizes), max_size=12)


# --- ladders and books -------------------------------------------------------------------------------------


@given(bids_st, asks_st, st.lists(st.tuples(bids_st, asks_st), max_size=12))
def test_a_book_is_what_a_naive_one_is(
    bids: list[Level], asks: list[Level], deltas: list[tuple[list[Level], list[Level]]]
) -> None:
    book, model = Book(), Model()
    unique_bids = {Decimal(level[0]): level for level in bids}.values()
    unique_asks = {Decimal(level[0]): level for level in asks}.values()
    book.load(list(unique_bids), list(unique_asks))
    model.apply(list(unique_bids), list(unique_asks))
    for more_bids, more_asks in deltas:
        book.apply(more_bids, more_asks)
        model.apply(more_bids, more_asks)
        assert (book.bids.levels(), book.asks.levels()) == model.sides
        assert book.bids.levels(3) == model.sides[0][:3]
        assert (len(book.bids), len(book.asks)) == (len(model.bids), len(model.asks))
        assert book.bids.best() == (float(max(model.bids)) if model.bids else None)
        assert book.asks.best() == (float(min(model.asks)) if model.asks else None)
        assert not book.crossed


@given(asks_st, st.integers(0, 8))
def test_cutting_keeps_the_best_and_returns_the_others(levels: list[Level], depth: int) -> None:
    ladder = Ladder(1.0)
    ladder.apply(levels)
    whole = ladder.levels()
    assert ladder.cut(depth) == whole[depth:]
    assert ladder.levels() == whole[:depth]


def test_texts_stay_as_the_venue_wrote_them() -> None:
    book = Book()
    book.load([["0.00001000", "5.10"]], [["0.00002", "1"]])
    book.apply([["0.00001", "7.000"]], [])
    assert book.bids.levels() == [["0.00001", "7.000"]]
    book.apply([["0.000010", "0.00"]], [["9", "0"]])
    assert book.bids.levels() == []
    assert book.bids.best() is None


@pytest.mark.parametrize(
    ("bids", "asks", "crossed"),
    [
        ([["100", "1"]], [["101", "1"]], False),
        ([["101", "1"]], [["101", "1"]], True),
        ([["102", "1"]], [["101", "1"]], True),
        ([["102", "1"]], [], False),
        ([], [["101", "1"]], False),
        ([], [], False),
    ],
)
def test_crossed(bids: list[Level], asks: list[Level], crossed: bool) -> None:
    book = Book()
    book.load(bids, asks)
    assert book.crossed is crossed


# --- laws --------------------------------------------------------------------------------------------------

changes = st.lists(st.tuples(bids_st, asks_st), min_size=1, max_size=15)


@given(changes, st.data())
def test_snapshot_and_deltas_are_the_later_snapshot(
    history: list[tuple[list[Level], list[Level]]], data: st.DataObject
) -> None:
    """Wherever in the stream the snapshot stands, and whenever it comes, the book ends the same."""
    models = [Model()]
    for bids, asks in history:
        later = Model()
        later.bids, later.asks = dict(models[-1].bids), dict(models[-1].asks)
        later.apply(bids, asks)
        models.append(later)
    stands_at = data.draw(st.integers(0, len(history)), label="snapshot stands at")
    comes_at = data.draw(st.integers(stands_at, len(history)), label="snapshot comes behind")
    sync, reader = BookSync(REST), Model()
    for number, (bids, asks) in enumerate(history, 1):
        if number == comes_at + 1:
            reader.hear(events(sync.snapshot(snapshot(stands_at, *models[stands_at].sides))))
        reader.hear(events(sync.delta(delta(number, bids, asks))))
    if comes_at == len(history):
        reader.hear(events(sync.snapshot(snapshot(stands_at, *models[stands_at].sides))))
    assert sides(sync) == models[-1].sides
    assert reader.sides == models[-1].sides
    assert sync.sequence == len(history)


@given(bids_st, asks_st, changes, st.integers(1, 6))
def test_readers_hold_what_we_hold_when_levels_leave_the_depth(
    bids: list[Level], asks: list[Level], history: list[tuple[list[Level], list[Level]]], depth: int
) -> None:
    sync, reader = BookSync(attrs.evolve(REST, depth=depth)), Model()
    start = Model()
    start.apply(bids, asks)
    reader.hear(events(sync.snapshot(snapshot(0, *start.sides))))
    for number, (more_bids, more_asks) in enumerate(history, 1):
        reader.hear(events(sync.delta(delta(number, more_bids, more_asks))))
        assert reader.sides == sides(sync)
        assert all(len(side) <= depth for side in sides(sync))


def test_a_level_that_leaves_the_depth_is_removed_for_readers() -> None:
    sync = BookSync(attrs.evolve(REST, depth=2))
    sync.snapshot(snapshot(1, [["100", "1"], ["99.50", "1"]], [["101", "1"]]))
    (told,) = events(sync.delta(delta(2, [["99.9", "3"]])))
    assert isinstance(told, BookDelta)
    assert told.bids == [["99.9", "3"], ["99.50", "0"]]


@given(changes, st.lists(st.integers(0, 14), max_size=20))
def test_repeated_deltas_change_nothing(
    history: list[tuple[list[Level], list[Level]]], repeats: list[int]
) -> None:
    deltas = [delta(number, *change) for number, change in enumerate(history, 1)]
    once, again = BookSync(REST), BookSync(REST)
    once.snapshot(snapshot(0, [], []))
    again.snapshot(snapshot(0, [], []))
    for number, each in enumerate(deltas):
        assert events(again.delta(each)) == events(once.delta(each))
        for repeat in repeats:
            if repeat <= number:
                assert again.delta(deltas[repeat]) == []
    assert sides(once) == sides(again)


# --- joining by REST ---------------------------------------------------------------------------------------


def test_deltas_wait_for_the_snapshot_and_are_joined_to_it() -> None:
    sync = BookSync(REST)
    for number in (5, 6, 7, 8):
        assert sync.delta(delta(number, [[str(90 + number), "1"]])) == []
    (told,) = events(sync.snapshot(snapshot(6)))
    assert isinstance(told, BookSnapshot)
    assert told.bids == [("100", "1"), ["98", "1"], ["97", "1"]]
    assert told.sequence == 8
    assert told.received_ns == 2, "it is as new as the newest delta in it"
    assert sync.stale == 2


def test_a_snapshot_older_than_what_waits_is_too_old_and_the_next_one_joins() -> None:
    sync = BookSync(REST)
    for number in (10, 11, 12):
        sync.delta(delta(number, [[str(80 + number), "1"]]))
    assert sync.snapshot(snapshot(8)) == TooOld()
    assert sync.standing is Standing.WAITING
    assert sides(sync) == ([], [])
    assert sync.delta(delta(13)) == []
    (told,) = events(sync.snapshot(snapshot(9)))
    assert isinstance(told, BookSnapshot)
    assert told.sequence == 13


def test_a_snapshot_newer_than_all_that_waits_is_taken_and_the_next_delta_judged_by_it() -> None:
    sync = BookSync(REST)
    sync.delta(delta(5))
    (told,) = events(sync.snapshot(snapshot(20)))
    assert isinstance(told, BookSnapshot)
    assert told.sequence == 20
    assert sync.delta(delta(20)) == []
    assert sync.delta(delta(25, first=19)) == [delta(25, first=19)]


def test_a_snapshot_without_overlap_with_the_first_delta_to_come_is_too_old() -> None:
    sync = BookSync(REST)
    sync.snapshot(snapshot(20))
    assert sync.delta(delta(23, [["100", "5"]], first=22)) == TooOld()
    assert sync.standing is Standing.WAITING
    (told,) = events(sync.snapshot(snapshot(21)))
    assert isinstance(told, BookSnapshot)
    assert told.bids == [["100", "5"]]


def test_an_empty_book_is_a_book() -> None:
    sync = BookSync(REST)
    (told,) = events(sync.snapshot(snapshot(3, [], [])))
    assert isinstance(told, BookSnapshot)
    assert (told.bids, told.asks) == ([], [])
    assert sync.delta(delta(4, [["1", "1"]])) == [delta(4, [["1", "1"]])]
    assert sides(sync) == ([["1", "1"]], [])


def test_a_side_may_run_empty() -> None:
    sync = BookSync(REST)
    sync.snapshot(snapshot(1))
    assert isinstance(sync.delta(delta(2, [], [["101", "0"]])), list)
    assert isinstance(sync.delta(delta(3, [["500", "1"]])), list)
    assert sides(sync) == ([["500", "1"], ("100", "1")], [])


def test_a_missed_delta_leaves_nothing_to_read_and_the_stream_goes_on_into_the_next_snapshot() -> None:
    sync = BookSync(REST)
    sync.snapshot(snapshot(1))
    sync.delta(delta(2))
    result = sync.delta(delta(4, [["100", "4"]]))
    assert isinstance(result, Broken)
    assert "follows 2, got 4" in result.reason
    assert sync.standing is Standing.WAITING
    assert sides(sync) == ([], [])
    assert sync.delta(delta(5, [["100", "5"]])) == []
    (told,) = events(sync.snapshot(snapshot(3)))
    assert isinstance(told, BookSnapshot)
    assert told.bids == [["100", "5"]]
    assert told.sequence == 5


def test_a_hole_among_the_waiting_is_found() -> None:
    sync = BookSync(REST)
    for number in (5, 6, 8):
        sync.delta(delta(number))
    assert isinstance(sync.snapshot(snapshot(5)), Broken)
    assert sync.standing is Standing.WAITING


def test_a_late_rest_snapshot_does_not_set_a_live_book_back() -> None:
    sync = BookSync(REST)
    sync.snapshot(snapshot(10))
    sync.delta(delta(11, [["100", "11"]]))
    assert sync.snapshot(snapshot(10)) == []
    assert sync.snapshot(snapshot(11)) == []
    assert sides(sync)[0] == [["100", "11"]]
    (told,) = events(sync.snapshot(snapshot(15)))
    assert isinstance(told, BookSnapshot)
    assert told.sequence == 15


def test_waiting_deltas_are_bounded() -> None:
    sync = BookSync(REST)
    for number in range(BookSync.MAX_BUFFERED + 1000):
        sync.delta(delta(number))
    assert sync.snapshot(snapshot(3)) == TooOld()
    last = BookSync.MAX_BUFFERED + 999
    (told,) = events(sync.snapshot(snapshot(last - 10)))
    assert isinstance(told, BookSnapshot)
    assert told.sequence == last


# --- snapshots in the stream -------------------------------------------------------------------------------


def test_deltas_before_the_streams_own_snapshot_are_dropped() -> None:
    sync = BookSync(STREAM)
    assert sync.delta(delta(1, [["1", "1"]])) == []
    (told,) = events(sync.snapshot(snapshot(7)))
    assert isinstance(told, BookSnapshot)
    assert told.bids == [("100", "1")]
    assert sync.delta(delta(8)) == [delta(8)]


@pytest.mark.parametrize("number", [1, 3, 50])
def test_a_snapshot_in_the_stream_replaces_the_book_whatever_its_number(number: int) -> None:
    """Bybit sends one with number 1 when its service restarted."""
    sync = BookSync(STREAM)
    sync.snapshot(snapshot(3))
    sync.delta(delta(4))
    (told,) = events(sync.snapshot(snapshot(number, [["7", "7"]], [])))
    assert isinstance(told, BookSnapshot)
    assert (told.bids, told.asks, told.sequence) == ([["7", "7"]], [], number)
    assert sync.delta(delta(number + 1)) == [delta(number + 1)]


def test_a_missed_delta_of_a_stream_with_snapshots_waits_for_the_next_one() -> None:
    sync = BookSync(STREAM)
    sync.snapshot(snapshot(1))
    assert isinstance(sync.delta(delta(3)), Broken)
    assert sync.delta(delta(4)) == []
    assert sides(sync) == ([], [])
    assert isinstance(sync.snapshot(snapshot(9)), list)
    assert sync.delta(delta(10)) == [delta(10)]


# --- what proves a book wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [REST, STREAM])
def test_a_crossed_book_is_broken(rule: BookRule) -> None:
    sync = BookSync(rule)
    sync.snapshot(snapshot(1))
    result = sync.delta(delta(2, [["101", "1"]]))
    assert isinstance(result, Broken)
    assert "best bid" in result.reason
    assert sides(sync) == ([], [])
    assert isinstance(sync.snapshot(snapshot(5, [["2", "1"]], [["1", "1"]])), Broken)


def total(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """A checksum over the texts, order and zeros and all."""
    return hash(tuple(tuple(level) for level in bids)) ^ hash((1, *(tuple(level) for level in asks)))


def test_checksums_are_computed_over_the_texts_best_first() -> None:
    sync = BookSync(BookRule(source=Source.STREAM, follows=unnumbered, checksum=total, checksum_depth=2))
    bids, asks = [["98.0", "1.00"], ["99.0", "2.50"]], [["101.0", "1.0"], ["100.0", "1.0"]]
    good = total([["99.0", "2.50"], ["98.0", "1.00"]], [["100.0", "1.0"], ["101.0", "1.0"]])
    assert isinstance(sync.snapshot(snapshot(None, bids, asks, checksum=good)), list)
    better = total([["99.5", "3.000"], ["99.0", "2.50"]], [["100.0", "1.0"], ["101.0", "1.0"]])
    assert isinstance(sync.delta(delta(None, [["99.5", "3.000"]], checksum=better)), list)
    assert isinstance(sync.delta(delta(None, [["97", "1"]])), list), "no checksum proves nothing"
    result = sync.delta(delta(None, [["99.5", "4"]], checksum=better))
    assert isinstance(result, Broken)
    assert str(better) in result.reason
    assert sync.standing is Standing.WAITING


def test_a_snapshot_with_a_wrong_checksum_is_not_shown() -> None:
    sync = BookSync(BookRule(source=Source.STREAM, checksum=total))
    assert isinstance(sync.snapshot(snapshot(1, checksum=12345)), Broken)
    assert sides(sync) == ([], [])


# --- the venues' rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "last", "message", "verdict"),
    [
        (contiguous, 10, delta(11), Verdict.APPLY),
        (contiguous, 10, delta(12), Verdict.GAP),
        (contiguous, 10, delta(10), Verdict.STALE),
        (contiguous, 10, delta(15, first=11), Verdict.APPLY),
        (contiguous, 10, delta(15, first=8), Verdict.APPLY),
        (contiguous, 10, delta(15, first=12), Verdict.GAP),
        (contiguous, 10, delta(9, first=8), Verdict.STALE),
        (linked, 10, delta(15, previous=10), Verdict.APPLY),
        (linked, 10, delta(15, previous=9), Verdict.GAP),
        (linked, 10, delta(15, previous=11), Verdict.GAP),
        (linked, 10, delta(10, previous=9), Verdict.STALE),
        (linked, 10, delta(9, previous=8), Verdict.STALE),
        # OKX repeats its number when nothing changed, and may restart with a smaller one that links.
        (linked, 10, delta(10, previous=10), Verdict.APPLY),
        (linked, 10, delta(3, previous=10), Verdict.APPLY),
        (increasing, 10, delta(11), Verdict.APPLY),
        (increasing, 10, delta(99), Verdict.APPLY),
        (increasing, 10, delta(10), Verdict.STALE),
        (unnumbered, 10, delta(), Verdict.APPLY),
        (unnumbered, 10, delta(1), Verdict.APPLY),
    ],
)
def test_rules(rule: Link, last: int, message: BookDelta, verdict: Verdict) -> None:
    assert rule(last, message) is verdict


def test_the_first_delta_is_joined_by_another_rule_than_the_later_ones() -> None:
    """Binance futures: the first must span the snapshot, the later ones must name the one before."""
    sync = BookSync(BookRule(source=Source.REST, joins=contiguous, follows=linked))
    sync.snapshot(snapshot(10))
    assert isinstance(sync.delta(delta(15, first=8, previous=7)), list)
    assert isinstance(sync.delta(delta(20, first=18, previous=15)), list)
    assert isinstance(sync.delta(delta(25, first=21, previous=19)), Broken)


def test_a_repeated_number_of_the_linked_rule_is_applied_once() -> None:
    sync = BookSync(BookRule(source=Source.STREAM, joins=linked, follows=linked))
    sync.snapshot(snapshot(10))
    assert isinstance(sync.delta(delta(11, [["100", "2"]], previous=10)), list)
    assert sync.delta(delta(11, [["100", "2"]], previous=10)) == []
    assert sync.stale == 1


def test_an_unnumbered_book_takes_everything() -> None:
    sync = BookSync(BookRule(source=Source.STREAM, joins=unnumbered, follows=unnumbered))
    sync.snapshot(snapshot())
    assert isinstance(sync.delta(delta(None, [["99", "1"]])), list)
    assert isinstance(sync.delta(delta(None, [["99", "0"]])), list)
    assert sides(sync)[0] == [("100", "1")]
    assert sync.current(snapshot()).sequence is None


def test_a_reset_forgets_everything() -> None:
    sync = BookSync(REST)
    sync.snapshot(snapshot(5))
    sync.reset()
    assert sync.standing is Standing.WAITING
    assert sides(sync) == ([], [])
    assert sync.delta(delta(6)) == []
    assert sync.snapshot(snapshot(3)) == TooOld()
