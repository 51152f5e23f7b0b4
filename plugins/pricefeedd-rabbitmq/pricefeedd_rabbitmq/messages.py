"""Messages on their way to the broker, and how they are written there."""

from __future__ import annotations

import orjson
import pika  # type: ignore[import-untyped]  # pika brings no types

from pricefeedd.envelope import Numbered, envelope
from pricefeedd_rabbitmq.settings import routing_key


class Item:
    """A message on its way.

    Attributes:
        message: The message.
        epoch: What its `seq` counts in.
        number: Of what is kept on disk; 0 for market data.
        confirmed: The broker has it.
    """

    __slots__ = ("confirmed", "epoch", "message", "number")

    def __init__(self, message: Numbered, epoch: str, number: int = 0) -> None:
        self.message = message
        self.epoch = epoch
        self.number = number
        self.confirmed = False


#: What became of an item: `delivered`, `nacked`, `unroutable`, or `unreadable` if it could not be written at all.
Outcome = tuple[Item, str]


def written(item: Item, mode: int) -> tuple[str, bytes, pika.BasicProperties]:
    """Return routing key, body and properties of a message.

    Raises:
        KeyError: The message is not one that goes to others.
    """
    body = envelope(item.message, item.epoch)
    headers = {"topic": body["topic"], "seq": body["seq"], "epoch": item.epoch}
    if body["trace_id"] is not None:
        headers["trace_id"] = body["trace_id"]
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=mode,
        message_id=body["event_id"],
        timestamp=body["received_at"] // 1_000_000,
        type=body["event_type"],
        headers=headers,
    )
    return routing_key(item.message.topic), orjson.dumps(body), properties
