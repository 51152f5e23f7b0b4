"""`/openapi.json` of the log."""

from __future__ import annotations

from typing import Any, Final

from pricefeedd import logs
from pricefeedd.logs.recent import LEVELS
from pricefeedd.web.http import Query
from pricefeedd.web.log import LEVEL_PATH, PATH, LevelOrder, LogQuery
from pricefeedd.web.operation import COUNT, MAYBE_WHEN, TEXT, WHEN, Operation, open_object
from pricefeedd.web.schema import closed, described

_WHO: Final = (
    "Where keys are configured, it needs one with the scope `admin`; where none are, it must be asked by a program of this "
    "machine."
)
_LINE: Final = open_object(
    {
        "number": described(COUNT, "Counts up by one with each line of level `info` and above."),
        "time": WHEN,
        "level": {"enum": [level for level in LEVELS if level != "debug"]},
        "message": described(TEXT, "Constant; what differs is in the other keys."),
        "logger": TEXT,
    }
)
_EXAMPLE: Final[dict[str, Any]] = {
    "number": 41,
    "time": "2026-01-01T00:00:00.123456Z",
    "level": "warning",
    "message": "session lost",
    "logger": "pricefeedd.supervisor",
    "venue": "kraken",
    "reason": "the connection was closed",
    "attempt": 1,
    "delay_s": 0.4,
}
_LEVEL: Final = closed(
    {
        "level": {"enum": list(logs.LEVELS)},
        "configured": described({"enum": list(logs.LEVELS)}, "What the configuration says."),
        "until": described(MAYBE_WHEN, "When it goes back to that; null if it stays."),
        "repeated": described(COUNT, "Lines that were held back because they said the same as one before."),
        "dropped": described(COUNT, "Lines that nobody read in time."),
    }
)
_LEVEL_EXAMPLE: Final = {
    "level": "debug",
    "configured": "info",
    "until": "2026-01-01T00:10:00+00:00",
    "repeated": 0,
    "dropped": 0,
}
_UNAUTHENTICATED: Final = {"error": "the key is not known here", "code": "AUTHENTICATION_FAILED"}
_FORBIDDEN: Final = {"error": "the key 'me' lacks the scope 'admin'", "code": "FORBIDDEN"}

LOG: Final = (
    Operation(
        path=PATH,
        name="log",
        summary="The last lines of the log",
        about="Those of level `info` and above that are kept, without secrets and tracebacks; ask with `next` for what came "
        f"since. `missed` counts lines in between that are not kept any longer. {_WHO}",
        query=LogQuery,
        schema=closed({"lines": {"type": "array", "items": _LINE}, "next": COUNT, "missed": COUNT}),
        example={"lines": [_EXAMPLE], "next": 41, "missed": 0},
        refused={401: _UNAUTHENTICATED, 403: _FORBIDDEN},
        scope="admin",
    ),
    Operation(
        path=LEVEL_PATH,
        name="logging",
        summary="How much is logged",
        about=_WHO,
        query=Query,
        schema=_LEVEL,
        example=_LEVEL_EXAMPLE,
        refused={401: _UNAUTHENTICATED, 403: _FORBIDDEN},
        scope="admin",
    ),
    Operation(
        path=LEVEL_PATH,
        name="change_logging",
        method="put",
        summary="Change how much is logged",
        about=f"At once, and for all of the process. {_WHO}",
        body=LevelOrder,
        schema=_LEVEL,
        example=_LEVEL_EXAMPLE,
        refused={
            400: {
                "error": "level: expected one of debug, info, warning, error, found 'loud'",
                "code": "BAD_REQUEST",
                "parameter": "level",
            },
            401: _UNAUTHENTICATED,
            403: _FORBIDDEN,
        },
        scope="admin",
    ),
)
