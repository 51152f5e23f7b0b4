"""Checks of connections: how they end, hang, fall silent, and are made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from pricefeedd.events import Candle, State
from pricefeedd.testing.conformance.check import acks, check, lifetime, notice, trades, websocket
from pricefeedd.testing.conformance.compare import check_complete
from pricefeedd.testing.conformance.scene import Cast, NotApplicableError, Scene, is_stream
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.venue import Ack, Feed, Transport


@check(every_market=True)
async def undisturbed(cast: Cast) -> None:
    """Without faults everything comes once, in order, and equals what the venue told; no state changes."""
    async with cast.scene() as s:
        await trio.sleep(200)
        await s.settle()
        check_complete(s)
        for topic in s.topics:
            assert set(s.rig.states(topic)) == {State.CONNECTING, State.LIVE}, (
                f"{topic}: {s.rig.states(topic)}"
            )
        stats = s.stats
        assert (stats.gaps, stats.resyncs, stats.reconnects) == (0, 0, 0), (
            f"{stats.gaps} gaps, {stats.resyncs} resyncs, {stats.reconnects} reconnects; {stats.last_error}"
        )
        if "candle_1m" in s.channels:
            closed = [c for c in s.rig.events(f"candle_1m:{s.names[0]}", Candle) if c.closed]
            assert len(closed) >= 3, f"{len(closed)} minutes closed in 200 s"


async def _disturbed(cast: Cast, disturb: Callable[[Scene], int]) -> None:
    """Let a fault happen while trading goes on, and check that all is well again."""
    async with cast.scene() as s:
        await trio.sleep(5)
        before = s.stats.reconnects
        known = len(s.rig.states(s.first))
        assert disturb(s), "no socket was open"
        await trio.sleep(100)
        await s.until_live()
        await s.settle()
        check_complete(s)
        assert s.stats.reconnects > before, "the connection was not made again"
        assert State.CONNECTING in s.rig.states(s.first)[known:], "readers were not told"


@check(every_market=True)
async def cut(cast: Cast) -> None:
    """A connection that is reset is made again; readers are told, and nothing is missing or twice."""
    await _disturbed(cast, lambda s: s.faults.cut())


@check()
async def half_close(cast: Cast) -> None:
    """A stream that ends without a word is made again."""
    await _disturbed(cast, lambda s: s.faults.half_close())


@check()
async def close_1000(cast: Cast) -> None:
    """A connection that the venue closes in an orderly way is made again."""
    await _disturbed(cast, lambda s: s.faults.close(code=1000, reason="bye"))


@check()
async def garbage_bytes(cast: Cast) -> None:
    """Bytes that break the protocol end the connection, and it is made again."""
    await _disturbed(cast, lambda s: s.faults.garbage())


@check()
async def oversized(cast: Cast) -> None:
    """A message larger than the feed allows ends the connection, and it is made again."""
    size = max(feed.max_message_bytes for feed in cast.feeds) + (1 << 17)
    await _disturbed(cast, lambda s: s.faults.oversized(size))


@check()
async def garbage_message(cast: Cast) -> None:
    """A message that is not the venue's is skipped, counted and kept to be looked at; the connection stays."""
    async with cast.scene() as s:
        s.faults.message("not json at all")
        s.faults.message(b"\x00\x01")
        await trio.sleep(60)
        await s.settle()
        check_complete(s, bad_frames=100)
        stats = s.stats
        assert stats.decode_errors >= 2, f"{stats.decode_errors} of two bad frames were counted"
        assert stats.reconnects == 0, f"the connection was given up: {stats.last_error}"
        assert any(b"not json" in bad.frame for bad in stats.bad_frames), "the bad frame was not kept"


@check()
async def stall(cast: Cast) -> None:
    """A connection that is open and says nothing is noticed, told, and made again."""
    async with cast.scene() as s:
        await trio.sleep(30)
        fault = s.faults.stall()
        await s.until("readers told of the silence", lambda: not s.rig.live(s.first))
        await trio.sleep(120)
        fault.lift()
        await s.until_live()
        await trio.sleep(60)
        await s.settle()
        check_complete(s)


@check(trades)
async def silent_stream(cast: Cast) -> None:
    """One stream that falls silent is told as stale while the others stay live, and is asked for again."""
    async with cast.scene() as s:
        if s.witness.counted:
            raise NotApplicableError("the venue numbers its frames: none can fall silent without a trace")
        name = s.names[0]
        silent, others = f"trade:{name}", [t for t in s.topics if not _fed_by_trades(s, t, name)]
        await trio.sleep(40)
        known = {topic: len(s.rig.states(topic)) for topic in others}
        fault = s.faults.silent_route(match=s.aim("trade", name))
        await s.until_told(State.STALE, silent)
        assert fault.hits, "nothing was published under the stream's name"
        for topic in others:
            assert s.rig.states(topic)[known[topic] :] in ([], [State.LIVE]), f"{topic} was hurt"
        await trio.sleep(60)
        fault.lift()
        await s.until_live()
        await trio.sleep(60)
        await s.settle()
        if cast.rules.candle is None or not cast.rules.candle.built_from:
            check_complete(s)


def _fed_by_trades(s: Scene, topic: str, name: str) -> bool:
    """Return whether a topic comes by the stream of the instrument's trades."""
    channel, _, instrument = topic.partition(":")
    mine = {stream.name for stream in s.streams("trade", name)}
    return bool(mine & {stream.name for stream in s.streams(channel, instrument)})


@check()
async def refused(cast: Cast) -> None:
    """A venue that refuses everything is dialled with growing pauses; readers hear `down`, then it works again."""
    async with cast.scene() as s:
        fault = s.faults.refuse()
        s.faults.cut()
        await s.until("readers told that the venue is down", lambda: s.rig.state(s.first) is State.DOWN)
        assert s.stats.circuit_state == "open", f"the breaker is {s.stats.circuit_state}"
        before, sockets = s.fake.seen.connections, len(s.rig.runtime.connections)
        await trio.sleep(300)
        dialled = s.fake.seen.connections - before
        assert dialled <= 20 * sockets, f"{dialled} dials in 300 s for {sockets} connections"
        fault.lift()
        await s.until_live()
        await trio.sleep(30)
        await s.settle()
        check_complete(s)
        assert s.stats.circuit_state == "closed", f"the breaker is {s.stats.circuit_state}"


@check()
async def hanging_handshake(cast: Cast) -> None:
    """A handshake that is never answered is given up, with the reason, and tried again."""
    async with cast.scene() as s:
        if any(feed.transport is Transport.WEBSOCKET for feed in cast.feeds):
            fault = s.faults.hang_handshake()
        else:
            fault = s.faults.late_reply(is_stream)
        s.faults.cut()
        await trio.sleep(60)
        assert s.rig.state(s.first) in (State.CONNECTING, State.DOWN), f"it is {s.rig.state(s.first)}"
        errors = [c.last_error for c in s.rig.runtime.connections]
        assert any("handshake" in error for error in errors), f"the reason is {errors}"
        fault.lift()
        await s.until_live()
        await trio.sleep(30)
        await s.settle()
        check_complete(s)


@check(websocket, acks)
async def no_acks(cast: Cast) -> None:
    """Answers to subscribe frames that never come do no lasting harm."""
    async with cast.scene() as s:
        fault = s.faults.no_ack()
        s.faults.cut()
        await trio.sleep(120)
        assert fault.hits, "the fake answers past its faults: use `acknowledge`"
        if any(feed.ack is not Ack.REQUEST for feed in cast.feeds):
            # Nothing may be taken for subscribed here without the venue's word.
            fault.lift()
        await s.until_live()
        await trio.sleep(60)
        await s.settle()
        check_complete(s)


@check(websocket, acks)
async def late_acks(cast: Cast) -> None:
    """Answers to subscribe frames that come too late are taken all the same; data before them is not lost."""
    async with cast.scene() as s:
        late_s = 1.5 * max(feed.ack_within_s for feed in cast.feeds)
        with s.faults.late_ack(late_s) as fault:
            s.faults.cut()
            await trio.sleep(2 * late_s + 30)
        assert fault.hits, "the fake answers past its faults: use `acknowledge`"
        await s.until_live()
        await trio.sleep(30)
        await s.settle()
        check_complete(s)


@check(websocket)
async def ping_flood(cast: Cast) -> None:
    """Hundreds of pings at once do no harm, but for what the venue itself thinks of so many pongs."""
    async with cast.scene() as s:
        limited = any(s.fake.messages_per_s(socket) is not None for socket in s.fake.sockets)
        s.faults.ping_flood(500)
        await trio.sleep(30)
        await s.until_live()
        await s.settle()
        check_complete(s)
        assert limited or s.stats.reconnects == 0, f"the connection was lost: {s.stats.last_error}"


@check()
async def fragments(cast: Cast) -> None:
    """Messages in fragments, in bytes cut anywhere, are put together again."""
    async with cast.scene(rate=4) as s:
        with s.faults.fragment(7), s.faults.split(13):
            await trio.sleep(20)
        await s.settle()
        check_complete(s)
        assert s.stats.reconnects == 0, f"the connection was lost: {s.stats.last_error}"


@check()
async def slow_drip(cast: Cast) -> None:
    """Bytes that come slowly come whole."""
    async with cast.scene(rate=2) as s:
        with s.faults.slow_drip(300, every_s=0.005):
            await trio.sleep(20)
        await s.settle()
        check_complete(s)
        assert s.stats.reconnects == 0, f"the connection was lost: {s.stats.last_error}"


@check(lifetime)
async def make_before_break(cast: Cast) -> None:
    """A connection is replaced before its lifetime ends: no state changes, nothing is missing."""

    def shorter(feeds: Sequence[Feed]) -> tuple[Feed, ...]:
        return tuple(attrs.evolve(feed, lifetime_s=240.0 if feed.lifetime_s else None) for feed in feeds)

    async with cast.scene(rate=4, prepare=_dies_young, feeds=shorter) as s:
        await trio.sleep(400)
        await s.settle()
        _replaced(s)


@check(notice)
async def told_to_go(cast: Cast) -> None:
    """A connection that the venue says it will close is replaced before: no state changes, nothing is missing."""
    async with cast.scene() as s:
        s.fake.shut_down(cast.market)
        await trio.sleep(60)
        await s.settle()
        _replaced(s)


def _dies_young(fake: SimulatedVenue) -> None:
    """Let the fake cut connections a while after we should have left."""
    fake.lifetime_s = 300.0


def _replaced(s: Scene) -> None:
    check_complete(s)
    assert s.stats.reconnects >= 1, "no connection was made"
    for topic in s.topics:
        states = s.rig.states(topic)
        assert states.count(State.CONNECTING) == 1, f"{topic}: {states}"
        assert set(states) == {State.CONNECTING, State.LIVE}, f"{topic}: {states}"
        assert not s.rig.gaps(topic), f"{topic}: {s.rig.gaps(topic)[0].reason}"
