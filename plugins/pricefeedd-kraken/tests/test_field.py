"""Bugs that others have had in the field, held against this venue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import orjson
import trio
from trio.testing import MockClock

from pricefeedd.book import BookSync, Broken
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Quote, State, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_kraken.fake_words import crc
from pricefeedd_kraken.testing import KrakenFake
from pricefeedd_kraken.venue import kraken

VENUE = kraken()
FEED = VENUE.feed("spot")
NAMES = {"BTC/USD": "BTC-USD"}
RECEIVED_NS = 1_790_373_640_000_000_000
MINUTE_NS = 60_000_000_000


def say(frame: str | bytes) -> list[Any]:
    data = frame.encode() if isinstance(frame, str) else frame
    return list(VENUE.codec.decode(data, feed=FEED, names=NAMES, received_ns=RECEIVED_NS))


@asynccontextmanager
async def at_work(
    wanted: Mapping[str, Sequence[str]], *, rate: float = 3.0, **options: Any
) -> AsyncIterator[tuple[KrakenFake, Rig, trio.CancelScope]]:
    """Run the pipeline against a fake that trades."""
    listings = [listing for listing in KrakenFake.default_listings() if listing.name in wanted]
    fake = KrakenFake(Market(listings), history_minutes=10, **options)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, {"spot": wanted}, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(play)
        yield fake, made, playing
        nursery.cancel_scope.cancel()


# --- Subscriptions ----------------------------------------------------------------------------------------


async def test_one_bad_symbol_does_not_drop_the_rest(autojump_clock: MockClock) -> None:
    wanted = {"BTC-USD": ["book"], "ETH-USD": ["book"], "MINA-GBP": ["book"]}
    async with at_work(wanted) as (fake, made, _):
        fake.refuses.add("ETH/USD")
        await made.until(lambda: made.live("book:BTC-USD", "book:MINA-GBP"))
        await made.until(lambda: made.state("book:ETH-USD") is State.DOWN)
        assert made.market("spot").reconnects == 0


async def test_an_unknown_symbol_fails_and_does_not_hang(autojump_clock: MockClock) -> None:
    async with at_work({"BTC-USD": ["trade"], "NOPE-USD": ["trade"]}) as (_, made, _):
        await made.until(lambda: made.state("trade:NOPE-USD") is State.DOWN, within_s=30)
        await made.until(lambda: made.live("trade:BTC-USD"))


async def test_an_ack_confirms_its_own_stream_alone(autojump_clock: MockClock) -> None:
    """Both streams are in one request; only one of them is answered."""
    async with at_work({"BTC-USD": ["trade"], "MINA-GBP": ["trade"]}, snapshots=False, rate=0.01) as (
        fake,
        made,
        playing,
    ):
        playing.cancel()
        fault = fake.faults.no_ack(times=1)
        await made.until(lambda: made.live("trade:MINA-GBP"))
        assert fault.hits == 1
        assert made.state("trade:BTC-USD") is State.CONNECTING
        await made.until(lambda: made.live("trade:BTC-USD"), within_s=60)


async def test_a_late_answer_to_an_end_does_not_end_what_began_again(autojump_clock: MockClock) -> None:
    async with at_work({"BTC-USD": ["book"]}) as (fake, made, playing):
        await made.until(lambda: made.live("book:BTC-USD"))
        late = fake.faults.late_ack(5.0)
        fake.faults.drop(3, match="book")
        await made.until(lambda: State.RESYNCING in made.states("book:BTC-USD"))
        await trio.sleep(60)
        late.lift()
        playing.cancel()
        fake.flush()
        await trio.sleep(10)
        assert made.live("book:BTC-USD")
        assert made.book("BTC-USD") == fake.market.book("BTC-USD")


# --- Books ------------------------------------------------------------------------------------------------


def book_frame(kind: str, bids: list[list[str]], asks: list[list[str]], checksum: int | None = None) -> bytes:
    def side(levels: list[list[str]]) -> list[dict[str, Any]]:
        return [{"price": orjson.Fragment(p), "qty": orjson.Fragment(q)} for p, q in levels]

    pairs = [[(p, q) for p, q in levels] for levels in (bids, asks)]
    row = {
        "symbol": "BTC/USD",
        "bids": side(bids),
        "asks": side(asks),
        "checksum": crc(*pairs) if checksum is None else checksum,
        "timestamp": "2026-08-18T20:43:35.824274Z",
    }
    return orjson.dumps({"channel": "book", "type": kind, "data": [row]})


def synced(frame: bytes) -> BookSync:
    rule = VENUE.rules["spot"].book
    assert rule is not None
    sync = BookSync(rule)
    assert isinstance(sync.snapshot(say(frame)[1]), list)
    return sync


BIDS = [["10.0", "1.00000000"], ["9.9", "2.00000000"]]
ASKS = [["10.1", "1.00000000"]]


def test_an_empty_book_and_an_empty_side() -> None:
    empty = synced(book_frame("snapshot", [], []))
    assert (len(empty.book.bids), len(empty.book.asks)) == (0, 0)
    (delta,) = say(book_frame("update", [["10.0", "1.00000000"]], []))
    assert isinstance(empty.delta(delta), list)
    one_sided = synced(book_frame("snapshot", [], ASKS))
    assert len(one_sided.book.asks) == 1


def test_a_snapshot_in_the_middle_of_a_stream_replaces_everything() -> None:
    sync = synced(book_frame("snapshot", BIDS, ASKS))
    assert isinstance(sync.snapshot(say(book_frame("snapshot", [["5.0", "1.00000000"]], []))[1]), list)
    assert (len(sync.book.bids), len(sync.book.asks)) == (1, 0)


def test_the_same_price_twice_in_one_message_the_later_counts() -> None:
    sync = synced(book_frame("snapshot", BIDS, ASKS))
    after = [["10.0", "3.00000000"], BIDS[1]]
    twice = [["10.0", "0.00000000"], ["10.0", "3.00000000"]]
    checksum = crc([(p, q) for p, q in after], [(p, q) for p, q in ASKS])
    (delta,) = say(book_frame("update", twice, [], checksum))
    assert isinstance(sync.delta(delta), list)


def test_a_removal_of_what_is_not_there_is_normal() -> None:
    sync = synced(book_frame("snapshot", BIDS, ASKS))
    checksum = crc([(p, q) for p, q in BIDS], [(p, q) for p, q in ASKS])
    (delta,) = say(book_frame("update", [["1.0", "0.00000000"]], [], checksum))
    assert isinstance(sync.delta(delta), list)


def test_a_wrong_checksum_makes_the_book_unreadable_at_once() -> None:
    sync = synced(book_frame("snapshot", BIDS, ASKS))
    (delta,) = say(book_frame("update", [["9.8", "1.00000000"]], [], 12345))
    assert isinstance(sync.delta(delta), Broken)
    assert len(sync.book.bids) == 0


def test_a_lost_message_that_crosses_the_book_breaks_it() -> None:
    sync = synced(book_frame("snapshot", BIDS, ASKS))
    bids = [["10.1", "1.00000000"], *BIDS]
    checksum = crc([(p, q) for p, q in bids], [(p, q) for p, q in ASKS])
    (delta,) = say(book_frame("update", [["10.1", "1.00000000"]], [], checksum))
    assert isinstance(sync.delta(delta), Broken)


def test_trailing_zeros_reach_readers() -> None:
    _, book = say(book_frame("snapshot", [["10.0", "1.00000000"]], []))
    assert isinstance(book, BookSnapshot)
    assert list(book.bids[0]) == ["10.0", "1.00000000"]


def test_numbers_with_exponents_are_written_out() -> None:
    (delta,) = say(book_frame("update", [["1e-7", "2.5E+2"]], [], 1))
    assert isinstance(delta, BookDelta)
    assert [list(one) for one in delta.bids] == [["0.0000001", "250"]]


async def test_deltas_during_a_resync_are_not_believed(autojump_clock: MockClock) -> None:
    async with at_work({"BTC-USD": ["book"], "MINA-GBP": ["book"]}) as (fake, made, playing):
        await made.until(lambda: made.live("book:BTC-USD", "book:MINA-GBP"))
        fake.faults.drop(2, match="book:BTC/USD")
        await made.until(lambda: State.RESYNCING in made.states("book:BTC-USD"))
        await made.until(lambda: made.live("book:BTC-USD"))
        await trio.sleep(30)
        playing.cancel()
        fake.flush()
        await trio.sleep(10)
        assert made.book("BTC-USD") == fake.market.book("BTC-USD")
        assert State.RESYNCING not in made.states("book:MINA-GBP")


# --- Trades and candles -----------------------------------------------------------------------------------


def trade_row(number: int) -> str:
    return f'{{"symbol":"BTC/USD","side":"buy","price":68500.0,"qty":0.01044926,"ord_type":"limit","trade_id":{number},"timestamp":"2024-05-27T12:43:11.798009Z"}}'


def test_several_trades_in_one_frame() -> None:
    rows = ",".join(trade_row(number) for number in range(20))
    said = say(f'{{"channel":"trade","type":"update","data":[{rows}]}}')
    assert [trade.id for trade in said] == [str(number) for number in range(20)]


async def test_a_burst_of_frames_in_one_read(autojump_clock: MockClock) -> None:
    async with at_work({"BTC-USD": ["trade"]}) as (fake, made, playing):
        await made.until(lambda: made.live("trade:BTC-USD"))
        playing.cancel()
        await trio.sleep(1)
        stalled = fake.faults.stall()
        fake.step(200)
        stalled.lift()
        await trio.sleep(5)
        ids = [int(t.id or 0) for t in made.events("trade:BTC-USD", Trade)]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert ids[-1] == fake.market.trades("BTC-USD")[-1].id
        assert made.market("spot").reconnects == 0


async def test_old_trades_after_a_reconnect_are_known_again(autojump_clock: MockClock) -> None:
    """Each subscription begins with the last 50 trades, most of which readers have."""
    async with at_work({"BTC-USD": ["trade"]}) as (fake, made, playing):
        await made.until(lambda: len(made.events("trade:BTC-USD", Trade)) > 60)
        playing.cancel()
        await trio.sleep(1)
        before = len(made.events("trade:BTC-USD", Trade))
        fake.faults.cut()
        await trio.sleep(30)
        assert made.live("trade:BTC-USD")
        assert len(made.events("trade:BTC-USD", Trade)) == before


async def test_a_running_minute_is_never_told_as_closed(autojump_clock: MockClock) -> None:
    async with at_work({"BTC-USD": ["candle_1m"]}) as (fake, made, _):
        await made.until(lambda: made.live("candle_1m:BTC-USD"))
        await trio.sleep(150)
        fake.faults.cut()
        await trio.sleep(150)
        truth = {c.start_ns: c for c in fake.market.candles("BTC-USD")}
        over = 0
        for candle in made.events("candle_1m:BTC-USD", Candle):
            assert candle.start_ns > over, "nothing comes of a minute that was closed"
            if candle.closed:
                over = candle.start_ns
                assert candle.trades == truth[over].trades, "closed with all of its trades"


async def test_a_minute_cut_in_two_is_closed_with_all_of_it(autojump_clock: MockClock) -> None:
    """What was traded while the connection was away belongs to the minute as well."""
    async with at_work({"BTC-USD": ["candle_1m"]}) as (fake, made, _):
        await made.until(lambda: made.live("candle_1m:BTC-USD"))
        for _ in range(4):
            await trio.sleep(35)
            fake.faults.cut()
        await trio.sleep(120)
        truth = {c.start_ns: c for c in fake.market.candles("BTC-USD")}
        closed = [c for c in made.events("candle_1m:BTC-USD", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        for candle in closed:
            told = truth[candle.start_ns]
            assert (candle.high, candle.low, candle.close) == (told.high, told.low, told.close)
            assert float(candle.volume) == float(told.volume)


# --- Quotes and times -------------------------------------------------------------------------------------


def test_our_time_never_stands_for_the_venues() -> None:
    ticker = '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":1.0,"bid_qty":1.0,"ask":2.0,"ask_qty":1.0,"last":1.0,"volume":1.0,"low":1.0,"high":1.0}]}'
    assert [event.venue_time_ns for event in say(ticker)] == [None, None]


async def test_the_same_quote_twice_is_told_once(autojump_clock: MockClock) -> None:
    async with at_work({"BTC-USD": ["quote"]}) as (fake, made, playing):
        await made.until(lambda: made.live("quote:BTC-USD"))
        with fake.faults.duplicate(None):
            await trio.sleep(20)
        playing.cancel()
        await trio.sleep(2)
        quotes = [
            (q.bid_price, q.bid_size, q.ask_price, q.ask_size) for q in made.events("quote:BTC-USD", Quote)
        ]
        assert all(first != second for first, second in pairwise(quotes))


async def test_nothing_piles_up_for_a_quiet_pair(autojump_clock: MockClock) -> None:
    async with at_work({"BTC-USD": ["trade", "book", "quote", "candle_1m"]}) as (_, made, playing):
        await made.until(lambda: made.live("trade:BTC-USD", "book:BTC-USD"))
        playing.cancel()
        await trio.sleep(120)
        before = trio.lowlevel.current_statistics().tasks_living
        await trio.sleep(1800)
        assert trio.lowlevel.current_statistics().tasks_living <= before + 1
        assert made.market("spot").reconnects == 0
