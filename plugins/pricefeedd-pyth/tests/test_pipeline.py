"""The whole pipeline against the fake, in memory and under a mock clock: what readers get is complete and in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.events import Candle, Price, State
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd.venue import Venue
from pricefeedd_pyth.testing import PythFake
from pricefeedd_pyth.venue import PythSettings, pyth

VENUE = pyth()
MINUTE_NS = 60_000_000_000
ORACLE = {"oracle": {"BTC-USD": ["price"], "EUR-USD": ["price"]}}


@attrs.frozen
class Scene:
    """A fake whose prices move, and a daemon's pipeline that reads it."""

    fake: PythFake
    rig: Rig
    playing: trio.CancelScope

    async def settle(self) -> None:
        """Stop the market, tell all that it changed, and wait until the pipeline has it."""
        self.playing.cancel()
        self.fake.flush()
        await trio.sleep(5)

    def check_complete(self, *instruments: str) -> None:
        """Assert that readers have prices in the order of their slots, none twice, up to the last one."""
        self.rig.check_sequence()
        for name in instruments:
            got = self.rig.events(f"price:{name}", Price)
            slots = [price.slot or 0 for price in got]
            assert slots == sorted(set(slots)), f"{name}: slots out of order"
            told = self.fake.told_prices(name)
            assert got[-1].price == told[-1], f"{name}: the last price is missing"
            assert self.rig.live(f"price:{name}")


@asynccontextmanager
async def scene(
    subscribe: dict[str, dict[str, list[str]]] | None = None,
    *,
    rate: float = 2.5,
    settings: Any = None,
    wait: bool = True,
    fake: PythFake | None = None,
    venue: Venue = VENUE,
    **session: float,
) -> AsyncIterator[Scene]:
    """Set the scene and wait until everything is live and flows."""
    subscribe = subscribe or ORACLE
    names = {name for instruments in subscribe.values() for name in instruments}
    listings = [listing for listing in PythFake.default_listings() if listing.name in names]
    fake = fake or PythFake(Market(listings), history_minutes=20)
    playing = trio.CancelScope()

    async def play() -> None:
        with playing:
            await fake.play(rate)

    async with (
        trio.open_nursery() as nursery,
        rig(venue, fake, subscribe, endpoints=fake.endpoints(), settings=settings, **session) as made,
    ):
        nursery.start_soon(play)
        topics = [
            f"{c}:{i}" for names in subscribe.values() for i, channels in names.items() for c in channels
        ]
        if wait:
            await made.until(lambda: all(len(made.topic(t)) > 3 for t in topics) and made.live(*topics))
        yield Scene(fake, made, playing)
        nursery.cancel_scope.cancel()


async def test_undisturbed(autojump_clock: MockClock) -> None:
    async with scene() as s:
        await trio.sleep(200)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        for name in ("BTC-USD", "EUR-USD"):
            got = s.rig.events(f"price:{name}", Price)
            assert [p.price for p in got] == list(s.fake.told_prices(name))[-len(got) :]
            assert set(s.rig.states(f"price:{name}")) == {State.CONNECTING, State.LIVE}
        stats = s.rig.market("oracle")
        assert (stats.reconnects, stats.decode_errors, stats.duplicates) == (0, 0, 0)


def cut(fake: PythFake) -> None:
    fake.faults.cut()


def half_close(fake: PythFake) -> None:
    fake.faults.half_close()


def end(fake: PythFake) -> None:
    fake.faults.close()


def broken_chunk(fake: PythFake) -> None:
    fake.faults.garbage(b"\xff\xfe nonsense \r\n")


def slow_consumer(fake: PythFake) -> None:
    fake.trouble("Slow consumer: disconnected")


@pytest.mark.parametrize("disturb", [cut, half_close, end, broken_chunk, slow_consumer])
async def test_a_stream_that_ends_is_begun_again(
    disturb: Callable[[PythFake], None], autojump_clock: MockClock
) -> None:
    async with scene() as s:
        disturb(s.fake)
        await trio.sleep(60)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        assert s.rig.market("oracle").reconnects == 1
        assert State.CONNECTING in s.rig.states("price:BTC-USD")[1:]


async def test_stall(autojump_clock: MockClock) -> None:
    """Neither events nor comments come, so the stream is dead after 20 s."""
    async with scene() as s:
        fault = s.fake.faults.stall()
        await s.rig.until(lambda: s.rig.state("price:BTC-USD") is not State.LIVE, within_s=30)
        await trio.sleep(60)
        fault.lift()
        await s.rig.until(lambda: s.rig.live("price:BTC-USD", "price:EUR-USD"))
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")


async def test_comments_keep_a_quiet_stream(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.playing.cancel()
        await trio.sleep(25)
        assert s.rig.market("oracle").reconnects == 0


@pytest.mark.parametrize("kind", ["duplicate", "reorder", "drop"])
async def test_events_twice_out_of_order_or_lost(kind: str, autojump_clock: MockClock) -> None:
    """Slots tell; an older price is never told after a newer one, and a lost one cannot be had again."""
    async with scene() as s:
        with getattr(s.fake.faults, kind)(10):
            await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        stats = s.rig.market("oracle")
        assert (stats.duplicates > 0) == (kind != "drop")
        assert stats.reconnects == 0


async def test_garbage_events_are_skipped_and_kept(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.faults.message('{"parsed":[{"id":7}]}')
        s.fake.faults.message("not json at all")
        s.fake.trouble("Something that nobody has heard of")
        s.fake.trouble("Error receiving update: lagged")
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        stats = s.rig.market("oracle")
        assert (stats.decode_errors, stats.reconnects) == (3, 0)


async def test_split_and_dripping_bytes(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.split(17):
            await trio.sleep(10)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        assert s.rig.market("oracle").reconnects == 0


async def test_a_stream_is_renewed_before_its_lifetime_ends_and_nobody_notices(
    autojump_clock: MockClock,
) -> None:
    aging = attrs.evolve(VENUE, feeds=tuple(attrs.evolve(feed, lifetime_s=60.0) for feed in VENUE.feeds))
    async with scene(venue=aging) as s:
        await trio.sleep(200)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        assert s.rig.market("oracle").reconnects == 3
        for name in ("BTC-USD", "EUR-USD"):
            assert set(s.rig.states(f"price:{name}")[1:]) == {State.LIVE}
            got = s.rig.events(f"price:{name}", Price)
            assert [p.price for p in got] == list(s.fake.told_prices(name))[-len(got) :], "none is missing"


async def test_the_forced_end_after_a_day_is_only_a_reconnect(autojump_clock: MockClock) -> None:
    async with scene() as s:
        s.fake.trouble("Connection timeout reached (24h)")
        s.fake.faults.close()
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        assert s.rig.market("oracle").reconnects == 1
        assert s.rig.market("oracle").decode_errors == 0


async def test_a_feed_that_the_venue_does_not_know_any_more_leaves_the_others_alone(
    autojump_clock: MockClock,
) -> None:
    fake = PythFake(history_minutes=5)
    fake.vanished.add(fake.id_of("EUR-USD"))
    async with scene(fake=fake, wait=False) as s:
        await s.rig.until(lambda: s.rig.live("price:BTC-USD"), within_s=30)
        await s.rig.until(lambda: s.rig.state("price:EUR-USD") is State.DOWN, within_s=60)
        await trio.sleep(30)
        await s.settle()
        s.check_complete("BTC-USD")
        assert not s.rig.events("price:EUR-USD", Price)


async def test_a_feed_outside_of_the_plan_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    fake = PythFake(history_minutes=5, api_key="k")
    fake.not_entitled.add(fake.id_of("EUR-USD"))
    async with scene(fake=fake, wait=False, settings=PythSettings(api_key="k")) as s:
        await s.rig.until(lambda: s.rig.live("price:BTC-USD"), within_s=60)
        told = [m.text for m in s.rig.topic("price:EUR-USD") if b'"down"' in m.text]
        assert b"refused by the venue: Not entitled" in told[0]
        await s.settle()
        s.check_complete("BTC-USD")
        assert s.rig.state("price:EUR-USD") is State.DOWN


@pytest.mark.parametrize(("key", "words"), [("", "wants an API key"), ("wrong", "refuses the API key")])
async def test_without_a_key_it_is_said_what_to_do_and_nothing_is_hammered(
    key: str, words: str, autojump_clock: MockClock
) -> None:
    fake = PythFake(api_key="right")
    async with scene(fake=fake, wait=False, settings=PythSettings(api_key=key)) as s:
        await s.rig.until(lambda: s.rig.state("price:BTC-USD") is State.DOWN, within_s=60)
        text = s.rig.topic("price:BTC-USD")[-1].text.decode()
        assert words in text
        assert "api_key in [venues.pyth]" in text
        s.playing.cancel()
        await trio.sleep(600)
        assert fake.seen.requests["/hermes/v2/updates/price/stream"] == 1


async def test_with_the_right_key_all_is_well(autojump_clock: MockClock) -> None:
    fake = PythFake(api_key="right", history_minutes=5)
    async with scene(fake=fake, settings=PythSettings(api_key="right")) as s:
        await trio.sleep(10)
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")
        assert not any("right" in url for url in fake.seen.requests), "the key stays out of URLs"


async def test_many_reconnects_stay_below_the_limit_of_requests(autojump_clock: MockClock) -> None:
    async with scene() as s:
        for _ in range(20):
            s.fake.faults.cut()
            await trio.sleep(2)
        await s.settle()
        await s.rig.until(lambda: s.rig.live("price:BTC-USD"))
        assert "429" not in s.rig.market("oracle").last_error


async def test_too_many_requests_are_waited_out(autojump_clock: MockClock) -> None:
    async with scene() as s:
        fault = s.fake.faults.refuse("/hermes/v2/updates/price/stream", status=429)
        s.fake.faults.cut()
        await trio.sleep(70)
        assert fault.hits <= 2
        fault.lift()
        await s.rig.until(lambda: s.rig.live("price:BTC-USD", "price:EUR-USD"))
        await s.settle()
        s.check_complete("BTC-USD", "EUR-USD")


# --- Minutes ----------------------------------------------------------------------------------------------

MINUTES = {"oracle": {"BTC-USD": ["price", "candle_1m"]}}


def check_minutes(s: Scene, name: str) -> list[Candle]:
    """Assert that the closed minutes are those of the prices told; return them."""
    closed = [c for c in s.rig.events(f"candle_1m:{name}", Candle) if c.closed]
    starts = [c.start_ns for c in closed]
    assert starts == sorted(set(starts))
    truth = {c.start_ns: c for c in s.fake.told_candles(name)}
    for candle in closed:
        told = truth[candle.start_ns]
        found = [float(x) for x in (candle.open, candle.high, candle.low, candle.close)]
        assert found == [float(x) for x in (told.open, told.high, told.low, told.close)]
    return closed


def told_starts(s: Scene, name: str, starts: list[int]) -> list[int]:
    """Return the starts of the market's own minutes in the same span: one begun a moment ago may have no price."""
    return [c.start_ns for c in s.fake.told_candles(name) if starts[0] <= c.start_ns <= starts[-1]]


async def test_minutes_are_made_of_prices(autojump_clock: MockClock) -> None:
    async with scene(MINUTES, wait=False) as s:
        await trio.sleep(320)
        await s.settle()
        closed = check_minutes(s, "BTC-USD")
        starts = [c.start_ns for c in closed]
        assert starts == told_starts(s, "BTC-USD", starts)
        assert len(closed) >= 8, "some of before the start, and those of since"


async def test_ten_minutes_away(autojump_clock: MockClock) -> None:
    async with scene(MINUTES, wait=False) as s:
        await s.rig.until(lambda: len(s.rig.events("candle_1m:BTC-USD", Candle)) > 5)
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        await trio.sleep(600)
        assert s.rig.state("price:BTC-USD") is State.DOWN
        refused.lift()
        await s.rig.until(lambda: s.rig.live("price:BTC-USD"), within_s=320)
        await trio.sleep(150)
        await s.settle()
        s.check_complete("BTC-USD")
        starts = [c.start_ns for c in check_minutes(s, "BTC-USD")]
        assert starts == told_starts(s, "BTC-USD", starts)


async def test_a_closed_market_makes_no_minutes(autojump_clock: MockClock) -> None:
    """Its last price goes on coming, with the time at which it was published."""
    async with scene(MINUTES, wait=False) as s:
        await trio.sleep(130)
        s.fake.closed["BTC-USD"] = s.fake.now_ns() // 1_000_000_000
        at = s.fake.now_ns()
        await trio.sleep(400)
        await s.settle()
        prices = s.rig.events("price:BTC-USD", Price)
        assert prices[-1].publish_time_ns < at
        assert prices[-1].received_ns > at + 300 * 1_000_000_000
        closed = check_minutes(s, "BTC-USD")
        assert closed[-1].start_ns <= at
        assert not [gap for gap in s.rig.gaps("candle_1m:BTC-USD") if gap.missing]
