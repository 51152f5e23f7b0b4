"""One instrument of the simulated market: its book, trades and minutes."""

from __future__ import annotations

import random
from collections import deque
from decimal import Decimal

import attrs

from pricefeedd.instruments import Kind, spell
from pricefeedd.testing.truth import (
    Rows,
    SimCandle,
    SimDelta,
    SimEvent,
    SimLiquidation,
    SimQuote,
    SimTicker,
    SimTrade,
)

MINUTE_NS = 60_000_000_000
_FUNDING_NS = 8 * 3600 * 1_000_000_000
_DAY_MINUTES = 1440
_TURNOVER_STEP = Decimal("0.00000001")


@attrs.frozen(kw_only=True)
class Listing:
    """An instrument of the simulated market.

    Attributes:
        price: Where its random walk begins.
        tick: Smallest price step; its number of decimals is that of all prices.
        lot: Smallest size step, likewise.
        contract_size: Quote units per contract on inverse listings.
    """

    market: str
    base: str
    quote: str
    kind: Kind = Kind.SPOT
    price: str
    tick: str
    lot: str
    contract_size: str = "1"
    expiry_ns: int | None = None

    @property
    def name(self) -> str:
        """Our name for it."""
        return spell(self.base, self.quote, self.kind, self.expiry_ns)


class Numbers:
    """Update numbers that all derivatives share and that jump, as those of Binance's futures do."""

    def __init__(self, rng: random.Random, start: int) -> None:
        self._random = rng
        self._last = start

    def next(self) -> int:
        """Return a number above all before it."""
        self._last += self._random.randint(1, 400)
        return self._last


class Step:
    """Counts of a step (tick or lot) to decimal text and back."""

    def __init__(self, step: str) -> None:
        self.decimals = len(step.partition(".")[2])
        self.unit = int(step.replace(".", ""))

    def count(self, text: str) -> int:
        """Return how many steps a decimal text is, rounded down."""
        return int(Decimal(text).scaleb(self.decimals)) // self.unit

    def text(self, count: int) -> str:
        """Return the decimal text of that many steps."""
        return scaled(count * self.unit, self.decimals)


def scaled(value: int, decimals: int) -> str:
    """Return an integer as decimal text with its point moved left.

    >>> scaled(12345, 2)
    '123.45'
    """
    if decimals == 0:
        return str(value)
    whole, fraction = divmod(value, 10**decimals)
    return f"{whole}.{fraction:0{decimals}}"


@attrs.define
class _Minute:
    start_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    buy_volume: int = 0
    turnover: Decimal = Decimal(0)
    buy_turnover: Decimal = Decimal(0)
    trades: int = 0
    first_id: int | None = None
    last_id: int | None = None


class Listed:
    """The state of one listing. Use it through `Market`.

    Attributes:
        random: Its own source of chance, so that listings do not disturb each other.
        sequence: Number of the last change of the book.
        told_ns: When changes were last told.
        ticker_ns: When the ticker was last told.
    """

    def __init__(self, listing: Listing, *, seed: int, depth: int, keep: int, numbers: Numbers) -> None:
        self.listing = listing
        self.random = random.Random(f"{seed}:{listing.name}")
        self.trades: deque[SimTrade] = deque(maxlen=keep)
        self.deltas: deque[SimDelta] = deque(maxlen=keep)
        self.told_ns = 0
        self.ticker_ns = 0
        self._depth = depth
        self._numbers = None if listing.market == "spot" else numbers
        self._price = Step(listing.tick)
        self._size = Step(listing.lot)
        self._trade_id = self.random.randint(1_000_000, 90_000_000)
        self.sequence = (
            self.random.randint(100_000_000, 900_000_000) if self._numbers is None else numbers.next()
        )
        self._told = self.sequence
        self._first_untold: int | None = None
        self._untold: tuple[dict[int, None], dict[int, None]] = ({}, {})
        middle = max(2 * depth + 2, self._price.count(listing.price))
        # Levels lie this far apart, so that the price moves visibly however small its tick is.
        self._gap = max(1, middle // 50_000)
        self._bids = {middle - 1 - i * self._gap: self._some_size() for i in range(depth)}
        self._asks = {middle + 1 + i * self._gap: self._some_size() for i in range(depth)}
        self._best_bid = middle - 1
        self._best_ask = middle + 1
        self._last_price = middle
        self._minute: _Minute | None = None
        self._minutes: deque[_Minute] = deque(maxlen=max(_DAY_MINUTES * 2, 1))

    # --- What is true now ---------------------------------------------------------------------------------

    def best(self) -> tuple[int, int, int, int]:
        """Return best bid and offer with their sizes, in ticks and lots."""
        bid, ask = self._best_bid, self._best_ask
        return bid, self._bids[bid], ask, self._asks[ask]

    def book(self, levels: int | None = None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return bids and asks, best first."""
        price, size = self._price.text, self._size.text
        bids = [(price(p), size(self._bids[p])) for p in sorted(self._bids, reverse=True)[:levels]]
        asks = [(price(p), size(self._asks[p])) for p in sorted(self._asks)[:levels]]
        return bids, asks

    def quote(self, now_ns: int) -> SimQuote:
        """Return the best bid and offer."""
        bid, bid_size, ask, ask_size = self.best()
        price, size = self._price.text, self._size.text
        return SimQuote(
            name=self.listing.name,
            time_ns=now_ns,
            sequence=self.sequence,
            bid=(price(bid), size(bid_size)),
            ask=(price(ask), size(ask_size)),
        )

    def all_candles(self) -> list[SimCandle]:
        """Return all minutes so far; the last one runs."""
        closed = [self._candle(minute, minute.start_ns + MINUTE_NS, closed=True) for minute in self._minutes]
        if self._minute is None:
            return closed
        return [*closed, self._candle(self._minute, self._minute.start_ns, closed=False)]

    def ticker(self, now_ns: int) -> SimTicker:
        """Return the statistics of the last 24 hours."""
        running = [] if self._minute is None else [self._minute]
        day = [*list(self._minutes)[-(_DAY_MINUTES - 1) :], *running]
        last = self._last_price
        price = self._price.text
        return SimTicker(
            name=self.listing.name,
            time_ns=now_ns,
            last=price(last),
            open=price(day[0].open if day else last),
            high=price(max((m.high for m in day), default=last)),
            low=price(min((m.low for m in day), default=last)),
            volume=self._size.text(sum(m.volume for m in day)),
            turnover=self._turnover_text(sum((m.turnover for m in day), Decimal(0))),
            trades=sum(m.trades for m in day),
            mark_price=price(last),
            index_price=price(last - 1),
            funding_rate="0.00010000",
            next_funding_ns=(now_ns // _FUNDING_NS + 1) * _FUNDING_NS,
            open_interest=self._size.text(1_000_000 + sum(m.trades for m in day)),
        )

    # --- What happens -------------------------------------------------------------------------------------

    def trade(self, now_ns: int) -> list[SimEvent]:
        """Let a taker hit the best level; he takes all of it one time in three."""
        sells = self.random.random() < 0.5
        side, at = (self._bids, self._best_bid) if sells else (self._asks, self._best_ask)
        there = side[at]
        lots = there if self.random.random() < 0.34 else self.random.randint(1, there)
        self._set(sells, at, there - lots)
        self._keep_depth()
        self._trade_id += 1
        price, size = self._price.text(at), self._size.text(lots)
        trade = SimTrade(
            name=self.listing.name,
            id=self._trade_id,
            time_ns=now_ns,
            price=price,
            size=size,
            buyer_is_maker=sells,
        )
        self.trades.append(trade)
        self._count(now_ns, at, lots, sells=sells)
        assert self._minute is not None, "the trade was just counted in it"
        return [trade, self._candle(self._minute, now_ns, closed=False)]

    def stir(self) -> None:
        """Let makers come and go: one to three changes near the top of the book."""
        for _ in range(self.random.randint(1, 3)):
            bids = self.random.random() < 0.5
            gap = self._best_ask - self._best_bid
            if gap > 1 and self.random.random() < 0.4:
                inside = self.random.randint(1, min(gap - 1, self._gap))
                at = self._best_bid + inside if bids else self._best_ask - inside
                self._set(bids, at, self._some_size())
            else:
                levels = sorted(self._bids, reverse=True) if bids else sorted(self._asks)
                at = levels[min(int(self.random.expovariate(0.25)), len(levels) - 1)]
                gone = len(levels) > 1 and self.random.random() < 0.2
                self._set(bids, at, 0 if gone else self._some_size())
        self._keep_depth()

    def tell(self, now_ns: int) -> list[SimEvent]:
        """Return the changes of the book that were not told yet, as one delta; none if it did not change."""
        self.told_ns = now_ns
        if self._first_untold is None:
            return []
        price, size = self._price.text, self._size.text

        def rows(levels: dict[int, int], changed: dict[int, None]) -> Rows:
            return tuple((price(at), size(levels.get(at, 0))) for at in changed)

        delta = SimDelta(
            name=self.listing.name,
            time_ns=now_ns,
            first=self._first_untold,
            last=self.sequence,
            previous=self._told,
            bids=rows(self._bids, self._untold[0]),
            asks=rows(self._asks, self._untold[1]),
        )
        self._told = self.sequence
        self._first_untold = None
        self._untold = ({}, {})
        self.deltas.append(delta)
        return [delta]

    def turn(self, now_ns: int) -> list[SimEvent]:
        """Close the minutes that ended; one without trades is flat at the last price."""
        start_ns = now_ns // MINUTE_NS * MINUTE_NS
        last = self._last_price
        if self._minute is None:
            self._minute = _Minute(start_ns, last, last, last, last)
        events: list[SimEvent] = []
        while self._minute.start_ns < start_ns:
            events.append(self._candle(self._minute, now_ns, closed=True))
            self._minutes.append(self._minute)
            self._minute = _Minute(self._minute.start_ns + MINUTE_NS, last, last, last, last)
        return events

    def liquidate(self, now_ns: int) -> SimLiquidation:
        """Close a position by force at the best price."""
        sells = self.random.random() < 0.5
        return SimLiquidation(
            name=self.listing.name,
            time_ns=now_ns,
            price=self._price.text(self._best_bid if sells else self._best_ask),
            size=self._size.text(self._some_size()),
            side="sell" if sells else "buy",
        )

    # --- Inside -------------------------------------------------------------------------------------------

    def _some_size(self) -> int:
        return self.random.randint(1, 5000)

    def _set(self, bids: bool, at: int, lots: int) -> None:
        """Set one level's size, under a number of its own; the best prices follow."""
        levels = self._bids if bids else self._asks
        if lots:
            levels[at] = lots
        elif levels.pop(at, None) is None:
            return
        self.sequence = self.sequence + 1 if self._numbers is None else self._numbers.next()
        if self._first_untold is None:
            self._first_untold = self.sequence
        self._untold[0 if bids else 1][at] = None
        if bids and (at > self._best_bid or (at == self._best_bid and not lots)):
            self._best_bid = max(levels)
        elif not bids and (at < self._best_ask or (at == self._best_ask and not lots)):
            self._best_ask = min(levels)

    def _keep_depth(self) -> None:
        """Fill the far ends of both sides up to the depth, and cut what is beyond it."""
        for bids, levels in ((True, self._bids), (False, self._asks)):
            step = -self._gap if bids else self._gap
            while len(levels) < self._depth:
                far = (min(levels) if bids else max(levels)) + step
                if far < 1:
                    break
                self._set(bids, far, self._some_size())
            while len(levels) > self._depth:
                self._set(bids, min(levels) if bids else max(levels), 0)

    def _count(self, now_ns: int, at: int, lots: int, *, sells: bool) -> None:
        self.turn(now_ns)
        minute = self._minute
        assert minute is not None, "turn opens a minute"
        if minute.trades == 0:
            minute.open = minute.high = minute.low = at
            minute.first_id = self._trade_id
        minute.high = max(minute.high, at)
        minute.low = min(minute.low, at)
        minute.close = self._last_price = at
        minute.volume += lots
        minute.trades += 1
        minute.last_id = self._trade_id
        worth = self._worth(at, lots)
        minute.turnover += worth
        if not sells:
            minute.buy_volume += lots
            minute.buy_turnover += worth

    def _worth(self, at: int, lots: int) -> Decimal:
        price, size = Decimal(self._price.text(at)), Decimal(self._size.text(lots))
        if self.listing.market == "inverse":
            return (size * Decimal(self.listing.contract_size) / price).quantize(_TURNOVER_STEP)
        return price * size

    def _turnover_text(self, turnover: Decimal) -> str:
        places = 8 if self.listing.market == "inverse" else self._price.decimals + self._size.decimals
        return f"{turnover:.{places}f}"

    def _candle(self, minute: _Minute, now_ns: int, *, closed: bool) -> SimCandle:
        price, size = self._price.text, self._size.text
        return SimCandle(
            name=self.listing.name,
            time_ns=now_ns,
            start_ns=minute.start_ns,
            open=price(minute.open),
            high=price(minute.high),
            low=price(minute.low),
            close=price(minute.close),
            volume=size(minute.volume),
            turnover=self._turnover_text(minute.turnover),
            buy_volume=size(minute.buy_volume),
            buy_turnover=self._turnover_text(minute.buy_turnover),
            trades=minute.trades,
            first_id=minute.first_id,
            last_id=minute.last_id,
            closed=closed,
        )
