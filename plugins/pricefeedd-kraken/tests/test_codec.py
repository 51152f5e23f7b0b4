"""Frames of each channel, and what they become. The literals are the venue's own."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Closing, Refused, Stream
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Origin, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd_kraken.codec import KrakenCodec, read_time
from pricefeedd_kraken.rules import checksum
from pricefeedd_kraken.venue import kraken

VENUE = kraken()
FEED = VENUE.feed("spot")
NAMES = {"BTC/USD": "BTC-USD", "MINA/GBP": "MINA-GBP", "BTC/USDT": "BTC-USDT"}
RECEIVED_NS = 1_790_373_640_000_000_000

TRADES = '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":68500.0,"qty":0.01044926,"ord_type":"limit","trade_id":70635299,"timestamp":"2024-05-27T12:43:11.798009Z"},{"symbol":"BTC/USD","side":"sell","price":68500.0,"qty":0.00483190,"ord_type":"limit","trade_id":70635300,"timestamp":"2024-05-27T12:43:11.798009Z"}]}'
TICKER = '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":65843.7,"bid_qty":12.31628629,"ask":65843.8,"ask_qty":0.31232000,"last":65843.7,"volume":4182.59447976,"vwap":64223.4,"low":61325.4,"high":66450.0,"change":4213.8,"change_pct":6.84,"timestamp":"2026-08-18T20:43:35.824274Z"}]}'
OHLC = '{"channel":"ohlc","type":"snapshot","timestamp":"2026-09-10T17:44:43.105760475Z","data":[{"symbol":"BTC/USDT","open":77357.1,"high":77370.1,"low":77357.1,"close":77370.1,"trades":2,"volume":0.00208254,"vwap":77369.2,"interval_begin":"2026-09-10T17:41:00.000000000Z","interval":1,"timestamp":"2026-09-10T17:42:00.000000Z"},{"symbol":"BTC/USDT","open":77351.6,"high":77351.6,"low":77327.3,"close":77340.1,"trades":17,"volume":1.29749671,"vwap":77343.9,"interval_begin":"2026-09-10T17:43:00.000000000Z","interval":1,"timestamp":"2026-09-10T17:44:00.000000Z"}]}'
BOOK = '{"channel":"book","type":"snapshot","data":[{"symbol":"MINA/GBP","bids":[{"price":0.0294,"qty":22500.50544743},{"price":0.0290,"qty":25260.79829200}],"asks":[{"price":0.0295,"qty":23717.15468719}],"checksum":2892435853,"timestamp":"2026-08-18T20:43:35.824274Z"}]}'
DELTA = '{"channel":"book","type":"update","data":[{"symbol":"MINA/GBP","bids":[{"price":0.0294,"qty":0.00000000},{"price":0.0020,"qty":5220.00000000}],"asks":[],"checksum":1818111995,"timestamp":"2026-08-18T20:44:00.934299Z"}]}'


def say(frame: str | bytes) -> list[Any]:
    data = frame.encode() if isinstance(frame, str) else frame
    return list(VENUE.codec.decode(data, feed=FEED, names=NAMES, received_ns=RECEIVED_NS))


def instrument(symbol: str = "BTC/USD") -> Instrument:
    base, quote = symbol.split("/")
    return Instrument(
        venue="kraken",
        market="spot",
        name=f"{base}-{quote}",
        symbol=symbol,
        kind=Kind.SPOT,
        base=base,
        quote=quote,
    )


# --- Data -------------------------------------------------------------------------------------------------


def test_trades() -> None:
    first, second = say(TRADES)
    assert first == Trade(
        venue="kraken",
        instrument="BTC-USD",
        venue_time_ns=1_716_813_791_798_009_000,
        received_ns=RECEIVED_NS,
        id="70635299",
        price="68500.0",
        size="0.01044926",
        aggressor=Side.BUY,
    )
    assert (second.id, second.size, second.aggressor) == ("70635300", "0.00483190", Side.SELL)


def test_a_snapshot_of_trades_is_of_the_past_and_proves_its_subscription() -> None:
    snapshot = TRADES.replace('"update"', '"snapshot"')
    accepted, first, second = say(snapshot)
    assert accepted == Accepted(streams=("trade:BTC/USD",))
    assert {first.origin, second.origin} == {Origin.BACKFILL}
    assert [first.id, second.id] == ["70635299", "70635300"]


def test_a_snapshot_of_trades_comes_out_oldest_first() -> None:
    snapshot = TRADES.replace('"update"', '"snapshot"').replace("70635299", "70635301")
    assert [trade.id for trade in say(snapshot)[1:]] == ["70635300", "70635301"]


def test_a_ticker_is_a_quote_and_a_ticker() -> None:
    quote, ticker = say(TICKER)
    assert quote == Quote(
        venue="kraken",
        instrument="BTC-USD",
        venue_time_ns=1_787_085_815_824_274_000,
        received_ns=RECEIVED_NS,
        bid_price="65843.7",
        bid_size="12.31628629",
        ask_price="65843.8",
        ask_size="0.31232000",
    )
    assert ticker == Ticker(
        venue="kraken",
        instrument="BTC-USD",
        venue_time_ns=1_787_085_815_824_274_000,
        received_ns=RECEIVED_NS,
        last="65843.7",
        high_24h="66450.0",
        low_24h="61325.4",
        volume_24h="4182.59447976",
    )


def test_empty_sides_are_sent_as_zeros_and_1970() -> None:
    row = orjson.loads(TICKER)
    row["data"][0] |= {"bid": 0, "bid_qty": 0, "timestamp": "1970-01-01T00:00:00.000000Z"}
    frame = orjson.dumps(row)
    quote, ticker = say(frame)
    assert (quote.bid_price, quote.bid_size, quote.ask_price) == (None, None, "65843.8")
    assert (quote.venue_time_ns, ticker.venue_time_ns) == (None, None)
    zeros = TICKER.replace("0.31232000", "0.00000000").replace("65843.8", "0.0")
    assert say(zeros)[0].ask_price is None


def test_a_ticker_without_a_time_has_none() -> None:
    frame = TICKER.replace(',"timestamp":"2026-08-18T20:43:35.824274Z"', "")
    assert [event.venue_time_ns for event in say(frame)] == [None, None]


def test_candles_of_a_snapshot_are_over_but_for_the_last() -> None:
    accepted, first, last = say(OHLC)
    assert accepted == Accepted(streams=("ohlc:BTC/USDT",))
    assert first == Candle(
        venue="kraken",
        instrument="BTC-USDT",
        venue_time_ns=1_789_062_283_105_760_475,
        received_ns=RECEIVED_NS,
        origin=Origin.BACKFILL,
        start_ns=1_789_062_060_000_000_000,
        open="77357.1",
        high="77370.1",
        low="77357.1",
        close="77370.1",
        volume="0.00208254",
        trades=2,
        closed=True,
    )
    assert (last.closed, last.origin, last.trades) == (False, Origin.LIVE, 17)


def test_a_candle_of_an_update_runs() -> None:
    rows = say(OHLC.replace("snapshot", "update"))
    assert [(row.closed, row.origin) for row in rows] == [(False, Origin.LIVE)] * 2


def test_other_intervals_are_passed_over() -> None:
    assert say(OHLC.replace('"interval":1', '"interval":60')) == []


def test_book_snapshot_and_delta() -> None:
    accepted, book = say(BOOK)
    assert accepted == Accepted(streams=("book:MINA/GBP",))
    assert book == BookSnapshot(
        venue="kraken",
        instrument="MINA-GBP",
        venue_time_ns=1_787_085_815_824_274_000,
        received_ns=RECEIVED_NS,
        bids=[("0.0294", "22500.50544743"), ("0.0290", "25260.79829200")],
        asks=[("0.0295", "23717.15468719")],
        checksum=2892435853,
    )
    (delta,) = say(DELTA)
    assert delta == BookDelta(
        venue="kraken",
        instrument="MINA-GBP",
        venue_time_ns=1_787_085_840_934_299_000,
        received_ns=RECEIVED_NS,
        bids=[("0.0294", "0.00000000"), ("0.0020", "5220.00000000")],
        asks=[],
        checksum=1818111995,
    )


def test_whole_prices_are_texts_like_any_other() -> None:
    (delta,) = say(DELTA.replace("0.0020", "21").replace("5220.00000000", "5220"))
    assert delta.bids[1] == ("21", "5220")
    trade, _ = say(TRADES.replace("68500.0", "68500", 1))
    assert trade.price == "68500"


def test_the_checksum_takes_numbers_as_they_were_sent() -> None:
    asks = [["45285.2", "0.00100000"], ["45286.4", "1.54571953"]]
    bids = [["45283.5", "0.10000000"]]
    text = "452852100000" + "452864154571953" + "45283510000000"
    assert checksum(bids, asks) == zlib.crc32(text.encode())
    assert checksum([["45283.5", "0.1"]], asks) != checksum(bids, asks)


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("2024-05-27T12:43:11.798009Z", 1_716_813_791_798_009_000),
        ("2026-09-10T17:44:43.105760475Z", 1_789_062_283_105_760_475),
        ("2024-05-27T12:43:11Z", 1_716_813_791_000_000_000),
        ("2024-05-27T12:43:11.5Z", 1_716_813_791_500_000_000),
    ],
)
def test_times(text: str, time_ns: int) -> None:
    assert read_time(text) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-05-27",
        "2024-05-27T12:43:11",
        "2024-05-27T12:43:11+00:00",
        "2024-05-27T12:43:11,5Z",
        "2024-05-27T12:43:11.1234567890Z",
        "2024-05-27T12:43:11.-5Z",
        "2024-13-27T12:43:11Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        read_time(text)


# --- Answers ----------------------------------------------------------------------------------------------


def test_an_ack_names_its_stream() -> None:
    frame = '{"method":"subscribe","req_id":114,"result":{"channel":"book","depth":10,"snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"2024-05-19T16:27:13.694962Z","time_out":"2024-05-19T16:27:13.695006Z"}'
    assert say(frame) == [Accepted(streams=("book:BTC/USD",))]


def test_a_refusal_names_symbol_and_request_and_so_the_stream() -> None:
    streams = [Stream(feed="spot", name="ohlc:WWW/USD", group="ohlc")]
    request = VENUE.codec.subscribe(FEED, streams, request_id=7, now_ns=1, account=None)
    number = orjson.loads(request)["req_id"]
    frame = f'{{"error":"Currency pair not supported WWW/USD","method":"subscribe","req_id":{number},"success":false,"symbol":"WWW/USD"}}'
    assert say(frame) == [
        Refused(reason="Currency pair not supported WWW/USD", request_id=7, streams=("ohlc:WWW/USD",))
    ]


def test_a_refusal_without_symbol_is_about_its_request() -> None:
    frame = '{"error":"Unsupported event","method":"subscribe","req_id":74,"success":false}'
    assert say(frame) == [Refused(reason="Unsupported event", request_id=7)]


def test_a_refusal_without_our_number_is_about_nothing_in_particular() -> None:
    frame = '{"error":"Currency pair not supported XBT/USDT","method":"subscribe","success":false,"symbol":"XBT/USDT"}'
    assert say(frame) == [Refused(reason="Currency pair not supported XBT/USDT")]


def test_what_is_subscribed_already_is_accepted() -> None:
    frame = '{"error":"Already subscribed to one ohlc interval on this symbol","method":"subscribe","req_id":13,"success":false,"symbol":"BTC/USD"}'
    assert say(frame) == [Accepted(streams=("ohlc:BTC/USD",))]


@pytest.mark.parametrize(
    "frame",
    [
        '{"channel":"heartbeat"}',
        '{"channel": "heartbeat"}',
        '{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":12393906104898154338}]}',
        '{"channel":"status","data":[{"api_version":"v2","system":"maintenance","version":"2.0.6"}],"type":"update"}',
        '{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":[{"symbol":"ETH/BTC","qty_increment":1e-08}]}}',
        '{"method":"pong","req_id":1,"time_in":"2024-05-20T11:08:49.272922Z","time_out":"2024-05-20T11:08:49.272940Z"}',
        '{"method":"unsubscribe","result":{"channel":"book","depth":25,"symbol":"MINA/GBP"},"success":true}',
        '{"error":"Subscription Not Found","method":"unsubscribe","req_id":11,"success":false,"symbol":"BTC/USD"}',
        '{"method":"subscribe","req_id":0,"result":{"channel":"instrument","snapshot":true},"success":true}',
        '{"Error":"Exceeded msg rate"}',
        '{"error":"Exceeded msg rate","method":"subscribe","req_id":11,"success":false}',
        TRADES.replace("BTC/USD", "NEW/USD"),
        TRADES.replace("BTC/USD", "NEW/USD").replace("update", "snapshot"),
        TICKER.replace("BTC/USD", "NEW/USD"),
        BOOK.replace("MINA/GBP", "NEW/USD"),
        OHLC.replace("BTC/USDT", "NEW/USD"),
    ],
)
def test_what_says_nothing_to_us(frame: str) -> None:
    assert say(frame) == []


def test_plain_text_of_the_proxy_announces_the_end() -> None:
    assert say("CloudFlare WebSocket proxy restarting") == [Closing("CloudFlare WebSocket proxy restarting")]


# --- Requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "name", "more"),
    [
        ("trade", "trade:BTC/USD", {}),
        ("quote", "ticker:BTC/USD", {"event_trigger": "bbo"}),
        ("ticker", "ticker:BTC/USD", {"event_trigger": "bbo"}),
        ("candle_1m", "ohlc:BTC/USD", {"interval": 1}),
        ("book", "book:BTC/USD", {"depth": 100}),
    ],
)
def test_requests(channel: str, name: str, more: dict[str, Any]) -> None:
    (stream,) = VENUE.codec.streams(channel, instrument())
    assert stream.name == name
    other = VENUE.codec.streams(channel, instrument("ETH/USD"))[0]
    begin = VENUE.codec.subscribe(FEED, [stream, other], request_id=3, now_ns=1, account=None)
    params = {"channel": stream.group, "symbol": ["BTC/USD", "ETH/USD"], **more}
    asked = orjson.loads(begin)
    assert (asked["method"], asked["params"]) == ("subscribe", params | {"snapshot": True})
    assert asked["req_id"] // 10 == 3
    end = orjson.loads(VENUE.codec.unsubscribe(FEED, [stream, other], request_id=4, now_ns=1, account=None))
    assert (end["method"], end["params"]) == ("unsubscribe", params)


def test_quote_and_ticker_share_a_stream() -> None:
    assert VENUE.codec.streams("quote", instrument()) == VENUE.codec.streams("ticker", instrument())


def test_channels_that_kraken_does_not_have() -> None:
    assert VENUE.codec.streams("liquidation", instrument()) == ()
    assert VENUE.codec.streams("price", instrument()) == ()


def test_the_depth_goes_into_both_requests() -> None:
    codec = KrakenCodec(25)
    streams = codec.streams("book", instrument())
    for make in (codec.subscribe, codec.unsubscribe):
        assert (
            orjson.loads(make(FEED, streams, request_id=1, now_ns=1, account=None))["params"]["depth"] == 25
        )


def test_a_ping_has_no_params() -> None:
    ping = VENUE.codec.ping(FEED, now_ns=1)
    assert ping is not None
    assert orjson.loads(ping) == {"method": "ping"}


# --- What is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "null",
        "[]",
        "{}",
        "nonsense",
        '{"channel":"trade"}',
        '{"channel":"trade","type":"other","data":[]}',
        '{"channel":"book","type":"update","data":{}}',
        '{"method":"subscribe"}',
        '{"method":"subscribe","success":true,"result":{}}x',
        '{"method":"subscribe","success":false}',
        '{"error":7}',
        "[" * 5000,
        TRADES[:-1],
        TRADES.replace("68500.0", '"68500.0"'),
        TRADES.replace("68500.0", "-68500.0"),
        TRADES.replace("68500.0", "null"),
        TRADES.replace("70635299", '"70635299"'),
        TRADES.replace("70635299", "true"),
        TRADES.replace('"buy"', '"up"'),
        TRADES.replace("2024-05-27T12:43:11.798009Z", "yesterday"),
        DELTA.replace("5220.00000000", '"5220"'),
        DELTA.replace("5220.00000000", "-1.0"),
        DELTA.replace("1818111995", "1818111995.5"),
        DELTA.replace('"asks":[]', '"asks":null'),
        TICKER.replace("65843.8", '"x"'),
        TICKER.replace('"last":65843.7', '"last":[]'),
        OHLC.replace('"trades":2', '"trades":"2"'),
    ],
)
def test_what_the_venue_does_not_document_is_refused(frame: str) -> None:
    with pytest.raises(DecodeError):
        say(frame)


def test_the_error_shows_the_frame_and_what_is_wrong() -> None:
    with pytest.raises(DecodeError, match=r"kraken: bad frame .*trade.*quoted"):
        say(TRADES.replace("68500.0", '"68500.0"'))
