"""What has tripped others on Binance, one test each."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Closing
from pricefeedd.events import BookDelta, Candle, Quote, Side, Trade
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.rest import HttpReply
from pricefeedd.rules import Verdict
from pricefeedd_binance.venue import binance

VENUE = binance()
RECEIVED_NS = 1_790_373_640_000_000_000
MINUTE_MS = 60_000


def listed(market: str, **row: Any) -> Instrument:
    """Return the instrument that an exchangeInfo row becomes."""
    base = {"symbol": "BTCUSDT", "baseAsset": "BTC", "quoteAsset": "USDT", "status": "TRADING"}
    body = orjson.dumps({"symbols": [base | row]})
    call = VENUE.rest.instruments(market)
    (found,) = call.parse(HttpReply(status=200, body=body, received_ns=RECEIVED_NS)).items
    return found


SPOT = listed("spot")
LINEAR = listed("linear", contractType="PERPETUAL", marginAsset="USDT")
INVERSE = listed(
    "inverse",
    symbol="BTCUSD_PERP",
    quoteAsset="USD",
    contractType="PERPETUAL",
    contractStatus="TRADING",
    contractSize=100,
    marginAsset="BTC",
)


def say(feed: str, stream: str, data: Any, *instruments: Instrument) -> list[Any]:
    chosen = VENUE.feed(feed)
    names = InstrumentMap("binance", chosen.market, instruments or (SPOT,)).names
    frame = orjson.dumps({"stream": stream, "data": data})
    return list(VENUE.codec.decode(frame, feed=chosen, names=names, received_ns=RECEIVED_NS))


def delta(feed: str, instrument: Instrument, first: int, last: int, previous: int | None = None) -> BookDelta:
    data = {
        "e": "depthUpdate",
        "E": 1626992743532,
        "s": instrument.symbol,
        "U": first,
        "u": last,
        "b": [],
        "a": [],
    }
    if previous is not None:
        data |= {"pu": previous, "T": 1626992743425}
    (found,) = say(feed, f"{instrument.symbol.lower()}@depth@100ms", data, instrument)
    assert isinstance(found, BookDelta)
    return found


def test_1_a_wrong_route_is_silent_so_each_futures_stream_has_its_own() -> None:
    for instrument in (LINEAR, INVERSE):
        for channel in VENUE.channels[instrument.market]:
            route = "public" if channel in ("book", "quote") else "market"
            for stream in VENUE.codec.streams(channel, instrument):
                assert stream.feed == f"{instrument.market}-{route}"
                assert VENUE.feed(stream.feed).path == f"/{route}/stream"


def test_2_futures_chain_on_pu_and_spot_on_u() -> None:
    spot, linear = VENUE.rules["spot"].book, VENUE.rules["linear"].book
    assert spot is not None
    assert linear is not None
    after = delta("linear-public", LINEAR, 600859645270, 600859645280, 600859644386)
    assert linear.follows(600859644386, after) is Verdict.APPLY
    assert linear.follows(600859645269, after) is Verdict.GAP
    assert spot.follows(600859644386, after) is Verdict.GAP
    assert spot.follows(281916628, delta("spot", SPOT, 281916629, 281916630)) is Verdict.APPLY


def test_3_a_spot_snapshot_links_with_plus_one_and_a_futures_one_without() -> None:
    spot, linear = VENUE.rules["spot"].book, VENUE.rules["linear"].book
    assert spot is not None
    assert linear is not None
    assert spot.joins(100, delta("spot", SPOT, 101, 110)) is Verdict.APPLY
    assert linear.joins(100, delta("linear-public", LINEAR, 101, 110, 99)) is Verdict.GAP
    assert spot.joins(100, delta("spot", SPOT, 95, 100)) is Verdict.STALE
    assert linear.joins(100, delta("linear-public", LINEAR, 95, 100, 90)) is Verdict.APPLY


def test_4_an_ack_says_only_that_the_request_arrived() -> None:
    frame = b'{"result":null,"id":9}'
    said = VENUE.codec.decode(frame, feed=VENUE.feed("spot"), names={}, received_ns=1)
    assert list(said) == [Accepted(request_id=9)]
    assert not any(one.complete or one.streams for one in said if isinstance(one, Accepted))


def test_5_spot_messages_leave_room_for_pongs() -> None:
    assert VENUE.feed("spot").request_interval_s >= 0.25
    assert VENUE.feed("spot").streams_per_request >= 100, "few large requests, not many small ones"


@pytest.mark.parametrize(("maker_bought", "aggressor"), [(True, Side.SELL), (False, Side.BUY)])
def test_6_when_the_buyer_was_the_maker_the_taker_sold(maker_bought: bool, aggressor: Side) -> None:
    data = {"e": "aggTrade", "E": 1, "s": "BTCUSDT", "a": 5, "p": "1", "q": "2", "T": 1, "m": maker_bought}
    (trade,) = say("spot", "btcusdt@aggTrade", data)
    assert trade.aggressor is aggressor


def test_7_a_spot_quote_has_neither_event_type_nor_time() -> None:
    data = {
        "u": 400900217,
        "s": "BTCUSDT",
        "b": "25.35190000",
        "B": "31.21",
        "a": "25.36520000",
        "A": "40.66",
    }
    (quote,) = say("spot", "btcusdt@bookTicker", data)
    assert isinstance(quote, Quote)
    assert quote.venue_time_ns is None
    assert quote.received_ns == RECEIVED_NS


def test_8_streams_are_lower_case_and_payloads_upper_case() -> None:
    (stream,) = VENUE.codec.streams("trade", INVERSE)
    assert stream.name == "btcusd_perp@aggTrade"
    data = {"e": "aggTrade", "E": 1, "s": "BTCUSD_PERP", "a": 5, "p": "1", "q": "2", "T": 1, "m": True}
    (trade,) = say("inverse-market", stream.name, data, INVERSE)
    assert trade.instrument == "BTC-USD-PERP"


def test_8_symbols_beyond_ascii_go_through_unchanged() -> None:
    odd = listed("spot", symbol="币安人生USDT", baseAsset="币安人生")
    (stream,) = VENUE.codec.streams("trade", odd)
    frame = VENUE.codec.subscribe(VENUE.feed("spot"), [stream], request_id=1, now_ns=1, account=None)
    assert orjson.loads(frame)["params"] == ["币安人生usdt@aggTrade"]
    data = {"e": "aggTrade", "E": 1, "s": "币安人生USDT", "a": 5, "p": "1", "q": "2", "T": 1, "m": True}
    (trade,) = say("spot", stream.name, data, odd)
    assert trade.instrument == "币安人生-USDT"


def test_9_trailing_zeros_and_large_numbers_survive() -> None:
    data = {
        "e": "aggTrade", "E": 1, "s": "BTCUSDT", "a": 2**53 + 1, "p": "0.10000000", "q": "123456789012345.678901234567890",
        "T": 1790373637547, "m": True,
    }  # fmt: skip
    (trade,) = say("spot", "btcusdt@aggTrade", data)
    assert isinstance(trade, Trade)
    assert (trade.price, trade.size) == ("0.10000000", "123456789012345.678901234567890")
    assert trade.id == "9007199254740993"
    assert trade.venue_time_ns == 1_790_373_637_547_000_000


def test_10_inverse_sizes_are_contracts() -> None:
    assert (INVERSE.contract_size, INVERSE.size_unit, INVERSE.contract_currency) == ("100", "contract", "USD")
    assert (LINEAR.contract_size, LINEAR.size_unit) == ("1", "base")


def test_10_inverse_has_contract_status_instead_of_status() -> None:
    row = {"quoteAsset": "USD", "contractType": "PERPETUAL", "contractSize": 10}
    assert not listed("inverse", **row, status="TRADING", contractStatus="DELIVERING").tradable
    assert listed("inverse", **row, status="", contractStatus="TRADING").tradable


def test_11_new_fields_are_ignored() -> None:
    data = {
        "e": "aggTrade", "E": 1, "s": "BTCUSDT", "a": 5, "p": "1", "q": "2", "nq": "2", "st": 1, "ps": "X", "T": 1,
        "m": True, "new": {"deep": [1]},
    }  # fmt: skip
    (trade,) = say("linear-market", "btcusdt@aggTrade", data, LINEAR)
    assert trade.size == "2"


def test_12_arrays_of_all_symbols_are_passed_over() -> None:
    row = {"e": "24hrTicker", "E": 1, "s": "BTCUSDT", "st": 2}
    assert say("linear-market", "!ticker@arr", [row], LINEAR) == []
    assert say("linear-market", "!markPrice@arr@1s", [row], LINEAR) == []


def test_12_a_symbol_of_the_other_futures_market_is_passed_over() -> None:
    data = {
        "e": "aggTrade",
        "E": 1,
        "s": "BTCUSD_PERP",
        "a": 5,
        "p": "1",
        "q": "2",
        "T": 1,
        "m": True,
        "st": 2,
    }
    assert say("linear-market", "btcusd_perp@aggTrade", data, LINEAR) == []


@pytest.mark.parametrize(
    ("after_close_ms", "closed"),
    [(-30_000, False), (0, False), (1_999, False), (2_001, True), (60_000, True)],
)
def test_13_the_last_candle_of_rest_is_closed_only_after_its_end(after_close_ms: int, closed: bool) -> None:
    start_ms = 1_790_373_600_000
    close_ms = start_ms + MINUTE_MS - 1
    row = [start_ms, "1", "1", "1", "1", "5", close_ms, "5", 2, "1", "1", "0"]
    call = VENUE.rest.candles(SPOT, start_ms * 1_000_000, start_ms * 1_000_000)
    assert call is not None
    received_ns = (close_ms + after_close_ms) * 1_000_000
    (candle,) = call.parse(HttpReply(status=200, body=orjson.dumps([row]), received_ns=received_ns)).items
    assert isinstance(candle, Candle)
    assert candle.closed is closed


def test_13_inverse_candles_of_a_long_window_come_from_its_beginning() -> None:
    """COIN-M returns the newest rows of a window, so a window never holds more rows than a page."""
    start_ms = 1_780_000_020_000
    minutes = 10_000
    call = VENUE.rest.candles(
        INVERSE, start_ms * 1_000_000, (start_ms + (minutes - 1) * MINUTE_MS) * 1_000_000
    )
    starts: list[int] = []
    while call is not None:
        start, end, limit = (int(call.request.params[key]) for key in ("startTime", "endTime", "limit"))
        opened = range(-(-start // MINUTE_MS) * MINUTE_MS, end + 1, MINUTE_MS)[-limit:]
        rows = [[ms, "1", "1", "1", "1", "5", ms + MINUTE_MS - 1, "5", 2, "1", "1", "0"] for ms in opened]
        page = call.parse(HttpReply(status=200, body=orjson.dumps(rows), received_ns=RECEIVED_NS))
        starts += [candle.start_ns for candle in page.items]
        call = page.next
    assert starts == [(start_ms + i * MINUTE_MS) * 1_000_000 for i in range(minutes)]


def test_13_rows_outside_of_the_window_are_left_out() -> None:
    start_ms = 1_780_000_020_000
    rows = [
        [ms, "1", "1", "1", "1", "5", ms + MINUTE_MS - 1, "5", 2, "1", "1", "0"]
        for ms in (start_ms - MINUTE_MS, start_ms, start_ms + MINUTE_MS)
    ]
    call = VENUE.rest.candles(INVERSE, start_ms * 1_000_000, start_ms * 1_000_000)
    assert call is not None
    page = call.parse(HttpReply(status=200, body=orjson.dumps(rows), received_ns=RECEIVED_NS))
    assert [candle.start_ns for candle in page.items] == [start_ms * 1_000_000]


def test_14_microseconds_are_never_asked_for() -> None:
    for feed in VENUE.feeds:
        for path in (feed.path, *feed.fallback_paths):
            opening = VENUE.codec.open(feed, [], path=path, now_ns=1, account=None)
            assert "timeUnit" not in opening.path
            assert not opening.headers


def test_15_connections_are_replaced_before_the_venue_cuts_them() -> None:
    for feed in VENUE.feeds:
        assert feed.lifetime_s is not None
        assert feed.lifetime_s <= 23 * 3600


def test_15_a_shutdown_is_told_before_it_happens() -> None:
    data = {"e": "serverShutdown", "E": 1770123456789}
    assert say("spot", "!serverShutdown", data) == [Closing("serverShutdown")]


def test_16_a_jump_of_futures_numbers_is_no_gap() -> None:
    rule = VENUE.rules["inverse"].book
    assert rule is not None
    jumped = delta("inverse-public", INVERSE, 11660059838224, 11660059844303, 11660059836647)
    assert rule.follows(11660059836647, jumped) is Verdict.APPLY


def test_17_no_compression_is_asked_for() -> None:
    for feed in VENUE.feeds:
        opening = VENUE.codec.open(feed, [], path=feed.path, now_ns=1, account=None)
        assert "sec-websocket-extensions" not in {name.lower() for name in opening.headers}
