"""How far each stream was read, in a file: written beside it and put in its place, so that it is always whole."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import orjson


@attrs.frozen
class Position:
    """How far a stream was read.

    Attributes:
        offset: Of the last message that was delivered.
        at_us: When the upstream received that, µs since the Unix epoch.
    """

    offset: int
    at_us: int


class Positions:
    """The positions in the streams of one broker."""

    def __init__(self, path: Path, broker: str) -> None:
        """Read the file; one of another broker, or that cannot be understood, says nothing.

        Args:
            broker: Which one it is, without passwords.
        """
        self.of: dict[str, Position] = {}
        self._path = path
        self._broker = broker
        try:
            kept = orjson.loads(path.read_bytes())
            if kept["broker"] == broker:
                self.of = {
                    name: Position(int(at["offset"]), int(at["at_us"]))
                    for name, at in kept["streams"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # it begins as at the first start, and what is known already is dropped by its number

    def save(self) -> None:
        """Write the file.

        Raises:
            OSError: It cannot be written.
        """
        streams = {name: attrs.asdict(at) for name, at in self.of.items()}
        text = orjson.dumps({"broker": self._broker, "streams": streams}, option=orjson.OPT_INDENT_2)
        beside = self._path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
