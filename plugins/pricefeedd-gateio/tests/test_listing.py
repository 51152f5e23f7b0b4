"""Lists of pairs and contracts, and the instruments they name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.rest import HttpReply
from pricefeedd_gateio.listing import read_contracts, read_pairs
from pricefeedd_gateio.rest import GateioRest

PAIR = orjson.loads(
    '{"id":"BTC_USDT","base":"BTC","base_name":"Bitcoin","quote":"USDT","quote_name":"Tether","trade_quotes":[],"fee":"0.2","min_base_amount":"0.000001","min_quote_amount":"3","amount_precision":6,"precision":1,"trade_status":"tradable","sell_start":0,"buy_start":0,"type":"normal","st_tag":false}'
)
DIRECT = orjson.loads(
    '{"name":"BTC_USDT","type":"direct","quanto_multiplier":"0.0001","order_price_round":"0.1","mark_price_round":"0.01","order_size_min":1,"order_size_max":1000000,"enable_decimal":false,"in_delisting":false,"status":"trading"}'
)
FRACTIONS = orjson.loads(
    '{"name":"ARIA_USDT","type":"direct","quanto_multiplier":"100","order_price_round":"0.00001","order_size_min":0,"order_size_max":12000,"enable_decimal":true,"in_delisting":false,"status":"trading","launch_time":1755781800,"is_pre_market":false,"contract_type":"","market_order_size_max":"7500"}'
)
INVERSE = orjson.loads(
    '{"name":"BTC_USD","type":"inverse","quanto_multiplier":"0","order_price_round":"0.1","order_size_min":1,"order_size_max":530000,"enable_decimal":false,"in_delisting":false,"status":"trading","contract_type":""}'
)


def test_a_pair() -> None:
    assert read_pairs([PAIR]) == [
        Instrument(
            venue="gateio",
            market="spot",
            name="BTC-USDT",
            symbol="BTC_USDT",
            kind=Kind.SPOT,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.1",
            lot_size="0.000001",
            status="tradable",
        )
    ]


def test_a_linear_contract() -> None:
    assert read_contracts("linear", "usdt", [DIRECT]) == [
        Instrument(
            venue="gateio",
            market="linear",
            name="BTC-USDT-PERP",
            symbol="BTC_USDT",
            kind=Kind.PERPETUAL,
            base="BTC",
            quote="USDT",
            settle="USDT",
            tick_size="0.1",
            lot_size="1",
            contract_size="0.0001",
            size_unit="contract",
            contract_currency="BTC",
            status="trading",
        )
    ]


def test_an_inverse_contract_is_worth_one_unit_of_the_quote() -> None:
    (found,) = read_contracts("inverse", "btc", [INVERSE])
    assert (found.name, found.settle, found.size_unit) == ("BTC-USD-PERP", "BTC", "contract")
    assert (found.contract_size, found.contract_currency) == ("1", "USD")


def test_the_step_of_fractions_is_not_told() -> None:
    (found,) = read_contracts("linear", "usdt", [FRACTIONS])
    assert (found.lot_size, found.contract_size, found.contract_currency) == (None, "100", "ARIA")


@pytest.mark.parametrize(
    ("precision", "tick"),
    [(0, "1"), (1, "0.1"), (12, "0.000000000001"), (-1, None), (None, None), ("2", None)],
)
def test_a_tick_is_a_number_of_decimals(precision: Any, tick: str | None) -> None:
    (found,) = read_pairs([PAIR | {"precision": precision}])
    assert found.tick_size == tick


@pytest.mark.parametrize(
    ("status", "tradable"),
    [("tradable", True), ("buyable", True), ("sellable", True), ("untradable", False), ("new_word", False)],
)
def test_the_state_of_a_pair(status: str, tradable: bool) -> None:
    (found,) = read_pairs([PAIR | {"trade_status": status}])
    assert (found.tradable, found.status) == (tradable, status)


@pytest.mark.parametrize(
    ("state", "tradable", "status"),
    [
        ({"status": "trading"}, True, "trading"),
        ({"status": "prelaunch"}, False, "prelaunch"),
        ({"status": "circuit_breaker"}, False, "circuit_breaker"),
        ({"status": "trading", "in_delisting": True}, False, "trading"),
        ({"status": None}, True, "trading"),
        ({"status": None, "in_delisting": True}, False, "delisting"),
    ],
)
def test_the_state_of_a_contract(state: dict[str, Any], tradable: bool, status: str) -> None:
    (found,) = read_contracts("linear", "usdt", [DIRECT | state])
    assert (found.tradable, found.status) == (tradable, status)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("BTC_USD1", "BTC-USD1-PERP"),
        ("币安人生_USDT", "币安人生-USDT-PERP"),
        ("A_B_USDT", "A_B-USDT-PERP"),
        ("1000SATS_USDT", "1000SATS-USDT-PERP"),
    ],
)
def test_names_are_cut_at_the_last_underscore(symbol: str, name: str) -> None:
    (found,) = read_contracts("linear", "usdt", [DIRECT | {"name": symbol}])
    assert found.name == name


def test_one_odd_row_does_not_take_the_others_with_it() -> None:
    odd: list[Any] = [{}, None, 5, PAIR | {"base": ""}, PAIR | {"id": None}]
    assert [i.symbol for i in read_pairs([*odd, PAIR])] == ["BTC_USDT"]
    worse = [DIRECT | {"quanto_multiplier": None}, DIRECT | {"name": "NOUNDERSCORE"}]
    assert [i.symbol for i in read_contracts("linear", "usdt", [*worse, DIRECT])] == ["BTC_USDT"]


@pytest.mark.parametrize("reply", [{"label": "X"}, None, "x", [{}], [5]])
def test_what_is_no_list_is_refused(reply: Any) -> None:
    with pytest.raises(DecodeError):
        read_pairs(reply)
    with pytest.raises(DecodeError):
        read_contracts("linear", "usdt", reply)


def test_an_empty_list_is_a_list() -> None:
    assert read_pairs([]) == []


def test_the_same_symbol_of_two_markets_is_two_instruments() -> None:
    pairs = InstrumentMap("gateio", "spot", read_pairs([PAIR]))
    contracts = InstrumentMap("gateio", "linear", read_contracts("linear", "usdt", [DIRECT]))
    assert pairs.find("BTC_USDT").name != contracts.find("BTC_USDT").name


@pytest.mark.parametrize(
    ("market", "path"),
    [
        ("spot", "/spot/currency_pairs"),
        ("linear", "/futures/usdt/contracts"),
        ("inverse", "/futures/btc/contracts"),
    ],
)
def test_lists_are_asked_for_whole(market: str, path: str) -> None:
    """With a limit the venue would send the first 100 only."""
    call = GateioRest().instruments(market)
    assert (call.request.path, call.request.params) == (path, {})
    assert call.request.endpoint == f"{market}_rest"
    row = PAIR if market == "spot" else DIRECT
    page = call.parse(HttpReply(status=200, body=orjson.dumps([row]), received_ns=1))
    assert [i.market for i in page.items] == [market]
    assert page.next is None


def test_contracts_settled_in_usd1_are_listed_where_wished_for() -> None:
    first = GateioRest(usd1=True).instruments("linear")
    page = first.parse(HttpReply(status=200, body=orjson.dumps([DIRECT]), received_ns=1))
    assert page.next is not None
    assert page.next.request.path == "/futures/usd1/contracts"
    body = orjson.dumps([DIRECT | {"name": "BTC_USD1"}])
    last = page.next.parse(HttpReply(status=200, body=body, received_ns=1))
    assert [(i.name, i.market, i.settle) for i in last.items] == [("BTC-USD1-PERP", "linear", "USD1")]
    assert last.next is None
