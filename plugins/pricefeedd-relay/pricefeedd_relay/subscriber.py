"""Messages by ZeroMQ: `[topic, json]` of a publisher, on Trio's loop."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import zmq
from zmq.utils.monitor import parse_monitor_message

from pricefeedd.events import PRIVATE_CHANNELS
from pricefeedd.source import Inlet
from pricefeedd_relay.settings import RelaySettings

#: Messages that are handed on together.
_BATCH = 1_000
#: The descriptor tells of changes only; after this long the socket is looked at anyway.
_GUARD_S = 0.5
_MONITORED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


def prefixes(topics: Sequence[str], *, accounts: bool) -> list[bytes]:
    """Return the fewest prefixes that let all topics of some patterns through, and some others too."""
    wanted = set()
    for topic in topics:
        # An exact name is the beginning of others: BTC-USDT of BTC-USDT-PERP.
        wanted.add(topic.partition("*")[0])
    if accounts:
        wanted.update(f"{channel}:" for channel in PRIVATE_CHANNELS)
    return [
        text.encode()
        for text in sorted(wanted)
        if not any(text != other and text.startswith(other) for other in wanted)
    ]


class Subscriber:
    """Reads what a publisher sends; ZeroMQ connects again by itself."""

    def __init__(self, settings: RelaySettings, inlet: Inlet) -> None:
        self._settings = settings
        self._inlet = inlet
        self._peers = 0

    async def run(self) -> None:
        """Deliver until cancelled."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            socket = context.socket(zmq.SUB)
            self._set_up(socket)
            monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_MONITORED)
            try:
                for address in self._settings.zmq:
                    socket.connect(address)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, monitor)
                    await self._read(socket)
            finally:
                socket.disable_monitor()
                monitor.close(linger=0)
        finally:
            context.destroy(linger=0)

    def _set_up(self, socket: zmq.Socket[bytes]) -> None:
        settings = self._settings
        beat_ms = int(settings.heartbeat_s * 1000)
        socket.setsockopt(zmq.RCVHWM, settings.high_water_mark)
        socket.setsockopt(zmq.IPV6, int(settings.ipv6))
        socket.setsockopt(zmq.HEARTBEAT_IVL, beat_ms)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * beat_ms)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5_000)
        if settings.curve_secret_key:
            secret = settings.curve_secret_key.encode()
            socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(secret))
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            socket.setsockopt(zmq.CURVE_SERVERKEY, settings.curve_server_key.encode())
        for prefix in prefixes(self._inlet.topics, accounts=bool(self._inlet.accounts)):
            socket.setsockopt(zmq.SUBSCRIBE, prefix)

    async def _read(self, socket: zmq.Socket[bytes]) -> None:
        deliver, receive = self._inlet.deliver, socket.recv_multipart
        while True:
            batch: list[bytes] = []
            try:
                while len(batch) < _BATCH:
                    batch.append(receive(zmq.NOBLOCK)[-1])
            except zmq.Again:
                pass
            if batch:
                await deliver(batch)
            else:
                await _wait(socket)

    async def _watch(self, monitor: zmq.Socket[bytes]) -> None:
        """Tell when the last publisher goes, and when one is there again."""
        where = ", ".join(self._settings.zmq)
        while True:
            try:
                event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                await _wait(monitor)
                continue
            before = self._peers
            self._peers = max(0, before + (1 if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else -1))
            if self._peers and not before:
                self._inlet.up()
            elif before and not self._peers:
                self._inlet.lost(f"the connection with {where} ended")


async def _wait(socket: zmq.Socket[bytes]) -> None:
    """Wait until there is something to read."""
    while not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        with trio.move_on_after(_GUARD_S):
            await trio.lowlevel.wait_readable(int(socket.getsockopt(zmq.FD)))
    await trio.lowlevel.checkpoint()
