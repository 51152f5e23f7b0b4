"""A reader that is a task of our own: a sink, or the caller of `pricefeedd.stream`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import trio

from pricefeedd.bus import Bus
from pricefeedd.config import Config, SinkConfig
from pricefeedd.hookspecs import Sink, SinkReport
from pricefeedd.kept import KeptQueue, account_topics
from pricefeedd.message import Jump, Message, Notice
from pricefeedd.spool import Spool
from pricefeedd.supervisor import supervise
from pricefeedd.topic import Pattern, Topic

#: A spool that is fuller than this is told by `/ready`.
NEARLY_FULL = 0.8


class Lanes:
    """The two lanes of a mailbox, emptied by a task that waits.

    Between two calls of `receive` the reader lags, and the lanes apply: state keeps the newest, events wait
    in order up to the limit.
    """

    def __init__(
        self, bus: Bus, patterns: Iterable[str], *, limit_bytes: int, conflates: bool = True
    ) -> None:
        self._bus = bus
        self._news = trio.Event()
        self._ended = trio.Event()
        self._mailbox = bus.mailbox(limit_bytes=limit_bytes, flush=self._flush, conflates=conflates)
        for pattern in patterns:
            bus.subscribe(self._mailbox, Pattern(pattern))

    def _flush(self) -> None:
        self._mailbox.lag()
        self._news.set()

    def end(self) -> None:
        """Let the task take what waits, and then no more."""
        self._ended.set()
        self._bus.leave(self._mailbox)
        self._news.set()

    async def ending(self) -> None:
        """Wait until it is ended."""
        await self._ended.wait()

    def reads(self, topic: Topic) -> bool:
        """Return whether a topic goes there."""
        return topic.has(self._mailbox)

    @property
    def lags(self) -> bool:
        """Whether something waits that the reader has not taken."""
        return self._mailbox.lagging

    def may_send(self) -> bool:
        """Return whether what was handed out may still be sent: not once another daemon may lead."""
        return self._bus.lease.holds()

    async def receive(self) -> list[Message | Notice]:
        """Wait until there is something, and return all of it in order.

        Raises:
            trio.EndOfChannel: It was ended, and everything was handed out.
        """
        await trio.lowlevel.checkpoint()
        while True:
            found = self._mailbox.take()
            self._mailbox.lagging = False
            if found:
                return found
            if self._ended.is_set():
                raise trio.EndOfChannel
            await self._news.wait()
            self._news = trio.Event()


class SinkLanes(Lanes):
    """What a sink reads: the topics and accounts that it is configured for, and what is told of it.

    Notices that concern only its own lag are left out; what it lost is counted in its report as `slow`.

    Attributes:
        epoch: The life of the streams that what was handed out last belongs to.
    """

    def __init__(self, bus: Bus, sink: Sink, config: Config, section: SinkConfig) -> None:
        """Begin to collect.

        Args:
            config: Of the whole daemon: it says which accounts there are, and where files are kept.
            section: The sink's own part of it.
        """
        accounts = account_topics(
            (
                (venue.name, name, account.channels)
                for venue in config.venues.values()
                for name, account in venue.accounts.items()
            ),
            section.accounts,
        )
        patterns = section.topics if sink.keeps else (*section.topics, *accounts)
        super().__init__(bus, patterns, limit_bytes=section.queue_bytes, conflates=section.conflate)
        self.section = section.name
        self.report = SinkReport()
        self.kept: KeptQueue | None = None
        self.epoch = bus.epoch
        # What was not yet handed out of epochs that ended.
        self._before: list[tuple[str, list[Message | Notice]]] = []
        self._current = bus.epoch
        self._lost_told = 0
        self._sink = sink
        self._settings = section.settings
        self._state_dir = config.state_dir / "sinks" / section.name
        path = self._state_dir / "spool.db"
        # What waits since the last time goes out even if the accounts were taken from the configuration.
        if sink.keeps and (accounts or path.exists()):
            self.kept = KeptQueue(
                bus,
                accounts,
                Spool(path, limit_bytes=section.spool_bytes),
                self.report,
                name=section.name,
                pending_bytes=section.queue_bytes,
            )

    def renew(self) -> None:
        """Note that another epoch begins: what waits is handed out as of the one before."""
        waiting = self._mailbox.take()
        self._mailbox.lagging = False
        if waiting:
            self._before.append((self._current, waiting))
        self._current = self._bus.epoch

    @property
    def state_dir(self) -> Path:
        """Where the sink may keep files of its own."""
        self._state_dir.mkdir(parents=True, exist_ok=True)
        return self._state_dir

    async def receive(self) -> list[Message]:  # type: ignore[override]  # a narrower answer
        """Wait until there is something, and return all of it in order."""
        while True:
            found: list[Message] = []
            for message in await self._next():
                if isinstance(message, Jump):
                    pass  # the number that follows tells it
                elif isinstance(message, Message):
                    found.append(message)
                elif message.lost:
                    self._lost_told += message.lost
                    self.report.drop("slow", message.lost)
            if found:
                return found

    async def _next(self) -> list[Message | Notice]:
        if self._before:
            await trio.lowlevel.checkpoint()
            self.epoch, waiting = self._before.pop(0)
            return waiting
        waiting = await super().receive()
        self.epoch = self._current = self._bus.epoch
        return waiting

    async def run(self) -> None:
        """Run the sink until it ends, begun anew whenever it crashes, and keep on disk what may not be lost."""
        try:
            async with trio.open_nursery() as nursery:
                if self.kept is not None:
                    nursery.start_soon(self.kept.run, name=f"spool:{self.section}")
                await supervise(self._once, what="sink", name=self.section, crashed=self._crashed)
                self.report.state, self.report.reason = "down", "it has ended"
        finally:
            if self.kept is not None:
                await self.kept.spool.close()

    async def _once(self) -> None:
        if self.kept is not None:
            self.kept.rewind()
        await self._sink.run(self._settings, self)

    def _crashed(self, reason: str) -> None:
        self.report.state, self.report.reason = "down", f"the plugin crashed: {reason}"
        self.report.last_error = reason

    def end(self) -> None:
        """Let the sink take what waits, and then no more."""
        super().end()
        if self.kept is not None:
            self.kept.end()

    def concerns(self) -> list[str]:
        """Return what an operator should know, most urgent first; nothing when all is well."""
        found = []
        if self.report.state in ("down", "blocked"):
            found.append(f"sink {self.section} is {self.report.state}: {self.report.reason}")
        if self.kept is not None and self.kept.trouble:
            found.append(f"sink {self.section} cannot write its spool: {self.kept.trouble}")
        elif self.kept is not None and self.kept.full > NEARLY_FULL:
            found.append(f"the spool of sink {self.section} is {self.kept.full:.0%} full")
        return found

    def describe(self, now_ns: int) -> dict[str, Any]:
        """Return facts for `/status` and `/metrics`."""
        report = attrs.asdict(self.report)
        last_ns = report.pop("last_delivered_ns")
        report["last_delivered"] = (
            None
            if last_ns is None
            else datetime.fromtimestamp(last_ns / 1e9, UTC).isoformat(timespec="milliseconds")
        )
        # The sink hears of what it lost when it takes what comes after; an operator should not have to wait for that.
        untold = self._mailbox.lost - self._lost_told
        if untold > 0:
            report["dropped"]["slow"] = report["dropped"].get("slow", 0) + untold
        report["lane_bytes"] = self._mailbox.waiting_bytes
        report["concerns"] = self.concerns()
        report["spool"] = None
        if self.kept is not None:
            spool = self.kept.spool
            oldest_ns = spool.oldest_ns
            report["spool"] = {
                "records": spool.count,
                "bytes": spool.bytes,
                "limit_bytes": spool.limit_bytes,
                "pending": self.kept.pending,
                "damaged": spool.damaged,
                "oldest_age_s": None if oldest_ns is None else max(now_ns - oldest_ns, 0) / 1e9,
                "trouble": self.kept.trouble,
            }
        return report
