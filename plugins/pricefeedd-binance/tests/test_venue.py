"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_binance
from pricefeedd.events import BookDelta
from pricefeedd.hookspecs import Specs
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rules import CandleEnd, Source, TradeIds, Verdict
from pricefeedd.venue import Venue
from pricefeedd_binance.venue import BinanceSettings, binance

VENUE = binance()
BTC = Instrument(
    venue="binance",
    market="inverse",
    name="BTC-USD-PERP",
    symbol="BTCUSD_PERP",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USD",
)


def delta(first: int, last: int, previous: int | None = None) -> BookDelta:
    return BookDelta(
        venue="binance",
        instrument="BTC-USDT",
        received_ns=1,
        bids=[],
        asks=[],
        sequence=last,
        first_sequence=first,
        previous_sequence=previous,
    )


def configured(**settings: object) -> Venue:
    return VENUE.configure(VENUE, BinanceSettings(**settings))  # type: ignore[arg-type]  # one of each kind


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="binance")
    assert point.load() is pricefeedd_binance
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_binance)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("binance", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    assert list(fakes) == ["binance"]


def test_everything_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    assert len({feed.name for feed in VENUE.feeds}) == len(VENUE.feeds)
    for feed in VENUE.feeds:
        assert feed.market in VENUE.markets
        assert feed.endpoint in VENUE.endpoints
        assert feed.connect_budget in budgets
    assert set(VENUE.rules) == set(VENUE.markets) == {"spot", "linear", "inverse"}
    assert set(VENUE.market_names.values()) <= set(VENUE.markets)
    for endpoints in VENUE.environments.values():
        assert set(endpoints) == set(VENUE.endpoints)


def test_every_channel_has_a_rule_where_it_needs_one() -> None:
    for rules in VENUE.rules.values():
        assert rules.book is not None
        assert rules.book.source is Source.REST
        assert rules.trade is not None
        assert rules.trade.ids is TradeIds.CONSECUTIVE
        assert rules.candle is not None
        assert rules.candle.end is CandleEnd.FLAG


def test_silence_leaves_room_for_the_venues_pings() -> None:
    for feed in VENUE.feeds:
        pings_every_s = feed.ping_interval_s if feed.ping_interval_s is not None else 20.0
        assert feed.silence_s >= 2 * pings_every_s


def test_messages_stay_below_the_venues_rate() -> None:
    for feed in VENUE.feeds:
        per_second = 1 / feed.request_interval_s
        # The pongs that our library sends count as well.
        assert per_second < (5 if feed.market == "spot" else 10) - 1


def test_routes() -> None:
    paths = {feed.name: (feed.path, feed.fallback_paths) for feed in VENUE.feeds}
    assert paths == {
        "spot": ("/stream", ()),
        "linear-public": ("/public/stream", ()),
        "linear-market": ("/market/stream", ()),
        "inverse-public": ("/public/stream", ("/stream",)),
        "inverse-market": ("/market/stream", ("/stream",)),
    }


def test_routes_can_be_left_out() -> None:
    venue = configured(linear_routed=False, inverse_routed=False)
    assert {feed.path for feed in venue.feeds} == {"/stream"}
    assert not any(feed.fallback_paths for feed in venue.feeds)
    assert {feed.name for feed in venue.feeds} == {feed.name for feed in VENUE.feeds}


def test_book_settings_reach_streams_requests_and_rules() -> None:
    venue = configured(book_depth=100, book_interval_ms=500)
    assert venue.codec.streams("book", BTC)[0].name == "btcusd_perp@depth@500ms"
    call = venue.rest.book(BTC)
    assert call is not None
    assert call.request.params["limit"] == 100
    assert venue.rules["inverse"].book is not None
    assert venue.rules["inverse"].book.depth == 200


def test_the_declared_venue_has_the_default_settings() -> None:
    assert configured().feeds == VENUE.feeds
    default = VENUE.rest.book(BTC)
    same = configured().rest.book(BTC)
    assert default is not None
    assert same is not None
    assert default.request == same.request


@pytest.mark.parametrize(
    "wrong", [{"book_depth": 4}, {"book_depth": 5001}, {"book_interval_ms": 0}, {"book_interval_ms": 200}]
)
def test_settings_that_the_venue_does_not_offer_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        configured(**wrong)


def test_settings_are_plain_values() -> None:
    assert all(field.default is not attrs.NOTHING for field in attrs.fields(BinanceSettings))


# --- How books join ---------------------------------------------------------------------------------------


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
def test_spot_joins_and_follows_at_the_next_number(first: int, last: int, verdict: Verdict) -> None:
    rule = VENUE.rules["spot"].book
    assert rule is not None
    assert rule.joins(100, delta(first, last)) is verdict
    assert rule.follows(100, delta(first, last)) is verdict


@pytest.mark.parametrize("market", ["linear", "inverse"])
@pytest.mark.parametrize(
    ("first", "last", "previous", "verdict"),
    [
        (90, 99, 80, Verdict.STALE),
        (90, 100, 80, Verdict.APPLY),
        (100, 110, 95, Verdict.APPLY),
        (95, 110, 90, Verdict.APPLY),
        (101, 110, 99, Verdict.GAP),
        (105, 110, 100, Verdict.APPLY),
        (105, 110, 102, Verdict.GAP),
    ],
)
def test_futures_join_around_the_snapshots_number(
    market: str, first: int, last: int, previous: int, verdict: Verdict
) -> None:
    rule = VENUE.rules[market].book
    assert rule is not None
    assert rule.joins(100, delta(first, last, previous)) is verdict


@pytest.mark.parametrize("market", ["linear", "inverse"])
@pytest.mark.parametrize(
    ("first", "last", "previous", "verdict"),
    [
        (500, 600, 100, Verdict.APPLY),
        (101, 110, 99, Verdict.GAP),
        (101, 110, 101, Verdict.GAP),
        (80, 99, 70, Verdict.STALE),
    ],
)
def test_futures_follow_by_the_number_before(
    market: str, first: int, last: int, previous: int, verdict: Verdict
) -> None:
    rule = VENUE.rules[market].book
    assert rule is not None
    assert rule.follows(100, delta(first, last, previous)) is verdict


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field in attrs.fields(BinanceSettings):
        assert f"| `{field.name}` | `{str(field.default).lower()}` |" in readme
    for key, url in VENUE.endpoints.items():
        others = [VENUE.environments[name][key] for name in ("testnet", "demo")]
        assert f"| `{key}` | `{url}` | `{others[0]}` | `{others[1]}` |" in readme
