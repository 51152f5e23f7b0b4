"""Bugs that other clients had and mended, as far as Coinbase can bring them about."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import BookDelta, BookSnapshot, Candle, Origin, Quote, State, Trade
from pricefeedd.testing.market import Market
from pricefeedd_coinbase.fake_words import Words
from pricefeedd_coinbase.testing import CoinbaseFake
from pricefeedd_coinbase.venue import coinbase

VENUE = coinbase()
S = 1_000_000_000


class ByHand(CoinbaseFake):
    """A Coinbase whose snapshots of books are made by hand.

    Attributes:
        bids: Of the next snapshots.
        asks: Of the next snapshots.
    """

    bids: tuple[tuple[str, str], ...] = (("100", "1"), ("99", "2"))
    asks: tuple[tuple[str, str], ...] = (("101", "1"), ("102", "2"))

    def _snapshot(self, channel: str, words: Words) -> dict[str, Any]:
        if channel != "level2":
            return super()._snapshot(channel, words)
        return words.levels("snapshot", self.bids, self.asks, self.now_ns(), self.now_ns())

    def update(self, *levels: tuple[str, str, str], kind: str = "update") -> None:
        """Publish changes of BTC-USD's book, as side, price and size."""
        words = self._words["BTC-USD"]
        sides = {side: [(price, size) for s, price, size in levels if s == side] for side in ("bid", "offer")}
        now_ns = self.now_ns()
        frame = words.levels(kind, sides["bid"], sides["offer"], now_ns, now_ns)
        self.publish("level2:BTC-USD", frame)


def by_hand() -> ByHand:
    return ByHand(Market(CoinbaseFake.default_listings()[:2]))


BOOK = {"spot": {"BTC-USD": ["book"], "ETH-USD": ["book"]}}


def top(s: Any) -> tuple[Any, Any]:
    bids, asks = s.rig.book("BTC-USD")
    return (bids[0] if bids else None), (asks[0] if asks else None)


# --- Connections ------------------------------------------------------------------------------------------


async def test_a_first_frame_that_never_comes(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        fault = s.fake.faults.stall()
        s.fake.faults.cut()
        await trio.sleep(60)
        assert s.rig.state("trade:BTC-USD") is not State.LIVE
        assert s.rig.market("spot").reconnects >= 2, "it was given up, and tried again"
        fault.lift()
        await s.rig.until(lambda: s.rig.live("trade:BTC-USD", "book:BTC-USD"))


async def test_a_handshake_that_never_ends(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        fault = s.fake.faults.hang_handshake()
        s.fake.faults.cut()
        await trio.sleep(60)
        assert "handshake" in s.rig.market("spot").last_error
        fault.lift()
        await s.rig.until(lambda: s.rig.live("trade:BTC-USD", "book:BTC-USD"))


async def test_control_frames_do_not_hide_silence(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.fake.faults.ping_flood(500)
        await trio.sleep(20)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects == 0


async def test_frames_cut_anywhere_are_put_together(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        with s.fake.faults.fragment(31), s.fake.faults.split(97):
            await trio.sleep(5)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects == 0


# --- Subscriptions ----------------------------------------------------------------------------------------


async def test_an_answer_is_about_its_own_streams(autojump_clock: MockClock, scene: Any) -> None:
    """With the answers to trades alone nobody believes that books flow, nor the other way round."""
    async with scene(BOOK) as s:
        with s.fake.faults.drop(None, match="level2"), s.fake.faults.no_ack():
            s.fake.faults.cut()
            await trio.sleep(20)
            assert s.rig.state("book:BTC-USD") is not State.LIVE
        await s.rig.until(lambda: s.rig.live("book:BTC-USD", "book:ETH-USD"))


async def test_an_end_that_is_answered_late_does_not_end_what_began_again(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene(BOOK, fake=by_hand(), waits_for=()) as s:
        s.playing.cancel()
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        with s.fake.faults.late_ack(2.0):
            s.fake.update(("bid", "103", "1"))  # crossed: the stream is asked for again
            await s.rig.until(lambda: s.rig.state("book:BTC-USD") is State.RESYNCING)
            await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
            await trio.sleep(10)
        assert s.rig.live("book:BTC-USD", "book:ETH-USD")
        assert s.rig.market("spot").reconnects == 0
        assert s.fake.seen.unsubscribes == 1


# --- Books ------------------------------------------------------------------------------------------------


async def test_a_crossed_book_is_never_served_and_begun_again(autojump_clock: MockClock, scene: Any) -> None:
    async with scene(BOOK, fake=by_hand(), waits_for=()) as s:
        s.playing.cancel()
        await s.rig.until(lambda: s.rig.live("book:BTC-USD", "book:ETH-USD"))
        s.rig.forget()
        s.fake.update(("bid", "101.5", "1"))
        await s.rig.until(lambda: s.rig.state("book:BTC-USD") is State.RESYNCING)
        assert not s.rig.events("book:BTC-USD", BookDelta)
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        assert top(s) == (("100", "1"), ("101", "1"))
        assert not s.rig.topic("book:ETH-USD"), "the other book is untouched"


async def test_a_snapshot_in_the_middle_of_the_stream_begins_anew(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene(BOOK, fake=by_hand(), waits_for=()) as s:
        s.playing.cancel()
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        s.fake.update(("bid", "50", "1"), ("offer", "51", "2"), kind="snapshot")
        await trio.sleep(1)
        assert s.rig.book("BTC-USD") == ([("50", "1")], [("51", "2")])
        assert s.rig.live("book:BTC-USD")


async def test_an_empty_book_and_an_empty_side(autojump_clock: MockClock, scene: Any) -> None:
    subscribe = {"spot": {"BTC-USD": ["book", "quote"]}}
    fake = by_hand()
    fake.bids = fake.asks = ()
    async with scene(subscribe, fake=fake, waits_for=()) as s:
        s.playing.cancel()
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        assert s.rig.book("BTC-USD") == ([], [])
        fake.update(("offer", "101", "3"))
        await trio.sleep(1)
        assert s.rig.book("BTC-USD") == ([], [("101", "3")])
        quote = s.rig.events("quote:BTC-USD", Quote)[-1]
        assert (quote.bid_price, quote.ask_price) == (None, "101")
        assert s.rig.market("spot").resyncs == 0


async def test_removing_what_is_not_there_is_normal(autojump_clock: MockClock, scene: Any) -> None:
    async with scene(BOOK, fake=by_hand(), waits_for=()) as s:
        s.playing.cancel()
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        s.fake.update(("bid", "12.5", "0"), ("bid", "100.0", "0"), ("offer", "101", "0.000"))
        await trio.sleep(1)
        assert top(s) == (("99", "2"), ("102", "2"))
        assert s.rig.market("spot").resyncs == 0


async def test_a_level_set_twice_in_one_frame_has_the_last_size(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene(BOOK, fake=by_hand(), waits_for=()) as s:
        s.playing.cancel()
        await s.rig.until(lambda: s.rig.live("book:BTC-USD"))
        s.fake.update(("bid", "100", "0"), ("bid", "100", "7"))
        await trio.sleep(1)
        assert top(s)[0] == ("100", "7")


async def test_a_gap_on_one_connection_leaves_the_others_live(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.fake.faults.drop(1, match="market_trades:ETH-USD")
        await s.rig.until(lambda: not s.rig.live("trade:ETH-USD"))
        assert s.rig.live("book:BTC-USD", "book:ETH-USD")
        await s.rig.until(lambda: s.rig.live("trade:ETH-USD", "trade:BTC-USD"))
        await s.settle()
        s.check_complete()


# --- Trades -----------------------------------------------------------------------------------------------


async def test_several_trades_in_one_frame(autojump_clock: MockClock, scene: Any) -> None:
    fake = CoinbaseFake(Market(CoinbaseFake.default_listings()[:2]), history_minutes=10)
    fake.trades_every_ns = 250_000_000
    async with scene(fake=fake, rate=40.0) as s:
        await trio.sleep(20)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").gaps == 0


async def test_a_burst_of_frames_in_one_read(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.fake.step(60)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").gaps == 0


async def test_old_trades_after_a_reconnect_are_not_told_again(autojump_clock: MockClock, scene: Any) -> None:
    async with scene(dedupe_window_s=20.0, dedupe_entries=20) as s:
        s.fake.faults.cut()
        await trio.sleep(60)  # much longer than repetitions are remembered
        s.fake.faults.cut()
        await trio.sleep(10)
        await s.settle()
        s.check_complete()


@pytest.mark.parametrize("most", [100, 300])
async def test_a_hole_larger_than_a_page(
    autojump_clock: MockClock, scene: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The venue may send fewer trades than were asked for; pages meet within a second and overlap."""
    monkeypatch.setattr("pricefeedd_coinbase.testing._MAX_TRADES", most)
    async with scene() as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(200)
        refused.lift()
        await s.rig.until(lambda: s.rig.live("trade:BTC-USD"), within_s=320)
        await trio.sleep(30)
        await s.settle()
        s.check_complete()
        assert [gap.missing for gap in s.rig.gaps("trade:BTC-USD")] == [0]


async def test_a_hole_that_rest_cannot_fill_is_told(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.fake.faults.rest_status(404, "/api/v3/brokerage/market/products/BTC-USD/ticker")
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(120)
        refused.lift()
        await s.rig.until(lambda: s.rig.live("trade:BTC-USD"), within_s=320)
        await trio.sleep(60)
        await s.settle()
        (gap,) = s.rig.gaps("trade:BTC-USD")
        ids = s.ids("BTC-USD")
        assert ids == sorted(set(ids))
        assert gap.missing == ids[-1] - ids[0] + 1 - len(ids) > 0


# --- Candles ----------------------------------------------------------------------------------------------


async def test_a_running_minute_is_never_told_as_closed(autojump_clock: MockClock, scene: Any) -> None:
    async with scene(rate=4.0) as s:
        for _ in range(26):
            await trio.sleep(5)
            running_ns = s.fake.now_ns() // (60 * S) * 60 * S
            candles = s.rig.events("candle_1m:BTC-USD", Candle)
            assert all(c.start_ns < running_ns for c in candles if c.closed)
        closed = s.closed()
        last = {c.start_ns: c.closed for c in s.rig.events("candle_1m:BTC-USD", Candle)}
        assert all(last[c.start_ns] for c in closed), "nothing is said of a minute behind its end"


async def test_a_minute_that_was_not_seen_whole_comes_from_rest(
    autojump_clock: MockClock, scene: Any
) -> None:
    async with scene(rate=4.0) as s:
        await trio.sleep(70)
        s.fake.faults.cut()
        await trio.sleep(130)
        await s.settle()
        closed = s.closed()
        assert len({c.start_ns for c in closed}) == len(closed)


# --- Times and numbers ------------------------------------------------------------------------------------


async def test_our_clock_is_not_taken_for_the_venues(autojump_clock: MockClock, scene: Any) -> None:
    async with scene() as s:
        s.rig.clock.ahead_ns = 5 * S
        s.rig.forget()
        await trio.sleep(5)
        live = [t for t in s.rig.events("trade:BTC-USD", Trade) if t.origin is Origin.LIVE]
        assert live
        for trade in live:
            assert trade.venue_time_ns is not None
            assert 4 * S < trade.received_ns - trade.venue_time_ns < 6 * S


def test_units_of_time_are_not_mixed_up() -> None:
    row = {
        "product_id": "BTC-USD", "trade_id": "1", "price": "1", "size": "1", "side": "BUY",
        "time": "2026-09-30T02:39:53.000001Z",
    }  # fmt: skip
    frame = {"channel": "market_trades", "sequence_num": 0, "events": [{"type": "update", "trades": [row]}]}
    said = VENUE.codec.decode(
        orjson.dumps(frame), feed=VENUE.feed("spot"), names={"BTC-USD": "BTC-USD"}, received_ns=7
    )
    (trade,) = (one for one in said if isinstance(one, Trade))
    assert (trade.venue_time_ns, trade.received_ns) == (1_790_735_993_000_001_000, 7)


# --- Resources --------------------------------------------------------------------------------------------


async def test_quiet_products_cost_nothing(autojump_clock: MockClock, scene: Any) -> None:
    """A product without a trade is no reason to ask again and again, nor to give its connection up."""
    async with scene() as s:
        s.playing.cancel()
        await trio.sleep(120)
        sent = len(s.fake.seen.messages)
        await trio.sleep(300)
        assert s.rig.market("spot").reconnects == 0
        assert len(s.fake.seen.messages) - sent <= 60


async def test_a_snapshot_larger_than_the_limit_is_no_loop_without_end(
    autojump_clock: MockClock, scene: Any
) -> None:
    small = attrs.evolve(
        VENUE,
        feeds=tuple(attrs.evolve(feed, max_message_bytes=2000) for feed in VENUE.feeds),
        configure=lambda venue, settings: venue,
    )
    async with scene(BOOK, venue=small, waits_for=()) as s:
        await trio.sleep(300)
        assert "larger than 2000 allowed" in s.rig.market("spot").last_error
        assert s.fake.seen.handshakes < 40
        assert not s.rig.events("book:BTC-USD", BookSnapshot)
