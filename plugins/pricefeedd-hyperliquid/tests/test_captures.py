"""Real traffic of 2024 to 2026, frame by frame: counts, trades, minutes and books.

The recordings were put together from public repositories; their README names each source. They are not part of this
repository: `PRICEFEEDD_CAPTURES` names their folder, by default `shared/captures` beside the checkout. Without
it these tests are skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from pricefeedd.book import BookSync
from pricefeedd.codec import Accepted, Refused, Signal
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookSnapshot, Candle, Event, Origin, Quote, Side, Ticker, Trade
from pricefeedd.testing.capture import Record, What, read_capture
from pricefeedd.testing.laws import check_event
from pricefeedd_hyperliquid.testing import tape
from pricefeedd_hyperliquid.venue import hyperliquid

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "hyperliquid"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = hyperliquid()
COINS = ("AAVE", "BANANA", "BTC", "FXS", "MATIC", "MOODENG", "PURR", "SHIA", "SOL", "@2", "@162")
NAMES = {coin: f"{coin}-USD-PERP" for coin in COINS}

#: Events and signals by file. The files of accounts hold nothing for us, and nothing that cannot be read.
EXPECTED = {
    "perp": {BookSnapshot: 46, Trade: 64},
    "perp-candle-20250320": {Candle: 6},
    "perp-purr-20250116": {BookSnapshot: 3, Trade: 1},
    "perp-mainnet-2026": {Accepted: 1, Trade: 4, Quote: 3, Ticker: 3, Candle: 2, BookSnapshot: 1},
    "perp-testnet-20260728": {Accepted: 1, Trade: 2, BookSnapshot: 2, Quote: 1, Refused: 1},
    "mixed-2024": {Trade: 6, BookSnapshot: 2, Ticker: 2, Quote: 1},
    "mixed-2025": {Accepted: 1, Quote: 1, Trade: 1, Ticker: 1, BookSnapshot: 1},
    "private-testnet-20260728": {},
    "private-2026": {},
}


def received(file: str) -> list[Record]:
    return [r for r in read_capture(_FOLDER / f"{file}.ws.capture") if r.what is What.RECEIVED]


def said(file: str) -> list[Event | Signal]:
    feed = VENUE.feed("linear")
    return [
        one
        for record in received(file)
        for one in VENUE.codec.decode(
            record.text.encode(), feed=feed, names=NAMES, received_ns=record.time_ns
        )
    ]


def of(kind: type[Any], file: str) -> list[Any]:
    return [one for one in said(file) if isinstance(one, kind)]


def test_no_file_is_left_out() -> None:
    assert {path.name.partition(".")[0] for path in _FOLDER.glob("*.capture")} == set(EXPECTED)


@pytest.mark.parametrize("file", EXPECTED)
def test_every_frame_is_understood(file: str) -> None:
    everything = said(file)
    assert Counter(type(one) for one in everything) == EXPECTED[file]
    for one in everything:
        if isinstance(one, Event):
            check_event(one, venue="hyperliquid")


@pytest.mark.parametrize("file", EXPECTED)
def test_frames_cut_short_are_refused(file: str) -> None:
    for record in received(file):
        with pytest.raises(DecodeError):
            VENUE.codec.decode(
                record.text[:-1].encode(), feed=VENUE.feed("linear"), names=NAMES, received_ns=1
            )


def test_trades_begin_with_thirty_of_the_past() -> None:
    trades = of(Trade, "perp")
    assert len({(t.instrument, t.id, t.venue_time_ns) for t in trades}) == 64
    times = [t.venue_time_ns for t in trades]
    assert times == sorted(times)
    past = [t for t in trades if t.origin is Origin.BACKFILL]
    assert past == trades[: len(past)]
    # All of the first frame but its newest rows, which may as well be live ones.
    assert 25 <= len(past) <= 30
    assert {t.origin for t in trades[30:]} == {Origin.LIVE}


def test_a_replay_from_a_minute_ago_is_of_the_past() -> None:
    assert [t.origin for t in of(Trade, "perp-testnet-20260728")] == [Origin.BACKFILL] * 2


def test_the_aggressor_is_told_by_the_side() -> None:
    one, other = of(Trade, "perp-mainnet-2026")[2:]
    assert (one.aggressor, one.price, one.id) == (Side.BUY, "83770.0", "437413095582311")
    assert (other.aggressor, other.price) == (Side.SELL, "83769.0")


def test_the_book_at_the_end() -> None:
    rule = VENUE.rules["linear"].book
    assert rule is not None
    books = of(BookSnapshot, "perp")
    sync = BookSync(rule)
    for book in books:
        assert isinstance(sync.snapshot(book), list), "no book is crossed"
    last = sync.current(books[-1])
    assert (last.bids[0], last.asks[0]) == (("105050.0", "1.12931"), ("105051.0", "6.13423"))
    assert {len(side) for book in books for side in (book.bids, book.asks)} == {20}
    assert sum(a.venue_time_ns == b.venue_time_ns for a, b in pairwise(books)) == 1


def test_a_minutes_last_word_comes_after_its_end() -> None:
    first, *others = of(Candle, "perp-candle-20250320")
    (record, *_) = received("perp-candle-20250320")
    assert record.time_ns - (first.start_ns + 60_000_000_000) == 156_187_000
    assert {candle.start_ns - first.start_ns for candle in others} == {60_000_000_000}
    assert not any(candle.closed for candle in (first, *others))
    assert [candle.trades for candle in others] == sorted(candle.trades for candle in others)


def test_a_delisted_coin_has_nulls_and_nothing() -> None:
    (quote,) = (q for q in of(Quote, "perp-mainnet-2026") if q.instrument == "MATIC-USD-PERP")
    assert quote.bid_price is quote.bid_size is quote.ask_price is quote.ask_size is None
    (book,) = of(BookSnapshot, "perp-mainnet-2026")
    assert (list(book.bids), list(book.asks)) == ([], [])
    (ticker,) = (t for t in of(Ticker, "perp-mainnet-2026") if t.instrument == "MATIC-USD-PERP")
    assert (ticker.mark_price, ticker.funding_rate) == ("0.37621", "0.0")


def test_acks_and_errors_are_told_by_their_content() -> None:
    assert of(Accepted, "perp-mainnet-2026") == [Accepted(streams=("bbo:BTC",))]
    (refused,) = of(Refused, "perp-testnet-20260728")
    assert refused.reason.startswith("Error parsing JSON into valid websocket request")
    assert refused.streams == (), "a kind of stream that we never ask for"


def test_fast_books_have_five_levels() -> None:
    books = of(BookSnapshot, "perp-testnet-20260728")
    assert [(len(book.bids), len(book.asks)) for book in books] == [(5, 5), (5, 5)]


def test_every_frame_of_data_is_on_the_tape_under_its_streams_name() -> None:
    for file in EXPECTED:
        stream_of = tape(_FOLDER / f"{file}.ws.capture").stream_of
        for record in received(file):
            place = stream_of(record.text)
            decoded = VENUE.codec.decode(
                record.text.encode(), feed=VENUE.feed("linear"), names=NAMES, received_ns=record.time_ns
            )
            assert (place is not None) == any(isinstance(one, Event) for one in decoded)
            if place is not None:
                coin = place[1].partition(":")[2]
                assert coin in record.text
                assert orjson.loads(record.text)["channel"] != "pong"
