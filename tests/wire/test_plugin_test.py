"""`pricefeedd plugin-test`, and that the kit behind it finds what is wrong with a plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest

from pricefeedd.codec import Signal
from pricefeedd.errors import PluginError
from pricefeedd.events import BookDelta, Candle, Event, Quote, Trade
from pricefeedd.rest import HttpReply, RateSignal
from pricefeedd.rules import TradeIds, TradeRule, unnumbered
from pricefeedd.testing.conformance import CHECKS, Cast, Outcome, Result, cast_of, play, programme
from pricefeedd.venue import Feed, Venue
from pricefeedd_binance.codec import BinanceCodec
from pricefeedd_binance.rest import BinanceRest
from pricefeedd_binance.testing import BinanceFake
from pricefeedd_binance.venue import binance

Said = Sequence[Event | Signal]


# --- The command --------------------------------------------------------------------------------------------


async def test_a_scorecard_for_people(cli: Any) -> None:
    ended = await cli.run("plugin-test", "binance", "--check", "cut", within_s=100)

    assert ended.code == 0, ended.err
    rows = [line.split("\t") for line in ended.lines]
    assert rows[0] == ["check", "market", "outcome", "seconds", "says"]
    assert [row[:3] for row in rows[1:-1]] == [["cut", m, "passed"] for m in ("spot", "linear", "inverse")]
    assert ended.lines[-1].startswith("3 passed, 0 failed, 0 n/a")


async def test_a_scorecard_for_programs(cli: Any) -> None:
    ended = await cli.run(
        "plugin-test", "binance", "--market", "spot", "--check", "*liq*", "--json", "--jobs", "2"
    )

    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert (document["venue"], document["passed"]) == ("binance", True)
    [row] = document["checks"]
    assert (row["check"], row["outcome"]) == ("liquidation", "n/a")
    assert row["reason"] == "the market does not tell liquidations"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 78, "no plugin brings the venue 'nowhere'"),
        (["binance", "--market", "moon"], 2, "binance has no market 'moon'; there is spot, linear, inverse"),
        (["binance", "--check", "moon"], 2, "no check is named 'moon'"),
    ],
)
async def test_what_cannot_be_played_is_said(cli: Any, arguments: list[str], code: int, says: str) -> None:
    ended = await cli.run("plugin-test", *arguments)

    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
    assert says in ended.err


@pytest.mark.parametrize(
    ("fakes", "says"), [({}, "brings no fake to play against"), ({"binance": object}, "is no subclass of")]
)
def test_a_plugin_without_a_fake_that_trades_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, fakes: Mapping[str, Any], says: str
) -> None:
    monkeypatch.setattr("pricefeedd.loader.Plugins.fakes", fakes)

    with pytest.raises(PluginError, match=says):
        cast_of("binance")


# --- What the kit finds -------------------------------------------------------------------------------------


def played(
    check: str, venue: Venue, *, market: str = "spot", fake: type[BinanceFake] = BinanceFake
) -> Result:
    return play(CHECKS[check], Cast(venue=venue, make_fake=fake, market=market))


def but(
    *, rules: Callable[[Any], Any] | None = None, feed: Mapping[str, Any] | None = None, **fields: Any
) -> Venue:
    """Return Binance with some of it replaced."""

    def configure(declared: Venue, settings: Any) -> Venue:
        made = attrs.evolve(binance().configure(declared, settings), **fields)
        if rules is not None:
            made = attrs.evolve(made, rules={market: rules(rule) for market, rule in made.rules.items()})
        return attrs.evolve(made, feeds=tuple(attrs.evolve(f, **(feed or {})) for f in made.feeds))

    return attrs.evolve(binance(), configure=configure)


class Speaks(BinanceCodec):
    """A codec that changes some of what it says."""

    def __init__(self, change: Callable[[Event | Signal], Event | Signal | None]) -> None:
        super().__init__()
        self._change = change

    def decode(self, frame: bytes, *, feed: Feed, names: Mapping[str, str], received_ns: int) -> Said:
        said = super().decode(frame, feed=feed, names=names, received_ns=received_ns)
        return [changed for one in said if (changed := self._change(one)) is not None]


def wrong(kind: type[Event], **fields: Callable[[Any], Any]) -> BinanceCodec:
    """Return a codec that gets fields of one kind of event wrong."""

    def change(one: Event | Signal) -> Event | Signal:
        if not isinstance(one, kind):
            return one
        return attrs.evolve(one, **{name: make(getattr(one, name)) for name, make in fields.items()})

    return Speaks(change)


class Impatient(BinanceRest):
    """REST that does not see a ban."""

    def examine(self, reply: HttpReply) -> RateSignal:
        return super().examine(attrs.evolve(reply, status=500) if reply.status == 429 else reply)


def _every_third() -> Callable[[Event | Signal], Event | Signal | None]:
    count = 0

    def change(one: Event | Signal) -> Event | Signal | None:
        nonlocal count
        count += isinstance(one, Trade)
        return None if isinstance(one, Trade) and count % 3 == 0 else one

    return change


@pytest.mark.parametrize(
    ("check", "venue", "says"),
    [
        ("undisturbed", but(codec=wrong(Trade, size=lambda text: f"{text}1")), "never told"),
        (
            "undisturbed",
            but(codec=wrong(Quote, bid_price=lambda text: f"1{text}")),
            "quote:BTC-USDT: the last is",
        ),
        ("undisturbed", but(codec=wrong(Candle, volume=lambda text: f"1{text}")), "told was"),
        ("undisturbed", but(codec=wrong(BookDelta, bids=lambda levels: levels[:-1])), "levels differ"),
        ("undisturbed", but(codec=Speaks(_every_third())), "trades are missing"),
        (
            "law-real-frames",
            but(codec=wrong(Trade, venue_time_ns=lambda ns: ns // 1000)),
            "no time in nanoseconds",
        ),
        (
            "duplicates",
            but(rules=lambda rules: attrs.evolve(rules, trade=TradeRule(ids=TradeIds.NONE))),
            "",
        ),
        (
            "dropped-delta",
            but(
                rules=lambda r: (
                    r if r.book is None else attrs.evolve(r, book=attrs.evolve(r.book, follows=unnumbered))
                )
            ),
            "prove that a message is missing",
        ),
        ("rest-429", but(rest=Impatient()), "in the time of Retry-After"),
        ("make-before-break", but(feed={"lifetime_s": None}), "sets no lifetime"),
    ],
)
def test_what_is_wrong_is_found(check: str, venue: Venue, says: str) -> None:
    result = played(check, venue)

    assert result.outcome is not (Outcome.FAILED if says == "" else Outcome.PASSED), result
    assert says in result.reason


def test_a_fake_that_forgets_its_faults_is_found() -> None:
    class Deaf(BinanceFake):
        def acknowledge(self, socket: Any, answer: Any) -> None:
            socket.send(json.dumps(answer))

    result = played("no-acks", binance(), fake=Deaf)

    assert result.outcome is Outcome.FAILED
    assert "past its faults" in result.reason


def test_every_check_says_what_holds() -> None:
    casts = cast_of("binance")
    assert all(check.words.endswith(".") for check in CHECKS.values())
    assert {check.name for check, _ in programme(casts)} == set(CHECKS)
    assert {check.name for check, cast in programme(casts) if cast.market == "linear"} == {
        "undisturbed",
        "cut",
    }
    assert {cast.market for _, cast in programme(casts, market="linear")} == {"linear"}
