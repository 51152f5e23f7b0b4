"""Claims on topics: what is offered, how they are counted, and what changes are told; and pending requests."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from pricefeedd.bus import Bus
from pricefeedd.codec import Accepted, Refused, Stream
from pricefeedd.config import SubscribeConfig, VenueConfig
from pricefeedd.demand import Demands, Hold, not_offered
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.subscriptions import Subscriptions
from pricefeedd.venue import Ack, Feed


def instrument(base: str, *, market: str = "spot", tradable: bool = True) -> Instrument:
    return Instrument(
        venue="v",
        market=market,
        name=f"{base}-USDT",
        symbol=f"{base}USDT",
        kind=Kind.SPOT,
        base=base,
        quote="USDT",
        tradable=tradable,
        status="" if tradable else "BREAK",
    )


def listed(*instruments: Instrument, market: str = "spot") -> InstrumentMap:
    return InstrumentMap("v", market, instruments)


def demands(*entries: SubscribeConfig, linger_s: float = 60.0) -> tuple[Demands, Bus]:
    bus = Bus()
    return Demands(VenueConfig(name="v", plugin="v", subscribe=entries), bus, linger_s=linger_s), bus


def entry(*instruments: str, market: str = "spot", channels: tuple[str, ...] = ("trade",)) -> SubscribeConfig:
    return SubscribeConfig(market=market, instruments=instruments, channels=channels, on_demand=True)


def claim(made: Demands, name: str, channel: str = "trade") -> Hold:
    hold = made.demand(channel, name)
    assert hold is not None
    return hold


# --- What is offered ---------------------------------------------------------------------------------------


def test_without_instruments_all_that_can_be_traded_is_offered() -> None:
    made, _ = demands(entry(), SubscribeConfig(market="spot", instruments=("C-USDT",), channels=("trade",)))
    assert made.know(listed(instrument("A"), instrument("B", tradable=False), instrument("C"))) == []
    offered = [name for name in ("A-USDT", "B-USDT", "C-USDT", "AUSDT", "*") if made.offers("trade", name)]
    assert offered == ["A-USDT", "C-USDT"]
    assert not made.offers("book", "A-USDT")


def test_with_instruments_only_these_are_offered_in_any_spelling() -> None:
    made, _ = demands(entry("AUSDT", "B*", "NONE"))
    (error,) = made.know(listed(instrument("A"), instrument("B"), instrument("BX"), instrument("C")))
    assert "NONE" in str(error)
    names = ("A-USDT", "B-USDT", "BX-USDT", "C-USDT")
    assert [name for name in names if made.offers("trade", name)] == ["A-USDT", "B-USDT", "BX-USDT"]


def test_before_the_instruments_are_known_any_name_may_be_meant() -> None:
    made, bus = demands(entry(), entry(market="linear"))
    made.know(listed(instrument("A")))
    assert made.offers("trade", "ANY-USDT-PERP"), "it may be in the other market"
    for name in ("", "*", "A-?", "two words", "x" * 100, "new\nline"):
        assert made.demand("trade", name) is None
    made.know(listed(market="linear"))
    assert not made.offers("trade", "ANY-USDT-PERP")
    assert len(bus) == 0


def test_nothing_is_offered_of_what_is_configured_plainly() -> None:
    made, _ = demands(SubscribeConfig(market="spot", instruments=("A-USDT",), channels=("trade",)))
    made.know(listed(instrument("A")))
    assert made.demand("trade", "A-USDT") is None
    assert made.markets() == []


def test_the_reason_why_something_is_not_served() -> None:
    maps = [listed(instrument("BTC"), instrument("OLD", tradable=False))]
    assert "did you mean BTC-USDT" in not_offered(maps, "BTC-USD")
    assert "cannot be traded now (BREAK)" in not_offered(maps, "OLD-USDT")
    assert "word for BTC-USDT" in not_offered(maps, "BTCUSDT")
    assert "not offered on demand" in not_offered(maps, "BTC-USDT")
    assert "unknown instrument" in not_offered([], "BTC-USDT")


# --- Counting ----------------------------------------------------------------------------------------------


async def test_the_last_release_begins_the_wait(autojump_clock: MockClock) -> None:
    made, bus = demands(entry())
    first, second = claim(made, "A-USDT"), claim(made, "A-USDT")
    assert bus.get("trade:v:A-USDT") is not None
    assert (await made.changes()).demanded == [("trade", "A-USDT")]
    for _ in range(3):
        first.release()
    assert (made.held, made.leaving) == (1, 0)
    second.release()
    assert (made.held, made.leaving) == (0, 1)
    began = trio.current_time()
    assert (await made.changes()).ended == [("trade", "A-USDT")]
    assert trio.current_time() - began == 60
    assert (made.held, made.leaving, ("trade", "A-USDT") in made) == (0, 0, False)


async def test_a_claim_within_the_wait_ends_it(autojump_clock: MockClock) -> None:
    made, _ = demands(entry())
    claim(made, "A-USDT").release()
    claim(made, "B-USDT").release()
    await trio.sleep(30)
    again = claim(made, "A-USDT")
    assert (await made.changes()).demanded == [("trade", "A-USDT"), ("trade", "B-USDT")]
    assert (await made.changes()).ended == [("trade", "B-USDT")]
    again.release()
    began = trio.current_time()
    assert (await made.changes()).ended == [("trade", "A-USDT")]
    assert trio.current_time() - began == 60


async def test_claims_of_one_moment_come_together(autojump_clock: MockClock) -> None:
    made, _ = demands(entry(), linger_s=0)
    for number in range(1000):
        claim(made, f"A{number}-USDT")
    gone = claim(made, "GONE-USDT")
    changes = await made.changes()
    assert len(changes.demanded) == 1001
    gone.release()
    assert (await made.changes()).ended == [("trade", "GONE-USDT")]


async def test_a_new_runtime_is_told_of_all_that_is_claimed(autojump_clock: MockClock) -> None:
    made, _ = demands(entry())
    claim(made, "A-USDT")
    claim(made, "B-USDT").release()
    await made.changes()
    made.renew()
    assert (await made.changes()).demanded == [("trade", "A-USDT"), ("trade", "B-USDT")]


# --- Streams that come and go on a connection --------------------------------------------------------------


def stream(name: str) -> Stream:
    return Stream(feed="f", name=name)


FEED = Feed(name="f", market="spot", endpoint="ws", streams_per_request=3)


def subscriptions(names: str = "", *, feed: Feed = FEED) -> Subscriptions:
    made = Subscriptions(1, venue="v", feed=feed, streams=[stream(name) for name in names])
    made.begin()
    return made


def ask(made: Subscriptions) -> list[str]:
    """Send all that waits, and return it as `+abc` and `-d`."""
    said = []
    while (change := made.change())[1]:
        what, streams = change
        said.append(("+" if what == "subscribe" else "-") + "".join(s.name for s in streams))
        if what == "subscribe":
            made.asked(made.next_id(), streams, 1, 0.0)
    return said


async def test_ends_go_before_beginnings_and_share_frames() -> None:
    made = subscriptions("abcd")
    assert ask(made) == ["+abc", "+d"]
    made.drop([stream("a"), stream("b")])
    made.add([stream("e")])
    made.drop([stream("c")])
    made.add([stream("a")])
    assert ask(made) == ["-abc", "+ea"]


async def test_what_was_not_asked_for_yet_is_never_asked_for() -> None:
    made = subscriptions("a")
    made.add([stream("b")])
    made.drop([stream("b")])
    made.drop([stream("never")])
    assert ask(made) == ["+a"]
    assert made.owed == {"a"}


async def test_an_answer_that_comes_after_the_end_is_passed_over() -> None:
    made = subscriptions("ab")
    ask(made)
    made.drop([stream("a")])
    made.accepted(Accepted(request_id=1), 1.0)
    assert [note.streams for note in made.notes if hasattr(note, "streams")] == [(stream("b"),)]
    assert made.carries(stream("b"))
    assert not made.carries(stream("a"))


async def test_an_unanswered_request_for_what_ended_is_let_be() -> None:
    made = subscriptions("a")
    ask(made)
    made.drop([stream("a")])
    made.tick(FEED.ack_within_s + 1, flowing=False)
    assert (made.notes, made.unanswered(), ask(made)) == ([], [], ["-a"])


async def test_silence_on_a_new_stream_does_not_mean_that_the_venue_is_out_of_order() -> None:
    made = subscriptions("a")
    ask(made)
    made.accepted(Accepted(request_id=1), 1.0)
    made.add([stream("b")])
    made.drop([stream("a")])
    ask(made)
    now = 0.0
    for _ in range(3):
        now += FEED.ack_within_s + 1
        made.tick(now, flowing=False)
        while True:
            try:
                what, streams, tries = made.to_send.receive_nowait()
            except trio.WouldBlock:
                break
            if what == "subscribe":
                made.asked(made.next_id(), streams, tries, now)
    assert [note.stream.name for note in made.notes if hasattr(note, "stream")] == ["b"]


async def test_a_no_to_a_request_that_is_not_known_hurts_no_other() -> None:
    """Such as the answer to an unsubscribe frame."""
    made = subscriptions("a", feed=Feed(name="f", market="spot", endpoint="ws", ack=Ack.REQUEST))
    ask(made)
    made.refused(Refused(reason="not subscribed", request_id=99), 1.0)
    assert made.owed == {"a"}
    assert made.last_refusal == ""


async def test_what_was_dropped_while_the_path_was_opened_is_ended() -> None:
    made = subscriptions("abc")
    made.drop([stream("b")])
    made.add([stream("d")])
    assert made.in_path([stream(name) for name in "abc"]) == (stream("a"), stream("c"))
    assert ask(made) == ["-b", "+d"]
