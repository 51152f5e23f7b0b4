"""Bybit's private rows: orders, executions, positions and balances of one account, of the stream and of REST.

No topic of the stream begins with a snapshot: what was there before is asked for by REST (`account_rest`).

https://bybit-exchange.github.io/docs/v5/websocket/private/order
https://bybit-exchange.github.io/docs/v5/websocket/private/execution
https://bybit-exchange.github.io/docs/v5/websocket/private/position
https://bybit-exchange.github.io/docs/v5/websocket/private/wallet
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from pricefeedd.codec import ns_of_ms, plain_decimal
from pricefeedd.events import AccountEvent
from pricefeedd_bybit.wire import VENUE, ns_of_text

#: The venue's topic by our channel.
PRIVATE_TOPICS = {"order": "order", "execution": "execution", "position": "position", "balance": "wallet"}

Fields = dict[str, str | int | bool | None]

#: Our status of an order, by the venue's word; words that are new to us are `unknown`.
_STATUSES = {
    "New": "new",
    "PartiallyFilled": "partially_filled",
    "Untriggered": "untriggered",
    "Triggered": "triggered",
    "Rejected": "rejected",
    "PartiallyFilledCanceled": "partially_filled_canceled",
    "Filled": "filled",
    "Cancelled": "canceled",
    "Deactivated": "deactivated",
}
_OPEN = frozenset({"New", "PartiallyFilled", "Untriggered", "Triggered"})

_SIDES = {"Buy": "buy", "Sell": "sell"}

#: Words that stand for nothing; "" does so everywhere.
_NOTHING = frozenset({"", "UNKNOWN", "EC_NoError", "None"})

_ORDER = {
    "order_id": "orderId",
    "client_order_id": "orderLinkId",
    "type": "orderType",
    "time_in_force": "timeInForce",
    "price": "price",
    "size": "qty",
    "average_price": "avgPrice",
    "filled_size": "cumExecQty",
    "filled_value": "cumExecValue",
    "remaining_size": "leavesQty",
    "remaining_value": "leavesValue",
    "fee": "cumExecFee",
    "fee_currency": "feeCurrency",
    "reject_reason": "rejectReason",
    "cancel_type": "cancelType",
    "stop_type": "stopOrderType",
    "trigger_price": "triggerPrice",
    "take_profit": "takeProfit",
    "stop_loss": "stopLoss",
    "reduce_only": "reduceOnly",
    "close_on_trigger": "closeOnTrigger",
    "position_index": "positionIdx",
}
_EXECUTION = {
    "execution_id": "execId",
    "order_id": "orderId",
    "client_order_id": "orderLinkId",
    "type": "execType",
    "price": "execPrice",
    "size": "execQty",
    "value": "execValue",
    "fee": "execFee",
    "fee_rate": "feeRate",
    "fee_currency": "feeCurrency",
    "maker": "isMaker",
    "order_type": "orderType",
    "order_price": "orderPrice",
    "order_size": "orderQty",
    "remaining_size": "leavesQty",
    "closed_size": "closedSize",
    "realized_pnl": "execPnl",
    "sequence": "seq",
}
_POSITION = {
    "position_index": "positionIdx",
    "size": "size",
    "entry_price": "entryPrice",
    "mark_price": "markPrice",
    "break_even_price": "breakEvenPrice",
    "value": "positionValue",
    "leverage": "leverage",
    "liquidation_price": "liqPrice",
    "initial_margin": "positionIM",
    "maintenance_margin": "positionMM",
    "unrealized_pnl": "unrealisedPnl",
    "current_realized_pnl": "curRealisedPnl",
    "cumulative_realized_pnl": "cumRealisedPnl",
    "take_profit": "takeProfit",
    "stop_loss": "stopLoss",
    "status": "positionStatus",
    "sequence": "seq",
}
_COIN = {
    "coin": "coin",
    "wallet_balance": "walletBalance",
    "equity": "equity",
    "locked": "locked",
    "borrowed": "borrowAmount",
    "spot_borrowed": "spotBorrow",
    "accrued_interest": "accruedInterest",
    "order_margin": "totalOrderIM",
    "position_initial_margin": "totalPositionIM",
    "position_maintenance_margin": "totalPositionMM",
    "unrealized_pnl": "unrealisedPnl",
    "cumulative_realized_pnl": "cumRealisedPnl",
    "bonus": "bonus",
    "usd_value": "usdValue",
    "margin_collateral": "marginCollateral",
    "collateral_switch": "collateralSwitch",
}
_TOTALS = {
    "account_type": "accountType",
    "total_equity": "totalEquity",
    "total_wallet_balance": "totalWalletBalance",
    "total_margin_balance": "totalMarginBalance",
    "total_available_balance": "totalAvailableBalance",
    "total_unrealized_pnl": "totalPerpUPL",
    "total_initial_margin": "totalInitialMargin",
    "total_maintenance_margin": "totalMaintenanceMargin",
    "initial_margin_rate": "accountIMRate",
    "maintenance_margin_rate": "accountMMRate",
}

#: Prices for which "0" and "0.00" stand for none.
_NONE_AT_ZERO = frozenset({"trigger_price", "take_profit", "stop_loss", "liquidation_price"})

#: Fields of text that are numbers: exponents are written out in these.
_WORDS = frozenset(
    {
        "order_id", "client_order_id", "type", "time_in_force", "fee_currency", "reject_reason", "cancel_type",
        "stop_type", "execution_id", "order_type", "status", "coin", "account_type",
    }
)  # fmt: skip


def read_private(message: Any, received_ns: int) -> Sequence[AccountEvent]:
    """Return what a message of the private stream tells; topics that we did not ask for are passed over.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not what the venue documents.
    """
    kind, _, category = message["topic"].partition(".")
    if category.startswith("fast") or kind not in _READERS:
        return ()
    time_ns = ns_of_ms(message["creationTime"])
    return read_rows(kind, message["data"], _text(message["id"]), time_ns, received_ns)


def read_rows(
    kind: str, rows: Iterable[Any], message_id: str, time_ns: int, received_ns: int
) -> list[AccountEvent]:
    """Return what rows tell.

    Args:
        kind: The venue's topic, such as `wallet`.
        message_id: What tells these rows from others where they have no key of their own.
        time_ns: When they were told, by the venue's clock.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: They are not what the venue documents.
    """
    read = _READERS[kind]
    return [
        AccountEvent(
            venue=VENUE,
            instrument=instrument,
            venue_time_ns=at_ns,
            received_ns=received_ns,
            account="",
            kind=ours,
            key=key,
            fields=fields,
        )
        for row in rows
        for ours, instrument, key, at_ns, fields in read(row, message_id, time_ns)
    ]


_Row = tuple[str, str, str, int, Fields]


def _order(row: Any, message_id: str, time_ns: int) -> Iterator[_Row]:
    status = _text(row["orderStatus"])
    fields = _head(row) | _taken(row, _ORDER)
    fields["status"] = _STATUSES.get(status, "unknown")
    fields["venue_status"] = status
    fields["open"] = status in _OPEN
    fields["size_unit"] = _size_unit(row)
    fees = row.get("cumFeeDetail")
    if fees:
        # Fees by coin; the newer form of `cumExecFee`.
        fields["fees"] = orjson.dumps({_text(coin): _text(fee) for coin, fee in fees.items()}).decode()
    fields["created_us"] = _us(row["createdTime"])
    updated = fields["updated_us"] = _us(row["updatedTime"])
    # A finished order is told once per outcome: a cancel that races a fill tells `Filled` twice. An open one
    # may be amended, and then only the time of its update differs.
    key = f"{fields['order_id']}:{status}:{fields['filled_size']}"
    if status in _OPEN:
        key = f"{key}:{updated}:{fields['price']}:{fields['size']}"
    at_ns = time_ns if updated is None else updated * 1000
    yield "order", _text(row["symbol"]), key, at_ns, fields


def _size_unit(row: Any) -> str:
    """Return what `size` counts: a market order that buys on spot is sized in quote units."""
    if row["category"] == "inverse":
        return "contract"
    quote = row["category"] == "spot" and row["orderType"] == "Market" and row["side"] == "Buy"
    return "quote" if quote and row.get("marketUnit") != "baseCoin" else "base"


def _execution(row: Any, message_id: str, time_ns: int) -> Iterator[_Row]:
    fields = _head(row) | _taken(row, _EXECUTION)
    at_ns = ns_of_text(row["execTime"])
    fields["time_us"] = at_ns // 1000
    yield "execution", _text(row["symbol"]), f"{_text(row['category'])}:{_text(row['execId'])}", at_ns, fields


def _position(row: Any, message_id: str, time_ns: int) -> Iterator[_Row]:
    fields = _head(row) | _taken(row, _POSITION)
    updated = fields["updated_us"] = _us(row["updatedTime"])
    # It is pushed with each order, changed or not; the same row again says nothing.
    parts = (
        fields["market"], fields["symbol"], fields["position_index"], fields.get("sequence"), updated, fields["side"],
        fields["size"], fields["entry_price"], fields["status"],
    )  # fmt: skip
    at_ns = time_ns if updated is None else updated * 1000
    yield "position", _text(row["symbol"]), ":".join(map(str, parts)), at_ns, fields


def _wallet(row: Any, message_id: str, time_ns: int) -> Iterator[_Row]:
    """Read the coins that the event touched, and the totals. The other coins are as they were."""
    totals = _taken(row, _TOTALS)
    account_type = _text(row["accountType"])
    for coin in row["coin"]:
        name = _text(coin["coin"])
        fields = _taken(coin, _COIN) | {"account_type": account_type}
        yield "balance", name, f"{message_id}:{name}", time_ns, fields
    yield "balance", account_type, f"{message_id}:{account_type}", time_ns, totals


_READERS: dict[str, Callable[[Any, str, int], Iterator[_Row]]] = {
    "order": _order,
    "execution": _execution,
    "position": _position,
    "wallet": _wallet,
}


def _head(row: Any) -> Fields:
    """Return what orders, executions and positions share; a position that is flat has no side."""
    return {
        "market": _text(row["category"]),
        "symbol": _text(row["symbol"]),
        "side": _SIDES.get(_text(row["side"])),
    }


def _taken(row: Any, wanted: Mapping[str, str]) -> Fields:
    """Return our fields of a row; what it lacks is left out, and what stands for nothing is None."""
    fields: Fields = {}
    for ours, theirs in wanted.items():
        if theirs not in row:
            continue
        value = row[theirs]
        if type(value) is str:
            if value in _NOTHING or (ours in _NONE_AT_ZERO and not value.strip("0.")):
                value = None
            elif ours not in _WORDS:
                value = plain_decimal(value)
        elif value is not None and type(value) is not int and type(value) is not bool:
            raise TypeError(f"{theirs} is neither text, integer nor flag: {value!r}")
        fields[ours] = value
    return fields


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"not a text: {value!r}")
    return value


def _us(ms: Any) -> int | None:
    """Return µs since the epoch of a text of ms; None where it is ""."""
    return None if ms == "" else ns_of_text(ms) // 1000
