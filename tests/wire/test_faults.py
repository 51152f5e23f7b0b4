"""Every fault of a venue, injected: what readers saw, and that data is complete and in order afterwards.

These are the checks of the conformance kit, against Binance. The whole pipeline runs against the plugin's fake over
streams in memory, under Trio's mock clock. The gate plays them against every plugin, by `pricefeedd plugin-test`;
what is a venue's alone is tested in its plugin.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pricefeedd.loader import load_plugins
from pricefeedd.testing.conformance import conformance_tests
from pricefeedd.testing.conformance.run import cast_of

pytestmark = pytest.mark.timeout(600)  # a day of mock time is long on a busy machine

_FOLDERS = sorted(Path(__file__).parents[2].glob("plugins/pricefeedd-*"))

TestConformance = conformance_tests("binance")


def test_every_venue_of_ours_can_be_played() -> None:
    declared = load_plugins().venues
    ours = {folder.name.removeprefix("pricefeedd-") for folder in _FOLDERS} & set(declared)
    assert len(ours) == 9
    for name in ours:
        assert {cast.market for cast in cast_of(name)} == set(declared[name].markets)
