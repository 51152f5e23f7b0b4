"""What a reader knows of its topics: where each stands, what it missed, and its book. No I/O, no clock.

Within an epoch each message of a topic is let through once and in order. What a jump means depends on the
channel: of trades, liquidations and accounts every message is an event, and a jump that the daemon did not
announce is a loss. Of the others a newer state may stand for older ones: the daemon announces it with
`conflated`, which may come after a status that stood in between, so such a jump is a doubt until the next
state or heartbeat. A book's snapshot ends all doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from pricefeedd.book import Book
from pricefeedd.client.updates import Missed, Update, update_of
from pricefeedd.events import BOOK_GONE, PRIVATE_CHANNELS, BookDelta, BookSnapshot, Candle, State, Status
from pricefeedd.topic import Pattern

#: Of these every message is an event, kept in order and never conflated.
_EVENT_CHANNELS = ("trade", "liquidation", *PRIVATE_CHANNELS)

#: Messages that tell how a topic stands when it is begun: the newest data, its status, what came last.
_INTRODUCTION = 3


@attrs.define
class _Track:
    """One topic.

    Attributes:
        name: `channel:venue:instrument`.
        epoch: That `seq` belongs to.
        seq: The newest number; None before the first.
        told_to: What up to here was passed over was announced.
        doubt: Numbers passed over without a word, first and last.
        intro: How many more messages may belong to the introduction, in which numbers jump.
        resuming: The daemon brings it up to date, and of state only the newest.
        renewed: It was subscribed again, perhaps with other options, under which its book may stand elsewhere.
        held: Thinned out by the daemon as asked, so that heartbeats may be ahead.
        ahead: The heartbeat's number, when it was ahead of ours and nothing came since.
        aside: The message before was a status or a gap.
    """

    name: str
    channel: str
    venue: str
    instrument: str
    epoch: str
    held: bool
    seq: int | None = None
    told_to: int = 0
    doubt: tuple[int, int] | None = None
    intro: int = _INTRODUCTION
    resuming: bool = False
    renewed: bool = False
    ahead: int | None = None
    aside: bool = False
    state: State = State.LIVE
    book: Book | None = None

    @property
    def reached(self) -> int:
        """The number up to which nothing more is to come."""
        return max(self.seq or 0, self.told_to)

    def begin(self, epoch: str) -> None:
        """Know nothing: the next message is the first."""
        self.epoch = epoch
        self.seq = None
        self.told_to = 0
        self.doubt = self.ahead = None
        self.intro = _INTRODUCTION
        self.resuming = self.aside = False
        self.state = State.LIVE
        self.book = None


class Tracker:
    """All topics of a reader.

    Attributes:
        epoch: The present epoch.
        broken: Topics whose book lost an update and needs a snapshot; whoever asks for one takes them out.
    """

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.broken: set[str] = set()
        self._tracks: dict[str, _Track] = {}
        self._held: dict[str, Pattern] = {}
        self._held_wild: dict[str, Pattern] = {}

    # --- subscriptions --------------------------------------------------------------------------------

    def subscribed(self, text: str, *, held: bool) -> None:
        """Note that a topic or pattern was subscribed.

        Args:
            held: With `every_ms` or `depth`, so that the daemon holds messages back.
        """
        pattern = Pattern(text)
        was = self._held.pop(text, None)
        self._held_wild.pop(text, None)
        if held:
            self._held[text] = pattern
            if not pattern.exact:
                self._held_wild[text] = pattern
        for track in self._meant(pattern):
            track.renewed = True
            if held or was is not None:
                track.held = self._holds(track)

    def unsubscribed(self, texts: Iterable[str], left: Iterable[str]) -> None:
        """Forget the topics of some patterns that no other pattern, of those left, means."""
        others = {other: Pattern(other) for other in left}
        wild = [pattern for pattern in others.values() if not pattern.exact]
        for text in texts:
            self.subscribed(text, held=False)
            for track in list(self._meant(Pattern(text))):
                if track.name not in others and not any(_means(pattern, track) for pattern in wild):
                    del self._tracks[track.name]

    def is_held(self, name: str) -> bool:
        """Return whether the daemon thins a topic out, as asked."""
        track = self._tracks.get(name)
        return track is not None and track.held

    def meant(self, text: str) -> list[str]:
        """Return the topics of a pattern that stand somewhere."""
        return [track.name for track in self._meant(Pattern(text)) if track.seq is not None]

    def position(self, name: str) -> tuple[str, int]:
        """Return epoch and number that a topic stands at."""
        track = self._tracks[name]
        return track.epoch, track.reached

    def stand(self, epoch: str, seqs: Mapping[str, int]) -> None:
        """Believe that the topics were read up to these numbers."""
        for name, seq in seqs.items():
            if len(name.split(":", 2)) == 3 and name not in self._tracks:
                track = self._track(name)
                track.epoch, track.seq = epoch, seq

    def resume(self, names: Iterable[str]) -> None:
        """Note that the daemon brings these topics up to date."""
        for name in names:
            if (track := self._tracks.get(name)) is not None:
                track.resuming = True

    # --- the stream -----------------------------------------------------------------------------------

    def disconnected(self) -> None:
        """Believe no book until its next snapshot; the rest stands where it stood."""
        self.broken.clear()
        for track in self._tracks.values():
            track.book = None
            track.doubt = track.ahead = None
            track.renewed = True

    def take(self, message: dict[str, Any], text: str | None = None) -> list[Update]:
        """Take a message of a topic; return it, and before it what was missed. Nothing if it is known."""
        update = update_of(message, text)
        track = self._tracks.get(update.topic)
        if track is None:
            track = self._track(update.topic)
        track.ahead = None
        if message["type"] == "conflated":
            self._told(track, update.seq - 1)
            return [update]
        if isinstance(update, Missed):
            self._announced(track, update)
            return [update]
        if track.epoch != self.epoch:
            track.begin(self.epoch)
        found = self._number(track, update)
        if found is None:
            return []
        self._read(track, update)
        return [*found, update]

    def heartbeat(self, seqs: Mapping[str, int]) -> list[Missed]:
        """Compare with the last numbers of the daemon; return what they prove to be missed.

        A heartbeat follows all data sent before it, but what the daemon holds back on purpose may still be
        to come: so it must be ahead twice with nothing in between.
        """
        found = []
        for name, seq in seqs.items():
            track = self._tracks.get(name)
            if track is None:
                track = self._track(name)
            if track.epoch != self.epoch:
                track.begin(self.epoch)
            if track.seq is None and not track.held:
                track.seq = seq
            track.resuming = False
            track.intro = 0
            found += self._settle(track)
            if seq <= track.reached or track.held:
                track.ahead = None
            elif track.ahead is None:
                track.ahead = seq
            else:
                reason = "the heartbeat is ahead of what came"
                found.append(self._missed(track, (track.reached + 1, seq), reason))
                track.seq, track.ahead = seq, None
        return found

    def _number(self, track: _Track, update: Update) -> list[Missed] | None:
        """Return what was missed before a message; None if the message is known already."""
        seq, event, last = update.seq, update.event, track.seq
        whole = type(event) is BookSnapshot
        if last is not None and seq <= last and not (whole and (seq == last or track.renewed)):
            return None
        track.renewed = track.renewed and not whole
        aside = update.message["type"] in ("status", "gap")
        introduced = track.intro > 0 and (aside or track.aside)
        track.seq, track.aside = seq, aside
        track.intro = max(0, track.intro - 1)
        # Where numbers are passed over on purpose, the message says which one it follows.
        until = update.message.get("prev_seq", seq - 1)
        jump = None if last is None else _unannounced(last + 1, until, track.told_to)
        found: list[Missed] = []
        if whole:
            track.doubt = None
        elif jump is not None and not introduced:
            if track.channel in _EVENT_CHANNELS:
                found.append(self._missed(track, jump, "the numbers jumped"))
            elif not track.resuming or type(event) is BookDelta:
                track.doubt = (track.doubt or jump)[0], jump[1]
        # Only newer state can show whether the notice that explains a doubt was left out.
        replaces = not aside and not (type(event) is Candle and event.closed)
        return found + self._settle(track) if replaces else found

    def _settle(self, track: _Track) -> list[Missed]:
        """Return the doubt as what it is by now: a loss."""
        if track.doubt is None:
            return []
        doubt, track.doubt = track.doubt, None
        return [self._missed(track, doubt, "the numbers jumped")]

    def _missed(self, track: _Track, numbers: tuple[int, int], reason: str) -> Missed:
        self._break(track)
        first, last = numbers
        return Missed(
            topic=track.name,
            seq=last,
            from_seq=first,
            to_seq=last,
            reason=reason,
            missing=last - first + 1,
        )

    def _announced(self, track: _Track, notice: Missed) -> None:
        if track.epoch != self.epoch or notice.to_seq is None:
            track.begin(self.epoch)
        else:
            self._told(track, notice.to_seq)
            self._break(track)

    def _told(self, track: _Track, to_seq: int) -> None:
        track.told_to = max(track.told_to, to_seq)
        if track.doubt is not None and track.doubt[1] <= to_seq:
            track.doubt = None

    def _break(self, track: _Track) -> None:
        if track.book is not None:
            track.book = None
            self.broken.add(track.name)

    # --- books ----------------------------------------------------------------------------------------

    def book(self, name: str) -> Book | None:
        """Return the book of a topic as of the newest message; None unless it is to be believed."""
        track = self._tracks.get(name)
        return track.book if track is not None and track.state is State.LIVE else None

    def _read(self, track: _Track, update: Update) -> None:
        event = update.event
        if type(event) is Status:
            track.state = event.state
            if event.state in BOOK_GONE:
                track.book = None
        elif type(event) is BookSnapshot:
            track.book = Book()
            self.broken.discard(track.name)
            self._apply(track, event)
        elif type(event) is BookDelta and track.book is not None:
            self._apply(track, event)

    def _apply(self, track: _Track, event: BookSnapshot | BookDelta) -> None:
        """Change the book; one whose levels are not numbers is none."""
        assert track.book is not None, "whoever calls looked"
        try:
            if type(event) is BookSnapshot:
                track.book.load(event.bids, event.asks)
            else:
                track.book.apply(event.bids, event.asks)
        except (ValueError, TypeError, IndexError):
            track.book = None

    # --- names ----------------------------------------------------------------------------------------

    def _track(self, name: str) -> _Track:
        channel, venue, instrument = [*name.split(":", 2), "", ""][:3]
        track = _Track(name, channel, venue, instrument, epoch=self.epoch, held=False)
        track.held = self._holds(track)
        self._tracks[name] = track
        return track

    def _holds(self, track: _Track) -> bool:
        return track.name in self._held or any(_means(p, track) for p in self._held_wild.values())

    def _meant(self, pattern: Pattern) -> Iterator[_Track]:
        if pattern.exact:
            track = self._tracks.get(pattern.text)
            return iter(() if track is None else (track,))
        return (track for track in self._tracks.values() if _means(pattern, track))


def _means(pattern: Pattern, track: _Track) -> bool:
    return pattern.matches(track)  # type: ignore[arg-type]  # it has the parts that are looked at


def _unannounced(first: int, last: int, told_to: int) -> tuple[int, int] | None:
    """Return the numbers of a range that were passed over without a word; None if there are none."""
    first = max(first, told_to + 1)
    return (first, last) if first <= last else None
