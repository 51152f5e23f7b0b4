"""Real traffic, frame by frame: counts, numbers, trades and the books at the end.

The recordings are no part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default
`shared/captures` beside the checkout. Without it these tests are skipped. The numbers that are expected here
were computed from the files alone, and stand in that folder's README.
"""

from __future__ import annotations

import os
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from pricefeedd.codec import Accepted, Count
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Event, Origin, Side, Trade
from pricefeedd.testing.capture import What, read_capture
from pricefeedd_coinbase.venue import coinbase

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "coinbase"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = coinbase()
NAMES = {name: name for name in ("BTC-USD", "ETH-USD", "ETH-USDT")}


def said(file: str) -> list[Any]:
    """Return all that a capture says."""
    found: list[Any] = []
    for record in read_capture(_FOLDER / f"{file}.ws.capture"):
        assert record.what is What.RECEIVED
        found += VENUE.codec.decode(
            record.text.encode(), feed=VENUE.feed("spot"), names=NAMES, received_ns=record.time_ns
        )
    return found


def test_the_session_is_numbered_without_a_hole() -> None:
    assert [one.number for one in said("spot") if isinstance(one, Count)] == list(range(31))


def test_every_frame_says_what_it_should() -> None:
    kinds = Counter(type(one).__name__ for one in said("spot"))
    # Each of the four snapshots shows that its stream was accepted, and three answers say so besides.
    assert kinds == {"Count": 31, "BookSnapshot": 2, "BookDelta": 22, "Trade": 41, "Accepted": 7}


def test_answers_name_everything() -> None:
    answers = [one for one in said("spot") if isinstance(one, Accepted) and one.complete]
    books = ("level2:BTC-USD", "level2:ETH-USD")
    trades = ("market_trades:BTC-USD", "market_trades:ETH-USD")
    assert [set(answer.streams) for answer in answers] == [
        set(books),
        {*books, *trades},
        {"heartbeats", *books, *trades},
    ]


def test_trades_are_without_a_hole_and_oldest_first() -> None:
    trades = [one for one in said("spot") if isinstance(one, Trade)]
    ids = {name: [int(t.id or 0) for t in trades if t.instrument == name] for name in ("BTC-USD", "ETH-USD")}
    assert ids["BTC-USD"] == list(range(1100253468, 1100253489))
    assert ids["ETH-USD"] == list(range(846155127, 846155147))
    (live,) = (t for t in trades if t.origin is Origin.LIVE)
    assert (live.id, live.aggressor) == ("1100253488", Side.BUY)
    assert live.venue_time_ns == 1_790_735_993_977_543_000


BOOKS = {
    "BTC-USD": ("83277.25", "0.03607848", "83277.26", "0.0105191"),
    "ETH-USD": ("2666.08", "3.37668743", "2666.19", "0.19750683"),
}


def test_books_end_as_computed_elsewhere() -> None:
    removals = 0
    for name, top in BOOKS.items():
        sides: dict[str, dict[Decimal, Decimal]] = {"bids": {}, "asks": {}}
        for one in said("spot"):
            if not isinstance(one, BookSnapshot | BookDelta) or one.instrument != name:
                continue
            assert one.venue_time_ns is not None
            assert 0 < one.received_ns - one.venue_time_ns < 1_000_000_000
            for side, levels in (("bids", one.bids), ("asks", one.asks)):
                for price, size in levels:
                    if Decimal(size):
                        sides[side][Decimal(price)] = Decimal(size)
                    else:
                        removals += sides[side].pop(Decimal(price), None) is None
            assert max(sides["bids"]) < min(sides["asks"]), f"{name} is crossed"
        bid, ask = max(sides["bids"]), min(sides["asks"])
        assert (bid, sides["bids"][bid], ask, sides["asks"][ask]) == tuple(map(Decimal, top))
    assert removals == 39


def test_trades_of_2024() -> None:
    found = said("trades")
    assert [one.number for one in found if isinstance(one, Count)] == [1, 2]
    trades = [one for one in found if isinstance(one, Trade)]
    assert [(t.id, t.price, t.size, t.aggressor) for t in trades] == [
        ("22381690", "2375.56", "0.5", Side.SELL),
        ("22381691", "2375.56", "0.5", Side.SELL),
    ]


def test_heartbeats_of_2024() -> None:
    assert said("heartbeats") == [Count(0), Accepted(streams=("heartbeats",), complete=True), Count(1)]


def test_the_user_host_has_the_same_envelope() -> None:
    found = said("user")
    assert [one.number for one in found if isinstance(one, Count)] == [0, 1, 3], "2 is not in the recording"
    assert [one.streams for one in found if isinstance(one, Accepted)] == [("user",)]
    assert not [one for one in found if isinstance(one, Event)]


def test_frames_cut_short_are_refused() -> None:
    for record in read_capture(_FOLDER / "spot.ws.capture"):
        with pytest.raises(DecodeError):
            VENUE.codec.decode(record.text[:-1].encode(), feed=VENUE.feed("spot"), names=NAMES, received_ns=1)


def test_client_id_makes_no_difference() -> None:
    record = read_capture(_FOLDER / "spot.ws.capture")[22]
    body = orjson.loads(record.text) | {"client_id": ""}
    both = [
        list(VENUE.codec.decode(frame, feed=VENUE.feed("spot"), names=NAMES, received_ns=1))
        for frame in (record.text.encode(), orjson.dumps(body))
    ]
    assert both[0] == both[1]
