"""Messages as they leave for other systems: with an id that tells a duplicate, and the epoch that `seq` counts in."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, Protocol

import orjson

from pricefeedd.events import PRIVATE_CHANNELS


class Numbered(Protocol):
    """A message as readers of `/ws` get it.

    Attributes:
        topic: `channel:venue:instrument`.
        seq: Counts up by one per topic within an epoch.
        text: The message as JSON.
    """

    @property
    def topic(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def text(self) -> bytes: ...


def event_id(message: dict[str, Any], epoch: str) -> str:
    """Return what two deliveries of one event have in common, and no other event has.

    What an account is told bears a key of the venue's, so that it is recognised even if it was fetched once more
    after a restart; all else is known by epoch, topic and number.

    Args:
        message: A message of `/ws`, parsed.
    """
    topic = message["topic"]
    data = message["data"]
    if topic.partition(":")[0] in PRIVATE_CHANNELS and "key" in data:
        digest = bytearray(hashlib.sha256(f"{topic}\n{data['key']}".encode()).digest()[:16])
        # Version 8 and variant of RFC 9562 section 5.8; Python 3.11 knows none above 5.
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return str(uuid.UUID(bytes=bytes(digest)))
    return f"{epoch}:{topic}:{message['seq']}"


def envelope(delivery: Numbered, epoch: str) -> dict[str, Any]:
    """Return a message as consumers of queues read it.

    Its keys: `event_id`, `event_type`, `topic`, `timestamp` (the venue's clock, or null) and `received_at` (ours), both
    in µs since the Unix epoch UTC, `origin`, `epoch`, `seq`, `trace_id` (null for what follows from no single frame of
    an account) and `payload`, the `data` of the message.
    """
    message = orjson.loads(delivery.text)
    return {
        "event_id": event_id(message, epoch),
        "event_type": message["type"],
        "topic": message["topic"],
        "timestamp": message["ts_event"],
        "received_at": message["ts_recv"],
        "origin": message["origin"],
        "epoch": epoch,
        "seq": message["seq"],
        "trace_id": message.get("trace_id"),
        "payload": message["data"],
    }


def message_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return the message of `/ws` that an envelope was made of, parsed.

    Raises:
        KeyError: It is no envelope.
    """
    message = {
        "type": body["event_type"],
        "topic": body["topic"],
        "seq": body["seq"],
        "ts_event": body["timestamp"],
        "ts_recv": body["received_at"],
        "origin": body["origin"],
        "data": body["payload"],
    }
    return message if body["trace_id"] is None else message | {"trace_id": body["trace_id"]}


def epoch_tail(epoch: str) -> bytes:
    """Return what stands in place of a message's last brace when its epoch is in it."""
    return b',"epoch":"%b"}' % epoch.encode()


def with_epoch(delivery: Numbered, epoch: str) -> bytes:
    """Return the text of a message with its epoch in it, for streams that say it nowhere else."""
    return delivery.text[:-1] + epoch_tail(epoch)
