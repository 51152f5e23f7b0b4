"""`pricefeedd.stream`: a venue in the caller's own process, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio

import pricefeedd
from pricefeedd.errors import ConfigError, PluginError
from pricefeedd.events import BookDelta, BookSnapshot, State, Status, Trade
from pricefeedd_binance.testing import BinanceFake


@pytest.fixture
async def local(
    exchange: BinanceFake,
    endpoints_environ: Callable[[Mapping[str, str]], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> BinanceFake:
    """Return a simulated Binance that this process finds in its environment."""
    for key, value in endpoints_environ(exchange.endpoints()).items():
        monkeypatch.setenv(key, value)
    return exchange


async def test_trades_come_in_order_after_the_status(local: BinanceFake) -> None:
    trades: list[Trade] = []
    states: list[State] = []
    with trio.fail_after(20):
        async with pricefeedd.stream("binance", ["BTC-USDT"], channel="trade", market="spot") as events:
            async for event in events:
                if isinstance(event, Status):
                    states.append(event.state)
                    assert not trades
                else:
                    assert isinstance(event, Trade)
                    trades.append(event)
                if len(trades) == 10:
                    break

    assert states == [State.CONNECTING, State.LIVE]
    ids = [int(trade.id or 0) for trade in trades]
    assert ids == list(range(ids[0], ids[0] + 10))
    truth = {str(trade.id): trade.price for trade in local.market.trades("BTC-USDT")}
    assert all(truth[trade.id or ""] == trade.price for trade in trades)
    with trio.fail_after(5):
        await local.wait_for(lambda: not local.sockets)


async def test_several_instruments_and_channels(local: BinanceFake) -> None:
    seen: set[tuple[str, type]] = set()
    wanted = {(name, kind) for name in ("BTC-USDT-PERP", "ETH-USDT-PERP") for kind in (Trade, BookDelta)}
    with trio.fail_after(20):
        async with pricefeedd.stream(
            "binance", ["BTC-USDT-PERP", "ETHUSDT"], channel=["trade", "book"], market="linear"
        ) as events:
            async for event in events:
                if isinstance(event, BookDelta):
                    assert (event.instrument, BookSnapshot) in seen
                seen.add((event.instrument, type(event)))
                if seen >= wanted:
                    break


@pytest.mark.parametrize(
    ("venue", "options", "kind", "text"),
    [
        ("binanse", {}, PluginError, "pip install pricefeedd-binanse"),
        ("binance", {"market": "sport"}, ConfigError, "did you mean 'spot'"),
        ("binance", {"channel": "trades"}, ConfigError, "did you mean 'trade'"),
    ],
)
async def test_what_does_not_exist_is_said_before_anything_is_dialled(
    local: BinanceFake, venue: str, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        async with pricefeedd.stream(venue, ["BTC-USDT"], **options):
            pytest.fail("there is nothing to read")
    assert local.seen.connections == 0


async def test_what_the_block_raises_comes_out_as_it_went_in(local: BinanceFake) -> None:
    async def fail_at_the_first() -> None:
        async with pricefeedd.stream("binance", ["BTC-USDT"]) as events:
            async for _ in events:
                raise ZeroDivisionError

    with trio.fail_after(20), pytest.raises(ZeroDivisionError):
        await fail_at_the_first()


async def test_two_streams_at_once_do_not_mix(local: BinanceFake) -> None:
    with trio.fail_after(20):
        async with (
            pricefeedd.stream("binance", ["BTC-USDT"]) as some,
            pricefeedd.stream("binance", ["ETH-USDT"]) as others,
        ):
            for _ in range(5):
                assert (await anext(some)).instrument == "BTC-USDT"
                assert (await anext(others)).instrument == "ETH-USDT"
