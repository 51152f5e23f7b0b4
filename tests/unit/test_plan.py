"""Which connection carries what: beginning, sharing, ending, and room that comes back."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from pricefeedd.codec import Stream
from pricefeedd.plan import FullError, Plan
from pricefeedd.venue import Feed, Venue
from pricefeedd_binance.venue import binance


def stream(name: str, feed: str = "one") -> Stream:
    return Stream(feed=feed, name=name)


def plan(
    *,
    streams: int = 100,
    instruments: int = 50,
    connections: int | None = None,
    feeds: Sequence[str] = ("one",),
) -> Plan:
    made = tuple(
        Feed(name=name, market="spot", endpoint="ws", streams_per_connection=streams) for name in feeds
    )
    venue: Venue = attrs.evolve(binance(), feeds=made, max_connections=connections)
    return Plan(venue, per_connection=instruments)


def carried(made: Plan) -> list[list[str]]:
    return [list(connection.streams) for connection in made.connections]


def test_instruments_are_spread_and_room_is_used_again() -> None:
    made = plan(instruments=2)
    for name in "abcde":
        made.add(("trade", name), [stream(name)], name)
    assert carried(made) == [["a", "b"], ["c", "d"], ["e"]]
    assert made.remove(("trade", "a")) == [(made.connections[0], stream("a"))]
    made.add(("book", "c"), [stream("c2")], "c")
    made.add(("trade", "f"), [stream("f")], "f")
    made.add(("trade", "g"), [stream("g")], "g")
    assert carried(made) == [["b", "g"], ["c", "d", "c2"], ["e", "f"]]
    assert len(made) == sum(map(len, carried(made)))


def test_a_shared_stream_ends_with_the_last_topic_that_needs_it() -> None:
    made = plan()
    made.add(("quote", "a"), [stream("ticker.a")], "a")
    made.add(("ticker", "a"), [stream("ticker.a"), stream("mark.a")], "a")
    assert made.topics([stream("ticker.a")]) in (
        [("quote", "a"), ("ticker", "a")],
        [("ticker", "a"), ("quote", "a")],
    )
    (connection,) = made.connections
    assert made.remove(("ticker", "a")) == [(connection, stream("mark.a"))]
    assert connection.all_topics() == {("quote", "a")}
    assert made.remove(("quote", "a")) == [(connection, stream("ticker.a"))]
    assert (made.connections, len(made), made.of(("quote", "a")), made.remove(("quote", "a"))) == (
        [],
        0,
        [],
        [],
    )


def test_what_is_noted_of_a_stream_goes_with_it() -> None:
    made = plan()
    made.add(("trade", "a"), [stream("a")], "a")
    made.add(("trade", "b"), [stream("b")], "b")
    (connection,) = made.connections
    connection.refused["a"] = 3600.0
    connection.suspects["a"] = 1
    made.remove(("trade", "a"))
    assert (connection.refused, connection.suspects, connection.topics) == ({}, {}, {"b": {("trade", "b")}})


def test_a_full_venue_takes_more_when_something_goes() -> None:
    made = plan(streams=2, connections=2)
    for name in "abcd":
        made.add(("trade", name), [stream(name)], name)
    with pytest.raises(FullError, match="limit of 2 connections"):
        made.add(("trade", "e"), [stream("e")], "e")
    assert (carried(made), made.of(("trade", "e"))) == ([["a", "b"], ["c", "d"]], [])
    made.remove(("trade", "c"))
    with pytest.raises(FullError):  # one of the two fits: nothing is begun of a topic that cannot be whole
        made.add(("ticker", "e"), [stream("e"), stream("e2")], "e")
    assert (carried(made), len(made)) == ([["a", "b"], ["d"]], 3)
    made.add(("trade", "e"), [stream("e")], "e")
    assert carried(made) == [["a", "b"], ["d", "e"]]


def test_connections_keep_their_numbers() -> None:
    made = plan(streams=1, feeds=("one", "two"))
    for name in "abc":
        made.add(("trade", name), [stream(name)], name)
    made.add(("book", "a"), [stream("a", "two")], "a")
    assert [(c.feed.name, c.index) for c in made.connections] == [
        ("one", 0),
        ("one", 1),
        ("one", 2),
        ("two", 0),
    ]
    made.remove(("trade", "b"))
    made.add(("trade", "d"), [stream("d")], "d")
    assert sorted(c.index for c in made.connections if c.feed.name == "one") == [0, 1, 2]
