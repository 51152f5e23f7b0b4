"""Accounts in the running pipeline, against a Bybit that knows what they own and did.

Time is Trio's mock clock and connections are in memory, so an absence of minutes takes none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from pricefeedd.events import Origin, State
from pricefeedd.testing import anchored_clock
from pricefeedd.testing.desk import Desk, desk
from pricefeedd_bybit.testing import BybitFake
from pricefeedd_bybit.venue import bybit

KEY, SECRET = "key-XXXX-of-main", "secret-YYYY-of-main"
CHANNELS = ("order", "execution", "position", "balance")
MAIN: dict[str, Any] = {"api_key": KEY, "api_secret": SECRET, "channels": CHANNELS}


class World:
    """A Bybit with one account, and rows as it would print them."""

    def __init__(self) -> None:
        self.now_ns = anchored_clock()
        self.fake = BybitFake(now_ns=self.now_ns)
        self.fake.accounts[KEY] = SECRET
        self.numbers = 0

    def ms(self) -> str:
        return str(self.now_ns() // 1_000_000)

    def order(self, number: int = 1, **change: Any) -> dict[str, Any]:
        return {
            "category": "linear", "symbol": "BTCUSDT", "orderId": f"order-{number}", "orderLinkId": "", "side": "Buy",
            "orderStatus": "New", "orderType": "Limit", "price": "60000", "qty": "1", "cumExecQty": "0", "avgPrice": "",
            "timeInForce": "GTC", "positionIdx": 0, "createdTime": self.ms(), "updatedTime": self.ms(), **change,
        }  # fmt: skip

    def execution(self, **change: Any) -> dict[str, Any]:
        self.numbers += 1
        return {
            "category": "linear", "symbol": "BTCUSDT", "execId": f"fill-{self.numbers}", "orderId": "order-1",
            "orderLinkId": "", "side": "Buy", "execPrice": "60000", "execQty": "0.1", "execType": "Trade",
            "execTime": self.ms(), "isMaker": True, "execFee": "0.01", "seq": self.numbers, **change,
        }  # fmt: skip

    def position(self, size: str = "1", **change: Any) -> dict[str, Any]:
        self.numbers += 1
        return {
            "category": "linear", "symbol": "BTCUSDT", "positionIdx": 0, "side": "Buy" if float(size) else "",
            "size": size, "entryPrice": "60000", "positionStatus": "Normal", "updatedTime": self.ms(),
            "createdTime": "1694402496913", "seq": self.numbers, **change,
        }  # fmt: skip

    def wallet(self, **coins: str) -> dict[str, Any]:
        rows = [{"coin": coin, "walletBalance": size, "equity": size} for coin, size in coins.items()]
        return {"accountType": "UNIFIED", "totalEquity": "1000", "coin": rows}


async def up(on: Desk) -> None:
    """Wait until the account is live, and all of its past known."""
    with trio.fail_after(60):
        while not on.whole():
            await trio.sleep(0.1)


async def test_what_is_there_comes_first_and_then_what_happens(autojump_clock: MockClock) -> None:
    world = World()
    fake = world.fake
    fake.happen(KEY, "order", world.order(1), world.order(2, orderStatus="Filled"))
    fake.happen(KEY, "position", world.position())
    fake.happen(KEY, "wallet", world.wallet(BTC="1", USDT="500"))
    async with desk(bybit(), fake, {"main": MAIN}) as on:
        await up(on)
        assert [(e.fields["order_id"], e.origin, e.instrument) for e in on.events("order")] == [
            ("order-1", Origin.BACKFILL, "BTC-USDT-PERP")
        ]
        assert [(e.instrument, e.fields["size"]) for e in on.events("position")] == [("BTC-USDT-PERP", "1")]
        assert [e.instrument for e in on.events("balance")] == ["BTC", "USDT", "UNIFIED"]
        assert on.events("execution") == []
        assert [state for state, _ in on.said("order")] == [State.CONNECTING, State.LIVE]
        assert fake.happen(KEY, "order", world.order(3, category="spot")) == 1
        await on.until(lambda: len(on.events("order")) == 2)
        event = on.events("order")[-1]
        assert (event.venue, event.account, event.origin) == ("bybit", "main", Origin.LIVE)
        assert len(event.trace_id) == 32
        await trio.sleep(5)
        fake.happen(KEY, "order", world.order(4, category="spot"))
        await on.until(lambda: len(on.events("order")) == 3)
        assert on.events("order")[-1].instrument == "BTC-USDT"
