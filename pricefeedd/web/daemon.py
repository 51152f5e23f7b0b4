"""What the web layer needs of the daemon, and the bounds of what a client may do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from pricefeedd.bus import Bus
from pricefeedd.instruments import Directory
from pricefeedd.registry import Registry
from pricefeedd.reload import Reloader
from pricefeedd.stats import Stats
from pricefeedd.store.archive import Archive


class Key(Protocol):
    """One of `[[web.keys]]`."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def scopes(self) -> Sequence[str]: ...


class Tls(Protocol):
    """`[web.tls]`."""

    @property
    def certfile(self) -> str: ...
    @property
    def keyfile(self) -> str: ...


class WebSettings(Protocol):
    """`[web]`."""

    @property
    def listen(self) -> Sequence[str]: ...
    @property
    def admin_listen(self) -> Sequence[str]: ...
    @property
    def root_dialect(self) -> str: ...
    @property
    def max_clients(self) -> int: ...
    @property
    def client_queue_bytes(self) -> int: ...
    @property
    def heartbeat_s(self) -> float: ...
    @property
    def allowed_origins(self) -> Sequence[str]: ...
    @property
    def public_read(self) -> bool: ...
    @property
    def compression(self) -> bool: ...
    @property
    def keys(self) -> Sequence[Key]: ...
    @property
    def tls(self) -> Tls | None: ...


class MetricsSettings(Protocol):
    """`[metrics]`."""

    @property
    def compat(self) -> bool: ...


class Settings(Protocol):
    """The part of the configuration that is read here."""

    @property
    def metrics(self) -> MetricsSettings: ...
    @property
    def web(self) -> WebSettings: ...


class Hold(Protocol):
    """Somebody reads a topic that its venue brings only on demand."""

    def release(self) -> None:
        """Let go of it; does nothing the second time, and never raises."""
        ...


class Daemon(Protocol):
    """The running daemon, as seen from the edge. Everything here may be read at any time and is cheap.

    Attributes:
        plugins: Records of the plugins found, each with `name`, `status` and `reason`.
        subscriptions: Which services subscribed what.
        archive: What is known of the past.
        epoch: One life of all streams.
        standby: Why nothing is served here, because another daemon leads; "" while this one does.
        reloader: Reads the configuration again.
        now_ns: The wall clock.
        describe: Returns facts for `/status` that only the daemon knows, such as the venues' connections.
        explain: Returns why a topic is as it is.
        demand: Has a topic brought that is brought only on demand.
    """

    @property
    def config(self) -> Settings: ...
    @property
    def bus(self) -> Bus: ...
    @property
    def directory(self) -> Directory: ...
    @property
    def stats(self) -> Stats: ...
    @property
    def subscriptions(self) -> Registry: ...
    @property
    def archive(self) -> Archive: ...
    @property
    def plugins(self) -> Iterable[Any]: ...
    @property
    def epoch(self) -> str: ...
    @property
    def standby(self) -> str: ...
    @property
    def reloader(self) -> Reloader: ...
    @property
    def now_ns(self) -> Callable[[], int]: ...

    def describe(self) -> Mapping[str, Any]: ...

    def explain(self, topic: str) -> Mapping[str, Any]:
        """Return why a topic is as it is: see `pricefeedd.explain`. Who may know of it was asked before.

        Raises:
            UnexplainedError: There is no such account, or it has no such channel.
        """
        ...

    def demand(self, channel: str, venue: str, instrument: str) -> Hold | None:
        """Have a topic brought if its venue offers it on demand, until the hold is let go; None if it does not.

        The topic is on the bus when this returns. It never raises, and costs little.
        """
        ...


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of what one client may do. `welcome` tells them to the client.

    Attributes:
        message_bytes: Largest message that a client may send.
        subscriptions: Topics and patterns that a client may hold.
        requests_per_s: Requests in the long run; a request costs one more for each 100 topics in it.
        burst: Requests at once.
        errors: Wrong requests in a row of a minute before the client is closed.
        reply_messages: Messages that one `get` may bring.
        history_messages: Messages that one `history` may bring.
        heartbeat_topics: Topics in one heartbeat; with more they take turns.
        silent_s: A client that asked for nothing may be closed after this, when room is needed for others.
        stall_s: A client that takes nothing for so long, while something waits for it, is closed.
        goodbye_s: How long the last words may take.
        listing_s: How long a client of an older system waits for a venue's list of instruments.
        body_bytes: Largest HTTP body.
        body_s: How long an HTTP body may take.
    """

    message_bytes: int = 65_536
    subscriptions: int = 10_000
    requests_per_s: float = 50.0
    burst: int = 500
    errors: int = 100
    reply_messages: int = 1_000
    history_messages: int = 10_000
    heartbeat_topics: int = 1_000
    silent_s: float = 60.0
    stall_s: float = 10.0
    goodbye_s: float = 2.0
    listing_s: float = 10.0
    body_bytes: int = 65_536
    body_s: float = 10.0

    def public(self) -> dict[str, int | float]:
        """Return what `welcome` says of them."""
        return {
            "message_bytes": self.message_bytes,
            "subscriptions": self.subscriptions,
            "requests_per_s": self.requests_per_s,
            "burst": self.burst,
            "get_messages": self.reply_messages,
            "history_messages": self.history_messages,
        }
