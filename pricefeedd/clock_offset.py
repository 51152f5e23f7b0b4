"""How far a venue's clock is from ours, as far as that can be known. Pure: it is told the times.

What a venue sends bears the venue's time, and comes to us later by the offset of the clocks and the way of the
message together. One-way messages alone cannot tell the two apart. As no message arrives before it was sent, the
fastest one of a while bounds the offset from below: the venue's clock is ahead of ours by at least so much. An answer
to a question of ours bounds it on both sides: the venue looked at its clock between our two looks at ours.
"""

from __future__ import annotations

from collections import deque

#: How long the fastest message is remembered: in slots, the oldest of which is forgotten at a time.
SLOT_NS = 10_000_000_000
SLOTS = 6

#: How long a round trip says something of clocks that drift, and how many are remembered.
ROUND_TRIP_NS = 3_600_000_000_000
ROUND_TRIPS = 64


class ClockOffset:
    """The least that a venue's clock is ahead of ours, from the times in what it sends.

    The figure is that of the second fastest slot: one wrong time in an event must not shift all latencies for a
    minute, and a clock that was put right shows in two slots soon enough.

    Attributes:
        least_ns: By how much the venue's clock is ahead at least, ns; less than 0 where the way takes longer than the
            clocks are apart. None before the first message.
    """

    __slots__ = ("_begin_ns", "_end_ns", "_slots", "_top", "least_ns")

    def __init__(self) -> None:
        self.least_ns: int | None = None
        self._slots: deque[int | None] = deque(maxlen=SLOTS - 1)
        self._top: int | None = None
        self._begin_ns = self._end_ns = 0

    def observe(self, venue_ns: int, received_ns: int) -> int:
        """Take the times of one message; return how long it was on its way, ns and never negative."""
        if not self._begin_ns <= received_ns < self._end_ns:
            self._turn(received_ns)
        ahead_ns = venue_ns - received_ns
        if self._top is None or ahead_ns > self._top:
            self._top = ahead_ns
            self._weigh()
        return self.latency_ns(venue_ns, received_ns)

    def latency_ns(self, venue_ns: int, received_ns: int) -> int:
        """Return how long a message was on its way, ns and never negative.

        Only where the venue's clock is surely ahead of ours is it put right: less than nothing no message takes.
        """
        took_ns = received_ns - venue_ns
        if self.least_ns is not None and self.least_ns > 0:
            took_ns += self.least_ns
        return max(took_ns, 0)

    def reset(self) -> None:
        """Forget everything: our own clock was put right."""
        self._slots.clear()
        self._top = self.least_ns = None
        self._begin_ns = self._end_ns = 0

    def _turn(self, now_ns: int) -> None:
        """Begin the slot of this time."""
        if self._begin_ns - SLOT_NS <= now_ns < self._begin_ns:
            return  # of another connection, and read a moment earlier
        passed = (now_ns - self._begin_ns) // SLOT_NS
        if not 0 < passed <= SLOTS:
            self._slots.clear()  # all of it is too old, or our clock went back
        else:
            self._slots.append(self._top)
            self._slots.extend([None] * (passed - 1))
        self._begin_ns = now_ns - now_ns % SLOT_NS
        self._end_ns = self._begin_ns + SLOT_NS
        self._top = None
        self._weigh()

    def _weigh(self) -> None:
        known = sorted(top for top in (*self._slots, self._top) if top is not None)
        if known:
            self.least_ns = known[-2] if len(known) > 1 else known[0]


class RoundTrips:
    """Bounds of how far a venue's clock is ahead of ours, from its answers to what we asked.

    What an HTTP answer bears is a whole second: each bounds the offset to a second and the time of the round trip, and
    many of them to less, as they fall on different parts of the second.
    """

    def __init__(self) -> None:
        self._trips: deque[tuple[int, int, int]] = deque(maxlen=ROUND_TRIPS)

    def observe(self, sent_ns: int, venue_ns: int, received_ns: int, *, grain_ns: int = 0) -> None:
        """Take one round trip.

        Args:
            sent_ns: Our clock when we asked.
            venue_ns: The venue's clock in the answer.
            received_ns: Our clock when the answer was there.
            grain_ns: How much the venue may have cut off its time.
        """
        least_ns, most_ns = venue_ns - received_ns, venue_ns + grain_ns - sent_ns
        self._trips.append((received_ns, least_ns, most_ns))

    def bounds_ns(self, now_ns: int) -> tuple[int, int] | None:
        """Return by how much the venue's clock is ahead at least and at most, ns; None if nothing is known.

        A clock that was put right contradicts what was known before, which is then left out.
        """
        found: tuple[int, int] | None = None
        for received_ns, least_ns, most_ns in reversed(self._trips):
            if abs(now_ns - received_ns) > ROUND_TRIP_NS:
                break
            if found is None:
                found = (least_ns, most_ns)
                continue
            narrower = (max(found[0], least_ns), min(found[1], most_ns))
            if narrower[0] > narrower[1]:
                break
            found = narrower
        return found
