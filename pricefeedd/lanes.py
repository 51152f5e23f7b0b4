"""A reader that is a task of our own: a sink, or the caller of `pricefeedd.stream`."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from pricefeedd.bus import Bus
from pricefeedd.message import Message, Notice
from pricefeedd.topic import Pattern


class Lanes:
    """The two lanes of a mailbox, emptied by a task that waits.

    Between two calls of `receive` the reader lags, and the lanes apply: state keeps the newest, events wait
    in order up to the limit.
    """

    def __init__(self, bus: Bus, patterns: Iterable[str], *, limit_bytes: int) -> None:
        self._bus = bus
        self._news = trio.Event()
        self._ended = False
        self._mailbox = bus.mailbox(limit_bytes=limit_bytes, flush=self._flush)
        for pattern in patterns:
            bus.subscribe(self._mailbox, Pattern(pattern))

    def _flush(self) -> None:
        self._mailbox.lag()
        self._news.set()

    def end(self) -> None:
        """Let the task take what waits, and then no more."""
        self._ended = True
        self._bus.leave(self._mailbox)
        self._news.set()

    async def receive(self) -> list[Message | Notice]:
        """Wait until there is something, and return all of it in order.

        Raises:
            trio.EndOfChannel: It was ended, and everything was handed out.
        """
        while True:
            found = self._mailbox.take()
            self._mailbox.lagging = False
            if found:
                await trio.lowlevel.checkpoint()
                return found
            if self._ended:
                raise trio.EndOfChannel
            await self._news.wait()
            self._news = trio.Event()
