"""Accounts in the running pipeline, against a Bybit that knows what they own and did.

Time is Trio's mock clock and connections are in memory, so an absence of minutes takes none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pricefeedd.config import SubscribeConfig, VenueConfig
from pricefeedd.events import Origin, State
from pricefeedd.testing import Request, Response
from pricefeedd.testing.desk import Desk, desk
from pricefeedd.testing.rig import SkewedClock
from pricefeedd_bybit.account_rest import BybitAccountRest
from pricefeedd_bybit.fake_trader import Trader
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import bybit

KEY, SECRET = "key-XXXX-of-main", "secret-YYYY-of-main"
CHANNELS = ("order", "execution", "position", "balance")
MAIN: dict[str, Any] = {"api_key": KEY, "api_secret": SECRET, "channels": CHANNELS}
PRIVATE = "/v5/private"
REST = ("/v5/order", "/v5/execution", "/v5/position", "/v5/account")


@pytest.fixture
def fake() -> BybitFake:
    return BybitFake()


@pytest.fixture
def trader(fake: BybitFake) -> Trader:
    return fake.trader(KEY, SECRET)


def signed(request: Request) -> bool:
    return request.path.startswith(REST)


async def true(condition: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until something is true of a daemon that tells nobody when it becomes so."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110  # nobody sets an event; the clock is mocked
            await trio.sleep(0.05)


async def up(on: Desk, *accounts: str) -> None:
    """Wait until accounts are live, and all of their past known."""
    for account in accounts or ("main",):
        await true(lambda account=account: on.whole(account))  # type: ignore[misc]  # bound at once


def ids(on: Desk, channel: str = "execution", account: str = "main") -> list[Any]:
    field = {"execution": "execution_id", "order": "order_id"}[channel]
    return [event.fields[field] for event in on.events(channel, account)]


# --- What is there, and what happens ----------------------------------------------------------------------


async def test_what_is_there_comes_first_and_then_what_happens(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    trader.order("open")
    trader.order("done", "Filled")
    trader.position("1")
    trader.wallet(BTC="1", USDT="500", OLD="0")
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        (order,) = on.events("order")
        assert (order.fields["order_id"], order.origin, order.instrument) == (
            "open",
            Origin.BACKFILL,
            "BTC-USDT-PERP",
        )
        assert [(e.instrument, e.fields["size"]) for e in on.events("position")] == [("BTC-USDT-PERP", "1")]
        assert [e.instrument for e in on.events("balance")] == ["BTC", "USDT", "UNIFIED"]
        assert on.events("execution") == []
        assert on.gaps("execution") == [], "nobody was away"
        assert [state for state, _ in on.said("order")] == [State.CONNECTING, State.LIVE]

        trader.fill("open")
        await on.until(lambda: on.events("execution"))
        (fill,) = on.events("execution")
        assert (fill.venue, fill.account, fill.origin) == ("bybit", "main", Origin.LIVE)
        assert len(fill.trace_id) == 32
        assert fill.trace_id != order.trace_id


async def test_names_are_of_the_rows_market_once_its_list_is_there(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        lists = "/v5/market/instruments-info"
        assert fake.seen.requests[lists] == 0, "nothing is traded: no list is needed"
        for number in range(2):
            trader.order(f"spot-{number}", category="spot")
            trader.order(f"linear-{number}")
            trader.order(f"option-{number}", category="option", symbol="BTC-29JAN27-60000-C")
            trader.order(f"new-{number}", category="spot", symbol="NEWUSDT")
            await trio.sleep(5)
        found = {e.fields["order_id"]: e.instrument for e in on.events("order")}
        assert found == {
            "spot-0": "BTCUSDT",  # it does not wait
            "linear-0": "BTCUSDT",
            "spot-1": "BTC-USDT",
            "linear-1": "BTC-USDT-PERP",
            "option-0": "BTC-29JAN27-60000-C",
            "option-1": "BTC-29JAN27-60000-C",
            "new-0": "NEWUSDT",
            "new-1": "NEWUSDT",
        }
        assert fake.seen.requests[lists] <= 4, "one of spot, three of linear"


async def test_one_message_has_one_trace(autojump_clock: MockClock, fake: BybitFake, trader: Trader) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        trader.wallet(BTC="1", ETH="2")
        trader.wallet(BTC="3")
        await on.until(lambda: len(on.events("balance")) >= 5)
        told = [e for e in on.events("balance") if e.origin is Origin.LIVE]
        assert [e.instrument for e in told] == ["BTC", "ETH", "UNIFIED", "BTC", "UNIFIED"]
        assert len({e.trace_id for e in told[:3]}) == len({e.trace_id for e in told[3:]}) == 1
        assert told[0].trace_id != told[3].trace_id
        newest = on.runtime().newest("balance")
        assert {e.instrument: e.fields.get("wallet_balance") for e in newest} == {
            "BTC": "3",
            "ETH": "2",
            "UNIFIED": None,
        }


async def test_orders_never_go_back(autojump_clock: MockClock, fake: BybitFake, trader: Trader) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        new = trader.order_row("a")
        await trio.sleep(1)
        part = trader.order_row("a", "PartiallyFilled", cumExecQty="0.5")
        await trio.sleep(1)
        filled = trader.order_row("a", "Filled", cumExecQty="1")
        raced = filled | {"cancelType": "CancelByUser", "rejectReason": "EC_OrigClOrdIDDoesNotExist"}
        for row in (
            part,
            new,
            part,
            filled,
            part,
            new,
            raced | {"updatedTime": str(int(raced["updatedTime"]) + 5)},
        ):
            fake.happen(KEY, "order", row)
        trader.order("b", "Filled", cumExecQty="1")
        trader.order("b", "New")
        trader.order("c", "Triggered")
        trader.order("c", "New", updatedTime=str(int(new["updatedTime"]) + 9_000))
        await trio.sleep(5)
        told = [(e.fields["order_id"], e.fields["status"]) for e in on.events("order")]
        assert told == [
            ("a", "partially_filled"),
            ("a", "filled"),
            ("b", "filled"),
            ("c", "triggered"),
            ("c", "new"),
        ]


async def test_positions_are_told_when_they_change(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        row = trader.position("1")
        for _ in range(5):
            fake.happen(KEY, "position", row)
        trader.position("2")
        await trio.sleep(5)
        assert [e.fields["size"] for e in on.events("position")] == ["1", "2"]


# --- Away, and back ---------------------------------------------------------------------------------------


async def test_it_logs_in_again_after_each_cut(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        for number in range(8):
            await trio.sleep(600)  # and nothing happens on the account
            fake.faults.cut(PRIVATE)
            await true(lambda: not on.whole())
            began = trio.current_time()
            await up(on)
            assert trio.current_time() - began < 5, "it is not put off: the venue works"
            assert fake.logins[KEY] == number + 2
        logins = [
            json.loads(text) for path, text in fake.seen.messages if path == PRIVATE and '"auth"' in str(text)
        ]
        assert len({login["args"][1] for login in logins}) == 9, "each has a time of its own"
        assert len({login["args"][2] for login in logins}) == 9
        assert fake.account_subscribes[KEY] == 9
        assert on.stats.account("bybit", "main").reconnects == 8
        assert on.stats.account("bybit", "main").circuit_state == "closed"
        assert on.gaps("execution") == [], "nothing was missed"


async def test_what_happened_while_away_comes_once(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        for number in range(5):
            trader.order(f"early-{number}")
            trader.fill(f"early-{number}")
        trader.position("5")
        trader.wallet(BTC="5", ETH="7")
        await true(lambda: len(ids(on)) == 5)
        refusal = fake.faults.refuse(lambda request: True)
        fake.faults.cut()
        await trio.sleep(5)
        assert on.state() in (State.CONNECTING, State.DOWN)
        for _ in range(250):
            trader.fill("early-0", size="0.001")
            await trio.sleep(2)
        trader.order("early-0", "Filled", cumExecQty="1")
        trader.order("early-1", "Cancelled")
        trader.order("late", "New")
        trader.order("short", "Filled", cumExecQty="1", category="spot")
        trader.position("0")
        trader.wallet(BTC="4", ETH="0")
        before = len(on.messages)
        refusal.lift()
        await true(on.whole, 400)
        assert ids(on) == [f"fill-{n}" for n in range(1, 6)] + [f"fill-{n}" for n in range(7, 257)], (
            "each once, in order"
        )
        since = on.messages[before:]
        assert all(m.event.origin is not Origin.LIVE for m in since)
        (gap,) = on.gaps("execution")
        assert (gap.recovered, gap.missing) == (250, 0)
        told = {(e.fields["order_id"], e.fields["status"]) for e in on.events("order")[5:]}
        assert told == {("early-0", "filled"), ("early-1", "canceled"), ("late", "new"), ("short", "filled")}
        assert on.events("position")[-1].fields["size"] == "0", "it was closed while nobody looked"
        newest = {e.instrument: e.fields.get("wallet_balance") for e in on.runtime().newest("balance")}
        assert newest == {"BTC": "4", "ETH": "0", "UNIFIED": None}
        trader.fill()
        await true(lambda: len(ids(on)) == 256)


async def test_an_old_order_that_ended_while_away_is_told(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    made = trader.order("old", createdTime="1700000000000", updatedTime="1700000000000")
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        with fake.faults.refuse(PRIVATE):
            fake.faults.cut(PRIVATE)
            await trio.sleep(100)
            trader.order("old", "Cancelled", createdTime=made["createdTime"])
        await true(on.whole, 400)
        assert [e.fields["status"] for e in on.events("order")] == ["new", "canceled"]


async def test_what_rest_tells_late_is_found(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        fake.faults.cut(PRIVATE)
        trader.fill()
        hidden = fake.ledgers[KEY].executions.pop()
        await true(lambda: fake.logins[KEY] == 2)
        await up(on)
        assert ids(on) == []
        fake.ledgers[KEY].executions.append(hidden)
        await on.until(lambda: ids(on) == ["fill-1"], within_s=15)
        await trio.sleep(600)
        assert len(ids(on)) == 1


async def test_a_restart_fetches_what_was_missed(
    autojump_clock: MockClock, tmp_path: Path, fake: BybitFake, trader: Trader
) -> None:
    clock = SkewedClock(fake.now_ns)
    async with desk(bybit(), fake, {"main": MAIN}, state_dir=tmp_path, clock=clock) as on:
        await up(on)
        trader.order("open")
        trader.position("1")
        trader.wallet(BTC="1")
        trader.fill()
        await true(lambda: ids(on) == ["fill-2"])
        await trio.sleep(3600)
    told = json.loads((tmp_path / "accounts" / "bybit-main.json").read_bytes())
    assert told["held"]["order"] == [["linear", "BTCUSDT", "open"]]
    assert told["until_us"]["execution"] == pytest.approx(fake.now_ns() // 1000, abs=25_000_000)
    await trio.sleep(20 * 86_400)
    trader.fill()
    trader.order("open", "Cancelled", createdTime="1700000000000")
    trader.position("0")
    trader.wallet(BTC="0")
    await trio.sleep(3600)
    async with desk(bybit(), fake, {"main": MAIN}, state_dir=tmp_path, clock=clock) as on:
        await up(on)
        assert ids(on) == ["fill-3"]
        assert [e.fields["status"] for e in on.events("order")] == ["canceled"]
        assert [e.fields["size"] for e in on.events("position")] == ["0"]
        assert {e.instrument: e.fields.get("wallet_balance") for e in on.events("balance")} == {
            "BTC": "0",
            "UNIFIED": None,
        }
        (gap,) = on.gaps("execution")
        assert (gap.recovered, gap.missing) == (1, 0)


async def test_a_file_that_cannot_be_read_is_none(
    autojump_clock: MockClock, tmp_path: Path, fake: BybitFake, trader: Trader
) -> None:
    path = tmp_path / "accounts" / "bybit-main.json"
    path.parent.mkdir()
    path.write_bytes(b'{"until_us": 7')
    trader.fill()
    async with desk(bybit(), fake, {"main": MAIN}, state_dir=tmp_path) as on:
        await up(on)
        assert ids(on) == []
        await trio.sleep(60)
    assert "execution" in json.loads(path.read_bytes())["until_us"]


async def test_rest_away_at_the_start_holds_nothing_up(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    trader.order("before")
    with fake.faults.refuse(signed):
        async with desk(bybit(), fake, {"main": MAIN}) as on:
            await true(lambda: on.state() is State.LIVE)
            trader.order("now")
            await on.until(lambda: ids(on, "order") == ["now"])
            await trio.sleep(120)
            state, reason = on.said("order")[-1]
            assert state is State.LIVE
            assert reason.startswith("not all is known yet: ")
            assert not on.whole()
            fake.faults.clear()
            await true(on.whole, 400)
            assert sorted(ids(on, "order")) == ["before", "now"]
            assert on.said("order")[-1] == (State.LIVE, "")


async def test_the_venues_limits_are_obeyed(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    trader.order("open")
    fake.ledgers[KEY].denial = (10006, "Too many visits!")
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await true(lambda: on.state() is State.LIVE)
        await trio.sleep(60)
        asked = sum(fake.seen.requests[path] for path in ("/v5/order/realtime", "/v5/position/list"))
        assert asked <= 2 * 60 / 5, "the venue says 5 s"
        fake.ledgers[KEY].denial = None
        await up(on)
        assert ids(on, "order") == ["open"]


async def test_what_cannot_be_fetched_is_told(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    fake.ledgers[KEY].denial = (10005, "Permission denied, please check your API key permissions.")
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await true(lambda: any("permission" in reason for _, reason in on.said("order")))
        asked = fake.seen.requests["/v5/order/realtime"]
        await trio.sleep(3000)
        assert fake.seen.requests["/v5/order/realtime"] == asked, "asking again does not help"
        trader.order("now")
        await on.until(lambda: ids(on, "order") == ["now"])
        assert on.state() is State.LIVE
        fake.ledgers[KEY].denial = None
        await true(on.whole, 4000)


# --- Refused ----------------------------------------------------------------------------------------------


def beside() -> VenueConfig:
    """Return public data to be served beside the account."""
    subscribe = SubscribeConfig(market="spot", instruments=("BTC-USDT",), channels=("trade",))
    return VenueConfig(name="bybit", plugin="bybit", subscribe=(subscribe,))


async def trade_each(fake: BybitFake, seconds: float) -> None:
    """Let there be a trade every so often."""
    while True:
        fake.step(names=("BTC-USDT",))
        await trio.sleep(seconds)


async def test_a_refused_login_is_down_and_does_not_hammer(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    async with (
        desk(bybit(), fake, {"main": MAIN | {"api_secret": "a wrong one"}}, public=beside()) as on,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(trade_each, fake, 10.0)
        await true(lambda: on.state() is State.DOWN)
        _, reason = on.said("order")[-1]
        for word in ("Params Error", "key", "environment", "clock"):
            assert word in reason
        trades = on.bus.topic("trade", "bybit", "BTC-USDT")
        seen = trades.count
        await trio.sleep(3500)
        assert fake.login_attempts[KEY] == 1
        assert trades.count > seen + 100
        assert trades.state is State.LIVE
        assert on.stats.market("bybit", "spot").reconnects == 0
        await trio.sleep(200)
        assert fake.login_attempts[KEY] == 2, "an hour later it is tried once more"
        nursery.cancel_scope.cancel()


async def test_public_data_that_is_away_does_not_disturb_the_account(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    with fake.faults.refuse("/v5/public"), fake.faults.refuse("/v5/market/instruments-info"):
        async with desk(bybit(), fake, {"main": MAIN}, public=beside()) as on:
            await up(on)
            await trio.sleep(600)
            trader.fill()
            await true(lambda: ids(on) == ["fill-1"])
            assert fake.logins[KEY] == 1


@pytest.mark.parametrize("ahead_s", [-60, -8, 90])
async def test_a_clock_that_differs_is_corrected_for_the_account(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader, ahead_s: int
) -> None:
    clock = SkewedClock(fake.now_ns)
    clock.ahead_ns = ahead_s * 1_000_000_000
    trader.order("open")
    async with desk(bybit(), fake, {"main": MAIN}, clock=clock) as on:
        await up(on)
        assert ids(on, "order") == ["open"]
        assert on.runtime().describe()["clock_ahead_s"] == pytest.approx(-ahead_s, abs=1)
        assert fake.login_attempts[KEY] == (2 if ahead_s == -60 else 1)
        with fake.faults.refuse(PRIVATE):
            fake.faults.cut(PRIVATE)
            trader.fill()
            await trio.sleep(300)
        await true(on.whole, 400)
        assert ids(on) == ["fill-1"]
        assert fake.login_attempts[KEY] == fake.logins[KEY] + (1 if ahead_s == -60 else 0)


async def test_a_clock_that_jumps_is_found_by_the_refusal(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    clock = SkewedClock(fake.now_ns)
    async with desk(bybit(), fake, {"main": MAIN}, clock=clock) as on:
        await up(on)
        clock.ahead_ns = -8_000_000_000
        with fake.faults.refuse(PRIVATE):
            fake.faults.cut(PRIVATE)
            trader.fill()
            await trio.sleep(3)
        await true(on.whole)
        assert ids(on) == ["fill-1"]
        assert on.runtime().describe()["clock_ahead_s"] == pytest.approx(8, abs=1)


async def test_a_topic_that_is_refused_does_not_hurt_the_others(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = BybitFake._exists
    monkeypatch.setattr(BybitFake, "_exists", lambda self, m, t: t != "wallet" and exists(self, m, t))
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await true(lambda: on.state("balance") is State.DOWN and on.state("order") is State.LIVE)
        assert "refused by the venue" in on.said("balance")[-1][1]
        trader.order("now")
        await on.until(lambda: "now" in ids(on, "order"))
        fake.faults.cut(PRIVATE)
        await true(lambda: fake.logins[KEY] == 2 and on.state("order") is State.LIVE)
        assert on.state("balance") is State.DOWN, "it is not on its way"


async def test_a_mistake_of_the_plugin_hurts_only_the_account(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader.order("open")
    state, crashes = BybitAccountRest.state, [f"a mistake about {KEY}"]

    def wrong(self: BybitAccountRest, channel: str) -> Any:
        if channel == "order" and crashes:
            raise ZeroDivisionError(crashes.pop())
        return state(self, channel)

    monkeypatch.setattr(BybitAccountRest, "state", wrong)
    async with (
        desk(bybit(), fake, {"main": MAIN}, public=beside()) as on,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(fake.play, 1.0)
        await true(lambda: on.state() is State.DOWN)
        assert on.said("order")[-1][1].startswith("the venue's plugin crashed: ZeroDivisionError")
        assert KEY not in on.said("order")[-1][1]
        await up(on)
        assert ids(on, "order") == ["open"]
        assert on.bus.topic("trade", "bybit", "BTC-USDT").state is State.LIVE
        assert on.stats.market("bybit", "spot").reconnects == 0
        nursery.cancel_scope.cancel()


# --- Bad frames, several accounts, other environments ------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "garbage",
        "[]",
        '{"topic":"order","id":"x","creationTime":1,"data":[{}]}',
        '{"topic":"wallet","id":"x","creationTime":1,"data":[{"accountType":"UNIFIED","coin":7}]}',
        '{"topic":"never.heard.of.it","data":[1]}',
        '{"op":"auth","success":"perhaps"}',
    ],
)
async def test_frames_that_cannot_be_read_end_nothing(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader, frame: str
) -> None:
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        fake.faults.message(frame, PRIVATE)
        trader.order("after")
        await on.until(lambda: ids(on, "order") == ["after"])
        assert fake.logins[KEY] == 1


async def test_answers_that_cannot_be_read_are_asked_for_again(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    bodies = [b"", b"[]", b'{"retCode":0}', b'{"retCode":0,"time":1,"result":{"list":[{}]}}', b"<html>"]

    async def garbled(request: Request) -> Response | None:
        return Response(body=bodies.pop()) if bodies and signed(request) else None

    fake.answers.append(garbled)
    trader.order("open")
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        assert ids(on, "order") == ["open"]


async def test_two_accounts_know_nothing_of_each_other(autojump_clock: MockClock, fake: BybitFake) -> None:
    one, two = fake.trader(KEY, SECRET), fake.trader("key-2", "secret-2")
    other = MAIN | {"api_key": "key-2", "api_secret": "secret-2", "channels": ("order",)}
    async with desk(bybit(), fake, {"main": MAIN, "second": other}) as on:
        await up(on, "main", "second")
        one.order("of-one")
        two.order("of-two")
        await on.until(lambda: on.events("order") and on.events("order", "second"))
        assert (ids(on, "order"), ids(on, "order", "second")) == (["of-one"], ["of-two"])
        del fake.accounts["key-2"]
        fake.faults.cut(PRIVATE)
        await true(lambda: on.state("order", "second") is State.DOWN)
        await up(on)
        one.order("again")
        await on.until(lambda: ids(on, "order") == ["of-one", "again"])


@pytest.mark.parametrize(
    ("environment", "host", "rest"),
    [
        ("mainnet", "stream.bybit.com", "api.bybit.com"),
        ("testnet", "stream-testnet.bybit.com", "api-testnet.bybit.com"),
        ("demo", "stream-demo.bybit.com", "api-demo.bybit.com"),
    ],
)
async def test_each_environment_has_its_hosts(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader, environment: str, host: str, rest: str
) -> None:
    trader.order("open")
    async with desk(bybit(), fake, {"main": MAIN | {"environment": environment}}) as on:
        await up(on)
        assert on.events("order")[-1].instrument == "BTC-USDT-PERP"
        assert {url.split("/")[2] for url in on.dialer.dialled} == {host, rest}


async def test_endpoints_of_the_configuration_come_first(
    autojump_clock: MockClock, fake: BybitFake, trader: Trader
) -> None:
    async with desk(
        bybit(), fake, {"main": MAIN | {"environment": "testnet"}}, endpoints=fake.endpoints("proxy.test")
    ) as on:
        await up(on)
        assert {url.split("/")[2] for url in on.dialer.dialled} == {"proxy.test"}
