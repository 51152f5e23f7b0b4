"""Checks of data: what comes twice, in the wrong order, late, or not at all."""

from __future__ import annotations

from collections import Counter

import trio

from pricefeedd.events import BookDelta, BookSnapshot, Liquidation, Origin, State, Status, Trade
from pricefeedd.rules import TradeIds
from pricefeedd.testing.conformance.check import (
    book,
    check,
    consecutive_ids,
    liquidations,
    proven_book,
    rest_book,
    trades,
)
from pricefeedd.testing.conformance.compare import check_complete, rows
from pricefeedd.testing.conformance.scene import Cast, NotApplicableError, Scene

_COUNTED = "the venue numbers its frames: the connection is made again"


@check()
async def duplicates(cast: Cast) -> None:
    """What the venue sends twice, readers get once."""
    async with cast.scene() as s:
        rule = cast.rules.trade
        nameless = set()
        if rule is not None and rule.ids is TradeIds.NONE and "trade" in s.channels:
            # Trades without ids cannot be known again: two alike may be two.
            nameless = {stream.name for name in s.names for stream in s.streams("trade", name)}
        times = 3 if s.witness.counted else None
        with s.faults.duplicate(times, match=lambda stream, message: stream not in nameless) as fault:
            await trio.sleep(60)
        await s.until_live()
        await trio.sleep(10)
        await s.settle()
        check_complete(s)
        assert fault.hits, "the fake publishes past its faults"
        assert s.stats.resyncs == 0, f"{s.stats.resyncs} books were thrown away"
        if not s.witness.counted:
            assert s.stats.duplicates, "none of the repetitions was counted"
            assert s.stats.reconnects == 0, f"the connection was given up: {s.stats.last_error}"


@check(trades)
async def reordered_trades(cast: Cast) -> None:
    """Trades that overtake each other are put in order where ids tell it; none is lost or asked for."""
    async with cast.scene() as s:
        name = s.names[0]
        with s.faults.reorder(20, match=s.aim("trade", name)) as fault:
            await trio.sleep(60)
        await s.until_live()
        await s.settle()
        assert fault.hits, "nothing was published under the stream's name"
        consecutive = not consecutive_ids(cast)
        if consecutive or s.witness.counted:
            check_complete(s)
            assert all(gap.missing == 0 for gap in s.rig.gaps(f"trade:{name}")) or s.witness.counted, (
                "trades were lost"
            )
        else:
            _all_trades_in_any_order(s, name)
            check_complete(s, *s.names[1:])


def _all_trades_in_any_order(s: Scene, name: str) -> None:
    got = [(t.price, t.size) for t in s.rig.events(f"trade:{name}", Trade)]
    ours = Counter(rows(got))
    told = Counter(rows(s.fake.told_trades(name)[-len(got) :]))
    assert ours == told, f"trade:{name}: lost {told - ours}, too many {ours - told}"


@check(consecutive_ids)
async def dropped_trades(cast: Cast) -> None:
    """Trades that were lost on the way are filled in their place, or told as missing, and nothing else is."""
    async with cast.scene() as s:
        name = s.names[0]
        topic = f"trade:{name}"
        fault = s.faults.drop(7, match=s.aim("trade", name))
        await trio.sleep(60)
        await s.until_live()
        await s.settle()
        assert fault.hits == 7, "nothing was published under the stream's name"
        check_complete(s)
        gaps = s.rig.gaps(topic)
        assert gaps, "no gap was told"
        if s.witness.counted:
            return
        instrument = s.instrument(name)
        call = s.rig.venue.rest.trades(instrument, after_id="1", before_id="9", from_ns=0, to_ns=1)
        if call is not None:
            recovered, missing = sum(g.recovered for g in gaps), [g.missing for g in gaps]
            assert set(missing) == {0}, f"trades that REST has were told as missing: {missing}"
            assert recovered >= 7, f"{recovered} trades were filled in where at least 7 were lost"
            filled = [t for t in s.rig.events(topic, Trade) if t.origin is Origin.BACKFILL]
            assert len(filled) >= 7, f"{len(filled)} trades say that they were filled in"


@check(proven_book)
async def dropped_delta(cast: Cast) -> None:
    """A book that lost a message is never served: readers are told at once, and the next they get is whole."""
    async with cast.scene() as s:
        name = s.names[0]
        topic = f"book:{name}"
        _require_deltas(s, topic)
        aim = s.aim("book", name)
        known = len(s.rig.states(topic))
        for _ in range(10):
            # A checksum shows a loss within its depth: one message may change nothing there.
            fault = s.faults.drop(2, match=aim)
            with trio.move_on_after(10):
                await s.until("book no longer live", lambda: len(s.rig.states(topic)) > known)
                break
            assert fault.hits, "nothing was published under the stream's name"
        told = s.rig.states(topic)[known:]
        assert told, "twenty lost messages were not noticed"
        await s.until_live(topic)
        events = [m.event for m in s.rig.topic(topic)]
        bad = [i for i, e in enumerate(events) if isinstance(e, Status)][known]
        after = [type(event) for event in events[bad:]]
        whole = after.index(BookSnapshot)
        assert BookDelta not in after[:whole], "deltas were served without a book"
        await trio.sleep(30)
        await s.settle()
        check_complete(s)
        if not s.witness.counted:
            assert State.RESYNCING in told, f"the reader was told {told}"
            assert s.stats.reconnects == 0, f"the connection was given up: {s.stats.last_error}"


@check(proven_book)
async def reordered_deltas(cast: Cast) -> None:
    """Book messages that overtake each other cost that book a resync, and the others nothing."""
    async with cast.scene() as s:
        name, other = s.names[0], s.names[-1]
        topic = f"book:{name}"
        _require_deltas(s, topic)
        known, unhurt = len(s.rig.states(topic)), len(s.rig.states(f"book:{other}"))
        with s.faults.reorder(4, match=s.aim("book", name)) as fault:
            await trio.sleep(60)
        await s.until_live()
        await trio.sleep(60)
        await s.settle()
        assert fault.hits, "nothing was published under the stream's name"
        check_complete(s)
        if s.witness.counted:
            assert s.stats.reconnects, "the venue numbers its frames, and nothing was noticed"
            return
        assert State.RESYNCING in s.rig.states(topic)[known:], "readers were not told"
        if other != name:
            assert s.rig.states(f"book:{other}")[unhurt:] == [], f"book:{other} was hurt"
        assert s.stats.reconnects == 0, f"the connection was given up: {s.stats.last_error}"


def _require_deltas(s: Scene, topic: str) -> None:
    if not s.rig.events(topic, BookDelta):
        raise NotApplicableError("each book message is a whole book")


@check(book, rest_book)
async def late_snapshot(cast: Cast) -> None:
    """A snapshot that takes long, or never comes, is joined all the same in the end."""
    async with cast.scene() as s:
        call = s.rig.venue.rest.book(s.instrument(s.names[0]))
        assert call is not None, "books begin with a snapshot by REST, and there is none"
        path = call.request.path
        never = s.faults.late_reply(lambda request: request.path.endswith(path), times=1)
        late = s.faults.late_reply(lambda request: request.path.endswith(path), seconds=10)
        s.faults.cut()
        await trio.sleep(120)
        assert never.hits + late.hits >= 2, "no snapshot was asked for"
        late.lift()
        await s.until_live()
        await trio.sleep(30)
        await s.settle()
        check_complete(s)


@check(liquidations)
async def liquidation(cast: Cast) -> None:
    """A position that is closed by force is told once."""
    async with cast.scene(channels=[*cast.channels, "liquidation"], begin=False) as s:
        topics = [topic for topic in s.topics if not topic.startswith("liquidation:")]
        await s.until("live", lambda: s.rig.live(*s.topics) and all(s.rig.topic(t) for t in topics))
        await trio.sleep(10)
        for name in s.names:
            told = s.fake.market.liquidate(name, s.fake.now_ns())
            s.fake.tell(told)
            await trio.sleep(10)
            found = s.rig.events(f"liquidation:{name}", Liquidation)
            assert len(found) == 1, f"liquidation:{name}: {len(found)} came where one was told"
            ours = (float(found[0].price), found[0].side.value)
            assert ours == (float(told.price), told.side), f"{ours} where {told.price} {told.side} was told"
