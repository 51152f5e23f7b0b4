"""OKX's listings, and the instruments that they become."""

from __future__ import annotations

from typing import Any

import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd_okx.listing import read_instruments

SPOT: dict[str, Any] = {
    "instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT", "settleCcy": "", "ctVal": "",
    "ctMult": "", "ctValCcy": "", "ctType": "", "state": "live", "tickSz": "0.1", "lotSz": "0.00000001",
    "minSz": "0.00001", "listTime": "1548133413000", "expTime": "", "uly": "", "instFamily": "",
}  # fmt: skip
LINEAR: dict[str, Any] = {
    "instType": "SWAP", "instId": "BTC-USDT-SWAP", "baseCcy": "", "quoteCcy": "", "settleCcy": "USDT", "ctVal": "0.01",
    "ctMult": "1", "ctValCcy": "BTC", "ctType": "linear", "state": "live", "tickSz": "0.1", "lotSz": "0.01",
    "minSz": "0.01", "listTime": "1611916828000", "expTime": "", "uly": "BTC-USDT", "instFamily": "BTC-USDT",
}  # fmt: skip
INVERSE: dict[str, Any] = LINEAR | {
    "instId": "BTC-USD-SWAP", "settleCcy": "BTC", "ctVal": "100", "ctValCcy": "USD", "ctType": "inverse", "lotSz": "1",
    "uly": "BTC-USD", "instFamily": "BTC-USD",
}  # fmt: skip
DATED: dict[str, Any] = INVERSE | {
    "instType": "FUTURES",
    "instId": "BTC-USD-261030",
    "expTime": "1793347200000",
}
DATED_LINEAR: dict[str, Any] = LINEAR | {
    "instType": "FUTURES", "instId": "BTC-USD_UM-261030", "settleCcy": "USD", "expTime": "1793347200000",
    "uly": "BTC-USD", "instFamily": "BTC-USD_UM", "ruleType": "normal", "instIdCode": 433707, "upcChg": [],
}  # fmt: skip
EXPIRY_NS = 1_793_347_200_000_000_000


def listed(market: str, row: dict[str, Any], **changes: Any) -> Instrument:
    (found,) = read_instruments(market, [row | changes])
    return found


def test_spot() -> None:
    assert listed("spot", SPOT) == Instrument(
        venue="okx",
        market="spot",
        name="BTC-USDT",
        symbol="BTC-USDT",
        kind=Kind.SPOT,
        base="BTC",
        quote="USDT",
        settle="USDT",
        tick_size="0.1",
        lot_size="0.00000001",
        status="live",
    )


@pytest.mark.parametrize(
    ("market", "row", "name", "kind", "settle", "contract", "expiry_ns"),
    [
        ("linear", LINEAR, "BTC-USDT-PERP", Kind.PERPETUAL, "USDT", "0.01 BTC", None),
        ("inverse", INVERSE, "BTC-USD-PERP", Kind.PERPETUAL, "BTC", "100 USD", None),
        ("inverse", DATED, "BTC-USD-20261030", Kind.FUTURE, "BTC", "100 USD", EXPIRY_NS),
        ("linear", DATED_LINEAR, "BTC-USD_UM-20261030", Kind.FUTURE, "USD", "0.01 BTC", EXPIRY_NS),
    ],
)
def test_contracts(
    market: str, row: dict[str, Any], name: str, kind: Kind, settle: str, contract: str, expiry_ns: int | None
) -> None:
    found = listed(market, row)
    assert (found.name, found.kind, found.settle, found.expiry_ns) == (name, kind, settle, expiry_ns)
    assert f"{found.contract_size} {found.contract_currency}" == contract
    assert (found.size_unit, found.base, found.symbol) == ("contract", "BTC", row["instId"])
    assert found.quote == row["uly"].partition("-")[2]


def test_linear_and_inverse_come_in_one_list_and_are_told_apart_by_their_type() -> None:
    rows = [LINEAR, INVERSE, DATED, DATED_LINEAR]
    assert [i.symbol for i in read_instruments("linear", rows)] == ["BTC-USDT-SWAP", "BTC-USD_UM-261030"]
    assert [i.symbol for i in read_instruments("inverse", rows)] == ["BTC-USD-SWAP", "BTC-USD-261030"]


def test_contracts_on_one_index_have_names_of_their_own() -> None:
    everything = [*read_instruments("linear", [DATED_LINEAR]), *read_instruments("inverse", [DATED])]
    assert len({instrument.name for instrument in everything}) == 2


@pytest.mark.parametrize(
    ("value", "multiplier", "size"),
    [
        ("0.01", "1", "0.01"),
        ("1", "0.1", "0.1"),
        ("100", "", "100"),
        ("0.0001", "0.1", "0.00001"),
        ("10", "10", "100"),
    ],
)
def test_a_contract_is_value_times_multiplier(value: str, multiplier: str, size: str) -> None:
    assert listed("linear", LINEAR, ctVal=value, ctMult=multiplier).contract_size == size


@pytest.mark.parametrize(
    ("state", "tradable"),
    [
        ("live", True),
        ("suspend", False),
        ("preopen", False),
        ("post_only", False),
        ("settling", False),
        ("new!", False),
    ],
)
def test_states(state: str, tradable: bool) -> None:
    found = listed("spot", SPOT, state=state)
    assert (found.tradable, found.status) == (tradable, state)


def test_a_step_that_was_not_told_is_none() -> None:
    found = listed("spot", SPOT, tickSz="", lotSz="0")
    assert (found.tick_size, found.lot_size) == (None, None)


def test_a_swap_that_will_be_taken_offline_is_not_dated() -> None:
    found = listed("linear", LINEAR, expTime="1793347200000")
    assert (found.name, found.expiry_ns) == ("BTC-USDT-PERP", None)


def test_the_old_form_has_no_family() -> None:
    old = {key: value for key, value in LINEAR.items() if key != "instFamily"}
    assert listed("linear", old).name == "BTC-USDT-PERP"


@pytest.mark.parametrize(
    "changes",
    [
        {"instId": ""},
        {"instId": 5},
        {"ctVal": ""},
        {"ctVal": "0"},
        {"ctVal": "NaN"},
        {"uly": ""},
        {"uly": "BTC"},
        {"ctType": ""},
        {"instType": "EVENTS"},
        {"instType": "FUTURES", "expTime": ""},
    ],
)
def test_an_odd_row_is_passed_over_alone(changes: dict[str, Any]) -> None:
    assert [i.symbol for i in read_instruments("linear", [LINEAR | changes, DATED_LINEAR])] == [
        "BTC-USD_UM-261030"
    ]


def test_a_list_of_which_nothing_can_be_read_is_refused() -> None:
    with pytest.raises(DecodeError, match="no row"):
        read_instruments("spot", [{}, {"instId": "x"}])
    with pytest.raises(DecodeError, match="not a list"):
        read_instruments("spot", {"data": []})
    assert read_instruments("spot", []) == []
    assert read_instruments("inverse", [LINEAR]) == []


def test_instruments_are_found_by_name_and_symbol() -> None:
    found = InstrumentMap("okx", "linear", read_instruments("linear", [LINEAR, DATED_LINEAR]))
    assert found.find("btc-usdt-swap").name == "BTC-USDT-PERP"
    assert found.find("BTC-USD_UM-20261030").symbol == "BTC-USD_UM-261030"
