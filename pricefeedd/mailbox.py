"""A reader's mailbox: what waits for it, in two lanes.

State (quote, ticker, price, the running candle) keeps only the newest of each topic while the reader lags;
events (trade, closed candle, status, ...) wait in order up to a bound. Both lanes share one order of arrival,
so that what a status says about a topic never moves to the other side of that topic's data. Books wait as
deltas up to a bound of their own and then restart with a snapshot.

While the reader keeps up nothing is replaced: messages lie in a plain list until the end of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

from pricefeedd.message import Lane, Message, Notice, Owing, conflated, lost

#: Names of this module: looking a member up on its enum costs as much as the rest of `offer`.
_EVENT, _STATE, _BOOK = Lane.EVENT, Lane.STATE, Lane.BOOK


def _no_rest(_: bytes, sent: int) -> None:
    """Stand for what a mailbox that sends nothing directly never calls."""


class Mailbox:
    """What waits for one reader.

    Attributes:
        fresh: Messages of the batch now being published; empty between batches.
        lagging: The reader has not taken what it was given before; from here on the lanes apply.
        direct: Sends bytes to the reader at once and returns how many went; None unless `fresh` may go there just so,
            as the frames of its messages.
        rest: Called with the bytes that `direct` was given and how many went, if not all did; -1 if it is broken.
        conflated: Messages replaced by newer ones, since the beginning.
        lost: Events dropped, since the beginning.
        waiting_bytes: Bytes that wait in both lanes.
    """

    __slots__ = (
        "_book_bytes",
        "_book_limit",
        "_conflates",
        "_dirty",
        "_dropped",
        "_event_bytes",
        "_limit",
        "_owed",
        "_passed_over",
        "_snapshot",
        "_waiting",
        "conflated",
        "direct",
        "flush",
        "fresh",
        "lagging",
        "lost",
        "rest",
    )

    def __init__(
        self,
        *,
        limit_bytes: int,
        snapshot: Callable[[str], Message | None],
        flush: Callable[[], None],
        dirty: list[Mailbox],
        conflates: bool = True,
    ) -> None:
        """Make an empty mailbox.

        Args:
            limit_bytes: Bound of the event lane. Books may take an eighth of it before they conflate.
            snapshot: Returns the present book of a topic; called when one is owed.
            flush: Called after each batch that put something into `fresh`; never waits and never raises.
            dirty: Where mailboxes note themselves for that.
            conflates: Whether newer state replaces older. If not, state waits in order as events do.
        """
        self.fresh: list[Message] = []
        self.lagging = False
        self.conflated = 0
        self.lost = 0
        self.flush = flush
        self.direct: Callable[[bytes], int] | None = None
        self.rest: Callable[[bytes, int], None] = _no_rest
        self._dirty = dirty
        self._conflates = conflates
        self._limit = limit_bytes
        self._book_limit = limit_bytes // 8
        self._snapshot = snapshot
        self._waiting: dict[object, Message] = {}
        self._event_bytes = 0
        self._book_bytes = 0
        # The first number of each topic that was replaced by a newer one.
        self._passed_over: dict[str, int] = {}
        # Runs of lost events by topic: first and last number, and how many. State that waits may lie between.
        self._dropped: dict[str, list[tuple[int, int, int]]] = {}
        self._owed: dict[str, Owing | None] = {}

    @property
    def waiting_bytes(self) -> int:
        """Bytes of events and books that wait; state is bounded by the number of topics."""
        return self._event_bytes + self._book_bytes

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.fresh or self._waiting or self._owed or self._dropped)

    def offer(self, message: Message) -> None:
        """Hand the message over now; never waits."""
        if self.lagging:
            self.keep(message)
        else:
            if not self.fresh:
                self._dirty.append(self)
            self.fresh.append(message)

    def lag(self) -> None:
        """Note that the reader did not take everything: what is fresh waits in the lanes from now on."""
        self.lagging = True
        fresh, self.fresh = self.fresh, []
        for message in fresh:
            self.keep(message)

    def take(self) -> list[Message | Notice]:
        """Return all that waits, in order of arrival, with notices of what was lost or replaced."""
        fresh = self.fresh
        if not self.lagging:
            self.fresh = []
            return fresh  # type: ignore[return-value]  # a list of Message read as one of Message | Notice
        out: list[Message | Notice] = []
        # Where the reader stands in topics of which something was passed over, and how much of that it knows.
        at = {
            topic: min([first, *(run[0] for run in self._dropped.get(topic, ()))]) - 1
            for topic, first in self._passed_over.items()
        }
        untold = dict.fromkeys(at, 0)
        for message in self._waiting.values():
            topic = message.topic
            while (runs := self._dropped.get(topic)) and runs[0][1] < message.seq:
                first, last, count = runs.pop(0)
                out.append(lost(topic, first, last, count))
                if topic in at:
                    untold[topic] += last - at[topic] - count
                    at[topic] = last
            if topic in at:
                before = message.seq - 1 if message.previous is None else message.previous
                dropped = before - at[topic] + untold[topic]
                if dropped > 0:
                    out.append(conflated(topic, message.seq, dropped))
                    untold[topic] = 0
                at[topic] = message.seq
            out.append(message)
        out += [lost(topic, *run) for topic, runs in self._dropped.items() for run in runs]
        for topic, view in self._owed.items():
            book = self._snapshot(topic) if view is None else view.snapshot()
            if book is not None:
                if book.seq > at[topic]:
                    out.append(conflated(topic, book.seq, book.seq - at[topic]))
                out.append(book)
        self._waiting = {}
        self._dropped = {}
        self._passed_over = {}
        self._owed = {}
        self._event_bytes = self._book_bytes = 0
        return out

    def clear(self) -> None:
        """Drop all that waits, for a reader that has gone.

        Whatever still points at the mailbox, such as a task or an error that is not collected yet, then holds none of it:
        a reader that was too slow leaves megabytes.
        """
        self.fresh.clear()
        self._waiting.clear()
        self._passed_over.clear()
        self._dropped.clear()
        self._owed.clear()
        self._event_bytes = self._book_bytes = 0

    def forget(self, *topics: str) -> None:
        """Drop what waits for the topics: the reader unsubscribed them."""
        gone = set(topics)
        if self.fresh:
            self.fresh = [m for m in self.fresh if m.topic not in gone]
        for message in [m for m in self._waiting.values() if m.topic in gone]:
            self._remove(message)
        for topic in topics:
            self._passed_over.pop(topic, None)
            self._dropped.pop(topic, None)
            self._owed.pop(topic, None)

    def keep(self, message: Message) -> None:
        """Let a message wait in its lane."""
        lane = message.lane
        if lane is _STATE and self._conflates:
            replaced = self._waiting.pop(message.topic, None)
            if replaced is not None:
                self._passed_over.setdefault(message.topic, replaced.seq)
                self.conflated += 1
            self._waiting[message.topic] = message
        elif lane is not _BOOK:
            self._waiting[message] = message
            self._event_bytes += len(message.text)
            if self._event_bytes > self._limit:
                self._drop_oldest_events()
        else:
            self._keep_book(message)

    def _keep_book(self, message: Message) -> None:
        topic = message.topic
        if topic in self._owed:
            self.conflated += 1
            return
        self._waiting[message] = message
        self._book_bytes += len(message.text)
        if self._book_bytes > self._book_limit:
            queued = [m for m in self._waiting.values() if m.lane is _BOOK and m.topic == topic]
            for stale in queued:
                self._remove(stale)
            self._owed[topic] = message.view
            self._passed_over[topic] = queued[0].seq
            self.conflated += len(queued)

    def _drop_oldest_events(self) -> None:
        """Drop a tenth of the events, the oldest: to look for one with each that comes would cost more than they do."""
        enough, size = self._limit - self._limit // 10, self._event_bytes
        gone = []
        for message in self._waiting.values():
            if size <= enough:
                break
            if message.lane is _EVENT or (message.lane is _STATE and not self._conflates):
                gone.append(message)
                size -= len(message.text)
        for message in gone:
            self._remove(message)
            self._note_lost(message)
        self.lost += len(gone)

    def _note_lost(self, message: Message) -> None:
        """Add an event to the last run of its topic, or begin another where something waits between the two."""
        topic, seq = message.topic, message.seq
        runs = self._dropped.setdefault(topic, [])
        state = self._waiting.get(topic)
        waiting = [state.seq] if state is not None else []
        if message.topic.startswith("book:"):
            waiting = [m.seq for m in self._waiting.values() if m.topic == topic]
        runs.append((seq - message.span + 1, seq, message.span))
        while len(runs) > 1 and not any(runs[-2][1] < number < runs[-1][0] for number in waiting):
            (first, _, count), (_, last, more) = runs[-2:]
            runs[-2:] = [(first, last, count + more)]

    def _remove(self, message: Message) -> None:
        if message.lane is _STATE and self._conflates:
            del self._waiting[message.topic]
            return
        del self._waiting[message]
        if message.lane is _BOOK:
            self._book_bytes -= len(message.text)
        else:
            self._event_bytes -= len(message.text)
