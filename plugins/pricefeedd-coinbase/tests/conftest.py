"""A fake Coinbase that trades, and a daemon's pipeline that reads it, over streams in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from pricefeedd.events import Candle, Trade
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd.venue import Venue
from pricefeedd_coinbase.testing import CoinbaseFake
from pricefeedd_coinbase.venue import coinbase

VENUE = coinbase()
MINUTE_NS = 60_000_000_000
SPOT = {"spot": {"BTC-USD": ["trade", "quote", "ticker", "candle_1m", "book"], "ETH-USD": ["trade", "book"]}}


@attrs.frozen
class Scene:
    """What plays.

    Attributes:
        playing: Cancel it to stop the market.
    """

    fake: CoinbaseFake
    rig: Rig
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(20)

    def ids(self, name: str) -> list[int]:
        """Return the ids of the trades that the reader got."""
        return [int(t.id or 0) for t in self.rig.events(f"trade:{name}", Trade)]

    def check_complete(self, *instruments: str) -> None:
        """Assert that readers have every trade exactly once, in order, and the market's own book."""
        self.rig.check_sequence()
        for name in instruments or ("BTC-USD", "ETH-USD"):
            got = self.ids(name)
            assert got == list(range(got[0], got[0] + len(got))), f"{name}: trades out of line"
            last = self.fake.market.trades(name)[-1].id
            assert got[-1] == last, f"{name}: the last trades are missing"
            book = self.rig.book(name)
            assert book is not None, f"{name}: no book"
            assert numbers(book) == numbers(self.fake.market.book(name)), f"{name}: the book is wrong"
            assert self.rig.live(f"trade:{name}", f"book:{name}")

    def closed(self, name: str = "BTC-USD") -> list[Candle]:
        """Return the closed minutes that the reader has; they are the market's own, without a hole."""
        closed = [c for c in self.rig.events(f"candle_1m:{name}", Candle) if c.closed]
        starts = [c.start_ns for c in closed]
        assert starts == list(range(starts[0], starts[-1] + 1, MINUTE_NS))
        truth = {c.start_ns: c for c in self.fake.market.candles(name)}
        for c in closed:
            t = truth[c.start_ns]
            ours = [float(n) for n in (c.open, c.high, c.low, c.close, c.volume)]
            theirs = [float(n) for n in (t.open, t.high, t.low, t.close, t.volume)]
            assert ours == pytest.approx(theirs, rel=1e-9), f"minute {(c.start_ns - starts[0]) // MINUTE_NS}"
        return closed


def numbers(book: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> list[list[tuple[float, float]]]:
    """Return a book's levels as numbers."""
    return [[(float(price), float(size)) for price, size in side] for side in book]


@asynccontextmanager
async def _scene(
    subscribe: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    *,
    venue: Venue = VENUE,
    fake: CoinbaseFake | None = None,
    settings: Any = None,
    rate: float = 5.0,
    waits_for: Sequence[str] | None = None,
    **session: Any,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    subscribe = subscribe or SPOT
    fake = fake or CoinbaseFake(Market(CoinbaseFake.default_listings()[:2]), history_minutes=30)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(venue, fake, subscribe, endpoints=fake.endpoints(), settings=settings, **session) as made,
    ):
        nursery.start_soon(play)
        topics = waits_for
        if topics is None:
            topics = [
                f"{c}:{i}" for names in subscribe.values() for i, channels in names.items() for c in channels
            ]
        await made.until(
            lambda: all(len(made.topic(topic)) > 3 for topic in topics) and made.live(*topics),
            within_s=120,
        )
        yield Scene(fake, made, playing)
        nursery.cancel_scope.cancel()


@pytest.fixture
def scene() -> Callable[..., AbstractAsyncContextManager[Scene]]:
    """Return a function that sets a scene and waits until everything is live and flows."""
    return _scene
