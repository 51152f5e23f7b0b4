"""What has tripped others on Hyperliquid, one test each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted
from pricefeedd.errors import SubscriptionRejectedError
from pricefeedd.events import Candle, Origin, Quote, State, Status, Ticker, Trade
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.rest import HttpReply
from pricefeedd.rules import CandleEnd, EmptyMinutes, TradeIds
from pricefeedd.testing import Request, Response
from pricefeedd.testing.rig import rig
from pricefeedd_hyperliquid.listing import read_pairs, read_perpetuals
from pricefeedd_hyperliquid.testing import DELISTED, HyperliquidFake
from pricefeedd_hyperliquid.venue import HyperliquidSettings, hyperliquid

VENUE = hyperliquid()
NOW_NS = 1_790_358_617_900_000_000
NOW_MS = NOW_NS // 1_000_000
NAMES = {"BTC": "BTC-USD-PERP", "kPEPE": "kPEPE-USD-PERP", "@107": "HYPE-USDC"}


def listed(*coins: str, **more: Any) -> list[Instrument]:
    return read_perpetuals({"universe": [{"szDecimals": 5, "name": coin, **more} for coin in coins]}, {})


def say(channel: str, data: Any, names: Mapping[str, str] = NAMES, *, feed: str = "linear") -> list[Any]:
    frame = orjson.dumps({"channel": channel, "data": data})
    return list(VENUE.codec.decode(frame, feed=VENUE.feed(feed), names=names, received_ns=NOW_NS))


def sent(channel: str, instrument: Instrument, **settings: Any) -> Any:
    """Return the subscription that is asked for."""
    venue = VENUE.configure(VENUE, HyperliquidSettings(**settings))
    (stream,) = venue.codec.streams(channel, instrument)
    frame = venue.codec.subscribe(venue.feed(stream.feed), [stream], request_id=1, now_ns=1, account=None)
    return orjson.loads(frame)["subscription"]


async def test_gotcha_01_a_wrong_coin_is_put_aside_and_the_others_live(autojump_clock: MockClock) -> None:
    """It is listed, and the streams do not know it: the connection ends without a word whenever it is asked for."""
    fake = HyperliquidFake()
    good = {"BTC-USD-PERP": ["trade", "book"], "ETH-USD-PERP": ["trade", "quote"]}
    venue_listing = fake._meta

    def with_a_ghost(question: Mapping[str, Any]) -> Any:
        answer = venue_listing(question)
        answer["universe"].append({"szDecimals": 2, "name": "GHOST"})
        return answer

    async def answer(request: Request) -> Response | None:
        if request.path == "/info" and b'"meta"' in request.body:
            return Response(body=orjson.dumps(with_a_ghost({})))
        return None

    fake.answers.append(answer)
    subscribe = {"linear": {"GHOST-USD-PERP": ["trade"], **good}}
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(fake.play, 5.0)
        topics = [f"{channel}:{name}" for name, channels in good.items() for channel in channels]
        await made.until(lambda: made.live(*topics) and made.state("trade:GHOST-USD-PERP") is State.DOWN)
        *_, last = made.events("trade:GHOST-USD-PERP", Status)
        assert "connection ended" in last.reason
        ends = made.market("linear").reconnects
        await trio.sleep(90)
        assert made.live(*topics)
        assert made.market("linear").reconnects == ends, "it is not asked for again and again"
        nursery.cancel_scope.cancel()


def test_gotcha_01_coins_keep_their_case() -> None:
    names = InstrumentMap("hyperliquid", "linear", listed("BTC", "kPEPE"))
    assert sent("trade", names.find("btc"))["coin"] == "BTC"
    assert sent("trade", names.find("KPEPE"))["coin"] == "kPEPE"


def test_gotcha_02_the_first_trades_after_a_subscribe_are_a_replay() -> None:
    rows = [
        {"coin": "BTC", "side": "B", "px": "1.0", "sz": "1.0", "time": NOW_MS - 45_000 + i * 1500, "tid": i}
        for i in range(30)
    ]
    trades = say("trades", rows)
    assert [t.origin for t in trades[:-2]] == [Origin.BACKFILL] * 28
    rule = VENUE.rules["linear"].trade
    assert rule is not None
    assert rule.ids is TradeIds.UNIQUE, "what we have already is known by its id"


def test_gotcha_03_candles_never_say_that_they_are_final() -> None:
    row: dict[str, Any] = {"t": 1790358540000, "T": 1790358599999, "s": "BTC", "i": "1m", "n": 1, "v": "1.0"}
    row |= dict.fromkeys("ohlc", "1.0")
    (candle,) = say("candle", row)
    assert isinstance(candle, Candle)
    assert not candle.closed
    rule = VENUE.rules["linear"].candle
    assert rule is not None
    assert (rule.end, rule.empty) == (CandleEnd.NEXT, EmptyMinutes.FLAT)
    assert rule.grace_s >= 1, "the last word comes up to 0.2 s after the minute"


def test_gotcha_04_books_are_the_fast_ones_and_quotes_come_from_bbo() -> None:
    (bitcoin,) = listed("BTC")
    assert sent("book", bitcoin)["fast"] is True
    assert "fast" not in sent("book", bitcoin, book_levels=20)
    assert sent("quote", bitcoin)["type"] == "bbo"


def test_gotcha_05_a_pong_has_no_data() -> None:
    frame = b'{"channel":"pong"}'
    assert list(VENUE.codec.decode(frame, feed=VENUE.feed("linear"), names={}, received_ns=1)) == []
    for feed in VENUE.feeds:
        assert feed.ping_interval_s is not None
        assert feed.ping_interval_s <= 30, "the venue cuts whom it has sent nothing for 60 s"
        assert VENUE.codec.ping(feed, now_ns=1) == '{"method":"ping"}'


async def test_gotcha_05_quiet_streams_do_not_end_the_connection(autojump_clock: MockClock) -> None:
    fake = HyperliquidFake(history_minutes=2)
    subscribe = {"spot": {"PURR-USDC": ["trade", "quote"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live("trade:PURR-USDC", "quote:PURR-USDC"))
        await trio.sleep(1800)  # nothing happens on it
        assert made.market("spot").reconnects == 0
        assert made.live("trade:PURR-USDC", "quote:PURR-USDC")


def test_gotcha_06_an_address_has_ten_sockets_and_a_thousand_subscriptions() -> None:
    assert VENUE.max_connections is not None
    assert VENUE.max_connections < 10
    assert {feed.streams_per_connection * VENUE.max_connections for feed in VENUE.feeds} == {1000}


def test_gotcha_07_pairs_are_named_by_index_and_tokens_found_by_theirs() -> None:
    tokens = [
        {"name": name, "index": index, "szDecimals": 2} for name, index in (("X", 9), ("USDC", 0), ("X", 4))
    ]
    rows = [{"name": f"@{i}", "index": i, "tokens": [base, 0]} for i, base in ((17, 4), (5, 9))]
    found = {i.symbol: i.name for i in read_pairs({"universe": rows, "tokens": tokens})}
    assert found == {"@5": "X-USDC", "@17": "X@17-USDC"}


def test_gotcha_08_a_spot_context_is_answered_under_another_name() -> None:
    data = {"coin": "@107", "ctx": {"markPx": "42.1", "coin": "@107"}}
    (ticker,) = say("activeSpotAssetCtx", data, feed="spot")
    assert isinstance(ticker, Ticker)
    assert ticker.instrument == "HYPE-USDC"
    assert say("user", {"fills": []}) == []


def test_gotcha_09_a_thousand_tokens_are_a_lower_case_k() -> None:
    (pepe,) = listed("kPEPE")
    assert (pepe.name, pepe.base, pepe.symbol) == ("kPEPE-USD-PERP", "kPEPE", "kPEPE")
    assert sent("candle_1m", pepe)["coin"] == "kPEPE"


def test_gotcha_10_acks_are_matched_by_their_content() -> None:
    (bitcoin,) = listed("BTC")
    for channel in VENUE.channels["linear"]:
        (stream,) = VENUE.codec.streams(channel, bitcoin)
        normal = sent(channel, bitcoin) | {"nSigFigs": None, "mantissa": None, "fast": False}
        data = {"method": "subscribe", "subscription": normal}
        assert say("subscriptionResponse", data) == [Accepted(streams=(stream.name,))]


def test_gotcha_11_nulls() -> None:
    (quote,) = say("bbo", {"coin": "BTC", "time": NOW_MS, "bbo": [None, None]})
    assert isinstance(quote, Quote)
    assert quote.bid_price is quote.ask_price is None
    context = {
        "funding": "0.0", "openInterest": "0.0", "prevDayPx": "0.37621", "dayNtlVlm": "0.0", "premium": None,
        "oraclePx": "0.3754", "markPx": "0.37621", "midPx": None, "impactPxs": None, "dayBaseVlm": "0.0",
    }  # fmt: skip
    (ticker,) = say("activeAssetCtx", {"coin": "BTC", "ctx": context})
    assert ticker.mark_price == "0.37621"


def test_gotcha_12_a_delisted_coin_is_not_tradable() -> None:
    (gone,) = listed("MATIC", isDelisted=True)
    assert (gone.tradable, gone.status) == (False, "delisted")
    assert all(
        stream.owes_within_s is None
        for channel in VENUE.channels["linear"]
        for stream in VENUE.codec.streams(channel, gone)
    )


async def test_gotcha_12_a_delisted_coin_is_silent_and_hurts_nobody(autojump_clock: MockClock) -> None:
    fake = HyperliquidFake(history_minutes=2)
    gone = f"{DELISTED}-USD-PERP"
    subscribe = {"linear": {gone: ["trade", "quote", "book"], "BTC-USD-PERP": ["trade", "book"]}}
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(fake.play, 2.0)
        await made.until(lambda: made.live("trade:BTC-USD-PERP", "book:BTC-USD-PERP", f"trade:{gone}"))
        await trio.sleep(300)
        assert made.market("linear").reconnects == 0
        assert State.STALE not in [*made.states(f"trade:{gone}"), *made.states(f"book:{gone}")]
        assert made.book(gone) == ([], [])
        assert fake.seen.unsubscribes == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("body", [b"Failed to deserialize the JSON body into the target type", b"null", b""])
def test_gotcha_13_rest_errors_are_plain_text(body: bytes) -> None:
    with pytest.raises(SubscriptionRejectedError, match="HTTP 422"):
        VENUE.rest.examine(HttpReply(status=422, body=body, received_ns=1))


def test_gotcha_14_funding_is_per_hour_and_as_the_venue_says_it() -> None:
    (ticker,) = say("activeAssetCtx", {"coin": "BTC", "ctx": {"markPx": "1.0", "funding": "0.0000125"}})
    assert ticker.funding_rate == "0.0000125"


def test_gotcha_15_hashes_are_no_keys_and_ids_do_not_grow() -> None:
    common = {"coin": "BTC", "side": "A", "px": "1.0", "sz": "2.0", "time": NOW_MS, "hash": "0x" + "0" * 64}
    trades = say("trades", [common | {"tid": tid} for tid in (784469253141982, 437413095582311)])
    assert [t.id for t in trades if isinstance(t, Trade)] == ["784469253141982", "437413095582311"]


def test_gotcha_16_small_and_large_t_are_two_things_in_any_order() -> None:
    start_ms = 1742428740000
    rest = {"c": "3.0", "h": "4.0", "i": "1m", "l": "1.0", "n": 1, "o": "2.0", "s": "BTC", "v": "0.21"}
    ends = {"T": start_ms + 59_999}, {"t": start_ms}
    for data in (ends[0] | rest | ends[1], ends[1] | ends[0] | rest):
        (candle,) = say("candle", data)
        assert candle.start_ns == start_ms * 1_000_000
        assert (candle.open, candle.high, candle.low, candle.close) == ("2.0", "4.0", "1.0", "3.0")
