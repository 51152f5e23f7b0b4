"""Log lines: constant messages with facts as keys, for people, for machines or for systemd's journal.

Lines come from structlog loggers and from those of the standard library (`extra={...}` are the keys); both
take the same way:

    repeats ──▶ facts, time ──▶ redact ──▶ recent ──▶ text ──▶ output
    held back    trace_id       secrets    the last    json    a thread
    and counted                 struck out 500 lines   ...     writes

All of it belongs to the process: a second `configure` replaces the first.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, TextIO

import attrs
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pricefeedd.logs.levels import BACK, LEVELS, MORE, Levels, check
from pricefeedd.logs.lines import FORMATS, detect, redact, renderer
from pricefeedd.logs.output import Output
from pricefeedd.logs.recent import Recent
from pricefeedd.logs.repeats import Repeats, Summary, key_of

__all__ = [
    "LEVELS",
    "SIGNALS",
    "change_level",
    "configure",
    "describe",
    "flush",
    "heard",
    "levels",
    "recent",
    "set_level",
]

log = structlog.get_logger("pricefeedd.logs")

#: The same line is not written again for so long.
REPEAT_S: Final = 10.0

#: Signals that `heard` obeys, where the system has them.
SIGNALS: Final = tuple(number for number in (MORE, BACK) if number is not None)

#: They log each request, and each migration, at info; ours say what matters of it.
_CHATTY: Final = ("httpx", "httpcore", "hpack", "alembic")

#: What every record of the standard library has; the rest is what `extra` brought.
_RECORDS_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


@attrs.define
class _Ways:
    """What the lines of the process pass through."""

    repeats: Repeats
    output: Output


#: The last lines.
recent = Recent()
#: The least that is logged.
levels = Levels()

_ways: _Ways | None = None
_lock = threading.Lock()


def configure(
    level: str = "info",
    format: str = "auto",  # noqa: A002  # the configuration's word
    stream: TextIO | None = None,
    *,
    repeat_s: float = REPEAT_S,
) -> None:
    """Send all log lines of the process to one stream; a second call replaces the first.

    Args:
        level: `debug`, `info`, `warning`, `error`; `critical` is as good as silence.
        format: `json`, `console`, `journal`; `auto` looks at what the stream is.
        stream: stderr by default; then warnings, and an exception that ends the process, become lines too.
        repeat_s: The same line is not written again for so long, but counted; 0 writes each.

    Raises:
        ValueError: Unknown level or format.
    """
    global _ways
    check(level)
    if format not in FORMATS:
        raise ValueError(f"unknown log format {format!r}; there is {', '.join(FORMATS)}")
    if stream is None:
        stream = sys.stderr
        logging.captureWarnings(True)
        sys.excepthook = _crashed
    chosen = detect(stream, os.environ) if format == "auto" else format
    first: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
    ]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _hold_back,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    colours = chosen == "console" and stream is not None and stream.isatty()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[*first, redact, recent.keep, *renderer(chosen, colours=colours)],
    )

    def excuse(dropped: int) -> str:
        record = logging.makeLogRecord(
            {"name": log.name, "levelno": logging.WARNING, "levelname": "WARNING", "dropped": dropped}
            | {"msg": "log lines dropped: the reader of the log did not keep up"}
        )
        return formatter.format(record)

    before = _ways
    if before is not None and before.output.leads_to(stream):
        output = before.output  # what waits there is not waited for
        output.excuse = excuse
    else:
        output = Output(stream, chores=_chores, excuse=excuse)
        if before is not None:
            before.output.close()
    with _lock:
        _ways = _Ways(Repeats(repeat_s), output)
    levels.wake = output.wake
    handler = _Handler(output)
    handler.setFormatter(formatter)
    logging.getLogger().handlers = [handler]
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    levels.configure(level)


def set_level(level: str) -> None:
    """Change the least that is logged, as configured, from now on.

    Raises:
        ValueError: Unknown level.
    """
    levels.configure(level)


def heard(number: int) -> bool:
    """Obey a signal that changes the level; return whether it was one (of `SIGNALS`)."""
    obeyed = levels.heard(number)
    if obeyed:
        _tell_level()
    return obeyed


def change_level(level: str, for_s: float | None = None) -> None:
    """Change the least that is logged, whatever is configured.

    Args:
        for_s: Then it goes back to what is configured; None lets it stay.

    Raises:
        ValueError: Unknown level.
    """
    levels.change(level, for_s)
    _tell_level(for_s=for_s)


def _tell_level(**more: object) -> None:
    # Not below the level that it tells of, or nobody would see it.
    log.log(
        max(logging.getLogger().level, logging.INFO),
        "log level changed",
        now=levels.current,
        configured=levels.configured,
        **more,
    )


def flush(within_s: float = 1.0) -> bool:
    """Wait until all lines are written; return whether that was in time."""
    return _ways is None or _ways.output.flush(within_s)


def describe() -> dict[str, int]:
    """Return how many lines were held back as repeats, and how many dropped because nobody read them."""
    if _ways is None:
        return {"repeated": 0, "dropped": 0}
    return {"repeated": _ways.repeats.held, "dropped": _ways.output.dropped}


class _Handler(logging.Handler):
    """Hands lines over to the output."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        ours = isinstance(record.msg, dict) and hasattr(record, "_logger")
        if not ours and not _admit_foreign(record):
            return
        try:
            self._output.put(self.format(record))
        except Exception as e:  # noqa: BLE001  # a fact that cannot be shown ends nothing
            self._output.put(f"a log line of {record.name} cannot be shown: {type(e).__name__}")


def _hold_back(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Let a line of structlog through, or drop it as a repeat before it costs anything."""
    if "repeated" in event:
        return event
    level = {"exception": "error", "warn": "warning"}.get(method, method)
    error = event.get("exc_info")
    shown = sys.exc_info()[1] if error is True or (error is None and method == "exception") else error
    facts = {name: value for name, value in event.items() if name not in ("event", "exc_info", "stack_info")}
    if not _admit(level, logger.name, str(event.get("event", "")), facts, shown):
        raise structlog.DropEvent
    return event


def _admit_foreign(record: logging.LogRecord) -> bool:
    facts = {name: value for name, value in vars(record).items() if name not in _RECORDS_OWN}
    if "repeated" in facts:
        return True
    shown = record.exc_info[1] if record.exc_info else None
    return _admit(record.levelname.lower(), record.name, record.getMessage(), facts, shown)


def _admit(level: str, logger: str, message: str, facts: Mapping[str, Any], shown: object) -> bool:
    ways = _ways
    if ways is None:
        return True
    # The key is made outside of the lock: to show a fact may take somebody else's code.
    key = key_of(level, logger, message, facts, shown if isinstance(shown, BaseException) else None)
    with _lock:
        waits = ways.repeats.waits
        written, before = ways.repeats.admit(key, facts, time.monotonic())
        wake = not waits and ways.repeats.waits
    _tell(before)
    if wake:
        ways.output.wake()
    return written


def _tell(summaries: list[Summary]) -> None:
    for summary in summaries:
        said = structlog.get_logger(summary.logger)
        said.log(
            logging.getLevelNamesMapping()[summary.level.upper()],
            summary.message,
            **summary.facts,
            repeated=summary.repeated,
        )


def _chores() -> float | None:
    """Do what is due; return in how many seconds there is more to do. Called on the output's thread."""
    ways = _ways
    if ways is None:
        return None
    with _lock:
        ended = ways.repeats.ended(time.monotonic())
        due_s = ways.repeats.due_s(time.monotonic())
    _tell(ended)
    if levels.lapse():
        _tell_level()
    return min((s for s in (due_s, levels.due_s) if s is not None), default=None)


def _crashed(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    log.critical("crashed", exc_info=(kind, error, traceback))
    flush()


@atexit.register
def _end() -> None:
    if _ways is not None:
        with _lock:
            rest = _ways.repeats.rest()
        _tell(rest)
        _ways.output.close()
