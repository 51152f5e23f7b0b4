"""Candles of the past: joined from what is kept, what the bus has and what the venue tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import pytest
import trio

from pricefeedd.bus import Bus
from pricefeedd.errors import ConnectError, StoreAwayError
from pricefeedd.events import Candle, Origin
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, Kind
from pricefeedd.limits import Bucket
from pricefeedd.rest import HttpRequest, Page, RestCall
from pricefeedd.stats import Stats
from pricefeedd.store.history import Found, History, Wanted
from pricefeedd.venue import Budget

MINUTE_NS = 60_000_000_000
#: A day's begin, UTC.
DAY_NS = 1_767_225_600_000_000_000
NOW_NS = DAY_NS + 2_000 * MINUTE_NS + 5_000_000_000


def minute(n: int, **more: Any) -> Candle:
    fields = {
        "venue": "binance",
        "instrument": "BTC-USDT",
        "received_ns": NOW_NS,
        "start_ns": DAY_NS + n * MINUTE_NS,
        "open": f"{n}.0",
        "high": f"{n + 2}.0",
        "low": f"{n}.0",
        "close": f"{n + 1}.0",
        "volume": "1.50",
        "trades": 2,
        "closed": True,
    }
    return Candle(**{**fields, **more})


@attrs.define
class Kept:
    """A store in memory."""

    rows: list[Candle] = attrs.field(factory=list)
    away: bool = False

    async def candles(
        self, venue: str, instrument: str, interval: str, from_ns: int, to_ns: int
    ) -> Iterable[Candle]:
        if self.away:
            raise StoreAwayError("gone")
        return [c for c in self.rows if c.interval == interval and from_ns <= c.start_ns < to_ns]

    def keep_candles(self, candles: Sequence[Candle]) -> None:
        self.rows += candles


@attrs.define
class Venue:
    """A venue's REST with what is behind it; it stands for the runtime, its venue and its client at once.

    Attributes:
        minutes: Which minutes it has.
        asked: What it was asked, first and last minute.
    """

    minutes: Sequence[int] = range(2_000)
    asked: list[tuple[int, int]] = attrs.field(factory=list)
    error: Exception | None = None
    name: str = "binance"
    buckets: dict[str, Bucket] = attrs.field(
        factory=lambda: {"rest": Bucket(Budget(name="rest", capacity=100, per_s=60))}
    )
    stats: Stats = attrs.field(factory=lambda: Stats(started_ns=0))

    @property
    def venue(self) -> Venue:
        return self

    @property
    def rest(self) -> Venue:
        return self

    @property
    def around(self) -> Venue:
        return self

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle]:
        first, last = ((at - DAY_NS) // MINUTE_NS for at in (start_ns, end_ns))
        self.asked.append((first, last))
        found = [minute(n, venue="plugin") for n in self.minutes if first <= n <= last]
        request = HttpRequest(endpoint="rest", method="GET", path="/", budget="rest")
        return RestCall(request=request, parse=lambda _: Page(items=found))

    async def fetch_all(self, call: Any, *, most: float) -> list[Candle]:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return list(call.parse(None).items)


@attrs.define
class Past:
    """A history with all that it looks at."""

    bus: Bus = attrs.field(factory=Bus)
    store: Kept | None = attrs.field(factory=Kept)
    venue: Venue = attrs.field(factory=Venue)
    history: Any = None

    def __attrs_post_init__(self) -> None:
        directory = Directory()
        instrument = Instrument(
            venue="binance", market="spot", name="BTC-USDT", symbol="BTCUSDT", kind=Kind.SPOT, base="BTC", quote="USDT"
        )  # fmt: skip
        directory.put(InstrumentMap("binance", "spot", [instrument]))
        runtimes: Any = {"binance": self.venue}
        self.history = History(self.bus, directory, runtimes, now_ns=lambda: NOW_NS, store=self.store)

    async def find(
        self, first: int | None, last: int, *, interval: str = "1m", limit: int = 500, more: bool = False
    ) -> Found:
        wanted = Wanted(
            venue="binance",
            instrument="BTC-USDT",
            interval=interval,
            from_ns=None if first is None else DAY_NS + first * MINUTE_NS,
            to_ns=DAY_NS + last * MINUTE_NS,
            limit=limit,
            open=more,
        )
        found: Found = await self.history.find(wanted)
        return found


def numbers(found: Found) -> list[int]:
    return [(candle.start_ns - DAY_NS) // MINUTE_NS for candle in found.candles]


async def test_store_bus_and_venue_are_joined_without_doubles() -> None:
    past = Past()
    assert past.store is not None
    past.store.rows = [minute(n) for n in (10, 11, 15)]
    past.bus.publish([minute(n) for n in (15, 16)])

    found = await past.find(10, 20)

    assert numbers(found) == list(range(10, 20))
    assert found.complete
    assert found.next_ns is None
    assert past.venue.asked == [(12, 14), (17, 19)]
    origins = {n: candle.origin for n, candle in zip(range(10, 20), found.candles, strict=True)}
    assert {n for n, origin in origins.items() if origin is Origin.BACKFILL} == {12, 13, 14, 17, 18, 19}
    assert {candle.venue for candle in found.candles} == {"binance"}
    assert sorted((c.start_ns - DAY_NS) // MINUTE_NS for c in past.store.rows) == [
        10,
        11,
        12,
        13,
        14,
        15,
        17,
        18,
        19,
    ]


@pytest.mark.parametrize("stored", [True, False])
async def test_the_venue_is_asked_once(stored: bool) -> None:
    past = Past(store=Kept() if stored else None, venue=Venue(minutes=[n for n in range(100) if n % 3]))

    first = await past.find(10, 40)
    again = await past.find(10, 40)

    assert past.venue.asked == [(10, 39)]
    assert numbers(again) == numbers(first) == [n for n in range(10, 40) if n % 3]
    assert first.complete
    assert again.complete  # a minute between two others that the venue does not have was without trades


async def test_what_lies_before_the_venues_memory_is_missing() -> None:
    past = Past(venue=Venue(minutes=range(20, 2_000)))

    found = await past.find(10, 30)

    assert numbers(found) == list(range(20, 30))
    assert not found.complete


async def test_without_a_beginning_the_newest_come_and_none_of_the_future() -> None:
    past = Past()

    assert numbers(await past.find(None, 5_000, limit=5)) == list(range(1995, 2000))
    assert numbers(await past.find(None, 100, limit=5)) == list(range(95, 100))
    assert numbers(await past.find(1_998, 5_000)) == [1_998, 1_999]
    assert numbers(await past.find(3_000, 5_000)) == []


async def test_the_running_minute_comes_only_if_asked_for() -> None:
    past = Past()
    running = minute(2_000, closed=False)
    past.bus.publish([running])

    assert numbers(await past.find(1_998, 5_000)) == [1_998, 1_999]
    assert (await past.find(1_998, 5_000, more=True)).candles[-1] == running
    assert numbers(await past.find(1_998, 2_000, more=True)) == [1_998, 1_999]


async def test_pages_follow_each_other() -> None:
    past = Past()
    seen: list[int] = []
    start: int | None = 0
    while start is not None:
        page = await past.find(start, 1_050, limit=100)
        seen += numbers(page)
        start = None if page.next_ns is None else (page.next_ns - DAY_NS) // MINUTE_NS

    assert seen == list(range(1_050))


async def test_a_venue_that_fails_or_has_no_budget_left_costs_only_its_part(
    autojump_clock: trio.testing.MockClock,
) -> None:
    past = Past(venue=Venue(error=ConnectError("gone", venue="binance")))
    assert past.store is not None
    past.store.rows = [minute(n) for n in (10, 12)]

    found = await past.find(10, 15)
    assert (numbers(found), found.complete, found.next_ns) == ([10, 12], False, None)

    past.venue.error = None
    past.venue.buckets["rest"].take(60, trio.current_time())
    assert not (await past.find(10, 15)).complete
    assert len(past.venue.asked) == 2  # the second was only looked at for its budget

    await trio.sleep(61)
    assert (await past.find(10, 15)).complete


async def test_a_store_that_is_away_is_done_without() -> None:
    past = Past(store=Kept(away=True))

    found = await past.find(10, 15)

    assert numbers(found) == list(range(10, 15))
    assert found.complete


async def test_longer_candles_are_those_kept_or_made_of_minutes() -> None:
    past = Past()
    assert past.store is not None
    kept = minute(0, interval="5m", close="from-store")
    past.store.rows = [kept, *(minute(n) for n in range(5, 10))]

    found = await past.find(0, 17, interval="5m")

    assert numbers(found) == [0, 5, 10, 15]
    assert found.candles[0] == kept
    made = found.candles[1]
    assert (made.open, made.high, made.low, made.close) == ("5.0", "11.0", "5.0", "10.0")
    assert (made.volume, made.trades, made.interval, made.closed) == ("7.50", 10, "5m", True)
    assert made.origin is Origin.DERIVED
    assert past.venue.asked == [(10, 19)]


async def test_a_longer_candle_with_a_minute_that_cannot_be_had_is_missing() -> None:
    past = Past(venue=Venue(minutes=range(7, 2_000)))

    found = await past.find(0, 20, interval="5m")

    assert numbers(found) == [10, 15]
    assert not found.complete


async def test_long_ranges_are_asked_for_bit_by_bit() -> None:
    past = Past()
    pages: list[list[int]] = []
    start: int | None = -14_400
    while start is not None:
        page = await past.find(start, 2_000, interval="1h", limit=1_000)
        pages.append(numbers(page))
        start = None if page.next_ns is None else (page.next_ns - DAY_NS) // MINUTE_NS
        assert len(pages) < 30

    assert sum(last - first + 1 for first, last in past.venue.asked) <= len(pages) * 3_000
    assert [n for page in pages for n in page] == list(range(0, 1_980, 60))
