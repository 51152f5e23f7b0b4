"""Real traffic of May 2022, frame by frame: counts, checksums and the books at the end.

The recordings are those of cryptofeed's sample data (github.com/bmoscon/cryptofeed, commit ce58c2a0). They are not
part of this repository: `PRICEFEEDD_CAPTURES` names their folder, by default `shared/captures` beside the
checkout. Without it these tests are skipped.

In 2022 books had no numbers, and a true checksum instead.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.book import BookSync
from pricefeedd.codec import Accepted, Signal
from pricefeedd.errors import DecodeError
from pricefeedd.events import BookDelta, BookSnapshot, Event, State, Ticker, Trade
from pricefeedd.instruments import InstrumentMap, Kind
from pricefeedd.rest import HttpReply
from pricefeedd.testing.capture import Record, What, read_capture
from pricefeedd.testing.rig import rig
from pricefeedd_okx.rules import checksum
from pricefeedd_okx.testing import capture_server, tape
from pricefeedd_okx.venue import okx

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "okx"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = okx()
MARKETS = {"BTC-USDT": "spot", "BTC-USD-220527": "inverse", "UNI-USD-SWAP": "inverse"}

#: Updates, the best bid and the best ask with their sizes, at the end.
BOOKS = {
    "BTC-USDT": (97, ("30236.1", "0.18050747"), ("30236.2", "0.001")),
    "BTC-USD-20220527": (98, ("30229.4", "2"), ("30238.8", "3")),
    "UNI-USD-PERP": (92, ("5.137", "20"), ("5.145", "50")),
}
TRADES = {"BTC-USDT": 69, "BTC-USD-20220527": 4, "UNI-USD-PERP": 1}
#: Instruments by market; OKX lists 513, 166 and 104 by type.
LISTED = {"spot": 513, "linear": 178, "inverse": 92}


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [r for r in read_capture(_FOLDER / "all.ws.capture") if r.what is What.RECEIVED]


@pytest.fixture(scope="module")
def maps() -> dict[str, InstrumentMap]:
    replies = [r for r in read_capture(_FOLDER / "all.rest.capture") if r.what is What.REPLY]
    by_type = {parse_qs(urlsplit(r.url).query)["instType"][0]: r for r in replies}
    found = {}
    for market in VENUE.markets:
        items: list[Any] = []
        call: Any = VENUE.rest.instruments(market)
        while call is not None:
            record = by_type[call.request.params["instType"]]
            reply = HttpReply(status=200, body=record.text.encode(), received_ns=record.time_ns)
            VENUE.rest.examine(reply)
            page = call.parse(reply)
            items += page.items
            call = page.next
        found[market] = InstrumentMap("okx", market, items)
    return found


def decode(record: Record, maps: dict[str, InstrumentMap]) -> Sequence[Event | Signal]:
    market = MARKETS[orjson.loads(record.text)["arg"]["instId"]]
    feed = VENUE.feed(f"{market}-public")
    return VENUE.codec.decode(
        record.text.encode(), feed=feed, names=maps[market].names, received_ns=record.time_ns
    )


def test_every_frame_is_one_event_or_ack(records: list[Record], maps: dict[str, InstrumentMap]) -> None:
    said = [one for record in records for one in decode(record, maps)]
    assert Counter(type(one) for one in said) == {
        BookSnapshot: 3,
        BookDelta: 287,
        Trade: 74,
        Ticker: 28,
        Accepted: 18,
    }
    acks = Counter(
        name.partition(":")[0] for one in said if isinstance(one, Accepted) for name in one.streams
    )
    assert acks == {"tickers": 9, "trades": 6, "books": 3}


def test_every_listed_symbol_becomes_an_instrument_of_its_own(maps: dict[str, InstrumentMap]) -> None:
    assert {market: len(found) for market, found in maps.items()} == LISTED
    names = [instrument.name for found in maps.values() for instrument in found]
    assert len(set(names)) == len(names)
    for found in maps.values():
        assert all(instrument.tick_size and instrument.lot_size for instrument in found)
        for instrument in found:
            assert (instrument.expiry_ns is not None) == (instrument.kind is Kind.FUTURE)


def test_all_checksums_are_right(records: list[Record], maps: dict[str, InstrumentMap]) -> None:
    syncs: dict[str, BookSync] = {}
    counts: Counter[str] = Counter()
    checked = 0
    for record in records:
        for event in decode(record, maps):
            if not isinstance(event, BookSnapshot | BookDelta):
                continue
            rule = VENUE.rules["spot"].book
            assert rule is not None
            sync = syncs.setdefault(event.instrument, BookSync(rule))
            assert isinstance(sync.take(event), list), event
            counts[event.instrument] += isinstance(event, BookDelta)
            assert event.checksum == checksum(sync.book.bids.levels(25), sync.book.asks.levels(25))
            assert not sync.book.crossed
            checked += 1
    assert checked == 290
    for name, (updates, bid, ask) in BOOKS.items():
        assert counts[name] == updates
        best = (syncs[name].book.bids.levels(1)[0], syncs[name].book.asks.levels(1)[0])
        assert (tuple(best[0]), tuple(best[1])) == (bid, ask)


def test_trade_ids_are_without_holes(records: list[Record], maps: dict[str, InstrumentMap]) -> None:
    ids: dict[str, list[int]] = {}
    for record in records:
        for event in decode(record, maps):
            if isinstance(event, Trade):
                ids.setdefault(event.instrument, []).append(int(event.id or 0))
    assert {name: len(found) for name, found in ids.items()} == TRADES
    assert all(b == a + 1 for found in ids.values() for a, b in pairwise(found))


def test_frames_cut_short_are_refused(records: list[Record]) -> None:
    for record in records[::20]:
        with pytest.raises(DecodeError):
            VENUE.codec.decode(
                record.text[:-1].encode(), feed=VENUE.feed("spot-public"), names={}, received_ns=1
            )


async def test_the_pipeline_serves_the_recorded_session(autojump_clock: MockClock) -> None:
    """All markets at once, with each market's books on connections of their own."""
    server = capture_server(tape(_FOLDER / "all.rest.capture", _FOLDER / "all.ws.capture"))
    wanted: dict[str, dict[str, list[str]]] = {}
    for symbol, market in MARKETS.items():
        wanted.setdefault(market, {})[symbol] = ["trade", "ticker", "book"]
    fake = server.fake
    endpoints = {
        key: f"{key.partition('_')[2].replace('rest', 'http')}://fake.test" for key in VENUE.endpoints
    }
    async with (
        trio.open_nursery() as nursery,
        rig(VENUE, fake, wanted, endpoints=endpoints, backfill_after_s=1e9) as made,
    ):
        nursery.start_soon(server.run)
        await fake.wait_for(lambda: all(server.sent[name] for _, name in server.streams))
        await server.wait_played()
        await trio.sleep(5)
        for name, (_, bid, ask) in BOOKS.items():
            book = made.book(name)
            assert book is not None
            assert (book[0][0], book[1][0]) == (bid, ask)
            assert made.state(f"book:{name}") is State.LIVE
            assert len(made.events(f"trade:{name}", Trade)) == TRADES[name]
        for market in wanted:
            stats = made.market(market)
            assert (stats.resyncs, stats.gaps, stats.decode_errors) == (0, 0, 0)
        made.check_sequence()
        nursery.cancel_scope.cancel()
