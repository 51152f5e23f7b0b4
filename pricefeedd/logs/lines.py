"""How a line looks: for people, for machines, for systemd's journal; and that no secret is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

FORMATS: Final = ("auto", "json", "console", "journal")

#: Priorities of syslog(3), which systemd reads from the start of a line; sd-daemon(3).
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_SECRET_KEYS: Final = re.compile(
    r"(^|_)(api_?key|api_?secret|secret|passphrase|password|token|authorization|cookie|signature)$",
    re.IGNORECASE,
)
_SECRET_TEXTS: Final = (
    (re.compile(r"((?:api_?key|token|signature|sign|listenKey)=)[^&\s\"']+", re.IGNORECASE), r"\1***"),
    (re.compile(r"((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]+"), r"\1***"),
    # Not \w+ before it: on a long text without any, that would look from each letter to the end.
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), r"\1***@"),
)


def detect(stream: TextIO | None, environ: Mapping[str, str]) -> str:
    """Return `journal` if the stream leads there, `console` for a terminal, else `json`."""
    if stream is None:
        return "json"
    try:
        status = os.fstat(stream.fileno())
        # systemd names the journal's socket by device and inode, so that a redirected stream is not taken for it.
        if environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
            return "journal"
    except (OSError, ValueError):  # ValueError: the stream is closed
        return "json"
    return "console" if stream.isatty() else "json"


def renderer(chosen: str, *, colours: bool) -> list[Processor]:
    """Return what makes text of a line's facts."""
    if chosen == "console":
        # Not rich tracebacks: they show local variables, and those hold secrets.
        return [
            structlog.dev.ConsoleRenderer(
                colors=colours, exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
            )
        ]
    if chosen == "json":
        return [
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_dumps),
        ]
    return [_journal_line]


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
