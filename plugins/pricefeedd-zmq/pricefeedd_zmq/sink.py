"""The sink: every message as `[topic, json]`, from the lanes to a ZeroMQ socket on Trio's loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
import trio
import zmq

from pricefeedd.envelope import epoch_tail
from pricefeedd.hookspecs import Delivery, Lanes
from pricefeedd_zmq.interest import Interest
from pricefeedd_zmq.latest import Latest
from pricefeedd_zmq.settings import ZmqSettings
from pricefeedd_zmq.sockets import SUBSCRIPTION_BYTES, AddressError, Options, Peers, attach, end, ready, wait

log = structlog.get_logger("pricefeedd.zmq")

_MORE, _LAST = int(zmq.SNDMORE | zmq.NOBLOCK), int(zmq.NOBLOCK)
_KINDS = {"xpub": zmq.XPUB, "pub": zmq.PUB, "push": zmq.PUSH}
#: After so many messages the other tasks have their turn.
_TURN = 128
#: New subscribers are brought up to date at most this often, all of them together.
_SNAPSHOT_S = 0.1
#: Between attempts to open the socket; the last one for ever.
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)


class Publisher:
    """One life of the sink.

    Attributes:
        addresses: Where the socket is, once it is open; with the ports that the system chose.
    """

    def __init__(self, settings: ZmqSettings, lanes: Lanes) -> None:
        self.addresses: list[str] = []
        self._settings = settings
        self._lanes = lanes
        self._report = lanes.report
        own = "would_block" if settings.mode == "push" else "subscriptions"
        self._report.gauges = {"peers": 0, "refused": 0, "unread": 0, own: 0}
        self._interest = Interest() if settings.mode == "xpub" else None
        repeats = settings.snapshot_every_s is not None or (settings.snapshot and self._interest is not None)
        self._latest = Latest() if repeats else None
        self._epoch = lanes.epoch
        # The first part of each topic's messages; None for one that nobody subscribed to.
        self._names: dict[str, bytes | None] = {}
        self._asked = trio.Event()
        self._newly = Interest()

    async def run(self) -> None:
        """Publish until the lanes end."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        linger_ms = 0
        try:
            socket = await self._opened(context)
            try:
                await self._publish(socket)
                linger_ms = self._settings.linger_ms
            finally:
                self._peers.close(linger_ms)
                await end(context)
        except trio.EndOfChannel:
            pass  # it could not be opened, and now it need not
        finally:
            context.destroy(linger=0)

    # --- opening ------------------------------------------------------------------------------------------

    async def _opened(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        """Open the socket; while that fails nobody can hear us, and what comes is let go.

        Raises:
            trio.EndOfChannel: pricefeedd is stopping.
        """
        attempt = 0
        while True:
            try:
                return self._open(context)
            except AddressError as e:
                reason = str(e)
            if reason != self._report.last_error:
                log.warning("sink is down", sink=self._lanes.section, reason=reason)
            self._report.state, self._report.reason = "down", reason
            self._report.last_error = reason
            with trio.move_on_after(_RETRY_S[min(attempt, len(_RETRY_S) - 1)]):
                while True:
                    self._report.drop("down", len(await self._lanes.receive()))
            attempt += 1

    def _open(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        settings = self._settings
        socket = context.socket(_KINDS[settings.mode])
        self._peers = Peers(socket)
        options = Options(
            high_water_mark=settings.high_water_mark,
            receive_bytes=SUBSCRIPTION_BYTES,
            buffer_bytes=settings.send_buffer_bytes,
            heartbeat_s=settings.heartbeat_s,
            ipv6=settings.ipv6,
            secret_key=settings.curve_secret_key,
            server_key=settings.curve_server_key,
        )
        try:
            options.apply(socket)
            if settings.mode == "xpub":
                socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            if settings.mode == "push":
                # Nothing waits for a proxy that is not there: it would be old when it comes.
                socket.setsockopt(zmq.IMMEDIATE, 1)
            self.addresses = attach(socket, settings.addresses, bind=settings.mode != "push")
        except AddressError:
            self._peers.close(0)
            raise
        self._tell_peers()
        log.info("sink is open", sink=self._lanes.section, mode=settings.mode, addresses=self.addresses)
        return socket

    # --- publishing ---------------------------------------------------------------------------------------

    async def _publish(self, socket: zmq.Socket[bytes]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._peers.watch, self._tell_peers)
            if self._interest is not None:
                nursery.start_soon(self._watch_subscriptions, socket)
            if self._latest is not None:
                nursery.start_soon(self._bring_up_to_date, socket)
                if self._settings.snapshot_every_s is not None:
                    nursery.start_soon(self._repeat, self._settings.snapshot_every_s)
            try:
                while True:
                    await self._send_all(socket, await self._lanes.receive())
            except trio.EndOfChannel:
                nursery.cancel_scope.cancel()

    async def _send_all(self, socket: zmq.Socket[bytes], deliveries: Sequence[Delivery]) -> None:
        epoch, most = self._lanes.epoch, self._settings.max_message_bytes
        if epoch != self._epoch and self._latest is not None:
            self._epoch, self._latest = epoch, Latest()
        note = None if self._latest is None else self._latest.take
        names, put, tail = self._names, _sender(socket), epoch_tail(epoch)
        may_send = self._lanes.may_send
        sent = unread = count = 0
        for delivery in deliveries:
            count += 1
            if not count % _TURN:
                await trio.lowlevel.checkpoint()
            if note is not None:
                note(delivery)
            try:
                name = names[delivery.topic]
            except KeyError:
                name = self._name(delivery.topic)
            if name is None:
                unread += 1
                continue
            text = delivery.text[:-1] + tail
            if len(text) > most:
                self._report.drop("too_large")
                continue
            if not may_send():
                await trio.sleep_forever()  # another daemon may lead: we are cancelled soon
            try:
                put(name, _MORE)
                put(text, _LAST)
            except zmq.Again:
                if not await self._sent_late(socket, name, text):
                    self._report.drop("slow", len(deliveries) - count + 1)
                    break
            sent += 1
        self._report.delivered += sent
        self._report.gauges["unread"] += unread
        if sent:
            self._report.last_delivered_ns = time.time_ns()
        if self._interest is not None:
            # To send may eat the news of the descriptor that somebody subscribed.
            self._read_subscriptions(socket, self._interest)

    def _name(self, topic: str) -> bytes | None:
        name = topic.encode()
        wanted = self._interest is None or self._interest.wants(name)
        self._names[topic] = found = name if wanted else None
        return found

    async def _sent_late(self, socket: zmq.Socket[bytes], name: bytes, text: bytes) -> bool:
        """Wait for a proxy that takes the message; return whether one did in time."""
        report = self._report
        report.gauges["would_block"] += 1
        if self._peers.count:
            report.state, report.reason = "blocked", "the proxy takes no messages"
        with trio.move_on_after(self._settings.wait_ms / 1000):
            while True:
                await wait(socket, zmq.POLLOUT)
                if not self._lanes.may_send():
                    await trio.sleep_forever()
                try:
                    socket.send_multipart((name, text), zmq.NOBLOCK)
                except zmq.Again:
                    continue
                self._tell_peers()
                return True
        return False

    # --- who reads ----------------------------------------------------------------------------------------

    def _tell_peers(self) -> None:
        report, peers = self._report, self._peers
        report.gauges["peers"] = peers.count
        report.gauges["refused"] = peers.refused
        if self._settings.mode != "push":
            report.state, report.reason = "up", ""
            return
        report.reconnects = max(0, peers.ever - len(self._settings.addresses))
        if peers.count:
            report.state, report.reason = "up", ""
        else:
            where = ", ".join(self._settings.addresses)
            report.state = "down" if peers.ever else "connecting"
            report.reason = f"no proxy answers at {where}"

    async def _watch_subscriptions(self, socket: zmq.Socket[bytes]) -> None:
        assert self._interest is not None, "only then is it run"
        while True:
            await wait(socket, zmq.POLLIN)
            self._read_subscriptions(socket, self._interest)
            await trio.lowlevel.checkpoint()

    def _read_subscriptions(self, socket: zmq.Socket[bytes], interest: Interest) -> None:
        if not ready(socket, zmq.POLLIN):
            return
        for _ in range(_TURN):
            try:
                frame = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if interest.take(frame):
                self._names.clear()
            if frame[:1] == b"\x01":
                self._newly.take(frame)
        self._report.gauges["subscriptions"] = len(interest)
        if len(self._newly):
            self._asked.set()

    # --- the present state --------------------------------------------------------------------------------

    async def _bring_up_to_date(self, socket: zmq.Socket[bytes]) -> None:
        """Send the present state of what was asked for, in rounds: a crowd that subscribes at once costs one."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            newly, self._newly = self._newly, Interest()
            await self._send_state(socket, newly)
            await trio.sleep(_SNAPSHOT_S)

    async def _repeat(self, every_s: float) -> None:
        while True:
            await trio.sleep(every_s)
            self._newly.take(b"\x01")
            self._asked.set()

    async def _send_state(self, socket: zmq.Socket[bytes], wanted: Interest) -> None:
        assert self._latest is not None, "only then is it run"
        put = _sender(socket)
        for topic in list(self._latest):
            name = topic.encode()
            if not wanted.wants(name):
                continue
            for text in self._latest.texts(topic, self._lanes.epoch):
                if not self._lanes.may_send():
                    return
                try:
                    put(name, _MORE)
                    put(text, _LAST)
                except zmq.Again:
                    return  # the proxy is behind already
            await trio.lowlevel.checkpoint()


def _sender(socket: zmq.Socket[bytes]) -> Callable[[bytes, int], object]:
    """Return what sends one part: the method beneath `Socket.send`, whose checks take twice as long as it does."""
    return super(zmq.Socket, socket).send
