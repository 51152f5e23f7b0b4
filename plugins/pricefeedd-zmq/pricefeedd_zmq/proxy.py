"""The proxy: what several publishers push is published at one address, and counted on the way.

libzmq has a proxy of its own, but it forwards what it is given; what is no `[topic, json]` would reach every subscriber,
and nobody would know. Here each message is looked at, in the same time.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from functools import partial

import attrs
import structlog
import trio
import zmq

from pricefeedd_zmq.interest import Interest
from pricefeedd_zmq.sockets import SUBSCRIPTION_BYTES, AddressError, Options, Peers, attach, end, ready, wait

log = structlog.get_logger("pricefeedd.zmq")

#: Longest topic.
TOPIC_BYTES = 255
#: After so many messages the other tasks have their turn.
TURN = 256
#: Upper bounds of the buckets of `Counts.processing`, seconds; the last bucket has none.
BUCKETS_S = (2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 5e-4, 1e-3, 1e-2, 1e-1)
#: What was looked at for the health: so long ago, in steps.
_WINDOW_S, _STEP_S = 30.0, 5.0
#: At shutdown what already came is forwarded, within this time.
_FLUSH_S = 1.0

_MORE, _LAST, _NOW = int(zmq.SNDMORE | zmq.NOBLOCK), int(zmq.NOBLOCK), int(zmq.NOBLOCK)


@attrs.frozen(kw_only=True)
class ProxyOptions:
    """What the command line says.

    Attributes:
        pull: Where publishers push to.
        pub: Where subscribers connect to.
        high_water_mark: Most messages that wait for one subscriber; what is more is dropped.
        max_message_bytes: A larger message is dropped and counted.
        linger_ms: How long messages on their way are waited for at shutdown.
        secret_key: Of CURVE, for both sides; "" for none.
    """

    pull: tuple[str, ...]
    pub: tuple[str, ...]
    high_water_mark: int = 10_000
    max_message_bytes: int = 1_048_576
    linger_ms: int = 500
    ipv6: bool = False
    secret_key: str = ""


@attrs.define(kw_only=True)
class Counts:
    """What the proxy did so far.

    Attributes:
        received: Messages that came, good and bad.
        forwarded: Messages handed to the publishing socket.
        errors: Messages that were dropped, by reason.
        turns: How often something had come.
        full_turns: Turns that found more than they could take: the proxy is behind.
        queue_size: Messages that the last turn found waiting; at most `TURN` are looked at.
        processing: Messages by the time that each took, averaged over its turn, as buckets.
        processing_s: All of that time.
        last_message_ns: When a good message came last; None before the first.
    """

    received: int = 0
    forwarded: int = 0
    errors: dict[str, int] = attrs.field(factory=dict)
    turns: int = 0
    full_turns: int = 0
    queue_size: int = 0
    processing: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS_S) + 1))
    processing_s: float = 0.0
    last_message_ns: int | None = None

    def observe(self, messages: int, seconds: float) -> None:
        """Count the time of a turn."""
        each = seconds / messages
        self.processing[bisect_left(BUCKETS_S, each)] += messages
        self.processing_s += seconds

    @property
    def bad(self) -> int:
        """Messages that were dropped."""
        return sum(self.errors.values())


class Proxy:
    """PULL to XPUB.

    Attributes:
        counts: What it did so far.
        publishers: Who is connected to push.
        subscribers: Who is connected to read.
        interest: What they subscribed to.
        pull: Where publishers push to, once it is open; with the ports that the system chose.
        pub: Where subscribers connect to.
        began_ns: When it was made.
    """

    def __init__(self, options: ProxyOptions) -> None:
        """Open the sockets.

        Raises:
            AddressError: One of them cannot be.
        """
        self.counts = Counts()
        self.interest = Interest()
        self.began_ns = time.time_ns()
        self._options = options
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pull = self._context.socket(zmq.PULL)
        self._pub = self._context.socket(zmq.XPUB)
        self.publishers = Peers(self._pull)
        self.subscribers = Peers(self._pub)
        self._past: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)]
        common = partial(
            Options,
            high_water_mark=options.high_water_mark,
            ipv6=options.ipv6,
            secret_key=options.secret_key,
        )
        try:
            # Far above what is good, so that a large message is counted and a huge one ends its connection.
            common(receive_bytes=16 * options.max_message_bytes).apply(self._pull)
            common(receive_bytes=SUBSCRIPTION_BYTES).apply(self._pub)
            self._pub.setsockopt(zmq.XPUB_VERBOSE, 1)
            self.pull = attach(self._pull, options.pull, bind=True)
            self.pub = attach(self._pub, options.pub, bind=True)
        except AddressError:
            self._close(0)
            self._context.term()
            raise

    def _close(self, linger_ms: int) -> None:
        self.publishers.close(0)
        self.subscribers.close(linger_ms)

    @property
    def health_score(self) -> int:
        """From 100 down to 0: what share of the last half minute's messages was bad, and of its turns too full."""
        received, bad, turns, full = self._past[0]
        now = self._now()
        came, turned = now[0] - received, now[2] - turns
        score = 100.0
        if came:
            score -= 60 * (now[1] - bad) / came
        if turned:
            score -= 40 * (now[3] - full) / turned
        return round(score)

    def _now(self) -> tuple[int, int, int, int]:
        counts = self.counts
        return counts.received, counts.bad, counts.turns, counts.full_turns

    async def run(self, stop: trio.Event) -> None:
        """Forward until stopped, and then what had come before."""
        linger_ms = 0
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.publishers.watch, _nothing)
                nursery.start_soon(self.subscribers.watch, _nothing)
                nursery.start_soon(self._watch_subscriptions)
                nursery.start_soon(self._remember)
                nursery.start_soon(self._forward)
                await stop.wait()
                nursery.cancel_scope.cancel()
            deadline = time.monotonic() + _FLUSH_S
            while self._turn() and time.monotonic() < deadline:
                pass
            linger_ms = self._options.linger_ms
        finally:
            self._close(linger_ms)
            await end(self._context)

    async def _forward(self) -> None:
        while True:
            await wait(self._pull, zmq.POLLIN)
            while self._turn() == TURN:
                await trio.lowlevel.checkpoint()
            self._read_subscriptions()  # to send may have eaten the descriptor's news of them
            await trio.lowlevel.checkpoint()

    def _turn(self) -> int:
        """Forward what has come, up to a bound; return how many messages that were."""
        counts, most = self.counts, self._options.max_message_bytes
        # The methods beneath `Socket.send` and `Socket.recv`, whose checks take twice as long as they do.
        take = super(zmq.Socket, self._pull).recv
        put = super(zmq.Socket, self._pub).send
        option = self._pull.getsockopt
        more = int(zmq.RCVMORE)
        began = time.perf_counter()
        came = good = 0
        while came < TURN:
            try:
                topic = take(_NOW)
            except zmq.Again:
                break
            came += 1
            parts, text = 1, b""
            while option(more):
                text = take(_NOW)
                parts += 1
            wrong = _fault(topic, text, parts, most)
            if wrong:
                counts.errors[wrong] = counts.errors.get(wrong, 0) + 1
                continue
            put(topic, _MORE)
            put(text, _LAST)
            good += 1
        if came:
            counts.received += came
            counts.forwarded += good
            counts.turns += 1
            counts.full_turns += came == TURN
            counts.observe(came, time.perf_counter() - began)
        if good:
            counts.last_message_ns = time.time_ns()
        counts.queue_size = came
        return came

    async def _watch_subscriptions(self) -> None:
        while True:
            await wait(self._pub, zmq.POLLIN)
            self._read_subscriptions()
            await trio.lowlevel.checkpoint()

    def _read_subscriptions(self) -> None:
        for _ in range(TURN):
            if not ready(self._pub, zmq.POLLIN):
                return
            self.interest.take(self._pub.recv(zmq.NOBLOCK))

    async def _remember(self) -> None:
        """Keep the counts of the last half minute; log when bad messages begin to come."""
        warned = 0
        while True:
            await trio.sleep(_STEP_S)
            self._past = [*self._past, self._now()][-int(_WINDOW_S / _STEP_S) :]
            bad = self.counts.bad
            if bad > warned == self._past[0][1]:
                log.warning("bad messages dropped", dropped=bad - warned, reasons=dict(self.counts.errors))
            warned = bad


def _fault(topic: bytes, text: bytes, parts: int, most: int) -> str:
    """Return why a message is not forwarded; "" if it is."""
    if parts != 2:
        return "parts"
    if len(text) > most:
        return "too_large"
    if not 0 < len(topic) <= TOPIC_BYTES:
        return "topic"
    if not topic.isascii():
        try:
            topic.decode()
        except UnicodeDecodeError:
            return "topic"
    return ""


def _nothing() -> None:
    """Stand for what need not be told: metrics look when they are asked."""
