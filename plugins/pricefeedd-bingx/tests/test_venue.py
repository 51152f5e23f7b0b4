"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_bingx
from pricefeedd.events import BookDelta
from pricefeedd.hookspecs import Specs
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rules import CandleEnd, Source, TradeIds, Verdict
from pricefeedd.venue import Ack, Venue
from pricefeedd_bingx.testing import BingxFake
from pricefeedd_bingx.venue import BingxSettings, bingx

VENUE = bingx()


def btc(market: str) -> Instrument:
    return Instrument(
        venue="bingx", market=market, name="x", symbol="BTC-USDT", kind=Kind.SPOT, base="BTC", quote="USDT"
    )


def delta(sequence: int) -> BookDelta:
    return BookDelta(venue="bingx", instrument="x", received_ns=1, bids=[], asks=[], sequence=sequence)


def configured(**settings: str) -> Venue:
    return VENUE.configure(VENUE, BingxSettings(**settings))


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="bingx")
    assert point.load() is pricefeedd_bingx
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_bingx)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("bingx", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    assert fakes == {"bingx": BingxFake}


def test_everything_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    for feed in VENUE.feeds:
        assert feed.name == feed.market in VENUE.markets
        assert feed.endpoint in VENUE.endpoints
        assert feed.connect_budget in budgets
    assert set(VENUE.rules) == set(VENUE.markets) == {"spot", "linear"}
    assert set(VENUE.market_names.values()) <= set(VENUE.markets)
    for endpoints in VENUE.environments.values():
        assert set(endpoints) <= set(VENUE.endpoints)
    assert set(BingxFake().endpoints()) == set(VENUE.endpoints)


def test_what_can_be_believed_of_each_market() -> None:
    for market, ids in (("spot", TradeIds.UNIQUE), ("linear", TradeIds.NONE)):
        rules = VENUE.rules[market]
        assert rules.book is not None
        assert rules.book.source is Source.STREAM
        assert not rules.book.may_cross, "a crossed book is the only sign of a lost update"
        assert rules.trade is not None
        assert rules.trade.ids is ids
        assert rules.candle is not None
        assert rules.candle.end is CandleEnd.REST


def test_limits_of_a_connection() -> None:
    for feed in VENUE.feeds:
        assert feed.streams_per_connection == 200
        assert feed.streams_per_request == 1
        assert 1 / feed.request_interval_s < 9, "10 messages a second, and a pong now and then"
        assert 12 <= feed.silence_s <= 15, "the venue pings every 5 s"
        assert feed.ping_interval_s is None
        assert feed.ack is Ack.REQUEST
    assert VENUE.feed("spot").requests_in_flight == 1, "a refusal on spot does not name what it refuses"


def test_requests_stay_below_the_least_limit_of_the_documents() -> None:
    (budget,) = [b for b in VENUE.budgets if b.name == "market"]
    assert budget.capacity / budget.per_s <= 5
    assert budget.capacity / budget.per_s * 60 <= 1000


@pytest.mark.parametrize(
    ("sequence", "joins", "follows"),
    [
        (99, Verdict.STALE, Verdict.GAP),
        (100, Verdict.STALE, Verdict.STALE),
        (101, Verdict.APPLY, Verdict.APPLY),
        (109, Verdict.APPLY, Verdict.APPLY),
    ],
)
def test_book_numbers_grow_by_any_step(sequence: int, joins: Verdict, follows: Verdict) -> None:
    for market in VENUE.markets:
        rule = VENUE.rules[market].book
        assert rule is not None
        assert rule.joins(100, delta(sequence)) is joins
        assert rule.follows(100, delta(sequence)) is follows


def test_books_are_kept_as_deep_as_the_venue_shows_them() -> None:
    def depth(venue: Venue, market: str) -> int | None:
        rule = venue.rules[market].book
        assert rule is not None
        return rule.depth

    assert depth(VENUE, "linear") == 1024
    assert depth(VENUE, "spot") is None, "each frame is the whole book"
    assert depth(configured(spot_book="incrDepth"), "spot") == 1000


def test_settings_reach_the_topics() -> None:
    venue = configured(linear_quote="bookTicker", spot_book="depth20")
    assert [s.name for s in venue.codec.streams("quote", btc("linear"))] == ["BTC-USDT@bookTicker"]
    assert [s.name for s in venue.codec.streams("book", btc("spot"))] == ["BTC-USDT@depth20"]
    for market in venue.markets:
        candle = configured(candle_end="next").rules[market].candle
        assert candle is not None
        assert candle.end is CandleEnd.NEXT
    assert configured().codec.streams("book", btc("spot")) == VENUE.codec.streams("book", btc("spot"))


@pytest.mark.parametrize(
    "wrong", [{"linear_quote": "depth20"}, {"spot_book": "depth30"}, {"candle_end": "flag"}]
)
def test_settings_that_the_venue_does_not_offer_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        configured(**wrong)


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field in attrs.fields(BingxSettings):
        assert f'| `{field.name}` | `"{field.default}"` |' in readme
    for key, url in VENUE.endpoints.items():
        demo = VENUE.environments["demo"].get(key)
        assert f"| `{key}` | `{url}` | {'–' if demo is None else f'`{demo}`'} |" in readme
