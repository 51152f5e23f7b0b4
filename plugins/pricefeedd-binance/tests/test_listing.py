"""exchangeInfo replies, and the instruments they name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.rest import HttpReply
from pricefeedd_binance.listing import read_instruments
from pricefeedd_binance.rest import BinanceRest

LINEAR = orjson.loads(
    '{"symbol":"BTCUSDT","pair":"BTCUSDT","contractType":"PERPETUAL","deliveryDate":4133404800000,"onboardDate":1569398400000,"status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","marginAsset":"USDT","pricePrecision":2,"quantityPrecision":3,"filters":[{"minPrice":"556.72","maxPrice":"1000000","filterType":"PRICE_FILTER","tickSize":"0.01"},{"stepSize":"0.001","filterType":"LOT_SIZE","maxQty":"1000","minQty":"0.001"}]}'
)
INVERSE = orjson.loads(
    '{"symbol":"BTCUSD_PERP","pair":"BTCUSD","contractType":"PERPETUAL","deliveryDate":4133404800000,"contractStatus":"TRADING","contractSize":100,"marginAsset":"BTC","baseAsset":"BTC","quoteAsset":"USD","pricePrecision":1,"filters":[{"minPrice":"1000","maxPrice":"1000000","filterType":"PRICE_FILTER","tickSize":"0.1"}]}'
)
SPOT = orjson.loads(
    '{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","filters":[{"filterType":"PRICE_FILTER","minPrice":"0.01000000","maxPrice":"1000000.00000000","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","minQty":"0.00001000","maxQty":"9000.00000000","stepSize":"0.00001000"}],"permissions":[],"permissionSets":[["SPOT","MARGIN"]]}'
)


def read(market: str, *rows: Any) -> list[Instrument]:
    return read_instruments(market, {"timezone": "UTC", "symbols": list(rows)})


def test_spot() -> None:
    assert read("spot", SPOT) == [
        Instrument(
            venue="binance",
            market="spot",
            name="BTC-USDT",
            symbol="BTCUSDT",
            kind=Kind.SPOT,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.01000000",
            lot_size="0.00001000",
            status="TRADING",
        )
    ]


def test_linear_perpetual() -> None:
    assert read("linear", LINEAR) == [
        Instrument(
            venue="binance",
            market="linear",
            name="BTC-USDT-PERP",
            symbol="BTCUSDT",
            kind=Kind.PERPETUAL,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.01",
            lot_size="0.001",
            contract_currency="BTC",
            status="TRADING",
        )
    ]


def test_inverse_perpetual_counts_contracts_of_usd() -> None:
    assert read("inverse", INVERSE) == [
        Instrument(
            venue="binance",
            market="inverse",
            name="BTC-USD-PERP",
            symbol="BTCUSD_PERP",
            kind=Kind.PERPETUAL,
            base="BTC",
            quote="USD",
            settle="BTC",
            tick_size="0.1",
            lot_size=None,
            contract_size="100",
            size_unit="contract",
            contract_currency="USD",
            status="TRADING",
        )
    ]


def test_dated_contracts_are_named_by_their_delivery() -> None:
    linear = LINEAR | {
        "symbol": "BTCUSDT_261225",
        "contractType": "CURRENT_QUARTER",
        "deliveryDate": 1_798_185_600_000,
    }
    (future,) = read("linear", linear)
    assert (future.name, future.kind) == ("BTC-USDT-20261225", Kind.FUTURE)
    assert future.expiry_ns == 1_798_185_600_000_000_000
    inverse = INVERSE | {
        "symbol": "BTCUSD_210924",
        "contractType": "NEXT_QUARTER",
        "deliveryDate": 1_632_470_400_000,
    }
    assert read("inverse", inverse)[0].name == "BTC-USD-20210924"


@pytest.mark.parametrize(
    ("contract_type", "delivery", "name"),
    [
        ("TRADIFI_PERPETUAL", 4_133_404_800_000, "BTC-USDT-PERP"),
        ("PERPETUAL DELIVERING", 1_798_185_600_000, "BTC-USDT-PERP"),
        ("CURRENT_QUARTER DELIVERING", 1_798_185_600_000, "BTC-USDT-20261225"),
        ("SOMETHING_NEW", 1_798_185_600_000, "BTC-USDT-20261225"),
        ("SOMETHING_NEW", 4_133_404_800_000, "BTC-USDT-PERP"),
        ("", 4_133_404_800_000, "BTC-USDT-PERP"),
        ("", None, "BTC-USDT-PERP"),
        (None, "soon", "BTC-USDT-PERP"),
    ],
)
def test_odd_contract_types_are_kept(contract_type: str, delivery: object, name: str) -> None:
    row = LINEAR | {"contractType": contract_type, "deliveryDate": delivery}
    assert [i.name for i in read("linear", row)] == [name]


@pytest.mark.parametrize(
    "status", ["BREAK", "HALT", "END_OF_DAY", "CANCEL_ONLY", "PENDING_TRADING", "SETTLING", "NEW_WORD", "trading", ""]
)  # fmt: skip
def test_only_trading_is_tradable(status: str) -> None:
    for market, row, key in (
        ("spot", SPOT, "status"),
        ("linear", LINEAR, "status"),
        ("inverse", INVERSE, "contractStatus"),
    ):
        (found,) = read(market, row | {key: status})
        assert not found.tradable
        assert found.status == status


def test_names_come_from_the_assets() -> None:
    row = SPOT | {"symbol": "USDCUSDT", "baseAsset": "USDC"}
    thousand = LINEAR | {"symbol": "1000SHIBUSDT", "baseAsset": "1000SHIB"}
    assert read("spot", row)[0].name == "USDC-USDT"
    assert read("linear", thousand)[0].name == "1000SHIB-USDT-PERP"


def test_symbols_beyond_ascii_are_found() -> None:
    (found,) = read("spot", SPOT | {"symbol": "币安人生USDT", "baseAsset": "币安人生"})
    names = InstrumentMap("binance", "spot", [found])
    assert names.find("币安人生-USDT") is found
    assert names.find("币安人生usdt") is found


def test_a_filter_of_zero_is_no_step() -> None:
    off = SPOT | {"filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.00000000"}]}
    (found,) = read("spot", off)
    assert (found.tick_size, found.lot_size) == (None, None)


@pytest.mark.parametrize(
    "odd", [None, [], {}, {"symbol": "X"}, SPOT | {"baseAsset": 5}, SPOT | {"filters": [1]}, SPOT | {"symbol": ""}]
)  # fmt: skip
def test_one_odd_row_does_not_take_the_others_with_it(odd: object) -> None:
    assert [i.name for i in read("spot", odd, SPOT)] == ["BTC-USDT"]


@pytest.mark.parametrize("body", [[], {}, None, {"symbols": None}, {"symbols": {}}, {"symbols": [{}]}, 5])
def test_a_reply_without_symbols_is_refused(body: object) -> None:
    with pytest.raises(DecodeError, match="exchangeInfo of spot"):
        read_instruments("spot", body)


def test_a_market_may_be_empty() -> None:
    assert read("linear") == []


@pytest.mark.parametrize(
    ("market", "path", "cost", "params"),
    [
        ("spot", "/api/v3/exchangeInfo", 20, {"showPermissionSets": "false"}),
        ("linear", "/fapi/v1/exchangeInfo", 1, {}),
        ("inverse", "/dapi/v1/exchangeInfo", 1, {}),
    ],
)
def test_question(market: str, path: str, cost: float, params: dict[str, str]) -> None:
    call = BinanceRest().instruments(market)
    assert (call.request.path, call.request.cost, call.request.params) == (path, cost, params)
    row = {"spot": SPOT, "linear": LINEAR, "inverse": INVERSE}[market]
    page = call.parse(HttpReply(status=200, body=orjson.dumps({"symbols": [row]}), received_ns=1))
    assert len(page.items) == 1
    assert page.next is None
