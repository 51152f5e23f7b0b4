"""Lists of symbols and contracts, and the instruments that they become."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.rest import HttpReply
from pricefeedd_bingx.venue import bingx

REST = bingx().rest


def read(market: str, body: bytes) -> list[Instrument]:
    call = REST.instruments(market)
    return list(call.parse(HttpReply(status=200, body=body, received_ns=1)).items)


def swaps(*rows: Any) -> list[Instrument]:
    return read("linear", orjson.dumps({"code": 0, "msg": "", "data": rows}))


def spots(rows: str) -> list[Instrument]:
    return read("spot", f'{{"code":0,"msg":"","debugMsg":"","data":{{"symbols":[{rows}]}}}}'.encode())


BTC = {
    "contractId": "100", "symbol": "BTC-USDT", "size": "0", "quantityPrecision": 4, "pricePrecision": 1,
    "feeRate": 0.0005, "tradeMinLimit": 0, "tradeMinQuantity": 0.0001, "tradeMinUSDT": 2, "currency": "USDT",
    "asset": "BTC", "status": 1, "apiStateOpen": "true", "apiStateClose": "true", "launchTime": 1586275200000,
}  # fmt: skip


def test_a_swap() -> None:
    assert swaps(BTC) == [
        Instrument(
            venue="bingx",
            market="linear",
            name="BTC-USDT-PERP",
            symbol="BTC-USDT",
            kind=Kind.PERPETUAL,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.1",
            lot_size="0.0001",
            contract_size="1",
            size_unit="base",
            contract_currency="BTC",
            tradable=True,
            status="1",
        )
    ]


@pytest.mark.parametrize(
    ("digits", "step"), [(0, "1"), (1, "0.1"), (7, "0.0000001"), (None, None), (-1, None)]
)
def test_precisions_are_digits_and_not_steps(digits: Any, step: str | None) -> None:
    (found,) = swaps(BTC | {"pricePrecision": digits, "quantityPrecision": digits})
    assert (found.tick_size, found.lot_size) == (step, step)


def test_the_multiplier_stays_in_the_base() -> None:
    (found,) = swaps(BTC | {"symbol": "1000PEPE-USDT", "asset": "PEPE"})
    assert (found.name, found.base) == ("1000PEPE-USDT-PERP", "1000PEPE")


def test_stocks_and_dollars_of_other_kinds() -> None:
    rows = [BTC | {"symbol": "NCSKTSLA2USD-USDT"}, BTC | {"symbol": "ETH-USDC", "currency": "USDC"}]
    assert [(i.name, i.settle) for i in swaps(*rows)] == [
        ("NCSKTSLA2USD-USDT-PERP", "USDT"),
        ("ETH-USDC-PERP", "USDC"),
    ]


@pytest.mark.parametrize(
    ("status", "tradable"), [(1, True), (25, False), (5, False), (0, False), (99, False)]
)
def test_only_status_1_is_tradable(status: int, tradable: bool) -> None:
    (found,) = swaps(BTC | {"status": status})
    assert (found.tradable, found.status) == (tradable, str(status))
    (other,) = spots(f'{{"symbol":"BTC-USDT","status":{status}}}')
    assert (other.tradable, other.status) == (tradable, str(status))


def test_a_spot_symbol_is_cut_at_its_hyphen_and_has_numbers() -> None:
    row = '{"symbol":"BTC-USDT","minQty":0.0001826,"maxQty":18.2663756,"minNotional":5,"status":1,"tickSize":0.01,"stepSize":0.00001}'
    assert spots(row) == [
        Instrument(
            venue="bingx",
            market="spot",
            name="BTC-USDT",
            symbol="BTC-USDT",
            kind=Kind.SPOT,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.01",
            lot_size="0.00001",
            status="1",
        )
    ]


@pytest.mark.parametrize(
    ("number", "step"),
    [("1e-05", "0.00001"), ("1E-7", "0.0000001"), ("1", "1"), ("0", None), ("null", None), ("-1", None)],
)
def test_steps_with_exponents_and_without_sense(number: str, step: str | None) -> None:
    (found,) = spots(f'{{"symbol":"BTC-USDT","status":1,"tickSize":{number},"stepSize":{number}}}')
    assert (found.tick_size, found.lot_size) == (step, step)


def test_an_odd_row_does_not_take_the_others_with_it() -> None:
    odd = [
        {},
        {"symbol": None},
        {"symbol": "BTCUSDT"},
        {"symbol": "-USDT"},
        7,
        BTC | {"symbol": ["BTC-USDT"]},
    ]
    assert [i.symbol for i in swaps(*odd, BTC)] == ["BTC-USDT"]
    with pytest.raises(DecodeError, match="no row"):
        swaps(*odd)


def test_an_empty_list_is_a_list() -> None:
    assert swaps() == []


@pytest.mark.parametrize("body", [b"{}", b'{"data":null}', b'{"data":{"rows":[]}}', b"[]", b"x"])
@pytest.mark.parametrize("market", ["spot", "linear"])
def test_what_is_no_list_is_an_error(market: str, body: bytes) -> None:
    with pytest.raises(DecodeError):
        read(market, body)


def test_names_are_found_by_symbol_in_their_market() -> None:
    found = InstrumentMap("bingx", "linear", swaps(BTC))
    assert found.find("BTC-USDT").name == "BTC-USDT-PERP"
    assert found.find("BTC-USDT-PERP").symbol == "BTC-USDT"
    assert found.names == {"BTC-USDT": "BTC-USDT-PERP"}
