"""`/api/v1/subscriptions` at the edge: who may change what, what a body may hold, and what is told when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
import trio

from pricefeedd import registry
from pricefeedd.web.app import create_app
from pricefeedd.web.daemon import Limits

PATH = "/api/v1/subscriptions"
TRADES = {"channel_type": "trades", "symbol": "BTCUSDT", "requesting_service": "order-manager"}
ORDERS = {"channel_type": "order", "requesting_service": "order-manager"}
ALL = ("linear", "spot", "inverse")


@pytest.fixture
async def bybit(start_web: Any) -> Any:
    """Return a function that serves a daemon with Bybit, and a client for it."""
    async with trio.open_nursery(), _Clients() as clients:

        async def start(*loaded: str, **options: Any) -> tuple[Any, httpx.AsyncClient]:
            web = await start_web(**options)
            web.daemon.offer_bybit(*loaded)
            return web, await clients.of(web.http)

        yield start


class _Clients:
    """HTTP clients, all closed at the end."""

    def __init__(self) -> None:
        self._open: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> _Clients:
        return self

    async def of(self, base: str) -> httpx.AsyncClient:
        found = httpx.AsyncClient(base_url=base, timeout=10)
        self._open.append(found)
        return found

    async def __aexit__(self, *args: object) -> None:
        for client in self._open:
            await client.aclose()


def code(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of an answer."""
    return answer.status_code, answer.json().get("code", "")


# --- Who may -----------------------------------------------------------------------------------------------


async def test_a_change_needs_an_administrators_key_where_there_are_keys(bybit: Any, web_key: Any) -> None:
    keys = (
        web_key(name="ops", key="open", scopes=("admin",)),
        web_key(name="me", key="sesame", scopes=("read",)),
    )
    web, http = await bybit(*ALL, keys=keys)
    for headers, expected in (
        ({}, (401, "AUTHENTICATION_FAILED")),
        ({"X-API-Key": "wrong"}, (401, "AUTHENTICATION_FAILED")),
        ({"Authorization": "Bearer sesame"}, (403, "FORBIDDEN")),
    ):
        answers = [
            await http.post(PATH, json=TRADES, headers=headers),
            await http.delete(f"{PATH}/by-service/order-manager", headers=headers),
            await http.delete(f"{PATH}/nothing", headers=headers),
        ]
        assert [code(answer) for answer in answers] == [expected] * 3
        assert ("WWW-Authenticate" in answers[0].headers) is (expected[0] == 401)
    assert (await http.get(PATH)).json() == {"subscriptions": [], "total": 0}
    made = await http.post(PATH, json=TRADES, headers={"X-API-Key": "open"})
    assert made.status_code == 201
    assert (await http.get(f"{PATH}/{made.json()['id']}")).json() == made.json()
    ended = await http.delete(f"{PATH}/by-service/order-manager?api_key=open")
    assert ended.json() == {"cancelled_count": 1}
    web.daemon.config.web.public_read = False
    assert code(await http.get(PATH)) == (401, "AUTHENTICATION_FAILED")
    assert (await http.get(PATH, headers={"X-API-Key": "sesame"})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "https://evil.example.test"}, False),
        ({"Origin": "https://app.example.test"}, True),
        ({"Origin": "null"}, False),
        ({"X-Forwarded-For": "203.0.113.5"}, False),
        ({"Forwarded": "for=203.0.113.5"}, False),
        ({"X-API-Key": "anything"}, None),
    ],
)
async def test_without_keys_changes_are_taken_of_programs_of_this_machine(
    bybit: Any, headers: dict[str, str], allowed: bool | None
) -> None:
    _, http = await bybit(*ALL, allowed_origins=("https://app.example.test",))
    answer = await http.post(PATH, json=TRADES, headers=headers)
    assert answer.status_code == {True: 201, False: 403, None: 401}[allowed]


async def test_a_page_of_our_own_host_is_a_browser_too(bybit: Any) -> None:
    """Another name for this machine, given to a browser, makes its page look like ours."""
    web, http = await bybit(*ALL)
    answer = await http.post(PATH, json=TRADES, headers={"Origin": web.http})
    assert code(answer) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 5), 201),
        (("127.8.9.1", 5), 201),
        (("::1", 5), 201),
        (("::ffff:127.0.0.1", 5), 201),
        (None, 201),  # a unix socket
        (("192.0.2.1", 5), 403),
        (("::ffff:192.0.2.1", 5), 403),
        (("fe80::1%eth0", 5), 403),
    ],
)
async def test_where_a_client_is_decides_when_there_are_no_keys(
    bybit: Any, client: tuple[str, int] | None, status: int
) -> None:
    web, _ = await bybit(*ALL)
    assert await posted(web.daemon, client) == status


async def posted(daemon: Any, client: tuple[str, int] | None) -> int:
    """Return the status of a POST from somewhere, as hypercorn would hand it to the app."""
    sent: list[Mapping[str, Any]] = []
    app = create_app(daemon)
    body = json.dumps(TRADES).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"feed.example.test"), (b"content-length", str(len(body)).encode())],
        "client": client,
        "server": ("127.0.0.1", 80),
        "state": {},
        "extensions": {},
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Mapping[str, Any]:
        if messages:
            return messages.pop()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    with trio.fail_after(5):
        await app(scope, receive, send)
    return int(sent[0]["status"])


async def test_what_belongs_to_an_account_is_shown_to_those_who_may_know(bybit: Any, web_key: Any) -> None:
    keys = (
        web_key(name="ops", key="ops", scopes=("admin",)),
        web_key(name="main", key="main", scopes=("read", "account:main")),
        web_key(name="other", key="other", scopes=("read", "account:other")),
    )
    web, http = await bybit(*ALL, keys=keys)
    made = await http.post(PATH, json=ORDERS, headers={"X-API-Key": "ops"})
    assert made.status_code == 201
    public = await http.post(PATH, json=TRADES, headers={"X-API-Key": "ops"})
    for key, seen in (("ops", True), ("main", True), ("other", False), (None, False)):
        headers = {"X-API-Key": key} if key else {}
        body = (await http.get(PATH, headers=headers)).json()
        assert body["total"] == len(body["subscriptions"]) == 1 + seen
        one = await http.get(f"{PATH}/{made.json()['id']}", headers=headers)
        assert one.status_code == (200 if seen else 404)
        assert (await http.get(f"{PATH}/{public.json()['id']}", headers=headers)).status_code == 200
    web.daemon.config.web.keys = ()
    assert (await http.get(PATH)).json()["total"] == 2
    assert (await http.get(PATH, headers={"X-Real-IP": "203.0.113.5"})).json()["total"] == 1


async def test_with_an_admin_listener_all_of_it_is_there_alone(bybit: Any) -> None:
    web, http = await bybit(*ALL, admin_listen=("127.0.0.1:0",))
    assert code(await http.post(PATH, json=TRADES)) == (404, "NOT_FOUND")
    async with httpx.AsyncClient(base_url=web.binds[1]) as admin:
        assert (await admin.post(PATH, json=TRADES)).status_code == 201


# --- What may be said --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("", 400, "BAD_JSON"),
        ("{", 400, "BAD_JSON"),
        ("\xff", 400, "BAD_JSON"),
        ("[" * 50_000, 400, "BAD_JSON"),
        ("[]", 400, "BAD_REQUEST"),
        ("null", 400, "BAD_REQUEST"),
        ("{}", 400, "BAD_REQUEST"),
        ('{"channel_type":"trades","channel_type":[]}', 400, "INVALID_CHANNEL_TYPE"),
        (json.dumps(TRADES | {"symbol": {"a": 1}}), 400, "BAD_REQUEST"),
        (json.dumps(TRADES | {"symbol": "x" * 65}), 400, "BAD_REQUEST"),
        (json.dumps(TRADES | {"symbol": "\0"}), 400, "INVALID_SYMBOL"),
        (json.dumps(TRADES | {"requesting_service": "a/b"}), 400, "BAD_REQUEST"),
        (json.dumps(TRADES | {"requesting_service": "\0"}), 400, "BAD_REQUEST"),
        (json.dumps(TRADES | {"topic": "\0" * 200}), 400, "INVALID_TOPIC"),
        (json.dumps(TRADES | {"venue": "\0"}), 400, "INVALID_VENUE"),
        (json.dumps(TRADES | {"pad": "x" * 70_000}), 413, "REQUEST_ENTITY_TOO_LARGE"),
    ],
)
async def test_a_body_that_is_wrong_is_refused(bybit: Any, body: str, status: int, told: str) -> None:
    _, http = await bybit(*ALL)
    answer = await http.post(PATH, content=body.encode("latin-1"))
    assert code(answer) == (status, told)
    assert (await http.get(PATH)).json()["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", f"{PATH}?limit=0", 400, "BAD_REQUEST"),
        ("GET", f"{PATH}?is_active=yes", 400, "BAD_REQUEST"),
        ("GET", f"{PATH}?channel_type=trade", 400, "BAD_REQUEST"),
        ("GET", f"{PATH}?service=x", 400, "BAD_REQUEST"),
        ("GET", f"{PATH}/nothing", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("GET", f"{PATH}/6f0c4a52-6a0e-4c0b-9d6f-3b1f5e6f7a80", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("DELETE", f"{PATH}/6f0c4a52-6a0e-4c0b-9d6f-3b1f5e6f7a80", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("DELETE", f"{PATH}/{'x' * 5_000}", 404, "SUBSCRIPTION_NOT_FOUND"),
        ("DELETE", f"{PATH}/by-service/two%20words", 400, "BAD_REQUEST"),
        ("DELETE", f"{PATH}/by-service/x?y=1", 400, "BAD_REQUEST"),
        ("DELETE", PATH, 405, "METHOD_NOT_ALLOWED"),
        ("PUT", f"{PATH}/nothing", 405, "METHOD_NOT_ALLOWED"),
        ("POST", f"{PATH}?x=1", 400, "BAD_REQUEST"),
    ],
)
async def test_a_path_that_is_wrong_is_refused(
    bybit: Any, method: str, path: str, status: int, told: str
) -> None:
    _, http = await bybit(*ALL)
    answer = await http.request(method, path, json=TRADES if method == "POST" else None)
    assert code(answer) == (status, told)
    assert len(answer.text) < 500


# --- What is told when -------------------------------------------------------------------------------------


async def test_while_instruments_are_loading_a_service_is_asked_to_come_again(bybit: Any) -> None:
    web, http = await bybit("linear", limits=Limits(listing_s=0.2))
    assert (await http.post(PATH, json=TRADES)).status_code == 201, "its market is loaded"
    later = await http.post(PATH, json=TRADES | {"symbol": "BTCUSD"})
    assert code(later) == (503, "INSTRUMENTS_NOT_LOADED")
    assert later.headers["Retry-After"] == "5"
    wrong = await http.post(PATH, json=TRADES | {"symbol": "NONE", "market": "linear"})
    assert code(wrong) == (400, "INVALID_SYMBOL")
    web.daemon.offer_bybit(*ALL)
    assert (await http.post(PATH, json=TRADES | {"symbol": "BTCUSD"})).status_code == 201


async def test_there_is_a_limit(bybit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST", 3)
    _, http = await bybit(*ALL)
    names = [f"service-{number}" for number in range(4)]
    answers = [await http.post(PATH, json=TRADES | {"requesting_service": name}) for name in names]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert answers[3].json()["code"] == "LIMIT"
    await http.delete(f"{PATH}/{answers[0].json()['id']}")
    assert (await http.post(PATH, json=TRADES)).status_code == 201


async def test_at_the_end_of_the_daemon_nothing_is_changed(bybit: Any) -> None:
    web, http = await bybit(*ALL)
    made = (await http.post(PATH, json=TRADES)).json()
    web.daemon.subscriptions.close()
    for method, path in (("POST", ""), ("DELETE", f"/{made['id']}"), ("DELETE", "/by-service/x")):
        answer = await http.request(method, PATH + path, json=TRADES | {"requesting_service": "other"})
        assert code(answer) == (503, "SHUTTING_DOWN")
    assert (await http.get(PATH, params={"is_active": "true"})).json()["total"] == 1
