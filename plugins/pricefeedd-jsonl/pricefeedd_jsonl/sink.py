"""The sink: lines are gathered on Trio's loop, and written in batches in a thread."""

from __future__ import annotations

import time

import structlog
import trio

from pricefeedd.envelope import epoch_tail
from pricefeedd.hookspecs import Lanes
from pricefeedd_jsonl.files import HOUR_NS, Files
from pricefeedd_jsonl.settings import JsonlSettings

log = structlog.get_logger("pricefeedd.jsonl")

#: So many bytes are written without waiting for more; twice as many are gathered before the lanes have to wait.
_BATCH_BYTES = 1 << 20
#: After so many messages the other tasks have their turn.
_TURN = 256
#: Between attempts to write; the last one for ever.
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)


class Recorder:
    """One life of the sink."""

    def __init__(self, settings: JsonlSettings, lanes: Lanes) -> None:
        self._settings = settings
        self._lanes = lanes
        self._report = lanes.report
        # Lines by the hour of what they tell, since the Unix epoch.
        self._gathered: dict[int, list[bytes]] = {}
        self._bytes = 0
        self._ended = trio.Event()
        self._news = trio.Event()
        self._enough = trio.Event()
        self._room = trio.Event()

    async def run(self) -> None:
        """Write until the lanes end, and then what is left."""
        files = Files(self._settings, lambda: self._lanes.state_dir)
        try:
            await trio.to_thread.run_sync(files.prepare)
            self._tell("")
        except OSError as e:
            self._tell(_said(e))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._gather)
                await self._write_all(files)
        finally:
            # Not in a thread: one that hangs may still be in there, and to close is all that is left to do.
            files.close()

    async def _gather(self) -> None:
        try:
            while True:
                deliveries = await self._lanes.receive()
                tail = epoch_tail(self._lanes.epoch) + b"\n"
                for number, delivery in enumerate(deliveries, 1):
                    if not number % _TURN:
                        await trio.lowlevel.checkpoint()
                    # The hour is of the message and not of a clock: a replay makes the same files.
                    hour = delivery.event.received_ns // HOUR_NS
                    line = delivery.text[:-1] + tail
                    self._gathered.setdefault(hour, []).append(line)
                    self._bytes += len(line)
                    self._report.waiting += 1
                    self._news.set()
                if self._bytes >= _BATCH_BYTES:
                    self._enough.set()
                if self._bytes >= 2 * _BATCH_BYTES:
                    # From here on the lanes apply: state keeps the newest, events are dropped and counted there.
                    await self._room.wait()
        except trio.EndOfChannel:
            self._ended.set()
            self._news.set()
            self._enough.set()

    async def _write_all(self, files: Files) -> None:
        while True:
            await self._news.wait()
            with trio.move_on_after(self._settings.flush_s):
                await self._enough.wait()
            groups, self._gathered = self._gathered, {}
            self._bytes = 0
            self._room.set()
            self._room = trio.Event()
            ended = self._ended.is_set()
            if not ended:
                self._news = trio.Event()
                self._enough = trio.Event()
            if groups:
                await self._write(files, groups)
            if ended:
                return

    async def _write(self, files: Files, groups: dict[int, list[bytes]]) -> None:
        """Write lines, again and again until that succeeds; at the end of everything only once."""
        report = self._report
        attempt = 0
        while True:
            left = sum(map(len, groups.values()))
            try:
                await trio.to_thread.run_sync(
                    files.write, groups, trio.current_time(), self._lanes.may_send, abandon_on_cancel=True
                )
                reason = ""
            except OSError as e:
                reason = _said(e)
            written = left - sum(map(len, groups.values()))
            if written:
                report.delivered += written
                report.waiting -= written
                report.last_delivered_ns = time.time_ns()
            report.gauges = {"written_bytes": files.bytes, "open_files": files.count}
            if groups and not reason:
                await trio.sleep_forever()  # another daemon may lead: we are cancelled soon
            self._tell(reason)
            if not reason:
                return
            if self._ended.is_set():
                report.drop("unwritten", left - written)
                report.waiting -= left - written
                return
            with trio.move_on_after(_RETRY_S[min(attempt, len(_RETRY_S) - 1)]):
                await self._ended.wait()
            attempt += 1

    def _tell(self, reason: str) -> None:
        """Say that it works, or why it does not."""
        report, was = self._report, self._report.state
        report.state, report.reason = "down" if reason else "up", reason
        if reason:
            report.last_error = reason
        if reason and was != "down":
            log.warning("sink is down", sink=self._lanes.section, reason=reason)
        elif not reason and was == "down":
            log.info("sink is up again", sink=self._lanes.section)


def _said(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    return f"cannot write{where}: {error.strerror or error}"
