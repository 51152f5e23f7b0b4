#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["websockets>=15"]
# ///
"""Reads candles in the dialect `ohlcv`, with plain `websockets` on asyncio. It imports nothing of pricefeedd: copy it.

    uv run ohlcv_client.py ws://127.0.0.1:8765/ws/ohlcv binance spot BTCUSDT ETHUSDT --limit 20

Symbols are the venue's own. It comes back when the connection ends. Data goes to stdout and everything else to
stderr. Exit codes: 0, 1 the daemon refused, 2 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

Message = dict[str, Any]

#: The ceiling of the wait before a new connection doubles from the first to the last of these.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0

#: Close codes from here on say that coming back does not help.
REFUSED = 4500


class RefusedError(Exception):
    """The daemon does not want us, and will not if we ask again."""


class Client:
    """Reads the candles of some symbols until there was enough."""

    def __init__(
        self, url: str, exchange: str, contract_type: str, symbols: list[str], *, limit: int, as_json: bool
    ) -> None:
        self._url = url
        self._request = {"exchange": exchange, "contract_type": contract_type, "symbols": symbols}
        # The daemon counts as well, and would end the subscription by itself; we then end the connection. Of what
        # was asked for, so much is left when the connection had to be made anew.
        self._endless = limit == 0
        self._left = limit
        self._as_json = as_json
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
        await socket.send(json.dumps({**self._request, "limit": self._left}))
        subscribed = False
        while True:
            message = json.loads(await socket.recv())
            match message["type"]:
                case "subscribed":
                    subscribed = True
                    say(f"subscribed: {' '.join(message['symbols'])}")
                case "quote":
                    self._flows = True
                    print(json.dumps(message) if self._as_json else line(message), flush=True)
                    if not self._endless:
                        self._left -= 1
                        if self._left == 0:
                            return
                case "error":
                    # About one symbol, about the request, or the last words before a close.
                    say(message["message"])
                    if not subscribed and not await self._closing(socket):
                        raise RefusedError("none of the symbols can be had")

    async def _closing(self, socket: ClientConnection) -> bool:
        """Return whether the daemon ends the connection now; raises ConnectionClosed if it did already."""
        try:
            async with asyncio.timeout(1):
                while True:
                    say(json.loads(await socket.recv()).get("message", ""))
        except TimeoutError:
            return False


def line(quote: Message) -> str:
    """Return a line for a person."""
    start = datetime.fromtimestamp(quote["timestamp"] / 1000, UTC).strftime("%H:%M")
    numbers = " ".join(f"{name}={quote[name]}" for name in ("open", "high", "low", "close", "volume"))
    return f"{quote['symbol']} {start} {numbers}{' closed' if quote['is_closed'] else ''}"


def say(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description="Reads candles of a pricefeedd daemon in the dialect ohlcv.")
    parser.add_argument("url", help="such as ws://127.0.0.1:8765/ws/ohlcv")
    parser.add_argument("exchange", help="such as binance")
    parser.add_argument("contract_type", help="spot, linear or usdm, inverse or coinm, swap")
    parser.add_argument("symbols", nargs="+", help="as the venue writes them, such as BTCUSDT")
    parser.add_argument("--limit", type=int, default=0, help="end after so many quotes")
    parser.add_argument("--json", action="store_true", help="print messages as JSON, one a line")
    given = parser.parse_args()
    client = Client(
        given.url,
        given.exchange,
        given.contract_type,
        given.symbols,
        limit=given.limit,
        as_json=given.json,
    )
    try:
        asyncio.run(client.run())
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
