"""Requests to BingX, and what its answers become."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import Candle, Origin, Side, Trade
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply, RateSignal, RestCall
from pricefeedd_bingx.venue import bingx

REST = bingx().rest
START_MS = 1_790_373_600_000
MINUTE_MS = 60_000
MS = 1_000_000
#: Long after everything in these answers.
LATER_NS = (START_MS + 10_000 * MINUTE_MS) * MS

SPOT = Instrument(
    venue="bingx", market="spot", name="BTC-USDT", symbol="BTC-USDT", kind=Kind.SPOT, base="BTC", quote="USDT"
)
SWAP = Instrument(
    venue="bingx",
    market="linear",
    name="BTC-USDT-PERP",
    symbol="BTC-USDT",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USDT",
)
MARKETS = [SPOT, SWAP]


def reply(body: Any = b"", status: int = 200, received_ns: int = LATER_NS, **headers: str) -> HttpReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status=status, headers=named, body=data, received_ns=received_ns)


def candles(instrument: Instrument, first: int, last: int) -> RestCall[Candle]:
    """Ask for minutes by number."""
    call = REST.candles(instrument, (START_MS + first * MINUTE_MS) * MS, (START_MS + last * MINUTE_MS) * MS)
    assert call is not None
    return call


def trades(instrument: Instrument, from_ms: int, to_ms: int, **ids: str | None) -> RestCall[Trade]:
    known: dict[str, Any] = {"after_id": None, "before_id": None, **ids}
    call = REST.trades(instrument, **known, from_ns=from_ms * MS, to_ns=to_ms * MS)
    assert call is not None
    return call


def row(instrument: Instrument, number: int) -> Any:
    start = START_MS + number * MINUTE_MS
    if instrument is SWAP:
        return {
            "open": "1.0", "close": "1.5", "high": "2.0", "low": "0.5", "volume": "635494.00", "time": start,
        }  # fmt: skip
    return [start, 1.0, 2.0, 0.5, 1.5, 0.2, start + 59_999, 8548.46]


def answer(instrument: Instrument, *numbers: int, **more: Any) -> HttpReply:
    """Return an answer with these minutes, newest first."""
    rows = [row(instrument, number) for number in sorted(numbers, reverse=True)]
    return reply({"code": 0, "msg": "", "data": rows}, **more)


# --- Where and what ---------------------------------------------------------------------------------------


def test_instruments() -> None:
    spot, swap = REST.instruments("spot").request, REST.instruments("linear").request
    assert (spot.endpoint, spot.path) == ("spot_rest", "/openApi/spot/v1/common/symbols")
    assert (swap.endpoint, swap.path) == ("linear_rest", "/openApi/swap/v2/quote/contracts")
    assert {spot.budget, swap.budget} == {"market"}


def test_there_is_no_book_that_could_be_joined() -> None:
    assert REST.book(SPOT) is None
    assert REST.book(SWAP) is None


# --- Candles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instrument", MARKETS)
def test_candles_are_asked_for_with_a_window_that_holds_them_either_way(instrument: Instrument) -> None:
    request = candles(instrument, 0, 4).request
    spot = instrument is SPOT
    assert request.path == ("/openApi/spot/v2/market/kline" if spot else "/openApi/swap/v3/quote/klines")
    assert request.params == {
        "symbol": "BTC-USDT",
        "interval": "1m",
        "startTime": START_MS - 1,  # the start seems to be exclusive
        "endTime": START_MS + 5 * MINUTE_MS - 1,
        "limit": 1000,
    } | ({"timeZone": 0} if spot else {})


def test_a_minute_of_swaps() -> None:
    (candle,) = candles(SWAP, 0, 0).parse(answer(SWAP, 0)).items
    assert candle == Candle(
        venue="bingx",
        instrument="BTC-USDT-PERP",
        received_ns=LATER_NS,
        origin=Origin.BACKFILL,
        start_ns=START_MS * MS,
        open="1.0",
        high="2.0",
        low="0.5",
        close="1.5",
        volume="635494.00",
        closed=True,
    )


def test_a_minute_of_spot_keeps_the_text_of_its_numbers() -> None:
    text = f'{{"code":0,"timestamp":{LATER_NS // MS},"data":[[{START_MS},42216.290,42216.94,4.2e4,42216.72,2e-7,{START_MS + 59_999},8548.46]]}}'
    (candle,) = candles(SPOT, 0, 0).parse(reply(text.encode())).items
    assert (candle.open, candle.high, candle.low, candle.close) == (
        "42216.290",
        "42216.94",
        "42000",
        "42216.72",
    )
    assert (candle.volume, candle.turnover, candle.closed) == ("0.0000002", "8548.46", True)


def test_texts_and_numbers_may_be_mixed() -> None:
    rows = b'{"code":0,"data":[{"open":"67494.5","close":67600.0,"high":67645.0,"low":67400,"volume":1,"time":1790373600000}]}'
    (candle,) = candles(SWAP, 0, 0).parse(reply(rows)).items
    assert (candle.open, candle.close, candle.high, candle.low, candle.volume) == (
        "67494.5", "67600.0", "67645.0", "67400", "1",
    )  # fmt: skip


def test_a_single_row_may_come_without_its_array_and_none_as_null() -> None:
    assert len(candles(SWAP, 0, 0).parse(reply({"code": 0, "data": row(SWAP, 0)})).items) == 1
    assert candles(SWAP, 0, 0).parse(reply({"code": 0, "data": None})).items == []


@pytest.mark.parametrize("instrument", MARKETS)
def test_candles_come_oldest_first_and_only_those_asked_for(instrument: Instrument) -> None:
    page = candles(instrument, 1, 3).parse(answer(instrument, 0, 1, 2, 3, 4))
    assert [c.start_ns // MS for c in page.items] == [START_MS + n * MINUTE_MS for n in (1, 2, 3)]
    assert page.next is None


@pytest.mark.parametrize("instrument", MARKETS)
@pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
def test_pages_meet_at_their_edges_and_end(instrument: Instrument, count: int) -> None:
    call: RestCall[Candle] | None = candles(instrument, 0, count - 1)
    starts: list[int] = []
    pages = 0
    while call is not None:
        pages += 1
        start, end = int(call.request.params["startTime"]), int(call.request.params["endTime"])
        inside = [n for n in range(count + 10) if start < START_MS + n * MINUTE_MS <= end]
        assert len(inside) <= 1000, "the venue would cut more without a word"
        page = call.parse(answer(instrument, *inside))
        starts += [c.start_ns // MS for c in page.items]
        call = page.next
    assert starts == [START_MS + n * MINUTE_MS for n in range(count)]
    assert pages == -(-count // 1000)


def test_a_page_without_rows_does_not_end_the_search() -> None:
    page = candles(SWAP, 0, 1500).parse(answer(SWAP))
    assert page.items == []
    assert page.next is not None


@pytest.mark.parametrize("instrument", MARKETS)
def test_the_newest_row_runs_until_its_end_is_past(instrument: Instrument) -> None:
    end_ns = (START_MS + 3 * MINUTE_MS) * MS

    def closed(at_ns: int) -> list[bool]:
        page = candles(instrument, 0, 2).parse(answer(instrument, 0, 1, 2, received_ns=at_ns))
        return [c.closed for c in page.items]

    assert closed(end_ns - 30_000 * MS) == [True, True, False]
    assert closed(end_ns + 1_999 * MS) == [True, True, False]
    assert closed(end_ns + 2_000 * MS) == [True, True, True]


def test_the_venues_clock_decides_where_ours_runs_ahead() -> None:
    ahead_ns = (START_MS + 60 * MINUTE_MS) * MS
    rows = [row(SPOT, 2), row(SPOT, 1)]
    body = {"code": 0, "timestamp": START_MS + 2 * MINUTE_MS + 30_000, "data": rows}
    page = candles(SPOT, 0, 2).parse(reply(body, received_ns=ahead_ns))
    assert [c.closed for c in page.items] == [True, False]
    date = "Fri, 25 Sep 2026 22:02:30 GMT"  # START_MS is 22:00:00
    page = candles(SWAP, 0, 2).parse(answer(SWAP, 1, 2, received_ns=ahead_ns, date=date))
    assert [c.closed for c in page.items] == [True, False]
    page = candles(SWAP, 0, 2).parse(answer(SWAP, 1, 2, received_ns=ahead_ns, date="soon"))
    assert [c.closed for c in page.items] == [True, True]


def test_the_venues_clock_decides_where_ours_is_behind() -> None:
    behind_ns = (START_MS - 60 * MINUTE_MS) * MS
    body = {"code": 0, "timestamp": START_MS + MINUTE_MS + 5_000, "data": [row(SPOT, 0)]}
    (candle,) = candles(SPOT, 0, 0).parse(reply(body, received_ns=behind_ns)).items
    assert candle.closed
    date = "Fri, 25 Sep 2026 22:01:05 GMT"
    (candle,) = candles(SWAP, 0, 0).parse(answer(SWAP, 0, received_ns=behind_ns, date=date)).items
    assert candle.closed


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"[]",
        b'{"code":0}',
        b'{"code":0,"data":"x"}',
        b'{"code":0,"data":[7]}',
        b'{"code":0,"data":[{"open":"1"}]}',
        b'{"code":0,"data":[[1790373600000,1,2]]}',
        b'{"code":0,"data":[[1790373600001,1,2,1,1,1,1790373659999,1]]}',
        b'{"code":0,"data":[[1790373600000,"x",2,1,1,1,1790373659999,1]]}',
    ],
)
@pytest.mark.parametrize("instrument", MARKETS)
def test_what_is_not_documented_is_an_error(instrument: Instrument, body: bytes) -> None:
    with pytest.raises(DecodeError):
        candles(instrument, 0, 2).parse(reply(body))
    with pytest.raises(DecodeError):
        trades(instrument, 0, 1).parse(reply(body))


# --- Trades -----------------------------------------------------------------------------------------------


def swap_trade(ms: int, price: str, *, buyer_is_maker: bool = True) -> Any:
    return {"time": ms, "isBuyerMaker": buyer_is_maker, "price": price, "qty": "0.5", "quoteQty": "1"}


def test_swap_trades_between_two_times() -> None:
    call = trades(SWAP, 1000, 2000)
    assert call.request.path == "/openApi/swap/v2/quote/trades"
    assert call.request.params == {"symbol": "BTC-USDT", "limit": 1000}
    rows = [swap_trade(ms, f"{ms}.0") for ms in (2001, 2000, 1500, 1500, 1000, 999)]
    page = call.parse(reply({"code": 0, "data": rows}))
    assert [t.price for t in page.items] == ["1000.0", "1500.0", "1500.0", "2000.0"]
    assert page.next is None
    assert page.items[0] == Trade(
        venue="bingx",
        instrument="BTC-USDT-PERP",
        venue_time_ns=1000 * MS,
        received_ns=LATER_NS,
        origin=Origin.BACKFILL,
        id=None,
        price="1000.0",
        size="0.5",
        aggressor=Side.SELL,
    )


def test_swap_trades_of_one_millisecond_keep_the_reverse_of_their_order() -> None:
    rows = [swap_trade(1000, "3"), swap_trade(1000, "2"), swap_trade(1000, "1")]
    page = trades(SWAP, 0, 2000).parse(reply({"code": 0, "data": rows}))
    assert [t.price for t in page.items] == ["1", "2", "3"]


def test_spot_trades_have_ids_and_numbers() -> None:
    call = trades(SPOT, 1000, 2000, after_id="7", before_id="9")
    assert call.request.path == "/openApi/spot/v1/market/trades"
    assert call.request.params == {"symbol": "BTC-USDT", "limit": 500}
    rows = ",".join(
        f'{{"id":{number},"price":{number}.10,"qty":0.5,"time":{ms},"buyerMaker":false}}'
        for number, ms in ((9, 1900), (8, 1800), (11, 1700), (7, 1600))
    )
    page = call.parse(reply(f'{{"code":0,"data":[{rows}]}}'.encode()))
    assert [(t.id, t.price, t.aggressor) for t in page.items] == [
        ("11", "11.10", Side.BUY),
        ("8", "8.10", Side.BUY),
    ]


# --- Limits and refusals ----------------------------------------------------------------------------------


def test_what_is_left_of_the_limit_is_told_by_headers() -> None:
    body = b'{"code":0,"data":[]}'
    told = {"x_ratelimit_requests_remain": "17", "x_ratelimit_requests_expire": str(START_MS + 4_000)}
    signal = REST.examine(reply(body, received_ns=START_MS * MS, **told))
    assert signal == RateSignal(remaining=17, reset_after_s=4.0)
    assert REST.examine(reply(body)) == RateSignal()
    assert REST.examine(reply(body, x_ratelimit_requests_remain="?")) == RateSignal()


@pytest.mark.parametrize("code", [109429, 100410, 100409])
def test_too_many_requests_inside_http_200(code: int) -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply({"code": code, "msg": "slow down"}))
    assert caught.value.retry_after_s == 10
    expire = {"x_ratelimit_requests_expire": str(LATER_NS // MS + 3_500)}
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply({"code": code, "msg": "slow down"}, **expire))
    assert caught.value.retry_after_s == pytest.approx(3.5)


def test_a_wrong_clock_waits_no_longer_than_a_minute() -> None:
    expire = {"x_ratelimit_requests_expire": str(LATER_NS // MS + 3_600_000)}
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"", 429, **expire))
    assert caught.value.retry_after_s == 60


@pytest.mark.parametrize(("status", "wait_s"), [(429, 10), (418, 300)])
def test_too_many_requests_by_status(status: int, wait_s: float) -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"<html>", status))
    assert caught.value.retry_after_s == wait_s
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"<html>", status, retry_after="77"))
    assert caught.value.retry_after_s == 77


@pytest.mark.parametrize("code", [109400, 109425, 109415, 100400, 104414])
def test_what_asking_again_does_not_help(code: int) -> None:
    with pytest.raises(SubscriptionRejectedError, match=f"code {code}.*this symbol is not exist"):
        REST.examine(reply({"code": code, "msg": "this symbol is not exist", "data": {}}))


@pytest.mark.parametrize("code", [100500, 100503, 80014, 1])
def test_other_codes_may_pass(code: int) -> None:
    with pytest.raises(VenueError) as caught:
        REST.examine(reply({"code": code, "msg": "busy"}))
    assert caught.value.retry
    assert not isinstance(caught.value, RateLimitedError)


def test_the_code_is_found_wherever_it_stands() -> None:
    with pytest.raises(SubscriptionRejectedError):
        REST.examine(reply(b'{"msg":"x","data":{},"code":109425}'))
    assert REST.examine(reply(b' { "code" : 0 , "data":[]}')) == RateSignal()
    for body in (b"", b"<html>", b"[]", b'{"data":[]}', b'{"code":"x"}'):
        with pytest.raises(DecodeError):
            REST.examine(reply(body))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, ConnectError),
        (400, SubscriptionRejectedError),
        (404, SubscriptionRejectedError),
        (502, VenueError),
    ],
)
def test_other_statuses(status: int, error: type[VenueError]) -> None:
    with pytest.raises(error) as caught:
        REST.examine(reply(b'{"code":104414,"msg":"timestamp"}', status))
    if status == 403:
        assert caught.value.retry_after_s == 300, "the firewall lets go after about 5 minutes"
