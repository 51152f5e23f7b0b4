"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_kraken
from pricefeedd.hookspecs import Specs
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rules import CandleEnd, EmptyMinutes, Source, TradeIds
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.venue import Ack, Venue
from pricefeedd_kraken.venue import KrakenSettings, kraken

VENUE = kraken()
FEED = VENUE.feed("spot")
BTC = Instrument(
    venue="kraken", market="spot", name="BTC-USD", symbol="BTC/USD", kind=Kind.SPOT, base="BTC", quote="USD"
)


def configured(**settings: int) -> Venue:
    return VENUE.configure(VENUE, KrakenSettings(**settings))


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="kraken")
    assert point.load() is pricefeedd_kraken
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_kraken)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("kraken", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    fake = fakes["kraken"](history_minutes=1)
    assert isinstance(fake, SimulatedVenue)
    assert set(fake.endpoints("x:1")) == set(VENUE.endpoints)


def test_everything_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    assert FEED.market in VENUE.markets
    assert FEED.endpoint in VENUE.endpoints
    assert FEED.connect_budget in budgets
    assert set(VENUE.rules) == set(VENUE.markets) == {"spot"}
    for channel in VENUE.channels["spot"]:
        for stream in VENUE.codec.streams(channel, BTC):
            assert stream.feed == "spot"


def test_rules() -> None:
    rules = VENUE.rules["spot"]
    assert rules.trade is not None
    assert rules.trade.ids is TradeIds.CONSECUTIVE
    assert rules.candle is not None
    assert (rules.candle.end, rules.candle.empty) == (CandleEnd.NEXT, EmptyMinutes.FLAT)
    assert rules.candle.history_minutes == 719
    assert rules.book is not None
    assert (rules.book.source, rules.book.depth, rules.book.checksum_depth) == (Source.STREAM, 100, 10)
    assert rules.book.checksum is not None


def test_silence_is_judged_by_heartbeats_and_pings() -> None:
    assert FEED.ping_interval_s is not None
    assert 2 * FEED.ping_interval_s <= FEED.silence_s <= 15


def test_limits_are_kept() -> None:
    assert 1 / FEED.request_interval_s <= 20
    connect = next(budget for budget in VENUE.budgets if budget.name == "connect")
    assert connect.capacity * (1 - connect.reserve) == pytest.approx(100)
    rest = next(budget for budget in VENUE.budgets if budget.name == "rest")
    assert rest.capacity / rest.per_s < 1


def test_each_symbol_is_answered_apart() -> None:
    assert FEED.ack is Ack.STREAM


@pytest.mark.parametrize("depth", [10, 25, 100, 500, 1000])
def test_the_depth_reaches_requests_and_rules(depth: int) -> None:
    venue = configured(book_depth=depth)
    streams = venue.codec.streams("book", BTC)
    frame = venue.codec.subscribe(FEED, streams, request_id=1, now_ns=1, account=None)
    assert isinstance(frame, str)
    assert f'"depth":{depth},' in frame
    assert venue.rules["spot"].book is not None
    assert venue.rules["spot"].book.depth == depth


@pytest.mark.parametrize("depth", [0, 5, 50, 5000])
def test_depths_that_the_venue_does_not_offer_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="book_depth"):
        configured(book_depth=depth)


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field in attrs.fields(KrakenSettings):
        assert f"| `{field.name}` | `{str(field.default).lower()}` |" in readme
    for key, url in VENUE.endpoints.items():
        assert f"| `{key}` | `{url}` |" in readme
