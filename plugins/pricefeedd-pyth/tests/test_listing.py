"""price_feeds replies, and the instruments they name."""

from __future__ import annotations

from typing import Any

import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind
from pricefeedd_pyth.listing import read_instruments

BTC_ID = "f9c0172ba10dfa4d19088d94f5bf61d3b54d5bd7483a322a982e1373ee8ea31b"
BTC = {
    "id": BTC_ID,
    "attributes": {
        "asset_type": "Crypto", "base": "BTC", "description": "BITCOIN / US DOLLAR", "display_symbol": "BTC/USD",
        "generic_symbol": "BTCUSD", "quote_currency": "USD", "symbol": "Crypto.BTC/USD",
    },
}  # fmt: skip


def feed(number: int, symbol: str, **attributes: Any) -> dict[str, Any]:
    return {"id": f"{number:064x}", "attributes": {"symbol": symbol, **attributes}}


def names(*rows: Any) -> dict[str, str]:
    """Return our names by full symbol."""
    return {one.rest_symbol: one.name for one in read_instruments(list(rows))}


def test_a_feed() -> None:
    assert read_instruments([BTC]) == [
        Instrument(
            venue="pyth",
            market="oracle",
            name="BTC-USD",
            symbol=BTC_ID,
            rest_symbol="Crypto.BTC/USD",
            kind=Kind.ORACLE,
            base="BTC",
            quote="USD",
            settle="USD",
            status="Crypto",
        )
    ]


def test_ids_lose_their_prefix_and_case() -> None:
    (found,) = read_instruments([BTC | {"id": f"0x{BTC_ID.upper()}"}])
    assert found.symbol == BTC_ID


@pytest.mark.parametrize(
    ("symbol", "attributes", "name"),
    [
        ("FX.EUR/USD", {"base": "EUR", "quote_currency": "USD"}, "EUR-USD"),
        ("Metal.XAU/USD", {"base": "XAU", "quote_currency": "USD"}, "XAU-USD"),
        ("Equity.US.AAPL/USD", {}, "AAPL-USD"),
        ("Commodities.WTIK6/USD", {"quote_currency": "USD"}, "WTIK6-USD"),
        ("Rates.US10Y", {}, "US10Y"),
        ("Rates.US10Y", {"quote_currency": "USD"}, "US10Y-USD"),
    ],
)
def test_names(symbol: str, attributes: dict[str, str], name: str) -> None:
    assert names(feed(1, symbol, **attributes)) == {symbol: name}


def test_feeds_with_the_same_base_and_quote_have_names_of_their_own() -> None:
    both = {"base": "AAPL", "quote_currency": "USD"}
    dead = {"description": "DEPRECATED FEED - AAPL PRE MARKET"}
    rows = [
        feed(1, "Equity.US.AAPL/USD.PRE", **both, **dead),
        feed(2, "Equity.US.AAPL/USD.POST", **both),
        feed(3, "Equity.US.AAPL/USD", **both),
    ]
    expected = {
        "Equity.US.AAPL/USD": "AAPL-USD",
        "Equity.US.AAPL/USD.POST": "Equity.US.AAPL-USD.POST",
        "Equity.US.AAPL/USD.PRE": "Equity.US.AAPL-USD.PRE",
    }
    assert names(*rows) == names(*rows[::-1]) == expected


def test_the_order_of_kinds_decides_who_has_the_plain_name() -> None:
    both = {"base": "GOLD", "quote_currency": "USD"}
    found = names(feed(1, "Equity.US.GOLD/USD", **both), feed(2, "Crypto.GOLD/USD", **both))
    assert found == {"Crypto.GOLD/USD": "GOLD-USD", "Equity.US.GOLD/USD": "Equity.US.GOLD-USD"}


def test_dead_feeds_are_listed_as_such() -> None:
    (found,) = read_instruments([feed(1, "Crypto.X/USD", description="DEPRECATED FEED - X")])
    assert (found.tradable, found.status) == (False, "deprecated")


@pytest.mark.parametrize(
    "odd",
    [
        7,
        None,
        {},
        {"id": 7, "attributes": {}},
        {"id": "abc", "attributes": {"symbol": "Crypto.X/USD"}},
        {"id": BTC_ID, "attributes": None},
        {"id": BTC_ID, "attributes": {"symbol": ""}},
    ],
)
def test_one_odd_row_does_not_take_the_others_with_it(odd: Any) -> None:
    assert names(odd, BTC) == {"Crypto.BTC/USD": "BTC-USD"}
    with pytest.raises(DecodeError, match="no row"):
        read_instruments([odd])


@pytest.mark.parametrize("rows", [None, {}, "x"])
def test_a_reply_that_is_no_list_is_an_error(rows: Any) -> None:
    with pytest.raises(DecodeError):
        read_instruments(rows)


def test_no_feeds_are_no_error() -> None:
    assert read_instruments([]) == []
