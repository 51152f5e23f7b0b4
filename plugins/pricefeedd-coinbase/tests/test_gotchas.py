"""What has tripped others on Coinbase, one test each."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted, Count, Failed, Refused
from pricefeedd.events import BookDelta, BookSnapshot, Side, Ticker, Trade
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.rest import HttpReply
from pricefeedd_coinbase.codec import CoinbaseCodec
from pricefeedd_coinbase.tokens import Key
from pricefeedd_coinbase.venue import coinbase

VENUE = coinbase()
RECEIVED_NS = 1_790_735_994_200_000_000


def listed(product: str, alias: str = "") -> dict[str, Any]:
    base, _, quote = product.partition("-")
    return {
        "product_id": product,
        "base_currency_id": base,
        "quote_currency_id": quote,
        "product_type": "SPOT",
        "status": "online",
        "alias": alias,
    }


def instruments(*rows: dict[str, Any]) -> InstrumentMap:
    body = orjson.dumps({"products": rows, "num_products": len(rows)})
    reply = HttpReply(status=200, body=body, received_ns=RECEIVED_NS)
    return InstrumentMap("coinbase", "spot", VENUE.rest.instruments("spot").parse(reply).items)


KNOWN = instruments(listed("BTC-USD"), listed("ETH-USD"), listed("BTC-USDC", "BTC-USD"))
BTC: Instrument = KNOWN.find("BTC-USD")


def say(channel: str, event: Any, codec: CoinbaseCodec | None = None, **envelope: Any) -> list[Any]:
    body = {"channel": channel, "timestamp": "2026-09-30T02:39:54.01Z", "sequence_num": 1, "events": [event]}
    return decode(orjson.dumps(body | envelope), codec)


def decode(frame: bytes, codec: CoinbaseCodec | None = None) -> list[Any]:
    feed = VENUE.feed("spot")
    return list(
        (codec or CoinbaseCodec()).decode(frame, feed=feed, names=KNOWN.names, received_ns=RECEIVED_NS)
    )


def trade_row(number: int = 5, **changes: str) -> dict[str, str]:
    row = {
        "product_id": "BTC-USD",
        "trade_id": str(number),
        "price": "83277.26",
        "size": "0.1",
        "time": "2026-09-30T02:39:53.9Z",
        "side": "SELL",
    }
    return row | changes


def level(side: str, price: str, size: str) -> dict[str, str]:
    return {
        "side": side,
        "event_time": "2026-09-30T02:39:53.6Z",
        "price_level": price,
        "new_quantity": size,
    }


def test_gotcha_01_a_snapshot_of_five_megabytes_is_taken() -> None:
    updates = [level("bid", f"{60000 - n / 100:.2f}", "0.00715626") for n in range(22_677)]
    updates += [level("offer", f"{60001 + n / 100:.2f}", "0.00715626") for n in range(22_677)]
    event = {"type": "snapshot", "product_id": "BTC-USD", "updates": updates}
    frame = orjson.dumps(
        {"channel": "l2_data", "timestamp": "2026-09-30T02:39:53Z", "sequence_num": 0, "events": [event]}
    )
    assert 4 << 20 < len(frame) < VENUE.feed("spot-book").max_message_bytes
    book = decode(frame)[-1]
    assert isinstance(book, BookSnapshot)
    assert len(book.bids) == len(book.asks) == 22_677
    rule = VENUE.rules["spot"].book
    assert rule is not None
    assert rule.depth is None, "levels that we cut would never come again"


async def test_gotcha_02_something_is_asked_for_at_once(autojump_clock: MockClock, scene: Any) -> None:
    """The instruments are learnt before the connection is opened, so nothing keeps the first request."""
    async with scene() as s:
        s.fake.faults.cut()
        await s.rig.until(lambda: not s.rig.live("trade:BTC-USD"))
        await s.rig.until(lambda: s.rig.live("trade:BTC-USD", "book:BTC-USD"))
        for socket in s.fake.sockets:
            assert next(iter(socket.subscriptions)) == "heartbeats"
        await trio.sleep(60)
        assert s.rig.market("spot").reconnects == 2, "nobody was cut for asking late"


def test_gotcha_03_level2_is_asked_for_and_answered_and_l2_data_comes() -> None:
    (stream,) = VENUE.codec.streams("book", BTC)
    frame = VENUE.codec.subscribe(VENUE.feed("spot-book"), [stream], request_id=1, now_ns=1, account=None)
    assert orjson.loads(frame)["channel"] == "level2"
    answer = say("subscriptions", {"subscriptions": {"level2": ["BTC-USD"]}})
    assert answer[1] == Accepted(streams=(stream.name,), complete=True)
    said = say("l2_data", {"type": "snapshot", "product_id": "BTC-USD", "updates": []})
    assert said[1] == Accepted(streams=(stream.name,))


def test_gotcha_04_a_trade_names_the_makers_side() -> None:
    """The offer at 83277.26 shrank by what was traded there: the seller rested, the buyer took."""
    (_, trade) = say("market_trades", {"type": "update", "trades": [trade_row(side="SELL")]})
    assert trade.aggressor is Side.BUY
    rows = [level("bid", "1", "2"), level("offer", "3", "4")]
    book = say("l2_data", {"type": "update", "product_id": "BTC-USD", "updates": rows})[-1]
    assert (book.bids, book.asks) == ([("1", "2")], [("3", "4")])


async def test_gotcha_05_data_precedes_the_answer_which_is_about_everything(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene() as s:
        with s.fake.faults.late_ack(3.0):
            s.fake.faults.cut()
            await s.rig.until(lambda: not s.rig.live("trade:BTC-USD"))
            await s.rig.until(lambda: s.rig.live("trade:BTC-USD", "book:BTC-USD", "book:ETH-USD"))
            await trio.sleep(10)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects == 2, "an answer is not mistaken for a refusal of the rest"


def test_gotcha_06_frames_are_numbered_per_connection() -> None:
    frames = [
        say("l2_data", {"type": "update", "product_id": "BTC-USD", "updates": []}, sequence_num=4),
        say("market_trades", {"type": "update", "trades": []}, sequence_num=5),
        say("l2_data", {"type": "update", "product_id": "NOSUCH-USD", "updates": []}, sequence_num=6),
        say("heartbeats", {"heartbeat_counter": 1}, sequence_num=7),
        say("status", {"type": "update", "products": []}, sequence_num=8),
        say("subscriptions", {"subscriptions": {}}, sequence_num=9),
    ]
    assert [frame[0] for frame in frames] == [Count(n) for n in range(4, 10)], (
        "what is dropped counts as well"
    )
    assert not any(isinstance(said, BookDelta) and said.sequence is not None for f in frames for said in f)


async def test_gotcha_07_an_alias_gets_the_frames_of_another_product(
    autojump_clock: MockClock, scene: Any
) -> None:
    alias = KNOWN.find("BTC-USDC")
    assert (alias.name, alias.alias_of) == ("BTC-USDC", "BTC-USD")
    async with scene({"spot": {"BTC-USDC": ["trade"]}}) as s:
        assert s.ids("BTC-USDC")
        assert any("market_trades:BTC-USD" in socket.subscriptions for socket in s.fake.sockets)


async def test_gotcha_08_a_hundred_old_trades_after_each_reconnect_are_told_once(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene() as s:
        for _ in range(3):
            s.fake.faults.cut()
            await s.rig.until(lambda: not s.rig.live("trade:BTC-USD"))
            await s.rig.until(lambda: s.rig.live("trade:BTC-USD"))
            await trio.sleep(2)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").duplicates > 100


def test_gotcha_09_the_venues_candles_are_not_minutes() -> None:
    candle = {"start": "1688998200", "high": "1867.72", "low": "1865.63", "open": "1867.38", "close": "1866.81", "volume": "0.2", "product_id": "BTC-USD"}  # fmt: skip
    assert say("candles", {"type": "snapshot", "candles": [candle]}) == [Count(1)]
    rule = VENUE.rules["spot"].candle
    assert rule is not None
    assert rule.built_from == "trade"


def test_gotcha_10_tickers_are_no_sign_of_life() -> None:
    (stream,) = VENUE.codec.streams("ticker", BTC)
    assert stream.owes_within_s is None
    for feed in VENUE.feeds:
        assert [s.name for s in feed.always] == ["heartbeats"]
        assert feed.silence_s <= 10.0


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("54Z", 0), ("54.5Z", 500_000_000), ("54.01499955Z", 14_999_550), ("54.014999553Z", 14_999_553)],
)
def test_gotcha_11_times_have_none_to_nine_digits(text: str, fraction: int) -> None:
    row = trade_row(time=f"2026-09-30T02:39:{text}")
    (_, trade) = say("market_trades", {"type": "update", "trades": [row]})
    assert trade.venue_time_ns == 1_790_735_994_000_000_000 + fraction


def test_gotcha_12_client_id_comes_and_goes_and_empty_texts_are_no_values() -> None:
    event = {"type": "update", "trades": [trade_row()]}
    assert say("market_trades", event) == say("market_trades", event, client_id="")
    for counter in (12240, "12240"):
        assert say("heartbeats", {"heartbeat_counter": counter}) == [Count(1)]
    ticker = {"product_id": "BTC-USD", "price": "5", "high_24_h": ""}
    (_, found) = say("ticker", {"type": "update", "tickers": [ticker]})
    assert isinstance(found, Ticker)
    assert (found.last, found.high_24h) == ("5", None)
    empty = {"product_id": "", "price": "", "volume_24_h": ""}
    said = say("ticker_batch", {"type": "snapshot", "tickers": [empty]})
    assert not [one for one in said if isinstance(one, Ticker)]


def test_gotcha_13_authentication_failure_may_be_a_typo() -> None:
    frame = b'{"type":"error","message":"authentication failure"}'
    assert decode(frame) == [Refused(reason="authentication failure")], "without a key it is the channel"
    (said,) = decode(frame, CoinbaseCodec(Key("k", "A" * 43 + "=")))
    assert isinstance(said, Failed)
    assert said.retry_after_s, "with one it is the key or the clock, and not tried again in a tight loop"


async def test_gotcha_14_the_venue_drops_frames_for_slow_readers(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene() as s:
        s.fake.faults.drop(5, match="level2")
        await s.rig.until(lambda: not s.rig.live("book:BTC-USD"))
        assert "frames lost: expected number" in s.rig.market("spot").last_error
        await s.rig.until(lambda: s.rig.live("book:BTC-USD", "book:ETH-USD"))
        await s.settle()
        s.check_complete()
        assert s.rig.events("trade:BTC-USD", Trade)
