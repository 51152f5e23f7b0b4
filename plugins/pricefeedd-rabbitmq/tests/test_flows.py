"""What is sent next, as broker and disk do what they like: nothing kept is lost, and nothing overtakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.hookspecs import SinkReport
from pricefeedd_rabbitmq.flows import KeptFlow, MarketFlow
from pricefeedd_rabbitmq.messages import Item


def kept(*numbers: int) -> list[Any]:
    return [SimpleNamespace(number=number, epoch="e") for number in numbers]


def numbers(items: list[Item]) -> list[int]:
    return [item.number for item in items]


def test_what_is_kept_is_done_up_to_the_first_that_is_not_confirmed() -> None:
    flow = KeptFlow(3, SinkReport())
    flow.take(kept(1, 2, 3))
    assert flow.room == 0
    first, second, third = flow.next(10)
    flow.settled(second, "delivered")
    assert flow.done() == 0
    flow.settled(first, "delivered")
    assert flow.done() == 2
    assert (flow.held, flow.room) == (1, 2)
    flow.settled(third, "delivered")
    assert (flow.done(), flow.done(), flow.held) == (3, 0, 0)


def test_what_is_refused_is_tried_alone_when_all_else_is_settled() -> None:
    flow = KeptFlow(10, SinkReport())
    flow.take(kept(1, 2, 3))
    items = flow.next(10)
    flow.settled(items[0], "unroutable")
    assert (flow.refusal, flow.stuck, flow.room) == ("unroutable", False, 0)
    flow.take(kept(4))  # it was on its way from the disk
    assert flow.next(10) == []
    flow.settled(items[1], "delivered")
    flow.settled(items[2], "unroutable")
    assert flow.stuck
    flow.again()
    (probe,) = flow.next(10)
    assert (probe.number, flow.next(10)) == (1, [])
    flow.settled(probe, "delivered")
    assert (flow.refusal, numbers(flow.next(10))) == ("", [3, 4])


@given(st.data())
def test_nothing_kept_is_lost_and_the_last_copies_are_in_order(data: st.DataObject) -> None:
    flow, last, arrived, done = KeptFlow(5, SinkReport()), 0, [], 0
    for _ in range(data.draw(st.integers(0, 60))):
        step = data.draw(st.sampled_from(["take", "send", "deliver", "refuse", "reconnect", "retry"]))
        if step == "take" and flow.room:
            flow.take(kept(last + 1))
            last += 1
        elif step == "send":
            sent = numbers(flow.next(data.draw(st.integers(1, 4))))
            assert sent == sorted(sent)
        elif step in ("deliver", "refuse") and flow.flying:
            item = next(iter(flow.flying))
            if step == "deliver":
                arrived.append(item.number)
            flow.settled(item, "delivered" if step == "deliver" else "nacked")
        elif step == "reconnect":
            flow.again()
            flow.refusal = ""
        elif step == "retry" and flow.stuck:
            flow.again()
        done = max(done, flow.done())
        assert set(range(1, done + 1)) <= set(arrived)
    flow.again()
    flow.refusal = ""
    while flow.held:
        for item in flow.next(3):
            arrived.append(item.number)
            flow.settled(item, "delivered")
    assert set(arrived) == set(range(1, last + 1))


def test_market_data_comes_again_after_a_reconnect_and_the_oldest_go_beyond_the_window() -> None:
    report = SinkReport()
    flow = MarketFlow(4, report)
    messages: list[Any] = [SimpleNamespace(topic=str(number)) for number in range(10)]
    flow.take(messages, "e")
    first = flow.next(100)
    assert (len(first), flow.next(100)) == (4, [])
    flow.settled(first[0], "delivered")
    flow.settled(first[1], "unroutable")
    flow.lost_connection()
    assert [item.message.topic for item in flow.next(100)] == ["6", "7", "8", "9"]
    assert report.dropped == {"unroutable": 1, "slow": 4}
    assert report.delivered == 1
    flow.give_up()
    assert report.dropped["shutdown"] == 4
