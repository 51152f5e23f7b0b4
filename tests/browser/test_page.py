"""The status page, as its readers have it: in a browser, by keyboard, on a phone, and while the daemon goes and comes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from pricefeedd.testing.ports import free_port
from pricefeedd.web.page import CONTENT_SECURITY_POLICY

HERE = Path(__file__).parent
AXE = HERE / "axe" / "axe.min.js"
DEMO = ("-m", "pricefeedd.cli", "demo", "--rate", "10")
TRADES = "trade:binance:BTC-USDT"

#: What must be reached with a thumb.
TARGETS = "a:not(.skip), button, select, input:not([hidden]), summary"


def until(page: Any, condition: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait until the condition holds, and let the page's events in meanwhile."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        page.wait_for_timeout(50)


def text(page: Any, selector: str) -> str:
    """Return what is written there."""
    return str(page.locator(selector).first.inner_text())


def ready(page: Any) -> Any:
    """Wait until the daemon is there, and the list is filled; return the page."""
    page.locator("#ready", has_text="Ready").wait_for()
    page.locator(".rows [role=row]").first.wait_for()
    page.locator("#connection", has_text="live").wait_for()
    return page


def rows(page: Any) -> Any:
    """Return the rows of the list that are drawn."""
    return page.locator(".rows [role=row]:visible")


def row(page: Any, instrument: str, channel: str) -> Any:
    """Return the row of one topic."""
    named = page.locator(".instrument", has_text=re.compile(f"^{instrument}$"))
    return (
        rows(page)
        .filter(has=named)
        .filter(has=page.locator(".c-channel", has_text=re.compile(f"^{channel}$")))
    )


def chosen(page: Any) -> str:
    """Return the instrument and channel of the row that the keyboard is at."""
    active = page.locator(f"#{page.locator('[role=grid]').get_attribute('aria-activedescendant')}")
    return f"{active.locator('.instrument').inner_text()} {active.locator('.c-channel').inner_text()}"


def test_modules_that_need_no_browser() -> None:
    program = shutil.which("node")
    if program is None:
        (pytest.fail if os.environ.get("PRICEFEEDD_REQUIRE_SERVICES") else pytest.skip)(
            "node is not installed"
        )
    assert program is not None
    done = subprocess.run(
        [program, "--test", HERE / "page.test.mjs"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
    assert "# pass 23" in done.stdout


def test_it_loads_and_ticks(look: Any, demo: str) -> None:
    seen = look(demo)
    page = ready(seen.open())

    assert page.title() == "pricefeedd"
    assert page.locator("#icon").get_attribute("href").endswith("icon-ok.svg")
    assert text(page, "#topics-count") == "21"
    assert page.locator(".markets tbody tr").count() == 3
    assert text(page, ".markets tbody tr .state") == "live"
    trade = row(page, "BTC-USDT", "trade")
    before = trade.locator(".last").inner_text()
    until(page, lambda: trade.locator(".last").inner_text() != before)
    until(page, lambda: page.locator(".markets .spark .line").first.get_attribute("d"))
    assert re.search(r"\d+(\.\d)?\s*/s", text(page, ".tile .big"))
    assert re.match(r"\d\.\d s", trade.locator(".age").inner_text())
    for heading in ("Leader", "Clients", "Store", "Sinks", "Plugins"):
        assert page.locator(".card h3", has_text=heading).count() == 1
    assert "No gaps" in text(page, "#gaps-body")
    seen.spotless()


def test_the_policy_is_kept_and_would_be_noticed(look: Any, demo: str) -> None:
    seen = look(demo)
    answers: list[Any] = []
    seen.page.on("response", lambda answer: answers.append(answer))
    page = ready(seen.open())
    assert answers[0].headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    seen.spotless()

    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    until(page, lambda: seen.errors)
    assert "Content Security Policy" in seen.errors[0]


def test_topics_are_searched_filtered_and_ordered(look: Any, demo: str) -> None:
    seen = look(demo)
    page = ready(seen.open())
    page.get_by_label("Search topics").fill("book ETH")
    until(page, lambda: text(page, "#topics-count") == "1 of 21")
    assert rows(page).locator(".instrument").all_inner_texts() == ["ETH-USDT"]
    page.get_by_label("Search topics").fill("nothing like it")
    page.get_by_text("No topic has all of this").wait_for()
    page.keyboard.press("Escape")
    until(page, lambda: text(page, "#topics-count") == "21")
    page.get_by_label("Channel").select_option("liquidation")
    until(page, lambda: rows(page).locator(".instrument").all_inner_texts() == ["BTC-USDT-PERP"])
    page.get_by_label("Channel").select_option("")
    page.get_by_role("button", name="Messages").click()
    head = page.locator(".grid [role=columnheader]", has_text="Messages")
    assert head.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Messages").click()
    until(page, lambda: head.get_attribute("aria-sort") == "ascending")
    assert rows(page).locator(".c-channel").first.inner_text() == "liquidation"
    seen.spotless()


def test_an_instrument_has_a_book_a_chart_and_trades(look: Any, demo: str) -> None:
    seen = look(demo)
    page = ready(seen.open())
    row(page, "BTC-USDT", "trade").click()
    page.get_by_role("heading", name="BTC-USDT", exact=True).wait_for()
    assert page.url.endswith(f"#/topic/{TRADES}")

    bids = page.locator(".bids tr td:first-child")
    until(page, lambda: re.fullmatch(r"[\d\u202f.]+", bids.first.inner_text()))

    def prices(side: str) -> list[float]:
        found = page.locator(f".{side} td:first-child").all_inner_texts()
        return [float(price.replace("\u202f", "")) for price in found if price.strip()]

    until(page, lambda: len(prices("bids")) > 5)
    high_to_low = prices("bids")
    assert high_to_low == sorted(high_to_low, reverse=True)
    assert "spread" in text(page, ".middle")
    page.locator(".uplot canvas").wait_for()
    drawn = page.locator(".uplot canvas").evaluate(
        """canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const colours = new Set();
            for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) colours.add(`${data[i]} ${data[i + 1]}`);
            return colours.size;
        }"""
    )
    assert drawn > 3, "more than axes"
    assert "1m: " in page.locator(".chart").get_attribute("aria-label")
    until(page, lambda: page.locator(".tape tbody tr").count() > 3)
    first = text(page, ".tape tbody tr")
    until(page, lambda: text(page, ".tape tbody tr") != first)
    assert text(page, "#instrument .facts dd") == TRADES
    page.get_by_role("heading", name="Why is it so?").wait_for()
    page.get_by_text("Newest message").click()
    assert json.loads(text(page, ".raw"))["topic"] == TRADES
    page.get_by_role("link", name="book", exact=False).click()
    until(page, lambda: page.url.endswith("#/topic/book:binance:BTC-USDT"))
    assert page.locator(".tabs [aria-current=page]").inner_text() == "book"
    seen.spotless()


def test_an_address_of_nothing_says_so(look: Any, demo: str) -> None:
    seen = look(demo)
    page = seen.open("#/topic/trade:binance:BTC-USDTT")
    page.get_by_text("Did you mean BTC-USDT").wait_for()
    page.get_by_role("link", name="All topics").click()
    ready(page)
    page.evaluate("location.hash = '#/topic/%'")
    ready(page)
    seen.fine()


def test_what_is_looked_at_says_when_it_changes_and_not_when_it_comes_in_sight(look: Any, demo: str) -> None:
    seen = look(demo)
    page = ready(seen.open())
    for search in ("liquidation", "ticker", "liquidation"):
        page.get_by_label("Search topics").fill(search)
        until(page, lambda: "of 21" in text(page, "#topics-count"))
        page.wait_for_timeout(400)
    assert page.locator("#events-body .entry").count() == 0
    seen.spotless()


def test_all_of_it_goes_by_keyboard(look: Any, demo: str) -> None:
    seen = look(demo)
    page = ready(seen.open())
    press = page.keyboard.press
    press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press("/")
    page.keyboard.type("btc-usdt-perp")
    until(page, lambda: text(page, "#topics-count") == "6 of 21")
    press("ArrowDown")
    until(page, lambda: page.evaluate("document.activeElement.getAttribute('role')") == "grid")
    first = chosen(page)
    press("j")
    second = chosen(page)
    press("ArrowDown")
    press("k")
    assert second != first
    assert chosen(page) == second
    press("End")
    last = chosen(page)
    press("Home")
    assert chosen(page) == first
    assert last not in (first, second)
    press("Enter")
    page.get_by_role("heading", name="BTC-USDT-PERP", exact=True).wait_for()
    before = page.url
    press("j")
    until(page, lambda: page.url != before)
    press("Escape")
    until(page, lambda: page.evaluate("document.activeElement.getAttribute('role')") == "grid")
    assert chosen(page) == second
    press("?")
    page.get_by_role("dialog").wait_for()
    press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    press("t")
    press("t")
    assert page.evaluate(colour) != light
    page.reload()
    assert page.evaluate(colour) != light, "it is remembered"
    press("t")
    assert page.evaluate(colour) == light
    seen.spotless()


VIEWS = (
    pytest.param({"color_scheme": "light"}, id="light"),
    pytest.param({"color_scheme": "dark"}, id="dark"),
    pytest.param(
        {"color_scheme": "light", "viewport": {"width": 360, "height": 740}, "has_touch": True}, id="phone"
    ),
)


@pytest.mark.parametrize("context", VIEWS)
def test_everybody_can_use_it(look: Any, demo: str, context: dict[str, Any]) -> None:
    """axe finds nothing, and on a phone everything fits and can be touched."""
    seen = look(demo, **context)
    page = seen.open()
    axe = AXE.read_text()
    for place in ("", f"#/topic/{TRADES}"):
        if place:
            page.evaluate("place => { location.hash = place }", place)
            page.locator(".uplot canvas").wait_for()
            page.get_by_role("heading", name="Why is it so?").wait_for()
        else:
            ready(page)
        if place == "":
            page.evaluate(axe)  # in the page's own world, as the policy knows nothing of the debugger
        found = page.evaluate(
            """async () => {
                const { violations } = await axe.run(document, {
                    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
                });
                return violations.map(({ id, nodes }) => [id, ...nodes.slice(0, 3).map((node) =>
                    `${node.target} ${node.failureSummary}`)]);
            }"""
        )
        assert found == []
        wide, seen_wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= seen_wide
        if context.get("has_touch"):
            small = page.locator(TARGETS).evaluate_all(
                """all => all.filter((each) => each.checkVisibility()).map((each) => [each, each.getBoundingClientRect()])
                    .filter(([, { width, height }]) => width > 0 && (height < 39.5 || width < 39.5))
                    .map(([each, { width, height }]) => `${each.outerHTML.slice(0, 80)} ${width} x ${height}`)"""
            )
            assert small == []
    seen.spotless()


def test_it_survives_a_daemon_that_is_killed(look: Any, daemon: Any, chromium: object) -> None:
    port = free_port()
    command = (*DEMO, "--listen", f"127.0.0.1:{port}")
    first = daemon(*command)
    seen = look(first.base)
    page = ready(seen.open())
    seen.spotless()
    first.kill()
    page.get_by_text("The daemon is out of reach.").wait_for()
    until(page, lambda: re.search(r"trying again in \d+ s", text(page, ".banner")))
    until(page, lambda: page.title().startswith("unreachable"))
    assert page.evaluate("document.body.className") == "lost", "what is shown is of the past, and looks so"
    assert page.locator("#icon").get_attribute("href").endswith("icon-down.svg")

    daemon(*command)
    with suppress(PlaywrightTimeout):  # on a busy machine the page has come back by itself by now
        page.get_by_role("button", name="Try now").click(timeout=2_000)
    ready(page)
    page.locator(".banner").wait_for(state="hidden")
    page.get_by_text("The daemon began anew").wait_for()
    trade = row(page, "BTC-USDT", "trade")
    before = trade.locator(".last").inner_text()
    until(page, lambda: trade.locator(".last").inner_text() != before)
    assert page.title() == "pricefeedd"
    assert page.evaluate("document.body.className") == ""
    seen.fine()


def test_a_daemon_with_keys_is_opened_with_one(look: Any, daemon: Any, chromium: object) -> None:
    keys = (
        '[{name = "me", key = {env = "ME"}, scopes = ["read"]},'
        ' {name = "ops", key = {env = "OPS"}, scopes = ["read", "admin"]}]'
    )
    environ = {
        "PRICEFEEDD__WEB__PUBLIC_READ": "false",
        "PRICEFEEDD__WEB__KEYS": keys,
        "ME": "sesame",
        "OPS": "open",
    }
    base = daemon(*DEMO, "--listen", "127.0.0.1:0", environ=environ).base
    seen = look(base)
    page = seen.open()
    page.get_by_role("heading", name="This daemon asks for a key").wait_for()
    assert page.locator("#overview").is_hidden()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("the key is not known here").wait_for()
    page.get_by_role("button", name="Go on without").click()
    page.get_by_role("button", name="Go on without").wait_for(state="hidden")
    assert page.locator("#overview").is_hidden(), "here none is not enough"
    page.get_by_label("Key", exact=True).fill("sesame")
    page.get_by_role("button", name="Open").click()
    ready(page)
    page.get_by_text("need a key with the scope admin").wait_for()
    assert page.locator(".markets tbody tr").count() == 3
    page.get_by_role("button", name="Use another key").click()
    page.get_by_label("Key", exact=True).fill("open")
    page.keyboard.press("Enter")
    page.locator(".card h3", has_text="Leader").wait_for()
    assert "sesame" not in page.url
    page.reload()
    ready(page)
    page.locator(".card h3", has_text="Leader").wait_for()
    assert [url for url in seen.asked if "open" in url and "/ws?" not in url] == [], (
        "in a header, but for the WebSocket"
    )
    seen.fine()

    given = look(base)
    page = ready(given.open("?api_key=sesame#/"))
    assert "sesame" not in page.url
    given.fine()


def test_what_others_say_is_text(look: Any, demo: str) -> None:
    """Names, reasons and log lines come from venues: here from one that means harm."""
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp;'
    seen = look(demo)

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: spoil(each) for name, each in value.items()}
        if isinstance(value, list):
            return [spoil(each) for each in value]
        return value

    def feeds(route: Any) -> None:
        body = route.fetch().json()
        row = body["feeds"][0]
        bad = {"topic": f"trade:{evil}:{evil}", "channel": "trade", "venue": evil, "instrument": evil}
        body["feeds"].insert(0, {**row, **bad, "state": "down", "last": {"price": evil, "side": evil}})
        route.fulfill(json=body)

    def status(route: Any) -> None:
        body = route.fetch().json()
        (venue,) = body["venues"].values()
        venue[evil] = {**venue["spot"], "last_error": evil, "circuit_state": evil}
        body["reasons"] = [evil]
        body["plugins"].append({"name": evil, "status": "broken", "reason": evil})
        body["sinks"] = {
            evil: {"state": evil, "reason": evil, "delivered": 1, "dropped": {evil: 1}, "waiting": 0}
        }
        body["store"] = {"state": evil, evil: evil}
        route.fulfill(json=body)

    gap = {"venue": evil, "instrument": evil, "channel": evil, "from": 1, "to": 2, "reason": evil}
    line = {"number": 1, "time": "2026-01-01T00:00:00Z", "level": evil, "message": evil, evil: evil}
    seen.page.route("**/feeds", feeds)
    seen.page.route("**/status", status)
    gaps = {"total": 1, "limit": 1, "offset": 0, "stored": False}
    gaps["gaps"] = [{**gap, "recovered": 0, "missing": None, "recorded_at": 3}]
    seen.page.route("**/gaps?*", lambda route: route.fulfill(json=gaps))
    seen.page.route("**/log?*", lambda route: route.fulfill(json={"lines": [line], "next": 1, "missed": 0}))
    page = ready(seen.open())
    until(page, lambda: page.locator(".rows [role=row] .instrument").first.inner_text() == evil)
    for place in ("#venues-body", "#system-body", "#events-body", "#gaps-body", "#banners"):
        until(page, lambda place=place: evil in text(page, place))
    page.locator(".rows [role=row]").first.click()
    page.get_by_role("heading", name=evil, exact=True).wait_for()
    assert page.locator("img, main script").count() == 0
    assert evil in page.title()
    seen.fine()


def test_ten_thousand_topics_are_a_list_like_any_other(look: Any, demo: str) -> None:
    seen = look(demo)

    def feeds(route: Any) -> None:
        body = route.fetch().json()
        row = body["feeds"][0]
        more = [
            {**row, "topic": f"trade:binance:A{i:05}-USDT", "channel": "trade", "instrument": f"A{i:05}-USDT"}
            for i in range(10_000)
        ]
        route.fulfill(json={**body, "feeds": body["feeds"] + more})

    seen.page.route("**/feeds", feeds)
    page = ready(seen.open())
    until(page, lambda: text(page, "#topics-count") == "10\u202f021")
    assert page.locator("[role=grid]").get_attribute("aria-rowcount") == "10022"
    assert page.locator(".rows [role=row]").count() < 80
    took_ms = page.evaluate(
        """async () => {
            const scroller = document.querySelector("[role=grid]");
            const next = () => new Promise(requestAnimationFrame);
            const times = [];
            for (let i = 1; i <= 40; i += 1) {
                await next();
                const began = performance.now();
                scroller.scrollTop = (scroller.scrollHeight / 40) * i;
                scroller.dispatchEvent(new Event("scroll"));
                times.push(performance.now() - began);
            }
            return times.sort((a, b) => a - b)[20];
        }"""
    )
    assert took_ms < 16, "the median of what a jump costs"
    page.locator("[role=grid]").focus()
    page.keyboard.press("End")
    until(page, lambda: chosen(page) == "ETH-USDT trade")
    page.get_by_label("Search topics").fill("a09999")
    until(page, lambda: text(page, "#topics-count") == "1 of 10\u202f021")
    assert page.locator(".rows [role=row]").count() < 80
    seen.spotless()


def test_a_standby_is_left_in_peace_until_it_leads(look: Any, daemon: Any, chromium: object) -> None:
    standing = daemon(str(HERE / "standing_by.py"), word="serving on")
    seen = look(standing.base)
    page = seen.open()
    page.get_by_text("This daemon stands by.").wait_for()
    page.get_by_text("other:7:abc leads").first.wait_for()
    assert text(page, "#ready") == "Standby"
    sockets = [url for url in seen.asked if url.startswith("ws")]
    asked = len(seen.asked)
    until(page, lambda: len(seen.asked) > asked + 3)
    assert [url for url in seen.asked if url.startswith("ws")] == sockets, "it does not knock again and again"

    def word() -> None:
        standing.process.stdin.write("go\n")
        standing.process.stdin.flush()

    word()
    ready(page)
    page.locator(".banner").wait_for(state="hidden")
    word()
    page.get_by_text("This daemon stands by.").wait_for()
    seen.fine()
