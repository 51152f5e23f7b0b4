"""The simulated market agrees with itself to the last digit."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest

from pricefeedd.testing.market import (
    Listing,
    Market,
    SimCandle,
    SimDelta,
    SimEvent,
    SimQuote,
    SimTicker,
    SimTrade,
    many_listings,
    usual_listings,
)

T0 = 1_790_000_040_000_000_000  # the start of a minute
STEP = 50_000_000
MINUTE = 60_000_000_000


def lively(seed: int = 1, steps: int = 4000) -> tuple[Market, list[SimEvent]]:
    market = Market(seed=seed)
    events = [event for i in range(steps) for event in market.step(T0 + i * STEP)]
    return market, events + market.flush(T0 + steps * STEP)


MARKET, EVENTS = lively()
NAMES = [listing.name for listing in usual_listings()]


def of(kind: type, name: str) -> list:  # type: ignore[type-arg]  # of whatever kind was asked for
    return [event for event in EVENTS if isinstance(event, kind) and event.name == name]


def test_a_seed_decides_everything() -> None:
    assert lively(seed=7, steps=200)[1] == lively(seed=7, steps=200)[1]
    assert lively(seed=7, steps=200)[1] != lively(seed=8, steps=200)[1]


def test_listings_do_not_disturb_each_other() -> None:
    alone = Market([Listing(market="spot", base="BTC", quote="USDT", price="100.00", tick="0.01", lot="0.1")])
    among = Market([*alone.listings.values(), *many_listings(3)])
    for i in range(100):
        alone.step(T0 + i * STEP)
        among.step(T0 + i * STEP)
    assert list(alone.trades("BTC-USDT")) == list(among.trades("BTC-USDT"))
    assert alone.book("BTC-USDT") == among.book("BTC-USDT")


def test_names_are_ours_and_unique() -> None:
    assert {"BTC-USDT", "BTC-USDT-PERP", "BTC-USD-PERP", "BTC-USDT-20261225"} <= set(NAMES)
    with pytest.raises(ValueError, match="same name"):
        Market([*many_listings(1), *many_listings(1)])


@pytest.mark.parametrize("name", NAMES)
def test_books_are_never_crossed_and_keep_their_depth(name: str) -> None:
    market = Market(seed=3)
    for i in range(500):
        market.step(T0 + i * STEP, [name])
        bids, asks = market.book(name)
        prices = [Decimal(price) for price, _ in (*reversed(bids), *asks)]
        assert prices == sorted(set(prices)), "bids ascend into asks, no price twice"
        assert len(bids) == len(asks) == 40
        assert all(Decimal(size) > 0 for _, size in (*bids, *asks))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("taken_after", [0, 1, 137])
def test_snapshot_and_deltas_make_the_later_book(name: str, taken_after: int) -> None:
    market = Market(seed=5)
    deltas: list[SimDelta] = []
    for i in range(taken_after):
        market.step(T0 + i * STEP, [name])
    sides = [dict(side) for side in market.book(name)]
    sequence = market.sequence(name)
    for i in range(taken_after, 600):
        deltas += [e for e in market.step(T0 + i * STEP, [name]) if isinstance(e, SimDelta)]
    deltas += [e for e in market.flush(T0 + 600 * STEP) if isinstance(e, SimDelta)]
    for delta in deltas:
        if delta.last <= sequence:
            continue
        for side, rows in zip(sides, (delta.bids, delta.asks), strict=True):
            for price, size in rows:
                if Decimal(size) == 0:
                    side.pop(price, None)
                else:
                    side[price] = size
    assert sides == [dict(side) for side in market.book(name)]
    assert deltas[-1].last == market.sequence(name)


@pytest.mark.parametrize("name", NAMES)
def test_deltas_form_a_chain(name: str) -> None:
    deltas = of(SimDelta, name)
    assert len(deltas) > 1000
    assert list(MARKET.deltas(name)) == deltas
    for before, after in itertools.pairwise(deltas):
        assert after.previous == before.last
        assert after.first <= after.last
        if MARKET.listings[name].market == "spot":
            assert after.first == before.last + 1
        else:
            assert after.first > before.last
    if MARKET.listings[name].market != "spot":
        jumps = [b.first - a.last for a, b in itertools.pairwise(deltas)]
        assert sum(jump == 1 for jump in jumps) < len(jumps) / 20, "futures' numbers are shared and jump"


@pytest.mark.parametrize("name", NAMES)
def test_trade_ids_are_consecutive_and_prices_fit_the_tick(name: str) -> None:
    trades = list(MARKET.trades(name))
    assert trades == of(SimTrade, name)
    assert [t.id for t in trades] == list(range(trades[0].id, trades[0].id + len(trades)))
    listing = MARKET.listings[name]
    for trade in trades:
        assert Decimal(trade.price) % Decimal(listing.tick) == 0
        assert Decimal(trade.size) % Decimal(listing.lot) == 0
        assert Decimal(trade.size) > 0
    assert {t.buyer_is_maker for t in trades} == {True, False}
    assert len({t.price for t in trades}) > 20, "the price walks"


@pytest.mark.parametrize("name", NAMES)
def test_candles_are_the_trades(name: str) -> None:
    candles = MARKET.candles(name)
    starts = [c.start_ns for c in candles]
    assert starts == list(range(starts[0], starts[0] + len(starts) * MINUTE, MINUTE))
    assert [c.closed for c in candles] == [True] * (len(candles) - 1) + [False]
    inverse = MARKET.listings[name].market == "inverse"
    for candle in candles:
        inside = [t for t in MARKET.trades(name) if t.time_ns // MINUTE * MINUTE == candle.start_ns]
        prices = [Decimal(t.price) for t in inside]
        assert Decimal(candle.open) == prices[0]
        assert Decimal(candle.close) == prices[-1]
        assert (Decimal(candle.low), Decimal(candle.high)) == (min(prices), max(prices))
        assert Decimal(candle.volume) == sum(Decimal(t.size) for t in inside)
        assert Decimal(candle.buy_volume) == sum(Decimal(t.size) for t in inside if not t.buyer_is_maker)
        assert candle.trades == len(inside)
        assert (candle.first_id, candle.last_id) == (inside[0].id, inside[-1].id)
        if not inverse:
            worth = sum(Decimal(t.price) * Decimal(t.size) for t in inside)
            assert Decimal(candle.turnover) == worth


@pytest.mark.parametrize("name", NAMES)
def test_each_minute_is_closed_once_and_only_after_its_end(name: str) -> None:
    told = of(SimCandle, name)
    closed = [c for c in told if c.closed]
    assert [c.start_ns for c in closed] == [c.start_ns for c in MARKET.candles(name)[:-1]]
    assert all(c.time_ns >= c.start_ns + MINUTE for c in closed)
    for candle in closed:
        running = [c for c in told if c.start_ns == candle.start_ns and not c.closed]
        assert told.index(candle) > told.index(running[-1]), "nothing of a minute is told behind its end"


def test_a_minute_without_trades_is_flat() -> None:
    market = Market(many_listings(1), trade_share=1.0)
    name = next(iter(market.listings))
    market.step(T0)
    events = market.turn(T0 + 3 * MINUTE)
    assert [e.start_ns - T0 for e in events if isinstance(e, SimCandle)] == [0, MINUTE, 2 * MINUTE]
    flat = market.candles(name)[1]
    last = market.trades(name)[-1].price
    assert (flat.open, flat.high, flat.low, flat.close) == (last,) * 4
    assert Decimal(flat.volume) == flat.trades == 0
    assert flat.first_id is None


def test_quotes_tell_each_change_of_the_top() -> None:
    market = Market(many_listings(2), seed=9)
    name = next(iter(market.listings))
    told = market.quote(name)
    for i in range(500):
        for event in market.step(T0 + i * STEP):
            if isinstance(event, SimQuote) and event.name == name:
                told = event
        bids, asks = market.book(name, 1)
        assert (told.bid, told.ask) == (bids[0], asks[0])


def test_the_ticker_counts_the_day() -> None:
    market = Market(many_listings(1), seed=2)
    name = next(iter(market.listings))
    market.go_back(T0, 1500, trades_per_minute=2)
    market.step(T0)
    ticker = market.ticker(name, T0)
    day = market.candles(name)[-1440:]
    assert Decimal(ticker.volume) == sum(Decimal(c.volume) for c in day)
    assert Decimal(ticker.high) == max(Decimal(c.high) for c in day)
    assert ticker.open == day[0].open
    assert ticker.last == market.trades(name)[-1].price
    assert isinstance(of(SimTicker, "BTC-USDT")[0], SimTicker)


def test_the_past_ends_at_the_present() -> None:
    market = Market(many_listings(1), seed=2)
    name = next(iter(market.listings))
    now = T0 + 12_345_678_901
    market.go_back(now, 30)
    candles = market.candles(name)
    assert len(candles) == 31
    assert candles[-1].start_ns == T0
    assert all(c.trades == 4 for c in candles[:-1])
    assert max(t.time_ns for t in market.trades(name)) < T0
    assert not market.deltas(name)


async def test_run_steps_each_listing_at_its_rate(autojump_clock: object) -> None:
    import trio

    from pricefeedd.testing import anchored_clock

    market = Market(many_listings(5), trade_share=1.0)
    told: list[SimEvent] = []
    with trio.move_on_after(10.005):
        await market.run(20, now_ns=anchored_clock(T0), tell=told.append)
    for name in market.listings:
        assert len(market.trades(name)) == pytest.approx(200, abs=2)
    assert [e for e in told if isinstance(e, SimTrade)] == sorted(
        (t for name in market.listings for t in market.trades(name)), key=lambda t: t.time_ns
    )
