"""What ties log lines to the request that they follow from."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog

from pricefeedd import logs
from pricefeedd.web.daemon import Limits
from pricefeedd.web.trace import trace_id_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


@pytest.fixture(autouse=True)
def stream() -> Iterator[io.StringIO]:
    """All that is logged, from debug; afterwards logging is as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    written = io.StringIO()
    logs.configure("debug", "json", written)
    yield written
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO, message: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stream.getvalue().splitlines()) if line["message"] == message]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-ID": "order-7.1"}, "order-7.1"),
        ({"traceparent": PARENT}, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ({"traceparent": PARENT, "X-Request-ID": "mine"}, "mine"),
        ({"X-Request-ID": "two words", "traceparent": "00-zz-1-01"}, None),
        ({"X-Request-ID": "a\u00e9"}, None),
        ({"X-Request-ID": "x" * 101}, None),
        ({"X-Request-ID": "-dash"}, None),
        ({"traceparent": f"ff{PARENT[2:]}"}, None),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({}, None),
    ],
)
def test_an_id_is_taken_if_it_is_sane(headers: dict[str, str], expected: str | None) -> None:
    found = trace_id_of(headers)

    if expected is None:
        assert len(found) == 32
        assert found not in headers.values()
        assert found != trace_id_of(headers)
    else:
        assert found == expected


async def test_a_request_has_its_id_in_the_answer_and_in_the_log(
    start_web: Any, http: Any, stream: io.StringIO
) -> None:
    web = await start_web()
    given = await http.get(f"{web.http}/health", headers={"X-Request-ID": "mine"})
    new = await http.get(f"{web.http}/nothing")  # over the same connection
    again = await http.get(f"{web.http}/health")

    assert given.headers["X-Request-ID"] == "mine"
    ids = [answer.headers["X-Request-ID"] for answer in (given, new, again)]
    assert len(set(ids)) == 3
    told = lines(stream, "request")
    assert [line["trace_id"] for line in told] == ids
    assert [(line["path"], line["status"]) for line in told[:2]] == [("/health", 200), ("/nothing", 404)]


async def test_an_error_of_ours_is_found_in_the_log(start_web: Any, http: Any, stream: io.StringIO) -> None:
    web = await start_web()

    def broken() -> dict[str, Any]:
        raise RuntimeError("a bug with postgres://me:hush@db")

    web.daemon.describe = broken
    answer = await http.get(f"{web.http}/status")

    assert answer.status_code == 500
    assert set(answer.json()) == {"error", "code", "trace_id"}
    assert "RuntimeError" not in answer.text
    assert answer.json()["trace_id"] == answer.headers["X-Request-ID"]
    (line,) = [line for line in map(json.loads, stream.getvalue().splitlines()) if line["level"] == "error"]
    assert line["trace_id"] == answer.json()["trace_id"]
    assert "RuntimeError: a bug" in line["exception"]
    assert "hush" not in stream.getvalue()


async def test_a_connection_and_each_of_its_requests_have_an_id(
    start_web: Any, open_raw: Any, open_client: Any, stream: io.StringIO
) -> None:
    web = await start_web(limits=Limits(errors=1))
    head = await (await open_raw(web.http)).open(X_Request_ID="mine")
    client = await open_client(web.ws, additional_headers={"X-Request-ID": "theirs"})
    await client.ask({"op": "nothing"})
    await client.ask({"op": "nothing"})
    assert (await client.closed())[0] == 4500

    assert head["x-request-id"] == "mine"
    asked = lines(stream, "asked")
    assert [line["trace_id"] for line in asked] == ["theirs.1", "theirs.2"]
    (closed,) = lines(stream, "client closed")
    assert (closed["trace_id"], closed["code"], closed["path"]) == ("theirs", 4500, "/ws")
    assert closed["session"] == asked[0]["session"]


async def test_a_refused_handshake_has_an_id(start_web: Any, open_raw: Any) -> None:
    web = await start_web()
    headers = {"Origin": "https://evil.example.test", "X_Request_ID": "mine"}
    head = await (await open_raw(web.http)).open(**headers)

    assert (head[":status"], head["x-request-id"]) == ("403", "mine")
