"""A real Chromium, and daemons for it to look at.

Playwright's calls all belong to one thread, which has an event loop of its own; the tests of this folder run there.
Without Chromium they are skipped; with PRICEFEEDD_REQUIRE_SERVICES=1 they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")

#: What the browser says when nobody answers, or the answer is a refusal: the network's, not the page's.
NETWORKS_OWN = ("net::ERR_", "Failed to load resource", "WebSocket connection to", "503")

FOLDER = Path(__file__).parent


def _away(what: str) -> None:
    if os.environ.get("PRICEFEEDD_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what}, and services are required")
    pytest.skip(what)


@pytest.fixture(scope="session")
def _thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "playwright") as made:
        yield made


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run what has a browser in the browser's thread."""
    if "_thread" not in pyfuncitem.fixturenames or pyfuncitem.path.parent != FOLDER:
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in wanted}
    pyfuncitem.funcargs["_thread"].submit(pyfuncitem.obj, **given).result()
    return True


@pytest.fixture(scope="session")
def chromium(_thread: ThreadPoolExecutor) -> Iterator[Any]:
    """Return the browser."""
    if shutil.which(CHROMIUM) is None:
        _away(f"{CHROMIUM} is not installed")
    from playwright.sync_api import sync_playwright

    def begin() -> tuple[Any, Any]:
        manager = sync_playwright()
        playwright = manager.start()
        return playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))

    playwright, browser = _thread.submit(begin).result(60)
    yield browser
    _thread.submit(browser.close).result(30)
    _thread.submit(playwright.stop).result(30)


@attrs.define
class Look:
    """One tab, and all that is wrong with what it did.

    Attributes:
        page: Playwright's page.
        base: The daemon's address.
        errors: What the console said in earnest, and what the page threw.
        asked: Every address that was asked for.
    """

    page: Any
    base: str
    errors: list[str] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.page.on("console", lambda message: self._heard(message))
        self.page.on("pageerror", lambda error: self.errors.append(f"threw {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text}")

    def open(self, place: str = "") -> Any:
        """Load the page; return it."""
        self.page.goto(f"{self.base}/{place}")
        return self.page

    def fine(self) -> None:
        """Assert that nothing was wrong, but for the network, and that nobody else was asked for anything."""
        assert [error for error in self.errors if not any(part in error for part in NETWORKS_OWN)] == []
        host = self.base.partition("//")[2]
        assert [url for url in self.asked if url.partition("//")[2].partition("/")[0] != host] == []

    def spotless(self) -> None:
        """Assert that not even the network was."""
        assert self.errors == []
        self.fine()


@pytest.fixture
def look(chromium: Any, _thread: ThreadPoolExecutor) -> Iterator[Callable[..., Look]]:
    """Return a function that makes a tab, `look(base, **context)`; what it showed must have been fine."""
    made: list[Look] = []

    def open_(base: str, **context: Any) -> Look:
        context.setdefault("viewport", {"width": 1280, "height": 900})
        page = chromium.new_page(**context)
        page.set_default_timeout(15_000)
        made.append(Look(page, base))
        return made[-1]

    yield open_

    def end() -> None:
        for each in made:
            each.page.close()

    _thread.submit(end).result(30)


@attrs.define
class Process:
    """A daemon that serves.

    Attributes:
        base: Its address.
    """

    process: subprocess.Popen[str]
    base: str

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.communicate()


def begin(*command: str, environ: dict[str, str] | None = None, word: str = "WebSocket") -> Process:
    """Begin a daemon; return once it serves.

    Args:
        word: What stands in the line that ends with its address.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PRICEFEEDD")}
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**kept, "PYTHONUNBUFFERED": "1", **(environ or {})},
    )
    assert process.stdout is not None
    address = next((line.split()[-1] for line in process.stdout if word in line), None)
    if address is None:
        process.communicate()
        raise AssertionError(f"{command} ended with {process.returncode} before it served")
    return Process(process, address.replace("ws://", "http://").removesuffix("/ws"))


@pytest.fixture
def daemon() -> Iterator[Callable[..., Process]]:
    """Return a function that begins a program that serves, `daemon(*command, environ=)`; it is killed at the end."""
    begun: list[Process] = []

    def run(*command: str, **options: Any) -> Process:
        begun.append(begin(*command, **options))
        return begun[-1]

    yield run
    for each in begun:
        each.kill()


@pytest.fixture(scope="session")
def demo(chromium: object) -> Iterator[str]:
    """Serve the demo; return its address. One for all tests of a process that change nothing in it."""
    made = begin("-m", "pricefeedd.cli", "demo", "--listen", "127.0.0.1:0", "--rate", "10")
    yield made.base
    made.kill()
