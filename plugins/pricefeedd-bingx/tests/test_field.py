"""Faults that others had to mend in their clients, tried on this plugin; most of them through the whole pipeline."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Quote, State, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_bingx.testing import BingxFake
from pricefeedd_bingx.venue import bingx

VENUE = bingx()
BOOK = "book:BTC-USDT-PERP"
TRADES = "trade:BTC-USDT-PERP"
TOPIC = "BTC-USDT@incrDepth"
T_MS = 1_790_373_600_000


def decode(message: Any, market: str = "linear") -> list[Any]:
    text = message if isinstance(message, bytes) else orjson.dumps(message)
    return list(
        VENUE.codec.decode(
            gzip.compress(text), feed=VENUE.feed(market), names={"BTC-USDT": "BTC"}, received_ns=1
        )
    )


@asynccontextmanager
async def quiet(
    *channels: str, market: str = "linear", **session: Any
) -> AsyncIterator[tuple[BingxFake, Rig]]:
    """Run one instrument's topics on a fake where nothing happens but what the test says."""
    listings = [one for one in BingxFake.default_listings() if one.base == "BTC" and one.market == market]
    fake = BingxFake(Market(listings, depth=5))
    name = listings[0].name
    subscribe = {market: {name: list(channels)}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints(), **session) as made:
        await made.until(lambda: made.live(*(f"{channel}:{name}" for channel in channels)))
        yield fake, made


def book(action: str, number: int, bids: Any, asks: Any) -> dict[str, Any]:
    data = {"action": action, "lastUpdateId": number, "time": T_MS, "bids": bids, "asks": asks}
    return {"code": 0, "dataType": TOPIC, "data": data}


def trade(price: str, ms: int = T_MS) -> dict[str, Any]:
    return {"q": "1", "p": price, "T": ms, "m": True, "s": "BTC-USDT"}


def trades(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"code": 0, "dataType": "BTC-USDT@trade", "data": rows}


def tell(fake: BingxFake, message: dict[str, Any], market: str = "linear") -> None:
    assert fake.publish(message["dataType"], message, scope=market) == 1


# --- Connection life --------------------------------------------------------------------------------------


async def test_a_first_frame_that_never_comes(autojump_clock: MockClock) -> None:
    fake = BingxFake()
    fake.faults.silent_route()
    subscribe = {"spot": {"BTC-USDT": ["trade"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.state("trade:BTC-USDT") is State.STALE)
        assert "no data came" in made.market("spot").last_error


async def test_a_handshake_that_never_ends(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        fault = fake.faults.hang_handshake()
        fake.faults.cut()
        await trio.sleep(30)
        assert "handshake" in made.market("linear").last_error
        fault.lift()
        await made.until(lambda: made.live(TRADES))


async def test_pings_in_data_frames_are_no_data(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        before = made.market("linear").messages
        await trio.sleep(20)
        assert made.market("linear").messages >= before + 3
        assert made.market("linear").decode_errors == 0
        assert [m for _, m in fake.seen.messages].count("Pong") >= 3


async def test_websocket_pings_do_not_stand_for_the_venues_own(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        fake.faults.ping_flood(300)
        await trio.sleep(1)
        fake.faults.stall()
        await made.until(lambda: made.state(TRADES) is not State.LIVE, within_s=20)


async def test_a_close_with_1000_is_an_end_like_any_other(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        fake.faults.close(code=1000, reason="bye")
        await made.until(lambda: made.state(TRADES) is State.CONNECTING)
        await made.until(lambda: made.live(TRADES))


# --- Subscriptions ----------------------------------------------------------------------------------------


def test_an_ack_confirms_its_own_request_only() -> None:
    assert decode({"id": "5", "code": 0, "msg": "", "dataType": "", "data": None}) == [Accepted(request_id=5)]


async def test_one_bad_symbol_does_not_drop_the_rest(autojump_clock: MockClock) -> None:
    fake = BingxFake(history_minutes=1)
    fake.paused.add("ETH-USDT")
    names = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "NOPE-USDT")
    subscribe = {"spot": {name: ["trade", "quote"] for name in names}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        good = [f"{channel}:{name}" for name in ("BTC-USDT", "SOL-USDT") for channel in ("trade", "quote")]
        bad = [f"{channel}:{name}" for name in ("ETH-USDT", "NOPE-USDT") for channel in ("trade", "quote")]
        await made.until(lambda: made.live(*good))
        await made.until(lambda: all(made.state(topic) is State.DOWN for topic in bad))
        assert made.live(*good)
        assert made.market("spot").reconnects == 0


async def test_a_late_answer_to_an_unsubscribe_kills_no_new_subscription(autojump_clock: MockClock) -> None:
    async with quiet("book", "trade") as (fake, made):
        fake.faults.late_ack(3.0)
        number = fake.market.sequence("BTC-USDT-PERP")
        tell(fake, book("update", number + 5, [], []))
        tell(fake, book("update", number + 4, [], []))
        await made.until(lambda: State.RESYNCING in made.states(BOOK))
        await made.until(lambda: made.live(BOOK))
        await trio.sleep(10)
        assert made.live(BOOK)
        assert fake.seen.unsubscribes == 1


# --- Books ------------------------------------------------------------------------------------------------


async def test_a_snapshot_in_mid_stream_begins_anew_at_any_number(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, made):
        tell(fake, book("all", 1, [["10", "1"]], [["11", "2"]]))
        tell(fake, book("update", 2, [["10.5", "3"]], []))
        await made.until(lambda: len(made.events(BOOK, BookDelta)) == 1)
        assert made.book("BTC-USDT-PERP") == ([("10.5", "3"), ("10", "1")], [("11", "2")])
        assert State.RESYNCING not in made.states(BOOK)


async def test_an_empty_book_and_an_empty_side(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, made):
        tell(fake, book("all", 1, [], []))
        tell(fake, book("update", 2, None, [["11", "2"]]))
        await made.until(lambda: len(made.events(BOOK, BookDelta)) == 1)
        assert made.book("BTC-USDT-PERP") == ([], [("11", "2")])
        assert made.live(BOOK)


async def test_a_level_that_leaves_the_depth_leaves_the_readers_book(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, made):
        bids = [[str(3000 - n), "1"] for n in range(1024)]
        tell(fake, book("all", 1, bids, [["4000", "1"]]))
        tell(fake, book("update", 2, [["3001", "1"]], []))
        await made.until(lambda: len(made.events(BOOK, BookDelta)) == 1)
        held = made.book("BTC-USDT-PERP")
        assert held is not None
        assert len(held[0]) == 1024
        assert held[0][0] == ("3001", "1")
        assert held[0][-1] == ("1978", "1")


async def test_removing_a_level_that_is_not_there_is_normal(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, made):
        tell(fake, book("all", 1, [["10", "1"]], [["11", "2"]]))
        tell(fake, book("update", 2, [["9", "0.0000"], ["10", "0.0000"]], [["12", "0"]]))
        await made.until(lambda: len(made.events(BOOK, BookDelta)) == 1)
        assert made.book("BTC-USDT-PERP") == ([], [("11", "2")])
        assert made.live(BOOK)


async def test_an_older_number_breaks_the_book_before_anybody_reads_it(autojump_clock: MockClock) -> None:
    async with quiet("book") as (fake, made):
        number = fake.market.sequence("BTC-USDT-PERP")
        tell(fake, book("update", number + 7, [["1.0", "1"]], []))
        tell(fake, book("update", number + 3, [["2.0", "1"]], []))
        await made.until(lambda: State.RESYNCING in made.states(BOOK))
        kinds = [type(m.event).__name__ for m in made.topic(BOOK)]
        assert ["2.0", "1"] not in [level for e in made.events(BOOK, BookDelta) for level in e.bids]
        await made.until(lambda: made.live(BOOK))
        kinds = [type(m.event).__name__ for m in made.topic(BOOK)][len(kinds) :]
        assert kinds[-1] == "BookSnapshot"


async def test_updates_before_the_snapshot_are_not_served(autojump_clock: MockClock) -> None:
    async with quiet("trade", "book") as (fake, made):
        # The new connection's snapshot is lost on its way, and updates come.
        fake.faults.drop(1, match=lambda stream, frame: b'"all"' in gzip.decompress(bytes(frame)))  # type: ignore[arg-type]  # frames are bytes here
        made.forget()
        fake.faults.cut()
        await made.until(lambda: made.live(TRADES))
        number = fake.market.sequence("BTC-USDT-PERP")
        for n in range(1, 4):
            tell(fake, book("update", number + n, [["1.0", "1"]], []))
        await trio.sleep(5)
        assert not made.events(BOOK, BookDelta)
        assert made.state(BOOK) is not State.LIVE
        await made.until(lambda: made.live(BOOK), within_s=120)
        assert made.events(BOOK, BookSnapshot)


async def test_whole_books_that_come_unchanged_are_told_once(autojump_clock: MockClock) -> None:
    async with quiet("book", market="spot") as (fake, made):
        data = {"bids": [["10", "1"]], "asks": [["11", "2"]], "lastUpdateId": 7}
        message = {
            "code": 0,
            "data": data,
            "dataType": "BTC-USDT@depth100",
            "success": True,
            "timestamp": T_MS,
        }
        made.forget()
        for _ in range(5):
            tell(fake, message, "spot")
        await trio.sleep(2)
        assert len(made.events("book:BTC-USDT", BookSnapshot)) == 1


# --- Trades and candles -----------------------------------------------------------------------------------


async def test_all_trades_of_a_frame_and_all_frames_of_a_read(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        for n in range(13):
            tell(fake, trades(*(trade(f"{100 * n + k}", T_MS + n) for k in (2, 1, 0))))
        await made.until(lambda: len(made.events(TRADES, Trade)) == 39)
        expected = [f"{100 * n + k}" for n in range(13) for k in range(3)]
        assert [t.price for t in made.events(TRADES, Trade)] == expected


async def test_a_stale_first_trade_after_a_reconnect_is_dropped(autojump_clock: MockClock) -> None:
    async with quiet("trade") as (fake, made):
        now_ms = fake.now_ns() // 1_000_000
        tell(fake, trades(trade("1", now_ms)))
        await made.until(lambda: made.events(TRADES, Trade))
        fake.faults.cut()
        await made.until(lambda: made.state(TRADES) is not State.LIVE)
        await made.until(lambda: made.live(TRADES))
        tell(fake, trades(trade("2", now_ms - 60_000)))
        tell(fake, trades(trade("3", now_ms + 5_000)))
        await made.until(lambda: len(made.events(TRADES, Trade)) >= 2, within_s=60)
        assert [t.price for t in made.events(TRADES, Trade)] == ["1", "3"]


async def test_a_running_minute_is_never_closed(autojump_clock: MockClock) -> None:
    async with quiet("candle_1m") as (fake, made):
        topic = "candle_1m:BTC-USDT-PERP"
        for _ in range(40):
            fake.step(2)
            await trio.sleep(1)
        for candle in made.events(topic, Candle):
            assert not candle.closed or candle.start_ns + 60_000_000_000 <= candle.received_ns


async def test_a_minute_that_comes_again_is_told_once(autojump_clock: MockClock) -> None:
    async with quiet("candle_1m") as (fake, made):
        topic = "candle_1m:BTC-USDT-PERP"
        start_ms = fake.now_ns() // 60_000_000_000 * 60_000
        row = {"c": "1", "o": "1", "h": "1", "l": "1", "v": "1", "T": start_ms}
        made.forget()
        for _ in range(3):
            tell(fake, {"code": 0, "dataType": "BTC-USDT@kline_1m", "data": [row]})
        await trio.sleep(2)
        assert [c.start_ns // 1_000_000 for c in made.events(topic, Candle)].count(start_ms) == 1


# --- Time and numbers -------------------------------------------------------------------------------------


def test_a_time_that_was_not_sent_is_not_ours() -> None:
    message = {"code": 0, "dataType": "BTC-USDT@depth100", "data": {"bids": [], "asks": []}}
    (found,) = decode(message, "spot")
    assert found.venue_time_ns is None
    assert found.received_ns == 1


@pytest.mark.parametrize(
    ("text", "plain"), [("1E-7", "0.0000001"), ("1.25e3", "1250"), ("2e-08", "0.00000002")]
)
def test_exponents_are_written_out(text: str, plain: str) -> None:
    (found,) = decode(trades({"q": text, "p": text, "T": T_MS, "m": True}))
    assert (found.price, found.size) == (plain, plain)


def test_trailing_zeros_and_long_numbers_survive() -> None:
    row = {"q": "0.50000000", "p": "123456789012345.678901234567890", "T": T_MS, "m": True}
    (found,) = decode(trades(row))
    assert (found.price, found.size) == ("123456789012345.678901234567890", "0.50000000")


@pytest.mark.parametrize("wrong", ["NaN", "inf", "-1", "1,5", "0x1", "", " 1", None, [], {}, True])
def test_what_is_no_number_does_not_come_out_as_one(wrong: Any) -> None:
    with pytest.raises(DecodeError):
        decode(trades({"q": "1", "p": wrong, "T": T_MS, "m": True}))


# --- Clients ----------------------------------------------------------------------------------------------


async def test_many_resets_at_once_are_all_healed(autojump_clock: MockClock) -> None:
    async with quiet("trade", "quote", "ticker", "book") as (fake, made):
        topics = [f"{channel}:BTC-USDT-PERP" for channel in ("trade", "quote", "ticker", "book")]
        for _ in range(5):
            fake.faults.cut()
            await trio.sleep(0.2)
        await made.until(lambda: made.live(*topics), within_s=200)
        fake.step(5)
        fake.flush()
        await made.until(lambda: made.events(topics[1], Quote))
        made.check_sequence()
