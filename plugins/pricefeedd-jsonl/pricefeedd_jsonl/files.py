"""The files of the record, written in a thread: one for each hour, and another part after each restart.

Everything here blocks. A file is a row of whole frames (gzip: members) at any time, and without compression of whole
lines: each write is one, and what fails half-way is cut off again.
"""

from __future__ import annotations

import gzip
import os
import re
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import attrs

from pricefeedd_jsonl.settings import COMPRESSIONS, STDOUT, JsonlSettings

HOUR_NS = 3_600_000_000_000

#: Hours that are open at a time: what was received in the last minute of one may be written in the next.
_OPEN = 3
#: A file of an hour that is over is closed after so long without a message.
_LINGER_S = 60.0

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_FILE = re.compile(r"\d\d(\.\d+)?\.jsonl(\.gz|\.zst)?")


def compressor(settings: JsonlSettings) -> Callable[[bytes], bytes]:
    """Return what makes lines a frame of their own, that can be read whatever comes after it."""
    level = settings.level or COMPRESSIONS[settings.compression][3]
    if settings.compression == "gzip":
        return lambda lines: gzip.compress(lines, level, mtime=0)
    if settings.compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=level).compress
    return bytes


@attrs.define
class _File:
    """An open file, or stdout.

    Attributes:
        path: None for stdout.
        size: Bytes of it that are whole.
        written: When it was written last, seconds of the caller's clock.
    """

    descriptor: int
    path: Path | None
    size: int = 0
    written: float = 0.0
    _begun: int = 0

    def append(self, data: bytes) -> None:
        """Write all of it, or nothing; of stdout nothing can be taken back, there the same data goes on the next time.

        Raises:
            OSError: It could not be written.
        """
        rest = memoryview(data)[self._begun :]
        try:
            while rest:
                try:
                    rest = rest[os.write(self.descriptor, rest) :]
                except BlockingIOError:
                    select.select((), (self.descriptor,), ())  # stdout may be shared with who set it so
        except OSError:
            if self.path is None:
                self._begun = len(data) - len(rest)
            else:
                os.ftruncate(self.descriptor, self.size)
            raise
        self._begun = 0
        self.size += len(data)

    @property
    def whole(self) -> bool:
        """Whether it is still there, and as it was left."""
        if self.path is None:
            return True
        try:
            status = os.fstat(self.descriptor)
        except OSError:
            return False
        return status.st_nlink > 0 and status.st_size == self.size


class Files:
    """The files of one sink.

    Attributes:
        bytes: Written so far.
    """

    def __init__(self, settings: JsonlSettings, directory: Callable[[], Path]) -> None:
        """Prepare to write.

        Args:
            directory: Returns what `{state_dir}` stands for; it may fail, as writing may.
        """
        self.bytes = 0
        self._stdout = settings.path == STDOUT
        self._path = settings.path
        self._directory = directory
        self._root = Path()
        self._suffix = f".jsonl{COMPRESSIONS[settings.compression][0]}"
        self._compress = compressor(settings)
        self._keep_days = settings.keep_days
        self._open: dict[int, _File] = {}
        self._newest = 0
        self._tidied: date | None = None

    @property
    def count(self) -> int:
        """Files that are open."""
        return len(self._open)

    def write(self, groups: dict[int, list[bytes]], now: float, may_write: Callable[[], bool]) -> None:
        """Write lines, by their hours since the Unix epoch; each hour that is written is taken out of `groups`.

        Args:
            now: Seconds of a clock that never goes back.
            may_write: Asked right before each hour is written; if not, the rest stays in `groups`.

        Raises:
            OSError: The rest could not be written; it may be tried again.
        """
        for hour in list(groups):
            data = self._compress(b"".join(groups[hour]))
            file = self._file(hour)
            if not may_write():
                return
            file.append(data)
            file.written = now
            self.bytes += len(data)
            del groups[hour]
            self._newest = max(self._newest, hour)
        for hour, file in list(self._open.items()):
            if hour < self._newest and now - file.written > _LINGER_S:
                self._close(hour)

    def prepare(self) -> None:
        """Make the directory, so that what is wrong with it is known at once.

        Raises:
            OSError: That failed.
        """
        if self._stdout:
            return
        path = self._path
        if "{state_dir}" in path:
            path = path.replace("{state_dir}", str(self._directory()))
        self._root = Path(path)
        self._root.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Close all files."""
        for hour in list(self._open):
            self._close(hour)

    # --- one file -----------------------------------------------------------------------------------------

    def _file(self, hour: int) -> _File:
        hour = 0 if self._stdout else hour
        file = self._open.get(hour)
        if file is not None and not file.whole:
            self._close(hour)
            file = None
        if file is None:
            if len(self._open) >= _OPEN:
                self._close(min(self._open, key=lambda other: self._open[other].written))
            file = self._open[hour] = self._begin(hour)
        return file

    def _begin(self, hour: int) -> _File:
        """Open a file that was not there: one that a crash may have torn is left as it is."""
        if self._stdout:
            sys.stdout.flush()
            return _File(os.dup(1), None)
        self.prepare()
        at = datetime.fromtimestamp(hour * 3600, UTC)
        folder = self._root / f"{at:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        self._tidy(at.date())
        part = 0
        while True:
            path = folder / (f"{at:%H}.{part}{self._suffix}" if part else f"{at:%H}{self._suffix}")
            try:
                return _File(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640), path)
            except FileExistsError:
                part += 1

    def _close(self, hour: int) -> None:
        file = self._open.pop(0 if self._stdout else hour)
        with suppress(OSError):  # some file systems tell only now that they could not write
            os.close(file.descriptor)

    # --- retention ----------------------------------------------------------------------------------------

    def _tidy(self, day: date) -> None:
        """Remove files that are too old, once for each day that begins."""
        if self._keep_days is None or day == self._tidied:
            return
        self._tidied = day
        # The earlier of the two, so that neither a clock nor a venue that is wrong makes us remove too much.
        first = min(day, datetime.now(UTC).date()) - timedelta(days=self._keep_days)
        for folder in list(self._root.iterdir()):
            if not _DAY.fullmatch(folder.name) or folder.name >= first.isoformat():
                continue
            with suppress(OSError):  # what cannot be removed is tried again the next day
                for path in list(folder.iterdir()):
                    if _FILE.fullmatch(path.name):
                        path.unlink()
                folder.rmdir()
