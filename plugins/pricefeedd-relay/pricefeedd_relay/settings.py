"""What an operator can set of the relay. Neither pika nor ZeroMQ is imported here: the configuration is read early."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import attrs

_ZMQ = re.compile(r"tcp://(\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/\[\]*]+):\d{1,5}|ipc://.+")
_CURVE_KEY_LENGTH = 40
#: What the sink calls its queues of market data.
QUEUES = tuple(
    f"pricefeedd.{name}" for name in ("trade", "quote", "ticker", "candle", "book", "price", "liquidation")
)


def _at_least(least: float) -> Any:
    def check(_: Any, __: Any, value: float) -> None:
        if not least <= value < float("inf"):
            raise ValueError(f"expected at least {least:g}, found {value:g}")

    return check


@attrs.frozen(kw_only=True)
class RelaySettings:
    """The plugin's own keys of `[sources.relay]`.

    Attributes:
        zmq: Addresses of the upstream's sink `zmq`, or of a `zmq-proxy`, such as `tcp://feed-1:5545`.
        rabbitmq: URL of the broker whose streams the upstream's sink `rabbitmq` fills, in place of `zmq`.
        queues: Names of those streams; by default what the sink calls those of market data.
        upstream: The upstream's own address, `http://host:8765`. It is asked for books, for events that did not come, and
            for what the venues list; "" for nowhere.
        api_key: Of the upstream, where it wants one.
        history_s: So much of the past is read from streams at the start, for readers that come back.
        prefetch: Messages of a stream that are on their way at a time.
        high_water_mark: Messages of ZeroMQ that wait here; what is more is lost, and told as a gap.
        heartbeat_s: An upstream of ZeroMQ that is silent for three of these is taken for dead.
        ipv6: Whether addresses of ZeroMQ may be of IPv6.
        curve_server_key: The upstream's public key, where its ZeroMQ encrypts by CURVE.
        curve_secret_key: Ours, for CURVE.
    """

    zmq: tuple[str, ...] = ()
    rabbitmq: str = attrs.field(default="", repr=False, metadata={"secret": True})
    queues: tuple[str, ...] = QUEUES
    upstream: str = ""
    api_key: str = attrs.field(default="", repr=False, metadata={"secret": True})
    history_s: float = attrs.field(default=300.0, validator=_at_least(0))
    prefetch: int = attrs.field(default=1_000, validator=_at_least(1))
    high_water_mark: int = attrs.field(default=100_000, validator=_at_least(1))
    heartbeat_s: float = attrs.field(default=10.0, validator=_at_least(0.1))
    ipv6: bool = False
    curve_server_key: str = ""
    curve_secret_key: str = attrs.field(default="", repr=False, metadata={"secret": True})

    def __attrs_post_init__(self) -> None:
        """Check what depends on each other.

        Raises:
            ValueError: It does not fit.
        """
        if bool(self.zmq) == bool(self.rabbitmq):
            raise ValueError("say where the upstream publishes: either zmq or rabbitmq")
        for address in self.zmq:
            if _ZMQ.fullmatch(address) is None:
                raise ValueError(f'zmq: expected an address such as "tcp://feed-1:5545"; found {address!r}')
        # Its text is not repeated: it may hold a password.
        if self.rabbitmq and not self.rabbitmq.startswith(("amqp://", "amqps://")):
            raise ValueError("rabbitmq: expected a URL such as amqp://user@host:5672/vhost")
        if not self.queues:
            raise ValueError('queues: name the streams to read, such as ["pricefeedd.trade"]')
        if self.upstream:
            parts = urlsplit(self.upstream)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(
                    f'upstream: expected a URL such as "http://feed-1:8765"; found {self.upstream!r}'
                )
        if bool(self.curve_server_key) != bool(self.curve_secret_key):
            raise ValueError("CURVE needs both curve_server_key and curve_secret_key")
        for name in ("curve_server_key", "curve_secret_key"):
            if len(getattr(self, name)) not in (0, _CURVE_KEY_LENGTH):
                raise ValueError(f"{name}: expected the {_CURVE_KEY_LENGTH} characters of a CURVE key")
