"""What is declared of Coinbase, and what its settings change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest

from pricefeedd.events import BookDelta
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rules import EmptyMinutes, Source, TradeIds, Verdict
from pricefeedd.venue import Ack, Venue
from pricefeedd_coinbase import pricefeedd_fakes, pricefeedd_venues
from pricefeedd_coinbase.codec import CoinbaseCodec
from pricefeedd_coinbase.testing import CoinbaseFake
from pricefeedd_coinbase.venue import CoinbaseSettings, coinbase

VENUE = coinbase()
SECRET = "A" * 43 + "="
BTC = Instrument(
    venue="coinbase", market="spot", name="BTC-USD", symbol="BTC-USD", kind=Kind.SPOT, base="BTC", quote="USD"
)


def configured(**settings: Any) -> Venue:
    return VENUE.configure(VENUE, VENUE.settings(**settings))


def test_the_plugin_brings_one_venue_and_its_fake() -> None:
    (venue,) = pricefeedd_venues()
    assert (venue.name, venue.api_version, venue.markets) == ("coinbase", 1, ("spot",))
    assert pricefeedd_fakes() == {"coinbase": CoinbaseFake}


def test_every_feed_budget_and_rule_that_is_named_exists() -> None:
    budgets = {budget.name for budget in VENUE.budgets}
    for feed in VENUE.feeds:
        assert feed.endpoint in VENUE.endpoints
        assert {feed.connect_budget, feed.request_budget} <= budgets
    assert VENUE.rest.instruments("spot").request.budget in budgets
    assert set(VENUE.rules) == set(VENUE.channels)
    assert CoinbaseFake().endpoints().keys() == VENUE.endpoints.keys()


def test_each_connection_asks_for_heartbeats_first() -> None:
    for feed in VENUE.feeds:
        (beat,) = feed.always
        assert beat.feed == feed.name
        frame = VENUE.codec.subscribe(feed, [beat], request_id=1, now_ns=0, account=None)
        assert orjson.loads(frame) == {"type": "subscribe", "channel": "heartbeats"}
        assert feed.silence_s >= 5.0
        assert feed.ack is Ack.STREAM, "what an answer leaves out was refused"


def test_limits_are_below_the_venues() -> None:
    capacity = {budget.name: budget.capacity / budget.per_s for budget in VENUE.budgets}
    assert capacity == {"spot-rest": 10, "spot-connect": 8, "spot-messages": 8}
    book = VENUE.feed("spot-book")
    assert book.streams_per_connection - len(book.always) == 30
    assert book.max_message_bytes >= 32 << 20
    assert all(feed.streams_per_request <= 50 for feed in VENUE.feeds)


def test_rules() -> None:
    rules = VENUE.rules["spot"]
    assert rules.book is not None
    assert rules.trade is not None
    assert rules.candle is not None
    assert (rules.book.source, rules.book.depth, rules.book.checksum) == (Source.STREAM, None, None)
    delta = BookDelta(venue="coinbase", instrument="BTC-USD", received_ns=1, bids=[], asks=[])
    assert rules.book.follows(0, delta) is Verdict.APPLY
    assert rules.trade.ids is TradeIds.CONSECUTIVE
    assert (rules.candle.built_from, rules.candle.empty) == ("trade", EmptyMinutes.FLAT)


# --- Settings ---------------------------------------------------------------------------------------------


def test_the_declared_venue_has_the_default_settings() -> None:
    assert configured().rules == VENUE.rules
    assert configured().feeds == VENUE.feeds
    frames = [
        venue.codec.subscribe(
            VENUE.feed("spot"), VENUE.codec.streams("trade", BTC), request_id=1, now_ns=1, account=None
        )
        for venue in (configured(), VENUE)
    ]
    assert frames[0] == frames[1]


def test_quotes_are_made_of_books_unless_those_of_tickers_are_wished_for() -> None:
    assert VENUE.rules["spot"].quote_from_book
    cheap = configured(quote_source="ticker")
    assert not cheap.rules["spot"].quote_from_book
    assert cheap.codec.streams("quote", BTC)[0].name == "ticker:BTC-USD"
    assert VENUE.codec.streams("quote", BTC) == VENUE.codec.streams("book", BTC)


@pytest.mark.parametrize("name", ["organizations/o/apiKeys/k", "a bare id"])
def test_a_key_signs_requests(name: str) -> None:
    codec = configured(api_key=name, api_secret=SECRET).codec
    assert isinstance(codec, CoinbaseCodec)
    assert codec.key is not None
    frame = codec.subscribe(
        VENUE.feed("spot"), codec.streams("trade", BTC), request_id=1, now_ns=1, account=None
    )
    assert orjson.loads(frame)["jwt"].count(".") == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quote_source": "trades"}, "quote_source"),
        ({"api_key": "k"}, "api_secret"),
        ({"api_secret": SECRET}, "api_key"),
        ({"api_key": "k", "api_secret": "nonsense"}, "expected the PEM text"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        configured(**settings)


def test_secrets_are_not_shown() -> None:
    assert "kkkk" not in repr(CoinbaseSettings(api_key="kkkk", api_secret=SECRET))
    assert SECRET not in repr(CoinbaseSettings(api_key="kkkk", api_secret=SECRET))
    secret = [field.name for field in attrs.fields(CoinbaseSettings) if field.metadata == {"secret": True}]
    assert secret == ["api_key", "api_secret"]


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for field in attrs.fields(CoinbaseSettings):
        assert f"| `{field.name}` | `{orjson.dumps(field.default).decode()}` |" in readme
    for key, url in VENUE.endpoints.items():
        assert f"| `{key}` | `{url}` |" in readme
