"""How `/status` describes a sink, for the documentation."""

from __future__ import annotations

from typing import Final

from pricefeedd.web.operation import COUNT, MAYBE_WHEN, TEXT
from pricefeedd.web.schema import Schema, closed, described

STATES: Final = ("connecting", "up", "blocked", "down")

_COUNTS: Final[Schema] = {"type": "object", "additionalProperties": COUNT}
_MAYBE_SECONDS: Final[Schema] = {"type": ["number", "null"]}

#: One sink in `/status`.
SINK: Final[Schema] = closed(
    {
        "state": {"enum": list(STATES)},
        "reason": described(TEXT, "Why it is not up."),
        "delivered": described(COUNT, "Messages that arrived, as far as the sink can know."),
        "dropped": described(_COUNTS, "Messages that are lost, by reason."),
        "waiting": described(COUNT, "Messages that the sink holds and that were not delivered yet."),
        "lane_bytes": described(COUNT, "Bytes of events and books that the sink has not taken yet."),
        "reconnects": COUNT,
        "queues": described(_COUNTS, "Messages that wait at the other side."),
        "gauges": {"type": "object", "additionalProperties": {"type": "number"}},
        "last_error": TEXT,
        "last_delivered": MAYBE_WHEN,
        "spool": {
            "anyOf": [
                closed(
                    {
                        "records": COUNT,
                        "bytes": COUNT,
                        "limit_bytes": COUNT,
                        "pending": described(COUNT, "Events in memory that are not on disk yet."),
                        "damaged": described(COUNT, "Records that the disk did not keep as they were."),
                        "oldest_age_s": _MAYBE_SECONDS,
                        "trouble": described(TEXT, "Why the disk takes nothing now."),
                    }
                ),
                {"type": "null"},
            ],
            "description": "What waits on disk because it may not be lost; null if the sink keeps nothing.",
        },
        "concerns": described({"type": "array", "items": TEXT}, "What `/ready` says of it."),
    }
)
