"""Real frames, file by file: counts, what they become, and the books at the end.

The recordings are single frames and short runs from public repositories. They are not part of this repository:
`PRICEFEEDD_CAPTURES` names their folder, by default `shared/captures` beside the checkout. Without it these tests
are skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from pricefeedd.book import BookSync
from pricefeedd.codec import Accepted, LoggedIn, Refused
from pricefeedd.errors import DecodeError
from pricefeedd.events import AccountEvent, BookDelta, BookSnapshot, Event, Quote, Side, Ticker, Trade
from pricefeedd.testing.capture import What, read_capture
from pricefeedd.testing.laws import check_event
from pricefeedd_bybit.venue import bybit

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "captures"
_FOLDER = Path(os.environ.get("PRICEFEEDD_CAPTURES", _BESIDE)) / "bybit"

pytestmark = pytest.mark.skipif(not _FOLDER.is_dir(), reason=f"no captures in {_FOLDER}")

VENUE = bybit()
NAMES = {
    "spot": {"BTCUSDT": "BTC-USDT", "BTCUSDC": "BTC-USDC"},
    "linear": {
        "BTCUSDT": "BTC-USDT-PERP",
        "BTCPERP": "BTC-USDC-PERP",
        "LTCUSDT": "LTC-USDT-PERP",
        "PIPPINUSDT": "PIPPIN-USDT-PERP",
        "SOLUSDT": "SOL-USDT-PERP",
    },
    "inverse": {"BTCUSD": "BTC-USD-PERP", "BTCUSDU23": "BTC-USD-20230929", "XRPUSD": "XRP-USD-PERP"},
    "private": {},
}
FEEDS = {
    "spot": "spot",
    "spot-2023": "spot",
    "linear": "linear",
    "linear-2023": "linear",
    "linear-tickers-2024": "linear",
    "inverse": "inverse",
    "private": "private",
    "private-2023": "private",
}


def load(file: str) -> tuple[list[Any], list[str]]:
    """Return what all frames of a file say, and the topics of those that are refused."""
    feed = VENUE.feed(FEEDS[file])
    said: list[Any] = []
    refused = []
    for record in read_capture(_FOLDER / f"{file}.ws.capture"):
        assert record.what is What.RECEIVED
        try:
            said += VENUE.codec.decode(
                record.text.encode(), feed=feed, names=NAMES[FEEDS[file]], received_ns=record.time_ns
            )
        except DecodeError:
            refused.append(orjson.loads(record.text)["topic"])
    for one in said:
        if isinstance(one, Event):
            check_event(one, venue="bybit")
    return said, refused


def count(said: list[Any]) -> dict[str, int]:
    return dict(Counter(type(one).__name__ for one in said))


#: What the files hold, and the deltas of the best level, which the venue sent until March 2025.
COUNTS: dict[str, tuple[dict[str, int], int]] = {
    "spot": ({"Accepted": 1, "Refused": 1, "BookSnapshot": 1, "BookDelta": 1, "Ticker": 1, "Trade": 1}, 1),
    "spot-2023": ({"Quote": 1, "BookSnapshot": 1, "BookDelta": 1, "Trade": 5}, 1),
    "linear": ({"BookSnapshot": 1, "BookDelta": 1, "Trade": 9}, 0),
    "linear-2023": ({"Quote": 1, "BookSnapshot": 1, "BookDelta": 1, "Ticker": 1, "Trade": 1, "Liquidation": 1}, 2),
    "linear-tickers-2024": ({"Ticker": 3}, 0),
    "inverse": ({"Ticker": 4, "Trade": 3}, 0),  # of six; two deltas tell the best level alone
    # A wallet is an event for each coin and one for the account.
    "private": ({"LoggedIn": 2, "AccountEvent": 1 + 3 + (3 + 1)}, 0),
    "private-2023": ({"LoggedIn": 1, "Accepted": 1, "AccountEvent": 2 + 1 + 2 + 2 * (1 + 1)}, 0),
}  # fmt: skip


@pytest.mark.parametrize("file", COUNTS)
def test_every_frame_is_understood(file: str) -> None:
    said, refused = load(file)
    expected, old = COUNTS[file]
    assert count(said) == expected
    assert [topic.startswith("orderbook.1.") for topic in refused] == [True] * old


@pytest.mark.parametrize("file", ["linear", "linear-2023", "spot", "spot-2023"])
def test_books_follow_by_one_number(file: str) -> None:
    said, _ = load(file)
    (snapshot,) = (e for e in said if isinstance(e, BookSnapshot))
    (delta,) = (e for e in said if isinstance(e, BookDelta))
    assert snapshot.sequence is not None
    assert delta.sequence == snapshot.sequence + 1


def test_the_linear_book_ends_as_computed_elsewhere() -> None:
    rule = VENUE.rules["linear"].book
    assert rule is not None
    sync = BookSync(rule)
    said, _ = load("linear")
    for event in said:
        if isinstance(event, BookSnapshot):
            sync.snapshot(event)
        elif isinstance(event, BookDelta):
            (applied,) = sync.delta(event)  # type: ignore[misc]  # it follows, so it is an event
            assert applied == event, "nothing had to be cut"
    bids, asks = sync.book.bids.levels(), sync.book.asks.levels()
    assert (len(bids), len(asks)) == (50, 50)
    assert (list(bids[0]), list(asks[0])) == (["71423.80", "0.557"], ["71423.90", "4.669"])
    assert (bids[-1][0], asks[-1][0]) == ("71413.20", "71435.40")
    assert sync.sequence == 10132541


def test_linear_trades_of_one_order() -> None:
    said, _ = load("linear")
    trades = [e for e in said if isinstance(e, Trade)]
    assert len({t.id for t in trades}) == 9
    assert {t.aggressor for t in trades} == {Side.SELL}
    prices = [Decimal(t.price) for t in trades]
    assert prices == sorted(prices, reverse=True), "an order that sells walks down the book"
    assert {t.venue_time_ns for t in trades} == {1_774_021_164_272_000_000}


def test_spot_trades_have_ids_that_grow() -> None:
    said, _ = load("spot-2023")
    ids = [int(t.id or 0) for t in said if isinstance(t, Trade) and t.instrument == "BTC-USDT"]
    assert ids == list(range(ids[0], ids[0] + 4))


def test_the_spot_answers() -> None:
    said, _ = load("spot")
    accepted, refused = said[:2]
    assert accepted == Accepted(request_id=4000001)
    assert refused == Refused(reason="args size >10", request_id=2000001)


def test_tickers_and_their_deltas() -> None:
    said, _ = load("inverse")
    tickers = [e for e in said if isinstance(e, Ticker)]
    assert [t.partial for t in tickers] == [False, False, True, False], "two deltas tell the best level alone"
    dated, btc, delta, later = tickers
    assert (dated.instrument, dated.funding_rate, dated.next_funding_ns) == ("BTC-USD-20230929", None, None)
    assert (btc.volume_24h, btc.turnover_24h) == ("661543991", "23389.1894")
    assert (delta.open_interest, delta.funding_rate, delta.last) == ("449736674", "0.0001", None)
    assert later.next_funding_ns == 1_715_760_000_000_000_000


def test_the_quote_of_2023() -> None:
    said, _ = load("linear-2023")
    (quote,) = (e for e in said if isinstance(e, Quote))
    assert (quote.bid_price, quote.ask_size, quote.sequence) == ("28552.00", "25.433", 50193540681)


def test_the_private_stream_of_a_unified_account() -> None:
    said, _ = load("private")
    assert said[0] == LoggedIn()
    events = [e for e in said if isinstance(e, AccountEvent)]
    assert Counter(e.kind for e in events) == {"execution": 1, "order": 3, "balance": 4}
    execution, bought = events[:2]
    assert (execution.fields["price"], execution.fields["fee"]) == ("32635.00", "0.000000306")
    assert bought.fields["status"] == "partially_filled_canceled"
    assert (bought.fields["size"], bought.fields["size_unit"]) == ("10.000000", "quote")
    assert [e.instrument for e in events if e.kind == "balance"] == ["USDC", "BTC", "USDT", "UNIFIED"]
    assert events[-1].fields["status"] == "canceled"


def test_the_private_stream_of_a_classic_account() -> None:
    said, _ = load("private-2023")
    events = [e for e in said if isinstance(e, AccountEvent)]
    assert Counter(e.kind for e in events)["position"] == 2
    flat = [e for e in events if e.kind == "position"][-1]
    assert (flat.fields["side"], flat.fields["size"]) == (None, "0")


@pytest.mark.parametrize("file", FEEDS)
def test_frames_cut_short_are_refused(file: str) -> None:
    for record in read_capture(_FOLDER / f"{file}.ws.capture"):
        with pytest.raises(DecodeError):
            VENUE.codec.decode(
                record.text[:-1].encode(), feed=VENUE.feed(FEEDS[file]), names={}, received_ns=1
            )
