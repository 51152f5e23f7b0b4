"""Events as lines for people."""

from __future__ import annotations

import sys

import click
import orjson

from pricefeedd.events import Event, State, Status
from pricefeedd.wire import data_of


def facts(event: Event) -> str:
    """Return what an event says as `name=value` pairs; a book as its size and best levels."""
    data = data_of(event)
    if "bids" in data:
        whole = data["kind"] == "snapshot"
        data = {
            "kind": data["kind"],
            "bids": len(data["bids"]),
            "asks": len(data["asks"]),
            "best_bid": data["bids"][0] if whole and data["bids"] else None,
            "best_ask": data["asks"][0] if whole and data["asks"] else None,
        }
    return " ".join(
        f"{name}={value if isinstance(value, str) else orjson.dumps(value).decode()}"
        for name, value in data.items()
        if value is not None
    )


def name(text: str) -> str:
    """Return a name, in colour on a terminal."""
    return click.style(text, fg="cyan") if sys.stdout.isatty() else text


class Troubles:
    """Which topics are in trouble, so that a person is told when that begins and ends, and not more."""

    def __init__(self) -> None:
        self._topics: set[str] = set()

    def news(self, topic: str, status: Status) -> bool:
        """Return whether a status is worth a line."""
        if status.reason or status.state not in (State.LIVE, State.CONNECTING):
            self._topics.add(topic)
            return True
        if status.state is State.LIVE and topic in self._topics:
            self._topics.remove(topic)
            return True
        return False
