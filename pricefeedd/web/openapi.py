"""`/openapi.json`: all HTTP paths as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import attrs
import orjson

from pricefeedd import __version__
from pricefeedd.events import State
from pricefeedd.instruments import MARKETS
from pricefeedd.web import fields
from pricefeedd.web.api import FeedsQuery
from pricefeedd.web.fields import Topics, field_schema
from pricefeedd.web.http import Query
from pricefeedd.web.messages import EVENTS, INSTRUMENT_EXAMPLE, LATEST_RESULTS, SHARED
from pricefeedd.web.reading import InstrumentsQuery, LatestQuery
from pricefeedd.web.schema import Schema, closed, described, of
from pricefeedd.web.sse import StreamQuery, event_of

VERSION: Final = "3.1.0"

#: Names of the ways to show a key.
KEYS: Final[dict[str, dict[str, str]]] = {
    "header": {"type": "apiKey", "name": "X-API-Key", "in": "header"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "query": {"type": "apiKey", "name": "api_key", "in": "query"},
}

_TEXT: Final[Schema] = {"type": "string"}
_WHEN: Final[Schema] = {"type": "string", "format": "date-time"}
_MAYBE_WHEN: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_COUNTS: Final[Schema] = {"type": "object", "additionalProperties": _COUNT}
_BREAKER: Final[Schema] = {"enum": ["closed", "half-open", "open"]}
_EXAMPLE_TIME: Final = "2026-01-01T00:00:00.123+00:00"

ERROR: Final = closed(
    {
        "error": {"type": "string", "description": "For people: what is wrong, and what to do."},
        "code": {"type": "string", "pattern": "^[A-Z][A-Z_]*$", "description": "For programs."},
        "parameter": {"type": "string", "description": "The parameter that is at fault."},
        "did_you_mean": {"type": "array", "items": _TEXT, "description": "The nearest words that exist."},
        "results": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Each topic with what is wrong.",
        },
    },
    optional=("parameter", "did_you_mean", "results"),
)
_ERROR_EXAMPLES: Final = {
    400: {"error": "limit: expected a whole number from 1 to 10000, found 'many'", "code": "BAD_REQUEST", "parameter": "limit"},
    401: {"error": "the key is not known here", "code": "UNAUTHORISED"},
    403: {"error": "pages of this origin may not read here", "code": "FORBIDDEN"},
    404: {"error": "unknown venue 'binanse'", "code": "UNKNOWN_VENUE", "parameter": "venue", "did_you_mean": ["binance"]},
    503: {"error": "as many clients as max_clients are connected", "code": "LIMIT"},
}  # fmt: skip


def _open(properties: dict[str, Schema]) -> Schema:
    """Return the schema of an object that may grow."""
    return closed(properties) | {"additionalProperties": True}


_MARKET: Final = {
    "active_connections": _COUNT,
    "last_message_time": _MAYBE_WHEN,
    "total_messages": _COUNT,
    "total_errors": _COUNT,
    "circuit_state": _BREAKER,
    "healthy": {"type": "boolean"},
}
_MARKET_EXAMPLE: Final = {
    "active_connections": 1,
    "last_message_time": _EXAMPLE_TIME,
    "total_messages": 81_220,
    "total_errors": 0,
    "circuit_state": "closed",
    "healthy": True,
}


def _venues(market: Schema) -> Schema:
    """Return the schema of facts by venue and market."""
    markets: Schema = {
        "type": "object",
        "propertyNames": {"enum": list(MARKETS)},
        "additionalProperties": market,
    }
    return {"type": "object", "additionalProperties": markets}


_READY: Final = closed(
    {
        "status": {"enum": ["ready", "not ready"]},
        "timestamp": _WHEN,
        "reasons": {"type": "array", "items": _TEXT},
        "venues": _venues(_open(_MARKET)),
    }
)
_READY_EXAMPLE: Final = {
    "status": "ready",
    "timestamp": _EXAMPLE_TIME,
    "reasons": [],
    "venues": {"binance": {"spot": _MARKET_EXAMPLE}},
}
_COUNTED: Final = ("reconnects", "duplicates", "gaps", "recovered", "lost", "resyncs", "backfills")
_STATUS: Final = _open(
    {
        "version": _TEXT,
        "timestamp": _WHEN,
        "started": _WHEN,
        "uptime_s": {"type": "number"},
        "epoch": _TEXT,
        "ready": {"type": "boolean"},
        "reasons": {"type": "array", "items": _TEXT},
        "venues": _venues(
            _open(
                _MARKET
                | dict.fromkeys(_COUNTED, _COUNT)
                | {
                    "events": _COUNTS,
                    "breakers": {"type": "object", "additionalProperties": _BREAKER},
                    "last_error": _TEXT,
                    "last_error_time": _MAYBE_WHEN,
                }
            )
        ),
        "topics": closed({"total": _COUNT, "states": _COUNTS, "published": _COUNT}),
        "clients": _open(
            {
                **dict.fromkeys(("connected", "accepted", "frames", "conflated", "lost"), _COUNT),
                "closed": _COUNTS,
            }
        ),
        "plugins": {
            "type": "array",
            "items": closed({"name": _TEXT, "status": _TEXT, "reason": {"type": ["string", "null"]}}),
        },
        "memory": _open({"peak_rss_bytes": _COUNT}),
    }
)
_FEED: Final = closed(
    {
        "topic": {"$ref": "#/components/schemas/Topic"},
        "channel": _TEXT,
        "venue": _TEXT,
        "instrument": _TEXT,
        "state": of(State),
        "seq": {"$ref": "#/components/schemas/Seq"},
        "messages": _COUNT,
        "readers": _COUNT,
        "age_s": {"type": ["number", "null"], "description": "Since its newest message."},
        "last": {"type": ["object", "null"], "description": "`data` of its newest message; null for books."},
    }
)
_TRADE: Final = EVENTS[0].example
#: One event, as later OpenAPI versions describe them (https://spec.openapis.org/oas/v3.2.0#server-sent-event-streams).
_EVENT: Final = _open(
    {
        "event": described(_TEXT, "The `type` of the message."),
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "The message, as on `/ws`.",
        },
    }
)
_ACK: Final = {"type": "ack", "id": None, "op": "subscribe", "epoch": "5f1c0e8a9b7d"} | {
    "results": [{"topic": _TRADE["topic"], "ok": True, "matched": 1}]
}
_HEARTBEAT: Final = {"type": "heartbeat"}
_STREAM_EXAMPLE: Final = "".join(
    event_of(orjson.dumps(message)).decode() for message in (_ACK, _TRADE, _HEARTBEAT)
)


@attrs.frozen(kw_only=True)
class Operation:
    """One path and what it answers.

    Attributes:
        about: For people, at more length than the summary.
        query: The class of its parameters.
        kind: Content type of the good answer.
        schema: Its schema.
        example: One that is real; None where it would be long.
        refusals: Statuses that it has besides 400 and 401.
        also: Statuses with a body like the good one.
        open: Whether no key is ever needed.
        scope: What a key must have where one is needed.
    """

    path: str
    name: str
    summary: str
    about: str = ""
    query: type[Query] | None = None
    kind: str = "application/json"
    schema: Schema
    example: Any = None
    refusals: tuple[int, ...] = ()
    also: tuple[int, ...] = ()
    open: bool = False
    scope: str = "read"


OPERATIONS: Final = (
    Operation(
        path="/api/v1/instruments",
        name="instruments",
        summary="What the venues list",
        query=InstrumentsQuery,
        schema=closed(
            {
                "total": _COUNT,
                "limit": _COUNT,
                "offset": _COUNT,
                "instruments": {"type": "array", "items": {"$ref": "#/components/schemas/Instrument"}},
            }
        ),
        example={"total": 1, "limit": 1_000, "offset": 0, "instruments": [INSTRUMENT_EXAMPLE]},
        refusals=(404,),
    ),
    Operation(
        path="/api/v1/latest",
        name="latest",
        summary="The latest messages of topics",
        about="The same as `get` on `/ws`. A topic that cannot be had does not spoil the others; if none can, the "
        "answer is an error.",
        query=LatestQuery,
        schema=closed({"epoch": _TEXT, "results": LATEST_RESULTS}),
        example={
            "epoch": "5f1c0e8a9b7d",
            "results": [{"topic": _TRADE["topic"], "ok": True, "matched": 1, "messages": [_TRADE]}],
        },
        refusals=(403, 404),
    ),
    Operation(
        path="/api/v1/stream",
        name="stream",
        summary="Topics as Server-Sent Events",
        about="Endless. Each event has the `type` of a message of `/ws` as its name, and the message as its data. The "
        "first is `ack`, the last `bye`. For `EventSource` in browsers, and for `curl -N`.",
        query=StreamQuery,
        kind="text/event-stream",
        schema=_EVENT,
        example=_STREAM_EXAMPLE,
        refusals=(403, 404, 503),
    ),
    Operation(
        path="/feeds",
        name="feeds",
        summary="Topics now served, with their last value and age",
        query=FeedsQuery,
        schema=closed({"epoch": _TEXT, "total": _COUNT, "feeds": {"type": "array", "items": _FEED}}),
        example={
            "epoch": "5f1c0e8a9b7d",
            "total": 1,
            "feeds": [
                {
                    "topic": _TRADE["topic"],
                    "channel": "trade",
                    "venue": "binance",
                    "instrument": "BTC-USDT",
                    "state": "live",
                    "seq": _TRADE["seq"],
                    "messages": _TRADE["seq"] - 2,
                    "readers": 3,
                    "age_s": 0.041,
                    "last": _TRADE["data"],
                }
            ],
        },
    ),
    Operation(
        path="/health",
        name="health",
        summary="Whether the process serves",
        schema=closed({"status": {"const": "healthy"}, "timestamp": _WHEN}),
        example={"status": "healthy", "timestamp": _EXAMPLE_TIME},
        open=True,
    ),
    Operation(
        path="/ready",
        name="ready",
        summary="Whether clients should be sent here",
        about="503 with the reasons when no venue is healthy, when another instance leads, or when no message came for a "
        "minute.",
        schema=_READY,
        example=_READY_EXAMPLE,
        also=(503,),
        open=True,
    ),
    Operation(
        path="/status",
        name="status",
        summary="Everything that an operator asks",
        schema=_STATUS,
        scope="admin",
    ),
    Operation(
        path="/metrics",
        name="metrics",
        summary="Counts for Prometheus",
        about="As OpenMetrics where `Accept` asks for that.",
        kind="text/plain",
        schema=_TEXT,
        example='pricefeedd_messages_total{venue="binance",market="spot"} 81220.0\n',
        scope="admin",
    ),
    Operation(path="/", name="page", summary="The status page", kind="text/html", schema=_TEXT),
    Operation(
        path="/docs", name="docs", summary="This interface, to be read", kind="text/html", schema=_TEXT
    ),
    Operation(
        path="/openapi.json",
        name="openapi",
        summary="The HTTP paths, as OpenAPI 3.1",
        schema={"type": "object", "required": ["openapi", "info", "paths"]},
    ),
    Operation(
        path="/asyncapi.json",
        name="asyncapi",
        summary="The WebSocket protocols, as AsyncAPI 3.0",
        schema={"type": "object", "required": ["asyncapi", "info", "channels"]},
    ),
)


def parameters(query: type[Query] | None) -> list[dict[str, Any]]:
    """Return the parameters of a path, save the key, which is a matter of security."""
    found = []
    for name, (told, field) in fields.described(query).items() if query is not None else ():
        if name == "api_key":
            continue
        body = field_schema(told, field, nullable=False)
        examples = body.pop("examples", None)
        parameter: dict[str, Any] = {
            "name": name,
            "in": "query",
            "description": body.pop("description"),
            "required": field.default is attrs.NOTHING,
            "schema": body,
        }
        if isinstance(told.kind, Topics):
            parameter |= {"style": "form", "explode": False}
        if examples:
            parameter["example"] = examples[0]
        found.append(parameter)
    return found


def _answer(status: int, kind: str, schema: Schema, example: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": HTTPStatus(status).phrase, "content": {kind: content}}


def _operation(found: Operation, *, public: bool) -> dict[str, Any]:
    answers = {str(s): _answer(s, found.kind, found.schema, found.example) for s in (200, *found.also)}
    if found.kind == "text/plain":
        answers["200"]["content"]["application/openmetrics-text"] = {"schema": found.schema}
    refusals = {*found.refusals, *(() if found.open else (401,)), *((400,) if found.query else ())}
    error = {"$ref": "#/components/schemas/Error"}
    for status in sorted(refusals):
        answers[str(status)] = _answer(status, "application/json", error, _ERROR_EXAMPLES[status])
    if found.query is not None:
        answers["431"] = {"description": "The URL and the headers together are too long"}
    answers["default"] = {"description": "Refused", "content": {"application/json": {"schema": error}}}
    keys: list[dict[str, list[str]]] = [{name: []} for name in KEYS]
    security = [] if found.open else [*([{}] if public else []), *keys]
    body = {
        "operationId": found.name,
        "summary": found.summary,
        "parameters": parameters(found.query),
        "responses": answers,
        "security": security,
    }
    about = (
        found.about if found.open or public else f"{found.about} Needs a key with the scope `{found.scope}`."
    )
    return body | ({"description": about.strip()} if about else {})


def document(server: str = "http://127.0.0.1:8765", *, public: bool = True) -> dict[str, Any]:
    """Return the document.

    Args:
        server: Where we are reached.
        public: Whether reading needs no key.
    """
    return {
        "openapi": VERSION,
        "info": {
            "title": "pricefeedd",
            "version": __version__,
            "description": 'Market data of all venues over HTTP. Errors are `{"error", "code"}` with the right status.',
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "paths": {found.path: {"get": _operation(found, public=public)} for found in OPERATIONS},
        "components": {"schemas": {**SHARED, "Error": ERROR}, "securitySchemes": KEYS},
    }
