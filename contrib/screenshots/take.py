"""Take the screenshots of the status page: pricefeedd against simulated venues, seen in Chromium.

    uv run python contrib/screenshots/take.py           writes status-*.png beside this file
    uv run python contrib/screenshots/take.py --serve   only serves, to be looked at by hand

Needs Debian's `chromium`, and `fonts-inter` for text as most systems show it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from playwright.sync_api import Browser, sync_playwright

from pricefeedd.config import build
from pricefeedd.loader import load_plugins
from pricefeedd.logs import configure
from pricefeedd.service import Daemon
from pricefeedd.testing.market import Market

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")

#: A sparkline shows two minutes.
WATCHED_S = 100.0
#: The past of a market, and how often each of its instruments moved in a minute of it.
HISTORY_MINUTES = 150
STEPS_PER_MINUTE = 90
MOST_BYTES = 200_000

BASES = ("BTC", "ETH", "SOL")
CHANNELS = ("trade", "quote", "ticker", "candle_1m", "book")
#: Venues, how lively each is in steps per second and instrument, and what of it is subscribed.
VENUES: dict[str, tuple[float, dict[str, tuple[str, ...]]]] = {
    "binance": (8.0, {"spot": (*CHANNELS, "candle_5m"), "linear": (*CHANNELS, "liquidation")}),
    "bybit": (6.0, {"spot": CHANNELS, "linear": CHANNELS}),
    "coinbase": (3.0, {"spot": ("trade", "quote", "ticker", "book")}),
    "kraken": (2.0, {"spot": CHANNELS}),
    "okx": (5.0, {"spot": CHANNELS, "linear": CHANNELS}),
}

#: System fonts differ; this is what the page's first choice stands for here.
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir>
<alias binding="strong"><family>ui-sans-serif</family><prefer><family>Inter</family></prefer></alias>
</fontconfig>"""


@attrs.frozen(kw_only=True)
class Shot:
    """One picture."""

    name: str
    scheme: str
    size: tuple[int, int]
    place: str = "#/"
    scale: float = 1.0


SHOTS = (
    Shot(name="light", scheme="light", size=(1360, 1060)),
    Shot(name="dark", scheme="dark", size=(1360, 900), place="#/topic/trade:binance:BTC-USDT"),
    Shot(name="phone", scheme="light", size=(390, 844), scale=1.5),
)


def go_through(market: Market) -> None:
    """Let a market live through its past."""
    steps = HISTORY_MINUTES * STEPS_PER_MINUTE
    now_ns, each_ns = time.time_ns(), 60_000_000_000 // STEPS_PER_MINUTE
    for step in range(steps, 0, -1):
        for _ in market.step(now_ns - step * each_ns):
            pass


async def serve(folder: Path, listen: str, act: Any) -> None:
    """Run a daemon against the venues, and do something once it serves."""
    plugins = load_plugins()
    venues: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:
        for seed, (name, (rate, subscribed)) in enumerate(VENUES.items()):
            make = plugins.fakes[name]
            listings = [
                each for each in make.default_listings() if each.base in BASES and each.market in subscribed
            ]
            market = Market(listings, seed=seed, keep=2000)
            go_through(market)
            fake = make(market)
            await nursery.start(fake.run)
            nursery.start_soon(fake.play, rate)
            venues[name] = {
                "endpoints": dict(fake.endpoints()),
                "subscribe": [
                    {"market": market, "instruments": ["*"], "channels": list(channels)}
                    for market, channels in subscribed.items()
                ],
            }
        tree = {
            "web": {"listen": [listen]},
            "venues": venues,
            "store": {"url": f"sqlite:///{folder}/pricefeedd.db"},
            "sinks": {"zmq": {"bind": "tcp://127.0.0.1:*"}},
        }
        config = build(
            tree,
            venues=plugins.venues,
            sinks=plugins.sinks,
            electors=plugins.electors,
            environ={"STATE_DIRECTORY": str(folder)},
            source="take.py",
        )
        binds = await nursery.start(partial(Daemon(config, plugins).run, signals=False))
        await act(binds[0])
        nursery.cancel_scope.cancel()


def take(base: str, folder: Path) -> None:
    """Look at the page for a while, and take the pictures."""
    fonts = folder / "fonts.conf"
    fonts.write_text(FONTS.format(cache=folder / "fonts"))
    environ = {**os.environ, "FONTCONFIG_FILE": str(fonts)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS), env=environ)
        pages = [(shot, _open(browser, base, shot)) for shot in SHOTS]
        pages[0][1].wait_for_timeout(WATCHED_S * 1000)
        for shot, page in pages:
            path = HERE / f"status-{shot.name}.png"
            page.bring_to_front()
            page.wait_for_timeout(1500)
            page.screenshot(path=path)
        browser.close()


def _open(browser: Browser, base: str, shot: Shot) -> Any:
    width, height = shot.size
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=shot.scheme,
        device_scale_factor=shot.scale,
        timezone_id="UTC",
    )
    page.goto(f"{base}/{shot.place}")
    return page


async def _main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        async def shoot(base: str) -> None:
            await trio.to_thread.run_sync(take, base, folder)

        async def wait(base: str) -> None:
            print(f"{base}/")
            await trio.sleep_forever()

        await serve(folder, arguments.listen, wait if arguments.serve else shoot)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take the screenshots of the status page.")
    parser.add_argument("--serve", action="store_true", help="only serve")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT to serve on")
    configure("warning", "auto")
    trio.run(_main, parser.parse_args())
    sizes = {path.name: path.stat().st_size for path in sorted(HERE.glob("status-*.png"))}
    print(sizes)
    if max(sizes.values()) > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES} bytes: take a smaller part of the page")
