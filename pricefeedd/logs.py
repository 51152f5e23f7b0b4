"""Log lines: constant messages with facts as keys, for people, for machines or for systemd's journal.

Lines come from structlog loggers and from those of the standard library (`extra={...}` are the keys); both
take the same way. What looks like a secret is struck out.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

FORMATS = ("auto", "json", "console", "journal")

#: Priorities of syslog(3), which systemd reads from the start of a line; sd-daemon(3).
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_SECRET_KEYS = re.compile(
    r"(^|_)(api_?key|api_?secret|secret|passphrase|password|token|authorization|cookie|signature)$",
    re.IGNORECASE,
)
_SECRET_TEXTS = (
    (re.compile(r"((?:api_?key|token|signature|sign|listenKey)=)[^&\s\"']+", re.IGNORECASE), r"\1***"),
    (re.compile(r"((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]+"), r"\1***"),
    (re.compile(r"(\w+://[^\s/:@]*:)[^\s/@]+@"), r"\1***@"),
)


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:  # noqa: A002  # the configuration's word
    """Send all log lines of the process to one stream; a second call replaces the first.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        format: `json`, `console`, `journal`; `auto` looks at what the stream is.
        stream: stderr by default.

    Raises:
        ValueError: Unknown level or format.
    """
    stream = sys.stderr if stream is None else stream
    chosen = _detect(stream, os.environ) if format == "auto" else format
    if chosen not in FORMATS:
        raise ValueError(f"unknown log format {format!r}; there is {', '.join(FORMATS)}")
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
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(chosen, colours=stream.isatty()),
            ],
        )
    )
    logging.getLogger().handlers = [handler]
    # They log each request, and each migration, at info; ours say what matters of it.
    for chatty in ("httpx", "httpcore", "hpack", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Change the least that is logged, from now on.

    Raises:
        ValueError: Unknown level.
    """
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise ValueError(f"unknown log level {level!r}; there is debug, info, warning, error")
    logging.getLogger().setLevel(known[level.upper()])


def _detect(stream: TextIO, environ: Mapping[str, str]) -> str:
    """Return `journal` if the stream leads there, `console` for a terminal, else `json`."""
    try:
        status = os.fstat(stream.fileno())
        # systemd names the journal's socket by device and inode, so that a redirected stream is not taken for it.
        if environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
            return "journal"
    except OSError:
        pass
    return "console" if stream.isatty() else "json"


def _renderers(chosen: str, *, colours: bool) -> list[Processor]:
    last: list[Processor]
    if chosen == "console":
        # Not rich tracebacks: they show local variables, and those hold secrets.
        last = [
            structlog.dev.ConsoleRenderer(
                colors=colours, exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
            )
        ]
    elif chosen == "json":
        last = [
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_dumps),
        ]
    else:
        last = [_journal_line]
    return [structlog.processors.format_exc_info, redact, *last]


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Strike out what looks like a secret: by the key's name, and in URLs and headers within texts."""
    for key, value in event.items():
        event[key] = "***" if _SECRET_KEYS.search(key) and value else _without_secrets(value)
    return event


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        for pattern, replacement in _SECRET_TEXTS:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, Mapping):
        return {
            k: "***" if _SECRET_KEYS.search(str(k)) and v else _without_secrets(v) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value


def _dumps(event: MutableMapping[str, Any], **_: Any) -> str:
    # A line never fails for the oddity of its facts, such as a number that JSON readers cannot take.
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        plain = {str(key): value if isinstance(value, str) else repr(value) for key, value in event.items()}
        return orjson.dumps(plain).decode()


def _journal_line(_: WrappedLogger, __: str, event: EventDict) -> str:
    """Return `<priority>message key=value ...`; the journal adds the time by itself."""
    event.pop("time", None)
    level = str(event.pop("level", "info"))
    message = str(event.pop("event", ""))
    exception = event.pop("exception", "")
    facts = "".join(f" {key}={_fact(value)}" for key, value in event.items())
    prefix = f"<{_PRIORITIES.get(level, 6)}>"
    # Each line is a record of its own to the journal, so each needs the priority.
    return "\n".join(prefix + line for line in f"{message}{facts}\n{exception}".rstrip("\n").split("\n"))


def _fact(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return orjson.dumps(text).decode() if not text or re.search(r'[\s"=]', text) else text
