"""Whether the numbers of a connection's topics are whole: what is missing was announced, or is lost."""

from __future__ import annotations

from typing import Any

import attrs
from figures import Figures

from pricefeedd.events import PRIVATE_CHANNELS

#: Of these every message is an event; of the others a newer state may stand for older ones, if that is told.
EVENT_CHANNELS = frozenset(("trade", "liquidation", *PRIVATE_CHANNELS))
#: Messages that tell how a topic stands when it is begun: the newest data, its status, what came last.
INTRODUCTION = 3


@attrs.define
class Track:
    """Where one topic of one connection stands.

    Attributes:
        seq: The newest number.
        told_to: What is missing up to here was announced.
        doubt: Numbers passed over without a word so far, first and last.
        intro: How many more messages may belong to the introduction, in which numbers jump.
        resuming: The daemon brings it up to date, and of state only the newest.
        ahead: A heartbeat's number that was ahead of ours, when nothing has come since.
        aside: The message before was a status or a gap.
    """

    seq: int
    events: bool
    told_to: int = 0
    doubt: tuple[int, int] | None = None
    intro: int = INTRODUCTION
    resuming: bool = False
    ahead: int | None = None
    aside: bool = False


class Numbers:
    """The numbers of all topics of one connection, over all its lives within an epoch.

    It judges as `pricefeedd.client` does, without looking at what the messages say: so it costs a fiftieth.
    """

    def __init__(self, figures: Figures) -> None:
        self.epoch = ""
        self.tracks: dict[str, Track] = {}
        self._figures = figures

    def begin(self, epoch: str) -> bool:
        """Note a connection; return whether the numbers go on where they were."""
        same = epoch == self.epoch
        if not same:
            self.tracks.clear()
        for track in self.tracks.values():
            track.doubt = track.ahead = None
            track.resuming = True
        self.epoch = epoch
        return same

    def positions(self) -> dict[str, tuple[str, int]]:
        """Return where each topic stands."""
        return {
            name: (self.epoch, max(track.seq, track.told_to))
            for name, track in self.tracks.items()
            if track.seq or track.told_to
        }

    def take(self, message: dict[str, Any], kind: str) -> bool:
        """Take a message of a topic; return whether it is new."""
        name, seq = message["topic"], message["seq"]
        track = self.tracks.get(name)
        if track is None:
            track = self.tracks[name] = Track(0, name.partition(":")[0] in EVENT_CHANNELS)
        if kind == "conflated":
            self._figures.conflated += message["data"].get("dropped", 0)
            self._told(track, seq - 1)
            return False
        if kind == "gap" and "from_seq" in message["data"]:
            self._announced(track, message["data"])
            return False
        track.ahead = None
        aside = kind == "status" or kind == "gap"
        last = track.seq
        if seq != last + 1 or track.doubt is not None:
            whole = kind == "book" and message["data"]["kind"] == "snapshot"
            if last and seq <= last:
                return whole and seq == last
            if whole:
                track.doubt = None
            elif last and not (track.intro and (aside or track.aside)):
                self._jumped(name, track, last + 1, message)
            closed = kind.startswith("candle_") and message["data"].get("closed")
            if not aside and not closed:
                self._settle(name, track)
        track.seq = seq
        track.aside = aside
        if track.intro:
            track.intro -= 1
        if kind == "gap":
            self._figures.venue_gaps += 1
        return True

    def heartbeat(self, seqs: dict[str, int]) -> None:
        """Compare with the daemon's last numbers: what they are ahead twice, with nothing between, is lost."""
        self._figures.heartbeats += 1
        for name, seq in seqs.items():
            track = self.tracks.get(name)
            if track is None:
                self.tracks[name] = Track(seq, name.partition(":")[0] in EVENT_CHANNELS, intro=0)
                continue
            track.seq = track.seq or seq
            track.resuming, track.intro = False, 0
            self._settle(name, track)
            reached = max(track.seq, track.told_to)
            if seq <= reached:
                track.ahead = None
            elif track.ahead is None:
                track.ahead = seq
            else:
                self._figures.lost[name] += seq - reached
                track.seq, track.ahead = seq, None

    def end(self) -> None:
        """Count what may or may not have been announced."""
        for track in self.tracks.values():
            if track.doubt is not None:
                self._figures.unsettled += track.doubt[1] - track.doubt[0] + 1

    def _jumped(self, name: str, track: Track, first: int, message: dict[str, Any]) -> None:
        # Where numbers are passed over on purpose, the message says which one it follows.
        last = message.get("prev_seq", message["seq"] - 1)
        first = max(first, track.told_to + 1)
        if first > last:
            return
        if track.events:
            self._figures.lost[name] += last - first + 1
        elif not track.resuming:
            track.doubt = (track.doubt or (first, last))[0], last

    def _settle(self, name: str, track: Track) -> None:
        if track.doubt is not None:
            self._figures.lost[name] += track.doubt[1] - track.doubt[0] + 1
            track.doubt = None

    def _announced(self, track: Track, data: dict[str, Any]) -> None:
        last = data.get("to_seq")
        if last is None:
            self._figures.gap_unknown += 1
            track.seq = track.told_to = 0
            track.doubt, track.intro = None, INTRODUCTION
        else:
            self._figures.gap_seqs += last - data["from_seq"] + 1
            self._told(track, last)

    def _told(self, track: Track, to_seq: int) -> None:
        track.told_to = max(track.told_to, to_seq)
        if track.doubt is not None and track.doubt[1] <= to_seq:
            track.doubt = None
