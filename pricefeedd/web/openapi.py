"""`/openapi.json`: all HTTP paths as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from typing import Any, Final

import orjson

from pricefeedd import __version__
from pricefeedd.events import State
from pricefeedd.instruments import MARKETS
from pricefeedd.web.api import FeedsQuery
from pricefeedd.web.fields import Given, Text
from pricefeedd.web.messages import EVENTS, INSTRUMENT_EXAMPLE, LATEST_RESULTS, SHARED
from pricefeedd.web.openapi_explain import EXPLAIN
from pricefeedd.web.openapi_log import LOG
from pricefeedd.web.openapi_sinks import SINK
from pricefeedd.web.openapi_store import STORED
from pricefeedd.web.openapi_subscriptions import REGISTRY, SUBSCRIPTIONS
from pricefeedd.web.operation import (
    COUNT,
    ERROR,
    KEYS,
    MAYBE_WHEN,
    TEXT,
    WHEN,
    Operation,
    open_object,
    operation,
)
from pricefeedd.web.page import LONGEST_BUILD
from pricefeedd.web.reading import InstrumentsQuery, LatestQuery
from pricefeedd.web.reload import RELOAD
from pricefeedd.web.schema import Schema, closed, described, of
from pricefeedd.web.sse import StreamQuery, event_of

VERSION: Final = "3.1.0"

_COUNTS: Final[Schema] = {"type": "object", "additionalProperties": COUNT}
_BREAKER: Final[Schema] = {"enum": ["closed", "half-open", "open"]}
_EXAMPLE_TIME: Final = "2026-01-01T00:00:00.123+00:00"

_MARKET: Final = {
    "active_connections": COUNT,
    "last_message_time": MAYBE_WHEN,
    "total_messages": COUNT,
    "total_errors": COUNT,
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
        "timestamp": WHEN,
        "reasons": {"type": "array", "items": TEXT},
        "venues": _venues(open_object(_MARKET)),
    }
)
_READY_EXAMPLE: Final = {
    "status": "ready",
    "timestamp": _EXAMPLE_TIME,
    "reasons": [],
    "venues": {"binance": {"spot": _MARKET_EXAMPLE}},
}
_SPREAD: Final[Schema] = {
    "anyOf": [closed({"p50": {"type": "number"}, "p99": {"type": "number"}}), {"type": "null"}]
}
_LATENCY: Final = described(
    closed(
        {
            "venue_ms": described(_SPREAD, "From the venue's clock to our receipt."),
            "publish_ms": described(_SPREAD, "From our receipt to the bus."),
            "sent_ms": described(_SPREAD, "From the bus until all readers that keep up have it."),
            "clock_offset_ms": {
                "type": ["number", "null"],
                "description": "The venue's clock is ahead of ours by at least so much; less than 0 where the way "
                "takes longer than that.",
            },
            "health": {"type": "integer", "minimum": 0, "maximum": 100},
        }
    ),
    "Of the last minute; null where nothing came.",
)
_COUNTED: Final = ("reconnects", "duplicates", "gaps", "recovered", "lost", "resyncs", "backfills")
_STATUS: Final = open_object(
    {
        "version": TEXT,
        "timestamp": WHEN,
        "started": WHEN,
        "uptime_s": {"type": "number"},
        "epoch": TEXT,
        "ready": {"type": "boolean"},
        "reasons": {"type": "array", "items": TEXT},
        "venues": _venues(
            open_object(
                _MARKET
                | dict.fromkeys(_COUNTED, COUNT)
                | {
                    "latency": _LATENCY,
                    "events": _COUNTS,
                    "breakers": {"type": "object", "additionalProperties": _BREAKER},
                    "last_error": TEXT,
                    "last_error_time": MAYBE_WHEN,
                }
            )
        ),
        "topics": closed({"total": COUNT, "states": _COUNTS, "published": COUNT}),
        "clients": open_object(
            {
                **dict.fromkeys(("connected", "accepted", "frames", "conflated", "lost"), COUNT),
                "closed": _COUNTS,
            }
        ),
        "plugins": {
            "type": "array",
            "items": closed({"name": TEXT, "status": TEXT, "reason": {"type": ["string", "null"]}}),
        },
        "subscriptions": REGISTRY,
        "sinks": {"type": "object", "additionalProperties": SINK},
        "memory": open_object(
            {
                "peak_rss_bytes": described(
                    {"type": ["integer", "null"]}, "Null where the system does not say."
                )
            }
        ),
    }
)
_FEED: Final = closed(
    {
        "topic": {"$ref": "#/components/schemas/Topic"},
        "channel": TEXT,
        "venue": TEXT,
        "instrument": TEXT,
        "state": of(State),
        "seq": {"$ref": "#/components/schemas/Seq"},
        "messages": COUNT,
        "readers": COUNT,
        "age_s": {"type": ["number", "null"], "description": "Since its newest message."},
        "last": {"type": ["object", "null"], "description": "`data` of its newest message; null for books."},
    }
)
_TRADE: Final = EVENTS[0].example
#: One event, as later OpenAPI versions describe them (https://spec.openapis.org/oas/v3.2.0#server-sent-event-streams).
_EVENT: Final = open_object(
    {
        "event": described(TEXT, "The `type` of the message."),
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


OPERATIONS: Final = (
    Operation(
        path="/api/v1/instruments",
        name="instruments",
        summary="What the venues list",
        query=InstrumentsQuery,
        schema=closed(
            {
                "total": COUNT,
                "limit": COUNT,
                "offset": COUNT,
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
        schema=closed({"epoch": TEXT, "results": LATEST_RESULTS}),
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
    EXPLAIN,
    *STORED,
    *SUBSCRIPTIONS,
    *LOG,
    *RELOAD,
    Operation(
        path="/feeds",
        name="feeds",
        summary="Topics now served, with their last value and age",
        query=FeedsQuery,
        schema=closed({"epoch": TEXT, "total": COUNT, "feeds": {"type": "array", "items": _FEED}}),
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
        schema=closed({"status": {"const": "healthy"}, "timestamp": WHEN}),
        example={"status": "healthy", "timestamp": _EXAMPLE_TIME},
        open=True,
    ),
    Operation(
        path="/ready",
        name="ready",
        summary="Whether clients should be sent here",
        about="503 with the reasons when no venue is healthy, when another instance leads, or when no message came for a "
        "minute. A sink that is down or whose spool is nearly full, and a store that is away, stand among the reasons as "
        "well; the feed serves on, and the answer is 200.",
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
        schema=TEXT,
        example='pricefeedd_messages_total{venue="binance",market="spot"} 81220.0\n',
        scope="admin",
    ),
    Operation(
        path="/",
        name="page",
        summary="The status page",
        about="It reads `/ws`, `/status` and other paths as any client would, and asks for a key where they need one.",
        kind="text/html",
        schema=TEXT,
        open=True,
    ),
    Operation(
        path="/static/{build}/{name}",
        name="static_file",
        summary="What the status page is made of",
        path_parts={
            "build": Given(kind=Text(longest=LONGEST_BUILD), about="Whatever the page says.", example="0"),
            "name": Given(kind=Text(), about="A file.", example="page.css"),
        },
        kind="*/*",
        schema=TEXT,
        refusals=(404,),
        open=True,
    ),
    Operation(path="/docs", name="docs", summary="This interface, to be read", kind="text/html", schema=TEXT),
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


def document(server: str = "http://127.0.0.1:8765", *, public: bool = True) -> dict[str, Any]:
    """Return the document.

    Args:
        server: Where we are reached.
        public: Whether reading needs no key.
    """
    paths: dict[str, dict[str, Any]] = {}
    for found in OPERATIONS:
        paths.setdefault(found.path, {})[found.method] = operation(found, public=public)
    return {
        "openapi": VERSION,
        "info": {
            "title": "pricefeedd",
            "version": __version__,
            "description": 'Market data of all venues over HTTP. Errors are `{"error", "code"}` with the right status.',
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {**SHARED, "Error": ERROR}, "securitySchemes": KEYS},
    }
