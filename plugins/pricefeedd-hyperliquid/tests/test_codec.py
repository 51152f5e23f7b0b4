"""Frames to events: what each channel says, in the form of the venue's documents."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Refused, Stream
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookSnapshot, Candle, Origin, Quote, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd_hyperliquid.codec import HyperliquidCodec, Subscription, name_of, subscription_of
from pricefeedd_hyperliquid.venue import hyperliquid

VENUE = hyperliquid()
NOW_MS = 1_790_358_617_900
NOW_NS = NOW_MS * 1_000_000
NAMES = {"BTC": "BTC-USD-PERP", "kPEPE": "kPEPE-USD-PERP", "xyz:SP500": "xyz:SP500-USD-PERP"}
SPOT_NAMES = {"@107": "HYPE-USDC", "PURR/USDC": "PURR-USDC"}


def instrument(symbol: str, market: str = "linear", *, tradable: bool = True) -> Instrument:
    return Instrument(
        venue="hyperliquid",
        market=market,
        name={**NAMES, **SPOT_NAMES}[symbol],
        symbol=symbol,
        kind=Kind.SPOT if market == "spot" else Kind.PERPETUAL,
        base=symbol,
        quote="USD",
        tradable=tradable,
    )


def say(channel: str, data: Any, *, names: dict[str, str] = NAMES) -> list[Any]:
    return read(orjson.dumps({"channel": channel, "data": data}), names=names)


def read(frame: bytes, *, names: dict[str, str] = NAMES) -> list[Any]:
    return list(VENUE.codec.decode(frame, feed=VENUE.feed("linear"), names=names, received_ns=NOW_NS))


def row(**changes: Any) -> dict[str, Any]:
    return {
        "coin": "BTC", "side": "B", "px": "83770.0", "sz": "0.00819", "time": NOW_MS - 100, "hash": "0x0",
        "tid": 437413095582311, "users": ["0x1", "0x2"],
    } | changes  # fmt: skip


# --- Trades -----------------------------------------------------------------------------------------------


def test_a_trade() -> None:
    assert say("trades", [row()]) == [
        Trade(
            venue="hyperliquid",
            instrument="BTC-USD-PERP",
            venue_time_ns=(NOW_MS - 100) * 1_000_000,
            received_ns=NOW_NS,
            id="437413095582311",
            price="83770.0",
            size="0.00819",
            aggressor=Side.BUY,
        )
    ]


def test_the_side_is_the_takers() -> None:
    assert [t.aggressor for t in say("trades", [row(side="B"), row(side="A")])] == [Side.BUY, Side.SELL]


def test_trades_without_users_and_with_a_hash_of_zeros_are_read() -> None:
    old = row(hash="0x" + "0" * 64)
    del old["users"]
    assert len(say("trades", [old])) == 1


def test_rows_of_the_past_are_marked_and_oldest_first() -> None:
    times = [NOW_MS - 50, NOW_MS - 45_000, NOW_MS - 3000, NOW_MS - 50]
    said = say("trades", [row(time=ms, tid=i) for i, ms in enumerate(times)])
    assert [(t.id, t.origin) for t in said] == [
        ("1", Origin.BACKFILL),
        ("2", Origin.BACKFILL),
        ("0", Origin.LIVE),
        ("3", Origin.LIVE),
    ]


def test_one_row_from_long_ago_is_of_the_past() -> None:
    assert say("trades", [row(time=NOW_MS - 3_600_000)])[0].origin is Origin.BACKFILL
    assert say("trades", [row(time=NOW_MS - 30_000)])[0].origin is Origin.LIVE, "our clock may be off"


def test_the_trades_of_one_block_are_live() -> None:
    said = say("trades", [row(tid=i) for i in range(21)])
    assert [t.id for t in said] == [str(i) for i in range(21)]
    assert {t.origin for t in said} == {Origin.LIVE}


# --- Quotes -----------------------------------------------------------------------------------------------


def test_a_quote() -> None:
    sides = [{"px": "83757.0", "sz": "22.61305", "n": 81}, {"px": "83758.0", "sz": "0.00016", "n": 1}]
    assert say("bbo", {"coin": "BTC", "time": 1790358617881, "bbo": sides}) == [
        Quote(
            venue="hyperliquid",
            instrument="BTC-USD-PERP",
            venue_time_ns=1790358617881_000_000,
            received_ns=NOW_NS,
            bid_price="83757.0",
            bid_size="22.61305",
            ask_price="83758.0",
            ask_size="0.00016",
            sequence=1790358617881,
        )
    ]


@pytest.mark.parametrize(
    ("sides", "prices"),
    [
        ([None, None], (None, None)),
        ([{"px": "1.5", "sz": "2.0", "n": 1}, None], ("1.5", None)),
        ([None, {"px": "1.5", "sz": "2.0", "n": 1}], (None, "1.5")),
        ([{"px": "1.5", "sz": "2.0", "n": 1}], ("1.5", None)),
    ],
)
def test_sides_that_are_empty(sides: list[Any], prices: tuple[Any, Any]) -> None:
    (quote,) = say("bbo", {"coin": "BTC", "time": NOW_MS, "bbo": sides})
    assert (quote.bid_price, quote.ask_price) == prices
    assert (quote.bid_size is None, quote.ask_size is None) == (prices[0] is None, prices[1] is None)


# --- Tickers ----------------------------------------------------------------------------------------------

CONTEXT = {
    "funding": "0.0000125", "openInterest": "39338.76246", "prevDayPx": "84086.0",
    "dayNtlVlm": "3096053627.5618200302", "premium": "-0.0001348801", "oraclePx": "83778.1", "markPx": "83757.0",
    "midPx": "83757.5", "impactPxs": ["83757.0", "83766.8"], "dayBaseVlm": "36757.56691",
}  # fmt: skip


def test_the_context_of_a_perpetual() -> None:
    assert say("activeAssetCtx", {"coin": "BTC", "ctx": CONTEXT}) == [
        Ticker(
            venue="hyperliquid",
            instrument="BTC-USD-PERP",
            received_ns=NOW_NS,
            open_24h="84086.0",
            volume_24h="36757.56691",
            turnover_24h="3096053627.5618200302",
            mark_price="83757.0",
            index_price="83778.1",
            funding_rate="0.0000125",
            open_interest="39338.76246",
        )
    ]


def test_the_context_of_a_spot_pair() -> None:
    context = {
        "prevDayPx": "41.5", "dayNtlVlm": "1234.5", "markPx": "42.1", "midPx": "42.15", "coin": "@107",
        "circulatingSupply": "333.5", "totalSupply": "999.5", "dayBaseVlm": "29.5",
    }  # fmt: skip
    (ticker,) = say("activeSpotAssetCtx", {"coin": "@107", "ctx": context}, names=SPOT_NAMES)
    assert (ticker.mark_price, ticker.volume_24h) == ("42.1", "29.5")
    assert ticker.index_price is ticker.funding_rate is ticker.open_interest is None


# --- Candles ----------------------------------------------------------------------------------------------

CANDLE = {
    "t": 1790358600000, "T": 1790358659999, "s": "BTC", "i": "1m", "o": "83765.0", "c": "83766.0", "h": "83770.0",
    "l": "83756.0", "v": "0.3317", "n": 36,
}  # fmt: skip


def test_a_candle_is_never_closed_by_itself() -> None:
    assert say("candle", CANDLE) == [
        Candle(
            venue="hyperliquid",
            instrument="BTC-USD-PERP",
            received_ns=NOW_NS,
            start_ns=1790358600000_000_000,
            open="83765.0",
            high="83770.0",
            low="83756.0",
            close="83766.0",
            volume="0.3317",
            trades=36,
            closed=False,
        )
    ]


def test_other_intervals_are_passed_over() -> None:
    assert say("candle", CANDLE | {"i": "5m"}) == []


# --- Books ------------------------------------------------------------------------------------------------


def test_a_book_is_whole() -> None:
    levels = [
        [{"px": "63460.0", "sz": "0.02666", "n": 2}, {"px": "63457.0", "sz": "0.00028", "n": 1}],
        [{"px": "63488.0", "sz": "0.01246", "n": 2}],
    ]
    assert say("l2Book", {"coin": "BTC", "time": NOW_MS, "levels": levels, "fast": True}) == [
        BookSnapshot(
            venue="hyperliquid",
            instrument="BTC-USD-PERP",
            venue_time_ns=NOW_NS,
            received_ns=NOW_NS,
            bids=[("63460.0", "0.02666"), ("63457.0", "0.00028")],
            asks=[("63488.0", "0.01246")],
        )
    ]


def test_an_empty_book() -> None:
    (book,) = say("l2Book", {"coin": "BTC", "time": NOW_MS, "levels": [[], []]})
    assert (list(book.bids), list(book.asks)) == ([], [])


# --- Numbers ----------------------------------------------------------------------------------------------


def test_exponents_are_written_out() -> None:
    (trade,) = say("trades", [row(px="1E-7", sz="2.5e3")])
    assert (trade.price, trade.size) == ("0.0000001", "2500")
    level = {"px": "1.5e-3", "sz": "1e2", "n": 1}
    (quote,) = say("bbo", {"coin": "BTC", "time": NOW_MS, "bbo": [level, level]})
    assert (quote.bid_price, quote.ask_size) == ("0.0015", "100")
    (book,) = say("l2Book", {"coin": "BTC", "time": NOW_MS, "levels": [[level], []]})
    assert list(book.bids) == [("0.0015", "100")]
    (candle,) = say("candle", CANDLE | {"v": "1e-5"})
    assert candle.volume == "0.00001"
    (ticker,) = say("activeAssetCtx", {"coin": "BTC", "ctx": CONTEXT | {"funding": "-1.25e-5"}})
    assert ticker.funding_rate == "-0.0000125"


# --- Names and requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "symbol", "subscription"),
    [
        ("trade", "BTC", {"type": "trades", "coin": "BTC"}),
        ("quote", "kPEPE", {"type": "bbo", "coin": "kPEPE"}),
        ("candle_1m", "xyz:SP500", {"type": "candle", "coin": "xyz:SP500", "interval": "1m"}),
        ("book", "BTC", {"type": "l2Book", "coin": "BTC", "fast": True}),
        ("ticker", "@107", {"type": "activeAssetCtx", "coin": "@107"}),
        ("trade", "PURR/USDC", {"type": "trades", "coin": "PURR/USDC"}),
    ],
)
def test_requests(channel: str, symbol: str, subscription: dict[str, Any]) -> None:
    market = "spot" if symbol in SPOT_NAMES else "linear"
    (stream,) = VENUE.codec.streams(channel, instrument(symbol, market))
    assert stream.feed == market
    feed = VENUE.feed(market)
    for method in ("subscribe", "unsubscribe"):
        frame = getattr(VENUE.codec, method)(feed, [stream], request_id=1, now_ns=1, account=None)
        assert orjson.loads(frame) == {"method": method, "subscription": subscription}
    echo = Subscription(subscription["type"], symbol, subscription.get("interval", ""))
    assert name_of(echo) == stream.name


def test_deep_books_are_asked_for_plainly() -> None:
    codec = HyperliquidCodec(book_levels=20)
    (stream,) = codec.streams("book", instrument("BTC"))
    frame = codec.subscribe(VENUE.feed("linear"), [stream], request_id=1, now_ns=1, account=None)
    assert orjson.loads(frame)["subscription"] == {"type": "l2Book", "coin": "BTC"}
    assert subscription_of(stream.name, fast=True)["fast"] is True


def test_what_the_venue_has_not() -> None:
    assert VENUE.codec.streams("liquidation", instrument("BTC")) == ()


def test_what_is_owed() -> None:
    def owes(channel: str, symbol: str = "BTC", market: str = "linear", **more: bool) -> float | None:
        (stream,) = VENUE.codec.streams(channel, instrument(symbol, market, **more))
        return stream.owes_within_s

    assert owes("book") is not None
    assert owes("ticker") is not None
    assert owes("trade") is owes("quote") is owes("candle_1m") is None
    assert owes("ticker", "@107", "spot") is None
    assert owes("book", tradable=False) is None, "a delisted coin is accepted and silent"


def test_the_ping_is_the_venues_own() -> None:
    assert VENUE.codec.ping(VENUE.feed("spot"), now_ns=1) == '{"method":"ping"}'


# --- Answers ----------------------------------------------------------------------------------------------


def test_an_ack_names_the_stream() -> None:
    subscription = {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None, "fast": False}
    data = {"method": "subscribe", "subscription": subscription}
    assert say("subscriptionResponse", data) == [Accepted(streams=("l2Book:BTC",))]
    data = {"method": "subscribe", "subscription": {"type": "candle", "coin": "xyz:SP500", "interval": "1m"}}
    assert say("subscriptionResponse", data) == [Accepted(streams=("candle_1m:xyz:SP500",))]


@pytest.mark.parametrize(
    "subscription",
    [
        {"type": "userFills", "user": "0x7099", "aggregateByTime": False},
        {"type": "candle", "coin": "BTC", "interval": "5m"},
        {"type": "allMids"},
    ],
)
def test_acks_of_other_subscriptions_are_passed_over(subscription: dict[str, Any]) -> None:
    assert say("subscriptionResponse", {"method": "subscribe", "subscription": subscription}) == []


def test_an_ack_of_an_unsubscribe_says_nothing() -> None:
    data = {"method": "unsubscribe", "subscription": {"type": "bbo", "coin": "BTC"}}
    assert say("subscriptionResponse", data) == []


def test_what_is_subscribed_already_is_accepted() -> None:
    assert say("error", 'Already subscribed: {"type":"trades","coin":"ETH"}') == [
        Accepted(streams=("trades:ETH",))
    ]
    assert say("error", 'Already unsubscribed: {"type":"trades","coin":"ETH"}') == []


def test_a_request_that_cannot_be_read_is_refused_by_its_content() -> None:
    frame = VENUE.codec.subscribe(
        VENUE.feed("linear"),
        [Stream(feed="linear", name="bbo:BTC")],
        request_id=1,
        now_ns=1,
        account=None,
    )
    reason = f"Error parsing JSON into valid websocket request: {frame!s}"
    assert say("error", reason) == [Refused(reason=reason, streams=("bbo:BTC",))]


@pytest.mark.parametrize("words", ["Too many subscriptions", "Oops: {nonsense", 'Oops: {"type":7}'])
def test_an_error_about_nothing_in_particular(words: str) -> None:
    assert say("error", words) == [Refused(reason=words)]


# --- What is passed over, and what is not -----------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        b'{"channel":"pong"}',
        b"Websocket connection established.",
        b'{"channel":"allMids","data":{"mids":{"BTC":"83757.5"}}}',
        b'{"channel":"user","data":{"fills":[]}}',
        b'{"channel":"somethingNew"}',
    ],
)
def test_frames_that_mean_nothing_to_us(frame: bytes) -> None:
    assert read(frame) == []


def test_unknown_coins_are_passed_over() -> None:
    assert say("trades", [row(coin="ETH"), row()]) == say("trades", [row()])
    assert say("trades", [row(coin="btc")]) == [], "coins differ by case"
    assert say("activeAssetCtx", {"coin": "ETH", "ctx": CONTEXT}) == []
    assert say("candle", CANDLE | {"s": "ETH"}) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{nonsense",
        b"[]",
        b"null",
        b'{"data":[]}',
        b'{"channel":7,"data":[]}',
        b'{"channel":"trades"}',
        b'{"channel":"trades","data":{}}',
        b'{"channel":"error","data":{}}',
        b'{"channel":"bbo","data":{"coin":"BTC","time":1,"bbo":[]}}',
        b'{"channel":"bbo","data":{"coin":"BTC","time":"1","bbo":[null,null]}}',
        b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[]]}}',
        b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[{"px":"","sz":"1"}],[]]}}',
        b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[{"px":"1","sz":"one"}],[]]}}',
        b'{"channel":"candle","data":{"t":1,"T":2,"s":"BTC","i":"1m","o":"1","c":"1","h":"1","l":"1","v":"x","n":1}}',
    ],
)
def test_bad_frames(frame: bytes) -> None:
    with pytest.raises(DecodeError, match="hyperliquid: bad frame"):
        read(frame)


@pytest.mark.parametrize(
    "change", [{"tid": "1"}, {"time": 1.5}, {"px": 83770.0}, {"px": "NaN"}, {"sz": ""}, {"side": "X"}, {"side": None}]
)  # fmt: skip
def test_bad_trades(change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        say("trades", [row(), row(**change)])
