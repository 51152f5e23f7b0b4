"""One HTTP path and method as data, and what OpenAPI 3.1 says of it (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import attrs

from pricefeedd.web import fields
from pricefeedd.web.fields import Given, Topics, field_schema, object_schema
from pricefeedd.web.http import Query
from pricefeedd.web.schema import Schema, closed

#: Names of the ways to show a key.
KEYS: Final[dict[str, dict[str, str]]] = {
    "header": {"type": "apiKey", "name": "X-API-Key", "in": "header"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "query": {"type": "apiKey", "name": "api_key", "in": "query"},
}

TEXT: Final[Schema] = {"type": "string"}
MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}
WHEN: Final[Schema] = {"type": "string", "format": "date-time"}
MAYBE_WHEN: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}

ERROR: Final = closed(
    {
        "error": {"type": "string", "description": "For people: what is wrong, and what to do."},
        "code": {"type": "string", "pattern": "^[A-Z][A-Z_]*$", "description": "For programs."},
        "parameter": {"type": "string", "description": "The parameter that is at fault."},
        "did_you_mean": {"type": "array", "items": TEXT, "description": "The nearest words that exist."},
        "results": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Each topic with what is wrong.",
        },
        "trace_id": {
            "type": "string",
            "description": "Of an error of ours: what the log is to be searched for.",
        },
    },
    optional=("parameter", "did_you_mean", "results", "trace_id"),
)
_ERROR_EXAMPLES: Final = {
    400: {"error": "limit: expected a whole number from 1 to 10000, found 'many'", "code": "BAD_REQUEST", "parameter": "limit"},
    401: {"error": "the key is not known here", "code": "UNAUTHORISED"},
    403: {"error": "pages of this origin may not read here", "code": "FORBIDDEN"},
    404: {"error": "unknown venue 'binanse'", "code": "UNKNOWN_VENUE", "parameter": "venue", "did_you_mean": ["binance"]},
    503: {"error": "as many clients as max_clients are connected", "code": "LIMIT"},
}  # fmt: skip


def open_object(properties: dict[str, Schema]) -> Schema:
    """Return the schema of an object that may grow."""
    return closed(properties) | {"additionalProperties": True}


@attrs.frozen(kw_only=True)
class Operation:
    """One method of one path, and what it answers.

    Attributes:
        about: For people, at more length than the summary.
        path_parts: What stands for each part in braces of the path.
        query: The class of its parameters.
        body: The class of its body.
        status: The status of the good answer.
        kind: Content type of the good answer.
        schema: Its schema.
        example: One that is real; None where it would be long.
        refusals: Statuses that it has besides 400 and 401.
        refused: Refusals of its own by status, in place of the usual examples.
        also: Statuses with a body like the good one.
        open: Whether no key is ever needed.
        scope: What a key must have where one is needed.
    """

    path: str
    name: str
    summary: str
    about: str = ""
    method: str = "get"
    path_parts: Mapping[str, Given] = attrs.field(factory=dict)
    query: type[Query] | None = None
    body: type[Any] | None = None
    status: int = 200
    kind: str = "application/json"
    schema: Schema
    example: Any = None
    refusals: tuple[int, ...] = ()
    refused: Mapping[int, Mapping[str, Any]] = attrs.field(factory=dict)
    also: tuple[int, ...] = ()
    open: bool = False
    scope: str = "read"


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


def _part(name: str, told: Given) -> dict[str, Any]:
    """Return the parameter for a part of the path."""
    return {
        "name": name,
        "in": "path",
        "description": told.about,
        "required": True,
        "schema": dict(told.kind.schema),
        "example": told.example,
    }


def example_of(body: type[Any]) -> dict[str, Any]:
    """Return a body made of the examples of its fields."""
    return {
        name: told.example for name, (told, _) in fields.described(body).items() if told.example is not None
    }


def _answer(status: int, kind: str, schema: Schema, example: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": HTTPStatus(status).phrase, "content": {kind: content}}


def operation(found: Operation, *, public: bool) -> dict[str, Any]:
    """Return what the document says of an operation.

    Args:
        public: Whether reading needs no key.
    """
    good = (found.status, *found.also)
    answers = {str(s): _answer(s, found.kind, found.schema, found.example) for s in good}
    if found.kind == "text/plain":
        answers["200"]["content"]["application/openmetrics-text"] = {"schema": found.schema}
    refusals = {
        *found.refusals,
        *found.refused,
        *(() if found.open else (401,)),
        *((400,) if found.query else ()),
    }
    error = {"$ref": "#/components/schemas/Error"}
    for status in sorted(refusals):
        example = found.refused.get(status) or _ERROR_EXAMPLES[status]
        answers[str(status)] = _answer(status, "application/json", error, example)
    if found.query is not None:
        answers["431"] = {"description": "The URL and the headers together are too long"}
    answers["default"] = {"description": "Refused", "content": {"application/json": {"schema": error}}}
    keys: list[dict[str, list[str]]] = [{name: []} for name in KEYS]
    security = [] if found.open else [*([{}] if public else []), *keys]
    parts = [_part(name, told) for name, told in found.path_parts.items()]
    body = {
        "operationId": found.name,
        "summary": found.summary,
        "parameters": [*parts, *parameters(found.query)],
        "responses": answers,
        "security": security,
    }
    if found.body is not None:
        content = {"schema": object_schema(found.body), "example": example_of(found.body)}
        body["requestBody"] = {"required": True, "content": {"application/json": content}}
    about = (
        found.about if found.open or public else f"{found.about} Needs a key with the scope `{found.scope}`."
    )
    return body | ({"description": about.strip()} if about else {})
