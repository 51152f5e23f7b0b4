"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_bybit
from pricefeedd.events import BookDelta
from pricefeedd.hookspecs import Specs
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rules import CandleEnd, Source, TradeIds, Verdict
from pricefeedd.venue import Ack, Venue
from pricefeedd_bybit.rules import follows
from pricefeedd_bybit.venue import BybitSettings, bybit

VENUE = bybit()
BTC = Instrument(
    venue="bybit",
    market="linear",
    name="BTC-USDT-PERP",
    symbol="BTCUSDT",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USDT",
)


def configured(**settings: int) -> Venue:
    return VENUE.configure(VENUE, BybitSettings(**settings))


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="bybit")
    assert point.load() is pricefeedd_bybit
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_bybit)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("bybit", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    assert list(fakes) == ["bybit"]


def test_everything_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    assert len({feed.name for feed in VENUE.feeds}) == len(VENUE.feeds)
    for feed in VENUE.feeds:
        assert feed.private or feed.market in VENUE.markets
        assert feed.endpoint in VENUE.endpoints
        assert feed.connect_budget in budgets
        assert feed.ack is Ack.REQUEST
    assert set(VENUE.rules) == set(VENUE.markets) == {"spot", "linear", "inverse"}
    assert set(VENUE.market_names.values()) <= set(VENUE.markets)
    assert set(VENUE.environments) == {"testnet", "demo"}
    for endpoints in VENUE.environments.values():
        assert set(endpoints) == set(VENUE.endpoints)


def test_each_market_has_a_connection_of_its_own() -> None:
    paths = {feed.name: (feed.market, feed.endpoint, feed.path, feed.private) for feed in VENUE.feeds}
    assert paths == {
        "spot": ("spot", "spot_ws", "/v5/public/spot", False),
        "linear": ("linear", "linear_ws", "/v5/public/linear", False),
        "inverse": ("inverse", "inverse_ws", "/v5/public/inverse", False),
        "private": ("", "private_ws", "/v5/private", True),
    }


def test_demo_reads_the_public_streams_of_the_venue_itself() -> None:
    demo = VENUE.environments["demo"]
    for market in VENUE.markets:
        assert demo[f"{market}_ws"] == VENUE.endpoints[f"{market}_ws"]
    assert demo["private_ws"] == "wss://stream-demo.bybit.com"


def test_every_channel_has_a_rule_where_it_needs_one() -> None:
    for rules in VENUE.rules.values():
        assert rules.book is not None
        assert (rules.book.source, rules.book.depth, rules.book.checksum) == (Source.STREAM, 50, None)
        assert rules.trade is not None
        assert rules.trade.ids is TradeIds.UNIQUE
        assert rules.candle is not None
        assert rules.candle.end is CandleEnd.FLAG


def test_the_venues_limits_are_kept() -> None:
    for feed in VENUE.feeds:
        assert feed.ping_interval_s == 20.0
        assert 2 * feed.ping_interval_s <= feed.silence_s <= 600
        assert feed.streams_per_request <= 10
        # 21 000 characters of topics; the longest symbol there is has 18.
        longest = max(map(len, ("orderbook.1000.", "allLiquidation."))) + 18
        assert feed.streams_per_connection * longest < 21_000
    budgets = {budget.name: (budget.capacity, budget.per_s) for budget in VENUE.budgets}
    assert budgets == {"rest": (600, 5), "connect": (500, 300)}


@pytest.mark.parametrize("depth", [50, 200, 1000])
def test_the_depth_reaches_streams_and_rules(depth: int) -> None:
    venue = configured(book_depth=depth)
    assert venue.codec.streams("book", BTC)[0].name == f"orderbook.{depth}.BTCUSDT"
    for rules in venue.rules.values():
        assert rules.book is not None
        assert rules.book.depth == depth


@pytest.mark.parametrize("depth", [0, 1, 49, 100, 500])
def test_a_depth_that_the_venue_does_not_offer_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="book_depth"):
        configured(book_depth=depth)


def test_settings_are_plain_values() -> None:
    assert all(field.default is not attrs.NOTHING for field in attrs.fields(BybitSettings))


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (101, Verdict.APPLY),
        (102, Verdict.GAP),
        (100, Verdict.STALE),
        (99, Verdict.STALE),
        (20_100, Verdict.GAP),
    ],
)
def test_deltas_follow_by_one(number: int, verdict: Verdict) -> None:
    delta = BookDelta(
        venue="bybit", instrument="BTC-USDT-PERP", received_ns=1, bids=[], asks=[], sequence=number
    )
    assert follows(100, delta) is verdict


def test_a_number_far_below_is_a_new_count() -> None:
    delta = BookDelta(venue="bybit", instrument="BTC-USDT-PERP", received_ns=1, bids=[], asks=[], sequence=2)
    assert follows(10_132_540, delta) is Verdict.GAP


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field in attrs.fields(BybitSettings):
        assert f"| `{field.name}` | `{str(field.default).lower()}` |" in readme
    for key, url in VENUE.endpoints.items():
        others = [VENUE.environments[name][key] for name in ("testnet", "demo")]
        assert f"| `{key}` | `{url}` | `{others[0]}` | `{others[1]}` |" in readme
