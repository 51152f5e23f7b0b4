"""Bugs that others fixed, each as far as OKX can bring it about: none of them is ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.book import BookSync, TooOld
from pricefeedd.codec import Accepted
from pricefeedd.errors import DecodeError
from pricefeedd.events import (
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Origin,
    Quote,
    State,
    Status,
    Ticker,
    Trade,
)
from pricefeedd.rest import HttpReply
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_okx.rules import checksum
from pricefeedd_okx.testing import OkxFake
from pricefeedd_okx.venue import okx

VENUE = okx()
RECEIVED_NS = 1_790_373_640_000_000_000
MINUTE_NS = 60_000_000_000
NAMES = {"BTC-USDT": "BTC-USDT", "ETH-USDT": "ETH-USDT"}


def say(message: Any, feed: str = "spot-public") -> list[Any]:
    frame = orjson.dumps(message)
    return list(VENUE.codec.decode(frame, feed=VENUE.feed(feed), names=NAMES, received_ns=RECEIVED_NS))


def push(channel: str, *rows: Any, symbol: str = "BTC-USDT", **head: Any) -> dict[str, Any]:
    return {"arg": {"channel": channel, "instId": symbol}, **head, "data": list(rows)}


def trade(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "instId": "BTC-USDT",
        "tradeId": str(number),
        "px": "60000.1",
        "sz": "1",
        "side": "buy",
        "ts": "1790373639000",
    }
    return row | {"count": "1", "source": "0", "seqId": number} | changes


def book(action: str, bids: list[list[str]], asks: list[list[str]], **row: Any) -> Any:
    rows = [[[*level, "0", "1"] for level in side] for side in (bids, asks)]
    (event,) = say(
        push("books", {"bids": rows[0], "asks": rows[1], "ts": "1790373639000", **row}, action=action),
        "spot-book",
    )
    return event


def new_sync() -> BookSync:
    rule = VENUE.rules["spot"].book
    assert rule is not None
    return BookSync(rule)


def levels(sync: BookSync) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    return [tuple(level) for level in sync.book.bids.levels()], [
        tuple(level) for level in sync.book.asks.levels()
    ]


@attrs.frozen
class Scene:
    """A fake that trades when told to, and the pipeline that reads it."""

    fake: OkxFake
    rig: Rig

    async def run(self, seconds: float, rate: float = 5.0) -> None:
        """Let the market trade for a while, and be read."""
        with trio.move_on_after(seconds):
            await self.fake.play(rate)
        self.fake.flush()
        await trio.sleep(5)

    def check_book(self, name: str = "BTC-USDT") -> None:
        """Assert that readers have the market's own book."""
        mine = self.rig.book(name)
        assert mine is not None
        for ours, truth in zip(mine, self.fake.market.book(name), strict=True):
            assert [(float(p), float(s)) for p, s in ours] == [(float(p), float(s)) for p, s in truth]

    def check_trades(self, name: str = "BTC-USDT") -> None:
        """Assert that readers have all trades since they began, once and in order."""
        ids = [int(t.id or 0) for t in self.rig.events(f"trade:{name}", Trade)]
        assert ids == list(range(ids[0], self.fake.market.trades(name)[-1].id + 1))


@asynccontextmanager
async def scene(
    *channels: str, prepare: Callable[[OkxFake], object] = lambda fake: None
) -> AsyncIterator[Scene]:
    """Set the scene with two spot instruments."""
    listings = [one for one in OkxFake.default_listings() if one.name in NAMES]
    fake = OkxFake(Market(listings), history_minutes=20)
    prepare(fake)
    wanted = channels or ("trade", "quote", "book", "candle_1m")
    async with rig(VENUE, fake, {"spot": dict.fromkeys(NAMES, wanted)}, endpoints=fake.endpoints()) as made:
        topics = [f"{channel}:BTC-USDT" for channel in wanted]
        await made.until(lambda: made.live(*topics))
        await trio.sleep(2)
        yield Scene(fake, made)


# --- Connection life --------------------------------------------------------------------------------------


async def test_first_frame_never_arrives(autojump_clock: MockClock) -> None:
    async with scene("trade", "quote") as s:
        fault = s.fake.faults.silent_route()
        s.fake.faults.cut()
        await s.rig.until(lambda: s.rig.state("quote:BTC-USDT") is State.STALE, within_s=300)
        fault.lift()
        s.fake.faults.cut()
        await s.run(60)
        assert s.rig.live("quote:BTC-USDT", "trade:BTC-USDT")
        s.check_trades()


async def test_handshake_that_never_ends(autojump_clock: MockClock) -> None:
    async with scene("trade") as s:
        fault = s.fake.faults.hang_handshake()
        s.fake.faults.cut()
        await trio.sleep(40)
        assert "handshake" in s.rig.market("spot").last_error
        fault.lift()
        await s.rig.until(lambda: s.rig.live("trade:BTC-USDT"))
        await s.run(10)
        s.check_trades()


async def test_control_frames_do_not_hide_a_dead_subscription(autojump_clock: MockClock) -> None:
    async with scene("trade", "quote", "book") as s:
        s.fake.faults.ping_flood(300)
        await s.run(20)
        s.check_book()
        s.check_trades()
        assert s.rig.market("spot").reconnects == 0


def test_pongs_are_known_before_they_are_parsed() -> None:
    decode = VENUE.codec.decode
    for feed in VENUE.feeds:
        assert decode(b"pong", feed=feed, names={}, received_ns=1) == ()
    with pytest.raises(DecodeError):
        decode(b"pong ", feed=VENUE.feeds[0], names={}, received_ns=1)


async def test_burst_of_frames_in_one_read(autojump_clock: MockClock) -> None:
    async with scene() as s:
        with s.fake.faults.stall("/ws/v5/public"):
            for _ in range(30):
                s.fake.step()
                await trio.sleep(0.2)
        await trio.sleep(1)
        await s.run(5)
        s.check_book()
        s.check_trades()
        assert s.rig.market("spot").reconnects == 0


# --- Subscriptions ----------------------------------------------------------------------------------------


def test_an_ack_confirms_its_own_stream_only() -> None:
    arg = {"channel": "trades", "instId": "BTC-USDT"}
    (ack,) = say({"id": "3", "event": "subscribe", "arg": arg, "connId": "x"})
    assert ack == Accepted(request_id=3, streams=("trades:BTC-USDT",))
    assert not ack.complete


async def test_one_bad_symbol_does_not_drop_the_rest(autojump_clock: MockClock) -> None:
    async with scene("trade", "book", prepare=lambda fake: fake.unserved.add("ETH-USDT")) as s:
        await s.rig.until(lambda: s.rig.state("trade:ETH-USDT") is State.DOWN)
        (last,) = s.rig.events("book:ETH-USDT", Status)[-1:]
        assert (last.state, "60018" in last.reason) == (State.DOWN, True)
        await s.run(30)
        s.check_trades()
        s.check_book()
        assert s.rig.market("spot").reconnects == 0


async def test_a_late_answer_to_unsubscribing_ends_no_new_subscription(autojump_clock: MockClock) -> None:
    async with scene("book") as s:
        with s.fake.faults.late_ack(3.0):
            s.fake.faults.drop(1, match="books:BTC-USDT")
            await s.run(30)
        await s.run(10)
        assert s.rig.live("book:BTC-USDT", "book:ETH-USDT")
        s.check_book()
        assert s.rig.market("spot").resyncs == 1


# --- Books ------------------------------------------------------------------------------------------------


def test_a_snapshot_older_than_the_buffered_updates_is_fetched_again() -> None:
    sync = new_sync()
    sync.take(book("update", [], [["101", "2"]], seqId=30, prevSeqId=20))
    old = book("snapshot", [["100", "1"]], [["101", "1"]], seqId=15, prevSeqId=-1)
    assert isinstance(sync.snapshot(old, fetched=True), TooOld)
    new = attrs.evolve(old, sequence=25)
    assert isinstance(sync.snapshot(new, fetched=True), list)
    assert (sync.sequence, levels(sync)[1]) == (30, [("101", "2")])


def test_an_empty_book_is_a_book() -> None:
    sync = new_sync()
    assert isinstance(sync.take(book("snapshot", [], [], seqId=1, prevSeqId=-1)), list)
    assert isinstance(sync.take(book("update", [["5", "1"]], [], seqId=2, prevSeqId=1)), list)
    assert levels(sync) == ([("5", "1")], [])


def test_a_level_that_leaves_the_depth_is_told_to_readers() -> None:
    sync = new_sync()
    bids = [[str(1000 - i), "1"] for i in range(400)]
    sync.take(book("snapshot", bids, [], seqId=1, prevSeqId=-1))
    said = sync.take(book("update", [["1001", "1"], ["1000", "0"]], [], seqId=2, prevSeqId=1))
    assert isinstance(said, list)
    assert len(sync.book.bids) == 400
    said = sync.take(book("update", [["1002", "1"]], [], seqId=3, prevSeqId=2))
    assert isinstance(said, list)
    (delta,) = said
    assert isinstance(delta, BookDelta)
    assert [tuple(level) for level in delta.bids] == [("1002", "1"), ("601", "0")]


def test_the_same_update_again_and_a_sign_of_life_change_nothing() -> None:
    sync = new_sync()
    sync.take(book("snapshot", [["5", "1"]], [["6", "1"]], seqId=1, prevSeqId=-1))
    update = book("update", [["5", "2"]], [], seqId=4, prevSeqId=1)
    assert isinstance(sync.take(update), list)
    assert sync.take(update) == []
    assert isinstance(sync.take(book("update", [], [], seqId=4, prevSeqId=4)), list)
    assert levels(sync) == ([("5", "2")], [("6", "1")])


def test_a_snapshot_in_the_middle_replaces_everything() -> None:
    sync = new_sync()
    sync.take(book("snapshot", [["5", "1"]], [["6", "1"]], seqId=100, prevSeqId=-1))
    sync.take(book("snapshot", [["4", "1"]], [["7", "1"]], seqId=3, prevSeqId=-1))
    assert (sync.sequence, levels(sync)) == (3, ([("4", "1")], [("7", "1")]))


def test_a_book_may_cross_in_an_auction() -> None:
    sync = new_sync()
    sync.take(book("snapshot", [["5", "1"]], [["6", "1"]], seqId=1, prevSeqId=-1))
    assert isinstance(sync.take(book("update", [["7", "1"]], [], seqId=2, prevSeqId=1)), list)


def test_trailing_zeros_reach_the_checksum() -> None:
    assert checksum([("3366.10", "7.0")], []) != checksum([("3366.1", "7")], [])
    event = book("snapshot", [["3366.10", "7.0"]], [], seqId=1, prevSeqId=-1)
    assert checksum(event.bids, event.asks) == checksum([("3366.10", "7.0")], [])


async def test_updates_while_a_book_is_asked_for_again_are_not_served(autojump_clock: MockClock) -> None:
    async with scene("book") as s:
        s.fake.faults.drop(1, match="books:BTC-USDT")
        with s.fake.faults.late_ack(10.0):
            await s.run(8)
        kinds = [type(m.event) for m in s.rig.topic("book:BTC-USDT")]
        broken = max(i for i, kind in enumerate(kinds) if kind is Status and i + 1 < len(kinds))
        assert kinds[broken + 1] is not BookDelta or kinds[broken - 1] is BookSnapshot
        await s.run(20)
        s.check_book()
        s.check_book("ETH-USDT")
        assert State.RESYNCING not in s.rig.states("book:ETH-USDT")


# --- Trades and candles -----------------------------------------------------------------------------------


def test_several_trades_in_one_frame() -> None:
    found = say(push("trades", trade(5), trade(6), trade(7, side="sell")))
    assert [t.id for t in found] == ["5", "6", "7"]


def test_a_bad_trade_spoils_its_own_frame_only() -> None:
    with pytest.raises(DecodeError):
        say(push("trades", trade(5), trade(6, px="")))
    assert [t.id for t in say(push("trades", trade(7)))] == ["7"]


async def test_the_stale_first_trade_after_a_reconnect_is_dropped(autojump_clock: MockClock) -> None:
    async with scene("trade") as s:
        await s.run(10)
        seen = len(s.rig.events("trade:BTC-USDT", Trade))
        for _ in range(3):
            s.fake.faults.cut()
            await trio.sleep(60)
        assert len(s.rig.events("trade:BTC-USDT", Trade)) == seen
        assert s.rig.market("spot").duplicates >= 3
        await s.run(10)
        s.check_trades()


async def test_a_hole_at_a_reconnect_is_seen_by_the_first_push(autojump_clock: MockClock) -> None:
    """The last trade comes at once, so that nobody has to wait for the next one to see the hole."""
    async with scene("trade") as s:
        refused = s.fake.faults.refuse()
        s.fake.faults.cut()
        with trio.move_on_after(20):
            await s.fake.play(5)
        refused.lift()
        await trio.sleep(90)
        s.check_trades()
        late = [t for t in s.rig.events("trade:BTC-USDT", Trade) if t.origin is Origin.BACKFILL]
        assert len(late) > 10


def test_trades_at_the_edge_of_a_page_come_once() -> None:
    from_id, to_id = 1000, 1700
    ids: list[str | None] = []
    instrument = _spot()
    call: Any = VENUE.rest.trades(instrument, after_id=str(from_id), before_id=str(to_id), from_ns=0, to_ns=0)
    while call is not None:
        older = int(call.request.params.get("after", to_id + 50))
        rows = [
            trade(number) for number in range(older - 1, older - 1 - int(call.request.params["limit"]), -1)
        ]
        body = orjson.dumps({"code": "0", "msg": "", "data": rows})
        page = call.parse(HttpReply(status=200, body=body, received_ns=RECEIVED_NS))
        ids += [found.id for found in page.items]
        call = page.next
    assert ids == [str(number) for number in range(from_id + 1, to_id)]


def _spot() -> Any:
    from pricefeedd.instruments import Instrument, Kind

    return Instrument(
        venue="okx",
        market="spot",
        name="BTC-USDT",
        symbol="BTC-USDT",
        kind=Kind.SPOT,
        base="BTC",
        quote="USDT",
    )


async def test_a_running_minute_is_never_told_as_closed(autojump_clock: MockClock) -> None:
    async with scene("candle_1m") as s:
        s.fake.faults.cut()
        await s.run(150, rate=2)
        s.fake.faults.cut()
        await s.run(100, rate=2)
        candles = s.rig.events("candle_1m:BTC-USDT", Candle)
        truth = {c.start_ns: c for c in s.fake.market.candles("BTC-USDT")}
        closed = [c for c in candles if c.closed]
        assert [c.start_ns for c in closed] == list(
            range(closed[0].start_ns, closed[-1].start_ns + 1, MINUTE_NS)
        )
        for candle in closed:
            assert (candle.close, candle.volume) == (
                truth[candle.start_ns].close,
                truth[candle.start_ns].volume,
            )
            assert truth[candle.start_ns].closed
        assert len(closed) >= 8


def test_a_minute_at_the_edge_of_a_day_is_like_any_other() -> None:
    midnight_ms = 1_790_380_800_000 - 1_790_380_800_000 % 86_400_000
    rows = [[str(midnight_ms + i * 60_000), "1", "1", "1", "1", "1", "1", "1", "1"] for i in (-1, 0)]
    found = say(push("candle1m", *rows), "spot-business")
    assert [c.start_ns // 1_000_000 - midnight_ms for c in found] == [-60_000, 0]


# --- Time and numbers -------------------------------------------------------------------------------------


def test_the_venues_clock_is_the_venues() -> None:
    (found,) = say(push("trades", trade(5)))
    assert found.venue_time_ns == 1_790_373_639_000_000_000
    assert found.received_ns == RECEIVED_NS
    row = ["1790373600000", "1", "1", "1", "1", "1", "1", "1", "0"]
    (candle,) = say(push("candle1m", row), "spot-business")
    assert candle.venue_time_ns is None, "candles have no time but that of their minute"


def test_exponents_are_written_out() -> None:
    (found,) = say(push("trades", trade(5, px="1.5E-7", sz="2e3")))
    assert (found.price, found.size) == ("0.00000015", "2000")
    event = book("snapshot", [["1e-7", "5"]], [["2E-7", "1E2"]], seqId=1, prevSeqId=-1)
    assert ([*event.bids], [*event.asks]) == ([("0.0000001", "5")], [("0.0000002", "100")])
    row = {"asks": [["3e1", "1", "0", "1"]], "bids": [], "ts": "1790373639000", "seqId": 1}
    (quote,) = say(push("bbo-tbt", row))
    assert isinstance(quote, Quote)
    assert quote.ask_price == "30"


@pytest.mark.parametrize("wrong", ["-1", "NaN", "Infinity", "1,5", "0x10", " 1", "1e", ""])
def test_what_is_no_number_is_refused(wrong: str) -> None:
    with pytest.raises(DecodeError):
        say(push("trades", trade(5, px=wrong)))
    with pytest.raises(DecodeError):
        book("update", [[wrong, "1"]], [], seqId=1, prevSeqId=0)


async def test_a_reader_sees_whole_tickers_only(autojump_clock: MockClock) -> None:
    listings = [one for one in OkxFake.default_listings() if one.name == "BTC-USD-PERP"]
    fake = OkxFake(Market(listings), history_minutes=5)
    subscribe = {"inverse": {"BTC-USD-PERP": ["ticker"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        with trio.move_on_after(20):
            await fake.play(2)
        found: list[Event] = [*made.events("ticker:BTC-USD-PERP", Ticker)]
        assert len(found) > 5
        last = found[-1]
        assert isinstance(last, Ticker)
        assert not last.partial
        told = (last.last, last.mark_price, last.index_price, last.funding_rate, last.open_interest)
        assert None not in told
        assert last.turnover_24h is not None
