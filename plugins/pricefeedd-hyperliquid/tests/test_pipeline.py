"""The whole pipeline against the fake, in memory: what readers see when all is well, and when it is not."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio.testing import MockClock

from pricefeedd.events import BookSnapshot, Candle, Gap, Origin, Quote, State, Status, Ticker, Trade
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_hyperliquid import pricefeedd_venues
from pricefeedd_hyperliquid.fake_words import tid_of
from pricefeedd_hyperliquid.testing import HyperliquidFake, pair, perpetual
from pricefeedd_hyperliquid.venue import HyperliquidSettings

(VENUE,) = pricefeedd_venues()
MINUTE_NS = 60_000_000_000
START_NS = 1_790_000_057_250_000_000  # in the middle of a minute, so that each run is the same
ALL = ["trade", "quote", "ticker", "candle_1m", "book"]
BOTH = {"linear": {"BTC-USD-PERP": ALL, "kPEPE-USD-PERP": ALL}, "spot": {"HYPE-USDC": ALL}}
NAMES = ("BTC-USD-PERP", "kPEPE-USD-PERP", "HYPE-USDC")


@attrs.frozen
class Scene:
    """A fake that trades, and a pipeline that reads it."""

    fake: HyperliquidFake
    rig: Rig
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market and wait until the pipeline has its last book."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(8)

    def trade_ids(self, name: str) -> list[str]:
        """Return the ids of the trades that the reader got."""
        return [trade.id or "" for trade in self.rig.events(f"trade:{name}", Trade)]

    def check_trades(self, name: str, *, lost: int = 0) -> None:
        """Assert that the reader has each trade once and in order; so many may be missing."""
        truth = [str(tid_of(trade.id)) for trade in self.fake.market.trades(name)]
        got = self.trade_ids(name)
        assert len(set(got)) == len(got), "a trade came twice"
        first = truth.index(got[0])
        assert truth[-1] == got[-1], "the last trade is missing"
        assert [tid for tid in truth[first:] if tid in set(got)] == got, "trades are out of order"
        assert len(truth) - first - len(got) <= lost, "trades are missing"

    def check_book(self, name: str) -> None:
        """Assert that the reader's book is the market's own, as deep as the venue sends it."""
        book = self.rig.book(name)
        assert book is not None
        assert numbers(book) == numbers(self.fake.market.book(name, 5))

    def check_minutes(self, name: str) -> None:
        """Assert that closed minutes are there once, without a hole, and with the market's numbers."""
        closed = [c for c in self.rig.events(f"candle_1m:{name}", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        truth = {c.start_ns: c for c in self.fake.market.candles(name)}
        for candle in closed:
            real = truth[candle.start_ns]
            assert [
                float(x) for x in (candle.open, candle.high, candle.low, candle.close, candle.volume)
            ] == [float(x) for x in (real.open, real.high, real.low, real.close, real.volume)]

    def check_all(self, *names: str, lost: int = 0) -> None:
        """Assert all of it, and that the topics are live."""
        self.rig.check_sequence()
        for name in names or NAMES:
            self.check_trades(name, lost=lost)
            self.check_book(name)
            self.check_minutes(name)
            assert self.rig.live(*(f"{channel}:{name}" for channel in ALL))


def numbers(book: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> list[list[tuple[float, float]]]:
    return [[(float(price), float(size)) for price, size in side] for side in book]


def make_fake(*names: str) -> HyperliquidFake:
    """Return a fake that trades these instruments; the three that are read by default."""
    listings = [each for each in HyperliquidFake.default_listings() if each.name in (names or NAMES)]
    return HyperliquidFake(Market(listings), now_ns=anchored_clock(START_NS), history_minutes=30)


@asynccontextmanager
async def scene(
    subscribe: Mapping[str, Mapping[str, Sequence[str]]] = BOTH,
    *,
    rate: float = 3.0,
    fake: HyperliquidFake | None = None,
    settings: Any = None,
    quiet: Sequence[str] = (),
    **session: float,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    fake = fake or make_fake()
    random.seed(1)  # of the pauses between attempts
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints(), settings=settings, **session) as made,
    ):
        nursery.start_soon(play)
        topics = [
            f"{c}:{i}"
            for names in subscribe.values()
            for i, channels in names.items()
            for c in channels
            if i not in quiet
        ]
        await made.until(lambda: all(len(made.topic(topic)) > 2 for topic in topics) and made.live(*topics))
        yield Scene(fake, made, playing)
        nursery.cancel_scope.cancel()


async def test_undisturbed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await trio.sleep(200)
        await s.settle()
        s.check_all()
        for market in ("linear", "spot"):
            stats = s.rig.market(market)
            assert (stats.gaps, stats.resyncs, stats.decode_errors, stats.reconnects) == (0, 0, 0, 0)
        for name in NAMES:
            for channel in ALL:
                assert set(s.rig.states(f"{channel}:{name}")) == {State.CONNECTING, State.LIVE}
        assert s.fake.seen.subscribes == 15
        assert s.fake.seen.unsubscribes == 0


# --- Faults -----------------------------------------------------------------------------------------------


async def disturbed(
    disturb: Callable[[Scene], object], *, after_s: float = 50.0, lost: int = 0, reconnects: bool = True
) -> None:
    """Let a fault happen while trading goes on, and check that all is well again."""
    async with scene() as s:
        await trio.sleep(20)
        disturb(s)
        await trio.sleep(after_s)
        await s.settle()
        s.check_all(lost=lost)
        found = sum(s.rig.market(market).reconnects for market in ("linear", "spot"))
        assert (found > 0) == reconnects
        assert (State.CONNECTING in s.rig.states("trade:HYPE-USDC")[1:]) == reconnects
        if not lost:
            for market in ("linear", "spot"):
                assert s.rig.market(market).lost == 0


async def test_a_cut_loses_nothing(autojump_clock: MockClock) -> None:
    await disturbed(lambda s: s.fake.faults.cut())


async def test_a_close_loses_nothing(autojump_clock: MockClock) -> None:
    await disturbed(lambda s: s.fake.faults.close(code=1000, reason="bye"))


async def test_a_half_close_loses_nothing(autojump_clock: MockClock) -> None:
    await disturbed(lambda s: s.fake.faults.half_close())


async def test_bytes_that_break_the_protocol(autojump_clock: MockClock) -> None:
    await disturbed(lambda s: s.fake.faults.garbage())


async def test_messages_that_are_not_the_venues(autojump_clock: MockClock) -> None:
    def disturb(s: Scene) -> None:
        for message in ("{nonsense", "[]", '{"channel":"trades","data":7}', b"\x00\x01", "Hello."):
            s.fake.faults.message(message)

    async with scene() as s:
        disturb(s)
        await trio.sleep(60)
        await s.settle()
        s.check_all()
        assert s.rig.market("linear").decode_errors == s.rig.market("spot").decode_errors == 5
        assert s.rig.market("linear").reconnects == s.rig.market("spot").reconnects == 0


async def test_what_comes_twice_is_passed_once(autojump_clock: MockClock) -> None:
    def disturb(s: Scene) -> None:
        s.fake.faults.duplicate(times=200)

    await disturbed(disturb, reconnects=False)


async def test_books_that_were_lost_are_whole_again_with_the_next(autojump_clock: MockClock) -> None:
    await disturbed(lambda s: s.fake.faults.drop(40, match="l2Book"), reconnects=False)


async def test_trades_that_overtake_each_other_are_all_there(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.reorder(times=10, match="trades:BTC"):
            await trio.sleep(30)
        await s.settle()
        truth = [str(tid_of(trade.id)) for trade in s.fake.market.trades("BTC-USD-PERP")]
        got = s.trade_ids("BTC-USD-PERP")
        assert sorted(got) == sorted(truth[truth.index(got[0]) :]), "no id tells the order"


async def test_a_silent_connection_is_found_by_the_missing_pong(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await trio.sleep(20)
        with s.fake.faults.stall():
            await s.rig.until(lambda: not s.rig.live("trade:BTC-USD-PERP"), within_s=60)
            await trio.sleep(5)
        await s.rig.until(lambda: s.rig.live(*(f"{c}:{n}" for n in NAMES for c in ALL)))
        await trio.sleep(130)
        await s.settle()
        s.rig.check_sequence()
        for name in NAMES:
            s.check_book(name)
            s.check_minutes(name)
        # 30 trades of the past are too few for what was missed, and readers are told.
        assert any(gap.missing != 0 for gap in s.rig.gaps("trade:BTC-USD-PERP"))


async def test_a_book_that_falls_silent_is_asked_for_again(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.silent_route(match="l2Book:BTC"):
            await s.rig.until(lambda: s.rig.state("book:BTC-USD-PERP") is State.STALE, within_s=60)
            assert s.rig.live("trade:BTC-USD-PERP", "book:kPEPE-USD-PERP", "quote:BTC-USD-PERP")
        await s.rig.until(lambda: s.rig.live("book:BTC-USD-PERP"), within_s=30)
        await s.settle()
        s.check_all()
        assert s.rig.market("linear").reconnects == 0
        assert s.fake.seen.unsubscribes >= 1


async def test_acks_that_never_come(autojump_clock: MockClock) -> None:
    """The second request is answered with the word that it is subscribed already, which is as good."""
    fake = make_fake()
    fault = fake.faults.no_ack(times=4)
    async with scene(fake=fake) as s:
        assert fault.hits == 4
        await trio.sleep(60)
        await s.settle()
        s.check_all()
        assert s.rig.market("linear").reconnects == s.rig.market("spot").reconnects == 0


async def test_a_refused_stream_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    fake = HyperliquidFake(history_minutes=30)
    fake.max_subscriptions = 4
    subscribe = {
        "linear": {name: ["trade", "book"] for name in ("BTC-USD-PERP", "ETH-USD-PERP", "SOL-USD-PERP")}
    }
    async with scene(subscribe, fake=fake, quiet=("SOL-USD-PERP",)) as s:
        await trio.sleep(60)
        assert s.rig.state("trade:SOL-USD-PERP") is State.DOWN
        assert s.rig.live(
            "trade:BTC-USD-PERP", "book:BTC-USD-PERP", "trade:ETH-USD-PERP", "book:ETH-USD-PERP"
        )
        await s.settle()
        for name in ("BTC-USD-PERP", "ETH-USD-PERP"):
            s.check_trades(name)
            s.check_book(name)
        assert s.rig.market("linear").reconnects == 0


async def test_an_unknown_coin_is_told_with_what_is_near(autojump_clock: MockClock) -> None:
    subscribe = {"linear": {"BTC-USDT-PERP": ["trade"], "BTC-USD-PERP": ["trade"]}}
    async with scene(subscribe, quiet=("BTC-USDT-PERP",)) as s:
        await trio.sleep(10)
        (status,) = s.rig.events("trade:BTC-USDT-PERP", Status)
        assert status.state is State.DOWN
        assert "did you mean BTC-USD-PERP" in status.reason


async def test_deep_books(autojump_clock: MockClock) -> None:
    settings = HyperliquidSettings(book_levels=20)
    subscribe = {"linear": {"BTC-USD-PERP": ["book"]}, "spot": {"HYPE-USDC": ["book"]}}
    async with scene(subscribe, settings=settings) as s:
        await trio.sleep(60)
        await s.settle()
        for name in ("BTC-USD-PERP", "HYPE-USDC"):
            book = s.rig.book(name)
            assert book is not None
            assert numbers(book) == numbers(s.fake.market.book(name, 20))
            assert State.STALE not in s.rig.states(f"book:{name}")


async def test_builders_exchanges(autojump_clock: MockClock) -> None:
    listings = [perpetual("BTC", "83757", "1", "0.00001"), perpetual("xyz:SP500", "6500.5", "0.1", "0.01")]
    fake = HyperliquidFake(Market(listings), now_ns=anchored_clock(START_NS), history_minutes=3)
    settings = HyperliquidSettings(dexs=("xyz", "gone"))
    async with scene({"linear": {"xyz:SP500": ALL}}, fake=fake, settings=settings, quiet=("xyz:SP500",)) as s:
        name = "xyz:SP500-USD-PERP"
        await s.rig.until(lambda: s.rig.live(*(f"{channel}:{name}" for channel in ALL)))
        await trio.sleep(70)
        await s.settle()
        s.check_all(name)


async def test_ten_minutes_away(autojump_clock: MockClock) -> None:
    """Minutes are filled in; of the trades, as many as the venue still has, and readers are told of the rest."""
    async with scene(rate=0.7) as s:
        await trio.sleep(70)
        before = {name: len(s.trade_ids(name)) for name in NAMES}
        with s.fake.faults.refuse(status=503):
            s.fake.faults.cut()
            await trio.sleep(600)
            assert s.rig.state("trade:BTC-USD-PERP") in (State.CONNECTING, State.DOWN)
        await s.rig.until(lambda: s.rig.live(*(f"{c}:{n}" for n in NAMES for c in ALL)))
        await trio.sleep(130)
        await s.settle()
        s.rig.check_sequence()
        for name in NAMES:
            s.check_book(name)
            s.check_minutes(name)
            got = s.trade_ids(name)
            assert len(set(got)) == len(got)
            assert len(got) > before[name]
            gaps = s.rig.gaps(f"trade:{name}")
            assert gaps
            assert gaps[-1].missing is None, "nobody can know how many"
            assert gaps[-1].recovered >= 20


async def test_minutes_without_trades_are_flat(autojump_clock: MockClock) -> None:
    async with scene({"linear": {"BTC-USD-PERP": ["trade", "candle_1m"]}}) as s:
        await trio.sleep(60)
        s.playing.cancel()
        await trio.sleep(300)
        s.fake.step(3)
        await trio.sleep(5)
        s.rig.check_sequence()
        closed = [c for c in s.rig.events("candle_1m:BTC-USD-PERP", Candle) if c.closed]
        s.check_minutes("BTC-USD-PERP")
        flat = [c for c in closed if float(c.volume) == 0]
        assert len(flat) >= 3
        assert all(c.open == c.close for c in flat)


async def test_rest_that_is_too_busy_is_left_alone(autojump_clock: MockClock) -> None:
    async with scene(rate=0.7) as s:
        fault = s.fake.faults.rest_status(429, "/info", times=3)
        s.fake.faults.cut()
        await trio.sleep(400)
        assert fault.hits == 3
        await s.settle()
        for name in NAMES:
            s.check_book(name)
            s.check_minutes(name)


async def test_what_a_replay_brings_is_marked(autojump_clock: MockClock) -> None:
    async with scene({"spot": {"HYPE-USDC": ["trade"]}}) as s:
        trades = s.rig.events("trade:HYPE-USDC", Trade)
        assert [t.origin for t in trades[:20]] == [Origin.BACKFILL] * 20
        assert trades[-1].origin is Origin.LIVE


async def test_no_stream_is_asked_for_twice(autojump_clock: MockClock) -> None:
    async with scene() as s:
        asked = s.fake.seen.subscribes
        s.fake.faults.cut()
        await trio.sleep(60)
        assert s.fake.seen.subscribes == 2 * asked == 30
        assert s.fake.seen.unsubscribes == 0


async def test_tickers_quotes_and_books_are_the_markets_own(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await trio.sleep(30)
        await s.settle()
        for name in NAMES:
            quote = s.rig.events(f"quote:{name}", Quote)[-1]
            truth = s.fake.market.quote(name)
            assert [
                float(x or 0) for x in (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size)
            ] == [float(x) for x in (*truth.bid, *truth.ask)]
            ticker = s.rig.events(f"ticker:{name}", Ticker)[-1]
            assert ticker.mark_price is not None
            assert (ticker.funding_rate is None) == (name == "HYPE-USDC")
            assert s.rig.events(f"book:{name}", BookSnapshot)
            assert not s.rig.events(f"trade:{name}", Gap)


async def test_many_coins_share_the_few_connections_that_an_address_has(autojump_clock: MockClock) -> None:
    coins = [f"C{number}" for number in range(30)]
    listings = [perpetual(coin, "12.5", "0.001", "0.1") for coin in coins] + [
        pair("HYPE", "42.15", "0.01", "0.01")
    ]
    fake = HyperliquidFake(Market(listings), now_ns=anchored_clock(START_NS), history_minutes=1)
    subscribe = {
        "linear": {f"{coin}-USD-PERP": ["trade", "quote"] for coin in coins},
        "spot": {"HYPE-USDC": ["trade"]},
    }
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints(), instruments_per_connection=2) as made:
        topics = [f"{channel}:{coin}-USD-PERP" for coin in coins for channel in ("trade", "quote")]
        await made.until(lambda: made.live(*topics, "trade:HYPE-USDC"))
        assert fake.seen.sockets == len(fake.sockets) <= 8
        assert sum(len(socket.subscriptions) for socket in fake.sockets) == 61
