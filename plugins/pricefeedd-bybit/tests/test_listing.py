"""instruments-info replies, and the instruments they name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.rest import HttpReply, RestCall
from pricefeedd_bybit.listing import read_instruments
from pricefeedd_bybit.rest import BybitRest

LINEAR: dict[str, Any] = {
    "symbol": "BTCUSDT", "symbolId": 5, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC",
    "quoteCoin": "USDT", "launchTime": "1585526400000", "deliveryTime": "0", "priceScale": "2",
    "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"},
    "lotSizeFilter": {"maxOrderQty": "1190.000", "minOrderQty": "0.001", "qtyStep": "0.001"},
    "fundingInterval": 480, "settleCoin": "USDT", "isPreListing": False, "preListingInfo": None, "symbolType": "",
}  # fmt: skip
USDC = LINEAR | {"symbol": "BTCPERP", "quoteCoin": "USDC", "settleCoin": "USDC"}
DATED = USDC | {"symbol": "BTC-25DEC26", "contractType": "LinearFutures", "deliveryTime": "1798185600000"}
INVERSE = LINEAR | {
    "symbol": "BTCUSD", "contractType": "InversePerpetual", "quoteCoin": "USD", "settleCoin": "BTC",
    "priceFilter": {"tickSize": "0.50"}, "lotSizeFilter": {"qtyStep": "1"},
}  # fmt: skip
SPOT: dict[str, Any] = {
    "symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "Trading", "marginTrading": "utaOnly",
    "lotSizeFilter": {"basePrecision": "0.000001", "quotePrecision": "0.0000001"},
    "priceFilter": {"tickSize": "0.1"},
}  # fmt: skip


def read(market: str, *rows: Any) -> list[Instrument]:
    return read_instruments(market, list(rows))


def test_spot() -> None:
    assert read("spot", SPOT) == [
        Instrument(
            venue="bybit",
            market="spot",
            name="BTC-USDT",
            symbol="BTCUSDT",
            kind=Kind.SPOT,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.1",
            lot_size="0.000001",
            status="Trading",
        )
    ]


def test_linear_perpetual_counts_base_units() -> None:
    assert read("linear", LINEAR) == [
        Instrument(
            venue="bybit",
            market="linear",
            name="BTC-USDT-PERP",
            symbol="BTCUSDT",
            kind=Kind.PERPETUAL,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.10",
            lot_size="0.001",
            contract_currency="BTC",
            status="Trading",
        )
    ]


def test_inverse_perpetual_counts_dollars() -> None:
    assert read("inverse", INVERSE) == [
        Instrument(
            venue="bybit",
            market="inverse",
            name="BTC-USD-PERP",
            symbol="BTCUSD",
            kind=Kind.PERPETUAL,
            base="BTC",
            quote="USD",
            settle="BTC",
            tick_size="0.50",
            lot_size="1",
            contract_size="1",
            size_unit="contract",
            contract_currency="USD",
            status="Trading",
        )
    ]


def test_names_come_from_coins_and_terms() -> None:
    assert read("linear", USDC)[0].name == "BTC-USDC-PERP"
    (dated,) = read("linear", DATED)
    assert (dated.name, dated.kind, dated.expiry_ns) == (
        "BTC-USDC-20261225",
        Kind.FUTURE,
        1_798_185_600_000_000_000,
    )
    row = INVERSE | {
        "symbol": "BTCUSDZ26",
        "contractType": "InverseFutures",
        "deliveryTime": "1798185600000",
    }
    assert read("inverse", row)[0].name == "BTC-USD-20261225"
    row = LINEAR | {"symbol": "1000PEPEUSDT", "baseCoin": "1000PEPE"}
    assert read("linear", row)[0].name == "1000PEPE-USDT-PERP"
    row = SPOT | {"symbol": "ETHBTC", "baseCoin": "ETH", "quoteCoin": "BTC"}
    assert read("spot", row)[0].name == "ETH-BTC"


def test_a_perpetual_that_will_be_delisted_stays_one() -> None:
    (found,) = read("linear", LINEAR | {"deliveryTime": "1798185600000"})
    assert (found.kind, found.name, found.expiry_ns) == (Kind.PERPETUAL, "BTC-USDT-PERP", None)


@pytest.mark.parametrize(
    ("contract", "delivery", "name"),
    [
        ("SomethingNew", "1798185600000", "BTC-USDT-20261225"),
        ("SomethingNew", "0", "BTC-USDT-PERP"),
        ("SomethingPerpetual", "1798185600000", "BTC-USDT-PERP"),
        ("", "", "BTC-USDT-PERP"),
        (None, None, "BTC-USDT-PERP"),
    ],
)
def test_odd_contract_types_are_kept(contract: str, delivery: str, name: str) -> None:
    assert [
        i.name for i in read("linear", LINEAR | {"contractType": contract, "deliveryTime": delivery})
    ] == [name]


@pytest.mark.parametrize("status", ["PreLaunch", "Delivering", "Closed", "NewWord", "trading", ""])
def test_only_trading_is_tradable(status: str) -> None:
    for market, row in (("spot", SPOT), ("linear", LINEAR), ("inverse", INVERSE)):
        (found,) = read(market, row | {"status": status})
        assert (found.tradable, found.status) == (False, status)


def test_a_step_of_zero_or_none_is_none() -> None:
    row = LINEAR | {"priceFilter": {"tickSize": "0.00"}, "lotSizeFilter": None}
    (found,) = read("linear", row)
    assert (found.tick_size, found.lot_size) == (None, None)


@pytest.mark.parametrize(
    "odd", [None, [], {}, {"symbol": "X"}, LINEAR | {"baseCoin": 5}, LINEAR | {"symbol": ""},
            DATED | {"deliveryTime": "9" * 18}, DATED | {"deliveryTime": 5}, LINEAR | {"priceFilter": "x"}],
)  # fmt: skip
def test_one_odd_row_does_not_take_the_others_with_it(odd: object) -> None:
    assert [i.name for i in read("linear", odd, USDC)] == ["BTC-USDC-PERP"]


@pytest.mark.parametrize("rows", [None, {}, 5, "x", [{}], [None]])
def test_a_reply_without_instruments_is_refused(rows: object) -> None:
    with pytest.raises(DecodeError, match="instruments-info of linear"):
        read_instruments("linear", rows)


def test_a_market_may_be_empty() -> None:
    assert read("linear") == []


# --- Pages ------------------------------------------------------------------------------------------------


def reply(rows: list[Any], cursor: str | None = "") -> HttpReply:
    result: dict[str, Any] = {"category": "linear", "list": rows}
    if cursor is not None:
        result["nextPageCursor"] = cursor
    body = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": 1}
    return HttpReply(status=200, body=orjson.dumps(body), received_ns=1)


def test_all_pages_of_all_states_are_read() -> None:
    call: RestCall[Instrument] | None = BybitRest().instruments("linear")
    pages = [
        (LINEAR, "page2"), (USDC, ""), (LINEAR | {"symbol": "NEWUSDT", "baseCoin": "NEW", "status": "PreLaunch"}, ""),
        (DATED | {"status": "Delivering"}, ""),
    ]  # fmt: skip
    asked: list[dict[str, Any]] = []
    found: list[Instrument] = []
    for row, cursor in pages:
        assert call is not None
        params = dict(call.request.params)
        assert (call.request.path, params.pop("category")) == ("/v5/market/instruments-info", "linear")
        assert (call.request.endpoint, call.request.budget) == ("linear_rest", "rest")
        asked.append(params)
        page = call.parse(reply([row], cursor))
        found += page.items
        call = page.next
    assert call is None
    assert asked == [
        {"limit": 1000},
        {"limit": 1000, "cursor": "page2"},
        {"limit": 1000, "status": "PreLaunch"},
        {"limit": 1000, "status": "Delivering"},
    ]
    names = InstrumentMap("bybit", "linear", found)
    assert [i.tradable for i in names] == [True, True, False, False]
    assert names.find("newusdt").status == "PreLaunch"


def test_spot_is_one_page() -> None:
    call = BybitRest().instruments("spot")
    assert call.parse(reply([SPOT], None)).next is None
    assert call.parse(reply([SPOT], "more")).next is None


def test_a_cursor_that_does_not_move_ends_the_pages() -> None:
    page = BybitRest().instruments("linear").parse(reply([LINEAR], "same"))
    assert page.next is not None
    after = page.next.parse(reply([USDC], "same"))
    assert after.next is not None
    assert after.next.request.params["status"] == "PreLaunch"


@pytest.mark.parametrize("result", [None, [], {"list": None}, {"list": [LINEAR], "nextPageCursor": 5}])
def test_a_page_of_the_wrong_shape_is_refused(result: Any) -> None:
    body = orjson.dumps({"retCode": 0, "retMsg": "OK", "result": result, "time": 1})
    with pytest.raises(DecodeError):
        BybitRest().instruments("linear").parse(HttpReply(status=200, body=body, received_ns=1))
