"""The status page as it is served: a shell for everybody, and files that may be kept for ever."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from pricefeedd.web import page

EXAMPLE = Path(__file__).parents[3] / "contrib" / "examples" / "feed.mjs"


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


class _Shell(HTMLParser):
    """Notes what the page names, and what the policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str] = []
        self.inline: list[str] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        for name, value in attrs:
            if name in ("src", "href") and value and not value.startswith("#"):
                self.named.append(value)
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(data)


async def test_the_shell_names_its_own_files_and_holds_no_script(start_web: Any, http: Any) -> None:
    web = await start_web()
    answer = await http.get(f"{web.http}/")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == page.CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in page.CONTENT_SECURITY_POLICY
    assert "unsafe" not in page.CONTENT_SECURITY_POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    shell = _Shell()
    shell.feed(answer.text)
    assert shell.inline == []
    assert {"docs"} == {link for link in shell.named if not link.startswith("static/")}
    for link in shell.named:
        found = await http.get(f"{web.http}/{link}")
        assert found.status_code == 200, link
        assert found.headers["Cache-Control"] == ("no-store" if link == "docs" else page._FOREVER)


async def test_the_shell_is_asked_for_again_and_seldom_sent_again(start_web: Any, http: Any) -> None:
    web = await start_web()
    first = await http.get(f"{web.http}/")
    again = await http.get(f"{web.http}/", headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == "no-cache"
    assert first.headers["ETag"] == f'"{page.assets().build}"'
    assert (again.status_code, again.content) == (304, b"")
    assert (await http.head(f"{web.http}/")).headers["ETag"] == first.headers["ETag"]


async def test_a_file_is_packed_for_those_who_take_it(start_web: Any, http: Any) -> None:
    web = await start_web()
    url = f"{web.http}/static/{page.assets().build}/uplot.js"
    plain = await http.get(url, headers={"Accept-Encoding": "identity"})
    packed = await http.get(url, headers={"Accept-Encoding": "gzip"})

    assert plain.headers["Content-Type"] == packed.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert plain.content == packed.content == page.assets().files["uplot.js"].data
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 3
    assert plain.headers["Vary"] == "Accept-Encoding"


async def test_a_shell_of_another_build_is_served_but_may_keep_nothing(start_web: Any, http: Any) -> None:
    web = await start_web()
    answer = await http.get(f"{web.http}/static/0123456789ab/main.mjs")

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpage.py", "../page.py", "index.html", "%00"])
async def test_nothing_else_is_served(start_web: Any, http: Any, name: str) -> None:
    web = await start_web()
    answer = await http.get(f"{web.http}/static/{page.assets().build}/{name}")

    assert answer.status_code == 404
    assert answer.json()["code"] == "NOT_FOUND"


async def test_the_page_needs_no_key_and_what_it_reads_does(start_web: Any, http: Any, web_key: Any) -> None:
    web = await start_web(public_read=False, keys=(web_key(name="me", key="sesame"),))

    assert (await http.get(f"{web.http}/")).status_code == 200
    assert (await http.get(f"{web.http}/static/{page.assets().build}/main.mjs")).status_code == 200
    for path in ("status", "feeds", "api/v1/gaps"):
        assert (await http.get(f"{web.http}/{path}")).status_code == 401


def test_the_build_is_a_name_for_the_contents() -> None:
    found = page.assets()

    assert re.fullmatch("[0-9a-f]{12}", found.build)
    assert b"@BUILD@" not in found.shell
    assert found.build.encode() in found.shell
    assert all(gzip.decompress(asset.packed) == asset.data for asset in found.files.values())


def test_the_page_reads_with_the_client_that_all_may_copy() -> None:
    assert page.assets().files["feed.mjs"].data == EXAMPLE.read_bytes()


def test_what_is_not_ours_is_there_with_its_licence() -> None:
    files = page.assets().files

    assert b"uPlot.js" in files["uplot.js"].data[:200]
    assert b"MIT License" in files["uplot-license.txt"].data
