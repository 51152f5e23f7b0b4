"""The private stream: orders, executions, positions and balances in our words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.events import AccountEvent
from pricefeedd_bybit.venue import bybit

VENUE = bybit()
FEED = VENUE.feed("private")
#: `BTCUSDT` is on two markets; names are by symbol alone, so one of them is taken.
MS = 1_790_373_640_096


def say(topic: str, *rows: Any, message_id: str = "m-1") -> list[AccountEvent]:
    body = {"id": message_id, "topic": topic, "creationTime": MS, "data": list(rows)}
    said = VENUE.codec.decode(orjson.dumps(body), feed=FEED, names={}, received_ns=MS * 1_000_000 + 5)
    found = []
    for event in said:
        assert isinstance(event, AccountEvent)
        assert (event.venue, event.account, event.received_ns) == ("bybit", "", MS * 1_000_000 + 5)
        found.append(event)
    return found


ORDER = {
    "category": "linear", "symbol": "BTCUSDT", "orderId": "f38c5e38", "orderLinkId": "", "side": "Buy",
    "positionIdx": 0, "orderStatus": "New", "cancelType": "UNKNOWN", "rejectReason": "EC_NoError",
    "timeInForce": "GTC", "price": "99", "qty": "0.1", "avgPrice": "", "leavesQty": "0.1", "leavesValue": "9.9",
    "cumExecQty": "0", "cumExecValue": "0", "cumExecFee": "0", "orderType": "Limit", "stopOrderType": "",
    "triggerPrice": "0.00", "takeProfit": "", "reduceOnly": False, "createdTime": str(MS - 600),
    "updatedTime": str(MS - 1), "somethingNew": {"deep": [1]},
}  # fmt: skip


def test_an_order() -> None:
    (event,) = say("order.linear", ORDER)
    assert (event.kind, event.instrument) == ("order", "BTCUSDT")
    assert event.venue_time_ns == (MS - 1) * 1_000_000
    assert event.fields == {
        "market": "linear", "symbol": "BTCUSDT", "side": "buy", "order_id": "f38c5e38", "client_order_id": None,
        "type": "Limit", "time_in_force": "GTC", "price": "99", "size": "0.1", "size_unit": "base",
        "average_price": None, "filled_size": "0", "filled_value": "0", "remaining_size": "0.1",
        "remaining_value": "9.9", "fee": "0", "reject_reason": None, "cancel_type": None, "stop_type": None,
        "trigger_price": None, "take_profit": None, "reduce_only": False, "position_index": 0, "status": "new",
        "venue_status": "New", "open": True, "created_us": (MS - 600) * 1000, "updated_us": (MS - 1) * 1000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "ours", "is_open"),
    [
        ("New", "new", True),
        ("PartiallyFilled", "partially_filled", True),
        ("Untriggered", "untriggered", True),
        ("Triggered", "triggered", True),
        ("Filled", "filled", False),
        ("Cancelled", "canceled", False),
        ("PartiallyFilledCanceled", "partially_filled_canceled", False),
        ("Rejected", "rejected", False),
        ("Deactivated", "deactivated", False),
        ("SomethingNew", "unknown", False),
    ],
)
def test_statuses(word: str, ours: str, is_open: bool) -> None:
    (event,) = say("order", ORDER | {"orderStatus": word})
    assert (event.fields["status"], event.fields["venue_status"], event.fields["open"]) == (
        ours,
        word,
        is_open,
    )


@pytest.mark.parametrize(
    ("change", "unit"),
    [
        ({"category": "spot", "orderType": "Market"}, "quote"),
        ({"category": "spot", "orderType": "Market", "marketUnit": "baseCoin"}, "base"),
        ({"category": "spot", "orderType": "Market", "side": "Sell"}, "base"),
        ({"category": "spot"}, "base"),
        ({"category": "inverse"}, "contract"),
    ],
)
def test_what_an_orders_size_counts(change: dict[str, str], unit: str) -> None:
    (event,) = say("order", ORDER | change)
    assert event.fields["size_unit"] == unit


def test_fees_by_coin() -> None:
    (event,) = say("order", ORDER | {"cumFeeDetail": {"BTC": "0.001", "USDT": "0.2"}})
    assert orjson.loads(str(event.fields["fees"])) == {"BTC": "0.001", "USDT": "0.2"}


def test_rows_tell_their_market_and_symbol_by_which_the_core_names_them() -> None:
    for category in ("spot", "linear", "inverse", "option"):
        (event,) = say("order", ORDER | {"category": category})
        assert (event.instrument, event.fields["market"], event.fields["symbol"]) == (
            "BTCUSDT",
            category,
            "BTCUSDT",
        )


def key(change: dict[str, Any]) -> str:
    return say("order", ORDER | change)[0].key


def test_keys_tell_repetitions_from_news() -> None:
    later = {"updatedTime": str(MS)}
    assert key({}) == key({})
    assert key({}) != key(later | {"price": "98"}), "an amended order is news"
    filled = {"orderStatus": "Filled", "cumExecQty": "0.1"}
    assert key(filled) == key(filled | later | {"cancelType": "CancelByUser"}), (
        "a cancel that came too late is not"
    )
    assert key(filled) != key({})
    assert key({"orderStatus": "PartiallyFilled", "cumExecQty": "0.05"}) != key(
        {"orderStatus": "PartiallyFilled", "cumExecQty": "0.06"}
    )


EXECUTION = {
    "category": "linear", "symbol": "BTCUSDT", "closedSize": "0.5", "execFee": "-26.3725275",
    "execId": "0ab1bdf7-4219-438b-b30a-32ec863018f7", "execPrice": "95900.1", "execQty": "0.5", "execType": "Trade",
    "execValue": "47950.05", "feeRate": "0.00055", "leavesQty": "0", "orderId": "9aac161b", "orderLinkId": "mine",
    "orderPrice": "94942.5", "orderQty": "0.5", "orderType": "Market", "stopOrderType": "UNKNOWN", "side": "Sell",
    "execTime": str(MS - 2), "isMaker": False, "seq": 140612148849382, "execPnl": "0.05", "feeCurrency": "USDT",
}  # fmt: skip


def test_an_execution() -> None:
    (event,) = say("execution", EXECUTION)
    assert (event.kind, event.instrument, event.key) == (
        "execution",
        "BTCUSDT",
        "linear:0ab1bdf7-4219-438b-b30a-32ec863018f7",
    )
    assert event.venue_time_ns == (MS - 2) * 1_000_000
    fields = event.fields
    assert (fields["price"], fields["size"], fields["value"], fields["fee"]) == (
        "95900.1",
        "0.5",
        "47950.05",
        "-26.3725275",
    )
    assert (fields["side"], fields["maker"], fields["type"], fields["client_order_id"]) == (
        "sell",
        False,
        "Trade",
        "mine",
    )
    assert fields["time_us"] == (MS - 2) * 1000


def test_funding_is_an_execution_of_its_own_type() -> None:
    (event,) = say("execution.linear", EXECUTION | {"execType": "Funding"})
    assert event.fields["type"] == "Funding"


POSITION = {
    "positionIdx": 2, "symbol": "BTCUSDT", "side": "", "size": "0", "entryPrice": "0", "leverage": "10",
    "breakEvenPrice": "93556.73034991", "positionValue": "0", "markPrice": "28184.5", "positionIM": "0",
    "positionMM": "0", "unrealisedPnl": "-0.5", "curRealisedPnl": "1.26", "cumRealisedPnl": "-25.06579337",
    "createdTime": str(MS - 9), "updatedTime": str(MS - 6), "liqPrice": "", "category": "linear",
    "positionStatus": "Normal", "adlRankIndicator": 0, "seq": 8327597863, "isReduceOnly": False,
}  # fmt: skip


def test_a_flat_position_has_no_side() -> None:
    (event,) = say("position", POSITION)
    fields = event.fields
    assert (fields["side"], fields["size"], fields["liquidation_price"], fields["status"]) == (
        None,
        "0",
        None,
        "Normal",
    )
    assert (fields["cumulative_realized_pnl"], fields["unrealized_pnl"]) == ("-25.06579337", "-0.5")


def test_a_position_pushed_again_has_the_same_key() -> None:
    first, again = say("position", POSITION, POSITION | {"markPrice": "28185"})
    moved = say("position", POSITION | {"size": "1", "side": "Buy", "seq": 8327597864})[0]
    other = say("position", POSITION | {"positionIdx": 1})[0]
    assert first.key == again.key
    assert len({first.key, moved.key, other.key}) == 3


WALLET = {
    "accountIMRate": "0", "accountMMRate": "", "totalEquity": "100.27419876", "totalWalletBalance": "99.7",
    "totalMarginBalance": "99.7", "totalAvailableBalance": "99.7", "totalPerpUPL": "0", "totalInitialMargin": "0",
    "totalMaintenanceMargin": "0", "accountLTV": "0", "accountType": "UNIFIED",
    "coin": [
        {"coin": "BTC", "equity": "0.0003058", "usdValue": "11.30798592", "walletBalance": "0.0003058",
         "availableToWithdraw": "", "borrowAmount": "0", "unrealisedPnl": "0", "cumRealisedPnl": "-0.00000619",
         "locked": "0", "marginCollateral": True, "collateralSwitch": True},
        {"coin": "USDT", "equity": "88.94040055", "usdValue": "88.96621283", "walletBalance": "1E-7", "locked": "0"},
    ],
}  # fmt: skip


def test_a_wallet_is_a_balance_for_each_coin_it_names_and_one_for_the_account() -> None:
    btc, usdt, total = say("wallet", WALLET, message_id="w-9")
    assert [e.instrument for e in (btc, usdt, total)] == ["BTC", "USDT", "UNIFIED"]
    assert [e.key for e in (btc, usdt, total)] == ["w-9:BTC", "w-9:USDT", "w-9:UNIFIED"]
    assert {e.kind for e in (btc, usdt, total)} == {"balance"}
    assert (btc.fields["wallet_balance"], btc.fields["margin_collateral"]) == ("0.0003058", True)
    assert usdt.fields["wallet_balance"] == "0.0000001", "exponents are written out"
    assert "borrowed" not in usdt.fields, "what a row lacks is not made up"
    assert (total.fields["total_equity"], total.fields["maintenance_margin_rate"]) == ("100.27419876", None)


def test_several_rows_in_one_message() -> None:
    said = say("order", ORDER, ORDER | {"orderId": "other"})
    assert [event.fields["order_id"] for event in said] == ["f38c5e38", "other"]


@pytest.mark.parametrize(
    "topic", ["greeks", "execution.fast", "execution.fast.linear", "dcp.future", "new.thing"]
)
def test_other_topics_are_passed_over(topic: str) -> None:
    assert say(topic, {"whatever": 1}) == []


@pytest.mark.parametrize(
    ("topic", "row", "change"),
    [
        ("order", ORDER, {"orderStatus": 5}), ("order", ORDER, {"symbol": None}), ("order", ORDER, {"qty": 0.1}),
        ("order", ORDER, {"qty": []}), ("order", ORDER, {"updatedTime": 5}), ("order", ORDER, {"cumFeeDetail": [1]}),
        ("order", ORDER, {"price": "1e"}), ("execution", EXECUTION, {"execTime": ""}),
        ("execution", EXECUTION, {"execId": 7}), ("position", POSITION, {"side": None}),
        ("wallet", WALLET, {"coin": None}), ("wallet", WALLET, {"coin": [{}]}), ("wallet", WALLET, {"accountType": 1}),
    ],
)  # fmt: skip
def test_rows_of_the_wrong_shape_are_refused(topic: str, row: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        say(topic, row | change)


@pytest.mark.parametrize("body", [{"data": []}, {"data": None}, {"id": 5}, {"creationTime": "x"}])
def test_messages_of_the_wrong_shape_are_refused(body: dict[str, Any]) -> None:
    whole = {"id": "m", "topic": "order", "creationTime": MS, "data": [ORDER]}
    broken = orjson.dumps(whole | body if body != {"data": []} else {"topic": "order"})
    with pytest.raises(DecodeError):
        VENUE.codec.decode(broken, feed=FEED, names={}, received_ns=1)
