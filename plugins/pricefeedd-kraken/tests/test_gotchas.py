"""What has tripped others on Kraken, one test each; the numbers are those of the protocol's description."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.book import BookSync
from pricefeedd.codec import Accepted, Closing, Refused
from pricefeedd.errors import SubscriptionRejectedError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Quote
from pricefeedd.instruments import Instrument
from pricefeedd.rest import HttpReply
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import rig
from pricefeedd_kraken.rules import checksum
from pricefeedd_kraken.testing import KrakenFake
from pricefeedd_kraken.venue import KrakenSettings, kraken

VENUE = kraken()
FEED = VENUE.feed("spot")
RECEIVED_NS = 1_790_373_640_000_000_000
MINUTE_S = 60


def listed(wsname: str = "XBT/USD", **row: Any) -> Instrument:
    """Return the instrument that a row of AssetPairs becomes."""
    more = {"altname": wsname.replace("/", ""), "wsname": wsname, "status": "online"}
    body = orjson.dumps({"error": [], "result": {"KEY": more | row}})
    call = VENUE.rest.instruments("spot")
    (found,) = call.parse(HttpReply(status=200, body=body, received_ns=RECEIVED_NS)).items
    return found


BTC = listed()
NAMES = {"BTC/USD": "BTC-USD"}


def say(frame: str | bytes) -> list[Any]:
    data = frame.encode() if isinstance(frame, str) else frame
    return list(VENUE.codec.decode(data, feed=FEED, names=NAMES, received_ns=RECEIVED_NS))


def level(price: str, qty: str) -> str:
    return f'{{"price":{price},"qty":{qty}}}'


def book_frame(kind: str, bids: list[tuple[str, str]], asks: list[tuple[str, str]], crc: int) -> str:
    sides = [",".join(level(*one) for one in side) for side in (bids, asks)]
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{sides[0]}],"asks":[{sides[1]}],'
        f'"checksum":{crc},"timestamp":"2026-08-18T20:43:35.824274Z"}}]}}'
    )


def test_gotcha_01_lost_zeros_break_checksums_so_texts_are_kept() -> None:
    bids, asks = [("0.0280", "0.10000000")], [("0.0290", "12.50000000")]
    crc = checksum(bids, asks)
    _, book = say(book_frame("snapshot", bids, asks, crc))
    assert isinstance(book, BookSnapshot)
    assert checksum(book.bids, book.asks) == book.checksum == crc
    floats = [[str(float(text)) for text in row] for row in bids]
    assert checksum(floats, asks) != crc


def test_gotcha_02_levels_that_left_the_depth_are_cut() -> None:
    """Kraken does not say that a level left, and says it again when it comes back."""
    rule = VENUE.configure(VENUE, KrakenSettings(book_depth=10)).rules["spot"].book
    assert rule is not None
    sync = BookSync(rule)
    bids = [(f"{100 - i}.0", "1.00000000") for i in range(10)]
    asks = [("200.0", "1.00000000")]
    sync.snapshot(say(book_frame("snapshot", bids, asks, checksum(bids, asks)))[1])
    better = [("101.0", "1.00000000"), *bids[:-1]]
    (delta,) = say(book_frame("update", [("101.0", "1.00000000")], [], checksum(better, asks)))
    (told,) = sync.delta(delta)  # type: ignore[misc]  # a list: the checksum holds
    assert isinstance(told, BookDelta)
    assert ["91.0", "0"] in [list(one) for one in told.bids], "readers are told what left"
    assert len(sync.book.bids) == 10
    # The best one goes, and the level that left is sent again.
    back = [("101.0", "0.00000000"), ("91.0", "1.00000000")]
    (delta,) = say(book_frame("update", back, [], checksum(bids, asks)))
    assert isinstance(sync.delta(delta), list)


def test_gotcha_03_old_names_of_rest_become_those_of_v2() -> None:
    assert (BTC.symbol, BTC.name, BTC.rest_symbol) == ("BTC/USD", "BTC-USD", "XBTUSD")
    doge = listed("XDG/USD")
    assert (doge.symbol, doge.name, doge.rest_symbol) == ("DOGE/USD", "DOGE-USD", "XDGUSD")
    call = VENUE.rest.candles(doge, 0, 0)
    assert call is not None
    assert call.request.params["pair"] == "XDGUSD"


def test_gotcha_04_each_symbol_of_a_request_has_its_own_answer() -> None:
    """The same number twice: one symbol is taken, the other one refused."""
    streams = [VENUE.codec.streams("trade", one)[0] for one in (BTC, listed("WWW/USD"))]
    frame = VENUE.codec.subscribe(FEED, streams, request_id=5, now_ns=1, account=None)
    number = orjson.loads(frame)["req_id"]
    ack = f'{{"method":"subscribe","req_id":{number},"result":{{"channel":"trade","snapshot":true,"symbol":"BTC/USD"}},"success":true}}'
    refusal = f'{{"error":"Currency pair not supported WWW/USD","method":"subscribe","req_id":{number},"success":false,"symbol":"WWW/USD"}}'
    assert say(ack) == [Accepted(streams=("trade:BTC/USD",))]
    assert say(refusal) == [
        Refused(reason="Currency pair not supported WWW/USD", request_id=5, streams=("trade:WWW/USD",))
    ]


async def test_gotcha_05_a_lost_subscription_is_asked_for_again_though_heartbeats_go_on(
    autojump_clock: MockClock,
) -> None:
    """The rate error answers no request: what it swallowed is missed by its ack alone."""
    fake = KrakenFake(Market(KrakenFake.default_listings()[:1]), messages_per_second=1)
    wanted = {"spot": {"BTC-USD": ["trade", "book", "candle_1m"]}}
    async with trio.open_nursery() as nursery, rig(VENUE, fake, wanted, endpoints=fake.endpoints()) as made:
        nursery.start_soon(fake.play, 2.0)
        await trio.sleep(5)
        assert not made.live("trade:BTC-USD", "book:BTC-USD", "candle_1m:BTC-USD")
        await made.until(lambda: made.live("trade:BTC-USD", "book:BTC-USD", "candle_1m:BTC-USD"), within_s=60)
        assert made.market("spot").reconnects == 0
        nursery.cancel_scope.cancel()


def test_gotcha_06_quotes_come_with_each_change_and_not_with_trades_only() -> None:
    streams = VENUE.codec.streams("quote", BTC)
    frame = VENUE.codec.subscribe(FEED, streams, request_id=1, now_ns=1, account=None)
    assert orjson.loads(frame)["params"]["event_trigger"] == "bbo"


def test_gotcha_07_a_candle_is_known_by_its_beginning_and_is_never_closed_by_the_stream() -> None:
    frame = '{"channel":"ohlc","type":"update","timestamp":"2026-09-10T17:44:43.105760475Z","data":[{"symbol":"BTC/USD","open":1.0,"high":1.0,"low":1.0,"close":1.0,"trades":1,"volume":1.00000000,"vwap":1.0,"interval_begin":"2026-09-10T17:43:00.000000000Z","interval":1,"timestamp":"2026-09-10T17:44:00.000000Z"}]}'
    (candle,) = say(frame)
    assert isinstance(candle, Candle)
    # Received after its end, and yet nobody has said that it is final.
    assert (candle.start_ns, candle.closed) == (1_789_062_180_000_000_000, False)


def test_gotcha_08_candles_of_rest_are_in_seconds_and_the_last_one_runs() -> None:
    start_s = RECEIVED_NS // 10**9 // MINUTE_S * MINUTE_S
    call = VENUE.rest.candles(BTC, (start_s - 120) * 10**9, start_s * 10**9)
    assert call is not None
    rows = [[start_s - MINUTE_S * i, "1.0", "1.0", "1.0", "1.0", "0.0", "0.00000000", 0] for i in (2, 1, 0)]
    # The key is not what was asked for.
    body = orjson.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": start_s - MINUTE_S}})
    page = call.parse(HttpReply(status=200, body=body, received_ns=RECEIVED_NS))
    assert [candle.closed for candle in page.items] == [True, True, False]
    assert page.next is None, "there are 720 rows and no way to older ones"


def test_gotcha_08_errors_of_rest_come_with_http_200() -> None:
    body = b'{"error":["EQuery:Unknown asset pair"]}'
    with pytest.raises(SubscriptionRejectedError, match="Unknown asset pair"):
        VENUE.rest.examine(HttpReply(status=200, body=body, received_ns=RECEIVED_NS))


def test_gotcha_09_large_and_tiny_numbers() -> None:
    status = '{"channel":"status","type":"update","data":[{"system":"online","connection_id":18446744073709551615}]}'
    assert say(status) == []
    (delta,) = say(book_frame("update", [("1e-08", "1.5E+3")], [], 2**32 - 1))
    assert isinstance(delta, BookDelta)
    assert (delta.bids, delta.checksum) == ([("0.00000001", "1500")], 4294967295)


def test_gotcha_10_plain_text_of_the_proxy_is_no_frame_that_cannot_be_read() -> None:
    assert say("CloudFlare WebSocket proxy restarting") == [Closing("CloudFlare WebSocket proxy restarting")]


def test_gotcha_11_the_instrument_channel_has_an_object_for_data() -> None:
    frame = '{"channel":"instrument","type":"snapshot","data":{"assets":[{"id":"USD"}],"pairs":[{"symbol":"BTC/USD"}]}}'
    assert say(frame) == []


def test_gotcha_12_reconnects_stay_far_from_the_ban() -> None:
    budget = next(budget for budget in VENUE.budgets if budget.name == FEED.connect_budget)
    assert (budget.capacity, budget.per_s) == (150, 600)
    assert budget.reserve > 0.3


def test_gotcha_13_fields_that_came_over_time_may_be_missing() -> None:
    ticker = '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":1.0,"bid_qty":1.0,"ask":2.0,"ask_qty":1.0,"last":1.0,"volume":1.0,"low":1.0,"high":1.0,"new":{"deep":[1]}}]}'
    assert isinstance(say(ticker)[0], Quote)
    book = book_frame("snapshot", [("1.0", "1.0")], [], 1).replace(
        ',"timestamp":"2026-08-18T20:43:35.824274Z"', ""
    )
    assert say(book)[1].venue_time_ns is None


async def test_gotcha_14_the_state_of_the_system_comes_before_any_ack(autojump_clock: MockClock) -> None:
    fake = KrakenFake(Market(KrakenFake.default_listings()[:1]))
    async with rig(VENUE, fake, {"spot": {"BTC-USD": ["book"]}}, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live("book:BTC-USD"), within_s=10)
        assert made.market("spot").decode_errors == 0
