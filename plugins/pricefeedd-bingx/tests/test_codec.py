"""Frames of each topic and market, and what they become. The literals have the documented and measured forms."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Failed, Refused, Reply
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import HttpReply
from pricefeedd_bingx.codec import BingxCodec
from pricefeedd_bingx.venue import bingx

VENUE = bingx()
NAMES = {
    "spot": {"BTC-USDT": "BTC-USDT", "SHIB-USDT": "SHIB-USDT"},
    "linear": {"BTC-USDT": "BTC-USDT-PERP", "1000PEPE-USDT": "1000PEPE-USDT-PERP"},
}
RECEIVED_NS = 1_790_373_640_000_000_000
T_MS = 1_790_373_600_000


def say(message: Any, market: str = "linear", *, packed: bool = True) -> list[Any]:
    text = message if isinstance(message, bytes) else orjson.dumps(message)
    frame = gzip.compress(text) if packed else text
    return list(
        VENUE.codec.decode(frame, feed=VENUE.feed(market), names=NAMES[market], received_ns=RECEIVED_NS)
    )


def swap(kind: str, data: Any, **more: Any) -> list[Any]:
    return say({"code": 0, "dataType": f"BTC-USDT@{kind}", **more, "data": data})


def spot(kind: str, data: Any, **more: Any) -> list[Any]:
    frame = {"code": 0, "data": data, "dataType": f"BTC-USDT@{kind}", "success": True, **more}
    return say(frame, "spot")


def instrument(symbol: str, market: str) -> Instrument:
    base, _, quote = symbol.rpartition("-")
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    name = spell(base, quote, kind)
    return Instrument(
        venue="bingx", market=market, name=name, symbol=symbol, kind=kind, base=base, quote=quote
    )


# --- Trades -----------------------------------------------------------------------------------------------


def test_spot_trade() -> None:
    row = {
        "E": T_MS + 20,
        "T": T_MS,
        "e": "trade",
        "m": True,
        "p": "121123.47",
        "q": "0.003189",
        "t": "172356086",
    }
    assert spot("trade", row, timestamp=T_MS + 20) == [
        Trade(
            venue="bingx",
            instrument="BTC-USDT",
            venue_time_ns=T_MS * 1_000_000,  # T, the match, and not E, the push
            received_ns=RECEIVED_NS,
            id="172356086",
            price="121123.47",
            size="0.003189",
            aggressor=Side.SELL,
        )
    ]


def test_swap_trades_come_newest_first_and_go_out_oldest_first() -> None:
    rows = [
        {"q": "3", "p": "103.0", "T": T_MS + 5, "m": False, "s": "BTC-USDT"},
        {"q": "2", "p": "102.0", "T": T_MS, "m": True, "s": "BTC-USDT"},
        {"q": "1", "p": "101.0", "T": T_MS, "m": False, "s": "BTC-USDT"},
    ]
    trades = swap("trade", rows)
    assert [(t.price, t.size, t.aggressor) for t in trades] == [
        ("101.0", "1", Side.BUY),
        ("102.0", "2", Side.SELL),
        ("103.0", "3", Side.BUY),
    ]
    assert [t.venue_time_ns for t in trades] == [T_MS * 1_000_000, T_MS * 1_000_000, (T_MS + 5) * 1_000_000]
    assert {t.id for t in trades} == {None}


def test_swap_trades_are_sorted_by_time_whatever_their_order() -> None:
    rows = [{"q": "1", "p": f"{n}", "T": T_MS + n, "m": True} for n in (2, 1, 3)]
    assert [t.price for t in swap("trade", rows)] == ["1", "2", "3"]


def test_no_trades() -> None:
    assert swap("trade", []) == []


def test_older_spot_trades_have_everything_as_texts() -> None:
    row = {"E": str(T_MS), "T": str(T_MS), "e": "trade", "m": "false", "p": "1.5", "q": "2", "t": 77}
    (trade,) = say({"code": 0, "data": row, "dataType": "BTC-USDT@trade", "Success": True}, "spot")
    assert (trade.venue_time_ns, trade.aggressor, trade.id) == (T_MS * 1_000_000, Side.BUY, "77")


# --- Quotes -----------------------------------------------------------------------------------------------


def test_swap_quotes_are_the_best_of_five_levels() -> None:
    bids = [["121825.7", "7.7622"], ["121825.6", "0.0060"], ["121825.4", "0.1234"]]
    asks = [["121827.3", "0.0025"], ["121827.1", "0.0010"], ["121825.9", "9.2345"]]
    assert swap("depth5@500ms", {"bids": bids, "asks": asks}, ts=T_MS) == [
        Quote(
            venue="bingx",
            instrument="BTC-USDT-PERP",
            venue_time_ns=T_MS * 1_000_000,
            received_ns=RECEIVED_NS,
            bid_price="121825.7",
            bid_size="7.7622",
            ask_price="121825.9",
            ask_size="9.2345",
        )
    ]
    (other,) = swap("depth5@500ms", {"bids": bids[::-1], "asks": asks[::-1]}, ts=T_MS)
    assert (other.bid_price, other.ask_price) == ("121825.7", "121825.9"), "either order is understood"


@pytest.mark.parametrize("nothing", [[], None])
def test_a_swap_quote_with_an_empty_side(nothing: Any) -> None:
    (quote,) = swap("depth5@500ms", {"bids": [["1.5", "2"]], "asks": nothing}, ts=T_MS)
    assert (quote.bid_price, quote.bid_size) == ("1.5", "2")
    assert (quote.ask_price, quote.ask_size) == (None, None)


def test_swap_book_ticker() -> None:
    row = {
        "e": "bookTicker",
        "u": 578534658,
        "E": T_MS + 1,
        "T": T_MS,
        "b": "84.1",
        "B": "18.7",
        "a": "84.3",
        "A": "4.9",
    }
    (quote,) = swap("bookTicker", row)
    assert (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size) == (
        "84.1",
        "18.7",
        "84.3",
        "4.9",
    )
    assert (quote.sequence, quote.venue_time_ns) == (578534658, T_MS * 1_000_000)


def test_spot_book_ticker_has_one_time_and_no_number() -> None:
    row = {"A": "0.000016", "B": "4.372149", "E": T_MS, "a": "121348.56", "b": "121342.22", "e": "bookTicker"}
    (quote,) = spot("bookTicker", row)
    assert (quote.bid_price, quote.bid_size) == ("121342.22", "4.372149")
    assert (quote.ask_price, quote.ask_size) == ("121348.56", "0.000016")
    assert (quote.sequence, quote.venue_time_ns) == (None, T_MS * 1_000_000)


def test_a_side_without_size_is_empty() -> None:
    row = {"A": "0.000", "B": "4.3", "E": T_MS, "a": "121348.56", "b": "121342.22"}
    (quote,) = spot("bookTicker", row)
    assert (quote.ask_price, quote.ask_size) == (None, None)
    assert quote.bid_price == "121342.22"


# --- Tickers ----------------------------------------------------------------------------------------------

SWAP_TICKER = {
    "e": "24hTicker", "E": T_MS, "s": "BTC-USDT", "p": "-262.0", "P": "-0.21", "c": "121621.7", "L": "0.0010",
    "h": "124152.9", "l": "121412.0", "v": "17030.6463", "q": "210028.10", "o": "121883.7", "O": T_MS, "C": T_MS,
    "A": "121621.7", "a": "11.3115", "B": "121621.5", "b": "6.4426",
}  # fmt: skip


def test_swap_ticker_is_a_part_and_leaves_out_what_nobody_understands() -> None:
    assert swap("ticker", SWAP_TICKER) == [
        Ticker(
            venue="bingx",
            instrument="BTC-USDT-PERP",
            venue_time_ns=T_MS * 1_000_000,
            received_ns=RECEIVED_NS,
            last="121621.7",
            open_24h="121883.7",
            high_24h="124152.9",
            low_24h="121412.0",
            volume_24h="17030.6463",
            partial=True,
        )
    ]


def test_mark_price_is_the_other_part() -> None:
    (ticker,) = swap("markPrice", {"e": "markPriceUpdate", "E": T_MS, "s": "BTC-USDT", "p": "121570.0"})
    assert (ticker.mark_price, ticker.last, ticker.partial) == ("121570.0", None, True)


def test_spot_ticker_keeps_the_text_of_its_numbers() -> None:
    text = (
        b'{"code":0,"timestamp":1790373600002,"dataType":"BTC-USDT@ticker","data":{"e":"24hTicker","E":1790373600000,'
        b'"s":"BTC-USDT","p":-632.32,"P":"-0.52%","o":121931.93,"h":123750,"l":119666.20,"c":121299.61000000000001,'
        b'"v":3.08749e3,"q":375356180.14,"O":1790287200000,"C":1790373600000,"A":121300,"a":0.000131,"B":1.5,"b":9.29}}'
    )
    (ticker,) = say(text, "spot")
    assert (ticker.last, ticker.open_24h, ticker.high_24h, ticker.low_24h, ticker.volume_24h, ticker.turnover_24h) == (
        "121299.61000000000001", "121931.93", "123750", "119666.20", "3087.49", "375356180.14",
    )  # fmt: skip
    assert not ticker.partial
    assert ticker.venue_time_ns == T_MS * 1_000_000


# --- Candles ----------------------------------------------------------------------------------------------


def test_swap_candle() -> None:
    row = {"c": "121697.7", "o": "121684.1", "h": "121697.8", "l": "121638.7", "v": "5.8244", "T": T_MS}
    assert swap("kline_1m", [row], s="BTC-USDT") == [
        Candle(
            venue="bingx",
            instrument="BTC-USDT-PERP",
            received_ns=RECEIVED_NS,
            start_ns=T_MS * 1_000_000,
            open="121684.1",
            high="121697.8",
            low="121638.7",
            close="121697.7",
            volume="5.8244",
            closed=False,
        )
    ]


def test_several_swap_candles_in_one_frame_come_in_order() -> None:
    rows = [{"c": "1", "o": "1", "h": "1", "l": "1", "v": "1", "T": T_MS + n * 60_000} for n in (1, 0)]
    assert [c.start_ns // 1_000_000 for c in swap("kline_1m", rows)] == [T_MS, T_MS + 60_000]


def test_spot_candle() -> None:
    row = {
        "T": T_MS + 59_999, "t": T_MS, "i": "1min", "s": "BTC-USDT", "n": 4, "o": "121137.946", "c": "121137.93299999999",
        "h": "121137.946", "l": "121137.93299999999", "q": "3131.052371", "v": "0.025847000000000000",
    }  # fmt: skip
    (candle,) = spot("kline_1min", {"E": T_MS + 42_349, "K": row, "e": "kline", "s": "BTC-USDT"})
    assert (candle.start_ns, candle.venue_time_ns) == (T_MS * 1_000_000, (T_MS + 42_349) * 1_000_000)
    assert (candle.close, candle.volume, candle.turnover) == (
        "121137.93299999999",
        "0.025847000000000000",
        "3131.052371",
    )
    assert (candle.trades, candle.closed, candle.interval) == (4, False, "1m")


def test_candles_of_other_intervals_are_passed_over() -> None:
    assert spot("kline_8hour", {"E": 1, "K": {"t": 1}}) == []
    assert swap("kline_5m", [{"T": 1}]) == []


# --- Books ------------------------------------------------------------------------------------------------


def test_swap_book_begins_with_all_and_goes_on_with_updates() -> None:
    bids, asks = (
        [["86378.9", "0.0001"], ["86377.5", "0.0003"]],
        [["86379.1", "87.1230"], ["86379.3", "9.6687"]],
    )
    assert swap(
        "incrDepth", {"action": "all", "lastUpdateId": 857550007, "time": T_MS, "bids": bids, "asks": asks}
    ) == [
        BookSnapshot(
            venue="bingx",
            instrument="BTC-USDT-PERP",
            venue_time_ns=T_MS * 1_000_000,
            received_ns=RECEIVED_NS,
            bids=bids,
            asks=asks,
            sequence=857550007,
        )
    ]
    (delta,) = swap(
        "incrDepth",
        {
            "action": "update",
            "lastUpdateId": 857550010,
            "time": T_MS,
            "bids": [["86377.0", "0.0000"]],
            "asks": [],
        },
    )
    assert isinstance(delta, BookDelta)
    assert (delta.sequence, delta.first_sequence, delta.previous_sequence) == (857550010, None, None)
    assert delta.bids == [["86377.0", "0.0000"]]


def test_spot_changes_are_read_as_those_of_swaps() -> None:
    data = {"action": "update", "lastUpdateId": 5, "bids": None, "asks": [["1.5", "0"]]}
    (delta,) = spot("incrDepth", data, timestamp=T_MS)
    assert isinstance(delta, BookDelta)
    assert (delta.venue_time_ns, delta.bids, delta.asks) == (T_MS * 1_000_000, [], [["1.5", "0"]])


def test_spot_whole_book() -> None:
    bids, asks = [["1.5", "2"], ["1.4", "3"]], [["1.7", "5"], ["1.6", "4"]]
    (book,) = spot("depth100", {"bids": bids, "asks": asks, "lastUpdateId": 14669994934}, timestamp=T_MS)
    assert isinstance(book, BookSnapshot)
    assert (book.bids, book.asks, book.sequence) == (bids, asks, 14669994934)
    assert book.venue_time_ns == T_MS * 1_000_000


def test_an_older_spot_book_has_neither_time_nor_number() -> None:
    (book,) = spot("depth20", {"bids": [], "asks": [["1.7", "5"]]})
    assert (book.venue_time_ns, book.sequence, book.bids) == (None, None, [])


def test_levels_as_numbers_and_with_exponents() -> None:
    text = b'{"code":0,"dataType":"BTC-USDT@depth100","data":{"bids":[[1.5,2],["1E-7","3"]],"asks":[["2","1e+2"]]}}'
    (book,) = say(text, "spot")
    assert [tuple(level) for level in book.bids] == [("1.5", "2"), ("0.0000001", "3")]
    assert [tuple(level) for level in book.asks] == [("2", "100")]


# --- Pings, acks, refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("market", ["linear", "spot"])
def test_pings_of_either_kind_are_answered_on_either_host(market: str) -> None:
    assert say(b"Ping", market) == [Reply("Pong")]
    ping = {"ping": "2177c68e4d0e45679965f482929b59c2", "time": "2022-06-07T16:27:36.323+0800"}
    (reply,) = say(ping, market)
    assert isinstance(reply, Reply)
    assert isinstance(reply.frame, str), "pongs go as text, and not as gzip"
    assert orjson.loads(reply.frame) == {"pong": ping["ping"], "time": ping["time"]}


def test_acks_of_both_forms() -> None:
    assert say({"id": "7", "code": 0, "msg": "", "dataType": "", "data": None}) == [Accepted(request_id=7)]
    ack = {"code": 0, "id": "24", "msg": "SUCCESS", "timestamp": T_MS}
    assert say(ack, "spot") == [Accepted(request_id=24)]


def test_an_ack_of_somebody_elses_request_says_nothing() -> None:
    assert say({"id": "667a6664-6db3-4d09-89f2-66554e29b723", "code": 0, "msg": "", "dataType": ""}) == []


def test_refusals_of_both_forms() -> None:
    error = {"id": "9", "code": 80015, "msg": "dataType not support", "dataType": "", "data": None}
    assert say(error) == [Refused(reason="dataType not support (code 80015)", request_id=9)]
    told = "code:100400:incrDepth dataType is not supported"
    assert say({"code": 100400, "msg": told, "timestamp": T_MS}, "spot") == [
        Refused(reason=f"{told} (code 100400)")
    ]
    full = {"id": "201", "code": 80403, "msg": "your topic num over max 200", "dataType": "", "data": None}
    assert say(full) == [Refused(reason="your topic num over max 200 (code 80403)", request_id=201)]


@pytest.mark.parametrize("code", [100410, 100500, 100503])
def test_trouble_of_the_venue_refuses_no_topic(code: int) -> None:
    assert say({"code": code, "msg": "busy", "timestamp": T_MS}, "spot") == [Failed(f"busy (code {code})")]


def test_the_firewall_is_left_alone_for_five_minutes() -> None:
    reply = HttpReply(status=403, body=b"", received_ns=RECEIVED_NS)
    (failed,) = VENUE.codec.refused(VENUE.feed("spot"), reply)
    assert isinstance(failed, Failed)
    assert failed.retry_after_s == 300
    assert VENUE.codec.refused(VENUE.feed("spot"), HttpReply(status=502, body=b"", received_ns=1)) == ()


# --- Unknown and wrong ------------------------------------------------------------------------------------


def test_unknown_symbols_and_topics_are_passed_over() -> None:
    assert say({"code": 0, "dataType": "ETH-USDT@trade", "data": []}) == []
    assert swap("lastPrice", {"c": "1"}) == []
    assert spot("somethingNew", 7) == []


def test_plain_text_is_read_as_well() -> None:
    frame = orjson.dumps({"code": 0, "dataType": "BTC-USDT@ticker", "data": SWAP_TICKER})
    assert len(say(frame, packed=False)) == 1


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"pong?",
        b"[]",
        b"7",
        b"{}",
        b'{"code":"0"}',
        b'{"code":0,"dataType":7,"data":{}}',
        b'{"code":0,"dataType":"BTC-USDT@trade"}',
        b'{"code":0,"dataType":"BTC-USDT@trade","data":null}',
        b'{"code":0,"dataType":"BTC-USDT@trade","data":[{"q":"1","p":"x","T":1,"m":true}]}',
        b'{"code":0,"dataType":"BTC-USDT@trade","data":[{"q":"1","p":"-1","T":1,"m":true}]}',
        b'{"code":0,"dataType":"BTC-USDT@trade","data":[{"q":"1","p":"1","T":"1.5","m":true}]}',
        b'{"code":0,"dataType":"BTC-USDT@trade","data":[{"q":"1","p":"1","T":1,"m":1}]}',
        b'{"code":0,"dataType":"BTC-USDT@trade","data":[{"q":"1","p":true,"T":1,"m":true}]}',
        b'{"code":0,"dataType":"BTC-USDT@kline_1m","data":[{"c":"1","o":"1","h":"1","l":"1","v":"1","T":59999}]}',
        b'{"code":0,"dataType":"BTC-USDT@incrDepth","data":{"action":"some","lastUpdateId":1,"bids":[],"asks":[]}}',
        b'{"code":0,"dataType":"BTC-USDT@incrDepth","data":{"action":"all","bids":[],"asks":[]}}',
        b'{"code":0,"dataType":"BTC-USDT@incrDepth","data":{"action":"all","lastUpdateId":1,"bids":{},"asks":[]}}',
        b'{"code":0,"dataType":"BTC-USDT@incrDepth","data":{"action":"all","lastUpdateId":1,"bids":[["1"]],"asks":[]}}',
        b'{"code":0,"dataType":"BTC-USDT@depth5@500ms","data":{"bids":[["1","x"]],"asks":[]}}',
        b'{"code":0,"dataType":"BTC-USDT@markPrice","data":{"E":1,"p":null}}',
    ],
)
def test_what_is_not_documented_is_an_error_that_shows_it(frame: bytes) -> None:
    with pytest.raises(DecodeError, match="bad frame"):
        say(frame)


def test_a_gzip_bomb_and_half_a_frame_are_errors() -> None:
    bomb = zlib.compressobj(wbits=31)
    data = bomb.compress(bytes(64 << 20)) + bomb.flush()
    with pytest.raises(DecodeError, match="more than"):
        VENUE.codec.decode(data, feed=VENUE.feed("linear"), names={}, received_ns=1)
    whole = gzip.compress(b'{"code":0}')
    with pytest.raises(DecodeError, match="gzip"):
        VENUE.codec.decode(whole[:-3], feed=VENUE.feed("linear"), names={}, received_ns=1)


# --- Requests ---------------------------------------------------------------------------------------------


def test_topics_by_channel_and_market() -> None:
    def topics(codec: BingxCodec, channel: str, market: str) -> list[str]:
        streams = codec.streams(channel, instrument("BTC-USDT", market))
        assert {s.feed for s in streams} <= {market}
        return [s.name for s in streams]

    codec = BingxCodec()
    assert topics(codec, "trade", "spot") == ["BTC-USDT@trade"]
    assert topics(codec, "quote", "spot") == ["BTC-USDT@bookTicker"]
    assert topics(codec, "ticker", "spot") == ["BTC-USDT@ticker"]
    assert topics(codec, "candle_1m", "spot") == ["BTC-USDT@kline_1min"]
    assert topics(codec, "book", "spot") == ["BTC-USDT@depth100"]
    assert topics(codec, "trade", "linear") == ["BTC-USDT@trade"]
    assert topics(codec, "quote", "linear") == ["BTC-USDT@depth5@500ms"]
    assert topics(codec, "ticker", "linear") == ["BTC-USDT@ticker", "BTC-USDT@markPrice"]
    assert topics(codec, "candle_1m", "linear") == ["BTC-USDT@kline_1m"]
    assert topics(codec, "book", "linear") == ["BTC-USDT@incrDepth"]
    assert topics(codec, "liquidation", "linear") == []
    assert topics(codec, "price", "spot") == []
    other = BingxCodec("bookTicker", "incrDepth")
    assert topics(other, "quote", "linear") == ["BTC-USDT@bookTicker"]
    assert topics(other, "book", "spot") == ["BTC-USDT@incrDepth"]


def test_requests_name_one_topic_and_a_text_id() -> None:
    (stream,) = VENUE.codec.streams("book", instrument("1000PEPE-USDT", "linear"))
    feed = VENUE.feed("linear")
    for what, make in (("sub", VENUE.codec.subscribe), ("unsub", VENUE.codec.unsubscribe)):
        frame = make(feed, [stream], request_id=12, now_ns=1, account=None)
        assert isinstance(frame, str)
        assert orjson.loads(frame) == {"id": "12", "reqType": what, "dataType": "1000PEPE-USDT@incrDepth"}


def test_events_only_of_the_feeds_own_market() -> None:
    message = {"code": 0, "dataType": "BTC-USDT@trade", "data": [{"q": "1", "p": "1", "T": T_MS, "m": True}]}
    (trade,) = say(message)
    assert isinstance(trade, Event)
    assert trade.instrument == "BTC-USDT-PERP"
