"""What a venue plugin declares: its markets, endpoints, feeds, limits and rules. Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import attrs

from pricefeedd.codec import Codec, Stream
from pricefeedd.events import PRIVATE_CHANNELS
from pricefeedd.rest import AccountRest, Rest
from pricefeedd.rules import Rules

#: What is shorter stands in many a word, and is no secret.
_SECRET_CHARACTERS = 6


class Transport(Enum):
    """How frames arrive."""

    WEBSOCKET = "websocket"
    SSE = "sse"


class Ack(Enum):
    """What the venue answers to a subscribe frame."""

    REQUEST = "request"
    STREAM = "stream"
    NONE = "none"


@attrs.frozen(kw_only=True)
class Budget:
    """A rate limit of the venue: at most `capacity` cost in each `per_s` seconds.

    Attributes:
        reserve: Share of it that we leave unused, for other programs behind the same address.
    """

    name: str
    capacity: float
    per_s: float
    reserve: float = 0.2


@attrs.frozen(kw_only=True)
class Feed:
    """One kind of connection with a venue: a socket address, what it carries, and its manners.

    Attributes:
        name: Unique within the venue, such as `linear-public`.
        market: The market whose symbols it speaks; "" for a private feed that serves all markets.
        endpoint: Key of the base URL in the venue's endpoints.
        path: Joined by hand to the base URL.
        fallback_paths: Tried in turn when a connection was accepted but stays silent.
        private: Belongs to an account: connected with its credentials.
        streams_per_connection: The venue's limit, or a safer one.
        streams_per_request: Streams that one subscribe frame may name.
        request_interval_s: Pause between two frames that we send.
        requests_per_hour: Subscribe frames that one connection may send in an hour; None for any number.
        requests_in_flight: Subscribe frames that may wait for their answer at one time; None for any number.
        connect_budget: Name of the budget that a connection attempt draws 1 from; "" for none.
        request_budget: The same for each subscribe frame, where the venue counts them over all connections.
        ack: What answers a subscribe frame.
        ack_within_s: A subscribe frame not answered by then was lost.
        ping_interval_s: We ping this often; None if the venue pings us and that is enough.
        silence_s: Without any frame for this long (pings and pongs count) the connection is dead.
        lifetime_s: A new connection is made before this age; None if the venue sets no limit.
        max_message_bytes: The largest message that the venue rightly sends.
        always: Streams that each connection subscribes for itself, such as heartbeats.
    """

    name: str
    market: str
    endpoint: str
    path: str = ""
    fallback_paths: tuple[str, ...] = ()
    transport: Transport = Transport.WEBSOCKET
    private: bool = False
    streams_per_connection: int = 200
    streams_per_request: int = 100
    request_interval_s: float = 0.25
    requests_per_hour: int | None = None
    requests_in_flight: int | None = None
    connect_budget: str = ""
    request_budget: str = ""
    ack: Ack = Ack.REQUEST
    ack_within_s: float = 10.0
    ping_interval_s: float | None = None
    silence_s: float = 60.0
    lifetime_s: float | None = None
    max_message_bytes: int = 16 << 20
    always: tuple[Stream, ...] = ()


@attrs.frozen(kw_only=True)
class Account:
    """Credentials for a private feed.

    Attributes:
        name: Its name in the configuration.
        environment: `mainnet`, `testnet` or `demo`.
        channels: What to subscribe: of `order`, `execution`, `position`, `balance`.
    """

    name: str
    environment: str = "mainnet"
    api_key: str = attrs.field(repr=False)
    api_secret: str = attrs.field(repr=False)
    passphrase: str = attrs.field(default="", repr=False)
    channels: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """Return a text without what is secret: some venues repeat in their answers what they were sent."""
        for secret in (self.api_secret, self.api_key, self.passphrase):
            if len(secret) >= _SECRET_CHARACTERS:
                text = text.replace(secret, "***")
        return text


@attrs.frozen
class NoSettings:
    """A venue that needs no settings of its own."""


def _as_declared(venue: Venue, settings: Any) -> Venue:
    return venue


@attrs.frozen(kw_only=True)
class Venue:
    """A venue, as its plugin declares it.

    Attributes:
        name: Of the section `[venues.NAME]`, of topics, and of the plugin.
        api_version: The plugin API that this was written for; a literal, not our constant.
        title: For people, such as `Binance`.
        codec: The stream dialect.
        rest: The REST dialect.
        account_rest: What accounts ask by REST; None where the stream tells all that there is.
        account_channels: What accounts may subscribe.
        channels: Channels offered, by market. Its keys are the venue's markets.
        endpoints: Base URLs by name, the defaults of `[venues.NAME.endpoints]`.
        environments: Other sets of endpoints by name, such as `testnet`, that an account may choose.
        feeds: All kinds of connection.
        budgets: Rate limits that requests and connection attempts draw on.
        max_connections: Connections that the venue allows one address, over all feeds; None for any number.
            Near it connections are filled up, and what fits on none is refused.
        rules: How data may be believed, by market.
        market_names: Other words for our markets that users of this venue know, such as `usdm`.
        settings: attrs class of the keys that this venue adds to `[venues.NAME]`.
        configure: Returns the venue as it is with an instance of `settings`; the declared one by default.
    """

    name: str
    api_version: int
    title: str
    codec: Codec
    rest: Rest
    account_rest: AccountRest | None = None
    account_channels: frozenset[str] = frozenset(PRIVATE_CHANNELS)
    channels: Mapping[str, frozenset[str]]
    endpoints: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    feeds: tuple[Feed, ...]
    budgets: tuple[Budget, ...] = ()
    max_connections: int | None = None
    rules: Mapping[str, Rules]
    market_names: Mapping[str, str] = attrs.field(factory=dict)
    settings: type = NoSettings
    configure: Callable[[Venue, Any], Venue] = _as_declared

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets that it offers."""
        return tuple(self.channels)

    def feed(self, name: str) -> Feed:
        """Return one feed by name.

        Raises:
            KeyError: There is none.
        """
        for feed in self.feeds:
            if feed.name == name:
                return feed
        raise KeyError(name)
