"""Where lines go: a thread writes them, so that nobody who logs ever waits.

A write to a pipe that nobody reads, or to a journal that hangs, blocks once the kernel's buffer is full (64 kB of a
pipe); on Trio's own thread that would stop the feed.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final, TextIO

#: Most bytes that wait to be written.
LIMIT_BYTES: Final = 1_048_576

#: How long the end of the process waits for what is not written yet.
FLUSH_S: Final = 1.0


class Output:
    """A stream, and the thread that writes to it and does the chores of logging.

    Attributes:
        dropped: Lines that were not written: too many waited, or the stream is broken.
        excuse: Makes the line that says how many were dropped.
    """

    def __init__(
        self,
        stream: TextIO | None,
        *,
        chores: Callable[[], float | None] = lambda: None,
        excuse: Callable[[int], str] = lambda dropped: f"{dropped} log lines dropped",
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """Prepare to write; the thread begins with the first line.

        Args:
            stream: None throws all away.
            chores: Called now and then on the thread; returns in how many seconds there is more to do.
            limit_bytes: Most that waits.
        """
        self.dropped = 0
        self._chores = chores
        self.excuse = excuse
        self._limit_bytes = limit_bytes
        self._stream = stream
        self._fd = _descriptor(stream)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._untold = 0
        self._busy = False
        self._woken = False
        self._closed = False
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def leads_to(self, stream: TextIO | None) -> bool:
        """Return whether it writes to that very stream, and goes on doing so."""
        return self._stream is stream and not self._closed

    def put(self, line: str) -> None:
        """Have a line written; never waits, and drops it where it would have to."""
        if self._stream is None:
            return
        if self._fd is None:
            self._write_directly(line)
            return
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._closed or self._waiting_bytes + len(data) > self._limit_bytes:
                self.dropped += 1
                self._untold += 1
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._wake()

    def wake(self) -> None:
        """Have the chores looked at, now."""
        with self._changed:
            self._woken = True
            self._wake()

    def flush(self, within_s: float = FLUSH_S) -> bool:
        """Wait until all is written; return whether it was in time."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while self._busy or self._waiting:
                rest = deadline - time.monotonic()
                if rest <= 0 or not self._changed.wait(rest):
                    return not (self._busy or self._waiting)
        return True

    def close(self, within_s: float = FLUSH_S) -> None:
        """End the thread, once all is written or the time is over."""
        with self._changed:
            if self._thread is not None and not self._closed:
                self._closed = True
                self._wake()
        self.flush(within_s)

    def _wake(self) -> None:
        if self._thread is None:
            # A daemon: one that hangs in a write does not hold the process up.
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            wait_s = self._chores()
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                if not (self._waiting or self._woken or self._closed):
                    self._changed.wait(wait_s)
                self._woken = False
                if self._closed and not self._waiting:
                    return
                batch, self._waiting = self._waiting, []
                untold, self._untold = self._untold, 0
                self._busy = bool(batch)
            if batch:
                failed = not self._write(b"".join(batch))
                if untold and not failed:
                    self._write(self.excuse(untold).encode() + b"\n")
                with self._changed:
                    # What waits is bounded together with what is being written.
                    self._waiting_bytes -= sum(map(len, batch))
                    self.dropped += len(batch) if failed else 0

    def _write(self, data: bytes) -> bool:
        assert self._fd is not None
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # whoever shares the stream made it so
                select.select([], [self._fd], [], 1.0)
            except OSError:
                return False
        return True

    def _write_directly(self, line: str) -> None:
        """Write to what is no file of the system's: it is memory, and does not block."""
        assert self._stream is not None
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            self.dropped += 1


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):
        return None
