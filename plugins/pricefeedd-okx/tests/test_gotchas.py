"""What has tripped others on OKX, one test each. The numbers are those of the protocol's fact sheet."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock

from pricefeedd.book import BookSync
from pricefeedd.codec import Accepted, Closing, Refused
from pricefeedd.errors import SubscriptionRejectedError
from pricefeedd.events import BookDelta, BookSnapshot, Candle, Ticker, Trade
from pricefeedd.instruments import Instrument, InstrumentMap
from pricefeedd.rest import HttpReply
from pricefeedd.rules import Verdict
from pricefeedd.testing.market import Market
from pricefeedd.testing.rig import rig
from pricefeedd_okx.listing import read_instruments
from pricefeedd_okx.rules import checksum, follows
from pricefeedd_okx.testing import OkxFake
from pricefeedd_okx.venue import OkxSettings, okx

VENUE = okx()
RECEIVED_NS = 1_790_373_640_000_000_000
MS = 1_000_000


def listed(market: str, **row: Any) -> Instrument:
    base = {"instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT", "state": "live", "tickSz": "0.1", "lotSz": "0.01", "expTime": ""}  # fmt: skip
    (found,) = read_instruments(market, [base | row])
    return found


SPOT = listed("spot")
LINEAR = listed(
    "linear", instType="SWAP", instId="BTC-USDT-SWAP", baseCcy="", quoteCcy="", uly="BTC-USDT", ctType="linear", ctVal="0.01",
    ctMult="1", ctValCcy="BTC", settleCcy="USDT",
)  # fmt: skip
INVERSE = listed(
    "inverse", instType="SWAP", instId="BTC-USD-SWAP", baseCcy="", quoteCcy="", uly="BTC-USD", ctType="inverse", ctVal="100",
    ctMult="1", ctValCcy="USD", settleCcy="BTC",
)  # fmt: skip


def say(feed: str, message: Any, *instruments: Instrument) -> list[Any]:
    chosen = VENUE.feed(feed)
    names = InstrumentMap("okx", chosen.market, instruments or (SPOT,)).names
    frame = message if isinstance(message, bytes) else orjson.dumps(message)
    return list(VENUE.codec.decode(frame, feed=chosen, names=names, received_ns=RECEIVED_NS))


def book(action: str, symbol: str = "BTC-USDT", **row: Any) -> Any:
    base = {"asks": [["101", "1", "0", "1"]], "bids": [["100", "1", "0", "1"]], "ts": "1790358602106"}
    message = {"arg": {"channel": "books", "instId": symbol}, "action": action, "data": [base | row]}
    (event,) = say("spot-book", message)
    return event


def sync() -> BookSync:
    rule = VENUE.rules["spot"].book
    assert rule is not None
    return BookSync(rule)


def test_gotcha_01_candles_and_single_fills_are_on_the_business_endpoint() -> None:
    venue = VENUE.configure(VENUE, OkxSettings(trade_channel="trades-all"))
    for channel in ("candle_1m", "trade"):
        (stream,) = venue.codec.streams(channel, LINEAR)
        assert venue.feed(stream.feed).path == "/ws/v5/business"
    for channel in ("quote", "ticker", "book", "liquidation"):
        for stream in venue.codec.streams(channel, LINEAR):
            assert venue.feed(stream.feed).path == "/ws/v5/public"


async def test_gotcha_02_a_quiet_instrument_is_kept_by_the_word_ping(autojump_clock: MockClock) -> None:
    listings = [one for one in OkxFake.default_listings() if one.name == "SOL-USDT"]
    fake = OkxFake(Market(listings), history_minutes=5)
    subscribe = {"spot": {"SOL-USDT": ["trade", "book"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live("trade:SOL-USDT", "book:SOL-USDT"))
        await trio.sleep(1200)
        assert made.live("trade:SOL-USDT", "book:SOL-USDT")
        assert made.market("spot").reconnects == 0
        texts = {text for _, text in fake.seen.messages if "op" not in str(text)}
        assert texts == {"ping"}
    assert say("spot-public", b"pong") == []


def test_gotcha_03_checksum_zero_is_not_verified() -> None:
    books = sync()
    books.take(book("snapshot", seqId=10, prevSeqId=-1, checksum=0))
    assert isinstance(books.take(book("update", seqId=11, prevSeqId=10, checksum=0)), list)
    assert book("update", seqId=11, prevSeqId=10, checksum=0).checksum is None


def test_gotcha_03_a_checksum_that_is_sent_is_verified() -> None:
    true = checksum([("100", "1")], [("101", "1")])
    assert isinstance(sync().take(book("snapshot", checksum=true)), list)
    assert "checksum" in str(sync().take(book("snapshot", checksum=true + 1)))


@pytest.mark.parametrize(
    ("previous", "own", "verdict"),
    [
        (10, 15, Verdict.APPLY),
        (10, 10, Verdict.APPLY),
        (10, 3, Verdict.APPLY),
        (11, 15, Verdict.GAP),
        (3, 5, Verdict.GAP),
    ],
)
def test_gotcha_04_only_the_number_before_counts(previous: int, own: int, verdict: Verdict) -> None:
    assert follows(10, book("update", seqId=own, prevSeqId=previous)) is verdict


def test_gotcha_05_a_stream_that_begins_with_an_update_is_joined_to_rest() -> None:
    books = sync()
    assert books.take(book("update", seqId=12, prevSeqId=10, asks=[["101", "2", "0", "1"]])) == []
    assert books.take(book("update", seqId=20, prevSeqId=12, bids=[], asks=[["102", "5", "0", "1"]])) == []
    call = VENUE.rest.book(SPOT)
    assert call is not None
    row = {"asks": [["101", "1", "0", "1"]], "bids": [["99", "3", "0", "1"]], "ts": "1", "seqId": 12}
    body = orjson.dumps({"code": "0", "msg": "", "data": [row]})
    (fetched,) = call.parse(HttpReply(status=200, body=body, received_ns=1)).items
    assert isinstance(books.snapshot(fetched, fetched=True), list)
    assert books.sequence == 20
    assert [tuple(level) for level in books.book.asks.levels()] == [("101", "1"), ("102", "5")]
    assert [tuple(level) for level in books.book.bids.levels()] == [("99", "3")]


def test_gotcha_06_numbers_are_texts_and_sequences_integers() -> None:
    row = {"instId": "BTC-USDT", "tradeId": "9007199254740993", "px": "83772.60", "sz": "0.0000178000", "side": "buy", "ts": "1790358565298", "count": "1", "source": "0", "seqId": 81625379835}  # fmt: skip
    (trade,) = say("spot-public", {"arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [row]})
    assert (trade.id, trade.price, trade.size) == ("9007199254740993", "83772.60", "0.0000178000")
    assert trade.venue_time_ns == 1_790_358_565_298 * MS
    assert book("snapshot", seqId=2**53 + 1, prevSeqId=-1).sequence == 2**53 + 1


def test_gotcha_07_sizes_of_contracts_are_contracts() -> None:
    assert (LINEAR.size_unit, LINEAR.contract_size, LINEAR.contract_currency) == ("contract", "0.01", "BTC")
    assert (INVERSE.size_unit, INVERSE.contract_size, INVERSE.contract_currency) == ("contract", "100", "USD")
    assert (SPOT.size_unit, SPOT.contract_size) == ("base", "1")


def test_gotcha_08_currencies_of_contracts_come_from_the_index() -> None:
    assert (LINEAR.base, LINEAR.quote, INVERSE.base, INVERSE.quote) == ("BTC", "USDT", "BTC", "USD")


def test_gotcha_09_candles_come_newest_first_between_two_exclusive_ends() -> None:
    start_ms = 1_790_373_540_000
    call = VENUE.rest.candles(SPOT, start_ms * MS, (start_ms + 60_000) * MS)
    assert call is not None
    assert call.request.params["before"] < start_ms
    assert call.request.params["after"] > start_ms + 60_000
    rows = [
        [str(ms), "1", "1", "1", "1", "5", "5", "5", confirm]
        for ms, confirm in ((start_ms + 60_000, "0"), (start_ms, "1"))
    ]
    body = orjson.dumps({"code": "0", "msg": "", "data": rows})
    first, second = call.parse(HttpReply(status=200, body=body, received_ns=RECEIVED_NS)).items
    assert isinstance(first, Candle)
    assert (first.start_ns, first.closed) == (start_ms * MS, True)
    assert (second.start_ns, second.closed) == ((start_ms + 60_000) * MS, False)


def test_gotcha_10_an_ack_is_for_one_arg_and_an_error_for_none() -> None:
    arg = {"channel": "trades", "instId": "BTC-USDT"}
    (ack,) = say("spot-public", {"id": "5", "event": "subscribe", "arg": arg, "connId": "x"})
    assert ack == Accepted(request_id=5, streams=("trades:BTC-USDT",))
    (error,) = say("spot-public", {"id": "5", "event": "error", "code": "60013", "msg": "no", "connId": "x"})
    assert (error.request_id, error.streams) == (5, ())


def test_gotcha_10_errors_hide_behind_200() -> None:
    body = (
        b'{"code":"51001","data":[],"msg":"Instrument ID, Instrument ID code, or Spread ID doesn\'t exist."}'
    )
    with pytest.raises(SubscriptionRejectedError, match="51001"):
        VENUE.rest.examine(HttpReply(status=200, body=body, received_ns=1))


def test_gotcha_11_an_empty_text_is_no_value() -> None:
    row = {
        "last": "",
        "open24h": "",
        "high24h": "5",
        "low24h": "",
        "vol24h": "",
        "volCcy24h": "",
        "ts": "1790358565298",
    }
    (ticker,) = say("spot-public", {"arg": {"channel": "tickers", "instId": "BTC-USDT"}, "data": [row]})
    assert isinstance(ticker, Ticker)
    assert (ticker.last, ticker.open_24h, ticker.high_24h, ticker.volume_24h) == (None, None, "5", None)
    assert SPOT.expiry_ns is None


async def test_gotcha_12_the_first_push_may_repeat_old_data(autojump_clock: MockClock) -> None:
    listings = [one for one in OkxFake.default_listings() if one.name == "SOL-USDT"]
    fake = OkxFake(Market(listings), history_minutes=5)
    subscribe = {"spot": {"SOL-USDT": ["trade", "quote", "ticker"]}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(
            lambda: made.events("trade:SOL-USDT", Trade) and made.events("ticker:SOL-USDT", Ticker)
        )
        for _ in range(5):
            fake.faults.cut()
            await trio.sleep(20)
        assert made.live("trade:SOL-USDT", "quote:SOL-USDT", "ticker:SOL-USDT")
        assert len(made.events("trade:SOL-USDT", Trade)) == 1
        assert not made.gaps("trade:SOL-USDT")


async def test_gotcha_13_requests_are_few_and_large(autojump_clock: MockClock) -> None:
    names = ("BTC-USDT", "ETH-USDT")
    listings = [one for one in OkxFake.default_listings() if one.name in names]
    fake = OkxFake(Market(listings), history_minutes=5)
    subscribe = {"spot": {name: ["trade", "quote", "ticker", "book"] for name in names}}
    async with rig(VENUE, fake, subscribe, endpoints=fake.endpoints()) as made:
        await made.until(lambda: made.live("trade:BTC-USDT", "book:BTC-USDT", "quote:ETH-USDT"))
        assert fake.seen.subscribes == 2, "one for each connection"

        def is_update(stream: str, message: str | bytes) -> bool:
            return stream == "books:BTC-USDT" and "update" in str(message)[:99]

        # A book that breaks again and again is asked for less and less often.
        fake.faults.reorder(None, match=is_update)
        with trio.move_on_after(400):
            await fake.play(1)
        assert 2 < fake.seen.subscribes + fake.seen.unsubscribes < 2 + 30
        assert made.live("book:ETH-USDT")


def test_gotcha_14_a_notice_gives_a_minute_to_move() -> None:
    notice = {"event": "notice", "code": "64008", "msg": "soon", "connId": "a4d3ae55"}
    for feed in ("spot-public", "spot-business"):
        assert say(feed, notice) == [Closing("soon")]


def test_gotcha_15_demo_and_production_are_never_mixed() -> None:
    demo = VENUE.environments["demo"]
    for key, url in VENUE.endpoints.items():
        assert (demo[key] != url) == key.endswith("_ws"), "REST is told by a header"
    told = VENUE.configure(VENUE, OkxSettings(demo=True))
    calls = [told.rest.instruments("spot"), told.rest.book(SPOT), told.rest.candles(SPOT, 0, 60 * 10**9)]
    for call in calls:
        assert call is not None
        assert call.request.headers == {"x-simulated-trading": "1"}


@pytest.mark.parametrize("state", ["post_only", "rebase", "settling", "something new"])
def test_gotcha_16_new_states_are_not_tradable(state: str) -> None:
    assert not listed("spot", state=state).tradable


def test_gotcha_16_new_kinds_of_instrument_are_passed_over() -> None:
    row = {"instType": "EVENTS", "instId": "X", "state": "live"}
    spot = {
        "instType": "SPOT",
        "instId": "A-B",
        "baseCcy": "A",
        "quoteCcy": "B",
        "state": "live",
        "tickSz": "1",
        "lotSz": "1",
    }
    assert [one.symbol for one in read_instruments("spot", [row, spot])] == ["A-B"]


def test_gotcha_channel_on_the_wrong_endpoint_is_told_by_name() -> None:
    reason = "Subscribe failed, wrong URL or channel:candle1m,instId:BTC-USDT doesn't exist. Please use the correct URL, channel and parameters referring to API document."
    (refused,) = say("spot-public", {"event": "error", "msg": reason, "code": "60018", "connId": "e1f69f02"})
    assert isinstance(refused, Refused)
    assert refused.streams == ("candle1m:BTC-USDT",)


def test_gotcha_levels_beyond_400_are_cut() -> None:
    asks = [[str(1000 + i), "1", "0", "1"] for i in range(400)]
    books = sync()
    books.take(book("snapshot", seqId=1, prevSeqId=-1, asks=asks))
    said = books.take(book("update", seqId=2, prevSeqId=1, asks=[["999", "1", "0", "1"]], bids=[]))
    assert isinstance(said, list)
    assert len(books.book.asks) == 400
    (delta,) = said
    assert isinstance(delta, BookDelta)
    assert ["1399", "0"] in [list(level) for level in delta.asks], "readers are told"
    assert not isinstance(delta, BookSnapshot)
