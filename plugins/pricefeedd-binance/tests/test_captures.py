"""Real traffic of 2021, frame by frame: counts, sequences and the books at the end.

The recordings are those of cryptofeed's sample data (github.com/bmoscon/cryptofeed, commit ce58c2a0). They are not
part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default `shared/captures` beside the
checkout. Without it these tests are skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event
from pricefeedd.instruments import InstrumentMap
from pricefeedd.rest import HttpReply
from pricefeedd.rules import Verdict
from pricefeedd.testing.capture import Record, What, read_capture
from pricefeedd_binance.venue import binance

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "binance"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = binance()
MARKETS = {"spot": "spot", "usdm": "linear", "coinm": "inverse"}


@attrs.frozen(kw_only=True)
class Capture:
    """One recording, decoded."""

    market: str
    names: InstrumentMap
    frames: int
    events: list[Event]
    snapshots: dict[str, BookSnapshot]


def load(file: str) -> Capture:
    market = MARKETS[file]
    replies = [r for r in read_capture(_FOLDER / f"{file}.rest.capture") if r.what is What.REPLY]
    (listing,) = (r for r in replies if r.url.endswith("/exchangeInfo"))
    names = InstrumentMap("binance", market, VENUE.rest.instruments(market).parse(_reply(listing)).items)
    snapshots = {}
    for record in replies:
        if "/depth?" in record.url:
            (symbol,) = parse_qs(urlsplit(record.url).query)["symbol"]
            call = VENUE.rest.book(names.find(symbol))
            assert call is not None
            (book,) = call.parse(_reply(record)).items
            snapshots[symbol] = book
    feed = next(feed for feed in VENUE.feeds if feed.market == market)
    received = [r for r in read_capture(_FOLDER / f"{file}.ws.capture") if r.what is What.RECEIVED]
    events: list[Event] = []
    for record in received:
        (said,) = VENUE.codec.decode(
            record.text.encode(), feed=feed, names=names.names, received_ns=record.time_ns
        )
        assert isinstance(said, Event)
        events.append(said)
    return Capture(market=market, names=names, frames=len(received), events=events, snapshots=snapshots)


def _reply(record: Record) -> HttpReply:
    return HttpReply(status=200, body=record.text.encode(), received_ns=record.time_ns)


@pytest.fixture(scope="module", params=list(MARKETS))
def capture(request: pytest.FixtureRequest) -> tuple[str, Capture]:
    return request.param, load(request.param)


COUNTS = {
    "spot": {"book": 177, "quote": 84, "trade": 2, "candle_1m": 2},
    "usdm": {"book": 764, "quote": 613, "trade": 91, "candle_1m": 67},
    "coinm": {"book": 1677, "quote": 1887, "trade": 46, "candle_1m": 30},
}
CLOSED = {"spot": 0, "usdm": 4, "coinm": 0}
LISTED = {"spot": 1695, "usdm": 122, "coinm": 36}
#: Pairs of consecutive deltas of one symbol, and how many of them the spot rule would take.
PAIRS = {"spot": (173, 173), "usdm": (760, 0), "coinm": (1667, 6)}

#: Stale deltas, applied ones, the last number, the best bid and the best ask.
BOOKS = {
    "spot": {
        "NKNUSDT": (1, 149, 499870179, "0.3527", "9602", "0.3531", "152"),
        "BLZETH": (1, 9, 281916638, "0.00006547", "100", "0.0000656", "1528"),
        "LRCBTC": (2, 13, 259345563, "0.00000637", "2500", "0.00000638", "2285"),
        "RUNEEUR": (1, 1, 15602513, "6.251", "69.3", "6.269", "69.3"),
    },
    "usdm": {
        "SUSHIUSDT": (3, 252, 600860425198, "7.6120", "303", "7.6160", "267"),
        "AKROUSDT": (1, 188, 600860423964, "0.01734", "502", "0.01735", "50697"),
        "KEEPUSDT": (3, 132, 600860420312, "0.2463", "249", "0.2467", "9047"),
        "CTKUSDT": (5, 180, 600860423222, "1.011", "1698", "1.012", "10123"),
    },
    "coinm": {
        "BTCUSD_211231": (36, 152, 167006233131, "32621.2", "97", "32621.3", "17"),
        "ETHUSD_210924": (30, 180, 167006233151, "1990.37", "1375", "1990.38", "603"),
        "XRPUSD_PERP": (35, 146, 167006232685, "0.5661", "3466", "0.5662", "1443"),
        "BCHUSD_PERP": (7, 171, 167006232206, "427.77", "225", "427.78", "636"),
    },
}


def deltas_of(capture: Capture, symbol: str) -> list[BookDelta]:
    name = capture.names.find(symbol).name
    return [e for e in capture.events if isinstance(e, BookDelta) and e.instrument == name]


def test_every_frame_is_one_event_of_the_right_kind(capture: tuple[str, Capture]) -> None:
    file, read = capture
    assert Counter(event.channel for event in read.events) == COUNTS[file]
    assert read.frames == sum(COUNTS[file].values())
    assert sum(e.closed for e in read.events if isinstance(e, Candle)) == CLOSED[file]


def test_every_listed_symbol_becomes_an_instrument_of_its_own(capture: tuple[str, Capture]) -> None:
    file, read = capture
    assert len(read.names) == LISTED[file]
    assert len({instrument.name for instrument in read.names}) == LISTED[file]
    assert all(instrument.tick_size and instrument.lot_size for instrument in read.names)


def test_deltas_follow_by_the_markets_own_rule(capture: tuple[str, Capture]) -> None:
    file, read = capture
    rule = VENUE.rules[read.market].book
    assert rule is not None
    pairs = follow = next_number = 0
    for symbol in read.snapshots:
        deltas = deltas_of(read, symbol)
        for before, after in pairwise(deltas):
            assert before.sequence is not None
            assert after.first_sequence is not None
            pairs += 1
            follow += rule.follows(before.sequence, after) is Verdict.APPLY
            next_number += after.first_sequence == before.sequence + 1
    assert (pairs, next_number) == PAIRS[file]
    assert follow == pairs


def test_all_books_join_and_end_as_computed_elsewhere(capture: tuple[str, Capture]) -> None:
    file, read = capture
    found = {symbol: replay(read, symbol) for symbol in read.snapshots}
    for symbol, (stale, applied, last, *top) in BOOKS[file].items():
        assert found[symbol] == (stale, applied, last, *map(Decimal, top)), symbol
    assert all(applied > 0 for _, applied, *_ in found.values())


def replay(read: Capture, symbol: str) -> tuple[int, int, int, Decimal, Decimal, Decimal, Decimal]:
    """Return what becomes of a book, kept in the plainest way there is."""
    rule = VENUE.rules[read.market].book
    assert rule is not None
    snapshot = read.snapshots[symbol]
    bids = {Decimal(price): Decimal(size) for price, size in snapshot.bids}
    asks = {Decimal(price): Decimal(size) for price, size in snapshot.asks}
    assert snapshot.sequence is not None
    last, stale, applied = snapshot.sequence, 0, 0
    for delta in deltas_of(read, symbol):
        verdict = (rule.follows if applied else rule.joins)(last, delta)
        assert verdict is not Verdict.GAP, f"{symbol}: {delta} does not follow {last}"
        if verdict is Verdict.STALE:
            stale += 1
            continue
        applied += 1
        assert delta.sequence is not None
        last = delta.sequence
        for side, levels in ((bids, delta.bids), (asks, delta.asks)):
            for price, size in levels:
                side[Decimal(price)] = Decimal(size)
                if side[Decimal(price)] == 0:
                    del side[Decimal(price)]
        assert max(bids) < min(asks), f"{symbol} is crossed at {last}"
    bid, ask = max(bids), min(asks)
    return stale, applied, last, bid, bids[bid], ask, asks[ask]


def test_frames_cut_short_are_refused() -> None:
    records = [r for r in read_capture(_FOLDER / "usdm.ws.capture") if r.what is What.RECEIVED]
    for record in records[::50]:
        with pytest.raises(DecodeError):
            VENUE.codec.decode(
                record.text[:-1].encode(), feed=VENUE.feed("linear-public"), names={}, received_ns=1
            )
