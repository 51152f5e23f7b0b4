"""What a reader does with a connection that takes its time."""

from __future__ import annotations

from collections.abc import Callable

import trio

from pricefeedd.bus import Bus
from pricefeedd.config import Config
from pricefeedd.events import Trade
from pricefeedd.instruments import Directory
from pricefeedd.stats import Stats
from pricefeedd.topic import Pattern
from pricefeedd.web.daemon import Limits
from pricefeedd.web.reader import BATCH_MESSAGES, Reader


class Daemon:
    """What a reader needs of one."""

    def __init__(self) -> None:
        self.config = Config()
        self.bus = Bus()
        self.directory = Directory()
        self.stats = Stats(started_ns=0)
        self.plugins = ()
        self.epoch = self.bus.epoch
        self.now_ns: Callable[[], int] = lambda: 0

    def describe(self) -> dict[str, object]:
        return {}

    def demand(self, channel: str, venue: str, instrument: str) -> None:
        return None


class Connection:
    """A connection that takes what it has room for."""

    def __init__(self, *, room: bool = True) -> None:
        self.room = room
        self.frames: list[bytes] = []
        self.queued: list[bytes] = []
        self.drains = 0
        self._emptied = trio.Event()

    @property
    def waiting(self) -> bool:
        return bool(self.queued)

    def push(self, frames: list[bytes]) -> bool:
        if self.room and not self.queued:
            self.frames += frames
            return True
        self.queued += frames
        return False

    def push_bytes(self, data: bytes) -> bool:
        return self.push([data])

    async def drain(self) -> None:
        self.drains += 1
        await self._emptied.wait()

    def empty(self, count: int) -> None:
        """Take some of what waits, and tell who waited for that."""
        self.frames += self.queued[:count]
        del self.queued[:count]
        self._emptied.set()
        self._emptied = trio.Event()

    def discard(self) -> None:
        self.queued.clear()

    def abort(self) -> None:
        self.queued.clear()


def trades(count: int) -> list[Trade]:
    return [
        Trade(venue="v", instrument="A", received_ns=1, id=None, price="1", size="1", aggressor=None)
        for _ in range(count)
    ]


async def test_data_does_not_pile_up_behind_a_reply_that_waits(nursery: trio.Nursery) -> None:
    daemon, connection = Daemon(), Connection(room=False)
    reader = Reader(daemon, Limits(), connection, nursery)
    reader.subscribe(Pattern("trade:v:A"))
    reader.reply({"type": "pong"})
    await trio.testing.wait_all_tasks_blocked()
    reader.reply({"type": "pong"})
    connection.empty(1)  # the first is gone, the second waits, and of data there is none yet
    await trio.testing.wait_all_tasks_blocked()
    assert connection.drains == 2
    daemon.bus.publish(trades(1))
    daemon.bus.publish(trades(50_000))
    assert len(connection.queued) == 1
    assert reader.mailbox.lost > 30_000
    nursery.cancel_scope.cancel()


async def test_a_batch_is_sent_early_once_it_is_large(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    daemon, connection = Daemon(), Connection()
    nursery.start_soon(daemon.bus.pacer.run, daemon.bus.flush)
    reader = Reader(daemon, Limits(), connection, nursery, batch_s=10.0)
    reader.subscribe(Pattern("trade:v:A"))
    for _ in range(BATCH_MESSAGES + 1):
        daemon.bus.publish(trades(1))
    assert len(connection.frames) == 1
    await trio.sleep(11)
    assert len(connection.frames) == 2
    reader.end()
    nursery.cancel_scope.cancel()
