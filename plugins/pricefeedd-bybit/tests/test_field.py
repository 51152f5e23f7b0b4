"""Bugs that other clients had with venues like this one, each shown not to be ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.codec import Accepted
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Origin, Quote, State, Status, Trade
from pricefeedd.gate import Gate
from pricefeedd.lines import Context, WantCandles, WantResubscribe
from pricefeedd.rest import HttpReply
from pricefeedd.stats import MarketStats
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import Rig, rig
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import bybit

VENUE = bybit()
NAME = "BTC-USDT-PERP"
NAMES = {"BTCUSDT": NAME, "ETHUSDT": "ETH-USDT-PERP"}
MINUTE_NS = 60_000_000_000
START_NS = 1_790_373_600 * 1_000_000_000
NOW_NS = START_NS + 40_000_000_000
MS = NOW_NS // 1_000_000


def say(frame: Any, feed: str = "linear") -> list[Any]:
    data = frame if isinstance(frame, bytes) else orjson.dumps(frame)
    return list(VENUE.codec.decode(data, feed=VENUE.feed(feed), names=NAMES, received_ns=NOW_NS))


def message(topic: str, data: Any, kind: str = "snapshot", ts: int = MS) -> dict[str, Any]:
    return {"topic": topic, "type": kind, "ts": ts, "data": data}


def book(kind: str, u: int, bids: Any, asks: Any, symbol: str = "BTCUSDT") -> dict[str, Any]:
    return message(f"orderbook.50.{symbol}", {"s": symbol, "b": bids, "a": asks, "u": u, "seq": u}, kind)


def trade(number: int, ms: int = MS, **change: Any) -> dict[str, Any]:
    row = {"T": ms, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "10", "i": f"id-{number}", "BT": False}
    return row | change


def candle(start_ns: int, *, confirm: bool, close: str = "10") -> dict[str, Any]:
    start_ms = start_ns // 1_000_000
    row = {
        "start": start_ms, "end": start_ms + 59_999, "interval": "1", "open": "10", "close": close, "high": "12",
        "low": "9", "volume": "1", "turnover": "10", "confirm": confirm, "timestamp": MS,
    }  # fmt: skip
    return message("kline.1.BTCUSDT", [row])


def gate(*topics: tuple[str, str]) -> Gate:
    stats = MarketStats(venue="bybit", market="linear")
    made = Gate(Context(venue="bybit", rules=VENUE.rules["linear"], stats=stats, wants=[]))
    for channel, name in topics:
        made.expect(channel, name)
    made.accepted(1, topics, NOW_NS, [])
    return made


def through(made: Gate, *frames: Any) -> list[Any]:
    out: list[Any] = []
    for frame in frames:
        made.admit(say(frame), out, 1)
    return out


@asynccontextmanager
async def world(
    *names: str,
    channels: Sequence[str] = ("trade", "quote", "book"),
    market: str = "linear",
    play: float = 5.0,
) -> AsyncIterator[tuple[BybitFake, Rig]]:
    """A fake with these instruments, and a pipeline that reads them and is live."""
    listings = [listing for listing in BybitFake.default_listings() if listing.name in names]
    fake = BybitFake(Market(listings, depth=15), history_minutes=10)
    subscribe: Mapping[str, Mapping[str, Sequence[str]]] = {market: dict.fromkeys(names, channels)}
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made,
    ):
        nursery.start_soon(fake.play, play)
        topics = [f"{channel}:{name}" for name in names for channel in channels]
        await made.until(lambda: made.live(*topics))
        yield fake, made
        nursery.cancel_scope.cancel()


# --- Connection life --------------------------------------------------------------------------------------


async def test_the_first_frame_never_arrives(autojump_clock: MockClock) -> None:
    """Accepted, pinged, ponged, and silent: told as stale, and dialled again."""
    async with world(NAME) as (fake, made):
        fault = fake.faults.silent_route()
        fake.faults.cut()
        await made.until(lambda: made.state(f"quote:{NAME}") is State.STALE)
        fault.lift()
        await made.until(lambda: made.live(f"quote:{NAME}", f"book:{NAME}"))
        assert made.market("linear").reconnects >= 2


async def test_the_server_takes_the_connection_and_never_upgrades_it(autojump_clock: MockClock) -> None:
    async with world(NAME) as (fake, made):
        fault = fake.faults.hang_handshake()
        fake.faults.cut()
        await trio.sleep(30)
        assert made.state(f"trade:{NAME}") is not State.LIVE
        assert "handshake" in made.market("linear").last_error
        fault.lift()
        await made.until(lambda: made.live(f"trade:{NAME}"))


async def test_a_flood_of_pings_and_pongs_hides_no_silence(autojump_clock: MockClock) -> None:
    """Pongs flow and the quotes do not: that stream is told stale by what it owes itself."""
    async with world(NAME) as (fake, made):
        with fake.faults.drop(None, match="orderbook.1."):
            for _ in range(60):
                fake.faults.ping_flood(5)
                await trio.sleep(1)
            assert State.STALE in made.states(f"quote:{NAME}")
            assert made.live(f"trade:{NAME}")


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4000])
async def test_a_polite_close_is_a_lost_connection_too(autojump_clock: MockClock, code: int) -> None:
    async with world(NAME) as (fake, made):
        fake.faults.close(code=code, reason="bye")
        await made.until(lambda: State.CONNECTING in made.states(f"trade:{NAME}")[1:])
        await made.until(lambda: made.live(f"trade:{NAME}"))


def test_pongs_are_told_before_anything_is_taken_for_data() -> None:
    for frame in (
        b'{"success":true,"ret_msg":"pong","conn_id":"c","op":"ping"}',
        b'{"op":"pong","args":["1"],"conn_id":"c"}',
    ):
        assert say(frame) == []


# --- Subscriptions ----------------------------------------------------------------------------------------


def test_an_ack_confirms_its_own_request_alone() -> None:
    assert say({"success": True, "ret_msg": "", "req_id": "7", "op": "subscribe"}) == [Accepted(request_id=7)]


async def test_success_false_is_not_passed_over(autojump_clock: MockClock) -> None:
    listings = [x for x in BybitFake.default_listings() if x.name in (NAME, "ETH-USDT-PERP")]
    fake = BybitFake(Market(listings))
    fake.unserved.add("ETHUSDT")
    subscribe = {"linear": {"ETH-USDT-PERP": ["trade"], NAME: ["trade"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live(f"trade:{NAME}"), within_s=10)
        (*_, status) = made.events("trade:ETH-USDT-PERP", Status)
        assert (status.state, "handler not found" in status.reason) == (State.DOWN, True)


async def test_more_topics_than_one_request_may_name_are_all_subscribed(autojump_clock: MockClock) -> None:
    names = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
    channels = ("trade", "quote", "ticker", "candle_1m", "book")
    async with world(*names, channels=channels, market="spot") as (fake, made):
        assert sum(len(s.subscriptions) for s in fake.sockets) == 15
        frames = [orjson.loads(text) for _, text in fake.seen.messages]
        assert [len(f["args"]) for f in frames if f["op"] == "subscribe"] == [10, 5]
        assert made.market("spot").errors == 0


async def test_a_late_answer_to_unsubscribe_kills_no_new_subscription(autojump_clock: MockClock) -> None:
    async with world(NAME) as (fake, made):
        fake.faults.drop(1, match="orderbook.50.")
        await made.until(lambda: State.RESYNCING in made.states(f"book:{NAME}"))
        await made.until(lambda: made.live(f"book:{NAME}"))
        fake.faults.message('{"success":true,"ret_msg":"","conn_id":"c","req_id":"2","op":"unsubscribe"}')
        count = len(made.topic(f"book:{NAME}"))
        await made.until(lambda: len(made.topic(f"book:{NAME}")) > count + 5)
        assert made.states(f"book:{NAME}")[-1] is State.LIVE


async def test_an_unknown_instrument_is_told_and_hangs_nothing(autojump_clock: MockClock) -> None:
    listings = [x for x in BybitFake.default_listings() if x.name == NAME]
    fake = BybitFake(Market(listings))
    subscribe = {"linear": {"NOPE-USDT-PERP": ["trade"], NAME: ["trade"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live(f"trade:{NAME}"), within_s=10)
        (status,) = made.events("trade:NOPE-USDT-PERP", Status)
        assert (status.state, "unknown instrument" in status.reason) == (State.DOWN, True)


# --- Books ------------------------------------------------------------------------------------------------


def test_an_empty_book_is_a_book() -> None:
    made = gate(("book", NAME))
    through(made, book("snapshot", 5, [], []))
    assert made.book(NAME) is not None
    through(made, book("delta", 6, [["10", "1"]], []))
    now = made.book(NAME)
    assert now is not None
    assert (len(now.bids), len(now.asks)) == (1, 0), "one side may stay empty"


def test_deltas_before_the_snapshot_are_dropped() -> None:
    made = gate(("book", NAME))
    assert [type(e) for e in through(made, book("delta", 4, [["10", "1"]], []))] == []
    (first,) = [
        e for e in through(made, book("snapshot", 5, [["9", "1"]], [])) if isinstance(e, BookSnapshot)
    ]
    assert [level[0] for level in first.bids] == ["9"]


def test_a_gap_makes_the_book_unreadable_before_anything_else() -> None:
    made = gate(("book", NAME))
    out = through(made, book("snapshot", 5, [["9", "1"]], []), book("delta", 7, [["8", "1"]], []))
    assert isinstance(out[-1], Status)
    assert out[-1].state is State.RESYNCING
    assert made.book(NAME) is None
    assert [type(want) for want in made.take_wants()] == [WantResubscribe]
    assert not [e for e in through(made, book("delta", 8, [["8", "1"]], [])) if isinstance(e, BookDelta)]


def test_a_delta_that_comes_again_changes_nothing() -> None:
    made = gate(("book", NAME))
    again = book("delta", 6, [["8", "1"]], [])
    out = through(made, book("snapshot", 5, [["9", "1"]], []), again, again)
    assert sum(isinstance(e, BookDelta) for e in out) == 1


def test_a_crossed_book_is_never_served() -> None:
    made = gate(("book", NAME))
    through(made, book("snapshot", 5, [["9", "1"]], [["10", "1"]]), book("delta", 6, [["11", "1"]], []))
    assert made.book(NAME) is None


def test_removing_a_level_that_is_not_there_is_normal() -> None:
    made = gate(("book", NAME))
    through(made, book("snapshot", 5, [["9", "1"]], [["10", "1"]]), book("delta", 6, [["8", "0"]], []))
    assert made.book(NAME) is not None


def test_more_levels_than_the_depth_are_cut_for_readers_too() -> None:
    made = gate(("book", NAME))
    bids = [[str(100 - i), "1"] for i in range(50)]
    through(made, book("snapshot", 5, bids, []))
    (delta,) = through(made, book("delta", 6, [["101", "1"]], []))
    assert [list(level) for level in delta.bids] == [["101", "1"], ["51", "0"]]


async def test_a_gap_in_one_symbol_leaves_the_others_live(autojump_clock: MockClock) -> None:
    async with world(NAME, "ETH-USDT-PERP") as (fake, made):
        fake.faults.drop(1, match="orderbook.50.BTCUSDT")
        await made.until(lambda: State.RESYNCING in made.states(f"book:{NAME}"))
        await made.until(lambda: made.live(f"book:{NAME}"))
        assert made.states("book:ETH-USDT-PERP") == [State.CONNECTING, State.LIVE]


@pytest.mark.parametrize("kind", ["snapshot", "delta"])
async def test_a_service_that_begins_anew_resets_book_and_quote(autojump_clock: MockClock, kind: str) -> None:
    async with world(NAME) as (fake, made):
        await made.until(lambda: len(made.events(f"quote:{NAME}", Quote)) > 10)
        fake.restart_books(NAME, kind=kind)
        quotes = len(made.events(f"quote:{NAME}", Quote))
        await trio.sleep(20)
        assert made.market("linear").resyncs == 0
        assert made.live(f"book:{NAME}", f"quote:{NAME}")
        assert len(made.events(f"quote:{NAME}", Quote)) > quotes + 10, "they go on, though they count from 1"
        kept = made.book(NAME)
        assert kept is not None
        assert len(kept[0]) == 15


# --- Trades and candles -----------------------------------------------------------------------------------


def test_several_trades_in_one_frame_all_count() -> None:
    made = gate(("trade", NAME))
    frame = message("publicTrade.BTCUSDT", [trade(i) for i in range(5)])
    assert [e.id for e in through(made, frame)] == [f"id-{i}" for i in range(5)]


async def test_a_burst_of_frames_in_one_read_is_complete(autojump_clock: MockClock) -> None:
    async with world(NAME, play=0.001) as (fake, made):
        words, topic = fake._words[NAME], "publicTrade.BTCUSDT"
        before = len(made.events(f"trade:{NAME}", Trade))
        numbers = range(50_000_000, 50_000_013)
        for number in numbers:
            row = trade(number, fake.now_ns() // 1_000_000, i=words.trade_id(number))
            fake.publish(topic, message(topic, [row]), scope="linear")
        await trio.sleep(1)
        got = made.events(f"trade:{NAME}", Trade)[before:]
        assert [t.id for t in got] == [words.trade_id(number) for number in numbers]


def test_the_same_trade_again_is_dropped_and_the_oldest_are_forgotten_first() -> None:
    made = gate(("trade", NAME))
    many = [message("publicTrade.BTCUSDT", [trade(i)]) for i in range(10_005)]
    assert len(through(made, *many)) == 10_005
    assert through(made, many[-1], many[5000]) == [], "those that are remembered"


def test_ids_are_the_venues_and_not_made_up() -> None:
    frame = message("publicTrade.BTCUSDT", [trade(7)])
    assert say(frame)[0].id == say(frame)[0].id == "id-7"


async def test_the_first_trade_after_a_reconnect_is_no_old_one(autojump_clock: MockClock) -> None:
    async with world(NAME) as (fake, made):
        await made.until(lambda: len(made.events(f"trade:{NAME}", Trade)) > 5)
        fake.faults.cut()
        await trio.sleep(20)
        times = [t.venue_time_ns or 0 for t in made.events(f"trade:{NAME}", Trade)]
        ids = [t.id for t in made.events(f"trade:{NAME}", Trade)]
        assert times == sorted(times)
        assert len(set(ids)) == len(ids)


def test_an_open_candle_is_never_told_as_closed() -> None:
    made = gate(("candle_1m", NAME))
    made.take_wants()
    out = through(made, candle(START_NS, confirm=False), candle(START_NS + MINUTE_NS, confirm=False))
    assert [e.closed for e in out if isinstance(e, Candle)] == [False, False]
    out = through(made, candle(START_NS, confirm=True, close="11"))
    assert not any(e.closed and e.close != "11" for e in out if isinstance(e, Candle))


def test_a_closed_minute_that_is_missing_is_asked_for() -> None:
    made = gate(("candle_1m", NAME))
    (first,) = made.take_wants()
    assert isinstance(first, WantCandles)
    (instrument,) = _linear()
    call = VENUE.rest.candles(instrument, first.start_ns, first.end_ns)
    assert call is not None
    rows = [[str(ns // 1_000_000), *"111111"] for ns in range(first.start_ns, first.end_ns + 1, MINUTE_NS)]
    made.candles_fetched(first, call.parse(answer(rows[::-1])).items, NOW_NS, [])
    last_ns = first.end_ns
    through(made, candle(last_ns + MINUTE_NS, confirm=True), candle(last_ns + 3 * MINUTE_NS, confirm=True))
    assert made.take_wants() == [
        WantCandles(instrument=NAME, start_ns=last_ns + 2 * MINUTE_NS, end_ns=last_ns + 2 * MINUTE_NS)
    ]


def answer(rows: Any) -> HttpReply:
    body = {"retCode": 0, "retMsg": "OK", "result": {"list": rows, "nextPageCursor": ""}, "time": MS}
    return HttpReply(status=200, body=orjson.dumps(body), received_ns=NOW_NS)


@pytest.mark.parametrize("minutes", [1000, 1001])
def test_rows_at_the_edge_of_a_page_come_once(minutes: int) -> None:
    (instrument,) = _linear()
    call = VENUE.rest.candles(instrument, START_NS - minutes * MINUTE_NS, START_NS - MINUTE_NS)
    starts: list[int] = []
    while call is not None:
        first, last = int(call.request.params["start"]), int(call.request.params["end"])
        rows = [[str(ms), "1", "1", "1", "1", "1", "1"] for ms in range(first, last + 1, 60_000)][::-1]
        page = call.parse(answer(rows))
        starts += [c.start_ns for c in page.items]
        call = page.next
    assert starts == [START_NS - i * MINUTE_NS for i in range(minutes, 0, -1)]


def _linear() -> Sequence[Any]:
    row = {
        "symbol": "BTCUSDT", "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC",
        "quoteCoin": "USDT", "deliveryTime": "0",
    }  # fmt: skip
    return VENUE.rest.instruments("linear").parse(answer([row])).items


# --- Time and numbers -------------------------------------------------------------------------------------


def test_the_venues_time_is_the_venues() -> None:
    (found,) = say(message("publicTrade.BTCUSDT", [trade(1, MS - 777)]))
    assert (found.venue_time_ns, found.received_ns) == ((MS - 777) * 1_000_000, NOW_NS)
    (quote,) = say(message("orderbook.1.BTCUSDT", {"s": "BTCUSDT", "b": [], "a": [], "u": 2, "seq": 3}))
    assert quote.venue_time_ns == MS * 1_000_000


@pytest.mark.parametrize("text", ["1E-7", "1e-07", "1.0E-7"])
def test_exponents_are_written_out(text: str) -> None:
    (found,) = say(message("publicTrade.BTCUSDT", [trade(1, p=text, v=text)]))
    assert (float(found.price), "E" in found.price.upper()) == (1e-7, False)
    (delta,) = say(book("delta", 5, [[text, "1"]], [["2", text]]))
    assert float(delta.bids[0][0]) == float(delta.asks[0][1]) == 1e-7
    assert "E" not in (delta.bids[0][0] + delta.asks[0][1]).upper()
    (ticker,) = say(
        message("tickers.BTCUSDT", {"symbol": "BTCUSDT", "fundingRate": f"-{text}", "lastPrice": text})
    )
    assert (float(ticker.funding_rate), float(ticker.last)) == (-1e-7, 1e-7)
    assert "E" not in (ticker.funding_rate + ticker.last).upper()


def test_trailing_zeros_and_long_numbers_survive() -> None:
    (found,) = say(
        message("publicTrade.BTCUSDT", [trade(1, p="0.10000000", v="123456789012345.678901234567890")])
    )
    assert (found.price, found.size) == ("0.10000000", "123456789012345.678901234567890")


@pytest.mark.parametrize("time", [str(MS), MS / 1000, -1.5, None, 10**30])
def test_other_units_and_types_of_time_are_refused(time: object) -> None:
    frame = orjson.dumps(message("publicTrade.BTCUSDT", [trade(1)])).replace(
        f'"T":{MS}'.encode(), b'"T":' + (str(time).encode() if time == 10**30 else orjson.dumps(time))
    )
    with pytest.raises(DecodeError):
        say(frame)


# --- Resources --------------------------------------------------------------------------------------------


async def test_an_hour_with_reconnects_leaves_no_task_behind(autojump_clock: MockClock) -> None:
    async with world(NAME, play=0.2) as (fake, made):
        await trio.sleep(60)
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(6):
            fake.faults.cut()
            await trio.sleep(600)
            await made.until(lambda: made.live(f"trade:{NAME}"))
        assert trio.lowlevel.current_statistics().tasks_living <= before + 2
        assert {t.origin for t in made.events(f"trade:{NAME}", Trade)} <= {Origin.LIVE, Origin.BACKFILL}
