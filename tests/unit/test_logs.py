"""Log lines as operators and their tools read them."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from pricefeedd import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave logging as it was found: it belongs to the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_facts_are_keys_from_both_kinds_of_logger() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)

    structlog.get_logger("pricefeedd.a").warning("session lost", venue="kraken", attempt=3)
    logging.getLogger("hypercorn.error").warning("session lost", extra={"venue": "kraken", "attempt": 3})

    ours, theirs = lines(stream)
    for line, logger in ((ours, "pricefeedd.a"), (theirs, "hypercorn.error")):
        assert line.pop("time").endswith("Z")
        assert line == {
            "message": "session lost",
            "level": "warning",
            "logger": logger,
            "venue": "kraken",
            "attempt": 3,
        }


def test_the_arguments_of_foreign_lines_are_put_in() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)

    logging.getLogger("hypercorn.error").info("Running on %s", "127.0.0.1:8765")

    assert lines(stream)[0]["message"] == "Running on 127.0.0.1:8765"


def test_a_trace_id_follows_all_lines_of_its_context() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)

    with structlog.contextvars.bound_contextvars(trace_id="t1"):
        structlog.get_logger().info("one")
        logging.getLogger("x").info("two")

    assert [line["trace_id"] for line in lines(stream)] == ["t1", "t1"]


@pytest.mark.parametrize("kind", ["json", "console", "journal"])
def test_exceptions_are_shown_with_their_causes(kind: str) -> None:
    stream = io.StringIO()
    logs.configure("info", kind, stream)
    api_secret = "local-variable-value"  # a renderer that shows locals would print it

    try:
        raise ExceptionGroup("both", [ValueError("first"), KeyError("second")])
    except ExceptionGroup:
        structlog.get_logger().exception("session crashed")
        logging.getLogger("x").exception("session crashed")

    text = stream.getvalue()
    assert text.count("ValueError: first") == 2
    assert text.count("KeyError: 'second'") == 2
    assert api_secret not in text.replace('"local-variable-value"  # a renderer', "")


def test_the_level_changes_at_once_and_for_loggers_in_use() -> None:
    stream = io.StringIO()
    logs.configure("warning", "json", stream)
    ours, theirs = structlog.get_logger("a"), logging.getLogger("b")
    ours.info("not yet")
    theirs.info("not yet")

    logs.set_level("debug")
    ours.debug("now")
    theirs.debug("now")

    assert [line["message"] for line in lines(stream)] == ["now", "now"]


@pytest.mark.parametrize("kind", ["json", "console", "journal"])
def test_secrets_are_struck_out(kind: str) -> None:
    stream = io.StringIO()
    logs.configure("info", kind, stream)

    structlog.get_logger().info(
        "connecting",
        api_key="hush-1",
        account={"api_secret": "hush-2", "name": "main"},
        url="postgresql://user:hush-3@db/feed",
        request="GET /ws?api_key=hush-4&x=1",
    )
    logging.getLogger("hypercorn.access").info("GET /feeds Authorization: Bearer hush-5")
    try:
        raise ValueError("cannot reach amqp://guest:hush-6@mq/")
    except ValueError:
        structlog.get_logger().exception("sink ended")

    text = stream.getvalue()
    assert "hush" not in text
    assert "main" in text
    assert "x=1" in text
    assert "user:***@db" in text


@pytest.mark.parametrize("part", ["x", "a_", "://", ":", "://x:", "token=", "Bearer ", "Basic x", "=", "@"])
def test_a_long_text_of_a_stranger_costs_little(part: str) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    began = time.thread_time()

    structlog.get_logger().info("odd", reason=part * 40_000)

    assert time.thread_time() - began < 1.0  # milliseconds; minutes if each letter looked at all the others


def test_every_line_in_the_journal_has_its_priority() -> None:
    stream = io.StringIO()
    logs.configure("debug", "journal", stream)

    log = structlog.get_logger("pricefeedd.x")
    log.error("session crashed", venue="okx", reason="two words")
    log.debug("fine")
    try:
        raise ValueError("no")
    except ValueError:
        log.warning("odd", exc_info=True)

    written = stream.getvalue().splitlines()
    assert written[0].startswith("<3>session crashed ")
    assert 'venue=okx reason="two words"' in written[0]
    assert written[1].startswith("<7>fine")
    assert len(written) > 4
    assert all(line.startswith("<4>") for line in written[2:])


def test_a_fact_of_an_odd_type_fails_no_line() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)

    structlog.get_logger().info("odd", what=object(), pairs={1: {2}}, huge=1 << 70)

    assert lines(stream)[0]["message"] == "odd"


def test_the_format_follows_what_the_stream_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    with (tmp_path / "log").open("w+") as file:
        logs.configure("info", "auto", file)
        structlog.get_logger().info("to a file")
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure("info", "auto", file)
        structlog.get_logger().info("to the journal")
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        logs.configure("info", "auto", file)
        structlog.get_logger().info("redirected")
        assert logs.flush(5)
        file.seek(0)
        first, second, third = file.read().splitlines()

    assert json.loads(first)["message"] == "to a file"
    assert second.startswith("<6>to the journal")
    assert json.loads(third)["message"] == "redirected"


def test_a_terminal_gets_lines_for_people() -> None:
    leader, follower = os.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            logs.configure("info", "auto", terminal)
            structlog.get_logger().info("session up", venue="okx")
            text = os.read(leader, 4096).decode()
    finally:
        os.close(leader)

    assert "session up" in text
    assert "\x1b[" in text


def test_http_clients_do_not_chat() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)

    logging.getLogger("httpx").info("HTTP Request: GET https://venue.test")

    assert stream.getvalue() == ""


@pytest.mark.parametrize(("level", "kind"), [("loud", "json"), ("info", "xml")])
def test_unknown_words_are_refused(level: str, kind: str) -> None:
    with pytest.raises(ValueError, match="unknown log"):
        logs.configure(level, kind, io.StringIO())
