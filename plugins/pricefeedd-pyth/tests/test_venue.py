"""The declaration: what the daemon reads before it dials."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pluggy
import pytest

import pricefeedd_pyth
from pricefeedd.hookspecs import Specs
from pricefeedd.rules import EmptyMinutes
from pricefeedd.testing.simulated import SimulatedVenue
from pricefeedd.venue import Ack, Transport
from pricefeedd_pyth.codec import PythCodec
from pricefeedd_pyth.rest import PythRest
from pricefeedd_pyth.venue import PythSettings, pyth

VENUE = pyth()
FEED = VENUE.feed("oracle")


def test_the_entry_point_brings_the_venue_and_its_simulator() -> None:
    (point,) = entry_points(group="pricefeedd", name="pyth")
    assert point.load() is pricefeedd_pyth
    manager = pluggy.PluginManager("pricefeedd")
    manager.add_hookspecs(Specs)
    manager.register(pricefeedd_pyth)
    manager.check_pending()
    ((venue,),) = manager.hook.pricefeedd_venues()
    assert (venue.name, venue.api_version) == ("pyth", 1)
    (fakes,) = manager.hook.pricefeedd_fakes()
    fake = fakes["pyth"](history_minutes=1)
    assert isinstance(fake, SimulatedVenue)
    assert set(fake.endpoints("x:1")) == set(VENUE.endpoints)
    assert {listing.market for listing in fake.market.listings.values()} == {"oracle"}


def test_everything_that_is_named_exists() -> None:
    assert (FEED.market, VENUE.markets) == ("oracle", ("oracle",))
    assert FEED.endpoint in VENUE.endpoints
    assert FEED.connect_budget in {budget.name for budget in VENUE.budgets}
    for endpoints in VENUE.environments.values():
        assert set(endpoints) == set(VENUE.endpoints)


def test_minutes_are_made_of_prices_and_need_not_exist() -> None:
    rules = VENUE.rules["oracle"]
    assert (rules.book, rules.trade) == (None, None)
    assert rules.candle is not None
    assert (rules.candle.built_from, rules.candle.empty) == ("price", EmptyMinutes.NONE)


def test_the_stream() -> None:
    assert (FEED.transport, FEED.ack) == (Transport.SSE, Ack.STREAM)
    assert FEED.silence_s > 15, "comments come after 15 s without an event"
    assert FEED.lifetime_s is not None
    assert FEED.lifetime_s <= 23 * 3600
    assert FEED.ping_interval_s is None


def test_settings_reach_codec_and_rest() -> None:
    venue = VENUE.configure(VENUE, PythSettings(api_key="k", asset_types=("crypto", "fx")))
    assert isinstance(venue.codec, PythCodec)
    assert isinstance(venue.rest, PythRest)
    assert (venue.codec.api_key, venue.rest.api_key) == ("k", "k")
    assert venue.rest.asset_types == ("crypto", "fx")


def test_the_key_is_a_secret() -> None:
    settings = PythSettings(api_key="do not show")
    assert "do not show" not in repr(settings)
    assert "do not show" not in repr(VENUE.configure(VENUE, settings))
    assert attrs.fields_dict(PythSettings)["api_key"].metadata == {"secret": True}


def test_kinds_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="asset_types"):
        PythSettings(asset_types=("stocks",))


def test_the_readme_tells_the_true_defaults() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert '| `api_key` | `""` |' in readme
    assert "| `asset_types` | `[]` |" in readme
    for key, url in VENUE.endpoints.items():
        assert f"| `{key}` | `{url}` | `{VENUE.environments['testnet'][key]}` |" in readme
