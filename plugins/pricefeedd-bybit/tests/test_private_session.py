"""A session of the private stream against the fake: login, topics, heartbeats, and what becomes of a wrong key."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pricefeedd.errors import LoginRejectedError, leaves
from pricefeedd.events import AccountEvent
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.session import Batch, Item, Link, Session
from pricefeedd.stats import MarketStats
from pricefeedd.subscriptions import StreamsAccepted
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.market import Market
from pricefeedd.testing.memory import MemoryDialer
from pricefeedd.venue import Account
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import bybit

VENUE = bybit()
CHANNELS = ("order", "execution", "position", "balance")
NOBODY = Instrument(venue="bybit", market="", name="", symbol="", kind=Kind.SPOT, base="", quote="")
ORDER = {
    "category": "linear", "symbol": "BTCUSDT", "orderId": "1", "side": "Buy", "orderStatus": "New",
    "orderType": "Limit", "price": "99", "qty": "0.1", "cumExecQty": "0", "createdTime": "1790373640000",
    "updatedTime": "1790373640001",
}  # fmt: skip


@asynccontextmanager
async def session(
    secret: str = "the-secret", *, late_s: float = 0.0
) -> AsyncIterator[tuple[BybitFake, list[Item], Session]]:
    """Open a session with an account whose secret the fake knows as `the-secret`.

    Args:
        late_s: How far our clock is behind the venue's.
    """
    now_ns = anchored_clock(1_790_373_640_000_000_000)
    fake = BybitFake(Market(()), now_ns=now_ns)
    fake.accounts["the-key"] = "the-secret"
    said: list[Item] = []

    async def emit(item: Item) -> None:
        said.append(item)

    async with trio.open_nursery() as nursery:
        link = Link(
            venue="bybit",
            codec=VENUE.codec,
            feed=VENUE.feed("private"),
            url="ws://bybit.test",
            names={},
            dialer=MemoryDialer(nursery, {"ws://bybit.test": fake}, now_ns=now_ns),
            stats=MarketStats(venue="bybit", market=""),
            now_ns=lambda: now_ns() - int(late_s * 1e9),
            emit=emit,
            account=Account(name="main", api_key="the-key", api_secret=secret, channels=CHANNELS),
        )
        streams = [stream for channel in CHANNELS for stream in VENUE.codec.streams(channel, NOBODY)]
        made = Session(link, streams, path=link.feed.path)
        nursery.start_soon(made.run)
        yield fake, said, made
        nursery.cancel_scope.cancel()


async def test_after_the_login_the_accounts_events_come(autojump_clock: MockClock) -> None:
    async with session() as (fake, said, _):
        await fake.wait_subscribed("order", "execution", "position", "wallet")
        await trio.sleep(1)
        (accepted,) = said
        assert isinstance(accepted, StreamsAccepted)
        assert [stream.name for stream in accepted.streams] == ["order", "execution", "position", "wallet"]
        assert fake.push("the-key", "order", [ORDER], message_id="m") == 1
        await trio.sleep(1)
        batch = said[-1]
        assert isinstance(batch, Batch)
        (event,) = batch.events
        assert isinstance(event, AccountEvent)
        assert (event.kind, event.instrument, event.fields["status"]) == ("order", "BTCUSDT", "new")
        assert (event.account, len(event.trace_id)) == ("main", 32)


async def test_a_quiet_account_stays_connected(autojump_clock: MockClock) -> None:
    async with session() as (fake, _, _made):
        await fake.wait_subscribed("order")
        await trio.sleep(3600)
        assert len(fake.sockets) == 1
        pings = [text for _, text in fake.seen.messages if '"ping"' in str(text)]
        assert len(pings) == pytest.approx(180, abs=3)


@pytest.mark.parametrize(("secret", "late_s"), [("wrong", 0.0), ("the-secret", 60.0)])
async def test_a_refused_login_is_final_and_says_what_to_look_at(
    autojump_clock: MockClock, secret: str, late_s: float
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with session(secret, late_s=late_s):
            await trio.sleep(60)
    (error,) = leaves(caught.value)
    assert isinstance(error, LoginRejectedError)
    assert not error.retry
    assert "Params Error" in str(error)
    assert "clock" in str(error)
    assert "secret" not in str(error)


async def test_clocks_may_differ_by_seconds(autojump_clock: MockClock) -> None:
    async with session(late_s=8.0) as (fake, _, _made):
        with trio.fail_after(20):
            await fake.wait_subscribed("order")


def test_secrets_are_in_no_text() -> None:
    account: Any = Account(name="main", api_key="the-key", api_secret="the-secret")
    assert "the-secret" not in repr(account)


def locals_of(told: traceback.TracebackException | None) -> Iterator[str]:
    """Yield what stands in the variables of our own frames, as a debugger would show it."""
    if told is None:
        return
    for frame in told.stack:
        if "/pricefeedd/" in frame.filename or "/pricefeedd_bybit/" in frame.filename:
            yield from (frame.locals or {}).values()
    for inner in (told.__cause__, told.__context__, *(told.exceptions or ())):
        yield from locals_of(inner)


async def say_nothing(socket: Any, text: str) -> None:
    await trio.lowlevel.checkpoint()


async def run_into(trouble: str) -> None:
    async with session("wrong-secret") as (fake, _, _made):
        fake.accounts["the-key"] = "wrong-secret" if trouble == "cut" else "the-secret"
        if trouble == "mute":
            fake.on_text = say_nothing  # type: ignore[method-assign]  # this one is no venue any more
        await trio.sleep(5)
        if trouble == "cut":
            fake.faults.cut()
        await trio.sleep(60)


@pytest.mark.parametrize("trouble", ["refused", "cut", "mute"])
async def test_no_trace_of_a_failure_shows_the_credentials(autojump_clock: MockClock, trouble: str) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_into(trouble)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = list(locals_of(told))
    assert any("Link(" in text for text in shown)
    for text in shown:
        assert "wrong-secret" not in text
        assert "the-key" not in text
