"""What a client calls a topic, and which topics of ours that means."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

import attrs

from pricefeedd.bus import Bus
from pricefeedd.events import DERIVED_CHANNELS, PRIVATE_CHANNELS, PUBLIC_CHANNELS
from pricefeedd.instruments import Directory, InstrumentMap, UnknownInstrumentError
from pricefeedd.stats import Stats
from pricefeedd.topic import Pattern

_CHANNELS = PUBLIC_CHANNELS + DERIVED_CHANNELS
_LONGEST = 200


@attrs.frozen
class Problem:
    """Why a topic cannot be had.

    Attributes:
        code: `bad_topic`, `unknown_channel`, `unknown_venue`, `unknown_instrument`, `forbidden` or `limit`.
        did_you_mean: The nearest words that exist.
    """

    code: str
    message: str
    did_you_mean: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the `error` part of a reply."""
        body: dict[str, object] = {"code": self.code, "message": self.message}
        if self.did_you_mean:
            body["did_you_mean"] = list(self.did_you_mean)
        return body


class Resolver:
    """Turns what clients ask for into patterns of the bus."""

    def __init__(self, bus: Bus, directory: Directory, stats: Stats) -> None:
        self._bus = bus
        self._directory = directory
        self._stats = stats
        self._venues: tuple[tuple[int, int, int], list[str]] = ((-1, -1, -1), [])

    def venues(self) -> list[str]:
        """Return the names of the venues that we know now."""
        maps = self._directory.maps()
        made_of = (self._bus.changes, self._stats.changes, len(maps))
        if self._venues[0] != made_of:
            known = {market.venue for market in self._stats}
            known.update(listed.venue for listed in maps)
            known.update(topic.venue for topic in self._bus)
            self._venues = (made_of, sorted(known))
        return self._venues[1]

    def resolve(self, text: str, *, suggest: bool = True, scopes: Collection[str] = ()) -> Pattern | Problem:
        """Return the pattern meant by `text`, in our names; or why there is none.

        A topic of an instrument that the venue lists is accepted even if nothing serves it yet, and so is
        any instrument of a venue whose list is not loaded.

        Args:
            suggest: Whether to look for similar instruments, which takes milliseconds.
            scopes: What the client's key may do; topics of an account need its own.
        """
        served = self._bus.get(text)
        if len(text) > _LONGEST:
            return Problem("bad_topic", f"a topic has at most {_LONGEST} characters")
        try:
            pattern = Pattern(text)
        except ValueError as e:
            return Problem("bad_topic", str(e))
        if pattern.channel in PRIVATE_CHANNELS:
            needed = f"account:{pattern.instrument}"
            if pattern.exact and needed in scopes:
                return pattern
            return Problem(
                "forbidden",
                f"{pattern.channel}:VENUE:ACCOUNT needs a key with the scope of its account, and no `*`",
            )
        if served is not None:
            return pattern
        if pattern.channel != "*" and pattern.channel not in _CHANNELS:
            near = difflib.get_close_matches(pattern.channel, _CHANNELS, n=3)
            return Problem("unknown_channel", f"unknown channel {pattern.channel!r}", tuple(near))
        if pattern.venue != "*":
            venues = self.venues()
            if pattern.venue not in venues:
                near = difflib.get_close_matches(pattern.venue, venues, n=3)
                return Problem("unknown_venue", f"unknown venue {pattern.venue!r}", tuple(near))
        if pattern.instrument == "*":
            return pattern
        return self._named(pattern, suggest=suggest)

    def _named(self, pattern: Pattern, *, suggest: bool) -> Pattern | Problem:
        """Return the pattern with our name in place of the venue's symbol."""
        spelling = pattern.instrument
        maps = self._directory.maps(pattern.venue)
        if not maps or self._served(pattern):
            return pattern
        if not any(listed.knows(spelling) for listed in maps):
            near = self._near(spelling, maps) if suggest else ()
            return Problem("unknown_instrument", f"unknown instrument {spelling!r} on {pattern.venue}", near)
        try:
            found = self._directory.find(pattern.venue, spelling)
        except UnknownInstrumentError as e:
            return Problem("unknown_instrument", str(e), tuple(e.suggestions))
        return Pattern(f"{pattern.channel}:{pattern.venue}:{found.name}")

    def _served(self, pattern: Pattern) -> bool:
        return pattern.channel == "*" and bool(self._bus.match(pattern))

    @staticmethod
    def _near(spelling: str, maps: Iterable[InstrumentMap]) -> tuple[str, ...]:
        near: dict[str, None] = {}
        for listed in maps:
            near.update(dict.fromkeys(listed.suggest(spelling)))
        best = difflib.get_close_matches(spelling.upper(), near, n=3, cutoff=0.0)
        return tuple(best)
