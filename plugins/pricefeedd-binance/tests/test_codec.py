"""Frames of each stream and market, and what they become. The literals are the venue's own."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Closing, Failed, Refused
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, Candle, Event, Liquidation, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd_binance.codec import BinanceCodec
from pricefeedd_binance.venue import binance

VENUE = binance()
NAMES = {
    "NKNUSDT": "NKN-USDT",
    "BLZETH": "BLZ-ETH",
    "LRCBTC": "LRC-BTC",
    "CTKUSDT": "CTK-USDT-PERP",
    "SUSHIUSDT": "SUSHI-USDT-PERP",
    "KEEPUSDT": "KEEP-USDT-PERP",
    "BTCUSDT": "BTC-USDT-PERP",
    "BTCUSD_PERP": "BTC-USD-PERP",
    "ETCUSD_PERP": "ETC-USD-PERP",
    "EOSUSD_PERP": "EOS-USD-PERP",
    "BTCUSD_201225": "BTC-USD-20201225",
}
RECEIVED_NS = 1_790_373_640_000_000_000


def say(frame: str | bytes, feed: str = "spot") -> list[Any]:
    data = frame.encode() if isinstance(frame, str) else frame
    return list(VENUE.codec.decode(data, feed=VENUE.feed(feed), names=NAMES, received_ns=RECEIVED_NS))


def one(frame: str | bytes, feed: str = "spot") -> Event:
    (event,) = say(frame, feed)
    assert isinstance(event, Event)
    assert event.received_ns == RECEIVED_NS
    return event


def instrument(symbol: str, market: str, base: str = "BTC", quote: str = "USDT") -> Instrument:
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    name = f"{base}-{quote}" if market == "spot" else f"{base}-{quote}-PERP"
    return Instrument(
        venue="binance", market=market, name=name, symbol=symbol, kind=kind, base=base, quote=quote
    )


SPOT_TRADE = '{"stream":"nknusdt@aggTrade","data":{"e":"aggTrade","E":1633998523963,"s":"NKNUSDT","a":15683430,"p":"0.35280000","q":"58.00000000","f":19862790,"l":19862790,"T":1633998523962,"m":false,"M":true}}'


def test_spot_trade() -> None:
    assert one(SPOT_TRADE) == Trade(
        venue="binance",
        instrument="NKN-USDT",
        venue_time_ns=1_633_998_523_962_000_000,  # T, the trade's time, and not E, the frame's
        received_ns=RECEIVED_NS,
        id="15683430",
        price="0.35280000",
        size="58.00000000",
        aggressor=Side.BUY,
    )


def test_linear_trade_with_the_fields_of_2026() -> None:
    frame = '{"stream":"ctkusdt@aggTrade","data":{"e":"aggTrade","E":1626992763303,"a":16599318,"s":"CTKUSDT","p":"1.01200","q":"10","nq":"10","f":23961370,"l":23961370,"T":1626992763148,"m":true,"st":1}}'
    trade = one(frame, "linear-market")
    assert isinstance(trade, Trade)
    assert (trade.id, trade.price, trade.size, trade.aggressor) == ("16599318", "1.01200", "10", Side.SELL)


def test_spot_quote_has_no_time_of_its_own() -> None:
    frame = '{"stream":"lrcbtc@bookTicker","data":{"u":259345549,"s":"LRCBTC","b":"0.00000637","B":"6500.00000000","a":"0.00000638","A":"5219.00000000"}}'
    assert one(frame) == Quote(
        venue="binance",
        instrument="LRC-BTC",
        venue_time_ns=None,
        received_ns=RECEIVED_NS,
        bid_price="0.00000637",
        bid_size="6500.00000000",
        ask_price="0.00000638",
        ask_size="5219.00000000",
        sequence=259345549,
    )


@pytest.mark.parametrize(
    ("feed", "frame", "expected"),
    [
        (
            "linear-public",
            '{"stream":"sushiusdt@bookTicker","data":{"e":"bookTicker","u":600859821940,"s":"SUSHIUSDT","b":"7.6110","B":"9","a":"7.6130","A":"56","T":1626992752833,"E":1626992752837}}',
            ("SUSHI-USDT-PERP", "7.6110", "9", "7.6130", "56", 600859821940, 1_626_992_752_833_000_000),
        ),
        (
            "inverse-public",
            '{"stream":"btcusd_perp@bookTicker","data":{"e":"bookTicker","u":11660059839759,"s":"BTCUSD_PERP","ps":"BTCUSD","b":"83732.4","B":"680","a":"83732.5","A":"2458","T":1790373637547,"E":1790373637547,"st":2}}',
            ("BTC-USD-PERP", "83732.4", "680", "83732.5", "2458", 11660059839759, 1_790_373_637_547_000_000),
        ),
    ],
)
def test_futures_quotes(feed: str, frame: str, expected: tuple[Any, ...]) -> None:
    quote = one(frame, feed)
    assert isinstance(quote, Quote)
    assert expected == (
        quote.instrument,
        quote.bid_price,
        quote.bid_size,
        quote.ask_price,
        quote.ask_size,
        quote.sequence,
        quote.venue_time_ns,
    )


def test_an_empty_side_of_a_quote_is_none() -> None:
    frame = '{"stream":"lrcbtc@bookTicker","data":{"u":1,"s":"LRCBTC","b":"0.00000000","B":"0.00000000","a":"0.00000638","A":"5219.00000000"}}'
    quote = one(frame)
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.bid_size) == (None, None)
    assert (quote.ask_price, quote.ask_size) == ("0.00000638", "5219.00000000")
    empty = one(frame.replace("0.00000638", "0").replace("5219.00000000", "0"))
    assert isinstance(empty, Quote)
    assert (empty.ask_price, empty.ask_size) == (None, None)


def test_a_small_size_is_not_an_empty_side() -> None:
    frame = '{"stream":"lrcbtc@bookTicker","data":{"u":1,"s":"LRCBTC","b":"20000.00","B":"0.00001000","a":"20000.01","A":"100"}}'
    quote = one(frame)
    assert isinstance(quote, Quote)
    assert (quote.bid_size, quote.ask_size) == ("0.00001000", "100")


TICKER = '{"stream":"btcusdt@ticker","data":{"e":"24hrTicker","E":1672515782136,"s":"BTCUSDT","p":"-0.0015","P":"-250.00","w":"0.0018","c":"0.0025","Q":"10","o":"0.0010","h":"0.0026","l":"0.0009","v":"10000","q":"18","O":0,"C":86400000,"F":0,"L":18150,"n":18151}}'


def test_a_spot_ticker_is_whole_and_a_futures_ticker_is_a_part() -> None:
    whole = one(TICKER)
    assert whole == Ticker(
        venue="binance",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1_672_515_782_136_000_000,
        received_ns=RECEIVED_NS,
        last="0.0025",
        open_24h="0.0010",
        high_24h="0.0026",
        low_24h="0.0009",
        volume_24h="10000",
        turnover_24h="18",
    )
    part = one(TICKER, "linear-market")
    assert isinstance(part, Ticker)
    assert part.partial
    assert part.mark_price is None


def test_mark_price_is_a_part_of_the_ticker() -> None:
    frame = '{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","i":"11784.62659091","P":"11784.25641265","r":"-0.00038167","T":1562306400000}}'
    assert one(frame, "linear-market") == Ticker(
        venue="binance",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1_562_305_380_000_000_000,
        received_ns=RECEIVED_NS,
        mark_price="11794.15000000",
        index_price="11784.62659091",
        funding_rate="-0.00038167",
        next_funding_ns=1_562_306_400_000_000_000,
        partial=True,
    )


def test_mark_price_of_a_dated_contract_has_no_funding() -> None:
    frame = '{"stream":"btcusd_201225@markPrice@1s","data":{"e":"markPriceUpdate","E":1596095725000,"s":"BTCUSD_201225","p":"10934.62615417","P":"10962.17178236","i":"10933.62615417","r":"","T":0}}'
    mark = one(frame, "inverse-market")
    assert isinstance(mark, Ticker)
    assert mark.mark_price == "10934.62615417"
    assert (mark.funding_rate, mark.next_funding_ns) == (None, None)


def test_closed_candle() -> None:
    frame = '{"stream":"sushiusdt@kline_1m","data":{"e":"kline","E":1626992760203,"s":"SUSHIUSDT","k":{"t":1626992700000,"T":1626992759999,"s":"SUSHIUSDT","i":"1m","f":126902874,"L":126902986,"o":"7.6080","c":"7.6170","h":"7.6180","l":"7.6070","v":"3005","n":113,"x":true,"q":"22875.8590","V":"1900","Q":"14464.6960","B":"0"}}}'
    assert one(frame, "linear-market") == Candle(
        venue="binance",
        instrument="SUSHI-USDT-PERP",
        venue_time_ns=1_626_992_760_203_000_000,
        received_ns=RECEIVED_NS,
        start_ns=1_626_992_700_000_000_000,
        open="7.6080",
        high="7.6180",
        low="7.6070",
        close="7.6170",
        volume="3005",
        turnover="22875.8590",
        trades=113,
        closed=True,
    )
    running = one(frame.replace('"x":true', '"x":false'), "linear-market")
    assert isinstance(running, Candle)
    assert not running.closed


def test_inverse_candle_counts_contracts_and_its_turnover_is_base() -> None:
    frame = '{"stream":"btcusd_perp@kline_1m","data":{"e":"kline","E":1790373660003,"s":"BTCUSD_PERP","k":{"t":1790373600000,"T":1790373659999,"s":"BTCUSD_PERP","i":"1m","f":1155840109,"L":1155840149,"o":"83723.8","c":"83732.4","h":"83732.5","l":"83723.8","v":"180","n":41,"x":true,"q":"0.21498328","V":"94","Q":"0.11224187","B":"0"}}}'
    candle = one(frame, "inverse-market")
    assert isinstance(candle, Candle)
    assert (candle.volume, candle.turnover, candle.trades) == ("180", "0.21498328", 41)


def test_spot_delta() -> None:
    frame = '{"stream":"blzeth@depth@100ms","data":{"e":"depthUpdate","E":1633998522873,"s":"BLZETH","U":281916628,"u":281916629,"b":[["0.00006537","0.00000000"]],"a":[]}}'
    assert one(frame) == BookDelta(
        venue="binance",
        instrument="BLZ-ETH",
        venue_time_ns=1_633_998_522_873_000_000,
        received_ns=RECEIVED_NS,
        bids=[["0.00006537", "0.00000000"]],
        asks=[],
        sequence=281916629,
        first_sequence=281916628,
        previous_sequence=None,
    )


@pytest.mark.parametrize("pace", ["depth", "depth@100ms", "depth@500ms"])
def test_futures_delta_names_the_one_before(pace: str) -> None:
    frame = (
        '{"stream":"btcusd_perp@depth","data":{"e":"depthUpdate","E":1790373637622,"T":1790373637613,"s":"BTCUSD_PERP","ps":"BTCUSD","U":11660059838224,"u":11660059844303,"pu":11660059836647,"b":[["82997.3","1382"],["83517.9","0"]],"a":[["83732.5","2458"]],"st":2}}'
    ).replace("@depth", f"@{pace}")
    delta = one(frame, "inverse-public")
    assert isinstance(delta, BookDelta)
    assert delta.instrument == "BTC-USD-PERP"
    assert delta.venue_time_ns == 1_790_373_637_613_000_000
    assert (delta.first_sequence, delta.sequence) == (11660059838224, 11660059844303)
    assert delta.previous_sequence == 11660059836647
    assert delta.bids == [["82997.3", "1382"], ["83517.9", "0"]]
    assert delta.asks == [["83732.5", "2458"]]


def test_liquidation() -> None:
    frame = '{"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9911","X":"FILLED","l":"0.014","z":"0.014","T":1568014460890}}}'
    assert one(frame, "linear-market") == Liquidation(
        venue="binance",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1_568_014_460_890_000_000,
        received_ns=RECEIVED_NS,
        price="9910",
        size="0.014",
        side=Side.SELL,
    )


# --- Replies ----------------------------------------------------------------------------------------------


def test_an_ack_names_its_request() -> None:
    assert say('{"result":null,"id":1}') == [Accepted(request_id=1)]


@pytest.mark.parametrize(
    "frame",
    [
        '{"code":2,"msg":"Invalid request: missing field","id":7}',
        '{"error":{"code":2,"msg":"Invalid request: missing field"},"id":7}',
        '{"id":7,"error":{"code":2,"msg":"Invalid request: missing field"},"result":null}',
    ],
)
def test_errors_in_either_form_refuse_the_request_they_name(frame: str) -> None:
    assert say(frame) == [Refused(reason="Invalid request: missing field (code 2)", request_id=7)]


@pytest.mark.parametrize(
    "frame",
    [
        '{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}',
        '{"error":{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"},"id":null}',
    ],
)
def test_an_error_that_names_no_request_ends_the_connection(frame: str) -> None:
    assert say(frame) == [Failed("Invalid JSON: expected value at line 1 column 1 (code 3)")]


def test_server_shutdown_raw_and_combined() -> None:
    assert say('{"e":"serverShutdown","E":1770123456789}') == [Closing("serverShutdown")]
    combined = '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'
    assert say(combined) == [Closing("serverShutdown")]


@pytest.mark.parametrize(
    "frame",
    [
        '{"result":["btcusdt@aggTrade"],"id":3}',  # an answer to what we do not ask
        '{"result":null,"id":null}',
        '{"e":"somethingNew","E":1770123456789}',
        '{"stream":"btcusdt@somethingNew","data":{"s":"BTCUSDT"}}',
        '{"stream":"btcusdt@kline_5m","data":{"s":"BTCUSDT"}}',
        '{"stream":"btcusdt@depth20","data":{"lastUpdateId":160,"bids":[],"asks":[]}}',
        SPOT_TRADE.replace("NKNUSDT", "UNKNOWNUSDT"),
    ],
)
def test_what_is_not_asked_for_is_passed_over(frame: str) -> None:
    assert say(frame) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("a", "15683430"),
        ("a", True),
        ("a", 1.5),
        ("p", 0.3528),
        ("p", "abc"),
        ("p", ""),
        ("p", "1e5"),
        ("p", None),
        ("q", "-58"),
        ("T", "1633998523963"),
        ("T", 2**70),
        ("m", "false"),
        ("m", 1),
        ("s", ["NKNUSDT"]),
    ],
)
def test_a_trade_of_the_wrong_shape_is_refused(field: str, value: object) -> None:
    message = orjson.loads(SPOT_TRADE)
    if value == 2**70:
        frame = SPOT_TRADE.replace("1633998523962", str(value)).encode()
    else:
        message["data"][field] = value
        frame = orjson.dumps(message)
    with pytest.raises(DecodeError, match="binance: bad frame"):
        say(frame)


@pytest.mark.parametrize("field", ["a", "p", "q", "T", "m", "s"])
def test_a_trade_that_lacks_a_field_is_refused(field: str) -> None:
    message = orjson.loads(SPOT_TRADE)
    del message["data"][field]
    with pytest.raises(DecodeError):
        say(orjson.dumps(message))


@pytest.mark.parametrize(
    "levels",
    [
        {},
        None,
        "12",
        [["1"]],
        [["1", "2", "3"]],
        [["1"], ["1", "2", "3"]],
        [["", "1"]],
        [["1", ""]],
        [[1, 2]],
        [["1", 2]],
        [["1", "1e5"]],
        [["1", "-2"]],
        [["1", "٣"]],
        [1, 2],
        [None],
    ],
)
def test_levels_of_the_wrong_shape_are_refused(levels: object) -> None:
    for side, other in (("b", "a"), ("a", "b")):
        data = {"e": "depthUpdate", "E": 1, "s": "BLZETH", "U": 1, "u": 2, side: levels, other: []}
        with pytest.raises(DecodeError):
            say(orjson.dumps({"stream": "blzeth@depth@100ms", "data": data}))


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff\xfe", b"{", b"[]", b"1", b"null", b'"stream"', b"{}", b"[" * 5000, b'{"stream":5,"data":{}}',
     b'{"stream":"btcusdt@aggTrade"}', b'{"stream":"btcusdt@aggTrade","data":[]}', b'{"code":1}', b'{"error":"x"}'],
)  # fmt: skip
def test_garbage_is_a_decode_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        say(frame)


def test_a_huge_bad_frame_is_quoted_in_part() -> None:
    with pytest.raises(DecodeError) as caught:
        say(b"x" * 1_000_000)
    assert len(str(caught.value)) < 400


# --- What we send -----------------------------------------------------------------------------------------


def test_spot_streams_share_one_feed() -> None:
    btc = instrument("BTCUSDT", "spot")
    named = {
        channel: [(s.feed, s.name) for s in VENUE.codec.streams(channel, btc)]
        for channel in VENUE.channels["spot"]
    }
    assert named == {
        "trade": [("spot", "btcusdt@aggTrade")],
        "quote": [("spot", "btcusdt@bookTicker")],
        "ticker": [("spot", "btcusdt@ticker")],
        "candle_1m": [("spot", "btcusdt@kline_1m")],
        "book": [("spot", "btcusdt@depth@100ms")],
    }
    assert VENUE.codec.streams("liquidation", btc) == ()


@pytest.mark.parametrize(("market", "symbol"), [("linear", "BTCUSDT_261225"), ("inverse", "BTCUSD_PERP")])
def test_futures_streams_go_by_route(market: str, symbol: str) -> None:
    chosen = instrument(symbol, market)
    low = symbol.lower()
    named = {
        channel: [(s.feed, s.name) for s in VENUE.codec.streams(channel, chosen)]
        for channel in VENUE.channels[market]
    }
    assert named == {
        "trade": [(f"{market}-market", f"{low}@aggTrade")],
        "quote": [(f"{market}-public", f"{low}@bookTicker")],
        "ticker": [(f"{market}-market", f"{low}@ticker"), (f"{market}-market", f"{low}@markPrice@1s")],
        "candle_1m": [(f"{market}-market", f"{low}@kline_1m")],
        "book": [(f"{market}-public", f"{low}@depth@100ms")],
        "liquidation": [(f"{market}-market", f"{low}@forceOrder")],
    }


def test_only_the_mark_price_is_pushed_on_a_clock() -> None:
    chosen = instrument("BTCUSDT", "linear")
    owing = [
        s.name
        for channel in VENUE.channels["linear"]
        for s in VENUE.codec.streams(channel, chosen)
        if s.owes_within_s is not None
    ]
    assert owing == ["btcusdt@markPrice@1s"]


def test_channels_of_other_venues_have_no_streams() -> None:
    assert VENUE.codec.streams("price", instrument("BTCUSDT", "spot")) == ()
    assert VENUE.codec.streams("order", instrument("BTCUSDT", "linear")) == ()


@pytest.mark.parametrize(
    ("wish", "spot", "linear"),
    [
        (100, "depth@100ms", "depth@100ms"),
        (250, "depth", "depth"),
        (500, "depth", "depth@500ms"),
        (1000, "depth", "depth@500ms"),
    ],
)
def test_book_paces(wish: int, spot: str, linear: str) -> None:
    codec = BinanceCodec(wish)
    assert codec.streams("book", instrument("BTCUSDT", "spot"))[0].name == f"btcusdt@{spot}"
    assert codec.streams("book", instrument("BTCUSDT", "linear"))[0].name == f"btcusdt@{linear}"


@pytest.mark.parametrize("method", ["SUBSCRIBE", "UNSUBSCRIBE"])
def test_requests_name_streams_and_a_number(method: str) -> None:
    feed = VENUE.feed("spot")
    btc = instrument("BTCUSDT", "spot")
    streams = [*VENUE.codec.streams("trade", btc), *VENUE.codec.streams("candle_1m", btc)]
    make = VENUE.codec.subscribe if method == "SUBSCRIBE" else VENUE.codec.unsubscribe
    frame = make(feed, streams, request_id=12, now_ns=RECEIVED_NS, account=None)
    assert isinstance(frame, str)
    assert orjson.loads(frame) == {
        "method": method,
        "params": ["btcusdt@aggTrade", "btcusdt@kline_1m"],
        "id": 12,
    }


def test_connections_open_on_the_combined_path_and_ping_by_frame() -> None:
    for feed in VENUE.feeds:
        opening = VENUE.codec.open(feed, [], path=feed.path, now_ns=RECEIVED_NS, account=None)
        assert opening.path == feed.path
        assert not opening.subscribed
        assert VENUE.codec.ping(feed, now_ns=RECEIVED_NS) is None
