"""Everything that an operator can set, with every default in one place.

None means "off" or "unlimited", never "use the default". `config` reads these from a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from pricefeedd.config import checks


def _secret(default: Any = attrs.NOTHING, **more: Any) -> Any:
    """Declare text that is never shown and that the file only points at."""
    return attrs.field(default=default, repr=False, metadata={"secret": True}, **more)


def state_dir(environ: Mapping[str, str]) -> str:
    """Return the directory for what outlives a restart: systemd's, or one in the user's home."""
    # With several StateDirectory= entries systemd separates them by colons; ours is the first.
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    home = environ.get("HOME") or str(Path.home())
    return f"{home}/.local/state/pricefeedd"


@attrs.frozen(kw_only=True)
class TlsConfig:
    """`[web.tls]`: TLS on the listening sockets.

    Attributes:
        certfile: Certificate chain, PEM.
        keyfile: Its private key, PEM.
    """

    certfile: str = attrs.field(validator=checks.readable_file)
    keyfile: str = attrs.field(validator=checks.private_file)


@attrs.frozen(kw_only=True)
class KeyConfig:
    """One of `[[web.keys]]`.

    Attributes:
        name: What logs call its bearer.
        key: The secret itself, read from where the file points.
        scopes: `read`, `admin` and `account:NAME`.
    """

    name: str = attrs.field(validator=checks.name)
    key: str = _secret(validator=checks.header_text)
    scopes: tuple[str, ...] = attrs.field(default=("read",), validator=checks.each(checks.scope))


@attrs.frozen(kw_only=True)
class WebConfig:
    """`[web]`: what is served to readers.

    Attributes:
        listen: Addresses: `host:port`, `unix:/path` or `fd://N`.
        admin_listen: When there are any, `/metrics` and `/api` are served only there.
        root_dialect: What a WebSocket on `/` speaks: `native`, `pyth` or `ohlcv`.
        max_clients: Most readers at a time.
        client_queue_bytes: Most bytes of events that wait for one reader.
        history_events: Events of each channel that are kept, all its topics together, for readers that come back.
        heartbeat_s: A reader hears from us at least this often.
        allowed_origins: Origins of browsers; with none, only the one that we serve.
        public_read: Whether public data is read without a key.
        compression: Whether permessage-deflate is granted to those who offer it; each message is compressed once for all.
        keys: Who may do what.
        tls: TLS on all addresses of `listen` and `admin_listen`; None for plain HTTP.
    """

    listen: tuple[str, ...] = attrs.field(
        default=("127.0.0.1:8765",), validator=[checks.not_empty, checks.each(checks.listen_address)]
    )
    admin_listen: tuple[str, ...] = attrs.field(default=(), validator=checks.each(checks.listen_address))
    root_dialect: str = attrs.field(default="native", validator=checks.one_of("native", "pyth", "ohlcv"))
    max_clients: int = attrs.field(default=10_000, validator=checks.between(1))
    client_queue_bytes: int = attrs.field(default=2_097_152, validator=checks.between(1024))
    history_events: int = attrs.field(default=20_000, validator=checks.between(0))
    heartbeat_s: float = attrs.field(default=15.0, validator=checks.positive)
    allowed_origins: tuple[str, ...] = attrs.field(default=(), validator=checks.each(checks.origin))
    public_read: bool = True
    compression: bool = False
    keys: tuple[KeyConfig, ...] = attrs.field(default=())
    tls: TlsConfig | None = None

    @keys.validator
    def _keys_differ(self, _: Any, keys: tuple[KeyConfig, ...]) -> None:
        for number, key in enumerate(keys):
            if key.name in [other.name for other in keys[:number]]:
                raise ValueError(f"two keys are named {key.name!r}; give each its own name")
            if key.key in [other.key for other in keys[:number]]:
                raise ValueError(f"the key named {key.name!r} is the secret of another one as well")

    @admin_listen.validator
    def _not_public_too(self, _: Any, addresses: tuple[str, ...]) -> None:
        for address in addresses:
            if address in self.listen:
                raise ValueError(f"{address!r} stands in listen as well; what is admin's would be public")


@attrs.frozen(kw_only=True)
class SubscribeConfig:
    """One of `[[venues.NAME.subscribe]]`: topics that are served from the start, or offered on demand.

    Attributes:
        market: One of the venue's markets.
        instruments: Our names or the venue's symbols.
        channels: Public channels of that market.
        on_demand: Subscribe at the venue only while somebody reads; with no instruments, any of the market.
    """

    market: str
    instruments: tuple[str, ...] = attrs.field(default=(), validator=checks.each(checks.instrument))
    channels: tuple[str, ...] = attrs.field(validator=checks.not_empty)
    on_demand: bool = False


@attrs.frozen(kw_only=True)
class SessionConfig:
    """`[venues.NAME.session]`: how connections with the venue are kept.

    Attributes:
        instruments_per_connection: Most instruments on one connection.
        stale_after_s: A stream that owes data by now is stale.
        backfill_after_s: Silence of candles that sends us to REST.
        breaker_failures: Failures in a row that open the circuit breaker.
        breaker_open_s: How long it stays open at first; doubles up to 300 s.
        dedupe_window_s: How long an event is remembered, so that it is not told twice.
        dedupe_entries: Most events remembered for that.
    """

    instruments_per_connection: int = attrs.field(default=50, validator=checks.between(1))
    stale_after_s: float = attrs.field(default=30.0, validator=checks.positive)
    backfill_after_s: float = attrs.field(default=3.0, validator=checks.positive)
    breaker_failures: int = attrs.field(default=5, validator=checks.between(1))
    breaker_open_s: float = attrs.field(default=30.0, validator=[checks.positive, checks.between(0, 300)])
    dedupe_window_s: float = attrs.field(default=120.0, validator=checks.positive)
    dedupe_entries: int = attrs.field(default=10_000, validator=checks.between(1))


@attrs.frozen(kw_only=True)
class AccountConfig:
    """`[venues.NAME.accounts.ACCOUNT]`: private streams.

    Attributes:
        environment: `mainnet`, or another set of endpoints that the venue has, such as `testnet`.
        channels: Of `order`, `execution`, `position` and `balance`.
    """

    environment: str = "mainnet"
    api_key: str = _secret(validator=checks.not_empty)
    api_secret: str = _secret(validator=checks.not_empty)
    passphrase: str = _secret(default="")
    channels: tuple[str, ...] = attrs.field(validator=checks.not_empty)


@attrs.frozen(kw_only=True)
class VenueConfig:
    """`[venues.NAME]`.

    Attributes:
        name: The section's; the venue's name in topics.
        plugin: The venue as its plugin calls it; the section's name by default.
        subscribe: What is subscribed from the start.
        endpoints: Base URLs that differ from the venue's own.
        session: How connections are kept.
        accounts: Private streams, by the account's name.
        settings: Instance of the settings class that the venue's plugin brings.
    """

    name: str
    plugin: str
    subscribe: tuple[SubscribeConfig, ...] = ()
    endpoints: Mapping[str, str] = attrs.field(factory=dict)
    session: SessionConfig = SessionConfig()
    accounts: Mapping[str, AccountConfig] = attrs.field(factory=dict)
    settings: Any = None


@attrs.frozen(kw_only=True)
class StoreConfig:
    """`[store]`: the database; without the section nothing is stored.

    Attributes:
        url: Of SQLite or PostgreSQL; `{state_dir}` in it stands for the daemon's own directory.
        candles: Whether closed candles are kept.
        spool_bytes: Most bytes on disk that wait for the database while it is slow or away.
    """

    url: str = attrs.field(
        default="sqlite:///{state_dir}/pricefeedd.db", repr=False, validator=checks.store_url
    )
    candles: bool = True
    spool_bytes: int = attrs.field(default=1_073_741_824, validator=checks.between(65_536))


@attrs.frozen(kw_only=True)
class SinkConfig:
    """`[sinks.NAME]`.

    Attributes:
        name: The section's.
        plugin: The sink as its plugin calls it; the section's name by default.
        topics: Patterns of what goes there. As for readers, `*` never means an account's channel.
        accounts: Names of accounts whose orders, executions, positions and balances go there as well; `*` for all.
        conflate: Whether only the newest of each quote, ticker, price and open candle waits for it. If not, they wait in
            order like events, so that no number is passed over.
        queue_bytes: Most bytes of events that wait for it.
        spool_bytes: Most bytes on disk, where the sink may not lose what accounts are told.
        settings: Instance of the settings class that the sink's plugin brings.
    """

    name: str
    plugin: str
    topics: tuple[str, ...] = attrs.field(default=("*:*:*",), validator=checks.each(checks.topic))
    accounts: tuple[str, ...] = ()
    conflate: bool = True
    queue_bytes: int = attrs.field(default=8_388_608, validator=checks.between(1024))
    spool_bytes: int = attrs.field(default=1_073_741_824, validator=checks.between(65_536))
    settings: Any = None


@attrs.frozen(kw_only=True)
class SourceConfig:
    """`[sources.NAME]`: another pricefeedd whose topics are served, in place of venues.

    Attributes:
        name: The section's.
        plugin: The source as its plugin calls it; the section's name by default.
        topics: Patterns of what is served. As for readers, `*` never means an account's channel.
        accounts: Names of accounts whose orders, executions, positions and balances are served as well; `*` for all.
        settings: Instance of the settings class that the source's plugin brings.
    """

    name: str
    plugin: str
    topics: tuple[str, ...] = attrs.field(default=("*:*:*",), validator=checks.each(checks.topic))
    accounts: tuple[str, ...] = ()
    settings: Any = None


@attrs.frozen(kw_only=True)
class LeaderConfig:
    """`[leader]`: which of several daemons dials the venues.

    Attributes:
        elector: `none`, or the name of an elector.
        unhealthy_after_s: A leader whose venues were all unhealthy for so long gives up the lead.
        rest_s: It does not stand for election for so long after that, so that another daemon leads.
        settings: Instance of the elector's settings class, from `[leader.NAME]`; None for `none`.
    """

    elector: str = "none"
    unhealthy_after_s: float = attrs.field(default=120.0, validator=checks.positive)
    rest_s: float = attrs.field(default=30.0, validator=checks.positive)
    settings: Any = None


@attrs.frozen(kw_only=True)
class LoggingConfig:
    """`[logging]`.

    Attributes:
        level: The least that is logged: `debug`, `info`, `warning` or `error`.
        format: `json`, `console`, `journal`, or `auto` for what stderr is.
        repeat_s: The same line is not written again for so long, but counted; 0 writes each.
    """

    level: str = attrs.field(default="info", validator=checks.one_of("debug", "info", "warning", "error"))
    format: str = attrs.field(default="auto", validator=checks.one_of("auto", "json", "console", "journal"))
    repeat_s: float = attrs.field(default=10.0, validator=checks.between(0, 3600))


@attrs.frozen(kw_only=True)
class MetricsConfig:
    """`[metrics]`.

    Attributes:
        compat: Also serve the metric names of the systems that pricefeedd replaces.
    """

    compat: bool = False


@attrs.frozen(kw_only=True)
class Config:
    """Everything that an operator can set.

    Attributes:
        state_dir: Where what outlives a restart is kept; of the environment, not of the file.
    """

    web: WebConfig = WebConfig()
    venues: Mapping[str, VenueConfig] = attrs.field(factory=dict)
    store: StoreConfig | None = None
    sinks: Mapping[str, SinkConfig] = attrs.field(factory=dict)
    sources: Mapping[str, SourceConfig] = attrs.field(factory=dict)
    leader: LeaderConfig = LeaderConfig()
    logging: LoggingConfig = LoggingConfig()
    metrics: MetricsConfig = MetricsConfig()
    state_dir: Path = attrs.field(factory=lambda: Path(state_dir(os.environ)), metadata={"outside": True})
