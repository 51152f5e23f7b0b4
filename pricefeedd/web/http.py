"""What all HTTP handlers share: the parameters of a URL in, JSON out, and refusals that say what is wrong."""

from __future__ import annotations

from typing import Final, TypeVar

import attrs
import orjson
from quart import Response, request

from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import API_KEY, BadRequest, given, read_object, read_query
from pricefeedd.web.keys import presented, scopes
from pricefeedd.web.topics import Problem

_Q = TypeVar("_Q", bound="Query")
_B = TypeVar("_B")

#: What a problem with a topic is in HTTP.
STATUS: Final = {
    "forbidden": 403,
    "unknown_channel": 404,
    "unknown_venue": 404,
    "unknown_account": 404,
    "unknown_instrument": 404,
}


@attrs.frozen(kw_only=True)
class Query:
    """What the URL of any read may hold."""

    api_key: str | None = given(API_KEY, "A key, where headers cannot be set.", default=None)


def respond(body: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(body, default=str), status, content_type="application/json")


def asked(made: type[_Q]) -> _Q:
    """Return what the URL of the present request asks.

    Raises:
        BadRequest: A parameter is unknown, missing or wrong.
    """
    return read_query(made, request.args.to_dict(flat=False))


async def body(made: type[_B]) -> _B:
    """Return what the body of the present request asks; its content type does not matter.

    Raises:
        BadRequest: It is no JSON object, or a key is unknown, missing or wrong.
    """
    asked(Query)
    try:
        found = orjson.loads(await request.get_data())
    except orjson.JSONDecodeError as e:
        raise BadRequest("bad_json", f"not JSON: {e}") from e
    if not isinstance(found, dict):
        raise BadRequest("bad_request", "the body is a JSON object")
    return read_object(made, found)


def own_scopes(daemon: Daemon) -> frozenset[str]:
    """Return what the key of the present request may do."""
    return scopes(daemon.config.web.keys, presented(request.headers, request.args))


def refuse(error: BadRequest | Problem, *, parameter: str | None = None, **more: object) -> Response:
    """Return the response to a request that cannot be carried out."""
    if isinstance(error, BadRequest):
        parameter = parameter or error.where
    body: dict[str, object] = {"error": error.message, "code": error.code.upper()}
    if parameter is not None:
        body["parameter"] = parameter
    if error.did_you_mean:
        body["did_you_mean"] = list(error.did_you_mean)
    return respond(body | more, STATUS.get(error.code, 400))
