"""What has tripped others on BingX, one test each."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted, Refused, Reply
from pricefeedd.errors import DecodeError, SubscriptionRejectedError
from pricefeedd.events import BookDelta, Side, State
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply
from pricefeedd.rules import Verdict
from pricefeedd.testing.market import Market, many_listings
from pricefeedd.testing.rig import rig
from pricefeedd_bingx.testing import BingxFake
from pricefeedd_bingx.venue import bingx

VENUE = bingx()
RECEIVED_NS = 1_790_373_640_000_000_000
T_MS = 1_790_373_600_000
NAMES = {"BTC-USDT": "BTC"}


def decode(frame: bytes, market: str = "linear") -> list[Any]:
    feed = VENUE.feed(market)
    return list(VENUE.codec.decode(frame, feed=feed, names=NAMES, received_ns=RECEIVED_NS))


def say(message: Any, market: str = "linear") -> list[Any]:
    return decode(gzip.compress(message if isinstance(message, bytes) else orjson.dumps(message)), market)


def data(kind: str, content: Any, market: str = "linear", **more: Any) -> list[Any]:
    return say({"code": 0, "dataType": f"BTC-USDT@{kind}", **more, "data": content}, market)


def listed(market: str, **row: Any) -> Instrument:
    rows: Any = [{"symbol": "BTC-USDT", "asset": "BTC", "currency": "USDT", "status": 1} | row]
    body = orjson.dumps({"code": 0, "data": {"symbols": rows} if market == "spot" else rows})
    (found,) = VENUE.rest.instruments(market).parse(HttpReply(status=200, body=body, received_ns=1)).items
    return found


def test_gotcha_01_all_frames_are_gzip_and_pings_too() -> None:
    assert decode(gzip.compress(b"Ping")) == [Reply("Pong")]
    ack = b'{"id":"3","code":0,"msg":"","dataType":"","data":null}'
    assert decode(gzip.compress(ack)) == [Accepted(request_id=3)]


def test_gotcha_02_unpacking_is_bounded() -> None:
    packer = zlib.compressobj(1, wbits=31)
    bomb = packer.compress(bytes(1 << 26)) + packer.flush()
    assert len(bomb) < 1 << 20, "it comes through the limit of a message"
    with pytest.raises(DecodeError, match="holds more than"):
        decode(bomb)


@pytest.mark.parametrize("market", ["linear", "spot"])
def test_gotcha_03_both_pings_are_answered_in_kind_on_each_host(market: str) -> None:
    assert say(b"Ping", market) == [Reply("Pong")]
    (reply,) = say({"ping": "21", "time": "2022-06-07T16:27:36.323+0800"}, market)
    assert orjson.loads(reply.frame) == {"pong": "21", "time": "2022-06-07T16:27:36.323+0800"}


async def test_gotcha_04_a_cut_without_a_close_frame_is_survived(autojump_clock: MockClock) -> None:
    fake = BingxFake(history_minutes=5)
    subscribe = {"linear": {"BTC-USDT-PERP": ["trade"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        topic = "trade:BTC-USDT-PERP"
        await made.until(lambda: made.live(topic))
        fake.faults.cut()
        await made.until(lambda: made.state(topic) is State.CONNECTING)
        assert "without a close frame" in made.market("linear").last_error
        await made.until(lambda: made.live(topic))


def test_gotcha_05_equal_rows_of_swaps_are_real() -> None:
    row = {"q": "0.01", "p": "2983.92", "T": T_MS, "m": True, "s": "BTC-USDT"}
    trades = data("trade", [row, row, row])
    assert len(trades) == 3
    assert [t.id for t in trades] == [None] * 3


def test_gotcha_05_spot_trades_are_objects_with_text_ids() -> None:
    row = {"E": T_MS, "T": T_MS, "m": True, "p": "1", "q": "2", "s": "BTC-USDT", "t": "172356086"}
    (trade,) = data("trade", row, "spot")
    assert trade.id == "172356086"


def test_gotcha_06_t_is_the_open_on_swaps_and_the_close_on_spot() -> None:
    prices = {"c": "1", "o": "1", "h": "1", "l": "1", "v": "1"}
    (swap,) = data("kline_1m", [{**prices, "T": T_MS}])
    row = {**prices, "t": T_MS, "T": T_MS + 59_999, "q": "1", "n": 1}
    (spot,) = data("kline_1min", {"E": T_MS, "K": row}, "spot")
    assert swap.start_ns == spot.start_ns == T_MS * 1_000_000
    with pytest.raises(DecodeError, match="start of a minute"):
        data("kline_1m", [{**prices, "T": T_MS + 59_999}])


def test_gotcha_07_capitals_are_sizes_in_book_ticker() -> None:
    (quote,) = data("bookTicker", {"E": T_MS, "a": "12", "A": "3", "b": "11", "B": "4"}, "spot")
    assert (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size) == ("11", "4", "12", "3")


def test_gotcha_08_asks_come_worst_first() -> None:
    (quote,) = data(
        "depth5@500ms", {"bids": [["9", "1"], ["8", "2"]], "asks": [["12", "3"], ["10", "4"]]}, ts=T_MS
    )
    assert (quote.bid_price, quote.ask_price, quote.ask_size) == ("9", "10", "4")


def test_gotcha_09_numbers_that_skip_are_no_gap() -> None:
    rule = VENUE.rules["linear"].book
    assert rule is not None
    update = {"action": "update", "lastUpdateId": 109, "time": T_MS, "bids": [], "asks": []}
    (delta,) = data("incrDepth", update)
    assert isinstance(delta, BookDelta)
    assert rule.follows(100, delta) is Verdict.APPLY
    assert rule.joins(100, delta) is Verdict.APPLY


def test_gotcha_10_a_swap_quote_of_22_minutes_ago_is_not_one() -> None:
    row = {"u": 1, "E": T_MS, "b": "11", "B": "4", "a": "12", "A": "3"}
    assert data("bookTicker", {**row, "T": T_MS - 22 * 60_000}) == []
    assert len(data("bookTicker", {**row, "T": T_MS - 2_000})) == 1
    (stream,) = VENUE.codec.streams("quote", listed("linear"))
    assert "bookTicker" not in stream.name, "and it is not what quotes come from"


def test_gotcha_11_intervals_have_three_names() -> None:
    def topic(market: str) -> str:
        (stream,) = VENUE.codec.streams("candle_1m", listed(market))
        return stream.name.partition("@")[2]

    assert (topic("linear"), topic("spot")) == ("kline_1m", "kline_1min")
    for market in ("linear", "spot"):
        call = VENUE.rest.candles(listed(market), 0, 0)
        assert call is not None
        assert call.request.params["interval"] == "1m"


@pytest.mark.parametrize("code", [109425, 100400])
def test_gotcha_12_http_200_may_be_a_refusal(code: int) -> None:
    body = orjson.dumps({"code": code, "msg": "no", "data": {}})
    with pytest.raises(SubscriptionRejectedError):
        VENUE.rest.examine(HttpReply(status=200, body=body, received_ns=1))


def test_gotcha_13_errors_on_spot_have_no_id() -> None:
    (refused,) = say({"code": 100400, "msg": "code:100400:x is not supported", "timestamp": T_MS}, "spot")
    assert isinstance(refused, Refused)
    assert (refused.request_id, refused.streams) == (None, ())
    assert VENUE.feed("spot").requests_in_flight == 1


async def test_gotcha_13_a_refused_topic_that_leaks_a_frame_stays_refused(autojump_clock: MockClock) -> None:
    fake = BingxFake(history_minutes=5)
    fake.paused.add("ETH-USDT-PERP")
    subscribe = {"linear": {name: ["book"] for name in ("BTC-USDT-PERP", "ETH-USDT-PERP")}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live("book:BTC-USDT-PERP"))
        await trio.sleep(20)
        assert made.state("book:ETH-USDT-PERP") is State.DOWN


@pytest.mark.parametrize(("maker_bought", "aggressor"), [(True, Side.SELL), (False, Side.BUY)])
def test_gotcha_14_when_the_buyer_was_the_maker_the_taker_sold(maker_bought: bool, aggressor: Side) -> None:
    (trade,) = data("trade", [{"q": "1", "p": "1", "T": T_MS, "m": maker_bought}])
    assert trade.aggressor is aggressor


def test_gotcha_15_contracts_with_status_25_are_listed_and_not_tradable() -> None:
    found = listed("linear", status=25)
    assert (found.tradable, found.status) == (False, "25")


def test_gotcha_16_the_time_of_a_ping_is_copied_and_not_read() -> None:
    (reply,) = say({"ping": "a", "time": "half past nine"}, "spot")
    assert orjson.loads(reply.frame) == {"pong": "a", "time": "half past nine"}
    (bare,) = say({"ping": "a"}, "spot")
    assert orjson.loads(bare.frame) == {"pong": "a"}


async def test_gotcha_17_three_topics_for_a_hundred_symbols_are_two_connections(
    autojump_clock: MockClock,
) -> None:
    fake = BingxFake(Market(many_listings(100, market="linear"), depth=5))
    chosen = {name: ["trade", "quote", "book"] for name in fake.market.listings}
    async with rig(
        VENUE, fake, {"linear": chosen}, endpoints=fake.endpoints(), instruments_per_connection=100
    ) as made:
        topics = [f"{channel}:{name}" for name, channels in chosen.items() for channel in channels]
        await made.until(lambda: made.live(*topics))
        assert sorted(len(socket.subscriptions) for socket in fake.sockets) == [100, 200]
        assert {socket.path for socket in fake.sockets} == {"/linear/swap-market"}
        # One topic per message, and fewer than 10 a second.
        assert fake.seen.subscribes == 300
        assert all(
            re.fullmatch(r"[^,\[]+", orjson.loads(m)["dataType"])
            for _, m in fake.seen.messages
            if m != "Pong"
        )
