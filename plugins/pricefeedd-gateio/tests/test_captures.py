"""Real traffic of 2021 (spot) and 2023 (futures), frame by frame: counts, sequences and the books at the end.

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
import orjson
import pytest

from pricefeedd.codec import Accepted, Signal
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Event, Quote, Trade
from pricefeedd.instruments import InstrumentMap
from pricefeedd.rest import HttpReply
from pricefeedd.rules import Verdict
from pricefeedd.testing.capture import Record, What, read_capture
from pricefeedd.venue import Feed
from pricefeedd_gateio.venue import GateioSettings, gateio

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "gateio"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

_DECLARED = gateio()
#: The recorder read deltas of 100 levels.
VENUE = _DECLARED.configure(_DECLARED, GateioSettings(book_depth=100))
MARKETS = {"spot": "spot", "futures_usdt": "linear"}


@attrs.frozen(kw_only=True)
class Capture:
    """One recording, decoded."""

    market: str
    names: InstrumentMap
    kinds: Counter[str]
    events: list[Event]
    signals: list[Signal]
    refused: list[bytes]
    snapshots: dict[str, BookSnapshot]


def load(file: str) -> Capture:
    market = MARKETS[file]
    replies = [r for r in read_capture(_FOLDER / f"{file}.rest.capture") if r.what is What.REPLY]
    (listing,) = (r for r in replies if r.url.endswith(("/currency_pairs", "/contracts")))
    names = InstrumentMap("gateio", market, VENUE.rest.instruments(market).parse(_reply(listing)).items)
    snapshots = {}
    for record in replies:
        if "/order_book?" in record.url:
            query = parse_qs(urlsplit(record.url).query)
            (symbol,) = query.get("currency_pair") or query["contract"]
            call = VENUE.rest.book(names.find(symbol))
            assert call is not None
            # It is asked for as the recorder asked.
            assert {key: [str(value)] for key, value in call.request.params.items()} == query
            (book,) = call.parse(_reply(record)).items
            snapshots[symbol] = book
    kinds: Counter[str] = Counter()
    events: list[Event] = []
    signals: list[Signal] = []
    refused: list[bytes] = []
    for record in read_capture(_FOLDER / f"{file}.ws.capture"):
        if record.what is not What.RECEIVED:
            continue
        frame = record.text.encode()
        message = orjson.loads(frame)
        kinds["ack" if message["event"] == "subscribe" else message["channel"].partition(".")[2]] += 1
        try:
            said = VENUE.codec.decode(
                frame, feed=VENUE.feed(market), names=names.names, received_ns=record.time_ns
            )
        except DecodeError:
            refused.append(frame)
            continue
        (one,) = said
        if isinstance(one, Event):
            events.append(one)
        else:
            signals.append(one)
    return Capture(
        market=market,
        names=names,
        kinds=kinds,
        events=events,
        signals=signals,
        refused=refused,
        snapshots=snapshots,
    )


def _reply(record: Record) -> HttpReply:
    return HttpReply(status=200, body=record.text.encode(), received_ns=record.time_ns)


@pytest.fixture(scope="module", params=list(MARKETS))
def capture(request: pytest.FixtureRequest) -> tuple[str, Capture]:
    return request.param, load(request.param)


KINDS = {
    "spot": {"order_book_update": 172, "tickers": 22, "candlesticks": 14, "trades": 9, "ack": 22},
    "futures_usdt": {"order_book_update": 352, "book_ticker": 75, "candlesticks": 1, "ack": 22},
}
EVENTS = {
    "spot": {"book": 172, "ticker": 22, "candle_1m": 8, "trade": 9},
    "futures_usdt": {"book": 352, "quote": 75, "candle_1m": 1},
}
LISTED = {"spot": 1458, "futures_usdt": 302}
PAIRS = {"spot": 162, "futures_usdt": 342}

#: Stale deltas, applied ones, the last number, the best bid and the best ask.
BOOKS = {
    "spot": {
        "OMG_USDT": (1, 50, 59231950, "7.899", "288", "7.927", "316.6"),
        "NEO_BTC": (3, 36, 31244121, "0.0018659", "0.5", "0.001873", "5.24738"),
        "DIS_USDT": (0, 17, 1750488, "121.5", "0.148", "122.23", "0.00896999"),
    },
    "futures_usdt": {
        "OMG_USDT": (8, 101, 3132789386, "0.7703", "42", "0.7711", "129"),
        "PHB_USDT": (4, 69, 6160440, "0.7383", "678", "0.7393", "677"),
        "RDNT_USDT": (9, 61, 203083479, "0.297", "500", "0.2974", "63"),
        "QUICK_USDT": (3, 13, 124930286, "56.91", "100", "57", "46"),
    },
}
#: Books to which nothing came after their snapshot, and how many deltas came before.
UNTOUCHED = {"spot": {"BTC_USDC": 2, "INK_USDT": 1}, "futures_usdt": {"DIA_USDT": 2}}


def test_every_frame_is_what_it_was_recorded_as(capture: tuple[str, Capture]) -> None:
    file, read = capture
    assert read.kinds == KINDS[file]
    assert Counter(event.channel for event in read.events) == EVENTS[file]
    assert read.signals == [Accepted()] * 22


def test_candles_of_2021_without_a_base_volume_are_refused_and_not_guessed(
    capture: tuple[str, Capture],
) -> None:
    """Where nothing was traded the volume is known all the same."""
    file, read = capture
    assert len(read.refused) == (6 if file == "spot" else 0)
    assert all(b'"spot.candlesticks"' in frame and b'"a":' not in frame for frame in read.refused)
    candles = [e for e in read.events if isinstance(e, Candle)]
    assert {c.volume for c in candles} == {"0"}
    assert not any(c.closed for c in candles)


def test_every_listed_symbol_becomes_an_instrument_of_its_own(capture: tuple[str, Capture]) -> None:
    file, read = capture
    assert len(read.names) == LISTED[file]
    assert len({instrument.name for instrument in read.names}) == LISTED[file]
    assert all(instrument.tick_size and instrument.lot_size for instrument in read.names)


def test_trades_and_quotes_have_what_was_printed(capture: tuple[str, Capture]) -> None:
    file, read = capture
    if file == "spot":
        first = next(e for e in read.events if isinstance(e, Trade))
        assert (first.instrument, first.id, first.price, first.size, first.aggressor) == (
            "DIS-USDT",
            "816995772",
            "121.5800000000",
            "0.2010000000",
            "sell",
        )
        assert first.venue_time_ns == 1_619_093_543_708_264_200
    else:
        quotes = [e for e in read.events if isinstance(e, Quote)]
        assert all(q.bid_price and q.bid_size and q.ask_price and q.ask_size for q in quotes)
        # Every one is younger than a second when it came.
        assert all(0 <= q.received_ns - (q.venue_time_ns or 0) < 3_000_000_000 for q in quotes)


def deltas_of(capture: Capture, symbol: str) -> list[BookDelta]:
    name = capture.names.find(symbol).name
    return [e for e in capture.events if isinstance(e, BookDelta) and e.instrument == name]


def test_deltas_follow_each_other(capture: tuple[str, Capture]) -> None:
    file, read = capture
    rule = VENUE.rules[read.market].book
    assert rule is not None
    pairs = 0
    for symbol in read.snapshots:
        for before, after in pairwise(deltas_of(read, symbol)):
            assert before.sequence is not None
            pairs += 1
            assert after.first_sequence == before.sequence + 1
            assert rule.follows(before.sequence, after) is Verdict.APPLY
    assert pairs == PAIRS[file]


def test_all_books_join_and_end_as_computed_elsewhere(capture: tuple[str, Capture]) -> None:
    file, read = capture
    found = {symbol: replay(read, symbol) for symbol in read.snapshots}
    assert len(found) == 10
    for symbol, (stale, applied, last, *top) in BOOKS[file].items():
        assert found[symbol] == (stale, applied, last, *map(Decimal, top)), symbol
    for symbol, stale in UNTOUCHED[file].items():
        assert found[symbol][:3] == (stale, 0, read.snapshots[symbol].sequence)
    assert all(applied > 0 for symbol, (_, applied, *_) in found.items() if symbol not in UNTOUCHED[file])


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


def test_requests_are_the_recorders_but_for_ids(capture: tuple[str, Capture]) -> None:
    """What was subscribed then is subscribed now, in the same words."""
    file, read = capture
    feed: Feed = VENUE.feed(read.market)
    sent = [
        orjson.loads(r.text)
        for r in read_capture(_FOLDER / f"{file}.ws.capture")
        if r.what is What.SENT and ("order_book_update" in r.text or "candlesticks" in r.text)
    ]
    assert len(sent) == 20
    for message in sent:
        symbol = next(word for word in message["payload"] if "_" in word)
        channel = "book" if "order_book" in message["channel"] else "candle_1m"
        streams = VENUE.codec.streams(channel, read.names.find(symbol))
        frame = VENUE.codec.subscribe(
            feed, streams, request_id=1, now_ns=message["time"] * 1_000_000_000, account=None
        )
        ours = orjson.loads(frame)
        del ours["id"]
        # Since then futures name the depth as well.
        ours["payload"] = ours["payload"][:2]
        assert ours == message


def test_frames_cut_short_are_refused(capture: tuple[str, Capture]) -> None:
    file, read = capture
    records = [r for r in read_capture(_FOLDER / f"{file}.ws.capture") if r.what is What.RECEIVED]
    for record in records[::50]:
        with pytest.raises(DecodeError):
            VENUE.codec.decode(
                record.text[:-1].encode(), feed=VENUE.feed(read.market), names={}, received_ns=1
            )
