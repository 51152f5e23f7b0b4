"""What has tripped others on Pyth, one test each; the numbers are those of the protocol's description."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted, Failed, LoginRefused, Refused
from pricefeedd.errors import SubscriptionRejectedError
from pricefeedd.events import PUBLIC_CHANNELS, Price
from pricefeedd.gate import Gate
from pricefeedd.lines import Context
from pricefeedd.rest import HttpReply
from pricefeedd.stats import Stats
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import rig
from pricefeedd_pyth.listing import read_instruments
from pricefeedd_pyth.testing import PythFake
from pricefeedd_pyth.venue import PythSettings, pyth

VENUE = pyth()
FEED = VENUE.feed("oracle")
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
ETH = "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"
RECEIVED_NS = 1_790_373_640_000_000_000


def row(feed_id: str = BTC, **price: Any) -> dict[str, Any]:
    number = {"price": "6163260000000", "conf": "3268548079", "expo": -8, "publish_time": 1714748300} | price
    return {"id": feed_id, "price": number, "metadata": {"slot": 138886134}}


def say(*rows: dict[str, Any], names: dict[str, str] | None = None) -> list[Any]:
    frame = b"data:" + orjson.dumps({"binary": {"encoding": "base64", "data": [""]}, "parsed": rows})
    known = {BTC: "BTC-USD", ETH: "ETH-USD"} if names is None else names
    return list(VENUE.codec.decode(frame, feed=FEED, names=known, received_ns=RECEIVED_NS))


def raw(frame: bytes) -> list[Any]:
    return list(VENUE.codec.decode(frame, feed=FEED, names={}, received_ns=RECEIVED_NS))


def reply(status: int, body: str) -> HttpReply:
    return HttpReply(status=status, body=body.encode(), received_ns=RECEIVED_NS)


def test_gotcha_01_without_a_key_it_is_said_what_to_do() -> None:
    (said,) = VENUE.codec.refused(FEED, reply(401, "unauthorized"))
    assert isinstance(said, LoginRefused)
    assert "since 2026-08-26" in said.reason
    assert "api_key" in said.reason


def test_gotcha_02_prices_of_one_second_are_told_apart_by_their_slot() -> None:
    stats = Stats(started_ns=0)
    rules = VENUE.rules["oracle"]
    context = Context(venue="pyth", rules=rules, stats=stats.market("pyth", "oracle"), wants=[])
    gate = Gate(context)
    gate.expect("price", "BTC-USD")
    out: list[Any] = []
    for slot, mantissa in ((10, "1"), (11, "2"), (11, "2"), (10, "1"), (12, "2")):
        one = row(price=mantissa)
        one["metadata"] = {"slot": slot}
        gate.admit([event for event in say(one) if isinstance(event, Price)], out)
    assert [price.slot for price in out] == [10, 11, 12]


def test_gotcha_03_an_old_price_says_how_old_it_is() -> None:
    _, price = say(row())
    assert price.publish_time_ns == price.venue_time_ns == 1_714_748_300_000_000_000
    assert price.received_ns == RECEIVED_NS


def test_gotcha_04_the_exponent_is_that_of_the_item() -> None:
    prices = say(row(expo=-8, price="5"), row(ETH, expo=2, price="5"))[1:]
    assert [price.price for price in prices] == ["0.00000005", "500"]
    _, odd = say(row(expo=0, conf="0"))
    assert (odd.price, odd.conf) == ("6163260000000", "0")


def test_gotcha_05_error_events_hold_text() -> None:
    assert raw(b"event:error\ndata:Slow consumer: disconnected") == [Failed("Slow consumer: disconnected")]
    assert raw(b"event:error\ndata:Error receiving update: x") == []


async def test_gotcha_06_comments_and_data_without_a_space(autojump_clock: MockClock) -> None:
    fake = PythFake(Market(PythFake.default_listings()[:1]))
    wanted = {"oracle": {"BTC-USD": ["price"]}}
    async with rig(VENUE, fake, wanted, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.events("price:BTC-USD", Price))
        count = len(made.events("price:BTC-USD", Price))
        await trio.sleep(18)  # a comment, and no event
        assert len(made.events("price:BTC-USD", Price)) == count
        assert (made.market("oracle").reconnects, made.market("oracle").decode_errors) == (0, 0)


async def test_gotcha_07_what_the_first_event_does_not_show_is_refused(autojump_clock: MockClock) -> None:
    fake = PythFake(Market(PythFake.default_listings()[:2]))
    fake.vanished.add(fake.id_of("ETH-USD"))
    wanted = {"oracle": {"BTC-USD": ["price"], "ETH-USD": ["price"]}}
    async with trio.open_nursery() as nursery, rig(VENUE, fake, wanted, endpoints=fake.endpoints()) as made:
        nursery.start_soon(fake.play, 5.0)
        await made.until(lambda: made.live("price:BTC-USD"))
        await made.until(lambda: made.state("price:ETH-USD").value == "down", within_s=30)
        assert made.market("oracle").reconnects == 0
        nursery.cancel_scope.cancel()


def test_gotcha_07_a_server_that_does_not_leave_ids_out_names_them() -> None:
    (said,) = VENUE.codec.refused(FEED, reply(404, f"Price ids not found: {ETH}"))
    assert isinstance(said, Refused)
    assert said.streams == (ETH,)


def test_gotcha_08_ids_have_one_form_here() -> None:
    (found,) = read_instruments([{"id": f"0x{BTC.upper()}", "attributes": {"symbol": "Crypto.BTC/USD"}}])
    assert found.symbol == BTC
    shown, _ = say(row(f"0X{BTC.upper()}"))
    assert shown == Accepted(streams=(BTC,), complete=True)


def test_gotcha_09_feeds_are_listed_whole_and_dead_ones_as_such() -> None:
    request = VENUE.rest.instruments("oracle").request
    assert "query" not in request.params, "it matches parts of names"
    rows = [
        {"id": "1" * 64, "attributes": {"symbol": "Crypto.BTC/USD.OLD", "base": "BTC", "quote_currency": "USD", "description": "DEPRECATED FEED - BTC"}},
        {"id": BTC, "attributes": {"symbol": "Crypto.BTC/USD", "base": "BTC", "quote_currency": "USD"}},
    ]  # fmt: skip
    names = {one.symbol: (one.name, one.tradable) for one in read_instruments(rows)}
    assert names == {BTC: ("BTC-USD", True), "1" * 64: ("Crypto.BTC-USD.OLD", False)}


def test_gotcha_10_connections_count_as_requests() -> None:
    budget = next(budget for budget in VENUE.budgets if budget.name == FEED.connect_budget)
    assert (budget.capacity, budget.per_s) == (10, 10)
    assert VENUE.rest.instruments("oracle").request.budget == budget.name


def test_gotcha_11_errors_are_plain_text() -> None:
    with pytest.raises(SubscriptionRejectedError, match="Price ids not found"):
        VENUE.rest.examine(reply(404, f"Price ids not found: {ETH}"))


def test_gotcha_12_prices_are_matched_by_id() -> None:
    _, first, second = say(row(ETH, price="1"), row(BTC, price="2"))
    assert [(p.instrument, p.price) for p in (first, second)] == [
        ("ETH-USD", "0.00000001"),
        ("BTC-USD", "0.00000002"),
    ]


def test_gotcha_13_a_price_is_neither_trade_nor_quote() -> None:
    assert VENUE.channels["oracle"] == {"price", "candle_1m"}
    assert {
        channel
        for channel in PUBLIC_CHANNELS
        if VENUE.codec.streams(
            channel, read_instruments([{"id": BTC, "attributes": {"symbol": "Crypto.BTC/USD"}}])[0]
        )
    } == {"price"}


def test_gotcha_14_silence_is_longer_than_the_pause_between_comments() -> None:
    assert FEED.silence_s == 20.0


async def test_gotcha_01_in_the_daemon_too(autojump_clock: MockClock) -> None:
    fake = PythFake(Market(PythFake.default_listings()[:1]), api_key="right")
    wanted = {"oracle": {"BTC-USD": ["price"]}}
    settings = PythSettings(api_key="right")
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, wanted, endpoints=fake.endpoints(), settings=settings) as made,
    ):
        nursery.start_soon(fake.play, 5.0)
        await made.until(lambda: made.live("price:BTC-USD"))
        nursery.cancel_scope.cancel()
