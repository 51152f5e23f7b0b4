"""Requests in pieces."""

from __future__ import annotations

import orjson
import pytest

from pricefeedd.client.asking import pieces, resumption

LIMIT = 1_000


def size(op: str, fields: object) -> int:
    assert isinstance(fields, dict)
    return len(orjson.dumps({"op": op, "id": 1234567890, **fields}))


def topics(count: int) -> list[str]:
    return [f"trade:v:COIN{number}-USDT" for number in range(count)]


def test_topics_are_cut_into_messages_that_fit() -> None:
    found = list(pieces(topics(200), {"depth": 10}, limit_bytes=LIMIT))
    assert [topic for piece in found for topic in piece] == topics(200)
    assert all(size("subscribe", {"topics": piece, "depth": 10}) <= LIMIT for piece in found)
    assert len(found) < 10


def test_no_topics_are_one_empty_piece() -> None:
    # The daemon has words for that.
    assert list(pieces([], {}, limit_bytes=LIMIT)) == [[]]


def test_everything_goes_on_from_where_it_stood() -> None:
    wanted = {topic: {} for topic in topics(100)}
    found = list(resumption(wanted, {topic: {topic: ("e1", 7)} for topic in wanted}, limit_bytes=LIMIT))
    assert [topic for request in found for topic in request.fields["topics"]] == topics(100)
    for request in found:
        assert size(request.op, request.fields) <= LIMIT
        assert request.fields["since"] == {
            "epoch": "e1",
            "seq": dict.fromkeys(request.fields["topics"], 7),
        }


def test_options_are_kept_apart() -> None:
    wanted = {"trade:v:A": {"every_ms": 100}, "trade:v:B": {}, "trade:v:C": {"every_ms": 100}}
    found = list(resumption(wanted, {}, limit_bytes=LIMIT))
    assert [request.fields for request in found] == [
        {"topics": ["trade:v:A", "trade:v:C"], "every_ms": 100},
        {"topics": ["trade:v:B"]},
    ]


def test_a_pattern_tells_all_its_topics_if_they_fit() -> None:
    positions = {"trade:*:*": dict.fromkeys(topics(10), ("e1", 5))}
    (request,) = resumption({"trade:*:*": {}}, positions, limit_bytes=LIMIT)
    assert request.fields["topics"] == ["trade:*:*"]
    assert set(request.fields["since"]["seq"]) == set(topics(10))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_pattern_with_too_many_topics_follows_them(epochs: int) -> None:
    at = {topic: (f"e{number % epochs}", number) for number, topic in enumerate(topics(100))}
    wanted = {"trade:*:*": {}, topics(100)[3]: {}}
    positions = {"trade:*:*": at, topics(100)[3]: {topics(100)[3]: at[topics(100)[3]]}}
    found = list(resumption(wanted, positions, limit_bytes=LIMIT))
    assert all(size(request.op, request.fields) <= LIMIT for request in found)
    subscribed = [request for request in found if request.op == "subscribe"]
    told = {
        topic: (request.fields["since"]["epoch"], seq)
        for request in subscribed
        for topic, seq in request.fields.get("since", {}).get("seq", {}).items()
    }
    assert told == at
    pattern = next(n for n, request in enumerate(found) if request.fields["topics"] == ["trade:*:*"])
    assert not found[pattern].inner
    assert all(request.op == "unsubscribe" for request in found[pattern + 1 :])
    let_go = [topic for request in found[pattern + 1 :] for topic in request.fields["topics"]]
    # What was subscribed by its own name stays so.
    assert sorted(let_go) == sorted(set(topics(100)) - {topics(100)[3]})


def test_few_topics_of_two_epochs_are_told_apart() -> None:
    positions = {"trade:*:*": {"trade:v:A": ("e1", 5), "trade:v:B": ("e2", 6)}}
    found = list(resumption({"trade:*:*": {}}, positions, limit_bytes=LIMIT))
    assert [(request.op, request.fields["topics"], request.inner) for request in found] == [
        ("subscribe", ["trade:v:A"], True),
        ("subscribe", ["trade:v:B"], True),
        ("subscribe", ["trade:*:*"], False),
        ("unsubscribe", ["trade:v:A", "trade:v:B"], True),
    ]


def test_a_later_subscription_has_its_way_again() -> None:
    wanted: dict[str, dict[str, int]] = {"book:v:A": {}, "book:*:*": {"depth": 5}, "book:v:B": {}}
    found = list(resumption(wanted, {}, limit_bytes=LIMIT))
    assert [request.fields["topics"] for request in found] == [["book:v:A"], ["book:*:*"], ["book:v:B"]]
