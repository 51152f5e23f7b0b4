"""The documents: right by their own standards, right about what is served, and fit to be read."""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import httpx
import jsonschema
import pytest
import trio
from openapi_spec_validator import validate

from pricefeedd import logs
from pricefeedd.events import AccountEvent, BookSnapshot, State
from pricefeedd.instruments import Instrument, InstrumentMap, Kind
from pricefeedd.web import asyncapi, docs, messages, openapi, openapi_subscriptions
from pricefeedd.web.goodbye import SHUTDOWN, Goodbye
from pricefeedd.web.requests import REQUESTS

ASYNCAPI = json.loads((Path(__file__).parents[2] / "data/asyncapi/asyncapi-3.0.0.json").read_text())


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


@pytest.fixture(autouse=True)
def _level_as_before() -> Iterator[None]:
    """Whoever goes through all that is documented changes the level of logging too."""
    level = logging.getLogger().level
    yield
    logs.levels.configure("info")
    logging.getLogger().setLevel(level)


def _fill(daemon: Any) -> None:
    """Give the daemon something of every kind."""
    daemon.list_instruments()
    daemon.offer_bybit("linear", "spot", "inverse")
    market = daemon.stats.market("binance", "spot")
    market.connections = market.messages = 1
    market.last_message_ns = time.time_ns()
    daemon.bus.publish(messages.SAMPLES.values())
    order = messages.SAMPLES["account"]
    assert isinstance(order, AccountEvent)
    for fields in ({"coin": "USDT", "equity": "1.50", "collateral_switch": True}, {"total_equity": "1.50"}):
        daemon.bus.publish([attrs.evolve(order, kind="balance", key=str(fields), fields=fields)])
    snapshot = messages.SAMPLES["book_snapshot"]
    assert isinstance(snapshot, BookSnapshot)
    daemon.bus.topic("book", "binance", "BTC-USDT").book = lambda: snapshot


# --- OpenAPI ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("public", [True, False])
def test_the_openapi_document_is_valid(public: bool) -> None:
    document = openapi.document("https://feed.example.test", public=public)

    validate(document)
    latest = document["paths"]["/api/v1/latest"]["get"]
    assert ({} in latest["security"]) is public
    assert document["paths"]["/health"]["get"]["security"] == []


async def test_every_route_is_in_the_document(start_web: Any) -> None:
    web = await start_web()
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in web.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }

    document = openapi.document()

    channels = {found["address"] for found in asyncapi.document()["channels"].values()}
    assert set(web.app.websockets) == channels | {"/"}
    assert routes == {(path, method) for path, found in document["paths"].items() for method in found}


@pytest.mark.timeout(100)
async def test_a_hostile_reader_of_the_document_finds_nothing(
    start_web: Any, web_key: Any, tmp_path: Path
) -> None:
    keys = (web_key(name="me", key="sesame", scopes=("read", "admin", "account:main")),)
    web = await start_web(public_read=False, keys=keys)
    _fill(web.daemon)
    # A stream would have no end: with these words each ends as soon as it has begun.
    web.app.readers.close_all(Goodbye(SHUTDOWN, "enough", 1_000))
    # 431, for a URL that is too long to be read, is a refusal as well.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks]\nnegative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "431"]\n'
        # Whether a symbol is listed, the schema cannot tell.
        'positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "5xx"]\n'
    )
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{web.http}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--mode", "all", "--checks", "all"),
        *("--max-examples", "5", "--generation-deterministic", "--request-timeout", "5", "--no-color"),
        *("--header", "X-API-Key: sesame"),
    ]

    done = await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False, cwd=tmp_path
    )

    told = done.stdout.decode()
    assert done.returncode == 0, told[-3000:]
    tested = re.search(r"(\d+) generated", told)
    assert tested is not None
    assert int(tested[1]) > 100


# --- AsyncAPI -----------------------------------------------------------------------------------------------


def _valid_asyncapi(document: Any) -> bool:
    return bool(jsonschema.Draft7Validator(ASYNCAPI).is_valid(json.loads(json.dumps(document))))


@pytest.mark.parametrize("public", [True, False])
def test_the_asyncapi_document_is_valid(public: bool) -> None:
    document = asyncapi.document("feed.example.test", secure=True, public=public)

    assert _valid_asyncapi(document)
    assert ("security" in document["servers"]["here"]) is not public
    document["operations"]["get"]["action"] = "shout"
    assert not _valid_asyncapi(document)


def test_the_document_has_every_request_and_dialect() -> None:
    document = asyncapi.document()

    assert set(REQUESTS) <= set(document["operations"])
    assert [found["address"] for found in document["channels"].values()] == ["/ws", "/ws/pyth", "/ws/ohlcv"]
    native = document["channels"]["native"]["messages"]
    assert len(native) == 2 * len(REQUESTS) + len(messages.EVENTS) + len(messages.OTHERS)
    text = json.dumps(document)
    for reference in set(re.findall(r'"#/([^"]+)"', text)):
        found: Any = document
        for part in reference.split("/"):
            found = found[part]


class _Judge:
    """Says whether messages of ours are as documented."""

    def __init__(self, channel: str = "native") -> None:
        document = asyncapi.document()
        parts = document["components"]
        ours: list[dict[str, str]] = []
        for operation in document["operations"].values():
            if operation["channel"]["$ref"] == f"#/channels/{channel}":
                ours += (
                    operation["messages"] if operation["action"] == "send" else operation["reply"]["messages"]
                )
        self.by_name = {
            name: jsonschema.Draft202012Validator(parts["messages"][name]["payload"] | {"components": parts})
            for name in (reference["$ref"].rpartition("/")[2] for reference in ours)
        }
        self.seen: set[str] = set()

    def judge(self, message: Any) -> None:
        fitting = [name for name, found in self.by_name.items() if found.is_valid(message)]
        assert len(fitting) == 1, f"{fitting} fit {message}"
        self.seen.add(fitting[0])


async def test_what_is_said_on_the_socket_is_as_documented(start_web: Any, open_client: Any) -> None:
    web = await start_web(heartbeat_s=0.2)
    _fill(web.daemon)
    judge = _Judge()
    client = await open_client(web.ws)
    topics = [
        *(
            "trade:*:*",
            "quote:*:*",
            "ticker:*:*",
            "candle_1m:*:*",
            "book:*:*",
            "price:*:*",
            "liquidation:*:*",
        ),
        *("trade:binanse:BTC-USDT", "order:bybit:main", "trade:binance:ethusdt"),
    ]
    topic = "trade:binance:BTC-USDT"
    asked = [
        {"op": "subscribe", "id": 1, "topics": topics},
        {"op": "unsubscribe", "topics": ["trade:*:*", "quote:*:nothing"]},
        {"op": "subscribe", "topics": [topic], "since": {"epoch": "other", "seq": {topic: 1}}},
        {"op": "unsubscribe", "topics": [topic]},
        {"op": "subscribe", "topics": [topic], "since": {"epoch": "epoch1", "seq": {topic: 1}}},
        {"op": "list", "id": "two"},
        {"op": "get", "topics": [topic, "book:binance:BTC-USDT", "nonsense"]},
        {"op": "history", "topics": [topic], "limit": 5},
        {"op": "instruments", "market": "spot"},
        {"op": "instruments", "venue": "nowhere"},
        {"op": "status"},
        {"op": "ping", "data": {"any": "thing"}},
        {"op": "ping"},
        {"op": "unknown", "id": "last"},
    ]

    async def judged(request: dict[str, Any]) -> None:
        await client.send(request)
        wanted = request.get("id")
        while True:
            message = await client.receive()
            judge.judge(message)
            if message["type"] in ("ack", "error", "pong") and message["id"] == wanted:
                return

    await judged(asked[0])
    web.daemon.bus.publish(messages.SAMPLES.values())
    web.daemon.status(State.LIVE)
    for request in asked[1:]:
        await judged(request)
    while "heartbeat" not in judge.seen:
        judge.judge(await client.receive())
    web.stop.set()
    while "bye" not in judge.seen:
        judge.judge(await client.receive())

    # `upstream` is said by relays alone, and looked at where those are tested.
    assert judge.seen == set(judge.by_name) - {"conflated", "account", "upstream"}


async def test_what_is_said_in_the_dialects_is_as_documented(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    _fill(web.daemon)
    feed = Instrument(
        venue="pyth",
        market="oracle",
        name="BTC-USD",
        symbol="ab" * 32,
        kind=Kind.ORACLE,
        base="BTC",
        quote="USD",
    )
    web.daemon.directory.put(InstrumentMap("pyth", "oracle", [feed]))
    one = {"feed_id": f"0x{feed.symbol}"}
    spot = {"exchange": "binance", "contract_type": "spot"}
    asked = {
        "pyth": [
            {"type": "get_available_feeds"},
            {"type": "subscribe", **one},
            {"type": "unsubscribe", **one},
            {"type": "subscribe_multiple", "subscriptions": [one, {"feed_id": "nothing"}, 5]},
            {"type": "ping"},
            {"type": "shout"},
        ],
        "ohlcv": [
            {**spot, "symbols": ["BTCUSDT", "BTCUSDD", 5], "limit": 0},
            {"exchange": "nowhere", "symbols": ["X"]},
        ],
    }
    for channel, requests in asked.items():
        judge = _Judge(channel)
        client = await open_client(f"{web.ws}/{channel}")
        for request in requests:
            await client.send(request)
        with trio.fail_after(5):
            while judge.seen != set(judge.by_name):
                judge.judge(await client.receive())


async def test_options_in_the_document_are_taken(start_web: Any, open_client: Any) -> None:
    web = await start_web()
    _fill(web.daemon)
    client = await open_client(f"{web.ws}?numbers=text")
    for found in messages.REQUESTED.values():
        answer = await client.ask(found.example | {"id": found.name})
        assert (answer["type"], answer["id"]) != ("error", found.name)


# --- the page -----------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Remembers what a browser would be told to do."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [value for name in ("href", "src") if (value := given.get(name))]
        self.ids += [value for value in [given.get("id")] if value]
        assert "style" not in given


async def test_the_page_shows_all_and_needs_nothing(start_web: Any, http: Any) -> None:
    web = await start_web()
    answer = await http.get(f"{web.http}/docs")
    page = _Page()
    page.feed(answer.text)

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == docs.CONTENT_SECURITY_POLICY
    assert "script" not in page.tags
    assert {link for link in page.links if not link.startswith("#")} == {
        "/",
        "/openapi.json",
        "/asyncapi.json",
    }
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for path in openapi.document()["paths"]:
        assert f"</span>{path}</h3>" in answer.text
    for op in REQUESTS:
        assert f"</span>{op}</h3>" in answer.text
    for words in ("prefers-color-scheme:dark", "width=device-width", "4008", "/ws/pyth", "/ws/ohlcv"):
        assert words in answer.text
    assert 'href="docs"' in (await http.get(f"{web.http}/")).text


async def test_the_curl_lines_work(start_web: Any, http: Any, web_key: Any) -> None:
    web = await start_web(keys=(web_key(name="me", key="sesame", scopes=("read", "admin", "account:main")),))
    _fill(web.daemon)
    http.headers["X-API-Key"] = "sesame"
    page = (await http.get(f"{web.http}/docs")).text

    lines = re.findall(r"<pre>(curl .*?)</pre>", page)
    assert len(lines) == len(openapi.OPERATIONS)
    for line in lines:
        *words, url = shlex.split(unescape(line))
        method = words[words.index("-X") + 1] if "-X" in words else "HEAD"
        body = words[words.index("-d") + 1] if "-d" in words else None
        # There is no such subscription, no store, and no file to reload.
        missing = url.endswith(openapi_subscriptions.EXAMPLE_ID) or "/balances/history" in url
        expected = 201 if method == "POST" and body else 404 if missing else 409 if "/reload" in url else 200
        async with http.stream(method, url, content=body) as answer:
            assert answer.status_code == expected, url


async def test_documents_need_a_key_where_reading_does(start_web: Any, http: Any, web_key: Any) -> None:
    web = await start_web(public_read=False, keys=(web_key(name="me", key="sesame"),))
    for path in ("/docs", "/openapi.json", "/asyncapi.json"):
        assert (await http.get(f"{web.http}{path}")).status_code == 401
        assert (await http.get(f"{web.http}{path}", headers={"X-API-Key": "sesame"})).status_code == 200
    document = (await http.get(f"{web.http}/asyncapi.json?api_key=sesame")).json()
    assert document["servers"]["here"]["host"] == web.http.removeprefix("http://")
    forged = (await http.get(f"{web.http}/openapi.json?api_key=sesame", headers={"Host": "a<b>"})).json()
    assert "<" not in forged["servers"][0]["url"]
