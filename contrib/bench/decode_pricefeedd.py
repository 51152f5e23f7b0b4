"""Contestant: pricefeedd's codecs, from the bytes of a frame to events."""

from __future__ import annotations

from importlib.metadata import version

from decode_meter import NotHandledError, Row, serve

from pricefeedd.events import Event
from pricefeedd.loader import load_plugins


class Contestant:
    """The codec of one venue and the frames of one row."""

    def __init__(self, row: Row) -> None:
        declared = load_plugins().venues[row.venue]
        venue = declared.configure(declared, declared.settings())
        self._row = row
        self._codec = venue.codec
        self._feed = venue.feed(row.feed)

    def check(self) -> None:
        """Require the events that were recorded.

        Raises:
            NotHandledError: They are others.
        """
        row = self._row
        events = 0
        for frame in row.frames:
            said = self._codec.decode(frame, feed=self._feed, names=row.names, received_ns=1)
            events += sum(isinstance(one, Event) for one in said)
        if events != row.events:
            raise NotHandledError(f"{row.venue} {row.channel}: {events} events, {row.events} were recorded")

    def prepare(self) -> None:
        """Do nothing: a codec remembers nothing."""

    def play(self) -> None:
        """Take all frames."""
        decode, feed, names = self._codec.decode, self._feed, self._row.names
        for frame in self._row.frames:
            decode(frame, feed=feed, names=names, received_ns=1)


if __name__ == "__main__":
    serve(__doc__ or "", Contestant, version=version("pricefeedd"))
