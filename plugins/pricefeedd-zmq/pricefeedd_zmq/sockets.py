"""ZeroMQ sockets on Trio's loop: never blocking, and opened with words when that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio
import zmq
from zmq.utils.monitor import parse_monitor_message

#: The descriptor tells of changes only, and whoever sends may eat the news; after this long it is looked at anyway.
GUARD_S = 0.5
#: Most bytes of what a subscriber may send us: a longer subscription ends its connection.
SUBSCRIPTION_BYTES = 1024

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)


class AddressError(Exception):
    """An address cannot be used now, or never; the message names it."""


@attrs.frozen(kw_only=True)
class Options:
    """How a socket is set up.

    Attributes:
        high_water_mark: Most messages that wait for, or from, one peer.
        receive_bytes: Most bytes of a message from outside.
        buffer_bytes: Of the system's, for each peer; None leaves it to the system.
        heartbeat_s: A peer that is silent for three of these is let go; None for never.
        secret_key: Ours, of CURVE; "" for none.
        server_key: The other side's public key, where it is the server of CURVE; "" where we are.
    """

    high_water_mark: int
    receive_bytes: int = -1
    buffer_bytes: int | None = None
    heartbeat_s: float | None = 10.0
    ipv6: bool = False
    secret_key: str = ""
    server_key: str = ""

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Set a socket up, before it binds or connects.

        Raises:
            AddressError: CURVE is asked for, and this build of ZeroMQ has none, or a key is no key.
        """
        socket.set_hwm(self.high_water_mark)
        socket.setsockopt(zmq.MAXMSGSIZE, self.receive_bytes)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
        if self.buffer_bytes is not None:
            socket.setsockopt(zmq.SNDBUF, self.buffer_bytes)
        if self.heartbeat_s is not None:
            socket.setsockopt(zmq.HEARTBEAT_IVL, int(self.heartbeat_s * 1000))
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(self.heartbeat_s * 3000))
            # The peer is told to let us go likewise; the field takes at most 6553.5 s.
            socket.setsockopt(zmq.HEARTBEAT_TTL, min(int(self.heartbeat_s * 3000), 6_553_000))
        socket.setsockopt(zmq.IPV6, int(self.ipv6))
        if self.secret_key:
            self._encrypt(socket)

    def _encrypt(self, socket: zmq.Socket[bytes]) -> None:
        if not zmq.has("curve"):
            raise AddressError("this build of ZeroMQ has no CURVE; install pyzmq from a wheel")
        secret = self.secret_key.encode()
        try:
            public = zmq.curve_public(secret)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            if self.server_key:
                socket.setsockopt(zmq.CURVE_SERVERKEY, self.server_key.encode())
            else:
                socket.setsockopt(zmq.CURVE_SERVER, 1)
        except (zmq.ZMQError, ValueError) as e:
            # Without its cause, whose text could hold the key.
            raise AddressError(f"CURVE takes the keys not ({type(e).__name__}); make new ones") from None


def attach(socket: zmq.Socket[bytes], addresses: Sequence[str], *, bind: bool) -> list[str]:
    """Bind or connect a socket; return where it is, with the ports that the system chose.

    Raises:
        AddressError: That failed for one of them.
    """
    found = []
    for address in addresses:
        try:
            if bind:
                socket.bind(address)
            else:
                socket.connect(address)
        except zmq.ZMQError as e:
            what = "listen on" if bind else "connect to"
            raise AddressError(f"cannot {what} {address}: {zmq.strerror(e.errno or 0)}") from e
        where = socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(where, bytes), "the option is text"
        found.append(where.rstrip(b"\0").decode())
    return found


def ready(socket: zmq.Socket[bytes], events: int) -> bool:
    """Return whether one of the events (`zmq.POLLIN`, `zmq.POLLOUT`) holds."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & events)


async def wait(socket: zmq.Socket[bytes], events: int) -> None:
    """Wait until one of the events (`zmq.POLLIN`, `zmq.POLLOUT`) holds.

    Only one task may wait for a socket at a time.
    """
    while not ready(socket, events):
        with trio.move_on_after(GUARD_S):
            await trio.lowlevel.wait_readable(int(socket.getsockopt(zmq.FD)))


class Peers:
    """Who is connected, as the socket's monitor tells.

    Attributes:
        count: Peers now.
        ever: Peers so far.
        refused: Connections that never became one: port scans, other protocols, wrong keys.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        """Begin to watch a socket, before it binds or connects."""
        self.count = 0
        self.ever = 0
        self.refused = 0
        self._failed = 0
        self._socket = socket
        self._monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Count until cancelled, and tell of each change."""
        while True:
            await wait(self._monitor, zmq.POLLIN)
            while ready(self._monitor, zmq.POLLIN):
                self._take(parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"])
            changed()
            await trio.lowlevel.checkpoint()

    def close(self, linger_ms: int) -> None:
        """Close the socket that is watched, and watch no longer."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=linger_ms)

    def _take(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.count += 1
            self.ever += 1
        elif event == zmq.EVENT_DISCONNECTED:
            # It is told of connections as well that never were a peer.
            if self._failed:
                self._failed -= 1
            else:
                self.count = max(0, self.count - 1)
        else:
            self._failed += 1
            self.refused += 1


async def end(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """End a context whose sockets are closed; what they have on the way is waited for as long as they linger."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(context.term)
