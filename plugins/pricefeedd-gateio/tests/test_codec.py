"""Frames to events and signals, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Closing, Failed, Refused, Signal
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Liquidation, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd_gateio.codec import GateioCodec, any_time_ns, plain
from pricefeedd_gateio.venue import gateio

VENUE = gateio()
NAMES = {"BTC_USDT": "BTC-USDT", "ETH_USDT": "ETH-USDT"}
MS = 1_000_000
RECEIVED_NS = 1_790_359_171_200 * MS


def say(
    feed: str, message: Any, names: Mapping[str, str] = NAMES, received_ns: int = RECEIVED_NS
) -> list[Event | Signal]:
    frame = message if isinstance(message, bytes) else orjson.dumps(message)
    return list(VENUE.codec.decode(frame, feed=VENUE.feed(feed), names=names, received_ns=received_ns))


def update(channel: str, result: Any, **others: Any) -> dict[str, Any]:
    head = {"time": 1790359171, "time_ms": 1790359171120, "channel": channel, "event": "update"}
    return head | others | {"result": result}


def instrument(market: str, symbol: str = "BTC_USDT", settle: str = "USDT") -> Instrument:
    base, _, quote = symbol.rpartition("_")
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="gateio",
        market=market,
        name=spell(base, quote, kind),
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
        settle=settle,
    )


SPOT_TRADE = {
    "id": 220643714,
    "id_market": 7,
    "create_time": 1790359171,
    "create_time_ms": "1790359171119.653000",
    "side": "sell",
    "currency_pair": "BTC_USDT",
    "amount": "0.002984",
    "price": "83790.9",
    "range": "7-7",
    "trade_mode": 0,
}
FUTURES_TRADE = {
    "id": 842235619,
    "size": "-3",
    "create_time": 1790359195,
    "create_time_ms": 1790359195732,
    "price": "83746.9",
    "contract": "BTC_USDT",
}
QUOTE = {
    "t": 1790359172017,
    "u": 48733182,
    "s": "BTC_USDT",
    "b": "83790.8",
    "B": "0.6",
    "a": "83790.9",
    "A": "1.7",
}
SPOT_CANDLE = {
    "t": "1606292580",
    "v": "2362.32035",
    "c": "19128.1",
    "h": "19129.1",
    "l": "19127.1",
    "o": "19128.0",
    "n": "1m_BTC_USDT",
    "a": "3.8283",
    "w": True,
}
FUTURES_CANDLE = {
    "t": 1545129300,
    "v": "27525555",
    "c": "95.4",
    "h": "96.9",
    "l": "89.5",
    "o": "94.3",
    "n": "1m_BTC_USDT",
    "a": "314732.87412",
    "w": True,
}


# --- Streams and requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "spot", "linear"),
    [
        (20, "order_book_update:BTC_USDT:20ms", "order_book_update:BTC_USDT:20ms:20"),
        (50, "obu:ob.BTC_USDT.50", "obu:ob.BTC_USDT.50"),
        (100, "order_book_update:BTC_USDT:100ms", "order_book_update:BTC_USDT:100ms:100"),
        (400, "obu:ob.BTC_USDT.400", "obu:ob.BTC_USDT.400"),
    ],
)
def test_streams_of_books(depth: int, spot: str, linear: str) -> None:
    codec = GateioCodec(depth)
    assert [s.name for s in codec.streams("book", instrument("spot"))] == [spot]
    assert [s.name for s in codec.streams("book", instrument("linear"))] == [linear]


def test_streams_of_the_other_channels() -> None:
    names = {
        channel: [s.name for s in VENUE.codec.streams(channel, instrument("linear"))]
        for channel in ("trade", "quote", "ticker", "candle_1m", "liquidation", "price", "candle_5m")
    }
    assert names == {
        "trade": ["trades:BTC_USDT"],
        "quote": ["book_ticker:BTC_USDT"],
        "ticker": ["tickers:BTC_USDT"],
        "candle_1m": ["candlesticks:1m:BTC_USDT"],
        "liquidation": ["public_liquidates:BTC_USDT"],
        "price": [],
        "candle_5m": [],
    }
    assert VENUE.codec.streams("liquidation", instrument("spot")) == ()


@pytest.mark.parametrize(
    ("market", "symbol", "settle", "feed"),
    [
        ("spot", "BTC_USDT", "USDT", "spot"),
        ("linear", "BTC_USDT", "USDT", "linear"),
        ("linear", "BTC_USD1", "USD1", "linear-usd1"),
        ("inverse", "BTC_USD", "BTC", "inverse"),
    ],
)
def test_a_connection_serves_one_settle_currency(market: str, symbol: str, settle: str, feed: str) -> None:
    (stream,) = VENUE.codec.streams("trade", instrument(market, symbol, settle))
    assert stream.feed == feed


def request(method: str, channel: str, *symbols: str, market: str = "spot", depth: int = 400) -> Any:
    codec = GateioCodec(depth)
    streams = [s for symbol in symbols for s in codec.streams(channel, instrument(market, symbol))]
    make = codec.subscribe if method == "subscribe" else codec.unsubscribe
    frame = make(VENUE.feed(market), streams, request_id=7, now_ns=1_790_359_171_999_999_999, account=None)
    return orjson.loads(frame)


def test_lists_share_a_request() -> None:
    assert request("subscribe", "trade", "BTC_USDT", "ETH_USDT") == {
        "time": 1790359171,
        "id": 7,
        "channel": "spot.trades",
        "event": "subscribe",
        "payload": ["BTC_USDT", "ETH_USDT"],
    }
    assert request("unsubscribe", "book", "BTC_USDT", market="linear") == {
        "time": 1790359171,
        "id": 7,
        "channel": "futures.obu",
        "event": "unsubscribe",
        "payload": ["ob.BTC_USDT.400"],
    }


@pytest.mark.parametrize(
    ("market", "channel", "payload"),
    [
        ("spot", "candle_1m", ["1m", "BTC_USDT"]),
        ("spot", "book", ["BTC_USDT", "100ms"]),
        ("linear", "book", ["BTC_USDT", "100ms", "100"]),
    ],
)
def test_arguments_for_one_symbol_go_alone(market: str, channel: str, payload: list[str]) -> None:
    assert request("subscribe", channel, "BTC_USDT", market=market, depth=100)["payload"] == payload
    codec = GateioCodec(100)
    groups = [s.group for name in NAMES for s in codec.streams(channel, instrument(market, name))]
    assert len(set(groups)) == 2


def test_pings_are_the_applications_own() -> None:
    for feed, channel in (("spot", "spot.ping"), ("linear", "futures.ping"), ("inverse", "futures.ping")):
        frame = VENUE.codec.ping(VENUE.feed(feed), now_ns=1_790_359_171_999_999_999)
        assert frame is not None
        assert orjson.loads(frame) == {"time": 1790359171, "channel": channel}


# --- Trades -----------------------------------------------------------------------------------------------


def test_a_spot_trade() -> None:
    assert say("spot", update("spot.trades", SPOT_TRADE)) == [
        Trade(
            venue="gateio",
            instrument="BTC-USDT",
            venue_time_ns=1_790_359_171_119_653_000,
            received_ns=RECEIVED_NS,
            id="7",
            price="83790.9",
            size="0.002984",
            aggressor=Side.SELL,
        )
    ]


def test_a_spot_trade_of_2021_has_one_id_only() -> None:
    row = {key: SPOT_TRADE[key] for key in SPOT_TRADE if key not in ("id_market", "range", "trade_mode")}
    (trade,) = say(
        "spot", update("spot.trades", row | {"side": "buy", "create_time_ms": "1619093546958.116"})
    )
    assert isinstance(trade, Trade)
    assert (trade.id, trade.aggressor) == ("220643714", Side.BUY)
    assert trade.venue_time_ns == 1_619_093_546_958_116_000


@pytest.mark.parametrize(
    ("size", "plain_size", "side"),
    [
        (-3, "3", Side.SELL),
        (108, "108", Side.BUY),
        ("-108", "108", Side.SELL),
        ("0.5", "0.5", Side.BUY),
        ("-1E-7", "0.0000001", Side.SELL),
        (-0.5, "0.5", Side.SELL),
    ],
)
def test_a_futures_trade_tells_its_side_by_a_sign(size: Any, plain_size: str, side: Side) -> None:
    (trade,) = say("linear", update("futures.trades", [FUTURES_TRADE | {"size": size}]))
    assert trade == Trade(
        venue="gateio",
        instrument="BTC-USDT",
        venue_time_ns=1790359195732 * MS,
        received_ns=RECEIVED_NS,
        id="842235619",
        price="83746.9",
        size=plain_size,
        aggressor=side,
    )


def test_internal_trades_are_left_out() -> None:
    rows = [FUTURES_TRADE | {"is_internal": True}, FUTURES_TRADE | {"id": 2, "is_internal": False}]
    assert [t.id for t in say("linear", update("futures.trades", rows)) if isinstance(t, Trade)] == ["2"]


# --- Quotes, tickers, candles -----------------------------------------------------------------------------


@pytest.mark.parametrize("feed", ["spot", "linear", "inverse"])
def test_a_quote(feed: str) -> None:
    channel = "spot.book_ticker" if feed == "spot" else "futures.book_ticker"
    assert say(feed, update(channel, QUOTE)) == [
        Quote(
            venue="gateio",
            instrument="BTC-USDT",
            venue_time_ns=1790359172017 * MS,
            received_ns=RECEIVED_NS,
            bid_price="83790.8",
            bid_size="0.6",
            ask_price="83790.9",
            ask_size="1.7",
            sequence=48733182,
        )
    ]


@pytest.mark.parametrize(
    "empty", [{"b": "", "B": 0}, {"b": "", "B": "0"}, {"b": "", "B": ""}, {"b": "1", "B": "0.00"}]
)
def test_a_side_that_is_empty(empty: dict[str, Any]) -> None:
    (quote,) = say("linear", update("futures.book_ticker", QUOTE | {"A": 65} | empty))
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.bid_size) == (None, None)
    assert (quote.ask_price, quote.ask_size) == ("83790.9", "65")


def test_a_spot_ticker_has_the_frames_time() -> None:
    row = {
        "currency_pair": "BTC_USDT",
        "last": "10.42",
        "lowest_ask": "10.63",
        "highest_bid": "10.2",
        "change_percentage": "-5.6088",
        "base_volume": "3832.335432775",
        "quote_volume": "39909.05175673985",
        "high_24h": "11.5",
        "low_24h": "9.86",
    }
    (ticker,) = say("spot", update("spot.tickers", row))
    assert ticker == Ticker(
        venue="gateio",
        instrument="BTC-USDT",
        venue_time_ns=1790359171120 * MS,
        received_ns=RECEIVED_NS,
        last="10.42",
        high_24h="11.5",
        low_24h="9.86",
        volume_24h="3832.335432775",
        turnover_24h="39909.05175673985",
    )
    old = {"time": 1619093554, "channel": "spot.tickers", "event": "update", "result": row}
    (ticker,) = say("spot", old)
    assert isinstance(ticker, Ticker)
    assert ticker.venue_time_ns == 1_619_093_554_000_000_000


def test_futures_tickers() -> None:
    row = {
        "contract": "BTC_USDT",
        "last": "118.4",
        "change_percentage": "0.77",
        "funding_rate": "-0.000114",
        "funding_rate_indicative": "0.01875",
        "mark_price": "118.35",
        "index_price": "118.36",
        "total_size": 73648,
        "volume_24h": "745487577",
        "volume_24h_base": "117",
        "volume_24h_quote": "419950",
        "volume_24h_settle": "419951",
        "quanto_base_rate": "",
        "low_24h": "99.2",
        "high_24h": "132.5",
        "funding_next_apply": 1790380800,
        "t": 1790359171100,
    }
    (ticker, bare) = say(
        "linear", update("futures.tickers", [row, {"contract": "ETH_USDT", "last": 5, "funding_rate": ""}])
    )
    assert ticker == Ticker(
        venue="gateio",
        instrument="BTC-USDT",
        venue_time_ns=1790359171100 * MS,
        received_ns=RECEIVED_NS,
        last="118.4",
        high_24h="132.5",
        low_24h="99.2",
        volume_24h="745487577",
        turnover_24h="419951",
        mark_price="118.35",
        index_price="118.36",
        funding_rate="-0.000114",
        next_funding_ns=1790380800 * 1_000_000_000,
        open_interest="73648",
    )
    assert isinstance(bare, Ticker)
    assert (bare.last, bare.funding_rate, bare.venue_time_ns) == ("5", None, 1790359171120 * MS)


def test_a_spot_candle_calls_its_turnover_v() -> None:
    assert say("spot", update("spot.candlesticks", SPOT_CANDLE)) == [
        Candle(
            venue="gateio",
            instrument="BTC-USDT",
            venue_time_ns=1790359171120 * MS,
            received_ns=RECEIVED_NS,
            start_ns=1606292580 * 1_000_000_000,
            open="19128.0",
            high="19129.1",
            low="19127.1",
            close="19128.1",
            volume="3.8283",
            turnover="2362.32035",
            closed=True,
        )
    ]


def test_a_futures_candle_counts_contracts() -> None:
    assert say("linear", update("futures.candlesticks", [FUTURES_CANDLE])) == [
        Candle(
            venue="gateio",
            instrument="BTC-USDT",
            venue_time_ns=1790359171120 * MS,
            received_ns=RECEIVED_NS,
            start_ns=1545129300 * 1_000_000_000,
            open="94.3",
            high="96.9",
            low="89.5",
            close="95.4",
            volume="27525555",
            turnover=None,
            closed=True,
        )
    ]


@pytest.mark.parametrize("name", ["5m_BTC_USDT", "1m_mark_BTC_USDT", "1m_index_BTC_USDT", "1m_NOPE_USDT"])
def test_candles_of_others_are_passed_over(name: str) -> None:
    assert say("spot", update("spot.candlesticks", SPOT_CANDLE | {"n": name})) == []
    assert say("linear", update("futures.candlesticks", [FUTURES_CANDLE | {"n": name}])) == []


# --- Books ------------------------------------------------------------------------------------------------


def test_a_spot_delta() -> None:
    row = {
        "t": 1790359183017,
        "l": "100",
        "e": "depthUpdate",
        "E": 1790359183,
        "s": "BTC_USDT",
        "U": 48776301,
        "u": 48776306,
        "b": [["2666.4", "0.0001"], ["2666.1", "0"]],
        "a": [],
    }
    assert say("spot", update("spot.order_book_update", row)) == [
        BookDelta(
            venue="gateio",
            instrument="BTC-USDT",
            venue_time_ns=1790359183017 * MS,
            received_ns=RECEIVED_NS,
            bids=[["2666.4", "0.0001"], ["2666.1", "0"]],
            asks=[],
            sequence=48776306,
            first_sequence=48776301,
        )
    ]
    (book,) = say("spot", update("spot.order_book_update", row | {"full": True}))
    assert isinstance(book, BookSnapshot)
    assert book.sequence == 48776306


def test_a_futures_delta_has_levels_with_names() -> None:
    row = {
        "U": 6160001,
        "a": [{"p": "0.7395", "s": 0}],
        "b": [{"p": "0.7394", "s": "12.5"}, {"p": "7E-1", "s": 3}],
        "s": "BTC_USDT",
        "t": 1684930170297,
        "u": 6160001,
    }
    (delta,) = say("linear", update("futures.order_book_update", row))
    assert isinstance(delta, BookDelta)
    assert [tuple(level) for level in delta.bids] == [("0.7394", "12.5"), ("0.7", "3")]
    assert [tuple(level) for level in delta.asks] == [("0.7395", "0")]


def test_obu_begins_with_the_whole_and_leaves_out_what_did_not_change() -> None:
    whole = b'{"channel":"futures.obu","result":{"t":1743673026995,"full":true,"s":"ob.BTC_USDT.400","u":79072179673,"b":[["83705.9","30166"]],"a":[["83706","4208"]]},"time_ms":1743673026999}'
    delta = b'{"channel":"futures.obu","result":{"t":1743673027017,"s":"ob.BTC_USDT.400","U":79072179674,"u":79072179694,"b":[["83702.2","62"],["83702.1","0"]]},"time_ms":1743673027020}'
    (first,), (second,) = say("linear", whole), say("linear", delta)
    assert isinstance(first, BookSnapshot)
    assert (first.sequence, first.bids, first.asks) == (
        79072179673,
        [["83705.9", "30166"]],
        [["83706", "4208"]],
    )
    assert isinstance(second, BookDelta)
    assert (second.first_sequence, second.sequence) == (79072179674, 79072179694)
    assert (list(second.bids), list(second.asks)) == ([["83702.2", "62"], ["83702.1", "0"]], [])


def test_symbols_with_dots_and_letters_of_their_own() -> None:
    message = {"channel": "spot.obu", "result": {"t": 1, "full": True, "s": "ob.A.B_USDT.50", "u": 5}}
    (book,) = say("spot", message, {"A.B_USDT": "A.B-USDT"})
    assert isinstance(book, BookSnapshot)
    assert (book.instrument, list(book.bids), list(book.asks)) == ("A.B-USDT", [], [])


# --- Liquidations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [{"time": 1541486601123}, {"time": 1541486601, "time_ms": 1541486601123}])
def test_liquidations(time: dict[str, int]) -> None:
    rows = [
        {"price": "215.1", "size": "-124.5", "contract": "BTC_USDT"} | time,
        {"price": 215.2, "size": 10, "contract": "ETH_USDT", "time": 1541486601},
        {"price": "1", "size": "1", "contract": "NOPE_USDT", "time": 1541486601},
    ]
    first, second = say("linear", update("futures.public_liquidates", rows))
    assert first == Liquidation(
        venue="gateio",
        instrument="BTC-USDT",
        venue_time_ns=1541486601123 * MS,
        received_ns=RECEIVED_NS,
        price="215.1",
        size="124.5",
        side=Side.SELL,
    )
    assert isinstance(second, Liquidation)
    assert (second.price, second.size, second.side) == ("215.2", "10", Side.BUY)
    assert second.venue_time_ns == 1541486601 * 1000 * MS


# --- Answers and notices ----------------------------------------------------------------------------------


def answer(channel: str = "spot.trades", **others: Any) -> dict[str, Any]:
    head = {"time": 1790359171, "time_ms": 1790359171120, "channel": channel, "event": "subscribe"}
    return head | others


@pytest.mark.parametrize(
    ("message", "signals"),
    [
        (answer(id=7, payload=["BTC_USDT"], result={"status": "success"}), [Accepted(request_id=7)]),
        (answer(id=7, error=None, result={"status": "success"}), [Accepted(request_id=7)]),
        (
            answer(payload=["BTC_USDT"], result={"status": "success"}),
            [Accepted(streams=("trades:BTC_USDT",))],
        ),
        (
            answer("spot.candlesticks", payload=["1m", "BTC_USDT"], result={"status": "success"}),
            [Accepted(streams=("candlesticks:1m:BTC_USDT",))],
        ),
        (answer(result={"status": "success"}), [Accepted()]),
        (answer(id=7, event="unsubscribe", result={"status": "success"}), []),
        (answer(id=7, event="unsubscribe", error={"code": 2, "message": "x"}, result=None), []),
        (answer("spot.pong", event="", result=None), []),
        (answer("futures.system", event="update", result={"type": "other"}), []),
        (answer("spot.orders", event="update", result=[]), []),
    ],
)
def test_answers(message: dict[str, Any], signals: list[Signal]) -> None:
    assert say("spot", message) == signals


def refusal(code: int, message: str, *payload: str, channel: str = "spot.trades", **others: Any) -> Any:
    error = {"code": code, "message": message}
    return answer(channel, payload=list(payload), error=error, result={"status": "fail"}) | others


@pytest.mark.parametrize(
    ("message", "signals"),
    [
        (
            refusal(2, "unknown currency pair NO_PE", "NO_PE", id=7),
            [Refused(reason="unknown currency pair NO_PE (code 2)", request_id=7)],
        ),
        (
            refusal(2, "unknown currency pair NO_PE", "BTC_USDT", "NO_PE", id=7),
            [
                Refused(
                    reason="unknown currency pair NO_PE (code 2)",
                    request_id=7,
                    streams=("trades:NO_PE",),
                    others_lost=True,
                )
            ],
        ),
        (
            refusal(1, "request payload does not follow json schema", "BTC_USDT", "ETH_USDT", id=7),
            [Refused(reason="request payload does not follow json schema (code 1)", request_id=7)],
        ),
        (
            refusal(2, "Alert sub ob.BTC_USDT.400", "ob.BTC_USDT.400", channel="spot.obu", id=7),
            [Accepted(request_id=7)],
        ),
        (
            refusal(2, "Alert sub ob.BTC_USDT.400", "ob.BTC_USDT.400", channel="spot.obu"),
            [Accepted(streams=("obu:ob.BTC_USDT.400",))],
        ),
        (
            refusal(3, "internal error", "BTC_USDT", id=7),
            [Refused(reason="internal error (code 3)", request_id=7, retry_after_s=30.0)],
        ),
        (
            {
                "time": 1790359171,
                "channel": "",
                "event": "",
                "error": {"code": 1, "message": "bad"},
                "result": None,
            },
            [Refused(reason="bad (code 1)")],
        ),
    ],
)
def test_refusals(message: dict[str, Any], signals: list[Signal]) -> None:
    assert say("spot", message) == signals


@pytest.mark.parametrize(("ahead_s", "words"), [(90, "90 s ahead of"), (-3600, "3600 s behind")])
def test_a_wrong_clock_is_told(ahead_s: int, words: str) -> None:
    message = refusal(2, "request time is out of range", "BTC_USDT", id=7)
    (signal,) = say("spot", message, received_ns=(1790359171 + ahead_s) * 1000 * MS)
    assert isinstance(signal, Failed)
    assert words in signal.reason


@pytest.mark.parametrize(
    "message",
    [
        {"type": "upgrade", "msg": "soon"},
        {
            "time": 1,
            "channel": "futures.system",
            "event": "update",
            "result": {"type": "upgrade", "msg": "soon"},
        },
        {"time": 1, "channel": "spot.trades", "event": "upgrade", "msg": "soon"},
    ],
)
def test_an_upgrade_is_announced(message: dict[str, Any]) -> None:
    assert say("spot", message) == [Closing("soon")]


# --- Bad frames -------------------------------------------------------------------------------------------


def bad_frames() -> Sequence[Any]:
    return [
        b"",
        b"null",
        b"[]",
        b"not json",
        b"{",
        update("spot.trades", None),
        update("spot.trades", []),
        update("spot.trades", SPOT_TRADE | {"price": 83790.9, "amount": None}),
        update("spot.trades", SPOT_TRADE | {"price": "-1"}),
        update("spot.trades", SPOT_TRADE | {"side": "taker"}),
        update("spot.trades", SPOT_TRADE | {"create_time_ms": "1.2.3"}),
        update("spot.trades", SPOT_TRADE | {"id_market": "x"}),
        update("futures.trades", {"contract": "BTC_USDT"}),
        update("futures.trades", [FUTURES_TRADE | {"size": ""}]),
        update("futures.trades", [FUTURES_TRADE | {"size": "--3"}]),
        update("futures.trades", [FUTURES_TRADE | {"size": True}]),
        update("futures.trades", [FUTURES_TRADE | {"id": "7"}]),
        update("spot.book_ticker", QUOTE | {"u": "1"}),
        update("spot.book_ticker", QUOTE | {"b": "x"}),
        update("spot.tickers", {"currency_pair": "BTC_USDT", "last": "x"}),
        update("spot.candlesticks", SPOT_CANDLE | {"t": "1606292581"}),
        update("spot.candlesticks", SPOT_CANDLE | {"w": "true"}),
        update("spot.candlesticks", SPOT_CANDLE | {"a": None}),
        update("futures.candlesticks", [FUTURES_CANDLE | {"t": "1545129300"}]),
        update("spot.order_book_update", {"s": "BTC_USDT", "t": 1, "u": 5, "b": [], "a": []}),
        update("spot.order_book_update", {"s": "BTC_USDT", "t": 1, "U": 5, "u": 5, "b": {}, "a": []}),
        update("spot.order_book_update", {"s": "BTC_USDT", "t": 1, "U": 5, "u": 5, "b": [["1"]], "a": []}),
        update(
            "spot.order_book_update", {"s": "BTC_USDT", "t": 1, "U": 5, "u": 5, "b": [["1", "x"]], "a": []}
        ),
        update(
            "spot.order_book_update", {"s": "BTC_USDT", "t": 1, "U": 5, "u": 5, "b": [["", "1"]], "a": []}
        ),
        update("futures.public_liquidates", [{"contract": "BTC_USDT", "price": "1", "size": "1"}]),
        answer(id=7, error={"code": 2}),
        answer(id=7, error="x"),
    ]


@pytest.mark.parametrize("message", bad_frames())
def test_bad_frames_are_refused(message: Any) -> None:
    with pytest.raises(DecodeError, match="gateio: bad frame"):
        say("spot", message)


@pytest.mark.parametrize(
    ("number", "text"),
    [("1.50", "1.50"), (3, "3"), (0.5, "0.5"), (1e-7, "0.0000001"), ("2E3", "2000"), ("1e-9", "0.000000001")],
)
def test_numbers_are_written_out(number: Any, text: str) -> None:
    assert plain(number) == text


@pytest.mark.parametrize("number", ["", "-1", "x", "1,5", "NaN", True, None, [], float("nan"), float("inf")])
def test_what_is_no_number(number: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        plain(number)


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        (1790359375, 1_790_359_375_000_000_000),
        (1790359375.258, 1_790_359_375_258_000_000),
        ("1790359375.258", 1_790_359_375_258_000_000),
        (1790359375258, 1_790_359_375_258_000_000),
        ("1790359375258.119653", 1_790_359_375_258_119_653),
    ],
)
def test_times_of_both_units(time: Any, ns: int) -> None:
    assert any_time_ns(time) == ns
