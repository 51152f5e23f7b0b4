"""The example clients, as their readers run them: against a daemon, through a cut, and when they are not wanted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

EXAMPLES = Path(__file__).parents[2] / "contrib" / "examples"
CLIENTS = ("trio", "asyncio", "node")

TRADES = "trade:binance:BTC-USDT"
BOOK = "book:binance:BTC-USDT"


def needed(program: str) -> str:
    """Return the path of a program. Without it a test is left out, but not at the gate."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("PRICEFEEDD_REQUIRE_SERVICES"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return found


@pytest.fixture(scope="session")
def node() -> list[str]:
    """Return the command that starts Node with a WebSocket of its own."""
    program = needed("node")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    old = int(version.removeprefix("v").split(".")[0]) < 22
    return [program, "--no-warnings", "--experimental-websocket"] if old else [program]


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Serve the demo, to pages of any origin; return its address. One for all tests of a process."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PRICEFEEDD")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pricefeedd.cli", "demo", "--listen", "127.0.0.1:0", "--rate", "200"],
        stdout=subprocess.PIPE,
        text=True,
        env={**environ, "PYTHONUNBUFFERED": "1", "PRICEFEEDD__WEB__ALLOWED_ORIGINS": '["*"]'},
    )
    try:
        assert process.stdout is not None
        address = next(line.split()[-1] for line in process.stdout if "WebSocket" in line)
        yield address.removeprefix("ws://").removesuffix("/ws")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def run_client(cli: Any, node: list[str]) -> Callable[..., Awaitable[Any]]:
    """Return a function that begins an example client."""
    programs = {
        "trio": [sys.executable, EXAMPLES / "trio_client.py"],
        "asyncio": [sys.executable, EXAMPLES / "asyncio_client.py"],
        "node": [*node, EXAMPLES / "node_client.mjs"],
    }

    async def run(name: str, *arguments: str) -> Any:
        return await cli.program(*programs[name], *arguments)

    return run


@attrs.define
class Proxy:
    """Stands between a client and a daemon, and cuts the connection when asked to.

    Attributes:
        address: Where it listens.
        accepted: How many connections there were.
    """

    target: str
    address: str = ""
    accepted: int = 0
    _open: list[trio.CancelScope] = attrs.field(factory=list)

    def cut(self) -> None:
        """Cut all connections, without a word, as networks do."""
        for scope in self._open:
            scope.cancel()
        self._open.clear()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._join, listeners)

    async def _join(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        host, port = self.target.split(":")
        async with await trio.open_tcp_stream(host, int(port)) as server, trio.open_nursery() as both:
            self._open.append(both.cancel_scope)
            both.start_soon(self._copy, client, server, both.cancel_scope)
            both.start_soon(self._copy, server, client, both.cancel_scope)

    @staticmethod
    async def _copy(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                await sink.send_all(data)
        both.cancel()


@pytest.fixture
async def proxy(nursery: trio.Nursery, demo: str) -> Proxy:
    """Return a proxy before the demo."""
    made = Proxy(demo)
    await nursery.start(made.run)
    return made


@pytest.fixture
def scripted() -> Iterator[Callable[[Callable[[ServerConnection, int], None]], str]]:
    """Return a function that serves a script, called with each connection and its number; it returns the URL."""
    servers = []

    def begin(script: Callable[[ServerConnection, int], None]) -> str:
        numbers = iter(range(1, 100))

        def handle(connection: ServerConnection) -> None:
            with suppress(ConnectionClosed):
                script(connection, next(numbers))

        server = serve(handle, "127.0.0.1", 0, compression=None)
        thread = Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"

    yield begin
    for server, thread in servers:
        server.shutdown()
        thread.join(5)


def by_topic(messages: list[dict[str, Any]], topic: str) -> list[dict[str, Any]]:
    """Return the messages of a topic, in order."""
    return [message for message in messages if message["topic"] == topic]


async def printed(running: Any, condition: Callable[[], object]) -> None:
    """Wait until a program has printed what makes the condition true."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # what another process prints has no event here
            await trio.sleep(0.02)


def check_numbers(messages: list[dict[str, Any]]) -> None:
    """Assert that each topic of trades came without a hole and without a repetition."""
    for topic in {message["topic"] for message in messages if message["type"] == "trade"}:
        seqs = [message["seq"] for message in by_topic(messages, topic)]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), topic


# --- clients of the WebSocket -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_prints_what_was_asked_for(run_client: Any, demo: str, name: str) -> None:
    running = await run_client(name, f"ws://{demo}/ws", "trade:*:*", BOOK, "--limit", "30")
    ended = await running.ended(within_s=20)

    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 30
    kinds = [re.match(r"(trade|book):binance:\S+ #\d+ (trade|book) \S", line) for line in ended.lines]
    assert all(kinds), ended.out
    assert {kind[1] for kind in kinds if kind} == {"trade", "book"}


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_misses_nothing_when_the_connection_is_cut(
    run_client: Any, proxy: Proxy, name: str
) -> None:
    def books(kind: str) -> list[int]:
        return [found.start() for found in re.finditer(rf'"kind": ?"{kind}"', running.out)]

    running = await run_client(name, f"ws://{proxy.address}/ws", "trade:*:*", TRADES, BOOK, "--json")
    await printed(running, lambda: len(books("delta")) > 1)
    proxy.cut()
    await printed(running, lambda: len(books("snapshot")) == 2 and books("delta")[-1] > books("snapshot")[1])
    ended = await running.end(signal.SIGINT)

    assert ended.code == 130
    assert proxy.accepted == 2
    assert "trying again in" in ended.err
    assert "missed" not in ended.err
    assert "Traceback" not in ended.err
    whole, _, _ = ended.out.rpartition("\n")  # the signal may come amid a line
    messages = [json.loads(line) for line in whole.splitlines()]
    assert {message["type"] for message in messages} <= {"trade", "book", "conflated", "status"}
    check_numbers(messages)


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_proves_what_is_missing_and_obeys(run_client: Any, scripted: Any, name: str) -> None:
    asked: list[dict[str, Any]] = []
    url = scripted(partial(script_of_losses, asked))
    running = await run_client(name, url, TRADES, "--json")
    ended = await running.ended(within_s=20)

    assert ended.code == 1
    assert "Traceback" not in ended.err
    told = ended.out + ended.err
    assert "4001 back soon" in told
    assert "4501 enough of you" in told
    data = [message for message in ended.json() if message["type"] == "trade"]
    assert [message["seq"] for message in data] == [1, 2, 5, 6, 1]
    assert asked[0] == {"op": "subscribe", "id": asked[0]["id"], "topics": [TRADES]}
    assert asked[1]["since"] == {"epoch": "a", "seq": {TRADES: 5}}
    if name == "asyncio":  # it tells of losses in their place among the data
        found = [(m["data"]["from_seq"], m["data"]["to_seq"]) for m in ended.json() if m["type"] == "missed"]
        assert found == [(3, 4), (7, 8), (9, None)]
    else:
        assert f"{TRADES}: missed #3 to #4" in ended.err
        assert f"{TRADES}: missed #7 to #8" in ended.err
    assert "epoch" in told or "began anew" in told


def script_of_losses(asked: list[dict[str, Any]], connection: ServerConnection, number: int) -> None:
    """Lose trades between two and before a heartbeat, say goodbye, begin anew, and want no more of the client."""

    def say(**message: Any) -> None:
        connection.send(json.dumps(message))

    def trade(seq: int) -> None:
        data = {"id": str(seq), "price": "1.0", "size": "2", "side": None}
        times = {"ts_event": None, "ts_recv": 1_795_000_000_000_000}
        say(type="trade", topic=TRADES, seq=seq, **times, origin="live", data=data)

    def bye(code: int, reason: str) -> None:
        say(type="bye", code=code, reason=reason, retry_after_ms=10)
        connection.close(code, reason)

    epoch = "b" if number == 3 else "a"
    limits = {"message_bytes": 65536}
    say(type="welcome", protocol=1, session="s", epoch=epoch, heartbeat_s=15, limits=limits)
    request = json.loads(connection.recv(timeout=10))
    asked.append(request)
    results = [{"topic": topic, "ok": True, "matched": 1} for topic in request["topics"]]
    say(type="ack", id=request["id"], op=request["op"], results=results, epoch=epoch)
    say(type="younger than this client", what="ever")
    if number == 1:
        for seq in (1, 2, 5):
            trade(seq)
        bye(4001, "back soon")
    elif number == 2:
        trade(6)
        for _ in range(2):
            say(type="heartbeat", ts=0, seq={TRADES: 8})
        bye(4001, "back soon")
    else:
        trade(1)
        bye(4501, "enough of you")


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_says_why_it_is_refused(run_client: Any, demo: str, name: str) -> None:
    unknown = await run_client(name, f"ws://{demo}/ws", "trade:binance:BTC-USDTT")
    wrong = await run_client(name, f"ws://{demo}/ws?nonsense=1", TRADES)
    no_address = await run_client(name, "nonsense", TRADES)
    ended = await unknown.ended(within_s=20)
    assert (ended.code, ended.out) == (1, "")
    assert "did you mean BTC-USDT" in ended.err
    for running, text in ((wrong, "unknown parameter"), (no_address, "")):
        ended = await running.ended(within_s=20)
        assert (ended.code, ended.out) == (1, ""), ended
        assert text in ended.err
        assert "Traceback" not in ended.err
        assert "at " not in ended.err.splitlines()[-1][:3]


async def test_a_node_without_websocket_says_what_to_do(cli: Any, node: list[str]) -> None:
    if "--experimental-websocket" not in node:
        node = [*node, "--no-experimental-websocket"]
    command = [part for part in node if part != "--experimental-websocket"]
    running = await cli.program(*command, EXAMPLES / "node_client.mjs", "ws://127.0.0.1:1/ws", TRADES)
    ended = await running.ended(within_s=20)

    assert ended.code == 1
    assert "npm install ws" in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_the_javascript_module_passes_its_own_tests(cli: Any, node: list[str]) -> None:
    running = await cli.program(node[0], "--test", EXAMPLES / "feed.test.mjs")
    ended = await running.ended(within_s=30)

    assert ended.code == 0, ended.out


# --- the shell ----------------------------------------------------------------------------------------------


@pytest.fixture
def tail(cli: Any) -> Callable[..., Awaitable[Any]]:
    """Return a function that begins `tail.sh`."""
    needed("curl")

    async def run(*arguments: str, environ: dict[str, str] | None = None) -> Any:
        return await cli.program("/bin/sh", EXAMPLES / "tail.sh", *arguments, environ=environ)

    return run


async def test_the_shell_follows_topics(tail: Any, demo: str) -> None:
    running = await tail("-r", "-n", "20", f"http://{demo}", "trade:*:*", BOOK, "trade:binance:NO")
    ended = await running.ended(within_s=20)

    assert ended.code == 0
    assert "unknown_instrument" in ended.err
    messages = ended.json()
    assert len(messages) == 20
    assert {message["type"] for message in messages} == {"trade", "book"}
    check_numbers(messages)


async def test_the_shell_needs_no_jq(tail: Any, demo: str, tmp_path: Path) -> None:
    for program in ("curl", "awk", "sed", "mktemp", "mkfifo", "rm", "cat", "date", "sleep"):
        (tmp_path / program).symlink_to(needed(program))
    running = await tail("-n", "3", f"http://{demo}", TRADES, environ={"PATH": str(tmp_path)})
    ended = await running.ended(within_s=20)

    assert (ended.code, ended.err) == (0, "")
    assert [message["topic"] for message in ended.json()] == [TRADES] * 3


async def test_the_shell_writes_lines_where_there_is_jq(tail: Any, demo: str) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    running = await tail("-n", "3", f"http://{demo}", TRADES)
    ended = await running.ended(within_s=20)

    assert (ended.code, ended.err) == (0, "")
    for line in ended.lines:
        assert re.fullmatch(rf"{TRADES} #\d+ trade id=\d+ price=[\d.]+ size=[\d.]+ side=(buy|sell)", line)


async def test_the_shell_tells_the_latest(tail: Any, demo: str) -> None:
    running = await tail("-l", "-r", f"http://{demo}", TRADES, BOOK)
    ended = await running.ended(within_s=20)

    assert (ended.code, ended.err) == (0, "")
    answer = json.loads(ended.out)
    assert [result["messages"][0]["type"] for result in answer["results"]] == ["trade", "book"]


async def test_the_shell_comes_back_after_a_cut(tail: Any, proxy: Proxy) -> None:
    running = await tail("-r", f"http://{proxy.address}", "trade:*:*")
    await running.until('"trade"')
    proxy.cut()
    await running.until("trying again", where="err")
    before = len(running.out)
    await printed(running, lambda: len(running.out) > before)
    running.process.terminate()
    ended = await running.ended()

    assert ended.code == 143
    assert proxy.accepted == 2


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["{}", "trade:binance:BTC-USDTT"], 1, "did_you_mean"),
        (["-l", "{}", "trade:binance:BTC-USDTT"], 1, "did_you_mean"),
        (["{}", "nonsense"], 1, "channel:venue:instrument"),
        (["-l", "http://127.0.0.1:1", TRADES], 1, "curl: (7)"),
        (["{}"], 2, "URL TOPIC"),
        (["-n", "many", "{}", TRADES], 2, "URL TOPIC"),
    ],
)
async def test_the_shell_says_why_not(
    tail: Any, demo: str, arguments: list[str], code: int, text: str
) -> None:
    running = await tail(*[argument.format(f"http://{demo}") for argument in arguments])
    ended = await running.ended(within_s=20)

    assert (ended.code, ended.out) == (code, "")
    assert text in ended.err


# --- the browser --------------------------------------------------------------------------------------------


class Page:
    """A page in Chromium, over its debugging protocol."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._number = 0

    def call(self, method: str, **params: Any) -> Any:
        """Call a method, and return its result; events are passed over."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=20))
            if answer.get("id") == self._number:
                return answer["result"]

    def until(self, expression: str) -> Any:
        """Wait until an expression is true in the page, asking at each picture, and return its value."""
        wait = (
            "new Promise((resolve) => { const look = () => { const value = (() => ("
            + expression
            + "))(); value ? resolve(value) : requestAnimationFrame(look) }; look() })"
        )
        answer = self.call("Runtime.evaluate", expression=wait, awaitPromise=True, returnByValue=True)
        return answer["result"]["value"]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """Return an empty page in Chromium. It is no service, and large: where it is not, nobody has to install it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    switches = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]
    process = subprocess.Popen(
        [chromium, *switches, "--remote-debugging-port=0", f"--user-data-dir={tmp_path}", "about:blank"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = next(
            m[1] for line in process.stderr if (m := re.search(r"listening on ws://([^/]+)/", line))
        )
        with urllib.request.urlopen(f"http://{address}/json", timeout=20) as answer:
            target = next(target for target in json.load(answer) if target["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Page(connection)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def files() -> Iterator[str]:
    """Serve the examples as files; return the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=EXAMPLES)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(5)


async def test_the_page_shows_prices_and_comes_back(page: Page, files: str, proxy: Proxy) -> None:
    def in_page(expression: str) -> Any:
        return trio.to_thread.run_sync(page.until, expression)

    url = f"{files}/browser.html?url=ws://{proxy.address}/ws&topics=trade:*:*,quote:*:*,trade:binance:NO"
    with trio.fail_after(60):
        await trio.to_thread.run_sync(partial(page.call, "Page.navigate", url=url))
        prices = await in_page(
            "document.querySelectorAll('#prices tr').length === 4 && document.querySelector('#prices').innerText"
        )
        assert re.search(r"BTC-USDT\tbinance\t[\d.]+\t", prices), prices
        book = await in_page("/Offer\\t\\d/.test(book.innerText) && book.innerText")
        levels = [line.split("\t") for line in book.splitlines()]
        values = [float(price) for _, price, _ in levels]
        assert len(levels) == 10
        assert values == sorted(values, reverse=True)
        assert "unknown instrument" in await in_page("notices.innerText")
        proxy.cut()
        await in_page("connection.innerText.startsWith('No connection')")
        await in_page("!/Offer\\t\\d/.test(book.innerText)")
        await in_page("connection.innerText === 'Connected.' && /Offer\\t\\d/.test(book.innerText)")
        assert "missed" not in await in_page("notices.innerText")


# --- the table ----------------------------------------------------------------------------------------------


def test_the_table_names_each_example() -> None:
    table = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.is_file() and path.name != "README.md":
            assert f"[`{path.name}`]({path.name})" in table, path.name
