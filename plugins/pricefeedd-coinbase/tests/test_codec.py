"""Frames of each channel, and what they become. Shapes are the venue's own, on the wire as of 2026."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Count, Failed, Refused
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Event, Origin, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply
from pricefeedd_coinbase.codec import CoinbaseCodec
from pricefeedd_coinbase.times import ns_of
from pricefeedd_coinbase.tokens import Key
from pricefeedd_coinbase.venue import coinbase

VENUE = coinbase()
NAMES = {"BTC-USD": "BTC-USD", "ETH-USD": "ETH-USD"}
RECEIVED_NS = 1_790_735_994_200_000_000
QUOTING = CoinbaseCodec(ticker_quotes=True)
KEY = Key("organizations/o/apiKeys/k", "A" * 43 + "=")


def say(frame: str | bytes, codec: CoinbaseCodec | None = None) -> list[Any]:
    data = frame.encode() if isinstance(frame, str) else frame
    feed = VENUE.feed("spot")
    return list((codec or CoinbaseCodec()).decode(data, feed=feed, names=NAMES, received_ns=RECEIVED_NS))


def events(frame: str | bytes) -> list[Event]:
    return [said for said in say(frame) if isinstance(said, Event)]


def framed(channel: str, *rows: Any, number: int = 7) -> bytes:
    body = {
        "channel": channel,
        "timestamp": "2026-09-30T02:39:54.014999553Z",
        "sequence_num": number,
        "events": rows,
    }
    return orjson.dumps(body)


def trade_row(**changes: Any) -> dict[str, Any]:
    row = {
        "product_id": "BTC-USD",
        "trade_id": "1100253488",
        "price": "83277.26",
        "size": "0.00058346",
        "time": "2026-09-30T02:39:53.977543Z",
        "side": "SELL",
    }
    return row | changes


def trades(*rows: Any, kind: str = "update") -> bytes:
    return framed("market_trades", {"type": kind, "trades": rows})


def level(side: str, price: Any, size: Any, time: str = "2026-09-30T02:39:53.606233Z") -> dict[str, Any]:
    return {"side": side, "event_time": time, "price_level": price, "new_quantity": size}


def levels(kind: str, *rows: Any, product: str = "BTC-USD") -> bytes:
    return framed("l2_data", {"type": kind, "product_id": product, "updates": rows})


TICKER = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "21932.98",
    "volume_24_h": "16038.28770938",
    "low_24_h": "21835.29",
    "high_24_h": "23011.18",
    "low_52_w": "15460",
    "high_52_w": "48240",
    "price_percent_chg_24_h": "-4.15775596190603",
    "best_bid": "21931.98",
    "best_bid_quantity": "8000.21",
    "best_ask": "21933.98",
    "best_ask_quantity": "8038.07770938",
}


def ticker(kind: str = "update", channel: str = "ticker", **changes: Any) -> bytes:
    return framed(channel, {"type": kind, "tickers": [TICKER | changes]})


def ticker_of(frame: bytes) -> Ticker:
    (found,) = (e for e in events(frame) if isinstance(e, Ticker))
    return found


# --- Trades -----------------------------------------------------------------------------------------------


def test_a_trade() -> None:
    assert say(trades(trade_row())) == [
        Count(7),
        Trade(
            venue="coinbase",
            instrument="BTC-USD",
            venue_time_ns=1_790_735_993_977_543_000,
            received_ns=RECEIVED_NS,
            id="1100253488",
            price="83277.26",
            size="0.00058346",
            aggressor=Side.BUY,  # the maker sold
        ),
    ]


def test_the_taker_did_the_opposite_of_the_maker() -> None:
    (trade,) = events(trades(trade_row(side="BUY")))
    assert isinstance(trade, Trade)
    assert trade.aggressor is Side.SELL


def test_trades_of_a_frame_come_oldest_first() -> None:
    rows = [trade_row(trade_id=str(number)) for number in (1003, 1002, 999, 1000)]
    assert [e.id for e in events(trades(*rows)) if isinstance(e, Trade)] == ["999", "1000", "1002", "1003"]


def test_a_trade_snapshot_is_of_the_past_and_shows_that_we_were_heard() -> None:
    rows = [trade_row(trade_id="12"), trade_row(trade_id="11"), trade_row(product_id="X-USD", trade_id="5")]
    said = say(trades(*rows, kind="snapshot"))
    assert said[:2] == [Count(7), Accepted(streams=("market_trades:BTC-USD", "market_trades:X-USD"))]
    assert [(t.id, t.origin) for t in said[2:]] == [("11", Origin.BACKFILL), ("12", Origin.BACKFILL)]


def test_several_products_and_events_in_one_frame() -> None:
    frame = framed(
        "market_trades",
        {"type": "snapshot", "trades": [trade_row(product_id="ETH-USD", trade_id="9")]},
        {
            "type": "update",
            "trades": [trade_row(trade_id="20"), trade_row(product_id="ETH-USD", trade_id="10")],
        },
    )
    found = [(t.instrument, t.id, t.origin) for t in events(frame) if isinstance(t, Trade)]
    assert found == [
        ("ETH-USD", "9", Origin.BACKFILL),
        ("ETH-USD", "10", Origin.LIVE),
        ("BTC-USD", "20", Origin.LIVE),
    ]


def test_exponents_are_written_out() -> None:
    (trade,) = events(trades(trade_row(price="8.3E4", size="1e-7")))
    assert isinstance(trade, Trade)
    assert (trade.price, trade.size) == ("83000", "0.0000001")
    (delta,) = events(levels("update", level("bid", "1E+5", "2.5e-8"), level("offer", "100001", "1")))
    assert isinstance(delta, BookDelta)
    assert (list(delta.bids), list(delta.asks)) == ([("100000", "0.000000025")], [("100001", "1")])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trade_id", 1100253488),
        ("trade_id", ""),
        ("trade_id", "-5"),
        ("trade_id", "x"),
        ("price", ""),
        ("price", 83277.26),
        ("price", "-1"),
        ("price", "abc"),
        ("price", None),
        ("size", ""),
        ("size", "-0.1"),
        ("time", ""),
        ("time", 1790735993),
        ("time", "2026-09-30 02:39:53"),
        ("side", "sell"),
        ("side", ""),
        ("product_id", None),
    ],
)
def test_a_trade_of_the_wrong_shape_is_refused(field: str, value: Any) -> None:
    with pytest.raises(DecodeError, match="coinbase: bad frame"):
        say(trades(trade_row(**{field: value})))


@pytest.mark.parametrize("field", ["product_id", "trade_id", "price", "size", "time", "side"])
def test_a_trade_that_lacks_a_field_is_refused(field: str) -> None:
    row = trade_row()
    del row[field]
    with pytest.raises(DecodeError):
        say(trades(row))


# --- Books ------------------------------------------------------------------------------------------------


def test_a_book_snapshot_and_an_update() -> None:
    rows = [
        level("bid", "83277.25", "0.00715626"),
        level("bid", "83261", "1"),
        level("offer", "83277.26", "2"),
    ]
    time_ns = 1_790_735_993_606_233_000
    assert say(levels("snapshot", *rows)) == [
        Count(7),
        Accepted(streams=("level2:BTC-USD",)),
        BookSnapshot(
            venue="coinbase",
            instrument="BTC-USD",
            venue_time_ns=time_ns,
            received_ns=RECEIVED_NS,
            bids=[("83277.25", "0.00715626"), ("83261", "1")],
            asks=[("83277.26", "2")],
        ),
    ]
    assert say(levels("update", level("offer", "83277.26", "0"))) == [
        Count(7),
        BookDelta(
            venue="coinbase",
            instrument="BTC-USD",
            venue_time_ns=time_ns,
            received_ns=RECEIVED_NS,
            bids=[],
            asks=[("83277.26", "0")],
        ),
    ]


def test_an_empty_book_is_a_book() -> None:
    (book,) = events(levels("snapshot"))
    assert isinstance(book, BookSnapshot)
    assert (list(book.bids), list(book.asks)) == ([], [])
    assert book.venue_time_ns == ns_of("2026-09-30T02:39:54.014999553Z")


def test_a_placeholder_for_the_time_is_no_time() -> None:
    (book,) = events(levels("snapshot", level("bid", "1", "2", "1970-01-01T00:00:00Z")))
    assert book.venue_time_ns == ns_of("2026-09-30T02:39:54.014999553Z")


@pytest.mark.parametrize(
    "row",
    [
        level("ask", "1", "2"),
        level("bid", "", "2"),
        level("bid", "1", ""),
        level("bid", "1", "-2"),
        level("bid", "1", "nan"),
        level("bid", 1, "2"),
        level("bid", "1", None),
        level("bid", "1", "2", ""),
        {"side": "bid"},
        [],
        None,
    ],
)
def test_levels_of_the_wrong_shape_are_refused(row: Any) -> None:
    with pytest.raises(DecodeError):
        say(levels("update", row))


def test_a_book_event_of_unknown_kind_is_refused() -> None:
    with pytest.raises(DecodeError):
        say(levels("changed", level("bid", "1", "2")))


# --- Tickers ----------------------------------------------------------------------------------------------


def test_a_ticker_is_no_quote_unless_that_is_wished_for() -> None:
    time_ns = ns_of("2026-09-30T02:39:54.014999553Z")
    quote = Quote(
        venue="coinbase",
        instrument="BTC-USD",
        venue_time_ns=time_ns,
        received_ns=RECEIVED_NS,
        bid_price="21931.98",
        bid_size="8000.21",
        ask_price="21933.98",
        ask_size="8038.07770938",
    )
    assert say(ticker(), QUOTING) == [*say(ticker()), quote]
    assert say(ticker()) == [
        Count(7),
        Ticker(
            venue="coinbase",
            instrument="BTC-USD",
            venue_time_ns=time_ns,
            received_ns=RECEIVED_NS,
            last="21932.98",
            high_24h="23011.18",
            low_24h="21835.29",
            volume_24h="16038.28770938",
        ),
    ]
    assert say(ticker("snapshot"))[1] == Accepted(streams=("ticker:BTC-USD",))


@pytest.mark.parametrize(("price", "size"), [("", ""), ("21931.98", "0"), ("21931.98", ""), ("0", "0.000")])
def test_an_empty_side_of_a_quote_is_none(price: str, size: str) -> None:
    (quote,) = (
        e for e in say(ticker(best_bid=price, best_bid_quantity=size), QUOTING) if isinstance(e, Quote)
    )
    assert (quote.bid_price, quote.bid_size) == (None, None)
    assert (quote.ask_price, quote.ask_size) == ("21933.98", "8038.07770938")


def test_an_empty_text_in_a_ticker_is_no_value() -> None:
    found = ticker_of(ticker(price="", high_24_h="", volume_24_h="", best_bid="", best_ask=""))
    assert (found.last, found.high_24h, found.volume_24h) == (None, None, None)
    assert found.low_24h == "21835.29"
    assert len(say(ticker(best_bid="", best_ask=""), QUOTING)) == 2, "no quote"


def test_a_batched_ticker_has_no_quote() -> None:
    body = orjson.loads(ticker(channel="ticker_batch"))
    for key in ("best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity"):
        del body["events"][0]["tickers"][0][key]
    _, found = say(orjson.dumps(body), QUOTING)
    assert isinstance(found, Ticker)


@pytest.mark.parametrize(
    ("field", "value"), [("price", "x"), ("volume_24_h", "-1"), ("best_bid", 5), ("best_ask", "x")]
)
def test_a_ticker_of_the_wrong_shape_is_refused(field: str, value: Any) -> None:
    with pytest.raises(DecodeError):
        say(ticker(**{field: value}), QUOTING)


# --- Answers, errors and what is passed over --------------------------------------------------------------


def test_an_answer_names_all_that_is_subscribed() -> None:
    frame = '{"channel":"subscriptions","timestamp":"2026-09-30T02:39:53.78865513Z","sequence_num":11,"events":[{"subscriptions":{"heartbeats":["heartbeats"],"level2":["BTC-USD","ETH-USD"],"market_trades":["BTC-USD"]}}]}'
    streams = ("heartbeats", "level2:BTC-USD", "level2:ETH-USD", "market_trades:BTC-USD")
    assert say(frame) == [Count(11), Accepted(streams=streams, complete=True)]


def test_an_answer_may_name_nothing() -> None:
    assert say(framed("subscriptions", {"subscriptions": {}})) == [
        Count(7),
        Accepted(streams=(), complete=True),
    ]


@pytest.mark.parametrize("text", ["failure to subscribe", "authentication failure", "something new"])
def test_an_error_refuses_what_was_asked_for_last(text: str) -> None:
    assert say(orjson.dumps({"type": "error", "message": text})) == [Refused(reason=text)]


def test_an_error_without_words_has_a_reason_all_the_same() -> None:
    assert say('{"type":"error"}') == [Refused(reason="error without a message")]


def test_a_refused_token_is_not_tried_again_at_once() -> None:
    (said,) = say('{"type":"error","message":"authentication failure"}', CoinbaseCodec(KEY))
    assert isinstance(said, Failed)
    assert said.retry_after_s == 60.0
    assert "clock" in said.reason
    refused = say('{"type":"error","message":"failure to subscribe"}', CoinbaseCodec(KEY))
    assert refused == [Refused(reason="failure to subscribe")]


@pytest.mark.parametrize(
    "frame",
    [
        framed("status", {"type": "snapshot", "products": [{"id": "BTC-USD"}]}, number=3),
        framed("candles", {"type": "snapshot", "candles": []}, number=3),
        framed("heartbeats", {"current_time": "x", "heartbeat_counter": 5}, number=3),
        framed("heartbeats", {"current_time": "x", "heartbeat_counter": "5"}, number=3),
        framed("something_new", number=3),
        framed("market_trades", {"type": "update", "trades": [trade_row(product_id="X-USD")]}, number=3),
        framed("l2_data", {"type": "update", "product_id": "X-USD", "updates": []}, number=3),
        framed("market_trades", number=3),
    ],
)
def test_what_is_not_asked_for_is_counted_and_passed_over(frame: bytes) -> None:
    assert say(frame) == [Count(3)]


def test_fields_that_come_and_go_do_no_harm() -> None:
    body = orjson.loads(trades(trade_row(new_field={"a": [1]})))
    body |= {"client_id": "", "another": 5}
    assert events(orjson.dumps(body)) == events(trades(trade_row()))


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"\xff\xfe", b"{", b"[]", b"1", b"null", b'"channel"', b"{}", b"[" * 100_000, b'{"channel":5}',
        b'{"channel":"market_trades"}', b'{"channel":"market_trades","sequence_num":1}', b'{"channel":"heartbeats"}',
        b'{"channel":"l2_data","sequence_num":"1","timestamp":"","events":[]}', b'{"channel":"new"}',
        b'{"channel":"ticker","sequence_num":1,"timestamp":"x","events":[]}', b'{"type":"error","message":5}',
        b'{"channel":"subscriptions","sequence_num":1,"events":[{}]}', b'{"type":"new"}',
        b'{"x":' + b"[" * 100_000, b'{"channel":"heartbeats","sequence_num":1,"x":"\xff"',
    ],
)  # fmt: skip
def test_garbage_is_a_decode_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        say(frame)


def test_a_huge_bad_frame_is_quoted_in_part() -> None:
    with pytest.raises(DecodeError) as caught:
        say(b"x" * 1_000_000)
    assert len(str(caught.value)) < 400


# --- Times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-09-30T02:39:53.78865513Z", 1_790_735_993_788_655_130),
        ("2026-09-30T02:39:53.123456789Z", 1_790_735_993_123_456_789),
        ("2026-09-30T02:39:53.5Z", 1_790_735_993_500_000_000),
        ("2026-09-30T02:39:53.000000001Z", 1_790_735_993_000_000_001),
        ("2026-09-30T02:39:53Z", 1_790_735_993_000_000_000),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_times_keep_their_nanoseconds(text: str, ns: int) -> None:
    assert ns_of(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", "Z", "2026-09-30", "2026-09-30T02:39:53", "2026-09-30T02:39:53.Z", "2026-09-30T02:39:53.1234567890Z",
     "2026-09-30T02:39:53.12x4Z", "2026-09-30T02:39:53+00:00", "2026-09-30T02:39:53.5+00:00", "2026-13-30T02:39:53Z",
     "2026-09-30 02:39:54.167689127 +0000 UTC m=+12240.233883420", "2026-09-30T02:39:53,5Z", "2026-W01-1T02:39:53Z"],
)  # fmt: skip
def test_what_is_no_time_in_utc_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|month"):
        ns_of(text)


# --- What we send -----------------------------------------------------------------------------------------

BTC = Instrument(
    venue="coinbase", market="spot", name="BTC-USD", symbol="BTC-USD", kind=Kind.SPOT, base="BTC", quote="USD"
)


def test_streams_are_named_by_channel_and_product() -> None:
    named = {
        channel: [(s.feed, s.name, s.group) for s in VENUE.codec.streams(channel, BTC)]
        for channel in sorted(VENUE.channels["spot"])
    }
    assert named == {
        "book": [("spot-book", "level2:BTC-USD", "level2")],
        "candle_1m": [("spot", "market_trades:BTC-USD", "market_trades")],
        "quote": [("spot-book", "level2:BTC-USD", "level2")],
        "ticker": [("spot", "ticker:BTC-USD", "ticker")],
        "trade": [("spot", "market_trades:BTC-USD", "market_trades")],
    }
    assert VENUE.codec.streams("liquidation", BTC) == ()
    assert [s.name for s in QUOTING.streams("quote", BTC)] == ["ticker:BTC-USD"]


def test_a_request_names_one_channel_and_its_products() -> None:
    feed = VENUE.feed("spot")
    streams = VENUE.codec.streams("trade", BTC)
    frame = VENUE.codec.subscribe(feed, streams, request_id=1, now_ns=1, account=None)
    assert orjson.loads(frame) == {
        "type": "subscribe",
        "product_ids": ["BTC-USD"],
        "channel": "market_trades",
    }
    frame = VENUE.codec.unsubscribe(feed, streams, request_id=1, now_ns=1, account=None)
    assert orjson.loads(frame)["type"] == "unsubscribe"
    frame = VENUE.codec.subscribe(feed, feed.always, request_id=1, now_ns=1, account=None)
    assert orjson.loads(frame) == {"type": "subscribe", "channel": "heartbeats"}


def test_with_a_key_each_request_bears_a_token_of_its_own() -> None:
    codec = CoinbaseCodec(KEY)
    feed = VENUE.feed("spot")
    tokens = []
    for request_id, now_ns in ((1, RECEIVED_NS), (2, RECEIVED_NS), (1, RECEIVED_NS + 1), (1, RECEIVED_NS)):
        frame = codec.subscribe(
            feed, codec.streams("trade", BTC), request_id=request_id, now_ns=now_ns, account=None
        )
        tokens.append(orjson.loads(frame)["jwt"])
    assert len(set(tokens)) == 3
    assert tokens[0] == tokens[3], "codecs are pure"


@pytest.mark.parametrize(("headers", "wait_s"), [({}, 10.0), ({"retry-after": "3"}, 3.0)])
def test_too_many_connections_are_waited_for(headers: dict[str, str], wait_s: float) -> None:
    reply = HttpReply(status=429, headers=headers, body=b"Too many requests", received_ns=0)
    (said,) = VENUE.codec.refused(VENUE.feed("spot"), reply)
    assert isinstance(said, Failed)
    assert said.retry_after_s == wait_s
    assert VENUE.codec.refused(VENUE.feed("spot"), HttpReply(status=503, body=b"", received_ns=0)) == ()
