"""The connections of a venue: which one carries which streams, and which streams bring which topics."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import trio

from pricefeedd.codec import Stream
from pricefeedd.derive import TopicKey
from pricefeedd.session import NO_SESSION, Session
from pricefeedd.venue import Feed, Venue

#: What a venue definitely refused is asked for again after this time.
ASK_AGAIN_S = 3600.0


class Connection:
    """One planned connection: its streams, and the session that now carries them.

    Attributes:
        streams: The streams by name.
        topics: The topics that each stream brings, by the stream's name.
        session: The session now in charge; None while there is none.
        refused: When the venue last would not serve a stream, by its name, in Trio's time. It is not asked
            again before `ASK_AGAIN_S` went by, unless somebody new wants it.
        reasons: Why, as it said last.
        suspects: Streams that were being asked for when a connection ended, and how often that was.
        failed_at: Trio time of the last error; None before the first.
        opened_before: A session before this one was opened.
        next_try: Trio time of the next attempt, while waiting for it.
        carriers: Numbers of the sessions that were begun and whose end was not told yet.
        more: Set when there is something new to ask for, so that a connection of which everything was refused
            need not wait for its hour.
    """

    def __init__(self, feed: Feed, index: int) -> None:
        self.feed = feed
        self.index = index
        self.streams: dict[str, Stream] = {}
        self.topics: dict[str, set[TopicKey]] = {}
        self.session: Session | None = None
        self.refused: dict[str, float] = {}
        self.reasons: dict[str, str] = {}
        self.suspects: dict[str, int] = {}
        self.sessions = 0
        self.patience = 1.0
        self.path_index = 0
        self.last_error = ""
        self.failed_at: float | None = None
        self.opened_before = False
        self.next_try: float | None = None
        self.since_ns: int | None = None
        self.carriers: set[int] = set()
        self.more = trio.Event()

    def add(self, stream: Stream, topic: TopicKey) -> None:
        """Note a topic that one of the streams brings."""
        self.topics.setdefault(stream.name, set()).add(topic)

    def remove(self, stream: Stream, topic: TopicKey) -> None:
        """Note that a stream brings a topic no longer; what is known of a stream goes with its last topic."""
        topics = self.topics.get(stream.name, set())
        topics.discard(topic)
        if not topics:
            self.topics.pop(stream.name, None)
            self.refused.pop(stream.name, None)
            self.reasons.pop(stream.name, None)
            self.suspects.pop(stream.name, None)

    def ask(self, streams: Iterable[Stream]) -> None:
        """Have streams asked for that were added to those carried, or refused before."""
        streams = tuple(streams)
        for stream in streams:
            self.refused.pop(stream.name, None)
        if streams:
            self.more.set()
            if self.session is not None:
                self.session.add(streams)

    def drop(self, streams: Iterable[Stream]) -> None:
        """Have streams ended at the venue that were taken off those carried."""
        if self.session is not None:
            self.session.drop(streams)

    def refuse(self, stream: Stream, reason: str) -> None:
        """Note that the venue will not serve a stream, if it is one of those carried."""
        if self.streams.get(stream.name) == stream:
            self.refused[stream.name] = trio.current_time()
            self.reasons[stream.name] = reason

    @property
    def path(self) -> str:
        """The feed's path, or the fallback that is being tried."""
        paths = (self.feed.path, *self.feed.fallback_paths)
        return paths[self.path_index % len(paths)]

    def wanted(self, now: float) -> list[Stream]:
        """Return the streams to ask for: not those that were refused lately, unless nothing else is left."""
        since = now - ASK_AGAIN_S
        asked = [s for s in self.streams.values() if self.refused.get(s.name, -math.inf) <= since]
        return asked or list(self.streams.values())

    @property
    def up(self) -> bool:
        """Whether a session is open now."""
        return self.session is not None and self.session.opened and self.next_try is None

    def all_topics(self) -> frozenset[TopicKey]:
        """Return every topic that it brings."""
        return frozenset().union(*self.topics.values())

    def describe(self, now: float) -> dict[str, Any]:
        """Return facts about it for `/status`."""
        return {
            "feed": self.feed.name,
            "index": self.index,
            "path": self.path,
            "streams": len(self.streams),
            "open": self.up,
            "flowing": self.up and self.session is not None and self.session.flowing.is_set(),
            "since": None if self.since_ns is None else self.since_ns // 1000,
            "sessions": self.sessions,
            "next_try_s": None if self.next_try is None else round(max(0.0, self.next_try - now), 1),
            "last_error": self.last_error,
        }

    def explain(self, now: float) -> dict[str, Any]:
        """Return the same at more length, for whoever asks about one of its topics."""
        session = NO_SESSION if self.session is None else self.session.describe(now)
        told = {**self.describe(now), **session}
        del told["since"]  # of the attempt; `open_s` says since when it is open
        return told | {
            "dials": self.session is not None and self.next_try is None and not self.session.opened,
            "opened_before": self.opened_before,
            "last_error_s": None if self.failed_at is None else round(now - self.failed_at, 1),
            "refused": len(self.refused),
        }

    def standing(self, stream: Stream, now: float) -> dict[str, Any]:
        """Return how one of its streams stands with the venue, why, and when it is asked for again."""
        name, session = stream.name, self.session
        state, again_s = "unasked", None
        if name in self.refused:
            state, again_s = "refused", self.refused[name] + ASK_AGAIN_S - now
        elif session is not None and session.opened and not session.over:
            state, again_s = session.standing(stream, now)
        return {
            "stream": name,
            "feed": self.feed.name,
            "index": self.index,
            "state": state,
            "reason": self.reasons.get(name, "") if state == "refused" else "",
            "again_s": None if again_s is None else round(max(0.0, again_s), 1),
            "suspect": name in self.suspects,
        }


class FullError(Exception):
    """The venue allows no connection more, and all that there are carry what they can."""


class Plan:
    """The connections of one venue.

    Streams are spread by instrument: a connection takes `per_connection` of them, and no more streams than
    the venue allows. What several topics need is carried once, and ends with the last of them.

    Attributes:
        connections: All of them, in the order in which they were planned.
    """

    def __init__(self, venue: Venue, *, per_connection: int) -> None:
        self.connections: list[Connection] = []
        self._venue = venue
        self._per_connection = per_connection
        # How many streams of an instrument a connection carries: what it counts for is the instrument.
        self._instruments: dict[Connection, Counter[str]] = {}
        self._open: dict[str, Connection] = {}
        self._home: dict[tuple[str, str], Connection] = {}  # of an instrument, by feed
        self._fresh: dict[Connection, dict[str, Stream]] = {}
        self._carries: dict[Stream, tuple[Connection, str]] = {}
        self._by_topic: dict[TopicKey, list[tuple[Connection, Stream]]] = {}
        self._by_stream: dict[Stream, set[TopicKey]] = {}

    def of(self, topic: TopicKey) -> list[tuple[Connection, Stream]]:
        """Return what brings a topic."""
        return self._by_topic.get(topic, [])

    def topics(self, streams: Iterable[Stream]) -> list[TopicKey]:
        """Return what these streams bring."""
        return [topic for stream in streams for topic in self._by_stream.get(stream, ())]

    def __len__(self) -> int:
        """Return the number of streams that are carried."""
        return len(self._carries)

    # --- beginning -------------------------------------------------------------------------------------

    def add(self, topic: TopicKey, streams: Iterable[Stream], instrument: str) -> None:
        """Have a topic brought by these streams, on connections that carry them already or on others.

        Args:
            instrument: By which the streams are spread.

        Raises:
            FullError: They fit nowhere; nothing has changed.
        """
        streams = tuple(streams)
        try:
            placed = [(self._place(stream, instrument), stream) for stream in streams]
        except FullError:
            for stream in streams:
                self._unplace(stream)
            raise
        for connection, stream in placed:
            connection.add(stream, topic)
            self._by_stream.setdefault(stream, set()).add(topic)
            found = self._by_topic.setdefault(topic, [])
            if (connection, stream) not in found:
                found.append((connection, stream))

    def fresh(self) -> dict[Connection, list[Stream]]:
        """Return the streams that connections carry since the last call."""
        fresh, self._fresh = self._fresh, {}
        return {connection: list(streams.values()) for connection, streams in fresh.items() if streams}

    def _place(self, stream: Stream, instrument: str) -> Connection:
        carried = self._carries.get(stream)
        if carried is not None:
            return carried[0]
        feed = self._venue.feed(stream.feed)
        connection = self._with_room(feed, instrument) or self._another(feed)
        self._carries[stream] = connection, instrument
        connection.streams[stream.name] = stream
        self._fresh.setdefault(connection, {})[stream.name] = stream
        self._instruments[connection][instrument] += 1
        self._home[feed.name, instrument] = connection
        return connection

    def _with_room(self, feed: Feed, instrument: str) -> Connection | None:
        """Return a connection of the feed that takes one stream more.

        The one that carries the instrument already goes before the last that took something, and that before
        any other.
        """
        for likely in (self._home.get((feed.name, instrument)), self._open.get(feed.name)):
            if likely is not None and self._has_room(likely, instrument):
                return likely
        for connection in self.connections:
            if connection.feed.name == feed.name and self._has_room(connection, instrument):
                self._open[feed.name] = connection
                return connection
        return None

    def _has_room(self, connection: Connection, instrument: str) -> bool:
        known = self._instruments[connection]
        if instrument not in known and len(known) >= self._per_connection:
            return False
        return self._streams_left(connection) > 0

    @staticmethod
    def _streams_left(connection: Connection) -> int:
        feed = connection.feed
        return feed.streams_per_connection - len(connection.streams) - len(feed.always)

    def _another(self, feed: Feed) -> Connection:
        """Return a new connection; or, when the venue allows none, the one that carries the fewest streams."""
        mine = [connection for connection in self.connections if connection.feed.name == feed.name]
        most = self._venue.max_connections
        if most is not None:
            others = {other.name for other in self._venue.feeds if not other.private} - {feed.name}
            others -= {connection.feed.name for connection in self.connections}
            # Each other feed that is not in use yet keeps its first connection.
            if mine and len(self.connections) + len(others) >= most:
                fewest = max(mine, key=self._streams_left)
                if self._streams_left(fewest) <= 0:
                    raise FullError(f"over the venue's limit of {most} connections")
                return fewest
        taken = {connection.index for connection in mine}
        made = Connection(feed, next(index for index in itertools.count() if index not in taken))
        self.connections.append(made)
        self._instruments[made] = Counter()
        self._open[feed.name] = made
        return made

    # --- ending ----------------------------------------------------------------------------------------

    def remove(self, topic: TopicKey) -> list[tuple[Connection, Stream]]:
        """Have a topic brought no longer; return the streams that nothing else needs, and who carried them.

        A connection that carries nothing any more is no part of the plan from here on.
        """
        ended = []
        for connection, stream in self._by_topic.pop(topic, ()):
            connection.remove(stream, topic)
            self._by_stream.get(stream, set()).discard(topic)
            if self._unplace(stream):
                ended.append((connection, stream))
        return ended

    def _unplace(self, stream: Stream) -> bool:
        """Take a stream off its connection unless a topic needs it; return whether it is gone."""
        if self._by_stream.get(stream) or stream not in self._carries:
            return False
        self._by_stream.pop(stream, None)
        connection, instrument = self._carries.pop(stream)
        connection.streams.pop(stream.name, None)
        self._fresh.get(connection, {}).pop(stream.name, None)
        instruments = self._instruments[connection]
        instruments[instrument] -= 1
        if not instruments[instrument]:
            del instruments[instrument]
            if self._home.get((stream.feed, instrument)) is connection:
                del self._home[stream.feed, instrument]
        if not connection.streams:
            self.connections.remove(connection)
            del self._instruments[connection]
            if self._open.get(connection.feed.name) is connection:
                del self._open[connection.feed.name]
        return True
