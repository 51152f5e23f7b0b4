"""Real traffic of 2023 to 2026, frame by frame: counts, checksums and the books at the end.

The recordings come from public repositories that are named in their folder's README. They are not part of this
repository: `PRICEFEEDD_CAPTURES` names their folder, by default `shared/captures` beside the checkout. Without it
these tests are skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pricefeedd.book import BookSync
from pricefeedd.codec import Accepted, Closing, Refused
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Origin, Quote, Ticker, Trade
from pricefeedd.testing.capture import What, read_capture
from pricefeedd_kraken.rules import checksum
from pricefeedd_kraken.venue import KrakenSettings, kraken

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "kraken"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = kraken()
SYMBOLS = ("BTC/USD", "MINA/GBP", "ETH/USD", "BTC/USDT")
NAMES = {symbol: symbol.replace("/", "-") for symbol in SYMBOLS}


def replay(file: str) -> list[tuple[bytes, list[Any]]]:
    """Return each frame with what it says."""
    read = []
    for record in read_capture(_FOLDER / f"{file}.ws.capture"):
        assert record.what is What.RECEIVED
        frame = record.text.encode()
        said = VENUE.codec.decode(frame, feed=VENUE.feed("spot"), names=NAMES, received_ns=record.time_ns)
        read.append((frame, list(said)))
    return read


#: Depth, frames, snapshots, updates, and best bid and ask at the end, as computed elsewhere.
BOOKS = {
    "spot": (25, 96, 2, 17, ("0.0294", "19647.14589494"), ("0.0295", "27322.32050993")),
    "spot-book-minagbp-20260816": (
        25, 92, 1, 29, ("0.0286", "74198.19125726"), ("0.0288", "32416.38964164"),
    ),
    "spot-book-btcusd-20230730": (
        10, 510, 1, 509, ("29430.4", "11.93517449"), ("29430.5", "0.00560461"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", BOOKS)
def test_all_checksums_hold_and_books_end_as_computed_elsewhere(file: str) -> None:
    depth, frames, snapshots, updates, bid, ask = BOOKS[file]
    rule = VENUE.configure(VENUE, KrakenSettings(book_depth=depth)).rules["spot"].book
    assert rule is not None
    sync = BookSync(rule)
    kinds: Counter[str] = Counter()
    read = replay(file)
    for _, said in read:
        for one in said:
            kinds[type(one).__name__] += 1
            if isinstance(one, BookSnapshot):
                assert isinstance(sync.snapshot(one), list)
            elif isinstance(one, BookDelta):
                # A wrong checksum would be `Broken`, and never a list.
                assert isinstance(sync.delta(one), list)
            else:
                continue
            assert checksum(sync.book.bids.levels(), sync.book.asks.levels()) == one.checksum
    assert len(read) == frames
    assert (kinds["BookSnapshot"], kinds["BookDelta"]) == (snapshots, updates)
    assert (len(sync.book.bids), len(sync.book.asks)) == (depth, depth)
    assert tuple(sync.book.bids.levels(1)[0]) == bid
    assert tuple(sync.book.asks.levels(1)[0]) == ask


def test_a_book_that_is_not_cut_rots() -> None:
    """The counter-example: without the cut, levels stay that Kraken no longer has."""
    rule = VENUE.configure(VENUE, KrakenSettings(book_depth=1000)).rules["spot"].book
    assert rule is not None
    sync = BookSync(rule)
    for _, said in replay("spot-book-btcusd-20230730"):
        for one in said:
            if isinstance(one, BookSnapshot):
                sync.snapshot(one)
            elif isinstance(one, BookDelta) and not isinstance(sync.delta(one), list):
                return
    raise AssertionError("the checksums should have told")


def test_the_venues_own_test_vector() -> None:
    book = next(
        one
        for _, said in replay("spot-book-minagbp-20260816")
        for one in said
        if isinstance(one, BookSnapshot)
    )
    assert checksum(book.bids, book.asks) == book.checksum == 2570005138


def test_channels_of_several_sessions() -> None:
    read = replay("spot-channels-2024")
    said = [one for _, some in read for one in some]
    assert Counter(type(one).__name__ for one in said) == {
        # Four acks (that of `instrument` names no symbol), and the proofs of three snapshots.
        "Accepted": 7,
        "Refused": 2,
        "Closing": 1,
        "Quote": 2,
        "Ticker": 2,
        "Candle": 2,
        "Trade": 4,
    }
    assert len(read) == 19
    trades = [one for one in said if isinstance(one, Trade)]
    assert [(t.id, t.origin) for t in trades] == [
        ("70635251", Origin.BACKFILL),
        ("70635252", Origin.BACKFILL),
        ("70635299", Origin.LIVE),
        ("70635300", Origin.LIVE),
    ]
    assert [q.bid_price for q in said if isinstance(q, Quote)] == ["65972.8", "65843.7"]
    assert [t.volume_24h for t in said if isinstance(t, Ticker)] == ["4216.61829370", "4182.59447976"]
    assert [c.closed for c in said if isinstance(c, Candle)] == [True, False]
    assert [one for one in said if isinstance(one, Closing)] == [
        Closing("CloudFlare WebSocket proxy restarting")
    ]
    assert {one.reason for one in said if isinstance(one, Refused)} == {
        "Unsupported event",
        "Currency pair not supported WWW/USD",
    }


def test_candles_with_a_minute_that_had_no_trades() -> None:
    (_, snapshot), (_, refusal) = replay("spot-ohlc-20260910")
    assert snapshot[0] == Accepted(streams=("ohlc:BTC/USDT",))
    candles = [one for one in snapshot if isinstance(one, Candle)]
    minutes = [(c.start_ns - candles[0].start_ns) // 60_000_000_000 for c in candles]
    assert (minutes, [c.closed for c in candles]) == ([0, 1, 3], [True, True, False])
    assert refusal == [Refused(reason="Currency pair not supported XBT/USDT")]


def test_private_frames_say_nothing_here() -> None:
    """Accounts are not served, and their frames do no harm."""
    said = [one for _, some in replay("private-2024") for one in some]
    assert not said
