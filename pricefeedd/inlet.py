"""What a source delivers to: the messages of another daemon, told apart from what is known, old or unreadable.

Epoch and numbers are the upstream's. An epoch that was not seen before ends the one before it, and what still comes of
that one is dropped. While the past is read, from several streams each at its own pace, an epoch that begins earlier than
the present one is old even if it was not seen before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
import structlog
import trio

from pricefeedd import wire
from pricefeedd.config import SourceConfig
from pricefeedd.errors import DecodeError
from pricefeedd.events import PRIVATE_CHANNELS
from pricefeedd.instruments import Directory, Instrument, InstrumentMap
from pricefeedd.mirror import Mirror
from pricefeedd.mirrored import Arrived, Mirrored
from pricefeedd.source import Hole, SourceReport
from pricefeedd.topic import Pattern, Upstream

log = structlog.get_logger("pricefeedd.inlet")

#: Messages that are served before others may work, and that leave for a reader in one send.
TURN = 250
#: Holes that a source is asked to fill and that it has not taken yet.
MOST_HOLES = 1_000

_LONGEST_EPOCH = 64


class Inlet:
    """What a source delivers to.

    Attributes:
        section: Name of the source's section.
        topics: Patterns of the topics that are served.
        accounts: Names of the accounts whose topics are served as well.
        report: What is known of the source.
        repairs: Whether the source fills holes.
    """

    def __init__(
        self,
        bus: Mirror,
        config: SourceConfig,
        directory: Directory,
        *,
        state_dir: Path,
        now_ns: Callable[[], int],
    ) -> None:
        self.section = config.name
        self.topics = config.topics
        self.accounts = config.accounts
        self.report = SourceReport()
        self.repairs = False
        self._bus = bus
        self._directory = directory
        self._state_dir = state_dir
        self._now_ns = now_ns
        self._patterns = [Pattern(text) for text in config.topics]
        self._mirrored: dict[str, Mirrored | None] = {}
        self._ended: set[str] = set()
        # The earliest message of the present epoch, µs.
        self._began_us: float = math.inf
        self._newest_us = 0
        # What follows a message's own text in that of a stream that says the epoch.
        self._tail = b""
        self._holes: trio.MemorySendChannel[Hole]
        self._holes, self._found = trio.open_memory_channel[Hole](MOST_HOLES)

    @property
    def state_dir(self) -> Path:
        """Where the source may keep files of its own."""
        self._state_dir.mkdir(parents=True, exist_ok=True)
        return self._state_dir

    # --- messages -------------------------------------------------------------------------------------

    async def deliver(self, messages: Sequence[bytes | dict[str, Any]]) -> None:
        """Serve messages, in order."""
        report = self.report
        for start in range(0, len(messages), TURN):
            turn = messages[start : start + TURN]
            for raw in turn:
                self._take(raw)
            self._bus.flush()
            report.messages += len(turn)
            report.last_message_ns = now_ns = self._now_ns()
            if self._newest_us:
                report.lag_s = max(0.0, now_ns / 1e9 - self._newest_us / 1e6)
            await trio.lowlevel.checkpoint()
        self._look()

    def _take(self, raw: bytes | dict[str, Any]) -> None:
        try:
            message = raw if type(raw) is dict else orjson.loads(raw)  # type: ignore[arg-type]  # bytes then
            name, seq, epoch, at_us = message["topic"], message["seq"], message["epoch"], message["ts_recv"]
            # What is known by its number need not be understood.
            if epoch != self._bus.epoch and not self._begins(epoch, at_us):
                self.report.outdated += 1
                return
            if at_us < self._began_us:
                self._began_us = at_us
            mirrored = self._mirrored.get(name)
            if mirrored is None:
                mirrored = self._begin(name, seq)
                if mirrored is None:
                    self.report.unwanted += 1
                    return
            if seq <= mirrored.tip and not self._renews(mirrored, seq, message):
                self.report.duplicates += 1
                return
            kind = message["type"]
            if kind not in ("status", "gap", mirrored.topic.channel):
                raise DecodeError(f"a {kind!r} cannot stand in {name}")  # as if `wire` had seen it
            _, _, event = wire.read(message)
        except (DecodeError, ValueError, KeyError, TypeError, AttributeError) as e:
            self.report.unreadable += 1
            self.report.last_error = f"unreadable message {str(raw)[:120]} ({e!r})"
            return
        self._newest_us = at_us
        text = None
        if type(raw) is bytes and raw.endswith(self._tail):
            text = raw[: -len(self._tail)] + b"}"
        mirrored.take(seq, event, text)

    def _begins(self, epoch: Any, at_us: int) -> bool:
        """Begin another epoch; return False if it is an old one.

        Raises:
            ValueError: It is none.
        """
        if type(epoch) is not str or not 0 < len(epoch) <= _LONGEST_EPOCH or type(at_us) is not int:
            raise ValueError("not an epoch")
        if epoch in self._ended or (self.report.state != "up" and at_us < self._began_us < math.inf):
            return False
        if self._bus.epoch:
            self._ended.add(self._bus.epoch)
            self.report.epochs += 1
            log.warning("the upstream began anew", source=self.section, epoch=epoch)
        self._mirrored.clear()
        self._began_us = at_us
        self._tail = b',"epoch":"%b"}' % epoch.encode()
        self.report.epoch = epoch
        self._bus.begin(epoch)
        return True

    def _begin(self, name: Any, seq: Any) -> Mirrored | None:
        """Return a topic that is new; None if it is not wanted."""
        if name in self._mirrored:
            return None
        if type(name) is not str or type(seq) is not int or seq < 1:
            raise ValueError("not a topic and number")
        if not self._wanted(name):
            self._mirrored[name] = None
            return None
        parts = Pattern(name)
        topic = self._bus.topic(parts.channel, parts.venue, parts.instrument)
        made = self._mirrored[name] = Mirrored(self._bus, topic, self.report, self._ask, seq)
        return made

    def _wanted(self, name: str) -> bool:
        parts = Pattern(name)
        if not parts.exact:
            raise ValueError("a pattern is no topic")
        if parts.channel in PRIVATE_CHANNELS:
            return "*" in self.accounts or parts.instrument in self.accounts
        return any(pattern.means(parts) for pattern in self._patterns)

    @staticmethod
    def _renews(mirrored: Mirrored, seq: int, message: dict[str, Any]) -> bool:
        """Return whether it is a book, made whole by another relay, at the number that we know."""
        return mirrored.bookless and seq == mirrored.tip and message["data"].get("kind") == "snapshot"

    def _read(self, messages: Sequence[bytes | dict[str, Any]], name: str = "") -> list[tuple[str, Arrived]]:
        """Return what was fetched of the present epoch, of one topic or of all."""
        found = []
        for raw in messages:
            try:
                message = raw if isinstance(raw, dict) else orjson.loads(raw)
                if message["epoch"] == self._bus.epoch and name in ("", message["topic"]):
                    topic, seq, event = wire.read(message)
                    found.append((topic, (seq, event, None)))
            except (DecodeError, ValueError, KeyError, TypeError) as e:
                self.report.unreadable += 1
                self.report.last_error = f"unreadable answer {str(raw)[:120]} ({e!r})"
        return sorted(found, key=lambda one: one[1][0])

    def refresh(self, messages: Sequence[bytes | dict[str, Any]]) -> None:
        """Take how things stand at the upstream, where less is known here."""
        known = dict(self._mirrored)
        for raw in messages:
            message = raw if isinstance(raw, dict) else orjson.loads(raw)
            name = str(message.get("topic"))
            mirrored = known.get(name)
            if mirrored is None:
                self._take(message)
            elif mirrored.bookless:
                self.fill(Hole(name, 0, 0), [message])
        self._bus.flush()
        self._look()

    # --- holes ----------------------------------------------------------------------------------------

    def _ask(self, hole: Hole) -> bool:
        """Ask the source to fill a hole; return whether it will."""
        if not self.repairs:
            return False
        try:
            self._holes.send_nowait(hole)
        except trio.WouldBlock:
            return False
        return True

    async def hole(self) -> Hole:
        """Wait for the next hole."""
        while True:
            hole = await self._found.receive()
            mirrored = self._mirrored.get(hole.topic)
            if mirrored is not None and mirrored.hole is hole:
                return hole

    def fill(self, hole: Hole, messages: Sequence[bytes | dict[str, Any]], *, complete: bool = False) -> bool:
        """Take what was found of a hole."""
        mirrored = self._mirrored.get(hole.topic)
        if mirrored is None:
            return True  # the epoch changed meanwhile
        found = [arrived for _, arrived in self._read(messages, hole.topic)]
        filled = mirrored.fill(hole, found, complete=complete)
        self._bus.flush()
        return filled

    # --- the upstream ---------------------------------------------------------------------------------

    def catching_up(self) -> None:
        """Note that the upstream is connected, and that its past comes."""
        self.report.state, self.report.reason = "catching_up", "the past of the upstream is being read"

    def up(self) -> None:
        """Note that the upstream is connected, and that its past was delivered."""
        if self.report.state != "up":
            log.info("upstream is there", source=self.section, epoch=self._bus.epoch)
        self.report.state, self.report.reason = "up", ""
        self._look()

    def lost(self, reason: str) -> None:
        """Note that the upstream is away."""
        if self.report.state not in ("lost", "connecting"):
            log.warning("upstream is away", source=self.section, reason=reason)
            self.report.reconnects += 1
        self.report.state, self.report.reason = "lost", reason
        self.report.last_error = reason
        self._look()

    def _look(self) -> None:
        """Let readers know how the upstream is, if that changed."""
        report, known = self.report, self._bus.upstream
        if report.state == "up" and self._bus.epoch:
            self._bus.heard(Upstream("", open=True))
        elif report.state == "lost":
            self._bus.heard(attrs.evolve(known, away=report.reason))

    def list_instruments(self, venue: str, market: str, instruments: Sequence[Instrument]) -> None:
        """Take what the upstream knows of one market."""
        self._directory.put(InstrumentMap(venue, market, instruments))

    # --- for operators --------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status` and `/metrics`."""
        report = attrs.asdict(self.report)
        last_ns = report.pop("last_message_ns")
        age_s = None if last_ns is None else max(self._now_ns() - last_ns, 0) / 1e9
        return {"name": self.section, **report, "last_message_age_s": age_s}
