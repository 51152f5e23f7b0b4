"""What somebody is told who subscribes late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import orjson
import trio

from pricefeedd.events import (
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Event,
    Gap,
    Quote,
    State,
    Status,
    Trade,
)
from pricefeedd_zmq.interest import Interest
from pricefeedd_zmq.latest import Latest

COMMON: dict[str, Any] = {"venue": "binance", "instrument": "BTC-USDT", "received_ns": 5_000}
BOOK = "book:binance:BTC-USDT"


@attrs.frozen
class Said:
    topic: str
    seq: int
    event: Event

    @property
    def text(self) -> bytes:
        return orjson.dumps({"seq": self.seq})


def snapshot() -> BookSnapshot:
    return BookSnapshot(bids=[("10", "1"), ("9", "2")], asks=[("11", "3")], sequence=7, **COMMON)


def delta(bids: Any = (), asks: Any = ()) -> BookDelta:
    return BookDelta(bids=bids, asks=asks, sequence=8, venue_time_ns=4_000, **COMMON)


def status(state: State, channel: str = "book") -> Status:
    return Status(topic_channel=channel, state=state, **COMMON)


def told(topic: str, *events: Event) -> list[dict[str, Any]]:
    latest = Latest()
    for seq, event in enumerate(events, 1):
        latest.take(Said(topic, seq, event))
    return [orjson.loads(text) for text in latest.texts(topic, "e")]


def test_a_book_comes_whole_with_the_number_of_what_was_sent_last() -> None:
    (book,) = told(
        BOOK, snapshot(), delta(bids=[("9.0", "0.000"), ("10.5", "4")], asks=[("11", "0"), ("12", "1.0")])
    )

    assert book == {
        "type": "book",
        "topic": BOOK,
        "seq": 2,
        "ts_event": 4,
        "ts_recv": 5,
        "origin": "live",
        "data": {
            "kind": "snapshot",
            "bids": [["10.5", "4"], ["10", "1"]],
            "asks": [["12", "1.0"]],
            "venue_sequence": 8,
        },
        "epoch": "e",
    }


def test_a_book_that_is_lost_is_not_told_until_the_next_one() -> None:
    lost = (snapshot(), status(State.RESYNCING), delta(bids=[("1", "1")]))
    assert told(BOOK, *lost) == [{"seq": 2, "epoch": "e"}]

    whole = told(BOOK, *lost, snapshot(), status(State.LIVE))
    assert [(m["seq"], m.get("data", {}).get("kind")) for m in whole] == [(5, "snapshot")]


def test_deltas_without_a_book_say_nothing() -> None:
    assert told(BOOK, delta(bids=[("1", "1")])) == []


def test_data_status_and_what_came_last_in_the_order_of_their_numbers() -> None:
    trade = Trade(id="1", price="1", size="1", aggressor=None, **COMMON)
    gap = Gap(topic_channel="trade", from_ns=1, to_ns=2, reason="x", **COMMON)
    topic = "trade:binance:BTC-USDT"

    assert [m["seq"] for m in told(topic, trade, trade)] == [2]
    assert [m["seq"] for m in told(topic, trade, status(State.STALE, "trade"), gap)] == [1, 2, 3]
    assert [m["seq"] for m in told(topic, status(State.LIVE, "trade"), trade)] == [2]
    assert told("trade:other:X", trade) != []
    assert Latest().texts(topic, "e") == []


def test_what_concerns_an_account_is_not_repeated() -> None:
    order = AccountEvent(account="main", kind="order", key="k", fields={}, **COMMON)

    assert told("order:binance:main", order) == []


def test_interest_is_of_prefixes() -> None:
    interest = Interest()
    assert not interest.wants(b"trade:a:b")
    assert interest.take(b"\x01trade:")
    assert not interest.take(b"\x01trade:")
    assert interest.take(b"\x01quote:a:bc")
    assert interest.wants(b"trade:a:b")
    assert not interest.wants(b"quote:a:b")
    assert not interest.take(b"\x00nobody asked")
    assert not interest.take(b"")
    assert not interest.take(b"\x02trade:")
    assert interest.take(b"\x00trade:")
    assert not interest.wants(b"trade:a:b")
    assert len(interest) == 1
    assert interest.take(b"\x01")
    assert interest.wants(b"anything")


async def test_who_comes_late_is_told_how_things_stand(
    publish: Callable[..., Awaitable[Any]], subscriber: Callable[..., Any]
) -> None:
    sink = await publish()
    quote = Quote(bid_price="1", bid_size="1", ask_price="2", ask_size="1", **COMMON)
    sink.lanes.put(snapshot(), delta(bids=[("10", "5")]), quote, quote)
    await sink.until(unread=4)
    first = subscriber(sink.address, "book:")
    topic, book = await first.receive()
    assert (topic, book["seq"], book["data"]["bids"][0]) == (BOOK.encode(), 2, ["10", "5"])
    second = subscriber(sink.address, "quote:", "book:")
    got = [await second.receive(), await second.receive()]
    assert sorted((m["type"], m["seq"]) for _, m in got) == [("book", 2), ("quote", 2)]

    # Whoever was there before gets it once more, with a number that it has.
    assert (await first.receive())[1] == book
    sink.lanes.put(delta(bids=[("10", "6")]))
    assert (await first.receive())[1]["seq"] == 3


async def test_another_life_of_the_streams_forgets_the_last(
    publish: Callable[..., Awaitable[Any]], subscriber: Callable[..., Any]
) -> None:
    sink = await publish()
    sink.lanes.put(snapshot())
    await sink.until(unread=1)
    sink.lanes.epoch = "e2"
    sink.lanes.put(Quote(bid_price="1", bid_size="1", ask_price="2", ask_size="1", **COMMON))
    await sink.until(unread=2)
    reader = subscriber(sink.address, "")

    topic, message = await reader.receive()
    assert (topic, message["epoch"]) == (b"quote:binance:BTC-USDT", "e2")
    assert await reader.nothing()


async def test_the_present_state_can_be_repeated(
    publish: Callable[..., Awaitable[Any]], subscriber: Callable[..., Any], context: Any
) -> None:
    sink = await publish(mode="pub", snapshot_every_s=0.1)
    sink.lanes.put(snapshot())
    reader = subscriber(sink.address, "")
    with trio.fail_after(10):
        seqs = [(await reader.receive())[1]["seq"] for _ in range(3)]

    assert seqs == [1, 1, 1]
