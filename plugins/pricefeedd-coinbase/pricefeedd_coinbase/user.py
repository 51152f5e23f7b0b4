"""The channel `user`: the orders of one account. It begins with the open ones, and goes on with what changes.

https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels#user-channel
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import msgspec

from pricefeedd.codec import Count, Signal, decimal_text
from pricefeedd.events import AccountEvent, Event, Origin
from pricefeedd_coinbase.times import ns_of

VENUE = "coinbase"
#: Name of the channel, of its stream and of its feed.
USER = "user"

#: Our status of an order, by the venue's word; words that are new to us are `unknown`. An order that is to be
#: cancelled or changed is open until it is.
_STATUSES = {
    "PENDING": "pending",
    "QUEUED": "pending",
    "OPEN": "new",
    "CANCEL_QUEUED": "new",
    "EDIT_QUEUED": "new",
    "FILLED": "filled",
    "CANCELLED": "canceled",
    "EXPIRED": "expired",
    "FAILED": "rejected",
}
_OPEN = frozenset({"PENDING", "QUEUED", "OPEN", "CANCEL_QUEUED", "EDIT_QUEUED"})


class _Order(msgspec.Struct, gc=False):
    """A row, as far as we read it. "" stands for no value."""

    order_id: str
    product_id: str
    order_side: Literal["BUY", "SELL"]
    status: str
    client_order_id: str = ""
    order_type: str = ""
    limit_price: str = ""
    stop_price: str = ""
    avg_price: str = ""
    cumulative_quantity: str = ""
    leaves_quantity: str = ""
    filled_value: str = ""
    total_fees: str = ""
    time_in_force: str = ""
    cancel_reason: str = ""
    reject_reason: str = ""
    creation_time: str = ""


class _Orders(msgspec.Struct):
    type: Literal["snapshot", "update"]
    orders: list[_Order] | None = None


class UserFrame(msgspec.Struct):
    """A frame of the channel."""

    sequence_num: int
    timestamp: str
    events: list[_Orders]


_parse = msgspec.json.Decoder(UserFrame).decode


def read_user(frame: bytes, received_ns: int) -> list[Event | Signal]:
    """Return the number of a frame of the channel, and the orders in it.

    A row does not say when it became so: that is the time of the frame, also for the open orders that it begins with.

    Raises:
        msgspec.MsgspecError, ValueError: It is not what the venue documents.
    """
    message = _parse(frame)
    said: list[Event | Signal] = [Count(message.sequence_num)]
    time_ns = ns_of(message.timestamp)
    for event in message.events:
        first = event.type == "snapshot"
        for row in event.orders or ():
            fields = _fields(row, time_ns)
            # What is open may change and change back, so the time tells one change from the other; but what it
            # begins with was so before.
            key = f"{row.order_id}:{row.status}:{fields['filled_size']}"
            if fields["open"]:
                key = f"{key}:{fields['price']}:{fields['remaining_size']}" + ("" if first else f":{time_ns}")
            said.append(
                AccountEvent(
                    venue=VENUE,
                    instrument=row.product_id,
                    venue_time_ns=time_ns,
                    received_ns=received_ns,
                    origin=Origin.BACKFILL if first else Origin.LIVE,
                    account="",
                    kind="order",
                    key=key,
                    fields=fields,
                )
            )
    return said


def _fields(row: _Order, time_ns: int) -> Mapping[str, str | int | bool | None]:
    filled, left = _number(row.cumulative_quantity), _number(row.leaves_quantity)
    status = _STATUSES.get(row.status, "unknown")
    if status == "new" and filled is not None and filled.strip("0."):
        status = "partially_filled"
    return {
        "market": "spot",
        "symbol": row.product_id,
        "side": row.order_side.lower(),
        "order_id": row.order_id,
        "client_order_id": row.client_order_id or None,
        "type": row.order_type or None,
        "time_in_force": row.time_in_force or None,
        "price": _number(row.limit_price),
        "trigger_price": _nonzero(row.stop_price),
        # The row has no size of its own.
        "size": None if filled is None or left is None else f"{Decimal(filled) + Decimal(left):f}",
        "average_price": _nonzero(row.avg_price),
        "filled_size": filled,
        "filled_value": _number(row.filled_value),
        "remaining_size": left,
        "fee": _number(row.total_fees),
        "cancel_reason": row.cancel_reason or None,
        "reject_reason": row.reject_reason or None,
        "status": status,
        "venue_status": row.status,
        "open": row.status in _OPEN,
        "created_us": ns_of(row.creation_time) // 1000 if row.creation_time else None,
        "updated_us": time_ns // 1000,
    }


def _number(text: str) -> str | None:
    return decimal_text(text) if text else None


def _nonzero(text: str) -> str | None:
    number = _number(text)
    return number if number is not None and number.strip("0.") else None
