"""What an operator can set of the RabbitMQ sink. pika is not imported here: the configuration is read early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs

from pricefeedd.events import PRIVATE_CHANNELS

QueueType = Literal["classic", "quorum", "stream"]

#: Classes of events, each with a queue of its own. Status and gap messages go where the data goes that they are about.
MARKET_CLASSES = ("trade", "quote", "ticker", "candle", "book", "price", "liquidation")
CLASSES = (*MARKET_CLASSES, *PRIVATE_CHANNELS)

DAY_S = 86_400
#: What the queues of market data hold at most, unless told otherwise.
MAX_LENGTH = 100_000
#: What a stream of market data holds at most, unless told otherwise.
STREAM_BYTES = 1 << 30


def _at_least(least: float) -> Any:
    def check(_: Any, __: Any, value: float | None) -> None:
        if value is not None and not least <= value < float("inf"):
            raise ValueError(f"expected at least {least:g}, found {value:g}")

    return check


def _name(_: Any, __: Any, value: str) -> None:
    if len(value.encode()) > 200 or value.startswith("amq.") or any(sign < " " for sign in value):
        raise ValueError(
            f"expected a name of at most 200 bytes that does not begin with amq.; found {value!r}"
        )


def _url(_: Any, __: Any, value: str) -> None:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("a bad address") from None  # the cause may hold the password
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname or port == 0:
        raise ValueError("expected amqp://user:password@host:port/vhost, or amqps://")


@attrs.frozen(kw_only=True)
class QueueSettings:
    """`[sinks.rabbitmq.queues.CLASS]`: what differs from the defaults of the class. 0 stands for no limit.

    Attributes:
        enabled: Whether there is a queue for the class at all.
        name: The queue's; `queue_prefix` and the class by default. Classes may share one.
        type: `classic`, `quorum` or `stream`; `queue_type` by default.
        ttl_s: Older messages go. 24 h for market data, no limit for accounts.
        max_length: More messages than that, and the oldest go. 100 000 for market data, no limit for accounts;
            streams have none.
        max_length_bytes: The same in bytes. No limit by default; 1 GiB for streams of market data.
        overflow: `drop-head`, or `reject-publish`: a full queue then refuses what is new (not for streams).
    """

    enabled: bool = True
    name: str = attrs.field(default="", validator=_name)
    type: QueueType | None = None
    ttl_s: int | None = attrs.field(default=None, validator=_at_least(0))
    max_length: int | None = attrs.field(default=None, validator=_at_least(0))
    max_length_bytes: int | None = attrs.field(default=None, validator=_at_least(0))
    overflow: Literal["drop-head", "reject-publish"] = "drop-head"


@attrs.frozen(kw_only=True)
class RabbitSettings:
    """The plugin's own keys of `[sinks.rabbitmq]`.

    Attributes:
        url: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
        exchange: A durable topic exchange.
        declare: Whether exchange, queues and bindings are made where they are absent. If not, somebody else does.
        queue_prefix: Of the queues' names; the class comes after it.
        queue_type: Of queues that do not say otherwise.
        queues: What differs, by class.
        persistent: Whether market data is written to disk by the broker. What accounts are told always is.
        window: Most messages on their way that are not confirmed yet; for market data and for accounts each.
        heartbeat_s: A broker that is silent for so long is given up.
        connect_timeout_s: How long a connection may take to come about.
        retry_max_s: Longest wait before the next attempt. It begins with 1 s; a refused login waits a minute and more.
        backlog_s: How often the queues are asked how many messages wait in them.
        tls_ca_file: Certificates that vouch for the broker; the system's own by default.
        tls_cert_file: Our certificate, where the broker wants one.
        tls_key_file: The key that belongs to it.
    """

    url: str = attrs.field(repr=False, metadata={"secret": True}, validator=_url)
    exchange: str = attrs.field(default="pricefeedd", validator=_name)
    declare: bool = True
    queue_prefix: str = attrs.field(default="pricefeedd.", validator=_name)
    queue_type: QueueType = "classic"
    queues: Mapping[str, QueueSettings] = attrs.field(factory=dict)
    persistent: bool = False
    window: int = attrs.field(default=1_000, validator=_at_least(1))
    heartbeat_s: int = attrs.field(default=30, validator=_at_least(1))
    connect_timeout_s: float = attrs.field(default=10.0, validator=_at_least(0.1))
    retry_max_s: float = attrs.field(default=5.0, validator=_at_least(0.1))
    backlog_s: float = attrs.field(default=5.0, validator=_at_least(0.1))
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""

    def __attrs_post_init__(self) -> None:
        """Check what depends on each other.

        Raises:
            ValueError: It does not fit.
        """
        if not self.exchange:
            raise ValueError("exchange: expected a name; the default exchange knows no topics")
        for name in self.queues:
            if name not in CLASSES:
                raise ValueError(f"queues.{name}: no class of events; expected one of {', '.join(CLASSES)}")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        if self.tls_ca_file + self.tls_cert_file and not self.url.startswith("amqps://"):
            raise ValueError("tls_ca_file and tls_cert_file need an url of amqps://")
        self.queues_wanted()

    def queues_wanted(self) -> list[Queue]:
        """Return the queues to declare.

        Raises:
            ValueError: Two classes share a queue and want it otherwise.
        """
        found: dict[str, Queue] = {}
        for name in CLASSES:
            wanted = self.queues.get(name, QueueSettings())
            if not wanted.enabled:
                continue
            queue = _queue(name, wanted, self)
            before = found.get(queue.name)
            if before is not None:
                if before.arguments != queue.arguments:
                    raise ValueError(
                        f"queues.{name}: {before.classes[0]} has the queue {queue.name!r} too, with other limits; "
                        "write the same for both"
                    )
                queue = attrs.evolve(
                    queue,
                    classes=(*before.classes, *queue.classes),
                    bindings=(*before.bindings, *queue.bindings),
                )
            found[queue.name] = queue
        return list(found.values())


@attrs.frozen(kw_only=True)
class Queue:
    """One queue as it should be.

    Attributes:
        classes: What goes there.
        arguments: As RabbitMQ names them.
        bindings: Patterns of routing keys.
    """

    name: str
    classes: tuple[str, ...]
    arguments: dict[str, Any]
    bindings: tuple[str, ...]


def _queue(name: str, wanted: QueueSettings, settings: RabbitSettings) -> Queue:
    market = name in MARKET_CLASSES
    kind = wanted.type or settings.queue_type
    stream = kind == "stream"
    if stream and (wanted.max_length or wanted.overflow != "drop-head"):
        raise ValueError(
            f"queues.{name}: a stream has no max_length and no overflow; use max_length_bytes or ttl_s"
        )
    ttl_s = (DAY_S if market else 0) if wanted.ttl_s is None else wanted.ttl_s
    length = (MAX_LENGTH if market and not stream else 0) if wanted.max_length is None else wanted.max_length
    size = (
        (STREAM_BYTES if market and stream else 0)
        if wanted.max_length_bytes is None
        else wanted.max_length_bytes
    )
    arguments: dict[str, Any] = {}
    if kind != "classic":
        arguments["x-queue-type"] = kind
    if ttl_s and stream:
        arguments["x-max-age"] = f"{ttl_s}s"
    elif ttl_s:
        arguments["x-message-ttl"] = ttl_s * 1000
    if length:
        arguments["x-max-length"] = length
    if size:
        arguments["x-max-length-bytes"] = size
    if length or (size and not stream):
        arguments["x-overflow"] = wanted.overflow
    channels = [f"candle_{interval}" for interval in ("1m", "5m", "15m", "1h", "4h", "1d")]
    return Queue(
        name=wanted.name or settings.queue_prefix + name,
        classes=(name,),
        arguments=arguments,
        bindings=tuple(f"{channel}.#" for channel in (channels if name == "candle" else [name])),
    )


def routing_key(topic: str) -> str:
    """Return `channel.venue.instrument`: what would mean something else in a routing key is written as `%2E` and so on."""
    parts = topic.split(":", 2)
    return ".".join("".join(_ESCAPED.get(sign, sign) for sign in part) for part in parts)[:255]


_ESCAPED = {sign: f"%{ord(sign):02X}" for sign in "%.*# "}
