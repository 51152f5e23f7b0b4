"""Questions to Hermes and Benchmarks, and how answers are read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import (
    ConnectError,
    DecodeError,
    LoginRejectedError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import Candle, Origin
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.rest import HttpReply, RateSignal, RestCall
from pricefeedd_pyth.rest import PythRest
from pricefeedd_pyth.venue import pyth

REST = PythRest("secret")
NOW_NS = 1_790_373_640_000_000_000
START_S = 1_790_373_600  # the minute that runs at NOW_NS
BTC_ID = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
BTC = Instrument(
    venue="pyth",
    market="oracle",
    name="BTC-USD",
    symbol=BTC_ID,
    rest_symbol="Crypto.BTC/USD",
    kind=Kind.ORACLE,
    base="BTC",
    quote="USD",
)


def reply(body: Any, status: int = 200) -> HttpReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpReply(status=status, body=data, received_ns=NOW_NS)


# --- Feeds ------------------------------------------------------------------------------------------------


def test_all_feeds_in_one_request_by_default() -> None:
    call = REST.instruments("oracle")
    assert (call.request.path, call.request.params) == ("/v2/price_feeds", {})
    assert call.request.headers == {"Authorization": "Bearer secret"}
    page = call.parse(reply([{"id": BTC_ID, "attributes": {"symbol": "Crypto.BTC/USD"}}]))
    assert ([one.name for one in page.items], page.next) == (["BTC-USD"], None)


def test_chosen_kinds_one_after_the_other() -> None:
    call: RestCall[Instrument] | None = PythRest(asset_types=("crypto", "fx", "metal")).instruments("oracle")
    kinds = []
    while call is not None:
        assert call.request.headers == {}
        kinds.append(call.request.params["asset_type"])
        call = call.parse(reply([])).next
    assert kinds == ["crypto", "fx", "metal"]


def test_there_are_neither_books_nor_trades() -> None:
    assert REST.book(BTC) is None
    assert REST.trades(BTC, after_id=None, before_id=None, from_ns=0, to_ns=1) is None


# --- Latest -----------------------------------------------------------------------------------------------


def test_latest() -> None:
    call = REST.latest([BTC])
    assert call.request.path.startswith(f"/v2/updates/price/latest?ids[]={BTC_ID}&")
    price = {"price": "33223750", "conf": "15272", "expo": -5, "publish_time": 1785424136}
    rows = [{"id": feed_id, "price": price} for feed_id in ("0" * 64, BTC_ID)]
    (found,) = call.parse(reply({"parsed": rows})).items
    assert (found.instrument, found.price, found.conf, found.slot) == (
        "BTC-USD",
        "332.23750",
        "0.15272",
        None,
    )
    for wrong in (b"<html>", b"{}", b'{"parsed":[7]}'):
        with pytest.raises(DecodeError):
            call.parse(reply(wrong))


# --- Candles ----------------------------------------------------------------------------------------------


def bars(*starts: int, price: Any = 61632.5) -> dict[str, Any]:
    columns = {key: [price] * len(starts) for key in "ohlc"}
    return {"s": "ok", "t": list(starts), **columns, "v": [0] * len(starts)}


def candles(start_s: int, end_s: int) -> RestCall[Candle]:
    return REST.candles(BTC, start_s * 10**9, end_s * 10**9)


def test_history_is_asked_for_by_symbol_and_seconds() -> None:
    request = candles(START_S - 600, START_S).request
    assert (request.endpoint, request.path) == ("oracle_history", "/v1/shims/tradingview/history")
    assert request.params == {
        "symbol": "Crypto.BTC/USD",
        "resolution": "1",
        "from": START_S - 600,
        "to": START_S + 1,
    }
    assert (request.headers, request.budget) == ({"Authorization": "Bearer secret"}, "benchmarks")


def test_a_bar() -> None:
    body = b'{"s":"ok","t":[%d],"o":[61632.60],"h":[61700.10000001],"l":[6e4],"c":[61650],"v":[0]}' % (
        START_S - 60
    )
    (candle,) = candles(START_S - 60, START_S).parse(reply(body)).items
    assert candle == Candle(
        venue="pyth",
        instrument="BTC-USD",
        received_ns=NOW_NS,
        origin=Origin.BACKFILL,
        start_ns=(START_S - 60) * 10**9,
        open="61632.60",
        high="61700.10000001",
        low="60000",
        close="61650",
        volume="0",
        closed=True,
    )


def test_the_last_bar_may_run_still() -> None:
    page = candles(START_S - 60, START_S).parse(reply(bars(START_S - 60, START_S)))
    assert [candle.closed for candle in page.items] == [True, False]


def test_both_ends_of_the_window_belong_to_it_and_nothing_beyond() -> None:
    starts = [START_S + 60 * i for i in range(-10, 0)]
    page = candles(START_S - 480, START_S - 240).parse(reply(bars(*starts)))
    assert [c.start_ns // 10**9 - START_S for c in page.items] == [-480, -420, -360, -300, -240]


def test_a_long_window_goes_day_by_day() -> None:
    minutes = 3 * 1440 + 7
    first = START_S - minutes * 60
    call: RestCall[Candle] | None = candles(first, START_S - 60)
    found: list[int] = []
    pages = 0
    while call is not None:
        pages += 1
        lo, hi = int(call.request.params["from"]), int(call.request.params["to"])
        page = call.parse(reply(bars(*range(-(-lo // 60) * 60, hi + 1, 60))))
        found += [c.start_ns // 10**9 for c in page.items]
        call = page.next
    assert (pages, found) == (4, list(range(first, START_S, 60)))


def test_nothing_is_no_error() -> None:
    assert candles(START_S - 60, START_S).parse(reply({"s": "no_data", "t": []})).items == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b"[]",
        {"s": "ok"},
        bars(START_S - 60) | {"c": []},
        bars(START_S - 59),
        bars(START_S - 60) | {"t": ["x"]},
        bars(START_S - 60, price=None),
        bars(START_S - 60, price="x"),
        b'{"s":"ok","t":[1790373540],"o":[NaN],"h":[1],"l":[1],"c":[1]}',
    ],
)
def test_bars_of_the_wrong_shape_are_refused(body: Any) -> None:
    with pytest.raises(DecodeError):
        candles(START_S - 60, START_S).parse(reply(body))


# --- What answers stand for -------------------------------------------------------------------------------


def test_a_good_answer() -> None:
    assert REST.examine(reply({"s": "ok"})) == RateSignal()


def test_too_many_requests_lock_out_for_a_minute() -> None:
    with pytest.raises(RateLimitedError) as caught:
        REST.examine(reply(b"Too Many Requests", 429))
    assert caught.value.retry_after_s == 60.0


def test_no_key_and_a_wrong_key() -> None:
    with pytest.raises(LoginRejectedError, match=r"set api_key in \[venues.pyth\]"):
        PythRest().examine(reply(b"unauthorized", 401))
    with pytest.raises(LoginRejectedError, match="refuses the API key") as caught:
        REST.examine(reply(b"unauthorized", 401))
    assert "secret" not in str(caught.value)
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b"Not entitled: feed x", SubscriptionRejectedError),
        (403, b"<html>", ConnectError),
        (404, b"Price ids not found: x", SubscriptionRejectedError),
        (404, b"Update data not found", VenueError),
        (400, b"Failed to deserialize", SubscriptionRejectedError),
        (500, b"RPC connection error", VenueError),
        (503, b"", VenueError),
        (200, b'{"s": "error","errmsg":"Invalid symbol"}', SubscriptionRejectedError),
    ],
)
def test_errors(status: int, body: bytes, kind: type[VenueError]) -> None:
    with pytest.raises(kind) as caught:
        REST.examine(reply(body, status))
    assert type(caught.value) is kind


def test_budgets_and_endpoints_exist() -> None:
    venue = pyth()
    budgets = {budget.name for budget in venue.budgets}
    for request in (
        REST.instruments("oracle").request,
        REST.latest([BTC]).request,
        candles(START_S, START_S).request,
    ):
        assert request.budget in budgets
        assert request.endpoint in venue.endpoints
        assert "secret" not in repr(request)
