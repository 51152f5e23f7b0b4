"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_gateio
from pricefeedd.events import BookDelta
from pricefeedd.hookspecs import Specs
from pricefeedd.rules import CandleEnd, Source, TradeIds, Verdict
from pricefeedd.venue import Ack, Venue
from pricefeedd_gateio.codec import BOOK_DEPTHS
from pricefeedd_gateio.venue import GateioSettings, gateio

VENUE = gateio()


def configured(**settings: object) -> Venue:
    return VENUE.configure(VENUE, GateioSettings(**settings))  # type: ignore[arg-type]  # one of each kind


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="gateio")
    assert point.load() is pricefeedd_gateio
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_gateio)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("gateio", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    assert list(fakes) == ["gateio"]


def test_everything_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    assert len({feed.name for feed in VENUE.feeds}) == len(VENUE.feeds)
    for feed in VENUE.feeds:
        assert feed.market in VENUE.markets
        assert feed.endpoint in VENUE.endpoints
        assert feed.connect_budget in budgets
        assert feed.ack is Ack.REQUEST
    assert set(VENUE.rules) == set(VENUE.markets) == {"spot", "linear", "inverse"}
    assert set(VENUE.market_names.values()) <= set(VENUE.markets)
    assert set(VENUE.environments["testnet"]) == set(VENUE.endpoints) - {"linear_usd1_ws"}


def test_a_connection_is_never_idle_for_long_enough_to_be_cut() -> None:
    for feed in VENUE.feeds:
        assert feed.ping_interval_s is not None
        assert feed.ping_interval_s <= 15, "the venue cuts after 30 s"
        assert feed.silence_s >= 2 * feed.ping_interval_s


def test_requests_keep_a_moderate_pace() -> None:
    for feed in VENUE.feeds:
        assert 1 / feed.request_interval_s <= 20


@pytest.mark.parametrize("depth", BOOK_DEPTHS)
def test_rules_by_depth(depth: int) -> None:
    for rules in configured(book_depth=depth).rules.values():
        assert rules.book is not None
        assert rules.book.source is (Source.STREAM if depth in (50, 400) else Source.REST)
        assert rules.book.depth == depth
        assert rules.book.checksum is None
        assert rules.candle is not None
        assert rules.candle.end is CandleEnd.FLAG
        assert rules.candle.history_minutes is not None
        assert rules.candle.history_minutes < 10_000


def test_spot_ids_are_taken_by_the_venues_word_unless_told_otherwise() -> None:
    ids = {market: rules.trade.ids for market, rules in VENUE.rules.items() if rules.trade is not None}
    assert ids == {
        "spot": TradeIds.CONSECUTIVE,
        "linear": TradeIds.INCREASING,
        "inverse": TradeIds.INCREASING,
    }
    rules = configured(consecutive_trades=False).rules["spot"].trade
    assert rules is not None
    assert rules.ids is TradeIds.INCREASING


@pytest.mark.parametrize("market", ["spot", "linear", "inverse"])
@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (90, 99, Verdict.STALE),
        (90, 100, Verdict.STALE),
        (95, 101, Verdict.APPLY),
        (101, 101, Verdict.APPLY),
        (101, 110, Verdict.APPLY),
        (102, 110, Verdict.GAP),
    ],
)
def test_books_join_and_follow_at_the_next_number(
    market: str, first: int, last: int, verdict: Verdict
) -> None:
    rule = VENUE.rules[market].book
    assert rule is not None
    delta = BookDelta(
        venue="gateio",
        instrument="BTC-USDT",
        received_ns=1,
        bids=[],
        asks=[],
        sequence=last,
        first_sequence=first,
    )
    assert rule.joins(100, delta) is verdict
    assert rule.follows(100, delta) is verdict


@pytest.mark.parametrize("depth", [0, 5, 10, 200, 1000])
def test_depths_that_the_venue_does_not_offer_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="book_depth"):
        configured(book_depth=depth)


def test_settings_are_plain_values() -> None:
    assert all(field.default is not attrs.NOTHING for field in attrs.fields(GateioSettings))


def test_the_declared_venue_has_the_default_settings() -> None:
    same = configured()
    assert same.feeds == VENUE.feeds
    assert same.rules == VENUE.rules


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field in attrs.fields(GateioSettings):
        assert f"| `{field.name}` | `{str(field.default).lower()}` |" in readme
    for key, url in VENUE.endpoints.items():
        testnet = VENUE.environments["testnet"].get(key)
        assert f"| `{key}` | `{url}` | {'–' if testnet is None else f'`{testnet}`'} |" in readme
