"""All readers: how many there may be, their heartbeats, and their end."""

from __future__ import annotations

import trio

from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.goodbye import LIMIT, STATE_LOST, UNAUTHORISED, Goodbye
from pricefeedd.web.keys import READ, denial, scopes
from pricefeedd.web.reader import Reader


class Readers:
    """All readers: how many there may be, their heartbeats, and their end.

    Attributes:
        nursery: Holds the tasks of readers that lag; whoever serves the app sets it.
    """

    nursery: trio.Nursery

    def __init__(self, daemon: Daemon, limits: Limits) -> None:
        self.limits = limits
        self._daemon = daemon
        self._counts = daemon.stats.readers
        self._due: dict[Reader, float] = {}
        self._silent: dict[Reader, float] = {}
        self._stopping: Goodbye | None = None

    def __len__(self) -> int:
        return len(self._due)

    def admit(self, reader: Reader) -> Goodbye | None:
        """Take a reader in; or return why not.

        When there is no room, one that has asked for nothing in a while gives up its place.
        """
        if self._stopping is not None:
            return self._stopping
        if standby := self._daemon.standby:
            return Goodbye(STATE_LOST, standby, 1_000)
        upstream = self._daemon.bus.upstream
        if upstream is not None and not upstream.open:
            return Goodbye(STATE_LOST, "this relay does not know yet what its upstream served", 1_000)
        now = trio.current_time()
        if len(self._due) >= self._daemon.config.web.max_clients:
            oldest = next(iter(self._silent), None)
            if oldest is None or now - self._silent[oldest] < self.limits.silent_s:
                return Goodbye(LIMIT, "as many clients as max_clients are connected", 30_000)
            oldest.close(Goodbye(LIMIT, "asked for nothing, and others wait", 30_000))
            self.discard(oldest)
        self._due[reader] = now + self._daemon.config.web.heartbeat_s
        self._silent[reader] = now
        self._counts.connected = len(self._due)
        self._counts.accepted += 1
        return None

    def spoke(self, reader: Reader) -> None:
        """Note that the reader asked for something."""
        self._silent.pop(reader, None)

    def discard(self, reader: Reader) -> None:
        """Forget a reader that ended."""
        self._due.pop(reader, None)
        self._silent.pop(reader, None)
        self._counts.connected = len(self._due)

    async def beat(self) -> None:
        """Send each reader its heartbeats; runs until cancelled."""
        while True:
            heartbeat_s = self._daemon.config.web.heartbeat_s
            await trio.sleep(min(0.25, heartbeat_s / 4))
            now = trio.current_time()
            done = 0
            while self._due:
                reader, due = next(iter(self._due.items()))
                if due > now:
                    break
                del self._due[reader]
                self._due[reader] = now + heartbeat_s
                reader.heartbeat()
                done += 1
                if done % 20 == 0:  # after a mass reconnect all are due at once: let data in between
                    await trio.lowlevel.checkpoint()

    async def pace(self) -> None:
        """Send what readers have at most once in a while, or collected; runs until cancelled."""
        await self._daemon.bus.pacer.run(self._daemon.bus.flush)

    def tell_upstream(self) -> None:
        """Tell all readers how the upstream is."""
        for reader in list(self._due):
            reader.tell_upstream()

    def renew(self, reason: str, retry_after_ms: int = 0) -> None:
        """Let all readers connect anew: the topics that they read are gone."""
        for reader in list(self._due):
            reader.close(Goodbye(STATE_LOST, reason, retry_after_ms))

    def reconfigured(self) -> None:
        """Close those who may not read any more, or may read other things than before."""
        web = self._daemon.config.web
        for reader in list(self._due):
            denied = denial(web.keys, reader.key, scope=READ, public=web.public_read)
            if denied is None and scopes(web.keys, reader.key) != reader.scopes:
                denied = "the scopes of this key changed; connect again"
            if denied is not None:
                reader.close(Goodbye(UNAUTHORISED, denied))

    def close_all(self, goodbye: Goodbye) -> None:
        """End all connections with these words, and take in no more."""
        self._stopping = goodbye
        for reader in list(self._due):
            reader.close(goodbye)
