"""Stored subscriptions on their way back: each waits until what its market lists is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import attrs
import structlog
import trio

from pricefeedd.instruments import InstrumentMap
from pricefeedd.offer import CHANNEL_TYPES, PRIVATE_TYPES, Meaning, Offer, SubscriptionRefusedError, Wish
from pricefeedd.store.records import SubscriptionRecord

log = structlog.get_logger("pricefeedd.restored")

#: So many records are worked on at a time: readers wait no longer than for these.
AT_ONCE = 200

_T = TypeVar("_T")

#: The venue and the market whose instruments a record waits for; no market where waiting does not help.
Place = tuple[str, str | None]


class Restored:
    """Active records of which nothing is held yet."""

    def __init__(
        self, offers: Mapping[str, Offer], begin: Callable[[SubscriptionRecord, Meaning], None]
    ) -> None:
        """Prepare to take up records.

        Args:
            begin: Told what a record means, as soon as that is known.
        """
        self._offers = offers
        self._begin = begin
        self._waiting: dict[Place, dict[str, SubscriptionRecord]] = {}
        self._settling: set[Place] = set()
        self._news = trio.Event()

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._waiting.values()))

    def discard(self, record: SubscriptionRecord) -> None:
        """Let a record wait no longer: it was cancelled."""
        for waiting in self._waiting.values():
            waiting.pop(record.id, None)

    def take(self, record: SubscriptionRecord) -> None:
        """Begin a record if it belongs to an account, and else let it wait."""
        offer = self._offers.get(record.venue)
        place: Place = (record.venue, None)
        if offer is None or record.channel_type not in CHANNEL_TYPES:
            _tell(record, "its venue is not configured, or has nothing of the kind")
        elif record.channel_type in PRIVATE_TYPES:
            try:
                meaning = offer.of_account(_wish(record))
            except SubscriptionRefusedError as e:
                _tell(record, e.message)
            else:
                self._begin(record, meaning)
                return
        elif record.market in offer.venue.markets:
            place = (record.venue, record.market)
        self._waiting.setdefault(place, {})[record.id] = record
        self._news.set()

    async def run(self) -> None:
        """Begin what is taken, as soon as the instruments of its market are known; until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                for venue, market in self._waiting:
                    if market is not None and (venue, market) not in self._settling:
                        self._settling.add((venue, market))
                        name = f"subscriptions:{venue}:{market}"
                        nursery.start_soon(self._settle_market, venue, market, name=name)
                await self._news.wait()
                self._news = trio.Event()

    async def _settle_market(self, venue: str, market: str) -> None:
        """Begin what waits for a market's instruments; what it does not list may be in its next list."""
        listed: InstrumentMap | None = None
        waiting = self._waiting[venue, market]
        while waiting and (offer := self._offers.get(venue)) is not None:
            listed = await offer.listed(market, other_than=listed)
            for some in parts(list(waiting.values())):
                if venue in self._offers:
                    self._settle((venue, market), some, listed)
                await trio.lowlevel.checkpoint()
        self._settling.discard((venue, market))

    def settle_service(self, service: str, venue: str, market: str) -> None:
        """Begin what waits of one service, so that it does not get the same anew."""
        waiting = self._waiting.get((venue, market))
        listed = self._offers[venue].known(market)
        if waiting and listed is not None:
            mine = [record for record in waiting.values() if record.requesting_service == service]
            self._settle((venue, market), mine, listed)

    def _settle(self, place: Place, records: Iterable[SubscriptionRecord], listed: InstrumentMap) -> None:
        waiting, offer = self._waiting[place], self._offers[place[0]]
        for record in records:
            if record.id not in waiting:
                continue  # cancelled, or begun by its service's wish for something new
            wish = _wish(record)
            try:
                try:
                    meaning = offer.of_market(wish, listed)
                except SubscriptionRefusedError:
                    # The venue's word for it may have changed with the settings, such as a book's depth.
                    meaning = offer.of_market(attrs.evolve(wish, topic=None), listed)
            except SubscriptionRefusedError as e:
                _tell(record, e.message)
                continue
            del waiting[record.id]
            self._begin(record, meaning)


def parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield items in parts that are worked on at a time."""
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def _tell(record: SubscriptionRecord, reason: str) -> None:
    log.warning("stored subscription cannot be had", subscription=record.id, reason=reason)


def _wish(record: SubscriptionRecord) -> Wish:
    """Return what a service asked for when the record was made."""
    return Wish(
        venue=record.venue,
        channel_type=record.channel_type,
        symbol=record.symbol,
        topic=record.topic,
        market=record.market,
        account=record.account,
    )
