"""Real frames of 2024 to 2026, decoded: what each becomes.

They are single messages and no sessions, so nothing can be said of their order. The recordings are not part of
this repository: `PRICEFEEDD_CAPTURES` names their folder, by default `shared/captures` beside the checkout. Without
it these tests are skipped.
"""

from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest

from pricefeedd.codec import Accepted, Refused
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Quote, Side, Ticker, Trade
from pricefeedd.rules import Verdict
from pricefeedd.testing.capture import frames, read_capture
from pricefeedd.testing.laws import check_event
from pricefeedd_bingx.venue import bingx

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "bingx"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = bingx()
FEEDS = {"swap": "linear", "spot": "spot"}
NAMES = {"BTC-USDT": "BTC", "ETH-USDT": "ETH"}
RECEIVED_NS = 1_790_373_640_000_000_000


@attrs.frozen
class Said:
    """One frame and what it says."""

    topic: str
    raw: Any
    items: list[Any]


def load(file: str, *, packed: bool = True) -> list[Said]:
    found = []
    for text in frames(read_capture(_FOLDER / f"{file}.ws.capture")):
        raw = orjson.loads(text)
        frame = gzip.compress(text) if packed else text
        items = VENUE.codec.decode(frame, feed=VENUE.feed(FEEDS[file]), names=NAMES, received_ns=RECEIVED_NS)
        found.append(Said(raw.get("dataType") or "", raw, list(items)))
    return found


def of(file: str, kind: type[Any]) -> list[Any]:
    return [item for said in load(file) for item in said.items if isinstance(item, kind)]


@pytest.mark.parametrize("file", FEEDS)
def test_every_frame_is_understood_packed_or_not(file: str) -> None:
    assert load(file) == load(file, packed=False)
    for said in load(file):
        for item in said.items:
            if isinstance(item, Event):
                check_event(item, venue="bingx")


def test_what_the_files_hold() -> None:
    def kinds(file: str) -> Counter[str]:
        return Counter(type(item).__name__ for said in load(file) for item in said.items)

    # Of three quotes of swaps one is 22 minutes old and left out; two books of the best levels are quotes.
    # Requests of others have ids that are not ours: their acks say nothing, their refusals are kept.
    assert kinds("swap") == {
        "Trade": 25, "Candle": 2, "Ticker": 5, "Quote": 4, "BookSnapshot": 1, "BookDelta": 2, "Refused": 1,
    }  # fmt: skip
    assert kinds("spot") == {"Trade": 1, "Candle": 1, "BookSnapshot": 2, "Ticker": 1, "Quote": 1}


def test_what_says_nothing_is_what_we_do_not_ask_for() -> None:
    silent = Counter(said.topic.partition("@")[2] for file in FEEDS for said in load(file) if not said.items)
    assert silent == {"lastPrice": 4, "": 3, "kline_8hour": 1, "bookTicker": 1}
    assert not [said for file in FEEDS for said in load(file) if Accepted in map(type, said.items)]


def test_trades_of_swaps() -> None:
    trades = of("swap", Trade)
    eth, btc = trades[:23], trades[23:]
    times = [t.venue_time_ns // 1_000_000 for t in eth]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (1714650252503, 1714650253104)
    assert (eth[0].price, eth[0].size, eth[0].aggressor) == ("2984.42", "6.78", Side.BUY)
    assert (eth[-1].price, eth[-1].size) == ("2983.48", "1.92")
    equal = [(t.price, t.size, t.venue_time_ns, t.aggressor) for t in eth]
    assert len(set(equal)) == 8, "equal rows are trades of their own"
    # Both in one millisecond: the reverse of the order in the frame.
    assert [(t.price, t.size, t.aggressor) for t in btc] == [
        ("121926.9", "0.0551", Side.SELL),
        ("121934.9", "0.0162", Side.BUY),
    ]


def test_quotes_of_swaps() -> None:
    told = [
        (q.instrument, q.bid_price, q.bid_size, q.ask_price, q.ask_size, q.sequence)
        for q in of("swap", Quote)
    ]
    assert told == [
        ("ETH", "2990.64", "14.13", "2990.71", "15.26", None),
        ("ETH", "2993.59", "13.24", "2993.67", "9.78", 309869207),
        ("BTC", "121825.7", "7.7622", "121825.9", "9.2345", None),
        ("BTC", "121584.1", "18.7084", "121584.3", "4.9602", 578534658),
    ]


def test_books_of_swaps() -> None:
    book = VENUE.rules["linear"].book
    assert book is not None
    lone, _ = of("swap", BookDelta)
    (whole,), (_, change) = of("swap", BookSnapshot), of("swap", BookDelta)
    assert (len(lone.bids), len(lone.asks), lone.sequence) == (16, 35, 393592635)
    assert (whole.sequence, change.sequence) == (857550007, 857550008)
    assert book.joins(whole.sequence, change) is Verdict.APPLY
    assert change.asks == [["87169.5", "0.0000"], ["87169.0", "0.0000"], ["87168.9", "0.0000"]]
    assert whole.venue_time_ns == 1_790_127_586_998_000_000


def test_tickers() -> None:
    swap = [(t.last, t.mark_price, t.volume_24h, t.turnover_24h) for t in of("swap", Ticker)]
    assert swap == [
        ("2986.23", None, "608870.36", None),
        (None, "2999.63", None, None),
        ("121621.7", None, "17030.6463", None),
        (None, "121570.0", None, None),
        (None, "86379.1", None, None),
    ]
    (spot,) = of("spot", Ticker)
    assert (spot.last, spot.high_24h, spot.turnover_24h) == ("121299.61", "123750", "375356180.14")


def test_minutes() -> None:
    swap = [(c.start_ns // 1_000_000, c.open, c.close, c.volume, c.closed) for c in of("swap", Candle)]
    assert swap == [
        (1714650540000, "2991.50", "2989.57", "215.89", False),
        (1759997460000, "121684.1", "121697.7", "5.8244", False),
    ]
    (spot,) = of("spot", Candle)
    assert (spot.start_ns // 1_000_000, spot.close, spot.trades) == (1760066280000, "121137.93299999999", 4)


def test_spot() -> None:
    (trade,) = of("spot", Trade)
    assert (trade.id, trade.price, trade.size, trade.aggressor) == (
        "172356086", "121123.47", "0.003189", Side.SELL,
    )  # fmt: skip
    old, new = of("spot", BookSnapshot)
    assert (len(old.bids), len(old.asks), old.sequence, old.venue_time_ns) == (20, 20, None, None)
    assert (len(new.bids), len(new.asks), new.sequence) == (50, 50, 14669994934)
    assert min(new.asks, key=lambda level: float(level[0])) == ["121228.63", "0.000150"]
    assert max(new.bids, key=lambda level: float(level[0])) == ["121228.61", "0.000321"]


def test_a_refusal_of_somebody_elses_request() -> None:
    (refused,) = of("swap", Refused)
    assert (refused.reason, refused.request_id) == ("dataType not support (code 80015)", None)


def test_frames_of_coin_margined_swaps_are_passed_over() -> None:
    """Their market is not served; their shapes differ, and nothing of them may be taken for something else."""
    for text in frames(read_capture(_FOLDER / "coinm.ws.capture")):
        for feed in VENUE.feeds:
            items = VENUE.codec.decode(text, feed=feed, names=NAMES, received_ns=RECEIVED_NS)
            assert not [item for item in items if isinstance(item, Event)]


@pytest.mark.parametrize("file", FEEDS)
def test_frames_cut_short_are_refused(file: str) -> None:
    for text in frames(read_capture(_FOLDER / f"{file}.ws.capture")):
        packed = gzip.compress(text)
        for broken in (text[:-1], packed[:-1], packed[: len(packed) // 2]):
            with pytest.raises(DecodeError):
                VENUE.codec.decode(broken, feed=VENUE.feed(FEEDS[file]), names=NAMES, received_ns=1)
