"""What was asked of a venue on one connection, and what it answered.

Plain state that is told the time: the session sends what is due and says what came back. In the end each
stream is accepted or refused; what the venue leaves unanswered is asked for again.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import attrs
import structlog
import trio

from pricefeedd.codec import Accepted, Refused, Stream
from pricefeedd.errors import StaleFeedError
from pricefeedd.venue import Ack, Feed

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
        to_send: Yields what to send next: `subscribe` or `unsubscribe`, for which streams, and which try.
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
        self._again: deque[tuple[float, tuple[Stream, ...]]] = deque()
        self._queue, self.to_send = trio.open_memory_channel[tuple[str, tuple[Stream, ...], int]](QUEUE)

    # --- asking ----------------------------------------------------------------------------------------

    def again(self, streams: Iterable[Stream]) -> None:
        """Queue the end and a new beginning of those streams that are wanted still."""
        known = self.still_wanted(streams)
        if known:
            self._enqueue("unsubscribe", known)
            self._enqueue("subscribe", known)

    def still_wanted(self, streams: Iterable[Stream]) -> tuple[Stream, ...]:
        """Return those streams that were not refused meanwhile."""
        return tuple(stream for stream in streams if stream.name in self.wanted)

    def next_id(self) -> int:
        """Return a number for a request, unique on this connection."""
        return next(self._ids)

    def asked(self, request_id: int, streams: tuple[Stream, ...], tries: int, now: float) -> None:
        """Note that a request goes out now and owes an answer."""
        deadline = now + self._feed.ack_within_s
        self._requests[request_id] = _Request(streams, {s.name for s in streams}, deadline, tries)

    def taken(self, streams: Sequence[Stream]) -> tuple[Stream, ...]:
        """Take streams as accepted without a word of the venue; return those that were asked of us."""
        names = {stream.name for stream in streams}
        self.owed -= names
        return tuple(stream for stream in streams if stream.name in self.streams)

    def _enqueue(self, what: str, streams: tuple[Stream, ...], tries: int = 1) -> None:
        try:
            self._queue.send_nowait((what, streams, tries))
        except trio.WouldBlock:
            log.warning("subscribe queue full", venue=self._venue, feed=self._feed.name)

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
            elif signal.complete:
                # Asked for, answered with the whole set, and not in it: refused without a word, unless
                # the answer was to an earlier request. The deadline decides.
                request.tries = SUBSCRIBE_TRIES

    def _accept(self, request_id: int, request: _Request, streams: tuple[Stream, ...], now: float) -> None:
        request.waiting -= {stream.name for stream in streams}
        if not request.waiting:
            self._requests.pop(request_id, None)
        self.accepted_at = now
        mine = self.taken(streams)
        if mine:
            self.notes.append(StreamsAccepted(self._carrier, mine))

    def refused(self, signal: Refused) -> None:
        """Take the venue's no, and ask again for what was refused along with a bad stream."""
        request = self._requests.get(signal.request_id) if signal.request_id is not None else None
        names = set(signal.streams)
        if request is None and names:
            for request_id, candidate in self._requests.items():
                if names & candidate.waiting:
                    request = candidate
                    signal = attrs.evolve(signal, request_id=request_id)
                    break
        if request is None:
            for name in names:
                self.refuse(name, signal.reason)
            if not names:
                log.warning("venue refused something", venue=self._venue, reason=signal.reason)
            return
        if not names and len(request.waiting) > 1:
            # The venue does not say which one is bad: ask for each alone, so that the others are not hurt.
            self._requests.pop(signal.request_id or 0, None)
            for stream in request.streams:
                if stream.name in request.waiting:
                    self._enqueue("subscribe", (stream,))
            return
        for name in names or set(request.waiting):
            self.refuse(name, signal.reason)
            request.waiting.discard(name)
        rest = tuple(s for s in request.streams if s.name in request.waiting)
        if signal.others_lost or not rest:
            self._requests.pop(signal.request_id or 0, None)
            if rest:
                self._enqueue("subscribe", rest)

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
            del self._requests[request_id]
            waiting = tuple(s for s in request.streams if s.name in request.waiting)
            if request.tries < SUBSCRIBE_TRIES:
                self._enqueue("subscribe", waiting, request.tries + 1)
            elif self._feed.ack is Ack.REQUEST and flowing:
                log.warning("subscription not answered, but data flows", venue=self._venue)
                self._accept(request_id, request, waiting, now)
            elif len(self.owed) == len(self.wanted):
                # No word on any stream: it is the venue that is out of order, and not what we ask for.
                raise StaleFeedError("no subscription was answered", venue=self._venue)
            else:
                reason = "the venue did not answer the subscription"
                self.notes += [
                    StreamRefused(self._carrier, s, reason, final=False)
                    for s in waiting
                    if s.name in self.streams
                ]
                self.owed -= {s.name for s in waiting}
                self._again.append((now + ASK_AGAIN_S, waiting))
        while self._again and now >= self._again[0][0]:
            self._enqueue("subscribe", self._again.popleft()[1])


def requests(streams: Sequence[Stream], size: int) -> Iterator[tuple[Stream, ...]]:
    """Yield the streams in parts that may share a frame: of one group, and at most `size` each."""
    groups: dict[str, list[Stream]] = {}
    for stream in streams:
        groups.setdefault(stream.group, []).append(stream)
    for members in groups.values():
        for start in range(0, len(members), size):
            yield tuple(members[start : start + size])
