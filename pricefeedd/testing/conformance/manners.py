"""Checks of manners: limits, refusals, REST manners, and time."""

from __future__ import annotations

from collections import Counter

import attrs
import trio

from pricefeedd.events import State, Status
from pricefeedd.instruments import Instrument
from pricefeedd.rules import CandleEnd
from pricefeedd.testing.conformance.check import check, proven_book, websocket
from pricefeedd.testing.conformance.compare import check_complete
from pricefeedd.testing.conformance.scene import Cast, NotApplicableError, Scene, is_stream
from pricefeedd.testing.conformance.witness import Haunted
from pricefeedd.testing.sockets import Request
from pricefeedd.venue import Transport

_HOUR_NS = 3600 * 1_000_000_000

#: What the ghost of an instrument is called. No venue lists it.
_GHOST = "ZZGHOST"

#: More instruments than this are not invented to reach a limit.
_CROWD = 400


# --- REST manners -------------------------------------------------------------------------------------------


@attrs.define
class _Asked:
    """REST requests that were answered with a fault: time, path, and path with query and body."""

    rows: list[tuple[float, str, str]] = attrs.field(factory=list)

    def covers(self, request: Request) -> bool:
        """Take part in every REST request, and note it."""
        if is_stream(request):
            return False
        what = f"{request.path} {sorted(request.query.items())} {request.body.decode()}"
        self.rows.append((trio.current_time(), request.path, what))
        return True


async def _away_until_rest_is_needed(s: Scene) -> None:
    """Keep the streams away for so long that minutes, books and trades are missing."""
    with s.faults.refuse(is_stream, status=503):
        s.faults.cut()
        await trio.sleep(150)


async def _stopped(cast: Cast, status: int, retry_after_s: float) -> None:
    async with cast.scene(rate=4) as s:
        asked = _Asked()
        await _away_until_rest_is_needed(s)
        fault = s.faults.rest_status(status, asked.covers, retry_after=retry_after_s)
        with trio.move_on_after(400):
            await s.until("a request by REST", lambda: asked.rows, within_s=500)
        if not asked.rows:
            raise NotApplicableError("nothing is asked by REST")
        await trio.sleep(3)
        stopped = {path for _, path, _ in asked.rows}
        before, began = len(asked.rows), trio.current_time()
        await trio.sleep(retry_after_s - 8)
        again = [(round(at - began), path) for at, path, _ in asked.rows[before:] if path in stopped]
        assert not again, f"{len(again)} requests in the time of Retry-After, the first {again[0]}"
        fault.lift()
        await s.until_live()
        await trio.sleep(2 * retry_after_s + 60)
        await s.settle()
        check_complete(s)


@check()
async def rest_429(cast: Cast) -> None:
    """After HTTP 429 nothing is asked of that budget before Retry-After has passed; then all is made up for."""
    await _stopped(cast, 429, 30)


@check()
async def rest_418(cast: Cast) -> None:
    """A ban by HTTP 418 is kept to the end."""
    await _stopped(cast, 418, 90)


@check()
async def rest_403(cast: Cast) -> None:
    """What HTTP 403 forbids is not asked for again for minutes."""
    async with cast.scene(rate=4) as s:
        asked = _Asked()
        await _away_until_rest_is_needed(s)
        fault = s.faults.rest_status(403, asked.covers)
        with trio.move_on_after(400):
            await s.until("a request by REST", lambda: asked.rows, within_s=500)
        if not asked.rows:
            raise NotApplicableError("nothing is asked by REST")
        await trio.sleep(100)
        times = Counter(what for _, _, what in asked.rows)
        often = [(count, what) for what, count in times.items() if count > 1]
        assert not often, f"asked {often[0][0]} times in 100 s: {often[0][1]}"
        fault.lift()
        await trio.sleep(420)
        await s.until_live()
        await s.settle()
        check_complete(s)


# --- Refusals -----------------------------------------------------------------------------------------------


@check()
async def bad_instrument(cast: Cast) -> None:
    """An instrument that is listed, but that the streams do not know, hurts no other one."""

    def ghost(live: Instrument) -> Instrument:
        return attrs.evolve(
            live,
            name=f"{_GHOST}-{live.quote}",
            base=_GHOST,
            symbol=_mangled(live.symbol, live.base),
            rest_symbol=_mangled(live.rest_symbol, live.base),
        )

    quote = cast.listings()[0].quote
    name = f"{_GHOST}-{quote}"
    async with cast.scene(also={name: cast.channels}, rest=lambda rest: Haunted(rest, ghost)) as s:
        await trio.sleep(120)
        s.faults.cut()
        await trio.sleep(120)
        await s.until_live()
        await s.settle()
        check_complete(s)
        for channel in s.channels:
            topic = f"{channel}:{name}"
            said = s.rig.events(topic, Status)
            assert said, f"{topic}: readers were told nothing"
            data = len(s.rig.topic(topic)) - len(said) - len(s.rig.gaps(topic))
            assert not data, f"{topic}: {data} events came for an instrument that is not there"
            if said[-1].state is State.DOWN:
                assert said[-1].reason, f"{topic} is down without a reason"


def _mangled(symbol: str, base: str) -> str:
    """Return a symbol of the same build that nobody trades."""
    if base and base in symbol:
        return symbol.replace(base, _GHOST, 1)
    if base.lower() in symbol:
        return symbol.replace(base.lower(), _GHOST.lower(), 1)
    if len(symbol) == 64:  # the hexadecimal ids of oracles
        return "f" * 64
    return f"{symbol}zz"


@check()
async def unknown_instrument(cast: Cast) -> None:
    """An instrument that the venue does not list is told as down, with the reason; the others flow."""
    async with cast.scene(also={"NOPE-NOTHING": cast.channels[:1]}) as s:
        said = s.rig.events(f"{cast.channels[0]}:NOPE-NOTHING", Status)
        assert said, "readers were told nothing"
        assert said[-1].state is State.DOWN, f"it is {said[-1].state}"
        assert "unknown instrument" in said[-1].reason, f"the reason is {said[-1].reason!r}"
        await trio.sleep(10)
        await s.settle()
        check_complete(s)


# --- Limits -------------------------------------------------------------------------------------------------


@check(websocket)
async def limits(cast: Cast) -> None:
    """Streams per connection and per frame, and the pause between frames, are kept as declared."""
    channel = cast.channels[0]
    feeds = {feed.name: feed for feed in cast.feeds if feed.transport is Transport.WEBSOCKET}
    least = min(feed.streams_per_connection for feed in feeds.values())
    count = min(least + 3, _CROWD)
    first = cast.listings()[0]
    crowd = [attrs.evolve(first, base=f"A{i:03}X") for i in range(count)]
    session = {"instruments_per_connection": max(1, count)}
    async with cast.scene(
        listings=crowd, channels=[channel], session=session, history=0, rate=0.05, begin=False
    ) as s:
        await s.until("all accepted", lambda: s.rig.live(*s.topics), within_s=900)
        most = max(len(socket.subscriptions) for socket in s.fake.sockets)
        allowed = max(feed.streams_per_connection for feed in feeds.values())
        assert most <= allowed, f"{most} streams on one connection where {allowed} are allowed"
        for feed, streams in s.witness.subscribes:
            assert streams <= feeds[feed].streams_per_request, (
                f"{streams} streams in one frame where {feeds[feed].streams_per_request} are allowed"
            )
        _check_pace(s, min(feed.request_interval_s for feed in feeds.values()))
        before = len(s.witness.subscribes)
        s.faults.cut()
        await trio.sleep(5)
        await s.until_live(within_s=900)
        asked = len(s.witness.subscribes) - before
        assert asked <= before, f"{asked} subscribe frames after a cut where {before} did at first"
        _check_pace(s, min(feed.request_interval_s for feed in feeds.values()))
        assert not s.witness.crashes, s.witness.crashes[0]


def _check_pace(s: Scene, pause_s: float) -> None:
    """Assert that no client sent two requests within the pause."""
    last: dict[int, float] = {}
    for heard in s.heard:
        if heard.message in s.witness.sent:
            apart = heard.at - last.get(heard.socket, float("-inf"))
            assert apart >= pause_s - 1e-6, f"two requests {apart:.3f} s apart where {pause_s} s are declared"
            last[heard.socket] = heard.at


@check(websocket)
async def resubscribe(cast: Cast) -> None:
    """A new connection asks for its streams once, in as few frames as the first did."""
    async with cast.scene() as s:
        before = len(s.witness.subscribes)
        if not before:
            raise NotApplicableError("streams are named in the path")
        await trio.sleep(30)
        assert len(s.witness.subscribes) == before, "streams were asked for twice"
        s.faults.cut()
        await trio.sleep(60)
        await s.until_live()
        asked = len(s.witness.subscribes) - before
        assert asked <= before, f"{asked} subscribe frames after a cut where {before} did at first"
        await s.settle()
        check_complete(s)


# --- Time ---------------------------------------------------------------------------------------------------


@check()
async def ten_minutes_away(cast: Cast) -> None:
    """After ten minutes without a venue each minute is there, and trades are filled in or told as missing."""
    async with cast.scene(rate=4) as s:
        fault = s.faults.refuse()
        s.faults.cut()
        await trio.sleep(600)
        assert s.rig.state(s.first) is State.DOWN, f"it is {s.rig.state(s.first)}"
        fault.lift()
        await s.until_live(within_s=400)
        await trio.sleep(150)
        await s.settle()
        check_complete(s)
        if "trade" in s.channels:
            for name in s.names:
                assert s.rig.gaps(f"trade:{name}"), f"trade:{name}: nothing was said of ten minutes"


async def _clock_jump(cast: Cast, hours: int) -> None:
    async with cast.scene(rate=4) as s:
        await trio.sleep(100)
        s.rig.clock.ahead_ns = hours * _HOUR_NS
        await trio.sleep(300)
        s.rig.clock.ahead_ns = 0
        await trio.sleep(100)
        await s.settle()
        check_complete(s)
        for topic in s.topics:
            assert set(s.rig.states(topic)[1:]) == {State.LIVE}, f"{topic}: {s.rig.states(topic)}"
            # Minutes that our clock alone closes come late when it is behind, and that is told.
            late = cast.rules.candle is not None and cast.rules.candle.end is CandleEnd.REST
            gaps = [gap for gap in s.rig.gaps(topic) if gap.missing or not (late and "candle" in topic)]
            assert not gaps, (
                f"{topic}: {gaps[0].reason}, {gaps[0].recovered} recovered, {gaps[0].missing} missing"
            )
        assert s.stats.reconnects == 0, f"the connection was given up: {s.stats.last_error}"


@check()
async def clock_ahead(cast: Cast) -> None:
    """Our clock jumps an hour ahead and back: nothing is stale for it, nothing is missing, nothing comes twice."""
    await _clock_jump(cast, 1)


@check()
async def clock_behind(cast: Cast) -> None:
    """Our clock jumps an hour back and ahead: nothing is stale for it, nothing is missing, nothing comes twice."""
    await _clock_jump(cast, -1)


@check()
async def day(cast: Cast) -> None:
    """A day of thin traffic, with the end of the connection's lifetime in it: nobody notices, nothing grows."""
    quick = [c for c in cast.channels if c in ("trade", "price")]
    if not proven_book(cast):
        # Books without numbers come whole again and again: a day of them is long, and says nothing more.
        quick.append("book")
    async with cast.scene(count=1, channels=quick, history=2) as s:
        s.crawl(20.0)
        await trio.sleep(3600)
        tasks = trio.lowlevel.current_statistics().tasks_living
        await trio.sleep(23.5 * 3600)
        now = trio.lowlevel.current_statistics().tasks_living
        assert now <= tasks + 5, f"{now} tasks live after a day, {tasks} after an hour"
        s.play(4)  # or the silence in which all is compared would be taken for that of a dead stream
        await trio.sleep(10)
        await s.settle()
        check_complete(s)
        # Where the venue ends connections and sets no lifetime, that is an outage like any other.
        if all(feed.lifetime_s for feed in cast.feeds) or not s.stats.reconnects:
            for topic in s.topics:
                assert set(s.rig.states(topic)[1:]) == {State.LIVE}, f"{topic}: {s.rig.states(topic)[-5:]}"
                assert not s.rig.gaps(topic), f"{topic}: {s.rig.gaps(topic)[0].reason}"
