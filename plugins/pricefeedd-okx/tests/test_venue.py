"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

import zlib
from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_okx
from pricefeedd.events import BookDelta
from pricefeedd.hookspecs import Specs
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rules import CandleEnd, Source, TradeIds, Verdict
from pricefeedd.venue import Ack, Venue
from pricefeedd_okx.rules import checksum, follows, joins
from pricefeedd_okx.testing import OkxFake
from pricefeedd_okx.venue import OkxSettings, okx

VENUE = okx()
BTC = Instrument(
    venue="okx",
    market="linear",
    name="BTC-USDT-PERP",
    symbol="BTC-USDT-SWAP",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USDT",
)


def delta(previous: int | None, own: int | None) -> BookDelta:
    return BookDelta(
        venue="okx",
        instrument="BTC-USDT",
        received_ns=1,
        bids=[],
        asks=[],
        sequence=own,
        previous_sequence=previous,
    )


def configured(**settings: object) -> Venue:
    return VENUE.configure(VENUE, OkxSettings(**settings))  # type: ignore[arg-type]  # one of each kind


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="okx")
    assert point.load() is pricefeedd_okx
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_okx)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("okx", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    assert list(fakes) == ["okx"]


def test_everything_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    assert len({feed.name for feed in VENUE.feeds}) == len(VENUE.feeds)
    for feed in VENUE.feeds:
        assert feed.market in VENUE.markets
        assert feed.endpoint in VENUE.endpoints
        assert feed.connect_budget in budgets
    assert set(VENUE.rules) == set(VENUE.markets) == {"spot", "linear", "inverse"}
    for endpoints in VENUE.environments.values():
        assert set(endpoints) == set(VENUE.endpoints)


def test_the_fake_lists_two_of_each_market_and_all_endpoints() -> None:
    listings = OkxFake.default_listings()
    for market in VENUE.markets:
        assert sum(listing.market == market for listing in listings) >= 2
    assert set(OkxFake().endpoints("x")) == set(VENUE.endpoints)


def test_every_channel_has_a_rule_where_it_needs_one() -> None:
    for rules in VENUE.rules.values():
        assert rules.book is not None
        assert (rules.book.source, rules.book.splice, rules.book.depth) == (Source.STREAM, True, 400)
        assert rules.trade is not None
        assert rules.trade.ids is TradeIds.CONSECUTIVE
        assert rules.candle is not None
        assert rules.candle.end is CandleEnd.FLAG


def test_pings_come_well_before_the_venues_cut() -> None:
    for feed in VENUE.feeds:
        assert feed.ping_interval_s is not None
        assert feed.ping_interval_s <= 25
        assert feed.silence_s >= 2 * feed.ping_interval_s


def test_requests_stay_below_the_venues_limits() -> None:
    for feed in VENUE.feeds:
        assert feed.requests_per_hour == 480
        assert feed.ack is Ack.STREAM, "each arg has an ack of its own"
        streams = [VENUE.codec.streams("book", BTC)[0]] * feed.streams_per_request
        frame = VENUE.codec.subscribe(feed, streams, request_id=1, now_ns=1, account=None)
        assert len(frame) < 65_536
        assert feed.streams_per_connection < 30 or not feed.name.endswith("-book")


def test_settings_reach_codec_and_requests() -> None:
    venue = configured(trade_channel="trades-all", demo=True)
    assert venue.codec.streams("trade", BTC)[0].name == "trades-all:BTC-USDT-SWAP"
    assert venue.rest.instruments("spot").request.headers == {"x-simulated-trading": "1"}


def test_the_declared_venue_has_the_default_settings() -> None:
    same = configured()
    assert same.feeds == VENUE.feeds
    assert same.codec.streams("trade", BTC) == VENUE.codec.streams("trade", BTC)
    assert same.rest.instruments("spot").request == VENUE.rest.instruments("spot").request


def test_settings_that_the_venue_does_not_offer_are_refused() -> None:
    with pytest.raises(ValueError, match="trade_channel"):
        configured(trade_channel="aggTrades")


def test_settings_are_plain_values() -> None:
    assert all(field.default is not attrs.NOTHING for field in attrs.fields(OkxSettings))


# --- How books join ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("previous", "own", "verdict"),
    [
        (100, 107, Verdict.APPLY),
        (100, 100, Verdict.APPLY),  # a sign of life
        (100, 3, Verdict.APPLY),  # a reset
        (90, 100, Verdict.STALE),  # the last one again
        (101, 107, Verdict.GAP),
        (3, 5, Verdict.GAP),  # behind a reset that was lost
        (80, 90, Verdict.GAP),
        (None, 107, Verdict.GAP),
    ],
)
def test_a_change_follows_the_one_that_it_names(previous: int | None, own: int, verdict: Verdict) -> None:
    assert follows(100, delta(previous, own)) is verdict


@pytest.mark.parametrize(
    ("previous", "own", "verdict"),
    [
        (100, 107, Verdict.APPLY),
        (95, 107, Verdict.APPLY),
        (100, 100, Verdict.APPLY),
        (100, 3, Verdict.APPLY),
        (90, 100, Verdict.STALE),
        (80, 90, Verdict.STALE),
        (101, 107, Verdict.GAP),
        (None, 107, Verdict.GAP),
    ],
)
def test_a_snapshot_stands_between_two_numbers(previous: int | None, own: int, verdict: Verdict) -> None:
    assert joins(100, delta(previous, own)) is verdict


def test_the_documented_run_is_legal() -> None:
    last = 10
    for previous, own in [(10, 15), (15, 15), (15, 3), (3, 5)]:
        assert follows(last, delta(previous, own)) is Verdict.APPLY
        last = own


def test_checksum() -> None:
    """The example of the documents of 2022."""
    bids = [("3366.1", "7")]
    asks = [("3366.8", "9"), ("3368", "8"), ("3372", "8")]
    crc = zlib.crc32(b"3366.1:7:3366.8:9:3368:8:3372:8")
    assert checksum(bids, asks) == (crc if crc < 1 << 31 else crc - (1 << 32))
    assert checksum([], []) == 0
    deep = [(str(1000 - i), "1") for i in range(40)]
    assert checksum(deep, asks) == checksum(deep[:25], asks)
    assert -(1 << 31) <= checksum(deep, deep) < 1 << 31


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field in attrs.fields(OkxSettings):
        assert f"| `{field.name}` | `{str(field.default).lower()}` |" in readme
    for key, url in VENUE.endpoints.items():
        assert f"| `{key}` | `{url}` | `{VENUE.environments['demo'][key]}` |" in readme
