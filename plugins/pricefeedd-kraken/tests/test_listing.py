"""AssetPairs replies, and the instruments they name."""

from __future__ import annotations

from typing import Any

import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd_kraken.listing import read_instruments

BTC = {
    "altname": "XBTUSD", "wsname": "XBT/USD", "aclass_base": "currency", "base": "XXBT", "aclass_quote": "currency",
    "quote": "ZUSD", "lot": "unit", "cost_decimals": 5, "pair_decimals": 1, "lot_decimals": 8, "lot_multiplier": 1,
    "ordermin": "0.0001", "costmin": "0.5", "tick_size": "0.1", "status": "online",
}  # fmt: skip


def read(**rows: dict[str, Any]) -> list[Instrument]:
    return read_instruments(rows)


def test_a_pair() -> None:
    assert read(XXBTZUSD=BTC) == [
        Instrument(
            venue="kraken",
            market="spot",
            name="BTC-USD",
            symbol="BTC/USD",
            rest_symbol="XBTUSD",
            kind=Kind.SPOT,
            base="BTC",
            quote="USD",
            settle="USD",
            tick_size="0.1",
            lot_size="0.00000001",
            status="online",
        )
    ]


@pytest.mark.parametrize(
    ("wsname", "symbol"),
    [
        ("XBT/USD", "BTC/USD"),
        ("XDG/USD", "DOGE/USD"),
        ("ETH/XBT", "ETH/BTC"),
        ("XDG/XBT", "DOGE/BTC"),
        ("WBTC/XBT", "WBTC/BTC"),
        ("ETH/EUR", "ETH/EUR"),
    ],
)
def test_old_names_become_those_of_v2_on_either_side(wsname: str, symbol: str) -> None:
    (found,) = read(KEY=BTC | {"wsname": wsname})
    assert found.symbol == symbol
    assert found.name == symbol.replace("/", "-")


@pytest.mark.parametrize(
    ("status", "tradable"),
    [("online", True), ("cancel_only", False), ("delisted", False), ("something_new", False)],
)
def test_states(status: str, tradable: bool) -> None:
    (found,) = read(KEY=BTC | {"status": status})
    assert (found.tradable, found.status) == (tradable, status)


@pytest.mark.parametrize(
    ("decimals", "lot"), [(8, "0.00000001"), (1, "0.1"), (0, "1"), (None, None), (99, None)]
)
def test_lots(decimals: int | None, lot: str | None) -> None:
    (found,) = read(KEY=BTC | {"lot_decimals": decimals})
    assert found.lot_size == lot


def test_a_pair_without_a_tick_has_none() -> None:
    (found,) = read(KEY={key: value for key, value in BTC.items() if key != "tick_size"})
    assert found.tick_size is None


def test_rest_takes_the_key_where_there_is_no_altname() -> None:
    (found,) = read(XXBTZUSD={key: value for key, value in BTC.items() if key != "altname"})
    assert found.rest_symbol == "XXBTZUSD"


def test_pairs_that_are_on_no_stream_are_passed_over() -> None:
    dark = {key: value for key, value in BTC.items() if key != "wsname"}
    assert [found.symbol for found in read(XBTUSDd=dark, XXBTZUSD=BTC)] == ["BTC/USD"]
    assert read(XBTUSDd=dark) == []


@pytest.mark.parametrize("row", [{"wsname": "XBTUSD"}, {"wsname": None}, {"wsname": "/"}, [], None, 7])
def test_one_odd_row_does_not_take_the_others_with_it(row: Any) -> None:
    assert [found.name for found in read(ODD=row, XXBTZUSD=BTC)] == ["BTC-USD"]


def test_no_row_at_all_that_can_be_read_is_an_error() -> None:
    with pytest.raises(DecodeError, match="no row"):
        read(ODD=BTC | {"wsname": "XBTUSD"})
    assert read() == []


@pytest.mark.parametrize("result", [None, [], "x", 1])
def test_a_reply_without_pairs_is_an_error(result: Any) -> None:
    with pytest.raises(DecodeError):
        read_instruments(result)


def test_pairs_are_found_by_name_and_symbol_in_any_case() -> None:
    known = InstrumentMap("kraken", "spot", read(XXBTZUSD=BTC))
    assert known.find("btc-usd") is known.find("BTC/USD") is known.find("BTC-USD")
