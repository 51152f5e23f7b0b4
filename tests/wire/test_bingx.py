"""BingX as a user has it: commands and a daemon of their own, against a simulated BingX on a local port."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import trio

from pricefeedd_bingx.testing import BingxFake

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (\S+) (?:id=\d+ )?price=[\d.]+ size=[\d.]+ side=(?:buy|sell)")

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[[venues.bingx.subscribe]]
market = "spot"
instruments = ["BTC-USDT", "ETH-USDT"]
channels = ["trade", "quote", "ticker", "candle_1m", "book"]
[[venues.bingx.subscribe]]
market = "swap"
instruments = ["BTC-USDT-PERP", "ETH-USDT-PERP"]
channels = ["trade", "quote", "ticker", "candle_1m", "book"]
"""


def environ(endpoints: Mapping[str, str]) -> dict[str, str]:
    """Return BingX's endpoints as environment variables."""
    return {f"PRICEFEEDD__VENUES__BINGX__ENDPOINTS__{key.upper()}": url for key, url in endpoints.items()}


@pytest.fixture
async def fake(nursery: trio.Nursery, cli: Any) -> BingxFake:
    """Return a simulated BingX on a local port where something happens; `cli` is pointed at it."""
    made = BingxFake(history_minutes=10)
    await nursery.start(made.run)
    nursery.start_soon(made.play, 20.0)
    cli.environ.update(environ(made.endpoints()))
    return made


@pytest.fixture
def nobody(cli: Any) -> Iterator[Any]:
    """Return a runner of commands whose BingX is at a port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: it refuses, and nobody else can take it
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        cli.environ.update(environ(BingxFake().endpoints(address)))
        yield cli


@pytest.mark.parametrize("names", [("BTC-USDT", "ETH-USDT"), ("BTC-USDT-PERP", "ETH-USDT-PERP")])
async def test_tail_prints_as_many_trades_as_asked_for(
    cli: Any, fake: BingxFake, names: tuple[str, ...]
) -> None:
    ended = await cli.run("tail", "bingx", *names, "--limit", "10")

    assert (ended.code, ended.err) == (0, "")
    found = [LINE.fullmatch(line) for line in ended.lines]
    assert len(found) == 10
    assert all(found), ended.out
    assert {match[1] for match in found if match} <= set(names)


@pytest.mark.parametrize("channel", ["quote", "ticker", "book", "candle_1m"])
async def test_tail_takes_other_channels(cli: Any, fake: BingxFake, channel: str) -> None:
    arguments = (
        "tail",
        "bingx",
        "BTC-USDT",
        "--market",
        "linear",
        "--channel",
        channel,
        "--limit",
        "3",
        "--json",
    )
    ended = await cli.run(*arguments)

    assert (ended.code, ended.err) == (0, "")
    assert {m["topic"] for m in ended.json()} == {f"{channel}:bingx:BTC-USDT-PERP"}


async def test_a_venue_that_cannot_be_reached_is_told_in_time(nobody: Any) -> None:
    running = await nobody.start("tail", "bingx", "BTC-USDT-PERP")
    with trio.fail_after(30):  # on a machine that has much else to do, starting takes long
        ended = await running.ended(within_s=28)
    assert (ended.code, ended.out) == (69, "")
    assert "Traceback" not in ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("bingx")
    assert "cannot be reached" in line


async def test_a_daemon_serves_both_markets(
    cli: Any, fake: BingxFake, nursery: trio.Nursery, open_reader: Any
) -> None:
    daemon = await cli.start("run", "--config", cli.config(CONFIG))
    reader = await open_reader((await daemon.binds())[0])
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:bingx:*"]})
    await reader.until("ack")
    names = ("BTC-USDT", "ETH-USDT", "BTC-USDT-PERP", "ETH-USDT-PERP")
    kinds = {"trade": "trade", "quote": "quote", "ticker": "ticker", "candle_1m": "candle", "book": "book"}
    wanted = {f"{channel}:bingx:{name}" for name in names for channel in kinds}

    def seen() -> set[str]:
        return {m["topic"] for m in reader.messages if m["type"] != "status"}

    await reader.until(lambda m: wanted <= seen() and len(reader.of("trade")) > 50)
    await reader.close()
    ended = await daemon.end()

    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    reader.check_sequence()
    assert not [m for m in reader.messages if m["type"] == "gap"]
    for name in names:
        got = [
            (m["data"]["price"], m["data"]["size"])
            for m in reader.of("trade")
            if m["topic"] == f"trade:bingx:{name}"
        ]
        truth = [(t.price, t.size) for t in fake.market.trades(name)]
        assert got
        begin = next(i for i in range(len(truth)) if truth[i : i + len(got)] == got)
        assert begin > 0, "the past is not told as the present"
