"""Real events and answers of Hermes, 2024 and 2026.

The recordings come from public repositories that are named in their folder's README. They are not part of this
repository: `PRICEFEEDD_CAPTURES` names their folder, by default `shared/captures` beside the checkout. Without it
these tests are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pricefeedd.codec import Accepted
from pricefeedd.events import Price
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply
from pricefeedd.testing.capture import read_capture
from pricefeedd_pyth.venue import pyth

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "pyth"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = pyth()
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
IDS = {
    "BTC-USD": BTC,
    "AAPL-USD": "49f6b65cb1de6b10eaf75e7c03ca029c306d0357e91b5311b175084a5ad55688",
    "TSLA-USD": "16dad506d7db8da01c87581c87ca897a012a153557d4d578c3b9c9e1bc0632f1",
}


def test_events_of_the_stream() -> None:
    prices = []
    for record in read_capture(_FOLDER / "btcusd.sse.capture"):
        shown, price = VENUE.codec.decode(
            record.text.encode(),
            feed=VENUE.feed("oracle"),
            names={BTC: "BTC-USD"},
            received_ns=record.time_ns,
        )
        assert shown == Accepted(streams=(BTC,), complete=True)
        assert isinstance(price, Price)
        prices.append(price)
    assert [(p.price, p.conf, p.publish_time_ns, p.slot) for p in prices] == [
        ("61632.60000000", "32.68548079", 1714748300_000_000_000, 138886134),
        ("61630.88000000", "33.08129843", 1714748301_000_000_000, 138886135),
    ]


def test_latest_prices() -> None:
    instruments = [
        Instrument(
            venue="pyth",
            market="oracle",
            name=name,
            symbol=feed_id,
            kind=Kind.ORACLE,
            base=name.partition("-")[0],
            quote="USD",
        )
        for name, feed_id in IDS.items()
    ]
    call = VENUE.rest.latest(instruments)  # type: ignore[attr-defined]  # beyond what every venue has
    found: list[Price] = []
    for record in read_capture(_FOLDER / "latest.rest.capture"):
        body = record.text.encode()
        found += call.parse(HttpReply(status=200, body=body, received_ns=record.time_ns)).items
    assert [(p.instrument, p.price, p.conf) for p in found] == [
        ("BTC-USD", "61409.93501000", "32.87868567"),
        ("AAPL-USD", "332.23750", "0.15272"),
        ("TSLA-USD", "305.57932", "0.59461"),
    ]
