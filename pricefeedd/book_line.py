"""The line of a book topic: when a snapshot is needed, from where, and when the book may be believed."""

from __future__ import annotations

from pricefeedd.book import BookSync, Broken, Standing, TooOld
from pricefeedd.events import BookDelta, BookSnapshot, Event, State
from pricefeedd.lines import SECOND_NS, Context, Line, WantBook, WantResubscribe
from pricefeedd.rules import Source


class BookLine(Line[BookSnapshot | BookDelta]):
    """One order book, kept by the venue's rule; nothing of it can be read while it is wrong."""

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        rule = context.rules.book
        assert rule is not None, "a market that offers books has a rule for them"
        self.sync = BookSync(rule)
        self._wanted = False
        self._late = 0
        self._waiting_ns: int | None = None
        self._waits = 1
        self._newest: Event | None = None

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh: ask for a snapshot, unless the stream brought one before its ack."""
        if self.sync.standing is Standing.LIVE:
            super().begin(now_ns, out)
        else:
            self._want_snapshot()

    def end(self) -> None:
        """Forget the book: with the last connection gone it is worth nothing."""
        self.sync.reset()

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Ask again for a snapshot that the stream should have brought by now, less and less often."""
        super().tick(now_ns, out)
        if not self.carriers or self.sync.standing is Standing.LIVE:
            self._waiting_ns = None
            self._waits = 1
        elif self.sync.rule.source is Source.STREAM:
            if self._waiting_ns is None:
                self._waiting_ns = now_ns
            elif now_ns - self._waiting_ns > self.context.stale_after_s * self._waits * SECOND_NS:
                self._waiting_ns = now_ns
                self._waits = min(self._waits * 2, 64)
                self._resubscribe("no snapshot came")

    def _resubscribe(self, reason: str) -> None:
        self.context.wants.append(
            WantResubscribe(channel=self.channel, instrument=self.instrument, reason=reason)
        )

    def _want_snapshot(self) -> None:
        if not self._wanted and self.sync.rule.source is Source.REST:
            self._wanted = True
            self.context.wants.append(WantBook(instrument=self.instrument, late=self._late))

    def admit(self, event: BookSnapshot | BookDelta, out: list[Event]) -> None:
        """Take what the stream says of the book."""
        self.count += 1
        before = self.sync.stale
        if isinstance(event, BookSnapshot):
            self._result(self.sync.snapshot(event), event.received_ns, out)
        else:
            self._result(self.sync.delta(event), event.received_ns, out)
        self.context.stats.duplicates += self.sync.stale - before

    def fetched(self, snapshot: BookSnapshot | None, now_ns: int, out: list[Event]) -> None:
        """Take the snapshot that was wanted; None if it could not be had."""
        self._wanted = False
        if snapshot is None or not self.carriers:
            if self.carriers:
                self._want_snapshot()
            return
        self._result(self.sync.snapshot(snapshot), now_ns, out)

    def _result(self, result: list[Event] | Broken | TooOld, now_ns: int, out: list[Event]) -> None:
        if isinstance(result, TooOld):
            self._late += 1
            self.say(State.RESYNCING, "snapshot is older than the stream", now_ns, out)
            self._want_snapshot()
            return
        if isinstance(result, Broken):
            self.context.stats.resyncs += 1
            self.say(State.RESYNCING, result.reason, now_ns, out)
            if self.sync.rule.source is Source.REST:
                self._want_snapshot()
            else:
                self._resubscribe(result.reason)
            return
        if result and self.sync.standing is Standing.LIVE and self.state is not State.LIVE:
            self._late = 0
            self.say(State.LIVE, "", now_ns, out)
        if result:
            self._newest = result[-1]
            out += result

    def revived(self, now_ns: int, out: list[Event]) -> None:
        """Data came on a stale book: it is live if its sequence held."""
        if self.sync.standing is Standing.LIVE:
            self.say(State.LIVE, "", now_ns, out)

    def current(self) -> BookSnapshot | None:
        """Return the present book; None while there is none that can be believed."""
        if self.sync.standing is not Standing.LIVE or self._newest is None:
            return None
        return self.sync.current(self._newest)
