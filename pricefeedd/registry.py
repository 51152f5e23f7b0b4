"""Which services subscribed what by the REST API: their records, and what these hold at the venues.

Several services share what the venue is asked for once, and it ends with the last of them. With a store the
records outlive the process, and nothing here waits for it: see `write_behind`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import structlog
import trio

from pricefeedd.bus import Bus
from pricefeedd.demand import Hold
from pricefeedd.errors import PricefeeddError
from pricefeedd.events import Gap, Status
from pricefeedd.offer import Meaning, Offer, SubscriptionRefusedError, Wish
from pricefeedd.restored import Restored, parts
from pricefeedd.store.records import SubscriptionRecord
from pricefeedd.write_behind import Repository, WriteBehind

log = structlog.get_logger("pricefeedd.registry")

#: Active subscriptions that there may be, and cancelled ones that are remembered.
MOST = 10_000
#: A cancelled one is remembered for this long.
REMEMBERED_US = 30 * 86_400 * 1_000_000
#: When something last came is written so often, where it changed.
LAST_EVENT_S = 30.0
#: At the end of the daemon, what is not written yet may take so long.
LAST_WORDS_S = 2.0


@attrs.frozen
class _Held:
    """What an active record has of us.

    Attributes:
        key: Service and feed: nobody has the same twice.
        hold: None for what is served in any case.
    """

    key: tuple[str, str]
    hold: Hold | None


class Registry:
    """All subscriptions of services.

    Attributes:
        persistent: Whether they outlive the process.
        loaded: Set once those of former lives are known.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer],
        bus: Bus,
        *,
        now_ns: Callable[[], int],
        repository: Repository | None = None,
    ) -> None:
        """Prepare to keep records.

        Args:
            offers: The configured venues by their section's name.
            repository: Where records outlive us; None lets them end with the process.
        """
        self.persistent = repository is not None
        self.loaded = trio.Event()
        self._offers = offers
        self._bus = bus
        self._now_ns = now_ns
        self._behind = None if repository is None else WriteBehind(repository)
        self._records: dict[str, SubscriptionRecord] = {}
        self._held: dict[str, _Held] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._restored = Restored(offers, self._begin_stored)
        self._closed = trio.Event()
        if self._behind is None:
            self.loaded.set()

    # --- what services ask -----------------------------------------------------------------------------

    async def find(self, wish: Wish) -> Meaning:
        """Return what a service means, waiting for the venue's instruments if need be.

        Raises:
            SubscriptionRefusedError: It cannot be had.
        """
        offer = self._offers.get(wish.venue)
        if offer is None:
            known = ", ".join(self._offers) or "none"
            raise SubscriptionRefusedError(
                "invalid_venue",
                f"venue: {wish.venue!r} is not configured here; configured: {known}",
                parameter="venue",
            )
        return await offer.find(wish)

    def create(self, wish: Wish, meaning: Meaning, service: str) -> SubscriptionRecord:
        """Subscribe for a service, and return the record.

        Raises:
            SubscriptionRefusedError: It has that already, or there are too many.
        """
        self._check_open()
        if meaning.instrument is not None:
            self._restored.settle_service(service, wish.venue, meaning.instrument.market)
        existing = self._by_key.get((service, meaning.feed))
        if existing is not None:
            raise SubscriptionRefusedError(
                "subscription_exists", f"{service} has {meaning.feed} already, as subscription {existing}"
            )
        if self.active >= MOST:
            raise SubscriptionRefusedError("limit", f"there are {MOST} subscriptions; cancel some")
        now = self._now_us()
        record = SubscriptionRecord(
            id=str(uuid.uuid4()),
            venue=wish.venue,
            channel_type=wish.channel_type,
            symbol=wish.symbol,
            topic=meaning.topic,
            market=meaning.market,
            account=meaning.account,
            requesting_service=service,
            created_at=now,
            updated_at=now,
        )
        self._note(record)
        self._begin(record, meaning)
        log.info("subscribed", service=service, topic=meaning.feed, subscription=record.id)
        return self.told(record)

    def get(self, id_: str) -> SubscriptionRecord:
        """Return a record.

        Raises:
            SubscriptionRefusedError: There is none; or it may be in the store, which was not read yet.
        """
        record = self._records.get(id_.lower())
        if record is None:
            self._check_loaded()
            raise not_found(id_)
        return self.told(record)

    def cancel(self, id_: str) -> SubscriptionRecord:
        """End a subscription, and return its record; one that has ended stays as it is.

        Raises:
            SubscriptionRefusedError: There is none; or it may be in the store, which was not read yet.
        """
        self._check_open()
        record = self.get(id_)
        if record.is_active:
            record = self._end(record)
            log.info("unsubscribed", service=record.requesting_service, subscription=record.id)
        return record

    def cancel_service(self, service: str) -> list[SubscriptionRecord]:
        """End all subscriptions of a service, and return their records.

        Raises:
            SubscriptionRefusedError: What is in the store was not read yet.
        """
        self._check_open()
        self._check_loaded()
        mine = [r for r in self._records.values() if r.is_active and r.requesting_service == service]
        if mine:
            log.info("unsubscribed", service=service, subscriptions=len(mine))
        return [self._end(self.told(record)) for record in mine]

    def records(self) -> list[SubscriptionRecord]:
        """Return all records, the oldest first, as they were when they last changed: see `told`."""
        return sorted(self._records.values(), key=lambda record: (record.created_at, record.id))

    def told(self, record: SubscriptionRecord) -> SubscriptionRecord:
        """Return a record with the time at which something last came of it."""
        feed = self.feed(record)
        topic = None if feed is None else self._bus.get(feed)
        newest = None if topic is None else topic.last or topic.newest
        if newest is None or isinstance(newest.event, Status | Gap):
            return record
        last = max(newest.event.received_ns // 1000, record.last_event_at or 0)
        return record if last == record.last_event_at else attrs.evolve(record, last_event_at=last)

    def feed(self, record: SubscriptionRecord) -> str | None:
        """Return our topic that brings what was subscribed; None while it is not known, and after the end."""
        held = self._held.get(record.id)
        return None if held is None else held.key[1]

    def services(self, feed: str) -> list[str]:
        """Return the services that subscribed a topic of ours, by name."""
        return sorted({held.key[0] for held in self._held.values() if held.key[1] == feed})

    async def stored(self, records: Iterable[SubscriptionRecord]) -> None:
        """Wait until the store, if there is one, has these."""
        if self._behind is not None:
            await self._behind.stored([record.id for record in records])

    def _check_loaded(self) -> None:
        if not self.loaded.is_set():
            raise SubscriptionRefusedError(
                "store_not_loaded", "the stored subscriptions are not read yet; try again in a moment"
            )

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise SubscriptionRefusedError("shutting_down", "the daemon ends; try again in a moment")

    # --- what operators ask ----------------------------------------------------------------------------

    @property
    def venues(self) -> list[str]:
        """The configured venues, by their section's name."""
        return list(self._offers)

    @property
    def waiting(self) -> int:
        """How many active ones hold nothing: their venue's instruments are not known, or it lists them no more."""
        return len(self._restored)

    @property
    def active(self) -> int:
        """How many were not cancelled."""
        return len(self._held) + self.waiting

    @property
    def alone(self) -> bool:
        """Whether venues are configured, and nothing of them: what is served is what services subscribe."""
        return bool(self._offers) and not any(offer.configured for offer in self._offers.values())

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status`."""
        return {
            "total": len(self._records),
            "active": self.active,
            "waiting": self.waiting,
            "persistent": self.persistent,
            "loaded": self.loaded.is_set(),
            "unsaved": 0 if self._behind is None else self._behind.waiting,
        }

    def counts(self) -> dict[tuple[str, str, bool], int]:
        """Return how many there are by venue, channel type, and whether they are active."""
        counts: dict[tuple[str, str, bool], int] = {}
        for record in self._records.values():
            key = (record.venue, record.channel_type, record.is_active)
            counts[key] = counts.get(key, 0) + 1
        return counts

    # --- beginning and ending --------------------------------------------------------------------------

    def _now_us(self) -> int:
        return self._now_ns() // 1000

    def _note(self, record: SubscriptionRecord) -> None:
        """Remember a record as it is now, here and soon in the store."""
        self._records[record.id] = record
        if self._behind is not None:
            self._behind.save(record)

    def _begin(self, record: SubscriptionRecord, meaning: Meaning) -> None:
        key = (record.requesting_service, meaning.feed)
        self._by_key[key] = record.id
        self._held[record.id] = _Held(key, self._offers[record.venue].claim(meaning))

    def _end(self, record: SubscriptionRecord) -> SubscriptionRecord:
        held = self._held.pop(record.id, None)
        if held is not None:
            del self._by_key[held.key]
            if held.hold is not None:
                held.hold.release()
        self._restored.discard(record)
        ended = attrs.evolve(record, is_active=False, updated_at=self._now_us())
        self._note(ended)
        return ended

    def moved(self, venue: str) -> None:
        """Take up anew what services have of a venue that came into the configuration, or went out of it."""
        for record in list(self._records.values()):
            if record.venue != venue or not record.is_active:
                continue
            held = self._held.pop(record.id, None)
            if held is not None:
                del self._by_key[held.key]
                if held.hold is not None:
                    held.hold.release()
            self._restored.discard(record)
            self._restored.take(record)

    # --- keeping ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Change nothing any more: `run` writes what is not written yet, and ends."""
        self._closed.set()

    async def run(self) -> None:
        """Take up what is stored, and keep it up to date, until closed."""
        async with trio.open_nursery() as nursery:
            if self._behind is not None:
                nursery.start_soon(self._load, self._behind, name="subscriptions:load")
                nursery.start_soon(self._behind.run, name="subscriptions:write")
            nursery.start_soon(self._restored.run, name="subscriptions:restore")
            nursery.start_soon(self._sweep_often, name="subscriptions:sweep")
            try:
                await self._closed.wait()
            finally:
                nursery.cancel_scope.cancel()
        if self._behind is not None:
            await self._note_last_events()
            with trio.move_on_after(LAST_WORDS_S, shield=True):
                try:
                    await self._behind.flush()
                except PricefeeddError:
                    log.exception("subscriptions not stored", dropped=self._behind.waiting)

    async def _load(self, behind: WriteBehind) -> None:
        """Take up the records of former lives, beside those that were made meanwhile."""
        for some in parts(await behind.load()):
            for record in some:
                if record.id in self._records:
                    continue
                self._records[record.id] = record
                if record.is_active:
                    self._restored.take(record)
            await trio.lowlevel.checkpoint()
        self.loaded.set()
        log.info("subscriptions loaded", total=len(self._records), active=self.active)

    def _begin_stored(self, record: SubscriptionRecord, meaning: Meaning) -> None:
        if (record.requesting_service, meaning.feed) in self._by_key:
            self._end(record)  # its service asked anew while the store was away, and knows the new one
        else:
            self._begin(record, meaning)

    async def _sweep_often(self) -> None:
        while True:
            await trio.sleep(LAST_EVENT_S)
            await self._note_last_events()
            self._forget_old()

    async def _note_last_events(self) -> None:
        """Write down when something last came: not with each tick, and only where it did."""
        for some in parts(list(self._held)):
            for id_ in some:
                record = self._records[id_]
                told = self.told(record)
                if told is not record:
                    self._note(told)
            await trio.lowlevel.checkpoint()

    def _forget_old(self) -> None:
        """Forget what was cancelled long ago, and the oldest of too many."""
        ended = sorted((r for r in self._records.values() if not r.is_active), key=lambda r: r.updated_at)
        since = self._now_us() - REMEMBERED_US
        old = sum(record.updated_at < since for record in ended)
        gone = [record.id for record in ended[: max(old, len(ended) - MOST)]]
        for id_ in gone:
            del self._records[id_]
        if gone and self._behind is not None:
            self._behind.remove(gone)


def not_found(id_: str) -> SubscriptionRefusedError:
    """Return the refusal of an id that means nothing."""
    return SubscriptionRefusedError("subscription_not_found", f"there is no subscription {id_[:40]!r}")
