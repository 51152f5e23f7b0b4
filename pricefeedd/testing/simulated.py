"""A fake venue with a simulated market behind it, whose truth a test can hold against what readers got."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence

from pricefeedd.testing.fake import FakeVenue
from pricefeedd.testing.listing import Listing
from pricefeedd.testing.market import Market, usual_listings
from pricefeedd.testing.truth import SimCandle, SimEvent


class SimulatedVenue(FakeVenue, abc.ABC):
    """A venue's fake that trades by itself. Give it time with `step` or `play`, or publish by hand.

    The names of its streams, as given to `subscribe` and `publish`, are those of the codec's `Stream`, so that
    faults can be aimed at the stream of one topic.

    Attributes:
        market: The simulated market behind it; its truth is there to compare with.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        now_ns: Callable[[], int] | None = None,
        history_minutes: int = 0,
    ) -> None:
        """Make a fake venue.

        Args:
            market: By default one with the venue's `default_listings`.
            now_ns: The wall clock; by default one that runs with Trio's.
            history_minutes: Minutes of trading to invent before the first event, for REST to give out.
        """
        super().__init__(now_ns=now_ns)
        self.market = Market(self.default_listings()) if market is None else market
        self._history_minutes = history_minutes
        self._begun = False

    # --- Hooks --------------------------------------------------------------------------------------------

    @classmethod
    def default_listings(cls) -> Sequence[Listing]:
        """Return what is traded unless a test says otherwise: at least two instruments of each market."""
        return usual_listings()

    @abc.abstractmethod
    def endpoints(self, authority: str | None = None) -> Mapping[str, str]:
        """Return all base URLs for `[venues.NAME.endpoints]`.

        Args:
            authority: Host and port to name; where it listens by default.
        """

    @abc.abstractmethod
    def tell(self, event: SimEvent) -> None:
        """Publish what happened, in the venue's words, to whoever subscribed it."""

    def shut_down(self, market: str) -> None:
        """Announce that the connections of a market end soon, where the venue does that (`Closing`).

        Raises:
            NotImplementedError: The venue gives no notice.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no notice of its end")

    # --- What a reader has who missed nothing; the conformance kit compares with it -----------------------

    def told_trades(self, name: str) -> Sequence[tuple[str, str]]:
        """Return price and size of the trades so far, oldest first, as the venue's stream has them.

        By default those of the market; a fake that merges trades, or writes sizes in another unit than its
        listing, says so here.
        """
        return [(trade.price, trade.size) for trade in self.market.trades(name)]

    def told_book(self, name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return bids and asks, best first, as deep as the venue's stream goes."""
        return self.market.book(name)

    def told_quote(self, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return price and size of the best bid and offer."""
        quote = self.market.quote(name)
        return quote.bid, quote.ask

    def told_candles(self, name: str) -> Sequence[SimCandle]:
        """Return all minutes so far, in the venue's units; those that have not ended say so."""
        return self.market.candles(name)

    def told_prices(self, name: str) -> Sequence[str]:
        """Return an oracle's prices so far, oldest first; none for venues that are no oracle."""
        return ()

    # --- Time ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Invent the past, once; `step` and `play` do it by themselves, and REST must before it answers."""
        if not self._begun:
            self._begun = True
            if self._history_minutes:
                self.market.go_back(self.now_ns(), self._history_minutes)

    def step(self, count: int = 1, *, names: tuple[str, ...] | None = None) -> None:
        """Let something happen on each instrument, or on these, and publish it."""
        self.begin()
        for _ in range(count):
            for event in self.market.step(self.now_ns(), names):
                self.tell(event)

    def flush(self) -> None:
        """Publish the book changes that wait for their turn."""
        for event in self.market.flush(self.now_ns()):
            self.tell(event)

    async def play(self, rate_per_s: float = 10.0) -> None:
        """Step each instrument so many times a second until cancelled."""
        self.begin()
        await self.market.run(rate_per_s, now_ns=self.now_ns, tell=self.tell)
