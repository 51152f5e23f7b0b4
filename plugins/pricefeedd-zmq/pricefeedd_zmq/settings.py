"""What an operator can set of the ZeroMQ sink. ZeroMQ itself is not imported here: the configuration is read early."""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs

#: Where subscribers look for messages, and where the proxy takes them in.
PUBLISH = "tcp://127.0.0.1:5545"
PUSH = "tcp://127.0.0.1:5546"

_TCP = re.compile(r"tcp://(\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/\[\]]+):(\d+|\*)")


def check_address(address: str, *, ipv6: bool = True, binds: bool = True) -> None:
    """Check one address of a ZeroMQ socket.

    Args:
        ipv6: Whether an IPv6 address may stand in it.
        binds: Whether a socket binds there, so that an interface and a port of `*` mean something.

    Raises:
        ValueError: It cannot be one.
    """
    if address.startswith("ipc://") and len(address) > len("ipc://"):
        return
    found = _TCP.fullmatch(address)
    if found is None:
        raise ValueError(f'expected an address such as "{PUBLISH}" or "ipc:///run/x.sock"; found {address!r}')
    host, port = found[1], found[2]
    if "*" in (host, port) and not binds:
        raise ValueError(f"an address to connect to has a host and a port; found {address!r}")
    if port != "*" and int(port) > 65535:
        raise ValueError(f"a port is a number from 0 to 65535; found {address!r}")
    if host.startswith("[") and not ipv6:
        raise ValueError(f"{address!r} is IPv6; set ipv6 = true")


def check_curve_key(key: str, name: str) -> None:
    """Check the form of a key of CURVE; its text is not repeated.

    Raises:
        ValueError: It is none.
    """
    if len(key) != 40 or not all("!" <= sign <= "~" for sign in key):
        raise ValueError(f"{name}: expected the 40 characters of a CURVE key (Z85), found {len(key)}")


def _addresses(value: Any) -> tuple[str, ...]:
    if type(value) is str:
        return (value,)
    if type(value) in (list, tuple) and all(type(address) is str for address in value):
        return tuple(value)
    raise ValueError(f'expected an address such as "{PUBLISH}", or an array of them; found {value!r}')


def _at_least(least: float) -> Any:
    def check(_: Any, __: Any, value: float | None) -> None:
        if value is not None and not least <= value < float("inf"):
            raise ValueError(f"expected at least {least:g}, found {value:g}")

    return check


@attrs.frozen(kw_only=True)
class ZmqSettings:
    """The plugin's own keys of `[sinks.zmq]`.

    Attributes:
        mode: `xpub` and `pub` bind and are subscribed to, `push` connects to a proxy. Only with `xpub` is known what
            is subscribed, so that nothing is encoded for nobody and new subscribers can be sent the present state.
        bind: Where `xpub` and `pub` listen: one address or several; tcp://127.0.0.1:5545 by default.
        connect: Where `push` finds proxies; tcp://127.0.0.1:5546 by default. With several, messages are dealt out.
        high_water_mark: Most messages that wait for one peer; what is more is dropped (`push`: waits).
        send_buffer_bytes: Of the system's, for each peer; None leaves it to the system.
        linger_ms: How long messages on their way are waited for at shutdown.
        wait_ms: How long `push` waits for a proxy that takes nothing before it drops what it holds.
        max_message_bytes: A larger message is dropped and counted.
        snapshot: Send the present state when a topic is newly subscribed (`xpub`).
        snapshot_every_s: Send the present state of everything again after so many seconds; None for never.
        heartbeat_s: A peer that is silent for three of these is let go; None leaves it to TCP.
        ipv6: Whether addresses may be of IPv6.
        curve_secret_key: Encrypts by CURVE, with this key as ours; "" for none.
        curve_server_key: The proxy's public key, for `push` with CURVE.
    """

    mode: Literal["xpub", "pub", "push"] = "xpub"
    bind: Any = attrs.field(default=(), converter=_addresses)
    connect: Any = attrs.field(default=(), converter=_addresses)
    high_water_mark: int = attrs.field(default=10_000, validator=_at_least(1))
    send_buffer_bytes: int | None = attrs.field(default=None, validator=_at_least(4096))
    linger_ms: int = attrs.field(default=500, validator=_at_least(0))
    wait_ms: int = attrs.field(default=1_000, validator=_at_least(0))
    max_message_bytes: int = attrs.field(default=1_048_576, validator=_at_least(1024))
    snapshot: bool = True
    snapshot_every_s: float | None = attrs.field(default=None, validator=_at_least(0.1))
    heartbeat_s: float | None = attrs.field(default=10.0, validator=_at_least(0.1))
    ipv6: bool = False
    curve_secret_key: str = attrs.field(default="", repr=False, metadata={"secret": True})
    curve_server_key: str = ""

    def __attrs_post_init__(self) -> None:
        """Check what depends on each other.

        Raises:
            ValueError: It does not fit.
        """
        if self.mode == "push" and self.bind:
            raise ValueError('mode "push" connects; write connect in place of bind')
        if self.mode != "push" and self.connect:
            raise ValueError(f'mode "{self.mode}" binds; write bind in place of connect, or mode = "push"')
        for address in self.addresses:
            check_address(address, ipv6=self.ipv6, binds=self.mode != "push")
        for name in ("curve_secret_key", "curve_server_key"):
            if key := getattr(self, name):
                check_curve_key(key, name)
        if self.mode == "push" and bool(self.curve_secret_key) != bool(self.curve_server_key):
            raise ValueError("CURVE towards a proxy needs both curve_secret_key and curve_server_key")
        if self.mode != "push" and self.curve_server_key:
            raise ValueError('curve_server_key is the proxy\'s, for mode = "push"')

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the socket binds or connects."""
        if self.mode == "push":
            return self.connect or (PUSH,)
        return self.bind or (PUBLISH,)
