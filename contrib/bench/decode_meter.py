"""What the contestants of the decode part share: the frames, the clock and the report. Standard library alone."""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

GZIP = b"\x1f\x8b"


class NotHandledError(Exception):
    """The contestant makes nothing of these frames; the text says why."""


class Row:
    """One row of the table, as a contestant sees it.

    Attributes:
        frames: In the order in which they came.
        begin: Frames with the books that come before them, where they change books.
        books: The books by REST that they join.
        instruments: Of the market.
        listed: Of all markets of the venue.
        names: Our names by the venue's symbol.
    """

    def __init__(self, venue: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        self.venue: str = venue["venue"]
        self.market: str = row["market"]
        self.channel: str = row["channel"]
        self.feed: str = row["feed"]
        self.events: int = row["events"]
        self.frames = [base64.b64decode(frame) for frame in row["frames"]]
        self.begin = [base64.b64decode(frame) for frame in row["begin"]]
        self.names: Mapping[str, str] = venue["names"][self.feed]
        self.instruments: list[dict[str, Any]] = venue["instruments"][self.market]
        self.listed = [one for instruments in venue["instruments"].values() for one in instruments]
        self.books: list[dict[str, Any]] = [
            book for book in venue["books"] if book["market"] == self.market and "delta" in self.channel
        ]


def as_received(frame: bytes) -> str | bytes:
    """Return a frame as WebSocket libraries give it: text as `str`, binary messages as `bytes`."""
    return frame if frame.startswith(GZIP) else frame.decode()


def _arguments(description: str) -> argparse.Namespace:
    """Return what the bench tells a contestant."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--frames", type=Path, required=True, help="the file with the frames of all rows")
    parser.add_argument("--decodes", type=int, required=True, help="frames of each row")
    parser.add_argument("--row-seconds", type=float, required=True, help="or as many as fit in this CPU time")
    return parser.parse_args()


class Decoder(Protocol):
    """A contestant's way with the frames of one row."""

    def check(self) -> None:
        """Require an update of the right kind of each frame.

        Raises:
            NotHandledError: Some make none.
        """

    def prepare(self) -> None:
        """Set the books back to where the frames begin; not counted."""

    def play(self) -> None:
        """Take all frames once."""


def _measure(decoder: Decoder, frames: int, limits: argparse.Namespace) -> float:
    """Return µs of CPU per frame."""
    decoder.prepare()
    decoder.play()  # warm
    cpu = 0.0
    count = 0
    while count < limits.decodes and cpu < limits.row_seconds:
        decoder.prepare()
        began = time.process_time()
        decoder.play()
        cpu += time.process_time() - began
        count += frames
    return cpu / count * 1e6


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def serve(description: str, make: Callable[[Row], Decoder], *, version: str) -> None:
    """Measure a row for each line of stdin that names its number, and print `us`, or `why` there is none."""
    limits = _arguments(description)
    rows = [Row(venue, row) for venue in json.loads(limits.frames.read_text()) for row in venue["rows"]]
    made: dict[int, Decoder] = {}
    _say({"version": version})
    for line in sys.stdin:
        number = int(line)
        row = rows[number]
        try:
            if number not in made:
                made[number] = make(row)
                made[number].check()
            _say({"us": _measure(made[number], len(row.frames), limits)})
        except NotHandledError as e:
            _say({"why": str(e)})
