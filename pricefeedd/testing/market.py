"""A simulated market whose truth can be inspected, so that a test can compare what clients saw with it.

Each listing has an order book that walks at random from a seed; trades take from the book, candles and
tickers are counted from the trades. Prices and sizes are integers of ticks and lots inside, so everything
agrees to the last digit. Nothing happens by itself: `step` is told the time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import trio

from pricefeedd.instruments import Kind
from pricefeedd.testing.listing import MINUTE_NS, Listed, Listing, Numbers
from pricefeedd.testing.truth import (
    SimCandle,
    SimDelta,
    SimEvent,
    SimLiquidation,
    SimQuote,
    SimTicker,
    SimTrade,
)

__all__ = [
    "Listing",
    "Market",
    "SimCandle",
    "SimDelta",
    "SimEvent",
    "SimLiquidation",
    "SimQuote",
    "SimTicker",
    "SimTrade",
    "many_listings",
    "usual_listings",
]

_NS = 1_000_000_000


def usual_listings() -> tuple[Listing, ...]:
    """Return a handful of well-known instruments: spot, linear (one dated) and inverse."""
    spot = [
        ("BTC", "60000.00", "0.01", "0.00001"),
        ("ETH", "2500.00", "0.01", "0.0001"),
        ("SOL", "150.00", "0.01", "0.001"),
    ]
    linear = [
        ("BTC", "60010.0", "0.1", "0.001"),
        ("ETH", "2501.00", "0.01", "0.001"),
        ("SOL", "150.100", "0.001", "0.01"),
    ]
    inverse = [("BTC", "60005.0", "0.1", "100"), ("ETH", "2500.50", "0.01", "10")]
    dated_ns = 1_798_185_600 * _NS  # 2026-12-25T08:00:00Z
    return (
        *(Listing(market="spot", base=b, quote="USDT", price=p, tick=t, lot=s) for b, p, t, s in spot),
        *(
            Listing(market="linear", base=b, quote="USDT", kind=Kind.PERPETUAL, price=p, tick=t, lot=s)
            for b, p, t, s in linear
        ),
        Listing(
            market="linear", base="BTC", quote="USDT", kind=Kind.FUTURE, price="60500.0", tick="0.1", lot="0.001",
            expiry_ns=dated_ns,
        ),
        *(
            Listing(
                market="inverse", base=b, quote="USD", kind=Kind.PERPETUAL, price=p, tick=t, lot="1", contract_size=c
            )
            for b, p, t, c in inverse
        ),
    )  # fmt: skip


def many_listings(count: int, *, market: str = "spot") -> tuple[Listing, ...]:
    """Return `count` invented instruments of one market: A0000-USDT, A0001-USDT, ..."""
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    quote = "USD" if market == "inverse" else "USDT"
    return tuple(
        Listing(
            market=market, base=f"A{i:04}", quote=quote, kind=kind, price=f"{100 + i}.00",
            tick="0.01", lot="1" if market == "inverse" else "0.001",
        )
        for i in range(count)
    )  # fmt: skip


class Market:
    """All listings of a simulated venue.

    Attributes:
        listings: By our name.
    """

    def __init__(
        self,
        listings: Iterable[Listing] | None = None,
        *,
        seed: int = 1,
        depth: int = 40,
        trade_share: float = 0.4,
        depth_every_ns: int = 100_000_000,
        ticker_every_ns: int = _NS,
        keep: int = 200_000,
    ) -> None:
        """Make a market in which nothing has happened yet.

        Args:
            listings: What is traded; `usual_listings` by default.
            depth: Levels per side that each book keeps.
            trade_share: Share of the steps of an instrument that bring a trade.
            depth_every_ns: Book changes are told together, this far apart; 0 tells each step's at once.
            keep: Trades and deltas remembered per instrument; older ones are forgotten.
        """
        chosen = usual_listings() if listings is None else tuple(listings)
        self.listings = {listing.name: listing for listing in chosen}
        if len(self.listings) != len(chosen):
            raise ValueError("two listings have the same name")
        self._trade_share = trade_share
        self._depth_every_ns = depth_every_ns
        self._ticker_every_ns = ticker_every_ns
        shared = Numbers(random.Random(f"{seed}:numbers"), 600_000_000_000)
        self._listed = {
            name: Listed(listing, seed=seed, depth=depth, keep=keep, numbers=shared)
            for name, listing in self.listings.items()
        }

    # --- The truth ----------------------------------------------------------------------------------------

    def book(
        self, name: str, levels: int | None = None
    ) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return bids and asks as they stand now, best first, as price and size."""
        return self._listed[name].book(levels)

    def sequence(self, name: str) -> int:
        """Return the number of the last change of a book."""
        return self._listed[name].sequence

    def trades(self, name: str) -> Sequence[SimTrade]:
        """Return the trades so far, oldest first."""
        return self._listed[name].trades

    def deltas(self, name: str) -> Sequence[SimDelta]:
        """Return the book changes told so far, oldest first."""
        return self._listed[name].deltas

    def candles(self, name: str) -> list[SimCandle]:
        """Return all minutes so far, without a hole; the last one runs."""
        return self._listed[name].all_candles()

    def quote(self, name: str) -> SimQuote:
        """Return the best bid and offer as they stand now."""
        return self._listed[name].quote(0)

    def ticker(self, name: str, now_ns: int) -> SimTicker:
        """Return the statistics of the last 24 hours."""
        return self._listed[name].ticker(now_ns)

    # --- Making things happen -----------------------------------------------------------------------------

    def step(self, now_ns: int, names: Iterable[str] | None = None) -> list[SimEvent]:
        """Let something happen on each instrument, or on these, and return what is told of it.

        Time must not run backwards.
        """
        events: list[SimEvent] = []
        for name in self.listings if names is None else names:
            listed = self._listed[name]
            events += listed.turn(now_ns)
            before = listed.best()
            if listed.random.random() < self._trade_share:
                events += listed.trade(now_ns)
            listed.stir()
            if listed.best() != before:
                events.append(listed.quote(now_ns))
            if now_ns - listed.told_ns >= self._depth_every_ns:
                events += listed.tell(now_ns)
            if now_ns - listed.ticker_ns >= self._ticker_every_ns:
                listed.ticker_ns = now_ns
                events.append(listed.ticker(now_ns))
        return events

    def turn(self, now_ns: int) -> list[SimEvent]:
        """Close the minutes that have ended by now, trades or no trades."""
        return [event for listed in self._listed.values() for event in listed.turn(now_ns)]

    def flush(self, now_ns: int) -> list[SimEvent]:
        """Tell all book changes that were not told yet."""
        return [event for listed in self._listed.values() for event in listed.tell(now_ns)]

    def liquidate(self, name: str, now_ns: int) -> SimLiquidation:
        """Close somebody's position by force."""
        return self._listed[name].liquidate(now_ns)

    def go_back(self, now_ns: int, minutes: int, *, trades_per_minute: int = 4) -> None:
        """Make a past: whole minutes of trading that end with the minute that runs now. Nobody is told.

        Only for a market in which nothing has happened yet.
        """
        start_ns = (now_ns // MINUTE_NS - minutes) * MINUTE_NS
        for listed in self._listed.values():
            for minute in range(minutes):
                for i in range(trades_per_minute):
                    at_ns = start_ns + minute * MINUTE_NS + (i + 1) * MINUTE_NS // (trades_per_minute + 1)
                    listed.turn(at_ns)
                    listed.trade(at_ns)
                    listed.stir()
            listed.turn(now_ns)
            listed.tell(now_ns)
            listed.deltas.clear()

    async def run(
        self, rate_per_s: float, *, now_ns: Callable[[], int], tell: Callable[[SimEvent], object]
    ) -> None:
        """Step each instrument `rate_per_s` times a second, in turn, and tell what happens, until cancelled."""
        names = self._rounds()
        per_s = rate_per_s * len(self.listings)
        done = 0
        began = trio.current_time()
        while True:
            await trio.sleep(max(0.01, 1 / per_s) if per_s else 1.0)
            due = int((trio.current_time() - began) * per_s)
            # After a long pause of the host we go on from here, instead of making up for it in one go.
            most = max(1, int(per_s))
            if due - done > most:
                done = due - most
            at_ns = now_ns()
            for event in self.turn(at_ns):
                tell(event)
            while done < due:
                done += 1
                for event in self.step(at_ns, (next(names),)):
                    tell(event)

    def _rounds(self) -> Iterator[str]:
        while True:
            yield from self.listings
