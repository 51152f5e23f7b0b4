"""What clients call topics, from literals."""

from __future__ import annotations

import pytest

from pricefeedd.bus import Bus
from pricefeedd.events import Trade
from pricefeedd.instruments import Directory, Instrument, InstrumentMap, Kind
from pricefeedd.stats import Stats
from pricefeedd.topic import Pattern
from pricefeedd.web.topics import Problem, Resolver


def listed(market: str, *pairs: tuple[str, str]) -> InstrumentMap:
    rows = [
        Instrument(venue="v", market=market, name=name, symbol=symbol, kind=Kind.SPOT, base="A", quote="B")
        for name, symbol in pairs
    ]
    return InstrumentMap("v", market, rows)


@pytest.fixture
def resolver() -> Resolver:
    bus, directory, stats = Bus(), Directory(), Stats(started_ns=0)
    directory.put(listed("spot", ("BTC-USDT", "BTCUSDT"), ("ETH-USDT", "ETHUSDT"), ("kPEPE-USDT", "kPEPE")))
    directory.put(listed("linear", ("BTC-USDT-PERP", "BTCUSDT"), ("SOL-USDT-PERP", "SOLUSDT")))
    stats.market("quiet", "spot")
    event = Trade(venue="v", instrument="ODD", received_ns=1, id=None, price="1", size="1", aggressor=None)
    bus.publish([event])
    return Resolver(bus, directory, stats)


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("trade:v:BTC-USDT", "trade:v:BTC-USDT"),
        ("trade:v:ETHUSDT", "trade:v:ETH-USDT"),
        ("trade:v:ethusdt", "trade:v:ETH-USDT"),
        ("trade:v:SOLUSDT", "trade:v:SOL-USDT-PERP"),
        ("trade:*:ETHUSDT", "trade:*:ETH-USDT"),
        ("trade:v:KPEPE", "trade:v:kPEPE-USDT"),
        ("candle_5m:v:BTC-USDT", "candle_5m:v:BTC-USDT"),
        ("trade:v:ODD", "trade:v:ODD"),
        ("*:*:*", "*:*:*"),
        ("*:v:ODD", "*:v:ODD"),
        ("trade:quiet:ANYTHING", "trade:quiet:ANYTHING"),
    ],
)
def test_what_is_meant(resolver: Resolver, asked: str, means: str) -> None:
    found = resolver.resolve(asked)
    assert isinstance(found, Pattern)
    assert found.text == means


@pytest.mark.parametrize(
    ("asked", "code", "near"),
    [
        ("", "bad_topic", ()),
        ("trade", "bad_topic", ()),
        ("trade::X", "bad_topic", ()),
        ("trade:v:" + "x" * 500, "bad_topic", ()),
        ("trad:v:BTC-USDT", "unknown_channel", ("trade",)),
        ("trade:w:BTC-USDT", "unknown_venue", ()),
        ("trade:quite:BTC-USDT", "unknown_venue", ("quiet",)),
        ("trade:v:BTC-USDC", "unknown_instrument", ("BTC-USDT", "BTC-USDT-PERP")),
        ("trade:v:BTCUSDT", "unknown_instrument", ("BTC-USDT", "BTC-USDT-PERP")),
        ("order:v:BTC-USDT", "forbidden", ()),
        ("balance:*:*", "forbidden", ()),
    ],
)
def test_why_not(resolver: Resolver, asked: str, code: str, near: tuple[str, ...]) -> None:
    found = resolver.resolve(asked)
    assert isinstance(found, Problem)
    assert found.code == code
    assert found.did_you_mean[: len(near)] == near
    assert found.message


def test_without_suggestions_the_answer_is_the_same_but_cheap(resolver: Resolver) -> None:
    found = resolver.resolve("trade:v:BTC-USDC", suggest=False)
    assert isinstance(found, Problem)
    assert (found.code, found.did_you_mean) == ("unknown_instrument", ())


def test_a_list_that_is_loaded_anew_counts() -> None:
    directory = Directory()
    resolver = Resolver(Bus(), directory, Stats(started_ns=0))
    directory.put(listed("spot", ("BTC-USDT", "BTCUSDT")))
    assert isinstance(resolver.resolve("trade:v:NEW-USDT"), Problem)
    directory.put(listed("spot", ("BTC-USDT", "BTCUSDT"), ("NEW-USDT", "NEWUSDT")))
    assert isinstance(resolver.resolve("trade:v:NEW-USDT"), Pattern)
