"""`/asyncapi.json`: the WebSocket protocols as an AsyncAPI 3.0 document (https://www.asyncapi.com/docs/reference)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pricefeedd import __version__
from pricefeedd.web import dialect_messages, messages
from pricefeedd.web.fields import object_schema
from pricefeedd.web.messages import ANSWERS, ERROR, EVENTS, OTHERS, REQUESTED, SHARED, Described
from pricefeedd.web.requests import Connection
from pricefeedd.web.schema import Schema, summary

VERSION: Final = "3.0.0"

_ABOUT: Final = """\
Market data of all venues, clean, complete and timely. Connect, read `welcome`, and ask with JSON text frames; each
request is answered by an `ack` or an `error` that bears its `id`.

Every message of a topic has a `seq` that counts up by one, the same for all readers, within an `epoch`. A reader that
is slow is told `conflated` where newer state took the place of older, and `gap` where events were lost.

Close codes 4000 to 4499 invite to come back, 4500 to 4999 do not:
"""


def _message(found: Described) -> dict[str, Any]:
    return {
        "name": found.name,
        "summary": found.about,
        "contentType": "application/json",
        "payload": found.schema,
        "examples": [{"name": found.name, "payload": found.example}],
    }


def _channel(
    address: str, title: str, about: str, found: Iterable[Described], query: Schema
) -> dict[str, Any]:
    return {
        "address": address,
        "title": title,
        "description": about,
        "messages": {each.name: {"$ref": f"#/components/messages/{each.name}"} for each in found},
        "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
    }


def _refs(channel: str, names: Iterable[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]


def _asked(channel: str, request: Described, answers: Iterable[str]) -> dict[str, Any]:
    """Return the operation of a request and what may answer it."""
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": request.about,
        "messages": _refs(channel, [request.name]),
        "reply": {"channel": {"$ref": f"#/channels/{channel}"}, "messages": _refs(channel, answers)},
    }


def _sent(channel: str, about: str, names: Iterable[str]) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": about,
        "messages": _refs(channel, names),
    }


def document(host: str = "127.0.0.1:8765", *, secure: bool = False, public: bool = True) -> dict[str, Any]:
    """Return the document.

    Args:
        host: Where we are reached, with the port.
        secure: Whether by TLS.
        public: Whether reading needs no key.
    """
    native = (*REQUESTED.values(), *ANSWERS.values(), *EVENTS, *OTHERS)
    channels = {
        "native": _channel(
            "/ws", "Protocol 1", summary(messages), native, object_schema(Connection, nullable=False)
        )
    }
    operations = {
        op: _asked("native", request, [ANSWERS[op].name, ERROR.name]) for op, request in REQUESTED.items()
    }
    operations["data"] = _sent("native", "What a subscription brings.", [event.name for event in EVENTS])
    operations["notices"] = _sent(
        "native", "What concerns you alone.", [m.name for m in OTHERS if m is not ERROR]
    )
    found = [*native]
    for dialect in dialect_messages.DIALECTS:
        all_of_it = (*dialect.requests, *dialect.answers, *dialect.data)
        found += all_of_it
        channels[dialect.name] = _channel(
            f"/ws/{dialect.name}", dialect.title, dialect.about, all_of_it, dialect_messages.QUERY
        )
        for request in dialect.requests:
            answers = [answer.name for answer in dialect.answers]
            operations[request.name] = _asked(dialect.name, request, answers)
        operations[f"{dialect.name}_data"] = _sent(
            dialect.name, "What a subscription brings.", [each.name for each in dialect.data]
        )
    keys = ("header", "bearer", "query")
    server: dict[str, Any] = {"host": host, "protocol": "wss" if secure else "ws"}
    if not public:
        server["security"] = [{"$ref": f"#/components/securitySchemes/{key}"} for key in keys]
    codes = "\n".join(f"* {code}: {about}" for code, about in messages.CLOSE_CODES.items())
    return {
        "asyncapi": VERSION,
        "info": {"title": "pricefeedd", "version": __version__, "description": f"{_ABOUT}\n{codes}\n"},
        "defaultContentType": "application/json",
        "servers": {"here": server},
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {each.name: _message(each) for each in found},
            "schemas": SHARED,
            "securitySchemes": {
                "header": {"type": "httpApiKey", "name": "X-API-Key", "in": "header"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "httpApiKey", "name": "api_key", "in": "query"},
            },
        },
    }
