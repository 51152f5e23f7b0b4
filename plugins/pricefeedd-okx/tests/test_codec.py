"""Frames of each channel, and what they become; requests, and what their answers mean."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Closing, Refused, Stream
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Liquidation, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd_okx.codec import OkxCodec
from pricefeedd_okx.venue import okx

VENUE = okx()
RECEIVED_NS = 1_790_373_640_000_000_000
NAMES = {
    "BTC-USDT": "BTC-USDT",
    "BTC-USDT-SWAP": "BTC-USDT-PERP",
    "BTC-USD-SWAP": "BTC-USD-PERP",
    "BTC-USD-220527": "BTC-USD-20220527",
}


def say(frame: str | bytes | dict[str, Any], feed: str = "spot-public") -> list[Any]:
    data = orjson.dumps(frame) if isinstance(frame, dict) else frame
    data = data.encode() if isinstance(data, str) else data
    return list(VENUE.codec.decode(data, feed=VENUE.feed(feed), names=NAMES, received_ns=RECEIVED_NS))


def one(frame: str | bytes | dict[str, Any], feed: str = "spot-public") -> Event:
    (event,) = say(frame, feed)
    assert isinstance(event, Event)
    return event


def push(channel: str, symbol: str, *rows: Any, **head: Any) -> dict[str, Any]:
    return {"arg": {"channel": channel, "instId": symbol}, **head, "data": list(rows)}


def instrument(market: str, symbol: str, kind: Kind, quote: str = "USDT") -> Instrument:
    return Instrument(
        venue="okx", market=market, name=symbol, symbol=symbol, kind=kind, base="BTC", quote=quote
    )


SPOT = instrument("spot", "BTC-USDT", Kind.SPOT)
SWAP = instrument("linear", "BTC-USDT-SWAP", Kind.PERPETUAL)
DATED = instrument("inverse", "BTC-USD-261225", Kind.FUTURE, "USD")


# --- Data -------------------------------------------------------------------------------------------------

TRADE = '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"1062992715","px":"83772.6","sz":"0.0000178","side":"buy","ts":"1790358565298","count":"1","source":"1","seqId":81625379835}]}'


def test_trade() -> None:
    assert one(TRADE) == Trade(
        venue="okx",
        instrument="BTC-USDT",
        venue_time_ns=1_790_358_565_298_000_000,
        received_ns=RECEIVED_NS,
        id="1062992715",
        price="83772.6",
        size="0.0000178",
        aggressor=Side.BUY,
    )


def test_a_merged_trade_tells_its_fills() -> None:
    trade = one(TRADE.replace('"count":"1"', '"count":"59"'))
    assert isinstance(trade, Trade)
    assert (trade.id, trade.fills) == ("1062992715", 59)


def test_trades_of_2022_have_no_count() -> None:
    frame = '{"arg":{"channel":"trades","instId":"BTC-USD-220527"},"data":[{"instId":"BTC-USD-220527","tradeId":"7849","px":"30218.8","sz":"1","side":"sell","ts":"1652459199958"}]}'
    trade = one(frame, "inverse-public")
    assert isinstance(trade, Trade)
    assert (trade.instrument, trade.fills, trade.aggressor) == ("BTC-USD-20220527", 1, Side.SELL)


def test_a_single_fill() -> None:
    row = {
        "instId": "BTC-USDT",
        "tradeId": "5",
        "px": "1.50",
        "sz": "2",
        "side": "buy",
        "ts": "1790358565298",
    }
    trade = one(push("trades-all", "BTC-USDT", row), "spot-business")
    assert isinstance(trade, Trade)
    assert (trade.id, trade.price, trade.fills) == ("5", "1.50", 1)


def test_quote() -> None:
    row = {
        "asks": [["8446", "95", "0", "3"]],
        "bids": [["8445.0", "12", "0", "1"]],
        "ts": "1597026383085",
        "seqId": 123456,
    }
    assert one(push("bbo-tbt", "BTC-USDT", row)) == Quote(
        venue="okx",
        instrument="BTC-USDT",
        venue_time_ns=1_597_026_383_085_000_000,
        received_ns=RECEIVED_NS,
        bid_price="8445.0",
        bid_size="12",
        ask_price="8446",
        ask_size="95",
        sequence=123456,
    )


def test_an_empty_side_of_a_quote_is_none() -> None:
    row = {"asks": [], "bids": [["8445.0", "12", "0", "1"]], "ts": "1597026383085", "seqId": 1}
    quote = one(push("bbo-tbt", "BTC-USDT", row))
    assert isinstance(quote, Quote)
    assert (quote.ask_price, quote.ask_size, quote.bid_size) == (None, None, "12")


def test_book_snapshot() -> None:
    row = {
        "asks": [["83800.9", "0.41458754", "0", "10"]],
        "bids": [["83800.80", "0.00662505", "0", "16"]],
        "instId": "BTC-USDT",
        "ts": "1790358602106",
        "seqId": 81625399056,
    }
    assert one(push("books", "BTC-USDT", row, action="snapshot"), "spot-book") == BookSnapshot(
        venue="okx",
        instrument="BTC-USDT",
        venue_time_ns=1_790_358_602_106_000_000,
        received_ns=RECEIVED_NS,
        bids=[("83800.80", "0.00662505")],
        asks=[("83800.9", "0.41458754")],
        sequence=81625399056,
    )


def test_book_update() -> None:
    row = {
        "asks": [["83802", "0", "0", "0"]],
        "bids": [["83800.8", "1.25", "0", "18"]],
        "instId": "BTC-USDT",
        "ts": "1790358602306",
        "checksum": 0,
        "seqId": 81625399057,
        "prevSeqId": 81625399056,
    }
    assert one(push("books", "BTC-USDT", row, action="update"), "spot-book") == BookDelta(
        venue="okx",
        instrument="BTC-USDT",
        venue_time_ns=1_790_358_602_306_000_000,
        received_ns=RECEIVED_NS,
        bids=[("83800.8", "1.25")],
        asks=[("83802", "0")],
        sequence=81625399057,
        previous_sequence=81625399056,
    )


CANDLE = [
    "1629993600000",
    "42500",
    "48199.9",
    "41006.1",
    "41006.10",
    "3587.4",
    "166741046.2",
    "166741047.5",
    "0",
]


@pytest.mark.parametrize(
    ("feed", "symbol", "turnover"),
    [
        ("spot-business", "BTC-USDT", "166741047.5"),
        ("linear-business", "BTC-USDT-SWAP", "166741047.5"),
        ("inverse-business", "BTC-USD-SWAP", "166741046.2"),  # base units
    ],
)
def test_candle(feed: str, symbol: str, turnover: str) -> None:
    assert one(push("candle1m", symbol, CANDLE), feed) == Candle(
        venue="okx",
        instrument=NAMES[symbol],
        venue_time_ns=None,
        received_ns=RECEIVED_NS,
        start_ns=1_629_993_600_000_000_000,
        open="42500",
        high="48199.9",
        low="41006.1",
        close="41006.10",
        volume="3587.4",
        turnover=turnover,
        closed=False,
    )


def test_a_closed_candle_and_the_next_one_in_one_frame() -> None:
    rows = [[*CANDLE[:8], "1"], ["1629993660000", *CANDLE[1:]]]
    closed, running = say(push("candle1m", "BTC-USDT", *rows), "spot-business")
    assert (closed.closed, running.closed) == (True, False)
    assert running.start_ns - closed.start_ns == 60_000_000_000


TICKER = {
    "instType": "SPOT", "instId": "BTC-USDT", "last": "5.123", "lastSz": "100", "askPx": "5.142", "askSz": "25",
    "bidPx": "5.134", "bidSz": "96", "open24h": "4.799", "high24h": "5.458", "low24h": "4.537", "sodUtc0": "4.654",
    "sodUtc8": "5.204", "volCcy24h": "577730.7823", "vol24h": "289425", "ts": "1652459223143",
}  # fmt: skip


def test_ticker() -> None:
    assert one(push("tickers", "BTC-USDT", TICKER)) == Ticker(
        venue="okx",
        instrument="BTC-USDT",
        venue_time_ns=1_652_459_223_143_000_000,
        received_ns=RECEIVED_NS,
        last="5.123",
        open_24h="4.799",
        high_24h="5.458",
        low_24h="4.537",
        volume_24h="289425",
        turnover_24h="577730.7823",
    )


@pytest.mark.parametrize(
    ("feed", "symbol", "turnover"),
    [("linear-public", "BTC-USDT-SWAP", None), ("inverse-public", "BTC-USD-SWAP", "577730.7823")],
)
def test_a_contracts_ticker_is_a_part(feed: str, symbol: str, turnover: str | None) -> None:
    ticker = one(push("tickers", symbol, TICKER), feed)
    assert isinstance(ticker, Ticker)
    assert ticker.partial
    assert ticker.turnover_24h == turnover


@pytest.mark.parametrize(
    ("channel", "row", "fields"),
    [
        ("mark-price", {"markPx": "83679.8"}, {"mark_price": "83679.8"}),
        (
            "open-interest",
            {"oi": "2874486.99000000925", "oiCcy": "1"},
            {"open_interest": "2874486.99000000925"},
        ),
        (
            "funding-rate",
            {"fundingRate": "-0.0000263463215391", "fundingTime": "1790380800000"},
            {"funding_rate": "-0.0000263463215391", "next_funding_ns": 1_790_380_800_000_000_000},
        ),
        ("funding-rate", {"fundingRate": "", "fundingTime": ""}, {}),
    ],
)
def test_parts_of_a_contracts_ticker(channel: str, row: dict[str, Any], fields: dict[str, Any]) -> None:
    frame = push(channel, "BTC-USDT-SWAP", {"instId": "BTC-USDT-SWAP", "ts": "1790358817778", **row})
    assert one(frame, "linear-public") == Ticker(
        venue="okx",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1_790_358_817_778_000_000,
        received_ns=RECEIVED_NS,
        partial=True,
        **fields,
    )


def test_the_index_is_its_swaps() -> None:
    frame = push(
        "index-tickers", "BTC-USDT", {"instId": "BTC-USDT", "idxPx": "83043.9", "ts": "1790757203066"}
    )
    ticker = one(frame, "linear-public")
    assert isinstance(ticker, Ticker)
    assert (ticker.instrument, ticker.index_price, ticker.partial) == ("BTC-USDT-PERP", "83043.9", True)


def test_liquidations_go_by_the_row() -> None:
    def row(symbol: str, *sides: str) -> dict[str, Any]:
        orders = [{"bkPx": "0.007831", "side": side, "sz": "13", "ts": "1692266434010"} for side in sides]
        return {"details": orders, "instId": symbol, "instType": "SWAP"}

    rows = [row("BTC-USDT-SWAP", "buy", "sell"), row("NO-SUCH-SWAP", "buy")]
    frame = {"arg": {"channel": "liquidation-orders", "instType": "SWAP"}, "data": rows}
    first, second = say(frame, "linear-public")
    assert first == Liquidation(
        venue="okx",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1_692_266_434_010_000_000,
        received_ns=RECEIVED_NS,
        price="0.007831",
        size="13",
        side=Side.BUY,  # the order that closes a short
    )
    assert second.side is Side.SELL


def test_unknown_channels_and_symbols_are_passed_over() -> None:
    assert say(push("books5", "BTC-USDT", {"asks": []})) == []
    assert say(push("trades", "NO-SUCH", {"nonsense": 1})) == []
    assert say(push("trades", "BTC-USDT")) == []


def test_pong_is_nothing() -> None:
    assert say("pong") == []


# --- Bad frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "ping",
        "[]",
        "null",
        "5",
        "{}",
        '{"data":[]}',
        '{"arg":{"channel":"trades"},"data":[{}]}',
        '{"arg":{"channel":"trades","instId":["x"]},"data":[]}',
        '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":5}',
        TRADE.replace('"1062992715"', "1062992715"),
        TRADE.replace('"1062992715"', '"abc"'),
        TRADE.replace('"83772.6"', "83772.6"),
        TRADE.replace('"83772.6"', '"-1"'),
        TRADE.replace('"83772.6"', '""'),
        TRADE.replace('"buy"', '"long"'),
        TRADE.replace('"1790358565298"', "1790358565298"),
        TRADE.replace('"1790358565298"', '""'),
        TRADE.replace('"count":"1"', '"count":"0"'),
        TRADE[:-1],
        '{"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1"]]}',
        '{"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1","1","1","1","1","1","1","1","2"]]}',
        '{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":{},"bids":[],"ts":"1"}]}',
        '{"event":"error"}',
        '{"event":"subscribe","arg":{"channel":"trades"}}',
    ],
)
def test_what_the_venue_does_not_document_is_refused(frame: str) -> None:
    with pytest.raises(DecodeError, match="bad frame"):
        say(frame)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"asks": [], "bids": [], "ts": 5},
        {"asks": [], "bids": None, "ts": "5"},
        {"asks": [["1"]], "bids": [], "ts": "5"},
        {"asks": [["", "1", "0", "1"]], "bids": [], "ts": "5"},
        {"asks": [["1", "", "0", "1"]], "bids": [], "ts": "5"},
        {"asks": [["x", "1", "0", "1"]], "bids": [], "ts": "5"},
        {"asks": [[1, "1", "0", "1"]], "bids": [], "ts": "5"},
        {"asks": [], "bids": [], "ts": "5", "seqId": "7"},
        {"asks": [], "bids": [], "ts": "5", "checksum": 0.5},
    ],
)
def test_books_of_the_wrong_shape_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        say(push("books", "BTC-USDT", row, action="update"), "spot-book")


@pytest.mark.parametrize("head", [{}, {"action": "insert"}])
def test_a_book_is_a_snapshot_or_an_update(head: dict[str, Any]) -> None:
    row = {"asks": [], "bids": [], "ts": "5", "seqId": 7}
    with pytest.raises(DecodeError):
        say(push("books", "BTC-USDT", row, **head), "spot-book")


# --- Answers ----------------------------------------------------------------------------------------------


def test_each_arg_has_an_ack() -> None:
    ack = (
        '{"id":"1512","event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"a4d3ae55"}'
    )
    assert say(ack) == [Accepted(request_id=1512, streams=("trades:BTC-USDT",))]
    old = '{"event":"subscribe","arg":{"channel":"liquidation-orders","instType":"SWAP"}}'
    assert say(old) == [Accepted(streams=("liquidation-orders:SWAP",))]


def test_an_error_names_its_stream_in_words_if_at_all() -> None:
    reason = "Subscribe failed, wrong URL or channel:candle1m,instId:BTC-USDT doesn't exist. Please use the correct URL, channel and parameters referring to API document."
    error = {"event": "error", "msg": reason, "code": "60018", "connId": "e1f69f02"}
    assert say(error) == [Refused(reason=f"{reason} (code 60018)", streams=("candle1m:BTC-USDT",))]
    (refused,) = say({"id": "9", **error, "msg": "Invalid request: {}", "code": "60012"})
    assert refused == Refused(reason="Invalid request: {} (code 60012)", request_id=9)


@pytest.mark.parametrize("code", ["60014", "64007"])
def test_what_may_pass_is_put_off(code: str) -> None:
    (refused,) = say({"id": "9", "event": "error", "code": code, "msg": "later", "connId": "x"})
    assert refused.request_id == 9
    assert refused.retry_after_s >= 30


def test_answers_to_unsubscribing_are_nothing() -> None:
    arg = {"channel": "trades", "instId": "BTC-USDT"}
    assert say({"id": "u9", "event": "unsubscribe", "arg": arg, "connId": "x"}) == []
    assert say({"id": "u9", "event": "error", "code": "60018", "msg": "no", "connId": "x"}) == []


def test_an_upgrade_is_announced_and_other_events_are_passed_over() -> None:
    notice = {"event": "notice", "code": "64008", "msg": "The connection will soon be closed.", "connId": "x"}
    assert say(notice) == [Closing("The connection will soon be closed.")]
    assert say({**notice, "code": "64999"}) == []
    assert say({"event": "channel-conn-count", "channel": "orders", "connCount": "2", "connId": "x"}) == []


# --- Requests ---------------------------------------------------------------------------------------------


def test_requests() -> None:
    feed = VENUE.feed("linear-public")
    streams = [Stream(feed=feed.name, name=n) for n in ("bbo-tbt:BTC-USDT-SWAP", "liquidation-orders:SWAP")]
    options: dict[str, Any] = {"request_id": 7, "now_ns": 1, "account": None}
    args = [
        {"channel": "bbo-tbt", "instId": "BTC-USDT-SWAP"},
        {"channel": "liquidation-orders", "instType": "SWAP"},
    ]
    sent = VENUE.codec.subscribe(feed, streams, **options)
    assert orjson.loads(sent) == {"id": "7", "op": "subscribe", "args": args}
    sent = VENUE.codec.unsubscribe(feed, streams, **options)
    assert orjson.loads(sent) == {"id": "u7", "op": "unsubscribe", "args": args}
    assert VENUE.codec.ping(feed, now_ns=1) == "ping"


@pytest.mark.parametrize(
    ("channel", "instrument", "streams"),
    [
        ("trade", SPOT, ["spot-public trades:BTC-USDT"]),
        ("quote", SWAP, ["linear-public bbo-tbt:BTC-USDT-SWAP"]),
        ("book", DATED, ["inverse-book books:BTC-USD-261225"]),
        ("candle_1m", SWAP, ["linear-business candle1m:BTC-USDT-SWAP"]),
        ("ticker", SPOT, ["spot-public tickers:BTC-USDT"]),
        (
            "ticker",
            SWAP,
            [
                "linear-public tickers:BTC-USDT-SWAP",
                "linear-public mark-price:BTC-USDT-SWAP",
                "linear-public open-interest:BTC-USDT-SWAP",
                "linear-public funding-rate:BTC-USDT-SWAP",
                "linear-public index-tickers:BTC-USDT",
            ],
        ),
        (
            "ticker",
            DATED,
            [
                "inverse-public tickers:BTC-USD-261225",
                "inverse-public mark-price:BTC-USD-261225",
                "inverse-public open-interest:BTC-USD-261225",
            ],
        ),
        ("liquidation", SPOT, []),
        ("liquidation", SWAP, ["linear-public liquidation-orders:SWAP"]),
        ("liquidation", DATED, ["inverse-public liquidation-orders:FUTURES"]),
        ("price", SPOT, []),
    ],
)
def test_streams(channel: str, instrument: Instrument, streams: list[str]) -> None:
    found = VENUE.codec.streams(channel, instrument)
    assert [f"{stream.feed} {stream.name}" for stream in found] == streams


def test_single_fills_are_on_the_business_endpoint() -> None:
    (stream,) = OkxCodec("trades-all").streams("trade", SWAP)
    assert (stream.feed, stream.name) == ("linear-business", "trades-all:BTC-USDT-SWAP")
