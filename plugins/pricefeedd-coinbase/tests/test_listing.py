"""Products, and the instruments that they become."""

from __future__ import annotations

from typing import Any

import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, Kind
from pricefeedd_coinbase.listing import read_instruments

ROW = {
    "product_id": "BTC-USD",
    "price": "83306.04",
    "base_increment": "0.00000001",
    "quote_increment": "0.01",
    "status": "online",
    "cancel_only": False,
    "limit_only": False,
    "post_only": False,
    "trading_disabled": False,
    "is_disabled": False,
    "view_only": False,
    "auction_mode": False,
    "product_type": "SPOT",
    "quote_currency_id": "USD",
    "base_currency_id": "BTC",
    "alias": "",
    "alias_to": ["BTC-USDC"],
    "price_increment": "0.01",
}


def listed(**changes: Any) -> Instrument:
    (found,) = read_instruments({"products": [ROW | changes]})
    return found


def test_a_spot_product() -> None:
    assert listed() == Instrument(
        venue="coinbase",
        market="spot",
        name="BTC-USD",
        symbol="BTC-USD",
        kind=Kind.SPOT,
        base="BTC",
        quote="USD",
        settle="USD",
        tick_size="0.01",
        lot_size="0.00000001",
        tradable=True,
        status="online",
    )


def test_names_come_from_the_currencies_and_not_from_the_id() -> None:
    odd = listed(product_id="00-USD", base_currency_id="DOUBLE-ZERO")
    assert (odd.name, odd.symbol) == ("DOUBLE-ZERO-USD", "00-USD")


@pytest.mark.parametrize(
    ("changes", "tradable", "status"),
    [
        ({}, True, "online"),
        ({"status": "delisted"}, False, "delisted"),
        ({"status": ""}, False, ""),
        ({"trading_disabled": True}, False, "trading_disabled"),
        ({"is_disabled": True}, False, "is_disabled"),
        ({"view_only": True}, False, "view_only"),
        ({"cancel_only": True}, True, "cancel_only"),
        ({"auction_mode": True}, True, "auction_mode"),
        ({"limit_only": True, "view_only": True}, False, "view_only"),
    ],
)
def test_what_can_be_traded(changes: dict[str, Any], tradable: bool, status: str) -> None:
    found = listed(**changes)
    assert (found.tradable, found.status) == (tradable, status)


@pytest.mark.parametrize(
    ("price", "quote", "tick"), [("0.01", "0.1", "0.01"), ("", "0.1", "0.1"), ("0", "", None)]
)
def test_an_empty_step_is_none(price: str, quote: str, tick: str | None) -> None:
    assert listed(price_increment=price, quote_increment=quote).tick_size == tick
    assert listed(base_increment="").lot_size is None


def test_an_alias_names_the_product_whose_stream_serves_it() -> None:
    usdc = ROW | {"product_id": "BTC-USDC", "quote_currency_id": "USDC", "alias": "BTC-USD", "alias_to": []}
    found = {i.name: i.alias_of for i in read_instruments({"products": [usdc, ROW]})}
    assert found == {"BTC-USDC": "BTC-USD", "BTC-USD": None}
    # Where the other is not listed nobody else could serve it.
    assert read_instruments({"products": [usdc]})[0].alias_of is None


def test_what_is_not_spot_is_passed_over() -> None:
    future = ROW | {"product_id": "BIP-20DEC30-CDE", "product_type": "FUTURE", "base_currency_id": ""}
    assert [i.name for i in read_instruments({"products": [future, ROW]})] == ["BTC-USD"]
    assert read_instruments({"products": [future]}) == []


def test_one_odd_row_does_not_take_the_others_with_it() -> None:
    odd: list[Any] = [None, {}, 5, ROW | {"base_currency_id": ""}, ROW | {"product_id": 5}]
    assert [i.name for i in read_instruments({"products": [*odd, ROW]})] == ["BTC-USD"]


@pytest.mark.parametrize(
    "reply", [None, [], {}, {"products": None}, {"products": [{}]}, {"products": [None]}]
)
def test_an_answer_without_products_is_refused(reply: Any) -> None:
    with pytest.raises(DecodeError):
        read_instruments(reply)
