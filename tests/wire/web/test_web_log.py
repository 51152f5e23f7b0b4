"""The log as it is served, and the level as it is changed, seen by an independent client."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import structlog

from pricefeedd import logs
from pricefeedd.logs.levels import Levels
from pricefeedd.logs.recent import Recent


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


@pytest.fixture(autouse=True)
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log of a process that has just begun; afterwards logging is as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(logs, "recent", Recent())
    monkeypatch.setattr(logs, "levels", Levels())
    written = io.StringIO()
    logs.configure("info", "json", written, repeat_s=0)
    yield written
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_the_last_lines_are_told_once(start_web: Any, http: Any) -> None:
    web = await start_web()
    log = structlog.get_logger("pricefeedd.supervisor")
    log.info("session up", venue="okx")
    log.warning("session lost", venue="kraken", attempt=3, url="wss://user:hush@venue.test", api_key="hush")
    logging.getLogger("hypercorn.error").error("odd", extra={"number": 7, "what": {1: object}})

    first = (await http.get(f"{web.http}/api/v1/log?level=warning")).json()
    log.debug("not kept")
    log.info("later", venue="okx")
    later = (await http.get(f"{web.http}/api/v1/log?after={first['next']}")).json()

    lost, odd = first["lines"]
    assert lost.pop("time").endswith("Z")
    number = lost.pop("number")
    assert lost == {
        "level": "warning",
        "message": "session lost",
        "logger": "pricefeedd.supervisor",
        "venue": "kraken",
        "attempt": 3,
        "url": "wss://user:***@venue.test",
        "api_key": "***",
    }
    assert (odd["number"], odd["number_"], odd["logger"]) == (number + 1, 7, "hypercorn.error")
    assert (first["next"], first["missed"]) == (number + 1, 0)
    assert [(line["message"], line["number"]) for line in later["lines"]] == [("later", number + 2)]


async def test_what_is_not_kept_is_counted_and_another_life_begins_anew(start_web: Any, http: Any) -> None:
    web = await start_web()
    log = structlog.get_logger("x")
    for number in range(1200):
        log.info("line", venue=f"v{number}")

    told = (await http.get(f"{web.http}/api/v1/log")).json()
    assert len(told["lines"]) == 500
    assert told["missed"] == told["lines"][0]["number"] - 1
    part = (await http.get(f"{web.http}/api/v1/log?limit=2&after={told['next'] - 10}")).json()
    assert [line["number"] for line in part["lines"]] == [told["next"] - 9, told["next"] - 8]
    assert part["next"] == told["next"] - 8
    anew = (await http.get(f"{web.http}/api/v1/log?after={told['next'] + 1}")).json()
    assert len(anew["lines"]) == 500


async def test_a_traceback_is_not_served(start_web: Any, http: Any, stream: io.StringIO) -> None:
    web = await start_web()
    try:
        raise ExceptionGroup("both", [ValueError("first"), KeyError("second")])
    except ExceptionGroup:
        structlog.get_logger("x").exception("plugin crashed", name="acme")

    (line,) = (await http.get(f"{web.http}/api/v1/log")).json()["lines"]
    assert (line["message"], line["level"], line["name"]) == ("plugin crashed", "error", "acme")
    assert "Traceback" not in json.dumps(line)
    assert "Traceback" in stream.getvalue()


async def test_the_level_is_changed_for_a_while(
    start_web: Any, http: Any, stream: io.StringIO, eventually: Callable[..., Awaitable[None]]
) -> None:
    web = await start_web()
    url = f"{web.http}/api/v1/logging"
    log = structlog.get_logger("pricefeedd.x")
    before = (await http.get(url)).json()
    assert (before["level"], before["configured"], before["until"]) == ("info", "info", None)

    changed = await http.put(url, json={"level": "debug", "for_s": 1})
    assert changed.json()["level"] == "debug"
    assert changed.json()["until"] is not None
    log.debug("seen")
    await eventually(lambda: logs.levels.current == "info")
    log.debug("unseen")

    assert (await http.get(url)).json() == before
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert "seen" in messages
    assert "unseen" not in messages
    assert messages.count("log level changed") == 2
    stays = await http.put(url, content=b'{"level": "error"}')
    assert (stays.json()["level"], stays.json()["until"]) == ("error", None)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"level": "loud"}, "level"),
        ({"level": "debug", "for_s": 0}, "for_s"),
        ({"level": "debug", "for_s": "1h"}, "for_s"),
        ({"for_s": 5}, "level"),
        ({"level": "debug", "four_s": 5}, "four_s"),
    ],
)
async def test_a_wrong_order_changes_nothing(
    start_web: Any, http: Any, body: dict[str, object], parameter: str
) -> None:
    web = await start_web()
    refused = await http.put(f"{web.http}/api/v1/logging", json=body)
    assert (refused.status_code, refused.json()["parameter"]) == (400, parameter)
    assert logs.levels.current == "info"


@pytest.mark.parametrize("public", [True, False])
async def test_the_log_is_for_administrators(start_web: Any, http: Any, web_key: Any, public: bool) -> None:
    keys = (
        web_key(name="me", key="sesame", scopes=("read",)),
        web_key(name="ops", key="open-up", scopes=("admin",)),
    )
    web = await start_web(public_read=public, keys=keys)
    for path in ("/api/v1/log", "/api/v1/logging"):
        assert (await http.get(f"{web.http}{path}")).status_code == 401
        assert (await http.get(f"{web.http}{path}", headers={"X-API-Key": "other"})).status_code == 401
        lacks = await http.get(f"{web.http}{path}", headers={"X-API-Key": "sesame"})
        assert lacks.status_code in (401, 403)
        assert "admin" in lacks.json()["error"]
        assert (await http.get(f"{web.http}{path}", headers={"X-API-Key": "open-up"})).status_code == 200
    order = {"level": "debug"}
    refused = await http.put(f"{web.http}/api/v1/logging", json=order, headers={"X-API-Key": "sesame"})
    assert refused.status_code == 403
    assert logs.levels.current == "info"


async def test_without_keys_the_log_is_for_this_machine(start_web: Any, http: Any) -> None:
    web = await start_web()
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    for method, path in (("GET", "/api/v1/log"), ("GET", "/api/v1/logging"), ("PUT", "/api/v1/logging")):
        refused = await http.request(
            method, f"{web.http}{path}", headers=forwarded, content=b'{"level":"debug"}'
        )
        assert refused.status_code == 403
        assert "this machine only; configure a key with the scope admin" in refused.json()["error"]
    assert logs.levels.current == "info"
