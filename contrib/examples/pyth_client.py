#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["websockets>=15"]
# ///
"""Reads oracle prices in the dialect `pyth`, with plain `websockets` on asyncio. It imports nothing of pricefeedd: copy it.

    uv run pyth_client.py ws://127.0.0.1:8765/ws/pyth --limit 20
    uv run pyth_client.py ws://127.0.0.1:8765/ws/pyth 0xe62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43

Without feeds it asks which there are, and reads all. It comes back when the connection ends. Data goes to stdout and
everything else to stderr. Exit codes: 0, 1 the daemon refused, 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

Message = dict[str, Any]

#: The ceiling of the wait before a new connection doubles from the first to the last of these.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0

#: Close codes from here on say that coming back does not help.
REFUSED = 4500

#: Feeds in one request: the daemon takes 64 kB.
FEEDS_AT_ONCE = 500


class RefusedError(Exception):
    """The daemon does not want us, and will not if we ask again."""


class Client:
    """Reads feeds until there was enough."""

    def __init__(self, url: str, feeds: list[str], *, limit: int | None, as_json: bool) -> None:
        self._url = url
        self._feeds = feeds
        self._left = limit
        self._as_json = as_json
        self._symbols: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._flows = False
        key = os.environ.get("PRICEFEEDD_API_KEY")
        # A header and not `?api_key=`: URLs end up in logs.
        self._headers = {"X-API-Key": key} if key else {}

    async def run(self) -> None:
        """Read, and come back when the connection ends.

        Raises:
            RefusedError: There is no use in that.
        """
        attempt = 0
        while True:
            self._flows = False
            try:
                async with connect(
                    self._url, additional_headers=self._headers, compression=None, max_size=None
                ) as socket:
                    await self._read(socket)
                    return
            except InvalidURI as e:
                raise RefusedError(str(e)) from e
            except ConnectionClosed as e:
                if e.rcvd is not None and e.rcvd.code >= REFUSED:
                    raise RefusedError(f"{e.rcvd.code} {e.rcvd.reason}") from e
                why = str(e)
            except (OSError, InvalidHandshake) as e:
                why = str(e) or type(e).__name__
            # Full jitter: all clients lose the daemon at the same moment, and must not return at the same one.
            attempt = 0 if self._flows else attempt + 1
            pause_s = random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt))
            say(f"{why}; trying again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)

    async def _read(self, socket: ClientConnection) -> None:
        # The names of feeds are in this list alone; updates bear ids.
        await socket.send(json.dumps({"type": "get_available_feeds"}))
        while True:
            message = json.loads(await socket.recv())
            match message["type"]:
                case "available_feeds":
                    self._symbols = {feed["id"]: feed["symbol"] for feed in message["feeds"]}
                    await self._subscribe(socket)
                case "price_update":
                    self._flows = True
                    print(json.dumps(message) if self._as_json else self._line(message["data"]), flush=True)
                    if self._left is not None:
                        self._left -= 1
                        if self._left <= 0:
                            return
                case "error":
                    # Also the last words before a close, whose code then says more.
                    say(message["message"])
                    self._note_unknown(message.get("feed_id"))
                case "connection_established" | "subscription_confirmed":
                    say(f"{message['type']}: {message.get('feed_id') or message['message']}")

    async def _subscribe(self, socket: ClientConnection) -> None:
        feeds = self._feeds or list(self._symbols)
        if not feeds:
            raise RefusedError("there are no feeds")
        for start in range(0, len(feeds), FEEDS_AT_ONCE):
            piece = [{"feed_id": feed} for feed in feeds[start : start + FEEDS_AT_ONCE]]
            await socket.send(json.dumps({"type": "subscribe_multiple", "subscriptions": piece}))

    def _note_unknown(self, feed: str | None) -> None:
        if feed is not None:
            self._unknown.add(feed)
            if self._unknown.issuperset(self._feeds):
                raise RefusedError("none of the feeds can be had")

    def _line(self, data: Message) -> str:
        symbol = self._symbols.get(data["id"], data["id"])
        return f"{symbol} {data['price']} ± {data['conf']} {data['status']} {data['publish_time']}"


def say(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description="Reads prices of a pricefeedd daemon in the dialect pyth.")
    parser.add_argument("url", help="such as ws://127.0.0.1:8765/ws/pyth")
    parser.add_argument("feeds", nargs="*", help="ids of feeds, with or without 0x; all by default")
    parser.add_argument("--limit", type=int, help="end after so many prices")
    parser.add_argument("--json", action="store_true", help="print messages as JSON, one a line")
    given = parser.parse_args()
    try:
        asyncio.run(Client(given.url, given.feeds, limit=given.limit, as_json=given.json).run())
    except RefusedError as e:
        say(str(e))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `| head` had enough; point stdout elsewhere, or Python complains when it flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
