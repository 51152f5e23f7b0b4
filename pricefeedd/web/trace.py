"""What ties together all lines of the log that follow from one request: its `trace_id`.

A proxy or client may give one, by `X-Request-ID` or by `traceparent` (https://www.w3.org/TR/trace-context/#traceparent-header);
the answer bears it as `X-Request-ID`.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

import structlog

from pricefeedd.web.keys import Named

HEADER: Final = "X-Request-ID"

#: What may be taken from a stranger into the log and a header; longer or odder ones are passed over.
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/=-]{0,99}")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id_of(headers: Named) -> str:
    """Return the id that a request brings; a new one if it brings none."""
    given = (headers.get(HEADER) or "").strip()
    if _SANE.fullmatch(given):
        return given
    parent = _TRACEPARENT.fullmatch((headers.get("traceparent") or "").strip())
    return parent[1] if parent else secrets.token_hex(16)


def bind(trace_id: str) -> None:
    """Put it on all lines that the present task, and tasks begun by it, log from now on."""
    structlog.contextvars.bind_contextvars(trace_id=trace_id)
