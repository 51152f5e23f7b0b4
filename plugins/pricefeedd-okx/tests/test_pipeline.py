"""The whole pipeline against the fake OKX: what readers got, disturbed and not, held against the market's truth.

Everything runs over streams in memory, under Trio's mock clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import BookSnapshot, Candle, Liquidation, Origin, Quote, State, Status, Ticker, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_okx import pricefeedd_venues
from pricefeedd_okx.fake_words import Words
from pricefeedd_okx.testing import OkxFake
from pricefeedd_okx.venue import OkxSettings

(VENUE,) = pricefeedd_venues()
MINUTE_NS = 60_000_000_000

Subscribe = Mapping[str, Mapping[str, Sequence[str]]]

FIVE = ["trade", "quote", "ticker", "candle_1m", "book"]
ALL: Subscribe = {
    "spot": {"BTC-USDT": FIVE, "ETH-USDT": ["trade", "book"]},
    "linear": {"BTC-USDT-PERP": FIVE, "BTC-USD_UM-20261225": ["trade", "ticker"]},
    "inverse": {"BTC-USD-PERP": ["trade", "ticker"], "BTC-USD-20261225": FIVE},
}
SPOT: Subscribe = {
    "spot": {"BTC-USDT": ["trade", "quote", "candle_1m", "book"], "ETH-USDT": ["trade", "book"]}
}


def topics_of(subscribe: Subscribe) -> list[str]:
    return [f"{c}:{i}" for names in subscribe.values() for i, channels in names.items() for c in channels]


def fake_of(subscribe: Subscribe, **options: Any) -> OkxFake:
    """Return a fake that lists what is subscribed, and no more."""
    names = {name for names in subscribe.values() for name in names}
    listings = [listing for listing in OkxFake.default_listings() if listing.name in names]
    return OkxFake(Market(listings), history_minutes=30, **options)


@attrs.frozen
class Scene:
    """A fake that trades, and a daemon's pipeline that reads it."""

    fake: OkxFake
    rig: Rig
    subscribe: Subscribe
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(20)

    def check_complete(self) -> None:
        """Assert that readers have every trade exactly once, in order, and the market's own books."""
        self.rig.check_sequence()
        for topic in topics_of(self.subscribe):
            channel, _, name = topic.partition(":")
            if channel == "trade":
                ids = [int(t.id or 0) for t in self.rig.events(topic, Trade)]
                assert ids == list(range(ids[0], ids[0] + len(ids))), f"{name}: trades out of line"
                assert ids[-1] == self.fake.market.trades(name)[-1].id, f"{name}: the last are missing"
            elif channel == "book":
                book = self.rig.book(name)
                assert book is not None
                assert _numbers(book) == _numbers(self.fake.market.book(name)), f"{name}: the book is wrong"
            elif channel == "quote":
                self._check_quote(name)
            elif channel == "candle_1m":
                self._check_minutes(name)
            assert self.rig.live(topic), topic

    def _check_quote(self, name: str) -> None:
        truth = self.fake.market.quote(name)
        quote = self.rig.events(f"quote:{name}", Quote)[-1]
        assert (quote.bid_price, quote.ask_price) == (truth.bid[0], truth.ask[0]), name

    def _check_minutes(self, name: str) -> None:
        closed = [c for c in self.rig.events(f"candle_1m:{name}", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS)), f"{name}: minutes out of line"
        truth = {c.start_ns: c for c in self.fake.market.candles(name)}
        for candle in closed:
            true = truth[candle.start_ns]
            assert (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.turnover) == (
                true.open, true.high, true.low, true.close, true.volume, true.turnover,
            )  # fmt: skip


def _numbers(book: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> list[list[tuple[float, float]]]:
    return [[(float(price), float(size)) for price, size in side] for side in book]


@asynccontextmanager
async def scene(
    subscribe: Subscribe = SPOT,
    *,
    fake: OkxFake | None = None,
    settings: Any = None,
    rate: float = 5.0,
    wait: bool = True,
    **session: float,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    market = fake or fake_of(subscribe)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await market.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, market, subscribe, endpoints=market.endpoints(), settings=settings, **session) as made,
    ):
        nursery.start_soon(play)
        topics = [topic for topic in topics_of(subscribe) if not topic.startswith("liquidation")]
        if wait:
            await made.until(
                lambda: all(len(made.topic(topic)) > 3 for topic in topics) and made.live(*topics)
            )
        yield Scene(market, made, subscribe, playing)
        nursery.cancel_scope.cancel()


async def test_undisturbed(autojump_clock: MockClock) -> None:
    async with scene(ALL, rate=3) as s:
        await trio.sleep(200)
        await s.settle()
        s.check_complete()
        for topic in topics_of(ALL):
            assert set(s.rig.states(topic)) == {State.CONNECTING, State.LIVE}, topic
            assert not s.rig.gaps(topic)
        for market in ALL:
            stats = s.rig.market(market)
            assert (stats.resyncs, stats.decode_errors, stats.reconnects) == (0, 0, 0)


async def test_a_contracts_ticker_is_whole(autojump_clock: MockClock) -> None:
    async with scene(ALL) as s:
        await trio.sleep(10)
        await s.settle()
        truth = s.fake.market.ticker("BTC-USDT-PERP", s.fake.now_ns())
        s.fake.tell(truth)
        await trio.sleep(1)
        ticker = s.rig.events("ticker:BTC-USDT-PERP", Ticker)[-1]
        assert (ticker.last, ticker.volume_24h) == (truth.last, truth.volume)
        assert (ticker.mark_price, ticker.index_price) == (truth.mark_price, truth.index_price)
        assert (ticker.funding_rate, ticker.next_funding_ns) == (truth.funding_rate, truth.next_funding_ns)
        assert ticker.open_interest == truth.open_interest
        dated = s.rig.events("ticker:BTC-USD-20261225", Ticker)[-1]
        assert dated.mark_price is not None
        assert (dated.funding_rate, dated.index_price) == (None, None), "dated contracts have none of these"


DISTURBANCES: dict[str, Callable[[Scene], object]] = {
    "cut": lambda s: s.fake.faults.cut(),
    "half closed": lambda s: s.fake.faults.half_close(),
    "closed with 1000": lambda s: s.fake.faults.close(code=1000, reason="bye"),
    "garbage": lambda s: s.fake.faults.garbage(),
}


@pytest.mark.parametrize("what", DISTURBANCES)
async def test_a_lost_connection_loses_nothing(autojump_clock: MockClock, what: str) -> None:
    async with scene() as s:
        DISTURBANCES[what](s)
        await trio.sleep(60)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects >= 3
        assert State.CONNECTING in s.rig.states("trade:BTC-USDT")[1:]
        assert all(gap.missing == 0 for gap in s.rig.gaps("trade:BTC-USDT"))


async def test_a_garbage_message_is_skipped_and_kept(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.message('{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"tradeId":5}]}')
        s.fake.faults.message("not json at all")
        s.fake.faults.message(b"\x00\x01")
        await trio.sleep(30)
        await s.settle()
        s.check_complete()
        stats = s.rig.market("spot")
        assert (stats.decode_errors, stats.reconnects) == (9, 0)  # three messages on three connections
        assert any(b"not json" in bad.frame for bad in stats.bad_frames)


async def test_a_stalled_venue_is_left_and_found_again(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.stall()
        await s.rig.until(lambda: s.rig.state("trade:BTC-USDT") is not State.LIVE)
        await trio.sleep(60)
        fault.lift()
        await s.rig.until(lambda: s.rig.live(*topics_of(SPOT)))
        await trio.sleep(30)
        await s.settle()
        s.check_complete()


async def test_dropped_trades_are_filled_in_order(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(7, match="trades:BTC-USDT")
        await trio.sleep(30)
        await s.settle()
        s.check_complete()
        (gap,) = s.rig.gaps("trade:BTC-USDT")
        assert (gap.recovered, gap.missing) == (7, 0)
        late = [t for t in s.rig.events("trade:BTC-USDT", Trade) if t.origin is Origin.BACKFILL]
        assert len(late) == 7
        truth = {str(t.id): t for t in s.fake.market.trades("BTC-USDT")}
        assert all((t.price, t.size) == (truth[t.id or ""].price, truth[t.id or ""].size) for t in late)


async def test_a_dropped_update_resyncs_that_book_alone(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.drop(1, match="books:BTC-USDT")
        await s.rig.until(lambda: State.RESYNCING in s.rig.states("book:BTC-USDT"))
        await s.rig.until(lambda: s.rig.live("book:BTC-USDT"))
        kinds = [type(m.event).__name__ for m in s.rig.topic("book:BTC-USDT")]
        bad = len(kinds) - 1 - kinds[::-1].index("Status", 1)
        assert "BookDelta" not in kinds[bad : bad + kinds[bad:].index("BookSnapshot")]
        await s.settle()
        s.check_complete()
        stats = s.rig.market("spot")
        assert (stats.resyncs, stats.reconnects) == (1, 0)
        assert s.fake.seen.unsubscribes == 1
        assert State.RESYNCING not in s.rig.states("book:ETH-USDT")


async def test_duplicates(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.duplicate(None):
            await trio.sleep(30)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").duplicates > 100
        assert s.rig.market("spot").resyncs == 0


async def test_reordered_trades_and_updates(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with (
            s.fake.faults.reorder(10, match="trades:BTC-USDT"),
            s.fake.faults.reorder(1, match="books:ETH-USDT"),
        ):
            await trio.sleep(60)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects == 0
        assert State.RESYNCING in s.rig.states("book:ETH-USDT")
        assert State.RESYNCING not in s.rig.states("book:BTC-USDT")


async def test_an_upgrade_makes_before_it_breaks(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.shut_down("spot")
        await trio.sleep(120)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").reconnects == 3
        for topic in topics_of(SPOT):
            assert set(s.rig.states(topic)[1:]) == {State.LIVE}, topic
            assert not s.rig.gaps(topic)


async def test_one_refused_symbol_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    fake = fake_of(SPOT)
    fake.unserved.add("ETH-USDT")
    async with scene(fake=fake, wait=False) as s:
        await s.rig.until(lambda: s.rig.state("trade:ETH-USDT") is State.DOWN)
        mine = [topic for topic in topics_of(SPOT) if topic.endswith("BTC-USDT")]
        await s.rig.until(lambda: s.rig.live(*mine) and len(s.rig.topic("trade:BTC-USDT")) > 5)
        assert "60018" in s.rig.events("trade:ETH-USDT", Status)[-1].reason
        assert s.rig.state("book:ETH-USDT") is State.DOWN
        await trio.sleep(60)
        assert s.rig.live(*mine)
        assert s.rig.market("spot").reconnects == 0


async def test_ten_minutes_away(autojump_clock: MockClock) -> None:
    async with scene(rate=3) as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        assert s.rig.state("trade:BTC-USDT") is State.DOWN
        refused.lift()
        await s.rig.until(lambda: s.rig.live(*topics_of(SPOT)), within_s=320)
        await trio.sleep(60)
        await s.settle()
        s.check_complete()
        (gap,) = s.rig.gaps("trade:BTC-USDT")
        assert gap.missing == 0
        assert gap.recovered > 600, "more than one page"


async def test_numbers_that_begin_anew_are_no_gap(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.reset_sequence("BTC-USDT")
        await trio.sleep(30)
        await s.settle()
        s.check_complete()
        assert s.rig.market("spot").resyncs == 0
        newest = s.rig.events("quote:BTC-USDT", Quote)[-1].sequence
        assert newest is not None
        assert newest < s.fake.market.sequence("BTC-USDT") - 900_000, "quotes go on as well"


async def test_a_quiet_book_stays_live(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await s.settle()
        await trio.sleep(600)
        s.check_complete()
        stats = s.rig.market("spot")
        assert (stats.resyncs, stats.reconnects) == (0, 0)
        assert all(socket.opened_at < trio.current_time() - 600 for socket in s.fake.sockets)


async def test_a_stream_without_snapshot_is_joined_to_rest(autojump_clock: MockClock) -> None:
    fake = fake_of(SPOT)
    fake.snapshots = False
    async with scene(fake=fake) as s:
        await trio.sleep(60)
        await s.settle()
        s.check_complete()
        assert fake.seen.requests["/api/v5/market/books"] >= 2
        assert s.rig.market("spot").resyncs == 0
        assert len(s.rig.events("book:BTC-USDT", BookSnapshot)) == 1


async def test_merged_trades_follow_and_are_filled(autojump_clock: MockClock) -> None:
    """A trade of five fills follows the one before; lost ones are made good, and none comes twice."""
    async with scene() as s:
        s.playing.cancel()
        await trio.sleep(1)
        words = Words(s.fake.market.listings["BTC-USDT"])
        seen = len(s.rig.events("trade:BTC-USDT", Trade))
        last = s.fake.market.trades("BTC-USDT")[-1]

        def merged(fills: int) -> None:
            """Let so many fills happen, and tell of them as one trade."""
            truth = s.fake.market.trades("BTC-USDT")
            until = len(truth) + fills
            while len(truth) < until:
                s.fake.market.step(s.fake.now_ns(), ("BTC-USDT",))
            row = {**words.trade(truth[-1]), "count": str(fills)}
            s.fake.publish("trades:BTC-USDT", words.push("trades", row), scope="public")

        merged(5)
        merged(1)
        with s.fake.faults.drop(1, match="trades:BTC-USDT"):
            merged(4)
        merged(3)
        await trio.sleep(10)
        new = s.rig.events("trade:BTC-USDT", Trade)[seen:]
        assert [int(t.id or 0) - last.id for t in new] == [5, 6, 7, 8, 9, 10, 13]
        assert [t.fills for t in new] == [5, 1, 1, 1, 1, 1, 3]
        (gap,) = s.rig.gaps("trade:BTC-USDT")
        assert (gap.recovered, gap.missing) == (4, 0)


async def test_single_fills_come_by_the_other_endpoint(autojump_clock: MockClock) -> None:
    subscribe: Subscribe = {"linear": {"BTC-USDT-PERP": ["trade", "candle_1m"]}}
    async with scene(subscribe, settings=OkxSettings(trade_channel="trades-all")) as s:
        assert {socket.scope for socket in s.fake.sockets} == {"business"}
        s.fake.faults.drop(3, match="trades-all")
        await trio.sleep(30)
        s.fake.faults.cut()
        await trio.sleep(30)
        await s.settle()
        s.check_complete()


async def test_liquidations_of_one_kind_of_contract_are_one_stream(autojump_clock: MockClock) -> None:
    subscribe: Subscribe = {
        "linear": {"BTC-USDT-PERP": ["liquidation", "trade"], "ETH-USDT-PERP": ["liquidation", "trade"]}
    }
    async with scene(subscribe) as s:
        market = s.fake.market
        sent = [market.liquidate(name, s.fake.now_ns()) for name in ("BTC-USDT-PERP", "ETH-USDT-PERP")]
        for event in sent:
            s.fake.tell(event)
        await trio.sleep(1)
        for event in sent:
            (got,) = s.rig.events(f"liquidation:{event.name}", Liquidation)
            assert (got.price, got.size, got.side) == (event.price, event.size, event.side)
        streams = [name for socket in s.fake.sockets for name in socket.subscriptions]
        assert streams.count("liquidation-orders:SWAP") == 1


async def test_acks_that_come_late_or_never(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.late_ack(5.0):
            s.fake.faults.cut()
            await trio.sleep(30)
        with s.fake.faults.no_ack(times=6):
            s.fake.faults.cut()
            await trio.sleep(60)
        await s.rig.until(lambda: s.rig.live(*topics_of(SPOT)))
        await s.settle()
        s.check_complete()


async def test_too_many_requests_are_put_off(autojump_clock: MockClock) -> None:
    """OKX refuses what is asked too fast: it is asked again, and not given up for an hour."""
    fake = fake_of(SPOT, requests_per_hour=0)
    async with scene(fake=fake, wait=False) as s:
        await trio.sleep(20)
        assert not s.rig.live("trade:BTC-USDT")
        fake._requests_per_hour = 480
        await s.rig.until(lambda: s.rig.live(*topics_of(SPOT)), within_s=300)


async def test_a_rate_limit_is_waited_out(autojump_clock: MockClock) -> None:
    async with scene() as s:
        body = b'{"code":"50011","data":[],"msg":"Too Many Requests"}'
        s.fake.faults.rest_status(429, body=body, times=3)
        s.fake.faults.drop(3, match="trades:BTC-USDT")
        await trio.sleep(40)
        await s.settle()
        s.check_complete()
