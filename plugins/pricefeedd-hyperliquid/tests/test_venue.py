"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_hyperliquid
from pricefeedd.hookspecs import Specs
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rules import CandleEnd, EmptyMinutes, Source, TradeIds
from pricefeedd.venue import Ack, Venue
from pricefeedd_hyperliquid.testing import HyperliquidFake
from pricefeedd_hyperliquid.venue import HyperliquidSettings, hyperliquid

VENUE = hyperliquid()
BTC = Instrument(
    venue="hyperliquid",
    market="linear",
    name="BTC-USD-PERP",
    symbol="BTC",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USD",
)


def configured(**settings: object) -> Venue:
    return VENUE.configure(VENUE, HyperliquidSettings(**settings))  # type: ignore[arg-type]  # one of each kind


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="hyperliquid")
    assert point.load() is pricefeedd_hyperliquid
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_hyperliquid)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("hyperliquid", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    assert fakes == {"hyperliquid": HyperliquidFake}


def test_everything_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    assert len({feed.name for feed in VENUE.feeds}) == len(VENUE.feeds)
    for feed in VENUE.feeds:
        assert feed.market in VENUE.markets
        assert feed.endpoint in VENUE.endpoints
        assert {feed.connect_budget, feed.request_budget} <= budgets
    assert set(VENUE.rules) == set(VENUE.markets) == {"linear", "spot"}
    assert set(VENUE.market_names.values()) <= set(VENUE.markets)
    for endpoints in VENUE.environments.values():
        assert set(endpoints) == set(VENUE.endpoints)


def test_every_channel_has_a_rule_where_it_needs_one() -> None:
    for rules in VENUE.rules.values():
        assert rules.book is not None
        assert rules.book.source is Source.STREAM
        assert rules.trade is not None
        assert rules.trade.ids is TradeIds.UNIQUE
        assert rules.candle is not None
        assert (rules.candle.end, rules.candle.empty) == (CandleEnd.NEXT, EmptyMinutes.FLAT)
        assert rules.candle.history_minutes == 5000


def test_what_the_venue_allows_an_address() -> None:
    assert VENUE.max_connections is not None
    assert VENUE.max_connections <= 10
    for feed in VENUE.feeds:
        assert feed.streams_per_connection * VENUE.max_connections <= 1000
        assert feed.streams_per_request == 1
        assert feed.ack is Ack.STREAM
    limits = {budget.name: (budget.capacity, budget.per_s) for budget in VENUE.budgets}
    assert limits == {"weight": (1200, 60), "connect": (30, 60), "messages": (2000, 60)}


def test_pings_come_before_the_venue_cuts() -> None:
    for feed in VENUE.feeds:
        assert feed.ping_interval_s is not None
        assert 2 * feed.ping_interval_s < feed.silence_s < 60


def test_settings_reach_streams_and_requests() -> None:
    venue = configured(book_levels=20, dexs=("xyz",))
    feed = venue.feed("linear")
    streams = venue.codec.streams("book", BTC)
    frame = venue.codec.subscribe(feed, streams, request_id=1, now_ns=1, account=None)
    assert "fast" not in str(frame)
    assert venue.rest.instruments("linear").request.body == b'{"type":"spotMeta"}'


def test_the_declared_venue_has_the_default_settings() -> None:
    venue = configured()
    assert venue.feeds == VENUE.feeds
    assert venue.codec.streams("book", BTC) == VENUE.codec.streams("book", BTC)
    assert venue.rest.instruments("linear").request == VENUE.rest.instruments("linear").request


@pytest.mark.parametrize("levels", [0, 10, 21])
def test_settings_that_the_venue_does_not_offer_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match="book_levels"):
        configured(book_levels=levels)


def test_settings_are_plain_values() -> None:
    assert all(field.default is not attrs.NOTHING for field in attrs.fields(HyperliquidSettings))


def test_the_fake_lists_two_instruments_of_each_market() -> None:
    markets = [listing.market for listing in HyperliquidFake.default_listings()]
    assert all(markets.count(market) >= 2 for market in VENUE.markets)
    assert set(HyperliquidFake().endpoints()) == set(VENUE.endpoints)


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field, default in (("book_levels", "5"), ("dexs", "[]")):
        assert f"| `{field}` | `{default}` |" in readme
    assert {field.name for field in attrs.fields(HyperliquidSettings)} == {"book_levels", "dexs"}
    for key, url in VENUE.endpoints.items():
        assert f"| `{key}` | `{url}` | `{VENUE.environments['testnet'][key]}` |" in readme
