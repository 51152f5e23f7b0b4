"""What was asked of a venue on one connection, and what it answered.

Plain state that is told the time: the session sends what is due and says what came back. In the end each
stream is accepted or refused; what the venue leaves unanswered is asked for again.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence

import attrs
import structlog
import trio

from pricefeedd.codec import Accepted, Refused, Stream
from pricefeedd.errors import StaleFeedError
from pricefeedd.venue import Ack, Feed, Transport

log = structlog.get_logger("pricefeedd.subscriptions")

#: A subscribe frame that the venue did not answer is sent this often in all.
SUBSCRIBE_TRIES = 3
#: What was never answered while other streams flow is asked for again after this time.
ASK_AGAIN_S = 300.0
#: Frames that wait for the venue's pace; what is beyond is dropped with a warning.
QUEUE = 10_000


@attrs.frozen
class StreamsAccepted:
    """These streams flow on this connection from now on."""

    carrier: int
    streams: tuple[Stream, ...]


@attrs.frozen
class StreamRefused:
    """The venue will not serve this stream.

    Attributes:
        final: The venue said so; False if it only did not answer.
    """

    carrier: int
    stream: Stream
    reason: str
    final: bool = True


@attrs.define
class _Request:
    """A subscribe frame that waits for its answer."""

    streams: tuple[Stream, ...]
    waiting: set[str]
    deadline: float
    tries: int


class Subscriptions:
    """The streams of one connection.

    Attributes:
        streams: Those that were asked of us and not refused, by name.
        wanted: These, and the ones that the feed itself needs.
        owed: Names that the venue did not answer for yet, whether it was asked already or not.
        notes: Outcomes that nobody was told of yet.
        to_send: Yields what to send next: `subscribe` or `unsubscribe`, for which streams, and which try; or
            `changes`, for what `change` says.
        accepted_at: When a stream was last accepted, on Trio's clock; minus infinity before the first.
        last_refusal: Reason of the last refusal; empty before the first.
    """

    def __init__(self, carrier: int, *, venue: str, feed: Feed, streams: Iterable[Stream]) -> None:
        self.streams = {stream.name: stream for stream in streams}
        self.wanted = {stream.name: stream for stream in (*feed.always, *self.streams.values())}
        self.owed = set(self.wanted)
        self.notes: list[StreamsAccepted | StreamRefused] = []
        self.accepted_at = float("-inf")
        self.last_refusal = ""
        self._carrier = carrier
        self._venue = venue
        self._feed = feed
        self._ids = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._again: list[tuple[float, tuple[Stream, ...]]] = []
        # What came and went while other frames wait for the venue's pace: it shares frames.
        self._fresh: dict[str, Stream] = {}
        self._gone: dict[str, Stream] = {}
        self._changing = False
        self._answered = trio.lowlevel.ParkingLot()
        self._queue, self.to_send = trio.open_memory_channel[tuple[str, tuple[Stream, ...], int]](QUEUE)

    # --- asking ----------------------------------------------------------------------------------------

    def again(self, streams: Iterable[Stream]) -> None:
        """Queue the end and a new beginning of those streams that are wanted still."""
        known = self.still_wanted(streams)
        if known:
            self._enqueue("unsubscribe", known)
            self._enqueue("subscribe", known)

    def begin(self, *, apart: Collection[str] = ()) -> list[Stream]:
        """Return all that is wanted, and have it asked for, as the connection opens.

        Args:
            apart: Names of streams that are not to be asked for yet.
        """
        self._gone.clear()
        self._fresh = {name: stream for name, stream in self.wanted.items() if name not in apart}
        self._changed()
        return list(self.wanted.values())

    def in_path(self, streams: Sequence[Stream]) -> tuple[Stream, ...]:
        """Note that these were asked for by the connection's path; return those that are wanted still."""
        for stream in streams:
            self._fresh.pop(stream.name, None)
            if stream.name not in self.wanted:
                self._gone[stream.name] = stream  # dropped while the connection was being opened
        self._changed()
        return self.still_wanted(streams)

    def add(self, streams: Iterable[Stream]) -> None:
        """Have streams begun that are wanted from now on."""
        for stream in streams:
            self.streams[stream.name] = self.wanted[stream.name] = self._fresh[stream.name] = stream
            self.owed.add(stream.name)
        self._changed()

    def drop(self, streams: Iterable[Stream]) -> None:
        """Have streams ended that are wanted no longer; what was not asked for yet never is."""
        for stream in streams:
            self.streams.pop(stream.name, None)
            self.owed.discard(stream.name)
            known = self.wanted.pop(stream.name, None)
            if self._fresh.pop(stream.name, None) is None and known is not None:
                self._gone[stream.name] = stream
        self._changed()

    def carries(self, stream: Stream) -> bool:
        """Return whether the venue accepted this stream."""
        return stream.name in self.streams and stream.name not in self.owed

    def change(self) -> tuple[str, tuple[Stream, ...]]:
        """Return the next frame's worth of what came and went, ends before beginnings."""
        what, waiting = ("unsubscribe", self._gone) if self._gone else ("subscribe", self._fresh)
        first = next(iter(waiting.values()), None)
        same = (stream for stream in waiting.values() if first is not None and stream.group == first.group)
        part = tuple(itertools.islice(same, self._feed.streams_per_request))
        for stream in part:
            del waiting[stream.name]
        self._changing = False
        self._changed()
        return what, part

    def _changed(self) -> None:
        if (self._fresh or self._gone) and not self._changing:
            self._changing = self._enqueue("changes", ())

    def still_wanted(self, streams: Iterable[Stream]) -> tuple[Stream, ...]:
        """Return those streams that were neither refused nor dropped meanwhile."""
        return tuple(stream for stream in streams if stream.name in self.wanted)

    def named(self, name: str) -> tuple[Stream, ...]:
        """Return the stream of that name, if it is wanted still."""
        return tuple(stream for key, stream in self.wanted.items() if key == name)

    def next_id(self) -> int:
        """Return a number for a request, unique on this connection."""
        return next(self._ids)

    def asked(self, request_id: int, streams: tuple[Stream, ...], tries: int, now: float) -> None:
        """Note that a request goes out now and owes an answer."""
        deadline = now + self._feed.ack_within_s
        self._requests[request_id] = _Request(streams, {s.name for s in streams}, deadline, tries)

    async def room(self, most: int | None) -> None:
        """Wait until fewer than `most` requests wait for their answer; None for any number."""
        while most is not None and len(self._requests) >= most:
            await self._answered.park()

    def unanswered(self) -> list[str]:
        """Return the names of the streams whose requests wait for their answer."""
        return [name for request in self._requests.values() for name in request.waiting]

    def standing(self, stream: Stream, now: float) -> tuple[str, float | None]:
        """Return how a stream stands, and in how many seconds it is asked for again, where that is planned.

        It is `accepted`, `asked` (and not answered yet), `later` (put off, by the venue or for want of an answer), or
        `queued` (the venue's pace holds it up).
        """
        name = stream.name
        if self.carries(stream):
            return "accepted", None
        if name in self.unanswered():
            return "asked", None
        again = [due for due, streams in self._again if any(s.name == name for s in streams)]
        return ("later", max(0.0, min(again) - now)) if again else ("queued", None)

    def _done(self, request_id: int | None) -> None:
        if request_id is not None and self._requests.pop(request_id, None) is not None:
            self._answered.unpark_all()

    def taken(self, streams: Sequence[Stream]) -> tuple[Stream, ...]:
        """Take streams as accepted without a word of the venue; return those that were asked of us."""
        names = {stream.name for stream in streams}
        self.owed -= names
        return tuple(stream for stream in streams if stream.name in self.streams)

    def _enqueue(self, what: str, streams: tuple[Stream, ...], tries: int = 1) -> bool:
        if self._feed.transport is not Transport.WEBSOCKET:
            return False  # its streams stand in the path: only a new connection can ask again
        try:
            self._queue.send_nowait((what, streams, tries))
        except trio.WouldBlock:
            log.warning("subscribe queue full", venue=self._venue, feed=self._feed.name)
            return False
        return True

    # --- answers ---------------------------------------------------------------------------------------

    def accepted(self, signal: Accepted, now: float) -> None:
        """Take the venue's yes: to a request, to streams by name, or with the whole set of what flows."""
        if signal.request_id is not None:
            request = self._requests.get(signal.request_id)
            if request is not None and not signal.streams:
                self._accept(signal.request_id, request, request.streams, now)
                return
        names = set(signal.streams)
        for request_id, request in list(self._requests.items()):
            came = tuple(s for s in request.streams if s.name in names and s.name in request.waiting)
            if came:
                self._accept(request_id, request, came, now)
                if signal.complete:
                    self._leave_out(request_id, request)
            elif signal.complete and len(request.waiting) < len(request.streams):
                self._leave_out(request_id, request)
            elif signal.complete:
                # Asked for, answered with the whole set, and not in it: refused without a word, unless
                # the answer was to an earlier request. The deadline decides.
                request.tries = SUBSCRIBE_TRIES

    def _leave_out(self, request_id: int, request: _Request) -> None:
        """Take what a complete answer does not name as refused without a word."""
        for name in tuple(request.waiting):
            self.refuse(name, "left out of the venue's answer")
        self._done(request_id)

    def _accept(self, request_id: int, request: _Request, streams: tuple[Stream, ...], now: float) -> None:
        request.waiting -= {stream.name for stream in streams}
        if not request.waiting:
            self._done(request_id)
        self.accepted_at = now
        mine = self.taken(streams)
        if mine:
            self.notes.append(StreamsAccepted(self._carrier, mine))

    def refused(self, signal: Refused, now: float) -> None:
        """Take the venue's no, and ask again for what was refused along with a bad stream."""
        request = self._requests.get(signal.request_id) if signal.request_id is not None else None
        names = set(signal.streams)
        if request is None and names:
            for request_id, candidate in self._requests.items():
                if names & candidate.waiting:
                    request = candidate
                    signal = attrs.evolve(signal, request_id=request_id)
                    break
        if request is None and signal.request_id is None and not names and len(self._requests) == 1:
            # It says neither what nor why it was asked, and there is only one thing that it can be about.
            (request_id,) = self._requests
            request = self._requests[request_id]
            signal = attrs.evolve(signal, request_id=request_id)
        if signal.retry_after_s is not None and (request is not None or names):
            self._put_off(signal, request, now)
            return
        if request is None:
            for name in names:
                self.refuse(name, signal.reason)
            if not names and not signal.others_lost:
                log.warning("venue refused something", venue=self._venue, reason=signal.reason)
            return
        if not names and signal.others_lost:
            self._done(signal.request_id)
            self._enqueue("subscribe", tuple(s for s in request.streams if s.name in request.waiting))
            return
        if not names and len(request.waiting) > 1:
            # The venue does not say which one is bad: ask for each alone, so that the others are not hurt.
            self._done(signal.request_id)
            for stream in request.streams:
                if stream.name in request.waiting:
                    self._enqueue("subscribe", (stream,))
            return
        for name in names or set(request.waiting):
            self.refuse(name, signal.reason)
            request.waiting.discard(name)
        rest = tuple(s for s in request.streams if s.name in request.waiting)
        if signal.others_lost or not rest:
            self._done(signal.request_id)
            if rest:
                self._enqueue("subscribe", rest)

    def _put_off(self, signal: Refused, request: _Request | None, now: float) -> None:
        """Ask later for what the venue would not do just now."""
        names = set(signal.streams) or (set() if request is None else set(request.waiting))
        later = tuple(stream for name, stream in self.wanted.items() if name in names)
        if request is not None:
            request.waiting -= names
            if not request.waiting:
                self._done(signal.request_id)
        self._ask_later(later, signal.reason, now + (signal.retry_after_s or 0.0))

    def _ask_later(self, streams: tuple[Stream, ...], reason: str, due: float) -> None:
        """Ask again at that time; readers are told why they wait."""
        self.notes += [
            StreamRefused(self._carrier, stream, reason, final=False)
            for stream in streams
            if stream.name in self.streams
        ]
        self._again.append((due, streams))

    def refuse(self, name: str, reason: str) -> None:
        """Give a stream up for good."""
        self.owed.discard(name)
        self.wanted.pop(name, None)
        stream = self.streams.pop(name, None)
        if stream is not None:
            self.last_refusal = reason
            log.warning("subscription refused", venue=self._venue, stream=name, reason=reason)
            self.notes.append(StreamRefused(self._carrier, stream, reason))

    # --- no answer -------------------------------------------------------------------------------------

    def tick(self, now: float, *, flowing: bool) -> None:
        """Ask again for what was not answered in time, and in the end refuse it in the venue's stead.

        Args:
            flowing: Data came on this connection.

        Raises:
            StaleFeedError: The venue answered nothing at all.
        """
        for request_id, request in list(self._requests.items()):
            if now < request.deadline:
                continue
            self._done(request_id)
            waiting = self.still_wanted(s for s in request.streams if s.name in request.waiting)
            if not waiting:
                continue
            if request.tries < SUBSCRIBE_TRIES:
                self._enqueue("subscribe", waiting, request.tries + 1)
            elif self._feed.ack is Ack.REQUEST and flowing:
                log.warning("subscription not answered, but data flows", venue=self._venue)
                self._accept(request_id, request, waiting, now)
            elif len(self.owed) == len(self.wanted) and self.accepted_at == float("-inf"):
                # No word on any stream: it is the venue that is out of order, and not what we ask for.
                raise StaleFeedError("no subscription was answered", venue=self._venue)
            else:
                self.owed -= {s.name for s in waiting}
                reason = "the venue did not answer the subscription"
                self._ask_later(waiting, reason, now + ASK_AGAIN_S)
        for due in [entry for entry in self._again if now >= entry[0]]:
            self._again.remove(due)
            self._enqueue("subscribe", due[1])
