"""The line of a book topic: when a snapshot is needed, from where, and when the book may be believed."""

from __future__ import annotations

from typing import Any

from pricefeedd.book import BookSync, Broken, Standing, TooOld
from pricefeedd.events import BookDelta, BookSnapshot, Event, State
from pricefeedd.lines import SECOND_NS, Context, Line, WantBook, WantResubscribe
from pricefeedd.rules import Source

#: A stream that brought deltas and no snapshot for this long is joined to one by REST, where that is allowed.
SPLICE_AFTER_S = 3
#: Longest pause between two tries to get a broken book right by asking for its stream again.
MAX_PAUSE_S = 64


class BookLine(Line[BookSnapshot | BookDelta]):
    """One order book, kept by the venue's rule; nothing of it can be read while it is wrong.

    Where the snapshot comes from the stream, a book belongs to the connection that brought it. While a new
    connection takes over from an old one each has a book of its own; the old one's is served until it ends.

    Attributes:
        resyncs: How often the book was thrown away and made again.
    """

    def __init__(self, channel: str, instrument: str, context: Context) -> None:
        super().__init__(channel, instrument, context)
        rule = context.rules.book
        assert rule is not None, "a market that offers books has a rule for them"
        self.rule = rule
        self.resyncs = 0
        self.sync = BookSync(rule)
        self._own = rule.source is Source.STREAM
        self._source: int | None = None
        self._next: dict[int, BookSync] = {}
        self._wanted = False
        self._late = 0
        self._waiting_ns: int | None = None
        self._waits = 1
        self._newest: Event | None = None
        self._last: BookSnapshot | None = None
        # Asking for the stream again: how often it was in vain, when the last time was, and what waits.
        self._vain = 0
        self._asked_ns: int | None = None
        self._why = ""

    # --- connections ----------------------------------------------------------------------------------

    def begin(self, now_ns: int, out: list[Event]) -> None:
        """Start afresh: ask for a snapshot, unless the stream brought one before its ack."""
        if self.sync.standing is Standing.LIVE:
            super().begin(now_ns, out)
        elif not self._own:
            self._want_snapshot()

    def lost(self, carrier: int, state: State, reason: str, now_ns: int, out: list[Event]) -> None:
        """Note that a connection is gone; if its book was the one served, go on with another's."""
        self._next.pop(carrier, None)
        if carrier == self._source and self._next:
            self._source, self.sync = self._next.popitem()
            if self.sync.standing is Standing.LIVE and self._newest is not None:
                out.append(self.sync.current(self._newest))
                self.say(State.LIVE, "", now_ns, out)
            else:
                self.say(State.RESYNCING, reason, now_ns, out)
        super().lost(carrier, state, reason, now_ns, out)

    def end(self) -> None:
        """Forget the book: with the last connection gone it is worth nothing."""
        self.sync.reset()
        self._source = None
        self._last = None
        self._next.clear()
        self._why = ""

    def shift(self, by_ns: int) -> None:
        """Move what was noted by a clock that jumped."""
        super().shift(by_ns)
        if self._waiting_ns is not None:
            self._waiting_ns += by_ns
        if self._asked_ns is not None:
            self._asked_ns += by_ns

    # --- snapshots ------------------------------------------------------------------------------------

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Ask again for a snapshot that should be there by now, less and less often."""
        super().tick(now_ns, out)
        if self._why:
            self._resubscribe(self._why, now_ns)
        if not self.carriers or self.sync.standing is Standing.LIVE:
            self._waiting_ns = None
            self._waits = 1
        elif self._own:
            if self._waiting_ns is None:
                self._waiting_ns = now_ns
            waits_s = (now_ns - self._waiting_ns) / SECOND_NS
            if waits_s > SPLICE_AFTER_S and self.sync.buffered:
                self._want_snapshot()
            if waits_s > self.context.stale_after_s * self._waits:
                self._waiting_ns = now_ns
                self._waits = min(self._waits * 2, 64)
                self._resubscribe("no snapshot came", now_ns)

    def _resubscribe(self, reason: str, now_ns: int) -> None:
        """Ask for the stream again, now or when the last time is long enough ago."""
        if self._asked_ns is not None:
            pause_s = min(2**self._vain, MAX_PAUSE_S)
            since_s = (now_ns - self._asked_ns) / SECOND_NS
            if since_s < pause_s:
                self._why = reason
                return
            self._vain = self._vain + 1 if since_s < 2 * MAX_PAUSE_S else 0
        self._asked_ns = now_ns
        self._why = ""
        self.context.wants.append(
            WantResubscribe(channel=self.channel, instrument=self.instrument, reason=reason)
        )

    def _want_snapshot(self) -> None:
        if not self._wanted:
            self._wanted = True
            self.context.wants.append(WantBook(instrument=self.instrument, late=self._late))

    def fetched(self, snapshot: BookSnapshot | None, now_ns: int, out: list[Event]) -> None:
        """Take the snapshot that was wanted; None if it could not be had."""
        self._wanted = False
        if not self.carriers or (self._own and self.sync.standing is Standing.LIVE):
            return
        if snapshot is None:
            if not self._own:
                self._want_snapshot()
            return
        self._result(self.sync.snapshot(snapshot, fetched=True), now_ns, out)

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return what is known of it, and where the snapshot is to come from that it waits for."""
        waits_for = ""
        if self.sync.standing is not Standing.LIVE and self.carriers:
            waits_for = "snapshot_rest" if self._wanted else "snapshot_stream"
        return super().describe(now_ns) | {
            "sequence": self.sync.sequence,
            "waits_for": waits_for,
            "waits": self.sync.buffered,
            "resyncs": self.resyncs,
            "checksum": self.rule.checksum is not None,
            "late_snapshots": self._late,
        }

    # --- data -----------------------------------------------------------------------------------------

    def admit(self, event: BookSnapshot | BookDelta, out: list[Event], carrier: int = 0) -> None:
        """Take what the stream says of the book."""
        self.count += 1
        sync = self.sync
        if self._own and carrier != self._source:
            if self._source is None:
                self._source = carrier
            else:
                self._prepare(event, carrier)
                return
        if isinstance(event, BookSnapshot):
            # Venues that send whole books send them unchanged, too.
            same, self._last = self._is_last(event), event
            if same:
                self.duplicate()
                return
        else:
            self._last = None
        before = sync.stale
        result = sync.take(event)
        self._result(result, event.received_ns, out)
        stale = sync.stale - before
        self.duplicates += stale
        self.context.stats.duplicates += stale

    def _is_last(self, event: BookSnapshot) -> bool:
        last = self._last
        return (
            last is not None
            and self.state is State.LIVE
            and last.bids == event.bids
            and last.asks == event.asks
        )

    def _prepare(self, event: BookSnapshot | BookDelta, carrier: int) -> None:
        """Keep the book of a connection that is not yet in charge."""
        sync = self._next.get(carrier)
        if sync is None:
            sync = self._next[carrier] = BookSync(self.rule)
        result = sync.take(event)
        if isinstance(result, Broken):
            self._resubscribe(result.reason, event.received_ns)

    def _result(self, result: list[Event] | Broken | TooOld, now_ns: int, out: list[Event]) -> None:
        if isinstance(result, TooOld):
            self._late += 1
            self.say(State.RESYNCING, "snapshot is older than the stream", now_ns, out)
            self._want_snapshot()
            return
        if isinstance(result, Broken):
            self.resyncs += 1
            self.context.stats.resyncs += 1
            self.say(State.RESYNCING, result.reason, now_ns, out)
            if self._own:
                self._resubscribe(result.reason, now_ns)
            else:
                self._want_snapshot()
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
