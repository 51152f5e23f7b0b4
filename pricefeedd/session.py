"""One connection with a venue: connect, log in, subscribe, watch, and end with a reason.

A session knows no venue: the codec speaks, the feed says what the venue allows. What arrives goes in
batches to the venue's channel; the session waits there when we are short of CPU, and then so does the socket.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
import structlog
import trio

from pricefeedd.backfill import allowed
from pricefeedd.codec import (
    Accepted,
    Closing,
    Codec,
    Count,
    Failed,
    LoggedIn,
    LoginRefused,
    Refused,
    Reply,
    Signal,
    Stream,
)
from pricefeedd.errors import (
    ConnectError,
    ConnectionLostError,
    DecodeError,
    LoginRejectedError,
    SequenceGapError,
    StaleFeedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import AccountEvent, Event
from pricefeedd.frames import SHOWN, readable
from pricefeedd.limits import Bucket
from pricefeedd.stats import BadFrame, MarketStats
from pricefeedd.subscriptions import (
    SUBSCRIBE_TRIES,
    StreamRefused,
    StreamsAccepted,
    Subscriptions,
)
from pricefeedd.transport import Dialer, HandshakeRefusedError, Socket, open_event_stream, open_websocket
from pricefeedd.venue import Account, Ack, Budget, Feed, Transport

log = structlog.get_logger("pricefeedd.session")

CONNECT_S = 10.0
#: What `Session.describe` would say of a connection that has none yet.
NO_SESSION: Final[Mapping[str, Any]] = {
    "open_s": None,
    "silent": False,
    "retiring": False,
    "unanswered": 0,
    "asks_in_s": 0.0,
    "last_frame_s": None,
    "last_ping_s": None,
    "last_frame": None,
}
LOGIN_S = 10.0

_SIGNALS = frozenset({Accepted, Refused, Reply, Closing, Failed, Count, LoggedIn, LoginRefused})


# --- What a session says to its venue's loop ---------------------------------------------------------------


@attrs.frozen
class Batch:
    """Events of one read, in the venue's order."""

    carrier: int
    events: list[Event]


Item = Batch | StreamsAccepted | StreamRefused

#: Given what happened (`open`, `<` received, `>` sent, `close`), the feed's name, the connection's number
#: and the frame: for recordings.
Tap = Callable[[str, str, int, bytes], None]


@attrs.frozen(kw_only=True)
class Link:
    """What a session needs of the world; shared by all sessions of a feed.

    Attributes:
        url: Base URL of the feed's endpoint.
        names: Our names by the venue's symbol.
        emit: Takes what the session says, and waits while there is no room.
        bucket: What each of our subscribe frames draws 1 from; None for nothing.
        account: Whose private feed it is; None for public data.
        tap: Sees each frame, for recordings; None for none.
        ahead_ns: How far the venue's clock is ahead of ours, for the times that credentials bear.
    """

    venue: str
    codec: Codec
    feed: Feed
    url: str
    names: Mapping[str, str]
    dialer: Dialer
    stats: MarketStats
    now_ns: Callable[[], int]
    emit: Callable[[Item], Awaitable[None]]
    account: Account | None = None
    bucket: Bucket | None = None
    tap: Tap | None = None
    patience_s: float = 30.0
    ahead_ns: int = 0

    def hide(self, text: str) -> str:
        """Return a text of the venue's without our credentials."""
        return text if self.account is None else self.account.hide(text)


def belong(said: Iterable[Event | Signal], account: Account) -> None:
    """Note whose the events of one frame or answer are, and that they came together."""
    trace_id = uuid.uuid4().hex
    for event in said:
        if isinstance(event, AccountEvent):
            event.account = account.name  # not shared with anybody yet
            event.trace_id = trace_id


_carriers = itertools.count(1)


class Session:
    """One connection, from handshake to end.

    Attributes:
        carrier: Number of this connection, unique in the process.
        flowing: Data came: the connection is worth something. That of an account is once all was answered.
        settled: All streams were answered and data came, or nothing more is to be expected soon.
        retiring: The connection should be replaced soon: its lifetime ends, or the venue said so.
        silent: It ended because it was accepted and never brought anything.
        opened: The venue took the connection.
        over: The connection ended.
        newest: The last frame of the last read.
    """

    def __init__(
        self,
        link: Link,
        streams: Iterable[Stream],
        *,
        path: str,
        patience: float = 1.0,
        suspects: Collection[str] = (),
    ) -> None:
        """Prepare a connection.

        Args:
            streams: What to subscribe.
            patience: How many times longer than usual accepted streams may stay silent.
            suspects: Names of streams that may be why earlier connections ended: asked for last, one by one.
        """
        self.link = link
        self.carrier = next(_carriers)
        self.path = path
        self.opened = False
        self.over = False
        self.flowing = trio.Event()
        self.settled = trio.Event()
        self.retiring = trio.Event()
        self.silent = False
        self._patience_s = link.patience_s * patience
        self._subscriptions = Subscriptions(self.carrier, venue=link.venue, feed=link.feed, streams=streams)
        self._suspects = suspects
        self._buckets = [] if link.bucket is None else [link.bucket]
        if link.feed.requests_per_hour is not None:
            self._buckets.append(
                Bucket(Budget(name="requests", capacity=link.feed.requests_per_hour, per_s=3600, reserve=0))
            )
        self._logged_in = trio.Event()
        self._count: int | None = None
        self.newest = b""
        self._newest_at = 0.0
        self._last_frame = 0.0
        self._pinged_at: float | None = None
        self._opened_at = 0.0
        self._doomed = ""

    # --- what others may ask ---------------------------------------------------------------------------

    def resubscribe(self, streams: Iterable[Stream]) -> None:
        """End and begin these streams again, as soon as the venue's pace allows."""
        if self.link.feed.transport is Transport.WEBSOCKET:
            self._subscriptions.again(streams)

    def add(self, streams: Iterable[Stream]) -> None:
        """Carry these streams as well; a connection whose streams stand in its path is replaced for it."""
        streams = tuple(streams)
        if not streams:
            return
        if self.link.feed.transport is Transport.WEBSOCKET:
            self._subscriptions.add(streams)
        else:
            self.retiring.set()

    def drop(self, streams: Iterable[Stream]) -> None:
        """Carry these streams no longer; a connection whose streams stand in its path is replaced for it."""
        streams = tuple(streams)
        if not streams:
            return
        if self.link.feed.transport is Transport.WEBSOCKET:
            self._subscriptions.drop(streams)
        else:
            self.retiring.set()

    def carry(self, streams: Iterable[Stream]) -> None:
        """Carry just these streams, whatever was added and dropped meanwhile."""
        wanted = {stream.name: stream for stream in streams}
        now = self._subscriptions.streams
        self.drop([stream for name, stream in now.items() if name not in wanted])
        self.add([stream for name, stream in wanted.items() if name not in now])

    def carries(self, stream: Stream) -> bool:
        """Return whether this stream flows here: the venue accepted it, and the connection is open."""
        return self.opened and not self.over and self._subscriptions.carries(stream)

    def unanswered(self) -> list[str]:
        """Return the names of the streams that were asked for and not answered."""
        return self._subscriptions.unanswered()

    def standing(self, stream: Stream, now: float) -> tuple[str, float | None]:
        """Return how a stream stands: see `Subscriptions.standing`."""
        return self._subscriptions.standing(stream, now)

    def describe(self, now: float) -> dict[str, Any]:
        """Return how the connection is; the times are seconds ago."""
        open_ = self.opened and not self.over
        told = bool(self.newest)
        return {
            "open_s": round(now - self._opened_at, 1) if open_ else None,
            "silent": self.silent,
            "retiring": self.retiring.is_set(),
            "unanswered": len(self.unanswered()),
            "asks_in_s": max((bucket.describe(now)["wait_s"] for bucket in self._buckets), default=0.0),
            "last_frame_s": round(now - self._last_frame, 1) if open_ else None,
            "last_ping_s": None if self._pinged_at is None else round(now - self._pinged_at, 1),
            "last_frame": {
                "age_s": round(now - self._newest_at, 1),
                "bytes": len(self.newest),
                "text": self.link.hide(readable(self.newest))[:SHOWN],
            }
            if told
            else None,
        }

    @property
    def accepting(self) -> bool:
        """Whether the venue accepted anything on this connection."""
        return self._subscriptions.accepted_at > float("-inf")

    def doom(self, reason: str) -> None:
        """End the session within a second: its data cannot be believed any more."""
        self._doomed = reason

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until the connection ends.

        Raises:
            VenueError: Why it ended; it never ends without a reason.
        """
        link, feed = self.link, self.link.feed
        account = link.account
        wanted = self._subscriptions.begin()
        opening = link.codec.open(feed, wanted, path=self.path, now_ns=link.now_ns(), account=account)
        connect = open_websocket if feed.transport is Transport.WEBSOCKET else open_event_stream
        try:
            with trio.fail_after(CONNECT_S):
                socket = await connect(
                    link.dialer,
                    link.url,
                    opening.path,
                    headers=opening.headers,
                    max_message_bytes=feed.max_message_bytes,
                )
        except trio.TooSlowError:
            raise ConnectError(
                f"{link.url} did not answer the handshake within {CONNECT_S:.0f} s", venue=link.venue
            ) from None
        except HandshakeRefusedError as e:
            error = self._refused(e)
            await self._tell()
            raise error from e
        link.stats.connections += 1
        if link.tap is not None:
            link.tap("open", feed.name, self.carrier, b"")
        self.opened = True
        self._last_frame = self._opened_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, socket, name=f"read:{feed.name}:{self.carrier}")
                nursery.start_soon(self._watch, socket, name=f"watch:{feed.name}:{self.carrier}")
                speak = partial(self._speak, socket, wanted, subscribed=opening.subscribed)
                nursery.start_soon(speak, name=f"speak:{feed.name}:{self.carrier}")
        finally:
            self.over = True
            link.stats.connections -= 1
            if link.tap is not None:
                link.tap("close", feed.name, self.carrier, b"")
            await socket.aclose()

    def _refused(self, error: HandshakeRefusedError) -> VenueError:
        """Return what an HTTP answer to the handshake stands for."""
        for signal in self.link.codec.refused(self.link.feed, error.reply):
            if isinstance(signal, Refused):
                for name in signal.streams:
                    self._subscriptions.refuse(name, signal.reason)
                return ConnectError(signal.reason, venue=self.link.venue)
            if isinstance(signal, LoginRefused):
                return LoginRejectedError(signal.reason, venue=self.link.venue)
            if isinstance(signal, Failed):
                return ConnectError(signal.reason, venue=self.link.venue, retry_after_s=signal.retry_after_s)
        if error.reply.status == 401:
            return LoginRejectedError(str(error), venue=self.link.venue)
        return ConnectError(str(error), venue=self.link.venue, retry_after_s=error.retry_after_s)

    # --- reading ---------------------------------------------------------------------------------------

    async def _read(self, socket: Socket) -> None:
        """Read, decode and hand on, for ever: the hot path."""
        link = self.link
        stats, feed, names, tap = link.stats, link.feed, link.names, link.tap
        decode = link.codec.decode
        account = link.account
        while True:
            frames = await socket.receive()
            self._last_frame = trio.current_time()
            if not frames:
                continue
            self.newest, self._newest_at = frames[-1], self._last_frame
            now_ns = link.now_ns()
            events: list[Event] = []
            for frame in frames:
                if tap is not None:
                    tap("<", feed.name, self.carrier, frame)
                try:
                    said = decode(frame, feed=feed, names=names, received_ns=now_ns)
                except DecodeError as e:
                    stats.misunderstood(
                        BadFrame(at_ns=now_ns, feed=feed.name, reason=link.hide(str(e)), frame=frame[:2000])
                    )
                    continue
                if account is not None:
                    belong(said, account)
                for item in said:
                    if item.__class__ not in _SIGNALS:
                        events.append(item)  # type: ignore[arg-type]  # what is no signal is an event
                        continue
                    try:
                        await self._signal(socket, item)  # type: ignore[arg-type]  # told by its class
                    except VenueError:
                        # What came before it in this read is good.
                        await self._hand_on(events)
                        raise
            stats.messages += len(frames)
            stats.bytes += sum(map(len, frames))
            stats.last_message_ns = now_ns
            if events or self._subscriptions.notes:
                await self._hand_on(events)

    async def _hand_on(self, events: list[Event]) -> None:
        if self._subscriptions.notes:
            await self._tell()
        if events:
            if not self.flowing.is_set():
                self.flowing.set()
                self._settle()
            await self.link.emit(Batch(self.carrier, events))

    async def _tell(self) -> None:
        notes, self._subscriptions.notes = self._subscriptions.notes, []
        for note in notes:
            await self.link.emit(note)

    async def _signal(self, socket: Socket, signal: Signal) -> None:
        """Do what a frame asks for."""
        venue = self.link.venue
        match signal:
            case Reply(frame):
                await socket.send(frame)
            case Accepted():
                self._subscriptions.accepted(signal, trio.current_time())
                self._settle()
            case Refused():
                self._subscriptions.refused(signal, trio.current_time())
                self._settle()
            case Closing(reason):
                log.info("venue will close the connection", venue=venue, reason=reason)
                self.retiring.set()
            case Count(number):
                last = self._count
                if last is not None and number > last + 1:
                    raise SequenceGapError(
                        f"frames lost: expected number {last + 1}, got {number}", venue=venue
                    )
                if last is not None and number <= last:
                    self.link.stats.duplicates += 1
                else:
                    self._count = number
            case Failed(reason, retry_after_s):
                raise ConnectionLostError(reason, venue=venue, retry_after_s=retry_after_s)
            case LoggedIn():
                self._logged_in.set()
            case LoginRefused(reason):
                raise LoginRejectedError(self.link.hide(reason), venue=venue)

    def _settle(self) -> None:
        if self._subscriptions.owed:
            return
        if self.link.feed.private and self.accepting:
            self.flowing.set()  # an account may have nothing to say for days
        if self.flowing.is_set():
            self.settled.set()

    # --- speaking --------------------------------------------------------------------------------------

    async def _speak(self, socket: Socket, streams: Sequence[Stream], *, subscribed: bool) -> None:
        """Log in, subscribe, and later resubscribe, at the venue's pace.

        Args:
            streams: What was wanted when the connection was opened.
            subscribed: They stood in the path.
        """
        link, feed = self.link, self.link.feed
        if feed.private and link.account is not None:
            await self._log_in(socket, link.account)
        subscriptions = self._subscriptions
        if subscribed:
            wanted = subscriptions.in_path(streams)
            if feed.ack is Ack.STREAM:
                subscriptions.asked(0, wanted, SUBSCRIBE_TRIES, trio.current_time())
            else:
                mine = subscriptions.taken(wanted)
                self._settle()
                await link.emit(StreamsAccepted(self.carrier, mine))
        elif self._suspects:
            await self._ask_alone(socket)
        async for what, asked, tries in subscriptions.to_send:
            await subscriptions.room(feed.requests_in_flight)
            if what == "changes":
                await self._ask(socket, *subscriptions.change())
            else:
                await self._ask(socket, what, subscriptions.still_wanted(asked), tries)

    async def _ask_alone(self, socket: Socket) -> None:
        """Ask for what is trusted, and then for each suspect."""
        subscriptions, feed = self._subscriptions, self.link.feed
        subscriptions.begin(apart=self._suspects)
        while True:
            await subscriptions.room(feed.requests_in_flight)
            what, part = subscriptions.change()
            if not part:
                break
            await self._ask(socket, what, part)
        for name in self._suspects:
            await subscriptions.room(1)
            await self._ask(socket, "subscribe", subscriptions.named(name))

    async def _log_in(self, socket: Socket, account: Account) -> None:
        link = self.link
        if await self._send_login(socket, account):
            try:
                with trio.fail_after(LOGIN_S):
                    await self._logged_in.wait()
            except trio.TooSlowError:
                raise ConnectError(
                    f"no answer to the login within {LOGIN_S:.0f} s", venue=link.venue
                ) from None

    async def _send_login(self, socket: Socket, account: Account) -> bool:
        link = self.link
        frames = link.codec.login(link.feed, now_ns=link.now_ns() + link.ahead_ns, account=account)
        for frame in frames:
            await socket.send(frame)
        return bool(frames)

    async def _ask(self, socket: Socket, what: str, streams: tuple[Stream, ...], tries: int = 1) -> None:
        # Only `_speak` asks, so this is all that keeps the venue's pace.
        if not streams:
            return
        await self._send_request(socket, what, streams, tries)
        await trio.sleep(self.link.feed.request_interval_s)

    async def _send_request(self, socket: Socket, what: str, streams: tuple[Stream, ...], tries: int) -> None:
        link, feed = self.link, self.link.feed
        for bucket in self._buckets:
            await allowed(partial(bucket.take, 1.0))
        request_id = self._subscriptions.next_id()
        make = link.codec.subscribe if what == "subscribe" else link.codec.unsubscribe
        now_ns = link.now_ns() + link.ahead_ns
        frame = make(feed, streams, request_id=request_id, now_ns=now_ns, account=link.account)
        if what == "subscribe" and feed.ack is not Ack.NONE:
            self._subscriptions.asked(request_id, streams, tries, trio.current_time())
        if link.tap is not None:
            link.tap(">", feed.name, self.carrier, frame.encode() if isinstance(frame, str) else frame)
        await socket.send(frame)
        if what == "subscribe" and feed.ack is Ack.NONE:
            mine = self._subscriptions.taken(streams)
            self._settle()
            if mine:
                await link.emit(StreamsAccepted(self.carrier, mine))

    # --- watching --------------------------------------------------------------------------------------

    async def _watch(self, socket: Socket) -> None:
        """Ping, and end the session when the connection is dead, silent or too old."""
        feed, subscriptions = self.link.feed, self._subscriptions
        born = trio.current_time()
        # Jitter, so that the connections of one start do not all go at one time.
        retire_at = born + feed.lifetime_s * random.uniform(0.95, 1.0) if feed.lifetime_s else float("inf")
        ping_at = born + feed.ping_interval_s if feed.ping_interval_s else float("inf")
        while True:
            now = trio.current_time()
            if now >= ping_at:
                frame = self.link.codec.ping(feed, now_ns=self.link.now_ns())
                # A ping that cannot be sent within the silence allowed means the same as no answer.
                # Nothing can be sent behind it either: part of it may be on its way.
                with trio.move_on_after(feed.silence_s) as scope:
                    await (socket.ping() if frame is None else socket.send(frame))
                if scope.cancelled_caught:
                    raise StaleFeedError(
                        f"the venue took no ping for {feed.silence_s:.0f} s", venue=self.link.venue
                    )
                self._pinged_at = now
                ping_at = now + (feed.ping_interval_s or 0)
            if now - self._last_frame > feed.silence_s:
                raise StaleFeedError(
                    f"no frame of any kind for {now - self._last_frame:.0f} s", venue=self.link.venue
                )
            if self._doomed:
                raise StaleFeedError(self._doomed, venue=self.link.venue)
            if subscriptions.last_refusal and not subscriptions.streams:
                raise SubscriptionRejectedError(
                    f"all subscriptions were refused: {subscriptions.last_refusal}", venue=self.link.venue
                )
            quiet_s = now - max(self._opened_at, subscriptions.accepted_at)
            if quiet_s > self._patience_s and not (
                subscriptions.owed or self.flowing.is_set() or feed.private
            ):
                # All streams are accepted and none of them speaks: a dead route, or a very quiet market.
                # An account may rightly be silent for as long as nothing is traded on it.
                self.silent = True
                raise StaleFeedError(
                    f"subscriptions were accepted, but no data came for {quiet_s:.0f} s",
                    venue=self.link.venue,
                )
            if now >= retire_at:
                self.retiring.set()
            subscriptions.tick(now, flowing=self.flowing.is_set())
            await self._tell()
            self._settle()
            await trio.sleep(1.0)
