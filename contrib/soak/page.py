"""A browser that keeps the status page open: page.py URL. A line on stdin asks whether it ticks; it answers in JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys

from playwright.sync_api import sync_playwright

#: What is on the page changes within this time while data flow.
_LOOK_MS = 3_000


def main() -> None:
    with sync_playwright() as playwright:
        # The system's own if there is one, else what `playwright install chromium` brought.
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        root = os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(sys.argv[1])
        page.wait_for_timeout(_LOOK_MS)
        print(json.dumps({"ready": "page"}), flush=True)
        while sys.stdin.readline():
            before = page.inner_text("body")
            page.wait_for_timeout(_LOOK_MS)
            ticks = page.inner_text("body") != before
            heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize / 1e6 : 0")
            print(json.dumps({"ticks": ticks, "heap_mb": heap, "errors": errors}), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
