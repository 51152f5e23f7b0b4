"""What a reader makes of numbers, notices and books."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from pricefeedd import wire
from pricefeedd.bus import Bus
from pricefeedd.client import Missed, Update
from pricefeedd.client.tracker import Tracker
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Quote, State, Status, Trade
from pricefeedd.topic import Pattern

TRADES = "trade:v:A"
QUOTES = "quote:v:A"
CANDLES = "candle_1m:v:A"
BOOK = "book:v:A"
TIMES = {"ts_event": None, "ts_recv": 1, "origin": "live"}


def trade(seq: int, **extra: Any) -> dict[str, Any]:
    data = {"id": str(seq), "price": "1", "size": "1", "side": None}
    return {"type": "trade", "topic": TRADES, "seq": seq, **TIMES, "data": data, **extra}


def quote(seq: int) -> dict[str, Any]:
    data = {"bid_price": "1", "bid_size": "1", "ask_price": "2", "ask_size": "1", "venue_sequence": None}
    return {"type": "quote", "topic": QUOTES, "seq": seq, **TIMES, "data": data}


def candle(seq: int, *, closed: bool) -> dict[str, Any]:
    data = {"start": 0, "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1"}
    data |= {"turnover": None, "trades": None, "closed": closed}
    return {"type": "candle_1m", "topic": CANDLES, "seq": seq, **TIMES, "data": data}


def status(topic: str, seq: int, state: str) -> dict[str, Any]:
    return {"type": "status", "topic": topic, "seq": seq, **TIMES, "data": {"state": state, "reason": ""}}


def book(seq: int, bids: Any = (), asks: Any = (), *, kind: str = "delta", **extra: Any) -> dict[str, Any]:
    data = {"kind": kind, "bids": bids, "asks": asks, "venue_sequence": None}
    return {"type": "book", "topic": BOOK, "seq": seq, **TIMES, "data": data, **extra}


def conflated(topic: str, seq: int, dropped: int) -> dict[str, Any]:
    return {"type": "conflated", "topic": topic, "seq": seq, "data": {"dropped": dropped}}


def gap(topic: str, first: int, last: int | None, seq: int, reason: str = "slow reader") -> dict[str, Any]:
    data = {"reason": reason, "from_seq": first, "to_seq": last, "recovered": 0, "missing": None}
    return {"type": "gap", "topic": topic, "seq": seq, "data": data}


def told(tracker: Tracker, *messages: dict[str, Any]) -> list[str]:
    """Return what comes out: the numbers, and losses as `!first-last`."""
    out = []
    for message in messages:
        for update in tracker.take(message):
            if isinstance(update, Missed):
                out.append(f"!{update.from_seq}-{update.to_seq}")
            elif message["type"] != "conflated":
                out.append(str(update.seq))
    return out


@pytest.fixture
def tracker() -> Tracker:
    return Tracker("e1")


# --- events -------------------------------------------------------------------------------------------------


def test_a_topic_begins_anywhere_and_repetitions_are_dropped(tracker: Tracker) -> None:
    assert told(tracker, trade(7), trade(8), trade(8), trade(7), trade(9)) == ["7", "8", "9"]


def test_a_jump_of_events_is_a_loss(tracker: Tracker) -> None:
    assert told(tracker, trade(7), trade(10), trade(11)) == ["7", "!8-9", "10", "11"]
    (missed, _) = tracker.take(trade(13))
    assert isinstance(missed, Missed)
    assert (missed.topic, missed.missing, missed.recovered) == (TRADES, 1, 0)


def test_a_jump_that_was_announced_is_told_once(tracker: Tracker) -> None:
    assert told(tracker, trade(7), gap(TRADES, 8, 11, 11), trade(12)) == ["7", "!8-11", "12"]


def test_a_gap_announces_no_more_than_it_says(tracker: Tracker) -> None:
    assert told(tracker, trade(7), gap(TRADES, 8, 9, 9), trade(12)) == ["7", "!8-9", "!10-11", "12"]


def test_how_a_topic_stands_is_told_with_jumps(tracker: Tracker) -> None:
    assert told(tracker, trade(3), status(TRADES, 9, "stale"), trade(10)) == ["3", "9", "10"]
    # What comes after that does not jump.
    assert told(tracker, status(TRADES, 14, "down")) == ["!11-13", "14"]


def test_a_message_that_says_what_it_follows_may_jump(tracker: Tracker) -> None:
    assert told(tracker, trade(7), trade(12, prev_seq=7), trade(20, prev_seq=12)) == ["7", "12", "20"]
    assert told(tracker, trade(30, prev_seq=25)) == ["!21-25", "30"]


def test_an_epoch_that_changed_begins_anew(tracker: Tracker) -> None:
    assert told(tracker, trade(70)) == ["70"]
    tracker.epoch = "e2"
    assert told(tracker, gap(TRADES, 71, None, 4, "the epoch changed"), trade(4), trade(5)) == [
        "!71-None",
        "4",
        "5",
    ]


def test_numbers_of_another_epoch_are_not_compared(tracker: Tracker) -> None:
    assert told(tracker, trade(70)) == ["70"]
    tracker.epoch = "e2"
    assert told(tracker, trade(1), trade(2)) == ["1", "2"]
    assert tracker.position(TRADES) == ("e2", 2)


# --- state --------------------------------------------------------------------------------------------------


def test_state_jumps_with_a_notice(tracker: Tracker) -> None:
    assert told(tracker, quote(1), conflated(QUOTES, 5, 3), quote(5), quote(6)) == ["1", "5", "6"]


def test_state_that_jumps_without_is_a_loss(tracker: Tracker) -> None:
    assert told(tracker, quote(1), quote(4)) == ["1", "!2-3", "4"]


def test_the_notice_may_come_after_a_status_in_between(tracker: Tracker) -> None:
    told(tracker, quote(1), quote(2), quote(3))
    # 4 was replaced by 6, and 5 is a status, which is never replaced.
    out = told(tracker, status(QUOTES, 5, "stale"), conflated(QUOTES, 6, 1), quote(6))
    assert out == ["5", "6"]


def test_a_doubt_ends_as_a_loss(tracker: Tracker) -> None:
    told(tracker, quote(1), quote(2), quote(3))
    assert told(tracker, status(QUOTES, 5, "stale"), quote(6)) == ["5", "!4-4", "6"]
    assert told(tracker, status(QUOTES, 9, "live")) == ["9"]
    (missed,) = tracker.heartbeat({QUOTES: 9})
    assert (missed.from_seq, missed.to_seq) == (7, 8)


def test_what_was_away_gets_closed_candles_and_the_newest_state(tracker: Tracker) -> None:
    told(tracker, candle(5, closed=False))
    tracker.disconnected()
    tracker.resume([CANDLES])
    assert told(
        tracker,
        candle(8, closed=True),
        candle(12, closed=True),
        conflated(CANDLES, 15, 6),
        candle(15, closed=False),
        candle(16, closed=False),
    ) == ["8", "12", "15", "16"]
    assert tracker.heartbeat({CANDLES: 16}) == []
    assert told(tracker, candle(18, closed=True)) == ["18"]
    assert told(tracker, candle(19, closed=False)) == ["!17-17", "19"]


# --- heartbeats ---------------------------------------------------------------------------------------------


def test_a_heartbeat_that_stays_ahead_is_a_loss(tracker: Tracker) -> None:
    told(tracker, trade(7))
    assert tracker.heartbeat({TRADES: 7}) == []
    assert tracker.heartbeat({TRADES: 9}) == []
    (missed,) = tracker.heartbeat({TRADES: 9})
    assert (missed.from_seq, missed.to_seq, missed.missing) == (8, 9, 2)
    assert told(tracker, trade(10)) == ["10"]


def test_a_heartbeat_may_be_ahead_of_what_is_on_its_way(tracker: Tracker) -> None:
    told(tracker, trade(7))
    assert tracker.heartbeat({TRADES: 9}) == []
    assert told(tracker, trade(8)) == ["8"]
    assert tracker.heartbeat({TRADES: 9}) == []
    assert told(tracker, trade(9)) == ["9"]
    assert tracker.heartbeat({TRADES: 9}) == []


def test_a_heartbeat_tells_where_a_quiet_topic_stands(tracker: Tracker) -> None:
    assert tracker.heartbeat({TRADES: 41}) == []
    assert told(tracker, trade(43)) == ["!42-42", "43"]


def test_what_is_held_back_as_asked_is_not_missed(tracker: Tracker) -> None:
    tracker.subscribed("trade:*:*", held=True)
    told(tracker, trade(7))
    for seq in (9, 11, 11, 11):
        assert tracker.heartbeat({TRADES: seq}) == []
    tracker.subscribed("trade:*:*", held=False)
    assert tracker.heartbeat({TRADES: 11}) == []
    assert len(tracker.heartbeat({TRADES: 11})) == 1


# --- subscriptions ------------------------------------------------------------------------------------------


def test_only_what_no_other_pattern_means_is_forgotten(tracker: Tracker) -> None:
    told(tracker, trade(7), quote(3))
    tracker.unsubscribed(["*:v:A"], ["trade:v:*"])
    assert tracker.meant("*:*:*") == [TRADES]
    tracker.unsubscribed(["trade:v:*"], [])
    assert tracker.meant("*:*:*") == []


# --- books --------------------------------------------------------------------------------------------------


def best(tracker: Tracker) -> tuple[float | None, float | None] | None:
    found = tracker.book(BOOK)
    return None if found is None else (found.bids.best(), found.asks.best())


def test_a_book_is_made_of_snapshot_and_deltas(tracker: Tracker) -> None:
    told(tracker, book(4, [["9", "1"], ["8", "1"]], [["10", "1"]], kind="snapshot"))
    assert best(tracker) == (9.0, 10.0)
    told(tracker, book(5, [["9", "0"]], [["9.5", "2"]]))
    assert best(tracker) == (8.0, 9.5)
    # The newest snapshot may come again under the same number.
    told(tracker, book(5, [["7", "1"]], [["11", "1"]], kind="snapshot"))
    assert best(tracker) == (7.0, 11.0)


@pytest.mark.parametrize("state", ["connecting", "resyncing", "down"])
def test_a_book_that_must_be_made_again_waits_for_its_snapshot(tracker: Tracker, state: str) -> None:
    told(tracker, book(1, [["9", "1"]], [], kind="snapshot"), status(BOOK, 2, state))
    assert best(tracker) is None
    told(tracker, book(3, [["8", "1"]], []), status(BOOK, 4, "live"))
    assert best(tracker) is None
    told(tracker, book(5, [["7", "1"]], [], kind="snapshot"))
    assert best(tracker) == (7.0, None)


def test_a_stale_book_is_believed_again_when_it_is_live(tracker: Tracker) -> None:
    told(tracker, book(1, [["9", "1"]], [], kind="snapshot"), status(BOOK, 2, "stale"))
    assert best(tracker) is None
    told(tracker, book(3, [["9.1", "1"]], []), status(BOOK, 4, "live"))
    assert best(tracker) == (9.1, None)


def test_a_book_that_lost_an_update_is_broken(tracker: Tracker) -> None:
    told(tracker, book(1, [["9", "1"]], [], kind="snapshot"), book(2), book(3))
    assert told(tracker, book(6, [["8", "1"]], [])) == ["!4-5", "6"]
    assert best(tracker) is None
    assert tracker.broken == {BOOK}
    assert told(tracker, book(6, [["8", "1"]], [], kind="snapshot")) == ["6"]
    assert best(tracker) == (8.0, None)
    assert not tracker.broken


def test_a_snapshot_makes_up_for_what_came_before(tracker: Tracker) -> None:
    told(tracker, book(1, [["9", "1"]], [], kind="snapshot"), book(2), book(3), book(4))
    assert told(tracker, status(BOOK, 7, "stale"), book(9, kind="snapshot")) == ["7", "9"]


def test_a_book_is_not_believed_after_a_disconnect(tracker: Tracker) -> None:
    told(tracker, book(1, [["9", "1"]], [], kind="snapshot"))
    tracker.disconnected()
    assert best(tracker) is None
    told(tracker, book(2, [["8", "1"]], []))
    assert best(tracker) is None


def test_a_thinned_out_book_goes_by_what_it_follows(tracker: Tracker) -> None:
    told(tracker, book(1, [["9", "1"]], [], kind="snapshot"))
    assert told(tracker, book(5, [["8", "1"]], [], prev_seq=1)) == ["5"]
    assert best(tracker) == (9.0, None)


def test_a_book_with_other_options_may_stand_at_an_earlier_number(tracker: Tracker) -> None:
    told(tracker, book(100, [["9", "1"], ["8", "1"]], [], kind="snapshot"))
    assert told(tracker, book(95, [["9", "1"]], [], kind="snapshot")) == []
    tracker.subscribed(BOOK, held=True)
    assert told(tracker, book(95, [["9", "1"]], [], kind="snapshot")) == ["95"]
    assert told(tracker, book(101, [["9", "0"], ["7", "1"]], [], prev_seq=95)) == ["101"]
    assert best(tracker) == (7.0, None)


def test_a_heartbeat_does_not_say_where_a_thinned_out_topic_stands(tracker: Tracker) -> None:
    tracker.subscribed(BOOK, held=True)
    assert tracker.heartbeat({BOOK: 100}) == []
    assert told(tracker, book(95, [["9", "1"]], [], kind="snapshot")) == ["95"]


def test_levels_that_are_no_numbers_are_no_book(tracker: Tracker) -> None:
    told(tracker, book(1, [["nine", "1"]], [], kind="snapshot"))
    assert best(tracker) is None


# --- against the real thing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_what_the_bus_sends_to_readers_that_lag_is_never_taken_for_a_loss(seed: int) -> None:
    """Everything that the daemon leaves out it announces, in an order that a reader can follow."""
    dice = random.Random(seed)
    bus = Bus("e1")
    limit = dice.choice([2_000, 20_000])
    mailbox = bus.mailbox(limit_bytes=limit, flush=lambda: None)
    common: dict[str, Any] = {"venue": "v", "instrument": "A", "received_ns": 1_000}
    levels: dict[str, str] = {}

    def something() -> Event:
        which = dice.randrange(6)
        if which == 0:
            channel = dice.choice(["trade", "quote", "candle_1m", "book"])
            state = dice.choice([State.STALE, State.LIVE])
            return Status(topic_channel=channel, state=state, reason="", **common)
        if which == 1:
            return Trade(id=None, price="1", size="1", aggressor=None, **common)
        if which == 2:
            return Quote(bid_price="1", bid_size="1", ask_price="2", ask_size="1", **common)
        if which in (3, 4):
            prices = dict.fromkeys(("open", "high", "low", "close", "volume"), "1")
            return Candle(start_ns=0, closed=dice.random() < 0.2, **prices, **common)
        price = str(dice.randrange(1, 9))
        levels[price] = str(dice.randrange(3))
        return BookDelta(bids=[[price, levels[price]]], asks=[], **common)

    def snapshot() -> BookSnapshot:
        bids = [[price, size] for price, size in levels.items() if size != "0"]
        return BookSnapshot(bids=bids, asks=[], **common)

    bus.publish([snapshot()])
    bus.topic("book", "v", "A").book = snapshot
    bus.subscribe(mailbox, Pattern("*:v:A"))
    tracker = Tracker("e1")
    seen: list[Update] = []

    def receive() -> None:
        for message in mailbox.take():
            seen.extend(tracker.take(orjson.loads(message.text_in(wire.NATIVE))))

    bus.publish([snapshot()])
    receive()
    for _ in range(60):
        for _ in range(dice.randrange(1, 30)):
            bus.publish([something()])
            if not mailbox.lagging and dice.random() < 0.1:
                mailbox.lag()
            elif not mailbox.lagging:
                receive()
        if mailbox.lagging:
            receive()
            mailbox.lagging = False
        assert tracker.heartbeat({topic.name: topic.seq for topic in bus}) == []
    losses = [update for update in seen if isinstance(update, Missed)]
    assert {loss.reason for loss in losses} <= {"slow reader"}
    book_now = tracker.book(BOOK)
    if book_now is not None:
        assert {level[0] for level in book_now.bids.levels()} == {p for p, s in levels.items() if s != "0"}
