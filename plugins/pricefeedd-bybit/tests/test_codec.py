"""Frames of each topic and market, and what they become. They have the form of the venue's documents."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Failed, LoggedIn, LoginRefused, Refused
from pricefeedd.errors import DecodeError
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Liquidation,
    Quote,
    Side,
    Ticker,
    Trade,
)
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import HttpReply
from pricefeedd.venue import Account
from pricefeedd_bybit.codec import BybitCodec
from pricefeedd_bybit.venue import bybit

VENUE = bybit()
NAMES = {
    "BTCUSDT": "BTC-USDT-PERP",
    "BTCPERP": "BTC-USDC-PERP",
    "BTC-25DEC26": "BTC-USDC-20261225",
    "BTCUSD": "BTC-USD-PERP",
    "BTCUSDZ26": "BTC-USD-20261225",
}
RECEIVED_NS = 1_790_373_640_000_000_000
TS = 1_790_373_639_990
TS_NS = TS * 1_000_000


def say(frame: Any, feed: str = "linear") -> list[Any]:
    data = frame if isinstance(frame, bytes) else orjson.dumps(frame)
    return list(VENUE.codec.decode(data, feed=VENUE.feed(feed), names=NAMES, received_ns=RECEIVED_NS))


def one(frame: Any, feed: str = "linear") -> Event:
    (event,) = say(frame, feed)
    assert isinstance(event, Event)
    assert (event.venue, event.received_ns) == ("bybit", RECEIVED_NS)
    return event


def message(topic: str, data: Any, kind: str = "snapshot", **more: Any) -> dict[str, Any]:
    return {"topic": topic, "type": kind, "ts": TS, "data": data, **more}


def instrument(symbol: str, market: str) -> Instrument:
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    quote = "USD" if market == "inverse" else "USDT"
    return Instrument(
        venue="bybit",
        market=market,
        name=spell("BTC", quote, kind),
        symbol=symbol,
        kind=kind,
        base="BTC",
        quote=quote,
    )


# --- Trades -----------------------------------------------------------------------------------------------

TRADE: dict[str, Any] = {
    "T": 1_790_373_639_988, "s": "BTCUSDT", "S": "Sell", "v": "0.001", "p": "69916.80", "L": "MinusTick",
    "i": "8c931d9a-b703-5c34-9aeb-860867cf1f66", "BT": False, "RPI": False, "seq": 549792210006,
}  # fmt: skip


def test_linear_trade() -> None:
    assert one(message("publicTrade.BTCUSDT", [TRADE])) == Trade(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1_790_373_639_988_000_000,  # T, the match, and not ts, the message
        received_ns=RECEIVED_NS,
        id="8c931d9a-b703-5c34-9aeb-860867cf1f66",
        price="69916.80",
        size="0.001",
        aggressor=Side.SELL,
    )


def test_spot_trade_with_and_without_the_newer_fields() -> None:
    row = {
        "i": "2290000000050703789",
        "T": 1_790_373_639_988,
        "p": "27200",
        "v": "0.000221",
        "S": "Buy",
        "s": "BTCUSDT",
        "BT": False,
    }
    old = one({"topic": "publicTrade.BTCUSDT", "ts": TS, "type": "snapshot", "data": [row]}, "spot")
    new = one(message("publicTrade.BTCUSDT", [row | {"RPI": True, "seq": 7}]), "spot")
    assert isinstance(old, Trade)
    assert (old.id, old.price, old.size, old.aggressor) == (
        "2290000000050703789",
        "27200",
        "0.000221",
        Side.BUY,
    )
    assert new == old


def test_a_frame_of_many_trades_keeps_their_order() -> None:
    rows = [TRADE | {"i": str(i), "p": f"{100 + i}"} for i in range(1024)]
    said = say(message("publicTrade.BTCUSDT", rows))
    assert [trade.id for trade in said] == [str(i) for i in range(1024)]
    assert {trade.origin.value for trade in said} == {"live"}, "its type is snapshot, and its trades are new"


# --- Quotes and books -------------------------------------------------------------------------------------


def book(topic: str, b: Any, a: Any, u: int, kind: str = "snapshot", **more: Any) -> dict[str, Any]:
    symbol = topic.rpartition(".")[2]
    data = {"s": symbol, "b": b, "a": a, "u": u, "seq": 546137962055}
    return message(topic, data, kind, cts=TS - 4, **more)


def test_quote_is_the_book_of_depth_one() -> None:
    frame = book("orderbook.1.BTCUSDT", [["28552.00", "0.047"]], [["28552.10", "25.433"]], 7003305)
    assert one(frame) == Quote(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        venue_time_ns=(TS - 4) * 1_000_000,
        received_ns=RECEIVED_NS,
        bid_price="28552.00",
        bid_size="0.047",
        ask_price="28552.10",
        ask_size="25.433",
        sequence=546137962055,
    )


@pytest.mark.parametrize(("b", "a"), [([], [["2", "1"]]), ([["1", "5"]], []), ([], [])])
def test_an_empty_side_of_a_quote_is_none(b: Any, a: Any) -> None:
    quote = one(book("orderbook.1.BTCUSDT", b, a, 5))
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.bid_size) == (("1", "5") if b else (None, None))
    assert (quote.ask_price, quote.ask_size) == (("2", "1") if a else (None, None))


def test_a_delta_of_the_best_level_is_refused_and_not_guessed_at() -> None:
    """They ended on 2025-03-20. An empty side of one means "as before", which nobody here remembers."""
    with pytest.raises(DecodeError, match="comes as 'delta' and not whole"):
        say(book("orderbook.1.BTCUSDT", [["28552.00", "0.012"]], [], 7003306, "delta"))


@pytest.mark.parametrize("depth", [50, 200, 1000])
def test_book_snapshot_and_delta(depth: int) -> None:
    topic = f"orderbook.{depth}.BTCUSDT"
    snapshot = one(book(topic, [["71423.80", "0.557"]], [["71423.90", "4.669"]], 10132540))
    assert snapshot == BookSnapshot(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        venue_time_ns=(TS - 4) * 1_000_000,
        received_ns=RECEIVED_NS,
        bids=[["71423.80", "0.557"]],
        asks=[["71423.90", "4.669"]],
        sequence=10132540,
    )
    delta = one(
        book(topic, [["71419.80", "0"], ["71418.20", "0.159"]], [["71427.90", "0.006"]], 10132541, "delta")
    )
    assert delta == BookDelta(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        venue_time_ns=(TS - 4) * 1_000_000,
        received_ns=RECEIVED_NS,
        bids=[["71419.80", "0"], ["71418.20", "0.159"]],
        asks=[["71427.90", "0.006"]],
        sequence=10132541,
    )


def test_a_book_without_the_engines_time_has_the_messages() -> None:
    frame = book("orderbook.50.BTCUSDT", [], [], 5, "delta")
    del frame["cts"]
    assert one(frame).venue_time_ns == TS_NS


# --- Tickers ----------------------------------------------------------------------------------------------

TICKER = {
    "symbol": "BTCUSDT", "tickDirection": "ZeroPlusTick", "price24hPcnt": "-0.009772", "lastPrice": "61874.00",
    "prevPrice24h": "62484.60", "highPrice24h": "62752.90", "lowPrice24h": "61000.10", "prevPrice1h": "61901.80",
    "markPrice": "61875.25", "indexPrice": "61903.73", "openInterest": "58117.022",
    "openInterestValue": "3596005265.51", "turnover24h": "6073739017.8331", "volume24h": "98430.1050",
    "nextFundingTime": "1790380800000", "fundingRate": "-0.00008055", "bid1Price": "61873.90", "bid1Size": "3.783",
    "ask1Price": "61874.00", "ask1Size": "16.278", "fundingIntervalHour": "8", "singleOpenInterest": "1",
}  # fmt: skip


def test_linear_ticker() -> None:
    assert one(message("tickers.BTCUSDT", TICKER, cs=176530003895)) == Ticker(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        venue_time_ns=TS_NS,
        received_ns=RECEIVED_NS,
        last="61874.00",
        open_24h="62484.60",
        high_24h="62752.90",
        low_24h="61000.10",
        volume_24h="98430.1050",
        turnover_24h="6073739017.8331",
        mark_price="61875.25",
        index_price="61903.73",
        funding_rate="-0.00008055",
        next_funding_ns=1_790_380_800_000_000_000,
        open_interest="58117.022",
    )


def test_a_delta_has_what_changed() -> None:
    data = {"symbol": "BTCUSDT", "markPrice": "61875.06", "bid1Price": "61873.90", "bid1Size": "3.543"}
    ticker = one(message("tickers.BTCUSDT", data, "delta", cs=176530004279))
    assert isinstance(ticker, Ticker)
    assert ticker.partial
    assert (ticker.mark_price, ticker.last, ticker.volume_24h) == ("61875.06", None, None)


def test_a_delta_of_the_best_level_alone_is_no_news_of_the_ticker() -> None:
    data = {"symbol": "BTCUSDT", "bid1Price": "61873.90", "bid1Size": "3.543"}
    assert say(message("tickers.BTCUSDT", data, "delta")) == []


def test_a_dated_contract_has_no_funding() -> None:
    data = TICKER | {
        "symbol": "BTCUSDZ26", "nextFundingTime": "", "fundingRate": "", "deliveryTime": "2026-12-25T08:00:00Z",
        "basisRate": "0.016", "predictedDeliveryPrice": "",
    }  # fmt: skip
    ticker = one(message("tickers.BTCUSDZ26", data), "inverse")
    assert isinstance(ticker, Ticker)
    assert (ticker.funding_rate, ticker.next_funding_ns) == (None, None)
    assert ticker.mark_price == "61875.25"


def test_spot_ticker_is_whole_and_has_no_derivatives_fields() -> None:
    data = {
        "symbol": "BTCUSDT", "lastPrice": "21109.77", "highPrice24h": "21426.99", "lowPrice24h": "20575",
        "prevPrice24h": "20704.93", "volume24h": "6780.866843", "turnover24h": "141946527.22907118",
        "price24hPcnt": "0.0196", "usdIndexPrice": "",
    }  # fmt: skip
    ticker = one(
        {"topic": "tickers.BTCUSDT", "ts": TS, "type": "snapshot", "cs": 2588407389, "data": data}, "spot"
    )
    assert isinstance(ticker, Ticker)
    assert not ticker.partial
    assert (ticker.last, ticker.open_24h, ticker.turnover_24h) == (
        "21109.77",
        "20704.93",
        "141946527.22907118",
    )
    assert (ticker.mark_price, ticker.index_price, ticker.open_interest) == (None, None, None)


# --- Candles and liquidations -----------------------------------------------------------------------------

CANDLE: dict[str, Any] = {
    "start": 1_790_373_600_000, "end": 1_790_373_659_999, "interval": "1", "open": "16649.5", "close": "16677",
    "high": "16677.5", "low": "16608", "volume": "2.081", "turnover": "34666.4005", "confirm": False,
    "timestamp": 1_790_373_639_000,
}  # fmt: skip


def test_candle() -> None:
    expected = Candle(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        venue_time_ns=TS_NS,
        received_ns=RECEIVED_NS,
        start_ns=1_790_373_600_000_000_000,
        open="16649.5",
        high="16677.5",
        low="16608",
        close="16677",
        volume="2.081",
        turnover="34666.4005",
        closed=False,
    )
    assert one(message("kline.1.BTCUSDT", [CANDLE])) == expected
    closed = one(message("kline.1.BTCUSDT", [CANDLE | {"confirm": True}]))
    assert isinstance(closed, Candle)
    assert closed.closed


def test_the_closed_minute_and_the_next_in_one_message() -> None:
    rows = [CANDLE | {"confirm": True}, CANDLE | {"start": 1_790_373_660_000, "end": 1_790_373_719_999}]
    said = say(message("kline.1.BTCUSDT", rows))
    assert [(c.start_ns // 1_000_000, c.closed) for c in said] == [
        (1_790_373_600_000, True),
        (1_790_373_660_000, False),
    ]


def test_other_intervals_are_passed_over() -> None:
    assert say(message("kline.5.BTCUSDT", [CANDLE | {"interval": "5"}])) == []
    assert say(message("kline.D.BTCUSDT", [CANDLE | {"interval": "D"}])) == []


@pytest.mark.parametrize(("position", "order"), [("Buy", Side.SELL), ("Sell", Side.BUY)])
def test_a_liquidation_tells_the_side_of_the_position(position: str, order: Side) -> None:
    row = {"T": 1_790_373_639_500, "s": "BTCUSDT", "S": position, "v": "2846", "p": "0.02456"}
    assert one(message("allLiquidation.BTCUSDT", [row])) == Liquidation(
        venue="bybit",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1_790_373_639_500_000_000,
        received_ns=RECEIVED_NS,
        price="0.02456",
        size="2846",
        side=order,
    )


def test_several_liquidations_in_one_frame() -> None:
    row = {"T": 1_790_373_639_500, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2"}
    assert len(say(message("allLiquidation.BTCUSDT", [row, row | {"v": "3"}]))) == 2


# --- Answers ----------------------------------------------------------------------------------------------


def answer(good: bool, text: str = "", op: str = "subscribe", req_id: str | None = "7") -> dict[str, Any]:
    body = {"success": good, "ret_msg": text, "conn_id": "d6ki1eae0cl5msgggj7g-1uoz2", "op": op}
    return body if req_id is None else {**body, "req_id": req_id}


@pytest.mark.parametrize("text", ["", "subscribe"])
def test_an_ack_names_its_request(text: str) -> None:
    assert say(answer(True, text)) == [Accepted(request_id=7)]


@pytest.mark.parametrize("req_id", ["", "abc", None, "٣", "9" * 30])
def test_an_ack_without_a_number_of_ours_says_nothing(req_id: str | None) -> None:
    assert say(answer(True, req_id=req_id)) == []


def test_an_unknown_topic_is_named_and_the_others_are_asked_for_again() -> None:
    text = "error:handler not found,topic:orderbook.500.BTCUSDT"
    assert say(answer(False, text)) == [
        Refused(reason=text, request_id=7, streams=("orderbook.500.BTCUSDT",), others_lost=True)
    ]


@pytest.mark.parametrize("text", ["Invalid symbol :[orderbook.50.X]", "Invalid symbol:[orderbook.50.X]"])
def test_an_unknown_symbol_on_spot(text: str) -> None:
    assert say(answer(False, text), "spot") == [
        Refused(reason=text, request_id=7, streams=("orderbook.50.X",), others_lost=True)
    ]


def test_several_unknown_topics_on_spot() -> None:
    (refused,) = say(answer(False, "Invalid symbol :[tickers.X,tickers.Y]"), "spot")
    assert refused.streams == ("tickers.X", "tickers.Y")


def test_a_bare_symbol_names_no_topic() -> None:
    text = "Invalid symbol :[NOTACOINUSDT]"
    assert say(answer(False, text), "spot") == [Refused(reason=text, request_id=7)]


def test_what_flows_already_is_accepted_and_the_others_are_asked_for_again() -> None:
    text = "error:already subscribed,topic:publicTrade.BTCUSDT"
    assert say(answer(False, text)) == [
        Accepted(streams=("publicTrade.BTCUSDT",)),
        Refused(reason=text, request_id=7, others_lost=True),
    ]


@pytest.mark.parametrize("text", ["args size >10", "Params Error", "error:invalid op"])
def test_a_refusal_without_a_topic_is_about_the_request(text: str) -> None:
    assert say(answer(False, text)) == [Refused(reason=text, request_id=7)]


def test_what_could_not_be_decoded_names_no_request() -> None:
    text = "Failed to decode incoming data:readObjectStart: expect { or n, but found h"
    assert say(answer(False, text, op="", req_id="")) == [Refused(reason=text)]


@pytest.mark.parametrize("good", [True, False])
def test_answers_to_unsubscribe_say_nothing(good: bool) -> None:
    assert say(answer(good, "", op="unsubscribe")) == []


@pytest.mark.parametrize(
    ("feed", "frame"),
    [
        ("spot", {"success": True, "ret_msg": "pong", "conn_id": "0970e817", "op": "ping"}),
        ("linear", {"success": True, "ret_msg": "pong", "conn_id": "465772b1", "req_id": "", "op": "ping"}),
        ("private", {"req_id": "x", "op": "pong", "args": ["1675418560633"], "conn_id": "cfcb4ocsvfriu23r3er0-1b"}),
        ("private", {"args": ["1672916271846"], "op": "pong"}),
    ],
)  # fmt: skip
def test_pongs_in_all_their_forms_say_nothing(feed: str, frame: Any) -> None:
    assert say(frame, feed) == []


@pytest.mark.parametrize(
    "frame",
    [
        {"topic": "orderbook.rpi.BTCUSDT", "type": "somethingnew", "ts": 1, "data": []},
        {"topic": "liquidation.BTCUSDT", "type": "snapshot", "ts": 1, "data": {}},
        {"topic": "insurance.USDT", "type": "delta", "ts": 1, "data": []},
        {"topic": "", "ts": 1},
        message("publicTrade.NOPEUSDT", [TRADE | {"s": "NOPEUSDT"}]),
        message("orderbook.50.NOPEUSDT", {"s": "NOPEUSDT"}),
        message("tickers.NOPEUSDT", {}),
        message("kline.1.NOPEUSDT", []),
        message("allLiquidation.NOPEUSDT", []),
    ],
)
def test_what_is_not_asked_for_is_passed_over(frame: Any) -> None:
    if frame["topic"].startswith("orderbook.rpi"):
        # A topic that we never ask for; should it come, it is not taken for a book of ours.
        with pytest.raises(DecodeError):
            say(frame)
        return
    assert say(frame) == []


# --- Bad frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("i", 5), ("i", None), ("p", 69916.8), ("p", "abc"), ("p", ""), ("p", "-1"), ("p", None), ("p", "1e"),
        ("v", "-58"), ("v", "٣"), ("T", "1790373639988"), ("T", 1.5), ("T", None), ("T", 2**70), ("S", "buy"),
        ("S", None),
    ],
)  # fmt: skip
def test_a_trade_of_the_wrong_shape_is_refused(field: str, value: object) -> None:
    if value == 2**70:
        frame = orjson.dumps(message("publicTrade.BTCUSDT", [TRADE])).replace(b"1790373639988", b"1" * 30)
    else:
        frame = orjson.dumps(message("publicTrade.BTCUSDT", [TRADE | {field: value}]))
    with pytest.raises(DecodeError, match="bybit: bad frame"):
        say(frame)


@pytest.mark.parametrize("field", ["i", "p", "v", "T", "S"])
def test_a_trade_that_lacks_a_field_is_refused(field: str) -> None:
    row = {key: value for key, value in TRADE.items() if key != field}
    with pytest.raises(DecodeError):
        say(message("publicTrade.BTCUSDT", [row]))


@pytest.mark.parametrize(
    "side",
    [{}, None, "12", [["1"]], [["1", "2", "3"]], [["", "1"]], [["1", ""]], [[1, 2]], [["1", 2]], [["1", "x"]],
     [["1", "-2"]], [["1", "٣"]], [["1", "1e"]], [1, 2], [None]],
)  # fmt: skip
@pytest.mark.parametrize("depth", [1, 50])
def test_levels_of_the_wrong_shape_are_refused(side: object, depth: int) -> None:
    for b, a in ((side, []), ([], side)):
        with pytest.raises(DecodeError):
            say(book(f"orderbook.{depth}.BTCUSDT", b, a, 5))


@pytest.mark.parametrize(
    "change", [{"u": "5"}, {"u": None}, {"u": 1.5}, {"b": None}, {"a": {}}, {"seq": "x"}, {"seq": None}]
)
def test_a_quote_of_the_wrong_shape_is_refused(change: dict[str, Any]) -> None:
    frame = book("orderbook.1.BTCUSDT", [["1", "1"]], [["2", "1"]], 5)
    frame["data"] |= change
    with pytest.raises(DecodeError):
        say(frame)


@pytest.mark.parametrize(
    "change", [{"type": "other"}, {"type": None}, {"cts": "x"}, {"cts": None, "ts": None}]
)
def test_a_book_of_the_wrong_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        say(book("orderbook.50.BTCUSDT", [], [], 5) | change)


@pytest.mark.parametrize(
    "change",
    [{"confirm": "true"}, {"confirm": 1}, {"start": "1790373600000"}, {"open": 1.5}, {"volume": ""}, {"close": None}],
)  # fmt: skip
def test_a_candle_of_the_wrong_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        say(message("kline.1.BTCUSDT", [CANDLE | change]))


@pytest.mark.parametrize(
    "change",
    [
        {"lastPrice": 1.5}, {"lastPrice": "x"}, {"fundingRate": "--1"}, {"fundingRate": 1},
        {"nextFundingTime": "soon"}, {"nextFundingTime": 1790380800000}, {"nextFundingTime": "9" * 40},
    ],
)  # fmt: skip
def test_a_ticker_of_the_wrong_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        say(message("tickers.BTCUSDT", TICKER | change))


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff\xfe", b"{", b"[]", b"1", b"null", b'"topic"', b"{}", b"[" * 5000, b'{"topic":5}', b'{"topic":[]}',
     b'{"topic":"publicTrade.BTCUSDT"}', b'{"topic":"publicTrade.BTCUSDT","data":{}}', b'{"op":"subscribe"}',
     b'{"success":"yes"}', b'{"success":false,"ret_msg":5}', b'{"topic":"tickers.BTCUSDT","data":[],"type":"x"}'],
)  # fmt: skip
def test_garbage_is_a_decode_error(frame: bytes) -> None:
    if frame == b'{"topic":"publicTrade.BTCUSDT","data":{}}':
        assert say(frame) == []
        return
    with pytest.raises(DecodeError):
        say(frame)


def test_a_huge_bad_frame_is_quoted_in_part() -> None:
    with pytest.raises(DecodeError) as caught:
        say(b"x" * 1_000_000)
    assert len(str(caught.value)) < 400


# --- What we send -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "symbol"), [("spot", "BTCUSDT"), ("linear", "BTC-25DEC26"), ("inverse", "BTCUSD")]
)
def test_streams_are_named_as_the_venue_does(market: str, symbol: str) -> None:
    chosen = instrument(symbol, market)
    named = {
        channel: [(s.feed, s.name) for s in VENUE.codec.streams(channel, chosen)]
        for channel in VENUE.channels[market]
    }
    expected = {
        "trade": f"publicTrade.{symbol}",
        "quote": f"orderbook.1.{symbol}",
        "ticker": f"tickers.{symbol}",
        "candle_1m": f"kline.1.{symbol}",
        "book": f"orderbook.50.{symbol}",
        "liquidation": f"allLiquidation.{symbol}",
    }
    if market == "spot":
        del expected["liquidation"]
        assert VENUE.codec.streams("liquidation", chosen) == ()
    assert named == {channel: [(market, name)] for channel, name in expected.items()}
    assert VENUE.codec.streams("price", chosen) == ()


def test_private_channels_are_the_accounts() -> None:
    chosen = instrument("BTCUSDT", "linear")
    named = {c: VENUE.codec.streams(c, chosen)[0] for c in ("order", "execution", "position", "balance")}
    assert {c: (s.feed, s.name) for c, s in named.items()} == {
        "order": ("private", "order"),
        "execution": ("private", "execution"),
        "position": ("private", "position"),
        "balance": ("private", "wallet"),
    }


def test_only_the_best_level_is_pushed_on_a_clock() -> None:
    for market in VENUE.markets:
        chosen = instrument("BTCUSDT", market)
        owing = [
            s.name
            for channel in VENUE.channels[market]
            for s in VENUE.codec.streams(channel, chosen)
            if s.owes_within_s is not None
        ]
        assert owing == ["orderbook.1.BTCUSDT"]


@pytest.mark.parametrize("op", ["subscribe", "unsubscribe"])
def test_requests_name_topics_and_a_number(op: str) -> None:
    chosen = instrument("BTCUSDT", "linear")
    streams = [*VENUE.codec.streams("trade", chosen), *VENUE.codec.streams("book", chosen)]
    make = VENUE.codec.subscribe if op == "subscribe" else VENUE.codec.unsubscribe
    frame = make(VENUE.feed("linear"), streams, request_id=12, now_ns=RECEIVED_NS, account=None)
    assert isinstance(frame, str)
    assert orjson.loads(frame) == {
        "req_id": "12",
        "op": op,
        "args": ["publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"],
    }


def test_the_depth_is_a_choice() -> None:
    assert BybitCodec(1000).streams("book", instrument("BTCUSDT", "spot"))[0].name == "orderbook.1000.BTCUSDT"


def test_pings_are_the_applications_own() -> None:
    for feed in VENUE.feeds:
        frame = VENUE.codec.ping(feed, now_ns=RECEIVED_NS)
        assert isinstance(frame, str)
        assert orjson.loads(frame)["op"] == "ping"
        opening = VENUE.codec.open(feed, [], path=feed.path, now_ns=RECEIVED_NS, account=None)
        assert (opening.path, opening.subscribed) == (feed.path, False)


@pytest.mark.parametrize(
    ("status", "body", "wait_s"), [(403, b"access too frequent", 600.0), (403, b"<html>", 300.0), (429, b"", 300.0)]
)  # fmt: skip
def test_a_refused_handshake_may_be_a_ban(status: int, body: bytes, wait_s: float) -> None:
    reply = HttpReply(status=status, body=body, received_ns=1)
    (failed,) = VENUE.codec.refused(VENUE.feed("linear"), reply)
    assert isinstance(failed, Failed)
    assert failed.retry_after_s == wait_s
    assert str(status) in failed.reason


def test_other_refusals_of_a_handshake_are_left_to_their_status() -> None:
    assert VENUE.codec.refused(VENUE.feed("linear"), HttpReply(status=502, body=b"", received_ns=1)) == ()


# --- Login ------------------------------------------------------------------------------------------------


def test_a_login_is_signed_over_the_time_until_which_it_holds() -> None:
    account = Account(name="main", api_key="the-key", api_secret="the-secret")
    (frame,) = VENUE.codec.login(VENUE.feed("private"), now_ns=1_662_350_390_000_000_000, account=account)
    body = orjson.loads(frame)
    assert body["op"] == "auth"
    key, expires, signature = body["args"]
    assert (key, expires) == ("the-key", 1_662_350_400_000)
    assert signature == hmac.new(b"the-secret", b"GET/realtime1662350400000", hashlib.sha256).hexdigest()
    assert "the-secret" not in str(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {"success": True, "ret_msg": "", "op": "auth", "conn_id": "cejreaspqfh3sjdnldmg-p"},
        {"req_id": "login", "success": True, "ret_msg": "", "op": "auth", "conn_id": "x"},
        {"retCode": 0, "retMsg": "OK", "op": "auth", "connId": "x"},
    ],
)
def test_a_login_that_is_accepted(frame: Any) -> None:
    assert say(frame, "private") == [LoggedIn()]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ({"success": False, "ret_msg": "Params Error", "op": "auth", "conn_id": "ct7"}, "Params Error"),
        ({"success": False, "ret_msg": "", "op": "auth", "conn_id": "ct7"}, "refused without a reason"),
        ({"retCode": 10004, "retMsg": "error sign!", "op": "auth", "connId": "x"}, "error sign!"),
    ],
)
def test_a_login_that_is_refused_says_what_to_look_at(frame: Any, reason: str) -> None:
    (refused,) = say(frame, "private")
    assert isinstance(refused, LoginRefused)
    assert refused.reason.startswith(reason)
    assert "clock" in refused.reason
